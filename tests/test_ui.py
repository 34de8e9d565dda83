"""The recipe that opens MLflow's UI: a real server, its links, its end, and what wrong use gets."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from servers import free_port, processes_of

from tlkit import cli, config
from tlkit.errors import Unavailable
from tlkit.recipes import ui


def finished_runs(count: int) -> list[str]:
    """Make finished runs in the experiment `digits`, and give their ids."""
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("digits")
    runs = [client.create_run(experiment, start_time=1000 + index).info.run_id for index in range(count)]
    for run in runs:
        client.set_terminated(run)
    return runs


@pytest.fixture
def port() -> int:
    return free_port()


def start(port: int) -> subprocess.Popen[str]:
    """The command, as far as its last line."""
    command = [sys.executable, "-m", "tlkit.recipes.ui", "--port", str(port)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            return "".join(lines)
    raise AssertionError(process.stderr.read())


def children(pid: int) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        if path.read_text(encoding="utf-8").rpartition(")")[2].split()[1] == str(pid):
            yield int(path.parent.name)


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=120) as answer:  # noqa: S310 (http, on loopback)
        return answer.read()


def call(*argv: str) -> int:
    return cli.call(config.Ui, ui.run, argv)


@pytest.mark.slow
def test_the_ui_starts_links_and_ends_with_its_server(
    folder: Path, port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    runs = finished_runs(5)
    process = start(port)
    try:
        out = said(process)
        (server,) = children(process.pid)
        links = re.findall(r"http://\S+", out)
        assert len(links) == 4
        for link in links:
            assert b"<title>MLflow</title>" in get(link)
        found = re.findall(r"[0-9a-f]{32}", urllib.parse.unquote(out))
        assert found == [runs[4], *reversed(runs[1:])]  # the newest run, then the last four
        for run_id in found:
            assert b"FINISHED" in get(f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/get?run_id={run_id}")
        assert len(processes_of(server)) >= 2  # mlflow and its worker

        assert call("--port", str(port)) == 0  # it runs already: the same links
        again = capsys.readouterr().out
        assert again.startswith(f"a server of this store is already running on http://127.0.0.1:{port}\n")
        assert re.findall(r"http://\S+", again)[1:] == links
        with monkeypatch.context() as other:
            other.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
            assert call() == 0  # a team's server: nothing to start
        assert re.findall(r"http://\S+", capsys.readouterr().out) == links

        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
        assert process.stderr.read().splitlines() == ["starting the MLflow server; this takes some seconds"]
        assert not processes_of(server)
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.slow
def test_a_closed_terminal_ends_the_server_too(folder: Path, port: int):
    process = start(port)
    try:
        assert f"http://127.0.0.1:{port}/#/experiments?" in said(process)  # there are no runs
        (server,) = children(process.pid)
        process.send_signal(signal.SIGHUP)
        assert process.wait(120) == 0
        assert not processes_of(server)
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_without_a_store_it_says_so_and_makes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    for uri in (None, f"sqlite:///{tmp_path}/mlflow.db"):
        if uri:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        else:
            monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert call() == cli.USAGE
        assert capsys.readouterr().err.startswith(f"ui: error: there is no MLflow store {tmp_path}/mlflow.db; ")
    assert not list(tmp_path.iterdir())


def test_a_taken_port_is_named_with_a_free_one(folder: Path, capsys: pytest.CaptureFixture[str]):
    finished_runs(1)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        assert call("--port", str(taken)) == cli.FAILURE
        err = capsys.readouterr().err
        assert re.fullmatch(rf"ui: error: port {taken} is taken, and not by .*; a free one is --port \d+\n", err)
        with socket.create_server(("127.0.0.1", int(err.split()[-1]))):
            pass


@pytest.mark.parametrize(
    ("uri", "status", "message"),
    [
        ("./mlruns", cli.USAGE, r"MLFLOW_TRACKING_URI is './mlruns'; it must be a database such as .*, or a server"),
        ("me:secret//x@y", cli.USAGE, r"MLFLOW_TRACKING_URI is 'me:secret//y'"),
        ("http://me:secret@127.0.0.1:9", cli.FAILURE, r"the MLflow server http://127\.0\.0\.1:9 does not answer: "),
    ],
)
def test_what_is_no_store_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys, uri: str, status: int, message: str
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert call() == status
    assert re.match(f"ui: error: {message}", capsys.readouterr().err)


def test_an_unknown_experiment_is_named_with_those_there_are(folder: Path, port: int, capsys):
    finished_runs(1)
    with pytest.raises(ui.InvalidInput, match="there is no MLflow experiment 'letters'; the store has Default, digits"):
        ui._newest_run(config.Ui(experiment="letters"))


def test_the_experiment_is_the_environments_else_the_given_else_that_of_the_newest_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    (run,) = finished_runs(1)
    client = mlflow.MlflowClient()
    newer = client.create_run(client.create_experiment("letters"), start_time=5000).info
    assert ui._newest_run(config.Ui()) == (newer.run_id, newer.experiment_id)
    last = ui._newest_run(config.Ui(experiment="digits"))
    assert last == (run, client.get_run(run).info.experiment_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "letters")
    assert ui._newest_run(config.Ui(experiment="digits")).run_id == newer.run_id


def test_a_server_that_dies_at_its_start_has_the_last_word():
    code = "print('fine'); raise OSError('no room on postgresql://me:secret@db/mlflow')"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log, env=dict(os.environ))
        with pytest.raises(Unavailable) as caught:
            ui._wait(process, "http://127.0.0.1:9", log)
    assert str(caught.value) == "the MLflow server did not start: OSError: no room on postgresql://db/mlflow"
