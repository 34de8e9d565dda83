"""MLflow models that take what people have: a photo in base64, a file, a URL or pixels, and give labels.

A folder that `save_model` writes has two flavors. `mlflow.keras.load_model` gives the Keras model as it was trained;
`mlflow.pyfunc.load_model` and `mlflow models serve` give a `Classifier`. Nothing in it is pickled.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import math
import os
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit import labels
from tlkit.data import images, modalities
from tlkit.data.modalities import Requests
from tlkit.data.modalities.arrays import numbers
from tlkit.display import cut
from tlkit.errors import InvalidInput
from tlkit.evaluation import predictions

if TYPE_CHECKING:
    import keras
    import pandas as pd
    from mlflow.models import ModelSignature

BATCH = 32  # examples in memory at a time
TOP = 5
VARIABLE = "TLKIT_SERVE_PATHS"
HEAVY = 2**22  # pixels of a stranger's request from which on it waits in a line of its own
ROW = 2**15  # pixels that a row counts for at least
REQUEST = 4  # times the pixels of a photo, what a stranger's request may have
FILE_BYTES = 64 * 2**20
DOWNLOAD_SECONDS = 10.0
# What answers strangers: MLflow's scoring server, and what else serves Python over HTTP.
_SERVERS = ("mlflow.pyfunc.scoring_server.app", "uvicorn", "gunicorn", "hypercorn", "mlserver")
_NOT_HERE = f"paths and URLs are read only where the server's operator sets {VARIABLE}=true"
_SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"  # MLflow sets it


def save_model(
    path: str | Path,
    model: keras.Model,
    classes: list[str],
    *,
    kind: str,
    rate: int | None = None,
    requirements: list[str],
    example: bytes | None = None,
) -> None:
    """Write an MLflow model folder with the flavors `keras` and `python_function`.

    Args:
        path: The folder, which does not exist yet.
        model: From raw values, such as pixels from 0 to 255, to probabilities, shape (examples, classes); see also
            `multi_label`.
        classes: Names of the outputs; two for a single sigmoid unit.
        kind: Name of the modality, such as `photos`. Of nodes, `python_function` is MLflow's own, which takes tensors.
        rate: Samples in a second, of sounds.
        requirements: What pip must install to load it; given, because MLflow's own search takes 15 s.
        example: A photo, sound or .npy file that is kept as the model's input example.

    Raises:
        ValueError: there is no such modality, no network takes it, or `rate` is missing.
    """
    import mlflow.keras
    from mlflow import pyfunc
    from mlflow.models import Model

    modality = modalities.row(kind)
    if modality.input is None:
        raise ValueError(f"kind is {kind!r}, of which no network takes examples by itself")
    if modality.sampled and not rate:
        raise ValueError("rate is missing: give the samples in a second of the sounds")
    saved, folder = Model(), Path(path)
    mlflow.keras.save_model(
        model,
        str(folder),
        mlflow_model=saved,
        signature=_tensors(model),
        pip_requirements=requirements,
        metadata={"classes": classes},
    )
    labels.write(folder / "data" / "model.keras", classes)
    if modality.requests is None:
        return
    environment = saved.flavors.pop(pyfunc.FLAVOR_NAME)["env"]
    options = {"kind": kind} | ({"rate": rate} if modality.sampled else {})
    pyfunc.add_to_model(
        saved,
        loader_module="tlkit.serving",
        conda_env=environment["conda"],
        python_env=environment["virtualenv"],
        model_config={"output": "table"},
        **options,
    )
    saved.signature = signature(kind)
    if example is not None:
        _save_example(saved, folder, kind, example)
    saved.save(str(folder / "MLmodel"))


def signature(kind: str) -> ModelSignature:
    """Give the signature of a `Classifier`: one column, of any type, to label, probability and the top five.

    A bare array is the one thing that MLflow does not let through: write {"image": array}.

    `Any` is the only type with which MLflow lets base64, bytes and nested lists through alike: `string` turns lists of
    numbers into strings, and a tensor refuses arrays in the cells of a table.

    >>> signature("photos").inputs
    ['image': Any (required)]
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Object, Property, Schema

    ranked = Object([Property("label", DataType.string), Property("probability", DataType.double)])
    return ModelSignature(
        Schema([ColSpec(AnyType(), _requests(kind).column)]),
        Schema(
            [
                ColSpec(DataType.string, "label"),
                ColSpec(DataType.double, "probability"),
                ColSpec(Array(ranked), "top"),
            ]
        ),
    )


def serving_example(content: bytes, kind: str = "photos") -> dict[str, Any]:
    """Make the request that asks `mlflow models serve` about one photo or sound.

    Args:
        content: Of its file.
        kind: Name of the modality.

    >>> serving_example(b"photo")
    {'dataframe_split': {'columns': ['image'], 'data': [['cGhvdG8=']]}}
    """
    return {"dataframe_split": {"columns": [_requests(kind).column], "data": [[base64.b64encode(content).decode()]]}}


def multi_label(model: keras.Model) -> bool:
    """Whether a model gives each example several labels, or none: it ends in two sigmoid units or more.

    The model itself says so, also after it was saved by plain Keras, and no other file needs to.

    >>> import keras
    >>> layers = [keras.Input((4,)), keras.layers.Dense(3, activation="sigmoid")]
    >>> multi_label(keras.Sequential(layers))
    True
    """
    import keras

    last = model.layers[-1]
    while isinstance(last, keras.Model):
        last = last.layers[-1]
    return model.output_shape[-1] > 1 and getattr(last, "activation", None) is keras.activations.sigmoid


def ranked(probabilities: np.ndarray, classes: Sequence[str], count: int = TOP) -> list[tuple[str, float]]:
    """Give the most probable classes of one example, the most probable first.

    Shapes:
        probabilities: (classes,), or (1,) of a sigmoid unit that tells two classes apart

    Raises:
        InvalidInput: a probability is not a number.

    >>> ranked(np.array([0.25]), ["cat", "dog"])
    [('cat', 0.75), ('dog', 0.25)]
    """
    if not np.isfinite(probabilities).all():
        raise InvalidInput("the network's answer is not a number: its weights are too large or damaged, train it again")
    shares = probabilities if len(probabilities) > 1 else np.array([1 - probabilities[0], probabilities[0]])
    best = np.argsort(-shares, kind="stable")[:count]
    return [(classes[index], float(shares[index])) for index in best]


def said(
    probabilities: np.ndarray, classes: Sequence[str], several: bool = False
) -> tuple[str, float, list[tuple[str, float]]]:
    """Give the label of one example, its probability, and the most probable classes.

    Args:
        probabilities: Of the example, shape (classes,).
        classes: Their names.
        several: Whether it may have several labels, or none: `multi_label`. The label then names all whose probability
            is above 0.5, with | between them, the probability is that of exactly these, and the list has all classes.

    >>> said(np.array([0.9, 0.2, 0.5]), ["cat", "dog", "sofa"], several=True)
    ('cat', 0.36000000000000004, [('cat', 0.9), ('sofa', 0.5), ('dog', 0.2)])
    """
    if not several:
        best = ranked(probabilities, classes)
        return *best[0], best
    there = probabilities > 0.5
    share = float(predictions.of_labels(probabilities[None], there[None])[0])
    return labels.joined(there.tolist(), classes), share, ranked(probabilities, classes, len(classes))


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """What `mlflow.pyfunc.load_model` wraps: examples as people have them in, labels and probabilities out.

    Args:
        model: From raw values to probabilities.
        classes: Names of its outputs.
        kind: Name of the modality, such as `photos`.
        rate: Samples in a second, of sounds.
        output: `table`, or `label` for that column alone, which is what `mlflow.models.evaluate` wants of a classifier:
            give it, or `mlflow.pyfunc.load_model`, `model_config={"output": "label"}`.
        lock: Held while a batch is predicted, and not while it is decoded: the scoring server calls from many threads,
            and Keras builds what it predicts with on the way.
        line: Where strangers' large requests wait for each other.
        several: Whether an example may have several labels, or none; see `multi_label`.
    """

    model: keras.Model
    classes: list[str]
    kind: str
    rate: int | None = None
    output: str = "table"
    lock: Any = dataclasses.field(default_factory=threading.Lock)
    several: bool = False
    line: Line = dataclasses.field(default_factory=lambda: Line())

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame | pd.Series:
        """Classify the rows of a table.

        Args:
            model_input: A column `image`, `sound` or `array`, by modality. A cell is a file in base64 or as bytes, its
                path or URL, or an array. A server for strangers refuses paths and URLs, see `paths_allowed`.
            params: Not used.

        Returns:
            Columns `label`, `probability`, and `top`: lists of up to five {"label", "probability"}; see `said` for a
            model that gives several. Or labels alone.

        Raises:
            MlflowException: a row cannot be used, and the scoring server answers 400; or large requests wait already,
                and it answers 429.
        """
        import pandas as pd
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_EXHAUSTED

        trusted, requests = paths_allowed(), _requests(self.kind)
        rows = []
        try:
            cells, index = _cells(model_input, requests.column)
            work = 0
            if not trusted:
                cells = [_read(cell, f"row {n}", trusted) for n, cell in enumerate(cells)]
                work = self._work(cells)
            with self.line.turn(work):
                for start in range(0, len(cells), BATCH):
                    chunk = {f"row {start + n}": cell for n, cell in enumerate(cells[start : start + BATCH])}
                    values = [self._value(_read(cell, name, trusted), name) for name, cell in chunk.items()]
                    batch = _stacked(values, start).astype(np.float32)  # one type, for which one function is built
                    with self.lock:
                        probabilities = self.model.predict_on_batch(batch)
                    rows += [said(row, self.classes, self.several) for row in probabilities]
        except Busy as error:
            raise MlflowException(str(error), error_code=RESOURCE_EXHAUSTED) from error
        except InvalidInput as error:
            raise MlflowException.invalid_parameter_value(f"{error}; {_allowed(requests, trusted)}") from error
        except (RecursionError, MemoryError) as error:
            problem = "the request is nested too deeply or too large for the memory"
            raise MlflowException.invalid_parameter_value(f"{problem}; {_allowed(requests, trusted)}") from error
        table = pd.DataFrame(
            {
                "label": [label for label, _, _ in rows],
                "probability": [share for _, share, _ in rows],
                "top": [[{"label": label, "probability": share} for label, share in best] for _, _, best in rows],
            },
            index=index,
        )
        return table["label"] if self.output == "label" else table

    def _value(self, content: bytes | np.ndarray, name: str) -> np.ndarray:
        """What the network takes, from the content of a file or an array."""
        return _requests(self.kind).decode(content, self.model.input_shape[1:], self.rate, name)

    def _work(self, contents: Sequence[bytes | np.ndarray]) -> int:
        """What a stranger asks for, in pixels or other values, from headers alone."""
        shape = self.model.input_shape[1:]
        least, total = max(ROW, math.prod(length or 1 for length in shape[:-1])), 0
        most = REQUEST * images.limit()
        for n, content in enumerate(contents):
            if isinstance(content, np.ndarray):
                its = content.size // (content.shape[-1] if content.ndim > 2 else 1)
            else:
                its = _requests(self.kind).work(content, shape, f"row {n}")
            total += max(least, its)
            if n and total > most:
                rows = f"the first {n + 1:,} of {len(contents):,} rows"
                raise InvalidInput(
                    f"{rows} take as long as {total:,} pixels, more than {REQUEST} times the {most // REQUEST:,} that "
                    f"{images.VARIABLE} allows in a photo: send fewer rows at a time"
                )
        return total


class Busy(Exception):
    """Too many large requests wait."""


class Line:
    """Large requests are answered one after the other, so that they fill neither the memory nor all threads.

    There are half as many places as the scoring server has threads, which are asyncio's; the others are sent away.
    """

    def __init__(self) -> None:
        self.places = threading.BoundedSemaphore(min(32, (os.cpu_count() or 1) + 4) // 2)
        self.one = threading.Lock()

    @contextlib.contextmanager
    def turn(self, work: int) -> Iterator[None]:
        """Wait where the work is large.

        Raises:
            Busy: there is no place to wait.
        """
        if work <= HEAVY:
            yield
        elif self.places.acquire(blocking=False):
            try:
                with self.one:
                    yield
            finally:
                self.places.release()
        else:
            raise Busy("the server is busy with large requests: try again later, or send smaller photos or fewer rows")


def paths_allowed() -> bool:
    """Whether file paths and URLs are followed.

    Not where an HTTP server has been loaded: a stranger could find out which files there are, or have the server ask
    others for him. TLKIT_SERVE_PATHS=true allows them there too, and TLKIT_SERVE_PATHS=false nowhere.
    """
    chosen = os.environ.get(VARIABLE, "").lower()
    if chosen:
        return chosen in ("1", "true", "yes")
    return not (os.environ.get(_SERVING, "").lower() == "true" or any(name in sys.modules for name in _SERVERS))


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> Classifier:
    """Load a folder of `save_model`; the name is MLflow's."""
    from mlflow.models import Model

    from tlkit import layers  # noqa: F401  Keras finds our layers by their registered names
    from tlkit.backbones import modelfiles

    output = (model_config or {}).get("output", "table")
    if output not in ("table", "label"):
        raise InvalidInput(f"model_config has output {output!r}; give table or label")
    file = Path(path) / "data" / "model.keras"
    model, classes = modelfiles.load(file), labels.read(file)
    units = model.output_shape[-1]
    if classes is None or len(classes) != max(2, units):
        raise ValueError(f"{file} holds {len(classes or [])} class names for {max(2, units)} classes")
    options = Model.load(path).flavors["python_function"]
    # The first prediction builds the function for all others: here, and not while someone waits for an answer.
    with modelfiles.one_line(f"{file} cannot predict"):
        model.predict_on_batch(np.zeros((1, *(length or 1 for length in model.input_shape[1:])), np.float32))
    return Classifier(model, classes, options["kind"], options.get("rate"), output, several=multi_label(model))


def _tensors(model: keras.Model) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(tensors: list[Any], names: list[str]) -> Schema:
        shapes = [tuple(-1 if length is None else length for length in tensor.shape) for tensor in tensors]
        types = [np.dtype(tensor.dtype) for tensor in tensors]
        return Schema([TensorSpec(*spec) for spec in zip(types, shapes, names, strict=True)])

    inputs = schema(model.inputs, [tensor.name for tensor in model.inputs])
    return ModelSignature(inputs, schema(model.outputs, ["probabilities"]))


def _save_example(saved: Any, folder: Path, kind: str, example: bytes) -> None:
    import json

    split = serving_example(example, kind)["dataframe_split"]
    (folder / "input_example.json").write_text(json.dumps(split), encoding="utf-8")
    (folder / "serving_input_example.json").write_text(json.dumps({"dataframe_split": split}), encoding="utf-8")
    saved.saved_input_example_info = {
        "artifact_path": "input_example.json",
        "type": "dataframe",
        "pandas_orient": "split",
        "serving_input_path": "serving_input_example.json",
    }


def _cells(table: pd.DataFrame, column: str) -> tuple[list[Any], Any]:
    """The examples and the index of the answer."""
    if column not in table:
        raise InvalidInput(f"there is no column {column!r}, but {cut(', '.join(map(str, table.columns)))}")
    cells = list(table[column])
    if not cells:
        raise InvalidInput("the table is empty")
    if len(cells) == 1 and isinstance(cells[0], list) and cells[0] and all(isinstance(c, str) for c in cells[0]):
        return cells[0], None  # MLflow makes one row of {"image": ["…", "…"]}
    return cells, table.index


def _read(cell: Any, name: str, trusted: bool) -> bytes | np.ndarray:
    """The content of a file, or an array."""
    if cell is None or (np.isscalar(cell) and cell != cell):
        raise InvalidInput(f"{name} is null")
    if isinstance(cell, Path):
        cell = str(cell)
    if isinstance(cell, str):
        return _named(cell.strip(), name, trusted)
    if isinstance(cell, bytes | bytearray | memoryview):
        return bytes(cell)
    if isinstance(cell, list | tuple) or (hasattr(cell, "__array__") and not np.isscalar(cell)):
        return numbers(cell, name)
    raise InvalidInput(f"{name} is {cut(repr(cell))} of type {type(cell).__name__}")


def _named(text: str, name: str, trusted: bool) -> bytes:
    """The file that a string holds in base64, or tells the place of."""
    scheme = text[:8].partition(":")[0].lower()
    if scheme == "data" and ":" in text[:8]:
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise InvalidInput(f"{name} is a data URI that is not in base64")
    elif "://" in text[:32]:
        if not trusted:
            raise InvalidInput(f"{name} is a URL: {_NOT_HERE}")
        return _download(text, name)
    elif trusted and _is_file(text):
        try:
            return Path(text).read_bytes()
        except OSError as error:
            raise InvalidInput(f"{name}, {cut(repr(text))}: {error.strerror}") from error
    if not trusted and len(text) > FILE_BYTES * 4 // 3 + 2**20:  # which may hold line breaks
        raise InvalidInput(f"{name} is larger than {FILE_BYTES // 2**20} MiB")
    try:
        return base64.b64decode(text.encode("ascii").translate(None, b" \t\n\r\x0b\x0c"), validate=True)
    except (binascii.Error, ValueError) as error:
        problem = "is no file and not base64" if trusted else f"is not base64: {_NOT_HERE}"
        raise InvalidInput(f"{name}, {cut(repr(text[:100]))}, {problem}") from error


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # longer than a path may be, or with a null character
        return False


def _download(url: str, name: str) -> bytes:
    """Get what lies at an http or https address, and follow it to no other scheme."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    end, parts, size = time.monotonic() + DOWNLOAD_SECONDS, [], 0
    try:
        where = f"what {urllib.parse.urlsplit(url).hostname} has"  # no more of it: a password or a key may follow
        request = urllib.request.Request(url, headers={"User-Agent": "tlkit"})  # noqa: S310 (see the handlers)
        with opener.open(request, timeout=DOWNLOAD_SECONDS) as answer:
            while part := answer.read1(2**16):
                parts.append(part)
                size += len(part)
                if size > FILE_BYTES:
                    raise InvalidInput(f"{name}: {where} is larger than {FILE_BYTES // 2**20} MiB")
                if time.monotonic() > end:
                    raise InvalidInput(f"{name}: {where} does not come within {DOWNLOAD_SECONDS:g} s")
    except InvalidInput:
        raise
    except Exception as error:  # of urllib, http.client, ssl and of names that cannot be encoded
        reason = getattr(error, "reason", error)
        raise InvalidInput(f"{name}: cannot download it: {cut(str(reason))}") from error
    return b"".join(parts)


def _stacked(values: Sequence[np.ndarray], first: int) -> np.ndarray:
    for n, value in enumerate(values):
        if value.shape != values[0].shape:
            shapes = f"row {first + n} is of shape {value.shape}, and row {first} of {values[0].shape}"
            raise InvalidInput(f"{shapes}: send one shape at a time")
    return np.stack(values)


def _allowed(requests: Requests, trusted: bool) -> str:
    ways = "by its path or URL, as bytes or in base64" if trusted else "in base64"
    return f"column {requests.column!r} takes {requests.file} {ways}, or {requests.array}"


def _requests(kind: str) -> Requests:
    requests = modalities.row(kind).requests
    if requests is None:
        raise InvalidInput(f"kind is {kind!r}, of which a model cannot be asked one by one")
    return requests
