"""How a photo of another aspect ratio becomes one of a given size, wherever it is read."""

import io
import json
from pathlib import Path
from typing import get_args, get_type_hints

import keras
import numpy as np
import pytest
import yaml
from PIL import Image

from tlkit import cli, config, data, serving
from tlkit.data import decode, images, resizing
from tlkit.data.modalities import Reading
from tlkit.errors import InvalidInput
from tlkit.recipes import _decisions, _models, _network_pictures, _search, feature_extraction, predict, train

SIZES = [(224, 224), (112, 224), (224, 56)]


def noise(height: int, width: int) -> np.ndarray:
    """Smooth enough for JPEG, and different everywhere."""
    small = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def test_the_setting_has_the_modes_of_the_decoder():
    literal, none = get_args(get_type_hints(config.Data)["resize"])
    assert (literal, none) == (resizing.Resize, type(None))


@pytest.mark.parametrize(("resize", "kept"), [("center", 1.0), ("crop", 0.875)])
@pytest.mark.parametrize(
    ("size", "height", "width"),
    [
        ((224, 224), 512, 768),
        ((224, 224), 768, 512),
        ((224, 224), 512, 512),
        ((112, 224), 576, 768),
        ((224, 56), 768, 576),
    ],
)
def test_center_and_crop_are_a_resize_of_the_whole_photo_and_then_its_center(
    size: tuple[int, int], height: int, width: int, resize: resizing.Resize, kept: float
):
    """As timm does it: the photo covers size / kept, here in whole pixels, and the window in its middle is cut out."""
    photo = noise(height, width)
    scale = max(size[0] / kept / height, size[1] / kept / width)
    whole = Image.fromarray(photo).resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
    left, top = (whole.width - size[1]) // 2, (whole.height - size[0]) // 2
    expected = np.asarray(whole.crop((left, top, left + size[1], top + size[0])))
    found = decode(encoded(photo), size, resize=resize)
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("size", SIZES)
def test_pad_keeps_the_whole_photo_and_fills_the_rest_with_gray(size: tuple[int, int]):
    photo = noise(512, 768)
    scale = min(size[0] / 512, size[1] / 768)
    height, width = round(512 * scale), round(768 * scale)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    expected = np.full((*size, 3), 128, np.uint8)
    inner = Image.fromarray(photo).resize((width, height), Image.Resampling.BILINEAR)
    expected[top : top + height, left : left + width] = np.asarray(inner)
    np.testing.assert_array_equal(decode(encoded(photo), size, resize="pad"), expected)


@pytest.mark.parametrize("side", [43, 100, 512])
def test_the_center_of_a_square_is_all_of_it(side: int):
    photo = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    np.testing.assert_array_equal(decode(photo, (224, 224), resize="center"), decode(photo, (224, 224)))


def test_squash_is_a_plain_resize():
    photo = noise(512, 768)
    expected = np.asarray(Image.fromarray(photo).resize((224, 112), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode(encoded(photo), (112, 224)), expected)


@pytest.mark.parametrize("resize", resizing.RESIZES)
def test_a_photo_is_turned_upright_first(resize: resizing.Resize):
    photo, tags = noise(96, 160), Image.Exif()
    tags[0x0112] = 6  # stored turned to the left
    turned = encoded(np.ascontiguousarray(np.rot90(photo)), exif=tags)
    np.testing.assert_array_equal(decode(turned, (24, 56), resize=resize), decode(photo, (24, 56), resize=resize))


@pytest.mark.parametrize("resize", resizing.RESIZES)
@pytest.mark.parametrize(("height", "width"), [(1, 5000), (5000, 1), (1, 1), (3, 2)])
def test_photos_of_every_aspect_are_resized(resize: resizing.Resize, height: int, width: int):
    photo = np.full((height, width), 200, np.uint8)
    found = decode(photo, (7, 9), 1, resize=resize)
    assert found.shape == (7, 9, 1)
    assert set(np.unique(found)) == ({128, 200} if resize == "pad" else {200})


@pytest.mark.parametrize(("resize", "side"), [("squash", 500), ("center", 500), ("crop", 1000), ("pad", 500)])
def test_a_large_jpeg_is_decoded_to_twice_what_is_needed_or_more(
    resize: resizing.Resize, side: int, monkeypatch: pytest.MonkeyPatch
):
    photo = encoded(noise(1000, 1000), "JPEG", quality=95)
    resized, plain = [], Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, *args, **options: resized.append(self.size) or plain(self, *args, **options)
    )
    found = decode(photo, (224, 224), resize=resize)  # crop needs 2 * 256
    assert resized == [(side, side)]
    monkeypatch.undo()
    exact = decode(np.asarray(Image.open(io.BytesIO(photo))), (224, 224), resize=resize)
    assert np.abs(found.astype(int) - exact).mean() < 2
    assert images.work(photo, (224, 224), resize=resize) >= side * side


def test_another_way_is_refused():
    with pytest.raises(InvalidInput, match="resize is 'stretch': give one of squash, center, crop, pad"):
        decode(noise(8, 8), (8, 8), resize="stretch")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of photos that are wider than high, and differ towards their ends."""
    for name in ("a", "b"):
        for number in range(6):
            path = tmp_path / "photos" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.roll(noise(48, 96), 8 * number + 4 * (name == "a"), axis=1)
            path.write_bytes(encoded(pixels))
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")]
    return keras.Sequential([keras.Input((16, 16, 3), name="pixels"), *layers])


@pytest.mark.parametrize("resize", resizing.RESIZES)
def test_training_predict_and_the_server_see_the_same_photo(
    resize: resizing.Resize, photos: Path, model: keras.Model, tmp_path: Path
):
    import mlflow.pyfunc

    splits = data.load("folder", path=photos, size=(16, 16), resize=resize)
    part = splits.train
    wanted = model.predict(part.read(range(len(part))), verbose=0)
    serving.save_model(
        tmp_path / "model", model, ["a", "b"], kind="photos", reading=splits.reading, requirements=["keras"]
    )
    names = [str(photos / name) for name in part.names]
    file = str(tmp_path / "model" / "data" / "model.keras")
    for ranking, row in zip(predict.run(config.Predict(model=file, photos=names)).rankings, wanted, strict=True):
        assert [dict(ranking)[label] for label in "ab"] == pytest.approx(row.tolist(), abs=1e-5)
    table = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(
        {"image": [Path(name).read_bytes() for name in names]}
    )
    np.testing.assert_allclose(table.probability, wanted.max(1), atol=1e-5)

    seen = _network_pictures.sample((16, 16, 3), names[0], _models.load(file).reading)
    np.testing.assert_array_equal(seen, part.read([0])[0])
    flavor = yaml.safe_load((tmp_path / "model" / "MLmodel").read_text(encoding="utf-8"))["flavors"]["python_function"]
    assert flavor.get("reading", {}) == ({} if resize == "squash" else {"resize": resize})


def test_the_modes_see_different_photos(photos: Path):
    seen = [
        data.load("folder", path=photos, size=(16, 16), resize=resize).train.read([0]).tobytes()
        for resize in resizing.RESIZES
    ]
    assert len(set(seen)) == 4


@pytest.mark.parametrize("check", [True, False])
def test_photos_are_read_alike_from_memory_and_from_files(photos: Path, check: bool):
    part = data.load("folder", path=photos, size=(16, 16), resize="pad", check=check).train
    np.testing.assert_array_equal(part.read([1])[0], decode(photos / part.names[1], (16, 16), resize="pad"))


def test_only_photos_are_resized(tmp_path: Path):
    volumes = {"train_images": np.zeros((8, 4, 4, 4), np.float32), "train_labels": np.arange(8) % 2}
    np.savez(tmp_path / "volumes.npz", **volumes)
    with pytest.raises(InvalidInput, match=r"data\.resize is crop, which is for photos; the data are arrays: leave it"):
        data.load("npz", path=tmp_path / "volumes.npz", resize="crop")


def test_a_served_model_that_reads_in_an_unknown_way_is_refused(model: keras.Model, tmp_path: Path):
    import mlflow.pyfunc

    serving.save_model(tmp_path / "model", model, ["a", "b"], kind="photos", requirements=["keras"])
    file = tmp_path / "model" / "MLmodel"
    saved = yaml.safe_load(file.read_text(encoding="utf-8"))
    saved["flavors"]["python_function"]["reading"] = {"resize": "stretch"}
    file.write_text(json.dumps(saved), encoding="utf-8")
    with pytest.raises(InvalidInput, match="the reading has 'resize': 'stretch', which this version of tlkit does not"):
        mlflow.pyfunc.load_model(str(tmp_path / "model"))


@pytest.mark.thorough
@pytest.mark.usefixtures("folder", "undrawn")
def test_a_run_reads_as_it_was_asked_to_and_its_model_too(photos: Path):
    from mlflow import search_runs

    settings = ["--backbone.name", "LetterNet", "--backbone.weights", "none", "--features.engine", "keras"]
    argv = [*settings, "--data.path", str(photos), "--data.image_size", "16", "--data.resize", "crop"]
    assert cli.call(config.FeatureExtraction, feature_extraction.run, argv) == 0
    (run,) = search_runs(search_all_experiments=True, output_format="list")
    assert run.data.params["data.resize"] == "crop"
    saved = _models.load(f"runs:/{run.info.run_id}/model")
    assert saved.reading == Reading("crop")

    rows = json.loads(mlflow_text(run, "predictions.json"))
    file = rows["columns"].index("file")
    name, told = rows["data"][0][file], rows["data"][0]
    seen = decode(photos / name, (16, 16), 1, resize="crop")
    share = float(saved.model.predict(seen[None], verbose=0).max())
    assert told[rows["columns"].index("probability")] == pytest.approx(share, abs=1e-4)


def mlflow_text(run, name: str) -> str:
    from mlflow import artifacts

    return artifacts.load_text(f"{run.info.artifact_uri}/{name}")


def test_where_it_is_left_open_the_decision_is_a_setting_of_the_run(photos: Path):
    assert _decisions.completed(config.FeatureExtraction()).data.resize == "squash"  # digits
    given = config.Data(path=str(photos))
    assert _decisions.completed(config.FeatureExtraction(data=given)).data.resize == "center"
    examples = data.load_source("folder", path=photos)
    decided = {each.setting: each.value for each in train.fill_in(config.Train(data=given), examples)}
    assert decided["data.resize"] == "center"


def test_tune_may_choose_it():
    space = {"data": {"resize": {"choice": ["squash", "crop"]}}}
    assert {corner.data.resize for corner in _search.check(config.Tune(space=space))[1]} == {"squash", "crop"}
