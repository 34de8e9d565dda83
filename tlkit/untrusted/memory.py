"""The memory that is available, and what would take too much of it."""

from __future__ import annotations

import os
from pathlib import Path

from tlkit.errors import InvalidInput

SHARE = 0.5  # of the available memory that one file may take
COPIES = 4  # of a network's largest output that a prediction may need


def batch_size(numbers: int, most: int) -> int:
    """Decide how many examples a network may predict at a time: up to `most`, as the memory allows.

    Args:
        numbers: In an example and in the largest output that a layer makes of it.
        most: Maximum.

    >>> batch_size(1000, 32)
    32
    """
    return max(1, min(most, int(SHARE * available_memory() / (COPIES * 4 * max(1, numbers)))))


def check_memory(size: int, what: str) -> None:
    """Refuse a file that would fill the memory, before it is read.

    Args:
        size: Bytes that it takes in memory, by its header.
        what: Name of the file, for the error.

    Raises:
        InvalidInput: it would take more than half of the memory that is available.

    >>> check_memory(1000, "photos.npz")
    """
    free = available_memory()
    if size > SHARE * free:
        raise InvalidInput(
            f"{what} would take {size / 1e9:,.1f} GB of memory, more than half of the {free / 1e9:,.1f} GB that are "
            "available: free some, or give a smaller one"
        )


def available_memory() -> int:
    """Return the bytes that can still be used.

    The smaller of what Linux and its container allow; elsewhere half of the installed memory, or 4 GiB.
    """
    limits = [limit for limit in (_free_on_machine(), _free_in_container()) if limit is not None]
    if limits:
        return min(limits)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return 4 * 2**30


def _free_on_machine() -> int | None:
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _free_in_container() -> int | None:
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text(encoding="utf-8"))  # "max" where there is none
        stat = (group / "memory.stat").read_text(encoding="utf-8")
        counts = dict(line.split() for line in stat.splitlines())
        cached = int(counts["active_file"]) + int(counts["inactive_file"])  # given back when memory runs short
        return limit - int((group / "memory.current").read_text(encoding="utf-8")) + cached
    except (OSError, KeyError, ValueError):
        return None
