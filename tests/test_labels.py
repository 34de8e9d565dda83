"""Class names inside a `.keras` file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from tlkit import labels


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
