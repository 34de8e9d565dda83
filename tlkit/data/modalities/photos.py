"""Photos: files of pixels, resized to one height and width."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tlkit.data import bits, images, white
from tlkit.data.contents import Content
from tlkit.data.modalities.modality import Files, Framing, Modality, Reading, Requests, Shape, changed_by
from tlkit.errors import InvalidInput


def _frame(contents: Sequence[Content], names: Sequence[str], framing: Framing) -> tuple[Shape, None]:
    first = contents[0]
    if isinstance(first, np.ndarray):
        channels = first.shape[2] if first.ndim == 3 else 1
        return (*(framing.size or first.shape[:2]), framing.channels or channels), None
    if framing.size is None:
        raise InvalidInput("size is None: give height and width in pixels, to which photos in files are resized")
    return (*framing.size, framing.channels or 3), None


def _decode(content: Content, shape: Shape, name: str, reading: Reading) -> np.ndarray:
    return images.decode(content, (shape[0], shape[1]), shape[2], name, reading.resize, reading.white)


def _encode(pixels: np.ndarray, rate: int | None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


def _size(shape: Sequence[int | None]) -> tuple[int, int]:
    height, width, _ = shape
    if height is None or width is None:
        raise InvalidInput(f"the network takes photos of any size, {tuple(shape)}: a served one must have a size")
    return height, width


def _requested(
    content: bytes | np.ndarray, shape: tuple[int | None, ...], rate: int | None, name: str, reading: Reading
) -> np.ndarray:
    channels = shape[2] or 3
    if not isinstance(content, np.ndarray):
        return images.decode(content, _size(shape), channels, name, reading.resize, reading.white)
    if content.ndim != 3 or content.shape[2] not in (1, 3, 4):
        raise InvalidInput(f"{name} is an array of shape {content.shape}")
    if reading.white == 1 and content.min() >= 0 and content.max() <= 1:
        content = bits.scaled(content, 1)
    low, high = content.min(), content.max()
    whole = bool((content == np.rint(content)).all())
    if low < 0 or high > 255 or (high <= 1 and not whole):
        raise InvalidInput(f"{name} is an array of values from {low:.3g} to {high:.3g}")
    if content.shape == shape:
        return content
    if not whole:  # the decoder resizes whole pixel values, and any other resize would be another preprocessing
        size = " x ".join(map(str, shape))
        raise InvalidInput(f"{name} is of shape {content.shape} and has fractions: round it, or resize it to {size}")
    return images.decode(content.astype(np.uint8), _size(shape), channels, name, reading.resize, reading.white)


def _work(content: bytes, shape: tuple[int | None, ...], name: str, reading: Reading) -> int:
    return images.work(content, _size(shape), name, reading.resize)


PHOTOS = Modality(
    name="photos",
    singular="photo",
    input="pixels",
    files=Files(
        images.SUFFIXES, np.dtype(np.uint8), ("size", "channels"), _frame, _decode, images.value_range, white.choose
    ),
    changes=(
        "flip", "rotation", "zoom", "shift", "brightness", "contrast", "crop", "policy", "magnitude", "erasing",
        "mixup", "cutmix",
    ),
    augment=changed_by("augment"),
    mirrored=True,
    pretrained=True,
    predicted=True,
    draw=None,
    example_file="example.png",
    encode=_encode,
    requests=Requests(
        column="image",
        file="a JPEG, PNG, GIF, BMP, WebP or TIFF file",
        array="an array (height, width, channels) of pixel values from 0 to 255",
        decode=_requested,
        work=_work,
    ),
)  # fmt: skip
