"""Temperatures, thresholds, label sets and known photos: in models, in their files, and where these answer."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pytest
from PIL import Image
from scipy import optimize

from tlkit import backbones, cli, config, labels, serving
from tlkit.backbones import JoinedHead
from tlkit.errors import InvalidInput
from tlkit.evaluation import abstention, calibration, intervals, power, reliability
from tlkit.evaluation.abstention import Abstention
from tlkit.probes import novelty
from tlkit.recipes import feature_extraction, finetune, predict
from tlkit.serving.web import batching


def logits(seed: int = 0, examples: int = 400, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    right = rng.integers(0, classes, examples)
    return rng.normal(size=(examples, classes)) + 1.5 * np.eye(classes)[right], right


def softmax(scores: np.ndarray) -> np.ndarray:
    return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)


def test_a_temperature_is_that_of_another_optimizer():
    scores, right = logits()
    by_grid = optimize.brute(lambda t: calibration.log_losses(scores / t[0], right).mean(), [(0.1, 3)], Ns=600)
    assert calibration.temperature(scores, right) == pytest.approx(float(by_grid[0]), rel=1e-3)
    several = (np.random.default_rng(1).random(scores.shape) < 1 / (1 + np.exp(-3 * scores))).astype(int)
    assert calibration.temperature(scores, several, several=True) == pytest.approx(1 / 3, rel=0.1)


def test_what_is_calibrated_already_stays_as_it_is():
    scores, right = logits(examples=2000)
    shares = softmax(1.5 * scores)  # by Bayes' rule
    found = calibration.calibrate(shares, right)
    assert found.temperature == 1
    assert found.probabilities is shares
    assert 0.9 < found.fitted < 1.1


def test_each_example_is_scored_at_a_temperature_that_does_not_know_its_group():
    scores, right = logits(examples=60)
    groups = np.repeat(np.arange(20), 3)
    shares = softmax(0.3 * scores)
    found = calibration.calibrate(shares, right, groups=groups)
    assert found.temperature < 0.5
    temperatures = np.log(shares[:, 0] / shares[:, 1]) / np.log(found.probabilities[:, 0] / found.probabilities[:, 1])
    by_group = temperatures.reshape(20, 3)
    assert np.ptp(by_group, axis=1).max() < 1e-6 < np.ptp(temperatures)
    assert calibration.calibrate(shares[:19], right[:19]).temperature == 1  # too few


def test_where_nothing_is_wrong_nothing_is_made_more_certain():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        right = rng.integers(0, 10, 3000)
        scores = rng.normal(size=(3000, 10)) + 4.5 * np.eye(10)[right]
        shares = np.exp(4.5 * scores) / np.exp(4.5 * scores).sum(axis=1, keepdims=True)  # calibrated, 0.995 are right
        found = calibration.calibrate(shares[:270], right[:270])
        new = calibration.tempered(shares[270:], found.temperature)
        before = calibration.crossentropy(shares[270:], right[270:]).mean()
        assert calibration.crossentropy(new, right[270:]).mean() <= before + 0.001


@pytest.mark.thorough
@pytest.mark.parametrize("heads", [1, 2])
def test_a_temperature_is_in_the_weights_of_every_head(heads: int, tmp_path: Path):
    rng = np.random.default_rng(0)
    backbone = backbones.build("MobileNet", (32, 32, 3), "none", alpha=0.25)
    solved = [JoinedHead([backbone], rng.normal(size=(256, 3)) * 50, np.arange(3)) for _ in range(heads)]
    model, pixels = backbones.joined(solved), rng.uniform(0, 255, (4, 32, 32, 3))
    before = [keras.Model(model.input, model.get_layer(name).output).predict_on_batch(pixels)
              for name in (["probabilities"] if heads == 1 else ["probabilities_1", "probabilities_2"])]  # fmt: skip
    backbones.temper(model, 2.5)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").predict_on_batch(pixels)
    np.testing.assert_allclose(again, np.mean([calibration.tempered(p, 2.5) for p in before], axis=0), atol=1e-5)


def test_the_bins_of_a_reliability_diagram_have_intervals_of_shares():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 60)
    labels, groups = (rng.random(60) > confidence).astype(int), np.repeat(np.arange(20), 3)
    answers = np.stack([confidence, 1 - confidence], axis=1)
    alone, grouped = (reliability.reliability(answers, labels, each) for each in (None, groups))
    order = np.argsort(confidence)
    for place, part in enumerate(np.split(order, 3)):
        right = labels[part] == 0
        assert tuple(alone.bounds[:, place]) == intervals.wilson(int(right.sum()), 20)
        assert tuple(grouped.bounds[:, place]) == intervals.wilson_of_groups(right, groups[part])
    assert alone.bounds.min() >= 0
    assert alone.bounds.max() <= 1


def test_brier_score_is_scikit_learns():
    from sklearn import metrics

    scores, right = logits(classes=2)
    shares = softmax(scores)
    assert reliability.brier(shares, right).mean() / 2 == pytest.approx(metrics.brier_score_loss(right, shares[:, 1]))


def test_a_threshold_needs_enough_examples_and_stops_at_the_first_failure():
    assert abstention.threshold(np.full(58, 0.9), np.ones(58, bool), 0.95) is None
    chosen = abstention.threshold(np.full(59, 0.9), np.ones(59, bool), 0.95)
    assert chosen is not None
    assert chosen.coverage == 1
    confidence = np.linspace(1, 0.5, 600)
    right = np.ones(600, bool)
    right[200:230] = False  # a hole, behind which all is well again
    chosen = abstention.threshold(confidence, right, 0.95)
    assert chosen is not None
    assert chosen.threshold > confidence[215]


def photos(folder: Path, count: int = 12) -> None:
    rng = np.random.default_rng(0)
    for label, color in (("red", (200, 30, 30)), ("green", (30, 200, 30))):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            pixels = np.clip(np.array(color) + rng.integers(-30, 30, (24, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")


def model_of_colors() -> keras.Model:
    """Mean colors are the features of `head`; red and green are its classes."""
    pixels = keras.Input((8, 8, 3), name="pixels")
    features = keras.layers.GlobalAveragePooling2D(name="pool")(keras.layers.Rescaling(1 / 255)(pixels))
    output = keras.layers.Activation("softmax")(keras.layers.Dense(2, name="head")(features))
    model = keras.Model(pixels, output)
    model.get_layer("head").set_weights([np.array([[3.0, -3], [-3, 3], [0, 0]]), np.zeros(2)])
    return model


KNOWN = novelty.unit(np.array([[200.0, 30, 30], [30, 200, 30]])).astype(np.float16)


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    serving.save_model(
        "saved", model_of_colors(), ["red", "green"], kind="photos", requirements=["keras"],
        abstention=Abstention(threshold=0.9, target_accuracy=0.95, set_threshold=0.1, set_coverage=0.9),
        novelty=novelty.Novelty(KNOWN, 0.1),
    )  # fmt: skip
    for name, color in (("red", (200, 30, 30)), ("yellowish", (140, 100, 30)), ("blue", (20, 20, 220))):
        Image.fromarray(np.full((16, 16, 3), color, np.uint8)).save(f"{name}.png")
    return tmp_path / "saved" / "data" / "model.keras"


def test_predict_says_unsure_sets_and_none_of_the_classes(saved: Path, capsys: pytest.CaptureFixture):
    def call(*words: str) -> int:
        return cli.call(config.Predict, predict.run, [str(saved), *words], ("model", "photos"))

    assert call("red.png", "yellowish.png", "blue.png", "--output", "out.csv") == 0
    with open("out.csv", newline="", encoding="utf-8") as file:
        red, yellowish, blue = csv.DictReader(file)
    assert [row["label"] for row in (red, yellowish, blue)] == ["red", "unsure", "unsure"]
    assert [row["novel"] for row in (red, yellowish, blue)] == ["False", "True", "True"]
    assert (red["label_set"], yellowish["label_set"]) == ("red", "red|green")
    told = capsys.readouterr()
    assert "2 (66.7%) are like none of the classes" in told.out
    assert "below a probability of 0.9 the label is unsure, so that 95.0% of the others are right" in told.err
    assert call("blue.png", "--threshold", "0.1") == 0
    told = capsys.readouterr()
    assert told.out.rstrip().endswith("one of {red, green}  none of the classes?")
    assert "unsure" not in told.out + told.err


def test_serve_says_the_same(saved: Path):
    from tlkit.recipes import _models

    loaded = _models.load_classifier(str(saved), command="serve")
    served = batching.prepare(
        loaded.model, loaded.classes, loaded.reading, "m", "", loaded.abstention, loaded.references
    )
    pixels = np.stack([np.full((8, 8, 3), color, np.float32) for color in ((200, 30, 30), (20, 20, 220))])
    rows = np.concatenate(list(served.engine.run([pixels])))
    red, blue = (serving.answer(row, served.classes, served.several, served.abstention) for row in rows)
    assert (red.label, red.novel, red.label_set) == ("red", False, ["red"])
    assert (blue.label, blue.novel) == ("unsure", True)


def test_the_served_table_says_unsure(saved: Path):
    table = mlflow.pyfunc.load_model("saved").predict({"image": ["red.png", "blue.png"]})
    assert list(table["label"]) == ["red", "unsure"]
    assert set(table.columns) == {"label", "probability", "top"}


def test_keras_keeps_the_threshold_when_it_saves_the_model_again(saved: Path):
    keras.saving.load_model(saved).save("again.keras")
    assert Abstention.of(labels.read_abstention("again.keras")).threshold == 0.9
    assert novelty.read("again.keras") is None
    assert cli.call(config.Predict, predict.run, ["again.keras", "blue.png"], ("model", "photos")) == 0


def test_an_export_says_unsure_and_gives_sets():
    from tlkit.export import FORMATS, script

    rules = {"classes": ["red", "green"], "threshold": 0.9, "temperature": 1.0, "several_labels": False}
    rules |= {"set_threshold": 0.1, "kind": "arrays", "shape": [2]}
    names: dict[str, Any] = {"__name__": "predict"}
    exec(script.compose(FORMATS["onnx"].load, rules), names)  # noqa: S102  our own
    answer = names["answer"]
    assert answer(np.array([0.7, 0.3]), rules) == "unsure  red 0.7000  green 0.3000  one of {red, green}"
    assert answer(np.array([0.95, 0.05]), rules) == "red 0.9500  green 0.0500  one of {red}"


STRANGE = [{"threshold": 2}, {"threshold": "0.5"}, {"novelty": float("nan")}, {"x": 0.1}, ["x"], {"threshold": True}]


@pytest.mark.parametrize("changed", STRANGE)
def test_an_abstention_of_a_stranger_is_checked(changed: object):
    with pytest.raises(InvalidInput, match="the abstention"):
        Abstention.of(changed)


def test_references_of_a_stranger_are_checked(saved: Path):
    model_of_colors().save("bad.keras")
    novelty.write("bad.keras", novelty.Novelty(np.zeros((2, 3), np.float32), 0.5))
    with pytest.raises(ValueError, match="of 16 bits"):
        novelty.read("bad.keras")
    with pytest.raises(InvalidInput, match="its references are"):
        serving.with_novelty(model_of_colors(), np.zeros((4, 7), np.float16))


def test_a_model_with_references_predicts_in_full_precision_on_openvino_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")  # where Keras itself leaves it to the processor
    assert serving.with_novelty(model_of_colors(), KNOWN).predict_function is not None


def test_novelty_is_the_distance_of_scikit_learns_nearest_neighbour():
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(0)
    known, new = rng.normal(size=(300, 20)), rng.normal(size=(50, 20))
    found = novelty.fit(known, held_out=rng.normal(size=(200, 20)))
    assert found is not None
    theirs = NearestNeighbors(n_neighbors=1, metric="cosine").fit(known).kneighbors(new)[0][:, 0]
    np.testing.assert_allclose(found.distances(new), theirs, atol=1e-3)  # 16 bits
    assert novelty.fit(known, held_out=new[:39]) is None


def test_false_alarms_are_as_many_as_stated():
    """Known examples hold each other out, with their groups: twins do not make strangers of all others."""
    rng, shares = np.random.default_rng(0), []
    for _ in range(60):
        known = np.repeat(rng.normal(size=(150, 8)), 2, axis=0)
        found = novelty.fit(known, groups=np.repeat(np.arange(150), 2).tolist())
        assert found is not None
        shares.append(np.mean(found.distances(rng.normal(size=(500, 8))) > found.threshold))
    assert np.mean(shares) == pytest.approx(0.05, abs=0.015)


@pytest.mark.thorough
def test_a_run_records_what_its_probabilities_are_worth(folder: Path, capsys: pytest.CaptureFixture):
    """Label smoothing makes a network less sure than it may be: a temperature below 1 mends that."""
    settings = config.Finetune(
        config.Data("embedded"), backbone=config.Backbone("LetterNet"), head=config.Head(epochs=2, solved=False),
        full=config.Full(epochs=0), label_smoothing=0.5, target_accuracy=0.9, label_sets=0.9,
    )  # fmt: skip
    result = finetune.run(settings)
    metrics = mlflow.get_run(result.run_id).data.metrics
    assert metrics["temperature"] < 0.8
    assert metrics["test_loss"] < metrics["test_loss_uncalibrated"] - 0.05
    assert metrics["test_ece"] < metrics["test_ece_uncalibrated"]
    assert metrics["test_ece_low"] <= metrics["test_ece"] <= metrics["test_ece_high"]
    for name in ("loss", "balanced_accuracy", "auc"):  # as `evaluate` has them
        assert metrics[f"test_{name}_low"] < metrics[f"test_{name}"] < metrics[f"test_{name}_high"], name
    assert metrics["test_label_set_coverage"] > 0.85
    assert metrics["test_accuracy_answered"] >= 0.9
    told = capsys.readouterr().out
    for word in ("calibration", "coverage", "unsure", "sets", "novelty", "power"):
        assert f"\n  {word}  " in told
    client = mlflow.MlflowClient()
    assert "calibration.png" in {artifact.path for artifact in client.list_artifacts(result.run_id)}
    assert "- power: 279 photos" in mlflow.get_run(result.run_id).data.tags["mlflow.note.content"]
    file = next(folder.rglob("model.keras"))
    assert Abstention.of(labels.read_abstention(file)).target_accuracy == 0.9
    assert novelty.read(file) is not None


def test_a_solved_head_is_calibrated_out_of_fold(folder: Path):
    result = feature_extraction.run(
        config.FeatureExtraction(config.Data("embedded"), backbone=config.Backbone("LetterNet"), target_accuracy=0.99)
    )
    metrics = mlflow.get_run(result.run_id).data.metrics
    assert metrics["test_novel"] < 0.12
    assert metrics["test_coverage"] > 0.9
    assert "temperature" not in metrics  # it would make nothing better


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_accuracy": 0.999}, "target_accuracy is 0.999, which 2,995 photos that are not tested on"),
        ({"target_accuracy": 1.5}, "it must be from 0.5 to below 1"),
    ],
)
def test_what_cannot_be_promised_is_refused(folder: Path, settings: dict[str, float], message: str):
    with pytest.raises((InvalidInput, ValueError), match=message):
        feature_extraction.run(
            config.FeatureExtraction(config.Data("embedded"), backbone=config.Backbone("LetterNet"), **settings)
        )
    assert not list(folder.rglob("model.keras"))


def test_a_class_called_unsure_has_no_threshold(folder: Path, tmp_path: Path):
    photos(tmp_path / "photos")
    (tmp_path / "photos" / "red").rename(tmp_path / "photos" / "Unsure")
    data, network = config.Data("folder", str(tmp_path / "photos")), config.Backbone("LetterNet")
    with pytest.raises(InvalidInput, match=r"target_accuracy is 0\.9, which labels photos 'unsure', and so does"):
        finetune.run(config.Finetune(data, backbone=network, target_accuracy=0.9))


def test_power_says_how_many_more():
    assert power.more_needed(300, 14, 8) == power.examples_needed(0.02, 22 / 300) - 300
    assert power.more_needed(300, 40, 8) == 0
    assert power.sentence(0.5, 4) == "4 photos: too few to show that another model is better or worse"
    assert power.smallest_difference(100, 0.2) > power.smallest_difference(400, 0.2)
