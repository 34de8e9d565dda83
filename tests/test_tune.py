"""Searches from the command line to MLflow: trials in processes of their own, killed and gone on with, by several."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import mlflow
import psutil
import pytest
import yaml
from conftest import write_sounds

from tlkit import cli, config, tuning, untrusted
from tlkit.config import space
from tlkit.errors import InvalidInput
from tlkit.recipes import _search, _search_summary, _search_trials, _worker, train, tune

TINY = {
    "recipe": "train",
    "trials": 4,
    "output": "out",
    "space": {
        "builder": {"filters": {"int": [2, 4], "repeat": [1, 2]}, "norm": {"bool": True}},
        "full": {"epochs": 2, "learning_rate": {"float": [1e-3, 1e-2], "log": True}},
        "augment": {"rotation": 0, "zoom": 0, "shift": 0, "brightness": 0, "contrast": 0},
    },
}


def settings(**changes):
    return {**TINY, **changes}


def call(folder: Path, *argv: str, **changes) -> int:
    (folder / "search.yaml").write_text(yaml.safe_dump(settings(**changes)), encoding="utf-8")
    return cli.call(config.Tune, tune.run, ["--config", "search.yaml", *argv])


def start(folder: Path, *argv: str, environment: dict[str, str] | None = None) -> subprocess.Popen:
    (folder / "search.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    command = [sys.executable, "-u", "-m", "tlkit.recipes.tune", "--config", "search.yaml", *argv]
    with (folder / "out.txt").open("ab") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **(environment or {})})


def nested(parent: str) -> dict[str, mlflow.entities.Run]:
    query = f"tags.`mlflow.parentRunId` = '{parent}'"
    found = mlflow.search_runs(search_all_experiments=True, filter_string=query, output_format="list")
    runs = {run.data.tags["trial"]: run for run in found}
    assert len(runs) == len(found), "a trial has two runs"
    return runs


def searches() -> list[mlflow.entities.Run]:
    query = "tags.recipe = 'tune'"
    return mlflow.search_runs(search_all_experiments=True, filter_string=query, output_format="list")


def steps(run: mlflow.entities.Run, name: str = "val_loss") -> list[int]:
    return [entry.step for entry in mlflow.MlflowClient().get_metric_history(run.info.run_id, name)]


def table(run: mlflow.entities.Run) -> list[list]:
    return mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/trials.json")["data"]


def state(folder: Path) -> dict:
    return json.loads((folder / "out" / "search.json").read_text(encoding="utf-8"))


def trials(folder: Path) -> dict[str, tuple]:
    """What each trial tried, and its score."""
    return {
        one["trial_id"]: (
            {key: value for key, value in one["hyperparameters"]["values"].items() if key != tuning.RUN_ID},
            one["score"],
        )
        for one in state(folder)["trials"]
    }


@pytest.mark.slow
def test_a_search_from_the_command_line(folder: Path, capsys: pytest.CaptureFixture):
    # On 8 x 8 pixels two parts with batch normalization have 4 * 9 * 4 + ... parameters: some are rejected.
    assert call(folder, "--max_parameters", "150", "--executions", "2") == 0
    out = capsys.readouterr().out
    (parent,) = searches()
    runs = nested(parent.info.run_id)
    assert sorted(runs) == ["0", "1", "2", "3"]
    failed = [run for run in runs.values() if run.info.status == "FAILED"]
    finished = [run for run in runs.values() if run.info.status == "FINISHED"]
    assert len(failed) + len(finished) == 4
    assert failed
    assert finished
    names = {"builder.filters.count", "builder.filters.1", "builder.filters.2", "builder.norm", "full.learning_rate"}
    for run in finished:
        assert set(run.data.params) == names
        assert steps(run) == [1, 2]
        assert {"best_val_accuracy", "best_val_loss", "best_epoch", "training_seconds"} <= set(run.data.metrics)
        assert not any(name.startswith("test_") for name in run.data.metrics)
    for run in failed:
        assert re.fullmatch(r"rejected: \d+ parameters, and max_parameters is 150", run.data.tags["failure"])

    best = max(finished, key=lambda run: (run.data.metrics["best_val_accuracy"], -int(run.data.tags["trial"])))
    assert {name: parent.data.params[name] for name in names} == best.data.params
    assert parent.data.metrics["best_val_accuracy"] == best.data.metrics["best_val_accuracy"]
    assert parent.data.tags["best_trial"] == best.data.tags["trial"]
    assert parent.data.metrics["trials_ended"] == 4
    assert steps(parent, "trials_ended") == [1, 2, 3, 4]
    assert parent.info.status == "FINISHED"
    artifacts = {entry.path for entry in mlflow.MlflowClient().list_artifacts(parent.info.run_id)}
    assert {"space.yaml", "config.yaml", "trials.json", "parallel_coordinates.png", "best_out.yaml"} <= artifacts
    assert {"split_manifest.csv", "predictions.json"} <= artifacts
    assert {one.tags[0].value for one in parent.inputs.dataset_inputs} == {"training", "validation", "test"}
    assert (parent.data.tags["kind"], parent.data.tags["backbone"]) == ("photos", "cnn")
    assert [row[0] for row in table(parent)] == [best.data.tags["trial"], *(row[0] for row in table(parent)[1:])]
    assert sorted(row[0] for row in table(parent)) == ["0", "1", "2", "3"]

    recipe = folder / "out" / "recipes" / "train" / "best_out.yaml"
    assert f"-m tlkit.recipes.train --config {recipe.relative_to(folder)} --seed 1" in out
    assert "\n4/4 trial " in out
    assert "optimistic, as the trial was chosen by it" in out
    assert len(list((folder / "out" / "trials").glob("*/model.keras"))) == 1
    said = [
        line for line in out.split("Next:")[0].splitlines() if not line.startswith("  run ") and "failed:" not in line
    ]
    assert max(map(len, said)) <= 80
    capsys.readouterr()
    assert cli.call(config.Train, train.run, ["--config", str(recipe)]) == 0
    again = capsys.readouterr().out
    score = f"test accuracy  {parent.data.metrics['test_accuracy']:.4f}"
    assert score in again  # the recipe file gives what the search says of it
    assert score in out

    seed = yaml.safe_load(recipe.read_text(encoding="utf-8")).get("seed", 0)
    results = json.loads(
        (folder / "out" / "trials" / best.data.tags["trial"] / "result.json").read_text(encoding="utf-8")
    )
    assert seed == results["scores"].index(max(results["scores"]))  # of the execution whose model it is

    same = ("--max_parameters", "150", "--executions", "2")
    assert call(folder, *same) == 0  # nothing is left to do
    assert "the search in out has ended" in capsys.readouterr().out
    assert len(searches()) == 1
    known = json.loads((folder / "out" / "search.json").read_text(encoding="utf-8"))
    del known["best"]  # killed after its end was logged, before it was known
    (folder / "out" / "search.json").write_text(json.dumps(known), encoding="utf-8")
    assert call(folder, *same) == 0
    (parent,) = searches()
    assert "test accuracy" in capsys.readouterr().out
    assert all(len(steps(parent, name)) == len(set(steps(parent, name))) for name in parent.data.metrics)
    assert len(mlflow.search_logged_models([parent.info.experiment_id], f"source_run_id = '{parent.info.run_id}'")) == 1
    assert len(table(parent)) == 4

    assert call(folder, "--max_parameters", "200", "--executions", "2") == 2
    assert "has other settings: max_parameters: 150 -> 200; give the old ones" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"space": {}}, "space is {}; it must have a setting with a range"),
        ({"space": {"full": {"epochs": 3}}}, "space has no range"),
        (
            {"space": {"full": {"epoch": {"int": [1, 3]}}}},
            "space: unknown setting full.epoch; did you mean full.epochs",
        ),
        ({"space": {"builder": {"pool": {"choice": ["max", "sum"]}}}}, "space: builder.pool: expected one of max"),
        ({"space": {"full": {"learning_rate": {"float": [-1.0, 1.0]}}}}, "full.learning_rate is -1.0"),
        ({"space": {"seed": {"choice": [1, 2]}}}, "space.seed cannot be tuned: give --seed outside the space"),
        (
            {"space": {"data": {"val_fraction": 0.1}, "full": {"epochs": {"int": [1, 3]}}}},
            "space.data.val_fraction cannot be tuned: give --data.val_fraction outside the space",
        ),
        ({"workers": 0}, "workers is 0: KERASTUNER_ORACLE_IP must then say"),
        ({"trials": 0}, "trials is 0; it must be 1 or more"),
        ({"data": {"path": "nowhere"}}, "data.path is 'nowhere'; there is no such file or folder"),
        ({"algorithm": "hyperband", "executions": 2}, "executions is 2; with --algorithm hyperband it must be 1"),
        (
            {"algorithm": "hyperband", "space": {"full": {"epochs": {"int": [1, 3]}}}},
            "space.full.epochs is 1 or 3: hyperband itself chooses how long",
        ),
        (
            {"algorithm": "hyperband", "recipe": "finetune", "space": {"full": {"epochs": {"choice": [None, 5]}}}},
            "space.full.epochs is None or 5: hyperband itself chooses how long",
        ),
        ({"space": {"builder": {"name": {"choice": ["cnn", "lenet9"]}}}}, "builder.name is 'lenet9'"),
    ],
)
def test_wrong_usage_is_one_line_before_anything_runs(folder: Path, capsys, changes: dict, says: str):
    assert call(folder, **changes) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (folder / "out" / "search.json").exists()


def test_data_are_split_before_a_worker_begins(folder: Path, photos: Path, capsys):
    assert call(folder, "--data.path", str(photos), "--data.val_as_test", "true") == 2
    assert "val_as_test" in capsys.readouterr().err
    write_sounds(folder / "sounds", {"high": 9, "low": 9})
    space = {"full": {"epochs": {"int": [1, 2]}}}
    assert call(folder, "--data.path", "sounds", recipe="finetune", space=space) == 2
    assert "which holds sounds; a pretrained backbone takes photos" in capsys.readouterr().err
    assert not (folder / "out" / "workers").exists()


def test_groups_of_settings_are_broken_at_80_columns():
    found = space.parse(
        yaml.safe_load((Path(__file__).parents[1] / "recipes/tune/finetune.yaml").read_text(encoding="utf-8"))["space"]
    )
    values = {one.name: (one.options() or (one.high,))[0] for one in found.ranges}
    lines = _search_summary.trial_lines(found, values)
    assert max(map(len, lines)) <= 70
    assert "backbone {name: MobileNet, alpha: 0.75}" in lines[0]


@pytest.mark.parametrize(
    ("changes", "runs"),
    [
        ({"trials": 12}, 12 / 4),
        ({"trials": 12, "executions": 2}, 24 / 4),
        ({"algorithm": "grid", "trials": None}, 3),
        ({"algorithm": "hyperband", "trials": None}, 20 / 4),
        ({"trials": 2}, 1),
    ],
)
def test_how_many_runs_share_a_frozen_part(changes: dict, runs: float):
    choices = {
        "backbone": {"choice": [{"name": "MobileNet"}, {"name": "MobileNetV2"}]},
        "batch_size": {"choice": [8, 9, 7]},
    }
    given = {**choices, "full": {"unfreeze_from": {"choice": ["stage3", "stage4"]}}}
    assert _search.sharing(cli.from_settings(config.Tune, {"space": given, **changes})) == runs


def test_a_search_that_goes_on_forgets_why_it_stopped(folder: Path):
    from tlkit import tracking

    with pytest.raises(KeyboardInterrupt), tracking.run("tlkit", params={}, tags={}) as run:
        raise KeyboardInterrupt
    client = mlflow.MlflowClient()
    assert "failure" in client.get_run(run.run_id).data.tags
    with tracking.run("tlkit", params={}, tags={}, run_id=run.run_id):
        pass
    assert "failure" not in client.get_run(run.run_id).data.tags
    assert client.get_run(run.run_id).info.status == "FINISHED"


def test_a_worker_needs_to_know_its_chief(folder: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker1")
    assert call(folder) == 2
    assert "KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT must say where its chief is" in capsys.readouterr().err
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "1")
    assert call(folder) == 1
    assert "is not the folder of the search: start the chief first" in capsys.readouterr().err


def test_two_chiefs_of_one_search(folder: Path, capsys):
    import filelock

    (folder / "out").mkdir()
    with filelock.FileLock(folder / "out" / "lock"):
        assert call(folder) == 1
    assert "another process is running the search in out" in capsys.readouterr().err


def test_a_file_that_is_no_search_is_left_alone(folder: Path, capsys):
    (folder / "out").mkdir()
    (folder / "out" / "search.json").write_text("{", encoding="utf-8")
    assert call(folder) == 2
    assert "out/search.json is not the state of a search" in capsys.readouterr().err
    assert (folder / "out" / "search.json").read_text(encoding="utf-8") == "{"


def trial(name: str, run_id: str, **values):
    own = {"builder.filters.count": 1, "builder.filters.1": 2, "builder.norm": True, "full.learning_rate": 0.01}
    return SimpleNamespace(
        trial_id=name, hyperparameters=SimpleNamespace(values={**own, tuning.RUN_ID: run_id, **values})
    )


def run_trial(folder: Path, name: str = "0", score: float | None = None, **changes):
    """Run a trial in this process; gives its result and its run, begun outside as the chief does."""
    values = changes.pop("values", {})
    search = cli.from_settings(config.Tune, settings(**changes))
    best = [] if score is None else [SimpleNamespace(status="COMPLETED", score=score)]
    client = mlflow.MlflowClient()
    where = client.get_experiment_by_name("tlkit")
    run = client.create_run(where.experiment_id if where else client.create_experiment("tlkit"))
    oracle = SimpleNamespace(get_best_trials=lambda count: best)
    given = _worker.run_trial(search, folder / "trials", trial(name, run.info.run_id, **values), oracle)
    return given, client.get_run(run.info.run_id), folder / "trials" / name


@pytest.mark.slow
def test_executions_are_averaged(folder: Path):
    given, run, left = run_trial(folder, executions=2)
    scores = json.loads((left / "result.json").read_text(encoding="utf-8"))["scores"]
    assert len(set(scores)) == 2
    assert given == {"val_accuracy": pytest.approx(sum(scores) / 2)}
    assert run.data.metrics["best_val_accuracy"] == pytest.approx(sum(scores) / 2)
    assert run.data.metrics["best_val_accuracy_sd"] == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5)
    assert steps(run) == steps(run, "execution2.val_loss") == [1, 2]
    assert yaml.safe_load((left / "config.yaml").read_text(encoding="utf-8"))["seed"] == 0


@pytest.mark.slow
def test_the_objective_may_be_any_of_keras_metrics(folder: Path):
    given, run, left = run_trial(folder, objective="loss", score=0.0)
    kept = json.loads((left / "result.json").read_text(encoding="utf-8"))["epochs"][
        int(run.data.metrics["best_epoch"]) - 1
    ]
    assert given == {"loss": kept["loss"]}
    assert not (left / "model.keras").exists()  # 0 is the lower loss: this one cannot be the best


@pytest.mark.slow
def test_hyperband_goes_on_from_the_checkpoint(folder: Path):
    values = {"tuner/epochs": 1, "tuner/initial_epoch": 0}
    _, first, _ = run_trial(folder, "0", values=values)
    values = {"tuner/epochs": 2, "tuner/initial_epoch": 1, "tuner/trial_id": "0"}
    given, second, left = run_trial(folder, "1", values=values)
    whole, third, _ = run_trial(folder, "2")
    assert (steps(first), steps(second), steps(third)) == ([1], [2], [1, 2])
    assert given == pytest.approx(whole)  # as if it had never stopped
    assert (left / "model.keras").exists()


@pytest.mark.thorough
def test_a_trial_begun_again_logs_no_epoch_twice(folder: Path, monkeypatch: pytest.MonkeyPatch):
    client = mlflow.MlflowClient()
    where = client.create_experiment("tlkit")
    run = client.create_run(where)
    client.log_metric(run.info.run_id, "loss", 9.0, step=1)  # of the process that was killed in its second epoch
    monkeypatch.setattr(client.__class__, "create_run", lambda *_: run)
    run_trial(folder)
    assert steps(run, "loss") == [1, 2]
    run_trial(folder)  # killed after its last line, before the chief knew
    assert steps(run, "loss") == [1, 2]
    assert len(steps(run, "best_val_accuracy")) == 1


def test_reasons_of_failures(folder: Path):
    one = trial("7", "")
    _worker.failed(folder, one, InvalidInput("the network has no stage9"))
    assert _search_trials.record_failure(folder.parent, SimpleNamespace(trial_id="x", message="killed")) == "killed"
    (folder / "trials").mkdir()
    (folder / "7").rename(folder / "trials" / "7")
    failed = SimpleNamespace(trial_id="7", message=None)
    assert _search_trials.record_failure(folder, failed) == failed.message == "the network has no stage9"
    _worker.failed(folder, one, MemoryError("9 GB"))
    assert (folder / "7" / "failure.txt").read_text(encoding="utf-8") == "MemoryError: 9 GB"
    assert "MemoryError" in (folder / "7" / "log.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_killed_search_goes_on_and_leaves_what_an_undisturbed_one_does(folder: Path):
    (folder / "whole").mkdir()
    assert start(folder, "--output", "whole/out").wait() == 0
    for begun in (1, 2, 3):
        process = start(folder)
        while process.poll() is None:
            time.sleep(0.05)
            with contextlib.suppress(OSError):
                if len(state(folder)["trials"]) >= begun:
                    break
        time.sleep(0.5)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert start(folder).wait() == 0
    assert trials(folder) == trials(folder / "whole")
    for parent in searches():
        runs = nested(parent.info.run_id)
        assert sorted(runs) == ["0", "1", "2", "3"]
        for run in runs.values():
            assert run.info.status == "FINISHED"
            assert all(len(steps(run, name)) == len(set(steps(run, name))) for name in run.data.metrics)
    assert len(searches()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [(), ("--cluster", "local:2")], ids=["here", "dask"])
def test_two_workers_and_one_of_them_is_killed(folder: Path, cluster: tuple[str, ...]):
    process = start(folder, "--workers", "2", "--trials", "6", *cluster)
    busy: dict[str, str] = {}
    for _ in range(1200):
        time.sleep(0.05)
        with contextlib.suppress(OSError):
            busy = state(folder)["oracle"]["ongoing_trials"]
        running = [path for path in Path("/proc").glob("[0-9]*/cmdline") if _is_worker(path, folder)]
        if len(busy) == len(running) == 2:
            break
    lost = int(running[0].parent.name)
    os.kill(psutil.Process(lost).ppid() if cluster else lost, signal.SIGKILL)  # with a cluster, that of Dask
    assert process.wait(300) == 0
    left = state(folder)
    assert [one["status"] for one in left["trials"]] == ["COMPLETED"] * 6
    # One was begun twice. Dask starts a worker of the same name again, and the chief gives it its trial again.
    assert sorted(left["oracle"]["run_times"].values()) == [1] * 5 + [1 if cluster else 2]
    (parent,) = searches()
    assert all(run.info.status == "FINISHED" for run in nested(parent.info.run_id).values())
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if _is_worker(path, folder)]


def _is_worker(path: Path, folder: Path) -> bool:
    try:
        words = path.read_bytes().split(b"\0")
    except OSError:
        return False
    return b"tlkit.recipes._worker" in words and str(folder / "out").encode() in words


@pytest.mark.slow
def test_a_worker_elsewhere(folder: Path):
    """As on another machine: the same command with keras-tuner's variables."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
    chief = start(folder, "--workers", "0", environment={**address, "KERASTUNER_TUNER_ID": "chief"})
    while not (folder / "out" / "search.yaml").exists():
        time.sleep(0.2)
        assert chief.poll() is None
    other = start(folder, environment={**address, "KERASTUNER_TUNER_ID": "worker1"})
    try:
        assert chief.wait(300) == 0
        assert other.wait(120) == 0
    finally:
        chief.kill()
        other.kill()
    assert [one["status"] for one in state(folder)["trials"]] == ["COMPLETED"] * 4


@pytest.mark.slow
def test_trials_share_what_is_frozen(folder: Path, photos: Path):
    space = {
        "backbone": {"name": "LetterNet"},
        "head": {"epochs": 2, "dropout": {"choice": [0.0, 0.2]}},
        "full": {"epochs": 2, "unfreeze_from": "stage3", "stored": True, "layer_decay": {"choice": [0.5, 1.0]}},
        "augment": {"flip": False, "rotation": 0, "zoom": 0, "shift": 0, "brightness": 0, "contrast": 0},
    }
    changes = {"recipe": "finetune", "algorithm": "grid", "trials": None, "space": space}
    assert call(folder, "--data.path", str(photos), **changes) == 0
    said = [(path / "log.txt").read_text(encoding="utf-8") for path in sorted((folder / "out" / "trials").iterdir())]
    assert len(said) == 4
    computed = [re.findall(r"([\d,]+) computed", text) for text in said]
    assert all(int(count) > 0 for count in computed[0])
    assert [set(counts) for counts in computed[1:]] == [{"0"}] * 3
    assert cli.call(config.Finetune, lambda made: None, ["--config", "out/recipes/finetune/best_out.yaml"]) == 0


FILE = """
recipe: train
space:
  seed: 3
  full:
    epochs: 5
    learning_rate: {float: [1e-4, 1e-2], log: true}
    warmup: {choice: [0, 0.1]}
  builder.dropout: {float: [0, 0.5]}
  builder: {filters: {int: [8, 64], step: 8, repeat: [1, 3]}, norm: true}
"""


@pytest.mark.parametrize(
    ("argv", "changed"),
    [
        ("--space.full.epochs 1", {"full.epochs": 1}),
        ("--space.full.epochs=1 --space.full.warmup 1e-1", {"full.epochs": 1, "full.warmup": 0.1}),
        ("--space.full.learning_rate '{choice: [1e-3]}'", {"full.learning_rate": {"choice": [1e-3]}}),
        ("--space.full '{epochs: {int: [1, 3]}}'", {"full.epochs": {"int": [1, 3]}}),
        ("--space '{full: {epochs: 1}, builder.norm: no}'", {"full.epochs": 1, "builder.norm": False}),
        ("--space.builder.filters '[8, 16]'", {"builder.filters": [8, 16]}),
        ("--space.builder.filters '{choice: [[8], [16]]}'", {"builder.filters": {"choice": [[8], [16]]}}),
        ("--space.builder.filters.step 4", {"builder.filters": {"int": [8, 64], "step": 4, "repeat": [1, 3]}}),
        ("--space.builder.dropout null --space.builder.name cnn", {"builder.dropout": None, "builder.name": "cnn"}),
        ("--config other.yaml --space.seed 4", {"full.epochs": 2, "full.patience": 3, "seed": 4}),
    ],
)
def test_a_flag_changes_one_setting_of_a_files_space_and_keeps_its_type(argv: str, changed: dict, folder: Path):
    (folder / "search.yaml").write_text(FILE, encoding="utf-8")
    (folder / "other.yaml").write_text("space.full.epochs: 2\nspace: {full.patience: 3}\n", encoding="utf-8")
    seen = []
    assert cli.call(config.Tune, lambda made: seen.append(made), ["--config", "search.yaml", *shlex.split(argv)]) == 0
    wanted = {**space.named(untrusted.parse_yaml(FILE, "FILE")["space"]), **changed}
    found = space.named(seen[0].space)
    assert found == wanted
    assert {name: type(value) for name, value in found.items()} == {name: type(value) for name, value in wanted.items()}
    assert space.parse(seen[0].space) == space.parse({name: wanted[name] for name in found})


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--space.full.epochs", "[1"], "--space.full.epochs: it is not YAML"),
        (["--space.full", "{epochs: &a 1}"], "--space.full: &a is an anchor or alias of YAML"),
        (["--space", "3"], "--space: expected a mapping such as {NAME: 1}, got '3'"),
        (["--epochs", "3"], "unknown setting epochs; did you mean space.full.epochs (the second phase"),
        (["--full.epochs", "3"], "unknown setting full.epochs; did you mean space.full.epochs?"),
    ],
)
def test_a_wrong_setting_of_the_space_is_one_line(argv: list[str], says: str, folder: Path, capsys):
    assert call(folder, *argv) == 2
    assert says in capsys.readouterr().err
