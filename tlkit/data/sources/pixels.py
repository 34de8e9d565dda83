"""Arrays that are photos in another form: channels first, floating-point numbers, wide integers, RGBA."""

from __future__ import annotations

import numpy as np

from tlkit.data import bits, images
from tlkit.data.white import of_8_bits, white_of
from tlkit.errors import InvalidInput

SPACE = 5  # least height and width by which an axis of 1 or 3 before them is known as that of channels
OPAQUE = 0.9  # share of a fourth channel that is 0 or white, if it is transparency and not infrared
PART = 256  # photos converted at a time

Arrays = dict[str, np.ndarray]


def channels_last(parts: Arrays) -> tuple[Arrays, list[str]]:
    """Move the channels to the end where they come first, (n, 1 | 3, height, width): no volume is 3 deep.

    Returns:
        The arrays, and a line that says so where they were moved.

    >>> channels_last({"train": np.zeros((2, 3, 8, 8))})[0]["train"].shape
    (2, 8, 8, 3)
    """
    first = next(iter(parts.values()))
    if not all(
        part.ndim == 4 and min(part.shape[2:]) >= SPACE and (part.shape[1] in (1, 3) or _has_alpha(part, 1))
        for part in parts.values()
    ):
        return parts, []
    count = first.shape[1]
    note = (
        f"train_images is {first.dtype} {first.shape}: its second axis is taken for {count} "
        f"channel{'s' * (count > 1)}; volumes {count} deep need an axis of 1 channel at the end"
    )
    return {split: np.ascontiguousarray(np.moveaxis(part, 1, -1)) for split, part in parts.items()}, [note]


def photos(parts: Arrays, white: float | None = None) -> tuple[Arrays, float | None, list[str]]:
    """Make photos, uint8, of arrays whose range shows that they are photos, or which are said to be.

    Args:
        parts: The arrays of each split, of one shape.
        white: The setting `data.white`: the arrays are photos, and this value is white in them.

    Shapes:
        parts: (n, height, width, 1 | 3 | 4); uint8, or with `white`, also (n, height, width)
        returns: (n, height, width, 1 | 3) or (n, height, width) where they are photos, else as they were

    Returns:
        The arrays, the value that was white in them (None if they are no photos), and lines that say what was taken
        for granted.

    Raises:
        InvalidInput: `white` is given and not all values lie between 0 and it; or pixels are nearly black.

    >>> made, white, notes = photos({"train": np.array([[[[0.0], [0.5], [1.0]]]])})
    >>> made["train"].ravel().tolist(), white
    ([0, 128, 255], 1.0)
    """
    first = next(iter(parts.values()))
    ready, flat = first.dtype == np.uint8, first.ndim == 3 or (first.ndim == 4 and first.shape[-1] in (1, 3, 4))
    if first.dtype.kind not in "uif" or not flat:
        if white is not None:
            raise InvalidInput(
                f"data.white is {bits.number(white)}, which is for numbers (n, height, width) or (n, height, width, "
                f"channels); train_images is {first.dtype} {first.shape}"
            )
        return parts, None, []
    if first.ndim == 3 and not ready and white is None:
        return parts, None, []
    low, high = (float(extreme([extreme(part) for part in parts.values()])) for extreme in (np.min, np.max))
    what = f"train_images is {first.dtype} {first.shape} with values from {bits.number(low)} to {bits.number(high)}"
    if white is not None and not 0 <= low <= high <= white <= (255 if ready else np.inf):
        raise InvalidInput(f"data.white is {bits.number(white)}, but {what}: photos lie between 0 and white")
    if white is None and first.dtype.kind == "f" and low >= 0:
        whites = {split: white_of(float(part.max()), True) for split, part in parts.items()}
        if {*whites.values()} >= {1, 255}:
            ends = ", ".join(f"{split}_images end at {bits.number(part.max())}" for split, part in parts.items())
            raise InvalidInput(f"the splits have different ranges ({ends}): bring them to one")
    most = white if white is not None else _white(parts, low, high)
    alpha = first.ndim == 4 and first.shape[-1] == 4
    if most is None or (alpha and not all(_has_alpha(part, -1, most) for part in parts.values())):
        return parts, None, [f"{what}, which are taken for arrays and not for photos: {_remedy(low, alpha)}"]
    if ready and most == 255 and not alpha:
        return parts, most, []
    made = {split: _made(part, most) for split, part in parts.items()}
    line = f"{what}: photos{' with transparency' * alpha}, in which {bits.number(most)} is white"
    line += ", as data.white says" if white is not None else "; data.white says otherwise"
    return made, float(most), [line]


def _white(parts: Arrays, low: float, high: float) -> float | None:
    """The value of white, if the range of the values shows that they are photos."""
    first = next(iter(parts.values()))
    if first.dtype == np.uint8:
        return 255.0 if first.shape[-1] == 4 else of_8_bits(high, None, "train_images", "train_images")
    if not np.isfinite([low, high]).all() or low < 0:
        return None
    white = white_of(high, first.dtype.kind == "f")
    if first.dtype.kind == "f" and white == 255 and high <= 127.5 and not all(map(_is_whole, parts.values())):
        return None  # measurements may lie there too
    return white and float(white)


def _is_whole(part: np.ndarray) -> bool:
    return all(bool((piece == np.rint(piece)).all()) for piece in _pieces(part))


def _pieces(part: np.ndarray) -> list[np.ndarray]:
    return [part[start : start + PART] for start in range(0, len(part), PART)]


def _has_alpha(part: np.ndarray, axis: int, white: float | None = None) -> bool:
    """Whether the last of four channels is transparency: nearly everywhere 0 or white, unlike the other three."""
    if part.shape[axis] != 4:
        return False
    extremes = np.isin(part, (0, white or part.max()))
    return bool(extremes.take(3, axis).mean() >= OPAQUE and not extremes.all())


def _made(part: np.ndarray, white: float) -> np.ndarray:
    pieces = [bits.scaled(piece, white) for piece in _pieces(part)]
    if part.ndim == 4 and part.shape[-1] == 4:
        pieces = [np.stack([images.decode(photo) for photo in piece]) for piece in pieces]
    return np.concatenate(pieces)


def _remedy(low: float, alpha: bool) -> str:
    if low < 0:
        return "a pretrained backbone takes pixels from 0, so undo the standardization"
    if alpha:
        return "the fourth channel is no transparency; photos have 1 or 3"
    return "if they are photos, say by data.white which value is white"
