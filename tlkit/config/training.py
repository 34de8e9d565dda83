"""The settings of training: its phases, what every recipe has, and what those have that train by steps."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from tlkit.config.data import Data
from tlkit.config.fields import require, require_cluster, require_names
from tlkit.config.networks import Features

ExportFormat = Literal["onnx", "openvino", "saved_model", "litert", "keras_hub", "all"]
FEWEST_EPOCHS = 10  # of phase full, where nothing is asked for
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]


def parse_hosts(text: str) -> Literal["auto"] | tuple[str, int, int]:
    """Read which processes train together: the address of the first, their number, and which this one is.

    Raises:
        InvalidInput: it is neither `auto` nor such a text.

    >>> parse_hosts("10.0.0.1:8476,2,0")
    ('10.0.0.1:8476', 2, 0)
    """
    if text == "auto":
        return "auto"
    form = re.fullmatch(r"((?:[\w.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):(\d{1,5})),(\d{1,5}),(\d{1,5})", text, re.ASCII)
    allowed = "it must be auto, or COORDINATOR:PORT,COUNT,INDEX such as 10.0.0.1:8476,2,0"
    require(form is not None and 0 < int(form[2]) < 2**16, "hosts", text, allowed)
    assert form is not None  # noqa: S101  # for mypy
    count, index = int(form[3]), int(form[4])
    require(count >= 2, "hosts", text, "its COUNT must be 2 or more, else leave it out")
    require(index < count, "hosts", text, f"its INDEX must be from 0 to {count - 1}, another on each host")
    return form[1], count, index


@dataclasses.dataclass(frozen=True)
class Steady:
    """A phase of training with a constant learning rate.

    Args:
        epochs: Maximum number of epochs; 0 skips the phase.
        learning_rate: Learning rate of Adam.
        patience: Stop after this many epochs without a lower validation loss.
    """

    epochs: int = 200
    learning_rate: float = 0.01
    patience: int = 10

    def __post_init__(self) -> None:
        phase = "head" if isinstance(self, Head) else "full"
        require(self.epochs is None or self.epochs >= 0, f"{phase}.epochs", self.epochs, "it must be 0 or more")
        automatic = isinstance(self.learning_rate, str)
        rate = self.learning_rate
        finite = automatic or 0 < rate < float("inf")
        require(finite, f"{phase}.learning_rate", rate, "it must be above 0, and finite")
        patient = self.patience is None or self.patience >= 1
        require(patient, f"{phase}.patience", self.patience, "it must be 1 or more")


@dataclasses.dataclass(frozen=True)
class Phase(Steady):
    """A phase of training.

    Args:
        epochs: Maximum number of epochs; 0 skips the phase.
        learning_rate: Peak learning rate; `auto` finds it by a range test before the phase.
        warmup: Share of the steps in which the learning rate rises linearly from zero.
        schedule: Learning rate after the warm-up: `cosine` falls to zero; `step` falls to a tenth after each third of
            the steps; `constant` does not change; `one_cycle` rises and falls along cosines (as fastai's, a quarter of
            the steps as warm-up); `plateau` falls to a tenth whenever the validation loss has not improved for a
            third of `patience`, without warm-up.
    """

    epochs: int = 30
    learning_rate: float | Literal["auto"] = 1e-3  # type: ignore[assignment]  # wider than a steady one
    warmup: float = 0.1
    schedule: Literal["cosine", "one_cycle", "step", "constant", "plateau"] = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        phase = "head" if isinstance(self, Head) else "full"
        require(0 <= self.warmup < 1, f"{phase}.warmup", self.warmup, "it must be from 0 to below 1")


@dataclasses.dataclass(frozen=True)
class Head(Phase):
    """The first phase: a new head on the frozen backbone.

    Args:
        solved: Fit the head by logistic regression, as `feature_extraction` does, instead of starting from random
            weights; by default if each photo has one label, `balance` is none, and the head has at most a million
            weights.
        epochs: Maximum number of epochs; 0 skips the phase. By default 0 if the head is solved, else 30.
        dropout: Share of the pooled features that is dropped in training, in both phases; 0.2 is usual, but did not
            improve accuracy in our measurements.
    """

    solved: bool | None = None
    epochs: int | None = None  # type: ignore[assignment]  # wider than that of other phases
    learning_rate: float | Literal["auto"] = 3e-3
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.dropout < 1, "head.dropout", self.dropout, "it must be from 0 to below 1")


@dataclasses.dataclass(frozen=True)
class Full(Phase):
    """The second phase: the backbone is fine-tuned too.

    Args:
        epochs: Number of epochs; 0 skips the phase. By default as many as 500 steps take, from 10 to 25; none if the
            head is solved and fewer than 20 validation examples are to tell whether they pay.
        patience: Stop after this many epochs without a lower validation loss, and keep the epoch with the lowest. By
            default, of the last epoch and the weights 3/4, 1/2 and 1/4 of the way to it, those of the lowest validation
            loss are kept, of those whose loss is lower than the head's by more than the standard error of the
            difference; else the head. The first 3 epochs (1 or 2 of more than 40 steps, more of fewer than 10) are a
            trial with its own warm-up and schedule, where at least as many are left. If nothing of it has a lower loss,
            it is repeated at a third of the learning rate, and once more, if all trials take no more than half as many
            epochs as this; if nothing of any has, the rest is left out.
        unfreeze_from: First stage to train, for example `stage4`; by default the whole backbone. A list, highest stage
            first, such as `[stage4, stage2]`, unfreezes gradually: each stage gets its share of the epochs.
        stored: Train on stored activations of the frozen stages; by default if that saves time. It needs
            `unfreeze_from`, and photos that do not change in each epoch: no augmentation, mirroring alone, or
            `augment.views`. Randomness in frozen stages (EfficientNet's stochastic depth) is then off.
        layer_decay: Factor on the learning rate of each stage, relative to the stage above it; 0.75 is usual, 1 gives
            all stages the same rate.
        learning_rates: Learning rates of stages by name, such as `{stage4: 1e-4, head: 1e-3}`, instead of
            `layer_decay`; all others have `learning_rate`.
        batch_normalization: In the stages that are trained: `inference` normalizes by the pretrained statistics and
            trains scale and offset; `train` normalizes by each batch and updates the statistics; `freeze-affine` keeps
            everything as pretrained. By default `inference`, or `train` if the weights are random.
        lora_rank: Low-rank adaptation: train two factors of this rank beside each kernel of dense layers (of attention
            too) and of convolutions other than depthwise, such as 8; kernels and all else but BatchNormalization stay
            as pretrained. The factors are added to the kernels in the end. By default the kernels are trained.
    """

    epochs: int | None = None  # type: ignore[assignment]  # wider than that of other phases
    patience: int | None = None  # type: ignore[assignment]  # wider than that of other phases
    learning_rate: float | Literal["auto"] = 3e-4
    unfreeze_from: str | list[str] | None = None
    stored: bool | None = None
    layer_decay: float = 1.0
    learning_rates: dict[str, float] | None = None
    batch_normalization: Literal["inference", "train", "freeze-affine"] | None = None
    lora_rank: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        rank = self.lora_rank
        require(rank is None or rank >= 1, "full.lora_rank", rank, "it must be 1 or more, such as 8")
        used = rank is None or self.epochs != 0
        require(used, "full.lora_rank", rank, "full.epochs is 0, so that nothing would learn by it: leave one out")
        require(
            0 < self.layer_decay <= 1, "full.layer_decay", self.layer_decay, "it must be above 0, and 1 at the most"
        )
        for stage, rate in (self.learning_rates or {}).items():
            finite = 0 < rate < float("inf")
            require(finite, f"full.learning_rates.{stage}", rate, "it must be above 0, and finite")
        both = self.learning_rates and self.layer_decay != 1
        require(not both, "full.layer_decay", self.layer_decay, "full.learning_rates takes its place: give one of them")
        auto = self.learning_rates and self.learning_rate == "auto"
        require(not auto, "full.learning_rate", self.learning_rate, "beside full.learning_rates it must be a number")
        require(self.unfreeze_from != [], "full.unfreeze_from", self.unfreeze_from, "it must name a stage or more")
        unfrozen = self.stored and self.unfreeze_from is None
        require(not unfrozen, "full.stored", self.stored, "it goes with --full.unfreeze_from, else no stage is frozen")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Logged:
    """Settings of every command that makes MLflow runs of its own.

    Args:
        experiment: MLflow experiment; the environment variable MLFLOW_EXPERIMENT_NAME takes precedence.
    """

    experiment: str = "tlkit"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Logged):
    """Settings of every recipe that trains.

    Args:
        precision: Precision of the network; `auto` is mixed_bfloat16 on GPUs that support it, mixed_float16 on older
            GPUs and float32 on a CPU. Logits and loss are always float32.
        seed: Random seed: the same command and seed give the same weights on the same machine, up to rounding on a GPU
            with TensorFlow.
        run_name: Name of the MLflow run; by default what it is and the next number, such as
            `finetune MobileNet 0.75 flowers #3`.
    """

    precision: Precision = "auto"
    seed: int = 0
    run_name: str | None = None

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, "seed", self.seed, "it must be from 0 to 2**32 - 1")
        require_names(self.experiment, self.run_name)


@dataclasses.dataclass(frozen=True)
class Recipe(Run):
    """Settings of every recipe that trains a classifier of photos, sounds or arrays.

    Args:
        data: The photos, sounds or arrays.
    """

    data: Data = dataclasses.field(default_factory=Data)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifier:
    """Settings of every recipe that leaves a classifier: how it is scored and registered.

    Args:
        positive: Of two classes, the one whose precision, recall and average precision are reported; by default the
            rarer one in the training split.
        register: Register the model under this name; it becomes the `champion` if it beats the present champion on the
            same test split, otherwise at most the `challenger`, or without a test split the `candidate`.
    """

    positive: str | None = None
    register: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Abstaining(Classifier):
    """Settings of every recipe that leaves a classifier which may say no single class.

    Args:
        target_accuracy: Accuracy that the answers are to have, such as 0.99, with 95 % confidence: below a probability
            that is chosen on photos which the model did not learn from, it says `unsure`. By default it never does.
        label_sets: Share of the photos, such as 0.95, whose right label is to be in a set of labels that each answer
            then also has. By default there are no sets.
    """

    target_accuracy: float | None = None
    label_sets: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]  # of Run
        for name in ("target_accuracy", "label_sets"):
            value = getattr(self, name)
            allowed = value is None or 0.5 <= value < 1
            require(allowed, name, value, "it must be from 0.5 to below 1, such as 0.95")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exportable(Abstaining):
    """Settings of every recipe that leaves a classifier which other runtimes can hold.

    Args:
        export: Formats in which the model is exported too, such as `onnx,openvino`; `all` are those that are installed.
            Each is compared with the model on the scored examples, as the command `export` does it, and its folder is
            an artifact of the run, `export/FORMAT`.
    """

    export: list[ExportFormat] | None = None


@dataclasses.dataclass(frozen=True)
class Frozen(Recipe):
    """Settings of every recipe with frozen layers.

    Args:
        features: How activations of frozen layers are computed and stored.
        cluster: Where photos are opened and frozen layers computed: `local` for one worker process on each core of this
            machine, `local:WORKERS`, or `tls://host:port` of a Dask scheduler; by default in this process. It needs
            tlkit[dask].
    """

    features: Features = dataclasses.field(default_factory=Features, kw_only=True)
    cluster: str | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_cluster(self.cluster)


@dataclasses.dataclass(frozen=True)
class Training(Exportable, Recipe):
    """Settings of every recipe that trains a classifier by gradient descent.

    Args:
        batch_size: Examples per step. `auto` is the largest that fits on a GPU with at least 20 steps per epoch, and 32
            or what fits on a CPU; learning rates are then scaled from a batch of 32: linearly for `sgd`, by the square
            root for other optimizers.
        optimizer: Name of an optimizer of keras.optimizers, such as `adamw`, `lion`, or `sgd` (with Nesterov momentum
            0.9).
        label_smoothing: Share of the label that is spread over all classes; 0.1 is usual.
        focal_gamma: Gamma of the focal loss, which down-weights examples that the model already gets right
            (arXiv:1708.02002); 2 is usual, 0 is plain cross-entropy.
        balance: For classes of unequal size: `weights` gives all classes the same weight in the loss, `sampling`
            samples all classes equally often.
        weight_decay: Decoupled weight decay, multiplied by the learning rate; biases and normalization are exempt.
        global_clipnorm: Maximum norm of the gradient of all weights together, as in Keras; by default no clipping.
        gradient_accumulation_steps: Number of batches whose gradients are accumulated for one step, as in Keras.
        ema_momentum: Momentum of an exponential moving average of the weights, which is then evaluated and saved; 0.99
            or 0.999 is usual. By default there is no average.
        remat: Recompute most activations in the backward pass instead of keeping them: slower, but less memory.
        tta: Number of augmented views of each test photo; the mean prediction over these and the photo itself is scored
            besides the plain prediction. If photos are only mirrored, there is one view. 0 is off.
        devices: Number of devices of this host that share each batch, on JAX and TensorFlow; `auto` is all GPUs or
            TPUs. The result is that of one device, up to rounding and, on TensorFlow, dropout.
        hosts: Train together with the same command on other hosts, on JAX: `auto` where Slurm, Kubernetes or Open MPI
            has started them, else `COORDINATOR:PORT,COUNT,INDEX`, such as `10.0.0.1:8476,2,0` on the first of two. The
            first logs, writes and scores.
        resume: Resume an interrupted run: `auto` is the latest one of this command in this folder, if there is one; or
            give a run's id or name. Devices and hosts may be others than before.
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
    devices: int | Literal["auto"] = "auto"
    hosts: str | None = None
    resume: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        head, full = getattr(self, "head", None), self.full  # type: ignore[attr-defined]
        learns = full.epochs != 0 or (head and (head.epochs is None or head.epochs or head.solved is not False))
        require(bool(learns), "the number of epochs", 0, "it must be 1 or more over all phases")
        size = self.batch_size
        require(isinstance(size, str) or size >= 1, "batch_size", size, "it must be 1 or more, or auto")
        for name in ("focal_gamma", "weight_decay"):
            value = getattr(self, name)
            require(0 <= value < float("inf"), name, value, "it must be 0 or more, and finite")
        clip = self.global_clipnorm
        require(clip is None or clip > 0, "global_clipnorm", clip, "it must be above 0")
        steps = self.gradient_accumulation_steps
        require(steps >= 1, "gradient_accumulation_steps", steps, "it must be 1 or more")
        ema = self.ema_momentum
        require(ema is None or 0 < ema < 1, "ema_momentum", ema, "it must lie between 0 and 1, both excluded")
        require(self.tta >= 0, "tta", self.tta, "it must be 0 or more")
        require(self.devices == "auto" or self.devices >= 1, "devices", self.devices, "it must be 1 or more, or auto")
        if self.hosts:
            parse_hosts(self.hosts)
        require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "it must be from 0 to below 1")
