"""Extract features: the outputs of a frozen network, computed once for each example and kept in the activation store.

>>> from tlkit import backbones, data
>>> splits = data.load("embedded", size=(32, 32), channels=1)
>>> network = pooled(backbones.classifier(backbones.build("LetterNet"), 10))
>>> extractor = Extractor(network, store=None, engine="keras")
>>> (features,) = extractor.extract(splits.test)
>>> features.shape, features.read([0, 5]).shape
((128,), (2, 128))
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import keras
import numpy as np

from tlkit import inference
from tlkit.data import NamedExamples, images
from tlkit.data.opening import SHARE
from tlkit.display import say
from tlkit.errors import Unavailable
from tlkit.features import blocks, engines, remote
from tlkit.features.digests import identity
from tlkit.features.examples import Features
from tlkit.features.inputs import Inputs
from tlkit.features.space import POLL, Space
from tlkit.features.store import GB, Store
from tlkit.progress import Progress
from tlkit.untrusted import available_memory

if TYPE_CHECKING:
    from tlkit.cluster import Cluster

FORMAT = 1  # raise it when the same description begins to mean other values
TURN = 10.0  # seconds after which another process may compute for the same space
SAMPLE = 16  # examples on which engines are compared


class Extractor:
    """Compute the features of a network, or find them in the store.

    Args:
        network: A functional Keras model with one input and one output; it runs in inference mode. Its weights must not
            change afterwards: make another extractor for other weights.
        store: The activation store; None keeps the features in memory.
        engine: `keras`, `openvino`, or `auto`: the one that computed most of these features before, else OpenVINO where
            it can run the network and agrees with Keras.
        precision: Name of the Keras dtype policy to compute in; by default the current one.
        dtype: Of the stored features. float16 takes half of the disk; values beyond its range switch to float32.
        label: A short name of the network, for people.
        cluster: Workers that compute, as `tlkit.cluster.connect` gives them; by default this process does.
        among: Whether other processes compute features of other examples for the same store meanwhile, which are not to
            wait for one another.

    Attributes:
        computed: Number of features that were computed, not found.
        seconds: Time that computing them took.
        engine: Name of the engine that computed them, or would have.
        reason: Why `auto` chose Keras after comparing engines, or "".

    Raises:
        InvalidInput: the engine cannot run here.
    """

    def __init__(
        self,
        network: keras.Model,
        store: Store | None = None,
        engine: str = "auto",
        precision: str | None = None,
        dtype: str = "float32",
        label: str = "",
        cluster: Cluster | None = None,
        among: bool = False,
    ):
        self.network, self.store, self.label = network, store, label
        self.cluster, self.among = cluster, among
        self.precision = precision or keras.config.dtype_policy().name
        self.dtype = np.dtype(dtype)
        self.engine, self.reason = engine, ""
        self.computed, self.seconds = 0, 0.0
        self.shape = tuple(network.output.shape[1:])
        self.identity = identity(network)
        engines.check(engine, self.precision)
        self._ready: inference.Engine | None = None
        self._ready_for: np.dtype | None = None

    def extract(self, *splits: NamedExamples) -> list[Features]:
        """Return the features of each split; examples whose features are stored are not opened.

        Raises:
            InvalidInput: an example cannot be decoded, or its features are not finite.
            Unavailable: the features fit neither into the store nor into memory.
        """
        if len({(examples.shape, examples.dtype, examples.kind) for examples in splits}) != 1:
            raise ValueError("the splits must have one shape, dtype and kind")
        inputs = Inputs(splits)
        space = self._space(inputs)  # its segments are in use from here on, so they are not deleted to make room
        before = self.computed
        try:
            self._fill(space, inputs)
        except blocks.TooLarge:
            self.dtype, self.computed = np.dtype(np.float32), before
            return self.extract(*splits)
        part, row = space.use(inputs.keys)
        return [
            Features(
                labels=examples.labels,
                hashes=examples.hashes,
                groups=examples.groups,
                segments=space.segments,
                part=part[start : start + len(examples)],
                row=row[start : start + len(examples)],
                shape=self.shape,
                dtype=self.dtype,
            )
            for start, examples in zip(inputs.starts.tolist(), splits, strict=False)
        ]

    def _spaces(self, like: NamedExamples) -> list[Space]:
        """Open the spaces of the store that may have the features of such examples."""
        return [self.open(name, like) for name in self._candidates()] if self.store else []

    def missing(self, *splits: NamedExamples) -> int:
        """Return the number of features that are not in the store."""
        keys = {bytes.fromhex(hash_) for examples in splits for hash_ in examples.hashes}
        return len(keys) - max((space.verify(keys) for space in self._spaces(splits[0])), default=0)

    def recall(self, labels: Mapping[str, int], like: NamedExamples) -> Features | None:
        """Return features that are in the store already, of examples that need not be there any more.

        Args:
            labels: Of each, by the hash of its content.
            like: Examples that are read as those were.

        Returns:
            Those that are stored; None if none is.
        """
        keys = [bytes.fromhex(hash_) for hash_ in labels]
        space = max(self._spaces(like), key=lambda each: each.verify(keys), default=None)
        here = [hash_ for hash_ in labels if space and bytes.fromhex(hash_) in space.places]
        if space is None or not here:
            return None
        part, row = space.use([bytes.fromhex(hash_) for hash_ in here])
        return Features(
            np.array([labels[hash_] for hash_ in here]), here, here, space.segments, part, row, self.shape, self.dtype
        )

    def _space(self, inputs: Inputs) -> Space:
        """Choose the engine, and return its space."""
        dtype = inputs.first.dtype
        spaces = {name: self.open(name, inputs.first) for name in self._candidates()}
        if dtype != self._ready_for:
            self._ready, self._ready_for = None, dtype  # an engine is compiled for one dtype
        stored = {name: space.verify(inputs.places) for name, space in spaces.items()}
        name = max(stored, key=stored.__getitem__)
        missing = len(inputs.places) - stored[name]
        if len(spaces) > 1 and missing > stored[name]:
            if self._ready is None:
                sample = inputs.read(np.fromiter(inputs.places.values(), np.int64)[:SAMPLE])
                self._ready, self.reason = engines.choose(self.network, self.precision, sample)
            name = self._ready.name
        self.engine = name
        if missing and (name == "openvino" or not self.cluster):  # workers make Keras' own
            self.prepared(dtype)
        return spaces[name]

    def _candidates(self) -> list[str]:
        if self.engine != "auto":
            return [self.engine]
        return ["keras"] if engines.unavailable(self.precision) else ["openvino", "keras"]

    def open(self, engine: str, examples: NamedExamples) -> Space:
        """Return the space of the features of such examples as an engine computes them."""
        description = {
            "format": FORMAT,
            **self.identity,
            "shape": list(self.shape),
            "dtype": self.dtype.name,
            "engine": engines.version(engine),
            "precision": self.precision,
            "kind": examples.kind,
            "pixels": list(examples.shape),
            "decoder": images.version(),
            **examples.reading.changed,
        }
        return self.store.space(description, self.label).refresh() if self.store else Space(description)

    def _fill(self, space: Space, inputs: Inputs) -> None:
        """Compute the features that the space does not have."""
        missing, waited = inputs.missing(space), False
        with Progress(f"features ({self.engine})", len(missing), inputs.first.kind) as progress:
            while missing:
                start, before = time.perf_counter(), self.computed
                try:
                    if not self._turn(space, inputs, progress) and not waited:
                        waited = True
                        say("another process is computing these features: waiting for it", error=True)
                except Unavailable:
                    raise
                except OSError as error:
                    if space.folder is None:  # not an error of the store
                        raise
                    self._leave_store(space, error)
                self.seconds += time.perf_counter() - start if self.computed > before else 0.0
                space.verify(inputs.places)
                missing = inputs.missing(space)
                progress.advance(max(progress.total - len(missing) - progress.done, 0))  # computed by other processes

    @staticmethod
    def _leave_store(space: Space, error: OSError) -> None:
        """Go on in memory, after the store could not be written."""
        reason, where = error.strerror or str(error), f"the activation store {space.folder and space.folder.parent}"
        say(f"{where} cannot be written: {reason}; continuing without it", error=True)
        with contextlib.suppress(OSError):
            space.refresh()  # use what was written before
        space.folder = None

    def _turn(self, space: Space, inputs: Inputs, progress: Progress) -> bool:
        """Compute until nothing is missing or other processes may want a turn; False where one of them has it."""
        with space.shared() if self.among else space.turn(1.0) as ours:
            space.refresh()
            missing = inputs.missing(space)
            if not ours:
                return False
            if space.folder is None:
                self._check_memory(len(missing))
            end, writing = time.monotonic() + TURN, None
            with (
                ThreadPoolExecutor(1) as writer,
                contextlib.closing(self._computed(space, inputs, missing)) as computed,
            ):
                for keys, values in computed:
                    self.computed += len(keys)
                    progress.note = self.cluster.status if self.cluster else ""
                    progress.advance(len(keys))
                    before, writing = writing, writer.submit(blocks.put, space, keys, values)
                    if before:
                        before.result()  # raises only after this block was handed over, so that it is not lost
                    if not (space.folder is None or self.cluster or self.among) and time.monotonic() > end:
                        break
                if writing:
                    writing.result()
            space.refresh()
        if not all(key in space.places for key in missing):
            time.sleep(1.5 * POLL)  # let a waiting process take the lock
        return True

    def _computed(
        self, space: Space, inputs: Inputs, keys: list[bytes]
    ) -> Generator[tuple[list[bytes], np.ndarray | None], None, None]:
        """Compute features here or on the cluster, in blocks; without values where a worker has written them."""
        if self.cluster:
            yield from remote.blocks(self.cluster, self, space, inputs, keys)
        else:
            engine = self.prepared(inputs.first.dtype)
            yield from blocks.compute(engine, keys, inputs, self.dtype, self.name, self.precision)

    def compute(self, examples: Sequence[NamedExamples]) -> tuple[list[bytes], np.ndarray]:
        """Compute features by `engine`, without looking into the store, as a worker of a cluster does.

        Returns:
            The keys, of which none occurs twice, and their values.
        """
        inputs = Inputs(examples)
        return blocks.compute_all(self.prepared(inputs.first.dtype), inputs, self.dtype, self.name, self.precision)

    def prepared(self, dtype: np.dtype) -> inference.Engine:
        """Return the engine `engine`, ready for examples of a dtype."""
        if self._ready is None or self._ready.name != self.engine or self._ready_for != dtype:
            self._ready = engines.make(self.engine, self.network, self.precision, dtype)
            self._ready_for = dtype
        return self._ready

    @property
    def name(self) -> str:
        """Of the network, for people."""
        return self.label or self.network.name

    @property
    def bytes_each(self) -> int:
        """Bytes of one example's features."""
        return math.prod(self.shape) * self.dtype.itemsize

    def _check_memory(self, count: int) -> None:
        size = count * self.bytes_each
        if size > SHARE * available_memory():
            raise Unavailable(f"{size / GB:.1f} GB of features do not fit into memory without a store")


def pooled(model: keras.Model) -> keras.Model:
    """Return the part of a `backbones.classifier` from its input to its pooled features."""
    return keras.Model(model.input, model.get_layer("dropout").input)  # not the output of `pool`, which may be a model
