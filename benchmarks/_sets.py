"""Sets of photos and the features of three small networks on them, for several benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

NETWORKS = {"MobileNet 0.25": ("MobileNet", 0.25), "MobileNet 0.75": ("MobileNet", 0.75),
            "MobileNetV2 0.35": ("MobileNetV2", 0.35)}  # fmt: skip
SIZE = 224
DIGITS = "digits"


class Part(NamedTuple):
    """Features of a split.

    Args:
        features: Shape (photos, features), float32: averages of the last stage over all positions.
        labels: Shape (photos,).
        groups: A key for each photo, which equal ones share.
    """

    features: np.ndarray
    labels: np.ndarray
    groups: list[str]


class Measured(NamedTuple):
    """A set of photos, as a network sees it.

    Args:
        known: What may be learned from: train and val, where there is a test.
        test: What is scored.
        classes: Names of the classes.
    """

    known: Part
    test: Part
    classes: list[str]


def measured(source: str, network: str) -> Measured:
    """Compute or find the features of a folder with train, and val or test; or of the embedded digits."""
    from tlkit import backbones, data, features
    from tlkit.features.store import Store

    name, alpha = NETWORKS[network]
    if source == DIGITS:
        splits = data.load("embedded", size=(SIZE, SIZE), channels=3)
    else:
        own = (Path(source) / "test").is_dir()
        splits = data.load("folder", path=source, size=(SIZE, SIZE), channels=3, check=False, val_as_test=not own)
    model = backbones.classifier(backbones.build(name, (SIZE, SIZE, 3), "imagenet", alpha=alpha), len(splits.classes))
    extractor = features.Extractor(features.pooled(model), Store(), label=network)
    train, val, test = extractor.extract(splits.train, splits.val, splits.test)
    known = features.Features.joined([train, val])
    parts = [Part(part.array(), part.labels, list(part.groups)) for part in (known, test)]
    return Measured(*parts, splits.classes)
