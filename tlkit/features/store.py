"""The activation store: arrays on disk that are computed once, found by what they were computed from.

    FOLDER/SPACE/space.json      the description of the space: network, weights, shapes, engine ...
    FOLDER/SPACE/SEGMENT.npy     the activations of some examples, and the examples' keys

A space is named by the SHA-256 of its description and a segment by the SHA-256 of its own bytes. So changed inputs lead
to another name, and damage is noticed: before the first value of a segment is used, its bytes are compared with its
name, and all its values must be finite. A segment is an .npy file with one record (`keys`, `values`), which is mapped
into memory. It is written under a temporary name and then renamed, so it is whole or missing. One process at a time
computes for a space, under a lock that the system releases when the process dies.

Only files with such names, in a folder with a space.json, are ever counted or deleted. Links are not followed.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from tlkit.errors import InvalidInput
from tlkit.features.folders import DESCRIPTION, read_description, segment_files, space_folders, space_name, tidy
from tlkit.features.segments import form_of, keys_of, problem_of, read_head, read_segment
from tlkit.features.space import Space
from tlkit.progress import Progress

GB = 10**9
LIMIT = 20.0  # GB


class Usage(NamedTuple):
    """Usage of the disk by one space.

    Args:
        name: Of its folder.
        label: A short name of the network, for people.
        description: Everything that the values depend on except the example.
        activations: Number of activations; 0 for a converted network (`tlkit.features.converted`).
        size: In bytes.
        used: Time of the last read or write, in seconds since 1970.
        damaged: Files that do not match their name, cannot be read, or hold values that are not finite. Where
            space.json is damaged, all files are: nothing tells what they belong to.
        duplicates: Number of activations stored more than once; 0 unless all files were verified.
        files: Number of files.
    """

    name: str
    label: str
    description: dict[str, Any]
    activations: int
    size: int
    used: float
    damaged: list[Path]
    duplicates: int
    files: int


class Store:
    """A folder of activations.

    Args:
        folder: By default the folder that the environment variable TLKIT_CACHE names, else the platform's folder for
            caches (`~/.cache/tlkit` on Linux). It is created by the first write.
        limit: Maximum size in bytes; the least recently used segments are deleted to make room.

    Raises:
        InvalidInput: the folder is a file.

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     space = Store(folder).space({"network": "an example", "shape": [3], "dtype": "float32"})
    ...     path = space.write([bytes(32)], np.ones((1, 3), np.float32))
    ...     part, row = space.refresh().places[bytes(32)]
    ...     space.segments[part].values[row].tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, limit: float = LIMIT * GB):
        path = folder or os.environ.get("TLKIT_CACHE") or platformdirs.user_cache_dir("tlkit", False)
        self.folder = Path(os.path.expanduser(path)).absolute()  # the working folder may change
        self.limit = limit
        self.used: set[Path] = set()  # segments that this process reads, which are not deleted to make room
        if self.folder.exists() and not self.folder.is_dir():
            raise InvalidInput(f"the activation store is {str(self.folder)!r}, which is a file: give a folder")

    def space(self, description: Mapping[str, Any], label: str = "") -> Space:
        """Return the space of a description.

        Args:
            description: Any JSON, with the `shape` and `dtype` of an activation.
            label: A short name of the network, for people.
        """
        return Space(description, label, self, self.folder / space_name(description))

    def usage(self, verify: bool = False) -> list[Usage]:
        """Return the usage of each space, the last used first.

        Args:
            verify: Read every file and compare it with its name, with a progress line on stderr.
        """
        folders = space_folders(self.folder)
        if verify:
            with _verifying(folders) as progress:
                usages = [_usage(folder, progress) for folder in folders]
        else:
            usages = [_usage(folder) for folder in folders]
        return sorted(usages, key=lambda usage: -usage.used)

    def make_room(self, size: int) -> int:
        """Delete the least recently used segments until `size` more bytes fit the limit.

        Returns:
            The number of bytes deleted.

        Raises:
            OSError: the segments that this process uses and `size` exceed the limit, and nothing was deleted; or a
                segment cannot be deleted.
        """
        if self.limit == math.inf:
            return 0
        files = []
        for folder in space_folders(self.folder):
            files += [(status.st_mtime, status.st_size, path) for path, status in segment_files(folder).items()]
        excess = sum(length for _, length, _ in files) + size - self.limit
        if excess <= 0:
            return 0
        spare = sorted(file for file in files if file[2] not in self.used)
        freed, emptied = 0, set()
        if sum(length for _, length, _ in spare) >= excess:
            for _, length, path in spare:
                if freed >= excess:
                    break
                # A file that another process has just deleted counts as freed too, so that no further one is deleted.
                # It stays where it is another user's or, on Windows, in use by another process.
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
                    freed += length
                    emptied.add(path.parent)
        for folder in emptied:
            tidy(folder)
        if freed < excess:
            raise OSError(errno.EDQUOT, f"the limit of {self.limit / GB:g} GB is reached")
        return freed

    def clear(self) -> tuple[int, int]:
        """Delete damaged and unfinished files, and spaces without segments.

        Returns:
            The number of damaged or unfinished files, and their size in bytes.

        Raises:
            OSError: a file could not be deleted; all others were.
        """
        count, size, failed = 0, 0, None
        folders = space_folders(self.folder)
        with _verifying(folders) as progress:
            for folder in folders:
                for path in _usage(folder, progress).damaged:
                    try:
                        length = path.stat().st_size
                        path.unlink()
                        count, size = count + 1, size + length
                    except FileNotFoundError:
                        pass
                    except OSError as error:
                        failed = error
                unfinished = tidy(folder)
                count, size = count + len(unfinished), size + sum(unfinished)
        if failed:
            raise failed
        return count, size


def _verifying(folders: Sequence[Path]) -> Progress:
    return Progress("verifying", sum(len(segment_files(folder)) for folder in folders), "files")


def _usage(folder: Path, progress: Progress | None = None) -> Usage:
    """The usage of a space; where progress is to be shown, every file is read and verified."""
    readable = read_description(folder)
    label, description = readable or ("", {})
    segments = segment_files(folder)
    damaged = [] if readable else [path for path in (folder / DESCRIPTION, *segments) if path.exists()]
    seen: set[bytes] = set()
    count = 0
    for path, status in segments.items():
        try:
            if readable and progress:
                segment, file = read_segment(path, description)
                if problem_of(path, file.content, segment.values):
                    raise ValueError
                seen.update(keys_of(segment.keys))
                count += len(segment.keys)
            elif readable:
                with open(path, "rb", buffering=0) as opened:
                    count += read_head(opened, status.st_size, form_of(description))[1]
        except (FileNotFoundError, PermissionError):
            pass  # another process is making room, or the file is another user's
        except (OSError, ValueError):
            damaged.append(path)
        if progress:
            progress.advance()
    used = [status.st_mtime for status in segments.values()]
    if not used:
        with contextlib.suppress(OSError):
            used = [folder.stat().st_mtime]
    return Usage(
        name=folder.name,
        label=label or f"unknown {folder.name[:8]}",
        description=description,
        activations=0 if description.get("dtype") == "uint8" else count,
        size=sum(status.st_size for status in segments.values()),
        used=max(used, default=0.0),
        damaged=damaged,
        duplicates=count - len(seen) if progress else 0,
        files=len(segments) + 1,
    )
