"""Which examples are shown as mistakes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def worst(labels: Sequence[str], predicted: Sequence[str], shares: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the positions of the examples that are classified wrongly, those of the highest shares first.

    >>> worst(["a", "b", "b"], ["b", "a", "b"], [0.5, 0.9, 1.0]).tolist()
    [1, 0]
    """
    wrong = np.flatnonzero(np.asarray(labels) != np.asarray(predicted))
    return wrong[np.argsort(-np.asarray(shares)[wrong], kind="stable")]
