"""What a run logs, on its way to MLflow: stored in a folder until the store has it, sent in order by a thread.

A journal is a folder, `mlruns/unsent/NAME`, with a line of JSON for each entry, the files that entries name, and how
far it is sent; it is deleted when all is. The journal of a process that was killed, or that ended while its server was
away, is taken up by `resume`: an entry may be sent twice without harm, and a model is found again by its key.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import mlflow

from tlkit import atomic, untrusted
from tlkit.errors import InvalidInput, Unavailable, connection_reason, without_password
from tlkit.tracking import journal_files, registry, sending
from tlkit.tracking.journal_files import FOLDER, ROOM, Entry, check_room, left, tell
from tlkit.tracking.sending import MOST

__all__ = ["FOLDER", "MOST", "PATIENCE", "ROOM", "Journal", "begin", "check_room", "left", "resume"]

PATIENCE = 5.0  # seconds that a run waits at its end for a store that does not answer
RATE = 1e6  # bytes a second, of the slowest line for which it waits longer
TOGETHER = 1.0  # seconds in which entries are collected for one call
PAUSES = (0.5, 1, 2, 4, 8)  # seconds between attempts, the last again and again
LONGEST_REASON = 300  # letters
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class Journal:
    """The journal of one run, in one process.

    Args:
        folder: Folder of the journal; it exists.
        header: Whose entries they are: `run_id`, `experiment_id`, and the store's `uri` without a password.
        uri: URI of the store, as MLflow takes it.
        entries: Entries that the journal holds already, by their numbers.
        state: How far these are sent.
        lock: Lock of the folder, held.
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
        self.folder, self.header, self.entries = folder, header, entries
        self.run_id: str = header["run_id"]
        self.uri, self._lock, self._state = uri, lock, {"next": 0, "refused": [], **state}
        # What was refused before is tried again: its run may have been restored.
        refused = [number for number in self._state["refused"] if number in entries]
        self._state["refused"] = refused
        self._queue = [*refused, *(number for number in entries if number >= self._state["next"])]
        self._number = max(entries, default=-1) + 1
        self._doubtful = self._number  # entries before this one may have arrived although we do not know of it
        self._changed = threading.Condition()
        self._closed = self._hurry = self._warned = self._waited = False
        self._failing = ""  # why the last attempt failed
        self._steps = 0  # that sending has taken
        self.tables: list[dict[str, str]] = []  # tables of the run, as MLflow's tag lists them
        self.logged_metrics: set[tuple[str, int]] = set()  # names and steps that must not be logged again
        self.has_scores = False  # the run has logged a metric of its own
        self.has_model = False  # the run keeps the model that it logged before it was resumed
        self._thread: threading.Thread | None = None

    @property
    def model_uri(self) -> str | None:
        """URI of the run's last model, `models:/m-…`, once the store has it."""
        return self._state.get("model_uri")

    @property
    def registered(self) -> registry.Registered | None:
        """What the model was registered as, once it is."""
        version = self._state.get("registered")
        return registry.Registered(**version) if version else None

    def adopt(self, model_id: str | None) -> None:
        """Take a model that the run has logged already as its model."""
        if model_id:
            self._state["model_uri"], self.has_model = f"models:/{model_id}", True

    @property
    def waiting(self) -> int:
        """Number of entries that are still to be tried."""
        return len(self._queue)

    @property
    def unsent(self) -> int:
        """Number of entries that the store does not have: those that wait, and those that it refused."""
        return len(set(self._queue) | set(self._state["refused"]))

    @property
    def reason(self) -> str:
        """Why entries could not be sent, in one line."""
        return self._failing or self._state.get("why") or "the store is slow"

    def add(self, do: str, **values: Any) -> None:
        """Store an entry and have it sent; returns at once. Where the disk is full, it is in memory alone."""
        with self._changed:
            entry = {"n": self._number, "do": do, **values}
            try:
                journal_files.append(self.folder / "journal.jsonl", json.dumps(entry).encode() + b"\n")
            except OSError as error:
                if not self._warned:
                    tell(f"cannot keep what the run logs in {self.folder}: {error.strerror}; it is only in memory")
                self._warned = True
            self.entries[self._number] = entry
            self._queue.append(self._number)
            self._number += 1
            self._start()
            self._changed.notify_all()

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Give the path of a new file or folder in the journal, for an entry to name; deleted if the block fails."""
        folder = self.folder / "files" / secrets.token_hex(4)
        try:
            folder.mkdir(parents=True)
            yield folder / name
        except BaseException as error:
            untrusted.remove(folder, self.folder / "files")
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise Unavailable(f"cannot keep {name} of the run in {self.folder}: {error.strerror}") from error
            raise

    def deliver(self, patience: float = PATIENCE) -> bool:
        """Wait until the store has all entries, as long as sending makes progress.

        Args:
            patience: Seconds to wait for the next step; longer where files are being sent and nothing has failed, and
                PATIENCE at most where it has.

        Returns:
            Whether the store has all entries. If not, sending goes on in the background.
        """
        with self._changed:
            self._start()
            self._hurry, steps, until = True, -1, 0.0
            if self._waited and self._failing:
                patience = min(patience, 1.0)  # once is enough
            self._changed.notify_all()
            while self._queue:
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
                if not self._queue:
                    self._leave()
                self._changed.notify_all()
        return not self.unsent

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="tlkit journal", daemon=True)
            self._thread.start()

    def _leave(self) -> None:
        """Delete the journal if the store has all of it, and release its lock."""
        if not self.unsent:
            with contextlib.suppress(OSError):
                (self.folder / "header.json").unlink()  # without it, the folder is not a journal
            untrusted.remove(self.folder, self.folder.parent)
            self.entries = {}
        journal_files.release(self._lock, self.folder)

    def _bytes(self) -> int:
        """Add up the sizes of the files that wait."""
        size = 0
        for entry in (self.entries[number] for number in self._queue):
            if "file" in entry:
                with contextlib.suppress(OSError, InvalidInput):
                    path = journal_files.entry_path(self.folder, entry)
                    parts = path.rglob("*") if path.is_dir() else [path]
                    size += sum(part.stat().st_size for part in parts if part.is_file())
        return size

    def _work(self) -> None:
        """Send entries until the journal is closed and empty."""
        failures = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return
                if self.entries[self._queue[0]]["do"] in MOST:  # one call for each short epoch would take its share
                    self._changed.wait_for(lambda: self._hurry or self._closed, TOGETHER)
                group = self._queue[:1]
            try:
                group = self._group()
                self._attempt(group)
            except Exception as error:
                self._note_failure(error, group)
                self._pause(failures)
                failures += 1
            else:
                if self._failing:
                    tell(f"{self._store()} is accepting entries again")
                failures, self._failing = 0, ""

    def _note_failure(self, error: Exception, group: list[int]) -> None:
        why = connection_reason(error, LONGEST_REASON)
        if not self._failing:
            tell(f"{self._store()} is not accepting entries ({why}); the run continues and keeps its log on disk")
        self._doubtful, self._failing = max(self._doubtful, group[-1] + 1), why

    def _pause(self, failures: int) -> None:
        """Wait before the next attempt; shorter where somebody waits for it."""
        pause = PAUSES[min(failures, len(PAUSES) - 1)]
        with self._changed:
            hurried = self._hurry
            self._changed.wait_for(lambda: self._hurry > hurried, PAUSES[0] if hurried else pause)

    def _group(self) -> list[int]:
        """List the next entries that go in one call."""
        room, group = dict(MOST), self._queue[:1]
        for number in self._queue:
            entry = self.entries[number]
            size = len(entry.get("values", ()))
            if room.get(entry["do"], -1) < size:
                break
            room[entry["do"]] -= size
            group = [*group, number] if number not in group else group
        return group

    def _attempt(self, group: list[int]) -> None:
        """Send a group; a refused one is sent entry by entry, and what is refused then is noted."""
        why = ""
        try:
            self._send(group)
        except Exception as error:
            if not sending.is_refusal(error):
                raise
            if len(group) > 1:  # one of them is refused, and must not take the others with it
                for number in group:
                    self._attempt([number])
                return
            why = connection_reason(error, LONGEST_REASON)
            if why != self._state.get("why"):  # a deleted run refuses all entries for the same reason
                tell(f"{self._store()} refused {self.entries[group[0]]['do']} of the run: {why}")
        self._progress()
        self._note_sent(group, why)

    def _note_sent(self, group: list[int], why: str) -> None:
        """Take a group off the queue and write how far the journal is sent; `why` it was refused, if it was."""
        with self._changed:
            self._queue = [number for number in self._queue if number not in group]
            refused = [number for number in self._state["refused"] if number not in group] + (group if why else [])
            self._state |= {"next": max(self._state["next"], group[-1] + 1), "refused": refused}
            if why:
                self._state["why"] = why
            with contextlib.suppress(OSError):
                atomic.write_text(self.folder / "state.json", json.dumps(self._state))
            if self._closed and not self._queue:
                self._leave()
            self._changed.notify_all()

    def _send(self, group: list[int]) -> None:
        entries = [self.entries[number] for number in group]
        client, entry = mlflow.MlflowClient(self.uri), entries[0]
        if entry["do"] in MOST:
            sending.log_batch(client, self.run_id, entries)
        elif entry["do"] == "inputs":
            sending.log_inputs(client, self.run_id, entry)
        elif entry["do"] == "artifact":
            sending.log_artifact(client, self.run_id, journal_files.entry_path(self.folder, entry), entry)
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
        saved = journal_files.entry_path(self.folder, entry)
        model = sending.log_model(client, self.header, entry, saved, doubtful, self._progress)
        self._state["model_uri"] = model.model_uri
        self._progress()
        entries = [each for number, each in self.entries.items() if number not in self._state["refused"]]
        sending.log_scores(client, self.run_id, model.model_id, entries, entry["step"])

    def _progress(self) -> None:
        """Note a step, so that whoever waits goes on waiting."""
        with self._changed:
            if not self._failing:  # else repeated attempts would look like progress
                self._steps += 1
            self._changed.notify_all()

    def _store(self) -> str:
        return f"the MLflow store {self.header['uri']}"


def begin(uri: str, run_id: str, experiment_id: str) -> Journal:
    """Begin the journal of a run, in the working folder.

    Raises:
        InvalidInput: an id is not safe.
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
        atomic.write_text(folder / "header.json", json.dumps(header))
    except OSError as error:
        raise journal_files.not_writable(folder, error) from error
    # The journal itself says in one line that a store is away or full; these would write more.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return Journal(folder, header, uri, {}, {}, lock)


def resume(folder: Path) -> Journal | None:
    """Take up a journal that was left, to be sent by `close`; None where another process has taken it up.

    Raises:
        InvalidInput: it is not a journal, or of another store than the one that MLflow is set to use: a stranger's
            journal must not decide where this user's password is sent.
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
                    f"run {header['run_id']} belongs to {uri}: set MLFLOW_TRACKING_URI to that, and try again"
                )
        entries = {entry["n"]: entry for entry in journal_files.entries(folder)}
        return Journal(folder, header, uri, entries, journal_files.state(folder), lock)
    except BaseException:
        journal_files.release(lock, folder)
        raise
