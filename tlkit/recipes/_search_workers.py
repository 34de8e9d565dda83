"""The worker processes of a search, on this machine: for its own chief, or for one on another machine."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tlkit import untrusted
from tlkit.config import Tune
from tlkit.display import say
from tlkit.errors import InvalidInput, Unavailable
from tlkit.recipes import _clusters, _links, _search, _search_cluster

if TYPE_CHECKING:
    from tlkit import tuning

LOCAL = "127.0.0.1"
DEATHS = 3  # workers that die in a row end this process


class Address(NamedTuple):
    """This process's role in a search, and the chief's address.

    Args:
        name: Name of this process.
        host: Address at which the chief listens; empty if nothing says so, and it is this process.
        port: Its port; 0 for a free one.
    """

    name: str
    host: str
    port: int

    @property
    def is_worker(self) -> bool:
        """Whether this process works for a chief elsewhere, and is not the chief itself."""
        return "chief" not in self.name


def address(config: Tune) -> Address:
    """Read keras-tuner's environment variables.

    Raises:
        InvalidInput: they contradict each other or the settings.
    """
    host, port = os.environ.get("KERASTUNER_ORACLE_IP", ""), os.environ.get("KERASTUNER_ORACLE_PORT", "0")
    process = Address(os.environ.get("KERASTUNER_TUNER_ID", "chief"), host, int(port) if port.isdigit() else 0)
    if not port.isdigit() or (host and port == "0"):
        raise InvalidInput(f"KERASTUNER_ORACLE_PORT is {port!r}; it must be the number of a port")
    if not host and config.workers == 0:
        raise InvalidInput(
            "workers is 0: KERASTUNER_ORACLE_IP must then say where workers on other machines find the search"
        )
    far = (config.cluster or "").startswith("tls://") and f"//{LOCAL}:" not in str(config.cluster)
    if far and not (host and process.port):
        raise InvalidInput(
            f"cluster is {config.cluster!r}: KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT must say at which address "
            "of this machine its workers find the search; whoever else reaches it can take trials too"
        )
    if process.is_worker and not (host and process.port):
        raise InvalidInput(
            f"KERASTUNER_TUNER_ID is {process.name!r}, a worker: KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT must "
            "say where its chief is"
        )
    return process


def starter(
    config: Tune, folder: Path, host: str, port: int
) -> contextlib.AbstractContextManager[Callable[[str], tuning.Process]]:
    """Make the function that starts a worker's process, on the cluster if there is one, else on this machine.

    Args:
        config: The settings of the search.
        folder: Its folder.
        host: Address at which its chief listens.
        port: The chief's port.

    Returns:
        In a context, a function from the worker's name to its process.
    """
    if workers := _clusters.current():
        return _search_cluster.starting(workers, folder, _chief(host, port))
    return contextlib.nullcontext(local_starter(config, folder, host, port))


def local_starter(config: Tune, folder: Path, host: str, port: int) -> Callable[[str], tuning.Process]:
    """Make the function that starts a worker's process on this machine.

    Args:
        config: The settings of the search.
        folder: Its folder.
        host: Address at which its chief listens.
        port: The chief's port.

    Returns:
        A function from the worker's name to its process.
    """
    from tlkit import tuning

    environment = _environment(config, host, port)
    (folder / _search_cluster.LOGS).mkdir(exist_ok=True)

    def start(name: str) -> tuning.Process:
        return tuning.Process(_search_cluster.process(folder, name, environment), _search_cluster.log_of(folder, name))

    return start


def _environment(config: Tune, host: str, port: int) -> dict[str, str]:
    """Give the environment variables of a worker's process, but for its name."""
    from tlkit import tuning

    environment = dict(os.environ)
    if config.workers > 1:  # else each would take all cores, and they would wait for each other
        share = str(max(1, (os.cpu_count() or 1) // config.workers))
        for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
            environment.setdefault(name, share)
        environment.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # nor all of a GPU's memory
        environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return environment | {tuning.CHIEF: str(os.getpid()), **_chief(host, port)}


def _chief(host: str, port: int) -> dict[str, str]:
    """Give the environment variables that say where the chief and its runs are."""
    import mlflow

    return {
        "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
        "no_grpc_proxy": host,  # the chief is on this machine, or in this network
        "KERASTUNER_ORACLE_IP": LOCAL if host == "0.0.0.0" else host,  # noqa: S104 (compared, not bound)
        "KERASTUNER_ORACLE_PORT": str(port),
    }


def work_elsewhere(config: Tune, folder: Path, chief: Address) -> None:
    """Run workers for a chief on another machine until the search ends.

    Raises:
        Unavailable: the folder is not that of the search, the chief is gone, or workers die.
    """
    if not (folder / "search.yaml").exists():
        raise Unavailable(
            f"{folder} is not the folder of the search: start the chief first, with the same --output on a file "
            "system that both see"
        )
    from tlkit import tuning

    place = f"{chief.host}:{chief.port}"
    say(f"{chief.name} works for the chief at {place}; it writes to {_links.shown(folder / _search_cluster.LOGS)}")
    start = local_starter(config, folder, chief.host, chief.port)
    processes: list[tuning.Process] = []
    deaths, running = 0, max(config.workers, 1)
    try:
        while running or processes:
            for process in [process for process in processes if process.running.poll() is not None]:
                processes.remove(process)
                status = _exit_status(process, folder, place)
                running -= status == 0  # the search has ended: no other worker takes its place
                deaths = 0 if status in (0, tuning.MORE) else deaths + 1
                if deaths == DEATHS:
                    raise Unavailable(f"workers died three times in a row: see {process.log}")
            while len(processes) < running:
                processes.append(start(f"{chief.name}-{uuid.uuid4().hex[:8]}"))
            time.sleep(0.2)
    finally:
        tuning.stop(processes)
    say("the search has ended")


def _exit_status(process: tuning.Process, folder: Path, place: str) -> int:
    """Give the exit status of a worker, 0 too if its chief is gone because the search has ended.

    Raises:
        Unavailable: its chief is gone, and the search has not ended.
    """
    from tlkit import tuning

    status = process.running.returncode or 0
    if status != tuning.GONE:
        return status
    if "best" in untrusted.read_json(_search.state_file(folder)):
        return 0
    raise Unavailable(f"the chief at {place} does not answer any more")
