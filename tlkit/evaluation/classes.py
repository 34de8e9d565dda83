"""Scores of each class, from counts of right and wrong predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tlkit.evaluation.intervals import wilson


def counts(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count for each class its right predictions, its examples and all its predictions.

    Shapes:
        confusion: (classes, classes), or (classes, 2, 2) as in `Scores`
        returns: (classes,) each

    >>> [each.tolist() for each in counts(np.array([[9, 1], [2, 0]]))]
    [[9, 0], [10, 2], [11, 1]]
    """
    if confusion.ndim == 3:
        return confusion[:, 1, 1], confusion[:, 1].sum(axis=1), confusion[:, :, 1].sum(axis=1)
    return np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)


def recalls(confusion: np.ndarray) -> list[tuple[float, float]]:
    """Compute the 95 % Wilson interval of each class's recall; from 0 to 1 where a class has no examples.

    Shapes:
        confusion: (classes, classes), or (classes, 2, 2) as in `Scores`

    >>> [[round(bound, 2) for bound in interval] for interval in recalls(np.array([[9, 1], [0, 0]]))]
    [[0.6, 0.98], [0, 1]]
    """
    right, true, _ = counts(confusion)
    rows = zip(right.tolist(), true.tolist(), strict=True)
    return [wilson(right, count) if count else (0, 1) for right, count in rows]


def majority(labels: np.ndarray) -> int:
    """Return the most frequent class, the first of several.

    Shapes:
        labels: (examples,), positions in the classes

    >>> majority(np.array([2, 0, 2, 0]))
    0
    """
    return int(np.bincount(labels).argmax())


def rarer(labels: np.ndarray) -> int:
    """Return the less frequent of two classes, the second if both are equally frequent.

    Shapes:
        labels: (examples,), zeros and ones

    >>> rarer(np.array([0, 1, 1])), rarer(np.array([0, 1]))
    (0, 1)
    """
    return int(2 * np.sum(labels) <= len(labels))


def by_class(
    confusion: np.ndarray,
    classes: Sequence[str],
    average_precision: np.ndarray | None = None,
    recall_intervals: Sequence[tuple[float, float]] | None = None,
) -> dict[str, list[Any]]:
    """Make a table of the scores of each class, as columns; nan where a number is not defined.

    Recall has its 95 % interval; a class that is never predicted has no precision.

    Args:
        confusion: As in `Scores`.
        classes: Names of the classes.
        average_precision: Average precision of each class, for one more column.
        recall_intervals: As in `Scores`; by default Wilson's.

    >>> table = by_class(np.array([[1, 0], [1, 1]]), ["cat", "dog"])
    >>> table["class"], table["examples"], table["recall"], table["precision"]
    (['cat', 'dog'], [1, 2], [1.0, 0.5], [0.5, 1.0])
    """
    right, true, predicted = counts(confusion)
    shares = {"recall": (right, true), "precision": (right, predicted), "f1": (2 * right, true + predicted)}
    table: dict[str, list[Any]] = {"class": list(classes), "examples": true.tolist()}
    for name, (part, whole) in shares.items():
        table[name] = np.where(whole > 0, part / np.maximum(whole, 1), np.nan).tolist()
    table["recall_low"], table["recall_high"] = map(list, zip(*(recall_intervals or recalls(confusion)), strict=True))
    if average_precision is not None:
        table["average_precision"] = average_precision.tolist()
    return table


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float:
    """Compute the area under the ROC curve: how often a positive scores higher than a negative, ties counted as half.

    It is scikit-learn's `roc_auc_score`, whose import takes as long as ten thousand of these.

    Shapes:
        scores: (examples,)
        labels: (examples,), true and false, both of which occur

    >>> area_under_curve(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))
    0.875
    """
    negatives = np.sort(scores[~labels])
    below, up_to = (np.searchsorted(negatives, scores[labels], side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(negatives)))


def average_precision(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the average precision of each class, without interpolation; nan where no example has the class.

    It is scikit-learn's `average_precision_score`.

    Shapes:
        probabilities, labels: (examples, classes)
        returns: (classes,)

    >>> average_precision(np.array([[0.9, 0.2], [0.1, 0.3]]), np.array([[1, 0], [0, 0]])).tolist()
    [1.0, nan]
    """

    def of_class(true: np.ndarray, scores: np.ndarray) -> float:
        order = np.argsort(-scores, kind="stable")
        last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # equal scores are taken together
        hits = np.cumsum(true[order])[last]
        return float(np.sum(np.diff(hits, prepend=0) * hits / (last + 1)) / hits[-1])

    pairs = zip(labels.T > 0.5, probabilities.T, strict=True)
    return np.array([of_class(true, scores) if true.any() else np.nan for true, scores in pairs])
