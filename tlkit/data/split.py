"""Split examples into train, val and test: by their content or their group, and not by chance."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tlkit.data import gaps
from tlkit.data.gaps import Divided
from tlkit.data.units import copies, units
from tlkit.display import few
from tlkit.errors import InvalidInput
from tlkit.labels import SEPARATOR, joined

Labels = Sequence[int] | np.ndarray
"""(n,), positions in the classes; or (n, classes), zeros and ones."""


class Division(NamedTuple):
    """The split of each example."""

    splits: list[str | None]  # "train", "val", "test"; None for an example taken out because of a leak
    warnings: list[str]  # one line each
    units: list[str]  # name of the unit of each example: what must stay together, see `tlkit.data.units`


def content_hash(content: bytes | np.ndarray) -> str:
    """SHA-256 of a file's bytes, or of an array's shape and values, in hexadecimal.

    >>> content_hash(b"")[:8]
    'e3b0c442'
    """
    if isinstance(content, np.ndarray):
        content = repr(content.shape).encode() + np.ascontiguousarray(content).tobytes()
    return hashlib.sha256(content).hexdigest()


def split_of(content_hash: str, val_fraction: float, test_fraction: float) -> str:
    """Return the split of an example, from its hash alone, or that of a group, from the hash of its name.

    The first 64 bits of the hash are read as a number from 0 to 1, which is as good as random: below `test_fraction` is
    the test, the next `val_fraction` is val, the rest is train. So the same example is in the same split in every data
    set, copies are in the same split, and adding an example moves no other.

    The price is that a share is met in expectation and not exactly. Stratified splits with exact shares are impossible
    here: the number of test examples of a class would depend on the size of the class, so an added example could move
    another one. Every class gets the same shares in expectation, whatever its size, with the spread of a binomial: of n
    examples, n * share ± sqrt(n * share * (1 - share)) (one standard deviation), for example 15 ± 3.6 of 100. Of groups
    n is the number of groups: a split's share of the examples differs the more, the fewer and the larger they are.

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
    groups: Sequence[str] | None = None,
    together: Iterable[tuple[int, int]] = (),
) -> Division:
    """Put every example into a split: that of the source, where it has splits, else one by its hash (see `split_of`).

    If the source has train, val and test, they stay as they are. If it has train and test, val is taken out of train by
    hash. If it has train and val, there is no test, unless `val_as_test` makes val the test; val is then taken out of
    train by hash. If it has train only, it counts as having no splits.

    No split divides a unit: the copies of one content, the examples of one group or of a pair in `together`, and all
    that these connect (see `tlkit.data.units`; there too, what the hash of a unit is and what moves one). Of a unit in
    several splits of the source, the part in the best of them remains: test before val before train.

    Every class keeps something to train on, where splits are made by hash and an example has one label. Of a class that
    its hashes leave without a training example, the unit with the largest hash, the nearest to train, is taken into
    train. No rule can do that and move nothing when examples are added: a class of one photo must train on it, whatever
    the photo, so each photo would have to stay in train in every larger data set. This rule looks at each class alone
    and at no order, so an added example can change one thing: the one unit that was taken into train for its class
    returns to the split of its hash. All else stays, except a unit that the added example itself belongs to.

    With several labels each, a label without a training example is only named, as ever.

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
        groups: Name of the group of each, such as its patient; "" for one that has none.
        together: Pairs of positions, such as those of near copies, that must be in one split too.

    Raises:
        InvalidInput: a fraction or the splits of the source cannot be used; no example of a class is left to train on,
            or, with several labels each, a split has no example or no label. What was noticed before is in the error's
            notes, one line each.

    >>> divide(["ff" * 32, "fe" * 32, "30" * 32, "11" * 32], [0, 1, 0, 1], list("abcd"), [None] * 4, "xy").splits
    ['train', 'train', 'val', 'test']
    >>> divide(["ff" * 32, "11" * 32, "30" * 32], [0, 1, 0], list("abc"), [None] * 3, "xy").splits
    ['train', 'train', 'val']
    """
    for name, share in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 < share < 1 or val_fraction + test_fraction >= 1:
            raise InvalidInput(f"data.{name} is {share!r}: above 0, and both fractions together below 1")
    _check_given({split for split in source_splits if split}, val_as_test)
    given = ["test" if val_as_test and split == "val" else split for split in source_splits]
    present, shares = {split for split in given if split}, dict[str, float]()
    if present <= {"train"}:
        given, shares = ["train"] * len(hashes), {"val": val_fraction, "test": test_fraction}
    elif present == {"train", "test"}:
        shares = {"val": val_fraction}
    together = list(together)
    found = units(hashes, groups, together)
    divided = Divided(list(given), given, shares, np.asarray(labels), classes, names, hashes, groups, found, kind)
    several = divided.labels.ndim == 2
    odd = "whose copies have other labels" if several else "with several labels"
    warnings = _contradictions(hashes, named(labels, classes, separator), names, f"{kind} {odd}")
    warnings += _connected(divided, bool(together)) + _remove_leaks(divided)
    if shares:
        _place(divided)
        warnings += [] if several else _keep_each_class(divided)
    if problem := gaps.problem(divided):
        error = InvalidInput(problem)
        for warning in warnings:
            error.add_note(warning)
        raise error
    warnings += gaps.warnings(divided) + _copies(divided)
    return Division(divided.splits, warnings, found.names)


def _check_given(present: set[str], val_as_test: bool) -> None:
    """Refuse splits of the source that cannot be used."""
    if present not in (set(), {"train"}, {"train", "val"}, {"train", "test"}, {"train", "val", "test"}):
        raise InvalidInput(f"the data have only the splits {few(sorted(present))}: give train too, or no splits")
    if val_as_test and present != {"train", "val"}:
        raise InvalidInput(
            f"data.val_as_test is True, and the given splits are {few(sorted(present)) or 'none'}: "
            "it is for data with train and val only"
        )


def _connected(divided: Divided, paired: bool) -> list[str]:
    """Warnings about groups that became one unit, and about near copies of which most are one."""
    joined = [" = ".join(groups) for groups in divided.units.joined]
    what = f"groups that share {divided.kind}, and are kept together"
    lines = [f"{what} ({len(joined)}): {few(joined)}"] if joined else []
    largest, total = max(Counter(divided.units.names).values(), default=0), len(divided.names)
    if paired and not divided.groups and total >= 10 and 4 * largest > total:
        lines.append(
            f"{largest:,} of {total:,} {divided.kind} are kept together as near copies of near copies: if they are of "
            "one layout, as X-rays and letters are, they may be no copies; look at the pairs that inspect finds"
        )
    return lines


def _remove_leaks(divided: Divided) -> list[str]:
    """Keep a unit that is in several splits in one of them, and return warnings."""
    splits, hashes, units, kind = divided.splits, divided.hashes, divided.units.names, divided.kind
    if len({*splits} - {None}) < 2:
        return []
    of_unit = of_group = gaps.splits_of(units, splits)
    groups = units
    if divided.groups:
        groups = [group or unit for group, unit in zip(divided.groups, units, strict=True)]
        of_group = gaps.splits_of(groups, splits)
    of_hash = gaps.splits_of(hashes, splits)
    total, warnings = Counter(splits), []
    for lesser, better in (("train", "test"), ("train", "val"), ("val", "test")):
        leaked = [i for i, unit in enumerate(units) if splits[i] == lesser and better in of_unit[unit]]
        copies = [i for i in leaked if better in of_hash[hashes[i]]]
        in_group = [i for i in leaked if divided.groups and divided.groups[i] and better in of_group[groups[i]]]
        grouped = [i for i in in_group if better not in of_hash[hashes[i]]]
        others = sorted({*leaked} - {*copies, *grouped})
        which = sorted({groups[i] for i in grouped})
        many = f"; {len(which)} group{'s' if len(which) != 1 else ''}"
        out = f"{kind} taken out of {lesser}, because {better} has"
        for what, places, more, shown in (
            ("them too", copies, "", [divided.names[i] for i in copies]),
            ("others of their groups", grouped, many, which),
            ("others that they are kept together with", others, "", [divided.names[i] for i in others]),
        ):
            if places:
                warnings.append(f"{out} {what} ({len(places):,} of {total[lesser]:,}{more}): {few(shown)}")
        for i in leaked:
            splits[i] = None
    return warnings


def _place(divided: Divided) -> None:
    """Put what is in train into a split by the hash of its unit."""
    shares = divided.shares
    for i, h in enumerate(divided.units.hashes):
        if divided.splits[i] == "train":
            divided.splits[i] = split_of(h, shares["val"], shares.get("test", 0))


def _keep_each_class(divided: Divided) -> list[str]:
    """Take something of each class into train that has nothing there; see `divide`. Return a warning."""
    splits, labels, hashes = divided.splits, divided.labels.tolist(), divided.units.hashes
    learned = {label for label, split in zip(labels, splits, strict=True) if split == "train"}
    free = [i for i, split in enumerate(splits) if split in divided.shares]
    largest: dict[int, str] = {}
    for i in free:
        if labels[i] not in learned:
            largest[labels[i]] = max(largest.get(labels[i], ""), hashes[i])
    units = set(largest.values())
    taken = [i for i in free if hashes[i] in units]
    for i in taken:
        splits[i] = "train"
    if not taken:
        return []
    groups = divided.groups
    grouped = groups is not None and all(groups[i] for i in taken)
    which = sorted({divided.units.names[i] for i in taken}) if grouped else [divided.names[i] for i in taken]
    what, rest = "groups" if grouped else divided.kind, 1 - sum(divided.shares.values())
    do = f"only {rest:.0%} of all are for train: lower the fractions" if rest < 0.5 else f"add {what} of these classes"
    return [f"{what} taken into train, which had no {divided.one} of their classes ({len(which)}): {few(which)}; {do}"]


def _contradictions(hashes: Sequence[str], labels: Sequence[str], names: Sequence[str], what: str) -> list[str]:
    """A warning about copies of one content with different labels."""
    odd = [group for group in copies(hashes).values() if len({labels[i] for i in group}) > 1]
    if not odd:
        return []
    lines = [" = ".join(f"{names[i]} ({labels[i]})" for i in group) for group in odd]
    return [f"{what} ({len(odd)}): {few(lines)}"]


def _copies(divided: Divided) -> list[str]:
    splits, hashes = divided.splits, divided.hashes
    count = 0
    for name in {*splits} - {None}:
        used = [h for split, h in zip(splits, hashes, strict=True) if split == name]
        count += len(used) - len({*used})
    return [f"exact copies of {divided.kind} within one split (each copy counts): {count}"] if count else []
