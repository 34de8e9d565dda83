"""A model that also says how far an example is from all known ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlkit import inference
from tlkit.errors import InvalidInput

if TYPE_CHECKING:
    import keras
    import numpy as np


def with_novelty(model: keras.Model, references: np.ndarray) -> keras.Model:
    """Return a model with one more output column: 1 minus the cosine to the nearest reference.

    One array comes out, so that every engine can compute it; the layers are shared.

    Args:
        model: To probabilities, (batch, classes); its layer `head` takes features.
        references: Features of known examples, each of length 1, (references, features); those of
            `tlkit.probes.novelty.Novelty`.

    Shapes:
        returns: a model to (batch, classes + 1)

    Raises:
        InvalidInput: the model has no such layer, or other features.

    >>> import keras, numpy as np
    >>> inputs = keras.Input((2,))
    >>> head = keras.layers.Dense(3, name="head", kernel_initializer="zeros", activation="softmax")
    >>> model = with_novelty(keras.Model(inputs, head(inputs)), np.float16([[1, 0]]))
    >>> model.predict_on_batch(np.array([[2.0, 0.0], [0.0, 5.0]])).round(2)
    array([[0.33, 0.33, 0.33, 0.  ], [0.33, 0.33, 0.33, 1.  ]], dtype=float32)
    """
    import keras

    if all(layer.name != "head" for layer in model.layers):
        raise InvalidInput("the model has references of known examples, but no layer called head")
    features = model.get_layer("head").input
    if features.shape[1:] != references.shape[1:]:
        raise InvalidInput(f"the model's head takes {features.shape[1:]}, and its references are {references.shape}")
    unit = keras.layers.UnitNormalization(dtype="float32", name="features_of_length_1")(features)
    nearest = keras.layers.Dense(len(references), use_bias=False, dtype="float32", name="references")
    distance = 1 - keras.ops.max(nearest(unit), axis=-1, keepdims=True)
    nearest.set_weights([references.T.astype("float32")])
    output = keras.layers.Concatenate(dtype="float32", name="probabilities_and_distance")([model.output, distance])
    return inference.in_full_precision(keras.Model(model.input, output, name="with_novelty"))
