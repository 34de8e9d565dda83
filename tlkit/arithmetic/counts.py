"""The multiply-adds of an operation in a Keras graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeAlias

from tlkit.arithmetic.graph import Call, between, broadcasts, has_graph, kinds, nodes, shape_of
from tlkit.arithmetic.layers import Shape, sum_or_none

if TYPE_CHECKING:
    import keras
    from keras.src.ops.node import Node

Count: TypeAlias = Callable[[Call], int | None]


def multiply_adds(call: Call) -> int | None:
    """Count the multiply-adds of a call; None where they are not known."""
    operation = call.operation
    declared = getattr(operation, "multiply_adds", None)
    if callable(declared):
        count: int | None = declared([(None, *shape) for shape in call.inputs])
        return count
    for kind in kinds(operation):
        if kind in _COUNTS:
            return _COUNTS[kind](call)
    weights = [tuple(weight.shape) for weight in getattr(operation, "weights", ())]
    return 0 if all(len(shape) < 2 or _by_example(call, shape) for shape in weights) else _inside(call)


def _inside(call: Call) -> int | None:
    """Count what another library's layer calls, by running its code on symbols; None where it cannot be followed."""
    if type(call.operation).__module__.startswith("keras."):
        return None
    example = {id(x): type(x)((1, *x.shape[1:]), x.dtype) for x in call.node.input_tensors}
    with suppress(Exception), _as_before(call.operation):  # whatever code for numbers raises on symbols
        args, kwargs = call.node.arguments.fill_in(example)
        outputs = call.operation.call(*args, **kwargs)
        outputs = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
        return _sum(between(list(example.values()), outputs), call.channels_first)
    return None


@contextmanager
def _as_before(operation: keras.Operation) -> Iterator[None]:
    """Take the nodes away that calls in the block leave on layers, also where the code fails half-way."""
    layers = operation._flatten_layers() if hasattr(operation, "_flatten_layers") else [operation]
    lists = [nodes for layer in layers for nodes in (layer._inbound_nodes, layer._outbound_nodes)]
    counts = [len(nodes) for nodes in lists]
    try:
        yield
    finally:
        for nodes, count in zip(lists, counts, strict=True):
            del nodes[count:]


def _sum(graph: Iterable[Node], channels_first: bool) -> int | None:
    """Add up calls on one example; None where it was divided among the batch, as into windows of attention."""
    counts: list[int | None] = []
    for node in graph:
        shapes, output = [shape_of(x) for x in node.input_tensors], node.output_tensors[0]
        inner = Call(node.operation, node, shapes, shape_of(output), channels_first)
        known = _sum(nodes(inner.operation), channels_first) if has_graph(inner.operation) else multiply_adds(inner)
        counts.append(known if not known or output.shape[0] in (None, 1) else None)
    return sum_or_none(counts)


def _by_example(call: Call, shape: Shape) -> bool:
    """Tell whether a weight has a batch axis of 1 and meets the cells of an example one by one."""
    return shape[0] == 1 and any(broadcasts(shape[1:], example) for example in (*call.inputs, call.output))


def _convolution(call: Call) -> int | None:
    layer, channels = call.operation, call.channels(call.inputs[0])
    return _product(*call.space(call.output), *layer.kernel_size, channels, layer.filters, over=layer.groups)


def _transposed(call: Call) -> int | None:
    return _product(*call.inputs[0], *call.operation.kernel_size, call.operation.filters)


def _depthwise(call: Call) -> int | None:
    return _product(*call.output, *call.operation.kernel_size)


def _separable(call: Call) -> int | None:
    layer, space = call.operation, call.space(call.output)
    between = _product(call.channels(call.inputs[0]), layer.depth_multiplier)
    return sum_or_none([_product(*space, *layer.kernel_size, between), _product(*space, between, layer.filters)])


def _dense(call: Call) -> int | None:
    return _product(*call.inputs[0], call.operation.units)


def _einsum_dense(call: Call) -> int | None:
    left, right = call.operation.equation.split("->")  # every axis of the kernel is one of the input or the output
    return _contraction([left.split(",")[0], right], [(1, *call.inputs[0]), (1, *call.output)])


def _einsum(call: Call) -> int | None:
    terms = call.operation.subscripts.replace(" ", "").split("->")[0].split(",")
    operands = call.node.arguments.args
    if len(terms) > 2:
        return None  # it depends on the order of the products
    return _contraction(terms, [_without_batch(operand.shape) for operand in operands])


def _contraction(terms: Sequence[str], shapes: Sequence[Shape]) -> int | None:
    """Count one multiply-add for each combination of the indices; an ellipsis stands for the axes that are left."""
    sizes: dict[str, int | None] = {}
    for term, shape in zip(terms, shapes, strict=True):
        before, dots, after = term.partition("...")
        left = len(shape) - len(before) - len(after)
        letters = [*before, *(f"...{left - place}" for place in range(left) if dots), *after]
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = size if sizes.get(letter, 1) == 1 else sizes[letter]
    return _product(*sizes.values())


def _matmul(call: Call) -> int | None:
    return _product(*call.output, call.node.arguments.args[0].shape[-1])


def _attention(call: Call) -> int | None:
    query, value = call.inputs[:2]
    return _product(*query[:-1], value[-2], sum_or_none([query[-1], value[-1]]))


def _multi_head_attention(call: Call) -> int | None:
    layer, arguments = call.operation, call.named("query", "value", "key")
    query, value = shape_of(arguments["query"]), shape_of(arguments["value"])
    key = value if arguments.get("key") is None else shape_of(arguments["key"])
    heads, depth, width = layer.num_heads, layer.key_dim, layer.value_dim
    attended = [value[axis - 1] for axis in layer.attention_axes]
    gate = _product(*query, heads, width) if getattr(layer, "_use_gate", False) else 0
    return sum_or_none(
        [
            _product(*query, heads, depth),
            _product(*key, heads, depth),
            _product(*value, heads, width),
            gate,
            _product(*query[:-1], *attended, heads, depth + width),
            _product(*query[:-1], heads, width, *call.output[len(query) - 1 :]),
        ]
    )


def _grouped_query_attention(call: Call) -> int | None:
    layer, arguments = call.operation, call.named("query", "value", "key")
    query, value = shape_of(arguments["query"]), shape_of(arguments["value"])
    key = value if arguments.get("key") is None else shape_of(arguments["key"])
    heads, groups, depth = layer.num_query_heads, layer.num_key_value_heads, layer.head_dim
    projections = 3 if getattr(layer, "use_gate", False) else 2  # of the query, of the result and the gate
    return sum_or_none(
        [
            _product(projections, *query, heads, depth),
            _product(*key, groups, depth),
            _product(*value, groups, depth),
            _product(2, *query[:-1], value[-2], heads, depth),
        ]
    )


def _reversible(call: Call) -> int | None:
    back = call.named("inputs", "reverse").get("reverse")  # from features to a score for each token: a dense layer
    return _product(*call.inputs[0], call.operation.input_dim) if back else 0


def _nothing(call: Call) -> int | None:
    return 0


def _unknown(call: Call) -> int | None:
    return None


_COUNTS: dict[str, Count] = {  # by class, also of Keras' own bases
    "BaseConv": _convolution,
    "BaseConvTranspose": _transposed,
    "BaseDepthwiseConv": _depthwise,
    "BaseSeparableConv": _separable,
    "Dense": _dense,
    "EinsumDense": _einsum_dense,
    "Attention": _attention,
    "MultiHeadAttention": _multi_head_attention,
    "GroupedQueryAttention": _grouped_query_attention,
    "ReversibleEmbedding": _reversible,
    "Matmul": _matmul,
    "Einsum": _einsum,
    # these hold arrays and multiply no matrix
    **dict.fromkeys(("Embedding", "PReLU", "Normalization", "LayerNormalization", "BatchNormalization"), _nothing),
    # products whose sizes are not followed
    **dict.fromkeys(("Conv", "DepthwiseConv", "SeparableConv", "ConvTranspose", "DotProductAttention"), _unknown),
    **dict.fromkeys(("Dot", "Tensordot", "Inner", "Outer", "Kron", "Vdot"), _unknown),
}


def _without_batch(shape: Sequence[int | None]) -> Shape:
    """Replace a batch axis that is not fixed by size 1."""
    return (1 if shape[0] is None else shape[0], *shape[1:])


def _product(*sizes: int | None, over: int = 1) -> int | None:
    return None if None in sizes else math.prod(size for size in sizes if size is not None) // over
