"""Source `csv`: a table of files, their labels and, if wanted, their splits and groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tlkit.data.contents import Content
from tlkit.data.sources.class_names import MISSING, class_name, minus_one, nearly_equal
from tlkit.data.sources.columns import Columns, find_columns, known
from tlkit.data.sources.examples import Examples, modality_of, one_label_each, renamed_splits, shown_names, split_word
from tlkit.data.sources.files import Files
from tlkit.data.sources.grouping import group_notes, groups_by
from tlkit.data.sources.tabular import Table, read_table
from tlkit.data.urls import UrlPath, no_answer, path_of
from tlkit.display import cut, few, shown
from tlkit.errors import InvalidInput, Unavailable
from tlkit.labels import SEPARATOR
from tlkit.untrusted import is_url

MANIFESTS = (["hash", "path", "label", "split"], ["hash", "path", "label", "split", "group"])
"""The header of the manifest of a run, whose labels are names of classes, whatever they look like."""

REVIEWED = ["leave_out", "suspect"]
"""Columns of a table that `inspect --write` wrote; its labels are names of classes too."""


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
    completed: list[str]  # paths that are not written as the files are called
    lost: set[str]  # classes of which no row can be used


def csv_file(
    path: str | Path,
    separator: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    group: str | None = None,
    strict: bool = False,
) -> Examples:
    """List the files in a table with the columns path, label and, optionally, split and group.

    The table is a CSV file in UTF-8 or UTF-16, with commas, semicolons or tabs, or a Parquet file. Columns may be
    written in any case, and have other names that are usual (see `columns.OTHER_NAMES`). Paths are relative to the
    folder of the table, and may be written with escapes as in `Examples.names`, with backslashes between folders, in
    another case or without a suffix. Every row names a split, with a word as in `split_word`, or there is no such
    column. A row with anything in a column `leave_out` is left out. Other columns are ignored. Rows that cannot be
    used, or have no label, are left out and named.

    Args:
        path: Of the table, on disk or at a URL that fsspec reads, such as `s3://bucket/photos/list.csv`.
        separator: Separates several labels of an example in the column, which may then be called labels; an empty cell
            is no label. Blanks around a label, and repeated labels, are dropped.
        columns: Names of columns, by what they are for: `{"path": "image", "label": "diagnosis"}`.
        group: `parent`, or a regular expression on the path, for `Examples.groups`; see `groups_by`. It takes the place
            of a column.
        strict: Raise an error for the first row that would be left out.

    Raises:
        InvalidInput: the file or a column is missing; more than half of the rows cannot be used, or, if strict, one; or
            the files are of several modalities.
        Unavailable: a package that reads the URL is missing, or the storage does not answer.
    """
    try:
        return _listed(path, separator, columns or {}, group, strict)
    except (InvalidInput, Unavailable):
        raise
    except OSError as error:
        if not is_url(path):
            raise
        raise no_answer(path, error) from error


def _listed(
    path: str | Path, separator: str | None, columns: Mapping[str, str], group: str | None, strict: bool
) -> Examples:
    table = read_table(path, lambda header: known(header) + len(set(header) & set(columns.values())))
    found = find_columns(f"{path}, line 1", table, columns, separator)
    rows = _rows(path, table, found, separator, strict)
    used, notes = rows.used, [*found.notes]
    notes += _left_out_notes(rows)
    if rows.completed:
        notes.append(
            f"paths that are not written as the files are called ({len(rows.completed)}): {few(rows.completed, 3)}"
        )
    notes += [] if found.split is not None else _forgotten_splits(path_of(path), [row.name for row in used])
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
        notes += _forgotten_separator(classes) + _many(classes, len(used))
    else:
        labels = np.zeros((len(used), len(classes)), np.float32)
        for i, row in enumerate(used):
            labels[i, [position[label] for label in row.labels]] = 1
        notes += one_label_each(labels, "leave data.separator out") + _forgotten_separator(classes, separator)
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
    header = [name.strip().lower() for name in table.header]
    files, literal = Files(path_of(path).parent), header in MANIFESTS or {*REVIEWED} <= {*header}
    reviewed = header.index(REVIEWED[0]) if REVIEWED[0] in header else None
    used: list[_Row] = []
    completed: list[str] = []
    lost = set[str]()
    left_out: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    first: dict[str, tuple[str, str]] = {}  # the first problem of each reason, and its path

    def leave_out(where: str, name: str, problem: _Unusable) -> None:
        if strict:
            raise InvalidInput(f"{path}, {where}: {problem}; without data.strict the row would be left out")
        what = f"{cut(name, 100)}, {problem.value}" if problem.value else cut(name, 100)
        left_out.setdefault(problem.reason, []).append(f"{where}: {shown(what)}")
        first.setdefault(problem.reason, (f"{where}: {problem}", name))

    for where, cells in table.rows():
        name, split = cells[columns.path].strip(), None if columns.split is None else cells[columns.split].strip()
        if split and (named := columns.split_of(split)):
            splits.setdefault(split, named)
        if reviewed is not None and (why := cells[reviewed].strip()):
            left_out.setdefault(f"column {REVIEWED[0]}", []).append(shown(f"{where}: {cut(name, 100)}, {cut(why, 60)}"))
            continue
        try:
            row = _row(where, files, cells, columns, separator, literal)
            used.append(row)
            if row.name not in (cells[columns.path], name, name.replace("\\", "/")):
                completed.append(f"{name} is {row.name}")
        except _Unusable as problem:
            leave_out(where, name, problem)
            if problem.reason in _ADVICE and separator is None:
                lost.add(class_name(cells[columns.label]))
    if not literal and separator is None and (none := minus_one({label for row in used for label in row.labels})):
        for row in used:
            if none in row.labels:
                leave_out(row.where, row.name, _Unusable("no label", f"the label is {none!r}", f"label is {none!r}"))
        used = [row for row in used if none not in row.labels]
    unusable = {reason: names for reason, names in left_out.items() if reason in _ADVICE}
    count, total = (sum(map(len, rows.values())) for rows in (unusable, left_out))
    if 2 * count > (total := total + len(used)):
        most = max(unusable, key=lambda reason: len(unusable[reason]))
        what, name = first[most]
        there = files.elsewhere(name) if most == "no such file" else None
        raise InvalidInput(
            f"{path}: {count} of {total} rows cannot be used ({what}): {_ADVICE[most]}"
            + (f"; there is {there!r}, seen from there" if there else "")
        )
    return _Rows(used, left_out, splits, completed, lost - set().union(*(row.labels for row in used)))


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
    if len(labels) > 1 and not literal:
        labels -= MISSING
    if (not labels and separator is None) or (text and text in MISSING and not literal):
        given = f"label is {text!r}" if text else ""
        raise _Unusable("no label", f"the {given or 'label is empty'}", given)
    if not name:
        raise _Unusable("no path", "the path is empty")
    try:
        there = files.written(cells[columns.path])
    except (OSError, ValueError) as error:  # the name is too long, or a folder in it is closed to us
        if isinstance(error, OSError) and isinstance(files.parent, UrlPath):
            raise  # the storage does not answer: that says nothing about this row
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
    group = group if literal or group not in MISSING else ""
    return _Row(where, name, files.content(file), labels, split, group)


def _left_out_notes(rows: _Rows) -> list[str]:
    """What is left out, what each split is called, and which of them is empty now."""
    total = len(rows.used) + sum(map(len, rows.left_out.values()))
    notes = [
        f"rows left out: {reason} ({len(names)} of {total}): {few(names, 3)}" for reason, names in rows.left_out.items()
    ]
    if rows.lost:
        notes.append(f"classes of which no row can be used ({len(rows.lost)}): {few(sorted(rows.lost, key=shown))}")
    for split in sorted(set(rows.splits.values()) - {row.split for row in rows.used}):
        notes.append(f"no row of {split} can be used: the data have no such split")
    named = {name: split for name, split in rows.splits.items() if name.lower() != split and split_word(name)}
    return notes + renamed_splits(named)


def _forgotten_splits(path: Path, names: Sequence[str]) -> list[str]:
    """Notes about splits that a table without such a column seems to have: in its paths, or in a table beside it."""
    words = [{split_word(part) for part in Path(name).parts[:-1]} - {None} for name in names]
    if all(len(word) == 1 for word in words) and len(set().union(*words)) > 1:
        return [
            f"the folders of the {len(names)} paths seem to be splits and are not used: for that give a column split"
        ]
    if split_word(path.stem) != "train":
        return []
    others = [f for f in path.parent.iterdir() if f.suffix == path.suffix and f != path and split_word(f.stem)]
    if not others:
        return []
    beside = few(sorted(other.name for other in others))
    return [f"beside {path.name}, not read: {beside}; to use it, make one table of both, with a column split"]


def _forgotten_separator(classes: Sequence[str], separator: str | None = None) -> list[str]:
    """A note about names that seem to be several: those with `|`, and those with `,` or `;` beside another class.

    Args:
        classes: The names.
        separator: The one that is given.
    """
    for sign in (SEPARATOR, ",", ";"):
        odd = [name for name in classes if sign in name]
        alone = {*classes}
        if sign != SEPARATOR:
            odd = [name for name in odd if any(part.strip() in alone for part in name.split(sign))]
        if odd:
            instead = f" in place of {separator!r}" if separator else ""
            advice = f"if it separates several labels, give data.separator {sign!r}{instead}"
            return [f"classes with {sign} in their names ({few(odd, 3)}): {advice}"]
    return []


def _many(classes: Sequence[str], count: int) -> list[str]:
    """A note where most examples would have a class of their own."""
    if len(classes) < 20 or 2 * len(classes) <= count:
        return []
    return [
        f"{len(classes):,} classes for {count:,} examples: does the column of labels hold numbers or names of each?"
    ]
