"""LogME: how well fixed features suit labels, by the evidence of linear models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tlkit.errors import InvalidInput
from tlkit.probes.features import Features, checked, finite


def logme(features: Features, labels: Sequence[int] | np.ndarray) -> float:
    """Compute the logarithm of the maximum evidence per example, as You et al. 2021 do (arXiv:2102.11005, algorithm 1).

    Each class against the rest is a linear regression on the original features, with weights of variance 1 / alpha
    and noise of variance 1 / beta; the evidence is the density of the labels, 0 or 1, at the best alpha and beta.
    Higher is better. It compares features of the same labels.

    Args:
        features: Shape (examples, features).
        labels: Shape (examples,), from 0; the result is the mean over the classes that occur.

    Raises:
        InvalidInput: as for `logistic_regression`.

    >>> noise = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    >>> labels = np.arange(100) % 2
    >>> logme(noise, labels) < logme(noise + labels[:, None], labels)
    True
    """
    labels = checked(features, labels, None)
    n, (present, target) = len(labels), np.unique(labels, return_inverse=True)
    gram = products = np.zeros(())
    for rows, part in finite(features):
        x = part.astype(np.float64)
        gram = gram + x.T @ x
        products = products + x.T @ np.eye(len(present))[target[rows]]
    if not gram.any():
        raise InvalidInput("all features are 0: this network sees nothing in these photos")
    values, vectors = np.linalg.eigh(gram)
    extended = values > values[-1] * len(values) * np.finfo(np.float64).eps  # directions with any variance
    values = values[extended, None]
    explained = (vectors[:, extended].T @ products) ** 2 / values  # (directions, classes): parts of the labels' squares
    rest = np.maximum(np.bincount(target) - explained.sum(0), 0)
    ratio = np.ones(len(present))  # alpha / beta; the paper's iteration finds its fixed point
    for _ in range(200):
        shrinkage = values / (values + ratio)
        alpha = shrinkage.sum(0) / np.maximum(np.sum(explained * shrinkage**2 / values, 0), 1e-300)
        residual = rest + np.sum(explained * (1 - shrinkage) ** 2, 0)
        beta = (n - shrinkage.sum(0)) / np.maximum(residual, 1e-12)
        before, ratio = ratio, np.maximum(alpha / beta, 1e-12 * values[-1])
        if np.all(np.abs(ratio - before) <= 1e-6 * before):
            break
    return float(np.mean(_evidence(ratio, values, explained, rest, n)))


def _evidence(ratio: np.ndarray, values: np.ndarray, explained: np.ndarray, rest: np.ndarray, n: int) -> np.ndarray:
    """Compute the logarithm of the evidence per example at a ratio alpha / beta, with the best beta for it."""
    spread = 1 + values / ratio  # the labels' variance along each direction, in units of the noise's
    beta = n / np.maximum(rest + np.sum(explained / spread, 0), 1e-12)
    evidence: np.ndarray = (np.log(beta / (2 * np.pi)) - 1 - np.sum(np.log(spread), 0) / n) / 2
    return evidence
