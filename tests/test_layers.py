"""Layers that Keras has not, and blocks of any rank, against the reference in NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tlkit import layers, reference
from tlkit.errors import InvalidInput

RNG = np.random.default_rng(0)


def called(function, x: np.ndarray) -> tuple[np.ndarray, keras.Model]:
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, function(inputs))
    return model.predict(x, verbose=0), model


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("padding", "strides"), [("same", 2), ("valid", 2), (2, 1), (2, 2), (1, 2)])
def test_convolution_pads_as_it_says(rank: int, padding, strides: int):
    x = RNG.normal(size=(2, *[9] * rank, 4)).astype("float32")
    found, model = called(lambda t: layers.conv(t, 6, 5, strides, padding=padding, groups=2, name="c"), x)
    kernel, bias = model.get_layer("c").get_weights()
    np.testing.assert_allclose(found, reference.conv(x, kernel, strides, padding, groups=2) + bias, atol=1e-4)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("strides", [1, 2])
def test_depthwise_convolution_has_one_kernel_a_channel(rank: int, strides: int):
    x = RNG.normal(size=(2, *[7] * rank, 4)).astype("float32")
    found, model = called(lambda t: layers.depthwise_conv(t, 3, strides, initializer="he_normal", name="d"), x)
    kernel, bias = model.get_layer("d").get_weights()
    kernel = kernel.reshape(*[3] * rank, 1, 4)
    np.testing.assert_allclose(found, reference.conv(x, kernel, strides, "same", groups=4) + bias, atol=1e-4)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["max", "average"])
def test_pools_of_any_rank(rank: int, kind: str):
    x = RNG.uniform(size=(2, *[7] * rank, 3)).astype("float32")
    oracle = {"max": reference.max_pool, "average": reference.average_pool}[kind]
    found, _ = called(lambda t: layers.pool(t, kind, 3, 2, padding="same", name="p"), x)
    np.testing.assert_allclose(found, oracle(x, 3, 2, "same"), atol=1e-6)
    short = {"max": "max", "average": "avg"}[kind]
    found, _ = called(lambda t: layers.global_pool(t, short), x)
    np.testing.assert_allclose(found, reference.global_pool(x, short), atol=1e-6)


def test_the_pool_of_a_resnet_pads_by_one():
    x = RNG.uniform(size=(1, 8, 8, 2)).astype("float32")
    found, _ = called(lambda t: layers.pool(t, "max", 3, 2, padding=1, name="p"), x)
    np.testing.assert_allclose(found, reference.max_pool(np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]), 3, 2))


@pytest.mark.parametrize("size", [1, 3, 5])
def test_local_response_normalization_is_the_papers_formula(size: int):
    x = RNG.normal(size=(2, 3, 8)).astype("float32")
    layer = layers.LocalResponseNormalization(size, alpha=0.1)
    expected = np.empty_like(x)
    for i in range(8):
        near = x[..., max(0, i - size // 2) : i + size // 2 + 1]
        expected[..., i] = x[..., i] / (2 + 0.1 * (near**2).sum(-1)) ** 0.75
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), expected, rtol=1e-5)


def test_the_class_token_comes_first_and_positions_are_added():
    x = RNG.normal(size=(2, 3, 4)).astype("float32")
    token, positions = layers.ClassToken(), layers.PositionEmbedding()
    y = positions(token(x))
    token.set_weights([np.full((1, 1, 4), 7.0)])
    positions.set_weights([np.arange(16.0).reshape(1, 4, 4)])
    y = keras.ops.convert_to_numpy(positions(token(x)))
    np.testing.assert_allclose(y[:, 0], 7 + np.arange(4.0)[None].repeat(2, 0))
    np.testing.assert_allclose(y[:, 1:], x + np.arange(4.0, 16).reshape(1, 3, 4), rtol=1e-6)


def test_stochastic_depth_drops_whole_examples():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, layers.stochastic_depth(inputs, 0.5, "drop"))
    y = keras.ops.convert_to_numpy(model(np.ones((64, 4, 4, 3), "float32"), training=True))
    kept = y.reshape(64, -1)
    assert ((kept == 0).all(axis=1) | (kept == 2).all(axis=1)).all()
    assert 10 < (kept[:, 0] == 0).sum() < 54


def graph(nodes: int, edges: int) -> np.ndarray:
    return RNG.integers(0, nodes, (edges, 2)).astype("int32")


@pytest.mark.parametrize("edges", [0, 1, 20])
def test_graph_convolution_is_the_papers_product_of_matrices(edges: int):
    x, pairs = RNG.normal(size=(6, 3)).astype("float32"), graph(6, edges)
    layer = layers.GraphConvolution(4)
    found = layer([x[None], pairs[None]])
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel, bias + 0.5])
    found = keras.ops.convert_to_numpy(layer([x[None], pairs[None]]))[0]
    np.testing.assert_allclose(found, reference.graph_conv(x, pairs, kernel, bias + 0.5), atol=1e-5)


def test_graphs_of_a_batch_do_not_meet_and_padding_is_no_edge():
    x, pairs = RNG.normal(size=(3, 6, 3)).astype("float32"), np.stack([graph(6, 7) for _ in range(3)])
    pairs[1, 4:] = [[-1, -1], [2, -1], [0, 6]]
    pairs[2, 6] = [0, 7]
    layer = layers.GraphConvolution(4, "relu")
    found = keras.ops.convert_to_numpy(layer([x, pairs]))
    kernel, bias = layer.get_weights()
    for index in range(3):
        listed = pairs[index][((pairs[index] >= 0) & (pairs[index] < 6)).all(axis=1)]
        expected = np.maximum(reference.graph_conv(x[index], listed, kernel, bias), 0)
        np.testing.assert_allclose(found[index], expected, atol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_node_of_a_thousand_neighbours_keeps_its_degree_in_any_precision(policy: str):
    edges = np.stack([np.zeros(1000), np.arange(1, 1001)], axis=1).astype("int32")
    layer = layers.GraphConvolution(1, kernel_initializer="ones", dtype=policy)
    hub = float(keras.ops.convert_to_numpy(layer([np.ones((1, 1001, 1), "float32"), edges[None]]))[0, 0, 0])
    expected = reference.graph_conv(np.ones((1001, 1)), edges, np.ones((1, 1)))[0, 0]
    assert hub == pytest.approx(expected, rel=1e-2)


def test_large_values_survive_local_response_normalization_in_float16():
    y = layers.LocalResponseNormalization(dtype="float16")(np.full((1, 1, 5), 300, "float16"))
    expected = layers.LocalResponseNormalization()(np.full((1, 1, 5), 300, "float32"))
    np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (y, expected)), rtol=1e-2)


@pytest.mark.parametrize(("features", "edges"), [((3, 2), (1, 4, 2)), ((1, 3, 2), (1, 2, 4)), ((1, 3, 2), (1, 4, 3))])
def test_arrays_of_other_shapes_are_no_graph(features: tuple[int, ...], edges: tuple[int, ...]):
    with pytest.raises(InvalidInput, match=r"\(batch, nodes, features\) and \(batch, edges, 2\)"):
        layers.GraphConvolution(2)([np.ones(features, "float32"), np.zeros(edges, "int32")])


@pytest.mark.parametrize(
    "layer",
    [
        layers.LocalResponseNormalization(3, 0.1, 0.5, 1.0),
        layers.LayerScale(0.5),
        layers.ClassToken(),
        layers.PositionEmbedding(),
        layers.GraphConvolution(3, "relu", kernel_regularizer="l2"),
    ],
    ids=lambda layer: layer.name,
)
def test_a_layer_is_made_again_from_its_config(layer: keras.layers.Layer):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
