"""Small KerasHub backbones of random weights, one for each family, and what KerasHub itself says they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

SIDE = 64
IMAGENET = {"scale": [1 / (255 * s) for s in (0.229, 0.224, 0.225)],
            "offset": [-m / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]}  # fmt: skip
HALF = {"scale": [1 / 127.5] * 3, "offset": [-1.0] * 3}
UNIT = {"scale": 1 / 255, "offset": None}
ALL = ("stem", "stage1", "stage2", "stage3", "stage4")
TRANSFORMER = {"patch_size": 8, "num_layers": 5, "num_heads": 2, "hidden_dim": 16, "image_shape": (SIDE, SIDE, 3)}


class Family(NamedTuple):
    """A family of KerasHub.

    Args:
        backbone: Its class.
        arguments: Of a small one.
        converter: Class of its image converter, and how that scales.
        scaling: Arguments of the converter.
        pooled: From what the backbone puts out to the features of a head.
        stages: Names of the stages.
        accept: Name of the licence that has to be accepted.
    """

    backbone: str
    arguments: dict[str, Any]
    converter: str
    scaling: dict[str, Any]
    pooled: Callable[[np.ndarray], np.ndarray]
    stages: tuple[str, ...] = ALL
    accept: str | None = None


def first(tokens: np.ndarray) -> np.ndarray:
    return tokens[:, 0]


def first_and_mean(tokens: np.ndarray) -> np.ndarray:  # behind the class token and four registers
    return np.concatenate([tokens[:, 0], tokens[:, 5:].mean(axis=1)], axis=1)


def mean(values: np.ndarray) -> np.ndarray:
    return values.mean(axis=tuple(range(1, values.ndim - 1)))


def itself(vector: np.ndarray) -> np.ndarray:
    return vector


def _each(*values: Any) -> list[list[Any]]:
    return [[value] * (1 if n == 0 else 2) for n, value in enumerate(values)]


MOBILENETV5 = {
    "stackwise_block_types": [["er"], ["uir", "uir"], ["uir", "mqa"]],
    "stackwise_num_blocks": [1, 2, 2],
    "stackwise_num_filters": _each(8, 16, 24),
    "stackwise_strides": [[2], [2, 1], [2, 1]],
    "stackwise_act_layers": _each("gelu", "gelu", "gelu"),
    "stackwise_exp_ratios": _each(4.0, 4.0, 4.0),
    "stackwise_se_ratios": _each(0.0, 0.0, 0.0),
    "stackwise_dw_kernel_sizes": _each(0, 5, 5),
    "stackwise_dw_start_kernel_sizes": _each(0, 0, 0),
    "stackwise_dw_end_kernel_sizes": _each(0, 0, 0),
    "stackwise_exp_kernel_sizes": _each(3, 0, 0),
    "stackwise_pw_kernel_sizes": _each(1, 0, 0),
    "stackwise_num_heads": _each(0, 0, 2),
    "stackwise_key_dims": _each(0, 0, 8),
    "stackwise_value_dims": _each(0, 0, 8),
    "stackwise_kv_strides": _each(0, 0, 1),
    "stackwise_use_cpe": _each(False, False, False),
    "num_features": 32,
    "msfa_output_resolution": 4,
    "stem_size": 8,
}
HGNETV2 = {
    "depths": [1, 1, 2, 1],
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 16, 32],
    "stem_channels": [3, 8, 8],
    "hidden_act": "relu",
    "use_learnable_affine_block": True,
    "stackwise_stage_filters": [(8, 8, 8, 1, 1, 3), (8, 8, 16, 1, 1, 3), (16, 8, 16, 2, 1, 3), (16, 8, 32, 1, 1, 3)],
    "apply_downsample": [False, True, True, True],
    "use_lightweight_conv_block": [False, False, True, True],
}
EFFICIENTNET = {
    "stackwise_kernel_sizes": [3, 3, 5, 3],
    "stackwise_num_repeats": [1, 1, 1, 1],
    "stackwise_input_filters": [8, 8, 16, 16],
    "stackwise_output_filters": [8, 16, 16, 24],
    "stackwise_expansion_ratios": [1, 4, 4, 4],
    "stackwise_squeeze_and_excite_ratios": [0.25] * 4,
    "stackwise_strides": [1, 2, 2, 2],
    "stackwise_block_types": ["v1"] * 4,
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,  # KerasHub does not save num_features, so that it stays 1280
}
RESNET_VD = {
    "input_conv_filters": [8, 8, 16],
    "input_conv_kernel_sizes": [3, 3, 3],
    "stackwise_num_filters": [64, 8, 8, 8],  # KerasHub asks for 64
    "stackwise_num_blocks": [1, 1, 1, 1],
    "stackwise_num_strides": [1, 2, 2, 2],
    "block_type": "bottleneck_block_vd",
}
SWIN = {
    "image_shape": (SIDE, SIDE, 3),
    "embed_dim": 8,
    "depths": (1, 1, 2, 1),
    "num_heads": (2, 2, 2, 4),  # OpenVINO 2026.4 computes a bias of positions wrongly where there is one head alone
    "window_size": 2,
}
WITH_REGISTERS = {**TRANSFORMER, "intermediate_dim": 32, "num_register_tokens": 4}

FAMILIES = {
    "DINOv2": Family("DINOV2Backbone", {**WITH_REGISTERS, "position_embedding_shape": (SIDE, SIDE, 3)},
                     "DINOV2ImageConverter", IMAGENET, first_and_mean),
    "DINOv3": Family("DINOV3Backbone", WITH_REGISTERS, "DINOV3ImageConverter", IMAGENET, first_and_mean,
                     accept="dinov3"),
    "ViT": Family("ViTBackbone", {**TRANSFORMER, "mlp_dim": 32}, "ViTImageConverter", HALF, first),
    "SigLIP": Family("SigLIPVisionEncoder", {**TRANSFORMER, "intermediate_dim": 32}, "SigLIPImageConverter", HALF,
                     itself),
    "CLIP": Family("CLIPVisionEncoder", {**TRANSFORMER, "intermediate_dim": 32}, "CLIPImageConverter", IMAGENET, first),
    "DeiT": Family("DeiTBackbone", {**TRANSFORMER, "intermediate_dim": 32}, "DeiTImageConverter", IMAGENET, first),
    "Swin": Family("SwinTransformerBackbone", SWIN, "SwinTransformerImageConverter", IMAGENET, mean),
    "HGNetV2": Family("HGNetV2Backbone", HGNETV2, "HGNetV2ImageConverter", IMAGENET, mean, ALL[:-1]),
    "MobileNetV5": Family("MobileNetV5Backbone", MOBILENETV5, "MobileNetV5ImageConverter", UNIT, mean, ALL[:-1],
                          "gemma"),
    "EfficientNet": Family("EfficientNetBackbone", EFFICIENTNET, "EfficientNetImageConverter", IMAGENET, mean,
                           ALL[:-1]),
    "ResNet-vd": Family("ResNetBackbone", RESNET_VD, "ResNetImageConverter", IMAGENET, mean),
    "DenseNet": Family("DenseNetBackbone", {"stackwise_num_repeats": [1, 1, 2, 1], "growth_rate": 8},
                       "DenseNetImageConverter", IMAGENET, mean),
    "VGG": Family("VGGBackbone", {"stackwise_num_repeats": [1] * 5, "stackwise_num_filters": [4, 8, 8, 16, 16],
                                  "image_shape": (SIDE, SIDE, 3)}, "VGGImageConverter", IMAGENET, mean),
    "CSPNet": Family("CSPNetBackbone", {"stem_filters": 8, "stem_kernel_size": 3, "stem_strides": 1,
                                        "stackwise_depth": [1] * 4, "stackwise_strides": [2] * 4,
                                        "stackwise_num_filters": [8, 8, 16, 32], "block_type": "dark_block",
                                        "stage_type": "dark"}, "CSPNetImageConverter", IMAGENET, mean),
}  # fmt: skip
SMALL = "ViT"
"""The one of the default suite: a transformer with its blocks in one layer."""


def converter(family: Family) -> Any:
    import keras_hub

    return getattr(keras_hub.layers, family.converter)(image_size=(SIDE, SIDE), **family.scaling)


def save(name: str, folder: Path) -> Path:
    """Save a preset of random weights, whose features differ from photo to photo."""
    import keras_hub

    family = FAMILIES[name]
    keras.utils.set_random_seed(0)
    backbone = getattr(keras_hub.models, family.backbone)(**family.arguments)
    rng = np.random.default_rng(0)
    for weight in backbone.weights:
        if weight.path.endswith(("gamma", "moving_variance", "scale", "lambda1")) and weight.shape:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        if len(weight.shape) == 4 and weight.path.endswith("kernel"):
            fan_in = np.prod(weight.shape[: 3 if weight.shape[-1] > 1 else 2])  # one filter a channel: depthwise
            weight.assign(rng.normal(0, (2 / fan_in) ** 0.5, weight.shape))
    backbone.save_to_preset(str(folder))
    converter(family).save_to_preset(str(folder))
    return folder


def features(name: str, folder: Path, photos: np.ndarray) -> np.ndarray:
    """Compute the features of photos by KerasHub alone: its converter, its backbone, and the pooling by hand."""
    import keras_hub

    family = FAMILIES[name]
    backbone = keras_hub.models.Backbone.from_preset(str(folder))
    x = np.asarray(keras.ops.convert_to_numpy(converter(family)(photos)))
    outputs = backbone(dict.fromkeys(backbone.input, x) if isinstance(backbone.input, dict) else x)
    values = outputs["stage4"] if isinstance(outputs, dict) else outputs
    return family.pooled(np.asarray(keras.ops.convert_to_numpy(values)))
