"""Values of Keras variables, taken out and put back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np


def values(variables: Iterable[Any]) -> list[np.ndarray]:
    """Copy what the variables hold: on JAX a step takes the memory of what it updates.

    >>> [value.tolist() for value in values([keras.Variable([1.0, 2.0])])]
    [[1.0, 2.0]]
    """
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    """Put values into the variables.

    >>> variable = keras.Variable([1.0])
    >>> assign([variable], [np.array([3.0])])
    >>> values([variable])[0].tolist()
    [3.0]
    """
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
