"""The optimizer with a rate for each variable, against one of Keras' own for each group of variables."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from tlkit.optimizers import LayerwiseAdamW

SHAPES = {"slow": [(3, 2), (2,)], "fast": [(2, 4), (4,)]}


def variables() -> dict[str, list[keras.Variable]]:
    """Two layers' kernels and biases, the same in each call but for the paths."""
    rng = np.random.default_rng(0)
    return {
        group: [
            keras.Variable(rng.normal(size=shape).astype("float32"), name=f"{group}_{name}")
            for name, shape in zip(("kernel", "bias"), shapes, strict=True)
        ]
        for group, shapes in SHAPES.items()
    }


def values(groups: dict[str, list[keras.Variable]]) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable) for group in groups.values() for variable in group]


def rate(learning_rate: float, kind: str):
    return learning_rate if kind == "constant" else keras.optimizers.schedules.CosineDecay(learning_rate, 6)


def optimizer_of(learning_rate: float, kind: str, weight_decay: float, factors: dict[str, float] | None = None):
    given = rate(learning_rate, kind)
    made = (
        keras.optimizers.AdamW(given, weight_decay) if factors is None else LayerwiseAdamW(given, weight_decay, factors)
    )
    made.exclude_from_weight_decay(var_names=["bias"])
    return made


def step(optimizer: keras.optimizers.Optimizer, gradients: list[np.ndarray], trained: list[keras.Variable]) -> None:
    """One step, as `fit` makes it on this backend."""
    tensors = [keras.ops.convert_to_tensor(gradient) for gradient in gradients]
    if keras.backend.backend() != "jax":
        optimizer.apply(tensors, trained)
        return
    if not optimizer.built:  # LossScaleOptimizer would build again
        optimizer.build(trained)
    state = [[variable.value for variable in part] for part in (optimizer.variables, trained)]
    found = optimizer.stateless_apply(state[0], tensors, state[1])
    for variable, value in zip([*trained, *optimizer.variables], [*found[0], *found[1]], strict=True):
        variable.assign(value)


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "loss scaling"])
@pytest.mark.parametrize("kind", ["constant", "schedule"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_it_equals_an_adamw_of_keras_for_each_group(weight_decay: float, kind: str, scaled: bool):
    ours, theirs = variables(), variables()
    mine = optimizer_of(0.1, kind, weight_decay, {variable.path: 0.3 for variable in ours["slow"]})
    if scaled:  # as `compile` does it with mixed_float16
        mine = keras.optimizers.LossScaleOptimizer(mine, initial_scale=8.0)
    separate = {
        "slow": optimizer_of(0.1 * 0.3, kind, weight_decay),
        "fast": optimizer_of(0.1, kind, weight_decay),
    }
    rng = np.random.default_rng(1)
    begun = values(ours)
    for _ in range(5):
        gradients = {
            group: [rng.normal(size=shape).astype("float32") for shape in shapes] for group, shapes in SHAPES.items()
        }
        both = [gradient * (8.0 if scaled else 1.0) for group in gradients.values() for gradient in group]
        step(mine, both, ours["slow"] + ours["fast"])
        for group, optimizer in separate.items():
            step(optimizer, gradients[group], theirs[group])
        for a, b in zip(values(ours), values(theirs), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6, rtol=0)
    assert all(np.abs(a - b).max() > 0.05 for a, b in zip(begun, values(ours), strict=True))


def test_a_compiled_model_trains_at_the_rates():
    """Two layers with the same gradient: Adam's first step is the rate, so the slower one moves a tenth as far."""
    x = keras.Input((4,))
    slow, fast = (keras.layers.Dense(1, kernel_initializer="ones", name=name) for name in ("slow", "fast"))
    model = keras.Model(x, keras.layers.add([slow(x), fast(x)]))
    model.compile(LayerwiseAdamW(0.01, 0.0, {slow.kernel.path: 0.1, slow.bias.path: 0.1}), "mse")
    model.fit(np.ones((8, 4)), np.zeros((8, 1)), batch_size=8, verbose=0)
    for layer, moved in ((slow, 0.001), (fast, 0.01)):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.kernel), 1 - moved, atol=1e-6)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.bias), -moved, atol=1e-6)


@pytest.mark.parametrize("kind", ["constant", "schedule"])
def test_it_is_made_again_from_its_config(kind: str):
    made = LayerwiseAdamW(rate(0.1, kind), 0.2, {"a/kernel": 0.5}, beta_2=0.99)
    described = keras.optimizers.serialize(made)
    again = keras.optimizers.deserialize(json.loads(json.dumps(described)))
    assert isinstance(again, LayerwiseAdamW)
    assert again.get_config() == made.get_config()
    assert (again.factors, again.weight_decay, again.beta_2) == ({"a/kernel": 0.5}, 0.2, 0.99)
