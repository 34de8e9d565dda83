"""Labelled photos: where they come from, how they are checked and split, and the batches a network sees.

>>> splits = load("embedded", size=(32, 32), channels=1)
>>> splits.train.read([0, 1]).shape
(2, 32, 32, 1)
"""

from tlkit.data.augmentation import augment
from tlkit.data.images import decode
from tlkit.data.photos import Photos, Splits, load
from tlkit.data.pipeline import batches, readable_errors

__all__ = ["Photos", "Splits", "augment", "batches", "decode", "load", "readable_errors"]
