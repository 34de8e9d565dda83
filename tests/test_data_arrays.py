"""Arrays of any rank come out of a NumPy file as they went in, in the splits it gives; what cannot be used is named."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import write_arrays

from tlkit import untrusted
from tlkit.data import Photos, augment, augment_array, batches, graph, load, load_source, modalities
from tlkit.errors import InvalidInput


def test_volumes_come_out_as_they_went_in(tmp_path: Path):
    path = write_arrays(tmp_path / "v.npz")
    splits = load("npz", path=path)
    given = np.load(path)
    assert (splits.kind, splits.classes, splits.warnings) == ("arrays", ["0", "1"], [])
    for name, part in (("train", splits.train), ("val", splits.val), ("test", splits.test)):
        assert (part.shape, part.dtype) == ((8, 8, 8, 1), np.uint8)
        assert np.array_equal(part.read(range(len(part)))[..., 0], given[f"{name}_images"])
        assert np.array_equal(part.labels, given[f"{name}_labels"][:, 0])
        assert part.names[1] == f"{name}/000001"
    batch, labels = next(iter(batches(splits.train, 4, augment={"shift": 0.2})))
    assert (np.asarray(batch).shape, np.asarray(batch).dtype, np.asarray(labels).shape) == (
        (4, 8, 8, 8, 1),
        np.uint8,
        (4,),
    )


@pytest.mark.parametrize(
    ("shape", "dtype", "expected", "kind"),
    [
        ((50,), "int16", ((50, 1), np.float32), "arrays"),
        ((50,), "uint8", ((50, 1), np.float32), "arrays"),
        ((50, 2), "float64", ((50, 2), np.float32), "arrays"),
        ((9, 12), "uint8", ((9, 12, 1), np.uint8), "photos"),
        ((9, 12, 3), "uint8", ((9, 12, 3), np.uint8), "photos"),
        ((9, 12, 4), "uint8", ((9, 12, 4), np.uint8), "arrays"),
        ((9, 12), "float32", ((9, 12, 1), np.float32), "arrays"),
        ((9, 12), "bool", ((9, 12, 1), np.uint8), "photos"),
        ((5, 9, 12), "uint8", ((5, 9, 12, 1), np.uint8), "arrays"),
        ((5, 9, 12, 2), "float16", ((5, 9, 12, 2), np.float32), "arrays"),
    ],
)
def test_every_rank_and_type_has_one_shape(tmp_path: Path, shape: tuple, dtype: str, expected: tuple, kind: str):
    values = np.random.default_rng(0).random((6, *shape))
    values = values > 0.5 if dtype == "bool" else (values * 200).astype(dtype)
    np.savez(tmp_path / "a.npz", train_images=values, train_labels=[0, 1] * 3, val_images=values[:2] + values[2:4],
             val_labels=[0, 1])  # fmt: skip
    splits = load("npz", path=tmp_path / "a.npz")
    assert splits.kind == kind
    assert (splits.train.shape, splits.train.dtype) == expected
    as_photos = 255 if dtype == "bool" else 1
    assert np.array_equal(splits.train.read(range(6)), values.reshape(6, *expected[0]).astype(expected[1]) * as_photos)
    assert splits.train.kind == kind
    assert splits.test is None


def test_photos_of_a_numpy_file_can_be_resized(tmp_path: Path):
    path = write_arrays(tmp_path / "p.npz", (8, 8))
    assert load("npz", path=path, size=(16, 16), channels=3).train.shape == (16, 16, 3)
    assert load("npz", path=path).train.shape == (8, 8, 1)


def test_labels_need_not_begin_at_0(tmp_path: Path):
    np.savez(tmp_path / "a.npz", train_images=np.arange(40).reshape(4, 10), train_labels=[7, 3, 7, 3],
             val_images=np.ones((1, 10), int), val_labels=np.array([[3]]))  # fmt: skip
    splits = load("npz", path=tmp_path / "a.npz")
    assert (splits.classes, splits.train.labels.tolist(), splits.val.labels.tolist()) == (["3", "7"], [1, 0, 1, 0], [0])


def test_arrays_with_the_label_minus_one_are_left_out(tmp_path: Path):
    np.savez(tmp_path / "a.npz", train_images=np.arange(60).reshape(6, 10), train_labels=[-1, 0, 1, -1, 1, 0],
             test_images=np.ones((1, 10), int), test_labels=[-1])  # fmt: skip
    found = load_source("npz", path=tmp_path / "a.npz")
    assert (found.classes, found.names) == (["0", "1"], [f"train/00000{i}" for i in (1, 2, 4, 5)])
    assert found.contents[0][0] == 10  # type: ignore[index]
    assert found.left_out == {"no label": ["train/000000", "train/000003", "test/000000"]}
    assert found.notes[-1].startswith("left out, because the label is -1 (3 of 7): train/000000, ")


def test_an_array_in_two_splits_is_taken_out_of_train(tmp_path: Path):
    values = np.random.default_rng(0).random((8, 10))
    np.savez(
        tmp_path / "a.npz", train_images=values, train_labels=[0, 1] * 4, val_images=values[2:4], val_labels=[0, 1]
    )
    splits = load("npz", path=tmp_path / "a.npz")
    assert (
        splits.warnings[0] == "arrays taken out of train, because val has them too (2 of 8): train/000002, train/000003"
    )
    assert len(splits.train) == 6


GOOD = {"train_images": np.zeros((4, 5, 5, 5)), "train_labels": np.array([0, 1, 0, 1])}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros(3)}, "no array train_images among x: give train_images, train_labels and"),
        ({"train_images": np.zeros((4, 5))}, "no array train_labels among train_images"),
        ({**GOOD, "val_images": np.zeros((1, 5, 5, 5))}, "no array val_labels among"),
        ({**GOOD, "val_labels": np.zeros(1, int)}, "no array val_images among"),
        ({**GOOD, "train_labels": np.zeros(3, int)}, "train_labels has 3 labels for 4 images"),
        (
            {**GOOD, "train_labels": np.zeros((4, 14), int)},
            r"train_labels is int64 \(4, 14\): give one integer for each",
        ),
        ({**GOOD, "train_labels": np.zeros(4)}, r"train_labels is float64 \(4,\): give one integer"),
        ({**GOOD, "train_labels": np.ones(4, int)}, "a single class, 1: give two or more"),
        ({**GOOD, "train_images": np.array([{}] * 4)}, "train_images is no array of numbers, but of Python objects"),
        ({**GOOD, "train_images": np.zeros(4, [("a", "i4")])}, "train_images is no array of numbers, .*structures"),
        ({**GOOD, "train_images": np.array(["a"] * 4)}, r"train_images is <U1 \(4,\): give numbers"),
        ({**GOOD, "train_images": np.zeros(4)}, r"train_images is float64 \(4,\): give numbers \(n, \*space"),
        ({**GOOD, "train_images": np.zeros((4, 5, 5, 5, 9))}, "3 axes of space and 4 channels at most"),
        ({**GOOD, "train_images": np.full((4, 5, 5, 5), np.nan)}, "train_images holds numbers that are not finite"),
        ({**GOOD, "train_images": np.full((4, 5, 5, 5), 1e300)}, "train_images holds numbers that are not finite"),
        (
            {**GOOD, "val_images": np.zeros((1, 6, 5, 5)), "val_labels": np.zeros(1, int)},
            r"val_images holds float32 \(6, 5, 5, 1\), train_images float32 \(5, 5, 5, 1\): give one kind",
        ),
    ],
)
def test_a_numpy_file_that_cannot_be_used(tmp_path: Path, arrays: dict, words: str):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InvalidInput, match=rf"a\.npz.*{words}") as error:
        load_source("npz", path=tmp_path / "a.npz")
    assert "\n" not in str(error.value)


def test_what_is_no_numpy_file(tmp_path: Path):
    with pytest.raises(InvalidInput, match=r"gone\.npz': No such file or directory"):
        load_source("npz", path=tmp_path / "gone.npz")
    path = tmp_path / "a.npz"
    for content in (b"words", b"", b"PK\x03\x04 cut short"):
        path.write_bytes(content)
        with pytest.raises(InvalidInput, match=r"a\.npz"):
            load_source("npz", path=path)
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(InvalidInput, match="a single array; give several"):
        load_source("npz", path=tmp_path / "a.npy")
    whole = write_arrays(path).read_bytes()
    path.write_bytes(whole[:100] + b"\xff" * 50 + whole[150:])
    with pytest.raises(InvalidInput, match=r"a\.npz: "):
        load_source("npz", path=path)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def announced(descr: str, shape: tuple[int, ...], content: bytes = b"") -> bytes:
    """An .npy file whose header says what its content does not hold."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue() + content


IMAGES = npy(GOOD["train_images"])


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"train_images.npy": b"words"}, "train_images is no array of NumPy"),
        ({"train_images": b"words"}, "train_images is no array of NumPy"),
        ({"train_images.npy": b""}, "train_images is no array of NumPy"),
        ({"train_images.npy": IMAGES[:300]}, r"train_images is announced as float64 \(4, 5, 5, 5\), 4,000 bytes, but"),
        ({"train_images.npy": IMAGES + b"more"}, "train_images is announced as .* but has 4,004"),
        (
            {"train_images.npy": announced("<f4", (10**12, 8, 8))},
            "train_images is announced as .* 256,000,000,000,000 bytes",
        ),
        ({"train_images.npy": announced("<f4", (-1, 8))}, "train_images is announced as"),
        ({"train_images.npy": announced("<f4", (-1, -8), bytes(32))}, "train_images is announced as"),
        ({"train_images.npy": npy(np.float32(3))}, r"train_images is float32 \(\): give numbers"),
        ({"train_images.npy": b"\x93NUMPY\1\0\x40\x1f" + b"(" * 8000}, "not arrays of numbers as numpy.savez writes"),
        ({"train_images.npy": IMAGES, "train_images": IMAGES}, "several arrays train_images: keep one"),
        ({"train_images.npy": bytes(2**27 + 1)}, "train_images would grow from [0-9,]* to 134,217,729 bytes"),
    ],
)
def test_members_that_are_not_what_they_announce(tmp_path: Path, members: dict[str, bytes], words: str):
    members = {"train_labels.npy": npy(GOOD["train_labels"])} | members
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(InvalidInput, match=rf"a\.npz: {words}") as error:
        load_source("npz", path=tmp_path / "a.npz")
    assert "\n" not in str(error.value)
    with zipfile.ZipFile(tmp_path / "g.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("train_images", "features"), content)
    with pytest.raises(InvalidInput, match=r"g\.npz: .*features|g\.npz: not arrays") as error:
        graph.load(tmp_path / "g.npz")
    assert "\n" not in str(error.value)


def test_only_what_is_wanted_is_read(tmp_path: Path):
    path = write_arrays(tmp_path / "a.npz")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("huge.npy", announced("<f4", (10**12,)))
        archive.writestr("notes.txt", "words")
    assert len(load_source("npz", path=path).names) == 60


def test_arrays_that_would_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_arrays(tmp_path / "a.npz")  # 60 volumes of 512 bytes
    monkeypatch.setattr(untrusted.memory, "available_memory", lambda: 50_000)
    with pytest.raises(InvalidInput, match=r"a\.npz: train_images, .*more than half of the"):
        load_source("npz", path=path)


def test_a_pickle_is_never_opened(tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    np.savez(tmp_path / "a.npz", train_images=np.array([Trap()], object), train_labels=[0])
    with pytest.raises(InvalidInput, match="train_images is no array of numbers, but of Python objects"):
        load_source("npz", path=tmp_path / "a.npz")
    assert not (tmp_path / "sprung").exists()


class Draws:
    """Draws that are given: what `random` and `uniform` return."""

    def __init__(self, mirrored: list[float], moves: list[float]):
        self.mirrored, self.moves = np.array(mirrored), np.array(moves)

    def random(self, size: int) -> np.ndarray:
        assert size == len(self.mirrored)
        return self.mirrored

    def uniform(self, low: float, high: float, size: int) -> np.ndarray:
        assert (low, high, size) == (-1, 1, len(self.moves))
        return self.moves


def test_a_volume_is_mirrored_along_the_drawn_axes():
    volume = np.random.default_rng(0).random((3, 4, 5, 2))
    mirrored = augment_array(volume, Draws([0.4, 0.6, 0.1], [0, 0, 0]), flip=True)
    assert np.array_equal(mirrored, volume[::-1, :, ::-1])
    one = augment_array(volume, Draws([0.4, 0.6, 0.1], [0, 0, 0]), flip=[1, 2])
    assert np.array_equal(one, volume[:, :, ::-1])
    assert np.array_equal(augment_array(volume, Draws([0, 0, 0], [1, 1, 1])), volume)


def test_a_volume_moves_along_each_axis_and_its_mirror_image_moves_in():
    volume = np.arange(4 * 10 * 5).reshape(4, 10, 5, 1)
    moved = augment_array(volume, Draws([1, 1, 1], [1, -1, 0]), shift=0.25)
    expected = np.concatenate([volume[:1], volume[:-1]])  # 1 of 4 later
    expected = np.concatenate([expected[:, 2:], expected[:, :-3:-1]], axis=1)  # 2 of 10 earlier
    assert np.array_equal(moved, expected)


def test_the_kind_of_the_data_chooses_the_changes():
    values = np.random.default_rng(0).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    for kind, change in (("photos", augment), ("arrays", augment_array)):
        row = modalities.row(kind)
        assert row.augment.__name__ == change.__name__
        of_row, directly = (each(values, np.random.default_rng(3), flip=True) for each in (row.augment, change))
        np.testing.assert_array_equal(of_row, directly)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_augmented_batches_repeat_and_differ_between_epochs(dtype: type):
    values = (np.random.default_rng(0).random((10, 6, 6, 6, 1)) * 255).astype(dtype)
    made = [batches(Photos.of(values, [0, 1] * 5), 5, seed=s, augment={"flip": True, "shift": 0.3}) for s in (1, 1, 2)]
    first, again, other = ([np.asarray(images) for images, _ in [*data, *data]] for data in made)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[2])
    assert not np.array_equal(first[0], other[0])
    assert first[0].dtype == dtype
