"""What each file is, before any training: its size, channels and bits, and whether anything is to be seen in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tlkit.data import Examples, images, modalities, sounds
from tlkit.data.contents import Content, read
from tlkit.data.modalities import Reading
from tlkit.data.opening import for_each
from tlkit.data.photos import file_format
from tlkit.data.split import content_hash
from tlkit.errors import InvalidInput

SMALL, LARGE = (64, 64, 3), (512, 512, 3)  # shapes at which photos are looked at: at the second only if need be
BLANK = 3.0  # standard deviation, of 255 levels, below which a photo is nearly blank
UNSURE = 8.0  # at the small size, where fine textures are averaged away
SILENT = 1e-4  # standard deviation below which a sound is silent; 16 bits end at 3e-5


class Seen(NamedTuple):
    """What is known of one example.

    Args:
        hash: SHA-256 of its content; "" where it cannot be read.
        size: (height, width) of a photo, (samples,) of a sound, the shape of an array; () where it is damaged.
        form: Its format in words, such as `JPEG, RGB, 8 bits`.
        spread: Standard deviation of its values, of a photo that of the channel with the highest.
        blank: Whether nothing, or nearly nothing, is to be seen in it.
        problem: Why it cannot be decoded, or "".
    """

    hash: str = ""
    size: tuple[int, ...] = ()
    form: str = ""
    spread: float = 0.0
    blank: bool = False
    problem: str = ""


def survey(examples: Examples, reading: Reading | None = None) -> list[Seen]:
    """Look at every example once; none is kept in memory.

    Args:
        examples: What a source lists.
        reading: How files become examples.

    >>> from tlkit.data import load_source
    >>> survey(load_source("embedded"))[0].size
    (8, 8)
    """
    reading = (reading or Reading())._replace(resize="squash")  # all of a photo is looked at
    seen = [Seen()] * len(examples.names)

    def look(index: int) -> None:
        seen[index] = _look(examples, index, reading)

    for_each(look, range(len(seen)), f"looking at {examples.kind}", examples.kind, examples.contents)
    return seen


def _look(examples: Examples, index: int, reading: Reading) -> Seen:
    content, name = examples.contents[index], examples.names[index]
    try:
        content = read(content)
    except (OSError, InvalidInput) as error:
        return Seen(problem=f"{name}: {getattr(error, 'strerror', None) or error}")
    hash_ = content_hash(content)
    look = {"photos": _photo, "sounds": _sound}.get(examples.kind, _array)
    try:
        return look(content, name, reading)._replace(hash=hash_)
    except InvalidInput as error:
        return Seen(hash_, problem=str(error))


def _photo(content: Content, name: str, reading: Reading) -> Seen:
    header = images.properties(content, name)
    spread = _spread(content, SMALL, name, reading)
    if spread < UNSURE:
        spread = _spread(content, LARGE, name, reading)
    form = f"{header.format}, {header.channels}, {header.bits} bit{'s' if header.bits > 1 else ''}"
    return Seen("", (header.height, header.width), form, spread, spread < BLANK)


def _spread(content: Content, shape: tuple[int, ...], name: str, reading: Reading) -> float:
    pixels = file_format(modalities.PHOTOS).decode(content, shape, name, reading)
    return float(pixels.std(axis=(0, 1), dtype=np.float64).max())


def _sound(content: Content, name: str, reading: Reading) -> Seen:
    if not isinstance(content, bytes):
        raise InvalidInput(f"{name}: no file of a sound")
    sound, rate = sounds.decode(content, None, name), sounds.rate(content)
    spread = float(sound.std(dtype=np.float64)) if len(sound) else 0.0
    return Seen("", (len(sound),), f"{rate:,} samples a second", spread, spread < SILENT)


def _array(content: Content, name: str, reading: Reading) -> Seen:
    values = np.asarray(content)
    return Seen("", values.shape, str(values.dtype), float(values.std(dtype=np.float64)), values.min() == values.max())
