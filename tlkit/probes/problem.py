"""Multinomial logistic regression of all folds at once: its loss, gradient and solution."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tlkit.probes.features import Features, slices

COMPONENTS = 1500  # features or examples up to which components are worth their computation, which grows with the cube
KEEP = 2**28  # bytes: features up to here are copied into memory, standardized; larger ones are read at every step
ABSENT = -50.0  # bias of a class without examples: its probability is 0 in float32, and so is its gradient


class Problem(NamedTuple):
    """The losses of all folds added up, so that one pass over the features serves them all.

    Weights have the shape (folds, classes, features + 1) and act on centered and scaled features; the last are biases.
    """

    features: Features
    mean: np.ndarray  # (features,): still to be subtracted from the features
    scale: np.ndarray  # (features,): by which they are to be divided then
    labels: np.ndarray
    fold_of: np.ndarray  # (examples,): the fold that does not learn from it, -1 for none
    learned: np.ndarray  # (folds, classes): the number of examples of each class that a fold learns from
    spread: np.ndarray | None = None  # (features,): their mean squares, where they are principal components

    def start(self) -> np.ndarray:
        """Return weights of 0, and the classes' frequencies as biases: the solution of the strongest penalty."""
        weights = np.zeros((*self.learned.shape, len(self.mean) + 1))
        shares = self.learned / self.learned.sum(1, keepdims=True)
        weights[..., -1] = np.where(shares > 0, np.log(np.maximum(shares, 1e-30)), ABSENT)
        return weights

    def logits(self, weights: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Yield rows, their features and their logits, shape (folds, classes, rows), slice by slice."""
        kernel, bias = (part.astype(np.float32) for part in unfold(weights, self.mean, self.scale))
        flat = kernel.reshape(-1, kernel.shape[-1])
        for rows, x in slices(self.features):
            yield rows, x, (flat @ x.T).reshape(*bias.shape, len(x)) + bias[..., None]

    def held_out(self, weights: np.ndarray) -> np.ndarray:
        """Return each example's probabilities by the fold that did not learn from it."""
        probabilities = np.empty((len(self.labels), self.learned.shape[1]), np.float32)
        for rows, x, logits in self.logits(weights):
            probabilities[rows] = softmax(logits[self.fold_of[rows], :, np.arange(len(x))])
        return probabilities

    def loss(self, weights: np.ndarray, l2: float) -> tuple[float, np.ndarray]:
        """Return the sum of the folds' losses, and its gradient."""
        folds, classes = self.learned.shape
        per_example = (1 / self.learned.sum(1, keepdims=True)).astype(np.float32)
        value = l2 / 2 * float(np.sum(weights[..., :-1] ** 2))
        kernel, bias = np.zeros((folds * classes, len(self.mean))), np.zeros((folds, classes))
        for rows, x, p in self.logits(weights):
            share = np.where(self.fold_of[rows] != np.arange(folds)[:, None], per_example, 0)
            right = slice(None), self.labels[rows], np.arange(len(x))
            p -= p.max(1, keepdims=True)
            of_right = p[right]
            np.exp(p, out=p)
            total = p.sum(1)
            value += float(np.sum((np.log(total) - of_right) * share, dtype=np.float64))
            p *= (share / total)[:, None]
            p[right] -= share
            kernel += p.reshape(folds * classes, -1) @ x
            bias += p.sum(2)
        gradient = np.empty_like(weights)
        gradient[..., -1] = bias
        gradient[..., :-1] = (kernel.reshape(folds, classes, -1) - bias[..., None] * self.mean) / self.scale
        gradient[..., :-1] += l2 * weights[..., :-1]
        return value, gradient

    def solve(self, l2: float, start: np.ndarray, tolerance: float) -> np.ndarray:
        """Minimize the loss from `start` on, until no part of the gradient is above `tolerance`; return the weights.

        Principal components are each divided by about the root of the loss's curvature along it (the bound of Böhning
        1992, whose share was tried): a third of the steps are left.
        """
        from scipy.optimize import minimize

        unit = np.ones(start.shape[-1])
        if self.spread is not None:
            curvature = 0.3 * (1 - 1 / start.shape[1]) / start.shape[1]
            unit = 1 / np.sqrt(np.append(curvature * self.spread + l2, curvature))
        largest = np.inf

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal largest
            value, gradient = self.loss(start + flat.reshape(start.shape) * unit, l2)
            largest = float(np.abs(gradient).max()) if self.spread is None else _largest(gradient)
            return value, (gradient * unit).ravel()

        def end(_: np.ndarray) -> None:  # by the gradient of the weights, whatever their units
            if largest <= tolerance:
                raise StopIteration

        options = {"maxiter": 1000, "gtol": 0.0, "ftol": 1e-12}
        with one_thread(small=len(self.labels) * len(self.mean) * 4 <= KEEP):
            result = minimize(loss, np.zeros(start.size), jac=True, method="L-BFGS-B", options=options, callback=end)
        weights: np.ndarray = start + result.x.reshape(start.shape) * unit
        return weights


def _largest(gradient: np.ndarray) -> float:
    """Return about the largest part that a gradient has for features, if it is that of their components.

    These have theirs in the first few; of a feature, three times the root of the mean square is large.
    """
    of_features = 3 * np.sqrt(np.mean(gradient[..., :-1] ** 2, axis=-1))
    return float(max(of_features.max(), np.abs(gradient[..., -1]).max()))


def one_thread(small: bool) -> contextlib.AbstractContextManager[object]:
    """Limit SciPy's BLAS to one thread, and NumPy's too where its products are small.

    Each has threads of its own, which take the cores from the other's at every step: ten times slower on an idle
    machine, and a hundred times on a busy one.
    """
    pools = _pools()
    if not small:
        pools = pools.select(filepath=[pool.filepath for pool in pools.lib_controllers if "scipy" in pool.filepath])
    limited: contextlib.AbstractContextManager[object] = pools.limit(limits=1)
    return limited


@functools.cache
def _pools() -> Any:
    """The threads of NumPy's and of SciPy's BLAS, which are looked for once."""
    import scipy.linalg  # noqa: F401  its BLAS is there from now on
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def principal(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn centered features into their principal components: the same penalty, and fewer steps of the solver.

    Shapes:
        features: (examples, features)
        returns: the components (examples, k), their directions (features, k), and the mean square of each (k,), with k
            the smaller of examples and features; what no component has, no solution has
    """
    wide = features.shape[1] > len(features)
    with one_thread(small=True):
        products = features @ features.T if wide else features.T @ features
        squares, vectors = np.linalg.eigh(products.astype(np.float64))
        squares = np.maximum(squares, 0)
        if wide:
            enough = squares > 1e-7 * squares[-1]  # to the precision of float32
            squares, vectors = squares[enough], features.T @ vectors[:, enough] / np.sqrt(squares[enough])
        directions = vectors.astype(np.float32)
        return features @ directions, directions, squares / len(features)


def unfold(weights: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn weights for centered and scaled features into weights and biases for the features themselves."""
    kernel = weights[..., :-1] / scale
    return kernel, weights[..., -1] - kernel @ mean


def examples_learned(labels: np.ndarray, fold_of: np.ndarray, classes: int) -> np.ndarray:
    """Count the examples of each class that each fold learns from: shape (folds, classes)."""
    held_out = np.bincount(fold_of * classes + labels, minlength=(fold_of.max() + 1) * classes).reshape(-1, classes)
    learned: np.ndarray = held_out.sum(0) - held_out
    return learned


def standardized(features: Features, mean: np.ndarray, scale: np.ndarray) -> tuple[Features, np.ndarray, np.ndarray]:
    """Return a centered and scaled copy of small features, or large ones as they are; with the mean and scale left."""
    if len(features) * len(mean) * 4 > KEEP:
        return features, mean, scale
    copy = np.empty(features.shape, np.float32)
    for rows, x in slices(features):
        copy[rows] = (x - mean) / scale.astype(np.float32)
    return copy, np.zeros_like(mean), np.ones_like(scale)


def taken(
    features: Features, sample: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a centered and scaled copy of some examples' features, and the mean and scale that are left."""
    copy, filled = np.empty((np.count_nonzero(sample), len(mean)), np.float32), 0
    for rows, x in slices(features):
        some = x[sample[rows]]
        copy[filled : filled + len(some)] = (some - mean) / scale.astype(np.float32)
        filled += len(some)
    return copy, np.zeros_like(mean), np.ones_like(scale)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turn logits into probabilities: shape (examples, classes)."""
    odds: np.ndarray = np.exp(logits - logits.max(1, keepdims=True))
    probabilities: np.ndarray = odds / odds.sum(1, keepdims=True)
    return probabilities
