"""Engines: equal outputs in the order of the photos, a choice no clock makes, and one line where one cannot run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from tlkit import backbones, startup
from tlkit.errors import InvalidInput
from tlkit.features import engines

FLOAT, BYTES = "float32", np.dtype(np.uint8)
HAS_OPENVINO = (
    keras.backend.backend() in ("tensorflow", "openvino") and importlib.util.find_spec("openvino") is not None
)
needs_openvino = pytest.mark.skipif(not HAS_OPENVINO, reason="OpenVINO is not installed, or cannot read this backend")
ENGINES = ["keras", pytest.param("openvino", marks=needs_openvino)]


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    return backbones.build("LetterNet", weights="none")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (45, 32, 32, 1), np.uint8)


@pytest.fixture(scope="module")
def reference(network: keras.Model, pixels: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(network(pixels.astype(np.float32), training=False))


def cosine(given: np.ndarray, reference: np.ndarray) -> float:
    a, b = given.reshape(len(given), -1), reference.reshape(len(reference), -1)
    return float(((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).min())


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_gives_what_the_network_gives_in_order(
    network: keras.Model, pixels: np.ndarray, reference: np.ndarray, name: str
):
    engine = engines.make(name, network, FLOAT, BYTES)
    sizes = [8, 1, 8, 5, 7, 8, 2, 6]  # 45
    parts = np.split(pixels, np.cumsum(sizes)[:-1])
    outputs = list(engine.run(iter(parts)))
    assert [len(part) for part in outputs] == sizes
    given = np.concatenate(outputs)
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, reference, atol=1e-5 * np.abs(reference).max())
    assert cosine(given, reference) >= 0.9999
    assert list(engine.run([])) == []


@pytest.mark.parametrize("name", ENGINES)
def test_batches_of_all_sizes(network: keras.Model, pixels: np.ndarray, reference: np.ndarray, name: str):
    engine = engines.make(name, network, FLOAT, BYTES)
    assert engine.name == name
    for size in {1, engine.batch_size - 1, engine.batch_size}:
        (given,) = engine.run([pixels[:size]])
        np.testing.assert_allclose(given, reference[:size], atol=1e-5 * np.abs(reference).max())


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="its graph takes any size")
def test_keras_is_always_given_one_size(network: keras.Model, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    """Each other one would be compiled anew, on a GPU for minutes."""
    sizes, real = [], network.predict_on_batch
    monkeypatch.setattr(network, "predict_on_batch", lambda batch: sizes.append(len(batch)) or real(batch))
    engine = engines.make("keras", network, FLOAT, BYTES)
    list(engine.run([pixels[:8], pixels[:1], pixels[: engine.batch_size]]))
    assert sizes == [engine.batch_size] * 3


@needs_openvino
def test_outputs_are_copies_and_many_batches_keep_their_order(
    network: keras.Model, pixels: np.ndarray, reference: np.ndarray
):
    engine = engines.make("openvino", network, FLOAT, BYTES)
    order = np.random.default_rng(1).integers(0, len(pixels), 200)
    kept = list(engine.run(pixels[i : i + 1].copy() for i in order))  # inputs that nobody else holds
    np.testing.assert_allclose(np.concatenate(kept), reference[order], atol=1e-5 * np.abs(reference).max())


@pytest.mark.parametrize("name", ENGINES)
def test_what_goes_wrong_while_batches_are_read_comes_through(network: keras.Model, pixels: np.ndarray, name: str):
    def reading():
        yield pixels[:8]
        raise InvalidInput("7.png: not an image")

    engine = engines.make(name, network, FLOAT, BYTES)
    with pytest.raises(InvalidInput, match=r"7\.png"):
        list(engine.run(reading()))
    assert len(next(engine.run([pixels[:8], pixels[8:16]]))) == 8  # and one that is left alone half-way does no harm


def test_random_layers_are_off(pixels: np.ndarray):
    noisy = keras.Sequential([keras.Input((32, 32, 1)), keras.layers.Dropout(0.5), keras.layers.Flatten()])
    (given,) = engines.make("keras", noisy, FLOAT, BYTES).run([pixels[:4]])
    np.testing.assert_array_equal(given, pixels[:4].reshape(4, -1))


# Which one ------------------------------------------------------------------------------------------------------------


def stand_in(monkeypatch: pytest.MonkeyPatch, change=lambda outputs: outputs, seconds: float = 0.0) -> None:
    """Let OpenVINO be there, and give what Keras gives, changed, after so many seconds for each batch."""
    keras_engine = engines._keras

    def slowly(outputs: np.ndarray) -> np.ndarray:
        time.sleep(seconds)
        return change(outputs)

    def openvino(network, precision, dtype, traced=None):
        inner = keras_engine(network, dtype)
        return engines.Engine("openvino", 8, lambda batches: map(slowly, inner.run(batches)))

    monkeypatch.setattr(engines, "unavailable", lambda precision: "")
    monkeypatch.setattr(engines, "_openvino", openvino)


@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_openvino_is_chosen_where_it_agrees_however_slow_the_machine_makes_it(
    network: keras.Model, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch, seconds: float
):
    stand_in(monkeypatch, seconds=seconds)
    engine, found = engines.choose(network, FLOAT, pixels)
    assert (engine.name, found) == ("openvino", "")


def one_photo_otherwise(outputs: np.ndarray) -> np.ndarray:
    changed = outputs.copy()
    changed[0] = changed[0, ..., ::-1]
    return changed


def three_times(outputs: np.ndarray) -> np.ndarray:
    return outputs * 3


def not_a_number(outputs: np.ndarray) -> np.ndarray:
    return outputs * np.float32(np.nan)


@pytest.mark.skipif(keras.backend.backend() == "openvino", reason="Keras itself is OpenVINO there")
@pytest.mark.parametrize("change", [one_photo_otherwise, three_times, np.negative, np.zeros_like, not_a_number])
def test_an_engine_that_gives_other_numbers_is_not_chosen(
    network: keras.Model, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch, change
):
    stand_in(monkeypatch, change)
    engine, found = engines.choose(network, FLOAT, pixels)
    assert engine.name == "keras"
    assert found.startswith("openvino's outputs differ from Keras' by ")


def test_outputs_that_are_zero_agree(pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    zero = keras.Sequential([keras.Input((32, 32, 1)), keras.layers.Rescaling(0.0)])
    stand_in(monkeypatch)
    assert engines.choose(zero, FLOAT, pixels)[0].name == "openvino"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("Exception from src/a.cpp:3:\nException from src/b.cpp:9:\nno such layer\n\n"), "no such layer"),
        (NotImplementedError(), "NotImplementedError"),
    ],
)
def test_a_network_that_openvino_cannot_run(
    network: keras.Model, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
):
    def fail(*_):
        raise error

    monkeypatch.setattr(engines, "unavailable", lambda precision: "")
    monkeypatch.setattr(engines, "_openvino", fail)
    engine, found = engines.choose(network, FLOAT, pixels)
    assert (engine.name, found) == ("keras", f"openvino cannot run this network: {reason}")
    with pytest.raises(InvalidInput, match=f"'openvino', which cannot run this network: {reason}; choose keras or aut"):
        engines.make("openvino", network, FLOAT, BYTES)


def test_where_it_is_unavailable_nothing_is_tried(
    network: keras.Model, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engines, "unavailable", lambda precision: "this processor has no bfloat16")
    monkeypatch.setattr(engines, "_openvino", None)
    engine, found = engines.choose(network, FLOAT, pixels)
    assert (engine.name, found) == ("keras", "openvino: this processor has no bfloat16")


def test_an_engine_that_does_not_exist_is_refused():
    with pytest.raises(InvalidInput, match=r"features\.engine is 'onnx': keras, openvino or auto"):
        engines.check("onnx", FLOAT)
    engines.check("auto", FLOAT)


class NoCore:
    def get_property(self, device: str, name: str) -> list[str]:
        return ["FP32", "INT8"]


@pytest.mark.parametrize(
    ("target", "value", "precision", "reason"),
    [
        ("importlib.util.find_spec", None, FLOAT, "it is not installed (pip install openvino)"),
        ("keras.backend.backend", "jax", FLOAT, "it cannot read networks from Keras' jax backend"),
        ("tlkit.runtime.device", ("gpu", (9, 0)), FLOAT, "it is for CPUs, and Keras computes on a GPU here"),
        (None, None, "mixed_float16", "it does not support mixed_float16"),
        ("tlkit.inference.core", NoCore(), "mixed_bfloat16", "this processor has no bfloat16"),
    ],
)
def test_one_line_says_why_openvino_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, target: str | None, value: object, precision: str, reason: str
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("keras.backend.backend", lambda: "tensorflow")
    monkeypatch.setattr("tlkit.runtime.device", lambda: ("cpu", (0, 0)))
    if target:
        monkeypatch.setattr(target, lambda *_: value)
    assert engines.unavailable(precision).startswith(reason)
    with pytest.raises(InvalidInput) as raised:
        engines.check("openvino", precision)
    assert str(raised.value).startswith(f"features.engine is 'openvino': {reason}")
    assert str(raised.value).endswith("; choose keras or auto")
    engines.check("keras", precision)


def test_a_version_says_what_numbers_depend_on(monkeypatch: pytest.MonkeyPatch):
    before = engines.version("keras")
    assert f"keras {keras.__version__} {keras.backend.backend()} " in before
    monkeypatch.setattr("tlkit.runtime.device", lambda: ("gpu", (9, 0)))
    assert engines.version("keras") != before
    assert f"keras {keras.__version__}" in engines.version("openvino")  # it reads what Keras makes of the network
    monkeypatch.setattr(engines.metadata, "version", lambda name: f"1 of {name}")
    assert "openvino 1 of openvino" in engines.version("openvino")


# OpenVINO itself ------------------------------------------------------------------------------------------------------


def has_bfloat16() -> bool:
    return HAS_OPENVINO and not engines.unavailable("mixed_bfloat16")


@needs_openvino
def test_bfloat16_is_close_to_float32(network: keras.Model, pixels: np.ndarray, reference: np.ndarray):
    if not has_bfloat16():
        pytest.skip("this processor has no bfloat16")
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        mixed = backbones.classifier(backbones.build("LetterNet", weights="none"), 3)
    finally:
        keras.config.set_dtype_policy(before)
    mixed.get_layer("backbone").set_weights(network.get_weights())
    lower = keras.Model(mixed.input, mixed.get_layer("pool").output)
    engine = engines.make("openvino", lower, "mixed_bfloat16", BYTES)
    given = np.concatenate(list(engine.run([pixels[:8], pixels[8:13]])))
    expected = reference[:13].mean(axis=(1, 2))
    assert given.dtype == np.float32
    assert cosine(given, expected) >= 0.98
    assert np.abs(given - expected).max() > 1e-5 * np.abs(expected).max()  # else it computes in float32
    assert engines.choose(lower, "mixed_bfloat16", pixels)[0].name == "openvino"


@needs_openvino
@pytest.mark.parametrize(("consent", "off"), [(None, True), ("0", True), ("1", False)])
def test_telemetry_is_off_unless_the_user_has_turned_it_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, consent: str | None, off: bool
):
    if consent:
        (tmp_path / "intel").mkdir()
        (tmp_path / "intel" / "openvino_telemetry").write_text(consent, encoding="utf-8")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setitem(sys.modules, "openvino", object())  # nothing is to be sent from here
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)
    del sys.modules["openvino_telemetry"]
    startup.openvino()
    assert ("openvino_telemetry" in sys.modules) == off
    assert sys.modules.get("openvino_telemetry") is None


@needs_openvino
@pytest.mark.slow
def test_converting_writes_nothing_into_the_home_folder(tmp_path: Path):
    script = (
        "import sys, keras, numpy as np; from tlkit import engines\n"
        "network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Rescaling(2.0)])\n"
        "engine = engines.make('openvino', network, 'float32', np.dtype('uint8'))\n"
        "print(next(engine.run([np.ones((1, 4, 4, 1), np.uint8)])).sum(), sys.modules['openvino_telemetry'])"
    )
    home = {"HOME": str(tmp_path), "KERAS_HOME": os.environ.get("KERAS_HOME", str(tmp_path / ".keras"))}
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, **home}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # a process that ends right after its last batch ends well, too
    assert done.stdout.split() == ["32.0", "None"]
    assert not (tmp_path / "intel").exists()
