"""Near copies of photos: made ones are found, other photos are not, and splits can keep them together."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tlkit import config as configs
from tlkit import data
from tlkit.evaluation import score
from tlkit.features.store import Store
from tlkit.inspection import alignment, near_copies
from tlkit.recipes import _fit, _inputs, _near_copies

SIZE = 96


def scene(seed: int) -> np.ndarray:
    """A soft background with ellipses on it: as much structure as a photo has."""
    rng = np.random.default_rng(seed)
    picture = cv2.resize(rng.integers(60, 190, (4, 4, 3), np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    for _ in range(14):
        centre, axes = rng.integers(0, SIZE, 2).tolist(), rng.integers(4, 18, 2).tolist()
        color = rng.integers(0, 256, 3).tolist()
        cv2.ellipse(picture, centre, axes, float(rng.uniform(0, 180)), 0, 360, color, -1, cv2.LINE_AA)
    return picture


def jpeg(pixels: np.ndarray, quality: int = 50) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def resized(pixels: np.ndarray, side: int = SIZE) -> np.ndarray:
    return cv2.resize(np.ascontiguousarray(pixels), (side, side), interpolation=cv2.INTER_AREA)


CHANGES = {
    "JPEG": lambda photo: np.asarray(Image.open(io.BytesIO(jpeg(photo)))),
    "mirrored": lambda photo: photo[:, ::-1],
    "half": lambda photo: resized(resized(photo, SIZE // 2)),
    "brighter": lambda photo: np.minimum(photo * 1.1, 255).astype(np.uint8),
    "darker": lambda photo: (photo * 0.9).astype(np.uint8),
    "centre": lambda photo: resized(photo[10:86, 10:86]),
    "corner": lambda photo: resized(photo[:77, 19:]),
    "mirrored corner": lambda photo: resized(photo[19:, 19:])[:, ::-1],
}
SCENES = np.stack([scene(seed) for seed in range(40)])


def photos(pixels) -> data.Photos:
    return data.Photos.of(np.stack(list(pixels)), [0] * len(pixels))


@pytest.mark.parametrize("change", CHANGES)
def test_changed_photos_are_found_among_others(change: str):
    copies = photos([CHANGES[change](scene) for scene in SCENES[:6]])
    found = near_copies.across(copies, photos(SCENES))
    assert {pair[:2] for pair in found} == {(i, i) for i in range(6)}
    assert all(alignment.ALIKE <= pair.correlation <= 1.0001 for pair in found)


def test_what_was_found_is_kept_in_the_store(cache: Path, monkeypatch: pytest.MonkeyPatch):
    copies = photos([CHANGES["half"](scene) for scene in SCENES[:6]])
    found = near_copies.across(copies, photos(SCENES), store=Store(cache))
    assert {pair[:2] for pair in found} == {(i, i) for i in range(6)}
    again = near_copies.across(copies, photos(SCENES[1:]), store=Store(cache))  # other photos: looked for anew
    assert {pair[:2] for pair in again} == {(i + 1, i) for i in range(5)}
    monkeypatch.setattr(near_copies, "verified", None)
    assert near_copies.across(copies, photos(SCENES), store=Store(cache)) == found


def test_a_photo_that_was_cropped_more_is_found_from_either_side():
    whole, part = alignment.thumbnail(SCENES[0]), alignment.thumbnail(resized(SCENES[0][:77, :77]))
    assert min(alignment.alike(whole, part), alignment.alike(part, whole)) > alignment.ALIKE


def test_other_photos_are_not_near_copies():
    assert near_copies.within(photos(SCENES)) == []
    rng = np.random.default_rng(0)
    blank = [np.full((SIZE, SIZE, 3), value, np.uint8) for value in (0, 128, 255)]
    noise = list(rng.integers(0, 256, (4, SIZE, SIZE, 3), np.uint8))
    assert near_copies.within(photos([*blank, *noise])) == []


def test_a_pattern_that_repeats_is_no_copy_of_a_similar_one():
    places = np.add(*np.indices((SIZE, SIZE)) // 12) % 2
    chequers = np.repeat(places[..., None] * 200 + 20, 3, axis=2).astype(np.uint8)
    other = cv2.warpPerspective(
        chequers, np.array([[1, 0.03, 0], [0.02, 1, 0], [0.0004, 0, 1]]), (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT
    )
    structures = [alignment.structure(alignment.thumbnail(photo)) for photo in (chequers, other)]
    assert alignment.align(*structures).correlation > alignment.ALIKE  # without looking at the repetition
    assert near_copies.within(photos([chequers, other])) == []
    assert len(near_copies.within(photos([chequers, chequers]))) == 1


def test_photos_of_one_layout_are_no_near_copies_but_copies_among_them_are():
    layout = [cv2.addWeighted(SCENES[0], 0.8, one, 0.2, 0) for one in SCENES[1:]]
    thumbnails = [alignment.thumbnail(one) for one in layout]
    alike = [alignment.alike(*pair) for pair in itertools.pairwise(thumbnails[:9])]
    assert min(alike) > alignment.ALIKE  # without looking at the layout
    turned = [CHANGES["mirrored"](one) for one in layout[30:34]]
    assert near_copies.within(photos([*layout[:30], *turned])) == []
    copies = [CHANGES[change](layout[3]) for change in ("mirrored", "half", "darker")]
    found = near_copies.across(photos([*copies, layout[30]]), photos(layout[:30]))
    assert {pair[:2] for pair in found} == {(0, 3), (1, 3), (2, 3)}


def test_frames_of_few_scenes_are_near_copies_and_no_layout():
    frames = [resized(SCENES[i][j : 84 + j, 2 * j : 84 + 2 * j]) for i in range(2) for j in range(6)]
    found = near_copies.within(photos(frames))
    assert {i for pair in found for i in pair[:2]} == set(range(12))
    assert all(first // 6 == second // 6 for first, second, _ in found)


def test_each_photo_has_its_nearest_and_the_most_alike_come_first():
    others = photos([SCENES[0], CHANGES["centre"](SCENES[1]), SCENES[1], *SCENES[2:]])
    found = near_copies.across(photos([CHANGES["corner"](SCENES[0]), SCENES[1]]), others)
    assert [pair[:2] for pair in found] == [(1, 2), (0, 0)]


def test_features_of_a_network_give_the_candidates_and_few_photos_are_read(monkeypatch):
    read = []

    class Watched(data.Photos):
        def read(self, indices):
            read.extend(np.asarray(indices).tolist())
            return super().read(indices)

    monkeypatch.setattr(near_copies, "_SAMPLED", 5)
    others = photos(SCENES)
    others = Watched(**{name: getattr(others, name) for name in others.__dataclass_fields__})
    features = np.random.default_rng(0).normal(size=(len(SCENES), 8))
    (found,) = near_copies.across(photos([CHANGES["mirrored"](SCENES[7])]), others, (features[7:8] + 0.01, features))
    assert found[:2] == (0, 7)
    assert len(read) <= near_copies.COUNT + 5
    read.clear()
    assert not near_copies.across(photos([scene(99)]), others, (features[7:8] + 0.01, features))
    assert len(read) == near_copies.COUNT  # the layout of a set matters only where photos are alike


def test_candidates_are_the_nearest_of_a_direct_search(monkeypatch):
    rng = np.random.default_rng(0)
    vectors, others = rng.normal(size=(9, 5)), rng.normal(size=(1_000, 5))
    centred = others - others.mean(axis=0), vectors - others.mean(axis=0)
    base, asked = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in centred)
    expected = {(i, int(j)) for i, row in enumerate(asked @ base.T) for j in np.argsort(-row)[: near_copies.COUNT]}
    monkeypatch.setattr(near_copies, "_BLOCK", 4)
    assert set(near_copies.candidates(vectors, others)) == expected
    assert all(i != j for i, j in near_copies.candidates(others, others, same=True))


def test_the_fingerprint_of_a_mirrored_photo_is_the_mirrored_fingerprint():
    thumbnails = np.stack([alignment.thumbnail(scene) for scene in SCENES[:5]])
    expected = near_copies.fingerprints(thumbnails[:, :, ::-1])
    np.testing.assert_allclose(near_copies.mirrored(near_copies.fingerprints(thumbnails)), expected, atol=1e-3)


@pytest.mark.parametrize("shape", [(8, 28, 28, 1), (8, 100, 1), (8, 60, 60, 60, 1), (0, SIZE, SIZE, 3)])
def test_small_photos_and_other_examples_have_none(shape):
    one = np.random.default_rng(0).integers(0, 256, shape[1:], np.uint8)
    same = data.Photos.of(np.broadcast_to(one, shape), [0] * shape[0])
    assert near_copies.within(same) == near_copies.across(same, same) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """60 photos, of which the first ten have a cropped copy each."""
    for number, pixels in enumerate(np.stack([scene(seed) for seed in range(60)])):
        target = tmp_path / "ab"[number % 2]
        target.mkdir(exist_ok=True)
        (target / f"{number:02}.jpg").write_bytes(jpeg(pixels, 90))
        if number < 10:
            (target / f"{number:02}_copy.jpg").write_bytes(jpeg(pixels[10:86, 10:86]))
    return tmp_path


def test_near_copies_are_in_one_split(folder, capsys):
    config = configs.Data(path=str(folder), near_copies="together")
    splits = _inputs.splits(config, _inputs.listed(config), (SIZE, SIZE, 3))
    split_of = {Path(row.path).stem: row.split for row in splits.manifest()}
    assert len(split_of) == 70
    assert all(split_of[f"{number:02}_copy"] == split_of[f"{number:02}"] for number in range(10))
    assert len({split_of[f"{number:02}"] for number in range(10)}) > 1
    warning = "near copies that are kept in one split (10 pairs): a/00.jpg ~ a/00_copy.jpg, "
    assert any(line.startswith(warning) for line in splits.warnings)
    assert warning in capsys.readouterr().err
    assert _near_copies.look(config, splits) is splits


def test_scored_photos_with_a_near_copy_are_named_and_those_without_one_scored(folder, capsys):
    config = configs.Data(path=str(folder), test_fraction=0.4)
    splits = _inputs.splits(config, _inputs.listed(config), (SIZE, SIZE, 3))
    split_of = {Path(row.path).stem: row.split for row in splits.manifest()}
    crossing = [number for number in range(10) if split_of[f"{number:02}_copy"] != split_of[f"{number:02}"]]
    expected = {
        name for number in crossing for name in (f"{number:02}", f"{number:02}_copy") if split_of[name] == "test"
    }
    assert expected
    splits = _near_copies.look(config, splits)
    assert {Path(splits.test.names[pair[0]]).stem for pair in splits.near_copies} == expected
    have = "has" if len(expected) == 1 else "have"
    line = (
        f"{len(expected)} of {len(splits.test)} test photos {have} a near copy among the training and validation photos"
    )
    assert line in splits.warnings[-1]
    assert line in capsys.readouterr().err

    probabilities = np.eye(2)[splits.test.labels] * 0.8 + 0.1
    copied = [pair[0] for pair in splits.near_copies]
    others = np.setdiff1d(np.arange(len(splits.test)), copied)
    probabilities[others[0]] = probabilities[others[0], ::-1]  # one mistake, of a photo that has no near copy
    scores = score("test", probabilities, splits.test.labels)
    rest = score("test", probabilities[others], splits.test.labels[others])
    fit = _fit.Fit({}, {}, {}, [], [], False)
    _near_copies.add(fit, splits, scores, rest)
    assert fit.metrics["test_near_copies"] == len(expected)
    assert fit.metrics["test_accuracy_without_near_copies"] == pytest.approx(1 - 1 / len(others))
    assert fit.metrics["test_accuracy_low_without_near_copies"] < fit.metrics["test_accuracy_without_near_copies"]
    assert fit.under[0].endswith(f"{len(others)} photos) without the {len(expected)} that have a near copy")
    assert list(fit.pictures) == ["near_copies.png"]
    _near_copies.add(fit, splits, scores, None)
    assert fit.under[-1] == f"near copies: no test score without the {len(expected)} photos that have one"
