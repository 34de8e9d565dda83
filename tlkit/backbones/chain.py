"""The graph of any network as a chain: models inside models unfolded, and the calls that everything passes through."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import KerasTensor

from tlkit.arithmetic.graph import has_graph, kinds, nodes


class Link(NamedTuple):
    """A call on whose output alone all that follows depends.

    Args:
        place: Position of the call among all of the network's.
        operation: What is called.
        inputs: What it takes.
        output: What it gives.
    """

    place: int
    operation: Any
    inputs: list[KerasTensor]
    output: KerasTensor

    @property
    def name(self) -> str:
        """The layer's name."""
        return str(self.operation.name)


def unfold(model: keras.Model, x: KerasTensor, taken: set[str]) -> KerasTensor:
    """Call copies of a model's layers on a tensor one by one, and of those of the models inside it too.

    They have the same weights. A name that occurs twice gets that of its model in front. Layers that scale pixels
    compute in float32.

    Args:
        model: A model with one input and one output.
        x: What they are called on.
        taken: Names that are in use already; those of the layers are added.
    """
    copies: dict[int, Any] = {}  # of each operation, by its identity
    (y,) = _unfold(model, [x], taken, copies)
    return y


def _unfold(model: keras.Model, inputs: list[Any], taken: set[str], copies: dict[int, Any]) -> list[Any]:
    tensors = {id(tensor): x for tensor, x in zip(model.inputs, inputs, strict=True)}
    for node in nodes(model):
        operation = node.operation
        args, kwargs = node.arguments.fill_in(tensors)
        if isinstance(operation, keras.Model) and has_graph(operation):
            outputs = _unfold(operation, keras.tree.flatten(args), taken, copies)
        else:
            first = id(operation) not in copies
            if first:
                copies[id(operation)] = _copy(operation, model.name, taken)
            copy = copies[id(operation)]
            outputs = keras.tree.flatten(copy(*args, **kwargs))
            if first and (weights := getattr(operation, "weights", None)):
                for new, old in zip(copy.weights, weights, strict=True):
                    new.assign(old)
        tensors |= {id(tensor): y for tensor, y in zip(node.output_tensors, outputs, strict=True)}
    return [tensors[id(tensor)] for tensor in model.outputs]


def _copy(operation: Any, model: str, taken: set[str]) -> Any:
    """Make an operation anew, under a name that is free."""
    name = operation.name if operation.name not in taken else _free(f"{model}_{operation.name}", taken)
    taken.add(name)
    config = operation.get_config()
    if isinstance(operation, keras.layers.Rescaling | keras.layers.Normalization):
        config["dtype"] = "float32"
    copy = type(operation).from_config(config)
    copy.name = name
    return copy


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number, free = number + 1, f"{name}_{number}"
    return free


def links(model: keras.Model) -> list[Link]:
    """List the calls of a network that everything passes through, first to last.

    Args:
        model: A functional model with one input and one output.

    >>> x = keras.Input((8, 8, 1))
    >>> y = keras.layers.Conv2D(1, 1, name="first")(x)
    >>> y = keras.layers.Add(name="sum")([keras.layers.ReLU(name="branch")(y), y])
    >>> [link.name for link in links(keras.Model(x, y))]
    ['first', 'sum']
    """
    calls = list(nodes(model))
    made = {id(tensor): place for place, node in enumerate(calls) for tensor in node.output_tensors}
    last_use: dict[int, int] = {}  # of what each call gives (-1: the input): position of the last call that takes it
    for place, node in enumerate(calls):
        for tensor in node.input_tensors:
            last_use[made.get(id(tensor), -1)] = place
    found, reach = [], last_use.get(-1, -1)
    for place, node in enumerate(calls):
        if reach <= place and len(node.output_tensors) == 1:
            found.append(Link(place, node.operation, list(node.input_tensors), node.output_tensors[0]))
        reach = max(reach, last_use.get(place, -1))
    return found


def learns(operation: Any) -> bool:
    """Whether an operation has weights that say what it sees; those of a Normalization only scale."""
    return bool(getattr(operation, "weights", None)) and "Normalization" not in kinds(operation)[:1]


def learning_places(model: keras.Model) -> list[int]:
    """Give the positions of the calls of layers that learn."""
    return [place for place, node in enumerate(nodes(model)) if learns(node.operation)]
