"""Training on a graph, all of its nodes in one step."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tlkit.data.graph import Graph
from tlkit.training import phases
from tlkit.training.callbacks import Validation
from tlkit.training.settings import History, Settings


def fit_graph(
    model: keras.Model, graph: Graph, settings: Settings, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> History:
    """Train a model of `builders.gcn` on the training nodes of a graph; an epoch is one step on the whole graph.

    Its penalties on weights are part of both losses, as in Kipf and Welling's own code.

    Returns:
        One entry per epoch; the model has the weights of the best one.
    """
    nodes = keras.Input((None,), dtype="int32", name="nodes")
    logits = keras.ops.take(model.get_layer("head").output[0], nodes[0], axis=0)  # of these nodes alone: no mask
    selected = keras.Model([*model.inputs, nodes], keras.ops.expand_dims(logits, 0))
    train, val = (
        ([graph.features[None], graph.edges[None], part[None]], graph.labels[part][None])
        for part in (graph.train, graph.val)
    )
    return phases.fit(
        selected,
        lambda *_: {"x": train[0], "y": train[1], "batch_size": 1},
        Validation(val, val[1]),
        phases.Phase("full", settings, steps=1),
        callbacks=callbacks,
    )
