"""Files and folders at URLs, listed and read by fsspec; nothing is written there."""

from __future__ import annotations

import errno
import functools
import os
import posixpath
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, ClassVar, NamedTuple
from urllib.parse import quote, unquote

from tlkit.errors import InvalidInput, Unavailable, connection_reason, first_line
from tlkit.untrusted import PROTOCOLS, check_url, is_url

UNLISTED = ("http", "https")
"""Protocols without a listing of folders."""

_BLOCK = 2**20  # bytes that are copied at a time
# `Path` is what it is used as; at run time it is no `Path`, so that it never means a file of this machine.
if TYPE_CHECKING:
    _Base = Path
else:
    _Base = PurePosixPath


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, and the path in it.

    Raises:
        InvalidInput: the URL has another protocol, or a password.
        Unavailable: a package that reads such URLs is missing.
    """
    protocol, _, rest = url.partition("://")
    if protocol not in PROTOCOLS or "@" in rest.partition("/")[0]:
        check_url(url)
    try:
        system = _opened(protocol)
    except ImportError as error:
        raise Unavailable(
            f"{protocol}:// needs a package that is missing ({first_line(error)}): pip install 'tlkit[remote]', which "
            "brings fsspec and s3fs; gs:// needs gcsfs too, az:// and abfs:// need adlfs"
        ) from error
    return system, system._strip_protocol(url)


@functools.cache
def _opened(protocol: str) -> Any:
    import fsspec

    return fsspec.filesystem(protocol, use_listings_cache=False)  # which would hold a kilobyte for each file


def of_url(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call a function of fsspec; whatever it raises, which differs by storage, becomes an OSError.

    Raises:
        OSError: the storage does not give what was asked for.
    """
    try:
        return function(*args, **options)
    except FileNotFoundError as error:
        cause = error.__cause__  # of HTTP, fsspec says so whatever it is
        if type(cause).__module__.startswith("aiohttp") and getattr(cause, "status", 0) != 404:
            raise OSError(errno.EIO, connection_reason(cause)) from error  # type: ignore[arg-type]
        raise FileNotFoundError(errno.ENOENT, "no such file or folder") from error
    except Exception as error:  # botocore's, aiohttp's and others
        raise OSError(errno.EIO, connection_reason(error)) from error


class _Folder(NamedTuple):
    folders: list[str]
    links: set[str]  # folders that are links to others
    files: dict[str, int]  # sizes by name


class UrlPath(_Base):
    """A file or folder at a URL, with the methods of `pathlib.Path` that list; `url_path` makes one.

    Each folder is listed once. Where a storage lists none (see `UNLISTED`), whatever is asked for counts as a file.
    """

    __slots__ = ()
    storage: ClassVar[_Storage]

    def __str__(self) -> str:
        text = super().__str__()
        head = self.storage.head
        return f"{self.storage.prefix}{text[len(head) + 1 :]}" if text.startswith(f"{head}/") else text

    def __truediv__(self, name: Any) -> UrlPath:
        if ".." in PurePosixPath(name).parts:
            return type(self)(posixpath.normpath(f"{super().__str__()}/{name}"))
        return super().__truediv__(name)

    @property
    def url(self) -> str:
        """Its URL, with escapes where the protocol needs them."""
        text = str(self)
        return (
            text if self.storage.listed else self.storage.prefix + quote(text.removeprefix(self.storage.prefix), "/:")
        )

    @property
    def size(self) -> int | None:
        """Bytes of a file, as they were listed; None where they were not."""
        return self.storage.folder(self.parent).files[self.name] if self.storage.listed else None

    def iterdir(self) -> Iterator[UrlPath]:  # type: ignore[override]
        """Give what a folder holds, without an order.

        Raises:
            OSError: the storage does not answer, or there is no such folder.
        """
        if self.storage.listed:
            found = self.storage.folder(self)
            yield from (self / name for name in (*found.folders, *found.files))

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        if not self.storage.listed:
            return False
        if self in self.storage.folders:
            return True
        known = self.storage.folders.get(self.parent)
        return self.storage.is_folder(self) if known is None else self.name in known.folders

    def is_file(self) -> bool:
        """Whether it is a file."""
        if not self.storage.listed:
            return str(self).startswith(self.storage.prefix)
        try:
            return self.name in self.storage.folder(self.parent).files
        except FileNotFoundError:
            return False

    def exists(self) -> bool:
        """Whether there is such a file or folder."""
        return self.is_dir() or self.is_file()

    def is_symlink(self) -> bool:
        """Tell that it is no link: at URLs there are none."""
        return False

    def walk(self) -> Iterator[tuple[UrlPath, list[str], list[str]]]:
        """Give each folder in and below it, with the names of its folders, of which some may be removed, and files."""
        found = self.storage.folder(self)
        inner = [name for name in found.folders if name not in found.links]
        yield self, inner, list(found.files)
        for name in inner:
            yield from (self / name).walk()


class _Storage:
    """Where a `UrlPath` is, and what was listed there.

    Args:
        url: Of any file or folder in it.
    """

    def __init__(self, url: str):
        check_url(url)
        self.system, _ = file_system(url)
        protocol = url.partition("://")[0]
        self.head = f"{protocol}:"  # the first part of all paths
        self.prefix = f"{protocol}:///" if protocol == "file" else f"{protocol}://"
        self.listed = protocol not in UNLISTED
        self.folders: dict[UrlPath, _Folder] = {}
        self.missing: set[UrlPath] = set()

    def folder(self, path: UrlPath) -> _Folder:
        """List a folder."""
        if path not in self.folders:
            inside = self.inside(path)
            found = _Folder([], set(), {})
            for entry in self._entries(path, inside):
                name = entry["name"].rstrip("/").rpartition("/")[2]
                if entry["name"].strip("/") == inside.strip("/") or name in ("", ".", ".."):
                    continue  # a name without a file, by which some programs mark a folder
                if entry["type"] == "directory":
                    found.folders.append(name)
                    found.links.update([name] if entry.get("islink") else [])
                elif entry["type"] == "file":
                    found.files[name] = int(entry["size"])
            self.folders[path] = found
        return self.folders[path]

    def _entries(self, path: UrlPath, inside: str) -> list[dict[str, Any]]:
        """List a folder, once: a table may name a missing one in each of its rows."""
        if path in self.missing:
            raise FileNotFoundError(errno.ENOENT, "no such file or folder", str(path))
        try:
            entries: list[dict[str, Any]] = of_url(self.system.ls, inside, detail=True)
        except FileNotFoundError:
            self.missing.add(path)
            raise
        return entries

    def inside(self, path: UrlPath) -> str:
        """Give fsspec's path of a file or folder."""
        if not str(path).startswith(self.prefix):  # such as /etc or ../../etc in a table
            raise FileNotFoundError(errno.ENOENT, "no such file or folder", str(path))
        return str(self.system._strip_protocol(str(path)))

    def is_folder(self, path: UrlPath) -> bool:
        try:
            kind = of_url(self.system.info, self.inside(path))["type"]
        except FileNotFoundError:
            return False
        return bool(kind == "directory")


def url_path(url: str) -> UrlPath:
    """Return a file or folder at a URL; what is listed of it and those around it is listed once.

    Raises:
        InvalidInput: it is no URL that is read; see `check_url`.
        Unavailable: a package that reads it is missing.

    >>> path = url_path("https://host/my%20photos/list.csv")
    >>> str(path.parent / "a 1.jpg"), (path.parent / "a 1.jpg").url
    ('https://host/my photos/a 1.jpg', 'https://host/my%20photos/a%201.jpg')
    """
    place = _Storage(url)

    class At(UrlPath):
        __slots__ = ()
        storage = place

    path = url.partition("://")[2]
    return At(f"{place.head}/{path if place.listed else unquote(path)}")


def path_of(path: str | Path) -> Path:
    """Return a file or folder, on disk or at a URL; see `url_path`."""
    return url_path(str(path)) if is_url(path) else Path(path)


def opener(path: str | Path) -> Callable[[], IO[bytes]]:
    """Return what opens a file to be read, again at each call; one at a URL is copied to the disk once.

    Raises:
        InvalidInput: there is no such file at the URL.
        Unavailable: the storage does not answer.
    """
    if not is_url(path):
        return lambda: open(path, "rb")
    url = str(path)
    check_url(url)
    system, inside = file_system(url)
    try:
        return _Copy(system, inside)
    except OSError as error:
        raise no_answer(url, error) from error


class _Copy:
    """A copy of a file at a URL, on the disk until nobody needs it any more."""

    def __init__(self, system: Any, inside: str):
        file, self.name = tempfile.mkstemp(prefix="tlkit-")
        weakref.finalize(self, os.unlink, self.name)
        with open(file, "wb") as copy, of_url(system.open, inside, "rb") as source:
            while block := of_url(source.read, _BLOCK):
                copy.write(block)

    def __call__(self) -> IO[bytes]:
        return open(self.name, "rb")


def no_answer(url: str | Path, error: OSError) -> Exception:
    """Return the error to be raised where a URL cannot be read: the user's mistake where nothing is there."""
    kind = InvalidInput if isinstance(error, FileNotFoundError) else Unavailable
    return kind(f"data.path is {str(url)!r}, which cannot be read: {error.strerror or error}")
