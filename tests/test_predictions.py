"""Tables of predictions come back as they were logged, and their tests and intervals are the textbook's."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tlkit import evaluation
from tlkit.errors import InvalidInput
from tlkit.evaluation import predictions

COLUMNS = ["file", "digest", "split", "label", "predicted", "probability", "probability_of_label", "correct"]


def made(digests: str, labels: str, predicted: str, split: str = "test") -> predictions.Predictions:
    """Predictions of examples with one letter for each digest, label and prediction."""
    right = np.array([label == said for label, said in zip(labels, predicted, strict=True)])
    shares = np.full(len(right), 0.5)
    return predictions.Predictions(
        split, list(digests), list(digests), np.array(list(labels)), np.array(list(predicted)), shares, right
    )


def test_the_table_has_its_columns_in_order_and_plain_values():
    table = predictions.table(
        "test", ["a", "b"], ["0", "1"], np.array([1, 0]), np.array([[0.3, 0.7], [0.4, 0.6]], np.float32), ["cat", "dog"]
    )
    assert list(table) == COLUMNS
    assert table["predicted"] == ["dog", "dog"]
    assert table["correct"] == [True, False]
    assert table["probability_of_label"] == pytest.approx([0.7, 0.4])
    json.dumps(table)


def test_lengths_that_disagree_are_refused():
    with pytest.raises(ValueError, match=r"2 labels go with 2 names, 2 hashes .* not with 2, 1 and \(2, 2\)"):
        predictions.table("test", ["a", "b"], ["0"], np.array([1, 0]), np.ones((2, 2)), ["cat", "dog"])


@pytest.mark.filterwarnings("ignore:For backward compatibility, 'str' dtypes")
def test_what_a_run_logs_is_read_back(folder: Path):
    import mlflow

    names = ["roses/ä \udcff.jpg", '"quoted", with comma', "2024-01-01"]
    hashes = ["1e5", "0012", "true"]  # what a careless reader takes for numbers
    classes = ["1", "2024-05-05", "ñ"]
    probabilities = np.array([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0, 0, 1]], np.float32)
    table = predictions.table("validation", names, hashes, np.array([1, 1, 2]), probabilities, classes, ["1", "1", "2"])
    with mlflow.start_run() as run:
        mlflow.log_table(table, predictions.FILE)
    found = predictions.read(run.info.run_id)
    assert found is not None
    assert found.split == "validation"
    assert found.files == [r"roses/ä \xff.jpg", *names[1:]]
    assert found.digests == hashes
    assert found.labels.tolist() == ["2024-05-05", "2024-05-05", "ñ"]
    assert found.predicted.tolist() == ["1", "2024-05-05", "ñ"]
    assert found.probability_of_label.tolist() == [0.25, 0.75, 1]
    assert found.correct.tolist() == [False, True, True]
    assert found.correct.dtype == bool
    assert found.groups == ["1", "1", "2"]
    assert predictions.same_examples(found, found)


def test_a_run_without_such_a_table_has_none(folder: Path):
    import mlflow

    client = mlflow.MlflowClient()
    with mlflow.start_run() as run:
        pass
    assert predictions.read(run.info.run_id) is None
    for text in (
        '{"columns": ["text"], "data": [["hello"]]}',
        '{"columns": ["split"], "data": []}',
        "[1]",
        "{",
        "[" * 100_000,
    ):
        client.log_text(run.info.run_id, text, predictions.FILE)
        assert predictions.read(run.info.run_id) is None


def test_mcnemar_agrees_with_a_worked_example_and_with_the_definition():
    # Fagerland, Lydersen and Laake 2013 (BMC Medical Research Methodology 13:91), table 1: airways of 21 children
    # before and after a transplantation; the exact conditional p-value is 2 * (1 + 8) / 2**8.
    first = np.repeat([True, True, False, False], [1, 1, 7, 12])
    second = np.repeat([True, False, True, False], [1, 1, 7, 12])
    said = predictions.mcnemar(first, second)
    assert said[:3] == (21, 1, 7)
    assert said.p_value == pytest.approx(0.0703125)
    rng = np.random.default_rng(1)
    for _ in range(20):
        first, second = rng.random((2, 40)) < rng.random((2, 1))
        said = predictions.mcnemar(first, second)
        wins, losses = int(np.sum(first & ~second)), int(np.sum(~first & second))
        assert (said.only_first, said.only_second) == (wins, losses)
        below = 2 * stats.binom.cdf(min(wins, losses), wins + losses, 0.5) if wins + losses else 1
        assert said.p_value == pytest.approx(min(1, below))
        assert predictions.mcnemar(second, first).p_value == pytest.approx(said.p_value)


def test_mcnemar_of_equal_ones_is_one_and_shapes_are_checked():
    right = np.array([True, False, True])
    assert predictions.mcnemar(right, right)[:4] == (3, 0, 0, 1.0)
    with pytest.raises(ValueError, match=r"the shapes are \(3,\) and \(2,\)"):
        predictions.mcnemar(right, right[:2])


def test_groups_are_swapped_as_wholes():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 30)) < 0.6
    alone = predictions.mcnemar(first, second, np.arange(30))
    assert alone.p_value == pytest.approx(predictions.mcnemar(first, second).p_value)
    groups = np.sort(rng.integers(0, 8, 30))
    count = len(set(groups))
    found = predictions.mcnemar(first, second, groups)
    sums = np.array([np.sum((first.astype(int) - second)[groups == group]) for group in set(groups)])
    signs = np.array(list(itertools.product([-1, 1], repeat=count)))
    assert found.p_value == pytest.approx(np.mean(np.abs(signs @ sums) >= abs(sums.sum())))
    assert found.test == f"exact permutation test of {count} groups"


def test_equally_good_models_seldom_differ_by_groups():
    rng = np.random.default_rng(0)
    groups, p_values = np.repeat(np.arange(20), 10), []
    for _ in range(200):
        first, second = np.repeat(rng.random((2, 20)) < 0.7, 10, axis=1)  # right or wrong on whole groups
        p_values.append([predictions.mcnemar(first, second, each).p_value for each in (None, groups)])
    by_photos, by_groups = np.mean(np.array(p_values) < 0.05, axis=0)
    assert by_groups <= 0.08
    assert by_photos > 0.4


def test_groups_are_a_column_and_count_where_either_has_them():
    probabilities = np.eye(2)[[0, 0, 1, 1]]
    arguments = "test", list("abcd"), list("abcd"), np.array([0, 1, 0, 1]), probabilities, ["cat", "dog"]
    table = predictions.table(*arguments, ["x", "x", "y\n", "y\n"])
    assert table["group"] == ["x", "x", r"y\n", r"y\n"]
    assert list(table) == [*COLUMNS[:3], "group", *COLUMNS[3:]]
    first = made("abcd", "xyxy", "xyxy")
    second = made("dcba", "yxyx", "yxxy")._replace(groups=["2", "1", "1", "1"])  # wrong: a and b, of group 1
    assert predictions.paired(first, second) == (4, 2, 0, 1.0, 2)
    assert predictions.paired(second, first) == (4, 0, 2, 1.0, 2)
    assert predictions.paired(first, second._replace(groups=None)).p_value == 0.5


def test_pairs_are_joined_by_content_in_any_order():
    first = made("abcd", "xxyy", "xxyx")  # right: a, b, c
    second = made("dcba", "yyxx", "yyxy")  # right: d, c, b
    assert predictions.same_examples(first, second)
    assert predictions.paired(first, second) == (4, 1, 1, 1.0, None)


def test_copies_of_a_file_are_joined_by_their_labels_then_their_order():
    first, second = made("aaa", "xyx", "xxy"), made("aaa", "xxy", "xxx")
    assert predictions.same_examples(first, second)
    assert predictions.paired(first, second)[:3] == (3, 0, 1)  # of the two labeled x, one each; y is wrong in both


@pytest.mark.parametrize(
    "other",
    [
        made("abc", "xxy", "xxy"),
        made("abce", "xxyy", "xxyy"),
        made("abcd", "xxyx", "xxyx"),
        made("aabcd", "xxxyy", "xxxyy"),
        made("abcd", "xxyy", "xxyy", "validation"),
    ],
    ids=["fewer", "another file", "another label", "a copy more", "another split"],
)
def test_different_examples_are_not_paired(other: predictions.Predictions):
    first = made("abcd", "xxyy", "xxyy")
    assert not predictions.same_examples(first, other)
    with pytest.raises(InvalidInput, match=r"only predictions of the same examples can be compared in pairs"):
        predictions.paired(first, other)


def test_holm_agrees_with_a_worked_example():
    # Holm 1979 by hand: 4 · 0.005, 3 · 0.01, 2 · 0.03, then no less than that.
    assert predictions.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert predictions.holm([0.9, 0.8]) == [1.0, 1.0]
    assert predictions.holm([0.2]) == [0.2]
    assert predictions.holm([]) == []


@pytest.mark.parametrize(("right", "count"), [(900, 1000), (270, 300), (5000, 10000)])
def test_the_bootstrap_agrees_with_wilson(right: int, count: int):
    found = evaluation.bootstrap(np.repeat([True, False], [right, count - right]))
    assert found == pytest.approx(evaluation.wilson(right, count), abs=5 / count)


def test_the_bootstrap_of_real_numbers_agrees_with_the_normal_interval_and_covers():
    rng = np.random.default_rng(0)
    values = rng.normal(3, 2, 400)
    half = 1.96 * values.std() / 20
    assert evaluation.bootstrap(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    inside = 0
    for seed in range(200):
        low, high = evaluation.bootstrap(rng.random(200) < 0.8, seed=seed, resamples=500)
        inside += low <= 0.8 <= high
    assert 180 <= inside <= 198  # 95 % are 190


def test_the_bootstrap_is_of_its_seed_and_wants_values():
    values = np.arange(50.0)
    assert evaluation.bootstrap(values, 1, 500) == evaluation.bootstrap(values, 1, 500)
    assert evaluation.bootstrap(values, 1, 500) != evaluation.bootstrap(values, 2, 500)
    assert evaluation.bootstrap(np.ones(9, bool)) == (1, 1)
    with pytest.raises(ValueError, match="there are no values"):
        evaluation.bootstrap(np.array([]))
