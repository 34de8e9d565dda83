"""Answers of many photos by the workers of a cluster."""

from __future__ import annotations

import errno
import itertools
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tlkit import cluster
from tlkit.data.modalities import Reading
from tlkit.errors import Unavailable
from tlkit.probes import novelty
from tlkit.serving import many
from tlkit.serving.many import Prediction
from tlkit.serving.novelty import with_novelty

if TYPE_CHECKING:
    import keras

    from tlkit.inference import Engine

CHUNK = 128  # photos that a worker is given at a time
BUFFERED = 256  # chunks that may be answered before an earlier one is


class Job(NamedTuple):
    """What all chunks have in common.

    Args:
        model: The model's file.
        backend: Keras' backend.
        engine: The engine's name.
        reading: How photos are read.
        novelty: Whether answers have a last column, the distance from known photos; see `serving.with_novelty`.
    """

    model: bytes
    backend: str
    engine: str
    reading: Reading
    novelty: bool


def predictions(workers: cluster.Cluster, photos: Mapping[str, str], job: Job) -> Iterator[Prediction]:
    """Give the probabilities of all classes for each photo, in order.

    Args:
        workers: Of the cluster.
        photos: Path of each, and why it cannot be read, or "".
        job: What the workers do.

    Raises:
        Unavailable: a worker does not see a photo, or cannot do the job.
    """
    answered: dict[int, list[Prediction]] = {}
    first = 0  # the chunk whose answers come next

    def chunks() -> Iterator[tuple[int, list[tuple[str, str]]] | None]:
        rest = iter(photos.items())
        for number in itertools.count():
            while number - first > BUFFERED:
                yield None
            if not (part := list(itertools.islice(rest, CHUNK))):
                return
            yield number, [(os.path.abspath(path), problem) for path, problem in part]

    names = iter(photos)
    for (number, _), found in cluster.map_unordered(workers, predict, job, chunks()):
        answered[number] = found
        while first in answered:
            for prediction, path in zip(answered.pop(first), names, strict=False):  # as many names as there are answers
                if prediction.error == os.strerror(errno.ENOENT) and os.path.exists(path):
                    raise Unavailable(f"a worker of the cluster does not see {path}: it must see the same files")
                yield prediction._replace(path=path)
            first += 1


# What follows runs on workers.

_loading = threading.Lock()
_loaded: list[tuple[Job, keras.Model, Engine]] = []  # one at most


def predict(job: Job, chunk: tuple[int, list[tuple[str, str]]]) -> list[Prediction]:
    """Answer the photos of a chunk."""
    with _loading:
        if not _loaded or _loaded[0][0] is not job:
            _loaded.clear()
            _loaded.append((job, *_load(job)))
        _, model, engine = _loaded[0]
    photos = chunk[1]
    read = many.reader(model.input_shape[1:], job.reading)
    answers = {each.path: each for each in many.predictions(dict(photos), read, lambda _: engine)}
    return [answers[path] for path, _ in photos]  # two names may be of one file


def _load(job: Job) -> tuple[keras.Model, Engine]:
    from tlkit.features import worker

    worker.begin(job.backend)
    from tlkit import layers  # noqa: F401  its layers are known to Keras then
    from tlkit.backbones import modelfiles
    from tlkit.features import engines

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(job.model)
        model = modelfiles.load(path, "the model")
        if job.novelty and (references := novelty.read(path)) is not None:
            model = with_novelty(model, references)
    engine = engines.make(job.engine, model, "float32", np.dtype(np.uint8))
    return model, engine._replace(batch_size=modelfiles.batch_size(model, engine.batch_size))
