"""Files with the answers for many photos, a row for each: CSV, lines of JSON, or Parquet."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tlkit.atomic import writing
from tlkit.display import shown
from tlkit.errors import InvalidInput
from tlkit.labels import SEPARATOR
from tlkit.serving.answers import TOP, Answer, rounded

SUFFIXES = (".csv", ".jsonl", ".parquet")
COLUMNS = [
    "path", "label", "probability",
    *(f"{column}_{place}" for place in range(1, TOP + 1) for column in ("label", "probability")),
    "label_set", "novel", "error",
]  # fmt: skip
"""Of every file, whatever the number of classes."""

ROWS = 4096  # that are in memory at a time, before they are written to a Parquet file

Row = dict[str, str | float | None]


def check(path: str) -> None:
    """Refuse a file that cannot be written.

    Raises:
        InvalidInput: it exists, its folder does not or cannot be written to, or it is none of these kinds.
    """
    file, folder = Path(path), Path(path).absolute().parent
    if file.suffix.lower() not in SUFFIXES:
        raise InvalidInput(f"output is {path!r}: give a name that ends in {', '.join(SUFFIXES)}")
    if os.path.lexists(file):
        raise InvalidInput(f"output is {path!r}, which exists and is not overwritten: give another --output")
    if not folder.is_dir():
        raise InvalidInput(f"output is {path!r}; there is no folder {str(folder)!r}")
    if not os.access(folder, os.W_OK):
        raise InvalidInput(f"output is {path!r}; the folder {str(folder)!r} cannot be written to")
    if file.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise InvalidInput(f"output is {path!r}, and Parquet needs pyarrow: pip install pyarrow, or give .csv")


def row(path: str, answer: Answer | None, error: str = "") -> Row:
    """Make the row of a photo.

    Args:
        path: Of the photo; control characters and bytes that are not UTF-8 are written as escapes.
        answer: None where there is none.
        error: Why there is none.

    >>> list(row("a.jpg", Answer("cat", 0.75, [("cat", 0.75), ("dog", 0.25)])).values())
    ['a.jpg', 'cat', 0.75, 'cat', 0.75, 'dog', 0.25, None, None, None, None, None, None, None, None, None]
    """
    cells: Row = dict.fromkeys(COLUMNS)
    cells["path"], cells["error"] = shown(path), shown(error) or None
    if answer:
        cells["label"], cells["probability"] = answer.label, rounded(answer.probability)
        cells["label_set"] = None if answer.label_set is None else SEPARATOR.join(answer.label_set)
        cells["novel"] = answer.novel
        for place, (name, share) in enumerate(answer.top[:TOP], 1):
            cells[f"label_{place}"], cells[f"probability_{place}"] = name, rounded(share)
    return cells


@contextlib.contextmanager
def writing_rows(path: str) -> Iterator[Callable[[Row], None]]:
    """Give a function that writes a row; the file gets its name only when the block has ended without an error.

    Args:
        path: Of the file, whose suffix is one of `SUFFIXES`.

    Raises:
        FileExistsError: there is such a file now.
    """
    kind = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[Path(path).suffix.lower()]
    with writing(Path(path), replace=False) as file, kind(file) as write:
        yield write


@contextlib.contextmanager
def _csv(file: BinaryIO) -> Iterator[Callable[[Row], None]]:
    line = io.StringIO()
    writer = csv.DictWriter(line, COLUMNS, lineterminator="\n")

    def flush() -> None:
        file.write(line.getvalue().encode())
        line.seek(0)
        line.truncate()

    def write(cells: Row) -> None:
        writer.writerow(cells)
        flush()

    writer.writeheader()
    flush()
    yield write


@contextlib.contextmanager
def _jsonl(file: BinaryIO) -> Iterator[Callable[[Row], None]]:
    def write(cells: Row) -> None:
        file.write(json.dumps(cells, ensure_ascii=False).encode() + b"\n")

    yield write


@contextlib.contextmanager
def _parquet(file: BinaryIO) -> Iterator[Callable[[Row], None]]:
    import pyarrow
    from pyarrow import parquet

    types = {name: pyarrow.float64() if name.startswith("probability") else pyarrow.string() for name in COLUMNS}
    types["novel"] = pyarrow.bool_()
    schema = pyarrow.schema(list(types.items()))
    rows: list[Row] = []
    writer: Any = parquet.ParquetWriter(file, schema)

    def flush() -> None:
        writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
        rows.clear()

    def write(cells: Row) -> None:
        rows.append(cells)
        if len(rows) == ROWS:
            flush()

    try:
        yield write
        flush()
        writer.close()
    except BaseException:
        with contextlib.suppress(Exception):  # it would write the end of a file that is thrown away, perhaps in vain
            writer.close()
        raise
