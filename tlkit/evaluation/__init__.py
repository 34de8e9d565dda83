"""Scores of a classifier, each with its confidence interval."""

from tlkit.evaluation.areas import auc_interval, map_interval
from tlkit.evaluation.calibration import binary_crossentropy, crossentropy
from tlkit.evaluation.classes import average_precision, by_class, counts, majority, rarer, recalls
from tlkit.evaluation.intervals import (
    accuracy_interval,
    bootstrap,
    loss_interval,
    mean_interval,
    mean_of_shares,
    standard_error,
    wilson,
    wilson_of_groups,
)
from tlkit.evaluation.scores import Ranked, Scores, score
from tlkit.evaluation.uncertainty import score_intervals

__all__ = [
    "Ranked", "Scores", "accuracy_interval", "auc_interval", "average_precision", "binary_crossentropy", "bootstrap",
    "by_class", "counts", "crossentropy", "loss_interval", "majority", "map_interval", "mean_interval",
    "mean_of_shares", "rarer", "recalls", "score", "score_intervals", "standard_error", "wilson", "wilson_of_groups",
]  # fmt: skip
