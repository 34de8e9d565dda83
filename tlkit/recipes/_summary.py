"""What a training recipe prints at its end: the scores, where everything is, and what to do next."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tlkit.display import cut, quoted, say, shown
from tlkit.errors import without_password
from tlkit.recipes import _links, _networks, _run_exports

if TYPE_CHECKING:
    import keras

    from tlkit import evaluation, tracking
    from tlkit.recipes._jobs import Job
    from tlkit.recipes._results import Result


REPORT = "report.html"


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
    if job.config.register and not result.registered:
        print_unregistered(job.config.register)
    _print_next(run, result, delivered)
    return result


def counted(examples: int, kind: str, groups: int | None = None) -> str:
    """Say how many examples a score is of.

    >>> counted(300, "photos", 30)
    '300 photos of 30 groups'
    """
    return f"{examples:,} {kind}" + ("" if groups is None else f" of {groups:,} group{'s' * (groups != 1)}")


def always(
    classes: Sequence[str],
    majority: int | None,
    accuracy: float | None,
    quote: Callable[[str], str] = "'{}'".format,
    digits: int = 4,
) -> str:
    """Say how accurate a constant prediction is: what an accuracy stands beside; empty if that is not known.

    Args:
        classes: Their names.
        majority: The class that is always predicted; None if an example may have several.
        accuracy: Its accuracy.
        quote: Writes the name of the class.
        digits: Number of decimals.

    >>> always(["covid", "normal"], 1, 0.95)
    "always 'normal': 0.9500"
    """
    if accuracy is None:
        return ""
    constant = "what most examples have" if majority is None else quote(cut(shown(classes[majority]), 40))
    return f"always {constant}: {accuracy:.{digits}f}"


def of_positive(scores: evaluation.Scores, classes: Sequence[str], quote: Callable[[str], str] = "'{}'".format) -> str:
    """Write precision, recall and average precision, of which class they are; empty unless there are two classes.

    Args:
        scores: Of the model.
        classes: Their names.
        quote: Writes the name of the class.
    """
    if scores.positive is None:
        return ""
    metrics, name = scores.metrics(), quote(cut(shown(classes[scores.positive]), 40))
    names = ("precision", "recall", "average_precision")
    values = {each: metrics.get(f"{scores.split}_{each}", math.nan) for each in names}
    if not scores.confusion[scores.positive].any():
        return f"precision and recall of {name} are unknown: no example has that label"
    return ", ".join(f"{each.replace('_', ' ')} {value:.3f}" for each, value in values.items()) + f" of {name}"


def _print_scores(job: Job[Any], result: Result) -> None:
    scores, classes = result.scores, result.classes
    headline, score, (low, high) = scores.headline
    constant = always(classes, scores.majority, scores.majority_accuracy)
    say(f"\n{job.recipe}: {_networks.name(job.config)}, {result.model.count_params():,} parameters")
    method = "bootstrap " if scores.multi_label else ""
    count = counted(scores.photos, result.kind, scores.groups)
    beside = f"; {constant}" if constant and not scores.multi_label else ""
    spread = f"95 % {method}interval {low:.3f} to {high:.3f}, {count}{beside}"
    say(f"  {scores.split} {headline:<8}  {score:.4f}  ({spread})")
    if result.fit.is_optimistic(scores):
        say("                     these examples also chose the epoch, so this is not a test score")
    for line in result.fit.under:
        say(f"  {line}")
    if scores.unequal:
        say(f"  {scores.split} balanced accuracy  {scores.balanced_accuracy:.4f}  (mean recall of the classes)")
    if scores.auc is not None:
        say(f"  {scores.split} AUC       {scores.auc:.4f}")
    if scores.multi_label:
        say(f"  {scores.split} F1        {scores.f1:.4f}  (mean of the labels, at probabilities above 0.5)")
        constant = f"; {constant}" if constant else ""
        exact = f"of labels{constant}; all labels of an example are right: {scores.exact_match:.4f}"
        say(f"  {scores.split} accuracy  {scores.accuracy:.4f}  ({exact})")
    if precision := of_positive(scores, classes):
        say(f"  {scores.split} {precision}")
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
    artifacts = tracking.run_folder(run_id) if delivered else None
    page = _links.shown(artifacts / REPORT) if artifacts else f"{REPORT}, among the artifacts of the run"
    say(f"  report {page}")
    print_registered(result.registered)
    for row in result.exports.rows:
        place = _run_exports.place(row.format)
        where = _links.shown(artifacts / place) if artifacts else f"{place} of the run's artifacts"
        same = f"probabilities differ by {row.parity.largest:.1e} at the most"
        say(f"  export {where} ({same}, {row.bytes / 1e6:.2f} MB)")


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


def print_unregistered(name: str) -> None:
    """Say what becomes of `--register` where the store was away at the end."""
    sync = _links.recipe("sync")
    say(f"  {shown(name)}: not registered yet, as the store did not answer; {sync} registers it, and says its role")


def print_registered(registered: Sequence[str] | None) -> None:
    """Print as which version a model was registered, and why it has its alias."""
    if registered:
        name, version, alias, reason = registered
        say(f"  {shown(name)} version {version}{f', {alias}' if alias else ''}: {shown(reason)}")
