"""Print the most probable labels of photos, by a model that a recipe has trained.

python -m tlkit.recipes.predict models:/m-0123456789abcdef photo.jpg another.png
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit import cli
from tlkit.config import Predict
from tlkit.errors import InvalidInput
from tlkit.recipes import _steps

if TYPE_CHECKING:
    import keras


def run(config: Predict) -> list[list[tuple[str, float]]]:
    """Print and return, for each photo, the labels with the highest probabilities."""
    missing = [photo for photo in config.photos if not Path(photo).is_file()]
    if missing:
        raise InvalidInput(f"there is no photo {missing[0]!r}; give the path of an image file")
    _steps.begin()
    import numpy as np

    from tlkit.data import images

    model, classes = load(config.model)
    height, width, channels = model.input_shape[1:]
    pixels = np.stack([images.decode(Path(photo), (height, width), channels) for photo in config.photos])
    probabilities = model.predict(pixels.astype("float32"), verbose=0)
    answers = []
    for photo, row in zip(config.photos, probabilities, strict=True):
        best = np.argsort(-row, kind="stable")[: config.top]
        answers.append([(classes[index], float(row[index])) for index in best])
        print(f"{photo}  " + "  ".join(f"{name} {share:.4f}" for name, share in answers[-1]))
    return answers


def load(model: str) -> tuple[keras.Model, list[str]]:
    """Load a model and the names of its classes.

    Args:
        model: A `.keras` file or an MLflow URI.

    Raises:
        InvalidInput: there is no such model, or it is not one that maps photos to classes.
    """
    path = _download(model) if ":/" in model else Path(model)
    if not path.is_file():
        raise InvalidInput(f"there is no model {model!r}; give a .keras file or an MLflow URI such as models:/m-…")
    if not zipfile.is_zipfile(path):
        raise InvalidInput(f"{model!r} is not a .keras file; give one that a recipe or model.save wrote")
    import keras

    from tlkit import labels

    try:
        loaded = keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise InvalidInput(f"Keras cannot load {model!r}: {str(error).splitlines()[0]}") from error
    if len(loaded.input_shape) != 4 or len(loaded.output_shape) != 2:
        raise InvalidInput(
            f"{model!r} maps {loaded.input_shape} to {loaded.output_shape}; predict needs a classifier of photos"
        )
    names = labels.read(path) or [f"class {index}" for index in range(loaded.output_shape[-1])]
    return loaded, names


def _download(uri: str) -> Path:
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    from tlkit import tracking

    tracking.open_store()
    try:
        return Path(mlflow.artifacts.download_artifacts(uri)) / "data" / "model.keras"
    except (MlflowException, OSError) as error:
        raise InvalidInput(f"MLflow has no model {uri!r}: {str(error).splitlines()[0]}") from error


if __name__ == "__main__":
    cli.main(Predict, run, positional=("model", "photos"))
