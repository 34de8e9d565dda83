"""How a training went: losses over epochs, penalties and learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tlkit.plots.style import BLUE, GRAY, ORANGE, plain_number


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
        axes.axvline(given, color=GRAY, lw=1.2, ls=":", label=f"given: {plain_number(given, f'{given:.2g}')}")
    if suggested is not None:
        said = plain_number(suggested, f"{suggested:.2g}")
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
