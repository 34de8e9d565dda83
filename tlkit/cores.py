"""How many processor cores this process uses."""

from __future__ import annotations

import os

_limit: int | None = None


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, _limit or allowed)


def limited() -> bool:
    """Whether other processes on this machine have their own share of its cores."""
    return _limit is not None


def limit(count: int) -> None:
    """Use this many cores at most, because other workers on this machine use the others.

    It takes effect on what is made afterwards: threads that decode, and networks that are loaded.
    """
    global _limit
    _limit = count
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(count)  # read when TensorFlow makes its first tensor
