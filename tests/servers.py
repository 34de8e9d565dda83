"""Real servers for tests: PostgreSQL, and `mlflow server` on any store, with passwords or without.

Nothing here is a stand-in. What cannot be started on this machine skips the test that asks for it, with the reason.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

START_SECONDS = 120  # two cores that do other things too


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A new PostgreSQL with an empty database `mlflow`, as a SQLAlchemy URI; its log goes to `folder`.

    It listens on loopback and wants its password; nothing is synced to the disk, so it is fast and not durable.
    """
    initdb, server = (_postgres_program(name) for name in ("initdb", "postgres"))
    if importlib.util.find_spec("psycopg2") is None:
        pytest.skip("psycopg2 is not installed: pip install psycopg2-binary")
    who = _postgres_user()
    password, port = secrets.token_hex(8), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    # Not in `folder`: pytest closes its folders to all but their owner, and PostgreSQL may have to be another.
    with tempfile.TemporaryDirectory(prefix="postgres-") as home, (folder / "postgres.log").open("ab") as log:
        given = Path(home) / "password"
        given.write_text(password, encoding="utf-8")
        for path in (home, given) if who else ():
            os.chown(path, who["user"], who["group"])
        initialize = [initdb, "-D", f"{home}/data", "-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={given}"]
        initialize += ["-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run(initialize, cwd=home, stdout=log, stderr=log, check=True, **who)
        settings = ["-F", "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        command = [server, "-D", f"{home}/data", *settings]
        process = subprocess.Popen(command, cwd=home, stdout=log, stderr=log, start_new_session=True, **who)
        try:
            _create_database(port, password, process, folder / "postgres.log")
            yield f"postgresql+psycopg2://mlflow:{password}@127.0.0.1:{port}/mlflow"
        finally:
            process.send_signal(signal.SIGINT)  # a fast shutdown, which takes its children along
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            _kill_group(process)


def _postgres_program(name: str) -> str:
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: path.parts[-3].zfill(4))
    found = shutil.which(name) or (str(versions[-1]) if versions else None)
    if found is None:
        pytest.skip(f"there is no PostgreSQL here: no {name} on PATH or in /usr/lib/postgresql")
    return found


def _postgres_user() -> dict[str, Any]:
    """Whom PostgreSQL runs as, for `subprocess`: another than root, as whom it refuses to run."""
    if os.name != "posix":
        pytest.skip("the tests start PostgreSQL on POSIX systems only")
    if os.geteuid() != 0:
        return {}
    import pwd

    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")


def _create_database(port: int, password: str, process: subprocess.Popen, log: Path) -> None:
    import psycopg2

    until = time.monotonic() + START_SECONDS
    while True:
        try:
            connection = psycopg2.connect(
                host="127.0.0.1", port=port, user="mlflow", password=password, dbname="postgres", connect_timeout=5
            )
            break
        except psycopg2.OperationalError as error:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text(encoding='utf-8')[-2000:]}") from error
            time.sleep(0.05)
    with contextlib.closing(connection):
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE mlflow")


class User(NamedTuple):
    """Who may log in."""

    name: str
    password: str


class Server:
    """An `mlflow server` that can be killed, halted and started again on the same port and store."""

    def __init__(self, folder: Path, backend_uri: str, port: int, user: User | None) -> None:
        self.uri = f"http://127.0.0.1:{port}"
        self.user = user
        self.log = folder / "server.log"
        self.artifacts = folder / "artifacts"
        self._command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        self._command += ["--workers", "1", "--backend-store-uri", backend_uri]
        self._command += ["--serve-artifacts", "--artifacts-destination", str(self.artifacts)]
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        self._environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        if user:
            self._command += ["--app-name", "basic-auth"]
            self._environment |= _auth_settings(folder, user)
        self._folder = folder
        self._process: subprocess.Popen | None = None

    @property
    def uri_with_password(self) -> str:
        """With user and password inside, as some have it in MLFLOW_TRACKING_URI."""
        if self.user is None:
            raise ValueError("this server has no users")
        return self.uri.replace("://", f"://{self.user.name}:{self.user.password}@")

    def start(self) -> None:
        """Start it, the first time or again, and wait until it answers."""
        if self._process is not None:
            raise RuntimeError("it runs")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + START_SECONDS
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError(f"the MLflow server did not start: {self.log.read_text(encoding='utf-8')[-3000:]}")
            time.sleep(0.1)

    def answers(self) -> bool:
        """Whether it says within a second that it is well."""
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1):  # noqa: S310 (http, on loopback)
                return True
        except (OSError, http.client.HTTPException):
            return False

    def kill(self) -> None:
        """End it and its workers at once, with SIGKILL."""
        if self._process is not None:
            _kill_group(self._process)
            self._process = None

    def stop(self) -> None:
        """Halt it: it takes connections and does not answer."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("it does not run")
        os.killpg(self._process.pid, number)


def _auth_settings(folder: Path, user: User) -> dict[str, str]:
    if importlib.util.find_spec("flask_wtf") is None:
        pytest.skip("MLflow's basic authentication needs Flask-WTF: pip install 'mlflow[auth]'")
    config = folder / "basic_auth.ini"
    config.write_text(
        "[mlflow]\n"
        "default_permission = READ\n"
        f"database_uri = sqlite:///{folder}/basic_auth.db\n"
        f"admin_username = {user.name}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
        encoding="utf-8",
    )
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_AUTH_ADMIN_PASSWORD": user.password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),  # the same after a restart
    }


@contextlib.contextmanager
def mlflow_server(
    folder: Path, backend_uri: str | None = None, *, port: int | None = None, auth: bool = False
) -> Iterator[Server]:
    """A real `mlflow server` with one worker, artifacts proxied into `folder`, that answers when the block begins.

    Args:
        folder: For its artifacts, its log `server.log` and, unless another is given, its store.
        backend_uri: Its store; by default a new SQLite file in the folder.
        port: On loopback; by default a free one.
        auth: Ask for the password of its only user, an administrator; `Server.user` has both.
    """
    folder.mkdir(parents=True, exist_ok=True)
    user = User("admin", secrets.token_hex(12)) if auth else None
    server = Server(folder, backend_uri or f"sqlite:///{folder}/mlflow.db", port or free_port(), user)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _kill_group(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def processes_of(pid: int) -> list[str]:
    """The command lines of the processes in this session or group, from Linux' /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, group, session = (path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:4]
            if str(pid) in (group, session) and state != "Z":
                found.append((path / "cmdline").read_text(encoding="utf-8").replace("\0", " "))
    return found


@pytest.fixture(scope="session")
def postgres_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL for all tests of the session."""
    with postgres(tmp_path_factory.mktemp("postgres")) as uri:
        yield uri


@pytest.fixture(scope="session")
def team_server(tmp_path_factory: pytest.TempPathFactory, postgres_uri: str) -> Iterator[Server]:
    """An `mlflow server` on PostgreSQL for all tests of the session that do not hurt it."""
    with mlflow_server(tmp_path_factory.mktemp("team"), postgres_uri) as server:
        yield server


@contextlib.contextmanager
def hostile(run_id: str = "0" * 32, experiment_id: str = "0", artifact_uri: str = "") -> Iterator[str]:
    """A tracking server that answers with the identifiers given, whatever is asked, as its URI."""
    experiment = {"experiment_id": experiment_id, "name": "tlkit", "lifecycle_stage": "active"}
    about = {"run_id": run_id, "run_uuid": run_id, "run_name": "a run", "experiment_id": experiment_id}
    about |= {"status": "RUNNING", "lifecycle_stage": "active", "artifact_uri": artifact_uri, "start_time": 1}
    run = {"info": about, "data": {}, "inputs": {}, "outputs": {}}
    model = {"info": {"model_id": run_id, "experiment_id": experiment_id, "name": "model", "status": 1}}
    answers = {"health": "OK", "get-by-name": {"experiment": experiment}, "create": {"run": run}, "get": {"run": run}}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            answer = answers.get(path.rpartition("/")[2], {})
            if "experiments/" in path:
                answer = {"experiment": experiment, "experiment_id": experiment_id, "experiments": [experiment]}
            elif "logged-models" in path:
                answer = {"model": model, "models": [model]}
            body = json.dumps({"runs": [run], **answer} if isinstance(answer, dict) else answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
