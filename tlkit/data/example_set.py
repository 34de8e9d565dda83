"""What training, prediction and the activation store ask of examples, whatever they are and wherever they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tlkit.data.modalities import Reading


class ExampleSet(Protocol):
    """Labeled examples of one shape: photos, changed views of them, or features of a frozen network.

    Any class with these members is one, without inheriting from it.
    """

    @property
    def labels(self) -> np.ndarray:
        """(n,), int32, positions in the classes; or, where an example may have several, (n, classes), float32."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example: (*space, channels)."""

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the values that `read` returns."""

    @property
    def kind(self) -> str:
        """Name of the modality; see `tlkit.data.modalities`."""

    def __len__(self) -> int:
        """Number of examples."""

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the examples at some positions as a new array, (k, *shape)."""


class NamedExamples(ExampleSet, Protocol):
    """Examples that errors can name and that the activation store can find again by their content."""

    @property
    def names(self) -> list[str]:
        """What the user knows each example by, such as the path of its file."""

    @property
    def hashes(self) -> list[str]:
        """SHA-256 of what each example is made from, in hexadecimal."""

    @property
    def groups(self) -> list[str]:
        """What a cross-validation must not divide: the group of each example, or its hash where there are no groups."""

    @property
    def reading(self) -> Reading:
        """How files became the examples."""

    def select(self, indices: Sequence[int] | np.ndarray) -> NamedExamples:
        """Return the examples at some positions, in that order."""

    def with_contents(self) -> NamedExamples:
        """Return the same examples with the bytes of their files in memory, for a process that cannot open these."""
