"""A table of a Keras model: each call in order, and what it sees and costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tlkit.arithmetic.counts import multiply_adds
from tlkit.arithmetic.fields import grid_of
from tlkit.arithmetic.graph import Call, has_graph, nodes, shape_of
from tlkit.arithmetic.layers import Grid, Row, ones
from tlkit.errors import InvalidInput

if TYPE_CHECKING:
    import keras


def describe(model: keras.Model) -> list[Row]:
    """Follow every call of a layer in a Keras model, each after those it depends on; input layers have no row.

    It reads the graph of a functional or Sequential model, with nested models, several inputs and shared layers, and
    imports no Keras. The totals' parameters are those of `model.count_params()`.

    Multiply-adds: a transposed convolution has its kernel once for each input cell; masked or causal attention is
    counted in full; a nested model that takes any image size has None, whatever size it is called with. A layer that is
    not Keras' own may count itself in a method `multiply_adds(input_shapes)`: it is given a list with the shape of each
    input, (None, *space, channels), and returns an integer. Without it, a layer that holds a matrix has the sum of what
    its code calls when it is run on symbols, or None where that cannot be followed; one whose matrices all have the
    shape of an example, such as embedded positions, (1, tokens, channels), has 0, as have others.

    Fields: where inputs meet, the largest counts. Any layer with `kernel_size` and `strides` is a window. An unknown
    layer that keeps the spatial shape is taken to work cell by cell; after one that changes it, the field is None.
    After a transposed convolution or upsampling, output cells differ in their field; it is a bound for the largest.

    Raises:
        InvalidInput: the model has no graph: it is not built, or its class overrides `call`.
    """
    if not has_graph(model):
        raise InvalidInput(
            f"{type(model).__name__} {getattr(model, 'name', model)!r} has no graph of layers; give a functional model,"
            " a Sequential one with an input shape, or keras.Model(inputs, model.call(inputs)) of a subclassed one"
        )
    rows: list[Row] = []
    _walk(model, [ones(max(len(tensor.shape) - 2, 0)) for tensor in model.inputs], "", set(), rows)
    return rows


def _walk(model: keras.Model, grids: Sequence[Grid], prefix: str, counted: set[int], rows: list[Row]) -> list[Grid]:
    """Add the rows of a model whose inputs lie on `grids`; return the grids of its outputs."""
    grid_at = {id(tensor): grid for tensor, grid in zip(model.inputs, grids, strict=True)}
    graph = list(nodes(model))
    first = any(getattr(node.operation, "data_format", None) == "channels_first" for node in graph)
    for node in graph:
        operation = node.operation
        input_grids = [grid_at[id(tensor)] for tensor in node.input_tensors]
        if has_graph(operation):
            # A mask may come after the inputs proper.
            output_grids = _walk(
                operation, input_grids[: len(operation.inputs)], f"{prefix}{operation.name}/", counted, rows
            )
        else:
            inputs = [shape_of(tensor) for tensor in node.input_tensors]
            call = Call(operation, node, inputs, shape_of(node.output_tensors[0]), first)
            grid = grid_of(call, input_grids)
            output_grids = [grid] * len(node.output_tensors)
            weights = {id(weight): weight for weight in getattr(operation, "weights", ()) if id(weight) not in counted}
            counted.update(weights)
            parameters = sum(math.prod(weight.shape) for weight in weights.values())
            name, kind = prefix + operation.name, type(operation).__name__
            rows.append(Row(name, kind, call.output, parameters, multiply_adds(call), *grid.whole()))
        grid_at.update({id(tensor): grid for tensor, grid in zip(node.output_tensors, output_grids, strict=True)})
    return [grid_at[id(tensor)] for tensor in model.outputs]
