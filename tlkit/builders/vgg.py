"""VGG, Simonyan and Zisserman 2014 (arXiv:1409.1556), table 1: columns A, B, D and E."""

from __future__ import annotations

from typing import NamedTuple

from keras import KerasTensor, layers

from tlkit.builders.family import Family
from tlkit.layers import conv, end, pool


class Variant(NamedTuple):
    """A row.

    Args:
        depths: Convolutions in each of the five parts between the pools.
        parameters: Trainable, at `size` and for `classes`.
        filters: Of the convolutions of each part.
        dense: Units of the two layers before the head.
        size: Length of every axis.
        channels: Of the input.
        classes: Of the paper's data.
        dropout: Share dropped after both dense layers.
        application: The same network in keras.applications.
    """

    depths: tuple[int, ...]
    parameters: int
    filters: tuple[int, ...] = (64, 128, 256, 512, 512)
    dense: int = 4096
    size: int = 224
    channels: int = 3
    classes: int = 1000
    dropout: float = 0.5
    application: str | None = None


VARIANTS = {
    "vgg11": Variant((1, 1, 2, 2, 2), 132_863_336),
    "vgg13": Variant((2, 2, 2, 2, 2), 133_047_848),
    "vgg16": Variant((2, 2, 3, 3, 3), 138_357_544, application="VGG16"),
    "vgg19": Variant((2, 2, 4, 4, 4), 143_667_240, application="VGG19"),
    "vgg_mini": Variant((1, 1, 2), 6_114, (4, 8, 16), 8, size=32, classes=10),
}


def features(x: KerasTensor, variant: Variant) -> KerasTensor:
    """Stack the parts: the first is `stem`, the others are `stage1` and so on; each ends with its pool."""
    for part, (depth, filters) in enumerate(zip(variant.depths, variant.filters, strict=True)):
        stage = f"stage{part}" if part else "stem"
        for number in range(1, depth + 1):
            x = conv(x, filters, 3, activation="relu", name=f"{stage}_conv{number}")
        x = end(pool(x, "max", 2, name=f"{stage}_pool"), stage)
    return x


def top(x: KerasTensor, variant: Variant) -> KerasTensor:
    """Stack the two dense layers."""
    x = layers.Flatten(name="flatten")(x)
    for number in (1, 2):
        x = layers.Dense(variant.dense, "relu", kernel_initializer="he_normal", name=f"dense{number}")(x)
        x = layers.Dropout(variant.dropout, name=f"dropout{number}")(x)
    return x


FAMILY = Family(VARIANTS, features, top)
