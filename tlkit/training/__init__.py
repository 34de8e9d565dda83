"""Training a classifier: a head on the features of a frozen backbone, then the whole network, slowly.

`fine_tune` does it in one call; `fit_head`, `fit_full` and `solve_head` are its parts.
"""

from tlkit.training.finetuning import fine_tune
from tlkit.training.full import fit_full, predict, range_test_full, to_logits
from tlkit.training.graphs import fit_graph
from tlkit.training.heads import Head, fit_head, range_test_head, solve_head, train_head_briefly
from tlkit.training.phases import compiled
from tlkit.training.plans import FineTuning
from tlkit.training.settings import Checkpointing, History, Settings

__all__ = [
    "Checkpointing", "FineTuning", "Head", "History", "Settings", "compiled", "fine_tune", "fit_full", "fit_graph",
    "fit_head", "predict", "range_test_full", "range_test_head", "solve_head", "to_logits", "train_head_briefly",
]  # fmt: skip
