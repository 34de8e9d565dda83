"""Look for a learning rate: a range test, after which the model is as it was before."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tlkit.errors import InvalidInput
from tlkit.training import variables

SMOOTHING = 0.9  # of the average; fastai's 0.98 is for losses from which their batches' own is not taken away
EXPLODED = 4.0  # times the least smoothed loss: there the test ends, as in fastai
LEAST = 0.1  # of the loss at the beginning, what counts as least: four times next to nothing is no explosion
TOGETHER = 10  # batches that are in memory at a time
LEAST_FALL = 0.01  # of the smoothed loss, as a share of itself, for a suggestion


class RangeTest(NamedTuple):
    """What a range test saw.

    Args:
        rates: Of each step, growing.
        losses: Of each step's batch alone, before the step was made; the last may be infinite or NaN.
        smoothed: The mean loss at the beginning, plus the bias-corrected exponential average of what the losses have
            changed by since, each batch's by itself.
        suggested: The rate to train with, None where the loss did not fall; see `suggest`.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggested: float | None


def range_test(
    model: keras.Model,
    train: Any,
    *,
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 100,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> RangeTest:
    """Train for some steps while the learning rate grows by a factor, and watch the loss (arXiv:1506.01186).

    Batches differ more in how hard they are than a pretrained network's loss falls. So each loss is compared with what
    the network had for the same batch, with the same dropout, at the beginning: that doubles the steps, and a fall of a
    few percent is seen. The test ends sooner where the smoothed loss exceeds four times its least, or four tenths of
    the first where it fell below a tenth of it, or a loss is not finite. Afterwards all of the model is as before, bit
    for bit: weights, statistics, optimizer, metrics and random generators.

    Args:
        model: Compiled. A schedule of its optimizer is put aside for the test.
        train: Batches (inputs, labels), such as `data.batches` gives; they are iterated again where they are fewer than
            the steps, and the smaller last one of an epoch is left out. With `gradient_accumulation_steps` a step takes
            so many. Wrap the call in `data.readable_errors` where they read files.
        lowest: First rate.
        highest: Last rate.
        steps: Of the test.
        callbacks: Keras callbacks; they hear of the beginning and the end, and of each step with `loss` and
            `learning_rate` in its logs.

    Raises:
        InvalidInput: the rates or the steps cannot be, or there are no batches.

    >>> inputs = keras.Input((4,))
    >>> model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> batch = np.eye(3, 4, dtype="float32"), np.arange(3)
    >>> 0.01 < range_test(model, [batch], lowest=1e-4, steps=50).suggested <= 1
    True
    """
    if not 0 < lowest < highest < math.inf:
        raise InvalidInput(
            f"the rates of the test are {lowest} to {highest}; the first must be above 0 and the smaller"
        )
    if steps < 2:
        raise InvalidInput(f"steps is {steps}; a range test takes 2 or more")
    told = keras.callbacks.CallbackList(list(callbacks), add_history=False, model=model)
    seen: list[tuple[float, float, float]] = []
    with _as_before(model) as (optimizer, start):
        given = _endless(train)
        told.on_train_begin()
        for rate, batches, own in _paired(
            model, optimizer, start, given, np.geomspace(lowest, highest, steps).tolist()
        ):
            told.on_train_batch_begin(len(seen))
            optimizer.learning_rate = rate
            loss = _train(model, batches)
            seen.append((rate, loss, own))
            told.on_train_batch_end(len(seen) - 1, {"loss": loss, "learning_rate": rate})
            smoothed = _smoothed(seen)
            least = max(min(smoothed), LEAST * float(np.mean([own for *_, own in seen])))
            if not math.isfinite(loss) or smoothed[-1] > EXPLODED * least:
                break
        told.on_train_end()
    rates, losses = ([step[column] for step in seen] for column in (0, 1))
    smoothed = _smoothed(seen)
    return RangeTest(rates, losses, smoothed, suggest(rates, smoothed))


def _paired(
    model: keras.Model, optimizer: Any, start: Mapping[int, np.ndarray], given: Iterator[Any], rates: Sequence[float]
) -> Iterator[tuple[float, list[Any], float]]:
    """Give each step's rate and batches, and the loss that these have before the test, at the same random draws.

    It is measured for some steps at a time, for each of which the network goes back to the beginning.
    """
    count = optimizer.gradient_accumulation_steps or 1
    together = max(1, TOGETHER // count)
    for first in range(0, len(rates), together):
        part = rates[first : first + together]
        batches = [[next(given) for _ in range(count)] for _ in part]
        held = _held(model)
        now = variables.values(held)
        own = []
        with _generators_kept():
            for each in batches:
                for variable in model.weights:  # random generators go on from where they are, so that both draw alike
                    variable.assign(start[id(variable)])
                own.append(_train(model, each))  # a step's loss is from before it
        variables.assign(held, now)
        yield from zip(part, batches, own, strict=True)


def _train(model: keras.Model, batches: Sequence[Any]) -> float:
    # Keras resets the metrics before each, so that this is the batch's own loss and no running mean.
    logs = (model.train_on_batch(x, y, return_dict=True) for x, y in batches)
    return float(np.mean([log["loss"] for log in logs]))


def _smoothed(seen: Sequence[tuple[float, float, float]]) -> list[float]:
    """Smooth what each loss has changed by; the loss at the beginning is the mean over all batches."""
    level = float(np.mean([own for _, _, own in seen]))
    return [level + change for change in smooth([loss - own for _, loss, own in seen])]


def smooth(losses: Sequence[float], smoothing: float = SMOOTHING) -> list[float]:
    """Give the exponential average of the losses at each step, without the bias to the beginning (arXiv:1412.6980).

    >>> smooth([1.0, 2.0], 0.5)
    [1.0, 1.6666666666666667]
    """
    average, values = 0.0, []
    for step, loss in enumerate(losses, 1):
        average = smoothing * average + (1 - smoothing) * loss
        values.append(average / (1 - smoothing**step))
    return values


def suggest(rates: Sequence[float], smoothed: Sequence[float]) -> float | None:
    """Give a tenth of the rate at which the smoothed loss is least: fastai's `minimum`, Smith's order of magnitude.

    Args:
        rates: Of each step.
        smoothed: The loss that goes with each, as in `RangeTest`.

    Returns:
        The rate; None where the loss falls by less than 1 % of itself.

    >>> suggest([0.001, 0.01, 0.1, 1.0], [2.0, 1.9, 1.5, 8.0])
    0.01
    >>> suggest([0.001, 0.01, 0.1, 1.0], [2.0, 2.1, 2.2, 2.3]) is None
    True
    """
    values = np.nan_to_num(smoothed, nan=math.inf)
    least = int(np.argmin(values))
    return rates[least] / 10 if values[0] - values[least] > LEAST_FALL * abs(values[0]) else None


@contextlib.contextmanager
def _as_before(model: keras.Model) -> Iterator[tuple[Any, dict[int, np.ndarray]]]:
    """Make the rate of the model's optimizer one that can be set, and put everything back at the end.

    Returns:
        The optimizer, and the value that each variable has now, by its id.
    """
    outer = model.optimizer
    if not outer.built:
        outer.build(model.trainable_variables)
    optimizer = getattr(outer, "inner_optimizer", outer)  # of a LossScaleOptimizer
    held = _held(model)
    kept = variables.values(held)
    rate = optimizer._learning_rate
    scheduled = not isinstance(rate, keras.Variable)
    if scheduled:  # no public way: Keras' setter refuses a number in place of a schedule; to set it is to track it
        optimizer._learning_rate = keras.Variable(0.0, trainable=False, dtype="float32", name="learning_rate")
    model.train_function = None  # as compiled, it may hold the schedule
    try:
        with _generators_kept():
            yield optimizer, {id(variable): value for variable, value in zip(held, kept, strict=True)}
    finally:
        if scheduled:
            optimizer._untrack_variable(optimizer._learning_rate)
            optimizer._learning_rate = rate
        model.train_function = None
        model.reset_metrics()  # those that the test has built
        variables.assign(held, kept)


def _held(model: keras.Model) -> list[Any]:
    """All variables that a step may change."""
    metrics = [variable for metric in model.metrics for variable in metric.variables]
    return [*model.variables, *model.optimizer.variables, *metrics]


def _generators_kept() -> Any:
    """PyTorch's generators, which Keras draws dropout from, are as before; other backends have variables for all."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.random.fork_rng(range(torch.cuda.device_count()))


def _endless(train: Any) -> Iterator[tuple[Any, Any]]:
    """Give batches, epoch after epoch, without those that are smaller than the first: their loss is another's."""
    size = None
    while True:
        given = 0
        for inputs, labels in train:
            size = size or len(labels)
            if len(labels) == size:
                given += 1
                yield inputs, labels
        if not given:
            raise InvalidInput("there are no batches to test a learning rate on, or they can be iterated only once")
