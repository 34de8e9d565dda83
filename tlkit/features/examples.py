"""Features of examples: an example set of its own, read from the segments of a space."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tlkit.data import ExampleSet
from tlkit.features.segments import Segment

IN_MEMORY = 256 * 2**20  # bytes of features up to which `array` copies them into memory


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """Features of examples, in their order; mapped into memory from the store, or in memory where there is none.

    They are an `tlkit.data.ExampleSet`, so `tlkit.data.batches` takes them in place of photos. `features[start:stop]`
    reads consecutive ones.
    """

    labels: np.ndarray  # of the examples
    hashes: list[str]  # of the examples
    groups: list[str]  # of the examples; see `tlkit.data.NamedExamples`
    segments: list[Segment]
    part: np.ndarray  # (n,): the segment of each
    row: np.ndarray  # (n,): the row of each in its segment
    shape: tuple[int, ...]  # of one example's features
    dtype: np.dtype
    kind: str = "features"

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the features at some positions as a new array, (k, *shape)."""
        indices = np.asarray(indices, np.int64)
        values = np.empty((len(indices), *self.shape), self.dtype)
        parts = self.part[indices]
        for part in np.unique(parts):
            here = parts == part
            values[here] = self.segments[part].values[self.row[indices[here]]]
        return values

    def __getitem__(self, places: slice) -> np.ndarray:
        return self.read(np.arange(*places.indices(len(self))))

    def array(self) -> np.ndarray | Rows:
        """Return all as one array (n, *shape) where it is small enough, else as rows that are read when sliced."""
        rows = Rows(self)
        return self[:] if math.prod(rows.shape) * self.dtype.itemsize <= IN_MEMORY else rows

    def select(self, places: Sequence[int]) -> Features:
        """Return those at some positions, in that order."""
        return dataclasses.replace(
            self,
            labels=self.labels[places],
            hashes=[self.hashes[place] for place in places],
            groups=[self.groups[place] for place in places],
            part=self.part[places],
            row=self.row[places],
        )

    @staticmethod
    def joined(parts: Sequence[Features]) -> Features:
        """Concatenate the features of several splits; all must come from one extractor."""
        first = parts[0]
        segments, starts = list(first.segments), {id(first.segments): 0}
        for part in parts:
            if id(part.segments) not in starts:
                starts[id(part.segments)] = len(segments)
                segments += part.segments
        return dataclasses.replace(
            first,
            labels=np.concatenate([part.labels for part in parts]),
            hashes=[hash_ for part in parts for hash_ in part.hashes],
            groups=[group for part in parts for group in part.groups],
            segments=segments,
            part=np.concatenate([part.part + starts[id(part.segments)] for part in parts]),
            row=np.concatenate([part.row for part in parts]),
        )


if TYPE_CHECKING:
    _EXAMPLES: type[ExampleSet] = Features  # mypy proves it


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Features that can be sliced like an array (n, *shape): `rows[start:stop]` reads them."""

    features: Features

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, *shape)."""
        return (len(self.features), *self.features.shape)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, places: slice) -> np.ndarray:
        return self.features[places]
