"""Clusters: workers compute what one process computes, bit by bit, and nothing is lost with one of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import write_photos
from PIL import Image

from tlkit import cli, cluster
from tlkit.config import FeatureExtraction, Features, Predict
from tlkit.errors import InvalidInput
from tlkit.features.store import Store
from tlkit.recipes import feature_extraction

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


def test_workers_compute_graphs_of_openvino_without_keras(done: dict[str, Any]):
    assert done["with keras"] == [False, False]


def test_the_store_is_whole_and_holds_nothing_twice(done: dict[str, Any]):
    count, *problems = done["usage of shared"]
    assert problems == [0, 0]
    assert done["usage of own"] == [count, 0, 0]


def test_workers_open_files_as_this_process_does_and_keep_no_values(done: dict[str, Any]):
    assert done["loaded"] == [True, True, 1]
    assert done["kept"]


@pytest.mark.parametrize("where", ["disk", "url", "client"])
def test_workers_open_members_of_tar_files_or_are_sent_them(done: dict[str, Any], where: str):
    assert done["shards"][where]


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


def extracted(*argv: str) -> int:
    words = ["--data.source", "embedded", "--features.engine", "openvino", *argv]
    return cli.call(FeatureExtraction, feature_extraction.run, words)


def usage(store: Path) -> tuple[int, int, int]:
    (usage,) = Store(store).usage(verify=True)
    return usage.activations, usage.duplicates, len(usage.damaged)


@pytest.mark.thorough
def test_shards_one_after_the_other_are_the_whole(tmp_path: Path, capsys: pytest.CaptureFixture):
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    for number in range(1, 4):
        assert extracted("--features.store", str(parts), "--shard", f"{number}/3") == 0
    said = capsys.readouterr().out
    assert "part 3 of 3: 599 of 1,797 photos" in said
    assert "Next, when all 3 parts are there:" in said
    assert extracted("--features.store", str(whole), "--shard", "1/1") == 0
    assert usage(parts) == usage(whole) == (1797, 0, 0)
    assert values(parts) == values(whole)


def values(store: Path) -> dict[bytes, bytes]:
    """All activations of a store by their keys."""
    (usage,) = Store(store).usage()
    space = Store(store).space(usage.description).refresh()
    return {key: space.segments[part].values[row].tobytes() for key, (part, row) in space.places.items()}


@pytest.mark.slow
def test_sixteen_shards_one_after_the_other_and_four_at_once(tmp_path: Path):
    words = [sys.executable, "-m", "tlkit.recipes.feature_extraction", "--data.source", "embedded"]
    words += ["--features.engine", "openvino", "--features.store"]
    for first in range(1, 17, 4):
        commands = [[*words, "parts", "--shard", f"{number}/16"] for number in range(first, first + 4)]
        running = [subprocess.Popen(command, cwd=tmp_path) for command in commands]
        assert [process.wait(300) for process in running] == [0] * 4
    subprocess.run([*words, "whole", "--shard", "1/1"], cwd=tmp_path, check=True, timeout=300)
    # With the backend that the commands choose: OpenVINO's copy of a network of TensorFlow's rounds differently.
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_cluster as t; "
    code += "sys.exit(any(t.extracted('--features.store', 'serial', '--shard', f'{n}/16') for n in range(1, 17)))"
    environment = {**os.environ, "KERAS_BACKEND": "openvino"}
    serial = [sys.executable, "-c", code, str(Path(__file__).parent)]
    subprocess.run(serial, cwd=tmp_path, env=environment, check=True, timeout=600)
    for parts in ("parts", "serial"):
        assert usage(tmp_path / parts) == usage(tmp_path / "whole") == (1797, 0, 0)
        assert values(tmp_path / parts) == values(tmp_path / "whole")


def test_shards_do_not_wait_for_one_another_and_others_wait_for_them(tmp_path: Path):
    space = Store(tmp_path).space({"shape": [1], "dtype": "float32"})
    again = Store(tmp_path).space({"shape": [1], "dtype": "float32"})
    with space.shared() as ours, again.shared() as theirs:
        assert ours
        assert theirs
        with Store(tmp_path).space({"shape": [1], "dtype": "float32"}).turn(0.1) as turn:
            assert not turn
    with space.turn(0.1) as ours, again.shared() as theirs:
        assert ours
        assert not theirs


@pytest.mark.parametrize("shard", ["0/4", "5/4", "4", "1/x", "-1/4", "1/²"])
def test_what_is_no_shard_is_refused(shard: str):
    with pytest.raises(InvalidInput, match="it must be a part and the number of parts, such as 3/16"):
        FeatureExtraction(shard=shard)


def test_shards_need_a_store_with_room(tmp_path: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(InvalidInput, match="needs a store"):
        FeatureExtraction(shard="1/4", features=Features(store="none"))
    limit = ("--features.store", str(tmp_path), "--features.limit", "0.0001")
    assert extracted(*limit, "--shard", "1/4") == 1
    assert "the features of all 1,797 photos need" in capsys.readouterr().err


def test_a_part_does_not_say_which_value_is_white(tmp_path: Path, capsys: pytest.CaptureFixture):
    write_photos(tmp_path / "photos", {"green": 2, "red": 2})
    Image.fromarray(np.full((40, 40), 4095, np.uint16)).save(tmp_path / "photos/red/deep.png")
    words = ("--data.path", str(tmp_path / "photos"), "--backbone.name", "LetterNet", "--shard", "1/1")
    assert cli.call(FeatureExtraction, feature_extraction.run, words) == 2
    assert "give --data.white" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_worker_costs_no_more_than_its_chunks(tmp_path: Path):
    """One of two workers is killed by SIGKILL; another takes its place, and the store is that of one process."""
    write_photos(tmp_path / "photos", {"green": 1500, "red": 1500}, side=96)
    words = [sys.executable, "-m", "tlkit.recipes.feature_extraction", "--data.path", "photos", "--backbone.name"]
    words += ["MobileNetV2", "--backbone.weights", str(tmp_path / "random.weights.h5"), "--data.image_size", "96"]
    words += ["--features.engine", "openvino", "--shard", "1/1", "--features.store"]
    code = "import keras, sys; from tlkit import backbones as b; "
    code += "b.build('MobileNetV2', (96, 96, 3), 'none').save_weights(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "random.weights.h5")], check=True, timeout=300)
    with (tmp_path / "log.txt").open("wb") as out:
        process = subprocess.Popen([*words, "cluster", "--cluster", "local:2"], cwd=tmp_path, stderr=out)
    log = ""
    while "features (openvino):" not in log:
        assert process.poll() is None, log
        time.sleep(0.2)
        log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    workers = [each for each in psutil.Process(process.pid).children() if "spawn_main" in " ".join(each.cmdline())]
    workers[0].send_signal(signal.SIGKILL)
    assert process.wait(600) == 0
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "a worker left" in log
    assert "a worker joined" in log
    subprocess.run([*words, "one"], cwd=tmp_path, check=True, timeout=600)
    assert usage(tmp_path / "cluster") == usage(tmp_path / "one") == (3000, 0, 0)
    assert values(tmp_path / "cluster") == values(tmp_path / "one")
