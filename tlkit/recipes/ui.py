"""Open the runs in MLflow's UI: start its server for the store of this folder, and print where to look.

python -m tlkit.recipes.ui --port 5001
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tlkit import cli, untrusted
from tlkit.config import Ui
from tlkit.display import say
from tlkit.errors import InvalidInput, Unavailable, first_line, without_password
from tlkit.recipes import _links

if TYPE_CHECKING:
    from tlkit import tracking

HOST = "127.0.0.1"
START_SECONDS, END_SECONDS = 120, 5


def run(config: Ui) -> None:
    """Start the server, print links to the runs and stay until Ctrl-C; if a server is running already, only the links.

    Raises:
        InvalidInput: the store's address is wrong, or there is no such experiment.
        Unavailable: the store cannot be read, the port is taken, or the server does not start.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd()}/mlflow.db"
    server = f"http://{HOST}:{config.port}"
    if uri.startswith(("http:", "https:")):
        print_links(without_password(uri).rstrip("/"), _newest_run(config))
        return
    _check_store(uri)
    if not _is_free(config.port):
        newest = _newest_run(config)
        if not (newest and _serves(server, newest)):
            raise Unavailable(
                f"port {config.port} is taken, and not by an MLflow server of this store; a free one is "
                f"--port {_free_port(config.port)}"
            )
        say(f"a server of this store is already running on {server}")
        print_links(server, newest)
        return
    say("starting the MLflow server; this takes some seconds", error=True)
    with tempfile.TemporaryFile() as log, _server(uri, config.port, log) as process:
        newest = _newest_run(config)  # while the server starts
        _wait(process, server, log)
        print_links(server, newest)
        say("\nCtrl-C stops it")
        with contextlib.suppress(KeyboardInterrupt):
            process.wait()
            raise Unavailable(f"the MLflow server ended: {_last_line(log)}")


def print_links(server: str, newest: tracking.Run | None) -> None:
    """Print links to an experiment's runs, to its newest run, and to the last finished ones side by side.

    Args:
        server: Address of the MLflow server.
        newest: The newest run of the experiment; None if there are no runs.
    """
    from tlkit import tracking

    if newest is None:
        say(f"no runs yet; the experiments:\n  {server}/#/experiments?{_links.MODE}")
        return
    experiment_id = newest.experiment_id
    links = {
        "all runs": _links.runs_link(server, experiment_id),
        "their charts": _links.chart_link(server, experiment_id),
        "the newest run": _links.run_link(server, newest),
    }
    finished = tracking.recent_runs(experiment_id, 4)
    if len(finished) > 1:
        links[f"the last {len(finished)} finished, compared"] = _links.compare_link(server, finished, experiment_id)
    say("\n".join(f"{name}:\n  {link}" for name, link in links.items()))


def _check_store(uri: str) -> None:
    """Refuse a store that no server can be started for, before MLflow is imported or creates an empty store."""
    import sqlalchemy

    try:
        url = sqlalchemy.make_url(uri)
    except sqlalchemy.exc.ArgumentError as error:
        raise InvalidInput(
            f"MLFLOW_TRACKING_URI is {without_password(uri)!r}; it must be a database such as "
            "sqlite:////home/me/mlflow.db, or a server, https://..."
        ) from error
    if url.get_backend_name() == "sqlite" and not os.path.exists(url.database or ""):
        from tlkit import tracking

        tracking.open_store()  # raises the error that says so


def _newest_run(config: Ui) -> tracking.Run | None:
    """Find the newest run of the experiment to show, or of all; None if there is none."""
    import mlflow
    from mlflow.entities import ViewType

    from tlkit import tracking

    tracking.open_store()
    client = mlflow.MlflowClient()
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or config.experiment
    try:
        experiments = client.search_experiments(ViewType.ACTIVE_ONLY)
        names = [experiment.name for experiment in experiments]
        if name and name not in names:
            raise InvalidInput(f"there is no MLflow experiment {name!r}; the store has {', '.join(sorted(names))}")
        ids = [experiment.experiment_id for experiment in experiments if name in (None, "", experiment.name)]
        newest = client.search_runs(ids, order_by=["attributes.start_time DESC"], max_results=50) if ids else []
    except tracking.STORE_ERRORS as error:
        raise Unavailable(f"cannot read the MLflow store: {first_line(error)}") from error
    if not newest:
        return None
    shown = [run for run in newest if name or run.data.tags.get("recipe") != "compare"]  # these lie in one of their own
    info = untrusted.answered((shown or newest)[0]).info
    return tracking.Run(info.run_id, info.experiment_id)


def _is_free(port: int) -> bool:
    try:
        with socket.create_server((HOST, port)):
            return True
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise Unavailable(f"cannot use port {port}: {error.strerror}; give another, such as --port 5000") from error


def _free_port(taken: int) -> int:
    """Find a free port, if possible just above the one that is taken, as that is easy to type."""
    for port in range(taken + 1, min(taken + 20, 65536)):
        with contextlib.suppress(Unavailable):
            if _is_free(port):
                return port
    with socket.create_server((HOST, 0)) as server:
        free: int = server.getsockname()[1]
        return free


def _serves(server: str, run: tracking.Run) -> bool:
    """Whether an MLflow server that has this run is listening there."""
    return _answers(f"{server}/api/2.0/mlflow/runs/get?run_id={run.run_id}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 (http)
            ok: bool = response.status == http.HTTPStatus.OK
            return ok
    except (OSError, http.client.HTTPException):
        return False


@contextlib.contextmanager
def _server(uri: str, port: int, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server during the block; it and its worker end with it, even if the terminal is closed.

    Args:
        uri: The store that it serves.
        port: Where it listens.
        log: File for its output.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--no-serve-artifacts"]
    # MLflow 3.17 answers after 5 s with these settings, after 13 to 23 s with its own: 4 workers and a job runner.
    command += ["--workers", "1", "--uvicorn-opts", "--no-access-log"]
    # The URI is passed in the environment, because it may hold a password and others can read command lines.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_BACKEND_STORE_URI": uri}
    has_hangup = hasattr(signal, "SIGHUP")  # not on Windows
    hangup_handler = signal.signal(signal.SIGHUP, signal.default_int_handler) if has_hangup else None
    process = subprocess.Popen(  # noqa: S603
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C reaches this process alone, and the server can be ended with its worker
    )
    try:
        yield process
    finally:
        try:
            process.terminate()
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if hangup_handler is not None:
                signal.signal(signal.SIGHUP, hangup_handler)


def _wait(process: subprocess.Popen[bytes], server: str, log: IO[bytes]) -> None:
    """Wait until the server answers.

    Raises:
        Unavailable: it ends, or does not answer in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while not _answers(f"{server}/health"):
        if process.poll() is not None:
            raise Unavailable(f"the MLflow server did not start: {_last_line(log)}")
        if time.monotonic() > deadline:
            raise Unavailable(f"the MLflow server did not answer within {START_SECONDS} s: {_last_line(log)}")
        time.sleep(0.05)


def _last_line(log: IO[bytes]) -> str:
    """Give the last line about an error, else the last line."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "exception" in line.lower()]
    return without_password((errors or lines or ["it printed nothing"])[-1])


if __name__ == "__main__":
    cli.main(Ui, run)
