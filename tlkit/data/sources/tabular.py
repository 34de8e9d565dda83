"""Tables of text: CSV files with commas, semicolons or tabs between their cells, and Parquet files."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, TextIO

from tlkit import untrusted
from tlkit.data.urls import opener
from tlkit.errors import InvalidInput, first_line

DELIMITERS = (",", ";", "\t")
PARQUET = (".parquet", ".pq")
TABLES = (".csv", ".tsv", *PARQUET)
ROW_BYTES = 1000  # that a listed example takes in memory, roughly
END = "\x1e"  # a line that is put after the last: it becomes part of a cell if a quotation mark is open
BEGINNING = 2**20  # characters by which the delimiter is chosen


class Table(NamedTuple):
    """The cells of a table, as text."""

    header: list[str]  # names of the columns, as they are written
    rows: Callable[[], Iterator[tuple[str, list[str]]]]  # where each is, such as "line 2", and a cell for each column


def read_table(path: str | Path, score: Callable[[Sequence[str]], int]) -> Table:
    """Open a table. Its rows are read when they are asked for; those without any text are passed over.

    Args:
        path: Of a Parquet file, by its suffix, or of a CSV file in UTF-8, or in UTF-16 with its mark.
        score: How many of the columns that are looked for are in a header. The cells of a CSV file are divided so that
            there are most of them, and then so that most rows have as many cells as the header.

    Raises:
        InvalidInput: there is no such table, or it is damaged; this may also be raised while rows are read.
    """
    open_file = opener(path)
    if str(path).lower().endswith(PARQUET):
        return _parquet(path, open_file)
    with _csv(path, open_file) as file:
        beginning = file.read(BEGINNING)
        delimiter = max(DELIMITERS, key=lambda delimiter: _fit(beginning, delimiter, score))
        header = next(csv.reader(io.StringIO(beginning, newline=""), delimiter=delimiter), [])

    def rows() -> Iterator[tuple[str, list[str]]]:
        with _csv(path, open_file) as file:
            reader = csv.reader(itertools.chain(file, [END]), delimiter=delimiter)
            next(reader, None)
            begins = reader.line_num + 1
            for cells in reader:
                if cells == [END]:
                    return
                if reader.line_num > begins and _swallows_rows(cells, delimiter, len(header)):
                    raise InvalidInput(
                        f"{path}, line {begins}: a quotation mark is not closed, so that one cell holds the lines "
                        "that follow: remove it, or double it"
                    )
                begins = reader.line_num + 1
                if any(cell.strip() for cell in cells):
                    missing = [""] * (len(header) - len(cells))
                    yield f"line {reader.line_num}", cells[: len(header)] + missing

    return Table(header, rows)


def _swallows_rows(cells: Sequence[str], delimiter: str, count: int) -> bool:
    """Whether a cell of several lines goes to the end of the file, or holds two lines or more that look like rows."""
    inner = [line for cell in cells for line in cell.split("\n")[1:-1]]
    looks_so = len(inner) > 1 and all(line.count(delimiter) == count - 1 for line in inner)
    return looks_so or any(cell.endswith(END) for cell in cells)


@contextlib.contextmanager
def _csv(path: str | Path, open_file: Callable[[], IO[bytes]]) -> Iterator[TextIO]:
    try:
        with open_file() as start:
            utf16 = start.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # as Excel's "Unicode text"
            start.seek(0)
            yield io.TextIOWrapper(start, newline="", encoding="utf-16" if utf16 else "utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"data.path is {str(path)!r}: {error.strerror}; data.source csv needs a file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"{path}: not a CSV file in UTF-8 ({error}): save it as CSV UTF-8") from error


def _fit(beginning: str, delimiter: str, score: Callable[[Sequence[str]], int]) -> tuple[int, float, int]:
    reader = csv.reader(io.StringIO(beginning, newline=""), delimiter=delimiter)
    header = next(reader, [])
    same = [len(row) == len(header) > 1 for _, row in zip(range(100), reader, strict=False)]
    return score(header), sum(same) / max(len(same), 1), len(header)


def _parquet(path: str | Path, open_file: Callable[[], IO[bytes]]) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InvalidInput(f"data.path is {str(path)!r}: a Parquet table needs pyarrow: pip install pyarrow") from error

    @contextlib.contextmanager
    def opened(words: Sequence[str] = ()) -> Iterator[Any]:
        """The file; the values of some columns come as numbers of words, so that equal ones take memory once."""
        try:
            with open_file() as stream, parquet.ParquetFile(stream, read_dictionary=list(words)) as file:
                yield file
        except InvalidInput:
            raise
        except OSError as error:
            raise InvalidInput(f"data.path is {str(path)!r}: {error.strerror or first_line(error)}") from error
        except Exception as error:  # a damaged file raises several of pyarrow's own errors, and of Python's
            raise InvalidInput(f"{path}: not a Parquet table ({first_line(error)})") from error

    with opened() as file:
        types, schema, metadata = pyarrow.types, file.schema_arrow, file.metadata
        groups = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
        untrusted.check_memory(metadata.num_rows * ROW_BYTES + max(groups, default=0), str(path))
    word_types = types.is_string, types.is_large_string, types.is_dictionary
    number_types = types.is_integer, types.is_floating, types.is_boolean
    words = [field.name for field in schema if any(is_type(field.type) for is_type in word_types)]
    header = [field.name for field in schema if any(is_type(field.type) for is_type in (*word_types, *number_types))]

    def rows() -> Iterator[tuple[str, list[str]]]:
        number = 0
        with opened(words) as file:
            for batch in file.iter_batches(4096, columns=header):
                for cells in zip(*(_texts(batch.column(name)) for name in header), strict=True):
                    number += 1
                    if any(cells):
                        yield f"row {number}", list(cells)

    return Table(header, rows)


def _texts(column: Any) -> list[str]:
    """The values of a column of pyarrow as text; "" where one is missing."""
    if hasattr(column, "dictionary"):
        words = [_text(word) for word in column.dictionary.to_pylist()]
        return ["" if number is None else words[number] for number in column.indices.to_pylist()]
    return [_text(value) for value in column.to_pylist()]


def _text(value: object) -> str:
    """A number, a boolean or a text as text; whole numbers without a point: pandas has floats where one is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
