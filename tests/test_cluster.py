"""Clusters: workers compute what one process computes, bit by bit, and nothing is lost with one of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import write_photos

from tlkit import cluster
from tlkit.config import FeatureExtraction, Predict
from tlkit.errors import InvalidInput

COUNT = 120


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process with two workers has done."""
    pytest.importorskip("distributed")
    folder = tmp_path_factory.mktemp("cluster")
    write_photos(folder / "photos", {"green": COUNT // 2, "red": COUNT // 2})
    (folder / "photos/red/broken.png").write_bytes(b"no photo")
    environment = {**os.environ, "XDG_STATE_HOME": str(folder), "TLKIT_CACHE": str(folder / "cache")}
    command = [sys.executable, str(Path(__file__).with_name("cluster_client.py")), str(folder)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("where", ["written", "sent", "memory", "found"])
def test_features_are_those_of_one_process_bit_by_bit(done: dict[str, Any], where: str):
    assert done[where]


def test_the_store_is_whole_and_holds_nothing_twice(done: dict[str, Any]):
    count, *problems = done["usage of shared"]
    assert problems == [0, 0]
    assert done["usage of own"] == [count, 0, 0]


def test_workers_open_files_as_this_process_does_and_keep_no_values(done: dict[str, Any]):
    assert done["loaded"] == [True, True, 1]
    assert done["kept"]


def test_answers_come_in_order_and_are_those_of_one_process(done: dict[str, Any]):
    assert len(done["answers"]) == COUNT + 1
    assert all(done["answers"])
    assert done["equal"]
    assert done["unread"] == 1


def test_a_local_cluster_is_encrypted_and_on_loopback_alone_and_ends_with_its_client(done: dict[str, Any]):
    assert done["scheme"] == "tls"
    assert done["open"] == ["127.0.0.1"]
    assert done["left"] <= 1  # multiprocessing's resource tracker


def test_a_photo_is_sent_without_the_others(done: dict[str, Any]):
    assert done["pickled"] < 2 * 32 * 32 + 2000


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("tcp://10.0.0.5:8786", "tcp is not encrypted"),
        ("local:0", "1 worker or more"),
        ("local:x", "local:WORKERS or tls://host:port"),
        ("tls://host", "tls://host:port"),
        ("tls://user@host:1", "tls://host:port"),
    ],
)
def test_what_is_no_cluster_is_refused(address: str, allowed: str):
    for make in (lambda: FeatureExtraction(cluster=address), lambda: Predict("m", ["p"], cluster=address)):
        with pytest.raises(InvalidInput, match=f"cluster is '{address}'; .*{allowed}"):
            make()


def test_without_dask_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"pip install 'tlkit\[dask\]'"):
        cluster.connect("local:2")


def test_without_certificates_nothing_is_joined():
    pytest.importorskip("distributed")
    with pytest.raises(InvalidInput, match="DASK_DISTRIBUTED__COMM__TLS__CA_FILE"):
        cluster.connect("tls://127.0.0.1:9")
