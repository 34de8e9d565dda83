"""Heatmaps of a model's decisions, by the best way that the model and the backend allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tlkit import inference
from tlkit.errors import InvalidInput
from tlkit.explanation.gradients import BACKENDS, cuts, inlined, layer_activation
from tlkit.explanation.heads import Head, class_weights, heads, is_exclusive
from tlkit.explanation.occlusion import occlusion
from tlkit.explanation.pictures import resized
from tlkit.layers import FRONT

WAYS = {
    "activation": "class activation: each cell's own share of the class's score, exact as the head is linear",
    "layer": "LayerCAM: activations of a layer, weighed by their gradients",
    "occlusion": "occlusion: what the class loses where a window is hidden",
}


class Explainer(NamedTuple):
    """Draws heatmaps of a model's decisions.

    Args:
        way: A key of `WAYS`.
        heatmaps: From examples (batch, *space, channels) and a class for each, -1 for the most probable, to heatmaps
            (batch, *cells), from 0 to 1, and the probabilities (batch, classes). A heatmap is 0 everywhere where
            no cell speaks for the class.
    """

    way: str
    heatmaps: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def explainer(model: keras.Model, way: str = "auto") -> Explainer:
    """Make what draws heatmaps of a model.

    Args:
        model: From one input to probabilities, (batch, classes), or (batch, 1) of the second of two.
        way: A key of `WAYS`; `auto` is the class activation where the head allows it, else LayerCAM.

    Raises:
        InvalidInput: the model has no map that could be explained, or no class activation.
        NotImplementedError: the way needs gradients, which the backend does not have.

    >>> x = keras.Input((8, 8, 1))
    >>> average = keras.layers.GlobalAveragePooling2D()(x)
    >>> head = keras.layers.Dense(2, kernel_initializer=lambda *_, **__: np.array([[-1.0, 1.0]]), activation="softmax")
    >>> photo = np.pad(np.ones((1, 2, 2, 1)), ((0, 0), (6, 0), (6, 0), (0, 0)))
    >>> maps, _ = explainer(keras.Model(x, head(average))).heatmaps(photo, np.array([1]))
    >>> maps[0, 5:, 5:].tolist()
    [[0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]]
    """
    if way in ("auto", "activation"):
        whole = model
        found = heads(whole) or heads(whole := inlined(model))
        if found and _have_places(found):
            return Explainer("activation", _by_activation(whole, found))
    if way == "activation":
        raise InvalidInput(f"model {model.name!r} has no class activation: its head is not linear in averages of a map")
    if way == "occlusion":
        return Explainer("occlusion", _by_occlusion(model))
    backend = keras.backend.backend()
    if backend not in BACKENDS:
        raise NotImplementedError(f"the heatmap of this network needs gradients, which {backend} does not compute")
    return Explainer("layer", _by_layer(model))


def _have_places(found: list[Head]) -> bool:
    """Whether all features are averages over more than one place, and none is a vector, as a class token is."""
    return all(any(length != 1 for length in each.map.shape[1:-1]) for head in found for each in head.maps)


def _by_activation(model: keras.Model, found: list[Head]) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Class activation: what the cells add to the class's score; see `activation`."""
    scores = activation(model, found)

    def heatmaps(x: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cells, probabilities = scores(x, classes)
        return scaled(np.maximum(cells, 0)), probabilities

    return heatmaps


def activation(model: keras.Model, found: list[Head]) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Make what splits a class's score among the cells (Zhou et al. 2016, equation 2), over all maps of a head.

    The cells of an example sum to the logit of its class, less the mean of all classes' where they exclude one another:
    a softmax sees no more than these differences. The bias is spread evenly. It is most of what decides for a class
    that is known by what is absent: without it each cell would speak against the class, and with it the most probable
    of such classes always has cells that speak for it. Of several heads the scores are averaged.

    Returns:
        A function from examples and a class for each, -1 for the most probable, to the cells, (batch, *cells), and the
        probabilities, (batch, classes).
    """
    outputs, mirrored, bias = [], [], 0.0
    for head in found:
        kernel = keras.ops.convert_to_numpy(head.dense.kernel)
        if head.dense.bias is not None:
            bias = bias + keras.ops.convert_to_numpy(head.dense.bias) / len(found)
        for each in head.maps:
            weights = kernel[each.start : each.start + each.map.shape[-1]] * (each.share / len(found))
            outputs.append(keras.ops.matmul(keras.ops.cast(each.map, "float32"), weights))
            mirrored.append(each.mirrored)
    network = inference.in_full_precision(keras.Model(model.inputs[0], [*outputs, model.outputs[0]]))
    exclusive = is_exclusive(model)

    def cells(x: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        *maps, raw = (np.asarray(keras.ops.convert_to_numpy(each)) for each in _outputs(network, x))
        probabilities = _of_both(raw)
        weights = class_weights(raw.shape[1], _chosen(probabilities, classes), exclusive)
        parts = [on_grid(np.einsum("b...c,bc->b...", values, weights), x.shape[1:-1]) for values in maps]
        parts = [part[:, :, ::-1] if flipped else part for part, flipped in zip(parts, mirrored, strict=True)]
        grid = max((part.shape[1:] for part in parts), key=np.prod)
        spread = weights @ np.broadcast_to(bias, raw.shape[1])
        whole = sum(_on_cells(part, grid) for part in parts) + spread.reshape(-1, *[1] * len(grid))
        return whole / np.prod(grid), probabilities

    return cells


def _on_cells(maps: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """Bring maps, (batch, *cells), to a finer grid; their means stay."""
    finer = np.stack([resized(each, grid) for each in maps])
    axes = tuple(range(1, maps.ndim))
    return np.asarray(finer + (maps.mean(axes, keepdims=True) - finer.mean(axes, keepdims=True)))


def _outputs(network: keras.Model, x: np.ndarray) -> Sequence[Any]:
    """Compute a few examples; with TensorFlow directly, as tracing the network takes longer than computing them."""
    if keras.backend.backend() == "tensorflow":
        return network(keras.ops.convert_to_tensor(x, network.inputs[0].dtype), training=False)
    return network.predict_on_batch(x)


def _by_layer(model: keras.Model) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    whole = inlined(model)
    places, exclusive = cuts(whole), is_exclusive(whole)

    def heatmaps(x: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        for place in places:  # the last layer that all patches matter to: behind the last block only the class token
            activations, raw = (np.asarray(keras.ops.convert_to_numpy(each)) for each in _outputs(place.below, x))
            probabilities = _of_both(raw)
            weights = class_weights(raw.shape[1], _chosen(probabilities, classes), exclusive)
            slopes = place.slopes(activations, weights)
            weighed = on_grid(layer_activation(activations, slopes), x.shape[1:-1])
            if weighed.any() or place is places[-1]:
                break
        return scaled(weighed), probabilities

    return heatmaps


def _by_occlusion(model: keras.Model) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    network = inference.in_full_precision(model)

    def predict(x: np.ndarray) -> np.ndarray:
        parts = [np.asarray(network.predict_on_batch(x[at : at + 32])) for at in range(0, len(x), 32)]
        return _of_both(np.concatenate(parts))

    def heatmaps(x: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probabilities = predict(x)
        chosen = _chosen(probabilities, classes)
        maps = [occlusion(predict, example, int(label)) for example, label in zip(x, chosen, strict=True)]
        return scaled(np.stack(maps)), probabilities

    return heatmaps


def on_grid(maps: np.ndarray, space: tuple[int, ...]) -> np.ndarray:
    """Put the values of tokens back in their places; others in front, the class's and registers, are left out.

    Shapes:
        maps: (batch, *cells), or (batch, tokens)
        returns: (batch, *cells)

    >>> on_grid(np.array([[9, 1, 2, 3, 4, 5, 6]]), (20, 30)).tolist()
    [[[1, 2, 3], [4, 5, 6]]]
    """
    if maps.ndim - 1 == len(space):
        return maps
    tokens = maps.shape[1]
    for patch in range(1, max(space) + 1):
        grid = [length // patch for length in space]
        if 0 <= tokens - int(np.prod(grid)) <= FRONT:
            return maps[:, tokens - int(np.prod(grid)) :].reshape(-1, *grid)
    return maps


def scaled(maps: np.ndarray) -> np.ndarray:
    """Scale each heatmap to a maximum of 1; one that is 0 everywhere stays."""
    most = maps.max(axis=tuple(range(1, maps.ndim)), keepdims=True)
    return np.asarray(maps / np.where(most > 0, most, 1), np.float32)


def _of_both(raw: np.ndarray) -> np.ndarray:
    return raw if raw.shape[1] > 1 else np.concatenate([1 - raw, raw], axis=1)


def _chosen(probabilities: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return np.where(classes < 0, probabilities.argmax(axis=1), classes)
