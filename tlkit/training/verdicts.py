"""Whether training has made a model clearly better, by its losses on the same validation examples before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tlkit import evaluation
from tlkit.evaluation import calibration


class Verdict(NamedTuple):
    """How much higher the validation loss is after training than before.

    Both losses are those at the temperature that makes them lowest (Guo et al. 2017, arXiv:1706.04599): a model that
    is only surer of what it says, is not better.

    Args:
        difference: Mean of the examples' differences; below 0 if training has lowered the loss.
        error: Its standard error; 0 for a single example.
    """

    difference: float
    error: float

    @property
    def clearly_better(self) -> bool:
        """Whether the loss has fallen by more than one standard error."""
        return self.difference < -self.error


def compare(
    before: np.ndarray, after: np.ndarray, labels: np.ndarray, shares: Sequence[float] | None = None
) -> Verdict:
    """Compare the logits of the same examples before and after training.

    Args:
        before: Logits before it.
        after: Logits after it.
        labels: Of the examples.
        shares: Share that each class is to have of the mean; by default that of the examples. For one label each.

    Shapes:
        before: (examples, classes)
        after: (examples, classes)
        labels: (examples,), or (examples, classes) with 0 and 1 if an example may have several

    >>> before, labels = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 0.1]] * 20), np.array([0, 1, 0] * 20)
    >>> compare(before, 9 * before, labels).clearly_better  # only surer
    False
    >>> compare(before[:, ::-1], before, labels).clearly_better
    True
    >>> before, labels = np.array([[0.0, 3.0], [0.0, 3.0], [2.0, 0.0], [0.0, 1.0]] * 20), np.array([0, 0, 0, 1] * 20)
    >>> after = before + [4.0, 0.0]  # better for class 0, worse for class 1
    >>> [compare(before, after, labels, shares).clearly_better for shares in (None, [0.1, 0.9])]
    [True, False]
    """
    differences = _losses(after, labels) - _losses(before, labels)
    if shares is not None:
        weights = np.asarray(shares)[labels] / np.bincount(labels)[labels]
        weights *= len(labels) / weights.sum()
        mean = (weights * differences).mean()
        differences = mean + weights * (differences - mean)
    return Verdict(float(differences.mean()), evaluation.standard_error(differences))


def _losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Give the loss of each example, at the temperature of the lowest mean."""
    logits, several = logits.astype(np.float64), labels.ndim == 2
    best = calibration.temperature(logits, labels, several)
    return calibration.log_losses(logits / best, labels, several)
