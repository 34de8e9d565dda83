"""Heatmaps of a model's decisions, by the best way that the model and the backend allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tlkit import inference
from tlkit.errors import InvalidInput
from tlkit.explanation.gradients import BACKENDS, cuts, inlined, layer_activation
from tlkit.explanation.heads import Head, heads
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
            nothing speaks for the class.
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
    """Class activation (Zhou et al. 2016, equation 2), summed over all maps that the head's features come from."""
    outputs, mirrored = [], []
    for head in found:
        kernel = keras.ops.convert_to_numpy(head.dense.kernel)
        for each in head.maps:
            weights = kernel[each.start : each.start + each.map.shape[-1]] * (each.share / len(found))
            outputs.append(keras.ops.matmul(keras.ops.cast(each.map, "float32"), weights))
            mirrored.append(each.mirrored)
    network = inference.in_full_precision(keras.Model(model.inputs[0], [*outputs, model.outputs[0]]))

    one_label = keras.activations.softmax in (getattr(layer, "activation", None) for layer in model.layers)

    def heatmaps(x: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        *maps, raw = (np.asarray(keras.ops.convert_to_numpy(each)) for each in _outputs(network, x))
        probabilities = _of_both(raw)
        chosen, parts = _chosen(probabilities, classes), []
        for values, flipped in zip(maps, mirrored, strict=True):
            own = on_grid(_of_class(values, _weights(probabilities, chosen, one_label)), x.shape[1:-1])
            parts.append(own[:, :, ::-1] if flipped else own)
        grid = max((part.shape[1:] for part in parts), key=np.prod)
        whole = sum(np.stack([resized(each, grid) for each in part]) for part in parts)
        return scaled(np.maximum(whole, 0)), probabilities

    return heatmaps


def _outputs(network: keras.Model, x: np.ndarray) -> Sequence[Any]:
    """Compute a few examples; with TensorFlow directly, as tracing the network takes longer than computing them."""
    if keras.backend.backend() == "tensorflow":
        return network(keras.ops.convert_to_tensor(x, network.inputs[0].dtype), training=False)
    return network.predict_on_batch(x)


def _of_class(maps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum maps of classes, (batch, *cells, classes), with each example's weights, (batch, classes)."""
    if maps.shape[-1] == 1:  # a single unit, which is the second class's
        weights = weights[:, 1:] - weights[:, :1]
    return np.einsum("b...c,bc->b...", maps, weights)


def _weights(probabilities: np.ndarray, chosen: np.ndarray, one_label: bool) -> np.ndarray:
    """Weigh the class by 1; where classes exclude one another, against the mean of all, as a softmax compares them."""
    weights = np.eye(probabilities.shape[1])[chosen]
    return np.asarray(weights - one_label / probabilities.shape[1])


def _by_layer(model: keras.Model) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    places = cuts(model)

    def heatmaps(x: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        for place in places:  # the last layer that all patches matter to: behind the last block only the class token
            activations, raw = (np.asarray(keras.ops.convert_to_numpy(each)) for each in _outputs(place.below, x))
            probabilities = _of_both(raw)
            chosen = _chosen(probabilities, classes)
            slopes = place.slopes(activations, chosen)
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
