"""Training in several processes on JAX, one on each host: who they are, what the first tells the others, and the end.

All processes do the same. The first alone logs, writes checkpoints, scores and saves. What they could decide
differently (weights by rounding, the outcome of a comparison) the first decides.

If a process ends early, the others wait for it in vain, within JAX. So threads of the first look after each of the
others, and one of each other looks after the first.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np

from tlkit.errors import InvalidInput, Unavailable, first_line

SECONDS = 60  # within which a process ends after another; at once, unless the other's host is off the network
START_SECONDS = 300  # within which all processes must have started
WAIT_SECONDS = 24 * 3600  # which a process may need longer than another, as the first does for the test
GRACE = 30.0  # seconds from SIGTERM to the end of a process that is not the first, which writes a checkpoint
LOST = "another process of this training has ended, or cannot be reached: start them all again with --resume auto"
Hosts = tuple[str, int, int]
"""Address of the first process with a port, number of processes, number of this process from 0."""


class _State:
    active = finished = lost = ending = False
    meetings = 0


def count() -> int:
    """Give the number of processes that train together."""
    return importlib.import_module("jax").process_count() if _State.active else 1


def index() -> int:
    """Give the number of this process; 0 is the one that logs and writes."""
    return importlib.import_module("jax").process_index() if _State.active else 0


def start(hosts: Literal["auto"] | Hosts) -> None:
    """Join the processes that train together; call it before any computation.

    Args:
        hosts: `auto` asks Slurm, Kubernetes, Open MPI or a TPU's environment, as `jax.distributed.initialize` does.

    Raises:
        InvalidInput: Keras does not compute with JAX.
        Unavailable: the other processes were not there in time.
    """
    if keras.backend.backend() != "jax":
        raise InvalidInput(
            f"hosts is given, but Keras computes with {keras.backend.backend()}, and several hosts train with JAX "
            "alone: set KERAS_BACKEND to jax"
        )
    if _State.active:
        return
    jax = importlib.import_module("jax")
    _hold_native_output()
    where: dict[str, Any] = {"local_device_ids": [] if _has_own_devices(os.environ) else None}
    if hosts != "auto":
        where = dict(zip(("coordinator_address", "num_processes", "process_id"), hosts, strict=True))
        where["cluster_detection_method"] = "deactivate"
        if _is_loopback(hosts[0].rpartition(":")[0].strip("[]")):  # else on all of this host's addresses
            where["coordinator_bind_address"] = hosts[0]
    missing = f"hosts: the processes did not find each other within {START_SECONDS} s"
    timer = threading.Timer(START_SECONDS, _end, [f"error: {missing}"])  # JAX would abort
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(**where, initialization_timeout=START_SECONDS + 60)
    except (RuntimeError, ValueError) as error:
        if hosts == "auto" and isinstance(error, ValueError):
            missing = (
                "hosts: neither Slurm, Kubernetes, Open MPI nor a TPU was found: start it by srun or mpirun, or give "
                "coordinator:port,count,index"
            )
        raise Unavailable(f"{missing} ({first_line(error)})") from error
    finally:
        timer.cancel()
    _State.active = True
    atexit.register(_leave)
    if index():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # the first process speaks for all
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end_later)
    for line in _connect():
        threading.Thread(target=_watch, args=(line,), name="hosts", daemon=True).start()


def _has_own_devices(environment: Mapping[str, str]) -> bool:
    """Whether no other process computes with the devices that this one sees; else JAX gives each process one of them.

    >>> _has_own_devices({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"})
    True
    """
    if "JAX_LOCAL_DEVICE_IDS" in environment:  # JAX takes those
        return False
    if local := environment.get("OMPI_COMM_WORLD_LOCAL_SIZE"):  # within a Slurm job too
        return local == "1"
    if environment.get("SLURM_STEP_NUM_TASKS") == environment.get("SLURM_STEP_NUM_NODES"):
        return True
    seen = environment.get("CUDA_VISIBLE_DEVICES", "").count(",") + 1
    return seen < int(environment.get("SLURM_GPUS_ON_NODE", 0))  # by `--gpus-per-task`


def _end(line: str) -> None:
    """End this process from another thread than the main one, which may be held up in JAX."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    os._exit(1)


def _hold_native_output() -> None:
    """Send what C++ code prints to a file: a process that ends makes JAX in the others print a stack, and abort.

    Aborting is put off for some seconds, so that this process can say what has happened and end by itself.
    """
    with tempfile.TemporaryFile() as file:
        for number, name in ((1, "stdout"), (2, "stderr")):
            stream = getattr(sys, name)
            stream.flush()
            own = os.fdopen(os.dup(number), "w", buffering=1, encoding=stream.encoding, errors=stream.errors)
            setattr(sys, name, own)
            os.dup2(file.fileno(), number)
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal(int(signal.SIGABRT), ctypes.cast(libc.sleep, ctypes.c_void_p))  # called with the signal's number, 6


def _client() -> Any:
    return _joined().client


def _joined() -> Any:
    return importlib.import_module("jax._src.distributed").global_state  # there is no public way to it


def _connect() -> list[socket.socket]:
    """Connect each process with the first, for nothing but to notice its end: the system closes what it had open.

    JAX's own client does not return once another process has ended.
    """
    host = _joined().coordinator_address.rpartition(":")[0].strip("[]")
    if index():
        port, token = _client().blocking_key_value_get("tlkit/watch", 1000 * START_SECONDS).split()
        line = socket.create_connection((host, int(port)), START_SECONDS)
        line.sendall(token.encode())
        return [_kept_alive(line)]
    lines: list[socket.socket] = []
    token = secrets.token_hex(16)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host if _is_loopback(host) else "", 0), family=family) as server:
        _client().key_value_set("tlkit/watch", f"{server.getsockname()[1]} {token}")
        server.settimeout(START_SECONDS)
        while len(lines) < count() - 1:
            line, _ = server.accept()
            line.settimeout(10)
            with contextlib.suppress(OSError):
                if secrets.compare_digest(line.recv(len(token), socket.MSG_WAITALL), token.encode()):
                    lines.append(_kept_alive(line))
                    continue
            line.close()
    return lines


def _is_loopback(host: str) -> bool:
    return host in ("127.0.0.1", "localhost", "::1")


def _kept_alive(line: socket.socket) -> socket.socket:
    """Have the system ask whether the other side is there, which a host without power cannot say."""
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", SECONDS // 2), ("TCP_KEEPINTVL", SECONDS // 6), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return line


def _watch(line: socket.socket) -> None:
    """End this process when another has ended, unless the main thread does so by itself."""
    with contextlib.suppress(OSError):
        line.recv(1)
    if _State.finished:
        return
    _State.lost = True
    time.sleep(3)
    if _State.ending:
        time.sleep(SECONDS)
    _end(f"error: {LOST}")


def is_lost(error: BaseException) -> bool:
    """Whether an error of JAX means that another process has ended."""
    words = ("Gloo", "NCCL", "coordination service", "Connection", "UNAVAILABLE")
    _State.ending = _State.active and (_State.lost or any(word in str(error) for word in words))
    return _State.ending


def share_bytes(data: bytes = b"") -> bytes:
    """Give all processes the bytes of the first."""
    if count() == 1:
        return data
    size = share_arrays([np.array([len(data)], np.int32)])[0][0]
    padded = np.zeros(int(size), np.uint8)
    if index() == 0:
        padded[:] = np.frombuffer(data, np.uint8)
    return share_arrays([padded])[0].tobytes() if size else b""


def share(value: Any = None) -> Any:
    """Give all processes the value of the first, which JSON can hold."""
    return value if count() == 1 else json.loads(share_bytes(json.dumps(value).encode()))


def share_arrays(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Give all processes the arrays of the first; in all they have the same shapes."""
    if count() == 1:
        return list(arrays)
    _wait()
    utilities = importlib.import_module("jax.experimental.multihost_utils")
    return list(map(np.asarray, utilities.broadcast_one_to_all(list(arrays))))


def _wait() -> None:
    """Wait for the other processes, as collectives do for a short time only."""
    _State.meetings += 1
    _client().wait_at_barrier(f"tlkit/{_State.meetings}", 1000 * WAIT_SECONDS)


def finish() -> None:
    """Say that all is done; the other processes wait for the first."""
    if _State.active:
        _wait()
        _State.finished = True


def _end_later(*_: object) -> None:
    timer = threading.Timer(GRACE, os._exit, [130])
    timer.daemon = True
    timer.start()


def _leave() -> None:
    """End at once if not all is done: JAX would wait for the others."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if not _State.finished:
        os._exit(1)
    importlib.import_module("jax").distributed.shutdown()
