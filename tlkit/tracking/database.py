"""MLflow's store: opened or created before long work begins, with its refusals in one line."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import sqlite3
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import filelock
import mlflow
import sqlalchemy.exc
from mlflow.exceptions import MlflowException

from tlkit import untrusted
from tlkit.display import called, say, shown
from tlkit.errors import InvalidInput, Unavailable, connection_reason, first_line, without_password
from tlkit.tracking import journal

STORE_ERRORS = (MlflowException, sqlalchemy.exc.SQLAlchemyError)
ANSWER_SECONDS = 5


def open_store(experiment: str | None = None, resuming: str = "") -> str:
    """Check that the tracking store can be used, before long work starts, and return its URI.

    Args:
        experiment: The experiment to write to; None to read only, which creates nothing.
        resuming: What this command goes on with, such as `search`: it sends what that has left unsent.

    Raises:
        InvalidInput: the experiment was deleted, or there is no store to read.
        Unavailable: it does not answer or cannot be written, or the working folder cannot be.
    """
    try:
        uri = mlflow.get_tracking_uri()
    except UnicodeEncodeError as error:
        raise _not_utf8() from error
    if experiment is not None:
        journal.check_room()
    if uri.startswith("sqlite:") and not mlflow.is_tracking_uri_set():
        # MLflow writes its default with %20 for a blank, and then may create a folder of that name.
        uri = re.sub("%(?=[0-9A-Fa-f]{2})|[?]", lambda sign: urllib.parse.quote(sign[0]), urllib.parse.unquote(uri))
        if uri != mlflow.get_tracking_uri():
            os.environ["MLFLOW_TRACKING_URI"] = uri
    if uri.startswith(("http:", "https:")):
        _ask(uri)
    with store_errors():
        database = sqlalchemy.make_url(uri).database if uri.startswith("sqlite:") else None
        if database and database != ":memory:":
            _open_database(Path(database), create=experiment is not None)
        if experiment is None or mlflow.active_run():
            mlflow.MlflowClient().search_experiments(max_results=1)
        elif run_id := id_in_environment("MLFLOW_RUN_ID"):
            mlflow.get_run(run_id)
        else:
            experiment_id(experiment)
    if experiment is not None and (left := journal.left()):
        where = os.path.relpath(left[0].parent)
        runs = "1 run has" if len(left) == 1 else f"{len(left)} runs have"
        own = f"those of this {resuming} are sent now, others by" if resuming else "send them with"
        say(f"{runs} unsent entries in {where}: {own} {called('sync')}", error=True)
    return uri


def experiment_id(name: str, aside: str = "") -> str:
    """Return the id of the experiment that the environment names, else of this one, which is created if it is new.

    Args:
        name: Of the experiment.
        aside: A word, for the experiment beside it whose name ends with this word.
    """
    client = mlflow.MlflowClient()
    environment_name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if not environment_name and (number := id_in_environment("MLFLOW_EXPERIMENT_ID")):
        given = untrusted.answered(client.get_experiment(number))
        if not aside:
            return given.experiment_id
        name = given.name
    name = f"{environment_name or name} {aside}".rstrip()
    # Not mlflow.set_experiment: two processes that call it at once can end up in `Default`.
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return untrusted.identifier(client.create_experiment(name), "the new experiment's id", Unavailable)
        except MlflowException as error:
            if isinstance(error.__context__, UnicodeEncodeError):  # artifacts are to be in the working folder
                raise _not_utf8() from error
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        raise InvalidInput(
            f"the MLflow experiment {name!r} was deleted; restore it, or give another "
            f"{'MLFLOW_EXPERIMENT_NAME' if environment_name else '--experiment'}"
        )
    return untrusted.answered(experiment).experiment_id


def id_in_environment(name: str) -> str | None:
    """Return the identifier in an environment variable; None where it is not set."""
    value = os.environ.get(name)
    return untrusted.identifier(value, name) if value else None


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Raise Unavailable, in one line, where the store fails in the block."""
    try:
        yield
    except Unavailable:
        raise
    except (*STORE_ERRORS, OSError, ImportError) as error:
        raise refused(error) from error


def refused(error: Exception) -> Unavailable:
    """Make the error that repeats the store's message, without the password in its URI."""
    message = first_line(error)
    where = without_password(mlflow.get_tracking_uri())
    if isinstance(error, MlflowException) and error.get_http_status_code() == 401:
        message = "authentication required: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    return Unavailable(f"the MLflow store {where} refused: {message}")


def _not_utf8() -> InvalidInput:
    return InvalidInput(
        f"the working folder is {shown(Path.cwd())}, which is not UTF-8: MLflow cannot keep runs there; rename it, "
        "change to another, or set MLFLOW_TRACKING_URI"
    )


def _open_database(path: Path, create: bool) -> None:
    """Open or create MLflow's SQLite file: MLflow itself would retry for minutes where it cannot be opened."""
    if not path.exists():
        if not create:
            raise InvalidInput(
                f"there is no MLflow store {path}; change to the folder of the run, or set MLFLOW_TRACKING_URI"
            )
        create_database(path)
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA schema_version")
    except sqlite3.Error as error:
        raise Unavailable(f"cannot open the MLflow store {path}: {error}") from error
    if create and not os.access(path, os.W_OK):
        raise Unavailable(f"cannot write to the MLflow store {path}: no permission")


def create_database(path: Path) -> None:
    """Create MLflow's SQLite file whole or not at all, even where several processes begin at once.

    MLflow's own creation runs migrations for seconds; two at once, or one killed, leave a file that never opens again.
    """
    say(f"creating {shown(path)}, once; this takes some seconds", error=True)
    try:
        with filelock.FileLock(f"{path}.lock", timeout=120):
            if not path.exists():
                _create_at_once(path)
        _unlock(path)
    except filelock.Timeout as error:  # an OSError too
        raise Unavailable(f"{path}.lock is held by another process for 2 minutes; delete it if none runs") from error
    except (OSError, sqlite3.Error, sqlalchemy.exc.SQLAlchemyError) as error:
        _unlock(path)
        why = first_line(error).removeprefix("(sqlite3.OperationalError) ")
        raise Unavailable(
            f"cannot create {path.absolute()}: {why}; change to a folder you may write, or set MLFLOW_TRACKING_URI"
        ) from error


def _unlock(path: Path) -> None:
    with contextlib.suppress(OSError):  # another process may hold it, which does no harm
        Path(f"{path}.lock").unlink()


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
    """Check that a server answers."""
    address = without_password(uri)
    try:
        urllib.parse.urlsplit(uri).port  # noqa: B018 (raises where it is no number)
        urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=ANSWER_SECONDS)  # noqa: S310 (http or https)
    except urllib.error.HTTPError:
        return  # it answers; the first call shows whether it lets us in
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = getattr(error, "reason", error)
        reason = connection_reason(cause if isinstance(cause, Exception) else error)
        raise Unavailable(
            f"the MLflow server {address} does not answer: {reason}; start it, or unset MLFLOW_TRACKING_URI to use "
            "mlflow.db in this folder"
        ) from error
