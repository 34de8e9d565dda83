"""Near copies: crops, re-encodings, frames of a burst, mirrored, resized and brightened versions of one photo.

A search has two stages. Every photo has a vector, from its pixels or from a network, whose nearest neighbours are
candidates; a pair of candidates is then aligned, and counts if small versions of both correlate.

>>> rng = np.random.default_rng(0)
>>> photo = cv2.resize(rng.integers(0, 256, (12, 12, 3), np.uint8), (96, 96))
>>> first, second = thumbnail(photo), thumbnail(photo[8:88, 4:84, :][:, ::-1])
>>> alike(first, second) > ALIKE
True
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from tlkit.data import Photos
from tlkit.data.photos import decoding_threads

SIDE = 48  # pixels of a thumbnail, and the least that a photo must have
ALIKE = 0.82  # correlation from which on two photos are near copies; benchmarks/near_copies.py measures it
COUNT = 3  # candidates for each photo
_CORE = 0.6  # of a photo's side: its centre, which is in every crop of 80 % of the side
_SCALES = 1.08 ** np.arange(-4, 5)  # of one photo in the other
_HOPELESS = 0.45  # correlation of centres, at half of the resolution, below which nothing finer is tried
_REPEATED, _REGULARITY = 0.8, 0.11  # correlation of a photo with itself, shifted; what is then taken off
_FLAT = 8.0  # standard deviation, of 255, below which structure counts for less: it is noise, or a shadow
_SMALL, _CELLS, _BINS, _COLORS = 24, 3, 8, 6  # of a fingerprint
_BLOCK = 256  # photos at a time


class NearCopy(NamedTuple):
    """Two photos by their positions, and their correlation once aligned, from `ALIKE` to 1."""

    first: int
    second: int
    correlation: float


def searchable(photos: Photos) -> bool:
    """Say whether examples are photos large enough to be compared."""
    return photos.modality.resized and len(photos.shape) == 3 and min(photos.shape[:2]) >= SIDE


def within(photos: Photos, features: np.ndarray | None = None) -> list[NearCopy]:
    """Find the near copies among photos, each pair once.

    Exact copies are among them. Photos smaller than `SIDE`, and examples that are no photos, have none.

    Args:
        photos: Of any splits.
        features: Their pooled features, (n, d), as for `across`. By default the pixels alone decide, so that the result
            is the same whatever the network.

    Raises:
        Undecodable: a photo cannot be decoded.
    """
    if not searchable(photos) or len(photos) < 2:
        return []
    vectors = _fingerprints_of(photos) if features is None else features
    found = candidates(vectors, vectors, mirror=features is None, same=True)
    pairs = {(min(i, j), max(i, j)) for i, j in found}
    return _verified(photos, photos, sorted(pairs))


def across(photos: Photos, others: Photos, features: tuple[np.ndarray, np.ndarray] | None = None) -> list[NearCopy]:
    """Find the near copies that photos have among others: of each its nearest.

    Args:
        photos: Such as those of the test; `first` is a position in them.
        others: Such as those to train on; `second` is a position in them.
        features: Pooled features of a pretrained network, of `photos` and of `others`, (n, d) each, where they are
            known: photos that are no candidates are then not decoded.

    Returns:
        At most one for each photo, the best first.

    Raises:
        Undecodable: a photo cannot be decoded.
    """
    if not (searchable(photos) and searchable(others) and len(photos) and len(others)):
        return []
    if features is None:
        pairs = candidates(_fingerprints_of(photos), _fingerprints_of(others), mirror=True)
    else:
        pairs = candidates(*features)
    best: dict[int, NearCopy] = {}
    for found in _verified(photos, others, pairs):
        if found.first not in best or found.correlation > best[found.first].correlation:
            best[found.first] = found
    return sorted(best.values(), key=lambda found: -found.correlation)


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Squeeze a photo to a small square.

    Shapes:
        pixels: (height, width, 1 | 3), uint8
        returns: (SIDE, SIDE, 3), uint8
    """
    small = cv2.resize(np.ascontiguousarray(pixels), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return small if small.ndim == 3 else cv2.cvtColor(small, cv2.COLOR_GRAY2RGB)


def fingerprints(thumbnails: np.ndarray) -> np.ndarray:
    """Describe photos so that near copies have similar vectors: directions of edges in nine places, and colors.

    Shapes:
        thumbnails: (n, SIDE, SIDE, 3), uint8
        returns: (n, 108), float32
    """
    small = np.asarray(thumbnails, np.float32).reshape(
        len(thumbnails), _SMALL, SIDE // _SMALL, _SMALL, SIDE // _SMALL, 3
    )
    values = small.mean(axis=(2, 4))
    gray = values @ np.array([0.299, 0.587, 0.114], np.float32)
    down, right = np.gradient(gray, axis=(1, 2))
    strength = np.hypot(right, down)
    turn = np.arctan2(down, right) * (_BINS / (2 * np.pi))
    apart = np.abs((turn[..., None] - np.arange(_BINS) + _BINS / 2) % _BINS - _BINS / 2)
    edges = strength[..., None] * np.maximum(0, 1 - apart)
    edges = (_cells() @ edges.reshape(len(values), _SMALL**2, _BINS)).reshape(len(values), -1)
    share = values[..., :2] / (values.sum(axis=-1, keepdims=True) + 30)  # of red and green, whatever the brightness
    red, green = np.moveaxis(((share - (0.15, 0.2)) / (0.45, 0.3) * _COLORS).clip(0, _COLORS - 1).astype(int), -1, 0)
    cell = red * _COLORS + green + np.arange(len(values))[:, None, None] * _COLORS**2
    colors = np.bincount(cell.ravel(), minlength=len(values) * _COLORS**2).reshape(len(values), -1)
    return np.concatenate(
        [np.sqrt(edges / (edges.sum(axis=1, keepdims=True) + 1e-6)), 0.7 * np.sqrt(colors / _SMALL**2)], axis=1
    ).astype(np.float32)


@functools.cache
def _cells() -> np.ndarray:
    """The weight of each pixel in nine cells that overlap, (9, _SMALL * _SMALL)."""
    width = _SMALL / _CELLS
    centres = (np.arange(_CELLS) + 0.5) * width
    near = np.exp(-0.5 * ((np.arange(_SMALL) + 0.5 - centres[:, None]) / (width / 2)) ** 2)
    return np.einsum("iy,jx->ijyx", near, near).reshape(_CELLS**2, -1).astype(np.float32)


def mirrored(vectors: np.ndarray) -> np.ndarray:
    """Return the fingerprints of the mirrored photos."""
    edges = vectors[:, : -(_COLORS**2)].reshape(-1, _CELLS, _CELLS, _BINS)
    turned = edges[:, :, ::-1, (_BINS // 2 - np.arange(_BINS)) % _BINS]
    return np.concatenate([turned.reshape(len(vectors), -1), vectors[:, -(_COLORS**2) :]], axis=1)


def candidates(
    vectors: np.ndarray, others: np.ndarray, mirror: bool = False, same: bool = False
) -> list[tuple[int, int]]:
    """List the `COUNT` nearest of others for each vector, by cosine once the mean of the others is subtracted.

    Args:
        vectors: (n, d).
        others: (m, d).
        mirror: They are fingerprints, so look for mirrored photos too.
        same: Both are the same, so leave out each one itself.
    """
    mean = others.mean(axis=0)
    base, pairs = _unit(others - mean), []
    images = [vectors, mirrored(vectors)] if mirror else [vectors]
    for start in range(0, len(vectors), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(vectors)))
        for image in images:
            near = _unit(image[rows] - mean) @ base.T
            if same:
                near[rows - start, rows] = -2
            nearest = _largest(near, min(COUNT, near.shape[1] - same))
            pairs += [(int(row), int(other)) for row, found in zip(rows, nearest, strict=True) for other in found]
    return list(dict.fromkeys(pairs))


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """The columns of the largest values of each row, from the maxima of sets of columns: values are passed once."""
    rows, columns = values.shape
    width = 64
    if columns < 4 * width * count:
        return np.argpartition(-values, count - 1, axis=1)[:, :count]
    whole = columns // width * width
    # Each set is every (whole / width)-th column: so NumPy is fast.
    peaks = values[:, :whole].reshape(rows, width, -1).max(axis=1)
    blocks = np.argpartition(-peaks, count - 1, axis=1)[:, :count]
    places = (blocks[..., None] + np.arange(0, whole, whole // width)).reshape(rows, -1)
    places = np.concatenate([places, np.broadcast_to(np.arange(whole, columns), (rows, columns - whole))], axis=1)
    best = np.argpartition(-np.take_along_axis(values, places, 1), count - 1, axis=1)[:, :count]
    return np.take_along_axis(places, best, 1)


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


def _thumbnails(photos: Photos, indices: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
    """The thumbnails of photos, a block at a time, (k, SIDE, SIDE, 3)."""
    for start in range(0, len(indices), _BLOCK):
        yield np.stack(list(decoding_threads().map(thumbnail, photos.read(indices[start : start + _BLOCK]))))


def _fingerprints_of(photos: Photos) -> np.ndarray:
    return np.concatenate([fingerprints(block) for block in _thumbnails(photos, np.arange(len(photos)))])


def _verified(photos: Photos, others: Photos, pairs: Sequence[tuple[int, int]]) -> list[NearCopy]:
    """The pairs that are near copies; structures are kept while their photos may be needed again."""

    def structures(examples: Photos, indices: set[int]) -> dict[int, np.ndarray]:
        order = sorted(indices)
        thumbnails = (one for block in _thumbnails(examples, order) for one in block)
        return dict(zip(order, thumbnails, strict=True))

    first = structures(photos, {i for i, _ in pairs})
    second = first if photos is others else {}
    second = second | structures(others, {j for _, j in pairs} - set(second))
    correlations = decoding_threads().map(lambda pair: alike(first[pair[0]], second[pair[1]]), pairs)
    found = [NearCopy(i, j, value) for (i, j), value in zip(pairs, correlations, strict=True)]
    return [pair for pair in found if pair.correlation >= ALIKE]
