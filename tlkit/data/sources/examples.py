"""Labeled examples as a source lists them, before any is decoded."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from tlkit.data import modalities
from tlkit.data.contents import Content
from tlkit.data.modalities import MODALITIES, Modality
from tlkit.display import few, shown
from tlkit.errors import InvalidInput
from tlkit.untrusted import duplicates

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""The words for splits in folders, tables and data sets, and what each is called here."""


class Examples(NamedTuple):
    """Labeled examples that are listed and not decoded yet."""

    names: list[str]  # what the user knows each by, such as its path below the folder; as `display.shown` writes it
    labels: list[int] | np.ndarray  # positions in `classes`; or, with several labels, (n, classes), zeros and ones
    classes: list[str]  # as `display.shown` writes them
    splits: list[str | None]  # "train", "val" or "test" where the source says so
    contents: Sequence[Content] | np.ndarray  # arrays: (n, *space, channels), uint8 or float32
    notes: list[str]  # what the user should know, one line each
    kind: str = "photos"  # name of the modality
    separator: str | None = None  # between the labels of one example, where it may have several or none
    groups: list[str] | None = None  # of each, such as its patient; "" where it has none
    left_out: Mapping[str, list[str]] = MappingProxyType({})  # files and rows that are not used, by the reason
    white: float | None = None  # the value that was white in photos that became uint8; None where they are files

    @property
    def modality(self) -> Modality:
        """The row of the modality."""
        return modalities.row(self.kind)

    @property
    def multi_label(self) -> bool:
        """Whether an example may have several labels, or none."""
        return self.separator is not None

    @property
    def encoded(self) -> bool:
        """Whether the contents are files still to be decoded, so that photos may differ in size."""
        return len(self.contents) > 0 and not isinstance(self.contents[0], np.ndarray)

    def select(self, places: Sequence[int]) -> Examples:
        """Return the examples at some positions, in that order."""

        def some(values: Any) -> Any:
            return values[places] if isinstance(values, np.ndarray) else [values[place] for place in places]

        return self._replace(
            names=some(self.names),
            labels=some(self.labels),
            splits=some(self.splits),
            contents=some(self.contents),
            groups=self.groups and some(self.groups),
        )


@functools.lru_cache(4096)
def split_word(name: str) -> str | None:
    """Return the split that a name speaks of: "train", "val" or "test"; None where it speaks of none, or of several.

    A word for a split may have others before and after it, and any case; see `SPLITS`.

    >>> [split_word(name) for name in ("Training", "seg_test", "val2017", "DevSet", "train_val", "trains", "latest")]
    ['train', 'test', 'val', 'val', None, None, None]
    """
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    found = {SPLITS.get(word.lower().removesuffix("set")) for word in words} - {None}
    return found.pop() if len(found) == 1 else None


def renamed_splits(names: Mapping[str, str]) -> list[str]:
    """Return a note that says which name is taken for which split, where one is not called exactly so."""
    renamed = [f"{name} is {split}" for name, split in names.items() if name != split]
    return [f"splits by their names: {few(renamed)}"] if renamed else []


def shown_names(names: list[str], what: str, notes: list[str]) -> list[str]:
    """Escape control characters and bytes that are not UTF-8 in names, and add a note where that changes one.

    MLflow, model files and tables cannot hold such names, and a terminal would act on them.

    Args:
        names: As the source has them.
        what: What they are names of, for messages: `classes`, or the name of a modality.
        notes: Of the examples; a line is added.

    Raises:
        InvalidInput: two names become equal.
    """
    escaped = {name: shown(name) for name in names}
    if changed := [text for name, text in escaped.items() if text != name]:
        if same := duplicates(escaped.values()):
            raise InvalidInput(f"several {what} have names that are written {few(same, 3)}: rename all but one")
        if what != "classes":  # only the last part of a path: the note about classes covers the folder
            changed = [text for name, text in escaped.items() if text.rpartition("/")[2] != name.rpartition("/")[2]]
        if changed:
            notes.append(f"{what} whose names are written with escapes ({len(changed)}): {few(changed, 3)}")
    return [escaped[name] for name in names]


def modality_of(where: str, names: Sequence[str]) -> Modality:
    """Return the modality of files, by their suffixes; the first of the table where no suffix is known.

    Args:
        where: The folder or table that lists them, for errors.
        names: Of the files.

    Raises:
        InvalidInput: the files are of several modalities.

    >>> modality_of("list.csv", ["a.txt", "b.WAV"]).name
    'sounds'
    """
    first: dict[str, str] = {}  # the first file of each modality
    for name in names:
        suffix = Path(name).suffix.lower()
        for modality in modalities.of_files():
            if modality.files and suffix in modality.files.suffixes:
                first.setdefault(modality.name, name)
    if len(first) > 1:
        several = [name for name in MODALITIES if name in first]
        such = " and ".join(few([first[name]]) for name in several)
        raise InvalidInput(f"{where!r} has {' and '.join(several)} (such as {such}): give one of them")
    return modalities.row(next(iter(first), modalities.of_files()[0].name))


def one_label_each(labels: np.ndarray, instead: str) -> list[str]:
    """Return a note where no example has several labels although it may, as with one-hot encoded classes.

    Shapes:
        labels: (n, classes), zeros and ones
    """
    if not (labels.sum(axis=1) == 1).all():
        return []
    return [f"every example has exactly one label: if no example can have two, {instead}, for better probabilities"]
