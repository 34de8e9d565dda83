"""Regular expressions from outside."""

from __future__ import annotations

import re

from tlkit.display import cut
from tlkit.errors import InvalidInput

LONGEST_PATTERN = 1000  # characters


def pattern(text: str, what: str) -> re.Pattern[str]:
    r"""Return a regular expression with one group in parentheses, which captures what is looked for.

    Args:
        text: From the user.
        what: The setting it is from, for the error.

    Raises:
        InvalidInput: it is no regular expression, it is too long, or it has no such group or several.

    >>> pattern(r"(patient\d+)_", "data.group").search("sick/patient07_frame3.jpg")[1]
    'patient07'
    """
    given = f"{what} is {cut(text, 60)!r}"
    example = r"such as (patient\d+)_"
    if len(text) > LONGEST_PATTERN:
        raise InvalidInput(f"{given}, of {len(text):,} characters; it may have {LONGEST_PATTERN:,}")
    try:
        compiled = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidInput(f"{given}; it must be a regular expression, {example}: {error}") from error
    if compiled.groups != 1:
        raise InvalidInput(f"{given}, which has {compiled.groups} groups in parentheses; it must have one, {example}")
    return compiled
