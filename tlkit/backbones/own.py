"""A network of the user's own as a backbone: its input, where its top begins, and its stages, found or given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import keras

from tlkit.arithmetic.graph import has_graph, kinds, nodes
from tlkit.backbones import chain, ends
from tlkit.backbones.building import preprocessed
from tlkit.backbones.chain import Link
from tlkit.backbones.table import Row
from tlkit.display import few
from tlkit.errors import InvalidInput, first_line

Pixels = Literal["0..255", "0..1", "-1..1", "caffe", "torch"]
WORD = "own"
"""For the weights that such a network comes with."""
SIZE = 224  # pixels, where a network takes any size
SCALING = {"Rescaling", "Normalization", "TrueDivide", "Divide", "Multiply", "Subtract"}


class Own(NamedTuple):
    """A network of the user's own, as a backbone.

    Args:
        network: From pixels from 0 to 255 to its last feature map, called `backbone`; its layers are copies.
        row: What there is to know of it, as of a network of `BACKBONES`.
        cut: Name of the layer that ends it.
        cut_reason: Why it ends there, for people.
        stages: Its stages and the layers that end them, by the names that `adopt` takes.
        stages_reason: How its stages were found, for people.
        pixels: What is done with the pixels in front of it.
        pixels_reason: Why, for people.
    """

    network: keras.Model
    row: Row
    cut: str
    cut_reason: str
    stages: dict[str, str]
    stages_reason: str
    pixels: Pixels
    pixels_reason: str


def adopt(
    model: keras.Model,
    name: str | None = None,
    *,
    cut: str | None = None,
    stages: Mapping[str, str] | None = None,
    pixels: Pixels | None = None,
    size: int | None = None,
) -> Own:
    """Make a backbone of a network, with or without its top; its layers are copied up to the cut.

    Models inside it are unfolded, so that stages can be found in them. Where the cut gives a vector, a map of one
    position is made of it, which pools to the same vector.

    Args:
        model: A functional or sequential model of photos, with one input and one output, channels last.
        name: What messages call it; by default its own name.
        cut: Name of the layer to cut behind; by default the last feature map in front of pooling or flattening, or,
            where there is none, what the last dense layer takes.
        stages: Name of each stage and of the layer that ends it; by default the layers called `stem`, `stage1` ..., or
            where the map halves.
        pixels: What to do with pixels in front of it: `0..255` nothing, `0..1` and `-1..1` scale them, and `caffe` and
            `torch` are those of keras.applications. By default `0..255` where it scales them itself.
        size: Height and width of the photos in pixels; by default its own.

    Shapes:
        returns: a network to (batch, height, width, features)

    Raises:
        InvalidInput: it is no such model, has no such layer, takes other photos, or does not say what it does with
            pixels.

    >>> scaled = keras.layers.Rescaling(1 / 255)
    >>> layers = [keras.layers.Conv2D(4 * n, 3, 2, "same", name=f"conv{n}") for n in (1, 2)]
    >>> top = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, "softmax")]
    >>> own = adopt(keras.Sequential([keras.Input((32, 32, 3)), scaled, *layers, *top]))
    >>> own.cut, own.row.stages, own.network.output.shape
    ('conv2', {'stem': 'conv1', 'stage1': 'conv2'}, (None, 8, 8, 8))
    """
    name = repr(model.name) if name is None else name
    channels = _check(model, name)
    side = _side(model, name, size)
    pixels, pixels_reason = _pixels(model, name, pixels, channels)
    own_shape = [length or side for length in model.inputs[0].shape[1:]]
    whole = _at_size(model, name, own_shape, pixels)
    links = chain.links(whole)
    if cut is not None:
        end, cut_reason = ends.find(links, name, cut, "backbone.cut"), "as given"
    else:
        end, cut_reason = _found_cut(whole, links, name)
    y = end.output
    cut_reason += f" ({' x '.join(map(str, y.shape[1:]))})"
    if len(y.shape) == 2:
        y = keras.layers.Reshape((1, 1, y.shape[-1]), name="as_map", dtype="float32")(y)
    network = keras.Model(whole.input, y, name="backbone")
    if own_shape[:2] != [side, side]:
        network = _at_size(network, name, (side, side, channels), "0..255")
    below = links[: links.index(end) + 1]
    if stages:
        found, stages_reason = ends.given(below, name, stages), ""
    else:
        found, stages_reason = ends.search(below, chain.learning_places(whole))
    last = {list(found)[-1]: "as_map"} if len(end.output.shape) == 2 else {}
    network.stage_ends = tuple((found | last).items())
    row = Row(None, side, pixels, found | last, smallest=1, channels=channels, pretrained=WORD)
    return Own(network, row, end.name, cut_reason, found, stages_reason, pixels, pixels_reason)


# The input -----------------------------------------------------------------------------------------------------------


def _check(model: Any, name: str) -> int:
    """Refuse what is no network of photos, and return its channels."""
    if not isinstance(model, keras.Model) or not has_graph(model):
        kind = type(model).__name__
        raise InvalidInput(
            f"{name} is a {kind}, a subclassed model: only its code knows how its layers follow each other, so it can "
            "be neither cut nor unfrozen in part; build it as a functional model"
        )
    for what, tensors in (("inputs", model.inputs), ("outputs", model.outputs)):
        if len(tensors) != 1:
            names = few([str(tensor._keras_history.operation.name) for tensor in tensors])
            raise InvalidInput(
                f"{name} has {len(tensors)} {what} ({names}): a backbone has one; save keras.Model(model.inputs[0], "
                "model.get_layer(...).output) of the part that you want"
            )
    shape = tuple(model.inputs[0].shape)
    if len(shape) != 4 or shape[-1] not in (1, 3):
        raise InvalidInput(
            f"{name} takes {shape}: a backbone of photos takes (batch, height, width, channels) with 1 or 3 channels"
        )
    return int(shape[-1])


def _side(model: keras.Model, name: str, size: int | None) -> int:
    height, width = model.inputs[0].shape[1:3]
    if size is not None:
        return size
    if height != width:
        raise InvalidInput(
            f"{name} takes photos of {height} x {width} pixels, and tlkit makes square ones: give "
            "--data.image_size, at which it is built again"
        )
    return SIZE if height is None else int(height)


def _pixels(model: keras.Model, name: str, asked: Pixels | None, channels: int) -> tuple[Pixels, str]:
    first = [kind for operation in _flat_before_weights(model) for kind in kinds(operation)[:1] if kind in SCALING]
    if asked is None:
        if not first:
            raise InvalidInput(
                f"{name} does not scale pixels itself, as it has no Rescaling or Normalization in front: say what it "
                "was trained on by --backbone.pixels 0..1, -1..1, caffe, torch, or 0..255 for pixels as they are"
            )
        return "0..255", f"as the network scales them itself ({first[0]})"
    if asked in ("caffe", "torch") and channels != 3:
        raise InvalidInput(f"backbone.pixels is {asked}, which is for 3 channels, and {name} takes {channels}")
    also = f"in front of the network's own {first[0]}, which stays" if first and asked != "0..255" else ""
    return asked, also


def _flat_before_weights(model: keras.Model) -> list[Any]:
    """List the operations in front of the first one that learns, in the models inside too."""
    found: list[Any] = []
    for node in nodes(model):
        inside = has_graph(node.operation)
        if inside:
            found += _flat_before_weights(node.operation)
        if chain.learns(node.operation):
            return found
        if not inside:
            found.append(node.operation)
    return found


def _at_size(model: keras.Model, name: str, shape: Sequence[int], pixels: Pixels) -> keras.Model:
    """Build the model's graph on pixels of a size, without models inside it."""
    inputs = keras.Input(shape, dtype="float32", name="pixels")
    x = preprocessed(inputs, pixels)
    taken = {str(node.operation.name) for node in nodes(keras.Model(inputs, x))} if x is not inputs else set()
    try:
        y = chain.unfold(model, x, {"pixels", *taken})
    except (ValueError, TypeError) as error:
        own = " x ".join(str(length) for length in model.inputs[0].shape[1:3])
        raise InvalidInput(
            f"{name} cannot be built for photos of {shape[0]} x {shape[1]} pixels (its own are {own}): "
            f"{first_line(error)}"
        ) from error
    return keras.Model(inputs, y, name="backbone")


# The cut -------------------------------------------------------------------------------------------------------------


def _found_cut(model: keras.Model, links: list[Link], name: str) -> tuple[Link, str]:
    """Find the last feature map in front of the top, or else what the last dense layer takes."""
    top = next((place for place, link in enumerate(links) if _pools(link)), len(links))
    maps = [link for link in links[:top] if len(link.output.shape) == 4]
    if maps and _attends(model, maps[-1].place):  # the patches of a transformer, most of which would be cut off
        maps = []
    if not maps or not any(place <= maps[-1].place for place in chain.learning_places(model)):
        dense = [place for place, link in enumerate(links) if "Dense" in kinds(link.operation)]
        if not dense:
            return links[-1], "its output"
        if not dense[-1]:
            raise InvalidInput(f"{name} has nothing below its last dense layer: give a network with more layers")
        return links[dense[-1] - 1], "the vector in front of the last dense layer"
    end = maps[-1]
    if top == len(links):
        return end, "its output"
    scores = any(_activation(link) in ("softmax", "sigmoid") for link in links[top:])
    after = [place for place in chain.learning_places(model) if place > end.place]
    if scores and not after:  # maps of the classes, which are averaged, as in SqueezeNet
        learning = [link for link in maps if chain.learns(link.operation)]
        if len(learning) > 1 and (before := [link for link in maps if link.place < learning[-1].place]):
            return before[-1], "the last feature map in front of those of the classes"
    return end, "the last feature map"


def _attends(model: keras.Model, place: int) -> bool:
    """Whether a layer of attention is called after a place."""
    return any("MultiHeadAttention" in kinds(node.operation) for node in list(nodes(model))[place:])


def _pools(link: Link) -> bool:
    """Whether a call ends the feature maps."""
    given = max((len(tensor.shape) for tensor in link.inputs), default=0)
    return given == 4 and (
        len(link.output.shape) < 4 or any(kind.startswith("Global") for kind in kinds(link.operation))
    )


def _activation(link: Link) -> str:
    operation = link.operation
    if "Softmax" in kinds(operation):
        return "softmax"
    return str(getattr(getattr(operation, "activation", None), "__name__", ""))
