"""Ranking backbones: the table, its runs in MLflow, and what is left out."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import mlflow
import pytest

from tlkit import cli, config
from tlkit.recipes import select

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


def test_the_test_split_is_not_looked_at(folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    for split, chosen in (("train", range(20)), ("val", range(20, 25)), ("test", range(25, 30))):
        for name in ("green", "red"):
            (folder / "given" / split / name).mkdir(parents=True)
            for number in chosen:
                (photos / name / f"{number:03}.png").rename(folder / "given" / split / name / f"{number:03}.png")
    for photo in (folder / "given" / "test").rglob("*.png"):
        photo.write_bytes(b"no photo " + bytes(str(photo), "utf-8"))  # would be set aside if it were decoded
    assert rank(folder / "given") == 0


def test_a_backbone_that_cannot_be_had_is_left_out(folder: Path, photos: Path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_HOME", str(folder / "empty"))
    argv = ["--backbones", "[LetterNet, MobileNetV2]"]
    assert cli.call(config.Select, select.run, ["--data.path", str(photos), *argv]) == 0
    said = capsys.readouterr().out
    assert "not ranked: MobileNetV2 " in said
    assert " 1 LetterNet" in said
    assert cli.call(config.Select, select.run, ["--data.path", str(photos), "--backbones", "[MobileNetV2]"]) == 1


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
