"""Train whatever is trainable of a network, on examples or on stored activations; and predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np

from tlkit import inference
from tlkit.backbones.low_rank import FACTORS
from tlkit.data import ExampleSet, Views, batches, readable_errors
from tlkit.errors import InvalidInput
from tlkit.training import batched, finder, optimizers
from tlkit.training.batched import Learner
from tlkit.training.devices import find
from tlkit.training.settings import Checkpointing, History, Settings

LORA_RATE = 3.0  # factor on the learning rate of low-rank factors: see docs/benchmarks/finetuning.md


def fit_full(
    model: keras.Model,
    train: ExampleSet | Views,
    val: ExampleSet,
    settings: Settings,
    *,
    seed: int = 0,
    augment: Mapping[str, Any] | None = None,
    before: History | None = None,
    stages: Mapping[str, str] | None = None,
    until: int | None = None,
    checkpointing: Checkpointing | None = None,
    phase: str = "full",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    devices: int | Literal["auto"] = 1,
) -> History:
    """Train whatever is trainable of a classifier, on examples or on stored activations of them.

    If a batch does not fit into memory it is halved, and twice as many batches make a step; training then resumes from
    the last checkpoint, if there is one.

    Args:
        model: A classifier from raw values to probabilities, or the upper of the two models that `backbones.split`
            makes of it.
        train: The training examples, augmented anew in each epoch, or `data.Views` of them; for an upper model, what
            the lower one gives for them.
        val: The validation examples, never augmented; for an upper model, what the lower one gives for them.
        settings: How it learns.
        seed: Seeds the order of the examples and the augmentation.
        augment: What `data.batches` takes, or None.
        before: The epochs of the phase before; the model keeps its weights unless this phase finds better ones.
        stages: Stages of the backbone, for learning rates that differ by stage; see `optimizers.stage_factors`.
        until: Stop after this many epochs of the phase, those of a checkpoint included; the learning rate schedule
            still covers all `settings.epochs`.
        checkpointing: Where the checkpoint is written. On the same machine and with the same data, settings and seed, a
            resumed phase gives what an uninterrupted one gives, on a GPU up to rounding. A phase that stopped early
            stays stopped.
        phase: Name of the phase.
        callbacks: Keras callbacks.
        devices: Number of devices that share each batch, on JAX and TensorFlow; `auto` is all. They give what one
            gives, up to rounding and, on TensorFlow, dropout. A batch that does not divide by their number is not
            computed faster than by one. A checkpoint is resumed on any number.

    Returns:
        All epochs, those of `before` included; the model has the weights of the best one.

    Raises:
        InvalidInput: `until` is below 1; there are not as many devices, or Keras cannot train on several here; the
            checkpoint is damaged, or of another model or other settings; or the loss became nan or infinite before
            there were weights to fall back on.
        Unavailable: not even a batch of 1 fits into memory.
        KeyboardInterrupt: the process was asked to end; the checkpoint is written.
    """
    if until is not None and until < 1:
        raise InvalidInput(f"until is {until}: 1 or more epochs of the phase")
    logits, factors = _learning_part(model, settings, stages)
    learner = Learner(logits, train, settings, seed, augment, factors, settings.remat, find(devices))
    return batched.fit(
        learner, val, phase, before=before, until=until, checkpointing=checkpointing, callbacks=callbacks
    )


def range_test_full(
    model: keras.Model,
    train: ExampleSet | Views,
    settings: Settings,
    *,
    seed: int = 0,
    augment: Mapping[str, Any] | None = None,
    stages: Mapping[str, str] | None = None,
    **more: Any,
) -> finder.RangeTest:
    """Test learning rates for `fit_full`; the model is left as it was. Call `train_head_briefly` before.

    Args:
        model: A classifier from raw values to probabilities.
        train: The training examples.
        settings: How it learns; the learning rate does not matter.
        seed: Seeds the order of the examples and the augmentation.
        augment: See `fit_full`.
        stages: See `fit_full`.
        more: See `finder.range_test`.
    """
    logits, factors = _learning_part(model, settings, stages)
    return batched.range_test(Learner(logits, train, settings, seed, augment, factors, settings.remat), **more)


def predict(model: keras.Model, examples: ExampleSet, batch_size: int = 32) -> np.ndarray:
    """Give the model's outputs for the examples, such as probabilities of shape (examples, classes).

    Args:
        model: A classifier from raw values.
        examples: The examples, such as `splits.test` or a `data.View` of it.
        batch_size: Examples per step.
    """
    with readable_errors():
        batched = batches(examples, batch_size, labels=False)
        return inference.in_full_precision(model).predict(batched, verbose=0)


def to_logits(model: keras.Model) -> keras.Model:
    """Return the model up to its logits, without the activation after the head; the layers are shared."""
    whole = model.layers[-1].name != "head"
    return keras.Model(model.input, model.get_layer("head").output) if whole else model


def _learning_part(
    model: keras.Model, settings: Settings, stages: Mapping[str, str] | None
) -> tuple[keras.Model, dict[str, float] | None]:
    """Give the model that ends in logits, and the factors on its variables' learning rates."""
    logits, factors = to_logits(model), None
    if settings.learning_rates:
        by_name = {stage: rate / settings.learning_rate for stage, rate in settings.learning_rates.items()}
        factors = optimizers.stage_factors(logits, 1.0, stages, by_name)
    elif settings.layer_decay != 1:
        factors = optimizers.stage_factors(logits, settings.layer_decay, stages)
    if not settings.learning_rates:  # which say what each stage has
        low_rank = [each.path for each in logits.trainable_variables if each.name in FACTORS]
        factors = {**(factors or {}), **{path: LORA_RATE * (factors or {}).get(path, 1.0) for path in low_rank}} or None
    return logits, factors
