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
from typing import IO, TYPE_CHECKING, Any

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
    """Start the server, print links to the runs and stay until Ctrl-C; where a server runs already, only the links."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd()}/mlflow.db"
    server = f"http://{HOST}:{config.port}"
    if uri.startswith(("http:", "https:")):
        print_links(without_password(uri).rstrip("/"), *_find(config))
        return
    _check_store(uri)
    if not _is_free(config.port):
        experiment_id, last = _find(config)
        if not (last and _serves(server, last)):
            raise Unavailable(
                f"port {config.port} is taken, and not by an MLflow server of this store; free is "
                f"--port {_free_port(config.port)}"
            )
        say(f"a server of this store runs already, on {server}")
        print_links(server, experiment_id, last)
        return
    say("starting the MLflow server; this takes some seconds", error=True)
    with tempfile.TemporaryFile() as log, _started(uri, config.port, log) as process:
        found = _find(config)  # while it starts
        _wait(process, server, log)
        print_links(server, *found)
        say("\nCtrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):
            process.wait()
            raise Unavailable(f"the MLflow server ended: {_last_line(log)}")


def print_links(server: str, experiment_id: str | None, last: tracking.Run | None) -> None:
    """Print where in the UI the experiment's runs, the newest one and the last finished ones beside each other are."""
    from tlkit import tracking

    if not (experiment_id and last):
        say(f"no runs yet; the experiments:\n  {server}/#/experiments?{_links.MODE}")
        return
    links = {
        "all runs": _links.runs_link(server, experiment_id),
        "their charts": _links.chart_link(server, experiment_id),
        "the newest run": _links.run_link(server, last),
    }
    finished = tracking.recent_runs(experiment_id, 4)
    if len(finished) > 1:
        links[f"the last {len(finished)} finished, compared"] = _links.compare_link(server, finished, experiment_id)
    say("\n".join(f"{name}:\n  {link}" for name, link in links.items()))


def _check_store(uri: str) -> None:
    """Refuse what no server can be started for, before MLflow is loaded or makes an empty store."""
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

        tracking.open_store()  # says so


def _find(config: Ui) -> tuple[str | None, tracking.Run | None]:
    """Find the experiment to show, and its newest run."""
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
        newest = client.search_runs(ids, order_by=["attributes.start_time DESC"], max_results=1) if ids else []
    except tracking.STORE_ERRORS as error:
        raise Unavailable(f"cannot read the MLflow store: {first_line(error)}") from error
    if not newest:
        return None, None
    info = untrusted.answered(newest[0]).info
    return info.experiment_id, tracking.Run(info.run_id, info.experiment_id)


def _is_free(port: int) -> bool:
    try:
        with socket.create_server((HOST, port)):
            return True
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise Unavailable(f"cannot use port {port}: {error.strerror}; give another, such as --port 5000") from error


def _free_port(taken: int) -> int:
    """Find a free port, one of the next if there is one, so that it is easy to type."""
    for port in range(taken + 1, min(taken + 20, 65536)):
        with contextlib.suppress(Unavailable):
            if _is_free(port):
                return port
    with socket.create_server((HOST, 0)) as free:
        return free.getsockname()[1]


def _serves(server: str, last: tracking.Run) -> bool:
    """Whether what listens there is an MLflow server that has this run."""
    return _answers(f"{server}/api/2.0/mlflow/runs/get?run_id={last.run_id}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 (http)
            return answer.status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False


@contextlib.contextmanager
def _started(uri: str, port: int, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Start the server, and end it and its worker with the block, also where the terminal is closed."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--no-serve-artifacts"]
    # MLflow 3.17 answers after 5 s with these settings, after 13 to 23 s with its own: 4 workers and a job runner.
    command += ["--workers", "1", "--uvicorn-opts", "--no-access-log"]
    # The URI by the environment, as it may hold a password and others can read command lines.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_BACKEND_STORE_URI": uri}
    hung_up: Any = signal.signal(signal.SIGHUP, signal.default_int_handler) if hasattr(signal, "SIGHUP") else None
    process = subprocess.Popen(  # noqa: S603
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,  # so that Ctrl-C comes here only, and all of it can be ended
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
            if hung_up is not None:
                signal.signal(signal.SIGHUP, hung_up)


def _wait(process: subprocess.Popen[bytes], server: str, log: IO[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while not _answers(f"{server}/health"):
        if process.poll() is not None:
            raise Unavailable(f"the MLflow server did not start: {_last_line(log)}")
        if time.monotonic() > until:
            raise Unavailable(f"the MLflow server did not answer within {START_SECONDS} s: {_last_line(log)}")
        time.sleep(0.05)


def _last_line(log: IO[bytes]) -> str:
    """Give the last line that tells of an error, else the last line."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "exception" in line.lower()]
    return without_password((errors or lines or ["it says nothing"])[-1])


if __name__ == "__main__":
    cli.main(Ui, run)
