"""Labeled photos, sounds and arrays: where they come from, how they are split, and the batches a network sees.

>>> splits = load("embedded", size=(32, 32), channels=1)
>>> splits.train.read([0, 1]).shape
(2, 32, 32, 1)
"""

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
