"""Pictures of a run: figures are returned, never shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

BLUE, ORANGE, GRAY = "#0072b2", "#d55e00", "0.45"  # told apart by colour-blind readers too (Okabe and Ito)


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
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


def confusion_matrix(confusion: np.ndarray, classes: Sequence[str], title: str = "") -> Figure:
    """Draw how often each class (row) was taken for each other (column): counts, shaded by the share of the row.

    Args:
        confusion: Counts, shape (classes, classes).
        classes: Their names.
        title: Above the picture.
    """
    count = len(classes)
    side = float(np.clip(1.8 + 0.45 * count, 4, 24))
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if count <= 30:
        for (row, column), number in np.ndenumerate(confusion):
            if number:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(number), ha="center", va="center", color=color, fontsize=9)
    short = [name if len(name) <= 24 else f"{name[:23]}…" for name in classes]
    plain = {"parse_math": False}  # a class may be called $_$
    turned = 0 if max(map(len, short)) <= 2 else 90
    axes.set_xticks(range(count), short, rotation=turned, **plain)
    axes.set_yticks(range(count), short, **plain)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure
