"""Scores against scikit-learn and published intervals."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics
from sklearn.dummy import DummyClassifier

from tlkit import evaluation
from tlkit.evaluation import areas, reliability, uncertainty


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
    assert scores.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    assert (scores.confusion == metrics.confusion_matrix(labels, predicted)).all()
    names = ("accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy", "loss", "f1", "auc")
    assert set(scores.metrics()) == {f"test_{name}" for name in names}


def test_balanced_accuracy_is_of_the_classes_that_occur():
    probabilities = np.eye(3)[[0, 0, 0, 2, 1]]
    labels = np.array([0, 0, 0, 0, 1])
    scores = evaluation.score("test", probabilities, labels)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert scores.balanced_accuracy == metrics.balanced_accuracy_score(labels, probabilities.argmax(1)) == 0.875


@pytest.mark.parametrize(("sizes", "unequal"), [((3, 2, 0), True), ((4, 3, 3), False), ((5, 0, 0), False)])
def test_classes_are_unequal_from_one_and_a_half_times_on(sizes: tuple[int, ...], unequal: bool):
    labels = np.repeat([0, 1, 2], sizes)
    assert evaluation.score("test", np.eye(3)[labels], labels).unequal is unequal


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_constant_prediction_is_that_of_a_dummy_classifier(multi_label: bool):
    rng = np.random.default_rng(0)
    shape = (60, 4) if multi_label else (60,)
    train, test = rng.integers(0, 2, shape), rng.integers(0, 2, shape)
    if multi_label:
        train[:30, 0], train[30:, 0] = 0, 1  # as often there as not
    else:
        train, test = np.where(train, 3, rng.integers(0, 4, shape)), np.where(test, 1, rng.integers(0, 4, shape))
    dummy = DummyClassifier(strategy="most_frequent").fit(train, train)
    said = dummy.predict(test)
    scores = evaluation.score("test", rng.dirichlet(np.ones(4), 60), test, train_labels=train)
    assert scores.metrics()["test_majority_accuracy"] == np.mean(said == test)
    assert scores.majority == (None if multi_label else said[0])


@pytest.mark.parametrize("positive", [0, 1, None])
@pytest.mark.parametrize("ones", [15, 30, 45])
def test_precision_is_of_the_class_that_is_asked_for_or_the_rarer_one(positive: int | None, ones: int):
    rng = np.random.default_rng(0)
    train, labels = np.repeat([0, 1], [60 - ones, ones]), rng.integers(0, 2, 80)
    share = np.clip(0.4 * labels + 0.6 * rng.random(80), 0, 1)
    scores = evaluation.score("test", np.stack([1 - share, share], 1), labels, train_labels=train, positive=positive)
    one = positive if positive is not None else 0 if ones == 45 else 1  # of equally frequent ones the second
    assert scores.positive == one
    found, predicted = scores.metrics(), share > 0.5
    assert found["test_precision"] == pytest.approx(metrics.precision_score(labels, predicted, pos_label=one))
    assert found["test_recall"] == pytest.approx(metrics.recall_score(labels, predicted, pos_label=one))
    area = metrics.average_precision_score(labels == one, share if one else 1 - share)
    assert found["test_average_precision"] == pytest.approx(area)


def test_a_part_of_a_split_has_names_of_its_own():
    labels = np.array([0, 1, 1, 0])
    whole = evaluation.score("test", np.eye(2)[[0, 1, 0, 0]], labels, groups=list("aabb"))
    part = evaluation.score("test", np.eye(2)[[0, 1]], labels[:2], groups=["a", "a"])
    assert part.metrics("_without_copies").keys() == {f"{name}_without_copies" for name in whole.metrics()}
    assert (whole.groups, part.groups) == (2, 1)


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


def frames(rng: np.random.Generator, videos: int = 30, share: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Whether frames of videos are right, 1 to 19 of each, those of one alike (correlation 0.3); and their videos."""
    sizes = rng.integers(1, 20, videos)
    shares = rng.beta(share / 0.3 * 0.7, (1 - share) / 0.3 * 0.7, videos)  # its correlation is 1 / (1 + a + b)
    video = np.repeat(np.arange(videos), sizes)
    return rng.random(len(video)) < shares[video], video


def test_intervals_by_groups_cover_the_truth_and_those_of_photos_do_not():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        right, video = frames(rng)
        intervals = evaluation.accuracy_interval(right), evaluation.accuracy_interval(right, video)
        covered.append([low <= 0.8 <= high for low, high in intervals])
    by_photos, by_groups = np.mean(covered, axis=0)
    assert 0.9 <= by_groups <= 0.99  # three standard errors around 95 % are 0.91 to 0.99
    assert by_photos < 0.75


def test_photos_that_are_all_repeated_say_no_more_than_once():
    right, alone = np.arange(50) < 40, np.arange(50)
    once = evaluation.wilson_of_groups(right, alone)
    assert evaluation.wilson_of_groups(np.repeat(right, 7), np.repeat(alone, 7)) == pytest.approx(once)
    assert evaluation.wilson_of_groups(right, alone) == pytest.approx(evaluation.wilson(40, 50), abs=0.01)
    columns = np.repeat(right[:, None], 4, axis=1)  # several labels, right or wrong together
    assert evaluation.wilson_of_groups(columns, alone) == pytest.approx(once)


@pytest.mark.parametrize("share", [0, 0.5, 1])
@pytest.mark.parametrize("groups", [1, 8])
def test_groups_that_are_all_alike_count_as_one_photo_each(share: float, groups: int):
    right = np.tile([False, True] if share == 0.5 else [bool(share)] * 2, groups)
    expected = evaluation.wilson(share * groups, groups)
    assert evaluation.wilson_of_groups(right, np.repeat(np.arange(groups), 2)) == pytest.approx(expected)


def test_each_example_has_a_group():
    for right, groups in ((np.ones(3, bool), ["a", "b"]), (np.ones(0, bool), [])):
        with pytest.raises(ValueError, match=f"{len(right)} examples and {len(groups)} groups"):
            evaluation.wilson_of_groups(right, groups)


@pytest.mark.parametrize("multi_label", [False, True])
def test_recall_too_has_its_interval_by_groups(multi_label: bool):
    rng = np.random.default_rng(0)
    if multi_label:
        probabilities, labels = rng.random((60, 3)), (rng.random((60, 3)) < 0.4).astype(float)
        predicted, true = probabilities > 0.5, labels > 0
    else:
        probabilities, labels = rng.dirichlet(np.ones(3), 60), rng.integers(0, 2, 60)  # none of the third class
        predicted, true = np.eye(3)[probabilities.argmax(1)] > 0, np.eye(3)[labels] > 0
    groups = np.repeat(np.arange(20), 3)
    scores = evaluation.score("test", probabilities, labels, groups=groups)
    table = evaluation.by_class(scores.confusion, list("abc"), None, scores.recall_intervals)
    for place in range(3):
        low, high = table["recall_low"][place], table["recall_high"][place]
        own = true[:, place]
        if own.any():
            assert (low, high) == evaluation.wilson_of_groups(predicted[own, place], groups[own])
        else:
            assert (low, high) == (0, 1)


def test_no_photos_have_no_score():
    with pytest.raises(ValueError, match="0 successes in 0 trials"):
        evaluation.wilson(0, 0)


def test_areas_are_scikit_learns_with_ties_too():
    rng = np.random.default_rng(0)
    for count in (2, 5, 300):
        scores, labels = rng.integers(0, 20, count) / 20, rng.random(count) < 0.4
        labels[:2] = [True, False]
        assert evaluation.classes.area_under_curve(scores, labels) == pytest.approx(
            metrics.roc_auc_score(labels, scores)
        )
        (found,) = evaluation.classes.average_precision(scores[:, None], labels[:, None])
        assert found == pytest.approx(metrics.average_precision_score(labels, scores))


@pytest.mark.thorough
def test_the_draws_of_f1_leave_out_classes_that_they_do_not_have():
    """Against scikit-learn's, of draws of its own: a class of two examples is absent from every seventh draw."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [30, 28, 2])
    predicted = np.where(rng.random(60) < 0.8, labels, (labels + 1) % 2)
    predicted[-2:] = 2
    draws = []
    for _ in range(1000):
        drawn = rng.integers(0, 60, 60)
        there = np.unique(labels[drawn])
        draws.append(metrics.f1_score(labels[drawn], predicted[drawn], labels=there, average="macro", zero_division=0))
    value = metrics.f1_score(labels, predicted, average="macro")
    expected = areas.spread(value, np.array(draws), 60, 60, 0.5 / 60)
    one_hot = np.eye(3, dtype=bool)
    assert uncertainty.f1_interval(one_hot[predicted], one_hot[labels]) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("several", [False, True])
def test_one_log_loss_is_scored_bounded_and_calibrated(several: bool):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([0.05] * 3, 50).astype(np.float32)  # some are 0
    labels = np.eye(3)[rng.integers(0, 3, 50)] if several else rng.integers(0, 3, 50)
    loss = float(evaluation.crossentropy(probabilities, labels).mean())
    assert (
        evaluation.score("test", probabilities, labels).loss == loss == reliability.quality(probabilities, labels).loss
    )
    low, high = evaluation.score_intervals(probabilities, labels)["loss"]
    assert low < loss < high


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_calibration_error_of_models_that_are_nearly_always_wrong_lies_in_its_interval(classes: int):
    rng = np.random.default_rng(classes)
    for count in (40, 123, 400):
        right = rng.integers(0, classes, count)
        scores = 3 * np.eye(classes)[(right + 1) % classes] + rng.normal(size=(count, classes))
        found = reliability.quality(np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True), right)
        assert found.reliability.interval[0] <= found.reliability.ece <= found.reliability.interval[1]


@pytest.mark.parametrize(("groups", "size"), [(1, 100), (2, 50), (10, 20), (40, 8)])
def test_groups_that_are_alike_reject_few_calibrated_models(groups: int, size: int):
    rejected = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        chance = np.repeat(rng.uniform(0.6, 0.95, groups), size)
        hit = np.repeat(rng.random(groups), size) < chance  # all of a group are right, or none is
        shares = np.stack([chance, 1 - chance], axis=1)
        found = reliability.quality(shares, np.where(hit, 0, 1), np.repeat(np.arange(groups), size))
        rejected += found.reliability.interval[0] > 0
    assert rejected <= 10
