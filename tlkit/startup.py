"""Which backend Keras takes, decided before it is imported: it can never be changed afterwards; and the import.

A command that trains nothing takes OpenVINO unless the user has chosen a backend: it is loaded in a third of
TensorFlow's time and memory.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import re
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from tlkit.display import shown
from tlkit.errors import InvalidInput, first_line

COMMAND: list[str] = []
"""Name of the command that this process is, if it is one; it is then no longer there for anything else."""

VARIABLE = "KERAS_BACKEND"
DEFAULT, LEAN = "tensorflow", "openvino"
TRAINING = (DEFAULT, "jax", "torch")
BACKENDS = (*TRAINING, LEAN, "numpy")
"""The backends of Keras; each needs the package of its name."""


def asked() -> str | None:
    """Return the backend that the user has chosen, in the environment or in keras.json; None for no choice.

    Keras itself writes `tensorflow` into keras.json when it is first imported, so that this word is no choice there.
    """
    if backend := os.environ.get(VARIABLE):
        return backend
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    try:
        settings = json.loads(Path(home, "keras.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # Keras ignores it too
        return None
    backend = settings.get("backend") if isinstance(settings, dict) else None
    return backend if isinstance(backend, str) and backend != DEFAULT else None


def choose(trains: bool, lean: bool = True) -> str | None:
    """Return the backend that Keras is to take for a command, or None where it takes the right one by itself.

    Args:
        trains: Whether the command trains, which OpenVINO and NumPy cannot.
        lean: Whether OpenVINO is enough for a command that does not.

    Raises:
        InvalidInput: the backend does not exist, is not installed, or cannot train.
    """
    if "keras" in sys.modules:  # the user's, who may have reasons
        return None
    backend = asked()
    if backend is None and lean and not trains and is_installed(LEAN) and not (is_installed(DEFAULT) and has_gpu()):
        return LEAN
    name = backend or DEFAULT
    origin = f"{VARIABLE} is {shown(name)!r}" if os.environ.get(VARIABLE) else f"Keras' backend is {shown(name)!r}"
    origin += ", by keras.json" if backend and not os.environ.get(VARIABLE) else "" if backend else ", its default"
    usable = TRAINING if trains else BACKENDS
    if name not in BACKENDS:
        raise InvalidInput(f"{origin}, which is no backend of Keras; {_advice(usable)}")
    if not is_installed(name):
        raise InvalidInput(f"{origin}, which is not installed; {_advice(usable)}")
    if name not in usable:
        raise InvalidInput(f"{origin}, which predicts but does not train; {_advice(usable)}")
    return None


def _advice(usable: tuple[str, ...]) -> str:
    here = [name for name in usable if is_installed(name)]
    if not here:
        return f"none of {', '.join(usable)} is installed: pip install {DEFAULT}"
    words = f"{', '.join(here[:-1])} or {here[-1]}" if len(here) > 1 else here[0]
    return f"set {VARIABLE} to what is installed: {words}"


def is_installed(name: str) -> bool:
    """Whether a package can be imported; it is not imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # it is blocked
        return False


def has_gpu() -> bool:
    """Whether there is a GPU that TensorFlow may compute on; TensorFlow itself would take seconds to say so."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1") and os.path.exists("/dev/nvidiactl")


@contextlib.contextmanager
def taking(backend: str | None) -> Iterator[None]:
    """Have Keras take a backend if it is imported in the block, as will processes that are started in it."""
    if backend is None:
        yield
        return
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = backend
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def start_keras() -> float:
    """Import Keras without TensorFlow's start-up lines, and return when the import began."""
    began = time.perf_counter()
    if "keras" not in sys.modules:
        with contextlib.ExitStack() as stack:
            stack.enter_context(native_stderr_held())
            stack.enter_context(_no_garbage_collection())
            if asked() == LEAN:
                openvino()  # before Keras, which would have it send its telemetry
                stack.enter_context(_unused_left_out())
            import keras

            if keras.backend.backend() == LEAN:
                _hide_tensorflow()
    return began


def _hide_tensorflow() -> None:
    """Keep Keras from importing TensorFlow, where it is installed, to seed it and to ask whether a shape is its own."""
    from keras.src.utils import module_utils  # where Keras looks first

    module_utils.tensorflow._available = False


@contextlib.contextmanager
def _unused_left_out() -> Iterator[None]:
    """Leave out what Keras imports for functions that tlkit does not call: half of its time without a framework.

    Keras does without the others; SciPy imports its `signal` when it is first used.
    """
    names = ("matplotlib", "pandas", "requests", "scipy.signal", "sklearn")
    left_out = {
        name: types.ModuleType(name) if name == "scipy.signal" else None for name in names if name not in sys.modules
    }
    sys.modules.update(left_out)  # type: ignore[arg-type]  # None makes an import fail
    try:
        yield
    finally:
        for name in left_out:
            del sys.modules[name]


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Disable garbage collection during imports, and exclude what they created from it afterwards.

    Scanning it takes seconds and finds nothing.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextlib.contextmanager
def native_stderr_held() -> Iterator[None]:
    """Hold back what libraries write to standard error in the block, unless it ends in an error."""
    # No setting of TensorFlow 2.21 silences these lines: tensorflow/tensorflow#100442.
    sys.stderr.flush()
    with tempfile.TemporaryFile() as buffer:
        original = os.dup(2)
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        except BaseException:
            buffer.seek(0)
            os.write(original, buffer.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)


def openvino() -> ModuleType:
    """Import OpenVINO without its telemetry, which slows conversion down, unless the user has turned it on."""
    consent = Path.home() / "intel" / "openvino_telemetry"
    with contextlib.suppress(OSError):
        if consent.is_file() and consent.read_text(encoding="utf-8").strip() == "1":
            return importlib.import_module("openvino")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # makes its import fail
    return importlib.import_module("openvino")


def openvino_problem(error: Exception) -> str:
    """Return what Keras' openvino backend could not do, if that is why an error was raised, else an empty text.

    It lacks an operation, or OpenVINO cannot compile a graph.

    >>> openvino_problem(NotImplementedError("`qr` is not supported with openvino backend"))
    '`qr` is not supported with openvino backend'
    >>> openvino_problem(KeyError("name"))
    ''
    """
    cause: BaseException | None = error
    while isinstance(cause, Exception):
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(cause))  # Keras writes in bold letters
        named = [line.strip() for line in text.splitlines() if LEAN in line.lower()]
        frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(cause.__traceback__)]
        inside = any(LEAN in Path(file).parts for file in frames[-3:])
        if isinstance(cause, InvalidInput | OSError):  # their texts hold names that users give
            named = []
        if named or inside or isinstance(cause, NotImplementedError):
            return named[0] if named else first_line(cause)
        cause = cause.__cause__ or cause.__context__
    return ""
