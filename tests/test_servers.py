"""The recipes unchanged against real team servers: on PostgreSQL, and behind a password."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image
from servers import Server, mlflow_server, postgres_uri, processes_of, team_server  # noqa: F401  (fixtures)

pytestmark = pytest.mark.slow
QUICK = ["--experiment", "team", "--features.engine", "keras"]


@pytest.fixture(scope="module")
def guarded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for a password."""
    with mlflow_server(tmp_path_factory.mktemp("guarded"), auth=True) as server:
        yield server


def extract(cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `feature_extraction` on the embedded digits as a user would, in an empty folder."""
    cwd.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tlkit.recipes.feature_extraction", *QUICK]
    given = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | environment
    return subprocess.run(command, cwd=cwd, env=given, capture_output=True, text=True, timeout=300)


def check_run(done: subprocess.CompletedProcess[str], folder: Path) -> list[Path]:
    """Find the run of a command on the server that the environment names, whole, and give all files it has there."""
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    run = mlflow.get_run(re.search(r"\b[0-9a-f]{32}\b", done.stdout)[0])
    assert run.info.status == "FINISHED"
    assert mlflow.get_experiment(run.info.experiment_id).name == "team"
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    assert run.data.tags["recipe"] == "feature_extraction"
    assert run.data.params["backbone.name"] == "LetterNet"
    assert {"test_accuracy", "test_loss", "training_seconds"} <= set(run.data.metrics)
    assert run.data.metrics["test_accuracy"] > 0.9
    kept = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, dst_path=str(folder / "run")))
    names = {path.name for path in kept.iterdir()}
    assert {"config.yaml", "split_manifest.csv", "confusion_matrix.png", "example.png"} <= names
    uri = re.search(r"models:/m-[0-9a-f]+", done.stdout)[0]
    photo = np.asarray(Image.open(kept / "example.png"), "float32")
    model = mlflow.keras.load_model(uri, dst_path=str(folder))
    answer = model.predict(photo.reshape(1, *photo.shape[:2], -1)[..., : model.input_shape[-1]], verbose=0)
    assert answer.shape == (1, 10)
    assert answer.sum() == pytest.approx(1, abs=1e-5)
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_recipe_logs_to_a_server_on_postgresql(
    folder: Path,
    team_server: Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team_server.uri)
    done = extract(folder / "work", MLFLOW_TRACKING_URI=team_server.uri)
    check_run(done, folder / "downloaded")
    assert f"{team_server.uri}/#/experiments/" in done.stdout
    assert "mlflow ui" not in done.stdout  # there is a server already
    assert not list((folder / "work").rglob("mlflow.db"))
    assert any(team_server.artifacts.rglob("confusion_matrix.png"))  # it went through the server


@pytest.mark.parametrize("inside", [False, True], ids=["variables", "URI"])
def test_a_recipe_logs_in_and_its_password_is_nowhere(
    folder: Path, guarded_server: Server, monkeypatch: pytest.MonkeyPatch, inside: bool
):
    name, password = guarded_server.user
    uri = guarded_server.uri_with_password if inside else guarded_server.uri
    login = {} if inside else {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": password}
    for key, value in ({"MLFLOW_TRACKING_URI": uri} | login).items():
        monkeypatch.setenv(key, value)
    done = extract(folder / "work", MLFLOW_TRACKING_URI=uri, **login)
    files = check_run(done, folder / "downloaded")
    assert password not in done.stdout + done.stderr
    run = mlflow.get_run(re.search(r"\b[0-9a-f]{32}\b", done.stdout)[0])
    assert password not in str(run.to_dictionary())
    files += [path for path in (folder / "work").rglob("*") if path.is_file()]
    assert not [path for path in files if password.encode() in path.read_bytes()]


@pytest.mark.parametrize("inside", [False, True], ids=["variables", "URI"])
def test_a_wrong_password_is_one_line_before_any_work(folder: Path, guarded_server: Server, inside: bool):
    wrong = "not the password"
    uri = guarded_server.uri.replace("://", "://admin:not%20the%20password@") if inside else guarded_server.uri
    login = {} if inside else {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": wrong}
    done = extract(folder / "work", MLFLOW_TRACKING_URI=uri, **login)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert guarded_server.uri in done.stderr
    assert re.search(r"401|not authenticated|password", done.stderr, re.IGNORECASE)
    assert wrong not in done.stderr
    assert "%20the%20" not in done.stderr + done.stdout
    assert "photos" not in done.stdout


def test_no_password_at_all_is_one_line(folder: Path, guarded_server: Server):
    done = extract(folder / "work", MLFLOW_TRACKING_URI=guarded_server.uri)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert guarded_server.uri in done.stderr


def test_a_server_is_killed_halted_and_started_again(tmp_path: Path):
    with mlflow_server(tmp_path) as server:
        group = server._process.pid
        assert len(processes_of(group)) >= 2  # mlflow and its worker
        server.stop()
        assert not server.answers()
        server.cont()
        assert server.answers()
        server.kill()
        assert not server.answers()
        assert not processes_of(group)
        server.start()
        assert server.answers()
        server.stop()
        group = server._process.pid
    assert not processes_of(group)  # nor where it was halted at the end
