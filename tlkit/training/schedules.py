"""Learning rate schedules over the steps of a phase."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops
from keras.optimizers import schedules

from tlkit.errors import InvalidInput
from tlkit.training.variables import Tensor

KINDS = ("cosine", "one_cycle", "step", "constant", "plateau")


def build(kind: str, learning_rate: float, steps: int, warmup: float = 0.1) -> float | schedules.LearningRateSchedule:
    """Make the schedule of a phase.

    Args:
        kind: `cosine` rises linearly, then falls to zero along a cosine; `one_cycle` is `OneCycle`; `step` rises
            linearly, then falls to a tenth after each third of the steps left; `constant` rises linearly, then stays
            the same; `plateau` has no warm-up and is lowered during training when the loss stops falling.
        learning_rate: The peak learning rate.
        steps: Number of updates of the weights in the phase; with gradient accumulation there are fewer than batches.
        warmup: Share of the steps in which the rate rises from zero; `one_cycle` has a warm-up of its own.

    Returns:
        The schedule, or a number if the rate is constant.

    Raises:
        InvalidInput: the kind is unknown.

    >>> schedule = build("step", 1.0, 8, warmup=0.25)
    >>> [round(float(schedule(step)), 2) for step in range(8)]
    [0.0, 0.5, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    """
    if kind == "cosine":
        return cosine(learning_rate, warmup, steps)
    if kind == "one_cycle":
        return OneCycle(learning_rate, steps)
    if kind == "plateau":
        return learning_rate
    rising = _rising(warmup, steps)
    if kind == "step":
        return Step(learning_rate, steps, rising)
    if kind == "constant":
        # Linear for the rising steps; Keras holds the end value after them.
        return schedules.PolynomialDecay(0.0, rising, learning_rate) if rising else learning_rate
    raise InvalidInput(f"schedule is {kind!r}; it must be one of {', '.join(KINDS)}")


def cosine(learning_rate: float, warmup: float, steps: int) -> schedules.LearningRateSchedule:
    """Rise linearly to the peak over a share of the steps, then fall to zero along a cosine (arXiv:1608.03983).

    Args:
        learning_rate: The peak learning rate.
        warmup: Share of the steps in which the rate rises.
        steps: Number of steps of the phase.

    >>> schedule = cosine(1.0, 0.5, 4)
    >>> [round(float(schedule(step)), 2) for step in range(5)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    rising = _rising(warmup, steps)
    falling = steps - rising
    if rising == 0:
        return schedules.CosineDecay(learning_rate, falling)
    return schedules.CosineDecay(0.0, falling, warmup_target=learning_rate, warmup_steps=rising)


@keras.saving.register_keras_serializable(package="tlkit")
class OneCycle(schedules.LearningRateSchedule):
    """Rise along a cosine from 1/25 of the peak over a quarter of the steps, then fall along a cosine to 1/100,000.

    This is the learning rate of fastai's `fit_one_cycle` (after arXiv:1803.09820); the momentum is constant.

    Args:
        learning_rate: The peak learning rate.
        steps: Number of steps of the phase.

    >>> schedule = OneCycle(1.0, 8)
    >>> [round(float(schedule(step)), 2) for step in range(9)]
    [0.04, 0.52, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07, 0.0]
    """

    def __init__(self, learning_rate: float, steps: int):
        self.learning_rate, self.steps = learning_rate, steps

    def __call__(self, step: Tensor) -> Tensor:
        """Give the rate at a step."""
        share = ops.minimum(ops.cast(step, "float32") / self.steps, 1.0)
        rise = _between(self.learning_rate / 25, self.learning_rate, share / 0.25)
        return ops.where(
            share < 0.25, rise, _between(self.learning_rate, self.learning_rate / 1e5, (share - 0.25) / 0.75)
        )

    def get_config(self) -> dict[str, Any]:
        """Give the arguments that create the same schedule."""
        return {"learning_rate": self.learning_rate, "steps": self.steps}


@keras.saving.register_keras_serializable(package="tlkit")
class Step(schedules.LearningRateSchedule):
    """Rise linearly to the peak, then fall to a tenth of it after a third of the steps left, to a hundredth after two.

    Args:
        learning_rate: The peak learning rate.
        steps: Number of steps of the phase.
        rising: Number of steps in which the rate rises from zero.
    """

    def __init__(self, learning_rate: float, steps: int, rising: int = 0):
        self.learning_rate, self.steps, self.rising = learning_rate, steps, rising

    def __call__(self, step: Tensor) -> Tensor:
        """Give the rate at a step."""
        step = ops.cast(step, "int32")  # in integers, so that a third is never rounded to the wrong side
        third = ops.clip(ops.floor_divide(3 * (step - self.rising), self.steps - self.rising), 0, 2)
        risen = ops.cast(step, "float32") / max(self.rising, 1)
        return self.learning_rate * ops.where(step < self.rising, risen, 10.0 ** ops.cast(-third, "float32"))

    def get_config(self) -> dict[str, Any]:
        """Give the arguments that create the same schedule."""
        return {"learning_rate": self.learning_rate, "steps": self.steps, "rising": self.rising}


def _rising(warmup: float, steps: int) -> int:
    """Give the number of steps in which the rate rises; at least one step is left to fall."""
    return min(round(warmup * steps), steps - 1)


def _between(start: float, end: float, share: Tensor) -> Tensor:
    """Go from start to end along a cosine; a share of 0 is the start, 1 the end."""
    return end + (start - end) * (1 + ops.cos(math.pi * share)) / 2
