"""Batches of photos for Keras: shuffled, augmented, prepared ahead, and the same in every run with the same seed.

Sounds and arrays are photos here: no more than the shape and the type tells them apart.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tlkit.data import modalities
from tlkit.data.augmentation import mix, switched_on
from tlkit.data.example_set import ExampleSet, NamedExamples
from tlkit.errors import InvalidInput

AUGMENTATION = 2  # raise it when a view begins to be changed otherwise: stored features are found by it
MIXING = ("mixup", "cutmix")  # changes that need a whole batch
AHEAD = 3  # batches prepared while the network computes
_unreadable: list[InvalidInput] = []  # what `readable_errors` raises; TensorFlow's threads keep only its text


def _of_one(augment: Mapping[str, Any]) -> dict[str, Any]:
    """The changes of single photos among those of `data.augment`: all that are switched on but those of a batch."""
    return {name: value for name, value in switched_on(augment).items() if name not in MIXING}


def _augmentation(kind: str) -> Callable[..., np.ndarray]:
    augment = modalities.row(kind).augment
    if augment is None:
        raise InvalidInput(f"augment is given; {kind} cannot be changed: leave it out")
    return augment


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """Photos, each changed once and for all; `number` tells one view of them from another.

    How a photo is changed follows from the seed, the number and what the photo holds, so it is the same whatever other
    photos there are, and features of it can be kept.
    """

    photos: NamedExamples
    augment: Mapping[str, Any]  # arguments of `tlkit.data.augment`; mixup and cutmix, which need a batch, do nothing
    seed: int
    number: int

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def names(self) -> list[str]:
        """Of the photos."""
        return self.photos.names

    @property
    def labels(self) -> np.ndarray:
        """Of the photos: (n,), int32, or (n, classes), float32."""
        return self.photos.labels

    @property
    def shape(self) -> tuple[int, ...]:
        """Of each photo."""
        return self.photos.shape

    @property
    def dtype(self) -> np.dtype:
        """Of each photo."""
        return self.photos.dtype

    @property
    def kind(self) -> str:
        """Of the photos."""
        return self.photos.kind

    @property
    def _changes(self) -> dict[str, Any]:
        return _of_one(self.augment)

    @functools.cached_property
    def hashes(self) -> list[str]:
        """SHA-256 of each photo's own hash and of how it is changed."""
        change = json.dumps([AUGMENTATION, self._changes, self.seed, self.number], sort_keys=True)
        return [hashlib.sha256(f"{hash_} {change}".encode()).hexdigest() for hash_ in self.photos.hashes]

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The changed photos at `indices`, (k, *shape)."""
        images = self.photos.read(indices)
        change, changes = _augmentation(self.kind), self._changes
        for image, index in zip(images, indices, strict=True):
            rng = np.random.default_rng((self.seed, self.number, int(self.photos.hashes[index][:16], 16)))
            image[...] = change(image, rng, **changes)
        return images


class Mirrored(View):
    """Photos, all mirrored left to right: with the photos as they are, all that mirroring some of them can give."""

    def __init__(self, photos: NamedExamples):
        super().__init__(photos, {"flip": True}, 0, 0)

    @functools.cached_property
    def hashes(self) -> list[str]:
        """SHA-256 of each photo's own hash, and that it is mirrored."""
        return [hashlib.sha256(f"{hash_} mirrored".encode()).hexdigest() for hash_ in self.photos.hashes]

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The mirrored photos at `indices`, (k, height, width, channels)."""
        return np.ascontiguousarray(self.photos.read(indices)[:, :, ::-1])


def changed(photos: NamedExamples, augment: Mapping[str, Any], count: int, seed: int = 0) -> list[View]:
    """Views of the photos beside the photos themselves, to look at each several times.

    Args:
        photos: What is changed.
        augment: Arguments of `tlkit.data.augment`; mixup and cutmix, which need a batch, do nothing.
        count: Of random views; where photos are only mirrored there is one, in which all are.
        seed: Of the changes.
    """
    if modalities.row(photos.kind).mirrored and _of_one(augment) == {"flip": True}:
        return [Mirrored(photos)]
    return [View(photos, augment, seed, number) for number in range(count)]


if TYPE_CHECKING:
    _NAMED: tuple[type[NamedExamples], ...] = (View, Mirrored)  # mypy proves it


@dataclasses.dataclass(frozen=True, eq=False)
class Views:
    """Several views of the same photos, or their features: `batches` draws one for each photo in each epoch."""

    views: Sequence[ExampleSet]

    def __len__(self) -> int:
        return len(self.views[0])

    # What differs from view to view, such as the values, is not here: an epoch must draw before it reads.

    @property
    def labels(self) -> np.ndarray:
        """Of the photos: (n,), int32, or (n, classes), float32."""
        return self.views[0].labels

    @property
    def shape(self) -> tuple[int, ...]:
        """Of each photo."""
        return self.views[0].shape

    @property
    def dtype(self) -> np.dtype:
        """Of each photo."""
        return self.views[0].dtype

    @property
    def kind(self) -> str:
        """Name of the modality of the photos."""
        return self.views[0].kind

    def draw(self, indices: np.ndarray, seed: int, epoch: int, places: np.ndarray | None = None) -> np.ndarray:
        """The photos at `indices`, each in the view that `epoch` has drawn for it, or for its place in the order."""
        drawn = np.random.default_rng((seed, epoch, 0, 1)).integers(len(self.views), size=len(self))
        drawn = drawn[indices if places is None else places]
        values = np.empty((len(indices), *self.shape), self.dtype)
        for number in np.unique(drawn):
            here = drawn == number
            values[here] = self.views[number].read(np.asarray(indices)[here])
        return values


class Plan(NamedTuple):
    """What each batch holds; all that is random in it follows from the seed, the epoch and the photo's position.

    What the epoch draws has a place in its order, and `step` numbers the batches of the whole epoch.
    """

    photos: ExampleSet | Views
    batch_size: int
    shuffle: bool
    seed: int
    augment: Mapping[str, Any] | None
    labels: np.ndarray | None
    first_epoch: int = 0
    first_step: int = 0
    classes: int | None = None
    balanced: bool = False

    @property
    def mixing(self) -> dict[str, float]:
        """The changes that mix the examples of a batch."""
        return {name: value for name, value in switched_on(self.augment or {}).items() if name in MIXING}

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.photos) // self.batch_size) - self.first_step

    def order(self, epoch: int) -> list[np.ndarray]:
        """The positions of the photos in each batch of an epoch."""
        n = len(self.photos)
        rng = np.random.default_rng((self.seed, epoch))
        if self.balanced:
            order = _alike(self.photos.labels, rng)
        else:
            order = rng.permutation(n) if self.shuffle else np.arange(n)
        return np.split(order, range(self.batch_size, n, self.batch_size))[self.first_step :]

    def images(self, epoch: int, indices: np.ndarray, step: int = 0) -> np.ndarray:
        """The photos at `indices`, each augmented as in `epoch`: (k, *space, channels), uint8 or float32."""
        places = step * self.batch_size + np.arange(len(indices)) if self.balanced else None
        try:
            if isinstance(self.photos, Views):
                return self.photos.draw(indices, self.seed, int(epoch), places)
            images = self.photos.read(indices)
        except InvalidInput as error:
            _unreadable.append(error)
            raise
        if changes := _of_one(self.augment or {}):
            change = _augmentation(self.photos.kind)
            for number, (image, index) in enumerate(zip(images, indices, strict=True)):
                # + 1: NumPy seeds (seed, epoch, 0) and (seed, epoch) alike, and that is what the order is drawn from
                drawn = [self.seed, int(epoch), int(index) + 1]
                if places is not None:  # the same photo may stand in several
                    drawn.append(int(places[number]) + 1)
                image[...] = change(image, np.random.default_rng(drawn), **changes)
        return images

    def batch(self, epoch: int, indices: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The photos at `indices`, augmented and mixed as in `epoch`, and their labels, if any."""
        images = self.images(epoch, indices, step)
        labels = None if self.labels is None else self.labels[indices]
        if not self.mixing:
            return images, labels
        if labels is not None and labels.ndim == 1 and self.classes:
            labels = np.eye(self.classes, dtype=np.float32)[labels]
        rng = np.random.default_rng((self.seed, int(epoch), 0, 2, int(step) + 1))
        return mix(images, labels, rng, **self.mixing)


def _alike(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many positions as there are labels, those of each class alike often, none again before all of its class."""
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    counts = np.full(len(members), len(labels) // len(members))
    counts[rng.permutation(len(members))[: len(labels) % len(members)]] += 1
    drawn = [
        np.concatenate([rng.permutation(those) for _ in range(-(-count // len(those)))])[:count]
        for those, count in zip(members, counts.tolist(), strict=True)
    ]
    return rng.permutation(np.concatenate(drawn))


def batches(
    photos: ExampleSet | Views,
    batch_size: int,
    *,
    shuffle: bool = False,
    seed: int = 0,
    augment: Mapping[str, Any] | None = None,
    labels: bool = True,
    first_epoch: int = 0,
    first_step: int = 0,
    classes: int | None = None,
    balanced: bool = False,
    endless: bool = False,
) -> Any:
    """Batches for `fit`, `evaluate` and `predict`: a `tf.data.Dataset` on TensorFlow, else a `keras.utils.PyDataset`.

    Both hold the same batches, bit for bit. Photos are raw pixels from 0 to 255 and stay uint8, a quarter of the
    transfer; a Keras model turns them into float32 at its input. The last batch may be smaller. Call `fit` with
    `shuffle=False`: by default Keras mixes the batches of a PyDataset by Python's `random`, and warns of a tf.data one.
    Epochs are counted from `first_epoch` on, one for each time the batches are iterated. Iterate them in
    `readable_errors`.

    Args:
        photos: `Photos`, features of them, or anything else that is an `ExampleSet`; or `Views` of them.
        batch_size: Photos per batch.
        shuffle: Draw a new order for every epoch.
        seed: 0 or more. Order and augmentation depend on it, the epoch and the photo's position alone.
        augment: Arguments of `tlkit.data.augment`, such as `{"flip": True, "rotation": 10}`; those of `augment_sound`
            or `augment_array` where that is what the photos are. `mixup` and `cutmix` may be there too; see
            `tlkit.data.mix`. For `Views`, which are changed already, there may be no others.
        labels: Give (images, labels); without, images alone.
        first_epoch: Number of the first epoch, above 0 where training goes on that was begun with other batches.
        first_step: Batches that are left out at the beginning of every epoch, to go on within one.
        classes: How many there are; what mixes integer labels needs it.
        balanced: Draw the photos of every class alike often, as many in an epoch as there are, in random order: of a
            large class it leaves some out, those of a small one come back, each time changed anew.
        endless: Of a `tf.data.Dataset`: let one epoch follow the other in one iteration, so that those of the next are
            prepared while the network is validated; `fit` is to be given `steps_per_epoch`. A PyDataset is none.

    Shapes:
        images: (batch, *space, channels), uint8 or float32
        labels: (batch,), int32, or (batch, classes), float32, as those of the photos; the latter where they are mixed

    Raises:
        InvalidInput: there are no photos, or what is asked for cannot be had of these.
    """
    if not len(photos):
        raise InvalidInput("there are no photos to make batches of")
    if batch_size < 1:
        raise InvalidInput(f"batch_size is {batch_size!r}: 1 or more")
    given = photos.labels if labels else None
    plan = Plan(photos, batch_size, shuffle, seed, augment, given, first_epoch, first_step, classes, balanced)
    if balanced and photos.labels.ndim > 1:
        raise InvalidInput("balanced is true, but photos with several labels each cannot be drawn so: leave it out")
    if plan.mixing:
        _check_mixing(plan)
    import keras

    return _tf_data(plan, endless) if keras.backend.backend() == "tensorflow" else py_dataset(plan)


def _check_mixing(plan: Plan) -> None:
    names, kind = " and ".join(plan.mixing), plan.photos.kind
    possible = [name for name in MIXING if name in modalities.row(kind).changes]
    if not set(plan.mixing) <= set(possible):
        raise InvalidInput(f"augment has {names}; {kind} can have {' and '.join(possible) or 'neither'}")
    if plan.labels is not None and plan.labels.ndim == 1:
        most = int(plan.labels.max())
        if plan.classes is None or plan.classes <= most:
            raise InvalidInput(f"classes is {plan.classes}; for {names} of labels up to {most} give {most + 1} or more")


@contextmanager
def readable_errors() -> Iterator[None]:
    """Raise the InvalidInput of a photo that went away in mid-training, in place of TensorFlow's page about it.

    Raises:
        InvalidInput: a photo could not be read; the message names it.

    >>> from tlkit.data import Photos
    >>> with readable_errors():
    ...     images, labels = next(iter(batches(Photos.of(np.zeros((2, 8, 8, 1), np.uint8), [0, 1]), 2)))
    """
    _unreadable.clear()
    try:
        yield
    except InvalidInput:
        raise
    except Exception:
        if _unreadable:
            raise _unreadable[0] from None
        raise
    finally:
        _unreadable.clear()


def _tf_data(plan: Plan, endless: bool) -> Any:
    # Not by `from_generator`, whose every element costs as much Python again as reading it, and each iterator 10 ms.
    import tensorflow as tf

    epochs = itertools.count(plan.first_epoch)
    order = functools.lru_cache(2)(plan.order)
    kinds, shapes = [plan.photos.dtype], [plan.photos.shape]
    if plan.labels is not None:
        mixed = plan.mixing and plan.labels.ndim == 1
        kinds.append(np.dtype(np.float32) if plan.mixing else plan.labels.dtype)
        shapes.append((plan.classes,) if mixed else plan.labels.shape[1:])

    def batch(epoch: Any, step: Any) -> list[np.ndarray]:
        indices = order(int(epoch))[int(step)]
        return [part for part in plan.batch(epoch, indices, plan.first_step + step) if part is not None]

    def next_epoch(step: Any) -> np.int64:
        return np.int64(next(epochs))

    def counted(epoch: Any, step: Any) -> Any:
        # In the first step and not when an iterator is made: Keras may make two in each epoch and use one. It is called
        # stateless, which it is not, and so has an argument: where operations are to be deterministic, TensorFlow
        # reads nothing ahead and nothing in parallel in a pipeline with a stateful one.
        begin = lambda: tf.ensure_shape(tf.numpy_function(next_epoch, [step], tf.int64, stateful=False), ())  # noqa: E731
        epoch = tf.cond(step == 0, begin, lambda: epoch)
        return epoch, (epoch, step)

    def read(epoch: Any, step: Any) -> Any:
        parts = tf.numpy_function(batch, [epoch, step], kinds, stateful=False)
        for part, shape in zip(parts, shapes, strict=True):
            part.set_shape((None, *shape))
        return tuple(parts) if len(parts) > 1 else parts[0]

    if endless:
        numbers = tf.data.Dataset.counter()
        places = numbers.map(lambda number: (plan.first_epoch + number // plan.steps, number % plan.steps))
    else:
        places = tf.data.Dataset.range(plan.steps).scan(np.int64(-1), counted)
    return places.map(read, num_parallel_calls=2, deterministic=True).prefetch(AHEAD)


def py_dataset(plan: Plan) -> Any:
    """The batches of `plan` as a `keras.utils.PyDataset`."""
    import keras

    class Batches(keras.utils.PyDataset):
        # workers=1 keeps Keras' own queue out: it hands batches of the epoch before to the next one when it is reset,
        # and `fit` on JAX and PyTorch resets it after a first look at the data.
        def __init__(self) -> None:
            super().__init__(workers=1)
            self.epoch = plan.first_epoch
            self.asked = 0
            self.order: tuple[int, list[np.ndarray]] = (-1, [])
            self.ahead: dict[int, Future] = {}

        def __len__(self) -> int:
            return plan.steps

        def __getitem__(self, step: int) -> Any:
            epoch = self.epoch
            if self.order[0] != epoch:
                self.order, self.ahead = (epoch, plan.order(epoch)), {}
            for later in range(step, min(step + 1 + AHEAD, plan.steps)):
                if later not in self.ahead:
                    which = (epoch, self.order[1][later], plan.first_step + later)
                    self.ahead[later] = _threads().submit(plan.batch, *which)
            images, labels = self.ahead.pop(step).result()
            self.asked += 1
            return images if labels is None else (images, labels)

        def __iter__(self) -> Iterator[Any]:
            yield from (self[step] for step in range(plan.steps))
            self.on_epoch_end()

        def on_epoch_end(self) -> None:
            self.epoch += self.asked >= plan.steps  # Keras also calls this after a first look at the data
            self.asked = 0

    return Batches()


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Threads that prepare batches; not those that decode, for which these wait."""
    return ThreadPoolExecutor(2, thread_name_prefix="batch")
