"""Findings as text, for a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from tlkit.display import few, short, shown
from tlkit.inspection.findings import Findings

WIDTH = 80
CLASSES = 20  # rows of the table of classes
LISTED = 8  # examples of each kind that are listed; the page has more


def line(label: str, text: str) -> str:
    """Write a line with its label in a column of its own, and what follows below the text.

    >>> print(line("sizes", "64 to 128"))
    sizes        64 to 128
    """
    return textwrap.fill(
        text, WIDTH, initial_indent=f"{label:<12} ", subsequent_indent=" " * 13, break_on_hyphens=False
    )


def class_counts(counts: Sequence[tuple[str, int]], most: int = WIDTH) -> str:
    """Write classes with their counts in one line, the largest first.

    >>> class_counts([("roses", 200), ("daisy", 120), ("tulips", 200)])
    'roses 200, tulips 200, daisy 120'
    >>> class_counts([(f"person {n}", 200 - n) for n in range(100)], most=60)
    "'person 0' 200, … 98 more … 'person 99' 101"
    """
    counts = sorted(counts, key=lambda each: -each[1])
    ordered = [_counted(name, count, 30) for name, count in counts]
    if len(", ".join(ordered)) > most:
        ordered = [_counted(name, count, 16) for name, count in counts]
    if len(", ".join(ordered)) <= most or len(ordered) < 4:
        return ", ".join(ordered)
    first, last = ordered[:1], ordered[-1]
    for each in ordered[1:-2]:
        if len(", ".join([*first, each])) + len(last) + 16 > most:
            break
        first.append(each)
    return f"{', '.join(first)}, … {len(ordered) - len(first) - 1:,} more … {last}"


def _counted(name: str, count: int, most: int) -> str:
    """Write a class with its count; one whose name ends like a number is quoted, not to be read with it."""
    text = shortened(name, most)
    return f"'{text}' {count:,}" if text[-1:].isdigit() else f"{text} {count:,}"


def shortened(text: str, most: int) -> str:
    """Cut out the middle of a name."""
    text = shown(text)
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most - most // 2) :]}"


def brief(findings: Findings) -> list[str]:
    """Write what a training recipe prints: the classes first, then what is not used."""
    total = [sum(each) for each in zip(*findings.counts.values(), strict=True)]
    label = f"classes: {len(findings.classes)} ("
    lines = [f"{label}{class_counts(list(zip(findings.classes, total, strict=True)), WIDTH - len(label) - 1)})"]
    if left := {reason: names for reason, names in findings.left_out.items() if names}:
        parts = ", ".join(f"{shown(reason)} {len(names):,}" for reason, names in left.items())
        lines.append(f"left out: {sum(map(len, left.values())):,} ({parts})")
    return lines


def report(findings: Findings, notes: bool = True) -> list[str]:
    """Write all that was found, lines of 80 columns at most; of long lists the beginning.

    Args:
        findings: What was found.
        notes: Include the notes of the source and the split, which are printed while data are loaded.
    """
    kind = findings.kind
    lines = [line(shown(findings.title), f"{len(findings.names):,} {kind}, {len(findings.classes):,} classes"), ""]
    lines += [*_classes(findings), ""]
    lines += _forms(findings)
    for reason, names in findings.left_out.items():
        if names:
            lines.append(line("left out", f"{len(names):,} ({shown(reason)}): {_few(names)}"))
    if findings.damaged:
        problems = [findings.seen[place].problem for place in findings.damaged] if findings.seen else []
        lines.append(line("damaged", f"{len(problems):,} that cannot be decoded: {_few(problems, 60)}"))
    lines += [*_copies(findings), *_doubtful(findings)]
    lines += [line("note", short(shown(note), 180)) for note in findings.notes if notes]
    lines += [line("not done", shown(skipped)) for skipped in findings.skipped]
    falsifying = findings.falsifying()
    lines.append("")
    if falsifying:
        lines.append("This would falsify a score:")
        for each in falsifying:
            lines += textwrap.wrap(
                shown(each), WIDTH, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False
            )
    else:
        lines.append("Nothing was found that would falsify a score.")
    return [part for each in lines for part in each.split("\n")]


def _classes(findings: Findings) -> list[str]:
    counts = findings.counts
    rows = list(zip(findings.classes, *counts.values(), strict=True))
    rows.sort(key=lambda row: -sum(row[1:]))
    width = min(max(len(shown(name)) for name in ("class", *findings.classes)), 40)
    heads = [*counts, "all"]

    def row(name: str, numbers: Sequence[int]) -> str:
        return f"{shortened(name, width):<{width}}" + "".join(f"{number:>10,}" for number in numbers)

    lines = [f"{'class':<{width}}" + "".join(f"{head:>10}" for head in heads)]
    listed = rows if len(rows) <= CLASSES else [*rows[: CLASSES - 3], *rows[-2:]]
    for place, (name, *numbers) in enumerate(listed):
        if len(rows) > CLASSES and place == CLASSES - 3:
            lines.append(f"… {len(rows) - CLASSES + 1:,} more classes")
        lines.append(row(name, [*numbers, sum(numbers)]))
    if findings.labels.ndim == 1:
        sums = [sum(column) for column in counts.values()]
        lines.append(row("all", [*sums, sum(sums)]))
    return lines


def _forms(findings: Findings) -> list[str]:
    lines = []
    for axis, (low, middle, high) in findings.sizes().items():
        number = "{:.2f}" if axis == "aspect ratio" else "{:,.0f}"
        low_, middle_, high_ = (number.format(value) for value in (low, middle, high))
        lines.append(line(axis, low_ if low == high else f"{low_} to {high_}, median {middle_}"))
    if findings.formats:
        lines.append(line("format", _few([f"{form} ({count:,})" for form, count in findings.formats.items()], 60)))
    return lines


def _copies(findings: Findings) -> list[str]:
    names, lines = findings.names, []
    if groups := findings.copies:
        count = sum(len(group) - 1 for group in groups)
        counts = f"{count:,} of {len(groups):,} {findings.kind if len(groups) > 1 else findings.singular}"
        special = f"{len(findings.leaks):,} in several splits, {len(findings.contradictions):,} with different labels"
        some = " = ".join(names[place] for place in groups[0][:3])
        lines.append(line("exact copies", f"{counts}; {special}; such as {shown(some)}"))
    else:
        lines.append(line("exact copies", "none"))
    if findings.near:
        across, odd = len(findings.near_across), len(findings.near_contradictions)
        pairs = f"{len(findings.near):,} pair{'s' * (len(findings.near) > 1)}"
        special = f"{across:,} across splits, {odd:,} with different labels"
        some = " and ".join(names[place] for place in findings.near[0][:2])
        lines.append(line("near copies", f"{pairs}; {special}; such as {shown(some)}"))
    elif findings.compared:
        lines.append(line("near copies", "none"))
    return lines


def _doubtful(findings: Findings) -> list[str]:
    labels, lines = findings.label_names, []
    if groups := findings.placeholders:
        most = groups[0]
        lines.append(
            line("placeholders", f"{len(groups):,}; {shown(findings.names[most[0]])} is there {len(most):,} times")
        )
    if findings.blank:
        lines.append(line("blank", f"{len(findings.blank):,}: {_few([findings.names[p] for p in findings.blank])}"))
    if findings.suspects:
        lines.append(line("suspects", f"labels that may be wrong: {len(findings.suspects):,}, the most suspect first"))
        for place, likely, probability in findings.suspects[:LISTED]:
            name = shortened(findings.names[place], 38)
            of = f"{shortened(labels[place], 13)}, likelier {shortened(likely, 13)}"
            lines.append(f"  {name:<38}  {of} ({probability:.1%})"[:WIDTH])
        if len(findings.suspects) > LISTED:
            lines.append(f"  and {len(findings.suspects) - LISTED:,} more, on the page")
    if findings.outliers:
        some = _few([findings.names[p] for p in findings.outliers])
        lines.append(line("outliers", f"like no others: {len(findings.outliers):,}, such as {some}"))
    return lines


def _few(names: Sequence[str], most: int = 40, count: int = 3) -> str:
    return few([shortened(name, most) for name in names], count)
