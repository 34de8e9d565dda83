"""JSON from outside, and files that are read without following links."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LONGEST_JSON = 64 * 2**20  # bytes
DEEPEST_JSON = 100  # levels of lists and objects inside each other


def parse_json(content: str | bytes, what: str) -> Any:
    """Parse JSON from outside.

    Raises:
        ValueError: it is not JSON, or too large or nested too deeply to be one of ours.

    >>> parse_json('{"a": 1}', "state.json")
    {'a': 1}
    >>> parse_json("[" * 100_000, "state.json")
    Traceback (most recent call last):
        ...
    ValueError: state.json is nested too deeply
    """
    if len(content) > LONGEST_JSON:
        raise ValueError(f"{what} has {len(content):,} bytes, more than {LONGEST_JSON:,}")
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply") from None
    except MemoryError:
        raise ValueError(f"{what} is too large for the memory") from None
    level, depth = [value], 0
    while level := [inner for outer in level for inner in _containers(outer)]:
        depth += 1
        if depth > DEEPEST_JSON:  # code that recurses over the value later need not check again
            raise ValueError(f"{what} is nested too deeply")
    return value


def _containers(value: object) -> list[object]:
    """List the lists and objects directly inside a value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [entry for entry in inner if isinstance(entry, dict | list)]


def read_json(path: Path) -> Any:
    """Read a file of JSON with `parse_json`; links are not followed.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, too large, or a link.
    """
    return parse_json(read_bytes(path, LONGEST_JSON + 1), path.name)


def read_bytes(path: Path, most: int = -1) -> bytes:
    """Read a regular file, or its first bytes; links are not followed, and pipes are not waited for.

    Raises:
        OSError: it cannot be read.
        ValueError: it is a link, or not a file.
    """
    if path.is_symlink() or not path.is_file():
        path.lstat()  # raises where there is nothing
        raise ValueError(f"{path.name} is a link or not a file")
    with open(path, "rb") as file:
        return file.read(most)
