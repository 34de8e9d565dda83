"""Source `folder`: a folder with one folder for each class, or with those of its splits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tlkit.data.images import Content
from tlkit.data.sources.examples import SPLITS, Examples, modality_of, shown_names
from tlkit.display import few, shown
from tlkit.errors import InvalidInput


class _ClassFolder(NamedTuple):
    """The files of one class in one split."""

    split: str | None
    label: int
    path: Path
    files: list[Path]


def folder(path: str | Path) -> Examples:
    """List the files of a folder that has one folder for each class, or one for each split with those of the classes.

    Folders of splits are called `train`, `val` and `test`. Class folders may have subfolders. Names that start with a
    dot are ignored; other files are left out and counted. A class folder may be a link; links further down are not
    followed.

    Raises:
        InvalidInput: the folder is missing or has no examples, a single class, an empty class, or examples of several
            modalities; the splits have different classes; or a folder cannot be read.
    """
    try:
        return _folder(Path(path))
    except OSError as error:
        raise InvalidInput(
            f"{str(error.filename or path)!r} cannot be read: {error.strerror}; every folder of data.path must be"
        ) from error


def _folder(root: Path) -> Examples:
    if not root.exists():
        raise InvalidInput(f"data.path is {str(root)!r}: no such folder")
    if not root.is_dir():
        raise InvalidInput(f"data.path is {str(root)!r}: not a folder; for a list of photos use --data.source csv")
    classes, class_folders, others = _class_folders(root)
    modality = modality_of(str(root), [f.relative_to(root).as_posix() for part in class_folders for f in part.files])
    kind, suffixes = modality.name, modality.files.suffixes if modality.files else frozenset()
    names: list[str] = []
    labels: list[int] = []
    splits: list[str | None] = []
    contents: list[Content] = []
    for split, label, path, files in class_folders:
        examples = [f for f in files if f.suffix.lower() in suffixes]
        others += [f for f in files if f.suffix.lower() not in suffixes]
        if not examples:
            raise InvalidInput(
                f"{str(path)!r} holds no {modality.singular} ({len(files)} other files): put {kind} there "
                f"({few(sorted(suffixes), 20)}) or remove the folder"
            )
        names += [f.relative_to(root).as_posix() for f in examples]
        labels += [label] * len(examples)
        splits += [split] * len(examples)
        contents += examples
    notes = []
    if others:
        ignored = few([f.relative_to(root).as_posix() for f in others])
        notes.append(f"files ignored because they are not {kind} in a class folder ({len(others)}): {ignored}")
    classes = shown_names(classes, "classes", notes)
    return Examples(shown_names(names, kind, notes), labels, classes, splits, contents, notes, kind)


def _class_folders(root: Path) -> tuple[list[str], list[_ClassFolder], list[Path]]:
    """The names of the classes, the class folders of all splits, and the files beside them."""
    parents = _split_folders(root)
    classes: list[str] = []
    class_folders: list[_ClassFolder] = []
    others = _files(root)
    for split, parent in parents:
        folders = _folders(parent)
        names = [f.name for f in folders]
        classes = classes or names
        if len(names) < 2:
            what = f"a single class, {names[0]!r}" if names else "no class folders"
            raise InvalidInput(f"{str(parent)!r} has {what}: give two or more, each holding the photos of one class")
        if names != classes:
            odd = sorted(set(names) ^ set(classes))
            raise InvalidInput(
                f"{str(parent)!r} and {str(parents[0][1])!r} have different classes ({few(odd)}): "
                "every split needs the same class folders"
            )
        others += _files(parent) if parent != root else []
        class_folders += [_ClassFolder(split, label, f, list(_walk(f))) for label, f in enumerate(folders)]
    return classes, class_folders, others


def _split_folders(root: Path) -> list[tuple[str | None, Path]]:
    """The folders that contain class folders, with their splits: those of the splits, or `root` with None."""
    folders = _folders(root)
    of_splits = [f for f in folders if f.name.lower() in SPLITS]
    others = [f.name for f in folders if f.name.lower() not in SPLITS]
    if not of_splits or (others and not any(_folders(f) for f in of_splits)):  # a class may be called `train`
        return [(None, root)]
    if others:
        raise InvalidInput(f"{str(root)!r} has {few(others)} beside {few([f.name for f in of_splits])}: move them away")
    parents: list[tuple[str | None, Path]] = [(SPLITS[f.name.lower()], f) for f in of_splits]
    for split in ("train", "val", "test"):
        same = [f.name for s, f in parents if s == split]
        if len(same) > 1:
            raise InvalidInput(f"{str(root)!r} has several folders for the split {split}: {few(same)}")
    return parents


def _folders(path: Path) -> list[Path]:
    folders = [f for f in path.iterdir() if f.is_dir() and not f.name.startswith(".")]
    folders.sort(key=lambda f: shown(f.name))  # the order that source `csv` has for the same classes
    for f in folders:
        if f.is_symlink() and f.resolve() in (path.resolve(), *path.resolve().parents):
            raise InvalidInput(f"{str(f)!r} is a link to a folder above it: remove the link")
    return folders


def _files(path: Path) -> list[Path]:
    return sorted(f for f in path.iterdir() if f.is_file() and not f.name.startswith("."))


def _walk(path: Path) -> Iterator[Path]:
    def stop(error: OSError) -> None:  # without it, `os.walk` skips folders that it cannot read
        raise error

    for folder_name, inner, files in os.walk(path, onerror=stop):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        yield from (Path(folder_name) / name for name in sorted(files) if not name.startswith("."))
