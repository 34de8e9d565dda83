"""How a photo of any aspect ratio is brought to a size: squeezed, cut out of it, or framed."""

from __future__ import annotations

import math
from typing import Literal, get_args

from PIL import Image

Resize = Literal["squash", "center", "crop", "pad"]
"""How a photo is brought to a size of another aspect ratio; see `tlkit.data.images.decode`."""

RESIZES: tuple[Resize, ...] = get_args(Resize)
KEPT = {"center": 1.0, "crop": 0.875}  # share of the largest window that they keep; timm calls it crop_pct
GRAY = 128  # what `pad` fills with


def least_side(size: tuple[int, int] | None, resize: Resize) -> int | None:
    """Return the least that the shorter side of a JPEG must be decoded to: twice what the resize needs."""
    if size is None:
        return None
    return math.ceil(2 * max(size) / KEPT.get(resize, 1.0))


def resized(photo: Image.Image, size: tuple[int, int], resize: Resize) -> Image.Image:
    """Bring an upright photo to a size, (height, width), bilinear with antialiasing."""
    (height, width), bilinear = size, Image.Resampling.BILINEAR
    if resize in KEPT:  # the largest window of the size's aspect ratio, and so much of it
        window = min(photo.width, photo.height * width / height), min(photo.height, photo.width * height / width)
        left, top = (photo.width - KEPT[resize] * window[0]) / 2, (photo.height - KEPT[resize] * window[1]) / 2
        return photo.resize((width, height), bilinear, box=(left, top, photo.width - left, photo.height - top))
    if resize == "pad":
        scale = max(photo.width / width, photo.height / height)
        inner = max(1, round(photo.width / scale)), max(1, round(photo.height / scale))
        padded = Image.new(photo.mode, (width, height), (GRAY,) * len(photo.getbands()))
        padded.paste(photo.resize(inner, bilinear), ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return padded
    return photo.resize((width, height), bilinear)
