"""When a classifier had better say that it is unsure: accuracy against coverage, thresholds and sets of labels.

What is promised here holds for new examples that are drawn like those by which it was chosen, and a model that did not
learn from these.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tlkit.display import shown
from tlkit.errors import InvalidInput
from tlkit.evaluation.intervals import accuracy_interval, effective_trials

CONFIDENCE = 0.95  # with which a threshold keeps its promise
STARTS = 4  # sequences of tests at the most, among which the risk of a wrong promise is divided
# Thresholds in question, fixed before any example is seen; the steps are equal in the logit, from 0.9999 down.
GRID = 1 / (1 + np.exp(-np.linspace(np.log(1e4), np.log(1 / 99), 400)))
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)


class Abstention(NamedTuple):
    """When a model says no single class; saved with it. What is None does not apply.

    Args:
        threshold: Highest probability below which it is unsure.
        target_accuracy: What the threshold promises of the answers that are left.
        set_threshold: Probability from which on a class belongs to the set of labels.
        set_coverage: Share of the examples whose label is in the set.
        novelty: Distance from the nearest known example beyond which an example is like none of the classes.
    """

    threshold: float | None = None
    target_accuracy: float | None = None
    set_threshold: float | None = None
    set_coverage: float | None = None
    novelty: float | None = None

    @property
    def changed(self) -> dict[str, float]:
        """What applies, by name.

        >>> Abstention(threshold=0.8, target_accuracy=0.95).changed
        {'threshold': 0.8, 'target_accuracy': 0.95}
        """
        return {name: value for name, value in self._asdict().items() if value is not None}

    @classmethod
    def of(cls, changed: object) -> Abstention:
        """Make the one whose `changed` was written down; checked, because it may come from a stranger's model.

        Raises:
            InvalidInput: it is none, or one that this version of tlkit does not know.

        >>> Abstention.of({"novelty": 0.2}).novelty
        0.2
        """
        if not isinstance(changed, dict):
            raise InvalidInput(f"the abstention is {shown(reprlib.repr(changed))}: it must be numbers with their names")
        for name, value in changed.items():
            most = 2 if name == "novelty" else 1
            number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most
            if name not in cls._fields or not number:
                setting = shown(f"{reprlib.repr(name)}: {reprlib.repr(value)}")
                raise InvalidInput(f"the abstention has {setting}, which this version of tlkit does not know")
        return cls(**changed)


class Threshold(NamedTuple):
    """Below which probability a classifier says that it is unsure.

    Args:
        threshold: The probability.
        target: Accuracy of the answers that are left, which is promised.
        coverage: Share of the examples that it was chosen on which are answered.
        accuracy: Accuracy of these.
        answered: Number of these.
    """

    threshold: float
    target: float
    coverage: float
    accuracy: float
    answered: int


def needed(target: float) -> int:
    """Count the examples without a mistake that a threshold for a target accuracy needs at least.

    >>> needed(0.95), needed(0.99)
    (59, 299)
    """
    return int(np.ceil(np.log(1 - CONFIDENCE) / np.log(target)))


def threshold(
    confidence: np.ndarray, right: np.ndarray, target: float, groups: Sequence[str] | np.ndarray | None = None
) -> Threshold | None:
    """Choose the lowest threshold above which the accuracy is at least `target`, with 95 % confidence; None without.

    The confidence is at least that: exact tests of whole counts, of which several share the risk, fail less often.

    The answers above a threshold are tested against the target by the exact binomial (Clopper and Pearson 1934), from
    strict thresholds to lenient ones, and the first that fails ends it: fixed sequence testing, as in "Learn then test"
    (Angelopoulos et al. 2021, arXiv:2110.01052). Up to four such sequences begin at twice as many answers each, as a
    strict one may fail by one mistake; each has its share of the risk of 5 %. With groups, the examples count as many
    as in `wilson_of_groups`.

    Args:
        confidence: Shape (examples,), the probability of the class that is predicted.
        right: Shape (examples,), whether it is right.
        target: The accuracy, above 0 and below 1.
        groups: Shape (examples,), the group of each.

    >>> rng = np.random.default_rng(0)
    >>> confidence = rng.uniform(0.5, 1, 2000)
    >>> chosen = threshold(confidence, rng.random(2000) < confidence, target=0.9)
    >>> 0.8 < chosen.threshold < 0.9 and chosen.accuracy > 0.9
    True
    """
    from scipy import special

    order = np.argsort(-confidence, kind="stable")
    answered = np.searchsorted(-confidence[order], -GRID, side="right")  # at each threshold
    hits = np.concatenate([[0], np.cumsum(right[order])])[answered]
    ordered = None if groups is None else np.asarray(groups)[order]

    def p_value(place: int) -> float:
        """Return how probable as many right answers are, or more, at an accuracy just below the target."""
        count, trials, successes = int(answered[place]), float(answered[place]), float(hits[place])
        if ordered is not None:
            trials = effective_trials(right[order[:count]], ordered[:count])
            successes *= trials / count
        return float(special.betainc(successes, trials - successes + 1, target)) if successes else 1.0

    starts: list[int] = []  # places in the grid
    least = needed(target)
    while len(starts) < STARTS and least <= answered[-1]:
        starts.append(int(np.argmax(answered >= least)))
        least *= 2
    best = -1
    for start in starts:
        place = start
        while place < len(GRID) and p_value(place) <= (1 - CONFIDENCE) / len(starts):
            best, place = max(best, place), place + 1
    if best < 0:
        return None
    count = int(answered[best])
    return Threshold(float(GRID[best]), target, count / len(right), float(hits[best]) / count, count)


def coverage_table(
    confidence: np.ndarray, right: np.ndarray, groups: Sequence[str] | np.ndarray | None = None
) -> dict[str, list[float]]:
    """Make a table of the accuracy of the most confident examples, as columns: all of them, 95 %, ... 50 %.

    Args:
        confidence: Shape (examples,).
        right: Shape (examples,), whether each is right.
        groups: Shape (examples,), the group of each.

    >>> coverage_table(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, False]))["accuracy"][::6]
    [0.5, 1.0]
    """
    order = np.argsort(-confidence, kind="stable")
    rows = []
    for coverage in COVERAGES:
        part = order[: max(1, round(coverage * len(order)))]
        low, high = accuracy_interval(right[part], None if groups is None else np.asarray(groups)[part])
        rows.append((len(part) / len(order), float(confidence[part].min()), float(right[part].mean()), low, high))
    names = ("coverage", "threshold", "accuracy", "accuracy_low", "accuracy_high")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def set_threshold(
    probabilities: np.ndarray, labels: np.ndarray, coverage: float, groups: Sequence[str] | np.ndarray | None = None
) -> float:
    """Choose the probability from which on a class belongs to a set of labels that holds the right one often enough.

    Split conformal prediction with the score 1 minus the probability (LAC, Sadinle et al. 2019, arXiv:1609.00451): of
    new examples, a share of at least `coverage` has its label in the set, and of `examples` ones at most 1 /
    (examples + 1) more. With groups, one example of each is drawn: this holds for an example of a new group.

    Args:
        probabilities: Shape (examples, classes).
        labels: Shape (examples,).
        coverage: The share, above 0 and below 1.
        groups: Shape (examples,), the group of each.

    Returns:
        The probability; 0 where there are too few examples, and each set has all classes.

    >>> shares = np.linspace(0.01, 1, 100)
    >>> round(set_threshold(np.stack([shares, 1 - shares], axis=1), np.zeros(100, int), coverage=0.9), 4)
    0.1
    """
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    if groups is not None:
        order = np.random.default_rng(0).permutation(len(labels))
        of_label = of_label[order[np.unique(np.asarray(groups)[order], return_index=True)[1]]]
    place = int(np.floor((len(of_label) + 1) * (1 - coverage) + 1e-9))
    return float(np.sort(of_label)[place - 1]) if place else 0.0


def label_sets(probabilities: np.ndarray, least: float) -> np.ndarray:
    """Return which classes each set has: those from a probability on, and in any case the most probable.

    Shapes:
        probabilities: (examples, classes)
        returns: (examples, classes), whether

    >>> label_sets(np.array([[0.7, 0.2, 0.1], [0.4, 0.3, 0.3]]), 0.3).tolist()
    [[True, False, False], [True, True, True]]
    """
    sets: np.ndarray = (probabilities >= least) | (probabilities == probabilities.max(axis=1, keepdims=True))
    return sets
