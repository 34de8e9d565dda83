"""Sheets that show why: photos, where in them the decision is, the classes, and known photos that look like them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tlkit.plots.style import BLUE, GRAY, shortened

SIDE, GAP = 1.7, 0.12  # inches


class Explained(NamedTuple):
    """A photo and why it is what the model says.

    Args:
        name: Of the photo.
        photo: As the network sees it, (height, width, 1 | 3), uint8.
        overlay: The photo under its heatmap, (height, width, 3), uint8; None where no place speaks for the class.
        label: The class that is explained.
        top: The most probable classes with their probabilities.
        nearest: Known photos that are most like it, each with a caption; None where the photo itself is gone.
    """

    name: str
    photo: np.ndarray
    overlay: np.ndarray | None
    label: str
    top: Sequence[tuple[str, float]]
    nearest: Sequence[tuple[str, np.ndarray | None]]


def explanations(rows: Sequence[Explained], title: str) -> Figure:
    """Draw a row for each photo: the photo, the heatmap over it, the classes, and the nearest known photos.

    Args:
        rows: The photos.
        title: Title of the sheet.
    """
    near = max(len(row.nearest) for row in rows)
    width, height = 0.3 + (3.4 + near) * (SIDE + GAP), 0.75 + len(rows) * (SIDE + 0.42)
    figure = Figure(figsize=(width, height))

    def panel(row: int, column: float, across: float = SIDE) -> Axes:
        bottom = height - 0.72 - row * (SIDE + 0.42) - SIDE
        left = 0.15 + column * (SIDE + GAP)
        return figure.add_axes((left / width, bottom / height, across / width, SIDE / height))

    for number, row in enumerate(rows):
        _picture(panel(number, 0), row.photo, shortened(row.name, 30))
        if row.overlay is None:
            _missing(panel(number, 1), "no place in it\nspeaks for it", f"for {shortened(row.label, 26)}")
        else:
            _picture(panel(number, 1), row.overlay, f"for {shortened(row.label, 26)}")
        _bars(panel(number, 2.05, 1.3 * SIDE), row)
        for place, (caption, photo) in enumerate(row.nearest):
            axes = panel(number, 3.4 + place)
            if photo is None:
                _missing(axes, "not found\non this machine", caption)
            else:
                _picture(axes, photo, caption)
    if near:
        x = (0.15 + 3.4 * (SIDE + GAP)) / width
        figure.text(x, 1 - 0.62 / height, "looks to the network like these training photos", fontsize=8, color=GRAY)
    figure.text(0.15 / width, 1 - 0.32 / height, shortened(title, int(9 * width)), fontsize=10, parse_math=False)
    return figure


def _picture(axes: Axes, pixels: np.ndarray, caption: str) -> None:
    axes.imshow(pixels if pixels.shape[-1] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=255)
    _caption(axes, caption)


def _missing(axes: Axes, reason: str, caption: str) -> None:
    axes.text(0.5, 0.5, reason, ha="center", va="center", color=GRAY, fontsize=8)
    _caption(axes, caption)


def _caption(axes: Axes, caption: str) -> None:
    axes.set_axis_off()
    axes.set_title(caption, y=-0.14, fontsize=7.5, color=GRAY, parse_math=False)


def _bars(axes: Axes, row: Explained) -> None:
    """Draw the probabilities as bars, the class that is explained in color."""
    names, shares = [name for name, _ in row.top], [share for _, share in row.top]
    places = np.arange(len(names))
    axes.barh(places + 0.22, shares, 0.34, color=[BLUE if name == row.label else "0.7" for name in names])
    axes.barh(places + 0.22, [1 - share for share in shares], 0.34, left=shares, color="0.93")
    for place, (name, share) in enumerate(row.top):
        axes.text(0, place - 0.06, shortened(name, 20), va="bottom", fontsize=7.5, parse_math=False)
        axes.text(1, place - 0.06, f"{share:.3f}", va="bottom", ha="right", fontsize=7.5)
    axes.set(xlim=(0, 1), ylim=(max(len(names), 3) - 0.35, -0.5))
    axes.set_axis_off()
