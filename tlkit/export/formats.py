"""The formats of an export: a row for each, with what writes it and what runs it."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tlkit import startup
from tlkit.display import shown
from tlkit.errors import InvalidInput, first_line
from tlkit.export import converters, runtimes

if TYPE_CHECKING:
    import keras


class Format(NamedTuple):
    """A row of `FORMATS`.

    Args:
        keras: Its name in `keras.Model.export`; "" where something else writes it.
        file: Name of the model in the folder: a file, or a folder.
        load: Makes a function from the path and the number of threads, 0 for all; it maps a batch, float32, to
            probabilities.
        needs: Modules that write and run it.
        extra: The extra of tlkit that installs them; "" where they always are installed.
        packages: What `predict.py` needs beside NumPy and Pillow.
        int8: Modules that quantize it; none where it cannot be.
        batch: How many examples the model takes at a time: any where it is None.
        without: Keras' layers that it cannot hold, or that its runtime cannot run.
    """

    keras: str
    file: str
    load: Callable[[str, int], Any]
    needs: tuple[str, ...]
    extra: str
    packages: tuple[str, ...]
    int8: tuple[str, ...] = ()
    batch: int | None = None
    without: tuple[str, ...] = ()


FORMATS = {
    "saved_model": Format(
        "tf_saved_model", "saved_model", runtimes.load_saved_model, ("tensorflow",), "", ("tensorflow",)
    ),
    "onnx": Format(
        "",
        "model.onnx",
        runtimes.load_onnx,
        ("onnx", "tf2onnx", "onnxruntime"),
        "onnx",
        ("onnxruntime",),
        ("onnx", "onnxruntime"),
        without=("MelSpectrogram",),
    ),
    "openvino": Format(
        "",
        "model.xml",
        runtimes.load_openvino,
        ("openvino",),
        "",
        ("openvino",),
        ("openvino", "nncf"),
        without=("LSTM", "GRU"),
    ),
    "litert": Format(
        "litert",
        "model.tflite",
        runtimes.load_litert,
        ("ai_edge_litert",),
        "litert",
        ("ai-edge-litert",),
        ("ai_edge_litert",),
        1,
        ("MaxPooling3D", "AveragePooling3D", "LSTM", "GRU", "SwinTransformerBlock"),
    ),
    "keras_hub": Format("", "preset", runtimes.load_keras_hub, ("keras_hub",), "hub", ("keras-hub",)),
}
"""The formats by the names that users give them."""


def check(name: str, int8: bool = False) -> None:
    """Refuse a format that cannot be written here, before any work; Keras is not loaded.

    Raises:
        InvalidInput: what it needs is not installed, or it cannot hold 8-bit numbers.
    """
    row = FORMATS[name]
    if int8 and not row.int8:
        others = ", ".join(other for other, each in FORMATS.items() if each.int8)
        raise InvalidInput(f"format is {name!r}, which has no int8 here: give {others}, or leave --int8 out")
    for modules, extra in ((row.needs, row.extra), (row.int8 if int8 else (), "int8")):
        if missing := [module for module in modules if importlib.util.find_spec(module) is None]:
            package = f"tlkit[{extra}]" if extra else missing[0]
            raise InvalidInput(
                f"format is {name!r}{' with int8' * int8}, which needs {', '.join(missing)}: pip install '{package}'"
            )


def check_network(name: str, model: keras.Model) -> None:
    """Refuse a network with a layer that a format is known not to hold, before any work.

    Raises:
        InvalidInput: the message names the layer.

    >>> import keras
    >>> check_network("litert", keras.Sequential([keras.Input((8, 8, 8, 1)), keras.layers.MaxPooling3D(name="pool")]))
    Traceback (most recent call last):
    tlkit.errors.InvalidInput: format is 'litert', which cannot hold layer pool (MaxPooling3D): give another format
    """
    if name == "keras_hub":
        from tlkit.export import hubtask

        hubtask.check(model)
    for layer in model._flatten_layers():
        if type(layer).__name__ in FORMATS[name].without:
            kind = type(layer).__name__
            raise InvalidInput(
                f"format is {name!r}, which cannot hold layer {shown(layer.name)} ({kind}): give another format"
            )


def check_backend() -> None:
    """Refuse a backend from which Keras does not write all formats; Keras is not loaded.

    Raises:
        InvalidInput: Keras has, or would take, another backend than TensorFlow, or this is not installed.
    """
    loaded = sys.modules.get("keras")
    backend = loaded.backend.backend() if loaded else startup.asked() or startup.DEFAULT
    if backend != startup.DEFAULT:
        raise InvalidInput(
            f"Keras' backend is {shown(backend)!r}, and it exports from {startup.DEFAULT}: "
            f"set {startup.VARIABLE}={startup.DEFAULT}"
        )
    if not startup.is_installed(startup.DEFAULT):
        raise InvalidInput(f"Keras exports from {startup.DEFAULT}, which is not installed: pip install tensorflow")


def write(name: str, model: keras.Model, folder: Path, resize: str = "center") -> Path:
    """Write a model in a format.

    Args:
        name: Of the format.
        model: From raw values to probabilities, with one input and one output.
        folder: Where to write it; it must exist.
        resize: How photos are brought to the size, where the format says so; a value of `data.resize`.

    Returns:
        The model's file or folder.

    Raises:
        InvalidInput: the format cannot hold it; the message says why.
    """
    row = FORMATS[name]
    path = folder / row.file
    model(np.zeros((1, *(length or 1 for length in model.input_shape[1:])), np.float32))  # Keras asks for it
    with (
        one_line(f"format is {name!r}, which cannot hold this network", model, folder),
        converters.numbers_inside(model),
        quiet(),
    ):
        if name == "keras_hub":
            from tlkit.export import hubtask

            hubtask.write(model, str(path), resize)
        elif name == "openvino":
            converters.openvino(model, str(path))
        elif name == "onnx":
            converters.onnx(model, str(path))
        else:
            model.export(str(path), format=row.keras, verbose=False)
    return path


@contextlib.contextmanager
def one_line(what: str, model: keras.Model, folder: Path) -> Iterator[None]:
    """Turn any error of a converter into one line: each has its own for an operation that a format does not have.

    Raises:
        InvalidInput: with the reason.
        OSError: the disk is full, of which some converters say no more than that a stream failed.
    """
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        if shutil.disk_usage(folder).free < 4 * model.count_params():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        raise InvalidInput(f"{what}: {first_line(error)[:200]}") from error


def run(name: str, path: Path, values: np.ndarray, batch: int = 32) -> np.ndarray:
    """Run an exported model.

    Shapes:
        values: (n, *shape of an example), any numbers
        returns: (n, classes), float32

    Raises:
        InvalidInput: the runtime cannot run it; the message says why.
    """
    try:
        computing = FORMATS[name].load(str(path), 0)
        parts = [computing(values[start : start + batch].astype(np.float32)) for start in range(0, len(values), batch)]
        return np.concatenate([np.asarray(part, np.float32) for part in parts])
    except MemoryError:
        raise
    except Exception as error:  # each runtime has its own
        raise InvalidInput(f"format is {name!r}, whose runtime cannot run it: {first_line(error)[:200]}") from error


def size(path: Path) -> int:
    """Count the bytes of a model: of its file with the weights beside it, or of all files in its folder."""
    files = (
        [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else path.parent.glob(f"{path.stem}.*")
    )
    return sum(each.stat().st_size for each in files)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep back what converters print, on both streams and below Python, and switch OpenVINO's telemetry off."""
    startup.openvino()
    sys.stdout.flush()
    sys.stderr.flush()
    saved, nowhere, level = [os.dup(1), os.dup(2)], os.open(os.devnull, os.O_WRONLY), logging.root.manager.disable
    try:
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        logging.disable(logging.WARNING)
        with warnings.catch_warnings(), open(os.devnull, "w", encoding="utf-8") as null:
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
                yield
    finally:
        logging.disable(level)
        for stream, original in enumerate(saved, 1):
            os.dup2(original, stream)
            os.close(original)
        os.close(nowhere)
