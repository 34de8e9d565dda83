"""ResNet, He et al. 2015 (arXiv:1512.03385), table 1.

`resnet50` and deeper halve the map in the 3 x 3 convolution of a stage's first block, as torchvision, timm and NVIDIA
do ("ResNet v1.5"); `resnet50_v1` and so on halve it in the 1 x 1 convolution before, as the paper and
keras.applications do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from keras import KerasTensor, layers

from tlkit.builders.family import Family, pooled
from tlkit.layers import conv_norm, end, pool, stages


def basic(x: KerasTensor, filters: int, strides: int, name: str) -> KerasTensor:
    """Two 3 x 3 convolutions (figure 5, left)."""
    x = conv_norm(x, filters, 3, strides, padding=1, name=f"{name}_1")
    return conv_norm(x, filters, 3, padding=1, activation=None, name=f"{name}_2")


def bottleneck(x: KerasTensor, filters: int, strides: int, name: str) -> KerasTensor:
    """Narrow by a 1 x 1 convolution, look by a 3 x 3, widen by a 1 x 1 (figure 5, right)."""
    x = conv_norm(x, filters, 1, name=f"{name}_1")
    x = conv_norm(x, filters, 3, strides, padding=1, name=f"{name}_2")
    return conv_norm(x, 4 * filters, 1, activation=None, name=f"{name}_3")


def bottleneck_v1(x: KerasTensor, filters: int, strides: int, name: str) -> KerasTensor:
    """The same with the stride in the first convolution."""
    x = conv_norm(x, filters, 1, strides, padding="valid", name=f"{name}_1")
    x = conv_norm(x, filters, 3, padding=1, name=f"{name}_2")
    return conv_norm(x, 4 * filters, 1, activation=None, name=f"{name}_3")


class Variant(NamedTuple):
    """A row.

    Args:
        branch: What is added to the input of each block.
        depths: Blocks in each stage.
        parameters: Trainable, for `classes`.
        filters: Of the stem and the first stage; each further stage has twice as many.
        size: Length of every axis.
        channels: Of the input.
        classes: Of the paper's data.
        application: The same network in keras.applications.
    """

    branch: Callable[[KerasTensor, int, int, str], KerasTensor]
    depths: tuple[int, ...]
    parameters: int
    filters: int = 64
    size: int = 224
    channels: int = 3
    classes: int = 1000
    application: str | None = None


VARIANTS = {
    "resnet18": Variant(basic, (2, 2, 2, 2), 11_689_512),
    "resnet34": Variant(basic, (3, 4, 6, 3), 21_797_672),
    "resnet50": Variant(bottleneck, (3, 4, 6, 3), 25_557_032),
    "resnet101": Variant(bottleneck, (3, 4, 23, 3), 44_549_160),
    "resnet152": Variant(bottleneck, (3, 8, 36, 3), 60_192_808),
    "resnet50_v1": Variant(bottleneck_v1, (3, 4, 6, 3), 25_557_032, application="ResNet50"),
    "resnet101_v1": Variant(bottleneck_v1, (3, 4, 23, 3), 44_549_160, application="ResNet101"),
    "resnet152_v1": Variant(bottleneck_v1, (3, 8, 36, 3), 60_192_808, application="ResNet152"),
    "resnet_mini": Variant(basic, (1, 1, 1), 5_694, filters=4, size=32, classes=10),
    "resnet_bottleneck_mini": Variant(bottleneck, (1, 1, 1), 9_454, filters=4, size=32, classes=10),
}


def features(x: KerasTensor, variant: Variant) -> KerasTensor:
    """Stack the first convolution with its pool (`stem`) and the residual blocks (`stage1` and so on)."""
    x = conv_norm(x, variant.filters, 7, 2, padding=3, name="stem")
    x = end(pool(x, "max", 3, 2, padding=1, name="stem_pool"), "stem")

    def block(x: KerasTensor, name: str, stage: int, number: int) -> KerasTensor:
        strides = 2 if stage and not number else 1
        return residual(x, variant.branch, variant.filters * 2**stage, strides, name)

    return stages(x, block, variant.depths)


def residual(
    x: KerasTensor, branch: Callable[[KerasTensor, int, int, str], KerasTensor], filters: int, strides: int, name: str
) -> KerasTensor:
    """Add a branch to its input, which is projected where the shape changes (option B of section 3.3)."""
    y = branch(x, filters, strides, name)
    if strides > 1 or y.shape[-1] != x.shape[-1]:
        x = conv_norm(x, y.shape[-1], 1, strides, padding="valid", activation=None, name=f"{name}_0")
    x = layers.Add(name=f"{name}_add")([x, y])
    return layers.Activation("relu", name=f"{name}_activation")(x)


FAMILY = Family(VARIANTS, features, pooled)
