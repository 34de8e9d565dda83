"""What a training recipe leaves: scores, pictures and the logged model."""

from __future__ import annotations

import contextlib
import json
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit.recipes import (
    _calibration,
    _inputs,
    _mistakes,
    _near_copies,
    _note,
    _plans,
    _report,
    _run_exports,
)
from tlkit.recipes._fit import Fit, of_training
from tlkit.recipes._mistakes import Mistakes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import keras
    import numpy as np

    from tlkit import data, evaluation, plots, tracking, training
    from tlkit.data import graph
    from tlkit.recipes._jobs import Job
    from tlkit.tracking import registry


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
    classes: Sequence[str] = ()
    exports: _run_exports.RunExports = _run_exports.RunExports()

    @property
    def exit_status(self) -> int:
        """Of the command: 1 where an export failed, although the run has all else."""
        return 1 if self.exports.failed else 0


def score_training(
    job: Job[Any],
    run: tracking.Run,
    model: keras.Model,
    splits: data.Splits,
    history: training.History,
    calibrated: _calibration.Calibrated | None = None,
) -> Result:
    """Predict the test split, else the validation split, score that and log it; calibrated, if it is not yet."""
    fit = of_training(job, history)
    calibrated = calibrated or calibrated_by_val(job, model, splits, _plans.batch_size_or_default(job.config))
    if job.config.tta:
        _score_views(job, model, splits, calibrated.after, fit)
    return score(job, run, model, fit, splits, calibrated)


def calibrated_by_val(
    job: Job[Any], model: keras.Model, splits: data.Splits, batch_size: int
) -> _calibration.Calibrated:
    """Predict all splits, calibrate by the validation split, and keep training photos to tell what is like none."""
    import keras
    import numpy as np

    from tlkit import training
    from tlkit.probes import novelty

    whole = keras.Model(model.input, [model.get_layer("head").input, model.output])
    features, probabilities = training.predict(whole, splits.val, batch_size)
    scored_features, scored = features, None
    if splits.test:
        scored_features, scored = training.predict(whole, splits.test, batch_size)
    held = _calibration.HeldOut(
        probabilities, splits.val.labels, splits.val.grouping, f"{len(probabilities):,} validation {splits.kind}"
    )
    calibrated = _calibration.calibrate(job, model, held, scored)
    if not splits.modality.predicted or len(features) < novelty.FEWEST:
        return calibrated
    some = np.random.default_rng(job.config.seed).permutation(len(splits.train))[: novelty.REFERENCES]
    train = splits.train.select(np.sort(some))
    known, _ = training.predict(whole, train, batch_size)
    found = novelty.fit(known, held_out=features, hashes=train.hashes)
    return _calibration.with_novelty(calibrated, found, scored_features)


def _score_views(job: Job[Any], model: keras.Model, splits: data.Splits, predicted: np.ndarray, fit: Fit) -> None:
    """Add the score of the mean prediction over each example and changed views of it."""
    import numpy as np

    from tlkit import data, training

    config, (split, part) = job.config, _inputs.scored(splits)
    views = data.changed(part, _plans.changes(config.augment), config.tta, config.seed)
    predictions = [training.predict(model, view, _plans.batch_size_or_default(config)) for view in views]
    scores = evaluate(job, splits, np.mean([predicted, *predictions], axis=0))
    fit.metrics.update(scores.metrics(suffix="_tta"))
    description = "its mirror image" if isinstance(views[0], data.Mirrored) else f"{len(views)} views of it"
    fit.lines.append(f"tta   {split} accuracy {scores.accuracy:.4f}, the mean of each and {description}")


def evaluate(
    job: Job[Any], splits: data.Splits, probabilities: np.ndarray, keep: np.ndarray | slice = slice(None)
) -> evaluation.Scores:
    """Score what is predicted for the scored split, or for a part of it.

    Args:
        job: The recipe.
        splits: The data.
        probabilities: Shape (examples, classes), of the whole split.
        keep: Which examples to score, as NumPy takes them; `Scores.metrics` takes a suffix for their names.
    """
    import numpy as np

    from tlkit import evaluation

    split, part = _inputs.scored(splits)
    return evaluation.score(
        split,
        probabilities[keep],
        part.labels[keep],
        train_labels=splits.train.labels,
        groups=np.array(part.grouping)[keep] if part.grouping else None,
        positive=_inputs.find_positive(job.config.positive, splits.classes, splits.multi_label),
    )


def score(
    job: Job[Any],
    run: tracking.Run,
    model: keras.Model,
    fit: Fit,
    splits: data.Splits,
    calibrated: _calibration.Calibrated,
) -> Result:
    """Score what the model predicts for the test split, else the validation split, and log it with its pictures."""
    from tlkit import evaluation, tracking
    from tlkit.evaluation import predictions

    (split, part), probabilities = _inputs.scored(splits), calibrated.after
    _calibration.report(fit, _calibration.worth(split, part, part.labels, calibrated.after, calibrated))
    scores = evaluate(job, splits, probabilities)
    fit.pictures.update(score_pictures(scores, splits.classes, splits.kind))  # drawn while the rest is computed
    table = predictions.table(split, part.names, part.hashes, part.labels, probabilities, splits.classes, part.grouping)
    losses = evaluation.binary_crossentropy(probabilities, part.labels) if splits.multi_label else None
    mistakes = _mistakes.find(model, part, table, losses)
    fit.pictures.update(mistakes.pictures)
    if splits.near_copies:
        _near_copies.add(fit, splits, scores, _score_without_near_copies(job, splits, probabilities))
    intervals = evaluation.score_intervals(probabilities, part.labels, part.grouping)
    example = splits.modality.encode(part.read([0])[0], splits.rate)
    with tracking.artifact(splits.modality.example_file) as path:
        path.write_bytes(example)
    return log(job, run, model, fit, Scored(scores, intervals, table, splits, example, calibrated, mistakes))


def _score_without_near_copies(
    job: Job[Any], splits: data.Splits, probabilities: np.ndarray
) -> evaluation.Scores | None:
    """Score the examples that have no near copy among the others; None if there is none, or none that has a label."""
    import numpy as np

    _, part = _inputs.scored(splits)
    rest = np.setdiff1d(np.arange(len(part)), [first for first, _, _ in splits.near_copies])
    empty = not len(rest) or (splits.multi_label and not part.labels[rest].any())
    return None if empty else evaluate(job, splits, probabilities, rest)


class Scored(NamedTuple):
    """How a model did on which data.

    Args:
        scores: On the scored split.
        intervals: Of `evaluation.score_intervals`.
        predictions: The table of `evaluation.predictions`.
        splits: The data.
        example: The file of an example, as a user would have it.
        calibrated: When the model is unsure, and what it knows; None for a graph.
        mistakes: The worst.
    """

    scores: evaluation.Scores
    intervals: Mapping[str, tuple[float, float]]
    predictions: dict[str, list[Any]]
    splits: data.Splits | graph.Graph
    example: bytes | None = None
    calibrated: _calibration.Calibrated | None = None
    mistakes: Mistakes = Mistakes([], 0)


def log(job: Job[Any], run: tracking.Run, model: keras.Model, fit: Fit, scored: Scored) -> Result:
    """Log everything, save the model, register it if asked, and wait until the store has it all."""
    from tlkit import serving, tracking
    from tlkit.evaluation import predictions

    scores, splits = scored.scores, scored.splits
    tracking.log_metrics(
        {
            **scores.metrics(intervals=scored.intervals),
            **fit.metrics,
            "training_seconds": fit.seconds,
            "parameters": model.count_params(),
        }
    )  # all at step 0, not at an epoch, so that MLflow compares runs by them as bars
    tracking.log_table(scored.predictions, predictions.FILE)
    tracking.log_table(scores.by_class(splits.classes), "class_scores.json")
    example = scored.example
    if example is not None:
        tracking.log_text(json.dumps(serving.serving_example(example, splits.kind)), "example_request.json")

    def save(path: Path) -> None:
        loaded = {name: getattr(splits, name) for name in ("rate", "reading") if hasattr(splits, name)}  # graph: none
        if scored.calibrated is not None:
            loaded |= {name: getattr(scored.calibrated, name) for name in ("abstention", "novelty")}
        serving.save_model(
            path, model, splits.classes, kind=splits.kind, **loaded, requirements=requirements(), example=example
        )
        tracking.log_metrics({"model_megabytes": (path / "data" / "model.keras").stat().st_size / 1e6})

    try:
        saved = tracking.log_model(save)
    except Exception:
        with contextlib.suppress(Exception):  # the first error is the one to tell
            for name, picture in fit.pictures.items():
                tracking.log_figure(picture, name)
        raise
    note = _note.note(job, model, fit, scores, splits, run.run_id)
    tracking.set_tags({"mlflow.note.content": note})
    files = {name: tracking.log_figure(picture, name) for name, picture in fit.pictures.items()}  # drawn by now
    _report.log(job, run.run_id, model, fit, scored, files)
    if job.config.register:
        tracking.register(job.config.register)
    tracking.deliver()
    file = saved / "data" / "model.keras"
    exports = _run_exports.log(job, run.run_id, model, splits, file)
    return Result(model, fit, scores, run.run_id, str(file), splits.kind, classes=splits.classes, exports=exports)


def score_pictures(scores: evaluation.Scores, classes: Sequence[str], kind: str) -> dict[str, plots.Picture]:
    """Have the scores drawn."""
    from tlkit import plots

    headline, value, _ = scores.headline
    title = f"{scores.split} {headline} {value:.3f}, {scores.photos:,} {kind}"
    return {
        "confusion_matrix.png": plots.Picture("confusion_matrix", scores.confusion, classes, title),
        "class_scores.png": plots.Picture("class_scores", scores.by_class(classes), title),
    }


def requirements() -> list[str]:
    """Give what loading a model needs, pinned; given to MLflow, whose own search takes 15 s."""
    import keras

    from tlkit import startup

    backend = keras.backend.backend()
    if backend == startup.LEAN and startup.is_installed(startup.DEFAULT):  # the model was not trained with either
        backend = startup.DEFAULT
    names = ["keras", backend, "numpy", "mlflow", "tlkit"]
    return [f"{name}=={metadata.version(name)}" for name in names]
