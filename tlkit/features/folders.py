"""Folders of the store: which files in them belong to it. No other file is counted, read or deleted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from tlkit import atomic
from tlkit.features.segments import form_of

DESCRIPTION = "space.json"
LONGEST_DESCRIPTION = 2**16  # bytes
_SPACE = re.compile(r"[0-9a-f]{32}")
_SEGMENT = re.compile(r"[0-9a-f]{32}\.npy")
_UNFINISHED = re.compile(r"\.([0-9a-f]{32}|space)\..*\.part")


def space_name(description: Mapping[str, Any]) -> str:
    """Return the name of the folder of a space: the first half of the SHA-256 of its description.

    >>> space_name({"shape": [3]}) == space_name({"shape": [4]})
    False
    """
    return hashlib.sha256(json.dumps(dict(description), sort_keys=True).encode()).hexdigest()[:32]


def space_folders(folder: Path) -> list[Path]:
    """List the folders of spaces in a store's folder: those with such a name and a readable description."""
    try:
        with os.scandir(folder) as entries:
            named = [entry for entry in entries if _SPACE.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    paths = [folder / entry.name for entry in named]
    return [path for path in paths if _is_plain(path / DESCRIPTION) and os.access(path / DESCRIPTION, os.R_OK)]


def read_description(folder: Path) -> tuple[str, dict[str, Any]] | None:
    """Read a space's label and description; None where there is no description or it is not of this space."""
    path = folder / DESCRIPTION
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError, KeyError, RecursionError):
        if not _is_plain(path):  # opening a pipe would wait forever
            return None
        with open(path, "rb") as file:
            written = json.loads(file.read(LONGEST_DESCRIPTION))
        label, description = written["label"], dict(written["description"])
        if isinstance(label, str) and space_name(description) == folder.name and form_of(description):
            return label, description
    return None


def write_description(folder: Path, label: str, description: Mapping[str, Any]) -> None:
    """Write a space's label and description, unless they are there already."""
    if read_description(folder) is None:
        text = json.dumps({"label": label, "description": dict(description)}, indent=1)
        write_file(folder / DESCRIPTION, [text.encode()])


def segment_files(folder: Path) -> dict[Path, os.stat_result]:
    """List the segments in a space's folder."""
    return {folder / name: status for name, status in _files(folder).items() if _SEGMENT.fullmatch(name)}


def unfinished_files(folder: Path) -> dict[Path, os.stat_result]:
    """List the files in a space's folder that were not written completely."""
    return {folder / name: status for name, status in _files(folder).items() if _UNFINISHED.fullmatch(name)}


def write_file(path: Path, blocks: Sequence[bytes]) -> None:
    """Write a file from blocks, whole or not at all."""
    with atomic.writing(path) as file:
        for block in blocks:
            file.write(block)


def tidy(folder: Path) -> list[int]:
    """Delete unfinished files of dead processes, and a space without segments, unless a process is computing for it.

    Returns:
        The size in bytes of each unfinished file.
    """
    sizes = []
    with contextlib.suppress(OSError), filelock.FileLock(folder / ".lock", timeout=0):  # Timeout is an OSError too
        for path, status in unfinished_files(folder).items():
            path.unlink()
            sizes.append(status.st_size)
        if not segment_files(folder):
            (folder / DESCRIPTION).unlink(missing_ok=True)
            (folder / ".lock").unlink(missing_ok=True)
            folder.rmdir()  # fails where a file of the user's is in it
    return sizes


def _is_plain(path: Path) -> bool:
    with contextlib.suppress(OSError):  # missing, or in another user's folder
        return stat.S_ISREG(path.lstat().st_mode)
    return False


def _files(folder: Path) -> dict[str, os.stat_result]:
    """The files of a folder, without links; none where the folder is missing or another user's."""
    files = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # another process may be making room
                if entry.is_file(follow_symlinks=False):
                    files[entry.name] = entry.stat(follow_symlinks=False)
    return files
