"""Source `webdataset`: tar files on disk and at URLs, as strangers may have written them."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from tlkit import data
from tlkit.data.contents import Piece, read
from tlkit.data.sources import load_source
from tlkit.data.urls import _opened, file_system
from tlkit.errors import InvalidInput, Unavailable


def png(seed: int, side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def tar(members: Iterable[tuple[str, bytes]], **how: object) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **how) as archive:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def samples(first: int, count: int = 20) -> list[tuple[str, bytes]]:
    return [each for n in range(first, first + count)
            for each in ((f"{n:04}.png", png(n)), (f"{n:04}.cls", f"{n % 3}\n".encode()))]  # fmt: skip


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    (tmp_path / "shards").mkdir()
    for number in range(3):
        (tmp_path / "shards" / f"{number:03}.tar").write_bytes(tar(samples(20 * number)))
    return tmp_path / "shards"


def test_shards_are_the_photos_in_them(shards: Path):
    found = load_source("webdataset", path=shards)
    assert found.names[:2] == ["000.tar/0000.png", "000.tar/0001.png"]
    assert len(found.names) == 60
    assert found.classes == ["0", "1", "2"]
    assert found.labels == [n % 3 for n in range(60)]
    assert [read(content) for content in found.contents] == [png(n) for n in range(60)]
    pattern = load_source("webdataset", path=shards / "{000..002}.tar")
    assert (pattern.names, pattern.labels) == (found.names, found.labels)
    alone = load_source("webdataset", path=shards / "001.tar")
    assert alone.names == found.names[20:40]


def test_photos_in_shards_are_split_and_read_as_those_in_folders(shards: Path, tmp_path: Path):
    for n in range(60):
        file = tmp_path / "folders" / str(n % 3) / f"{n:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(n))
    there, here = (
        data.load(source, path=path, size=(8, 8), check=check, quiet=True)
        for source, path, check in (("webdataset", shards, False), ("folder", tmp_path / "folders", True))
    )
    for split in ("train", "val", "test"):
        a, b = there.by_name[split], here.by_name[split]
        order = [a.hashes.index(hash_) for hash_ in b.hashes]
        np.testing.assert_array_equal(a.read(order), b.read(range(len(b))))
        np.testing.assert_array_equal(a.labels[order], b.labels)
    (shards / "000.tar").write_bytes(tar(samples(100)))
    with pytest.raises(InvalidInput, match=r"000\.tar/.*has changed since it was listed"):
        there.train.read(range(len(there.train)))


def test_shards_at_a_url(shards: Path, tmp_path: Path):
    memory = fsspec.filesystem("memory")
    for file in shards.iterdir():
        memory.pipe(f"/bucket/{file.name}", file.read_bytes())
    expected = load_source("webdataset", path=shards)
    for path in ("memory://bucket", "memory://bucket/{000..002}.tar", f"file://{shards}"):
        found = load_source("webdataset", path=path)
        assert (found.names, found.labels) == (expected.names, expected.labels)
        assert [read(content) for content in found.contents] == [png(n) for n in range(60)]
    with pytest.raises(InvalidInput, match=r"memory://bucket/009\.tar cannot be read"):
        load_source("webdataset", path="memory://bucket/009.tar")


def test_urls_that_are_not_read(monkeypatch: pytest.MonkeyPatch):
    for url in ("shell://ls", "ftp://host/a.tar", "s3://a/b.tar::memory://x"):
        with pytest.raises(InvalidInput, match="URLs begin with file://, memory://, s3://"):
            load_source("webdataset", path=url)
    with pytest.raises(InvalidInput, match="user name or password") as error:
        file_system("https://me:secret@host/a.tar")
    assert "secret" not in str(error.value)
    _opened.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(Unavailable, match=r"pip install 'tlkit\[remote\]'"):
        file_system("s3://bucket/a.tar")


def test_labels_and_splits(tmp_path: Path):
    for split, first in (("train", 0), ("val", 30)):
        members = [each for n in range(first, first + 6) for each in (
            (f"sub/{n}.png", png(n)), (f"sub/{n}.json", json.dumps({"label": ["cat", "dog"][n % 2], "x": [1]}).encode())
        )]  # fmt: skip
        (tmp_path / f"photos-{split}-0.tar").write_bytes(tar(members, format=tarfile.PAX_FORMAT))
    found = load_source("webdataset", path=tmp_path, group=r"sub/(\d)")
    assert found.splits == ["train"] * 6 + ["val"] * 6
    assert [found.classes[label] for label in found.labels][:2] == ["cat", "dog"]  # type: ignore[call-overload]
    assert found.groups is not None
    assert found.groups[6:8] == ["3", "3"]


def test_members_that_are_no_examples_are_left_out_and_named(tmp_path: Path):
    members = [
        *samples(0, 6),
        ("../../up.png", png(50)), ("../../up.cls", b"1"),
        ("red\x1b[31m.png", png(51)), ("red\x1b[31m.cls", b"1"),
        ("two.png", png(52)), ("two.jpg", png(53)), ("two.cls", b"1"),
        ("none.png", png(54)),
        ("long.png", png(55)), ("long.cls", b"1" * (2**20 + 1)),
        ("pickled.png", png(56)), ("pickled.pyd", b"cos\nsystem\n."),
        ("0000.png", png(57)), ("0000.cls", b"2"),
    ]  # fmt: skip
    content = bytearray(tar([*members, ("link.png", b"")]))
    place = content.index(b"link.png")
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    content[place : place + 512] = link.tobuf()[:512]
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    found = load_source("webdataset", path=path)
    assert found.names[6:] == ["x.tar/../../up.png", "x.tar/red\\x1b[31m.png"]
    assert {reason: len(names) for reason, names in found.left_out.items()} == {
        "several examples of a key": 1, "no label": 3, "no ordinary file": 1, "key again of a key": 1,
    }  # fmt: skip
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not a whole tar file"),
        (b"\x1f\x8b" + bytes(2000), "compressed ones must be decompressed"),
        (tar(samples(0))[:-12000], "not a whole tar file"),
        (tar([("a.png", png(0)), ("a.cls", b"0")]), "a single class, '0'"),
        (tar([("a.txt", b"0")]), "no example with a label in 1 tar files"),
    ],
)
def test_tar_files_that_cannot_be_used(content: bytes, problem: str, tmp_path: Path):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(InvalidInput, match=problem):
        load_source("webdataset", path=tmp_path / "x.tar")


def test_paths_that_stand_for_no_tar_file(tmp_path: Path):
    for path, problem in (
        (tmp_path, "where there is no tar file"),
        (tmp_path / "no", "No such file or directory"),
        (tmp_path / "{0..999999}.tar", "stands for 1,000,000 files: give 1 to 100,000"),
        (tmp_path / "{5..3}.tar", "stands for 0 files"),
        (tmp_path / "no.tar", "cannot be read: no such file"),
    ):
        with pytest.raises(InvalidInput, match=re.escape(problem)):
            load_source("webdataset", path=path)


def test_a_part_that_its_file_does_not_have(tmp_path: Path):
    (tmp_path / "a").write_bytes(bytes(100))
    assert Piece(str(tmp_path / "a"), 10, 20).read_bytes() == bytes(20)
    with pytest.raises(OSError, match="has 10 of its 20 bytes"):
        Piece(str(tmp_path / "a"), 90, 20).read_bytes()
    with pytest.raises(InvalidInput, match="of memory"):
        Piece(str(tmp_path / "a"), 0, 2**50).read_bytes()
