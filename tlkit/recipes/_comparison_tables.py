"""What `compare` prints: the runs, their pairs and their settings, in tables that fit the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from tlkit.display import say
from tlkit.recipes._comparison import SIGNIFICANCE, PairRow, RunRow

WIDEST_NAME, WIDEST_VALUE = 28, 30  # columns of a setting's name, and of a value beside it
NARROWEST_VALUE = 13  # columns of a value in the table of settings, so that it can be read


def print_runs(rows: Sequence[RunRow], width: int) -> None:
    """Print a line for each run, and what the columns mean."""
    say()
    for row in rows:
        say(f"{row.letter}  {row.name}")
    numbers = _numbers(rows)
    room = width - sum(max(map(len, column)) + 2 for column in zip(*numbers, strict=True)) - 3
    networks = [_cell(text, room) for text in ("network", *(row.network or "-" for row in rows))]
    say()
    letters = ["", *(row.letter for row in rows)]
    _print_columns([[letter, name, *line] for letter, name, line in zip(letters, networks, numbers, strict=True)], 2)
    say()
    _print_legend(rows, width)


def _numbers(rows: Sequence[RunRow]) -> list[list[str]]:
    """Write the columns of numbers, their headings first."""
    multi_label = _multi_label(rows)
    heading = [f"{_score_name(rows)} (95 %)", "params", "MB", "a second", "train s"]
    lines = [["mAP", *heading] if multi_label else heading]
    for row in rows:
        interval = "" if row.low is None else f" ({row.low:.3f}-{row.high:.3f})"
        line = [
            f"{row.accuracy:.3f}{interval}{_mark(row)}",
            _number(row.parameters),
            "-" if row.model_megabytes is None else f"{row.model_megabytes:.1f}",
            _number(row.predict_per_second),
            "-" if row.training_seconds is None else f"{row.training_seconds:,.0f}",
        ]
        lines.append([_number(row.map), *line] if multi_label else line)
    return lines


def _print_legend(rows: Sequence[RunRow], width: int) -> None:
    test = any(row.split == "test" for row in rows)
    examples = "test examples" if test else "validation examples"
    if _multi_label(rows):
        meaning = f"share of the {examples} that have all labels right{_interval_note(rows)}"
        meaning += "; mAP: mean average precision of the labels"
    else:
        meaning = f"on the {examples}{_interval_note(rows)}"
    _print_note(f"{_score_name(rows)}: {meaning}", width)
    if any(row.predict_per_second for row in rows):
        _print_note("a second: examples, all networks in alternation on this machine, by the engine of predict", width)
    if any(row.chose_epoch for row in rows):
        _print_note("*: on the validation examples, which also chose the epoch or trial: optimistic", width)
    constant = sorted({row.majority_accuracy for row in rows if row.majority_accuracy is not None})
    if constant and not _multi_label(rows):
        values = " or ".join(f"{value:.3f}" for value in constant)
        _print_note(f"always the class that is most frequent in training: accuracy {values}", width)
    if any(_mark(row) == "v" for row in rows):
        _print_note("v: on the validation examples, which did not choose the epoch", width)


def _interval_note(rows: Sequence[RunRow]) -> str:
    """Say how the intervals were computed; empty if there are none."""
    kinds = {row.interval for row in rows} - {""}
    if not kinds:
        return ""
    if kinds == {"group"}:
        return ", with Wilson's interval by groups"
    grouped = [row.letter for row in rows if row.interval == "group"]
    return ", with Wilson's interval" + (f" ({', '.join(grouped)}: by groups)" if grouped else "")


def _multi_label(rows: Sequence[RunRow]) -> bool:
    return any(row.map is not None for row in rows)


def _score_name(rows: Sequence[RunRow]) -> str:
    return "exact match" if _multi_label(rows) else "accuracy"


def _mark(row: RunRow) -> str:
    """Give the sign that marks a score that is not on the test examples."""
    if row.split != "validation":
        return ""
    return "*" if row.chose_epoch else "v"


def print_pairs(pairs: Sequence[PairRow], width: int) -> None:
    """Print the test of each pair, and why the others were not tested."""
    tested = [pair for pair in pairs if pair.p_value is not None]
    say()
    if tested:
        counts = " or ".join(f"{count:,}" for count in sorted({pair.examples or 0 for pair in tested}))
        say(f"Pairs, on the same {counts} examples: how many only one of the two gets right")
        lines = [["", "only 1st", "only 2nd", "p", ""]]
        for pair in tested:
            p = pair.corrected_p_value or 0.0
            only = str(pair.only_first), str(pair.only_second)
            lines.append([_letters(pair), *only, "<0.001" if p < 0.001 else f"{p:.3f}", _verdict(pair)])
        _print_columns(lines, 1, last_left=True)
        corrected = f", corrected for {len(tested)} pairs (Holm)" if len(tested) > 1 else ""
        say(f"p: McNemar's exact test{corrected}; below {SIGNIFICANCE:g} one is better")
        if grouped := [pair for pair in tested if pair.groups is not None]:
            text = "photos of one group are not independent, so whole groups are swapped instead: permutation test"
            _print_note(f"{', '.join(map(_letters, grouped))}: {text}", width)
    for reason in dict.fromkeys(pair.verdict for pair in pairs if pair.p_value is None):
        _print_note(f"{', '.join(_letters(pair) for pair in pairs if pair.verdict == reason)}: {reason}", width)


def _verdict(pair: PairRow) -> str:
    """Say which is better, or how many more examples would show it."""
    from tlkit.evaluation import power

    if pair.more_needed is None:
        return pair.verdict
    return f"{pair.verdict}; {power.rounded(pair.more_needed):,} more might show one"


def _letters(pair: PairRow) -> str:
    return f"{pair.first}-{pair.second}"


def print_settings(settings: dict[str, list[str]], letters: Sequence[str], width: int) -> None:
    """Print a row for each setting that differs, and a line for all that only some runs have.

    Args:
        settings: By their names, the values of all runs; empty where a run has none.
        letters: Letters of the runs.
        width: Columns of the terminal.
    """
    if not settings:
        say("\nSettings: no differences")
        return
    differing = {name: values for name, values in settings.items() if len(set(values) - {""}) > 1}
    if differing:
        say("\nSettings that differ")
        _print_differing(differing, letters, width)
    partial: dict[str, list[str]] = {}
    for name, values in settings.items():
        if name not in differing:
            having = ", ".join(letter for letter, value in zip(letters, values, strict=True) if value)
            partial.setdefault(having, []).append(f"{name}={_cell(max(values), WIDEST_VALUE)}")
    if partial:
        say("\nSettings that only some runs have")
    for having, texts in partial.items():
        _print_note(f"{having}: {', '.join(texts)}", width)


def _print_differing(settings: dict[str, list[str]], letters: Sequence[str], width: int) -> None:
    """Print a table of as many runs at a time as have room."""
    names = [_cell(name, WIDEST_NAME) for name in settings]
    side = max(map(len, names))
    at_once = max(1, (width - side) // NARROWEST_VALUE)
    for start in range(0, len(letters), at_once):
        part = slice(start, start + at_once)
        room = (width - side) // len(letters[part]) - 2
        lines = [["", *letters[part]]]
        for name, values in zip(names, settings.values(), strict=True):
            lines.append([name, *(_cell(value or "-", room) for value in values[part])])
        _print_columns(lines, len(lines[0]))


def _print_note(text: str, width: int) -> None:
    say(textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))


def _print_columns(lines: list[list[str]], left: int, last_left: bool = False) -> None:
    """Print cells in columns.

    Args:
        lines: Their cells.
        left: Number of columns that are flush left, from the first; the others are flush right.
        last_left: Make the last one flush left too.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    count = len(widths)
    for line in lines:
        cells = [
            cell.ljust(wide) if place < left or (last_left and place == count - 1) else cell.rjust(wide)
            for place, (cell, wide) in enumerate(zip(line, widths, strict=True))
        ]
        say("  ".join(cells).rstrip())


def _cell(text: str, most: int) -> str:
    from tlkit import plots

    return plots.shortened(" ".join(text.split()), max(most, 4))


def _number(value: float | None) -> str:
    """Write a number in few characters.

    >>> [_number(value) for value in (None, 9.5, 340_058, 25_557_032, 143_667_240)]
    ['-', '9.5', '340k', '25.6M', '144M']
    """
    if value is None:
        return "-"
    if value < 1000:
        return f"{value:.3g}"
    scaled, unit = (value / 1e3, "k") if value < 1e6 else (value / 1e6, "M")
    return f"{scaled:.3g}{unit}" if scaled < 999.5 else f"{scaled:,.0f}{unit}"
