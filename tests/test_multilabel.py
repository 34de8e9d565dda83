"""Several labels an example, or none: from the files to the scores, the served model and the run in MLflow."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats
from sklearn import metrics

from tlkit import backbones, builders, cli, config, data, evaluation, labels, plots, serving
from tlkit.data import Photos, sources, split
from tlkit.errors import InvalidInput
from tlkit.evaluation import predictions

SHAPES = ("cross", "disc", "square")


def write_rows(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def write_shapes(folder: Path, count: int) -> Path:
    """Photos of none to three shapes at random places, and a CSV file that lists their labels with a semicolon."""
    folder.mkdir()
    rng, rows = np.random.default_rng(0), [("path", "labels")]
    y, x = np.mgrid[:13, :13] - 6
    drawn = [(abs(x) < 2) | (abs(y) < 2), x * x + y * y < 36, np.maximum(abs(x), abs(y)) > 4]
    for number in range(count):
        pixels = rng.normal(40, 15, (32, 32))
        there = np.flatnonzero(rng.random(3) < 0.5)
        for shape, place in zip(there, rng.permutation(4), strict=False):
            top, left = 1 + 16 * (place // 2) + rng.integers(3), 1 + 16 * (place % 2) + rng.integers(3)
            pixels[top : top + 13, left : left + 13][drawn[shape]] = 220
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{number:03}.png")
        rows.append((f"{number:03}.png", "; ".join(SHAPES[shape] for shape in there)))
    return write_rows(folder / "shapes.csv", rows)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A folder with ten photos, all different, to be listed."""
    for number in range(10):
        Image.fromarray(np.full((8, 8), 20 * number, np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


def random_scores(count: int = 200, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with ties, and labels that they have to do with."""
    rng = np.random.default_rng(seed)
    there = (rng.random((count, classes)) < 0.3).astype(np.float32)
    return np.round(0.6 * rng.random((count, classes)) + 0.35 * there, 2).astype(np.float32), there


def test_a_csv_file_lists_several_labels_or_none(listed: Path):
    rows = [("path", "labels"), ("0.png", "dog| cat |dog"), ("1.png", ""), ("2.png", " | "), ("3.png", "sofa|")]
    examples = sources.csv_file(write_rows(listed / "a.csv", rows), "|")
    assert (examples.classes, examples.multi_label) == (["cat", "dog", "sofa"], True)
    assert examples.labels.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert examples.notes == []
    one_each = [("path", "label"), ("0.png", "a b"), ("1.png", "c")]
    examples = sources.csv_file(write_rows(listed / "b.csv", one_each), ";")
    assert examples.classes == ["a b", "c"]
    assert "every example has exactly one label" in examples.notes[0]


def test_labels_with_a_bar_are_one_label_without_a_separator_and_that_is_said(listed: Path):
    path = write_rows(listed / "a.csv", [("path", "label"), ("0.png", "cat|dog"), ("1.png", "cat")])
    examples = sources.csv_file(path)
    assert (examples.classes, examples.labels, examples.multi_label) == (["cat", "cat|dog"], [1, 0], False)
    assert "give data.separator '|'" in examples.notes[0]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([("path", "labels"), ("0.png", "")], "no photo has a label"),
        ([("path", "labels"), ("0.png", "a|a")], "a single class, 'a'"),
        ([("path", "tags"), ("0.png", "a|b")], "no column 'label'"),
        ([("path", "labels", "labels"), ("0.png", "a", "b")], "2 columns 'labels': keep one"),
    ],
)
def test_a_csv_file_without_labels_to_learn_is_refused(listed: Path, rows: list, problem: str):
    with pytest.raises(InvalidInput, match=problem):
        sources.csv_file(write_rows(listed / "a.csv", rows), "|")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool, np.float32])
def test_an_npz_file_has_a_column_of_zeros_and_ones_for_each_class(tmp_path: Path, dtype: type):
    given = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 1], [1, 1, 0]] * 2)
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "a.npz", train_images=images[:4], train_labels=given[:4].astype(dtype),
             val_images=images[4:], val_labels=given[4:].astype(dtype))  # fmt: skip
    examples = sources.npz(tmp_path / "a.npz")
    assert (examples.classes, examples.multi_label, examples.notes) == (["0", "1", "2"], True, [])
    np.testing.assert_array_equal(examples.labels, given)
    splits = data.load(examples)
    assert splits.multi_label
    assert (splits.train.labels.dtype, splits.train.labels.shape) == (np.float32, (4, 3))
    np.testing.assert_array_equal(splits.val.labels, given[4:])
    assert [row.label for row in splits.manifest() if row.path == "train/000000"] == ["0|2"]


IMAGES = {"train_images": np.zeros((4, 8, 8), np.uint8)}


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"train_labels": np.array([[0, 2]] * 4)}, r"int64 \(4, 2\) and holds 2: .* zeros and ones, \(n, classes\)"),
        ({"train_labels": np.full((4, 2), np.nan)}, "holds nan"),
        ({"train_labels": np.zeros((4, 2), int)}, "zeros and ones, .* not zeros alone"),
        ({"train_labels": np.ones((3, 2), int)}, "has 3 labels for 4 images"),
        (
            {"train_labels": np.eye(4), "val_images": np.ones((2, 8, 8), np.uint8), "val_labels": np.ones((2, 3), int)},
            r"train_labels \(4, 4\), val_labels \(2, 3\): give the same columns",
        ),
        (
            {"train_labels": np.eye(4), "val_images": np.ones((2, 8, 8), np.uint8), "val_labels": np.array([0, 1])},
            "give the same columns in every split",
        ),
    ],
)
def test_other_columns_in_an_npz_file_are_refused(tmp_path: Path, arrays: dict, problem: str):
    np.savez(tmp_path / "a.npz", **IMAGES, **arrays)
    with pytest.raises(InvalidInput, match=problem):
        sources.npz(tmp_path / "a.npz")


def test_one_hot_labels_are_taken_as_they_are_and_that_is_said(tmp_path: Path):
    np.savez(tmp_path / "a.npz", **IMAGES, train_labels=np.eye(4))
    assert "every example has exactly one label: if no example can have two, give integers" in sources.npz(
        tmp_path / "a.npz"
    ).notes[0]  # fmt: skip


def test_a_manifest_is_read_back_to_the_same_splits(listed: Path):
    rows = [(f"{number}.png", ["a;b", "b", "", "a"][number % 4]) for number in range(10)]
    path = write_rows(listed / "a.csv", [("path", "labels"), *rows])
    found = data.load("csv", path=path, separator=";", size=(8, 8), val_fraction=0.3, test_fraction=0.3)
    found.write_manifest(listed / "manifest.csv")
    again = data.load("csv", path=listed / "manifest.csv", separator=";", size=(8, 8))
    assert again.digest == found.digest
    assert {row.label for row in found.manifest()} == {"a;b", "b", "", "a"}
    for name in ("train", "val", "test"):
        here, there = getattr(found, name), getattr(again, name)
        assert dict(zip(here.names, here.labels.tolist(), strict=True)) == dict(
            zip(there.names, there.labels.tolist(), strict=True)
        )


def test_photos_stay_where_their_content_puts_them_whatever_their_labels():
    hashes = [split.content_hash(str(number).encode()) for number in range(200)]
    names = [str(number) for number in range(200)]
    one = split.divide(hashes, [number % 2 for number in range(200)], names, [None] * 200, ["a", "b"])
    several = (np.random.default_rng(0).random((200, 2)) < 0.5).astype(np.float32)
    assert split.divide(hashes, several, names, [None] * 200, ["a", "b"]).splits == one.splits


def test_labels_that_a_split_lacks_and_copies_with_other_labels_are_named():
    there = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 1, 1], [0, 1, 0]])
    given = ["train", "train", "val", "test", "train"]
    warnings = split.divide(["p", "p", "q", "r", "s"], there, list("01234"), given, ["a", "b", "c"]).warnings
    assert warnings == [
        "photos whose copies have other labels (1): 0 (a|b) = 1 (a)",
        "train has no photo of c: they cannot be learned",
        "val has no photo of b: its score says nothing about them",
        "test has no photo of a: its score says nothing about them",
        "exact copies of photos within one split (each copy counts): 1",
    ]
    for name in ("train", "val", "test"):
        none = there * (np.array(given) != name)[:, None]
        with pytest.raises(InvalidInput, match=f"no photo of {name} has a label"):
            split.divide(list("pqrst"), none, list("01234"), given, ["a", "b", "c"])
    with pytest.raises(InvalidInput, match="no photo falls into val"):
        split.divide(["ff" * 32], there[:1], ["0"], [None], ["a", "b", "c"])


def test_photos_of_pixels_take_several_labels():
    pixels = np.zeros((2, 8, 8, 1), np.uint8)
    assert Photos.of(pixels, [[0, 1, 1], [0, 0, 0]]).labels.dtype == np.float32
    assert Photos.of(pixels, [0, 1]).labels.dtype == np.int32


def test_scores_equal_scikit_learns_and_keras():
    probabilities, there = random_scores()
    scores = evaluation.score("test", probabilities, there)
    said = probabilities > 0.5
    found = scores.metrics()
    wanted = {
        "test_accuracy": 1 - metrics.hamming_loss(there, said),
        "test_exact_match": metrics.accuracy_score(there, said),
        "test_f1": metrics.f1_score(there, said, average="macro"),
        "test_f1_micro": metrics.f1_score(there, said, average="micro"),
        "test_map": metrics.average_precision_score(there, probabilities, average="macro"),
        "test_auc": metrics.roc_auc_score(there, probabilities, average="macro"),
        "test_loss": float(keras.losses.BinaryCrossentropy()(there, probabilities)),
    }
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-5)
    assert set(found) - set(wanted) == {f"test_{name}_{end}" for name in ("accuracy", "map") for end in ("low", "high")}
    metric = keras.metrics.BinaryAccuracy(threshold=0.5)
    metric.update_state(there, probabilities)
    assert scores.accuracy == pytest.approx(float(metric.result()))
    np.testing.assert_array_equal(scores.confusion, metrics.multilabel_confusion_matrix(there, said))
    assert scores.headline == ("mAP", found["test_map"], scores.map_interval)
    assert found["test_map_low"] < found["test_map"] < found["test_map_high"]
    assert found["test_accuracy_low"] < found["test_accuracy"] < found["test_accuracy_high"]


def test_a_probability_of_a_half_is_no_label():
    scores = evaluation.score("test", np.array([[0.5, 0.51]]), np.array([[0.0, 1.0]]))
    assert (scores.exact_match, scores.accuracy) == (1, 1)


def test_classes_that_no_example_has_do_not_count():
    probabilities, there = random_scores()
    there[:, 2], there[:, 3] = 0, 1
    scores, present = evaluation.score("test", probabilities, there), [0, 1, 3]
    found = scores.metrics()
    said = probabilities[:, present] > 0.5
    assert np.isnan(scores.average_precision).tolist() == [False, False, True, False]
    assert found["test_map"] == pytest.approx(
        metrics.average_precision_score(there[:, present], probabilities[:, present])
    )
    assert scores.f1 == pytest.approx(metrics.f1_score(there[:, present], said, average="macro"))
    assert scores.auc == pytest.approx(metrics.roc_auc_score(there[:, :2], probabilities[:, :2]))  # 3: all are
    with pytest.raises(ValueError, match="no photo of test has a label"):
        evaluation.score("test", probabilities, 0 * there)


def test_the_interval_of_the_map_is_the_bootstraps():
    probabilities, there = random_scores(60, 3)
    there[:, 2] = 0
    there[7, 2] = 1  # a third of the draws have no example of it
    times = np.random.default_rng(5).multinomial(60, np.full(60, 1 / 60), size=100)
    drawn = []
    for weights in times:
        kept = there[weights > 0].any(axis=0)
        areas = [
            metrics.average_precision_score(there[:, label], probabilities[:, label], sample_weight=weights)
            for label in np.flatnonzero(kept)
        ]
        drawn.append(np.mean(areas))
    assert evaluation.map_interval(probabilities, there, 5, 100) == pytest.approx(
        tuple(np.quantile(drawn, [0.025, 0.975]))
    )
    assert evaluation.map_interval(probabilities, there, 6, 300) != evaluation.map_interval(
        probabilities, there, 5, 300
    )
    assert evaluation.map_interval(there, there) == (1, 1)


def test_the_interval_of_the_map_draws_whole_groups():
    probabilities, there = random_scores(60, 3)
    groups = np.repeat(list("abcdefghijkl"), 5)
    drawn = []
    for times in np.random.default_rng(5).multinomial(12, np.full(12, 1 / 12), size=100):
        weights = np.repeat(times, 5)
        kept = there[weights > 0].any(axis=0)
        areas = [
            metrics.average_precision_score(there[:, label], probabilities[:, label], sample_weight=weights)
            for label in np.flatnonzero(kept)
        ]
        drawn.append(np.mean(areas))
    tail = stats.norm.cdf(-np.sqrt(12 / 11) * stats.t.ppf(0.975, 11))  # Hesterberg 2015
    expected = np.quantile(drawn, [tail, 1 - tail])
    assert evaluation.map_interval(probabilities, there, 5, 100, groups) == pytest.approx(tuple(expected))
    assert evaluation.map_interval(probabilities, there, groups=["a"] * 60) == (0, 1)
    scores = evaluation.score("test", probabilities, there, groups=groups)
    assert scores.map_interval == evaluation.map_interval(probabilities, there, groups=groups)
    assert scores.interval == evaluation.wilson_of_groups((probabilities > 0.5) == (there > 0), groups)


def test_two_classes_have_the_scores_of_the_second():
    rng = np.random.default_rng(0)
    known = rng.integers(0, 2, 100)
    positive = np.clip(0.4 * known + 0.6 * rng.random(100), 0, 1)
    found = evaluation.score("test", np.stack([1 - positive, positive], 1), known).metrics()
    assert found["test_precision"] == pytest.approx(metrics.precision_score(known, positive > 0.5))
    assert found["test_recall"] == pytest.approx(metrics.recall_score(known, positive > 0.5))
    assert found["test_average_precision"] == pytest.approx(metrics.average_precision_score(known, positive))
    more = evaluation.score("test", np.eye(3)[known], known).metrics()
    assert not {"test_precision", "test_recall", "test_average_precision", "test_map"} & set(more)


def test_predictions_name_all_labels_and_are_right_where_all_are():
    probabilities = np.array([[0.9, 0.8, 0.3], [0.4, 0.2, 0.1], [0.1, 0.6, 0.7]], np.float32)
    there = np.array([[1, 1, 0], [0, 0, 1], [0, 1, 1]], np.float32)
    table = predictions.table("test", ["x", "y", "z"], ["0", "1", "2"], there, probabilities, ["a", "b", "c"])
    assert table["label"] == ["a|b", "c", "b|c"]
    assert table["predicted"] == ["a|b", "", "b|c"]
    assert table["correct"] == [True, False, True]
    assert table["probability"] == pytest.approx([0.9 * 0.8 * 0.7, 0.6 * 0.8 * 0.9, 0.9 * 0.6 * 0.7])
    assert table["probability_of_label"] == pytest.approx([0.9 * 0.8 * 0.7, 0.6 * 0.8 * 0.1, 0.9 * 0.6 * 0.7])
    np.testing.assert_allclose(  # what the loss is made of
        -np.log(table["probability_of_label"]) / 3, evaluation.binary_crossentropy(probabilities, there), rtol=1e-6
    )
    json.dumps(table)


@pytest.mark.parametrize(("classes", "several"), [(3, True), (3, False), (2, True), (1, False)])
def test_a_model_says_itself_whether_it_is_of_several_labels(classes: int, several: bool, tmp_path: Path):
    backbone = builders.build("lenet5", (32, 32, 1), include_top=False)
    model = backbones.classifier(backbone, classes, multi_label=several)
    assert serving.multi_label(model) == several
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert serving.multi_label(loaded) == several
    assert serving.multi_label(keras.Sequential([keras.Input((32, 32, 1)), loaded])) == several
    logits = keras.Model(loaded.input, loaded.get_layer("head").output)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1)).astype("float32")
    wanted = (keras.ops.sigmoid if several or classes == 1 else keras.ops.softmax)(logits(pixels))
    np.testing.assert_allclose(loaded.predict(pixels, verbose=0), keras.ops.convert_to_numpy(wanted), rtol=1e-5)


def test_several_labels_take_two_classes_or_more():
    backbone = builders.build("lenet5", (32, 32, 1), include_top=False)
    with pytest.raises(InvalidInput, match="classes is 1 with multi_label"):
        backbones.classifier(backbone, 1, multi_label=True)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A served model that gives each of seven channels' own share as the probability of its label."""
    model = keras.Sequential(
        [
            keras.Input((7,)),
            keras.layers.Dense(7, activation="sigmoid", kernel_initializer="identity", use_bias=False),
        ]
    )
    path = tmp_path_factory.mktemp("served") / "model"
    serving.save_model(path, model, list("abcdefg"), kind="arrays", requirements=["keras"])
    return path


def test_a_served_model_gives_all_labels_above_a_half_and_every_probability(served: Path):
    import mlflow.pyfunc

    shares = np.array([[0.9, 0.1, 0.8, 0.3, 0.2, 0.4, 0.45], [0.1] * 7])
    values = np.log(shares / (1 - shares))
    answer = mlflow.pyfunc.load_model(str(served)).predict(pd.DataFrame({"array": list(values)}))
    assert answer["label"].tolist() == ["a|c", ""]
    assert answer["probability"][0] == pytest.approx(0.9 * 0.9 * 0.8 * 0.7 * 0.8 * 0.6 * 0.55, rel=1e-5)
    assert answer["probability"][1] == pytest.approx(0.9**7, rel=1e-5)
    assert [entry["label"] for entry in answer["top"][0]] == list("acgfdeb")
    np.testing.assert_allclose([entry["probability"] for entry in answer["top"][0]], sorted(shares[0])[::-1], rtol=1e-5)


def test_predict_prints_all_labels_above_a_half_and_marks_them(tmp_path: Path, capsys: pytest.CaptureFixture):
    from tlkit.recipes import predict

    shares = np.array([0.1, 0.9, 0.8, 0.3])
    head = keras.layers.Dense(4, activation="sigmoid", kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), head])
    head.bias.assign(np.log(shares / (1 - shares)))
    model.save(tmp_path / "model.keras")
    labels.write(tmp_path / "model.keras", list("abcd"))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(photo := tmp_path / "0.png")
    for top, wanted in ((1, "b* 0.9000  c* 0.8000"), (3, "b* 0.9000  c* 0.8000  d 0.3000")):
        answers = predict.run(config.Predict(str(tmp_path / "model.keras"), [str(photo)], top)).rankings
        assert [name for name, _ in answers[0]] == list("bcd")[: max(top, 2)]
        assert capsys.readouterr().out == f"{photo}  {wanted}\n"


def test_the_pictures_are_of_each_label(tmp_path: Path):
    probabilities, there = random_scores(60, 3)
    scores = evaluation.score("test", probabilities, there)
    figure = plots.confusion_matrix(scores.confusion, SHAPES, "title")
    texts = [text.get_text() for text in figure.axes[0].texts]
    (not_there, wrongly), (missed, found) = scores.confusion[0].tolist()
    assert texts[:4] == [str(number) for number in (found, missed, wrongly, not_there)]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(SHAPES)
    figure.savefig(tmp_path / "confusion.png")
    recalls = evaluation.recalls(scores.confusion)
    assert recalls[0] == evaluation.wilson(found, found + missed)
    table = evaluation.by_class(scores.confusion, SHAPES, scores.average_precision)
    assert (table["recall_low"][0], table["recall_high"][0]) == recalls[0]
    figure = plots.class_scores(table, "title")
    worst = int(np.argmin(metrics.f1_score(there, probabilities > 0.5, average=None)))
    arguments = there[:, worst], probabilities[:, worst] > 0.5
    recall, precision, f1, area = (
        line.get_xdata()[0] for line in [figure.axes[0].lines[0], *figure.axes[0].lines[-3:]]
    )
    assert (recall, precision, f1, area) == pytest.approx(
        (
            metrics.recall_score(*arguments),
            metrics.precision_score(*arguments),
            metrics.f1_score(*arguments),
            metrics.average_precision_score(there[:, worst], probabilities[:, worst]),
        ),
        rel=1e-6,
    )
    figure.savefig(tmp_path / "scores.png")


def test_the_worst_mistakes_are_those_of_the_highest_loss():
    asked: list[int] = []

    def read(places: Any) -> np.ndarray:
        asked.extend(places)
        return np.zeros((len(places), 4, 4, 3))

    figure = plots.mistakes(read, ["a", "a|b", "", "b"], ["a", "a", "b", ""], [0.9] * 4, losses=[9.0, 0.5, 0.9, 0.7])
    assert asked == [2, 3, 1]  # the first is right, however high its loss
    said = [text.get_text() for text in figure.axes[0].texts]  # in pairs
    assert said == ["(no label)", "b (0.90)", "b", "(no label) (0.70)", "a|b", "a (0.50)"]
    assert "with its loss" in figure._suptitle.get_text()


@pytest.mark.slow
def test_finetune_learns_several_labels_and_all_that_follows_knows_it(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    import mlflow

    from tlkit.recipes import compare, finetune, predict

    path = write_shapes(folder / "shapes", 300)
    argv = ["--data.path", str(path), "--data.separator", ";", "--backbone.name", "LetterNet", "--batch_size", "16"]
    argv += ["--features.engine", "keras", "--head.epochs", "2", "--full.epochs", "2", "--register", "shapes"]
    assert cli.call(config.Finetune, finetune.run, argv) == 0
    printed = capsys.readouterr().out
    assert "test mAP" in printed
    assert "95 % bootstrap interval" in printed
    run = mlflow.search_runs(search_all_experiments=True, output_format="list")[0]
    found = run.data.metrics
    assert f"(of labels; always what most examples have: {found['test_majority_accuracy']:.4f}; all labels" in printed
    assert found["test_auc"] > 0.75  # chance is 0.5, with a standard error of about 0.06
    assert found["test_map_low"] < found["test_map"] < found["test_map_high"]
    assert "**Test mAP" in run.data.tags["mlflow.note.content"]
    client = mlflow.MlflowClient()
    assert {"class_scores.png", "confusion_matrix.png", "worst_mistakes.png"} <= {
        entry.path for entry in client.list_artifacts(run.info.run_id)
    }
    mlflow.set_experiment("tlkit")
    table = mlflow.load_table("class_scores.json", run_ids=[run.info.run_id])
    assert list(table["class"]) == list(SHAPES)
    assert table["average_precision"].mean() == pytest.approx(found["test_map"])
    assert table["f1"].mean() == pytest.approx(found["test_f1"])
    said = predictions.read(run.info.run_id)
    assert said is not None
    assert set(said.labels) <= {"|".join(name for name, on in zip(SHAPES, bits, strict=True) if on == "1")
                                for bits in (f"{number:03b}" for number in range(8))}  # fmt: skip
    assert found["test_exact_match"] == pytest.approx(said.correct.mean())
    assert "test mAP" in (client.get_model_version("shapes", "1").description or "")

    photo = str(folder / "shapes" / "000.png")
    uri = f"runs:/{run.info.run_id}/model"
    assert cli.call(config.Predict, predict.run, [uri, photo], positional=("model", "photos")) == 0
    line = capsys.readouterr().out.strip().splitlines()[-1]
    answer = mlflow.pyfunc.load_model(uri).predict(pd.DataFrame({"image": [photo]}))
    top = answer["top"][0]
    assert line == f"{photo}  " + "  ".join(
        f"{entry['label']}{'*' if entry['probability'] > 0.5 else ''} {entry['probability']:.4f}" for entry in top
    )
    marked = [entry["label"] for entry in top if entry["probability"] > 0.5]
    assert answer["label"][0] == "|".join(sorted(marked))

    assert cli.call(config.Finetune, finetune.run, [*argv, "--seed", "1"]) == 0
    rows, pairs = compare.run(config.Compare())
    assert "exact match (95 %)" in capsys.readouterr().out
    assert all(0 < row["map"] < 1 for row in rows)
    assert pairs[0]["examples"] == len(said.correct)
    assert client.get_model_version("shapes", "2").tags["compared_with"] == "1"


@pytest.mark.slow
def test_train_ends_in_a_unit_for_each_label(folder: Path):
    import mlflow

    from tlkit.recipes import train

    rng, arrays = np.random.default_rng(0), {}
    for name, count in (("train", 96), ("val", 32), ("test", 40)):
        there = (rng.random((count, 2)) < 0.5).astype(np.uint8)
        images = rng.integers(0, 100, (count, 12, 12, 1))
        images[:, :6] += 120 * there[:, :1, None, None]
        images[:, 6:] += 120 * there[:, 1:, None, None]
        arrays |= {f"{name}_images": images.astype(np.uint8), f"{name}_labels": there}
    np.savez(folder / "halves.npz", **arrays)
    argv = ["--data.path", "halves.npz", "--builder.norm", "false", "--full.epochs", "8"]
    argv += ["--full.learning_rate", "0.01", "--augment.flip", "false"]
    assert cli.call(config.Train, train.run, argv) == 0
    run = mlflow.search_runs(search_all_experiments=True, output_format="list")[0]
    assert run.data.metrics["test_map"] > 0.8
    model = mlflow.keras.load_model(f"runs:/{run.info.run_id}/model")
    assert serving.multi_label(model)
    file = Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/model")) / "data" / "model.keras"
    assert labels.read(file) == ["0", "1"]
