"""A run of MLflow's and what it logs, kept on disk and sent in the background."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
import psutil

from tlkit import untrusted
from tlkit.display import called, say, shown
from tlkit.errors import InvalidInput, Unavailable, without_password
from tlkit.tracking import journal, journal_files
from tlkit.tracking.database import STORE_ERRORS, experiment_id, given_id, refused, store_errors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLES = "mlflow.loggedArtifacts"
INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"  # MLflow's own name; seconds


class Run(NamedTuple):
    """A run being tracked; `mlflow.log_*` goes to it."""

    run_id: str
    experiment_id: str


_local = threading.local()  # as MLflow's active run is
_ended: dict[str, journal.Journal] = {}  # those that are not any more, by run


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

    What the block logs by this module's functions is kept on disk and sent in the background: a store that is slow or
    goes away stops nothing. At the end it is waited for, for seconds; `journal_of` tells whether all arrived.

    Raises:
        InvalidInput: the experiment was deleted, or the active run has other values of these parameters.
        Unavailable: the store cannot be opened or written, or the working folder cannot be.
    """
    above = mlflow.active_run()
    joined = None if nested else above
    with store_errors():
        if joined:
            active = joined
        elif run_id:
            _send_left(untrusted.identifier(run_id, "the run's id"))
            active = mlflow.start_run(run_id, log_system_metrics=False)
            if "failure" in active.data.tags:  # of the part before
                mlflow.delete_tag("failure")
        elif (given := given_id("MLFLOW_RUN_ID")) and not above:
            active = mlflow.start_run(given, log_system_metrics=False)
        else:
            with _unseeded():
                where = above.info.experiment_id if above else experiment_id(experiment)
                active = mlflow.start_run(
                    experiment_id=where, run_name=run_name, nested=nested, tags=dict(tags), log_system_metrics=False
                )
        try:
            started = Run(untrusted.answered(active).info.run_id, active.info.experiment_id)
        except Unavailable:
            if not joined:
                with _impatient(), contextlib.suppress(*STORE_ERRORS):
                    mlflow.end_run("FAILED")
            raise
    kept = None
    try:
        if not any(one.run_id == started.run_id for one in _opened()):
            kept = journal.begin(mlflow.get_tracking_uri(), *started)
            _opened().append(kept)
            with contextlib.suppress(ValueError):  # somebody else's: it is written anew
                tables = untrusted.parse_json(active.data.tags.get(TABLES, "[]"), TABLES)
                kept.tables = tables if isinstance(tables, list) else []
        with store_errors():  # at once, as the store answers: a parameter that it refuses is told here
            values = {name: shown(value) for name, value in params.items()}
            if joined:
                _check_params(joined, values)
            mlflow.log_params(values)
            mlflow.set_tags(dict(tags))
        with contextlib.nullcontext() if joined or nested or run_id else _system_metrics():
            yield started
    except BaseException as error:
        killed = isinstance(error, KeyboardInterrupt | SystemExit)
        if _opened() and _opened()[-1].run_id == started.run_id:
            set_tags({"failure": without_password(f"{type(error).__name__}: {error}")[:5000]})
        _end("KILLED" if killed else "FAILED", kept, joined is not None)
        if isinstance(error, STORE_ERRORS):
            raise refused(error) from error
        raise
    _end("FINISHED", kept, joined is not None)


def _check_params(run: mlflow.entities.Run, params: Mapping[str, str]) -> None:
    """Refuse to join a run that has other values already: MLflow keeps the first one of each parameter."""
    known = mlflow.get_run(run.info.run_id).data.params
    for name, value in params.items():
        if name in known and known[name] != value:
            raise InvalidInput(
                f"the active MLflow run {run.info.run_id} has {name} {known[name]} already, and this is to be "
                f"{value}: a run keeps one value of a parameter, so end it first, or begin one with "
                "mlflow.start_run(nested=True) for each"
            )


def _end(status: str, kept: journal.Journal | None, joined: bool) -> None:
    """Wait for what the run logs, and end it where it was not joined."""
    try:
        if kept:
            _opened().remove(kept)
            _ended[kept.run_id] = kept
            kept.add("leave") if joined else kept.add("end", status=status, time=_now())
            if not kept.close():
                _say_unsent(kept)
    finally:
        if not joined:
            # MLflow's own notion of the active run ends too; the store has heard, or will hear from the journal.
            with _impatient(), contextlib.suppress(*STORE_ERRORS):
                mlflow.end_run(status)


def _say_unsent(kept: journal.Journal) -> None:
    where = os.path.relpath(kept.folder)
    then = (
        f"once it takes them, {called('sync')} sends them"
        if kept.waiting
        else f"{called('sync')} tries again; delete the folder if they are of no use"
    )
    count = f"{kept.unsent} entries of the run's log are" if kept.unsent > 1 else "1 entry of the run's log is"
    say(f"{count} kept in {where} ({kept.reason}); {then}", error=True)


def _opened() -> list[journal.Journal]:
    """The journals of the runs that this thread tracks, the innermost last."""
    if not hasattr(_local, "journals"):
        _local.journals = []
    return _local.journals


def journal_of(run_id: str) -> journal.Journal:
    """Give the journal of a run that this process has tracked: what is unsent, and what became of its model."""
    return next(one for one in [*_ended.values(), *_opened()] if one.run_id == run_id)


def deliver() -> str | None:
    """Wait for what the innermost run has logged so far, for seconds if the store does not answer.

    Returns:
        URI of the model that was logged last, `models:/m-…`; None where the store does not have it.
    """
    _opened()[-1].deliver()
    return _opened()[-1].model_uri


def log_params(params: Mapping[str, Any]) -> None:
    """Log settings of the innermost run."""
    items, most = [(name, shown(value)) for name, value in params.items()], journal.MOST["params"]
    for start in range(0, len(items), most):
        _opened()[-1].add("params", values=dict(items[start : start + most]))


def log_metrics(values: Mapping[str, float], step: int = 0) -> None:
    """Log numbers of the innermost run, as of now."""
    if not _opened():  # a run that the caller began without us
        mlflow.log_metrics(dict(values), step=step)
        return
    known = _opened()[-1].known
    kept = {name: float(value) for name, value in values.items() if (name, step) not in known}
    if kept:
        _opened()[-1].add("metrics", values=kept, step=step, time=_now())


def log_nothing_twice() -> None:
    """Leave out from now on what the innermost run has already, of a part before that is done again in part."""
    kept, client = _opened()[-1], mlflow.MlflowClient()
    with store_errors():
        run = client.get_run(kept.run_id)
        for name in run.data.metrics:
            kept.known |= {(name, entry.step) for entry in client.get_metric_history(kept.run_id, name)}
        outputs = run.outputs.model_outputs if run.outputs else []
        kept.adopt(next((output.model_id for output in outputs), None))


def set_tags(tags: Mapping[str, str]) -> None:
    """Set tags of the innermost run."""
    _opened()[-1].add("tags", values=dict(tags))


@contextlib.contextmanager
def artifact(name: str) -> Iterator[Path]:
    """Give the path of a file, or folder, that the block writes and that becomes an artifact of the innermost run.

    Args:
        name: Of the artifact, such as `curves.png`; folders are part of it.
    """
    kept = _opened()[-1]
    to, _, last = name.rpartition("/")
    with kept.file(last) as path:
        yield path
        kept.add("artifact", file=str(path.relative_to(kept.folder)), to=to)


def log_artifact(path: Path) -> None:
    """Log a file as it is now."""
    with artifact(path.name) as copy:
        shutil.copyfile(path, copy)


def log_text(text: str, name: str) -> None:
    """Log a text as a file."""
    with artifact(name) as path:
        path.write_text(text, encoding="utf-8")


def log_figure(figure: Figure, name: str) -> None:
    """Log a figure as a picture."""
    from tlkit import plots

    with artifact(name) as path:
        plots.save(figure, path)


def log_table(table: Mapping[str, Sequence[Any]], name: str) -> None:
    """Log columns as a table, `….json`, that the MLflow UI shows and `mlflow.load_table` reads."""
    import pandas as pd

    with artifact(name) as path:
        pd.DataFrame(dict(table)).to_json(path, orient="split", index=False, date_format="iso")
    known, entry = _opened()[-1].tables, {"path": name, "type": "table"}
    if entry not in known:
        known.append(entry)
        set_tags({TABLES: json.dumps(known)})


def log_inputs(datasets: Sequence[Mapping[str, str]]) -> None:
    """Log what the run learns from and is tested on.

    Args:
        datasets: For each a `context`, such as training, and the fields of `mlflow.entities.Dataset`.
    """
    _opened()[-1].add("inputs", values=[dict(dataset) for dataset in datasets])


def log_model(save: Callable[[Path], None], name: str = "model", step: int = 0) -> Path:
    """Log a model of the innermost run.

    Args:
        save: Writes the MLflow model folder, whole but for the run that it is of.
        name: Of the model.
        step: At which the run's metrics are the model's too.

    A run that goes on, and logged its model before, keeps that.

    Returns:
        The folder where it lies until the store has it.
    """
    kept = _opened()[-1]
    with kept.file(name) as path:
        save(path)
        if kept.adopted:
            return path
        kept.add("model", file=str(path.relative_to(kept.folder)), name=name, step=step, key=secrets.token_hex(8))
    return path


def register(name: str) -> None:
    """Register the innermost run's model, as champion if it earned that; see `tlkit.tracking.registry`."""
    _opened()[-1].add("register", name=name)


def epoch_logger(prefix: str = "", after: int = 0) -> Any:
    """Make a Keras callback that logs each epoch's metrics; the step is the global epoch, from 1.

    Args:
        prefix: Of the metrics' names.
        after: Epochs that the run has already, from a training that was interrupted and is done again.
    """
    import keras

    class EpochLogger(keras.callbacks.Callback):
        logged = after  # epochs; a phase that memory ran out in is done again

        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            if epoch >= self.logged:
                self.logged = epoch + 1
                values = {f"{prefix}{name}": float(value) for name, value in (logs or {}).items()}
                log_metrics(values, step=epoch + 1)

    return EpochLogger()


def _send_left(run_id: str) -> None:
    """Send what a part of this run left, whose process was killed: what follows is not to say it once more."""
    for folder in journal.left():
        with contextlib.suppress(InvalidInput):  # of another run or store, or damaged: sync tells
            kept = journal.resume(folder) if journal_files.header(folder)["run_id"] == run_id else None
            if kept and not kept.close() and kept.waiting:
                raise Unavailable(f"cannot send what is left of the run in {folder}: {kept.reason}")


@contextlib.contextmanager
def _system_metrics() -> Iterator[None]:
    """Log what the machine is busy with during the block, by MLflow's names: at intervals, and once at the end."""
    if os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true").lower() in ("false", "0"):
        yield
        return
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(Exception):  # no GPU, or nothing to ask it with
        monitors.append(GPUMonitor())
    interval, ended, steps = float(os.environ.get(INTERVAL) or 10), threading.Event(), itertools.count()
    kept = _opened()[-1]

    def sample() -> None:
        values: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            values |= {f"system/{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        kept.add("metrics", values=values, step=next(steps), time=_now())

    def watch() -> None:
        while not ended.wait(interval):
            sample()

    psutil.cpu_percent()  # the first call begins the time that the next one is about
    thread = threading.Thread(target=watch, name="tlkit system metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(Exception):  # it says nothing of the run
            sample()


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    names = ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    before = {name: os.environ.get(name) for name in names}
    os.environ |= {names[0]: "2", names[1]: "0"}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def _now() -> int:
    return time.time_ns() // 1_000_000


@contextlib.contextmanager
def _unseeded() -> Iterator[None]:
    # MLflow draws run names from Python's generator, and a seeded one would give every run of a seed the same name.
    state = random.getstate()
    random.seed()
    try:
        yield
    finally:
        random.setstate(state)
