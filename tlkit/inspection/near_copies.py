"""Near copies: crops, re-encodings, frames of a burst, mirrored, resized and brightened versions of one photo.

A search has two stages. Every photo has a vector, from its pixels or from a network, whose nearest neighbours are
candidates; a pair of candidates is then aligned (`tlkit.inspection.alignment`), and counts if small versions of both
correlate. Where all photos are of one layout, such as X-rays, any two correlate: what the set shares is then taken out.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tlkit.data import Photos, images
from tlkit.data.threads import decoding_threads
from tlkit.inspection.alignment import ALIKE, SIDE, Alignment, align, judge, structure, thumbnail

if TYPE_CHECKING:
    from tlkit.features.store import Store

FORMAT = 1  # of stored results: raise it when the same photos begin to have other near copies
COUNT = 3  # candidates for each photo
_SMALL, _CELLS, _BINS, _COLORS = 24, 3, 8, 6  # of a fingerprint
_BLOCK = 256  # photos at a time
_SAMPLED = 100  # photos whose mean is the layout of a set


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
    return verified(photos, photos, sorted(pairs))


def across(
    photos: Photos,
    others: Photos,
    features: tuple[np.ndarray, np.ndarray] | None = None,
    store: Store | None = None,
) -> list[NearCopy]:
    """Find the near copies that photos have among others: of each its nearest.

    Args:
        photos: Such as those of the test; `first` is a position in them.
        others: Such as those to train on; `second` is a position in them.
        features: Pooled features of a pretrained network, of `photos` and of `others`, (n, d) each, where they are
            known: photos that are no candidates are then not decoded.
        store: Where the result is looked up, and kept; None computes it.

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
    for found in _kept(store, photos, others, pairs):
        if found.first not in best or found.correlation > best[found.first].correlation:
            best[found.first] = found
    return sorted(best.values(), key=lambda found: -found.correlation)


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


def _thumbnails(photos: Photos, indices: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
    """The thumbnails of photos, a block at a time, (k, SIDE, SIDE, 3)."""
    for start in range(0, len(indices), _BLOCK):
        yield np.stack(list(decoding_threads().map(thumbnail, photos.read(indices[start : start + _BLOCK]))))


def _fingerprints_of(photos: Photos) -> np.ndarray:
    return np.concatenate([fingerprints(block) for block in _thumbnails(photos, np.arange(len(photos)))])


def _kept(store: Store | None, photos: Photos, others: Photos, pairs: Sequence[tuple[int, int]]) -> list[NearCopy]:
    """Verify pairs of candidates, or take from the store which of the same pairs were near copies."""
    if store is None or not pairs:
        return verified(photos, others, pairs)
    description = {
        "format": FORMAT,
        "engine": "pixels",
        "precision": "float32",
        "near_copies": [SIDE, ALIKE, _SAMPLED],
        "shape": [len(pairs)],
        "dtype": "float32",
        "pixels": list(photos.shape),
        "decoder": images.version(),
        **photos.reading.changed,
    }
    hashes = [*photos.hashes, "", *others.hashes]
    key = hashlib.sha256("".join(hashes).encode() + np.array(pairs, np.int64).tobytes()).digest()
    space = store.space(description, "near copies").refresh()
    if not space.verify([key]):
        correlations = {found[:2]: found.correlation for found in verified(photos, others, pairs)}
        values = np.array([[correlations.get((*pair,), -1.0) for pair in pairs]], np.float32)
        try:
            space.write([key], values)
            space.refresh()
        except OSError:  # the disk is full, or the folder cannot be written
            space.keep([key], values)
    part, row = space.use([key])
    stored = space.segments[part[0]].values[row[0]]
    return [NearCopy(*pair, float(value)) for pair, value in zip(pairs, stored, strict=True) if value > 0]


def verified(photos: Photos, others: Photos, pairs: Sequence[tuple[int, int]]) -> list[NearCopy]:
    """Return which pairs of candidates are near copies.

    Args:
        photos: Photos of which each pair has the first.
        others: Photos of which each pair has the second; the same object if both are of one set.
        pairs: Positions.

    Raises:
        Undecodable: a photo cannot be decoded.
    """

    def thumbnails(examples: Photos, indices: set[int]) -> dict[int, np.ndarray]:
        order = sorted(indices)
        return dict(zip(order, (one for block in _thumbnails(examples, order) for one in block), strict=True))

    first = thumbnails(photos, {i for i, _ in pairs})
    second = first if photos is others else {}
    second = second | thumbnails(others, {j for _, j in pairs} - set(second))

    # Computed again where they are needed again: thumbnails take a quarter of their memory.
    def structures_of(pair: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        return structure(first[pair[0]]), structure(second[pair[1]])

    aligned = decoding_threads().map(lambda pair: align(*structures_of(pair)), pairs)
    likely = [(pair, place) for pair, place in zip(pairs, aligned, strict=True) if place.correlation >= ALIKE]
    if not likely:
        return []
    sampled = set(np.random.default_rng(0).permutation(len(others))[:_SAMPLED].tolist())
    second = second | thumbnails(others, sampled - set(second))
    structures = {i: structure(second[i]) for i in sampled}
    total = np.sum(list(structures.values()), axis=0)

    def look(aligned: tuple[tuple[int, int], Alignment]) -> NearCopy:
        pair, place = aligned
        own = sampled & ({*pair} if photos is others else {pair[1]})
        layout = total - sum(structures[i] for i in own)  # of the rest: two copies are no layout
        return NearCopy(*pair, judge(*structures_of(pair), place, layout))

    return [pair for pair in decoding_threads().map(look, likely) if pair.correlation >= ALIKE]
