"""Pictures of examples that stand in a page itself, as data URIs."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tlkit.data import Examples, Photos, modalities
from tlkit.data.contents import Piece
from tlkit.data.modalities import Reading
from tlkit.data.photos import file_format
from tlkit.errors import InvalidInput
from tlkit.pages import data_uri

SIDE = 144  # pixels of the longer side
Picture = Callable[[int], str]
"""From the position of an example to its picture, a data URI; "" where it cannot be drawn."""


def picture(values: np.ndarray) -> str:
    """Draw an example of any kind: a photo, the waveform of a sound or signal, the middle slice of a volume.

    Shapes:
        values: (*space, channels), uint8 as they are, others from their lowest to their highest value

    >>> picture(np.zeros((4, 4, 3), np.uint8))[:23]
    'data:image/jpeg;base64,'
    """
    while values.ndim > 3:
        values = values[len(values) // 2]
    if values.ndim == 2:
        return _wave(values[:, 0])
    if values.dtype != np.uint8:
        low, high = float(values.min()), float(values.max())
        values = ((values - low) * (255 / max(high - low, 1e-9))).astype(np.uint8)
    image = Image.fromarray(values[..., :3] if values.shape[-1] >= 3 else values[..., 0])
    if max(image.size) < SIDE // 2:  # small ones keep their pixels visible
        times = SIDE // max(image.size)
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return data_uri("image/jpeg", buffer.getvalue())


def _wave(signal: np.ndarray) -> str:
    """Draw the envelope of a signal."""
    columns = np.array_split(signal.astype(float), min(len(signal), SIDE))
    most = max(float(np.abs(signal).max()), 1e-9)
    points = [(x, (1 - part.max() / most) / 2, (1 - part.min() / most) / 2) for x, part in enumerate(columns)]
    lines = "".join(f"M{x} {top * 96:.1f}V{bottom * 96 + 0.5:.1f}" for x, top, bottom in points)
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} 97" width="{SIDE}" height="97">'
    return data_uri("image/svg+xml", f'{svg}<path d="{lines}" stroke="#4477aa" fill="none"/></svg>'.encode())


def of_examples(examples: Examples, sizes: list[tuple[int, ...]], shape: tuple[int, ...], reading: Reading) -> Picture:
    """Give pictures of what a source lists, each photo with its own aspect ratio.

    Args:
        examples: What the source lists.
        sizes: (height, width) of each photo.
        shape: Of the examples that files of other kinds become.
        reading: How files become examples.
    """
    reading = reading._replace(resize="squash")

    def draw(index: int) -> str:
        content, name, shape_ = examples.contents[index], examples.names[index], shape
        if not isinstance(content, Path | Piece | bytes) and examples.kind != "photos":
            return picture(np.asarray(content))
        if examples.kind == "photos":
            height, width = sizes[index] or (SIDE, SIDE)
            scale = min(1.0, SIDE / max(height, width))
            shape_ = (max(1, round(height * scale)), max(1, round(width * scale)), 3)
        try:
            return picture(file_format(modalities.row(examples.kind)).decode(content, shape_, name, reading))
        except (InvalidInput, OSError):
            return ""

    return draw


def of_photos(parts: list[Photos]) -> Picture:
    """Give pictures of the examples of several splits, one split after the other, as a network sees them."""
    places = [(part, index) for part in parts for index in range(len(part))]

    def draw(index: int) -> str:
        part, place = places[index]
        try:
            return picture(part.read([place])[0])
        except InvalidInput:
            return ""

    return draw
