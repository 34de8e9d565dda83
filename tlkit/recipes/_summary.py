"""What a training recipe prints at its end: the scores, where everything is, and what to do next."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tlkit.display import quoted, say, shown
from tlkit.errors import without_password
from tlkit.recipes import _links, _networks

if TYPE_CHECKING:
    import keras

    from tlkit import tracking
    from tlkit.recipes._jobs import Job
    from tlkit.recipes._results import Result


def show(job: Job[Any], run: tracking.Run, result: Result) -> Result:
    """Print what was trained, how well, how long it took, where it is and what to do next.

    Returns:
        The result, with what the store made of the model.
    """
    from tlkit import tracking

    ended = tracking.journal_of(result.run_id)
    result = result._replace(model_uri=ended.model_uri or result.model_uri, registered=ended.registered)
    delivered = not ended.unsent
    _print_scores(job, result)
    _print_places(job, result, delivered)
    _print_next(run, result, delivered)
    return result


def _print_scores(job: Job[Any], result: Result) -> None:
    scores = result.scores
    headline, score, (low, high) = scores.headline
    say(f"\n{job.recipe}: {_networks.name(job.config)}, {result.model.count_params():,} parameters")
    method = "bootstrap " if scores.multi_label else ""
    spread = f"95 % {method}interval {low:.3f} to {high:.3f}, {scores.photos} {result.kind}"
    say(f"  {scores.split} {headline:<8}  {score:.4f}  ({spread})")
    if result.fit.is_optimistic(scores):
        say("                     these examples also chose the epoch, so this is not a test score")
    if scores.auc is not None:
        say(f"  {scores.split} AUC       {scores.auc:.4f}")
    if scores.multi_label:
        say(f"  {scores.split} F1        {scores.f1:.4f}  (mean of the labels, at probabilities above 0.5)")
        exact = f"of labels; all labels of an example are right: {scores.exact_match:.4f}"
        say(f"  {scores.split} accuracy  {scores.accuracy:.4f}  ({exact})")
    for line in result.fit.lines:
        say(f"  {line}")


def _print_places(job: Job[Any], result: Result, delivered: bool) -> None:
    """Print how long it took, and where the run and the model are."""
    import mlflow

    from tlkit import tracking
    from tlkit.progress import duration

    folder = tracking.model_folder(result.model_uri) if delivered else None
    model = _links.shown(folder / "data" / "model.keras") if folder else quoted(result.model_uri)
    run_id = result.run_id
    name = f"{shown(mlflow.get_run(run_id).info.run_name)} ({run_id})" if delivered else run_id
    say(f"  time  {duration(result.fit.seconds)} of training, {duration(time.perf_counter() - job.began)} in all")
    say(f"  run   {name} in {without_password(mlflow.get_tracking_uri())}")
    say(f"  model {model}")
    print_registered(result.registered)


def _print_next(run: tracking.Run, result: Result, delivered: bool) -> None:
    """Print how to use the model, and where to look at the run."""
    from tlkit import tracking
    from tlkit.data import modalities

    modality = modalities.row(result.kind)
    artifacts = tracking.run_folder(result.run_id) if delivered else None
    example = modality.example_file
    file = _links.shown(artifacts / example) if artifacts else example.replace("example", "FILE")
    say("\nNext:")
    if modality.predicted:
        say(f"  {_links.recipe('predict')} {quoted(result.model_uri)} {file}")
    elif not delivered:
        say(f"  keras.saving.load_model({json.dumps(result.model_uri)})  # in Python; takes {_inputs(result.model)}")
    elif not modality.requests:
        say(f'  mlflow.keras.load_model("{result.model_uri}")  # in Python; takes {_inputs(result.model)}')
    else:
        request = f'{{"{modality.requests.column}": ["{file}"]}}'
        say(f'  mlflow.pyfunc.load_model("{result.model_uri}").predict({request})  # in Python')
    if delivered:
        _links.print_links(run)
    else:
        say(f"  {_links.recipe('sync')}      # once the store is reachable")


def _inputs(model: keras.Model) -> str:
    """Write down what a model takes.

    >>> import keras
    >>> _inputs(keras.Sequential([keras.Input((8000, 1), name="samples"), keras.layers.Flatten()]))
    'samples: (batch, 8000, 1)'
    """
    shapes = [", ".join("any" if length is None else str(length) for length in t.shape[1:]) for t in model.inputs]
    return "; ".join(f"{t.name}: (batch, {shape})" for t, shape in zip(model.inputs, shapes, strict=True))


def print_registered(registered: Sequence[str] | None) -> None:
    """Print as which version a model was registered, and why it has its alias."""
    if registered:
        name, version, alias, reason = registered
        say(f"  {shown(name)} version {version}{f', {alias}' if alias else ''}: {shown(reason)}")
