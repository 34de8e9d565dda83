"""What an example is before it is decoded, and the one place where its bytes are read: on disk, in a tar file, afar."""

from __future__ import annotations

import errno
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar, overload

import numpy as np

from tlkit.data.urls import file_system, of_url
from tlkit.untrusted import check_memory, is_url

Item = TypeVar("Item")

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
        if self.size == 0:
            return b""
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


class Made(Sequence[Item]):
    """Where examples are, each made when it is asked for; a slice is a list of them."""

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> list[Item]: ...
    def __getitem__(self, place: int | slice) -> Item | list[Item]:
        if isinstance(place, slice):
            return [self.at(each) for each in range(*place.indices(len(self)))]
        return self.at(place)

    def at(self, place: int) -> Item:
        """Make one."""
        raise NotImplementedError


class Paths(Made[Path]):
    """Paths of files in a folder, each made when it is asked for: a million of them would take 0.5 GB.

    >>> [path.as_posix() for path in Paths(Path("photos"), ["cat/1.jpg", "dog/1.jpg"])]
    ['photos/cat/1.jpg', 'photos/dog/1.jpg']
    """

    def __init__(self, folder: Path, names: Sequence[str]):
        self.folder, self.names = folder, names

    def __len__(self) -> int:
        return len(self.names)

    def at(self, place: int) -> Path:
        """Make one."""
        return self.folder / self.names[place]


class Pieces(Made[Piece]):
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

    def at(self, place: int) -> Piece:
        """Make one."""
        source, start, size = self.places[place].tolist()
        return Piece(self.sources[source], start, size)


class UrlFiles(Made[Piece]):
    """Files below a folder at a URL, each made when it is asked for.

    Args:
        url: Of the folder.
        names: Of the files, below the folder.
        sizes: (n,), int64: bytes of each.

    >>> UrlFiles("s3://bucket/photos", ["cat/1.jpg"], np.array([90]))[0]
    Piece(source='s3://bucket/photos/cat/1.jpg', start=0, size=90)
    """

    def __init__(self, url: str, names: Sequence[str], sizes: np.ndarray):
        self.url, self.names, self.sizes = url, names, sizes

    def __len__(self) -> int:
        return len(self.names)

    def at(self, place: int) -> Piece:
        """Make one."""
        return Piece(f"{self.url}/{self.names[place]}", 0, int(self.sizes[place]))
