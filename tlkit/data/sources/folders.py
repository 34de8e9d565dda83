"""Source `folder`: a folder with one folder for each class, or with those of its splits."""

from __future__ import annotations

import re
from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tlkit.data.contents import Paths, UrlFiles
from tlkit.data.modalities import Modality
from tlkit.data.sources.class_folders import ClassFolder, Found, find_class_folders, folders_in, walk
from tlkit.data.sources.class_names import MISSING, minus_one, nearly_equal
from tlkit.data.sources.examples import SPLITS, Examples, modality_of, renamed_splits, shown_names, split_word
from tlkit.data.sources.grouping import groups_by
from tlkit.data.sources.litter import IMAGES, MASKS, beside_photos, litter
from tlkit.data.sources.tabular import TABLES
from tlkit.data.urls import UrlPath, no_answer, path_of
from tlkit.display import few, shown
from tlkit.errors import InvalidInput, Unavailable
from tlkit.untrusted import is_url

LISTS = (".txt", ".json", *TABLES)
"""Suffixes of files that may say which photos are in a split."""


def folder(path: str | Path, group: str | None = None) -> Examples:
    """List the files of a folder that has one folder for each class, or one for each split with those of the classes.

    Folders of splits have a word for it in their names (see `split_word`); they may also stand inside each class
    folder. Class folders may have other subfolders, but not all of them the same ones: these may be splits, or masks.
    Names that start with a dot are ignored; other files are left out and counted, such as thumbnails and masks of
    photos, and so are the photos of a test without class folders. A class folder may be a link; links further down are
    not followed.

    Args:
        path: Of the folder, on disk or at a URL that fsspec reads and lists, such as `s3://bucket/photos`.
        group: `parent`, or a regular expression on the path, for `Examples.groups`; see `groups_by`.

    Raises:
        InvalidInput: the folder is missing or has no examples, a single class, an empty class, or examples of several
            modalities; val or the test has a class that train lacks; all classes have the same subfolders; a folder
            cannot be read; or there are no such groups.
        Unavailable: a package that reads the URL is missing, or the storage does not answer.
    """
    try:
        return _folder(path_of(path), group)
    except Unavailable:
        raise
    except OSError as error:
        if is_url(path):
            raise no_answer(path, error) from error
        raise InvalidInput(
            f"{str(error.filename or path)!r} cannot be read: {error.strerror}; every folder of data.path must be"
        ) from error


def _folder(root: Path, group: str | None) -> Examples:
    if isinstance(root, UrlPath) and not root.storage.listed:
        raise InvalidInput(
            f"data.path is {str(root)!r}: such a URL has no listing of folders: give a table, by --data.source csv, or "
            "tar files, by --data.source webdataset"
        )
    if not root.exists():
        raise InvalidInput(f"data.path is {str(root)!r}: no such folder")
    if not root.is_dir():
        raise InvalidInput(f"data.path is {str(root)!r}: not a folder; for a list of photos use --data.source csv")
    notes: list[str] = []
    found = find_class_folders(root, notes)
    parts, left_out, kind = _sorted_out(root, found, notes)
    parts = _inner_splits(root, parts, group, notes)
    classes = sorted({part.name for part in parts}, key=shown)  # the order that source `csv` has for the same classes
    position = {name: label for label, name in enumerate(classes)}
    names: list[str] = []
    labels: list[int] = []
    splits: list[str | None] = []
    sizes = array("q")
    for split, name, _, files in parts:
        names += [f.relative_to(root).as_posix() for f in files]
        sizes.extend(f.size or 0 for f in files if isinstance(f, UrlPath))
        labels += [position[name]] * len(files)
        splits += [split] * len(files)
    if missing := [name for name in classes if name in MISSING or name == minus_one(classes)]:
        notes.append(f"classes called as if they were no label: {few(missing)}; remove their folders if they are none")
    notes += nearly_equal(classes)
    groups = groups_by(group, names, [classes[label] for label in labels], kind, notes) if group else None
    classes = shown_names(classes, "classes", notes)
    return Examples(
        names=shown_names(names, kind, notes),
        labels=labels,
        classes=classes,
        splits=splits,
        contents=UrlFiles(str(root), names, np.array(sizes)) if isinstance(root, UrlPath) else Paths(root, names),
        notes=notes,
        kind=kind,
        groups=groups and [shown(name) for name in groups],
        left_out=left_out,
    )


def _sorted_out(root: Path, found: Found, notes: list[str]) -> tuple[list[ClassFolder], dict[str, list[str]], str]:
    """The class folders with their examples alone, the other files by what they are, and the kind of the examples."""
    left_out: dict[str, list[str]] = defaultdict(list)

    def leave_out(file: Path, what: str) -> None:
        left_out[what].append(shown(file.relative_to(root).as_posix()))

    parts = [part._replace(files=[]) for part in found.class_folders]
    for part, old in zip(parts, found.class_folders, strict=True):
        for f in old.files:
            if what := litter(f.relative_to(root)):
                leave_out(f, what)
            else:
                part.files.append(f)
    modality = modality_of(str(root), [f.relative_to(root).as_posix() for part in parts for f in part.files])
    kind, suffixes = modality.name, modality.files.suffixes if modality.files else frozenset()
    others = f"not {kind} in a class folder"
    for f in found.others:
        leave_out(f, litter(f.relative_to(root)) or others)
    for i, part in enumerate(parts):
        examples = [f for f in part.files if f.suffix.lower() in suffixes]
        needed = part.split in (None, "train")  # which class another split lacks is said once photos are divided
        for f in part.files:
            if f.suffix.lower() not in suffixes:
                leave_out(f, others)
        if not examples and needed:
            raise InvalidInput(_about_empty(part, found, modality))
        beside = beside_photos(examples, part.path) if kind == "photos" else {}
        for what, files in beside.items():
            for f in files:
                leave_out(f, what)
        leaving = {f for files in beside.values() for f in files}
        parts[i] = part._replace(files=[f for f in examples if f not in leaving])
    for split in {part.split: None for part in parts}:
        if not any(part.files for part in parts if part.split == split):
            notes.append(f"the folders of {split} hold no {kind}: the data have no such split")
    notes += _about_left_out(left_out, others, any(part.split for part in parts))
    for path in found.unlabelled:
        files = [f for f in walk(path) if f.suffix.lower() in suffixes and not litter(f.relative_to(root))]
        for f in files:
            leave_out(f, "no label")
        if files:
            name = path.relative_to(root).as_posix()
            notes.append(f"{name} has no class folders: its {kind} have no label and are left out ({len(files)})")
    return parts, dict(left_out), kind


def _about_empty(part: ClassFolder, found: Found, modality: Modality) -> str:
    """Say that a class folder holds no example, and what to do."""
    suffixes = modality.files.suffixes if modality.files else frozenset()
    full = [other.path for other in found.class_folders if any(f.suffix.lower() in suffixes for f in other.files)]
    only = len(full) == 1 and len(folders_in(full[0])) > 1
    instead = f"; did you mean --data.path {str(full[0])!r}?" if only else ""
    return (
        f"{str(part.path)!r} holds no {modality.singular} ({len(part.files)} other files): put {modality.name} there "
        f"({few(sorted(suffixes), 20)}) or remove the folder{instead}"
    )


def _about_left_out(left_out: Mapping[str, list[str]], others: str, splits: bool) -> list[str]:
    """Notes about files that are left out.

    Args:
        left_out: Their names, by what they are.
        others: Those that are nothing known.
        splits: Whether there are folders of splits.
    """
    notes = []
    if ignored := left_out.get(others):
        notes.append(f"files ignored because they are {others} ({len(ignored)}): {few(ignored)}")
        lists = [name for name in ignored if Path(name).suffix.lower() in LISTS and split_word(Path(name).stem)]
        if lists and not splits:
            notes.append(f"lists that may name splits are not read ({few(lists, 3)}): a table with a column split is")
    if known := {what: names for what, names in left_out.items() if what != others}:
        counts = ", ".join(f"{len(names)} {what}" for what, names in known.items())
        notes.append(f"files left out: {counts} (such as {few([names[0] for names in known.values()])})")
    return notes


def _inner_splits(root: Path, parts: list[ClassFolder], group: str | None, notes: list[str]) -> list[ClassFolder]:
    """Take folders inside of each class for splits where they are called so; refuse others that all classes have."""
    inner: dict[str, set[str]] = defaultdict(set)  # by class; "" where files lie in the class folder itself
    for part in parts:
        inner[part.name] |= {part.inner(f) for f in part.files}
    every = set().union(*inner.values())
    words = {name: split_word(name) or "" for name in sorted(every)}
    if not any(part.split for part in parts) and "train" in words.values() and len(every) > 1 and all(words.values()):
        for split in ("train", "val", "test"):
            if len(same := [name for name in words if words[name] == split]) > 1:
                raise InvalidInput(f"the class folders of {str(root)!r} have several folders for {split}: {few(same)}")
        notes.append(f"splits by the folders inside of each class: {few(list(words))}")
        notes += renamed_splits(words)
        return [
            part._replace(split=words[name], files=[f for f in part.files if part.inner(f) == name])
            for name in sorted(words, key=lambda name: list(SPLITS.values()).index(words[name]))
            for part in parts
        ]
    _check_classes(root, inner)
    common = sorted(set.intersection(*inner.values()) - {""})
    if len(common) > 1 and not _names_groups(group, common):
        outer = few(list(inner), 3)
        raise InvalidInput(
            f"all of {outer} in {str(root)!r} hold the folders {few(common, 3)}: if {outer} are splits, rename them "
            f"train, val and test; if they are classes, leave one of these folders in each (as of images and masks), "
            f"or give --data.group parent if each is a group, such as a patient; if {few(common, 3)} are the classes, "
            "write a table with the columns path, label and, if wanted, split and group"
        )
    pairs, same = ([find(part) for part in parts if part.files] for find in (_twins, _same_stems))
    if all(same):
        notes.append(
            f"every class has files that differ in their suffixes alone (such as {same[0]}): "
            "if some are masks or copies of the others, move them away: all are used as photos"
        )
    if all(pairs):
        notes.append(
            f"every class has two folders with files of the same names (such as {few(pairs, 2)}): "
            "if one holds masks or copies of the other, move it away: its files are used as photos"
        )
    return parts


def _check_classes(root: Path, inner: Mapping[str, set[str]]) -> None:
    """Refuse folders that cannot be classes: photos beside their masks, and a copy of all classes beside them.

    Args:
        root: The folder of the data.
        inner: The folders that each class has in it.
    """
    masks, images = ([name for name in inner if name.lower() in names] for names in (MASKS, IMAGES))
    if masks and images and len(masks) + len(images) == len(inner):
        raise InvalidInput(
            f"{str(root)!r} has the folders {few(images)} and {few(masks)}, which seem to be photos and their masks or "
            "notes: give two folders or more, each holding the photos of one class, or a table"
        )
    for name, folders in inner.items():
        others = {*inner} - {name}
        if len(others) > 1 and others <= folders:
            raise InvalidInput(
                f"{name} in {str(root)!r} has folders with the names of all others beside it ({few(sorted(others))}): "
                "if it is a copy of them, move it away; if it is a class, rename its folders"
            )


def _names_groups(group: str | None, folders: Sequence[str]) -> bool:
    """Whether the setting `group` takes the names of folders for groups: then they are no classes and no masks."""
    if group is None or group == "parent":
        return group == "parent"
    return all(re.search(group, f"/{name}/") for name in folders)


def _same_stems(part: ClassFolder) -> str:
    """Two files of a class that differ in their suffixes alone, where at least half of all do so."""
    suffixes: dict[Path, list[str]] = defaultdict(list)
    for f in part.files:
        suffixes[f.with_suffix("")].append(f.name)
    same = [names for names in suffixes.values() if len(names) > 1]
    return " and ".join(same[0][:2]) if same and 4 * len(same) >= len(part.files) else ""


def _twins(part: ClassFolder) -> str:
    """The two folders in a class folder that hold files of the same names; "" where it has others too."""
    stems: dict[str, set[str]] = defaultdict(set)
    for f in part.files:
        stems[part.inner(f)].add(f.stem)
    first, *rest = stems.values()
    same = len(stems) == 2 and len(first) > 1 and first == rest[0] and "" not in stems
    return " and ".join(f"{part.path.name}/{name}" for name in sorted(stems)) if same else ""
