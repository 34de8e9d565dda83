"""`tlkit serve` as a process of its own: under load, among hostile clients, in a browser, and without TensorFlow."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import importlib.util
import io
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
from PIL import Image
from servers import START_SECONDS, free_port
from test_browser import CHROMIUM

from tlkit import labels

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CLASSES = ["ant", "bee", "cow", "dog", "elk", "<b>fox</b>"]
CLIENTS, SECONDS = 50, 10.0


def model(path: Path, seed: int = 0) -> Path:
    import keras

    from tlkit import backbones

    keras.utils.set_random_seed(seed)
    made = backbones.classifier(backbones.build("LetterNet", (28, 28, 3)), len(CLASSES))
    head = made.layers[-1]
    head.set_weights([np.random.default_rng(seed).normal(0, 1, weight.shape) for weight in head.get_weights()])
    made.save(path)
    labels.write(path, CLASSES)
    return path


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo(seed: int, height: int = 240, width: int = 320) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return encoded(Image.fromarray(small).resize((width, height)), "JPEG", quality=90)


class Served(NamedTuple):
    """A server, and what it printed so far."""

    port: int
    process: subprocess.Popen
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def ask(self, body: bytes, content_type: str = "image/jpeg") -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("POST", "/predict", body, {"Content-Type": content_type})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())


@contextlib.contextmanager
def serving(
    name: str, folder: Path, *settings: str, program: tuple[str, ...] = (), **variables: str
) -> Iterator[Served]:
    port, log = free_port(), folder / "serve.log"
    command = [*(program or (sys.executable, "-m", "tlkit.recipes.serve")), name, "--port", str(port), *settings]
    names = ("MLFLOW_TRACKING_URI", "KERAS_BACKEND", *(("PYTHONPATH",) if program else ()))
    environment = {key: value for key, value in os.environ.items() if key not in names} | variables
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=file)
    served = Served(port, process, log)
    try:
        end = time.monotonic() + START_SECONDS
        while "Ctrl-C ends it" not in served.said:
            assert process.poll() is None, served.said
            assert time.monotonic() < end, served.said
            time.sleep(0.1)
        yield served
        assert process.poll() is None, served.said
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("serve") / "model.keras")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_and_the_printed_curl_line_works(number: signal.Signals, file: Path, tmp_path: Path):
    (tmp_path / "photo.jpg").write_bytes(photo(0))
    with serving(str(file), tmp_path) as served:
        line = next(line for line in served.said.splitlines() if line.startswith("ask    curl"))
        asked = subprocess.run(line.split()[1:], cwd=tmp_path, capture_output=True, check=True)
        assert json.loads(asked.stdout)["predictions"][0]["name"] == "photo.jpg"
        served.process.send_signal(number)
        assert served.process.wait(20) == 0
        assert served.said.splitlines()[-1] == "the server has ended; photos answered: 1, and not: 0"
        assert "Traceback" not in served.said
        served.process.poll = lambda: None  # type: ignore[method-assign]


def test_another_address_says_what_that_means(file: Path, tmp_path: Path):
    with serving(str(file), tmp_path, "--host", "0.0.0.0") as served:  # noqa: S104
        (line,) = [line for line in served.said.splitlines() if line.startswith("anyone")]
        assert line == (
            f"anyone who reaches http://0.0.0.0:{served.port} can use it: there is no authentication and no TLS; put a "
            "proxy in front that has both"
        )
        assert f"page   http://127.0.0.1:{served.port}/" in served.said


def test_fifty_clients_lose_nothing_while_others_are_killed(file: Path, tmp_path: Path):
    photos = [photo(seed) for seed in range(CLIENTS)]
    with serving(str(file), tmp_path) as served:
        wanted = [served.ask(content) for content in photos]
        assert len({json.dumps(answer) for _, answer in wanted}) > CLIENTS // 2
        end, counts, seconds = time.monotonic() + SECONDS, Counter(), []

        def client(number: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
            with contextlib.closing(connection):
                while time.monotonic() < end:
                    began = time.monotonic()
                    connection.request("POST", "/predict", photos[number], {"Content-Type": "image/jpeg"})
                    answer = connection.getresponse()
                    (entry,) = json.loads(answer.read())["predictions"]
                    seconds.append(time.monotonic() - began)
                    counts[answer.status] += 1
                    (other,) = wanted[number][1]["predictions"]
                    counts["another label"] += entry["label"] != other["label"]
                    counts["another probability"] += abs(entry["probability"] - other["probability"]) > 1e-5

        def killed() -> None:
            head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: {len(photos[0])}"
            while time.monotonic() < end:
                with socket.create_connection(("127.0.0.1", served.port)) as gone:
                    gone.sendall(f"{head}\r\n\r\n".encode() + photos[0][: random.choice([10, len(photos[0])])])
                time.sleep(0.02)

        threads = [threading.Thread(target=client, args=[number]) for number in range(CLIENTS)]
        threads += [threading.Thread(target=killed)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        metrics = text(served, "/metrics")
    assert set(+counts) == {200}
    assert counts[200] > CLIENTS
    assert 'tlkit_requests_total{status="499"}' in metrics
    batches = {name: float(re.search(rf"tlkit_batch_photos_{name} (\S+)", metrics)[1]) for name in ("sum", "count")}
    assert batches["sum"] / batches["count"] > 2  # they were gathered
    print(counts, np.percentile(seconds, [50, 99]), batches)


def text(served: Served, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def scans(side: int, repeated: int) -> bytes:
    """A JPEG whose last scan comes again and again."""
    data = encoded(Image.new("RGB", (side, side)), "JPEG", progressive=True, quality=30)
    last = data.rfind(b"\xff\xda")
    return data[:last] + data[last:-2] * repeated + b"\xff\xd9"


HOSTILE = {
    "PNG bomb": lambda: encoded(Image.new("1", (60_000, 60_000))),
    "large PNG with alpha": lambda: encoded(Image.new("RGBA", (8_000, 8_000))),
    "progressive JPEG": lambda: scans(4_000, 60),
    "lossless WebP": lambda: encoded(Image.new("RGBA", (4_700, 4_700)), "WEBP", lossless=True, method=0),
    "cut off": lambda: photo(0)[:2000],
    "chunks": lambda: encoded(Image.new("L", (1, 1)))[:-12] + b"\0\0\0\0tEXt\0\0\0\0" * 200_000,
    "noise": lambda: random.randbytes(2**20),
    "too large": lambda: bytes(33 * 2**20),
}


def test_hostile_clients_do_no_harm(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    payloads = [make() for make in HOSTILE.values()]
    with serving(str(file), tmp_path) as served:
        served.ask(photo(0))
        end, counts, peak = time.monotonic() + 15, Counter(), 0
        good: list[tuple[int, float]] = []

        def attack(number: int) -> None:
            chance = random.Random(number)
            while time.monotonic() < end:
                content = chance.choice(payloads)
                if chance.random() < 0.3:
                    cells = json.dumps({"images": [base64.b64encode(content).decode()] * 2}).encode()
                    counts[served.ask(cells, "application/json")[0]] += 1
                else:
                    counts[
                        served.ask(content, chance.choice(["image/jpeg", "multipart/form-data; boundary=a"]))[0]
                    ] += 1

        def loris() -> None:
            with contextlib.ExitStack() as stack:
                while time.monotonic() < end:
                    drip = stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
                    drip.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nX: ")
                    time.sleep(0.1)

        def garbage() -> None:
            while time.monotonic() < end:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", served.port)) as client:
                    client.sendall(random.choice([b"\0" * 100_000, b"GET / HTTP/9\r\n\r\n", b"GET /" + b"a" * 2**17]))
                    client.recv(100)
                time.sleep(0.05)

        jobs = [*((attack, [number]) for number in range(4)), (loris, []), (garbage, [])]
        threads = [threading.Thread(target=job, args=arguments) for job, arguments in jobs]
        for thread in threads:
            thread.start()
        while time.monotonic() < end:
            began = time.monotonic()
            good.append((served.ask(photo(1))[0], time.monotonic() - began))
            peak = max(peak, psutil.Process(served.process.pid).memory_info().rss)
            time.sleep(0.2)
        for thread in threads:
            thread.join()
        assert served.ask(photo(1))[0] == 200
        said = served.said
    print(counts, peak / 1e6, np.percentile([seconds for _, seconds in good], [50, 100]))
    assert {status for status, _ in good} == {200}
    assert set(counts) <= {200, 400, 413, 503}
    assert counts[413]
    assert max(seconds for _, seconds in good) < 10
    assert peak < 2e9
    assert "Traceback" not in said
    assert len(said.splitlines()) < 12  # strangers cannot fill the log


def test_an_alias_that_moves_under_load(database: Path, tmp_path: Path):
    import mlflow

    from tlkit import serving as mlflow_models

    shutil.copy(database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(uri, uri)
    client.create_registered_model("animals")
    import keras

    for seed in range(2):
        made = keras.saving.load_model(model(tmp_path / f"{seed}.keras", seed))
        folder = tmp_path / f"version{seed}"
        mlflow_models.save_model(folder, made, CLASSES, kind="photos", requirements=["keras"])
        client.create_model_version("animals", str(folder))
    (tmp_path / "damaged" / "data").mkdir(parents=True)
    (tmp_path / "damaged" / "data" / "model.keras").write_bytes(b"no model")
    client.create_model_version("animals", str(tmp_path / "damaged"))
    client.set_registered_model_alias("animals", "champion", "1")
    name, statuses, ended = "models:/animals@champion", Counter(), threading.Event()
    with serving(name, tmp_path, "--reload", "1", MLFLOW_TRACKING_URI=uri) as served:

        def ask() -> None:
            while not ended.is_set():
                statuses[served.ask(photo(0))[0]] += 1

        def until(version: str, *words: str) -> None:
            end = time.monotonic() + 60
            while json.loads(text(served, "/healthz"))["version"] != version or any(
                w not in served.said for w in words
            ):
                assert time.monotonic() < end, served.said
                time.sleep(0.2)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        before = served.ask(photo(0))[1]
        client.set_registered_model_alias("animals", "champion", "2")
        until("2", f"version 2 of {name} has taken over from version 1")
        assert served.ask(photo(0))[1] != before
        client.set_registered_model_alias("animals", "champion", "3")
        until("2", f"{name} moved to version 3, and version 2 stays: ")
        client.set_registered_model_alias("animals", "champion", "1")
        until("1")
        assert served.ask(photo(0))[1] == before
        ended.set()
        for thread in threads:
            thread.join()
        assert 'tlkit_reloads_total{result="failed"}' in text(served, "/metrics")
        assert "Traceback" not in served.said
    assert set(statuses) == {200}


@pytest.fixture
def browser() -> Iterator[Any]:
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: pip install playwright")
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        pytest.skip(f"there is no Chromium on PATH: none of {', '.join(CHROMIUM)}")
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=[*flags, *["--no-sandbox"] * root])
        yield opened
        opened.close()


DROP = """async ([content, name]) => {
  const transfer = new DataTransfer();
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  transfer.items.add(new File([bytes], name, {type: "image/jpeg"}));
  for (const kind of ["dragover", "drop"])
    document.getElementById("drop").dispatchEvent(
      new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""


@pytest.mark.parametrize(("width", "scheme"), [(1000, "light"), (360, "dark")])
def test_the_page_in_a_browser(width: int, scheme: Any, browser: Any, file: Path, tmp_path: Path):
    shots = Path(os.environ.get("TLKIT_SCREENSHOTS") or tmp_path)
    shots.mkdir(parents=True, exist_ok=True)
    with serving(str(file), tmp_path) as served:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        problems: list[str] = []
        addresses: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: addresses.append(request.url))
        page.goto(f"http://127.0.0.1:{served.port}/")
        page.evaluate(DROP, [base64.b64encode(photo(3)).decode(), "a <i>photo</i>.jpg"])
        page.locator(".bar").nth(4).wait_for()
        wanted = served.ask(photo(3))[1]["predictions"][0]
        lines = page.locator(".answer").all_inner_texts()
        shown = [f"{100 * entry['probability']:.1f} %" for entry in wanted["top"]]
        assert [line.split("\n")[0] for line in lines] == [entry["label"] for entry in wanted["top"]]
        assert [line.split("\n")[1] for line in lines] == shown
        shares = page.evaluate(
            "[...document.querySelectorAll('.bar')].map((bar) => bar.offsetWidth / bar.parentNode.offsetWidth)"
        )
        np.testing.assert_allclose(shares, [entry["probability"] for entry in wanted["top"]], atol=0.02)
        assert page.locator("article h2").inner_text() == "a <i>photo</i>.jpg"
        page.set_input_files("#file", files=[{"name": "no.jpg", "mimeType": "image/jpeg", "buffer": b"words"}])
        page.get_by_text("not a JPEG, PNG, GIF, BMP, WebP or TIFF image").wait_for()
        assert problems.pop().startswith("Failed to load resource: the server responded with a status of 400")
        page.get_by_text("Use the camera").click()
        while not page.evaluate("document.getElementById('video').videoWidth"):  # to wait there needs `eval`
            page.wait_for_timeout(50)
        page.get_by_text("Take a photo").click()
        page.locator("article").nth(2).wait_for()
        page.locator(".bar").nth(9).wait_for()
        page.get_by_text("Stop the camera").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=shots / f"serve_{scheme}.png", full_page=True)
        page.get_by_text("API").click()
        page.get_by_text("POST /predict").wait_for()
        page.screenshot(path=shots / f"serve_docs_{scheme}.png")
        assert problems == []
        own = (f"http://127.0.0.1:{served.port}/", f"blob:http://127.0.0.1:{served.port}/", "data:")
        assert all(address.startswith(own) for address in addresses)


def test_it_serves_where_the_docker_files_packages_are_all_there_is(file: Path, tmp_path: Path):
    venv = tmp_path / "venv"
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "-q", "--no-deps", "--no-cache-dir"]
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    written = (ROOT / "docs" / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert written.count("pip install --no-cache-dir --no-deps") == 2
    subprocess.run([*pip, "-r", ROOT / "docs" / "docker" / "requirements.txt"], check=True)
    subprocess.run([*pip, ROOT], check=True)
    program = (str(venv / "bin" / "tlkit"), "serve")
    with serving(str(file), tmp_path) as here:
        wanted = here.ask(photo(0))[1]["predictions"][0]["top"]
    with serving(str(file), tmp_path, program=program) as served:
        status, answer = served.ask(photo(0))
        top = answer["predictions"][0]["top"]
        assert (status, [entry["label"] for entry in top]) == (200, [entry["label"] for entry in wanted])
        np.testing.assert_allclose(
            [entry["probability"] for entry in top], [entry["probability"] for entry in wanted], atol=1e-5
        )
        page = text(served, "/")
        assert hashlib.sha256(re.search("<script>(.*)</script>", page, re.DOTALL)[1].encode()).digest()
        memory = psutil.Process(served.process.pid).memory_info().rss
        print(memory / 1e6)
        assert memory < 400e6
    missing = subprocess.run([venv / "bin" / "python", "-c", "import tensorflow"], capture_output=True, text=True)
    assert "No module named 'tensorflow'" in missing.stderr
