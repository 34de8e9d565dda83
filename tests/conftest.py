"""What several test files share: a tracking store of their own and small folders of photos."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before NumPy is imported: each worker of pytest has a core, and threads that wait for one another on it take it up.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from PIL import Image

from tlkit import startup

if os.path.expanduser("~") == "~":  # no HOME and an unknown user: MLflow cannot be imported
    os.environ["HOME"] = os.getcwd()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def pytest_collection() -> None:
    """Look for no garbage while test files are imported: they make none, and it takes a third of that time."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Look for garbage less often, and not among what test files import: it took a tenth of the suite's time."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An activation store of each test's own, and a list of what was verified; never the user's."""
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TLKIT_CACHE", str(path))
    monkeypatch.setattr(startup, "COMMAND", [])  # a run of a test does not begin with the process
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    return path


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty tracking store: MLflow takes seconds to create one, so each test gets a copy."""
    import sqlalchemy
    from mlflow.store.db import utils

    from tlkit.tracking.database import create_database

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    create_database(path)
    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", _leave_to_the_system)
    with pytest.MonkeyPatch.context() as patch:
        # MLflow loads its 67 migrations, only to know the last, whenever it opens a store: half of that time.
        patch.setattr(utils, "_get_latest_schema_revision", functools.cache(utils._get_latest_schema_revision))
        yield path
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", _leave_to_the_system)


def _leave_to_the_system(connection: Any, _: Any) -> None:
    """Let SQLite not wait for the disk: what a killed process wrote is there all the same."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF").close()


@pytest.fixture
def folder(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with its own tracking store."""
    import mlflow

    for name in [name for name in os.environ if name.startswith("MLFLOW_") and name != "MLFLOW_DISABLE_TELEMETRY"]:
        monkeypatch.delenv(name)
    shutil.copy(database, tmp_path / "mlflow.db")
    # An absolute URI: MLflow keeps one open store for each URI, and `sqlite:///mlflow.db` is another file in each test.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    while mlflow.active_run():
        mlflow.end_run()


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs whose pictures are empty files, for tests of other things: they take half of the time of a small run."""
    from matplotlib.figure import Figure

    def leave_empty(figure: Figure, to: Any, **_: Any) -> None:
        if isinstance(to, Path):
            to.touch()  # else a file that is open

    monkeypatch.setattr(Figure, "savefig", leave_empty)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that Python runs one by one, for tests of few steps and of other things: compiling takes far longer."""
    leave_uncompiled(monkeypatch)


def leave_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Python run steps one by one, but not on JAX, which then compiles each operation by itself."""
    import keras
    from keras.src.trainers.trainer import Trainer

    if keras.backend.backend() != "jax":
        monkeypatch.setattr(Trainer, "run_eagerly", property(lambda self: True, lambda self, value: None))


def draw_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin networks with zeros, where their weights do not matter or come from a file."""
    import keras

    def zeros(self, shape, dtype=None):
        return keras.ops.zeros(shape, dtype or "float32")

    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", zeros)
    monkeypatch.setattr(keras.initializers.TruncatedNormal, "__call__", zeros)


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Networks with shapes and no values, for what only counts: drawing a thousand million weights takes a minute."""
    import keras
    from keras.src.backend.common import global_state

    draw_zeros(monkeypatch)
    with keras.StatelessScope(initialize_variables=False):
        yield
    global_state.set_global_attribute("uninitialized_variables", [])  # else the next such scope would fill them


def write_photos(root: Path, counts: dict[str, int], side: int = 40) -> Path:
    """Write `counts` = {class folder: photos}: each class has its own color, each photo its own noise."""
    rng = np.random.default_rng(0)
    for index, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        color = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200)][index % 3])
        for number in range(count):
            pixels = np.clip(color + rng.normal(0, 25, (side, side, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:03}.png")
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two classes with 30 photos each."""
    return write_photos(tmp_path / "photos", {"green": 30, "red": 30})


def write_sounds(root: Path, counts: dict[str, int], samples: int = 800, seed: int = 0) -> Path:
    """Write `counts` = {class folder: sounds} of 8 kHz: each class has its own pitch, each sound its own noise."""
    from tlkit.data import sounds

    rng = np.random.default_rng(seed)
    for index, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        tone = np.sin(np.arange(samples) * (0.3 + 0.5 * index))[:, None]
        for number in range(count):
            sound = 0.3 * tone + rng.normal(0, 0.1, (samples, 1))
            (root / name / f"{number:03}.wav").write_bytes(sounds.encode(sound, 8000))
    return root


def write_arrays(path: Path, shape: tuple[int, ...] = (8, 8, 8), counts: tuple[int, int, int] = (40, 10, 10)) -> Path:
    """Write an .npz file as MedMNIST's: two classes of different brightness."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        labels = np.arange(count) % 2
        values = rng.integers(0, 128, (count, *shape)) + 127 * labels.reshape(-1, *(1 for _ in shape))
        arrays |= {f"{split}_images": values.astype(np.uint8), f"{split}_labels": labels[:, None].astype(np.uint8)}
    np.savez(path, **arrays)
    return path
