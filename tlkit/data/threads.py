"""Threads that read and decode examples."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tlkit.cores import cores
from tlkit.data.contents import Piece
from tlkit.untrusted import is_url

READERS = 16  # threads for contents at URLs, which wait for answers most of the time


@functools.cache
def decoding_threads() -> ThreadPoolExecutor:
    """Return the threads that decode, one per core: Pillow and NumPy release the interpreter's lock meanwhile."""
    return ThreadPoolExecutor(cores(), thread_name_prefix="decode")


@functools.cache
def _reading_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(READERS, cores()), thread_name_prefix="read")


def threads_for(contents: Sequence[Any] | np.ndarray) -> ThreadPoolExecutor:
    """Return the threads that read and decode such contents; more than there are cores where they are at URLs."""
    first = contents[0] if len(contents) else None
    return _reading_threads() if isinstance(first, Piece) and is_url(first.source) else decoding_threads()
