"""Views: photos changed once and for all, whatever other photos there are, and how an epoch draws one for each."""

from __future__ import annotations

import copy
import subprocess
import sys

import keras
import numpy as np
import pytest

from tlkit.data import Mirrored, Photos, View, Views, batches, changed
from tlkit.data.augmentation import augment, mix
from tlkit.data.pipeline import py_dataset
from tlkit.data.plan import Plan

CHANGES = {"flip": True, "rotation": 20.0, "zoom": 0.2, "shift": 0.1, "brightness": 0.2, "contrast": 0.2}
EVERY = np.arange(20)


def photos(count: int = 20, seed: int = 0) -> Photos:
    rng = np.random.default_rng(seed)
    return Photos.of(rng.integers(0, 256, (count, 8, 10, 3), np.uint8), rng.integers(0, 4, count))


def views(count: int = 3, given: Photos | None = None) -> Views:
    return Views([View(given or photos(), CHANGES, 0, number) for number in range(count)])


def some_of(given: Photos, indices: np.ndarray) -> Photos:
    return Photos.of(given.read(indices), given.labels[indices])


def test_a_view_is_augment_with_its_own_draws():
    given = photos()
    view = View(given, CHANGES, 5, 2)
    before = given.read(EVERY)
    for index, image in enumerate(view.read(EVERY)):
        rng = np.random.default_rng((5, 2, int(given.hashes[index][:16], 16)))
        np.testing.assert_array_equal(image, augment(before[index], rng, **CHANGES))
    np.testing.assert_array_equal(given.read(EVERY), before)  # the photos themselves stay
    assert (len(view), view.shape, view.dtype, view.kind) == (20, (8, 10, 3), np.uint8, "photos")
    np.testing.assert_array_equal(view.labels, given.labels)


def test_flips_alone_make_two_views_of_which_each_epoch_draws():
    given = photos()
    as_they_are = given.read(EVERY)
    mirrored = Mirrored(given)
    np.testing.assert_array_equal(mirrored.read(EVERY), as_they_are[:, :, ::-1])
    assert not set(mirrored.hashes) & {*given.hashes, *View(given, {"flip": True}, 0, 0).hashes}
    np.testing.assert_array_equal(mirrored.labels, given.labels)
    both = Views([given, mirrored])
    drawn = np.array([both.draw(EVERY, 0, epoch) for epoch in range(40)])
    same = (drawn == as_they_are).all(axis=(2, 3, 4))
    assert (same | (drawn == as_they_are[:, :, ::-1]).all(axis=(2, 3, 4))).all()
    assert 0.4 < same.mean() < 0.6


def test_photos_that_are_only_mirrored_can_be_changed_in_one_way():
    given = photos()
    (mirrored,) = changed(given, {"flip": True, "rotation": 0.0}, 8)
    np.testing.assert_array_equal(mirrored.read(EVERY), given.read(EVERY)[:, :, ::-1])
    several = [view.read(EVERY) for view in changed(given, CHANGES, 3, seed=5)]
    assert len(several) == 3
    np.testing.assert_array_equal(several[2], View(given, CHANGES, 5, 2).read(EVERY))
    assert not (several[0] == several[1]).all()


def test_a_view_does_not_depend_on_what_other_photos_there_are():
    whole, chosen = photos(), np.array([11, 3, 3, 17])
    part = View(some_of(whole, chosen), CHANGES, 0, 1)
    view = View(whole, CHANGES, 0, 1)
    np.testing.assert_array_equal(part.read(np.arange(4)), view.read(chosen))
    assert part.hashes == [view.hashes[index] for index in chosen]
    np.testing.assert_array_equal(view.read(chosen), view.read(EVERY)[chosen])


@pytest.mark.parametrize(
    ("changes", "seed", "number"), [(CHANGES, 0, 2), (CHANGES, 1, 1), ({**CHANGES, "rotation": 30.0}, 0, 1)]
)
def test_another_view_is_changed_otherwise_and_has_other_hashes(changes: dict, seed: int, number: int):
    one, other = View(photos(), CHANGES, 0, 1), View(photos(), changes, seed, number)
    differs = (one.read(EVERY) != other.read(EVERY)).any(axis=(1, 2, 3))
    assert differs.all()
    assert not set(one.hashes) & set(other.hashes)
    assert not set(one.hashes) & set(photos().hashes)
    assert len(set(one.hashes)) == 20


def test_the_order_in_which_changes_are_given_is_none_of_a_hash():
    assert View(photos(), dict(reversed(CHANGES.items())), 0, 1).hashes == View(photos(), CHANGES, 0, 1).hashes


def test_another_version_of_the_augmentation_gives_other_hashes(monkeypatch: pytest.MonkeyPatch):
    before = View(photos(), CHANGES, 0, 1).hashes
    monkeypatch.setattr("tlkit.data.views.AUGMENTATION", 0)
    assert not set(before) & set(View(photos(), CHANGES, 0, 1).hashes)


def test_another_process_sees_the_same_views():
    script = (
        "import hashlib, numpy as np; from tlkit.data import Photos, View\n"
        "pixels = np.random.default_rng(7).integers(0, 256, (5, 8, 10, 3), np.uint8)\n"
        f"view = View(Photos.of(pixels, [0] * 5), {CHANGES!r}, 4, 3)\n"
        "print(hashlib.sha256(view.read(np.arange(5)).tobytes()).hexdigest(), *view.hashes)"
    )
    found = [
        subprocess.run([sys.executable, "-c", script], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True)
        for seed in ("1", "2")
    ]
    assert found[0].stdout == found[1].stdout
    assert len(found[0].stdout.split()) == 6, found[0].stderr


def test_an_epoch_reads_each_photo_in_the_view_that_it_has_drawn():
    three = views()
    each = np.stack([view.read(EVERY) for view in three.views])
    drawn = three.draw(EVERY, seed=1, epoch=2)
    chosen = (each == drawn).all(axis=(2, 3, 4))
    assert (chosen.sum(axis=0) == 1).all()
    some = np.array([7, 2, 2, 19])
    np.testing.assert_array_equal(three.draw(some, seed=1, epoch=2), drawn[some])
    np.testing.assert_array_equal(views().draw(EVERY, 1, 2), drawn)  # the seed and the epoch alone decide
    for seed, epoch in ((1, 3), (2, 2)):
        assert not np.array_equal(three.draw(EVERY, seed, epoch), drawn)


def test_each_epoch_draws_each_view_about_equally_often():
    class Number:
        """A view that says which it is."""

        labels, shape, dtype, kind = np.zeros(3000, np.int32), (), np.dtype(np.uint8), "arrays"

        def __init__(self, number: int):
            self.number = number

        def __len__(self) -> int:
            return 3000

        def read(self, indices: np.ndarray) -> np.ndarray:
            return np.full(len(indices), self.number, np.uint8)

    four = Views([Number(number) for number in range(4)])
    epochs = np.stack([four.draw(np.arange(3000), 0, epoch) for epoch in range(20)])
    deviation = np.sqrt(3000 * 0.25 * 0.75)
    for drawn in epochs:
        assert np.abs(np.bincount(drawn, minlength=4) - 750).max() < 4.5 * deviation
    # One photo's draws are independent from epoch to epoch, too.
    share = (epochs[1:] == epochs[:-1]).mean()
    assert abs(share - 0.25) < 4.5 * np.sqrt(0.25 * 0.75 / epochs[1:].size)


def as_py_dataset(given: Views, batch_size: int, shuffle: bool, seed: int):
    return py_dataset(Plan(given, batch_size, shuffle, seed, None, given.labels))


@pytest.mark.parametrize("make", [batches, as_py_dataset])
def test_batches_draw_from_the_views_in_every_epoch(make):
    three, given = views(), photos()
    dataset = make(three, 8, shuffle=True, seed=3)
    for epoch in range(3):
        found = [tuple(np.asarray(part) for part in batch) for batch in dataset]
        order = Plan(given, 8, True, 3, None, None).order(epoch)
        assert [len(labels) for _, labels in found] == [8, 8, 4]
        for (images, labels), indices in zip(found, order, strict=True):
            assert images.dtype == np.uint8
            np.testing.assert_array_equal(images, three.draw(indices, 3, epoch))
            np.testing.assert_array_equal(labels, given.labels[indices])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere there is only one of them")
def test_tf_data_and_py_dataset_draw_alike():
    one, other = (make(views(), 8, shuffle=True, seed=3) for make in (batches, as_py_dataset))
    for _ in range(2):
        for some, others in zip(one, other, strict=True):
            for a, b in zip(some, others, strict=True):
                np.testing.assert_array_equal(np.asarray(a), b)


def test_views_have_no_pixels_of_their_own():
    """What differs from view to view must be drawn: `read` would give the first view of all."""
    three = views()
    assert (len(three), three.shape, three.dtype, three.kind) == (20, (8, 10, 3), np.uint8, "photos")
    for name in ("read", "hashes", "number"):
        assert not hasattr(three, name)
    assert len(copy.copy(three)) == 20


def test_a_view_has_what_a_photo_can_have_by_itself():
    """Mixing needs a batch; and what is named but off is none of a hash."""
    policy = {**CHANGES, "crop": 0.3, "policy": "randaugment", "magnitude": 9.0, "erasing": 0.5}
    one = View(photos(), policy, 0, 1)
    assert (one.read(EVERY) != View(photos(), CHANGES, 0, 1).read(EVERY)).any(axis=(1, 2, 3)).all()
    mixing = View(photos(), {**policy, "mixup": 0.2, "cutmix": 1.0}, 0, 1)
    np.testing.assert_array_equal(mixing.read(EVERY), one.read(EVERY))
    assert mixing.hashes == one.hashes
    off = {"crop": 1.0, "policy": "none", "magnitude": 5.0, "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0}
    assert View(photos(), {**CHANGES, **off}, 0, 1).hashes == View(photos(), CHANGES, 0, 1).hashes


def test_views_are_mixed_after_they_are_drawn():
    three, labels = views(), np.eye(4, dtype=np.float32)[photos().labels]
    (images, mixed), *_ = batches(three, 20, shuffle=True, seed=3, augment={"mixup": 1.0}, classes=4)
    (indices,) = Plan(three, 20, True, 3, None, None).order(0)
    rng = np.random.default_rng((3, 0, 0, 2, 1))
    expected = mix(three.draw(indices, 3, 0), labels[indices], rng, mixup=1.0)
    np.testing.assert_array_equal(np.asarray(images), expected[0])
    np.testing.assert_allclose(np.asarray(mixed), expected[1])


def test_a_photo_that_is_drawn_twice_comes_in_views_of_their_own():
    given = Photos.of(photos().read(EVERY), np.arange(20) == 7)
    drawn = [np.asarray(images) for images, _ in batches(views(3, given), 20, seed=1, balanced=True)]
    (order,) = Plan(given, 20, False, 1, None, given.labels, balanced=True).order(0)
    assert (order == 7).sum() == 10
    assert len({image.tobytes() for image in drawn[0][order == 7]}) == 3
