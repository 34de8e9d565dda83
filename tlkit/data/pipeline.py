"""Batches of examples for Keras: shuffled, augmented, prepared ahead, and the same in every run with the same seed.

In this module, photos are examples of any modality.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from tlkit.data.example_set import ExampleSet
from tlkit.data.plan import Plan, check_mixing, unreadable
from tlkit.data.views import Views
from tlkit.errors import InvalidInput

AHEAD = 3  # batches prepared while the network computes


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
    rows: Callable[[int], np.ndarray] | None = None,
) -> Any:
    """Make batches for `fit`, `evaluate` and `predict`: a `tf.data.Dataset` on TensorFlow, else a Keras `PyDataset`.

    Both hold the same batches, bit for bit. Photos are raw pixels from 0 to 255 and stay uint8, which is a quarter of
    the transfer; a Keras model converts them to float32 at its input. The last batch may be smaller. Call `fit` with
    `shuffle=False`: by default Keras shuffles the batches of a PyDataset by Python's `random`, and warns about a
    tf.data.Dataset. Each iteration over the batches is an epoch. Iterate them in `readable_errors`.

    Args:
        photos: `Photos`, features of them, or any other `ExampleSet`; or `Views` of them.
        batch_size: Number of photos per batch.
        shuffle: Draw a new order for every epoch.
        seed: 0 or more. Order and augmentation depend only on it, the epoch and the photo's position.
        augment: Arguments of `tlkit.data.augment`, such as `{"flip": True, "rotation": 10}`, or of `augment_sound` or
            `augment_array` for these; and `mixup` and `cutmix`, see `tlkit.data.mix`. `Views` are changed already and
            take only the latter two.
        labels: Yield (images, labels); if False, images only.
        first_epoch: Number of the first epoch; above 0 to continue training that started with other batches.
        first_step: Number of batches to skip at the beginning of every epoch, to resume within one.
        classes: Number of classes; required to mix integer labels.
        balanced: Sample all classes equally often. An epoch has as many photos as before: some of a large class are
            left out, and those of a small class repeat, augmented differently each time.
        endless: Let all epochs follow each other in one iteration of a `tf.data.Dataset`, so that the next epoch is
            prepared during validation; then give `fit` `steps_per_epoch`. A PyDataset ignores it.
        rows: From the number of photos in a batch to the positions of those to yield, some perhaps more than once, for
            training on several devices: the order, augmentation and mixing are those of the whole batch. With labels,
            weights of shape (batch,) follow, which sum up to the number of photos in the whole batch if all positions
            are yielded equally often.

    Shapes:
        images: (batch, *space, channels), uint8 or float32
        labels: (batch,), int32, or (batch, classes), float32, as those of the photos; mixed labels are the latter

    Raises:
        InvalidInput: there are no photos, or a setting does not fit them.
    """
    if not len(photos):
        raise InvalidInput("there are no photos to make batches of")
    if batch_size < 1:
        raise InvalidInput(f"batch_size is {batch_size!r}: 1 or more")
    if balanced and photos.labels.ndim > 1:
        raise InvalidInput("balanced is true, but photos with several labels have no single class: leave it out")
    targets = photos.labels if labels else None
    plan = Plan(photos, batch_size, shuffle, seed, augment, targets, first_epoch, first_step, classes, balanced, rows)
    if plan.mixing:
        check_mixing(plan)
    import keras

    return _tf_data(plan, endless) if keras.backend.backend() == "tensorflow" else py_dataset(plan)


@contextmanager
def readable_errors() -> Iterator[None]:
    """Raise the InvalidInput of a photo that disappeared during training, instead of TensorFlow's long error about it.

    Raises:
        InvalidInput: a photo could not be read; the message names it.

    >>> from tlkit.data import Photos
    >>> with readable_errors():
    ...     images, labels = next(iter(batches(Photos.of(np.zeros((2, 8, 8, 1), np.uint8), [0, 1]), 2)))
    """
    unreadable.clear()
    try:
        yield
    except InvalidInput:
        raise
    except Exception:
        if unreadable:
            raise unreadable[0] from None
        raise
    finally:
        unreadable.clear()


def _tf_data(plan: Plan, endless: bool) -> Any:
    # Not by `from_generator`: each of its elements costs as much Python time as reading it, and each iterator 10 ms.
    import tensorflow as tf

    epochs = itertools.count(plan.first_epoch)
    order = functools.lru_cache(2)(plan.order)
    dtypes, shapes = [plan.photos.dtype], [plan.photos.shape]
    if plan.labels is not None:
        mixed = plan.mixing and plan.labels.ndim == 1
        dtypes.append(np.dtype(np.float32) if plan.mixing else plan.labels.dtype)
        shapes.append((plan.classes,) if mixed else plan.labels.shape[1:])
        if plan.rows:
            dtypes.append(np.dtype(np.float32))
            shapes.append(())

    def batch(epoch: Any, step: Any) -> list[np.ndarray]:
        indices = order(int(epoch))[int(step)]
        return plan.parts(epoch, indices, plan.first_step + step)

    def next_epoch(step: Any) -> np.int64:
        return np.int64(next(epochs))

    def count(epoch: Any, step: Any) -> Any:
        # The epoch is counted in its first step and not when an iterator is made: Keras may make two per epoch and use
        # one. It is declared stateless, which it is not, and therefore needs an argument: with deterministic
        # operations, TensorFlow does not prefetch or parallelize a pipeline that contains a stateful one.
        begin = lambda: tf.ensure_shape(tf.numpy_function(next_epoch, [step], tf.int64, stateful=False), ())  # noqa: E731
        epoch = tf.cond(step == 0, begin, lambda: epoch)
        return epoch, (epoch, step)

    def read(epoch: Any, step: Any) -> Any:
        parts = tf.numpy_function(batch, [epoch, step], dtypes, stateful=False)
        for part, shape in zip(parts, shapes, strict=True):
            part.set_shape((None, *shape))
        return tuple(parts) if len(parts) > 1 else parts[0]

    if endless:
        numbers = tf.data.Dataset.counter()
        places = numbers.map(lambda number: (plan.first_epoch + number // plan.steps, number % plan.steps))
    else:
        places = tf.data.Dataset.range(plan.steps).scan(np.int64(-1), count)
    return places.map(read, num_parallel_calls=2, deterministic=True).prefetch(AHEAD)


def py_dataset(plan: Plan) -> Any:
    """Return the batches of a plan as a `keras.utils.PyDataset`."""
    import keras

    class Batches(keras.utils.PyDataset):
        # workers=1 avoids Keras' queue: when it is reset, it passes batches of one epoch on to the next, and `fit` on
        # JAX and PyTorch resets it after a first look at the data.
        def __init__(self) -> None:
            super().__init__(workers=1)
            self.epoch = plan.first_epoch
            self.requested = 0
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
                    indices = self.order[1][later]
                    self.ahead[later] = _threads().submit(plan.parts, epoch, indices, plan.first_step + later)
            parts = self.ahead.pop(step).result()
            self.requested += 1
            return tuple(parts) if len(parts) > 1 else parts[0]

        def __iter__(self) -> Iterator[Any]:
            yield from (self[step] for step in range(plan.steps))
            self.on_epoch_end()

        def on_epoch_end(self) -> None:
            self.epoch += self.requested >= plan.steps  # Keras also calls this after a first look at the data
            self.requested = 0

    return Batches()


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Threads that prepare batches; they wait for those that decode, so they must be others."""
    return ThreadPoolExecutor(2, thread_name_prefix="batch")
