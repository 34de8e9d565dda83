"""`build`: any row of any family as a Keras model."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor

from tlkit.builders import alexnet, convnext, efficientnet, googlenet, lenet, pretrained, resnet, vgg, vit
from tlkit.builders.family import Activation, Family, Row, begin, check_head, head, one_line_errors
from tlkit.errors import InvalidInput

FAMILIES: tuple[Family[Any], ...] = tuple(
    module.FAMILY for module in (lenet, alexnet, vgg, googlenet, resnet, efficientnet, convnext, vit)
)
VARIANTS: dict[str, Row] = {name: row for family in FAMILIES for name, row in family.variants.items()}

ARGUMENTS = ("input_shape", "input_tensor", "classes", "include_top", "pooling", "weights", "classifier_activation")


def build(
    variant: str,
    input_shape: Sequence[int | None] | None = None,
    *,
    input_tensor: KerasTensor | None = None,
    classes: int | None = None,
    include_top: bool = True,
    pooling: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    classifier_activation: Activation = "softmax",
    name: str | None = None,
    **changes: Any,
) -> keras.Model:
    """Build a landmark network.

    The arguments are those of keras.applications. There is no preprocessing inside; see the module's text.

    Args:
        variant: A key of `VARIANTS`, such as `resnet18`.
        input_shape: (length, channels), (height, width, channels) or (depth, height, width, channels); by default the
            paper's. A length may be None where no dense layer or position depends on it.
        input_tensor: A Keras tensor to start from in place of an input of its own: what was computed before it, such as
            preprocessing, becomes part of the model.
        classes: Units of the head; by default the paper's.
        include_top: Whether the network ends with its head; else with its features.
        pooling: Without top: `avg` or `max` over all positions, or None for the feature map.
        weights: None or `none` for random ones, `imagenet` for those of the same network in keras.applications (see the
            rows' `application`), or the path of a `.weights.h5` file of the same model. With `imagenet`, it takes
            `keras.applications.imagenet_utils.preprocess_input(pixels, mode=...)`, in mode `caffe` for VGG and ResNet,
            in mode `torch` for EfficientNet and ConvNeXt; `tlkit.backbones` has the same networks from raw pixels.
        classifier_activation: Of the head; None gives logits.
        name: Of the model; by default the variant's. To join two networks in one model, call them: their layers have
            the same names.
        changes: Other values for fields of the variant's row, such as `dropout=0` or `auxiliary_heads=True`.

    Shapes:
        input: (batch, *space, channels)
        output: (batch, classes) with top; (batch, features) with pooling; else (batch, *positions, features)

    Raises:
        InvalidInput: an argument does not fit; the message says what does.
        Unavailable: the published weights are neither in Keras' cache nor can they be downloaded.

    >>> model = build("vgg_mini", (32, 32, 3))
    >>> [layer.name for layer in model.layers if layer.name in ("stem", "stage1", "stage2", "head")]
    ['stem', 'stage1', 'stage2', 'head']
    """
    family, row = _row(variant, changes)
    if weights == "imagenet" and getattr(row, "application", None) is None:
        published = [name for name, each in VARIANTS.items() if getattr(each, "application", None)]
        same = [name for name in published if name.startswith(variant)]
        raise InvalidInput(
            f"weights is 'imagenet': keras.applications has no weights for {variant}, but for "
            f"{', '.join(same or published)}; give one of them, {pretrained.HINT}"
        )
    classes = check_head(include_top, pooling, row.classes if classes is None else classes, classifier_activation)
    if not include_top and getattr(row, "auxiliary_heads", False):
        raise InvalidInput("auxiliary_heads is True with include_top=False: heads need a top")
    inputs, x = begin(input_shape, input_tensor, (row.size, row.size, row.channels))
    shape = tuple(x.shape[1:])
    changed = "".join(f", {field}={value!r}" for field, value in changes.items())
    with one_line_errors(f"{variant} on {shape}{changed} (its own is {row.size} along every axis)"):
        features = family.features(x, row)
        if include_top:
            outputs = head(family.top(features, row), classes, classifier_activation)
        else:
            outputs = family.bare(features, row, pooling, shape[:-1])
        model = keras.Model(inputs, outputs, name=name or variant)
        if include_top:
            model = family.complete(model, row, classes, classifier_activation)
    if weights is not None and weights != "none":
        pretrained.load(model, x, variant, family.variants[variant], weights, include_top, classes)
    return model


def _row(variant: str, changes: dict[str, Any]) -> tuple[Family[Any], Any]:
    if not isinstance(variant, str) or variant not in VARIANTS:
        close = difflib.get_close_matches(str(variant).lower(), VARIANTS, n=1, cutoff=0.0)[0]
        raise InvalidInput(
            f"builder {variant!r} is unknown: did you mean {close}? tlkit.builders.VARIANTS lists all {len(VARIANTS)}"
        )
    family = next(family for family in FAMILIES if variant in family.variants)
    row = family.variants[variant]
    fields: list[str] = [field for field in row._fields if field not in ("parameters", "application")]
    for field in changes:
        if field not in fields:
            similar = difflib.get_close_matches(field, [*ARGUMENTS, *fields], n=1, cutoff=0.7)
            meant = f" did you mean {similar[0]}?" if similar else ""
            raise InvalidInput(f"{field} is no argument of {variant}:{meant} its row has {', '.join(fields)}")
    return family, row._replace(**changes)
