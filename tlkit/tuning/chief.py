"""The chief of a search: serves the oracle to workers, and keeps the workers of this machine running."""

from __future__ import annotations

import contextlib
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import grpc
from keras_tuner.src import protos
from keras_tuner.src.distribute import oracle_chief
from keras_tuner.src.engine.oracle import LOCKS, THREADS
from keras_tuner.src.engine.trial import Trial

from tlkit.errors import Unavailable
from tlkit.tuning.oracles import ResumableOracle
from tlkit.tuning.protocol import BEAT, MORE, SILENCE, TUNER

FAILURES = 10  # a search ends when this many of its first trials have all failed
DEATHS = 3  # workers that die in a row without a trial end the search
Message: TypeAlias = Any  # a protobuf message of keras-tuner's service, whose classes are made at run time


class _Servicer(oracle_chief.OracleServicer):
    """Notes when each trial's worker was last heard, and survives errors in a call."""

    def __init__(self, oracle: ResumableOracle):
        super().__init__(oracle)
        self.last_heard: dict[str, float] = {}

    def CreateTrial(self, request: Message, context: grpc.ServicerContext) -> Message:
        response = self._guarded(super().CreateTrial, request, context)
        self.last_heard[response.trial.trial_id] = time.monotonic()
        return response

    def GetTrial(self, request: Message, context: grpc.ServicerContext) -> Message:
        self._check_trial(request.trial_id, context)
        name = dict(context.invocation_metadata()).get(TUNER)
        trial = self.oracle.ongoing_trials.get(name)
        if name and (trial is None or trial.trial_id != request.trial_id):
            context.abort(grpc.StatusCode.ABORTED, "this trial was given to another worker")
        self.last_heard[request.trial_id] = time.monotonic()
        return super().GetTrial(request, context)

    def UpdateTrial(self, request: Message, context: grpc.ServicerContext) -> Message:
        self._check_trial(request.trial_id, context)
        return self._guarded(super().UpdateTrial, request, context)

    def EndTrial(self, request: Message, context: grpc.ServicerContext) -> Message:
        self._check_trial(request.trial.trial_id, context)
        return self._guarded(super().EndTrial, request, context)

    def _check_trial(self, trial_id: str, context: grpc.ServicerContext) -> None:
        if trial_id not in self.oracle.trials:
            context.abort(grpc.StatusCode.NOT_FOUND, "this search has no such trial")

    def _guarded(
        self,
        call: Callable[[Message, grpc.ServicerContext], Message],
        request: Message,
        context: grpc.ServicerContext,
    ) -> Message:
        try:
            return call(request, context)
        except Exception as error:
            self.oracle.failure = error  # the chief raises it
            if THREADS[self.oracle] == threading.current_thread().name:  # keras-tuner does not release it then
                THREADS[self.oracle] = None
                LOCKS[self.oracle].release()
            context.abort(grpc.StatusCode.INTERNAL, "the chief ends")


@contextlib.contextmanager
def served(oracle: ResumableOracle, host: str = "127.0.0.1", port: int = 0) -> Iterator[tuple[int, dict[str, float]]]:
    """Serve the oracle to workers; anyone who reaches the port can take trials and report results.

    Returns:
        The port, a free one where it was 0; and when each trial's worker was last heard, by the monotonic clock.

    Raises:
        Unavailable: the port is taken.
    """
    # One thread: keras-tuner's lock knows its holder by the thread's name.
    server = grpc.server(futures.ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
    servicer = _Servicer(oracle)
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    try:
        port = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError as error:
        raise Unavailable(f"cannot listen on {host}:{port}: the port is taken, or the address is not ours") from error
    server.start()
    try:
        yield port, servicer.last_heard
    finally:
        server.stop(grace=1.0).wait()


class Running(Protocol):
    """A process, of which `subprocess.Popen` is one."""

    @property
    def returncode(self) -> int | None:
        """Its exit status, once it has ended."""

    def poll(self) -> int | None:
        """Look whether it has ended, and return its exit status if so."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; raise `subprocess.TimeoutExpired` if it does not in time."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it."""


class Process(NamedTuple):
    """A worker's process that this one has started, and its log file."""

    running: Running
    log: Path


def supervise(
    oracle: ResumableOracle,
    last_heard: dict[str, float],
    start: Callable[[str], Process],
    workers: int,
    on_end: Callable[[Trial, int], None],
    silent: float = SILENCE,
) -> None:
    """Run the search until all trials have ended: start workers, and give back the trials of those that die.

    Args:
        oracle: Made by `oracle`.
        last_heard: Given by `served`.
        start: Starts a worker of this name.
        workers: Number of them on this machine; 0 where all are elsewhere.
        on_end: Called with each trial that has ended, and with how many have.
        silent: Seconds without a sign of life after which a worker elsewhere counts as lost.

    Raises:
        Unavailable: workers die before they do anything, or trial after trial fails.
    """
    local = _LocalWorkers(oracle, start)
    reported = before = len(oracle.end_order)
    try:
        while True:
            local.collect()
            _give_back_silent(oracle, last_heard, local.processes, silent)
            if oracle.failure:
                raise oracle.failure
            trials_left = bool(oracle._retry_queue) or not oracle.stopped
            # Decided before the last trials are reported, so that none is missed.
            done = not trials_left and not oracle.ongoing_trials and not local.processes
            for trial_id in oracle.end_order[reported:]:
                reported += 1
                on_end(oracle.trials[trial_id], reported)
            _check_failures([oracle.trials[trial_id] for trial_id in oracle.end_order[before:reported]])
            if done:
                break
            local.fill(workers if trials_left else 0)
            time.sleep(0.1)
        end = time.monotonic() + BEAT
        while oracle.tuner_ids and time.monotonic() < end:  # workers elsewhere ask once more, to be told the end
            time.sleep(0.1)
    finally:
        stop(list(local.processes.values()))


class _LocalWorkers:
    """The workers of this machine, by name."""

    def __init__(self, oracle: ResumableOracle, start: Callable[[str], Process]):
        self.oracle, self.start = oracle, start
        self.processes: dict[str, Process] = {}
        self.started = self.deaths = 0  # deaths in a row, of workers that had no trial

    def collect(self) -> None:
        """Take note of the workers that have ended, and give back their trials."""
        for name, process in list(self.processes.items()):
            status = process.running.poll()
            if status is None:
                continue
            del self.processes[name]
            self.oracle.tuner_ids.discard(name)
            if status in (0, MORE):
                self.deaths = 0
                continue
            self.deaths = self.deaths + 1 if name not in self.oracle.ongoing_trials else 0
            self.oracle.give_back(name, _cause(status))
            if self.deaths >= DEATHS:
                raise Unavailable(f"workers die at once ({_cause(status)}): see {process.log}")

    def fill(self, workers: int) -> None:
        """Start workers until this many run."""
        while len(self.processes) < workers:
            name = f"worker{self.started}-{secrets.token_hex(4)}"  # unique among all chiefs and restarts
            self.started += 1
            self.processes[name] = self.start(name)


def _give_back_silent(
    oracle: ResumableOracle, last_heard: dict[str, float], processes: dict[str, Process], silent: float
) -> None:
    """Give back the trials of workers elsewhere that have given no sign of life for too long."""
    now = time.monotonic()
    for name, trial in list(oracle.ongoing_trials.items()):
        if name not in processes and now - last_heard.get(trial.trial_id, now) > silent:
            last_heard.pop(trial.trial_id)
            oracle.give_back(name, f"nothing was heard of its worker for {silent:.0f} s")


def stop(processes: Sequence[Process], seconds: float = 5.0) -> None:
    """Ask processes to end; kill those still running after `seconds`."""
    for process in processes:
        process.running.terminate()
    end = time.monotonic() + seconds
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.running.wait(max(0.1, end - time.monotonic()))
        process.running.kill()
        process.running.wait()


def _cause(status: int) -> str:
    """Say how a process ended."""
    if status < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-status).name
            return f"its process was killed ({name})" + (", often for lack of memory" if name == "SIGKILL" else "")
    return f"its process ended with status {status}"


def _check_failures(trials: Sequence[Trial]) -> None:
    first = trials[:FAILURES]
    if len(first) == FAILURES and all(trial.status == "FAILED" for trial in first):
        raise Unavailable(
            f"{FAILURES} trials failed, one after the other and none before them; the last one because "
            f"{first[-1].message}"
        )
