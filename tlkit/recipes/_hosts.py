"""A recipe in several processes: the first tracks the run, the others get its checkpoints and compare settings."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit import config as configs
from tlkit import untrusted
from tlkit.errors import InvalidInput
from tlkit.recipes import _resume

if TYPE_CHECKING:
    from tlkit import data, tracking
    from tlkit.data import graph
    from tlkit.recipes._jobs import Job

OWN = (*_resume.MOVED, "hosts", "features.store", "features.engine")
"""Settings that may differ between processes; an engine changes features by rounding, and batches come from all."""


@contextlib.contextmanager
def leading(
    job: Job[Any], splits: data.Splits | graph.Graph, context: contextlib.AbstractContextManager[tracking.Run]
) -> Iterator[tracking.Run]:
    """Track the block as a run, and tell the other processes what they need."""
    from tlkit.training import checkpoints, hosts

    with context as run:
        hosts.share(_comparable(job, splits))
        files = sorted((checkpoints.FOLDER / run.run_id).glob("*.npz"))
        hosts.share([file.stem for file in files])
        for file in files:
            hosts.share_bytes(file.read_bytes())
        yield run
    hosts.finish()


@contextlib.contextmanager
def following(job: Job[Any], splits: data.Splits | graph.Graph) -> Iterator[Path]:
    """Give the folder of the checkpoints of the first process, which are only read.

    Raises:
        InvalidInput: this process has other data, or has decided otherwise.
    """
    from tlkit.training import checkpoints, hosts

    mine = _comparable(job, splits)
    for name, value in hosts.share().items():
        if mine.get(name) != value:
            raise InvalidInput(
                f"{name} is {mine.get(name)!r} in process {hosts.index()}, and {value!r} in the first: give all "
                "processes the same data and settings, with numbers in place of auto"
            )
    with tempfile.TemporaryDirectory() as folder:
        for name in hosts.share():
            untrusted.identifier(name.removesuffix(checkpoints.PREVIOUS), "a checkpoint")
            (Path(folder) / f"{name}.npz").write_bytes(hosts.share_bytes())
        yield Path(folder)
    hosts.finish()


def _comparable(job: Job[Any], splits: data.Splits | graph.Graph) -> dict[str, Any]:
    settings = {name: str(value) for name, value in configs.flatten(job.config).items() if name not in OWN}
    return {"the digest of the data": splits.digest, **settings}
