"""Ranking backbones: the table, its runs in MLflow, and what is left out."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import keras
import mlflow
import pytest

from tlkit import cli, config
from tlkit.errors import Unavailable
from tlkit.recipes import _sources, select

TWO = "[{name: LetterNet, weights: none}, {name: LetterNet, weights: letters}]"


def rank(photos: Path, *argv: str) -> int:
    given = ["--data.path", str(photos), "--data.image_size", "32", "--backbones", TWO, *argv]
    return cli.call(config.Select, select.run, given)


def test_it_ranks_logs_and_says_what_to_do_next(folder: Path, photos: Path, capsys: pytest.CaptureFixture):
    assert rank(photos) == 0
    said = capsys.readouterr().out
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(below) == 2
    assert {run.data.params["backbone.weights"] for run in below} == {"none", "letters"}
    scores = {name for name in parent.data.metrics if not name.startswith("system/")}
    assert all(set(run.data.metrics) == scores for run in below)
    table = json.loads(
        Path(mlflow.artifacts.download_artifacts(f"runs:/{parent.info.run_id}/ranking.json")).read_text(
            encoding="utf-8"
        )
    )
    accuracies = [row[table["columns"].index("cross_validated_accuracy")] for row in table["data"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert parent.data.metrics["cross_validated_accuracy"] == accuracies[0]
    assert {entry.path for entry in mlflow.MlflowClient().list_artifacts(parent.info.run_id)} == {
        "config.yaml", "ranking.json", "ranking.png"
    }  # fmt: skip
    assert f"tlkit.recipes.finetune --data.path {shlex.quote(str(photos))}" in said
    assert "--data.image_size 32 --backbone.name LetterNet" in said
    assert max(map(len, said[said.index("   backbone") :].splitlines()[:3])) <= 80


@pytest.mark.thorough
def test_the_test_split_is_not_looked_at(folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    for split, chosen in (("train", range(20)), ("val", range(20, 25)), ("test", range(25, 30))):
        for name in ("green", "red"):
            (folder / "given" / split / name).mkdir(parents=True)
            for number in chosen:
                (photos / name / f"{number:03}.png").rename(folder / "given" / split / name / f"{number:03}.png")
    for photo in (folder / "given" / "test").rglob("*.png"):
        photo.write_bytes(b"no photo " + bytes(str(photo), "utf-8"))  # would be set aside if it were decoded
    assert rank(folder / "given") == 0


@pytest.mark.thorough
def test_a_backbone_that_cannot_be_had_is_left_out(folder: Path, photos: Path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_HOME", str(folder / "empty"))
    argv = ["--backbones", "[MobileNetV2, LetterNet]"]
    assert cli.call(config.Select, select.run, ["--data.path", str(photos), *argv]) == 0
    said = capsys.readouterr().out
    assert said.index("1 of 2: LetterNet") < said.index("2 of 2: MobileNetV2")  # what is here goes first
    assert "not ranked: MobileNetV2 " in said
    assert " 1 LetterNet" in said
    assert cli.call(config.Select, select.run, ["--data.path", str(photos), "--backbones", "[MobileNetV2]"]) == 1


@pytest.mark.thorough
def test_networks_of_ones_own_are_ranked_and_their_speed_is_measured_once(folder: Path, photos: Path, capsys):
    pixels = keras.Input((32, 32, 3))
    maps = keras.layers.Conv2D(8, 3, 4, activation="relu")(keras.layers.Rescaling(1 / 255)(pixels))
    top = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(maps))
    keras.Model(pixels, top).save(folder / "mine.keras")
    more = ["--backbones", "[LetterNet, mine.keras]"]
    tables = []
    for measured in (True, False):
        assert rank(photos, *more) == 0
        said = capsys.readouterr()
        assert ("measuring the speed of 2 networks in alternation" in said.err) == measured
        tables.append([line.split() for line in said.out[said.out.index("   backbone") :].splitlines()[1:3]])
    assert {row[1] for row in tables[0]} == {"LetterNet", "mine"}
    assert [row[-2] for row in tables[0]] == [row[-2] for row in tables[1]]
    assert all(float(row[-2].replace(",", "")) > 0 for row in tables[0])


@pytest.mark.thorough
def test_what_cannot_be_had_is_set_aside_before_anything_is_computed(folder: Path, photos: Path, monkeypatch, capsys):
    resolve = _sources.resolve

    def without_network(backbone: config.Backbone, size: int | None = None) -> _sources.Source:
        if backbone.name == "VGG16":  # as what lies on a server
            raise Unavailable("VGG16 is not here")
        return resolve(backbone, size)

    monkeypatch.setattr(_sources, "resolve", without_network)
    assert rank(photos, "--backbones", "[VGG16, LetterNet]") == 0
    said = capsys.readouterr().out
    assert "left out: VGG16, as VGG16 is not here" in said
    assert "1 of 1: LetterNet" in said
    assert "not ranked: VGG16 is not here" in said
    assert rank(photos, "--backbones", "[VGG16]") == 1


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--backbones", "[]"], "backbones is []; it must have one network or more"),
        (["--backbones", "[MobilNet]"], "MobilNet"),
        (["--backbones", "[LetterNet, {name: MobileNet, alpha: 0.3}]"], "alpha is 0.3"),
        (["--backbones", "[{name: MobileNet, aplha: 0.5}]"], "unknown setting backbones.aplha; did you mean alpha?"),
        (["--backbones", "[{name: LetterNet, weights: gone.h5}]"], "weights is 'gone.h5'"),
        (["--data.path", "gone"], "there is no such file or folder"),
    ],
)
def test_wrong_usage_is_one_line(folder: Path, photos: Path, capsys, argv: list[str], says: str):
    assert cli.call(config.Select, select.run, ["--data.path", str(photos), *argv]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
