"""Groups of examples, such as the photos of one patient or the frames of one video, from their paths."""

from __future__ import annotations

from collections.abc import Sequence

from tlkit import untrusted
from tlkit.display import few
from tlkit.errors import InvalidInput


def groups_by(group: str, names: Sequence[str], labels: Sequence[str], kind: str, notes: list[str]) -> list[str]:
    r"""Return the group of each example, by its path.

    Args:
        group: `parent`, the name of the folder that holds the file; or a regular expression, of which the part in
            parentheses is the group. It is looked for anywhere in the path.
        names: Path of each, with `/` between folders.
        labels: Name of the class of each.
        kind: Name of the modality.
        notes: Of the examples; a line is added. An example that the pattern does not match is a group of its own.

    Raises:
        InvalidInput: the pattern cannot be used or matches no path; or the folders are those of the classes.

    >>> groups_by(r"(patient\d+)_", ["ill/patient1_a.png", "ill/patient1_b.png", "well/x.png"], "iiw", "photos", [])
    ['patient1', 'patient1', 'well/x.png']
    """
    if group == "parent":
        parents = [name.rpartition("/")[0].rpartition("/")[2] for name in names]
        found = [parent if parent != label else "" for parent, label in zip(parents, labels, strict=True)]
        none = "lies in a folder below its class"
    else:
        matches = map(untrusted.pattern(group, "data.group").search, names)
        found = [(match[1] or "") if match else "" for match in matches]
        none = "has a path that it matches"
    alone = [name for name, its in zip(names, found, strict=True) if not its]
    if len(alone) == len(names):
        raise InvalidInput(f"data.group is {group!r}, but none of the {len(names)} {kind} {none} (such as {names[0]})")
    groups = {*found} - {""}
    if len(groups) == 1 and not alone:
        raise InvalidInput(f"data.group is {group!r}, which makes a single group, {few([*groups])}: give another")
    notes.append(f"groups by data.group: {len(groups)}; each stays in one split")
    if alone:
        notes.append(f"{kind} without a group, each a group of its own ({len(alone)}): {few(alone, 3)}")
    return [its or name for its, name in zip(found, names, strict=True)]
