"""Exports in int8: quantized by what the network computes of some examples, with probabilities calibrated anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tlkit.errors import InvalidInput
from tlkit.export.parity import Examples

LEAST = 1e-12  # probability of which a logarithm is taken


def quantize(name: str, path: Path, examples: Examples, several: bool) -> float:
    """Quantize an export in its place, and return the temperature of its probabilities."""
    raise InvalidInput(f"{name} in int8 is not there yet")


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divide the logarithms of probabilities that sum to 1 by a temperature, as predict.py does.

    Shapes:
        probabilities: (n, classes); (n, 1) stays as it is

    >>> tempered(np.array([[0.9, 0.1]]), 2.0).round(2).tolist()
    [[0.75, 0.25]]
    """
    if temperature == 1 or probabilities.shape[1] == 1:
        return probabilities
    powers = np.log(np.maximum(probabilities.astype(np.float64), LEAST)) / temperature
    powers = np.exp(powers - powers.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
