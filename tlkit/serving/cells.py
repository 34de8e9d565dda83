"""Read the cells of a request: files in base64, paths, URLs or arrays."""

from __future__ import annotations

import base64
import os
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit.data.modalities.arrays import numbers
from tlkit.display import cut
from tlkit.errors import InvalidInput

if TYPE_CHECKING:
    import pandas as pd

Content = bytes | np.ndarray
"""The content of a file, or an array of finite numbers."""

VARIABLE = "TLKIT_SERVE_PATHS"
FILE_BYTES = 64 * 2**20  # maximum size of a stranger's file
DOWNLOAD_SECONDS = 10.0
# Modules that are loaded where strangers are answered: MLflow's scoring server, and others that serve Python over HTTP.
SERVERS = ("mlflow.pyfunc.scoring_server.app", "uvicorn", "gunicorn", "hypercorn", "mlserver")
SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"  # set by MLflow
_NOT_ALLOWED = f"paths and URLs are read only where the server's operator sets {VARIABLE}=true"


def paths_allowed() -> bool:
    """Return whether paths and URLs are read.

    By default not in a process that has loaded an HTTP server: a stranger could find out which files exist, or make the
    server send requests to other machines. TLKIT_SERVE_PATHS=true allows them there too, TLKIT_SERVE_PATHS=false
    nowhere.
    """
    setting = os.environ.get(VARIABLE, "").lower()
    if setting:
        return setting in ("1", "true", "yes")
    return not (os.environ.get(SERVING, "").lower() == "true" or any(name in sys.modules for name in SERVERS))


def cells_of(table: pd.DataFrame, column: str) -> tuple[list[Any], pd.Index | None]:
    """Return the cells of a column, and the index of the answers.

    Raises:
        InvalidInput: there is no such column, or it is empty.
    """
    if column not in table:
        raise InvalidInput(f"there is no column {column!r}, but {cut(', '.join(map(str, table.columns)))}")
    cells = list(table[column])
    if not cells:
        raise InvalidInput("the table is empty")
    if len(cells) == 1 and isinstance(cells[0], list) and cells[0] and all(isinstance(c, str) for c in cells[0]):
        return cells[0], None  # MLflow makes one row of {"image": ["…", "…"]}
    return cells, table.index


def read_cell(cell: Any, name: str, trusted: bool) -> Content:
    """Return the content of the file that a cell holds or names, or its array.

    Args:
        cell: Anything that a table can hold.
        name: What errors call it, such as `row 0`.
        trusted: Whether paths and URLs are read; see `paths_allowed`.

    Raises:
        InvalidInput: the cell is none of these, or cannot be read.

    >>> read_cell("UE5H", "row 0", trusted=False), read_cell([[1, 2]], "row 1", trusted=False).shape
    (b'PNG', (1, 2))
    """
    if cell is None or (np.isscalar(cell) and cell != cell):
        raise InvalidInput(f"{name} is null")
    if isinstance(cell, Path):
        cell = str(cell)
    if isinstance(cell, str):
        return _read_text(cell.strip(), name, trusted)
    if isinstance(cell, bytes | bytearray | memoryview):
        return bytes(cell)
    if isinstance(cell, list | tuple) or (hasattr(cell, "__array__") and not np.isscalar(cell)):
        return numbers(cell, name)
    raise InvalidInput(f"{name} is {cut(repr(cell))} of type {type(cell).__name__}")


def _read_text(text: str, name: str, trusted: bool) -> bytes:
    """The content of the file that a text holds in base64, or whose path or URL it is."""
    scheme = text[:8].partition(":")[0].lower()
    if scheme == "data" and ":" in text[:8]:
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise InvalidInput(f"{name} is a data URI that is not in base64")
    elif "://" in text[:32]:
        if not trusted:
            raise InvalidInput(f"{name} is a URL: {_NOT_ALLOWED}")
        return _download(text, name)
    elif trusted and _is_file(text):
        try:
            return Path(text).read_bytes()
        except OSError as error:
            raise InvalidInput(f"{name}, {cut(repr(text))}: {error.strerror}") from error
    if not trusted and len(text) > FILE_BYTES * 4 // 3 + 2**20:  # base64 may contain line breaks
        raise InvalidInput(f"{name} is larger than {FILE_BYTES // 2**20} MiB")
    try:
        return decode_base64(text)
    except ValueError as error:
        problem = "is no file and not base64" if trusted else f"is not base64: {_NOT_ALLOWED}"
        raise InvalidInput(f"{name}, {cut(repr(text[:100]))}, {problem}") from error


def decode_base64(text: str) -> bytes:
    """Decode base64, which may contain line breaks and blanks.

    Raises:
        ValueError: it contains anything else.

    >>> decode_base64("UE\\n5H")
    b'PNG'
    """
    return base64.b64decode(text.encode("ascii").translate(None, b" \t\n\r\x0b\x0c"), validate=True)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # longer than a path may be, or with a null character
        return False


def _download(url: str, name: str) -> bytes:
    """Download a file by http or https; redirects to other schemes are not followed."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    end, parts, size = time.monotonic() + DOWNLOAD_SECONDS, [], 0
    try:
        where = f"what {urllib.parse.urlsplit(url).hostname} has"  # the rest of the URL may contain a password or a key
        request = urllib.request.Request(url, headers={"User-Agent": "tlkit"})  # noqa: S310 (see the handlers)
        with opener.open(request, timeout=DOWNLOAD_SECONDS) as answer:
            while part := answer.read1(2**16):
                parts.append(part)
                size += len(part)
                if size > FILE_BYTES:
                    raise InvalidInput(f"{name}: {where} is larger than {FILE_BYTES // 2**20} MiB")
                if time.monotonic() > end:
                    raise InvalidInput(f"{name}: {where} does not come within {DOWNLOAD_SECONDS:g} s")
    except InvalidInput:
        raise
    except Exception as error:  # urllib, http.client, ssl and names that cannot be encoded raise many types
        reason = getattr(error, "reason", error)
        raise InvalidInput(f"{name}: cannot download it: {cut(str(reason))}") from error
    return b"".join(parts)
