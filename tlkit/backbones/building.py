"""Backbones from raw pixels: the preprocessing inside, and Keras' own names of layers."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import KerasTensor

from tlkit.backbones import weightfiles
from tlkit.backbones.letternet import letternet
from tlkit.backbones.table import BACKBONES, Row, row
from tlkit.errors import InvalidInput
from tlkit.layers import check_data_format


def build(
    name: str,
    input_shape: tuple[int, int, int] | None = None,
    weights: str | os.PathLike[str] | None = "pretrained",
    alpha: float | None = None,
) -> keras.Model:
    """Build a backbone, from raw pixels to its feature map.

    One flat functional model called `backbone`, whose layers have Keras' own names. Before them come the input
    `pixels` and the preprocessing. Weights files hold the same arrays with and without the preprocessing. The model's
    attribute `backbone_name` is the name it was built by, so that `stages`, `unfreeze` and `split` know its stages; a
    saved, copied or cloned model has it no more.

    Args:
        name: A key of `BACKBONES`.
        input_shape: Height and width in pixels, and 1 (gray) or 3 (RGB) channels; by default the network's own. Gray
            images are repeated to RGB, or RGB reduced to luminance (ITU-R BT.601), inside the model.
        weights: `pretrained` or the row's own word for it (`imagenet`, `letters`), which Keras downloads once into its
            cache; `none` or None; or the path of a weights file without top (`.weights.h5` or `.h5`). The published
            weights of the native size are used for any size, so that one download serves all.
        alpha: Width multiplier of the MobileNets; by default 1.

    Shapes:
        pixels: (batch, height, width, channels), from 0 to 255
        returns: a model to (batch, about height / 32, about width / 32, features); height / 8 for LetterNet

    Raises:
        InvalidInput: an argument, or a weights file, does not fit this network.
        Unavailable: the published weights are neither in Keras' cache nor can they be downloaded.

    >>> build("MobileNet", (64, 96, 3), weights="none", alpha=0.25).output.shape
    (None, 2, 3, 256)
    """
    shape, weights = check(name, input_shape, weights, alpha)
    check_data_format()
    ours = row(name).constructor is None
    network = _letternet(shape, weights) if ours else _application(name, shape, weights, alpha)
    network.backbone_name = name
    return network


def _application(name: str, shape: tuple[int, int, int], weights: str, alpha: float | None) -> keras.Model:
    """Build a network of keras.applications on preprocessed pixels, with its weights."""
    network_row = row(name)
    published, own_rescaling = weights == network_row.pretrained, name.startswith("EfficientNetB")
    pixels = keras.Input(shape, dtype="float32", name="pixels")
    x = _PREPROCESSING[network_row.preprocessing](_to_rgb(pixels))
    make = functools.partial(_network, network_row, alpha, input_tensor=x, input_shape=x.shape[1:])
    if published and x.shape[1:] == (network_row.size, network_row.size, 3) and not own_rescaling:
        network, request = weightfiles.asked_for(functools.partial(make, weights="imagenet"))
        path: str | None = weightfiles.fetch(name, request)
    else:
        path = weightfiles.fetch(name, _published(name, alpha)) if published else None
        network = make(weights=None)
    network = with_fresh_names(keras.Model(pixels, network.output, name="backbone"))
    if own_rescaling:
        # Keras adds this layer for weights="imagenet" only, and the same file from a path then gives other outputs.
        # We always add it: see https://github.com/tensorflow/tensorflow/issues/49930 for why it is there.
        scale = [1 / np.sqrt(deviation) for deviation in _DEVIATION]
        network = _cloned(network, after_normalization=rescaling(scale, 0.0, "rescaling_1"))
    elif any(layer.compute_dtype != "float32" for layer in network.layers if isinstance(layer, _PIXEL_LAYERS)):
        network = _cloned(network)
    if path:
        weightfiles.load_published(network, path, _contents(name, alpha))
    elif weights != "none":
        weightfiles.load(network, weights, _contents(name, alpha))
    return network


def check(
    name: str,
    input_shape: tuple[int, int, int] | None = None,
    weights: str | os.PathLike[str] | None = "pretrained",
    alpha: float | None = None,
) -> tuple[tuple[int, int, int], str]:
    """Check the arguments of `build` without building anything, and return the shape and weights that it would use.

    Raises:
        InvalidInput: as in `build`, except for what only reading a weights file can tell.

    >>> check("MobileNet", alpha=0.5)
    ((224, 224, 3), 'imagenet')
    """
    network_row = row(name)
    if keras.backend.backend() in network_row.backends_without:
        raise InvalidInput(
            f"{name} does not work on Keras' {keras.backend.backend()} backend; choose another network, or another "
            "KERAS_BACKEND"
        )
    shape = _shape(name, network_row, input_shape)
    weights = _weights(name, network_row, weights)
    _check_alpha(name, network_row, weights, alpha)
    return shape, weights


# Arguments ------------------------------------------------------------------------------------------------------------


def _shape(name: str, row: Row, shape: Sequence[int] | None) -> tuple[int, int, int]:
    if shape is None:
        return (row.size, row.size, row.channels)
    if len(shape) != 3 or not all(isinstance(n, int | np.integer) for n in shape) or shape[2] not in (1, 3):
        raise InvalidInput(f"input_shape is {shape}: (height, width, channels) with 1 or 3 channels")
    if min(shape[:2]) < row.smallest:
        raise InvalidInput(f"input_shape is {shape}: {name} takes at least {row.smallest} x {row.smallest} pixels")
    return (int(shape[0]), int(shape[1]), int(shape[2]))


def _weights(name: str, row: Row, weights: str | os.PathLike[str] | None) -> str:
    """Return the row's own word, `none`, or the path of a file that exists."""
    if weights in ("pretrained", row.pretrained):
        return row.pretrained
    if weights is None or weights == "none":
        return "none"
    weightfiles.check_folder(weights)
    if os.path.isfile(weights):
        return os.fspath(weights)
    allowed = f"{row.pretrained}, none, or the path of a file that exists"
    raise InvalidInput(f"weights is {weights!r}: {name} takes {allowed}")


def _check_alpha(name: str, row: Row, weights: str, alpha: float | None) -> None:
    if alpha is None:
        return
    if not row.alphas:
        takers = ", ".join(name for name, row in BACKBONES.items() if row.alphas)
        raise InvalidInput(f"alpha is {alpha}: {name} takes none; {takers} do")
    if alpha <= 0:
        raise InvalidInput(f"alpha is {alpha}: above 0")
    if weights == row.pretrained and alpha not in row.alphas:
        published = ", ".join(map(str, row.alphas))
        raise InvalidInput(f"alpha is {alpha}: the {weights} weights of {name} were published for {published}")


# Graphs ---------------------------------------------------------------------------------------------------------------

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue, from 0 to 1
_PIXEL_LAYERS = (keras.layers.Rescaling, keras.layers.Normalization)


def rescaling(
    scale: float | list[float], offset: float | list[float], name: str = "preprocessing"
) -> keras.layers.Layer:
    """Make the layer that scales pixels, in float32 whatever the precision."""
    return keras.layers.Rescaling(scale, offset, name=name, dtype="float32")


def _channels(rgb: KerasTensor) -> list[KerasTensor]:
    """Take red, green and blue apart, by layers that every file format of Keras can hold, unlike operations."""
    crop = functools.partial(keras.layers.Cropping2D, data_format="channels_first", dtype="float32")  # of the last axis
    return [crop(((0, 0), (n, 2 - n)), name=name)(rgb) for n, name in enumerate(("red", "green", "blue"))]


def _caffe(rgb: KerasTensor) -> KerasTensor:
    bgr = keras.layers.Concatenate(name="bgr", dtype="float32")(_channels(rgb)[::-1])
    return rescaling(1.0, [-103.939, -116.779, -123.68])(bgr)  # means of blue, green and red


def _tf(rgb: KerasTensor) -> KerasTensor:
    return rescaling(1 / 127.5, -1.0)(rgb)


def _torch(rgb: KerasTensor) -> KerasTensor:
    scale = [1 / (255 * deviation) for deviation in _DEVIATION]
    return rescaling(scale, [-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)])(rgb)


_PREPROCESSING: dict[str, Callable[[KerasTensor], KerasTensor]] = {
    "caffe": _caffe,
    "tf": _tf,
    "torch": _torch,
    "built in": lambda rgb: rgb,
}


_OUTSIDE: dict[str, Callable[[KerasTensor], KerasTensor]] = {
    "0..255": lambda pixels: pixels,
    "0..1": lambda pixels: rescaling(1 / 255, 0.0)(pixels),
    "-1..1": _tf,
    "caffe": _caffe,
    "torch": _torch,
}


def preprocessed(pixels: KerasTensor, how: str) -> KerasTensor:
    """Scale pixels from 0 to 255 as a network of the user's own expects them; see `tlkit.backbones.own`."""
    return _OUTSIDE[how](pixels)


def _to_rgb(pixels: KerasTensor) -> KerasTensor:
    if pixels.shape[-1] == 3:
        return pixels
    return keras.layers.Concatenate(name="gray_to_rgb", dtype="float32")([pixels] * 3)


def _to_gray(pixels: KerasTensor) -> KerasTensor:
    if pixels.shape[-1] == 1:
        return pixels
    weighted = rescaling([0.299, 0.587, 0.114], 0.0, "luminance")(pixels)  # ITU-R BT.601, Pillow's mode "L"
    return keras.layers.Add(name="gray", dtype="float32")(_channels(weighted))


def _network(row: Row, alpha: float | None, **arguments: Any) -> keras.Model:
    if alpha is not None:
        arguments["alpha"] = float(alpha)  # an int would give another file name
    return getattr(keras.applications, str(row.constructor))(include_top=False, **arguments)


def _letternet(shape: tuple[int, int, int], weights: str) -> keras.Model:
    is_file = weights not in ("letters", "none")
    network = letternet((*shape[:2], 1), weights="none" if is_file else weights, name="backbone")
    network = _cloned(network, keras.Input(shape, dtype="float32", name="pixels"), before=_to_gray)
    if is_file:
        weightfiles.load(network, weights, _contents("LetterNet", None))
    return network


def _cloned(
    network: keras.Model,
    pixels: KerasTensor | None = None,
    before: Callable[[KerasTensor], KerasTensor] | None = None,
    after_normalization: Callable[[KerasTensor], KerasTensor] | None = None,
) -> keras.Model:
    """Build the graph anew with the same weights, its rescaling and normalization in float32.

    Args:
        pixels: Input to use in place of the network's own.
        before: Called on the pixels, in front of the network.
        after_normalization: Called on the output of each Normalization layer.
    """

    def clone(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if isinstance(layer, _PIXEL_LAYERS):
            config["dtype"] = "float32"
        return type(layer).from_config(config)

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if before is not None and args[0] is pixels:
            args = (before(pixels), *args[1:])
        y = layer(*args, **kwargs)
        return after_normalization(y) if after_normalization and isinstance(layer, keras.layers.Normalization) else y

    cloned = keras.models.clone_model(network, input_tensors=pixels, clone_function=clone, call_function=call)
    cloned.set_weights(network.get_weights())
    return cloned


def with_fresh_names(network: keras.Model) -> keras.Model:
    """Number the layers that Keras named (`add_7`) from 0, as in a fresh process, to find stages by name."""
    numbered: dict[str, list[tuple[int, keras.Operation]]] = {}
    for operation in network.operations:
        kind = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", type(operation).__name__)  # as Keras makes ZeroPadding2D
        kind = re.sub("([a-z])([A-Z])", r"\1_\2", kind).lower()  # to zero_padding2d
        match = re.fullmatch(rf"{kind}(?:_(\d+))?", operation.name)
        if match:
            numbered.setdefault(kind, []).append((int(match[1] or 0), operation))
    for kind, operations in numbered.items():
        first = min(number for number, _ in operations)
        for number, operation in operations:
            operation.name = f"{kind}_{number - first}" if number > first else kind
    return network


# Weights --------------------------------------------------------------------------------------------------------------


def _contents(name: str, alpha: float | None) -> str:
    """Say what a weights file should hold, for errors."""
    return f"{name} without top" + (f" and alpha {alpha or 1.0}" if BACKBONES[name].alphas else "")


@functools.cache
def _published(name: str, alpha: float | None) -> weightfiles.Request:
    """Find Keras' file for the network's native size, which serves all sizes."""
    row = BACKBONES[name]
    shape = (row.size, row.size, row.channels)
    return weightfiles.asked_for(lambda: _network(row, alpha, input_shape=shape, weights="imagenet"))[1]
