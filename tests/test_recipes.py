"""The recipes from the command line to the run in MLflow, on small data, and their errors."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import keras
import mlflow
import numpy as np
import pytest
import yaml
from conftest import write_photos
from PIL import Image

from tlkit import cli, config, data, errors, evaluation, features, labels, probes
from tlkit.evaluation import calibration
from tlkit.recipes import _decisions, _inputs, _jobs, _results, _summary, feature_extraction, finetune, predict, train
from tlkit.recipes import tune as tune_recipe
from tlkit.training import finetuning

QUICK = ["--backbone.name", "LetterNet", "--backbone.weights", "none", "--head.epochs", "1"]


def tune(*argv: str) -> int:
    """Run finetune as the command line does, one epoch a phase."""
    return cli.call(config.Finetune, finetune.run, [*QUICK, "--full.epochs", "1", *argv])


def small(photos: Path) -> list[str]:
    return ["--data.source", "folder", "--data.path", str(photos), "--data.image_size", "16"]


def one_run() -> mlflow.entities.Run:
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return run


def artifacts(run: mlflow.entities.Run) -> set[str]:
    return {entry.path for entry in mlflow.MlflowClient().list_artifacts(run.info.run_id)}


ODD = [
    b"caf\xe9", b"\x1b[31mred\nline\x07", b"<img src=x onerror=alert(1)>", b"[click](javascript:alert(1))",
    b"**b** # h ~~s~~", b"a|b $\\frac{$ `tick`", b" blank ", "\u202ertl \U0001f600 @me".encode(), b"x" * 200,
]  # fmt: skip


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are always Unicode")
def test_whatever_folders_and_photos_are_called_a_run_ends_well(folder: Path, capfd: pytest.CaptureFixture):
    """Nothing that steers a terminal, is markup or is no UTF-8 gets into what a run says and leaves."""
    root = os.fsencode(folder) + b"/dat\xe0\x1b[2J"
    rng = np.random.default_rng(0)
    for name in ODD:
        os.makedirs(root + b"/" + name)
        for number in range(12):
            ends = [b"", b"\xff", b"\x1b[2J\n", b"<b>", b"$\\frac{$", b"`|"]
            with open(root + b"/" + name + b"/%d" % number + ends[number % 6] + b".png", "wb") as file:
                Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(file, "PNG")
    path = Path(os.fsdecode(root))
    quick = ["--features.engine", "keras", "--register", "a`b"]
    assert cli.call(config.FeatureExtraction, feature_extraction.run, [*QUICK[:4], *small(path), *quick]) == 0
    run = one_run()
    model = next(folder.glob("mlruns/*/models/*/artifacts/data/model.keras"))
    photo = os.fsdecode(root + b"/caf\xe9/1\xff.png")
    assert cli.call(config.Predict, predict.run, [str(model), photo], positional=("model", "photos")) == 0
    told = capfd.readouterr()
    assert (told.out + told.err).replace("\n", "").isprintable()
    assert "classes whose names are written with escapes (3): " in told.err
    assert r"dat\xe0\x1b[2J/caf\xe9/1\xff.png  " in told.out

    classes = labels.read(model)
    assert classes is not None
    assert {r"caf\xe9", r"\x1b[31mred\nline\x07", r"\u202ertl 😀 @me", "blank"} < set(classes)
    text = run.data.tags["mlflow.note.content"]
    assert r"**dat\\xe0\\x1b\[2J**" in text
    assert r"&lt;img src=x onerror=alert(1)&gt;, " in text
    assert r"\[click\](javascript&#58;alert(1)), " in text
    assert run.data.params["data.path"].endswith(r"/dat\xe0\x1b[2J")
    kept = next(folder.glob(f"mlruns/*/{run.info.run_id}/artifacts"))
    pictures = {"worst_mistakes.png", "confusion_matrix.png", "class_scores.png"}
    assert pictures | {"predictions.json"} < artifacts(run)
    shutil.copy(kept / "split_manifest.csv", path / "manifest.csv")
    again = data.load("csv", path=path / "manifest.csv", size=(16, 16))
    assert sorted(again.classes) == sorted(map(str.strip, classes))
    settings = yaml.safe_load((kept / "config.yaml").read_text(encoding="utf-8"))
    assert settings["data"]["path"].endswith("dat\\xe0\x1b[2J")
    assert data.load_source("folder", path=settings["data"]["path"]).classes == classes


class Finished(NamedTuple):
    """A run that several tests look at, in a store of its own."""

    folder: Path
    photos: Path
    result: Any
    out: str


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Finished:
    root = tmp_path_factory.mktemp("finished")
    photos, results, out = write_photos(root / "photos", {"green": 30, "red": 30}), [], io.StringIO()
    shutil.copy(database, root / "mlflow.db")
    argv = [*QUICK, *small(photos), "--full.epochs", "1", "--seed", "3"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.chdir(root)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
        patch.setenv("TLKIT_CACHE", str(root / "cache"))
        patch.setenv("XDG_STATE_HOME", str(root / "state"))
        assert cli.call(config.Finetune, lambda made: results.append(finetune.run(made)), argv) == 0
    return Finished(root, photos, results[0], out.getvalue())


@pytest.fixture
def finished(finished_once: Finished, monkeypatch: pytest.MonkeyPatch) -> Finished:
    """The finished run, to be read only, where its folder is the working one."""
    monkeypatch.chdir(finished_once.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{finished_once.folder}/mlflow.db")
    return finished_once


def test_finetune_leaves_a_run_with_everything_in_it(finished: Finished):
    run = one_run()
    assert run.info.status == "FINISHED"
    assert run.data.params["full.learning_rate"] == "0.0003"
    assert run.data.params["backbone.name"] == "LetterNet"
    assert config_of(run)["augment"]["flip"] is True  # decided, and no parameter
    assert not {name for name in run.data.params if name.startswith("augment.")}
    assert len(run.data.params) < 22
    assert run.data.params["positive"] in ("green", "red")
    assert run.data.tags["recipe"] == "finetune"
    assert len(run.data.tags["dataset_digest"]) == 64
    assert artifacts(run) == {
        "config.yaml", "decisions.json", "split_manifest.csv", "example.png", "example_request.json",
        "inspection.html", "predictions.json",
        "learning_curves.png", "confusion_matrix.png", "class_scores.png", "class_scores.json", "worst_mistakes.png",
        "calibration.png", "report.html", "model_card.md",
    }  # fmt: skip
    client = mlflow.MlflowClient()
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):  # of the solved head, and an epoch of each phase
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, name)] == [1, 2, 3]
    rates = client.get_metric_history(run.info.run_id, "learning_rate")
    assert [metric.step for metric in rates] == [2, 3]
    assert 0 <= run.data.metrics["test_accuracy_low"] <= run.data.metrics["test_accuracy"] <= 1
    assert {"test_loss", "test_f1", "best_epoch", "best_val_loss", "training_seconds"} <= set(run.data.metrics)

    manifest = Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/split_manifest.csv")).read_text(
        encoding="utf-8"
    )
    assert manifest.splitlines()[0] == "hash,path,label,split"
    assert len(manifest.splitlines()) == 61

    out = finished.out
    assert f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}" in out
    assert "test accuracy" in out
    assert "-m tlkit.recipes.predict models:/m-" in out


def test_the_logged_model_predicts_what_the_model_in_memory_does(finished: Finished, capsys: pytest.CaptureFixture):
    result = finished.result
    photo = finished.photos / "red" / "000.png"
    (answer,) = predict.run(config.Predict(result.model_uri, [str(photo)], top=2)).rankings
    assert sorted(name for name, _ in answer) == ["green", "red"]
    pixels = np.asarray(Image.open(photo).resize((16, 16), Image.Resampling.BILINEAR).convert("L"))[None, ..., None]
    expected = dict(zip(["green", "red"], result.model.predict(pixels.astype("float32"), verbose=0)[0], strict=True))
    assert dict(answer) == pytest.approx(expected, abs=2e-2)  # gray first or small first: one level at most apart
    assert sum(share for _, share in answer) == pytest.approx(1)

    # Whoever knows MLflow and Keras alone finds what they expect.
    loaded = mlflow.keras.load_model(result.model_uri)
    np.testing.assert_allclose(
        loaded.predict(pixels.astype("float32"), verbose=0)[0], list(expected.values()), rtol=1e-5
    )
    info = mlflow.models.get_model_info(result.model_uri)
    assert info.signature.inputs.input_names() == ["image"]
    assert info.signature.outputs.input_names() == ["label", "probability", "top"]
    assert info.metadata == {"classes": ["green", "red"]}
    file = Path(mlflow.artifacts.download_artifacts(result.model_uri)) / "data" / "model.keras"
    assert labels.read(file) == ["green", "red"]
    by_run = predict.run(config.Predict(f"runs:/{result.run_id}", [str(photo)], top=2)).rankings
    assert by_run == predict.run(config.Predict(f"runs:/{result.run_id}/model", [str(photo)], top=2)).rankings
    by_file = predict.run(config.Predict(str(file), [str(photo)], top=2)).rankings
    assert by_run == by_file == [answer]


@pytest.mark.parametrize("printed", [0, 1000])
def test_a_table_of_a_folder_says_what_the_run_logged(finished: Finished, printed: int, monkeypatch, tmp_path: Path):
    """The answers for many photos come from another engine than those for a few."""
    monkeypatch.setattr(predict, "PRINTED", printed)
    table = tmp_path / "predictions.csv"
    result = predict.run(config.Predict(finished.result.model_uri, [str(finished.photos)], output=str(table)))
    assert (result.answered, result.unread) == (60, 0)
    with open(table, newline="", encoding="utf-8") as file:
        rows = {row["path"].removeprefix(f"{finished.photos}/"): row for row in csv.DictReader(file)}
    logged = json.loads(Path(mlflow.artifacts.download_artifacts(
        f"runs:/{finished.result.run_id}/predictions.json")).read_text(encoding="utf-8"))  # fmt: skip
    said = [dict(zip(logged["columns"], row, strict=True)) for row in logged["data"]]
    assert len(said) > 5
    for each in said:
        row = rows[each["file"]]
        assert row["label"] == each["predicted"]
        assert float(row["probability"]) == pytest.approx(each["probability"], abs=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras exports from TensorFlow")
def test_an_export_is_compared_on_the_test_photos_of_its_run(finished: Finished, monkeypatch, tmp_path: Path):
    from tlkit import export
    from tlkit.recipes import export as recipe

    monkeypatch.setattr(export, "milliseconds", lambda *_: 1.5)
    run = one_run()
    for number, uri in enumerate((finished.result.model_uri, f"runs:/{run.info.run_id}")):
        output = tmp_path / f"out{number}"
        (row,) = recipe.run(config.Export(uri, str(output), format="openvino"))
        logged = run.data.metrics
        assert row.parity.before == row.parity.after == pytest.approx(logged["test_accuracy"])
        assert row.parity.largest < 1e-5
        card = (output / "README.md").read_text(encoding="utf-8")
        assert f"On {row.parity.examples} test photos of the run" in card
        low, high = logged["test_accuracy_low"], logged["test_accuracy_high"]
        assert f"- test accuracy {logged['test_accuracy']:.4f} (95 % interval {low:.3f} to {high:.3f})" in card
        assert run.data.tags["dataset_digest"] in card
        assert "Training began with random weights: they are yours." in card
        assert json.loads((output / "labels.json").read_text(encoding="utf-8"))["classes"] == ["green", "red"]


def extract(photos: Path, *argv: str) -> int:
    given = ["--backbone.name", "LetterNet", "--backbone.weights", "none", *small(photos), *argv]
    return cli.call(config.FeatureExtraction, feature_extraction.run, given)


@pytest.mark.usefixtures("undrawn")
def test_feature_extraction_leaves_a_model_that_says_what_the_solver_says(folder: Path, photos: Path):
    settings = config.FeatureExtraction(
        data=config.Data(path=str(photos), image_size=16), backbone=config.Backbone("LetterNet", weights="none")
    )
    result = feature_extraction.run(settings)
    run = one_run()
    assert run.data.tags["recipe"] == "feature_extraction"
    assert config_of(run)["features"]["engine"] in ("keras", "openvino")
    assert {weight.path for weight in result.model.trainable_weights} == {"head/kernel", "head/bias"}
    splits = data.load("folder", path=photos, size=(16, 16), channels=1)
    seen = [split.read(np.arange(len(split))) for split in (splits.train, splits.val, splits.test)]
    pooled = [features.pooled(result.model).predict(pixels, verbose=0) for pixels in seen]
    labels = np.concatenate([splits.train.labels, splits.val.labels])
    probe = probes.logistic_regression(
        np.concatenate(pooled[:2]), labels, 2, groups=splits.train.hashes + splits.val.hashes
    )
    file = mlflow.keras.load_model(result.model_uri)
    expected = calibration.tempered(probe.probabilities(pooled[2]), run.data.metrics.get("temperature", 1.0))
    np.testing.assert_allclose(file.predict(seen[2], verbose=0), expected, atol=2e-3)
    right = probe.probabilities(pooled[2]).argmax(1) == splits.test.labels
    assert run.data.metrics["test_accuracy"] == result.scores.accuracy == pytest.approx(right.mean())
    assert run.data.metrics["l2"] == probe.l2
    assert "regularization.png" in artifacts(run)


@pytest.mark.usefixtures("undrawn")
def test_a_score_stands_beside_what_says_nothing(folder: Path, capsys: pytest.CaptureFixture):
    photos = write_photos(folder / "uneven", {"green": 8, "red": 40})
    assert extract(photos) == 0
    out, run = capsys.readouterr().out, one_run()
    found = run.data.metrics
    assert f"; always 'red': {found['test_majority_accuracy']:.4f})" in out
    assert f"(always 'red': {found['cross_validated_majority_accuracy']:.3f})" in out
    assert f"test balanced accuracy  {found['test_balanced_accuracy']:.4f}" in out
    assert "positive: green, the rarer one in training; precision and recall are of it" in out
    one, area = "test precision {:.3f}, recall {:.3f}", "average precision {:.3f} of 'green'"
    assert f"{one.format(found['test_precision'], found['test_recall'])}, " in out
    assert area.format(found["test_average_precision"]) in out
    assert run.data.params["positive"] == "green"
    note = run.data.tags["mlflow.note.content"]
    assert f", always `red`: {found['test_majority_accuracy']:.3f}, balanced accuracy " in note
    assert f"average precision {found['test_average_precision']:.3f} of `green`; trained" in note
    assert config_of(run)["positive"] == "green"


def test_precision_of_a_class_that_is_not_there_is_no_zero():
    scores = evaluation.score("test", np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0]), positive=1)
    assert _summary.of_positive(scores, ["a", "b"]) == (
        "precision and recall of 'b' are unknown: no example has that label"
    )


def config_of(run: mlflow.entities.Run) -> dict[str, Any]:
    path = mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/config.yaml")
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


def test_the_positive_class_is_one_of_two():
    find = _inputs.find_positive
    assert find(None, ["a", "b", "c"], multi_label=False) is None
    assert find("b", ["a", "b"], multi_label=False) == 1
    assert find("cafe\u0301", ["bar", "caf\u00e9"], multi_label=False) == 1  # however the keyboard writes it
    assert find(r"caf\xe9", ["bar", "caf\udce9"], multi_label=False) == 1  # as config.yaml of a run has it
    for classes, multi_label, message in (
        (["a", "b"], False, "positive is 'd', which is not a class; the classes are a, b: give one of them"),
        (["a", "b", "d"], False, "positive is 'd', but there are 3 classes, and it is for two: leave it out"),
        (["a", "d"], True, "positive is 'd', but examples may have several labels"),
    ):
        with pytest.raises(errors.InvalidInput, match=message):
            find("d", classes, multi_label=multi_label)


def test_without_one_the_positive_class_is_the_rarer_one():
    def decide(labels: list[int], classes: str = "ab", **given: str) -> list[tuple[str, str]]:
        made = _decisions.positive(config.FeatureExtraction(**given), list(classes), np.array(labels))
        return [(decision.value, decision.reason.partition(" in training")[0]) for decision in made]

    assert decide([0, 1, 1]) == [("a", "the rarer one")]
    assert decide([0, 0, 1]) == [("b", "the rarer one")]
    assert decide([0, 1]) == [("b", "the second of two equally frequent ones")]
    assert decide([0, 1, 1], positive="b") == decide([0, 1, 2], "abc") == decide([[0, 1], [1, 0]]) == []


@pytest.mark.parametrize(
    ("made", "recipe", "argv"),
    [
        (config.FeatureExtraction, feature_extraction, QUICK[:4]),
        (config.Finetune, finetune, QUICK),
        (config.Train, train, []),
        (config.Tune, tune_recipe, ["--recipe", "train", "--space", "{full: {epochs: {choice: [1, 2]}}}"]),
    ],
)
def test_an_unknown_positive_class_is_refused_before_a_photo_is_opened(
    made: type, recipe: Any, argv: list[str], folder: Path, photos: Path, capsys: pytest.CaptureFixture, monkeypatch
):
    monkeypatch.setattr(data, "load", None)
    path = ["--data.path", str(photos), "--data.image_size", "16"]
    assert cli.call(made, recipe.run, [*path, *argv, "--positive", "blue"]) == 2
    assert (
        "positive is 'blue', which is not a class; the classes are green, red: give one of" in capsys.readouterr().err
    )


def test_a_part_of_the_scored_split_is_scored_with_its_groups():
    photos = data.Photos.of(np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2, 1), [0, 1, 1, 0, 1, 1])
    test = dataclasses.replace(photos, given_groups=list("aabbcc"))
    splits = data.Splits(["x", "y"], photos, photos, test, [], [])
    job = _jobs.Job("train", config.Train(positive="x"))
    probabilities = np.eye(2)[[0, 1, 1, 0, 0, 0]]
    whole = _results.evaluate(job, splits, probabilities)
    part = _results.evaluate(job, splits, probabilities, np.repeat([True, False, True], 2))
    assert (whole.photos, whole.groups, whole.majority, whole.positive) == (6, 3, 1, 0)
    assert (part.photos, part.groups, part.accuracy, part.majority_accuracy) == (4, 2, 0.5, 0.75)
    assert whole.interval == evaluation.wilson_of_groups(np.array([1, 1, 1, 1, 0, 0]), test.given_groups)
    alone = dataclasses.replace(splits, test=dataclasses.replace(photos, given_groups=["a", "a", "", "", "", ""]))
    assert _results.evaluate(job, alone, probabilities).groups == 5  # a photo without a group is one of its own


@pytest.mark.thorough
@pytest.mark.usefixtures("uncompiled", "undrawn")
def test_features_are_computed_once_and_photos_that_are_added_alone(folder: Path, photos: Path, capsys):
    def computed(*argv: str) -> str:
        assert extract(photos, "--features.engine", "keras", *argv) == 0
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("features of"))

    assert "0 from the store, 60 computed by keras" in computed()
    assert "60 from the store, 0 computed" in computed()
    Image.new("RGB", (40, 40), (0, 200, 0)).save(photos / "green" / "new.png")
    assert "60 from the store, 1 computed" in computed()
    assert "61 computed" in computed("--features.store", "none")
    assert "0 from the store, 61 computed" in computed("--seed", "1")  # other random weights


@pytest.mark.usefixtures("undrawn")
def test_a_photo_that_cannot_be_decoded_is_set_aside_here_too(folder: Path, photos: Path, capsys):
    (photos / "green" / "000.png").write_bytes(b"no photo")
    assert extract(photos) == 0
    assert "set aside" in capsys.readouterr().err
    assert len(result_names()) == 59
    assert extract(photos, "--data.strict", "true") == 2
    assert "000.png" in capsys.readouterr().err


def result_names() -> list[str]:
    manifest = mlflow.artifacts.download_artifacts(f"runs:/{one_run().info.run_id}/split_manifest.csv")
    return Path(manifest).read_text(encoding="utf-8").splitlines()[1:]


@pytest.mark.slow
def test_finetune_learns_from_stored_activations(folder: Path, photos: Path, capsys: pytest.CaptureFixture):
    stage = ["--full.unfreeze_from", "stage2", "--head.epochs", "0"]
    turned = ["--augment.rotation", "10"]
    argv = [*small(photos), *stage, "--augment.flip", "false"]
    losses = {}
    for stored in ("false", "true"):
        assert tune(*argv, "--full.stored", stored, "--head.dropout", "0", "--full.epochs", "2") == 0
        latest = mlflow.search_runs(search_all_experiments=True, output_format="list")[0]
        losses[stored] = latest.data.metrics["best_val_loss"]
    assert "below stage2" in capsys.readouterr().out
    assert losses["true"] == pytest.approx(losses["false"], rel=2e-3)
    assert tune(*small(photos), *stage, *turned, "--augment.views", "2", "--full.stored", "true") == 0
    assert tune(*argv) == 0
    assert "phase full " in capsys.readouterr().out  # what was decided, and why
    assert tune(*small(photos), *stage, "--full.stored", "true") == 0  # each photo as it is, and mirrored
    assert "features of 94 photos (" in capsys.readouterr().out
    assert tune(*small(photos), *stage, "--augment.views", "2") == 2
    assert "photos are mirrored at most: switch on more of --augment" in capsys.readouterr().err
    assert tune(*small(photos), *stage, *turned, "--full.stored", "true") == 2
    assert "each epoch changes the photos anew: give --augment.views" in capsys.readouterr().err
    assert tune(*small(photos), "--full.stored", "true") == 2
    assert "it goes with --full.unfreeze_from" in capsys.readouterr().err


@pytest.mark.thorough
@pytest.mark.usefixtures("uncompiled", "undrawn")
@pytest.mark.parametrize("rotation", [0.0, 20.0])
def test_tta_scores_the_mean_over_a_photo_and_its_views(folder: Path, rotation: float):
    rng = np.random.default_rng(0)
    for number in range(60):  # of noise, of which no network is sure
        path = Path("noise", "ab"[number % 2], f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(path)
    result = finetune.run(
        config.Finetune(
            data=config.Data(path="noise", image_size=16),
            backbone=config.Backbone(name="LetterNet", weights="none"),
            full=config.Full(epochs=1),
            augment=config.Views(rotation=rotation, zoom=0.0, shift=0.0),
            tta=3,
        )
    )
    test = data.load("folder", path="noise", size=(16, 16), channels=1).test
    seen = [test.read(range(len(test)))]
    if rotation:
        views = [data.View(test, {"flip": True, "rotation": rotation}, 0, number) for number in range(3)]
        seen += [view.read(range(len(test))) for view in views]
    else:
        seen += [seen[0][:, :, ::-1]]
    mean = np.mean([result.model.predict(pixels.astype("float32"), verbose=0) for pixels in seen], axis=0)
    assert result.fit.metrics["test_accuracy_tta"] == np.mean(mean.argmax(-1) == test.labels)
    right = mean[np.arange(len(test)), test.labels]
    assert result.fit.metrics["test_loss_tta"] == pytest.approx(-np.log(right).mean(), rel=1e-4)
    assert result.fit.metrics["test_loss_tta"] != pytest.approx(result.scores.loss, rel=1e-3)


def test_views_and_stored_activations_need_photos_that_suit_them():
    def check(**augment: Any) -> None:
        stage = config.Full(unfreeze_from="stage2", stored=True)
        views = config.Views(flip=True, **augment)
        finetune.check(config.Finetune(backbone=config.Backbone("LetterNet"), full=stage, augment=views))

    check()
    check(rotation=10.0, views=2)
    with pytest.raises(errors.InvalidInput, match="views is 2; photos are mirrored at most"):
        check(views=2)
    with pytest.raises(errors.InvalidInput, match=r"each epoch changes the photos anew: give --augment\.views"):
        check(rotation=10.0)


@pytest.mark.thorough
@pytest.mark.usefixtures("undrawn")
def test_the_stored_config_repeats_the_run_bit_for_bit(finished: Finished, tmp_path: Path, database: Path, monkeypatch):
    first = one_run()
    stored = mlflow.artifacts.download_artifacts(f"runs:/{first.info.run_id}/config.yaml")
    content = yaml.safe_load(Path(stored).read_text(encoding="utf-8"))
    assert content["data"]["path"] == str(finished.photos)
    assert content["precision"] == "float32"  # what was used, not `auto`
    before = keras.saving.load_model(model_file(first)).get_weights()
    shutil.copy(database, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert cli.call(config.Finetune, finetune.run, ["--config", stored]) == 0
    again = one_run()
    for a, b in zip(before, keras.saving.load_model(model_file(again)).get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.data.params.items() <= again.data.params.items()  # now all is asked for
    scores = ("test_accuracy", "test_loss", "best_val_loss", "best_epoch")
    assert [again.data.metrics[name] for name in scores] == [first.data.metrics[name] for name in scores]


def model_file(run: mlflow.entities.Run) -> Path:
    return Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/model")) / "data" / "model.keras"


@pytest.mark.slow
def test_another_seed_gives_other_weights(folder: Path, photos: Path):
    settings = config.FeatureExtraction(
        data=config.Data(source="folder", path=str(photos), image_size=16),
        backbone=config.Backbone(name="LetterNet", weights="none"),
    )
    kernels = []
    for seed in (0, 1):
        result = feature_extraction.run(dataclasses.replace(settings, seed=seed))
        kernels.append(keras.ops.convert_to_numpy(result.model.get_layer("head").kernel))
    assert not np.allclose(*kernels)


@pytest.mark.usefixtures("uncompiled", "undrawn")
def test_without_a_test_split_the_score_is_called_validation(folder: Path, tmp_path: Path, capsys):
    for split in ("train", "val"):
        write_photos(tmp_path / "photos" / split, {"a": 8, "b": 8})
        for path in (tmp_path / "photos" / split).rglob("*.png"):  # other photos in each split
            pixels = np.asarray(Image.open(path)) ^ np.uint8(split == "val")
            Image.fromarray(pixels).save(path)
    assert tune(*small(tmp_path / "photos")) == 0
    out = capsys.readouterr().out
    assert "validation accuracy" in out
    assert "these examples also chose the epoch, so this is not a test score" in out
    assert "test accuracy" not in out
    run = one_run()
    assert not [name for name in run.data.metrics if name.startswith("test_")]
    assert 0 <= run.data.metrics["validation_accuracy_low"] <= run.data.metrics["validation_accuracy"] <= 1
    for name in ("val_loss", "val_accuracy"):  # the curve is Keras' own, a value an epoch
        assert [metric.step for metric in mlflow.MlflowClient().get_metric_history(run.info.run_id, name)] == [1, 2, 3]


@pytest.mark.thorough
@pytest.mark.usefixtures("uncompiled", "undrawn")
@pytest.mark.parametrize("precision", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)])
def test_half_precision_keeps_logits_and_loss_in_float32(folder: Path, photos: Path, precision: str):
    try:
        assert tune(*small(photos), "--head.epochs", "0", "--precision", precision) == 0
        model = keras.saving.load_model(model_file(one_run()))
        assert model.get_layer("head").compute_dtype == "float32"
        assert model.get_layer("backbone").get_layer("stage1").compute_dtype == precision.removeprefix("mixed_")
        assert model.output.dtype == "float32"
        assert np.isfinite(one_run().data.metrics["test_loss"])
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.usefixtures("uncompiled")
def test_a_run_that_fails_in_training_ends_failed(folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    given = {}

    def fail(*_, **arguments):
        given.update(arguments)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(finetuning, "fit_full", fail)
    with pytest.raises(RuntimeError):
        tune(*small(photos), "--seed", "5", "--augment.zoom", "0.3")
    assert given["seed"] == 5
    assert given["augment"]["zoom"] == 0.3
    assert one_run().info.status == "FAILED"
    assert one_run().data.tags["failure"] == "RuntimeError: out of memory"


# Bad input: one line, the exit status, and no run left behind ---------------------------------------------------------


def refuse(capsys: pytest.CaptureFixture, status: int, *argv: str) -> str:
    """The one line of a command that must fail before a run begins."""
    assert tune(*argv) == status
    err = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("opening", "creating"))]
    assert len(err) == 1
    assert err[0].startswith("finetune: error: ")
    assert mlflow.search_runs(search_all_experiments=True, output_format="list") == []
    return err[0]


@pytest.mark.thorough
def test_a_run_whose_model_cannot_be_saved_has_its_pictures(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise errors.Unavailable("the model cannot be saved")

    monkeypatch.setattr("tlkit.serving.save_model", refuse)
    argv = ["--backbone.name", "LetterNet", "--data.image_size", "16"]
    assert cli.call(config.FeatureExtraction, feature_extraction.run, argv) == 1
    assert one_run().info.status == "FAILED"
    assert {"confusion_matrix.png", "class_scores.json", "regularization.png"} <= artifacts(one_run())


def test_no_such_folder(folder: Path, capsys: pytest.CaptureFixture):
    said = refuse(capsys, 2, "--data.source", "folder", "--data.path", "nowhere")
    assert "data.path is 'nowhere'; there is no such file or folder" in said


def test_one_class(folder: Path, capsys: pytest.CaptureFixture):
    write_photos(folder / "one", {"cat": 5})
    said = refuse(capsys, 2, "--data.source", "folder", "--data.path", "one")
    assert "cat" in said
    assert "class" in said


def test_an_empty_class(folder: Path, capsys: pytest.CaptureFixture):
    write_photos(folder / "some", {"cat": 5, "dog": 5, "none": 0})
    assert "none" in refuse(capsys, 2, "--data.source", "folder", "--data.path", "some")


@pytest.mark.thorough
@pytest.mark.usefixtures("uncompiled", "undrawn")
def test_a_photo_that_is_not_one_is_set_aside_or_an_error(folder: Path, photos: Path, capsys: pytest.CaptureFixture):
    (photos / "red" / "fake.jpg").write_text("this is not a photo", encoding="utf-8")
    assert "fake.jpg" in refuse(capsys, 2, *small(photos), "--data.strict", "true")
    assert tune(*small(photos), "--head.epochs", "0") == 0
    assert "fake.jpg" in capsys.readouterr().err
    logged = mlflow.artifacts.load_text(f"runs:/{one_run().info.run_id}/set_aside.txt")
    assert logged == "red/fake.jpg: not a JPEG, PNG, GIF, BMP, WebP or TIFF image\n"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--backbone.name", "ResNet51"], "'ResNet51' is unknown: did you mean ResNet5"),
        (["--backbone.weights", "nowhere.h5"], "nowhere.h5"),
        (["--backbone.weights", "imagenet"], "imagenet"),
        (["--backbone.alpha", "0.5"], "alpha"),
        (["--full.unfreeze_from", "stage9"], "stage 'stage9' is unknown: LetterNet has stem, stage1"),
        (["--data.image_size", "8"], "at least 16"),
    ],
)
def test_a_backbone_that_cannot_be(folder: Path, argv: list[str], says: str, capsys: pytest.CaptureFixture):
    assert says in refuse(capsys, 2, *argv)


def test_weights_that_do_not_fit(folder: Path, capsys: pytest.CaptureFixture):
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights("other.weights.h5")
    assert "other.weights.h5" in refuse(capsys, 2, "--backbone.weights", "other.weights.h5")


def test_no_network(folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    from tlkit.backbones import weightfiles

    def refused(*_):
        raise OSError("no network")

    monkeypatch.setattr(weightfiles.socket, "create_connection", refused)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(folder))
    said = refuse(
        capsys, 1, "--backbone.name", "MobileNet", "--backbone.weights", "imagenet", "--backbone.alpha", "0.25"
    )
    assert str(folder / "models" / "mobilenet_2_5_224_tf_no_top.h5") in said
    assert "LetterNet" in said


def test_an_unwritable_store(folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    (folder / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/file/mlflow.db")
    assert tune() == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("creating")]
    assert f"cannot create {folder}/file/mlflow.db" in said


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["nowhere.keras", "photo.png"], "there is no model 'nowhere.keras'"),
        (["models:/m-0", "photo.png"], "MLflow has no model 'models:/m-0'"),
        (["photo.png", "photo.png"], "'photo.png' is not a .keras file"),
        (["nowhere.keras", "nophoto.png"], "there is no model 'nowhere.keras'"),
        (["folder/../few.keras", "nophoto.png"], "there is no photo 'nophoto.png'"),
        (["http://127.0.0.1:9/model", "photo.png"], "there is no model 'http://127.0.0.1:9/model'"),
        (["damaged.keras", "photo.png"], "Keras cannot load 'damaged.keras'"),
        (["named.keras", "photo.png"], "does not hold a list of class names"),
        (["few.keras", "photo.png"], "'few.keras' holds 1 class names for 2 classes"),
        (["nan.keras", "photo.png"], "it has 2 numbers in weights/kernel that are not finite"),
        (["overflow.keras", "photo.png"], "the network's answer is not a number"),
        (["folder", "photo.png"], "'folder' is a folder; give a .keras file"),
        (["regression.keras", "photo.png"], "predict needs a classifier of photos of one size"),
    ],
)
def test_predict_refuses(folder: Path, argv: list[str], says: str, capsys: pytest.CaptureFixture):
    Image.new("RGB", (20, 20)).save("photo.png")
    save_odd_models()
    assert cli.call(config.Predict, predict.run, argv, ("model", "photos")) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def save_odd_models() -> None:
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    for name in ("damaged", "named", "few"):
        model.save(f"{name}.keras")
    labels.write("few.keras", ["alone"])
    with zipfile.ZipFile("named.keras", "a") as archive:
        archive.writestr(labels.MEMBER, '{"classes": 3}')
    Path("folder").mkdir()
    for name, value in (("nan", np.nan), ("overflow", 3e38)):
        inputs = keras.Input((8, 8, 1))
        x = keras.layers.GlobalAveragePooling2D()(inputs) + 1e3
        odd = keras.Model(inputs, keras.layers.Dense(2, use_bias=False, activation="softmax", name="weights")(x))
        odd.set_weights([np.full((1, 2), value)])
        odd.save(f"{name}.keras")
    content = bytearray(Path("damaged.keras").read_bytes())
    content[len(content) // 2] ^= 255
    Path("damaged.keras").write_bytes(content)
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save("regression.keras")


def test_predict_creates_no_store(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    Image.new("RGB", (20, 20)).save("photo.png")
    assert cli.call(config.Predict, predict.run, ["models:/m-0", "photo.png"], ("model", "photos")) == 2
    assert "there is no MLflow store" in capsys.readouterr().err
    assert not (tmp_path / "other.db").exists()


def test_class_names_may_be_anything_a_folder_can_be_called(folder: Path):
    names = ["$_$", "x..", "Löwe 🦁"]
    write_photos(folder / "odd", dict.fromkeys(names, 10))
    assert extract(folder / "odd", "--features.engine", "keras") == 0
    run = one_run()
    assert labels.read(model_file(run)) == sorted(names)
    assert "confusion_matrix.png" in artifacts(run)


def test_a_loss_that_becomes_nan_is_one_line(folder: Path, photos: Path, capsys: pytest.CaptureFixture):
    none = ["--head.solved", "false", "--head.epochs", "0"]
    assert tune(*small(photos), *none, "--full.epochs", "2", "--full.learning_rate", "1e38") == 2
    assert "the loss became nan or infinite in phase full: lower --full.learning_rate" in capsys.readouterr().err
    assert one_run().info.status == "FAILED"


@pytest.mark.thorough
@pytest.mark.usefixtures("uncompiled", "undrawn")
def test_how_the_head_is_found_is_decided_and_written_down(
    folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def run(*argv: str) -> int:
        return cli.call(config.Finetune, finetune.run, [*QUICK[:4], *small(photos), "--full.epochs", "1", *argv])

    class Decided(BaseException):
        """Ends a run at its first epoch: what is decided is logged before, and the head solved."""

    def epochs_begin(*_: Any, **__: Any) -> None:
        raise Decided

    monkeypatch.setattr(finetuning, "fit_head", epochs_begin)
    monkeypatch.setattr(finetuning, "fit_full", epochs_begin)
    assert run("--head.learning_rate", "0.1") == 2
    assert "the head is solved and not trained: give --head.epochs 30 or" in capsys.readouterr().err
    one = config.Finetune(balance="weights", backbone=config.Backbone("LetterNet"), head=config.Head(learning_rate=0.1))
    finetune.check(one)  # its head is trained
    assert run("--head.solved", "true", "--balance", "weights") == 2
    assert "balance is weights, which logistic regression does not know" in capsys.readouterr().err
    assert run("--head.epochs", "0", "--full.epochs", "0", "--balance", "weights") == 2
    assert "the head is not solved here, and the number of epochs is 0" in capsys.readouterr().err
    asked = {(): ("True", "0"), ("--head.solved=false",): ("False", "30"), ("--head.epochs=2",): ("True", "2")}
    asked |= {("--full.epochs=0",): ("True", "0"), ("--balance=weights",): ("False", "30")}
    for argv, found in asked.items():
        if argv == ("--full.epochs=0",):
            assert run(*argv) == 0
        else:
            with pytest.raises(Decided):
                run(*argv)
        params = mlflow.search_runs(search_all_experiments=True, output_format="list")[0].data.params
        assert (params["head.solved"], params["head.epochs"]) == found
        assert ("head: solved by logistic regression" in capsys.readouterr().out) == (found[0] == "True")


def test_artifacts_that_cannot_be_written_are_one_line(folder: Path, photos: Path, capsys: pytest.CaptureFixture):
    (folder / "mlruns").write_text("in the way", encoding="utf-8")
    assert tune(*small(photos)) == 1
    err = capsys.readouterr().err
    assert "mlruns" in err
    assert "Traceback" not in err
    assert mlflow.search_runs(search_all_experiments=True).empty  # it was found before a run began


def test_a_model_from_a_stranger_runs_no_code(folder: Path, capsys: pytest.CaptureFixture):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Lambda(lambda pixels: pixels * 1.0)(inputs)
    keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x))).save("stranger.keras")
    Image.new("RGB", (8, 8)).save("photo.png")
    assert cli.call(config.Predict, predict.run, ["stranger.keras", "photo.png"], ("model", "photos")) == 2
    assert "Keras cannot load 'stranger.keras'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_is_terminated_ends_killed_within_seconds(folder: Path):
    command = [sys.executable, "-m", "tlkit.recipes.finetune", *QUICK, "--full.epochs", "1000"]
    # As in a shell's background, where SIGINT is ignored.
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *command], **quiet) as process:
        for line in process.stdout:
            if re.match(r"full +\d+/", line):
                break
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(30) == 130
    assert one_run().info.status == "KILLED"


@pytest.mark.thorough
@pytest.mark.usefixtures("uncompiled", "undrawn")
def test_a_run_goes_to_a_real_server(folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "kept")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    server = subprocess.Popen(command, env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, **quiet)
    try:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "team")
        for _ in range(120):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.5)
        assert tune(*small(photos)) == 0
        run = one_run()
        assert run.info.status == "FINISHED"
        assert mlflow.get_experiment(run.info.experiment_id).name == "team"
        out = capsys.readouterr().out
        assert f"http://127.0.0.1:{port}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}" in out
        assert "mlflow ui" not in out  # there is a server already
        uri = next(word for word in out.split() if word.startswith("models:/m-"))
        assert predict.run(config.Predict(uri, [str(photos / "red" / "000.png")])).rankings
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.slow  # CI runs `make demo` too
def test_the_program_itself_in_an_empty_folder(tmp_path: Path):
    """The main job as a user types it: MLflow's default store, exit status 0, and the printed predict command works."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    command = [sys.executable, "-m", "tlkit.recipes.finetune", *QUICK, "--full.epochs", "1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert (tmp_path / "mlflow.db").is_file()
    assert "Traceback" not in done.stderr
    told = shlex.split(next(line for line in done.stdout.splitlines() if "tlkit.recipes.predict" in line))
    assert shutil.which(told[0], path=f"{tmp_path}:{os.environ['PATH']}")
    answered = subprocess.run(told, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "example.png  " in answered.stdout
