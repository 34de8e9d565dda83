"""Files that a table or a manifest names: as they are called, with escapes, in another case or without a suffix."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from pathlib import Path

from tlkit.data import modalities
from tlkit.data.contents import Content, Piece
from tlkit.data.sources.examples import split_word
from tlkit.data.urls import UrlPath
from tlkit.display import shown

BELOW = 100  # folders beside a table in which a missing file is looked for


class Files:
    """Find files in a folder by names that may be written with escapes, as in a manifest."""

    def __init__(self, parent: Path):
        self.parent, self.folders = parent, dict[Path, dict[str, Path]]()
        self.likes = dict[Path, dict[str, set[str]]]()

    def find(self, name: str) -> Path:
        """Return the path of a file, whether it exists or not.

        >>> Files(Path("photos")).find("roses/1.jpg").as_posix()
        'photos/roses/1.jpg'
        """
        path = self.parent / name
        if "\\" not in name or path.exists():
            return path
        path = self.parent
        for part in Path(name).parts:
            inside = path / part
            if not inside.exists() and path.is_dir():
                if path not in self.folders:
                    self.folders[path] = {shown(entry.name): entry for entry in path.iterdir()}
                inside = self.folders[path].get(shown(part), inside)
            path = inside
        return path

    def like(self, name: str) -> str | None:
        """Return the name of the one file that differs in case, in Unicode's form or in a suffix that `name` lacks."""
        path = Path()
        for part in Path(name).parts:
            folder = self.parent / path
            if not (folder / part).exists():
                if folder not in self.likes:
                    self.likes[folder] = _by_likeness(folder)
                found = self.likes[folder].get(_alike(part), set())
                if len(found) != 1:
                    return None
                (part,) = found
            path = path / part
        return path.as_posix() if (self.parent / path).is_file() else None

    def written(self, cell: str) -> tuple[str, Path] | None:
        """Return the name and the path of the file that a cell of a table names, or None.

        The cell may have blanks around the name, and backslashes between folders; see also `find` and `like`.

        Raises:
            OSError: a folder in it cannot be read, or it is too long.
            ValueError: it has characters that no name of a file can have.
        """
        name = cell.strip()
        for spelling in dict.fromkeys((cell, name, name.replace("\\", "/"))):
            if (file := self.find(spelling)).is_file():
                return spelling, file
        like = self.like(name.replace("\\", "/"))
        return (like, self.parent / like) if like else None

    def content(self, file: Path) -> Content:
        """Return what an example is whose file was found."""
        return Piece(file.url, 0, file.size) if isinstance(file, UrlPath) else file

    def elsewhere(self, name: str) -> str | None:
        """Return the name of a file of such a name, whatever its folder: in the folder of the table or just below."""
        name = Path(name.replace("\\", "/")).name
        below = [entry.name for entry in self.parent.iterdir() if entry.is_dir()]
        below.sort(key=lambda name: (split_word(name) != "train", name))
        return next((found for folder in (".", *below[:BELOW]) if (found := self.like(f"{folder}/{name}"))), None)


def _by_likeness(folder: Path) -> dict[str, set[str]]:
    """The names of what a folder holds, by what they have in common with names that are like them."""
    suffixes = {suffix for row in modalities.of_files() if row.files for suffix in row.files.suffixes}
    names = defaultdict(set)
    for entry in folder.iterdir() if folder.is_dir() else ():
        names[_alike(entry.name)].add(entry.name)
        if entry.suffix.lower() in suffixes:
            names[_alike(entry.stem)].add(entry.name)
    return names


def _alike(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
