"""Phases of training: a head on the features of a frozen backbone, then the whole network, slowly."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from tlkit import checkpoints, finder, losses, memory, optimizers, runtime, schedules
from tlkit.data import Photos, View, batches, readable_errors
from tlkit.data.graph import Graph
from tlkit.errors import InvalidInput
from tlkit.progress import CLEAR, duration

COLUMNS = {"loss": 9, "accuracy": 10, "val_loss": 10, "val_accuracy": 14}  # of the progress table, and their widths


class Settings(NamedTuple):
    """How one phase learns; the fields are those of `config.Head` and of the recipe around it.

    Args:
        epochs: Most passes over the training photos.
        learning_rate: Largest rate.
        warmup: Share of the steps in which the rate rises from zero.
        patience: Epochs without a lower validation loss after which the phase ends.
        batch_size: Photos in a step.
        label_smoothing: Share of the label spread over all classes.
        weight_decay: Decoupled decay, times the rate; not on biases and normalization.
        steady: Whether the rate stays what it is, without warm-up and schedule.
        layer_decay: Factor by which each stage learns more slowly than the one above it, in `fit_full`; see
            `optimizers.stage_factors`.
        schedule: Of the rate; see `schedules.build`.
        optimizer: A name of keras.optimizers; see `optimizers.build`.
        focal_gamma: Of the focal loss; see `losses.crossentropy`.
        class_weights: Of each class in the loss.
        balanced: Whether classes are drawn alike often; see `data.batches`.
        global_clipnorm: Largest norm of the gradient.
        gradient_accumulation_steps: Batches whose gradients make one step.
        ema_momentum: Of the moving average of the weights, with which the model is validated and left.
        learning_rates: Of stages, by their names, in place of `layer_decay`.
        remat: Whether activations are computed anew in the backward pass of `fit_full`, in place of being kept.
    """

    epochs: int
    learning_rate: float
    warmup: float = 0.1
    patience: int = 5
    batch_size: int = 32
    label_smoothing: float = 0.0
    weight_decay: float = 0.0
    steady: bool = False
    layer_decay: float = 1.0
    schedule: str = "cosine"
    optimizer: str = "adamw"
    focal_gamma: float = 0.0
    class_weights: list[float] | None = None
    balanced: bool = False
    global_clipnorm: float | None = None
    gradient_accumulation_steps: int = 1
    ema_momentum: float | None = None
    learning_rates: dict[str, float] | None = None
    remat: bool = False


class History(NamedTuple):
    """What happened in each epoch: Keras' logs, with the global `epoch` (from 1), its `phase` and its `seconds`."""

    epochs: list[dict[str, Any]]

    @property
    def best(self) -> dict[str, Any]:
        """The epoch of the lowest validation loss, whose weights the model has."""
        return min(self.epochs, key=lambda epoch: (math.isnan(epoch["val_loss"]), epoch["val_loss"]))

    @property
    def seconds(self) -> float:
        """Seconds of training, all phases."""
        return sum(epoch["seconds"] for epoch in self.epochs)


class Keeping(NamedTuple):
    """Where a phase's state is kept, so that it can go on.

    Args:
        path: Of the file: the phase goes on from it where it exists, then in place of what came before.
        on_the_way: Whether it is written in the middle of epochs too, every ten seconds or more, so that little is lost
            when the process is killed. A first interrupt then waits for the step that is under way.
    """

    path: Path
    on_the_way: bool = False


def fit_head(
    model: keras.Model,
    train: Any,
    val: Any,
    settings: Settings,
    *,
    seed: int = 0,
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
        keeping: See `fit_full`.
        callbacks: Keras callbacks.

    Returns:
        One entry an epoch; the model has the weights of the best one.
    """
    logits = _head_of(model, train)
    return _fit_batches(logits, train, val, settings, phase="head", seed=seed, keeping=keeping, callbacks=callbacks)


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

    Where a batch does not fit into memory, it is halved, and as many more make a step.

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
            settings and seed, a phase that goes on gives what it would have given in one go. A phase that has ended for
            lack of patience stays so.
        phase: Its name.
        callbacks: Keras callbacks.

    Returns:
        All epochs, those of `before` too; the model has the weights of the best one.

    Raises:
        InvalidInput: `until` is below 1, or the checkpoint is damaged, or of another model or other settings, or the
            loss became nan before there were weights to fall back on.
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
    return _fit(
        chosen,
        lambda *_: {"x": train[0], "y": train[1], "batch_size": 1},
        val,
        steps=1,
        phase="full",
        settings=settings,
        callbacks=callbacks,
    )


def predict(
    model: keras.Model,
    photos: Photos,
    batch_size: int = 32,
    *,
    views: int = 0,
    augment: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Give the model's outputs for the photos, such as probabilities of shape (photos, classes).

    Args:
        model: From raw pixels.
        photos: What it looks at.
        batch_size: Photos in a step.
        views: Look at so many changed views of each photo too, and give the mean over these and the photo as it is.
        augment: How they are changed: arguments of `data.augment`.
        seed: Of the changes.
    """
    seen: list[Any] = [photos, *(View(photos, augment or {}, seed, number) for number in range(views))]
    with readable_errors():
        outputs = [model.predict(batches(part, batch_size, labels=False), verbose=0) for part in seen]
    return outputs[0] if views == 0 else np.mean(outputs, axis=0)


HEAD_STEPS = 150  # of a head before the rates of the whole network are tested


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
    """Train a new head for some steps and no more: at its best, the loss falls at no rate of the whole network.

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
    compiled(logits, settings, 1e-3, factors, train.labels.ndim == 2)
    given = batches(train, settings.batch_size, **_given(logits, settings, seed, augment))
    with readable_errors():
        return finder.range_test(logits, given, **more)


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
    return keras.Model(model.inputs, model.get_layer("head").output) if whole else model


def compiled(
    logits: keras.Model,
    settings: Settings,
    rate: Any,
    factors: Mapping[str, float] | None = None,
    multi_label: bool = False,
) -> None:
    """Compile a model that ends in logits for a phase.

    Args:
        logits: The model.
        settings: Of the phase.
        rate: The learning rate, or its schedule.
        factors: Of the rate, by the variable's path; see `optimizers.stage_factors`.
        multi_label: Whether each example has any number of labels.
    """
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
    given = _given(logits, settings, seed, augment)
    begun = _values(logits.variables)
    keeping = more.get("keeping")
    if keeping and checkpoints.exists(keeping.path):  # with a batch that is smaller than what was asked for
        settings = settings._replace(**checkpoints.load(keeping.path, settings._asdict())[1])

    def fit(settings: Settings) -> History:
        return _fit(
            logits,
            lambda epoch, step: {"x": batches(train, settings.batch_size, first_epoch=epoch, first_step=step, **given)},
            batches(val, settings.batch_size),
            steps=math.ceil(len(train.labels) / settings.batch_size),
            phase=phase,
            settings=settings,
            multi_label=train.labels.ndim == 2,
            seed=seed,
            **more,
        )

    while True:
        try:
            return fit(settings)
        except Exception as error:
            if not memory.is_exhausted(error) or settings.batch_size == 1:
                raise
        half, more_steps = settings.batch_size // 2, settings.gradient_accumulation_steps * 2
        said = f"a batch of {settings.batch_size} does not fit into memory: {half} at a time, {more_steps} times a step"
        print(f"{phase}: {said}", flush=True)
        settings = settings._replace(batch_size=half, gradient_accumulation_steps=more_steps)
        memory.release()
        _assign(logits.variables, begun)
        if keeping:
            checkpoints.delete(keeping.path)


def _fit(
    logits: keras.Model,
    train: Callable[[int, int], dict[str, Any]],
    val: Any,
    *,
    steps: int,
    phase: str,
    settings: Settings,
    callbacks: Sequence[Any],
    before: History | None = None,
    factors: Mapping[str, float] | None = None,
    until: int | None = None,
    keeping: Keeping | None = None,
    multi_label: bool = False,
    seed: int = 0,
) -> History:
    """Train a phase, or what is left of it.

    Args:
        logits: What is trained.
        train: Gives the arguments of `fit` that hold the training data, from an epoch and a step of it on.
        val: The validation data, as `fit` takes it.
        steps: Batches in an epoch.
        phase: Its name.
        settings: Of the phase.
        callbacks: Keras callbacks.
        before: The epochs of the phase before.
        factors: Of the learning rate, by the variable's path.
        until: Epochs of the phase after which it stops for now.
        keeping: Where its state is kept.
        multi_label: Whether each example has any number of labels.
        seed: Of dropout on PyTorch.
    """
    state = None
    if keeping and checkpoints.exists(keeping.path):
        state, _ = checkpoints.load(keeping.path, settings._asdict())
    updates = max(1, settings.epochs * steps // settings.gradient_accumulation_steps)
    rate: Any = settings.learning_rate
    if not settings.steady:
        rate = schedules.build(settings.schedule, settings.learning_rate, updates, settings.warmup)
    compiled(logits, settings, rate, factors, multi_label)
    if settings.ema_momentum:  # from the weights as they are: Keras begins with zeros
        logits.optimizer.build(logits.trainable_variables)
        _assign(optimizers.averages(logits.optimizer), _values(logits.trainable_variables))
    history = History(list(state.epochs if state else before.epochs if before else []))
    first = state.before if state else len(history.epochs)
    best = _BestEpoch(settings, logits, history.best["val_loss"] if history.epochs else math.inf)
    keeper = _Keeper(keeping, history, first, settings, best, steps)
    if state and keeping:
        _restore(state, logits, best, keeping.path)
    last = first + min(until or settings.epochs, settings.epochs)
    done, step = len(history.epochs) - first, state.step if state else 0
    record = _Record(history, phase, state.seconds if state else 0.0)
    table = _Progress(history, phase, first, last - first, steps, step)
    average = [_Average()] if settings.ema_momentum else []
    draws = [_Draws(seed, phase, state)] if keras.backend.backend() == "torch" else []
    watching = [_Guard(), record, *average, best, table, *callbacks, *draws, keeper]
    if not best.ended and len(history.epochs) < last:
        keeper.state = state
        with readable_errors(), keeper.interruptible():
            try:
                if not isinstance(val, tuple) and (step or steps == 1):
                    # On TensorFlow the metrics, which are to be restored, come to be in the first step; elsewhere Keras
                    # takes a first look at the data, which batches cannot tell from an epoch where there is but one.
                    logits.test_on_batch(*next(iter(val)))
                if step:  # an epoch by itself, because its first batches are left out
                    _epochs(logits, train(done, step), val, first + done, first + done + 1, watching)
                    done += 1
                if not best.ended and first + done < last:
                    _epochs(logits, train(done, 0), val, first + done, last, watching)
            except _Diverged as error:
                best.ended = True
                _tell_diverged(error, history, phase, settings)
            if _good(history):
                keeper.keep()
        if keeper.asked.is_set():  # too late for any callback
            raise KeyboardInterrupt
    logits.set_weights(best.weights)
    if not _good(history):
        if keeping:
            checkpoints.delete(keeping.path)  # there is nothing to go on with
        raise InvalidInput(f"the loss became nan in phase {phase}: {_advice(phase, settings)}")
    return history


def _good(history: History) -> bool:
    return bool(history.epochs) and not math.isnan(history.best["val_loss"])


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


def _advice(phase: str, settings: Settings) -> str:
    phase = "head" if phase == "head" else "full"
    return (
        f"lower --{phase}.learning_rate (it is {settings.learning_rate:g}), or give --global_clipnorm 1 or "
        "--precision float32"
    )


def _tell_diverged(error: _Diverged, history: History, phase: str, settings: Settings) -> None:
    if not history.epochs:
        return  # `_fit` raises
    kept = f"the weights of epoch {history.best['epoch']} are kept"
    print(f"{phase}: {error}; {kept}. {_advice(phase, settings).capitalize()}", file=sys.stderr, flush=True)


def _restore(state: checkpoints.State, model: keras.Model, best: _BestEpoch, path: Path) -> None:
    """Put the model, its optimizer, and what is known of the best epoch where they were."""
    model.optimizer.build(model.trainable_variables)
    variables = {"last": model.variables, "optimizer": model.optimizer.variables, "best": model.weights}
    checkpoints.fits(path, state, {name: [tuple(v.shape) for v in values] for name, values in variables.items()})
    for name in ("last", "optimizer"):
        _assign(variables[name], state.arrays[name])
    best.weights, best.waited, best.ended = state.arrays["best"], state.waited, state.ended


def _assign(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _values(variables: Sequence[Any]) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


class _Diverged(Exception):
    """The loss is no number any more."""


class _Guard(keras.callbacks.Callback):
    """Ends training at the first loss that is no number, before the next step.

    It comes first, and looks at each loss in a thread of Keras: on JAX the next step need not wait for it.
    """

    async_safe = True
    seen: str | None = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            self.seen = self.seen or f"the loss became {loss} in step {batch + 1} of epoch {self.epoch + 1}"

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.seen:
            raise _Diverged(self.seen)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.seen:
            raise _Diverged(self.seen)


class _Record(keras.callbacks.Callback):
    """Keeps Keras' logs with their phase and seconds, and adds the learning rate for the callbacks after it too."""

    def __init__(self, history: History, phase: str, spent: float):
        super().__init__()
        self.history, self.phase, self.spent = history, phase, spent

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        seconds, self.spent = self.spent + time.perf_counter() - self.started, 0.0
        logs = {} if logs is None else logs  # in place, as Keras' own LearningRateScheduler does
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        values = {name: float(value) for name, value in logs.items()}
        self.history.epochs.append({"epoch": epoch + 1, "phase": self.phase, **values, "seconds": seconds})


class _BestEpoch(keras.callbacks.Callback):
    """Stops when the validation loss no longer falls, and keeps the best weights; `_fit` puts them back.

    Keras' EarlyStopping cannot start from the loss of an earlier phase: it would keep this phase's best epoch even
    where it is worse than what the phase began with.
    """

    def __init__(self, settings: Settings, model: keras.Model, best_loss: float):
        super().__init__()
        self.patience, self.averaged, self.best_loss = settings.patience, bool(settings.ema_momentum), best_loss
        self.weights: list[np.ndarray] = model.get_weights()
        self.waited, self.ended = 0, False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        loss = (logs or {})["val_loss"]
        if math.isnan(loss):
            self.model.stop_training = self.ended = True  # it stays nan
            return
        if loss < self.best_loss:
            self.best_loss, self.waited = loss, 0
            self.weights = _averaged_weights(self.model) if self.averaged else self.model.get_weights()
            return
        self.waited += 1
        self.model.stop_training = self.ended = self.waited >= self.patience


def _averaged_weights(model: keras.Model) -> list[np.ndarray]:
    """The model's weights, those that are trained in their moving average."""
    averages = {id(v): a for v, a in zip(model.trainable_weights, optimizers.averages(model.optimizer), strict=True)}
    return _values([averages.get(id(variable), variable) for variable in model.weights])


class _Average(keras.callbacks.Callback):
    """Validates the moving average of the weights, and puts the weights back to train on."""

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        model = self.model
        self.kept = _values(model.trainable_weights)
        _assign(model.trainable_weights, _values(optimizers.averages(model.optimizer)))

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        _assign(self.model.trainable_weights, self.kept)


class _Draws(keras.callbacks.Callback):
    """Seeds PyTorch's generators, which Keras draws dropout from, in each epoch, or puts them where they were in it.

    On other backends variables of the model have all of it. Not sooner than at the first batch: that the data begin
    has drawn from them too.
    """

    def __init__(self, seed: int, phase: str, state: checkpoints.State | None):
        super().__init__()
        self.seed, self.phase, self.state, self.fresh = seed, phase, state, True

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch, self.fresh = epoch, True

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if not self.fresh:
            return
        if self.state and self.state.step:
            checkpoints.set_generators(self.state.arrays["generators"])
        else:
            checkpoints.seed_generators(f"{self.seed} {self.phase} {self.epoch}")
        self.fresh, self.state = False, None


class _Keeper(keras.callbacks.Callback):
    """Writes where the phase stands: at its end, and on the way if so wanted, before a step or after an epoch.

    It comes last: what an epoch gave must be logged before it counts as done. Nothing is done after a step, for which
    Keras on JAX would have to wait for the step's numbers.
    """

    def __init__(
        self,
        keeping: Keeping | None,
        history: History,
        first: int,
        settings: Settings,
        best: _BestEpoch,
        steps: int,
    ):
        super().__init__()
        self.keeping, self.history, self.first, self.settings, self.best = keeping, history, first, settings, best
        self.steps = steps
        self.latest: checkpoints.State | None = None  # before the last batch of the epoch, for while it is validated
        self.on_the_way = keeping is not None and keeping.on_the_way
        self.due = time.perf_counter() + checkpoints.SECONDS
        self.asked = threading.Event()
        self.warned = False
        self.state: checkpoints.State | None = None  # from which the next call of `fit` goes on

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.started, self.offset, self.spent = time.perf_counter(), 0, 0.0
        if self.state and self.state.step:
            self.offset, self.spent = self.state.step, self.state.seconds
            _assign(self.model.metrics_variables, self.state.arrays["metrics"])
        self.state = None

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        asked = self.asked.is_set()
        step = self.offset + batch
        if self.on_the_way and (asked or (batch and time.perf_counter() >= self.due)):
            self.keep(step)
        if asked:
            raise KeyboardInterrupt
        if self.on_the_way and step == self.steps - 1:
            with contextlib.suppress(MemoryError):
                self.latest = self._state(step)

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.asked.is_set():
            if self.latest:
                self._write(self.latest)
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.latest = None
        if self.on_the_way and (self.asked.is_set() or time.perf_counter() >= self.due):
            self.keep()
        if self.asked.is_set():
            raise KeyboardInterrupt

    def keep(self, step: int = 0) -> None:
        """Write the state, after `step` batches of the epoch under way or, at 0, between epochs."""
        if self.keeping:
            self._write(step)

    def _state(self, step: int) -> checkpoints.State:
        model, best = self.model, self.best
        arrays = {"last": _values(model.variables), "optimizer": _values(model.optimizer.variables)}
        arrays["best"] = best.weights
        arrays["metrics"] = _values(model.metrics_variables) if step else []
        arrays["generators"] = checkpoints.generators() if step else []
        spent = self.spent + time.perf_counter() - self.started if step else 0.0
        return checkpoints.State(list(self.history.epochs), self.first, best.waited, best.ended, step, spent, arrays)

    def _write(self, what: int | checkpoints.State) -> None:
        assert self.keeping is not None  # noqa: S101  # else nothing is kept
        began = time.perf_counter()
        try:
            state = self._state(what) if isinstance(what, int) else what
            checkpoints.save(self.keeping.path, state, self.settings._asdict(), rotate=self.on_the_way)
        except (OSError, MemoryError) as error:
            if not self.on_the_way:
                raise
            if not self.warned:
                print(f"no checkpoint could be written: {error}; training goes on", file=sys.stderr, flush=True)
            self.warned = True
        now = time.perf_counter()
        self.due = now + checkpoints.pause(now - began)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a first Ctrl-C, or SIGTERM, wait for the step under way and for the state to be written."""
        if not self.on_the_way or threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(*_: object) -> None:
            if self.asked.is_set():
                raise KeyboardInterrupt
            self.asked.set()

        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        handlers = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}
        for number in handlers:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


class _Progress(keras.callbacks.Callback):
    """Prints a row an epoch with the time left in the phase, and on a terminal the step within the epoch."""

    def __init__(self, history: History, phase: str, first: int, epochs: int, steps: int, step: int):
        super().__init__()
        self.history, self.phase, self.first, self.epochs, self.steps = history, phase, first, epochs, steps
        self.offset = step  # of the first epoch
        self.live, self.headed = sys.stdout.isatty(), False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self.headed:
            print(f"\n{'epoch':>14}" + "".join(f"{name:>{width}}" for name, width in COLUMNS.items()) + "  time left")
        self.headed = True

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.started = self.shown = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        now = time.perf_counter()
        if not self.live or not batch or now - self.shown < 0.5:
            return
        self.shown, done = now, self.offset + batch
        left = (now - self.started) / batch * (self.steps - done)
        print(f"{CLEAR}{self.phase}  step {done}/{self.steps}, {duration(left)} left in epoch", end="", flush=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.offset = 0
        last, done = self.history.epochs[-1], epoch + 1 - self.first
        recent = [entry["seconds"] for entry in self.history.epochs[-done:]]
        left = float(np.median(recent)) * (self.epochs - done)
        numbers = "".join(
            f"{last[name]:>{width}.{'4f' if last[name] < 1e4 else '3g'}}" for name, width in COLUMNS.items()
        )
        number = f"{done}/{self.epochs}"
        print(f"{CLEAR if self.live else ''}{self.phase:<5}{number:>9}{numbers}  {duration(left)}", flush=True)
