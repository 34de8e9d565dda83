"""The manifest of a run: which example, by its content, was in which split with which label."""

from __future__ import annotations

import bisect
import csv
import hashlib
import io
import itertools
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tlkit.data.split import named

if TYPE_CHECKING:
    from tlkit.data.photos import Photos

TOGETHER = 4096  # rows that are written at a time


class Row(NamedTuple):
    """A line of the manifest."""

    hash: str
    path: str
    label: str
    split: str
    group: str = ""  # where the data have groups


def rows(splits: Mapping[str, Photos], classes: Sequence[str], separator: str | None) -> Iterator[Row]:
    """Give the rows, sorted, one by one: those of a million examples would take 0.2 GB at once.

    Args:
        splits: The examples of each split.
        classes: Names of the classes.
        separator: Between the labels of one example, where it may have several.
    """
    parts = list(splits.items())
    labels = [named(photos.labels, classes, separator) for _, photos in parts]
    starts = np.cumsum([0, *(len(photos) for _, photos in parts)]).tolist()
    hashes = [hash_ for _, photos in parts for hash_ in photos.hashes]

    def row(place: int) -> Row:
        part = bisect.bisect_right(starts, place) - 1
        (split, photos), i = parts[part], place - starts[part]
        group = photos.given_groups[i] if photos.given_groups else ""
        return Row(photos.hashes[i], photos.names[i], labels[part][i], split, group)

    ordered = map(row, sorted(range(len(hashes)), key=hashes.__getitem__))
    for _, copies in itertools.groupby(ordered, key=operator.attrgetter("hash")):
        yield from sorted(copies)


def digests(rows: Iterator[Row], columns: Sequence[str], splits: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Return the number of examples and the SHA-256 of the lines in the manifest, by split; of the whole at "".

    Args:
        rows: All of them.
        columns: Those that are written.
        splits: Their names.
    """
    hashes, counts = {name: hashlib.sha256(_csv([columns])) for name in ("", *splits)}, Counter[str]()
    for batch in _batched(rows):
        for name, sha in hashes.items():
            own = [row for row in batch if name in ("", row.split)]
            sha.update(_csv(row[: len(columns)] for row in own))
            counts[name] += len(own)
    return {name: (counts[name], sha.hexdigest()) for name, sha in hashes.items()}


def lines(rows: Iterator[Row], columns: Sequence[str]) -> Iterator[bytes]:
    """Give the lines of the CSV file, many at a time."""
    yield _csv([columns])
    for batch in _batched(rows):
        yield _csv(row[: len(columns)] for row in batch)


def _batched(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while batch := list(itertools.islice(rows, TOGETHER)):
        yield batch


def _csv(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")  # names that come from no source may hold anything
