"""Layers as numbers: what a convolution, pooling or dense layer does to a shape, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

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


class Grid(NamedTuple):
    """How output cells lie over the input; fractions, since a transposed convolution divides the stride."""

    field: tuple[Fraction, ...] | None
    stride: tuple[Fraction, ...] | None

    def window(self, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Grid:
        """Return the grid after a convolution or pooling."""
        return self._spread([d * (k - 1) for k, d in zip(kernel, dilation, strict=True)])._scale(stride)

    def finer(self, span: Sequence[int], factor: Sequence[int]) -> Grid:
        """Return a grid `factor` times as fine, whose cells each see `span` of the coarser ones."""
        return self._spread([k - 1 for k in span])._scale([Fraction(1, f) for f in factor])

    def _spread(self, steps: Sequence[int]) -> Grid:
        if self.field is None or self.stride is None or len(self.field) != len(steps):
            return self._replace(field=None)
        return self._replace(field=tuple(f + n * s for f, n, s in zip(self.field, steps, self.stride, strict=True)))

    def _scale(self, factors: Sequence[int | Fraction]) -> Grid:
        if self.stride is None or len(self.stride) != len(factors):
            return self._replace(stride=None)
        return self._replace(stride=tuple(s * f for s, f in zip(self.stride, factors, strict=True)))

    def whole(self) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        """Return field and stride as integers, rounded up."""
        return (
            None if self.field is None else tuple(map(math.ceil, self.field)),
            None if self.stride is None else tuple(map(math.ceil, self.stride)),
        )


UNKNOWN = Grid(None, None)


def ones(axes: int) -> Grid:
    """Return the grid of an input, whose cells see themselves alone."""
    return Grid((Fraction(1),) * axes, (Fraction(1),) * axes)


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
    """Compute (field, stride) after each layer along one axis.

    Args:
        layers: (kernel, stride) or (kernel, stride, dilation) of each layer.

    Raises:
        InvalidInput: a layer is not two or three integers of at least 1.

    >>> receptive_field([(3, 1), (3, 1), (3, 1)])
    [(3, 1), (5, 1), (7, 1)]
    >>> receptive_field([(7, 2), (3, 2), (3, 1, 2)])
    [(7, 2), (11, 4), (27, 4)]
    """
    grid, fields = ones(1), []
    for layer in layers:
        if len(layer) not in (2, 3):
            raise InvalidInput(f"the layer {layer!r}; it is (kernel, stride) or (kernel, stride, dilation)")
        for name, value in zip(("kernel", "stride", "dilation"), layer, strict=False):
            _at_least(1, name, value)
        kernel, stride, dilation = (*layer, 1)[:3]
        grid = grid.window([kernel], [stride], [dilation])
        field, step = grid.whole()
        fields.append((field[0], step[0]))  # type: ignore[index]
    return fields


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
    grid, rows = ones(len(shape) - 1), []
    for place, layer in enumerate(layers, 1):
        kind = type(layer).__name__
        name = f"{kind.lower()}{place}"
        try:
            shape, parameters, multiply_adds, grid = _step(shape, layer, grid)
        except InvalidInput as error:
            raise InvalidInput(f"{name}: {error}") from None
        rows.append(Row(name, kind, shape, parameters, multiply_adds, *grid.whole()))
    return rows


def totals(rows: Iterable[Row]) -> Totals:
    """Sum parameters and multiply-adds.

    >>> totals(trace((224, 224, 3), [Conv(64, 7, 2, 3), Norm()]))
    Totals(parameters=9728, multiply_adds=118013952)
    """
    rows = list(rows)
    return Totals(sum(row.parameters for row in rows), sum_or_none(row.multiply_adds for row in rows))


def fully_connected(input_shape: Sequence[int], units: int) -> int:
    """Count the weights, without biases, of a dense layer on the flattened input: what a convolution saves.

    >>> fully_connected((224, 224, 3), 1000)
    150528000
    """
    return math.prod(input_shape) * units


def _step(shape: tuple[int, ...], layer: Layer, grid: Grid) -> tuple[tuple[int, ...], int, int, Grid]:
    """Return shape, parameters, multiply-adds and grid after one layer."""
    *space, channels = shape
    match layer:
        case Conv() | Pool():
            return _window_step(shape, layer, grid)
        case GlobalPool():
            return (channels,), 0, 0, UNKNOWN
        case Flatten():
            return (math.prod(shape),), 0, 0, UNKNOWN
        case Dense():
            _at_least(1, "units", layer.units)
            parameters = (channels + layer.use_bias) * layer.units
            return (*space, layer.units), parameters, math.prod(shape) * layer.units, grid
        case Norm():
            return shape, 4 * channels, 0, grid
        case _:
            raise InvalidInput(f"{layer!r}; a layer is a Conv, Pool, GlobalPool, Flatten, Dense or Norm")


def _window_step(shape: tuple[int, ...], layer: Conv | Pool, grid: Grid) -> tuple[tuple[int, ...], int, int, Grid]:
    """Return shape, parameters, multiply-adds and grid after a convolution or pooling."""
    *space, channels = shape
    axes = len(space)
    if not space:
        raise InvalidInput(f"an input of shape {shape}; it must be (*space, channels) with an axis of space")
    kernel = per_axis("kernel", layer.kernel, axes)
    stride = kernel if layer.stride is None else per_axis("stride", layer.stride, axes)
    dilation = per_axis("dilation", layer.dilation, axes) if isinstance(layer, Conv) else (1,) * axes
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


def sum_or_none(numbers: Iterable[int | None]) -> int | None:
    """Sum numbers; None where one is not known."""
    numbers = list(numbers)
    return None if None in numbers else sum(number for number in numbers if number is not None)


def per_axis(name: str, value: Sizes | list[int], axes: int) -> tuple[int, ...]:
    """Return a size for each axis, from one for all or one for each; an error calls it `name`."""
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * axes
    if len(values) != axes or any(not isinstance(size, int) or size < 1 for size in values):
        raise InvalidInput(f"{name} {value!r}; it is an integer or {axes} integers, each at least 1")
    return values


def _at_least(least: int, name: str, value: object) -> None:
    if not isinstance(value, int) or value < least:
        raise InvalidInput(f"{name} is {value!r}; it must be an integer of at least {least}")
