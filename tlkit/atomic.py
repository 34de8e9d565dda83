"""Files and folders that are written whole or not at all, even where the process is killed or the disk is full."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
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


@contextlib.contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """Give a folder to write to, which gets its name only when the block has ended without an error.

    Args:
        path: Of the folder, which does not exist or is empty; those above it are made.

    Raises:
        OSError: it is not empty.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "deep" / "letters"
    >>> with writing_folder(path) as folder:
    ...     _ = (folder / "a.txt").write_bytes(b"whole")
    >>> (path / "a.txt").read_text(), len(list(path.parent.iterdir()))
    ('whole', 1)
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        temporary.mkdir()
        yield temporary
        if path.is_dir():
            path.rmdir()  # refuses one that is not empty
        os.rename(temporary, path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all."""
    with writing(path) as file:
        file.write(text.encode())
