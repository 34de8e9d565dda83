"""Load labeled photos, sounds or arrays: each is opened once before training, checked, hashed and put into a split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from tlkit.cluster import Cluster
from tlkit.data import bits, modalities
from tlkit.data.modalities import Framing, Reading, Shape
from tlkit.data.opening import Opened, about_damaged, find_white, open_examples
from tlkit.data.photos import Photos, Splits, file_format, label_array
from tlkit.data.resizing import RESIZES, Resize
from tlkit.data.sources import Examples, load_source
from tlkit.data.split import divide
from tlkit.display import few, say
from tlkit.errors import InvalidInput


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
    resize: Resize | None = None,
    white: float | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    val_as_test: bool = False,
    strict: bool = False,
    check: bool = True,
    memory: int | None = None,
    together: Callable[[Photos], Iterable[tuple[int, int]]] | None = None,
    quiet: bool = False,
    cluster: Cluster | None = None,
) -> Splits:
    """Load, check and split labeled photos, sounds or arrays.

    A folder with one folder of photos per class is loaded by

        splits = data.load("folder", path="photos", size=(224, 224))

    after which `splits.classes` are the names of the classes, and `splits.train`, `splits.val` and `splits.test` are
    `Photos`: labels, names, and `read`, which returns pixels. `splits.test` is None where the source has a train and a
    val split only. Which example falls into which split depends on its content alone, or on the name of its group where
    the source has groups. Examples that cannot be decoded are set aside and named on stderr, as are all other warnings.

    Args:
        source: `embedded`, `folder`, `csv`, `npz`, `tfds` or `webdataset`, or what `tlkit.data.load_source`
            returned for one of them.
        path: The folder for source `folder`, the file for `csv` or `npz`, or tar files for `webdataset`. All but `npz`
            may be at a URL that fsspec reads, such as `s3://bucket/photos`.
        name: The data set for source `tfds`.
        data_dir: The folder in which tensorflow-datasets keeps prepared data.
        separator: For source `csv`: separates the labels of an example, where it may have several or none.
        columns: For source `csv`: names of columns, such as `{"path": "image", "label": "diagnosis"}`.
        group: For sources `folder` and `csv`: what belongs together, such as the photos of a patient: `parent` for the
            folder that holds them, or a regular expression on their paths.
        size: Height and width in pixels to resize photos to; required for photos in files, whose sizes differ.
        channels: 1 for grayscale, 3 for RGB; by default the channels of photos that are pixels already, else 3.
        seconds: Length to which sounds are cut or padded; see `tlkit.data.sounds.frame` for the default.
        resize: How photos are brought to `size`: `squash`, the default, `center`, `crop` or `pad`; see
            `tlkit.data.images.decode`. A model that plain Keras saves cannot say so, and is taken to squeeze photos.
        white: The value that is white in photos with more than 8 bits, floating-point photos or masks; by default
            found from the largest value of all of them, and said on stderr.
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
        quiet: Print no warnings: the result has them.
        cluster: Workers that open the files, as `tlkit.cluster.connect` gives them; photos are then decoded again at
            each read.

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
    bits.check_white(white)
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
            white=white,
        )

    def warn(lines: Iterable[str]) -> None:
        for line in () if quiet else lines:
            say(line, error=True)

    warn(examples.notes)
    photos, opened, rate = open_photos(
        examples, Framing(size, channels, seconds), resize, white, check, strict, memory, quiet, cluster
    )
    pairs, notes = list(together(photos)) if together else [], opened.notes
    if pairs:
        joined = few([f"{photos.names[i]} ~ {photos.names[j]}" for i, j in pairs])
        notes = [*notes, f"near copies that are kept in one split ({len(pairs):,} pairs): {joined}"]
    warn(notes)
    try:
        division = divide(
            photos.hashes,
            photos.labels,
            photos.names,
            [examples.splits[row] for row in photos.rows],
            examples.classes,
            kind=examples.kind,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            val_as_test=val_as_test,
            separator=examples.separator,
            groups=photos.given_groups,
            together=pairs,
        )
    except InvalidInput as error:
        warn(getattr(error, "__notes__", []))
        raise
    warn(division.warnings)
    photos = dataclasses.replace(photos, units=division.units)

    def part(split: str) -> Photos:
        return photos.select([place for place, name in enumerate(division.splits) if name == split])

    return Splits(
        classes=examples.classes,
        train=part("train"),
        val=part("val"),
        test=part("test") if "test" in division.splits else None,
        set_aside=opened.set_aside,
        warnings=examples.notes + notes + division.warnings,
        kind=examples.kind,
        rate=rate,
        separator=examples.separator,
        left_out=examples.left_out,
    )


def open_photos(
    examples: Examples,
    framing: Framing,
    resize: Resize | None = None,
    white: float | None = None,
    check: bool = True,
    strict: bool = False,
    memory: int | None = None,
    quiet: bool = False,
    cluster: Cluster | None = None,
) -> tuple[Photos, Opened, int | None]:
    """Open all examples of a source, and do not split them; see `load`.

    Args:
        examples: What the source lists.
        framing: The size, channels or seconds of each.
        resize: As for `load`; so are the others.
        white: The value that is white.
        check: Decode every example now.
        strict: Raise an error for one that cannot be decoded.
        memory: Maximum bytes of decoded examples in memory.
        quiet: Do not name those that are set aside.
        cluster: Workers that open the files.

    Returns:
        Those that can be decoded; what was found out; and the sampling rate of sounds.
    """
    shape, rate = _shape(examples, framing)
    opened = open_examples(examples, shape, _reading(examples, resize, white), check, strict, memory, cluster)
    for line in () if quiet else about_damaged(opened.set_aside, examples.kind):
        say(line, error=True)
    opened = find_white(examples, shape, opened, check)
    return _photos(examples, shape, opened), opened, rate


def whole(
    examples: Examples,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    seconds: float | None = None,
    resize: Resize | None = None,
    white: float | None = None,
    strict: bool = False,
    memory: int | None = None,
) -> tuple[Photos, list[str]]:
    """Load and check labeled examples without splitting them, to test a model on all of them; see `load`.

    Returns:
        The examples; and those that are set aside, because they cannot be decoded, each with the reason.

    Raises:
        InvalidInput: they cannot be used, or none can be decoded.

    >>> from tlkit.data import load_source
    >>> len(whole(load_source("embedded"), size=(8, 8), channels=1)[0])
    1797
    """
    framing = Framing(size, channels, seconds)
    photos, opened, _ = open_photos(examples, framing, resize, white, strict=strict, memory=memory, quiet=True)
    for line in [*examples.notes, *about_damaged(opened.set_aside, examples.kind), *opened.notes]:
        say(line, error=True)
    return photos, opened.set_aside


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


def _reading(examples: Examples, resize: Resize | None, white: float | None) -> Reading:
    """How the examples become those of one shape."""
    if resize and not examples.modality.resized:
        raise InvalidInput(f"data.resize is {resize}, which is for photos; the data are {examples.kind}: leave it out")
    if resize and resize not in RESIZES:
        raise InvalidInput(f"resize is {resize!r}: give one of {', '.join(RESIZES)}")
    if white is not None and not (examples.modality.files and examples.modality.files.white):
        raise InvalidInput(f"data.white is {white:g}, which is for photos; the data are {examples.kind}: leave it out")
    if examples.white is not None:  # the source has applied the setting
        white = None if examples.white == 255 else examples.white
    return Reading(resize or "squash", white)


def _photos(examples: Examples, shape: Shape, opened: Opened) -> Photos:
    """Those of the examples that can be decoded, of all splits."""
    good = [i for i, hash_ in enumerate(opened.hashes) if hash_]
    if not good:
        problems = few(opened.set_aside, 3)
        raise InvalidInput(f"none of the {len(opened.hashes)} {examples.kind} can be decoded: {problems}")
    every = Photos(
        names=examples.names,
        hashes=opened.hashes,
        labels=label_array(examples.labels),
        shape=shape,
        stored=opened.stored,
        rows=np.arange(len(opened.hashes)),
        kind=examples.kind,
        reading=opened.reading,
        given_groups=examples.groups,
    )
    return every.select(good)
