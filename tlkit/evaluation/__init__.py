"""Scores of a classifier, each with its confidence interval."""

from tlkit.evaluation.classes import average_precision, by_class, counts, recalls
from tlkit.evaluation.intervals import bootstrap, map_interval, wilson
from tlkit.evaluation.scores import Ranked, Scores, binary_crossentropy, score

__all__ = [
    "Ranked", "Scores", "average_precision", "binary_crossentropy", "bootstrap", "by_class", "counts", "map_interval",
    "recalls", "score", "wilson",
]  # fmt: skip
