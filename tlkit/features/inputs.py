"""Examples of several splits as the extractor sees them: each content once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tlkit.data import NamedExamples
from tlkit.features.space import Space


class Inputs:
    """Examples of several splits as if they were one; those with the same content are computed once."""

    def __init__(self, splits: Sequence[NamedExamples]):
        self.splits, self.first = splits, splits[0]
        self.keys = [bytes.fromhex(hash_) for examples in splits for hash_ in examples.hashes]
        self.places: dict[bytes, int] = {}  # of each key: the position of its first example
        for place, key in enumerate(self.keys):
            self.places.setdefault(key, place)
        self.starts = np.cumsum([0, *map(len, splits)])

    def read(self, places: np.ndarray) -> np.ndarray:
        """Read the examples at some positions, in ascending order."""
        return np.concatenate([examples.read(own) for examples, own in self._by_split(places)])

    def name(self, place: int) -> str:
        """Name the example at a position."""
        return [name for examples in self.splits for name in examples.names][place]

    def missing(self, space: Space) -> list[bytes]:
        """List the keys that a space does not have."""
        return [key for key in self.places if key not in space.places]

    def select(self, keys: Sequence[bytes]) -> list[NamedExamples]:
        """Return the examples of some keys, in ascending order of their positions, by split."""
        places = np.array([self.places[key] for key in keys])
        return [examples.select(own) for examples, own in self._by_split(places)]

    def _by_split(self, places: np.ndarray) -> Iterator[tuple[NamedExamples, np.ndarray]]:
        """Give each split that has some of these positions, with the positions in it."""
        split = np.searchsorted(self.starts, places, side="right") - 1
        return ((self.splits[s], places[split == s] - self.starts[s]) for s in np.unique(split))
