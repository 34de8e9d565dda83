"""Training on batches, in smaller ones where these do not fit into memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras

from tlkit.data import ExampleSet, Views, batches, readable_errors
from tlkit.display import say
from tlkit.errors import Unavailable
from tlkit.training import checkpoints, finder, hosts, memory, phases, variables
from tlkit.training.callbacks import Validation
from tlkit.training.devices import Devices, check, spread
from tlkit.training.phases import Phase, ResumePoint, compiled
from tlkit.training.settings import Checkpointing, History, Settings


class Learner(NamedTuple):
    """What learns from which examples.

    Args:
        logits: The model, which ends in logits.
        train: The training examples.
        settings: How it learns.
        seed: Seeds the order of the examples and the augmentation.
        augment: What `data.batches` takes, or None.
        factors: Factors on the learning rate by the path of a variable.
        remat: Train by `memory.remat`.
        devices: The devices that share each batch; None for one.
    """

    logits: keras.Model
    train: ExampleSet | Views
    settings: Settings
    seed: int
    augment: Mapping[str, Any] | None = None
    factors: Mapping[str, float] | None = None
    remat: bool = False
    devices: Devices | None = None

    @property
    def multi_label(self) -> bool:
        """Each example has any number of labels."""
        return self.train.labels.ndim == 2

    def batches(self, **more: Any) -> Any:
        """Give batches of the training examples, in random order; `more` goes to `data.batches`."""
        return batches(
            self.train,
            self.settings.batch_size,
            shuffle=True,
            seed=self.seed,
            augment=self.augment,
            balanced=self.settings.balanced,
            classes=self.logits.output.shape[-1],
            **more,
        )


def fit(
    learner: Learner,
    val: ExampleSet,
    phase: str,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    before: History | None = None,
    until: int | None = None,
    checkpointing: Checkpointing | None = None,
) -> History:
    """Train a phase, or what is left of it; the arguments are those of `full.fit_full`."""
    check(learner.devices, learner.settings.gradient_accumulation_steps, learner.logits if learner.remat else None)
    before = None if before is None else History(hosts.share(before.epochs))
    initial = variables.values(learner.logits.variables)
    state, batch = _checkpoint(checkpointing, learner.settings)
    learner = learner._replace(settings=learner.settings._replace(**batch))  # may be smaller than what was asked for
    while True:
        size = learner.settings.batch_size
        try:
            with spread(learner.logits, learner.devices, (len(learner.train), len(val)), size, learner.remat) as copy:
                return phases.fit(
                    copy,
                    _training_data(learner),
                    _validation(learner, val),
                    _phase(learner, phase),
                    callbacks=callbacks,
                    before=before,
                    until=until,
                    checkpointing=checkpointing,
                    interrupted=state and ResumePoint(state, batch.get("batch_size", size) // size),
                )
        except Exception as error:
            if hosts.is_lost(error):
                raise Unavailable(hosts.LOST) from error
            learner = learner._replace(settings=_smaller(learner.settings, phase, error, learner.devices))
        memory.release()
        variables.assign(learner.logits.variables, initial)
        state, batch = _checkpoint(checkpointing, learner.settings)  # without one it starts anew


def _checkpoint(
    checkpointing: Checkpointing | None, settings: Settings
) -> tuple[checkpoints.State | None, dict[str, Any]]:
    """Read the checkpoint if there is one: where the phase stands, and its batch."""
    if checkpointing and checkpoints.exists(checkpointing.path):
        return checkpoints.load(checkpointing.path, settings._asdict())
    return None, {}


def _phase(learner: Learner, name: str) -> Phase:
    steps = math.ceil(len(learner.train.labels) / learner.settings.batch_size)
    return Phase(name, learner.settings, steps, learner.factors, learner.multi_label, learner.seed)


def _validation(learner: Learner, val: ExampleSet) -> Validation:
    size, devices = learner.settings.batch_size, learner.devices
    plain = batches(val, size)
    return Validation(batches(val, size, rows=devices.rows(size)) if devices else plain, val.labels, plain)


def _training_data(learner: Learner) -> phases.TrainingData:
    endless = keras.backend.backend() == "tensorflow"
    steps = math.ceil(len(learner.train.labels) / learner.settings.batch_size)

    def from_step(epoch: int, step: int) -> dict[str, Any]:
        rows = learner.devices and learner.devices.rows(learner.settings.batch_size)
        x = learner.batches(first_epoch=epoch, first_step=step, endless=endless, rows=rows)
        return {"x": x, "steps_per_epoch": steps - step if endless else None}

    return from_step


def range_test(learner: Learner, **more: Any) -> finder.RangeTest:
    """Test learning rates; the model is left as it was. `more` goes to `finder.range_test`."""
    logits = memory.remat(learner.logits) if learner.remat else learner.logits
    while True:
        compiled(logits, learner.settings, 1e-3, learner.factors, learner.multi_label)
        try:
            with readable_errors():
                return finder.range_test(logits, learner.batches(), **more)
        except Exception as error:
            learner = learner._replace(settings=_smaller(learner.settings, "learning rates", error))
        memory.release()  # after the error is gone, which holds what it ran out of memory with


def _smaller(settings: Settings, work: str, error: Exception, devices: Devices | None = None) -> Settings:
    """Halve the batch and double the accumulation if memory has run out; raise any other error.

    An odd batch is divided by three, five and so on, so that a step and a checkpoint consist of whole batches.
    """
    if not memory.is_exhausted(error):
        raise error
    if settings.batch_size == 1:
        raise Unavailable(f"{work}: {memory.NOTHING_FITS}") from error
    fixed = devices is not None and keras.backend.backend() == "tensorflow"  # see `devices.check`
    if fixed or hosts.count() > 1:  # one process cannot tell the others
        size = settings.batch_size
        raise Unavailable(f"{work}: a batch of {size} does not fit into memory: give a smaller batch_size") from error
    times = next(factor for factor in range(2, settings.batch_size + 1) if settings.batch_size % factor == 0)
    part, steps = settings.batch_size // times, settings.gradient_accumulation_steps * times
    say(f"{work}: a batch of {settings.batch_size} does not fit into memory: {part} at a time, {steps} times a step")
    return settings._replace(batch_size=part, gradient_accumulation_steps=steps)
