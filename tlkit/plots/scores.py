"""Pictures of scores: of several models, and of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tlkit.display import shown
from tlkit.plots.style import BLUE, GRAY, ORANGE, shortened

MOST_CLASSES = 30  # that are readable on one page


def ranking(
    names: Sequence[str],
    scores: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    score: str = "accuracy, cross-validated",
) -> Figure:
    """Draw scores with their intervals, the first on top.

    Args:
        names: Names of what was scored.
        scores: Scores from 0 to 1.
        intervals: Lower and upper bound of each score.
        score: Name of the score.
    """
    width = max(7, 4 + 0.09 * max(map(len, names)))  # inches: long names leave room for the axis and its label
    figure = Figure(figsize=(width, 0.45 * len(names) + 1.1), layout="constrained")
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

    Where examples may have several labels, no label is taken for another. A row is then the matrix of one label: how
    many examples with the label were given it or not, and how many without it; each pair shaded by its shares.

    Args:
        confusion: Counts, shape (classes, classes); or (classes, 2, 2), for each label, absent (0) or present (1).
        classes: Names of the classes.
        title: Title of the picture.
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
        table: A table of `evaluation.by_class`; its average precision is drawn too, if it has any.
        title: Title of the picture.
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
    defined = ~np.isnan(columns["precision"][drawn])  # a class that is never predicted has none
    precision = columns["precision"][drawn][defined]
    hollow: dict[str, Any] = {"mfc": "none", "mec": ORANGE, "mew": 1.4, "ms": 8.5}
    marks = axes.plot(precision, places[defined], "D", label="precision", **hollow)
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
