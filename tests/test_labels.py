"""Class names inside a `.keras` file."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from tlkit import labels
from tlkit.data.modalities import Reading
from tlkit.errors import InvalidInput


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)
    return path


def test_names_travel_and_plain_keras_still_loads_the_file(saved: Path):
    before = keras.saving.load_model(saved)
    labels.write(saved, ["../Löwenzahn", "花"])
    assert labels.read(saved) == ["../Löwenzahn", "花"]
    x = np.ones((1, 3), "float32")
    np.testing.assert_array_equal(keras.saving.load_model(saved).predict(x), before.predict(x))


def test_a_file_without_names_has_none(saved: Path):
    assert labels.read(saved) is None


def test_names_are_written_once(saved: Path):
    labels.write(saved, ["a", "b"])
    with pytest.raises(ValueError, match="holds class names already"):
        labels.write(saved, ["c", "d"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"classes": ["a", "a"]}', "gives two classes the name a: each needs its own"),
        ('{"classes": ["a", " "]}', "gives class 1 no name"),
        ('{"classes": ["a\\u001b[31m", "b"]}', r"gives class 0 the name a\\x1b\[31m: names have no control characters"),
        ('{"classes": ["a\\ud800", "b"]}', "gives class 0 the name"),
        (f'{{"classes": ["{"a" * 5000}", "b"]}}', "gives class 0 the name a{40}…"),
        ('{"classes": "ab"}', "does not hold a list of class names"),
        ('["a", "b"]', "does not hold a list of class names"),
        ("[" * 100_000, "does not hold a list of class names: .* nested too deeply"),
        ("words", "does not hold a list of class names"),
    ],
)
def test_what_is_no_list_of_names_is_one_line(saved: Path, content: str, says: str):
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr(labels.MEMBER, content)
    with pytest.raises(ValueError, match=says) as error:
        labels.read(saved)
    assert str(error.value).isprintable()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_lists_of_names_are_refused(saved: Path):
    labels.write(saved, ["a", "b"])
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr(labels.MEMBER, '{"classes": ["c", "d"]}')
    with pytest.raises(ValueError, match=r"it holds 2 members tlkit\.json"):
        labels.read(saved)


@pytest.mark.parametrize("names", [["a", "a"], ["", "b"]])
def test_names_that_are_not_all_there_and_different_are_not_written(saved: Path, names: list[str]):
    with pytest.raises(ValueError, match="not all given and different"):
        labels.write(saved, names)
    assert labels.read(saved) is None


@pytest.mark.parametrize("reading", [Reading(), Reading("crop"), Reading("pad", white=4095)])
def test_how_files_are_read_travels_with_the_model(saved: Path, reading: Reading):
    labels.write(saved, ["a", "b"], reading.changed)
    assert Reading.of(labels.read_reading(saved)) == reading
    assert labels.read(saved) == ["a", "b"]


def test_a_file_that_does_not_say_how_files_are_read_means_the_default(saved: Path):
    assert Reading.of(labels.read_reading(saved)) == Reading()


@pytest.mark.parametrize(
    ("reading", "says"),
    [
        ('"crop"', "the reading is 'crop': it must be settings with their names"),
        ('{"resize": "\\u001b[31m"}', r"the reading has 'resize': '\\x1b\[31m', which this version of tlkit does not"),
        ('{"resize": ["crop"]}', r"the reading has 'resize': \['crop'\], which"),
        ('{"resize": null}', "the reading has 'resize': None, which"),
        ('{"white": true}', "the reading has 'white': True, which"),
        ('{"white": -1}', "the reading has 'white': -1, which"),
        (f'{{"white": 1{"0" * 400}}}', "the reading has 'white': 1000"),
        ('{"turn": 90}', "the reading has 'turn': 90, which"),
        (f'{{"{"a" * 5000}": 1}}', "the reading has 'aaa"),
    ],
)
def test_what_is_no_reading_is_one_short_line(saved: Path, reading: str, says: str):
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr(labels.MEMBER, f'{{"classes": ["a", "b"], "reading": {reading}}}')
    with pytest.raises(InvalidInput, match=says) as error:
        Reading.of(labels.read_reading(saved))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 200


def again(model: keras.Model, folder: Path) -> keras.Model:
    """Save and load a model as plain Keras does."""
    path = folder / "again.keras"
    model.save(path)
    assert "tlkit.json" not in zipfile.ZipFile(path).namelist()
    return keras.saving.load_model(path, compile=False)


def functional() -> keras.Model:
    inputs = keras.Input((4,), name="pixels")
    x = keras.layers.Dropout(0.3, seed=7)(inputs)
    x = keras.layers.Dense(2, name="head", dtype="float32")(x)
    return keras.Model(inputs, keras.layers.Activation("softmax", name="probabilities", dtype="float32")(x))


def sequential() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(2, "softmax")])


@pytest.mark.parametrize("make", [functional, sequential])
def test_plain_keras_keeps_class_names_and_the_way_files_are_read(tmp_path: Path, make):
    model, path = make(), tmp_path / "model.keras"
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    expected = keras.ops.convert_to_numpy(model(x))
    model.save(path)
    labels.write(path, ["cat", "Löwenzahn"], {"resize": "crop"})
    assert not list(tmp_path.glob("tmp*"))
    loaded = keras.saving.load_model(path, compile=False)
    assert labels.of(loaded) == ["cat", "Löwenzahn"]
    assert loaded.layers[-1].name == model.layers[-1].name  # what exports call their output
    assert np.array_equal(keras.ops.convert_to_numpy(loaded(x)), expected)
    twice = again(again(loaded, tmp_path), tmp_path)
    assert labels.of(twice) == labels.read(tmp_path / "again.keras") == ["cat", "Löwenzahn"]
    assert labels.read_reading(tmp_path / "again.keras") == {"resize": "crop"}
    labels.write(tmp_path / "again.keras", ["a", "b"])  # written again: no second layer
    renamed = keras.saving.load_model(tmp_path / "again.keras", compile=False)
    assert labels.of(renamed) == labels.read(tmp_path / "again.keras") == ["a", "b"]
    assert np.array_equal(keras.ops.convert_to_numpy(renamed(x)), expected)


@pytest.mark.slow
def test_plain_keras_needs_no_tlkit_for_them(tmp_path: Path):
    functional().save(tmp_path / "model.keras")
    labels.write(tmp_path / "model.keras", ["cat", "dog"])
    code = "import keras; print(keras.saving.load_model('model.keras').get_layer('class_names').seed['classes'])"
    environment = os.environ | {"PYTHONPATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "['cat', 'dog']", done.stderr


def test_a_model_with_several_outputs_has_names_in_the_file_alone(tmp_path: Path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [keras.layers.Dense(2)(inputs), keras.layers.Dense(2)(inputs)])
    model.save(tmp_path / "model.keras")
    labels.write(tmp_path / "model.keras", ["a", "b"])
    assert labels.read(tmp_path / "model.keras") == ["a", "b"]
    assert labels.of(keras.saving.load_model(tmp_path / "model.keras")) is None


@pytest.mark.parametrize("seed", [{"classes": ["a", "a"]}, {"classes": ["a\x1b", "b"]}, {"classes": 3}, {}])
def test_names_in_a_layer_are_checked_too(tmp_path: Path, seed):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0, seed=seed, name="class_names")])
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"class_names|tlkit\.json"):
        labels.of(model)
    with pytest.raises(ValueError, match=r"tlkit\.json"):
        labels.read(tmp_path / "model.keras")
