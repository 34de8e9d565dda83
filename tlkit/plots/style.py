"""What all figures share: colours, names and numbers as they are written, and how a figure is saved."""

from __future__ import annotations

import warnings
from typing import Any

from matplotlib.figure import Figure

from tlkit.display import shown

BLUE, ORANGE, GRAY = "#0072b2", "#d55e00", "0.45"  # told apart by colour-blind readers too (Okabe and Ito)


def save(figure: Figure, to: Any, **options: Any) -> None:
    """Save a figure whose names may be in a script that no font here has, without a warning for each letter.

    Args:
        figure: To save.
        to: A path or an open file.
        options: Of Matplotlib's `savefig`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing|Matplotlib currently does not support")
        figure.savefig(to, **options)


def shortened(name: str, most: int) -> str:
    """Shorten a name, as `display.shown` writes it, in its middle: names often differ at their ends alone.

    >>> shortened("n02099601-golden_retriever", 16)
    'n0209960…triever'
    """
    name = shown(name)
    return name if len(name) <= most else f"{name[: most // 2]}…{name[len(name) - (most - 1) // 2 :]}"


def plain_number(value: float, rounded: str) -> str:
    """Give a number without needless zeros; a whole one below 100000 is not rounded.

    >>> plain_number(0.00012345, "0.00012"), plain_number(0.5, "0.500"), plain_number(64.0, "6e+01")
    ('1.2e−4', '0.5', '64')
    """
    if value == round(value) and abs(value) < 1e5:
        return str(round(value)).replace("-", "−")
    if abs(value) >= 1e5:
        rounded = f"{value:.2g}"
    elif abs(value) < 1e-3:
        rounded = f"{float(rounded):.3e}"  # 5e-4 is read more easily than 0.0005
    mantissa, _, exponent = rounded.partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return (mantissa + (f"e{int(exponent)}" if exponent else "")).replace("-", "−")
