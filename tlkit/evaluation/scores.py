"""Scores of a classifier on a split, each with its confidence interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tlkit import config
from tlkit.evaluation.areas import map_interval
from tlkit.evaluation.calibration import crossentropy
from tlkit.evaluation.classes import area_under_curve, average_precision, by_class, majority, rarer
from tlkit.evaluation.intervals import accuracy_interval, wilson_of_groups

UNEQUAL = 1.5  # times the smallest class, from which the largest makes a split unequal


class Scores(NamedTuple):
    """A model's scores on one split; multi-label where each example may have several labels, or none.

    Args:
        split: `test`, or `validation` where that split also chose the epoch, so that its score is not a test score.
        photos: Number of photos in the split.
        accuracy: Share of photos whose most probable label is right, 0 to 1. Multi-label: share of all labels that are
            predicted rightly as there or not, at probabilities above 0.5, as in Keras' BinaryAccuracy.
        interval: 95 % Wilson interval of the accuracy, by groups where there are groups; multi-label each photo is one,
            as its labels are not independent. See `wilson_of_groups`.
        loss: Mean negative logarithm of the probability of the right label. Multi-label: mean binary cross-entropy.
        f1: F1 score averaged over the classes that occur.
        auc: Area under the ROC curve: of class 1 where there are two, else each class against the rest, averaged over
            the classes that occur; None where only one does. Multi-label: averaged over the classes that some photos
            have and some do not.
        confusion: Counts, shape (classes, classes): the true label is the row, the predicted one the column.
            Multi-label: scikit-learn's, (classes, 2, 2), the same for each label that is absent (0) or present (1).
        average_precision: Area under the precision-recall curve of each class, nan where no photo has it; for two
            classes and multi-label, else None.
        map_interval: Multi-label: 95 % bootstrap interval of `map`.
        exact_match: Multi-label: share of photos with all labels right.
        balanced_accuracy: Mean recall of the classes that occur; multi-label None.
        majority: Most frequent class of the training split; None if that is not known, and multi-label.
        majority_accuracy: Accuracy of always predicting that class. Multi-label: of always predicting what is more
            frequent for each label in the training split, there or not.
        positive: Class of which precision, recall and average precision are among the metrics, where there are two.
        groups: Number of groups of photos, such as patients; None if each photo is independent of all others.
        recall_intervals: 95 % interval of each class's recall where there are groups; else see `recalls`.
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
    balanced_accuracy: float | None = None
    majority: int | None = None
    majority_accuracy: float | None = None
    positive: int | None = None
    groups: int | None = None
    recall_intervals: list[tuple[float, float]] | None = None

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

    @property
    def unequal(self) -> bool:
        """Whether the largest of the classes that occur has at least 1.5 times the photos of the smallest."""
        if self.multi_label:
            return False
        sizes = self.confusion.sum(axis=1)
        return bool(sizes.max() >= UNEQUAL * sizes[sizes > 0].min())

    def by_class(self, classes: Sequence[str]) -> dict[str, list[Any]]:
        """Make the table of the scores of each class, given their names; see `tlkit.evaluation.by_class`."""
        areas = self.average_precision if self.multi_label else None
        return by_class(self.confusion, classes, areas, self.recall_intervals)

    def metrics(self, suffix: str = "", intervals: Mapping[str, tuple[float, float]] | None = None) -> dict[str, float]:
        """Return the scores under their names in MLflow: `test_accuracy`, `test_loss`, ...

        With two classes also `test_precision`, `test_recall` and `test_average_precision` of class `positive`;
        multi-label `test_map` with its bounds, `test_f1_micro` and `test_exact_match`.

        Args:
            suffix: End of all names, such as `_tta`: the scores of other predictions, or of a part of the split.
            intervals: Those of other scores, as from `score_intervals`; their bounds are `test_loss_low`, ...
        """
        values = {"accuracy": self.accuracy, "loss": self.loss, "f1": self.f1, "auc": self.auc}
        bounds = {"accuracy_low": self.interval[0], "accuracy_high": self.interval[1]}
        for name, interval in (intervals or {}).items():
            bounds[f"{name}_low"], bounds[f"{name}_high"] = interval
        others = {"majority_accuracy": self.majority_accuracy, "balanced_accuracy": self.balanced_accuracy}
        special = self._multi_label() if self.multi_label else self._binary()
        named = {**values, **bounds, **others, **special}
        return {f"{self.split}_{name}{suffix}": float(value) for name, value in named.items() if value is not None}

    def _multi_label(self) -> dict[str, float | None]:
        (_, false), (missed, right) = self.confusion.sum(axis=0)
        low, high = self.map_interval or (None, None)
        bounds = {"map_low": low, "map_high": high}
        f1_micro = 2 * right / max(2 * right + false + missed, 1)
        return {"map": self.map, **bounds, "f1_micro": f1_micro, "exact_match": self.exact_match}

    def _binary(self) -> dict[str, float | None]:
        if self.positive is None:
            return {}
        one = self.positive
        right, false, missed = self.confusion[one, one], self.confusion[1 - one, one], self.confusion[one, 1 - one]
        area = None if self.average_precision is None else self.average_precision[one]
        precision, recall = right / max(right + false, 1), right / max(right + missed, 1)
        return {"precision": precision, "recall": recall, "average_precision": area}


class Ranked(NamedTuple):
    """How well a backbone's frozen features suit the user's photos; all scores are of the training photos.

    Args:
        name: Name of the backbone, with the width multiplier where it has one.
        backbone: Its settings.
        accuracy: Cross-validated accuracy of logistic regression.
        interval: 95 % Wilson interval of the accuracy; where the photos have groups, that of `wilson_of_groups`.
        nearest: Cross-validated accuracy of the 5 nearest neighbours.
        logme: Logarithm of maximum evidence (arXiv:2102.11005): comparable between backbones on the same photos.
        seconds: Seconds that this run spent on it; fewer where the store had its features.
        parameters: Number of parameters without head.
        run_id: MLflow run, nested in that of the ranking.
        majority: Name of the most frequent class.
        majority_accuracy: Accuracy of always predicting it.
        per_second: Photos that it computes in a second on this machine; None if that is not measured.
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
    majority: str
    majority_accuracy: float
    per_second: float | None = None


def score(
    split: str,
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    train_labels: np.ndarray | None = None,
    groups: Sequence[str] | np.ndarray | None = None,
    positive: int | None = None,
) -> Scores:
    """Score predictions for a split, or for any part of it.

    Args:
        split: Name of the split.
        probabilities: Shape (photos, classes), each row sums to 1; multi-label it need not.
        labels: Shape (photos,), the right class of each. Multi-label: (photos, classes), zeros and ones.
        train_labels: Labels of the training split, in the same form: what is most frequent there is the constant
            prediction that the accuracy is compared with. Without them there is no such comparison.
        groups: Shape (photos,), the group of each, such as its patient, where photos are independent only between
            groups; the intervals are then wider.
        positive: Position of the class whose precision, recall and average precision are wanted, where there are two;
            by default the rarer one of `train_labels`, without these 1.

    Raises:
        ValueError: multi-label, and no photo has a label.

    >>> scores = score("test", np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]]), np.array([0, 1, 1]))
    >>> round(scores.accuracy, 3), scores.confusion.tolist()
    (0.667, [[1, 0], [1, 1]])
    """
    if labels.ndim == 2:
        return _score_multi_label(split, probabilities, labels > 0.5, train_labels, groups)
    classes = np.arange(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)
    confusion = np.bincount(labels * len(classes) + predicted, minlength=len(classes) ** 2).reshape(-1, len(classes))
    truly, hits = confusion.sum(axis=1), np.diag(confusion)
    present = truly > 0
    constant = None if train_labels is None else majority(train_labels)
    if len(classes) != 2:
        positive = None
    elif positive is None:
        positive = 1 if train_labels is None else rarer(train_labels)
    return Scores(
        split=split,
        photos=len(labels),
        accuracy=float(np.mean(predicted == labels)),
        interval=accuracy_interval(predicted == labels, groups),
        loss=float(crossentropy(probabilities, labels).mean()),
        f1=float((2 * hits / np.maximum(truly + confusion.sum(axis=0), 1))[present].mean()),
        auc=_auc(probabilities, labels),
        confusion=confusion,
        average_precision=average_precision(probabilities, np.eye(2)[labels]) if len(classes) == 2 else None,
        balanced_accuracy=float((hits[present] / truly[present]).mean()),
        majority=constant,
        majority_accuracy=None if constant is None else float(np.mean(labels == constant)),
        positive=positive,
        **({} if groups is None else _of_groups(predicted[:, None] == classes, labels[:, None] == classes, groups)),
    )


def _of_groups(predicted: np.ndarray, labels: np.ndarray, groups: Sequence[str] | np.ndarray) -> dict[str, Any]:
    """Give the number of groups, and the interval of each class's recall.

    Shapes:
        predicted, labels: (photos, classes), whether each photo has each class
        groups: (photos,)
    """
    names, place = np.unique(np.asarray(groups), return_inverse=True)
    columns = zip(predicted.T, labels.T, strict=True)
    intervals = [wilson_of_groups(said[true], place[true]) if true.any() else (0, 1) for said, true in columns]
    return {"groups": len(names), "recall_intervals": intervals}


def _score_multi_label(
    split: str,
    probabilities: np.ndarray,
    labels: np.ndarray,
    train_labels: np.ndarray | None,
    groups: Sequence[str] | np.ndarray | None,
) -> Scores:
    from sklearn import metrics

    if not labels.any():
        raise ValueError(f"no photo of {split} has a label")
    predicted = probabilities > 0.5
    right, present = predicted == labels, np.flatnonzero(labels.any(axis=0))
    constant = None if train_labels is None else train_labels.mean(axis=0) > 0.5
    mixed = [index for index in present if not labels[:, index].all()]
    areas = [area_under_curve(probabilities[:, index], labels[:, index]) for index in mixed]
    return Scores(
        split=split,
        photos=len(labels),
        accuracy=float(right.mean()),
        interval=wilson_of_groups(right, np.arange(len(right)) if groups is None else groups),
        loss=float(crossentropy(probabilities, labels).mean()),
        f1=float(metrics.f1_score(labels, predicted, labels=present, average="macro", zero_division=0)),
        auc=float(np.mean(areas)) if areas else None,
        confusion=metrics.multilabel_confusion_matrix(labels, predicted),
        average_precision=average_precision(probabilities, labels),
        map_interval=map_interval(probabilities, labels, groups=groups),
        exact_match=float(right.all(axis=1).mean()),
        majority_accuracy=None if constant is None else float(np.mean(labels == constant)),
        **({} if groups is None else _of_groups(predicted, labels, groups)),
    )


def _auc(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    present = np.unique(labels)
    if len(present) < 2:
        return None
    if probabilities.shape[1] == 2:
        return area_under_curve(probabilities[:, 1], labels == 1)
    return float(np.mean([area_under_curve(probabilities[:, label], labels == label) for label in present]))
