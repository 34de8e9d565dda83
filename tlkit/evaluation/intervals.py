"""Confidence intervals of scores."""

from __future__ import annotations

import numpy as np

DRAWS = 1_000_000  # of a mean's bootstrap, in memory at a time
TIMES = 2_000_000  # counts of examples in the draws of a mean average precision's bootstrap, in memory at a time


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Compute the Wilson score interval of a share (Wilson 1927); z = 1.96 covers 95 %.

    Raises:
        ValueError: there are no trials, or more successes than trials.

    >>> [round(bound, 4) for bound in wilson(9, 10)]
    [0.5958, 0.9821]
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials; trials must be at least 1 and at least successes")
    share = successes / trials
    center = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return max(0.0, float(center - half)), min(1.0, float(center + half))


def bootstrap(values: np.ndarray, seed: int = 0, resamples: int = 10_000) -> tuple[float, float]:
    """Compute the 95 % percentile bootstrap interval of a mean (Efron 1979).

    Where all values are equal, so are the bounds: a score of 100 % needs another interval, such as Wilson's.

    Args:
        values: Shape (examples,), such as whether each is right.
        seed: Seed of the draws.
        resamples: Number of draws.

    Raises:
        ValueError: there are no values.

    >>> bootstrap(np.repeat([True, False], [90, 10]))
    (0.84, 0.95)
    """
    if not len(values):
        raise ValueError("there are no values; a mean needs one at least")
    distinct, counts = np.unique(values, return_counts=True)
    rng = np.random.default_rng(seed)
    at_once = max(1, DRAWS // len(distinct))
    means = []
    for start in range(0, resamples, at_once):
        # How often each distinct value is drawn: the same as drawing the examples, in far less memory and time.
        drawn = rng.multinomial(len(values), counts / len(values), size=min(at_once, resamples - start))
        means.append(drawn @ distinct.astype(float) / len(values))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def map_interval(
    probabilities: np.ndarray, labels: np.ndarray, seed: int = 0, resamples: int = 1000
) -> tuple[float, float]:
    """Compute the 95 % percentile bootstrap interval of the mean average precision (Efron 1979).

    Whole examples are drawn, with all their labels; a class that a draw has no example of is left out of its mean.
    Where every draw is ranked without a mistake, both bounds are 1: the examples are too few or too easy.

    Args:
        probabilities: Shape (examples, classes).
        labels: Shape (examples, classes), of which one at least is not 0.
        seed: Seed of the draws.
        resamples: Number of draws.

    >>> rng = np.random.default_rng(0)
    >>> labels = rng.random((200, 3)) < 0.3
    >>> [round(bound, 2) for bound in map_interval(rng.random((200, 3)) + labels / 2, labels)]
    [0.74, 0.84]
    """
    count, rng, means = len(labels), np.random.default_rng(seed), []
    at_once = max(1, TIMES // count)
    for start in range(0, resamples, at_once):
        draws = min(at_once, resamples - start)
        times = rng.multinomial(count, np.full(count, 1 / count), size=draws).T.astype(np.int32)
        areas = [_weighted(*pair, times) for pair in zip(probabilities.T, labels.T, strict=True)]
        drawn = np.array(areas)[:, ~np.isnan(areas).all(axis=0)]
        means.append(np.nanmean(drawn, axis=0))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


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
