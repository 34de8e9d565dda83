"""Runs begin with a network of one's own, or go on from a classifier: its head, classes and reading come along."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

from tlkit import backbones, cli, data, features, serving, training
from tlkit.config import Backbone, Data, Evaluate, FeatureExtraction, Features, Finetune, Full
from tlkit.errors import InvalidInput
from tlkit.recipes import _models, _parents, _sources, evaluate, feature_extraction, finetune
from tlkit.training import activations

pytestmark = [pytest.mark.usefixtures("folder", "undrawn", "uncompiled")]
TINTS = {"red": (60, 0, 0), "green": (0, 60, 0), "blue": (0, 0, 60)}


def write(root: Path, counts: dict[str, int], start: int = 0) -> Path:
    """Write small photos of noise on a color for each class; equal numbers give equal photos."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(start, start + count):
            noise = np.random.default_rng([number, len(name)]).integers(0, 180, (32, 32, 3))
            pixels = Image.fromarray((noise + TINTS[name]).astype(np.uint8))
            pixels.save(root / name / f"{number:03}.png")
    return root


def own_network(path: Path, size: int | None = 32) -> Path:
    """Save a network without top, of random weights, that scales pixels itself."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(n, 3, 2, "same", activation="relu", name=f"conv{n}") for n in (6, 8)]
    keras.Sequential([keras.Input((size, size, 3)), keras.layers.Rescaling(1 / 255), *layers]).save(path)
    return path


def extraction(path: Path, **backbone: object) -> FeatureExtraction:
    return FeatureExtraction(
        data=Data(path=str(path)), backbone=Backbone(**backbone), features=Features(engine="keras")
    )


def run_of(result) -> mlflow.entities.Run:
    return mlflow.get_run(result.run_id)


def manifest(result) -> list[dict[str, str]]:
    text = mlflow.artifacts.load_text(f"runs:/{result.run_id}/split_manifest.csv")
    return list(csv.DictReader(text.splitlines()))


def call(capsys, recipe, config_class, *argv: str) -> tuple[int, str, str]:
    status = cli.call(config_class, recipe.run, argv, positional=("models",) if recipe is evaluate else ())
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.fixture
def parent(folder: Path):
    """A classifier of red and green on a network of one's own, with its photos."""
    own_network(folder / "mine.keras")
    write(folder / "two", {"red": 30, "green": 30})
    return feature_extraction.run(extraction(folder / "two", name="mine.keras"))


def test_a_network_of_ones_own_is_used_and_found_again_by_the_runs_config(folder: Path, parent, capsys):
    decisions = json.loads(mlflow.artifacts.load_text(f"runs:/{parent.run_id}/decisions.json"))
    reasons = {row["setting"]: row["reason"] for row in decisions}
    assert reasons["backbone.cut"] == "its output (8 x 8 x 8)"
    assert reasons["backbone.pixels"] == "as the network scales them itself (Rescaling)"
    config = mlflow.artifacts.load_text(f"runs:/{parent.run_id}/config.yaml")
    assert all(part in config for part in (f"name: {folder}/mine.keras", "cut: conv8", "stage1: conv8", "weights: own"))
    (folder / "again.yaml").write_text(config, encoding="utf-8")
    status, out, _ = call(capsys, feature_extraction, FeatureExtraction, "--config", "again.yaml")
    assert status == 0
    assert "0 computed" in out
    model = _models.load(f"runs:/{parent.run_id}/model").model
    assert parent.scores.accuracy > 0.9
    assert model.count_params() == parent.model.count_params()
    keras.models.load_model(folder / "mine.keras")  # as it was


def test_other_weights_of_the_same_network_are_computed_anew(folder: Path, parent, capsys):
    model = keras.saving.load_model(folder / "mine.keras")
    model.layers[1].set_weights([1.5 * weight for weight in model.layers[1].get_weights()])
    model.save(folder / "mine.keras")
    feature_extraction.run(extraction(folder / "two", name="mine.keras"))
    said = capsys.readouterr().out
    assert "0 from the store, 60 computed" in said, [line for line in said.splitlines() if "features" in line]


def test_finetune_trains_the_stages_of_a_network_of_ones_own(folder: Path, capsys):
    own_network(folder / "mine.keras", None)
    write(folder / "two", {"red": 12, "green": 12})
    config = Finetune(
        data=Data(path=str(folder / "two"), image_size=24),
        backbone=Backbone("mine.keras"),
        full=Full(epochs=1, unfreeze_from="stage1", layer_decay=0.5, patience=3, stored=True),
        features=Features(engine="keras"),
    )
    result = finetune.run(config)
    assert "24 x 24 x 3" in capsys.readouterr().out
    network = result.model.get_layer("backbone")
    assert [network.get_layer(name).trainable for name in ("conv6", "conv8")] == [False, True]
    assert len(mlflow.MlflowClient().get_metric_history(result.run_id, "val_loss")) == 2  # the solved head, an epoch
    unknown = Full(epochs=1, unfreeze_from="stage9")
    with pytest.raises(InvalidInput, match=r"stage 'stage9' is unknown: .* has stem, stage1"):
        finetune.run(Finetune(data=config.data, backbone=config.backbone, full=unknown))


def test_a_class_more_keeps_the_order_the_store_and_the_link(folder: Path, parent, capsys):
    write(folder / "three", {"red": 40, "green": 40, "blue": 40})
    capsys.readouterr()
    result = feature_extraction.run(extraction(folder / "three", weights=f"runs:/{parent.run_id}"))
    said = capsys.readouterr().out
    assert result.classes == ["green", "red", "blue"]  # blue comes first in the folder
    assert "2 of its 2 classes stay; new: blue" in said
    assert "60 from the store, 60 computed" in said
    tags = run_of(result).data.tags
    assert tags["continued_run"] == parent.run_id
    assert tags["continued_model"] == f"runs:/{parent.run_id}"
    inputs = run_of(result).inputs.model_inputs
    assert [each.model_id for each in inputs] == [each.model_id for each in run_of(parent).outputs.model_outputs]
    assert result.scores.accuracy > 0.9


def test_photos_that_are_gone_are_learned_from_as_the_store_has_them(folder: Path, parent, capsys):
    write(folder / "new", {"red": 8, "green": 8, "blue": 30}, start=100)
    capsys.readouterr()
    result = feature_extraction.run(extraction(folder / "new", weights=f"runs:/{parent.run_id}"))
    learned = sum(row["split"] != "test" for row in manifest(parent))
    assert f"features of {learned} of {learned} other photos" in capsys.readouterr().out
    alone = feature_extraction.run(extraction(folder / "new", name="mine.keras"))
    old = data.load("folder", path=folder / "two", size=(32, 32), channels=3)
    examples, names = old.test, old.classes  # neither has seen these

    def recall(trained) -> float:
        said = np.array(trained.classes)[training.predict(trained.model, examples).argmax(axis=1)]
        return float((said == np.array(names)[examples.labels]).mean())

    assert recall(result) >= recall(alone)
    assert not np.allclose(
        result.model.get_layer("head").get_weights()[0], alone.model.get_layer("head").get_weights()[0]
    )


def test_phase_full_is_judged_by_the_shares_of_classes_among_all_photos():
    def photos(labels: list[int]) -> data.Photos:
        return data.Photos.of(np.zeros((len(labels), 8, 8, 3), np.uint8), np.array(labels))

    here = photos([0, 1, 1, 1])
    splits = data.Splits(["old", "new"], here, here, here, [], [])
    for known, shares in (([0, 1, 1, 1], None), ([0, 0, 0, 0, 0, 1, 1, 1], [0.625, 0.375])):
        pooled = activations.PooledFeatures(photos(known), here, None)
        assert finetune._plan(Finetune(), splits, pooled).full.class_shares == shares


def test_rows_of_classes_that_stay_begin_a_head_that_is_trained(folder: Path, parent):
    ancestor = _sources.resolve(Backbone(weights=f"runs:/{parent.run_id}")).parent
    model = backbones.classifier(
        _sources.resolve(Backbone(weights=f"runs:/{parent.run_id}")).build(32), 3, pooled_stages=2
    )
    _parents.start(model, ancestor, ["red", "blue", "green"])
    kernel, bias = model.get_layer("head").get_weights()
    theirs, biases = parent.model.get_layer("head").get_weights()  # green, red
    assert np.array_equal(kernel[:, [2, 0]], theirs)
    assert np.array_equal(bias[[2, 0]], biases)
    assert np.allclose(kernel[:, 1], theirs.mean(axis=1))


def test_a_solved_head_gives_way_to_one_that_is_clearly_better(capsys):
    splits = data.load("embedded", size=(32, 32), channels=1)
    model = backbones.classifier(backbones.build("LetterNet"), 10)
    parts = [splits.train.select(range(300)), splits.val.select(range(150))]
    train, val = features.Extractor(features.pooled(model), None, "keras").extract(*parts)
    training.solve_head(model, train, val)
    kernel, bias = model.get_layer("head").get_weights()
    for good in (True, False):
        known = training.Head(kernel if good else kernel[:, ::-1], bias, "the parent")
        training.solve_head(model, train.select(range(20)), val, before=known)
        assert np.array_equal(model.get_layer("head").get_weights()[0], known.kernel) is good
        assert ("that of the parent, clearly better" in capsys.readouterr().out) is good


def test_test_photos_that_the_parent_has_seen_are_taken_out(folder: Path, parent, capsys):
    ancestor = _sources.resolve(Backbone(weights=f"runs:/{parent.run_id}")).parent
    splits, moved = (
        data.load("folder", path=folder / "two", size=(32, 32), channels=3, test_fraction=share)
        for share in (0.15, 0.4)
    )
    assert _parents.without_seen(splits, ancestor) is splits
    rest = _parents.without_seen(moved, ancestor).test
    tested = {row["hash"] for row in manifest(parent) if row["split"] == "test"}
    assert set(rest.hashes) == tested & set(moved.test.hashes)
    assert 0 < len(rest) < len(moved.test)
    assert f"test: {len(moved.test) - len(rest)} photos that" in capsys.readouterr().out
    seen = dataclasses.replace(moved, test=moved.train)
    with pytest.raises(InvalidInput, match=r"has seen all .* test photos in training"):
        _parents.without_seen(seen, ancestor)


def test_evaluate_says_what_the_old_classes_lost(folder: Path, parent, capsys):
    write(folder / "three", {"red": 40, "green": 40, "blue": 40})
    result = feature_extraction.run(extraction(folder / "three", weights=f"runs:/{parent.run_id}"))
    write(folder / "fresh", {"red": 15, "green": 15, "blue": 15}, start=500)
    for name in ("red", "green"):  # for the new class, whatever they were for the old model
        for number in range(5):
            path = folder / "fresh" / name / f"{500 + number}.png"
            pixels = np.random.default_rng([number, len(name), 1]).integers(0, 180, (32, 32, 3))
            Image.fromarray((pixels + TINTS["blue"]).astype(np.uint8)).save(path)
    capsys.readouterr()
    status, out, err = call(capsys, evaluate, Evaluate, f"runs:/{result.run_id}", "--data.path", "fresh")
    assert status == 0, err
    assert "old classes, before" in out
    assert "on 30 photos that neither has seen" in out
    (run,) = mlflow.search_runs(
        search_all_experiments=True, filter_string="tags.recipe = 'evaluate'", output_format="list"
    )
    table = json.loads(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/before_after.json"))
    rows = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["data"]}
    assert set(rows) == {"red", "green"}
    photos = data.load_source("folder", path=folder / "fresh")
    part, _ = data.whole(photos, size=(32, 32), channels=3, resize="center")
    truth = np.array(photos.classes)[part.labels]
    for trained, column in ((parent, "recall_before"), (result, "recall_after")):
        said = np.array(trained.classes)[training.predict(trained.model, part).argmax(axis=1)]
        for name in rows:
            expected = metrics.recall_score(truth, said, labels=[name], average=None)[0]
            assert rows[name][column] == pytest.approx(expected)
    assert sum(row["recall_after"] for row in rows.values()) < sum(row["recall_before"] for row in rows.values())
    assert sum(row["taken_for_new_classes"] for row in rows.values()) > 0


def other(folder: Path, name: str, count: int = 2) -> str:
    network = keras.Sequential(
        [keras.Input((32, 32, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(count)]
    )
    serving.save_model(folder / name, network, ["red", "green"], kind="photos", requirements=["keras"])
    return str(folder / name / "data" / "model.keras")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "saved"}, "saved is a SavedModel, a graph that can be run but neither cut"),
        ({"name": "subclassed.keras"}, "is a Custom, a subclassed model"),
        ({"name": "mine.keras", "weights": "none"}, "comes with its weights: leave it out"),
        ({"name": "mine.keras", "alpha": 0.5}, "the network is built already"),
        ({"name": "gone.keras"}, "there is no model"),
        ({"name": "MobileNet", "cut": "a"}, "which is for a network of your own, and MobileNet is known"),
        ({"weights": "mine.keras"}, "is no classifier of one network and its head"),
        ({"weights": "plain"}, "is no classifier of one network and its head"),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_photo_is_opened(folder: Path, settings, message, capsys):
    own_network(folder / "mine.keras")
    (folder / "saved").mkdir()
    (folder / "saved" / "saved_model.pb").touch()
    if settings.get("name") == "subclassed.keras":
        Custom().save(folder / "subclassed.keras")
    if settings.get("weights") == "plain":
        settings = {"weights": other(folder, "plain")}
    write(folder / "two", {"red": 1, "green": 1})
    flags = [word for name, value in settings.items() for word in (f"--backbone.{name}", str(value))]
    status, out, err = call(capsys, feature_extraction, FeatureExtraction, "--data.path", "two", *flags)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err
    assert "photos:" not in out


def test_another_network_than_the_parents_is_refused(folder: Path, parent):
    with pytest.raises(InvalidInput, match=r"the network of runs:/.* is .*mine.keras: leave --backbone.name out"):
        _sources.resolve(Backbone("VGG16", weights=f"runs:/{parent.run_id}"))


@keras.saving.register_keras_serializable()
class Custom(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.build((None, 4))

    def call(self, x):
        return x
