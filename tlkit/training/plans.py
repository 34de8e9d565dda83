"""A plan: how a classifier is fine-tuned, phase by phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tlkit.training.settings import Settings


class FineTuning(NamedTuple):
    """How a classifier is fine-tuned: a head on frozen features first, then the network from a stage on.

    Args:
        head: How the head is trained; 0 epochs skip that.
        full: How the network is trained; 0 epochs skip that.
        solve: Fit the head by logistic regression, before it is trained or instead.
        stages: First stage to train, None for the whole backbone. Several, highest first, unfreeze gradually: each gets
            its share of the epochs.
        batch_normalization: In the stages that are trained; see `backbones.unfreeze`.
        augment: Random changes of the training photos, as `data.batches` takes them, or None.
        views: Number of changed versions of each photo, of which each epoch draws one; by default new ones each time.
        stored: Train on stored activations of the frozen stages; by default if that saves time.
        seed: Seeds the order of the photos and the augmentation.
    """

    head: Settings
    full: Settings
    solve: bool = True
    stages: Sequence[str | None] = (None,)
    batch_normalization: Literal["inference", "train", "freeze-affine"] = "inference"
    augment: Mapping[str, Any] | None = None
    views: int | None = None
    stored: bool | None = None
    seed: int = 0

    @property
    def full_parts(self) -> list[tuple[str, str | None, Settings]]:
        """The parts of phase full: name, first stage to train, settings. Epochs that do not divide go to the last.

        >>> plan = FineTuning(Settings(0, 0.1), Settings(5, 0.1), stages=["stage4", "stage2"])
        >>> [(name, stage, settings.epochs) for name, stage, settings in plan.full_parts]
        [('full1', 'stage4', 2), ('full2', 'stage2', 3)]
        """
        count, epochs = len(self.stages), self.full.epochs
        return [
            (
                f"full{number + 1}" if count > 1 else "full",
                stage,
                self.full._replace(epochs=epochs * (number + 1) // count - epochs * number // count),
            )
            for number, stage in enumerate(self.stages)
        ]
