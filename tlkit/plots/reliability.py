"""Pictures of how far probabilities can be trusted: a reliability diagram, and accuracy against coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tlkit.plots.style import BLUE, GRAY, ORANGE

Bins = tuple[np.ndarray, np.ndarray, np.ndarray]


def reliability(axes: Axes, after: Bins, before: Bins | None = None) -> None:
    """Draw how often predictions are right against how confident they are, in bins; calibrated ones lie on the line.

    Args:
        axes: Where to draw.
        after: Mean confidence of each bin, share that is right, (bins,) each, and its interval's bounds, (2, bins).
        before: The same without the temperature, if there is one.
    """
    confidence, right, bounds = after
    axes.plot([0, 1], [0, 1], color=GRAY, lw=1, label="calibrated")
    if before is not None:
        axes.plot(before[0], before[1], "x--", color=ORANGE, ms=5, lw=0.8, label="before")
    name = "with 95 % interval" if before is None else "with temperature, 95 % interval"
    axes.errorbar(
        confidence, right, yerr=np.abs(bounds - right), fmt="o", color=BLUE, ms=5, elinewidth=1, capsize=2, label=name
    )
    least = min(float(each.min()) for each in (confidence, bounds, *(before or ())[:2]))
    least = max(0.0, np.floor(10 * least) / 10 - 0.02)
    axes.set(xlabel="confidence", ylabel="share that is right", xlim=(least, 1.02), ylim=(least, 1.02))
    axes.spines[["top", "right"]].set_visible(False)
    # Above: where confidences are low, error bars reach into every corner.
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=8)


def coverage(axes: Axes, confidence: np.ndarray, right: np.ndarray, table: Mapping[str, Sequence[float]]) -> None:
    """Draw the accuracy of the most confident predictions against how many are answered, with intervals at some.

    Args:
        axes: Where to draw.
        confidence: Shape (examples,).
        right: Shape (examples,), whether each is right.
        table: Of `evaluation.abstention.coverage_table`.
    """
    order = np.argsort(-confidence, kind="stable")
    counts = np.arange(1, len(order) + 1)
    first = min(len(order) - 1, max(10, len(order) // 20))  # of fewer, the accuracy jumps
    axes.plot(100 * counts[first:] / len(order), (np.cumsum(right[order]) / counts)[first:], color=BLUE, lw=1.5)
    shares, accuracy = 100 * np.array(table["coverage"]), np.array(table["accuracy"])
    errors = np.abs(np.stack([table["accuracy_low"], table["accuracy_high"]]) - accuracy)
    axes.errorbar(shares, accuracy, yerr=errors, fmt="o", color=BLUE, ms=4, elinewidth=1, capsize=2)
    axes.set(
        xlabel="answered, the surest first (%)", ylabel="accuracy, with 95 % interval", xlim=(102, 0), ylim=(None, 1.01)
    )
    axes.spines[["top", "right"]].set_visible(False)


def calibration(
    after: Bins,
    before: Bins | None,
    confidence: np.ndarray,
    right: np.ndarray,
    table: Mapping[str, Sequence[float]],
    title: str = "",
) -> Figure:
    """Draw `reliability` and `coverage` side by side; their arguments, and a title."""
    figure = Figure(figsize=(9, 4))
    figure.subplots_adjust(left=0.075, right=0.985, bottom=0.125, top=0.895, wspace=0.22)
    left, other = figure.subplots(1, 2)
    reliability(left, after, before)
    coverage(other, confidence, right, table)
    figure.suptitle(title, x=0.77, parse_math=False)  # beside the legend
    return figure
