"""`predict` for many photos: what may be named, the table of answers, photos that cannot be read, interruptions."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from tlkit import atomic, cli, config, labels
from tlkit.data.images import decode
from tlkit.data.modalities import Reading
from tlkit.data.sources.named import named_photos
from tlkit.errors import InvalidInput
from tlkit.features import engines
from tlkit.recipes import _jobs, predict
from tlkit.serving import many, tables

CLASSES = ["ant", "bee", "cow", "dog", "elk", "fox"]


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(6, activation="softmax")]
    return keras.Sequential([keras.Input((8, 8, 3), name="pixels"), *layers])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: keras.Model) -> Path:
    """A working folder with a model that resizes by `center`, and nine photos among other files."""
    monkeypatch.chdir(tmp_path)
    model.save("model.keras")
    labels.write("model.keras", CLASSES, {"resize": "center"})
    rng = np.random.default_rng(0)
    for place in ("photos", "photos/deep/er"):
        Path(place).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).save(f"{place}/{number}.png")
    Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).save("photos/A.JPG", "PNG")
    for other in ("photos/Thumbs.db", "photos/@eaDir/0.png", "photos/notes.txt", "photos/.hidden.png"):
        Path(other).parent.mkdir(exist_ok=True)
        Path(other).write_text("no photo", encoding="utf-8")
    return tmp_path


def call(*words: str) -> int:
    return cli.call(config.Predict, predict.run, ["model.keras", *words], ("model", "photos"))


def rows(path: str) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def names(*words: str) -> list[str]:
    return list(named_photos(words).photos)


def say_on_standard_input(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


PHOTOS = ["photos/0.png", "photos/1.png", "photos/2.png", "photos/3.png", "photos/A.JPG"]
DEEP = [f"photos/deep/er/{number}.png" for number in range(4)]


def test_a_folder_has_its_photos_and_those_below_it(here: Path):
    Path("photos/loop").symlink_to("..")
    named = named_photos(["photos"])
    assert list(named.photos) == [*PHOTOS, *DEEP]
    assert named.skipped == Counter({"system files": 1, "thumbnails": 1, ".txt files": 1, "links to folders": 1})
    assert names("photos/") == names("./photos") == names("photos")
    again = named_photos(["photos/deep", "photos/deep/er/0.png"])
    assert list(again.photos) == DEEP
    assert again.skipped == Counter({"named again": 1})


def test_patterns(here: Path):
    assert names("photos/[0-2].png") == PHOTOS[:3]
    assert names("photos/**/*.png") == sorted([*PHOTOS[:4], *DEEP])
    assert names(str(here / "*" / "A*")) == [str(here / "photos/A.JPG")]
    assert names("photos/*") == ["photos/0.png", "photos/1.png", "photos/2.png", "photos/3.png", "photos/A.JPG", *DEEP,
                                 "photos/notes.txt"]  # fmt: skip
    Path("photos/loop").symlink_to("..")
    assert names("photos/**/0.png") == ["photos/0.png", "photos/deep/er/0.png"]
    Path("photos/0.png").rename("photos/[0].png")
    assert names("photos/[0].png") == ["photos/[0].png"]
    with pytest.raises(InvalidInput, match=r"no file matches 'photos/\*.gif'"):
        names("photos/*.gif")


def test_tables_of_paths(here: Path):
    Path("lists").mkdir()
    Path("lists/some.tsv").write_text(
        "id\tFile Name\n1\t../photos/0.png\n2\t..\\photos\\a.jpg\n3\t../photos/1\n4\tgone.png\n5\t \n", encoding="utf-8"
    )
    named = named_photos(["lists/some.tsv"]).photos
    assert {name.replace("lists/../", ""): why for name, why in named.items()} == {
        "photos/0.png": "",
        "photos/A.JPG": "",
        "photos/1.png": "",
        "lists/gone.png": "no such file",
        "lists/some.tsv, line 6": "the path is empty",
    }
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"image": PHOTOS[:2], "x": [1, 2]}), "some.parquet")
    assert names("some.parquet") == PHOTOS[:2]
    for header, says in (("a,b", "no column 'path' among"), ("image,photo", "image, photo may hold the paths")):
        Path("wrong.csv").write_text(f"{header}\n1,2\n", encoding="utf-8")
        with pytest.raises(InvalidInput, match=says):
            names("wrong.csv")
    Path("lost.csv").write_text("path\na.png\nb.png\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"no photo of lost\.csv can be read: a\.png: no such file and 1 more"):
        names("lost.csv")


def test_names_on_standard_input(here: Path, monkeypatch: pytest.MonkeyPatch):
    say_on_standard_input(monkeypatch, b"\xef\xbb\xbfphotos/0.png\r\n\nphotos/deep\nphotos/gone.png\n")
    assert named_photos(["-"]).photos == {
        "photos/0.png": "", **dict.fromkeys(DEEP, ""), "photos/gone.png": os.strerror(errno.ENOENT)
    }  # fmt: skip
    Path("photos/0.png").rename("photos/new\nline.png")
    say_on_standard_input(monkeypatch, b"photos/new\nline.png\0photos/1.png\0")
    assert names("-") == ["photos/new\nline.png", "photos/1.png"]
    say_on_standard_input(monkeypatch, b"\n")
    with pytest.raises(InvalidInput, match="no photo in standard input; photos end in"):
        names("-")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InvalidInput, match="standard input, which is closed"):
        names("-")


def test_a_folder_that_cannot_be_read_counts(here: Path, monkeypatch: pytest.MonkeyPatch):
    listed = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("deep"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = named_photos(["photos"]).photos
    assert found == {**dict.fromkeys(PHOTOS, ""), "photos/deep": "the folder cannot be read: Permission denied"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["photos/gone.png"], "there is no photo 'photos/gone.png'; give the path of an image file, a folder"),
        (["photos", "gone"], "there is no photo 'gone'"),
        (["empty"], "no photo in empty; photos end in .bmp"),
        (["litter"], "no photo in litter (skipped: 1 system files); photos end in .bmp"),
        (["photos/*.gif"], "no file matches 'photos/*.gif'"),
        (["photos", "--output", "predictions.txt"], "a name that ends in .csv, .jsonl, .parquet"),
        (["photos", "--output", "taken.csv"], "output is 'taken.csv', which exists and is not overwritten"),
        (["photos", "--output", "no/taken.csv"], "output is 'no/taken.csv'; there is no folder"),
        (["photos", "--threshold", "1.5"], "threshold is 1.5; it must be a probability above 0, up to 1"),
        (["loop.png"], "'loop.png': Too many levels of symbolic links"),
    ],
)
def test_what_is_wrong_is_said_before_keras_is_loaded(
    here: Path, words: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    for folder in ("empty", "litter"):
        Path(folder).mkdir()
    for file in ("litter/Thumbs.db", "taken.csv"):
        Path(file).touch()
    Path("loop.png").symlink_to("loop.png")
    monkeypatch.setattr(_jobs, "start_keras", lambda: pytest.fail("Keras is loaded"))
    assert call(*words) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert (told.err.count("\n"), told.out) == (1, "")


def test_a_wrong_model_comes_first(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(_jobs, "start_keras", lambda: pytest.fail("Keras is loaded"))
    words = ["gone.keras", "gone.png", "--output", "no/folder.csv"]
    assert cli.call(config.Predict, predict.run, words, ("model", "photos")) == 2
    assert "there is no model 'gone.keras'" in capsys.readouterr().err


@pytest.mark.parametrize("is_many", [False, True])
@pytest.mark.parametrize("kind", tables.SUFFIXES)
def test_the_table_has_an_answer_or_a_reason_for_each_photo(
    here: Path, kind: str, is_many: bool, model: keras.Model, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(predict, "PRINTED", 5 if is_many else 64)
    Path("photos/1.png").write_text("a text", encoding="utf-8")
    Path("photos/4.png").touch()
    os.mkfifo("photos/5.png")
    Path("photos/6.png").symlink_to("gone")
    Image.open("photos/0.png").save("photos/new\x1b[2J\nline.png")
    assert call("photos", "--output", f"out{kind}") == 3
    if kind == ".csv":
        found: list[dict[str, Any]] = [{name: cell or None for name, cell in row.items()} for row in rows("out.csv")]
    elif kind == ".jsonl":
        found = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    else:
        from pyarrow import parquet

        found = parquet.read_table("out.parquet").to_pylist()
    assert list(found[0]) == tables.COLUMNS
    problems = {row["path"]: row["error"] for row in found if row["error"]}
    assert problems == {
        "photos/1.png": "not a JPEG, PNG, GIF, BMP, WebP or TIFF image",
        "photos/4.png": "the file is empty (0 bytes)",
        "photos/5.png": "not a file",
        "photos/6.png": os.strerror(errno.ENOENT),
    }
    assert all(row["label"] is None and row["probability"] is None for row in found if row["error"])
    answered = [row for row in found if not row["error"]]
    files = [row["path"] for row in answered]
    assert files == [
        "photos/0.png",
        "photos/2.png",
        "photos/3.png",
        "photos/A.JPG",
        r"photos/new\x1b[2J\nline.png",
        *DEEP,
    ]
    pixels = [decode(Path("photos/0.png" if "line" in file else file), (8, 8), resize="center") for file in files]
    expected = keras.ops.convert_to_numpy(model(np.stack(pixels).astype("float32")))
    for row, shares in zip(answered, expected, strict=True):
        best = np.argsort(-shares)[:5]
        assert [row[f"label_{place}"] for place in range(1, 6)] == [CLASSES[index] for index in best]
        given = [float(row[f"probability_{place}"]) for place in range(1, 6)]
        np.testing.assert_allclose(given, shares[best], atol=1e-6)
        assert (row["label"], float(row["probability"])) == (row["label_1"], given[0])
    told = capsys.readouterr()
    assert "photos that could not be read (4):\nphotos/1.png: not a JPEG" in told.err
    assert "skipped: " in told.err
    assert told.out.startswith("9 photos, and 4 that could not be read\n")
    assert told.out.endswith(f"table  out{kind}: 13 rows, 4 of them with an error\n")
    assert not [name for name in os.listdir() if "part" in name]


def test_few_answers_are_printed_and_many_are_counted(here: Path, monkeypatch, capsys: pytest.CaptureFixture):
    Path("photos/1.png").write_text("a text", encoding="utf-8")
    assert call("photos/0.png", "photos/1.png", "photos/2.png", "--top", "1") == 3
    told = capsys.readouterr()
    assert [line.split("  ")[0] for line in told.out.splitlines()] == ["photos/0.png", "photos/2.png"]
    assert (
        told.err == "photos that could not be read (1):\nphotos/1.png: not a JPEG, PNG, GIF, BMP, WebP or TIFF image\n"
    )
    assert call("photos/1.png") == 2  # nothing was said about any photo
    assert capsys.readouterr().err == "predict: error: photos/1.png: not a JPEG, PNG, GIF, BMP, WebP or TIFF image\n"

    monkeypatch.setattr(predict, "PRINTED", 2)
    assert call("photos") == 3
    first, *lines, empty, hint = capsys.readouterr().out.splitlines()
    assert (first, empty) == ("8 photos, and 1 that could not be read", "")
    assert hint == "Next: --output predictions.csv (or .jsonl, .parquet) writes the answer for each photo."
    assert sum(int(line.split()[1]) for line in lines) == 8
    result = predict.run(config.Predict("model.keras", ["photos"]))
    assert (result.rankings, sum(result.counts.values()), result.unread, result.exit_status) == ([], 8, 1, 3)


def test_below_the_threshold_the_label_is_unsure(here: Path, capsys: pytest.CaptureFixture):
    assert call("photos", "--output", "all.csv") == 0
    shares = sorted(float(row["probability"]) for row in rows("all.csv"))
    threshold = str((shares[3] + shares[4]) / 2)
    assert call("photos", "--output", "sure.csv", "--threshold", threshold) == 0
    for row, plain in zip(rows("sure.csv"), rows("all.csv"), strict=True):
        unsure = float(row["probability"]) < float(threshold)
        assert row["label"] == ("unsure" if unsure else plain["label"])
        assert {**row, "label": ""} == {**plain, "label": ""}
    capsys.readouterr()
    assert call("photos/0.png", "--threshold", "1", "--top", "1") == 0
    assert capsys.readouterr().out.startswith("photos/0.png  unsure  ")


def test_the_word_unsure_must_be_free(here: Path, model: keras.Model, capsys: pytest.CaptureFixture):
    model.save("other.keras")
    labels.write("other.keras", [*CLASSES[:5], "Unsure"])
    Path("other.keras").replace("model.keras")
    assert call("photos", "--threshold", "0.5") == 2
    assert "labels photos 'unsure', and so does the model's class 'Unsure'" in capsys.readouterr().err


def test_several_labels(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    shares = np.array([0.1, 0.9, 0.8, 0.3, 0.2, 0.4])
    head = keras.layers.Dense(6, activation="sigmoid", kernel_initializer="zeros")
    sigmoid = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), head])
    head.bias.assign(np.log(shares / (1 - shares)))
    sigmoid.save("model.keras")
    labels.write("model.keras", CLASSES)
    assert call("photos", "--output", "several.csv") == 0
    first = rows("several.csv")[0]
    assert (first["label"], first["label_1"], first["label_3"]) == ("bee|cow", "bee", "fox")
    assert float(first["probability"]) == pytest.approx(0.9 * 0.9 * 0.8 * 0.7 * 0.8 * 0.6, rel=1e-5)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["bee", "9"], ["cow", "9"]]
    assert call("photos", "--threshold", "0.5") == 2
    assert "any number of labels, or none: leave it out" in capsys.readouterr().err
    head.bias.assign([-1.0] * 6)
    sigmoid.save("model.keras")
    labels.write("model.keras", CLASSES)
    monkeypatch.setattr(predict, "PRINTED", 2)
    assert call("photos") == 0
    assert "  no label          9  100.0%" in capsys.readouterr().out


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("kind", tables.SUFFIXES)
def test_nothing_half_written_stays(here: Path, kind: str, error: Any, monkeypatch, capsys: pytest.CaptureFixture):
    answer, count = predict.Predicted.add, iter(range(3))

    def interrupted(self: Any, *arguments: Any) -> None:
        if next(count, None) is None:
            raise error
        answer(self, *arguments)

    monkeypatch.setattr(predict.Predicted, "add", interrupted)
    before = sorted(os.listdir())
    assert call("photos", "--output", f"out{kind}") == (130 if error is KeyboardInterrupt else 1)
    err = capsys.readouterr().err
    assert f"3 of 9 photos were answered, and none is kept: out{kind} is written whole or not at all\n" in err
    assert sorted(os.listdir()) == before


def test_a_table_that_appears_meanwhile_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "out.csv"
    for links in (True, False):
        if not links:
            monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
        with pytest.raises(FileExistsError), atomic.writing(path, replace=False):
            path.write_bytes(b"theirs")
        assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("out.csv", b"theirs")]
        path.unlink()
        with atomic.writing(path, replace=False) as file:
            file.write(b"ours")
        assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("out.csv", b"ours")]
        path.unlink()


def test_few_photos_are_in_memory_at_a_time():
    """However many there are: what was decoded and not yet answered is bounded, also where many cannot be read."""
    decoded, most = 0, 0

    def read(path: str) -> np.ndarray:
        nonlocal decoded
        if path.endswith("7"):
            raise InvalidInput(f"{path}: damaged")
        decoded += 1
        return np.full((2, 2, 3), int(path) % 5, np.uint8)

    def run(batches: Any) -> Any:
        for batch in batches:
            assert len(batch) <= 4
            yield batch.mean((1, 2))

    photos = {str(number): "" for number in range(2998)}  # the last is damaged
    answered = 0
    for number, found in enumerate(many.predictions(photos, read, lambda sample: engines.Engine("keras", 4, run))):
        assert found.path == str(number)
        if found.probabilities is None:
            assert found.error == "damaged"
        else:
            assert found.probabilities.tolist() == [number % 5] * 3
            answered += 1
        most = max(most, decoded - answered)
    assert (number, answered) == (2997, 2698)
    assert most < 64 * (os.cpu_count() or 1)


def test_an_answer_that_is_no_number_is_the_photos_error():
    found = many.predictions(
        {"a": "", "b": ""}, lambda path: np.zeros((1, 1, 1), np.uint8),
        lambda sample: engines.Engine("keras", 1, lambda batches: (np.array([[math.nan, 1.0]]) for _ in batches)),
    )  # fmt: skip
    assert [(each.path, each.probabilities, "is not a number" in each.error) for each in found] == [
        ("a", None, True),
        ("b", None, True),
    ]


def test_the_engine_for_many_says_what_the_model_says(model: keras.Model):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
    expected = keras.ops.convert_to_numpy(model(pixels.astype("float32")))
    for is_many in (False, True):
        engine, reason = many.engine(model, "model", is_many, pixels[:4])
        assert (engine.name == "openvino") == (is_many and not reason)
        found = np.concatenate(list(engine.run([pixels[:4], pixels[4:8], pixels[8:]])))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_photos_are_read_as_in_training(here: Path, model: keras.Model):
    read = many.reader(model.input_shape[1:], Reading("pad", 4095))
    np.testing.assert_array_equal(
        read("photos/0.png"), decode(Path("photos/0.png"), (8, 8), 3, resize="pad", white=4095)
    )
