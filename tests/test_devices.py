"""Several devices and hosts give what one gives, whatever the batch; files and checkpoints know nothing of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from servers import free_port

from tlkit import config, training
from tlkit.data import Photos, plan
from tlkit.errors import InvalidInput
from tlkit.recipes import _training_decisions
from tlkit.training import devices, hosts

HERE = Path(__file__).parent
BACKEND = keras.backend.backend()
SEVERAL: dict[str, Any] = {"global_clipnorm": 0.5, "ema_momentum": 0.9, "balanced": True}
trains_on_several = pytest.mark.skipif(BACKEND not in devices.BACKENDS, reason=f"Keras cannot with {BACKEND}")
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="several hosts train with JAX")


@pytest.fixture(scope="module")
def photos() -> Photos:
    rng = np.random.default_rng(0)
    return Photos.of(rng.integers(0, 255, (23, 6, 6, 1)).astype(np.uint8), np.arange(23) % 3)


def trained(count: int, folder: Path, *settings: dict[str, Any]) -> dict[str, Any]:
    """Train on one and on `count` virtual devices in a process of its own, and give the largest differences."""
    command = [sys.executable, str(HERE / "several_devices.py"), str(count), str(folder), json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


@pytest.mark.thorough
@trains_on_several
def test_two_devices_learn_what_one_does_and_leave_a_file_of_one(tmp_path: Path):
    result = trained(2, tmp_path, SEVERAL)
    for differences in (*result["several"], result["resumed"]):
        assert max(differences.values()) < 1e-4
    plain = keras.models.load_model(tmp_path / "model.keras")
    outputs = plain.predict(np.load(tmp_path / "pixels.npy"), verbose=0)
    np.testing.assert_allclose(outputs, np.load(tmp_path / "outputs.npy"), atol=1e-6)


@pytest.mark.slow
@trains_on_several
@pytest.mark.parametrize("count", [2, 4] if BACKEND == "jax" else [2, 3])
def test_settings_of_a_phase_on_several_devices(count: int, tmp_path: Path):
    settings: list[dict[str, Any]] = [
        {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.1, "label_smoothing": 0.1},
        {"batch_size": 7},
        {"batch_size": 100},
        SEVERAL,
    ]
    if BACKEND == "jax":
        settings += [{"remat": True}, {"gradient_accumulation_steps": 2}]
    result = trained(count, tmp_path, *settings)
    for differences in (*result["several"], result["resumed"]):
        assert max(differences.values()) < 1e-4


@pytest.mark.parametrize("augment", [{"shift": 0.2}, {"shift": 0.2, "mixup": 0.4}])
@pytest.mark.parametrize("balanced", [False, True])
def test_rows_are_those_of_the_whole_batch(photos: Photos, augment: dict[str, float], balanced: bool):
    whole = plan.Plan(photos, 8, True, 1, augment, photos.labels, classes=3, balanced=balanced)
    positions = [6, 7, 0, 0]
    part = whole._replace(rows=lambda count: np.array(positions) % count)
    for step, indices in enumerate(whole.order(2)):
        images, labels = whole.parts(2, indices, step)
        rows, targets, weights = part.parts(2, indices, step)
        places = np.array(positions) % len(indices)
        np.testing.assert_array_equal(rows, images[places])
        np.testing.assert_array_equal(targets, labels[places])
        assert weights.sum() == pytest.approx(len(indices))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_every_example_is_read_and_a_number_of_rows_says_how_many_there_are(count: int, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for batch_size in (1, 4, 6, 7):
        padded = [devices.Devices(("cpu:0",) * count).padded(size, batch_size) for size in range(1, batch_size + 1)]
        full = padded[-1]
        assert full not in padded[:-1]
        for size in range(1, batch_size + 1):
            parts = [
                devices.Devices(("cpu:0",) * count, count, process).rows(batch_size)(size) for process in range(count)
            ]
            assert len({len(part) for part in parts}) == 1
            rows = np.concatenate(parts)
            np.testing.assert_array_equal(rows[:size], np.arange(size))  # what is left out again is the rest
            assert set(rows.tolist()) == set(range(size))


@pytest.mark.parametrize(
    ("backend", "asked", "message"),
    [
        ("torch", 2, r"devices is 2, but Keras trains on several devices with PyTorch from 3.16 on, .* Keras 3"),
        ("numpy", 2, "Keras' backend numpy does not train"),
        (BACKEND, 0, "devices is 0: 1 or more"),
    ],
)
def test_devices_that_cannot_be_had(backend: str, asked: int, message: str, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    assert devices.find(1) is None
    with pytest.raises(InvalidInput, match=message):
        devices.find(asked)


@trains_on_several
def test_more_devices_than_there_are():
    with pytest.raises(InvalidInput, match=rf"devices is 77, but {BACKEND} has 1 here \(\w+:0\): give 1"):
        devices.find(77)
    assert devices.find("auto") is None


def test_what_several_devices_of_tensorflow_cannot_do(monkeypatch):
    two = devices.Devices(("cpu:0", "cpu:1"))
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    devices.check(two, 1)
    devices.check(None, 2)
    for refused in ((2, False), (1, True)):
        with pytest.raises(InvalidInput, match=r"(steps is 2|remat is true), which does not work on several devices"):
            devices.check(two, *refused)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    devices.check(two, 2, True)


def test_a_batch_is_rounded_up_to_a_multiple_of_the_devices(monkeypatch):
    monkeypatch.setattr(devices, "find", lambda asked: devices.Devices(("gpu:0", "gpu:1", "gpu:2")))
    (decision,) = _training_decisions._divisible(config.Train(batch_size=32))
    assert decision[:3] == ("batch_size", 33, "rounded up from 32 to a multiple of 3 devices")
    assert _training_decisions._divisible(config.Train(batch_size=33)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("two", "auto, or COORDINATOR:PORT,COUNT,INDEX"),
        ("10.0.0.1,2,0", "auto, or COORDINATOR:PORT,COUNT,INDEX"),
        ("10.0.0.1:0,2,0", "auto, or COORDINATOR:PORT,COUNT,INDEX"),
        ("10.0.0.1:65536,2,0", "auto, or COORDINATOR:PORT,COUNT,INDEX"),
        ("a b:80,2,0", "auto, or COORDINATOR:PORT,COUNT,INDEX"),
        ("host:80,1,0", "COUNT must be 2 or more"),
        ("host:80,2,2", "INDEX must be from 0 to 1"),
    ],
)
def test_hosts_that_cannot_be(text: str, message: str):
    with pytest.raises(InvalidInput, match=f"hosts is '{text}'; .*{message}"):
        config.Finetune(hosts=text)


@pytest.mark.parametrize("text", ["auto", "10.0.0.1:8476,16,3", "node-1.cluster:8476,2,0", "[::1]:8476,2,1"])
def test_hosts_that_can_be(text: str):
    assert config.Train(hosts=text).hosts == text


@pytest.mark.skipif(BACKEND == "jax", reason="JAX trains on several hosts")
def test_hosts_need_jax():
    with pytest.raises(InvalidInput, match="several hosts train with JAX alone"):
        hosts.start("auto")


def test_one_process_shares_with_nobody():
    assert (hosts.count(), hosts.index(), hosts.share({"a": 1}), hosts.share_bytes(b"b")) == (1, 0, {"a": 1}, b"b")
    hosts.finish()


# Two processes on loopback, as two hosts would be.


def start(folder: Path, *words: str) -> list[subprocess.Popen[str]]:
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "NPROC": "16"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    where = f"127.0.0.1:{free_port()},2"
    command = [sys.executable, "-m", "tlkit.recipes.train", "--builder.name", "cnn", "--full.epochs", "6"]
    command += ["--full.learning_rate", "1e-3", "--builder.norm", "false"]
    return [
        subprocess.Popen(
            [*command, *words, "--hosts", f"{where},{index}"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]


def ended(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.callback(process.kill)
        outputs = [process.communicate(timeout=600) for process in processes]
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def weights(folder: Path) -> list[np.ndarray]:
    (file,) = folder.glob("mlruns/*/models/*/artifacts/data/model.keras")
    return keras.models.load_model(file).get_weights()


@pytest.mark.slow
@on_jax
@pytest.mark.parametrize("victim", [0, 1])
def test_two_processes_of_which_one_is_killed_go_on_as_if_nothing_had_happened(victim: int, tmp_path: Path):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    undisturbed.mkdir()
    disturbed.mkdir()
    first, second = ended(start(undisturbed))
    assert first[0] == 0, first[2]
    assert second == (0, "", "")  # the first speaks for both
    assert "devices: 2, on each of 2 hosts" in first[1]

    processes = start(disturbed)
    deadline = time.monotonic() + 300
    while not list(disturbed.glob("mlruns/checkpoints/*/full.npz")):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes), ended(processes)
        time.sleep(0.05)
    processes[victim].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    status, _, errors = ended(processes)[1 - victim]
    assert time.monotonic() - killed < hosts.SECONDS + 30
    assert status == 1
    lines = [line for line in errors.splitlines() if line and "creating" not in line]
    assert "error: another process of this training has ended" in lines[-1]
    assert len(lines) <= 1 + (victim == 1), errors  # the first may also say how to resume

    first, second = ended(start(disturbed, "--resume", "auto"))
    assert first[0] == 0, first[2]
    assert "resuming run" in first[1]
    assert second == (0, "", "")
    for one, other in zip(weights(undisturbed), weights(disturbed), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_library_takes_devices(photos: Photos):
    x = keras.layers.Dense(3, name="head")(keras.layers.Flatten()(keras.Input((6, 6, 1))))
    model = keras.Model(keras.utils.get_source_inputs(x), x)
    with pytest.raises(InvalidInput, match="devices is 9"):
        training.fit_full(model, photos, photos, training.Settings(1, 0.1), devices=9)
