"""The receptive field and stride of an operation's output, from those of its inputs."""

from __future__ import annotations

from collections.abc import Sequence

from tlkit.arithmetic.graph import Call, broadcasts, kinds
from tlkit.arithmetic.layers import UNKNOWN, Grid, ones, per_axis

_WHOLE = {  # every output cell depends on every input cell
    *("Flatten", "BaseGlobalPooling", "RNN", "Bidirectional"),
    *("MultiHeadAttention", "GroupedQueryAttention", "Attention", "DotProductAttention", "Matmul", "Einsum", "Dot"),
}
_LOST = {  # cells move, or the operations inside are not known
    *("Permute", "Transpose", "Swapaxes", "Moveaxis", "Reshape", "Wrapper"),
    *("Conv", "DepthwiseConv", "SeparableConv", "ConvTranspose", "Tensordot", "Inner", "Outer", "Kron", "Vdot"),
}
_RESAMPLED = {"nearest": 1, "bilinear": 2, "bicubic": 4, "lanczos3": 6, "lanczos5": 10}  # cells that each new one sees


def grid_of(call: Call, grids: Sequence[Grid]) -> Grid:
    """Return the grid on which the cells of an operation's output lie."""
    operation, names = call.operation, set(kinds(call.operation))
    axes = len(call.space(call.output))
    if names & _WHOLE:
        return _merge(call, grids)._replace(field=None)
    if "Embedding" in names and grids[0].field == ():
        return ones(axes)  # tokens come without channels: what was no axis of space becomes one
    if "EinsumDense" in names:
        left, right = operation.equation.split("->")
        space = set(left.split(",")[0][1:-1])
        return _merge(call, grids) if space <= set(right) else _merge(call, grids)._replace(field=None)
    if any(kind.startswith(("ZeroPadding", "Cropping")) or kind == "Pad" for kind in names):
        return grids[0]
    if any(kind.startswith("UpSampling") for kind in names):
        cells = _RESAMPLED[getattr(operation, "interpolation", "nearest")]
        return grids[0].finer([cells] * axes, per_axis("size", operation.size, axes))
    size = getattr(operation, "kernel_size", None) or getattr(operation, "pool_size", None)
    if size is None or not hasattr(operation, "strides"):
        return UNKNOWN if names & _LOST else _merge(call, grids)
    size = per_axis("kernel", size, axes)
    strides = per_axis("stride", operation.strides or size, axes)
    dilation = per_axis("dilation", getattr(operation, "dilation_rate", 1), axes)
    if "BaseConvTranspose" in names:
        # One in `stride` of the window's cells falls on a cell of the input.
        span = [-(-(d * (k - 1) + 1) // s) for k, s, d in zip(size, strides, dilation, strict=True)]
        return grids[0].finer(span, strides)
    return grids[0].window(size, strides, dilation)


def _merge(call: Call, grids: Sequence[Grid]) -> Grid:
    """Return the grid of an operation that works cell by cell."""
    space, spaces = call.space(call.output), [call.space(shape) for shape in call.inputs]
    if space not in spaces or not all(broadcasts(shape, space) for shape in spaces):
        return UNKNOWN
    fields = [grid.field for grid in grids]
    strides = [grid.stride for grid in grids if grid.stride is not None and len(grid.stride) == len(space)]
    complete = [field for field in fields if field is not None and len(field) == len(space)]
    return Grid(
        tuple(map(max, zip(*complete, strict=True))) if len(complete) == len(fields) else None,
        tuple(map(max, zip(*strides, strict=True))) if strides else None,
    )
