"""Pictures of a network's inside: matrices, filters, feature maps and receptive fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from tlkit.display import shown
from tlkit.plots.style import BLUE, GRAY, ORANGE, wrapped


def arrays(named: Mapping[str, np.ndarray]) -> Figure:
    """Draw small matrices side by side, each number in its cell, blue below 0 and red above.

    Args:
        named: Title and matrix of each, such as an input, a kernel and an output.
    """
    widths, heights = zip(*(matrix.shape[::-1] for matrix in named.values()), strict=True)
    figure = Figure(figsize=(0.45 * (sum(widths) + 1.2 * len(named)), 0.45 * max(heights) + 0.5), layout="constrained")
    row = figure.subplots(1, len(named), width_ratios=widths, squeeze=False)[0]
    for axes, (name, matrix) in zip(row, named.items(), strict=True):
        largest = max(float(np.abs(matrix).max()), 1e-9)
        axes.imshow(matrix / largest, cmap="RdBu_r", vmin=-1.6, vmax=1.6)  # pale, so that black is read on all of it
        for (y, x), number in np.ndenumerate(matrix):
            axes.text(x, y, f"{number:g}".replace("-", "−"), ha="center", va="center")
        axes.set_title(shown(name), fontsize=10, parse_math=False)
        axes.set_xticks(np.arange(matrix.shape[1] + 1) - 0.5, [])
        axes.set_yticks(np.arange(matrix.shape[0] + 1) - 0.5, [])
        axes.grid(color="white", lw=2)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def filters(kernel: np.ndarray, title: str = "", most: int = 64) -> Figure:
    """Draw the filters of a convolution, each scaled by its largest weight: gray is 0.

    Three channels are drawn as red, green and blue; of any other number, the first channel is drawn. Filters on one
    axis of space are curves; of those on three, the middle slice along the first axis is drawn.

    Args:
        kernel: Shape (*window, channels, filters).
        title: Title of the picture.
        most: Filters to draw.
    """
    *window, channels, count = kernel.shape
    drawn = min(count, most)
    columns = min(drawn, 8 if drawn <= 32 else 16)
    rows = -(-drawn // columns)
    figure = Figure(figsize=(max(0.5 * columns, 4.5) + 0.3, 0.5 * rows + 0.9), layout="constrained")
    axes = figure.subplots()
    if len(window) == 3:
        kernel = kernel[window[0] // 2]
    for number in range(drawn):
        left, top = number % columns, number // columns
        weights = kernel[..., number] / max(float(np.abs(kernel[..., number]).max()), 1e-9)
        if len(window) == 1:
            across = left + np.linspace(0.1, 0.9, window[0])
            axes.plot([left + 0.1, left + 0.9], [top + 0.5] * 2, color=GRAY, lw=0.5)
            for channel, color in zip(weights.T[:3], (BLUE, ORANGE, "black"), strict=False):
                axes.plot(across, top + 0.5 - 0.4 * channel, color=color, lw=1)
            continue
        colors = weights if channels == 3 else np.repeat(weights[..., :1], 3, axis=-1)
        axes.imshow(0.5 + 0.5 * colors, extent=(left + 0.05, left + 0.95, top + 0.95, top + 0.05))
    axes.set(xlim=(0, columns), ylim=(rows, 0), aspect="equal")
    axes.set_title(wrapped(title, figure), parse_math=False)
    size = " × ".join(map(str, (*window, channels)))
    scale = "each line is 0" if len(window) == 1 else "mid-gray is 0"
    slices = ", middle slices" if len(window) == 3 else ""
    shown = f"{drawn} of {count}" if drawn < count else str(count)
    axes.set_xlabel(f"{shown} filters of {size}{slices}; {scale}", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return figure


def feature_maps(image: np.ndarray, maps: Mapping[str, np.ndarray], title: str = "", most: int = 8) -> Figure:
    """Draw an input and, for each stage, the channels with the highest mean, the highest first.

    Args:
        image: The network's input, shape (*space, channels), from 0 to 1.
        maps: For each stage (*grid, channels).
        title: Title of the picture.
        most: Channels to draw for each stage.
    """
    columns = max(min(most, values.shape[-1]) for values in maps.values())
    figure = Figure(figsize=(1.1 * (columns + 2.6), 1.22 * max(len(maps), 2) + 0.5), layout="constrained")
    grid = figure.add_gridspec(max(len(maps), 2), columns + 1, width_ratios=[2, *[1] * columns])
    whole = figure.add_subplot(grid[:2, 0])
    _cells(whole, image if image.shape[-1] == 3 else image[..., 0], image.ndim - 1, cmap="gray", vmin=0, vmax=1)
    whole.set_title("input " + " × ".join(map(str, image.shape)), fontsize=9)
    if image.ndim > 2:
        scale = "each map: from its lowest\n(dark) to its highest value"
        below = whole.text(0.5, -0.04, scale, fontsize=8, ha="center", va="top", transform=whole.transAxes)
        below.set_in_layout(False)
    for row, (stage, values) in enumerate(maps.items()):
        means = values.reshape(-1, values.shape[-1]).mean(axis=0)
        for column, channel in enumerate(np.argsort(-means, kind="stable")[:columns]):
            axes = figure.add_subplot(grid[row, column + 1])
            _cells(axes, values[..., channel], values.ndim - 1, cmap="viridis")
            axes.set_title(f"channel {channel}", fontsize=7, pad=2)
            if column == 0:
                shape = " × ".join(map(str, values.shape))
                style: dict[str, Any] = {"fontsize": 8, "rotation": 0, "ha": "right", "va": "center", "labelpad": 6}
                axes.set_ylabel(f"{shown(stage)}\n{shape}", parse_math=False, **style)
    figure.suptitle(wrapped(title, figure), parse_math=False)
    return figure


def receptive_fields(
    effective: Mapping[str, np.ndarray],
    fields: Mapping[str, Sequence[int] | None],
    sizes: Mapping[str, float],
    title: str = "",
) -> Figure:
    """Draw how much each input cell weighs in the center of each stage, with its receptive field as a frame.

    On three axes of space, the middle slice along the first is drawn.

    Args:
        effective: For each stage the weights, (*space), not below 0; scaled by the largest.
        fields: For each stage the theoretical receptive field along each axis; None where it is the whole input.
        sizes: For each stage the side of its effective field.
        title: Title of the picture.
    """
    columns = min(len(effective), 5)
    rows = -(-len(effective) // columns)
    figure = Figure(figsize=(2.35 * columns + 0.8, 2.5 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[len(effective) :]:
        axes.remove()
    for axes, (stage, weights) in zip(panels.flat, effective.items(), strict=False):
        field, space = fields[stage], weights.shape
        frame = None if field is None else _frame(weights > 0, field)
        if len(space) == 3:
            weights, space, frame = weights[space[0] // 2], space[1:], frame and frame[1:]
        weights = weights / max(float(weights.max()), 1e-30)
        if len(space) == 1:
            _field_on_axis(axes, weights, frame)
        else:
            drawn = _field_in_plane(axes, weights, frame)
        size = "all" if field is None else " × ".join(map(str, dict.fromkeys(field)))
        size += " > input" if field is not None and frame is None else ""
        axes.set_title(f"{shown(stage)}\nfield {size}, effective {sizes[stage]:.0f}", fontsize=9, parse_math=False)
        axes.tick_params(labelsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=len(space) > 1))
    if len(space) > 1:
        bar = figure.colorbar(drawn, ax=list(panels.flat[: len(effective)]), shrink=0.75, aspect=18)
        bar.set_label("gradient / largest", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        bar.outline.set_visible(False)
    figure.suptitle(wrapped(title, figure), parse_math=False)
    return figure


def _field_on_axis(axes: Axes, weights: np.ndarray, frame: Sequence[tuple[int, int]] | None) -> None:
    """Draw the weights of cells on one axis of space, and a line at each end of the field."""
    length = len(weights)
    axes.fill_between(np.arange(length), weights, step="mid", color=BLUE, lw=0)
    axes.set(ylim=(0, 1.05), xlim=(-0.5, length - 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    if frame:
        start, end = frame[0]
        for edge in (start, end):
            axes.axvline(edge - 0.5, color=ORANGE, ls="--", lw=1.2)
        axes.set_xlim(max(start - (end - start), 0) - 0.5, min(2 * end - start, length) - 0.5)


def _field_in_plane(axes: Axes, weights: np.ndarray, frame: Sequence[tuple[int, int]] | None) -> AxesImage:
    """Draw the weights of cells on two axes of space, and a frame around the field."""
    image = axes.imshow(weights, cmap="viridis", vmin=0, vmax=1)
    if frame:
        (top, bottom), (left, right) = frame
        corner = (left - 0.5, top - 0.5)
        axes.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, ec="white", ls="--", lw=1.2))
        axes.set(xlim=(-0.5, weights.shape[1] - 0.5), ylim=(weights.shape[0] - 0.5, -0.5))
    return image


def _cells(axes: Axes, values: np.ndarray, rank: int, **colors: Any) -> None:
    """Draw a map without ticks: on one axis a curve, on three the middle slice along the first."""
    if rank == 1:
        axes.plot(values, color=BLUE, lw=1)
    else:
        axes.imshow(values[len(values) // 2] if rank == 3 else values, interpolation="nearest", **colors)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(rank == 1)


def _frame(seen: np.ndarray, field: Sequence[int]) -> list[tuple[int, int]] | None:
    """Give the first cell of a field and the one after its last, along each axis, around the cells that are seen.

    None where it goes beyond both borders of every axis.
    """
    frame, within = [], False
    for axis, (size, length) in enumerate(zip(field, seen.shape, strict=True)):
        others = tuple(other for other in range(seen.ndim) if other != axis)
        places = np.flatnonzero(seen.any(axis=others))
        first, last = (int(places[0]), int(places[-1])) if len(places) else (0, length - 1)
        if first > 0 and last < length - 1:
            start = (first + last + 1 - size) // 2
        else:
            start = last + 1 - size if first == 0 and last < length - 1 else first
        within |= first > 0 or last < length - 1 or size < length
        frame.append((start, start + size))
    return frame if within else None
