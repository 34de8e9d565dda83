"""Feature maps and effective receptive fields of a network's stages, on any of Keras' backends."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tlkit import arithmetic
from tlkit.explanation import gradient
from tlkit.layers import FRONT, is_stage


class Stage(NamedTuple):
    """The end of a stage.

    Args:
        name: Name of the stage, such as `stage1`.
        layer: Name of its last layer, as `arithmetic.describe` gives it.
        grid: Cells along each spatial axis; for tokens, those of the patches.
        tokens: 0 for a feature map, else the number of tokens: of the patches and the class token.
        field: Receptive field along each axis in cells of the input; None where it is the whole input.
    """

    name: str
    layer: str
    grid: tuple[int, ...]
    tokens: int
    field: tuple[int, ...] | None


def stages(model: keras.Model, ends: Mapping[str, str] | None = None) -> list[Stage]:
    """Find the layers that end a network's stages, first to last.

    It looks at the layers of the model, or of the model that is its first layer, such as the backbone of a classifier.

    Args:
        model: A functional or Sequential model with one input.
        ends: Name of each stage and of the layer that ends it, such as `tlkit.backbones.row(name).stages`. By default
            the layers called `stem`, `stage1`, `stage2` ..., or, where there are none, the last of each size of map.

    >>> x = y = keras.Input((8, 8, 1))
    >>> for number in (1, 2):
    ...     y = keras.layers.Conv2D(4, 3, strides=2, name=f"stage{number}")(y)
    >>> [(stage.name, stage.grid, stage.field) for stage in stages(keras.Model(x, y))]
    [('stage1', (3, 3), (3, 3)), ('stage2', (1, 1), (7, 7))]
    """
    inner, prefix = _core(model)
    axes = len(inner.inputs[0].shape) - 2
    rows = {row.name: row for row in arithmetic.describe(inner) if "/" not in row.name}
    if not ends:
        ends = {name: name for name in rows if is_stage(name)} or _by_size(rows, axes)
    result = []
    for index, (name, row) in enumerate(rows.items()):
        for stage in [stage for stage, end in ends.items() if end == name]:
            layout = _layout(row, list(rows.values())[:index], axes)
            if layout:
                result.append(Stage(stage, prefix + name, *layout, row.field))
    return result


def feature_maps(model: keras.Model, ends: Sequence[Stage], x: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the outputs of stages for one input.

    Args:
        model: The model.
        ends: Its stages, as `stages` finds them.
        x: (*space, channels), as the model takes it.

    Shapes:
        returns: for each stage (*grid, channels)
    """
    outputs = _probe(model, ends)(x[None])
    maps = {}
    for stage, output in zip(ends, outputs, strict=True):
        values = keras.ops.convert_to_numpy(output)[0]
        if stage.tokens:
            values = values[stage.tokens - math.prod(stage.grid) :]
        maps[stage.name] = values.reshape(*stage.grid, values.shape[-1]).astype(np.float32)
    return maps


def effective_fields(model: keras.Model, ends: Sequence[Stage], xs: np.ndarray) -> dict[str, np.ndarray]:
    """Measure how much each input cell weighs in the center of each stage's output (Luo et al. 2016, arXiv:1701.04128).

    It is the absolute gradient of the center, summed over its channels, by the input, summed over the input's channels;
    the mean over all examples.

    Args:
        model: The model.
        ends: Its stages, as `stages` finds them.
        xs: Examples as the model takes them, (count, *space, channels); the paper takes random ones.

    Shapes:
        returns: for each stage (*space), not below 0

    Raises:
        InvalidInput: the backend computes no gradients.
    """
    fields = {}
    for stage in ends:
        center = tuple(size // 2 for size in stage.grid)
        if stage.tokens:
            center = (stage.tokens - math.prod(stage.grid) + int(np.ravel_multi_index(center, stage.grid)),)
        slope = gradient(_value_at(_probe(model, [stage]), center))
        weights = [np.abs(slope(x[None].astype(np.float32))[0]).sum(axis=-1) for x in xs]
        fields[stage.name] = np.mean(weights, axis=0)
    return fields


def effective_size(field: np.ndarray) -> float:
    """Return the side of a square (cube, interval) with as many cells as weigh more than 4.55 % of the heaviest.

    The threshold is that of Luo et al. 2016, section 3; it is 2 standard deviations of a Gaussian.

    >>> effective_size(np.array([[0, 1, 0], [1, 5, 1], [0, 0.1, 0]]))
    2.0
    """
    return float(np.count_nonzero(field > (1 - 0.9545) * field.max()) ** (1 / field.ndim))


def first_kernel(model: keras.Model) -> np.ndarray | None:
    """Return the kernel of the first convolution, if any, with its input channels in the order red, green, blue.

    Shapes:
        returns: (*window, channels, filters)

    >>> inputs = keras.Input((8, 8, 3))
    >>> first_kernel(keras.Model(inputs, keras.layers.Conv2D(4, 5)(inputs))).shape
    (5, 5, 3, 4)
    """
    inner, _ = _core(model)
    reversed_channels = False
    operations = _operations(inner)
    for row in arithmetic.describe(inner):
        # Preprocessing may swap red and blue.
        reversed_channels ^= row.kind == "Flip" or row.name.rpartition("/")[2] == "bgr"
        layer = operations.get(row.name)
        if layer is not None and hasattr(layer, "kernel_size") and hasattr(layer, "kernel"):
            kernel = keras.ops.convert_to_numpy(layer.kernel).astype(np.float32)
            return kernel[..., ::-1, :] if reversed_channels else kernel
    return None


def _core(model: keras.Model) -> tuple[keras.Model, str]:
    """Return the innermost model that takes the model's own input, and its layers' prefix in `arithmetic.describe`."""
    prefix = ""
    while True:
        if any(is_stage(layer.name) for layer in model.layers):
            return model, prefix
        first = next((layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)), None)
        if not isinstance(first, keras.Model) or not first.inputs or first.input_shape != model.input_shape:
            return model, prefix
        model, prefix = first, f"{prefix}{first.name}/"


def _operations(model: keras.Model) -> dict[str, keras.Operation]:
    return {operation.name: operation for operation in getattr(model, "operations", model.layers)}


def _probe(model: keras.Model, ends: Sequence[Stage]) -> Callable[[Any], list[Any]]:
    """Make the function from a batch to the outputs of the stages."""
    inner, prefix = _core(model)
    operations = _operations(inner)
    probe = keras.Model(inner.inputs[0], [operations[stage.layer.removeprefix(prefix)].output for stage in ends])
    return lambda x: keras.tree.flatten(probe(x, training=False))


def _value_at(probe: Callable[[Any], list[Any]], cell: tuple[int, ...]) -> Callable[[Any], Any]:
    return lambda x: keras.ops.sum(probe(x)[0][(0, *cell)])


def _by_size(rows: Mapping[str, arithmetic.Row], axes: int) -> dict[str, str]:
    """Find the last layer of each size of map, named after the size."""
    sizes = {}
    for row in rows.values():
        space = row.shape[:-1]
        if len(space) == axes and any(size != 1 for size in space) and not row.kind.startswith("ZeroPadding"):
            sizes[" × ".join(map(str, space))] = row.name
    return sizes


def _layout(row: arithmetic.Row, before: Sequence[arithmetic.Row], axes: int) -> tuple[tuple[int, ...], int] | None:
    """Return grid and tokens of an output; None where it is neither a map nor tokens."""
    space = row.shape[:-1]
    with_class = any(earlier.kind == "ClassToken" for earlier in before)
    if len(space) == axes and not (axes == 1 and with_class):
        return space, 0  # type: ignore[return-value]
    for earlier in reversed(before):
        grid = earlier.shape[:-1]
        if len(space) == 1 and len(grid) == axes and None not in (*space, *grid):
            cells = math.prod(grid)  # type: ignore[arg-type]
            if space[0] - cells in ((1,) if with_class else (0, 1)):  # type: ignore[operator]
                return grid, space[0]  # type: ignore[return-value]
    if len(space) == 1 and axes == 2 and space[0]:  # a layer made tokens of pixels: those of a square
        side = math.isqrt(space[0])
        if side > 1 and space[0] - side**2 <= FRONT:
            return (side, side), space[0]
    return None
