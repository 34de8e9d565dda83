"""Load labeled photos, sounds or arrays: each is opened once before training, checked, hashed and put into a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tlkit.data import modalities
from tlkit.data.images import Content
from tlkit.data.modalities import Framing, Reading, Shape
from tlkit.data.photos import Photos, Splits, decoding_threads, file_format, label_array
from tlkit.data.sources import Examples, load_source
from tlkit.data.split import content_hash, divide
from tlkit.display import few, say
from tlkit.errors import InvalidInput
from tlkit.progress import Progress
from tlkit.untrusted import available_memory

NAMED = 10  # damaged examples that are printed; a run logs all
TOGETHER = 16  # examples that a thread opens at a time
SHARE = 0.4  # of the available memory, to fill with decoded examples or their features at most


class _Opened(NamedTuple):
    """The examples of a source after each was opened once."""

    stored: np.ndarray | list[Content]  # decoded values, (n, *shape), where they fit into memory, else contents
    hashes: list[str]  # "" where an example cannot be decoded
    set_aside: list[str]  # examples that cannot be decoded, each with the reason


def load(
    source: str | Examples = "embedded",
    *,
    path: str | Path | None = None,
    name: str | None = None,
    data_dir: str | None = None,
    separator: str | None = None,
    columns: Mapping[str, str] | None = None,
    group: str | None = None,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    seconds: float | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    val_as_test: bool = False,
    strict: bool = False,
    check: bool = True,
    memory: int | None = None,
    together: Callable[[Photos], Iterable[tuple[int, int]]] | None = None,
) -> Splits:
    """Load, check and split labeled photos, sounds or arrays.

    A folder with one folder of photos per class is loaded by

        splits = data.load("folder", path="photos", size=(224, 224))

    after which `splits.classes` are the names of the classes, and `splits.train`, `splits.val` and `splits.test` are
    `Photos`: labels, names, and `read`, which returns pixels. `splits.test` is None where the source has a train and a
    val split only. Which example falls into which split depends on its content alone, or on the name of its group where
    the source has groups. Examples that cannot be decoded are set aside and named on stderr, as are all other warnings.

    Args:
        source: `embedded`, `folder`, `csv`, `npz` or `tfds`, or what `tlkit.data.load_source` returned for one of them.
        path: The folder for source `folder`, or the file for source `csv` or `npz`.
        name: The data set for source `tfds`.
        data_dir: The folder in which tensorflow-datasets keeps prepared data.
        separator: For source `csv`: separates the labels of an example, where it may have several or none.
        columns: For source `csv`: names of columns, such as `{"path": "image", "label": "diagnosis"}`.
        group: For sources `folder` and `csv`: what belongs together, such as the photos of a patient: `parent` for the
            folder that holds them, or a regular expression on their paths.
        size: Height and width in pixels to resize photos to; required for photos in files, whose sizes differ.
        channels: 1 for grayscale, 3 for RGB; by default the channels of photos that are pixels already, else 3.
        seconds: Length to which sounds are cut or padded; see `tlkit.data.sounds.frame` for the default.
        val_fraction: Share of examples for validation, where the source has no such split; see `tlkit.data.split`.
        test_fraction: Share of examples for the test, where the source has no splits at all.
        val_as_test: Use the source's val split as the test split, and take validation examples out of train.
        strict: Raise an error for an example that cannot be decoded, or a row of a table that cannot be used, instead
            of setting it aside.
        check: Decode every example now. If False, files are only hashed, and `Photos.read` raises an error for one that
            cannot be decoded; for features, which may be in the activation store already.
        memory: Maximum bytes of decoded examples in memory; beyond it, examples are decoded again in every epoch. By
            default 40 % of the available memory.
        together: Finds pairs of examples that must be in one split, by their positions, such as near copies.

    Returns:
        The examples of each split, with the names of the classes.

    Raises:
        InvalidInput: the source or its content cannot be used.
        Unavailable: the data set of source `tfds` cannot be downloaded.

    >>> splits = load("embedded", size=(8, 8), channels=1)
    >>> len(splits.train), len(splits.val), len(splits.test)
    (1246, 272, 279)
    >>> splits.train.read([0, 1]).shape, splits.classes[splits.train.labels[0]]
    ((2, 8, 8, 1), '0')
    """
    if isinstance(source, Examples):
        examples = source
    else:
        examples = load_source(
            source,
            path=path,
            name=name,
            data_dir=data_dir,
            separator=separator,
            columns=columns,
            group=group,
            strict=strict,
        )
    shape, rate = _shape(examples, Framing(size, channels, seconds))
    reading = Reading()
    stored, hashes, set_aside = _open(examples, shape, reading, check, strict, memory)
    good = [i for i, hash_ in enumerate(hashes) if hash_]
    if not good:
        raise InvalidInput(f"none of the {len(hashes)} {examples.kind} can be decoded: {few(set_aside, 3)}")
    labels = label_array(examples.labels)
    _warn(*examples.notes)

    def photos(rows: list[int], units: list[str] | None = None) -> Photos:
        return Photos(
            names=[examples.names[i] for i in rows],
            hashes=[hashes[i] for i in rows],
            labels=labels[rows],
            shape=shape,
            stored=stored,
            rows=np.array(rows, int),
            kind=examples.kind,
            reading=reading,
            given_groups=[examples.groups[i] for i in rows] if examples.groups else None,
            units=units,
        )

    pairs = list(together(photos(good))) if together else []
    joined = [f"{examples.names[good[i]]} ~ {examples.names[good[j]]}" for i, j in pairs]
    notes = [f"near copies that are kept in one split ({len(pairs):,} pairs): {few(joined)}"] if pairs else []
    _warn(*notes)
    try:
        division = divide(
            [hashes[i] for i in good],
            labels[good],
            [examples.names[i] for i in good],
            [examples.splits[i] for i in good],
            examples.classes,
            kind=examples.kind,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            val_as_test=val_as_test,
            separator=examples.separator,
            groups=[examples.groups[i] for i in good] if examples.groups else None,
            together=pairs,
        )
    except InvalidInput as error:
        _warn(*getattr(error, "__notes__", []))
        raise
    _warn(*division.warnings)

    def part(split: str) -> Photos:
        here = [place for place, name in enumerate(division.splits) if name == split]
        return photos([good[place] for place in here], [division.groups[place] for place in here])

    return Splits(
        classes=examples.classes,
        train=part("train"),
        val=part("val"),
        test=part("test") if "test" in division.splits else None,
        set_aside=set_aside,
        warnings=examples.notes + notes + division.warnings,
        kind=examples.kind,
        rate=rate,
        separator=examples.separator,
        left_out=examples.left_out,
    )


def _shape(examples: Examples, framing: Framing) -> tuple[Shape, int | None]:
    """The shape of every example, and the sampling rate of sounds."""
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
    return file_format(modality).frame(contents, examples.names, framing)


def _open(examples: Examples, shape: Shape, reading: Reading, check: bool, strict: bool, memory: int | None) -> _Opened:
    """Hash every example and, if `check`, decode it; values are kept where they all fit into memory."""
    contents = examples.contents
    if isinstance(contents, np.ndarray):
        return _Opened(contents, [content_hash(array) for array in contents], [])
    form = file_format(examples.modality)
    budget = int(SHARE * available_memory()) if memory is None else memory
    fits = check and len(contents) * math.prod(shape) * form.dtype.itemsize <= budget
    values = np.empty((len(contents), *shape), form.dtype) if fits else None

    def look(index: int) -> tuple[str, str]:
        """The hash of an example, or "" and what is wrong with it."""
        content, name = contents[index], examples.names[index]
        try:
            if isinstance(content, Path):
                content = content.read_bytes()
            value = form.decode(content, shape, name, reading) if check else None
        except (OSError, InvalidInput) as error:
            problem = str(error) if isinstance(error, InvalidInput) else f"{name}: {error.strerror}"
            if strict:  # raised here, in its thread, so that no further file is opened
                raise InvalidInput(f"{problem}; without data.strict it would be set aside") from error
            return "", problem
        if values is not None:
            values[index] = value
        return content_hash(content), ""

    hashes: list[str] = []
    set_aside: list[str] = []
    count = len(examples.names)
    # Several at a time: handing a file to a thread takes longer than reading it.
    parts = [range(start, min(start + TOGETHER, count)) for start in range(0, count, TOGETHER)]
    with Progress(f"opening {examples.kind}", count, examples.kind) as progress:
        for looks in decoding_threads().map(lambda part: [look(index) for index in part], parts):
            hashes += [hash_ for hash_, _ in looks]
            set_aside += [problem for _, problem in looks if problem]
            progress.advance(len(looks))
    if set_aside:
        more = [f"and {len(set_aside) - NAMED:,} more"] if len(set_aside) > NAMED else []
        _warn(
            f"{examples.kind} set aside, because they cannot be decoded ({len(set_aside)}):", *set_aside[:NAMED], *more
        )
    return _Opened(contents if values is None else values, hashes, set_aside)


def _warn(*lines: str) -> None:
    for line in lines:
        say(line, error=True)
