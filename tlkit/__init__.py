"""tlkit: take a pretrained Keras network and a folder of labeled examples to a tracked, usable classifier."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib import machinery, metadata
from types import ModuleType
from typing import Any

__version__ = metadata.version("tlkit")

_MODULES = (
    "anatomy",
    "arithmetic",
    "backbones",
    "builders",
    "config",
    "data",
    "errors",
    "evaluation",
    "export",
    "features",
    "labels",
    "layers",
    "plots",
    "probes",
    "reference",
    "serving",
    "tracking",
    "training",
    "tuning",
)


def __getattr__(name: str) -> Any:
    # Lazy, because `import tlkit` must cost nothing: Keras alone takes seconds.
    if name in _MODULES:
        return importlib.import_module(f"tlkit.{name}")
    raise AttributeError(f"module 'tlkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*_MODULES, "__version__"]


class _AfterKeras(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports tlkit's layers as soon as Keras is imported, whichever of the two a program imports first.

    Keras loads a model with layers that are not its own only where they have been imported, and `import tlkit` alone
    must not load Keras.
    """

    asking = False

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> machinery.ModuleSpec | None:
        if name != "keras" or self.asking:
            return None
        self.asking = True  # the others, this time
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.asking = False
        if spec is not None and spec.loader is not None:
            self.loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        sys.meta_path.remove(self)
        importlib.import_module("tlkit.layers")

    def __getattr__(self, name: str) -> Any:  # `get_source` and whatever else others ask Keras' own loader for
        if name == "loader":  # not found yet
            raise AttributeError(name)
        return getattr(self.loader, name)


if "keras" in sys.modules:
    importlib.import_module("tlkit.layers")
else:
    sys.meta_path.insert(0, _AfterKeras())
