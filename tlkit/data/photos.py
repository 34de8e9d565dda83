"""Load labelled photos, sounds or arrays: each is opened once before training, checked, hashed and put into a split."""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import io
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tlkit.data import modalities
from tlkit.data.example_set import NamedExamples
from tlkit.data.images import Content
from tlkit.data.modalities import Files, Framing, Modality, Shape
from tlkit.data.sources import Examples, few, load_source
from tlkit.data.split import content_hash, divide, named
from tlkit.display import say
from tlkit.errors import InvalidInput, Undecodable
from tlkit.progress import Progress
from tlkit.untrusted import available_memory

TOGETHER = 16  # photos that a thread opens before it says so
SHARE = 0.4  # of the memory that is available, what decoded photos or their features may fill


@dataclasses.dataclass(frozen=True, eq=False)
class Photos:
    """Photos, sounds or arrays of one split, in the order of the source.

    They are in memory where they fit (decoded once in the whole run), else each `read` decodes them again.
    """

    names: list[str]
    hashes: list[str]
    labels: np.ndarray  # (n,), int32: positions in the classes; or multi-label: (n, classes), float32, zeros and ones
    shape: tuple[int, ...]  # of each: (*space, channels), such as (height, width, channels) or (samples, channels)
    stored: np.ndarray | list[Content]  # values (n or more, *shape), or what to decode
    rows: np.ndarray  # (n,), int: where each photo stands in `stored`
    kind: str = "photos"  # name of the modality

    def __len__(self) -> int:
        return len(self.names)

    @property
    def modality(self) -> Modality:
        """What they are."""
        return modalities.row(self.kind)

    @property
    def dtype(self) -> np.dtype:
        """Of what `read` gives: uint8 for photos, float32 for sounds, either for arrays."""
        return self.stored.dtype if isinstance(self.stored, np.ndarray) else _files(self.modality).dtype

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The values of some, such as pixels, as a new array.

        Shapes:
            indices: (k,), positions from 0 to len(self) - 1
            returns: (k, *shape)

        Raises:
            Undecodable: a file has gone, has changed since it was listed, or cannot be decoded.
        """
        if isinstance(self.stored, np.ndarray):
            return self.stored[self.rows[indices]]
        values = np.empty((len(indices), *self.shape), self.dtype)
        stored, decode = self.stored, _files(self.modality).decode

        def fill(place: int, index: int) -> None:
            content, name = stored[self.rows[index]], self.names[index]
            try:
                if isinstance(content, Path) and content.is_file():
                    content = content.read_bytes()
                    if content_hash(content) != self.hashes[index]:  # else its features would be kept under this hash
                        raise InvalidInput(f"{name} has changed since it was listed: begin again")
                values[place] = decode(content, self.shape, name)
            except InvalidInput as error:
                raise Undecodable(str(error)) from error

        for _ in _threads().map(fill, range(len(indices)), indices):
            pass
        return values

    @staticmethod
    def of(images: np.ndarray, labels: Sequence[int] | np.ndarray, names: Sequence[str] | None = None) -> Photos:
        """Photos from pixels at hand, such as drawn letters, or sounds or arrays from their values.

        Shapes:
            images: (n, *space, channels), uint8 or float32
            labels: (n,), or (n, classes), zeros and ones

        uint8 with 1 or 3 channels behind two axes of space are photos, all else arrays.

        >>> Photos.of(np.zeros((2, 8, 8, 1), np.uint8), [0, 1]).read([1]).shape
        (1, 8, 8, 1)
        """
        return Photos(
            kind=modalities.of_arrays(images).name,
            names=list(names) if names else [str(i) for i in range(len(images))],
            hashes=[content_hash(image) for image in images],
            labels=_as_array(labels),
            shape=images.shape[1:],
            stored=images,
            rows=np.arange(len(images)),
        )


if TYPE_CHECKING:
    _NAMED: type[NamedExamples] = Photos  # mypy proves it


class Row(NamedTuple):
    """A line of the manifest."""

    hash: str
    path: str
    label: str
    split: str


def _as_array(labels: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.asarray(labels, np.int32 if np.ndim(labels) == 1 else np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """What a run trains on, chooses by and is tested on."""

    classes: list[str]
    train: Photos
    val: Photos
    test: Photos | None
    set_aside: list[str]  # photos that cannot be decoded, each with the reason
    warnings: list[str]  # what else the user should know, one line each
    kind: str = "photos"  # name of the modality
    rate: int | None = None  # of sounds: samples in a second
    separator: str | None = None  # in the manifest, between the labels of an example that may have several

    @property
    def modality(self) -> Modality:
        """What the examples are."""
        return modalities.row(self.kind)

    @property
    def multi_label(self) -> bool:
        """Whether an example may have several labels, or none; `labels` are then (n, classes)."""
        return self.train.labels.ndim == 2

    def manifest(self) -> list[Row]:
        """One row for each photo that is used, sorted."""
        rows = []
        for split, photos in (("train", self.train), ("val", self.val), ("test", self.test)):
            if photos:
                names = named(photos.labels, self.classes, self.separator)
                rows += [Row(*values, split) for values in zip(photos.hashes, photos.names, names, strict=True)]
        return sorted(rows)

    @functools.cached_property
    def parts(self) -> dict[str, tuple[int, str]]:
        """For each split, by its name in the manifest, how many it has and the SHA-256 of its lines."""
        rows: dict[str, list[Row]] = {}
        for row in self.manifest():
            rows.setdefault(row.split, []).append(row)
        order = [split for split in ("train", "val", "test") if split in rows]
        return {split: (len(rows[split]), hashlib.sha256(_csv(rows[split])).hexdigest()) for split in order}

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the manifest, the same as of the file that `write_manifest` writes."""
        return hashlib.sha256(_csv(self.manifest())).hexdigest()

    def write_manifest(self, path: str | Path) -> None:
        """Write the manifest as a CSV file. In the folder of the photos, source `csv` reads the same splits from it.

        Where examples may have several labels, give it the same separator.
        """
        Path(path).write_bytes(_csv(self.manifest()))


def _csv(rows: Sequence[Row]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Row._fields, *rows])
    return text.getvalue().encode("utf-8", "backslashreplace")  # names that no source here has given may be any


def load(
    source: str | Examples = "embedded",
    *,
    path: str | Path | None = None,
    name: str | None = None,
    data_dir: str | None = None,
    separator: str | None = None,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    seconds: float | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    val_as_test: bool = False,
    strict: bool = False,
    check: bool = True,
    memory: int | None = None,
) -> Splits:
    """Load, check and split labelled photos, sounds or arrays.

    What cannot be decoded is set aside and named on stderr, and so is every other warning.

    Args:
        source: `embedded`, `folder`, `csv`, `npz` or `tfds`, or what `tlkit.data.load_source` gave for one of them.
        path: The folder of source `folder`, or the file of source `csv` or `npz`.
        name: The data set of source `tfds`.
        data_dir: Where tensorflow-datasets keeps its prepared data.
        separator: Of source `csv`, where an example may have several labels or none: what stands between them.
        size: Height and width in pixels that photos are resized to; needed for photos in files, whose sizes differ.
        channels: 1 for grayscale, 3 for RGB; by default those of photos that are pixels already, else 3.
        seconds: Length that sounds are cut or filled up to; see `tlkit.data.sounds.frame` for the default.
        val_fraction: Share kept for validation where no such split is given; see `tlkit.data.split`.
        test_fraction: Share kept for the test where no split is given at all.
        val_as_test: Make the given val the test split and take validation out of train.
        strict: Stop at a photo that cannot be decoded instead of setting it aside.
        check: Decode every photo. Without, files are only read for their hashes, and one that cannot be decoded is an
            error of `Photos.read`: for features, which may not need the pixels at all.
        memory: Bytes that what is decoded may take; what does not fit is decoded again in every epoch. By default 40 %
            of what is available.

    Raises:
        InvalidInput: the source or what it holds cannot be used.
        Unavailable: source `tfds`: the data set cannot be downloaded.

    >>> splits = load("embedded", size=(8, 8), channels=1)
    >>> len(splits.train), len(splits.val), len(splits.test)
    (1246, 272, 279)
    """
    examples = source
    if isinstance(examples, str):
        examples = load_source(examples, path=path, name=name, data_dir=data_dir, separator=separator)
    kind = examples.kind
    shape, rate = _shape(examples, Framing(size, channels, seconds))
    stored: np.ndarray | list[Content] = examples.contents
    set_aside: list[str] = []
    if isinstance(stored, np.ndarray):
        hashes = [content_hash(array) for array in stored]
    else:
        budget = int(SHARE * available_memory()) if memory is None else memory
        dtype = _files(examples.modality).dtype
        fits = check and len(stored) * math.prod(shape) * dtype.itemsize <= budget
        values = np.empty((len(stored), *shape), dtype) if fits else None
        hashes, set_aside = _open_all(examples, shape if check else None, values, strict)
        stored = stored if values is None else values
    if set_aside:
        _say(f"{kind} set aside, because they cannot be decoded ({len(set_aside)}):", *set_aside[:10])
    good = [i for i, h in enumerate(hashes) if h]
    if not good:
        raise InvalidInput(f"none of the {len(hashes)} {kind} can be decoded: {few(set_aside, 3)}")
    labels = _as_array(examples.labels)
    division = divide(
        [hashes[i] for i in good],
        labels[good],
        [examples.names[i] for i in good],
        [examples.splits[i] for i in good],
        examples.classes,
        kind=kind,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        val_as_test=val_as_test,
        separator=examples.separator,
    )
    warnings = examples.notes + division.warnings
    _say(*warnings)

    def photos(split: str) -> Photos:
        rows = [i for i, s in zip(good, division.splits, strict=True) if s == split]
        return Photos(
            names=[examples.names[i] for i in rows],
            hashes=[hashes[i] for i in rows],
            labels=labels[rows],
            shape=shape,
            stored=stored,
            rows=np.array(rows, int),
            kind=kind,
        )

    return Splits(
        classes=examples.classes,
        train=photos("train"),
        val=photos("val"),
        test=photos("test") if "test" in division.splits else None,
        set_aside=set_aside,
        warnings=warnings,
        kind=kind,
        rate=rate,
        separator=examples.separator,
    )


def _files(modality: Modality) -> Files:
    if modality.files is None:
        raise ValueError(f"{modality.name} are not read from files")
    return modality.files


def _shape(examples: Examples, framing: Framing) -> tuple[Shape, int | None]:
    """The shape that each example gets, and the sampling rate of sounds."""
    modality, contents = examples.modality, examples.contents
    allowed = modality.files.framing if modality.files else ()
    for name, value in framing._asdict().items():
        if value is not None and name not in allowed:
            takers = [row.name for row in modalities.of_files() if row.files and name in row.files.framing]
            setting = f"data.{name}" if name == "seconds" else name
            raise InvalidInput(
                f"{setting} is {value}, which is for {' and '.join(takers)}; the data are {modality.name}: leave it out"
            )
    if isinstance(contents, np.ndarray):
        return contents.shape[1:], None
    return _files(modality).frame(contents, examples.names, framing)


def _open_all(
    examples: Examples, shape: tuple[int, ...] | None, values: np.ndarray | None, strict: bool
) -> tuple[list[str], list[str]]:
    """Open every photo or sound once: its hash ("" where it cannot be decoded), and what is wrong with the others.

    Without a shape they are read and not decoded.
    """
    decode = _files(examples.modality).decode

    def look(index: int) -> tuple[str, str]:
        content, name = examples.contents[index], examples.names[index]
        try:
            if isinstance(content, Path):
                content = content.read_bytes()
            value = decode(content, shape, name) if shape else None
        except (OSError, InvalidInput) as error:
            problem = str(error) if isinstance(error, InvalidInput) else f"{name}: {error.strerror}"
            if strict:  # raised here and not where results are read: it cancels what is still to be opened
                raise InvalidInput(f"{problem}; without data.strict it would be set aside") from error
            return "", problem
        if values is not None:
            values[index] = value
        return content_hash(content), ""

    hashes: list[str] = []
    set_aside: list[str] = []
    count = len(examples.names)
    # Some at a time: handing over one that is only read takes longer than reading it.
    parts = [range(start, min(start + TOGETHER, count)) for start in range(0, count, TOGETHER)]
    with Progress(f"opening {examples.kind}", count, examples.kind) as progress:
        for looked in _threads().map(lambda part: [look(index) for index in part], parts):
            hashes += [hash_ for hash_, _ in looked]
            set_aside += [problem for _, problem in looked if problem]
            progress.advance(len(looked))
    return hashes, set_aside


def _say(*lines: str) -> None:
    for line in lines:
        say(line, error=True)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Threads that decode: Pillow and NumPy let go of the interpreter's lock while they do."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ThreadPoolExecutor(cores, thread_name_prefix="decode")
