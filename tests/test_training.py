"""Phases: the schedule, the loss and the frozen features against independent computations; which weights are kept."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

from tlkit import backbones, features, training
from tlkit.data import Photos, batches


@pytest.fixture(scope="module")
def photos() -> Photos:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    pixels = rng.integers(0, 100, (40, 32, 32, 1)) + labels[:, None, None, None] * 100
    return Photos.of(pixels.astype(np.uint8), labels)


def classifier() -> keras.Model:
    keras.utils.set_random_seed(0)
    return backbones.classifier(backbones.build("LetterNet", weights="none"), 2, dropout=0)


def seen(model: keras.Model, *examples: Photos) -> list[features.Features]:
    return features.Extractor(features.pooled(model), engine="keras").extract(*examples)


def test_the_schedule_is_the_published_formula():
    schedule = training.cosine(0.1, 0.2, 100)
    for step in range(100):
        expected = 0.1 * step / 20 if step < 20 else 0.05 * (1 + math.cos(math.pi * (step - 20) / 80))
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_phases_have_a_rate_above_zero(steps: int):
    assert max(float(training.cosine(1.0, 0.1, steps)(step)) for step in range(steps)) > 0


def test_the_smoothed_loss_equals_numpy():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 3)).astype("float32"), np.array([0, 1, 2, 0, 1, 2])
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = np.eye(3)[labels] * 0.9 + 0.1 / 3
    found = keras.ops.convert_to_numpy(training.smoothed_crossentropy(0.1)(labels, logits))
    np.testing.assert_allclose(found, -(target * logs).sum(1), rtol=1e-5)


def test_training_on_features_equals_training_through_the_frozen_backbone(photos: Photos):
    settings = training.Settings(epochs=2, learning_rate=0.1, batch_size=40, label_smoothing=0.1, weight_decay=0.01)
    ours = classifier()
    backbones.freeze(ours)
    training.fit_head(ours, *seen(ours, photos, photos), settings)
    theirs = classifier()
    backbones.freeze(theirs)
    training.fit_full(theirs, photos, photos, settings)  # the same steps, on the photos: one batch, so no order
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert not np.allclose(ours.get_layer("head").kernel, classifier().get_layer("head").kernel)


def test_the_best_epochs_weights_are_kept_and_the_step_goes_on(photos: Photos):
    model = classifier()
    backbones.freeze(model)
    head = training.fit_head(model, *seen(model, photos, photos), training.Settings(epochs=3, learning_rate=0.01))
    kept = model.get_weights()
    backbones.unfreeze(model, "LetterNet")
    # A rate that wrecks the network: what the head phase reached must be kept.
    both = training.fit_full(model, photos, photos, training.Settings(2, learning_rate=10.0), before=head)
    assert [entry["epoch"] for entry in both.epochs] == [1, 2, 3, 4, 5]
    assert [entry["phase"] for entry in both.epochs] == ["head"] * 3 + ["full"] * 2
    assert both.best["phase"] == "head"
    for a, b in zip(kept, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_kept_weights_score_what_the_best_epoch_says(photos: Photos):
    model = classifier()
    settings = training.Settings(epochs=4, learning_rate=0.01)
    history = training.fit_full(model, photos, photos, settings)
    probabilities = training.predict(model, photos)
    loss = -np.log(probabilities[np.arange(40), photos.labels]).mean()
    assert loss == pytest.approx(history.best["val_loss"], abs=1e-4)


def test_early_stopping_waits_for_its_patience(photos: Photos):
    model = classifier()
    settings = training.Settings(epochs=20, learning_rate=1e-12, patience=3)
    backbones.freeze(model)
    history = training.fit_head(model, *seen(model, photos, photos), settings)
    best = history.best["epoch"]
    assert len(history.epochs) == best + 3 < 20


def test_batch_statistics_stay_in_an_unfrozen_backbone(photos: Photos):
    model = classifier()
    backbones.unfreeze(model, "LetterNet")
    before = {weight.path: np.array(weight) for weight in model.non_trainable_weights}
    training.fit_full(model, photos, photos, training.Settings(epochs=1, learning_rate=0.01))
    assert before
    for weight in model.non_trainable_weights:
        np.testing.assert_array_equal(before[weight.path], np.array(weight))


def test_the_best_epoch_is_never_one_whose_loss_is_nan():
    epochs = [{"epoch": 1, "val_loss": math.nan}, {"epoch": 2, "val_loss": 0.5}, {"epoch": 3, "val_loss": math.nan}]
    assert training.History(epochs).best["epoch"] == 2


def test_a_single_unit_learns_two_classes(photos: Photos):
    keras.utils.set_random_seed(0)
    model = backbones.classifier(backbones.build("LetterNet", weights="none"), 1, dropout=0)
    backbones.freeze(model)
    history = training.fit_head(model, *seen(model, photos, photos), training.Settings(epochs=20, learning_rate=0.1))
    assert history.best["val_accuracy"] == 1.0
    right = (training.predict(model, photos)[:, 0] > 0.5) == photos.labels
    assert right.all()
    kernel, bias = model.get_layer("head").get_weights()
    model.get_layer("head").set_weights([kernel * 0, bias * 0 + 0.1])
    settings = training.Settings(epochs=1, learning_rate=1e-9)  # logits stay just above 0, probabilities above a half
    ones = Photos.of(photos.read([1, 3, 5]), [1, 1, 1])
    assert training.fit_head(model, *seen(model, photos, ones), settings).best["val_accuracy"] == 1.0


def test_augmentation_reaches_training_and_never_validation(photos: Photos):
    seen = list(batches(photos, 8, augment={"brightness": 0.9}, labels=False))
    plain = photos.read(range(40))
    assert not np.array_equal(np.concatenate(seen), plain)
    model = classifier()
    calls = []
    original = training.batches

    def spy(given, *args, **kwargs):
        calls.append(kwargs.get("augment"))
        return original(given, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "batches", spy)
        training.fit_full(model, photos, photos, training.Settings(1, 0.01), augment={"flip": True})
    assert calls == [{"flip": True}, None]
