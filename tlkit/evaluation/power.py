"""What a test split can tell: the smallest difference between two models that it would show, and what more would."""

from __future__ import annotations

import math

POWER, LEVEL = 0.8, 0.05
# Share of the examples that exactly one of two models gets right, relative to their mean error: the median of the three
# pairs of three networks on five sets of photos, which lie between 0.57 and 1.54; see benchmarks/calibration.py.
DIFFERING = 0.93
MOST = 10_000_000  # examples that are thought of


def examples_needed(difference: float, differing: float) -> int:
    """Count the examples by which a paired test shows a difference of accuracies, four times of five.

    McNemar's test at a p-value of 0.05 (Connor 1987), with the continuity correction, which brings the count near to
    that of the exact test; `tests/test_evaluation_simulated.py` shows the power.

    Args:
        difference: Of the accuracies, above 0.
        differing: Share of the examples that exactly one of the two models gets right, from `difference` to 1.

    Raises:
        ValueError: a number is out of range.

    >>> examples_needed(0.04, 0.1), examples_needed(0.02, 0.1)
    (538, 2059)
    """
    from scipy import special

    if not 0 < difference <= differing <= 1:
        raise ValueError(f"difference is {difference}, differing {differing}: 0 < difference <= differing <= 1")
    chance, found = special.ndtri(1 - LEVEL / 2), special.ndtri(POWER)
    spread = chance * math.sqrt(differing) + found * math.sqrt(max(differing - difference**2, 0.0))
    # n * difference - 1 = spread * sqrt(n), for sqrt(n)
    root = (spread + math.sqrt(spread**2 + 4 * difference)) / (2 * difference)
    return math.ceil(root**2)


def smallest_difference(examples: float, differing: float) -> float:
    """Compute the smallest difference of accuracies that a paired test shows with so many examples, four times of five.

    Args:
        examples: Their number; with groups, as many independent ones as they are worth (`effective_trials`).
        differing: As for `examples_needed`.

    Returns:
        The difference, at most `differing`: where even that cannot be shown.

    >>> round(smallest_difference(538, 0.1), 3)
    0.04
    """
    from scipy import optimize

    differing = min(max(differing, 1e-6), 1.0)
    if examples_needed(differing, differing) > examples:
        return differing
    lowest = differing / 1e4
    if examples_needed(lowest, differing) <= examples:
        return lowest
    return float(optimize.brentq(lambda each: examples_needed(each, differing) - examples - 0.5, lowest, differing))


def likely_differing(accuracy: float, examples: int) -> float:
    """Guess the share of examples that exactly one of two models gets right, where only one model is known.

    Args:
        accuracy: Of the model.
        examples: That it was measured on; where all are right, one mistake is assumed.
    """
    return min(1.0, DIFFERING * max(1 - accuracy, 1 / examples))


def sentence(accuracy: float, examples: int, kind: str = "photos", groups_worth: float | None = None) -> str:
    """Say what a test split can tell.

    Args:
        accuracy: Of a model on it.
        examples: Number of its examples.
        kind: What they are.
        groups_worth: With groups, how many independent examples they are worth.

    >>> sentence(0.87, 300)
    '300 photos: differences under 5.9 points would not be seen; 1,200 would show 3.0'
    """
    differing = likely_differing(accuracy, examples)
    worth = examples if groups_worth is None else groups_worth
    least = smallest_difference(worth, differing)
    if least >= differing:
        return f"{examples:,} {kind}: too few to show that another model is better or worse"
    times = examples_needed(least / 2, differing) / worth
    more = rounded(examples * times)
    return (
        f"{examples:,} {kind}: differences under {points(least)} points would not be seen; {more:,} would show "
        f"{points(least / 2)}"
    )


def points(share: float) -> str:
    """Write a share in points, with one decimal below 10.

    >>> points(0.0402), points(0.12)
    ('4.0', '12')
    """
    return f"{100 * share:.1f}" if share < 0.1 else f"{100 * share:.0f}"


def rounded(count: float) -> int:
    """Round up to two digits.

    >>> rounded(1235)
    1300
    """
    step = 10 ** max(0, math.floor(math.log10(max(count, 1))) - 1)
    return math.ceil(count / step) * step


def more_needed(examples: int, only_first: int, only_second: int) -> int | None:
    """Count how many more examples like these would probably show the difference that two models have now.

    Args:
        examples: That both were scored on.
        only_first: That only the first gets right.
        only_second: That only the second gets right.

    Returns:
        The number; 0 where as many as there are should do, and None where the two are equally good on these, or more
        than ten million would be needed.

    >>> more_needed(300, 14, 8), more_needed(300, 8, 8)
    (1235, None)
    """
    difference = abs(only_first - only_second) / examples
    if not difference:
        return None
    needed = examples_needed(difference, (only_first + only_second) / examples)
    return None if needed > MOST else max(0, needed - examples)
