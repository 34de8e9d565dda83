"""Whether heatmaps are true: what a class loses when the marked part of an example is hidden, beside a random part."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tlkit.explanation.pictures import resized


class Deletion(NamedTuple):
    """What hiding a part of each example costs the probability of its class.

    Args:
        marked: (examples,), what hiding the part that the heatmap marks costs.
        random: (examples,), what hiding a part of the same size and shape at a random place costs.
    """

    marked: np.ndarray
    random: np.ndarray


def deletion(
    predict: Callable[[np.ndarray], np.ndarray],
    examples: np.ndarray,
    heat: np.ndarray,
    classes: np.ndarray,
    share: float = 0.1,
    seed: int = 0,
) -> Deletion:
    """Hide the hottest share of each example, and the same shape at a random place, by the example's mean.

    A random part of scattered cells would be noise, which costs more than what it hides. So the other part is the
    marked one moved by a random distance along each axis, across the border to the other side.

    Args:
        predict: From examples to probabilities, (batch, classes).
        examples: (batch, *space, channels).
        heat: (batch, *cells).
        classes: (batch,), the class of each.
        share: Share of the cells that is hidden.
        seed: Decides the random places.
    """
    rng, space = np.random.default_rng(seed), examples.shape[1:-1]
    marked, moved = examples.copy(), examples.copy()
    for one, other, values in zip(marked, moved, heat, strict=True):
        ranks = resized(values, space) + 1e-6 * rng.random(space)
        count = max(1, round(share * ranks.size))
        hidden = ranks >= np.partition(ranks.ravel(), -count)[-count]
        shift = tuple(int(rng.integers(length)) for length in space)
        mean = one.mean(axis=tuple(range(len(space)))).astype(one.dtype)
        one[hidden], other[np.roll(hidden, shift, tuple(range(len(space))))] = mean, mean
    rows = np.arange(len(examples))
    whole, without, elsewhere = (predict(each)[rows, classes] for each in (examples, marked, moved))
    return Deletion(whole - without, whole - elsewhere)
