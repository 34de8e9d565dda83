"""Sizes, fields and counts against published numbers, against Keras and against what a network really multiplies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

from tlkit import arithmetic, reference
from tlkit.arithmetic import Conv, Dense, Flatten, GlobalPool, Norm, Pool, Row, Totals
from tlkit.errors import InvalidInput

few = settings(max_examples=25, deadline=None, derandomize=True)
small = st.integers(1, 4)


def last(model: keras.Model) -> Row:
    return arithmetic.describe(model)[-1]


def named(model: keras.Model) -> dict[str, Row]:
    """The rows by name, for a model that calls no layer twice."""
    rows = {row.name: row for row in arithmetic.describe(model)}
    assert len(rows) == len(arithmetic.describe(model))
    assert arithmetic.totals(rows.values()).parameters == model.count_params()
    return rows


# ---- sizes and fields


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 30), small, small, st.integers(0, 3), st.integers(1, 3))
def test_output_size_is_the_number_of_windows_that_fit(
    size: int, kernel: int, stride: int, padding: int, dilation: int
):
    cells = range(-padding, size + padding)
    windows = [start for start in cells[::stride] if start + dilation * (kernel - 1) in cells]
    if windows:
        assert arithmetic.output_size(size, kernel, stride, padding, dilation) == len(windows)
    else:
        with pytest.raises(InvalidInput, match=f"on {size} cells with padding {padding}; it must span at most"):
            arithmetic.output_size(size, kernel, stride, padding, dilation)


def test_output_sizes_of_the_textbook():
    # AlexNet's first layer, ResNet's first layer and pooling, Keras' "same" and "valid"
    assert arithmetic.output_size(227, 11, 4) == 55
    assert arithmetic.output_size(224, 7, 2, 3) == 112
    assert arithmetic.output_size(112, 3, 2, 1) == 56
    assert arithmetic.output_size(7, 9, 2, "same") == 4
    assert arithmetic.output_size(7, 3, 2, "valid") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 3), "size is 0; it must be an integer of at least 1"),
        ((5, 0), "kernel is 0"),
        ((5, 3, 0), "stride is 0"),
        ((5, 3, 1, 0, 0), "dilation is 0"),
        ((5.0, 3), r"size is 5\.0"),
        ((5, 3, 1, -1), "padding -1; it is 'valid', 'same' or an integer of at least 0"),
        ((5, 3, 1, "full"), "padding 'full'"),
        ((5, 3, 1, 0, 3), "spans 7 cells on 5 cells with padding 0; it must span at most 5"),
    ],
)
def test_sizes_that_are_not_allowed(arguments: tuple[Any, ...], message: str):
    with pytest.raises(InvalidInput, match=message):
        arithmetic.output_size(*arguments)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ((3,), r"the layer \(3,\); it is \(kernel, stride\) or"),
        ((3, 1, 1, 1), "the layer"),
        ((3, 0), "stride is 0"),
        ((0, 1), "kernel is 0"),
        ((3, 1, 0), "dilation is 0"),
    ],
)
def test_layers_without_a_field(layer: tuple[int, ...], message: str):
    with pytest.raises(InvalidInput, match=message):
        arithmetic.receptive_field([layer])


def test_three_layers_of_3_see_7():
    assert arithmetic.receptive_field([(3, 1)] * 3) == [(3, 1), (5, 1), (7, 1)]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(small, st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=4))
def test_the_field_is_the_span_of_the_input_cells_that_change_an_output(stack: list[tuple[int, int, int]]):
    found = arithmetic.receptive_field(stack)
    field, stride = found[-1]
    impulses = np.eye(field + stride)[..., None]  # one example for each input cell; just enough for two outputs
    for kernel, step, dilation in stack:
        impulses = reference.conv(impulses, np.ones((kernel, 1, 1)), step, dilation=dilation)
    first, second = (np.flatnonzero(impulses[:, place, 0]) for place in range(2))
    assert (first[0], first[-1], second[0], second[-1]) == (0, field - 1, stride, stride + field - 1)


def seen(model: keras.Model) -> int:
    """The largest span of input cells that change one output, on one spatial axis, with kernels of ones."""
    for weight in model.weights:
        weight.assign(np.full(weight.shape, len(weight.shape) > 1))
    size = model.inputs[0].shape[1]
    outputs = ops.convert_to_numpy(model(np.eye(size, dtype="float32")[..., None]))[..., 0]
    return max(np.ptp(np.flatnonzero(column)) + 1 for column in outputs.T)


def stacked(*stack: keras.layers.Layer) -> Callable[[Any], Any]:
    def apply(x: Any) -> Any:
        for layer in stack:
            x = layer(x)
        return x

    return apply


def branches(x: Any) -> Any:
    x = layers.Conv1D(1, 3, 2)(x)
    far = layers.Conv1D(1, 3, padding="same", dilation_rate=3)(x)
    return layers.Conv1D(1, 3)(layers.concatenate([layers.add([x, far]), x]))


@pytest.mark.parametrize(
    ("network", "field", "stride"),
    [
        (stacked(layers.Conv1D(1, 3, 2), layers.Conv1D(1, 3, dilation_rate=2)), 11, 2),
        (stacked(layers.ZeroPadding1D(2), layers.Conv1D(1, 5), layers.Cropping1D(1)), 5, 1),
        (stacked(layers.AveragePooling1D(3, 2), layers.Conv1D(1, 2)), 5, 2),
        (stacked(layers.DepthwiseConv1D(3), layers.SeparableConv1D(1, 3, 2, padding="same")), 5, 2),
        (stacked(layers.Conv1D(1, 4, padding="causal"), layers.Activation("relu"), layers.Dense(1)), 4, 1),
        (branches, 19, 2),
        (stacked(layers.Conv1D(1, 3, 4), layers.Conv1DTranspose(1, 4, 2), layers.Conv1D(1, 1)), 7, 2),
        (stacked(layers.Conv1D(1, 3, 4), layers.Conv1DTranspose(1, 5, 2)), 11, 2),
        (stacked(layers.AveragePooling1D(2), layers.UpSampling1D(2), layers.Conv1D(1, 3)), 4, 1),
    ],
)
def test_fields_of_keras_models_are_what_an_output_sees(network: Callable[[Any], Any], field: int, stride: int):
    inputs = keras.Input((60, 1))
    model = keras.Model(inputs, network(inputs))
    assert seen(model) == field
    row = last(model)
    assert (row.field, row.stride) == ((field,), (stride,))


def test_bilinear_upsampling_sees_two_cells():
    inputs = keras.Input((8, 8, 1))
    x = layers.AveragePooling2D((4, 2))(inputs)
    smooth = last(keras.Model(inputs, layers.UpSampling2D(2, interpolation="bilinear")(x)))
    assert (smooth.field, smooth.stride) == ((8, 4), (2, 1))
    blocks = last(keras.Model(inputs, layers.UpSampling2D(2)(x)))
    assert (blocks.field, blocks.stride) == ((4, 2), (2, 1))


# ---- a list of layers

VGG16 = [
    layer
    for filters, depth in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]
    for layer in [*[Conv(filters, 3, padding="same")] * depth, Pool(2)]
]


def test_vgg16_as_published():
    rows = arithmetic.trace((224, 224, 3), [*VGG16, Flatten(), Dense(4096), Dense(4096), Dense(1000)])
    assert arithmetic.totals(rows) == Totals(138_357_544, 15_470_264_320)  # Simonyan & Zisserman 2014: 138 million
    pool = rows[len(VGG16) - 1]
    assert pool == Row("pool18", "Pool", (7, 7, 512), 0, 0, (212, 212), (32, 32))  # Araujo et al. 2019: 212
    assert rows[-1].field is None


def test_alexnet_as_published():
    # Krizhevsky et al. 2012: 60 million parameters; Araujo et al. 2019: a field of 195
    convolutions = [Conv(96, 11, 4), Pool(3, 2), Conv(256, 5, padding=2, groups=2), Pool(3, 2), Conv(384, 3, padding=1)]
    convolutions += [Conv(384, 3, padding=1, groups=2), Conv(256, 3, padding=1, groups=2), Pool(3, 2), Flatten()]
    rows = arithmetic.trace((227, 227, 3), [*convolutions, Dense(4096), Dense(4096), Dense(1000)])
    assert rows[-5].field == (195, 195)
    assert rows[8].shape == (9216,)
    assert arithmetic.totals(rows) == Totals(60_965_224, 724_406_816)


def test_a_dense_layer_on_the_image():
    assert arithmetic.fully_connected((224, 224, 3), 1000) == 150_528_000


@st.composite
def networks(draw: st.DrawFn) -> tuple[tuple[int, ...], list[arithmetic.Layer]]:
    rank = draw(st.integers(1, 3))

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank)))

    listed: list[arithmetic.Layer] = []
    for kind in draw(st.lists(st.sampled_from([Conv, Conv, Pool, Norm, Dense]), min_size=1, max_size=4)):
        padding = draw(st.sampled_from(["valid", "same", 1, 2]))
        stride, dilation = draw(st.sampled_from([(1, 1), (2, 1), (1, 2)]))  # Keras has not both above 1
        if kind is Conv:
            groups, bias = draw(st.sampled_from([1, 2])), draw(st.booleans())
            listed.append(Conv(4, sizes(1, 3), sizes(1, stride), padding, groups, sizes(1, dilation), bias))
        elif kind is Pool:
            listed.append(Pool(sizes(1, 3), draw(st.sampled_from([None, sizes(1, 3)])), padding))
        else:
            listed.append(Norm() if kind is Norm else Dense(2))
    end = draw(st.sampled_from([[], [Flatten(), Dense(3, use_bias=False)], [GlobalPool(), Dense(3)]]))
    return (*sizes(4, 14), draw(st.sampled_from([2, 4]))), listed + end


def in_keras(shape: tuple[int, ...], listed: list[arithmetic.Layer]) -> keras.Model:
    """The same network; cells of padding are a layer of their own."""
    inputs = x = keras.Input(shape)
    rank = len(shape) - 1

    def ranked(name: str) -> Callable[..., Any]:
        return getattr(layers, f"{name}{rank}D")

    for layer in listed:
        padding = getattr(layer, "padding", "valid")
        if isinstance(padding, int):
            x, padding = ranked("ZeroPadding")(padding)(x), "valid"
        match layer:
            case Conv(filters, kernel, stride, _, groups, dilation, bias):
                options = {"groups": groups, "dilation_rate": dilation, "use_bias": bias}
                x = ranked("Conv")(filters, kernel, stride, padding, **options)(x)
            case Pool(kernel, stride, _):
                x = ranked("AveragePooling")(kernel, stride, padding)(x)
            case Dense(units, bias):
                x = layers.Dense(units, use_bias=bias)(x)
            case Norm():
                x = layers.BatchNormalization()(x)
            case Flatten():
                x = layers.Flatten()(x)
            case GlobalPool():
                x = ranked("GlobalMaxPooling")()(x)
    return keras.Model(inputs, x)


@few
@given(networks())
def test_a_list_and_the_same_keras_model_agree(network: tuple[tuple[int, ...], list[arithmetic.Layer]]):
    try:
        rows = arithmetic.trace(*network)
    except InvalidInput:
        with pytest.raises(ValueError, match=r"negative|positive|one of the dimensions|empty"):
            in_keras(*network)
        return
    model = in_keras(*network)
    described = [row for row in arithmetic.describe(model) if "Padding" not in row.kind]
    assert [row[2:] for row in rows] == [row[2:] for row in described]
    assert rows[-1].shape == model.output.shape[1:]
    assert arithmetic.totals(rows).parameters == model.count_params()


@pytest.mark.parametrize(
    ("shape", "listed", "message"),
    [
        ((), [], "an input of shape"),
        ((8, 0, 3), [], r"size in the input shape \(8, 0, 3\) is 0"),
        ((8, 8, 3), [Conv(4, 3), Conv(4, 7)], "^conv2: a window that spans 7 cells on 6 cells"),
        (
            (8, 8, 3),
            [Conv(4, (3, 3, 3))],
            r"^conv1: kernel \(3, 3, 3\); it is an integer or 2 integers, each at least 1",
        ),
        (
            (8, 8, 3),
            [Conv(4, 3, padding=(1,))],
            r"^conv1: padding \(1,\); it is 'valid', 'same', an integer or 2 integers",
        ),
        ((8, 8, 3), [Conv(4, 3, groups=2)], "^conv1: 2 groups of 3 channels and 4 filters; groups must divide both"),
        ((8, 8, 4), [Conv(6, 3, groups=4)], "^conv1: 4 groups of 4 channels and 6 filters"),
        ((8, 8, 3), [Conv(4, 3, groups=0)], "^conv1: groups is 0"),
        ((8, 8, 3), [Conv(0, 3)], "^conv1: filters is 0"),
        ((8, 8, 3), [Conv(4, 3, stride=0)], "^conv1: stride 0"),
        ((8, 8, 3), [Flatten(), Pool(2)], r"^pool2: an input of shape \(192,\); it must be \(\*space, channels\)"),
        ((8, 8, 3), [Flatten(), Dense(0)], "^dense2: units is 0"),
        ((8, 8, 3), ["relu"], "^str1: 'relu'; a layer is a Conv, Pool"),
    ],
)
def test_lists_that_do_not_fit(shape: tuple[int, ...], listed: list[Any], message: str):
    with pytest.raises(InvalidInput, match=message):
        arithmetic.trace(shape, listed)


# ---- Keras models


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("name", "multiply_adds", "end", "field"),
    [  # published: 15.3 billion in the convolutions (He et al. 2015), 3.8 (the same), 0.39 (Tan & Le 2019),
        # 0.569 (Howard et al. 2017), 0.3 (Sandler et al. 2018), 4.5 (Liu et al. 2022), 5 (Szegedy et al. 2015)
        ("VGG16", 15_470_264_320, "block5_pool", 212),
        ("ResNet50", 3_857_973_248, "conv5_block3_out", 483),
        ("EfficientNetB0", 385_814_752, "top_activation", None),  # squeeze and excitation see the whole image
        ("MobileNet", 568_740_352, "conv_pw_13_relu", 315),
        ("MobileNetV2", 300_774_272, "out_relu", 491),
        ("ConvNeXtTiny", 4_455_531_264, "convnext_tiny_stage_3_block_2_identity", 1688),
        pytest.param("InceptionV3", 5_713_216_096, "mixed10", 1311, marks=pytest.mark.slow),
    ],
)
def test_published_networks(name: str, multiply_adds: int, end: str, field: int | None):
    model = getattr(keras.applications, name)(weights=None)
    rows = named(model)
    assert arithmetic.totals(rows.values()) == Totals(model.count_params(), multiply_adds)
    assert rows[end].field == (field and (field, field))  # Araujo et al. 2019 give 212, 483, 315 and 1311
    assert rows[end].stride == (32, 32)


def ones(layer: keras.layers.Layer, shape: tuple[int, ...]) -> tuple[int, int]:
    """What is counted, and the sum of the outputs where inputs and weights are 1: each multiply-add adds 1 to it."""
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    for weight in layer.weights:
        weight.assign(np.ones(weight.shape))
    return last(model).multiply_adds, int(ops.sum(model(np.ones((1, *shape), "float32"))))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Conv1D(4, 3, 2, use_bias=False), (9, 2)),
        (layers.Conv2D(4, (3, 2), (2, 1), use_bias=False), (7, 6, 3)),
        (layers.Conv2D(4, 3, dilation_rate=2, use_bias=False), (7, 6, 3)),
        (layers.Conv2D(6, 3, groups=2, use_bias=False), (7, 6, 4)),
        (layers.Conv3D(2, 2, use_bias=False), (4, 3, 5, 3)),
        (layers.DepthwiseConv1D(3, depth_multiplier=2, use_bias=False), (9, 2)),
        (layers.DepthwiseConv2D(3, 2, depth_multiplier=3, use_bias=False), (7, 8, 2)),
        (layers.Conv1DTranspose(3, 4, 2, use_bias=False), (5, 2)),
        (layers.Conv2DTranspose(3, 3, 2, use_bias=False), (4, 5, 2)),
        (layers.Dense(5, use_bias=False), (7,)),
        (layers.Dense(5, use_bias=False), (4, 3, 7)),
        (layers.EinsumDense("abc,cd->abd", (None, 5)), (4, 3)),
        (layers.EinsumDense("abc,cde->abde", (None, 2, 5)), (4, 3)),
        (layers.EinsumDense("abcd,cde->abe", (None, 5)), (4, 2, 3)),
        (layers.EinsumDense("...x,xy->...y", 5), (4, 2, 3)),
        (layers.BatchNormalization(), (4, 3)),
        (layers.LayerNormalization(axis=(1, 2)), (4, 3)),
        (layers.PReLU(), (4, 3)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.layers.Layer) else str(value),
)
def test_every_multiply_add_counts_once(layer: keras.layers.Layer, shape: tuple[int, ...]):
    counted, summed = ones(layer, shape)
    multiplies = not isinstance(layer, (layers.BatchNormalization, layers.LayerNormalization, layers.PReLU))
    assert counted == summed * multiplies


def test_a_separable_convolution_one_product_at_a_time():
    count = 0
    for _row, _column in itertools.product(range(0, 9 - 2, 2), range(0, 8 - 2, 2)):
        for _channel, _multiplier in itertools.product(range(3), range(2)):
            count += sum(1 for _ in itertools.product(range(3), range(3)))  # depthwise
            count += sum(1 for _ in range(5))  # one term of each filter
    inputs = keras.Input((9, 8, 3))
    row = last(keras.Model(inputs, layers.SeparableConv2D(5, 3, 2, depth_multiplier=2)(inputs)))
    assert row.multiply_adds == count
    assert (row.field, row.stride) == ((3, 3), (2, 2))


def attend(query: Any, value: Any, heads: int, depth: int, width: int, units: int) -> Any:
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2) of dense layers and matrix products."""

    def split(x: Any, size: int, order: tuple[int, ...]) -> Any:
        x = layers.Dense(heads * size)(x)
        return ops.transpose(ops.reshape(x, (-1, x.shape[1], heads, size)), order)

    scores = ops.matmul(split(query, depth, (0, 2, 1, 3)), split(value, depth, (0, 2, 3, 1)))
    mixed = ops.transpose(ops.matmul(ops.softmax(scores), split(value, width, (0, 2, 1, 3))), (0, 2, 1, 3))
    return layers.Dense(units)(ops.reshape(mixed, (-1, query.shape[1], heads * width)))


def test_attention_is_its_projections_and_two_products():
    query, value = keras.Input((7, 6)), keras.Input((5, 4))
    layer = layers.MultiHeadAttention(3, 2, value_dim=5, output_shape=8)
    whole = arithmetic.totals(arithmetic.describe(keras.Model([query, value], layer(query, value))))
    parts = arithmetic.totals(arithmetic.describe(keras.Model([query, value], attend(query, value, 3, 2, 5, 8))))
    assert whole == parts
    assert arithmetic.describe(keras.Model([query, value], layer(query, value)))[0].field is None
    swapped = layers.MultiHeadAttention(3, 2, value_dim=5, output_shape=8)(value=value, query=query)
    assert last(keras.Model([query, value], swapped)).multiply_adds == whole.multiply_adds


def test_attention_along_some_axes():
    inputs = keras.Input((4, 6, 8))
    whole = last(keras.Model(inputs, layers.MultiHeadAttention(2, 4)(inputs, inputs))).multiply_adds
    rows = layers.MultiHeadAttention(2, 4, attention_axes=(2,))
    along = last(keras.Model(inputs, rows(inputs, inputs))).multiply_adds
    projections = 4 * 24 * 8 * 8
    assert whole == projections + 2 * 24 * 24 * 8
    assert along == projections + 2 * 24 * 6 * 8


def test_attention_in_groups_and_without_projections():
    inputs = keras.Input((7, 12))
    groups = layers.GroupQueryAttention(head_dim=3, num_query_heads=4, num_key_value_heads=2)
    projections = 7 * 12 * (12 + 6 + 6 + 12)
    assert last(keras.Model(inputs, groups(inputs, inputs))).multiply_adds == projections + 2 * 7 * 7 * 12
    other = keras.Input((5, 12))
    plain = keras.Model([inputs, other], layers.Attention()([inputs, other]))
    assert last(plain).multiply_adds == 2 * 7 * 5 * 12


def test_a_gate_is_one_more_projection():
    inputs = keras.Input((7, 12))
    for kind, options in [
        (layers.MultiHeadAttention, {"num_heads": 3, "key_dim": 4}),
        (layers.GroupQueryAttention, {"head_dim": 4, "num_query_heads": 3, "num_key_value_heads": 1}),
    ]:
        plain, gated = (
            last(keras.Model(inputs, kind(**options, use_gate=gate, use_bias=False)(inputs, inputs)))
            for gate in (False, True)
        )
        assert gated.parameters - plain.parameters == 12 * 12
        assert gated.multiply_adds - plain.multiply_adds == 7 * 12 * 12


def test_einsum_is_one_multiply_add_for_each_combination_of_indices():
    a, b = keras.Input((7, 6)), keras.Input((5, 6))
    assert last(keras.Model([a, b], ops.einsum("bqd,bkd->bqk", a, b))).multiply_adds == 7 * 5 * 6
    assert last(keras.Model([a, b], ops.einsum("...qd,...kd->...qk", a, b))).multiply_adds == 7 * 5 * 6
    assert last(keras.Model([a, b], ops.einsum("bqd,bkd,bqd->bk", a, b, a))).multiply_adds is None


class Tokens(keras.layers.Layer):
    """Flattens patches, puts a class token in front and adds positions, as ViT does."""

    def build(self, input_shape: Any) -> None:
        _, height, width, channels = input_shape
        self.token = self.add_weight(shape=(1, 1, channels))
        self.positions = self.add_weight(shape=(1, height * width + 1, channels))

    def call(self, x: Any) -> Any:
        x = ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3]))
        token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, x.shape[-1]))
        return ops.concatenate([token, x], axis=1) + self.positions


def test_vision_transformer_as_published():
    # ViT-B/16, Dosovitskiy et al. 2020. All blocks are one, called 12 times: counted 12 times, its parameters once.
    norm, attention, wide, narrow = (
        layers.LayerNormalization(),
        layers.MultiHeadAttention(12, 64, kernel_initializer="zeros"),
        layers.Dense(3072, "gelu", kernel_initializer="zeros"),
        layers.Dense(768, kernel_initializer="zeros"),
    )
    inputs = keras.Input((224, 224, 3))
    x = Tokens(name="tokens")(layers.Conv2D(768, 16, 16)(inputs))
    for _ in range(12):
        y = norm(x)
        x = x + attention(y, y)
        x = x + narrow(wide(norm(x)))
    outputs = layers.Dense(1000)(x[:, 0])
    rows = arithmetic.describe(keras.Model(inputs, outputs))
    assert arithmetic.totals(rows) == Totals(keras.Model(inputs, outputs).count_params(), 17_563_828_224)
    calls = [row for row in rows if row.name == attention.name]
    assert [bool(row.parameters) for row in calls] == [True] + [False] * 11
    assert next(row for row in rows if row.name == "tokens").multiply_adds == 0


def test_shared_layers_are_followed_where_they_stand():
    inputs = keras.Input((32, 1))
    shared = layers.Conv1D(1, 3, padding="same", name="shared")
    x = shared(shared(inputs))
    rows = arithmetic.describe(keras.Model(inputs, shared(layers.MaxPooling1D(2)(x))))
    calls = [row for row in rows if row.name == "shared"]
    assert [row.field for row in calls] == [(3,), (5,), (10,)]
    assert [row.parameters for row in calls] == [4, 0, 0]
    assert [row.multiply_adds for row in calls] == [96, 96, 48]


def test_nested_models_start_where_they_are_called():
    block = keras.Sequential([layers.Conv1D(2, 3, 2, name="conv")], name="block")
    inner = keras.Input((None, 2))
    backbone = keras.Model(inner, block(layers.ReLU(name="relu")(inner)), name="backbone")
    inputs = keras.Input((40, 1))
    x = layers.Conv1D(2, 5, 4, name="stem")(inputs)
    rows = named(keras.Model(inputs, layers.Conv1D(1, 3, name="head")(backbone(x))))
    assert list(rows) == ["stem", "backbone/relu", "backbone/block/conv", "head"]
    assert [row.field for row in rows.values()] == [(5,), (5,), (13,), (29,)]
    assert rows["head"].stride == (8,)


def test_several_inputs_and_outputs_of_a_nested_model():
    a, b = keras.Input((16, 2)), keras.Input((16, 2))
    near, far = (layers.Conv1D(2, size, padding="same", name=f"conv{size}") for size in (3, 7))
    inner = keras.Model([a, b], [near(a), far(b)], name="inner")
    left, right = keras.Input((16, 2), name="left"), keras.Input((16, 2), name="right")
    one, two = inner([left, right])
    model = keras.Model([left, right], [layers.ReLU(name="one")(one), layers.ReLU(name="two")(two), left])
    rows = named(model)
    assert list(rows) == ["inner/conv3", "inner/conv7", "one", "two"]
    assert (rows["one"].field, rows["two"].field) == ((3,), (7,))


def test_what_has_seen_everything_stays_so():
    inputs = keras.Input((16, 16, 4))
    x = layers.Conv2D(4, 3, 2, name="conv")(inputs)
    scale = layers.Conv2D(4, 1, name="scale")(layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x))
    x = layers.Conv2D(4, 3, 2, name="after")(layers.multiply([scale, x]))
    rows = named(keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten(name="flat")(x))))
    fields = {name: (row.field, row.stride) for name, row in rows.items()}
    assert fields["conv"] == ((3, 3), (2, 2))
    assert fields["after"] == (None, (4, 4))
    assert [fields[name] for name in ("squeeze", "scale", "flat", "head")] == [(None, None)] * 4


def test_layers_that_move_cells_have_no_known_field():
    inputs = keras.Input((8, 8, 8))
    for layer in (layers.Permute((2, 1, 3)), layers.Reshape((8, 8, 8)), layers.TimeDistributed(layers.ReLU())):
        assert last(keras.Model(inputs, layer(inputs))).field is None
    mixed = layers.EinsumDense("abcd,be->aecd", (8, 8, 8))(inputs)  # of the first axis, not of the channels
    assert last(keras.Model(inputs, mixed)).field is None
    assert last(keras.Model(inputs, layers.EinsumDense("abcd,de->abce", (8, 8, 5))(inputs))).field == (1, 1)
    assert last(keras.Model(inputs, layers.Resizing(4, 4)(inputs))).field is None
    row, column = keras.Input((8, 1, 2)), keras.Input((1, 8, 2))
    assert last(keras.Model([row, column], row + column)).field is None


def test_operations_are_followed_like_layers():
    inputs = keras.Input((9, 2))
    x = ops.max_pool(ops.pad(inputs, [(0, 0), (1, 2), (0, 0)]), 4)
    row = last(keras.Model(inputs, ops.relu(x) + 1))
    assert row[2:] == ((3, 2), 0, 0, (4,), (4,))


def test_tokens_are_an_axis_of_space():
    inputs = keras.Input((20,), dtype="int32")
    x = layers.Embedding(100, 8, name="embedding")(inputs)
    rows = named(keras.Model(inputs, layers.LSTM(4, return_sequences=True, name="all")(layers.Conv1D(4, 3)(x))))
    assert rows["embedding"][2:] == ((20, 8), 800, 0, (1,), (1,))
    assert rows["all"].field is None
    assert rows["all"].multiply_adds is None  # its products are not counted


def test_an_embedding_turned_back_is_a_dense_layer():
    inputs = keras.Input((20,), dtype="int32")
    tied = layers.ReversibleEmbedding(100, 8)
    there, back = arithmetic.describe(keras.Model(inputs, tied(tied(inputs), reverse=True)))
    assert there[2:] == ((20, 8), 800, 0, (1,), (1,))
    assert back[2:] == ((20, 100), 0, 20 * 8 * 100, (1,), (1,))


class Window(keras.layers.Layer):
    """A convolution of somebody else, which counts itself."""

    def __init__(self):
        super().__init__()
        self.kernel_size, self.strides, self.dilation_rate = (3, 3), (2, 2), (1, 1)
        self.received = None

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(shape=(3, 3, 4))

    def call(self, x: Any) -> Any:
        return x[:, 1:-1:2, 1:-1:2]

    def multiply_adds(self, input_shapes: Any) -> int:
        self.received = input_shapes
        return 123


class Matrix(keras.layers.Layer):
    """A layer that says nothing about itself, under a name that Keras has too."""

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(shape=(input_shape[-1], 4))

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.kernel)


Matrix.__name__ = "Conv"


class Project(keras.layers.Layer):
    """A matrix with one more axis than the example."""

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(shape=(1, input_shape[-1], 4))

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.kernel[0])


class Block(keras.layers.Layer):
    """A block of a transformer, whose attention sees windows of two tokens in place of all."""

    def __init__(self, windows: int):
        super().__init__()
        self.windows = windows
        self.attention, self.model = layers.MultiHeadAttention(2, 3), keras.Sequential([layers.Dense(5)])
        self.back = layers.Dense(4)

    def build(self, input_shape: Any) -> None:
        self.attention.build(input_shape, input_shape)
        self.model.build(input_shape)
        self.back.build((*input_shape[:-1], 5))
        super().build(input_shape)

    def call(self, x: Any) -> Any:
        y = ops.reshape(x, (-1, x.shape[1] // self.windows, x.shape[2]))
        y = ops.reshape(self.attention(y, y), (-1, *x.shape[1:]))
        return self.back(self.model(x + y))


class Numbers(Matrix):
    """What it does depends on numbers that a symbol does not have."""

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.kernel) if float(ops.max(x)) else x

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], 4)


class Propagate(keras.layers.Layer):
    """Mixes nodes along edges."""

    def call(self, nodes: Any, edges: Any) -> Any:
        return nodes * ops.cast(ops.sum(edges, axis=(1, 2), keepdims=True), nodes.dtype)


def test_layers_of_others():
    inputs, window, matrix = keras.Input((9, 9, 4), batch_size=2), Window(), Matrix()
    rows = arithmetic.describe(keras.Model(inputs, matrix(window(inputs))))
    assert window.received == [(None, 9, 9, 4)]
    assert rows[0][2:] == ((4, 4, 4), 36, 123, (3, 3), (2, 2))
    assert rows[1][1:] == ("Conv", (4, 4, 4), 16, 4**4, (3, 3), (2, 2))
    assert arithmetic.totals(rows) == Totals(52, 123 + 4**4)
    vector = keras.Input((3,))
    assert last(keras.Model(vector, Project()(vector))).multiply_adds == 3 * 4
    numbers = Numbers()
    numbers.build((None, 3))
    assert last(keras.Model(vector, numbers(vector))).multiply_adds is None
    nodes, edges = keras.Input((7, 4)), keras.Input((9, 2), dtype="int32")
    assert last(keras.Model([nodes, edges], Propagate()(nodes, edges))).field is None


def test_layers_inside_layers_of_others_are_counted():
    inputs, block = keras.Input((6, 4)), Block(1)
    model = keras.Model(inputs, block(inputs))
    counts = [last(model).multiply_adds for _ in range(2)]  # looking leaves no trace
    assert counts == [4 * 6 * 4 * 2 * 3 + 2 * 6 * 6 * 2 * 3 + 2 * 6 * 4 * 5] * 2
    assert not block.back._inbound_nodes


def test_code_that_cannot_be_followed_leaves_no_trace_on_layers_either():
    class Failing(Block):
        def call(self, x: Any) -> Any:
            return ops.reshape(x, (int(ops.sum(super().call(x))), -1))

        def compute_output_shape(self, input_shape: Any) -> Any:
            return input_shape

    inputs, block = keras.Input((6, 4)), Failing(1)
    assert last(keras.Model(inputs, block(inputs))).multiply_adds is None
    assert [block.back._inbound_nodes, block.model._inbound_nodes, block.attention._outbound_nodes] == [[], [], []]
    assert last(keras.Model(inputs, Block(3)(inputs))).multiply_adds is None  # windows lie along the batch


def test_a_free_size_has_no_count():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, 2)(inputs)
    rows = arithmetic.describe(keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling2D()(layers.ReLU()(x)))))
    assert rows[0][2:] == ((None, None, 4), 112, None, (3, 3), (2, 2))
    assert [row.multiply_adds for row in rows] == [None, 0, 0, 8]
    assert arithmetic.totals(rows) == Totals(122, None)


def test_channels_first_are_counted_alike():
    def network(data_format: str, shape: tuple[int, ...]) -> list[tuple[Any, ...]]:
        inputs = keras.Input(shape)
        x = layers.Conv2D(8, 3, 2, groups=2, data_format=data_format)(inputs)
        x = layers.ReLU()(layers.SeparableConv2D(6, (3, 2), data_format=data_format)(x))
        x = layers.Conv2DTranspose(4, 3, 2, data_format=data_format)(layers.MaxPooling2D(data_format=data_format)(x))
        rows = arithmetic.describe(keras.Model(inputs, x))
        return [(math.prod(row.shape), *row[3:]) for row in rows]

    assert network("channels_first", (4, 19, 17)) == network("channels_last", (19, 17, 4))


class Subclassed(keras.Model):
    """A model without a graph."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.dense(x)


def test_models_without_a_graph():
    for model in (keras.Sequential([layers.Dense(2)], name="open"), Subclassed()):
        with pytest.raises(
            InvalidInput, match=f"{type(model).__name__} '.*' has no graph of layers; give a functional"
        ):
            arithmetic.describe(model)
    inputs = keras.Input((3,))
    advised = keras.Model(inputs, Subclassed().call(inputs))
    assert arithmetic.totals(arithmetic.describe(advised)) == Totals(8, 6)
    assert arithmetic.describe(keras.Sequential([inputs, layers.Dense(2)]))[0].shape == (2,)


def test_a_deep_model_needs_no_deep_stack():
    inputs = x = keras.Input((4, 1))
    relu = layers.ReLU()
    for _ in range(300):
        x = relu(x)
    rows = arithmetic.describe(keras.Model(inputs, x))
    assert len(rows) == 300
