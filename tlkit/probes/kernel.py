"""Kernel ridge regression on fixed features, solved without each fold in closed form."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from tlkit.probes.features import Features, assign_folds, checked, finite, moments
from tlkit.probes.problem import softmax

RIDGE = 0.1  # where the kernel of an example with itself is 1; 0.03 and 0.3 found fewer wrong labels
SHARPNESS = np.geomspace(1, 32, 21)  # factors tried to turn regressions on 0 and 1 into logits


def kernel_ridge(
    features: Features,
    labels: Sequence[int] | np.ndarray,
    classes: int,
    *,
    groups: Sequence[Hashable] | None = None,
    blocks: Sequence[int] | None = None,
    folds: int = 50,
    seed: int = 0,
) -> np.ndarray:
    """Predict each example by kernel ridge regression on the examples of other folds.

    The kernel is exp(-d / mean d), with d the squared distance; that of several blocks of features is the mean of
    theirs. Each class is a regression on 1 and 0, and the softmax of all of them, times the factor of the lowest
    cross-validated loss, gives the probabilities. The examples are solved once: the solution without a fold follows
    from the inverse of the kernel matrix (Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, 5.4.2).
    Memory grows with the square of the number of examples, and time with its cube.

    Args:
        features: Shape (examples, features).
        labels: Shape (examples,), from 0 to classes - 1.
        classes: Number of classes, including those that no example has.
        groups: For each example, a key that it shares with those that must be held out with it.
        blocks: Widths of consecutive blocks of features, such as those of several stages of a network.
        folds: Parts of the cross-validation, 2 or more; more folds cost little.
        seed: Decides which examples are held out together.

    Shapes:
        returns: (examples, classes), float32, from 0 to 1; each row sums to 1

    Raises:
        InvalidInput: as for `logistic_regression`.

    >>> features = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    >>> probabilities = kernel_ridge(features, features[:, 0] > 0, 2)
    >>> float(np.mean((probabilities[:, 1] > 0.5) == (features[:, 0] > 0)))
    0.96
    """
    labels = checked(features, labels, groups, classes)
    fold_of = assign_folds(labels, groups, folds, seed)
    mean, scale = moments(features, blocks)
    x = np.concatenate([(part - mean) / scale for _, part in finite(features)]).astype(np.float32)
    inverse = kernel(x, x, [len(mean)] if blocks is None else blocks)
    inverse[np.diag_indices(len(x))] += RIDGE
    inverse = np.linalg.inv(inverse)
    target = (np.eye(classes)[labels] - np.bincount(labels, minlength=classes) / len(labels)).astype(np.float32)
    weights = inverse @ target
    predicted = np.empty((len(labels), classes), np.float32)
    for fold in range(fold_of.max() + 1):
        held = np.flatnonzero(fold_of == fold)
        residual = np.linalg.solve(inverse[np.ix_(held, held)], weights[held])
        predicted[held] = np.eye(classes)[labels[held]] - residual
    return _calibrated(predicted, labels)


def kernel(x: np.ndarray, y: np.ndarray, widths: Sequence[int]) -> np.ndarray:
    """Compute the mean over blocks of a Gaussian kernel, of features with mean 0 whose average variance is 1 each.

    Shapes:
        x: (n, features)
        y: (m, features)
        returns: (n, m), from 0 to 1

    >>> kernel(np.float32([[0, 0]]), np.float32([[0, 0], [2, 0]]), [1, 1]).round(3)
    array([[1.   , 0.568]], dtype=float32)
    """
    total = np.zeros((len(x), len(y)), np.float32)
    for end, width in zip(np.cumsum(widths), widths, strict=True):
        a, b = x[:, end - width : end], y[:, end - width : end]
        distance = a @ b.T
        distance *= -2
        distance += np.square(a).sum(1)[:, None]
        distance += np.square(b).sum(1)
        np.maximum(distance, 0, out=distance)
        distance /= -2 * width  # the mean squared distance is twice the total variance
        total += np.exp(distance, out=distance)
    total /= len(widths)
    return total


def _calibrated(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Turn predictions into probabilities, with the sharpness that makes the labels most probable."""
    own = np.arange(len(labels)), labels
    tried = [softmax(predicted * np.float32(sharpness)) for sharpness in SHARPNESS]
    return max(tried, key=lambda each: float(np.log(np.maximum(each[own], 1e-4)).mean()))
