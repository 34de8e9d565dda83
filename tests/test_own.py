"""Networks of one's own become backbones: the cut and the stages are found, and what cannot be one is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import layers

from tlkit import backbones, builders, features
from tlkit.backbones import chain
from tlkit.errors import InvalidInput

SIDE = 32


def conv(filters: int, name: str, strides: int = 2) -> keras.Layer:
    return layers.Conv2D(filters, 3, strides, "same", activation="relu", name=name)


def sequential() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Rescaling(1 / 255),
            conv(4, "a", 1),
            layers.MaxPooling2D(),
            conv(6, "b", 1),
            layers.MaxPooling2D(name="last"),
            layers.Flatten(),
            layers.Dense(16, "relu"),
            layers.Dense(3, "softmax"),
        ],
        name="sequential",
    )


def functional() -> keras.Model:
    """Preprocessing by operations, a residual block, no top."""
    pixels = keras.Input((SIDE, SIDE, 1))
    x = conv(4, "stem_conv")(pixels / 255.0)
    y = conv(8, "wide")(x)
    y = layers.Add(name="sum")([y, conv(8, "branch", 1)(y)])
    return keras.Model(pixels, y, name="functional")


def nested() -> keras.Model:
    """The pattern of Keras' guide to transfer learning: preprocessing, a network inside in inference mode, a top."""
    inner = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), conv(4, "one"), layers.BatchNormalization(), conv(6, "two"), conv(8, "three")]
    )
    inner.trainable = False
    pixels = keras.Input((SIDE, SIDE, 3))
    x = inner(layers.Rescaling(1 / 127.5, -1, name="one")(pixels), training=False)  # `one` is a name inside too
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(pixels, layers.Dense(5, "softmax")(x), name="nested")


def vector() -> keras.Model:
    given = [keras.Input((SIDE, SIDE, 1)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(7, name="hidden")]
    return keras.Sequential([*given, layers.Dense(3)], name="vector")


def class_maps() -> keras.Model:
    top = [layers.Conv2D(3, 1, name="maps"), layers.GlobalAveragePooling2D(), layers.Softmax()]
    return keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), layers.Rescaling(1 / 255), conv(4, "a"), conv(6, "b"), *top], name="class_maps"
    )


def any_size() -> keras.Model:
    given = [keras.Input((None, None, 3)), layers.Rescaling(1 / 255), conv(4, "a"), conv(6, "b")]
    return keras.Sequential([*given, layers.GlobalMaxPooling2D()], name="any_size")


def named_stages() -> keras.Model:
    return builders.build("resnet_mini", (SIDE, SIDE, 1), classes=3)


class Case(NamedTuple):
    make: Callable[[], keras.Model]
    stages: dict[str, str]
    cut: str
    size: int | None = None
    pixels: str | None = None


CASES = [
    Case(sequential, {"stem": "a", "stage1": "last"}, "last"),
    Case(functional, {"stem": "stem_conv", "stage1": "sum"}, "sum"),
    Case(nested, {"stem": "batch_normalization", "stage1": "two", "stage2": "three"}, "three"),
    Case(vector, {"stem": "as_map"}, "hidden"),
    Case(class_maps, {"stem": "a", "stage1": "b"}, "b"),
    Case(any_size, {"stem": "a", "stage1": "b"}, "b", size=24),
    Case(named_stages, {name: name for name in ("stem", "stage1", "stage2", "stage3")}, "stage3", pixels="0..255"),
]


@pytest.fixture(autouse=True)
def fresh_names():
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


def adopted(case: Case) -> tuple[keras.Model, backbones.Own]:
    model = case.make()
    return model, backbones.adopt(model, pixels=case.pixels, size=case.size)  # type: ignore[arg-type]


def flat(model: keras.Model) -> list[keras.Layer]:
    """List the layers of a chain, those of the models inside it too."""
    parts = [flat(layer) if isinstance(layer, keras.Model) else [layer] for layer in model.layers]
    return [layer for part in parts for layer in part if not isinstance(layer, layers.InputLayer)]


def up_to(model: keras.Model, name: str, x: np.ndarray) -> np.ndarray:
    """Compute a layer's output without the code that is tested."""
    if model.name in ("functional", "resnet_mini"):
        return np.asarray(keras.Model(model.input, model.get_layer(name).output)(x))
    for layer in flat(model):
        x = layer(x)
        if layer.name == name:
            return np.asarray(x)
    raise AssertionError(name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.make.__name__)
def test_the_network_computes_what_the_model_does_up_to_its_cut(case: Case):
    model, own = adopted(case)
    assert (own.cut, dict(own.row.stages)) == (case.cut, case.stages)
    x = np.random.default_rng(0).uniform(0, 255, (2, *own.network.input.shape[1:])).astype(np.float32)
    expected = up_to(model, case.cut, x)
    computed = np.asarray(own.network(x))
    assert np.ptp(expected) > 0.01
    assert np.allclose(computed.reshape(expected.shape), expected, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.make.__name__)
def test_stages_are_trained_and_cut_as_those_of_the_table(case: Case):
    _, own = adopted(case)
    model = backbones.classifier(own.network, 3, pooled_stages=2)
    assert list(backbones.stages(model)) == list(case.stages)
    order = [layer.name for layer in own.network.layers]
    x = np.random.default_rng(0).uniform(0, 255, (2, *own.network.input.shape[1:])).astype(np.float32)
    whole = np.asarray(keras.Model(model.input, model.get_layer("head").output)(x))
    for below, stage in zip(case.stages.values(), list(case.stages)[1:], strict=False):
        backbones.unfreeze(model, from_stage=stage)
        expected = {
            weight.path
            for layer in own.network.layers[order.index(below) + 1 :]
            for weight in layer.weights
            if "moving" not in weight.path
        }
        frozen = {weight.path for layer in own.network.layers[: order.index(below) + 1] for weight in layer.weights}
        trained = {weight.path for weight in model.trainable_weights} - {"head/kernel", "head/bias"}
        assert trained == expected
        assert trained
        assert not trained & frozen
        lower, upper = backbones.split(model, from_stage=stage)
        assert np.allclose(np.asarray(upper(lower(x))), whole, atol=1e-5)


def test_a_transformer_with_a_top_keeps_its_blocks():
    model = builders.build("vit_mini", (SIDE, SIDE, 3))
    own = backbones.adopt(model, pixels="0..255")
    assert list(own.row.stages) == ["stem", "stage1", "stage2", "stage3", "stage4"]
    values = np.random.default_rng(0).uniform(0, 1, (2, SIDE, SIDE, 3)).astype("float32")
    token = keras.Model(model.input, model.get_layer("head").input)(values)
    np.testing.assert_allclose(own.network(values)[:, 0, 0], token, rtol=1e-5, atol=1e-6)


def test_scaling_in_a_model_of_its_own_is_found():
    """Keras' guides put preprocessing into a Sequential, which learns nothing."""
    preprocessing = keras.Sequential([layers.CenterCrop(SIDE, SIDE), layers.Rescaling(1 / 255)])
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), preprocessing, conv(4, "a"), conv(6, "b")])
    own = backbones.adopt(model)
    assert (own.pixels, own.pixels_reason) == ("0..255", "as the network scales them itself (Rescaling)")


@pytest.mark.parametrize(("pixels", "mode"), [("-1..1", "tf"), ("caffe", "caffe"), ("torch", "torch")])
def test_pixels_are_scaled_as_keras_applications_does(pixels: str, mode: str):
    plain = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2D(3, 1, name="copy")])
    plain.layers[-1].set_weights([np.eye(3).reshape(1, 1, 3, 3), np.zeros(3)])
    own = backbones.adopt(plain, pixels=pixels)  # type: ignore[arg-type]
    x = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype(np.float32)
    expected = keras.applications.imagenet_utils.preprocess_input(x.copy(), mode=mode)
    assert np.allclose(np.asarray(own.network(x)), expected, atol=1e-3)


def test_cut_and_stages_can_be_given():
    own = backbones.adopt(nested(), cut="two", stages={"stem": "sequential_one", "stage1": "two"})
    assert own.network.output.shape == (None, 8, 8, 6)


def test_the_stores_key_has_the_weights():
    first, second = (backbones.adopt(sequential()).network for _ in range(2))
    keys = [features.Extractor(network, None, "keras").identity for network in (first, second)]
    assert keys[0]["graph"] == keys[1]["graph"]
    assert keys[0]["weights"] != keys[1]["weights"]


def test_the_model_itself_stays_as_it_was():
    model = nested()
    inner = model.layers[2]

    def state() -> list[tuple[str, bool]]:
        return [(layer.name, layer.trainable) for layer in (*model.layers, *inner.layers)]

    before = state()
    x = np.random.default_rng(0).uniform(0, 255, (1, SIDE, SIDE, 3)).astype(np.float32)
    answer = np.asarray(model(x))
    own = backbones.adopt(model)
    for weight in own.network.weights:
        weight.assign(weight * 0)
    assert np.array_equal(np.asarray(model(x)), answer)
    assert state() == before


def two_outputs() -> keras.Model:
    model = sequential()
    return keras.Model(model.inputs[0], [model.outputs[0], model.get_layer("a").output])


class Subclassed(keras.Model):
    def call(self, x):
        return x


def of_shape(*shape: int) -> keras.Model:
    return keras.Sequential([keras.Input(shape), layers.Rescaling(1 / 255), layers.Dense(2)])


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (two_outputs, {}, r"has 2 outputs \(dense_1, a\): a backbone has one"),
        (Subclassed, {}, "is a Subclassed, a subclassed model"),
        (lambda: of_shape(8, 8, 4), {}, "with 1 or 3 channels"),
        (lambda: of_shape(8, 3), {}, "a backbone of photos takes"),
        (lambda: of_shape(8, 16, 3), {}, "8 x 16 pixels, and tlkit makes square ones"),
        (vector, {"size": 24}, r"cannot be built for photos of 24 x 24 pixels \(its own are 32 x 32\)"),
        (vector, {"pixels": "torch"}, "which is for 3 channels"),
        (sequential, {"cut": "b2"}, "backbone.cut is 'b2', which is no layer .* such as"),
        (functional, {"cut": "branch"}, "that everything passes through"),
        (sequential, {"stages": {"base": "last"}}, "stages are called stem, stage1"),
        (sequential, {"stages": {"stem": "b", "stage1": "a"}}, "not above the stage before"),
        (sequential, {"stages": {"stem": "a", "stage1": "b"}}, "let it end there, or give --backbone.cut b"),
        (lambda: keras.Sequential([keras.Input((8, 8, 3)), conv(2, "a")]), {}, "by --backbone.pixels 0..1, -1..1"),
    ],
)
def test_what_cannot_be_a_backbone_is_refused_with_the_reason(make, settings, message):
    with pytest.raises(InvalidInput, match=message) as error:
        backbones.adopt(make(), **settings)
    assert "\n" not in str(error.value)


def test_a_call_beside_which_something_passes_is_no_link():
    model = functional()
    names = [link.name for link in chain.links(model)]
    assert "branch" not in names
    assert names[-1] == "sum"
