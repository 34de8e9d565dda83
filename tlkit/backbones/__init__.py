"""Pretrained networks without their top, from raw pixels to a feature map: keras.applications and our LetterNet.

A variant is a row of `BACKBONES`. Three things hold for every row, and a test goes over the whole table:

- The network takes pixels from 0 to 255. Its family's preprocessing is inside, computed in float32 whatever the
  precision and made of Keras' own layers, so a saved model needs nothing but Keras to be loaded and used.
- Its layers have the names that Keras gives them in a fresh process (`conv2d_1`, not `conv2d_95`), whatever was built
  before.
- Its stages are called `stem`, `stage1`, `stage2` ... and the last one ends with the network's output. In the rows of
  keras.applications, `stem` is the first convolutions with their pooling, if any, and stages 1 to 4 end at a 4th, 8th,
  16th and 32nd of the height and width; only ResNet*V2 reduce in the last block of a stage instead of the first: 8, 16,
  32, 32. LetterNet has three stages.

Source of networks, weights and stage boundaries: https://keras.io/api/applications/ and the papers named there.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from tlkit.backbones import weightfiles
from tlkit.errors import InvalidInput
from tlkit.layers import check_data_format, global_pool, is_stage


class Row(NamedTuple):
    """One backbone.

    Args:
        constructor: Its function in keras.applications; None for our own LetterNet.
        size: Height and width in pixels of the images it was trained on.
        preprocessing: `caffe`, `tf` or `torch`, as in keras.applications.imagenet_utils, or `built in`.
        stages: Name of each stage, first to last, and of the layer that ends it.
        alphas: Width multipliers with published weights; empty where the network has no such argument.
        smallest: The least height and width in pixels that the network can take.
        channels: Of the images it was trained on.
        pretrained: The word for its published weights.
        backends_without: Backends on which Keras has it not.
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


def _stages(stem: str, *ends: str) -> dict[str, str]:
    return {"stem": stem} | {f"stage{i}": end for i, end in enumerate(ends, 1)}


def _convnext(size: str, depth: int) -> Row:  # depth: blocks in the third stage
    name = f"convnext_{size.lower()}"
    ends = [f"{name}_stage_{stage}_block_{block}_identity" for stage, block in enumerate((2, 2, depth - 1))]
    return Row(f"ConvNeXt{size}", 224, "built in", _stages(f"{name}_stem", *ends, "layer_normalization"))


def _densenet(depth: int, blocks: int) -> Row:  # blocks: in the third stage
    ends = _stages("pool1", "conv2_block6_concat", "conv3_block12_concat", f"conv4_block{blocks}_concat", "relu")
    return Row(f"DenseNet{depth}", 224, "torch", ends)


def _efficientnet(variant: str, size: int, last: str) -> Row:  # last: letters of the last blocks in parts 2, 3 and 5
    ends = [f"block{part}{letter}_add" for part, letter in zip("235", last, strict=True)]
    return Row(f"EfficientNet{variant}", size, "built in", _stages("stem_activation", *ends, "top_activation"))


def _nasnet(variant: str, size: int, cells: int, output: str, smallest: int) -> Row:  # cells: between two reductions
    ends = ("reduction_concat_stem_1", f"normal_concat_{cells - 1}", f"normal_concat_{2 * cells}", output)
    without = ("torch",) if variant == "Mobile" else ()  # keras.applications refuses, for a bug of its own
    return Row(f"NASNet{variant}", size, "tf", _stages("stem_bn1", *ends), smallest=smallest, backends_without=without)


def _resnet(depth: int, blocks: tuple[int, int, int, int], version: str = "") -> Row:  # He et al. 2015, table 1
    ends = [f"conv{stage}_block{block}_out" for stage, block in enumerate(blocks, 2)]
    if version == "V2":
        ends[-1] = "post_relu"
    return Row(f"ResNet{depth}{version}", 224, "tf" if version else "caffe", _stages("pool1_pool", *ends))


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
    ),
    Row(
        "InceptionV3",
        299,
        "tf",
        _stages("activation_2", "activation_4", "mixed2", "mixed7", "mixed10"),
        smallest=75,
    ),
    Row(
        "MobileNet",
        224,
        "tf",
        _stages("conv1_relu", "conv_pw_3_relu", "conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"),
        alphas=(0.25, 0.5, 0.75, 1.0),
    ),
    Row(
        "MobileNetV2",
        224,
        "tf",
        _stages("Conv1_relu", "block_2_add", "block_5_add", "block_12_add", "out_relu"),
        alphas=(0.35, 0.5, 0.75, 1.0, 1.3, 1.4),
    ),
    Row(
        "MobileNetV3Large",
        224,
        "built in",
        _stages("activation", "expanded_conv_2_add", "expanded_conv_5_add", "expanded_conv_11_add", "activation_19"),
        alphas=(0.75, 1.0),
    ),
    Row(
        "MobileNetV3Small",
        224,
        "built in",
        _stages(
            "activation", "expanded_conv_project_bn", "expanded_conv_2_add", "expanded_conv_7_add", "activation_17"
        ),
        alphas=(0.75, 1.0),
    ),
    _nasnet("Mobile", 224, 4, "activation_187", smallest=32),
    _nasnet("Large", 331, 6, "activation_259", smallest=32),
    _resnet(50, (3, 4, 6, 3)),
    _resnet(101, (3, 4, 23, 3)),
    _resnet(152, (3, 8, 36, 3)),
    _resnet(50, (3, 4, 6, 3), "V2"),
    _resnet(101, (3, 4, 23, 3), "V2"),
    _resnet(152, (3, 8, 36, 3), "V2"),
    Row("VGG16", 224, "caffe", _stages(*(f"block{i}_pool" for i in range(1, 6)))),
    Row("VGG19", 224, "caffe", _stages(*(f"block{i}_pool" for i in range(1, 6)))),
    Row(
        "Xception",
        299,
        "tf",
        _stages("block1_conv2_act", "add", "add_1", "add_10", "block14_sepconv2_act"),
        smallest=71,
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


BUILT = re.compile(r"(alexnet|cnn|gcn|googlenet|lenet|vit)|vgg1[13]$|resnet(18|34)|resnet\d+v1$|\w+mini$")
"""Names of those networks of `tlkit.builders` that are not here, without signs: they have no published weights."""


def row(name: str) -> Row:
    """Give the row of a backbone.

    Raises:
        InvalidInput: there is none of this name; the message has the most similar one.

    >>> row("VGG16").size
    224
    """
    if name in BACKBONES:
        return BACKBONES[name]
    by_lower_case = {known.lower(): known for known in BACKBONES}
    plain = re.sub(r"[\W_]", "", str(name)).lower()
    close = by_lower_case[difflib.get_close_matches(plain, by_lower_case, n=1, cutoff=0.0)[0]]
    if plain not in by_lower_case and BUILT.match(plain):
        raise InvalidInput(
            f"backbone {name!r} is unknown: tlkit.builders.build has such networks, to train from nothing, and "
            f"tlkit.builders.VARIANTS lists them; of those with published weights the most similar is {close}"
        )
    raise InvalidInput(
        f"backbone {name!r} is unknown: did you mean {close}? tlkit.backbones.BACKBONES lists all {len(BACKBONES)}"
    )


def build(
    name: str,
    input_shape: tuple[int, int, int] | None = None,
    weights: str | os.PathLike[str] | None = "pretrained",
    alpha: float | None = None,
) -> keras.Model:
    """Build a backbone, from raw pixels to its feature map.

    One flat functional model called `backbone`, whose layers have Keras' own names. In front of them stand the input
    `pixels` and the preprocessing. Weights files hold the same arrays with and without the preprocessing.

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
    chosen = row(name)
    shape, weights = check(name, input_shape, weights, alpha)
    check_data_format()
    if chosen.constructor is None:
        return _letternet(shape, weights)
    published, own_rescaling = weights == chosen.pretrained, name.startswith("EfficientNetB")
    pixels = keras.Input(shape, dtype="float32", name="pixels")
    x = _PREPROCESSING[chosen.preprocessing](_to_rgb(pixels))
    make = functools.partial(_network, chosen, alpha, input_tensor=x, input_shape=x.shape[1:])
    if published and x.shape[1:] == (chosen.size, chosen.size, 3) and not own_rescaling:
        network, file = weightfiles.asked_for(functools.partial(make, weights="imagenet"))
        path: str | None = weightfiles.fetch(name, file)
    else:
        path = weightfiles.fetch(name, _published(name, alpha)) if published else None
        network = make(weights=None)
    network = _with_fresh_names(keras.Model(pixels, network.output, name="backbone"))
    if own_rescaling:
        # Keras adds this layer for weights="imagenet" only, and the same file from a path then gives other outputs.
        # We always add it: see https://github.com/tensorflow/tensorflow/issues/49930 for why it is there.
        scale = [1 / np.sqrt(deviation) for deviation in _DEVIATION]
        network = _cloned(network, after_normalization=_rescaling(scale, 0.0, "rescaling_1"))
    elif any(layer.compute_dtype != "float32" for layer in network.layers if isinstance(layer, _PIXEL_LAYERS)):
        network = _cloned(network)
    if path:
        weightfiles.load_published(network, path, _wanted(name, alpha))
    elif weights != "none":
        weightfiles.load(network, weights, _wanted(name, alpha))
    return network


def check(
    name: str,
    input_shape: tuple[int, int, int] | None = None,
    weights: str | os.PathLike[str] | None = "pretrained",
    alpha: float | None = None,
) -> tuple[tuple[int, int, int], str]:
    """Refuse what `build` would refuse, in no time, and give the shape and the weights that it would use.

    Raises:
        InvalidInput: as in `build`, but for what only reading a weights file can tell.

    >>> check("MobileNet", alpha=0.5)
    ((224, 224, 3), 'imagenet')
    """
    chosen = row(name)
    if keras.backend.backend() in chosen.backends_without:
        raise InvalidInput(
            f"{name} does not work on Keras' {keras.backend.backend()} backend; choose another network, or another "
            "KERAS_BACKEND"
        )
    shape = _shape(name, chosen, input_shape)
    weights = _weights(name, chosen, weights)
    _check_alpha(name, chosen, weights, alpha)
    return shape, weights


def classifier(backbone: keras.Model, classes: int, dropout: float = 0.0, multi_label: bool = False) -> keras.Model:
    """Put a new head on a backbone: raw pixels to probabilities.

    The layers are `pixels`, `backbone` (the model given, preprocessing included), `pool`, `dropout`, `head` (the
    logits) and `probabilities`; from `pool` on they compute in float32. Say with `freeze` or `unfreeze` what to train:
    both keep the statistics that the backbone's BatchNormalization was pretrained with, unless told otherwise.

    Args:
        backbone: A model of `build`, or of `tlkit.builders` without top; its layers are shared, not copied.
        classes: 2 or more give a softmax over as many units; 1 gives a single sigmoid unit.
        dropout: Share of the pooled features dropped in training, from 0 to below 1.
        multi_label: Whether a photo may have several of the classes, or none: each gets a sigmoid unit of its own.

    Shapes:
        pixels: (batch, height, width, channels), from 0 to 255
        returns: a model to (batch, classes), from 0 to 1

    Raises:
        InvalidInput: there is less than 1 class, or with `multi_label` less than 2, or the dropout is outside its
            range.

    >>> model = classifier(build("MobileNet", (64, 64, 3), weights="none", alpha=0.25), 5)
    >>> [layer.name for layer in model.layers]
    ['pixels', 'backbone', 'pool', 'dropout', 'head', 'probabilities']
    """
    if classes < 1:
        raise InvalidInput(f"classes is {classes}: at least 1")
    if multi_label and classes < 2:
        raise InvalidInput("classes is 1 with multi_label: at least 2; a single sigmoid unit tells two classes apart")
    if len(backbone.output_shape) < 3:
        raise InvalidInput(
            f"the backbone {backbone.name} gives {backbone.output_shape}: build it without top and pooling"
        )
    if not 0 <= dropout < 1:
        raise InvalidInput(f"dropout is {dropout}: from 0 to below 1")
    pixels = keras.Input(backbone.input.shape[1:], dtype="float32", name="pixels")
    # Not training=False: `fit` overrides it (https://github.com/keras-team/keras/issues/20285).
    x = backbone(pixels)
    x = global_pool(x, dtype="float32")
    x = keras.layers.Dropout(dropout, name="dropout", dtype="float32")(x)
    x = keras.layers.Dense(int(classes), name="head", dtype="float32")(x)
    activation = "sigmoid" if classes == 1 or multi_label else "softmax"
    x = keras.layers.Activation(activation, name="probabilities", dtype="float32")(x)
    return keras.Model(pixels, x, name="classifier")


def freeze(model: keras.Model) -> None:
    """Freeze the whole backbone: only the head is left to train. Compile the model afterwards.

    Args:
        model: One of `classifier`, `build` or `tlkit.builders`, new or loaded from a file, or one that holds it at any
            depth, such as behind layers of augmentation.

    Raises:
        InvalidInput: the model holds no backbone, several, or one without a head that is not called `backbone`.

    >>> model = classifier(build("MobileNet", (64, 64, 3), weights="none", alpha=0.25), 5)
    >>> freeze(model)
    >>> [weight.path for weight in model.trainable_weights]
    ['head/kernel', 'head/bias']
    >>> outer = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.RandomFlip("horizontal"), model])
    >>> freeze(outer)
    >>> [weight.path for weight in outer.trainable_weights]
    ['head/kernel', 'head/bias']
    """
    path = _path(model)
    backbone = path[-1]
    if all(layer.name != "head" for layer in backbone.layers) or _learns_after(path):
        _set_trainable(backbone, False)
        return
    _set_trainable(backbone, True)
    for layer in backbone.layers:
        layer.trainable = layer.name == "head"


def unfreeze(
    model: keras.Model,
    name: str | None = None,
    from_stage: str | None = None,
    batch_normalization: Literal["inference", "train", "freeze-affine"] = "inference",
) -> None:
    """Make the backbone trainable from a stage on, and freeze what comes before. Compile the model afterwards.

    Frozen is what the end of the stage before depends on, in the graph and not in the order of the layers.
    What a model loaded from a `.keras` file would train depends on Keras' backend: call this again.

    Args:
        model: As in `freeze`.
        name: The backbone it was built with, a key of `BACKBONES`; None for a network of `tlkit.builders`, whose layers
            bear the stages' names.
        from_stage: First stage to train, for example `stage4`; by default everything.
        batch_normalization: Of what is trained. `inference` normalizes by the pretrained statistics, which stay, and
            learns scale and offset, as Keras' guide has it. `train` normalizes by each batch and moves the statistics.
            `freeze-affine` is `inference` with scale and offset left as they are. Frozen stages always have the latter.

    Raises:
        InvalidInput: the backbone has no such stage, or is not the model's; or as in `freeze`.

    >>> model = classifier(build("MobileNet", (64, 64, 3), weights="none", alpha=0.25), 5)
    >>> unfreeze(model, "MobileNet", "stage4")
    >>> model.trainable_weights[0].path
    'conv_dw_12/kernel'
    >>> any("moving" in weight.path for weight in model.trainable_weights)  # the statistics
    False
    """
    backbone = _path(model)[-1]
    layers = {layer.name: layer for layer in backbone.layers}
    named = {end: end for end in layers if is_stage(end)}
    stages = named if name is None else row(name).stages
    if from_stage is not None and from_stage not in stages:
        raise InvalidInput(
            f"stage {from_stage!r} is unknown: {name or backbone.name} has {', '.join(stages) or 'none'}"
        )
    if not layers.keys() >= set(stages.values()):
        raise InvalidInput(f"the backbone of this model is not {name}: give the name it was built with")
    _set_trainable(backbone, True)
    if below := _below(stages, from_stage):
        for layer in keras.Model(backbone.input, layers[below].output).layers:
            layer.trainable = False
    for layer in backbone.layers:
        if not isinstance(layer, keras.layers.BatchNormalization) or not layer.trainable:
            continue
        layer.trainable = batch_normalization == "train"  # alone keeps it in inference mode, whatever `fit` says
        for variable in (layer.gamma, layer.beta) if batch_normalization == "inference" else ():
            if variable is not None:
                variable.trainable = True


def split(model: keras.Model, name: str, from_stage: str) -> tuple[keras.Model, keras.Model]:
    """Cut a model of `classifier` in front of a stage, to train what is above on what the lower part gives.

    The layers are shared: what the upper model learns, the whole one has learnt. Like BatchNormalization there, what is
    random in the lower part in training (EfficientNet's stochastic depth) is switched off by that.

    Args:
        model: Made by `classifier`.
        name: The backbone it was built with, a key of `BACKBONES`.
        from_stage: The upper model's first stage.

    Shapes:
        returns: a model from pixels to activations, and one from these to logits

    Raises:
        InvalidInput: the backbone has no such stage, none below it, or a later layer needs more of what is below than
            the end of the stage before (NASNet).

    >>> model = classifier(build("MobileNet", (64, 64, 3), weights="none", alpha=0.25), 5)
    >>> lower, upper = split(model, "MobileNet", "stage4")
    >>> lower.output.shape, upper.output.shape
    ((None, 4, 4, 128), (None, 5))
    """
    backbone = _path(model)[-1]
    if backbone not in [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)][:1]:
        raise InvalidInput(
            f"model {model.name!r} cannot be cut: split takes one of tlkit.backbones.classifier, whose first layer is "
            "the backbone; give the one inside, and what stands in front of it to your data"
        )
    stages = row(name).stages
    below = _below(stages, from_stage)
    if below is None:
        raise InvalidInput(f"stage {from_stage!r} is not one that others lie below: {name} has {', '.join(stages)}")
    cut = backbone.get_layer(below).output
    inputs = keras.Input(cut.shape[1:], dtype=cut.dtype, name="activations")
    try:
        x = keras.Model(cut, backbone.output)(inputs)
    except ValueError as error:
        raise InvalidInput(f"{name} cannot be cut in front of {from_stage}: later layers need what is below") from error
    for layer in model.layers[model.layers.index(backbone) + 1 : -1]:  # up to the head
        x = layer(x)
    return keras.Model(backbone.input, cut), keras.Model(inputs, x, name="upper")


def set_head(model: keras.Model, kernel: np.ndarray, bias: np.ndarray) -> None:
    """Give the head of a model of `classifier` weights that were found otherwise, and freeze all below it.

    Shapes:
        kernel: (features, classes)
        bias: (classes,)

    >>> model = classifier(build("MobileNet", (64, 64, 3), weights="none", alpha=0.25), 5)
    >>> set_head(model, np.zeros((256, 5)), np.arange(5))
    >>> model.predict_on_batch(np.zeros((1, 64, 64, 3))).argmax()
    np.int64(4)
    """
    if all(layer.name != "head" for layer in model.layers):
        raise InvalidInput(f"model {model.name!r} has no layer called head: give one of tlkit.backbones.classifier")
    freeze(model)
    model.get_layer("head").set_weights([kernel, bias])


# Arguments ------------------------------------------------------------------------------------------------------------


def _shape(name: str, row: Row, shape: Any) -> tuple[int, int, int]:
    if shape is None:
        return (row.size, row.size, row.channels)
    if len(shape) != 3 or not all(isinstance(n, int | np.integer) for n in shape) or shape[2] not in (1, 3):
        raise InvalidInput(f"input_shape is {shape}: (height, width, channels) with 1 or 3 channels")
    if min(shape[:2]) < row.smallest:
        raise InvalidInput(f"input_shape is {shape}: {name} takes at least {row.smallest} x {row.smallest} pixels")
    return (int(shape[0]), int(shape[1]), int(shape[2]))


def _weights(name: str, row: Row, weights: str | os.PathLike[str] | None) -> str:
    """The row's own word, `none`, or the path of a file that exists."""
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
BGR = "bgr"  # the layer that turns red, green and blue around
_PIXEL_LAYERS = (keras.layers.Rescaling, keras.layers.Normalization)


def _rescaling(scale: Any, offset: Any, name: str = "preprocessing") -> keras.layers.Layer:
    return keras.layers.Rescaling(scale, offset, name=name, dtype="float32")


def _channels(rgb: Any) -> list[Any]:
    """Red, green and blue, by a layer that every format of Keras can hold; operations such as `flip` it cannot."""
    crop = functools.partial(keras.layers.Cropping2D, data_format="channels_first", dtype="float32")  # of the last axis
    return [crop(((0, 0), (n, 2 - n)), name=name)(rgb) for n, name in enumerate(("red", "green", "blue"))]


def _caffe(rgb: Any) -> Any:
    bgr = keras.layers.Concatenate(name=BGR, dtype="float32")(_channels(rgb)[::-1])
    return _rescaling(1.0, [-103.939, -116.779, -123.68])(bgr)  # means of blue, green and red


def _tf(rgb: Any) -> Any:
    return _rescaling(1 / 127.5, -1.0)(rgb)


def _torch(rgb: Any) -> Any:
    scale = [1 / (255 * deviation) for deviation in _DEVIATION]
    return _rescaling(scale, [-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)])(rgb)


_PREPROCESSING: dict[str, Callable[[Any], Any]] = {
    "caffe": _caffe,
    "tf": _tf,
    "torch": _torch,
    "built in": lambda rgb: rgb,
}


def _to_rgb(pixels: Any) -> Any:
    if pixels.shape[-1] == 3:
        return pixels
    return keras.layers.Concatenate(name="gray_to_rgb", dtype="float32")([pixels] * 3)


def _to_gray(pixels: Any) -> Any:
    if pixels.shape[-1] == 1:
        return pixels
    weighted = _rescaling([0.299, 0.587, 0.114], 0.0, "luminance")(pixels)  # ITU-R BT.601, Pillow's mode "L"
    return keras.layers.Add(name="gray", dtype="float32")(_channels(weighted))


def _network(row: Row, alpha: float | None, **arguments: Any) -> keras.Model:
    if alpha is not None:
        arguments["alpha"] = float(alpha)  # an int would give another file name
    return getattr(keras.applications, str(row.constructor))(include_top=False, **arguments)


def _letternet(shape: tuple[int, int, int], weights: str) -> keras.Model:
    from tlkit.backbones.letternet import letternet

    known = weights in ("letters", "none")
    network = letternet((*shape[:2], 1), weights=weights if known else "none", name="backbone")
    network = _cloned(network, keras.Input(shape, dtype="float32", name="pixels"), before=_to_gray)
    if not known:
        weightfiles.load(network, weights, _wanted("LetterNet", None))
    return network


def _cloned(
    network: keras.Model,
    pixels: Any = None,
    before: Callable[[Any], Any] | None = None,
    after_normalization: Callable[[Any], Any] | None = None,
) -> keras.Model:
    """Build the graph anew with the same weights, with what meets the pixels first in float32.

    Args:
        pixels: Input to use in place of the network's own.
        before: Called on the pixels, in front of the network.
        after_normalization: Called on the output of each Normalization layer.
    """

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, _PIXEL_LAYERS):
            config["dtype"] = "float32"
        return type(layer).from_config(config)

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if before is not None and args[0] is pixels:
            args = (before(pixels), *args[1:])
        y = layer(*args, **kwargs)
        return after_normalization(y) if after_normalization and isinstance(layer, keras.layers.Normalization) else y

    cloned = keras.models.clone_model(network, input_tensors=pixels, clone_function=clone, call_function=call)
    cloned.set_weights(network.get_weights())
    return cloned


def _with_fresh_names(network: keras.Model) -> keras.Model:
    """Number the layers that Keras named (`add_7`) from 0, as in a fresh process, to find stages by name."""
    numbered: dict[str, list[tuple[int, Any]]] = {}
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


def _set_trainable(network: keras.Model, value: bool) -> None:
    # On TensorFlow, Keras drops the assignment of the value that is already there, and no inner layer learns of it.
    for step in (value, not value, value):
        network.trainable = step


def _below(stages: dict[str, str], stage: str | None) -> str | None:
    """The layer that ends the stage below one; None where there is no such stage, or none below it."""
    place = list(stages).index(stage) if stage in stages else 0
    return list(stages.values())[place - 1] if place else None


def _path(model: keras.Model) -> list[keras.Model]:
    """The model, what it holds that holds the backbone, and so on; the last is the backbone.

    Raises:
        InvalidInput: there is none, or one of several may be meant.
    """
    named = _paths(model, lambda inner: inner.name == "backbone" or any(is_stage(layer.name) for layer in inner.layers))
    # Of another library: the innermost model with weights, in front of layers that learn.
    others = _paths(model, lambda inner: not any(layer.weights for layer in _models(inner)))
    found = named or [path for path in others if len(path) > 1 and _learns_after(path)]
    if len(found) == 1:
        return found[0]
    advice = "build it with tlkit.backbones.classifier, or freeze its layers yourself"
    if found:
        names = ", ".join("/".join(inner.name for inner in path[1:]) for path in found)
        raise InvalidInput(f"model {model.name!r} holds {len(found)} that may be its backbone ({names}): {advice}")
    raise InvalidInput(f"model {model.name!r} has no layer called backbone in front of a head: {advice}")


def _paths(model: keras.Model, wanted: Callable[[keras.Model], bool]) -> list[list[keras.Model]]:
    """The ways to the outermost models inside that are wanted."""
    if wanted(model):
        return [[model]]
    return [[model, *path] for inner in _models(model) if inner.weights for path in _paths(inner, wanted)]


def _models(model: keras.Model) -> list[keras.Model]:
    return [layer for layer in model.layers if isinstance(layer, keras.Model)]


def _learns_after(path: Sequence[keras.Model]) -> bool:
    """Whether layers that learn follow the last model of a path, in any of those around it."""
    return any(
        layer.weights and not isinstance(layer, keras.layers.BatchNormalization)
        for outer, inner in pairwise(path)
        for layer in outer.layers[outer.layers.index(inner) + 1 :]
    )


# Weights --------------------------------------------------------------------------------------------------------------


def _wanted(name: str, alpha: float | None) -> str:
    return f"{name} without top" + (f" and alpha {alpha or 1.0}" if BACKBONES[name].alphas else "")


@functools.cache
def _published(name: str, alpha: float | None) -> dict[str, Any]:
    """The file of the network's native size, which serves all sizes."""
    row = BACKBONES[name]
    shape = (row.size, row.size, row.channels)
    return weightfiles.asked_for(lambda: _network(row, alpha, input_shape=shape, weights="imagenet"))[1]
