"""ConvNeXt, Liu et al. 2022 (arXiv:2201.03545), section 2 and table 9."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from keras import KerasTensor, layers

from tlkit.builders.family import Family
from tlkit.layers import LayerScale, conv, depthwise_conv, end, global_pool, layer_norm, stages, stochastic_depth

# A description, not an instance: an instance gives the same numbers each time it is called, whatever the seed.
KERNEL = {"class_name": "TruncatedNormal", "config": {"stddev": 0.02}}


class Variant(NamedTuple):
    """A row.

    Args:
        depths: Blocks in each stage.
        filters: Channels of each stage.
        parameters: Trainable, for `classes`.
        application: The same network in keras.applications.
        drop_path: Share of the last block's branch that is dropped in training (table 5); it grows linearly from the
            first.
        size: Length of every axis.
        channels: Of the input.
        classes: Of the paper's data.
    """

    depths: tuple[int, ...]
    filters: tuple[int, ...]
    parameters: int
    application: str | None = None
    drop_path: float = 0.0
    size: int = 224
    channels: int = 3
    classes: int = 1000


VARIANTS = {
    "convnext_tiny": Variant((3, 3, 9, 3), (96, 192, 384, 768), 28_589_128, "ConvNeXtTiny", 0.1),
    "convnext_small": Variant((3, 3, 27, 3), (96, 192, 384, 768), 50_223_688, "ConvNeXtSmall", 0.4),
    "convnext_base": Variant((3, 3, 27, 3), (128, 256, 512, 1024), 88_591_464, "ConvNeXtBase", 0.5),
    "convnext_large": Variant((3, 3, 27, 3), (192, 384, 768, 1536), 197_767_336, "ConvNeXtLarge", 0.5),
    "convnext_mini": Variant((1, 1, 2, 1), (4, 8, 8, 16), 7_638, drop_path=0.1, size=32, classes=10),
}


def features(x: KerasTensor, variant: Variant) -> KerasTensor:
    """Stack the patches (`stem`) and the blocks (`stage1` and so on); between stages the map is halved."""
    x = conv(x, variant.filters[0], 4, 4, padding="valid", kernel_initializer=KERNEL, name="stem_conv")
    x = end(layer_norm(x, "stem_norm"), "stem")
    last = max(1, sum(variant.depths) - 1)

    def step(x: KerasTensor, name: str, stage: int, number: int) -> KerasTensor:
        filters = variant.filters[stage]
        if stage and not number:
            x = layer_norm(x, f"stage{stage + 1}_halve_norm")
            x = conv(x, filters, 2, 2, padding="valid", kernel_initializer=KERNEL, name=f"stage{stage + 1}_halve_conv")
        return block(x, variant.drop_path * (sum(variant.depths[:stage]) + number) / last, name)

    return stages(x, step, variant.depths)


def block(x: KerasTensor, drop: float, name: str) -> KerasTensor:
    """Look at each channel alone through 7 x 7, then mix the channels (figure 4, right)."""
    filters = x.shape[-1]
    y = depthwise_conv(x, 7, initializer=KERNEL, name=f"{name}_depthwise_conv")
    y = layer_norm(y, f"{name}_norm")
    y = layers.Dense(4 * filters, "gelu", kernel_initializer=KERNEL, name=f"{name}_dense1")(y)
    y = layers.Dense(filters, kernel_initializer=KERNEL, name=f"{name}_dense2")(y)
    y = LayerScale(name=f"{name}_scale")(y)
    return layers.Add(name=f"{name}_add")([x, stochastic_depth(y, drop, f"{name}_drop")])


def top(x: KerasTensor, _: Variant) -> KerasTensor:
    """Pool over all positions, then normalize."""
    return layer_norm(global_pool(x), "norm")


def bare(x: KerasTensor, _: Variant, pooling: str | None, space: Sequence[int | None]) -> KerasTensor:
    """Normalize the features, after they are pooled where they are."""
    return layer_norm(global_pool(x, pooling) if pooling else x, "norm")


FAMILY = Family(VARIANTS, features, top, bare)
