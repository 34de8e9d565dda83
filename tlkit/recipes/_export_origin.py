"""Where an exported model comes from: the run, its data, its scores, and the licence of its weights."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tlkit.config import Export
from tlkit.display import called, code, markdown, quoted
from tlkit.recipes._models import URIS, Classifier

if TYPE_CHECKING:
    import numpy as np
    from mlflow.entities import Run

    from tlkit.export import Examples, Origin

LICENCES = {
    "LetterNet": "Apache-2.0, tlkit's own",
    "VGG": "those of VGG at Oxford, under CC BY 4.0",
    "ResNet50$": "those of Kaiming He, under the MIT licence",
    "Xception": "those of Keras' authors, under the MIT licence",
    "InceptionV3|NASNet|MobileNet(V2)?$": "those of github.com/tensorflow/models, under the Apache licence",
    "DenseNet": "those of github.com/liuzhuang13/DenseNet, under the BSD 3-clause licence",
}
"""Of published weights, by their backbones' names, as Keras' documentation says (keras.io/applications of 2.2)."""

SOURCES = {
    "MobileNetV3": "github.com/tensorflow/models",
    "EfficientNetB": "github.com/tensorflow/tpu",
    "EfficientNetV2": "github.com/google/automl",
    "ConvNeXt": "github.com/facebookresearch/ConvNeXt",
    "": "keras.io/api/applications",
}
"""Where the others come from, by how their names begin; that documentation says nothing of their licences."""

NETWORKS = ("backbone.name", "builder.name", "chosen.networks")
"""Parameters of a run that name its network; `auto` names one or more."""

METRICS = {"accuracy": "accuracy", "map": "mAP", "balanced_accuracy": "balanced accuracy", "f1": "F1",
           "loss": "log loss", "auc": "AUC"}  # fmt: skip


class Sources(NamedTuple):
    """What an export is made from.

    Args:
        classifier: The model, in float32.
        origin: Where it comes from.
        examples: What it and its exports are compared on.
        answers: Its probabilities for these.
        calibration: Examples by which int8 is calibrated; None for float32.
    """

    classifier: Classifier
    origin: Origin
    examples: Examples
    answers: np.ndarray
    calibration: Examples | None


def run_of(model: str) -> Run | None:
    """Find the MLflow run that a model's URI stands for; None where there is none."""
    if not model.startswith(URIS):
        return None
    import mlflow
    from mlflow.exceptions import MlflowException

    from tlkit import untrusted

    client, (scheme, _, name) = mlflow.MlflowClient(), model.partition(":/")
    try:
        run_id: str | None
        if scheme == "runs":
            run_id = name.split("/")[0]
        elif re.fullmatch(r"m-[0-9a-f]+", name):
            run_id = client.get_logged_model(name).source_run_id
        elif "@" in name:
            run_id = client.get_model_version_by_alias(*name.rsplit("@", 1)).run_id
        else:
            registered, _, version = name.rpartition("/")
            run_id = client.get_model_version(registered, version).run_id
        return untrusted.answered(client.get_run(run_id)) if run_id else None
    except MlflowException:
        return None


def describe(config: Export, path: Path, run: Run | None) -> Origin:
    """Describe a model for its card.

    Args:
        config: The command's settings.
        path: Of the model's file.
        run: The run that trained it, if it is known.
    """
    from tlkit.export import Origin

    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    origin = Origin(config.model, digest, command=command(config))
    if run is None:
        return origin
    params, metrics, recipe = run.data.params, run.data.metrics, run.data.tags.get("recipe", "a run")
    network = next((params[name] for name in NETWORKS if params.get(name)), "A network")
    data = [
        f"{_context(given)}: {markdown(given.dataset.name)}, digest {code(given.dataset.digest)}"
        for given in (run.inputs.dataset_inputs if run.inputs else [])
    ]
    if whole := run.data.tags.get("dataset_digest"):
        data.append(f"all of them together: manifest with SHA-256 {code(whole)}")
    name = f"{markdown(run.info.run_name or run.info.run_id)} ({code(run.info.run_id)})"
    return dataclasses.replace(
        origin,
        what=f"{markdown(network)}, trained by {code(recipe)} in run {name}",
        data=data,
        scores=score_lines(metrics),
        weights=licence(params),
    )


def licence(params: Mapping[str, str]) -> str:
    """Say under which licence the weights are that training began with.

    >>> licence({"backbone.name": "VGG16", "backbone.weights": "pretrained"})
    'Training began with the published weights of VGG16, those of VGG at Oxford, under CC BY 4.0.'
    >>> licence({"backbone.name": "ConvNeXtTiny", "backbone.weights": "pretrained"}).partition("; ")[2]
    'for their licence see their source, github.com/facebookresearch/ConvNeXt.'
    >>> licence({"chosen.networks": "LetterNet, VGG16"}).count("Training began with the published weights of")
    2
    >>> licence({"backbone.name": "hub:vit", "backbone.weights": "own", "backbone.accept_license": "Apache-2.0"})
    'Training began with weights of KerasHub, `hub:vit`, under the licence `Apache-2.0`.'
    >>> licence({"backbone.name": "MobileNetV2", "backbone.weights": "none"})
    'Training began with random weights: they are yours.'
    """
    if chosen := params.get("chosen.networks"):  # such as "MobileNet 0.5, LetterNet"
        return " ".join(_published(name.split(" ")[0]) for name in chosen.split(", "))
    part = "backbone" if params.get("backbone.name") else "builder"
    name, weights = params.get(f"{part}.name", ""), params.get(f"{part}.weights", "none")
    if weights in ("none", "None"):
        return "Training began with random weights: they are yours."
    if (accepted := params.get("backbone.accept_license", "None")) != "None":
        known = f"under the licence {code(accepted)}" if accepted != "unknown" else "whose licence tlkit does not know"
        return f"Training began with weights of KerasHub, {code(name)}, {known}."
    if weights not in ("pretrained", "imagenet", "letters"):
        return f"Training of {markdown(name)} began with weights {code(weights)}, whose licence tlkit does not know."
    return _published(name)


def _published(name: str) -> str:
    began = f"Training began with the published weights of {markdown(name)}"
    if of := next((text for start, text in LICENCES.items() if re.match(start, name)), ""):
        return f"{began}, {of}."
    place = next(place for start, place in SOURCES.items() if name.startswith(start))
    return f"{began}; for their licence see their source, {place}."


def command(config: Export) -> str:
    """Write the command that repeats an export."""
    words = [called("export"), quoted(config.model), "--format", config.format, *["--int8"] * config.int8]
    for name, value in (("data.path", config.data.path), ("threshold", config.threshold), ("output", config.output)):
        words += [f"--{name}", quoted(str(value))] if value is not None else []
    return " ".join([*words, *["--accept"] * config.accept])


def _context(given: object) -> str:
    tags = {tag.key: tag.value for tag in getattr(given, "tags", [])}
    return tags.get("mlflow.data.context", "data")


def score_lines(metrics: Mapping[str, float]) -> list[str]:
    """A line for each score of the test split, else of the validation split, with its interval where it has one."""
    lines = []
    for split in ("test", "validation"):
        for name, text in METRICS.items():
            value, low = metrics.get(f"{split}_{name}"), metrics.get(f"{split}_{name}_low")
            if value is not None:
                interval = "" if low is None else f" (95 % interval {low:.3f} to {metrics[f'{split}_{name}_high']:.3f})"
                lines.append(f"{split} {text} {value:.4f}{interval}")
        if lines and split == "validation":
            lines.append("there was no test split: these examples may also have chosen the weights")
        if lines:
            break
    return lines
