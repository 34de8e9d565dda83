"""The note of a run in MLflow: for whoever opens it, what was trained on what, how well it does, how to use it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tlkit.display import code, markdown, quoted
from tlkit.recipes import _networks, _runs, _summary

if TYPE_CHECKING:
    import keras

    from tlkit import data, evaluation
    from tlkit.data import graph, modalities
    from tlkit.recipes._fit import Fit
    from tlkit.recipes._jobs import Job

PURPOSES = {"train": "training", "val": "validation", "test": "the test"}


def note(
    job: Job[Any],
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
    name, network = markdown(_runs.dataset_name(job.config.data)), markdown(_networks.name(job.config))
    counts = {split: count for split, (count, _) in splits.parts.items()}
    said = ", ".join(f"{counts[split]:,} for {word}" for split, word in PURPOSES.items() if split in counts)
    chosen = " These examples also chose the epoch, so this is optimistic." if fit.is_optimistic(scores) else ""
    classes = ", ".join(markdown(plots.shortened(name, 60)) for name in splits.classes[:20])
    classes += ", ..." if len(splits.classes) > 20 else ""
    mistakes = "`worst_mistakes.png` and " if "worst_mistakes.png" in fit.pictures else ""
    lines = [
        f"**{network}**, {model.count_params():,} parameters, by `{job.recipe}` on {kind} of **{name}**: "
        f"{said}; {len(splits.classes)} classes ({classes}).",
        "",
        f"**{scores.split.capitalize()} {headline} {score:.3f}** (95 % interval {low:.3f} to {high:.3f}, "
        f"{_summary.counted(scores.photos, kind, scores.groups)}){_also(scores, splits.classes)}; "
        f"trained in {duration(fit.seconds)}.{chosen}",
        "",
        "To use it:",
        "",
        "```",
        *use(splits, run_id),
        "```",
        "",
        f"Where it is wrong: {mistakes}`predictions.json`. `config.yaml` repeats the run.",
        *fit.note,
    ]
    return "\n".join(lines)


def use(splits: data.Splits | graph.Graph, run_id: str) -> list[str]:
    """Give the commands that use the model of a run."""
    return use_of(f"runs:/{run_id}/model", splits.modality)


def use_of(model: str, modality: modalities.Modality) -> list[str]:
    """Give the commands that use a model, and where MLflow has it the line that loads it in Python.

    >>> from tlkit.data.modalities import SOUNDS
    >>> use_of("models:/m-1", SOUNDS)
    ['mlflow models serve -m models:/m-1 --env-manager local', 'model = mlflow.pyfunc.load_model("models:/m-1")']
    """
    commands = [f"python -m tlkit.recipes.{name} {quoted(model)} PHOTO.jpg" for name in ("predict", "explain")]
    served = f"mlflow models serve -m {quoted(model)} --env-manager local"
    loaded = f"model = mlflow.{'pyfunc' if modality.requests else 'keras'}.load_model({json.dumps(model)})"
    in_mlflow = ":/" in model
    return commands * modality.predicted + [served] * bool(modality.requests and in_mlflow) + [loaded] * in_mlflow


def _also(scores: evaluation.Scores, classes: Sequence[str]) -> str:
    """Say what stands beside the headline: a constant prediction, and other scores."""
    constant = _summary.always(classes, scores.majority, scores.majority_accuracy, code, digits=3)
    parts = [constant] if constant and not scores.multi_label else []
    if scores.unequal:
        parts.append(f"balanced accuracy {scores.balanced_accuracy:.3f}")
    parts += [f"F1 {scores.f1:.3f}", f"loss {scores.loss:.3f}"]
    if scores.multi_label:
        beside = f" ({constant})" if constant else ""
        parts.append(f"micro F1 {scores.metrics()[f'{scores.split}_f1_micro']:.3f}")
        parts.append(f"labels right {scores.accuracy:.3f}{beside}")
        parts.append(f"all labels of an example right {scores.exact_match:.3f}")
    if scores.positive is not None:
        parts.append(_summary.of_positive(scores, classes, code))
    return "".join(f", {part}" for part in parts)
