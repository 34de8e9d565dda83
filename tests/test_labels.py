"""Class names inside a `.keras` file."""

from __future__ import annotations

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
