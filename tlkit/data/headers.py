"""Estimate the work of decoding a photo from its bytes, before any decoder reads them.

Pillow reads the segments, chunks or blocks of a file one by one, in Python, and keeps all of them; and a JPEG may ask
for any number of passes over its pixels. Both are counted here.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Iterator

PARTS = 2**17  # maximum segments, chunks or blocks of a file; as many as a PNG of 1 GB has
SCANS = 100  # maximum scans of a JPEG; encoders write 10 to 20, and libtiff has the same limit
JUNK = 2**20  # maximum bytes between the segments of a JPEG
STRIPS = 2**18  # maximum strips or tiles of a TIFF
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # within a scan: neither a byte 255 nor a restart
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ALONE = frozenset([0x01, *range(0xD0, 0xD9)])  # markers without a length
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCALED = (0xC0, 0xC1, 0xC9)  # sequential frames, which libjpeg scales down while it reads them


@dataclasses.dataclass(frozen=True)
class Header:
    """What the header of a file says.

    Args:
        width: In pixels, where Pillow could miss it or would take memory before it is checked; else 0.
        height: Likewise.
        scans: Number of passes over the pixels of a JPEG.
        scaled: Whether a JPEG can be decoded at a fraction of its size without memory for the whole.
    """

    width: int = 0
    height: int = 0
    scans: int = 1
    scaled: bool = False


def read(data: bytes) -> Header:
    """Read a photo's header without decoding it; a damaged file is left to its decoder.

    Raises:
        ValueError: the file has more parts than any photo, so that reading it would take minutes or gigabytes.

    >>> read(b"These are words.")
    Header(width=0, height=0, scans=1, scaled=False)
    """
    try:
        if data[:2] == b"\xff\xd8":
            return _jpeg(data)
        if data[:4] == b"\x89PNG":
            return _png(data)
        if data[:4] == b"GIF8":
            return _gif(data)
        if data[:4] in _TIFF:
            return _tiff(data)
    except (struct.error, IndexError):  # the file ends early
        pass
    return Header()


def bits(data: bytes) -> int:
    """Return the bits of a value of a photo; 8 where the header is none of a PNG or TIFF, the formats that have more.

    >>> bits(b"These are words.")
    8
    """
    try:
        if data[:4] == b"\x89PNG":
            return data[24]
        if data[:4] in _TIFF:
            return next((first for tag, _, first in _tiff_tags(data) if tag == 258), 1)
    except (struct.error, IndexError, ValueError):  # left to its decoder
        pass
    return 8


def _jpeg(data: bytes) -> Header:
    frame, parts, junk, at = None, 0, 0, 2
    width = height = components = scans = 0
    while True:
        if scans:  # after the first scan: the next marker, in its data or after it
            match = _MARKER.search(data, at)
            if not match:
                break
            marker, at = match[1][0], match.end()
        else:
            start = data.find(b"\xff", at)
            if start < 0:
                break
            marker = data[start + 1]
            junk += start - at + (2 if marker in (0x00, 0xFF) else 0)
            if junk > JUNK:
                raise ValueError(f"a JPEG with more than {JUNK:,} bytes between its segments")
            at = start + (1 if marker == 0xFF else 2)
            if marker in (0x00, 0xFF):
                continue
        parts += 1
        if parts > PARTS:
            raise ValueError(f"a JPEG of more than {PARTS:,} segments")
        if marker == 0xD9 and scans:
            break
        if marker in _ALONE or marker == 0xD9:
            continue
        (length,) = struct.unpack_from(">H", data, at)
        if marker in _FRAMES:
            frame = marker
            height, width, components = struct.unpack_from(">HHB", data, at + 3)
        elif marker == 0xDA:
            if not scans and frame in _SCALED and data[at + 2] == components:
                return Header(width, height, 1, scaled=True)  # it has all components, so libjpeg reads no second scan
            scans += 1
            if scans > SCANS:
                raise ValueError(f"a JPEG of more than {SCANS} scans")
        at += max(2, length)
    return Header(width, height, max(1, scans))


def _png(data: bytes) -> Header:
    at, parts = 8, 0
    while at + 8 <= len(data):
        parts += 1
        if parts > PARTS:
            raise ValueError(f"a PNG of more than {PARTS:,} chunks")
        at += 12 + struct.unpack_from(">I", data, at)[0]
    return Header()


def _gif(data: bytes) -> Header:
    """Up to the first frame, which enlarges the canvas if it is larger."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at, parts = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0), 0
    inside = False  # an extension, which is made of blocks
    while data[at] != 0x3B or inside:
        parts += 1
        if parts > PARTS:
            raise ValueError(f"a GIF of more than {PARTS:,} blocks before its first frame")
        if inside:
            inside, at = data[at] != 0, at + 1 + data[at]
        elif data[at] == 0x21:
            inside, at = True, at + 2
        elif data[at] == 0x2C:
            left, top, its_width, its_height = struct.unpack_from("<4H", data, at + 1)
            return Header(max(width, left + its_width), max(height, top + its_height))
        else:
            at += 1
    return Header(width, height)


def _tiff(data: bytes) -> Header:
    for tag, length, _ in _tiff_tags(data):
        if tag in (273, 324) and length > STRIPS:  # of strips, of tiles
            raise ValueError(f"a TIFF of {length:,} strips or tiles, more than {STRIPS:,}")
    return Header()


def _tiff_tags(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The tags of the first photo, each with the number of its values and the first of them as a 16-bit number."""
    order = "<" if data[:1] == b"I" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (at,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, at)
    if count > 2**16:
        raise ValueError(f"a TIFF of {count:,} tags")
    entry = struct.Struct(f"{order}HH{'QQ' if big else 'II'}")
    for n in range(count):
        place = at + (8 if big else 2) + n * entry.size
        tag, _, length, where = entry.unpack_from(data, place)
        inline = 2 * length <= (8 if big else 4)
        place = place + (12 if big else 8) if inline else where
        (first,) = struct.unpack_from(f"{order}H", data, place) if place + 2 <= len(data) else (0,)
        yield tag, length, first
