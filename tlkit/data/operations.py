"""Operations on the pixels of a photo, and policies: geometry as affine maps, tone as lookup tables."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import cv2
import numpy as np

from tlkit.errors import InvalidInput

cv2.setNumThreads(1)  # several photos are changed at the same time, so no core is left for threads within one

STRONGEST = {
    "identity": (0.0, 0.0),
    "shear_x": (0.3, 0.99),
    "shear_y": (0.3, 0.99),
    "translate_x": (150 / 331, 32 / 224),
    "translate_y": (150 / 331, 32 / 224),
    "rotate": (30.0, 135.0),
    "brightness": (0.9, 0.99),
    "color": (0.9, 0.99),
    "contrast": (0.9, 0.99),
    "sharpness": (0.9, 0.99),
    "posterize": (4.0, 6.0),
    "solarize": (256.0, 256.0),
    "autocontrast": (0.0, 0.0),
    "equalize": (0.0, 0.0),
}
"""The strength of each operation at magnitude 30, for RandAugment and for TrivialAugment Wide, as in torchvision:
shares of the side for translations, degrees for rotations, bits for posterize, levels for solarize."""
LEVELS = np.arange(256.0)
_ONE_WAY = ("posterize", "solarize")  # all others go in both directions
GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13  # the blur of Pillow's sharpness


def draw_operations(policy: str, magnitude: float, draws: np.ndarray) -> list[tuple[str, float]]:
    """Return the operations that a policy draws, each with its amount.

    Args:
        policy: `none`, `randaugment` or `trivialaugment`.
        magnitude: Of `randaugment`, from 0 to 30.
        draws: Numbers from 0 to 1, (2, 3): operation, strength and direction of each.

    Raises:
        InvalidInput: there is no such policy.
    """
    if policy == "none":
        return []
    if policy not in ("randaugment", "trivialaugment"):
        raise InvalidInput(f"policy is {policy!r}: none, randaugment or trivialaugment")
    trivial = policy == "trivialaugment"
    operations = []
    for which, strength, way in draws[:1] if trivial else draws:
        name = list(STRONGEST)[int(which * len(STRONGEST))]
        share = int(strength * 31) / 30 if trivial else magnitude / 30
        operations.append((name, STRONGEST[name][trivial] * share * (-1 if way < 0.5 and name not in _ONE_WAY else 1)))
    return operations


def crop_map(size: tuple[int, int], least: float, draws: np.ndarray) -> np.ndarray:
    """Return the affine map that enlarges a random part of the photo to the whole.

    Args:
        size: Of the photo, (width, height).
        least: Minimum share of the area.
        draws: Numbers from 0 to 1, (11, 2).
    """
    width, height = size
    box = _box(size, (least, 1.0), (3 / 4, 4 / 3), draws)
    if box is None:  # like torchvision: the largest part in the middle with a ratio in this range
        across, down = min(width, height * 4 / 3), min(height, width * 4 / 3)
        box = ((width - across) / 2, (height - down) / 2, across, down)
    left, top, across, down = box
    return np.array([[across / width, 0, left], [0, down / height, top], [0, 0, 1]])


def _box(
    size: tuple[int, int], areas: tuple[float, float], ratios: tuple[float, float], draws: np.ndarray
) -> tuple[float, float, float, float] | None:
    """A random box (left, top, width, height) in the photo; None where none of ten fits.

    Args:
        size: Of the photo, (width, height).
        areas: Minimum and maximum share of the photo's area.
        ratios: Minimum and maximum ratio of width to height.
        draws: Numbers from 0 to 1, (11, 2): area and ratio of each try, then the position.
    """
    width, height = size
    narrow, wide = math.log(ratios[0]), math.log(ratios[1])
    *tries, (right, down) = draws.tolist()
    for area, ratio in tries:
        pixels = width * height * (areas[0] + area * (areas[1] - areas[0]))
        root = math.exp((narrow + ratio * (wide - narrow)) / 2)
        across, along = math.sqrt(pixels) * root, math.sqrt(pixels) / root
        if across <= width and along <= height:
            return right * (width - across), down * (height - along), across, along
    return None


def affine_map(size: tuple[int, int], angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    """Return the affine map (3, 3) from the new position of a pixel to its old one, both (x, y) from 0 to `size`.

    Args:
        size: Of the photo, (width, height).
        angle: Of the rotation, in radians.
        scale: Above 1 enlarges.
        shift: To the right and down, in pixels.
    """
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    return _about_centre(size, ((cos, sin), (-sin, cos)), shift)


def _about_centre(
    size: tuple[int, int], turn: Sequence[Sequence[float]], shift: tuple[float, float] = (0, 0)
) -> np.ndarray:
    x, y = size[0] / 2, size[1] / 2
    (a, b), (c, d) = turn
    right, down = x + shift[0], y + shift[1]
    return np.array([[a, b, x - a * right - b * down], [c, d, y - c * right - d * down], [0, 0, 1]])


def move_map(size: tuple[int, int], name: str, amount: float) -> np.ndarray:
    """Return the affine map of a geometric operation of a policy; see `affine_map`."""
    if name == "rotate":
        return affine_map(size, math.radians(amount), 1, (0, 0))
    along = name.endswith("x")
    if name.startswith("shear"):
        return _about_centre(size, ((1, amount if along else 0), (0 if along else amount, 1)))
    return _about_centre(size, ((1, 0), (0, 1)), (amount * size[0], 0) if along else (0, amount * size[1]))


def resample(image: np.ndarray, moves: Sequence[np.ndarray]) -> np.ndarray:
    """Apply all maps in `moves`, in order, in one resampling."""
    height, width, _ = image.shape
    warp = functools.reduce(np.matmul, moves)[:2]
    warp[:, 2] += (warp[:, :2].sum(axis=1) - 1) / 2  # OpenCV's origin is the middle of the first pixel
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, warp, (width, height), flags=how, borderMode=cv2.BORDER_REFLECT).reshape(image.shape)


def change_tone(image: np.ndarray, name: str, amount: float) -> np.ndarray:
    """Apply an operation of a policy that moves no pixel, like Pillow."""
    factor = 1 + amount
    if name == "brightness":
        return look_up(image, LEVELS * factor)
    if name == "contrast":
        gray = image if image.shape[-1] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return look_up(image, LEVELS * factor - amount * round(cv2.mean(gray)[0]))
    if name == "color" and image.shape[-1] == 3:
        gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        return cv2.addWeighted(image, factor, gray, -amount, 0.0)
    if name == "sharpness":
        kernel = -amount * _SMOOTH
        kernel[1, 1] += factor
        return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT).reshape(image.shape)
    if name == "posterize":
        lost = round(amount)
        return look_up(image, (LEVELS.astype(int) >> lost) << lost)
    if name == "solarize":
        return look_up(image, np.where(LEVELS + amount < 256, LEVELS, 255 - LEVELS))
    if name in ("autocontrast", "equalize"):
        tables = _stretched if name == "autocontrast" else _equalized
        counts = [cv2.calcHist([plane], [0], None, [256], [0, 256]).ravel() for plane in cv2.split(image)]
        return look_up(image, np.stack([tables(each) for each in counts], axis=-1))
    return image  # identity, or the color of a grayscale photo


def look_up(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Replace each level by the value at its position in `values`, (256,) for all channels or (256, channels)."""
    table = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return cv2.LUT(image, table.reshape(1, 256, -1) if table.ndim > 1 else table).reshape(image.shape)


def _stretched(counts: np.ndarray) -> np.ndarray:
    """The lookup table of `PIL.ImageOps.autocontrast`: the darkest level becomes 0, the lightest 255."""
    first, last = np.flatnonzero(counts)[[0, -1]]
    if first == last:
        return LEVELS
    return np.floor((LEVELS - first) * (255 / (last - first)))


def _equalized(counts: np.ndarray) -> np.ndarray:
    """The lookup table of `PIL.ImageOps.equalize`: all levels become about equally frequent."""
    occurring = counts[counts > 0]
    step = int(occurring.sum() - occurring[-1]) // 255
    if not step:
        return LEVELS
    return (step // 2 + np.concatenate([[0], np.cumsum(counts[:-1])])) // step


def erase(image: np.ndarray, draws: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fill a random box with noise, in a copy of the photo."""
    box = _box((image.shape[1], image.shape[0]), (0.02, 0.33), (0.3, 3.3), draws)
    if box is None:
        return image
    left, top, across, along = box
    image = image.copy()
    hole = image[round(top) : round(top + along), round(left) : round(left + across)]
    hole[...] = np.frombuffer(rng.bytes(hole.size), np.uint8).reshape(hole.shape)
    return image
