"""The graph of a Keras model: its calls in order, their shapes, and the kinds of their operations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit.arithmetic.layers import Shape

if TYPE_CHECKING:
    import keras
    from keras.src.ops.node import Node


class Call(NamedTuple):
    """One call of an operation in a Keras graph; shapes are without the batch."""

    operation: Any  # a keras.Operation, whose attributes depend on its class
    node: Node
    inputs: list[Shape]
    output: Shape
    channels_first: bool

    def space(self, shape: Shape) -> Shape:
        """Return the axes of space."""
        return shape[1:] if self.channels_first else shape[:-1]

    def channels(self, shape: Shape) -> int | None:
        """Return the number of channels."""
        return shape[0] if self.channels_first else shape[-1]

    def named(self, *names: str) -> dict[str, Any]:
        """Return the arguments of the call by name, whether they were passed by place or by name."""
        arguments = self.node.arguments
        return {**dict(zip(names, arguments.args, strict=False)), **arguments.kwargs}


def broadcasts(shape: Shape, to: Shape) -> bool:
    """Tell whether a shape can be broadcast to another one."""
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(size in (1, target) for size, target in pairs)


def has_graph(operation: keras.Operation) -> bool:
    """Tell whether an operation is a model with a graph."""
    return bool(getattr(operation, "inputs", None)) and bool(getattr(operation, "outputs", None))


def nodes(model: keras.Model) -> Iterator[Node]:
    """Yield the calls between a Keras model's inputs and outputs, each after those it needs."""
    return between(model.inputs, model.outputs)


def between(begin: Sequence[keras.KerasTensor], end: Sequence[keras.KerasTensor]) -> Iterator[Node]:
    """Yield the calls between some tensors and others, each after those it needs."""
    placed: set[int] = set()
    inputs = {id(tensor) for tensor in begin}
    stack = [_node(tensor) for tensor in reversed(end) if id(tensor) not in inputs]
    while stack:  # no recursion, for deep models
        node = stack[-1]
        sources = [_node(tensor) for tensor in node.input_tensors if id(tensor) not in inputs]
        waiting = [source for source in sources if id(source) not in placed]
        if waiting:
            stack.append(waiting[0])
            continue
        stack.pop()
        if id(node) not in placed:
            placed.add(id(node))
            yield node


def _node(tensor: keras.KerasTensor) -> Node:
    history = tensor._keras_history  # type: ignore[attr-defined]
    node: Node = history.operation._inbound_nodes[history.node_index]
    return node


def shape_of(tensor: keras.KerasTensor) -> Shape:
    """Return the shape of a tensor without the batch."""
    return tuple(tensor.shape[1:])


def kinds(operation: keras.Operation) -> list[str]:
    """Name Keras' own classes that it is one of, the closest first; another library's `Dense` may be anything."""
    return [kind.__name__ for kind in type(operation).__mro__ if kind.__module__.startswith("keras.")]
