"""Vision transformer, Dosovitskiy et al. 2020 (arXiv:2010.11929), table 1; Ti and S: Touvron et al. 2020, table 1.

Patches of 16 pixels along every axis; the four stages have a quarter of the blocks each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from keras import KerasTensor, layers

from tlkit.builders.family import Family
from tlkit.errors import InvalidInput
from tlkit.layers import ClassToken, PositionEmbedding, conv, end, global_pool, layer_norm, stages


class Variant(NamedTuple):
    """A row.

    Args:
        depth: Blocks.
        width: Features of a token.
        heads: Of the attention.
        parameters: Trainable, at `size` and for `classes`.
        patch: Length of a patch along every axis.
        size: Length of every axis.
        channels: Of the input.
        classes: Of the paper's data.
        dropout: Share dropped after the embedding and after both parts of each block.
    """

    depth: int
    width: int
    heads: int
    parameters: int
    patch: int = 16
    size: int = 224
    channels: int = 3
    classes: int = 1000
    dropout: float = 0.0


VARIANTS = {
    "vit_ti_16": Variant(12, 192, 3, 5_717_416),
    "vit_s_16": Variant(12, 384, 6, 22_050_664),
    "vit_b_16": Variant(12, 768, 12, 86_567_656),
    "vit_l_16": Variant(24, 1024, 16, 304_326_632),
    "vit_mini": Variant(4, 16, 2, 16_698, patch=8, size=32, classes=10),
}
STAGES = 4


def features(x: KerasTensor, variant: Variant) -> KerasTensor:
    """Cut into patches, put the class token in front and add the positions (`stem`), then the blocks.

    Shapes:
        x: (batch, *space, channels)
        returns: (batch, 1 + patches, width), the class token first
    """
    shape = tuple(x.shape[1:])
    if None in shape or any(n % variant.patch for n in shape[:-1]):
        raise InvalidInput(
            f"input_shape is {shape}: a vision transformer needs the length of every axis, a multiple of its patches' "
            f"{variant.patch}"
        )
    if variant.width % variant.heads or variant.depth < STAGES:
        raise InvalidInput(
            f"depth is {variant.depth}, width {variant.width} and heads {variant.heads}: a depth of {STAGES} or more, "
            "and a width that is a multiple of heads"
        )
    x = conv(
        x,
        variant.width,
        variant.patch,
        variant.patch,
        padding="valid",
        kernel_initializer="lecun_normal",
        name="stem_conv",
    )
    x = layers.Reshape((math.prod(x.shape[1:-1]), variant.width), name="stem_tokens")(x)
    x = PositionEmbedding(name="stem_positions")(ClassToken(name="stem_class_token")(x))
    x = end(_dropped(x, variant, "stem_dropout"), "stem")
    ends = [variant.depth * stage // STAGES for stage in range(STAGES + 1)]
    depths = [end - start for start, end in itertools.pairwise(ends)]
    return stages(x, lambda x, name, *_: block(x, variant, name), depths)


def block(x: KerasTensor, variant: Variant, name: str) -> KerasTensor:
    """Attend to all tokens, then mix each token's features (figure 1, right).

    Shapes:
        x: (batch, tokens, width)
        returns: the same
    """
    y = layer_norm(x, f"{name}_norm1")
    y = layers.MultiHeadAttention(variant.heads, variant.width // variant.heads, name=f"{name}_attention")(y, y)
    x = layers.Add(name=f"{name}_add1")([x, _dropped(y, variant, f"{name}_dropout1")])
    y = layer_norm(x, f"{name}_norm2")
    y = layers.Dense(4 * variant.width, "gelu", name=f"{name}_dense1")(y)
    y = layers.Dense(variant.width, name=f"{name}_dense2")(_dropped(y, variant, f"{name}_dropout2"))
    return layers.Add(name=f"{name}_add2")([x, _dropped(y, variant, f"{name}_dropout3")])


def top(x: KerasTensor, _: Variant) -> KerasTensor:
    """Normalize and take the class token."""
    return layer_norm(x, "norm")[:, 0]


def bare(x: KerasTensor, variant: Variant, pooling: str | None, space: Sequence[int | None]) -> KerasTensor:
    """Normalize, leave the class token out and put the patches back in their places.

    Shapes:
        x: (batch, 1 + patches, width)
        returns: (batch, *(n // patch), width)
    """
    x = layer_norm(x, "norm")[:, 1:]
    x = layers.Reshape((*(n // variant.patch for n in space if n), variant.width), name="map")(x)
    return global_pool(x, pooling) if pooling else x


def _dropped(x: KerasTensor, variant: Variant, name: str) -> KerasTensor:
    return layers.Dropout(variant.dropout, name=name)(x) if variant.dropout else x


FAMILY = Family(VARIANTS, features, top, bare)
