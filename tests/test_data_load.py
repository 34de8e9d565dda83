"""Loading opens every photo once, sets aside what is damaged, and gives the same splits and pixels in memory or not."""

import csv
import gc
import hashlib
import io
import os
import sys
import tracemalloc
import typing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlkit import data, untrusted
from tlkit.data import ExampleSet, Photos, Splits, images, load
from tlkit.data.contents import Paths
from tlkit.data.photos import Row
from tlkit.data.split import divide
from tlkit.errors import InvalidInput


@pytest.fixture
def flowers(tmp_path):
    """Two classes of 40 photos, all different, of different sizes."""
    rng = np.random.default_rng(0)
    for name in ("daisy", "rose"):
        (tmp_path / name).mkdir()
        for i in range(40):
            pixels = rng.integers(0, 256, (20 + i, 30, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i:02}.jpg")
    return tmp_path


def parts(splits):
    return {"train": splits.train, "val": splits.val, "test": splits.test}


def test_every_photo_is_in_one_split_and_none_is_in_two(flowers):
    splits = load("folder", path=flowers, size=(16, 24))
    names = [name for part in parts(splits).values() for name in part.names]
    assert len(names) == len(set(names)) == 80
    hashes = [set(part.hashes) for part in parts(splits).values()]
    assert sum(map(len, hashes)) == len(set.union(*hashes)) == 80
    assert splits.warnings == splits.set_aside == []
    for part in parts(splits).values():
        assert part.labels.dtype == np.int32
        assert [splits.classes[label] for label in part.labels] == [name.split("/")[0] for name in part.names]
        assert part.hashes == [hashlib.sha256((flowers / name).read_bytes()).hexdigest() for name in part.names]


@pytest.mark.parametrize("channels", [1, 3])
def test_streamed_pixels_are_those_kept_in_memory(flowers, channels):
    (flowers / "daisy" / "00.jpg").write_bytes(b"damaged")  # rows and positions differ after it
    kept, streamed = (load("folder", path=flowers, size=(16, 24), channels=channels, memory=m) for m in (10**9, 0))
    assert isinstance(kept.train.stored, np.ndarray)
    assert not isinstance(streamed.train.stored, np.ndarray)
    assert kept.digest == streamed.digest
    for part, other in zip(parts(kept).values(), parts(streamed).values(), strict=True):
        order = np.random.default_rng(1).permutation(len(part))
        pixels = part.read(order)
        assert pixels.shape == (len(part), 16, 24, channels)
        assert pixels.dtype == np.uint8
        assert np.array_equal(pixels, other.read(order))
        assert part.names == other.names


def test_what_is_read_can_be_changed_without_changing_the_photos(flowers):
    train = load("folder", path=flowers, size=(8, 8)).train
    before = train.read([0])
    train.read([0])[...] = 7
    assert np.array_equal(train.read([0]), before)


def test_each_photo_is_decoded_once_where_memory_suffices(flowers, monkeypatch):
    opened = []
    monkeypatch.setattr(images, "decode", lambda *args, real=images.decode: opened.append(args[3]) or real(*args))
    splits = load("folder", path=flowers, size=(8, 8))
    splits.train.read(range(len(splits.train)))
    assert len(set(opened)) == 80
    assert len(opened) <= 81  # one more for the range of the values


def test_damaged_photos_are_named_counted_and_set_aside(flowers, capsys):
    for i in range(12):
        (flowers / "rose" / f"{i:02}.jpg").write_bytes(b"" if i else b"words")
    splits = load("folder", path=flowers, size=(8, 8))
    assert len(splits.set_aside) == 12
    assert sum(map(len, parts(splits).values())) == len(splits.manifest()) == 68
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "photos set aside, because they cannot be decoded (12):"
    assert told[1] == "rose/00.jpg: not a JPEG, PNG, GIF, BMP, WebP or TIFF image"
    assert told[10] == "rose/09.jpg: the file is empty (0 bytes)"
    assert told[11:] == ["and 2 more"]


def test_strict_stops_at_a_damaged_photo(flowers):
    (flowers / "rose" / "07.jpg").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"^rose/07\.jpg: the file is empty .* without data\.strict it would be set"):
        load("folder", path=flowers, size=(8, 8), strict=True)


def test_a_class_of_damaged_photos_is_an_error(flowers):
    for photo in (flowers / "rose").iterdir():
        photo.write_bytes(b"")
    with pytest.raises(InvalidInput, match="no photo of rose is left to train on"):
        load("folder", path=flowers, size=(8, 8))
    for photo in (flowers / "daisy").iterdir():
        photo.write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"none of the 80 photos can be decoded: daisy/00\.jpg: the file is empty"):
        load("folder", path=flowers, size=(8, 8))


def test_a_photo_listed_with_two_labels_is_named_with_both(flowers):
    rows = [f"{path.relative_to(flowers)},{path.parent.name}" for path in sorted(flowers.glob("*/*.jpg"))]
    (flowers / "list.csv").write_text("\n".join(["path,label", *rows, "daisy/03.jpg,rose"]), encoding="utf-8")
    warnings = load("csv", path=flowers / "list.csv", size=(8, 8)).warnings
    assert "photos with several labels (1): daisy/03.jpg (daisy) = daisy/03.jpg (rose)" in warnings


def test_a_photo_that_goes_away_in_mid_training_is_named(flowers):
    train = load("folder", path=flowers, size=(8, 8), memory=0).train
    (flowers / train.names[3]).unlink()
    with pytest.raises(InvalidInput, match=f"^{train.names[3]}: No such file"):
        train.read([2, 3])


def test_the_manifest_can_be_read_back(flowers, tmp_path):
    splits = load("folder", path=flowers, size=(8, 8))
    splits.write_manifest(flowers / "manifest.csv")
    assert hashlib.sha256((flowers / "manifest.csv").read_bytes()).hexdigest() == splits.digest
    with open(flowers / "manifest.csv", newline="", encoding="utf-8") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rows == [row[:4] for row in splits.manifest()] == sorted(rows)
    again = load("csv", path=flowers / "manifest.csv", size=(8, 8))
    assert again.digest == splits.digest


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are always Unicode")
def test_a_file_name_need_not_be_utf8(flowers):
    os.rename(flowers / "rose" / "00.jpg", os.fsencode(flowers / "rose") + b"/\xff\n.jpg")
    os.rename(flowers / "rose", os.fsencode(flowers) + b"/ros\xe9\x1b[31m")
    splits = load("folder", path=flowers, size=(8, 8))
    assert "classes whose names are written with escapes (1): ros\\xe9\\x1b[31m" in splits.warnings
    splits.write_manifest(flowers / "manifest.csv")
    text = (flowers / "manifest.csv").read_text(encoding="utf-8")
    assert ",ros\\xe9\\x1b[31m/\\xff\\n.jpg,ros\\xe9\\x1b[31m," in text
    again = load("csv", path=flowers / "manifest.csv", size=(8, 8))
    assert (again.digest, again.classes) == (splits.digest, splits.classes)


def test_the_digest_follows_the_content_and_not_the_place(flowers, tmp_path_factory):
    digest = load("folder", path=flowers, size=(8, 8)).digest
    moved = tmp_path_factory.mktemp("moved") / "flowers"
    flowers.rename(moved)
    assert load("folder", path=moved, size=(16, 16), memory=0).digest == digest
    (moved / "rose" / "00.jpg").write_bytes((moved / "rose" / "01.jpg").read_bytes())
    assert load("folder", path=moved, size=(8, 8)).digest != digest


def test_available_memory_is_plausible():
    assert 2**20 < untrusted.available_memory() < 2**50


def test_photos_of_pixels_at_hand():
    pixels = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1)
    made = Photos.of(pixels, [1, 0], ["x", "y"])
    assert (made.names, made.labels.tolist(), made.shape, len(made)) == (["x", "y"], [1, 0], (4, 4, 1), 2)
    assert np.array_equal(made.read([1, 0]), pixels[::-1])


def test_the_types_of_what_is_loaded_say_what_it_is():
    given, loaded = typing.get_type_hints(load), typing.get_type_hints(Splits)
    assert given["return"] is Splits
    assert (loaded["train"], loaded["val"], loaded["test"]) == (Photos, Photos, Photos | None)
    assert "Any" not in str([*given.values(), *loaded.values(), *typing.get_type_hints(Photos).values()])


def test_the_example_of_the_library(flowers: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(flowers.parent)
    splits = data.load("folder", path=flowers.name, size=(24, 16))
    assert splits.classes == ["daisy", "rose"]
    assert splits.test is not None
    assert splits.train.read([0, 1]).shape == (2, 24, 16, 3)
    examples: ExampleSet = splits.train
    assert (len(examples), examples.kind, examples.shape) == (len(examples.labels), "photos", (24, 16, 3))


def test_a_listed_photo_takes_little_memory():
    """A million must fit into 1.5 GB, with what Python and the libraries take."""
    count = 10_000
    names = [f"cat/{number:07}.png" for number in range(count)]
    hashes = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    labels = np.arange(count) % 100
    gc.collect()
    tracemalloc.start()
    try:
        for given in (None, ["train", "val", "test"]):
            source_splits = [given[number % 3] if given else None for number in range(count)]
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            classes = [str(label) for label in range(100)]
            division = divide(hashes, labels, names, source_splits, classes)
            dividing = tracemalloc.get_traced_memory()[1] - before
            every = Photos(names, hashes, labels, (8, 8, 3), Paths(Path("photos"), names), np.arange(count))
            parts = [
                every.select(np.flatnonzero(np.array(division.splits) == split)) for split in ("train", "val", "test")
            ]
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            splits = Splits(classes, *parts, [], [])
            assert sum(part[0] for part in splits.parts.values()) == count
            listing = tracemalloc.get_traced_memory()[1] - before
            assert dividing < 250 * count
            assert listing < 200 * count
    finally:
        tracemalloc.stop()


def test_the_manifest_is_sorted_also_among_copies(tmp_path: Path):
    rng = np.random.default_rng(0)
    hashes = [hashlib.sha256(bytes([number])).hexdigest() for number in rng.integers(0, 20, 9000)]
    names = [f"{number:04}{', ' if number % 7 else chr(34)}é\ud800" for number in rng.permutation(9000)]
    every = Photos(names, hashes, rng.integers(0, 2, 9000), (8, 8, 3), Paths(Path("photos"), names), np.arange(9000))
    splits = Splits(["cat", "dog"], *(every.select(range(start, 9000, 3)) for start in range(3)), [], [])
    rows = splits.manifest()
    assert rows == sorted(rows)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([row[:4] for row in (Row._fields, *rows)])
    whole = text.getvalue().encode("utf-8", "backslashreplace")
    splits.write_manifest(tmp_path / "manifest.csv")
    assert (tmp_path / "manifest.csv").read_bytes() == whole
    assert splits.digest == hashlib.sha256(whole).hexdigest()
    lines = whole.splitlines(keepends=True)
    for split, part in splits.by_name.items():
        own = [line for line, row in zip(lines[1:], rows, strict=True) if row.split == split]
        assert splits.parts[split] == (len(part), hashlib.sha256(b"".join([lines[0], *own])).hexdigest())
