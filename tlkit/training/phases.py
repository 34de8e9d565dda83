"""One phase of training: how it learns, its epochs, and where its state is kept so that it can go on."""

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

from tlkit import autolog, runtime
from tlkit.data import readable_errors
from tlkit.display import say
from tlkit.errors import InvalidInput, reason
from tlkit.progress import CLEAR, duration
from tlkit.training import checkpoints, losses, optimizers, schedules, variables

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
        layer_decay: Factor by which each stage learns more slowly than the one above it, in `fit_full`; see
            `optimizers.stage_factors`.
        schedule: Of the rate; see `schedules.build`. With `plateau` it falls to a tenth whenever the validation loss
            has not fallen for a third of `patience`.
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
        return min(self.epochs, key=lambda epoch: (not math.isfinite(epoch["val_loss"]), epoch["val_loss"]))

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
    state: checkpoints.State | None = None,
    times: int = 1,
    multi_label: bool = False,
    seed: int = 0,
) -> History:
    """Train a phase, or what is left of it.

    Args:
        logits: What is trained.
        train: Gives the arguments of Keras' `fit` that tell of the training data, from an epoch and a step of it on.
        val: The validation data, as `fit` takes it.
        steps: Batches in an epoch.
        phase: Its name.
        settings: Of the phase.
        callbacks: Keras callbacks.
        before: The epochs of the phase before.
        factors: Of the learning rate, by the variable's path.
        until: Epochs of the phase after which it stops for now.
        keeping: Where its state is kept.
        state: What was kept there before, from which it goes on.
        times: How many batches there are for each of those with which it was kept.
        multi_label: Whether each example has any number of labels.
        seed: Of dropout on PyTorch.
    """
    updates = max(1, settings.epochs * steps // settings.gradient_accumulation_steps)
    rate = schedules.build(settings.schedule, settings.learning_rate, updates, settings.warmup)
    compiled(logits, settings, rate, factors, multi_label)
    state = state and state._replace(step=state.step * times)
    if settings.ema_momentum:  # from the weights as they are: Keras begins with zeros
        variables.assign(optimizers.averages(logits.optimizer), variables.values(logits.trainable_variables))
    history = History(list(state.epochs if state else before.epochs if before else []))
    first = state.before if state else len(history.epochs)
    best = _BestEpoch(settings, logits, history.best["val_loss"] if history.epochs else math.inf)
    keeper = _Keeper(keeping, history, first, settings, best, steps)
    if state and keeping:
        done = (len(history.epochs) - first) * steps + state.step
        _restore(state, logits, best, keeping.path, times, done)
    last = first + min(until or settings.epochs, settings.epochs)
    done, step = len(history.epochs) - first, state.step if state else 0
    record = _Record(history, phase, state.seconds if state else 0.0)
    table = _Progress(history, phase, first, last - first, steps, step)
    average = [_Average()] if settings.ema_momentum else []
    plateau = [_Plateau(settings, history, first, best)] if settings.schedule == "plateau" else []
    draws = [_Draws(seed, phase, state)] if keras.backend.backend() == "torch" else []
    watching = [_Guard(), record, best, *plateau, table, *callbacks, *draws, *average, keeper]
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
                if best.diverged:
                    raise _Diverged(best.diverged)
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
        raise InvalidInput(f"the loss became nan or infinite in phase {phase}: {_advice(phase, settings)}")
    return history


def _good(history: History) -> bool:
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


def _advice(phase: str, settings: Settings) -> str:
    phase = "head" if phase == "head" else "full"
    return (
        f"lower --{phase}.learning_rate (it is {settings.learning_rate:g}), or give --global_clipnorm 1 or "
        "--precision float32"
    )


def _tell_diverged(error: _Diverged, history: History, phase: str, settings: Settings) -> None:
    if not _good(history):
        return  # `fit` raises
    kept = f"the weights of epoch {history.best['epoch']} are kept"
    say(f"{phase}: {error}; {kept}. {_advice(phase, settings).capitalize()}", error=True)


def _restore(
    state: checkpoints.State, model: keras.Model, best: _BestEpoch, path: Path, times: int, batches: int
) -> None:
    """Put the model, its optimizer, and what is known of the best epoch where they were, `batches` into the phase."""
    if not model.optimizer.built:  # Keras' LossScaleOptimizer, built twice, has all its variables twice
        model.optimizer.build(model.trainable_variables)
    if times > 1:
        values = _in_smaller_batches(state.arrays["optimizer"], model.optimizer, times, batches)
        state = state._replace(arrays={**state.arrays, "optimizer": values})
    parts = {"last": model.variables, "optimizer": model.optimizer.variables, "best": model.weights}
    checkpoints.fits(path, state, {name: [tuple(v.shape) for v in values] for name, values in parts.items()})
    for name in ("last", "optimizer"):
        variables.assign(parts[name], state.arrays[name])
    best.weights, best.waited, best.ended = state.arrays["best"], state.waited, state.ended


def _in_smaller_batches(values: list[np.ndarray], optimizer: Any, times: int, batches: int) -> list[np.ndarray]:
    """What an optimizer's variables hold once a batch is so many: it counts these, and sums up their gradients."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    sums, there = {id(v) for v in inner._accumulated_gradients}, len(values) == len(optimizer.variables)
    steps = inner.gradient_accumulation_steps // times
    left, found = iter(values), []
    for variable in optimizer.variables:
        if id(variable) in sums and not there:
            found.append(np.zeros(variable.shape, variable.dtype))
            continue
        value = next(left, np.zeros(()))  # too few: `checkpoints.fits` will say so
        if variable is inner._iterations:
            # As many as there were, though an epoch with a small last batch has fewer, and as far into an update.
            value = times * (value + steps * np.rint((batches / times - value) / steps).astype(value.dtype))
        found.append(value * times if id(variable) in sums else value)
    return found


class _Diverged(Exception):
    """The loss is no number any more."""


class _Guard(keras.callbacks.Callback):
    """Ends training at the first loss that is no number, before the next step.

    It comes first. Where Python goes on while a step is computed, as on JAX and on GPUs, it looks at each loss in a
    thread of Keras, so that the next step need not wait for it; elsewhere that thread would take longer than the look.
    """

    seen: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self.async_safe = keras.backend.backend() == "jax" or runtime.device()[0] != "cpu"

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
    """Stops when the validation loss no longer falls, and keeps the best weights; `fit` puts them back.

    Keras' EarlyStopping cannot start from the loss of an earlier phase: it would keep this phase's best epoch even
    where it is worse than what the phase began with.
    """

    diverged: str | None = None

    def __init__(self, settings: Settings, model: keras.Model, best_loss: float):
        super().__init__()
        self.patience, self.best_loss = settings.patience, best_loss
        self.weights: list[np.ndarray] = model.get_weights()
        self.waited, self.ended = 0, False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        loss = (logs or {})["val_loss"]
        if not math.isfinite(loss):  # the last step of an epoch may do it, which has a loss from before it
            self.diverged = f"the validation loss became {loss} in epoch {epoch + 1}"
            self.model.stop_training = self.ended = True
            return
        if loss < self.best_loss:
            self.best_loss, self.waited = loss, 0
            self.weights = self.model.get_weights()
            return
        self.waited += 1
        self.model.stop_training = self.ended = self.waited >= self.patience


class _Plateau(keras.callbacks.Callback):
    """Lowers the rate when the validation loss has not fallen for a while, at this rate and in all.

    Keras' ReduceLROnPlateau forgets what it has counted when training goes on from a checkpoint; here the epochs tell.
    """

    def __init__(self, settings: Settings, history: History, first: int, best: _BestEpoch):
        super().__init__()
        self.patience, self.history, self.first, self.best = max(1, settings.patience // 3), history, first, best

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        rates = [entry["learning_rate"] for entry in self.history.epochs[self.first :]]
        if min(self.best.waited, rates.count(rates[-1])) >= self.patience:
            self.model.optimizer.learning_rate = rates[-1] / 10


class _Average(keras.callbacks.Callback):
    """Puts the moving average in place of the weights from the validation on until all have heard of the epoch's end.

    Whoever looks at the model then, such as Keras' ModelCheckpoint, sees what was validated.
    """

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        model = self.model
        self.kept = variables.values(model.trainable_weights)
        variables.assign(model.trainable_weights, variables.values(optimizers.averages(model.optimizer)))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        variables.assign(self.model.trainable_weights, self.kept)


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
            variables.assign(self.model.metrics_variables, self.state.arrays["metrics"])
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
        arrays = {"last": variables.values(model.variables), "optimizer": variables.values(model.optimizer.variables)}
        arrays["best"] = best.weights
        arrays["metrics"] = variables.values(model.metrics_variables) if step else []
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
                why = reason(error) if isinstance(error, OSError) else "no memory is left"
                say(f"no checkpoint could be written: {why}; training goes on without", error=True)
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
            say(f"\n{'epoch':>14}" + "".join(f"{name:>{width}}" for name, width in COLUMNS.items()) + "  time left")
        self.headed = True

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.started = self.shown = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        now = time.perf_counter()
        if not self.live or not batch or now - self.shown < 0.5:
            return
        self.shown, done = now, self.offset + batch
        left = (now - self.started) / batch * (self.steps - done)
        say(f"{CLEAR}{self.phase}  step {done}/{self.steps}, {duration(left)} left in epoch", end="")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.offset = 0
        last, done = self.history.epochs[-1], epoch + 1 - self.first
        recent = [entry["seconds"] for entry in self.history.epochs[-done:]]
        left = float(np.median(recent)) * (self.epochs - done)
        numbers = "".join(
            f"{last[name]:>{width}.{'4f' if last[name] < 1e4 else '3g'}}" for name, width in COLUMNS.items()
        )
        number = f"{done}/{self.epochs}"
        say(f"{CLEAR if self.live else ''}{self.phase:<5}{number:>9}{numbers}  {duration(left)}")
