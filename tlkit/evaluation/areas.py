"""Confidence intervals of areas under curves, which are no shares of examples: bootstrapped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tlkit.evaluation.intervals import group_of, wilson

TIMES = 2_000_000  # counts of examples in the draws of a bootstrap, in memory at a time


def auc_interval(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str] | np.ndarray | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> tuple[float, float] | None:
    """Compute the 95 % bootstrap interval of the area under the ROC curve, averaged over classes as `score` does.

    Whole examples are drawn, or whole groups. The spread of the draws is taken on the scale of the logarithm of the
    odds, where it is symmetric, as in DeLong's interval with a logit: it stays below 1. Where nothing is ranked wrong,
    that spread is 0, and the lower bound is that of Wilson's for as many examples as the smallest class has.

    Args:
        probabilities: Shape (examples, classes).
        labels: Shape (examples,), positions in the classes; or (examples, classes), zeros and ones.
        groups: Shape (examples,), the group of each; by default each is one of its own.
        seed: Seed of the draws.
        resamples: Number of draws.

    Returns:
        The interval; None where no class has both examples of it and others.

    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 2, 200)
    >>> scores = rng.random(200) + labels / 2
    >>> low, high = auc_interval(np.stack([-scores, scores], axis=1), labels)
    >>> 0.8 < low < high < 1
    True
    """
    one_hot = labels > 0.5 if labels.ndim == 2 else np.eye(probabilities.shape[1], dtype=bool)[labels]
    places = [place for place in range(one_hot.shape[1]) if 0 < one_hot[:, place].sum() < len(one_hot)]
    if labels.ndim == 1 and probabilities.shape[1] == 2:
        places = places[-1:]
    if not places:
        return None
    place = group_of(len(labels), groups)
    smallest = int(min(min(one_hot[:, each].sum(), (~one_hot[:, each]).sum()) for each in places))
    draws = []
    for times in resampled(place, seed, resamples):
        areas = np.array([_auc_of_draws(probabilities[:, each], one_hot[:, each], times) for each in places])
        draws.append(np.nanmean(areas[:, ~np.isnan(areas).all(axis=0)], axis=0))  # a draw may hold a single class
    once = np.ones((len(labels), 1))
    area = float(np.mean([_auc_of_draws(probabilities[:, each], one_hot[:, each], once) for each in places]))
    return spread(area, np.concatenate(draws), int(place.max()) + 1, smallest, 0.5 / len(labels) ** 2)


def resampled(place: np.ndarray, seed: int, resamples: int = 1000) -> Iterator[np.ndarray]:
    """Yield how often the draws of a bootstrap have each example, shape (examples, draws), some draws at a time.

    Args:
        place: Shape (examples,), the number of each one's group; whole groups are drawn.
        seed: Seed of the draws.
        resamples: Number of draws.
    """
    count, rng, at_once = int(place.max()) + 1, np.random.default_rng(seed), max(1, TIMES // len(place))
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        yield rng.multinomial(count, np.full(count, 1 / count), size=size).T[place].astype(np.float64)


def spread(value: float, draws: np.ndarray, count: int, trials: float, least: float) -> tuple[float, float]:
    """Compute the 95 % interval of a score from 0 to 1 by the spread of its draws, as odds.

    Args:
        value: The score.
        draws: Shape (draws,).
        count: Number of groups that are drawn.
        trials: Of Wilson's interval where the score is 0 or 1, and draws have no spread.
        least: How far a draw is from 0 and from 1, at the least.
    """
    from scipy import special

    if count == 1:
        return 0.0, 1.0
    if value in (0.0, 1.0):
        return wilson(trials * value, trials)
    odds, middle = special.logit(np.clip(draws, least, 1 - least)), special.logit(value)
    half = float(special.stdtrit(count - 1, 0.975)) * float(np.std(odds))
    return float(special.expit(middle - half)), float(special.expit(middle + half))


def map_interval(
    probabilities: np.ndarray,
    labels: np.ndarray,
    seed: int = 0,
    resamples: int = 1000,
    groups: Sequence[str] | np.ndarray | None = None,
) -> tuple[float, float]:
    """Compute the 95 % percentile bootstrap interval of the mean average precision (Efron 1979).

    Whole examples are drawn, with all their labels, or whole groups of them; a class that a draw has no example of is
    left out of its mean. Where every draw is ranked without a mistake, both bounds are 1: the examples are too few or
    too easy. With groups, the percentiles are those of Student's t for their number, as far out as the spread of so few
    is too small (Hesterberg 2015); a single group has no interval: it is from 0 to 1.

    Args:
        probabilities: Shape (examples, classes).
        labels: Shape (examples, classes), of which one at least is not 0.
        seed: Seed of the draws.
        resamples: Number of draws.
        groups: Shape (examples,), the group of each example; by default each is one of its own.

    >>> rng = np.random.default_rng(0)
    >>> labels = rng.random((200, 3)) < 0.3
    >>> [round(bound, 2) for bound in map_interval(rng.random((200, 3)) + labels / 2, labels)]
    [0.74, 0.84]
    """
    place, means = group_of(len(labels), groups), []
    count, tail = int(place.max()) + 1, 0.025
    if groups is not None:
        from scipy import special

        if count == 1:
            return 0.0, 1.0
        tail = special.ndtr(np.sqrt(count / (count - 1)) * special.stdtrit(count - 1, 0.025))
    for times in resampled(place, seed, resamples):
        areas = [_weighted(*pair, times) for pair in zip(probabilities.T, labels.T, strict=True)]
        drawn = np.array(areas)[:, ~np.isnan(areas).all(axis=0)]
        means.append(np.nanmean(drawn, axis=0))
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def _auc_of_draws(scores: np.ndarray, true: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve in each draw, given how often that has each example, (n, draws)."""
    negatives = np.flatnonzero(~true)
    negatives = negatives[np.argsort(scores[negatives], kind="stable")]
    up_to = np.zeros((len(negatives) + 1, times.shape[1]))
    np.cumsum(times[negatives], axis=0, out=up_to[1:])
    left, right = (np.searchsorted(scores[negatives], scores[true], side) for side in ("left", "right"))
    pairs = times[true].sum(axis=0) * up_to[-1]
    both = (times[true] * (up_to[left] + up_to[right])).sum(axis=0)  # a tie counts as half
    return np.where(pairs > 0, both / np.maximum(2 * pairs, 1), np.nan)


def _weighted(probabilities: np.ndarray, labels: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the average precision of one class in each draw, given how often that has each example, (n, draws)."""
    order = np.argsort(-probabilities, kind="stable")
    values, true = probabilities[order], labels[order] > 0
    if not true.any():
        return np.full(times.shape[1], np.nan)
    # Only thresholds of examples that have the class count, the lowest example at each of them last; ties share one.
    thresholds, first = np.unique(-values[true], return_index=True)
    starts = np.append(0, np.searchsorted(-values, thresholds, side="right")[:-1])
    last = np.searchsorted(-values, thresholds[-1], side="right")
    predicted = np.add.reduceat(times[order[:last]], starts, axis=0).cumsum(axis=0)
    gained = np.add.reduceat(times[order[true]], first, axis=0)
    right = gained.cumsum(axis=0)
    areas = (gained * (right / np.maximum(predicted, 1))).sum(axis=0)
    return np.where(right[-1], areas / np.maximum(right[-1], 1), np.nan)
