"""Print the most probable labels of photos, by a model that a recipe has trained.

Where a photo may have several labels, those with a probability above 0.5 are all printed and marked with *.

python -m tlkit.recipes.predict models:/m-0123456789abcdef photo.jpg another.png
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tlkit import cli
from tlkit.config import Predict
from tlkit.display import say, shown
from tlkit.errors import InvalidInput
from tlkit.recipes import _jobs, _models

if TYPE_CHECKING:
    import keras

BATCH = 32  # photos in memory at a time


def run(config: Predict) -> list[list[tuple[str, float]]]:
    """Print and return, for each photo, the labels with the highest probabilities.

    Where a photo may have several, all whose probability is above 0.5 are among them.
    """
    missing = [photo for photo in config.photos if not Path(photo).is_file()]
    if missing:
        raise InvalidInput(f"there is no photo {missing[0]!r}; give the path of an image file")
    _jobs.import_keras()
    import numpy as np

    from tlkit import serving
    from tlkit.backbones import modelfiles
    from tlkit.data import images

    model, classes = load(config.model)
    several = serving.multi_label(model)
    height, width, channels = model.input_shape[1:]
    answers = []
    batch = modelfiles.batch_size(model, BATCH)
    for start in range(0, len(config.photos), batch):
        chunk = config.photos[start : start + batch]
        pixels = np.stack([images.decode(Path(photo), (height, width), channels) for photo in chunk])
        with modelfiles.one_line(f"{config.model!r} cannot predict"):
            rows = model.predict(pixels, verbose=0)
        for photo, row in zip(chunk, rows, strict=True):
            count = max(config.top, int((row > 0.5).sum())) if several else config.top
            answers.append(serving.ranked(row, classes, count))
            shares = [
                f"{shown(name)}{'*' if several and share > 0.5 else ''} {share:.4f}" for name, share in answers[-1]
            ]
            say(f"{shown(photo)}  " + "  ".join(shares))
    return answers


def load(model: str) -> tuple[keras.Model, list[str]]:
    """Load a model and the names of its classes.

    Args:
        model: A `.keras` file or an MLflow URI.

    Raises:
        InvalidInput: there is no such model, or it is not one that maps photos to classes.
    """
    from tlkit.data import modalities

    loaded, names = _models.load(model)
    taken, given = loaded.input_shape, loaded.output_shape
    others = [row.input for row in modalities.MODALITIES.values() if not row.predicted]
    if (
        loaded.inputs[0].name in others
        or len(taken) != 4
        or None in taken[1:]
        or taken[3] not in (1, 3)
        or len(given) != 2
    ):
        raise InvalidInput(f"{model!r} maps {taken} to {given}; predict needs a classifier of photos of one size")
    count = max(2, given[-1])
    if names is not None and len(names) != count:
        raise InvalidInput(f"{model!r} holds {len(names)} class names for {count} classes")
    return loaded, names or [f"class {index}" for index in range(count)]


if __name__ == "__main__":
    cli.main(Predict, run, positional=("model", "photos"))
