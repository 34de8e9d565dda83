"""Write a model as an MLflow folder that can be served, and the request that asks it."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit import labels
from tlkit.data import modalities
from tlkit.data.modalities import Reading
from tlkit.evaluation.abstention import Abstention
from tlkit.probes.novelty import Novelty
from tlkit.probes.novelty import write as write_references
from tlkit.serving.classifier import requests_of

if TYPE_CHECKING:
    import keras
    from mlflow.models import ModelSignature


def save_model(
    path: str | Path,
    model: keras.Model,
    classes: list[str],
    *,
    kind: str,
    rate: int | None = None,
    reading: Reading = Reading(),  # noqa: B008  it cannot be changed
    requirements: list[str],
    example: bytes | None = None,
    abstention: Abstention = Abstention(),  # noqa: B008
    novelty: Novelty | None = None,
) -> None:
    """Write an MLflow model folder with the flavors `keras` and `python_function`.

    Args:
        path: The folder, which must not exist yet.
        model: From raw values, such as pixels from 0 to 255, to probabilities, shape (examples, classes); see also
            `multi_label`.
        classes: Names of the outputs; two for a single sigmoid unit.
        kind: Name of the modality, such as `photos`. For nodes, `python_function` is MLflow's own and takes tensors.
        rate: For sounds: samples per second.
        reading: How files became the examples that the model was trained on.
        requirements: Packages that pip must install to load the model; MLflow's own search for them takes 15 s.
        example: Content of a photo, sound or .npy file, which becomes the input example of the model.
        abstention: When it says no single class.
        novelty: Known examples, to tell what is like none of them; its threshold goes with `abstention`.

    Raises:
        ValueError: there is no such modality, no network takes it, or `rate` is missing.
    """
    import mlflow.keras
    from mlflow import pyfunc
    from mlflow.models import Model

    modality = modalities.row(kind)
    if modality.input is None:
        raise ValueError(f"kind is {kind!r}, which no network takes by itself")
    if modality.sampled and not rate:
        raise ValueError("rate is missing: give the samples per second of the sounds")
    saved, folder = Model(), Path(path)
    with _requirements_not_compared():
        mlflow.keras.save_model(
            model,
            str(folder),
            mlflow_model=saved,
            signature=_tensors(model),
            pip_requirements=requirements,
            metadata={"classes": classes},
        )
    if novelty is not None:
        abstention = abstention._replace(novelty=novelty.threshold)
    file = folder / "data" / "model.keras"
    labels.write(file, classes, reading.changed, abstention.changed)
    if novelty is not None:
        write_references(file, novelty)
    if modality.requests is None:
        return
    environment = saved.flavors.pop(pyfunc.FLAVOR_NAME)["env"]
    options: dict[str, Any] = {"kind": kind}
    options |= ({"rate": rate} if modality.sampled else {}) | ({"reading": reading.changed} if reading.changed else {})
    pyfunc.add_to_model(
        saved,
        loader_module="tlkit.serving",
        conda_env=environment["conda"],
        python_env=environment["virtualenv"],
        model_config={"output": "table"},
        **options,
    )
    saved.signature = signature(kind)
    if example is not None:
        _save_example(saved, folder, kind, example)
    saved.save(str(folder / "MLmodel"))


@contextlib.contextmanager
def _requirements_not_compared() -> Iterator[None]:
    """Keep MLflow from comparing the requirements with every package that is installed: that took a second."""
    from mlflow.utils import environment

    name = "warn_dependency_requirement_mismatches"
    compare = getattr(environment, name)
    setattr(environment, name, lambda requirements: None)
    try:
        yield
    finally:
        setattr(environment, name, compare)


def signature(kind: str) -> ModelSignature:
    """Return the signature of a `Classifier`: from one column of any type to label, probability and the top five.

    `Any` is the only type with which MLflow accepts base64, bytes and nested lists alike: `string` turns lists of
    numbers into strings, and a tensor refuses arrays in the cells of a table. Only a bare array is refused: pass
    {"image": array}.

    >>> signature("photos").inputs
    ['image': Any (required)]
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Object, Property, Schema

    ranked = Object([Property("label", DataType.string), Property("probability", DataType.double)])
    return ModelSignature(
        Schema([ColSpec(AnyType(), requests_of(kind).column)]),
        Schema(
            [
                ColSpec(DataType.string, "label"),
                ColSpec(DataType.double, "probability"),
                ColSpec(Array(ranked), "top"),
            ]
        ),
    )


def serving_example(content: bytes, kind: str = "photos") -> dict[str, Any]:
    """Make the request that sends one example to `mlflow models serve`.

    Args:
        content: Of the file of a photo, sound or array.
        kind: Name of the modality.

    >>> serving_example(b"photo")
    {'dataframe_split': {'columns': ['image'], 'data': [['cGhvdG8=']]}}
    """
    return {"dataframe_split": {"columns": [requests_of(kind).column], "data": [[base64.b64encode(content).decode()]]}}


def _tensors(model: keras.Model) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(tensors: list[Any], names: list[str]) -> Schema:
        shapes = [tuple(-1 if length is None else length for length in tensor.shape) for tensor in tensors]
        types = [np.dtype(tensor.dtype) for tensor in tensors]
        return Schema([TensorSpec(*spec) for spec in zip(types, shapes, names, strict=True)])

    inputs = schema(model.inputs, [tensor.name for tensor in model.inputs])
    return ModelSignature(inputs, schema(model.outputs, ["probabilities"]))


def _save_example(saved: Any, folder: Path, kind: str, example: bytes) -> None:
    import json

    split = serving_example(example, kind)["dataframe_split"]
    (folder / "input_example.json").write_text(json.dumps(split), encoding="utf-8")
    (folder / "serving_input_example.json").write_text(json.dumps({"dataframe_split": split}), encoding="utf-8")
    saved.saved_input_example_info = {
        "artifact_path": "input_example.json",
        "type": "dataframe",
        "pandas_orient": "split",
        "serving_input_path": "serving_input_example.json",
    }
