"""A run of MLflow's, begun, joined or resumed, and ended."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import mlflow
import psutil
from mlflow.tracking.context.git_context import GitRunContext
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.git_utils import get_git_commit
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_PARENT_RUN_ID

from tlkit import startup, untrusted
from tlkit.display import called, say, shown
from tlkit.errors import InvalidInput, Unavailable, without_password
from tlkit.tracking import journal, journal_files, open_runs, queries, system_metrics
from tlkit.tracking.database import STORE_ERRORS, experiment_id, id_in_environment, refused, store_errors
from tlkit.tracking.logs import TABLES, now, set_tags
from tlkit.tracking.open_runs import opened


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
    title: str | None = None,
    began: float | None = None,
    aside: str = "",
) -> Iterator[Run]:
    """Track the block as an MLflow run, or as the next part of the run with this id.

    Args:
        experiment: Name of the experiment, which is created if it is new.
        run_name: Name of the run.
        params: Its parameters.
        tags: Its tags.
        nested: Begin it below the active run.
        run_id: Id of the run that goes on.
        title: What it is, as `finetune MobileNet flowers`: without `run_name`, its name is this and the next number.
        began: When its work began, in seconds since the epoch, where that was before now. A command's run begins with
            its process.
        aside: Keep the run out of the experiment's list of runs: in the experiment of that name and this word.

    The environment's MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME win, and an active run is joined: it gets the
    parameters and tags, and ends where it was begun; `nested` begins a new run below it. A block that fails ends the
    run FAILED with its reason in the tag `failure`, one that is interrupted KILLED.

    What the block logs by this package's functions is stored on disk and sent in the background. A store that is slow
    or unreachable does not stop the block. At the end the run waits a few seconds for it; `journal_of` tells whether
    everything arrived.

    Raises:
        InvalidInput: the experiment was deleted, or the active run has other values of these parameters.
        Unavailable: the store cannot be opened or written, or the working folder cannot be.
    """
    joined = None if nested else mlflow.active_run()
    with store_errors():
        if joined:
            active = joined
        elif run_id:
            active = _resumed(run_id)
        else:
            active = _begun(experiment, run_name, tags, nested, title, began, aside)
        started = _checked(active, joined is not None)
    own_journal: journal.Journal | None = None  # unless an outer block tracks the same run
    try:
        if not any(each.run_id == started.run_id for each in opened()):
            own_journal = _begin_journal(started, active)
        with store_errors():  # at once, while the store answers, so that a refused parameter is reported here
            values = {name: shown(value) for name, value in params.items()}
            if joined:
                _check_params(joined, values)
            mlflow.log_params(values)
            mlflow.set_tags(dict(tags))
        with contextlib.nullcontext() if joined or nested or run_id else system_metrics.logged():
            yield started
    except BaseException as error:
        if opened() and opened()[-1].run_id == started.run_id:
            set_tags({"failure": without_password(f"{type(error).__name__}: {error}")[:5000]})
        killed = isinstance(error, KeyboardInterrupt | SystemExit)
        _end("KILLED" if killed else "FAILED", own_journal, joined is not None)
        if isinstance(error, STORE_ERRORS):
            raise refused(error) from error
        raise
    _end("FINISHED", own_journal, joined is not None)


def _resumed(run_id: str) -> mlflow.ActiveRun:
    """Make a run active again, after what is left of its journals is sent."""
    _send_left(untrusted.identifier(run_id, "the run's id"))
    active = mlflow.start_run(run_id, log_system_metrics=False)
    if "failure" in active.data.tags:  # from before it was resumed
        mlflow.delete_tag("failure")
    return active


def _begun(
    experiment: str,
    run_name: str | None,
    tags: Mapping[str, str],
    nested: bool,
    title: str | None,
    began: float | None,
    aside: str,
) -> mlflow.ActiveRun:
    """Begin a run, or the one that MLFLOW_RUN_ID names."""
    above = mlflow.active_run()
    if (environment_id := id_in_environment("MLFLOW_RUN_ID")) and not above:
        return mlflow.start_run(environment_id, log_system_metrics=False)
    with _unseeded():
        where = above.info.experiment_id if above else experiment_id(experiment, aside)
        name = run_name or (queries.next_name(where, title) if title else None)
        resolved = resolve_tags({**_commit(), **tags}, ignore=[GitRunContext])  # type: ignore[list-item]  # as it is used
        if getattr(mlflow.tracking.fluent, "_active_experiment_id", None) not in (None, where):
            return mlflow.start_run(  # MLflow would not take up a run of another experiment than the one it is set to
                experiment_id=where, run_name=name, nested=nested, tags=resolved, log_system_metrics=False
            )
        below = {MLFLOW_PARENT_RUN_ID: above.info.run_id} if above else {}
        created = mlflow.MlflowClient().create_run(where, _start(began, bool(above)), {**resolved, **below}, name)
        run_id = untrusted.answered(created).info.run_id
        return mlflow.start_run(run_id, nested=nested, log_system_metrics=False)


def _start(began: float | None, nested: bool) -> int:
    """Return when a run's work began, in milliseconds: that of a command when its process did."""
    if startup.COMMAND and not nested:
        began = psutil.Process().create_time()
    return now() if began is None else min(now(), int(began * 1000))


def _commit() -> dict[str, str]:
    """Give the commit of the user's folder, as a tag; MLflow itself takes that of the program's."""
    commit = get_git_commit(os.getcwd())
    return {MLFLOW_GIT_COMMIT: commit} if commit else {}


def _checked(active: mlflow.entities.Run, joined: bool) -> Run:
    """Check the identifiers of an active run; one that we began ends where they are not safe."""
    try:
        return Run(untrusted.answered(active).info.run_id, active.info.experiment_id)
    except Unavailable:
        if not joined:
            with _impatient(), contextlib.suppress(*STORE_ERRORS):
                mlflow.end_run("FAILED")
        raise


def _begin_journal(started: Run, active: mlflow.entities.Run) -> journal.Journal:
    new = journal.begin(mlflow.get_tracking_uri(), *started)
    opened().append(new)
    with contextlib.suppress(ValueError):  # another program's tag, which is replaced
        tables = untrusted.parse_json(active.data.tags.get(TABLES, "[]"), TABLES)
        new.tables = tables if isinstance(tables, list) else []
    return new


def _check_params(run: mlflow.entities.Run, params: Mapping[str, str]) -> None:
    """Refuse to join a run that has other values already: MLflow keeps the first one of each parameter."""
    logged = mlflow.get_run(run.info.run_id).data.params
    for name, value in params.items():
        if name in logged and logged[name] != value:
            raise InvalidInput(
                f"the active MLflow run {run.info.run_id} has {name} {logged[name]} already, and this is to be "
                f"{value}: a run keeps one value of a parameter, so end it first, or begin one with "
                "mlflow.start_run(nested=True) for each"
            )


def _end(status: str, own_journal: journal.Journal | None, joined: bool) -> None:
    """Wait for what the run logs, and end it unless it was joined."""
    try:
        if own_journal:
            open_runs.end(own_journal)
            own_journal.add("leave") if joined else own_journal.add("end", status=status, time=now())
            if not own_journal.close():
                _say_unsent(own_journal)
    finally:
        if not joined:
            # MLflow's own active run ends too; the store has been told, or will be by the journal.
            with _impatient(), contextlib.suppress(*STORE_ERRORS):
                mlflow.end_run(status)


def _say_unsent(left: journal.Journal) -> None:
    where = os.path.relpath(left.folder)
    then = (
        f"once the store accepts them, {called('sync')} sends them"
        if left.waiting
        else f"{called('sync')} tries again; delete the folder if they are of no use"
    )
    count = f"{left.unsent} entries of the run's log are" if left.unsent > 1 else "1 entry of the run's log is"
    say(f"{count} kept in {where} ({left.reason}); {then}", error=True)


def _send_left(run_id: str) -> None:
    """Send what an earlier process of this run left, so that nothing of it is logged twice."""
    for folder in journal.left():
        with contextlib.suppress(InvalidInput):  # of another run or store, or damaged: sync reports it
            left = journal.resume(folder) if journal_files.header(folder)["run_id"] == run_id else None
            if left and not left.close() and left.waiting:
                raise Unavailable(f"cannot send what is left of the run in {folder}: {left.reason}")


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Have MLflow give up after seconds in the block."""
    names = ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    before = {name: os.environ.get(name) for name in names}
    os.environ |= {names[0]: "2", names[1]: "0"}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@contextlib.contextmanager
def _unseeded() -> Iterator[None]:
    # MLflow draws run names from Python's generator, and a seeded one would give every run of a seed the same name.
    state = random.getstate()
    random.seed()
    try:
        yield
    finally:
        random.setstate(state)
