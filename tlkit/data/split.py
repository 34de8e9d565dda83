"""Split examples into train, val and test: by their content and not by chance."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tlkit.data.modalities import row
from tlkit.display import few
from tlkit.errors import InvalidInput
from tlkit.labels import SEPARATOR, joined

Labels = Sequence[int] | np.ndarray
"""(n,), positions in the classes; or (n, classes), zeros and ones."""


class Division(NamedTuple):
    """The split of each example."""

    splits: list[str | None]  # "train", "val", "test"; None for an example taken out because of a leak
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
    """Return the split of an example, from its hash alone.

    The first 64 bits of the hash are read as a number from 0 to 1, which is as good as random: below `test_fraction` is
    the test, the next `val_fraction` is val, the rest is train. So the same example is in the same split in every data
    set, copies are in the same split, and adding an example moves no other.

    The price is that a share is met in expectation and not exactly. Stratified splits with exact shares are impossible
    here: the number of test examples of a class would depend on the size of the class, so an added example could move
    another one. Every class gets the same shares in expectation, whatever its size, with the spread of a binomial: of n
    examples, n * share ± sqrt(n * share * (1 - share)) (one standard deviation), for example 15 ± 3.6 of 100.

    >>> split_of("00" * 32, 0.15, 0.15), split_of("30" * 32, 0.15, 0.15), split_of("ff" * 32, 0.15, 0.15)
    ('test', 'val', 'train')
    """
    place = int(content_hash[:16], 16) / 2**64
    if place < test_fraction:
        return "test"
    return "val" if place < test_fraction + val_fraction else "train"


def named(labels: Labels, classes: Sequence[str], separator: str | None = None) -> list[str]:
    """Return the name of each example's label, or the names of its labels with the separator between them.

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
    labels: Labels,
    names: Sequence[str],
    source_splits: Sequence[str | None],
    classes: Sequence[str],
    *,
    kind: str = "photos",
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    val_as_test: bool = False,
    separator: str | None = None,
) -> Division:
    """Put every example into a split: that of the source, where it has splits, else one by its hash (see `split_of`).

    If the source has train, val and test, they stay as they are. If it has train and test, val is taken out of train by
    hash. If it has train and val, there is no test, unless `val_as_test` makes val the test; val is then taken out of
    train by hash. If it has train only, it counts as having no splits. An example in several splits of the source
    remains in one: test before val before train.

    Args:
        hashes: SHA-256 of each content; see `content_hash`.
        labels: (n,) positions in the classes; or (n, classes), zeros and ones, where each may have several or none.
        names: What messages call each example.
        source_splits: The split of each in the source, or None.
        classes: Names of the classes.
        kind: Name of the modality.
        val_fraction: Share of val, where it is taken by hash.
        test_fraction: Share of test, where it is taken by hash.
        val_as_test: Use the source's val as test.
        separator: Between several labels of one example in messages.

    Raises:
        InvalidInput: a fraction or the splits of the source cannot be used; no example of a class is left to train on,
            or, with several labels each, a split has no example or no label.

    >>> divide(["ff" * 32, "fe" * 32, "30" * 32, "11" * 32], [0, 1, 0, 1], list("abcd"), [None] * 4, "xy").splits
    ['train', 'train', 'val', 'test']
    """
    for name, share in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 < share < 1 or val_fraction + test_fraction >= 1:
            raise InvalidInput(f"data.{name} is {share!r}: above 0, and both fractions together below 1")
    odd = "whose copies have other labels" if np.ndim(labels) == 2 else "with several labels"
    splits, warnings = (
        list(source_splits),
        _contradictions(hashes, named(labels, classes, separator), names, f"{kind} {odd}"),
    )
    present = {str(split) for split in source_splits if split}
    if present not in (set(), {"train"}, {"train", "val"}, {"train", "test"}, {"train", "val", "test"}):
        raise InvalidInput(f"the data have only the splits {few(sorted(present))}: give train too, or no splits")
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
        by_hash = [split_of(h, val_fraction, 0) for h in hashes]
        splits = [new if old == "train" else old for old, new in zip(splits, by_hash, strict=True)]
    gaps = _gaps if np.ndim(labels) == 1 else _unlabelled
    return Division(splits, warnings + gaps(splits, labels, classes, kind) + _copies(splits, hashes, kind))


def _remove_leaks(splits: list[str | None], hashes: Sequence[str], names: Sequence[str], kind: str) -> list[str]:
    """Keep an example that is in several splits in one of them, and return warnings."""
    splits_of = defaultdict(set)
    for h, split in zip(hashes, splits, strict=True):
        splits_of[h].add(split)
    warnings = []
    for lesser, better in (("train", "test"), ("train", "val"), ("val", "test")):
        leaked = [i for i, h in enumerate(hashes) if splits[i] == lesser and better in splits_of[h]]
        for i in leaked:
            splits[i] = None
        if leaked:
            warnings.append(
                f"{kind} taken out of {lesser}, because {better} has them too ({len(leaked)}): "
                f"{few([names[i] for i in leaked])}"
            )
    return warnings


def _contradictions(hashes: Sequence[str], labels: Sequence[str], names: Sequence[str], what: str) -> list[str]:
    """A warning about copies of one content with different labels."""
    copies = defaultdict(list)
    for i, h in enumerate(hashes):
        copies[h].append(i)
    odd = [group for group in copies.values() if len({labels[i] for i in group}) > 1]
    if not odd:
        return []
    lines = [" = ".join(f"{names[i]} ({labels[i]})" for i in group) for group in odd]
    return [f"{what} ({len(odd)}): {few(lines)}"]


def _copies(splits: Sequence[str | None], hashes: Sequence[str], kind: str) -> list[str]:
    used = [(split, h) for split, h in zip(splits, hashes, strict=True) if split]
    copies = len(used) - len(set(used))
    return [f"exact copies of {kind} within one split (each copy counts): {copies}"] if copies else []


def _gaps(splits: Sequence[str | None], labels: Labels, classes: Sequence[str], kind: str) -> list[str]:
    """A warning for each split that lacks a class; an error where train does, or where val is empty."""
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


def _unlabelled(splits: Sequence[str | None], labels: Labels, classes: Sequence[str], kind: str) -> list[str]:
    """A warning for each split in which no example has some label; an error where no example has any."""
    split_of_each, warnings, one = np.array([split or "" for split in splits]), [], row(kind).singular
    for split in ("train", "val", "test"):
        here = np.asarray(labels)[split_of_each == split]
        if not len(here) and split != "test":
            raise InvalidInput(f"no {one} falls into {split}: add {kind}, change data.val_fraction or the splits")
        lacking = [name for name, occurs in zip(classes, here.any(axis=0), strict=True) if not occurs]
        if len(here) and len(lacking) == len(classes):
            raise InvalidInput(f"no {one} of {split} has a label: add {kind}, or change the splits")
        if len(here) and lacking:
            so = "they cannot be learned" if split == "train" else "its score says nothing about them"
            warnings.append(f"{split} has no {one} of {few(lacking)}: {so}")
    return warnings + _no_test(splits)


def _no_test(splits: Sequence[str | None]) -> list[str]:
    if "test" in splits:
        return []
    return ["there is no test split: scores are those of val, by which training picks its epoch"]
