"""keras-tuner's oracles, which choose the settings of each trial, made to resume where a kill left them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.src.engine.trial import Trial

from tlkit import atomic, untrusted
from tlkit.config import space
from tlkit.tuning.hypermodel import register

RUN_ID = "tuner/run_id"  # the MLflow run of a trial; it travels with the trial's values, as keras-tuner's own do
FORMAT = 1  # of the state file
LIVES = 2  # times that a trial is begun before the death of its process counts as the trial's own failure


class ResumableOracle(keras_tuner.Oracle):
    """An oracle whose whole state is in one file that is never half written, and that takes trials back.

    keras-tuner writes a file for the oracle and one for each trial, in place: a kill between or within them leaves
    states that contradict each other.
    """

    file: Path
    extra: dict[str, Any]  # stored in the file beside the oracle's state
    begin: Callable[[Trial], str]  # begins the MLflow run of a trial and returns its id
    stopped = False  # whether there are no more new trials
    failure: Exception | None = None

    ongoing_trials: dict[str, Trial]  # keras-tuner's, by worker
    _retry_queue: list[str]

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        """Create a trial for a worker; one that is idle waits for a trial that may be given back."""
        trial = super().create_trial(tuner_id)
        if trial.status == "STOPPED":
            self.stopped = True
            if self.ongoing_trials:
                trial.status = "IDLE"
                self.tuner_ids.add(tuner_id)
        elif trial.status == "RUNNING":
            trial.hyperparameters.values[RUN_ID] = self.begin(trial)
        return trial

    @keras_tuner.synchronized
    def end_trial(self, trial: Trial) -> None:
        """Record the end of a trial, unless another worker has ended it first."""
        if trial.trial_id not in self.end_order:  # else a worker that was thought lost has finished late
            self._retry_queue = [waiting for waiting in self._retry_queue if waiting != trial.trial_id]
            super().end_trial(trial)
        self.ongoing_trials = {
            tuner_id: running for tuner_id, running in self.ongoing_trials.items() if running.trial_id != trial.trial_id
        }
        self.save()  # keras-tuner saves before it takes the trial from those that are running

    @keras_tuner.synchronized
    def give_back(self, tuner_id: str, reason: str) -> None:
        """Take the trial away from a worker that is gone, and queue it again, or fail it the second time."""
        trial = self.ongoing_trials.pop(tuner_id, None)
        self.tuner_ids.discard(tuner_id)
        if trial is None:
            return
        self._run_times[trial.trial_id] += 1
        if self._run_times[trial.trial_id] < LIVES:
            self._retry_queue.append(trial.trial_id)
        else:
            trial.status, trial.message = "FAILED", reason
            self.end_order.append(trial.trial_id)
        self.save()

    def _compute_values_hash(self, values: dict[str, Any]) -> str:
        settings = {name: value for name, value in values.items() if name != RUN_ID}
        values_hash: str = super()._compute_values_hash(settings)
        return values_hash

    def _save_trial(self, trial: Trial) -> None:
        pass  # `save` writes all trials

    def save(self) -> None:
        """Write the whole state to the file."""
        trials = [trial.get_state() for trial in list(self.trials.values())]
        state = {"format": FORMAT, **self.extra, "oracle": self.get_state(), "trials": trials}
        atomic.write_text(self.file, json.dumps(state))

    def reload(self) -> None:
        """Read the state from the file; trials that were running are queued again."""
        state = untrusted.read_json(self.file)
        trials = [Trial.from_state(trial_state) for trial_state in state["trials"]]
        self.trials = {untrusted.identifier(trial.trial_id, "a trial of search.json"): trial for trial in trials}
        self.set_state(state["oracle"])
        running = [trial.trial_id for trial in self.ongoing_trials.values()]
        self._retry_queue = [name for name in [*running, *self._retry_queue] if name not in self.end_order]
        self.ongoing_trials = {}


class _Random(ResumableOracle, keras_tuner.oracles.RandomSearchOracle):
    """Draws settings at random."""


class _Grid(ResumableOracle, keras_tuner.oracles.GridSearchOracle):
    """Stores also where in the grid the search is, which keras-tuner forgets."""

    def get_state(self) -> dict[str, Any]:
        ordered = self._ordered_ids
        ids = ordered._memory[:1]
        while ids and (following := ordered.next(ids[-1])) is not None:
            ids.append(following)
        return {**super().get_state(), "ordered_ids": ids}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        for trial_id in state["ordered_ids"]:
            self._ordered_ids.insert(trial_id)
        self._populate_next = list(self.start_order)  # those whose next combination was tried are skipped

    def give_back(self, tuner_id: str, reason: str) -> None:
        super().give_back(tuner_id, reason)
        self._populate_next = list(self.start_order)  # else the grid would end at a trial that failed this way


class _Bayesian(ResumableOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """Draws from a generator that follows from the state, and never the same point again after a failure."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        self._random_state = np.random.RandomState((self._seed_state + len(self.trials)) % 2**32)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")  # a fit that found no optimum
            proposal: dict[str, Any] = super().populate_space(trial_id)
        if proposal["status"] == "RUNNING" and self._duplicate(proposal["values"]):
            proposal = self._random_populate_space()
        return proposal


class _Hyperband(ResumableOracle, keras_tuner.oracles.HyperbandOracle):
    """Replaces trials that fail in a first round: if a third of them failed, keras-tuner would promote none."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        for bracket in self._brackets:
            first = bracket["rounds"][0]
            failed = [entry for entry in first if self.trials[entry["id"]].status == "FAILED"]
            replaced = bracket.setdefault("replaced", 0)
            if failed and replaced + len(failed) <= self._get_size(bracket["bracket_num"], 0):
                bracket["replaced"] = replaced + len(failed)
                bracket["rounds"][0] = [entry for entry in first if entry not in failed]
        proposal: dict[str, Any] = super().populate_space(trial_id)
        return proposal


_ORACLES: dict[str, type[ResumableOracle]] = {
    "random": _Random,
    "grid": _Grid,
    "bayesian": _Bayesian,
    "hyperband": _Hyperband,
}


def oracle(
    algorithm: str,
    search_space: space.Space,
    metric: str,
    file: Path,
    *,
    trials: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    extra: Mapping[str, Any] | None = None,
) -> ResumableOracle:
    """Make the oracle of a search; where its file exists, the search is resumed.

    Args:
        algorithm: `random`, `grid`, `bayesian` or `hyperband`.
        search_space: What is searched.
        metric: `loss`, `accuracy` or one of these with `val_` in front.
        file: Stores its state.
        trials: Maximum number of trials.
        epochs: Epochs that the best trials of `hyperband` train.
        seed: The same one gives the same sequence of trials.
        extra: More to store in the file.
    """
    arguments: dict[str, Any] = {"max_epochs": epochs} if algorithm == "hyperband" else {"max_trials": trials}
    if algorithm == "bayesian" and trials:
        arguments["num_initial_points"] = max(3, trials // 4)  # keras-tuner's 3 times the ranges are often all trials
    oracle = _ORACLES[algorithm](
        objective=objective(metric),
        hyperparameters=register(search_space),
        seed=seed + 1,  # 0 would be drawn at random
        max_consecutive_failed_trials=2**31,  # reaching it would leave keras-tuner's lock held; the chief counts
        **arguments,
    )
    oracle.max_trials = trials
    oracle.verbose = 0
    oracle.file, oracle.extra = file, dict(extra or {})
    if file.exists():
        oracle.reload()
        oracle.stopped = trials is not None and len(oracle.end_order) >= trials  # else only a worker's request shows it
    else:
        oracle.save()
    return oracle


def objective(name: str) -> keras_tuner.Objective:
    """Give a metric of Keras its direction: accuracies are maximized, losses are minimized."""
    return keras_tuner.Objective(name, "max" if name.endswith("accuracy") else "min")


def best_first(oracle: keras_tuner.Oracle) -> list[Trial]:
    """Sort the trials that have a score, the best first; of equal ones the earlier first."""
    completed = [trial for trial in list(oracle.trials.values()) if trial.status == "COMPLETED"]
    sign = -1 if oracle.objective.direction == "max" else 1
    return sorted(completed, key=lambda trial: (sign * trial.score, trial.trial_id))
