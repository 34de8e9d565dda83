"""What the converters of other libraries are taught, so that they hold networks that are theirs to hold."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit import inference, startup

if TYPE_CHECKING:
    import keras


@contextlib.contextmanager
def numbers_inside(model: keras.Model) -> Iterator[None]:
    """Let the tensors that layers hold be part of the graph, such as the mean of Normalization.

    Traced as they are, they are given to the graph, and tf2onnx makes them into further inputs of the model.
    """
    import tensorflow

    held = [
        (layer, name, value)
        for layer in model._flatten_layers()
        for name, value in vars(layer).items()
        if isinstance(value, tensorflow.Tensor) and hasattr(value, "numpy")
    ]
    try:
        for layer, name, value in held:
            setattr(layer, name, value.numpy())
        yield
    finally:
        for layer, name, value in held:
            setattr(layer, name, value)


def onnx(model: keras.Model, path: str) -> None:
    """Write a model as ONNX, by tf2onnx.

    Keras 3.15 computes a convolution in groups in a function that XLA compiles, into which tf2onnx does not look: here,
    such functions are traced as part of the model.
    """
    import tensorflow

    _teach_tf2onnx()
    before = tensorflow.config.functions_run_eagerly()
    tensorflow.config.run_functions_eagerly(True)
    try:
        model.export(path, format="onnx", verbose=False)
    finally:
        tensorflow.config.run_functions_eagerly(before)


def openvino(model: keras.Model, path: str) -> None:
    """Write a model for OpenVINO, as Keras does, but with what `tlkit.inference.from_tensorflow` knows."""
    import tensorflow

    (given,) = model.inputs
    form = tensorflow.TensorSpec(given.shape, given.dtype, name=given.name)
    traced = tensorflow.function(lambda values: model(values, training=False), autograph=False)
    network = inference.from_tensorflow(traced.get_concrete_function(form))
    network.inputs[0].get_node().set_friendly_name(given.name)
    network.inputs[0].tensor.set_names({given.name})
    startup.openvino().serialize(network, path)


@functools.cache
def _teach_tf2onnx() -> None:
    """Teach tf2onnx 1.17 two operations of TensorFlow 2.21.

    They are the complementary error function, of which GELU is made, and the update of a slice, of which Swin's masks
    are.
    """
    from tf2onnx.handler import tf_op

    for name, convert in (("Erfc", _erfc), ("XlaDynamicUpdateSlice", _slice_update)):
        tf_op(name)(type(name, (), {"version_9": classmethod(convert)}))


def _erfc(cls: Any, graph: Any, node: Any, **_: Any) -> None:
    one = graph.make_const(f"{node.name}/one", np.array(1, np.float32)).output[0]
    error = graph.make_node("Erf", node.input).output[0]
    _replace(graph, node, "Sub", [one, error])


def _slice_update(cls: Any, graph: Any, node: Any, **_: Any) -> None:
    """As in `tlkit.inference`: the update is padded to the whole, and taken where it lies."""
    values, update, start = node.input

    def make(kind: str, inputs: list[str], **attributes: Any) -> str:
        return graph.make_node(kind, inputs, **attributes).output[0]

    integer, truth = 7, 9  # ONNX's numbers for int64 and bool
    begin, size = make("Cast", [start], attr={"to": integer}), make("Shape", [update])
    end = make("Sub", [make("Sub", [make("Shape", [values]), begin]), size])
    sides = make("Concat", [begin, end], attr={"axis": 0})
    one = graph.make_const(f"{node.name}/one", np.array(1, np.float32)).output[0]
    inside = make("Cast", [make("Pad", [make("Expand", [one, size]), sides])], attr={"to": truth})
    _replace(graph, node, "Where", [inside, make("Pad", [update, sides]), values])


def _replace(graph: Any, node: Any, kind: str, inputs: list[str]) -> None:
    shapes, types = node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    graph.make_node(kind, inputs, name=node.name, outputs=node.output, shapes=shapes, dtypes=types)
