"""Photos without labels, as people name them: files, folders, patterns, tables of paths, names on standard input."""

from __future__ import annotations

import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from tlkit.data.images import SUFFIXES
from tlkit.data.sources.columns import known, path_column
from tlkit.data.sources.files import Files
from tlkit.data.sources.litter import hidden, litter
from tlkit.data.sources.tabular import TABLES, read_table
from tlkit.display import cut, few, say
from tlkit.errors import InvalidInput, without_password
from tlkit.untrusted import is_url

STANDARD_INPUT = "-"
AGAIN = "named again"
LINKS = "links to folders"
_MAGIC = frozenset("*?[")


class NamedPhotos(NamedTuple):
    """What was named.

    Args:
        photos: Path of each, in the order in which they are named; and why it cannot be read, or "". Paths are texts,
            which take a tenth of the memory of a `Path`.
        skipped: Number of files that are not meant, by what they are.
    """

    photos: dict[str, str]
    skipped: Counter[str]

    @property
    def notes(self) -> list[str]:
        """What is skipped, in a line."""
        counts = [f"{count:,} {what}" for what, count in self.skipped.most_common()]
        return [f"skipped: {few(counts)}"] if counts else []


def named_photos(words: Sequence[str]) -> NamedPhotos:
    """List the photos that are named; none is opened.

    A word is one of these:

    - A file, whatever its suffix. It must exist.
    - A folder: all photos in it and below it, by their suffixes. What is hidden or known litter is skipped, as are
      other files; links to folders are not followed. A folder that cannot be read counts as a photo that cannot.
    - A pattern with `*`, `?`, `[...]` or `**` for any folders, if there is no file of that name; what matches counts as
      named.
    - A table, `.csv`, `.tsv` or `.parquet`: its column `path` has files, relative to the folder of the table; see
      `csv_file`. A file that does not exist counts as a photo that cannot be read.
    - `-`: files and folders on standard input, one in a line, or with a null character after each, as `find -print0`
      writes them. One that does not exist counts as a photo that cannot be read.

    A photo that is named twice is listed once.

    Raises:
        InvalidInput: a word names nothing; or there is no photo at all, or none that can be read.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("b.jpg", "a.png", "Thumbs.db", "list.txt"):
    ...     folder.joinpath(name).touch()
    >>> named = named_photos([str(folder)])
    >>> [Path(photo).name for photo in named.photos], named.notes
    (['a.png', 'b.jpg'], ['skipped: 1 system files, 1 .txt files'])
    """
    found = NamedPhotos({}, Counter())
    for word in words:
        if word == STANDARD_INPUT:
            for line in _lines_of_standard_input():
                _add(line, found, _problem(line))
        elif is_url(word) and not os.path.lexists(word):
            plain = without_password(word.partition("?")[0])
            raise InvalidInput(f"{plain!r} is a URL: give photos on this machine; evaluate takes those at a URL")
        elif _MAGIC & set(word) and not os.path.lexists(word):
            _add_matches(word, found)
        else:
            problem = _problem(word)
            if problem and not os.path.isdir(word):
                why = f"there is no photo {word!r}" if not os.path.lexists(word) else f"{word!r}: {problem}"
                raise InvalidInput(f"{why}; give the path of an image file, a folder, a pattern or a table of paths")
            _add(word, found, problem)
    if all(found.photos.values()):
        raise InvalidInput(_about_none(words, found))
    return found


def _about_none(words: Sequence[str], found: NamedPhotos) -> str:
    """Say that there is no photo, or none that can be read."""
    where = few(["standard input" if word == STANDARD_INPUT else cut(word, 100) for word in words], 3)
    skipped = "".join(f" ({note})" for note in found.notes)
    if not found.photos:
        return f"no photo in {where}{skipped}; photos end in {few(sorted(SUFFIXES), 20)}"
    (path, reason), *others = found.photos.items()
    more = f" and {len(others):,} more" if others else ""
    return f"no photo of {where} can be read{skipped}: {cut(path, 200)}: {reason}{more}; give paths as seen from here"


def _problem(path: str) -> str:
    """Why a path is not that of a file; ""  where it is."""
    try:
        return "" if stat.S_ISREG(os.stat(path).st_mode) else "not a file"
    except OSError as error:
        return error.strerror or type(error).__name__
    except ValueError:  # a null character
        return "no name of a file"


def _add(path: str, found: NamedPhotos, problem: str) -> None:
    """Add what a path names: a folder, a table or a photo."""
    if os.path.isdir(path):
        if what := litter(PurePath(PurePath(path).name, "photo")):
            found.skipped[f"folders of {what}"] += 1
        else:
            _add_folder(path, found)
    elif not problem and path.lower().endswith(TABLES):
        _add_table(path, found)
    else:
        _add_photo(path, found, problem)


def _add_photo(path: str, found: NamedPhotos, problem: str = "") -> None:
    if path in found.photos:
        found.skipped[AGAIN] += 1
    elif not problem and (what := litter(PurePath(PurePath(path).name))):
        found.skipped[what] += 1
    else:
        found.photos[path] = problem


def _add_folder(folder: str, found: NamedPhotos) -> None:
    def unreadable(error: OSError) -> None:  # without it, `os.walk` skips folders that it cannot read
        found.photos[str(error.filename)] = f"the folder cannot be read: {error.strerror}"

    for place, inner, files in os.walk(folder, onerror=unreadable):
        inner[:] = sorted(name for name in inner if not hidden(name))
        found.skipped.update(LINKS for name in inner if os.path.islink(os.path.join(place, name)))
        below = litter(PurePath(os.path.relpath(place, folder), "photo"))
        for name in sorted(files):
            if hidden(name):
                continue
            suffix = os.path.splitext(name)[1].lower()
            if what := below or litter(PurePath(name)):
                found.skipped[what] += 1
            elif suffix not in SUFFIXES:
                found.skipped[f"{cut(suffix, 20)} files" if suffix else "files without a suffix"] += 1
            else:
                _add_photo(str(PurePath(place, name)), found)


def _add_matches(pattern: str, found: NamedPhotos) -> None:
    """Add what a pattern names; a shell does not expand it in quotes, and some never do."""
    parts = PurePath(pattern).parts
    fixed = next(place for place, part in enumerate(parts) if _MAGIC & set(part))
    root, rest = Path(*parts[:fixed]), str(PurePath(*parts[fixed:]))
    shows_hidden = any(part.startswith(".") for part in parts[fixed:])
    try:
        matches = sorted(
            str(match)
            for match in root.glob(rest)  # unlike `glob.glob`, it does not follow links for `**`
            if shows_hidden or not any(part.startswith(".") for part in match.relative_to(root).parts)
        )
    except (OSError, ValueError, NotImplementedError) as error:
        raise InvalidInput(f"the pattern {pattern!r} cannot be used: {error}") from error
    if not matches:
        raise InvalidInput(f"no file matches {pattern!r}; give the path of an image file, a folder or another pattern")
    for match in matches:
        if what := litter(PurePath(match).relative_to(root)):
            found.skipped[what] += 1
        else:
            _add(match, found, _problem(match))


def _add_table(path: str, found: NamedPhotos) -> None:
    table = read_table(path, known)
    column = path_column(f"{path}, line 1", table.header)
    files = Files(Path(path).parent)
    for where, cells in table.rows():
        name = cells[column].strip()
        if not name:
            _add_photo(f"{path}, {where}", found, "the path is empty")
            continue
        missing = str(files.parent / name)
        try:
            there = files.written(cells[column])
            _add_photo(str(there[1]) if there else missing, found, "" if there else "no such file")
        except (OSError, ValueError) as error:  # the name is too long, or a folder in it is closed to us
            _add_photo(missing, found, getattr(error, "strerror", None) or "no name of a file")


def _lines_of_standard_input() -> Iterator[str]:
    """Give the names on standard input."""
    if sys.stdin is None:
        raise InvalidInput("- is for names on standard input, which is closed")
    try:
        if sys.stdin.isatty():
            say("names of photos, one in a line; Ctrl-D ends them:", error=True)
        content: bytes = sys.stdin.buffer.read()
    except (OSError, ValueError) as error:
        raise InvalidInput(f"- is for names on standard input, which cannot be read: {error}") from error
    content = content.removeprefix(b"\xef\xbb\xbf")
    null = b"\0" in content
    for line in content.split(b"\0" if null else b"\n"):
        if name := line if null else line.rstrip(b"\r"):
            yield os.fsdecode(name)
