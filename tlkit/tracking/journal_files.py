"""The folder of a journal, and its lock: what `tlkit.tracking.journal` sends, as it lies on disk.

`header.json` says whose entries they are, each line of `journal.jsonl` is an entry, `state.json` says how far they are
sent, and `files` holds the files that they name. Anybody may have written them: nothing is taken on trust.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from tlkit import untrusted
from tlkit.display import say, shown
from tlkit.errors import InvalidInput, Unavailable, first_line

Entry = dict[str, Any]
Check = type | Callable[[Any], bool]

FOLDER = Path("mlruns", "unsent")
ROOM = 5e6  # bytes of disk that the smallest run takes


def header(folder: Path) -> Entry:
    """Read whose entries they are.

    Raises:
        InvalidInput: it is not a journal.
    """
    with _readable(folder):
        values: Entry = untrusted.read_json(folder / "header.json")
        for name in ("run_id", "experiment_id"):
            untrusted.identifier(values[name], f"{name} in header.json")
        if not isinstance(values["uri"], str):
            raise ValueError("header.json names no store")
        return values


def state(folder: Path) -> dict[str, Any]:
    """Read how far the entries are sent; empty where none is.

    Raises:
        InvalidInput: it is not a journal.
    """
    if not os.path.lexists(folder / "state.json"):
        return {}
    with _readable(folder):
        values: dict[str, Any] = untrusted.read_json(folder / "state.json")
        if not _fits(values, STATE) or not {"next", "refused"} <= set(values):
            raise ValueError("state.json does not say how far the entries are sent")
        if "model_uri" in values:
            untrusted.identifier(values["model_uri"].removeprefix("models:/"), "the model in state.json")
        return values


def entries(folder: Path) -> list[Entry]:
    """Read a journal's entries, and cut off what a kill in the middle of one has left."""
    path, entries = folder / "journal.jsonl", []
    if not os.path.lexists(path):
        return []
    with _readable(folder):
        *lines, rest = untrusted.read_bytes(path).split(b"\n")
        if rest:
            os.truncate(path, path.stat().st_size - len(rest))
    damaged = 0
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            entry = untrusted.parse_json(line, path.name)
            if _is_entry(entry):
                entries.append(entry)
                continue
        damaged += 1
    if damaged:
        tell(f"{path}: {damaged} damaged line{'s' if damaged > 1 else ''} left out")
    return entries


def entry_path(folder: Path, entry: Entry) -> Path:
    """Return the file or folder that an entry names, which must be inside the journal, whoever has written it.

    Raises:
        InvalidInput: it is elsewhere, or missing.
    """
    files = (folder / "files").resolve()
    try:
        path = (folder / entry["file"]).resolve()
        inside, exists = path.is_relative_to(files) and path != files, path.exists()
    except (OSError, ValueError):  # longer than a path may be, or with a null character
        inside = False
    if not inside or any(part.is_symlink() for part in path.rglob("*")):
        raise InvalidInput(f"an entry's file {shown(entry['file'])[:200]} is not in the journal {folder}")
    if not exists:
        raise InvalidInput(f"the file {path} is missing")
    return path


def _is_entry(entry: Any) -> bool:
    """Tell whether this is an entry of this version of tlkit, or of one that has more kinds of them."""
    if not _fits(entry, {"n": _count, "do": str}) or not {"n", "do"} <= set(entry):
        return False
    checks = ENTRIES.get(entry["do"])
    return checks is None or (set(entry) >= set(checks) and _fits(entry, checks))


def _fits(value: Any, checks: Mapping[Any, Check]) -> bool:
    """Tell whether the values of a dictionary pass the checks under their names: a type, or a function."""
    return isinstance(value, dict) and all(
        isinstance(value[name], check) if isinstance(check, type) else check(value[name])
        for name, check in checks.items()
        if name in value
    )


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _identifier(value: Any) -> bool:
    return bool(untrusted.identifier(value, "an entry's key"))


def _mapping_of(check: Check) -> Callable[[Any], bool]:
    """Make the check of a dictionary whose values all pass a check."""

    def passes(value: Any) -> bool:
        return isinstance(value, dict) and _fits(value, dict.fromkeys(value, check))

    return passes


def _list_of(check: Check) -> Callable[[Any], bool]:
    """Make the check of a list whose values all pass a check."""

    def passes(value: Any) -> bool:
        return isinstance(value, list) and _mapping_of(check)(dict(enumerate(value)))

    return passes


STATE: dict[str, Check] = {
    "next": _count,
    "refused": _list_of(_count),
    "model_uri": str,
    "why": str,
    "registered": lambda value: set(value) == {"name", "version", "alias", "reason"} and _mapping_of(str)(value),
}
ENTRIES: dict[str, dict[str, Check]] = {
    "metrics": {"values": _mapping_of(_number), "step": _count, "time": _count},
    "params": {"values": _mapping_of(str)},
    "tags": {"values": _mapping_of(str)},
    "inputs": {"values": _list_of(_mapping_of(str))},
    "artifact": {"file": str, "to": str},
    "model": {"file": str, "name": str, "step": _count, "key": _identifier},
    "register": {"name": str},
    "end": {"status": lambda value: value in ("FINISHED", "FAILED", "KILLED"), "time": _count},
    "leave": {},
}
"""The fields of each kind of entry, and their checks."""


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise InvalidInput(
            f"{folder} is not a journal of a run: {first_line(error)}; delete it if it is of no use"
        ) from error


def append(path: Path, line: bytes) -> None:
    """Append a line whole or not at all."""
    with path.open("ab") as file:
        size = file.tell()
        try:
            file.write(line)
            file.flush()
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(path, size)
            raise


def check_room(size: float = ROOM) -> None:
    """Refuse a working folder in which a run could not be stored, before it is begun.

    Args:
        size: Bytes that the run needs, for its model.

    Raises:
        Unavailable: the folder cannot be written to, or has less room.
    """
    folder = FOLDER.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1024))
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise not_writable(folder, error) from error
    finally:
        with contextlib.suppress(OSError):  # something is in them
            folder.rmdir()
            folder.parent.rmdir()
    if free < size:
        raise Unavailable(
            f"{folder.parent} has {free / 1e6:,.1f} MB of room left, and the run needs {size / 1e6:,.1f} MB: make "
            "room, or run from a folder on another disk"
        )


def not_writable(folder: Path, error: OSError) -> Unavailable:
    """Make the error for a folder that cannot be written to."""
    advice = "make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "run from a folder you may write"
    return Unavailable(f"cannot write to {folder}: {error.strerror}; {advice}")


def left(folder: Path = FOLDER) -> list[Path]:
    """List the journals in a folder that no process works on, the oldest first; or the folder itself, if it is one."""
    folder = folder.absolute()
    headers = [folder / "header.json", *folder.glob("*/header.json")]
    journals = [path.parent for path in headers if path.is_file() and not in_use(path.parent)]
    return sorted(journals, key=modified)


def lock(folder: Path) -> filelock.BaseFileLock:
    """Make the lock of a journal, for the process that works on it."""
    # Beside the folder: looking at a lock creates its file, which would create a deleted folder anew.
    return filelock.FileLock(f"{folder}.lock", thread_local=False)  # the sending thread may release it


def release(held: filelock.BaseFileLock, folder: Path) -> None:
    """Release a lock; where the journal has gone, delete the lock's file and an empty parent folder too."""
    with contextlib.suppress(OSError):
        if not folder.exists():
            Path(held.lock_file).unlink(missing_ok=True)
    held.release()
    with contextlib.suppress(OSError):
        folder.parent.rmdir()  # if nothing else is left


def in_use(folder: Path) -> bool:
    """Tell whether a process works on a journal, or it has just gone."""
    held = lock(folder)
    try:
        held.acquire(timeout=0)
    except (filelock.Timeout, OSError):  # of another user, it is not ours
        return True
    release(held, folder)
    return not folder.exists()


def modified(folder: Path) -> float:
    """Return when a journal was last changed; 0 where it has gone."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def tell(text: str) -> None:
    """Print something for the user on stderr, unless that is closed."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # what a closed stderr raises
        say(text, error=True)
