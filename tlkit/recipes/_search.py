"""What a search leaves: its run in MLflow with a nested one for each trial, pictures, the best trial's recipe file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit import cli, config, untrusted
from tlkit.config import space
from tlkit.display import say
from tlkit.recipes import _inputs, _jobs, _links, _networks, _results, _runs, _worker

if TYPE_CHECKING:
    from tlkit import tracking


class Best(NamedTuple):
    """What a search leaves.

    Args:
        trial_id: The best trial.
        values: Its settings, by their names in MLflow.
        score: Its objective.
        recipe: File that the recipe's `--config` takes.
        split: That its model was scored on at the end, once: `test` where there is such a split.
        accuracy: On that split.
        interval: 95 % Wilson interval of the accuracy.
        photos: How many the split has.
        run_id: MLflow run of the search.
        experiment_id: Of that run.
        model_uri: Of the best trial's model.
        registered: What that was registered as: name, version, alias and reason; empty where it was not.
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


def known_run(experiment: str, search_id: str) -> str | None:
    """The MLflow run of a search that goes on."""
    import mlflow

    from tlkit import tracking

    runs = mlflow.MlflowClient().search_runs([tracking.experiment_id(experiment)], f"tags.search = '{search_id}'")
    return untrusted.answered(runs[0]).info.run_id if runs else None


class Runs:
    """The nested runs: each trial has one, also where it is begun again."""

    def __init__(self, parent: tracking.Run):
        self.parent, self.known = parent, _nested(parent)

    def begin(self, trial: Any) -> str:
        """Give the MLflow run of a trial."""
        import mlflow
        from mlflow.tracking.context.registry import resolve_tags
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        client = mlflow.MlflowClient()
        if trial.trial_id not in self.known:
            tags = resolve_tags({MLFLOW_PARENT_RUN_ID: self.parent.run_id, "trial": trial.trial_id})
            name = f"trial {trial.trial_id}"
            made = client.create_run(self.parent.experiment_id, run_name=name, tags=tags)
            self.known[trial.trial_id] = untrusted.answered(made).info.run_id
        return self.known[trial.trial_id]


def _nested(parent: tracking.Run) -> dict[str, str]:
    import mlflow
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    client, token = mlflow.MlflowClient(), None
    found: dict[str, str] = {}
    while True:
        query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.run_id}'"
        page = client.search_runs([parent.experiment_id], query, max_results=1000, page_token=token)
        found |= {
            one.data.tags["trial"]: untrusted.answered(one).info.run_id for one in page if "trial" in one.data.tags
        }
        token = page.token
        if not token:
            return found


def end_runs(parent: tracking.Run, oracle: Any, folder: Path) -> None:
    """Give the nested runs the end that their trials had."""
    import mlflow

    from tlkit import tracking

    client = mlflow.MlflowClient()
    states = {"COMPLETED": "FINISHED", "FAILED": "FAILED"}
    with contextlib.suppress(*tracking.STORE_ERRORS):
        for trial_id, run_id in _nested(parent).items():
            trial = oracle.trials.get(trial_id)
            wanted = states.get(trial.status, "KILLED") if trial else "KILLED"
            if wanted == "FAILED":
                client.set_tag(run_id, "failure", _reason(folder, trial))
            if client.get_run(run_id).info.status != wanted:
                client.set_terminated(run_id, wanted)


class Told:
    """Says how each trial ended, keeps the search's run up to date, and no more models than one."""

    def __init__(self, search: config.Tune, folder: Path, oracle: Any, began: float):
        self.search, self.folder, self.oracle, self.began = search, folder, oracle, began
        self.before, self.reason, self.work = len(oracle.end_order), "", 0.0

    def __call__(self, trial: Any, ended: int) -> None:
        import mlflow

        from tlkit import tracking, tuning
        from tlkit.progress import duration

        name, trials = self.search.objective, list(self.oracle.trials.values())
        failed = sum(one.status == "FAILED" for one in trials)
        best, result = tuning.best_first(self.oracle), self.folder / "trials" / trial.trial_id / "result.json"
        spent = (time.perf_counter() - self.began) / max(ended - self.before, 1)
        total = self.search.trials
        left = f"; {duration(spent * (total - ended))} left" if total and total > ended else ""
        live = {"trials_ended": ended, "trials_failed": failed}
        of = f"{ended}{f'/{total}' if total else ''} trial {trial.trial_id}"
        if trial.status == "COMPLETED":
            seconds = json.loads(result.read_text(encoding="utf-8"))
            self.work += seconds["work"]
            said = f"{name} {trial.score:.4f}, {duration(seconds['seconds'])}; best {best[0].score:.4f}"
            say(f"{of}: {said} ({best[0].trial_id}){left}")
            live[f"best_{name}"] = best[0].score
            for other in trials:
                if other.status == "COMPLETED" and other.trial_id != best[0].trial_id:
                    (self.folder / "trials" / other.trial_id / "model.keras").unlink(missing_ok=True)
        else:
            self.reason = _reason(self.folder, trial)
            say(f"{of}: failed: {textwrap.shorten(self.reason, 120)}{left}")
            run_id = trial.hyperparameters.values.get(tuning.RUN_ID)
            if run_id:
                with contextlib.suppress(*tracking.STORE_ERRORS):  # at the end of the search it is said again
                    mlflow.MlflowClient().set_terminated(run_id, "FAILED")
        tracking.log_metrics(live, step=ended)


def _reason(folder: Path, trial: Any) -> str:
    """Why a trial failed: what its worker left, else what the chief saw."""
    left = folder / "trials" / trial.trial_id / "failure.txt"
    trial.message = trial.message or (left.read_text(encoding="utf-8") if left.exists() else "no reason is known")
    return trial.message


def finish(search: config.Tune, found: space.Space, folder: Path, oracle: Any, parent: tracking.Run) -> Best:
    """Put the best trial's settings, model and test scores on the search's run, with pictures of all trials."""
    import mlflow

    from tlkit import layers, tracking, training, tuning  # noqa: F401  Keras finds layers by their names
    from tlkit.backbones import modelfiles

    ranked = tuning.best_first(oracle)
    best, trial = ranked[0], folder / "trials" / ranked[0].trial_id
    values = best.hyperparameters.values
    params = found.params(values)
    tracking.log_params(params)
    tracking.set_tags({"best_trial": best.trial_id})
    _log_trials(search, found, folder, oracle)
    _log_pictures(search, found, ranked)

    completed = cli.from_settings(_worker.RECIPES[search.recipe], untrusted.read_yaml(trial / "config.yaml"))
    model = modelfiles.load(trial / "model.keras")
    result = json.loads((trial / "result.json").read_text(encoding="utf-8"))
    examples, size = _inputs.listed(completed.data), completed.data.image_size
    shape = (size, size, model.input_shape[-1]) if size else None
    splits = _inputs.splits(completed.data, examples, shape, quiet=True)
    split, part = ("test", splits.test) if splits.test else ("validation", splits.val)
    registered: Sequence[str] = ()
    model_uri = _model(parent)
    if model_uri:  # from an end that was killed
        known = mlflow.get_run(parent.run_id).data.metrics
    else:
        job = _jobs.Job(search.recipe, dataclasses.replace(completed, register=search.register))
        fit = _results.of_training(job, training.History(result["epochs"]))
        fit.metrics.update(result["metrics"])
        del fit.metrics[f"best_{search.objective}"]  # it is there, trial by trial
        tracking.set_tags({**_runs.data_tags(splits), "backbone": _networks.name(completed)})
        _runs.log_data(completed.data, splits)
        predicted = training.predict(model, part, completed.batch_size)
        finished = _results.score(job, parent, model, fit, splits, predicted)
        known, model_uri = finished.scores.metrics(), tracking.deliver() or finished.model_uri
        registered = tracking.journal_of(parent.run_id).registered or ()
    for left in (folder / "trials").glob("*/checkpoint.npz"):
        left.unlink()
    made = Best(
        trial_id=best.trial_id,
        values=params,
        score=best.score,
        recipe=str(folder / "recipes" / search.recipe / f"best_{folder.name}.yaml"),
        split=split,
        accuracy=known[f"{split}_accuracy"],
        interval=(known[f"{split}_accuracy_low"], known[f"{split}_accuracy_high"]),
        photos=len(part),
        run_id=parent.run_id,
        experiment_id=parent.experiment_id,
        model_uri=model_uri,
        registered=registered,
    )
    until, epochs = values.get("tuner/epochs"), completed.full.epochs
    chosen = cli.from_settings(_worker.RECIPES[search.recipe], _worker.settings(search, found.settings(values)))
    chosen = dataclasses.replace(chosen, seed=result["seed"])
    if search.recipe == "finetune" and chosen.full.unfreeze_from:  # what it decided, which may depend on the store
        chosen = dataclasses.replace(chosen, full=dataclasses.replace(chosen.full, stored=completed.full.stored))
    _write_recipe(search, chosen, made, len(ranked), until if until and until < epochs else None)
    tracking.log_artifact(Path(made.recipe))
    return made


def _log_pictures(search: config.Tune, found: space.Space, ranked: list[Any]) -> None:
    """Log what the trials tried and which settings mattered."""
    from tlkit import plots, tracking, tuning
    from tlkit.tuning import importance

    gone_on = {one.hyperparameters.values.get("tuner/trial_id") for one in ranked}  # hyperband: as another trial
    shown = [one for one in ranked if one.trial_id not in gone_on]
    columns, scores = _columns(found, shown), [one.score for one in shown]
    if search.algorithm == "hyperband":
        columns["epochs"] = [one.hyperparameters.values["tuner/epochs"] for one in shown]
    maximize = tuning.objective(search.objective).direction == "max"
    tracking.log_figure(
        plots.parallel_coordinates(columns, scores, search.objective, maximize), "parallel_coordinates.png"
    )
    matter = importance.importances(columns, scores, search.seed)
    if matter.settings:
        tracking.log_figure(plots.importance(matter, search.objective), "importance.png")
        table = {name: [getattr(one, name) for one in matter.settings] for name in matter.settings[0]._fields}
        tracking.log_table(table, "importance.json")


def _model(parent: tracking.Run) -> str | None:
    import mlflow

    query = f"source_run_id = '{parent.run_id}'"
    found = mlflow.search_logged_models([parent.experiment_id], query, output_format="list")
    return untrusted.answered(found[0]).model_uri if found else None


def _columns(found: space.Space, trials: list[Any]) -> dict[str, list[Any]]:
    """The trials' settings; None where one does not count."""
    rows = [found.active(trial.hyperparameters.values) for trial in trials]
    return {one.name: [row.get(one.name) for row in rows] for one in found.ranges}


def _log_trials(search: config.Tune, found: space.Space, folder: Path, oracle: Any) -> None:
    """Log all trials as a table."""
    from tlkit import tracking, tuning

    trials = [*tuning.best_first(oracle), *(one for one in oracle.trials.values() if one.status != "COMPLETED")]
    table: dict[str, list[Any]] = {
        "trial": [one.trial_id for one in trials],
        "run_id": [one.hyperparameters.values.get(tuning.RUN_ID, "") for one in trials],
        "status": [one.status for one in trials],
        search.objective: [one.score for one in trials],
        **_columns(found, trials),
        "failure": [_reason(folder, one) if one.status == "FAILED" else "" for one in trials],
    }
    if search.algorithm == "hyperband":
        table["epochs"] = [one.hyperparameters.values["tuner/epochs"] for one in trials]
    tracking.log_table(table, "trials.json")


def _write_recipe(search: config.Tune, chosen: Any, best: Best, count: int, until: int | None) -> None:
    """Write the best trial's settings as a file of the recipe: all that are not what they are anyway."""
    from tlkit import tuning

    path = Path(best.recipe)
    wanted, usual = config.flatten(chosen), config.flatten(type(chosen)())
    nested: dict[str, Any] = {}
    for name, value in wanted.items():
        if value != usual[name]:
            *groups, leaf = name.split(".")
            place = nested
            for group in groups:
                place = place.setdefault(group, {})
            place[leaf] = value
    low, high = best.interval
    stopped = f" after {until} of its epochs, where hyperband stopped it" if until else ""
    expected = (
        f"Expected: {best.split} accuracy {best.accuracy:.3f} (95 % interval {low:.3f} to {high:.3f}, {best.photos} "
        f"examples) with seed {chosen.seed}, as trial {best.trial_id} had{stopped}: the best of {count} by "
        f"{search.objective} ({best.score:.4f})."
    )
    lines = [
        f"python -m tlkit.recipes.{search.recipe} --config {_links.shown(path)}",
        "",
        *textwrap.wrap(expected, 118),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    tuning.write(path, "".join(f"# {line}".rstrip() + "\n" for line in lines) + _runs.as_yaml(nested))
