"""The settings of training: its phases, what every recipe has, and what those have that train by steps."""

from __future__ import annotations

import dataclasses
from typing import Literal

from tlkit.config.data import Data
from tlkit.config.fields import require, require_names

Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]


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
        require(self.epochs is None or self.epochs >= 0, f"{phase}.epochs", self.epochs, "it must be 0 or more")
        automatic = isinstance(self.learning_rate, str)
        rate = self.learning_rate
        finite = automatic or 0 < rate < float("inf")
        require(finite, f"{phase}.learning_rate", rate, "it must be above 0, and finite")
        require(self.patience >= 1, f"{phase}.patience", self.patience, "it must be 1 or more")


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
        require(0 <= self.warmup < 1, f"{phase}.warmup", self.warmup, "it must be from 0 to below 1")


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
        require(0 <= self.dropout < 1, "head.dropout", self.dropout, "it must be from 0 to below 1")


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
        wanted = self.stored and self.unfreeze_from is None
        require(not wanted, "full.stored", self.stored, "it goes with --full.unfreeze_from, else no stage is frozen")


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
        require(0 <= self.seed < 2**32, "seed", self.seed, "it must be from 0 to 2**32 - 1")
        require_names(self.experiment, self.run_name)


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
        require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "it must be from 0 to below 1")
