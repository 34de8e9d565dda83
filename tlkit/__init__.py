"""tlkit: take a pretrained Keras network and a folder of labelled examples to a tracked, usable classifier."""

import importlib
from importlib import metadata
from typing import Any

__version__ = metadata.version("tlkit")

_MODULES = ("backbones", "config", "data", "errors", "evaluation", "labels", "plots", "tracking", "training")


def __getattr__(name: str) -> Any:
    # Lazy, because `import tlkit` must cost nothing: Keras alone takes seconds.
    if name in _MODULES:
        return importlib.import_module(f"tlkit.{name}")
    raise AttributeError(f"module 'tlkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*_MODULES, "__version__"]
