"""The list of segments that were verified and whole, so that each is read from end to end only once."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
import stat
from pathlib import Path

import platformdirs

LARGEST = 2**22  # bytes of the list; then a new one is started
_MARK = re.compile(r"[0-9a-f]{32}")


class Verified:
    """Marks of files that are whole, found by this process or by this user's processes before it.

    The list is the user's own and not part of a store. A mark changes whenever its file is written to, so a file that
    somebody else wrote is not on the list until it was verified. Damage by a failing disk leaves the mark as it is;
    `Store.usage` finds it.

    Args:
        path: Of the list; None keeps it in memory.
    """

    def __init__(self, path: Path | None):
        self.path, self.new = path, list[str]()
        self.whole, self.damaged = set[str | None](), set[str | None]()  # without None
        with contextlib.suppress(OSError, ValueError):
            if path:
                with open(_open_own(path, os.O_RDONLY), encoding="ascii") as file:
                    self.whole.update(line for line in file.read(2 * LARGEST).split("\n") if _MARK.fullmatch(line))

    def add(self, mark: str) -> None:
        """Add the mark of a whole file."""
        if mark not in self.whole:
            self.whole.add(mark)
            self.new.append(mark)

    def save(self) -> None:
        """Append the new marks to the list on disk; where that fails, later processes verify their files again."""
        new, self.new = self.new, []
        if not self.path or not new:
            return
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                if self.path.lstat().st_size > LARGEST:
                    self.path.unlink()
            with open(_open_own(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab", buffering=0) as file:
                file.write("".join(f"{mark}\n" for mark in new).encode())  # in one call: other processes append too


def verified_files() -> Verified:
    """Return this user's list."""
    # Only POSIX systems record when a file was changed in a way that no user can set.
    path = platformdirs.user_state_path("tlkit", False) / "verified"
    return _list_at(path if os.name == "posix" and path.is_absolute() else None)


_list_at = functools.cache(Verified)


def mark_of(path: Path, status: os.stat_result | None = None, inode: tuple[int, int] | None = None) -> str | None:
    """Return a digest of a file's name and state, which no user can restore: the time of change is part of it.

    Args:
        path: Of the file.
        status: Of the file, if it is known.
        inode: Device and inode that the file must have.

    Returns:
        None where the file is missing, or is another one.
    """
    with contextlib.suppress(OSError):
        status = status or path.lstat()
        if inode in (None, (status.st_dev, status.st_ino)):
            state = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
            return hashlib.sha256(f"{path.name} {state}".encode()).hexdigest()[:32]
    return None


def _open_own(path: Path, flags: int) -> int:
    """Open a file that nobody but this user can have written.

    Raises:
        OSError: others can write it, or it cannot be opened.
    """
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        os.close(handle)
        raise PermissionError(errno.EACCES, "others may write it", str(path))
    return handle
