"""How alike two photos are once one is laid onto the other: moved, scaled and, perhaps, mirrored.

>>> rng = np.random.default_rng(0)
>>> photo = cv2.resize(rng.integers(0, 256, (12, 12, 3), np.uint8), (96, 96))
>>> first, second = thumbnail(photo), thumbnail(photo[8:88, 4:84, :][:, ::-1])
>>> alike(first, second) > ALIKE
True
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

SIDE = 48  # pixels of a thumbnail, and the least that a photo must have
ALIKE = 0.82  # correlation from which on two photos are near copies; benchmarks/near_copies.py measures it
_CORE = 0.6  # of a photo's side: its centre, which is in every crop of 80 % of the side
_SCALES = 1.08 ** np.arange(-4, 5)  # of one photo in the other
_HOPELESS = 0.45  # correlation of centres, at half of the resolution, below which nothing finer is tried
_REPEATED, _REGULARITY = 0.8, 0.11  # correlation of a photo with itself, shifted; what is then taken off
_FLAT = 8.0  # standard deviation, of 255, below which structure counts for less: it is noise, or a shadow


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Squeeze a photo to a small square.

    Shapes:
        pixels: (height, width, 1 | 3), uint8
        returns: (SIDE, SIDE, 3), uint8
    """
    small = cv2.resize(np.ascontiguousarray(pixels), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return small if small.ndim == 3 else cv2.cvtColor(small, cv2.COLOR_GRAY2RGB)


def alike(first: np.ndarray, second: np.ndarray) -> float:
    """Correlate two photos where they overlap once the first is moved, scaled and perhaps mirrored onto the second.

    What is correlated is the structure of the three colors, so brightness and contrast do not matter. 1 is the same
    photo; what a photo of another thing has depends on how much structure there is, mostly below 0.6. Patterns that
    repeat, such as chequers, fit others of the kind: if both photos are such, `_REGULARITY` is taken off.

    Shapes:
        first: (SIDE, SIDE, 3), uint8, a `thumbnail`
        second: the same
    """
    structures = _structure(first), _structure(second)
    correlation = _alike(*structures)
    return correlation - _REGULARITY if correlation >= ALIKE and all(map(_repeats, structures)) else correlation


def _repeats(structure: np.ndarray) -> bool:
    """Whether a photo's centre is almost the same somewhere else in it."""
    edge = round(SIDE * (1 - _CORE) / 2)
    fits = cv2.matchTemplate(structure, structure[edge : SIDE - edge, edge : SIDE - edge], cv2.TM_CCOEFF_NORMED)
    fits[edge - 3 : edge + 4, edge - 3 : edge + 4] = -1  # its own place
    return float(fits.max()) > _REPEATED


def _structure(thumbnail: np.ndarray) -> np.ndarray:
    """The differences from the surroundings, divided by how much these vary."""
    values = thumbnail.astype(np.float32)
    values -= cv2.GaussianBlur(values, (0, 0), SIDE / 12)
    local = cv2.GaussianBlur((values * values).mean(axis=2), (0, 0), SIDE / 12)
    return values / np.sqrt(local + _FLAT**2)[..., None]


class _Alignment(NamedTuple):
    correlation: float
    scale: float  # of the first photo in the second
    x: float  # of the first photo's centre in the second, in pixels
    y: float


def _alike(first: np.ndarray, second: np.ndarray) -> float:
    half, best, oriented = _halved(second), _Alignment(-1, 1, 0, 0), first
    for image in (first, np.ascontiguousarray(first[:, ::-1])):
        rough = max(place.correlation for place in _place(_halved(image), half, _SCALES[::2]))
        if rough < _HOPELESS:
            best = max(best, best._replace(correlation=rough))
            continue
        for place in _place(image, second, _SCALES):
            if (overlap := _overlap(image, second, place)).correlation > best.correlation:
                best, oriented = overlap, image
    if best.correlation < _HOPELESS:
        return best.correlation
    for finer in (1.03, 1.015):
        step = (finer - 1) * SIDE / 3
        for scale, x, y in ((finer, 0.0, 0.0), (1.0, step, 0.0), (1.0, 0.0, step), (finer, 0.0, 0.0)):
            for sign in (1, -1):
                moved = _Alignment(0, best.scale * scale**sign, best.x + sign * x, best.y + sign * y)
                best = max(best, _overlap(oriented, second, moved))
    return best.correlation


def _halved(structure: np.ndarray) -> np.ndarray:
    return cv2.resize(structure, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)


def _place(first: np.ndarray, second: np.ndarray, scales: np.ndarray) -> list[_Alignment]:
    """Where the first photo's centre fits best in the second, at each scale."""
    full = len(first)
    edge = round(full * (1 - _CORE) / 2)
    core = first[edge : full - edge, edge : full - edge]
    found = []
    for scale in scales:
        side = round(len(core) * scale)
        if side <= full:
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            scaled = cv2.resize(core, (side, side), interpolation=how)
            _, best, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(second, scaled, cv2.TM_CCOEFF_NORMED))
            found.append(_Alignment(best, side / len(core), x + side / 2, y + side / 2))
    return found


def _overlap(first: np.ndarray, second: np.ndarray, place: _Alignment) -> _Alignment:
    """Correlate all that two photos share; -1 where that is less than half of the side."""
    _, scale, x, y = place
    left, top, side = x - scale * SIDE / 2, y - scale * SIDE / 2, scale * SIDE
    x0, x1 = max(0, math.ceil(left)), min(SIDE, math.floor(left + side))
    y0, y1 = max(0, math.ceil(top)), min(SIDE, math.floor(top + side))
    if min(x1 - x0, y1 - y0) < SIDE // 2:
        return place._replace(correlation=-1.0)
    warp = np.array([[1 / scale, 0, (x0 + 0.5 - left) / scale - 0.5], [0, 1 / scale, (y0 + 0.5 - top) / scale - 0.5]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    a = cv2.warpAffine(first, warp, (x1 - x0, y1 - y0), flags=how, borderMode=cv2.BORDER_REPLICATE)
    b = second[y0:y1, x0:x1]
    a, b = a - a.mean(axis=(0, 1)), b - b.mean(axis=(0, 1))
    return place._replace(correlation=float(np.vdot(a, b)) / math.sqrt(float(np.vdot(a, a) * np.vdot(b, b)) + 1e-6))
