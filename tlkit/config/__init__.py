"""The settings of the recipes: frozen dataclasses, checked when they are made; loading one imports no framework."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any, Literal

from tlkit.display import shown
from tlkit.errors import InvalidInput

Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise InvalidInput(f"{name} is {value!r}; {allowed}")


def _require_names(experiment: str, run_name: str | None) -> None:
    _require(bool(experiment), "experiment", experiment, "it must have a name")
    for name, value in (("experiment", experiment), ("run_name", run_name)):
        plain = value is None or shown(value) == value
        _require(plain, name, value, "it must be UTF-8 in one line, without control characters")


@dataclasses.dataclass(frozen=True)
class Data:
    """Labelled photos, sounds (.wav, .flac, .ogg) or arrays, and how they are split.

    Args:
        source: `embedded` is scikit-learn's 1,797 handwritten digits; `folder` has one folder for each class, with or
            without `train`, `val` and `test` folders above them; `csv` has the columns path, label and, if wanted,
            split; `npz` is a NumPy file with train_images, train_labels and the same for val and test, as MedMNIST's;
            `tfds` is a data set of tensorflow-datasets. `auto` is what the path or the name stands for.
        path: The folder of source `folder`, or the file of source `csv` or `npz`.
        name: The data set of source `tfds`, for example `tf_flowers`.
        data_dir: Where tensorflow-datasets keeps its prepared data; by default its own folder.
        image_size: Height and width in pixels that photos are resized to; by default the network's own size, but
            `train` leaves photos that are pixels already as they are.
        seconds: Length that sounds are cut or, with silence, filled up to; by default 99 of 100 fit whole.
        val_fraction: Share of the photos kept for validation where no such split is given.
        test_fraction: Share of the photos kept for the test where no split is given at all.
        val_as_test: Make the given `val` the test split and take the validation split out of `train`.
        strict: Stop at a photo or sound that cannot be decoded instead of setting it aside.
        separator: Of source `csv`, where an example may have several labels or none: what stands between them, such as
            `|`. In a file of source `npz` such labels have a column of zeros and ones for each class.
    """

    source: Literal["auto", "embedded", "folder", "csv", "npz", "tfds"] = "auto"
    path: str | None = None
    name: str | None = None
    data_dir: str | None = None
    image_size: int | None = None
    seconds: float | None = None
    val_fraction: float = 0.15
    test_fraction: float = 0.15
    val_as_test: bool = False
    strict: bool = False
    separator: str | None = None

    def __post_init__(self) -> None:
        source = self.origin
        _require(self.separator != "", "data.separator", self.separator, "it must have a character or more")
        _require(self.separator is None or source == "csv", "data.separator", self.separator, "it goes with source csv")
        if source in ("folder", "csv", "npz"):
            _require(bool(self.path), "data.path", self.path, f"data.source {source} needs --data.path")
        else:
            _require(self.path is None, "data.path", self.path, "it goes with --data.source folder, csv or npz")
        if source == "tfds":
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
        finite = self.seconds is None or 0 < self.seconds < float("inf")
        _require(finite, "data.seconds", self.seconds, "it must be above 0, and finite")
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

    @property
    def origin(self) -> Any:
        """The source, also where it is `auto`.

        >>> Data(path="photos").origin, Data(path="photos.csv").origin, Data().origin
        ('folder', 'csv', 'embedded')
        """
        if self.source != "auto":
            return self.source
        if self.path:
            return {".csv": "csv", ".npz": "npz"}.get(os.path.splitext(self.path)[1].lower(), "folder")
        return "tfds" if self.name else "embedded"


@dataclasses.dataclass(frozen=True)
class Backbone:
    """The pretrained network under the new head.

    Args:
        name: A model of keras.applications, or `LetterNet`, the small one that comes with tlkit; `auto` is LetterNet
            for the embedded digits and MobileNetV2 for anything else.
        weights: `imagenet`, `none`, or the path of a weights file without top; LetterNet has `letters` in place of
            `imagenet`. `pretrained` is whichever of the two the network has.
        alpha: Width multiplier, for the MobileNets only.
    """

    name: str = "auto"
    weights: str = "pretrained"
    alpha: float | None = None

    def __post_init__(self) -> None:
        _require(self.alpha is None or self.alpha > 0, "backbone.alpha", self.alpha, "it must be above 0")


@dataclasses.dataclass(frozen=True)
class Features:
    """What computes frozen layers, and where their activations are kept, so that none is computed twice.

    Args:
        store: Folder of the activation store, or `none`; by default what the environment's TLKIT_CACHE names, else the
            platform's place for caches (~/.cache/tlkit on Linux).
        limit: Most gigabytes (10^9 bytes) that the store may hold; the least recently used activations make room.
        engine: `keras`; `openvino`, which is faster on most CPUs; or `auto`: the one that has computed these
            activations before, else OpenVINO where it can run the network and agrees with Keras.
    """

    store: str | None = None
    limit: float = 20.0
    engine: Literal["auto", "keras", "openvino"] = "auto"

    def __post_init__(self) -> None:
        _require(self.limit > 0, "features.limit", self.limit, "it must be above 0")


@dataclasses.dataclass(frozen=True)
class Augment:
    """Random changes of the training photos in phase `full`; validation, test and the saved model see none.

    Args:
        flip: Mirror half of the photos left to right; by default yes, but not for the embedded digits. Of volumes in
            `train`: half along each axis, or along those with these numbers, such as [0]; by default none.
        rotation: Largest turn to either side, in degrees; 10 is usual.
        zoom: Largest change of scale, as a share: 0.2 is 80 to 120 %.
        shift: Largest move along each axis, as a share of the side; 0.1 is usual.
        brightness: Largest change of brightness, as a share of white; 0.1 is usual.
        contrast: Largest change of contrast, as a share; 0.2 is usual.
        crop: Least share of a photo's area that a random crop keeps, which is then resized, as for ImageNet; 0.08 is
            usual there, 0.5 is gentle, 1 is no crop.
        policy: `randaugment` changes each photo by two operations of one strength (arXiv:1909.13719), `trivialaugment`
            by one of random strength (arXiv:2103.10158), after the changes above.
        magnitude: Of `randaugment`, from 0 to 30.
        erasing: Share of the photos in which a rectangle is replaced by noise (arXiv:1708.04896).
        mixup: Blend pairs of examples and their labels; the parameter alpha of arXiv:1710.09412, 0.2 is usual.
        cutmix: Paste a rectangle of one photo into another, labels in proportion; alpha of arXiv:1905.04899, 1 is
            usual. With `mixup` too, half of the batches have the one, half the other.
    """

    flip: bool | list[int] | None = None
    rotation: float = 10.0
    zoom: float = 0.2
    shift: float = 0.1
    brightness: float = 0.1
    contrast: float = 0.2
    crop: float = 1.0
    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    magnitude: float = 9.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        _require(0 <= self.rotation <= 180, "augment.rotation", self.rotation, "it must be from 0 to 180 degrees")
        for name in ("zoom", "shift", "brightness", "contrast"):
            _require(
                0 <= getattr(self, name) < 1, f"augment.{name}", getattr(self, name), "it must be from 0 to below 1"
            )
        _require(0 < self.crop <= 1, "augment.crop", self.crop, "it must be above 0, and 1 at the most")
        _require(0 <= self.magnitude <= 30, "augment.magnitude", self.magnitude, "it must be from 0 to 30")
        _require(0 <= self.erasing <= 1, "augment.erasing", self.erasing, "it must be from 0 to 1")
        for name in ("mixup", "cutmix"):
            value = getattr(self, name)
            _require(0 <= value < float("inf"), f"augment.{name}", value, "it must be 0 or more, and finite")


@dataclasses.dataclass(frozen=True)
class Views(Augment):
    """Random changes of the training photos in phase `full`; validation, test and the saved model see none.

    Args:
        views: Different changes of each photo, of which every epoch draws one; frozen layers then have to see no more
            than these. It goes with others than the flip; by default every epoch makes new ones.
    """

    rotation: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    views: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.views is None or self.views >= 1, "augment.views", self.views, "it must be 1 or more")
        few = not any(
            (self.rotation, self.zoom, self.shift, self.brightness, self.contrast, self.crop < 1, self.erasing)
        )
        _require(
            not (self.views and few and self.policy == "none"),
            "augment.views",
            self.views,
            "photos are mirrored at most: switch on more of --augment, such as --augment.rotation 10, or leave it out",
        )
        blended = self.views and (self.mixup or self.cutmix)
        _require(not blended, "augment.views", self.views, "mixup and cutmix blend others in each epoch: leave one out")


@dataclasses.dataclass(frozen=True)
class Builder:
    """The network that is trained from random weights.

    Args:
        name: `cnn`, the plain convolutional network that the settings from `filters` on describe, or a landmark such
            as `lenet5`, `resnet18` or `vit_s_16`; tlkit.builders.VARIANTS lists all. They work on photos, sounds and
            volumes, where these are large enough.
        weights: `none`, or the path of a `.weights.h5` file to begin with.
        spectrogram: Put a log-spectrogram in front, frequencies as channels; by default for sounds, not for arrays.
        dropout: Share of the features dropped in training, before the head; by default the network's own.
        filters: Of `cnn`: filters of the convolutions of each part, which ends by halving the map.
        convolutions: Of `cnn`: convolutions in each part.
        kernel_size: Of `cnn`: length of the convolutions' windows, one number or one for each part.
        pool: Of `cnn`: how each part halves its map.
        norm: Of `cnn`: whether batch normalization follows each convolution.
        dense: Of `cnn`: units of dense layers before the head; by default none, but the average over all places.
    """

    name: str = "cnn"
    weights: str = "none"
    spectrogram: bool | None = None
    dropout: float | None = None
    filters: list[int] | None = None
    convolutions: int | None = None
    kernel_size: int | list[int] | None = None
    pool: Literal["max", "average"] | None = None
    norm: bool | None = None
    dense: list[int] | None = None

    def __post_init__(self) -> None:
        _require(
            self.dropout is None or 0 <= self.dropout < 1,
            "builder.dropout",
            self.dropout,
            "it must be from 0 to below 1",
        )
        for name in CNN:
            value = getattr(self, name)
            _require(value is None or self.name == "cnn", f"builder.{name}", value, "it goes with --builder.name cnn")
        for name in ("filters", "convolutions", "kernel_size", "dense"):
            value = getattr(self, name)
            each = value if isinstance(value, list) else [value]
            _require(value is None or all(n >= 1 for n in each), f"builder.{name}", value, "it must be 1 or more")
        _require(self.filters != [], "builder.filters", self.filters, "it must have one number or more")
        parts = len(self.filters or CNN["filters"])
        _require(
            not isinstance(self.kernel_size, list) or len(self.kernel_size) == parts,
            "builder.kernel_size",
            self.kernel_size,
            f"it must be a number, or one for each of the {parts} parts that builder.filters lists",
        )


CNN: dict[str, Any] = {
    "filters": [32, 64, 128],
    "convolutions": 1,
    "kernel_size": 3,
    "pool": "max",
    "norm": True,
    "dense": [],
}
"""What `Builder` means by default where its name is `cnn`."""


@dataclasses.dataclass(frozen=True)
class Steady:
    """A phase of training whose learning rate stays.

    Args:
        epochs: Most passes over the training data; 0 leaves the phase out.
        learning_rate: Of Adam.
        patience: Stop after this many epochs in which the validation loss did not fall.
    """

    epochs: int = 200
    learning_rate: float = 0.01
    patience: int = 10

    def __post_init__(self) -> None:
        phase = "head" if isinstance(self, Head) else "full"
        _require(self.epochs is None or self.epochs >= 0, f"{phase}.epochs", self.epochs, "it must be 0 or more")
        automatic = isinstance(self.learning_rate, str)
        rate = self.learning_rate
        finite = automatic or 0 < rate < float("inf")
        _require(finite, f"{phase}.learning_rate", rate, "it must be above 0, and finite")
        _require(self.patience >= 1, f"{phase}.patience", self.patience, "it must be 1 or more")


@dataclasses.dataclass(frozen=True)
class Phase(Steady):
    """A phase of training.

    Args:
        epochs: Most passes over the training photos; 0 leaves the phase out.
        learning_rate: Largest rate; `auto` looks for it by a range test before the phase.
        warmup: Share of the phase's steps in which the rate rises from zero.
        schedule: What follows: `cosine` falls to zero, `step` to a tenth after each third of the steps, `constant`
            stays; `one_cycle` rises and falls along cosines (fastai's, its warm-up a quarter of the steps); `plateau`
            falls to a tenth whenever the validation loss has not fallen for a third of `patience`, without warm-up.
    """

    epochs: int = 30
    learning_rate: float | Literal["auto"] = 1e-3  # type: ignore[assignment]  # wider than a steady one
    warmup: float = 0.1
    schedule: Literal["cosine", "one_cycle", "step", "constant", "plateau"] = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        phase = "head" if isinstance(self, Head) else "full"
        _require(0 <= self.warmup < 1, f"{phase}.warmup", self.warmup, "it must be from 0 to below 1")


@dataclasses.dataclass(frozen=True)
class Head(Phase):
    """The first phase: the backbone is frozen, a new head is found on its features.

    Args:
        solved: Solve the head by logistic regression, as `feature_extraction` does, and not begin at random; by default
            where each photo has one label, classes are not balanced, and the head has no more than a million weights.
        epochs: Most passes over the training photos, from the solution on where it is solved; by default none then,
            and 30 where it is not.
        dropout: Share of the pooled features dropped in training, in both phases; 0.2 is usual, and earned nothing.
    """

    solved: bool | None = None
    epochs: int | None = None  # type: ignore[assignment]  # wider than that of other phases
    learning_rate: float | Literal["auto"] = 3e-3
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 <= self.dropout < 1, "head.dropout", self.dropout, "it must be from 0 to below 1")


@dataclasses.dataclass(frozen=True)
class Full(Phase):
    """The second phase: the backbone learns too, slowly.

    Args:
        unfreeze_from: First stage that learns, for example `stage4`; by default the whole backbone does. Several, the
            highest first, such as `[stage4, stage2]`, are unfrozen one after the other, each with its share of the
            epochs.
        stored: Learn from stored activations of the frozen stages; by default where it saves time. It needs
            `unfreeze_from`, and photos that are not new ones in each epoch: none or mirrored, or `augment.views`. What
            is random in frozen stages (EfficientNet's stochastic depth) is then off.
        layer_decay: Factor by which each stage learns more slowly than the one above it; 0.75 is usual, 1 is none.
        learning_rates: Of stages by their names, such as `{stage4: 1e-4, head: 1e-3}`, in place of `layer_decay`;
            others have `learning_rate`.
        batch_normalization: Of the stages that learn: `inference` normalizes by the pretrained statistics and learns
            scale and offset; `train` normalizes by each batch, and moves the statistics; `freeze-affine` leaves all of
            it as it was pretrained. By default `inference`, but `train` where the weights are random.
    """

    epochs: int = 10
    learning_rate: float | Literal["auto"] = 3e-4
    unfreeze_from: str | list[str] | None = None
    stored: bool | None = None
    layer_decay: float = 1.0
    learning_rates: dict[str, float] | None = None
    batch_normalization: Literal["inference", "train", "freeze-affine"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(
            0 < self.layer_decay <= 1, "full.layer_decay", self.layer_decay, "it must be above 0, and 1 at the most"
        )
        for stage, rate in (self.learning_rates or {}).items():
            finite = 0 < rate < float("inf")
            _require(finite, f"full.learning_rates.{stage}", rate, "it must be above 0, and finite")
        both = self.learning_rates and self.layer_decay != 1
        _require(
            not both, "full.layer_decay", self.layer_decay, "full.learning_rates takes its place: give one of them"
        )
        auto = self.learning_rates and self.learning_rate == "auto"
        _require(not auto, "full.learning_rate", self.learning_rate, "beside full.learning_rates it must be a number")
        _require(self.unfreeze_from != [], "full.unfreeze_from", self.unfreeze_from, "it must name a stage or more")
        wanted = self.stored and self.unfreeze_from is None
        _require(not wanted, "full.stored", self.stored, "it goes with --full.unfreeze_from, else no stage is frozen")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What every recipe has that makes a classifier of examples.

    Args:
        data: The photos, sounds or arrays.
        precision: Arithmetic of the network; `auto` is mixed_bfloat16 on GPUs that have it, mixed_float16 on older
            ones, float32 on a CPU. Logits and loss are float32 always.
        seed: Of every random choice: the same command and seed give the same weights on the same machine, up to
            rounding on a GPU with TensorFlow.
        experiment: MLflow experiment; the environment's MLFLOW_EXPERIMENT_NAME wins.
        run_name: Name of the MLflow run; by default MLflow makes one up.
    """

    data: Data = dataclasses.field(default_factory=Data)
    precision: Precision = "auto"
    seed: int = 0
    experiment: str = "tlkit"
    run_name: str | None = None

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**32, "seed", self.seed, "it must be from 0 to 2**32 - 1")
        _require_names(self.experiment, self.run_name)


@dataclasses.dataclass(frozen=True)
class FeatureExtraction(Recipe):
    """Put a new head on a frozen backbone: logistic regression on its features, solved and not trained.

    Args:
        backbone: The network.
        features: How its features are computed and kept.
        register: Name in the model registry under which the model becomes a version; it becomes the `champion` if it
            beats the present one on the same test split, at most the `challenger` otherwise.
    """

    backbone: Backbone = dataclasses.field(default_factory=Backbone)
    features: Features = dataclasses.field(default_factory=Features)
    register: str | None = None


SELECT = ("MobileNetV2", "MobileNetV3Large", "EfficientNetV2B0", "ResNet50V2", "DenseNet121", "ConvNeXtTiny")
"""What `Select` ranks by default: six families, none larger than 30 million parameters."""


@dataclasses.dataclass(frozen=True)
class Select(Recipe):
    """Rank backbones on the user's data, before any of them is trained.

    Args:
        backbones: The networks, as names or as mappings such as `{name: MobileNet, alpha: 0.5}`.
        features: How their features are computed and kept.
    """

    backbones: list[str | Backbone] = dataclasses.field(default_factory=lambda: list(SELECT))
    features: Features = dataclasses.field(default_factory=Features)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(bool(self.backbones), "backbones", self.backbones, "it must have one network or more")


@dataclasses.dataclass(frozen=True)
class Training(Recipe):
    """What every recipe that trains a classifier by steps has.

    Args:
        batch_size: Photos in a step. `auto` is the largest that fits on a GPU and leaves an epoch 20 steps, 32 or what
            fits on a CPU; learning rates grow from those of 32 in proportion to it with `sgd`, to its square root with
            others.
        optimizer: Most of keras.optimizers, by their names: `adamw`, `lion`, or `sgd` with Nesterov's momentum of 0.9.
        label_smoothing: Share of the label spread over all classes; 0.1 is usual.
        focal_gamma: Of the focal loss, which counts what is already right for less (arXiv:1708.02002); 2 is usual
            there, 0 is plain cross-entropy.
        balance: For classes of unequal size: `weights` makes each class count alike in the loss, `sampling` draws them
            alike often.
        weight_decay: Decoupled decay of the weights, times the learning rate; not of biases and normalization.
        global_clipnorm: Largest norm of the gradient of all weights together, as in Keras; by default any.
        gradient_accumulation_steps: Batches whose gradients make one step, as in Keras.
        ema_momentum: Of the moving average of the weights, which is then what is evaluated and saved; 0.99 or 0.999 are
            usual, by default there is none.
        remat: Compute most activations anew in the backward pass in place of keeping them: slower, in less memory.
        tta: Views of each test photo, changed at random as in training; the mean prediction over these and the photo
            itself is scored beside the plain one. Of photos that are only mirrored there is one. 0 is none.
        resume: Go on with a run that was interrupted: `auto` is the last one of this command in this folder, if there
            is one; or a run's id or name.
        register: Name in the model registry under which the model becomes a version; it becomes the `champion` if it
            beats the present one on the same test split, at most the `challenger` otherwise.
    """

    batch_size: int | Literal["auto"] = 32
    optimizer: str = "adamw"
    label_smoothing: float = 0.1
    focal_gamma: float = 0.0
    balance: Literal["none", "weights", "sampling"] = "none"
    weight_decay: float = 1e-4
    global_clipnorm: float | None = None
    gradient_accumulation_steps: int = 1
    ema_momentum: float | None = None
    remat: bool = False
    tta: int = 0
    resume: str | None = None
    register: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        head, full = getattr(self, "head", None), self.full  # type: ignore[attr-defined]
        learns = full.epochs or (head and (head.epochs is None or head.epochs or head.solved is not False))
        _require(bool(learns), "the number of epochs", 0, "it must be 1 or more over all phases")
        size = self.batch_size
        _require(isinstance(size, str) or size >= 1, "batch_size", size, "it must be 1 or more, or auto")
        for name in ("focal_gamma", "weight_decay"):
            value = getattr(self, name)
            _require(0 <= value < float("inf"), name, value, "it must be 0 or more, and finite")
        clip = self.global_clipnorm
        _require(clip is None or clip > 0, "global_clipnorm", clip, "it must be above 0")
        steps = self.gradient_accumulation_steps
        _require(steps >= 1, "gradient_accumulation_steps", steps, "it must be 1 or more")
        ema = self.ema_momentum
        _require(ema is None or 0 < ema < 1, "ema_momentum", ema, "it must lie between 0 and 1, both excluded")
        _require(self.tta >= 0, "tta", self.tta, "it must be 0 or more")
        _require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "it must be from 0 to below 1")


@dataclasses.dataclass(frozen=True)
class Finetune(Training):
    """Find a new head on frozen features, then train the backbone too, slowly.

    Args:
        backbone: The network.
        features: How what its frozen layers give is computed and kept.
        head: The first phase.
        augment: Random changes of the training photos.
        full: The second phase.
    """

    label_smoothing: float = 0.0
    weight_decay: float = 0.0
    backbone: Backbone = dataclasses.field(default_factory=Backbone)
    features: Features = dataclasses.field(default_factory=Features)
    head: Head = dataclasses.field(default_factory=Head)
    augment: Views = dataclasses.field(default_factory=Views)
    full: Full = dataclasses.field(default_factory=Full)


@dataclasses.dataclass(frozen=True)
class FindLr(Finetune):
    """Look for a learning rate by a range test (arXiv:1506.01186); all other settings are those of `finetune`.

    Args:
        phase: Whose rate it is.
        lowest: First rate.
        highest: Last rate; the test ends sooner where the loss explodes.
        steps: Of the test; the rate grows by the same factor from each to the next.
    """

    phase: Literal["head", "full"] = "full"
    lowest: float = 1e-7
    highest: float = 10.0
    steps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.resume is None, "resume", self.resume, "a range test is not gone on with: leave it out")
        _require(0 < self.lowest < self.highest, "lowest", self.lowest, f"it must be above 0 and below {self.highest}")
        _require(self.highest < float("inf"), "highest", self.highest, "it must be finite")
        _require(self.steps >= 10, "steps", self.steps, "it must be 10 or more")


@dataclasses.dataclass(frozen=True)
class Preview(Finetune):
    """Draw what the network sees of the training photos; all other settings are those of `finetune`.

    Args:
        photos: How many, a row each.
        views: Of each photo, beside the photo as it is.
        output: Picture to write; it is not overwritten.
    """

    photos: int = 4
    views: int = 7
    output: str = "preview.png"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.resume is None, "resume", self.resume, "a picture is not gone on with: leave it out")
        for name in ("photos", "views"):
            _require(1 <= getattr(self, name) <= 50, name, getattr(self, name), "it must be from 1 to 50")
        _require(bool(self.output), "output", self.output, "it must be the path of a file")


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
class Tune(Recipe):
    """Search the settings of a recipe; each trial is a run of it, and none sees the test photos.

    Args:
        recipe: What is tuned, `finetune` or `train`.
        space: Its settings as its own files have them, but any may be a range: `{choice: [3, 5]}`, `{int: [16, 64],
            step: 16}`, `{float: [1e-4, 1e-2], log: true}` or `{bool: true}`, with `when` and `repeat`; see the docs.
        features: How what frozen layers give is computed and kept, for all trials.
        algorithm: How keras-tuner chooses the settings of the next trial.
        trials: Most of them; by default 20, but all combinations for `grid` (some ten values of a range without steps)
            and what the epochs give for `hyperband`, whose best trials go on to `full.epochs` and others end sooner.
        objective: What is to be best, in the epoch that a trial keeps: the highest accuracy or the lowest loss.
        executions: Runs of each trial, with seeds in a row; their mean counts.
        max_parameters: Larger networks are turned down before they are trained.
        max_multiply_adds: Networks that need more for one photo are turned down too.
        workers: Processes that run trials at the same time, on this machine; 0 where all are on others.
        trials_per_process: After these a worker begins a fresh process, so that memory stays what it is.
        output: Folder of the search; the same command goes on with what is there.
        register: Name in the model registry for the best trial's model; it becomes the `champion` if it beats the
            present one on the same test split, at most the `challenger` otherwise.
    """

    recipe: Literal["finetune", "train"] = "finetune"
    space: dict[str, Any] = dataclasses.field(default_factory=dict)
    features: Features = dataclasses.field(default_factory=Features)
    algorithm: Literal["random", "grid", "bayesian", "hyperband"] = "random"
    trials: int | None = None
    objective: Literal["val_accuracy", "val_loss", "accuracy", "loss"] = "val_accuracy"
    executions: int = 1
    max_parameters: int | None = None
    max_multiply_adds: int | None = None
    workers: int = 1
    trials_per_process: int = 5
    output: str = "tuning"
    register: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(bool(self.space), "space", self.space, "it must have a setting with a range, as in recipes/tune")
        for name in ("trials", "executions", "max_parameters", "max_multiply_adds", "trials_per_process"):
            value = getattr(self, name)
            _require(value is None or value >= 1, name, value, "it must be 1 or more")
        _require(self.workers >= 0, "workers", self.workers, "it must be 0 or more")
        _require(bool(self.output), "output", self.output, "it must be the path of a folder")
        _require(
            self.algorithm != "hyperband" or self.executions == 1,
            "executions",
            self.executions,
            "with --algorithm hyperband it must be 1",
        )


@dataclasses.dataclass(frozen=True)
class Graph:
    """A graph whose nodes have features and a class.

    Args:
        path: A NumPy file (.npz) with features (nodes, features), labels (nodes,), edges (count, 2) and train_idx,
            val_idx and test_idx.
    """

    path: str


@dataclasses.dataclass(frozen=True)
class TrainGraph:
    """Train a graph convolutional network to tell the classes of a graph's nodes.

    Args:
        data: The graph.
        units: Of each hidden layer.
        dropout: Share of the features, and of each hidden layer's output, dropped in training.
        full: The only phase; each epoch is one step on the whole graph.
        l2: Penalty of the first layer: half of this times the sum of its squared weights, as Kipf and Welling have it.
        precision: Arithmetic of the network; see `train`.
        seed: Of every random choice: the same command and seed give the same weights on the same machine, up to
            rounding on a GPU with TensorFlow.
        experiment: MLflow experiment; the environment's MLFLOW_EXPERIMENT_NAME wins.
        run_name: Name of the MLflow run; by default MLflow makes one up.
        register: Name in the model registry under which the model becomes a version; it becomes the `champion` if it
            beats the present one on the same test split, at most the `challenger` otherwise.
    """

    data: Graph
    units: list[int] = dataclasses.field(default_factory=lambda: [16])
    dropout: float = 0.5
    full: Steady = dataclasses.field(default_factory=Steady)
    l2: float = 5e-4
    precision: Precision = "auto"
    seed: int = 0
    experiment: str = "tlkit"
    run_name: str | None = None
    register: str | None = None

    def __post_init__(self) -> None:
        _require(
            bool(self.units) and min(self.units) >= 1, "units", self.units, "it must have one number or more, from 1 on"
        )
        _require(0 <= self.dropout < 1, "dropout", self.dropout, "it must be from 0 to below 1")
        _require(self.full.epochs >= 1, "full.epochs", self.full.epochs, "it must be 1 or more")
        _require(self.l2 >= 0, "l2", self.l2, "it must be 0 or more")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "it must be from 0 to 2**32 - 1")
        _require_names(self.experiment, self.run_name)


@dataclasses.dataclass(frozen=True)
class Cache:
    """What to do with the activation store.

    Args:
        action: `list` what it holds, `verify` every file, or `prune`: delete damaged files and, least recently used
            first, what is more than `limit`.
        store: Folder; by default what the environment's TLKIT_CACHE names, else the platform's place for caches.
        limit: Of `prune`: gigabytes (10^9 bytes) that may stay; 0 deletes all.
    """

    action: Literal["list", "verify", "prune"] = "list"
    store: str | None = None
    limit: float | None = None

    def __post_init__(self) -> None:
        _require(self.limit is None or self.limit >= 0, "limit", self.limit, "it must be 0 or more")
        _require(self.limit is None or self.action == "prune", "limit", self.limit, "it goes with prune")


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
class Compare:
    """Which runs to compare.

    Args:
        runs: Ids, or names in the experiment; by default its last four finished runs that have a score.
        search: MLflow search string, such as "metrics.test_accuracy > 0.9 and tags.recipe = 'finetune'", that finds the
            runs in the experiment, in place of `runs`.
        experiment: MLflow experiment of the runs that are not given by id, and of the comparison; the environment's
            MLFLOW_EXPERIMENT_NAME wins.
        run_name: Name of the MLflow run that keeps the comparison; by default MLflow makes one up.
    """

    runs: list[str] = dataclasses.field(default_factory=list)
    search: str | None = None
    experiment: str = "tlkit"
    run_name: str | None = None

    def __post_init__(self) -> None:
        _require(not self.runs or self.search is None, "search", self.search, "it takes the place of runs: give one")
        _require_names(self.experiment, self.run_name)


@dataclasses.dataclass(frozen=True)
class Ui:
    """Which runs the MLflow UI shows, and where.

    Args:
        port: Of this machine, for its own browsers only.
        experiment: MLflow experiment to link to; by default that of the newest run. The environment's
            MLFLOW_EXPERIMENT_NAME wins.
    """

    port: int = 5000
    experiment: str | None = None

    def __post_init__(self) -> None:
        _require(1 <= self.port <= 65535, "port", self.port, "it must be from 1 to 65535")


@dataclasses.dataclass(frozen=True)
class Sync:
    """What is to be sent to the tracking server.

    Args:
        folder: That holds what runs could not send.
    """

    folder: str = "mlruns/unsent"


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


@dataclasses.dataclass(frozen=True)
class Network:
    """The network to describe.

    Args:
        name: `LetterNet`, which comes with tlkit; a model of keras.applications such as `MobileNetV2`; a landmark of
            tlkit.builders.VARIANTS such as `vgg16`; or `cnn`, as `train` makes it.
        input_shape: Lengths of the one to three axes of space, then the channels, for example [224,224,3]; by default
            the network's own.
        classes: Units of the head; by default a landmark's own, and no head on a model of keras.applications or
            LetterNet.
        weights: `none`; `pretrained`, for keras.applications and LetterNet; or the path of a weights file. By default
            LetterNet's own and none for all others, so that nothing is downloaded unless asked for.
    """

    name: str = "LetterNet"
    input_shape: list[int] | None = None
    classes: int | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        sizes = self.input_shape
        _require(
            sizes is None or (2 <= len(sizes) <= 4 and min(sizes) >= 1),
            "builder.input_shape",
            sizes,
            "it must be one to three lengths and the channels, such as [224,224,3]",
        )
        _require(self.classes is None or self.classes >= 1, "builder.classes", self.classes, "it must be 1 or more")


@dataclasses.dataclass(frozen=True)
class Describe:
    """What to describe, and where to save pictures of it.

    Args:
        builder: The network, by its name.
        model: A `.keras` file or an MLflow URI, in place of a name.
        pictures: Folder for pictures of its filters, feature maps and receptive fields; it is made where there is none,
            and nothing in it is overwritten. By default there are no pictures.
        photo: Image file for the feature maps; by default a sample.
    """

    builder: Network = dataclasses.field(default_factory=Network)
    model: str | None = None
    pictures: str | None = None
    photo: str | None = None

    def __post_init__(self) -> None:
        named = self.builder != Network()
        _require(
            self.model is None or not named, "model", self.model, "it takes the place of --builder: give one of them"
        )
        _require(self.photo is None or self.pictures is not None, "photo", self.photo, "it goes with --pictures")


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Give every leaf of a config its dotted name, as on the command line.

    >>> flatten(Backbone(name="VGG16"))
    {'name': 'VGG16', 'weights': 'pretrained', 'alpha': None}
    """
    return dict(_leaves(config, prefix))


def _leaves(config: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value
