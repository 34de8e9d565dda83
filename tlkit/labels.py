"""Class names inside a `.keras` file: one more member of the zip, so that plain Keras still loads it. And in texts."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

MEMBER = "tlkit.json"
SEPARATOR = "|"
"""What stands between the labels of an example that may have several."""


def joined(there: Sequence[object], classes: Sequence[str], separator: str = SEPARATOR) -> str:
    """Name the labels of one example that may have several, or none: an empty text.

    Args:
        there: For each class, whether the example has it.
        classes: Their names.
        separator: What stands between two of them.

    >>> joined([1, 0, 1], ["cat", "dog", "sofa"])
    'cat|sofa'
    """
    return separator.join(name for name, has in zip(classes, there, strict=True) if has)


def write(path: str | Path, classes: list[str]) -> None:
    """Add the class names, in the order of the model's outputs, to a saved model.

    Raises:
        ValueError: the file has class names already.
    """
    with zipfile.ZipFile(path, "a") as archive:
        if MEMBER in archive.namelist():
            raise ValueError(f"{path} holds class names already")
        archive.writestr(MEMBER, json.dumps({"classes": classes}))


def read(path: str | Path) -> list[str] | None:
    """Give the class names of a saved model, or None where it was saved without.

    Raises:
        ValueError: what stands in their place is no list of names.
        zipfile.BadZipFile: the file is damaged.

    >>> import tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "model.keras")
    >>> zipfile.ZipFile(path, "w").close()
    >>> read(path)
    >>> write(path, ["cat", "dog"])
    >>> read(path)
    ['cat', 'dog']
    """
    with zipfile.ZipFile(path) as archive:
        if MEMBER not in archive.namelist():
            return None
        content = json.loads(archive.read(MEMBER))
    names = content.get("classes") if isinstance(content, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{MEMBER} in {path} does not hold a list of class names")
    return names
