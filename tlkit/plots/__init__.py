"""Pictures of runs and networks: figures are returned, never shown."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

from tlkit.display import shown

BLUE, ORANGE, GRAY = "#0072b2", "#d55e00", "0.45"  # told apart by colour-blind readers too (Okabe and Ito)
TRUSTED = 0.2  # R² below which a forest's importances say little
MOST_CLASSES = 30  # whose names and scores are read on one page
GAP = 0.065  # between two labels of an axis from 0 to 1


def save(figure: Figure, to: Any, **options: Any) -> None:
    """Save a figure whose names may be in a script that no font here has, without a warning for each letter.

    Args:
        figure: To save.
        to: A path or an open file.
        options: Of Matplotlib's `savefig`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing|Matplotlib currently does not support")
        figure.savefig(to, **options)


def learning_curves(epochs: Sequence[Mapping[str, Any]], best: int | None = None) -> Figure:
    """Draw loss and accuracy over the global epoch, the phases as bands and the best epoch as a line.

    Args:
        epochs: Keras' logs of each epoch, with `epoch` (from 1) and `phase`.
        best: The epoch whose weights were kept.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    steps = [entry["epoch"] for entry in epochs]
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(steps, [entry[name] for entry in epochs], color=BLUE, label="training", marker=".")
        axes.plot(steps, [entry[f"val_{name}"] for entry in epochs], color=ORANGE, label="validation", marker=".")
        for index, phase in enumerate(dict.fromkeys(entry["phase"] for entry in epochs)):
            inside = [entry["epoch"] for entry in epochs if entry["phase"] == phase]
            axes.axvspan(inside[0] - 0.5, inside[-1] + 0.5, color=GRAY, alpha=0.06 + 0.08 * (index % 2), lw=0)
            axes.text(np.mean([inside[0], inside[-1]]), 1.01, phase, ha="center", transform=axes.get_xaxis_transform())
        if best is not None:
            axes.axvline(best, color=GRAY, lw=1, ls=":", label=f"kept: epoch {best}")
        axes.set(xlabel="epoch", ylabel=name, xlim=(steps[0] - 0.5, steps[-1] + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # a solved head may be all there is
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


def regularization(tried: Sequence[Any], chosen: float) -> Figure:
    """Draw cross-validated loss and accuracy over the regularization, and the one that was chosen as a line.

    Args:
        tried: `tlkit.probes.Tried`: `l2`, `loss`, `loss_error` and `accuracy` of each.
        chosen: The `l2` that was chosen.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    tried = sorted(tried, key=lambda one: one.l2)
    strengths = [one.l2 for one in tried]
    loss, accuracy = figure.subplots(1, 2)
    errors = [one.loss_error for one in tried]
    loss.errorbar(strengths, [one.loss for one in tried], errors, color=BLUE, marker=".", capsize=2)
    accuracy.plot(strengths, [one.accuracy for one in tried], color=BLUE, marker=".")
    for axes, name in ((loss, "cross-validated loss ± standard error"), (accuracy, "cross-validated accuracy")):
        axes.axvline(chosen, color=GRAY, lw=1, ls=":", label=f"chosen: {chosen:.2g}")
        axes.set(xscale="log", xlabel="penalty (l2)", ylabel=name)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


def ranking(
    names: Sequence[str],
    scores: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    score: str = "accuracy, cross-validated",
) -> Figure:
    """Draw scores with their intervals, the first on top.

    Args:
        names: Of what was scored.
        scores: From 0 to 1.
        intervals: Lower and upper bound of each score.
        score: What it is.
    """
    figure = Figure(figsize=(7, 0.45 * len(names) + 1.1), layout="constrained")
    axes = figure.subplots()
    places = range(len(names))
    errors = np.abs(np.array(intervals).T - np.array(scores))
    axes.errorbar(scores, places, xerr=errors, fmt="o", color=BLUE, capsize=3)
    axes.axvspan(*intervals[0], color=GRAY, alpha=0.12, lw=0)
    axes.set_yticks(places, [shown(name) for name in names], parse_math=False)
    axes.set(xlabel=f"{score}, with 95 % interval", ylim=(len(names) - 0.5, -0.5))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def confusion_matrix(confusion: np.ndarray, classes: Sequence[str], title: str = "") -> Figure:
    """Draw how often each class (row) was taken for each other (column): counts, shaded by the share of the row.

    Where an example may have several labels, no label is taken for another: a row is then the matrix of one label, how
    many examples that have it were given it, or not, and how many that do not have it; shaded by the share of each two.

    Args:
        confusion: Counts, shape (classes, classes); or (classes, 2, 2), of each label that is not (0) or is (1) there.
        classes: Their names.
        title: Above the picture.
    """
    count, columns = len(classes), len(classes)
    side = float(np.clip(1.8 + 0.45 * count, 4, 24))
    shares = confusion / np.maximum(confusion.sum(axis=-1, keepdims=True), 1)
    if several := confusion.ndim == 3:
        confusion, shares = (part[:, ::-1, ::-1].reshape(count, 4) for part in (confusion, shares))
        columns = 4
    figure = Figure(figsize=(5 if several else side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto" if several else "equal")
    if count <= 30:
        for (row, column), number in np.ndenumerate(confusion):
            if number:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(number), ha="center", va="center", color=color, fontsize=9)
    short = [name if len(name) <= 24 else f"{name[:23]}…" for name in map(shown, classes)]
    plain = {"parse_math": False}  # a class may be called $_$
    turned = 0 if several or max(map(len, short)) <= 2 else 90
    across = ["found", "missed", "wrongly said", "rightly not"] if several else short
    axes.set_xticks(range(columns), across, rotation=turned, **plain)
    axes.set_yticks(range(count), short, **plain)
    axes.set(
        xlabel="has the label | does not" if several else "predicted",
        ylabel="label" if several else "true",
    )
    axes.set_title(title, parse_math=False)
    if several:
        axes.axvline(1.5, color="white", lw=3)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def class_scores(table: Mapping[str, Sequence[Any]], title: str = "") -> Figure:
    """Draw recall with its interval, precision and F1 of each class, the class with the lowest F1 on top.

    Classes without examples have no recall and are left out. Of more than 30 classes the 30 worst are drawn.

    Args:
        table: What `evaluation.by_class` gives; average precision is drawn too where it is there.
        title: Above the picture.
    """
    columns = {name: np.asarray(column) for name, column in table.items()}
    classes, true = table["class"], columns["examples"]
    present = np.flatnonzero(true)
    drawn = present[np.argsort(columns["f1"][present], kind="stable")][:MOST_CLASSES]
    recall = columns["recall"][drawn]
    names = [f"{shortened(classes[index], 28)} ({true[index]:,})" for index in drawn]
    height = 0.3 * max(len(drawn), 2) + 1.5
    figure = Figure(figsize=(7.5, height), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(drawn))
    errors = np.abs(np.stack([columns["recall_low"][drawn], columns["recall_high"][drawn]]) - recall)
    bars = axes.errorbar(recall, places, xerr=errors, fmt="o", color=BLUE, ms=6, elinewidth=1.2, capsize=2.5)
    bars.set_label("recall, with 95 % interval")
    told = ~np.isnan(columns["precision"][drawn])  # a class that is never predicted has none
    precision = columns["precision"][drawn][told]
    hollow: dict[str, Any] = {"mfc": "none", "mec": ORANGE, "mew": 1.4, "ms": 8.5}
    marks = axes.plot(precision, places[told], "D", label="precision", **hollow)
    marks += axes.plot(columns["f1"][drawn], places, "|", color="black", ms=13, mew=1.4, label="F1")
    if "average_precision" in columns:
        areas = columns["average_precision"][drawn]
        marks += axes.plot(areas, places, "x", color=GRAY, ms=6, mew=1.4, label="average precision")
    axes.set_yticks(places, names, parse_math=False)
    axes.hlines(places, 0, 1, color=GRAY, lw=0.5, alpha=0.35, zorder=0)
    axes.set(xlim=(-0.02, 1.02), ylim=(max(len(drawn), 1) - 0.5, -0.5))
    shown = f"the {len(drawn)} worst of {len(present)} classes" if len(drawn) < len(present) else "the worst on top"
    absent = len(classes) - len(present)
    without = f"\n{absent} {'class has' if absent == 1 else 'classes have'} no examples here" if absent else ""
    axes.set_xlabel(f"classes (examples): {shown}, by F1{without}")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(handles=[bars, *marks], loc="outside upper center", ncols=len(marks) + 1, frameon=False)
    axes.set_title(title, parse_math=False)
    return figure


def mistakes(
    read: Callable[[np.ndarray], Iterable[np.ndarray]],
    labels: Sequence[str],
    predicted: Sequence[str],
    probabilities: Sequence[float],
    kind: str = "photos",
    names: Sequence[str] | None = None,
    most: int = 24,
    losses: Sequence[float] | np.ndarray | None = None,
) -> Figure:
    """Draw what was classified wrongly on one sheet, the most confident mistakes first, or those of the highest loss.

    Sounds are drawn as waveforms; of arrays on three axes of space, the middle slice along the first.

    Args:
        read: Gives the examples at some positions, (k, *space, channels), such as `tlkit.data.Photos.read`: only what
            is drawn is read.
        labels: The right class of each example.
        predicted: The predicted one.
        probabilities: Of the predicted class.
        kind: `photos` (values from 0 to 255), `sounds` or `arrays`.
        names: Of the examples' files.
        most: Mistakes to draw.
        losses: Of each example, to be sorted by and written in place of probabilities: where it may have several
            labels, of which any may be wrong.
    """
    wrong = np.flatnonzero(np.asarray(labels) != np.asarray(predicted))
    shares: Sequence[float] | np.ndarray = probabilities if losses is None else losses
    what, first = ("probability", "most confident") if losses is None else ("loss", "most costly")
    if losses is not None:
        labels, predicted = ([name or "(no label)" for name in some] for some in (labels, predicted))
    order = wrong[np.argsort(-np.asarray(shares)[wrong], kind="stable")][:most]
    if not len(order):
        figure = Figure(figsize=(5, 1), layout="constrained")
        figure.text(0.5, 0.5, f"no mistakes among {len(labels):,} {kind}", ha="center", va="center", fontsize=12)
        return figure
    columns = min(len(order), 6)
    rows = -(-len(order) // columns)
    figure = Figure(figsize=(max(1.75 * columns, 5), 2.2 * rows + 0.55), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[len(order) :]:
        axes.remove()
    for axes, index, example in zip(panels.flat, order.tolist(), read(order), strict=False):
        _example(axes, np.asarray(example), kind)
        axes.set_title(shortened(labels[index], 21), fontsize=8, pad=14, parse_math=False)
        said = f"{shortened(predicted[index], 15)} ({shares[index]:.2f})"
        style = {"ha": "center", "fontsize": 8, "color": ORANGE, "parse_math": False}
        axes.annotate(said, (0.5, 1), xytext=(0, 4), xycoords="axes fraction", textcoords="offset points", **style)
        if names is not None:
            axes.set_xlabel(_end(names[index], 32), fontsize=5.5, color=GRAY, parse_math=False)
    are = "is" if len(wrong) == 1 else "are"
    count = f"{len(wrong):,} of {len(labels):,} {kind} {are} classified wrongly"
    shown = f"the {len(order)} {first} mistakes" if len(order) < len(wrong) else f"the {first} first"
    figure.suptitle(f"{count}: {shown}\nblack: the label; orange: what was predicted, with its {what}", fontsize=9)
    return figure


def _example(axes: Axes, values: np.ndarray, kind: str) -> None:
    """Draw an example without ticks; all but photos from its lowest to its highest value."""
    rank, channels = values.ndim - 1, values.shape[-1]
    if rank == 1:
        first = values[:, 0].astype(float)
        parts = np.array_split(first, min(len(first), 400))  # the envelope: a second has thousands of samples
        lows, highs = [part.min() for part in parts], [part.max() for part in parts]
        axes.fill_between(range(len(parts)), lows, highs, color=BLUE, ec=BLUE, lw=0.8)
        axes.set_box_aspect(1)
    else:
        values = values[len(values) // 2] if rank == 3 else values
        step = max(1, max(values.shape[:2]) // 256)  # thumbnails: a hundred thousand pixels more are not seen
        values = values[::step, ::step]
        values = values if channels == 3 else values[..., 0]
        low, high = (0, 255) if kind == "photos" else (np.nanmin(values), np.nanmax(values))
        scaled = (values.astype(float) - low) / max(float(high) - float(low), 1e-9)
        axes.imshow(np.clip(scaled, 0, 1), cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _end(name: str, most: int) -> str:
    name = shown(name)
    return name if len(name) <= most else f"…{name[1 - most :]}"


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

    Of three channels the colours are red, green and blue; of any other number the first channel is drawn. On one axis
    of space filters are curves; on three, the middle slice along the first axis is drawn.

    Args:
        kernel: Shape (*window, channels, filters).
        title: Above the picture.
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
    axes.set_title(title, parse_math=False)
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
        image: What the network saw, shape (*space, channels), from 0 to 1.
        maps: For each stage (*grid, channels).
        title: Above the picture.
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
    figure.suptitle(title, parse_math=False)
    return figure


def receptive_fields(
    effective: Mapping[str, np.ndarray],
    fields: Mapping[str, Sequence[int] | None],
    sizes: Mapping[str, float],
    title: str = "",
) -> Figure:
    """Draw how much each input cell weighs in the centre of each stage, and what it can see at most as a frame.

    On three axes of space, the middle slice along the first is drawn.

    Args:
        effective: For each stage the weights, (*space), not below 0; scaled by the largest.
        fields: For each stage the theoretical receptive field along each axis; None where it is the whole input.
        sizes: For each stage the side of its effective field.
        title: Above the picture.
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
            axes.fill_between(np.arange(space[0]), weights, step="mid", color=BLUE, lw=0)
            axes.set(ylim=(0, 1.05), xlim=(-0.5, space[0] - 0.5))
            axes.spines[["top", "right"]].set_visible(False)
            if frame:
                start, end = frame[0]
                for edge in (start, end):
                    axes.axvline(edge - 0.5, color=ORANGE, ls="--", lw=1.2)
                axes.set_xlim(max(start - (end - start), 0) - 0.5, min(2 * end - start, space[0]) - 0.5)
        else:
            drawn = axes.imshow(weights, cmap="viridis", vmin=0, vmax=1)
            if frame:
                (top, bottom), (left, right) = frame
                corner = (left - 0.5, top - 0.5)
                axes.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, ec="white", ls="--", lw=1.2))
                axes.set(xlim=(-0.5, space[1] - 0.5), ylim=(space[0] - 0.5, -0.5))
        said = "all" if field is None else " × ".join(map(str, dict.fromkeys(field)))
        said += " > input" if field is not None and frame is None else ""
        axes.set_title(f"{shown(stage)}\nfield {said}, effective {sizes[stage]:.0f}", fontsize=9, parse_math=False)
        axes.tick_params(labelsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=len(space) > 1))
    if len(space) > 1:
        bar = figure.colorbar(drawn, ax=panels, shrink=0.75, aspect=18)
        bar.set_label("gradient / largest", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        bar.outline.set_visible(False)
    figure.suptitle(title, parse_math=False)
    return figure


def shortened(name: str, most: int) -> str:
    """Shorten a name, as `display.shown` writes it, in its middle: names often differ at their ends alone.

    >>> shortened("n02099601-golden_retriever", 16)
    'n0209960…triever'
    """
    name = shown(name)
    return name if len(name) <= most else f"{name[: most // 2]}…{name[len(name) - (most - 1) // 2 :]}"


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
    """First cell and the one behind the last of a field, along each axis, put where the cells that are seen lie.

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


def parallel_coordinates(
    columns: Mapping[str, Sequence[Any]], scores: Sequence[float], objective: str, maximize: bool = True
) -> Figure:
    """Draw each trial of a search as a line through the values of its settings, to its score on the right.

    Lines are shaded by the rank of their score, the best darkest; that of the best trial is thick, and its values are
    bold. Trials that share a value are drawn side by side, in the order of their scores. A setting that does not count
    in a trial, None, is at the foot of its axis, at "–". Numbers that span more than a factor of 20 have a logarithmic
    axis.

    Args:
        columns: For each setting its value in each trial: numbers, or anything else as categories.
        scores: Of each trial, finite; at least one.
        objective: Name of the score.
        maximize: Whether high scores are the good ones.
    """
    order = np.argsort(scores if maximize else np.negative(scores), kind="stable")  # the best is drawn last: on top
    ranked = np.asarray(scores, np.float64)[order]
    scales = [_scale([values[place] for place in order]) for values in columns.values()]
    scales.append(_scale(ranked.tolist(), score=True))
    names = ["\n".join(_wrapped(name, 13)) for name in (*columns, objective)]
    count = "1 trial" if len(ranked) == 1 else f"{len(ranked)} trials"
    title = f"{count}, best {objective} {ranked[-1]:.4g}"
    across, width, tall = _spread(names, scales, least=max(0.11 * len(title), 5.8))
    above, below = 0.58 + 0.13 * max(name.count("\n") + 1 for name in names), 0.5
    height = below + tall + above
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, below / height, 1, tall / height))
    axes.set(xlim=(0, width), ylim=(0, 1))  # a unit across is an inch
    axes.set_axis_off()
    levels = np.unique(ranked, return_inverse=True)[1]
    worse = levels.max() - levels if maximize else levels
    colors = colormaps["viridis"](0.9 * worse / max(levels.max(), 1))  # beyond 0.9 is a yellow that white swallows
    places = np.stack([scale.places for scale in scales], axis=1)
    lines = [np.stack([across, line], axis=1) for line in places]
    thin = LineCollection(lines[:-1], colors=colors[:-1], lw=1.3 if len(lines) <= 60 else 0.6, clip_on=False)
    axes.add_collection(thin, autolim=False)
    casing = [Stroke(linewidth=5.5, foreground="white"), Normal()]
    axes.plot(*lines[-1].T, color=colors[-1], lw=3.2, label="best", clip_on=False, path_effects=casing)
    axes.scatter(across[[-1] * len(lines)], places[:, -1], c=colors, s=16, zorder=4, clip_on=False)
    for name, scale, x, side in zip(names, scales, across, [-1] * len(columns) + [1], strict=True):
        axes.vlines(x, scale.foot, 1, color="black", lw=0.8, zorder=3, clip_on=False)
        if scale.foot:
            axes.vlines(x, 0, scale.foot, color=GRAY, lw=0.8, ls=":", zorder=3, clip_on=False)
            bold = "bold" if scale.best_missing else "normal"
            axes.text(x, -0.025 - 0.03 / tall, "–", ha="center", va="top", fontsize=11, fontweight=bold)
        axes.text(x, 1 + 0.2 / tall, name, ha="center", va="bottom", fontsize=8, parse_math=False)
        for tick in scale.ticks:
            axes.hlines(tick.place, x, x + 0.05 * side, color="black", lw=0.8, zorder=3, clip_on=False)
            axes.text(
                x + 0.09 * side,
                tick.beside,
                tick.label,
                ha="right" if side < 0 else "left",
                va="center",
                fontsize=8,
                fontweight="bold" if tick.best else "normal",
                parse_math=False,
                bbox={"fc": "white", "ec": "none", "alpha": 0.85, "pad": 0.5},
            )
    figure.text(0.5, 1 - 0.08 / height, title, ha="center", va="top", fontsize=12, parse_math=False)
    key = "the darker, the better; thick, with its values in bold: the best"
    key += "; –: does not count" if any(scale.foot for scale in scales) else ""
    figure.text(0.5, 0.08 / height, key, ha="center", va="bottom", fontsize=8, color=GRAY)
    return figure


def importance(importances: Any, objective: str, most: int = 15) -> Figure:
    """Draw how much the score of a search depends on each setting, the most important on top.

    Args:
        importances: `tlkit.tuning.importance.Importances`: `settings` with `name`, `mean` and `sd`, and `explained`.
        objective: Name of the score.
        most: Settings to draw.
    """
    drawn, count = importances.settings[:most], len(importances.settings)
    figure = Figure(figsize=(7, 0.32 * max(len(drawn), 1) + 1.5), layout="constrained")
    axes = figure.subplots()
    trusted = importances.explained >= TRUSTED
    names, means, errors = [one.name for one in drawn], [one.mean for one in drawn], [one.sd for one in drawn]
    whiskers = {"ecolor": "black", "elinewidth": 1, "capsize": 2}
    axes.barh(range(len(drawn)), means, xerr=errors, color=BLUE if trusted else GRAY, height=0.7, error_kw=whiskers)
    axes.set_yticks(range(len(drawn)), names, parse_math=False)
    shown = f"{len(drawn)} of {count} settings: " if len(drawn) < count else ""
    axes.set_xlabel(f"{shown}share of the variance of {objective} ± sd", parse_math=False)
    axes.set_ylim(max(len(drawn), 1) - 0.5, -0.5)
    axes.margins(x=0.02)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if drawn:
        axes.axvline(0, color="black", lw=0.8)
        said = f"R² of the random forest on trials that it did not learn from: {importances.explained:.2f}"
        said += "" if trusted else f"\nbelow {TRUSTED}: these importances are not to be trusted"
    else:
        said = "too few trials to tell what matters"
        axes.set_axis_off()
    figure.suptitle(said.replace("-", "−"), fontsize=10, color="black" if trusted else ORANGE)
    return figure


class _Tick(NamedTuple):
    place: float
    beside: float  # where its label is: moved a little where it would be on another
    label: str
    best: bool  # the best trial's


class _Scale(NamedTuple):
    """An axis from 0 to 1: where the trials are, and what is written on it."""

    places: np.ndarray
    ticks: list[_Tick]
    foot: float  # where values begin: above 0, the place of trials in which the setting does not count
    best_missing: bool


def _scale(values: Sequence[Any], score: bool = False) -> _Scale:
    """Place the values of the trials, which come in the order of their scores, the best last."""
    missing = [value is None for value in values]
    present = [value for value in values if value is not None]
    numeric = all(isinstance(value, Real) and not isinstance(value, bool) for value in present)
    foot = 0.14 if any(missing) else 0.0
    kept = ~np.array(missing)
    places, ticks = np.zeros(len(values)), list[_Tick]()
    if present and numeric:
        places[kept], ticks = _numbers(np.array(present, np.float64), foot, score)
    elif present:
        places[kept], ticks = _categories(present, foot)
    ticks = [tick._replace(best=abs(tick.place - places[-1]) < 1e-9) for tick in ticks]
    return _Scale(places if score else _side_by_side(places), ticks, foot, missing[-1])


def _numbers(numbers: np.ndarray, foot: float, score: bool) -> tuple[np.ndarray, list[_Tick]]:
    """Place numbers; ticks are at all of them where they are few, else at the lowest, highest, last and round ones."""
    low, high = float(numbers.min()), float(numbers.max())
    logarithmic = not score and low > 0 and high > 20 * low

    def place(value: Any) -> Any:
        if low == high:
            return 0 * value + (foot + 1) / 2
        share = np.log(value / low) / np.log(high / low) if logarithmic else (value - low) / (high - low)
        return foot + (1 - foot) * share

    distinct = np.unique(numbers)
    few = len(distinct) <= 6 and not score
    between: Any = distinct
    if logarithmic and not few:
        powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high))
        between = powers if high > 1000 * low else np.outer(powers, (1, 2, 5)).ravel()
    elif not few:
        between = MaxNLocator(4, integer=bool(np.all(distinct == np.rint(distinct)))).tick_values(low, high)
    digits = 4 if few else 2 if logarithmic else int(np.clip(2 - np.floor(np.log10(max(high - low, 1e-12))), 0, 12))
    ticks: list[_Tick] = []
    for value in dict.fromkeys((low, high, float(numbers[-1]), *between)):
        at = beside = float(place(value))
        if not low <= value <= high:
            continue
        if value == numbers[-1] and low < value < high:
            beside = float(np.clip(at, foot + GAP, 1 - GAP))
        if all(abs(beside - other.beside) >= 0.99 * GAP for other in ticks):
            label = f"{value:.{digits}f}" if not few and not logarithmic else f"{value:.{digits}g}"
            ticks.append(_Tick(at, beside, _plain(value, label), False))
    return place(numbers), ticks


def _categories(values: Sequence[Any], foot: float) -> tuple[np.ndarray, list[_Tick]]:
    """Place categories evenly, in alphabetical order from the foot on."""
    named = [str(value).lower() if isinstance(value, bool | np.bool_) else shown(value) for value in values]
    kinds = sorted(set(named))
    at = np.linspace(foot, 1, len(kinds)) if len(kinds) > 1 else np.array([(foot + 1) / 2])
    labels = ["\n".join(_wrapped(kind, 18, most=4)) for kind in kinds]
    ticks = [_Tick(place, place, label, False) for place, label in zip(at.tolist(), labels, strict=True)]
    return at[[kinds.index(name) for name in named]], ticks


def _side_by_side(places: np.ndarray) -> np.ndarray:
    """Move trials at the same place a little apart, the last one up, so that each line is seen."""
    distinct, group = np.unique(places, return_inverse=True)
    gap = min(np.diff(distinct), default=1.0)
    moved = places.copy()
    for number in range(len(distinct)):
        members = np.flatnonzero(group == number)
        half = min(0.004 * (len(members) - 1), 0.3 * gap, 0.025)
        moved[members] += np.linspace(-half, half, len(members)) if len(members) > 1 else 0
    return moved


def _spread(names: Sequence[str], scales: Sequence[_Scale], least: float) -> tuple[np.ndarray, float, float]:
    """Give the inches of each axis from the left, and width and height, so that names and labels have room.

    Names are centred above their axes; labels are left of them, those of the last right of it.
    """
    heads = np.array([_longest([name]) for name in names])
    labels = np.array([_longest([tick.label for tick in scale.ticks]) + 0.15 for scale in scales])
    steps = np.maximum((heads[:-1] + heads[1:]) / 2 + 0.12, [*labels[1:-1] + 0.4, 0][: len(names) - 1])
    steps = np.maximum(steps, max(0.7, 5.5 / len(names)))
    left = 0.2 + max(heads[0] / 2, labels[0] if len(names) > 1 else 0)
    across = left + np.cumsum([0, *steps])
    lines = max(sum(tick.label.count("\n") + 1.5 for tick in scale.ticks) for scale in scales)
    width = float(across[-1] + 0.2 + max(heads[-1] / 2, labels[-1]))
    return across, max(width, least), float(np.clip(0.13 * lines, 3.2, 12))


def _longest(labels: Sequence[str]) -> float:
    """Inches that the longest line of some labels takes at 8 points, roughly."""
    return 0.07 * max((len(line) for label in labels for line in label.split("\n")), default=0)


def _wrapped(text: str, limit: int, most: int | None = None) -> list[str]:
    """Break a name behind its dots, spaces and other marks, and a part that is too long anywhere.

    >>> _wrapped("builder.kernel_size.1", 13)
    ['builder.', 'kernel_size.1']
    """
    parts = [
        part[start : start + limit]
        for part in re.split(r"(?<=[._,:/ -])(?!\d)", text)
        for start in range(0, len(part), limit)
    ]
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > limit:
            lines.append("")
        lines[-1] += part
    lines = [line.strip() for line in lines]
    return lines if most is None or len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1][: limit - 1]}…"]


def _plain(value: float, rounded: str) -> str:
    """Give a number without needless zeros; a whole one below 100000 is not rounded.

    >>> _plain(0.00012345, "0.00012"), _plain(0.5, "0.500"), _plain(64.0, "6e+01")
    ('1.2e−4', '0.5', '64')
    """
    if value == round(value) and abs(value) < 1e5:
        return str(round(value)).replace("-", "−")
    if abs(value) >= 1e5:
        rounded = f"{value:.2g}"
    elif abs(value) < 1e-3:
        rounded = f"{float(rounded):.3e}"  # 5e-4 is read more easily than 0.0005
    mantissa, _, exponent = rounded.partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return (mantissa + (f"e{int(exponent)}" if exponent else "")).replace("-", "−")


def lr_range(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    suggested: float | None = None,
    given: float | None = None,
    title: str = "",
) -> Figure:
    """Draw the losses of a range test over the learning rate, with the rate that it suggests.

    Args:
        rates: Of each step, growing.
        losses: Of each step's batch.
        smoothed: Their running average.
        suggested: The rate to train with, if there is one.
        given: The rate that the settings have, if they have one.
        title: What was tested.
    """
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.subplots()
    finite = np.isfinite(losses) & np.isfinite(smoothed)
    x, raw, line = (np.asarray(values, np.float64)[finite] for values in (rates, losses, smoothed))
    axes.plot(x, raw, ".", color=BLUE, alpha=0.35, ms=5, mew=0, label="each batch")
    axes.plot(x, line, color=BLUE, lw=2.2, label="smoothed", solid_capstyle="round")
    if len(line):
        falling = int(np.argmin(line)) + 1
        low, high = min(line.min(), raw[:falling].min()), max(line[:falling].max(), raw[:falling].max())
        # Where it explodes it goes out of the picture: drawn whole, all that matters would be a flat line.
        axes.set_ylim(low - 0.06 * (high - low), high + 0.35 * (high - low) + 1e-6)
    if given is not None and len(x) and x[0] <= given <= x[-1]:
        axes.axvline(given, color=GRAY, lw=1.2, ls=":", label=f"given: {_plain(given, f'{given:.2g}')}")
    if suggested is not None:
        said = _plain(suggested, f"{suggested:.2g}")
        axes.axvline(suggested, color=ORANGE, lw=1.4, label=f"suggested: {said}")
        at = float(np.interp(np.log(suggested), np.log(x), line))
        axes.plot(suggested, at, "o", color=ORANGE, ms=9, mec="white", mew=1.5, zorder=5)
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    axes.grid(axis="x", color="0.93", lw=0.8)
    axes.set_axisbelow(True)
    axes.set_title(title, fontsize=11, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", ncols=1)
    return figure


def sheet(
    rows: Sequence[Sequence[np.ndarray]],
    columns: Sequence[str],
    captions: Sequence[Sequence[str]],
    title: str = "",
) -> Figure:
    """Draw photos in rows, such as a photo and what training makes of it.

    Args:
        rows: Of photos, each (height, width, 1 | 3), uint8.
        columns: What stands above each column.
        captions: What stands below each photo.
        title: Above all.
    """
    across, down = len(columns), len(rows)
    height, width = rows[0][0].shape[:2]
    side = min(1.7, 90 / max(across, down))  # inches; large sheets have small photos
    tall = side * height / width
    gap, below, above = 0.08, 0.24 * side / 1.7, 0.28 * side / 1.7
    left, top = 0.15, 0.45 + above
    size = (across * (side + gap) - gap + 2 * left, top + down * (tall + below + gap) + 0.05)
    figure = Figure(figsize=size)
    axes = figure.add_axes((0, 0, 1, 1))
    text: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8 * side / 1.7, "parse_math": False}
    for row, (photos, said) in enumerate(zip(rows, captions, strict=True)):
        y = size[1] - top - row * (tall + below + gap)
        for column, (photo, caption) in enumerate(zip(photos, said, strict=True)):
            x = left + column * (side + gap)
            pixels = photo if photo.shape[-1] == 3 else photo[..., 0]
            axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=(x, x + side, y - tall, y), aspect="auto")
            axes.text(x + side / 2, y - tall - below / 2, caption, color=GRAY if column else "black", **text)
    for column, name in enumerate(columns):
        x = left + column * (side + gap) + side / 2
        axes.text(x, size[1] - top + above / 2, name, **text)
    axes.text(size[0] / 2, size[1] - 0.24, title, ha="center", va="center", fontsize=11, parse_math=False)
    axes.set(xlim=(0, size[0]), ylim=(0, size[1]))
    axes.set_axis_off()
    return figure
