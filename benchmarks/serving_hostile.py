"""How long others wait, and what the server's memory is, while someone sends photos that are made to stop it.

    python benchmarks/serving_hostile.py [--seconds 20] [--attackers 4]

A real `mlflow models serve` with MobileNet 0.25 (random weights) is asked about a photo of 320 x 240 pixels twice a
second, while each attacker sends the same request again as soon as it is answered. Any answer but 200 to a good request
ends it.
"""

from __future__ import annotations

import argparse
import base64
import collections
import contextlib
import io
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

Image.MAX_IMAGE_PIXELS = None


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Write a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def scans(side: int, repeated: int) -> bytes:
    """Make a JPEG whose last scan comes again and again."""
    data = encoded(Image.new("RGB", (side, side), (90, 120, 60)), "JPEG", progressive=True, quality=30)
    last = data.rfind(b"\xff\xda")
    return data[:last] + data[last:-2] * repeated + b"\xff\xd9"


def flat(side: int, mode: str = "RGB") -> Image.Image:
    """Make a photo of one color, which files hold in few bytes."""
    return Image.new("RGB", (side, side), (90, 120, 60)).convert(mode)


ATTACKS = {
    "nothing": lambda: [],
    "progressive, 12,000 x 12,000, last scan 150 times": lambda: [scans(12_000, 150)],
    "progressive, 8,000 x 8,000, 22 scans more": lambda: [scans(8_000, 22)],
    "progressive CMYK, 16,000 x 16,000 (4 MB)": lambda: [
        encoded(flat(16_000, "CMYK"), "JPEG", progressive=True, quality=30)
    ],
    "progressive CMYK, 8,000 x 8,000": lambda: [encoded(flat(8_000, "CMYK"), "JPEG", progressive=True, quality=30)],
    "baseline, 14,000 x 14,000": lambda: [encoded(flat(14_000), "JPEG", quality=30)],
    "PNG with alpha, 8,192 x 8,192": lambda: [encoded(flat(8_192, "RGBA"), "PNG")],
    "WebP, lossless, 4,700 x 4,700": lambda: [encoded(flat(4_700, "RGBA"), "WEBP", lossless=True, method=0)],
    "WebP, lossless, 8,192 x 8,192": lambda: [encoded(flat(8_192, "RGBA"), "WEBP", lossless=True, method=0)],
    "PNG, 2,000 x 2,000": lambda: [encoded(flat(2_000, "RGBA"), "PNG")],
    "16 PNG of 4,000 x 4,000": lambda: [encoded(flat(4_000), "PNG")] * 16,
    "1,000 small PNG": lambda: [encoded(flat(16), "PNG")] * 1_000,
}


@contextlib.contextmanager
def server(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Start a server; its address, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with open(folder.parent / "log", "wb") as log:
        process = subprocess.Popen(  # noqa: S603
            [*command, "--port", str(port), "--host", "127.0.0.1"],
            env=environment,
            stdout=log,
            stderr=log,
            cwd=folder.parent,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/ping", timeout=5).close()  # noqa: S310
                break
            time.sleep(0.2)
        children = psutil.Process(process.pid).children(recursive=True)
        yield address, max(children, key=lambda child: child.memory_info().rss)
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()


def post(address: str, body: bytes) -> tuple[int, bytes]:
    """Ask, and give the status and what was answered."""
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=100) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError as error:
        return 0, str(error).encode()


def body(photos: list[bytes]) -> bytes:
    """Make a request."""
    rows = [[base64.b64encode(photo).decode()] for photo in photos]
    return json.dumps({"dataframe_split": {"columns": ["image"], "data": rows}}).encode()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--attackers", type=int, default=4)
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    from tlkit import backbones, serving

    network = backbones.build("MobileNet", (224, 224, 3), weights="none", alpha=0.25)
    model = backbones.classifier(network, 5)
    rng = np.random.default_rng(0)
    good = body([encoded(Image.fromarray(rng.integers(0, 256, (240, 320, 3), np.uint8)), "JPEG", quality=90)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        serving.save_model(path, model, list("abcde"), kind="photos", requirements=["keras"])
        print("| attack | attackers' answers | good answers: median s | maximum s | server's peak, MB |")
        print("|---|---|---|---|---|", flush=True)
        for name, attack in ATTACKS.items():
            if asked.only not in name:
                continue
            hostile = attack()
            with server(path) as (address, process):
                post(address, good)
                line(name, address, process, good, body(hostile) if hostile else b"", asked)


def line(
    name: str, address: str, process: psutil.Process, good: bytes, hostile: bytes, asked: argparse.Namespace
) -> None:
    """Measure one attack."""
    end, answers, lasted, peak = time.monotonic() + asked.seconds, collections.Counter(), [], 0

    def attack() -> None:
        while time.monotonic() < end:
            answers[post(address, hostile)[0]] += 1

    def watch() -> None:
        nonlocal peak
        while time.monotonic() < end:
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.02)

    attackers = [threading.Thread(target=attack, daemon=True) for _ in range(asked.attackers if hostile else 0)]
    for thread in (*attackers, threading.Thread(target=watch, daemon=True)):
        thread.start()
    time.sleep(0.5)
    while time.monotonic() < end:
        began = time.monotonic()
        status, text = post(address, good)
        if status != 200:
            raise SystemExit(f"a good request was answered {status}: {text.decode()}")
        lasted.append(time.monotonic() - began)
        time.sleep(max(0.0, 0.5 - lasted[-1]))
    given = ", ".join(f"{count} x {status or 'none'}" for status, count in sorted(answers.items())) or "none yet"
    print(f"| {name} | {given} | {statistics.median(lasted):.2f} | {max(lasted):.2f} | {peak / 1e6:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
