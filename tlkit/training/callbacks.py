"""The Keras callbacks of a phase: what they watch, record, print and write; in the order in which Keras calls them."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from tlkit import runtime
from tlkit.display import say
from tlkit.errors import reason
from tlkit.progress import CLEAR, duration
from tlkit.training import checkpoints, hosts, optimizers, variables, verdicts
from tlkit.training.settings import Checkpointing, History, Settings

COLUMNS = {"loss": 9, "accuracy": 10, "val_loss": 10, "val_accuracy": 14}  # of the progress table, and their widths
SHARES = (1.0, 0.75, 0.5, 0.25)  # of what a phase has changed, which may be kept
Logs = dict[str, Any]


class Validation(NamedTuple):
    """The validation data.

    Args:
        examples: As Keras' `fit` and `predict` take it, in a fixed order.
        labels: Shape (examples,), or (examples, classes) if an example may have several.
        plain: The examples as one device takes them, where several share a batch.
    """

    examples: Any
    labels: np.ndarray
    plain: Any = None

    def predict(self, model: keras.Model) -> np.ndarray:
        """Give the outputs of a model."""
        return model.predict(self.examples if self.plain is None else self.plain, verbose=0)


class Diverged(Exception):
    """Raised when the loss is nan or infinite."""


class Guard(keras.callbacks.Callback):
    """Ends training at the first loss that is nan or infinite, before the next step; the first callback.

    On JAX and on GPUs, where Python continues while a step is computed, Keras calls it in a thread of its own, so that
    the next step need not wait for the loss; elsewhere the thread would cost more than the look.
    """

    message: str | None = None

    def __init__(self) -> None:
        super().__init__()
        # Not in several processes, which have to end at the same step.
        self.async_safe = hosts.count() == 1 and (keras.backend.backend() == "jax" or runtime.device()[0] != "cpu")

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            self.message = self.message or f"the loss became {loss} in step {batch + 1} of epoch {self.epoch + 1}"

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        if self.message:
            raise Diverged(self.message)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        if self.message:
            raise Diverged(self.message)


class Record(keras.callbacks.Callback):
    """Records Keras' logs with their phase and seconds, and adds the learning rate for the callbacks after it."""

    def __init__(self, history: History, phase: str, spent: float):
        super().__init__()
        self.history, self.phase, self.spent = history, phase, spent

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        seconds, self.spent = self.spent + time.perf_counter() - self.started, 0.0
        logs = {} if logs is None else logs  # in place, as Keras' own LearningRateScheduler does
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        values = {name: float(value) for name, value in logs.items()}
        self.history.epochs.append({"epoch": epoch + 1, "phase": self.phase, **values, "seconds": seconds})


class BestEpoch(keras.callbacks.Callback):
    """Stops when the validation loss no longer falls, and keeps the best weights; `fit` restores them.

    Without a patience it never stops, and keeps those of the lowest validation loss among the weights of the last epoch
    and some between these and what the phase began with, which are often better than both (Wortsman et al. 2022,
    arXiv:2109.01903), as far as they are clearly better than what it began with; else that. Where the phase does not
    reach its last epoch, those of the lowest loss so far are kept.

    Keras' EarlyStopping cannot start from the loss of an earlier phase: it would keep this phase's best epoch even
    if it is worse than the weights that the phase began with.
    """

    diverged: str | None = None

    def __init__(self, phase: Settings, model: keras.Model, history: History, first: int, until: int, val: Validation):
        super().__init__()
        self.patience, self.history, self.val = phase.patience, history, val
        self.shares = phase.class_shares
        self.last = first + phase.epochs
        self.before = bool(first)
        self.weights: list[np.ndarray] = model.get_weights()
        self.best_loss = min((epoch["val_loss"] for epoch in history.epochs), default=math.inf)
        self.lowest = self.patience is not None or until < self.last or not self.before
        self.waited, self.ended = 0, False
        if self.patience is None and self.before and "kept" not in history.best:
            self._keep(history.best["epoch"])  # which has these weights
        chance = math.log(max(2, model.output_shape[-1]))
        self.worst = max(chance, history.best["val_loss"]) if phase.trial and history.epochs else math.inf

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        loss = (logs or {})["val_loss"]
        if not math.isfinite(loss):  # the last step of an epoch may be the cause: its own loss is from before it
            self.diverged = f"the validation loss became {loss} in epoch {epoch + 1}"
            self.model.stop_training = self.ended = True
            return
        if loss > self.worst:
            self.model.stop_training = self.ended = True
            return
        lower, cut_short = loss < self.best_loss, bool(self.model.stop_training)  # by another callback: the last epoch
        self.best_loss, self.waited = min(loss, self.best_loss), 0 if lower else self.waited + 1
        if self.patience is None and (cut_short or epoch + 1 == self.last):
            self._judge()
        elif lower and self.lowest:
            self.weights = self.model.get_weights()
            if self.patience is None:
                self._keep(epoch + 1)
        elif self.patience is not None:
            self.ended = self.waited >= self.patience
            self.model.stop_training = self.ended or cut_short

    def _judge(self) -> None:
        """Keep as much of what the phase has changed as makes the model clearly better."""
        model, weights, number = self.model, self.model.get_weights(), len(self.history.epochs)
        if not self.before:
            self.weights = weights
            self._keep(number)
            return

        def changed(share: float) -> list[np.ndarray]:
            return weights if share == 1 else variables.between(model.weights, self.weights, weights, share)

        model.set_weights(self.weights)
        before, judged = self.val.predict(model), []
        for share in SHARES:
            model.set_weights(changed(share))
            verdict = verdicts.compare(before, self.val.predict(model), self.val.labels, self.shares)
            judged.append((verdict.difference, share, verdict.clearly_better))
        self.history.epochs[-1]["gain"] = -min(judged)[0]
        if better := [share for _, share, clearly in sorted(judged) if clearly]:
            model.set_weights(changed(better[0]))
            scores = model.evaluate(self.val.examples, verbose=0, return_dict=True) if better[0] < 1 else {}
            self.weights = model.get_weights()
            self._keep(number, better[0], **scores)
        model.set_weights(weights)

    def _keep(self, number: int, share: float = 1.0, **scores: float) -> None:
        """Mark the epoch that is kept, and how much of what its phase has changed."""
        for entry in self.history.epochs:
            for name in [name for name in entry if name.startswith("kept")]:
                del entry[name]
        own = {f"kept_val_{name}": float(value) for name, value in scores.items()}
        self.history.epochs[number - 1].update(kept=share, **own)


class Plateau(keras.callbacks.Callback):
    """Lowers the learning rate when the validation loss has not fallen for a while, at this rate and overall.

    Keras' ReduceLROnPlateau loses its count when training resumes from a checkpoint; this one reads the history.
    """

    def __init__(self, settings: Settings, history: History, first: int, best: BestEpoch):
        super().__init__()
        self.patience = max(1, (settings.patience or settings.epochs) // 3)
        self.history, self.first, self.best = history, first, best

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        rates = [entry["learning_rate"] for entry in self.history.epochs[self.first :]]
        if min(self.best.waited, rates.count(rates[-1])) >= self.patience:
            self.model.optimizer.learning_rate = rates[-1] / 10


class MovingAverage(keras.callbacks.Callback):
    """Puts the moving average in place of the weights from validation until every callback has seen the epoch's end.

    A callback that looks at the model then, such as Keras' ModelCheckpoint, sees what was validated.
    """

    def on_test_begin(self, logs: Logs | None = None) -> None:
        model = self.model
        self.weights = variables.values(model.trainable_weights)
        variables.assign(model.trainable_weights, variables.values(optimizers.averages(model.optimizer)))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        variables.assign(self.model.trainable_weights, self.weights)


class DropoutDraws(keras.callbacks.Callback):
    """Seeds PyTorch's generators, from which Keras draws dropout, in each epoch, or restores them within one.

    On other backends variables of the model hold their states. It waits for the first batch, because starting the data
    draws from them too.
    """

    def __init__(self, seed: int, phase: str, state: checkpoints.State | None):
        super().__init__()
        self.seed, self.phase, self.state, self.fresh = seed, phase, state, True

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch, self.fresh = epoch, True

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        if not self.fresh:
            return
        if self.state and self.state.step:
            checkpoints.set_generators(self.state.arrays["generators"])
        else:
            checkpoints.seed_generators(f"{self.seed} {self.phase} {self.epoch}")
        self.fresh, self.state = False, None


class CheckpointWriter(keras.callbacks.Callback):
    """Writes the checkpoint: at the end of the phase and, if asked to, within epochs, before a step or after an epoch.

    The last callback: what an epoch gave must be logged before it counts as done. It does nothing after a step, because
    Keras on JAX would then have to wait for the step's numbers.
    """

    def __init__(
        self,
        checkpointing: Checkpointing | None,
        history: History,
        first: int,
        settings: Settings,
        best: BestEpoch,
        steps: int,
    ):
        super().__init__()
        self.checkpointing, self.history, self.first = checkpointing, history, first
        self.settings, self.best = settings, best
        self.steps = steps
        self.latest: checkpoints.State | None = (
            None  # before the epoch's last batch, for an interrupt during validation
        )
        self.within_epochs = checkpointing is not None and checkpointing.within_epochs
        self.due = time.perf_counter() + checkpoints.SECONDS
        self.interrupted = threading.Event()
        self.warned = False
        self.state: checkpoints.State | None = None  # where the next call of `fit` resumes

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.started, self.offset, self.spent = time.perf_counter(), 0, 0.0
        if self.state and self.state.step:
            self.offset, self.spent = self.state.step, self.state.seconds
            variables.assign(self.model.metrics_variables, self.state.arrays["metrics"])
        self.state = None

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        interrupted = self.interrupted.is_set()
        step = self.offset + batch
        if self.within_epochs and (interrupted or (batch and time.perf_counter() >= self.due)):
            self.write_state(step)
        if interrupted:
            raise KeyboardInterrupt
        if self.within_epochs and step == self.steps - 1:
            with contextlib.suppress(MemoryError):
                self.latest = self._state(step)

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        if self.interrupted.is_set():
            if self.latest:
                self._write(self.latest)
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.latest = None
        if self.within_epochs and (self.interrupted.is_set() or time.perf_counter() >= self.due):
            self.write_state()
        if self.interrupted.is_set():
            raise KeyboardInterrupt

    def write_state(self, step: int = 0) -> None:
        """Write the checkpoint, after `step` batches of the current epoch or, at 0, between epochs."""
        if self.checkpointing and hosts.index() == 0:
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
        assert self.checkpointing is not None  # noqa: S101  # else nothing is written
        began = time.perf_counter()
        try:
            state = self._state(what) if isinstance(what, int) else what
            checkpoints.save(self.checkpointing.path, state, self.settings._asdict(), rotate=self.within_epochs)
        except (OSError, MemoryError) as error:
            if not self.within_epochs:
                raise
            if not self.warned:
                why = reason(error) if isinstance(error, OSError) else "no memory is left"
                say(f"no checkpoint could be written: {why}; training continues without", error=True)
            self.warned = True
        now = time.perf_counter()
        self.due = now + checkpoints.pause(now - began)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a first Ctrl-C or SIGTERM wait for the current step and for the checkpoint."""
        if not self.within_epochs or threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupt(*_: object) -> None:
            if self.interrupted.is_set():
                raise KeyboardInterrupt
            self.interrupted.set()

        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        handlers = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}
        for number in handlers:
            signal.signal(number, interrupt)
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


class ProgressTable(keras.callbacks.Callback):
    """Prints a row per epoch with the time left in the phase, and on a terminal the step within the epoch."""

    def __init__(self, history: History, phase: str, first: int, epochs: int, steps: int, step: int):
        super().__init__()
        self.history, self.phase, self.first, self.epochs, self.steps = history, phase, first, epochs, steps
        self.offset = step  # of the first epoch
        self.live, self.headed = sys.stdout.isatty(), False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if not self.headed:
            say(f"\n{'epoch':>14}" + "".join(f"{name:>{width}}" for name, width in COLUMNS.items()) + "  time left")
        self.headed = True

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.started = self.shown = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        now = time.perf_counter()
        if not self.live or not batch or now - self.shown < 0.5:
            return
        self.shown, done = now, self.offset + batch
        left = (now - self.started) / batch * (self.steps - done)
        self._say(f"{self.phase}  step {done}/{self.steps}, {duration(left)} left in epoch", end="")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.offset = 0
        last, done = self.history.epochs[-1], epoch + 1 - self.first
        recent = [entry["seconds"] for entry in self.history.epochs[-done:]]
        left = float(np.median(recent)) * (self.epochs - done)
        numbers = "".join(
            f"{last[name]:>{width}.{'4f' if last[name] < 1e4 else '3g'}}" for name, width in COLUMNS.items()
        )
        number = f"{done}/{self.epochs}"
        self._say(f"{self.phase:<6}{number:>8}{numbers}  {duration(left)}")

    def _say(self, text: str, end: str = "\n") -> None:
        if self.live:
            say(end=CLEAR)  # which `say` would show as it is within a text
        say(text, end=end)
