"""Find a learning rate by a range test, after which the model is as before."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np

from tlkit.errors import InvalidInput
from tlkit.training import variables

SMOOTHING = 0.9  # of the moving average; fastai's 0.98 is for losses that are not compared batch by batch
EXPLODED = 4.0  # the test ends when the smoothed loss exceeds its minimum by this factor, as in fastai
LEAST = 0.1  # the minimum counts as no less than this share of the first loss: 4 times almost 0 is no explosion
TOGETHER = 10  # batches that are in memory at a time
LEAST_FALL = 0.01  # share of itself by which the smoothed loss must fall for a suggestion
Batch: TypeAlias = tuple[Any, Any]  # inputs and labels, arrays of any backend


class RangeTest(NamedTuple):
    """The result of a range test.

    Args:
        rates: Learning rate of each step, increasing.
        losses: Loss of each step's batch before the step; the last may be infinite or NaN.
        smoothed: The mean loss at the beginning, plus the bias-corrected exponential average of the changes since,
            where each batch's loss is compared with its own at the beginning.
        suggested: The rate to train with; None if the loss did not fall, see `suggest`.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggested: float | None


class _Step(NamedTuple):
    """A step of a range test: its rate, the loss of its batch, and that of the same batch at the beginning."""

    rate: float
    loss: float
    first_loss: float


class _Start(NamedTuple):
    """The model at the beginning of the test: its optimizer, and the value of each variable, by the variable's id."""

    optimizer: keras.optimizers.Optimizer
    values: dict[int, np.ndarray]


def range_test(
    model: keras.Model,
    train: Iterable[Batch],
    *,
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 100,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> RangeTest:
    """Train for some steps while the learning rate grows exponentially, and watch the loss (arXiv:1506.01186).

    Losses vary more between batches than a pretrained network's loss falls. Therefore each loss is compared with that
    of the same batch, with the same dropout, at the beginning: this doubles the steps, and makes a fall of a few
    percent visible. The test ends early if a loss is not finite, or if the smoothed loss exceeds four
    times its minimum; a minimum below a tenth of the first loss counts as that tenth. Afterwards the model is exactly
    as before: weights, statistics, optimizer, metrics and random generators.

    Args:
        model: A compiled model. A schedule of its optimizer is set aside for the test.
        train: Batches (inputs, labels), such as `data.batches` gives. They are iterated again if there are fewer than
            steps, and a smaller last batch of an epoch is left out. With `gradient_accumulation_steps` each step takes
            that many. Wrap the call in `data.readable_errors` if they read files.
        lowest: First learning rate.
        highest: Last learning rate.
        steps: Number of steps.
        callbacks: Keras callbacks, called at the beginning, at the end and at each step, with `loss` and
            `learning_rate` in its logs.

    Raises:
        InvalidInput: the rates or the number of steps cannot be used, or there are no batches.

    >>> inputs = keras.Input((4,))
    >>> model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> batch = np.eye(3, 4, dtype="float32"), np.arange(3)
    >>> 0.01 < range_test(model, [batch], lowest=1e-4, steps=50).suggested <= 1
    True
    """
    if not 0 < lowest < highest < math.inf:
        raise InvalidInput(
            f"the rates of the test are {lowest} to {highest}; the first must be above 0 and below the last"
        )
    if steps < 2:
        raise InvalidInput(f"steps is {steps}; a range test takes 2 or more")
    listeners = keras.callbacks.CallbackList(list(callbacks), add_history=False, model=model)
    done: list[_Step] = []
    with _restored(model) as start:
        batches = _endless(train)
        listeners.on_train_begin()
        for rate, group, first_loss in _steps(model, start, batches, np.geomspace(lowest, highest, steps).tolist()):
            listeners.on_train_batch_begin(len(done))
            start.optimizer.learning_rate = rate
            loss = _train(model, group)
            done.append(_Step(rate, loss, first_loss))
            listeners.on_train_batch_end(len(done) - 1, {"loss": loss, "learning_rate": rate})
            if _has_exploded(done):
                break
        listeners.on_train_end()
    rates, smoothed = [step.rate for step in done], _smoothed(done)
    return RangeTest(rates, [step.loss for step in done], smoothed, suggest(rates, smoothed))


def _has_exploded(done: Sequence[_Step]) -> bool:
    """Whether the last loss is not finite, or the smoothed loss is far above its minimum."""
    smoothed = _smoothed(done)
    least = max(min(smoothed), LEAST * float(np.mean([step.first_loss for step in done])))
    return not math.isfinite(done[-1].loss) or smoothed[-1] > EXPLODED * least


def _steps(
    model: keras.Model, start: _Start, batches: Iterator[Batch], rates: Sequence[float]
) -> Iterator[tuple[float, list[Batch], float]]:
    """Give each step's rate and batches, and the loss that these had at the beginning with the same random numbers.

    That loss is measured for some steps at a time, for which the network goes back to the beginning.
    """
    count = start.optimizer.gradient_accumulation_steps or 1
    together = max(1, TOGETHER // count)
    for first in range(0, len(rates), together):
        part = rates[first : first + together]
        groups = [[next(batches) for _ in range(count)] for _ in part]
        changing = _variables(model)
        present = variables.values(changing)
        first_losses = []
        with _torch_generators_restored():
            for group in groups:
                for variable in model.weights:  # not the random generators, so that both draw the same numbers
                    variable.assign(start.values[id(variable)])
                first_losses.append(_train(model, group))  # the loss of a step is that before it
        variables.assign(changing, present)
        yield from zip(part, groups, first_losses, strict=True)


def _train(model: keras.Model, batches: Sequence[Batch]) -> float:
    """Train on some batches, and give the mean of their losses."""
    # Keras resets the metrics before each batch, so that this is the batch's own loss and no running mean.
    logs = [model.train_on_batch(inputs, labels, return_dict=True) for inputs, labels in batches]
    return float(np.mean([log["loss"] for log in logs]))


def _smoothed(done: Sequence[_Step]) -> list[float]:
    """Smooth the change of each loss, and add the mean loss of all batches at the beginning."""
    level = float(np.mean([step.first_loss for step in done]))
    return [level + change for change in smooth([step.loss - step.first_loss for step in done])]


def smooth(losses: Sequence[float], smoothing: float = SMOOTHING) -> list[float]:
    """Give the exponential moving average of the losses at each step, bias-corrected (arXiv:1412.6980).

    >>> smooth([1.0, 2.0], 0.5)
    [1.0, 1.6666666666666667]
    """
    average, values = 0.0, []
    for step, loss in enumerate(losses, 1):
        average = smoothing * average + (1 - smoothing) * loss
        values.append(average / (1 - smoothing**step))
    return values


def suggest(rates: Sequence[float], smoothed: Sequence[float]) -> float | None:
    """Give a tenth of the rate at which the smoothed loss is lowest: fastai's `minimum`, Smith's order of magnitude.

    Args:
        rates: Learning rate of each step.
        smoothed: Smoothed loss of each step, as in `RangeTest`.

    Returns:
        The rate; None if the loss falls by less than 1 % of itself.

    >>> suggest([0.001, 0.01, 0.1, 1.0], [2.0, 1.9, 1.5, 8.0])
    0.01
    >>> suggest([0.001, 0.01, 0.1, 1.0], [2.0, 2.1, 2.2, 2.3]) is None
    True
    """
    values = np.nan_to_num(smoothed, nan=math.inf)
    least = int(np.argmin(values))
    return rates[least] / 10 if values[0] - values[least] > LEAST_FALL * abs(values[0]) else None


@contextlib.contextmanager
def _restored(model: keras.Model) -> Iterator[_Start]:
    """Make the learning rate of the model's optimizer a number that can be set, and restore everything at the end."""
    outer = model.optimizer
    if not outer.built:
        outer.build(model.trainable_variables)
    optimizer = getattr(outer, "inner_optimizer", outer)  # of a LossScaleOptimizer
    changing = _variables(model)
    before = variables.values(changing)
    rate = optimizer._learning_rate
    scheduled = not isinstance(rate, keras.Variable)
    if scheduled:  # there is no public way: Keras' setter refuses to replace a schedule by a number
        optimizer._learning_rate = keras.Variable(0.0, trainable=False, dtype="float32", name="learning_rate")
    model.train_function = None  # the compiled function may hold the schedule
    try:
        with _torch_generators_restored():
            yield _Start(optimizer, {id(variable): value for variable, value in zip(changing, before, strict=True)})
    finally:
        if scheduled:
            optimizer._untrack_variable(optimizer._learning_rate)  # assigning it had tracked it
            optimizer._learning_rate = rate
        model.train_function = None
        model.reset_metrics()  # those that the test has built
        variables.assign(changing, before)


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Give all variables that a step may change."""
    metrics = [variable for metric in model.metrics for variable in metric.variables]
    return [*model.variables, *model.optimizer.variables, *metrics]


def _torch_generators_restored() -> contextlib.AbstractContextManager[None]:
    """Restore PyTorch's random generators, from which Keras draws dropout; other backends keep theirs in variables."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    restored: contextlib.AbstractContextManager[None] = torch.random.fork_rng(range(torch.cuda.device_count()))
    return restored


def _endless(train: Iterable[Batch]) -> Iterator[Batch]:
    """Give batches, epoch after epoch, without those that are smaller than the first, whose loss is not comparable."""
    size = None
    while True:
        count = 0
        for inputs, labels in train:
            size = size or len(labels)
            if len(labels) == size:
                count += 1
                yield inputs, labels
        if not count:
            raise InvalidInput("there are no batches to test a learning rate on, or they can be iterated only once")
