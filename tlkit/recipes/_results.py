"""What a training recipe leaves: scores, pictures, the logged model and a summary; and such a model, loaded again."""

from __future__ import annotations

import json
import re
import time
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit import config as configs
from tlkit.display import code, markdown, quoted, say, shown
from tlkit.errors import InvalidInput, first_line, without_password
from tlkit.recipes import _links, _runs, _steps

if TYPE_CHECKING:
    import keras
    import numpy as np
    from matplotlib.figure import Figure

    from tlkit import data, evaluation, probes, tracking, training
    from tlkit.data import graph
    from tlkit.tracking import registry

PURPOSES = {"train": "training", "val": "validation", "test": "the test"}


class Fit(NamedTuple):
    """How a model came to its weights: what to log of it, and what to say.

    Args:
        parts: Seconds of training, by what was done.
        metrics: For MLflow, by their names there.
        pictures: For MLflow, by their file names.
        said: Lines of the summary.
        chosen_by_val: Whether the validation photos had a say, so that their score is no test score.
    """

    parts: dict[str, float]
    metrics: dict[str, float]
    pictures: dict[str, Figure]
    said: list[str]
    chosen_by_val: bool

    @property
    def seconds(self) -> float:
        """Seconds of training, all parts."""
        return sum(self.parts.values())


class Result(NamedTuple):
    """What a training recipe leaves: the model with its best weights, and where MLflow has it.

    Where the tracking server was away at the end, `model_uri` is the path of the model's file.
    """

    model: keras.Model
    fit: Fit
    scores: evaluation.Scores
    run_id: str
    model_uri: str
    kind: str = "photos"  # what the model looks at; or sounds, arrays or nodes
    registered: registry.Registered | None = None


def with_tta(config: configs.Training, model: keras.Model, splits: data.Splits, predicted: np.ndarray, fit: Fit) -> Fit:
    """Score the mean over changed views of each test photo, and what is `predicted` of itself, where that is wanted."""
    if not config.tta:
        return fit
    import numpy as np

    from tlkit import data, evaluation, training

    split, part = _steps.scored(splits)
    views = data.changed(part, _steps.changes(config.augment), config.tta, config.seed)  # type: ignore[attr-defined]
    seen = [training.predict(model, view, _steps.batch_size(config)) for view in views]
    scores = evaluation.score(split, np.mean([predicted, *seen], axis=0), part.labels).metrics()
    fit.metrics.update({f"{name}_tta": value for name, value in scores.items()})
    views_said = "its mirror image" if isinstance(views[0], data.Mirrored) else f"{len(views)} views of it"
    accuracy = scores[f"{split}_accuracy"]
    fit.said.append(f"tta   {split} accuracy {accuracy:.4f}, the mean of each and {views_said}")
    return fit


def trained(history: training.History, extracting: float = 0.0) -> Fit:
    """Tell how training went, epoch by epoch, and how long features for it took."""
    from tlkit import plots

    best = history.best
    return Fit(
        parts={"epochs": history.seconds} | ({"features": extracting} if extracting else {}),
        metrics={
            "best_epoch": best["epoch"],
            "best_val_loss": best["val_loss"],
            "best_val_accuracy": best["val_accuracy"],
        },
        pictures={"learning_curves.png": plots.learning_curves(history.epochs, best["epoch"])},
        said=[f"kept  epoch {best['epoch']} of {len(history.epochs)}, phase {best['phase']}"],
        chosen_by_val=True,
    )


def solved(probe: probes.Probe, nearest: float, parts: dict[str, float], learned_from: str) -> Fit:
    """Tell how a head was solved, with how much regularization, and what the features are worth untrained."""
    from tlkit import plots

    chosen = next(tried for tried in probe.tried if tried.l2 == probe.l2)
    return Fit(
        parts=parts,
        metrics={
            "l2": chosen.l2,
            "cross_validated_loss": chosen.loss,
            "cross_validated_accuracy": chosen.accuracy,
            "nearest_neighbours_accuracy": nearest,
        },
        pictures={"regularization.png": plots.regularization(probe.tried, chosen.l2)},
        said=[
            f"l2    {chosen.l2:.2g}, the best of {len(probe.tried)} strengths by cross-validation on {learned_from}:"
            f" accuracy {chosen.accuracy:.3f}",
            f"5 nearest neighbours, nothing learnt: accuracy {nearest:.3f} (cross-validated)",
        ],
        chosen_by_val=False,
    )


def finish(
    recipe: str,
    config: Any,
    started: tracking.Run,
    model: keras.Model,
    fit: Fit,
    splits: data.Splits,
    probabilities: np.ndarray,
    register: str | None = None,
) -> Result:
    """Score what the model says of the test split, else the validation split, and log it with all that shows it."""
    from tlkit import evaluation, plots, tracking
    from tlkit.evaluation import predictions

    split, part = _steps.scored(splits)
    scores = evaluation.score(split, probabilities, part.labels)
    told = predictions.table(split, part.names, part.hashes, part.labels, probabilities, splits.classes)
    fit.pictures["worst_mistakes.png"] = plots.mistakes(
        part.read,
        told["label"],
        told["predicted"],
        told["probability"],
        splits.kind,
        told["file"],
        losses=evaluation.binary_crossentropy(probabilities, part.labels) if splits.multi_label else None,
        draw=splits.modality.draw,
    )
    example = part.read([0])[0]
    content = splits.modality.encode(example, splits.rate)
    with tracking.artifact(splits.modality.example_file) as path:
        path.write_bytes(content)
    fit.metrics.update(_speed(model, part))
    return log_result(recipe, config, started, model, fit, scores, told, splits, content, register)


def _speed(model: keras.Model, part: data.Photos) -> dict[str, float]:
    """Measure how many examples in memory the model looks at in a second, unless compiling that would take long."""
    import keras

    if keras.backend.backend() != "tensorflow" and getattr(model, "predict_function", None) is None:
        return {}
    batch = part.read(range(min(32, len(part))))
    model.predict_on_batch(batch)
    began, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - began < 0.1:
        model.predict_on_batch(batch)
        count += 1
    return {"predict_per_second": count * len(batch) / (time.perf_counter() - began)}


def log_result(
    recipe: str,
    config: Any,
    started: tracking.Run,
    model: keras.Model,
    fit: Fit,
    scores: evaluation.Scores,
    told: dict[str, list[Any]],
    splits: data.Splits | graph.Graph,
    example: bytes | None = None,
    register: str | None = None,
) -> Result:
    """Log the scores, what was predicted, the pictures and the model, once each, and wait until the store has them."""
    from tlkit import evaluation, plots, serving, tracking
    from tlkit.evaluation import predictions

    classes, kind = splits.classes, splits.kind
    tracking.log_metrics(
        {
            **scores.metrics(),
            **fit.metrics,
            "training_seconds": fit.seconds,
            "parameters": model.count_params(),
        }
    )  # all at step 0, not at an epoch, so that MLflow compares runs by them as bars
    tracking.log_table(told, predictions.FILE)
    table = evaluation.by_class(scores.confusion, classes, scores.average_precision if scores.multi_label else None)
    tracking.log_table(table, "class_scores.json")
    headline, score, _ = scores.headline
    title = f"{scores.split} {headline} {score:.3f}, {scores.photos} {kind}"
    pictures = {
        **fit.pictures,
        "confusion_matrix.png": plots.confusion_matrix(scores.confusion, classes, title),
        "class_scores.png": plots.class_scores(table, title),
    }
    for name, picture in pictures.items():
        tracking.log_figure(picture, name)
    if example is not None:
        tracking.log_text(json.dumps(serving.serving_example(example, kind)), "example_request.json")

    def save(path: Path) -> None:
        rate = getattr(splits, "rate", None)
        serving.save_model(path, model, classes, kind=kind, rate=rate, requirements=requirements(), example=example)
        tracking.log_metrics({"model_megabytes": (path / "data" / "model.keras").stat().st_size / 1e6})

    saved = tracking.log_model(save)
    described = describe(recipe, config, model, fit, scores, splits, started.run_id)
    tracking.set_tags({"mlflow.note.content": described})
    if register:
        tracking.register(register)
    tracking.deliver()
    return Result(model, fit, scores, started.run_id, str(saved / "data" / "model.keras"), kind)


def describe(
    recipe: str,
    config: Any,
    model: keras.Model,
    fit: Fit,
    scores: evaluation.Scores,
    splits: data.Splits | graph.Graph,
    run_id: str,
) -> str:
    """Describe a run for whoever opens it: what was trained on what, how well it does, and how to use it."""
    from tlkit import plots
    from tlkit.progress import duration

    kind, (headline, score, (low, high)) = splits.kind, scores.headline
    name, network = markdown(_runs.dataset_name(config.data)), markdown(_runs.network(config))
    counts = {split: count for split, (count, _) in splits.parts.items()}
    said = ", ".join(f"{counts[split]:,} for {word}" for split, word in PURPOSES.items() if split in counts)
    chosen = " These examples chose the epoch too, so this flatters." if _flatters(fit, scores) else ""
    classes = ", ".join(markdown(plots.shortened(name, 60)) for name in splits.classes[:20])
    classes += ", ..." if len(splits.classes) > 20 else ""
    command = f"python -m tlkit.recipes.predict runs:/{run_id}/model PHOTO.jpg"
    served = f"mlflow models serve -m runs:/{run_id}/model --env-manager local"
    loaded = f'model = mlflow.pyfunc.load_model("runs:/{run_id}/model")'
    use = [command] * splits.modality.predicted + [served] * bool(splits.modality.requests)
    mistakes = "`worst_mistakes.png` and " if "worst_mistakes.png" in fit.pictures else ""
    lines = [
        f"**{network}**, {model.count_params():,} parameters, by `{recipe}` on {kind} of **{name}**: "
        f"{said}; {len(splits.classes)} classes ({classes}).",
        "",
        f"**{scores.split.capitalize()} {headline} {score:.3f}** (95 % interval {low:.3f} to {high:.3f}, "
        f"{scores.photos:,} {kind}), F1 {scores.f1:.3f}, loss {scores.loss:.3f}{_also(scores, splits.classes)}; "
        f"trained in {duration(fit.seconds)}.{chosen}",
        "",
        "To use it:",
        "",
        "```",
        *use,
        loaded,
        "```",
        "",
        f"Where it is wrong: {mistakes}`predictions.json`. `config.yaml` repeats the run.",
    ]
    return "\n".join(lines)


def _also(scores: evaluation.Scores, classes: Sequence[str]) -> str:
    """Say what else is asked of several labels an example, and of two classes, of which the second is the positive."""
    found = {name.removeprefix(f"{scores.split}_"): value for name, value in scores.metrics().items()}
    if scores.multi_label:
        said = {"micro F1": "f1_micro", "labels right": "accuracy", "all labels of an example right": "exact_match"}
    elif len(classes) == 2:
        said = {
            f"{code(classes[1])}: precision": "precision",
            "recall": "recall",
            "average precision": "average_precision",
        }
    else:
        said = {}
    return "".join(f", {text} {found[name]:.3f}" for text, name in said.items() if name in found)


def _flatters(fit: Fit, scores: evaluation.Scores) -> bool:
    return scores.split == "validation" and fit.chosen_by_val


def requirements() -> list[str]:
    """Give what loading a model needs, pinned; given to MLflow, whose own search takes 15 s."""
    import keras

    names = ["keras", keras.backend.backend(), "numpy", "mlflow", "tlkit"]
    return [f"{name}=={metadata.version(name)}" for name in names]


def summarize(recipe: str, config: _steps.AnyConfig, result: Result, started: tracking.Run, began: float) -> Result:
    """Print what was trained, how well, how long it took, where it is and what to do next.

    Returns:
        The result, with what the store made of the model.
    """
    import mlflow

    from tlkit import tracking
    from tlkit.data import modalities
    from tlkit.progress import duration

    ended = tracking.journal_of(result.run_id)
    result = result._replace(model_uri=ended.model_uri or result.model_uri, registered=ended.registered)
    scores, there = result.scores, not ended.unsent
    folder = tracking.model_folder(result.model_uri) if there else None
    model = _links.shown(folder / "data" / "model.keras") if folder else quoted(result.model_uri)
    uri = mlflow.get_tracking_uri()
    name = f"{shown(mlflow.get_run(result.run_id).info.run_name)} ({result.run_id})" if there else result.run_id
    headline, score, (low, high) = scores.headline
    say(f"\n{recipe}: {_runs.network(config)}, {result.model.count_params():,} parameters")
    drawn = "bootstrap " if scores.multi_label else ""
    spread = f"95 % {drawn}interval {low:.3f} to {high:.3f}, {scores.photos} {result.kind}"
    say(f"  {scores.split} {headline:<8}  {score:.4f}  ({spread})")
    if _flatters(result.fit, scores):
        say("                     it chose the epoch, so it is not a test score")
    if scores.auc is not None:
        say(f"  {scores.split} AUC       {scores.auc:.4f}")
    if scores.multi_label:
        say(f"  {scores.split} F1        {scores.f1:.4f}  (mean of the labels, at probabilities above 0.5)")
        exact = f"of labels; all labels of an example are right: {scores.exact_match:.4f}"
        say(f"  {scores.split} accuracy  {scores.accuracy:.4f}  ({exact})")
    for line in result.fit.said:
        say(f"  {line}")
    say(f"  time  {duration(result.fit.seconds)} of training, {duration(time.perf_counter() - began)} in all")
    say(f"  run   {name} in {without_password(uri)}")
    say(f"  model {model}")
    print_registered(result.registered)
    artifacts = tracking.run_folder(result.run_id) if there else None
    modality = modalities.row(result.kind)
    example = modality.example_file
    file = _links.shown(artifacts / example) if artifacts else example.replace("example", "FILE")
    say("\nNext:")
    if modality.predicted:
        say(f"  {_links.recipe('predict')} {quoted(result.model_uri)} {file}")
    elif not there:
        say(f"  keras.saving.load_model({json.dumps(result.model_uri)})  # in Python; takes {_inputs(result.model)}")
    elif not modality.requests:
        say(f'  mlflow.keras.load_model("{result.model_uri}")  # in Python; takes {_inputs(result.model)}')
    else:
        asked = f'{{"{modality.requests.column}": ["{file}"]}}'
        say(f'  mlflow.pyfunc.load_model("{result.model_uri}").predict({asked})  # in Python')
    if there:
        _links.print_links(started)
    else:
        say(f"  {_links.recipe('sync')}      # once the store takes what is left")
    return result


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


def load(model: str) -> tuple[keras.Model, list[str] | None]:
    """Load a model and, where its file has them, the names of its classes.

    Args:
        model: A `.keras` file or an MLflow URI.

    Raises:
        InvalidInput: there is no such model, or Keras cannot load it.
    """
    path = _download(model) if model.startswith(("models:/", "runs:/")) else Path(model)
    if path.is_dir():
        raise InvalidInput(f"{model!r} is a folder; give a .keras file or an MLflow URI such as models:/m-…")
    if not path.is_file():
        raise InvalidInput(f"there is no model {model!r}; give a .keras file or an MLflow URI such as models:/m-…")
    if not zipfile.is_zipfile(path):
        raise InvalidInput(f"{model!r} is not a .keras file; give one that a recipe or model.save wrote")
    from tlkit import labels, layers  # noqa: F401  Keras finds our layers by their registered names
    from tlkit.backbones import modelfiles

    loaded = modelfiles.load(path, repr(model))
    try:
        return loaded, labels.read(path)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{model!r}: {first_line(error)}") from error


def _download(uri: str) -> Path:
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    from tlkit import tracking

    tracking.open_store()
    if re.fullmatch(r"runs:/[^/]+/?", uri):
        uri = f"{uri.rstrip('/')}/model"  # the name that the recipes give
    try:
        return Path(mlflow.artifacts.download_artifacts(uri)) / "data" / "model.keras"
    except (MlflowException, OSError) as error:
        raise InvalidInput(f"MLflow has no model {uri!r}: {first_line(error)}") from error
