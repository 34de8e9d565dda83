"""What the innermost run logs, into its journal: parameters, metrics, tags, artifacts, data sets and models."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow

from tlkit.display import shown
from tlkit.tracking.database import store_errors
from tlkit.tracking.open_runs import innermost, opened
from tlkit.tracking.sending import MOST

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

    from tlkit import plots

TABLES = "mlflow.loggedArtifacts"
FIRST = {"val_accuracy": 0, "val_loss": 1}  # metrics of an epoch, and the order in which they are logged


def log_params(params: Mapping[str, Any]) -> None:
    """Log settings of the innermost run."""
    items, most = [(name, shown(value)) for name, value in params.items()], MOST["params"]
    for start in range(0, len(items), most):
        innermost().add("params", values=dict(items[start : start + most]))


def log_metrics(values: Mapping[str, float], step: int = 0) -> None:
    """Log numbers of the innermost run, as of now."""
    if not opened():  # a run that the caller began without us
        mlflow.log_metrics(dict(values), step=step)
        return
    logged = innermost().logged_metrics
    new = {name: float(value) for name, value in values.items() if (name, step) not in logged}
    if new:
        innermost().has_scores = True
        innermost().add("metrics", values=new, step=step, time=now())


def log_nothing_twice() -> None:
    """Skip from now on what the innermost run has logged before it was resumed."""
    journal, client = innermost(), mlflow.MlflowClient()
    with store_errors():
        run = client.get_run(journal.run_id)
        for name in run.data.metrics:
            history = client.get_metric_history(journal.run_id, name)
            journal.logged_metrics |= {(name, entry.step) for entry in history}
        outputs = run.outputs.model_outputs if run.outputs else []
        journal.adopt(next((output.model_id for output in outputs), None))


def set_tags(tags: Mapping[str, str]) -> None:
    """Set tags of the innermost run."""
    innermost().add("tags", values=dict(tags))


@contextlib.contextmanager
def artifact(name: str) -> Iterator[Path]:
    """Give the path of a file, or folder, that the block writes and that becomes an artifact of the innermost run.

    Args:
        name: Name of the artifact, such as `curves.png`; folders are part of it.
    """
    journal = innermost()
    to, _, last = name.rpartition("/")
    with journal.file(last) as path:
        yield path
        journal.add("artifact", file=str(path.relative_to(journal.folder)), to=to)


def log_artifact(path: Path) -> None:
    """Log a file as it is now."""
    with artifact(path.name) as copy:
        shutil.copyfile(path, copy)


def log_text(text: str, name: str) -> None:
    """Log a text as a file."""
    with artifact(name) as path:
        path.write_text(text, encoding="utf-8")


def log_figure(figure: Figure | plots.Picture, name: str) -> bytes:
    """Log a figure as a picture, and return the picture's file."""
    from tlkit import plots

    with artifact(name) as path:
        if isinstance(figure, plots.Picture):
            path.write_bytes(figure.png())
        else:
            plots.save(figure, path)
        return path.read_bytes()


def log_table(table: Mapping[str, Sequence[Any]], name: str) -> None:
    """Log columns as a table, `….json`, that the MLflow UI shows and `mlflow.load_table` reads."""
    import pandas as pd

    with artifact(name) as path:
        pd.DataFrame(dict(table)).to_json(path, orient="split", index=False, date_format="iso")
    tables, entry = innermost().tables, {"path": name, "type": "table"}
    if entry not in tables:
        tables.append(entry)
        set_tags({TABLES: json.dumps(tables)})


def log_inputs(datasets: Sequence[Mapping[str, str]]) -> None:
    """Log what the run learns from and is tested on.

    Args:
        datasets: For each a `context`, such as training, and the fields of `mlflow.entities.Dataset`.
    """
    innermost().add("inputs", values=[dict(dataset) for dataset in datasets])


def log_model(save: Callable[[Path], None], name: str = "model", step: int = 0) -> Path:
    """Log a model of the innermost run; a resumed run that has logged its model before keeps that one.

    Args:
        save: Writes the MLflow model folder, complete except for its run.
        name: Name of the model.
        step: The run's metrics at this step are the model's too.

    Returns:
        The folder where it lies until the store has it.
    """
    journal = innermost()
    with journal.file(name) as path:
        save(path)
        if not journal.has_model:
            file = str(path.relative_to(journal.folder))
            journal.add("model", file=file, name=name, step=step, key=secrets.token_hex(8))
    return path


def register(name: str) -> None:
    """Register the innermost run's model, as champion if it earned that; see `tlkit.tracking.registry`."""
    innermost().add("register", name=name)


def epoch_logger(prefix: str = "", after: int = 0) -> keras.callbacks.Callback:
    """Make a Keras callback that logs each epoch's metrics; the step is the global epoch, from 1.

    Args:
        prefix: Put in front of the metrics' names.
        after: Epochs that the run has logged already, before its training was interrupted.
    """
    import keras

    class EpochLogger(keras.callbacks.Callback):
        logged = after  # epochs; a phase that ran out of memory starts again

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            if epoch >= self.logged:
                self.logged = epoch + 1
                # MLflow's comparison page preselects the metric that came first: a score that runs are compared by.
                ordered = sorted((logs or {}).items(), key=lambda item: FIRST.get(item[0], len(FIRST)))
                log_metrics({f"{prefix}{name}": float(value) for name, value in ordered}, step=epoch + 1)

    return EpochLogger()


def now() -> int:
    """Return the time in milliseconds, as MLflow counts it."""
    return time.time_ns() // 1_000_000
