"""Model files (`.keras`) from anyone: checked before Keras builds the model, and again before it is used."""

from __future__ import annotations

import contextlib
import io
import math
import re
import sys
import threading
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras

from tlkit import arithmetic, inference, startup, untrusted
from tlkit.backbones import hubgraph, hubpresets, weightfiles
from tlkit.display import cut
from tlkit.errors import InvalidInput, first_line
from tlkit.untrusted import memory

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
LONGEST_CONFIG = 2**24  # bytes; NASNetLarge's has 1 MB
UNSAVED = 2**20  # numbers that a model may hold in addition to those in its file
LARGEST = 2**26  # numbers that one layer may always make of one example
GROWTH = 1000  # above LARGEST: times the numbers of the example and the weights together
LONGEST_REASON = 250  # letters of Keras' message
STEPS, UNROLLED_STEPS = 2**17, 2**10  # that a recurrent layer may take, in a loop or unrolled in the graph
_PATCHING = threading.RLock()  # the thread that puts Keras' function back must be the one that replaced it


def load(path: str | Path, name: str | None = None) -> keras.Model:
    """Load a model, not compiled, as `keras.saving.load_model` does in safe mode.

    Args:
        path: Of a `.keras` file.
        name: The user's name for it, for errors; by default the path.

    Raises:
        InvalidInput: it is not such a file, or damaged; it takes far more memory than a file of its size can need; it
            would run code, or needs another backend; or a weight is not a finite number.
    """
    name = repr(str(path)) if name is None else name
    with one_line(f"Keras cannot load {name}"):
        numbers = _check_file(path)
        with _at_most(numbers + UNSAVED):
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
        if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
            raise InvalidInput(f"it is a {type(model).__name__} that does not say what it takes")
        weightfiles.check_finite(model, "it")
        _check_sizes(model, numbers)
        if "keras_hub" in sys.modules:
            hubgraph.make_savable(model)
    return inference.in_full_precision(model)


@contextlib.contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turn any error that zipfile, json, h5py, Keras or its backend raise about a model file into one line.

    Raises:
        InvalidInput: with the reason.
    """
    try:
        yield
    except Exception as error:  # down to RecursionError and MemoryError
        raise InvalidInput(f"{what}: {_reason(error)}") from error


def _check_file(path: str | Path) -> int:
    """Check what a file announces, and count the numbers in its weights."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if repeated := untrusted.duplicates(member.filename for member in members):
            raise InvalidInput(f"it holds several members {repeated[0]}")
        stored = min(sum(member.compress_size for member in members), Path(path).stat().st_size)
        untrusted.check_expansion(sum(member.file_size for member in members), stored, "it")
        for name in (CONFIG, WEIGHTS):
            if name not in archive.namelist():
                raise InvalidInput(f"it holds no {name}")
        config = untrusted.member(archive, CONFIG, LONGEST_CONFIG)
        if not isinstance(untrusted.parse_json(config, CONFIG), dict):
            raise InvalidInput(f"its {CONFIG} describes no model")
        if b"keras_hub" in config and startup.is_installed("keras_hub"):
            hubpresets.library()  # before Keras does, which would let TensorFlow print its start-up lines
        size = archive.getinfo(WEIGHTS).file_size
        untrusted.check_memory(2 * size, "it")  # the file and, beside it, the variables
        with archive.open(WEIGHTS) as member:
            return untrusted.check_hdf5(io.BytesIO(member.read()), size, f"its {WEIGHTS}")


@contextlib.contextmanager
def _at_most(numbers: int) -> Iterator[None]:
    """Refuse variables of this thread once they hold more numbers in all: the file could not fill them."""
    this_thread, total = threading.get_ident(), 0

    def counted(
        variable: keras.Variable, initializer: Any, shape: Sequence[int] | None = None, *arguments: Any, **named: Any
    ) -> None:
        nonlocal total
        if threading.get_ident() == this_thread and shape is not None:
            total += math.prod(length for length in shape if length)
            if total > numbers:
                raise InvalidInput("its layers ask for more weights than it holds")
        original(variable, initializer, shape, *arguments, **named)

    with _PATCHING:
        original = keras.Variable.__init__
        keras.Variable.__init__ = counted  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            keras.Variable.__init__ = original  # type: ignore[method-assign]


def _check_sizes(model: keras.Model, weights: int) -> None:
    """Refuse a model of which a single layer's output for one example would fill the memory."""
    inputs = _input_size(model)
    if inputs > LARGEST:
        raise InvalidInput(f"it takes examples of {inputs:,} numbers, more than {LARGEST:,}")
    for name, steps, most in _steps(model):
        if steps > most:
            raise InvalidInput(f"its layer {name} goes through an example in {steps:,} steps, more than {most:,}")
    largest, layer = max(_outputs(model), default=(0, ""))
    if largest > LARGEST and largest > GROWTH * (inputs + weights):
        raise InvalidInput(f"its layer {layer} makes {largest:,} numbers of an example of {inputs:,}")
    untrusted.check_memory(4 * largest, f"one example in its layer {layer}")


def batch_size(model: keras.Model, most: int) -> int:
    """Decide how many examples a model may predict at a time: up to `most`, as the memory allows.

    >>> batch_size(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), 32)
    32
    """
    return memory.batch_size(numbers_at_once(model), most)


def numbers_at_once(model: keras.Model) -> int:
    """Count the numbers in an example and in the largest output that a layer makes of it."""
    return _input_size(model) + max(_outputs(model), default=(0, ""))[0]


def _input_size(model: keras.Model) -> int:
    """Count the numbers in one example."""
    return sum(math.prod(length or 1 for length in tensor.shape[1:]) for tensor in model.inputs)


def _outputs(model: keras.Model) -> Iterator[tuple[int, str]]:
    """Count the numbers that each layer makes of one example, and name the layer."""
    for node in arithmetic.nodes(model):
        if isinstance(node.operation, keras.Model):
            yield from _outputs(node.operation)
            continue
        for tensor in node.output_tensors:
            yield math.prod(length or 1 for length in tensor.shape[1:]), node.operation.name


def _steps(model: keras.Model) -> Iterator[tuple[str, int, int]]:
    """Name each recurrent layer, with the number of its steps and how many it may take."""
    for node in arithmetic.nodes(model):
        layer = node.operation
        if isinstance(layer, keras.Model):
            yield from _steps(layer)
        inner = layer.forward_layer if isinstance(layer, keras.layers.Bidirectional) else layer
        if isinstance(inner, keras.layers.RNN | keras.layers.TimeDistributed):
            unrolled = getattr(inner, "unroll", True)  # each step is a part of the graph
            yield layer.name, node.input_tensors[0].shape[1] or 0, UNROLLED_STEPS if unrolled else STEPS


def _reason(error: Exception) -> str:
    """Find what went wrong in a message that Keras wraps in pages of the model's configuration."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return "the memory is not enough for it"
    if isinstance(error, ModuleNotFoundError):
        return f"it has a layer that needs {error.name}, which is not installed"
    text = str(error)
    if "keras_hub" in text and not startup.is_installed("keras_hub"):
        return 'it has layers of KerasHub: pip install "tlkit[hub]"'
    for words in ("Exception encountered:", "Example error message for object"):
        text = text.rpartition(words)[2] if words in text else text
    if text != str(error):
        text = re.sub(r"\A\s*<.*>:\s*", "", text)  # the object
    reason = first_line(ValueError(text)) if text.strip() else first_line(error)
    return cut(reason, LONGEST_REASON)
