"""Queries to MLflow's store about runs and models."""

from __future__ import annotations

from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from tlkit import untrusted
from tlkit.tracking.database import store_errors


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


def recent_runs(experiment_id: str, count: int) -> list[str]:
    """Return the ids of the experiment's last finished runs, newest first, without comparisons of runs."""
    with store_errors():
        runs = mlflow.MlflowClient().search_runs(
            [experiment_id],
            "attributes.status = 'FINISHED'",
            order_by=["attributes.start_time DESC"],
            max_results=10 * count,
        )
    ids = [untrusted.answered(each).info.run_id for each in runs if each.data.tags.get("recipe") != "compare"]
    return ids[:count]


def model_folder(model_uri: str) -> Path | None:
    """Return the folder of a logged model, `models:/m-…`, where it lies on this machine's disk."""
    model = mlflow.get_logged_model(model_uri.removeprefix("models:/"))
    return untrusted.local_path(untrusted.answered(model).artifact_location)


def run_folder(run_id: str) -> Path | None:
    """Return the folder of a run's artifacts where it lies on this machine's disk."""
    return untrusted.local_path(untrusted.answered(mlflow.get_run(run_id)).info.artifact_uri)
