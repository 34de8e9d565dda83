"""Find the samples in a WAV file, however its header was written."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np

PCM = bytes.fromhex("0100000000001000800000aa00389b71")  # the code of plain samples in an extensible header
CHUNKS = 10_000  # maximum number of chunks of a WAV file
UNKNOWN = 2**31 - 2**20  # from here on, a length may mean that it was unknown when the header was written


class Wav(NamedTuple):
    """The position of the samples in a WAV file; each has a value for every channel."""

    rate: int
    channels: int
    width: int  # bytes of a value
    start: int
    length: int  # samples


def read_header(stream: IO[bytes]) -> Wav:
    """Find the format and the samples among the chunks of a WAV file.

    Raises:
        ValueError: it is not a WAV file, not in the format PCM, or ends before its samples do.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(12)
    if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        raise ValueError("not a WAV, FLAC or OGG file")
    form, long, samples = b"", 0, None  # long: of RF64, the length of the samples in 64 bits
    for name, start, length in _chunks(stream, 12, size):
        if name == b"ds64":
            long = int.from_bytes(stream.read(16)[8:], "little")
        elif name == b"fmt ":
            form = stream.read(min(length, 40))
        elif name == b"data":
            samples = start, length
            if form:
                break
    if len(form) < 16 or samples is None:
        raise ValueError(f"not a WAV file (no {'samples' if samples is None and form else 'format'})")
    kind, channels, rate, bits = *struct.unpack_from("<HHI", form), struct.unpack_from("<H", form, 14)[0]
    if kind == 0xFFFE and form[24:40] == PCM:
        kind = 1
    if kind != 1:
        raise ValueError(f"a WAV file in a format other than PCM ({kind}): convert it to 16 bits")
    width = (bits + 7) // 8
    if not channels or not width:
        raise ValueError(f"not a WAV file ({channels} channels of {bits} bits)")
    start, length = samples
    rest, whole = size - start, int.from_bytes(head[4:8], "little")
    if long and head[:4] == b"RF64":
        length = long
    elif (
        length == 2**32 - 1
        or (length > rest and (whole == 0 or whole >= UNKNOWN))
        or (length == 0 and rest and not _ends_in_chunks(stream, start, size))
    ):
        length = rest  # it was unknown when the header was written
    count, actual = length // (channels * width), rest // (channels * width)
    if count > actual:
        raise ValueError(f"cut short: it announces {count:,} samples and has {actual:,}")
    return Wav(rate, channels, width, start, count)


def _chunks(stream: IO[bytes], at: int, size: int) -> Iterator[tuple[bytes, int, int]]:
    """The name, position and length of each chunk; the stream is at its first byte."""
    for _ in range(CHUNKS):
        stream.seek(at)
        head = stream.read(8)
        if at > size or len(head) < 8:
            return
        length = int.from_bytes(head[4:], "little")
        yield head[:4], at + 8, length
        at += 8 + length
        if length % 2:
            stream.seek(at)
            at += stream.read(4) not in (b"fmt ", b"data")  # some programs omit the byte that makes the length even


def _ends_in_chunks(stream: IO[bytes], at: int, size: int) -> bool:
    """Whether the rest of the file consists of chunks, and not of samples."""
    for name, start, length in _chunks(stream, at, size):
        if not (name.isascii() and name.decode().isprintable()):
            return False
        at = start + length
    return size <= at + at % 2 and at <= size


def values_of(data: bytes, width: int) -> np.ndarray:
    """Return samples from -1 to below 1: 8 bits are unsigned, all others signed and little-endian."""
    if width == 1:
        return (np.frombuffer(data, np.uint8) - np.float32(128)) / 128
    if width == 3:  # NumPy has no 24-bit integers: make them the upper bytes of 32 bits
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data, width = wide.tobytes(), 4
    return np.frombuffer(data, f"<i{width}") / np.float64(2 ** (8 * width - 1))
