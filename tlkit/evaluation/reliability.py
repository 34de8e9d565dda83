"""How far probabilities are from what they say: calibration error, Brier score, bins of a reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tlkit.evaluation.calibration import log_losses, logits
from tlkit.evaluation.intervals import accuracy_interval, group_of, loss_interval

BINS, BIN = 15, 20  # bins at the most; examples of a bin at the least
Interval = tuple[float, float]


class Reliability(NamedTuple):
    """How confident predictions are beside how often they are right, in bins of equally many examples.

    Args:
        confidence: Shape (bins,), mean probability of what was predicted, ascending.
        right: Shape (bins,), share that is right.
        bounds: Shape (2, bins), the 95 % interval of each of them, that of `accuracy_interval`.
        sizes: Shape (bins,), number of predictions.
        ece: Expected calibration error: square root of the mean square of the bins' true difference between confidence
            and share; 0 is perfect. What chance alone makes of it is taken off (Kumar et al. 2019, arXiv:1909.10155).
        interval: Its 95 % interval; from 0 where the predictions may well be calibrated.
    """

    confidence: np.ndarray
    right: np.ndarray
    bounds: np.ndarray
    sizes: np.ndarray
    ece: float
    interval: Interval


class Quality(NamedTuple):
    """How good probabilities are.

    Args:
        loss: Mean log loss.
        brier: Mean Brier score (1950): the sum over the classes of the squared error of the probability, from 0 to 2;
            with several labels the mean over the classes, from 0 to 1.
        brier_interval: Its 95 % interval.
        reliability: Bins and calibration error.
    """

    loss: float
    brier: float
    brier_interval: Interval
    reliability: Reliability

    def metrics(self, split: str, suffix: str = "") -> dict[str, float]:
        """Return the scores under their names in MLflow: `test_ece`, `test_ece_low`, `test_brier`, ...

        Args:
            split: Name of the split.
            suffix: End of all names.
        """
        values = {"ece": self.reliability.ece, "brier": self.brier}
        intervals = {"ece": self.reliability.interval, "brier": self.brier_interval}
        bounds = {
            f"{name}_{end}": pair[place]
            for name, pair in intervals.items()
            for place, end in enumerate(("low", "high"))
        }
        return {f"{split}_{name}{suffix}": float(value) for name, value in (values | bounds).items()}


def brier(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the Brier score of each example.

    Shapes:
        probabilities: (examples, classes)
        labels: (examples,); or (examples, classes), zeros and ones, where an example may have several
        returns: (examples,)

    >>> brier(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 0])).tolist()
    [0.5, 0.0]
    """
    if labels.ndim == 2:
        return np.square(probabilities - labels).mean(axis=1)
    scores: np.ndarray = np.square(probabilities - np.eye(probabilities.shape[1])[labels]).sum(axis=1)
    return scores


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, groups: Sequence[str] | np.ndarray | None = None
) -> Reliability:
    """Compare the confidence of predictions with how often they are right.

    A prediction is the most probable class of an example; where an example may have several labels, each class of each
    example is one: that it is there, or that it is not.

    The predictions are sorted by confidence and dealt to up to 15 bins of as many each, 20 or more. The interval is
    that of the noncentrality of a chi-squared distribution which has the mean and the variance of the binned square
    error (Patnaik 1949). It covers 95 % of many predictions that are not calibrated, and at least 95 % of calibrated
    ones, of few and of groups; `tests/test_evaluation_simulated.py` shows that.

    Args:
        probabilities: Shape (examples, classes), each row sums to 1, or with several labels need not.
        labels: Shape (examples,); or (examples, classes), zeros and ones.
        groups: Shape (examples,), the group of each.

    >>> rng = np.random.default_rng(0)
    >>> shares = rng.uniform(0.5, 1, 2000)
    >>> found = reliability(np.stack([shares, 1 - shares], axis=1), (rng.random(2000) > shares).astype(int))
    >>> found.interval[0], found.interval[1] < 0.07
    (0.0, True)
    """
    if labels.ndim == 2:
        confidence = np.maximum(probabilities, 1 - probabilities).ravel()
        right = ((probabilities > 0.5) == (labels > 0.5)).ravel()
        each = np.arange(len(labels)) if groups is None else np.asarray(groups)
        place = np.unique(np.repeat(each, labels.shape[1]), return_inverse=True)[1]
    else:
        confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
        place = group_of(len(labels), groups)
    confidence = confidence.astype(np.float64)
    count = max(1, min(BINS, len(right) // BIN))
    bin_of = np.empty(len(right), np.intp)
    bin_of[np.argsort(confidence, kind="stable")] = np.arange(len(right)) * count // len(right)
    sizes = np.bincount(bin_of, minlength=count)
    means, shares = (np.bincount(bin_of, values) / sizes for values in (confidence, right))
    # A bin without a mistake would have no variance: it has that of a calibrated one at the least.
    uncertain = np.bincount(bin_of, confidence * (1 - confidence)) / sizes
    excess = right - confidence - (shares - means)[bin_of]
    pairs, at = np.unique(bin_of * (int(place.max()) + 1) + place, return_inverse=True)
    sums = np.bincount(at, excess)
    squares = np.bincount(pairs // (int(place.max()) + 1), sums**2, minlength=count)
    variance = np.maximum(squares, uncertain * sizes) / sizes**2
    parts = (np.flatnonzero(bin_of == each) for each in range(count))
    known = groups is None and labels.ndim == 1
    bounds = np.array([accuracy_interval(right[part], None if known else place[part]) for part in parts]).T
    square, interval = _mean_square(shares - means, variance, sizes / len(right))
    return Reliability(means, shares, bounds, sizes, square**0.5, (interval[0] ** 0.5, interval[1] ** 0.5))


def _mean_square(gaps: np.ndarray, variance: np.ndarray, weights: np.ndarray) -> tuple[float, Interval]:
    """Estimate the weighted mean of the squares of true gaps, with its 95 % interval.

    Gaps that are too small for chance give no bounds: the upper one is then that of gaps as chance makes them.

    Shapes:
        gaps: (bins,), measured
        variance: (bins,), of their errors
        weights: (bins,), which sum to 1
    """
    from scipy import special

    observed, chance = float(weights @ gaps**2), float(weights @ variance)
    if chance <= 0:  # every prediction is certain
        return observed, (observed, observed)
    true = np.maximum(gaps**2 - variance, 0)
    excess = float(weights @ true)
    # The variance of what is observed: of chance alone, and of true gaps where their bins measure them badly.
    spread = 2 * float((weights * variance) @ (weights * variance)) + 4 * float((weights**2 * variance) @ true)
    scale = spread / (2 * chance + 4 * excess)
    freedom = chance / scale

    def bound(measured: float, share: float) -> float:
        """Return the true mean square for which this share of measured ones would be lower; 0 where none is."""
        if special.chdtr(freedom, measured / scale) <= share:
            return 0.0
        return scale * float(special.chndtrinc(measured / scale, freedom, share))

    return max(0.0, observed - chance), (bound(observed, 0.975), bound(observed, 0.025) or bound(chance, 0.025))


def quality(probabilities: np.ndarray, labels: np.ndarray, groups: Sequence[str] | np.ndarray | None = None) -> Quality:
    """Score probabilities; shapes as for `reliability`.

    >>> found = quality(np.array([[0.5, 0.5]] * 40), np.array([0, 1] * 20))
    >>> round(found.loss, 3), round(found.brier, 3), found.reliability.ece
    (0.693, 0.5, 0.0)
    """
    several = labels.ndim == 2
    scores = brier(probabilities, labels)
    low, high = loss_interval(scores, groups)
    return Quality(
        loss=float(log_losses(logits(probabilities, several), labels, several).mean()),
        brier=float(scores.mean()),
        brier_interval=(max(low, 0.0), min(high, 1.0 if several else 2.0)),
        reliability=reliability(probabilities, labels, groups),
    )
