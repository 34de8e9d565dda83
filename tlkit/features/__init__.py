"""Features: the outputs of a frozen network for each example, computed once and kept in the activation store."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlkit.features.digests import identity
    from tlkit.features.estimates import Estimate, estimate, seconds_each
    from tlkit.features.examples import Features, Rows
    from tlkit.features.extractor import Extractor, pooled

__all__ = ["Estimate", "Extractor", "Features", "Rows", "estimate", "identity", "pooled", "seconds_each"]

_HOMES = {
    "Estimate": "estimates",
    "Extractor": "extractor",
    "Features": "examples",
    "Rows": "examples",
    "estimate": "estimates",
    "identity": "digests",
    "pooled": "extractor",
    "seconds_each": "estimates",
}


def __getattr__(name: str) -> Any:
    # Lazy, because reading the store needs no Keras.
    if name in _HOMES:
        return getattr(importlib.import_module(f"tlkit.features.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tlkit.features' has no attribute {name!r}")
