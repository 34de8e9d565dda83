"""Linear heads on averages over all positions, found in a model's graph: their decision is a sum over positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

AVERAGES = (
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
)
SAME = (keras.layers.Dropout, keras.layers.Activation, keras.layers.Softmax, keras.layers.Identity)

PASSING = (
    keras.layers.Average,
    keras.layers.Dropout,
    keras.layers.Identity,
    keras.layers.Reshape,
)  # what is in, is out
LEAST = 1e-30  # probability of which a logarithm is taken


class Pooled(NamedTuple):
    """A map whose average over all positions is a part of the features.

    Args:
        map: In the model's graph, (batch, *positions, channels).
        start: First of the features that it gives.
        share: By which they are multiplied: a half where the features are the mean of two maps'.
        mirrored: Whether it is of the mirror image.
    """

    map: keras.KerasTensor
    start: int
    share: float = 1.0
    mirrored: bool = False


class Head(NamedTuple):
    """A head whose logits are linear in averages over all positions.

    Args:
        maps: What is averaged, for consecutive features.
        dense: The layer of the logits.
    """

    maps: list[Pooled]
    dense: keras.layers.Dense


def heads(model: keras.Model) -> list[Head]:
    """Find the linear heads of a model: one, or several whose probabilities are averaged; none where it has others.

    Args:
        model: To probabilities or logits, (batch, classes). The head may follow a nested backbone, but lies in the
            outermost model itself.

    >>> x = keras.Input((8, 8, 3))
    >>> y = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(x))
    >>> [head.maps[0].map.shape for head in heads(keras.Model(x, keras.layers.Dense(2)(y)))]
    [(None, 6, 6, 4)]
    >>> heads(keras.Model(x, keras.layers.Dense(2)(keras.layers.Flatten()(x))))
    []
    """
    if not getattr(model, "outputs", None) or len(model.outputs) != 1:
        return []
    tensor = _before(model.outputs[0])
    operation, inputs = origin(tensor)
    several = inputs if isinstance(operation, keras.layers.Average) else [tensor]
    found = [_head(_before(each)) for each in several]
    return [head for head in found if head] if all(found) else []


def _head(tensor: keras.KerasTensor) -> Head | None:
    dense, inputs = origin(tensor)
    if not isinstance(dense, keras.layers.Dense) or not inputs:
        return None
    maps = _maps(_before(inputs[0]), 0)
    return Head(maps, dense) if maps else None


def _maps(tensor: keras.KerasTensor, start: int) -> list[Pooled]:
    """Find the maps whose averages a vector of features is; none where it is something else."""
    operation, inputs = origin(tensor)
    mirrored = getattr(operation, "name", "").endswith("_mirrored")
    if isinstance(operation, AVERAGES):
        return [Pooled(inputs[0], start, mirrored=mirrored)]
    if isinstance(operation, keras.layers.Average):
        averaged = [_maps(each, start) for each in inputs]
        if not all(averaged):
            return []
        return [each._replace(share=each.share / len(averaged)) for part in averaged for each in part]
    if not (isinstance(operation, keras.layers.Concatenate) or _is_pool(operation)):
        return []
    found: list[Pooled] = []
    for each in inputs:
        parts = [Pooled(each, start, mirrored=mirrored)] if _is_pool(operation) else _maps(each, start)
        if not parts:
            return []
        found += parts
        start += each.shape[-1]
    return found


def _is_pool(operation: object) -> bool:
    """Whether a nested model averages each of its inputs and puts the averages side by side, as `backbones.pool`."""
    if not isinstance(operation, keras.Model):
        return False
    kinds = (keras.layers.InputLayer, keras.layers.Concatenate, *AVERAGES)
    averages = [layer for layer in operation.layers if isinstance(layer, AVERAGES)]
    return len(averages) == len(operation.inputs) and all(isinstance(layer, kinds) for layer in operation.layers)


def _before(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """Go back over layers that leave logits or features as they are, or only activate them."""
    operation, inputs = origin(tensor)
    return _before(inputs[0]) if isinstance(operation, SAME) and inputs else tensor


def is_exclusive(model: keras.Model) -> bool:
    """Whether a model's classes exclude one another: whether it ends in a softmax, or in averages of such.

    >>> x = keras.Input((3,))
    >>> [is_exclusive(keras.Model(x, keras.layers.Dense(2, activation=each)(x))) for each in ("softmax", "sigmoid")]
    [True, False]
    """
    return _ending(model.outputs[0]) == "softmax"


def _ending(tensor: keras.KerasTensor) -> str | None:
    """Name what makes probabilities of a tensor: softmax or sigmoid; None where it has logits."""
    operation, inputs = origin(tensor)
    if own := _activation(operation):
        return own
    if isinstance(operation, keras.Model) and getattr(operation, "outputs", None):
        return _ending(operation.outputs[tensor._keras_history.tensor_index])  # type: ignore[attr-defined]
    if not isinstance(operation, PASSING):  # what is behind others need not be what comes out
        return None
    return next(filter(None, map(_ending, inputs)), None)


def _activation(operation: object) -> str | None:
    """Name the softmax or sigmoid that an operation is, or ends in."""
    activation = getattr(operation, "activation", None) or operation  # a function, or a layer
    name = getattr(activation, "__name__", type(activation).__name__).lower()
    return name if name in ("softmax", "sigmoid") else None


def class_weights(outputs: int, classes: np.ndarray, exclusive: bool) -> np.ndarray:
    """Weigh logits so that their sum is what a decision for each example's class depends on.

    That is its logit; where classes exclude one another less the mean of all, as a softmax is blind to what all classes
    share. A single output is the logit of the second of two classes.

    Shapes:
        classes: (batch,)
        returns: (batch, outputs)

    >>> class_weights(2, np.array([1]), True).tolist(), class_weights(1, np.array([0]), False).tolist()
    ([[-0.5, 0.5]], [[-1.0]])
    """
    if outputs == 1:
        return np.where(np.asarray(classes)[:, None] == 1, 1.0, -1.0)
    return np.asarray(np.eye(outputs)[classes] - exclusive / outputs)


def origin(tensor: keras.KerasTensor) -> tuple[Any, Sequence[keras.KerasTensor]]:
    """Return the operation that a tensor comes from, and what that takes."""
    operation, node, _ = tensor._keras_history  # type: ignore[attr-defined]  # as Keras' own Model looks
    return operation, operation._inbound_nodes[node].input_tensors


def tensors(model: keras.Model) -> list[keras.KerasTensor]:
    """List what the operations of a model's own graph put out, each after all that it is made of."""
    found: dict[int, keras.KerasTensor] = {}
    waiting: list[tuple[keras.KerasTensor, bool]] = [(each, False) for each in model.outputs]
    while waiting:
        tensor, ready = waiting.pop()
        if ready:
            found.setdefault(id(tensor), tensor)
        elif id(tensor) not in found:
            waiting += [(tensor, True), *((each, False) for each in origin(tensor)[1])]
    return list(found.values())


def logits(model: keras.Model) -> keras.KerasTensor:
    """Return a model's logits; up to a constant for each example where its classes exclude one another.

    They are computed back from probabilities where the last layer has its activation inside, or averages such.

    >>> x = keras.Input((3,))
    >>> y = keras.layers.Dense(2, name="head")(x)
    >>> logits(keras.Model(x, keras.layers.Softmax()(y))) is y
    True
    """
    tensor = model.outputs[0]
    operation, inputs = origin(tensor)
    while isinstance(operation, SAME) and inputs:
        tensor = inputs[0]
        if _activation(operation):
            return tensor
        operation, inputs = origin(tensor)
    ending = _ending(tensor)
    if ending is None:
        return tensor
    log_odds = keras.ops.log(keras.ops.clip(tensor, LEAST, 1.0))
    if ending == "sigmoid":
        log_odds -= keras.ops.log(keras.ops.clip(1 - tensor, LEAST, 1.0))
    return log_odds
