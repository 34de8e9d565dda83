"""The worst mistakes of a model, with heatmaps of what it took for the predicted class."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit.errors import InvalidInput, first_line

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tlkit import data, plots
    from tlkit.report import Mistake

SHEET = "worst_mistakes_heatmaps.png"
SHOWN, MOST = 24, 12  # mistakes on the sheet, and those with heatmaps


class Mistakes(NamedTuple):
    """The worst mistakes.

    Args:
        rows: For the report.
        wrong: Number of all mistakes.
        explained: How the heatmaps were made, or why there are none.
        pictures: Sheets of them, by file name: the examples, and the heatmaps where there are some.
    """

    rows: list[Mistake]
    wrong: int
    explained: str = ""
    pictures: Mapping[str, plots.Picture] = {}


def find(
    model: keras.Model,
    part: data.Photos | None,
    table: Mapping[str, Sequence[Any]],
    losses: Sequence[float] | np.ndarray | None = None,
) -> Mistakes:
    """Draw the worst mistakes, and for photos where in them the predicted class is.

    Args:
        model: The model.
        part: The scored examples; None where they cannot be drawn.
        table: Of `evaluation.predictions`.
        losses: Loss of each example, where it may have several labels.
    """
    from tlkit import explanation, plots
    from tlkit.inspection import pictures
    from tlkit.report import Mistake

    labels, predicted = table["label"], table["predicted"]
    shares = table["probability"] if losses is None else losses
    wrong = plots.worst(labels, predicted, shares)
    order = wrong[:MOST]
    sheets: dict[str, plots.Picture] = {}
    values: Sequence[np.ndarray | None] = [None] * len(order)
    if part is not None:
        drawn = (labels, predicted, table["probability"], part.kind, table["file"])
        first = wrong[:SHOWN].tolist()
        shown = list(part.read(first)) if first else []
        values = shown[:MOST]
        sheets["worst_mistakes.png"] = _sheet(
            dict(zip(first, shown, strict=True)), SHOWN, drawn, losses, part.modality.draw
        )
    if not len(order):
        return Mistakes([], 0, pictures=sheets)
    overlays, explained = _overlays(model, values) if part is not None and part.kind == "photos" else ([], "")
    number = "probability" if losses is None else "loss"
    explained = " ".join(filter(None, [explained, f"The number is the {number}." * (part is not None)]))
    overlaid = overlays or itertools.repeat(None, len(order))
    rows = [
        Mistake(
            table["file"][place],
            labels[place],
            predicted[place],
            float(shares[place]),
            "" if example is None else pictures.picture(example),
            "" if overlay is None else explanation.uri(overlay),
        )
        for place, example, overlay in zip(order.tolist(), values, overlaid, strict=True)
    ]
    if overlays:
        sheets[SHEET] = _sheet(dict(zip(order.tolist(), overlays, strict=True)), MOST, drawn, losses)
    return Mistakes(rows, len(wrong), explained, sheets)


def _sheet(
    values: Mapping[int, Any], most: int, drawn: tuple[Any, ...], losses: Any, draw: Callable[..., None] | None = None
) -> plots.Picture:
    """Draw the worst mistakes, whose values are here by their positions."""
    from tlkit import plots

    return plots.Picture("mistakes", functools.partial(_held, values), *drawn, most, losses, draw)


def _held(values: Mapping[int, Any], places: np.ndarray) -> list[Any]:
    return [values[place] for place in places.tolist()]


def _overlays(model: keras.Model, values: Sequence[Any]) -> tuple[list[np.ndarray], str]:
    """Lay heatmaps over photos, and say how they were made; none, with the reason, where they cannot be made."""
    import numpy as np

    from tlkit import explanation
    from tlkit.explanation.heatmaps import WAYS

    try:
        explainer = explanation.explainer(model)
        heat, _ = explainer.heatmaps(np.stack(values), np.full(len(values), -1))
    except (InvalidInput, NotImplementedError) as error:
        return [], f"There are no heatmaps: {first_line(error)}."
    drawn = [explanation.overlay(photo, each) for photo, each in zip(values, heat, strict=True)]
    blank = " Where a photo has no color, no place in it speaks for that class." * (not heat.any(axis=(1, 2)).all())
    return drawn, f"The heatmaps show what speaks for the most probable class ({WAYS[explainer.way]}).{blank}"
