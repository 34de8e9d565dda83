"""Features computed in blocks, each large enough for a segment of the store."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from tlkit import inference
from tlkit.errors import InvalidInput
from tlkit.features.inputs import Inputs
from tlkit.features.segments import finite
from tlkit.features.space import Space

FIRST = 64  # examples in the first block
LARGEST, SECONDS = 64 * 2**20, 5.0  # bytes, and seconds of work, in a later one
THREADS = 2  # that read batches; decoding has its own


class TooLarge(Exception):
    """An activation exceeds the range of float16."""


def compute(
    engine: inference.Engine,
    keys: list[bytes],
    inputs: Inputs,
    dtype: np.dtype,
    network: str,
    precision: str,
) -> Iterator[tuple[list[bytes], np.ndarray]]:
    """Compute features, in blocks of keys and values.

    Args:
        engine: That computes.
        keys: Of the examples, in their order.
        inputs: The examples.
        dtype: Of the values.
        network: Its name, for people.
        precision: Name of the Keras dtype policy that it computes in.

    Raises:
        InvalidInput: an example cannot be decoded, or its features are not finite.
        TooLarge: a value exceeds the range of the dtype.
    """
    size = engine.batch_size
    order = [np.array([inputs.places[key] for key in keys[i : i + size]]) for i in range(0, len(keys), size)]
    batches = inference.in_order(inputs.read, order, THREADS, ahead=2 * THREADS)
    start, target, done = time.perf_counter(), FIRST, 0
    block: list[np.ndarray] = []
    for places, outputs in zip(order, engine.run(batches), strict=True):
        if not finite(outputs):
            good = np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1)
            cure = "give other weights" + (", or --precision float32" if precision != "float32" else "")
            name = inputs.name(places[good.argmin()])
            raise InvalidInput(f"{name}: the output of the network ({network}) is not finite: {cure}")
        with np.errstate(over="ignore"):
            block.append(outputs.astype(dtype))
        if not finite(block[-1]):
            raise TooLarge
        count, most = sum(map(len, block)), max(1, LARGEST // block[-1][0].nbytes)
        if count >= min(target, most) or done + count == len(keys):
            yield keys[done : done + count], np.concatenate(block)
            done, block = done + count, []
            target = int(np.clip(SECONDS * done / (time.perf_counter() - start), 1, most))


def compute_all(
    engine: inference.Engine, inputs: Inputs, dtype: np.dtype, network: str, precision: str
) -> tuple[list[bytes], np.ndarray]:
    """Compute the features of all examples; see `compute`.

    Returns:
        The keys, of which none occurs twice, and their values.
    """
    keys = list(inputs.places)
    return keys, np.concatenate([values for _, values in compute(engine, keys, inputs, dtype, network, precision)])


def put(space: Space, keys: list[bytes], values: np.ndarray | None) -> None:
    """Write a block into the store.

    Args:
        space: Of the store.
        keys: Of the examples.
        values: Their features; None where a worker of a cluster has written them.

    Raises:
        OSError: the store has no room; what is computed is kept in memory.
    """
    if values is None:
        return
    try:
        space.write(keys, values)
    except OSError:
        space.keep(keys, values)  # what is computed is not computed again
        raise
