"""Labeled examples of one split, in memory or decoded again at each read; and the splits of a run."""

from __future__ import annotations

import dataclasses
import errno
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit.data import manifest, modalities
from tlkit.data.contents import Content, Piece, read
from tlkit.data.example_set import NamedExamples
from tlkit.data.manifest import Row
from tlkit.data.modalities import Files, Modality, Reading
from tlkit.data.split import content_hash
from tlkit.data.threads import threads_for
from tlkit.errors import InvalidInput, Undecodable, Unreadable


@dataclasses.dataclass(frozen=True, eq=False)
class Photos:
    """Photos, sounds or arrays of one split, in the order of the source.

    They are in memory where they fit, decoded once in the whole run; else each `read` decodes them again.
    """

    names: list[str]  # what the user knows each by, such as the path of its file
    hashes: list[str]  # SHA-256 of each content
    labels: np.ndarray  # (n,), int32: positions in the classes; or multi-label: (n, classes), float32, zeros and ones
    shape: tuple[int, ...]  # of one: (*space, channels), such as (height, width, channels) or (samples, channels)
    stored: np.ndarray | Sequence[Content]  # values (n or more, *shape), or contents to decode
    rows: np.ndarray  # (n,), int: the row of each in `stored`
    kind: str = "photos"  # name of the modality
    reading: Reading = dataclasses.field(default_factory=Reading)  # how `read` decodes
    given_groups: list[str] | None = None  # the group of each, such as its patient, where the data have groups
    units: list[str] | None = None  # of each, with all that must stay together; see `tlkit.data.units`

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        """Give another process no contents but their own, and paths that mean the same there."""
        stored: Any = self.stored
        if isinstance(stored, np.ndarray):
            stored = stored[self.rows]
        else:
            own = [stored[row] for row in self.rows]
            stored = [content.absolute() if isinstance(content, Path) else content for content in own]
        return {**vars(self), "stored": stored, "rows": np.arange(len(self))}

    @property
    def modality(self) -> Modality:
        """The row of the modality."""
        return modalities.row(self.kind)

    @property
    def groups(self) -> list[str]:
        """What a cross-validation must not divide: the unit of each example, its group, or else its hash."""
        if self.units or not self.given_groups:
            return self.units or self.hashes
        return [group or hash_ for group, hash_ in zip(self.given_groups, self.hashes, strict=True)]

    @property
    def grouping(self) -> list[str] | None:
        """The `groups`, between which alone examples are independent; None where the data have none."""
        return self.groups if self.given_groups else None

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the values that `read` returns: uint8 for photos, float32 for sounds, either for arrays."""
        return self.stored.dtype if isinstance(self.stored, np.ndarray) else file_format(self.modality).dtype

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the values of the examples at some positions, such as their pixels, as a new array.

        Shapes:
            indices: (k,), positions from 0 to len(self) - 1
            returns: (k, *shape)

        Raises:
            Undecodable: a file is missing, has changed since it was listed, or cannot be decoded.
        """
        if isinstance(self.stored, np.ndarray):
            return self.stored[self.rows[indices]]
        values = np.empty((len(indices), *self.shape), self.dtype)
        decode = file_format(self.modality).decode

        def fill(place: int, index: int) -> None:
            content, name = self._content(index), self.names[index]
            try:
                values[place] = decode(content, self.shape, name, self.reading)
            except InvalidInput as error:
                raise Undecodable(str(error)) from error
            except OSError as error:
                raise Undecodable(f"{name}: {error.strerror}") from error

        for _ in threads_for(self.stored).map(fill, range(len(indices)), indices):
            pass
        return values

    def _content(self, index: int) -> bytes | np.ndarray:
        """The bytes of a file, or values.

        Raises:
            Undecodable: the file has changed, or would fill the memory; Unreadable: it cannot be opened here.
        """
        content, name = self.stored[self.rows[index]], self.names[index]
        if not isinstance(content, Path | Piece):
            return content
        try:
            if isinstance(content, Path) and not content.is_file():  # a pipe would be waited for
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            data = read(content)
        except InvalidInput as error:
            raise Undecodable(str(error)) from error
        except OSError as error:
            raise Unreadable(f"{name}: {error.strerror or error}") from error
        if content_hash(data) != self.hashes[index]:  # its features are stored under this hash
            raise Undecodable(f"{name} has changed since it was listed: start again")
        return data

    def with_contents(self) -> Photos:
        """Return the same examples with the bytes of their files in memory, for a process that cannot open these.

        Raises:
            Undecodable: a file is missing, or has changed since it was listed.
        """
        if isinstance(self.stored, np.ndarray):
            return self
        contents = list(threads_for(self.stored).map(self._content, range(len(self))))
        return dataclasses.replace(self, stored=contents, rows=np.arange(len(self)))

    def select(self, indices: Sequence[int] | np.ndarray) -> Photos:
        """Return the examples at some positions, in that order.

        >>> Photos.of(np.zeros((3, 8, 8, 1), np.uint8), [0, 1, 1]).select([2, 0]).names
        ['2', '0']
        """
        indices = np.asarray(indices, int)

        def some(values: list[str] | None) -> list[str] | None:
            return values and [values[index] for index in indices]

        return dataclasses.replace(
            self,
            names=[self.names[index] for index in indices],
            hashes=[self.hashes[index] for index in indices],
            labels=self.labels[indices],
            rows=self.rows[indices],
            given_groups=some(self.given_groups),
            units=some(self.units),
        )

    @staticmethod
    def joined(parts: Sequence[Photos]) -> Photos:
        """Return the examples of several splits of the same `Splits`, one split after the other."""
        first, *_ = parts

        def together(name: str) -> list[str] | None:
            lists = [getattr(part, name) for part in parts]
            return None if None in lists else [value for values in lists for value in values]

        return dataclasses.replace(
            first,
            names=[name for part in parts for name in part.names],
            hashes=[hash_ for part in parts for hash_ in part.hashes],
            labels=np.concatenate([part.labels for part in parts]),
            rows=np.concatenate([part.rows for part in parts]),
            given_groups=together("given_groups"),
            units=together("units"),
        )

    @staticmethod
    def of(images: np.ndarray, labels: Sequence[int] | np.ndarray, names: Sequence[str] | None = None) -> Photos:
        """Make photos from pixels in memory, or arrays from other values; see `tlkit.data.modalities.of_arrays`.

        Shapes:
            images: (n, *space, channels), uint8 or float32
            labels: (n,), or (n, classes), zeros and ones

        >>> Photos.of(np.zeros((2, 8, 8, 1), np.uint8), [0, 1]).read([1]).shape
        (1, 8, 8, 1)
        """
        return Photos(
            kind=modalities.of_arrays(images).name,
            names=list(names) if names else [str(i) for i in range(len(images))],
            hashes=[content_hash(image) for image in images],
            labels=label_array(labels),
            shape=images.shape[1:],
            stored=images,
            rows=np.arange(len(images)),
        )


if TYPE_CHECKING:
    _NAMED: type[NamedExamples] = Photos  # mypy proves it


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """The examples of a run: to train on, to choose the epoch by, and to test on."""

    classes: list[str]
    train: Photos
    val: Photos
    test: Photos | None
    set_aside: list[str]  # examples that cannot be decoded, each with the reason
    warnings: list[str]  # other things that the user should know, one line each
    kind: str = "photos"  # name of the modality
    rate: int | None = None  # of sounds: samples per second
    separator: str | None = None  # between the labels of one example in the manifest, where it may have several
    left_out: Mapping[str, list[str]] = dataclasses.field(default_factory=dict)  # see `Examples`
    # Of scored examples among the others, where they were looked for, the most alike first: the position in test
    # (or val, if there is no test), that in train followed by val (or in train), and how alike they are, up to 1.
    near_copies: Sequence[tuple[int, int, float]] = ()

    @property
    def by_name(self) -> dict[str, Photos]:
        """The splits that there are: `train`, `val` and, perhaps, `test`."""
        return {"train": self.train, "val": self.val} | ({"test": self.test} if self.test else {})

    @property
    def reading(self) -> Reading:
        """How the examples are decoded, as a model that learned from them must decode others."""
        return self.train.reading

    @property
    def modality(self) -> Modality:
        """The row of the modality."""
        return modalities.row(self.kind)

    @property
    def multi_label(self) -> bool:
        """Whether an example may have several labels, or none; `labels` then have the shape (n, classes)."""
        return self.train.labels.ndim == 2

    def manifest(self) -> list[Row]:
        """Return one row for each example, sorted."""
        return list(self._rows())

    def _rows(self) -> Iterator[Row]:
        return manifest.rows(self.by_name, self.classes, self.separator)

    @property
    def _columns(self) -> Sequence[str]:
        return Row._fields if self.train.given_groups else Row._fields[:-1]

    @functools.cached_property
    def _digests(self) -> dict[str, tuple[int, str]]:
        return manifest.digests(self._rows(), self._columns, self.by_name)

    @property
    def parts(self) -> dict[str, tuple[int, str]]:
        """The number of examples and the SHA-256 of the lines in the manifest, by split."""
        return {name: part for name, part in self._digests.items() if name and part[0]}

    @property
    def digest(self) -> str:
        """SHA-256 of the file that `write_manifest` writes."""
        return self._digests[""][1]

    def write_manifest(self, path: str | Path) -> None:
        """Write the manifest as a CSV file, from which source `csv` loads the same splits.

        To be loaded, it must lie in the folder of the photos, and examples with several labels need the same separator.
        It has a column for groups if the data have groups.
        """
        with open(path, "wb") as file:
            file.writelines(manifest.lines(self._rows(), self._columns))


def label_array(labels: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return labels as `Photos` has them: int32 positions in the classes, or float32 zeros and ones of each class."""
    return np.asarray(labels, np.int32 if np.ndim(labels) == 1 else np.float32)


def file_format(modality: Modality) -> Files:
    """Return how files of a modality become examples.

    Raises:
        ValueError: the modality has no files.
    """
    if modality.files is None:
        raise ValueError(f"{modality.name} are not read from files")
    return modality.files
