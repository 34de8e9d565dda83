"""The worker processes of a search on a cluster: each is a task that starts one, and waits for its end."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit import cluster
from tlkit.errors import Unavailable

if TYPE_CHECKING:
    from tlkit import tuning

LOGS, STOP, POLL = "workers", ".stop", 0.2  # folder; suffix of a file that asks a worker to end; seconds


class Task:
    """A worker's process on the cluster, as `tuning.Running` has it."""

    def __init__(self, stop: Path):
        self.stop, self.ended = stop, threading.Event()
        self.returncode: int | None = None
        self.error: BaseException | None = None

    def end(self, status: int | None, error: BaseException | None = None) -> None:
        """Take note of its end."""
        self.returncode, self.error = status, error
        self.ended.set()

    def poll(self) -> int | None:
        """Look whether it has ended; raise what kept it from running."""
        if self.error:
            raise self.error
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended."""
        if not self.ended.wait(timeout):
            raise subprocess.TimeoutExpired("a worker of the cluster", timeout or 0.0)
        return self.returncode or 0

    def terminate(self) -> None:
        """Ask it to end, by a file in the search's folder."""
        if not self.ended.is_set():
            self.stop.touch()

    def kill(self) -> None:
        """Wait for it no longer: it ends by itself when it does not hear from the chief."""
        self.ended.set()


@contextlib.contextmanager
def starting(
    workers: cluster.Cluster, folder: Path, chief: dict[str, str]
) -> Iterator[Callable[[str], tuning.Process]]:
    """Give the function that starts a worker's process on the cluster.

    Args:
        workers: Of the cluster.
        folder: Of the search, which they see too.
        chief: Environment variables that say where the chief is.
    """
    from tlkit import tuning

    tasks: dict[str, Task] = {}
    names: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    over = threading.Event()
    (folder / LOGS).mkdir(exist_ok=True)

    def start(name: str) -> tuning.Process:
        tasks[name] = Task(folder / LOGS / f"{name}{STOP}")
        names.put(name)
        return tuning.Process(tasks[name], log_of(folder, name))

    def waiting() -> Iterator[str | None]:
        while not over.is_set():
            try:
                yield names.get_nowait()
            except queue.Empty:
                yield None

    def follow() -> None:
        try:
            shared = (str(folder), {**chief, tuning.CHIEF: ""})
            for name, status in cluster.map_unordered(workers, run_worker, shared, waiting()):
                tasks[name].end(status)
        except BaseException as error:
            for task in tasks.values():
                task.end(task.returncode, error)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield start
    finally:
        over.set()
        thread.join(10.0)
        for task in tasks.values():
            task.stop.unlink(missing_ok=True)


def log_of(folder: Path, name: str) -> Path:
    """Name the file that a worker's process writes to."""
    return folder / LOGS / f"{name.rpartition('-')[0]}.log"


def process(folder: Path, name: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a worker's process on this machine; it writes to its log, and joins no run of ours."""
    environment = {key: value for key, value in environment.items() if key != "MLFLOW_RUN_ID"}
    with log_of(folder, name).open("ab") as out:
        return subprocess.Popen(  # noqa: S603 (no shell, and nothing that a stranger wrote)
            [sys.executable, "-m", "tlkit.recipes._worker", str(folder)],
            env={**environment, "KERASTUNER_TUNER_ID": name},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the chief, which ends its workers itself
        )


def run_worker(search: tuple[str, dict[str, str]], name: str) -> int:
    """Start a worker's process on this worker of the cluster, and return its exit status.

    Args:
        search: The folder, and environment variables, of which one is empty and gets the number of this process.
        name: Of the worker.

    Raises:
        Unavailable: this machine does not see the search's folder.
    """
    folder, environment = Path(search[0]), search[1]
    if not (folder / "search.yaml").exists():
        raise Unavailable(
            f"the worker on {socket.gethostname()} does not see {folder}: --output must be on a file "
            "system that all workers share"
        )
    own = {key: value or str(os.getpid()) for key, value in environment.items()}
    own |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    running = process(folder, name, {**os.environ, **own})
    while running.poll() is None:
        if (folder / LOGS / f"{name}{STOP}").exists():
            running.terminate()
        time.sleep(POLL)
    return running.returncode
