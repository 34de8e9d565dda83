"""Where in a folder the classes are: folders of splits, of classes, and what lies beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tlkit.data.sources.class_names import class_name, nearly_equal
from tlkit.data.sources.examples import SPLITS, renamed_splits, split_word
from tlkit.data.sources.litter import FOLDERS, IMAGES, hidden, litter
from tlkit.data.sources.tabular import TABLES
from tlkit.data.urls import UrlPath
from tlkit.display import few, shown
from tlkit.errors import InvalidInput


class ClassFolder(NamedTuple):
    """A folder with files of one class in one split."""

    split: str | None
    name: str  # of the class
    path: Path
    files: list[Path]

    def inner(self, file: Path) -> str:
        """The folder directly below the class folder in which a file is; "" where there is none."""
        parts = file.relative_to(self.path).parts
        return parts[0] if len(parts) > 1 else ""


class Found(NamedTuple):
    """What the folder of the data holds."""

    class_folders: list[ClassFolder]
    others: list[Path]  # files beside the class folders
    unlabelled: list[Path]  # folders of files without a class, beside folders of splits, or of the test


def find_class_folders(root: Path, notes: list[str]) -> Found:
    """Find the class folders of all splits, with all of their files, and the files beside them.

    Args:
        root: The folder of the data.
        notes: Of the examples; lines are added.

    Raises:
        InvalidInput: there are no two classes, the splits do not fit together, or a link leads upward.
        OSError: a folder cannot be read.
    """
    parents, unlabelled = _split_folders(root, notes)
    classes: list[str] = []
    class_folders: list[ClassFolder] = []
    others = files_in(root)
    for split, parent in parents:
        folders = folders_in(parent)
        names = sorted({class_name(f.name) for f in folders}, key=shown)
        if not names and split == "test" and class_folders:  # its labels are secret, as in a competition
            unlabelled.append(parent)
            continue
        classes = classes or names
        if len(classes) < 2 or not names:
            what = f"a single class, {names[0]!r}" if names else "no class folders"
            raise InvalidInput(
                f"{str(parent)!r} has {what}: give two or more, each holding the photos of one class{_instead(parent)}"
            )
        if odd := sorted(set(names) - set(classes)):  # that others lack classes is said once photos are divided
            alike = "".join(f"; {note}" for note in nearly_equal(sorted({*names, *classes}, key=shown)))
            raise InvalidInput(
                f"{str(parent)!r} and {str(parents[0][1])!r} have different classes ({few(odd)}): "
                f"every class needs a folder in {parents[0][1].name!r}{alike}"
            )
        others += files_in(parent) if parent != root else []
        class_folders += [ClassFolder(split, class_name(f.name), f, list(walk(f))) for f in folders]
    return Found(class_folders, others, unlabelled)


def _instead(path: Path) -> str:
    """What else could be given, for the end of an error: a folder further down, or a table."""
    tables = [f for f in files_in(path) if f.suffix.lower() in TABLES]
    tables.sort(key=lambda f: split_word(f.stem) != "train")
    inner = path
    while len(folders := folders_in(inner)) == 1:
        inner = folders[0]
    other = inner if inner != path and folders else tables[0] if tables and not folders else None
    return f"; did you mean --data.path {str(other)!r}?" if other else ""


def _split_folders(root: Path, notes: list[str]) -> tuple[list[tuple[str | None, Path]], list[Path]]:
    """The folders that contain class folders, with their splits (`root` with None if there are none), and others.

    The others stand beside folders of splits and have no folders in them, so that their files have no class.
    """
    folders = folders_in(root)
    of_splits = [f for f in folders if split_word(f.name)]
    others = [f for f in folders if not split_word(f.name)]
    if not _are_splits(of_splits, others):
        notes += [f"{f.name} is taken for a class, not for a split" for f in of_splits if f.name.lower() in SPLITS]
        return [(None, root)], []
    several = sum(bool(folders_in(_entered(f))) for f in of_splits) > 1  # else a class of trains stands beside others
    if unclear := [f.name for f in others if not several or folders_in(_entered(f))]:
        raise InvalidInput(
            f"{str(root)!r} has {few(unclear)} beside {few([f.name for f in of_splits])}: if they are splits, rename "
            "them train, val or test, one folder for each; if they are none, move them away"
        )
    named: dict[str, list[Path]] = {"train": [], "val": [], "test": []}
    for f in of_splits:
        named[split_word(f.name) or ""].append(f)
    for split, its in named.items():
        if len(its) > 1 and len(labelled := [f for f in its if folders_in(_entered(f))]) == 1:
            others += [f for f in its if f not in labelled]
            its[:] = labelled
        if len(its) > 1:
            same = few([f.name for f in its])
            raise InvalidInput(f"{str(root)!r} has several folders for the split {split}: {same}; keep one of them")
    notes += renamed_splits({its[0].name: split for split, its in named.items() if its})
    return [(split, _entered(its[0])) for split, its in named.items() if its], others


def _are_splits(of_splits: list[Path], others: list[Path]) -> bool:
    """Whether folders with words for splits in their names are splits: classes may be called so, as may a train."""
    inner = [{class_name(f.name) for f in folders_in(_entered(folder))} for folder in of_splits]
    if any(f.name.lower() in SPLITS for f in of_splits):
        return not others or any(inner)
    words = [split_word(f.name) for f in of_splits]
    if "train" not in words or (len(words) > 1 and set(words) == {"train"} and not any(inner)):
        return False
    return not others or (len(inner) > 1 and len(set.intersection(*[names for names in inner if names] or [set()])) > 1)


def _entered(path: Path) -> Path:
    """The folder, or the one that alone is in it, as archives are unpacked: of the same name or split, or `images`."""
    inner = [*folders_in(path), *(f for f in files_in(path) if not litter(f.relative_to(path)))]
    if len(inner) != 1 or not inner[0].is_dir():
        return path
    word = split_word(path.name)
    same = inner[0].name.lower() == path.name.lower() or (word and split_word(inner[0].name) == word)
    return _entered(inner[0]) if same or (word and inner[0].name.lower() in IMAGES) else path


def folders_in(path: Path) -> list[Path]:
    """The folders in one that may be classes or splits."""
    folders = [f for f in path.iterdir() if f.is_dir() and not f.name.startswith(".") and f.name.lower() not in FOLDERS]
    folders.sort(key=lambda f: (shown(class_name(f.name)), f.name))
    for f in folders:
        if f.is_symlink() and f.resolve() in (path.resolve(), *path.resolve().parents):
            raise InvalidInput(f"{str(f)!r} is a link to a folder above it: remove the link")
    return folders


def files_in(path: Path) -> list[Path]:
    """The files in a folder, and all in such folders that are no class."""
    files: list[Path] = []
    for entry in sorted(path.iterdir()):
        if entry.name.lower() in FOLDERS and entry.is_dir():
            files += walk(entry)
        elif entry.is_file() and not hidden(entry.name):
            files.append(entry)
    return files


def walk(path: Path) -> Iterator[Path]:
    """Give the files in a folder and below it that are not hidden; links to folders are not followed."""

    def stop(error: OSError) -> None:  # without it, `os.walk` skips folders that it cannot read
        raise error

    for place, inner, files in path.walk() if isinstance(path, UrlPath) else os.walk(path, onerror=stop):
        inner[:] = sorted(name for name in inner if not hidden(name))
        folder = place if isinstance(place, UrlPath) else Path(place)
        yield from (folder / name for name in sorted(files) if not hidden(name))
