"""Values of Keras variables, read and written back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

Tensor: TypeAlias = Any  # of Keras' backend, each of which has a class of its own


def values(variables: Iterable[keras.Variable]) -> list[np.ndarray]:
    """Copy the values of variables.

    They are copied to the host, because on JAX a step takes over the memory of the arrays that it updates.

    >>> [value.tolist() for value in values([keras.Variable([1.0, 2.0])])]
    [[1.0, 2.0]]
    """
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    """Write values into variables.

    >>> variable = keras.Variable([1.0])
    >>> assign([variable], [np.array([3.0])])
    >>> values([variable])[0].tolist()
    [3.0]
    """
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
