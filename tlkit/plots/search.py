"""Pictures of a search over settings: its trials, and which settings matter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple, Protocol

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

from tlkit.display import shown
from tlkit.plots.style import BLUE, GRAY, ORANGE, plain_number

TRUSTED = 0.2  # R² below which a forest's importances say little
GAP = 0.065  # between two labels of an axis from 0 to 1


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
        scores: Finite score of each trial; at least one.
        objective: Name of the score.
        maximize: Whether high scores are good.
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
    colors = colormaps["viridis"](0.9 * worse / max(levels.max(), 1))  # beyond 0.9, yellow is hard to see
    places = np.stack([scale.places for scale in scales], axis=1)
    lines = [np.stack([across, line], axis=1) for line in places]
    thin = LineCollection(lines[:-1], colors=colors[:-1], lw=1.3 if len(lines) <= 60 else 0.6, clip_on=False)
    axes.add_collection(thin, autolim=False)
    casing = [Stroke(linewidth=5.5, foreground="white"), Normal()]
    axes.plot(*lines[-1].T, color=colors[-1], lw=3.2, label="best", clip_on=False, path_effects=casing)
    axes.scatter(across[[-1] * len(lines)], places[:, -1], c=colors, s=16, zorder=4, clip_on=False)
    for name, scale, x, side in zip(names, scales, across, [-1] * len(columns) + [1], strict=True):
        _draw_axis(axes, scale, x, side, tall)
        axes.text(x, 1 + 0.2 / tall, name, ha="center", va="bottom", fontsize=8, parse_math=False)
    figure.text(0.5, 1 - 0.08 / height, title, ha="center", va="top", fontsize=12, parse_math=False)
    key = "the darker, the better; thick, with its values in bold: the best"
    key += "; –: does not count" if any(scale.foot for scale in scales) else ""
    figure.text(0.5, 0.08 / height, key, ha="center", va="bottom", fontsize=8, color=GRAY)
    return figure


class Importance(Protocol):
    """How much the scores depend on one setting: mean and standard deviation of a share of their variance."""

    @property
    def name(self) -> str:
        """Name of the setting."""

    @property
    def mean(self) -> float:
        """Share of the scores' variance."""

    @property
    def sd(self) -> float:
        """Standard deviation of the share."""


class Importances(Protocol):
    """How much the scores depend on each setting, the most important first; and the R² of the model that says so."""

    @property
    def settings(self) -> Sequence[Importance]:
        """The importance of each setting."""

    @property
    def explained(self) -> float:
        """R² on trials that the model did not learn from."""


def importance(importances: Importances, objective: str, most: int = 15) -> Figure:
    """Draw how much the score of a search depends on each setting, the most important on top.

    Args:
        importances: Such as `tlkit.tuning.importance.Importances`.
        objective: Name of the score.
        most: Settings to draw.
    """
    drawn, count = importances.settings[:most], len(importances.settings)
    figure = Figure(figsize=(7, 0.32 * max(len(drawn), 1) + 1.5), layout="constrained")
    axes = figure.subplots()
    trusted = importances.explained >= TRUSTED
    names, means, errors = ([getattr(each, field) for each in drawn] for field in ("name", "mean", "sd"))
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
        heading = f"R² of the random forest on trials that it did not learn from: {importances.explained:.2f}"
        heading += "" if trusted else f"\nbelow {TRUSTED}: these importances are not to be trusted"
    else:
        heading = "too few trials to tell what matters"
        axes.set_axis_off()
    figure.suptitle(heading.replace("-", "−"), fontsize=10, color="black" if trusted else ORANGE)
    return figure


class _Tick(NamedTuple):
    place: float
    beside: float  # place of its label, moved a little where it would cover another
    label: str
    best: bool  # whether it is the best trial's


class _Scale(NamedTuple):
    """An axis from 0 to 1: where the trials are, and what is written on it."""

    places: np.ndarray
    ticks: list[_Tick]
    foot: float  # where values begin: above 0, the place of trials in which the setting does not count
    best_missing: bool


def _draw_axis(axes: Axes, scale: _Scale, x: float, side: int, tall: float) -> None:
    """Draw the axis of a setting with its labels.

    Args:
        axes: What is drawn on.
        scale: The axis.
        x: Inches from the left.
        side: -1 for labels on the left, 1 for labels on the right.
        tall: Height of the axis in inches.
    """
    axes.vlines(x, scale.foot, 1, color="black", lw=0.8, zorder=3, clip_on=False)
    if scale.foot:
        axes.vlines(x, 0, scale.foot, color=GRAY, lw=0.8, ls=":", zorder=3, clip_on=False)
        bold = "bold" if scale.best_missing else "normal"
        axes.text(x, -0.025 - 0.03 / tall, "–", ha="center", va="top", fontsize=11, fontweight=bold)
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


def _scale(values: Sequence[Any], score: bool = False) -> _Scale:
    """Place the values of the trials, which come in the order of their scores, the best last."""
    missing = [value is None for value in values]
    present = [value for value in values if value is not None]
    numeric = all(isinstance(value, Real) and not isinstance(value, bool) for value in present)
    foot = 0.14 if any(missing) else 0.0
    is_present = ~np.array(missing)
    places, ticks = np.zeros(len(values)), list[_Tick]()
    if present and numeric:
        places[is_present], ticks = _numbers(np.array(present, np.float64), foot, score)
    elif present:
        places[is_present], ticks = _categories(present, foot)
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
            ticks.append(_Tick(at, beside, plain_number(value, label), False))
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
    """Compute the inches of each axis from the left, and width and height, so that names and labels have room.

    Names are centered above their axes; labels are left of them, those of the last right of it.
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
    """Estimate the inches of the longest line of some labels at 8 points."""
    return 0.07 * max((len(line) for label in labels for line in label.split("\n")), default=0)


def _wrapped(text: str, limit: int, most: int | None = None) -> list[str]:
    """Break a name after its dots, spaces and other marks, and a part that is too long anywhere.

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
