"""A saved model, loaded again from a file or from MLflow."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tlkit.errors import InvalidInput, first_line

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tlkit.data.modalities import Reading
    from tlkit.evaluation.abstention import Abstention


URIS = ("models:/", "runs:/")


class Saved(NamedTuple):
    """What a model's file holds.

    Args:
        model: The model.
        classes: The names of its classes; None where it was saved without.
        reading: How files become the examples that it takes.
        abstention: When it says no single class.
        references: Features of known examples, which go with `abstention.novelty`; None where it has none.
    """

    model: keras.Model
    classes: list[str] | None
    reading: Reading
    abstention: Abstention
    references: np.ndarray | None


class Classifier(NamedTuple):
    """A model that maps examples of one shape to classes.

    Args:
        name: The user's name for it.
        model: From raw values to probabilities.
        classes: The names of its classes.
        reading: How files become the examples that it takes.
        kind: Name of their modality, such as `photos`.
        several: Whether an example may have several labels, or none.
        abstention: When it says no single class.
        references: Features of known examples, which go with `abstention.novelty`; None where it has none.
    """

    name: str
    model: keras.Model
    classes: list[str]
    reading: Reading
    kind: str
    several: bool
    abstention: Abstention
    references: np.ndarray | None


def load_classifier(
    model: str,
    path: Path | None = None,
    command: str = "predict",
    kinds: Sequence[str] = ("photos",),
    classes: Sequence[str] | None = None,
) -> Classifier:
    """Load a model, the names of its classes, and how files become the examples that it takes.

    Args:
        model: A `.keras` file or an MLflow URI.
        path: Where its file is, if `locate` has said so.
        command: Which needs it, for errors.
        kinds: Modalities that this takes.
        classes: Names of the classes, in place of those that it holds.

    Raises:
        InvalidInput: there is no such model, or it is not one that maps these to classes.
    """
    from tlkit import serving
    from tlkit.data import modalities

    loaded, names, reading, abstention, references = load(model, path)
    inputs, outputs = loaded.input_shape, loaded.output_shape
    what = f"{command} needs a classifier of {' or '.join(kinds)} of one size"
    if isinstance(inputs, list | dict) or isinstance(outputs, list | dict):
        raise InvalidInput(f"{model!r} has several inputs or outputs; {what}")
    photos = len(inputs) == 4 and inputs[3] in (1, 3)
    others = {row.input: row.name for row in modalities.MODALITIES.values() if not row.predicted}
    kind = others.get(loaded.inputs[0].name, "photos" if photos else "arrays")
    if kind not in kinds or None in inputs[1:] or len(outputs) != 2:
        raise InvalidInput(f"{model!r} maps {inputs} to {outputs}; {what}")
    count = max(2, outputs[-1])  # a single output is the probability of the second of two classes
    if classes is not None and len(classes) != count:
        raise InvalidInput(f"classes are {len(classes)}, and {model!r} has {count}: name each, in their order")
    if names is not None and len(names) != count:
        raise InvalidInput(f"{model!r} holds {len(names)} class names for {count} classes")
    if names is None and classes is None and command == "evaluate":
        raise InvalidInput(f"{model!r} holds no class names: give those of its {count} outputs by --classes '[a, b]'")
    names = list(classes) if classes is not None else names
    names = names or [f"class {index}" for index in range(count)]
    return Classifier(model, loaded, names, reading, kind, serving.multi_label(loaded), abstention, references)


def locate(model: str) -> Path:
    """Return the file of a model; nothing of it is loaded, nor is Keras.

    Args:
        model: A `.keras` file or an MLflow URI.

    Raises:
        InvalidInput: there is no such model.
    """
    path = _download(model) if model.startswith(URIS) else Path(model)
    if path.is_dir():
        raise InvalidInput(f"{model!r} is a folder; give a .keras file or an MLflow URI such as models:/m-…")
    if not path.is_file():
        raise InvalidInput(f"there is no model {model!r}; give a .keras file or an MLflow URI such as models:/m-…")
    if not zipfile.is_zipfile(path):
        raise InvalidInput(f"{model!r} is not a .keras file; give one that a recipe or model.save wrote")
    return path


def load(model: str, path: Path | None = None) -> Saved:
    """Load a model with the names of its classes, and how its examples are read.

    Args:
        model: A `.keras` file or an MLflow URI.
        path: Where its file is, if `locate` has said so.

    Raises:
        InvalidInput: there is no such model, or Keras cannot load it.
    """
    path = path or locate(model)
    from tlkit import labels, layers  # noqa: F401  Keras finds our layers by their registered names
    from tlkit.backbones import modelfiles
    from tlkit.data.modalities import Reading
    from tlkit.evaluation.abstention import Abstention
    from tlkit.probes import novelty

    loaded = modelfiles.load(path, repr(model))
    try:
        names, reading = labels.read(path), Reading.of(labels.read_reading(path))
        abstention, references = Abstention.of(labels.read_abstention(path)), novelty.read(path)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{model!r}: {first_line(error)}") from error
    if references is None or abstention.novelty is None:
        abstention, references = abstention._replace(novelty=None), None
    return Saved(loaded, names, reading, abstention, references)


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
