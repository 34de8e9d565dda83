"""Zip and HDF5 files from outside: what they announce is checked before memory is taken for it."""

from __future__ import annotations

import zipfile
from typing import BinaryIO

from tlkit.display import shown
from tlkit.errors import InvalidInput
from tlkit.untrusted.jsonfiles import LONGEST_JSON
from tlkit.untrusted.memory import check_memory

EXPANSION = 100  # times the compressed size up to which data may grow
UNSUSPECTED = 2**27  # bytes up to which any growth is accepted


def member(archive: zipfile.ZipFile, name: str, most: int = LONGEST_JSON) -> bytes:
    """Read a member of a zip file, after a look at its size.

    Raises:
        KeyError: there is none of this name.
        ValueError: there are several, or it is larger than `most` bytes.
        zipfile.BadZipFile: it is damaged.
    """
    members = [info for info in archive.infolist() if info.filename == name]
    if len(members) > 1:
        raise ValueError(f"it holds {len(members)} members {shown(name)}")
    if not members:
        raise KeyError(name)
    if members[0].file_size > most:
        raise ValueError(f"its member {shown(name)} has {members[0].file_size:,} bytes, more than {most:,}")
    with archive.open(members[0]) as file:  # which gives no more than the size that was announced
        return file.read(most + 1)


def check_expansion(size: int, stored: int, what: str) -> None:
    """Refuse a small file that announces huge content, compressed far more tightly than real data are.

    Args:
        size: Bytes that the content takes once it is read.
        stored: Bytes that it has in the file.
        what: Name of the content, for the error.

    Raises:
        InvalidInput: it takes over 128 MiB, and over 100 times what is stored.

    >>> check_expansion(10**9, 10**6, "x.npy in photos.npz")
    Traceback (most recent call last):
        ...
    tlkit.errors.InvalidInput: x.npy in photos.npz would grow from 1,000,000 to 1,000,000,000 bytes, as no ...
    """
    if size > EXPANSION * stored and size > UNSUSPECTED:
        raise InvalidInput(
            f"{what} would grow from {stored:,} to {size:,} bytes, as no real data do: if they are yours, write them "
            "without compression"
        )


def check_hdf5(file: str | BinaryIO, stored: int, what: str) -> int:
    """Check what an HDF5 file announces, before any of its arrays is read.

    Args:
        file: Its path, or a stream.
        stored: Bytes that it has.
        what: Name of the file, for errors.

    Returns:
        How many numbers it holds, without those of an optimizer, which stay unread.

    Raises:
        InvalidInput: it points to other files, or announces far more than it has.
        OSError: it is not an HDF5 file, or damaged.
    """
    import h5py

    numbers, size = 0, 0

    # A visit ends where a name is returned; raising inside it would leave h5py in a bad state.
    def outside_link(name: str, link: h5py.HardLink | h5py.SoftLink | h5py.ExternalLink) -> str | None:
        return None if isinstance(link, h5py.HardLink) else name

    def outside_data(name: str, item: h5py.Group | h5py.Dataset) -> str | None:
        nonlocal numbers, size
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                return name
            if not name.startswith("optimizer"):
                numbers += int(item.size or 0)
                size += int(item.size or 0) * item.dtype.itemsize
        return None

    with h5py.File(file, "r") as opened:
        outside = opened.visititems_links(outside_link) or opened.visititems(outside_data)
    if outside:
        raise InvalidInput(f"{what} takes {shown(outside)} from elsewhere, as no file of weights does")
    check_expansion(size, stored, what)
    check_memory(size, what)
    return numbers
