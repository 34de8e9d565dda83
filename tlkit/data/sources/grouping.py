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
        notes: Of the examples; lines are added.

    Returns:
        The groups; "" for an example that has none, which stands alone.

    Raises:
        InvalidInput: the pattern cannot be used or matches no path; or the folders are those of the classes.

    >>> groups_by(r"(patient\d+)_", ["ill/patient1_a.png", "ill/patient1_b.png", "well/x.png"], "iiw", "photos", [])
    ['patient1', 'patient1', '']
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
    notes += group_notes("data.group", names, found, kind)
    return found


def group_notes(source: str, names: Sequence[str], groups: Sequence[str], kind: str) -> list[str]:
    """Return notes on how many groups there are, and which examples have none.

    >>> group_notes("data.group", ["1.png", "2.png"], ["x", ""], "photos")
    ['groups by data.group: 1; each stays in one split', 'photos without a group, which stand alone (1): 2.png']
    """
    notes = [f"groups by {source}: {len({*groups} - {''})}; each stays in one split"]
    if alone := [name for name, group in zip(names, groups, strict=True) if not group]:
        notes.append(f"{kind} without a group, which stand alone ({len(alone)}): {few(alone, 3)}")
    return notes
