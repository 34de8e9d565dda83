"""What no split and no fold may divide: copies of one content, the examples of a group, and pairs that are given."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Units(NamedTuple):
    """The unit of each example: itself with whatever must stay in one split with it."""

    names: list[str]  # of the unit: one of its groups, or a content hash where it has none
    hashes: list[str]  # from which the place of the unit follows, in hexadecimal
    joined: list[list[str]]  # groups that became one unit, two or more each, sorted


def group_hash(name: str) -> str:
    """SHA-256 of a group's name after the word `group:`, in hexadecimal.

    >>> group_hash("patient7")[:8]
    'fd27b134'
    """
    return hashlib.sha256(f"group:{name}".encode("utf-8", "backslashreplace")).hexdigest()


def copies(hashes: Sequence[str]) -> dict[str, list[int]]:
    """Return the positions of each content that is there twice or more.

    >>> copies(["0a", "0b", "0b"])
    {'0b': [1, 2]}
    """
    if len({*hashes}) == len(hashes):
        return {}
    counts, places = Counter(hashes), defaultdict[str, list[int]](list)
    for i, h in enumerate(hashes):
        if counts[h] > 1:
            places[h].append(i)
    return dict(places)


def units(
    hashes: Sequence[str], groups: Sequence[str] | None = None, together: Iterable[tuple[int, int]] = ()
) -> Units:
    """Find which examples must stay together.

    Examples of one content, of one group, and of one pair in `together` are in one unit, and so is whatever these
    connect: two groups that share a photo are one unit. A unit's hash is the smallest of its groups' hashes, which
    follow from their names alone. That of a unit without a group is its content hash, or, where several contents are
    paired, the `group_hash` of the smallest: the smallest itself would be near 0, and the unit in the test.

    So a group, and an example without one, keeps its place whatever is added. What connects two units is the
    exception: an example that is added to one and belongs to another too, or that is paired with one and has a smaller
    hash, can move the unit, because one of two places must give way.

    Args:
        hashes: SHA-256 of each content.
        groups: Name of the group of each; "" for an example that has none.
        together: Pairs of positions, such as those of near copies.

    >>> units(["0a", "0b", "0b", "0c"]).names
    ['0a', '0b', '0b', '0c']
    >>> units(["0a", "0b", "0b", "0c"], ["x", "x", "y", ""]).joined, units(["0a", "0b", "0c"], None, [(2, 0)]).names
    ([['x', 'y']], ['0a', '0b', '0a'])
    """
    together = list(together)
    if not any(groups or ()) and not together:
        return Units(list(hashes), list(hashes), [])
    parents = array("q", range(len(hashes)))  # a list would hold a number object for each

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]  # halves the path for the next time
            i = parents[i]
        return i

    for keys in (hashes, groups or []):
        first: dict[str, int] = {}
        for i, key in enumerate(keys):
            if key:
                parents[root(i)] = root(first.setdefault(key, i))
    for i, j in together:
        parents[root(int(i))] = root(int(j))
    sizes = Counter(map(root, range(len(hashes))))
    members = defaultdict[int, list[int]](list)  # those that are alone keep name and place
    for i in range(len(hashes)):
        if sizes[root(i)] > 1 or (groups and groups[i]):
            members[root(i)].append(i)
    names, places, joined = list(hashes), list(hashes), []
    for unit in members.values():
        inside = sorted({groups[i] for i in unit} - {""}) if groups else []
        if len(inside) > 1:
            joined.append(inside)
        name = min(inside, key=group_hash) if inside else min(hashes[i] for i in unit)
        place = group_hash(name) if inside or len({hashes[i] for i in unit}) > 1 else name
        for i in unit:
            names[i], places[i] = name, place
    return Units(names, places, joined)
