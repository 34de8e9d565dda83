"""Photos of many requests, decoded in threads and computed together by one."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tlkit import explanation
from tlkit.cores import cores
from tlkit.data import modalities
from tlkit.data.modalities import Reading
from tlkit.errors import InvalidInput, first_line
from tlkit.evaluation.abstention import Abstention
from tlkit.serving import many
from tlkit.serving.answers import Answer, answer, multi_label
from tlkit.serving.classifier import requests_of
from tlkit.serving.novelty import with_novelty
from tlkit.serving.waiting import HEAVY, Busy
from tlkit.serving.web.counters import Counters

if TYPE_CHECKING:
    import keras

    from tlkit.explanation import Explainer
    from tlkit.inference import Engine

BATCH = 32  # photos that are computed at a time
GATHER = 0.005  # seconds that a photo waits for others which are being decoded


class Served(NamedTuple):
    """A model that is ready to answer.

    Args:
        name: As the user gave it.
        version: In the registry; empty for a file.
        classes: Names of its outputs.
        several: Whether a photo may have several labels, or none.
        shape: Of a photo, (height, width, channels).
        reading: How files become photos.
        engine: Computes probabilities; with `abstention.novelty`, also the distance from the nearest known photo.
        abstention: When it says no single class.
        explainer: Draws heatmaps; None where the model has no class activation.
    """

    name: str
    version: str
    classes: list[str]
    several: bool
    shape: tuple[int, ...]
    reading: Reading
    engine: Engine
    abstention: Abstention = Abstention()
    explainer: Explainer | None = None


class CannotPredict(Exception):
    """The model fails on photos that were read."""


def prepare(
    model: keras.Model,
    classes: list[str],
    reading: Reading,
    name: str,
    version: str = "",
    abstention: Abstention = Abstention(),  # noqa: B008
    references: np.ndarray | None = None,
) -> Served:
    """Make a model ready, and have it predict once, so that the first request does not wait.

    Args:
        model: From pixels to probabilities.
        classes: Names of its outputs.
        reading: How files become photos.
        name: As the user gave it.
        version: In the registry; empty for a file.
        abstention: When it says no single class.
        references: Features of known photos, which go with `abstention.novelty`.

    Raises:
        InvalidInput: it cannot predict.
    """
    shape, several = model.input_shape[1:], multi_label(model)
    explainer = None
    with contextlib.suppress(InvalidInput):
        explainer = explanation.explainer(model, "activation")
    if references is None:
        abstention = abstention._replace(novelty=None)
    else:
        model = with_novelty(model, references)
    sample = np.random.default_rng(0).integers(0, 256, (many.SAMPLE, *shape), np.uint8)
    engine, _ = many.engine(model, name, True, sample)
    for count in range(1, engine.batch_size + 1 if engine.batch_size <= many.SAMPLE else 2):
        list(engine.run([sample[:count]]))  # each number of photos is a shape of its own
    return Served(name, version, classes, several, shape, reading, engine, abstention, explainer)


@dataclasses.dataclass(eq=False)
class _Photo:
    """A photo on its way. Its content goes when it is answered or given up, whoever still has it in a queue."""

    content: bytes
    served: Served
    explain: bool = False
    answer: Future[Answer] = dataclasses.field(default_factory=Future)
    pixels: np.ndarray | None = None

    def give_up(self, *_: object) -> None:
        self.content, self.pixels = b"", None

    def end(self, result: Answer | Exception) -> None:
        if self.answer.set_running_or_notify_cancel():
            if isinstance(result, Exception):
                self.answer.set_exception(result)
            else:
                self.answer.set_result(result)


class Batcher:
    """Answers photos: a bounded number at a time, those of several requests in one batch.

    Args:
        served: The model; another may take its place at any time. Photos are answered by the model that was there when
            they came.
        most: Maximum number of photos that wait for their answers.
        counters: Which count batches.
    """

    def __init__(self, served: Served, most: int, counters: Counters) -> None:
        self.served, self.most, self.counters, self.waiting = served, most, counters, 0
        self._lock = threading.Lock()
        self._decoded: queue.SimpleQueue[_Photo | None] = queue.SimpleQueue()
        self._small, self._large = ThreadPoolExecutor(cores(), "decode"), ThreadPoolExecutor(1, "decode-large")
        self._explaining = ThreadPoolExecutor(1, "explain")
        self._thread = threading.Thread(target=self._compute, name="compute", daemon=True)
        self._thread.start()

    def submit(self, contents: Sequence[bytes], explain: bool = False) -> list[Future[Answer]]:
        """Begin to answer photos.

        Args:
            contents: Of their files.
            explain: Whether each answer gets a heatmap, if the model has them.

        Returns:
            A future for each, with its answer; or with InvalidInput where it cannot be read, or `CannotPredict`. A
            future that is cancelled costs nothing more.

        Raises:
            Busy: more than `most` photos would be waiting.
        """
        with self._lock:
            if self.waiting + len(contents) > self.most:
                raise Busy(f"{self.waiting:,} photos are waiting for their answers: try again later")
            self.waiting += len(contents)
        photos = [_Photo(content, self.served, explain) for content in contents]
        for photo in photos:
            photo.answer.add_done_callback(self._leave)
            photo.answer.add_done_callback(photo.give_up)
            self._small.submit(self._begin, photo)
        return [photo.answer for photo in photos]

    def close(self) -> None:
        """End the threads; photos that wait are not answered."""
        self._small.shutdown(cancel_futures=True)
        self._large.shutdown(cancel_futures=True)
        self._explaining.shutdown(cancel_futures=True)
        self._decoded.put(None)
        self._thread.join()

    def _leave(self, _: object) -> None:
        with self._lock:
            self.waiting -= 1

    def _begin(self, photo: _Photo) -> None:
        """Decode a photo, or leave it to the one thread for large photos, so that they do not take all threads."""
        content, served = photo.content, photo.served
        with _errors_to(photo):
            if photo.answer.cancelled():
                return
            work = requests_of(modalities.PHOTOS.name).work(content, served.shape, "photo", served.reading)
            if work > HEAVY:
                self._large.submit(self._decode, photo)
            else:
                self._decode(photo)

    def _decode(self, photo: _Photo) -> None:
        content, served = photo.content, photo.served
        with _errors_to(photo):
            if photo.answer.cancelled():
                return
            decode = requests_of(modalities.PHOTOS.name).decode
            photo.pixels = decode(content, served.shape, None, "photo", served.reading)
            self._decoded.put(photo)

    def _compute(self) -> None:
        """Answer what is decoded, until the server ends."""
        while photo := self._decoded.get():
            batch, until = [photo], time.monotonic() + GATHER
            while len(batch) < min(BATCH, self.waiting):
                try:
                    photo = self._decoded.get(timeout=max(0.0, until - time.monotonic()))
                except queue.Empty:
                    break
                if photo is None:
                    return
                batch.append(photo)
            for _, photos in itertools.groupby(batch, lambda photo: id(photo.served)):  # two while one replaces another
                self._answer(list(photos))

    def _answer(self, photos: list[_Photo]) -> None:
        read = [(photo, photo.pixels) for photo in photos]  # once: it goes when the client does
        pixels = [array for _, array in read if array is not None]
        together = [photo for photo, array in read if array is not None]
        if not together:
            return
        served, size = photos[0].served, photos[0].served.engine.batch_size
        self.counters.add_batch(len(pixels))
        try:
            batches = [np.stack(pixels[start : start + size]) for start in range(0, len(pixels), size)]
            rows = np.concatenate(list(served.engine.run(batches)))
        except Exception as error:  # of any engine; the server goes on
            problem = CannotPredict(first_line(error))
            for photo in together:
                photo.end(problem)
            return
        for photo, row, array in zip(together, rows, pixels, strict=True):
            try:
                answered = answer(row, served.classes, served.several, served.abstention)
            except InvalidInput as error:  # not a number
                photo.end(CannotPredict(str(error)))
                continue
            if photo.explain and served.explainer is not None:
                self._explaining.submit(_explain, photo, array, answered)
            else:
                photo.end(answered)


def _explain(photo: _Photo, pixels: np.ndarray, answered: Answer) -> None:
    """Add the heatmap of the decision to an answer; a thread of its own does it, so that other photos do not wait."""
    with _errors_to(photo):
        if photo.answer.cancelled() or photo.served.explainer is None:
            return
        heat, _ = photo.served.explainer.heatmaps(pixels[None], np.array([-1]))
        photo.end(answered._replace(heatmap=explanation.uri(explanation.overlay(pixels, heat[0]))))


@contextlib.contextmanager
def _errors_to(photo: _Photo) -> Iterator[None]:
    try:
        yield
    except InvalidInput as error:
        photo.end(error)
    except Exception as error:  # a bug, or no memory: this photo's alone
        photo.end(CannotPredict(first_line(error)))
