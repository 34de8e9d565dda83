"""What is trained on what: a head on the features of a frozen backbone, then the whole network, slowly."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tlkit import autolog, backbones, probes
from tlkit.data import batches, readable_errors
from tlkit.data.graph import Graph
from tlkit.display import say
from tlkit.errors import InvalidInput, Unavailable
from tlkit.training import checkpoints, finder, memory, optimizers, phases, variables
from tlkit.training.phases import History, Keeping, Settings, compiled

__all__ = [
    "History", "Keeping", "Settings", "compiled", "fit_full", "fit_graph", "fit_head", "predict", "range_test_full",
    "range_test_head", "solve_head", "to_logits", "train_head_a_little",
]  # fmt: skip


def solve_head(
    model: keras.Model,
    train: Any,
    val: Any,
    settings: Settings,
    *,
    seed: int = 0,
    callbacks: Sequence[Any] = (),
) -> History:
    """Solve the head of `backbones.classifier`'s model: logistic regression on features of the frozen backbone.

    Fine-tuning that begins with such a head changes good features less (Kumar et al. 2022, arXiv:2202.10054).

    Args:
        model: From raw pixels to probabilities, one of which is right.
        train: The training photos' pooled features, `tlkit.features.Features`.
        val: The same of the validation photos.
        settings: Of the phase that follows, whose loss is given.
        seed: Of the cross-validation that chooses the regularization.
        callbacks: Keras callbacks, which are told of one epoch.

    Returns:
        That one, without a learning rate.

    Raises:
        InvalidInput: see `probes.logistic_regression`.
    """
    began = time.perf_counter()
    logits = _head_of(model, train)
    classes = logits.output.shape[-1]
    probe = probes.logistic_regression(train.array(), train.labels, classes, groups=train.hashes, seed=seed)
    backbones.set_head(model, probe.kernel, probe.bias)
    compiled(logits, settings, settings.learning_rate)
    parts = {"": train, "val_": val}
    values = {
        f"{prefix}{name}": float(value)
        for prefix, part in parts.items()
        for name, value in logits.evaluate(batches(part, 256), verbose=0, return_dict=True).items()
    }
    found = f"validation loss {values['val_loss']:.4f}, accuracy {values['val_accuracy']:.4f}"
    say(f"head: solved by logistic regression, l2 {probe.l2:.2g}; {found}")
    keras.callbacks.CallbackList(list(callbacks), model=logits).on_epoch_end(0, values)
    return History([{"epoch": 1, "phase": "head", **values, "seconds": time.perf_counter() - began}])


def fit_head(
    model: keras.Model,
    train: Any,
    val: Any,
    settings: Settings,
    *,
    seed: int = 0,
    before: History | None = None,
    keeping: Keeping | None = None,
    callbacks: Sequence[Any] = (),
) -> History:
    """Train the head of `backbones.classifier`'s model on features of the frozen backbone.

    It gives what passing the photos through the frozen backbone in each epoch would give, because nothing below the
    head is random.

    Args:
        model: From raw pixels to probabilities.
        train: The training photos' pooled features, `tlkit.features.Features`.
        val: The same of the validation photos.
        settings: Of the phase.
        seed: Of the order of the features.
        before: What `solve_head` gave; the model keeps its weights unless this phase finds better ones.
        keeping: See `fit_full`.
        callbacks: Keras callbacks.

    Returns:
        One entry an epoch, that of `before` too; the model has the weights of the best one.
    """
    logits = _head_of(model, train)
    return _fit_batches(
        logits, train, val, settings, phase="head", seed=seed, before=before, keeping=keeping, callbacks=callbacks
    )


def fit_full(
    model: keras.Model,
    train: Any,
    val: Any,
    settings: Settings,
    *,
    seed: int = 0,
    augment: dict[str, Any] | None = None,
    before: History | None = None,
    stages: Mapping[str, str] | None = None,
    until: int | None = None,
    keeping: Keeping | None = None,
    phase: str = "full",
    callbacks: Sequence[Any] = (),
) -> History:
    """Train whatever is trainable of `backbones.classifier`'s model on the photos themselves.

    Where a batch does not fit into memory, it is halved, and as many more make a step; from the last checkpoint on,
    where there is one.

    Args:
        model: From raw pixels to probabilities, or the upper of the two that `backbones.split` makes of it.
        train: The training photos, augmented anew in each epoch, or `data.Views` of them; or what the lower model gives
            for these.
        val: The validation photos, never augmented; or the same of them.
        settings: Of the phase.
        seed: Of the order of the photos and of the augmentation.
        augment: What `data.batches` takes, or None.
        before: The epochs of the phase before; the model keeps its weights unless this phase finds better ones.
        stages: For rates that differ by stage; see `optimizers.stage_factors`.
        until: Stop after so many of the phase's epochs, those that a checkpoint holds included; the learning rate's
            schedule stays that of all `settings.epochs`.
        keeping: Where its state is kept at the end, and on the way if so wanted. On one machine and with the same data,
            settings and seed, a phase that goes on gives what it would have given in one go, on a GPU up to rounding. A
            phase that has ended for lack of patience stays so.
        phase: Its name.
        callbacks: Keras callbacks.

    Returns:
        All epochs, those of `before` too; the model has the weights of the best one.

    Raises:
        InvalidInput: `until` is below 1, or the checkpoint is damaged, or of another model or other settings, or the
            loss became nan or infinite before there were weights to fall back on.
        Unavailable: not even a batch of 1 fits into memory.
        KeyboardInterrupt: the process is asked to end, after the state was written.
    """
    if until is not None and until < 1:
        raise InvalidInput(f"until is {until}: 1 or more epochs of the phase")
    logits, factors = _learner(model, settings, stages)
    return _fit_batches(
        logits,
        train,
        val,
        settings,
        phase=phase,
        seed=seed,
        augment=augment,
        before=before,
        factors=factors,
        until=until,
        keeping=keeping,
        callbacks=callbacks,
    )


def fit_graph(model: keras.Model, graph: Graph, settings: Settings, callbacks: Sequence[Any] = ()) -> History:
    """Train a model of `builders.gcn` on the known nodes of a graph; an epoch is one step on the whole of it.

    Its penalties on weights are part of both losses, as in Kipf and Welling's own code.

    Returns:
        One entry an epoch; the model has the weights of the best one.
    """
    nodes = keras.Input((None,), dtype="int32", name="nodes")
    logits = keras.ops.take(model.get_layer("head").output[0], nodes[0], axis=0)  # of these nodes alone: no mask
    chosen = keras.Model([*model.inputs, nodes], keras.ops.expand_dims(logits, 0))
    train, val = (
        ([graph.features[None], graph.edges[None], part[None]], graph.labels[part][None])
        for part in (graph.train, graph.val)
    )
    return phases.fit(
        chosen,
        lambda *_: {"x": train[0], "y": train[1], "batch_size": 1},
        val,
        steps=1,
        phase="full",
        settings=settings,
        callbacks=callbacks,
    )


def predict(model: keras.Model, photos: Any, batch_size: int = 32) -> np.ndarray:
    """Give the model's outputs for the photos, such as probabilities of shape (photos, classes).

    Args:
        model: From raw pixels.
        photos: What it looks at: `data.Photos`, or a `data.View` of them.
        batch_size: Photos in a step.
    """
    with readable_errors():
        return model.predict(batches(photos, batch_size, labels=False), verbose=0)


HEAD_STEPS = 15  # of a head before the rates of the whole network are tested; after 30 the loss hardly falls any more


def range_test_head(
    model: keras.Model, train: Any, settings: Settings, *, seed: int = 0, **more: Any
) -> finder.RangeTest:
    """Test learning rates of `fit_head`; the model is left as it was.

    Args:
        model: From raw pixels to probabilities.
        train: The training photos' pooled features.
        settings: Of the phase, the rate aside.
        seed: Of the order of the features.
        more: See `finder.range_test`.
    """
    return _range_test(_head_of(model, train), train, settings, None, seed, None, more)


def range_test_full(
    model: keras.Model,
    train: Any,
    settings: Settings,
    *,
    seed: int = 0,
    augment: dict[str, Any] | None = None,
    stages: Mapping[str, str] | None = None,
    **more: Any,
) -> finder.RangeTest:
    """Test learning rates of `fit_full`; the model is left as it was. Call `train_head_a_little` before.

    Args:
        model: From raw pixels to probabilities.
        train: The training photos.
        settings: Of the phase, the rate aside.
        seed: Of the order of the photos and of the augmentation.
        augment: See `fit_full`.
        stages: See `fit_full`.
        more: See `finder.range_test`.
    """
    logits, factors = _learner(model, settings, stages)
    return _range_test(logits, train, settings, factors, seed, augment, more)


def train_head_a_little(model: keras.Model, train: Any, settings: Settings, seed: int = 0) -> None:
    """Train a new head for a few steps and no more: once it is good, the loss falls at no rate of the whole network.

    Args:
        model: From raw pixels to probabilities.
        train: The training photos' pooled features.
        settings: Of phase head.
        seed: Of the order of the features.
    """
    logits = _head_of(model, train)
    compiled(logits, settings, settings.learning_rate, multi_label=train.labels.ndim == 2)
    given = batches(train, settings.batch_size, shuffle=True, seed=seed)
    epochs, steps = math.ceil(HEAD_STEPS * settings.batch_size / len(train)), None
    if epochs == 1:
        steps = min(HEAD_STEPS, math.ceil(len(train) / settings.batch_size))
    with autolog.suspended():
        logits.fit(given, epochs=epochs, steps_per_epoch=steps, shuffle=False, verbose=0)


def _range_test(
    logits: keras.Model,
    train: Any,
    settings: Settings,
    factors: Mapping[str, float] | None,
    seed: int,
    augment: dict[str, Any] | None,
    more: dict[str, Any],
) -> finder.RangeTest:
    while True:
        compiled(logits, settings, 1e-3, factors, train.labels.ndim == 2)
        given = batches(train, settings.batch_size, **_given(logits, settings, seed, augment))
        try:
            with readable_errors():
                return finder.range_test(logits, given, **more)
        except Exception as error:
            settings = _smaller(settings, "learning rates", error)
        memory.release()  # once the error has gone, which holds all that it ran out with


def _smaller(settings: Settings, work: str, error: Exception) -> Settings:
    """Half the batch, and twice as many for a step, where an error says that memory has run out; else it is raised.

    Of an odd one it is a third, a fifth ..., so that a step and a checkpoint in an epoch are of whole batches.
    """
    if not memory.is_exhausted(error):
        raise error
    if settings.batch_size == 1:
        raise Unavailable(f"{work}: {memory.NOTHING_FITS}") from error
    times = next(factor for factor in range(2, settings.batch_size + 1) if settings.batch_size % factor == 0)
    part, steps = settings.batch_size // times, settings.gradient_accumulation_steps * times
    said = f"a batch of {settings.batch_size} does not fit into memory: {part} at a time, {steps} times a step"
    say(f"{work}: {said}")
    return settings._replace(batch_size=part, gradient_accumulation_steps=steps)


def _given(logits: keras.Model, settings: Settings, seed: int, augment: dict[str, Any] | None) -> dict[str, Any]:
    """How training examples are given, of `data.batches`."""
    classes = logits.output.shape[-1]
    return {"shuffle": True, "seed": seed, "augment": augment, "balanced": settings.balanced, "classes": classes}


def _head_of(model: keras.Model, features: Any) -> keras.Model:
    """The head alone, from pooled features to logits."""
    inputs = keras.Input(features.shape)
    return keras.Model(inputs, model.get_layer("head")(model.get_layer("dropout")(inputs)))


def _learner(
    model: keras.Model, settings: Settings, stages: Mapping[str, str] | None
) -> tuple[keras.Model, dict[str, float] | None]:
    """What learns in `fit_full`, and the factors of its variables' rates."""
    logits, factors = to_logits(model), None
    if settings.learning_rates:
        by_name = {stage: rate / settings.learning_rate for stage, rate in settings.learning_rates.items()}
        factors = optimizers.stage_factors(logits, 1.0, stages, by_name)
    elif settings.layer_decay != 1:
        factors = optimizers.stage_factors(logits, settings.layer_decay, stages)
    return memory.remat(logits) if settings.remat else logits, factors


def to_logits(model: keras.Model) -> keras.Model:
    """Leave out what a model has behind its head; the layers are shared."""
    whole = model.layers[-1].name != "head"
    return keras.Model(model.input, model.get_layer("head").output) if whole else model


def _fit_batches(
    logits: keras.Model,
    train: Any,
    val: Any,
    settings: Settings,
    *,
    phase: str,
    seed: int,
    augment: dict[str, Any] | None = None,
    **more: Any,
) -> History:
    """Train on batches, smaller ones where these do not fit into memory."""
    given, endless = _given(logits, settings, seed, augment), keras.backend.backend() == "tensorflow"
    begun = variables.values(logits.variables)
    keeping: Keeping | None = more.get("keeping")

    def kept() -> tuple[checkpoints.State | None, dict[str, Any]]:
        if keeping and checkpoints.exists(keeping.path):
            return checkpoints.load(keeping.path, settings._asdict())
        return None, {}

    state, split = kept()
    settings = settings._replace(**split)  # the batch may be smaller than what was asked for

    def fit(settings: Settings, state: checkpoints.State | None, split: dict[str, Any]) -> History:
        steps = math.ceil(len(train.labels) / settings.batch_size)

        def from_there(epoch: int, step: int) -> dict[str, Any]:
            x = batches(train, settings.batch_size, first_epoch=epoch, first_step=step, endless=endless, **given)
            return {"x": x, "steps_per_epoch": steps - step if endless else None}

        return phases.fit(
            logits,
            from_there,
            batches(val, settings.batch_size),
            steps=steps,
            phase=phase,
            settings=settings,
            state=state,
            times=split.get("batch_size", settings.batch_size) // settings.batch_size,
            multi_label=train.labels.ndim == 2,
            seed=seed,
            **more,
        )

    while True:
        try:
            return fit(settings, state, split)
        except Exception as error:
            settings = _smaller(settings, phase, error)
        memory.release()
        variables.assign(logits.variables, begun)
        state, split = kept()  # else from the beginning
