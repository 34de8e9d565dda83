"""MLflow runs: the store is created whole, runs are joined or ended with the right state, names and steps are right."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import servers
from keras_tuner import HyperParameters
from keras_tuner.src.engine.trial import Trial
from mlflow.exceptions import MlflowException
from sklearn.neighbors import KNeighborsClassifier

from tlkit import autolog, probes, tracking, tuning
from tlkit.errors import InvalidInput, Unavailable
from tlkit.tracking import database, journal
from tlkit.training import checkpoints


def status(run_id: str) -> str:
    return mlflow.get_run(run_id).info.status


def test_a_run_has_parameters_and_tags_and_ends_finished(folder: Path):
    with tracking.run("trial", run_name="first", params={"head.epochs": 3}, tags={"recipe": "finetune"}) as run:
        assert status(run.run_id) == "RUNNING"
    logged = mlflow.get_run(run.run_id)
    assert logged.info.status == "FINISHED"
    assert logged.info.run_name == "first"
    assert logged.data.params == {"head.epochs": "3"}
    assert logged.data.tags["recipe"] == "finetune"
    assert mlflow.get_experiment(run.experiment_id).name == "trial"


def test_a_run_without_a_name_is_called_by_what_it_is_and_a_number(folder: Path):
    def named(title: str, **arguments: Any) -> str | None:
        with tracking.run("trial", params={}, tags={}, title=title, **arguments) as run:
            pass
        return mlflow.get_run(run.run_id).info.run_name

    title = "finetune MobileNet 0.75 100%_'of\" it"
    assert [named(title), named(title), named("tune train digits")] == [
        f"{title} #1",
        f"{title} #2",
        "tune train digits #1",
    ]
    named(title, run_name=f"{title} #41")
    gone = mlflow.search_runs(experiment_names=["trial"], output_format="list")[0]
    mlflow.delete_run(gone.info.run_id)
    assert named(title) == f"{title} #42"
    assert named(title, aside="comparisons") == f"{title} #1"
    assert mlflow.get_experiment_by_name("trial comparisons") is not None


def test_a_run_lasts_as_long_as_its_work(folder: Path):
    with tracking.run("trial", params={}, tags={}, began=time.time() - 60) as run, mlflow.start_run(nested=True):
        pass
    info = mlflow.get_run(run.run_id).info
    assert 60 <= (info.end_time - info.start_time) / 1000 < 70


COMMAND = """
import sys, time
from pathlib import Path
from tlkit import cli, startup, tracking
from tlkit.config import Sync

def run(config):
    time.sleep(1.5)
    with tracking.run("trial", params={}, tags={}):
        with tracking.run("trial", params={}, tags={}, nested=True, title="part"):
            pass

if __name__ == "__main__":
    cli.main(Sync, run)
"""


@pytest.mark.thorough
def test_a_run_of_a_command_begins_with_it_and_has_the_commit_of_the_folder(folder: Path):
    commit = ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "--allow-empty", "-m", "first"]
    git = shutil.which("git") or pytest.skip("git is not installed")
    for words in (["init", "-q", "."], commit):
        subprocess.run([git, *words], cwd=folder, check=True)
    head = subprocess.run([git, "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True).stdout
    (folder / "command.py").write_text(COMMAND, encoding="utf-8")
    subprocess.run([sys.executable, "command.py"], cwd=folder, check=True, timeout=120)
    part, whole = sorted(
        mlflow.search_runs(experiment_names=["trial"], output_format="list"), key=lambda run: -run.info.start_time
    )
    assert part.info.run_name == "part #1"
    assert [run.data.tags["mlflow.source.git.commit"] for run in (part, whole)] == [head.strip()] * 2
    assert whole.info.end_time - whole.info.start_time >= 1500 > part.info.end_time - part.info.start_time
    assert part.data.tags["mlflow.parentRunId"] == whole.info.run_id


def test_a_run_that_is_copied_as_the_docs_say_describes_the_copy(folder: Path, database: Path):
    guide = (Path(__file__).parents[1] / "docs" / "guides" / "team_server.md").read_text(encoding="utf-8")
    code = next(part for part in guide.split("```python\n")[1:] if "def copy_run" in part).partition("```")[0]
    shutil.copy(database, folder / "other.db")
    source, target = (mlflow.MlflowClient(f"sqlite:///{folder}/{name}.db") for name in ("mlflow", "other"))
    with tracking.run("trial", params={"seed": 1}, tags={}, title="train cnn digits") as run:
        tracking.set_tags({"mlflow.note.content": f"predict runs:/{run.run_id}/model"})
        tracking.log_text("text", "note.txt")
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102  our own words
    copied = names["copy_run"](run.run_id, source, target, "0")
    logged = target.get_run(copied)
    assert logged.data.tags["mlflow.note.content"] == f"predict runs:/{copied}/model"
    assert (logged.info.run_name, logged.data.params) == ("train cnn digits #1", {"seed": "1"})


def test_links_and_comparisons_take_in_no_parts_of_other_runs(folder: Path):
    ids = []
    with (
        tracking.run("trial", params={}, tags={"recipe": "tune"}) as search,
        tracking.run("trial", params={}, tags={"recipe": "finetune"}, nested=True),
    ):
        pass
    for recipe in ("inspect", "evaluate", "finetune"):
        with tracking.run("trial", params={}, tags={"recipe": recipe}) as run:
            ids.append(run.run_id)
    assert tracking.recent_runs(search.experiment_id, 4) == [ids[-1], search.run_id]


def test_a_run_in_no_repository_has_no_commit(folder: Path):
    with tracking.run("trial", params={}, tags={}) as run:
        pass
    assert "mlflow.source.git.commit" not in mlflow.get_run(run.run_id).data.tags


def test_a_run_goes_beside_the_experiment_that_mlflow_is_set_to(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")  # MLflow sets it too
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)
    mlflow.set_experiment("mine")
    with tracking.run("trial", params={}, tags={"a": "b"}, title="part", aside="comparisons") as run:
        pass
    logged = mlflow.get_run(run.run_id)
    assert mlflow.get_experiment(run.experiment_id).name == "mine comparisons"
    assert (logged.info.run_name, logged.data.tags["a"]) == ("part #1", "b")


def test_a_run_that_fails_ends_failed_with_its_reason(folder: Path):
    with pytest.raises(RuntimeError), tracking.run("trial", params={}, tags={}) as run:
        raise RuntimeError("out of luck")
    assert status(run.run_id) == "FAILED"
    assert mlflow.get_run(run.run_id).data.tags["failure"] == "RuntimeError: out of luck"


def test_an_interrupted_run_ends_killed(folder: Path):
    with pytest.raises(KeyboardInterrupt), tracking.run("trial", params={}, tags={}) as run:
        raise KeyboardInterrupt
    assert status(run.run_id) == "KILLED"


def test_an_active_run_is_joined_and_left_open(folder: Path):
    with mlflow.start_run() as outer:
        with tracking.run("trial", params={"seed": 1}, tags={}) as run:
            assert run.run_id == outer.info.run_id
        assert status(outer.info.run_id) == "RUNNING"
        with pytest.raises(RuntimeError), tracking.run("trial", params={}, tags={}):
            raise RuntimeError("out of luck")
        assert status(outer.info.run_id) == "RUNNING"
    assert mlflow.get_run(outer.info.run_id).data.params == {"seed": "1"}


def test_an_active_run_with_other_parameters_is_refused_by_their_name(folder: Path):
    with mlflow.start_run() as active:
        with tracking.run("trial", params={"seed": 0, "head.epochs": 3}, tags={}):
            pass
        with (
            pytest.raises(InvalidInput, match=rf"{active.info.run_id} has seed 0 already, and .* to be 1: .*nested"),
            tracking.run("trial", params={"seed": 1, "head.epochs": 3}, tags={}),
        ):
            pass
        with tracking.run("trial", params={"seed": 0, "head.epochs": 3}, tags={}):
            pass


@pytest.mark.thorough
def test_autologging_is_suspended_around_our_own_fits_and_then_on_again(folder: Path):
    features, labels = np.eye(2, dtype=np.float32)[[0, 1] * 10], [0, 1] * 10
    mlflow.sklearn.autolog(silent=False)
    try:
        probes.nearest_neighbours(features, labels)
        assert mlflow.search_runs(search_all_experiments=True).empty
        with autolog.suspended():
            with autolog.suspended():
                pass
            KNeighborsClassifier().fit(features, labels)
        assert mlflow.search_runs(search_all_experiments=True).empty
        KNeighborsClassifier().fit(features, labels)
        assert len(mlflow.search_runs(search_all_experiments=True)) == 1
    finally:
        mlflow.sklearn.autolog(disable=True)


@pytest.mark.parametrize("tables", ["[", "{}", "[" * 2000])
def test_a_joined_runs_tag_that_lists_no_tables_is_written_anew(folder: Path, tables: str):
    active = mlflow.start_run(tags={"mlflow.loggedArtifacts": tables})
    with tracking.run("trial", params={}, tags={}):
        tracking.log_table({"a": [1]}, "a.json")
    tags = mlflow.get_run(active.info.run_id).data.tags
    assert tags["mlflow.loggedArtifacts"] == '[{"path": "a.json", "type": "table"}]'


def test_the_environments_experiment_wins(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    with tracking.run("ours", params={}, tags={}) as run:
        pass
    assert mlflow.get_experiment(run.experiment_id).name == "theirs"


def test_a_deleted_experiment_is_one_line(folder: Path):
    client = mlflow.MlflowClient()
    client.delete_experiment(client.create_experiment("gone"))
    with (
        pytest.raises(InvalidInput, match="'gone' was deleted; restore it, or give another --experiment"),
        tracking.run("gone", params={}, tags={}),
    ):
        pass


def test_run_names_differ_although_the_seed_is_the_same(folder: Path):
    names = []
    for _ in range(2):
        random.seed(0)
        with tracking.run("trial", params={}, tags={}) as run:
            names.append(mlflow.get_run(run.run_id).info.run_name)
        assert random.random() == random.Random(0).random()  # and the seed still holds for everything else
    assert names[0] != names[1]


def create(path: str) -> None:
    database.create_database(Path(path))


@pytest.mark.slow
def test_four_processes_create_one_store(tmp_path: Path):
    path = tmp_path / "mlflow.db"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=create, args=(str(path),)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert [entry.name for entry in tmp_path.iterdir()] == ["mlflow.db"]
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("SELECT name FROM experiments").fetchall() == [("Default",)]


def test_a_store_that_cannot_be_created_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(database, "_migrate", fail)
    with pytest.raises(Unavailable, match=r"cannot create .*mlflow\.db: No space left on device; change to a folder"):
        database.create_database(tmp_path / "mlflow.db")
    assert not list(tmp_path.iterdir())


def test_a_store_that_is_no_store_is_one_line(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "note.db").write_text("this is a note and not a database, however long it is", encoding="utf-8")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/note.db")
    with pytest.raises(Unavailable, match=r"\Acannot open the MLflow store [^\n]+ is not a database\Z"):
        tracking.open_store("trial")


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql+nosuchdriver://me:secret@127.0.0.1/mlflow",
        "http://me:secret@[bad",
        "http://me:secret@localhost:abc",
        "sqlite:////",
        "nonsense://x",
    ],
)
def test_a_uri_that_is_none_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch, uri: str):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(Unavailable, match=r"\A[^\n]+\Z") as caught:
        tracking.open_store("trial")
    assert "secret" not in str(caught.value)


def test_a_store_with_a_query_in_its_uri_is_created_under_its_name(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db?timeout=3")
    tracking.open_store("trial")
    assert (tmp_path / "other.db").is_file()
    assert not list(tmp_path.glob("*timeout*"))


def test_the_store_may_be_read_by_whom_the_umask_allows(tmp_path: Path):
    database.create_database(tmp_path / "mlflow.db")
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "mlflow.db").stat().st_mode & 0o777 == 0o666 & ~umask


def test_what_the_store_refuses_in_mid_run_is_one_line_without_a_password(folder: Path):
    refusal = MlflowException("API request to http://me:secret@127.0.0.1:9/api failed\nwith more")
    with (
        pytest.raises(Unavailable, match=r"\Athe MLflow store [^\n]+ refused: API request to http://127[^\n]+\Z"),
        tracking.run("trial", params={}, tags={}) as run,
    ):
        raise refusal
    assert status(run.run_id) == "FAILED"
    assert "secret" not in mlflow.get_run(run.run_id).data.tags["failure"]


def test_a_server_that_does_not_answer_is_one_line_without_its_password(monkeypatch: pytest.MonkeyPatch, folder: Path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    message = r"MLflow server http://127\.0\.0\.1:9 does not answer: nothing listens there; start it"
    with pytest.raises(Unavailable, match=message) as caught:
        tracking.open_store("trial")
    assert "secret" not in str(caught.value)


STRANGE = [
    "{folder}/victim",
    "..",
    "../victim",
    "%2e%2e%2fvictim",
    "a" * 5000,
    "C:\\\\victim",
    "a/b",
    "nul",
    "a' OR '1'='1",
]


@pytest.mark.parametrize("name", ["run_id", "experiment_id", "artifact_uri"])
@pytest.mark.parametrize("strange", STRANGE, ids=range(len(STRANGE)))
def test_a_servers_identifier_never_becomes_a_path(folder: Path, monkeypatch, name: str, strange: str):
    (folder / "victim").mkdir()
    (folder / "victim" / "thesis.txt").touch()
    strange = strange.format(folder=folder)
    if name == "artifact_uri" and "\\" in strange:
        pytest.skip("a URI of Windows, which MLflow takes for a scheme here")
    before = sorted(folder.rglob("*"))
    with servers.hostile(**{name: strange}) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with (
            pytest.raises(Unavailable, match=r"the MLflow server (is|wants)|the MLflow store .* refused"),
            tracking.run("tlkit", params={}, tags={}),
        ):
            pass
        assert mlflow.active_run() is None
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("variable", ["MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"])
def test_an_identifier_of_the_environment_is_checked_too(folder: Path, monkeypatch, variable: str):
    monkeypatch.setenv(variable, "../../x")
    with pytest.raises(InvalidInput, match=f"^{variable} is '../../x'; it must be 1 to 128 letters"):
        tracking.open_store("tlkit")
    with pytest.raises(InvalidInput, match=f"^{variable} is '../../x'"), tracking.run("tlkit", params={}, tags={}):
        pass


@pytest.mark.parametrize("strange", ["/etc", "..", "a/b", ""])
def test_no_path_is_made_of_what_is_no_identifier(folder: Path, strange: str):
    for make in (checkpoints.begin, lambda text: journal.begin("sqlite:///x", text, "1")):
        with pytest.raises(InvalidInput, match="the run's id is"):
            make(strange)
    assert not (folder / "mlruns").exists()


def test_a_chiefs_trial_never_becomes_a_path(folder: Path):
    ran: list[str] = []
    worker = tuning.Worker(lambda trial, _: ran.append(trial) or {}, lambda *_: None, "val_loss", 3, folder / "trials")
    with pytest.raises(InvalidInput, match=r"the chief's trial is '../../../etc'"):
        worker.run_trial(Trial(HyperParameters(), trial_id="../../../etc"))
    assert not ran


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are always Unicode")
def test_a_working_folder_that_is_not_utf8_is_refused_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    there = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9"))
    there.mkdir()
    monkeypatch.chdir(there)
    words = r"the working folder is .*/caf\\xe9, which is not UTF-8: .* rename it"
    with pytest.raises(InvalidInput, match=words):  # artifacts of a new experiment would be there
        tracking.open_store("new")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(InvalidInput, match=words):
        tracking.open_store("new")
    assert not list(there.iterdir())


@pytest.mark.thorough
def test_the_store_of_a_folder_whose_name_has_blanks_lies_in_it_and_nothing_beside_it(tmp_path: Path, database: Path):
    inside = tmp_path / "my é 100% work"
    inside.mkdir()
    shutil.copy(database, inside / "mlflow.db")
    code = """
    from tlkit import tracking
    tracking.open_store("trial")
    with tracking.run("trial", params={"a": 1}, tags={}) as run:
        print(run.run_id)
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=inside, env=environment, capture_output=True, text=True, check=True)
    assert [path.name for path in tmp_path.iterdir()] == [inside.name]
    with contextlib.closing(sqlite3.connect(inside / "mlflow.db")) as connection:
        assert connection.execute("SELECT run_uuid, status FROM runs").fetchall() == [(done.stdout.strip(), "FINISHED")]


@pytest.mark.thorough
def test_a_command_imports_mlflow_without_its_gateway_which_can_be_imported_later():
    lines = (
        "import sys",
        "from tlkit import startup",
        "startup.COMMAND.append('finetune')",
        "import tlkit.tracking",
        "assert 'fastapi' not in sys.modules",
        "import mlflow.gateway",
        "assert mlflow.gateway.get_gateway_uri and 'fastapi' in sys.modules",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, timeout=120)
