"""Which columns of a table hold the paths, labels, splits and groups."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tlkit.data.sources.examples import SPLITS, split_word
from tlkit.data.sources.tabular import Table
from tlkit.display import cut, few, shown
from tlkit.errors import InvalidInput

OTHER_NAMES = {
    "path": (
        "paths", "file", "files", "filename", "filenames", "file_name", "fname", "filepath", "filepaths", "file_path",
        "image", "images", "image_path", "img", "img_path", "photo", "sound", "audio",
    ),
    "label": ("labels", "class", "class_name", "classname", "category", "target"),
    "split": ("set", "subset", "partition", "dataset", "data_set", "fold", "is_valid", "is_val", "is_test", "is_train"),
    "group": (),
}  # fmt: skip
"""What other people call the columns, in small letters; of splits only if every value in them is one."""

ABOUT_GROUPS = frozenset(("patient", "patient_id", "subject", "subject_id", "lesion_id", "video", "video_id"))
"""Columns, in small letters, that are likely to hold groups; they are not taken without the user's word."""

_YES = frozenset(("true", "1", "1.0", "yes"))
_NO = frozenset(("false", "0", "0.0", "no"))


class Columns(NamedTuple):
    """The places of the columns in the header."""

    path: int
    label: int
    split: int | None
    group: int | None
    booleans: tuple[str, str] | None  # the splits of "true" and "false", where the column of splits holds these
    notes: list[str]

    def split_of(self, text: str) -> str | None:
        """The split that a cell names, or None."""
        if self.booleans is None:
            return split_word(text)
        yes, no = self.booleans
        return yes if text.lower() in _YES else no if text.lower() in _NO else None


def known(header: Sequence[str]) -> int:
    """How many columns of a header have a known name.

    >>> known(["Path", "Label", "Split", "age"]), known(["Path;Label;Split;age"])
    (3, 0)
    """
    names = {name for role, others in OTHER_NAMES.items() for name in (role, *others)}
    return sum(_plain(cell) in names for cell in header)


def path_column(where: str, header: Sequence[str]) -> int:
    """Return the place of the column of paths in the header of a table whose other columns do not matter.

    Args:
        where: What errors begin with.
        header: The names, as they are written.

    Raises:
        InvalidInput: there is no such column, or there are several.

    >>> path_column("photos.csv", ["id", "File name"])
    1
    """
    for names in (("path",), OTHER_NAMES["path"]):
        places = [place for place, name in enumerate(header) if _plain(name) in names]
        if len(places) > 1:
            raise InvalidInput(
                f"{where}: each of the columns {few([header[i] for i in places])} may hold the paths: keep one of them"
            )
        if places:
            return places[0]
    raise InvalidInput(f"{where}: no column 'path' among {cut(str(list(header)), 300)}: give the paths that name")


def find_columns(where: str, table: Table, given: Mapping[str, str], separator: str | None) -> Columns:
    """Find the columns of a table: by the names that are given, else by `path`, `label`, `split` and `group`, in any
    case, else by other names that are usual (see `OTHER_NAMES`). What is not obvious is said in the notes.

    Args:
        where: What errors begin with.
        table: Its rows are read, for their values tell which column holds splits.
        given: Names of columns, by what they are for.
        separator: Between several labels of an example; the column may then be called labels.

    Raises:
        InvalidInput: there is no column for paths or labels, or there are several for one purpose.
    """
    header = [name.strip() for name in table.header]
    path, label = _required(where, header, given)
    split, group = (_called(where, header, role, given) for role in ("split", "group"))
    values = _split_columns(table, (path, label))
    if split is None:
        split = _only(where, header, "split", [i for i in values if _plain(header[i]) in OTHER_NAMES["split"]])
    places = {"path": path, "label": label, "split": split, "group": group}
    notes = []
    said = {*given, *(["label"] if separator and _plain(header[label]) == "labels" else [])}
    others = {role: i for role, i in places.items() if i is not None and role not in said and _plain(header[i]) != role}
    if others:
        notes.append("columns by their names: " + few([f"{header[i]} is {role}" for role, i in others.items()]))
    notes += _ignored(header, places, values)
    return Columns(path, label, split, group, None if split is None else values.get(split), notes)


def _required(where: str, header: Sequence[str], given: Mapping[str, str]) -> list[int]:
    """The columns for paths and labels."""
    found: dict[str, int] = {}
    for role in ("path", "label"):
        place = _called(where, header, role, given)
        if place is None:
            others = [i for i, name in enumerate(header) if _plain(name) in OTHER_NAMES[role]]
            place = _only(where, header, role, others)
        if place is not None:
            found[role] = place
    if missing := [role for role in ("path", "label") if role not in found]:
        names = ", ".join(f"{role}: NAME" for role in missing)
        raise InvalidInput(
            f"{where}: no column {missing[0]!r} among {cut(str(header), 300)}: give a header path,label[,split], or "
            f"say which it is with --data.columns '{{{names}}}'"
        )
    return [found["path"], found["label"]]


def _called(where: str, header: Sequence[str], role: str, given: Mapping[str, str]) -> int | None:
    """The column whose name is given, or is that of the role: exactly, or else in other letters."""
    name = given.get(role, role).strip()
    for found in ([i for i, each in enumerate(header) if each == name],
                  [i for i, each in enumerate(header) if _plain(each) == _plain(name)]):  # fmt: skip
        if len(found) > 1:
            raise InvalidInput(f"{where}: {len(found)} columns {name!r}: keep one")
        if found:
            return found[0]
    if role in given:
        raise InvalidInput(
            f"{where}: data.columns says that {role} is {name!r}, which is not one of {cut(str(header), 300)}"
        )
    return None


def _plain(name: str) -> str:
    return re.sub(r"[\s_.-]+", "_", name.strip().lower())


def _only(where: str, header: Sequence[str], role: str, found: Sequence[int]) -> int | None:
    names = [header[i] for i in found]
    if len(found) > 1 and len(set(names)) == 1:
        raise InvalidInput(f"{where}: {len(found)} columns {names[0]!r}: keep one")
    if len(found) > 1:
        raise InvalidInput(
            f"{where}: each of the columns {few(names)} may be {role}: say which with "
            f"--data.columns '{{{role}: {names[0]}}}'"
        )
    return found[0] if found else None


def _split_columns(table: Table, taken: Sequence[int]) -> dict[int, tuple[str, str] | None]:
    """The columns whose values name splits; and the splits that "true" and "false" stand for in those of these two.

    A column such as `is_valid` of true and false is among them. In one that is called as columns of splits are, some
    values may be others, as in one called `split`: their rows cannot be used.
    """
    words = {i: set[str]() for i in range(len(table.header)) if i not in taken}
    booleans = {i: set[str]() for i in words if split_word(table.header[i])}
    usual = {i for i in words if _plain(table.header[i]) in OTHER_NAMES["split"]}
    right = Counter[int]()  # more of these values name a split than do not
    for _, cells in table.rows():
        for found, names in ((words, None), (booleans, _YES | _NO)):
            for i in list(found):
                text = cells[i].strip()
                fits = text.lower() in names if names else split_word(text)
                if names is None and i in usual and text:
                    right[i] += 1 if fits else -1
                if text and fits:
                    found[i].add(text)
                elif text and not (names is None and i in usual):
                    del found[i]
        if not words and not booleans:
            break
    columns: dict[int, tuple[str, str] | None] = {
        i: None for i, texts in words.items() if texts and (i not in usual or right[i] > 0)
    }
    for i in [i for i, texts in booleans.items() if texts]:
        split = split_word(table.header[i]) or ""
        columns[i] = (split, "test" if split == "train" else "train")
    return columns


def _ignored(header: Sequence[str], places: Mapping[str, int | None], values: Mapping[int, object]) -> list[str]:
    """Notes about columns that are not used and would change the splits."""
    notes = []
    for i, name in enumerate(header):
        if i in places.values():
            continue
        advice = f"--data.columns '{{split: {shown(name)}}}'"
        if places["split"] is None and i in values:
            notes.append(f"column {name!r} is ignored although its values are splits: to use it give {advice}")
        elif places["split"] is None and _plain(name) in OTHER_NAMES["split"] and "data" not in _plain(name):
            notes.append(f"column {name!r} is ignored: its values are not {few(list(SPLITS), 20)}")
        elif places["group"] is None and _plain(name) in ABOUT_GROUPS:
            advice = f"--data.columns '{{group: {shown(name)}}}'"
            notes.append(f"column {name!r} is ignored: {advice} keeps the examples of each in one split")
    return notes
