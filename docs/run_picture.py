"""Draw docs/run.png, what a run leaves in MLflow: learning curves, confusion matrix, worst mistakes.

python docs/run_picture.py

The run is LetterNet, which knows letters, fine-tuned on 152 of scikit-learn's digits, validated on 175 and tested on
the other 1,470: few enough to learn from that there are mistakes to see. The head is trained, not solved, so that it
has a curve. Seed 0; half a minute on 2 cores.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

import mlflow
import pandas as pd
from PIL import Image

from tlkit import cli, config, data, plots
from tlkit.recipes import finetune

FRACTIONS = {"val_fraction": 0.1, "test_fraction": 0.8}
SETTINGS = {
    "data": FRACTIONS,
    "backbone": {"name": "LetterNet"},
    "head": {"solved": False, "epochs": 12, "learning_rate": 0.01},
    "full": {"epochs": 12, "learning_rate": 1e-4},
    "augment": {"flip": False, "rotation": 10.0, "zoom": 0.1, "shift": 0.08},
}


def main() -> None:
    """Train in a folder that is thrown away, and put its pictures side by side."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        result = finetune.run(cli.from_settings(config.Finetune, SETTINGS))
        artifacts = Path(mlflow.artifacts.download_artifacts(run_id=result.run_id, dst_path="artifacts"))
        curves = Image.open(artifacts / "learning_curves.png").convert("RGB")
        matrix = Image.open(artifacts / "confusion_matrix.png").convert("RGB")
        mistakes = worst(pd.read_json(artifacts / "predictions.json", orient="split"))
    mistakes = mistakes.resize((curves.width, round(mistakes.height * curves.width / mistakes.width)), Image.LANCZOS)
    height = curves.height + mistakes.height
    matrix = matrix.resize((round(matrix.width * height / matrix.height), height), Image.LANCZOS)
    picture = Image.new("RGB", (curves.width + matrix.width, height), "white")
    picture.paste(curves, (0, 0))
    picture.paste(mistakes, (0, curves.height))
    picture.paste(matrix, (curves.width, 0))
    picture.quantize(256, dither=Image.Dither.NONE).save(Path(__file__).parent / "run.png", optimize=True)


def worst(predictions: pd.DataFrame) -> Image.Image:
    """Draw the six most confident mistakes."""
    test = data.load("embedded", size=(32, 32), channels=1, **FRACTIONS).test
    labels, predicted, probabilities = (predictions[name].tolist() for name in ("label", "predicted", "probability"))
    labels, predicted = ([str(name) for name in names] for names in (labels, predicted))
    figure = plots.mistakes(test.read, labels, predicted, probabilities, most=6)
    content = io.BytesIO()
    figure.savefig(content)
    return Image.open(content).convert("RGB")


if __name__ == "__main__":
    main()
