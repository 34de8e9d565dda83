"""The graph convolutional network of Kipf and Welling 2017 (arXiv:1609.02907), equation 9."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from tlkit.builders.family import check_head
from tlkit.errors import InvalidInput
from tlkit.layers import GraphConvolution, end


def gcn(
    input_shape: Sequence[int | None],
    *,
    classes: int,
    units: Sequence[int] = (16,),
    activation: str = "relu",
    dropout: float = 0.5,
    kernel_regularizer: Any = None,
    include_top: bool = True,
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    name: str = "gcn",
) -> keras.Model:
    """Build a graph convolutional network: one output for each node or, with `pooling`, for each graph.

    The hidden layers are called `stage1`, `stage2` and so on.

    Args:
        input_shape: (nodes, features); nodes may be None.
        classes: Units of the head.
        units: Of each hidden layer.
        activation: Of the hidden layers.
        dropout: Share dropped of the input and of each hidden layer's output.
        kernel_regularizer: Of the first layer alone, as in the paper.
        include_top: Whether there is a head; else the model ends with its last hidden layer.
        pooling: None for an output for each node; `avg` or `max` over the nodes for one for each graph.
        classifier_activation: Of the head; None gives logits.
        name: Of the model.

    Shapes:
        inputs: a list of
            features: (batch, nodes, features)
            edges: (batch, edges, 2), integers: the two nodes of each undirected edge; see
                `tlkit.layers.GraphConvolution`
        output: (batch, nodes, classes), or (batch, classes) with pooling

    Raises:
        InvalidInput: an argument does not fit; the message says what does.

    >>> gcn((None, 1433), classes=7).count_params()  # Cora
    23063
    """
    shape = tuple(input_shape)
    if len(shape) != 2 or shape[1] is None:
        raise InvalidInput(f"input_shape is {shape}: (nodes, features); nodes may be None")
    check_head(False, pooling, classes, None)
    check_head(include_top, None, classes, classifier_activation)
    if not units or not all(isinstance(n, int) and n >= 1 for n in units):
        raise InvalidInput(f"units is {units!r}: one or more numbers from 1 on")
    if not 0 <= dropout < 1:
        raise InvalidInput(f"dropout is {dropout}: from 0 to below 1")
    features = keras.Input(shape, name="features")
    edges = keras.Input((None, 2), dtype="int32", name="edges")
    x = layers.Dropout(dropout, name="dropout")(features)
    for number, width in enumerate(units, 1):
        x = GraphConvolution(
            width,
            activation,
            kernel_regularizer=kernel_regularizer if number == 1 else None,
            name=f"stage{number}_conv",
        )([x, edges])
        x = end(x, f"stage{number}")
        if include_top or number < len(units):
            x = layers.Dropout(dropout, name=f"stage{number}_dropout")(x)
    if include_top and not pooling:
        x = GraphConvolution(classes, name="head", dtype="float32")([x, edges])
    elif pooling:
        x = {"avg": layers.GlobalAveragePooling1D, "max": layers.GlobalMaxPooling1D}[pooling](name="pool")(x)
        if include_top:
            x = layers.Dense(classes, name="head", dtype="float32")(x)
    if include_top and classifier_activation not in (None, "linear"):
        x = layers.Activation(classifier_activation, name="probabilities", dtype="float32")(x)
    return keras.Model([features, edges], x, name=name)
