"""Engines that compute a frozen network: Keras itself on any backend, or OpenVINO, which is faster on most CPUs."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import Any

import keras
import numpy as np

from tlkit import inference, runtime
from tlkit.errors import InvalidInput
from tlkit.inference import Engine

ENGINES = ("keras", "openvino")
AGREE = {"float32": 0.01, "mixed_bfloat16": 0.2}  # maximum distance from the outputs of Keras, relative to their norm


def make(name: str, network: keras.Model, precision: str, dtype: np.dtype) -> Engine:
    """Prepare a network.

    Args:
        name: One of `ENGINES`.
        network: With one input and one output.
        precision: Name of a Keras dtype policy; OpenVINO supports float32 and mixed_bfloat16.
        dtype: Of the batches, such as uint8.

    Raises:
        InvalidInput: the engine cannot run here; the message says why.

    >>> double = keras.Sequential([keras.Input((2,)), keras.layers.Rescaling(2.0)])
    >>> engine = make("keras", double, "float32", np.dtype("uint8"))
    >>> next(engine.run([np.array([[1, 2]], np.uint8)])).tolist()
    [[2.0, 4.0]]
    """
    if name == "keras":
        return _keras(network, dtype)
    check(name, precision)
    try:
        return _openvino(network, precision, dtype)
    except Exception as error:  # an unsupported layer, or a broken installation
        raise InvalidInput(
            f"features.engine is 'openvino', which cannot run this network: {_reason(error)}; choose keras or auto"
        ) from error


def check(name: str, precision: str) -> None:
    """Refuse an engine that cannot run here.

    Raises:
        InvalidInput: the message says why.
    """
    if name not in (*ENGINES, "auto"):
        raise InvalidInput(f"features.engine is {name!r}: {', '.join(ENGINES)} or auto")
    if name == "openvino" and (reason := unavailable(precision)):
        raise InvalidInput(f"features.engine is 'openvino': {reason}; choose keras or auto")


def unavailable(precision: str) -> str:
    """Return why OpenVINO cannot be used here, or ""; it is loaded only if the answer depends on the processor."""
    if importlib.util.find_spec("openvino") is None:
        return "it is not installed (pip install openvino)"
    if keras.backend.backend() not in ("tensorflow", "openvino"):
        return f"it cannot read networks from Keras' {keras.backend.backend()} backend"
    if runtime.device()[0] != "cpu":
        return "it is for CPUs, and Keras computes on a GPU here"
    if precision not in inference.PRECISIONS:
        return f"it does not support {precision}"
    if precision != "mixed_bfloat16":
        return ""
    try:
        has = inference.has_bfloat16()
    except Exception as error:  # a broken installation
        return f"it cannot be loaded: {_reason(error)}"
    return "" if has else "this processor has no bfloat16"


def version(name: str) -> str:
    """Return the name of an engine with everything that its outputs may depend on."""
    if name == "openvino":  # Keras builds the graph that it reads, on either backend the same up to rounding
        return inference.version()
    backend = keras.backend.backend()
    return f"keras {keras.__version__} {backend} {metadata.version(backend)} {runtime.device()[0]}"


def choose(network: keras.Model, precision: str, sample: np.ndarray, agree: float | None = None) -> tuple[Engine, str]:
    """Choose OpenVINO if it can run the network and agrees with Keras on a sample, else Keras.

    Engines round differently, so the choice changes the result of a run. It is not timed, so that background load does
    not decide.

    Args:
        network: With one input and one output.
        precision: Name of a Keras dtype policy.
        sample: A batch or two of examples, (k, *space, channels).
        agree: Maximum distance from the outputs of Keras, relative to their norm; by default that of `AGREE`.

    Returns:
        The engine; and, if it is Keras, the reason, for the user.
    """
    if reason := unavailable(precision):
        return make("keras", network, precision, sample.dtype), f"openvino: {reason}"
    if keras.backend.backend() == "openvino":  # Keras itself is nothing else, so there is nothing to compare
        try:
            return _openvino(network, precision, sample.dtype), ""
        except Exception as error:
            return _keras(network, sample.dtype), f"openvino cannot run this network: {_reason(error)}"
    traced = _traced(network, sample.dtype) if keras.backend.backend() == "tensorflow" else None  # once for both
    ours = _keras(network, sample.dtype, traced)
    with ThreadPoolExecutor(1) as pool:  # the first call of Keras takes one core, the conversion for OpenVINO another
        first = pool.submit(lambda: list(ours.run(_batches(ours, sample))))
        try:
            theirs = _openvino(network, precision, sample.dtype, traced)
        except Exception as error:  # as in `make`, but Keras takes over
            return ours, f"openvino cannot run this network: {_reason(error)}"
        expected = np.concatenate(first.result())
    try:
        actual = np.concatenate(list(theirs.run(_batches(theirs, sample))))
    except Exception as error:
        return ours, f"openvino cannot run this network: {_reason(error)}"
    a, b = (outputs.reshape(len(outputs), -1).astype(np.float64) for outputs in (actual, expected))
    with np.errstate(all="ignore"):  # values that are not finite become nan, which agrees with nothing
        distance = float(np.max(np.linalg.norm(a - b, axis=1) / np.maximum(np.linalg.norm(b, axis=1), 1e-300)))
    if not distance <= (AGREE[precision] if agree is None else agree):
        return ours, f"openvino's outputs differ from Keras' by {100 * distance:.2g} %"
    return theirs, ""


def _batches(engine: Engine, sample: np.ndarray) -> list[np.ndarray]:
    return [sample[start : start + engine.batch_size] for start in range(0, len(sample), engine.batch_size)]


def _reason(error: Exception) -> str:
    """An error in one line; those of OpenVINO begin with positions in its source."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and not line.startswith("Exception from ")), type(error).__name__)


def _keras(network: keras.Model, dtype: np.dtype, traced: Any = None) -> Engine:
    batch_size = 32 if runtime.device()[0] == "cpu" else 128
    if keras.backend.backend() == "tensorflow":
        call = traced or _traced(network, dtype)
    else:
        call = inference.in_full_precision(network).predict_on_batch

    def predict(batch: np.ndarray) -> Any:
        # Always one batch size: each other one would be compiled again, and TensorFlow then rounds differently.
        full = np.concatenate([batch, np.repeat(batch[-1:], batch_size - len(batch), axis=0)])
        return np.asarray(call(full))[: len(batch)]

    return Engine("keras", batch_size, _one_by_one(predict))


def _one_by_one(compute: Callable[[np.ndarray], Any]) -> Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]:
    def run(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for batch in batches:
            yield np.asarray(compute(batch)).astype(np.float32)

    return run


def _traced(network: keras.Model, dtype: np.dtype) -> Any:
    """The network as a TensorFlow graph for batches of any size; it takes a fifth of the time of `predict`."""
    tensorflow = importlib.import_module("tensorflow")

    @functools.partial(tensorflow.function, autograph=False)
    def call(values):
        return network(tensorflow.cast(values, network.inputs[0].dtype), training=False)

    return call.get_concrete_function(tensorflow.TensorSpec((None, *network.inputs[0].shape[1:]), dtype))


def _openvino(network: keras.Model, precision: str, dtype: np.dtype, traced: Any = None) -> Engine:
    if precision != "float32":
        network, traced = in_float32(network), None
    if keras.backend.backend() == "openvino":
        example = np.zeros((1, *network.inputs[0].shape[1:]), dtype)
        converted, _ = inference.graph(network, example, network.inputs[0].dtype)
    else:
        converted = inference.from_tensorflow(traced or _traced(network, dtype))
    return inference.engine(converted, precision)


def in_float32(network: keras.Model) -> keras.Model:
    """The same network in float32: OpenVINO cannot read bfloat16, and converts to it by itself."""

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        return type(layer).from_config({**config, "dtype": "float32"} if "dtype" in config else config)

    cloned = keras.models.clone_model(network, clone_function=clone, recursive=True)
    cloned.set_weights(network.get_weights())
    return cloned
