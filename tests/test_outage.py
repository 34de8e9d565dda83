"""A tracking server that is killed in the middle of a run, halted or away at its end costs nothing but time.

The server is a real `mlflow server` on a real PostgreSQL, its artifacts proxied.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from servers import Server, mlflow_server, postgres_uri  # noqa: F401  a fixture

pytestmark = pytest.mark.slow

FINETUNE = ["finetune", "--head.solved", "false", "--head.epochs", "0", "--full.epochs", "5", "--batch_size", "16"]
FINETUNE += ["--backbone.weights", "none"]
EPOCHS = 5
CURVES = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


@pytest.fixture
def server(tmp_path: Path, postgres_uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:  # noqa: F811
    with mlflow_server(tmp_path / "server", postgres_uri) as running:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", running.uri)
        yield running


class Recipe:
    """A recipe in a process of its own, whose lines are watched."""

    def __init__(self, folder: Path, uri: str, *argv: str, on: dict[str, Callable[[], None]] | None = None):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        environment |= {"MLFLOW_TRACKING_URI": uri, "PYTHONUNBUFFERED": "1"}
        self.lines: list[tuple[float, str]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tlkit.recipes." + argv[0], *argv[1:]],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._on = dict(on or {})
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line))
            for start in [start for start in self._on if line.startswith(start)]:
                self._on.pop(start)()

    def wait(self) -> tuple[int, str]:
        try:
            status = self.process.wait(300)
        finally:
            self.process.kill()
            self._reader.join()
            self.process.stdout.close()
        return status, "".join(line for _, line in self.lines)

    def at(self, start: str) -> float:
        return next(moment for moment, line in self.lines if line.startswith(start))


def epoch(number: int) -> str:
    return f"full {f'{number}/{EPOCHS}':>9}"


def the_run() -> mlflow.entities.Run:
    return mlflow.search_runs(search_all_experiments=True, output_format="list", max_results=1)[0]


def assert_whole(run_id: str) -> None:
    """The run has all metrics, each once and at its step, its artifacts, its model and the right end."""
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    for name in CURVES:
        found = client.get_metric_history(run_id, name)
        assert [metric.step for metric in found] == list(range(1, EPOCHS + 1)), name
        moments = [metric.timestamp for metric in found]
        assert moments == sorted(moments)
        assert moments[-1] <= run.info.end_time
    for name in ("test_accuracy", "test_loss", "training_seconds", "parameters", "best_epoch"):
        assert len(client.get_metric_history(run_id, name)) == 1, name
    names = {entry.path for entry in client.list_artifacts(run_id)}
    assert {
        "config.yaml",
        "split_manifest.csv",
        "predictions.json",
        "confusion_matrix.png",
        "worst_mistakes.png",
    } <= names
    assert {one.tags[0].value for one in run.inputs.dataset_inputs} == {"training", "validation", "test"}
    assert "accuracy" in run.data.tags["mlflow.note.content"]
    (model,) = mlflow.search_logged_models(
        [run.info.experiment_id], f"source_run_id = '{run_id}'", output_format="list"
    )
    assert model.status.name == "READY"
    assert mlflow.keras.load_model(model.model_uri).output_shape == (None, 10)


def test_a_server_that_is_killed_in_epoch_2_and_back_in_epoch_4_has_all(tmp_path: Path, server: Server):
    again = threading.Thread(target=server.start)
    recipe = Recipe(tmp_path, server.uri, *FINETUNE, on={epoch(2): server.kill, epoch(4): again.start})
    status, said = recipe.wait()
    again.join()
    assert status == 0, said
    assert "is not accepting entries" in said
    if (tmp_path / "mlruns" / "unsent").exists():  # it took longer to start than the run to end
        assert sync(tmp_path, server.uri)[0] == 0
    assert_whole(the_run().info.run_id)
    assert not (tmp_path / "mlruns" / "unsent").exists()


def sync(folder: Path, uri: str) -> tuple[int, str]:
    return Recipe(folder, uri, "sync").wait()


def test_a_server_that_comes_back_after_the_end_has_all_by_sync(tmp_path: Path, server: Server):
    recipe = Recipe(tmp_path, server.uri, *FINETUNE, "--register", "digits", on={epoch(2): server.kill})
    status, said = recipe.wait()
    assert status == 0, said
    assert "Traceback" not in said
    assert "is not accepting entries (nothing listens there); the run" in said or "(the connection was closed)" in said
    assert "  digits: not registered yet, as the store did not answer; " in said
    assert re.search(r"\d+ entries of the run's log are kept in mlruns/unsent/", said)
    assert "python -m tlkit.recipes.sync" in said
    # The model can be used before the server is back.
    kept = re.search(r"tlkit\.recipes\.predict (\S+\.keras) FILE", said)
    assert (tmp_path / kept[1]).is_file()

    status, told = sync(tmp_path, server.uri)
    assert status == 1
    assert "error: " in told.splitlines()[-1]
    assert "Traceback" not in told
    server.start()
    assert the_run().info.status == "RUNNING"
    status, told = sync(tmp_path, server.uri)
    assert status == 0, told
    assert "  digits version 1, champion: there was no champion to compare with\n" in told
    assert_whole(the_run().info.run_id)
    assert not (tmp_path / "mlruns" / "unsent").exists()


def test_a_server_that_is_halted_delays_neither_the_epochs_nor_the_end(tmp_path: Path, server: Server):
    recipe = Recipe(tmp_path, server.uri, *FINETUNE, on={epoch(2): server.stop})
    status, said = recipe.wait()
    ended = time.monotonic()
    server.cont()
    assert status == 0, said
    waits = [recipe.at(epoch(number + 1)) - recipe.at(epoch(number)) for number in (1, 2, 3, 4)]
    assert max(waits[1:]) < 3 * waits[0] + 2, waits
    assert ended - recipe.at(epoch(5)) < 30  # scoring, pictures, and some seconds for the server
    assert sync(tmp_path, server.uri)[0] == 0
    assert_whole(the_run().info.run_id)


def test_a_killed_run_on_a_server_that_is_away_is_sent_too_and_ends_killed(tmp_path: Path, server: Server):
    recipe = Recipe(tmp_path, server.uri, *FINETUNE)
    recipe._on = {epoch(2): server.kill, epoch(4): lambda: recipe.process.send_signal(signal.SIGKILL)}
    assert recipe.wait()[0] == -signal.SIGKILL
    server.start()
    assert sync(tmp_path, server.uri)[0] == 0
    run = the_run()
    assert run.info.status == "KILLED"
    for name in CURVES:
        steps = [metric.step for metric in mlflow.MlflowClient().get_metric_history(run.info.run_id, name)]
        assert steps in ([1, 2, 3], [1, 2, 3, 4])  # the line is printed just before the epoch is logged
