"""The graph of a KerasHub backbone: flat, so that it can be cut between blocks and saved, and ending in a map."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any

import keras
from keras import KerasTensor

from tlkit.arithmetic.graph import between, has_graph
from tlkit.layers import FRONT, end, is_stage


def of_library(operation: Any) -> bool:
    """Whether an operation is a layer of KerasHub."""
    return type(operation).__module__.startswith("keras_hub.")


# One flat graph ------------------------------------------------------------------------------------------------------


def flatten(model: keras.Model, x: KerasTensor) -> KerasTensor:
    """Call a backbone's layers on a tensor, and in place of its encoders their blocks, so that it can be cut there.

    An encoder is opened by running its code on a symbolic tensor, so that the graph has the calls of its blocks. The
    layers are the model's own: the model itself cannot be used afterwards.

    Args:
        model: A functional model with one input; of several outputs, as of a pyramid, the last counts.
        x: What its layers are called on.
    """
    output = list(model.output.values())[-1] if isinstance(model.output, dict) else model.outputs[-1]
    y, closed = _retrace(model.inputs, output, x, set(), {}), {-1}
    while containers := {id(each) for each in _operations(x, y) if _is_container(each)} - closed:
        y = _retrace([x], y, x, containers, {})
        closed |= containers  # those that are left could not be opened
    if any(map(_is_of_size, between([x], [y]))):
        y = _retrace([x], y, x, set(), {}, local=True)
    _rename(x, y)
    return y


def with_ends(x: KerasTensor, y: KerasTensor, ends: Mapping[str, str]) -> KerasTensor:
    """Put a layer with the stage's name behind the layer that ends it, for all stages but the last."""
    return _retrace([x], y, x, set(), {layer: stage for stage, layer in list(ends.items())[:-1]})


def _retrace(
    inputs: Any, output: KerasTensor, x: KerasTensor, opened: set[int], marked: Mapping[str, str], local: bool = False
) -> Any:
    """Call the operations between tensors anew.

    Args:
        inputs: Where the graph begins.
        output: Where it ends.
        x: What takes the place of the inputs.
        opened: The layers that are opened, by identity.
        marked: Names of operations, and of the layer to put behind each.
        local: Whether what depends on the photo's size alone is computed where it is needed.
    """
    if any(output is each for each in inputs):
        return x
    calls = list(between(inputs, [output]))
    for node in calls:  # `layer.output` is what the first call gave
        node.operation._inbound_nodes, node.operation._outbound_nodes = [], []
    tensors: dict[int, Any] = {id(tensor): x for tensor in inputs}
    sources = {id(tensor): node for node in calls if local and _is_of_size(node) for tensor in node.output_tensors}
    for node in calls:
        operation = node.operation
        args, kwargs = node.arguments.fill_in({**tensors, **_of_size(node, sources, tensors)})
        if isinstance(operation, keras.Model) and has_graph(operation):
            inner = keras.tree.flatten(args)[0]
            outputs = [_retrace(operation.inputs, each, inner, opened, marked) for each in operation.outputs]
        elif type(operation) is keras.layers.Identity:
            outputs = keras.tree.flatten(args)  # Keras 3.15 cannot save one that was given a dtype policy
        else:
            inside = _opened(operation, args, kwargs, len(node.output_tensors)) if id(operation) in opened else None
            outputs = inside or keras.tree.flatten(operation(*args, **kwargs))
        outputs = [_shaped(y, tensor.shape) for y, tensor in zip(outputs, node.output_tensors, strict=True)]
        if not (opened or marked or local):  # the first time: afterwards the correction is in the graph
            outputs = [_counted(operation, keras.tree.flatten(args), y) for y in outputs]
        if operation.name in marked:
            outputs = [end(each, marked[operation.name]) for each in outputs]
        tensors |= {id(tensor): y for tensor, y in zip(node.output_tensors, outputs, strict=True)}
    return tensors[id(output)]


def _is_of_size(node: Any) -> bool:
    """Whether a call gives what depends on its input's size alone, such as a rotary embedding: it has no batch."""
    of_size = of_library(node.operation) and not node.operation.weights and len(node.input_tensors) == 1
    return of_size and all(tensor.shape[0] is not None for tensor in node.output_tensors)


def _of_size(node: Any, sources: Mapping[int, Any], tensors: Mapping[int, Any]) -> dict[int, Any]:
    """Compute what depends on the photo's size alone from the first input of a call, so that it needs no photo."""
    found: dict[int, Any] = {}
    for source in {id(each): each for tensor in node.input_tensors if (each := sources.get(id(tensor)))}.values():
        tokens = tensors[id(node.input_tensors[0])]
        point = keras.ops.reshape(tokens[:1, :1, :1], (1, 1, 1, 1))
        photo = keras.ops.broadcast_to(point, (1, *source.input_tensors[0].shape[1:]))
        outputs = keras.tree.flatten(source.operation(photo))
        found |= {id(tensor): y for tensor, y in zip(source.output_tensors, outputs, strict=True)}
    return found


def _operations(x: KerasTensor, y: KerasTensor) -> list[Any]:
    return [node.operation for node in between([x], [y])]


def _is_container(operation: Any) -> bool:
    """Whether a layer of KerasHub only calls a list of others, one after another."""
    if not of_library(operation) or operation._trainable_variables or operation._non_trainable_variables:
        return False
    return any(_has_blocks(name, value) for name, value in vars(operation).items())


def _has_blocks(name: str, value: Any) -> bool:
    return isinstance(value, list) and name[0] != "_" and bool(value) and all(map(of_library, value))


def _shaped(y: Any, shape: tuple[int | None, ...]) -> Any:
    """Give a tensor the shape that is known of it."""
    if not isinstance(y, KerasTensor) or None in shape[1:] or None not in y.shape[1:]:
        return y
    return keras.layers.Reshape(shape[1:])(y)


def _counted(operation: Any, given: list[Any], y: Any) -> Any:
    """Correct the number of tokens that a layer of KerasHub says it makes: that of SigLIP 0.32 counts one too many."""
    says = of_library(operation) and "compute_output_shape" in vars(type(operation)) and len(given) == 1
    if not says or not isinstance(y, KerasTensor) or len(y.shape) != 3 or len(given[0].shape) != 4:
        return y
    count = operation(keras.ops.zeros((1, *given[0].shape[1:]), given[0].dtype)).shape[1]
    return y if y.shape[1] in (None, count) else y[:, :count]


def _opened(container: Any, args: Any, kwargs: Any, count: int) -> list[Any] | None:
    """Call what is inside a layer; None if its code needs numbers, or puts out another number of tensors."""
    for layer in container._layers:
        if not layer.name.startswith(container.name):
            layer.name = f"{container.name}_{layer.name}"
    for prepare in (contextlib.nullcontext, _blocks_opened):
        outputs = None
        with suppress(Exception), prepare(container):  # whatever code for numbers raises on symbols
            outputs = keras.tree.flatten(container.call(*args, **kwargs))
        if outputs is not None and len(outputs) == count and isinstance(outputs[0], KerasTensor):
            return outputs
    return None


@contextlib.contextmanager
def _blocks_opened(container: Any) -> Iterator[None]:
    """Have a layer call what is inside its blocks: a graph cannot have those that put out None beside their tokens."""
    before = {name: value for name, value in vars(container).items() if _has_blocks(name, value)}
    for block in chain.from_iterable(before.values()):
        for layer in block._layers:
            layer.name = f"{block.name}_{layer.name}"
    try:
        vars(container).update({name: [block.call for block in value] for name, value in before.items()})
        yield
    finally:
        vars(container).update(before)


def _rename(x: KerasTensor, y: KerasTensor) -> None:
    """Give each operation a name of its own, none of them that of a stage."""
    taken: set[str] = set()
    for operation in dict.fromkeys(_operations(x, y)):
        name, number = operation.name, 1
        while operation.name in taken or is_stage(operation.name):
            operation.name, number = f"{name}_{number}", number + 1
        taken.add(operation.name)


# The end -------------------------------------------------------------------------------------------------------------


def as_map(y: KerasTensor, side: int, patch: int | None, with_mean: bool) -> tuple[KerasTensor, str]:
    """Make a map of what a backbone puts out, whose average over all positions are its features.

    Args:
        y: A map, tokens or a vector.
        side: Height and width of the photos in pixels.
        patch: Height and width of a patch in pixels, where the backbone has patches of one size.
        with_mean: Whether the mean of all patches goes beside the class token, where there is one.

    Returns:
        The map, and what its average is, for people.

    >>> as_map(keras.Input((197, 8)), 224, 16, False)[0].shape, as_map(keras.Input((196, 8)), 224, 16, False)[0].shape
    ((None, 1, 1, 8), (None, 14, 14, 8))
    """
    layers = keras.layers
    if len(y.shape) == 4:
        return y, "the average of its last map"
    width = y.shape[-1]
    if len(y.shape) == 2:
        return layers.Reshape((1, 1, width), name="as_map")(y), "the vector that it puts out"
    tokens = y.shape[1]
    grid = side // patch if patch else math.isqrt(tokens)
    front = tokens - grid**2
    if not 0 <= front <= FRONT:
        grid = math.isqrt(tokens)
        front = tokens - grid**2
    if front == 0:
        return layers.Reshape((grid, grid, width), name="as_map")(y), "the mean of its tokens"
    token = layers.Reshape((1, 1, width), name="class_token")(layers.Cropping1D((0, tokens - 1), name="first")(y))
    if not with_mean:
        return token, "its class token"
    patches = layers.Cropping1D((front, 0), name="patches")(y)
    mean = layers.Reshape((1, 1, width), name="as_map")(layers.GlobalAveragePooling1D(name="mean")(patches))
    return layers.Concatenate(name="class_and_mean")(
        [token, mean]
    ), "its class token and, beside it, the mean of its patches"


# Saving --------------------------------------------------------------------------------------------------------------


def make_savable(model: keras.Model) -> list[str]:
    """Have the layers of KerasHub in a model describe themselves so that they can be made anew from it.

    Some of KerasHub 0.32 leave arguments out, or add what their constructors refuse: a model that is saved with them
    cannot be loaded. Their classes are changed; what is saved is loaded by KerasHub as it is.

    Returns:
        Names of the layers that cannot be saved all the same.
    """
    kinds = {type(layer): layer for layer in _saved_layers(model)}
    broken = [layer for layer in kinds.values() if not _can_be_made_anew(layer)]
    for layer in broken:
        _describe_by_signature(type(layer))
    for kind in kinds:
        if kind.build is keras.layers.Layer.build:  # it is built when it is called, and only then are its parts
            kind.get_build_config = lambda self: None  # type: ignore[method-assign]
    return [layer.name for layer in broken if not _can_be_made_anew(layer)]


def _saved_layers(model: keras.Model) -> list[keras.Layer]:
    """List the layers of KerasHub that a file describes one by one, in models inside too."""
    found: list[keras.Layer] = []
    for layer in model.layers:
        if isinstance(layer, keras.Model) and not of_library(layer):
            found += _saved_layers(layer)
        elif of_library(layer):
            found.append(layer)
    return found


def _can_be_made_anew(layer: keras.Layer) -> bool:
    with suppress(Exception):  # whatever a constructor raises
        type(layer).from_config(layer.get_config())
        return True
    return False


def _describe_by_signature(kind: type[keras.Layer]) -> None:
    """Replace a class's `get_config` by one that gives exactly what its constructor takes."""
    parameters = inspect.signature(kind.__init__).parameters.values()
    names = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD][1:]

    def get_config(self: Any) -> dict[str, Any]:
        given = getattr(self, "_auto_config", None)  # the constructor's arguments, where Keras could note them
        noted = given.config if given else {}
        values = {name: getattr(self, name, getattr(self, f"_{name}", None)) for name in names if name not in noted}
        own = {name: _class(value) if isinstance(value, type) else value for name, value in values.items()}
        return {**noted, **keras.layers.Layer.get_config(self), **own}

    kind.get_config = get_config  # type: ignore[method-assign]


def _class(kind: type) -> dict[str, Any]:
    """Describe a layer's class in the way that Keras reads it as a class, and not as a layer of it."""
    module = kind.__module__ if kind.__module__.startswith("keras_hub.") else "keras.layers"
    return {"class_name": "function", "config": kind.__name__, "module": module, "registered_name": None}
