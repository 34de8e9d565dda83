"""A photo's split follows from what it holds alone, and no photo stands in two splits."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlkit.data.split import content_hash, divide, split_of
from tlkit.errors import InvalidInput

HASHES = [content_hash(str(i).encode()) for i in range(1000)]
photos = st.lists(st.sampled_from(HASHES), min_size=1)


def divided(hashes, given_splits=None, labels=None, **settings):
    labels = labels or [0] * len(hashes)
    names = [str(i) for i in range(len(hashes))]
    return divide(hashes, labels, names, given_splits or [None] * len(hashes), ["a", "b"], **settings)


def splits(hashes, *arguments, **settings):
    """The splits of photos of class a, among enough of both classes that none is missing."""
    fill = [content_hash(f"fill {i}".encode()) for i in range(100)]
    given_splits = arguments[0] + [["train", "val", "test"][i % 3] for i in range(100)] if arguments else None
    labels = [0] * len(hashes) + [i // 3 % 2 for i in range(100)]
    return divided(hashes + fill, given_splits, labels, **settings).splits[: len(hashes)]


@given(photos, photos)
def test_adding_photos_moves_none(some, more):
    assert splits(some + more)[: len(some)] == splits(some)


@given(photos)
def test_copies_land_together(some):
    assert splits(some + some) == 2 * splits(some)


@given(photos, st.permutations(range(10)))
def test_order_does_not_matter(some, order):
    shuffled = [some[i % len(some)] for i in order]
    assert splits(shuffled) == [splits([h])[0] for h in shuffled]


@given(photos, st.data())
def test_given_splits_are_disjoint_afterwards(some, data):
    given_splits = [data.draw(st.sampled_from(["train", "val", "test"])) for _ in some]
    found = splits(some, given_splits)
    held = {name: {h for h, s in zip(some, found, strict=True) if s == name} for name in ("train", "val", "test")}
    assert not held["train"] & held["val"]
    assert not held["train"] & held["test"]
    assert not held["val"] & held["test"]
    assert held["train"] | held["val"] | held["test"] == set(some)
    assert all(found[i] in (given_splits[i], None) for i in range(len(some)))


def test_shares_are_met_within_four_standard_deviations():
    found = [split_of(content_hash(str(i).encode()), 0.2, 0.1) for i in range(10_000)]
    for split, share in (("test", 0.1), ("val", 0.2), ("train", 0.7)):
        assert abs(found.count(split) - 10_000 * share) < 4 * math.sqrt(10_000 * share * (1 - share))


def test_arrays_are_hashed_with_their_shape():
    flat = np.arange(4, dtype=np.uint8)
    square = flat.reshape(2, 2)
    assert len({content_hash(array) for array in (flat, square, square.T)}) == 3
    assert content_hash(square.T) == content_hash(square.T.copy())


LABELS = [i % 2 for i in range(90)]
THIRDS = [["train", "val", "test"][i // 2 % 3] for i in range(90)]


def test_all_three_given_stay_as_they_are():
    assert divided(HASHES[:90], THIRDS, LABELS) == (THIRDS, [], HASHES[:90])


def test_without_a_given_val_it_is_taken_out_of_train():
    given_splits = ["train" if s == "val" else s for s in THIRDS]
    found = divided(HASHES[:90], given_splits, LABELS).splits
    assert [s == "test" for s in found] == [s == "test" for s in THIRDS]
    expected = [split_of(h, 0.15, 0) if s == "train" else s for h, s in zip(HASHES[:90], given_splits, strict=True)]
    assert found == expected
    assert {"train", "val"} < set(found)


def test_without_a_given_test_there_is_none():
    found = divided(HASHES[:90], ["val" if s == "test" else s for s in THIRDS], LABELS)
    assert set(found.splits) == {"train", "val"}
    assert found.warnings == ["there is no test split: scores are those of val"]


def test_val_as_test():
    given_splits = ["val" if s == "test" else s for s in THIRDS]
    found = divided(HASHES[:90], given_splits, LABELS, val_fraction=0.4, val_as_test=True)
    assert [s == "test" for s in found.splits] == [s == "val" for s in given_splits]
    assert set(found.splits) == {"train", "val", "test"}
    assert found.warnings == []


def test_train_alone_counts_as_nothing_given():
    assert divided(HASHES[:90], ["train"] * 90, LABELS) == divided(HASHES[:90], None, LABELS)


@pytest.mark.parametrize(
    ("given_splits", "settings", "words"),
    [
        (["test"] * 4, {}, "only the splits test: give train too"),
        (["test", "val"] * 2, {}, "only the splits test, val: give train too"),
        (None, {"val_as_test": True}, "data.val_as_test is True, and the given splits are none"),
        (["train", "train", "val", "test"], {"val_as_test": True}, "the given splits are test, train, val"),
        (None, {"val_fraction": 0.0}, "data.val_fraction is 0.0"),
        (None, {"test_fraction": 1.0}, "below 1"),
        (None, {"val_fraction": 0.5, "test_fraction": 0.5}, "below 1"),
        (["val", "train", "val", "train"], {}, "only val has photos of a: move some of them to train"),
        (
            None,
            {"val_fraction": 1e-9, "test_fraction": 1e-9},
            "no photo falls into val, whose share is 1e-09: raise data.val_f",
        ),
    ],
)
def test_splits_that_cannot_be_used(given_splits, settings, words):
    with pytest.raises(InvalidInput, match=words):
        divided(HASHES[:4], given_splits, [0, 1, 0, 1], **settings)


def test_leaks_are_taken_out_and_named():
    hashes = [*HASHES[:6], HASHES[0], HASHES[1], HASHES[4]]
    given_splits = ["train", "train", "train", "train", "val", "val", "test", "val", "test"]
    found = divided(hashes, given_splits, [0, 1, 0, 1, 0, 1, 0, 1, 0])
    assert found.splits == [None, None, "train", "train", None, "val", "test", "val", "test"]
    assert found.warnings[:3] == [
        "photos taken out of train, because test has them too (1 of 4): 0",
        "photos taken out of train, because val has them too (1 of 4): 1",
        "photos taken out of val, because test has them too (1 of 3): 4",
    ]


def test_contradicting_labels_copies_and_gaps_are_named():
    hashes = [HASHES[0], HASHES[0], HASHES[1], HASHES[2]]
    found = divided(hashes, ["train", "train", "val", "test"], [0, 1, 1, 1])
    assert found.warnings == [
        "photos with several labels (1): 0 (a) = 1 (b)",
        "val has no photo of a: its score says nothing about them",
        "test has no photo of a: its score says nothing about them",
        "exact copies of photos within one split (each copy counts): 1",
    ]
