"""Heatmaps where the answer is known: exact class activations, gradients, tokens, occlusion, and the deletion test."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tlkit import backbones, builders, explanation
from tlkit.errors import InvalidInput
from tlkit.explanation import heads, heatmaps
from tlkit.explanation.heads import is_exclusive, logits

rng = np.random.default_rng(0)
SPOTS = [(2, 3), (20, 9), (11, 24)]  # top left corners of 6 x 6 spots in photos of 32 x 32


def spotted(classes: int = 2) -> np.ndarray:
    """Photos of noise with a bright spot in the channel of the class."""
    photos = rng.integers(0, 60, (len(SPOTS), 32, 32, 3)).astype(np.uint8)
    for number, (row, column) in enumerate(SPOTS):
        photos[number, row : row + 6, column : column + 6, number % classes] = 255
    return photos


def channel_model(last: str = "linear") -> keras.Model:
    """A network whose classes are the first two channels, averaged in squares of 4 x 4 and then over all."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.AveragePooling2D(4, name="stage1")(keras.layers.Rescaling(1 / 25)(inputs))
    if last == "linear":
        x = keras.layers.GlobalAveragePooling2D()(x)
    else:  # no average: logits of a dense layer on all cells
        x = keras.layers.Flatten()(keras.layers.ReLU(name="stage2")(x))
    kernel = np.eye(3, 2) if last == "linear" else np.tile(np.eye(3, 2), (64, 1)) / 64
    head = keras.layers.Dense(2, activation="softmax", name="head")
    model = keras.Model(inputs, head(x))
    head.set_weights([kernel, np.zeros(2)])
    return model


def hottest(maps: np.ndarray, size: int = 32) -> list[tuple[int, int]]:
    full = [explanation.resized(each, (size, size)) for each in maps]
    return [tuple(int(i) for i in np.unravel_index(each.argmax(), each.shape)) for each in full]


@pytest.mark.parametrize(("last", "way"), [("linear", "activation"), ("dense", "layer"), ("dense", "occlusion")])
def test_the_spot_that_decides_is_found(last: str, way: str):
    explainer = explanation.explainer(channel_model(last), "occlusion" if way == "occlusion" else "auto")
    assert explainer.way == way
    maps, probabilities = explainer.heatmaps(spotted(), np.full(3, -1))
    assert probabilities.argmax(axis=1).tolist() == [0, 1, 0]
    for (row, column), (top, left) in zip(hottest(maps), SPOTS, strict=True):
        assert top - 4 <= row <= top + 9
        assert left - 4 <= column <= left + 9
    assert maps.max() == 1
    assert maps.min() >= 0


def test_the_other_class_is_explained_on_request():
    maps, _ = explanation.explainer(channel_model()).heatmaps(spotted(), np.array([1, 0, 1]))
    row, column = hottest(maps)[0]
    assert not (0 <= row - 2 <= 6 and 0 <= column - 3 <= 6)  # the spot speaks against it


def test_class_activations_add_up_to_the_logits_of_two_stages():
    backbone = backbones.build("MobileNet", (64, 64, 3), weights="none", alpha=0.25)
    model = backbones.classifier(backbone, 4, pooled_stages=2)
    kernel, bias = rng.normal(size=(384, 4)), rng.normal(size=4)
    backbones.set_head(model, kernel, bias)
    (head,) = heads(model)
    assert [(each.map.shape[1:], each.start) for each in head.maps] == [((4, 4, 128), 0), ((2, 2, 256), 128)]
    x = rng.integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    raw = np.asarray(keras.Model(model.input, head.dense.output)(x))
    classes = np.array([1, 3])
    cells, probabilities = heatmaps.activation(model, [head])(x, classes)
    assert cells.shape == (2, 4, 4)
    np.testing.assert_allclose(cells.sum(axis=(1, 2)), raw[[0, 1], classes] - raw.mean(axis=1), atol=1e-4)
    np.testing.assert_allclose(probabilities, model.predict_on_batch(x), atol=1e-6)


def test_a_class_that_is_decided_by_what_is_absent_has_a_heatmap():
    """A dark photo is of the class that has no channel: only the bias speaks for it, and least against it the spot."""
    model, dark = channel_model(), np.zeros((1, 32, 32, 3), np.uint8)
    dark[0, 8:12, 16:20] = [255, 255, 0]
    model.get_layer("head").set_weights([np.array([[-4.0, 1.0], [-4.0, 1.0], [0.0, 0.0]]), np.array([3.0, -3.0])])
    maps, probabilities = explanation.explainer(model).heatmaps(dark, np.array([-1]))
    assert probabilities.argmax() == 0
    assert maps[0, 2, 4] == 0
    assert (np.delete(maps.ravel(), 2 * 8 + 4) == 1).all()
    absent, _ = explanation.explainer(model).heatmaps(dark, np.array([1]))  # the spot alone speaks for the other
    assert np.flatnonzero(absent).tolist() == [2 * 8 + 4]


def test_what_all_classes_share_is_no_reason():
    model, photo = channel_model(), spotted()[:1]
    maps, _ = explanation.explainer(model).heatmaps(photo, np.array([-1]))
    kernel, bias = model.get_layer("head").get_weights()
    model.get_layer("head").set_weights([kernel + np.array([[0.0], [0.0], [9.0]]), bias + 7])
    shifted, _ = explanation.explainer(model).heatmaps(photo, np.array([-1]))
    np.testing.assert_allclose(maps, shifted, atol=1e-4)
    model = channel_model("dense")
    maps, _ = explanation.explainer(model).heatmaps(photo, np.array([-1]))
    kernel, bias = model.get_layer("head").get_weights()
    model.get_layer("head").set_weights([kernel + rng.random((len(kernel), 1)), bias])
    shifted, _ = explanation.explainer(model).heatmaps(photo, np.array([-1]))
    np.testing.assert_allclose(maps, shifted, atol=1e-4)


def test_several_heads_and_mirror_images_are_put_together():
    one, two = (backbones.build("MobileNet", (64, 64, 3), weights="none", alpha=alpha) for alpha in (0.25, 0.5))
    first = backbones.JoinedHead([one, two], rng.normal(size=(768, 3)), np.zeros(3), mirrored=True)
    second = backbones.JoinedHead([one], rng.normal(size=(256, 3)), np.zeros(3))
    model = backbones.joined([first, second])
    parts = [[(each.start, each.share, each.mirrored) for each in head.maps] for head in heads(model)]
    assert parts[0] == [(0, 0.5, False), (0, 0.5, True), (256, 0.5, False), (256, 0.5, True)]
    assert parts[1] == [(0, 1.0, False)]
    x = rng.integers(0, 256, (1, 64, 64, 3)).astype(np.float32)
    explainer = explanation.explainer(backbones.joined([first]))
    maps, _ = explainer.heatmaps(x, np.zeros(1, int))
    mirrored, _ = explainer.heatmaps(x[:, :, ::-1], np.zeros(1, int))
    np.testing.assert_allclose(maps, mirrored[:, :, ::-1], atol=1e-4)  # the model sees no left and right


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("averaged", ["logits", "probabilities"])
def test_averages_of_logits_and_of_probabilities_have_their_own_logits(averaged: str, nested: bool):
    x = keras.Input((4,))
    last = "softmax" if averaged == "probabilities" else None
    layers = [keras.layers.Dense(3, activation=last) for _ in range(2)]
    parts = [keras.Sequential([keras.Input((4,)), layer])(x) if nested else layer(x) for layer in layers]
    average = keras.layers.Average()(parts)
    model = keras.Model(x, average if last else keras.layers.Softmax()(average))
    values = rng.normal(size=(5, 4)).astype(np.float32)
    found = np.asarray(keras.Model(x, logits(model))(values))
    expected = np.log(model.predict_on_batch(values))
    np.testing.assert_allclose(*(each - each.mean(axis=1, keepdims=True) for each in (found, expected)), atol=1e-5)
    assert is_exclusive(model)
    raw = keras.Model(x, keras.layers.Average()([keras.layers.Dense(3)(x) for _ in range(2)]))
    assert logits(raw) is raw.outputs[0]
    assert not is_exclusive(raw)


def test_independent_probabilities_of_nested_models_exclude_nothing():
    x = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="sigmoid")])
    attention = keras.layers.Multiply()([x, keras.layers.Softmax()(keras.layers.Dense(4)(x))])
    model = keras.Model(x, keras.layers.Average()([inner(attention), inner(x)]))
    assert not is_exclusive(model)  # the softmax in its middle is none of its classes
    values = rng.normal(size=(5, 4)).astype(np.float32)
    odds = np.asarray(keras.Model(x, logits(model))(values))
    np.testing.assert_allclose(1 / (1 + np.exp(-odds)), model.predict_on_batch(values), atol=1e-5)


def test_patches_of_a_vision_transformer_have_heatmaps_though_the_head_reads_the_class_token():
    model = builders.build("vit_mini", (32, 32, 3), classes=3)
    explainer = explanation.explainer(model)
    maps, _ = explainer.heatmaps(rng.random((2, 32, 32, 3)).astype(np.float32), np.full(2, -1))
    assert (explainer.way, maps.shape, maps.max()) == ("layer", (2, 4, 4), 1)


def test_nested_models_of_plain_keras_and_single_units_are_explained():
    inner = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.GlobalAveragePooling2D()])
    model = keras.Sequential([keras.Input((8, 8, 1)), inner, keras.layers.Dense(1, activation="sigmoid")])
    model.layers[-1].set_weights([np.array([[4.0]]), np.array([-1.0])])
    x = np.zeros((1, 8, 8, 1), np.float32)
    x[0, 1, 6] = 9
    explainer = explanation.explainer(model)
    assert explainer.way == "activation"
    assert hottest(explainer.heatmaps(x, np.array([1]))[0], 8) == [(1, 6)]
    assert explainer.heatmaps(x, np.array([0]))[0][0, 1, 6] == 0


@pytest.mark.thorough
def test_sounds_and_volumes_have_heatmaps_of_their_rank():
    for shape in ((800, 1), (12, 12, 12, 1)):
        model = builders.cnn(shape, classes=3, dense=())
        maps, _ = explanation.explainer(model).heatmaps(rng.random((2, *shape)).astype(np.float32), np.full(2, -1))
        assert maps.ndim == len(shape)


def test_what_cannot_be_explained_is_said(monkeypatch: pytest.MonkeyPatch):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="softmax")])
    with pytest.raises(InvalidInput, match="has no layer with a map"):
        explanation.explainer(model)
    with pytest.raises(InvalidInput, match="its head is not linear"):
        explanation.explainer(channel_model("dense"), "activation")
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    with pytest.raises(NotImplementedError, match="needs gradients, which openvino does not compute"):
        heatmaps.explainer(channel_model("dense"))


def test_deletion_tells_true_heatmaps_from_false_ones():
    model, photos = channel_model(), np.concatenate([spotted() for _ in range(8)])
    predict = model.predict_on_batch
    maps, probabilities = explanation.explainer(model).heatmaps(photos, np.full(len(photos), -1))
    labels = probabilities.argmax(axis=1)
    true = explanation.deletion(predict, photos, maps, labels)
    assert (true.marked > true.random + 0.05).mean() > 0.8
    false = explanation.deletion(predict, photos, maps[:, ::-1, ::-1], labels)
    assert false.marked.mean() < 0.5 * true.marked.mean()


def test_a_gate_inside_is_not_taken_for_the_ending():
    x = keras.Input((4,))
    gated = keras.layers.Dense(3)(x) * keras.layers.Dense(3, "sigmoid")(x)
    model = keras.Model(x, gated)
    assert not is_exclusive(model)
    assert logits(model) is model.outputs[0]
    assert is_exclusive(keras.Model(x, keras.layers.Dense(3, activation=keras.layers.Softmax())(x)))
