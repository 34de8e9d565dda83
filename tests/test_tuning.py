"""The chief of a search: spaces, oracles that go on where they were, trials given back, workers over gRPC."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time

import grpc
import keras
import keras_tuner
import numpy as np
import pytest
from keras_tuner.src.engine.trial import Trial

from tlkit import tracking, tuning
from tlkit.config import space
from tlkit.errors import Unavailable

SPACE = space.parse(
    {
        "filters": {"int": [8, 32], "step": 8, "repeat": [1, 3]},
        "rate": {"float": [1e-4, 1e-2], "log": True},
        "norm": {"bool": True},
        "pool": {"choice": ["max", "average"], "when": {"norm": True}},
        "network": {"choice": [{"name": "a", "alpha": 0.5}, {"name": "b"}]},
        "dropout": {"float": [0.0, 0.5], "step": 0.1},
    }
)
STEPS = space.parse({"dropout": {"float": [0.0, 0.3], "step": 0.1}, "units": {"int": [8, 64], "log": True}})
SMALL = space.parse({"norm": {"bool": True}, "units": {"choice": [1, 2, 3], "when": {"norm": True}}})


def oracle(path, algorithm="random", found=SPACE, trials=12, **given):
    made = tuning.oracle(algorithm, found, "val_accuracy", path / "search.json", trials=trials, **given)
    made.begin = lambda trial: f"run {trial.trial_id}"
    return made


def values(trial):
    return {name: value for name, value in trial.hyperparameters.values.items() if name != tuning.RUN_ID}


def score(trial):
    """Some number that the settings decide."""
    return (sum(map(ord, json.dumps(values(trial), sort_keys=True))) % 997) / 997


def end(made, trial, result=None):
    made.update_trial(trial.trial_id, {"val_accuracy": score(trial) if result is None else result})
    trial.status = "COMPLETED"
    made.end_trial(trial)


def searched(made, limit=200):
    for _ in range(limit):
        trial = made.create_trial("worker")
        if trial.status == "STOPPED":
            return made
        assert trial.status == "RUNNING"
        end(made, Trial.from_proto(trial.to_proto()))  # as it comes back from a worker
    raise AssertionError("the search did not end")


def note(trial, ended):
    """Say nothing."""


def test_ranges_reach_keras_tuner_and_come_back():
    hp, dropouts = tuning.register(SPACE), set()
    for seed in range(30):
        sample = keras_tuner.HyperParameters()
        for one in hp.space:
            sample.merge([one])
            if sample.is_active(one):
                sample.values[one.name] = one.random_sample(seed)
        copied = keras_tuner.HyperParameters.from_proto(sample.to_proto()).values  # as it goes to a worker
        settings = SPACE.settings(copied)
        assert 1 <= len(settings["filters"]) <= 3
        assert all(width in (8, 16, 24, 32) for width in settings["filters"])
        assert 1e-4 <= settings["rate"] <= 1e-2
        assert isinstance(settings["norm"], bool)
        assert ("pool" in settings) == settings["norm"]
        dropouts.add(settings["dropout"])
        assert settings["network"] in ({"name": "a", "alpha": 0.5}, {"name": "b"})
    assert dropouts == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}


def test_keras_tuner_prints_nothing_for_a_condition(capsys):
    tuning.register(SPACE).to_proto()
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_hypermodel_in_a_keras_tuner_search(tmp_path):
    class Noted(keras.callbacks.Callback):
        seen: list[int] = []  # noqa: RUF012 (of all copies)

        def on_epoch_end(self, epoch, logs=None):
            self.seen.append(epoch)

    x, y = np.random.default_rng(0).random((32, 8, 8, 1)), np.arange(32) % 4
    settings = {
        "filters": {"int": [2, 4], "repeat": [1, 2]},
        "kernel_size": {"choice": [3, 5], "repeat": "filters"},
        "learning_rate": {"float": [1e-3, 1e-2], "log": True},
    }
    model = tuning.HyperModel((8, 8, 1), 4, settings=settings)
    tuner = keras_tuner.RandomSearch(model, "val_accuracy", max_trials=2, seed=1, directory=tmp_path, project_name="s")
    with tracking.run("tests", params={}, tags={}) as run:
        tuner.search(x, y, epochs=2, validation_data=(x, y), verbose=0, callbacks=[tracking.epoch_logger(), Noted()])
    import mlflow

    history = mlflow.MlflowClient().get_metric_history(run.run_id, "val_loss")
    assert [entry.step for entry in history] == [1, 2, 1, 2]
    assert Noted.seen == [0, 1, 0, 1]
    best = tuner.get_best_hyperparameters()[0].values
    built = tuner.hypermodel.build(tuner.get_best_hyperparameters()[0])
    assert built.get_layer("stem_conv1").kernel.shape[-1] == best["filters.1"]
    assert built.get_layer("stem_conv1").kernel.shape[0] == best["kernel_size.1"]
    assert float(built.optimizer.learning_rate) == pytest.approx(best["learning_rate"])


def test_hypermodel_of_a_landmark():
    values = keras_tuner.HyperParameters()
    model = tuning.HyperModel((32, 32, 1), 10, "lenet5").build(values)
    assert model.count_params() == 61_706
    assert list(values.values) == ["learning_rate"]


@pytest.mark.parametrize(
    ("algorithm", "space_"), [("random", SPACE), pytest.param("bayesian", STEPS, marks=pytest.mark.slow)]
)
def test_a_seed_decides_the_trials(tmp_path, algorithm, space_):
    found = []
    for number, seed in enumerate((0, 0, 1)):
        (tmp_path / str(number)).mkdir()
        made = searched(oracle(tmp_path / str(number), algorithm, space_, 8, seed=seed))
        found.append([values(trial) for trial in made.trials.values()])
    assert found[0] == found[1] != found[2]
    assert len(found[0]) == 8


CASES = [
    ("random", SPACE, {}),
    ("bayesian", space.parse({"rate": {"float": [0.0, 1.0]}, "norm": {"bool": True}}), {"trials": 5}),
    ("grid", SMALL, {"trials": None}),
    ("grid", STEPS, {"trials": None}),
    ("hyperband", SPACE, {"trials": None, "epochs": 9}),
]


@pytest.mark.parametrize(("algorithm", "found", "given"), CASES, ids=[f"{case[0]}{n}" for n, case in enumerate(CASES)])
def test_a_search_goes_on_where_it_was_killed(tmp_path, algorithm, found, given):
    """A kill is a new oracle on the file of the old one, here before every third step on average."""
    (tmp_path / "whole").mkdir()
    whole = searched(oracle(tmp_path / "whole", algorithm, found, **given))
    chance, kills, ends = random.Random(1), 0, []
    made, trial, done = oracle(tmp_path, algorithm, found, **given), None, False
    while not done:
        if chance.random() < 0.3:
            made, trial, kills = oracle(tmp_path, algorithm, found, **given), None, kills + 1
        if trial is None:
            trial = made.create_trial("worker")
            done = trial.status == "STOPPED"
        else:
            end(made, Trial.from_proto(trial.to_proto()))
            ends.append(trial.trial_id)
            trial = None
    assert kills >= 3
    assert sorted(ends) == sorted(made.trials)  # each once
    assert {one.status for one in oracle(tmp_path, algorithm, found, **given).trials.values()} == {"COMPLETED"}
    assert {key: values(trial) for key, trial in made.trials.items()} == {
        key: values(trial) for key, trial in whole.trials.items()
    }
    assert [trial.trial_id for trial in tuning.best_first(made)] == [
        trial.trial_id for trial in tuning.best_first(whole)
    ]
    if algorithm == "grid":
        assert len(whole.trials) == (
            4 if found is SMALL else 4 * len({values(one)["units"] for one in whole.trials.values()})
        )
    if algorithm == "hyperband":
        assert any("tuner/trial_id" in trial.hyperparameters.values for trial in whole.trials.values())


def test_a_kill_within_the_end_of_a_trial(tmp_path, monkeypatch):
    """keras-tuner writes the end of a trial while the trial still counts as running."""
    made = oracle(tmp_path)
    trial, states = made.create_trial("worker"), []
    save = made.save

    def copied():
        save()
        states.append((tmp_path / "search.json").read_text(encoding="utf-8"))

    monkeypatch.setattr(made, "save", copied)
    end(made, Trial.from_proto(trial.to_proto()))
    assert len(states) >= 2
    for state in states:
        (tmp_path / "search.json").write_text(state, encoding="utf-8")
        again = oracle(tmp_path)
        assert again.trials[trial.trial_id].status == "COMPLETED"
        assert again.create_trial("worker").trial_id != trial.trial_id


def test_a_grid_goes_on_after_a_trial_that_kills_its_process(tmp_path):
    made = oracle(tmp_path, "grid", SMALL, None)
    for name in "ab":
        made.create_trial(name)
        made.give_back(name, "killed")
    assert [trial.status for trial in searched(made).trials.values()] == ["FAILED", *["COMPLETED"] * 3]


@pytest.mark.slow
def test_bayesian_optimization_optimizes_and_never_repeats_a_failure(tmp_path):
    made = oracle(tmp_path, "bayesian", space.parse({"rate": {"float": [0.0, 1.0]}}), 20)
    tried = []
    for number in range(20):
        trial = made.create_trial("worker")
        tried.append(trial.hyperparameters.values["rate"])
        if number % 3 == 2:
            trial.status = "FAILED"
            made.end_trial(trial)
        else:
            end(made, trial, 1 - (tried[-1] - 0.7) ** 2)
    assert len(set(tried)) == 20
    assert np.median(np.abs(np.array(tried[10:]) - 0.7)) < 0.1


def test_hyperband_replaces_what_fails_in_its_first_round(tmp_path):
    made = oracle(tmp_path, "hyperband", SPACE, None, epochs=9)
    for number in range(100):
        trial = made.create_trial("worker")
        if trial.status == "STOPPED":
            break
        if number % 3 == 0 and number < 9:
            trial.status = "FAILED"
            made.end_trial(trial)
        else:
            end(made, trial)
    rounds = [trial.hyperparameters.values["tuner/round"] for trial in made.trials.values()]
    undisturbed = searched(oracle(tmp_path / "..", "hyperband", SPACE, None, epochs=9)).trials.values()
    assert len(rounds) == len(undisturbed) + 3
    assert sum(n > 0 for n in rounds) == sum(one.hyperparameters.values["tuner/round"] > 0 for one in undisturbed)


def test_the_state_is_never_half_written(tmp_path, monkeypatch):
    made = oracle(tmp_path)
    end(made, made.create_trial("worker"))
    before = (tmp_path / "search.json").read_bytes()

    def fails(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space left"):
        made.save()
    assert (tmp_path / "search.json").read_bytes() == before
    monkeypatch.undo()
    assert [trial.status for trial in oracle(tmp_path).trials.values()] == ["COMPLETED"]


def test_a_trial_is_given_back_once_and_then_failed(tmp_path):
    made = oracle(tmp_path)
    first = made.create_trial("a")
    made.give_back("a", "its process was killed (SIGKILL)")
    again = made.create_trial("b")
    assert again.trial_id == first.trial_id
    assert values(again) == values(first)
    made.give_back("b", "its process was killed (SIGKILL)")
    assert made.create_trial("c").trial_id != first.trial_id
    assert (made.trials[first.trial_id].status, made.end_order) == ("FAILED", [first.trial_id])
    assert made.trials[first.trial_id].message == "its process was killed (SIGKILL)"
    made.give_back("nobody", "")
    reloaded = oracle(tmp_path)
    assert reloaded.trials[first.trial_id].message == "its process was killed (SIGKILL)"


def test_a_worker_that_was_thought_lost_and_comes_back(tmp_path):
    made = oracle(tmp_path)
    late = Trial.from_proto(made.create_trial("a").to_proto())
    made.give_back("a", "nothing was heard")
    other = Trial.from_proto(made.create_trial("b").to_proto())
    end(made, late, 0.75)
    end(made, other, 0.25)  # the same trial again: ignored
    assert made.end_order == [late.trial_id]
    assert made.ongoing_trials == {}
    assert made.trials[late.trial_id].score == 0.75
    third = made.create_trial("c")
    assert third.trial_id != late.trial_id

    made.give_back("c", "nothing was heard")
    end(made, Trial.from_proto(third.to_proto()), 0.5)  # before anybody took it
    assert made.create_trial("d").trial_id not in (late.trial_id, third.trial_id)


def test_each_trial_gets_its_mlflow_run(tmp_path, monkeypatch):
    made = oracle(tmp_path)
    assert made.create_trial("a").hyperparameters.values[tuning.RUN_ID] == "run 00"

    def fails(trial):
        raise Unavailable("the MLflow server does not answer")

    made.begin = fails
    with tuning.served(made) as (port, heard):
        assert worker(monkeypatch, port, "b", None).work() == tuning.GONE
        with pytest.raises(Unavailable, match="MLflow"):
            tuning.supervise(made, heard, None, 0, note)
    made.give_back("b", "the lock is free")


def worker(monkeypatch, port, name, run, most=100, failed=None):
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(port))
    monkeypatch.setenv("KERASTUNER_TUNER_ID", name)
    from pathlib import Path

    return tuning.Worker(run, failed or (lambda *_: None), "val_accuracy", most, Path(os.environ["TLKIT_CACHE"]) / "w")


def test_workers_run_trials_over_grpc(tmp_path, monkeypatch):
    made, failures = oracle(tmp_path, trials=5), []

    def run(trial, oracle):
        if trial.trial_id == "1":
            raise MemoryError("no room for this one")
        return {"val_accuracy": score(trial)}

    with tuning.served(made) as (port, heard):
        first = worker(monkeypatch, port, "a", run, 4, lambda trial, error: failures.append((trial.trial_id, error)))
        assert first.work() == tuning.MORE  # a fresh process after a failure
        assert [trial_id for trial_id, _ in failures] == ["1"]
        assert worker(monkeypatch, port, "b", run, 2).work() == tuning.MORE
        assert worker(monkeypatch, port, "c", run).work() == 0
        assert set(heard) >= set(made.trials)
    assert [made.trials[str(n)].status for n in range(5)] == ["COMPLETED", "FAILED", *["COMPLETED"] * 3]
    assert made.stopped
    assert [trial.score for trial in tuning.best_first(made)] == sorted(
        (score(trial) for trial in tuning.best_first(made)), reverse=True
    )


def test_a_port_that_is_taken(tmp_path):
    with (
        tuning.served(oracle(tmp_path)) as (port, _),
        pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port}"),
        tuning.served(oracle(tmp_path), port=port),
    ):
        pass


def test_nobody_waits_for_a_worker_that_is_lost(tmp_path, monkeypatch):
    made, told = oracle(tmp_path, trials=2), []
    with tuning.served(made) as (port, heard):
        lost = worker(monkeypatch, port, "elsewhere", None)
        taken = lost.oracle.create_trial("elsewhere").trial_id  # and no word any more

        def other():
            time.sleep(1.5)
            worker(monkeypatch, port, "other", lambda trial, _: {"val_accuracy": 0.5}).work()

        thread = threading.Thread(target=other)
        thread.start()
        tuning.supervise(made, heard, None, 0, lambda trial, _: told.append(trial), silent=0.8)
        thread.join()
    assert sorted(trial.trial_id for trial in told) == ["0", "1"]
    assert made.trials[taken].status == "COMPLETED"


def test_a_disk_that_is_full_ends_the_search_and_nobody_waits(tmp_path, monkeypatch):
    made = oracle(tmp_path, trials=2)

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(made, "save", full)
    with tuning.served(made) as (port, heard):
        assert worker(monkeypatch, port, "a", lambda *_: {"val_accuracy": 0.5}).work() == tuning.GONE
        with pytest.raises(OSError, match="No space left"):
            tuning.supervise(made, heard, None, 0, note)


def test_a_stranger_does_no_harm(tmp_path, monkeypatch):
    made = oracle(tmp_path, trials=1)
    with tuning.served(made) as (port, _):
        stranger = worker(monkeypatch, port, "a", None)
        trial = keras_tuner.engine.trial.Trial(keras_tuner.HyperParameters(), "of another search", "COMPLETED")
        for call in (lambda: stranger.oracle.end_trial(trial), lambda: stranger.oracle.get_trial(trial.trial_id)):
            with pytest.raises(grpc.RpcError, match="this search has no such trial"):
                call()
        assert worker(monkeypatch, port, "b", lambda *_: {"val_accuracy": 0.5}).work() == 0
    assert made.failure is None


def test_signs_of_life_of_a_worker_that_was_replaced(tmp_path, monkeypatch):
    made = oracle(tmp_path)
    with tuning.served(made) as (port, _):
        lost = worker(monkeypatch, port, "a", None)
        trial = lost.oracle.create_trial("a")
        from keras_tuner.src import protos

        request = protos.get_service().GetTrialRequest(trial_id=trial.trial_id)
        lost.oracle.stub.GetTrial(request, metadata=((tuning.TUNER, "a"),))
        made.give_back("a", "nothing was heard")
        with pytest.raises(grpc.RpcError, match="this trial was given to another worker"):
            lost.oracle.stub.GetTrial(request, metadata=((tuning.TUNER, "a"),))


def process(tmp_path, code):
    running = subprocess.Popen([sys.executable, "-c", code])
    return tuning.Process(running, tmp_path / "worker.log")


def test_workers_that_cannot_begin_end_the_search(tmp_path):
    with pytest.raises(Unavailable, match=r"workers die at once \(its process ended with status 3\): see .*worker.log"):
        tuning.supervise(oracle(tmp_path), {}, lambda name: process(tmp_path, "exit(3)"), 1, note)


def test_a_killed_worker_gives_its_trial_back(tmp_path):
    made, told = oracle(tmp_path, trials=1), []

    def start(name):
        made.create_trial(name)
        return process(tmp_path, "import os; os.kill(os.getpid(), 9)")

    tuning.supervise(made, {}, start, 1, lambda trial, _: told.append(trial))
    assert [trial.status for trial in told] == ["FAILED"]
    assert told[0].message == "its process was killed (SIGKILL), often for lack of memory"
    assert made._run_times["0"] == tuning.LIVES


def test_no_process_is_left(tmp_path):
    started = []

    def start(name):
        started.append(process(tmp_path, "import time; time.sleep(60)"))
        raise KeyboardInterrupt if len(started) == 2 else OSError("no more")

    with pytest.raises(OSError, match="no more"):
        tuning.supervise(oracle(tmp_path), {}, start, 1, note)
    stubborn = process(tmp_path, "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)")
    time.sleep(0.5)
    tuning.stop([*started, stubborn], 0.5)
    assert all(one.running.returncode is not None for one in (*started, stubborn))


def test_a_search_in_which_all_fails_ends(tmp_path):
    made = oracle(tmp_path, trials=50)

    def start(name):
        trial = made.create_trial(name)
        trial.status, trial.message = "FAILED", "there is no stage9"
        made.end_trial(trial)
        return process(tmp_path, "exit(75)")

    said = "10 trials failed, one after the other and none before them; the last one because there is no stage9"
    for ended in (10, 20):  # what was mended in between is given a chance
        with pytest.raises(Unavailable, match=said):
            tuning.supervise(made, {}, start, 1, note)
        assert len(made.end_order) in (ended, ended + 1)


def test_a_worker_waits_for_what_others_may_give_back(tmp_path):
    made = oracle(tmp_path, trials=1)
    first = made.create_trial("a")
    assert made.create_trial("b").status == "IDLE"
    made.give_back("a", "its machine died")
    again = made.create_trial("b")
    assert again.trial_id == first.trial_id
    end(made, again)
    assert made.create_trial("b").status == "STOPPED"
    assert not made.tuner_ids


def test_signs_of_life_end_with_the_work(tmp_path, monkeypatch):
    made = oracle(tmp_path, trials=1)
    with tuning.served(made) as (port, _):
        assert worker(monkeypatch, port, "a", lambda *_: {"val_accuracy": 0.5}).work() == 0
    end_ = time.monotonic() + 5
    while any("_live" in thread.name for thread in threading.enumerate()) and time.monotonic() < end_:
        time.sleep(0.05)
    assert not any("_live" in thread.name for thread in threading.enumerate())


def test_a_worker_whose_chief_is_gone(tmp_path, monkeypatch):
    made = oracle(tmp_path)
    with tuning.served(made) as (port, _):
        lonely = worker(monkeypatch, port, "a", lambda *_: {"val_accuracy": 0.5})

    def gone(*_, **__):
        raise grpc.RpcError

    monkeypatch.setattr(lonely.oracle.stub, "CreateTrial", gone)
    assert lonely.work() == tuning.GONE
