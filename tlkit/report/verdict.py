"""The sentence that answers whether a model is good enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Verdict(NamedTuple):
    """An answer.

    Args:
        sentence: In plain words.
        good: Whether the model is clearly better than a constant, on examples that tell.
        more: What to bear in mind, a sentence each.
    """

    sentence: str
    good: bool
    more: Sequence[str] = ()


def verdict(
    headline: str,
    value: float,
    interval: tuple[float, float],
    kind: str,
    constant: tuple[str, float] | None,
    *,
    chosen_by: bool = False,
    classes: Mapping[str, Sequence[object]] | None = None,
    leaks: int = 0,
    surest: Sequence[tuple[float, float]] = (),
) -> Verdict:
    """Answer whether a model is good enough, from its score beside that of a constant prediction.

    Args:
        headline: Name of the score: `accuracy`, or `mAP` where examples may have several labels.
        value: Of the model.
        interval: Its 95 % interval.
        kind: Name of the examples.
        constant: What is always predicted, in words, and its score; None where it is not known.
        chosen_by: Whether the scored examples also chose the weights.
        classes: Scores of each class, as columns.
        leaks: Scored examples that have a near copy among those that were learned from.
        surest: Shares of the examples, the surest first, with the accuracy of each.

    >>> verdict("accuracy", 0.87, (0.83, 0.9), "photos", ("always 'daisy'", 0.2)).sentence
    "Of new photos like these, 83 to 90 of 100 are classified rightly (87 here); always 'daisy' would be right for 20."
    >>> verdict("accuracy", 0.77, (0.72, 0.82), "photos", ("always 'no'", 0.75)).good
    False
    """
    low, high = interval
    if headline == "accuracy":
        low_, high_ = (f"{100 * bound:.0f}" for bound in interval)
        spread = low_ if low_ == high_ else f"{low_} to {high_}"
        sentence = f"Of new {kind} like these, {spread} of 100 are classified rightly ({100 * value:.0f} here)"
        sentence += f"; {constant[0]} would be right for {100 * constant[1]:.0f}." if constant else "."
    else:
        sentence = f"The mean average precision on new {kind} like these is {low:.2f} to {high:.2f} ({value:.2f} here)."
    good = clear = headline != "accuracy" or constant is None or low > constant[1]
    more = []
    if not good:
        more.append("It is not clearly better than a constant answer, so it is not good enough.")
    if chosen_by:
        good = False
        more.append(f"The same {kind} also chose the weights, so the score is optimistic: test on others.")
    if leaks:
        more.append(f"{leaks:,} of the scored {kind} have a near copy among those that it learned from.")
    more += _weakest(classes or {}, value) if headline == "accuracy" else []
    better = [(share, right) for share, right in surest if share < 1 and right > value and headline == "accuracy"]
    if better and clear:
        share, right = better[0]
        more.append(f"Where that is too few: its surest {share:.0%} are right {100 * right:.0f} times of 100.")
    return Verdict(sentence, good, more)


def _weakest(classes: Mapping[str, Sequence[object]], value: float) -> list[str]:
    """Name the class that is missed most, where that is far more than the others."""
    columns = ("recall", "class", "recall_high", "examples")
    if not set(columns) <= classes.keys():
        return []
    rows = [row for row in zip(*(classes[name] for name in columns), strict=True) if row[3]]
    recall, name, high, _ = min(rows, key=lambda row: float(str(row[0])), default=(1.0, "", 1.0, 0))
    if len(rows) < 2 or float(str(high)) >= value:
        return []
    return [f"It is weakest for '{name}', of which it finds {100 * float(str(recall)):.0f} of 100."]
