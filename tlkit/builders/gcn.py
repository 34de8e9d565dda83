"""The graph convolutional network of Kipf and Welling 2017 (arXiv:1609.02907), equation 9."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from tlkit.builders.family import Activation, check_head, head, number, numbers, one_line_errors
from tlkit.errors import InvalidInput
from tlkit.layers import GraphConvolution, end, global_pool


def gcn(
    input_shape: Sequence[int | None],
    *,
    classes: int,
    units: Sequence[int] = (16,),
    activation: str = "relu",
    dropout: float = 0.5,
    kernel_regularizer: str | keras.Regularizer | None = None,
    include_top: bool = True,
    pooling: str | None = None,
    classifier_activation: Activation = "softmax",
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
        pooling: None for an output for each node; `avg` or `max` over the nodes for one for each graph, and then all
            graphs of a batch have as many nodes.
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
    if not isinstance(input_shape, Sequence) or len(input_shape) != 2:
        raise InvalidInput(f"input_shape is {input_shape!r}: (nodes, features); nodes may be None")
    nodes, width = input_shape
    nodes, width = nodes if nodes is None else number("nodes", nodes), number("features", width)
    check_head(False, pooling, classes, None)
    classes = check_head(include_top, None, classes, classifier_activation)
    widths = numbers("units", units)
    features = keras.Input((nodes, width), name="features")
    edges = keras.Input((None, 2), dtype="int32", name="edges")
    with one_line_errors(f"gcn on {(nodes, width)}"):
        x = layers.Dropout(dropout, name="dropout")(features)
        for index, width in enumerate(widths, 1):
            penalty = kernel_regularizer if index == 1 else None
            x = GraphConvolution(width, activation, kernel_regularizer=penalty, name=f"stage{index}_conv")([x, edges])
            x = end(x, f"stage{index}")
            if include_top or index < len(widths):
                x = layers.Dropout(dropout, name=f"stage{index}_dropout")(x)
        if pooling:
            x = global_pool(x, pooling)
        if include_top:
            x = (
                head(x, classes, None)
                if pooling
                else GraphConvolution(classes, name="head", dtype="float32")([x, edges])
            )
            if classifier_activation not in (None, "linear"):
                x = layers.Activation(classifier_activation, name="probabilities", dtype="float32")(x)
        return keras.Model([features, edges], x, name=name)
