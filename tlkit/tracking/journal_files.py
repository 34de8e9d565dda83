"""The folder of a journal, and its lock: what `tlkit.tracking.journal` sends, as it lies on disk.

`header.json` says whose entries they are, each line of `journal.jsonl` is an entry, `state.json` says how far they are
sent, and `files` holds the files that they name. Anybody may have written them: nothing is taken on trust.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from tlkit import untrusted
from tlkit.display import say
from tlkit.errors import InvalidInput, first_line

Entry = dict[str, Any]


def header(folder: Path) -> Entry:
    """Read whose entries they are.

    Raises:
        InvalidInput: it is no journal.
    """
    with _readable(folder):
        found = untrusted.read_json(folder / "header.json")
        for name in ("run_id", "experiment_id"):
            untrusted.identifier(found[name], f"{name} in header.json")
        if not isinstance(found["uri"], str):
            raise ValueError("header.json names no store")
        return found


def state(folder: Path) -> dict[str, Any]:
    """Read how far the entries are sent; empty where none is.

    Raises:
        InvalidInput: it is no journal.
    """
    if not os.path.lexists(folder / "state.json"):
        return {}
    with _readable(folder):
        found = untrusted.read_json(folder / "state.json")
        if not _fits(found, STATE) or not {"next", "refused"} <= set(found):
            raise ValueError("state.json does not say how far the entries are sent")
        if "model_uri" in found:
            untrusted.identifier(found["model_uri"].removeprefix("models:/"), "the model in state.json")
        return found


def entries(folder: Path) -> list[Entry]:
    """Read a journal's entries, and cut off what a kill in the middle of one has left."""
    path, found = folder / "journal.jsonl", []
    if not os.path.lexists(path):
        return []
    with _readable(folder):
        *lines, rest = untrusted.read_bytes(path).split(b"\n")
        if rest:
            os.truncate(path, path.stat().st_size - len(rest))
    odd = 0
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            entry = untrusted.parse_json(line, path.name)
            if _is_entry(entry):
                found.append(entry)
                continue
        odd += 1
    if odd:
        tell(f"{path} has {odd} line{'s that are no entries' if odd > 1 else ' that is no entry'}: left out")
    return found


def _is_entry(entry: Any) -> bool:
    """Whether it is one that a run of this version has written, or one of a version that knows more of them."""
    if not _fits(entry, {"n": _count, "do": str}) or not {"n", "do"} <= set(entry):
        return False
    wanted = ENTRIES.get(entry["do"])
    return wanted is None or (set(entry) >= set(wanted) and _fits(entry, wanted))


def _fits(value: Any, wanted: Mapping[Any, Any]) -> bool:
    """Whether a dictionary has, under each name that there is, what is wanted there: a type, or what tells it."""
    return isinstance(value, dict) and all(
        isinstance(value[name], kind) if isinstance(kind, type) else kind(value[name])
        for name, kind in wanted.items()
        if name in value
    )


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _identifier(value: Any) -> bool:
    return bool(untrusted.identifier(value, "an entry's key"))


def _each(kind: Any) -> Callable[[Any], bool]:
    """What tells a dictionary, all of whose values are of a kind."""

    def holds(value: Any) -> bool:
        return isinstance(value, dict) and _fits(value, dict.fromkeys(value, kind))

    return holds


def _all(kind: Any) -> Callable[[Any], bool]:
    """What tells a list of things of a kind."""

    def holds(value: Any) -> bool:
        return isinstance(value, list) and _each(kind)(dict(enumerate(value)))

    return holds


STATE: dict[str, Any] = {
    "next": _count,
    "refused": _all(_count),
    "model_uri": str,
    "why": str,
    "registered": lambda value: set(value) == {"name", "version", "alias", "reason"} and _each(str)(value),
}
ENTRIES: dict[str, dict[str, Any]] = {
    "metrics": {"values": _each(_number), "step": _count, "time": _count},
    "params": {"values": _each(str)},
    "tags": {"values": _each(str)},
    "inputs": {"values": _all(_each(str))},
    "artifact": {"file": str, "to": str},
    "model": {"file": str, "name": str, "step": _count, "key": _identifier},
    "register": {"name": str},
    "end": {"status": lambda value: value in ("FINISHED", "FAILED", "KILLED"), "time": _count},
    "leave": {},
}
"""What each kind of entry has, and of which type."""


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, MemoryError) as error:
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
