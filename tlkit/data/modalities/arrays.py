"""Arrays: volumes, signals and whatever else is numbers, of one shape."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

from tlkit.data.modalities.modality import Modality, Reading, Requests, changed_by
from tlkit.errors import InvalidInput


def numbers(values: Any, name: str) -> np.ndarray:
    """Make an array of finite numbers from an array or from nested lists.

    Raises:
        InvalidInput: they are not numbers, not finite, or lists of different lengths; the message begins with `name`.

    >>> numbers([[1, 2], [3, 4]], "row 0").shape
    (2, 2)
    """
    try:
        array = np.asarray(values)
        if array.dtype == object:  # a column of a table holds arrays of arrays so
            array = np.array(array.tolist())
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"{name} is a list whose parts differ in length or depth") from error
    if array.dtype.kind not in "uif" or not array.size:
        raise InvalidInput(f"{name} is an array of {array.dtype} of shape {array.shape}")
    if not np.isfinite(array).all():
        raise InvalidInput(f"{name} holds values that are not finite")
    return array


def _from_file(content: bytes, name: str) -> np.ndarray:
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(stream)
        # Checked before NumPy takes the memory that the header announces.
        room = dtype.itemsize * math.prod(shape)
        if dtype.kind not in "uif" or room != len(content) - stream.tell():
            raise InvalidInput(f"{name} is an .npy file of {dtype} {shape} with {len(content):,} bytes")
        return numbers(np.load(io.BytesIO(content), allow_pickle=False), name)
    except InvalidInput:
        raise
    except Exception as error:  # a damaged header raises almost anything, SyntaxError to tokenize.TokenError
        raise InvalidInput(f"{name}: not an .npy file") from error


def _requested(
    content: bytes | np.ndarray, shape: tuple[int | None, ...], rate: int | None, name: str, reading: Reading
) -> np.ndarray:
    array = content if isinstance(content, np.ndarray) else _from_file(content, name)
    if array.ndim != len(shape) or any(
        side not in (None, length) for length, side in zip(array.shape, shape, strict=True)
    ):
        raise InvalidInput(f"{name} is an array of shape {array.shape}; the network takes {shape}")
    return array


def _work(content: bytes, shape: tuple[int | None, ...], name: str, reading: Reading) -> int:
    return len(content) // 4


ARRAYS = Modality(
    name="arrays",
    singular="array",
    input="values",
    changes=("flip", "shift", "mixup", "cutmix"),
    augment=changed_by("augment_array"),
    example_file="example.npy",
    requests=Requests(
        column="array",
        file="an .npy file",
        array="an array of the network's shape",
        decode=_requested,
        work=_work,
    ),
)
