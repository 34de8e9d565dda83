"""A worker of `tune`: a process that runs some trials for the chief that keras-tuner's environment variables name.

`tune` starts it as python -m tlkit.recipes._worker FOLDER, where FOLDER is that of the search.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit import atomic, cli, untrusted
from tlkit.config import Tune
from tlkit.config import space as spaces
from tlkit.errors import InvalidInput, Unavailable
from tlkit.recipes import _jobs, _search

if TYPE_CHECKING:
    from keras_tuner import Oracle
    from keras_tuner.src.engine.trial import Trial


def main(folder: Path) -> int:
    """Run trials, and return the exit status that says why there are no more."""
    config = cli.from_settings(Tune, untrusted.read_yaml(folder / "search.yaml"))
    _jobs.start_keras()
    from tlkit import tuning

    trials = folder / "trials"
    return tuning.Worker(
        functools.partial(run_trial, config, trials),
        functools.partial(failed, trials),
        config.objective,
        config.trials_per_process,
        trials,
    ).work()


def run_trial(config: Tune, trials: Path, trial: Trial, oracle: Oracle) -> dict[str, float]:
    """Run a trial, once or with several seeds, and leave its settings, model and results in its folder.

    Args:
        config: The settings of the search.
        trials: Folder of all trials.
        trial: Has the values of the settings that differ.
        oracle: Knows the best trial so far.

    Returns:
        The objective's value, the mean of all executions, by its name.
    """
    from tlkit import tracking, tuning

    began, folder, objective = time.perf_counter(), trials / trial.trial_id, config.objective
    folder.mkdir(parents=True, exist_ok=True)
    recipe_config = _recipe_config(config, trials, trial)
    tracking.open_store(config.experiment)
    run_id = trial.hyperparameters.values[tuning.RUN_ID]
    with _output_in(folder / "log.txt"), tracking.run(config.experiment, params={}, tags={}, run_id=run_id) as run:
        logged = _logged_metrics(run.run_id)
        executions = _execute(config, recipe_config, trial, folder, run.run_id)
        scores = [execution.history.best[objective] for execution in executions]
        score = sum(scores) / len(scores)
        if not math.isfinite(score):
            raise InvalidInput(f"{objective} is {score}")
        top = max if tuning.objective(objective).direction == "max" else min
        number = top(range(len(scores)), key=scores.__getitem__)
        metrics = _metrics(objective, executions, scores)
        tracking.log_metrics({name: value for name, value in metrics.items() if name not in logged})
        if _may_be_best(objective, score, oracle):
            temporary = folder / ".model.keras"
            executions[number].model.save(temporary)
            temporary.replace(folder / "model.keras")
    result = {
        "scores": scores,
        "seed": config.seed + number,
        "metrics": metrics,
        "epochs": executions[number].history.epochs,
        "work": sum(execution.seconds for execution in executions),
        "seconds": time.perf_counter() - began,
    }
    atomic.write_text(folder / "result.json", json.dumps(result))
    return {objective: score}


def failed(trials: Path, trial: Trial, error: Exception) -> None:
    """Leave the reason of a failure where the chief finds it."""
    folder = trials / trial.trial_id
    folder.mkdir(parents=True, exist_ok=True)
    text = " ".join(str(error).split())[:1000]
    expected = isinstance(error, InvalidInput | Unavailable)
    (folder / "failure.txt").write_text(
        text if expected else f"{type(error).__name__}: {text}", encoding="utf-8", errors="backslashreplace"
    )
    with (folder / "log.txt").open("a", encoding="utf-8", errors="backslashreplace") as log:
        traceback.print_exception(error, file=log)


@contextlib.contextmanager
def _output_in(file: Path) -> Iterator[None]:
    """Append all that the block prints to a file."""
    with (
        file.open("a", encoding="utf-8", errors="backslashreplace") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        yield


def _recipe_config(config: Tune, trials: Path, trial: Trial) -> _search.Tuned:
    """Give the recipe's settings; if hyperband resumes an earlier trial, that one's, and copy its checkpoint."""
    values = trial.hyperparameters.values
    earlier = values.get("tuner/trial_id")
    if earlier is None:
        return _search.recipe_config(config, spaces.parse(config.space).settings(values))
    untrusted.identifier(earlier, "the chief's tuner/trial_id")
    folder = trials / trial.trial_id
    if not (folder / "checkpoint.npz").exists():
        shutil.copy(trials / earlier / "checkpoint.npz", folder / ".checkpoint.npz")
        (folder / ".checkpoint.npz").replace(folder / "checkpoint.npz")
    return _search.stored_config(config, trials / earlier)


def _execute(config: Tune, recipe_config: _search.Tuned, trial: Trial, folder: Path, run_id: str) -> list[_jobs.Tried]:
    """Run the recipe with one seed after the other.

    Args:
        config: The settings of the search.
        recipe_config: Those of the recipe in this trial.
        trial: The trial.
        folder: Its folder.
        run_id: Its MLflow run.
    """
    import keras

    values, executions = trial.hyperparameters.values, []
    recipe = _search.recipe(config)
    for number in range(1, config.executions + 1):
        keras.backend.clear_session()
        execution = _jobs.Trial(
            params=spaces.parse(config.space).params(values),
            folder=folder,
            execution=number,
            until=values.get("tuner/epochs"),
            max_parameters=config.max_parameters,
            max_multiply_adds=config.max_multiply_adds,
            logged_epochs=_logged_epochs(run_id, number),
            runs=_search.sharing(config),
        )
        seeded = dataclasses.replace(recipe_config, seed=(config.seed + number - 1) % 2**32)
        executions.append(recipe.run(seeded, execution))
    return executions


def _logged_epochs(run_id: str, execution: int) -> int:
    """Count the epochs that MLflow has of an execution whose process died."""
    import mlflow

    name = f"execution{execution}.loss" if execution > 1 else "loss"
    return max((entry.step for entry in mlflow.MlflowClient().get_metric_history(run_id, name)), default=0)


def _metrics(objective: str, executions: Sequence[_jobs.Tried], scores: Sequence[float]) -> dict[str, float]:
    """Give a trial's metrics, means of all executions, under the names that a run of the recipe has."""
    import numpy as np

    best = [execution.history.best for execution in executions]
    columns = {
        "best_epoch": [epoch["epoch"] for epoch in best],
        "best_val_loss": [epoch["val_loss"] for epoch in best],
        "best_val_accuracy": [epoch["val_accuracy"] for epoch in best],
        "training_seconds": [execution.history.seconds for execution in executions],
        "parameters": [execution.model.count_params() for execution in executions],
        f"best_{objective}": scores,
    }
    spread = {f"best_{objective}_sd": float(np.std(scores, ddof=1))} if len(scores) > 1 else {}
    return {name: float(np.mean(values)) for name, values in columns.items()} | spread


def _logged_metrics(run_id: str) -> Mapping[str, float]:
    """Give the metrics that MLflow has from a process that was killed after its last line."""
    import mlflow

    metrics: dict[str, float] = mlflow.get_run(run_id).data.metrics
    return metrics


def _may_be_best(objective: str, score: float, oracle: Oracle) -> bool:
    import numpy as np

    from tlkit import tuning

    best = [trial.score for trial in oracle.get_best_trials(1) if trial.status == "COMPLETED"]
    better = tuning.objective(objective).better_than
    return not best or not better(np.float32(best[0]), np.float32(score))  # as the chief has them: gRPC rounds


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
