"""What a run logs, on its way to MLflow: kept in a folder until the store has it, sent in order by a thread.

A journal is a folder, `mlruns/unsent/NAME`, with a line of JSON for each entry, the files that entries name, and how
far it is sent; it is deleted when all is. What a process leaves that was killed, or that ended while its server was
away, is taken up by `resume`: an entry may be sent twice without harm, and a model is found again by its key.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from tlkit import atomic, registry
from tlkit.errors import InvalidInput, Unavailable, without_password

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before mlflow loads; the user's own setting wins
# With MLflow's own, a call to a server that is away returns after four minutes.
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
PATIENCE = 5.0  # seconds that a run waits at its end for a store that does not answer
RATE = 1e6  # bytes a second, of the slowest line for which it waits longer
PAUSES = (0.5, 1, 2, 4, 8)  # seconds between attempts, the last again and again
MOST = {"metrics": 900, "params": 90, "tags": 90}  # that go in one call; MLflow allows 1000, 100 and 100
KEY = "journal"  # tag of a model, by which it is found again

Entry = dict[str, Any]


class Journal:
    """The journal of one run, in one process.

    Args:
        folder: Of the journal; it exists.
        header: Whose entries they are: `run_id`, `experiment_id`, and the store's `uri` without a password.
        uri: Of the store, as MLflow takes it.
        entries: That the journal holds already.
        state: How far these are sent.
        lock: Of the folder, held.
    """

    def __init__(
        self,
        folder: Path,
        header: Entry,
        uri: str,
        entries: list[Entry],
        state: dict[str, Any],
        lock: filelock.BaseFileLock,
    ):
        self.folder, self.header, self.run_id, self.entries = folder, header, header["run_id"], entries
        self._uri, self._lock, self._state = uri, lock, {"next": 0, "refused": [], **state}
        # What was refused before is tried again: its run may have been restored.
        self._todo = [*self._state["refused"], *range(self._state["next"], len(entries))]
        self._doubtful = len(entries)  # entries before this one may have arrived although we do not know of it
        self._changed = threading.Condition()
        self._closed = self._hurry = self._warned = self._waited = False
        self._failing = ""
        self._steps = 0  # that sending has taken
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

    @property
    def unsent(self) -> int:
        """How many entries the store does not have."""
        return len(set(self._todo) | set(self._state["refused"]))

    @property
    def reason(self) -> str:
        """Why entries could not be sent, in one line; empty where none failed."""
        return self._failing or self._state.get("why", "")

    def add(self, do: str, **values: Any) -> None:
        """Keep an entry and have it sent; returns at once. Where the disk is full, it is kept in memory alone."""
        entry = {"do": do, **values}
        with self._changed:
            try:
                with (self.folder / "journal.jsonl").open("ab") as file:
                    file.write(json.dumps(entry).encode() + b"\n")
            except OSError as error:
                if not self._warned:
                    _say(f"cannot keep what the run logs in {self.folder}: {error.strerror}; it is only in memory")
                self._warned = True
            self._todo.append(len(self.entries))
            self.entries.append(entry)
            self._start()
            self._changed.notify_all()

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Give the path of a new file or folder in the journal, for an entry to name; gone if the block fails."""
        place = self.folder / "files" / secrets.token_hex(4)
        place.mkdir(parents=True)
        try:
            yield place / name
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise

    def deliver(self) -> bool:
        """Wait until the store has all entries, as long as it gets on.

        Returns:
            Whether it has. Where it does not answer, this takes PATIENCE seconds and sending goes on in the background.
        """
        with self._changed:
            self._start()
            self._hurry, steps, until = True, -1, 0.0
            patience = 1.0 if self._waited and self._failing else PATIENCE  # once is enough
            self._changed.notify_all()
            while self._todo:
                if self._steps != steps:
                    steps, until = self._steps, time.monotonic() + patience + self._bytes() / RATE
                if time.monotonic() >= until:
                    self._waited = True
                    break
                self._changed.wait(0.1)
            self._hurry = False
            return not self.unsent

    def close(self) -> bool:
        """Deliver, and delete the journal if that is done; else it stays, and sending goes on in the background."""
        self.deliver()
        with self._changed:
            self._closed = True
            if not self._todo:
                self._leave()
            self._changed.notify_all()
            return not self.unsent

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="tlkit journal", daemon=True)
            self._thread.start()

    def _leave(self) -> None:
        done = not self.unsent
        if done:
            (self.folder / "header.json").unlink(missing_ok=True)  # it is no journal any more
        self._lock.release()
        if done:
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.folder.parent.rmdir()  # if no other is left

    def _bytes(self) -> int:
        paths = [self.folder / self.entries[number]["file"] for number in self._todo if "file" in self.entries[number]]
        parts = [part for path in paths for part in (path.rglob("*") if path.is_dir() else [path])]
        return sum(part.stat().st_size for part in parts if part.is_file())

    def _work(self) -> None:
        failed = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._todo or self._closed)
                if not self._todo:
                    return
                group = self._group()
            try:
                self._attempt(group)
            except Exception as error:
                if not self._failing:
                    _say(f"{self._store()} does not take what the run logs ({_line(error)}); it goes on and keeps it")
                self._doubtful, self._failing = max(self._doubtful, group[-1] + 1), _line(error)
                pause = PAUSES[min(failed, len(PAUSES) - 1)]
                with self._changed:
                    hurried = self._hurry
                    self._changed.wait_for(lambda: self._hurry > hurried, PAUSES[0] if hurried else pause)  # noqa: B023
                failed += 1
            else:
                if self._failing:
                    _say(f"{self._store()} takes it again")
                failed, self._failing = 0, ""

    def _group(self) -> list[int]:
        """The next entries that go in one call."""
        room, group = dict(MOST), self._todo[:1]
        for number in self._todo:
            entry = self.entries[number]
            if entry["do"] not in room or room[entry["do"]] < len(entry["values"]):
                break
            room[entry["do"]] -= len(entry["values"])
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
            why = _line(error)
            _say(f"{self._store()} refused {self.entries[group[0]]['do']} of the run: {why}")
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
        client, entry = mlflow.MlflowClient(self._uri), entries[0]
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
            path = self.folder / entry["file"]
            if not path.exists():
                raise MlflowException.invalid_parameter_value(f"the file {path} has gone")
            log = client.log_artifacts if path.is_dir() else client.log_artifact
            log(self.run_id, str(path), entry["to"] or None)
        elif entry["do"] == "model":
            self._state["model_uri"] = self._send_model(client, entry, group[0] < self._doubtful)
        elif entry["do"] == "register":
            if not self.model_uri:
                raise MlflowException.invalid_parameter_value("its model was not logged")
            self._state["registered"] = registry.register(self.model_uri, entry["name"], self.run_id)._asdict()
        elif not entry.get("if_running") or client.get_run(self.run_id).info.status == "RUNNING":
            client.set_terminated(self.run_id, entry["status"], entry["time"])

    def _send_model(self, client: mlflow.MlflowClient, entry: Entry, doubtful: bool) -> str:
        """Log a model, or what is missing of it; `mlflow.models.Model.log` would begin another."""
        run, experiment = client.get_run(self.run_id), self.header["experiment_id"]
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
        self._progress()
        if made.status != LoggedModelStatus.READY:
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                _address(self.folder / entry["file"], Path(folder) / "model", made, self.run_id)
                client.log_model_artifacts(made.model_id, f"{folder}/model")
            self._progress()
            client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
        linked = [output.model_id for output in run.outputs.model_outputs] if run.outputs else []
        if made.model_id not in linked:
            client.log_outputs(self.run_id, [LoggedModelOutput(made.model_id, step=entry["step"])])
        scores = [
            Metric(name, value, one["time"], one["step"], model_id=made.model_id, run_id=self.run_id)
            for one in self.entries
            if one["do"] == "metrics" and one["step"] == entry["step"]
            for name, value in one["values"].items()
            if not name.startswith("system/")
        ]
        self._progress()
        client.log_batch(self.run_id, scores, synchronous=True)
        return made.model_uri

    def _progress(self) -> None:
        with self._changed:
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
        Unavailable: the folder cannot be written to.
    """
    folder = (FOLDER / f"{run_id}-{secrets.token_hex(4)}").absolute()
    header = {"run_id": run_id, "experiment_id": experiment_id, "uri": without_password(uri)}
    try:
        folder.mkdir(parents=True)
        lock = _lock(folder)
        lock.acquire(timeout=0)
        with atomic.writing(folder / "header.json") as file:
            file.write(json.dumps(header).encode())
    except OSError as error:
        raise Unavailable(f"cannot write to {folder}: {error.strerror}; run from a folder you may write") from error
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # what it warns of, the journal says
    return Journal(folder, header, uri, [], {}, lock)


def left(folder: Path = FOLDER) -> list[Path]:
    """Journals in a folder that no process is at work on, the oldest first."""
    found = [path.parent for path in folder.absolute().glob("*/header.json")]
    return sorted((path for path in found if not _in_use(path)), key=lambda path: path.stat().st_mtime)


def run_of(folder: Path) -> str:
    """Give the id of the run that a journal is of."""
    return json.loads((folder / "header.json").read_text())["run_id"]


def resume(folder: Path) -> Journal | None:
    """Take up a journal that was left, to be sent by `close`; None where another process has."""
    lock = _lock(folder)
    try:
        lock.acquire(timeout=0)
        header = json.loads((folder / "header.json").read_text())
    except (filelock.Timeout, FileNotFoundError):
        lock.release()
        return None
    state_file, lines = folder / "state.json", []
    if (folder / "journal.jsonl").exists():
        lines = (folder / "journal.jsonl").read_bytes().split(b"\n")[:-1]  # a last one that was cut off has no end
    entries = [json.loads(line) for line in lines]
    state = json.loads(state_file.read_text()) if state_file.exists() else {}
    uri = mlflow.get_tracking_uri()
    if without_password(uri) != header["uri"]:
        uri = header["uri"]
        mlflow.set_tracking_uri(uri)
    return Journal(folder, header, uri, entries, state, lock)


def _lock(folder: Path) -> filelock.BaseFileLock:
    return filelock.FileLock(folder / "lock", thread_local=False)  # the thread that sends may be the one to let it go


def _in_use(folder: Path) -> bool:
    lock = _lock(folder)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    lock.release()
    return False


def _refused(error: Exception) -> bool:
    """Whether a store would refuse the same again: it answers, and what it says is not that we should come later."""
    if isinstance(error, MlflowException):
        return error.get_http_status_code() in (400, 404, 409)
    return isinstance(error, InvalidInput)


def _line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return without_password(lines[0])[:300]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
