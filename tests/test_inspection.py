"""What `inspect` finds: faults that were made, in text, page and table; and what training recipes say of their data."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image

from tlkit import cli, config, data, inspection
from tlkit.data import Photos, Splits, images
from tlkit.inspection import Findings, NearCopy, Seen, Suspect, pictures
from tlkit.inspection.table import reasons
from tlkit.inspection.text import WIDTH
from tlkit.recipes import inspect


def photo(path: Path, seed: int, flat: bool = False) -> None:
    """Write a photo of noise, or one in which nothing is to be seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(np.full_like(pixels, 40) + (pixels > 250) if flat else pixels).save(path)


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """Two classes in two splits: a leak, a contradiction, a placeholder, a blank and a damaged photo."""
    root, number = tmp_path / "faulty", 0
    for split, count in (("train", 12), ("test", 6)):
        for name in ("cat", "dog"):
            for index in range(count):
                number += 1
                photo(root / split / name / f"{index:02}.png", number)

    def copy(source: str, *targets: str) -> None:
        for target in targets:
            (root / target).write_bytes((root / source).read_bytes())

    copy("train/cat/00.png", "test/cat/leak.png")
    copy("train/cat/01.png", "train/dog/odd.png")
    copy("train/dog/02.png", *(f"train/dog/same{n}.png" for n in range(3)))
    photo(root / "train/cat/blank.png", 0, flat=True)
    (root / "train/dog/damaged.png").write_bytes(b"\x89PNG no more")
    return root


def findings(**more: object) -> Findings:
    """Four examples of two classes, in two splits."""
    names = ["train/a/1", "train/b/2", "test/a/3", "test/b/4"]
    splits: list = ["train", "train", "test", "test"]
    found = Findings("set", "photos", ["a", "b"], names, np.array([0, 1, 0, 1]), splits, splits, list("wxyz"))
    return dataclasses.replace(found, compared=2, **more)  # type: ignore[arg-type]


def run(path: Path, *argv: str) -> int:
    given = ["--data.path", str(path), "--backbone.name", "none", *argv]
    return cli.call(config.Inspect, inspect.run, given)


def test_faults_are_found_said_logged_and_end_with_status_3(faulty: Path, folder: Path, capsys: pytest.CaptureFixture):
    assert run(faulty, "--output", "page.html") == 3
    said = capsys.readouterr().out
    found = json.loads(artifact("inspection.json"))
    assert [sorted(group) for group in found["leaks"]] == [["test/cat/leak.png", "train/cat/00.png"]]
    assert [sorted(group) for group in found["contradictions"]] == [["train/cat/01.png", "train/dog/odd.png"]]
    assert found["blank"] == ["train/cat/blank.png"]
    assert len(found["damaged"]) == 1
    assert "train/dog/damaged.png" in found["damaged"][0]
    assert found["counts"]["test"] == {"cat": 7, "dog": 6}
    used = {name: sum(each[name] for each in found["counts"].values()) for name in ("cat", "dog")}
    assert used == {"cat": 20 - 1, "dog": 22}  # the leak is taken out of train
    for words in ("1 photo is in several splits", "1 photo is there with several labels", "This would falsify a score"):
        assert words in said
    report = said[: said.index("page ")]
    assert max(map(len, report.splitlines())) <= WIDTH
    assert re.search(r"placeholders +1; train/dog/02.png is there 4 times", said)
    page = Path("page.html").read_text(encoding="utf-8")
    assert artifact("inspection.html") == page
    assert page.count("data:image/jpeg;base64,") > 12
    assert not re.search(r"<script|(src|href)=.(?!data:)", page)
    metrics = last_run().data.metrics
    assert (metrics["leaks"], metrics["contradictions"], metrics["blank"], metrics["damaged"]) == (1, 1, 1, 1)


def last_run() -> mlflow.entities.Run:
    return mlflow.search_runs(search_all_experiments=True, output_format="list")[0]


def artifact(name: str) -> str:
    path = mlflow.artifacts.download_artifacts(f"runs:/{last_run().info.run_id}/{name}")
    return Path(path).read_text(encoding="utf-8")


def test_a_table_without_what_is_wrong_is_read_again(faulty: Path, folder: Path, capsys: pytest.CaptureFixture):
    before = {path: path.read_bytes() for path in faulty.rglob("*.png")}
    assert run(faulty, "--write", "clean.csv") == 3
    assert {path: path.read_bytes() for path in faulty.rglob("*.png")} == before
    with open("clean.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    left = {Path(row["path"]).name: row["leave_out"] for row in rows if row["leave_out"]}
    assert all(("/test/" in row["path"]) == (row["split"] == "test") for row in rows)
    assert left == {
        "00.png": "copy of test/cat/leak.png",
        "01.png": "copies have different labels",
        "odd.png": "copies have different labels",
        "same0.png": "copy of train/dog/02.png",
        "same1.png": "copy of train/dog/02.png",
        "same2.png": "copy of train/dog/02.png",
        "blank.png": "blank",
        "damaged.png": "cannot be decoded",
    }
    clean = data.load("csv", path="clean.csv", size=(24, 32))
    assert len(clean.left_out["column leave_out"]) == 8
    assert not clean.set_aside
    assert len(clean.train) + len(clean.val) + len(clean.test or []) == 43 - 8
    capsys.readouterr()
    assert run(Path("clean.csv")) == 0
    assert "Nothing was found that would falsify a score." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--write", "there.csv"], "write is 'there.csv', which exists"),
        (["--output", "away/page.html"], "there is no folder"),
        (["--output", "page.pdf"], "ends in .html"),
        (["--write", "clean.txt"], "ends in .csv"),
    ],
)
def test_files_that_cannot_be_written_are_refused_at_once(
    argv: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.csv").write_text("mine", encoding="utf-8")
    assert run(tmp_path, *argv) == 2
    assert says in capsys.readouterr().err
    assert (tmp_path / "there.csv").read_text(encoding="utf-8") == "mine"


def test_a_table_is_for_files_alone(capsys: pytest.CaptureFixture):
    assert cli.call(config.Inspect, inspect.run, ["--write", "clean.csv"]) == 2
    assert "write is 'clean.csv'; the data must be files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, []),
        ({"hashes": ["w", "x", "w", "z"]}, ["1 photo is in several splits: train/a/1 (a) and test/a/3 (a)"]),
        ({"hashes": ["w", "w", "y", "z"]}, ["1 photo is there with several labels: train/a/1 (a) and train/b/2 (b)"]),
        ({"groups": ["p", "q", "p", "r"]}, ["groups in several splits (1), such as p"]),
        ({"near": [NearCopy(0, 2, 0.9)]}, []),  # one photo is no share
        (
            {"near": [NearCopy(0, 2, 0.9), NearCopy(1, 3, 0.9)]},
            ["2 of 2 photos of test have a near copy in train: test/a/3 (a) and train/a/1 (a)"],
        ),
        (
            {"near": [NearCopy(2, 3, 0.9), NearCopy(0, 1, 0.9)]},
            ["2 of 2 pairs of near copies have different labels: test/a/3 (a) and test/b/4 (b); so many that"],
        ),
        ({"labels": np.array([0, 1, 0, 0])}, ["test has no photo of b: its score says nothing about them"]),
        ({"classes": ["cat", "Cat"]}, ["classes with nearly equal names (1): cat = Cat"]),
        ({"suspects": [Suspect(0, "b", 0.01)], "outliers": [1]}, []),  # doubtful, but a score is what it is
    ],
)
def test_what_falsifies_a_score_is_listed(change: dict, says: list[str]):
    found = findings(**change)
    lines = found.falsifying()
    assert [line[: len(said)] for line, said in zip(lines, says, strict=True)] == says
    assert found.exit_status == (3 if says else 0)


def test_few_near_copies_do_not_falsify_a_score():
    names, many = [str(n) for n in range(400)], 200
    splits: list = ["train"] * many + ["test"] * many
    found = Findings(
        "set",
        "photos",
        ["a", "b"],
        names,
        np.arange(400) % 2,
        splits,
        splits,
        names,
        near=[NearCopy(0, 200, 1), NearCopy(2, 202, 1)],
        compared=200,
    )
    assert found.exit_status == 0
    assert dataclasses.replace(found, near=[NearCopy(2 * n, 200 + 2 * n, 1) for n in range(3)]).exit_status == 3


def test_of_near_copies_the_one_that_is_not_scored_is_left_out():
    assert reasons(findings(near=[NearCopy(2, 0, 0.9)])) == {0: "near copy of test/a/3 (test)"}
    assert reasons(findings(near=[NearCopy(0, 1, 0.9)])) == {}


def test_names_cannot_write_the_page_or_steer_the_terminal():
    bad = "<img src=x onerror=alert(1)>\x1b[31m\"'"
    found = findings(
        title=bad, classes=[bad, "b"], names=[bad] * 4, notes=[bad], left_out={bad: [bad]}, skipped=[bad],
        suspects=[Suspect(0, bad, 0.0)], outliers=[1], near=[NearCopy(0, 2, 1.0)], hashes=list("wwyz"),
    )  # fmt: skip
    page = inspection.page(found, lambda place: "data:,")
    assert "<img src=x" not in page
    assert "\x1b" not in page
    assert not re.search(r'alt="[^"]*"[^ >]', page)
    assert "\x1b" not in "\n".join(inspection.report(found))
    assert max(map(len, inspection.report(found))) <= WIDTH


def test_a_thousand_classes_and_long_names_stay_short():
    classes = [f"person {n:03} with a long name indeed, {'x' * 60}" for n in range(1000)]
    names = [str(n) for n in range(2000)]
    splits: list = ["train"] * 1000 + ["val"] * 1000
    found = Findings("set", "photos", classes, names, np.arange(2000) % 1000, splits, splits, names)
    report = inspection.report(found)
    assert len(report) < 60
    assert max(map(len, report)) <= WIDTH
    (brief,) = inspection.brief(found)
    assert len(brief) <= WIDTH
    assert brief.startswith("classes: 1000 (")


def test_every_file_is_looked_at_once_whatever_it_is(tmp_path: Path):
    photo(tmp_path / "a/1.png", 1)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("L", (40, 20), 90).save(tmp_path / "a/2.jpg", exif=exif)
    lines = np.zeros((512, 512), np.uint8)
    lines[::2] = 255
    (tmp_path / "b").mkdir()
    Image.fromarray(lines).save(tmp_path / "b/fine.png")
    Image.fromarray((np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)).save(tmp_path / "b/deep.png")
    seen = {Path(name).name: each for name, each in zip(*listed(tmp_path), strict=True)}
    assert seen["1.png"].size == (24, 32)
    assert seen["1.png"].form == "PNG, RGB, 8 bits"
    assert (seen["2.jpg"].size, seen["2.jpg"].form, seen["2.jpg"].blank) == ((40, 20), "JPEG, gray, 8 bits", True)
    assert not seen["fine.png"].blank  # its lines are averaged away at a small size
    assert seen["deep.png"].form == "PNG, gray, 16 bits"


def listed(path: Path) -> tuple[list[str], list[Seen]]:
    examples = data.load_source("folder", path=path)
    return examples.names, inspection.survey(examples)


def test_sounds_and_arrays_are_looked_at_too(tmp_path: Path):
    from tlkit.data import sounds

    for name, sound in (("a", np.sin(np.arange(800) / 5)), ("b", np.zeros(800))):
        (tmp_path / name).mkdir()
        for number in range(2):
            (tmp_path / name / f"{number}.wav").write_bytes(sounds.encode(sound[: 400 + 400 * number, None], 8000))
    _, seen = listed(tmp_path)
    assert [each.size for each in seen] == [(400,), (800,)] * 2
    assert [each.blank for each in seen] == [False, False, True, True]
    assert seen[0].form == "8,000 samples a second"
    assert pictures.picture(np.zeros((100, 1), np.float32)).startswith("data:image/svg+xml;base64,")
    assert pictures.picture(np.zeros((4, 4, 4, 1), np.float32)).startswith("data:image/jpeg;base64,")


def test_sounds_are_inspected_without_a_network(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture):
    from tlkit.data import sounds

    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for number in range(12):
            sound = rng.uniform(-0.5, 0.5, (200, 1))
            (tmp_path / "sounds" / name / f"{number}.wav").write_bytes(sounds.encode(sound, 8000))
    argv = ["--data.path", str(tmp_path / "sounds"), "--data.val_fraction", "0.3", "--data.test_fraction", "0.3"]
    assert cli.call(config.Inspect, inspect.run, argv) == 0
    said = capsys.readouterr().out
    assert re.search(r"format +8,000 samples a second \(24\)", said)
    assert "there is none for sounds" in " ".join(said.split())
    assert "tlkit.recipes.train --" in said  # finetune takes photos alone


def changed_labels(classes: int = 4, each: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of classes that overlap a little, labels of which a twentieth is wrong, and which these are."""
    rng = np.random.default_rng(seed)
    right = np.repeat(np.arange(classes), each)
    features = (3.5 * np.eye(classes, 12)[right] + rng.normal(size=(len(right), 12))).astype(np.float32)
    wrong = rng.choice(len(right), len(right) // 20, replace=False)
    labels = right.copy()
    labels[wrong] = (labels[wrong] + 1) % classes
    return features, labels, wrong


def test_wrong_labels_come_first_with_the_right_one_beside_them():
    features, labels, wrong = changed_labels()
    found = inspection.suspicion(features, labels, 4, groups=range(len(labels)))
    first = found.probability.argsort()[: len(wrong)]
    assert np.isin(first, wrong).mean() >= 0.8
    listed = found.listed(labels)
    assert np.isin(wrong, listed).mean() >= 0.8
    assert (found.likely[np.intersect1d(listed, wrong)] == (labels[np.intersect1d(listed, wrong)] - 1) % 4).all()
    assert (found.likely[listed] != labels[listed]).all()


def test_copies_of_an_example_do_not_speak_for_it():
    features, labels, _ = changed_labels()
    features, labels = np.repeat(features, 3, axis=0), np.repeat(labels, 3)
    groups = np.repeat(np.arange(len(labels) // 3), 3).tolist()
    near = inspection.neighbours(features, groups)
    assert (np.array(groups)[near.places] != np.array(groups)[:, None]).all()
    apart = inspection.suspicion(features, labels, 4, groups=groups).probability
    together = inspection.suspicion(features, labels, 4, groups=list(range(len(labels)))).probability
    wrong = changed_labels()[2] * 3
    assert apart[wrong].mean() < together[wrong].mean() / 2


def test_labels_are_not_suspected_where_features_tell_nothing():
    rng = np.random.default_rng(0)
    labels, names = (rng.random(200) < 0.1).astype(int), [str(n) for n in range(200)]
    splits: list = ["train"] * 200
    found = Findings("set", "photos", ["normal", "ill"], names, labels, splits, splits, names)
    found = inspection.by_features(found, rng.normal(size=(200, 8)).astype(np.float32), names, range(200))
    assert not found.suspects
    assert "the features hardly tell the classes" in found.skipped[0]


def test_of_many_examples_some_are_learned_from_and_all_are_judged(monkeypatch: pytest.MonkeyPatch):
    features, labels, wrong = changed_labels(each=80)
    monkeypatch.setattr(inspection.suspects, "KERNEL", 200)
    monkeypatch.setattr(inspection.suspects, "LEARNED", 200)
    groups = (np.arange(len(labels)) // 2).tolist()
    probability = inspection.suspicion(features, labels, 4, groups=groups).probability
    assert np.isin(probability.argsort()[: len(wrong)], wrong).mean() >= 0.8


def test_neighbours_are_those_of_the_full_comparison_and_of_a_sample():
    features = np.random.default_rng(0).normal(size=(1500, 8)).astype(np.float32)
    near = inspection.neighbours(features, range(1500), k=3)
    centered = features - features.mean(0)
    unit = centered / np.linalg.norm(centered, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    assert (near.places == np.argsort(-cosine, axis=1)[:, :3]).mean() > 0.999
    few = inspection.neighbours(features, range(1500), k=3, most=100)
    assert len(np.unique(few.places)) <= 100
    assert (few.similarity[:, 0] <= near.similarity[:, 0] + 1e-5).all()


def test_an_outlier_is_far_and_nothing_else_is():
    features, _, _ = changed_labels()
    features = np.concatenate([np.abs(features) + 1, [[0] * 11 + [-9]]]).astype(np.float32)
    near = inspection.neighbours(features, range(len(features)))
    assert inspection.outliers(near.distance)[0] == len(features) - 1


def test_features_say_where_labels_may_be_wrong():
    features, labels, wrong = changed_labels()
    names, splits = [str(n) for n in range(len(labels))], ["train"] * len(labels)
    found = Findings("set", "photos", list("abcd"), names, labels, list(splits), list(splits), names)
    places = np.arange(len(labels))[::-1]
    found = inspection.by_features(found, features[::-1], names[::-1], places)
    assert np.isin([suspect.place for suspect in found.suspects[:4]], wrong).all()
    few = inspection.by_features(found, features[:10], names[:10], places[:10])
    assert "10 photos are too few, 20 are needed" in few.skipped[0]
    several = dataclasses.replace(found, labels=np.eye(4)[labels], suspects=[])
    several = inspection.by_features(several, features, names, places)
    assert not several.suspects
    assert several.skipped == ["suspected labels: the photos may have several each"]


def test_what_is_known_of_loaded_data_costs_no_file():
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    photos, others = (Photos.of(part, [0, 1, 0, 1, 0, 0]) for part in (pixels[:6], pixels[6:]))
    splits = Splits(["cat", "dog"], photos, others, None, ["x.png: damaged"], [], left_out={"thumbnails": ["t"] * 4})
    found = inspection.of_splits(splits, "set")
    assert inspection.brief(found) == [
        "classes: 2 (cat 8, dog 4)",
        "left out: 5 (thumbnails 4, cannot be decoded 1)",
    ]
    page = inspection.page(found, pictures.of_photos([photos, others]))
    assert page.count("data:image/jpeg") == 6 + 4  # six of the cats, all dogs


def near_photos() -> tuple[Findings, Photos]:
    """Photos of which the last two are brighter and mirrored versions of the first two."""
    rng = np.random.default_rng(0)
    pixels = np.stack(
        [np.asarray(Image.fromarray(each).resize((64, 64))) for each in rng.integers(0, 256, (10, 8, 8, 3), np.uint8)]
    )
    pixels[8] = (pixels[0] * 0.9 + 20).astype(np.uint8)
    pixels[9] = pixels[1][:, ::-1]
    photos = Photos.of(pixels, np.arange(10) % 2)
    splits: list = ["train", "val", *["train"] * 4, *["test"] * 4]
    seen = [Seen(hash_, (64, 64), "PNG", 50.0) for hash_ in photos.hashes]
    return Findings(
        "set", "photos", ["a", "b"], photos.names, photos.labels, splits, splits, photos.hashes, None, seen
    ), photos


@pytest.mark.parametrize("most", [100, 5])
def test_near_copies_are_found_in_all_of_few_and_in_some_of_many(most: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inspection.steps, "MOST_COMPARED", most)
    found, photos = near_photos()
    found = inspection.with_near_copies(found, photos, range(10))
    assert {frozenset(pair[:2]) for pair in found.near} == {frozenset((0, 8)), frozenset((1, 9))}
    assert found.compared == 4
    assert "2 of 4 photos of test have a near copy in train or val: " in found.falsifying()[0]
    assert bool(found.skipped) == (most == 5)


def test_small_photos_are_not_compared():
    found, photos = near_photos()
    found = dataclasses.replace(found, seen=[Seen(size=(32, 64))] * 10)
    found = inspection.with_near_copies(found, photos, range(10))
    assert not found.near
    assert "from 48 pixels on" in found.skipped[0]
    assert "near_copies" not in found.metrics()


def test_a_stack_of_pages_is_named():
    page, several, one = Image.new("L", (60, 50)), io.BytesIO(), io.BytesIO()
    page.save(several, "TIFF", save_all=True, append_images=[page, page])
    page.save(one, "TIFF")
    assert images.properties(several.getvalue()).format == "TIFF (the first of several pages)"
    assert images.properties(one.getvalue()).format == "TIFF"
