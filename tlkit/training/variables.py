"""Values of Keras variables, read and written back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

from tlkit.backbones.low_rank import FACTORS

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


def between(
    variables: Iterable[keras.Variable], old: Sequence[np.ndarray], new: Sequence[np.ndarray], share: float
) -> list[np.ndarray]:
    """Give values that are a share of the way from old to new ones.

    Low-rank factors are a kernel's change A B, and B is zero in the old values: B takes the share and A is the new one.

    >>> a, b = keras.Variable([[9.0]], name="lora_kernel_a"), keras.Variable([[0.0]], name="lora_kernel_b")
    >>> [value.item() for value in between([a, b], [np.array([[9.0]]), np.zeros((1, 1))], [np.ones((1, 1))] * 2, 0.5)]
    [1.0, 0.5]
    """
    return [
        after if variable.name == FACTORS[0] else before + share * (after - before)
        for variable, before, after in zip(variables, old, new, strict=True)
    ]
