"""Class names: in a `.keras` file, as one more member of the zip, so that plain Keras still loads it; and in texts.

The member also says how files become the examples that the model takes, where that differs from the default, and when
the model says no single class. A further member has the features of known examples, to tell what is like none of them.
"""

from __future__ import annotations

import io
import json
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tlkit import untrusted
from tlkit.display import cut, shown

MEMBER = "tlkit.json"
REFERENCES = "tlkit_references.npy"
LARGEST = 2**28  # bytes that all references may take
MOST = 2**24  # bytes that all names together may take
LONGEST = 4096  # letters of a name
UNPRINTED = ("Cc", "Cs", "Zl", "Zp")  # Unicode's control characters, halves of letters, ends of lines and paragraphs
SEPARATOR = "|"
"""Separates the labels of an example that may have several."""


def joined(present: Sequence[object], classes: Sequence[str], separator: str = SEPARATOR) -> str:
    """Name the labels of one example that may have several, or none: an empty text.

    Args:
        present: For each class, whether the example has it.
        classes: Names of the classes.
        separator: Text between two names.

    >>> joined([1, 0, 1], ["cat", "dog", "sofa"])
    'cat|sofa'
    """
    return separator.join(name for name, has in zip(classes, present, strict=True) if has)


def write(
    path: str | Path,
    classes: list[str],
    reading: Mapping[str, object] | None = None,
    abstention: Mapping[str, float] | None = None,
    references: np.ndarray | None = None,
) -> None:
    """Add the class names to a saved model.

    Args:
        path: The `.keras` file.
        classes: The names, in the order of the model's outputs.
        reading: How files become examples, where that differs from the default: `changed` of
            `tlkit.data.modalities.Reading`.
        abstention: When the model says no single class: `changed` of `tlkit.evaluation.abstention.Abstention`.
        references: Features of known examples, float16: those of `tlkit.probes.novelty.Novelty`.

    Raises:
        ValueError: the file has class names already, a name is empty, or two classes have the same name.
    """
    if "" in classes or len(set(classes)) < len(classes):
        raise ValueError(f"the class names {classes} are not all given and different")
    with zipfile.ZipFile(path, "a") as archive:
        if MEMBER in archive.namelist():
            raise ValueError(f"{path} holds class names already")
        more = {"reading": reading, "abstention": abstention}
        content = {"classes": classes} | {name: dict(value) for name, value in more.items() if value}
        archive.writestr(MEMBER, json.dumps(content))
        if references is not None:
            buffer = io.BytesIO()
            np.save(buffer, references)
            archive.writestr(REFERENCES, buffer.getvalue())


def read(path: str | Path) -> list[str] | None:
    """Return the class names of a saved model, or None where it was saved without.

    Raises:
        ValueError: they are not a list of different names that a line can show.
        zipfile.BadZipFile: the file is damaged.

    >>> import tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "model.keras")
    >>> zipfile.ZipFile(path, "w").close()
    >>> read(path)
    >>> write(path, ["cat", "dog"])
    >>> read(path)
    ['cat', 'dog']
    """
    content, where = _member(path), f"{MEMBER} in {path}"
    if content is None:
        return None
    names = content.get("classes")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where} does not hold a list of class names")
    if repeated := untrusted.duplicates(names):
        raise ValueError(f"{where} gives two classes the name {shown(cut(repeated[0], 40))}: each needs its own")
    for number, name in enumerate(names):
        if not name.strip():
            raise ValueError(f"{where} gives class {number} no name")
        if len(name) > LONGEST or any(unicodedata.category(letter) in UNPRINTED for letter in name):
            raise ValueError(
                f"{where} gives class {number} the name {shown(cut(name, 40))}: names have no control characters and "
                f"at most {LONGEST:,} others"
            )
    return names


def read_reading(path: str | Path) -> object:
    """Return how files become the examples of a saved model, as `write` was told, for `Reading.of`, which checks it.

    Raises:
        ValueError: the member of the file does not hold what `write` writes.
        zipfile.BadZipFile: the file is damaged.
    """
    return (_member(path) or {}).get("reading", {})


def read_abstention(path: str | Path) -> object:
    """Return when a saved model says no single class, for `Abstention.of`, which checks it; errors as `read_reading`."""
    return (_member(path) or {}).get("abstention", {})


def read_references(path: str | Path) -> np.ndarray | None:
    """Return the features of known examples that a saved model has; None where it has none.

    Shapes:
        returns: (references, features), float16

    Raises:
        ValueError: the member is not such an array.
        zipfile.BadZipFile: the file is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        try:
            content = untrusted.member(archive, REFERENCES, LARGEST)
        except KeyError:
            return None
    try:
        array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError) as error:
        raise ValueError(f"{REFERENCES} in {path} is not an array: {error}") from error
    if array.dtype != np.float16 or array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"{REFERENCES} in {path} is not an array of finite numbers of 16 bits, (references, features)")
    return np.asarray(array)


def _member(path: str | Path) -> dict[str, object] | None:
    where = f"{MEMBER} in {path}"
    with zipfile.ZipFile(path) as archive:
        try:
            content = untrusted.parse_json(untrusted.member(archive, MEMBER, MOST), where)
        except KeyError:
            return None
        except (ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"{where} does not hold a list of class names: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where} does not hold a list of class names")
    return content
