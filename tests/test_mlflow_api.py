"""Runs and models of tlkit in a script that uses MLflow as its documentation shows and never imports tlkit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json
import pathlib

import mlflow
import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_digits

answers = {}

# Find the run, by tags and by metrics.
best = mlflow.search_runs(
    experiment_names=["digits"],
    filter_string="tags.recipe = 'feature_extraction' AND tags.backbone = 'LetterNet' AND metrics.test_accuracy > 0.5",
    order_by=["metrics.test_accuracy DESC"],
).iloc[0]
same_data = mlflow.search_runs(
    search_all_experiments=True, filter_string=f"tags.dataset_digest = '{best['tags.dataset_digest']}'"
)
others = mlflow.search_runs(search_all_experiments=True, filter_string="tags.backbone = 'MobileNetV2'")
answers["found"] = [best["run_id"], list(same_data["run_id"]), len(others)]
answers["accuracy"] = best["metrics.test_accuracy"]
answers["parameter"] = best["params.backbone.name"]
run = mlflow.get_run(best["run_id"])
answers["contexts"] = [tag.value for entry in run.inputs.dataset_inputs for tag in entry.tags]
[logged] = mlflow.search_logged_models(
    experiment_ids=[best["experiment_id"]],
    filter_string=f"source_run_id = '{best['run_id']}'",
    output_format="list",
)

# The table of predictions, and the photos that it names.
mlflow.set_experiment("digits")
said = mlflow.load_table("predictions.json", run_ids=[best["run_id"]])
answers["table"] = said["correct"].mean()
digits = load_digits()
rows = []
for name, label in zip(said["file"], said["label"]):
    path = pathlib.Path(f"{name}.png").absolute()
    Image.fromarray(np.rint(digits.images[int(name.split()[1])] * (255 / 16)).astype("uint8")).save(path)
    rows.append((str(path), str(label)))
photos = pd.DataFrame(rows, columns=["image", "label"])

# The Keras model and the Python function, on the same pixels.
network = mlflow.keras.load_model(logged.model_uri)
pixels = np.stack([digits.images[n].repeat(4, 0).repeat(4, 1)[..., None] * 15 for n in range(20)]).astype("float32")
probabilities = network.predict(pixels, verbose=0)
model = mlflow.pyfunc.load_model(logged.model_uri)
of_arrays = model.predict(pd.DataFrame({"image": list(pixels)}))
answers["columns"] = list(of_arrays.columns)
answers["same_labels"] = (of_arrays["label"] == pd.Series(probabilities.argmax(axis=1).astype(str))).all().item()
answers["difference"] = np.abs(of_arrays["probability"] - probabilities.max(axis=1)).max().item()

# Register it, by either kind of URI, and load what has the alias.
first = mlflow.register_model(logged.model_uri, "digits")
second = mlflow.register_model(f"runs:/{best['run_id']}/model", "digits")
mlflow.MlflowClient().set_registered_model_alias("digits", "production", second.version)
standing = mlflow.pyfunc.load_model("models:/digits@production")
answers["versions"] = [[str(version.version), version.run_id] for version in (first, second)]
answers["alias"] = (standing.predict(photos[["image"]])["label"] == photos["label"]).mean()

# mlflow.models.evaluate has taken the place of mlflow.evaluate; for a classifier it wants one column of labels.
def classify(table):
    return model.predict(table)["label"]

mlflow.set_experiment("evaluations")
with mlflow.start_run() as evaluation:
    result = mlflow.models.evaluate(
        classify, photos, targets="label", model_type="classifier", model_id=logged.model_id
    )
answers["evaluated"] = result.metrics["accuracy_score"]
answers["artifacts"] = sorted(result.artifacts)
answers["logged"] = mlflow.get_run(evaluation.info.run_id).data.metrics["accuracy_score"]
answers["of_model"] = {metric.key: metric.value for metric in mlflow.get_logged_model(logged.model_id).metrics}
pathlib.Path("answers.json").write_text(json.dumps(answers))
"""


@pytest.mark.slow
def test_a_script_that_knows_only_mlflow_uses_a_run(folder: Path):
    assert "tlkit" not in SCRIPT
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    train = [sys.executable, "-m", "tlkit.recipes.feature_extraction", "--experiment", "digits"]
    for command in (train, [sys.executable, "-c", SCRIPT]):
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    run_id, same_data, others = answers["found"]
    assert (same_data, others) == ([run_id], 0)
    assert answers["parameter"] == "LetterNet"
    assert sorted(answers["contexts"]) == ["test", "training", "validation"]
    assert answers["columns"] == ["label", "probability", "top"]
    assert answers["same_labels"]
    assert answers["difference"] < 1e-5
    assert answers["versions"] == [["1", run_id], ["2", run_id]]
    assert answers["artifacts"] == ["confusion_matrix", "per_class_metrics"]
    # The files of the test split, read anew, score what the run says of it.
    scores = [answers[name] for name in ("accuracy", "table", "alias", "evaluated", "logged")]
    assert scores == [pytest.approx(scores[0])] * 5
    assert answers["of_model"]["accuracy_score"] == answers["evaluated"]
