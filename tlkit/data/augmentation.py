"""Random changes to a training photo: one resample for what moves pixels, one lookup table for what tones them.

Sounds and arrays have fewer: what keeps the meaning of the one (to play a photo backwards) destroys the other's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image


def augment(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    flip: bool = False,
    rotation: float = 0.0,
    zoom: float = 0.0,
    shift: float = 0.0,
    brightness: float = 0.0,
    contrast: float = 0.0,
) -> np.ndarray:
    """Change a photo at random; each amount is drawn uniformly from its range.

    What moves in from outside is the photo mirrored at its border: black corners would teach the network about the
    augmentation. The same draws are made whatever is switched on, so switching one change on leaves the others alike.

    Args:
        image: The photo.
        rng: Where the draws come from.
        flip: Mirror left and right, every other time.
        rotation: Turn by up to this many degrees, either way.
        zoom: Enlarge or shrink by up to this share: 0.2 means by 0.8 to 1.2.
        shift: Move by up to this share of the height and of the width, any way.
        brightness: Lighten or darken by up to this share of the full range.
        contrast: Stretch or squeeze the values around mid-gray by up to this share.

    Shapes:
        image: (height, width, 1 | 3), uint8
        returns: the same

    >>> image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    >>> rng = np.random.default_rng(1)
    >>> [bool((augment(image, rng, flip=True) == image[:, ::-1]).all()) for _ in range(4)]
    [False, True, True, True]
    """
    mirrored = rng.random() < 0.5
    turn, scale, right, down, light, stretch = rng.uniform(-1, 1, 6)
    height, width, channels = image.shape
    warp = _warp(
        (width, height),
        mirrored and flip,
        math.radians(turn * rotation),
        1 + scale * zoom,
        (right * shift * width, down * shift * height),
    )
    if not np.array_equal(warp, np.eye(2, 3)):
        image = _resample(image, warp)
    if brightness or contrast:
        values = (np.arange(256) - 127.5) * (1 + stretch * contrast) + 127.5 + 255 * light * brightness
        table = np.clip(np.rint(values), 0, 255).astype(np.uint8).tobytes()
        image = np.frombuffer(image.tobytes().translate(table), np.uint8).reshape(height, width, channels)
    return image


def augment_sound(
    sound: np.ndarray, rng: np.random.Generator, *, shift: float = 0.0, contrast: float = 0.0
) -> np.ndarray:
    """Change a sound at random, as `augment` does a photo; what moves in is silence.

    Args:
        sound: The sound.
        rng: Where the draws come from.
        shift: Play it earlier or later by up to this share of its length.
        contrast: Play it louder or more quietly by up to this share.

    Shapes:
        sound: (samples, channels), float32
        returns: the same

    >>> sound = np.ones((4, 1), np.float32)
    >>> augment_sound(sound, np.random.default_rng(0), shift=0.9)[:, 0].tolist()
    [0.0, 1.0, 1.0, 1.0]
    """
    later, louder = rng.uniform(-1, 1, 2)
    by = round(later * shift * len(sound))
    moved = np.zeros_like(sound)
    moved[max(0, by) : len(sound) + min(0, by)] = sound[max(0, -by) : len(sound) - max(0, by)]
    return moved * np.float32(1 + louder * contrast)


def augment_array(
    array: np.ndarray, rng: np.random.Generator, *, flip: bool | Sequence[int] = False, shift: float = 0.0
) -> np.ndarray:
    """Change an array, such as a volume, at random, as `augment` does a photo, but by whole places.

    Args:
        array: The array.
        rng: Where the draws come from.
        flip: Mirror along each axis, or along those with these numbers, from 0, every other time.
        shift: Move along each axis by up to this share of its length, either way.

    Shapes:
        array: (*space, channels), any type
        returns: the same

    >>> array = np.arange(4).reshape(2, 2, 1)
    >>> augment_array(array, np.random.default_rng(0), flip=True)[..., 0].tolist()
    [[1, 0], [3, 2]]
    """
    space = array.ndim - 1
    mirrored = rng.random(space) < 0.5
    moves = rng.uniform(-1, 1, space)
    axes = range(space) if isinstance(flip, bool) else flip
    if flip is not False:
        array = np.flip(array, tuple(axis for axis in axes if mirrored[axis]))
    by = [round(move * shift * length) for move, length in zip(moves, array.shape, strict=False)]
    padded = np.pad(array, [(max(0, n), max(0, -n)) for n in by] + [(0, 0)], mode="symmetric")
    window = [slice(max(0, -n), max(0, -n) + length) for n, length in zip(by, array.shape, strict=False)]
    return padded[tuple(window)]


def augmentation(kind: str) -> Callable[..., np.ndarray]:
    """Choose the function that changes examples of a kind: photos, sounds or arrays.

    >>> augmentation("sounds").__name__
    'augment_sound'
    """
    functions: dict[str, Callable[..., np.ndarray]] = {
        "photos": augment,
        "sounds": augment_sound,
        "arrays": augment_array,
    }
    return functions[kind]


def _warp(size: tuple[int, int], flip: bool, angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    """The affine map (2, 3) from where a pixel goes back to where it comes from, both as (x, y) from 0 to `size`."""
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]]) / scale
    if flip:
        turn[0] = -turn[0]
    centre = np.array(size) / 2
    return np.column_stack([turn, centre - turn @ (centre + shift)])


def _resample(image: np.ndarray, warp: np.ndarray) -> np.ndarray:
    height, width, channels = image.shape
    corners = warp @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    beyond = max(0.0, -corners.min(), *(corners.max(axis=1) - (width, height)))
    if beyond > 1e-6:
        margin = math.ceil(beyond) + 1
        image = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
        warp = warp + np.array([0, 0, margin])
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    moved = picture.transform((width, height), Image.Transform.AFFINE, tuple(warp.ravel()), Image.Resampling.BILINEAR)
    return np.asarray(moved).reshape(height, width, channels)
