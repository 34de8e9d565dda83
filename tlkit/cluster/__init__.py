"""Work on other processes and machines, by Dask distributed; `pip install 'tlkit[dask]'`.

tlkit asks three things of an engine, and nothing else in it imports Dask:

- `connect(address, first)` returns a `Cluster`, started here or joined, whose workers each call `first()` as they come.
- `map_unordered(cluster, function, shared, chunks)` calls `function(shared, chunk)` on workers, and yields each chunk
  with its result as soon as it is there. `shared` reaches each worker once. A few chunks are in flight at a time. What
  a lost worker had in flight is given to others.
- `close(cluster)` ends what `connect` has started, and gives up what is in flight.

Another engine is one more module with these three.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import pickle
import queue
import re
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tlkit import cores
from tlkit.cluster import shared as sending
from tlkit.display import say
from tlkit.errors import InvalidInput, Unavailable, first_line

Shared = TypeVar("Shared")
Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

AHEAD = 2  # chunks in flight for each core of a worker: one that is computed and one that waits
POLL = 1.0  # seconds between two looks at who is there
PATIENCE = 300.0  # seconds to wait while there is no worker
LOOPBACK = "127.0.0.1"
_ADDRESS = re.compile(r"local(?::(\d{1,4}))?|tls://[^\s/@]+:\d{1,5}")


class Cluster:
    """A connection to workers; `connect` makes one.

    Attributes:
        client: Dask's own, for what is not here.
        workers: By the workers' addresses, the chunks in flight on each, when they were last looked at.
    """

    def __init__(self, client: Any, expected: int, local: Any = None):
        self.client, self.local = client, local
        self.expected = expected  # workers that are no news
        self.workers: dict[str, list[str]] = {}
        self.threads = 0
        self.shared = ""  # name of what the workers have
        self.looked, self.seen = 0.0, time.monotonic()  # when we looked, and when there was a worker

    @property
    def status(self) -> str:
        """The number of workers, in words."""
        count = len(self.workers)
        return f"{count} worker{'s' if count != 1 else ''}"


def check(address: str) -> str:
    """Return what is wrong with the address of a cluster, or "".

    >>> check("local:4"), check("tls://10.0.0.5:8786")
    ('', '')
    >>> check("tcp://10.0.0.5:8786")[:46]
    'tcp is not encrypted, and whoever reaches the '
    """
    match = _ADDRESS.fullmatch(address)
    if match:
        return "" if match[1] is None or int(match[1]) else "it must have 1 worker or more"
    if address.startswith("tcp://"):
        return "tcp is not encrypted, and whoever reaches the port runs programs on all workers: give tls://host:port"
    return "it must be local, local:WORKERS or tls://host:port"


def connect(address: str, first: Callable[[], None] | None = None) -> Cluster:
    """Start workers on this machine, or join a cluster that runs.

    Args:
        address: `local` for a worker on each core, `local:WORKERS`, or `tls://host:port` of Dask's scheduler.
        first: What each worker calls while we go on, so that what it imports is there for the first chunk; if it
            fails, nothing is said.

    Raises:
        InvalidInput: Dask is not installed or has no certificates, or the address is not one.
        Unavailable: there is no scheduler at the address.
    """
    if problem := check(address):
        raise InvalidInput(f"cluster is {address!r}; {problem}")
    if importlib.util.find_spec("distributed") is None:
        raise InvalidInput(f"cluster is {address!r}, and Dask is not installed: pip install 'tlkit[dask]'")
    cluster = _join(address) if address.startswith("tls://") else _start(address)
    if first:
        sending.begin(cluster, first)
    return cluster


def _start(address: str) -> Cluster:
    """Start workers on this machine, on loopback with certificates of their own."""
    import dask
    import distributed

    count = int(address.partition(":")[2] or cores.cores())
    dashboard = importlib.util.find_spec("bokeh") is not None
    security = distributed.Security.temporary()
    # Without the dashboard, Dask's pages, which need no password, show nothing to other users of this machine.
    pages: dict[str, Any] = (
        {} if dashboard else {f"distributed.{each}.http.routes": [] for each in ("scheduler", "worker")}
    )
    with dask.config.set(pages):
        local = distributed.LocalCluster(
            n_workers=0,
            threads_per_worker=max(1, cores.cores() // count),
            host=LOOPBACK,
            protocol="tls://",
            security=security,
            dashboard_address=f"{LOOPBACK}:0",
            memory_limit=0,  # the system's own limit counts
            silence_logs=logging.CRITICAL,
        )
        local.scale(count)  # they join while we go on
    client = distributed.Client(local, security=security)
    shown = f"its dashboard is {local.dashboard_link}" if dashboard else "without a dashboard (pip install bokeh)"
    say(f"cluster: {count} worker{'s' if count != 1 else ''} on this machine, {shown}", error=True)
    return Cluster(client, count, local)


def _join(address: str) -> Cluster:
    """Join a cluster that runs; its certificates are those of Dask's own configuration."""
    import distributed

    security: Any = distributed.Security(require_encryption=True)
    if not (security.tls_ca_file and security.tls_client_cert and security.tls_client_key):
        names = ", ".join(f"DASK_DISTRIBUTED__COMM__TLS__{name}" for name in ("CA_FILE", "CLIENT__CERT", "CLIENT__KEY"))
        raise InvalidInput(f"cluster is {address!r}, and Dask has no certificates for it: set {names}")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = distributed.Client(address, security=security, timeout=20)
    except (OSError, TimeoutError, ValueError) as error:  # ValueError: versions that do not fit
        raise Unavailable(f"no scheduler of Dask answers at {address}: {first_line(error)}") from error
    cluster = Cluster(client, len(client.nthreads()))
    look(cluster)
    dashboard = client.dashboard_link if importlib.util.find_spec("bokeh") else ""
    say(f"cluster: {cluster.status} at {address}{dashboard and f', its dashboard is {dashboard}'}", error=True)
    return cluster


def close(cluster: Cluster) -> None:
    """End the workers that `connect` has started; other workers forget what they were sent."""
    sending.end(cluster)
    with contextlib.suppress(Exception):  # a scheduler that is gone
        cluster.client.close(timeout=5)
    if cluster.local is not None:
        with contextlib.suppress(Exception):
            cluster.local.close(timeout=5)


def map_unordered(
    cluster: Cluster,
    function: Callable[[Shared, Chunk], Result],
    shared: Shared,
    chunks: Iterator[Chunk | None],
) -> Iterator[tuple[Chunk, Result]]:
    """Call a function on workers, for each chunk, and yield the chunk and the result.

    Args:
        cluster: The workers.
        function: Of a module that the workers have too.
        shared: Its first argument, which is sent to each worker only once.
        chunks: Its second arguments; None stands for "none until a result was taken".

    Raises:
        Unavailable: there is no worker for minutes, or a chunk was lost with one worker after the other.
    """
    name = sending.send(cluster, shared)
    ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
    waiting: dict[str, tuple[Any, Chunk]] = {}  # by the key of the task
    more = True
    try:
        while more or waiting:
            while more and len(waiting) < max(2, AHEAD * cluster.threads):
                chunk = next(chunks, _END)
                more = chunk is not _END
                if chunk is None or not more:
                    break
                key = f"tlkit-{uuid.uuid4().hex}"
                # As bytes: what is not, the scheduler unpickles too, for which it would import all that a worker does.
                call = pickle.dumps((function, chunk))
                future = cluster.client.submit(sending.call, name, call, key=key, pure=False)
                waiting[key] = (future, chunk)
                future.add_done_callback(ready.put)
            if not waiting:  # the caller has no chunk yet
                time.sleep(0.05)
                continue
            if future := _next(cluster, ready):
                _, chunk = waiting.pop(future.key)
                result = _result(future)
                future.release()
                yield chunk, result
    finally:
        cluster.client.cancel([future for future, _ in waiting.values()])


_END: Any = object()


def _next(cluster: Cluster, ready: queue.SimpleQueue[Any]) -> Any:
    """Wait for a task that has ended; None where nothing did for a moment."""
    look(cluster)
    with contextlib.suppress(queue.Empty):
        return ready.get(timeout=POLL)
    return None


def look(cluster: Cluster) -> None:
    """Look who is there, and say who has come or gone.

    Raises:
        Unavailable: the scheduler is gone, or there was no worker for minutes.
    """
    now = time.monotonic()
    if now - cluster.looked < POLL:
        return
    try:
        workers: dict[str, list[str]] = {name: list(keys) for name, keys in cluster.client.processing().items()}
        cluster.threads = sum(cluster.client.nthreads().values())
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"the scheduler of the cluster does not answer: {first_line(error)}") from error
    before, cluster.workers, cluster.looked = cluster.workers, workers, now
    cluster.seen = now if workers else cluster.seen
    if now - cluster.seen > PATIENCE:
        raise Unavailable(f"the cluster had no worker for {PATIENCE:.0f} s")
    for name in workers.keys() - before.keys():
        cluster.expected -= 1
        if cluster.expected < 0:
            say(f"a worker joined, {_shown(name)}: {cluster.status}", error=True)
    for name, keys in before.items():
        if name not in workers:
            say(f"a worker left, {_shown(name)}: {cluster.status}; others take its {len(keys)} chunks", error=True)


def _shown(worker: str) -> str:
    return worker.rpartition("/")[2]


def _result(future: Any) -> Any:
    """The result of a task that has ended.

    Raises:
        Unavailable: it was lost with several workers.
        Exception: what the function raised.
    """
    import distributed

    try:
        return future.result()
    except distributed.scheduler.KilledWorker as error:
        raise Unavailable(
            f"{error.allowed_failures + 1} workers died at the same chunk, often for lack of memory; the last one was "
            f"{_shown(error.last_worker.address)}"
        ) from error
    except distributed.client.FutureCancelledError as error:
        raise Unavailable(f"the cluster gave up a chunk: {first_line(error)}") from error
