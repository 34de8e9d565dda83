"""Exports: the script's photos and answers are tlkit's, parity is proven, and a folder is whole or not there."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import write_arrays, write_photos
from PIL import Image

from tlkit import atomic, cli, config, export, labels
from tlkit.data.images import decode
from tlkit.data.resizing import RESIZES
from tlkit.errors import InvalidInput, Unavailable
from tlkit.export import formats, parity, script, speed
from tlkit.recipes import _export_data, _models, predict
from tlkit.recipes import export as recipe

CLASSES = ["green", "red"]
from_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras exports from TensorFlow")


def installed(name: str) -> Any:
    missing = [module for module in export.FORMATS[name].needs if importlib.util.find_spec(module) is None]
    reason = f"{', '.join(missing)} not installed: pip install 'tlkit[{export.FORMATS[name].extra}]'"
    return pytest.param(name, marks=pytest.mark.skipif(bool(missing), reason=reason))


# How files can be, by name; predict.py's `read` must give the pixels of `decode` for each.


def odd_photos(folder: Path) -> list[Path]:
    """Photos of every kind that people have: turned, CMYK, palette, gray, transparent, with 16 bits."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)
    folder.mkdir(parents=True, exist_ok=True)
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        coarse.save(folder / f"turned{turn}.jpg", exif=exif)
    coarse.resize((900, 700)).save(folder / "large.jpg")
    coarse.convert("CMYK").save(folder / "cmyk.jpg")
    coarse.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png")
    coarse.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "transparent.gif", transparency=3)
    coarse.convert("L").save(folder / "gray.png")
    coarse.convert("1").save(folder / "lines.png")
    coarse.convert("LA").save(folder / "gray_alpha.png")
    alpha = coarse.copy()
    alpha.putalpha(Image.fromarray(rng.integers(0, 256, (120, 160), np.uint8)))
    alpha.save(folder / "alpha.png")
    alpha.save(folder / "alpha.webp", lossless=True)
    deep = rng.integers(0, 65536, (90, 50), np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(deep).save(folder / "deep.tif")
    Image.fromarray(deep).save(folder / "inverted.tif", tiffinfo={262: 0})
    coarse.save(folder / "color.bmp")
    coarse.convert("CMYK").save(folder / "cmyk.tif")
    coarse.resize((3, 200)).save(folder / "thin.png")
    return sorted(folder.iterdir())


def rules(size: int, channels: int, resize: str, white: float | None = None) -> dict[str, Any]:
    same = {"kind": "photos", "classes": CLASSES, "several_labels": False, "width": size, "height": size}
    return same | {"channels": channels, "resize": resize, "white": white}


def made(known: dict[str, Any]) -> dict[str, Any]:
    """The functions of a predict.py as it is written."""
    names: dict[str, Any] = {"__name__": "predict"}
    source = script.compose(export.FORMATS["onnx"].load, known)
    exec(compile(source, "predict.py", "exec"), names)  # noqa: S102  our own
    return names


@pytest.mark.parametrize("name", export.FORMATS)
def test_the_script_is_short_and_clean(tmp_path: Path, name: str):
    more = {"saved_model": 1, "litert": 9}.get(name, 0)
    for known, most in (
        *[(rules(224, 3, resize) | {"classes": list("abc")}, 66) for resize in RESIZES],
        (rules(224, 3, "center") | {"classes": list("abc")}, 57),
        (rules(224, 3, "squash") | {"set_threshold": 0.5}, 60),
        (rules(32, 1, "pad", 4095), 92),
        ({"kind": "arrays", "classes": CLASSES, "several_labels": False, "shape": [8, 8, 8, 1]}, 43),
    ):
        source = script.compose(export.FORMATS[name].load, known)
        lines = [line for line in source.splitlines() if line and not line.strip().startswith('"""')]
        assert len(lines) <= most + more
        (tmp_path / "predict.py").write_text(source, encoding="utf-8")
        for command in ["check"], ["format", "--check"]:
            ruff = [sys.executable, "-m", "ruff", *command, "-q", "--isolated", "--line-length", "120", str(tmp_path)]
            subprocess.run(ruff, check=True)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_script_reads_photos_as_tlkit_does(tmp_path: Path, resize: Any, channels: int):
    photos = odd_photos(tmp_path / "photos")
    assert len(photos) == 23
    read = made(rules(32, channels, resize))["read"]
    for photo in photos:
        ours, theirs = decode(photo, (32, 32), channels, resize=resize), read(str(photo))
        assert theirs.dtype == np.float32
        assert np.array_equal(ours, theirs), photo.name
    wide = made(rules(24, channels, resize) | {"width": 40})["read"]
    assert np.array_equal(decode(photos[0], (24, 40), channels, resize=resize), wide(str(photos[0])))


def test_the_script_knows_which_value_is_white(tmp_path: Path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 4096, (30, 20), np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(rng.integers(0, 4096, (30, 20), np.uint16)).save(tmp_path / "inverted.tif", tiffinfo={262: 0})
    Image.fromarray(rng.integers(0, 2, (30, 20), np.uint8)).save(tmp_path / "mask.png")
    Image.fromarray(rng.integers(0, 256, (30, 20), np.uint8)).save(tmp_path / "plain.png")
    Image.fromarray(rng.integers(0, 2, (30, 20, 4), np.uint8)).save(tmp_path / "color_mask.png")
    Image.fromarray(rng.random((30, 20), np.float32)).save(tmp_path / "floating.tif")
    Image.fromarray(rng.random((30, 20), np.float32)).save(tmp_path / "floating_inverted.tif", tiffinfo={262: 0})
    for name, white in (
        ("deep.png", 4095),
        ("deep.png", 5000.5),
        ("inverted.tif", 4095),
        ("inverted.tif", 5000.5),
        ("mask.png", 1),
        ("color_mask.png", 1),
        ("color_mask.png", 1.5),
        ("plain.png", 1),
        ("floating.tif", 1),
        ("floating_inverted.tif", 1),
    ):
        ours = decode(tmp_path / name, (16, 16), 3, white=white)
        read = made(rules(16, 3, "squash", white))["read"]
        assert np.array_equal(ours, read(str(tmp_path / name))), (name, white)
    for name, white in (("deep.png", 100), ("floating.tif", None)):
        with pytest.raises(InvalidInput):
            decode(tmp_path / name, (16, 16), 3, white=white)
        with pytest.raises(ValueError, match="which is white"):
            made(rules(16, 3, "squash", white))["read"](str(tmp_path / name))


def test_damaged_exif_turns_nothing(tmp_path: Path):
    photo = tmp_path / "photo.jpg"
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(buffer, "JPEG", exif=b"Exif\0\0II*\0\xff")
    photo.write_bytes(buffer.getvalue())
    assert np.array_equal(decode(photo, (8, 8)), made(rules(8, 3, "squash"))["read"](str(photo)))


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Rescaling(1 / 255),
        keras.layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.1, 0.2, 0.3]),
    ]
    layers += [keras.layers.Conv2D(4, 3, activation="gelu")]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, activation="softmax")]
    return keras.Sequential([keras.Input((16, 16, 3), name="pixels"), *layers])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: keras.Model) -> Path:
    """A working folder with a model that resizes by `center`, and two folders of photos; nothing is timed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export, "milliseconds", lambda *_: 1.5)
    model.save("model.keras")
    labels.write("model.keras", CLASSES, {"resize": "center"})
    write_photos(tmp_path / "photos", {"green": 8, "red": 8}, side=20)
    return tmp_path


def call(*words: str) -> int:
    return cli.call(config.Export, recipe.run, ["model.keras", *words], ("model",))


def answers(folder: str, *photos: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, f"{folder}/predict.py", *photos]
    return subprocess.run(command, capture_output=True, text=True)


@from_tensorflow
@pytest.mark.parametrize("name", [installed(name) for name in export.FORMATS if name != "keras_hub"])
def test_every_format_answers_as_its_model(here: Path, name: str, capsys: pytest.CaptureFixture):
    assert call("--output", "out/deep", "--format", name, "--data.path", "photos") == 0
    row = json.loads(Path("out/deep/parity.json").read_text(encoding="utf-8"))
    assert row["largest"] < 1e-5
    assert (row["examples"], row["agreement"], row["paired"]["p_value"]) == (16, 1, 1)
    assert row["before"] == row["after"]
    assert row["bytes"] == export.size(Path("out/deep") / export.FORMATS[name].file) > 500
    assert row["compared_on"] == "16 photos of photos"
    rules = json.loads(Path("out/deep/labels.json").read_text(encoding="utf-8"))
    assert (rules["classes"], rules["resize"], rules["height"], rules["range"]) == (CLASSES, "center", 16, [0, 255])
    card = Path("out/deep/README.md").read_text(encoding="utf-8")
    assert "export model.keras --format" in card
    assert f"| {name} | " in card
    assert "McNemar's exact test: 0 that only" in card
    source = Path("out/deep/predict.py").read_text(encoding="utf-8")
    assert "tlkit" not in source
    assert "NotImplemented" not in source
    compile(source, "predict.py", "exec")
    assert "python out/deep/predict.py PHOTO.jpg" in capsys.readouterr().out
    assert os.listdir("out") == ["deep"]


@from_tensorflow
def test_the_script_prints_what_predict_prints(here: Path, capsys: pytest.CaptureFixture):
    assert call("--output", "out", "--format", "openvino", "--threshold", "0.52") == 0
    photos = [str(photo) for photo in odd_photos(here / "odd")]
    Path("photos/bad\x1b.png").write_bytes(b"no photo")
    photos.append(str(Path(photos[0]).rename("odd/Shot 1\u202fPM \ue000.jpg")))
    del photos[0]
    ended = answers("out", *photos, "photos/bad\x1b.png", "gone.png")
    capsys.readouterr()
    words = ["model.keras", *photos, "--threshold", "0.52"]
    assert cli.call(config.Predict, predict.run, words, ("model", "photos")) == 0
    printed = capsys.readouterr().out
    assert "unsure" in printed
    assert numbers(printed) == numbers(ended.stdout)
    assert ended.returncode == 3
    assert ended.stderr.startswith("photos/bad\\x1b.png could not be read: cannot identify image")
    assert answers("out").returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [installed(name) for name in export.FORMATS if name != "keras_hub"])
def test_the_script_runs_in_a_fresh_environment(here: Path, name: str, capsys: pytest.CaptureFixture):
    """With the packages that the card names and no others; they are installed from an index."""
    assert call("--output", "out", "--format", name) == 0
    photos = [str(photo) for photo in odd_photos(here / "odd")]
    capsys.readouterr()
    assert cli.call(config.Predict, predict.run, ["model.keras", *photos], ("model", "photos")) == 0
    venv.create("fresh", with_pip=True)
    (line,) = [line for line in Path("out/README.md").read_text(encoding="utf-8").splitlines() if "pip install" in line]
    python, packages = str(here / "fresh/bin/python"), line.split("install ")[1].split()
    constraints = Path(__file__).parents[1] / "constraints.txt"
    subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, *packages], check=True)
    environment = {"PATH": os.environ["PATH"], "TF_CPP_MIN_LOG_LEVEL": "3"}
    ended = subprocess.run([python, "out/predict.py", *photos], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert numbers(capsys.readouterr().out) == numbers(ended.stdout)
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout.lower()
    others = {"saved_model": [], "litert": ["tensorflow"]}.get(name, ["tensorflow", "keras"])
    assert not [package for package in (*others, "tlkit", "opencv", "scipy") if f"\n{package}" in listed]


def numbers(text: str) -> list[Any]:
    """Words, and numbers rounded so that the fourth digit may differ by one."""
    words = [word for line in text.splitlines() for word in line.split()]
    return [pytest.approx(float(word), abs=1.1e-4) if word.startswith("0.") else word for word in words]


@from_tensorflow
def test_without_photos_random_numbers_are_compared(here: Path, capsys: pytest.CaptureFixture):
    assert call("--output", "out", "--format", "openvino") == 0
    assert "random numbers take their place; --data.path gives some" in capsys.readouterr().err
    assert json.loads(Path("out/parity.json").read_text(encoding="utf-8"))["before"] is None
    assert "on random numbers alone" in Path("out/README.md").read_text(encoding="utf-8")


@from_tensorflow
def test_photos_without_labels_are_compared(here: Path):
    assert call("--output", "out", "--format", "openvino", "--data.path", "photos/red") == 0
    row = json.loads(Path("out/parity.json").read_text(encoding="utf-8"))
    assert (row["examples"], row["after"], row["compared_on"]) == (8, None, "8 photos of photos/red without labels")


def test_examples_are_read_as_the_model_reads_them(here: Path):
    for name, number in (("green", 0), ("red", 1)):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 60, 3), np.uint8)).save(
            f"photos/{name}/wide.png"
        )
    classifier = _models.load_classifier("model.keras", None, "export")
    classifier = classifier._replace(classes=["red", "other", "green"])  # in another order than that of the folders
    given = _export_data.examples(config.Export("m", "out", data=config.Data(path="photos")), classifier, None)
    assert given.calibration is None
    assert sorted(np.unique(given.scored.labels, return_counts=True)[1]) == [9, 9]
    for name, label in (("green", 2), ("red", 0)):
        pixels = decode(Path(f"photos/{name}/wide.png"), (16, 16), resize="center")
        places = [place for place, row in enumerate(given.scored.values) if np.array_equal(row, pixels)]
        assert [given.scored.labels[place] for place in places] == [label]
    unlabeled = config.Export("m", "out", data=config.Data(path="photos/red"))
    rows = _export_data.examples(unlabeled, classifier, None).scored.values
    assert sum(np.array_equal(row, pixels) for row in rows) == 1
    with pytest.raises(InvalidInput, match="classes that the model does not have: green; it has red, blue"):
        _export_data.examples(
            config.Export("m", "out", data=config.Data(path="photos")),
            classifier._replace(classes=["red", "blue"]),
            None,
        )


@from_tensorflow
def test_volumes_are_exported_too(here: Path):
    layers = [keras.layers.Conv3D(2, 3), keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")]
    keras.Sequential([keras.Input((8, 8, 8, 1), name="values"), *layers]).save("volumes.keras")
    write_arrays(here / "volumes.npz", (8, 8, 8, 1))
    labels.write("volumes.keras", ["0", "1"])
    words = ["volumes.keras", "--format", "openvino", "--output", "out", "--data.path", "volumes.npz"]
    assert cli.call(config.Export, recipe.run, words, ("model",)) == 0
    row = json.loads(Path("out/parity.json").read_text(encoding="utf-8"))
    assert (row["examples"], row["agreement"], row["compared_on"]) == (60, 1, "60 arrays of volumes.npz")
    np.save("one.npy", np.zeros((8, 8, 8, 1), np.uint8))
    np.save("other.npy", np.zeros((8, 8, 9, 1), np.uint8))
    ended = answers("out", "one.npy", "other.npy")
    assert ended.returncode == 3
    assert ended.stdout.startswith("one.npy  0 0.")
    assert "other.npy could not be read: cannot reshape" in ended.stderr
    card = Path("out/README.md").read_text(encoding="utf-8")
    assert "takes arrays as numbers, float32, of the shape (examples, 8, 8, 8, 1)" in card
    assert "photo" not in card


class Masked(keras.layers.Layer):
    """What Swin does: a tensor that the layer holds, and a slice of another that is replaced."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.table = keras.ops.arange(8, dtype="float32")

    def call(self, x: Any) -> Any:
        mask = keras.ops.slice_update(keras.ops.ones((1, 8, 8, 1)), [0, 2, 1, 0], keras.ops.zeros((1, 3, 5, 1)))
        return x * mask + self.table


@from_tensorflow
@pytest.mark.parametrize("name", [installed(name) for name in ("onnx", "openvino")])
def test_converters_know_what_they_were_taught(tmp_path: Path, name: str):
    x = keras.Input((8, 8, 8))
    y = keras.layers.Conv2D(8, 3, groups=4, activation="gelu")(Masked()(x))
    model = keras.Model(x, keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(y)))
    values = np.random.default_rng(0).normal(size=(5, 8, 8, 8)).astype(np.float32)
    answers = export.run(name, export.write(name, model, tmp_path), values)
    np.testing.assert_allclose(answers, model.predict(values, verbose=0), atol=1e-6)
    assert np.ptp(answers, axis=0).max() > 1e-3


@from_tensorflow
def test_an_export_that_differs_is_not_written(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    run = export.run
    monkeypatch.setattr(export, "run", lambda *given: run(*given) + np.float32(2e-4))
    assert call("--output", "out", "--format", "openvino") == 1
    assert "openvino: probabilities differ by up to 0.0002, more than 0.0001: nothing is" in capsys.readouterr().err
    assert sorted(os.listdir()) == ["model.keras", "photos"]
    assert call("--output", "out", "--format", "openvino", "--accept") == 0
    monkeypatch.setattr(export, "run", lambda *given: run(*given) * np.float32("nan"))
    assert call("--output", "other", "--format", "openvino") == 1
    assert not Path("other").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), RuntimeError("x")])
def test_a_folder_is_whole_or_not_there(tmp_path: Path, error: BaseException):
    def fail():
        with atomic.writing_folder(tmp_path / "out") as folder:
            (folder / "a").write_bytes(b"a")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    with atomic.writing_folder(tmp_path / "out") as folder:
        (folder / "a").write_bytes(b"a")
    with pytest.raises(OSError, match="not empty"), atomic.writing_folder(tmp_path / "out") as folder:
        (folder / "b").write_bytes(b"b")
    assert [each.name for each in tmp_path.rglob("*")] == ["out", "a"]


@from_tensorflow
def test_what_is_refused_before_any_work(
    here: Path, model: keras.Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine", encoding="utf-8")
    keras.Model(model.inputs, model.layers[-2].output).save("features.keras")
    keras.Model(model.inputs, model.layers[1].output).save("maps.keras")
    refused = [
        (["model.keras"], "output is missing: give --output"),
        (["gone.keras", "--output", "out"], "there is no model 'gone.keras'"),
        (["model.keras", "--output", "full"], "which is not empty, and nothing is overwritten"),
        (["model.keras", "--output", "full/mine.txt"], "which is a file: give a new folder"),
        (["model.keras", "--output", "out", "--format", "coreml"], "format: expected one of onnx, openvino"),
        (["maps.keras", "--output", "out", "--format", "openvino"], "export needs a classifier of photos"),
        (["model.keras", "--output", "out", "--format", "saved_model", "--int8"], "which has no int8 here"),
        (["model.keras", "--output", "out", "--format", "openvino", "--data.path", "nowhere"], "nowhere"),
    ]
    for words, says in refused:
        assert cli.call(config.Export, recipe.run, words, ("model",)) == 2
        message = capsys.readouterr().err
        assert says in message
        assert len(message.strip().splitlines()) == 1
    assert not Path("out").exists()
    find = importlib.util.find_spec
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None if "onnx" in name else find(name))
    with pytest.raises(InvalidInput, match=r"needs onnx, tf2onnx, onnxruntime: pip install 'tlkit\[onnx\]'"):
        export.check("onnx")


@from_tensorflow
def test_speed_is_measured_in_another_process(here: Path, model: keras.Model):
    path = export.write("openvino", model, here)
    assert 0 < speed.milliseconds("openvino", path, (16, 16, 3), 1) < 1000
    with pytest.raises(OSError, match="the speed of openvino cannot be measured"):
        speed.milliseconds("openvino", here / "gone.xml", (16, 16, 3), 1)


def test_labels_are_strict_json():
    assert export.dumped({"a": float("nan"), "b": {"c": float("inf")}, "é": 1.5}) == (
        '{\n "a": null,\n "b": {\n  "c": null\n },\n "é": 1.5\n}\n'
    )


def test_parity_of_several_labels_and_of_one_unit():
    first, second = np.array([[0.9, 0.6], [0.2, 0.3]]), np.array([[0.9, 0.4], [0.2, 0.3]])
    found = parity.compare(first, second, True, export.Examples(first, np.array([[1, 1], [0, 0]]), "two"))
    assert (found.agreement, found.before, found.after) == (0.5, 1, 0.5)
    found = parity.compare(first[:, 1:], second[:, 1:], False, export.Examples(first, np.array([1, 0]), "two"))
    assert (found.agreement, found.before, found.after) == (0.5, 1, 0.5)
    with pytest.raises(Unavailable, match="of shape"):
        parity.compare(first, second[:1], True, export.Examples(first, None, "two"))


def test_the_script_answers_for_two_classes_by_one_unit_and_for_several_labels():
    known = {"classes": ["cat", "dog\n"], "threshold": None, "temperature": 1.0}
    one = made(rules(8, 3, "squash"))["answer"]
    several = made(rules(8, 3, "squash") | {"several_labels": True})["answer"]
    assert one(np.array([0.25]), known) == "cat 0.7500  dog\\n 0.2500"
    assert several(np.array([0.75, 0.6]), known) == "cat* 0.7500  dog\\n* 0.6000"
    many = several(np.array([0.1, 0.9, 0.8, 0.7, 0.6]), known | {"classes": list("abcde")})
    assert many == "b* 0.9000  c* 0.8000  d* 0.7000  e* 0.6000"
    warmer = known | {"temperature": 2.0}
    assert one(np.array([0.9, 0.1]), warmer) == "cat 0.7500  dog\\n 0.2500"
    for answer in one, several:
        with pytest.raises(ValueError, match="not a number"):
            answer(np.array([np.nan, 0.1]), warmer)
