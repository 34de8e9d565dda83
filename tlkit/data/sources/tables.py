"""Source `csv`: a table of files, their labels and, if wanted, their splits and groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tlkit.data.images import Content
from tlkit.data.sources.class_names import MISSING, class_name, minus_one, nearly_equal
from tlkit.data.sources.columns import Columns, find_columns, known
from tlkit.data.sources.examples import Examples, modality_of, one_label_each, renamed_splits, shown_names, split_word
from tlkit.data.sources.grouping import group_notes, groups_by
from tlkit.data.sources.tabular import Table, read_table
from tlkit.display import cut, few, shown
from tlkit.errors import InvalidInput
from tlkit.labels import SEPARATOR

MANIFESTS = (["hash", "path", "label", "split"], ["hash", "path", "label", "split", "group"])
"""The header of the manifest of a run, whose labels are names of classes, whatever they look like."""

REVIEWED = ["leave_out", "suspect"]
"""The last columns of a table that `inspect --write` wrote; its labels are names of classes too."""


class Files:
    """Find files in a folder by names that may be written with escapes, as in a manifest."""

    def __init__(self, parent: Path):
        self.parent, self.folders = parent, dict[Path, dict[str, Path]]()

    def find(self, name: str) -> Path:
        """Return the path of a file, whether it exists or not.

        >>> Files(Path("photos")).find("roses/1.jpg").as_posix()
        'photos/roses/1.jpg'
        """
        path = self.parent / name
        if "\\" not in name or path.exists():
            return path
        path = self.parent
        for part in Path(name).parts:
            inside = path / part
            if not inside.exists() and path.is_dir():
                if path not in self.folders:
                    self.folders[path] = {shown(entry.name): entry for entry in path.iterdir()}
                inside = self.folders[path].get(shown(part), inside)
            path = inside
        return path


class _Row(NamedTuple):
    """A row of the table, checked."""

    where: str  # such as "line 2"
    name: str
    content: Content
    labels: set[str]
    split: str | None
    group: str  # "" where there is none


class _Unusable(Exception):
    """A row that cannot be used."""

    def __init__(self, reason: str, problem: str, value: str = ""):
        super().__init__(problem)
        self.reason = reason  # a key of `Examples.left_out`
        self.value = value  # that cannot be used, to be shown beside the path


class _Rows(NamedTuple):
    """The rows that can be used, and the others."""

    used: list[_Row]
    left_out: dict[str, list[str]]  # where the others are, and what of, by the reason
    splits: dict[str, str]  # what the table calls each split that it names


def csv_file(
    path: str | Path,
    separator: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    group: str | None = None,
    strict: bool = False,
) -> Examples:
    """List the files in a table with the columns path, label and, optionally, split and group.

    The table is a CSV file in UTF-8, with commas, semicolons or tabs, or a Parquet file. Columns may be written in any
    case, and have other names that are usual (see `columns.OTHER_NAMES`). Paths are relative to the folder of the
    table, and may be written with escapes as in `Examples.names`, or with backslashes between folders. Either every row
    names a split, with a word as in `split_word`, or there is no such column. A row with anything in a column
    `leave_out` is left out. Other columns are ignored. Rows that cannot be used, or have no label, are left out and
    named.

    Args:
        path: Of the table.
        separator: Separates several labels of an example in the column, which may then be called labels; an empty cell
            is no label. Blanks around a label, and repeated labels, are dropped.
        columns: Names of columns, by what they are for: `{"path": "image", "label": "diagnosis"}`.
        group: `parent`, or a regular expression on the path, for `Examples.groups`; see `groups_by`. It takes the place
            of a column.
        strict: Raise an error for the first row that would be left out.

    Raises:
        InvalidInput: the file or a column is missing; more than half of the rows cannot be used, or, if strict, one; or
            the files are of several modalities.
    """
    table = read_table(path, lambda header: known(header) + len(set(header) & set((columns or {}).values())))
    found = find_columns(f"{path}, line 1", table, columns or {}, separator)
    rows = _rows(path, table, found, separator, strict)
    used, notes = rows.used, [*found.notes]
    notes += _left_out_notes(rows)
    classes = sorted(set().union(*(row.labels for row in used)), key=shown)
    if len(classes) < 2:
        what = (
            f"a single class, {classes[0]!r}" if classes else "no photo has a label" if used else "no photo is listed"
        )
        raise InvalidInput(f"{path}: {what}: give two or more{''.join(f'; {note}' for note in notes)}")
    position = {label: i for i, label in enumerate(classes)}
    names = [row.name for row in used]
    kind = modality_of(str(path), names).name
    labels: list[int] | np.ndarray
    if separator is None:
        labels = [position[label] for row in used for label in row.labels]  # one each
        notes += _forgotten_separator(classes)
    else:
        labels = np.zeros((len(used), len(classes)), np.float32)
        for i, row in enumerate(used):
            labels[i, [position[label] for label in row.labels]] = 1
        notes += one_label_each(labels, "leave data.separator out")
    notes += nearly_equal(classes)
    groups = None
    if group:
        groups = groups_by(group, names, ["".join(row.labels) for row in used], kind, notes)
    elif found.group is not None:
        groups = [row.group for row in used] if any(row.group for row in used) else None
        notes += group_notes(f"column {table.header[found.group].strip()!r}", names, [row.group for row in used], kind)
    classes, names = shown_names(classes, "classes", notes), shown_names(names, kind, notes)
    return Examples(
        names=names,
        labels=labels,
        classes=classes,
        splits=[row.split for row in used],
        contents=[row.content for row in used],
        notes=notes,
        kind=kind,
        separator=separator,
        groups=groups and [shown(name) for name in groups],
        left_out=rows.left_out,
    )


def _rows(path: str | Path, table: Table, columns: Columns, separator: str | None, strict: bool) -> _Rows:
    files, literal = Files(Path(path).parent), table.header in MANIFESTS or table.header[-2:] == REVIEWED
    reviewed = table.header.index(REVIEWED[0]) if REVIEWED[0] in table.header else None
    used: list[_Row] = []
    left_out: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    first: dict[str, str] = {}  # the first problem of each reason

    def leave_out(where: str, name: str, problem: _Unusable) -> None:
        if strict:
            raise InvalidInput(f"{path}, {where}: {problem}; without data.strict the row would be left out")
        what = f"{cut(name, 100)}, {problem.value}" if problem.value else cut(name, 100)
        left_out.setdefault(problem.reason, []).append(f"{where}: {shown(what)}")
        first.setdefault(problem.reason, f"{where}: {problem}")

    for where, cells in table.rows():
        name, split = cells[columns.path].strip(), None if columns.split is None else cells[columns.split].strip()
        if split and (named := columns.split_of(split)):
            splits.setdefault(split, named)
        if reviewed is not None and (why := cells[reviewed].strip()):
            left_out.setdefault(f"column {REVIEWED[0]}", []).append(shown(f"{where}: {cut(name, 100)}, {cut(why, 60)}"))
            continue
        try:
            used.append(_row(where, files, cells, columns, separator, literal))
        except _Unusable as problem:
            leave_out(where, name, problem)
    if not literal and separator is None and (none := minus_one({label for row in used for label in row.labels})):
        for row in used:
            if none in row.labels:
                leave_out(row.where, row.name, _Unusable("no label", f"the label is {none!r}", f"label is {none!r}"))
        used = [row for row in used if none not in row.labels]
    unusable = {reason: names for reason, names in left_out.items() if reason in _ADVICE}
    count, total = (sum(map(len, rows.values())) for rows in (unusable, left_out))
    if 2 * count > (total := total + len(used)):
        most = max(unusable, key=lambda reason: len(unusable[reason]))
        raise InvalidInput(f"{path}: {count} of {total} rows cannot be used ({first[most]}): {_ADVICE[most]}")
    return _Rows(used, left_out, splits)


_PATHS = "paths must be those of files, with their suffixes, and relative to the folder of the table"
_ADVICE = {
    "no such file": _PATHS,
    "no path": _PATHS,
    "cannot be read": _PATHS,
    "no split": "give train, val or test in every row, or leave the column out",
}
"""What to do if most rows cannot be used, by the reason."""


def _row(
    where: str, files: Files, cells: Sequence[str], columns: Columns, separator: str | None, literal: bool
) -> _Row:
    """Check a row; its labels are taken as they are written if `literal`, else those that stand for none are not."""
    name, text = cells[columns.path].strip(), cells[columns.label].strip()
    labels = {class_name(part.strip()) for part in (text.split(separator) if separator else [text])} - {""}
    if (not labels and separator is None) or (text and text in MISSING and not literal):
        given = f"label is {text!r}" if text else ""
        raise _Unusable("no label", f"the {given or 'label is empty'}", given)
    if not name:
        raise _Unusable("no path", "the path is empty")
    try:
        # The cell as it is, without the blanks around it, and as it is written on Windows.
        spellings = dict.fromkeys((cells[columns.path], name, name.replace("\\", "/")))
        there = next(((each, file) for each in spellings if (file := files.find(each)).is_file()), None)
    except (OSError, ValueError) as error:  # the name is too long, or a folder in it is closed to us
        problem = error.strerror if isinstance(error, OSError) else str(error)
        raise _Unusable("cannot be read", f"the photo {cut(name, 100)!r} cannot be read: {problem}") from error
    if there is None:
        raise _Unusable("no such file", f"no such photo: {str(files.parent / name)!r}")
    name, file = there
    split = None
    if columns.split is not None and (split := columns.split_of(cells[columns.split].strip())) is None:
        given = f"split is {cut(cells[columns.split], 40)!r}"
        raise _Unusable("no split", f"{given}: train, val or test, or leave the column out", given)
    group = cells[columns.group].strip() if columns.group is not None else ""
    return _Row(where, name, file, labels, split, group)


def _left_out_notes(rows: _Rows) -> list[str]:
    """What is left out, what each split is called, and which of them is empty now."""
    total = len(rows.used) + sum(map(len, rows.left_out.values()))
    notes = [
        f"rows left out: {reason} ({len(names)} of {total}): {few(names, 3)}" for reason, names in rows.left_out.items()
    ]
    for split in sorted(set(rows.splits.values()) - {row.split for row in rows.used}):
        notes.append(f"no row of {split} can be used: the data have no such split")
    named = {name: split for name, split in rows.splits.items() if name.lower() != split and split_word(name)}
    return notes + renamed_splits(named)


def _forgotten_separator(classes: Sequence[str]) -> list[str]:
    odd = [name for name in classes if SEPARATOR in name]
    advice = f"if it separates several labels, give data.separator {SEPARATOR!r}"
    return [f"classes with {SEPARATOR} in their names ({few(odd, 3)}): {advice}"] if odd else []
