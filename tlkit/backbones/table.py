"""The table of backbones: what tlkit knows about each network."""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple

from tlkit.errors import InvalidInput


class Row(NamedTuple):
    """One backbone.

    Args:
        constructor: Its function in keras.applications; None for our own LetterNet.
        size: Height and width in pixels of the images it was trained on.
        preprocessing: `caffe`, `tf` or `torch`, as in keras.applications.imagenet_utils, or `built in`.
        stages: Name of each stage, first to last, and of the layer that ends it.
        alphas: Width multipliers with published weights; empty where the network has no such argument.
        smallest: The least height and width in pixels that the network can take.
        channels: Channels of the images it was trained on.
        pretrained: The word for its published weights.
        backends_without: Backends on which Keras does not have it.
        file: Name of its published weights in Keras' cache, a pattern with `{alpha}` or, for MobileNet, `{digits}`.
    """

    constructor: str | None
    size: int
    preprocessing: str
    stages: dict[str, str]
    alphas: tuple[float, ...] = ()
    smallest: int = 32
    channels: int = 3
    pretrained: str = "imagenet"
    backends_without: tuple[str, ...] = ()
    file: str = ""


_KERNELS = "{}_weights_tf_dim_ordering_tf_kernels_notop.h5"


def _stages(stem: str, *ends: str) -> dict[str, str]:
    return {"stem": stem} | {f"stage{i}": end for i, end in enumerate(ends, 1)}


def _convnext(size: str, depth: int) -> Row:  # depth: blocks in the third stage
    name = f"convnext_{size.lower()}"
    ends = [f"{name}_stage_{stage}_block_{block}_identity" for stage, block in enumerate((2, 2, depth - 1))]
    stages = _stages(f"{name}_stem", *ends, "layer_normalization")
    return Row(f"ConvNeXt{size}", 224, "built in", stages, file=f"{name}_notop.h5")


def _densenet(depth: int, blocks: int) -> Row:  # blocks: in the third stage
    ends = _stages("pool1", "conv2_block6_concat", "conv3_block12_concat", f"conv4_block{blocks}_concat", "relu")
    return Row(f"DenseNet{depth}", 224, "torch", ends, file=_KERNELS.format(f"densenet{depth}"))


def _efficientnet(variant: str, size: int, last: str) -> Row:  # last: letters of the last blocks in parts 2, 3 and 5
    ends = [f"block{part}{letter}_add" for part, letter in zip("235", last, strict=True)]
    file = f"efficientnet{variant.lower().replace('v2', 'v2-')}_notop.h5"
    return Row(
        f"EfficientNet{variant}", size, "built in", _stages("stem_activation", *ends, "top_activation"), file=file
    )


def _nasnet(variant: str, size: int, cells: int, output: str, smallest: int) -> Row:  # cells: between two reductions
    ends = ("reduction_concat_stem_1", f"normal_concat_{cells - 1}", f"normal_concat_{2 * cells}", output)
    without = ("torch",) if variant == "Mobile" else ()  # keras.applications refuses, for a bug of its own
    stages, file = _stages("stem_bn1", *ends), f"nasnet_{variant.lower()}_no_top.h5"
    return Row(f"NASNet{variant}", size, "tf", stages, smallest=smallest, backends_without=without, file=file)


def _resnet(depth: int, blocks: tuple[int, int, int, int], version: str = "") -> Row:  # He et al. 2015, table 1
    ends = [f"conv{stage}_block{block}_out" for stage, block in enumerate(blocks, 2)]
    if version == "V2":
        ends[-1] = "post_relu"
    file = _KERNELS.format(f"resnet{depth}{version.lower()}")
    return Row(f"ResNet{depth}{version}", 224, "tf" if version else "caffe", _stages("pool1_pool", *ends), file=file)


_ROWS = (
    _convnext("Tiny", 9),
    *(_convnext(size, 27) for size in ("Small", "Base", "Large", "XLarge")),
    _densenet(121, 24),
    _densenet(169, 32),
    _densenet(201, 48),
    _efficientnet("B0", 224, "bbc"),
    _efficientnet("B1", 240, "ccd"),
    _efficientnet("B2", 260, "ccd"),
    _efficientnet("B3", 300, "cce"),
    _efficientnet("B4", 380, "ddf"),
    _efficientnet("B5", 456, "eeg"),
    _efficientnet("B6", 528, "ffh"),
    _efficientnet("B7", 600, "ggj"),
    _efficientnet("V2B0", 224, "bbe"),
    _efficientnet("V2B1", 240, "ccf"),
    _efficientnet("V2B2", 260, "ccf"),
    _efficientnet("V2B3", 300, "ccg"),
    _efficientnet("V2S", 384, "ddi"),
    _efficientnet("V2M", 480, "een"),
    _efficientnet("V2L", 480, "ggs"),
    Row(
        "InceptionResNetV2",
        299,
        "tf",
        _stages("activation_2", "activation_4", "block35_10_ac", "block17_20_ac", "conv_7b_ac"),
        smallest=75,
        file=_KERNELS.format("inception_resnet_v2"),
    ),
    Row(
        "InceptionV3",
        299,
        "tf",
        _stages("activation_2", "activation_4", "mixed2", "mixed7", "mixed10"),
        smallest=75,
        file=_KERNELS.format("inception_v3"),
    ),
    Row(
        "MobileNet",
        224,
        "tf",
        _stages("conv1_relu", "conv_pw_3_relu", "conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"),
        alphas=(0.25, 0.5, 0.75, 1.0),
        file="mobilenet_{digits}_224_tf_no_top.h5",
    ),
    Row(
        "MobileNetV2",
        224,
        "tf",
        _stages("Conv1_relu", "block_2_add", "block_5_add", "block_12_add", "out_relu"),
        alphas=(0.35, 0.5, 0.75, 1.0, 1.3, 1.4),
        file="mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224_no_top.h5",
    ),
    Row(
        "MobileNetV3Large",
        224,
        "built in",
        _stages("activation", "expanded_conv_2_add", "expanded_conv_5_add", "expanded_conv_11_add", "activation_19"),
        alphas=(0.75, 1.0),
        file="weights_mobilenet_v3_large_224_{alpha}_float_no_top_v2.h5",
    ),
    Row(
        "MobileNetV3Small",
        224,
        "built in",
        _stages(
            "activation", "expanded_conv_project_bn", "expanded_conv_2_add", "expanded_conv_7_add", "activation_17"
        ),
        alphas=(0.75, 1.0),
        file="weights_mobilenet_v3_small_224_{alpha}_float_no_top_v2.h5",
    ),
    _nasnet("Mobile", 224, 4, "activation_187", smallest=32),
    _nasnet("Large", 331, 6, "activation_259", smallest=32),
    _resnet(50, (3, 4, 6, 3)),
    _resnet(101, (3, 4, 23, 3)),
    _resnet(152, (3, 8, 36, 3)),
    _resnet(50, (3, 4, 6, 3), "V2"),
    _resnet(101, (3, 4, 23, 3), "V2"),
    _resnet(152, (3, 8, 36, 3), "V2"),
    Row(
        "VGG16",
        224,
        "caffe",
        _stages(*(f"block{i}_pool" for i in range(1, 6))),
        file=_KERNELS.format("vgg16"),
    ),
    Row(
        "VGG19",
        224,
        "caffe",
        _stages(*(f"block{i}_pool" for i in range(1, 6))),
        file=_KERNELS.format("vgg19"),
    ),
    Row(
        "Xception",
        299,
        "tf",
        _stages("block1_conv2_act", "add", "add_1", "add_10", "block14_sepconv2_act"),
        smallest=71,
        file=_KERNELS.format("xception"),
    ),
)

BACKBONES: dict[str, Row] = {str(row.constructor): row for row in _ROWS} | {
    "LetterNet": Row(
        None,
        32,
        "built in",
        _stages("stem", "stage1", "stage2", "stage3"),
        smallest=16,
        channels=1,
        pretrained="letters",
    )
}


_BUILT = re.compile(r"(alexnet|cnn|gcn|googlenet|lenet|vit)|vgg1[13]$|resnet(18|34)|resnet\d+v1$|\w+mini$")
"""Names, without signs, of the networks of `tlkit.builders` that are not here: they have no published weights."""


def row(name: str) -> Row:
    """Return the row of a backbone.

    Raises:
        InvalidInput: there is none of this name; the message names the most similar one.

    >>> row("VGG16").size
    224
    """
    if name in BACKBONES:
        return BACKBONES[name]
    by_lower_case = {each.lower(): each for each in BACKBONES}
    plain = re.sub(r"[\W_]", "", str(name)).lower()
    close = by_lower_case[difflib.get_close_matches(plain, by_lower_case, n=1, cutoff=0.0)[0]]
    if plain not in by_lower_case and _BUILT.match(plain):
        raise InvalidInput(
            f"backbone {name!r} is unknown: tlkit.builders.build has such networks, to train from nothing, and "
            f"tlkit.builders.VARIANTS lists them; of those with published weights the most similar is {close}"
        )
    raise InvalidInput(
        f"backbone {name!r} is unknown: did you mean {close}? tlkit.backbones.BACKBONES lists all {len(BACKBONES)}"
    )
