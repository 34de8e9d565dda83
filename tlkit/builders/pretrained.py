"""Weights for a network that is built: from a file, or from the same network in keras.applications."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tlkit.backbones import weightfiles
from tlkit.errors import InvalidInput

HINT = "none, or the path of a .weights.h5 file"


def load(
    model: keras.Model,
    start: keras.KerasTensor,
    variant: str,
    row: Any,
    weights: str | os.PathLike[str],
    include_top: bool,
    classes: int,
) -> None:
    """Load `imagenet`, the weights that keras.applications publishes for the same network, or a file.

    Args:
        model: The model.
        start: The tensor in it that the network starts from.
        variant: Its name.
        row: Its row.
        weights: `imagenet`, or a path.
        include_top: Whether the network has its head.
        classes: Units of the head.

    Raises:
        InvalidInput: keras.applications has no such network, or what there is does not fit.
        Unavailable: the weights are neither in Keras' cache nor can they be downloaded.
    """
    if weights != "imagenet":
        return load_file(model, weights)
    application = row.application
    if include_top and classes != row.classes:
        raise InvalidInput(
            f"classes is {classes} and weights is 'imagenet', whose head has {row.classes}: include_top=False, and a "
            "head of your own"
        )
    shape = tuple(start.shape[1:])
    if len(shape) != 3 or shape[-1] != row.channels:
        raise InvalidInput(f"input_shape is {shape} and weights is 'imagenet': (height, width, {row.channels})")
    constructor, size = getattr(keras.applications, application), (row.size, row.size, row.channels)
    theirs, file = weightfiles.asked_for(
        lambda: constructor(include_top=include_top, weights="imagenet", input_shape=size)
    )
    weightfiles.load_published(theirs, weightfiles.fetch(variant, file), application)
    copy(theirs, keras.Model(start, model.output, name=variant))


def load_file(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Load a `.weights.h5` file that the same model's `save_weights` wrote.

    Raises:
        InvalidInput: there is no such file, or it does not fit.
    """
    if not isinstance(path, str | os.PathLike) or not os.path.isfile(path):
        raise InvalidInput(f"weights is {str(path)!r}: no such file; give {HINT}")
    weightfiles.load(model, os.fspath(path), model.name)


def copy(source: keras.Model, target: keras.Model) -> None:
    """Copy the weights of the same network built by other hands: layers correspond by their place in the graph.

    Two things may differ. Kernels of the same numbers in another shape, such as a 1 x 1 convolution's and a dense
    layer's. And a convolution's bias in front of batch normalization, which does nothing but shift its moving mean:
    where the target has no such bias, the mean is shifted.

    Args:
        source: Such as a network of keras.applications; its preprocessing layers are left out.
        target: The one to change.

    Raises:
        InvalidInput: the two are not the same network.

    >>> from tlkit.builders import build
    >>> theirs = keras.applications.VGG16(weights=None, classes=3, input_shape=(32, 32, 3))
    >>> ours = build("vgg16", (32, 32, 3), classes=3)
    >>> copy(theirs, ours)
    >>> bool(keras.ops.all(ours.weights[-1] == theirs.weights[-1]))
    True
    """
    sources, targets = list(_weighted(source)), list(_weighted(target))
    if len(sources) != len(targets):
        raise InvalidInput(f"{source.name} has {len(sources)} layers with weights, {target.name} has {len(targets)}")
    biases: deque[np.ndarray] = deque()  # in front of normalization, which comes in the order of the convolutions
    changes = []
    for theirs, ours in zip(sources, targets, strict=True):
        values = theirs.get_weights()
        if biases and isinstance(ours, keras.layers.BatchNormalization):
            values[2] = values[2] - biases.popleft()
        if len(values) == 2 and len(ours.weights) == 1:
            biases.append(values.pop())
        shapes = [tuple(weight.shape) for weight in ours.weights]
        if [_squeezed(value.shape) for value in values] != [_squeezed(shape) for shape in shapes]:
            raise InvalidInput(
                f"{theirs.name} of {source.name} holds {[v.shape for v in values]}, {ours.name} of {target.name} "
                f"{shapes}: not the same network"
            )
        changes.append((ours, [np.reshape(value, shape) for value, shape in zip(values, shapes, strict=True)]))
    for ours, values in changes:
        ours.set_weights(values)


def _weighted(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _weighted(layer)
        elif layer.weights and not isinstance(layer, keras.layers.Normalization):
            yield layer


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)
