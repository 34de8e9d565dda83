"""Schedules of the learning rate against the published formulas."""

from __future__ import annotations

import json
import math

import keras
import numpy as np
import pytest

from tlkit.errors import InvalidInput
from tlkit.training import schedules

Rates = list[float]


def rates(schedule: object, steps: int) -> Rates:
    """The rate at each step, and after the last."""
    return [float(schedule(keras.ops.convert_to_tensor(step, "int32"))) for step in range(steps + 1)]


def test_the_cosine_is_the_published_formula():
    found = rates(schedules.cosine(0.1, 0.2, 100), 100)
    for step in range(100):
        expected = 0.1 * step / 20 if step < 20 else 0.05 * (1 + math.cos(math.pi * (step - 20) / 80))
        assert found[step] == pytest.approx(expected, abs=1e-7)


def fastai(step: int, steps: int, rate: float) -> float:
    """fastai's `combined_cos(0.25, rate / 25, rate, rate / 1e5)`, as its callback asks for it before each batch."""
    share = step / steps
    start, end, at = (rate / 25, rate, share / 0.25) if share < 0.25 else (rate, rate / 1e5, (share - 0.25) / 0.75)
    return start + (1 + math.cos(math.pi * (1 - at))) * (end - start) / 2


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10, 101])
def test_one_cycle_is_that_of_fastai(steps: int):
    found = rates(schedules.build("one_cycle", 0.2, steps, warmup=0.7), steps)
    np.testing.assert_allclose(found, [fastai(step, steps, 0.2) for step in range(steps + 1)], atol=1e-7)
    assert found[0] == pytest.approx(0.2 / 25)
    assert found[-1] == pytest.approx(0.2 / 1e5, abs=1e-7)


def stairs(steps: int, rising: int) -> Rates:
    left = steps - rising
    return [step / rising for step in range(rising)] + [10.0 ** -min(3 * n // left, 2) for n in range(left + 1)]


@pytest.mark.parametrize(
    ("steps", "warmup", "rising"), [(1, 0.1, 0), (2, 0.5, 1), (3, 0.1, 0), (3, 0.9, 2), (7, 0.1, 1), (300, 0.2, 60)]
)
def test_steps_and_constants_are_as_told(steps: int, warmup: float, rising: int):
    np.testing.assert_allclose(rates(schedules.build("step", 1.0, steps, warmup), steps), stairs(steps, rising), 1e-5)
    constant = schedules.build("constant", 0.3, steps, warmup)
    if not rising:
        assert constant == 0.3
        return
    expected = [0.3 * min(step / rising, 1.0) for step in range(steps + 1)]
    np.testing.assert_allclose(rates(constant, steps), expected, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("kind", schedules.KINDS)
def test_the_shortest_phases_have_a_rate_above_zero(kind: str, steps: int):
    schedule = schedules.build(kind, 1.0, steps)
    assert (schedule if kind in ("constant", "plateau") else max(rates(schedule, steps - 1))) >= 0.04


@pytest.mark.parametrize("kind", [kind for kind in schedules.KINDS if kind != "plateau"])  # which is a number
def test_they_are_made_again_from_their_configs(kind: str):
    made = schedules.build(kind, 0.3, 10, 0.3)
    described = json.loads(json.dumps(keras.optimizers.schedules.serialize(made)))
    again = keras.optimizers.schedules.deserialize(described)
    assert rates(again, 10) == rates(made, 10)


def test_another_kind_is_one_line():
    with pytest.raises(
        InvalidInput, match=r"schedule is 'linear'; it must be one of cosine, one_cycle, step, constant, plateau$"
    ):
        schedules.build("linear", 0.1, 10)
