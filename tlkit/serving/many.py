"""Answer many photos: decoded in threads while the network computes, a few batches in memory at a time."""

from __future__ import annotations

import itertools
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tlkit.cores import cores
from tlkit.data import modalities
from tlkit.data.bits import BY_SETTING
from tlkit.data.modalities import Reading
from tlkit.data.photos import file_format
from tlkit.errors import InvalidInput
from tlkit.inference import Engine, in_order
from tlkit.serving.answers import NOT_FINITE

if TYPE_CHECKING:
    import keras

BATCH = 32  # photos that Keras' own `predict` gets at a time
TOGETHER = 8  # photos that a thread decodes at a time
SAMPLE = 4  # photos on which OpenVINO must agree with Keras
AGREE = 1e-5  # maximum distance of the two, relative to the norm of the probabilities


class Prediction(NamedTuple):
    """What a network says about a photo.

    Args:
        path: Of the photo.
        probabilities: Shape (classes,); None where the photo cannot be read.
        error: Why it cannot be.
    """

    path: str
    probabilities: np.ndarray | None
    error: str = ""


def engine(model: keras.Model, name: str, many: bool, sample: np.ndarray) -> tuple[Engine, str]:
    """Make what computes the probabilities of batches of pixels: Keras itself for a few photos, OpenVINO for many.

    Args:
        model: From pixels to probabilities.
        name: The user's name for it, for errors.
        many: Whether a faster engine is worth the seconds that it takes to prepare.
        sample: A few photos, (k, height, width, channels), on which it must agree with Keras.

    Returns:
        The engine; and, where Keras computes many, the reason, for the user.

    Raises:
        InvalidInput: the model cannot predict.
    """
    from tlkit.backbones import modelfiles
    from tlkit.features import engines

    def keras_predicts(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for batch in batches:
            yield model.predict(batch, verbose=0)

    problem = f"{name!r} cannot predict"
    with modelfiles.one_line(problem):
        fast, reason = engines.choose(model, "float32", sample, AGREE) if many else (None, "")
    run = fast.run if fast else keras_predicts

    def run_in_one_line(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        with modelfiles.one_line(problem):
            yield from run(batches)

    size = modelfiles.batch_size(model, fast.batch_size if fast else BATCH)
    return Engine(fast.name if fast else "keras", size, run_in_one_line), reason


def predictions(
    photos: Mapping[str, str],
    read: Callable[[str], np.ndarray],
    prepare: Callable[[np.ndarray], Engine],
    together: int = TOGETHER,
) -> Iterator[Prediction]:
    """Give the probabilities of all classes for each photo, in order.

    Args:
        photos: Path of each, and why it cannot be read, or "".
        read: Decodes a photo; called in several threads.
        prepare: Makes the engine when the first photos are decoded, which it gets.
        together: Photos that a thread decodes at a time.

    Raises:
        InvalidInput: the engine cannot be made, or cannot compute.
    """
    stream = _decoded(photos, read, together)
    first: list[tuple[str, np.ndarray | str]] = []
    sample: list[np.ndarray] = []
    for item in stream:
        first.append(item)
        if not isinstance(item[1], str):
            sample.append(item[1])
        if len(sample) == SAMPLE:
            break
    if not sample:
        yield from (Prediction(path, None, str(error)) for path, error in first)
        return
    computing = prepare(np.stack(sample))
    waiting: deque[tuple[str, str]] = deque()  # the path of each, and why it cannot be read

    def batches() -> Iterator[np.ndarray]:
        batch: list[np.ndarray] = []
        for path, pixels in itertools.chain(first, stream):
            if isinstance(pixels, str):
                waiting.append((path, pixels))
                continue
            waiting.append((path, ""))
            batch.append(pixels)
            if len(batch) == computing.batch_size:
                yield np.stack(batch)
                batch = []
        if batch:
            yield np.stack(batch)

    for rows in computing.run(batches()):
        for probabilities in rows:
            while waiting[0][1]:
                path, error = waiting.popleft()
                yield Prediction(path, None, error)
            path, _ = waiting.popleft()
            finite = np.isfinite(probabilities).all()
            yield Prediction(path, probabilities) if finite else Prediction(path, None, NOT_FINITE)
    yield from (Prediction(path, None, error) for path, error in waiting)


def reader(shape: tuple[int, ...], reading: Reading) -> Callable[[str], np.ndarray]:
    """Give the function that decodes a photo for a model that takes this shape, as when it was trained.

    It raises InvalidInput or OSError where the photo cannot be read.
    """
    decode = file_format(modalities.PHOTOS).decode

    def read(path: str) -> np.ndarray:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise InvalidInput("not a file")
        return decode(Path(path), shape, path, reading)

    return read


def _decoded(
    photos: Mapping[str, str], read: Callable[[str], np.ndarray], together: int
) -> Iterator[tuple[str, np.ndarray | str]]:
    """Give the path of each photo with its pixels, or with why it cannot be read; threads are some photos ahead."""

    def result(path: str, problem: str) -> np.ndarray | str:
        try:
            return problem or read(path)
        except OSError as error:
            return error.strerror or type(error).__name__
        except InvalidInput as error:
            return str(error).removeprefix(f"{path}: ").replace(BY_SETTING, "")

    def results(items: list[tuple[str, str]]) -> list[tuple[str, np.ndarray | str]]:
        return [(path, result(path, problem)) for path, problem in items]

    rest = iter(photos.items())
    parts = iter(lambda: list(itertools.islice(rest, together)), [])
    threads = cores()
    for part in in_order(results, parts, threads=threads, ahead=4 * threads):
        yield from part
