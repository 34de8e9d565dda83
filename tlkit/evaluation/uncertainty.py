"""The intervals of a split's scores, for all commands alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tlkit.evaluation.areas import auc_interval, resampled, spread
from tlkit.evaluation.calibration import crossentropy
from tlkit.evaluation.intervals import accuracy_interval, effective_trials, group_of, loss_interval, mean_of_shares


def score_intervals(
    probabilities: np.ndarray, labels: np.ndarray, groups: Sequence[str] | np.ndarray | None = None
) -> dict[str, tuple[float, float]]:
    """Compute the 95 % intervals that `Scores` does not have, by the names of their scores among the metrics.

    The log loss has that of `loss_interval`, the balanced accuracy that of `mean_of_shares`, the F1 score that of
    `f1_interval`, the area under the ROC curve that of `auc_interval`; the share of examples with all labels right has
    that of the accuracy. `tests/test_evaluation_simulated.py` shows what they cover.

    Args:
        probabilities: Shape (examples, classes).
        labels: Shape (examples,), positions in the classes; or (examples, classes), zeros and ones.
        groups: Shape (examples,), the group of each.

    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 2, 100)
    >>> shares = np.clip(rng.normal(0.3 + 0.4 * labels, 0.2), 0.01, 0.99)
    >>> found = score_intervals(np.stack([1 - shares, shares], axis=1), labels)
    >>> {name: [round(bound, 2) for bound in bounds] for name, bounds in found.items()}
    {'loss': [0.35, 0.47], 'balanced_accuracy': [0.74, 0.88], 'f1': [0.73, 0.89], 'auc': [0.85, 0.96]}
    """
    several = labels.ndim == 2
    low, high = loss_interval(crossentropy(probabilities, labels), groups)
    found = {"loss": (max(low, 0.0), high)}
    if not several:
        right, trials = _recalls(probabilities.argmax(axis=1), labels, groups)
        found["balanced_accuracy"] = mean_of_shares(right, trials)
        one_hot = np.eye(probabilities.shape[1], dtype=bool)
        found["f1"] = f1_interval(one_hot[probabilities.argmax(axis=1)], one_hot[labels], groups)
    else:
        predicted, true = probabilities > 0.5, labels > 0.5
        found["f1"] = f1_interval(predicted, true, groups)
        found["f1_micro"] = f1_interval(predicted, true, groups, micro=True)
        found["exact_match"] = accuracy_interval((predicted == true).all(axis=1), groups)
    if area := auc_interval(probabilities, labels, groups):
        found["auc"] = area
    return found


def f1_interval(
    predicted: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str] | np.ndarray | None = None,
    micro: bool = False,
    seed: int = 0,
) -> tuple[float, float]:
    """Compute the 95 % bootstrap interval of the F1 score, averaged over the classes that occur.

    As in `auc_interval`, whole examples or groups are drawn, and the spread is that of the logarithm of the odds.

    Args:
        predicted: Shape (examples, classes), whether each class is predicted.
        labels: Shape (examples, classes), whether it is there.
        groups: Shape (examples,), the group of each; by default each is one of its own.
        micro: Count all classes together instead.
        seed: Seed of the draws.

    >>> labels = np.eye(2, dtype=bool)[np.arange(100) % 2]
    >>> [round(bound, 2) for bound in f1_interval(np.roll(labels, 1, axis=0) ^ (np.arange(100) > 19)[:, None], labels)]
    [0.71, 0.87]
    """
    hits, true, named = (each.astype(np.float64) for each in (predicted & labels, labels, predicted))
    if micro:
        hits, true, named = (each.sum(axis=1, keepdims=True) for each in (hits, true, named))

    def score(times: np.ndarray) -> np.ndarray:
        """F1 of each draw, over the classes that occur in it: times (examples, draws)."""
        right, of_class, said = (each.T @ times for each in (hits, true, named))
        occurs = of_class > 0
        found: np.ndarray = (2 * right / np.maximum(of_class + said, 1)).sum(axis=0, where=occurs)
        return found / np.maximum(occurs.sum(axis=0), 1)

    place = group_of(len(labels), groups)
    value = float(score(np.ones((len(labels), 1)))[0])
    draws = np.concatenate([score(times) for times in resampled(place, seed)])
    count = int(place.max()) + 1
    return spread(value, draws, count, count, 0.5 / len(labels))


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
