"""Decode sounds: one decoder, so that the same file always gives the same samples."""

from __future__ import annotations

import io
import math
import os
import struct
import wave
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from tlkit.errors import InvalidInput
from tlkit.untrusted import check_memory

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga"})
PCM = bytes.fromhex("0100000000001000800000aa00389b71")  # the code of plain samples in an extensible header
CHUNKS = 10_000  # maximum number of chunks of a WAV file
BLOCK = 2**20  # values converted at a time
_UNKNOWN = 2**31 - 2**20  # from here on, a length may mean that it was unknown when the header was written


def decode(content: Path | bytes, samples: int | None = None, name: str | None = None) -> np.ndarray:
    """Decode a WAV file of 8, 16, 24 or 32 bits, average its channels, and bring it to a length.

    FLAC and OGG files are decoded if the package soundfile is installed. The format follows from the content, not from
    the suffix. A WAV file whose header was written before its length was known, as into a pipe, extends to the end of
    the file. No more than `samples` are read.

    Args:
        content: A file or its bytes.
        samples: Length to which the sound is cut or padded with silence; None keeps its own length.
        name: What errors call the sound; by default its path.

    Shapes:
        returns: (samples, 1), float32, from -1 to below 1

    Raises:
        InvalidInput: the sound is missing, damaged, cut short, empty, or in another format.

    >>> decode(encode(np.array([[0.5], [-1.0]]), rate=8000), samples=3).tolist()
    [[0.5], [-1.0], [0.0]]
    """
    try:
        with _stream(content) as stream:
            sound = _compressed(stream, samples) if _is_compressed(stream) else _plain(stream, samples)
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"{name or _shown(content)}: {_reason(error)}") from error
    if samples is not None:
        sound = np.pad(sound, (0, max(0, samples - len(sound))))
    return sound[:, None]


def encode(sound: np.ndarray, rate: int) -> bytes:
    """Return the content of a WAV file of 16 bits.

    Args:
        sound: Shape (samples, 1), from -1 to 1.
        rate: Samples per second.
    """
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.clip(np.rint(sound * 2**15), -(2**15), 2**15 - 1).astype("<i2").tobytes())
    return content.getvalue()


def frame(contents: Sequence[Path | bytes], names: Sequence[str], seconds: float | None = None) -> tuple[int, int]:
    """Choose one length for all sounds, from their headers alone.

    By default it is the shortest length, in tenths of a second, that 99 % of the sounds fit into, so that one overlong
    recording does not decide how much silence pads all others. All of fewer than 100 sounds fit.

    Args:
        contents: The sounds; those that cannot be read do not count.
        names: What errors call them.
        seconds: The length, or None for the default.

    Returns:
        The number of samples of a sound, and of samples per second.

    Raises:
        InvalidInput: no sound can be read, they have several sampling rates, or `seconds` is less than a sample.
    """
    headers = []
    problem = "there is none"
    for name, content in zip(names, contents, strict=True):
        try:
            headers.append((name, *_header(content)))
        except (OSError, ValueError, RuntimeError) as error:
            problem = f"{name}: {_reason(error)}"
    if not headers:
        raise InvalidInput(f"none of the {len(contents)} sounds can be decoded: {problem}")
    rates = Counter(rate for _, rate, _ in headers)
    (rate, _), *others = rates.most_common()
    if others:
        odd, other, _ = next(header for header in headers if header[1] != rate)
        raise InvalidInput(
            f"{odd} has {other:,} samples a second, {rates[rate]:,} others have {rate:,}: bring all sounds to one rate"
        )
    lengths = sorted(count for _, _, count in headers)
    if seconds is None:
        seconds = math.ceil(lengths[math.ceil(0.99 * len(lengths)) - 1] / rate * 10) / 10
    elif seconds * rate > 100 * max(lengths):
        raise InvalidInput(
            f"data.seconds is {seconds:g}: more than 100 times the longest sound, {max(lengths) / rate:.3g} s"
        )
    samples = round(seconds * rate)
    if samples < 1:
        raise InvalidInput(f"data.seconds is {seconds}: less than one sample at {rate:,} samples a second")
    return samples, rate


def rate(content: Path | bytes) -> int:
    """Return the samples per second of a sound that `decode` can decode.

    >>> rate(encode(np.zeros((8, 1)), rate=8000))
    8000
    """
    with _stream(content) as stream:
        if not _is_compressed(stream):
            return _wav(stream).rate
        with _soundfile(stream) as file:
            return file.samplerate


class _Wav(NamedTuple):
    """The position of the samples in a WAV file; each has a value for every channel."""

    rate: int
    channels: int
    width: int  # bytes of a value
    start: int
    length: int  # samples


def _stream(content: Path | bytes) -> IO[bytes]:
    return open(content, "rb") if isinstance(content, Path) else io.BytesIO(content)


def _header(content: Path | bytes) -> tuple[int, int]:
    """The number of samples per second, and of samples."""
    with _stream(content) as stream:
        if _is_compressed(stream):
            with _soundfile(stream) as file:
                rate, count = file.samplerate, file.frames
                if count >= _UNKNOWN:
                    count = sum(len(block) for block in _blocks(file, None))
        else:
            wav = _wav(stream)
            rate, count = wav.rate, wav.length
    if rate < 1:
        raise ValueError("0 samples a second")
    return rate, count


def _plain(stream: IO[bytes], samples: int | None) -> np.ndarray:
    wav = _wav(stream)
    if wav.width > 4:
        raise ValueError(f"{8 * wav.width} bits a sample: convert it to 16 bits")
    if not wav.length:
        raise ValueError("the sound is empty (0 samples)")
    count = wav.length if samples is None else min(samples, wav.length)
    check_memory(4 * count, "the sound")
    sound, step = np.empty(count, np.float32), max(1, BLOCK // wav.channels)
    stream.seek(wav.start)
    for start in range(0, count, step):
        part = sound[start : start + step]
        data = stream.read(len(part) * wav.channels * wav.width)
        part[:] = _values(data, wav.width).reshape(-1, wav.channels).mean(axis=1, dtype=np.float64)
    return sound


def _wav(stream: IO[bytes]) -> _Wav:
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
        or (length > rest and (whole == 0 or whole >= _UNKNOWN))
        or (length == 0 and rest and not _ends_in_chunks(stream, start, size))
    ):
        length = rest  # it was unknown when the header was written
    count, actual = length // (channels * width), rest // (channels * width)
    if count > actual:
        raise ValueError(f"cut short: it announces {count:,} samples and has {actual:,}")
    return _Wav(rate, channels, width, start, count)


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


def _is_compressed(stream: IO[bytes]) -> bool:
    head = stream.read(4)
    stream.seek(0)
    return head in (b"fLaC", b"OggS")


def _compressed(stream: IO[bytes], samples: int | None) -> np.ndarray:
    with _soundfile(stream) as file:
        known = file.frames < _UNKNOWN
        count = samples if samples is not None or not known else file.frames
        if count is not None:
            check_memory(4 * count, "the sound")
        parts = list(_blocks(file, count))
        sound = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        if known and len(sound) < min(count or 0, file.frames):
            raise ValueError(f"cut short: it announces {file.frames:,} samples and has {len(sound):,}")
    if not len(sound):
        raise ValueError("the sound is empty (0 samples)")
    return sound


def _blocks(file: Any, samples: int | None) -> Iterator[np.ndarray]:
    """The average of the channels, up to a number of samples."""
    step, done = max(1, BLOCK // file.channels), 0
    while samples is None or done < samples:
        block = file.read(step if samples is None else min(step, samples - done), dtype="float32", always_2d=True)
        if not len(block):
            return
        done += len(block)
        if samples is None and done > _UNKNOWN:
            raise ValueError(f"more than {_UNKNOWN:,} samples")
        yield np.clip(block.mean(axis=1, dtype=np.float64), -1, 1).astype(np.float32)


def _soundfile(stream: IO[bytes]) -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package is installed, but libsndfile is not
        raise ValueError(
            "FLAC and OGG are decoded by the package soundfile: pip install 'tlkit[sounds]', or convert it to WAV"
        ) from error
    try:
        file = soundfile.SoundFile(stream)
        if file.frames >= _UNKNOWN:
            file.seekable = lambda: False  # soundfile seeks after each read, which fails where the end is unknown
        return file
    except TypeError as error:  # it took the content for raw samples
        raise ValueError(str(error)) from error


def _values(data: bytes, width: int) -> np.ndarray:
    """Samples from -1 to below 1: 8 bits are unsigned, all others signed and little-endian."""
    if width == 1:
        return (np.frombuffer(data, np.uint8) - np.float32(128)) / 128
    if width == 3:  # NumPy has no 24-bit integers: make them the upper bytes of 32 bits
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data, width = wide.tobytes(), 4
    return np.frombuffer(data, f"<i{width}") / np.float64(2 ** (8 * width - 1))


def _shown(content: Path | bytes) -> str:
    return str(content) if isinstance(content, Path) else "the sound"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    return f"not a FLAC or OGG file that can be decoded ({text})" if isinstance(error, RuntimeError) else text
