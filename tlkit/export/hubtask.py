"""A classifier as a task of KerasHub: a folder that `keras_hub.models.ImageClassifier.from_preset` loads."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tlkit.display import shown
from tlkit.errors import InvalidInput

ACTIVATIONS = (keras.layers.Activation, keras.layers.Softmax)
AFTER_HEAD = (*ACTIVATIONS, keras.layers.Dropout)  # which has the names of the classes


def check(model: keras.Model) -> None:
    """Refuse a model that no `ImageClassifier` can be.

    Raises:
        InvalidInput: it does not take photos, has no single linear head, or has layers of tlkit's own.

    >>> check(keras.Sequential([keras.Input((8,)), keras.layers.Dense(2, name="head")]))
    Traceback (most recent call last):
    tlkit.errors.InvalidInput: format is 'keras_hub', which holds classifiers of photos: give another format
    """
    if len(model.input_shape) != 4 or model.input_shape[-1] not in (1, 3):
        raise InvalidInput("format is 'keras_hub', which holds classifiers of photos: give another format")
    names = [layer.name for layer in model.layers]
    behind = model.layers[names.index("head") + 1 :] if "head" in names else [None]
    kinds = [isinstance(layer, ACTIVATIONS) for layer in behind]
    if sum(kinds) != 1 or not all(isinstance(layer, AFTER_HEAD) for layer in behind):
        raise InvalidInput("format is 'keras_hub', which holds networks with one linear head: give another format")
    for layer in model._flatten_layers():
        if type(layer).__module__.startswith("tlkit."):
            what = f"layer {shown(layer.name)} ({type(layer).__name__}) of tlkit"
            raise InvalidInput(f"format is 'keras_hub', which cannot hold {what}: give another format")


def write(model: keras.Model, path: str, resize: str) -> None:
    """Write a classifier as an `ImageClassifier`: its features are the backbone, and its head the predictions.

    Args:
        model: As `check` accepts it, from pixels to probabilities, its preprocessing inside.
        path: Of the folder.
        resize: How photos are brought to the size; a value of `data.resize`. A photo that has the size stays.
    """
    import keras_hub

    head = model.get_layer("head")
    features = keras.layers.Reshape((1, 1, head.kernel.shape[0]), name="as_map")(head.input)
    backbone = keras.Model(model.input, features, name="backbone")
    last = next(layer for layer in reversed(model.layers) if isinstance(layer, ACTIVATIONS))
    activation = "softmax" if isinstance(last, keras.layers.Softmax) else keras.activations.serialize(last.activation)
    preprocessor: Any = keras_hub.models.ImageClassifierPreprocessor(
        keras_hub.layers.ImageConverter(
            image_size=model.input_shape[1:3],
            crop_to_aspect_ratio=resize in ("center", "crop"),
            pad_to_aspect_ratio=resize == "pad",
            antialias=True,
        )
    )
    task = keras_hub.models.ImageClassifier(
        backbone, head.kernel.shape[1], preprocessor=preprocessor, activation=activation
    )
    task.output_dense.set_weights([np.asarray(weight) for weight in head.get_weights()])
    task.save_to_preset(path)
