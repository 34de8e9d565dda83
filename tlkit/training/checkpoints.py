"""Checkpoints: what a phase needs to resume as if nothing had happened, and which runs can be resumed.

A run's checkpoints lie in `mlruns/checkpoints/RUN` of the working folder, one file for each phase, beside the config,
until the run has finished. They are NumPy's .npz with JSON in it: nothing in them is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import keras
import numpy as np

from tlkit import atomic, untrusted
from tlkit.errors import InvalidInput
from tlkit.training.settings import Settings

FOLDER = Path("mlruns", "checkpoints")
PREVIOUS = ".previous"  # follows the name of a phase
SECONDS = 10.0  # least time between checkpoints within a phase
SHARE = 0.02  # maximum share of the time that goes into writing them
SPLIT = ("batch_size", "gradient_accumulation_steps")  # settings that change if memory runs out


class State(NamedTuple):
    """Where a phase stands.

    Args:
        epochs: Epochs of the history, those of the phase before included.
        before: Number of them that belong to the phase before.
        waited: Number of epochs since the validation loss last fell.
        ended: Whether the phase is over.
        step: Number of batches of the current epoch that the network has seen; 0 between epochs.
        seconds: Time that these batches took.
        arrays: Values of the variables of the model and of the optimizer (with its step, loss scale and moving
            average); the best epoch's weights; within an epoch also those of the metrics, and what `generators` gives.
    """

    epochs: list[dict[str, Any]]
    before: int
    waited: int
    ended: bool
    step: int
    seconds: float
    arrays: dict[str, list[np.ndarray]]


def save(path: Path, state: State, settings: Mapping[str, Any], rotate: bool = False) -> None:
    """Write a checkpoint, all of it or nothing.

    Args:
        path: File of the checkpoint.
        state: Where the phase stands.
        settings: Settings of the phase.
        rotate: Keep the previous one beside it.
    """
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    header = {**state._asdict(), "settings": settings, "arrays": {k: len(v) for k, v in state.arrays.items()}}
    arrays: dict[str, Any] = {
        f"{name}_{i}": value for name, values in state.arrays.items() for i, value in enumerate(values)
    }
    with atomic.writing(path) as file:
        np.savez(file, told=np.array(json.dumps(header)), **arrays)
        if rotate and path.exists():
            path.replace(_previous(path))


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}{PREVIOUS}{path.suffix}")


def delete(path: Path) -> None:
    """Delete a checkpoint, and the one before it."""
    for file in (path, _previous(path)):
        file.unlink(missing_ok=True)


def exists(path: Path) -> bool:
    """Whether there is a checkpoint, or a previous one."""
    return path.exists() or _previous(path).exists()


def load(path: Path, settings: Mapping[str, Any]) -> tuple[State, dict[str, Any]]:
    """Read a checkpoint; if it is damaged, the previous one.

    Args:
        path: File of the checkpoint.
        settings: Settings of the phase.

    Returns:
        Where the phase stands, and its batch, which may be smaller than what was asked for.

    Raises:
        InvalidInput: it is damaged, or was written with other settings.
    """
    try:
        return _load(path, settings)
    except InvalidInput:
        if not _previous(path).exists():
            raise
        return _load(_previous(path), settings)


def _load(path: Path, settings: Mapping[str, Any]) -> tuple[State, dict[str, Any]]:
    try:
        # Without pickle, which could run a stranger's program. NumPy leaves a file that it opens itself open on errors.
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            if any(member.compress_type != zipfile.ZIP_STORED for member in file.zip.infolist()):
                raise ValueError("ours are not compressed, and what is may fill the memory")
            header = untrusted.parse_json(str(file["told"]), path.name)
            before = header.pop("settings")
            arrays = {name: [file[f"{name}_{i}"] for i in range(n)] for name, n in header.pop("arrays").items()}
            state = State(**header, arrays=arrays)
            if not (isinstance(before, dict) and _is_whole(state, before)):
                raise ValueError("a value is not the number that it should be, or an array is missing")
    except Exception as error:  # NumPy's reader raises almost anything on a damaged file; MemoryError is one too
        raise InvalidInput(
            f"{path} is not a checkpoint of a phase, or is damaged: delete it or give another"
        ) from error
    wanted = json.loads(json.dumps(dict(settings)))
    for name, value in wanted.items():
        known = before.get(name, Settings._field_defaults.get(name))  # it is older than the setting
        if name not in SPLIT and value != known:
            raise InvalidInput(f"{path} was begun with {name} {known}, not {value}: give another file")
    return state, {name: before[name] for name in SPLIT if name in before}


def _is_whole(state: State, settings: Mapping[str, Any]) -> bool:
    """Whether what was read has the types that `save` writes: the file may come from a stranger."""
    counts = (state.before, state.waited, state.step, *(settings.get(name, 1) for name in SPLIT))
    return (
        all(type(count) is int and count >= 0 for count in counts)
        and all(settings.get(name, 1) for name in SPLIT)
        and isinstance(state.ended, bool)
        and type(state.seconds) in (int, float)
        and 0 <= state.seconds < float("inf")
        and isinstance(state.epochs, list)
        and state.before <= len(state.epochs)
        and all(_is_epoch(epoch) for epoch in state.epochs)
        and {"last", "optimizer", "best", "metrics", "generators"} <= set(state.arrays)
        and all(np.isfinite(array).all() for name in ("last", "best") for array in state.arrays[name])
    )


def _is_epoch(epoch: Any) -> bool:
    if not isinstance(epoch, dict) or not {"epoch", "phase", "val_loss"} <= set(epoch):
        return False
    numbers = all(type(value) in (int, float) for name, value in epoch.items() if name != "phase")
    return numbers and isinstance(epoch["phase"], str) and type(epoch["epoch"]) is int


def fits(path: Path, state: State, wanted: Mapping[str, list[tuple[int, ...]]]) -> None:
    """Refuse a checkpoint of another model.

    Args:
        path: File of the checkpoint.
        state: What it holds.
        wanted: Shapes of the model's arrays, by their names in `State`.
    """
    shapes = {name: [array.shape for array in state.arrays.get(name, [])] for name in wanted}
    if shapes != dict(wanted):
        raise InvalidInput(f"{path} does not fit this model, or what of it is trained: give another file")


def generators() -> list[np.ndarray]:
    """Give the states of PyTorch's generators, from which Keras draws dropout; other backends use variables."""
    if keras.backend.backend() != "torch":
        return []
    import torch

    return [state.numpy() for state in (torch.get_rng_state(), *torch.cuda.get_rng_state_all())]


def seed_generators(key: str) -> None:
    """Seed PyTorch's generators by a text."""
    import torch

    torch.manual_seed(int(hashlib.sha256(key.encode()).hexdigest()[:15], 16))


def set_generators(states: list[np.ndarray]) -> None:
    """Restore the states of PyTorch's generators; other backends have none."""
    if not states:
        return
    import torch

    cpu, *gpus = [torch.from_numpy(state) for state in states]
    torch.set_rng_state(cpu)
    if len(gpus) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(gpus)


class Unfinished(NamedTuple):
    """A run that has started and not finished.

    Args:
        run_id: Identifier of the MLflow run.
        folder: Folder of its checkpoints.
        started_with: Its `recipe`, its settings as `asked` and complete (`config`), and the `digest` of its data.
    """

    run_id: str
    folder: Path
    started_with: dict[str, Any]


def begin(run_id: str, **started_with: Any) -> Unfinished:
    """Make the folder of a run's checkpoints, and empty it if another part of the same run left some."""
    folder = FOLDER / untrusted.identifier(run_id, "the run's id")
    untrusted.remove(folder, FOLDER)
    folder.mkdir(parents=True)
    with atomic.writing(folder / "run.json") as file:
        file.write(json.dumps(started_with).encode())
    return Unfinished(run_id, folder, started_with)


def unfinished() -> list[Unfinished]:
    """Give the runs in the working folder that can be resumed, the latest first; damaged ones are left out."""
    runs = []
    types = {"recipe": str, "asked": dict, "config": dict, "digest": str}
    for file in FOLDER.glob("*/run.json"):
        with contextlib.suppress(OSError, ValueError):  # InvalidInput is one: the folder is none of ours
            untrusted.identifier(file.parent.name, "the run's id")
            start = untrusted.read_json(file)
            whole = isinstance(start, dict) and all(isinstance(start.get(name), type_) for name, type_ in types.items())
            if whole and not file.parent.is_symlink():
                runs.append((file.stat().st_mtime, Unfinished(file.parent.name, file.parent, start)))
    return [run for _, run in sorted(runs, key=lambda entry: entry[0], reverse=True)]


def finish(run: Unfinished) -> None:
    """Delete the checkpoints of a run that has finished, so that it cannot be resumed."""
    (run.folder / "run.json").unlink(missing_ok=True)  # first: a part of the rest is worse than none
    untrusted.remove(run.folder, FOLDER)
    with contextlib.suppress(OSError):
        FOLDER.rmdir()


def hold(run: Unfinished) -> filelock.BaseFileLock | None:
    """Keep other processes from resuming a run, until the lock is released or this process ends.

    Returns:
        The lock; None if another process holds it, or the run has finished by now.
    """
    lock = filelock.FileLock(run.folder / "lock")
    try:
        lock.acquire(timeout=0)
    except (filelock.Timeout, OSError):
        return None
    if not (run.folder / "run.json").exists():  # it finished while we looked
        lock.release()
        finish(run)
        return None
    for part in run.folder.glob(".*.part"):  # of a process that was killed while it wrote
        part.unlink(missing_ok=True)
    return lock


def pause(cost: float) -> float:
    """Give the seconds until the next checkpoint if the last one took `cost`.

    >>> pause(0.1), pause(1.0)
    (10.0, 50.0)
    """
    return max(SECONDS, cost / SHARE)
