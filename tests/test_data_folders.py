"""Folders as people have them: which are splits, which are classes, and what is no photo of its own."""

from __future__ import annotations

import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from tlkit.data.sources import Examples, load_source, split_word
from tlkit.data.sources.examples import SPLITS
from tlkit.errors import InvalidInput


def tree(root: Path, *names: str) -> Path:
    """Empty files: none is opened where it is listed."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def listed(root: Path, *names: str, **settings: str) -> Examples:
    return load_source("folder", path=tree(root, *names), **settings)


def counts(examples: Examples) -> dict[str, int]:
    return {what: len(names) for what, names in examples.left_out.items()}


@pytest.mark.parametrize(
    ("names", "split"),
    [
        ("train Training TRAIN training_set seg_train train_images data-train train2017 trainImages 1.train", "train"),
        ("val valid Validation dev val_images DevSet ValData validation.2", "val"),
        ("test Testing eval evaluation seg_test test_data testset", "test"),
        ("trains trainer valley latest testament devil train_val train-test 2017", None),
    ],
)
def test_words_for_splits(names: str, split: str | None):
    assert {name: split_word(name) for name in names.split()} == dict.fromkeys(names.split(), split)


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("Training", "Testing", "test"), ("seg_train", "seg_test", "test"), ("training_set", "test_set", "test"),
        ("train_images", "val_images", "val"), ("train", "dev", "val"), ("train", "eval", "test"),
    ],
)  # fmt: skip
def test_folders_with_words_for_splits_are_splits(tmp_path: Path, train: str, other: str, split: str):
    found = listed(tmp_path, *[f"{folder}/{name}/1.png" for folder in (train, other) for name in ("a", "b")])
    assert (found.classes, found.splits) == (["a", "b"], ["train", "train", split, split])
    said = [f"{name} is {its}" for name, its in ((train, "train"), (other, split)) if name != its]
    assert found.notes == [f"splits by their names: {', '.join(said)}"]


def test_train_dev_and_test(tmp_path: Path):
    names = [f"{folder}/{name}/1.png" for folder in ("train", "dev", "test") for name in ("a", "b")]
    assert Counter(listed(tmp_path, *names).splits) == {"train": 2, "val": 2, "test": 2}


def test_folders_of_splits_as_archives_unpack_them(tmp_path: Path):
    names = [f"{folder}/{folder}/{name}/1.png" for folder in ("training_set", "test_set") for name in ("a", "b")]
    found = listed(tmp_path, *names)
    assert (found.classes, Counter(found.splits)) == (["a", "b"], {"train": 2, "test": 2})
    assert found.names[0] == "training_set/training_set/a/1.png"


@pytest.mark.parametrize(
    "unlabelled", ["seg_pred/1.png", "seg_pred/seg_pred/1.png", "val-mixed/1.png", "test/1.png", "test/test/1.png"]
)
def test_photos_without_a_class_are_left_out(tmp_path: Path, unlabelled: str):
    names = [f"{folder}/{name}/1.png" for folder in ("train", "valid") for name in ("a", "b")]
    found = listed(tmp_path, *names, unlabelled)
    assert (found.classes, Counter(found.splits)) == (["a", "b"], {"train": 2, "val": 2})
    assert found.left_out == {"no label": [unlabelled]}
    assert "its photos have no label and are left out (1)" in found.notes[-1]


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["train_station/1.png", "bus_station/1.png"], ["bus_station", "train_station"]),
        (["train_station/old/1.png", "bus_station/new/1.png"], ["bus_station", "train_station"]),
        (["eval/1.png", "train/1.png", "plane/1.png"], ["eval", "plane", "train"]),
        (["test_tube/1.png", "dev_board/1.png"], ["dev_board", "test_tube"]),
        (["train_1/1.png", "train_2/1.png"], ["train_1", "train_2"]),
    ],
)
def test_classes_may_have_words_for_splits_in_their_names(tmp_path: Path, names: list[str], classes: list[str]):
    found = listed(tmp_path, *names)
    assert (found.classes, set(found.splits)) == (classes, {None})
    words = [name for name in classes if name in SPLITS]  # cats, dogs and the photos of a test: the user is told
    assert found.notes == [f"{name} is taken for a class, not for a split" for name in words]


def test_splits_inside_of_each_class(tmp_path: Path):
    found = listed(tmp_path, "a/train/1.png", "a/train/deep/2.png", "a/test/1.png", "b/train/1.png")
    assert (found.classes, found.names, found.splits, found.labels) == (
        ["a", "b"], ["a/train/1.png", "a/train/deep/2.png", "b/train/1.png", "a/test/1.png"],
        ["train", "train", "train", "test"], [0, 0, 1, 0],
    )  # fmt: skip
    assert found.notes == ["splits by the folders inside of each class: test, train"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["one/cat/1.png", "one/dog/1.png", "two/cat/2.png", "two/dog/2.png"],
         "all of one, two in .* hold the folders cat, dog: if one, two are splits, rename them train, val and test; "),
        (["a/rgb/1.png", "a/depth/1.png", "b/rgb/1.png", "b/depth/1.png", "b/x/1.png"], "hold the folders depth, rgb"),
        (["train/a/1.png", "train/b/1.png", "Training/a/1.png"], "several folders for the split train: Training,"),
        (["train/a/1.png", "train/b/1.png", "dev/a/1.png", "val/a/1.png"], "for the split val: dev, val; keep one"),
        (["a/train/1.png", "a/training/1.png", "b/train/1.png"], "several folders for train: train, training"),
        (["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png", "more/a/1.png"], "has more beside"),
        (["train_images/1.png", "test_images/1.png"], "/train_images' has no class folders: give two or more"),
        (["data/a/1.png", "data/b/1.png"], "has a single class, 'data'.*; did you mean --data.path '.*/data'?"),
        (["x/y/train/1.png", "x/y/val/1.png"], "has a single class, 'x'.*; did you mean --data.path '.*/x/y'?"),
        (["1.png", "test.csv", "train.csv"], "has no class folders.*; did you mean --data.path '.*/train.csv'?"),
        (["images/a/1.png", "images/b/1.png", "meta/train.txt"],
         "meta' holds no photo .*; did you mean --data.path '.*/images'?"),
        (["images/1.png", "Annotations/1.png"], "images and Annotations, which seem to be photos and their masks"),
        (["a/1.png", "b/1.png", "all/a/1.png", "all/b/1.png"],
         r"all in .* has folders .* all others beside it \(a, b\)"),
    ],
)  # fmt: skip
def test_folders_that_are_not_clear(tmp_path: Path, names: list[str], words: str):
    with pytest.raises(InvalidInput, match=words) as error:
        listed(tmp_path, *names)
    assert "\n" not in str(error.value)


def test_a_pattern_for_groups_makes_no_classes_of_splits(tmp_path: Path):
    names = [f"{split}/{name}/p{i}_1.png" for split in ("tr", "te") for name in ("cat", "dog") for i in (1, 2)]
    with pytest.raises(InvalidInput, match="if te, tr are splits, rename them"):
        listed(tmp_path, *names, group=r"(p\d+)_")
    patients = [f"{name}/patient{i}/1.png" for name in ("ill", "well") for i in (1, 2)]
    assert listed(tmp_path / "x", *patients, group=r"(patient\d+)/").classes == ["ill", "well"]


@pytest.mark.parametrize("inner", ["", "images/", "train/"])
def test_splits_may_lack_classes_of_train_and_have_one_folder_between(tmp_path: Path, inner: str):
    (tmp_path / "test/b").mkdir(parents=True)
    names = [f"train/{inner}a/1.png", f"train/{inner}b/1.png", "test/a/1.png"]
    found = listed(tmp_path, *names)
    assert (found.classes, found.splits) == (["a", "b"], ["train", "train", "test"])


def test_classes_may_be_called_as_folders_of_photos_or_be_mixtures_of_others(tmp_path: Path):
    names = ["label/1.png", "photo/1.png", "stamp/1.png", "mixed/label/1.png", "mixed/photo/1.png"]
    assert listed(tmp_path, *names).classes == ["label", "mixed", "photo", "stamp"]


def test_lists_that_may_name_splits_are_named(tmp_path: Path):
    names = ["a/1.png", "b/1.png", "readme.txt", "lists/train.txt", "test.json", "lists/1.png"]
    (note,) = [line for line in listed(tmp_path, *names).notes if line.startswith("lists")]
    assert (
        note == "lists that may name splits are not read (test.json, lists/train.txt): a table with a column split is"
    )
    given = listed(tmp_path / "x", "train/a/1.png", "train/b/1.png", "test/a/1.png", "test.txt")
    assert not any(line.startswith("lists") for line in given.notes)


def test_a_split_of_empty_folders_is_none_and_named(tmp_path: Path):
    (tmp_path / "test/a").mkdir(parents=True)
    found = listed(tmp_path, "train/a/1.png", "train/b/1.png")
    assert (set(found.splits), found.notes) == (
        {"train"},
        ["the folders of test hold no photos: the data have no such split"],
    )


def test_files_that_differ_in_their_suffixes_alone_are_named(tmp_path: Path):
    twins = [f"{name}/{i}.{suffix}" for name in ("a", "b") for i in (1, 2) for suffix in ("jpg", "png")]
    assert (
        "every class has files that differ in their suffixes alone (such as 1.jpg" in listed(tmp_path, *twins).notes[0]
    )
    assert listed(tmp_path / "x", "a/1.jpg", "a/1.png", "b/1.jpg", "b/2.png").notes == []


def test_what_other_programs_leave_is_left_out_and_counted(tmp_path: Path):
    found = listed(
        tmp_path, "a/1.jpg", "a/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "a/Thumbs.db", "a/._1.jpg", "@eaDir/x.jpg",
        "b/2.jpg", "b/.thumbnails/2.jpg", "b/SYNOPHOTO_THUMB_S.jpg", "b/thumbs/2.jpg", ".DS_Store", "b/.hidden.jpg",
        "__MACOSX/a/._1.jpg", "thumbnails/3.jpg", "b/desktop.ini", "b/.picasa.ini", "mlruns/1/x.png", "mlflow.db",
    )  # fmt: skip
    assert found.names == ["a/1.jpg", "b/2.jpg", "thumbnails/3.jpg"]  # the last is a class of its own
    assert counts(found) == {"thumbnails": 5, "system files": 5, "resource forks": 2, "files of MLflow": 1}
    (note,) = found.notes
    assert note.startswith(
        "files left out: 2 resource forks, 5 system files, 5 thumbnails, 1 files of MLflow (such as a/._1.jpg, "
    )


def test_masks_of_photos_are_left_out(tmp_path: Path):
    names = [f"{name}/images/{i}.png" for name in "ab" for i in range(4)]
    masks = [f"{name}/masks/{i}_mask.png" for name in "ab" for i in range(4)]
    found = listed(tmp_path / "beside", *names, *masks)
    assert (found.names, found.left_out) == (names, {"masks": masks})
    found = listed(tmp_path / "same", "a/x (1).png", "a/x (1)_mask.png", "a/x (1)_mask_1.png", "b/face_mask.png")
    assert (found.names, counts(found)) == (["a/x (1).png", "b/face_mask.png"], {"masks": 2})


def test_a_folder_called_masks_that_holds_other_photos_stays(tmp_path: Path):
    found = listed(tmp_path, "in/masks/1.png", "in/none/2.png", "out/masks/3.png")
    assert (len(found.names), counts(found)) == (3, {})


def test_two_folders_of_the_same_files_in_each_class_are_named(tmp_path: Path):
    names = [f"{name}/{kind}_{name}/{i}.png" for name in "ab" for kind in ("photo", "depth") for i in range(2)]
    (note,) = listed(tmp_path, *names).notes
    assert note.startswith("every class has two folders with files of the same names (such as a/depth_a and a/photo_a,")


def test_class_names_are_in_one_spelling(tmp_path: Path):
    one, two = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    found = listed(tmp_path, f"{two}/1.png", f"{one}/2.png", "sea lion/3.png", "sea\u00a0lion/4.png", "Sea_lion/5.png")
    assert found.classes == ["Sea_lion", one, "sea lion"]
    assert Counter(found.labels) == {0: 1, 1: 2, 2: 2}
    assert all(content.is_file() for content in found.contents)
    assert "classes with nearly equal names (1): Sea_lion = sea lion; they stay apart" in found.notes[0]


def test_groups_by_the_folder_or_a_pattern(tmp_path: Path):
    names = ("ill/p1/1.png", "ill/p2/1.png", "well/p1/2.png", "well/3.png")
    found = listed(tmp_path, *names, group="parent")
    assert dict(zip(found.names, found.groups or [], strict=True)) == dict(
        zip(names, ("p1", "p2", "p1", ""), strict=True)
    )
    assert found.notes == [
        "groups by data.group: 2; each stays in one split",
        "photos without a group, which stand alone (1): well/3.png",
    ]
    again = listed(tmp_path, group=r"/(p\d+)/")
    assert again.groups == found.groups
    assert listed(tmp_path).groups is None


def test_all_classes_may_have_the_same_folders_where_these_are_groups(tmp_path: Path):
    names = [f"{name}/{patient}/1.png" for name in ("ill", "well") for patient in ("p1", "p2")]
    assert listed(tmp_path, *names, group="parent").groups == ["p1", "p2"] * 2


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ("parent", "none of the 2 photos lies in a folder below its class"),
        (r"(patient\d+)_", "none of the 2 photos has a path that it matches"),
        (r"/([12])", None),
        (r"\.(png)", "makes a single group, png"),
        ("x(", "must be a regular expression"),
        ("x", "which has 0 groups in parentheses; it must have one, such as"),
        ("(a)(b)", "which has 2 groups"),
        ("(a)" + 1000 * "x", "of 1,003 characters; it may have 1,000"),
    ],
)
def test_a_group_that_cannot_be_used(tmp_path: Path, group: str, words: str | None):
    names = ("a/1.png", "b/2.png")
    if words is None:
        assert listed(tmp_path, *names, group=group).groups == ["1", "2"]
        return
    with pytest.raises(InvalidInput, match=rf"data\.group is '.*{words}"):
        listed(tmp_path, *names, group=group)


def test_groups_are_for_files():
    with pytest.raises(
        InvalidInput, match=r"data\.group is 'parent': it goes with data\.source folder, csv or webdataset"
    ):
        load_source("embedded", group="parent")
