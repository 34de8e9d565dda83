"""Exports of a run that trains: compared on its test photos, logged with it, and refused before it begins."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from conftest import write_arrays
from test_export import from_tensorflow, installed, numbers

from tlkit import cli, config, export
from tlkit.errors import InvalidInput
from tlkit.recipes import _run_exports, feature_extraction, finetune, predict, train

pytestmark = from_tensorflow
QUICK = ["--data.source", "embedded", "--backbone.name", "LetterNet"]


def the_run() -> mlflow.entities.Run:
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return run


def artifacts(run: mlflow.entities.Run) -> Path:
    return Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id))


@pytest.mark.thorough
def test_a_run_has_its_exports(
    folder: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(export, "milliseconds", lambda *_: 1.5)
    words = [*QUICK, "--export", "openvino, saved_model,openvino"]
    assert cli.call(config.FeatureExtraction, feature_extraction.run, words) == 0
    printed, run = capsys.readouterr().out, the_run()
    logged, uri = artifacts(run), f"runs:/{run.info.run_id}/model"
    assert sorted(path.name for path in (logged / "export").iterdir()) == ["openvino", "saved_model"]
    files = {path.name for path in (logged / "export/openvino").iterdir()}
    assert files == {"model.xml", "model.bin", "predict.py", "labels.json", "parity.json", "README.md"}
    row = json.loads((logged / "export/openvino/parity.json").read_text(encoding="utf-8"))
    count = len(json.loads((logged / "predictions.json").read_text(encoding="utf-8"))["data"])
    assert (row["examples"], row["compared_on"]) == (count, f"{count} test photos of the run")
    assert row["largest"] < 1e-5
    assert row["before"] == row["after"] == run.data.metrics["test_accuracy"]
    card = (logged / "export/openvino/README.md").read_text(encoding="utf-8")
    assert f"export {uri} --format openvino --output openvino" in card
    assert f"test accuracy {row['before']:.4f} (95 % interval" in card
    assert "LetterNet, Apache-2.0, tlkit's own" in card
    assert "artifacts/export/openvino (probabilities differ by" in printed
    assert "export" not in run.data.params
    photo = str(logged / "example.png")
    ended = subprocess.run(
        [sys.executable, logged / "export/openvino/predict.py", photo], capture_output=True, text=True
    )
    assert cli.call(config.Predict, predict.run, [uri, photo], ("model", "photos")) == 0
    assert numbers(capsys.readouterr().out) == numbers(ended.stdout)


@pytest.mark.thorough
def test_an_export_that_fails_costs_no_more_than_itself(
    folder: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    run_export = export.run
    monkeypatch.setattr(export, "run", lambda *given: run_export(*given) + np.float32(2e-4))
    words = [*QUICK, "--export", "openvino"]
    assert cli.call(config.FeatureExtraction, feature_extraction.run, words) == 1
    printed, run = capsys.readouterr(), the_run()
    assert "not exported: openvino: probabilities differ by up to 0.0002, more than 0.0001" in printed.err
    assert f"export runs:/{run.info.run_id}/model --format openvino --output openvino" in printed.err
    assert "test accuracy" in printed.out
    assert run.info.status == "FINISHED"
    assert len(run.outputs.model_outputs) == 1
    assert not (artifacts(run) / "export").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--export", "coreml"], "export: expected one of onnx, openvino, saved_model, litert, keras_hub, all, got"),
        (["--export", "openvino,coreml"], "got 'coreml'"),
        (["--export", "3"], "got '3'"),
        (["--export", "openvino,onnx"], "format is 'onnx', which needs onnx, tf2onnx, onnxruntime: pip install"),
    ],
)
def test_what_is_refused_before_any_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, words: list[str], says: str
):
    find = export.formats.importlib.util.find_spec
    monkeypatch.setattr(export.formats.importlib.util, "find_spec", lambda n: None if "onnx" in n else find(n))
    for settings, recipe in ((config.FeatureExtraction, feature_extraction), (config.Finetune, finetune)):
        assert cli.call(settings, recipe.run, [*QUICK, *words]) == 2
        message = capsys.readouterr().err
        assert says in message
        assert len(message.strip().splitlines()) == 1


def test_a_backend_that_does_not_export_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(InvalidInput, match="it exports from tensorflow: set KERAS_BACKEND=tensorflow"):
        _run_exports.check(config.Finetune(export=["openvino"]))
    _run_exports.check(config.Finetune())


def test_a_network_that_a_format_cannot_hold_is_refused_untrained(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(export, "check", lambda *_: None)  # whether it is installed
    write_arrays(tmp_path / "volumes.npz", (8, 8, 8, 1))
    words = ["--data.path", "volumes.npz", "--builder.name", "cnn", "--builder.filters", "[4]", "--export", "litert"]
    assert cli.call(config.Train, train.run, words) == 2
    assert "format is 'litert', which cannot hold layer" in capsys.readouterr().err
    assert not mlflow.search_runs(search_all_experiments=True, output_format="list")


@pytest.mark.slow
@pytest.mark.parametrize("name", [installed(name) for name in export.FORMATS if name != "keras_hub"])
def test_every_format_is_logged_after_fine_tuning(folder: Path, undrawn: None, name: str):
    words = [*QUICK, "--full.epochs", "1", "--export", name]
    assert cli.call(config.Finetune, finetune.run, words) == 0
    row = json.loads((artifacts(the_run()) / f"export/{name}/parity.json").read_text(encoding="utf-8"))
    assert row["largest"] < 1e-5
    assert row["agreement"] == 1
