"""Every modality has what the rest of tlkit asks of it, and a new one is a row and nothing else."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import mlflow
import numpy as np
import pytest
from matplotlib.figure import Figure

from tlkit import cli, config, plots, serving
from tlkit.data import Photos, batches, load, modalities
from tlkit.data.augmentation import MIXING
from tlkit.data.images import Content
from tlkit.data.modalities import Files, Framing, Modality, Requests
from tlkit.data.views import augmentation
from tlkit.errors import InvalidInput
from tlkit.recipes import train

SHAPES = {"photos": (12, 10, 3), "sounds": (50, 1), "arrays": (4, 5, 6, 1)}


def example(name: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = SHAPES[name]
    return rng.integers(0, 256, shape, np.uint8) if name == "photos" else rng.uniform(-1, 1, shape).astype(np.float32)


def test_the_stored_names_stay():
    assert list(modalities.MODALITIES) == ["photos", "sounds", "arrays", "nodes", "features"]
    assert all(name == row.name for name, row in modalities.MODALITIES.items())


def test_an_unknown_modality_is_refused_in_one_line():
    with pytest.raises(
        InvalidInput, match=r"^kind is 'videos'; give one of photos, sounds, arrays, nodes, features$"
    ) as refused:
        modalities.row("videos")
    assert "\n" not in str(refused.value)
    with pytest.raises(InvalidInput, match="features cannot be changed: leave it out"):
        augmentation("features")
    unknown = dataclasses.replace(Photos.of(np.zeros((2, 4, 4, 3), np.uint8), [0, 1]), kind="videos")
    with pytest.raises(InvalidInput, match="kind is 'videos'"):
        batches(unknown, 2, augment={"mixup": 0.2}, classes=2)


@pytest.mark.parametrize("row", modalities.MODALITIES.values(), ids=modalities.MODALITIES)
def test_a_row_is_whole(row: Modality):
    settings = {field.name for field in dataclasses.fields(config.Augment)}
    assert set(row.changes) <= settings
    assert bool(set(row.changes) - set(MIXING)) == (row.augment is not None)
    assert bool(row.example_file) == (row.requests is not None)  # the file is what a server is first asked about
    others = [each for each in modalities.MODALITIES.values() if each is not row]
    assert row.singular not in [each.singular for each in others]
    if row.input:
        assert row.input not in [each.input for each in others]
    if row.requests:
        assert row.requests.column not in [each.requests.column for each in others if each.requests]
    if row.files:
        assert not row.files.suffixes & set().union(*(each.files.suffixes for each in others if each.files))
        assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in row.files.suffixes)
        assert set(row.files.framing) <= set(Framing._fields)


def test_photos_may_have_every_change():
    assert list(modalities.row("photos").changes) == [field.name for field in dataclasses.fields(config.Augment)]


@pytest.mark.parametrize("name", SHAPES)
def test_an_example_is_drawn_written_and_read_back_by_a_server(name: str):
    row, values = modalities.row(name), example(name)
    axes = Figure().subplots()
    (row.draw or plots.draw_photo)(axes, values)
    assert axes.images or axes.collections
    content = row.encode(values, 8000 if row.sampled else None)
    decoded = row.requests.decode(content, values.shape, 8000, "row 0", modalities.Reading())
    np.testing.assert_allclose(decoded, values, atol=2**-15 if row.sampled else 0)
    again = row.requests.decode(values, values.shape, 8000, "row 0", modalities.Reading())
    np.testing.assert_array_equal(again, values)
    assert row.requests.work(content, values.shape, "row 0", modalities.Reading()) > 0


@pytest.mark.parametrize("row", modalities.of_files(), ids=lambda row: row.name)
def test_a_written_example_is_decoded_as_a_file(row: Modality):
    values = example(row.name)
    decoded = row.files.decode(row.encode(values, 8000), values.shape, "a file", modalities.Reading())
    assert (decoded.shape, decoded.dtype) == (values.shape, row.files.dtype)
    np.testing.assert_allclose(decoded, values, atol=2**-15 if row.sampled else 0)


# A new modality: curves, in text files of one number a line.


def read_curve(content: Content, shape: tuple[int, ...], name: str, reading: modalities.Reading) -> np.ndarray:
    text = content.read_bytes() if isinstance(content, Path) else content
    try:
        values = np.array([float(line) for line in bytes(text).split()], np.float32)
    except ValueError as error:
        raise InvalidInput(f"{name}: {error}") from error
    return np.resize(values, shape[0])[:, None]


def frame(contents: Sequence[Content], names: Sequence[str], framing: Framing) -> tuple[tuple[int, ...], None]:
    return (len(Path(contents[0]).read_text(encoding="utf-8").split()), 1), None


def lift(curve: np.ndarray, rng: np.random.Generator, *, brightness: float = 0.0) -> np.ndarray:
    return curve + np.float32(brightness * rng.uniform(0.5, 1))


def requested(
    content: bytes | np.ndarray, shape: tuple[int | None, ...], rate: int | None, name: str, reading: modalities.Reading
) -> np.ndarray:
    return content if isinstance(content, np.ndarray) else read_curve(content, (shape[0] or 0, 1), name, reading)


CURVES = Modality(
    name="curves",
    singular="curve",
    input="heights",
    files=Files(frozenset({".curve"}), np.dtype(np.float32), (), frame, read_curve),
    changes=("brightness", "mixup"),
    augment=lift,
    draw=lambda axes, curve: axes.plot(curve[:, 0], gid="curve"),
    example_file="example.curve",
    encode=lambda curve, rate: "\n".join(map(str, curve[:, 0])).encode(),
    requests=Requests("curve", "a text file of numbers", "an array", requested, lambda content, *_: len(content)),
)


@pytest.fixture
def curves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two classes of curves, which rise or fall, while there is such a modality."""
    monkeypatch.setitem(modalities.MODALITIES, CURVES.name, CURVES)
    rng = np.random.default_rng(0)
    for name, slope in (("falling", -1), ("rising", 1)):
        (folder / "curves" / name).mkdir(parents=True)
        for number in range(40):
            curve = slope * np.linspace(-1, 1, 24) + rng.normal(0, 0.1, 24)
            (folder / "curves" / name / f"{number}.curve").write_text("\n".join(map(str, curve)), encoding="utf-8")
    return folder / "curves"


def test_a_new_modality_is_loaded_batched_and_checked(curves: Path, capsys: pytest.CaptureFixture):
    (curves / "rising" / "0.curve").write_text("high", encoding="utf-8")
    splits = load("folder", path=curves)
    assert "curves set aside, because they cannot be decoded (1):\nrising/0.curve: could not" in capsys.readouterr().err
    assert (splits.kind, splits.modality, splits.train.shape) == ("curves", CURVES, (24, 1))
    plain, lifted = (
        np.concatenate([np.asarray(values) for values, _ in batches(splits.train, 8, augment=changes)])
        for changes in ({}, {"brightness": 0.5})
    )
    assert plain.shape == (len(splits.train), 24, 1)
    assert ((lifted - plain > 0.24) & (lifted - plain < 0.51)).all()
    with pytest.raises(InvalidInput, match="augment has cutmix; curves can have mixup"):
        batches(splits.train, 8, augment={"cutmix": 1.0}, classes=2)
    with pytest.raises(InvalidInput, match=r"size is .* which is for photos; the data are curves: leave it out"):
        load("folder", path=curves, size=(8, 8))
    (curves / "rising" / "photo.png").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"photos and curves \(such as rising/photo.png and falling/0.curve\)"):
        load("folder", path=curves)


@pytest.mark.thorough
def test_a_new_modality_is_trained_drawn_logged_and_served(curves: Path, capsys: pytest.CaptureFixture):
    settings = ["--data.path", "curves", "--builder.filters", "[4]", "--full.epochs", "6", "--batch_size", "8"]
    settings += ["--full.learning_rate", "0.02"]
    assert cli.call(config.Train, train.run, [*settings, "--augment.erasing", "0.5"]) == 2
    assert "augment.erasing is 0.5; curves like these can have brightness and mixup only" in capsys.readouterr().err
    assert cli.call(config.Train, train.run, settings) == 0
    printed = capsys.readouterr().out
    assert "curves: 61 training, 8 validation, 11 test; 24 x 1" in printed
    assert 'predict({"curve": ["' in printed

    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.data.tags["kind"] == "curves"
    folder = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="example.curve"))
    content = folder.read_bytes()
    assert len(content.split()) == 24
    request = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/example_request.json")
    assert request == serving.serving_example(content, "curves")
    assert request["dataframe_split"]["columns"] == ["curve"]

    served = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    curve = np.linspace(-1, 1, 24, dtype=np.float32)[:, None]
    by_array, by_file = (
        served.predict({"curve": [cell]}) for cell in (curve, base64.b64encode(CURVES.encode(curve, None)).decode())
    )
    assert by_array["label"].tolist() == by_file["label"].tolist() == ["rising"]
    assert by_array["probability"].tolist() == pytest.approx(by_file["probability"].tolist())
