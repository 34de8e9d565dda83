"""Decode photos: one decoder for training, `predict` and the server, so that a file always gives the same pixels."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import threading
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from tlkit.data import bits, headers
from tlkit.data.contents import Content, Piece, read
from tlkit.data.resizing import RESIZES, Resize, least_side, resized
from tlkit.display import shown
from tlkit.errors import InvalidInput
from tlkit.untrusted import check_memory

DECODER = 1  # raise it when `decode` begins to return other pixels: stored features are found by it
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
VARIABLE = "TLKIT_MAX_PIXELS"
PIXELS = 2**26  # maximum of a photo, unless VARIABLE is set: a PNG of 200 kB may have them and take 0.6 GB to decode
PASSES = 32  # maximum passes over the allowed pixels for a JPEG: progressive ones need 10, in CMYK 18
LARGE = 2**24  # pixels from which on a photo waits until others are decoded
# Only these readers are tried, whatever the suffix: some others of Pillow run programs (EPS).
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def version() -> str:
    """Return everything that decoded pixels may depend on."""
    return f"{DECODER}, pillow {metadata.version('pillow')}"


def decode(
    content: Content,
    size: tuple[int, int] | None = None,
    channels: int = 3,
    name: str | None = None,
    resize: Resize = "squash",
    white: float | None = None,
) -> np.ndarray:
    """Decode a photo, turn it upright, and bring it to a size and a number of channels.

    The format follows from the content, not from the suffix. The first frame of an animation is decoded. Transparent
    pixels become white, the usual background; dropping alpha would uncover arbitrary colors. Values with more than 8
    bits are scaled from `white` to 8 bits. Color profiles are not applied. The resize is bilinear with antialiasing:

    - `squash` squeezes the whole photo into `size`, without regard to its aspect ratio;
    - `center` keeps the aspect ratio and cuts out the center, as much of it as `size` has room for: of a square `size`,
      the central square of the photo;
    - `crop` cuts out 7/8 of that, as networks for ImageNet are usually tested;
    - `pad` keeps the aspect ratio and the whole photo, in the middle, and fills the rest with gray (128), which is
      close to zero after the preprocessing of most pretrained networks, as the border that their convolutions add.

    A large JPEG is decoded at a half, quarter or eighth of its size, but at least at twice what the resize needs: three
    times faster on a 12-megapixel photo, and squeezed to 224 x 224 the pixels differ by 0.2 of 255 levels on average.

    Pixels are counted before any are decoded: at most `PIXELS`, or the value of the environment variable
    TLKIT_MAX_PIXELS. For a JPEG, the pixels that it is decoded to count, unless its file needs several passes
    (progressive); the pixels of a WebP count three times.

    Args:
        content: A file, its bytes, or pixels.
        size: Height and width in pixels; None keeps the photo's own.
        channels: 1 for grayscale, 3 for RGB.
        name: What errors call the photo; by default its path.
        resize: How the photo is brought to `size`.
        white: Of a file with more than 8 bits: the value that is white, by default 65535. In a file with 8 bits, 255 is
            white, unless `white` is 31 or less and none of its values is above it, as in masks of 0 and 1. In pixels,
            255 is white.

    Shapes:
        returns: (height, width, channels), uint8

    Raises:
        InvalidInput: the photo is missing, damaged, not an image, has more pixels than are allowed, or values above
            white.

    >>> decode(np.array([[0, 255]], np.uint8), size=(2, 2), channels=3)[..., 0].tolist()
    [[0, 255], [0, 255]]
    >>> decode(np.array([[0, 255]], np.uint8), size=(2, 2), channels=1, resize="pad")[..., 0].tolist()
    [[0, 255], [128, 128]]
    """
    if channels not in (1, 3):
        raise InvalidInput(f"channels is {channels!r}: 1 for grayscale or 3 for RGB")
    if resize not in RESIZES:
        raise InvalidInput(f"resize is {resize!r}: give one of {', '.join(RESIZES)}")
    bits.check_white(white)
    try:
        pixels = np.array(_decoded(content, size, "L" if channels == 1 else "RGB", resize, white))
    except Exception as error:  # Pillow's readers raise almost anything on a damaged file, struct.error to SyntaxError
        raise InvalidInput(f"{_name(content, name)}: {_reason(error)}") from error
    return pixels[..., None] if channels == 1 else pixels


def value_range(content: Content, name: str | None = None) -> bits.Range | None:
    """Return the range of the values of a photo with more than 8 bits, whose file does not say which value is white.

    Args:
        content: As for `decode`.
        name: As for `decode`.

    Returns:
        None where a value has 8 bits or less, which the header shows: such a photo is not decoded.

    Raises:
        InvalidInput: as for `decode`.
    """
    if not isinstance(content, bytes) or headers.bits(content) <= 8:
        return None
    try:
        image, room, _ = _open(content, None)
        with _turn(2 * room):
            low = bits.lower_bytes(_open(content, None)[0]) if bits.has_deep_colors(image) else None
            return bits.range_of_photo(image, low)
    except Exception as error:
        raise InvalidInput(f"{_name(content, name)}: {_reason(error)}") from error


def work(
    content: bytes, size: tuple[int, int] | None = None, name: str | None = None, resize: Resize = "squash"
) -> int:
    """Estimate the work of decoding a photo from its header, as pixels of a PNG that take as long.

    Args:
        content: Of its file.
        size: As for `decode`.
        name: As for `decode`.
        resize: As for `decode`.

    Raises:
        InvalidInput: `decode` would refuse it because of its header.
    """
    try:
        _, room, passes = _open(content, least_side(size, resize))
    except Exception as error:
        raise InvalidInput(f"{_name(content, name)}: {_reason(error)}") from error
    return room + passes // 32


def limit() -> int:
    """Return the maximum number of pixels of a photo.

    Raises:
        InvalidInput: the environment variable TLKIT_MAX_PIXELS is not a number above 0.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return PIXELS
    if not text.isascii() or not text.isdigit() or not 0 < len(text) < 16 or not int(text):
        raise InvalidInput(f"{VARIABLE} is {shown(text)!r}; give the number of pixels that a photo may have")
    return int(text)


def _name(content: Content, name: str | None) -> str:
    return name or (str(content) if isinstance(content, Path) else "the image")


def _decoded(
    content: Content, size: tuple[int, int] | None, mode: str, resize: Resize, white: float | None
) -> Image.Image:
    image, room, _ = _open(content, least_side(size, resize))
    deep_colors = white is not None and bits.has_deep_colors(image)
    with _turn(2 * room if deep_colors else room):
        low = bits.lower_bytes(_open(content, None)[0]) if deep_colors else None
        inverted = bits.is_inverted(image)
        image.load()
        orientation = _orientation(image)  # after `load`, which turns a TIFF by itself and then forgets the tag
        photo = bits.flat(image, mode, None if isinstance(content, np.ndarray) else white, inverted, low)
        del image, low  # before another copy is made
        if orientation in _UPRIGHT:
            photo = photo.transpose(_UPRIGHT[orientation])
        return resized(photo, size, resize) if size else photo


def _open(content: Content, least: int | None) -> tuple[Image.Image, int, int]:
    """A photo that is not decoded yet, the pixels it takes memory for, and the pixels of all passes.

    With `least`, a JPEG may be decoded smaller, but no side below that.
    """
    if isinstance(content, np.ndarray):
        if content.dtype != np.uint8 or content.ndim not in (2, 3):
            raise ValueError(f"pixels are {content.dtype} {content.shape}: give uint8 (H, W) or (H, W, channels)")
        return Image.fromarray(content[..., 0] if content.ndim == 3 and content.shape[-1] == 1 else content), 0, 0
    if isinstance(content, Path):
        check_memory(content.stat().st_size, "the file")
    if isinstance(content, Path | Piece):
        content = read(content)
    if not content:
        raise ValueError("the file is empty (0 bytes)")
    most, header = limit(), headers.read(content)
    if not header.scaled:
        _check(header.width, header.height, 1, most)
    try:
        image = _identified(content)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"more pixels than Pillow allows ({error})") from error
    return image, *_counted(image, header, most, least, len(content))


def _identified(data: bytes) -> Image.Image:
    """Like `Image.open`, whose own limit of pixels can only be changed by a global variable."""
    Image.preinit()  # the common formats, which is quick
    for name in FORMATS:
        if name not in Image.OPEN:
            Image.init()
        factory, accept = Image.OPEN[name]
        try:
            if accept is None or accept(data[:16]) is True:
                return factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
    raise UnidentifiedImageError


def _counted(image: Image.Image, header: headers.Header, most: int, least: int | None, length: int) -> tuple[int, int]:
    """The pixels that decoding takes memory for, and those of all passes."""
    width, height = max(image.width, header.width), max(image.height, header.height)
    passes = width * height * header.scans
    if (header.scaled or header.scans > 1) and passes > PASSES * most:
        scans = f" in {header.scans} scans" if header.scans > 1 else ""
        raise TooLarge(
            f"{width:,} x {height:,} pixels{scans}, more than {PASSES} times the {most:,} that {VARIABLE} allows"
        )
    if least:
        image.draft(None, (least, least))  # only JPEGs support it
    if header.scaled:
        width, height = image.size
    times = 3 if image.format == "WEBP" else 1  # its reader keeps four copies of the photo and more
    _check(width, height, times, most)
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        _check(tags.get(322, 0), tags.get(323, 0), 1, most)  # a tile may be larger than the photo
    tiles = getattr(image, "tile", None)
    if tiles and tiles[0][0] == "bmp_rle" and max(width * height, length) > 2**22:
        raise ValueError(f"a run-length encoded BMP of more than {2**22:,} pixels: save it as PNG")
    room = times * width * height
    if room > LARGE:
        check_memory(8 * room, f"a photo of {width:,} x {height:,} pixels")
    return room, passes


def _check(width: int, height: int, times: int, most: int) -> None:
    if times * width * height > most:
        webp = " of WebP, which count three times" if times > 1 else ""
        raise TooLarge(f"{width:,} x {height:,} pixels{webp}, more than the {limit():,} that {VARIABLE} allows")


class TooLarge(ValueError):
    """A photo has more pixels than are allowed: the cause of the InvalidInput that `decode` and `work` raise."""


class _Turns:
    """Limit the number of large photos that threads decode at the same time, so that they do not fill the memory."""

    def __init__(self) -> None:
        self.free, self.used = threading.Condition(), 0

    @contextlib.contextmanager
    def __call__(self, room: int) -> Iterator[None]:
        if room <= LARGE:
            yield
            return
        most = max(limit(), (os.cpu_count() or 1) * LARGE)
        with self.free:
            self.free.wait_for(lambda: not self.used or self.used + room <= most)
            self.used += room
        try:
            yield
        finally:
            with self.free:
                self.used -= room
                self.free.notify_all()


_turn = _Turns()


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF beside good pixels: like browsers, leave the photo as it is stored
        return 1


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a JPEG, PNG, GIF, BMP, WebP or TIFF image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


class Properties(NamedTuple):
    """What the header of a photo says, or the shape of pixels.

    Args:
        height: In pixels, of the upright photo.
        width: Likewise.
        channels: `gray`, `RGB`, `palette` or another name of what a pixel holds.
        bits: Of a channel.
        format: Such as `JPEG`; `pixels` where there is no file.
    """

    height: int
    width: int
    channels: str
    bits: int
    format: str


def properties(content: Content, name: str | None = None) -> Properties:
    """Read a photo's size, channels, bits and format without decoding it.

    Raises:
        InvalidInput: as for `decode`, where it follows from the header.

    >>> properties(np.zeros((6, 8, 3), np.uint8))
    Properties(height=6, width=8, channels='RGB', bits=8, format='pixels')
    """
    name = _name(content, name)
    try:
        content = read(content)
        image, *_ = _open(content, None)
    except Exception as error:  # as in `decode`
        raise InvalidInput(f"{name}: {_reason(error)}") from error
    channels = {"1": "gray", "L": "gray", "I": "gray", "F": "gray", "LA": "gray and alpha", "P": "palette"}
    kind = "gray" if image.mode.startswith("I;") else channels.get(image.mode, image.mode)
    depth = 1 if image.mode == "1" else headers.bits(content) if isinstance(content, bytes) else 8
    size = image.size if _orientation(image) in (5, 6, 7, 8) else image.size[::-1]  # these lie on their side
    several = image.format == "TIFF" and image.tag_v2.next  # type: ignore[attr-defined]
    return Properties(
        *size, kind, depth, f"{image.format or 'pixels'}{' (the first of several pages)' * bool(several)}"
    )
