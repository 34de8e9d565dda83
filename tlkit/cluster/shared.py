"""A value that each worker of a cluster is sent once, and the calls of functions with it."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tlkit import cores
from tlkit.errors import Unavailable

if TYPE_CHECKING:
    from tlkit.cluster import Cluster


def send(cluster: Cluster, shared: Any) -> str:
    """Send a value to all workers, and to those that will join, in place of the one before; return its name."""
    digest = hashlib.sha256(pickle.dumps(shared)).hexdigest()
    name = f"tlkit-{cluster.client.id}-{digest[:32]}"
    if name != cluster.shared:
        forget(cluster)
        cluster.client.register_plugin(_plugin(name, shared), name=name)
        cluster.shared = name
    return name


def forget(cluster: Cluster) -> None:
    """Have workers forget what they were sent last."""
    if cluster.shared:
        cluster.client.unregister_worker_plugin(cluster.shared)
        cluster.shared = ""


def begin(cluster: Cluster, first: Callable[[], None]) -> None:
    """Have each worker, also those that will join, call a function in a thread of its own."""
    from distributed import WorkerPlugin

    class First(WorkerPlugin):
        def setup(self, worker: Any) -> None:
            threading.Thread(target=_try, args=(pickled, worker), daemon=True).start()

    pickled = pickle.dumps(first)
    with contextlib.suppress(Exception):  # the first chunk meets the same, and says it
        cluster.client.register_plugin(First(), name=_first(cluster))


def _first(cluster: Cluster) -> str:
    return f"tlkit-first-{cluster.client.id}"


def end(cluster: Cluster) -> None:
    """Have workers forget everything of this client."""
    with contextlib.suppress(Exception):
        forget(cluster)
    with contextlib.suppress(Exception):  # there may be none
        cluster.client.unregister_worker_plugin(_first(cluster))


def _plugin(name: str, shared: Any) -> Any:
    """What Dask sends to each worker, and to each that joins later."""
    from distributed import WorkerPlugin

    class Shared(WorkerPlugin):
        def setup(self, worker: Any) -> None:
            _receive(name, shared)

        def teardown(self, worker: Any) -> None:
            _drop(name)  # and not here: Dask sends this class with a copy of the variables that it names

    return Shared()


# What follows runs on workers.

_values: dict[str, Any] = {}
_arrived = threading.Condition()


def _receive(name: str, shared: Any) -> None:
    with _arrived:
        _values[name] = shared
        _arrived.notify_all()


def _try(pickled: bytes, worker: Any) -> None:
    _share_cores(worker)
    with contextlib.suppress(Exception):  # as above
        pickle.loads(pickled)()  # noqa: S301  as in `call`


def _share_cores(worker: Any) -> None:
    if not cores.limited():
        cores.limit(worker.state.nthreads)


def _drop(name: str) -> None:
    _values.pop(name, None)


def call(name: str, pickled: bytes) -> Any:
    """Call a function on a worker with what was shared under a name, and a chunk.

    Args:
        name: Of what was shared.
        pickled: The function and the chunk.
    """
    from distributed import get_worker

    worker = get_worker()
    with _arrived:
        _share_cores(worker)
        if not _arrived.wait_for(lambda: name in _values, timeout=60):
            raise Unavailable(f"worker {worker.address.rpartition('/')[2]} was not sent what its task needs")
        shared = _values[name]
    function, chunk = pickle.loads(pickled)  # noqa: S301  as Dask itself does with all that its client sends
    return function(shared, chunk)
