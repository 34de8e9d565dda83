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


class Alignment(NamedTuple):
    """How the first of two photos lies on the second, from which `correlation` orders them.

    Args:
        correlation: Of the structure of what both show, before what is common in the set is taken out.
        scale: Of the first photo in the second.
        x: Of the first photo's centre in the second, in pixels of a thumbnail.
        y: Likewise.
        mirrored: Whether the first is mirrored.
    """

    correlation: float
    scale: float
    x: float
    y: float
    mirrored: bool = False


def alike(first: np.ndarray, second: np.ndarray) -> float:
    """Correlate two photos where they overlap once the first is moved, scaled and perhaps mirrored onto the second.

    What is correlated is the structure of the three colors, so brightness and contrast do not matter. 1 is the same
    photo; what a photo of another thing has depends on how much structure there is, mostly below 0.6.

    Shapes:
        first: (SIDE, SIDE, 3), uint8, a `thumbnail`
        second: the same
    """
    structures = structure(first), structure(second)
    return judge(*structures, align(*structures))


def judge(first: np.ndarray, second: np.ndarray, place: Alignment, layout: np.ndarray | None = None) -> float:
    """Return how alike two photos are that have been aligned; less than their correlation where that means little.

    Patterns that repeat, such as chequers, fit others of the kind: if both photos are such, `_REGULARITY` is taken off.
    Photos of one layout, such as X-rays, fit each other too: with the layout, the correlation is at most that of what
    is left of both once the layout is taken out of them.

    Args:
        first: The `structure` of a photo.
        second: That of the other.
        place: What `align` returned for them.
        layout: The mean or the sum of the `structure` of other photos of the set.

    Shapes:
        first, second, layout: (SIDE, SIDE, 3)
    """
    correlation = place.correlation
    if correlation < ALIKE:
        return correlation
    if layout is not None:
        correlation = min(correlation, _beyond(layout, first, second, place))
    return correlation - _REGULARITY if _repeats(first) and _repeats(second) else correlation


def _repeats(structure: np.ndarray) -> bool:
    """Whether a photo's centre is almost the same somewhere else in it."""
    edge = round(SIDE * (1 - _CORE) / 2)
    fits = cv2.matchTemplate(structure, structure[edge : SIDE - edge, edge : SIDE - edge], cv2.TM_CCOEFF_NORMED)
    fits[edge - 3 : edge + 4, edge - 3 : edge + 4] = -1  # its own place
    return float(fits.max()) > _REPEATED


def structure(thumbnail: np.ndarray) -> np.ndarray:
    """Return the differences from the surroundings, divided by how much these vary.

    Shapes:
        thumbnail: (SIDE, SIDE, 3), uint8
        returns: (SIDE, SIDE, 3), float32
    """
    values = thumbnail.astype(np.float32)
    values -= cv2.GaussianBlur(values, (0, 0), SIDE / 12)
    local = cv2.GaussianBlur((values * values).mean(axis=2), (0, 0), SIDE / 12)
    return values / np.sqrt(local + _FLAT**2)[..., None]


def align(first: np.ndarray, second: np.ndarray) -> Alignment:
    """Find how the first photo lies best on the second.

    Shapes:
        first: (SIDE, SIDE, 3), the `structure` of a photo
        second: the same
    """
    half, best = _halved(second), Alignment(-1, 1, 0, 0)
    images = first, _mirrored(first)
    for mirrored, image in enumerate(images):
        rough = max(place.correlation for place in _place(_halved(image), half, _SCALES[::2]))
        if rough < _HOPELESS:
            best = max(best, best._replace(correlation=rough))
            continue
        for place in _place(image, second, _SCALES):
            best = max(best, _overlap(image, second, place._replace(mirrored=bool(mirrored))))
    if best.correlation < _HOPELESS:
        return best
    for finer in (1.03, 1.015):
        step = (finer - 1) * SIDE / 3
        for scale, x, y in ((finer, 0.0, 0.0), (1.0, step, 0.0), (1.0, 0.0, step), (finer, 0.0, 0.0)):
            for sign in (1, -1):
                moved = best._replace(scale=best.scale * scale**sign, x=best.x + sign * x, y=best.y + sign * y)
                best = max(best, _overlap(images[best.mirrored], second, moved))
    return best


def _mirrored(structure: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(structure[:, ::-1])


def _halved(structure: np.ndarray) -> np.ndarray:
    return cv2.resize(structure, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)


def _place(first: np.ndarray, second: np.ndarray, scales: np.ndarray) -> list[Alignment]:
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
            found.append(Alignment(best, side / len(core), x + side / 2, y + side / 2))
    return found


def _overlap(first: np.ndarray, second: np.ndarray, place: Alignment) -> Alignment:
    """Correlate all that two photos share; -1 where that is less than half of the side."""
    shared = _shared(first, second, place)
    return place._replace(correlation=_correlation(*shared) if shared else -1.0)


def _beyond(layout: np.ndarray, first: np.ndarray, second: np.ndarray, place: Alignment) -> float:
    """Correlate what is left of two photos once the layout, as it lies in either, is taken out by least squares."""
    turned = _mirrored(layout)  # either photo may be mirrored
    pairs = (_mirrored(first) if place.mirrored else first, second), (layout, layout), (turned, turned)
    parts = [part.ravel() for pair in pairs for part in _shared(*pair, place) or ()]
    values, layouts = np.stack(parts[:2], axis=1), np.stack(parts[2:], axis=1)
    rest = values - layouts @ np.linalg.lstsq(layouts, values, rcond=None)[0]
    return _correlation(*rest.T)


def _shared(first: np.ndarray, second: np.ndarray, place: Alignment) -> tuple[np.ndarray, np.ndarray] | None:
    """What both photos show, without their means; None where that is less than half of the side."""
    scale, x, y = place.scale, place.x, place.y
    left, top, side = x - scale * SIDE / 2, y - scale * SIDE / 2, scale * SIDE
    x0, x1 = max(0, math.ceil(left)), min(SIDE, math.floor(left + side))
    y0, y1 = max(0, math.ceil(top)), min(SIDE, math.floor(top + side))
    if min(x1 - x0, y1 - y0) < SIDE // 2:
        return None
    warp = np.array([[1 / scale, 0, (x0 + 0.5 - left) / scale - 0.5], [0, 1 / scale, (y0 + 0.5 - top) / scale - 0.5]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    a = cv2.warpAffine(first, warp, (x1 - x0, y1 - y0), flags=how, borderMode=cv2.BORDER_REPLICATE)
    b = second[y0:y1, x0:x1]
    return a - a.mean(axis=(0, 1)), b - b.mean(axis=(0, 1))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.vdot(a, b)) / math.sqrt(float(np.vdot(a, a) * np.vdot(b, b)) + 1e-6)
