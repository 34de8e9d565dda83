"""Phases of training: a head on the features of a frozen backbone, then the whole network, slowly."""

from __future__ import annotations

import json
import math
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from tlkit import atomic, runtime
from tlkit.data import Photos, batches, readable_errors
from tlkit.data.graph import Graph
from tlkit.errors import InvalidInput
from tlkit.layers import is_stage
from tlkit.optimizers import LayerwiseAdamW
from tlkit.progress import CLEAR, duration

COLUMNS = {"loss": 9, "accuracy": 10, "val_loss": 10, "val_accuracy": 14}  # of the progress table, and their widths


class Settings(NamedTuple):
    """How one phase learns; the fields are those of `config.Head` and of the recipe around it.

    Args:
        epochs: Most passes over the training photos.
        learning_rate: Largest rate, reached after the warm-up, then lowered to zero along a cosine.
        warmup: Share of the steps in which the rate rises from zero.
        patience: Epochs without a lower validation loss after which the phase ends.
        batch_size: Photos in a step.
        label_smoothing: Share of the label spread over all classes.
        weight_decay: Decoupled decay (AdamW), times the rate; not on biases and normalization.
        steady: Whether the rate stays what it is, without warm-up and cosine.
        layer_decay: Factor by which each stage learns more slowly than the one above it, in `fit_full`; see
            `stage_factors`.
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


def fit_head(
    model: keras.Model, train: Any, val: Any, settings: Settings, *, seed: int = 0, callbacks: Sequence[Any] = ()
) -> History:
    """Train the head of `backbones.classifier`'s model on features of the frozen backbone.

    It gives what passing the photos through the frozen backbone in each epoch would give, because nothing below the
    head is random.

    Args:
        model: From raw pixels to probabilities.
        train: The training photos' pooled features, `tlkit.features.Features`.
        val: The same of the validation photos.
        settings: Of the phase.
        seed: Of the order of features that are too many to be held in memory.
        callbacks: Keras callbacks.

    Returns:
        One entry an epoch; the model has the weights of the best one.
    """
    inputs = keras.Input(train.shape)
    logits = keras.Model(inputs, model.get_layer("head")(model.get_layer("dropout")(inputs)))
    seen = [features.array() for features in (train, val)]
    given: dict[str, Any] = {"x": seen[0], "y": train.labels, "batch_size": settings.batch_size, "shuffle": True}
    validation: Any = (seen[1], val.labels)
    if not all(isinstance(values, np.ndarray) for values in seen):  # larger than is good to have in memory
        given = {"x": batches(train, settings.batch_size, shuffle=True, seed=seed), "shuffle": False}
        validation = batches(val, settings.batch_size)
    return _fit(
        logits,
        given,
        validation,
        steps=math.ceil(len(train) / settings.batch_size),
        phase="head",
        settings=settings,
        callbacks=callbacks,
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
    checkpoint: Path | None = None,
    callbacks: Sequence[Any] = (),
) -> History:
    """Train whatever is trainable of `backbones.classifier`'s model on the photos themselves.

    Args:
        model: From raw pixels to probabilities, or the upper of the two that `backbones.split` makes of it.
        train: The training photos, augmented anew in each epoch, or `data.Views` of them; or what the lower model gives
            for these.
        val: The validation photos, never augmented; or the same of them.
        settings: Of the phase.
        seed: Of the order of the photos and of the augmentation.
        augment: Arguments of `data.augment`, or None.
        before: The epochs of the phase before; the model keeps its weights unless this phase finds better ones.
        stages: Of `settings.layer_decay`; see `stage_factors`.
        until: Stop after so many of the phase's epochs, those that a checkpoint holds included; the learning rate's
            schedule stays that of all `settings.epochs`.
        checkpoint: File where the phase's state is kept: it goes on from the file where that exists, then in place of
            `before`, and writes its state there at the end. On one machine and with the same data, settings and seed,
            it gives what the phase would have given in one go. A phase that has ended for lack of patience stays so.
        callbacks: Keras callbacks.

    Returns:
        All epochs, those of `before` too; the model has the weights of the best one.

    Raises:
        InvalidInput: `until` is below 1, or the checkpoint is damaged, or of another model or other settings.
    """
    if until is not None and until < 1:
        raise InvalidInput(f"until is {until}: 1 or more epochs of the phase")
    state = _load(checkpoint, settings) if checkpoint and checkpoint.exists() else None
    whole = model.layers[-1].name != "head"
    logits = keras.Model(model.inputs, model.get_layer("head").output) if whole else model
    done = len(state.epochs) - state.before if state else 0
    given: dict[str, Any] = {"shuffle": True, "seed": seed, "augment": augment, "first_epoch": done}
    return _fit(
        logits,
        {"x": batches(train, settings.batch_size, **given), "shuffle": False},
        batches(val, settings.batch_size),
        steps=math.ceil(len(train.labels) / settings.batch_size),
        phase="full",
        settings=settings,
        callbacks=callbacks,
        before=before,
        factors=None if settings.layer_decay == 1 else stage_factors(logits, settings.layer_decay, stages),
        until=until,
        checkpoint=checkpoint,
        state=state,
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
        {"x": train[0], "y": train[1], "batch_size": 1, "shuffle": False},
        val,
        steps=1,
        phase="full",
        settings=settings,
        callbacks=callbacks,
    )


def predict(model: keras.Model, photos: Photos, batch_size: int = 32) -> np.ndarray:
    """Give the model's outputs for the photos, such as probabilities of shape (photos, classes)."""
    with readable_errors():
        return model.predict(batches(photos, batch_size, labels=False), verbose=0)


def cosine(learning_rate: float, warmup: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Rise linearly to the rate over a share of the steps, then fall to zero along a cosine (arXiv:1608.03983).

    >>> schedule = cosine(1.0, 0.5, 4)
    >>> [round(float(schedule(step)), 2) for step in range(5)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    rising = min(round(warmup * steps), steps - 1)
    falling = steps - rising
    if rising == 0:
        return keras.optimizers.schedules.CosineDecay(learning_rate, falling)
    return keras.optimizers.schedules.CosineDecay(0.0, falling, warmup_target=learning_rate, warmup_steps=rising)


def stage_factors(model: keras.Model, layer_decay: float, stages: Mapping[str, str] | None = None) -> dict[str, float]:
    """Give the factor of each variable's learning rate where each stage learns more slowly than the one above it.

    What lies above the last stage, such as the head, has 1, the last stage `layer_decay`, the one below its square, and
    so on, counted as in BEiT (arXiv:2106.08254). A layer belongs to the first stage whose end depends on it.

    Args:
        model: The whole one, or the upper of the two that `backbones.split` makes of it.
        layer_decay: The factor, above 0 and at most 1.
        stages: Name of each stage, first to last, and of the layer that ends it, as in `backbones.Row`; by default the
            layers that bear a stage's name, as those of `tlkit.builders` do.

    Returns:
        The factor, by the path of the variable, of all that is trainable in the stages.

    Raises:
        InvalidInput: the model has none of the stages.

    >>> x = keras.layers.Dense(2, name="stem")(keras.Input((4,)))
    >>> x = keras.layers.Dense(2, name="head")(keras.layers.Dense(2, name="stage1", use_bias=False)(x))
    >>> stage_factors(keras.Model(keras.utils.get_source_inputs(x), x), 0.5)
    {'stem/kernel': 0.25, 'stem/bias': 0.25, 'stage1/kernel': 0.5}
    """
    layers = {layer.name: layer for layer in _flat(model)}
    known = stages.values() if stages else [name for name in layers if is_stage(name)]
    ends = [layers[name] for name in known if name in layers]
    if not ends:
        raise InvalidInput(f"layer_decay is {layer_decay}, but model {model.name} has none of the stages")
    factors: dict[str, float] = {}
    for number, end in enumerate(ends):
        for layer in keras.Model(keras.utils.get_source_inputs(end.output), end.output).layers:
            for variable in layer.trainable_variables:
                factors.setdefault(variable.path, layer_decay ** (len(ends) - number))
    return factors


def smoothed_crossentropy(label_smoothing: float) -> Callable[[Any, Any], Any]:
    """Make the cross-entropy of integer labels and logits, in float32, with label smoothing (arXiv:1512.00567).

    One logit is that of a sigmoid, two or more are those of a softmax.

    Shapes:
        labels: (*shape) or (*shape, 1)
        logits: (*shape, classes)
        returns: (*shape)
    """

    def crossentropy(labels: Any, logits: Any) -> Any:
        if logits.shape[-1] == 1:
            labels = keras.ops.cast(keras.ops.reshape(labels, (-1, 1)), "float32")
            logits = keras.ops.cast(logits, "float32")
            return keras.losses.binary_crossentropy(labels, logits, from_logits=True, label_smoothing=label_smoothing)
        labels = keras.ops.reshape(labels, keras.ops.shape(logits)[:-1])
        one_hot = keras.ops.one_hot(keras.ops.cast(labels, "int32"), logits.shape[-1])
        logits = keras.ops.cast(logits, "float32")
        return keras.losses.categorical_crossentropy(one_hot, logits, from_logits=True, label_smoothing=label_smoothing)

    return crossentropy


def _fit(
    logits: keras.Model,
    train: dict[str, Any],
    val: Any,
    *,
    steps: int,
    phase: str,
    settings: Settings,
    callbacks: Sequence[Any],
    before: History | None = None,
    factors: Mapping[str, float] | None = None,
    until: int | None = None,
    checkpoint: Path | None = None,
    state: _State | None = None,
) -> History:
    rate = (
        settings.learning_rate
        if settings.steady
        else cosine(settings.learning_rate, settings.warmup, settings.epochs * steps)
    )
    optimizer = (
        keras.optimizers.AdamW(rate, weight_decay=settings.weight_decay)
        if factors is None
        else LayerwiseAdamW(rate, settings.weight_decay, factors)
    )
    single = logits.output.shape[-1] == 1
    accuracy = keras.metrics.BinaryAccuracy("accuracy", threshold=0.0) if single else "accuracy"
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    logits.compile(
        optimizer,
        loss=smoothed_crossentropy(settings.label_smoothing),
        metrics=[accuracy],
        jit_compile=runtime.jit_compile(),
    )
    history = History(list(state.epochs if state else before.epochs if before else []))
    first = state.before if state else len(history.epochs)
    best = _BestEpoch(settings.patience, history.best["val_loss"] if history.epochs else math.inf)
    if state and checkpoint:
        _restore(state, logits, best, checkpoint)
    last = first + min(until or settings.epochs, settings.epochs)
    if not best.ended and len(history.epochs) < last:
        with readable_errors():
            logits.fit(
                **train,
                validation_data=val,
                initial_epoch=len(history.epochs),
                epochs=last,
                callbacks=[
                    _Record(history, phase),
                    *([_Checkpoint(checkpoint, history, first, settings, best, state)] if checkpoint else []),
                    best,
                    _Progress(history, phase, first, last - first, steps),
                    *callbacks,
                ],
                verbose=0,
            )
    else:  # nothing is left to train
        logits.set_weights(best.weights)
    if math.isnan(history.best["val_loss"]):
        raise InvalidInput(f"the loss became nan in phase {phase}; lower --{phase}.learning_rate")
    return history


def _flat(model: keras.Model) -> Iterator[Any]:
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _flat(layer)


def _save(path: Path, state: _State, settings: Settings) -> None:
    """Write a checkpoint: NumPy's .npz with JSON in it, all of it or nothing."""
    told = {**state._asdict(), "settings": settings._asdict(), "arrays": {k: len(v) for k, v in state.arrays.items()}}
    arrays: dict[str, Any] = {
        f"{name}_{i}": value for name, values in state.arrays.items() for i, value in enumerate(values)
    }
    with atomic.writing(path) as file:
        np.savez(file, told=np.array(json.dumps(told)), **arrays)


def _load(path: Path, settings: Settings) -> _State:
    try:
        # Without pickle, which could run a stranger's program. NumPy leaves a file that it opens itself open on errors.
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            told = json.loads(str(file["told"]))
            begun = Settings(**told.pop("settings"))
            arrays = {name: [file[f"{name}_{i}"] for i in range(n)] for name, n in told.pop("arrays").items()}
            state = _State(**told, arrays=arrays)
    except (OSError, EOFError, ValueError, TypeError, AttributeError, LookupError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{path} is no checkpoint of a phase, or is damaged: delete it or give another") from error
    for name, value in settings._asdict().items():
        if value != getattr(begun, name):
            raise InvalidInput(f"{path} was begun with {name} {getattr(begun, name)}, not {value}: give another file")
    return state


def _restore(state: _State, model: keras.Model, best: _BestEpoch, path: Path) -> None:
    """Put the model, its optimizer, and what is known of the best epoch where they were after the last one."""
    model.optimizer.build(model.trainable_variables)
    variables = {"last": model.variables, "optimizer": model.optimizer.variables, "best": model.weights}
    wanted = {name: [tuple(variable.shape) for variable in values] for name, values in variables.items()}
    if wanted != {name: [array.shape for array in state.arrays.get(name, [])] for name in wanted}:
        raise InvalidInput(f"{path} does not fit this model, or what of it is trained: give another file")
    for name in ("last", "optimizer"):
        for variable, value in zip(variables[name], state.arrays[name], strict=True):
            variable.assign(value)
    best.weights, best.waited, best.ended = state.arrays["best"], state.waited, state.ended


def _generators() -> list[np.ndarray]:
    """States of PyTorch's generators, which Keras draws dropout from; on other backends variables have all of it."""
    if keras.backend.backend() != "torch":
        return []
    import torch

    return [state.numpy() for state in (torch.get_rng_state(), *torch.cuda.get_rng_state_all())]


def _set_generators(states: list[np.ndarray]) -> None:
    if keras.backend.backend() != "torch" or not states:
        return
    import torch

    cpu, *gpus = [torch.from_numpy(state) for state in states]
    torch.set_rng_state(cpu)
    if len(gpus) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(gpus)


class _Record(keras.callbacks.Callback):
    """Keeps Keras' logs with their phase and seconds, and adds the learning rate for the callbacks after it too."""

    def __init__(self, history: History, phase: str):
        super().__init__()
        self.history, self.phase = history, phase

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        seconds = time.perf_counter() - self.started
        logs = {} if logs is None else logs  # in place, as Keras' own LearningRateScheduler does
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        values = {name: float(value) for name, value in logs.items()}
        self.history.epochs.append({"epoch": epoch + 1, "phase": self.phase, **values, "seconds": seconds})


class _BestEpoch(keras.callbacks.Callback):
    """Stops when the validation loss no longer falls and puts the best weights back.

    Keras' EarlyStopping cannot start from the loss of an earlier phase: it would keep this phase's best epoch even
    where it is worse than what the phase began with.
    """

    def __init__(self, patience: int, best_loss: float):
        super().__init__()
        self.patience, self.best_loss = patience, best_loss
        self.weights: list[np.ndarray] = []
        self.waited, self.ended = 0, False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self.weights:  # else they come from a checkpoint
            self.weights = self.model.get_weights()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        loss = (logs or {})["val_loss"]
        if math.isnan(loss):
            self.model.stop_training = self.ended = True  # it stays nan
            return
        if loss < self.best_loss:
            self.best_loss, self.waited = loss, 0
            self.weights = self.model.get_weights()
            return
        self.waited += 1
        self.model.stop_training = self.ended = self.waited >= self.patience

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.model.set_weights(self.weights)


class _State(NamedTuple):
    """Where a phase stands, as a checkpoint holds it.

    Args:
        epochs: Of the history, those of the phase before too.
        before: How many of them are of the phase before.
        waited: Epochs since the validation loss last fell.
        ended: Whether that was too long.
        arrays: Values of the model's variables after the last epoch, of the optimizer's, the best epoch's weights, and
            what `_generators` gives.
    """

    epochs: list[dict[str, Any]]
    before: int
    waited: int
    ended: bool
    arrays: dict[str, list[np.ndarray]]


class _Checkpoint(keras.callbacks.Callback):
    """Writes where the phase stands; it comes before `_BestEpoch`, which then puts the best weights back."""

    def __init__(
        self, path: Path, history: History, first: int, settings: Settings, best: _BestEpoch, state: _State | None
    ):
        super().__init__()
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        self.path, self.history, self.first, self.settings, self.best = path, history, first, settings, best
        self.generators = state.arrays.get("generators", []) if state else []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        _set_generators(self.generators)  # here: `fit` has drawn from them before it begins

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        variables = {"last": self.model.variables, "optimizer": self.model.optimizer.variables}
        arrays = {name: [keras.ops.convert_to_numpy(value) for value in values] for name, values in variables.items()}
        arrays |= {"best": self.best.weights, "generators": _generators()}
        state = _State(self.history.epochs, self.first, self.best.waited, self.best.ended, arrays)
        _save(self.path, state, self.settings)


class _Progress(keras.callbacks.Callback):
    """Prints a row an epoch with the time left in the phase, and on a terminal the step within the epoch."""

    def __init__(self, history: History, phase: str, first: int, epochs: int, steps: int):
        super().__init__()
        self.history, self.phase, self.first, self.epochs, self.steps = history, phase, first, epochs, steps
        self.live = sys.stdout.isatty()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        print(f"\n{'epoch':>14}" + "".join(f"{name:>{width}}" for name, width in COLUMNS.items()) + "  time left")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.started = self.shown = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        now = time.perf_counter()
        if not self.live or now - self.shown < 0.5:
            return
        self.shown = now
        left = (now - self.started) / (batch + 1) * (self.steps - batch - 1)
        print(f"{CLEAR}{self.phase}  step {batch + 1}/{self.steps}, {duration(left)} left in epoch", end="", flush=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        last, done = self.history.epochs[-1], epoch + 1 - self.first
        recent = [entry["seconds"] for entry in self.history.epochs[-done:]]
        left = float(np.median(recent)) * (self.epochs - done)
        numbers = "".join(f"{last[name]:>{width}.4f}" for name, width in COLUMNS.items())
        number = f"{done}/{self.epochs}"
        print(f"{CLEAR if self.live else ''}{self.phase:<5}{number:>9}{numbers}  {duration(left)}", flush=True)
