"""A model from a stranger takes no more than a file of its size can need, runs no code, and says in one line what is
wrong with it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from tlkit.backbones import modelfiles
from tlkit.backbones.modelfiles import CONFIG, WEIGHTS
from tlkit.errors import InvalidInput

KERNEL = "layers/dense/vars/0"


def small(*layers: Any) -> keras.Model:
    return keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Flatten(), keras.layers.Dense(2)])


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The members of a sound file."""
    path = tmp_path_factory.mktemp("good") / "model.keras"
    small().save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, members: dict[str, bytes | str], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def dense(**changes: Any) -> Callable[[dict[str, bytes]], dict[str, bytes | str]]:
    """Describe the Dense layer otherwise."""

    def change(members: dict[str, bytes]) -> dict[str, bytes | str]:
        config = json.loads(members[CONFIG])
        layer = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Dense")
        layer |= {name: value for name, value in changes.items() if name != "units"}
        layer["config"] |= {name: value for name, value in changes.items() if name == "units"}
        return {**members, CONFIG: json.dumps(config)}

    return change


def weights(edit: Callable[[h5py.File], None]) -> Callable[[dict[str, bytes]], dict[str, bytes | str]]:
    """Change the file of weights."""

    def change(members: dict[str, bytes]) -> dict[str, bytes | str]:
        stream = io.BytesIO(members[WEIGHTS])
        with h5py.File(stream, "r+") as file:
            edit(file)
        return {**members, WEIGHTS: stream.getvalue()}

    return change


def replace(**arguments: Any) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[KERNEL]
        file.create_dataset(KERNEL, **{"shape": (64, 2), "dtype": "f4", **arguments})

    return edit


def link(target: Any) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[KERNEL]
        file[KERNEL] = target

    return edit


def virtual(file: h5py.File) -> None:
    del file[KERNEL]
    layout = h5py.VirtualLayout((64, 2), "f4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", (64, 2))
    file.create_virtual_dataset(KERNEL, layout)


def not_finite(file: h5py.File) -> None:
    file[KERNEL][0, 0] = np.nan


DEEP = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 2}, "registered_name": None}
for _ in range(300):
    DEEP = {"module": "keras", "class_name": "Sequential", "config": {"layers": [DEEP]}, "registered_name": None}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dense(units=50_000_000), "its layers ask for more weights than it holds"),
        (dense(units="x"), "invalid value for `units`"),
        (dense(class_name="TorchModuleWrapper", config={"module": {}}), "."),
        (
            dense(class_name="FlaxLayer", config={"module": "AA==", "method": None}),
            "needs flax, which is not installed",
        ),
        (dense(module="keras_hub.src", class_name="Thing", registered_name="keras_hub>Thing"), "Thing' because"),
        (dense(**DEEP), "."),
        (lambda members: {**members, CONFIG: "[" * 100_000 + "]" * 100_000}, "config.json is nested too deeply"),
        (lambda members: {**members, CONFIG: '{"a":' * 900 + "1" + "}" * 900}, "."),
        (lambda members: {**members, CONFIG: "[1]"}, "its config.json describes no model"),
        (lambda members: {**members, CONFIG: members[CONFIG] + b" " * 2**24}, "config.json has .* bytes, more than"),
        (lambda members: {**members, WEIGHTS: members[WEIGHTS] + bytes(2**27)}, "it would grow from"),
        (lambda members: {**members, WEIGHTS: members[WEIGHTS][:6000]}, "truncated file"),
        (lambda members: {name: members[name] for name in members if name != WEIGHTS}, "holds no model.weights.h5"),
        (weights(replace(shape=(64, 8_000_000), chunks=(64, 1000), compression="gzip")), "h5 would grow from"),
        (weights(replace(external=[("/etc/passwd", 0, 512)])), f"{KERNEL} from elsewhere"),
        (weights(virtual), f"{KERNEL} from elsewhere"),
        (weights(link(h5py.ExternalLink("other.h5", "x"))), f"{KERNEL} from elsewhere"),
        (weights(link(h5py.SoftLink("/layers"))), f"{KERNEL} from elsewhere"),
        (weights(not_finite), "it has 1 numbers in dense.*/kernel that are not finite"),
    ],
)
def test_a_hostile_file_is_one_line(good: dict[str, bytes], tmp_path: Path, change: Callable, says: str):
    path = write(tmp_path / "bad.keras", change(good), zipfile.ZIP_DEFLATED)
    with pytest.raises(InvalidInput, match=f"Keras cannot load 'bad': .*{says}") as error:
        modelfiles.load(path, "'bad'")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 350


@pytest.mark.parametrize("member", [CONFIG, WEIGHTS, "tlkit.json"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(good: dict[str, bytes], tmp_path: Path, member: str):
    path = write(tmp_path / "two.keras", {"tlkit.json": '{"classes": ["a", "b"]}', **good})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, archive.read(member))
    with pytest.raises(InvalidInput, match=f"holds several members {member}"):
        modelfiles.load(path)


@pytest.mark.parametrize(
    "layers",
    [
        [keras.layers.ZeroPadding2D(30_000), keras.layers.GlobalMaxPooling2D(), keras.layers.Reshape((1, 1))],
        [small(keras.layers.UpSampling2D(6000), keras.layers.GlobalMaxPooling2D(), keras.layers.Reshape((1, 1)))],
    ],
)
def test_a_layer_that_would_fill_the_memory_is_found_before_it_does(tmp_path: Path, layers: list[Any]):
    model = small(*layers)
    model.save(tmp_path / "large.keras")
    with pytest.raises(InvalidInput, match=r"its layer .* makes [0-9,]{13} numbers of an example of 64"):
        modelfiles.load(tmp_path / "large.keras")


def test_an_example_that_would_fill_the_memory_is_refused(good: dict[str, bytes], tmp_path: Path):
    pool = [keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(2)]
    keras.Sequential([keras.Input((30_000, 30_000, 1)), *pool]).save(tmp_path / "large.keras")
    with pytest.raises(InvalidInput, match="it takes examples of 900,000,000 numbers"):
        modelfiles.load(tmp_path / "large.keras")


def test_what_was_made_of_layers_of_all_kinds_is_loaded(tmp_path: Path):
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 1.0, 2.0])(pixels)
    seed = 2**30 if keras.backend.backend() == "torch" else 2**31  # Keras' seeds are int32 there
    x = keras.layers.RandomFlip("horizontal", seed=seed)(x)
    x = keras.layers.Conv2D(8, 3, activation="relu")(x)
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    x = keras.layers.Reshape((14, 14 * 8))(x)
    x = keras.layers.MultiHeadAttention(2, 4)(x, x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(pixels, keras.layers.Dense(2)(keras.layers.concatenate([x, keras.ops.tanh(x)])))
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)  # the optimizer's slots are in the file too
    model.save(tmp_path / "model.keras")
    loaded = modelfiles.load(tmp_path / "model.keras")
    x = np.random.default_rng(0).random((2, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)
    assert keras.layers.Dense(3).build((None, 2**21)) is None  # Keras makes large variables again


def test_as_many_examples_at_a_time_as_the_memory_allows(monkeypatch: pytest.MonkeyPatch):
    model = small()
    assert modelfiles.batch_size(model, 32) == 32
    monkeypatch.setattr(
        "tlkit.untrusted.memory.available_memory", lambda: 2 * 4 * 4 * 128 * 5
    )  # 64 numbers in, 64 made of it
    assert modelfiles.batch_size(model, 32) == 5
    monkeypatch.setattr("tlkit.untrusted.memory.available_memory", lambda: 0)
    assert modelfiles.batch_size(model, 32) == 1


def test_a_layer_of_too_many_steps_is_refused(tmp_path: Path):
    samples = keras.Input((2000, 2))
    for name, layer in (("loop", keras.layers.SimpleRNN(2)), ("written", keras.layers.SimpleRNN(2, unroll=True))):
        keras.Model(samples, layer(samples)).save(tmp_path / f"{name}.keras")
    modelfiles.load(tmp_path / "loop.keras")
    with pytest.raises(InvalidInput, match="goes through an example in 2,000 steps, more than 1,024"):
        modelfiles.load(tmp_path / "written.keras")
