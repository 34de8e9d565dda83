"""Change training examples at random: one resampling for all geometric changes, lookup tables for changes of tone.

Sounds and arrays have fewer changes than photos: a mirrored photo keeps its meaning, a sound played backwards does not.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from tlkit.errors import InvalidInput

cv2.setNumThreads(1)  # several photos are changed at the same time, so no core is left for threads within one

STRONGEST = {
    "identity": (0.0, 0.0),
    "shear_x": (0.3, 0.99),
    "shear_y": (0.3, 0.99),
    "translate_x": (150 / 331, 32 / 224),
    "translate_y": (150 / 331, 32 / 224),
    "rotate": (30.0, 135.0),
    "brightness": (0.9, 0.99),
    "color": (0.9, 0.99),
    "contrast": (0.9, 0.99),
    "sharpness": (0.9, 0.99),
    "posterize": (4.0, 6.0),
    "solarize": (256.0, 256.0),
    "autocontrast": (0.0, 0.0),
    "equalize": (0.0, 0.0),
}
"""The strength of each operation at magnitude 30, for RandAugment and for TrivialAugment Wide, as in torchvision:
shares of the side for translations, degrees for rotations, bits for posterize, levels for solarize."""
MIXING = ("mixup", "cutmix")  # changes that need a whole batch
_LEVELS = np.arange(256.0)
_ONE_WAY = ("posterize", "solarize")  # all others go in both directions
_GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13  # the blur of Pillow's sharpness


def augment(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    flip: bool = False,
    rotation: float = 0.0,
    zoom: float = 0.0,
    shift: float = 0.0,
    brightness: float = 0.0,
    contrast: float = 0.0,
    crop: float = 1.0,
    policy: str = "none",
    magnitude: float = 9.0,
    erasing: float = 0.0,
) -> np.ndarray:
    """Change a photo at random; each amount is drawn uniformly from its range.

    Beyond its border the photo is mirrored: black corners would teach the network about the augmentation. All geometric
    changes, including those of a policy, are one resampling. The same numbers are drawn whatever is switched on, so
    switching one change on leaves the others as they are.

    Args:
        image: The photo.
        rng: The source of random numbers.
        flip: Mirror left to right with probability 0.5.
        rotation: Maximum rotation to either side, in degrees.
        zoom: Maximum change of scale: 0.2 means a factor of 0.8 to 1.2.
        shift: Maximum shift, as a share of the height and of the width.
        brightness: Maximum change of brightness, as a share of the full range.
        contrast: Maximum relative change of the distance from mid-gray.
        crop: Minimum share of the area that a random crop keeps, with a ratio of width to height from 3/4 to 4/3,
            before it is enlarged to the whole; comes first (torchvision's RandomResizedCrop). 1 is no crop.
        policy: `randaugment`, two operations of one magnitude (arXiv:1909.13719); `trivialaugment`, one operation of a
            random magnitude (arXiv:2103.10158, the wide ranges); or `none`. Follows the changes above.
        magnitude: Of `randaugment`, from 0 to 30.
        erasing: Probability that a rectangle becomes noise: 2 to 33 % of the area, with a ratio of width to height from
            0.3 to 3.3; comes last (arXiv:1708.04896).

    Shapes:
        image: (height, width, 1 | 3), uint8
        returns: the same

    Raises:
        InvalidInput: there is no such policy.

    >>> image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    >>> rng = np.random.default_rng(1)
    >>> [bool((augment(image, rng, flip=True) == image[:, ::-1]).all()) for _ in range(4)]
    [False, False, True, True]
    """
    mirrored = bool(rng.random() < 0.5) and flip
    turn, scale, right, down, light, stretch = rng.uniform(-1, 1, 6)
    cut, operated, erased, whether = rng.random((11, 2)), rng.random((2, 3)), rng.random((11, 2)), rng.random()
    height, width, _ = image.shape
    size = (width, height)
    moves = [_crop(size, crop, cut)] if crop < 1 else []
    if mirrored:
        moves.append(np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]]))
    if rotation or zoom or shift:
        away = (right * shift * width, down * shift * height)
        moves.append(_warp(size, math.radians(turn * rotation), 1 + scale * zoom, away))
    operations = _operations(policy, magnitude, operated)
    moves += [_move(size, name, amount) for name, amount in operations if name in _GEOMETRIC]
    if mirrored and len(moves) == 1:
        image = cv2.flip(image, 1).reshape(image.shape)  # which is exact and takes a tenth of the time
    elif moves:
        image = _resample(image, moves)
    if brightness or contrast:
        image = _look_up(image, (_LEVELS - 127.5) * (1 + stretch * contrast) + 127.5 + 255 * light * brightness)
    for name, amount in operations:
        if name not in _GEOMETRIC:
            image = _tone(image, name, amount)
    return _erase(image, erased, rng) if whether < erasing else image


def augment_sound(
    sound: np.ndarray, rng: np.random.Generator, *, shift: float = 0.0, contrast: float = 0.0
) -> np.ndarray:
    """Change a sound at random, like `augment` does a photo; a shift leaves silence.

    Args:
        sound: The sound.
        rng: The source of random numbers.
        shift: Maximum shift in time, as a share of the length.
        contrast: Maximum relative change of the amplitude.

    Shapes:
        sound: (samples, channels), float32
        returns: the same

    >>> sound = np.ones((4, 1), np.float32)
    >>> augment_sound(sound, np.random.default_rng(0), shift=0.9)[:, 0].tolist()
    [0.0, 1.0, 1.0, 1.0]
    """
    later, louder = rng.uniform(-1, 1, 2)
    by = round(later * shift * len(sound))
    moved = np.zeros_like(sound)
    moved[max(0, by) : len(sound) + min(0, by)] = sound[max(0, -by) : len(sound) - max(0, by)]
    return moved * np.float32(1 + louder * contrast)


def augment_array(
    array: np.ndarray, rng: np.random.Generator, *, flip: bool | Sequence[int] = False, shift: float = 0.0
) -> np.ndarray:
    """Change an array, such as a volume, at random, like `augment` does a photo, but by whole positions.

    Args:
        array: The array.
        rng: The source of random numbers.
        flip: Mirror along each axis with probability 0.5, or only along the axes with these numbers, from 0.
        shift: Maximum shift along each axis, as a share of its length.

    Shapes:
        array: (*space, channels), any type
        returns: the same

    >>> array = np.arange(4).reshape(2, 2, 1)
    >>> augment_array(array, np.random.default_rng(0), flip=True)[..., 0].tolist()
    [[1, 0], [3, 2]]
    """
    space = array.ndim - 1
    mirrored = rng.random(space) < 0.5
    moves = rng.uniform(-1, 1, space)
    axes = range(space) if isinstance(flip, bool) else flip
    if flip is not False:
        array = np.flip(array, tuple(axis for axis in axes if mirrored[axis]))
    by = [round(move * shift * length) for move, length in zip(moves, array.shape, strict=False)]
    padded = np.pad(array, [(max(0, n), max(0, -n)) for n in by] + [(0, 0)], mode="symmetric")
    window = [slice(max(0, -n), max(0, -n) + length) for n, length in zip(by, array.shape, strict=False)]
    return padded[tuple(window)]


def switched_on(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the settings of `config.Augment` that change nothing.

    >>> switched_on({"flip": True, "rotation": 0.0, "crop": 1.0, "policy": "none", "magnitude": 9.0})
    {'flip': True}
    """
    off = {"crop": 1, "policy": "none"}
    left = {name: value for name, value in changes.items() if name == "magnitude" or (value and value != off.get(name))}
    if left.get("policy") != "randaugment":
        left.pop("magnitude", None)
    return left


def without_mixing(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the settings that change nothing and those that need a batch; what is left changes one example.

    >>> without_mixing({"flip": True, "rotation": 0.0, "mixup": 0.2})
    {'flip': True}
    """
    return {name: value for name, value in switched_on(changes).items() if name not in MIXING}


def mix(
    examples: np.ndarray,
    labels: np.ndarray | None,
    rng: np.random.Generator,
    *,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Mix each example of a batch, and its label, with another one of the batch.

    MixUp blends the two (arXiv:1710.09412); CutMix pastes a box of one into the other (arXiv:1905.04899). The share is
    drawn for each example. With both, each batch is mixed by one of them, with equal probability.

    Args:
        examples: Photos, sounds or arrays; they are not changed in place.
        labels: Probabilities of the classes, or None.
        rng: The source of random numbers.
        mixup: Alpha of MixUp: the share of the example is drawn from Beta(alpha, alpha); 0 is no MixUp.
        cutmix: Alpha of CutMix, likewise; labels are mixed by the share of the box that lies within the borders.

    Shapes:
        examples: (batch, *space, channels), uint8 (rounded) or float32
        labels: (batch, classes), float32
        returns: the same

    >>> examples, labels = np.array([[[0]], [[100]]], np.uint8), np.eye(2, dtype=np.float32)
    >>> mixed, shares = mix(examples, labels, np.random.default_rng(2), mixup=1)
    >>> mixed.ravel().tolist(), [f"{share:.2f}" for share in shares[:, 0]]
    ([87, 79], ['0.13', '0.21'])
    """
    count, (*space, _) = len(examples), examples.shape[1:]
    blend = bool(mixup) and (not cutmix or rng.random() < 0.5)
    partners, circle = np.empty(count, int), rng.permutation(count)
    partners[circle] = np.roll(circle, 1)  # no example is mixed with itself
    alpha = mixup if blend else cutmix
    shares = rng.beta(alpha, alpha, count) if alpha else np.ones(count)
    if blend:
        mixed = np.empty(examples.shape, examples.dtype)
        flat, into = examples.reshape(count, 1, -1), mixed.reshape(count, 1, -1)
        for place, (partner, share) in enumerate(zip(partners, shares.tolist(), strict=True)):
            cv2.addWeighted(flat[place], share, flat[partner], 1 - share, 0.0, dst=into[place])
    else:
        mixed, centres = examples.copy(), rng.random((count, len(space)))
        for place, partner in enumerate(partners):
            sides = np.array(space) * (1 - shares[place]) ** (1 / len(space))
            middle = centres[place] * space
            first, last = (np.clip(np.rint(middle + way * sides / 2), 0, space).astype(int) for way in (-1, 1))
            box = tuple(slice(*ends) for ends in zip(first, last, strict=True))
            mixed[place][box] = examples[partner][box]
            shares[place] = 1 - math.prod((last - first).tolist()) / math.prod(space)
    if labels is None:
        return mixed, None
    weights = shares[:, None].astype(np.float32)
    return mixed, weights * labels + (1 - weights) * labels[partners]


def _erase(image: np.ndarray, draws: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fill a random box with noise, in a copy of the photo."""
    box = _box((image.shape[1], image.shape[0]), (0.02, 0.33), (0.3, 3.3), draws)
    if box is None:
        return image
    left, top, across, along = box
    image = image.copy()
    hole = image[round(top) : round(top + along), round(left) : round(left + across)]
    hole[...] = np.frombuffer(rng.bytes(hole.size), np.uint8).reshape(hole.shape)
    return image


def _crop(size: tuple[int, int], least: float, draws: np.ndarray) -> np.ndarray:
    """The affine map that enlarges a random part of the photo to the whole."""
    width, height = size
    box = _box(size, (least, 1.0), (3 / 4, 4 / 3), draws)
    if box is None:  # like torchvision: the largest part in the middle with a ratio in this range
        across, down = min(width, height * 4 / 3), min(height, width * 4 / 3)
        box = ((width - across) / 2, (height - down) / 2, across, down)
    left, top, across, down = box
    return np.array([[across / width, 0, left], [0, down / height, top], [0, 0, 1]])


def _box(
    size: tuple[int, int], areas: tuple[float, float], ratios: tuple[float, float], draws: np.ndarray
) -> tuple[float, float, float, float] | None:
    """A random box (left, top, width, height) in the photo; None where none of ten fits.

    Args:
        size: Of the photo, (width, height).
        areas: Minimum and maximum share of the photo's area.
        ratios: Minimum and maximum ratio of width to height.
        draws: Numbers from 0 to 1, (11, 2): area and ratio of each try, then the position.
    """
    width, height = size
    narrow, wide = math.log(ratios[0]), math.log(ratios[1])
    *tries, (right, down) = draws.tolist()
    for area, ratio in tries:
        pixels = width * height * (areas[0] + area * (areas[1] - areas[0]))
        root = math.exp((narrow + ratio * (wide - narrow)) / 2)
        across, along = math.sqrt(pixels) * root, math.sqrt(pixels) / root
        if across <= width and along <= height:
            return right * (width - across), down * (height - along), across, along
    return None


def _operations(policy: str, magnitude: float, draws: np.ndarray) -> list[tuple[str, float]]:
    """The operations that a policy draws, each with its amount."""
    if policy == "none":
        return []
    if policy not in ("randaugment", "trivialaugment"):
        raise InvalidInput(f"policy is {policy!r}: none, randaugment or trivialaugment")
    trivial = policy == "trivialaugment"
    operations = []
    for which, strength, way in draws[:1] if trivial else draws:
        name = list(STRONGEST)[int(which * len(STRONGEST))]
        share = int(strength * 31) / 30 if trivial else magnitude / 30
        operations.append((name, STRONGEST[name][trivial] * share * (-1 if way < 0.5 and name not in _ONE_WAY else 1)))
    return operations


def _warp(size: tuple[int, int], angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    """The affine map (3, 3) from the new position of a pixel to its old one, both as (x, y) from 0 to `size`."""
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    return _about_centre(size, ((cos, sin), (-sin, cos)), shift)


def _about_centre(
    size: tuple[int, int], turn: Sequence[Sequence[float]], shift: tuple[float, float] = (0, 0)
) -> np.ndarray:
    x, y = size[0] / 2, size[1] / 2
    (a, b), (c, d) = turn
    right, down = x + shift[0], y + shift[1]
    return np.array([[a, b, x - a * right - b * down], [c, d, y - c * right - d * down], [0, 0, 1]])


def _move(size: tuple[int, int], name: str, amount: float) -> np.ndarray:
    """The affine map of a geometric operation of a policy."""
    if name == "rotate":
        return _warp(size, math.radians(amount), 1, (0, 0))
    along = name.endswith("x")
    if name.startswith("shear"):
        return _about_centre(size, ((1, amount if along else 0), (0 if along else amount, 1)))
    return _about_centre(size, ((1, 0), (0, 1)), (amount * size[0], 0) if along else (0, amount * size[1]))


def _resample(image: np.ndarray, moves: Sequence[np.ndarray]) -> np.ndarray:
    """Apply all maps in `moves`, in order, in one resampling."""
    height, width, _ = image.shape
    warp = functools.reduce(np.matmul, moves)[:2]
    warp[:, 2] += (warp[:, :2].sum(axis=1) - 1) / 2  # OpenCV's origin is the middle of the first pixel
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, warp, (width, height), flags=how, borderMode=cv2.BORDER_REFLECT).reshape(image.shape)


def _tone(image: np.ndarray, name: str, amount: float) -> np.ndarray:
    """Apply an operation of a policy that moves no pixel, like Pillow."""
    factor = 1 + amount
    if name == "brightness":
        return _look_up(image, _LEVELS * factor)
    if name == "contrast":
        gray = image if image.shape[-1] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return _look_up(image, _LEVELS * factor - amount * round(cv2.mean(gray)[0]))
    if name == "color" and image.shape[-1] == 3:
        gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        return cv2.addWeighted(image, factor, gray, -amount, 0.0)
    if name == "sharpness":
        kernel = -amount * _SMOOTH
        kernel[1, 1] += factor
        return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT).reshape(image.shape)
    if name == "posterize":
        lost = round(amount)
        return _look_up(image, (_LEVELS.astype(int) >> lost) << lost)
    if name == "solarize":
        return _look_up(image, np.where(_LEVELS + amount < 256, _LEVELS, 255 - _LEVELS))
    if name in ("autocontrast", "equalize"):
        tables = _stretched if name == "autocontrast" else _equalized
        counts = [cv2.calcHist([plane], [0], None, [256], [0, 256]).ravel() for plane in cv2.split(image)]
        return _look_up(image, np.stack([tables(each) for each in counts], axis=-1))
    return image  # identity, or the color of a grayscale photo


def _look_up(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Replace each level by the value at its place in `values`, (256,) for all channels or (256, channels)."""
    table = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return cv2.LUT(image, table.reshape(1, 256, -1) if table.ndim > 1 else table).reshape(image.shape)


def _stretched(counts: np.ndarray) -> np.ndarray:
    """The lookup table of `PIL.ImageOps.autocontrast`: the darkest level becomes 0, the lightest 255."""
    first, last = np.flatnonzero(counts)[[0, -1]]
    if first == last:
        return _LEVELS
    return np.floor((_LEVELS - first) * (255 / (last - first)))


def _equalized(counts: np.ndarray) -> np.ndarray:
    """The lookup table of `PIL.ImageOps.equalize`: all levels become about equally frequent."""
    occurring = counts[counts > 0]
    step = int(occurring.sum() - occurring[-1]) // 255
    if not step:
        return _LEVELS
    return (step // 2 + np.concatenate([[0], np.cumsum(counts[:-1])])) // step
