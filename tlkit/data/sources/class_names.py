"""Names of classes as sources write them: one spelling of equal names, names that are nearly equal, missing labels."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Sequence

from tlkit.display import few

MISSING = frozenset(
    ("", "nan", "NaN", "NAN", "-nan", "-NaN", "None", "NA", "N/A", "n/a", "#N/A", "#NA", "<NA>", "null", "NULL", "NaT")
)
"""Labels that stand for none, as pandas, R and Excel write them. `none` is not among them: it is a class of some."""

_BLANKS = re.compile("[ \\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff"  # soft hyphen, zero-width blanks and joiners, byte order mark
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
_MINUS_ONE = re.compile(r"-1(\.0*)?")


def class_name(text: str) -> str:
    """Return a class name in Unicode's form NFC, with ordinary single blanks, and no invisible letter at its ends.

    >>> class_name(" cafe\\u0301\\u00a0 noir ")
    'café noir'
    """
    return _BLANKS.sub(" ", unicodedata.normalize("NFC", text)).strip(f" {_INVISIBLE}")


def minus_one(labels: Collection[str]) -> str | None:
    """Return the label `-1` where it stands for no label: there are two other classes or more, and none is negative.

    >>> minus_one({"-1", "0", "1"}), minus_one({"-1", "1"}), minus_one({"-2", "-1", "0", "1"})
    ('-1', None, None)
    """
    found = [label for label in labels if _MINUS_ONE.fullmatch(label)]
    others = [label for label in labels if label not in found]
    negative = any(label.startswith("-") and _NUMBER.fullmatch(label) for label in others)
    return found[0] if len(found) == 1 and len(others) > 1 and not negative else None


def nearly_equal(classes: Sequence[str]) -> list[str]:
    """Return a note about classes whose names differ only in case, blanks, `-`, `_`, invisible letters, or as numbers.

    >>> nearly_equal(["1", "1.0", "Cat", "cat", "sea lion"])
    ['classes with nearly equal names (2): 1 = 1.0, Cat = cat; they stay apart: if they are one, give them one name']
    """
    alike = defaultdict(list)
    for name in classes:
        number = _NUMBER.fullmatch(name)
        seen = unicodedata.normalize("NFKC", re.sub(f"[{_INVISIBLE}]", "", name)).casefold()
        alike[repr(float(name)) if number else re.sub("[ _-]+", " ", seen)].append(name)
    pairs = [" = ".join(names) for names in alike.values() if len(names) > 1]
    if not pairs:
        return []
    advice = "they stay apart: if they are one, give them one name"
    return [f"classes with nearly equal names ({len(pairs)}): {few(pairs, 5)}; {advice}"]
