"""What a run logs, on its way to MLflow: kept in a folder until the store has it, sent in order by a thread.

A journal is a folder, `mlruns/unsent/NAME`, with a line of JSON for each entry, the files that entries name, and how
far it is sent; it is deleted when all is. What a process leaves that was killed, or that ended while its server was
away, is taken up by `resume`: an entry may be sent twice without harm, and a model is found again by its key.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from tlkit import atomic, untrusted
from tlkit.display import shown
from tlkit.errors import InvalidInput, Unavailable, first_line, without_password
from tlkit.tracking import journal_files, registry
from tlkit.tracking.journal_files import Entry, tell

# Before mlflow loads; the user's own settings win. With MLflow's, a call to a server that is away takes four minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")

import mlflow
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModel,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.models import Model

FOLDER = Path("mlruns", "unsent")
ROOM = 5e6  # bytes of disk that the smallest run takes
PATIENCE = 5.0  # seconds that a run waits at its end for a store that does not answer
RATE = 1e6  # bytes a second, of the slowest line for which it waits longer
TOGETHER = 1.0  # second in which what is logged goes in one call
PAUSES = (0.5, 1, 2, 4, 8)  # seconds between attempts, the last again and again
MOST = {"metrics": 800, "params": 90, "tags": 90}  # that go in one call; MLflow allows 100 of two, and 1000 in all
REFUSALS = (400, 403, 404, 409, 413, 422)  # of HTTP; 401 may end when a password is set right
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
KEY = "journal"  # tag of a model, by which it is found again


class Journal:
    """The journal of one run, in one process.

    Args:
        folder: Of the journal; it exists.
        header: Whose entries they are: `run_id`, `experiment_id`, and the store's `uri` without a password.
        uri: Of the store, as MLflow takes it.
        entries: That the journal holds already, by their numbers.
        state: How far these are sent.
        lock: Of the folder, held.
    """

    def __init__(
        self,
        folder: Path,
        header: Entry,
        uri: str,
        entries: dict[int, Entry],
        state: dict[str, Any],
        lock: filelock.BaseFileLock,
    ):
        self.folder, self.header, self.run_id, self.entries = folder, header, header["run_id"], entries
        self.uri, self._lock, self._state = uri, lock, {"next": 0, "refused": [], **state}
        # What was refused before is tried again: its run may have been restored.
        refused = [number for number in self._state["refused"] if number in entries]
        self._state["refused"] = refused
        self._todo = [*refused, *(number for number in entries if number >= self._state["next"])]
        self._number = max(entries, default=-1) + 1
        self._doubtful = self._number  # entries before this one may have arrived although we do not know of it
        self._changed = threading.Condition()
        self._closed = self._hurry = self._warned = self._waited = False
        self._failing = ""
        self._steps = 0  # that sending has taken
        self.tables: list[dict[str, str]] = []  # that the run has, as MLflow's tag for them says
        self.known: set[tuple[str, int]] = set()  # metrics and steps that are not to be logged once more
        self.adopted = False
        self._thread: threading.Thread | None = None

    @property
    def model_uri(self) -> str | None:
        """Of the run's last model, `models:/m-…`, once the store has it."""
        return self._state.get("model_uri")

    @property
    def registered(self) -> registry.Registered | None:
        """What the model was registered as, once it is."""
        found = self._state.get("registered")
        return registry.Registered(**found) if found else None

    def adopt(self, model_id: str | None) -> None:
        """Take a model that the run has already for its model."""
        if model_id:
            self._state["model_uri"], self.adopted = f"models:/{model_id}", True

    @property
    def waiting(self) -> int:
        """How many entries are still to be tried."""
        return len(self._todo)

    @property
    def unsent(self) -> int:
        """How many entries the store does not have: those that wait, and those that it refused."""
        return len(set(self._todo) | set(self._state["refused"]))

    @property
    def reason(self) -> str:
        """Why entries could not be sent, in one line."""
        return self._failing or self._state.get("why") or "the store is slow"

    def add(self, do: str, **values: Any) -> None:
        """Keep an entry and have it sent; returns at once. Where the disk is full, it is kept in memory alone."""
        with self._changed:
            entry = {"n": self._number, "do": do, **values}
            try:
                journal_files.append(self.folder / "journal.jsonl", json.dumps(entry).encode() + b"\n")
            except OSError as error:
                if not self._warned:
                    tell(f"cannot keep what the run logs in {self.folder}: {error.strerror}; it is only in memory")
                self._warned = True
            self.entries[self._number] = entry
            self._todo.append(self._number)
            self._number += 1
            self._start()
            self._changed.notify_all()

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Give the path of a new file or folder in the journal, for an entry to name; gone if the block fails."""
        place = self.folder / "files" / secrets.token_hex(4)
        try:
            place.mkdir(parents=True)
            yield place / name
        except BaseException as error:
            untrusted.remove(place, self.folder / "files")
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise Unavailable(f"cannot keep {name} of the run in {self.folder}: {error.strerror}") from error
            raise

    def deliver(self, patience: float = PATIENCE) -> bool:
        """Wait until the store has all entries, as long as it gets on.

        Args:
            patience: Seconds to wait for the next step; more where files are on their way and nothing has failed, and
                PATIENCE at most where it has.

        Returns:
            Whether it has. If not, sending goes on in the background.
        """
        with self._changed:
            self._start()
            self._hurry, steps, until = True, -1, 0.0
            if self._waited and self._failing:
                patience = min(patience, 1.0)  # once is enough
            self._changed.notify_all()
            while self._todo:
                now = time.monotonic()
                if self._steps != steps:
                    steps, until = self._steps, now + patience + (0 if self._failing else self._bytes() / RATE)
                if self._failing:
                    until = min(until, now + min(patience, PATIENCE))
                if now >= until:
                    self._waited = True
                    break
                self._changed.wait(0.1)
            self._hurry = False
            return not self.unsent

    def close(self, patience: float = PATIENCE) -> bool:
        """Deliver, and delete the journal if that is done; else it stays, and sending goes on in the background."""
        try:
            self.deliver(patience)
        finally:
            with self._changed:
                self._closed = True
                if not self._todo:
                    self._leave()
                self._changed.notify_all()
        return not self.unsent

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="tlkit journal", daemon=True)
            self._thread.start()

    def _leave(self) -> None:
        if not self.unsent:
            with contextlib.suppress(OSError):
                (self.folder / "header.json").unlink()  # it is no journal any more
            untrusted.remove(self.folder, self.folder.parent)
            self.entries = {}
        journal_files.release(self._lock, self.folder)

    def _bytes(self) -> int:
        size = 0
        for entry in (self.entries[number] for number in self._todo):
            if "file" in entry:
                with contextlib.suppress(OSError, InvalidInput):
                    path = self._path(entry)
                    parts = path.rglob("*") if path.is_dir() else [path]
                    size += sum(part.stat().st_size for part in parts if part.is_file())
        return size

    def _path(self, entry: Entry) -> Path:
        """The file or folder of an entry: inside the journal, also where somebody else has written that."""
        files = (self.folder / "files").resolve()
        try:
            path = (self.folder / entry["file"]).resolve()
            inside, there = path.is_relative_to(files) and path != files, path.exists()
        except (OSError, ValueError):  # longer than a path may be, or with a null character
            inside = False
        if not inside or any(part.is_symlink() for part in path.rglob("*")):
            raise InvalidInput(f"an entry's file {shown(entry['file'])[:200]} is not in the journal {self.folder}")
        if not there:
            raise InvalidInput(f"the file {path} has gone")
        return path

    def _work(self) -> None:
        failed = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._todo or self._closed)
                if not self._todo:
                    return
                if self.entries[self._todo[0]]["do"] in MOST:  # a call for each short epoch would take its share
                    self._changed.wait_for(lambda: self._hurry or self._closed, TOGETHER)
                group = self._todo[:1]
            try:
                group = self._group()
                self._attempt(group)
            except Exception as error:
                why = first_line(error)[:300]
                if not self._failing:
                    tell(f"{self._store()} does not take what the run logs ({why}); it goes on and keeps it")
                self._doubtful, self._failing = max(self._doubtful, group[-1] + 1), why
                pause = PAUSES[min(failed, len(PAUSES) - 1)]
                with self._changed:
                    hurried = self._hurry
                    self._changed.wait_for(lambda: self._hurry > hurried, PAUSES[0] if hurried else pause)  # noqa: B023
                failed += 1
            else:
                if self._failing:
                    tell(f"{self._store()} takes it again")
                failed, self._failing = 0, ""

    def _group(self) -> list[int]:
        """The next entries that go in one call."""
        room, group = dict(MOST), self._todo[:1]
        for number in self._todo:
            entry = self.entries[number]
            size = len(entry.get("values", ()))
            if room.get(entry["do"], -1) < size:
                break
            room[entry["do"]] -= size
            group = [*group, number] if number not in group else group
        return group

    def _attempt(self, group: list[int]) -> None:
        why = ""
        try:
            self._send(group)
        except Exception as error:
            if not _refused(error):
                raise
            if len(group) > 1:  # one of them is refused, and must not take the others with it
                for number in group:
                    self._attempt([number])
                return
            why = first_line(error)[:300]
            if why != self._state.get("why"):  # a run that was deleted refuses all
                tell(f"{self._store()} refused {self.entries[group[0]]['do']} of the run: {why}")
        self._progress()
        with self._changed:
            self._todo = [number for number in self._todo if number not in group]
            refused = [number for number in self._state["refused"] if number not in group] + (group if why else [])
            self._state |= {"next": max(self._state["next"], group[-1] + 1), "refused": refused}
            if why:
                self._state["why"] = why
            with contextlib.suppress(OSError), atomic.writing(self.folder / "state.json") as file:
                file.write(json.dumps(self._state).encode())
            if self._closed and not self._todo:
                self._leave()
            self._changed.notify_all()

    def _send(self, group: list[int]) -> None:
        entries = [self.entries[number] for number in group]
        client, entry = mlflow.MlflowClient(self.uri), entries[0]
        if entry["do"] in MOST:
            client.log_batch(
                self.run_id,
                metrics=[
                    Metric(name, value, one["time"], one["step"])
                    for one in entries
                    if one["do"] == "metrics"
                    for name, value in one["values"].items()
                ],
                params=[Param(*item) for one in entries if one["do"] == "params" for item in one["values"].items()],
                tags=[RunTag(*item) for one in entries if one["do"] == "tags" for item in one["values"].items()],
                synchronous=True,
            )
        elif entry["do"] == "inputs":
            client.log_inputs(self.run_id, [_input(**values) for values in entry["values"]])
        elif entry["do"] == "artifact":
            path = self._path(entry)
            log = client.log_artifacts if path.is_dir() else client.log_artifact
            log(self.run_id, str(path), entry["to"] or None)
        elif entry["do"] == "model":
            self._send_model(client, entry, group[0] < self._doubtful)
        elif entry["do"] == "register":
            if not self.model_uri:
                raise InvalidInput("its model was not logged")
            self._state["registered"] = registry.register(self.model_uri, entry["name"], self.run_id, client)._asdict()
        elif entry["do"] == "end":
            if not entry.get("if_running") or client.get_run(self.run_id).info.status == "RUNNING":
                client.set_terminated(self.run_id, entry["status"], entry["time"])
        elif entry["do"] != "leave":
            raise InvalidInput(f"this version of tlkit cannot send {entry['do']!r}")

    def _send_model(self, client: mlflow.MlflowClient, entry: Entry, doubtful: bool) -> None:
        """Log a model, or what is missing of it; `mlflow.models.Model.log` would begin another."""
        saved = self._path(entry)
        run, experiment = untrusted.answered(client.get_run(self.run_id)), self.header["experiment_id"]
        query = f"source_run_id = '{self.run_id}' AND tags.`{KEY}` = '{entry['key']}'"
        found = client.search_logged_models([experiment], filter_string=query) if doubtful else []
        made = (
            found[0]
            if found
            else client.create_logged_model(
                experiment,
                name=entry["name"],
                source_run_id=self.run_id,
                tags={KEY: entry["key"]},
                params=run.data.params,
            )
        )
        untrusted.answered(made)
        self._progress()
        if made.status != LoggedModelStatus.READY:
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                _address(saved, Path(folder) / "model", made, self.run_id)
                client.log_model_artifacts(made.model_id, f"{folder}/model")
            self._progress()
            client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
        linked = [output.model_id for output in run.outputs.model_outputs] if run.outputs else []
        if made.model_id not in linked:
            client.log_outputs(self.run_id, [LoggedModelOutput(made.model_id, step=entry["step"])])
        self._state["model_uri"] = made.model_uri
        self._progress()
        scores = [
            Metric(name, value, one["time"], one["step"], model_id=made.model_id, run_id=self.run_id)
            for one in self.entries.values()
            if one["do"] == "metrics" and one["step"] == entry["step"] and one["n"] not in self._state["refused"]
            for name, value in one["values"].items()
            if not name.startswith("system/")
        ]
        for start in range(0, len(scores), MOST["metrics"]):
            client.log_batch(self.run_id, scores[start : start + MOST["metrics"]], synchronous=True)

    def _progress(self) -> None:
        with self._changed:
            if not self._failing:  # else what is tried again would look like getting on
                self._steps += 1
            self._changed.notify_all()

    def _store(self) -> str:
        return f"the MLflow store {self.header['uri']}"


def _address(saved: Path, folder: Path, made: LoggedModel, run_id: str) -> None:
    """Copy a saved model and write into it which one it is, as MLflow does when it logs one."""
    shutil.copytree(saved, folder, copy_function=_link, ignore=shutil.ignore_patterns("MLmodel"))
    model = Model.load(str(saved / "MLmodel"))
    model.model_id = model.model_uuid = made.model_id
    model.artifact_path, model.run_id = made.artifact_location, run_id
    model.save(str(folder / "MLmodel"))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)  # a copy could be of gigabytes
    except OSError:
        shutil.copyfile(source, target)


def _input(context: str, **dataset: str) -> DatasetInput:
    return DatasetInput(Dataset(**dataset), [InputTag("mlflow.data.context", context)])


def begin(uri: str, run_id: str, experiment_id: str) -> Journal:
    """Begin the journal of a run, in the working folder.

    Raises:
        InvalidInput: an id is none.
        Unavailable: the folder cannot be written to.
    """
    for text, what in ((run_id, "the run's id"), (experiment_id, "the experiment's id")):
        untrusted.identifier(text, what)
    folder = (FOLDER / f"{run_id}-{secrets.token_hex(4)}").absolute()
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        uri = f"sqlite:///{Path.cwd() / uri.removeprefix('sqlite:///')}"  # to be sent from another folder too
    header = {"run_id": run_id, "experiment_id": experiment_id, "uri": without_password(uri)}
    try:
        folder.mkdir(parents=True)
        lock = journal_files.lock(folder)
        lock.acquire(timeout=1)
        with atomic.writing(folder / "header.json") as file:
            file.write(json.dumps(header).encode())
    except OSError as error:
        raise _not_writable(folder, error) from error
    # What these write about a store that is away, or full, the journal says, in a line.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return Journal(folder, header, uri, {}, {}, lock)


def check_room(size: float = ROOM) -> None:
    """Refuse a working folder in which a run could not be kept, before it is begun.

    Args:
        size: Bytes that the run needs, for its model.

    Raises:
        Unavailable: the folder cannot be written to, or has less room.
    """
    folder = FOLDER.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1024))
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise _not_writable(folder, error) from error
    finally:
        with contextlib.suppress(OSError):  # something is in them
            folder.rmdir()
            folder.parent.rmdir()
    if free < size:
        raise Unavailable(
            f"{folder.parent} has {free / 1e6:,.1f} MB of room left, and the run needs {size / 1e6:,.1f} MB: make "
            "room, or run from a folder on another disk"
        )


def _not_writable(folder: Path, error: OSError) -> Unavailable:
    advice = "make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "run from a folder you may write"
    return Unavailable(f"cannot write to {folder}: {error.strerror}; {advice}")


def left(folder: Path = FOLDER) -> list[Path]:
    """Journals in a folder that no process is at work on, the oldest first; or the folder, if it is one itself."""
    folder = folder.absolute()
    found = [path.parent for path in [folder / "header.json", *folder.glob("*/header.json")] if path.is_file()]
    return sorted((path for path in found if not journal_files.in_use(path)), key=journal_files.modified)


def resume(folder: Path) -> Journal | None:
    """Take up a journal that was left, to be sent by `close`; None where another process has.

    Raises:
        InvalidInput: it is no journal, or of another store than the one that MLflow is set to use: a journal that a
            stranger made must not choose where to this user's password goes.
    """
    lock = journal_files.lock(folder)
    try:
        lock.acquire(timeout=1)
    except filelock.Timeout:
        return None
    try:
        if not (folder / "header.json").exists():  # it has been sent in the meantime
            journal_files.release(lock, folder)
            return None
        header, uri = journal_files.header(folder), mlflow.get_tracking_uri()
        if without_password(uri) != header["uri"]:
            uri = header["uri"]
            if not uri.startswith("sqlite:///") or not Path(uri.removeprefix("sqlite:///")).is_file():
                raise InvalidInput(
                    f"run {header['run_id']} belongs to {uri}: set MLFLOW_TRACKING_URI to that, and again"
                )
        entries = {entry["n"]: entry for entry in journal_files.entries(folder)}
        return Journal(folder, header, uri, entries, journal_files.state(folder), lock)
    except BaseException:
        journal_files.release(lock, folder)
        raise


def _refused(error: Exception) -> bool:
    """Whether a store would refuse the same again: it answers, and what it says is not that we should come later."""
    if isinstance(error, InvalidInput | KeyError | TypeError | AttributeError):  # an entry that cannot be one
        return True
    if isinstance(error, MlflowException):
        said = re.search(r"failed with error code (\d+)", str(error))  # of a proxy; MLflow makes all of them 500
        return (int(said[1]) if said else error.get_http_status_code()) in REFUSALS
    return getattr(getattr(error, "response", None), "status_code", None) in REFUSALS  # of an upload
