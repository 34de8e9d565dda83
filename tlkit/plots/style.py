"""Colors, spelling of names and numbers, and saving, for all figures."""

from __future__ import annotations

import os
import textwrap
import warnings
from typing import IO, TYPE_CHECKING, Any

from tlkit.display import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LETTERS_PER_INCH = 9  # of a title
BLUE, ORANGE, GRAY = "#0072b2", "#d55e00", "0.45"  # told apart by color-blind readers too (Okabe and Ito)


def save(figure: Figure, to: str | os.PathLike[str] | IO[bytes], **options: Any) -> None:
    """Save a figure, into an open file as PNG, without a warning for each letter that no installed font has.

    Args:
        figure: The figure.
        to: A path or an open file.
        options: Options of Matplotlib's `savefig`.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    is_png = str(to).endswith(".png") if isinstance(to, str | os.PathLike) else True
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing|Matplotlib currently does not support")
        if figure.axes and (engine := figure.get_layout_engine()):  # `savefig` would draw all of it twice
            engine.execute(figure)
            figure.set_layout_engine("none")
        if options or not is_png:
            figure.savefig(to, **options)
            return
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]  # nothing is transparent
    # The level at which photos take half of the time of the usual one, for 5 % more bytes.
    Image.fromarray(pixels).save(to, "PNG", compress_level=3, dpi=(figure.dpi, figure.dpi))


def wrapped(title: str, figure: Figure) -> str:
    """Break a title into lines that a figure has room for; a word that is longer is broken too.

    >>> from matplotlib.figure import Figure
    >>> wrapped("m-718865e44edf42ba8acdab7744fa2060, with its weights", Figure(figsize=(4, 3))).count("\\n")
    1
    """
    return "\n".join(
        textwrap.wrap(title, max(10, int(LETTERS_PER_INCH * figure.get_figwidth())), break_on_hyphens=False)
    )


def shortened(name: str, most: int) -> str:
    """Shorten a name in its middle, since names often differ only at their ends; unsafe characters are escaped.

    >>> shortened("n02099601-golden_retriever", 16)
    'n0209960…triever'
    """
    name = shown(name)
    return name if len(name) <= most else f"{name[: most // 2]}…{name[len(name) - (most - 1) // 2 :]}"


def plain_number(value: float, rounded: str) -> str:
    """Write a number without needless zeros; a whole one below 100000 is not rounded.

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
