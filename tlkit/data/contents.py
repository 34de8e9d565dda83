"""What an example is before it is decoded, and the one place where its bytes are read: on disk, in a tar file, afar."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from tlkit.errors import InvalidInput, Unavailable, first_line
from tlkit.untrusted import check_memory

PROTOCOLS = ("file", "memory", "s3", "gs", "az", "abfs", "http", "https")
"""Of URLs that are read, by fsspec. Some of its others run programs or open further URLs."""

LARGE = 2**26  # bytes from which on the available memory is looked at before a file is read


class Piece(NamedTuple):
    """A file at a URL, or a part of a file, such as a member of a tar file.

    Args:
        source: Path of a file on disk, or its URL.
        start: Position of the first byte.
        size: Number of bytes; None for all from there on.
    """

    source: str
    start: int = 0
    size: int | None = None

    def read_bytes(self) -> bytes:
        """Read it.

        Raises:
            OSError: it cannot be read, or has less bytes than it should.
            InvalidInput: it would fill the memory.
            Unavailable: a package that reads such URLs is missing.
        """
        if self.size is not None and self.size > LARGE:
            check_memory(self.size, self.source)
        if is_url(self.source):
            system, path = file_system(self.source)
            if self.size is None and (size := of_url(system.size, path)):
                check_memory(size, self.source)
            end = None if self.size is None else self.start + self.size
            content: bytes = of_url(system.cat_file, path, start=self.start or None, end=end)
        else:
            with open(self.source, "rb") as file:
                file.seek(self.start)
                content = file.read(-1 if self.size is None else self.size)
        if self.size is not None and len(content) != self.size:
            raise OSError(errno.EIO, f"has {len(content):,} of its {self.size:,} bytes: has the file changed?")
        return content


Content = Path | Piece | bytes | np.ndarray
"""An example before it is decoded: a file, a part of one, the bytes of a file, or values, such as pixels."""

Named = Collection[tuple[str, Content]]
"""Contents, each with what errors call it."""


@overload
def read(content: Path | Piece | bytes) -> bytes: ...
@overload
def read(content: Content) -> bytes | np.ndarray: ...
def read(content: Content) -> bytes | np.ndarray:
    """Return the bytes of a file, or of a part of one; bytes and values are returned as they are.

    Raises:
        OSError: the file cannot be read.
        InvalidInput: it would fill the memory.
    """
    if isinstance(content, Path):
        if (size := content.stat().st_size) > LARGE:
            check_memory(size, str(content))
        return content.read_bytes()
    return content.read_bytes() if isinstance(content, Piece) else content


class Paths(Sequence[Path]):
    """Paths of files in a folder, each made when it is asked for: a million of them would take 0.5 GB.

    >>> [path.as_posix() for path in Paths(Path("photos"), ["cat/1.jpg", "dog/1.jpg"])]
    ['photos/cat/1.jpg', 'photos/dog/1.jpg']
    """

    def __init__(self, folder: Path, names: Sequence[str]):
        self.folder, self.names = folder, names

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, place: int) -> Path: ...
    @overload
    def __getitem__(self, place: slice) -> Paths: ...
    def __getitem__(self, place: int | slice) -> Path | Paths:
        if isinstance(place, slice):
            return Paths(self.folder, self.names[place])
        return self.folder / self.names[place]


class Pieces(Sequence[Piece]):
    """Parts of a few files, each made when it is asked for.

    Args:
        sources: Paths or URLs of the files.
        places: (n, 3), int64: of each part the position of its file among the sources, its start and its size.

    >>> Pieces(["a.tar"], np.array([[0, 512, 90]]))[0]
    Piece(source='a.tar', start=512, size=90)
    """

    def __init__(self, sources: Sequence[str], places: np.ndarray):
        self.sources, self.places = sources, places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, place: int) -> Piece: ...
    @overload
    def __getitem__(self, place: slice) -> Pieces: ...
    def __getitem__(self, place: int | slice) -> Piece | Pieces:
        if isinstance(place, slice):
            return Pieces(self.sources, self.places[place])
        source, start, size = self.places[place].tolist()
        return Piece(self.sources[source], start, size)


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL.

    >>> is_url("s3://bucket/photos"), is_url("photos/a.png"), is_url("C:/photos")
    (True, False, False)
    """
    return "://" in str(path)


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, and the path in it.

    Raises:
        InvalidInput: the URL has another protocol, several of them, or a password.
        Unavailable: a package that reads such URLs is missing.
    """
    protocol, _, rest = url.partition("://")
    if protocol not in PROTOCOLS or "::" in url:
        raise InvalidInput(f"data.path is {url.partition('@')[0]!r}: URLs begin with {'://, '.join(PROTOCOLS)}://")
    if "@" in rest.partition("/")[0]:
        raise InvalidInput(
            f"data.path is a {protocol}:// URL with a user name or password, which runs would log: give these as the "
            "environment variables of the storage"
        )
    try:
        system = _opened(protocol, rest.partition("/")[0] if protocol.startswith("http") else "")
    except ImportError as error:
        raise Unavailable(
            f"{protocol}:// needs a package that is missing ({first_line(error)}): pip install 'tlkit[remote]', which "
            "brings fsspec and s3fs; gs:// needs gcsfs too, az:// and abfs:// need adlfs"
        ) from error
    return system, system._strip_protocol(url)


@functools.lru_cache(16)
def _opened(protocol: str, host: str) -> Any:
    import fsspec

    return fsspec.filesystem(protocol)


def of_url(function: Any, *args: Any, **options: Any) -> Any:
    """Call a function of fsspec; whatever it raises, which differs by storage, becomes an OSError.

    Raises:
        OSError: the storage does not give what was asked for.
    """
    try:
        return function(*args, **options)
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "no such file or folder") from error
    except Exception as error:  # botocore's, aiohttp's and others
        raise OSError(errno.EIO, first_line(error)) from error
