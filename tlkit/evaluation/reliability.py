"""How far probabilities are from what they say: calibration error, Brier score, bins of a reliability diagram."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tlkit.evaluation.calibration import crossentropy
from tlkit.evaluation.intervals import accuracy_interval, group_of, loss_interval

BINS, BIN = 15, 20  # bins at the most; examples of a bin at the least
GROUPS = 4  # for each bin, at least
LEVEL, DRAWS = 0.05, 1000  # how often an interval misses; draws for each error that is tested
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


class Bins(NamedTuple):
    """What a calibration error is estimated from, (bins,) each.

    Args:
        shares: How many are right.
        confidence: Mean probability.
        trials: Number of independent predictions.
        weights: Which sum to 1.
    """

    shares: np.ndarray
    confidence: np.ndarray
    trials: np.ndarray
    weights: np.ndarray

    def mean_square(self, shares: np.ndarray) -> np.ndarray:
        """Estimate the mean square of the true gaps without bias: less the variance of the shares, (..., bins)."""
        chance = shares * (1 - shares) / np.maximum(self.trials - 1, 1)
        square: np.ndarray = ((shares - self.confidence) ** 2 - chance) @ self.weights
        return square


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

    The predictions are sorted by confidence and dealt to up to 15 bins of as many each, 20 or more. The interval has
    the errors that a test by simulated draws does not reject (see `excess`): one-sided at 0, so that it lies above 0
    for 5 of 100 calibrated models, and two-sided away from it (Feldman and Cousins 1998, doi:10.1103/PhysRevD.57.3873).
    `tests/test_evaluation_simulated.py` shows what it covers.

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
    groups = None if groups is None and labels.ndim == 1 else place
    bins, bin_of = binned(confidence.astype(np.float64), right, groups)
    parts = (np.flatnonzero(bin_of == each) for each in range(len(bins.shares)))
    bounds = np.array([accuracy_interval(right[part], None if groups is None else place[part]) for part in parts]).T
    ece = max(0.0, float(bins.mean_square(bins.shares))) ** 0.5
    return Reliability(bins.confidence, bins.shares, bounds, np.bincount(bin_of), ece, _interval(bins))


def binned(confidence: np.ndarray, right: np.ndarray, groups: np.ndarray | None) -> tuple[Bins, np.ndarray]:
    """Deal predictions to bins, and return these and the bin of each prediction.

    Shapes:
        confidence, right, groups: (predictions,)
    """
    count = max(1, min(BINS, len(right) // BIN))
    if groups is not None:  # bins of the same few groups would be taken for independent
        count = max(1, min(count, (int(groups.max()) + 1) // GROUPS))
    bin_of = np.empty(len(right), np.intp)
    bin_of[np.argsort(confidence, kind="stable")] = np.arange(len(right)) * count // len(right)
    sizes = np.bincount(bin_of, minlength=count)
    means, shares = (np.bincount(bin_of, values) / sizes for values in (confidence, right))
    # A sum of unequal chances varies less than the binomial of their mean does, as more trials would.
    variance, binomial = np.bincount(bin_of, confidence * (1 - confidence)) / sizes, means * (1 - means)
    trials: np.ndarray = sizes * np.clip(binomial / np.maximum(variance, 1e-12), 1, 2)
    if groups is not None:
        trials = trials / _alike(right - confidence, bin_of, groups)
    return Bins(shares, means, np.maximum(np.round(trials), 2).astype(int), sizes / len(right)), bin_of


def _alike(excess: np.ndarray, bin_of: np.ndarray, place: np.ndarray) -> float:
    """Return how many times the predictions of a bin vary as much as independent ones would, because of groups.

    Shapes:
        excess: (predictions,), how much more is right than the confidence
        bin_of, place: (predictions,), the bin and the group of each
    """
    from scipy import special

    excess = excess - (np.bincount(bin_of, excess) / np.bincount(bin_of))[bin_of]
    pairs = np.unique(bin_of * (int(place.max()) + 1) + place, return_inverse=True)[1]
    count = int(pairs.max()) + 1
    free = count - len(np.unique(bin_of))
    if free == 0:  # one group in each bin: nothing tells how alike its examples are
        return float(len(excess))
    together = count / free * float((np.bincount(pairs, excess) ** 2).sum())
    wider = special.stdtrit(free, 0.975) / special.ndtri(0.975)
    return max(1.0, together / max(float((excess**2).sum()), 1e-12)) * float(wider) ** 2


def excess(error: float, bins: Bins, above: bool) -> float:
    """Return how much more of the draws are beyond what was observed than where an error is rejected.

    The draws are binomial shares, around gaps that have this error and fit what was observed: hybrid
    resampling (Chuang and Lai 2000, Statistica Sinica 10). An error is in the interval if both sides are above 0.

    Args:
        error: Root mean square of true gaps, 0 or more.
        bins: As observed.
        above: Whether the draws that are as high are counted, or those that are as low.
    """
    variance = np.maximum(bins.confidence * (1 - bins.confidence), 1e-12) / bins.trials
    spread = float(np.sqrt(2 * ((bins.weights * variance) ** 2).sum()))
    shares = np.clip(bins.confidence + _gaps_of(error, bins, variance), 0, 1)
    # A seed of its own for each set of predictions, else what chance makes of the draws would be the same for all.
    rng = np.random.default_rng(zlib.crc32(bins.shares.tobytes()))
    drawn = rng.binomial(bins.trials, shares, (DRAWS, len(shares))) / bins.trials
    square, observed = bins.mean_square(drawn), float(bins.mean_square(bins.shares))
    beyond = square >= observed - 1e-12 if above else square <= observed + 1e-12
    lower = _lower_tail(error**2 / spread)
    return float((beyond.sum() + 1) / (DRAWS + 1)) - (LEVEL - lower if above else lower)


def _interval(bins: Bins) -> Interval:
    """Return the bounds of the errors that are not rejected."""
    from scipy import optimize

    most = float(np.sqrt(bins.weights @ np.maximum(bins.confidence, 1 - bins.confidence) ** 2))
    estimate = float(np.sqrt(max(float(bins.mean_square(bins.shares)), 0.0)))

    def end(at: float, other: float, above: bool) -> float:
        if excess(at, bins, above) > 0:
            return at
        if excess(other, bins, above) <= 0:  # where nearly all are wrong, no error gives what was observed
            return estimate
        return float(optimize.brentq(excess, 0.0, most, (bins, above), xtol=2e-4))

    return min(end(0.0, most, above=True), estimate), max(end(most, 0.0, above=False), estimate)


def _gaps_of(error: float, bins: Bins, variance: np.ndarray) -> np.ndarray:
    """Find gaps of a root mean square that fit the observed ones, (bins,).

    Smaller ones are in proportion to these. Of larger ones it is those of imprecise bins that grow most, as is most
    probable; where these reach shares of 0 or 1, all move towards their farther side.
    """
    from scipy import optimize

    observed, confidence = bins.shares - bins.confidence, bins.confidence
    size = float(np.sqrt(bins.weights @ observed**2))
    if error <= size:
        return observed * (error / max(size, 1e-12))
    relative = variance / variance.max()

    def gaps(nearness: float) -> np.ndarray:
        return np.clip(observed / (1 - relative * (1 - np.exp(nearness))), -confidence, 1 - confidence)

    def missing(nearness: float) -> float:
        return error - float(np.sqrt(bins.weights @ gaps(nearness) ** 2))

    if missing(-15.0) >= 0:
        near, far = gaps(-15.0), np.where(confidence > 0.5, -confidence, 1 - confidence)

        def short(share: float) -> float:
            return error - float(np.sqrt(bins.weights @ (near + share * (far - near)) ** 2))

        share = 1.0 if short(1.0) >= 0 else float(optimize.brentq(short, 0.0, 1.0))
        moved: np.ndarray = near + share * (far - near)
        return moved
    return gaps(float(optimize.brentq(missing, -15.0, 0.0, xtol=1e-3)))


def _lower_tail(distance: float) -> float:
    """Return how much of the 5 % that an interval misses is due to low values, by the likelihood's ratio.

    None at a parameter's boundary, half of it far away: Feldman and Cousins (1998, doi:10.1103/PhysRevD.57.3873), for a
    normal value and a mean that cannot be below 0.

    Args:
        distance: Of the parameter from its boundary, in standard deviations of what is measured.

    >>> round(_lower_tail(0.01), 4), round(_lower_tail(1.0), 4), _lower_tail(3.0)
    (0.0, 0.0156, 0.025)
    """
    from scipy import optimize, special

    if distance <= 0 or distance >= special.ndtri(1 - LEVEL / 2):
        return LEVEL / 2 if distance > 0 else 0.0

    def excess(upper: float) -> float:
        """By how much both tails exceed 5 %; the likelihood's ratio is the same where they begin."""
        return float(special.ndtr(-upper) + special.ndtr(-distance / 2 - upper**2 / (2 * distance)) - LEVEL)

    ends = special.ndtri([1 - LEVEL, 1 - LEVEL / 2])
    upper = optimize.brentq(excess, ends[0] - 1e-9, ends[1] + 1e-9)
    return max(0.0, LEVEL - float(special.ndtr(-upper)))


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
        loss=float(crossentropy(probabilities, labels).mean()),
        brier=float(scores.mean()),
        brier_interval=(max(low, 0.0), min(high, 1.0 if several else 2.0)),
        reliability=reliability(probabilities, labels, groups),
    )
