"""How a phase of training learns, what happened in it, and where its checkpoint is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple


class Settings(NamedTuple):
    """How one phase learns.

    The fields mean what they mean on the command line: see `config.Phase` and `config.Full` for those of a phase, and
    `config.Training` for those of the whole run. What differs:

    Args:
        patience: Stop after this many epochs without a lower validation loss, and keep the epoch with the lowest. None
            never stops, and keeps the last epoch, or weights between what the phase began with and it, where they are
            clearly better (`verdicts.Verdict`): to choose among epochs, a few dozen validation examples are too noisy.
        class_weights: Weight of each class in the loss; see `losses.balanced`.
        class_shares: Share of each class when it is judged whether a phase has made the model better; by default that
            of the validation examples.
        balanced: Sample all classes equally often; see `data.batches`.
        remat: Recompute activations in the backward pass instead of keeping them, in `fit_full`.
        trial: Stop after an epoch whose validation loss is above that of chance, and of what the phase began with: the
            learning rate is too high.
    """

    epochs: int
    learning_rate: float
    warmup: float = 0.1
    patience: int | None = 5
    batch_size: int = 32
    label_smoothing: float = 0.0
    weight_decay: float = 0.0
    layer_decay: float = 1.0
    schedule: str = "cosine"
    optimizer: str = "adamw"
    focal_gamma: float = 0.0
    class_weights: list[float] | None = None
    class_shares: list[float] | None = None
    balanced: bool = False
    global_clipnorm: float | None = None
    gradient_accumulation_steps: int = 1
    ema_momentum: float | None = None
    learning_rates: dict[str, float] | None = None
    remat: bool = False
    trial: bool = False

    def slower(self, times: float) -> Settings:
        """Divide all learning rates."""
        rates = {stage: rate / times for stage, rate in self.learning_rates.items()} if self.learning_rates else None
        return self._replace(learning_rate=self.learning_rate / times, learning_rates=rates)


class History(NamedTuple):
    """What happened in each epoch: Keras' logs, with the global `epoch` (from 1), its `phase` and its `seconds`.

    After a phase that does not keep the lowest validation loss, one epoch has the entry `kept`: 1, or the share of what
    its phase has changed. If that is below 1, `kept_val_loss` and `kept_val_accuracy` are those of the weights between.
    Its last epoch has `gain`: how much lower the validation loss is than before, of the best weights that were seen.
    """

    epochs: list[dict[str, Any]]

    @property
    def best(self) -> dict[str, Any]:
        """The epoch whose weights the model has: the one that was kept, or the one with the lowest validation loss."""
        if marked := [epoch for epoch in self.epochs if "kept" in epoch]:
            kept, prefix = marked[0], "kept_"
            return kept | {name.removeprefix(prefix): value for name, value in kept.items() if name.startswith(prefix)}
        return min(self.epochs, key=lambda epoch: (not math.isfinite(epoch["val_loss"]), epoch["val_loss"]))

    def gain(self, phase: str) -> float:
        """Give the `gain` of a phase; 0 if it did not reach its end."""
        epochs = [epoch for epoch in self.epochs if epoch["phase"] == phase]
        return epochs[-1].get("gain", 0.0) if epochs else 0.0

    @property
    def seconds(self) -> float:
        """Seconds of training in all phases."""
        return sum(epoch["seconds"] for epoch in self.epochs)


class Checkpointing(NamedTuple):
    """Where a phase writes its checkpoint, and how often.

    Args:
        path: File of the checkpoint. If it exists, the phase resumes from it instead of starting anew.
        within_epochs: Also write it within epochs, at most every ten seconds, so that little is lost if the process is
            killed. A first interrupt then waits for the current step.
    """

    path: Path
    within_epochs: bool = False
