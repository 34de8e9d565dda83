"""Class names inside a `.keras` file."""

from __future__ import annotations

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
