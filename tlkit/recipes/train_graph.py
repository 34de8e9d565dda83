"""Train on a graph: tell the classes of its nodes from their features, their neighbours and a few known ones.

python -m tlkit.recipes.train_graph --config recipes/train_graph/cora.yaml --data.path FILE
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tlkit import cli
from tlkit.config import TrainGraph
from tlkit.display import say
from tlkit.recipes import _calibration, _decisions, _fit, _inputs, _jobs, _mistakes, _results, _summary

if TYPE_CHECKING:
    import keras

    from tlkit.data.graph import Graph


def run(config: TrainGraph) -> _results.Result:
    """Train, score and log a graph convolutional network; see `config.TrainGraph` for the settings."""
    job = _jobs.start("train_graph", config)
    from tlkit import tracking, training
    from tlkit.data import graph

    loaded = graph.load(config.data.path)
    say(_summary_of(loaded))
    _inputs.find_positive(config.positive, loaded.classes, multi_label=False)
    job = job.with_decisions(_decisions.positive(job.config, loaded.classes, loaded.labels[loaded.train]))
    model = _network(config, loaded)
    with job.tracked(loaded) as tracked:
        settings = training.Settings(**dataclasses.asdict(config.full), schedule="constant", warmup=0.0)
        history = training.fit_graph(model, loaded, settings, [tracking.epoch_logger()])
        fit = _fit.of_training(job, history)
        result = _results.log(job, tracked, model, fit, _scored(job, model, loaded, fit))
    return _summary.show(job, tracked, result)


def _network(config: TrainGraph, graph: Graph) -> keras.Model:
    import keras

    from tlkit import builders

    return builders.gcn(
        (None, graph.features.shape[1]),
        classes=len(graph.classes),
        units=config.units,
        dropout=config.dropout,
        kernel_regularizer=keras.regularizers.L2(config.l2 / 2) if config.l2 else None,
    )


def _scored(job: _jobs.Job[TrainGraph], model: keras.Model, graph: Graph, fit: _fit.Fit) -> _results.Scored:
    """Predict and score the test nodes, and add to the run what the probabilities are worth."""
    from tlkit import evaluation
    from tlkit.evaluation import predictions

    probabilities = model.predict([graph.features[None], graph.edges[None]], verbose=0)[0][graph.test]
    labels, names = graph.labels[graph.test], [str(node) for node in graph.test]
    digests = [f"{graph.digest[:16]}:{node}" for node in names]  # the same node of the same graph
    table = predictions.table("test", names, digests, labels, probabilities, graph.classes)
    positive = _inputs.find_positive(job.config.positive, graph.classes, multi_label=False)
    train_labels = graph.labels[graph.train]
    scores = evaluation.score("test", probabilities, labels, train_labels=train_labels, positive=positive)
    fit.pictures.update(_results.score_pictures(scores, graph.classes, graph.kind))
    intervals = evaluation.score_intervals(probabilities, labels)
    _calibration.report(fit, _calibration.worth("test", graph, labels, probabilities))
    return _results.Scored(scores, intervals, table, graph, mistakes=_mistakes.find(model, None, table))


def _summary_of(graph: Graph) -> str:
    nodes, features = graph.features.shape
    parts = {"training": graph.train, "validation": graph.val, "test": graph.test}
    sizes = ", ".join(f"{len(part):,} {name}" for name, part in parts.items())
    return f"nodes: {nodes:,}, {sizes}; {len(graph.classes)} classes; {features:,} features; {len(graph.edges):,} edges"


if __name__ == "__main__":
    cli.main(TrainGraph, run)
