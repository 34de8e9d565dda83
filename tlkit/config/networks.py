"""The settings of the network: pretrained or built anew, and what computes its frozen layers."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from tlkit.config.fields import require


@dataclasses.dataclass(frozen=True)
class Backbone:
    """The pretrained network under the new head.

    Args:
        name: A model of keras.applications, of KerasHub (`hub:PRESET`) or of your own (`FILE.keras`); `LetterNet`, the
            small one that comes with tlkit; your own also as `models:/name@alias` or `runs:/…`; KerasHub's as `hub:`
            and a preset's name, a folder, `hf://…` or `kaggle://…`. `auto` is LetterNet for the embedded digits and
            MobileNetV2 for anything else.
        weights: `imagenet`, `none`, or the path of a weights file without top; LetterNet has `letters` in place of
            `imagenet`. `pretrained` is whichever of the two the network has. A classifier that tlkit has made (a
            `.keras` file, `models:/name@alias` or `runs:/…`) is gone on from: its network, and its head for the classes
            that stay.
        alpha: Width multiplier, for the MobileNets only.
        pooled_stages: Number of last stages whose averages are the features of the head, side by side: with 2, detail
            that the last stage has lost counts too.
        cut: For a network of your own: name of the layer to cut behind; by default the last feature map.
        stages: For a network of your own: name of each stage and of the layer that ends it, such as
            `{stem: conv1, stage1: add_3}`; by default layers called `stem`, `stage1` ..., or where the map halves.
        pixels: For a network of your own: what it was trained on, pixels from 0 to 255, 0 to 1 or -1 to 1, or scaled as
            `caffe` or `torch` in keras.applications; by default it must scale them itself. For KerasHub's, where the
            preset has no image converter.
        accept_license: For a backbone of KerasHub: name of the licence of its weights, which you accept; needed where
            the licence asks for consent.
    """

    name: str = "auto"
    weights: str = "pretrained"
    alpha: float | None = None
    pooled_stages: int = 2
    cut: str | None = None
    stages: dict[str, str] | None = None
    pixels: Literal["0..255", "0..1", "-1..1", "caffe", "torch"] | None = None
    accept_license: str | None = None

    def __hash__(self) -> int:
        return hash(repr(self))

    def __post_init__(self) -> None:
        require(self.pooled_stages >= 1, "backbone.pooled_stages", self.pooled_stages, "it must be 1 or more")
        require(self.alpha is None or self.alpha > 0, "backbone.alpha", self.alpha, "it must be above 0")


@dataclasses.dataclass(frozen=True)
class Features:
    """What computes frozen layers, and where their activations are kept, so that none is computed twice.

    Args:
        store: Folder of the activation store, or `none`; by default what the environment's TLKIT_CACHE names, else the
            platform's place for caches (~/.cache/tlkit on Linux).
        limit: Maximum size of the store in gigabytes (10^9 bytes); the least recently used activations are deleted.
        engine: `keras`; `openvino`, which is faster on most CPUs; or `auto`: the one that has computed these
            activations before, else OpenVINO where it can run the network and agrees with Keras.
    """

    store: str | None = None
    limit: float = 20.0
    engine: Literal["auto", "keras", "openvino"] = "auto"

    def __post_init__(self) -> None:
        require(self.limit > 0, "features.limit", self.limit, "it must be above 0")


@dataclasses.dataclass(frozen=True)
class Builder:
    """The network that is trained from random weights.

    Args:
        name: `cnn`, the plain convolutional network that the settings from `filters` on describe, or a landmark such
            as `lenet5`, `resnet18` or `vit_s_16`; tlkit.builders.VARIANTS lists all. They work on photos, sounds and
            volumes, where these are large enough.
        weights: `none`, or the path of a `.weights.h5` file to begin with.
        spectrogram: Put a log-spectrogram in front, frequencies as channels; by default for sounds, not for arrays.
        dropout: Share of the features that is dropped in training before the head; by default the network's own.
        filters: For `cnn`: number of filters in each stage; pooling after each stage halves the feature map.
        convolutions: For `cnn`: number of convolutions in each stage.
        kernel_size: For `cnn`: kernel size of the convolutions, one number or one per stage.
        pool: For `cnn`: pooling after each stage.
        norm: For `cnn`: whether batch normalization follows each convolution.
        dense: For `cnn`: units of dense layers before the head; by default none, but global average pooling.
    """

    name: str = "cnn"
    weights: str = "none"
    spectrogram: bool | None = None
    dropout: float | None = None
    filters: list[int] | None = None
    convolutions: int | None = None
    kernel_size: int | list[int] | None = None
    pool: Literal["max", "average"] | None = None
    norm: bool | None = None
    dense: list[int] | None = None

    def __post_init__(self) -> None:
        require(
            self.dropout is None or 0 <= self.dropout < 1,
            "builder.dropout",
            self.dropout,
            "it must be from 0 to below 1",
        )
        for name in CNN:
            value = getattr(self, name)
            require(value is None or self.name == "cnn", f"builder.{name}", value, "it goes with --builder.name cnn")
        for name in ("filters", "convolutions", "kernel_size", "dense"):
            value = getattr(self, name)
            each = value if isinstance(value, list) else [value]
            require(value is None or all(n >= 1 for n in each), f"builder.{name}", value, "it must be 1 or more")
        require(self.filters != [], "builder.filters", self.filters, "it must have one number or more")
        parts = len(self.filters or CNN["filters"])
        require(
            not isinstance(self.kernel_size, list) or len(self.kernel_size) == parts,
            "builder.kernel_size",
            self.kernel_size,
            f"it must be a number, or one for each of the {parts} parts that builder.filters lists",
        )


CNN: dict[str, Any] = {
    "filters": [32, 64, 128],
    "convolutions": 1,
    "kernel_size": 3,
    "pool": "max",
    "norm": True,
    "dense": [],
}
"""What `Builder` means by default where its name is `cnn`."""


@dataclasses.dataclass(frozen=True)
class Network:
    """The network to describe.

    Args:
        name: `LetterNet`, which comes with tlkit; a model of keras.applications such as `MobileNetV2`; a landmark of
            tlkit.builders.VARIANTS such as `vgg16`; `cnn`, as `train` makes it; or a backbone of KerasHub, as
            `hub:FOLDER`.
        input_shape: Lengths of the one to three axes of space, then the channels, for example [224,224,3]; by default
            the network's own.
        classes: Units of the head; by default a landmark's own, and no head on a model of keras.applications or
            LetterNet.
        weights: `none`; `pretrained`, for keras.applications and LetterNet; or the path of a weights file. By default
            LetterNet's own and none for all others, so that nothing is downloaded unless asked for.
    """

    name: str = "LetterNet"
    input_shape: list[int] | None = None
    classes: int | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        sizes = self.input_shape
        require(
            sizes is None or (2 <= len(sizes) <= 4 and min(sizes) >= 1),
            "builder.input_shape",
            sizes,
            "it must be one to three lengths and the channels, such as [224,224,3]",
        )
        require(self.classes is None or self.classes >= 1, "builder.classes", self.classes, "it must be 1 or more")
