"""Predict the labels of photos with a model that a recipe has trained.

Of a multi-label model, all labels with a probability above 0.5 are printed and marked with *.

python -m tlkit.recipes.predict models:/m-0123456789abcdef photo.jpg another.png
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit import cli
from tlkit.config import Predict
from tlkit.display import say, shown
from tlkit.errors import InvalidInput
from tlkit.recipes import _jobs, _models

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tlkit.data.modalities import Reading

BATCH = 32  # photos in memory at a time


def run(config: Predict) -> list[list[tuple[str, float]]]:
    """Print and return, for each photo, the labels with the highest probabilities.

    For a multi-label model, these include all labels with a probability above 0.5.

    Returns:
        For each photo, its labels with their probabilities, the highest first.

    Raises:
        InvalidInput: a photo or the model does not exist, or cannot be read.
    """
    missing = [photo for photo in config.photos if not Path(photo).is_file()]
    if missing:
        raise InvalidInput(f"there is no photo {missing[0]!r}; give the path of an image file")
    _jobs.start_keras()
    from tlkit import serving

    model, classes, reading = load(config.model)
    multi_label = serving.multi_label(model)
    rankings = []
    for photo, row in _probabilities(config, model, reading):
        count = max(config.top, int((row > 0.5).sum())) if multi_label else config.top
        ranking = serving.ranked(row, classes, count)
        texts = [f"{shown(label)}{'*' if multi_label and p > 0.5 else ''} {p:.4f}" for label, p in ranking]
        say(f"{shown(photo)}  " + "  ".join(texts))
        rankings.append(ranking)
    return rankings


def _probabilities(config: Predict, model: keras.Model, reading: Reading) -> Iterator[tuple[str, np.ndarray]]:
    """Give each photo's name and the probabilities of all classes, batch by batch."""
    import numpy as np

    from tlkit.backbones import modelfiles
    from tlkit.data import modalities, photos

    shape, decode = model.input_shape[1:], photos.file_format(modalities.PHOTOS).decode
    size = modelfiles.batch_size(model, BATCH)
    for start in range(0, len(config.photos), size):
        batch = config.photos[start : start + size]
        pixels = np.stack([decode(Path(photo), shape, photo, reading) for photo in batch])
        with modelfiles.one_line(f"{config.model!r} cannot predict"):
            rows = model.predict(pixels, verbose=0)
        yield from zip(batch, rows, strict=True)


def load(model: str) -> tuple[keras.Model, list[str], Reading]:
    """Load a model, the names of its classes, and how files become the photos that it takes.

    Args:
        model: A `.keras` file or an MLflow URI.

    Raises:
        InvalidInput: there is no such model, or it is not one that maps photos to classes.
    """
    from tlkit.data import modalities

    loaded, names, reading = _models.load(model)
    inputs, outputs = loaded.input_shape, loaded.output_shape
    others = [row.input for row in modalities.MODALITIES.values() if not row.predicted]
    photos = len(inputs) == 4 and None not in inputs[1:] and inputs[3] in (1, 3)
    if loaded.inputs[0].name in others or not photos or len(outputs) != 2:
        raise InvalidInput(f"{model!r} maps {inputs} to {outputs}; predict needs a classifier of photos of one size")
    count = max(2, outputs[-1])  # a single output is the probability of the second of two classes
    if names is not None and len(names) != count:
        raise InvalidInput(f"{model!r} holds {len(names)} class names for {count} classes")
    return loaded, names or [f"class {index}" for index in range(count)], reading


if __name__ == "__main__":
    cli.main(Predict, run, positional=("model", "photos"))
