"""Entries of a journal sent to MLflow's store, each kind by its own call; sending one twice does no harm."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import mlflow
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModel,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from tlkit import untrusted
from tlkit.errors import InvalidInput
from tlkit.tracking.journal_files import Entry

MOST = {"metrics": 800, "params": 90, "tags": 90}  # in one call; MLflow allows 100 of the last two, and 1000 in all
REFUSALS = (400, 403, 404, 409, 413, 422)  # HTTP statuses of a lasting refusal; 401 ends with the right password
KEY = "journal"  # tag of a model, by which it is found again


def log_batch(client: mlflow.MlflowClient, run_id: str, entries: Sequence[Entry]) -> None:
    """Send metrics, parameters and tags in one call."""
    values = {kind: [entry for entry in entries if entry["do"] == kind] for kind in MOST}
    client.log_batch(
        run_id,
        metrics=[
            Metric(name, value, entry["time"], entry["step"])
            for entry in values["metrics"]
            for name, value in entry["values"].items()
        ],
        params=[Param(*item) for entry in values["params"] for item in entry["values"].items()],
        tags=[RunTag(*item) for entry in values["tags"] for item in entry["values"].items()],
        synchronous=True,
    )


def log_inputs(client: mlflow.MlflowClient, run_id: str, entry: Entry) -> None:
    """Send the data sets of a run."""
    client.log_inputs(run_id, [_dataset_input(**values) for values in entry["values"]])


def _dataset_input(context: str, **dataset: str) -> DatasetInput:
    return DatasetInput(Dataset(**dataset), [InputTag("mlflow.data.context", context)])


def log_artifact(client: mlflow.MlflowClient, run_id: str, path: Path, entry: Entry) -> None:
    """Send a file, or a folder with its name."""
    if path.is_dir():
        client.log_artifacts(run_id, str(path), f"{entry['to']}/{path.name}".strip("/"))
    else:
        client.log_artifact(run_id, str(path), entry["to"] or None)


def log_model(
    client: mlflow.MlflowClient,
    header: Entry,
    entry: Entry,
    saved: Path,
    doubtful: bool,
    on_step: Callable[[], None],
) -> LoggedModel:
    """Send a model, or what is missing of it; `mlflow.models.Model.log` would begin another.

    Args:
        client: Of the store.
        header: The journal's.
        entry: The model's.
        saved: Folder with the MLflow model.
        doubtful: Whether a part of it may have arrived before.
        on_step: Called after each step.
    """
    run_id, experiment_id = header["run_id"], header["experiment_id"]
    run = untrusted.answered(client.get_run(run_id))
    query = f"source_run_id = '{run_id}' AND tags.`{KEY}` = '{entry['key']}'"
    earlier = client.search_logged_models([experiment_id], filter_string=query) if doubtful else []
    model: LoggedModel = (
        earlier[0]
        if earlier
        else client.create_logged_model(
            experiment_id,
            name=entry["name"],
            source_run_id=run_id,
            tags={KEY: entry["key"]},
            params=run.data.params,
        )
    )
    untrusted.answered(model)
    on_step()
    if model.status != LoggedModelStatus.READY:
        with tempfile.TemporaryDirectory(dir=saved.parent) as folder:
            _copy_addressed(saved, Path(folder) / "model", model, run_id)
            client.log_model_artifacts(model.model_id, f"{folder}/model")
        on_step()
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    linked = [output.model_id for output in run.outputs.model_outputs] if run.outputs else []
    if model.model_id not in linked:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=entry["step"])])
    return model


def log_scores(client: mlflow.MlflowClient, run_id: str, model_id: str, entries: Iterable[Entry], step: int) -> None:
    """Link the run's metrics of a step to a model."""
    scores = [
        Metric(name, value, entry["time"], step, model_id=model_id, run_id=run_id)
        for entry in entries
        if entry["do"] == "metrics" and entry["step"] == step
        for name, value in entry["values"].items()
        if not name.startswith("system/")
    ]
    for start in range(0, len(scores), MOST["metrics"]):
        client.log_batch(run_id, scores[start : start + MOST["metrics"]], synchronous=True)


def _copy_addressed(saved: Path, folder: Path, logged: LoggedModel, run_id: str) -> None:
    """Copy a saved model and write into it which one it is, as MLflow does when it logs one."""
    shutil.copytree(saved, folder, copy_function=_link, ignore=shutil.ignore_patterns("MLmodel"))
    model = Model.load(str(saved / "MLmodel"))
    model.model_id = model.model_uuid = logged.model_id
    model.artifact_path, model.run_id = logged.artifact_location, run_id
    model.save(str(folder / "MLmodel"))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)  # a copy could take gigabytes
    except OSError:
        shutil.copyfile(source, target)


def is_refusal(error: Exception) -> bool:
    """Tell whether the store would refuse the same entry again: it answers, and does not ask to come back later."""
    if isinstance(error, InvalidInput | KeyError | TypeError | AttributeError):  # the entry is malformed
        return True
    if isinstance(error, MlflowException):
        status = re.search(r"failed with error code (\d+)", str(error))  # a proxy's; MLflow makes all of them 500
        return (int(status[1]) if status else error.get_http_status_code()) in REFUSALS
    return getattr(getattr(error, "response", None), "status_code", None) in REFUSALS  # of an upload
