"""Backbones of KerasHub, from raw pixels to a map: preprocessing inside, cut between blocks, and with its licence."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np

from tlkit.backbones import chain, ends, hubgraph, hubpresets, own
from tlkit.backbones.building import preprocessed, rescaling, with_fresh_names
from tlkit.backbones.hubtable import FAMILIES, UNKNOWN, Licence
from tlkit.backbones.table import Row
from tlkit.errors import InvalidInput
from tlkit.layers import end, is_stage

CLOSE = 1e-3  # of the largest value: how far a flat graph may be from the backbone that it was made of


class Hub(NamedTuple):
    """A backbone of KerasHub.

    Args:
        network: From pixels from 0 to 255 to its last feature map, called `backbone`.
        row: What there is to know of it, as of a network of `BACKBONES`.
        preset: As KerasHub finds it again.
        licence: Of its published weights.
        what: What it is and what was found out, for people.
        resize: How its converter brings photos to their size; None where it has none.
    """

    network: keras.Model
    row: Row
    preset: str
    licence: Licence
    what: str
    resize: str | None


def adopt(
    name: str, size: int | None = None, pixels: own.Pixels | None = None, accept_license: str | None = None
) -> Hub:
    """Make a backbone of a preset of KerasHub.

    Its converter's scaling is put in front. Encoders are opened, so that the stages are `stem`, the embedding of
    patches, and four parts of its blocks; pyramids have theirs where the map halves. Each stage ends with a layer of
    its name. The end is a map whose average is the class token (beside the mean of the patches for DINOv2), the mean
    of the tokens, the pooled vector, or the average of the feature map, whichever the backbone has.

    Args:
        name: `hub:` and a preset's name, a folder, `hf://…` or `kaggle://…`.
        size: Height and width of the photos in pixels; by default the converter's or the backbone's own.
        pixels: What to do with pixels where the preset has no image converter; see `tlkit.backbones.own`.
        accept_license: Name of the licence that is accepted, where the weights' asks for consent.

    Shapes:
        returns: a network to (batch, height, width, features)

    Raises:
        InvalidInput: there is no such preset; it is no backbone of photos, or cannot be built at this size; nothing
            says what to do with pixels; or its licence has to be accepted.
        Unavailable: it is neither on this machine nor can it be downloaded.
    """
    preset = hubpresets.locate(name)
    loader = hubpresets.loader(preset)
    check_licence(name, FAMILIES.get(_family(loader.config), UNKNOWN).licence, accept_license)  # before a download
    converter = hubpresets.converter(preset)
    if loader.config.get("registered_name") in ("Functional", "Sequential"):
        return _of_plain(name, preset, size, pixels, converter)
    side = size or _own_side(loader.config, converter)
    scaling, how = _scaling(name, converter, pixels)
    fixed = _fixed_side(loader.config)
    model = _encoder(hubpresets.load(preset, side if fixed not in (None, side) else None), name)
    family = FAMILIES.get(type(model).__name__, UNKNOWN)  # other libraries' descriptions do not name KerasHub's class
    check_licence(name, family.licence, accept_license)
    network, found = _network(model, side, scaling, family.with_mean)
    if unsavable := hubgraph.make_savable(network):
        raise InvalidInput(f"{name} has layers that Keras cannot save ({', '.join(unsavable)}): it cannot be used here")
    stages = {layer.name: layer.name for layer in network.layers if is_stage(layer.name)}
    row = Row(None, side, how, stages, smallest=1, pretrained=own.WORD)
    what = f"{type(model).__name__} of KerasHub, {how}; {found}"
    return Hub(network, row, preset, family.licence, what, _resize(converter))


def _of_plain(name: str, preset: str, size: int | None, pixels: own.Pixels | None, converter: Any) -> Hub:
    """Make a backbone of a preset that holds a network of no class of KerasHub, as tlkit's exports do."""
    if converter is not None and converter.scale is None and converter.offset is None:
        pixels = pixels or "0..255"  # it only resizes, so that the rest is inside
    found = own.adopt(hubpresets.load(preset, None), name, pixels=pixels, size=size)
    what = f"a network of its own, cut behind {found.cut}; {len(found.stages)} stages"
    return Hub(found.network, found.row, preset, UNKNOWN.licence, what, _resize(converter))


def check_licence(name: str, licence: Licence, accepted: str | None) -> None:
    """Refuse weights whose licence asks for consent that is not given.

    Raises:
        InvalidInput: the message says where to read it and how to accept it.
    """
    if licence.terms and accepted != licence.name:
        raise InvalidInput(
            f"{name} is under {licence.terms}: read them, and give --backbone.accept_license {licence.name} if you "
            "accept them"
        )


# What it is ----------------------------------------------------------------------------------------------------------


def _family(config: dict[str, Any]) -> str:
    """Name the class of a preset's backbone, or of its vision encoder."""
    inner = (config.get("config") or {}).get("vision_encoder")
    return str((inner if isinstance(inner, dict) else config).get("class_name", ""))


def _encoder(model: keras.Model, name: str) -> keras.Model:
    """Give the backbone of photos that a model is, or holds beside one of texts."""
    model = getattr(model, "vision_encoder", None) or model
    inputs = keras.tree.flatten(model.input)
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[-1] != 3:
        shapes = ", ".join(str(tuple(each.shape[1:])) for each in inputs)
        raise InvalidInput(f"{name} is a {type(model).__name__}, which takes {shapes}: a backbone takes photos alone")
    return model


def _fixed_side(config: dict[str, Any]) -> int | None:
    """Give the size that a preset is built at, unless it takes any.

    >>> _fixed_side({"model_type": "vit", "image_size": 384})  # as Transformers describes it
    384
    """
    values = config.get("config") or config.get("vision_config") or config
    values = (values.get("vision_encoder") or {}).get("config") or values
    shape = values.get("image_shape") or values.get("input_shape") or values.get("image_size")
    side = shape[0] if isinstance(shape, list | tuple) else shape
    return side if isinstance(side, int) else None


def _own_side(config: dict[str, Any], converter: Any) -> int:
    of_converter = converter.image_size if converter is not None else None
    return int((of_converter or (None,))[0] or _fixed_side(config) or own.SIZE)


def _scaling(name: str, converter: Any, pixels: own.Pixels | None) -> tuple[Any, str]:
    """Give what scales pixels, and how, for people."""
    if converter is None:
        if pixels is None:
            raise InvalidInput(
                f"{name} has no image converter, so that nothing says what it does with pixels: say what it was "
                "trained on by --backbone.pixels 0..1, -1..1, caffe, torch, or 0..255 for pixels as they are"
            )
        return (lambda x: preprocessed(x, pixels)), f"pixels as {pixels}"
    if pixels is not None:
        raise InvalidInput(
            f"backbone.pixels is {pixels}, but {name} has an image converter, which says it: leave it out"
        )
    scale, offset = converter.scale, converter.offset
    how = "pixels as its image converter scales them"
    if scale is None and offset is None:
        return (lambda x: x), how
    values: list[Any] = [1.0 if scale is None else scale, 0.0 if offset is None else offset]
    factor, shift = (list(map(float, each)) if np.ndim(each) else float(each) for each in values)
    return (lambda x: rescaling(factor, shift)(x)), how


def _resize(converter: Any) -> str | None:
    """Name the way of `data.resize` that a converter's is."""
    if converter is None or converter.image_size is None:
        return None
    if converter.pad_to_aspect_ratio:
        return "pad"
    return "center" if converter.crop_to_aspect_ratio else "squash"


# The network ---------------------------------------------------------------------------------------------------------


def _network(model: keras.Model, side: int, scaling: Any, with_mean: bool) -> tuple[keras.Model, str]:
    """Build the flat network with its stages, and say what was found out."""
    pixels = keras.Input((side, side, 3), dtype="float32", name="pixels")
    x = scaling(pixels)
    photo = np.random.default_rng(0).uniform(0, 255, (1, side, side, 3)).astype(np.float32)
    wanted = _outputs(model, keras.Model(pixels, x)(photo) if x is not pixels else photo)
    patch = getattr(model, "patch_size", None)
    y = hubgraph.flatten(model, x)
    flat = with_fresh_names(keras.Model(pixels, y, name="backbone"))
    _check_equal(wanted, flat(photo), type(model).__name__)
    found, reason = ends.search(chain.links(flat), chain.learning_places(flat))
    y = hubgraph.with_ends(pixels, y, found)
    y, pooling = hubgraph.as_map(y, side, patch[0] if isinstance(patch, list | tuple) else patch, with_mean)
    y = end(y, list(found)[-1])
    count = f"{len(found)} stage{'s' * (len(found) > 1)}, {reason}"
    return keras.Model(pixels, y, name="backbone"), f"{count}; pooled: {pooling}"


def _outputs(model: keras.Model, x: Any) -> np.ndarray:
    """Compute what a backbone puts out."""
    inputs = dict.fromkeys(model.input, x) if isinstance(model.input, dict) else x
    outputs = model(inputs, training=False)
    last = list(outputs.values())[-1] if isinstance(outputs, dict) else keras.tree.flatten(outputs)[-1]
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(last, "float32")))


def _check_equal(wanted: np.ndarray, computed: Any, kind: str) -> None:
    """Refuse a graph that does not compute what its backbone does: KerasHub's code may have changed."""
    values = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(computed, "float32")))
    if values.shape != wanted.shape or np.abs(values - wanted).max() > CLOSE * max(1.0, np.abs(wanted).max()):
        raise InvalidInput(
            f"{kind} cannot be taken apart: its blocks, called one by one, compute other values than it does"
        )
