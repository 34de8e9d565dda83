"""Probes: classifiers on fixed features, solved and not trained.

Features have a `shape` (examples, features) and a length, and their slices `features[start:stop]` are arrays: an array,
a `np.memmap`, or an object that reads a file. They may be larger than memory, and are read in slices.
"""

from tlkit.probes.evidence import logme
from tlkit.probes.features import Features
from tlkit.probes.kernel import kernel_ridge
from tlkit.probes.logistic import CLEAR, PATH, SAMPLE, Probe, Tried, chosen, logistic_regression
from tlkit.probes.neighbours import nearest_neighbours

__all__ = [
    "CLEAR", "PATH", "SAMPLE", "Features", "Probe", "Tried", "chosen", "kernel_ridge", "logistic_regression", "logme",
    "nearest_neighbours",
]  # fmt: skip
