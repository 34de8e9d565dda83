"""Nearest neighbours on fixed features."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import compress

import numpy as np

from tlkit.probes.features import Features, assign_folds, checked, finite

BLOCK = 1024  # examples that are compared with all others at a time


def nearest_neighbours(
    features: Features,
    labels: Sequence[int] | np.ndarray,
    *,
    groups: Sequence[Hashable] | None = None,
    neighbours: int = 5,
    folds: int = 5,
    seed: int = 0,
    most: int = 10_000,
) -> float:
    """Cross-validate the accuracy of the most frequent label among the nearest examples, by cosine similarity.

    Args:
        features: Shape (examples, features).
        labels: Shape (examples,), from 0.
        groups: As for `logistic_regression`; so are folds, seed and the errors.
        neighbours: How many vote; fewer where fewer are learned from.
        folds: Parts of the cross-validation.
        seed: Decides which examples are held out together, and which are taken where there are more than `most`.
        most: Of more examples than this, a random sample is taken: the cost grows with their square.

    >>> nearest_neighbours(np.eye(2, dtype=np.float32)[[0, 0, 0, 1, 1, 1]], [0, 0, 0, 1, 1, 1], neighbours=1)
    1.0
    """
    labels = checked(features, labels, groups)
    sample = np.random.default_rng(seed).permutation(len(labels)) < most
    x = np.concatenate([part[sample[rows]] for rows, part in finite(features)])
    labels = labels[sample]
    fold_of = assign_folds(labels, None if groups is None else list(compress(groups, sample)), folds, seed)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    right = 0
    for fold in range(fold_of.max() + 1):
        held = np.flatnonzero(fold_of == fold)
        known, voters = x[fold_of != fold], labels[fold_of != fold]
        count = min(neighbours, len(known))
        for start in range(0, len(held), BLOCK):
            block = held[start : start + BLOCK]
            nearest = np.argpartition(-(x[block] @ known.T), count - 1, axis=1)[:, :count]
            votes = (voters[nearest][..., None] == np.arange(labels.max() + 1)).sum(axis=1)
            right += int(np.sum(votes.argmax(axis=1) == labels[block]))  # of classes with equal votes, the first
    return right / len(labels)
