"""Which value is white in a set of photos: 12 bits in 16-bit files, floating-point numbers, masks of 0 and 1.

A file with more than 8 bits per value seldom uses all of them. The largest value of the whole set decides, never that
of one photo: a dark photo stays dark.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping

import numpy as np

from tlkit.data import images
from tlkit.data.bits import DIM, Range, number
from tlkit.data.contents import Named
from tlkit.errors import InvalidInput

DEPTHS = (8, 10, 12, 14, 16)  # numbers of bits that cameras, scanners and microscopes have
ABOVE = 1.25  # a set that exceeds a depth by no more than this factor may have a few odd values: unclear


def white_of(high: float, floating: bool = False) -> int | None:
    """Return which value is white in a set of photos, by the largest of all its values; None where it is unclear.

    Whole numbers have 8, 10, 12, 14 or 16 bits, or are masks of 0 and 1; floating-point ones end at 1 or at 255.

    >>> white_of(4000), white_of(4200), white_of(1), white_of(0.97, floating=True)
    (4095, None, 1, 1)
    """
    if floating:
        return next((white for white in (1, 255) if white * DIM / 255 < high <= white), None)
    if high <= 1:
        return 1
    depth = next((depth for depth in DEPTHS if high < 2**depth), None)
    below = DEPTHS[max(0, DEPTHS.index(depth) - 1)] if depth else 0
    if not depth or (depth == 8 and high <= DIM) or (depth > 8 and high <= ABOVE * 2**below):
        return None
    return 2**depth - 1


def choose(ranges: Mapping[str, Range], others: Named, given: float | None) -> tuple[float | None, str]:
    """Return which value is white in a set of photos, and the line that says so.

    Args:
        ranges: Of the photos with more than 8 bits, by their names.
        others: The photos with 8 bits and their names; of usual ones only the first file is opened.
        given: The setting `data.white`.

    Returns:
        The value, None for the default of `tlkit.data.images.decode`; the line is empty where all photos have 8 bits,
        as usual.

    Raises:
        InvalidInput: the values do not show what is white, or exceed what is given; the message names `data.white`.
    """
    if not ranges:
        pixels = any(isinstance(content, np.ndarray) for _, content in itertools.islice(others, 1))  # all, or none
        return _of_8_bits(() if pixels else others, given)
    white, line = _of_more_bits(ranges, len(others), given)
    # 65535 is the default, but older versions stored features of TIFFs in which 0 is white as of negatives.
    default = white == 65535 and not any(each.inverted for each in ranges.values())
    return (None if default else white), line


def _of_more_bits(ranges: Mapping[str, Range], others: int, given: float | None) -> tuple[float, str]:
    """Return which value is white in photos of which some have more than 8 bits, and the line that says so.

    Raises:
        InvalidInput: the values do not show it, or exceed the one that is given.
    """
    name = max(ranges, key=lambda name: ranges[name].high)
    high, kinds = ranges[name].high, {each.floating for each in ranges.values()}
    whole = "16-bit" if high <= 65535 else "32-bit"
    kind = " and ".join(label for label, is_such in ((whole, False), ("floating-point", True)) if is_such in kinds)
    what = f"{kind} photos with values up to {number(high)} ({_files(len(ranges))})"
    if given is not None:
        if high > given:
            raise InvalidInput(f"data.white is {number(given)}, but {name} has values up to {number(high)}")
        line = f"{what}: {number(given)} is white, as data.white says"
    else:
        if len(kinds) > 1:
            raise InvalidInput(
                f"some photos with more than 8 bits are floating-point numbers, others whole ones ({name} has values "
                f"up to {number(high)}): say which value is white in all of them by data.white, or convert some"
            )
        white = white_of(high, kinds == {True})
        if white is None:
            raise InvalidInput(
                f"{what}, which do not show which value is white: say it by data.white, such as {_example(high)}"
            )
        given, line = white, f"{what}: {number(white)} is taken as white; data.white says otherwise"
        low = float(np.quantile([each.high for each in ranges.values()], 0.25, method="lower"))
        if (white_of(low, kinds == {True}) or white) < white:
            line += (
                f". But a quarter of them end at {number(low)} or below: have these other depths, or others odd values?"
            )
    if others:
        line += f". Mixed with {others:,} of 8 bits, where 255 is white"
    return float(given), line


def _of_8_bits(photos: Named, given: float | None) -> tuple[float | None, str]:
    """Return which value is white in photos that all have 8 bits, None for 255, and a line where there is one to say.

    Raises:
        InvalidInput: all photos are nearly black, or not all are in the range that is given.
    """
    if given is not None and (given > DIM or not photos):
        if given != 255:
            raise InvalidInput(
                f"data.white is {number(given)}, but all photos have 8 bits: leave it out, or give 1 to {DIM} for masks"
            )
        return None, ""
    high, name = _brightest(photos, DIM if given is None else given)
    white = of_8_bits(high, given, f"the photos ({_files(len(photos))})", name)
    if white == 255:
        return None, ""
    taken = "as data.white says" if given is not None else "as in masks; data.white says otherwise"
    return (
        white,
        f"no value of the photos ({_files(len(photos))}) is above {number(high)}: {number(white)} is white, {taken}",
    )


def of_8_bits(high: float, given: float | None, what: str, brightest: str) -> float:
    """Return which value is white in values of 8 bits: 255, or 1 in masks of 0 and 1.

    Args:
        high: The largest of all.
        given: The setting `data.white`.
        what: Name of all of them, for errors.
        brightest: Name of what holds the largest.

    Raises:
        InvalidInput: the largest value is above what is given, or all are nearly black.

    >>> of_8_bits(1, None, "the photos", "a.png"), of_8_bits(200, None, "the photos", "a.png")
    (1.0, 255.0)
    """
    if given is not None:
        if high > given:
            raise InvalidInput(f"data.white is {number(given)}, but {brightest} has values up to {number(high)}")
        return float(given)
    if 1 < high <= DIM:
        raise InvalidInput(
            f"no value of {what} is above {number(high)} of 255, so that all would be nearly black: say by data.white "
            f"which value is white, such as {_example(high)}; 255 if they are meant to be dark"
        )
    return 1.0 if high == 1 else 255.0


def _brightest(photos: Named, enough: float) -> tuple[float, str]:
    """The largest value of photos and the photo that has it; once one is above `enough`, no further photo is opened."""
    brightest = (-1, "")
    for name, content in photos:
        with contextlib.suppress(InvalidInput):  # one that cannot be decoded is named where it is needed
            brightest = max(brightest, (int(images.decode(content, None, 3, name).max()), name))
        if brightest[0] > enough:
            break
    return brightest


def _files(count: int) -> str:
    return f"{count:,} file{'s' * (count != 1)}"


def _example(high: float) -> str:
    """The least usual value of white that is not below the largest value."""
    if 16 <= high <= DIM:  # classes of pixels, or a few levels of gray
        return f"{high:.0f}"
    return f"{next((2**depth - 1 for depth in (1, 4, *DEPTHS, 24, 32) if high < 2**depth), high):.0f}"
