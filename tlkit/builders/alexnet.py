"""AlexNet, as two groups of filters and as one.

`alexnet_grouped`: Krizhevsky, Sutskever and Hinton 2012 ("ImageNet classification with deep convolutional neural
networks"), figure 2 and section 3. `alexnet`: Krizhevsky 2014 (arXiv:1404.5997), one column, fewer filters, without
local response normalization; torchvision has the same.
"""

from __future__ import annotations

from typing import NamedTuple

from keras import KerasTensor, layers

from tlkit.builders.family import Family
from tlkit.layers import LocalResponseNormalization, conv, end, pool


class Variant(NamedTuple):
    """A row.

    Args:
        filters: Of the five convolutions.
        groups: Of the second, fourth and fifth convolution: as many halves did not see each other.
        dense: Units of the two layers before the head.
        parameters: Trainable, at `size` and for `classes`.
        local_response_normalization: Whether it follows the first two convolutions.
        size: Length of every axis.
        channels: Of the input.
        classes: Of the paper's data.
        dropout: Share dropped before both dense layers.
    """

    filters: tuple[int, int, int, int, int]
    groups: int
    dense: int
    parameters: int
    local_response_normalization: bool = False
    size: int = 224
    channels: int = 3
    classes: int = 1000
    dropout: float = 0.5


VARIANTS = {
    "alexnet": Variant((64, 192, 384, 256, 256), 1, 4096, 61_100_840),
    "alexnet_grouped": Variant((96, 256, 384, 384, 256), 2, 4096, 60_965_224, True),
    "alexnet_mini": Variant((4, 8, 8, 8, 8), 2, 8, 3_274, True, size=64, classes=10),
}


def features(x: KerasTensor, variant: Variant) -> KerasTensor:
    """Stack the first convolution (`stem`), the second (`stage1`) and the others (`stage2`), each with its pool."""
    first, second, *others = variant.filters
    x = conv(x, first, 11, 4, padding=2, activation="relu", name="stem_conv")
    x = _normalized_pool(x, variant, "stem")
    x = conv(x, second, 5, padding=2, groups=variant.groups, activation="relu", name="stage1_conv")
    x = _normalized_pool(x, variant, "stage1")
    for number, (filters, groups) in enumerate(zip(others, (1, variant.groups, variant.groups), strict=True), 1):
        x = conv(x, filters, 3, padding=1, groups=groups, activation="relu", name=f"stage2_conv{number}")
    return end(pool(x, "max", 3, 2, name="stage2_pool"), "stage2")


def _normalized_pool(x: KerasTensor, variant: Variant, stage: str) -> KerasTensor:
    if variant.local_response_normalization:
        x = LocalResponseNormalization(name=f"{stage}_norm")(x)
    return end(pool(x, "max", 3, 2, name=f"{stage}_pool"), stage)


def top(x: KerasTensor, variant: Variant) -> KerasTensor:
    """Stack the two dense layers."""
    x = layers.Flatten(name="flatten")(x)
    for number in (1, 2):
        x = layers.Dropout(variant.dropout, name=f"dropout{number}")(x)
        x = layers.Dense(variant.dense, "relu", kernel_initializer="he_normal", name=f"dense{number}")(x)
    return x


FAMILY = Family(VARIANTS, features, top)
