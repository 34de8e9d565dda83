"""`tlkit serve`: what it answers over real sockets, what it refuses, and that nothing is lost while a model changes."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from servers import free_port

from tlkit import backbones, cli, config, labels
from tlkit.data.modalities import Reading
from tlkit.recipes import _listening, _versions, predict, serve
from tlkit.serving.web import app, batching, bodies, counters

CLASSES = ["ant", "bee", "cow", "dog", "elk", "<b>fox</b>"]
READING = Reading(resize="center")
rng = np.random.default_rng(0)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo(height: int = 40, width: int = 60) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(photo(), "JPEG", exif=exif)


PHOTOS = {
    "jpeg": encoded(photo(), "JPEG"),
    "png": encoded(photo()),
    "turned by EXIF": turned(),
    "cmyk": encoded(photo().convert("CMYK"), "JPEG"),
    "palette": encoded(photo().convert("P")),
    "gray": encoded(photo().convert("L")),
    "16 bits": encoded(Image.fromarray(rng.integers(0, 65536, (40, 60), np.uint16))),
}
PNG = PHOTOS["png"]
BOMB = encoded(Image.new("1", (20_000, 20_000)))


def classifier(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = backbones.classifier(backbones.build("LetterNet", (28, 28, 1)), len(CLASSES))
    head = model.layers[-1]
    head.set_weights([np.random.default_rng(seed).normal(0, 1, weight.shape) for weight in head.get_weights()])
    return model


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serve") / "model.keras"
    classifier(0).save(path)
    labels.write(path, CLASSES, READING.changed)
    return path


@pytest.fixture(scope="module")
def served(file: Path) -> batching.Served:
    return serve.load(str(file), _versions.resolve(str(file)))


class Site:
    """A server of the real app in this process, and how it is asked."""

    def __init__(self, batcher: batching.Batcher, bound: socket.socket) -> None:
        self.batcher, self.bound, self.uri = batcher, bound, _listening.address(bound)
        self.port = bound.getsockname()[1]

    def ask(self, body: Any, content_type: str = "image/png", path: str = "/predict") -> tuple[int, Any, Any]:
        """Status, JSON and headers of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", path, body, {"Content-Type": content_type} if content_type else {})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read()), answer.headers

    def get(self, path: str) -> tuple[str, Any]:
        with urllib.request.urlopen(f"{self.uri}{path}", timeout=30) as answer:  # noqa: S310 (http, on loopback)
            return answer.read().decode(), answer.headers

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics")[0], re.MULTILINE)
        return float(found[1]) if found else 0.0

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


@contextlib.contextmanager
def serving(served: batching.Served, waiting: int = 64, **limits: Any) -> Iterator[Site]:
    loaded = set(sys.modules)
    batcher = batching.Batcher(served, waiting, counters.Counters())
    with _listening.listener("127.0.0.1", free_port()) as bound:
        limits = {"size": 2**20, "photos": 8, "seconds": 20.0, **limits}
        server = _listening.server(app.make(batcher, app.Limits(**limits)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield Site(batcher, bound)
        finally:
            server.should_exit = True
            thread.join(30)
            batcher.close()
            for name in set(sys.modules) - loaded:  # by its name, others tell a process that serves strangers
                if name.partition(".")[0] == "uvicorn":
                    del sys.modules[name]


@pytest.fixture(scope="module")
def site(served: batching.Served) -> Iterator[Site]:
    with serving(served) as site:
        yield site


def form(*files: tuple[str, bytes], boundary: str = "X-1", end: str = "--") -> tuple[bytes, str]:
    parts = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="photo"; filename="{name}"\r\n'.encode()
        + b"Content-Type: image/png\r\n\r\n"
        + content
        + b"\r\n"
        for name, content in files
    )
    return parts + f"--{boundary}{end}\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def in_json(*contents: bytes) -> tuple[bytes, str]:
    texts = [base64.b64encode(content).decode() for content in contents]
    return json.dumps({"image": texts[0]} if len(texts) == 1 else {"images": texts}).encode(), "application/json"


@pytest.fixture(scope="module")
def expected(file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[str, float]]]:
    """What `predict` says about the photos."""
    folder = tmp_path_factory.mktemp("photos")
    for name, content in PHOTOS.items():
        (folder / f"{name}.png").write_bytes(content)
    names = [str(folder / f"{name}.png") for name in PHOTOS]
    answers = predict.run(config.Predict(str(file), names, top=5)).rankings
    return dict(zip(PHOTOS, answers, strict=True))


def check(entry: dict[str, Any], wanted: list[tuple[str, float]]) -> None:
    assert (entry["label"], len(entry["top"])) == (wanted[0][0], 5)
    assert [ranked["label"] for ranked in entry["top"]] == [label for label, _ in wanted]
    shares = [ranked["probability"] for ranked in entry["top"]]
    np.testing.assert_allclose(shares, [share for _, share in wanted], atol=1e-5)
    assert entry["probability"] == shares[0]


@pytest.mark.parametrize("name", PHOTOS)
def test_each_way_to_send_a_photo_gives_the_answer_of_predict(name: str, site: Site, expected: dict[str, Any]):
    content = PHOTOS[name]
    for body, content_type in [(content, "image/jpeg"), form(("a.png", content)), in_json(content)]:
        status, answer, _ = site.ask(body, content_type)
        assert status == 200
        (entry,) = answer["predictions"]
        check(entry, expected[name])


def test_many_photos_keep_their_order_and_a_bad_one_gets_its_reason(site: Site, expected: dict[str, Any]):
    names = list(PHOTOS)
    body, content_type = form(*((f"{name}.png", PHOTOS[name]) for name in names), ("no\u202ephoto.txt", b"words"))
    status, answer, headers = site.ask(body, content_type)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    *good, bad = answer["predictions"]
    for name, entry in zip(names, good, strict=True):
        assert entry["name"] == f"{name}.png"
        check(entry, expected[name])
    assert bad == {"name": r"no\u202ephoto.txt", "error": "not a JPEG, PNG, GIF, BMP, WebP or TIFF image"}
    status, answer, _ = site.ask(json.dumps({"images": [base64.b64encode(PNG).decode(), "?", 3]}), "application/json")
    assert status == 200
    assert [entry.get("error") for entry in answer["predictions"]] == [None, "not base64", "not a text in base64"]


REFUSED: dict[str, tuple[tuple[bytes, str], int, str]] = {
    "empty": ((b"", "image/png"), 400, "the file is empty (0 bytes)"),
    "words": ((b"words", "image/jpeg"), 400, "not a JPEG, PNG, GIF, BMP, WebP or TIFF image"),
    "cut off": ((PNG[:500], "image/png"), 400, "truncated"),
    "bomb": ((BOMB, "image/png"), 413, "20,000 x 20,000 pixels, more than the 67,108,864 that TLKIT_MAX_PIXELS allows"),
    "no type": ((PNG, ""), 415, "there is no Content-Type; send image/jpeg"),
    "curl's type": ((PNG, "application/x-www-form-urlencoded"), 415, "'application/x-www-form-urlencoded'; send image"),
    "no JSON": ((b"{", "application/json"), 400, "the body is not JSON"),
    "not UTF-8": ((b"\xff\xfe\xfa", "application/json"), 400, "the body is not JSON"),
    "deep": ((b"[" * 200_000, "application/json"), 400, "nested too deeply"),
    "a list": ((b"[]", "application/json"), 400, 'JSON must be {"image": "base64"}'),
    "no photos": ((b'{"images": []}', "application/json"), 400, "there are no photos"),
    "other key": ((b'{"inputs": []}', "application/json"), 400, 'JSON must be {"image": "base64"}'),
    "a URL": ((b'{"image": "http://127.0.0.1/a.png"}', "application/json"), 400, "not base64"),
    "a path": ((b'{"image": "/etc/passwd.png"}', "application/json"), 400, "not base64"),
    "no boundary": ((b"", "multipart/form-data"), 400, "no boundary"),
    "form cut off": (form(("a.png", PNG), end=""), 400, "damaged"),
    "form without end": ((form(("a.png", PNG))[0][:-9], "multipart/form-data; boundary=X-1"), 400, "cut off"),
    "form without files": ((b"--X\r\n\r\n\r\n--X--", "multipart/form-data; boundary=X"), 400, "there are no photos"),
    "too many": (form(*[("a.png", PNG)] * 9), 413, "there are 9 photos; send at most 8"),
    "far too many": (form(*[("a.png", b"")] * 5000), 413, "the form has more than 8 photos"),
    "too many in JSON": (in_json(*[b"a"] * 9), 413, "there are 9 photos; send at most 8"),
    "too large": ((bytes(2**20 + 1), "image/png"), 413, "the body has more than 1 MiB"),
    "far too large": ((bytes(2**25), "image/png"), 413, "the body has more than 1 MiB"),
}


@pytest.mark.parametrize(("sent", "status", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_answered_is_refused_with_the_reason(
    sent: tuple[bytes, str], status: int, message: str, site: Site
):
    began = time.monotonic()
    answered, answer, _ = site.ask(*sent)
    assert (answered, message in answer["error"]) == (status, True), answer
    assert time.monotonic() - began < 2
    assert site.ask(PNG)[0] == 200
    assert site.batcher.waiting == 0


def test_a_connection_that_is_kept_does_not_wait_for_the_network(site: Site):
    """With TCP's usual delay, every answer but the first few takes 40 ms."""
    seconds = []
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)) as connection:
        for _ in range(30):
            began = time.monotonic()
            connection.request("POST", "/predict", PNG, {"Content-Type": "image/png"})
            assert connection.getresponse().read()
            seconds.append(time.monotonic() - began)
    assert min(seconds[20:]) < 0.035


def test_a_body_in_chunks_is_counted_while_it_comes(site: Site):
    assert site.ask(iter([PNG[:100], PNG[100:]]))[0] == 200
    status, answer, _ = site.ask(iter([bytes(2**18)] * 8))
    assert (status, "1 MiB" in answer["error"]) == (413, True)


def test_a_client_that_waits_for_a_word_need_not_send_a_body_that_is_too_large(site: Site):
    with site.socket() as client:
        head = "POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nExpect: 100-continue\r\n"
        client.sendall(f"{head}Content-Length: {2**30}\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_paths_that_are_not_there_and_other_methods(site: Site):
    assert site.ask(b"", path="/nowhere")[:2] == (404, {"error": "Not Found"})
    with pytest.raises(urllib.error.HTTPError, match="405"):
        site.get("/predict")


def test_the_pages_take_nothing_from_outside_and_show_names_as_text(site: Site):
    for path in ("/", "/docs"):
        text, headers = site.get(path)
        assert not re.findall(r"(?:https?:)?//[a-z]", text)
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src '")
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "{{" not in text
    assert "POST /predict" in text
    assert "-F photo=@one.jpg" in text
    operations = json.loads(site.get("/openapi.json")[0])["paths"]
    assert set(operations) == {"/predict", "/healthz", "/metrics"}
    assert set(operations["/predict"]["post"]["requestBody"]["content"]) == {
        "image/*", "multipart/form-data", "application/json",
    }  # fmt: skip


def test_a_model_with_a_strange_name_is_no_markup(served: batching.Served):
    with serving(served._replace(name='<script>"{{version}}"')) as site:
        assert "<h1>&lt;script&gt;&quot;{{version}}&quot;<small>" in site.get("/")[0]
        assert r'tlkit_model_info{model="<script>\"{{version}}\"",version=""} 1' in site.get("/metrics")[0]


def test_health_and_metrics(site: Site, served: batching.Served):
    assert json.loads(site.get("/healthz")[0]) == {"status": "ok", "model": "model.keras", "version": ""}
    names = ['tlkit_requests_total{status="200"}', 'tlkit_requests_total{status="415"}', "tlkit_photos_total"]
    names += ["tlkit_failures_total", "tlkit_request_seconds_count", "tlkit_batch_photos_sum"]
    before = [site.metric(name) for name in names]
    site.ask(*form(("a", PNG), ("b", b"")))
    site.ask(PNG, "text/plain")
    assert [site.metric(name) - old for name, old in zip(names, before, strict=True)] == [1, 1, 1, 1, 2, 1]
    text, headers = site.get("/metrics")
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert all(re.fullmatch(r'#.*|\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? \S+', line) for line in text.splitlines())


class Slow:
    """An engine that waits until it is let go, and remembers its batches."""

    def __init__(self, served: batching.Served) -> None:
        self.go, self.begun, self.sizes = threading.Event(), threading.Event(), []
        self.served = served._replace(engine=served.engine._replace(run=self.run, batch_size=32))
        self.inner = served.engine.run

    def run(self, batches: list[np.ndarray]) -> Iterator[np.ndarray]:
        self.sizes.append(sum(map(len, batches)))
        self.begun.set()
        assert self.go.wait(20)
        return self.inner([batch[start : start + 4] for batch in batches for start in range(0, len(batch), 4)])


def in_threads(count: int, function: Callable[[], Any]) -> tuple[list[threading.Thread], list[Any]]:
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(function())) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, results


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_requests_that_come_together_are_computed_together(served: batching.Served):
    slow = Slow(served)
    with serving(slow.served) as site:
        threads, results = in_threads(1, lambda: site.ask(PNG))
        assert slow.begun.wait(20)
        more, others = in_threads(20, lambda: site.ask(PNG))
        until(lambda: site.batcher._decoded.qsize() == 20)
        slow.go.set()
        for thread in threads + more:
            thread.join(20)
    assert [status for status, *_ in results + others] == [200] * 21
    assert slow.sizes == [1, 20]


def test_a_full_queue_is_said_with_the_time_to_try_again(served: batching.Served):
    slow = Slow(served)
    with serving(slow.served, waiting=2) as site:
        threads, results = in_threads(1, lambda: site.ask(PNG))
        until(lambda: site.batcher.waiting == 1)
        assert site.ask(*form(("a", PNG), ("b", PNG)))[0] == 503
        more, others = in_threads(1, lambda: site.ask(PNG))
        until(lambda: site.batcher.waiting == 2)
        status, answer, headers = site.ask(PNG)
        assert (status, answer) == (503, {"error": "2 photos are waiting for their answers: try again later"})
        assert 1 <= int(headers["Retry-After"]) <= 60
        assert site.metric("tlkit_waiting_photos") == 2
        slow.go.set()
        for thread in threads + more:
            thread.join(20)
        assert [status for status, *_ in results + others] == [200, 200]
        assert site.ask(PNG)[0] == 200


def test_an_answer_that_takes_too_long_and_a_body_that_does(served: batching.Served):
    slow = Slow(served)
    with serving(slow.served, seconds=0.3) as site:
        began = time.monotonic()
        status, answer, headers = site.ask(PNG)
        assert (status, answer["error"]) == (503, "the photos were not answered within 0.3 s: try again later")
        assert headers["Retry-After"]
        with site.socket() as client:
            client.sendall(
                b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\na"
            )
            assert client.recv(100).startswith(b"HTTP/1.1 408 ")
            while client.recv(1000):  # until it is closed
                pass
        assert time.monotonic() - began < 4
        slow.go.set()
        assert site.batcher.waiting == 0


def test_a_client_that_goes_away_costs_nothing(served: batching.Served):
    slow = Slow(served)
    with serving(slow.served) as site:
        in_threads(1, lambda: site.ask(PNG))
        assert slow.begun.wait(20)
        head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: {len(PNG)}\r\n\r\n"
        with site.socket() as client:
            client.sendall(head.encode() + PNG)
            until(lambda: site.batcher.waiting == 2)
        with site.socket() as client:
            client.sendall(head.encode() + PNG[:99])
        until(lambda: site.metric('tlkit_requests_total{status="499"}') == 2)
        assert site.batcher.waiting == 1
        slow.go.set()
        until(lambda: site.batcher.waiting == 0)
        assert slow.sizes == [1]


def test_headers_that_never_end_and_too_many_connections(site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_listening, "HEAD_SECONDS", 0.3)
    with site.socket() as client, contextlib.suppress(ConnectionResetError):
        assert client.recv(100) == b""  # nothing was sent
    with site.socket() as client:
        for letter in b"POST / HTT":
            with contextlib.suppress(OSError):
                client.sendall(bytes([letter]))
            time.sleep(0.05)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""
    monkeypatch.undo()
    with site.socket() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100_000)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100).startswith(b"HTTP/1.1 400 ")
    with contextlib.ExitStack() as stack:
        monkeypatch.setattr(_listening, "CONNECTIONS", 5)
        clients = [stack.enter_context(site.socket()) for _ in range(7)]
        assert clients[-1].recv(100).startswith(b"HTTP/1.1 503 ")
    until(lambda: site.ask(PNG)[0] == 200)


def test_a_model_that_fails_is_the_servers_error_and_it_goes_on(served: batching.Served, capfd: pytest.CaptureFixture):
    def run(batches: list[np.ndarray]) -> Iterator[np.ndarray]:
        if batches[0].mean() < 1:
            raise RuntimeError("no kernel\nfor this")
        return (np.full((len(batch), len(CLASSES)), np.nan, np.float32) for batch in batches)

    with serving(served._replace(engine=served.engine._replace(run=run))) as site:
        assert site.ask(encoded(Image.new("L", (9, 9))))[:1] == (500,)
        status, answer, _ = site.ask(PNG)
        assert (status, answer["error"]) == (500, batching.many.NOT_FINITE)
    assert capfd.readouterr().err.splitlines()[0] == "serve: the model cannot predict: no kernel"


def test_large_photos_wait_for_each_other_and_not_in_the_way_of_small_ones(served: batching.Served):
    large = encoded(Image.new("L", (3000, 3000)))
    with serving(served) as site:
        blocked = threading.Event()
        site.batcher._large.submit(blocked.wait, 20)
        threads, results = in_threads(3, lambda: site.ask(large))
        until(lambda: site.batcher.waiting == 3)
        assert site.ask(PNG)[0] == 200
        assert results == []
        blocked.set()
        for thread in threads:
            thread.join(20)
    assert [status for status, *_ in results] == [200] * 3


def test_another_model_takes_over_without_a_request_being_lost(served: batching.Served):
    def always(label: int) -> batching.Served:
        def run(batches: list[np.ndarray]) -> Iterator[np.ndarray]:
            return (np.eye(len(CLASSES), dtype=np.float32)[[label] * len(batch)] for batch in batches)

        return served._replace(engine=served.engine._replace(run=run), version=str(label))

    slow = Slow(always(0))
    with serving(slow.served) as site:
        threads, results = in_threads(1, lambda: site.ask(PNG))
        assert slow.begun.wait(20)
        again, same = in_threads(3, lambda: site.ask(PNG))
        until(lambda: site.batcher._decoded.qsize() == 3)
        site.batcher.served = always(1)
        more, others = in_threads(4, lambda: site.ask(PNG))
        until(lambda: site.batcher._decoded.qsize() == 7)
        slow.go.set()
        for thread in threads + again + more:
            thread.join(20)
        assert json.loads(site.get("/healthz")[0])["version"] == "1"
    assert [answer["predictions"][0]["label"] for _, answer, _ in results + same] == ["ant"] * 4
    assert [answer["predictions"][0]["label"] for _, answer, _ in others] == ["bee"] * 4


def test_an_alias_that_moves_is_followed_and_what_goes_wrong_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    moves: list[Any] = ["1", "2", OSError("no answer"), OSError("no answer"), "3", "3", "4"]
    taken, ended = [], threading.Event()

    def resolve(model: str) -> _versions.Version:
        if not moves:
            ended.set()
        number = moves.pop(0) if moves else "4"
        if isinstance(number, OSError):
            raise number
        return _versions.Version(f"models:/m/{number}", number)

    def take(version: _versions.Version) -> None:
        if version.number == "3":
            raise ValueError("damaged\nfile")
        taken.append(version.number)

    monkeypatch.setattr(_versions, "resolve", resolve)
    watching = _versions.watch("models:/m@champion", "1", 0.01, take)
    assert ended.wait(20)
    watching.set()
    assert taken == ["2", "4"]
    assert capfd.readouterr().err.splitlines() == [
        "serve: version 2 of models:/m@champion has taken over from version 1",
        "serve: models:/m@champion cannot be looked up, and version 2 stays: no answer",
        "serve: models:/m@champion moved to version 3, and version 2 stays: damaged",
        "serve: version 4 of models:/m@champion has taken over from version 2",
    ]


def test_an_alias_is_pinned_to_its_version(folder: Path, file: Path):
    import mlflow

    client = mlflow.MlflowClient()
    client.create_registered_model("flowers")
    for _ in range(2):
        client.create_model_version("flowers", str(file.parent))
    client.set_registered_model_alias("flowers", "champion", "2")
    assert _versions.resolve("models:/flowers@champion") == ("models:/flowers/2", "2")
    status = cli.call(config.Serve, serve.run, ["models:/flowers@king"], ("model",))
    assert status == 2


def call(*words: str) -> int:
    return cli.call(config.Serve, serve.run, list(words), ("model",))


def test_the_model_is_refused_first_and_a_port_in_use_before_it_is_loaded(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(serve, "load", lambda *_: pytest.fail("loaded"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert call("nowhere.keras", "--port", str(port)) == 2
        assert "there is no model 'nowhere.keras'" in capsys.readouterr().err
        assert call(str(file), "--port", str(port)) == 1
        assert (
            capsys.readouterr().err == f"serve: error: port {port} is in use: give another, such as --port {port + 1}\n"
        )
    assert call(str(file), "--host", "no such host") == 1
    assert "cannot listen on 'no such host', port 8000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--port", "0"], "port is 0; it must be from 1 to 65535"),
        (["--host", ""], "host is ''; it must be an address"),
        (["--reload", "0.1"], "reload is 0.1; it must be 1 second or more, or 0"),
        (["--photos", "0"], "photos is 0; it must be from 1 to 4096"),
        (["--waiting", "63"], "waiting is 63; it must be at least 64"),
        (["--megabytes", "0"], "megabytes is 0.0; it must be above 0"),
        (["--timeout", "0"], "timeout is 0.0; it must be above 0"),
    ],
)
def test_wrong_settings_are_refused(words: list[str], says: str, capsys: pytest.CaptureFixture):
    assert call("model.keras", *words) == 2
    assert says in capsys.readouterr().err


def test_the_packages_of_the_docker_file_are_those_that_are_tested_together():
    root = Path(__file__).parents[1]
    constraints = (root / "constraints.txt").read_text(encoding="utf-8").lower().replace("_", "-").split()
    lines = (root / "docs" / "docker" / "requirements.txt").read_text(encoding="utf-8").lower().replace("_", "-")
    needed = [line for line in lines.splitlines() if not line.startswith("#")]
    assert len(needed) > 20
    assert [line for line in needed if line not in constraints] == []
    assert not [line for line in needed if line.startswith(("tensorflow", "mlflow"))]


def test_bodies_in_a_form_are_bytes_with_any_line_ends():
    content = b"\r\n--X\n\r\n\r\n-- \xff\x00"
    body, content_type = form(('a"b.png', content), ("c", b""), boundary="X-1")
    assert [photo.content for photo in bodies.photos_of(content_type, body, 2)] == [content, b""]


def test_a_heatmap_comes_on_request_and_for_few_photos(site: Site):
    status, answer, _ = site.ask(PNG, path="/predict?explain=true")
    assert status == 200
    (entry,) = answer["predictions"]
    head, _, content = entry.pop("heatmap").partition(",")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert (head, picture.shape) == ("data:image/jpeg;base64", (*site.batcher.served.shape[:2], 3))
    assert site.ask(PNG)[1]["predictions"] == [entry]  # nothing else differs, and none comes unasked
    assert site.ask(PNG, path="/predict?explain=perhaps")[:2] == (400, {"error": "explain is true or false"})


def test_heatmaps_are_refused_for_many_photos_and_where_there_are_none(served: batching.Served):
    with serving(served, photos=16) as site:
        body, content_type = in_json(*[PNG] * (app.EXPLAINED + 1))
        status, answer, _ = site.ask(body, content_type, "/predict?explain=true")
        assert (status, answer["error"]) == (413, "there are 9 photos; send at most 8 in a request with explain")
        assert '<label ><input id="why"' in site.get("/")[0]
    with serving(served._replace(explainer=None)) as site:
        status, answer, _ = site.ask(PNG, path="/predict?explain=true")
        assert status == 400
        assert answer["error"] == "this model has no heatmaps, as its head is not linear: leave explain out"
        assert '<label hidden><input id="why"' in site.get("/")[0]
