"""The settings of the recipes: frozen dataclasses, checked when they are made; loading one imports no framework."""

from tlkit.config.data import Augment, Data, Graph, Views
from tlkit.config.fields import defaults, flatten
from tlkit.config.networks import CNN, Backbone, Builder, Features, Network
from tlkit.config.recipes import (
    SELECT,
    Auto,
    FeatureExtraction,
    Finetune,
    Inspect,
    Pretrain,
    Select,
    Train,
    TrainGraph,
    Tune,
)
from tlkit.config.tools import (
    Cache,
    Compare,
    Describe,
    Evaluate,
    Explain,
    Export,
    FindLr,
    Predict,
    Preview,
    Serve,
    Sync,
    Ui,
)
from tlkit.config.training import Exportable, Full, Head, Phase, Precision, Recipe, Steady, Training, parse_hosts

__all__ = [
    "CNN", "SELECT", "Augment", "Auto", "Backbone", "Builder", "Cache", "Compare", "Data", "Describe", "Evaluate",
    "Explain", "Export", "Exportable", "FeatureExtraction", "Features", "FindLr", "Finetune", "Full", "Graph", "Head",
    "Inspect", "Network", "Phase", "Precision", "Predict", "Pretrain", "Preview", "Recipe", "Select", "Serve",
    "Steady", "Sync", "Train", "TrainGraph", "Training", "Tune", "Ui", "Views", "defaults", "flatten",
    "parse_hosts",
]  # fmt: skip
