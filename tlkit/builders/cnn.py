"""The pattern that most convolutional networks follow, with everything an argument."""

from __future__ import annotations

import os
from collections.abc import Sequence

import keras
from keras import KerasTensor, layers

from tlkit.builders import pretrained
from tlkit.builders.family import Activation, begin, check_head, head, number, numbers, one_line_errors
from tlkit.errors import InvalidInput
from tlkit.layers import conv, end, global_pool
from tlkit.layers import pool as pool_layer


def cnn(
    input_shape: Sequence[int | None] | None = None,
    *,
    input_tensor: KerasTensor | None = None,
    classes: int = 10,
    filters: Sequence[int] = (32, 64),
    kernel_size: int | Sequence[int] = 3,
    convolutions: int | Sequence[int] = 1,
    strides: int = 1,
    padding: str = "valid",
    norm: bool = False,
    activation: str = "relu",
    pool: str | None = "max",
    pool_size: int = 2,
    dense: Sequence[int] = (128,),
    dropout: float = 0.0,
    include_top: bool = True,
    pooling: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    classifier_activation: Activation = "softmax",
    name: str = "cnn",
) -> keras.Model:
    """Build [convolution, normalization, activation] x `convolutions`, then a pool, for each of `filters`; then a top.

    The first part is called `stem`, the others `stage1`, `stage2` and so on.

    Args:
        input_shape: (length, channels), (height, width, channels) or (depth, height, width, channels); by default
            (28, 28, 1).
        input_tensor: A Keras tensor to start from in place of an input of its own.
        classes: Units of the head.
        filters: Of the convolutions of each part.
        kernel_size: Length of the windows along every axis, for all parts or for each.
        convolutions: In a part, for all parts or for each.
        strides: Of the first convolution of each part.
        padding: `valid` or `same`, of the convolutions.
        norm: Whether batch normalization follows each convolution, which then has no bias.
        activation: Of the convolutions and the dense layers.
        pool: `max`, `average` or None, at the end of each part.
        pool_size: Length of the pool's windows, which do not overlap.
        dense: Units of the dense layers after a flatten; none, `()`, gives global average pooling.
        dropout: Share dropped after each dense layer, or after the pooling.
        include_top: Whether the network ends with dense layers and head; else with its features.
        pooling: Without top: `avg` or `max` over all positions, or None for the feature map.
        weights: None or `none` for random ones, or the path of a `.weights.h5` file of the same model.
        classifier_activation: Of the head; None gives logits.
        name: Of the model.

    Shapes:
        input: (batch, *space, channels)
        output: (batch, classes) with top; (batch, features) with pooling; else (batch, *positions, features)

    Raises:
        InvalidInput: an argument does not fit; the message says what does.

    >>> cnn((28, 28, 1)).count_params()
    225034
    >>> cnn((8000, 1), filters=(16, 32), kernel_size=(9, 5), norm=True, pool_size=4, dense=()).output.shape
    (None, 10)
    """
    classes = check_head(include_top, pooling, classes, classifier_activation)
    widths, units = numbers("filters", filters), numbers("dense", dense, least=0)
    windows, depths = _each("kernel_size", kernel_size, len(widths)), _each("convolutions", convolutions, len(widths))
    if pool not in ("max", "average", None):
        raise InvalidInput(f"pool is {pool!r}: max, average or None")
    if padding not in ("valid", "same"):
        raise InvalidInput(f"padding is {padding!r}: valid or same")
    strides, pool_size = number("strides", strides), number("pool_size", pool_size)
    inputs, x = begin(input_shape, input_tensor, (28, 28, 1))
    with one_line_errors(f"cnn on {tuple(x.shape[1:])} with {len(widths)} parts"):
        for part, (width, window, depth) in enumerate(zip(widths, windows, depths, strict=True)):
            stage = f"stage{part}" if part else "stem"
            for index in range(1, depth + 1):
                step = strides if index == 1 else 1
                layer = f"{stage}_conv{index}"
                if norm:
                    x = conv(x, width, window, step, padding=padding, use_bias=False, name=layer)
                    x = layers.BatchNormalization(name=f"{stage}_norm{index}")(x)
                    x = layers.Activation(activation, name=f"{stage}_activation{index}")(x)
                else:
                    x = conv(x, width, window, step, padding=padding, activation=activation, name=layer)
            if pool:
                x = pool_layer(x, pool, pool_size, name=f"{stage}_pool")
            x = end(x, stage)
        if include_top:
            x = head(_top(x, units, dropout, activation), classes, classifier_activation)
        elif pooling:
            x = global_pool(x, pooling)
        model = keras.Model(inputs, x, name=name)
    if weights is not None and weights != "none":
        pretrained.load_file(model, weights)
    return model


def _top(x: KerasTensor, dense: Sequence[int], dropout: float, activation: str) -> KerasTensor:
    if not dense:
        x = global_pool(x)
        return layers.Dropout(dropout, name="dropout")(x) if dropout else x
    x = layers.Flatten(name="flatten")(x)
    for index, units in enumerate(dense, 1):
        x = layers.Dense(units, activation, kernel_initializer="he_normal", name=f"dense{index}")(x)
        x = layers.Dropout(dropout, name=f"dropout{index}")(x) if dropout else x
    return x


def _each(name: str, value: int | Sequence[int], parts: int) -> tuple[int, ...]:
    values = numbers(name, value) if isinstance(value, Sequence) else (number(name, value),) * parts
    if len(values) != parts:
        raise InvalidInput(f"{name} is {value!r}: a number, or one for each of the {parts} parts that filters lists")
    return values
