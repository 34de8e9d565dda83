"""The range test: what it sees, what it suggests, and that it leaves no trace."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tlkit.data import Photos, batches
from tlkit.errors import InvalidInput
from tlkit.training import finder

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def examples(count: int = 40, seed: int = 0) -> Photos:
    """Two classes of different brightness."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    values = rng.integers(0, 156, (count, 8, 8, 1)) + 100 * labels[:, None, None, None]
    return Photos.of(values.astype(np.uint8), labels)


def network() -> keras.Model:
    """Everything that has a state: batch normalization, dropout, weights."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(x))
    x = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, keras.layers.Dense(2)(x))


def fit(model: keras.Model, epochs: int = 1) -> None:
    keras.utils.set_random_seed(0)  # PyTorch draws dropout from a generator that all models share
    train = batches(examples(), 16, shuffle=True, augment={"flip": True})
    model.fit(train, epochs=epochs, shuffle=False, verbose=0)


def state(model: keras.Model) -> dict[str, np.ndarray]:
    metrics = [variable for metric in model.metrics for variable in metric.variables]
    variables = [*model.variables, *model.optimizer.variables, *metrics]
    values = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    values += [generator.numpy() for generator in generators()]
    paths = [getattr(variable, "path", "") for variable in [*variables, *generators()]]
    return {f"{place} {path}": value for place, (path, value) in enumerate(zip(paths, values, strict=True))}


def generators() -> list:
    if keras.backend.backend() != "torch":
        return []
    import torch

    return [torch.get_rng_state()]


def schedule() -> keras.optimizers.schedules.LearningRateSchedule:
    return keras.optimizers.schedules.CosineDecay(0.01, 20)


OPTIMIZERS = {
    "a number": lambda: keras.optimizers.AdamW(0.01, use_ema=True),
    "a schedule": lambda: keras.optimizers.SGD(schedule(), momentum=0.9),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(schedule())),
    "accumulated": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name", [name if name == "scaled" else pytest.param(name, marks=pytest.mark.slow) for name in OPTIMIZERS]
)
def test_the_model_is_as_before_and_learns_as_without_the_test(name: str):
    model, other = network(), network()
    for each in (model, other):
        each.compile(OPTIMIZERS[name](), LOSS, metrics=["accuracy"])
        fit(each)
    before, rate = state(model), model.optimizer.learning_rate
    seen = finder.range_test(model, batches(examples(seed=1), 16, shuffle=True), lowest=1e-3, highest=1.0, steps=7)
    assert len(seen.rates) == 7
    after = state(model)
    assert list(after) == list(before)
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value, err_msg=key)
    assert float(model.optimizer.learning_rate) == float(rate)
    fit(model)
    fit(other)
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.slow
def test_a_model_that_has_not_been_trained_learns_as_without_the_test():
    model, other = network(), network()
    for each in (model, other):
        each.compile(keras.optimizers.Adam(schedule()), LOSS, metrics=["accuracy"])
    finder.range_test(model, batches(examples(seed=1), 16), steps=10)
    for each in (model, other):
        fit(each)
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_it_is_put_back_where_a_batch_cannot_be_read():
    model = network()
    model.compile(keras.optimizers.Adam(schedule()), LOSS)
    model.optimizer.build(model.trainable_variables)
    before = state(model)

    def broken():
        yield from list(batches(examples(), 16))[:2]
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        finder.range_test(model, broken())
    for key, value in before.items():
        np.testing.assert_array_equal(state(model)[key], value, err_msg=key)
    assert callable(model.optimizer._learning_rate)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rates_and_losses_are_those_of_gradient_descent_by_hand(momentum: float):
    rng = np.random.default_rng(0)
    xs, labels = rng.normal(size=(3, 6, 4)).astype("float32"), rng.integers(0, 3, (3, 6))
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, use_bias=False)(inputs))
    kernel = model.get_weights()[0].astype(np.float64)
    model.compile(keras.optimizers.SGD(schedule(), momentum=momentum), LOSS)
    seen = finder.range_test(model, list(zip(xs, labels, strict=True)), lowest=1e-3, highest=10.0, steps=13)
    np.testing.assert_allclose(seen.rates, [1e-3 * 10 ** (step / 3) for step in range(13)])
    losses, changes, kernels, velocity = [], [], (kernel.copy(), kernel), np.zeros_like(kernel)
    for step, rate in enumerate(seen.rates):
        x, truth = xs[step % 3].astype(np.float64), np.eye(3)[labels[step % 3]]
        shares = [np.exp(x @ each) / np.exp(x @ each).sum(axis=1, keepdims=True) for each in kernels]
        own, now = (-np.log((share * truth).sum(axis=1)).mean() for share in shares)
        losses.append(now)
        changes.append((own, now - own))
        velocity = momentum * velocity - rate * x.T @ (shares[1] - truth) / len(x)
        kernel += velocity
    np.testing.assert_allclose(seen.losses, losses, rtol=1e-4)
    level = np.mean([own for own, _ in changes])
    smoothed = [level + value for value in finder.smooth([change for _, change in changes])]
    np.testing.assert_allclose(seen.smoothed, smoothed, rtol=1e-4)


def test_dropout_and_the_batch_cancel_where_nothing_is_learnt():
    """Each loss is compared with that of the same batch and the same dropout."""
    model = network()
    model.compile(keras.optimizers.Adam(), LOSS)
    seen = finder.range_test(model, batches(examples(), 16, shuffle=True), lowest=1e-12, highest=1e-11, steps=12)
    assert np.ptp(seen.losses) > 0.01
    np.testing.assert_allclose(seen.smoothed, seen.smoothed[0], rtol=1e-4)
    assert seen.suggested is None


def test_what_is_suggested_is_a_tenth_of_the_rate_of_the_least_loss():
    model = network()
    model.compile(keras.optimizers.Adam(), LOSS)
    seen = finder.range_test(model, batches(examples(), 16, shuffle=True), lowest=1e-4, highest=10.0, steps=25)
    assert seen.suggested == seen.rates[int(np.argmin(seen.smoothed))] / 10


@pytest.mark.parametrize("seed", range(2))
def test_noise_about_a_loss_of_next_to_nothing_is_no_explosion(seed: int):
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    labels = np.arange(160) % 2
    xs = (rng.normal(size=(160, 4)) + 8 * labels[:, None] - 4).astype("float32")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    model.compile(keras.optimizers.AdamW(), LOSS)
    given = [(xs[i : i + 16], labels[i : i + 16]) for i in range(0, 160, 16)]
    seen = finder.range_test(model, given, lowest=1e-4, highest=1.0, steps=100)
    assert seen.losses[-1] < 0.01
    assert len(seen.rates) == 100


@pytest.mark.parametrize(
    ("smoothed", "suggested"),
    [([2.0, 1.0, 3.0], 0.01), ([2.0, 2.0, 1.99], None), ([1.0, 2.0, 3.0], None), ([1.0, 0.5, float("nan")], 0.01)],
)
def test_there_is_no_suggestion_where_the_loss_does_not_fall(smoothed: list[float], suggested: float | None):
    assert finder.suggest([0.01, 0.1, 1.0], smoothed) == suggested


def test_a_step_with_accumulated_gradients_takes_several_batches():
    rng = np.random.default_rng(0)
    given = [(rng.normal(size=(6, 4)).astype("float32"), rng.integers(0, 3, 6)) for _ in range(4)]
    joined = [tuple(np.concatenate(pair) for pair in zip(*given[start : start + 2], strict=True)) for start in (0, 2)]
    inputs = keras.Input((4,))
    model, found = keras.Model(inputs, keras.layers.Dense(3)(inputs)), []
    for data, count in ((given, 2), (joined, None)):
        model.compile(keras.optimizers.Adam(0.1, gradient_accumulation_steps=count), LOSS)
        found.append(finder.range_test(model, data, lowest=1e-3, highest=1.0, steps=6).losses)
    np.testing.assert_allclose(*found, rtol=1e-4)


def test_the_smaller_last_batch_of_an_epoch_is_left_out():
    model, asked = network(), []
    model.compile("sgd", LOSS)
    given = batches(examples(40), 16)

    def kept():
        for batch in given:
            asked.append(len(batch[1]))
            yield batch

    class Again:
        def __iter__(self):
            return kept()

    plain = finder.range_test(model, [batch for batch in given if len(batch[1]) == 16], steps=6)
    assert finder.range_test(model, Again(), steps=6).losses == plain.losses
    assert 8 in asked


@pytest.mark.parametrize(("highest", "ended"), [(1e9, True), (1e-3, False)])
def test_it_ends_where_the_loss_explodes(highest: float, ended: bool):
    model = network()
    model.compile(keras.optimizers.SGD(0.1), LOSS)
    seen = finder.range_test(model, batches(examples(), 16), lowest=1e-4, highest=highest, steps=40)
    assert (len(seen.rates) < 40) == ended
    assert (not np.isfinite(seen.losses[-1]) or seen.smoothed[-1] > 4 * min(seen.smoothed)) == ended


def test_the_average_is_that_of_adam():
    """Its first moment: weights (1 - b) b**age, which are made to sum to one."""
    losses = np.random.default_rng(0).normal(size=30)
    for step, value in enumerate(finder.smooth(losses.tolist(), 0.9)):
        weights = 0.9 ** np.arange(step, -1, -1)
        np.testing.assert_allclose(value, np.average(losses[: step + 1], weights=weights))


def test_callbacks_hear_of_each_step():
    model, heard = network(), []
    model.compile("sgd", LOSS)
    callback = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: heard.append((step, dict(logs))))
    seen = finder.range_test(model, batches(examples(), 16), steps=5, callbacks=[callback])
    assert [step for step, _ in heard] == list(range(5))
    assert [logs["learning_rate"] for _, logs in heard] == seen.rates
    assert [logs["loss"] for _, logs in heard] == seen.losses


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"lowest": 1.0, "highest": 0.1}, "1.0 to 0.1"),
        ({"lowest": 0.0}, "0.0 to 10.0"),
        ({"highest": float("inf")}, "to inf"),
        ({"steps": 1}, "steps is 1"),
    ],
)
def test_what_cannot_be_is_refused(given: dict, match: str):
    model = network()
    model.compile("sgd", LOSS)
    with pytest.raises(InvalidInput, match=match):
        finder.range_test(model, batches(examples(), 16), **given)


def test_no_batches_are_refused():
    model = network()
    model.compile("sgd", LOSS)
    with pytest.raises(InvalidInput, match="no batches"):
        finder.range_test(model, [])
