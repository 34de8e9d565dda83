"""Source `csv`: a table of files, their labels and, if wanted, their splits."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tlkit.data.images import Content
from tlkit.data.sources.examples import SPLITS, Examples, modality_of, one_label_each, shown_names
from tlkit.display import cut, few, shown
from tlkit.errors import InvalidInput
from tlkit.labels import SEPARATOR


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

    name: str
    content: Content
    labels: set[str]
    split: str | None


def csv_file(path: str | Path, separator: str | None = None) -> Examples:
    """List the files in a CSV file (UTF-8) with the columns path, label and, optionally, split.

    Paths are relative to the folder of the CSV file, and may be written with escapes as in `Examples.names`. The split
    is train, val or test in every row, or there is no such column. Other columns are ignored.

    Args:
        path: Of the CSV file.
        separator: Separates several labels of an example in the column, which may then be called labels; an empty cell
            is no label. Blanks around a label, and repeated labels, are dropped.

    Raises:
        InvalidInput: the file, a column, an example or a value is missing or wrong, and the message names the line; or
            the files are of several modalities.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = _rows(path, csv.DictReader(file), separator)
    except OSError as error:
        raise InvalidInput(f"data.path is {str(path)!r}: {error.strerror}; data.source csv needs a file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"{path}: not a CSV file in UTF-8 ({error})") from error
    if not rows:
        raise InvalidInput(f"{path}: no photo is listed")
    classes = sorted(set().union(*(row.labels for row in rows)), key=shown)
    if not classes:
        raise InvalidInput(f"{path}: no photo has a label: give two different ones or more")
    if len(classes) < 2:
        raise InvalidInput(f"{path}: a single class, {classes[0]!r}: give two or more")
    position = {label: i for i, label in enumerate(classes)}
    names = [row.name for row in rows]
    kind = modality_of(str(path), names).name
    labels: list[int] | np.ndarray
    if separator is None:
        labels = [position[label] for row in rows for label in row.labels]  # one each
        notes = _forgotten_separator(classes)
    else:
        labels = np.zeros((len(rows), len(classes)), np.float32)
        for i, row in enumerate(rows):
            labels[i, [position[label] for label in row.labels]] = 1
        notes = one_label_each(labels, "leave data.separator out")
    classes, names = shown_names(classes, "classes", notes), shown_names(names, kind, notes)
    splits = [row.split for row in rows]
    return Examples(names, labels, classes, splits, [row.content for row in rows], notes, kind, separator)


def _rows(path: str | Path, reader: csv.DictReader[str], separator: str | None) -> list[_Row]:
    columns = list(reader.fieldnames or [])
    label = "labels" if separator and "label" not in columns and "labels" in columns else "label"
    for column in ("path", label):
        if column not in columns:
            raise InvalidInput(
                f"{path}, line 1: no column {column!r} among {columns}: give a header path,label[,split]"
            )
    for column in ("path", label, "split"):
        if columns.count(column) > 1:
            raise InvalidInput(f"{path}, line 1: {columns.count(column)} columns {column!r}: keep one")
    files = Files(Path(path).parent)
    return [_row(f"{path}, line {reader.line_num}", files, cells, label, separator) for cells in reader]


def _row(where: str, files: Files, cells: dict[str, str | None], column: str, separator: str | None) -> _Row:
    """Check a row; `where` begins its errors, and `column` holds its labels."""
    name, text = cells["path"] or "", cells[column] or ""
    labels = {part.strip() for part in (text.split(separator) if separator else [text])} - {""}
    if not labels and separator is None:
        raise InvalidInput(f"{where}: the label is empty")
    try:
        file = files.find(name)
        exists = file.is_file()
    except OSError as error:  # the name is too long, or a folder in it is closed to us
        raise InvalidInput(f"{where}: the photo {cut(name, 100)!r} cannot be read: {error.strerror}") from error
    if not exists:
        raise InvalidInput(f"{where}: no such photo: {str(files.parent / name)!r}")
    if "split" not in cells:
        return _Row(name, file, labels, None)
    split = (cells["split"] or "").strip().lower()
    if split not in SPLITS:
        raise InvalidInput(f"{where}: split is {cells['split']!r}: train, val or test, or leave the column out")
    return _Row(name, file, labels, SPLITS[split])


def _forgotten_separator(classes: Sequence[str]) -> list[str]:
    odd = [name for name in classes if SEPARATOR in name]
    advice = f"if it separates several labels, give data.separator {SEPARATOR!r}"
    return [f"classes with {SEPARATOR} in their names ({few(odd, 3)}): {advice}"] if odd else []
