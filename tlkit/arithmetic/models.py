"""The graph of a Keras model: its calls in order, and what each of them sees and costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from tlkit.arithmetic.layers import UNKNOWN, Grid, Row, Shape, ones, per_axis, sum_or_none
from tlkit.errors import InvalidInput


def describe(model: Any) -> list[Row]:
    """Follow every call of a layer in a Keras model, each after those it depends on; input layers have no row.

    It reads the graph of a functional or Sequential model, with nested models, several inputs and shared layers, and
    imports no Keras. The totals' parameters are those of `model.count_params()`.

    Multiply-adds: a transposed convolution has its kernel once for each input cell; masked or causal attention is
    counted in full; a nested model that takes any image size has None, whatever size it is called with. A layer that is
    not Keras' own may count itself in a method `multiply_adds(input_shapes)`: it is given a list with the shape of each
    input, (None, *space, channels), and returns an integer. Without it, a layer that holds a matrix has None, unless
    the matrix has the shape of an example, such as embedded positions, (1, tokens, channels); others have 0.

    Fields: where inputs meet, the largest counts. Any layer with `kernel_size` and `strides` is a window. An unknown
    layer that keeps the spatial shape is taken to work cell by cell; after one that changes it, the field is None.
    After a transposed convolution or upsampling, output cells differ in their field; it is a bound for the largest.

    Raises:
        InvalidInput: the model has no graph: it is not built, or its class overrides `call`.
    """
    if not _has_graph(model):
        raise InvalidInput(
            f"{type(model).__name__} {getattr(model, 'name', model)!r} has no graph of layers; give a functional model,"
            " a Sequential one with an input shape, or keras.Model(inputs, model.call(inputs)) of a subclassed one"
        )
    rows: list[Row] = []
    _walk(model, [ones(max(len(tensor.shape) - 2, 0)) for tensor in model.inputs], "", set(), rows)
    return rows


class _Call(NamedTuple):
    """One call of an operation in a Keras graph; shapes are without the batch."""

    operation: Any
    node: Any
    inputs: list[Shape]
    output: Shape
    channels_first: bool

    def space(self, shape: Shape) -> Shape:
        return shape[1:] if self.channels_first else shape[:-1]

    def channels(self, shape: Shape) -> int | None:
        return shape[0] if self.channels_first else shape[-1]

    def named(self, *names: str) -> dict[str, Any]:
        """The arguments of the call by name, whether they were given by place or by name."""
        arguments = self.node.arguments
        return {**dict(zip(names, arguments.args, strict=False)), **arguments.kwargs}


def _walk(model: Any, grids: Sequence[Grid], prefix: str, counted: set[int], rows: list[Row]) -> list[Grid]:
    """Add the rows of a model whose inputs lie on `grids`; return the grids of its outputs."""
    known = {id(tensor): grid for tensor, grid in zip(model.inputs, grids, strict=True)}
    graph = list(nodes(model))
    first = any(getattr(node.operation, "data_format", None) == "channels_first" for node in graph)
    for node in graph:
        operation = node.operation
        arriving = [known[id(tensor)] for tensor in node.input_tensors]
        if _has_graph(operation):
            # A mask may come after the inputs proper.
            leaving = _walk(operation, arriving[: len(operation.inputs)], f"{prefix}{operation.name}/", counted, rows)
        else:
            inputs = [_shape(tensor) for tensor in node.input_tensors]
            call = _Call(operation, node, inputs, _shape(node.output_tensors[0]), first)
            grid = _grid(call, arriving)
            leaving = [grid] * len(node.output_tensors)
            weights = {id(weight): weight for weight in getattr(operation, "weights", ()) if id(weight) not in counted}
            counted.update(weights)
            parameters = sum(math.prod(weight.shape) for weight in weights.values())
            name, kind = prefix + operation.name, type(operation).__name__
            rows.append(Row(name, kind, call.output, parameters, _multiply_adds(call), *grid.whole()))
        known.update({id(tensor): grid for tensor, grid in zip(node.output_tensors, leaving, strict=True)})
    return [known[id(tensor)] for tensor in model.outputs]


def _has_graph(operation: Any) -> bool:
    return bool(getattr(operation, "inputs", None)) and bool(getattr(operation, "outputs", None))


def nodes(model: Any) -> Iterator[Any]:
    """Give the calls between a Keras model's inputs and outputs, each after those it needs."""
    placed: set[int] = set()
    given = {id(tensor) for tensor in model.inputs}
    stack = [_node(tensor) for tensor in reversed(model.outputs) if id(tensor) not in given]
    while stack:  # no recursion, for deep models
        node = stack[-1]
        sources = [_node(tensor) for tensor in node.input_tensors if id(tensor) not in given]
        waiting = [source for source in sources if id(source) not in placed]
        if waiting:
            stack.append(waiting[0])
            continue
        stack.pop()
        if id(node) not in placed:
            placed.add(id(node))
            yield node


def _node(tensor: Any) -> Any:
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def _shape(tensor: Any) -> Shape:
    return tuple(tensor.shape[1:])


def _kinds(operation: Any) -> list[str]:
    """Names of Keras' own classes that it is one of, the closest first; another library's `Dense` may be anything."""
    return [kind.__name__ for kind in type(operation).__mro__ if kind.__module__.startswith("keras.")]


_WHOLE = {  # every output cell depends on every input cell
    *("Flatten", "BaseGlobalPooling", "RNN", "Bidirectional"),
    *("MultiHeadAttention", "GroupedQueryAttention", "Attention", "DotProductAttention", "Matmul", "Einsum", "Dot"),
}
_LOST = {  # cells change their place, or what is inside is not seen
    *("Permute", "Transpose", "Swapaxes", "Moveaxis", "Reshape", "Wrapper"),
    *("Conv", "DepthwiseConv", "SeparableConv", "ConvTranspose", "Tensordot", "Inner", "Outer", "Kron", "Vdot"),
}
_RESAMPLED = {"nearest": 1, "bilinear": 2, "bicubic": 4, "lanczos3": 6, "lanczos5": 10}  # cells that each new one sees


def _grid(call: _Call, grids: Sequence[Grid]) -> Grid:
    operation, kinds = call.operation, set(_kinds(call.operation))
    axes = len(call.space(call.output))
    if kinds & _WHOLE:
        return _merge(call, grids)._replace(field=None)
    if "Embedding" in kinds and grids[0].field == ():
        return ones(axes)  # tokens come without channels: what was no axis of space becomes one
    if "EinsumDense" in kinds:
        left, right = operation.equation.split("->")
        space = set(left.split(",")[0][1:-1])
        return _merge(call, grids) if space <= set(right) else _merge(call, grids)._replace(field=None)
    if any(kind.startswith(("ZeroPadding", "Cropping")) or kind == "Pad" for kind in kinds):
        return grids[0]
    if any(kind.startswith("UpSampling") for kind in kinds):
        seen = _RESAMPLED[getattr(operation, "interpolation", "nearest")]
        return grids[0].finer([seen] * axes, per_axis("size", operation.size, axes))
    size = getattr(operation, "kernel_size", None) or getattr(operation, "pool_size", None)
    if size is None or not hasattr(operation, "strides"):
        return UNKNOWN if kinds & _LOST else _merge(call, grids)
    size = per_axis("kernel", size, axes)
    strides = per_axis("stride", operation.strides or size, axes)
    dilation = per_axis("dilation", getattr(operation, "dilation_rate", 1), axes)
    if "BaseConvTranspose" in kinds:
        # Of the window's cells, one in `stride` falls on a cell of the input.
        span = [-(-(d * (k - 1) + 1) // s) for k, s, d in zip(size, strides, dilation, strict=True)]
        return grids[0].finer(span, strides)
    return grids[0].window(size, strides, dilation)


def _merge(call: _Call, grids: Sequence[Grid]) -> Grid:
    """The grid of an operation that works cell by cell."""
    space, spaces = call.space(call.output), [call.space(shape) for shape in call.inputs]
    if space not in spaces or not all(_broadcasts(shape, space) for shape in spaces):
        return UNKNOWN
    fields = [grid.field for grid in grids]
    strides = [grid.stride for grid in grids if grid.stride is not None and len(grid.stride) == len(space)]
    known = [field for field in fields if field is not None and len(field) == len(space)]
    return Grid(
        tuple(map(max, zip(*known, strict=True))) if len(known) == len(fields) else None,
        tuple(map(max, zip(*strides, strict=True))) if strides else None,
    )


def _multiply_adds(call: _Call) -> int | None:
    operation = call.operation
    declared = getattr(operation, "multiply_adds", None)
    if callable(declared):
        return declared([(None, *shape) for shape in call.inputs])
    for kind in _kinds(operation):
        if kind in _COUNTS:
            return _COUNTS[kind](call)
    weights = [tuple(weight.shape) for weight in getattr(operation, "weights", ())]
    return 0 if all(len(shape) < 2 or _by_example(call, shape) for shape in weights) else None


def _by_example(call: _Call, shape: Shape) -> bool:
    """Tell whether a weight has a batch axis of 1 and meets the cells of an example one by one."""
    return shape[0] == 1 and any(_broadcasts(shape[1:], example) for example in (*call.inputs, call.output))


def _broadcasts(shape: Shape, to: Shape) -> bool:
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(size in (1, target) for size, target in pairs)


def _convolution(call: _Call) -> int | None:
    layer, channels = call.operation, call.channels(call.inputs[0])
    return _product(*call.space(call.output), *layer.kernel_size, channels, layer.filters, over=layer.groups)


def _transposed(call: _Call) -> int | None:
    return _product(*call.inputs[0], *call.operation.kernel_size, call.operation.filters)


def _depthwise(call: _Call) -> int | None:
    return _product(*call.output, *call.operation.kernel_size)


def _separable(call: _Call) -> int | None:
    layer, space = call.operation, call.space(call.output)
    between = _product(call.channels(call.inputs[0]), layer.depth_multiplier)
    return sum_or_none([_product(*space, *layer.kernel_size, between), _product(*space, between, layer.filters)])


def _dense(call: _Call) -> int | None:
    return _product(*call.inputs[0], call.operation.units)


def _einsum_dense(call: _Call) -> int | None:
    left, right = call.operation.equation.split("->")  # every axis of the kernel is one of the input or the output
    return _contraction([left.split(",")[0], right], [(1, *call.inputs[0]), (1, *call.output)])


def _einsum(call: _Call) -> int | None:
    terms = call.operation.subscripts.replace(" ", "").split("->")[0].split(",")
    operands = call.node.arguments.args
    if len(terms) > 2:
        return None  # it depends on the order of the products
    return _contraction(terms, [_without_batch(operand.shape) for operand in operands])


def _contraction(terms: Sequence[str], shapes: Sequence[Shape]) -> int | None:
    """One multiply-add for each combination of the indices; an ellipsis stands for what is left."""
    sizes: dict[str, int | None] = {}
    for term, shape in zip(terms, shapes, strict=True):
        before, dots, after = term.partition("...")
        left = len(shape) - len(before) - len(after)
        letters = [*before, *(f"...{left - place}" for place in range(left) if dots), *after]
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = size if sizes.get(letter, 1) == 1 else sizes[letter]
    return _product(*sizes.values())


def _matmul(call: _Call) -> int | None:
    return _product(*call.output, call.node.arguments.args[0].shape[-1])


def _attention(call: _Call) -> int | None:
    query, value = call.inputs[:2]
    return _product(*query[:-1], value[-2], sum_or_none([query[-1], value[-1]]))


def _multi_head_attention(call: _Call) -> int | None:
    layer, given = call.operation, call.named("query", "value", "key")
    query, value = _shape(given["query"]), _shape(given["value"])
    key = value if given.get("key") is None else _shape(given["key"])
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


def _grouped_query_attention(call: _Call) -> int | None:
    layer, given = call.operation, call.named("query", "value", "key")
    query, value = _shape(given["query"]), _shape(given["value"])
    key = value if given.get("key") is None else _shape(given["key"])
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


def _reversible(call: _Call) -> int | None:
    back = call.named("inputs", "reverse").get("reverse")  # from features to a score for each token: a dense layer
    return _product(*call.inputs[0], call.operation.input_dim) if back else 0


def _nothing(call: _Call) -> int | None:
    return 0


def _unknown(call: _Call) -> int | None:
    return None


_COUNTS: dict[str, Callable[[_Call], int | None]] = {  # by class, also of Keras' own bases
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
    """Size 1 for a batch that is not fixed."""
    return (1 if shape[0] is None else shape[0], *shape[1:])


def _product(*sizes: int | None, over: int = 1) -> int | None:
    return None if None in sizes else math.prod(size for size in sizes if size is not None) // over
