"""Findings applied: a table of the examples, with a reason beside each that is better left out."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from tlkit.data import Examples
from tlkit.data.sources.tables import REVIEWED
from tlkit.data.split import named
from tlkit.display import shown
from tlkit.errors import InvalidInput
from tlkit.inspection.findings import Findings

ORDER = {"test": 0, "val": 1, "train": 2, None: 3}  # of copies, the first in this order is kept


def reasons(findings: Findings) -> dict[int, str]:
    """Say why examples are better left out, by their positions.

    That is: what cannot be decoded; what is blank; all copies of one content with different labels, as nobody knows
    which is right; all but one of the copies of one content, test before val before train; and of near copies across
    splits the one that is not in test, or else the one in train. Suspected labels and outliers are kept: a person has
    to look at them.
    """
    found = dict.fromkeys(findings.damaged, "cannot be decoded")
    for place in findings.blank:
        found.setdefault(place, "blank")
    odd = {place for group in findings.contradictions for place in group}
    for group in findings.copies:
        keep = min(group, key=lambda place: (ORDER[findings.given[place] or findings.splits[place]], place))
        for place in group:
            if place in odd:
                found.setdefault(place, "copies have different labels")
            elif place != keep:
                found.setdefault(place, f"copy of {findings.names[keep]}")
    for first, second, _ in findings.near_across:
        keep, other = sorted((first, second), key=lambda place: ORDER[findings.splits[place]])
        if keep not in found:
            found.setdefault(other, f"near copy of {findings.names[keep]} ({findings.splits[keep]})")
    return found


def table(findings: Findings, examples: Examples, folder: Path) -> bytes:
    """Write a CSV file that source `csv` loads from a folder, to the same splits without what is left out.

    Its columns are path, label, split, group where there are groups, leave_out, with the reason where an example is
    better left out, and suspect, with the likelier label.

    Args:
        findings: What was found.
        examples: What the source lists, all of them files.
        folder: Where the file will lie; paths are relative to it.

    Raises:
        InvalidInput: the examples are no files.
    """
    leave, likely = reasons(findings), {suspect.place: suspect.likely for suspect in findings.suspects}
    labels = named(findings.labels, findings.classes, examples.separator)
    columns = ["path", "label", "split", *(["group"] if findings.groups else []), *REVIEWED]
    rows = []
    for place, content in enumerate(examples.contents):
        if not isinstance(content, Path):
            raise InvalidInput(f"the data are {findings.title}, which are no files that a table could name")
        split = findings.splits[place] or findings.given[place] or ""
        group = [findings.groups[place]] if findings.groups else []
        reason = leave.get(place, "" if findings.splits[place] else "not used")
        rows.append([_path(content, folder), labels[place], split, *group, shown(reason), likely.get(place, "")])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue().encode("utf-8")


def _path(file: Path, folder: Path) -> str:
    try:
        relative = os.path.relpath(file, folder)
    except ValueError:  # another drive
        relative = str(file.absolute())
    return shown(Path(relative).as_posix())
