"""The settings of the recipes that make a model, or say which to make."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from tlkit.config.data import Augment, Graph, Views
from tlkit.config.fields import require
from tlkit.config.networks import Backbone, Builder
from tlkit.config.training import Classifier, Exportable, Frozen, Full, Head, Logged, Phase, Run, Steady, Training


@dataclasses.dataclass(frozen=True)
class FeatureExtraction(Exportable, Frozen):
    """Put a new head on a frozen backbone: logistic regression on its features.

    Args:
        backbone: The network.
        shard: Part of the photos, such as `3/16`, whose features are put into the store, and nothing else; for job
            arrays. The same command without it then finds the features of all parts.
    """

    backbone: Backbone = dataclasses.field(default_factory=Backbone)
    shard: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shard is not None:
            number, _, count = self.shard.partition("/")
            digits = all(each.isascii() and each.isdigit() and len(each) < 7 for each in (number, count))
            allowed = digits and 1 <= int(number) <= int(count)
            require(allowed, "shard", self.shard, "it must be a part and the number of parts, such as 3/16")
            require(
                self.features.store != "none", "shard", self.shard, "it needs a store: leave --features.store none out"
            )


@dataclasses.dataclass(frozen=True)
class Inspect(Frozen):
    """Look at data before any training, and find what would falsify a score.

    Args:
        backbone: The network whose features show suspected labels and outliers; with `--backbone.name none` these are
            not looked for.
        write: CSV file to write: a table of all examples that says which are better left out, and why; source `csv`
            reads it. An existing file is not overwritten.
        output: HTML file to write the page to, which the run has in any case. An existing file is not overwritten.
    """

    backbone: Backbone = dataclasses.field(default_factory=Backbone)
    write: str | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, suffix in (("write", ".csv"), ("output", ".html")):
            value = getattr(self, name)
            right = value is None or value.lower().endswith(suffix)
            require(right, name, value, f"it must be the path of a file that ends in {suffix}")
        files = self.write is None or self.data.origin in ("folder", "csv")
        require(files, "write", self.write, "the data must be files, of --data.source folder or csv")


SELECT = ("MobileNetV2", "MobileNetV3Large", "EfficientNetV2B0", "ResNet50V2", "DenseNet121", "ConvNeXtTiny")
"""What `Select` ranks by default: six families, none larger than 30 million parameters."""


@dataclasses.dataclass(frozen=True)
class Select(Frozen):
    """Rank backbones on the user's data, before any of them is trained.

    Args:
        backbones: The networks, as names or as mappings such as `{name: MobileNet, alpha: 0.5}`.
    """

    backbones: list[str | Backbone] = dataclasses.field(default_factory=lambda: list(SELECT))

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.backbones), "backbones", self.backbones, "it must have one network or more")


@dataclasses.dataclass(frozen=True)
class Auto(Exportable, Frozen):
    """Find the best classifier of photos in the minutes that you have: one model, of one or more networks.

    Args:
        minutes: Time for all of it, without the import of Keras; the test and the log at the end are part of it.
        backbones: Networks to try, as names or as mappings such as `{name: MobileNet, alpha: 0.5}`; by default those
            whose weights are on this machine, or MobileNetV2 where there are none.
        largest_mb: Maximum size of the model's weights in megabytes (10^6 bytes).
        fastest_ms: Maximum time for one photo in milliseconds, by itself and on this machine.
    """

    minutes: float = 5.0
    backbones: list[str | Backbone] | None = None
    largest_mb: float | None = None
    fastest_ms: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.minutes < float("inf"), "minutes", self.minutes, "it must be above 0, and finite")
        require(self.backbones != [], "backbones", self.backbones, "it must have one network or more")
        for name in ("largest_mb", "fastest_ms"):
            value = getattr(self, name)
            require(value is None or 0 < value < float("inf"), name, value, "it must be above 0, and finite")


@dataclasses.dataclass(frozen=True)
class Finetune(Training, Frozen):
    """Fit a new head on frozen features, then fine-tune the backbone.

    Args:
        backbone: The network.
        head: The first phase.
        augment: Random changes of the training photos.
        full: The second phase.
    """

    label_smoothing: float = 0.0
    weight_decay: float = 0.0
    backbone: Backbone = dataclasses.field(default_factory=Backbone)
    head: Head = dataclasses.field(default_factory=Head)
    augment: Views = dataclasses.field(default_factory=Views)
    full: Full = dataclasses.field(default_factory=Full)


@dataclasses.dataclass(frozen=True)
class Train(Training):
    """Train a network from random weights.

    Args:
        builder: The network.
        augment: Random changes of the training photos; sounds have shift and contrast (loudness), arrays flip (along
            each axis) and shift.
        full: The only phase; it bears the name of finetune's second.
    """

    builder: Builder = dataclasses.field(default_factory=Builder)
    augment: Augment = dataclasses.field(default_factory=Augment)
    full: Phase = dataclasses.field(default_factory=Phase)


@dataclasses.dataclass(frozen=True)
class Tune(Classifier, Frozen):
    """Search the settings of a recipe; each trial is a run of it, and none sees the test photos.

    Args:
        recipe: Recipe to tune, `finetune` or `train`.
        space: Settings of the recipe, any of which may be a range: `{choice: [3, 5]}`, `{int: [16, 64], step: 16}`,
            `{float: [1e-4, 1e-2], log: true}` or `{bool: true}`, with `when` and `repeat`; see the docs.
        algorithm: Search algorithm of keras-tuner.
        trials: Maximum number of trials; by default 20, but all combinations for `grid` (some ten values of a range
            without steps). `hyperband` derives it from `full.epochs`: its best trials train that long, others less.
        objective: Metric to optimize, of the best epoch of each trial: the highest accuracy or the lowest loss.
        executions: Number of runs of each trial, with consecutive seeds; their mean counts.
        max_parameters: Maximum number of parameters; larger networks are rejected before training.
        max_multiply_adds: Maximum number of multiply-adds for one example; larger networks are rejected too.
        workers: Number of processes that run trials in parallel, on this machine or on the cluster; 0 if all of them
            are started elsewhere.
        cluster: Where these processes run: `local` or `local:WORKERS`, which is this machine, or `tls://host:port` of a
            Dask scheduler; by default on this machine, without Dask.
        trials_per_process: Number of trials after which a worker starts a fresh process, to free memory.
        output: Folder of the search; the same command resumes it.
    """

    recipe: Literal["finetune", "train"] = "finetune"
    space: dict[str, Any] = dataclasses.field(default_factory=dict)
    algorithm: Literal["random", "grid", "bayesian", "hyperband"] = "random"
    trials: int | None = None
    objective: Literal["val_accuracy", "val_loss", "accuracy", "loss"] = "val_accuracy"
    executions: int = 1
    max_parameters: int | None = None
    max_multiply_adds: int | None = None
    workers: int = 1
    trials_per_process: int = 5
    output: str = "tuning"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.space), "space", self.space, "it must have a setting with a range, as in recipes/tune")
        for name in ("trials", "executions", "max_parameters", "max_multiply_adds", "trials_per_process"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "it must be 1 or more")
        require(self.workers >= 0, "workers", self.workers, "it must be 0 or more")
        require(self.workers > 0 or not self.cluster, "workers", 0, "with --cluster it must be 1 or more")
        require(bool(self.output), "output", self.output, "it must be the path of a folder")
        require(
            self.algorithm != "hyperband" or self.executions == 1,
            "executions",
            self.executions,
            "with --algorithm hyperband it must be 1",
        )


@dataclasses.dataclass(frozen=True)
class TrainGraph(Classifier, Run):
    """Train a graph convolutional network to tell the classes of a graph's nodes.

    Args:
        data: The graph.
        units: Number of units of each hidden layer.
        dropout: Share of the features, and of each hidden layer's output, that is dropped in training.
        full: The only phase; each epoch is one step on the whole graph.
        l2: Penalty of the first layer: half of this times the sum of its squared weights, as Kipf and Welling have it.
    """

    data: Graph
    units: list[int] = dataclasses.field(default_factory=lambda: [16])
    dropout: float = 0.5
    full: Steady = dataclasses.field(default_factory=Steady)
    l2: float = 5e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            bool(self.units) and min(self.units) >= 1, "units", self.units, "it must have one number or more, from 1 on"
        )
        require(0 <= self.dropout < 1, "dropout", self.dropout, "it must be from 0 to below 1")
        require(self.full.epochs >= 1, "full.epochs", self.full.epochs, "it must be 1 or more")
        require(self.l2 >= 0, "l2", self.l2, "it must be 0 or more")


@dataclasses.dataclass(frozen=True)
class Pretrain(Logged):
    """How LetterNet learns letters.

    Args:
        seed: Random seed of the weights and the letters; the same seed gives the same weights.
        epochs: Number of epochs, each of newly drawn letters.
        letters: Number of letters per epoch.
        batch_size: Letters per step.
        learning_rate: Peak learning rate of AdamW, reached after a tenth of the steps; it then falls to zero along a
            cosine.
        weight_decay: Decoupled weight decay, multiplied by the learning rate.
        label_smoothing: Share of the label that is spread over all classes.
        alphabet: Draw only these letters; by default all that the fonts have.
        draws: Number of random choices of labeled digits over which the probe is averaged.
        output: Folder for the weights and their card.
    """

    seed: int = 0
    epochs: int = 36
    letters: int = 10240
    batch_size: int = 256
    learning_rate: float = 0.003
    weight_decay: float = 0.001
    label_smoothing: float = 0.1
    alphabet: str | None = None
    draws: int = 20
    output: str = "letternet"

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, "seed", self.seed, "it must be from 0 to 2**32 - 1")
        for name in ("epochs", "letters", "batch_size", "draws"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "it must be 1 or more")
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "it must be above 0")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "it must be 0 or more")
        require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "it must be from 0 to below 1")
        distinct = len(set(self.alphabet)) if self.alphabet is not None else 2
        require(distinct >= 2, "alphabet", self.alphabet, "it must have 2 letters or more")
        require(bool(self.output), "output", self.output, "it must be the path of a folder")
