"""A photo's split follows from what it holds or from its group alone, and no photo or group stands in two splits."""

import csv
import hashlib
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlkit import data
from tlkit.data.split import content_hash, divide, split_of
from tlkit.errors import InvalidInput
from tlkit.recipes import _inputs

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
        (["val", "train", "val", "train"], {}, "photos of a are in val only: move some to train"),
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


FROZEN = [  # as they were before there were groups: the splits of the photos "0" to "119"
    ((0.15, 0.15), None,
    "----v---vtv--v---v-----------v---------t-v-v--tv-tttvvvt---v"
    "v----tvv----------v-v---v-v----t------v--tvv-tvv-t-----v-v-v"),
    ((0.3, 0.2), None,
    "vv-vv--vttvvvv---vv--vvv--vvvvv-----vv-t-vvvv-tt-tttvtttv-vv"
    "v----tvv---v------v-vv--v-v---vt-v--v-t--tvvvtvv-t---v-t-t-t"),
    ((0.15, 0.15), ["train" if i % 3 else "test" for i in range(120)],
    "t--t--t--t--t--t--t--t--t--t--t--t--t--t--t--tv-tvvt--tv-t--"
    "t--t-vt--t--t--t--t--t--t--t--tv-t--t--t-vt--t--tv-t--t--t--"),
]  # fmt: skip


@pytest.mark.parametrize(("fractions", "given_splits", "frozen"), FROZEN)
def test_photos_stay_where_they_always_were(fractions, given_splits, frozen):
    settings = dict(zip(("val_fraction", "test_fraction"), fractions, strict=True))
    found = divided(HASHES[:120], given_splits, [i % 2 for i in range(120)], **settings)
    assert "".join({"train": "-", "val": "v", "test": "t"}[split] for split in found.splits) == frozen
    assert found.units == HASHES[:120]


def place(text):
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) / 2**64


def expected(text):
    return "test" if place(text) < 0.15 else "val" if place(text) < 0.3 else "train"


GROUPS = [f"patient {i}" for i in range(30)]
grouped = st.lists(st.tuples(st.sampled_from(HASHES), st.integers(0, 29)), min_size=1, unique_by=lambda pair: pair[0])


@given(grouped)
def test_a_group_lands_where_its_name_says_whatever_else_there_is(some):
    hashes, groups = [h for h, _ in some], [GROUPS[i] for _, i in some]
    assert splits(hashes, groups=groups + [""] * 100) == [expected(f"group:{group}") for group in groups]


def test_groups_that_share_a_photo_and_pairs_stay_together():
    one, other = GROUPS[:2]
    joined = divided(
        [*HASHES[:4], HASHES[0], *HASHES[5:90]], groups=[one, one, other, "", other, *[""] * 85], labels=LABELS
    )
    name = min(one, other, key=lambda group: place(f"group:{group}"))
    assert [joined.splits[i] for i in (0, 1, 2, 4)] == 4 * [expected(f"group:{name}")]
    assert [joined.units[i] for i in range(5)] == [name, name, name, HASHES[3], name]
    assert joined.warnings[0] == f"groups that share photos, and are kept together (1): {one} = {other}"
    pairs = [(7, 8), (20, 8), (30, 31)]
    paired, alone = divided(HASHES[:90], labels=LABELS, together=pairs), divided(HASHES[:90], labels=LABELS)
    for unit in ([7, 8, 20], [30, 31]):
        least = min(unit, key=lambda i: HASHES[i])
        assert [paired.splits[i] for i in unit] == len(unit) * [expected(f"group:{HASHES[least]}")]
        assert [paired.units[i] for i in unit] == len(unit) * [HASHES[least]]
    moved = [i for i in range(90) if paired.splits[i] != alone.splits[i]]
    assert moved
    assert set(moved) <= {7, 8, 20, 30, 31}


def test_a_group_in_two_given_splits_is_taken_out_of_train_and_named():
    groups = [f"p{i // 3}" if i < 30 else "q" if i in (60, 64) else "" for i in range(90)]
    found = divided(HASHES[:90], THIRDS, LABELS, groups=groups)
    names = set(groups) - {""}
    homes = {group: {s for s, g in zip(found.splits, groups, strict=True) if g == group and s} for group in names}
    given = {group: {s for s, g in zip(THIRDS, groups, strict=True) if g == group} for group in names}
    best = {group: next(s for s in ("test", "val", "train") if s in inside) for group, inside in given.items()}
    assert homes == {group: {split} for group, split in best.items()}
    assert found.splits.count(None) == 16
    assert found.warnings == [
        "photos taken out of train, because test has others of their groups (1 of 30; 1 group): q",
        "photos taken out of train, because val has others of their groups (10 of 30; 5 groups): p0, p2, p4, p6, p8",
        "photos taken out of val, because test has others of their groups (5 of 30; 5 groups): p1, p3, p5, p7, p9",
    ]


def test_val_is_taken_out_of_train_by_groups_and_pairs_across_given_splits_are_divided():
    groups = [f"{THIRDS[i]} {i // 6 % 9}" for i in range(90)]
    given_splits = ["train" if s == "val" else s for s in THIRDS]
    found = divided(HASHES[:90], given_splits, LABELS, groups=groups, together=[(0, 4), (10, 0)])  # train, test, test
    by_name = ["val" if place(f"group:{group}") < 0.15 else "train" for group in groups]
    for i, split in enumerate(found.splits):
        leaked = groups[i] == groups[0]
        assert split == ("test" if given_splits[i] == "test" else None if leaked else by_name[i])
    assert found.splits.count(None) > 1
    assert found.warnings[1].startswith(
        "photos taken out of train, because test has others that they are kept together"
    )


def test_classes_of_fewer_groups_than_splits_are_named():
    groups = [f"p{i}" if label else f"q{i % 4}" for i, label in enumerate(LABELS)]
    groups = ["p" if i % 4 == 3 else group for i, group in enumerate(groups)]
    warnings = divided(HASHES[:90], None, [1 - label for label in LABELS], groups=groups).warnings
    assert "classes with fewer groups than three, one for each split (1): b (2)" in warnings


def small_sets(seed):
    """Classes of three photos, as random as their hashes."""
    return [content_hash(f"{seed} {i}".encode()) for i in range(60)], [i // 3 for i in range(60)]


def class_names(count):
    return [chr(97 + i) for i in range(count)]


def test_each_class_of_three_photos_has_one_to_train_on():
    needed = 0
    for seed in range(100):
        hashes, labels = small_sets(seed)
        found = divide(hashes, labels, list(map(str, range(60))), [None] * 60, class_names(20))
        by_hash = [split_of(h, 0.15, 0.15) for h in hashes]
        moved = [i for i in range(60) if found.splits[i] != by_hash[i]]
        needed += bool(moved)
        assert {label for label, s in zip(labels, found.splits, strict=True) if s == "train"} == set(range(20))
        for label in range(20):
            own = range(3 * label, 3 * label + 3)
            lacks = all(by_hash[i] != "train" for i in own)
            assert [i for i in moved if i in own] == [max(own, key=lambda i: hashes[i])] * lacks
        told = [line for line in found.warnings if "taken into train" in line]
        assert [line.split("; ")[0] for line in told] == (
            [
                f"photos taken into train, which had no photo of their classes ({len(moved)}): "
                + ", ".join(map(str, moved))
            ]
            if moved
            else []
        )
    assert 20 < needed < 60  # in 37 of 100 some class had none before


def test_an_added_photo_moves_at_most_the_one_that_was_taken_into_train_for_its_class():
    rng, returned = random.Random(0), 0
    fill = [content_hash(f"fill {i}".encode()) for i in range(100)]  # of class 0, which needs nothing
    for trial in range(1000):
        hashes = [content_hash(f"{trial} {i}".encode()) for i in range(rng.randint(6, 15))]
        labels = [rng.randint(1, 5) for _ in hashes]
        order = list(range(len(hashes)))
        rng.shuffle(order)  # the last is the added one
        before, after = (
            (
                divide(
                    fill + [hashes[i] for i in some],
                    [0] * 100 + [labels[i] for i in some],
                    [""] * (100 + len(some)),
                    [None] * (100 + len(some)),
                    class_names(6),
                    **FRACTIONS,
                ).splits[100:]
                for some in (order[:-1], order)
            )
            if len({labels[i] for i in order[:-1]}) == 5
            else ([], [])
        )
        moved = [i for i, old, new in zip(order[:-1], before, after, strict=False) if old != new]
        returned += bool(moved)
        assert len(moved) <= 1
        for i in moved:
            assert labels[i] == labels[order[-1]]
            own = [j for j in order[:-1] if labels[j] == labels[i]]
            assert i == max(own, key=lambda j: hashes[j])
            assert all(split_of(hashes[j], **FRACTIONS) != "train" for j in own)
            assert after[order.index(i)] == split_of(hashes[i], **FRACTIONS)
            assert after[-1] == "train"
    assert returned > 20


FRACTIONS = {"val_fraction": 0.3, "test_fraction": 0.3}


def test_a_group_is_taken_into_train_whole():
    low = next(group for group in GROUPS if expected(f"group:{group}") == "test")
    high = next(group for group in GROUPS if expected(f"group:{group}") == "val")
    groups = [low, low, high, high, high, *[""] * 85]
    labels = [1, 1, 1, 0, 1, *[0] * 85]
    found = divided(HASHES[:90], None, labels, groups=groups)
    assert found.splits[:5] == ["test", "test", "train", "train", "train"]
    assert f"groups taken into train, which had no photo of their classes (1): {high}; add groups of these classes" in (
        found.warnings
    )


def test_fractions_that_leave_little_to_train_on_are_to_be_lowered():
    warnings = divided(HASHES[:7], None, [0, 0, 0, 0, 0, 0, 1], val_fraction=0.5, test_fraction=0.49).warnings
    assert "only 1% of all are for train: lower the fractions" in next(
        line for line in warnings if "taken into" in line
    )


SAME = [*HASHES[:6], *HASHES[:6]]


@pytest.mark.parametrize(
    ("hashes", "labels", "given_splits", "words"),
    [
        (SAME, [0, 1] * 6, ["train"] * 6 + ["val"] * 6,
         "no photo of a, b is left to train on: all 6 training photos of them are in val too: take these out of val, "
         "or give no val, and it is taken from train"),
        (SAME, [0, 1] * 6, ["train"] * 6 + ["val"] * 3 + ["test"] * 3,
         "all 6 training photos of them are in val or test too: take these out of val or test"),
        ([*SAME, *HASHES[6:8]], [0, 1] * 6 + [0, 0], ["train"] * 6 + ["test"] * 6 + ["train", "val"],
         "no photo of b is left to train on: all 3 training photos of it are in test too: take these out of test"),
        (SAME, [0, 1] * 6, ["val"] * 6 + ["test"] * 5 + ["train"], "photos of a are in val and test only: move some"),
        ([*HASHES[:4]], [0, 0, 1, 1], ["train", "val", "test", "test"], "photos of b are in test only: move some"),
        (HASHES[:2], [0, 0], None, "no photo of b is left to train on, and none for the other splits: add photos that"),
        ([*HASHES[6:8], *HASHES[:2], *HASHES[:2]], [0, 1] * 3, ["train"] * 2 + ["val"] * 2 + ["test"] * 2,
         "no photo is left in val: all 2 are in test too: take these out of test, or give no val, and it is"),
        (HASHES[:2], [0, 1], None, "no photo falls into val: 2 photos are too few: add some, or give the splits"),
    ],
)  # fmt: skip
def test_each_cause_has_its_own_sentence(hashes, labels, given_splits, words):
    with pytest.raises(InvalidInput) as caught:
        divided(hashes, given_splits, labels)
    assert words in str(caught.value)
    assert "fraction" not in str(caught.value)
    leaks = [note for note in getattr(caught.value, "__notes__", []) if "taken out of" in note]
    assert bool(leaks) == (len(set(hashes)) < len(hashes))


def test_groups_that_leave_nothing_to_train_on_are_the_cause():
    with pytest.raises(InvalidInput) as caught:
        divided(HASHES[:4], ["train", "train", "test", "test"], [0, 1] * 2, groups=list("pqpq"))
    assert "all 2 training photos of them are in test too, or of groups that are" in str(caught.value)
    assert caught.value.__notes__ == [
        "photos taken out of train, because test has others of their groups (2 of 2; 2 groups): p, q"
    ]


def test_near_copies_that_join_most_photos_are_said():
    chain = [(i, i + 1) for i in range(39)]
    with pytest.raises(InvalidInput, match="40 photos, of which copies stay together and leave 1 to divide") as caught:
        divided(HASHES[:40], labels=[0, 1] * 20, together=chain)
    doubt = "40 of 40 photos are kept together as near copies of near copies: if they are of one layout"
    assert caught.value.__notes__[0].startswith(doubt)
    assert not any("near copies" in line for line in divided(HASHES, labels=[0, 1] * 500, together=chain[:9]).warnings)


def listed(groups, labels, given_splits=None, notes=()):
    """Arrays as a source lists them, all different where the labels are 60 or fewer."""
    values = np.arange(2 * len(labels), dtype=np.float32).reshape(-1, 2)
    names, splits = [f"{i:02}" for i in range(len(labels))], given_splits or [None] * len(labels)
    return data.Examples(names, labels, ["a", "b"], splits, values, list(notes), "arrays", groups=groups)


def test_what_is_loaded_keeps_its_groups_in_the_manifest_and_in_the_summary(tmp_path):
    groups, labels = [f"g{i // 2}" for i in range(58)] + ["", ""], [i % 2 for i in range(60)]
    loaded, plain = data.load(listed(groups, labels)), data.load(listed(None, labels))
    parts = {"train": loaded.train, "val": loaded.val, "test": loaded.test}
    group_of = dict(zip([f"{i:02}" for i in range(60)], groups, strict=True))
    for split, part in parts.items():
        assert part.given_groups == [group_of[name] for name in part.names]
        assert part.groups == [group_of[name] or h for name, h in zip(part.names, part.hashes, strict=True)]
        assert {expected(f"group:{group}") for group in part.given_groups if group} == {split}
    counts = [(len(part), len(set(part.grouping))) for part in parts.values()]
    text = "arrays: {} training of {} groups, {} validation of {} groups, {} test of {} groups; 2"
    assert _inputs.summary(loaded).splitlines() == ["classes: 2 (a 30, b 30)", text.format(*sum(counts, ()))]
    assert plain.train.grouping is None
    loaded.write_manifest(tmp_path / "m.csv")
    with open(tmp_path / "m.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"]: (row["group"], row["split"]) for row in rows} == {
        name: (group_of[name], split) for split, part in parts.items() for name in part.names
    }
    assert hashlib.sha256((tmp_path / "m.csv").read_bytes()).hexdigest() == loaded.digest
    plain.write_manifest(tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_text(encoding="utf-8").startswith("hash,path,label,split\n")
    assert plain.digest == "8a5aedf7c13309d8a8fce50c1359cf12761e888f390af5368e4eac21e6e137f1"
    assert [part.groups == part.hashes for part in (plain.train, plain.val, plain.test)] == [True] * 3


def test_what_was_noticed_is_printed_before_an_error(capsys):
    examples = listed(None, [0, 1] * 8, ["train"] * 8 + ["val"] * 8, ["one folder is empty"])
    examples.contents[8:] = examples.contents[:8]
    with pytest.raises(InvalidInput, match="all 8 training arrays of them are in val too"):
        data.load(examples)
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "one folder is empty"
    assert told[1].startswith("arrays taken out of train, because val has them too (8 of 8): 00, 01")
