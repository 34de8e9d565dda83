"""Each source lists what is there, and says in one line what cannot be used and what to do."""

import csv
import importlib.util
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from tlkit.data.sources import datasets, load_source
from tlkit.errors import InvalidInput, Unavailable


def photo(path, color="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), color).save(path, "PNG")
    return path


def tree(root, *names):
    for i, name in enumerate(names):
        photo(root / name, (i, 0, 0))
    return root


def test_importing_data_loads_no_framework():
    code = "import sys, tlkit.data; print({'tensorflow', 'keras', 'sklearn', 'tensorflow_datasets'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_embedded_digits():
    examples = load_source("embedded")
    assert len(examples.names) == len(set(examples.names)) == len(examples.labels) == len(examples.contents) == 1797
    assert examples.classes == list("0123456789")
    pixels = np.stack(examples.contents)
    assert (pixels.shape, pixels.dtype, pixels.min(), pixels.max()) == ((1797, 8, 8), np.uint8, 0, 255)


def test_a_folder_of_classes(tmp_path):
    root = tree(
        tmp_path, "roses/b.JPG", "roses/deep/er/a.webp", "éclair 日本/c.tiff", "roses/.hidden.png", ".git/x.png"
    )
    (root / "roses" / "notes.txt").write_text("no photo", encoding="utf-8")
    (root / "readme.md").write_text("no photo", encoding="utf-8")
    examples = load_source("folder", path=root)
    assert examples.classes == ["roses", "éclair 日本"]
    assert examples.names == ["roses/b.JPG", "roses/deep/er/a.webp", "éclair 日本/c.tiff"]
    assert examples.labels == [0, 0, 1]
    assert examples.splits == [None] * 3
    assert examples.notes == [
        "files ignored because they are not photos in a class folder (2): readme.md, roses/notes.txt"
    ]


def test_a_folder_of_splits(tmp_path):
    names = [f"{split}/{name}/1.png" for split in ("Train", "validation", "test") for name in ("a", "b")]
    examples = load_source("folder", path=tree(tmp_path, *names))
    assert examples.classes == ["a", "b"]
    assert dict(zip(examples.names, examples.splits, strict=True)) == {
        name: {"Train": "train", "validation": "val", "test": "test"}[name.split("/")[0]] for name in names
    }


def test_a_class_may_be_called_train(tmp_path):
    examples = load_source("folder", path=tree(tmp_path, "train/1.png", "plane/1.png", "car/1.png"))
    assert (examples.classes, set(examples.splits)) == (["car", "plane", "train"], {None})


def test_links_make_no_loop(tmp_path):
    root = tree(tmp_path / "photos", "a/1.png", "b/1.png")
    (root / "a" / "up").symlink_to(root, target_is_directory=True)
    (root / "c").symlink_to(tree(tmp_path / "elsewhere", "1.png"), target_is_directory=True)
    assert load_source("folder", path=root).names == ["a/1.png", "b/1.png", "c/1.png"]
    (root / "d").symlink_to(root, target_is_directory=True)
    with pytest.raises(InvalidInput, match="/d' is a link to a folder above it: remove"):
        load_source("folder", path=root)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "has no class folders: give two or more"),
        (["1.png", "2.png"], "has no class folders: give two or more"),
        (["a/1.png"], "has a single class, 'a': give two or more"),
        (["a/1.png", "b/readme.txt"], r"/b' holds no photo \(1 other files\): put photos there .* or remove"),
        (["a/1.png", "b/.1.png"], r"/b' holds no photo \(0 other files\)"),
        (
            ["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png"],
            r"have different classes \(c\): every class needs a folder in 'train'",
        ),
        (
            ["train/cat/1.png", "train/dog/1.png", "test/Cat/1.png", "test/dog/1.png"],
            r"have different classes \(Cat\): .* in 'train'; classes with nearly equal names \(1\): Cat = cat; ",
        ),
        (["train/a/1.png", "train/b/1.png", "val/1.png"], "/val' has no class folders"),
        (
            ["train/a/1.png", "train/b/1.png", "extra/1.png"],
            "has extra beside train: if they are splits, rename them .* if they are none, move them away",
        ),
        (
            ["train/a/1.png", "train/b/1.png", "val/a/1.png", "valid/a/1.png"],
            "several folders for the split val: val, valid",
        ),
    ],
)
def test_a_folder_that_cannot_be_used(tmp_path, names, words):
    with pytest.raises(InvalidInput, match=words) as error:
        load_source("folder", path=tree(tmp_path, *names))
    assert "\n" not in str(error.value)


@pytest.mark.skipif(sys.platform == "win32", reason="no name there holds such letters")
def test_names_are_one_line_that_all_can_hold(tmp_path):
    tree(tmp_path, "a\nb/\x1b[2J.png", "a\nb/x.png", "<b> `$x$`|/\u202e🐈.png", " blank /y.png")
    found = load_source("folder", path=tmp_path)
    assert found.classes == ["<b> `$x$`|", r"a\nb", "blank"]
    assert found.names == [r"<b> `$x$`|/\u202e🐈.png", r"a\nb/\x1b[2J.png", r"a\nb/x.png", " blank /y.png"]
    assert all(content.is_file() for content in found.contents)
    assert found.notes == [
        r"classes whose names are written with escapes (1): a\nb",
        r"photos whose names are written with escapes (2): <b> `$x$`|/\u202e🐈.png, a\nb/\x1b[2J.png",
    ]
    listed = [("path", "label"), ("a\nb/x.png", "a\nb"), (r"a\nb/\x1b[2J.png", "\x07"), (" blank /y.png", "c")]
    with open(tmp_path / "list.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(listed)
    again = load_source("csv", path=tmp_path / "list.csv")
    assert again.names == [r"a\nb/x.png", r"a\nb/\x1b[2J.png", " blank /y.png"]
    assert again.classes == [r"\x07", r"a\nb", "c"]
    assert [content.name for content in again.contents] == ["x.png", "\x1b[2J.png", "y.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="no name there holds such letters")
@pytest.mark.parametrize("names", [("a\n/x.png", r"a\n/x.png"), ("a/\n.png", r"a/\n.png", "b/x.png")])
def test_names_that_would_be_written_alike_are_refused(tmp_path, names):
    with pytest.raises(
        InvalidInput, match=r"several (classes|photos) have names that are written a(/?)\\n.*: rename all"
    ):
        load_source("folder", path=tree(tmp_path, *names))


def test_no_such_folder(tmp_path):
    with pytest.raises(InvalidInput, match="/nowhere': no such folder"):
        load_source("folder", path=tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match=r"not a folder; for a list of photos use --data\.source csv"):
        load_source("folder", path=photo(tmp_path / "a.png"))


@pytest.fixture
def close(monkeypatch):
    """Makes a folder unreadable, for root too, whom permissions do not stop."""

    def close(path):
        def closed(function):
            def call(folder="."):
                if os.fspath(folder) == str(path):
                    raise PermissionError(13, "Permission denied", str(path))
                return function(folder)

            return call

        for name in ("scandir", "listdir"):
            monkeypatch.setattr(os, name, closed(getattr(os, name)))

    return close


@pytest.mark.parametrize("place", ["", "a", "a/deep", "a/deep/er"])
def test_a_folder_that_cannot_be_read_is_named(tmp_path, close, place):
    root = tree(tmp_path / "photos", "a/1.png", "a/deep/er/2.png", "b/3.png")
    close(root / place)
    with pytest.raises(InvalidInput, match=f"^'{root / place}' cannot be read: Permission denied; every folder"):
        load_source("folder", path=root)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not stop root")
@pytest.mark.parametrize("mode", [0o000, 0o100, 0o400])
@pytest.mark.parametrize("place", ["", "a"])
def test_permissions(tmp_path, place, mode):
    root = tree(tmp_path / "photos", "a/deep/1.png", "b/2.png")
    (root / place).chmod(mode)
    try:
        with pytest.raises(InvalidInput, match="cannot be read: Permission denied"):
            load_source("folder", path=root)
    finally:
        (root / place).chmod(0o700)


def test_a_folder_name_that_is_too_long():
    with pytest.raises(InvalidInput, match="cannot be read: File name too long"):
        load_source("folder", path="x" * 300)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"source": "imagenet"}, "data.source is 'imagenet': embedded, folder, csv, npz, tfds or webdataset"),
        ({"source": "folder"}, "data.path is None: data.source folder needs it"),
        ({"source": "csv"}, "data.path is None: data.source csv needs it"),
        ({"source": "tfds"}, "data.name is None: data.source tfds needs it"),
    ],
)
def test_settings_that_cannot_be_used(settings, words):
    with pytest.raises(InvalidInput, match=words):
        load_source(**settings)


def listed(folder, rows, encoding="utf-8"):
    photo(folder / "in" / "é.png")
    photo(folder / "2.png")
    with open(folder / "list.csv", "w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows(rows)
    return folder / "list.csv"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_file(tmp_path, encoding):
    rows = [("label", "path", "note"), ("dog", "in/é.png", "x"), (" cat ", "2.png", "y"), ("dog", "2.png", "z")]
    examples = load_source("csv", path=listed(tmp_path, rows, encoding))
    assert (examples.classes, examples.labels, examples.splits) == (["cat", "dog"], [1, 0, 1], [None] * 3)
    assert examples.names == ["in/é.png", "2.png", "2.png"]
    assert all(content.is_file() for content in examples.contents)


def test_a_csv_file_with_splits(tmp_path):
    rows = [("path", "label", "split"), ("2.png", "a", "train"), ("in/é.png", "b", "Valid"), ("2.png", "b", " test")]
    assert load_source("csv", path=listed(tmp_path, rows)).splits == ["train", "val", "test"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], r"line 1: no column 'path' among \[\]"),
        ([("name", "label")], r"line 1: no column 'path' among \['name', 'label'\]: give a header .* --data\.columns"),
        ([("path", "kind")], "line 1: no column 'label'"),
        ([("path", "label")], "no photo is listed"),
        ([("path", "label"), ("2.png", "a"), ("no.png", "b")], "line 3: no such photo: .*/no.png'"),
        ([("path", "label"), ("in", "a")], "line 2: no such photo"),
        (
            [("path", "label"), ("2.png", "a"), ("x" * 300, "b")],
            "line 3: the photo 'x{100}…' cannot be read: File name",
        ),
        ([("path", "label", "label"), ("2.png", "a", "b")], "line 1: 2 columns 'label': keep one"),
        ([("path", "label", "path"), ("2.png", "a", "b")], "line 1: 2 columns 'path': keep one"),
        ([("path", "label", "split", "split"), ("2.png", "a", "val", "val")], "line 1: 2 columns 'split': keep one"),
        ([("path", "label"), ("2.png", "")], "line 2: the label is empty"),
        ([("path", "label"), ("2.png",)], "line 2: the label is empty"),
        ([("path", "label", "split"), ("2.png", "a", "holdout")], "line 2: split is 'holdout': train, val or test"),
        ([("path", "label", "split"), ("2.png", "a", "val"), ("2.png", "a", "")], "line 3: split is ''"),
        ([("path", "label"), ("2.png", "a")], "a single class, 'a': give two or more"),
    ],
)
def test_a_csv_file_that_cannot_be_used(tmp_path, rows, words):
    with pytest.raises(InvalidInput, match=rf"list\.csv.*{words}") as error:
        load_source("csv", path=listed(tmp_path, rows), strict=True)
    assert "\n" not in str(error.value)


def test_what_is_not_a_csv_file(tmp_path):
    with pytest.raises(InvalidInput, match=r"No such file or directory; data\.source csv needs a file"):
        load_source("csv", path=tmp_path / "no.csv")
    with pytest.raises(InvalidInput, match="Is a directory"):
        load_source("csv", path=tmp_path)
    with pytest.raises(InvalidInput, match="not a CSV file in UTF-8"):
        load_source("csv", path=photo(tmp_path / "a.png"))


def prepare(folder, kind):
    """Prepare a tiny data set in `folder`, as its author would; no network is needed."""
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("tensorflow")
    image = {"image": tfds.features.Image(shape=(8, 8, 3)), "label": tfds.features.ClassLabel(names=["cat", "dog"])}
    if kind == "tensor":
        image["image"] = tfds.features.Tensor(shape=(8, 8, 3), dtype=np.uint8)
    masks = {"mask": tfds.features.Image(shape=(8, 8, 1))} if kind == "two_images" else {}

    class Builder(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = folder  # by default looked up in the package that defines the class
        name = f"tiny_{kind}"

        def _info(self):
            keys = ("image", "label") if kind in ("pairs", "tensor") else None
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict({**image, **masks}), supervised_keys=keys
            )

        def _split_generators(self, dl_manager):
            return {name: self._generate_examples(name) for name in ("train", "validation", "test", "extra")}

        def _generate_examples(self, split):
            for i in range(4):
                picture = np.full((8, 8, 3), 10 * i + len(split), np.uint8)
                label = -1 if kind == "secret" and (split == "test" or (split, i) == ("validation", 0)) else i % 2
                yield i, {"image": picture, "label": label, **dict.fromkeys(masks, picture[..., :1])}

    builder = Builder(data_dir=folder)
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(download_config=config)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("kind", ["pairs", "no_keys"])
def test_a_prepared_tfds_is_read_without_a_network(tmp_path, no_network, kind):
    prepare(tmp_path, kind)
    examples = load_source("tfds", name=f"tiny_{kind}", data_dir=str(tmp_path))
    assert examples.classes == ["cat", "dog"]
    assert sorted(set(examples.splits)) == ["test", "train", "val"]
    assert examples.names[0] == "train/000000"
    assert len(examples.names) == 12
    assert all(isinstance(content, bytes) for content in examples.contents)
    assert sorted(examples.labels) == [0] * 6 + [1] * 6
    assert examples.notes == [f"tiny_{kind}: left out the splits extra: only train, validation and test are used"]


def test_a_tfds_split_with_secret_labels_is_left_out(tmp_path, no_network):
    prepare(tmp_path, "secret")
    examples = load_source("tfds", name="tiny_secret:1.0.0", data_dir=str(tmp_path))
    assert [examples.splits.count(split) for split in ("train", "val", "test")] == [4, 3, 0]
    assert len(examples.names) == len(examples.labels) == len(examples.contents) == 7
    some, all_ = examples.notes[-2:]
    assert some.startswith("tiny_secret:1.0.0: left out photos of validation that have no label (1): validation/")
    assert all_ == "tiny_secret:1.0.0: left out the split test: its photos have no label (4)"
    assert [name.split("/")[0] for name in examples.left_out["no label"]] == ["validation"] + ["test"] * 4


def test_splits_of_a_tfds_have_words_for_them_in_their_names():
    names = ["train_extra", "train", "val2017", "test", "evaluation_2", "unlabelled"]
    assert datasets._splits(names) == {"train": "train", "val": "val2017", "test": "test"}
    assert datasets._splits(["training_set", "my_val", "dev"]) == {"train": "training_set", "val": "dev"}


@pytest.mark.parametrize("kind", ["two_images", "tensor"])
def test_a_tfds_without_one_image_and_one_label_is_refused(tmp_path, no_network, kind):
    prepare(tmp_path, kind)
    with pytest.raises(InvalidInput, match=f"'tiny_{kind}': not one image with one class label"):
        load_source("tfds", name=f"tiny_{kind}", data_dir=str(tmp_path))


def test_a_tfds_that_is_not_there_fails_at_once_without_a_network(tmp_path, no_network):
    pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("tensorflow")
    start = time.monotonic()
    with pytest.raises(Unavailable, match=rf"'tf_flowers' is not prepared in '{tmp_path}'.*--data\.data_dir") as error:
        load_source("tfds", name="tf_flowers", data_dir=str(tmp_path))
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < 10


def test_an_unknown_tfds_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("tensorflow")
    monkeypatch.setattr(datasets, "_online", lambda: True)
    with pytest.raises(InvalidInput, match="'no_such_set': tensorflow-datasets knows no such data set"):
        load_source("tfds", name="no_such_set", data_dir=str(tmp_path))
    with pytest.raises(InvalidInput, match=r"data\.name is '/'"):
        load_source("tfds", name="/", data_dir=str(tmp_path))


@pytest.mark.parametrize("package", ["tensorflow", "tensorflow_datasets"])
def test_tfds_without_its_packages_says_what_to_install(monkeypatch, package):
    if package == "tensorflow_datasets" and importlib.util.find_spec("tensorflow") is None:
        pytest.skip("tensorflow is what is missing here")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InvalidInput, match=f"needs {package}: pip install tensorflow tensorflow-datasets"):
        load_source("tfds", name="tf_flowers")
