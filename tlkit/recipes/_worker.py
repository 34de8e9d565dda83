"""A worker of `tune`: a process that runs some trials for the chief that keras-tuner's environment variables name.

It is started by `tune` as python -m tlkit.recipes._worker FOLDER, the folder of the search.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import json
import math
import shutil
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from tlkit import cli, config, untrusted
from tlkit.config import space
from tlkit.errors import InvalidInput, Unavailable
from tlkit.recipes import _jobs

TRIALS = 20  # by default, of `random` and `bayesian`
TENFOLD = 10  # values that a grid has of a range without steps
RECIPES: dict[str, Any] = {"finetune": config.Finetune, "train": config.Train}


def main(folder: Path) -> int:
    """Run trials, and give the exit status that says why there are no more."""
    search = cli.from_settings(config.Tune, untrusted.read_yaml(folder / "search.yaml"))
    _jobs.import_keras()
    from tlkit import tuning

    trials = folder / "trials"
    return tuning.Worker(
        functools.partial(run_trial, search, trials),
        functools.partial(failed, trials),
        search.objective,
        search.trials_per_process,
        trials,
    ).work()


def run_trial(search: config.Tune, trials: Path, trial: Any, oracle: Any) -> dict[str, float]:
    """Run a trial, once or with several seeds, and leave what it gave in its folder.

    Returns:
        The objective's value, the mean of all executions, by its name.
    """
    import keras
    import mlflow

    from tlkit import tracking, tuning

    began, values, folder = time.perf_counter(), trial.hyperparameters.values, trials / trial.trial_id
    folder.mkdir(parents=True, exist_ok=True)
    recipe_config = _config(search, trials, values, folder)
    recipe = module(search)
    tracking.open_store(search.experiment)
    tried: list[_jobs.Tried] = []
    with (
        (folder / "log.txt").open("a", encoding="utf-8", errors="backslashreplace") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
        tracking.run(search.experiment, params={}, tags={}, run_id=values[tuning.RUN_ID]) as active,
    ):
        known = mlflow.get_run(active.run_id).data.metrics
        for execution in range(1, search.executions + 1):
            keras.backend.clear_session()
            attempt = _jobs.Trial(
                params=space.parse(search.space).params(values),
                folder=folder,
                execution=execution,
                until=values.get("tuner/epochs"),
                max_parameters=search.max_parameters,
                max_multiply_adds=search.max_multiply_adds,
                logged_epochs=_logged(active.run_id, execution),
                runs=sharing(search),
            )
            seeded = dataclasses.replace(recipe_config, seed=(search.seed + execution - 1) % 2**32)
            tried.append(recipe.run(seeded, attempt))
        scores = [one.history.best[search.objective] for one in tried]
        score = sum(scores) / len(scores)
        if not math.isfinite(score):
            raise InvalidInput(f"{search.objective} is {score}")
        top = max if tuning.objective(search.objective).direction == "max" else min
        best = tried[top(range(len(scores)), key=scores.__getitem__)]
        metrics = _metrics(search.objective, tried, scores)
        tracking.log_metrics({name: value for name, value in metrics.items() if name not in known})
        if _may_be_best(search.objective, score, oracle):
            temporary = folder / ".model.keras"
            best.model.save(temporary)
            temporary.replace(folder / "model.keras")
    result = {
        "scores": scores,
        "seed": search.seed + tried.index(best),
        "metrics": metrics,
        "epochs": best.history.epochs,
        "work": sum(one.seconds for one in tried),
        "seconds": time.perf_counter() - began,
    }
    tuning.write(folder / "result.json", json.dumps(result))
    return {search.objective: score}


def module(search: config.Tune) -> ModuleType:
    """The recipe that is tuned, with its functions `run` and `check`."""
    return importlib.import_module(f"tlkit.recipes.{search.recipe}")


def settings(search: config.Tune, chosen: dict[str, Any]) -> dict[str, Any]:
    """Put what the search says of all trials and what was chosen for one of them together."""
    common: dict[str, Any] = {
        "data": dataclasses.asdict(search.data),
        "features": dataclasses.asdict(search.features),
        "precision": search.precision,
        "experiment": search.experiment,
        "seed": search.seed,
    }
    if search.recipe == "train":
        del common["features"]
    return space.merged(common, chosen)


def sharing(search: config.Tune) -> float:
    """Say how many runs of a search share one frozen part of the network, if all its variants are tried equally often.

    >>> space = {"head": {"dropout": {"float": [0, 0.5]}}, "full": {"unfreeze_from": {"choice": ["stage3", "stage4"]}}}
    >>> sharing(config.Tune(space=space, trials=12))
    6.0
    """
    frozen = ("backbone", "data.", "augment", "full.unfreeze_from")
    ranges = space.parse(search.space).ranges
    sizes = [len(one.values) or (1 + (one.high - one.low) / one.step if one.step else TENFOLD) for one in ranges]
    trials = search.trials or (math.prod(sizes) if search.algorithm == "grid" else TRIALS)
    variants = math.prod(size for one, size in zip(ranges, sizes, strict=True) if one.name.startswith(frozen))
    return max(1.0, trials * search.executions / variants)


def failed(trials: Path, trial: Any, error: Exception) -> None:
    """Leave the reason of a failure where the chief finds it."""
    folder = trials / trial.trial_id
    folder.mkdir(parents=True, exist_ok=True)
    text = " ".join(str(error).split())[:1000]
    known = isinstance(error, InvalidInput | Unavailable)
    (folder / "failure.txt").write_text(
        text if known else f"{type(error).__name__}: {text}", encoding="utf-8", errors="backslashreplace"
    )
    with (folder / "log.txt").open("a", encoding="utf-8", errors="backslashreplace") as log:
        traceback.print_exception(error, file=log)


def _config(search: config.Tune, trials: Path, values: dict[str, Any], folder: Path) -> Any:
    """The recipe's settings; those of the trial that this one goes on with, where it does, and its training's state."""
    before = values.get("tuner/trial_id")
    if before is None:
        chosen = settings(search, space.parse(search.space).settings(values))
        return cli.from_settings(RECIPES[search.recipe], chosen)
    untrusted.identifier(before, "the chief's tuner/trial_id")
    if not (folder / "checkpoint.npz").exists():
        shutil.copy(trials / before / "checkpoint.npz", folder / ".checkpoint.npz")
        (folder / ".checkpoint.npz").replace(folder / "checkpoint.npz")
    return cli.from_settings(RECIPES[search.recipe], untrusted.read_yaml(trials / before / "config.yaml"))


def _logged(run_id: str, execution: int) -> int:
    """Epochs that MLflow has of an execution whose process died."""
    import mlflow

    name = f"execution{execution}.loss" if execution > 1 else "loss"
    return max((entry.step for entry in mlflow.MlflowClient().get_metric_history(run_id, name)), default=0)


def _metrics(objective: str, tried: list[_jobs.Tried], scores: list[float]) -> dict[str, float]:
    """What a trial's run has beside its epochs, under the names that a run of the recipe has; means of executions."""
    import numpy as np

    kept = [one.history.best for one in tried]
    found = {
        "best_epoch": [best["epoch"] for best in kept],
        "best_val_loss": [best["val_loss"] for best in kept],
        "best_val_accuracy": [best["val_accuracy"] for best in kept],
        "training_seconds": [one.history.seconds for one in tried],
        "parameters": [one.model.count_params() for one in tried],
        f"best_{objective}": scores,
    }
    spread = {f"best_{objective}_sd": float(np.std(scores, ddof=1))} if len(scores) > 1 else {}
    return {name: float(np.mean(values)) for name, values in found.items()} | spread


def _may_be_best(objective: str, score: float, oracle: Any) -> bool:
    import numpy as np

    from tlkit import tuning

    best = [trial.score for trial in oracle.get_best_trials(1) if trial.status == "COMPLETED"]
    better = tuning.objective(objective).better_than
    return not best or not better(np.float32(best[0]), np.float32(score))  # as the chief has them: gRPC rounds


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
