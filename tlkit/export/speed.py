"""Measure how long an exported model takes for one example, in a process of its own, whose threads can be limited.

python -m tlkit.export.speed onnx export/model.onnx 1 224 224 3
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tlkit.display import say
from tlkit.export import runtimes

WARM, SECONDS, MOST = 3, 0.5, 200  # runs before, duration and number of those that are measured
PATIENCE = 600  # seconds after which the process is given up


def milliseconds(name: str, path: Path, shape: Sequence[int], threads: int) -> float:
    """Return the median time for one example, in another process.

    Args:
        name: Of the format.
        path: Of the exported model.
        shape: Of one example.
        threads: Number of threads; 0 for as many as there are cores.

    Raises:
        OSError: the process failed.
    """
    command = [sys.executable, "-m", "tlkit.export.speed", name, str(path), str(threads), *map(str, shape)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)  # noqa: S603  no shell
    try:
        return float(ended.stdout.split()[-1])
    except (IndexError, ValueError):
        raise OSError(f"the speed of {name} cannot be measured: {ended.stderr.strip()[-200:]}") from None


def _measure(name: str, path: str, threads: int, shape: Sequence[int]) -> float:
    run = getattr(runtimes, f"load_{name}")(path, threads)
    example = np.random.default_rng(0).integers(0, 256, (1, *shape)).astype(np.float32)
    for _ in range(WARM):
        run(example)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < MOST and (len(times) < WARM or time.perf_counter() - began < SECONDS):
        start = time.perf_counter()
        run(example)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


if __name__ == "__main__":
    say(_measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), [int(length) for length in sys.argv[4:]]))
