"""Output sizes, receptive fields, parameters and multiply-adds: of a list of layers, or of a Keras model.

A multiply-add is one multiplication with its addition, for one example. As in the papers, only the products of
convolutions, of dense layers and of attention count; biases, normalization, activations, pooling and sums are 0, and a
cell of padding counts like any other.

The receptive field is how many cells of the input one output cell depends on, along one axis; the stride is how many
input cells lie between two neighbouring output cells (Araujo et al. 2019, https://distill.pub/2019/computing-receptive-fields).
Neither is cut at the border: a field may exceed the input. What a normalization takes from other cells does not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from tlkit.errors import InvalidInput

Sizes = int | tuple[int, ...]
Shape = tuple[int | None, ...]


class Conv(NamedTuple):
    """A convolution; `groups` = channels makes it depthwise. A size is for every axis, or a tuple with one per axis."""

    filters: int
    kernel: Sizes
    stride: Sizes = 1
    padding: str | Sizes = "valid"  # "valid", "same", or cells on both sides
    groups: int = 1
    dilation: Sizes = 1
    use_bias: bool = True


class Pool(NamedTuple):
    """Maximum or average pooling."""

    kernel: Sizes
    stride: Sizes | None = None  # the kernel's size
    padding: str | Sizes = "valid"


class GlobalPool(NamedTuple):
    """Maximum or average over the whole space."""


class Flatten(NamedTuple):
    """All cells and channels as one vector."""


class Dense(NamedTuple):
    """A matrix product along the channels: on a feature map, a convolution of size 1."""

    units: int
    use_bias: bool = True


class Norm(NamedTuple):
    """Batch normalization: four parameters for each channel, two of them trainable."""


Layer = Conv | Pool | GlobalPool | Flatten | Dense | Norm


class Row(NamedTuple):
    """One layer where it is called.

    Args:
        name: Its name; in a nested model `outer/inner`.
        kind: Its class.
        shape: Of its (first) output, without the batch; None where it is not fixed.
        parameters: Trainable or not; 0 where an earlier row has counted them.
        multiply_adds: For one example; None where they depend on a size that is not fixed or are not known.
        field: Receptive field along each spatial axis of the input; None where it is the whole input by construction
            (flattened, pooled globally, attended to) or not known.
        stride: Along each spatial axis, 1 where the grid is finer than the input's; None where there is no such grid.
    """

    name: str
    kind: str
    shape: Shape
    parameters: int
    multiply_adds: int | None
    field: tuple[int, ...] | None
    stride: tuple[int, ...] | None


class Totals(NamedTuple):
    """Sums over rows; multiply-adds are None where a row's are."""

    parameters: int
    multiply_adds: int | None


class _Grid(NamedTuple):
    """How output cells lie over the input; fractions, since a transposed convolution divides the stride."""

    field: tuple[Fraction, ...] | None
    stride: tuple[Fraction, ...] | None

    def window(self, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> _Grid:
        return self._spread([d * (k - 1) for k, d in zip(kernel, dilation, strict=True)])._scale(stride)

    def finer(self, span: Sequence[int], factor: Sequence[int]) -> _Grid:
        """A grid `factor` times as fine, each of whose cells sees `span` of the coarser."""
        return self._spread([k - 1 for k in span])._scale([Fraction(1, f) for f in factor])

    def _spread(self, steps: Sequence[int]) -> _Grid:
        if self.field is None or self.stride is None or len(self.field) != len(steps):
            return self._replace(field=None)
        return self._replace(field=tuple(f + n * s for f, n, s in zip(self.field, steps, self.stride, strict=True)))

    def _scale(self, factors: Sequence[int | Fraction]) -> _Grid:
        if self.stride is None or len(self.stride) != len(factors):
            return self._replace(stride=None)
        return self._replace(stride=tuple(s * f for s, f in zip(self.stride, factors, strict=True)))

    def whole(self) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        """Field and stride in integers, rounded up."""
        return (
            None if self.field is None else tuple(map(math.ceil, self.field)),
            None if self.stride is None else tuple(map(math.ceil, self.stride)),
        )


_UNKNOWN = _Grid(None, None)


def _ones(axes: int) -> _Grid:
    return _Grid((Fraction(1),) * axes, (Fraction(1),) * axes)


def output_size(size: int, kernel: int, stride: int = 1, padding: int | str = 0, dilation: int = 1) -> int:
    """Count the output cells of a convolution or pooling along one axis.

    floor((size + 2 * padding - span) / stride) + 1 with span = dilation * (kernel - 1) + 1; for Keras' "same" it is
    ceil(size / stride).

    Args:
        size: Input cells.
        kernel: Cells of the window.
        stride: Input cells from one window to the next.
        padding: Cells added on both sides; "valid" is 0; "same" adds as many as it takes.
        dilation: Input cells from one cell of the window to the next.

    Raises:
        InvalidInput: a number is out of range, or the window does not fit the padded input.

    >>> output_size(224, 7, stride=2, padding=3), output_size(224, 3, 2, "same"), output_size(10, 3, dilation=2)
    (112, 112, 6)
    """
    for name, value in (("size", size), ("kernel", kernel), ("stride", stride), ("dilation", dilation)):
        _at_least(1, name, value)
    if padding == "same":
        return -(-size // stride)
    cells = 0 if padding == "valid" else padding
    if not isinstance(cells, int) or cells < 0:
        raise InvalidInput(f"padding {padding!r}; it is 'valid', 'same' or an integer of at least 0")
    span, padded = dilation * (kernel - 1) + 1, size + 2 * cells
    if span > padded:
        raise InvalidInput(
            f"a window that spans {span} cells on {size} cells with padding {padding!r}; it must span at most {padded}"
        )
    return (padded - span) // stride + 1


def receptive_field(layers: Iterable[Sequence[int]]) -> list[tuple[int, int]]:
    """Give (field, stride) after each layer along one axis.

    Args:
        layers: (kernel, stride) or (kernel, stride, dilation) of each.

    Raises:
        InvalidInput: a layer is not two or three integers of at least 1.

    >>> receptive_field([(3, 1), (3, 1), (3, 1)])
    [(3, 1), (5, 1), (7, 1)]
    >>> receptive_field([(7, 2), (3, 2), (3, 1, 2)])
    [(7, 2), (11, 4), (27, 4)]
    """
    grid, found = _ones(1), []
    for layer in layers:
        if len(layer) not in (2, 3):
            raise InvalidInput(f"the layer {layer!r}; it is (kernel, stride) or (kernel, stride, dilation)")
        for name, value in zip(("kernel", "stride", "dilation"), layer, strict=False):
            _at_least(1, name, value)
        kernel, stride, dilation = (*layer, 1)[:3]
        grid = grid.window([kernel], [stride], [dilation])
        field, step = grid.whole()
        found.append((field[0], step[0]))  # type: ignore[index]
    return found


def trace(input_shape: Sequence[int], layers: Sequence[Layer]) -> list[Row]:
    """Follow a shape through a list of layers, on any number of spatial axes.

    Args:
        input_shape: (*space, channels).
        layers: In order; row i is named after its class and place, `conv1`, `pool2`, ...

    Raises:
        InvalidInput: a layer does not fit what comes in; the message names it.

    >>> for row in trace((8, 8, 3), [Conv(4, 3), Pool(2), Flatten(), Dense(10)]):
    ...     print(row.name, row.shape, row.parameters, row.multiply_adds, row.field, row.stride)
    conv1 (6, 6, 4) 112 3888 (3, 3) (1, 1)
    pool2 (3, 3, 4) 0 0 (4, 4) (2, 2)
    flatten3 (36,) 0 0 None None
    dense4 (10,) 370 360 None None
    """
    shape = tuple(input_shape)
    if not shape:
        raise InvalidInput("an input of shape (); it is (*space, channels)")
    for size in shape:
        _at_least(1, f"a size in the input shape {shape}", size)
    grid, rows = _ones(len(shape) - 1), []
    for place, layer in enumerate(layers, 1):
        kind = type(layer).__name__
        name = f"{kind.lower()}{place}"
        try:
            shape, parameters, multiply_adds, grid = _step(shape, layer, grid)
        except InvalidInput as error:
            raise InvalidInput(f"{name}: {error}") from None
        rows.append(Row(name, kind, shape, parameters, multiply_adds, *grid.whole()))
    return rows


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
    _walk(model, [_ones(max(len(tensor.shape) - 2, 0)) for tensor in model.inputs], "", set(), rows)
    return rows


def totals(rows: Iterable[Row]) -> Totals:
    """Sum parameters and multiply-adds.

    >>> totals(trace((224, 224, 3), [Conv(64, 7, 2, 3), Norm()]))
    Totals(parameters=9728, multiply_adds=118013952)
    """
    rows = list(rows)
    return Totals(sum(row.parameters for row in rows), _sum(row.multiply_adds for row in rows))


def fully_connected(input_shape: Sequence[int], units: int) -> int:
    """Count the weights, without biases, of a dense layer on the flattened input: what a convolution saves.

    >>> fully_connected((224, 224, 3), 1000)
    150528000
    """
    return math.prod(input_shape) * units


def _step(shape: tuple[int, ...], layer: Layer, grid: _Grid) -> tuple[tuple[int, ...], int, int, _Grid]:
    """Shape, parameters, multiply-adds and grid after one layer."""
    *space, channels = shape
    axes = len(space)
    match layer:
        case Conv() | Pool():
            if not space:
                raise InvalidInput(f"an input of shape {shape}; it must be (*space, channels) with an axis of space")
            kernel = _per_axis("kernel", layer.kernel, axes)
            stride = kernel if layer.stride is None else _per_axis("stride", layer.stride, axes)
            dilation = _per_axis("dilation", layer.dilation, axes) if isinstance(layer, Conv) else (1,) * axes
            padding = layer.padding if isinstance(layer.padding, tuple) else (layer.padding,) * axes
            if len(padding) != axes:
                raise InvalidInput(f"padding {padding!r}; it is 'valid', 'same', an integer or {axes} integers")
            sizes = tuple(map(output_size, space, kernel, stride, padding, dilation))
            grid = grid.window(kernel, stride, dilation)
            if isinstance(layer, Pool):
                return (*sizes, channels), 0, 0, grid
            _at_least(1, "filters", layer.filters)
            _at_least(1, "groups", layer.groups)
            if channels % layer.groups or layer.filters % layer.groups:
                raise InvalidInput(
                    f"{layer.groups} groups of {channels} channels and {layer.filters} filters; groups must divide both"
                )
            weights = math.prod(kernel) * (channels // layer.groups) * layer.filters
            parameters = weights + layer.use_bias * layer.filters
            return (*sizes, layer.filters), parameters, math.prod(sizes) * weights, grid
        case GlobalPool():
            return (channels,), 0, 0, _UNKNOWN
        case Flatten():
            return (math.prod(shape),), 0, 0, _UNKNOWN
        case Dense():
            _at_least(1, "units", layer.units)
            parameters = (channels + layer.use_bias) * layer.units
            return (*space, layer.units), parameters, math.prod(shape) * layer.units, grid
        case Norm():
            return shape, 4 * channels, 0, grid
        case _:
            raise InvalidInput(f"{layer!r}; a layer is a Conv, Pool, GlobalPool, Flatten, Dense or Norm")


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


def _walk(model: Any, grids: Sequence[_Grid], prefix: str, counted: set[int], rows: list[Row]) -> list[_Grid]:
    """Add the rows of a model whose inputs lie on `grids`; return the grids of its outputs."""
    known = {id(tensor): grid for tensor, grid in zip(model.inputs, grids, strict=True)}
    nodes = list(_nodes(model))
    first = any(getattr(node.operation, "data_format", None) == "channels_first" for node in nodes)
    for node in nodes:
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


def _nodes(model: Any) -> Iterator[Any]:
    """The calls between a model's inputs and outputs, each after those it needs; no recursion, for deep models."""
    placed: set[int] = set()
    given = {id(tensor) for tensor in model.inputs}
    stack = [_node(tensor) for tensor in reversed(model.outputs) if id(tensor) not in given]
    while stack:
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


def _grid(call: _Call, grids: Sequence[_Grid]) -> _Grid:
    operation, kinds = call.operation, set(_kinds(call.operation))
    axes = len(call.space(call.output))
    if kinds & _WHOLE:
        return _merge(call, grids)._replace(field=None)
    if "Embedding" in kinds and grids[0].field == ():
        return _ones(axes)  # tokens come without channels: what was no axis of space becomes one
    if "EinsumDense" in kinds:
        left, right = operation.equation.split("->")
        space = set(left.split(",")[0][1:-1])
        return _merge(call, grids) if space <= set(right) else _merge(call, grids)._replace(field=None)
    if any(kind.startswith(("ZeroPadding", "Cropping")) or kind == "Pad" for kind in kinds):
        return grids[0]
    if any(kind.startswith("UpSampling") for kind in kinds):
        seen = _RESAMPLED[getattr(operation, "interpolation", "nearest")]
        return grids[0].finer([seen] * axes, _per_axis("size", operation.size, axes))
    size = getattr(operation, "kernel_size", None) or getattr(operation, "pool_size", None)
    if size is None or not hasattr(operation, "strides"):
        return _UNKNOWN if kinds & _LOST else _merge(call, grids)
    size = _per_axis("kernel", size, axes)
    strides = _per_axis("stride", operation.strides or size, axes)
    dilation = _per_axis("dilation", getattr(operation, "dilation_rate", 1), axes)
    if "BaseConvTranspose" in kinds:
        # Of the window's cells, one in `stride` falls on a cell of the input.
        span = [-(-(d * (k - 1) + 1) // s) for k, s, d in zip(size, strides, dilation, strict=True)]
        return grids[0].finer(span, strides)
    return grids[0].window(size, strides, dilation)


def _merge(call: _Call, grids: Sequence[_Grid]) -> _Grid:
    """The grid of an operation that works cell by cell."""
    space, spaces = call.space(call.output), [call.space(shape) for shape in call.inputs]
    if space not in spaces or not all(_broadcasts(shape, space) for shape in spaces):
        return _UNKNOWN
    fields = [grid.field for grid in grids]
    strides = [grid.stride for grid in grids if grid.stride is not None and len(grid.stride) == len(space)]
    known = [field for field in fields if field is not None and len(field) == len(space)]
    return _Grid(
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
    return _sum([_product(*space, *layer.kernel_size, between), _product(*space, between, layer.filters)])


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
    return _product(*query[:-1], value[-2], _sum([query[-1], value[-1]]))


def _multi_head_attention(call: _Call) -> int | None:
    layer, given = call.operation, call.named("query", "value", "key")
    query, value = _shape(given["query"]), _shape(given["value"])
    key = value if given.get("key") is None else _shape(given["key"])
    heads, depth, width = layer.num_heads, layer.key_dim, layer.value_dim
    attended = [value[axis - 1] for axis in layer.attention_axes]
    gate = _product(*query, heads, width) if getattr(layer, "_use_gate", False) else 0
    return _sum(
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
    return _sum(
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


def _sum(numbers: Iterable[int | None]) -> int | None:
    numbers = list(numbers)
    return None if None in numbers else sum(number for number in numbers if number is not None)


def _per_axis(name: str, value: Any, axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * axes
    if len(values) != axes or any(not isinstance(size, int) or size < 1 for size in values):
        raise InvalidInput(f"{name} {value!r}; it is an integer or {axes} integers, each at least 1")
    return values


def _at_least(least: int, name: str, value: Any) -> None:
    if not isinstance(value, int) or value < least:
        raise InvalidInput(f"{name} is {value!r}; it must be an integer of at least {least}")
