"""Estimate whether it pays to store the activations of a frozen network, from counts alone."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import keras

from tlkit import arithmetic, runtime
from tlkit.data import NamedExamples
from tlkit.data.opening import SHARE
from tlkit.features.extractor import Extractor
from tlkit.features.store import GB
from tlkit.untrusted import available_memory

WORTH = 5.0  # seconds to save at least, in all epochs together
MULTIPLY_ADDS, VALUES = 1e11, 4e9  # per second, Keras on two cores: right within a factor of two for CNNs and ViTs
GPU = 50.0  # speed of a GPU relative to two cores
WRITE, READ = 2e8, 1e9  # bytes per second: an ordinary disk; a file that was just written


class Estimate(NamedTuple):
    """Whether it pays to store activations.

    Args:
        worth: Whether it pays.
        size: Bytes of the activations that are not stored yet.
        saved: Seconds that they would save, in all epochs together.
        reason: Why, for the user.
    """

    worth: bool
    size: int
    saved: float
    reason: str


def estimate(extractor: Extractor, examples: Sequence[NamedExamples], passes: int) -> Estimate:
    """Compare the time that stored activations save with the time and the disk that they cost.

    Stored activations are rounded to float16, so this choice changes the result of a run. It follows from counts and
    not from a clock, so that background load does not decide.

    Args:
        extractor: Of the frozen part of the network.
        examples: The example sets whose activations would be stored, each view on its own.
        passes: Number of examples that the frozen part would compute without a store, in all epochs together.
    """
    missing, store = extractor.missing(*examples), extractor.store
    if not missing:
        return Estimate(True, 0, 0.0, "all of them are stored already")
    each = extractor.bytes_each
    size = missing * each
    seconds = seconds_each(extractor.network)
    saved = passes * seconds - missing * (seconds + each / WRITE) - passes * each / READ
    room = min(store.limit, 0.5 * _free(store.folder)) if store else SHARE * available_memory()
    fewer = passes - missing
    gain = f"save {fewer:,} of {passes:,} forward passes" if fewer > 0 else "save no forward pass"
    reason = f"storing {size / 1e6:,.0f} MB more would {gain}"
    if size > room:
        return Estimate(False, size, saved, f"{reason}, but only {room / GB:.2g} GB are available")
    return Estimate(saved >= WORTH, size, saved, reason)


def seconds_each(network: keras.Model) -> float:
    """Estimate the seconds that Keras takes for one example, from counts, for two cores of a CPU or for a GPU.

    >>> round(1e6 * seconds_each(keras.Sequential([keras.Input((1000,)), keras.layers.Dense(1000)])), 2)  # microseconds
    10.25
    """
    rows = arithmetic.describe(network)
    multiply_adds = sum(row.multiply_adds or 0 for row in rows)
    values = sum(math.prod(side or 1 for side in row.shape) for row in rows)
    times = GPU if runtime.device()[0] != "cpu" else 1.0
    return (multiply_adds / MULTIPLY_ADDS + values / VALUES) / times


def _free(folder: Path) -> int:
    """Free bytes on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free
