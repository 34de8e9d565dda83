"""Decode sounds: one decoder, so that the same file always gives the same samples."""

from __future__ import annotations

import io
import math
import wave
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from tlkit.data.contents import Piece, read
from tlkit.data.wav import UNKNOWN, read_header, values_of
from tlkit.errors import InvalidInput
from tlkit.untrusted import check_memory

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga"})
BLOCK = 2**20  # values converted at a time


def decode(content: Path | Piece | bytes, samples: int | None = None, name: str | None = None) -> np.ndarray:
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


def frame(
    contents: Sequence[Path | Piece | bytes], names: Sequence[str], seconds: float | None = None
) -> tuple[int, int]:
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


def rate(content: Path | Piece | bytes) -> int:
    """Return the samples per second of a sound that `decode` can decode.

    >>> rate(encode(np.zeros((8, 1)), rate=8000))
    8000
    """
    with _stream(content) as stream:
        if not _is_compressed(stream):
            return read_header(stream).rate
        with _soundfile(stream) as file:
            return file.samplerate


def _stream(content: Path | Piece | bytes) -> IO[bytes]:
    return open(content, "rb") if isinstance(content, Path) else io.BytesIO(read(content))


def _header(content: Path | Piece | bytes) -> tuple[int, int]:
    """The number of samples per second, and of samples."""
    with _stream(content) as stream:
        if _is_compressed(stream):
            with _soundfile(stream) as file:
                rate, count = file.samplerate, file.frames
                if count >= UNKNOWN:
                    count = sum(len(block) for block in _blocks(file, None))
        else:
            wav = read_header(stream)
            rate, count = wav.rate, wav.length
    if rate < 1:
        raise ValueError("0 samples a second")
    return rate, count


def _plain(stream: IO[bytes], samples: int | None) -> np.ndarray:
    wav = read_header(stream)
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
        part[:] = values_of(data, wav.width).reshape(-1, wav.channels).mean(axis=1, dtype=np.float64)
    return sound


def _is_compressed(stream: IO[bytes]) -> bool:
    head = stream.read(4)
    stream.seek(0)
    return head in (b"fLaC", b"OggS")


def _compressed(stream: IO[bytes], samples: int | None) -> np.ndarray:
    with _soundfile(stream) as file:
        known = file.frames < UNKNOWN
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
        if samples is None and done > UNKNOWN:
            raise ValueError(f"more than {UNKNOWN:,} samples")
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
        if file.frames >= UNKNOWN:
            file.seekable = lambda: False  # soundfile seeks after each read, which fails where the end is unknown
        return file
    except TypeError as error:  # it took the content for raw samples
        raise ValueError(str(error)) from error


def _shown(content: Path | Piece | bytes) -> str:
    return str(content) if isinstance(content, Path) else "the sound"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    return f"not a FLAC or OGG file that can be decoded ({text})" if isinstance(error, RuntimeError) else text
