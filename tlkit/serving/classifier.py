"""The model that MLflow serves: it takes examples as people have them and returns labels and probabilities."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit.data import images, modalities
from tlkit.data.modalities import Modality, Reading, Requests
from tlkit.errors import InvalidInput
from tlkit.evaluation.abstention import Abstention
from tlkit.serving.answers import Answer, answer
from tlkit.serving.cells import Content, cells_of, paths_allowed, read_cell
from tlkit.serving.waiting import Busy, Queue

if TYPE_CHECKING:
    import keras
    import pandas as pd

BATCH = 32  # examples in memory at a time
ROW = 2**15  # pixels that a row counts at least
REQUEST = 4  # maximum work of a stranger's request, relative to the maximum pixels of a photo


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """The model that `mlflow.pyfunc.load_model` wraps.

    Args:
        model: From raw values to probabilities.
        classes: Names of its outputs.
        kind: Name of the modality, such as `photos`.
        rate: For sounds: samples per second.
        output: `table`, or `label` for that column only, as `mlflow.models.evaluate` needs it: pass
            `model_config={"output": "label"}` to it or to `mlflow.pyfunc.load_model`.
        lock: Held while a batch is predicted but not while it is decoded: the scoring server calls from many threads,
            and Keras builds its predict function on the way.
        several: Whether an example may have several labels, or none; see `multi_label`.
        queue: In which large requests of strangers wait.
        reading: How files become examples, as when the model was trained.
        abstention: When its label is `UNSURE`.
    """

    model: keras.Model
    classes: list[str]
    kind: str
    rate: int | None = None
    output: str = "table"
    lock: AbstractContextManager[Any] = dataclasses.field(default_factory=threading.Lock)
    several: bool = False
    queue: Queue = dataclasses.field(default_factory=Queue)
    reading: Reading = dataclasses.field(default_factory=Reading)
    abstention: Abstention = dataclasses.field(default_factory=Abstention)

    @property
    def modality(self) -> Modality:
        """The row of the modality."""
        return modalities.row(self.kind)

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame | pd.Series:
        """Classify the rows of a table.

        Args:
            model_input: Has a column `image`, `sound` or `array`, depending on the modality. A cell is a file in base64
                or as bytes, its path or URL, or an array. Paths and URLs are refused on a server; see `paths_allowed`.
            params: Not used.

        Returns:
            A table with the columns `label`, `probability` and `top`, lists of up to five {"label", "probability"}; or
            the column `label`. Of a model that gives several labels, `label` names all above 0.5, `probability` is the
            product of the probabilities that exactly these are there, and `top` has that of each class; see `answer`.

        Raises:
            MlflowException: a row cannot be used, and the scoring server answers 400; or the server is busy with large
                requests, and answers 429.
        """
        import pandas as pd
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_EXHAUSTED

        trusted, requests = paths_allowed(), requests_of(self.kind)
        try:
            cells, index = cells_of(model_input, requests.column)
            answers = self._answers(cells, trusted)
        except Busy as error:
            raise MlflowException(str(error), error_code=RESOURCE_EXHAUSTED) from error
        except InvalidInput as error:
            raise MlflowException.invalid_parameter_value(f"{error}; {_allowed(requests, trusted)}") from error
        except (RecursionError, MemoryError) as error:
            problem = "the request is nested too deeply or too large for the memory"
            raise MlflowException.invalid_parameter_value(f"{problem}; {_allowed(requests, trusted)}") from error
        table = pd.DataFrame(
            {
                "label": [row.label for row in answers],
                "probability": [row.probability for row in answers],
                "top": [[{"label": label, "probability": share} for label, share in row.top] for row in answers],
            },
            index=index,
        )
        return table["label"] if self.output == "label" else table

    def _answers(self, cells: Sequence[Any], trusted: bool) -> list[Answer]:
        """Answer each cell; those of strangers are all read first, so that the work is known."""
        answers, work = [], 0
        if not trusted:
            cells = [read_cell(cell, f"row {n}", trusted) for n, cell in enumerate(cells)]
            work = self._work(cells)
        requests, shape = requests_of(self.kind), self.model.input_shape[1:]
        with self.queue.turn(work):
            for start in range(0, len(cells), BATCH):
                chunk = {f"row {start + n}": cell for n, cell in enumerate(cells[start : start + BATCH])}
                values = [
                    requests.decode(read_cell(cell, name, trusted), shape, self.rate, name, self.reading)
                    for name, cell in chunk.items()
                ]
                batch = _stacked(values, start).astype(np.float32)  # one type, for which one function is built
                with self.lock:
                    probabilities = self.model.predict_on_batch(batch)
                answers += [answer(row, self.classes, self.several, self.abstention) for row in probabilities]
        return answers

    def _work(self, contents: Sequence[Content]) -> int:
        """The pixels or other values that a stranger's request decodes, from headers alone."""
        shape, requests = self.model.input_shape[1:], requests_of(self.kind)
        least, total = max(ROW, math.prod(length or 1 for length in shape[:-1])), 0
        most = REQUEST * images.limit()
        for n, content in enumerate(contents):
            if isinstance(content, np.ndarray):
                size = content.size // (content.shape[-1] if content.ndim > 2 else 1)
            else:
                size = requests.work(content, shape, f"row {n}", self.reading)
            total += max(least, size)
            if n and total > most:
                rows = f"the first {n + 1:,} of {len(contents):,} rows"
                raise InvalidInput(
                    f"{rows} take as long as {total:,} pixels, more than {REQUEST} times the {most // REQUEST:,} that "
                    f"{images.VARIABLE} allows in a photo: send fewer rows at a time"
                )
        return total


def requests_of(kind: str) -> Requests:
    """Return how a served model is asked about examples of a modality.

    Raises:
        InvalidInput: there is no such modality, or its examples cannot be sent one by one.

    >>> requests_of("photos").column
    'image'
    """
    requests = modalities.row(kind).requests
    if requests is None:
        raise InvalidInput(f"kind is {kind!r}, whose examples cannot be sent to a model one by one")
    return requests


def _stacked(values: Sequence[np.ndarray], first: int) -> np.ndarray:
    for n, value in enumerate(values):
        if value.shape != values[0].shape:
            shapes = f"row {first + n} is of shape {value.shape}, and row {first} of {values[0].shape}"
            raise InvalidInput(f"{shapes}: send one shape at a time")
    return np.stack(values)


def _allowed(requests: Requests, trusted: bool) -> str:
    ways = "by its path or URL, as bytes or in base64" if trusted else "in base64"
    return f"column {requests.column!r} takes {requests.file} {ways}, or {requests.array}"
