"""What a run logs arrives whole, in order and once: after a kill, a refusal or a store that was away."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import numpy as np
import pytest
from matplotlib.figure import Figure

from tlkit import atomic, config, tracking
from tlkit.errors import InvalidInput, Unavailable
from tlkit.recipes import sync
from tlkit.tracking import journal, system_metrics

# A process that logs, and is killed before anything is sent.
KILLED = """
import os, signal
from tlkit import tracking
from tlkit.tracking import journal
tracking.open_store("trial")
with tracking.run("trial", params={}, tags={}) as run:
    journal.Journal._start = lambda self: None
    for step in (1, 2, 3):
        tracking.log_metrics({"loss": 1 / step}, step)
    tracking.log_text("kept", "notes/note.txt")
    print(run.run_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory, database: Path) -> tuple[Path, str]:
    """What a process that was killed left, and the id of its run."""
    folder = tmp_path_factory.mktemp("killed")
    shutil.copy(database, folder / "mlflow.db")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, "-c", KILLED], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    with sqlite3.connect(folder / "mlflow.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder, done.stdout.strip()


@pytest.fixture
def killed(folder: Path, left_behind: tuple[Path, str]) -> str:
    """The run of a process that was killed in this folder."""
    there, run_id = left_behind
    shutil.copy(there / "mlflow.db", folder / "mlflow.db")
    shutil.copytree(there / "mlruns", folder / "mlruns")
    (header,) = folder.glob("mlruns/unsent/*/header.json")
    header.write_text(header.read_text(encoding="utf-8").replace(str(there), str(folder)), encoding="utf-8")
    return run_id


def history(run_id: str, name: str) -> list[tuple[int, float]]:
    found = mlflow.MlflowClient().get_metric_history(run_id, name)
    return sorted((metric.step, metric.value) for metric in found)


def unsent(folder: Path) -> list[Path]:
    return list((folder / "mlruns" / "unsent").glob("*"))


def journals(folder: Path) -> list[Path]:
    return [path for path in unsent(folder) if path.is_dir()]


def test_all_that_a_run_logs_arrives_and_the_journal_goes(folder: Path):
    with tracking.run("trial", params={}, tags={}) as run:
        tracking.log_params({f"p{number}": number for number in range(250)})  # more than MLflow takes in a call
        for step in range(1, 1500):
            tracking.log_metrics({"loss": 1 / step, "accuracy": step}, step)
        tracking.set_tags({"kind": "trial"})
        tracking.log_text("text", "a/b.txt")
        tracking.log_figure(Figure(), "figure.png")
        tracking.log_table({"file": ["ä.png", "b.png"], "right": [True, False]}, "table.json")
        tracking.log_table({"n": [1]}, "other.json")
        tracking.log_inputs([{"context": "test", "name": "d", "digest": "0f", "source_type": "local", "source": "{}"}])
        assert unsent(folder)
    logged = mlflow.get_run(run.run_id)
    assert logged.info.status == "FINISHED"
    assert logged.data.params == {f"p{number}": str(number) for number in range(250)}
    assert history(run.run_id, "loss") == [(step, 1 / step) for step in range(1, 1500)]
    assert logged.data.tags["kind"] == "trial"
    client = mlflow.MlflowClient()
    assert {entry.path for entry in client.list_artifacts(run.run_id)} == {
        "a",
        "figure.png",
        "table.json",
        "other.json",
    }
    assert mlflow.artifacts.load_text(f"{logged.info.artifact_uri}/a/b.txt") == "text"
    assert client.load_table(run.experiment_id, "table.json")["file"].tolist() == ["ä.png", "b.png"]
    (dataset,) = logged.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest, dataset.tags[0].value) == ("d", "0f", "test")
    assert not tracking.journal_of(run.run_id).unsent
    assert not unsent(folder)


def test_a_short_run_has_system_metrics_only_where_the_user_asks_for_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    with tracking.run("trial", params={}, tags={}) as run:
        pass
    assert not mlflow.get_run(run.run_id).data.metrics
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    with tracking.run("trial", params={}, tags={}) as run:
        np.linalg.inv(np.random.default_rng(0).normal(size=(300, 300)))
    assert len(history(run.run_id, "system/cpu_utilization_percentage")) == 1
    assert len(history(run.run_id, "system/system_memory_usage_megabytes")) == 1
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    with tracking.run("trial", params={}, tags={}) as run:
        pass
    assert not mlflow.get_run(run.run_id).data.metrics


def test_scores_come_before_system_metrics(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(system_metrics, "SHORT", 0.3)
    monkeypatch.setattr(system_metrics, "SECONDS", 0.1)
    with tracking.run("trial", params={}, tags={}) as run:
        time.sleep(0.6)
        tracking.log_metrics({"val_accuracy": 0.5}, 1)
    assert next(iter(mlflow.get_run(run.run_id).data.metrics)) == "val_accuracy"  # MLflow preselects the first
    assert len(history(run.run_id, "system/disk_usage_percentage")) >= 2  # also of the time that was held back


def test_system_metrics_come_at_intervals(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with tracking.run("trial", params={}, tags={}) as run:
        time.sleep(0.6)
    steps = [step for step, _ in history(run.run_id, "system/disk_usage_percentage")]
    assert steps == list(range(len(steps)))
    assert 4 <= len(steps) <= 8


def test_what_is_refused_takes_nothing_with_it_and_is_kept(folder: Path, capsys: pytest.CaptureFixture):
    with tracking.run("trial", params={"depth": 3}, tags={}) as run:
        tracking.log_metrics({"loss": 1.0}, 1)
        tracking.log_params({"depth": 4})  # MLflow lets no parameter change
        tracking.log_metrics({"loss": 0.5}, 2)
    logged = mlflow.get_run(run.run_id)
    assert logged.info.status == "FINISHED"
    assert history(run.run_id, "loss") == [(1, 1.0), (2, 0.5)]
    assert logged.data.params == {"depth": "3"}
    assert tracking.journal_of(run.run_id).unsent == 1
    said = capsys.readouterr().err
    assert "refused params of the run: " in said
    assert "1 entry of the run's log is kept in mlruns/unsent/" in said
    assert "tries again; delete the folder if they are of no use" in said
    with pytest.raises(
        Unavailable, match=r"0 entries were sent, 1 could not be: .*depth"
    ):  # tried again, and kept again
        sync.run(config.Sync())
    with tracking.run("trial", params={}, tags={}, run_id=run.run_id):  # and it keeps no run from going on
        pass
    assert history(run.run_id, "loss") == [(1, 1.0), (2, 0.5)]


def test_what_a_killed_process_left_is_sent_once_and_its_run_ends_killed(
    folder: Path, killed: str, capsys: pytest.CaptureFixture
):
    run_id = killed
    assert mlflow.get_run(run_id).info.status == "RUNNING"
    assert not history(run_id, "loss")
    (left,) = journals(folder)
    with (left / "journal.jsonl").open("ab") as file:
        file.write(b'{"n": 9, "do": "metrics", "val')  # the entry at which the kill came
    assert sync.run(config.Sync()) == 5
    assert history(run_id, "loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert mlflow.artifacts.load_text(f"{mlflow.get_run(run_id).info.artifact_uri}/notes/note.txt") == "kept"
    assert mlflow.get_run(run_id).info.status == "KILLED"
    assert not unsent(folder)
    assert "sent 5 entries" in capsys.readouterr().out
    assert sync.run(config.Sync()) == 0
    assert "there is nothing to send in mlruns/unsent" in capsys.readouterr().out


def test_sync_leaves_the_end_of_a_run_that_went_on_as_it_is(folder: Path, killed: str):
    run_id = killed
    mlflow.MlflowClient().set_terminated(run_id, "FINISHED")
    sync.run(config.Sync())
    assert mlflow.get_run(run_id).info.status == "FINISHED"


def test_a_run_that_goes_on_sends_first_what_its_killed_part_left(folder: Path, killed: str):
    run_id = killed
    with tracking.run("trial", params={}, tags={}, run_id=run_id):
        assert history(run_id, "loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert mlflow.get_run(run_id).info.status == "FINISHED"
    assert not unsent(folder)


def test_a_next_run_says_that_something_is_left(folder: Path, killed: str, capsys: pytest.CaptureFixture):
    tracking.open_store("trial")
    message = "1 run has unsent entries in mlruns/unsent: send them with python -m tlkit.recipes.sync"
    assert message in capsys.readouterr().err
    tracking.open_store("trial", resuming="search")
    assert "unsent: those of this search are sent now, others by python -m" in capsys.readouterr().err


def test_a_journal_at_work_is_left_alone(folder: Path):
    with tracking.run("trial", params={}, tags={}) as run:
        (left,) = journals(folder)
        assert not journal.left()
        assert journal.resume(left) is None
        assert sync.run(config.Sync()) == 0
    assert mlflow.get_run(run.run_id).info.status == "FINISHED"


def save_model(path: Path) -> None:
    path.mkdir()
    mlflow.models.Model(flavors={"none": {}}).save(str(path / "MLmodel"))
    (path / "weights").write_text("weights", encoding="utf-8")


def test_a_model_is_logged_once_although_the_kill_came_before_that_was_noted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    before = folder / "before"
    with tracking.run("trial", params={"depth": 3}, tags={}) as run:
        tracking.log_metrics({"loss": 1.0}, 1)
        tracking.log_model(save_model, step=1)
        uri = tracking.deliver()
        (left,) = journals(folder)
        shutil.copytree(left, before)
        state = json.loads((before / "state.json").read_text(encoding="utf-8"))
        assert state.pop("model_uri") == uri
        (before / "state.json").write_text(json.dumps({**state, "next": 0}), encoding="utf-8")
    shutil.copytree(before, left)  # as if the process had been killed before it wrote its state
    sync.run(config.Sync())
    found = mlflow.search_logged_models([run.experiment_id], output_format="list")
    assert [model.model_uri for model in found] == [uri]
    assert found[0].status.name == "READY"
    assert found[0].source_run_id == run.run_id
    assert found[0].params["depth"] == "3"
    assert {metric.key: metric.value for metric in found[0].metrics} == {"loss": 1.0}
    assert history(run.run_id, "loss") == [(1, 1.0)]
    assert (Path(mlflow.artifacts.download_artifacts(uri)) / "weights").read_text(encoding="utf-8") == "weights"


def test_a_folder_that_cannot_be_written_is_one_line_before_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "mlruns").write_text("no folder", encoding="utf-8")
    with (
        pytest.raises(Unavailable, match=r"cannot write to .*mlruns/unsent/"),
        tracking.run("trial", params={}, tags={}),
    ):
        pytest.fail("it ran")
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.info.status == "FAILED"


@pytest.fixture
def small_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk of 20 MB as the working folder, with the store elsewhere."""
    disk = folder / "disk"
    disk.mkdir()
    mount, umount = (shutil.which(name) or "none" for name in ("mount", "umount"))
    command = [mount, "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a disk can be mounted by root alone, and not in every container")
    monkeypatch.chdir(disk)
    yield disk
    monkeypatch.chdir(folder)
    subprocess.run([umount, "-l", disk], check=True)


def fill(disk: Path, left: int = 0) -> None:
    """Fill a disk but for so many bytes."""
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - left))


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_a_folder_that_takes_nothing_is_refused_before_anything_is_begun(small_disk: Path, state: str):
    if state == "full":
        fill(small_disk)
    else:
        subprocess.run([shutil.which("mount"), "-o", "remount,ro", small_disk], check=True)
    before = sorted(small_disk.iterdir())
    with pytest.raises(Unavailable, match=r"cannot write to .*unsent: (No space|Read-only)|0.0 MB of room left"):
        tracking.open_store("trial")
    assert sorted(small_disk.iterdir()) == before
    assert mlflow.search_runs(search_all_experiments=True).empty


def test_a_model_that_has_no_room_is_refused_before_it_is_trained(small_disk: Path):
    journal.check_room(journal.ROOM + 4e6)
    with pytest.raises(Unavailable, match=r"has 2\d\.\d MB of room left, and the run needs 45.0 MB: make room"):
        journal.check_room(journal.ROOM + 4e7)


def test_a_disk_that_fills_up_names_the_folder_and_loses_no_metric(small_disk: Path, capfd: pytest.CaptureFixture):
    def work() -> None:
        tracking.log_metrics({"loss": 1.0}, 1)
        fill(small_disk)
        tracking.log_metrics({"loss": 2.0}, 2)
        with tracking.artifact("picture.png") as path:
            path.write_bytes(bytes(2 * 10**6))

    says = r"cannot keep picture.png of the run in .*disk/mlruns/unsent/.*: No space left"
    with pytest.raises(Unavailable, match=says), tracking.run("trial", params={}, tags={}) as run:
        work()
    assert history(run.run_id, "loss") == [(1, 1.0), (2, 2.0)]
    full = pytest.raises(OSError, match=r"No space left on device: '\S*disk/full.npz'")
    with full, atomic.writing(small_disk / "full.npz") as file:
        file.write(bytes(10**6))
    assert "Traceback" not in capfd.readouterr().err


def test_a_full_disk_costs_no_metric(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    with tracking.run("trial", params={}, tags={}) as run:
        (left,) = journals(folder)
        (left / "journal.jsonl").mkdir()  # nothing can be written to it
        for step in (1, 2):
            tracking.log_metrics({"loss": float(step)}, step)
    assert history(run.run_id, "loss") == [(1, 1.0), (2, 2.0)]
    assert capsys.readouterr().err.count("cannot keep what the run logs in") == 1


def test_what_came_after_the_disk_was_full_is_sent_after_a_kill(folder: Path, killed: str):
    (left,) = journals(folder)
    lines = (left / "journal.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (left / "journal.jsonl").write_text(
        "".join(lines[2:]), encoding="utf-8"
    )  # the first two were in memory alone, and have been sent
    (left / "state.json").write_text(json.dumps({"next": 2, "refused": []}), encoding="utf-8")
    sync.run(config.Sync())
    assert history(killed, "loss") == [(3, 1 / 3)]


def test_an_end_is_not_written_into_half_a_line(folder: Path, killed: str, monkeypatch: pytest.MonkeyPatch):
    (left,) = journals(folder)
    with (left / "journal.jsonl").open("ab") as file:
        file.write(b'{"n": 9, "do": "metrics", "val')
    monkeypatch.setattr(sync, "PATIENCE", 0.5)
    with monkeypatch.context() as away:
        away.setattr(journal.Journal, "_send", lambda *_: (_ for _ in ()).throw(OSError("away")))
        with pytest.raises(Unavailable, match="0 entries were sent, 5 could not be: away"):
            sync.run(config.Sync())
    assert [json.loads(line)["do"] for line in (left / "journal.jsonl").read_text(encoding="utf-8").splitlines()][
        -1
    ] == "end"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("header.json", ""),
        ("header.json", '{"run_id": 3}'),
        ("state.json", '{"next": "many"}'),
        ("state.json", "[]"),
        ("state.json", '{"next": 0, "refused": ["x"]}'),
        ("state.json", '{"next": true, "refused": []}'),
        ("state.json", '{"next": 0, "refused": [], "model_uri": "models:/../../x"}'),
        ("state.json", '{"next": 0, "refused": [], "registered": {"name": "a"}}'),
        ("header.json", '{"a":' * 100_000),
        ("state.json", "[" * 500 + "]" * 500),
        ("header.json", '{"run_id": "/etc", "experiment_id": "1", "uri": "sqlite:///x"}'),
        ("header.json", '{"run_id": "0", "experiment_id": "..", "uri": "sqlite:///x"}'),
    ],
    ids=str,
)
def test_a_damaged_journal_does_not_stop_the_others(folder: Path, killed: str, capsys, name: str, content: str):
    (left,) = journals(folder)
    damaged = shutil.copytree(left, left.with_name("a" * 32))
    (damaged / name).write_text(content, encoding="utf-8")
    with pytest.raises(Unavailable, match=r"5 entries were sent, 0 could not be: .* is not a journal of a run"):
        sync.run(config.Sync())
    assert history(killed, "loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    with tracking.run("trial", params={}, tags={}, run_id=killed):
        pass


@pytest.mark.parametrize("name", ["header.json", "state.json", "journal.jsonl"])
def test_links_in_a_strangers_journal_are_not_followed(folder: Path, killed: str, name: str):
    (left,) = journals(folder)
    text = (left / name).read_bytes() + b"half a line" if (left / name).exists() else b'{"next": 0, "refused": []}'
    (folder / "thesis.txt").write_bytes(text)
    (left / name).unlink(missing_ok=True)
    (left / name).symlink_to(folder / "thesis.txt")
    with pytest.raises(Unavailable, match=f"is not a journal of a run: {name} is a link or not a file"):
        sync.run(config.Sync())
    assert (folder / "thesis.txt").read_bytes() == text


@pytest.mark.parametrize("state", ['{"next": 99, "refused": []}', '{"next": 0, "refused": [77]}'])
def test_a_state_that_does_not_fit_its_journal_is_no_crash(folder: Path, killed: str, state: str):
    (left,) = journals(folder)
    (left / "state.json").write_text(state, encoding="utf-8")
    sync.run(config.Sync())
    assert mlflow.get_run(killed).info.status == "KILLED"


def test_lines_and_entries_that_cannot_be_are_left_out(folder: Path, killed: str, capsys: pytest.CaptureFixture):
    (left,) = journals(folder)
    with (left / "journal.jsonl").open("a", encoding="utf-8") as file:
        file.write('no entry\n{"n": 7, "do": "dance"}\n{"n": 8, "do": "metrics"}\n')
    with pytest.raises(Unavailable, match="could not be"):
        sync.run(config.Sync())
    said = capsys.readouterr().err
    assert "journal.jsonl: 2 damaged lines left out" in said
    assert "cannot send 'dance'" in said
    assert history(killed, "loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert mlflow.get_run(killed).info.status == "KILLED"


WRONG = [
    {"do": "metrics", "values": [], "step": 1, "time": 1},
    {"do": "metrics", "values": {"loss": "low"}, "step": 1, "time": 1},
    {"do": "metrics", "values": {"loss": 1}, "step": "1", "time": 1},
    {"do": "metrics", "values": {"loss": 1}, "step": -1, "time": 1},
    {"do": "metrics", "values": {"loss": 1}, "step": 1, "time": 2**80},
    {"do": "tags", "values": {"a": {}}},
    {"do": "tags", "values": 3},
    {"do": "inputs", "values": ["x"]},
    {"do": "artifact", "file": 3, "to": ""},
    {"do": "model", "file": "files/a", "name": "m", "step": 0, "key": "' OR '1'='1"},
    {"do": "end", "status": "DONE", "time": 1},
    {"do": 3},
    {"n": -1, "do": "leave"},
    {"n": 7.5, "do": "leave"},
    {"n": True, "do": "leave"},
    [],
]


def test_entries_of_the_wrong_type_are_left_out_and_told_in_one_line(folder: Path, killed: str, capsys):
    (left,) = journals(folder)
    with (left / "journal.jsonl").open("a", encoding="utf-8") as file:
        for number, entry in enumerate(WRONG, 100):
            file.write(json.dumps({"n": number, **entry} if isinstance(entry, dict) else entry) + "\n")
        file.write('{"n": 200, "do": "tags", "values":' + "[" * 100_000 + "\n")
    sync.run(config.Sync())
    assert f"journal.jsonl: {len(WRONG) + 1} damaged lines left out" in capsys.readouterr().err
    assert history(killed, "loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert mlflow.get_run(killed).info.status == "KILLED"


@pytest.mark.parametrize(
    "place", ["a\0b", "files/" + "x" * 5000, "../../../secret.txt", "/etc/hostname", "files/link", "files", "."]
)
def test_a_strangers_journal_takes_no_file_from_elsewhere(folder: Path, killed: str, capsys, place: str):
    (folder / "secret.txt").write_text("secret", encoding="utf-8")
    (left,) = journals(folder)
    (left / "files" / "link").symlink_to(folder / "secret.txt")
    with (left / "journal.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"n": 7, "do": "artifact", "file": place, "to": ""}) + "\n")
        file.write(json.dumps({"n": 8, "do": "model", "file": place, "name": "m", "step": 0, "key": "k"}) + "\n")
    with pytest.raises(Unavailable, match=r"2 could not be: .*is not in the journal"):
        sync.run(config.Sync())
    client = mlflow.MlflowClient()
    assert [entry.path for entry in client.list_artifacts(killed)] == ["notes"]
    assert not mlflow.search_logged_models([mlflow.get_run(killed).info.experiment_id], output_format="list")


def test_a_journal_does_not_choose_the_server(folder: Path, killed: str):
    (header,) = folder.glob("mlruns/unsent/*/header.json")
    header.write_text(
        json.dumps({**json.loads(header.read_text(encoding="utf-8")), "uri": "http://elsewhere.example.org"}),
        encoding="utf-8",
    )
    with pytest.raises(Unavailable, match=r"belongs to http://elsewhere.example.org: set MLFLOW_TRACKING_URI to that"):
        sync.run(config.Sync())
    assert journals(folder)


def test_a_journal_of_a_store_that_has_gone_makes_none(folder: Path, killed: str):
    (header,) = folder.glob("mlruns/unsent/*/header.json")
    header.write_text(
        json.dumps({**json.loads(header.read_text(encoding="utf-8")), "uri": f"sqlite:///{folder}/gone.db"}),
        encoding="utf-8",
    )
    with pytest.raises(Unavailable, match=r"belongs to sqlite:////.*gone.db"):
        sync.run(config.Sync())
    assert not (folder / "gone.db").exists()


def test_sync_takes_the_folder_that_a_run_has_named(folder: Path, killed: str):
    (left,) = journals(folder)
    assert sync.run(config.Sync(str(left))) == 5


class Away(journal.Journal):
    """A journal whose store takes everything but models: it fails in the middle of each, again and again."""

    def _send_model(self, *_: object) -> None:
        for _ in range(3):
            self._progress()
        raise OSError("no room on the server")


@pytest.mark.slow
def test_a_model_that_never_arrives_is_not_waited_for_longer(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal, "Journal", Away)
    monkeypatch.setattr(journal, "PAUSES", (0.01,))
    began = time.monotonic()
    with tracking.run("trial", params={}, tags={}) as run:
        tracking.log_model(save_model)
        (big,) = folder.glob("mlruns/unsent/*/files/*/model")
        (big / "weights").write_bytes(bytes(50_000_000))  # for which a line that works would get 50 s
        assert tracking.deliver() is None
    assert time.monotonic() - began < journal.PATIENCE + 4
    kept = tracking.journal_of(run.run_id)
    assert kept.reason == "no room on the server"
    with kept._changed:
        kept._queue.clear()


def test_two_threads_track_a_run_each(folder: Path):
    def log(name: str) -> str:
        with tracking.run("trial", params={}, tags={}) as run:
            both.wait(20)
            tracking.log_metrics({name: 1.0})
            both.wait(20)
        return run.run_id

    both = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(log, ["a", "b"]))
    for run_id, name in zip(runs, "ab", strict=True):
        assert {key for key in mlflow.get_run(run_id).data.metrics if "/" not in key} == {name}


def test_a_joined_run_is_not_ended_by_sync(folder: Path):
    with mlflow.start_run() as outer:
        with tracking.run("trial", params={}, tags={}):
            tracking.log_params({"depth": 3})
            tracking.log_params({"depth": 4})  # refused, so that the journal stays
        with pytest.raises(Unavailable):
            sync.run(config.Sync())
        assert mlflow.get_run(outer.info.run_id).info.status == "RUNNING"


def test_no_password_is_written_down(folder: Path):
    kept = journal.begin("http://me:secret@127.0.0.1:9", "0" * 32, "1")
    assert "secret" not in "".join(path.read_text(encoding="utf-8") for path in kept.folder.iterdir())
    assert kept.close()


def test_a_file_whose_writing_fails_leaves_nothing(folder: Path):
    with tracking.run("trial", params={}, tags={}) as run:
        with contextlib.suppress(RuntimeError), tracking.artifact("half.txt") as path:
            path.write_text("half", encoding="utf-8")
            raise RuntimeError("out of luck")
        assert not list(journals(folder)[0].rglob("half.txt"))
    assert not mlflow.MlflowClient().list_artifacts(run.run_id)


def test_a_folder_that_is_not_there_is_wrong_usage(folder: Path):
    with pytest.raises(InvalidInput, match="there is no folder 'elsewhere'"):
        sync.run(config.Sync("elsewhere"))


LOGS = """
import sys
from tlkit import tracking
tracking.open_store("trial")
with tracking.run("trial", params={"number": sys.argv[1]}, tags={}) as run:
    for step in range(200):
        tracking.log_metrics({"loss": step / 7, "accuracy": step / 3}, step)
    tracking.log_text("kept", "note.txt")
"""


@pytest.mark.slow
def test_four_processes_that_log_to_one_store_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    children = [
        subprocess.Popen([sys.executable, "-c", LOGS, str(number)], cwd=tmp_path, env=environment)
        for number in range(4)
    ]
    assert [child.wait(120) for child in children] == [0] * 4
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert sorted(run.data.params["number"] for run in runs) == ["0", "1", "2", "3"]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert history(run.info.run_id, "loss") == [(step, step / 7) for step in range(200)]
        assert history(run.info.run_id, "accuracy") == [(step, step / 3) for step in range(200)]
        assert [entry.path for entry in mlflow.MlflowClient().list_artifacts(run.info.run_id)] == ["note.txt"]
    assert not unsent(tmp_path)
