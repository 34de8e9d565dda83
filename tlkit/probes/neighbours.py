"""Nearest neighbours on fixed features."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from itertools import compress

import numpy as np

from tlkit import autolog
from tlkit.probes.features import Features, assign_folds, checked, finite


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
    from sklearn.neighbors import KNeighborsClassifier

    labels = checked(features, labels, groups)
    sample = np.random.default_rng(seed).permutation(len(labels)) < most
    x = np.concatenate([part[sample[rows]] for rows, part in finite(features)])
    labels = labels[sample]
    fold_of = assign_folds(labels, None if groups is None else list(compress(groups, sample)), folds, seed)
    right = 0
    with autolog.suspended(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)  # labels they are
        for fold in range(fold_of.max() + 1):
            held = fold_of == fold
            voters = KNeighborsClassifier(min(neighbours, int(np.sum(~held))), metric="cosine", algorithm="brute")
            right += int(np.sum(voters.fit(x[~held], labels[~held]).predict(x[held]) == labels[held]))
    return right / len(labels)
