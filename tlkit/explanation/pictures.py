"""Pictures of heatmaps: brought to the size of a photo, and laid over it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tlkit.pages import data_uri

RAMP = np.array([[30, 10, 90], [150, 30, 110], [230, 90, 40], [255, 190, 30], [255, 250, 160]], float)
"""Colors from 0 to 1, of rising lightness, so that they are told apart in gray too."""


def resized(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Bring a map to another number of cells, linearly between the centers of its own.

    Shapes:
        values: (*cells), one to three axes
        returns: (*shape), float32

    >>> resized(np.array([0.0, 1.0]), [4]).round(2).tolist()
    [0.0, 0.25, 0.75, 1.0]
    """
    result = np.asarray(values, np.float32)
    for axis, count in enumerate(shape):
        have = result.shape[axis]
        if have == count:
            continue
        place = np.clip((np.arange(count) + 0.5) * have / count - 0.5, 0, have - 1)
        low = np.floor(place).astype(int)
        share = (place - low).astype(np.float32).reshape([-1 if each == axis else 1 for each in range(result.ndim)])
        lower, upper = (np.take(result, np.minimum(each, have - 1), axis=axis) for each in (low, low + 1))
        result = lower * (1 - share) + upper * share
    return result


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a heatmap over a photo: the photo in gray, and colored the more, the more a place speaks for the class.

    Shapes:
        pixels: (height, width, 1 | 3), uint8
        heat: (*cells), from 0 to 1
        returns: (height, width, 3), uint8
    """
    amount = resized(heat, pixels.shape[:2])[..., None]
    gray = pixels.astype(np.float32).mean(axis=-1, keepdims=True)
    colors = np.stack([np.interp(amount[..., 0], np.linspace(0, 1, len(RAMP)), each) for each in RAMP.T], axis=-1)
    weight = 0.2 + 0.5 * amount
    return np.asarray(np.clip(gray * (1 - weight) + colors * weight, 0, 255), np.uint8)


def uri(pixels: np.ndarray, side: int = 224) -> str:
    """Write a picture as a data URI, a JPEG whose longer side is at most `side`.

    >>> uri(np.zeros((8, 8, 3), np.uint8))[:22]
    'data:image/jpeg;base64'
    """
    image = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return data_uri("image/jpeg", buffer.getvalue())
