"""Several solved heads, on one or more backbones, as one ordinary model from raw pixels to probabilities."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import KerasTensor

from tlkit.backbones.surgery import pool, set_head
from tlkit.errors import InvalidInput


class JoinedHead(NamedTuple):
    """A head on the pooled features of one or more backbones, side by side.

    Args:
        backbones: Models of `build`, or layers `backbone` of models of `classifier`, which may give several stages;
            all take the same pixels.
        kernel: Shape (features of all backbones, classes).
        bias: Shape (classes,).
        mirrored: Whether features are the mean of those of the photo and of its mirror image.
    """

    backbones: Sequence[keras.Model]
    kernel: np.ndarray
    bias: np.ndarray
    mirrored: bool = False


def joined(heads: Sequence[JoinedHead], names: Sequence[str] = ()) -> keras.Model:
    """Build the model whose probabilities are the mean of those of some heads.

    It is made of Keras' own layers, so it loads in plain Keras. A backbone that several heads use is computed once, and
    each has its own preprocessing inside. One head on one backbone, without the mirror image, gives a model of
    `classifier`.

    Args:
        heads: One or more; backbones that are the same object are shared.
        names: Names for the layers of the backbones, in the order in which they first occur; by default `backbone`,
            `backbone_2` and so on.

    Shapes:
        pixels: (batch, height, width, channels), from 0 to 255
        returns: a model to (batch, classes), from 0 to 1

    Raises:
        InvalidInput: there is no head, or the backbones take different pixels.

    >>> from tlkit.backbones import build
    >>> one, two = (build("MobileNet", (64, 64, 3), weights="none", alpha=alpha) for alpha in (0.25, 0.5))
    >>> model = joined([JoinedHead([one, two], np.zeros((768, 4)), np.arange(4), mirrored=True)])
    >>> model.predict_on_batch(np.zeros((1, 64, 64, 3))).argmax(), tuple(model.get_layer("head").kernel.shape)
    (np.int64(3), (768, 4))
    """
    if not heads:
        raise InvalidInput("heads is empty: give at least one head")
    networks = list({id(network): network for head in heads for network in head.backbones}.values())
    shapes = {tuple(network.input.shape[1:]) for network in networks}
    if len(shapes) != 1:
        raise InvalidInput(f"the backbones take pixels of shapes {sorted(shapes)}: give those that take the same")
    first = heads[0]
    if len(heads) == len(networks) == 1 and not first.mirrored:
        return _single(networks[0], first)
    taken: set[str] = set()
    for number, network in enumerate(networks, 1):
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", names[number - 1] if names else "backbone").strip("_")
        network.name = f"{name}_{number}" if name in taken else name
        taken.add(network.name)
    (shape,) = shapes
    pixels = keras.Input(shape, dtype="float32", name="pixels")
    mirror = keras.ops.flip(pixels, axis=2) if any(head.mirrored for head in heads) else None
    pooled: dict[tuple[int, bool], KerasTensor] = {}

    def features(network: keras.Model, mirrored: bool) -> KerasTensor:
        key = (id(network), mirrored)
        if key not in pooled:
            name = f"pool_{network.name}{'_mirrored' * mirrored}"
            pooled[key] = pool(network(mirror if mirrored else pixels), name)
        return pooled[key]

    means: dict[int, KerasTensor] = {}

    def mean(network: keras.Model, plain: KerasTensor) -> KerasTensor:
        if id(network) not in means:
            layer = keras.layers.Average(name=f"mean_{network.name}", dtype="float32")
            means[id(network)] = layer([plain, features(network, True)])
        return means[id(network)]

    outputs = []
    for number, head in enumerate(heads, 1):
        parts = [features(network, False) for network in head.backbones]
        suffix = f"_{number}" if len(heads) > 1 else ""
        if head.mirrored:
            parts = [mean(network, part) for network, part in zip(head.backbones, parts, strict=True)]
        x = keras.layers.Concatenate(name=f"features{suffix}", dtype="float32")(parts) if len(parts) > 1 else parts[0]
        x = keras.layers.Dense(len(head.bias), name=f"head{suffix}", dtype="float32")(x)
        name = f"probabilities{suffix}"
        outputs.append(keras.layers.Activation("softmax", name=name, dtype="float32")(x))
    output = keras.layers.Average(name="probabilities", dtype="float32")(outputs) if len(outputs) > 1 else outputs[0]
    model = keras.Model(pixels, output, name="classifier")
    for number, head in enumerate(heads, 1):
        model.get_layer(f"head_{number}" if len(heads) > 1 else "head").set_weights([head.kernel, head.bias])
    return model


def temper(model: keras.Model, temperature: float) -> None:
    """Divide the logits of a classifier by a temperature, which becomes part of the weights of its head, or heads.

    So it is in every copy of the model: what Keras saves, all exports, and what is trained further.

    Args:
        model: One of `classifier`, `joined` or `tlkit.builders`, whose layer `head` (of several, `head_1` and so on)
            has a kernel and a bias.
        temperature: Above 0.

    Raises:
        InvalidInput: there is no such layer.

    >>> from tlkit.backbones import build, classifier
    >>> model = classifier(build("MobileNet", (64, 64, 3), weights="none", alpha=0.25), 3)
    >>> set_head(model, np.zeros((256, 3)), np.log([0.1, 0.1, 0.8]))
    >>> temper(model, 0.5)
    >>> model.predict_on_batch(np.zeros((1, 64, 64, 3))).round(2)
    array([[0.02, 0.02, 0.97]], dtype=float32)
    """
    heads = [layer for layer in model.layers if re.fullmatch(r"head(_\d+)?", layer.name)]
    if not heads:
        raise InvalidInput(f"model {model.name!r} has no layer called head: give one of tlkit.backbones.classifier")
    for layer in heads:
        layer.set_weights([np.asarray(weight) / temperature for weight in layer.get_weights()])


def _single(network: keras.Model, head: JoinedHead) -> keras.Model:
    """Build a model with the layers of one of `classifier`."""
    pixels = keras.Input(network.input.shape[1:], dtype="float32", name="pixels")
    network.name = "backbone"
    x = keras.layers.Dropout(0.0, name="dropout", dtype="float32")(pool(network(pixels)))
    x = keras.layers.Dense(len(head.bias), name="head", dtype="float32")(x)
    x = keras.layers.Activation("softmax", name="probabilities", dtype="float32")(x)
    model = keras.Model(pixels, x, name="classifier")
    set_head(model, head.kernel, head.bias)
    return model
