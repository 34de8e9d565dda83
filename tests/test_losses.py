"""Losses and accuracies against Keras' own, scikit-learn and NumPy, for every form of the labels."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import losses as theirs
from sklearn.utils.class_weight import compute_class_weight

from tlkit.training.losses import accuracy, balanced, crossentropy

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (6, 3)).astype("float32")
LABELS = np.array([0, 1, 2, 0, 1, 2])
HOT = np.eye(3, dtype="float32")[LABELS]
SOFT = RNG.dirichlet(np.ones(3), 6).astype("float32")
MANY = RNG.integers(0, 2, (6, 3)).astype("float32")
ONE = LOGITS[:, :1]
BINARY = LABELS % 2


def numbers(given: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(given)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.astype("float64")))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("focal_gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None], LABELS.astype("float32"), HOT, SOFT])
def test_several_logits_equal_keras(labels: np.ndarray, focal_gamma: float, label_smoothing: float):
    made = crossentropy(label_smoothing=label_smoothing, focal_gamma=focal_gamma)
    given: dict[str, Any] = {"from_logits": True, "label_smoothing": label_smoothing, "reduction": None}
    focal = theirs.CategoricalFocalCrossentropy(alpha=1.0, gamma=focal_gamma, **given)
    own = focal if focal_gamma else theirs.CategoricalCrossentropy(**given)
    np.testing.assert_allclose(
        numbers(made(labels, LOGITS)), numbers(own(labels if labels is SOFT else HOT, LOGITS)), 1e-4
    )


@pytest.mark.parametrize("focal_gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("labels", [BINARY, BINARY[:, None], np.eye(2)[BINARY]])
def test_one_logit_equals_keras_and_a_softmax_of_two(labels: np.ndarray, focal_gamma: float):
    found = numbers(crossentropy(focal_gamma=focal_gamma)(labels, ONE))
    focal = theirs.BinaryFocalCrossentropy(gamma=focal_gamma, from_logits=True, reduction=None)
    own = focal if focal_gamma else theirs.BinaryCrossentropy(from_logits=True, reduction=None)
    np.testing.assert_allclose(found, numbers(own(BINARY[:, None], ONE)), 1e-4)
    two = np.concatenate([np.zeros_like(ONE), ONE], -1)
    for soft in (BINARY, SOFT[:, :1] + 0.0):
        made = crossentropy(focal_gamma=focal_gamma, label_smoothing=0.1, class_weights=[0.5, 3.0])
        pair = np.concatenate([1 - soft.reshape(-1, 1), soft.reshape(-1, 1)], -1).astype("float32")
        for form in (soft, pair):
            np.testing.assert_allclose(numbers(made(form, ONE)), numbers(made(pair, two)), 1e-4)


@pytest.mark.parametrize("focal_gamma", [0.0, 2.0])
def test_several_labels_are_a_mean_of_binary_ones(focal_gamma: float):
    made = crossentropy(multi_label=True, focal_gamma=focal_gamma, label_smoothing=0.0 if focal_gamma else 0.2)
    focal = theirs.BinaryFocalCrossentropy(gamma=focal_gamma, from_logits=True, reduction=None)
    plain = theirs.BinaryCrossentropy(from_logits=True, label_smoothing=0.2, reduction=None)
    own = focal if focal_gamma else plain
    np.testing.assert_allclose(numbers(made(MANY, LOGITS)), numbers(own(MANY, LOGITS)), 1e-4)


def test_the_weights_of_classes_count():
    weights = np.array([0.5, 1.0, 4.0])
    logs = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
    made = crossentropy(class_weights=weights.tolist(), label_smoothing=0.1)
    for labels, target in ((LABELS, HOT), (SOFT, SOFT)):
        expected = -((target * 0.9 + 0.1 / 3) * logs).sum(1) * (target @ weights)
        np.testing.assert_allclose(numbers(made(labels, LOGITS)), expected, 1e-5)
    many = crossentropy(class_weights=weights.tolist(), multi_label=True)
    p = sigmoid(LOGITS)
    expected = -(weights * MANY * np.log(p) + (1 - MANY) * np.log(1 - p)).mean(1)
    np.testing.assert_allclose(numbers(many(MANY, LOGITS)), expected, 1e-5)


def test_a_batch_may_have_more_axes():
    """As the nodes of a graph do."""
    found = crossentropy(label_smoothing=0.1)(LABELS[None], LOGITS[None])
    np.testing.assert_allclose(numbers(found), numbers(crossentropy(label_smoothing=0.1)(LABELS, LOGITS))[None], 1e-6)
    assert numbers(accuracy()(LABELS[None], LOGITS[None])).shape == (1, 6)


def test_half_precision_is_computed_in_float32():
    found = crossentropy()(np.array([0]), np.array([[-20.0, 0.0]], "float16"))
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert numbers(found) == pytest.approx(20.0)


@pytest.mark.parametrize("focal_gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("multi_label", [False, True])
def test_far_logits_have_finite_losses_and_gradients(multi_label: bool, focal_gamma: float):
    far = np.array([[1000, -1000, 0], [-1000, 1000, 0], [-1000, -1000, -1000], [1000, 1000, 1000]], "float32")
    labels = np.eye(3, dtype="float32")[[0, 0, 1, 2]]
    loss = crossentropy(multi_label=multi_label, focal_gamma=focal_gamma, label_smoothing=0.1, class_weights=[1, 2, 3])
    assert np.isfinite(numbers(loss(labels, far))).all()
    for made in (loss, lambda y, x: loss(y[:, :1], x[:, :1])):
        if multi_label and made is not loss:
            continue
        layer = keras.layers.Dense(3, kernel_initializer="identity", use_bias=False)
        model = keras.Sequential([keras.Input((3,)), layer])
        model.compile(keras.optimizers.SGD(1e-3), made)
        model.train_on_batch(far, labels)
        assert np.isfinite(numbers(layer.kernel)).all()
        assert not np.array_equal(numbers(layer.kernel), np.eye(3))


def test_the_accuracy_takes_the_labels_of_the_losses():
    right = LOGITS.argmax(1) == LABELS
    for labels in (LABELS, LABELS[:, None], LABELS.astype("float32"), HOT, HOT * 0.6 + 0.1):
        np.testing.assert_array_equal(numbers(accuracy()(labels, LOGITS)), right)
    for labels in (BINARY, BINARY[:, None], np.eye(2)[BINARY]):
        np.testing.assert_array_equal(numbers(accuracy()(labels, ONE)), (ONE[:, 0] > 0) == BINARY)
    many = numbers(accuracy(multi_label=True)(MANY, LOGITS))
    np.testing.assert_allclose(many, ((LOGITS > 0) == (MANY > 0)).mean(1))
    assert 0 < right.mean() < 1
    assert 0 < many.mean() < 1


def test_a_fit_takes_probabilities_in_training_and_integers_in_validation():
    for classes, units, labels in ((3, 3, LABELS), (2, 1, BINARY)):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(units)])
        model.compile(keras.optimizers.SGD(1e-12), crossentropy(class_weights=[1.0] * classes), metrics=[accuracy()])
        hot = np.eye(classes, dtype="float32")[labels]
        history = model.fit(LOGITS, hot, validation_data=(LOGITS, labels), batch_size=4, verbose=0).history
        assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
        for name in ("loss", "accuracy"):
            np.testing.assert_allclose(history[name], history[f"val_{name}"], rtol=1e-5)
        logits = model.predict(LOGITS, verbose=0)
        predicted = logits.argmax(1) if units > 1 else logits[:, 0] > 0
        assert history["accuracy"][0] == pytest.approx((predicted == labels).mean())


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.array([0, 0, 0, 1, 2, 2, 0])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    for form in (labels, labels[:, None], np.eye(3, dtype="float32")[labels]):
        assert balanced(form, 3) == pytest.approx(expected)
    assert balanced(labels, 4) == pytest.approx([*expected * 3 / 4, 1.0])
    assert balanced(np.array([[1, 1], [1, 0], [1, 0]]), 2) == pytest.approx([4 / 6, 4 / 2])
