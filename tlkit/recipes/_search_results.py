"""What a search leaves: the best trial's settings, model and test scores, tables and pictures of all trials."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit import atomic, untrusted
from tlkit import config as configs
from tlkit.config import space as spaces
from tlkit.recipes import _fit, _inputs, _jobs, _links, _networks, _results, _runs, _search, _search_trials, _summary

if TYPE_CHECKING:
    import keras
    from keras_tuner.src.engine.trial import Trial

    from tlkit import data, tracking
    from tlkit.recipes._search import Search


class Best(NamedTuple):
    """What a search leaves; its file stores these fields by their names.

    Args:
        trial_id: The best trial.
        values: Its settings, by their names in MLflow.
        score: Its objective.
        recipe: File that the recipe's `--config` takes.
        split: Split on which its model was scored at the end, once: `test` if there is one, else `validation`.
        accuracy: Accuracy on that split.
        interval: 95 % interval of the accuracy.
        photos: Number of examples of that split.
        run_id: MLflow run of the search.
        experiment_id: Experiment of that run.
        model_uri: Where MLflow has the best trial's model.
        registered: As what the model was registered: name, version, alias and reason; empty if it was not.
        groups: Number of groups of these examples, where they have groups.
        baseline: What the accuracy stands beside; see `_summary.always`.
        kind: What the examples are, such as photos.
    """

    trial_id: str
    values: dict[str, Any]
    score: float
    recipe: str
    split: str
    accuracy: float
    interval: tuple[float, float]
    photos: int
    run_id: str
    experiment_id: str
    model_uri: str
    registered: Sequence[str] = ()
    groups: int | None = None
    baseline: str = ""
    kind: str = "examples"

    @property
    def evidence(self) -> str:
        """What the accuracy rests on and stands beside."""
        low, high = self.interval
        count = _summary.counted(self.photos, self.kind, self.groups)
        return f"95 % interval {low:.3f} to {high:.3f}, {count}" + (f"; {self.baseline}" if self.baseline else "")


class _Winner(NamedTuple):
    """The best trial.

    Args:
        trial: As the oracle has it.
        config: The recipe's settings, with what the recipe decided.
        model: The trained model.
        result: What `_worker.run_trial` measured.
    """

    trial: Trial
    config: _search.Tuned
    model: keras.Model
    result: dict[str, Any]


class _Logged(NamedTuple):
    """The best model in MLflow: its metrics, where it is, and as what it was registered."""

    metrics: dict[str, float]
    model_uri: str
    registered: Sequence[str] = ()


def finish(search: Search, parent: tracking.Run) -> Best:
    """Log the best trial's settings, model and test scores on the search's run, with pictures of all trials."""
    from tlkit import tracking, tuning

    ranked = tuning.best_first(search.oracle)
    params = search.space.params(ranked[0].hyperparameters.values)
    tracking.log_params(params)
    tracking.set_tags({"best_trial": ranked[0].trial_id})
    _log_trials(search, ranked)
    _log_pictures(search, ranked)
    winner = _load(search, ranked[0])
    splits = _split(winner)
    logged = _find_logged(parent) or _score(search, winner, splits, parent)
    for checkpoint in (search.folder / "trials").glob("*/checkpoint.npz"):
        checkpoint.unlink()
    split, part = _inputs.scored(splits)
    recipe = search.folder / "recipes" / search.config.recipe / f"best_{search.folder.name}.yaml"
    best = Best(
        trial_id=winner.trial.trial_id,
        values=params,
        score=winner.trial.score,
        recipe=str(recipe),
        split=split,
        accuracy=logged.metrics[f"{split}_accuracy"],
        interval=(logged.metrics[f"{split}_accuracy_low"], logged.metrics[f"{split}_accuracy_high"]),
        photos=len(part),
        run_id=parent.run_id,
        experiment_id=parent.experiment_id,
        model_uri=logged.model_uri,
        registered=logged.registered,
        groups=len(set(part.grouping)) if part.grouping else None,
        baseline=_baseline(splits, logged.metrics.get(f"{split}_majority_accuracy")),
        kind=splits.kind,
    )
    _write_recipe(search, winner, best, len(ranked))
    tracking.log_artifact(recipe)
    return best


def _baseline(splits: data.Splits, accuracy: float | None) -> str:
    from tlkit import evaluation

    majority = None if splits.multi_label else evaluation.majority(splits.train.labels)
    return _summary.always(splits.classes, majority, accuracy)


def _load(search: Search, trial: Trial) -> _Winner:
    """Read what the best trial has left in its folder."""
    from tlkit import layers  # noqa: F401  Keras finds layers by their names
    from tlkit.backbones import modelfiles

    folder = search.trial_folder(trial)
    config = _search.stored_config(search.config, folder)
    return _Winner(trial, config, modelfiles.load(folder / "model.keras"), search.result(trial))


def _split(winner: _Winner) -> data.Splits:
    """Split the data as the best trial did."""
    config, size = winner.config, winner.config.data.image_size
    shape = (size, size, winner.model.input_shape[-1]) if size else None
    return _inputs.load(config.data, _inputs.listed(config.data), shape)


def _find_logged(parent: tracking.Run) -> _Logged | None:
    """Find the model of a search that was killed after it had been logged."""
    import mlflow

    query = f"source_run_id = '{parent.run_id}'"
    models = mlflow.search_logged_models([parent.experiment_id], query, output_format="list")
    if not models:
        return None
    return _Logged(mlflow.get_run(parent.run_id).data.metrics, untrusted.answered(models[0]).model_uri)


def _score(search: Search, winner: _Winner, splits: data.Splits, parent: tracking.Run) -> _Logged:
    """Score the best model on the test split, once, and log it."""
    from tlkit import tracking, training

    config, model = winner.config, winner.model
    config = dataclasses.replace(config, positive=search.config.positive or config.positive)
    job = _jobs.Job(search.config.recipe, dataclasses.replace(config, register=search.config.register))
    fit = _fit.of_training(job, training.History(winner.result["epochs"]))
    fit.metrics.update(winner.result["metrics"])
    del fit.metrics[f"best_{search.config.objective}"]  # it is logged already, trial by trial
    tracking.set_tags({**_runs.data_tags(splits), "backbone": _networks.name(config)})
    _runs.log_data(config.data, splits)
    if config.positive is not None:
        tracking.log_params({"positive": config.positive})
    calibrated = _results.calibrated_by_val(job, model, splits, config.batch_size)  # type: ignore[arg-type]
    result = _results.score(job, parent, model, fit, splits, calibrated)
    model_uri = tracking.deliver() or result.model_uri
    return _Logged(result.scores.metrics(), model_uri, tracking.journal_of(parent.run_id).registered or ())


def _log_pictures(search: Search, ranked: list[Trial]) -> None:
    """Draw what the trials tried and which settings mattered."""
    from tlkit import plots, tracking, tuning
    from tlkit.tuning import importance

    config = search.config
    resumed = {trial.hyperparameters.values.get("tuner/trial_id") for trial in ranked}  # by hyperband, as another trial
    trials = [trial for trial in ranked if trial.trial_id not in resumed]
    columns, scores = _columns(search, trials), [trial.score for trial in trials]
    if config.algorithm == "hyperband":
        columns["epochs"] = [trial.hyperparameters.values["tuner/epochs"] for trial in trials]
    maximize = tuning.objective(config.objective).direction == "max"
    coordinates = plots.Picture("parallel_coordinates", columns, scores, config.objective, maximize)
    tracking.log_figure(coordinates, "parallel_coordinates.png")
    importances = importance.importances(columns, scores, config.seed)
    if importances.settings:
        tracking.log_figure(plots.Picture("importance", importances, config.objective), "importance.png")
        names = importances.settings[0]._fields
        table = {name: [getattr(setting, name) for setting in importances.settings] for name in names}
        tracking.log_table(table, "importance.json")


def _log_trials(search: Search, ranked: list[Trial]) -> None:
    """Log all trials as a table, the best first, those without a score last."""
    from tlkit import tracking, tuning

    trials = [*ranked, *(trial for trial in search.oracle.trials.values() if trial.status != "COMPLETED")]
    table: dict[str, list[Any]] = {
        "trial": [trial.trial_id for trial in trials],
        "run_id": [trial.hyperparameters.values.get(tuning.RUN_ID, "") for trial in trials],
        "status": [trial.status for trial in trials],
        search.config.objective: [trial.score for trial in trials],
        **_columns(search, trials),
        "failure": [
            _search_trials.record_failure(search.folder, trial) if trial.status == "FAILED" else "" for trial in trials
        ],
    }
    if search.config.algorithm == "hyperband":
        table["epochs"] = [trial.hyperparameters.values["tuner/epochs"] for trial in trials]
    tracking.log_table(table, "trials.json")


def _columns(search: Search, trials: list[Trial]) -> dict[str, list[Any]]:
    """Give the trials' values of each setting; None where it does not count."""
    rows = [search.space.active(trial.hyperparameters.values) for trial in trials]
    return {limits.name: [row.get(limits.name) for row in rows] for limits in search.space.ranges}


def _write_recipe(search: Search, winner: _Winner, best: Best, count: int) -> None:
    """Write the best trial's settings as a file of the recipe, without those that have their default.

    Args:
        search: It has ended.
        winner: The best trial.
        best: What is known of it.
        count: Number of trials that have a score.
    """
    path, config = Path(best.recipe), _repeatable(search, winner)
    values, defaults = configs.flatten(config), configs.flatten(type(config)())
    changed = spaces.nested({name: value for name, value in values.items() if value != defaults[name]})
    until = winner.trial.hyperparameters.values.get("tuner/epochs") or winner.config.full.epochs
    stopped = f" after {until} of its epochs, where hyperband stopped it" if until < winner.config.full.epochs else ""
    expected = (
        f"Expected: {best.split} accuracy {best.accuracy:.3f} ({best.evidence}) with seed "
        f"{config.seed}, as trial {best.trial_id} had{stopped}: the best of {count} by "
        f"{search.config.objective} ({best.score:.4f})."
    )
    command = f"python -m tlkit.recipes.{search.config.recipe} --config {_links.shown(path)}"
    comments = [command, "", *textwrap.wrap(expected, 118)]
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, "".join(f"# {line}".rstrip() + "\n" for line in comments) + _runs.as_yaml(changed))


def _repeatable(search: Search, winner: _Winner) -> _search.Tuned:
    """Give the settings as the search chose them, with the seed of the best execution."""
    settings = search.space.settings(winner.trial.hyperparameters.values)
    config = dataclasses.replace(_search.recipe_config(search.config, settings), seed=winner.result["seed"])
    decided = winner.config
    if not (isinstance(config, configs.Finetune) and isinstance(decided, configs.Finetune)):
        return config
    if config.full.unfreeze_from:  # what the recipe decided, which may depend on what the store holds
        config = dataclasses.replace(config, full=dataclasses.replace(config.full, stored=decided.full.stored))
    return config
