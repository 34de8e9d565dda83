"""The folder of a journal, and its lock: what `tlkit.journal` sends, as it lies on disk.

`header.json` says whose entries they are, each line of `journal.jsonl` is an entry, `state.json` says how far they are
sent, and `files` holds the files that they name. Anybody may have written them: nothing is taken on trust.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from tlkit.display import say
from tlkit.errors import InvalidInput, first_line

Entry = dict[str, Any]


def header(folder: Path) -> Entry:
    """Read whose entries they are.

    Raises:
        InvalidInput: it is no journal.
    """
    with _readable(folder):
        found = json.loads((folder / "header.json").read_text(encoding="utf-8"))
        if not all(isinstance(found[name], str) for name in ("run_id", "experiment_id", "uri")):
            raise ValueError("header.json")
        return found


def state(folder: Path) -> dict[str, Any]:
    """Read how far the entries are sent; empty where none is.

    Raises:
        InvalidInput: it is no journal.
    """
    if not (folder / "state.json").exists():
        return {}
    with _readable(folder):
        found = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if not isinstance(found["next"], int) or not all(isinstance(number, int) for number in found["refused"]):
            raise ValueError("state.json")
        return found


def entries(folder: Path) -> list[Entry]:
    """Read a journal's entries, and cut off what a kill in the middle of one has left."""
    path, found = folder / "journal.jsonl", []
    if not path.exists():
        return []
    *lines, rest = path.read_bytes().split(b"\n")
    if rest:
        os.truncate(path, path.stat().st_size - len(rest))
    for line in lines:
        try:
            entry = json.loads(line)
            found.append({"n": int(entry["n"]), "do": str(entry["do"]), **entry})
        except (ValueError, KeyError, TypeError):
            tell(f"{path} has a line that is no entry: it is left out")
    return found


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{folder} is no journal of a run: {first_line(error)}; delete it if it is of no use"
        ) from error


def append(path: Path, line: bytes) -> None:
    """Add a line whole or not at all."""
    with path.open("ab") as file:
        size = file.tell()
        try:
            file.write(line)
            file.flush()
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(path, size)
            raise


def lock(folder: Path) -> filelock.BaseFileLock:
    """Make the lock of a journal, for whoever is at work on it."""
    # Beside the folder, as whoever only looks at the lock makes its file, and this would make the folder anew.
    return filelock.FileLock(f"{folder}.lock", thread_local=False)  # the thread that sends may be the one to let it go


def release(held: filelock.BaseFileLock, folder: Path) -> None:
    """Let a lock go, and clean up what the last one leaves."""
    with contextlib.suppress(OSError):
        if not folder.exists():
            Path(held.lock_file).unlink(missing_ok=True)
    held.release()
    with contextlib.suppress(OSError):
        folder.parent.rmdir()  # if nothing else is left


def in_use(folder: Path) -> bool:
    """Whether a process is at work on a journal, or it has just gone."""
    held = lock(folder)
    try:
        held.acquire(timeout=0)
    except (filelock.Timeout, OSError):  # of another user, it is not ours
        return True
    release(held, folder)
    return not folder.exists()


def modified(folder: Path) -> float:
    """When a journal was changed last; 0 where it has gone."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def tell(text: str) -> None:
    """Tell the user something, if there is still somebody to tell."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # of a stderr that is closed
        say(text, error=True)
