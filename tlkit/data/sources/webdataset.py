"""Source `webdataset`: tar files that hold examples and their labels side by side, on disk or at a URL."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import posixpath
import re
import tarfile
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from tlkit.data import modalities
from tlkit.data.contents import Pieces
from tlkit.data.sources.class_names import MISSING, class_name, nearly_equal
from tlkit.data.sources.examples import Examples, modality_of, renamed_splits, shown_names, split_word
from tlkit.data.sources.grouping import groups_by
from tlkit.data.urls import file_system, no_answer, of_url
from tlkit.display import cut, few, shown
from tlkit.errors import InvalidInput, Unavailable
from tlkit.progress import Progress
from tlkit.untrusted import check_url, is_url
from tlkit.untrusted.jsonfiles import parse_json

SHARDS = 100_000  # maximum number of tar files
LABEL_BYTES = 2**20  # maximum of a member with a label
FIELDS = ("label", "cls", "class", "class_name")
"""Where in a member `.json` the label is looked for."""

_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_WHOLE = re.compile(r"-?\d{1,18}")


class _Sample(NamedTuple):
    """The members of one key."""

    key: str
    members: dict[str, tuple[int, int]]  # start and size by suffix, without the first dot


class _Found:
    """What the shards hold, in arrays: a million examples take 0.2 GB."""

    def __init__(self) -> None:
        self.names, self.labels = list[str](), list[str]()
        self.splits = list[str | None]()
        self.places = array("q")
        self.left_out: dict[str, list[str]] = defaultdict(list)
        self.rules = Counter[str]()
        self.texts = dict[str, str]()  # labels, each once


def webdataset(path: str | Path, group: str | None = None) -> Examples:
    """List the examples in tar files as the library webdataset writes them.

    Members whose names are equal up to the first dot of their last part, one after the other, are one example:
    `0001.jpg` with its label in `0001.cls`, or else in a field of `0001.json` (see `FIELDS`). The label is a whole
    number or a name. Nothing is unpacked to disk, and no member is run or unpickled. One pass over each file notes
    where its members are; examples are then read from there, in any order. Where all names of files speak of a split,
    and of different ones (`photos-train-000.tar`, `photos-val-000.tar`), they are the splits; see `split_word`.

    Args:
        path: A tar file, a folder of them, or a pattern with numbers such as `shards/{000..015}.tar`; on disk, or a URL
            that fsspec reads (see `untrusted.PROTOCOLS`).
        group: `parent`, or a regular expression on the file and key, for `Examples.groups`; see `groups_by`.

    Raises:
        InvalidInput: a tar file is missing, damaged or compressed, or there are not two classes.
        Unavailable: a package that reads the URL is missing, or the storage does not answer.
    """
    shards = shard_names(str(path))
    notes: list[str] = []
    words = {shard: split_word(posixpath.basename(shard).removesuffix(".tar")) for shard in shards}
    split = all(words.values()) and len({*words.values()}) > 1
    if split:
        firsts = {word: shard for shard, word in reversed(words.items())}
        notes += renamed_splits({posixpath.basename(shard): word for word, shard in firsts.items() if word})
    found = _Found()
    with Progress("listing tar files", len(shards), "files") as progress:
        for number, shard in enumerate(shards):
            _add_shard(number, shard, words[shard] if split else None, found)
            progress.advance()
    return _examples(str(path), shards, found, group, notes)


def shard_names(path: str) -> list[str]:
    """Return the tar files that a path, a folder or a pattern with numbers stands for, sorted; paths are absolute.

    >>> [name.rpartition("/")[2] for name in shard_names("photos-{08..10}.tar")]
    ['photos-08.tar', 'photos-09.tar', 'photos-10.tar']
    """
    if is_url(path):
        check_url(path)
    if ranges := [(first, last) for first, last in _RANGE.findall(path)]:
        count = 1
        for first, last in ranges:
            count *= max(0, int(last) - int(first) + 1)
        if not 0 < count <= SHARDS:
            raise InvalidInput(f"data.path is {path!r}, which stands for {count:,} files: give 1 to {SHARDS:,}")
        parts = _RANGE.split(path)[::3]
        numbers = [[f"{n:0{len(first)}}" for n in range(int(first), int(last) + 1)] for first, last in ranges]
        names = ["".join(map("".join, zip(parts, (*each, ""), strict=True))) for each in itertools.product(*numbers)]
    elif path.endswith(".tar"):
        names = [path]
    else:
        names = _tar_files_in(path)
        if not names:
            raise InvalidInput(f"data.path is {path!r}, where there is no tar file: give a folder of .tar files")
        if len(names) > SHARDS:
            raise InvalidInput(f"data.path is {path!r}, with {len(names):,} tar files: give {SHARDS:,} at most")
    return [name if is_url(name) else os.path.abspath(name) for name in names]


def _tar_files_in(path: str) -> list[str]:
    try:
        if is_url(path):
            system, inside = file_system(path)
            names = of_url(system.ls, inside, detail=False)
            return sorted(system.unstrip_protocol(name) for name in names if str(name).endswith(".tar"))
        return sorted(str(file) for file in Path(path).iterdir() if file.suffix == ".tar" and file.is_file())
    except OSError as error:
        if is_url(path):
            raise no_answer(path, error) from error
        raise InvalidInput(
            f"data.path is {path!r}: {error.strerror}; give a tar file, a folder of them, or a pattern such as "
            "shards/{000..015}.tar"
        ) from error


def _add_shard(number: int, shard: str, split: str | None, found: _Found) -> None:
    """Add the examples of one tar file."""
    last = posixpath.basename(shard.replace(os.sep, "/"))
    suffixes = {suffix for row in modalities.of_files() if row.files for suffix in row.files.suffixes}
    seen = set[str]()
    try:
        with _opened(shard) as file:
            for sample in _samples(file, last, found):
                name = f"{last}/{sample.key}"
                files = [suffix for suffix in sample.members if f".{suffix}" in suffixes]
                if not files or len(files) > 1 or sample.key in seen:
                    reason = "no example" if not files else "several examples" if len(files) > 1 else "key again"
                    found.left_out[f"{reason} of a key"].append(shown(name))
                    continue
                seen.add(sample.key)
                label = _label(file, sample, found)
                if label is None:
                    found.left_out["no label"].append(shown(name))
                    continue
                found.names.append(f"{name}.{files[0]}")
                found.labels.append(found.texts.setdefault(label, label))
                found.splits.append(split)
                found.places.extend((number, *sample.members[files[0]]))
    except tarfile.TarError as error:
        raise InvalidInput(
            f"{shard} is not a whole tar file ({error}); compressed ones must be decompressed, because their members "
            "cannot be read in any order"
        ) from error
    except OSError as error:
        kind = Unavailable if is_url(shard) and not isinstance(error, FileNotFoundError) else InvalidInput
        raise kind(f"{shard} cannot be read: {error.strerror or error}") from error


@contextlib.contextmanager
def _opened(shard: str) -> Iterator[IO[bytes]]:
    if is_url(shard):
        system, path = file_system(shard)
        with of_url(system.open, path, "rb") as file:
            yield file
    else:
        if not os.path.isfile(shard):  # a pipe would be waited for
            raise FileNotFoundError(errno.ENOENT, "no such file or folder", shard)
        with open(shard, "rb") as file:
            yield file


def _samples(file: IO[bytes], name: str, found: _Found) -> Iterator[_Sample]:
    """Give the examples of a tar file: its members, of which those of one key follow each other."""
    sample = _Sample("", {})
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while member := tar.next():
            tar.members = []  # type: ignore[attr-defined]  # it would keep all: a kilobyte for each
            folder, base = posixpath.split(member.name)
            stem, _, suffix = base.partition(".")
            if not member.isreg() or member.issparse() or not stem or stem == "__":
                if not member.isdir():
                    found.left_out["no ordinary file"].append(shown(f"{name}/{cut(member.name, 100)}"))
                continue
            key = posixpath.join(folder, stem)
            if key != sample.key and sample.members:
                yield sample
            if key != sample.key:
                sample = _Sample(key, {})
            sample.members.setdefault(suffix.lower(), (member.offset_data, member.size))
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # at which tarfile ends without a word
            raise tarfile.ReadError("it has no end")
    if sample.members:
        yield sample


def _label(file: IO[bytes], sample: _Sample, found: _Found) -> str | None:
    """The label of an example as text, or None."""
    for rule in ("cls", "json"):
        if rule not in sample.members:
            continue
        start, size = sample.members[rule]
        if size > LABEL_BYTES:
            return None
        place = file.tell()
        file.seek(start)
        content = file.read(size)
        file.seek(place)
        text = _text(content, rule)
        if text is not None:
            found.rules[f".{rule}"] += 1
            return text
    return None


def _text(content: bytes, rule: str) -> str | None:
    try:
        if rule == "json":
            fields = parse_json(content, "the label")
            values = [fields[name] for name in FIELDS if name in fields] if isinstance(fields, dict) else []
            value = values[0] if values else None
            if isinstance(value, bool) or not isinstance(value, int | str):
                return None
            text = str(value)
        else:
            text = content.decode()
    except ValueError:
        return None
    text = class_name(text.strip())
    return None if text in MISSING or len(text) > 1000 else text


def _examples(path: str, shards: Sequence[str], found: _Found, group: str | None, notes: list[str]) -> Examples:
    left = "".join(f"; {len(names):,} left out: {reason}" for reason, names in found.left_out.items())
    if len(classes := _sorted({*found.labels})) < 2:
        what = f"a single class, {classes[0]!r}" if classes else "no example with a label"
        raise InvalidInput(
            f"{path}: {what} in {len(shards):,} tar files: each example needs its label in a member .cls, or .json "
            f"with one of {', '.join(FIELDS)}{left}"
        )
    if len(found.rules) > 1:
        notes.append(f"labels from {' and '.join(f'{name} ({count:,})' for name, count in found.rules.items())}")
    notes += [f"left out: {reason} ({len(names)}): {few(names, 3)}" for reason, names in found.left_out.items()]
    notes += nearly_equal(classes)
    position = {name: place for place, name in enumerate(classes)}
    kind = modality_of(path, found.names).name
    groups = groups_by(group, found.names, found.labels, kind, notes) if group else None
    return Examples(
        names=shown_names(found.names, kind, notes),
        labels=[position[label] for label in found.labels],
        classes=shown_names(classes, "classes", notes),
        splits=found.splits,
        contents=Pieces(shards, np.frombuffer(found.places, np.int64).reshape(-1, 3)),
        notes=notes,
        kind=kind,
        groups=groups and [shown(name) for name in groups],
        left_out=dict(found.left_out),
    )


def _sorted(labels: set[str]) -> list[str]:
    """Sort classes: by number where all are whole numbers, else by name."""
    if all(_WHOLE.fullmatch(label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels, key=shown)
