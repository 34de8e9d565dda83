"""Train on a graph: tell the classes of its nodes from their features, their neighbours and a few known ones.

python -m tlkit.recipes.train_graph --config recipes/train_graph/cora.yaml --data.path FILE
"""

from __future__ import annotations

import dataclasses

from tlkit import cli
from tlkit.config import TrainGraph
from tlkit.display import say
from tlkit.recipes import _results, _runs, _steps


def run(config: TrainGraph) -> _results.Result:
    """Train, score and log a graph convolutional network; see `config.TrainGraph` for the settings."""
    began = _steps.begin()
    import keras

    from tlkit import builders, evaluation, runtime, tracking, training
    from tlkit.data import graph
    from tlkit.evaluation import predictions

    config = _steps.complete(config)
    runtime.prepare(config.seed, config.precision)
    tracking.open_store(config.experiment)
    loaded = graph.load(config.data.path)
    nodes, features = loaded.features.shape
    counts = ", ".join(
        f"{len(part):,} {name}"
        for part, name in ((loaded.train, "training"), (loaded.val, "validation"), (loaded.test, "test"))
    )
    say(
        f"nodes: {nodes:,}, {counts}; {len(loaded.classes)} classes; {features:,} features; {len(loaded.edges):,} edges"
    )
    model = builders.gcn(
        (None, features),
        classes=len(loaded.classes),
        units=config.units,
        dropout=config.dropout,
        kernel_regularizer=keras.regularizers.L2(config.l2 / 2) if config.l2 else None,
    )
    with _runs.tracked("train_graph", config, loaded) as tracked:
        settings = training.Settings(**dataclasses.asdict(config.full), schedule="constant", warmup=0.0)
        history = training.fit_graph(model, loaded, settings, [tracking.epoch_logger()])
        probabilities = model.predict([loaded.features[None], loaded.edges[None]], verbose=0)[0]
        scores = evaluation.score("test", probabilities[loaded.test], loaded.labels[loaded.test])
        nodes = [str(node) for node in loaded.test]
        digests = [f"{loaded.digest[:16]}:{node}" for node in nodes]  # the same node of the same graph
        told = predictions.table(
            "test", nodes, digests, loaded.labels[loaded.test], probabilities[loaded.test], loaded.classes
        )
        fit = _results.trained(history)
        result = _results.log_result(
            "train_graph", config, tracked, model, fit, scores, told, loaded, register=config.register
        )
    return _results.summarize("train_graph", config, result, tracked, began)


if __name__ == "__main__":
    cli.main(TrainGraph, run)
