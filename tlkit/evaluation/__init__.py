"""Scores of a classifier, each with its confidence interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tlkit import config
from tlkit.evaluation import predictions

DRAWN = 2_000_000  # of a bootstrap's draws, how often each example is in them, in memory at a time


class Scores(NamedTuple):
    """What a model scored on one split; where each example may have several labels, or none, it is multi-label.

    Args:
        split: `test`, or `validation` where that split also chose the epoch, so that its score is no test score.
        photos: How many the split has.
        accuracy: Share of photos whose most probable label is right, 0 to 1. Multi-label: share of all labels that are
            rightly there or rightly not, at probabilities above 0.5, as Keras' BinaryAccuracy has it.
        interval: 95 % Wilson interval of the accuracy. Multi-label: bootstrapped over the photos, as the labels of one
            photo are not independent.
        loss: Mean negative logarithm of the probability of the right label. Multi-label: mean binary cross-entropy.
        f1: F1 score averaged over the classes that occur.
        auc: Area under the ROC curve: of class 1 where there are two, else each class against the rest, averaged over
            the classes that occur; None where only one does. Multi-label: averaged over those of which some photos are
            and some are not.
        confusion: Counts, shape (classes, classes): the true label is the row, the predicted one the column.
            Multi-label: scikit-learn's, (classes, 2, 2), the same of each label that is not (0) or is (1) there.
        average_precision: Area under the precision-recall curve of each class, nan where no photo has it; of two
            classes and multi-label, else None.
        map_interval: Multi-label: 95 % bootstrap interval of `map`.
        exact_match: Multi-label: share of photos of which all labels are right.
    """

    split: str
    photos: int
    accuracy: float
    interval: tuple[float, float]
    loss: float
    f1: float
    auc: float | None
    confusion: np.ndarray
    average_precision: np.ndarray | None = None
    map_interval: tuple[float, float] | None = None
    exact_match: float | None = None

    @property
    def multi_label(self) -> bool:
        """Whether each example may have several labels, or none."""
        return self.exact_match is not None

    @property
    def map(self) -> float | None:
        """Multi-label: mean average precision, over the classes that some photo has."""
        if not self.multi_label or self.average_precision is None:
            return None
        return float(np.nanmean(self.average_precision))

    @property
    def headline(self) -> tuple[str, float, tuple[float, float]]:
        """Name, value and 95 % interval of the one score to look at: the accuracy, multi-label the mAP."""
        if self.map is None or self.map_interval is None:
            return "accuracy", self.accuracy, self.interval
        return "mAP", self.map, self.map_interval

    def metrics(self) -> dict[str, float]:
        """Give the scores under their names in MLflow: `test_accuracy`, `test_loss`, ...

        Of two classes also `test_precision`, `test_recall` and `test_average_precision` of class 1; multi-label
        `test_map` with its bounds, `test_f1_micro` and `test_exact_match`.
        """
        values = {"accuracy": self.accuracy, "loss": self.loss, "f1": self.f1, "auc": self.auc}
        bounds = {"accuracy_low": self.interval[0], "accuracy_high": self.interval[1]}
        more = self._of_labels() if self.multi_label else self._of_class_1() if len(self.confusion) == 2 else {}
        named = {**values, **bounds, **more}
        return {f"{self.split}_{name}": float(value) for name, value in named.items() if value is not None}

    def _of_labels(self) -> dict[str, float | None]:
        (_, false), (missed, right) = self.confusion.sum(axis=0)
        low, high = self.map_interval or (None, None)
        bounds = {"map_low": low, "map_high": high}
        f1_micro = 2 * right / max(2 * right + false + missed, 1)
        return {"map": self.map, **bounds, "f1_micro": f1_micro, "exact_match": self.exact_match}

    def _of_class_1(self) -> dict[str, float | None]:
        (_, false), (missed, right) = self.confusion
        area = None if self.average_precision is None else self.average_precision[1]
        precision, recall = right / max(right + false, 1), right / max(right + missed, 1)
        return {"precision": precision, "recall": recall, "average_precision": area}


class Ranked(NamedTuple):
    """What a backbone's frozen features are worth on the user's photos; all scores are of the training photos.

    Args:
        name: With the width multiplier, where it has one.
        backbone: Its settings.
        accuracy: Of logistic regression, cross-validated.
        interval: 95 % Wilson interval of the accuracy.
        nearest: Accuracy of the 5 nearest neighbours, cross-validated.
        logme: Logarithm of maximum evidence (arXiv:2102.11005): comparable between backbones on the same photos.
        seconds: That this run spent on it; less where the store had its features.
        parameters: Without head.
        run_id: MLflow run, below the one of the ranking.
    """

    name: str
    backbone: config.Backbone
    accuracy: float
    interval: tuple[float, float]
    nearest: float
    logme: float
    seconds: float
    parameters: int
    run_id: str


def score(split: str, probabilities: np.ndarray, labels: np.ndarray) -> Scores:
    """Score predictions.

    Args:
        split: Name of the split.
        probabilities: Shape (photos, classes), each row sums to 1; multi-label it need not.
        labels: Shape (photos,), the right class of each. Multi-label: (photos, classes), zeros and ones.

    Raises:
        ValueError: multi-label, and no photo has a label.

    >>> scores = score("test", np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]]), np.array([0, 1, 1]))
    >>> round(scores.accuracy, 3), scores.confusion.tolist()
    (0.667, [[1, 0], [1, 1]])
    """
    from sklearn import metrics

    if labels.ndim == 2:
        return _multi_label(split, probabilities, labels > 0.5)
    classes = np.arange(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)
    right = probabilities[np.arange(len(labels)), labels]
    return Scores(
        split=split,
        photos=len(labels),
        accuracy=float(np.mean(predicted == labels)),
        interval=wilson(int(np.sum(predicted == labels)), len(labels)),
        loss=float(-np.mean(np.log(np.clip(right.astype(np.float64), 1e-12, 1)))),
        f1=float(metrics.f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)),
        auc=_auc(probabilities, labels),
        confusion=metrics.confusion_matrix(labels, predicted, labels=classes),
        average_precision=average_precision(probabilities, np.eye(2)[labels]) if len(classes) == 2 else None,
    )


def _multi_label(split: str, probabilities: np.ndarray, labels: np.ndarray) -> Scores:
    from sklearn import metrics

    if not labels.any():
        raise ValueError(f"no photo of {split} has a label")
    predicted = probabilities > 0.5
    right, present = predicted == labels, np.flatnonzero(labels.any(axis=0))
    mixed = [index for index in present if not labels[:, index].all()]
    areas = [metrics.roc_auc_score(labels[:, index], probabilities[:, index]) for index in mixed]
    return Scores(
        split=split,
        photos=len(labels),
        accuracy=float(right.mean()),
        interval=predictions.bootstrap(right.mean(axis=1)),
        loss=float(binary_crossentropy(probabilities, labels).mean()),
        f1=float(metrics.f1_score(labels, predicted, labels=present, average="macro", zero_division=0)),
        auc=float(np.mean(areas)) if areas else None,
        confusion=metrics.multilabel_confusion_matrix(labels, predicted),
        average_precision=average_precision(probabilities, labels),
        map_interval=map_interval(probabilities, labels),
        exact_match=float(right.all(axis=1).mean()),
    )


def binary_crossentropy(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Give the binary cross-entropy of each example, averaged over its labels.

    Shapes:
        probabilities, labels: (examples, classes)
        returns: (examples,)

    >>> binary_crossentropy(np.array([[0.5, 0.5]]), np.array([[0, 1]])).round(3).tolist()
    [0.693]
    """
    of_label = np.where(labels, probabilities, 1 - probabilities.astype(np.float64))
    return -np.log(np.clip(of_label, 1e-12, 1)).mean(axis=1)


def average_precision(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Give the average precision of each class (scikit-learn's, without interpolation); nan where no example has it.

    Shapes:
        probabilities, labels: (examples, classes)
        returns: (classes,)

    >>> average_precision(np.array([[0.9, 0.2], [0.1, 0.3]]), np.array([[1, 0], [0, 0]])).tolist()
    [1.0, nan]
    """
    from sklearn import metrics

    pairs = zip(labels.T, probabilities.T, strict=True)
    return np.array([metrics.average_precision_score(true, said) if true.any() else np.nan for true, said in pairs])


def map_interval(
    probabilities: np.ndarray, labels: np.ndarray, seed: int = 0, resamples: int = 1000
) -> tuple[float, float]:
    """Give the 95 % percentile bootstrap interval of the mean average precision (Efron 1979).

    Whole examples are drawn, with all their labels; a class that a draw has no example of is left out of its mean.
    Where every draw is ranked without a mistake, both bounds are 1, which says that the examples are too few or too
    easy.

    Args:
        probabilities: Shape (examples, classes).
        labels: Shape (examples, classes), of which one at least is not 0.
        seed: Of the draws.
        resamples: How many are drawn.

    >>> rng = np.random.default_rng(0)
    >>> labels = rng.random((200, 3)) < 0.3
    >>> [round(bound, 2) for bound in map_interval(rng.random((200, 3)) + labels / 2, labels)]
    [0.74, 0.84]
    """
    count, rng, means = len(labels), np.random.default_rng(seed), []
    at_once = max(1, DRAWN // count)
    for start in range(0, resamples, at_once):
        draws = min(at_once, resamples - start)
        times = rng.multinomial(count, np.full(count, 1 / count), size=draws).T.astype(np.int32)
        areas = [_weighted(*pair, times) for pair in zip(probabilities.T, labels.T, strict=True)]
        drawn = np.array(areas)[:, ~np.isnan(areas).all(axis=0)]
        means.append(np.nanmean(drawn, axis=0))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def _weighted(probabilities: np.ndarray, labels: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The average precision of one class in each draw, (draws,), from how often it has each example, (n, draws)."""
    order = np.argsort(-probabilities, kind="stable")
    values, true = probabilities[order], labels[order] > 0
    if not true.any():
        return np.full(times.shape[1], np.nan)
    # Only thresholds of examples that have the class count, the lowest example at each of them last; ties share one.
    thresholds, first = np.unique(-values[true], return_index=True)
    starts = np.append(0, np.searchsorted(-values, thresholds, side="right")[:-1])
    last = np.searchsorted(-values, thresholds[-1], side="right")
    said = np.add.reduceat(times[order[:last]], starts, axis=0).cumsum(axis=0)
    gained = np.add.reduceat(times[order[true]], first, axis=0)
    right = gained.cumsum(axis=0)
    areas = (gained * (right / np.maximum(said, 1))).sum(axis=0)
    return np.where(right[-1], areas / np.maximum(right[-1], 1), np.nan)


def _auc(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    from sklearn import metrics

    present = np.unique(labels)
    if len(present) < 2:
        return None
    if probabilities.shape[1] == 2:
        return float(metrics.roc_auc_score(labels == 1, probabilities[:, 1]))
    return float(np.mean([metrics.roc_auc_score(labels == label, probabilities[:, label]) for label in present]))


def recalls(confusion: np.ndarray) -> list[tuple[float, float]]:
    """Give the 95 % Wilson interval of each class's recall; from 0 to 1 where a class has no examples.

    Shapes:
        confusion: (classes, classes), or (classes, 2, 2) as in `Scores`

    >>> [[round(bound, 2) for bound in interval] for interval in recalls(np.array([[9, 1], [0, 0]]))]
    [[0.6, 0.98], [0, 1]]
    """
    right, true, _ = counts(confusion)
    rows = zip(right.tolist(), true.tolist(), strict=True)
    return [wilson(right, count) if count else (0, 1) for right, count in rows]


def by_class(
    confusion: np.ndarray, classes: Sequence[str], average_precision: np.ndarray | None = None
) -> dict[str, list[Any]]:
    """Give a table of what each class scores, as columns; nan where a number is not defined.

    Recall has its 95 % Wilson interval; a class that is never predicted has no precision.

    Args:
        confusion: As in `Scores`.
        classes: Their names.
        average_precision: Of each class, for one more column.

    >>> table = by_class(np.array([[1, 0], [1, 1]]), ["cat", "dog"])
    >>> table["class"], table["examples"], table["recall"], table["precision"]
    (['cat', 'dog'], [1, 2], [1.0, 0.5], [0.5, 1.0])
    """
    right, true, said = counts(confusion)
    shares = {"recall": (right, true), "precision": (right, said), "f1": (2 * right, true + said)}
    table: dict[str, list[Any]] = {"class": list(classes), "examples": true.tolist()}
    for name, (part, whole) in shares.items():
        table[name] = np.where(whole > 0, part / np.maximum(whole, 1), np.nan).tolist()
    table["recall_low"], table["recall_high"] = map(list, zip(*recalls(confusion), strict=True))
    if average_precision is not None:
        table["average_precision"] = average_precision.tolist()
    return table


def counts(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give of each class how many are rightly predicted, how many there are, and how often it is predicted.

    Shapes:
        confusion: (classes, classes), or (classes, 2, 2) as in `Scores`
        returns: (classes,) each

    >>> [each.tolist() for each in counts(np.array([[9, 1], [2, 0]]))]
    [[9, 0], [10, 2], [11, 1]]
    """
    if confusion.ndim == 3:
        return confusion[:, 1, 1], confusion[:, 1].sum(axis=1), confusion[:, :, 1].sum(axis=1)
    return np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Give the Wilson score interval of a share (Wilson 1927); z = 1.96 covers 95 %.

    Raises:
        ValueError: there are no trials, or more successes than trials.

    >>> [round(bound, 4) for bound in wilson(9, 10)]
    [0.5958, 0.9821]
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials; trials must be at least 1 and at least successes")
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
