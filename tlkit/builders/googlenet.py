"""GoogLeNet, Szegedy et al. 2014 (arXiv:1409.4842), table 1 and figures 2 and 3; without batch normalization."""

from __future__ import annotations

import string
from typing import NamedTuple

import keras
from keras import KerasTensor, layers

from tlkit.builders.family import Activation, Family, head
from tlkit.layers import LocalResponseNormalization, conv, end, global_pool, pool


class Inception(NamedTuple):
    """The columns of table 1: filters of the four branches; `reduce` is the 1 x 1 convolution in front."""

    one: int
    three_reduce: int
    three: int
    five_reduce: int
    five: int
    pool: int


class Variant(NamedTuple):
    """A row.

    Args:
        stem: Filters of the three convolutions before the first inception module.
        stages: The inception modules between two pools.
        parameters: Trainable, for `classes`, without the auxiliary heads.
        auxiliary_heads: Whether two more heads learn from the middle of the network; they are left out by default.
        size: Length of every axis.
        channels: Of the input.
        classes: Of the paper's data.
        dropout: Share dropped before the head.
    """

    stem: tuple[int, int, int]
    stages: tuple[tuple[Inception, ...], ...]
    parameters: int
    auxiliary_heads: bool = False
    size: int = 224
    channels: int = 3
    classes: int = 1000
    dropout: float = 0.4


VARIANTS = {
    "googlenet": Variant(
        (64, 64, 192),
        (
            (Inception(64, 96, 128, 16, 32, 32), Inception(128, 128, 192, 32, 96, 64)),
            (
                Inception(192, 96, 208, 16, 48, 64),
                Inception(160, 112, 224, 24, 64, 64),
                Inception(128, 128, 256, 24, 64, 64),
                Inception(112, 144, 288, 32, 64, 64),
                Inception(256, 160, 320, 32, 128, 128),
            ),
            (Inception(256, 160, 320, 32, 128, 128), Inception(384, 192, 384, 48, 128, 128)),
        ),
        6_998_552,
    ),
    "googlenet_mini": Variant(
        (4, 4, 8), ((Inception(8, 8, 8, 8, 8, 8),), (Inception(8, 8, 8, 8, 8, 8),) * 4), 16_710, size=32, classes=10
    ),
}
AUXILIARY = {"auxiliary1": "stage2_a", "auxiliary2": "stage2_d"}  # the modules that the heads listen to: 4a and 4d


def features(x: KerasTensor, variant: Variant) -> KerasTensor:
    """Stack what comes before the first inception module (`stem`) and the modules (`stage1` and so on)."""
    first, second, third = variant.stem
    x = conv(x, first, 7, 2, activation="relu", name="stem_conv1")
    x = pool(x, "max", 3, 2, padding="same", name="stem_pool1")
    x = LocalResponseNormalization(name="stem_norm1")(x)
    x = conv(x, second, 1, activation="relu", name="stem_conv2")
    x = conv(x, third, 3, activation="relu", name="stem_conv3")
    x = LocalResponseNormalization(name="stem_norm2")(x)
    x = end(pool(x, "max", 3, 2, padding="same", name="stem_pool2"), "stem")
    for number, modules in enumerate(variant.stages, 1):
        for letter, filters in zip(string.ascii_lowercase, modules, strict=False):
            x = inception(x, filters, f"stage{number}_{letter}")
        if number < len(variant.stages):
            x = pool(x, "max", 3, 2, padding="same", name=f"stage{number}_pool")
        x = end(x, f"stage{number}")
    return x


def inception(x: KerasTensor, filters: Inception, name: str) -> KerasTensor:
    """Look at a map through windows of three sizes at once (figure 2b).

    Shapes:
        x: (batch, *space, channels)
        returns: (batch, *space, one + three + five + pool)

    >>> inception(keras.Input((28, 28, 192)), Inception(64, 96, 128, 16, 32, 32), "a").shape
    (None, 28, 28, 256)
    """
    one = conv(x, filters.one, 1, activation="relu", name=f"{name}_1")
    three = conv(x, filters.three_reduce, 1, activation="relu", name=f"{name}_3_reduce")
    three = conv(three, filters.three, 3, activation="relu", name=f"{name}_3")
    five = conv(x, filters.five_reduce, 1, activation="relu", name=f"{name}_5_reduce")
    five = conv(five, filters.five, 5, activation="relu", name=f"{name}_5")
    pooled = pool(x, "max", 3, 1, padding="same", name=f"{name}_pool")
    pooled = conv(pooled, filters.pool, 1, activation="relu", name=f"{name}_pool_reduce")
    return layers.Concatenate(name=name)([one, three, five, pooled])


def top(x: KerasTensor, variant: Variant) -> KerasTensor:
    """Pool over all positions."""
    return layers.Dropout(variant.dropout, name="dropout")(global_pool(x))


def with_auxiliary_heads(model: keras.Model, variant: Variant, classes: int, activation: Activation) -> keras.Model:
    """Add the two heads of section 5; the paper gives their losses the weight 0.3."""
    if not variant.auxiliary_heads:
        return model
    outputs = [model.output]
    for name, module in AUXILIARY.items():
        x = model.get_layer(module).output
        x = pool(
            x,
            "average",
            5,
            3,
            padding="same" if min(n or 0 for n in x.shape[1:-1]) < 5 else "valid",
            name=f"{name}_pool",
        )
        x = conv(x, 128, 1, activation="relu", name=f"{name}_conv")
        x = layers.Dense(1024, "relu", kernel_initializer="he_normal", name=f"{name}_dense")(
            layers.Flatten(name=f"{name}_flatten")(x)
        )
        x = layers.Dropout(0.7, name=f"{name}_dropout")(x)
        outputs.append(head(x, classes, activation, name=f"{name}_head", probabilities=f"{name}_probabilities"))
    return keras.Model(model.input, outputs, name=model.name)


FAMILY = Family(VARIANTS, features, top, complete=with_auxiliary_heads)
