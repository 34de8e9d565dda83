"""Features computed by the workers of a cluster: what they are sent, and what becomes of their answers.

What they do with it is in `tlkit.features.worker`.
"""

from __future__ import annotations

import contextlib
import pickle
import secrets
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlkit import cluster, inference
from tlkit.data import NamedExamples
from tlkit.errors import Unavailable, first_line
from tlkit.features import worker
from tlkit.features.inputs import Inputs
from tlkit.features.space import Space

if TYPE_CHECKING:
    from tlkit.features.extractor import Extractor

FIRST, SECONDS, STEP = 64, 5.0, 32  # examples of the first chunks; seconds of work in a later one; chunks are multiples
WRITTEN, SENT = 64 * 2**20, 8 * 2**20  # bytes at most: of a chunk's features, and of what is sent for a chunk
SEEN = 60.0  # seconds after which a file that another machine has written is to be seen on this one


def blocks(
    workers: cluster.Cluster, extractor: Extractor, space: Space, inputs: Inputs, keys: Sequence[bytes]
) -> Generator[tuple[list[bytes], np.ndarray | None], None, None]:
    """Have features computed, in any order; without values where a worker has written them into the store.

    Args:
        workers: Of the cluster.
        extractor: Whose features these are.
        space: Of the store, whose turn is ours.
        inputs: The examples.
        keys: Of those that are missing, in the order of the examples.

    Raises:
        InvalidInput: an example cannot be decoded, or its features are not finite.
        Unavailable: a worker has other versions, or sees the examples or the store differently; or there is none.
        OSError: the store has no room.
    """
    if not keys:
        return
    if space.store and space.folder:  # here and not by the workers, who do not know what others use
        space.store.make_room(len(keys) * (extractor.bytes_each + len(keys[0])))
    sizes = _Sizes(workers, extractor.bytes_each, len(pickle.dumps(inputs.select(keys[:1]))))
    chunks = _Chunks(inputs, sizes.cut(keys), len(keys))
    with _probe(space) as place:
        parts = (worker.Part(examples, place) if examples else None for examples in chunks)
        for part, done in cluster.map_unordered(workers, worker.compute, _work(extractor, space, inputs), parts):
            names = list(Inputs(part.examples).places)
            if done.segment is None and done.values is None:
                chunks.send(names)
                continue
            chunks.left -= len(names)
            sizes.rate = len(names) / max(done.seconds, 1e-6)
            if done.segment and space.folder:
                _wait_for(space.folder / done.segment)
            yield names, done.values


class _Chunks:
    """Examples of chunks, by split; with the bytes of their files where workers cannot open these.

    Args:
        inputs: The examples.
        keys: Of each chunk.
        count: Of the keys.

    Attributes:
        left: Number of examples without a result; until it is 0, one that is missing may be asked for again.
    """

    def __init__(self, inputs: Inputs, keys: Iterator[Sequence[bytes]], count: int):
        self.inputs, self.keys, self.left = inputs, keys, count
        self.again: list[Sequence[bytes]] = []
        self.sending = False

    def send(self, keys: Sequence[bytes]) -> None:
        """Send these once more, with their bytes; so are all that follow."""
        self.again.append(keys)
        self.sending = True

    def __iter__(self) -> Iterator[list[NamedExamples] | None]:
        while self.left:
            if self.again:
                yield from self._with_contents(self.again.pop())
            elif (keys := next(self.keys, None)) is None:
                yield None
            elif self.sending:
                yield from self._with_contents(keys)
            else:
                yield self.inputs.select(keys)

    def _with_contents(self, keys: Sequence[bytes]) -> Iterator[list[NamedExamples]]:
        for start in range(0, len(keys), STEP):
            few = Inputs([examples.with_contents() for examples in self.inputs.select(keys[start : start + STEP])])
            own = list(few.places)
            size = -(-len(own) // -(-len(pickle.dumps(few.splits)) // SENT))
            for first in range(0, len(own), size):
                yield few.select(own[first : first + size])


class _Sizes:
    """How many examples a chunk has: a few seconds of work, and towards the end less, so that all workers end at once.

    Args:
        workers: Of the cluster.
        written: Bytes of an example's features.
        sent: Bytes that are sent for an example.

    Attributes:
        rate: Examples a second on one core.
    """

    def __init__(self, workers: cluster.Cluster, written: int, sent: int):
        self.workers, self.rate = workers, 0.0
        self.most = max(1, min(WRITTEN // written, SENT // sent))

    def cut(self, keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
        """Cut the keys into chunks, each when it is asked for."""
        start = 0
        while start < len(keys):
            share = (len(keys) - start) // (2 * max(self.workers.threads, 1))
            size = max(FIRST, min(int(self.rate * SECONDS), share)) // STEP * STEP
            end = start + min(size, self.most)
            yield keys[start:end]
            start = end


def _work(extractor: Extractor, space: Space, inputs: Inputs) -> worker.Work:
    import keras

    network: worker.Graph | worker.KerasNetwork
    if extractor.engine == "openvino":
        try:
            network = worker.Graph(*inference.packed(extractor.prepared(inputs.first.dtype).graph))
        except OSError as error:
            raise Unavailable(f"the network cannot be written for the workers: {first_line(error)}") from error
    else:
        # Not as a .keras file: Keras' openvino backend compiles a program for each weight that it saves.
        network = worker.KerasNetwork(
            network=extractor.network.to_json(),
            weights=[keras.ops.convert_to_numpy(weight.value) for weight in extractor.network.weights],
            backend=keras.backend.backend(),
        )
    return worker.Work(network, extractor.name, extractor.precision, dict(space.description))


@contextlib.contextmanager
def _probe(space: Space) -> Iterator[worker.Place | None]:
    """Write a file into the store by which workers know that they see the same folder."""
    if space.folder is None or space.store is None:
        yield None
        return
    token = secrets.token_hex(16)
    path = space.folder / f".{token}.probe.part"  # a name that is deleted as unfinished if this process dies
    path.write_text(token, encoding="ascii")
    try:
        yield worker.Place(str(space.store.folder), str(path), token)
    finally:
        path.unlink(missing_ok=True)


def _wait_for(path: Path) -> None:
    """Wait until a file that a worker has written is to be seen here.

    Raises:
        Unavailable: it is not.
    """
    end = time.monotonic() + SEEN
    while not path.exists():
        if time.monotonic() > end:
            raise Unavailable(f"a worker has written {path}, but it is not to be seen here after {SEEN:.0f} s")
        time.sleep(0.5)
