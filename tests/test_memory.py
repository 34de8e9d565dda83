"""What fits into memory: the batch, errors that say it does not, activations computed twice, and float16's scale."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import keras
import numpy as np
import pytest

from tlkit import backbones, runtime
from tlkit.errors import Unavailable
from tlkit.training import checkpoints, memory

BACKEND = keras.backend.backend()
SHAPE = (2,)  # of an example, where nothing else is said


def network(precision: str | None = None) -> keras.Model:
    """Residual blocks with all that a second pass could do wrong: batch statistics, dropout, a nested model."""

    def conv(x: Any, width: int) -> Any:
        x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, dtype=precision)(x)
        return keras.layers.ReLU(dtype=precision)(keras.layers.BatchNormalization(dtype=precision)(x))

    x = inputs = keras.Input((16, 16, 3))
    for width in (8, 8, 8, 16, 16, 16):
        y = keras.layers.Dropout(0.3, dtype=precision)(conv(x, width))
        x = keras.layers.add([x, y]) if x.shape == y.shape else y
    backbone = keras.Model(inputs, x, name="backbone")
    pixels = keras.Input((16, 16, 3), name="pixels")
    x = keras.layers.GlobalAveragePooling2D()(backbone(pixels))
    x = keras.layers.Dropout(0.2)(x)
    return keras.Model(pixels, keras.layers.Dense(3, name="head", dtype="float32")(x), name="plain")


def batch(size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(size, 16, 16, 3)).astype("float32"), np.arange(size, dtype="int32") % 3


def compiled(model: keras.Model, optimizer: Any = None) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss, metrics=["accuracy"], jit_compile=runtime.jit_compile())
    return model


def variables(model: keras.Model) -> list[Any]:
    return list({id(v): v for v in [*model.variables, *model.optimizer.variables]}.values())


def values(model: keras.Model) -> list[np.ndarray]:
    return [np.array(variable) for variable in variables(model)]


# Errors ---------------------------------------------------------------------------------------------------------------


def exhausted() -> Exception:
    """What the backend really raises."""
    with pytest.raises(Exception, match=r"(?i)memory|OOM") as caught:
        keras.ops.ones((10**7, 10**7))
    assert not isinstance(caught.value, MemoryError)
    return caught.value


@pytest.mark.slow  # TensorFlow waits 10 s for memory to be given back
def test_an_impossible_tensor_exhausts_memory():
    assert memory.is_exhausted(exhausted())


def test_an_impossible_array_exhausts_memory():
    with pytest.raises(MemoryError) as caught:
        np.ones(10**15)
    assert memory.is_exhausted(caught.value)


@pytest.mark.parametrize(
    ("module", "name", "base", "said", "expected"),
    [
        ("torch", "OutOfMemoryError", RuntimeError, "CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("torch.cuda", "OutOfMemoryError", RuntimeError, "CUDA out of memory", True),
        ("jaxlib._jax", "XlaRuntimeError", RuntimeError, "RESOURCE_EXHAUSTED: Out of memory while allocating", True),
        ("jax.errors", "JaxRuntimeError", RuntimeError, "INTERNAL: Out of memory allocating 274880004096 bytes", True),
        ("jaxlib._jax", "XlaRuntimeError", RuntimeError, "INTERNAL: Failed to launch", False),
        ("tensorflow.python.framework.errors_impl", "ResourceExhaustedError", Exception, "OOM when allocating", True),
        ("tensorflow.python.framework.errors_impl", "InternalError", Exception, "Dst tensor is not initialized", True),
        ("tensorflow.python.framework.errors_impl", "InternalError", Exception, "Blas GEMM launch failed", False),
        ("mine", "OutOfMemoryError", Exception, "I forgot", False),
    ],
)
def test_errors_are_known_by_kind_and_words(module: str, name: str, base: type, said: str, expected: bool):
    kind = type(name, (base,), {"__module__": module})
    assert memory.is_exhausted(kind(said)) is expected


class Greedy(keras.layers.Layer):
    """Allocates `(batch / share) ** 12` numbers: 67 MB for a quotient of 4, and for one of 8 more than there is."""

    def __init__(self, share: int):
        super().__init__()
        self.share = share

    def call(self, x: Any) -> Any:
        side = (keras.ops.shape(x)[0] // self.share) ** 6
        column = keras.ops.ones((side, 1)) * keras.ops.mean(x)
        table = keras.ops.sort(column * keras.ops.transpose(column))
        column = keras.ops.matmul(table, column)  # XLA would make no table for its sum alone
        return x + 1e-30 * keras.ops.stop_gradient(keras.ops.sum(column))


def greedy(share: int) -> keras.Model:
    x = inputs = keras.Input((2,))
    x = Greedy(share)(keras.layers.Dense(4)(x))
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    return keras.Model(inputs, keras.layers.Dense(3)(x))


@pytest.mark.slow  # TensorFlow waits 10 s for memory to be given back
@pytest.mark.skipif(BACKEND == "jax", reason="on a CPU, XLA's program of the step runs without the table")
def test_an_impossible_step_exhausts_memory():
    model = compiled(greedy(1))
    with pytest.raises(Exception, match=r"(?i)memory|OOM") as caught:
        model.train_on_batch(np.ones((8, 2), "float32"), np.ones(8, "int32"))
    assert memory.is_exhausted(caught.value)


@pytest.mark.parametrize("said", ["Error code 12", "shape mismatch", "INTERNAL: no memory of this kernel"])
def test_other_errors_are_not_of_memory(said: str):
    for kind in (RuntimeError, ValueError, KeyError, OSError):
        assert not memory.is_exhausted(kind(said))


@pytest.mark.slow
def test_no_other_framework_is_imported():
    code = f"""
        import sys
        from tlkit.training import memory
        memory.is_exhausted(RuntimeError())
        memory.release()
        print({{"tensorflow", "jax", "torch"}} - {{{BACKEND!r}}} & set(sys.modules))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("set()", "{'jax'}"), done.stdout


# Batches --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for the batch as on a GPU, by trying."""
    monkeypatch.setattr(runtime, "device", lambda: ("gpu", (8, 0)))


@pytest.mark.slow  # TensorFlow waits 10 s for memory to be given back
@pytest.mark.usefixtures("gpu")
@pytest.mark.skipif(BACKEND == "jax", reason="on a CPU, XLA's program of the step runs without the table")
@pytest.mark.parametrize(("share", "examples", "expected"), [(1, 10**6, 4), (8, 10**6, 32), (8, 100, 32)])
def test_the_batch_is_the_largest_that_really_runs(share: int, examples: int, expected: int):
    model = compiled(greedy(share), keras.optimizers.Adam(0.1))
    model.train_on_batch(np.ones((2, 2), "float32"), np.ones(2, "int32"))
    before = values(model)
    assert memory.batch_size(model, SHAPE, 3, examples) == expected
    after = values(model)
    assert len(before) == len(after) > 10
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new, old)
    model.fit(np.ones((4, 2), "float32"), np.ones(4, "int32"), batch_size=2, verbose=0)  # it is still of use


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("limit", [1, 4, 32, 100, 4096])
def test_the_batch_is_the_largest_power_of_two_below_the_limit(limit: int):
    model = compiled(keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dropout(0.5)]))
    step, tried = model.train_on_batch, []

    def limited(x: Any, y: Any) -> None:
        tried.append(len(x))
        step(x[:2], y[:2])
        if len(x) > limit:
            raise MemoryError

    model.train_on_batch = limited
    model.optimizer.build(model.trainable_variables)
    before = values(model)
    assert memory.batch_size(model, SHAPE, 3, 20 * 256) == min(2 ** int(np.log2(limit)), 256)
    assert tried[0] == 32
    for old, new in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.slow
@pytest.mark.usefixtures("gpu")
def test_no_batch_fits():
    model = compiled(keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]))
    model.train_on_batch = lambda *_: (_ for _ in ()).throw(MemoryError)
    with pytest.raises(Unavailable, match="not even a batch of 1 fits"):
        memory.batch_size(model, SHAPE, 3, 1280)


@pytest.mark.slow
@pytest.mark.usefixtures("gpu")
def test_an_epoch_has_20_steps_or_the_batch_is_32():
    model = compiled(keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]))
    found = [memory.batch_size(model, SHAPE, 3, examples) for examples in (10, 1279, 1280, 5000)]
    assert found == [32, 32, 64, 128]


@pytest.mark.usefixtures("gpu")
def test_labels_of_several_classes_are_rows():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    assert memory.batch_size(model, SHAPE, 3, 1280, multi_label=True) == 64


@pytest.mark.usefixtures("gpu")
def test_other_errors_of_a_step_are_raised():
    model = compiled(keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]))
    model.train_on_batch = lambda *_: (_ for _ in ()).throw(ValueError("something else"))
    with pytest.raises(ValueError, match="something else"):
        memory.batch_size(model, SHAPE, 3, 1280)


def test_on_a_cpu_the_batch_is_what_memory_holds_up_to_32(monkeypatch: pytest.MonkeyPatch):
    model = compiled(network())
    assert memory.batch_size(model, SHAPE, 3, 10**6) == 32
    fixed = 12 * sum(np.prod(weight.shape) for weight in model.trainable_weights)
    for batches, expected in ((1.0, 1), (11.9, 8), (31.9, 16), (1e9, 32)):
        room = int(fixed + batches * memory.COPIES * memory.activations(model)) + 1
        monkeypatch.setattr(memory, "available_memory", lambda room=room: room)
        assert memory.batch_size(model, SHAPE, 3, 10**6) == expected
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    with pytest.raises(Unavailable, match="not even a batch of 1 fits"):
        memory.batch_size(model, SHAPE, 3, 10**6)


@pytest.mark.parametrize(("size", "name", "expected"), [(64, "SGD", 2.0), (64, "adamw", 2**0.5), (8, "lion", 0.5)])
def test_rates_grow_with_the_batch(size: int, name: str, expected: float):
    assert memory.scaled_rate(0.1, size, name) == pytest.approx(0.1 * expected)


# Activations computed twice -------------------------------------------------------------------------------------------


def trained(model: keras.Model, plain: keras.Model, before: list[np.ndarray], steps: int) -> list[np.ndarray]:
    """All variables of `plain` after some steps of `model`, from the same weights and seeds."""
    keras.utils.set_random_seed(0)  # PyTorch's dropout draws from it
    for variable, value in zip(plain.variables, before, strict=True):
        variable.assign(value)
    compiled(model)
    for _ in range(steps):
        model.train_on_batch(*batch())
    return [np.array(variable) for variable in plain.variables]


@pytest.mark.thorough
@pytest.mark.parametrize("precision", [None, pytest.param("mixed_bfloat16", marks=pytest.mark.slow)])
def test_remat_learns_the_same(precision: str | None):
    plain = network(precision)
    before = [np.array(variable) for variable in plain.variables]
    once, twice = (trained(model, plain, before, 3) for model in (plain, memory.remat(plain)))
    for variable, old, first, second in zip(plain.variables, before, once, twice, strict=True):
        tolerance = 1e-5 if precision is None else 2e-2
        np.testing.assert_allclose(second, first, tolerance, tolerance, err_msg=variable.path)
        if BACKEND != "torch" or "seed" not in variable.path:
            assert not np.array_equal(first, old), variable.path  # statistics and seeds have moved too


def test_remat_shares_the_layers_and_predicts_the_same():
    plain = network()
    twin = memory.remat(plain)
    assert {id(variable) for variable in twin.variables} == {id(variable) for variable in plain.variables}
    assert [variable.path for variable in twin.trainable_variables] == [v.path for v in plain.trainable_variables]
    pixels, _ = batch()
    np.testing.assert_allclose(twin.predict(pixels, verbose=0), plain.predict(pixels, verbose=0), 1e-5, 1e-6)


@pytest.mark.usefixtures("uncompiled")
def test_a_network_trained_by_remat_is_saved_as_keras_own(tmp_path: Any):
    plain = network()
    compiled(memory.remat(plain)).train_on_batch(*batch())
    plain.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert {type(layer).__module__.split(".")[0] for layer in loaded.get_layer("backbone").layers} == {"keras"}
    pixels, _ = batch()
    np.testing.assert_allclose(loaded.predict(pixels, verbose=0), plain.predict(pixels, verbose=0), 1e-5, 1e-6)


@pytest.mark.thorough
def test_remat_keeps_frozen_layers_as_they_are():
    plain = network()
    for layer in plain.get_layer("backbone").layers[:8]:
        layer.trainable = False
    before = [np.array(variable) for variable in plain.variables]
    once, twice = (trained(model, plain, before, 2) for model in (plain, memory.remat(plain)))
    still = [variable.path for variable, a, b in zip(plain.variables, before, twice, strict=True) if (a == b).all()]
    assert still
    assert still == [v.path for v, a, b in zip(plain.variables, before, once, strict=True) if (a == b).all()]
    for first, second in zip(once, twice, strict=True):
        np.testing.assert_allclose(second, first, 1e-5, 1e-5)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("name", ["ResNet50", "MobileNetV2"])
def test_remat_keeps_less_than_half_of_the_activations(name: str):
    plain = backbones.build(name, (64, 64, 3), weights="none", alpha=0.35 if name == "MobileNetV2" else None)
    assert memory.activations(memory.remat(plain)) < 0.5 * memory.activations(plain)


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX says what it keeps")
def test_jax_keeps_less_than_half():
    import jax

    def kept(model: keras.Model) -> int:
        fixed = [variable.value for variable in model.non_trainable_variables]

        def loss(weights: list[Any]) -> Any:
            return model.stateless_call(weights, fixed, batch()[0], training=True)[0].sum()

        weights = [variable.value for variable in model.trainable_variables]
        residuals = jax.tree.leaves(jax.eval_shape(lambda weights: jax.vjp(loss, weights)[1], weights))
        return sum(leaf.size for leaf in residuals if leaf.shape[:1] == (8,))

    plain = network()
    assert 0 < kept(memory.remat(plain)) < 0.5 * kept(plain)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "jax", reason="on a CPU, XLA undoes it")
def test_a_step_takes_less_memory():
    code = """
        import resource, sys
        import keras, numpy as np
        from tlkit.training import memory

        x = inputs = keras.Input((128, 128, 3))
        for _ in range(24):
            x = keras.layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
            x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
        model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
        model = memory.remat(model) if sys.argv[1] == "remat" else model
        model.compile("sgd", "mse", jit_compile=False)
        model.train_on_batch(np.ones((1, 128, 128, 3)), np.ones((1, 2)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        model.train_on_batch(np.ones((32, 128, 128, 3)), np.ones((32, 2)))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    plain, twice = (
        int(
            subprocess.run(
                [sys.executable, "-c", textwrap.dedent(code), kind], capture_output=True, text=True, check=True
            ).stdout.split()[-1]
        )
        for kind in ("plain", "remat")
    )
    assert twice < 0.7 * plain, (twice, plain)


# mixed_float16 --------------------------------------------------------------------------------------------------------


def scaled() -> keras.Model:
    """A network whose loss is scaled, from 2 ** 15, and doubled after each 3 good steps."""
    keras.utils.set_random_seed(0)
    inner = keras.optimizers.AdamW(0.01)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.5)])
    model.add(keras.layers.Dense(3))
    return compiled(model, keras.optimizers.LossScaleOptimizer(inner, dynamic_growth_steps=3))


def good(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(8, 4)).astype("float32"), rng.integers(0, 3, 8)


def test_compile_scales_the_loss_of_float16():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        model.compile("adamw", "mse")
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    model.optimizer.build(model.trainable_variables)
    known = {id(variable) for variable in model.optimizer.variables}
    assert {id(model.optimizer.dynamic_scale), id(model.optimizer.step_counter)} <= known
    assert {id(variable) for variable in model.optimizer.inner_optimizer.variables} <= known


def test_an_overflow_halves_the_scale_and_skips_the_step():
    model = scaled()
    model.train_on_batch(*good(0))
    weights, iterations = model.get_weights(), int(model.optimizer.iterations)
    assert float(model.optimizer.dynamic_scale) == 2**15
    x, y = good(1)
    model.train_on_batch(np.full_like(x, np.inf), y)
    assert float(model.optimizer.dynamic_scale) == 2**14
    assert int(model.optimizer.iterations) == iterations == 1
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    for seed in range(3):
        model.train_on_batch(*good(seed))
    assert float(model.optimizer.dynamic_scale) == 2**15


@pytest.mark.usefixtures("uncompiled")
def test_a_restored_scale_goes_on_as_if_nothing_had_happened():
    def steps(model: keras.Model, first: int, last: int) -> None:
        for step in range(first, last):
            x, y = good(step)
            model.train_on_batch(np.full_like(x, np.inf) if step in (2, 7) else x, y)

    whole = scaled()
    steps(whole, 0, 9)
    begun = scaled()
    steps(begun, 0, 5)
    kept, drawn = values(begun), checkpoints.generators()  # the latter are PyTorch's alone
    resumed = scaled()
    resumed.optimizer.build(resumed.trainable_variables)
    for variable, value in zip(variables(resumed), kept, strict=True):
        variable.assign(value)
    checkpoints.set_generators(drawn)
    steps(resumed, 5, 9)
    assert float(whole.optimizer.dynamic_scale) == 2**14  # halved, doubled after 3 steps, halved again
    for expected, found in zip(values(whole), values(resumed), strict=True):
        np.testing.assert_array_equal(found, expected)
