"""Exports in int8: quantized by what the network computes of some examples, with probabilities calibrated anew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit.evaluation import calibration
from tlkit.export.formats import FORMATS, one_line, quiet, run

if TYPE_CHECKING:
    import keras


def quantize(name: str, model: keras.Model, path: Path, values: np.ndarray) -> None:
    """Replace an export by one in int8, whose inputs and outputs stay float32.

    Args:
        name: Of the format.
        model: What was exported.
        path: Of the export.
        values: Examples by which the ranges of the numbers inside are found, (n, *shape of an example).

    Raises:
        InvalidInput: the network cannot be quantized; the message says why.
    """
    ways = {"openvino": _openvino, "onnx": _onnx, "litert": _litert}
    with one_line(f"format is {name!r} in int8, which cannot hold this network", model, path.parent), quiet():
        ways[name](model, path, values.astype(np.float32))


def _openvino(model: keras.Model, path: Path, values: np.ndarray) -> None:
    import nncf
    import openvino

    examples = nncf.Dataset([row[None] for row in values])
    quantized = nncf.quantize(openvino.Core().read_model(path), examples, subset_size=len(values))
    new = path.with_name(f"int8_{path.name}")
    openvino.save_model(quantized, new, compress_to_fp16=False)
    for suffix in (".bin", ".xml"):
        os.replace(new.with_suffix(suffix), path.with_suffix(suffix))


class _Reader:
    """Gives onnxruntime one example at a time, by the method that it asks for."""

    def __init__(self, name: str, values: np.ndarray):
        self.rest = iter({name: row[None]} for row in values)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next example; None after the last."""
        return next(self.rest, None)


def _onnx(model: keras.Model, path: Path, values: np.ndarray) -> None:
    import onnxruntime
    from onnxruntime import quantization

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name, prepared = session.get_inputs()[0].name, path.with_name("prepared.onnx")
    new = path.with_name("int8.onnx")
    quantization.quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    # Per channel: with one scale for all channels of a depthwise convolution, four of five labels were wrong.
    quantization.quantize_static(str(prepared), str(new), _Reader(name, values), per_channel=True)
    prepared.unlink()
    os.replace(new, path)


def _litert(model: keras.Model, path: Path, values: np.ndarray) -> None:
    import tensorflow

    def examples() -> Iterator[list[Any]]:
        for row in values:
            yield [row[None]]

    model.export(
        str(path),
        format=FORMATS["litert"].keras,
        verbose=False,
        optimizations=[tensorflow.lite.Optimize.DEFAULT],
        representative_dataset=examples,
    )


def temperature(name: str, path: Path, values: np.ndarray, answers: np.ndarray) -> float:
    """Fit the temperature by which the probabilities of an export in int8 are closest to those of its model.

    They are fitted to the model's probabilities, and not to labels: the model knows the photos that it was trained on,
    so that their labels would make it more certain of others than it may be.

    Args:
        name: Of the format.
        path: Of the export.
        values: Examples.
        answers: The model's probabilities for them, (n, classes).
    """
    return calibration.temperature(calibration.logits(run(name, path, values)), answers)
