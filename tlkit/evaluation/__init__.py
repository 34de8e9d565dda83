"""Scores of a classifier, each with its confidence interval."""

from tlkit.evaluation.classes import average_precision, by_class, counts, majority, rarer, recalls
from tlkit.evaluation.intervals import (
    accuracy_interval,
    bootstrap,
    map_interval,
    standard_error,
    wilson,
    wilson_of_groups,
)
from tlkit.evaluation.scores import Ranked, Scores, binary_crossentropy, score

__all__ = [
    "Ranked", "Scores", "accuracy_interval", "average_precision", "binary_crossentropy", "bootstrap", "by_class",
    "counts", "majority", "map_interval", "rarer", "recalls", "score", "standard_error", "wilson",
    "wilson_of_groups",
]  # fmt: skip
