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


def moments(features: Features, blocks: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return each feature's mean and what to divide it by, so that the average variance is 1 (Chan et al. 1979).

    Args:
        features: Shape (examples, features).
        blocks: Widths of consecutive blocks of features, which are to have the same total variance; by default one.
            Blocks of constants are divided by 1.

    Shapes:
        returns: (features,) each

    Raises:
        InvalidInput: a feature is not finite, or the widths do not add up.

    >>> mean, scale = moments(np.array([[0.0, 0.0, 0.0], [2.0, 2.0, 20.0]]), blocks=[2, 1])
    >>> (scale / scale[0]).round(2).tolist()
    [1.0, 1.0, 7.07]
    """
    widths = [features.shape[1]] if blocks is None else list(blocks)
    if sum(widths) != features.shape[1] or min(widths) < 1:
        raise InvalidInput(f"blocks are {widths}, and there are {features.shape[1]} features: widths that add up to it")
    mean = squares = np.zeros(())
    for rows, x in finite(features):
        slice_mean = x.mean(0, dtype=np.float64)
        step = slice_mean - mean
        squares = squares + np.sum(np.square(x - slice_mean), 0) + step**2 * rows.start * len(x) / rows.stop
        mean = mean + step * len(x) / rows.stop
    parts = []
    for end, width in zip(np.cumsum(widths), widths, strict=True):
        block = slice(int(end) - width, int(end))
        scale = float(np.sqrt(np.sum(squares[block]) * len(widths) / features.shape[1] / len(features)))
        constant = scale <= 1e-6 * float(np.abs(mean[block]).max())  # to the precision of float32
        parts.append(np.full(width, 1.0 if constant else scale))
    return mean.astype(np.float32), np.concatenate(parts)


def assign_folds(labels: np.ndarray, groups: Sequence[Hashable] | None, folds: int, seed: int) -> np.ndarray:
    """Assign each example to a fold, so that no group is divided and each fold has its share of each label.

    Groups are shuffled, sorted by label and dealt out. Where one fills a quarter of a fold, or two examples a group are
    usual, this would give unequal folds, so the largest go first there, each to the fold that has least of its labels.

    Raises:
        InvalidInput: there are fewer than two folds or groups.

    >>> assign_folds(np.array([0, 0, 0, 0, 1, 1, 1, 1]), list("aabbccdd"), 2, seed=0)
    array([1, 1, 0, 0, 0, 0, 1, 1])
    """
    if folds < 2:
        raise InvalidInput(f"folds is {folds}: 2 or more are needed to hold examples out")
    number: dict[Hashable, int] = {}
    each_group: Iterable[Hashable] = range(len(labels)) if groups is None else groups
    group_of = np.array([number.setdefault(group, len(number)) for group in each_group])
    if len(number) < 2:
        raise InvalidInput("all examples are in one group: 2 or more are needed to hold examples out")
    order = np.random.default_rng(seed).permutation(len(number))
    largest = np.bincount(group_of).max()
    if 2 * len(number) <= len(labels) or largest > max(1, len(labels) / (4 * folds)):
        return _fold_of_groups(labels, group_of, order, folds)[group_of]
    first = np.unique(group_of, return_index=True)[1]
    order = order[np.argsort(labels[first[order]], kind="stable")]
    fold = np.empty(len(order), np.intp)
    fold[order] = np.arange(len(order)) % folds
    return fold[group_of]


def _fold_of_groups(labels: np.ndarray, group_of: np.ndarray, order: np.ndarray, folds: int) -> np.ndarray:
    """Return the fold of each group: the largest first, the others in the order that is given.

    As scikit-learn's StratifiedGroupKFold: what grows least is the sum, over labels and folds, of the square of the
    share of a label's examples that a fold has.
    """
    sizes, totals = np.bincount(group_of), np.bincount(labels)
    pairs, counts = np.unique(group_of * len(totals) + labels, return_counts=True)  # few: no table of groups and labels
    label_of = pairs % len(totals)
    shares = counts / totals[label_of]
    starts = np.searchsorted(pairs, np.arange(len(order) + 1) * len(totals))
    held, filled = np.zeros((folds, len(totals))), np.zeros(folds)
    fold = np.empty(len(order), np.intp)
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        here = slice(starts[group], starts[group + 1])
        grown = held[:, label_of[here]] @ shares[here]
        chosen = np.lexsort((filled, grown))[0]  # of equals, the smallest fold
        held[chosen, label_of[here]] += shares[here]
        filled[chosen] += sizes[group]
        fold[group] = chosen
    return fold


def drawn(count: int, groups: Sequence[Hashable] | None, most: int, seed: int) -> np.ndarray | None:
    """Draw examples in whole groups, about `most` of them; return None where there are no more.

    Shapes:
        returns: (examples,), whether each is drawn

    >>> drawn(6, "aabbcc", 4, seed=0)
    array([ True,  True, False, False,  True,  True])
    """
    if count <= most:
        return None
    number: dict[Hashable, int] = {}
    group_of = np.arange(count)
    if groups is not None:
        group_of = np.fromiter((number.setdefault(group, len(number)) for group in groups), np.int64, count)
    sizes = np.bincount(group_of)
    order = np.random.default_rng(seed).permutation(len(sizes))
    inside = np.zeros(len(sizes), bool)
    inside[order[: max(2, np.searchsorted(np.cumsum(sizes[order]), most) + 1)]] = True
    return inside[group_of]


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
