"""One phase of training: its epochs, from the beginning or from a checkpoint."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from tlkit import autolog, runtime
from tlkit.data import readable_errors
from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.training import checkpoints, losses, optimizers, schedules, variables
from tlkit.training.callbacks import (
    BestEpoch,
    CheckpointWriter,
    Diverged,
    DropoutDraws,
    Guard,
    MovingAverage,
    Plateau,
    ProgressTable,
    Record,
    Validation,
)
from tlkit.training.settings import Checkpointing, History, Settings

TrainingData = Callable[[int, int], dict[str, Any]]
"""From an epoch and a step of it to the arguments of Keras' `fit` that give the training data from there on."""


class Phase(NamedTuple):
    """What stays the same throughout a phase.

    Args:
        name: Such as `head` or `full`.
        settings: How it learns.
        steps: Batches in an epoch.
        factors: Factors on the learning rate by the path of a variable; see `optimizers.stage_factors`.
        multi_label: Each example has any number of labels.
        seed: Seeds dropout on PyTorch.
    """

    name: str
    settings: Settings
    steps: int
    factors: Mapping[str, float] | None = None
    multi_label: bool = False
    seed: int = 0


class ResumePoint(NamedTuple):
    """Where a phase was interrupted.

    Args:
        state: What its checkpoint holds.
        batches: Number of today's batches that one of its batches is made of: more than 1 after memory ran out.
    """

    state: checkpoints.State
    batches: int = 1


def compiled(
    logits: keras.Model,
    settings: Settings,
    rate: float | keras.optimizers.schedules.LearningRateSchedule,
    factors: Mapping[str, float] | None = None,
    multi_label: bool = False,
) -> None:
    """Compile a model that ends in logits for a phase.

    Args:
        logits: The model.
        settings: How the phase learns.
        rate: Learning rate, or its schedule.
        factors: Factors on the learning rate by the path of a variable; see `optimizers.stage_factors`.
        multi_label: Each example has any number of labels.
    """
    with getattr(logits, "creating", contextlib.nullcontext)():
        logits.compile(
            optimizers.build(
                settings.optimizer,
                rate,
                weight_decay=settings.weight_decay,
                factors=factors,
                global_clipnorm=settings.global_clipnorm,
                gradient_accumulation_steps=settings.gradient_accumulation_steps,
                ema_momentum=settings.ema_momentum,
            ),
            loss=losses.crossentropy(
                label_smoothing=settings.label_smoothing,
                focal_gamma=settings.focal_gamma,
                class_weights=settings.class_weights,
                multi_label=multi_label,
            ),
            metrics=[losses.accuracy(multi_label)],
            jit_compile=runtime.jit_compile(),
        )
        _build(logits)


def _build(logits: keras.Model) -> None:
    """Create the variables of the optimizer and of the metrics before the first step.

    TensorFlow traces a step that creates variables twice: for a small network that takes longer than an epoch.
    """
    logits.optimizer.build(logits.trainable_variables)
    outputs = np.zeros([size or 1 for size in logits.output_shape], "float32")
    logits.compute_metrics(None, outputs, outputs)  # labels may be probabilities
    logits.reset_metrics()


def fit(
    logits: keras.Model,
    train: TrainingData,
    val: Validation,
    phase: Phase,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    before: History | None = None,
    until: int | None = None,
    checkpointing: Checkpointing | None = None,
    interrupted: ResumePoint | None = None,
) -> History:
    """Train a phase, or what is left of it.

    Args:
        logits: The model, which ends in logits.
        train: Gives the training data.
        val: The validation data.
        phase: What to train, and how.
        callbacks: Keras callbacks.
        before: The epochs of the phase before.
        until: Number of epochs of the phase after which it stops for now.
        checkpointing: Where its checkpoint is written.
        interrupted: Where to resume.
    """
    settings, steps = phase.settings, phase.steps
    _prepare(logits, phase)
    state = interrupted and interrupted.state._replace(step=interrupted.state.step * interrupted.batches)
    history = History(list(state.epochs if state else before.epochs if before else []))
    first = state.before if state else len(history.epochs)
    last = first + min(until or settings.epochs, settings.epochs)
    best = BestEpoch(settings, logits, history, first, last, val)
    writer = CheckpointWriter(checkpointing, history, first, settings, best, steps)
    done, step = len(history.epochs) - first, state.step if state else 0
    if interrupted and state and checkpointing:
        _restore(state, logits, best, checkpointing.path, interrupted.batches, done * steps + step)
    watching = [
        Guard(),
        Record(history, phase.name, state.seconds if state else 0.0),
        best,
        *([Plateau(settings, history, first, best)] if settings.schedule == "plateau" else []),
        ProgressTable(history, phase.name, first, last - first, steps, step),
        *callbacks,
        *([DropoutDraws(phase.seed, phase.name, state)] if keras.backend.backend() == "torch" else []),
        *([MovingAverage()] if settings.ema_momentum else []),
        writer,
    ]
    if not best.ended and len(history.epochs) < last:
        writer.state = state
        with readable_errors(), writer.interruptible():
            try:
                if not isinstance(val.examples, tuple) and (step or steps == 1):
                    # On TensorFlow the metrics, which are to be restored, are created in the first step; elsewhere
                    # Keras takes a first look at the data, which batches cannot tell from an epoch if there is but one.
                    logits.test_on_batch(*next(iter(val.examples)))
                if step:  # an epoch by itself, because its first batches are left out
                    _epochs(logits, train(done, step), val.examples, first + done, first + done + 1, watching)
                    done += 1
                if not best.ended and first + done < last:
                    _epochs(logits, train(done, 0), val.examples, first + done, last, watching)
                if best.diverged:
                    raise Diverged(best.diverged)
            except Diverged as error:
                best.ended = True
                _print_divergence(error, history, phase)
            if _is_finite(history):
                writer.write_state()
        if writer.interrupted.is_set():  # too late for any callback
            raise KeyboardInterrupt
    logits.set_weights(best.weights)
    if not _is_finite(history):
        if checkpointing:
            checkpoints.delete(checkpointing.path)  # there is nothing to resume
        raise InvalidInput(f"the loss became nan or infinite in phase {phase.name}: {_advice(phase)}")
    return history


def _prepare(logits: keras.Model, phase: Phase) -> None:
    """Compile a model for a phase, its learning rate schedule stretched over all epochs."""
    settings = phase.settings
    updates = max(1, settings.epochs * phase.steps // settings.gradient_accumulation_steps)
    rate = schedules.build(settings.schedule, settings.learning_rate, updates, settings.warmup)
    compiled(logits, settings, rate, phase.factors, phase.multi_label)
    if settings.ema_momentum:  # the average starts at the present weights: Keras starts at zeros
        variables.assign(optimizers.averages(logits.optimizer), variables.values(logits.trainable_variables))


def _is_finite(history: History) -> bool:
    return bool(history.epochs) and math.isfinite(history.best["val_loss"])


@autolog.suspended()
def _epochs(logits: keras.Model, data: dict[str, Any], val: Any, first: int, last: int, callbacks: list[Any]) -> None:
    logits.fit(
        **data,
        shuffle=False,
        validation_data=val,
        initial_epoch=first,
        epochs=last,
        callbacks=callbacks,
        verbose=0,
    )


def _advice(phase: Phase) -> str:
    group = "head" if phase.name == "head" else "full"
    return (
        f"lower --{group}.learning_rate (it is {phase.settings.learning_rate:g}), or give --global_clipnorm 1 or "
        "--precision float32"
    )


def _print_divergence(error: Diverged, history: History, phase: Phase) -> None:
    if not _is_finite(history):
        return  # `fit` raises
    outcome = f"the weights of epoch {history.best['epoch']} are kept"
    advice = "" if phase.settings.trial else f". {_advice(phase).capitalize()}"  # a trial is repeated at a lower rate
    say(f"{phase.name}: {error}; {outcome}{advice}", error=True)


def _restore(
    state: checkpoints.State, model: keras.Model, best: BestEpoch, path: Path, times: int, batches: int
) -> None:
    """Restore the model, its optimizer, and what is known of the best epoch, as they were `batches` into the phase."""
    if times > 1:
        values = _in_smaller_batches(state.arrays["optimizer"], model.optimizer, times, batches)
        state = state._replace(arrays={**state.arrays, "optimizer": values})
    parts = {"last": model.variables, "optimizer": model.optimizer.variables, "best": model.weights}
    checkpoints.fits(path, state, {name: [tuple(v.shape) for v in values] for name, values in parts.items()})
    for name in ("last", "optimizer"):
        variables.assign(parts[name], state.arrays[name])
    best.weights, best.waited, best.ended = state.arrays["best"], state.waited, state.ended


def _in_smaller_batches(values: list[np.ndarray], optimizer: Any, times: int, batches: int) -> list[np.ndarray]:
    """Convert an optimizer's variables to batches that are `times` smaller: it counts batches and sums up gradients."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    sums, has_sums = {id(v) for v in inner._accumulated_gradients}, len(values) == len(optimizer.variables)
    steps = inner.gradient_accumulation_steps // times
    remaining, converted = iter(values), []
    for variable in optimizer.variables:
        if id(variable) in sums and not has_sums:
            converted.append(np.zeros(variable.shape, variable.dtype))
            continue
        value = next(remaining, np.zeros(()))  # too few: `checkpoints.fits` will say so
        if variable is inner._iterations:
            # As many as there were, though an epoch with a small last batch has fewer, and as far into an update.
            value = times * (value + steps * np.rint((batches / times - value) / steps).astype(value.dtype))
        converted.append(value * times if id(variable) in sums else value)
    return converted
