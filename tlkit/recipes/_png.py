"""The picture that a command writes."""

from __future__ import annotations

from pathlib import Path

from tlkit.errors import InvalidInput


def check(output: str) -> None:
    """Refuse a file that a picture cannot be written to.

    Raises:
        InvalidInput: it is not a PNG, exists already, or its folder does not exist.
    """
    path = Path(output)
    if path.suffix.lower() != ".png":
        raise InvalidInput(f"output is {output!r}; it must end in .png")
    if path.exists():
        raise InvalidInput(f"output is {output!r}, which exists and is not overwritten: give another --output")
    if not path.absolute().parent.is_dir():
        raise InvalidInput(f"output is {output!r}; there is no folder {str(path.absolute().parent)!r}")
