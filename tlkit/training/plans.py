"""A plan: how a classifier is fine-tuned, phase by phase."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tlkit.config.training import FEWEST_EPOCHS
from tlkit.training.settings import Settings

STEPS, MOST = 500, 25  # of phase full, where nothing is asked for: its steps, and the most epochs
TRIAL, TRIAL_STEPS = 3, (30, 80)  # epochs of a trial; at least so many steps, as fewer are all warm-up, and no more
FEWEST = 20  # validation examples that can tell whether fine-tuning has improved on a solved head
TRIALS, LOWER = ("trial", "trial2", "trial3"), 3.0  # the next one is at a rate so many times lower


def epochs(examples: int, batch_size: int) -> int:
    """Give the number of epochs of phase full: as many as 500 steps take, from 10 to 25.

    What matters is how often the weights have been updated (Kolesnikov et al. 2020, arXiv:1912.11370, section 3.3,
    fine-tune for 500 steps on small data sets, whatever their size).

    Args:
        examples: Number of training examples.
        batch_size: Examples per step.

    >>> epochs(300, 32), epochs(850, 32), epochs(10_000, 32)
    (25, 19, 10)
    """
    return min(max(FEWEST_EPOCHS, math.ceil(STEPS / math.ceil(examples / batch_size))), MOST)


class FineTuning(NamedTuple):
    """How a classifier is fine-tuned: a head on frozen features first, then the network from a stage on.

    Args:
        head: How the head is trained; 0 epochs skip that.
        full: How the network is trained; 0 epochs skip that.
        solve: Fit the head by logistic regression, before it is trained or instead.
        stages: First stage to train, None for the whole backbone. Several, highest first, unfreeze gradually: each gets
            its share of the epochs.
        batch_normalization: In the stages that are trained; see `backbones.unfreeze`.
        lora_rank: Train low-rank factors instead of kernels; see `backbones.low_rank`. Each part of phase full has its
            own, which are added to the kernels at its end.
        augment: Random changes of the training photos, as `data.batches` takes them, or None.
        views: Number of changed versions of each photo, of which each epoch draws one; by default new ones each time.
        stored: Train on stored activations of the frozen stages; by default if that saves time.
        seed: Seeds the order of the photos and the augmentation.
        devices: Number of devices that share each batch of phase full; see `fit_full`.
    """

    head: Settings
    full: Settings
    solve: bool = True
    stages: Sequence[str | None] = (None,)
    batch_normalization: Literal["inference", "train", "freeze-affine"] = "inference"
    lora_rank: int | None = None
    augment: Mapping[str, Any] | None = None
    views: int | None = None
    stored: bool | None = None
    seed: int = 0
    devices: int | Literal["auto"] = 1

    def full_parts(self, steps: int | None = None) -> list[tuple[str, str | None, Settings]]:
        """The parts of phase full: name, first stage to train, settings. Epochs that do not divide go to the last.

        Where the last epoch is to be kept (`Settings.patience` is None) and there are enough of them, the first few are
        a phase of its own, called `trial`: at its end the learning rate has fallen to zero once, which shows whether
        fine-tuning improves on the solved head. In the middle of a phase nothing shows it. Two more follow, each at a
        third of the learning rate, for where nothing of the one before is better than the head, as far as all of them
        take no more than half of the epochs; see `fit_phases`.

        Args:
            steps: Number of steps in an epoch; None if there is to be no trial.

        >>> plan = FineTuning(Settings(0, 0.1), Settings(5, 0.1), stages=["stage4", "stage2"])
        >>> [(name, stage, settings.epochs) for name, stage, settings in plan.full_parts()]
        [('full1', 'stage4', 2), ('full2', 'stage2', 3)]
        >>> plan = FineTuning(Settings(0, 0.1), Settings(25, 0.1, patience=None))
        >>> [(name, settings.epochs) for name, _, settings in plan.full_parts(steps=12)]
        [('trial', 3), ('trial2', 3), ('trial3', 3), ('full', 22)]
        """
        count, epochs = len(self.stages), self.full.epochs
        least, most = (math.ceil(count / steps) if steps else epochs for count in TRIAL_STEPS)
        trial = max(least, min(TRIAL, most))
        if self.solve and count == 1 and self.full.patience is None and epochs >= 2 * trial > 0:
            first, some = self.full._replace(epochs=trial, trial=True), TRIALS[: max(1, epochs // (2 * trial))]
            trials = [(name, self.stages[0], first.slower(LOWER**number)) for number, name in enumerate(some)]
            return [*trials, ("full", self.stages[0], self.full._replace(epochs=epochs - trial))]
        names = [f"full{number + 1}" if count > 1 else "full" for number in range(count)]
        ends = [epochs * (number + 1) // count for number in range(count)]
        parts = zip(names, self.stages, [0, *ends], ends, strict=False)
        return [(name, stage, self.full._replace(epochs=end - start)) for name, stage, start, end in parts]
