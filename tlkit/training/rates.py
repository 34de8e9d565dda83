"""Learning rates of fine-tuning, found by range tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import keras

from tlkit import backbones
from tlkit.data import Splits
from tlkit.display import say
from tlkit.features import Features
from tlkit.training import finder, variables
from tlkit.training.full import range_test_full
from tlkit.training.heads import range_test_head, train_head_briefly
from tlkit.training.plans import FineTuning


class Rate(NamedTuple):
    """A learning rate that was found, and why it was chosen, for people."""

    value: float
    reason: str


def find(
    model: keras.Model,
    splits: Splits,
    plan: FineTuning,
    phase: Literal["head", "full"],
    features: Features | None,
    default: float,
) -> Rate:
    """Find the learning rate of a phase of fine-tuning by a range test; see `choose`."""
    return choose(model, phase, default, lambda: range_test(model, splits, plan, phase, features))


def choose(model: keras.Model, phase: str, default: float, test: Callable[[], finder.RangeTest]) -> Rate:
    """Choose the learning rate of a phase by a range test, and say so; the model's weights are left as they were.

    Args:
        model: What is tested.
        phase: Name of the phase.
        default: The rate if the loss falls at none.
        test: Runs the range test.
    """
    before = variables.values(model.variables)
    suggested = test().suggested
    variables.assign(model.variables, before)  # the seeds of dropout too
    if suggested:
        rate = Rate(suggested, "by a range test")
    else:
        rate = Rate(default, "the default, as in a range test the loss fell at no rate")
    say(f"{phase}: learning rate {rate.value:.2g}, {rate.reason}")
    return rate


def range_test(
    model: keras.Model,
    splits: Splits,
    plan: FineTuning,
    phase: Literal["head", "full"],
    features: Features | None,
    **more: Any,
) -> finder.RangeTest:
    """Test the learning rates of a phase, of phase full with a head that has been trained briefly.

    Args:
        model: The classifier; its head may have other weights afterwards.
        splits: The photos.
        plan: How it is fine-tuned.
        phase: `head` or `full`.
        features: Pooled features of the training photos. Phase `head` needs them; phase `full` trains the head briefly
            on them first, unless they are None.
        more: See `finder.range_test`.
    """
    if features:
        backbones.freeze(model)
        if phase == "head":
            return range_test_head(model, features, plan.head, seed=plan.seed, **more)
        train_head_briefly(model, features, plan.head, plan.seed)
    backbones.unfreeze(model, None, plan.stages[-1], plan.batch_normalization)
    stages = backbones.stages(model)
    with backbones.low_rank(model, plan.lora_rank, plan.seed):
        return range_test_full(
            model, splits.train, plan.full, seed=plan.seed, augment=plan.augment or None, stages=stages, **more
        )
