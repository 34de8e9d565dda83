"""MLflow: one run for each recipe run, in MLflow's own default store unless the environment names another."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import re
import sqlite3
import sys
import tempfile
import types
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import sqlalchemy.exc

from tlkit import labels
from tlkit.errors import InvalidInput, Unavailable

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before mlflow loads; the user's own setting wins

import mlflow
from mlflow.exceptions import MlflowException

STORE_ERRORS = (MlflowException, sqlalchemy.exc.SQLAlchemyError)
ANSWER_SECONDS = 5


class Run(NamedTuple):
    """A run being tracked; `mlflow.log_*` goes to it."""

    run_id: str
    experiment_id: str


@contextlib.contextmanager
def run(
    experiment: str,
    *,
    run_name: str | None = None,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    nested: bool = False,
    run_id: str | None = None,
) -> Iterator[Run]:
    """Track the block as an MLflow run, or as the next part of the run with this id.

    The environment's MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME win, and an active run is joined: it gets the
    parameters and tags, and ends where it was begun; `nested` begins a run of its own below it. A block that fails ends
    the run FAILED with its reason in the tag `failure`, one that is interrupted KILLED.

    Raises:
        InvalidInput: the experiment was deleted.
        Unavailable: the store cannot be opened or written, also where it refuses what the block logs.
    """
    above = mlflow.active_run()
    joined = None if nested else above
    with _store_errors():
        if joined:
            active = joined
        elif run_id:
            active = mlflow.start_run(run_id)
            if "failure" in active.data.tags:  # of the part before
                mlflow.delete_tag("failure")
        elif os.environ.get("MLFLOW_RUN_ID") and not above:
            active = mlflow.start_run()
        else:
            with _unseeded():
                where = above.info.experiment_id if above else experiment_id(experiment)
                active = mlflow.start_run(experiment_id=where, run_name=run_name, nested=nested, tags=dict(tags))
        started = Run(active.info.run_id, active.info.experiment_id)
    try:
        with _store_errors():
            mlflow.log_params(dict(params))
            mlflow.set_tags(dict(tags))
        yield started
    except BaseException as error:
        killed = isinstance(error, KeyboardInterrupt | SystemExit)
        with contextlib.suppress(Exception):  # the first error matters more than one from here
            mlflow.set_tag("failure", without_password(f"{type(error).__name__}: {error}")[:5000])
        if not joined:
            with contextlib.suppress(*STORE_ERRORS):
                mlflow.end_run("KILLED" if killed else "FAILED")
        if isinstance(error, STORE_ERRORS):
            raise _refused(error) from error
        raise
    if not joined:
        with _store_errors():
            mlflow.end_run()


def open_store(experiment: str | None = None) -> str:
    """Make sure that the tracking store can be used, before long work starts, and give its URI.

    Args:
        experiment: The experiment to be written to; None to read only, which creates nothing.

    Raises:
        InvalidInput: the experiment was deleted, or there is no store to read.
        Unavailable: it does not answer or cannot be written.
    """
    uri = mlflow.get_tracking_uri()
    if uri.startswith(("http:", "https:")):
        _ask(uri)
    with _store_errors():
        database = sqlalchemy.make_url(uri).database if uri.startswith("sqlite:") else None
        if database and database != ":memory:":
            _open_database(Path(database), create=experiment is not None)
        if experiment is None or mlflow.active_run():
            mlflow.MlflowClient().search_experiments(max_results=1)
        elif run_id := os.environ.get("MLFLOW_RUN_ID"):
            mlflow.get_run(run_id)
        else:
            experiment_id(experiment)
    return uri


def epoch_logger(prefix: str = "", after: int = 0) -> Any:
    """Make a Keras callback that logs each epoch's metrics; the step is the global epoch, from 1.

    Args:
        prefix: Of the metrics' names.
        after: Epochs that the run has already, from a training that was interrupted and is done again.
    """
    import keras

    class EpochLogger(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            if epoch >= after:
                values = {f"{prefix}{name}": float(value) for name, value in (logs or {}).items()}
                mlflow.log_metrics(values, step=epoch + 1)

    return EpochLogger()


def log_model(model: Any, classes: list[str], requirements: list[str], name: str = "model") -> str:
    """Log a Keras model, with its signature and with the class names inside the `.keras` file.

    Args:
        model: From raw pixels, shape (photos, height, width, channels), or what else it takes, to probabilities,
            (photos, classes).
        classes: Names of the outputs.
        requirements: What pip must install to load it; given, because MLflow's own search takes 15 s.
        name: Of the model.

    Returns:
        The model's URI, `models:/m-…`.
    """
    import mlflow.keras
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    def save_model(path: str, **arguments: Any) -> None:
        mlflow.keras.save_model(path=path, **arguments)
        labels.write(Path(path) / "data" / "model.keras", classes)

    def schema(tensors: list[Any], names: list[str]) -> Any:
        shapes = [tuple(-1 if length is None else length for length in tensor.shape) for tensor in tensors]
        types = [np.dtype(tensor.dtype) for tensor in tensors]
        return Schema([TensorSpec(*spec) for spec in zip(types, shapes, names, strict=True)])

    signature = ModelSignature(
        schema(model.inputs, [tensor.name for tensor in model.inputs]), schema(model.outputs, ["probabilities"])
    )
    with _store_errors():
        logged = Model.log(
            artifact_path=None,
            name=name,
            flavor=types.SimpleNamespace(save_model=save_model, __name__="mlflow.keras"),
            model=model,
            signature=signature,
            pip_requirements=requirements,
            metadata={"classes": classes},
        )
    return logged.model_uri


def recent_runs(experiment_id: str, count: int) -> list[str]:
    """Give the ids of the experiment's last finished runs, newest first."""
    with _store_errors():
        found = mlflow.MlflowClient().search_runs(
            [experiment_id],
            "attributes.status = 'FINISHED'",
            order_by=["attributes.start_time DESC"],
            max_results=count,
        )
    return [entry.info.run_id for entry in found]


def model_folder(model_uri: str) -> Path | None:
    """Give the folder of a logged model, `models:/m-…`, where it lies on this machine's disk."""
    return _on_disk(mlflow.get_logged_model(model_uri.removeprefix("models:/")).artifact_location)


def run_folder(run_id: str) -> Path | None:
    """Give the folder of a run's artifacts where it lies on this machine's disk."""
    return _on_disk(mlflow.get_run(run_id).info.artifact_uri)


def without_password(text: str) -> str:
    """Take users and passwords out of the URIs in a text, so that it may be shown.

    >>> without_password("no answer from https://me:secret@mlflow.example.org/team")
    'no answer from https://mlflow.example.org/team'
    """
    return re.sub(r"//[^/\s]*@", "//", text)


def _on_disk(uri: str) -> Path | None:
    parts = urllib.parse.urlsplit(uri)
    return Path(urllib.request.url2pathname(parts.path)) if parts.scheme in ("", "file") else None


@contextlib.contextmanager
def _unseeded() -> Iterator[None]:
    # MLflow draws run names from Python's generator, and a seeded one would give every run of a seed the same name.
    state = random.getstate()
    random.seed()
    try:
        yield
    finally:
        random.setstate(state)


def experiment_id(name: str) -> str:
    """Give the id of the experiment that the environment names, else of this one, which is made if need be."""
    client = mlflow.MlflowClient()
    given = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if not given and os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return client.get_experiment(os.environ["MLFLOW_EXPERIMENT_ID"]).experiment_id
    name = given or name
    # Not mlflow.set_experiment: two processes that call it at once can end up in `Default`.
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name)
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise InvalidInput(
            f"the MLflow experiment {name!r} was deleted; restore it, or give another "
            f"{'MLFLOW_EXPERIMENT_NAME' if given else '--experiment'}"
        )
    return found.experiment_id


def _open_database(path: Path, create: bool) -> None:
    """Look into MLflow's SQLite file, which MLflow itself would try for minutes, or create it."""
    if not path.exists():
        if not create:
            raise InvalidInput(
                f"there is no MLflow store {path}; change to the folder of the run, or set MLFLOW_TRACKING_URI"
            )
        _create_database(path)
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA schema_version")
    except sqlite3.Error as error:
        raise Unavailable(f"cannot open the MLflow store {path}: {error}") from error
    if create and not os.access(path, os.W_OK):
        raise Unavailable(f"cannot write to the MLflow store {path}: no permission")


def _create_database(path: Path) -> None:
    """Create MLflow's SQLite file whole or not at all, also where several processes begin at once.

    MLflow's own creation runs migrations for seconds; two at once, or one killed, leave a file that never opens again.
    """
    print(f"creating {path}, once; this takes some seconds", file=sys.stderr, flush=True)
    try:
        with filelock.FileLock(f"{path}.lock", timeout=120):
            if not path.exists():
                _create_at_once(path)
        with contextlib.suppress(OSError):  # another process may hold it, which does no harm: the store is there
            Path(f"{path}.lock").unlink()
    except filelock.Timeout as error:
        raise Unavailable(f"{path}.lock is held by another process for 2 minutes; delete it if none runs") from error
    except (OSError, sqlite3.Error, sqlalchemy.exc.SQLAlchemyError) as error:
        raise Unavailable(
            f"cannot create {path.absolute()}: {error}; change to a folder you may write, or set MLFLOW_TRACKING_URI"
        ) from error


def _create_at_once(path: Path) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
    os.close(handle)
    temporary = Path(name)
    try:
        _migrate(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # as any file that is not temporary: others may read it
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _migrate(path: Path) -> None:
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(f"sqlite:///{path}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
    store.engine.dispose()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # readers and a writer do not lock each other out


def _ask(uri: str) -> None:
    shown = without_password(uri)
    try:
        urllib.parse.urlsplit(uri).port  # noqa: B018 (raises where it is no number)
        urllib.request.urlopen(f"{shown.rstrip('/')}/health", timeout=ANSWER_SECONDS)  # noqa: S310 (http or https)
    except urllib.error.HTTPError:
        return  # it answers; whether it lets us in, the first call tells
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Unavailable(
            f"the MLflow server {shown} does not answer: {reason}; start it, or unset MLFLOW_TRACKING_URI to use "
            "mlflow.db in this folder"
        ) from error


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except Unavailable:
        raise
    except (*STORE_ERRORS, OSError, ImportError) as error:
        raise _refused(error) from error


def _refused(error: Exception) -> Unavailable:
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    where = without_password(mlflow.get_tracking_uri())
    return Unavailable(f"the MLflow store {where} refused: {without_password(first)}")
