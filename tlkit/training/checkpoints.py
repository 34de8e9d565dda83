"""Where training stands, on disk: what a phase needs to go on as if nothing had happened, and which runs can.

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

FOLDER = Path("mlruns", "checkpoints")
SECONDS = 10.0  # between checkpoints on the way, at least
SHARE = 0.02  # most of the time that goes into writing them
SPLIT = ("batch_size", "gradient_accumulation_steps")  # settings that memory may have changed on the way


class State(NamedTuple):
    """Where a phase stands.

    Args:
        epochs: Of the history, those of the phase before too.
        before: How many of them are of the phase before.
        waited: Epochs since the validation loss last fell.
        ended: Whether the phase is over.
        step: Batches that the network has seen of the epoch under way; 0 between epochs.
        seconds: That these took.
        arrays: Values of the model's variables and of the optimizer's (its schedule's place, loss scale and moving
            average too); the best epoch's weights; within an epoch those of the metrics, and what `generators` gives.
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
        path: Of the file.
        state: Where the phase stands.
        settings: Of the phase.
        rotate: Keep the one before beside it.
    """
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    told = {**state._asdict(), "settings": settings, "arrays": {k: len(v) for k, v in state.arrays.items()}}
    arrays: dict[str, Any] = {
        f"{name}_{i}": value for name, values in state.arrays.items() for i, value in enumerate(values)
    }
    with atomic.writing(path) as file:
        np.savez(file, told=np.array(json.dumps(told)), **arrays)
        if rotate and path.exists():
            path.replace(_previous(path))


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def delete(path: Path) -> None:
    """Delete a checkpoint, and the one before it."""
    for file in (path, _previous(path)):
        file.unlink(missing_ok=True)


def exists(path: Path) -> bool:
    """Whether there is a checkpoint, be it the one before the last."""
    return path.exists() or _previous(path).exists()


def load(path: Path, settings: Mapping[str, Any]) -> tuple[State, dict[str, Any]]:
    """Read a checkpoint; where it is damaged, the one before.

    Args:
        path: Of the file.
        settings: That the phase is to have.

    Returns:
        Where the phase stands, and the batch that it has, which may be smaller than what was asked for.

    Raises:
        InvalidInput: it is damaged, or was begun with other settings.
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
            told = untrusted.parse_json(str(file["told"]), path.name)
            begun = told.pop("settings")
            arrays = {name: [file[f"{name}_{i}"] for i in range(n)] for name, n in told.pop("arrays").items()}
            state = State(**told, arrays=arrays)
            if not (isinstance(begun, dict) and _is_whole(state, begun)):
                raise ValueError("something else stands in the place of a number, or an array is missing")
    except Exception as error:  # NumPy's reader raises almost anything on a damaged file; MemoryError is one too
        raise InvalidInput(f"{path} is no checkpoint of a phase, or is damaged: delete it or give another") from error
    wanted = json.loads(json.dumps(dict(settings)))
    for name, value in wanted.items():
        if name not in SPLIT and value != begun.get(name):
            raise InvalidInput(f"{path} was begun with {name} {begun.get(name)}, not {value}: give another file")
    return state, {name: begun[name] for name in SPLIT if name in begun}


def _is_whole(state: State, settings: Mapping[str, Any]) -> bool:
    """Whether what was read is of the kinds that `save` writes: a file may be a stranger's."""
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
        path: Of its file.
        state: What is in it.
        wanted: Shapes of the model's arrays, by their names in `State`.
    """
    found = {name: [array.shape for array in state.arrays.get(name, [])] for name in wanted}
    if found != dict(wanted):
        raise InvalidInput(f"{path} does not fit this model, or what of it is trained: give another file")


def generators() -> list[np.ndarray]:
    """States of PyTorch's generators, which Keras draws dropout from; on other backends variables have all of it."""
    if keras.backend.backend() != "torch":
        return []
    import torch

    return [state.numpy() for state in (torch.get_rng_state(), *torch.cuda.get_rng_state_all())]


def seed_generators(key: str) -> None:
    """Seed PyTorch's generators by a text."""
    import torch

    torch.manual_seed(int(hashlib.sha256(key.encode()).hexdigest()[:15], 16))


def set_generators(states: list[np.ndarray]) -> None:
    """Put PyTorch's generators where they were; other backends gave no states."""
    if not states:
        return
    import torch

    cpu, *gpus = [torch.from_numpy(state) for state in states]
    torch.set_rng_state(cpu)
    if len(gpus) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(gpus)


class Begun(NamedTuple):
    """A run that was begun and has not finished.

    Args:
        run_id: Of MLflow.
        folder: Of its checkpoints.
        told: What it was begun with: its `recipe`, `config` and the `digest` of its data.
    """

    run_id: str
    folder: Path
    told: dict[str, Any]


def begun(run_id: str, **told: Any) -> Begun:
    """Make the folder of a run's checkpoints, empty, where another part of the same run left some."""
    folder = FOLDER / untrusted.identifier(run_id, "the run's id")
    untrusted.remove(folder, FOLDER)
    folder.mkdir(parents=True)
    with atomic.writing(folder / "run.json") as file:
        file.write(json.dumps(told).encode())
    return Begun(run_id, folder, told)


def unfinished() -> list[Begun]:
    """Give the runs in the working folder that can be gone on with, the last first; damaged ones are left out."""
    found = []
    kinds = {"recipe": str, "asked": dict, "config": dict, "digest": str}
    for file in FOLDER.glob("*/run.json"):
        with contextlib.suppress(OSError, ValueError):  # InvalidInput is one: the folder is none of ours
            untrusted.identifier(file.parent.name, "the run's id")
            told = untrusted.read_json(file)
            whole = isinstance(told, dict) and all(isinstance(told.get(name), kind) for name, kind in kinds.items())
            if whole and not file.parent.is_symlink():
                found.append((file.stat().st_mtime, Begun(file.parent.name, file.parent, told)))
    return [one for _, one in sorted(found, key=lambda entry: entry[0], reverse=True)]


def finished(run: Begun) -> None:
    """Delete the checkpoints of a run that has finished, so that it cannot be gone on with."""
    (run.folder / "run.json").unlink(missing_ok=True)  # first: a part of the rest is worse than none
    untrusted.remove(run.folder, FOLDER)
    with contextlib.suppress(OSError):
        FOLDER.rmdir()


def hold(run: Begun) -> filelock.BaseFileLock | None:
    """Keep other processes from going on with a run, until the lock is released or this process ends.

    Returns:
        None where another process holds it, or it has finished by now.
    """
    lock = filelock.FileLock(run.folder / "lock")
    try:
        lock.acquire(timeout=0)
    except (filelock.Timeout, OSError):
        return None
    if not (run.folder / "run.json").exists():  # it finished while we looked
        lock.release()
        finished(run)
        return None
    for left in run.folder.glob(".*.part"):  # of a process that was killed while it wrote
        left.unlink(missing_ok=True)
    return lock


def pause(cost: float) -> float:
    """Give the seconds until the next checkpoint, where the last one took `cost`.

    >>> pause(0.1), pause(1.0)
    (10.0, 50.0)
    """
    return max(SECONDS, cost / SHARE)
