"""EfficientNet, Tan and Le 2019 (arXiv:1905.11946): table 1 is B0, compound scaling (section 3.3) gives the others.

Widths and depths are rounded, resolutions and dropout chosen as in the authors' code.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

from keras import KerasTensor, layers

from tlkit.builders.family import Family, pooled
from tlkit.layers import conv_norm, depthwise_conv, end, global_pool, rank, stochastic_depth


class Blocks(NamedTuple):
    """A line of table 1: `repeats` inverted bottlenecks, of which the first has the stride."""

    stage: str
    repeats: int
    kernel_size: int
    strides: int
    expansion: int
    filters: int


BLOCKS = (
    Blocks("stage1", 1, 3, 1, 1, 16),
    Blocks("stage1", 2, 3, 2, 6, 24),
    Blocks("stage2", 2, 5, 2, 6, 40),
    Blocks("stage3", 3, 3, 2, 6, 80),
    Blocks("stage3", 3, 5, 1, 6, 112),
    Blocks("stage4", 4, 5, 2, 6, 192),
    Blocks("stage4", 1, 3, 1, 6, 320),
)
STEM, LAST = 32, 1280  # filters of the first and of the last convolution
MULTIPLE = 8  # of which filters are
# A description, not an instance: an instance gives the same numbers each time it is called, whatever the seed.
KERNEL = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "truncated_normal"},
}


class Variant(NamedTuple):
    """A row.

    Args:
        width: Factor of all filters.
        depth: Factor of all repeats.
        size: Length of every axis.
        dropout: Share dropped before the head.
        parameters: Trainable, for `classes`.
        application: The same network in keras.applications.
        drop_path: Share of the last block's branch that is dropped in training; it grows linearly from the first.
        channels: Of the input.
        classes: Of the paper's data.
    """

    width: float
    depth: float
    size: int
    dropout: float
    parameters: int
    application: str | None = None
    drop_path: float = 0.2
    channels: int = 3
    classes: int = 1000


VARIANTS = {
    "efficientnet_b0": Variant(1.0, 1.0, 224, 0.2, 5_288_548, "EfficientNetB0"),
    "efficientnet_b1": Variant(1.0, 1.1, 240, 0.2, 7_794_184, "EfficientNetB1"),
    "efficientnet_b2": Variant(1.1, 1.2, 260, 0.3, 9_109_994, "EfficientNetB2"),
    "efficientnet_b3": Variant(1.2, 1.4, 300, 0.3, 12_233_232, "EfficientNetB3"),
    "efficientnet_b4": Variant(1.4, 1.8, 380, 0.4, 19_341_616, "EfficientNetB4"),
    "efficientnet_b5": Variant(1.6, 2.2, 456, 0.4, 30_389_784, "EfficientNetB5"),
    "efficientnet_b6": Variant(1.8, 2.6, 528, 0.5, 43_040_704, "EfficientNetB6"),
    "efficientnet_b7": Variant(2.0, 3.1, 600, 0.5, 66_347_960, "EfficientNetB7"),
    "efficientnet_mini": Variant(0.1, 0.3, 32, 0.2, 47_052, classes=10),
}


def features(x: KerasTensor, variant: Variant) -> KerasTensor:
    """Stack the first convolution (`stem`) and the blocks; `stage4` ends with the last convolution."""
    x = end(_conv(x, _scaled(STEM, variant.width), 3, 2, name="stem"), "stem")
    lines = [(blocks, repeat) for blocks in BLOCKS for repeat in range(math.ceil(variant.depth * blocks.repeats))]
    built = 0
    for stage, group in itertools.groupby(lines, lambda line: line[0].stage):
        for number, (blocks, repeat) in enumerate(group, 1):
            filters, strides = _scaled(blocks.filters, variant.width), 1 if repeat else blocks.strides
            drop = variant.drop_path * built / len(lines)
            x = block(x, filters, blocks.kernel_size, strides, blocks.expansion, drop, f"{stage}_block{number}")
            built += 1
        if stage == BLOCKS[-1].stage:
            x = _conv(x, _scaled(LAST, variant.width), 1, name=f"{stage}_last")
        x = end(x, stage)
    return x


def block(
    x: KerasTensor, filters: int, kernel_size: int, strides: int, expansion: int, drop: float, name: str
) -> KerasTensor:
    """Widen, look at each channel alone, weigh the channels, narrow (MBConv: Sandler et al. 2018, Hu et al. 2018)."""
    channels = x.shape[-1]
    y = _conv(x, channels * expansion, 1, name=f"{name}_expand") if expansion > 1 else x
    y = depthwise_conv(y, kernel_size, strides, use_bias=False, initializer=KERNEL, name=f"{name}_depthwise_conv")
    y = layers.BatchNormalization(name=f"{name}_depthwise_norm")(y)
    y = layers.Activation("silu", name=f"{name}_depthwise_activation")(y)
    y = squeeze_excite(y, max(1, channels // 4), f"{name}_squeeze")
    y = _conv(y, filters, 1, activation=None, name=f"{name}_project")
    if strides == 1 and filters == channels:
        y = layers.Add(name=f"{name}_add")([x, stochastic_depth(y, drop, f"{name}_drop")])
    return y


def squeeze_excite(x: KerasTensor, units: int, name: str) -> KerasTensor:
    """Weigh each channel by what all of them hold on average (Hu et al. 2018, arXiv:1709.01507)."""
    y = global_pool(x, name=f"{name}_pool")
    y = layers.Dense(units, "silu", kernel_initializer=KERNEL, name=f"{name}_reduce")(y)
    y = layers.Dense(x.shape[-1], "sigmoid", kernel_initializer=KERNEL, name=f"{name}_expand")(y)
    y = layers.Reshape((*[1] * rank(x), x.shape[-1]), name=f"{name}_reshape")(y)
    return layers.Multiply(name=f"{name}_multiply")([x, y])


def _conv(
    x: KerasTensor, filters: int, kernel_size: int, strides: int = 1, *, activation: str | None = "silu", name: str
) -> KerasTensor:
    return conv_norm(
        x,
        filters,
        kernel_size,
        strides,
        activation=activation,
        name=name,
        momentum=0.99,
        epsilon=1e-3,
        kernel_initializer=KERNEL,
    )


def _scaled(filters: int, width: float) -> int:
    """Multiply and round to a multiple of 8, but not down by more than a tenth."""
    scaled = filters * width
    rounded = max(MULTIPLE, int(scaled + MULTIPLE / 2) // MULTIPLE * MULTIPLE)
    return rounded + MULTIPLE if rounded < 0.9 * scaled else rounded


FAMILY = Family(VARIANTS, features, pooled)
