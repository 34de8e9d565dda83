"""Scores against scikit-learn and published intervals."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from tlkit import evaluation


def test_scores_equal_scikit_learns():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), 200)
    labels = rng.integers(0, 4, 200)
    scores = evaluation.score("test", probabilities, labels)
    predicted = probabilities.argmax(1)
    assert scores.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert scores.loss == pytest.approx(metrics.log_loss(labels, probabilities))
    assert scores.f1 == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert scores.auc == pytest.approx(metrics.roc_auc_score(labels, probabilities, multi_class="ovr"))
    assert (scores.confusion == metrics.confusion_matrix(labels, predicted)).all()
    assert set(scores.metrics()) == {
        f"test_{name}" for name in ("accuracy", "accuracy_low", "accuracy_high", "loss", "f1", "auc")
    }


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_table_of_classes_equals_scikit_learns(multi_label: bool):
    rng = np.random.default_rng(0)
    if multi_label:
        probabilities, labels = rng.random((200, 4)), (rng.random((200, 4)) < 0.3).astype(float)
        predicted = probabilities > 0.5
    else:
        probabilities, labels = rng.dirichlet(np.ones(4), 200), rng.integers(0, 4, 200)
        predicted = probabilities.argmax(1)
    scores = evaluation.score("test", probabilities, labels)
    table = evaluation.by_class(scores.confusion, list("abcd"), scores.average_precision)
    precision, recall, f1, examples = metrics.precision_recall_fscore_support(labels, predicted)
    for name, wanted in {"precision": precision, "recall": recall, "f1": f1, "examples": examples}.items():
        assert table[name] == pytest.approx(wanted)
    assert all(low < value < high for low, value, high in zip(table["recall_low"], recall, table["recall_high"]))  # noqa: B905
    if multi_label:
        areas = metrics.average_precision_score(labels, probabilities, average=None)
        assert table["average_precision"] == pytest.approx(areas)
    assert {len(column) for column in table.values()} == {4}


def test_a_class_that_is_never_predicted_has_no_precision():
    table = evaluation.by_class(np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0]]), list("abc"))
    assert np.isnan(table["precision"]).tolist() == [False, True, True]
    assert np.isnan(table["recall"]).tolist() == [True, False, True]
    assert np.isnan(table["f1"]).tolist() == [False, False, True]


def test_a_class_that_no_photo_has_does_not_change_f1():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    assert evaluation.score("val", probabilities, np.array([0, 1])).f1 == 1.0


def test_the_area_under_the_curve_of_two_classes_is_that_of_class_1():
    labels = np.array([0, 0, 1, 1])
    right = np.array([0.1, 0.4, 0.35, 0.8])  # 3 of the 4 pairs are in order
    assert evaluation.score("test", np.stack([1 - right, right], 1), labels).auc == 0.75


def test_the_area_under_the_curve_leaves_out_classes_that_do_not_occur():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.55, 0.2, 0.25]])
    scores = evaluation.score("test", probabilities, np.array([0, 1, 0]))
    assert scores.auc == 1.0
    alone = evaluation.score("test", probabilities, np.array([2, 2, 2]))
    assert alone.auc is None
    assert "test_auc" not in alone.metrics()


@pytest.mark.parametrize(
    ("successes", "trials", "interval"),
    # Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_wilson_equals_the_published_table(successes: int, trials: int, interval: tuple[float, float]):
    assert evaluation.wilson(successes, trials) == pytest.approx(interval, abs=5e-5)


def test_no_photos_have_no_score():
    with pytest.raises(ValueError, match="0 successes in 0 trials"):
        evaluation.wilson(0, 0)
