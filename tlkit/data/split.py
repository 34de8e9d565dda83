"""Which photos train, which pick the epoch and which are the test: decided by what a photo holds, not by chance."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tlkit.data.modalities import row
from tlkit.display import few
from tlkit.errors import InvalidInput
from tlkit.labels import SEPARATOR, joined


class Division(NamedTuple):
    """Where each photo goes."""

    splits: list[str | None]  # "train", "val", "test"; None for a photo taken out because of a leak
    warnings: list[str]  # one line each


def content_hash(content: bytes | np.ndarray) -> str:
    """SHA-256 of a file's bytes, or of an array's shape and values, in hexadecimal.

    >>> content_hash(b"")[:8]
    'e3b0c442'
    """
    if isinstance(content, np.ndarray):
        content = repr(content.shape).encode() + np.ascontiguousarray(content).tobytes()
    return hashlib.sha256(content).hexdigest()


def split_of(content_hash: str, val_fraction: float, test_fraction: float) -> str:
    """The split of a photo, from its hash alone.

    The first 64 bits of the hash are read as a number from 0 to 1, as good as drawn at random: below `test_fraction`
    is the test, the next `val_fraction` validates, the rest trains. So the same photo lands in the same split in every
    data set, copies land together, and a photo that is added moves no other.

    The price: a share is met in expectation, not exactly. Strata with exact shares are impossible here: how many photos
    of a class go to the test would depend on how many there are, so an added photo could move another; where none may
    move, a photo's split can depend on nothing but the photo, and each falls independently of the others. Every class
    gets the same shares in expectation, whatever its size, with the spread of a binomial: of n photos of a class, n *
    share ± sqrt(n * share * (1 - share)) (one standard deviation), for example 15 ± 3.6 of 100.

    >>> split_of("00" * 32, 0.15, 0.15), split_of("30" * 32, 0.15, 0.15), split_of("ff" * 32, 0.15, 0.15)
    ('test', 'val', 'train')
    """
    place = int(content_hash[:16], 16) / 2**64
    if place < test_fraction:
        return "test"
    return "val" if place < test_fraction + val_fraction else "train"


def named(labels: Sequence[int] | np.ndarray, classes: Sequence[str], separator: str | None = None) -> list[str]:
    """Name the label of each photo, or the labels, with what stands between them.

    Shapes:
        labels: (n,) positions in the classes; or (n, classes), zeros and ones

    >>> named([1, 0], ["cat", "dog"]), named(np.array([[1, 1], [0, 0]]), ["cat", "dog"], "|")
    (['dog', 'cat'], ['cat|dog', ''])
    """
    if np.ndim(labels) == 2:
        return [joined(row, classes, separator or SEPARATOR) for row in np.asarray(labels).tolist()]
    return [classes[label] for label in labels]


def divide(
    hashes: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    names: Sequence[str],
    given: Sequence[str | None],
    classes: Sequence[str],
    *,
    kind: str = "photos",
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    val_as_test: bool = False,
    separator: str | None = None,
) -> Division:
    """Put every photo into a split: the given one where there is one, else by its hash (see `split_of`).

    What is given decides: train, val and test stay as they are; from train and test, validation is taken out of train
    by hash; with train and val, there is no test, unless `val_as_test` makes val the test and validation is taken out
    of train by hash; train alone counts as nothing given. A photo that stands in several given splits is kept in one,
    the test before val before train. Warnings and errors call the photos by `kind`, such as sounds, and put `separator`
    between the labels of one that has several.

    Shapes:
        labels: (n,) positions in the classes; or (n, classes), zeros and ones, where each may have several or none

    Raises:
        InvalidInput: a fraction or the given splits cannot be used; a class is left without a photo to train on, or,
            where each may have several labels, a split without any.

    >>> divide(["ff" * 32, "fe" * 32, "30" * 32, "11" * 32], [0, 1, 0, 1], list("abcd"), [None] * 4, "xy").splits
    ['train', 'train', 'val', 'test']
    """
    for name, share in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 < share < 1 or val_fraction + test_fraction >= 1:
            raise InvalidInput(f"data.{name} is {share!r}: above 0, and both fractions together below 1")
    odd = "whose copies have other labels" if np.ndim(labels) == 2 else "with several labels"
    splits, warnings = list(given), _contradictions(hashes, named(labels, classes, separator), names, f"{kind} {odd}")
    present = {str(split) for split in given if split}
    if present not in (set(), {"train"}, {"train", "val"}, {"train", "test"}, {"train", "val", "test"}):
        raise InvalidInput(f"the data has only the splits {few(sorted(present))}: give train too, or no splits")
    if val_as_test and present != {"train", "val"}:
        raise InvalidInput(
            f"data.val_as_test is True, and the given splits are {few(sorted(present)) or 'none'}: "
            "it is for data with train and val only"
        )
    if val_as_test:
        splits = ["test" if split == "val" else split for split in splits]
        present = {"train", "test"}
    if present <= {"train"}:
        splits = [split_of(h, val_fraction, test_fraction) for h in hashes]
    else:
        warnings += _remove_leaks(splits, hashes, names, kind)
    if present == {"train", "test"}:
        drawn = [split_of(h, val_fraction, 0) for h in hashes]
        splits = [d if s == "train" else s for s, d in zip(splits, drawn, strict=True)]
    gaps = _gaps if np.ndim(labels) == 1 else _unlabelled
    return Division(splits, warnings + gaps(splits, labels, classes, kind) + _copies(splits, hashes, kind))


def _remove_leaks(splits: list[str | None], hashes: Sequence[str], names: Sequence[str], kind: str) -> list[str]:
    where = defaultdict(set)
    for h, split in zip(hashes, splits, strict=True):
        where[h].add(split)
    warnings = []
    for lesser, better in (("train", "test"), ("train", "val"), ("val", "test")):
        leaked = [i for i, h in enumerate(hashes) if splits[i] == lesser and better in where[h]]
        for i in leaked:
            splits[i] = None
        if leaked:
            warnings.append(
                f"{kind} taken out of {lesser}, because {better} has them too ({len(leaked)}): "
                f"{few([names[i] for i in leaked])}"
            )
    return warnings


def _contradictions(hashes: Sequence[str], labels: Sequence[str], names: Sequence[str], what: str) -> list[str]:
    same = defaultdict(list)
    for i, h in enumerate(hashes):
        same[h].append(i)
    odd = [found for found in same.values() if len({labels[i] for i in found}) > 1]
    if not odd:
        return []
    shown = [" = ".join(f"{names[i]} ({labels[i]})" for i in found) for found in odd]
    return [f"{what} ({len(odd)}): {few(shown)}"]


def _copies(splits: Sequence[str | None], hashes: Sequence[str], kind: str) -> list[str]:
    kept = [(split, h) for split, h in zip(splits, hashes, strict=True) if split]
    copies = len(kept) - len(set(kept))
    return [f"exact copies of {kind} in the same split, which counts them each time: {copies}"] if copies else []


def _gaps(splits: Sequence[str | None], labels: Any, classes: Sequence[str], kind: str) -> list[str]:
    """A warning for each split that lacks classes; an error where it is train, or where nothing validates."""
    count = Counter((split, classes[label]) for split, label in zip(splits, labels, strict=True))
    warnings, one = [], row(kind).singular
    for split in ("train", "val", "test"):
        lacking = [name for name in classes if not count[split, name]]
        if lacking and split == "train":
            raise InvalidInput(f"no {one} of {few(lacking)} is left to train on: add {kind} or lower the fractions")
        if len(lacking) == len(classes) and split == "val":
            raise InvalidInput(f"no {one} falls into val: add {kind}, raise data.val_fraction or give the splits")
        if lacking and (split != "test" or "test" in splits):
            warnings.append(f"{split} has no {one} of {few(lacking)}: its score says nothing about them")
    return warnings + _no_test(splits)


def _unlabelled(splits: Sequence[str | None], labels: Any, classes: Sequence[str], kind: str) -> list[str]:
    """A warning for each split that lacks a label that examples may have; an error where it has none of them."""
    place, warnings, one = np.array([split or "" for split in splits]), [], row(kind).singular
    for split in ("train", "val", "test"):
        here = np.asarray(labels)[place == split]
        if not len(here) and split != "test":
            raise InvalidInput(f"no {one} falls into {split}: add {kind}, change data.val_fraction or the splits")
        lacking = [name for name, there in zip(classes, here.any(axis=0), strict=True) if not there]
        if len(here) and len(lacking) == len(classes):
            raise InvalidInput(f"no {one} of {split} has a label: add {kind}, or change the splits")
        if len(here) and lacking:
            so = "they cannot be learnt" if split == "train" else "its score says nothing about them"
            warnings.append(f"{split} has no {one} of {few(lacking)}: {so}")
    return warnings + _no_test(splits)


def _no_test(splits: Sequence[str | None]) -> list[str]:
    if "test" in splits:
        return []
    return ["there is no test split: scores are those of val, by which training picks its epoch"]
