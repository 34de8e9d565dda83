"""Features: what a frozen network gives for each photo, computed once and kept in the activation store.

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
import dataclasses
import hashlib
import inspect
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from tlkit import arithmetic, runtime
from tlkit.data import ExampleSet, NamedExamples, images
from tlkit.data.photos import SHARE
from tlkit.display import say
from tlkit.errors import InvalidInput, Unavailable
from tlkit.features import engines
from tlkit.features.store import GB, POLL, Segment, Space, Store, finite
from tlkit.progress import Progress
from tlkit.untrusted import available_memory

Read = Callable[[np.ndarray], np.ndarray]  # from places of photos to their pixels

FORMAT = 1  # of what stands in the store: raise it when the same description begins to mean other numbers
FIRST, LARGEST, SECONDS = 64, 64 * 2**20, 5.0  # photos in the first segment; bytes, and seconds of work, in the next
TURN = 10.0  # seconds after which another process may compute for the same space
SAMPLE = 16  # photos on which engines are compared
WORTH = 5.0  # seconds that must be saved, all epochs together, as `seconds_each` reckons them
MULTIPLY_ADDS, VALUES = 1e11, 4e9  # a second, of Keras on two cores: MobileNet, ResNet, ViT within a factor of two
GPU = 50.0  # times as much
WRITE, READ = 2e8, 1e9  # bytes a second, of an ordinary disk and of a file that was just written
THREADS = 2  # that read; what decodes has its own
IN_MEMORY = 256 * 2**20  # bytes of features up to which `array` is worth its memory
_LEAVE_OUT = ("name", "trainable", "seed", "build_config", "compile_config", "registered_name")  # of a layer's config
_REFERENCES = ("keras_history", "input_layers", "output_layers")  # where one names layers


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """Features of photos, in the photos' order, mapped into memory from the store where there is one.

    To `data.batches` they are what photos are: they have a length, `shape`, `dtype`, `labels` and `read`.
    `features[start:stop]` reads some in a row.
    """

    labels: np.ndarray  # (n,), int32
    hashes: list[str]  # of the photos
    segments: list[Segment]
    part: np.ndarray  # (n,): which segment each stands in
    row: np.ndarray  # (n,): and where in it
    shape: tuple[int, ...]  # of each
    dtype: np.dtype
    kind: str = "features"

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The features of some, as a new array (k, *shape)."""
        indices = np.asarray(indices, np.int64)
        values = np.empty((len(indices), *self.shape), self.dtype)
        parts = self.part[indices]
        for part in np.unique(parts):
            here = parts == part
            values[here] = self.segments[part].values[self.row[indices[here]]]
        return values

    def __getitem__(self, places: slice) -> np.ndarray:
        return self.read(np.arange(*places.indices(len(self))))

    def array(self) -> np.ndarray | Rows:
        """All as one array (n, *shape), where that is small enough; else what can be sliced like one."""
        rows = Rows(self)
        return self[:] if math.prod(rows.shape) * self.dtype.itemsize <= IN_MEMORY else rows

    @staticmethod
    def joined(parts: Sequence[Features]) -> Features:
        """Several splits' features as one, first to last; all must come from one `extract`."""
        first = parts[0]
        return dataclasses.replace(
            first,
            labels=np.concatenate([part.labels for part in parts]),
            hashes=[hash_ for part in parts for hash_ in part.hashes],
            part=np.concatenate([part.part for part in parts]),
            row=np.concatenate([part.row for part in parts]),
        )


if TYPE_CHECKING:
    _EXAMPLES: type[ExampleSet] = Features  # mypy proves it


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Features like an array (n, *shape) that is read slice by slice: `rows[start:stop]`."""

    features: Features

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all."""
        return (len(self.features), *self.features.shape)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, places: slice) -> np.ndarray:
        return self.features[places]


class _TooLarge(Exception):
    """An activation that float16 cannot hold."""


class Extractor:
    """Computes a network's features, or finds them in the store.

    Args:
        network: A functional Keras model with one input and one output; what is random in it is switched off. Its
            weights must stay what they are: make another extractor where they change.
        store: Where they are kept; None keeps them in memory.
        engine: `keras`, `openvino`, or `auto`: the one that has computed these features before, else OpenVINO where it
            can run the network and gives what Keras gives.
        precision: That the network computes in, a name of Keras' dtype policies; by default the present one.
        dtype: That features are kept in. Half of the disk by float16; what does not fit its range is kept in float32.
        label: What the network is, for people.

    Attributes:
        computed: How many features were computed, and not found.
        seconds: That computing them took.
        engine: Name of the engine that did, or would have.
        found: Why `auto` took Keras when it compared engines, or "".

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
    ):
        self.network, self.store, self.label = network, store, label
        self.precision = precision or keras.config.dtype_policy().name
        self.dtype = np.dtype(dtype)
        self.engine, self.found = engine, ""
        self.computed, self.seconds = 0, 0.0
        self.shape = tuple(network.output.shape[1:])
        self.identity = identity(network)
        engines.check(engine, self.precision)
        self._ready: engines.Engine | None = None
        self._ready_for: np.dtype | None = None

    def extract(self, *splits: NamedExamples) -> list[Features]:
        """Give the features of each split: photos that the store has are not even opened.

        Raises:
            InvalidInput: a photo cannot be decoded, or its features are not finite.
            Unavailable: the features have no room, neither in the store nor in memory.
        """
        if len({(photos.shape, photos.dtype, photos.kind) for photos in splits}) != 1:
            raise ValueError("the splits must have one shape, dtype and kind")
        keys = [bytes.fromhex(hash_) for photos in splits for hash_ in photos.hashes]
        places: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, place)
        space = self._space(splits, places)  # what it has is in use, and makes no room for what is computed now
        before = self.computed
        try:
            self._fill(space, places, splits)
        except _TooLarge:
            self.dtype, self.computed = np.dtype(np.float32), before
            return self.extract(*splits)
        part, row = space.use(keys)
        given, start = [], 0
        for photos in splits:
            here = slice(start, start := start + len(photos))
            given.append(
                Features(
                    labels=photos.labels,
                    hashes=photos.hashes,
                    segments=space.segments,
                    part=part[here],
                    row=row[here],
                    shape=self.shape,
                    dtype=self.dtype,
                )
            )
        return given

    def missing(self, *splits: NamedExamples) -> int:
        """Say how many features would have to be computed."""
        keys = {bytes.fromhex(hash_) for photos in splits for hash_ in photos.hashes}
        spaces = [self._open(name, splits[0]) for name in self._candidates()] if self.store else []
        return len(keys) - max((space.verify(keys) for space in spaces), default=0)

    def _space(self, splits: Sequence[NamedExamples], places: dict[bytes, int]) -> Space:
        """The space of the engine that is to be used, which is chosen here."""
        photos = splits[0]
        spaces = {name: self._open(name, photos) for name in self._candidates()}
        if photos.dtype != self._ready_for:
            self._ready, self._ready_for = None, photos.dtype  # an engine is made for one type
        has = {name: space.verify(places) for name, space in spaces.items()}
        name = max(has, key=has.__getitem__)
        missing = len(places) - has[name]
        if len(spaces) > 1 and missing > has[name]:
            if self._ready is None:
                sample = _reader(splits)(np.fromiter(places.values(), np.int64)[:SAMPLE])
                self._ready, self.found = engines.choose(self.network, self.precision, sample)
            name = self._ready.name
        elif missing and (self._ready is None or self._ready.name != name):
            self._ready = engines.make(name, self.network, self.precision, photos.dtype)
        self.engine = name
        return spaces[name]

    def _candidates(self) -> list[str]:
        if self.engine != "auto":
            return [self.engine]
        return ["keras"] if engines.unavailable(self.precision) else ["openvino", "keras"]

    def _open(self, engine: str, photos: NamedExamples) -> Space:
        description = {
            "format": FORMAT,
            **self.identity,
            "shape": list(self.shape),
            "dtype": self.dtype.name,
            "engine": engines.version(engine),
            "precision": self.precision,
            "kind": photos.kind,
            "pixels": list(photos.shape),
            "decoder": f"{images.DECODER}, pillow {metadata.version('pillow')}",
        }
        return self.store.space(description, self.label).refresh() if self.store else Space(description)

    def _fill(self, space: Space, places: dict[bytes, int], splits: Sequence[NamedExamples]) -> None:
        """Compute what the space does not have."""
        missing, waited = [key for key in places if key not in space.places], False
        with Progress(f"features ({self.engine})", len(missing), splits[0].kind) as progress:
            while missing:
                began, before = time.perf_counter(), self.computed
                try:
                    if not self._turn(space, missing, places, splits, progress) and not waited:
                        waited = True
                        say("another process is computing these features: waiting for it", error=True)
                except Unavailable:
                    raise
                except OSError as error:
                    if space.folder is None:  # it is not the store that fails
                        raise
                    reason = error.strerror or str(error)
                    where = f"the activation store {space.folder.parent}"
                    say(f"{where} is not written: {reason}; going on without it", error=True)
                    with contextlib.suppress(OSError):
                        space.refresh()  # what was written before
                    space.folder = None
                self.seconds += time.perf_counter() - began if self.computed > before else 0.0
                space.verify(places)
                missing = [key for key in places if key not in space.places]
                progress.advance(max(progress.total - len(missing) - progress.done, 0))  # what another process has done

    def _turn(
        self,
        space: Space,
        missing: list[bytes],
        places: dict[bytes, int],
        splits: Sequence[NamedExamples],
        progress: Progress,
    ) -> bool:
        """Compute until nothing is missing or others may want to; False where another process is at it."""
        with space.turn(1.0) as ours:
            space.refresh()
            missing = [key for key in missing if key not in space.places]
            if not ours:
                return False
            if space.folder is None:
                self._check_memory(len(missing))
            end, writing = time.monotonic() + TURN, None
            with ThreadPoolExecutor(1) as writer:
                for keys, values in self._blocks(missing, places, splits):
                    self.computed += len(keys)
                    progress.advance(len(keys))
                    before, writing = writing, writer.submit(_put, space, keys, values)
                    if before:
                        before.result()  # raises only now that this block is on its way too: computed is computed
                    if space.folder is not None and time.monotonic() > end:
                        break
                if writing:
                    writing.result()
            space.refresh()
        if not all(key in space.places for key in missing):
            time.sleep(1.5 * POLL)  # for a process that waits
        return True

    def _blocks(
        self, keys: list[bytes], places: dict[bytes, int], splits: Sequence[NamedExamples]
    ) -> Iterator[tuple[list[bytes], np.ndarray]]:
        """Compute features, in blocks of keys and values that are worth a segment each."""
        if self._ready is None:
            raise RuntimeError("no engine")  # `_space` makes one where anything is missing
        size, most = self._ready.batch_size, max(1, LARGEST // self.bytes_each)
        order = [np.array([places[key] for key in keys[i : i + size]]) for i in range(0, len(keys), size)]
        batches = engines.in_order(_reader(splits), order, THREADS, ahead=2 * THREADS)
        began, target, given = time.perf_counter(), min(FIRST, most), 0
        block: list[np.ndarray] = []
        for indices, outputs in zip(order, self._ready.run(batches), strict=True):
            if not finite(outputs):
                sound = np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1)
                raise InvalidInput(self._not_finite(_names(splits)[indices[sound.argmin()]]))
            with np.errstate(over="ignore"):
                block.append(outputs.astype(self.dtype))
            if not finite(block[-1]):
                raise _TooLarge
            count = sum(map(len, block))
            if count >= target or given + count == len(keys):
                yield keys[given : given + count], np.concatenate(block)
                given, block = given + count, []
                target = int(np.clip(SECONDS * given / (time.perf_counter() - began), 1, most))

    def _not_finite(self, name: str) -> str:
        cure = "give other weights" if self.precision == "float32" else "give other weights, or --precision float32"
        return f"{name}: what the network gives for it ({self.label or self.network.name}) is not finite: {cure}"

    @property
    def bytes_each(self) -> int:
        """Bytes of one photo's features."""
        return math.prod(self.shape) * self.dtype.itemsize

    def _check_memory(self, count: int) -> None:
        size = count * self.bytes_each
        if size > SHARE * available_memory():
            raise Unavailable(f"{size / GB:.1f} GB of features do not fit into memory without a store")


def _put(space: Space, keys: list[bytes], values: np.ndarray) -> None:
    try:
        space.write(keys, values)
    except OSError:
        space.keep(keys, values)  # computed is computed
        raise


def _reader(splits: Sequence[NamedExamples]) -> Read:
    """Read from several splits as if they were one; places ascend."""
    starts = np.cumsum([0, *map(len, splits)])

    def read(places: np.ndarray) -> np.ndarray:
        split = np.searchsorted(starts, places, side="right") - 1
        return np.concatenate([splits[s].read(places[split == s] - starts[s]) for s in np.unique(split)])

    return read


def _names(splits: Sequence[NamedExamples]) -> list[str]:
    return [name for photos in splits for name in photos.names]


class Estimate(NamedTuple):
    """Whether stored activations are worth their disk.

    Args:
        worth: Whether they are.
        size: Bytes of those that are not stored yet.
        saved: Seconds that they would save, of all epochs, as `seconds_each` reckons them.
        said: Why, for the user.
    """

    worth: bool
    size: int
    saved: float
    said: str


def estimate(extractor: Extractor, examples: Sequence[NamedExamples], passes: int) -> Estimate:
    """Weigh the bytes of stored activations against what they save.

    Activations in float16 are rounded, so this choice too is part of the result: counts decide, and no clock, which
    would measure what else the machine does.

    Args:
        extractor: Of the frozen part.
        examples: All whose activations would be stored, views one by one.
        passes: How often the network would compute one photo, in all epochs.
    """
    missing, store = extractor.missing(*examples), extractor.store
    if not missing:
        return Estimate(True, 0, 0.0, "which are there already")
    each = extractor.bytes_each
    size = missing * each
    seconds = seconds_each(extractor.network)
    saved = passes * seconds - missing * (seconds + each / WRITE) - passes * each / READ
    room = min(store.limit, 0.5 * _free(store.folder)) if store else SHARE * available_memory()
    fewer = passes - missing
    gain = f"save {fewer:,} of {passes:,} passes of a photo" if fewer > 0 else "save no pass of a photo"
    said = f"{size / 1e6:,.0f} MB more to {gain}"
    if size > room:
        return Estimate(False, size, saved, f"{said}: more than the {room / GB:.2g} GB that there are for it")
    return Estimate(saved >= WORTH, size, saved, said)


def seconds_each(network: keras.Model) -> float:
    """Reckon the seconds that Keras takes to compute one photo, from counts: as on two cores of a CPU or on a GPU.

    >>> round(1e6 * seconds_each(keras.Sequential([keras.Input((1000,)), keras.layers.Dense(1000)])), 2)  # microseconds
    10.25
    """
    rows = arithmetic.describe(network)
    multiply_adds = sum(row.multiply_adds or 0 for row in rows)
    values = sum(math.prod(side or 1 for side in row.shape) for row in rows)
    times = GPU if runtime.device()[0] != "cpu" else 1.0
    return (multiply_adds / MULTIPLY_ADDS + values / VALUES) / times


def _free(folder: Path) -> int:
    """Bytes that are free where a folder is, or would be."""
    return shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free


def pooled(model: keras.Model) -> keras.Model:
    """The part of `backbones.classifier`'s model from the pixels to the pooled features."""
    return keras.Model(model.input, model.get_layer("pool").output)


def _code(network: keras.Model) -> list[str]:
    """The source of layers and functions that are not Keras' own: a config has nothing but their names."""
    found = []
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            found += _code(layer)
        functions: list[Any] = [value for value in vars(layer).values() if inspect.isfunction(value)]
        for made in (type(layer), *functions):
            if (made.__module__ or "").split(".")[0] == "keras":
                continue
            try:
                found.append(inspect.getsource(made))
            except (OSError, TypeError):  # typed in at a prompt: it cannot be told from others, so nothing is found
                found.append(os.urandom(16).hex())
    return found


def identity(network: keras.Model) -> dict[str, str]:
    """Digests of a network's graph and of its weights: equal where it computes the same.

    Names of layers and what matters in training alone, such as what is frozen, do not count; the source of layers and
    functions that are not Keras' own does.

    >>> a, b = (keras.Sequential([keras.Input((2,)), keras.layers.Rescaling(s)]) for s in (2, 3))
    >>> identity(a)["graph"] == identity(b)["graph"]
    False
    """

    def plain(value: Any, names: dict[str, int]) -> Any:
        if isinstance(value, list | tuple):
            return [plain(inner, names) for inner in value]
        if not isinstance(value, dict):
            return value
        if isinstance(value.get("layers"), list):  # of a model: its layers' names mean something within it alone
            names = {layer["config"].get("name"): place for place, layer in enumerate(value["layers"])}
        return {
            # What is called `dtype` has a name that counts: float32 or mixed_bfloat16.
            key: numbered(inner, names) if key in _REFERENCES else inner if key == "dtype" else plain(inner, names)
            for key, inner in value.items()
            if key not in _LEAVE_OUT and not key.endswith(("_initializer", "_regularizer", "_constraint"))
        }

    def numbered(value: Any, names: dict[str, int]) -> Any:
        if isinstance(value, list | tuple):
            return [numbered(inner, names) for inner in value]
        if isinstance(value, dict):
            return {key: numbered(inner, names) for key, inner in value.items()}
        return names.get(value, value) if isinstance(value, str) else value

    graph = json.dumps([plain(network.get_config(), {}), _code(network)], sort_keys=True, default=repr)
    weights = hashlib.sha256()
    for weight in network.weights:
        values = keras.ops.convert_to_numpy(weight.value)
        weights.update(f"{values.shape} {values.dtype.name} ".encode())
        weights.update(values.tobytes())
    return {"graph": hashlib.sha256(graph.encode()).hexdigest(), "weights": weights.hexdigest()}
