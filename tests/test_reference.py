"""The reference against worked examples and against Keras, on whatever backend runs."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from tlkit import reference
from tlkit.errors import InvalidInput

few = settings(max_examples=50, deadline=None, derandomize=True)


class Case(NamedTuple):
    x: np.ndarray  # whole numbers, so that float32 is exact
    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str
    dilation: tuple[int, ...]
    rng: np.random.Generator


@st.composite
def cases(draw: st.DrawFn, dilated: bool = True, pooled: bool = False) -> Case:
    """An input of rank 1 to 3 with a window that fits; Keras allows a stride or a dilation above 1, not both."""
    rank = draw(st.integers(1, 3))

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank)))

    window, stride, dilation = sizes(1, 3), sizes(1, 3), (1,) * rank
    if dilated and draw(st.booleans()):
        stride, dilation = dilation, sizes(1, 3)
    padding = draw(st.sampled_from(["valid", "same"]))
    least = [d * (k - 1) + 1 if padding == "valid" or pooled else 1 for k, d in zip(window, dilation, strict=True)]
    space = [n + extra for n, extra in zip(least, sizes(0, 4), strict=True)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.integers(-4, 5, (draw(st.integers(1, 2)), *space, draw(st.integers(1, 3)))).astype("float32")
    return Case(x, window, stride, padding, dilation, rng)


def keras_conv(case: Case, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(
        keras.ops.conv(x, kernel, case.stride, case.padding, "channels_last", dilation_rate=case.dilation)
    )


def test_sobel_filter_on_a_step():
    image = np.zeros((1, 5, 5, 1))
    image[:, 2:] = 1
    sobel = np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]]).reshape(3, 3, 1, 1)
    edge = [3, 4, 4, 4, 3]
    assert reference.conv(image, sobel, padding=1)[0, :, :, 0].tolist() == [
        [0] * 5,
        edge,
        edge,
        [0] * 5,
        [-value for value in edge],  # the image ends: a step down to the padding
    ]


def test_maximum_of_two_by_two():
    x = np.array([[1, 3, 2, 4], [5, 6, 1, 2], [3, 2, 8, 1], [4, 1, 3, 7]]).reshape(1, 4, 4, 1)
    assert reference.max_pool(x, 2)[0, :, :, 0].tolist() == [[6, 4], [4, 8]]
    assert reference.average_pool(x, 2)[0, :, :, 0].tolist() == [[15 / 4, 9 / 4], [10 / 4, 19 / 4]]


def test_diagonal_kernel():
    x = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 0, 1, 2]]).reshape(1, 3, 4, 1)
    assert reference.conv(x, np.eye(2).reshape(2, 2, 1, 1))[0, :, :, 0].tolist() == [[7, 9, 11], [5, 7, 9]]


@few
@given(cases(), st.integers(1, 3))
def test_convolution_equals_keras(case: Case, filters: int):
    kernel = case.rng.integers(-4, 5, (*case.window, case.x.shape[-1], filters)).astype("float32")
    result = reference.conv(case.x, kernel, case.stride, case.padding, case.dilation)
    np.testing.assert_array_equal(result, keras_conv(case, case.x, kernel))


@few
@given(cases(), st.integers(1, 3), st.integers(1, 2))
def test_groups_equal_kerass_convolution_of_each(case: Case, groups: int, filters: int):
    x = np.concatenate([case.x + group for group in range(groups)], axis=-1)
    depth = case.x.shape[-1]
    kernel = case.rng.integers(-4, 5, (*case.window, depth, groups * filters)).astype("float32")
    result = reference.conv(x, kernel, case.stride, case.padding, case.dilation, groups)
    parts = [
        keras_conv(case, x[..., g * depth : (g + 1) * depth], kernel[..., g * filters : (g + 1) * filters])
        for g in range(groups)
    ]
    np.testing.assert_array_equal(result, np.concatenate(parts, axis=-1))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_groups_equal_kerass_groups(rank: int):
    rng = np.random.default_rng(rank)
    x = rng.integers(-4, 5, (2, *(5, 4, 3)[:rank], 4)).astype("float32")
    kernel = rng.integers(-4, 5, (*(3, 2, 2)[:rank], 2, 6)).astype("float32")
    expected = keras.ops.conv(x, kernel, 1, "same", "channels_last")
    np.testing.assert_array_equal(
        reference.conv(x, kernel, padding="same", groups=2), keras.ops.convert_to_numpy(expected)
    )


def test_as_many_groups_as_channels_are_kerass_depthwise_convolution():
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (1, 5, 6, 3)).astype("float32")
    kernel = rng.integers(-4, 5, (3, 3, 3, 2)).astype("float32")  # (window, channels, multiplier)
    expected = keras.ops.depthwise_conv(x, kernel, 2, "valid", "channels_last")
    np.testing.assert_array_equal(
        reference.conv(x, kernel.reshape(3, 3, 1, 6), stride=2, groups=3), keras.ops.convert_to_numpy(expected)
    )


@few
@given(cases(dilated=False), st.integers(0, 2), st.integers(1, 2))
def test_padding_in_cells_and_strides_with_dilation(case: Case, cells: int, dilation: int):
    kernel = case.rng.integers(-4, 5, (*case.window, case.x.shape[-1], 2)).astype("float32")
    rank = case.x.ndim - 2
    both = tuple(cells + place + 2 for place in range(rank))  # large enough for every dilated window
    padded = np.pad(case.x, [(0, 0), *((n, n) for n in both), (0, 0)])
    dense = keras_conv(case._replace(stride=(1,) * rank, padding="valid", dilation=(dilation,) * rank), padded, kernel)
    picked = dense[(slice(None), *(slice(None, None, step) for step in case.stride))]
    np.testing.assert_array_equal(reference.conv(case.x, kernel, case.stride, both, dilation), picked)


@few
@given(cases(dilated=False, pooled=True))
def test_pooling_equals_keras(case: Case):
    # All values are negative, so that a padded 0 would win a maximum and raise a mean.
    x, where = case.x - 5, (case.window, case.stride, case.padding)
    largest, mean = keras.ops.max_pool(x, *where), keras.ops.average_pool(x, *where)
    np.testing.assert_array_equal(reference.max_pool(x, *where), keras.ops.convert_to_numpy(largest))
    if keras.backend.backend() != "torch" or case.padding == "valid":  # there Keras 3.15 counts copies of the border
        np.testing.assert_allclose(reference.average_pool(x, *where), keras.ops.convert_to_numpy(mean), rtol=1e-5)


def test_pooling_with_padding_in_cells():
    x = np.array([-1.0, -2.0, -3.0]).reshape(1, 3, 1)
    assert reference.max_pool(x, 2, 1, padding=1).ravel().tolist() == [-1, -1, -2, -3]
    assert reference.average_pool(x, 2, 1, padding=(1,)).ravel().tolist() == [-1, -1.5, -2.5, -3]


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["avg", "max"])
def test_global_pooling_equals_keras(rank: int, kind: str):
    x = np.random.default_rng(0).normal(size=(2, *(3, 4, 2)[:rank], 3)).astype("float32")
    layer = getattr(keras.layers, f"Global{'Max' if kind == 'max' else 'Average'}Pooling{rank}D")()
    np.testing.assert_allclose(reference.global_pool(x, kind), keras.ops.convert_to_numpy(layer(x)), atol=1e-6)


@pytest.mark.parametrize(
    ("kernel", "options", "message"),
    [
        ((3, 1, 2), {}, r"kernel of shape \(3, 1, 2\).*it takes 4 axes"),
        ((3, 3, 2, 4), {}, "kernel for 2 channels, and an input of 3 .* must have 3"),
        ((3, 3, 1, 4), {"groups": 3}, "3 groups of 3 channels and 4 filters; groups must divide both"),
        ((3, 3, 1, 4), {"groups": 2}, "2 groups of 3 channels"),
        ((3, 3, 1, 4), {"groups": 0}, "0 groups"),
        ((3, 3, 3, 4), {"stride": 0}, "stride 0; it is an integer or 2 integers, each at least 1"),
        ((3, 3, 3, 4), {"stride": (1, 1, 1)}, r"stride \(1, 1, 1\); it is an integer or 2 integers"),
        ((3, 3, 3, 4), {"dilation": 1.5}, "dilation 1.5; it is"),
        ((3, 3, 3, 4), {"padding": -1}, "padding -1; it is an integer or 2 integers, each at least 0"),
        ((3, 3, 3, 4), {"padding": "full"}, "padding 'full'; it is 'valid', 'same'"),
        ((3, 6, 3, 4), {}, r"spans \(3, 6\) on a space of \(5, 5\) with padding 'valid'; each must be 1 to \(5, 5\)"),
        ((3, 3, 3, 4), {"dilation": 3}, r"spans \(7, 7\)"),
        ((3, 0, 3, 4), {}, r"spans \(3, 0\)"),
    ],
)
def test_a_convolution_that_does_not_fit(kernel: tuple[int, ...], options: dict[str, Any], message: str):
    with pytest.raises(InvalidInput, match=message):
        reference.conv(np.ones((1, 5, 5, 3)), np.ones(kernel), **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reference.conv(np.ones((5, 3)), np.ones((3, 3))), "must be .* with an axis of space"),
        (lambda: reference.max_pool(np.ones((5, 3)), 1), "must be .* with an axis of space"),
        (lambda: reference.global_pool(np.ones((5, 3)), "avg"), "must be .* with an axis of space"),
        (lambda: reference.global_pool(np.ones((1, 5, 3)), "mean"), "kind 'mean'; it is 'avg' or 'max'"),
        (lambda: reference.average_pool(np.ones((1, 5, 3)), 2, padding=2), "must be below the size"),
        (lambda: reference.max_pool(np.ones((1, 5, 3)), 6), r"spans \(6,\)"),
        (lambda: reference.max_pool(np.ones((1, 5, 3)), 0), "size 0; it is"),
    ],
)
def test_pooling_that_does_not_fit(call: Any, message: str):
    with pytest.raises(InvalidInput, match=message):
        call()


class Graph(NamedTuple):
    x: np.ndarray
    edges: np.ndarray
    weights: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    nodes, count = draw(st.integers(1, 6)), draw(st.integers(0, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return Graph(
        rng.normal(size=(nodes, 3)),
        rng.integers(0, nodes, (count, 2)),  # with pairs (i, i) and edges listed twice
        rng.uniform(0.1, 2, count),
        rng.normal(size=(3, 2)),
        rng.normal(size=2),
    )


@few
@given(graphs())
def test_graph_convolution_equals_the_formula_on_sparse_matrices(graph: Graph):
    nodes = len(graph.x)
    listed = scipy.sparse.coo_array((graph.weights, tuple(graph.edges.T)), shape=(nodes, nodes)).tocsr()
    symmetric = listed + listed.T - scipy.sparse.diags_array(listed.diagonal()) + scipy.sparse.eye_array(nodes)
    root = scipy.sparse.diags_array(1 / np.sqrt(symmetric.sum(axis=1)))
    expected = root @ symmetric @ root @ (graph.x @ graph.kernel) + graph.bias
    result = reference.graph_conv(graph.x, graph.edges, graph.kernel, graph.bias, graph.weights)
    np.testing.assert_allclose(result, expected, atol=1e-12)


@few
@given(graphs())
def test_renaming_the_nodes_renames_the_result(graph: Graph):
    order = np.random.default_rng(0).permutation(len(graph.x))
    place = np.argsort(order)  # node order[i] becomes node i
    turned = place[graph.edges][:, ::-1]  # an edge has no direction
    result = reference.graph_conv(graph.x, graph.edges, graph.kernel, graph.bias, graph.weights)
    renamed = reference.graph_conv(graph.x[order], turned, graph.kernel, graph.bias, graph.weights)
    np.testing.assert_allclose(renamed, result[order], atol=1e-12)


def test_without_edges_every_node_stands_alone():
    x, kernel, bias = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0], [10.0]]), np.array([0.5])
    assert reference.graph_conv(x, [], kernel, bias).ravel().tolist() == [21.5, 43.5]


def test_a_path_of_three_nodes_by_hand():
    # degrees 2, 3, 2: the ends hear themselves by 1/2 and the middle by 1/sqrt(6), the middle hears itself by 1/3
    result = reference.graph_conv(np.eye(3), [[0, 1], [2, 1]], np.eye(3))
    side = 1 / np.sqrt(6)
    np.testing.assert_allclose(result, [[1 / 2, side, 0], [side, 1 / 3, side], [0, side, 1 / 2]])


def test_an_edge_listed_twice_has_twice_the_weight_and_a_loop_counts_once():
    x, kernel = np.array([[1.0], [2.0]]), np.eye(1)
    twice = reference.graph_conv(x, [[0, 1], [1, 0]], kernel)
    np.testing.assert_allclose(twice, reference.graph_conv(x, [[0, 1]], kernel, edge_weights=[2.0]))
    loop = reference.graph_conv(x, [[0, 0], [0, 1]], kernel, edge_weights=[3.0, 1.0])
    np.testing.assert_allclose(loop[0], 4 / 5 * 1 + 2 / np.sqrt(5 * 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.ones(3)}, r"x of shape \(3,\)"),
        ({"kernel": np.ones((4, 2))}, r"kernel of shape \(4, 2\); they must be \(nodes, features\)"),
        ({"edges": [[0, 1, 2]]}, r"edges of shape \(1, 3\).* must be \(count, 2\) integers"),
        ({"edges": [[0.0, 1.0]]}, "type float64"),
        ({"edges": [[0, 3]]}, "nodes 0 to 3; the graph has 0 to 2"),
        ({"edges": [[-1, 1]]}, "nodes -1 to 1"),
        ({"edge_weights": [1.0, 2.0]}, r"edge weights of shape \(2,\) for 1 edges; it must be \(1,\)"),
        ({"edge_weights": [-1.0]}, "node 0 has the degree 0.0; every degree must be above 0"),
        ({"bias": np.ones(3)}, r"bias of shape \(3,\) for 2 filters"),
    ],
)
def test_a_graph_that_does_not_fit(change: dict[str, Any], message: str):
    fitting = {"x": np.ones((3, 5)), "edges": [[0, 1]], "kernel": np.ones((5, 2))}
    with pytest.raises(InvalidInput, match=message):
        reference.graph_conv(**{**fitting, **change})
