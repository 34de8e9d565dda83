"""Segments: .npy files with the activations of some examples and the examples' keys.

The header is compared with a pattern and never evaluated, so nothing in a file can be executed.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

KEY = 32  # bytes of SHA-256
_HEADER = re.compile(
    rb"\{'descr': \[\('keys', '\|u1', \((\d+), 32\)\), \('values', '([<>]f[24]|\|u1)', \(([\d, ]+)\)\)\], "
    rb"'fortran_order': False, 'shape': \(1,\), \} *\n"
)
_BLOCK = 2**18  # values that are checked at a time: they stay in a CPU's cache


class Segment(NamedTuple):
    """A segment in memory, or mapped into memory."""

    keys: np.ndarray  # (n, 32), uint8
    values: np.ndarray  # (n, *shape), float16 or float32; bytes in the space of a converted network


class File(NamedTuple):
    """The file of a segment that is not verified yet."""

    content: np.ndarray  # (bytes,), uint8, with the header
    inode: tuple[int, int] | None  # device and inode; None where the file was read and is not mapped


def finite(values: np.ndarray) -> bool:
    """Return whether all values, float16 or float32, are finite, as bytes are; for float16, ten times as fast as NumPy.

    >>> finite(np.ones(3, np.float16)), finite(np.array([1, np.inf], np.float32)), finite(np.float32([[np.nan]]))
    (True, False, False)
    """
    if values.dtype == np.uint8:
        return True
    bits = np.ascontiguousarray(values).reshape(-1).view(f"u{values.itemsize}")
    highest = bits.dtype.type(0x7C00 if values.itemsize == 2 else 0x7F800000)
    parts = (bits[start : start + _BLOCK] for start in range(0, len(bits), _BLOCK))
    return not any(((part & highest) == highest).any() for part in parts)


def form_of(description: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    """Return the name of the dtype, and the shape, of an activation.

    Args:
        description: Of a space.

    Raises:
        ValueError: no space can have such activations.

    >>> form_of({"dtype": "float16", "shape": [7, 7, 3]})
    ('float16', (7, 7, 3))
    """
    dtype, shape = description.get("dtype"), description.get("shape")
    if dtype not in ("float16", "float32", "uint8") or not isinstance(shape, list | tuple):
        raise ValueError(f"activations of dtype {dtype!r} and shape {shape!r}")
    if not all(isinstance(side, int) and side > 0 for side in shape):
        raise ValueError(f"activations of shape {shape!r}")
    return dtype, tuple(shape)


def keys_of(keys: np.ndarray) -> list[bytes]:
    """Return the keys of a segment, (n, 32) uint8, one by one."""
    return np.asarray(keys).view(f"V{KEY}").ravel().tolist()


def blocks_of(keys: Sequence[bytes], values: np.ndarray) -> tuple[str, list[bytes]]:
    """Return the name of the file of a segment, and its content in blocks."""
    record = np.dtype([("keys", np.uint8, (len(keys), KEY)), ("values", values.dtype, values.shape)])
    header = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(record), "fortran_order": False, "shape": (1,)}
    np.lib.format.write_array_header_1_0(header, description)
    blocks = [header.getvalue(), b"".join(keys), values.tobytes()]
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return f"{digest.hexdigest()[:32]}.npy", blocks


def read_segment(path: Path, description: Mapping[str, Any], mapped: bool = True) -> tuple[Segment, File]:
    """Map a segment into memory, or read it.

    Args:
        path: Of its file.
        description: Of its space.
        mapped: Map it; where False, read it.

    Raises:
        ValueError: the file is not a segment of the space; the message completes "the file …".
        OSError: the file cannot be read.
    """
    dtype, shape = form = form_of(description)
    with open(path, "rb", buffering=0) as file:  # opened once: what is verified later is what is used
        status = os.fstat(file.fileno())
        start, count = read_head(file, status.st_size, form)
        file.seek(0)
        content = np.memmap(file, np.uint8, "r") if mapped else np.frombuffer(file.readall(), np.uint8)
    joined, end = content[start:], count * KEY
    segment = Segment(joined[:end].reshape(count, KEY), joined[end:].view(dtype).reshape(count, *shape))
    return segment, File(content, (status.st_dev, status.st_ino) if mapped else None)


def read_head(file: BinaryIO | io.FileIO, size: int, form: tuple[str, tuple[int, ...]]) -> tuple[int, int]:
    """Return the position of a segment's keys in its file, and their number.

    Args:
        file: Open, at its beginning.
        size: Of the file, in bytes.
        form: Of the activations; see `form_of`.

    Raises:
        ValueError: the file is not a segment of such activations; the message completes "the file …".
        OSError: the file cannot be read.
    """
    head = file.read(512) or b""
    start = 10 + int.from_bytes(head[8:10], "little")
    if len(head) < start:
        head += file.read(start - len(head)) or b""
    match = _HEADER.fullmatch(head[10:start])
    if not head.startswith(b"\x93NUMPY\x01\x00") or not match:
        raise ValueError("is not a segment of an activation store")
    count, dtype = int(match[1]), np.dtype(match[2].decode())
    shape = tuple(int(side) for side in match[3].split(b",") if side.strip())
    if (dtype.name, dtype.isnative, shape) != (form[0], True, (count, *form[1])):
        raise ValueError("is not a segment of its space")
    if not count or size != start + count * (KEY + math.prod(form[1]) * dtype.itemsize):
        raise ValueError("is not whole")
    return start, count


def problem_of(path: Path, content: np.ndarray, values: np.ndarray) -> str:
    """Return what is wrong with a segment, as the end of a sentence about its file, or "".

    Shapes:
        content: (bytes,), uint8: the whole file
        values: (n, *shape)
    """
    if hashlib.sha256(content.data).hexdigest()[:32] != path.stem:
        return "does not hold what its name stands for"
    return "" if finite(values) else "holds values that are not finite"
