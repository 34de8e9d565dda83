"""The optimizers with a rate for each variable, against one of Keras' own for each group of variables, and NumPy."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from tlkit import backbones, builders
from tlkit.errors import InvalidInput
from tlkit.training import optimizers, schedules
from tlkit.training.optimizers import LAYERWISE, Layerwise, averages, build, stage_factors

SHAPES = {"slow": [(3, 2), (2,)], "fast": [(2, 4), (4,)]}
FACTORS = {"slow": 0.3, "fast": 1.0}
RATES = dict.fromkeys(LAYERWISE, 0.1) | {"adadelta": 10.0}  # whose steps are tiny in the beginning
QUICK = ("sgd", "adamw", "nadam")
SOME = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in LAYERWISE]
Gradients = dict[str, list[np.ndarray]]


def variables() -> dict[str, list[keras.Variable]]:
    """Two layers' kernels and biases, the same in each call."""
    rng = np.random.default_rng(0)
    return {
        group: [
            keras.Variable(rng.normal(size=shape).astype("float32"), name=f"{group}_{name}")
            for name, shape in zip(("kernel", "bias"), shapes, strict=True)
        ]
        for group, shapes in SHAPES.items()
    }


def factors_of(groups: dict[str, list[keras.Variable]]) -> dict[str, float]:
    return {variable.path: FACTORS[group] for group, members in groups.items() for variable in members}


def values(groups: dict[str, list[keras.Variable]]) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable) for group in groups.values() for variable in group]


def random_gradients(rng: np.random.Generator) -> Gradients:
    return {group: [rng.normal(size=shape).astype("float32") for shape in shapes] for group, shapes in SHAPES.items()}


def flat(gradients: Gradients) -> list[np.ndarray]:
    return [gradient for group in gradients.values() for gradient in group]


def separate(name: str) -> dict[str, keras.optimizers.Optimizer]:
    """One of Keras' own optimizers for each group, whose rate falls along a cosine over six steps."""
    own = {name.lower(): getattr(keras.optimizers, name) for name in dir(keras.optimizers)}[name]
    more = {"momentum": 0.9, "nesterov": True} if name == "sgd" else {}
    made = {}
    for group, factor in FACTORS.items():
        rate = keras.optimizers.schedules.CosineDecay(RATES[name] * factor, 6)
        made[group] = own(rate, weight_decay=0.05, **more)
        made[group].exclude_from_weight_decay(var_names=["bias"])
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
@pytest.mark.parametrize("name", SOME)
def test_it_equals_one_of_keras_for_each_group(name: str, scaled: bool):
    ours, theirs = variables(), variables()
    mine = build(name, schedules.cosine(RATES[name], 0.0, 6), weight_decay=0.05, factors=factors_of(ours))
    if scaled:  # as `compile` does it with mixed_float16
        mine = keras.optimizers.LossScaleOptimizer(mine, initial_scale=8.0)
    others = separate(name)
    rng = np.random.default_rng(1)
    begun = values(ours)
    for _ in range(4):
        gradients = random_gradients(rng)
        step(mine, [gradient * (8 if scaled else 1) for gradient in flat(gradients)], ours["slow"] + ours["fast"])
        for group, optimizer in others.items():
            step(optimizer, gradients[group], theirs[group])
        for a, b in zip(values(ours), values(theirs), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6, rtol=0)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(begun, values(ours), strict=True))


@pytest.mark.parametrize("name", SOME)
def test_accumulated_and_clipped_gradients_equal_one_step_on_their_clipped_mean(name: str):
    """The schedule and the decay go by updates; the norm that is clipped is of the mean over all variables."""
    ours, theirs = variables(), variables()
    mine = build(
        name,
        schedules.cosine(RATES[name], 0.0, 6),
        weight_decay=0.05,
        factors=factors_of(ours),
        global_clipnorm=0.7,
        gradient_accumulation_steps=3,
    )
    others = separate(name)
    rng = np.random.default_rng(1)
    for _ in range(3):
        batches = [random_gradients(rng) for _ in range(3)]
        for gradients in batches:
            before = values(ours)
            step(mine, flat(gradients), ours["slow"] + ours["fast"])
            moved = [not np.array_equal(a, b) for a, b in zip(before, values(ours), strict=True)]
            assert moved == [gradients is batches[-1]] * 4
        mean = {
            group: [np.mean(each, 0) for each in zip(*(b[group] for b in batches), strict=True)] for group in SHAPES
        }
        norm = np.sqrt(sum((gradient**2).sum() for gradient in flat(mean)))
        assert norm > 0.7
        for group, optimizer in others.items():
            step(optimizer, [gradient * 0.7 / norm for gradient in mean[group]], theirs[group])
        for a, b in zip(values(ours), values(theirs), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6, rtol=0)
    assert int(mine.iterations) == 3


def test_what_is_a_vector_or_a_bias_is_not_decayed():
    """Without a gradient, decay alone moves a variable."""
    shapes = {
        "kernel": (2, 2),
        "depthwise_kernel": (3, 3, 2, 1),
        "bias": (2, 2),  # as of the heads of an attention
        "relative_position_bias_table": (3, 2),
        "variable": (2,),  # Keras' name of what scales a layer of ConvNeXt
        "gamma": (2,),
        "beta": (2,),
    }
    trained = [keras.Variable(np.ones(shape, "float32"), name=name) for name, shape in shapes.items()]
    step(build("sgd", 0.1, weight_decay=0.5), [np.zeros(shape, "float32") for shape in shapes.values()], trained)
    left = {variable.name: float(np.mean(keras.ops.convert_to_numpy(variable))) for variable in trained}
    decayed = {"kernel": 0.95, "depthwise_kernel": 0.95}
    assert left == pytest.approx({name: decayed.get(name, 1.0) for name in shapes})


def network(seed: int = 0) -> keras.Model:
    """A model within a model, and a head."""
    keras.utils.set_random_seed(seed)
    x = keras.Input((4,))
    inner = keras.Model(x, keras.layers.Dense(3, activation="tanh", name="stage1")(x), name="inner")
    return keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(2, dtype="float32", name="head")])


def batch(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(8, 4)).astype("float32"), rng.normal(size=(8, 2)).astype("float32")


@pytest.fixture
def mixed_float16():
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy("float32")


def averaged(momentum: float, weights: list[list[np.ndarray]]) -> list[np.ndarray]:
    """The moving average after the updates that gave these weights, in NumPy."""
    found = weights[0]
    for t, after in enumerate(weights[1:], 1):
        m = min(momentum, (1 + t) / (10 + t))
        found = [m * a + (1 - m) * b for a, b in zip(found, after, strict=True)]
    return found


@pytest.mark.parametrize("batches", [1, 3])
def test_the_average_goes_by_updates_and_is_the_published_one(batches: int):
    model = network()
    # 0.2 lies between the momenta of the first updates, 2/11 and 3/12.
    model.compile(build("sgd", 0.1, gradient_accumulation_steps=batches, ema_momentum=0.2), "mse")
    assert averages(model.optimizer) == []
    seen = []
    for update in range(4):
        for number in range(batches):
            model.train_on_batch(*batch(update * batches + number))
        seen.append(model.get_weights())
        found = [keras.ops.convert_to_numpy(average) for average in averages(model.optimizer)]
        for a, b in zip(found, averaged(0.2, seen), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    kept = {id(variable) for variable in model.optimizer.variables}
    assert all(id(average) in kept for average in averages(model.optimizer))


def test_the_average_and_the_rates_work_where_the_loss_is_scaled(mixed_float16: None):
    model = network()
    model.compile(build("adamw", 0.1, ema_momentum=0.9, gradient_accumulation_steps=2), "mse")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    seen: list[list[np.ndarray]] = []
    for number in range(12):
        model.train_on_batch(*batch(number))
        if int(model.optimizer.iterations) > len(seen):  # not where the scale was too large
            seen.append(model.get_weights())
    assert len(seen) > 3
    found = [keras.ops.convert_to_numpy(average) for average in averages(model.optimizer)]
    for a, b in zip(found, averaged(0.9, seen), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert not np.allclose(seen[0][0], seen[-1][0])


def test_fit_leaves_the_weights_beside_their_average():
    trained = []
    for momentum in (None, 0.9):
        model = network()
        model.compile(build("sgd", 0.1, ema_momentum=momentum), "mse")
        model.fit(*batch(0), batch_size=2, shuffle=False, verbose=0)
        trained.append(model.get_weights())
    for a, b, average in zip(*trained, averages(model.optimizer), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.abs(a - keras.ops.convert_to_numpy(average)).max() > 1e-4


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("adamw", "float32"),
        pytest.param("adafactor", "float32", marks=pytest.mark.slow),
        pytest.param("nadam", "mixed_float16", marks=pytest.mark.slow),
    ],
)
def test_a_model_that_is_saved_and_loaded_trains_on_identically(
    name: str, precision: str, tmp_path: Path, request: pytest.FixtureRequest
):
    if precision == "mixed_float16":
        request.getfixturevalue(precision)
    model = network()
    factors = stage_factors(model, 0.3)
    assert len(factors) == 2
    rate = schedules.build("one_cycle", 0.1, 6)
    model.compile(
        build(name, rate, weight_decay=0.5, factors=factors, gradient_accumulation_steps=2, ema_momentum=0.9), "mse"
    )
    for number in range(3):  # ends in the midst of an update
        model.train_on_batch(*batch(number))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(getattr(again.optimizer, "inner_optimizer", again.optimizer)) is LAYERWISE[name]
    for number in range(3, 8):
        for each in (model, again):
            each.train_on_batch(*batch(number))
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(model.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))


def test_rates_survive_where_keras_gives_layers_other_names(tmp_path: Path):
    """The path of a variable keeps the number that its layer had when it was built."""

    def made() -> keras.Model:
        x = inputs = keras.Input((4,))
        for _ in range(3):
            x = keras.layers.Dense(4)(x)
        return keras.Model(inputs, x)

    made()
    model = made()
    for number, layer in enumerate(model.layers[1:]):
        layer.name = f"renamed_{number}"  # as `backbones` does; Keras then finds other paths in the file
    factors = {variable.path: 0.1 * (number + 1) for number, variable in enumerate(model.trainable_variables)}
    model.compile(build("sgd", 0.1, factors=factors), "mse")
    xs, ys = np.ones((2, 4), "float32"), np.zeros((2, 4), "float32")
    model.train_on_batch(xs, ys)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert {variable.path for variable in again.trainable_variables} != set(factors)
    assert again.optimizer.rates == model.optimizer.rates == list(factors.values())
    for each in (model, again):
        each.train_on_batch(xs, ys)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["constant", "step"])
@pytest.mark.parametrize("name", LAYERWISE)
def test_it_is_made_again_from_its_config(name: str, kind: str):
    rate = schedules.build(kind, 0.1, 10, 0.0)
    made = build(name, rate, weight_decay=0.2, factors={"a/kernel": 0.5}, global_clipnorm=1.0, ema_momentum=0.9)
    again = keras.optimizers.deserialize(json.loads(json.dumps(keras.optimizers.serialize(made))))
    assert isinstance(again, Layerwise)
    assert type(again) is type(made)
    assert again.get_config() == made.get_config()
    assert (again.factors, again.weight_decay, again.use_ema) == ({"a/kernel": 0.5}, 0.2, True)


def test_a_wrong_name_is_one_line_with_the_nearest():
    for given, says in {
        "adamv": r"optimizer is 'adamv'; did you mean 'adam'\? There are adadelta, .*, sgd$",
        "muon": "optimizer is 'muon', which is not for fine-tuning: in Keras it trains only kernels of dense layers",
        "ftrl": "optimizer is 'ftrl', which is not for fine-tuning: .* forgets pretrained ones",
        "ScheduleFreeAdamW": "optimizer is 'ScheduleFreeAdamW', which is not for fine-tuning: it evaluates other",
    }.items():
        with pytest.raises(InvalidInput, match=says) as caught:
            build(given, 0.1)
        assert "\n" not in str(caught.value)
    for name in LAYERWISE:
        optimizers.check(name)
    assert type(build("AdamW", 0.1)) is LAYERWISE["adamw"]  # Keras' own name


def test_ftrl_is_refused_because_it_forgets():
    """Of a kernel of ones, a gradient that is next to nothing leaves next to nothing."""
    kernel = keras.Variable(np.ones((2, 2), "float32"))
    step(keras.optimizers.Ftrl(0.1), [np.full((2, 2), 1e-6, "float32")], [kernel])
    assert np.abs(keras.ops.convert_to_numpy(kernel)).max() < 1e-3


def factors_by_stage(model: keras.Model, name: str | None, **given) -> dict[str, float]:
    return stage_factors(model, 0.5, backbones.row(name).stages if name else None, **given)


def test_stages_of_a_backbone_learn_more_slowly_from_the_top_down():
    model = backbones.classifier(backbones.build("MobileNet", (64, 64, 3), weights="none", alpha=0.25), 2)
    backbones.unfreeze(model, "MobileNet")
    whole = factors_by_stage(model, "MobileNet")
    # The blocks of each stage as in Howard et al., table 1, and the power of the factor.
    powers = {1: 4, 2: 4, 3: 4, 4: 3, 5: 3, **dict.fromkeys(range(6, 12), 2), 12: 1, 13: 1}
    expected = {"conv1/kernel": 0.5**5}
    for block, power in powers.items():
        expected |= {f"conv_{kind}_{block}/kernel": 0.5**power for kind in ("dw", "pw")}
    for path, factor in list(expected.items()):  # and of the normalization behind each
        expected |= {f"{path.removesuffix('/kernel')}_bn/{name}": factor for name in ("gamma", "beta")}
    assert whole == expected
    assert {variable.path for variable in model.trainable_variables} == {*whole, "head/kernel", "head/bias"}
    given = {"stage2": 0.1, "head": 3.0}
    named = factors_by_stage(model, "MobileNet", factors=given)
    by_power = {3: 0.1}  # blocks 4 and 5 are stage2
    assert named == {
        **{path: by_power.get(round(np.log2(1 / factor)), 1.0) for path, factor in expected.items()},
        "head/kernel": 3.0,
        "head/bias": 3.0,
    }
    backbones.unfreeze(model, "MobileNet", "stage3")
    _, upper = backbones.split(model, "MobileNet", "stage3")
    upper_factors = factors_by_stage(upper, "MobileNet")
    assert upper_factors == {path: factor for path, factor in whole.items() if factor >= 0.5**2}
    assert {variable.path for variable in upper.trainable_variables} == {*upper_factors, "head/kernel", "head/bias"}
    assert factors_by_stage(upper, "MobileNet", factors=given) == {
        **dict.fromkeys(upper_factors, 1.0), "head/kernel": 3.0, "head/bias": 3.0
    }  # fmt: skip
    with pytest.raises(
        InvalidInput, match=r"learning_rates has 'stage22'; did you mean 'stage2'\? There are stem, .*head$"
    ):
        factors_by_stage(model, "MobileNet", factors={"stage22": 0.1})


def test_stages_of_a_builders_network_are_found_by_their_names():
    model = builders.cnn((16, 16, 1), filters=(2, 3, 4), dense=(5,), classes=2, padding="same")
    assert factors_by_stage(model, None) == {
        f"{stage}_conv1/{variable}": factor
        for stage, factor in (("stem", 0.125), ("stage1", 0.25), ("stage2", 0.5))
        for variable in ("kernel", "bias")
    }
    with pytest.raises(InvalidInput, match=r"layer_decay is 0\.5, but model bare has none of the stages"):
        factors_by_stage(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="bare"), None)
