"""Heatmaps by hiding parts of an example, which need nothing but the model's probabilities."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

WINDOWS = {1: 32, 2: 12, 3: 6}  # positions of the window along each axis, by their number


def occlusion(predict: Callable[[np.ndarray], np.ndarray], example: np.ndarray, label: int) -> np.ndarray:
    """Hide a window of an example at many places, and return how much the class loses where a cell is hidden.

    Windows overlap by half and are filled with the example's mean (Zeiler and Fergus 2014, section 4.2).

    Args:
        predict: From (batch, *space, channels) to probabilities, (batch, classes).
        example: (*space, channels).
        label: The class.

    Shapes:
        returns: (*windows), not below 0

    >>> bright = lambda batch: np.stack([1 - batch[:, 9, 9, 0], batch[:, 9, 9, 0]], axis=1)
    >>> found = occlusion(bright, np.pad(np.ones((8, 8, 1)), ((8, 0), (8, 0), (0, 0))), 1)
    >>> np.unravel_index(found.argmax(), found.shape)[0] in (6, 7)
    True
    """
    space = example.shape[:-1]
    counts = [min(WINDOWS[len(space)], length) for length in space]
    mean = example.mean(axis=tuple(range(len(space))), keepdims=True).astype(example.dtype)
    places = list(itertools.product(*map(range, counts)))
    hidden = []
    for place in places:
        window = tuple(
            slice(max(0, length * at // count - length // (2 * count)),
                  max(length * at // count + 1, length * (at + 1) // count + length // (2 * count)))
            for at, length, count in zip(place, space, counts, strict=True)
        )  # fmt: skip
        one = example.copy()
        one[window] = np.broadcast_to(mean, one[window].shape)
        hidden.append(one)
    probabilities = predict(np.stack([example, *hidden]))
    losses = probabilities[0, label] - probabilities[1:, label]
    return np.maximum(losses, 0).reshape(counts)
