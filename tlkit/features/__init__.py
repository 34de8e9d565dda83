"""Features: what a frozen network gives for each photo, computed once and kept in the activation store."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlkit.features.extractor import Extractor, Features, Rows, estimate, identity, pooled

__all__ = ["Extractor", "Features", "Rows", "estimate", "identity", "pooled"]


def __getattr__(name: str) -> Any:
    # Lazy, because who looks into the store needs no Keras.
    if name in __all__:
        return getattr(importlib.import_module("tlkit.features.extractor"), name)
    raise AttributeError(f"module 'tlkit.features' has no attribute {name!r}")
