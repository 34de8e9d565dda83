"""What a worker of a cluster does: it computes the features of chunks of examples.

It writes them into the store if it sees the store's folder, and sends them back if not. Keras is not imported for
OpenVINO's graph, and for Keras' own engine not before it is known which backend is asked for.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tlkit import inference, startup
from tlkit.data import NamedExamples, images
from tlkit.errors import Unavailable, Unreadable, first_line
from tlkit.features import blocks
from tlkit.features.inputs import Inputs
from tlkit.features.store import Store


class Graph(NamedTuple):
    """A frozen network for OpenVINO, as `tlkit.inference.packed` gives it."""

    graph: bytes
    weights: bytes


class KerasNetwork(NamedTuple):
    """A frozen network for Keras' own engine.

    Args:
        network: As JSON.
        weights: In its order.
        backend: Keras' backend.
    """

    network: str
    weights: list[np.ndarray]
    backend: str


class Work(NamedTuple):
    """What all chunks have in common.

    Args:
        network: That computes.
        name: Of the network, for people.
        precision: Name of the Keras dtype policy.
        description: Of the space in the store; the worker's own must be equal.
    """

    network: Graph | KerasNetwork
    name: str
    precision: str
    description: dict[str, Any]


class Place(NamedTuple):
    """Where features are written: the store's folder; and a file that the client has written, and what it holds."""

    store: str
    probe: str
    token: str


class Part(NamedTuple):
    """A chunk: examples by split, and where their features are written; None where there is no store."""

    examples: list[NamedExamples]
    place: Place | None


class Computed(NamedTuple):
    """What a worker has done: the segment that it has written, or else the values; and the seconds that it took.

    Neither segment nor values: it cannot open a file.
    """

    segment: str | None = None
    values: np.ndarray | None = None
    seconds: float = 0.0


_loading = threading.Lock()
_loaded: list[tuple[Work, Callable[[Sequence[NamedExamples]], tuple[list[bytes], np.ndarray]]]] = []  # one at most


def ready() -> None:
    """Import what most networks need, before there is a chunk."""
    with _loading:
        inference.core()


def compute(work: Work, part: Part) -> Computed:
    """Compute the features of a chunk, and write them into the store if it is to be seen here."""
    with _loading:
        if not _loaded or _loaded[0][0] is not work:
            _loaded.clear()
            _loaded.append((work, _load(work, part.examples[0])))
        _, computed = _loaded[0]
    began = time.perf_counter()
    try:
        keys, values = computed(part.examples)
    except Unreadable:
        return Computed()
    segment = _write(work, part.place, keys, values)
    return Computed(segment, None if segment else values, time.perf_counter() - began)


def _write(work: Work, place: Place | None, keys: list[bytes], values: np.ndarray) -> str | None:
    """Write a segment, and return its name; None where this is another folder, or it cannot be written."""
    if place is None:
        return None
    with contextlib.suppress(OSError):
        if Path(place.probe).read_text(encoding="ascii") == place.token:
            written = Store(place.store, float("inf")).space(work.description).write(keys, values)
            return written.name if written else None
    return None


def _load(work: Work, example: NamedExamples) -> Callable[[Sequence[NamedExamples]], tuple[list[bytes], np.ndarray]]:
    """Load the network, and see that it is the client's, on the client's versions.

    Returns:
        What computes the features of examples: their keys and the values.

    Raises:
        Unavailable: the message says what differs.
    """
    if isinstance(work.network, KerasNetwork):
        return _load_keras(work, work.network, example)
    try:
        _compare(work, {"engine": inference.version(), "decoder": images.version()})
        if work.precision == "mixed_bfloat16" and not inference.has_bfloat16():
            raise Unavailable(f"{_here()}: its processor has no bfloat16: give --precision float32")
        engine = inference.engine(inference.unpacked(*work.network), work.precision)
    except metadata.PackageNotFoundError as error:
        raise Unavailable(f"{_here()}: {error.name} is not installed there, and is here") from error
    except (ImportError, RuntimeError) as error:  # the last is OpenVINO's
        raise Unavailable(f"{_here()}: the network cannot be loaded: {first_line(error)}") from error
    dtype = np.dtype(work.description["dtype"])
    return lambda examples: blocks.compute_all(engine, Inputs(examples), dtype, work.name, work.precision)


def _load_keras(
    work: Work, network: KerasNetwork, example: NamedExamples
) -> Callable[[Sequence[NamedExamples]], tuple[list[bytes], np.ndarray]]:
    begin(network.backend)
    import keras

    from tlkit import layers, runtime  # noqa: F401  its layers are known to Keras then
    from tlkit.features.extractor import Extractor

    runtime.prepare(0, work.precision)
    try:
        model = keras.models.model_from_json(network.network)  # refuses code: safe_mode is on
        model.set_weights(network.weights)
    except Exception as error:  # a layer that only the client knows
        raise Unavailable(f"{_here()}: the network cannot be loaded: {first_line(error)}") from error
    extractor = Extractor(model, None, "keras", work.precision, work.description["dtype"], work.name)
    _compare(work, extractor.open("keras", example).description)
    return extractor.compute


def _compare(work: Work, own: Mapping[str, Any]) -> None:
    """Refuse to compute other features than the client would.

    Raises:
        Unavailable: the message says what differs.
    """
    for name, value in own.items():
        if work.description.get(name) != value:
            raise Unavailable(
                f"{_here()}: its {name} is {value!r}, and here it is {work.description.get(name)!r}: "
                "install the same versions there"
            )


def begin(backend: str) -> None:
    """Import Keras on a worker, with the client's backend.

    Raises:
        Unavailable: it has another already, of an earlier client.
    """
    with startup.taking(backend):
        startup.start_keras()
    import keras

    if keras.backend.backend() != backend:
        raise Unavailable(
            f"{_here()}: Keras computes on {keras.backend.backend()} there, and here on {backend}: start workers with "
            f"{startup.VARIABLE}={backend}"
        )


def _here() -> str:
    return f"worker on {socket.gethostname()}"
