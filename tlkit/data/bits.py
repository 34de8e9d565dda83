"""Make 8 bits of photos whose values have more, or less, once it is known which value is white."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tlkit.errors import InvalidInput

DIM = 31  # photos with 8 bits without a value above it are nearly black, if 255 is white
BY_SETTING = "say it by data.white, or "
"""Advice in the message about a photo, for commands that have this setting; others take it out."""

BAND = 2**21  # pixels converted at a time
_DEEP_COLORS = {"LA;16B": "RGBA"} | {
    f"{channels};16{order}": f"{channels};16{'L' if order == 'B' or (order == 'N' and sys.byteorder == 'big') else 'B'}"
    for channels in ("RGB", "RGBA", "RGBX")
    for order in "BLN"
}
"""Raw modes of Pillow, of which it gives the high byte of each value, and those that give the low one."""


class Range(NamedTuple):
    """The values of a photo with more than 8 bits.

    Args:
        high: The largest.
        floating: Whether they are floating-point numbers.
        inverted: Whether 0 is white, as a TIFF may say.
    """

    high: float
    floating: bool = False
    inverted: bool = False


def check_white(white: float | None) -> None:
    """Refuse what cannot be white.

    Raises:
        InvalidInput: it is not above 0, or more than any file can hold.
    """
    if white is not None and not 0 < white <= 2**32:
        raise InvalidInput(f"white is {white!r}: it must be above 0, and 4294967296 at the most")


def number(value: float) -> str:
    """Write a value for a message.

    >>> number(4095.0), number(0.25)
    ('4,095', '0.25')
    """
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def range_of(values: np.ndarray, inverted: bool = False) -> Range:
    """Return the range of a photo's values.

    Raises:
        ValueError: some are below 0 or not finite.
    """
    floating = values.dtype.kind == "f"
    low, high = values.min(), values.max()
    if not np.isfinite(low) or not np.isfinite(high):  # NumPy's extrema of an array with nan are nan
        raise ValueError("it holds values that are not finite: replace them")
    if low < 0:
        raise ValueError(f"it holds values below 0, down to {number(low)}: photos begin at 0, so shift or scale them")
    return Range(float(high), floating, inverted)


def scaled(values: np.ndarray, white: float | None = None, inverted: bool = False) -> np.ndarray:
    """Scale values from 0 to white to uint8, from 0 to 255.

    Args:
        values: Of a photo with more than 8 bits.
        white: By default 65535, in whole numbers.
        inverted: Whether 0 is white.

    Raises:
        ValueError: a value is below 0 or above white, or they are floating-point numbers and `white` is None.

    >>> scaled(np.array([0, 2048, 4095], np.uint16), white=4095).tolist()
    [0, 128, 255]
    """
    span = range_of(values)
    most = 65535 if white is None else white
    if white is None and (span.floating or span.high > most):
        kind = "floating-point" if span.floating else "32-bit"
        raise ValueError(
            f"a {kind} image does not say which value is white, and this one has values up to {number(span.high)}: "
            f"{BY_SETTING}convert it to 8 or 16 bits"
        )
    if span.high > most:
        raise ValueError(
            f"it has values up to {number(span.high)}, but {number(most)} is white (data.white): bring it to that range"
        )
    if span.floating or most != int(most):
        share = values.astype(np.float64) / most
        return np.rint((1 - share if inverted else share) * 255).astype(np.uint8)
    whole = values.astype(np.uint64 if most > 2**24 else np.uint32)
    result = (whole * 255 + int(most) // 2) // int(most)
    return (255 - result if inverted else result).astype(np.uint8)


def range_of_photo(image: Image.Image, low: Image.Image | None) -> Range | None:
    """Return the range of a photo that is not decoded yet; None where Pillow makes 8 bits of it.

    Args:
        image: The photo.
        low: Its `lower_bytes`, if it has deep colors.

    Raises:
        ValueError: as for `range_of`.
    """
    inverted = is_inverted(image)
    image.load()
    if low is None:
        return range_of(np.asarray(image), inverted) if _is_deep_gray(image) else None
    high = 0
    for band in "RGB":  # the alpha channel has a range of its own
        first, second = np.asarray(image.getchannel(band)), np.asarray(low.getchannel(band))
        top = first.max()
        high = max(high, int(top) * 256 + int(second[first == top].max()))
    return Range(float(high))


def flat(
    image: Image.Image,
    mode: str,
    white: float | None = None,
    inverted: bool = False,
    low: Image.Image | None = None,
) -> Image.Image:
    """Convert a palette, transparency, CMYK or more than 8 bits to a mode; large photos in bands of rows.

    Args:
        image: Any photo.
        mode: L or RGB.
        white: As for `tlkit.data.images.decode`.
        inverted: Whether 0 is white in a photo with more than 8 bits.
        low: The `lower_bytes` of one with deep colors; without them its high bytes are taken.

    Raises:
        ValueError: as for `scaled`.
    """
    deep = low is not None or _is_deep_gray(image)
    if white is not None and white <= DIM and not deep:
        image = _lightened(image, white)
    if image.mode == mode and not deep and not image.has_transparency_data:
        return image
    # The alpha channel may use all 16 bits where the colors do not.
    opaque = white if low is None or white is None or image.getextrema()[-1][1] <= white // 256 else 65535  # type: ignore[index]

    def convert(part: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
        if low is not None:
            values = np.asarray(part) * np.uint16(256) + np.asarray(low.crop(box))
            channels = [scaled(values[..., n], white if n < 3 else opaque) for n in range(values.shape[-1])]
            part = Image.fromarray(np.stack(channels, axis=-1))
        elif deep:
            part = Image.fromarray(scaled(np.asarray(part), white, inverted))
        if part.has_transparency_data:
            part = part.convert("RGBA")
            part = Image.alpha_composite(Image.new("RGBA", part.size, "white"), part)
        return part if part.mode == mode else part.convert(mode)

    rows = max(1, BAND // image.width)
    if rows >= image.height:
        return convert(image, (0, 0, *image.size))
    photo = Image.new(mode, image.size)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        photo.paste(convert(image.crop(box), box), box)
    return photo


def _lightened(image: Image.Image, white: float) -> Image.Image:
    """A photo with 8 bits without a value above white, such as a mask of 0 and 1, up to 255; others as they are."""
    colors = [band for band in image.getbands() if band != "A"]
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        return image
    if max(np.asarray(image.getchannel(band)).max() for band in colors) > white:
        return image
    table = scaled(np.arange(256).clip(0, int(white)), white).tolist()
    return image.point(table * len(colors) + list(range(256)) * (len(image.getbands()) - len(colors)))


def _is_deep_gray(image: Image.Image) -> bool:
    return image.mode == "F" or image.mode.startswith("I")


def is_inverted(image: Image.Image) -> bool:
    """Return whether 0 is white in a TIFF with more than 8 bits; with 8 bits and less, Pillow sees to it.

    Args:
        image: A photo that is not decoded yet; Pillow forgets it then.
    """
    return image.format == "TIFF" and _is_deep_gray(image) and image.tag_v2.get(262) == 0  # type: ignore[attr-defined]


def has_deep_colors(image: Image.Image) -> bool:
    """Return whether a photo that is not decoded yet has 16 bits per channel of which Pillow gives the high byte."""
    return any(raw in _DEEP_COLORS for raw, _ in map(_raw_mode, getattr(image, "tile", ())))


def _raw_mode(tile: Any) -> tuple[str, tuple[Any, ...]]:
    """How Pillow's decoder lays out the pixels of a tile, and its other arguments."""
    return (tile.args[0], tile.args[1:]) if isinstance(tile.args, tuple) and tile.args else (tile.args, ())


def lower_bytes(image: Image.Image) -> Image.Image:
    """Decode the low byte of each value of a photo with deep colors; Pillow itself gives the high one.

    Args:
        image: The photo, not decoded yet; it is changed.
    """
    tiles = []
    for tile in image.tile:  # type: ignore[attr-defined]
        raw, rest = _raw_mode(tile)
        other = _DEEP_COLORS[raw]
        tiles.append(tile._replace(args=(other, *rest) if isinstance(tile.args, tuple) else other))
    gray = tiles[0].args == "RGBA"  # both bytes of gray, then both bytes of alpha
    image.tile = tiles  # type: ignore[attr-defined]
    image.load()
    if not gray:
        return image
    _, value, _, alpha = image.split()
    return Image.merge("RGBA", (value, value, value, alpha))
