"""Features and labels of examples: read in slices, checked, standardized and dealt out to folds."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from tlkit.errors import InvalidInput

SLICE = 8192  # rows at a time: enough for BLAS to run at full speed, and little beside the features themselves


class Features(Protocol):
    """An array of shape (examples, features), or what reads one from a file: slices of it are arrays."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(examples, features)."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


def slices(features: Features) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the features a slice at a time, as float32, each with its rows."""
    for start in range(0, len(features), SLICE):
        rows = slice(start, min(start + SLICE, len(features)))
        yield rows, np.asarray(features[rows], np.float32)


def finite(features: Features) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the features as `slices` does, after a check that they are finite.

    Raises:
        InvalidInput: an example has nan or infinity.
    """
    for rows, x in slices(features):
        is_finite = np.isfinite(x).all(1)
        if not is_finite.all():
            index = rows.start + int(is_finite.argmin())
            raise InvalidInput(f"features[{index}] is not all finite: it has nan or infinity")
        yield rows, x


def moments(features: Features) -> tuple[np.ndarray, float]:
    """Return each feature's mean and the root of their average variance, or 1 for constants (Chan et al. 1979)."""
    mean = squares = np.zeros(())
    for rows, x in finite(features):
        slice_mean = x.mean(0, dtype=np.float64)
        step = slice_mean - mean
        squares = squares + np.sum(np.square(x - slice_mean), 0) + step**2 * rows.start * len(x) / rows.stop
        mean = mean + step * len(x) / rows.stop
    scale = float(np.sqrt(np.mean(squares) / len(features)))
    constant = scale <= 1e-6 * float(np.abs(mean).max())  # to the precision of float32
    return mean.astype(np.float32), 1.0 if constant else scale


def assign_folds(labels: np.ndarray, groups: Sequence[Hashable] | None, folds: int, seed: int) -> np.ndarray:
    """Assign each example to a fold. Groups are shuffled, sorted by label and dealt out, so that folds are stratified.

    Raises:
        InvalidInput: there are fewer than two folds or groups.
    """
    if folds < 2:
        raise InvalidInput(f"folds is {folds}: 2 or more are needed to hold examples out")
    number: dict[Hashable, int] = {}
    each_group: Iterable[Hashable] = range(len(labels)) if groups is None else groups
    group_of = np.array([number.setdefault(group, len(number)) for group in each_group])
    if len(number) < 2:
        raise InvalidInput("all examples are in one group: 2 or more are needed to hold examples out")
    first = np.unique(group_of, return_index=True)[1]
    order = np.random.default_rng(seed).permutation(len(first))
    order = order[np.argsort(labels[first[order]], kind="stable")]
    fold = np.empty(len(order), np.intp)
    fold[order] = np.arange(len(order)) % folds
    return fold[group_of]


def checked(
    features: Features, labels: ArrayLike, groups: Sequence[Hashable] | None, classes: int | None = None
) -> np.ndarray:
    """Return the labels as an array of integers, after a check that features, labels and groups fit each other.

    Raises:
        InvalidInput: shapes or lengths are wrong, labels are out of range or all the same.
    """
    labels = np.asarray(labels)
    if len(features.shape) != 2 or not features.shape[1]:
        raise InvalidInput(f"features have the shape {tuple(features.shape)}; it must be (examples, features)")
    lengths = {"labels": len(labels), "groups": len(labels if groups is None else groups)}
    for name, length in lengths.items():
        if length != len(features):
            raise InvalidInput(f"there are {len(features)} examples and {length} {name}; each needs one")
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise InvalidInput(f"labels are {labels.dtype} of the shape {labels.shape}; they must be one integer each")
    present = np.unique(labels)
    if len(present) < 2:
        raise InvalidInput(f"all {len(labels)} examples have the same label: 2 or more are needed to tell apart")
    if present[0] < 0 or (classes is not None and present[-1] >= classes):
        allowed = "0 or more" if classes is None else f"from 0 to {classes - 1}"
        raise InvalidInput(f"labels run from {present[0]} to {present[-1]}; they must be {allowed}")
    return labels.astype(np.intp)
