"""Files that are written whole or not at all, even where the process is killed or the disk is full."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def writing(path: Path, replace: bool = True) -> Iterator[BinaryIO]:
    """Write a file that gets its name, or replaces an older one, only when the block has ended without an error.

    Args:
        path: Of the file.
        replace: Whether it may replace an older one.

    Raises:
        FileExistsError: it may not, and there is one now.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "letter.txt"
    >>> with writing(path) as file:
    ...     _ = file.write(b"whole")
    >>> path.read_text(), len(list(path.parent.iterdir()))
    ('whole', 1)
    """
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:  # not by tempfile, whose files others may not read
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power failure could leave the name without the bytes
        if replace or not _linked(temporary, path):
            os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = str(path)  # a full disk says so without saying where
        raise


def _linked(temporary: Path, path: Path) -> bool:
    """Give a file its name where there is none yet; return False where the file system has no links, as on FAT."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        return False
    temporary.unlink()
    return True


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all."""
    with writing(path) as file:
        file.write(text.encode())
