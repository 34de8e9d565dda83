"""The previews of a config: the sheet of augmented photos, and the range test of its learning rates."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pytest
from conftest import write_arrays, write_photos
from PIL import Image

from tlkit import cli, config
from tlkit.data import batches, load, load_source
from tlkit.errors import InvalidInput
from tlkit.recipes import _photo_sheet, find_lr, preview

SMALL = ["--backbone.name", "LetterNet", "--data.image_size", "32"]


def call(photos: Path, *argv: str) -> int:
    return cli.call(config.Preview, preview.run, ["--data.path", str(photos), *SMALL, *argv])


def settings(photos: Path, **given) -> config.Preview:
    return config.Preview(
        data=config.Data(source="folder", path=str(photos), image_size=32),
        backbone=config.Backbone("LetterNet"),
        batch_size=8,
        photos=3,
        views=2,
        **given,
    )


def test_it_writes_a_picture_once_and_says_what_to_do_next(folder: Path, photos: Path, capsys):
    assert call(photos, "--photos", "3", "--views", "2") == 0
    said = capsys.readouterr().out
    assert "picture  preview.png" in said
    assert "tlkit.recipes.finetune" in said
    with Image.open("preview.png") as picture:
        assert picture.width > 300
    before = Path("preview.png").read_bytes()
    assert call(photos) == 2
    assert "preview.png', which exists" in capsys.readouterr().err
    assert Path("preview.png").read_bytes() == before


def test_names_in_scripts_without_a_font_do_not_warn(folder: Path, capsys):
    assert call(write_photos(folder / "कुत्ते", {"कुत्ता": 30, "$\\frac{$ 🐈": 30}), "--photos", "2", "--views", "1") == 0
    assert "Glyph" not in capsys.readouterr().err


@pytest.mark.parametrize("changes", [{"rotation": 20.0}, {"mixup": 1.0, "cutmix": 1.0}])
def test_what_is_drawn_is_what_epochs_of_training_see(photos: Path, changes: dict):
    given = settings(photos, augment=config.Views(flip=True, **changes))
    splits = load(load_source("folder", path=str(photos)), size=(32, 32), channels=1)
    rows, heads, captions = _photo_sheet.draw(given, splits)
    assert heads == ["as it is", "epoch 1", "epoch 2"]
    seen = batches(splits.train, 8, shuffle=True, seed=0, augment={"flip": True, **_others(given)}, classes=2)
    for epoch in (1, 2):
        images = np.concatenate([np.asarray(images) for images, _ in seen])
        for row in rows:
            assert any((image == row[epoch]).all() for image in images)
    for row, said in zip(rows, captions, strict=True):
        (index,) = [n for n in range(len(splits.train)) if (splits.train.read([n])[0] == row[0]).all()]
        assert said[0] == splits.classes[splits.train.labels[index]]
    assert any("0." in caption for said in captions for caption in said[1:]) == ("mixup" in changes)


def _others(given: config.Preview) -> dict:
    names = ("rotation", "zoom", "shift", "brightness", "contrast", "mixup", "cutmix")
    return {name: getattr(given.augment, name) for name in names}


def test_photos_are_of_one_class_after_the_other():
    labels = np.array([0] * 50 + [1] * 3 + [2])
    assert sorted(labels[_photo_sheet.spread(labels, 3, 0)]) == [0, 1, 2]
    assert sorted(labels[_photo_sheet.spread(labels, 8, 0)]) == [0, 0, 0, 0, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--output", "preview.gif"], "must end in .png"),
        (["--output", "away/preview.png"], "there is no folder"),
        (["--views", "0"], "views is 0"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(folder: Path, photos: Path, argv: list[str], said: str, capsys):
    assert call(photos, *argv) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_arrays_are_one_line(folder: Path, capsys):
    write_arrays(folder / "volumes.npz")
    assert call(folder / "volumes.npz") == 2
    assert "holds arrays" in capsys.readouterr().err


def test_a_phase_without_one_rate_is_refused():
    rates = config.Full(learning_rates={"head": 1e-3})
    with pytest.raises(InvalidInput, match=r"full\.learning_rates"):
        find_lr.check(config.FindLr(full=rates))
    with pytest.raises(InvalidInput, match=r"head\.epochs is 0"):
        find_lr.check(config.FindLr(phase="head", head=config.Head(epochs=0)))


@pytest.mark.parametrize("phase", ["head", pytest.param("full", marks=pytest.mark.slow)])
def test_find_lr_logs_the_curve_and_says_the_rate(folder: Path, photos: Path, phase: str, capsys):
    argv = ["--data.path", str(photos), *SMALL, "--phase", phase, "--steps", "20", "--lowest", "1e-4"]
    if phase == "head":
        assert cli.call(config.FindLr, find_lr.run, argv) == 2
        assert (
            "the head is solved, after which the loss falls at no rate: give --head.solved false"
            in capsys.readouterr().err
        )
        argv += ["--head.solved", "false"]
    assert cli.call(config.FindLr, find_lr.run, argv) == 0
    said = capsys.readouterr().out
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    client = mlflow.MlflowClient()
    rates = [point.value for point in client.get_metric_history(run.info.run_id, "learning_rate")]
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert [point.step for point in losses] == list(range(len(rates)))
    np.testing.assert_allclose(rates[:3], np.geomspace(1e-4, 10, 20)[:3])
    suggested = run.data.metrics["suggested_learning_rate"]
    assert f"suggested  {suggested:.1e}" in said
    assert f"--{phase}.learning_rate {suggested:.1e}" in said
    assert run.data.tags["recipe"] == "find_lr"
    assert {"lr_range.png", "config.yaml"} <= {one.path for one in client.list_artifacts(run.info.run_id)}
