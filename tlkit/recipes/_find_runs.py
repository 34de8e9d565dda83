"""The runs that `compare` compares: by their ids or names, by a search, or the last ones."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tlkit import untrusted
from tlkit.config import Compare
from tlkit.display import say, shown
from tlkit.errors import InvalidInput

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

DEFAULT = 6  # runs that are compared if none is named
MOST = 12  # runs that are compared at a time: they have 66 pairs
SEARCHED = 500  # newest runs of an experiment that are searched


def to_compare(config: Compare) -> list[Run]:
    """Find the runs to compare, each once.

    Raises:
        InvalidInput: one does not exist, or there are fewer than two or too many.
    """
    import mlflow

    client = mlflow.MlflowClient()
    if config.runs:
        named = [_named(client, name, config.experiment) for name in config.runs]
        runs, origin = list({run.info.run_id: run for run in named}.values()), "given"
    else:
        runs = _with_score(client, config)
        origin = f"with a score found in experiment {_experiment(client, config.experiment).name!r}"
        if not config.search and runs:
            origin = f"with a score on the {scored_on(runs[0])[0]} split of run {display_name(runs[0])!r}, the newest"
    if len(runs) < 2:
        count = f"only run {display_name(runs[0])!r}" if runs else "no run"
        raise InvalidInput(f"{count} {origin}: give two or more, by their ids or names, or by --search")
    if len(runs) > MOST:
        raise InvalidInput(f"{len(runs)} runs {origin}: give at most {MOST}")
    return runs


def display_name(run: Run) -> str:
    """Give a run's name, else its id, in one line."""
    return shown(" ".join((run.info.run_name or run.info.run_id).split()))


def score(run: Run) -> tuple[str, float] | None:
    """Give the split that a run was scored on, and its accuracy, or its share of exact matches if it is multi-label."""
    for split in ("test", "validation"):
        for name in ("exact_match", "accuracy"):
            value = run.data.metrics.get(f"{split}_{name}", math.nan)
            if math.isfinite(value):
                return split, value
    return None


def _with_score(client: MlflowClient, config: Compare) -> list[Run]:
    """Find the runs that match the search and have a score; without a search, the last on the newest one's split."""
    matches = _search(client, config.experiment, config.search or "attributes.status = 'FINISHED'")
    runs = [run for run in matches if score(run)]
    if not config.search:
        return _on_split_of_newest(runs)
    if len(runs) < len(matches):
        say(f"left out: {len(matches) - len(runs)} of {len(matches)} runs found, which have no score")
    return runs


def _on_split_of_newest(runs: Sequence[Run]) -> list[Run]:
    """Choose of the newest runs those scored on the same examples as the newest, and say how many are left out."""
    from tlkit import tracking

    trained = [run for run in runs if tracking.trains(run.data.tags)]
    same = [run for run in trained if scored_on(run) == scored_on(trained[0])]
    split = (score(same[0]) or [""])[0] if same else ""
    others, more = len(trained) - len(same), len(same) - DEFAULT
    left_out = [f"{others} scored on other examples"] * (others > 0) + [f"{more} older ones"] * (more > 0)
    if len(same) > 1:
        many = f"the {min(len(same), DEFAULT)} newest runs on the {split} split of {display_name(same[0])}"
        say(many + (f"; left out: {', '.join(left_out)}" if left_out else ""))
    return same[:DEFAULT]


def scored_on(run: Run) -> tuple[str, str]:
    """Tell on which examples a run was scored: their split and its digest, or that of all the data."""
    split = (score(run) or ("", 0.0))[0]
    for given in run.inputs.dataset_inputs if run.inputs else []:
        if {tag.key: tag.value for tag in given.tags}.get("mlflow.data.context") == split:
            return split, given.dataset.digest
    return split, run.data.tags.get("dataset_digest", "")


def _experiment(client: MlflowClient, name: str) -> Experiment:
    """Find the experiment that the environment names, else this one; none is created.

    Raises:
        InvalidInput: it does not exist.
    """
    from_environment = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if not from_environment and os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return client.get_experiment(os.environ["MLFLOW_EXPERIMENT_ID"])
    name = from_environment or name
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        names = [other.name for other in client.search_experiments(max_results=100)]
        raise InvalidInput(f"there is no experiment {name!r}; {_suggestion(name, names)}give --experiment")
    return experiment


def _search(client: MlflowClient, experiment: str, filter_string: str) -> list[Run]:
    """Search an experiment's newest runs by MLflow's filter."""
    from mlflow.exceptions import MlflowException

    try:
        runs = client.search_runs(
            [_experiment(client, experiment).experiment_id],
            filter_string,
            order_by=["attributes.start_time DESC"],
            max_results=SEARCHED,
        )
        return [untrusted.answered(run) for run in runs]
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        reason = " ".join(error.message.split())
        raise InvalidInput(f"search is {filter_string!r}, which MLflow does not take: {reason}") from error


def _named(client: MlflowClient, name: str, experiment: str) -> Run:
    """Find a run by its id, or by its name in an experiment."""
    if re.fullmatch("[0-9a-f]{32}", name) and (run := _by_id(client, name)):
        return run
    quote = '"' if "'" in name else "'"
    runs = [] if quote in name else _search(client, experiment, f"attributes.run_name = {quote}{name}{quote}")
    if len(runs) == 1:
        return runs[0]
    if runs:
        ids = ", ".join(run.info.run_id for run in runs[:4]) + (", …" if len(runs) > 4 else "")
        raise InvalidInput(f"{len(runs)} runs are called {name!r}: give the id of one of them, {ids}")
    recent = _search(client, experiment, "")
    hint = _suggestion(name, [text for run in recent for text in (display_name(run), run.info.run_id)])
    origin = _experiment(client, experiment).name
    raise InvalidInput(
        f"there is no run {name!r} in experiment {origin!r}; {hint}runs of other experiments are given by their ids"
    )


def _by_id(client: MlflowClient, run_id: str) -> Run | None:
    from mlflow.exceptions import MlflowException

    try:
        run = untrusted.answered(client.get_run(run_id))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    if run.info.lifecycle_stage == "deleted":
        raise InvalidInput(f"run {run_id} was deleted: leave it out, or restore it")
    return run


def _suggestion(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, dict.fromkeys(names), n=3)
    return f"did you mean {shown(', '.join(close))}? " if close else ""
