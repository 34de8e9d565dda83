"""The modalities: what an example can be. A new one is a file beside this one, and its name in `MODALITIES`."""

from __future__ import annotations

import numpy as np

from tlkit.data.modalities.arrays import ARRAYS
from tlkit.data.modalities.features import FEATURES
from tlkit.data.modalities.modality import Files, Framing, Modality, Reading, Requests, Shape
from tlkit.data.modalities.nodes import NODES
from tlkit.data.modalities.photos import PHOTOS
from tlkit.data.modalities.sounds import SOUNDS
from tlkit.errors import InvalidInput

__all__ = [
    "MODALITIES", "PHOTOS", "Files", "Framing", "Modality", "Reading", "Requests", "Shape", "of_arrays", "of_files",
    "row",
]  # fmt: skip

MODALITIES: dict[str, Modality] = {each.name: each for each in (PHOTOS, SOUNDS, ARRAYS, NODES, FEATURES)}
"""The rows by their stored names. Files without a known suffix are taken for the first row."""


def row(name: str) -> Modality:
    """Return the row of a modality.

    Raises:
        InvalidInput: there is no such modality.

    >>> row("sounds").singular
    'sound'
    """
    if name not in MODALITIES:
        raise InvalidInput(f"kind is {name!r}; give one of {', '.join(MODALITIES)}")
    return MODALITIES[name]


def of_files() -> list[Modality]:
    """Return the rows that have files, in the order of the table.

    >>> [each.name for each in of_files()]
    ['photos', 'sounds']
    """
    return [each for each in MODALITIES.values() if each.files]


def of_arrays(values: np.ndarray) -> Modality:
    """Return the row of values in memory: uint8 with 1 or 3 channels after two axes of space are photos, else arrays.

    Shapes:
        values: (n, *space, channels)

    >>> of_arrays(np.zeros((2, 8, 8, 3), np.uint8)).name, of_arrays(np.zeros((2, 8, 8, 3), np.float32)).name
    ('photos', 'arrays')
    """
    pixels = values.dtype == np.uint8 and values.ndim == 4 and values.shape[-1] in (1, 3)
    return PHOTOS if pixels else ARRAYS
