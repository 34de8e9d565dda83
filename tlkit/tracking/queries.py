"""Queries to MLflow's store about runs and models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import mlflow
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from tlkit import untrusted
from tlkit.tracking.database import store_errors

LOOKING = ("compare", "evaluate", "find_lr", "inspect", "select")
"""Commands whose runs make no model."""


def run_name(run_id: str) -> str | None:
    """Return the name of a run; None where the store does not have it, or it was deleted.

    Raises:
        Unavailable: the store does not answer, or refuses to.
    """
    with store_errors():
        try:
            info = mlflow.get_run(run_id).info
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
    return None if info.lifecycle_stage == "deleted" else info.run_name


def next_name(experiment_id: str, title: str) -> str:
    """Name a new run by what it is and the next number, deleted runs included: `finetune MobileNet flowers #3`."""
    quote = '"' if "'" in title else "'"
    pattern = re.sub("[%_]", "_", title).replace(quote, "_")  # _ stands for any letter
    client, highest, token = mlflow.MlflowClient(), 0, None
    while True:
        runs = client.search_runs(
            [experiment_id],
            f"attributes.run_name LIKE {quote}{pattern} #%{quote}",
            ViewType.ALL,
            max_results=1000,
            page_token=token,
        )
        names = (re.fullmatch(re.escape(title) + r" #(\d{1,9})", run.info.run_name or "") for run in runs)
        highest = max([highest, *(int(name[1]) for name in names if name)])
        token = runs.token
        if not token:
            return f"{title} #{highest + 1}"


def recent_runs(experiment_id: str, count: int) -> list[str]:
    """Return the ids of the experiment's last finished runs that train, newest first, without the parts of others."""
    with store_errors():
        runs = mlflow.MlflowClient().search_runs(
            [experiment_id],
            "attributes.status = 'FINISHED'",
            order_by=["attributes.start_time DESC"],
            max_results=10 * count,
        )
    tags = {untrusted.answered(each).info.run_id: each.data.tags for each in runs}
    return [run_id for run_id, own in tags.items() if trains(own)][:count]


def trains(tags: Mapping[str, str]) -> bool:
    """Whether a run with these tags is one that trains, and no part of another, such as a trial of a search."""
    return MLFLOW_PARENT_RUN_ID not in tags and tags.get("recipe") not in LOOKING


def model_folder(model_uri: str) -> Path | None:
    """Return the folder of a logged model, `models:/m-…`, where it lies on this machine's disk."""
    model = mlflow.get_logged_model(model_uri.removeprefix("models:/"))
    return untrusted.local_path(untrusted.answered(model).artifact_location)


def run_folder(run_id: str) -> Path | None:
    """Return the folder of a run's artifacts where it lies on this machine's disk."""
    return untrusted.local_path(untrusted.answered(mlflow.get_run(run_id)).info.artifact_uri)
