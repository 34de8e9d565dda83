"""Gradients on any of Keras' backends that has them, and the heatmaps that need them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tlkit.errors import InvalidInput
from tlkit.explanation.heads import logits, origin, tensors
from tlkit.layers import is_stage

BACKENDS = ("tensorflow", "torch", "jax")


def gradient(function: Callable[[Any], Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Make the gradient of a scalar function of one array, by the backend's own means.

    Raises:
        InvalidInput: the backend has none.
    """
    backend = keras.backend.backend()
    if backend not in BACKENDS:
        raise InvalidInput(f"KERAS_BACKEND is {backend}, which computes no gradients; use tensorflow, jax or torch")
    framework: Any = importlib.import_module(backend)
    if backend == "jax":
        return lambda x: np.asarray(framework.grad(function)(keras.ops.convert_to_tensor(x)))
    if backend == "torch":

        def by_torch(x: np.ndarray) -> np.ndarray:
            tensor = keras.ops.convert_to_tensor(x).requires_grad_(True)
            return framework.autograd.grad(function(tensor), tensor)[0].cpu().numpy()

        return by_torch

    # Traced, so that the gradients by the weights are left out: TensorFlow 2.21 on a CPU crashes on some of them.
    @framework.function
    def traced(tensor: Any) -> Any:
        with framework.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensor)
            value = function(tensor)
        return tape.gradient(value, tensor)

    return lambda x: traced(keras.ops.convert_to_tensor(x)).numpy()


def layer_activation(activations: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Weigh each cell's activations by their own positive gradients (LayerCAM, Jiang et al. 2021, equation 5).

    Shapes:
        activations: (batch, *positions, channels)
        slopes: the same, the gradient of the class's score
        returns: (batch, *positions), not below 0

    >>> layer_activation(np.array([[[1.0, 2.0], [3.0, 0.0]]]), np.array([[[1.0, -1.0], [2.0, 5.0]]])).tolist()
    [[1.0, 6.0]]
    """
    weighed: np.ndarray = np.maximum((np.maximum(slopes, 0) * activations).sum(axis=-1), 0)
    return weighed


class Cut:
    """A model cut at the output of a layer: what comes before, and the logits as a function of what it puts out.

    Args:
        model: The model, from one input to one output.
        tensor: In its graph.
    """

    def __init__(self, model: keras.Model, tensor: keras.KerasTensor) -> None:
        self.below = keras.Model(model.inputs[0], [tensor, model.outputs[0]])
        self.above = keras.Model(tensor, logits(model))

    def slopes(self, activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the gradient of each example's weighted sum of logits, of the same shape as the activations.

        Shapes:
            weights: (batch, outputs), see `heads.class_weights`
        """
        chosen = np.asarray(weights, np.float32)
        return gradient(lambda x: keras.ops.sum(self.above(x, training=False) * chosen))(activations)


def cuts(model: keras.Model) -> list[Cut]:
    """Cut a model behind its stages, the last first; where it has none, behind its last map of each size.

    Raises:
        InvalidInput: there is no layer whose output is a map.
    """
    whole = inlined(model)
    maps = [
        each
        for each in tensors(whole)
        if not isinstance(origin(each)[0], keras.layers.InputLayer | keras.layers.ZeroPadding2D)
        and len(each.shape) >= 3
        and any(length != 1 for length in each.shape[1:-1])
    ]
    stages = [each for each in maps if is_stage(origin(each)[0].name)]
    by_size = {each.shape[1:-1]: each for each in maps}
    found = []
    for tensor in reversed(stages or list(by_size.values())):
        try:
            found.append(Cut(whole, tensor))
        except ValueError:  # later layers also need what lies below
            continue
    if not found:
        raise InvalidInput(f"model {model.name!r} has no layer with a map that all later layers build on")
    return found


def inlined(model: keras.Model) -> keras.Model:
    """Put the layers of nested models in their places, where a model is a chain, else leave it; weights are shared."""
    origins = [origin(each) for each in tensors(model)]
    parts = {id(operation): operation for operation, _ in origins}
    before = [{id(origin(other)[0]) for other in inputs} for _, inputs in origins]
    if not any(isinstance(part, keras.Model) for part in parts.values()) or any(len(each) > 1 for each in before):
        return model
    inputs = x = keras.Input(model.inputs[0].shape[1:], dtype=model.inputs[0].dtype)
    for part in parts.values():
        if isinstance(part, keras.layers.InputLayer):
            continue
        # `call` applies the layers of a nested model one by one, and leaves it out of the graph.
        x = inlined(part).call(x) if isinstance(part, keras.Model) else part(x)
    return keras.Model(inputs, x, name=model.name)
