"""Change training examples at random: one resampling for all geometric changes, lookup tables for changes of tone.

Sounds and arrays have fewer changes than photos: a mirrored photo keeps its meaning, a sound played backwards does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from tlkit.data.operations import (
    GEOMETRIC,
    LEVELS,
    affine_map,
    change_tone,
    crop_map,
    draw_operations,
    erase,
    look_up,
    move_map,
    resample,
)

MIXING = ("mixup", "cutmix")  # changes that need a whole batch


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
    moves = [crop_map(size, crop, cut)] if crop < 1 else []
    if mirrored:
        moves.append(np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]]))
    if rotation or zoom or shift:
        away = (right * shift * width, down * shift * height)
        moves.append(affine_map(size, math.radians(turn * rotation), 1 + scale * zoom, away))
    operations = draw_operations(policy, magnitude, operated)
    moves += [move_map(size, name, amount) for name, amount in operations if name in GEOMETRIC]
    if mirrored and len(moves) == 1:
        image = cv2.flip(image, 1).reshape(image.shape)  # which is exact and takes a tenth of the time
    elif moves:
        image = resample(image, moves)
    if brightness or contrast:
        image = look_up(image, (LEVELS - 127.5) * (1 + stretch * contrast) + 127.5 + 255 * light * brightness)
    for name, amount in operations:
        if name not in GEOMETRIC:
            image = change_tone(image, name, amount)
    return erase(image, erased, rng) if whether < erasing else image


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
