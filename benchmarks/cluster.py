"""Extraction on a local Dask cluster beside one process on the same cores, also when a worker dies.

    python benchmarks/cluster.py FOLDER [--photos 20000] [--rounds 1]

FOLDER gets the photos, the stores and the logs. The cluster is two nodes with two workers each, in processes of their
own, over TLS on loopback; it is started anew for each run, and its start is part of the time. In the last run a worker
is killed by SIGKILL and another node joins on the way. The weights are random: they cost the same time. `cores` is the
processor time of all processes for a second; where other programs compete, compare `cpu`, that for all photos.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

SIDE = 96
CALM = {
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.worker.memory.monitor-interval": "5s",
    "distributed.worker.profile.enabled": False,
}
"""Dask's settings with which an idle process takes 0.4 % of a core, in place of 2 %."""
NETWORK = ("--backbone.name", "MobileNetV2", "--backbone.weights", "{weights}", "--data.image_size", str(SIDE))


def make_photos(folder: Path, count: int) -> None:
    """Write small JPEGs of four classes, 2.3 kB each."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"class{number % 4}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, quality=88)


def make_weights(path: Path) -> None:
    """Save random weights, the same for all runs."""
    code = "import sys, keras; keras.utils.set_random_seed(0); from tlkit import backbones as b; "
    code += f"b.build('MobileNetV2', ({SIDE}, {SIDE}, 3), 'none').save_weights(sys.argv[1])"
    environment = os.environ | {"KERAS_BACKEND": "openvino"}
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, env=environment)  # noqa: S603


def certificates(folder: Path) -> dict[str, str]:
    """Make one key and certificate for all, and return the environment that names them."""
    from distributed import Security

    security = Security.temporary()
    key, certificate = folder / "dask.key", folder / "dask.pem"
    key.touch(0o600)
    key.write_text(security.tls_client_key, encoding="ascii")
    certificate.write_text(security.tls_client_cert, encoding="ascii")
    environment = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(certificate)}
    for name, value in CALM.items():
        environment["DASK_" + name.upper().replace(".", "__").replace("-", "_")] = str(value)
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        environment[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] = str(certificate)
        environment[f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY"] = str(key)
    return environment


def start(words: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a Python module."""
    with log.open("ab") as out:
        command = [sys.executable, "-m", *words]
        return subprocess.Popen(command, env=environment, stdout=out, stderr=out, cwd=log.parent)  # noqa: S603


def node(address: str, environment: dict[str, str], log: Path, workers: int = 2) -> subprocess.Popen[bytes]:
    """Start a node of workers with one thread each."""
    words = ["worker", address, "--host", "127.0.0.1", "--nworkers", str(workers), "--nthreads", "1", "--no-dashboard"]
    words += ["--dashboard-address", "127.0.0.1:0", "--memory-limit", "0", "--local-directory", tempfile.gettempdir()]
    return start(["dask", *words], environment, log)


@contextlib.contextmanager
def cluster(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Start a scheduler and two nodes with two workers each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, log = f"tls://127.0.0.1:{port}", folder / "dask.log"
    words = ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--protocol", "tls", "--no-dashboard"]
    words += ["--dashboard-address", "127.0.0.1:0"]
    running = [start(["dask", *words], environment, log), *(node(address, environment, log) for _ in range(2))]
    try:
        yield address
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(60)


def extract(folder: Path, name: str, environment: dict[str, str], *more: str, disturb: bool = False) -> dict[str, Any]:
    """Run the command, and measure it: seconds, its memory, and what it says of the cluster."""
    store, log = folder / name, folder / f"{name}.log"
    shutil.rmtree(store, ignore_errors=True)
    words = [word.format(weights=folder / "random.weights.h5") for word in NETWORK]
    words += ["--data.path", str(folder / "photos"), "--features.store", str(store), "--features.engine", "openvino"]
    began, memory, joined = time.perf_counter(), list[float](), None
    log.unlink(missing_ok=True)
    client = start(["tlkit.recipes.feature_extraction", *words, "--shard", "1/1", *more], environment, log)
    while client.poll() is None:
        time.sleep(0.5)
        with contextlib.suppress(psutil.Error):
            memory.append(psutil.Process(client.pid).memory_info().rss / 2**20)
        done = [
            int(each.replace(",", ""))
            for each in re.findall(r"features .*?: ([\d,]+) of", log.read_text(encoding="utf-8"))
        ]
        if disturb and joined is None and done and done[-1] > 2000:
            kill_a_worker()
            joined = node(more[1], environment, folder / "dask.log", 1)
    if joined:
        joined.terminate()
        joined.wait(60)
    text = log.read_text(encoding="utf-8")
    if client.returncode:
        raise SystemExit(text)
    again = sum(int(each) for each in re.findall(r"others take its (\d+) chunks", text))
    news = re.findall(r"a worker (?:joined|left)[^\n]*", text)
    return {"run": name, "seconds": time.perf_counter() - began, "memory": memory, "again": again, "news": news}


def kill_a_worker() -> None:
    """Kill a process that computes, of the first node."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "worker" in words and "--nworkers" in words and (children := process.children()):
            workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
            workers[0].send_signal(signal.SIGKILL)
            return
    raise SystemExit("no worker to kill")


def features(store: Path) -> dict[bytes, bytes]:
    """Read all features of a store by their keys."""
    from tlkit.features.store import Store

    (usage,) = Store(store).usage(verify=True)
    if usage.damaged or usage.duplicates:
        raise SystemExit(f"{store}: {len(usage.damaged)} damaged files, {usage.duplicates} duplicates")
    values: dict[bytes, bytes] = {}
    space = Store(store).space(usage.description).refresh()
    for key, (part, row) in space.places.items():
        values[key] = space.segments[part].values[row].tobytes()
    return values


def main() -> None:
    """Measure and print a line of JSON for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "photos").exists():
        make_photos(folder / "photos", arguments.photos)
    make_weights(folder / "random.weights.h5")
    environment = os.environ | certificates(folder) | {"KERAS_BACKEND": "openvino"}

    expected = None
    for run in ["one", "cluster"] * arguments.rounds + ["disturbed"]:
        cpu, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        if run == "one":
            result = extract(folder, run, environment)
        else:
            with cluster(folder, environment) as address:
                result = extract(folder, run, environment, "--cluster", address, disturb=run == "disturbed")
                seconds = time.perf_counter() - began  # with the cluster's start, and not with its end
            result["seconds"] = seconds
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        result["cpu"] = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
        result["cores"] = result["cpu"] / result["seconds"]
        found = features(folder / run)
        expected = expected or found
        result["photos"], result["equal"] = len(found), found == expected
        memory = [size for size in result["memory"] if size]  # 0 when it has ended
        result["memory"] = [round(memory[int(share * (len(memory) - 1))]) for share in (0.25, 0.5, 0.75, 1)]
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
