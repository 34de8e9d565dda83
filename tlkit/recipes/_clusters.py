"""The cluster of a recipe: connected while it runs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

from tlkit import cluster

Params = ParamSpec("Params")
Returned = TypeVar("Returned")

_current: list[cluster.Cluster] = []


def connected(run: Callable[Params, Returned]) -> Callable[Params, Returned]:
    """Connect to the cluster that a recipe's config names, if it names one, while the recipe runs."""

    @functools.wraps(run)
    def connecting(*args: Params.args, **kwargs: Params.kwargs) -> Returned:
        with joined(getattr(args[0], "cluster", None)):
            return run(*args, **kwargs)

    return connecting


@contextlib.contextmanager
def joined(address: str | None) -> Iterator[None]:
    """Connect to a cluster during the block, if there is to be one."""
    if address is None:
        yield
        return
    from tlkit.features import worker

    workers = cluster.connect(address, worker.ready)
    _current.append(workers)
    try:
        yield
    finally:
        _current.remove(workers)
        cluster.close(workers)


def current() -> cluster.Cluster | None:
    """Return the cluster of the recipe that runs, if it has one."""
    return _current[-1] if _current else None
