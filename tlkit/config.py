"""The settings of the recipes: frozen dataclasses, checked when they are made; loading one imports no framework."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

from tlkit.errors import InvalidInput

Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise InvalidInput(f"{name} is {value!r}; {allowed}")


@dataclasses.dataclass(frozen=True)
class Data:
    """Labelled photos and how they are split.

    Args:
        source: `embedded` is scikit-learn's 1,797 handwritten digits; `folder` has one folder for each class, with or
            without `train`, `val` and `test` folders above them; `csv` has the columns path, label and, if wanted,
            split; `tfds` is a data set of tensorflow-datasets.
        path: The folder of source `folder`, or the file of source `csv`.
        name: The data set of source `tfds`, for example `tf_flowers`.
        data_dir: Where tensorflow-datasets keeps its prepared data; by default its own folder.
        image_size: Height and width in pixels that photos are resized to; by default the backbone's own size.
        val_fraction: Share of the photos kept for validation where no such split is given.
        test_fraction: Share of the photos kept for the test where no split is given at all.
        val_as_test: Make the given `val` the test split and take the validation split out of `train`.
        strict: Stop at a photo that cannot be decoded instead of setting it aside.
    """

    source: Literal["embedded", "folder", "csv", "tfds"] = "embedded"
    path: str | None = None
    name: str | None = None
    data_dir: str | None = None
    image_size: int | None = None
    val_fraction: float = 0.15
    test_fraction: float = 0.15
    val_as_test: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        if self.source in ("folder", "csv"):
            _require(bool(self.path), "data.path", self.path, f"data.source {self.source} needs --data.path")
        else:
            _require(self.path is None, "data.path", self.path, "it goes with --data.source folder or csv")
        if self.source == "tfds":
            _require(bool(self.name), "data.name", self.name, "data.source tfds needs --data.name")
        else:
            for name in ("name", "data_dir"):
                value = getattr(self, name)
                _require(value is None, f"data.{name}", value, "it goes with --data.source tfds")
        _require(
            self.image_size is None or self.image_size >= 8,
            "data.image_size",
            self.image_size,
            "it must be at least 8 pixels",
        )
        for name in ("val_fraction", "test_fraction"):
            _require(
                0 < getattr(self, name) < 1,
                f"data.{name}",
                getattr(self, name),
                "it must lie between 0 and 1, both excluded",
            )
        both = self.val_fraction + self.test_fraction
        _require(
            both < 1,
            "data.val_fraction + data.test_fraction",
            both,
            "it must be below 1, so that photos are left to train on",
        )


@dataclasses.dataclass(frozen=True)
class Backbone:
    """The pretrained network under the new head.

    Args:
        name: A model of keras.applications, or `LetterNet`, the small one that comes with tlkit; `auto` is LetterNet
            for the embedded digits and MobileNetV2 for anything else.
        weights: `imagenet`, `none`, or the path of a weights file without top; LetterNet has `letters` in place of
            `imagenet`. `pretrained` is whichever of the two the network has.
        alpha: Width multiplier, for the MobileNets only.
        dropout: Share of the pooled features dropped in training, before the head.
    """

    name: str = "auto"
    weights: str = "pretrained"
    alpha: float | None = None
    dropout: float = 0.2

    def __post_init__(self) -> None:
        _require(self.alpha is None or self.alpha > 0, "backbone.alpha", self.alpha, "it must be above 0")
        _require(0 <= self.dropout < 1, "backbone.dropout", self.dropout, "it must be from 0 to below 1")


@dataclasses.dataclass(frozen=True)
class Augment:
    """Random changes of the training photos in phase `full`; validation, test and the saved model see none.

    Args:
        flip: Mirror half of the photos left to right; by default yes, but not for the embedded digits.
        rotation: Largest turn to either side, in degrees.
        zoom: Largest change of scale, as a share: 0.2 is 80 to 120 %.
        shift: Largest move along each axis, as a share of the side.
        brightness: Largest change of brightness, as a share of white.
        contrast: Largest change of contrast, as a share.
    """

    flip: bool | None = None
    rotation: float = 10.0
    zoom: float = 0.2
    shift: float = 0.1
    brightness: float = 0.1
    contrast: float = 0.2

    def __post_init__(self) -> None:
        _require(0 <= self.rotation <= 180, "augment.rotation", self.rotation, "it must be from 0 to 180 degrees")
        for name in ("zoom", "shift", "brightness", "contrast"):
            _require(
                0 <= getattr(self, name) < 1, f"augment.{name}", getattr(self, name), "it must be from 0 to below 1"
            )


@dataclasses.dataclass(frozen=True)
class Head:
    """The first phase: the backbone is frozen, a new head learns on its features.

    Args:
        epochs: Most passes over the training photos; 0 leaves the phase out.
        learning_rate: Largest rate: reached after the warm-up, then lowered to zero along a cosine.
        warmup: Share of the phase's steps in which the rate rises from zero.
        patience: Stop after this many epochs in which the validation loss did not fall.
    """

    epochs: int = 30
    learning_rate: float = 1e-3
    warmup: float = 0.1
    patience: int = 10

    def __post_init__(self) -> None:
        phase = type(self).__name__.lower()
        _require(self.epochs >= 0, f"{phase}.epochs", self.epochs, "it must be 0 or more")
        _require(self.learning_rate > 0, f"{phase}.learning_rate", self.learning_rate, "it must be above 0")
        _require(0 <= self.warmup < 1, f"{phase}.warmup", self.warmup, "it must be from 0 to below 1")
        _require(self.patience >= 1, f"{phase}.patience", self.patience, "it must be 1 or more")


@dataclasses.dataclass(frozen=True)
class Full(Head):
    """The second phase: the backbone learns too, slowly; its BatchNormalization stays in inference mode.

    Args:
        unfreeze_from: First stage that learns, for example `stage4`; by default the whole backbone does.
    """

    epochs: int = 10
    learning_rate: float = 1e-4
    unfreeze_from: str | None = None


@dataclasses.dataclass(frozen=True)
class FeatureExtraction:
    """Train a new head on the features of a frozen backbone.

    Args:
        data: The photos.
        backbone: The network.
        head: The only phase.
        batch_size: Photos in a step.
        label_smoothing: Share of the label spread over all classes.
        weight_decay: Decoupled decay of the weights (AdamW), times the learning rate.
        precision: Arithmetic of the network; `auto` is mixed_bfloat16 on GPUs that have it, mixed_float16 on older
            ones, float32 on a CPU. Logits and loss are float32 always.
        seed: Of every random choice: the same command and seed give the same weights on the same machine.
        experiment: MLflow experiment; the environment's MLFLOW_EXPERIMENT_NAME wins.
        run_name: Name of the MLflow run; by default MLflow makes one up.
    """

    data: Data = dataclasses.field(default_factory=Data)
    backbone: Backbone = dataclasses.field(default_factory=Backbone)
    head: Head = dataclasses.field(default_factory=Head)
    batch_size: int = 32
    label_smoothing: float = 0.1
    weight_decay: float = 1e-4
    precision: Precision = "auto"
    seed: int = 0
    experiment: str = "tlkit"
    run_name: str | None = None

    def __post_init__(self) -> None:
        epochs = sum(getattr(self, phase).epochs for phase in ("head", "full") if hasattr(self, phase))
        _require(epochs >= 1, "the number of epochs", epochs, "it must be 1 or more over all phases")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "it must be 1 or more")
        _require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "it must be from 0 to below 1")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "it must be 0 or more")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "it must be from 0 to 2**32 - 1")
        _require(bool(self.experiment), "experiment", self.experiment, "it must have a name")


@dataclasses.dataclass(frozen=True)
class Finetune(FeatureExtraction):
    """Train a new head on frozen features, then the backbone too, slowly.

    Args:
        augment: Random changes of the training photos.
        full: The second phase.
    """

    augment: Augment = dataclasses.field(default_factory=Augment)
    full: Full = dataclasses.field(default_factory=Full)


@dataclasses.dataclass(frozen=True)
class Predict:
    """Which model looks at which photos.

    Args:
        model: A `.keras` file, or an MLflow URI such as `models:/m-…`, `models:/NAME@champion` or `runs:/ID/model`.
        photos: Image files.
        top: How many labels to print for each photo.
    """

    model: str
    photos: list[str]
    top: int = 3

    def __post_init__(self) -> None:
        _require(self.top >= 1, "top", self.top, "it must be 1 or more")


@dataclasses.dataclass(frozen=True)
class Pretrain:
    """How LetterNet learns letters.

    Args:
        seed: Of the weights and of all that is random in the letters; the same seed gives the same weights.
        epochs: Rounds of freshly drawn letters; none is seen twice.
        letters: Letters drawn for each epoch.
        batch_size: Letters in a step.
        learning_rate: Largest rate of AdamW, reached after a tenth of the steps, then lowered to zero along a cosine.
        weight_decay: Decoupled decay, times the rate.
        label_smoothing: Share of the label spread over all classes.
        alphabet: Draw only these letters; by default all that the fonts have.
        draws: Random choices of labelled digits over which the probe is averaged.
        output: Folder for the weights and their card.
        experiment: MLflow experiment; the environment's MLFLOW_EXPERIMENT_NAME wins.
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
    experiment: str = "tlkit"

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**32, "seed", self.seed, "it must be from 0 to 2**32 - 1")
        for name in ("epochs", "letters", "batch_size", "draws"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "it must be 1 or more")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "it must be above 0")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "it must be 0 or more")
        _require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "it must be from 0 to below 1")
        distinct = len(set(self.alphabet)) if self.alphabet is not None else 2
        _require(distinct >= 2, "alphabet", self.alphabet, "it must have 2 letters or more")
        _require(bool(self.output), "output", self.output, "it must be the path of a folder")


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Give every leaf of a config its dotted name, as on the command line.

    >>> flatten(Backbone(name="VGG16"))
    {'name': 'VGG16', 'weights': 'pretrained', 'alpha': None, 'dropout': 0.2}
    """
    return dict(_leaves(config, prefix))


def _leaves(config: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value
