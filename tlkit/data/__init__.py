"""Labeled photos, sounds and arrays: where they come from, how they are split, and the batches a network sees.

>>> from tlkit import data
>>> splits = data.load("embedded", size=(32, 32), channels=1)
>>> splits.train.read([0, 1]).shape
(2, 32, 32, 1)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlkit.data.augmentation import augment, augment_array, augment_sound, mix, switched_on
    from tlkit.data.example_set import ExampleSet, NamedExamples
    from tlkit.data.images import decode
    from tlkit.data.loading import load, whole
    from tlkit.data.photos import Photos, Splits
    from tlkit.data.pipeline import batches, readable_errors
    from tlkit.data.sources import Examples, load_source
    from tlkit.data.views import Mirrored, View, Views, changed

__all__ = [
    "ExampleSet", "Examples", "Mirrored", "NamedExamples", "Photos", "Splits", "View", "Views", "augment",
    "augment_array", "augment_sound", "batches", "changed", "decode", "load", "load_source", "mix", "readable_errors",
    "switched_on", "whole",
]  # fmt: skip

_HOMES = {
    "ExampleSet": "example_set",
    "Examples": "sources",
    "Mirrored": "views",
    "NamedExamples": "example_set",
    "Photos": "photos",
    "Splits": "photos",
    "View": "views",
    "Views": "views",
    "augment": "augmentation",
    "augment_array": "augmentation",
    "augment_sound": "augmentation",
    "batches": "pipeline",
    "changed": "views",
    "decode": "images",
    "load": "loading",
    "load_source": "sources",
    "mix": "augmentation",
    "readable_errors": "pipeline",
    "switched_on": "augmentation",
    "whole": "loading",
}


def __getattr__(name: str) -> Any:
    # Lazy, because reading photos needs neither OpenCV nor what changes them for training.
    if name in _HOMES:
        return getattr(importlib.import_module(f"tlkit.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tlkit.data' has no attribute {name!r}")
