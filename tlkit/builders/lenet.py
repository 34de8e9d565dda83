"""LeNet-5, LeCun et al. 1998 ("Gradient-based learning applied to document recognition"), section II.B and figure 2.

C3 sees all maps of S2 (the paper's table I leaves some out), S2 and S4 have no weights, the output layer is a softmax.
"""

from __future__ import annotations

from typing import NamedTuple

from keras import KerasTensor, layers

from tlkit.builders.family import Family
from tlkit.layers import conv, end, pool


class Variant(NamedTuple):
    """A row.

    Args:
        filters: Of C1 and C3.
        dense: Units of C5 and F6.
        parameters: Trainable, at `size` and for `classes`.
        size: Length of every axis that the paper uses.
        channels: Of the input.
        classes: Of the paper's data.
        activation: The paper's is a scaled hyperbolic tangent.
    """

    filters: tuple[int, int]
    dense: tuple[int, int]
    parameters: int
    size: int = 32
    channels: int = 1
    classes: int = 10
    activation: str = "tanh"


VARIANTS = {
    "lenet5": Variant((6, 16), (120, 84), 61_706),
    "lenet_mini": Variant((2, 4), (8, 8), 1_226),
}


def features(x: KerasTensor, variant: Variant) -> KerasTensor:
    """Stack C1 and S2 (`stem`), C3 and S4 (`stage1`)."""
    for stage, filters in zip(("stem", "stage1"), variant.filters, strict=True):
        x = conv(
            x,
            filters,
            5,
            padding="valid",
            activation=variant.activation,
            kernel_initializer="glorot_uniform",
            name=f"{stage}_conv",
        )
        x = end(pool(x, "average", 2, name=f"{stage}_pool"), stage)
    return x


def top(x: KerasTensor, variant: Variant) -> KerasTensor:
    """Stack C5, which on images of the paper's size is a dense layer, and F6."""
    x = layers.Flatten(name="flatten")(x)
    for number, units in enumerate(variant.dense, 1):
        x = layers.Dense(units, variant.activation, name=f"dense{number}")(x)
    return x


FAMILY = Family(VARIANTS, features, top)
