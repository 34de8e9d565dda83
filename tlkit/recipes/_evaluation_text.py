"""What `evaluate` says of a model: in the terminal, and as the note of its run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tlkit.display import code, markdown, say
from tlkit.recipes import _summary

if TYPE_CHECKING:
    from tlkit.recipes._evaluation import Evaluated


def note(evaluated: Evaluated) -> str:
    """Say in Markdown what was tested on what, and how well it does."""
    subject, scores = evaluated.subject, evaluated.scores
    headline, value, (low, high) = scores.headline
    trained = f", trained in run {code(subject.training.run.info.run_id)}" if subject.training.run else ""
    counted = _summary.counted(scores.photos, evaluated.examples.kind, scores.groups)
    new = "which it has not seen before"
    if evaluated.again:
        new = f"{evaluated.again:,} of which it has seen before, or near copies of these"
    lines = [
        f"**{markdown(subject.name)}** ({code(subject.classifier.name)}{trained}) on {counted} of "
        f"**{markdown(subject.loaded.name)}**, {new}.",
        "",
        f"**{headline.capitalize()} {value:.3f}** (95 % interval {low:.3f} to {high:.3f}).",
        "",
        "Where it is wrong: `worst_mistakes.png` and `predictions.json`."
        + (" What was left out, or is not new to it: `seen.json`." if subject.seen else ""),
        "",
        *evaluated.worth.note,
    ]
    return "\n".join(lines)


def show(evaluated: Evaluated) -> None:
    """Print the scores with their intervals, and those of each class."""
    subject, scores = evaluated.subject, evaluated.scores
    headline, value, (low, high) = scores.headline
    counted = _summary.counted(scores.photos, evaluated.examples.kind, scores.groups)
    constant = _summary.always(subject.classifier.classes, scores.majority, scores.majority_accuracy)
    beside = f", {counted}" + (f"; {constant}" if constant and not scores.multi_label else "")
    say(f"\nevaluate: {subject.name} on {subject.loaded.name}")
    rows = [(headline, value, (low, high), beside)]
    others = {"balanced accuracy": "balanced_accuracy", "log loss": "loss", "AUC": "auc"}
    metrics = scores.metrics()
    for text, name in others.items():
        if (other := metrics.get(f"test_{name}")) is not None and name in evaluated.intervals:
            rows.append((text, other, evaluated.intervals[name], ""))
    for text, number, interval, more in rows:
        say(f"  {text:<17}  {number:.4f}  (95 % interval {interval[0]:.3f} to {interval[1]:.3f}{more})")
    if precision := _summary.of_positive(scores, subject.classifier.classes):
        say(f"  {precision}")
    for line in evaluated.worth.lines:
        say(f"  {line}")
    _show_classes(evaluated)


def _show_classes(evaluated: Evaluated) -> None:
    """Print a line for each class that occurs, the worst recall first; of many, the worst ten."""
    from tlkit import plots

    table = evaluated.class_scores
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    rows = sorted((row for row in rows if row["examples"]), key=lambda row: row["recall"])
    width = max(len(plots.shortened(row["class"], 30)) for row in rows)
    say(f"  {'class':<{width}}  {evaluated.examples.kind:>8}  {'recall (95 %)':<19}  {'precision (95 %)':<19}  F1")
    for row in rows[:10]:
        recall, precision = (
            f"{row[name]:.3f} ({row[f'{name}_low']:.3f}-{row[f'{name}_high']:.3f})" if math.isfinite(row[name]) else "-"
            for name in ("recall", "precision")
        )
        name = plots.shortened(row["class"], 30)
        say(f"  {name:<{width}}  {row['examples']:>8,}  {recall:<19}  {precision:<19}  {row['f1']:.3f}")
    if len(rows) > 10:
        say(f"  and {len(rows) - 10} classes of higher recall, in class_scores.json")
