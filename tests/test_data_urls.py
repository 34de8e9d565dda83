"""Folders and tables at URLs: what they hold is what their copy on disk holds, and no secret of theirs is logged."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from servers import free_port
from test_data_webdataset import png

from tlkit import config, data
from tlkit.data import threads
from tlkit.data.contents import Piece
from tlkit.data.sources import load_source
from tlkit.data.sources.named import named_photos
from tlkit.data.urls import url_path
from tlkit.errors import InvalidInput, Unavailable
from tlkit.recipes import inspect

ODD = " x?#%20é.png"  # in names, each of these means something in some URL


def write(root: Path, count: int = 45) -> Path:
    """Write photos of three classes, some deeper, with what people have beside them, and a table of the photos."""
    rows = ["path,label"]
    for n in range(count):
        file = root / str(n % 3) / ("sub" if n % 2 else "") / f"{n:04}{ODD if n % 5 == 0 else '.png'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(n))
        rows.append(f"{file.relative_to(root).as_posix()},{n % 3}")
    for name, content in (("0/.DS_Store", b"x"), ("1/Thumbs.db", b"x"), ("2/broken.png", b"no"), ("2/empty.png", b"")):
        (root / name).write_bytes(content)
    root.joinpath("list.csv").write_text("\n".join(rows), encoding="utf-8")
    return root


def upload(root: Path, target: str) -> None:
    system, inside = fsspec.core.url_to_fs(target)
    for file in root.rglob("*"):
        if file.is_file():
            system.pipe_file(f"{inside}/{file.relative_to(root).as_posix()}", file.read_bytes())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write(tmp_path / "photos")


@pytest.fixture
def bucket(photos: Path) -> str:
    upload(photos, f"memory://{photos.parent.name}/photos")
    return f"memory://{photos.parent.name}/photos"


def assert_same(here: data.Splits, there: data.Splits) -> None:
    assert there.digest == here.digest
    assert (there.warnings, there.left_out, there.set_aside) == (here.warnings, here.left_out, here.set_aside)
    np.testing.assert_array_equal(there.test.read([0, 1]), here.test.read([0, 1]))  # type: ignore[union-attr]


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_folder_and_a_table_are_those_on_disk(kind: str, check: bool, photos: Path, bucket: str):
    url = bucket if kind == "memory" else photos.as_uri()
    for source, path, name in (("folder", photos, ""), ("csv", photos / "list.csv", "/list.csv")):
        load = functools.partial(data.load, source, size=(8, 8), check=check, quiet=True, group=None)
        assert_same(load(path=path), load(path=url + name))
        assert load_source(source, path=url + name).names == load_source(source, path=path).names


def test_a_parquet_table(photos: Path, bucket: str):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    names = load_source("folder", path=photos).names
    rows = pyarrow.table({"path": names, "label": [name[0] for name in names]})
    parquet.write_table(rows, photos / "list.parquet")
    upload(photos, bucket)
    found = load_source("csv", path=f"{bucket}/list.parquet")
    assert found.names == names
    assert found.contents[0].read_bytes() == (photos / names[0]).read_bytes()  # type: ignore[union-attr]


def test_leaks_and_splits_are_found(photos: Path, bucket: str):
    for split in ("train", "val"):
        shutil.copytree(photos, photos.parent / "split" / split, ignore=shutil.ignore_patterns("list.csv"))
    upload(photos.parent / "split", bucket.replace("/photos", "/split"))
    lines = []
    for path in (photos.parent / "split", bucket.replace("/photos", "/split")):
        with pytest.raises(InvalidInput, match=r"are in val too") as error:
            data.load("folder", path=path, size=(8, 8), quiet=True)
        lines.append(str(error.value))
    assert lines[0] == lines[1]


def test_a_photo_that_changes_is_named(photos: Path, bucket: str):
    splits = data.load("folder", path=bucket, size=(8, 8), check=False, quiet=True)
    name = splits.train.names[0]
    system, inside = fsspec.core.url_to_fs(f"{bucket}/{name}")
    for content, problem in ((png(999), "has changed since it was listed|of its"), (None, "no such file")):
        system.pipe_file(inside, content) if content else system.rm(inside)
        with pytest.raises(InvalidInput, match=problem) as error:
            splits.train.read([0])
        assert str(error.value).startswith(name)


def test_paths_in_a_table_do_not_leave_the_storage(photos: Path, bucket: str):
    rows = ["path,label", *(f"../photos/2/{n:04}.png,{n}" for n in (2, 8)), "0/0006.png,0", "/etc/hostname,0"]
    rows += ["../../../etc/hostname,1"]
    (photos / "list.csv").write_text("\n".join(rows), encoding="utf-8")
    upload(photos, bucket)
    for path in (f"{bucket}/list.csv", f"{photos.as_uri()}/list.csv"):
        found = load_source("csv", path=path)
        assert found.names == [row.partition(",")[0] for row in rows[1:4]]
        assert len(found.left_out["no such file"]) == 2
    assert not url_path(photos.as_uri()).joinpath("/etc/hostname").exists()


def test_contents_at_urls_are_read_by_more_threads_than_there_are_cores():
    assert threads.threads_for([Piece("s3://bucket/a.png")])._max_workers >= threads.READERS
    for contents in ([], [Path("a.png")], [Piece("a.tar", 512, 9)], np.zeros((2, 8, 8, 1))):
        assert threads.threads_for(contents) is threads.decoding_threads()


@pytest.fixture
def site(photos: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(photos.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.filterwarnings("ignore:unclosed")  # aiohttp's session, at the end of the process
def test_a_table_on_a_web_server(site: str, photos: Path):
    pytest.importorskip("aiohttp")
    here = data.load("csv", path=photos / "list.csv", size=(8, 8), quiet=True)
    assert_same(here, data.load("csv", path=f"{site}/photos/list.csv", size=(8, 8), quiet=True))
    (photos / "0/sub/0003.png").unlink()
    there = data.load("csv", path=f"{site}/photos/list.csv", size=(8, 8), quiet=True)
    assert there.set_aside[:1] == ["0/sub/0003.png: no such file or folder"]
    with pytest.raises(InvalidInput, match="no listing of folders: give a table"):
        load_source("folder", path=f"{site}/photos")
    with pytest.raises(InvalidInput, match=r"none\.csv', which cannot be read: no such file"):
        load_source("csv", path=f"{site}/none.csv")
    with pytest.raises(Unavailable, match="cannot be read"):
        load_source("csv", path=f"http://127.0.0.1:{free_port()}/list.csv")


@pytest.mark.parametrize("query", ["?X-Amz-Signature=secret", "?secret"])
@pytest.mark.parametrize("place", ["https://host/a", "https://me:secret@host/a", "https://secret@host/a"])
@pytest.mark.parametrize("suffix", ["", ".csv", ".tar", ".npz"])
def test_urls_with_secrets_are_refused_without_them(place: str, query: str, suffix: str):
    url = place + suffix + query
    tries = [
        lambda: config.Data(path=url),
        lambda: config.Data(path=url, val_fraction=7),
        lambda: config.Data("tfds", path=url),
        lambda: config.Graph(url),
        lambda: load_source("npz", path=url),
        lambda: load_source("folder", path=url),
        lambda: load_source("csv", path=url),
        lambda: load_source("webdataset", path=url),
        lambda: named_photos([url]),
    ]
    for attempt in tries:
        with pytest.raises(InvalidInput) as error:
            attempt()
        assert "secret" not in str(error.value)


def test_what_a_url_cannot_be_is_said_in_a_line(bucket: str):
    with pytest.raises(InvalidInput, match="where nothing is written: leave --write out"):
        inspect.check(config.Inspect(write="x.csv", data=config.Data(path=bucket)))
    with pytest.raises(InvalidInput, match="no such folder"):
        load_source("folder", path=f"{bucket}/none")
    with pytest.raises(InvalidInput, match="npz takes none at a URL"):
        load_source("npz", path=f"{bucket}/x.npz")
    with pytest.raises(InvalidInput, match="URLs begin with file://"):
        config.Data(path="ftp://host/x")
    with pytest.raises(InvalidInput, match="is a URL: give photos on this machine"):
        named_photos(["s3://bucket/a.png"])
    with pytest.raises(InvalidInput, match="a graph must be a file"):
        config.Graph("s3://bucket/cora.npz")


# A server that speaks S3: `pip install 'moto[server]'`, in any environment on the PATH.

SECRET = "wJalrXUtnFEMI"  # noqa: S105


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("s3fs")
    if (program := shutil.which("moto_server")) is None:
        pytest.skip("moto_server is not installed")
    port = free_port()
    settings = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    settings |= {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [program, "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        code = "import fsspec; fsspec.filesystem('s3').mkdir('bucket')"
        for _ in range(60):
            made = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
            if made.returncode == 0:
                break
            time.sleep(0.5)
        yield "s3://bucket/photos"
    finally:
        server.terminate()
        server.wait(30)


LOAD = """
import json, sys
from tlkit import data
found = [data.load(source, path=path, size=(8, 8), quiet=True) for source, path in json.loads(sys.argv[1])]
print(json.dumps([[each.digest, each.warnings, each.set_aside, each.test.read([0, 1]).tolist()] for each in found]))
"""


@pytest.mark.slow
def test_photos_in_s3_are_those_on_disk_and_a_killed_run_resumes(s3: str, photos: Path, tmp_path: Path):
    """In processes of their own: s3fs keeps a session for each, which ends with a warning."""
    import json

    code = "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import test_data_urls as t; "
    code += "t.upload(Path(sys.argv[2]), sys.argv[3])"
    subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent), str(photos), s3], check=True, timeout=120)
    results = []
    for place in (str(photos), s3):
        words = json.dumps([["folder", place], ["csv", f"{place}/list.csv"]])
        done = subprocess.run([sys.executable, "-c", LOAD, words], check=True, capture_output=True, timeout=200)
        results.append(json.loads(done.stdout))
    assert results[0] == results[1]

    command = [sys.executable, "-m", "tlkit.recipes.train", "--builder.name", "cnn", "--data.image_size", "8"]
    command += ["--full.epochs", "40", "--full.learning_rate", "1e-3", "--resume", "auto", "--data.path"]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    weights = []
    for place, disturbed in ((str(photos), False), (s3, True)):
        folder = tmp_path / str(disturbed)
        folder.mkdir()
        start = functools.partial(subprocess.Popen, [*command, place], cwd=folder, env=environment)
        if disturbed:
            process = start()
            while not list(folder.glob("mlruns/checkpoints/*/full.npz")):
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            process.wait()
        process = start(stdout=subprocess.PIPE, text=True)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        assert ("resuming run" in output) == disturbed
        (file,) = folder.glob("mlruns/*/models/*/artifacts/data/model.keras")
        weights.append(data_of(file))
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    for file in (tmp_path / "True").rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes()


def data_of(file: Path) -> list[np.ndarray]:
    import keras

    return keras.models.load_model(file).get_weights()
