"""The intervals of a split's scores, for all commands alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tlkit.evaluation.areas import auc_interval
from tlkit.evaluation.intervals import effective_trials, loss_interval, mean_of_shares
from tlkit.evaluation.scores import binary_crossentropy


def score_intervals(
    probabilities: np.ndarray, labels: np.ndarray, groups: Sequence[str] | np.ndarray | None = None
) -> dict[str, tuple[float, float]]:
    """Compute the 95 % intervals that `Scores` does not have, by the names of their scores among the metrics.

    The log loss has that of `loss_interval`, the balanced accuracy that of `mean_of_shares`, the area under the ROC
    curve that of `auc_interval`. `tests/test_evaluation_simulated.py` shows what they cover.

    Args:
        probabilities: Shape (examples, classes).
        labels: Shape (examples,), positions in the classes; or (examples, classes), zeros and ones.
        groups: Shape (examples,), the group of each.

    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 2, 100)
    >>> shares = np.clip(rng.normal(0.3 + 0.4 * labels, 0.2), 0.01, 0.99)
    >>> found = score_intervals(np.stack([1 - shares, shares], axis=1), labels)
    >>> {name: [round(bound, 2) for bound in bounds] for name, bounds in found.items()}
    {'loss': [0.35, 0.47], 'balanced_accuracy': [0.74, 0.88], 'auc': [0.85, 0.96]}
    """
    several = labels.ndim == 2
    if several:
        losses = binary_crossentropy(probabilities, labels)
    else:
        losses = -np.log(np.clip(probabilities[np.arange(len(labels)), labels].astype(np.float64), 1e-12, 1))
    low, high = loss_interval(losses, groups)
    found = {"loss": (max(low, 0.0), high)}
    if not several:
        right, trials = _recalls(probabilities.argmax(axis=1), labels, groups)
        found["balanced_accuracy"] = mean_of_shares(right, trials)
    if area := auc_interval(probabilities, labels, groups):
        found["auc"] = area
    return found


def _recalls(
    predicted: np.ndarray, labels: np.ndarray, groups: Sequence[str] | np.ndarray | None
) -> tuple[list[float], list[float]]:
    """Count the right ones of each class that occurs, and all of them; with groups, as many as are independent."""
    successes, trials = [], []
    for label in np.unique(labels):
        right = predicted[labels == label] == label
        count = len(right) if groups is None else effective_trials(right, np.asarray(groups)[labels == label])
        successes.append(float(right.mean()) * count)
        trials.append(float(count))
    return successes, trials
