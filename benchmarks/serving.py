"""How many requests `tlkit serve` answers, and how fast, beside `mlflow models serve` on the same model.

    python benchmarks/serving.py                                   # 50 clients for 60 s, in turns
    python benchmarks/serving.py --seconds 15 --photos flowers/val

Both servers run as they are started by hand, with MobileNet 0.25 and random weights. Each client keeps its connection
and asks about one photo after the other: as a JPEG of `tlkit serve`, in JSON with base64 of MLflow, which takes nothing
else. The ways take turns, so that load from outside falls on both; the clients use the same processor. An answer that
is not 200, or another label than the other server's, ends the benchmark. `one client` is the median when nobody else
asks.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import psutil
from PIL import Image
from serving_hostile import server as mlflow_server

CLASSES = list("abcde")


class Way(NamedTuple):
    """A server, how it is asked, and how its answer is read."""

    port: int
    process: psutil.Process
    path: str
    content_type: str
    body: Callable[[bytes], bytes]
    label: Callable[[Any], str]


def in_json(photo: bytes) -> bytes:
    """Make MLflow's request."""
    return json.dumps(
        {"dataframe_split": {"columns": ["image"], "data": [[base64.b64encode(photo).decode()]]}}
    ).encode()


@contextlib.contextmanager
def tlkit_server(model: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Start `tlkit serve`; its address, and its process."""
    command = [sys.executable, "-m", "tlkit.recipes.serve", str(model), "--port", "8766"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # noqa: S603
    try:
        while not (line := process.stdout.readline()).startswith("page"):
            if not line:
                raise SystemExit("tlkit serve did not start")
        yield line.split()[1], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def ask(connection: http.client.HTTPConnection, way: Way, body: bytes) -> str:
    """Ask about a photo, and give its label."""
    connection.request("POST", way.path, body, {"Content-Type": way.content_type})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{way.path}: {answer.status} {content[:300].decode()}")
    return way.label(json.loads(content))


def load(way: Way, photos: list[bytes], labels: list[str], clients: int, seconds: float) -> list[float]:
    """Have clients ask until the time is up; the seconds of each answer."""
    lasted: list[float] = []
    lost: list[str] = []
    end = time.monotonic() + seconds
    bodies = [way.body(photo) for photo in photos]

    def client(number: int) -> None:
        try:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", way.port, timeout=60)) as connection:
                while time.monotonic() < end:
                    number = (number + 1) % len(photos)
                    began = time.monotonic()
                    label = ask(connection, way, bodies[number])
                    lasted.append(time.monotonic() - began)
                    if labels and label != labels[number]:
                        lost.append(f"{label} in place of {labels[number]}")
        except (OSError, http.client.HTTPException, SystemExit) as error:
            lost.append(str(error) or type(error).__name__)

    threads = [threading.Thread(target=client, args=[number]) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if lost:
        raise SystemExit(f"{len(lost)} answers were lost or wrong, such as: {lost[0]}")
    return lasted


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="of load on each server, in all rounds together")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photos", help="a folder of JPEGs; by default 40 of 320 x 240 pixels are made")
    asked = parser.parse_args()
    if asked.photos:
        photos = [path.read_bytes() for path in sorted(Path(asked.photos).rglob("*.jpg"))[:200]]
    else:
        photos = [made(seed) for seed in range(40)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        save(path)
        with mlflow_server(path) as (address, process), tlkit_server(path / "data" / "model.keras") as (ours, mine):
            ways = {
                "tlkit serve": Way(
                    urlsplit(ours).port, mine, "/predict", "image/jpeg", bytes, lambda a: a["predictions"][0]["label"]
                ),
                "mlflow models serve": Way(
                    urlsplit(address).port,
                    process,
                    "/invocations",
                    "application/json",
                    in_json,
                    lambda a: a["predictions"][0]["label"],
                ),
            }
            measure(ways, photos, asked)


def measure(ways: dict[str, Way], photos: list[bytes], asked: argparse.Namespace) -> None:
    """Ask both in turns, and print what came."""
    labels: list[str] = []
    for way in ways.values():
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", way.port, timeout=60)) as connection:
            answers = [ask(connection, way, way.body(photo)) for photo in photos]
        if labels and answers != labels:
            raise SystemExit("the two servers give different labels")
        labels = answers
    alone = {name: load(way, photos, labels, 1, 2) for name, way in ways.items()}
    lasted: dict[str, list[float]] = {name: [] for name in ways}
    peaks = dict.fromkeys(ways, 0)
    for turn in range(asked.rounds):
        for name in sorted(ways, reverse=bool(turn % 2)):
            lasted[name] += load(ways[name], photos, labels, asked.clients, asked.seconds / asked.rounds)
            peaks[name] = max(peaks[name], ways[name].process.memory_info().rss)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{asked.clients} clients, {asked.seconds:g} s each in {asked.rounds} rounds, {cores} cores")
    print("| server | answers | a second | median ms | 99th ms | one client ms | memory MB |")
    print("|---|---|---|---|---|---|---|")
    for name, seconds in lasted.items():
        median, last = 1000 * np.percentile(seconds, [50, 99])
        rate, single = len(seconds) / asked.seconds, 1000 * np.median(alone[name])
        print(
            f"| {name} | {len(seconds):,} | {rate:,.0f} | {median:.0f} | {last:.0f} | {single:.1f} | "
            f"{peaks[name] / 1e6:,.0f} |"
        )


def save(path: Path) -> None:
    """Write the model."""
    import keras

    from tlkit import backbones, serving

    keras.utils.set_random_seed(0)
    network = backbones.build("MobileNet", (224, 224, 3), weights="none", alpha=0.25)
    model = backbones.classifier(network, len(CLASSES))
    head = model.layers[-1]
    head.set_weights([np.random.default_rng(0).normal(0, 9, weight.shape) for weight in head.get_weights()])
    serving.save_model(path, model, CLASSES, kind="photos", requirements=["keras"])


def made(seed: int) -> bytes:
    """A photo of colored clouds."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((320, 240)).save(file, "JPEG", quality=90)
    return file.getvalue()


if __name__ == "__main__":
    main()
