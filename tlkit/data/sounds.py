"""One decoder of sounds: the same file always gives the same samples."""

from __future__ import annotations

import io
import math
import wave
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tlkit.errors import InvalidInput

SUFFIXES = frozenset({".wav"})
HEADER = 2**20  # bytes in which a file's samples begin
PCM = bytes.fromhex("0100000000001000800000aa00389b71")  # what an extensible header calls plain samples


def decode(content: Path | bytes, samples: int | None = None, name: str | None = None) -> np.ndarray:
    """Decode a WAV file of 8, 16, 24 or 32 bits, average its channels, and bring it to a length.

    Args:
        content: A file or its bytes.
        samples: Length: what is longer is cut, what is shorter is followed by silence; None keeps the sound's own.
        name: What errors call the sound; by default its path.

    Shapes:
        returns: (samples, 1), float32, from -1 to below 1

    Raises:
        InvalidInput: the sound is missing, damaged, empty, or compressed.

    >>> decode(encode(np.array([[0.5], [-1.0]]), rate=8000), samples=3).tolist()
    [[0.5], [-1.0], [0.0]]
    """
    try:
        with _open(content.read_bytes() if isinstance(content, Path) else content) as file:
            channels, width, count = file.getnchannels(), file.getsampwidth(), file.getnframes()
            data = file.readframes(count)
        if len(data) < count * channels * width:
            raise ValueError(f"cut short: it announces {count:,} samples and has {len(data) // (channels * width):,}")
        if width > 4:
            raise ValueError(f"{8 * width} bits a sample: convert it to 16 bits")
        if not count:
            raise ValueError("the sound is empty (0 samples)")
        sound = _values(data, width).reshape(count, channels).mean(axis=1, dtype=np.float64).astype(np.float32)
    except (OSError, EOFError, wave.Error, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise InvalidInput(f"{name or _shown(content)}: {_reason(error)}") from error
    if samples is not None:
        sound = np.pad(sound[:samples], (0, max(0, samples - count)))
    return sound[:, None]


def encode(sound: np.ndarray, rate: int) -> bytes:
    """Make a WAV file of 16 bits.

    Args:
        sound: Shape (samples, 1), from -1 to 1.
        rate: Samples in a second.
    """
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.clip(np.rint(sound * 2**15), -(2**15), 2**15 - 1).astype("<i2").tobytes())
    return made.getvalue()


def frame(contents: Sequence[Path | bytes], names: Sequence[str], seconds: float | None = None) -> tuple[int, int]:
    """Choose one length for all sounds, from their headers alone.

    By default it is the shortest, in tenths of a second, in which 99 of 100 sounds fit whole: no one recording that was
    left running decides how much silence all the others get. Of fewer than 100 sounds, all fit.

    Args:
        contents: The sounds; those that cannot be read do not count.
        names: What errors call them.
        seconds: The length, or None for the default.

    Returns:
        Samples of a sound, and samples in a second.

    Raises:
        InvalidInput: no sound can be read, they have several sampling rates, or `seconds` is less than a sample.
    """
    headers = []
    problem = "there is none"
    for name, content in zip(names, contents, strict=True):
        try:
            headers.append((name, *_header(content)))
        except (OSError, EOFError, wave.Error, ValueError, RuntimeError, ZeroDivisionError) as error:
            problem = f"{name}: {_reason(error)}"
    if not headers:
        raise InvalidInput(f"none of the {len(contents)} sounds can be decoded: {problem}")
    rates = Counter(rate for _, rate, _ in headers)
    (rate, _), *others = rates.most_common()
    if others:
        odd, its, _ = next(header for header in headers if header[1] != rate)
        raise InvalidInput(
            f"{odd} has {its:,} samples a second, {rates[rate]:,} others have {rate:,}: bring all sounds to one rate"
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


def _open(data: bytes) -> wave.Wave_read:
    at = data.find(b"fmt ", 12, 4096)
    if at > 0 and data[at + 8 : at + 10] == b"\xfe\xff" and data[at + 32 : at + 48] == PCM:
        data = data[: at + 8] + b"\x01\x00" + data[at + 10 :]  # before Python 3.12, `wave` knows no extensible format
    return wave.open(io.BytesIO(data), "rb")


def _header(content: Path | bytes) -> tuple[int, int]:
    """Samples in a second, and samples."""
    if isinstance(content, Path):
        size = content.stat().st_size
        with open(content, "rb") as stream:
            content = stream.read(HEADER)
    else:
        size = len(content)
    with _open(content) as file:
        rate, count = file.getframerate(), file.getnframes()
        if count * file.getnchannels() * file.getsampwidth() > size:  # `decode` refuses it
            raise ValueError(f"cut short: it announces {count:,} samples, more than there are")
    if rate < 1:
        raise ValueError("0 samples a second")
    return rate, count


def _values(data: bytes, width: int) -> np.ndarray:
    """Samples from -1 to below 1: 8 bits are unsigned, all others signed and little-endian."""
    if width == 1:
        return (np.frombuffer(data, np.uint8) - np.float32(128)) / 128
    if width == 3:  # NumPy has no such integers: make them the upper bytes of 32 bits
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data, width = wide.tobytes(), 4
    return np.frombuffer(data, f"<i{width}") / np.float64(2 ** (8 * width - 1))


def _shown(content: Path | bytes) -> str:
    return str(content) if isinstance(content, Path) else "the sound"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = " ".join(str(error).split())
    if said.startswith("unknown format"):
        return f"a WAV file in a format other than PCM ({said.rpartition(' ')[2]}): convert it to 16 bits"
    return (
        f"not a WAV file{f' ({said})' if said else ''}"
        if isinstance(error, EOFError | wave.Error | RuntimeError)
        else said
    )
