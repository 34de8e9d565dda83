"""The picture that a command writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.recipes import _links

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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


def write(output: str, figure: Figure) -> Path:
    """Write a picture to a file that does not exist, say where it is, and return its path."""
    from tlkit import plots

    path = Path(output)
    with open(path, "xb") as file:
        plots.save(figure, file, format="png", dpi=150)
    say(f"picture  {_links.shown(path.absolute())}")
    return path
