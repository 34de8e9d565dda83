"""What LetterNet's features are worth: a probe that learns handwritten digits from a few labeled photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras
    import numpy as np

SHOTS = (1, 5, 10, 50)  # labeled photos of each digit that the probe learns from

Score = tuple[float, float]
"""Accuracy of the probe over its draws: mean and standard deviation."""


def handwritten_digits() -> tuple[np.ndarray, np.ndarray]:
    """Load scikit-learn's digits as tlkit shows them to LetterNet.

    Shapes:
        returns: photos (1797, 32, 32, 1), uint8, and digits (1797,)
    """
    import numpy as np

    from tlkit.data import images, sources

    digits = sources.embedded()
    photos = np.stack([images.decode(photo, size=(32, 32), channels=1) for photo in digits.contents])
    return photos, np.array(digits.labels)


def pooled(network: keras.Model, photos: np.ndarray) -> np.ndarray:
    """Average a headless network's output over all positions.

    Shapes:
        photos: (photos, height, width, channels), 0 to 255
        returns: (photos, features)
    """
    return network.predict(photos, batch_size=512, verbose=0).mean(axis=(1, 2))


def probe(
    features: np.ndarray, labels: np.ndarray, draws: int = 20, shots: Sequence[int] = SHOTS, seed: int = 0
) -> list[Score]:
    """Fit a logistic regression on a few labeled photos of each class and score it on all others.

    Each photo's features are scaled to unit length, which needs no other photo; nothing is tuned.

    Args:
        features: Features of each photo.
        labels: The class of each photo.
        draws: Number of random choices of the labeled photos; they are the same for every network.
        shots: Numbers of labeled photos of each class.
        seed: Random seed of the choices.

    Returns:
        A score for each number of `shots`.

    Shapes:
        features: (photos, features)
        labels: (photos,)

    >>> import numpy as np
    >>> probe(np.eye(2).repeat(9, 0), np.arange(2).repeat(9), draws=3, shots=[1, 5])
    [(1.0, 0.0), (1.0, 0.0)]
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import normalize

    directions = normalize(features.astype("float64"))
    scores = []
    for shot in shots:
        accuracies = []
        for draw in range(draws):
            rng = np.random.default_rng((seed, shot, draw))
            labeled = [rng.choice(np.flatnonzero(labels == label), shot, replace=False) for label in np.unique(labels)]
            train = np.zeros(len(labels), bool)
            train[np.concatenate(labeled)] = True
            classifier = LogisticRegression(C=10, max_iter=1000).fit(directions[train], labels[train])
            accuracies.append(classifier.score(directions[~train], labels[~train]))
        scores.append((float(np.mean(accuracies)), float(np.std(accuracies))))
    return scores


def table(rows: dict[str, list[Score]], shots: Sequence[int] = SHOTS) -> list[str]:
    """Write scores as the lines of a Markdown table.

    Args:
        rows: Scores by the name of the network.
        shots: Numbers of labeled photos of each class.

    >>> print("\\n".join(table({"LetterNet": [(0.9, 0.01)]}, shots=[5])))
    | labels a digit | 5 |
    | --- | --- |
    | LetterNet | 0.900 ± 0.010 |
    """
    head = f"| labels a digit | {' | '.join(map(str, shots))} |"
    cells = {name: [f"{mean:.3f} ± {spread:.3f}" for mean, spread in row] for name, row in rows.items()}
    lines = [f"| {name} | {' | '.join(row)} |" for name, row in cells.items()]
    return [head, "| --- " * (len(shots) + 1) + "|", *lines]
