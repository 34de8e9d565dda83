"""Scores of a classifier, each with its confidence interval."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tlkit import config


class Scores(NamedTuple):
    """What a model scored on one split.

    Args:
        split: `test`, or `validation` where that split also chose the epoch, so that its score is no test score.
        photos: How many the split has.
        accuracy: Share of photos whose most probable label is right, 0 to 1.
        interval: 95 % Wilson interval of the accuracy.
        loss: Mean negative logarithm of the probability of the right label.
        f1: F1 score averaged over the classes that occur.
        auc: Area under the ROC curve: of class 1 where there are two, else each class against the rest, averaged over
            the classes that occur; None where only one does.
        confusion: Counts, shape (classes, classes): the true label is the row, the predicted one the column.
    """

    split: str
    photos: int
    accuracy: float
    interval: tuple[float, float]
    loss: float
    f1: float
    auc: float | None
    confusion: np.ndarray

    def metrics(self) -> dict[str, float]:
        """Give the scores under their names in MLflow: `test_accuracy`, `test_loss`, ..."""
        values = {"accuracy": self.accuracy, "loss": self.loss, "f1": self.f1, "auc": self.auc}
        bounds = {"accuracy_low": self.interval[0], "accuracy_high": self.interval[1]}
        named = {**values, **bounds}
        return {f"{self.split}_{name}": float(value) for name, value in named.items() if value is not None}


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
        probabilities: Shape (photos, classes), each row sums to 1.
        labels: Shape (photos,), the right class of each.

    >>> scores = score("test", np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]]), np.array([0, 1, 1]))
    >>> round(scores.accuracy, 3), scores.confusion.tolist()
    (0.667, [[1, 0], [1, 1]])
    """
    from sklearn import metrics

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
    )


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

    >>> [[round(bound, 2) for bound in interval] for interval in recalls(np.array([[9, 1], [0, 0]]))]
    [[0.6, 0.98], [0, 1]]
    """
    rows = zip(np.diag(confusion).tolist(), confusion.sum(axis=1).tolist(), strict=True)
    return [wilson(right, count) if count else (0, 1) for right, count in rows]


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
