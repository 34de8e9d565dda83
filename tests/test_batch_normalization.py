"""Which statistics of BatchNormalization move in training, and which of its weights learn; also saved and loaded."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tlkit import backbones, builders, training
from tlkit.data import Photos

WEIGHTS = {"stage1_conv1/kernel", "head/kernel", "head/bias"}
AFFINE = {"stage1_norm1/gamma", "stage1_norm1/beta"}
STATISTICS = {"stage1_norm1/moving_mean", "stage1_norm1/moving_variance"}
MOVES = {"inference": WEIGHTS | AFFINE, "train": WEIGHTS | AFFINE | STATISTICS, "freeze-affine": WEIGHTS}


@pytest.fixture(scope="module")
def photos() -> Photos:
    rng = np.random.default_rng(0)
    return Photos.of(rng.integers(0, 256, (16, 16, 16, 1)).astype(np.uint8), np.arange(16) % 2)


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    return builders.cnn((16, 16, 1), filters=(2, 3), norm=True, dense=(), classes=2, padding="same")


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    return {weight.path: np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights}


@pytest.mark.thorough
@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("loaded", [False, True], ids=["made", "loaded"])
@pytest.mark.parametrize("mode", MOVES)
def test_what_moves_in_a_stage_that_learns(mode: str, loaded: bool, photos: Photos, tmp_path: Path):
    model = network()
    if loaded:  # whatever was trainable when it was saved
        backbones.unfreeze(model, None, "stage1", "inference")
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
    backbones.unfreeze(model, None, "stage1", mode)
    before = weights(model)
    training.fit_full(model, photos, photos, training.Settings(1, 0.01, batch_size=8, schedule="constant", warmup=0.0))
    after = weights(model)
    assert {path for path in before if not np.array_equal(before[path], after[path])} == MOVES[mode]
    outputs = model.predict(photos.read(range(16)), verbose=0)
    model.save(tmp_path / "trained.keras")
    again = keras.saving.load_model(tmp_path / "trained.keras")
    np.testing.assert_allclose(again.predict(photos.read(range(16)), verbose=0), outputs, atol=1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(weights(again).values(), after.values(), strict=True))


def test_the_statistics_that_move_are_keras_own(photos: Photos):
    """One batch of all photos: each statistic goes the layer's own share of the way to that of the batch."""
    model = network()
    backbones.unfreeze(model, None, None, "train")
    norm, before = model.get_layer("stem_norm1"), weights(model)
    seen = keras.Model(model.input, norm.input).predict(photos.read(range(16)), verbose=0)
    training.fit_full(
        model, photos, photos, training.Settings(1, 1e-12, batch_size=16, schedule="constant", warmup=0.0)
    )
    for statistic, value in (("moving_mean", seen.mean((0, 1, 2))), ("moving_variance", seen.var((0, 1, 2)))):
        path = f"{norm.name}/{statistic}"
        expected = before[path] * norm.momentum + value * (1 - norm.momentum)
        np.testing.assert_allclose(weights(model)[path], expected, rtol=1e-3, err_msg=path)
