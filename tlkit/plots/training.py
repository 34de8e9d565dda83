"""Pictures of training: losses over epochs, penalties and learning rates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from tlkit.plots.style import BLUE, GRAY, ORANGE, plain_number

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


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
        names = list(dict.fromkeys(entry["phase"] for entry in epochs))
        for index, phase in enumerate(names):
            inside = [entry["epoch"] for entry in epochs if entry["phase"] == phase]
            axes.axvspan(inside[0] - 0.5, inside[-1] + 0.5, color=GRAY, alpha=0.06 + 0.08 * (index % 2), lw=0)
            height = 1.07 if len(names) > 2 and index % 2 else 1.01  # short phases are narrower than their names
            axes.text(
                np.mean([inside[0], inside[-1]]), height, phase, ha="center", transform=axes.get_xaxis_transform()
            )
        if best is not None:
            axes.axvline(best, color=GRAY, lw=1, ls=":", label=f"kept: epoch {best}")
        axes.set(xlabel="epoch", ylabel=name, xlim=(steps[0] - 0.5, steps[-1] + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # a solved head may be all there is
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


class Strength(Protocol):
    """How well one strength of a penalty did on held-out examples; `tlkit.probes.Tried` is one."""

    @property
    def l2(self) -> float:
        """The strength."""

    @property
    def loss(self) -> float:
        """Cross-validated loss."""

    @property
    def loss_error(self) -> float:
        """Standard error of the loss."""

    @property
    def accuracy(self) -> float:
        """Cross-validated accuracy."""


def regularization(strengths: Sequence[Strength], chosen: float) -> Figure:
    """Draw cross-validated loss and accuracy over the regularization, and the one that was chosen as a line.

    Args:
        strengths: The strengths that were tried, with their scores.
        chosen: The `l2` that was chosen.
    """
    figure = Figure(figsize=(9, 3.6))
    figure.subplots_adjust(left=0.075, right=0.985, bottom=0.135, top=0.965, wspace=0.22)
    strengths = sorted(strengths, key=lambda strength: strength.l2)
    x = [strength.l2 for strength in strengths]
    loss, accuracy = figure.subplots(1, 2)
    errors = [strength.loss_error for strength in strengths]
    loss.errorbar(x, [strength.loss for strength in strengths], errors, color=BLUE, marker=".", capsize=2)
    accuracy.plot(x, [strength.accuracy for strength in strengths], color=BLUE, marker=".")
    for axes, name in ((loss, "cross-validated loss ± standard error"), (accuracy, "cross-validated accuracy")):
        axes.axvline(chosen, color=GRAY, lw=1, ls=":", label=f"chosen: {chosen:.2g}")
        axes.set(xscale="log", xlabel="penalty (l2)", ylabel=name)
        if x[-1] >= 10 * x[0]:  # in letters: Matplotlib's own powers load its typesetting of formulas
            axes.xaxis.set_major_formatter(lambda value, _: f"10{str(round(math.log10(value))).translate(RAISED)}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


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
        rates: Learning rate of each step, growing.
        losses: Loss of each step's batch.
        smoothed: Running average of the losses.
        suggested: The rate to train with, if there is one.
        given: The rate in the settings, if there is one.
        title: Title of the picture.
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
        # The curve leaves the picture where the loss explodes: else all that matters would be a flat line.
        axes.set_ylim(low - 0.06 * (high - low), high + 0.35 * (high - low) + 1e-6)
    if given is not None and len(x) and x[0] <= given <= x[-1]:
        axes.axvline(given, color=GRAY, lw=1.2, ls=":", label=f"given: {plain_number(given, f'{given:.2g}')}")
    if suggested is not None:
        label = f"suggested: {plain_number(suggested, f'{suggested:.2g}')}"
        axes.axvline(suggested, color=ORANGE, lw=1.4, label=label)
        at = float(np.interp(np.log(suggested), np.log(x), line))
        axes.plot(suggested, at, "o", color=ORANGE, ms=9, mec="white", mew=1.5, zorder=5)
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    axes.grid(axis="x", color="0.93", lw=0.8)
    axes.set_axisbelow(True)
    axes.set_title(title, fontsize=11, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", ncols=1)
    return figure
