"""Models are tested on data that they have not seen: what they have is left out, all has intervals, two are paired."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pytest
from mlflow.entities import LoggedModelOutput
from PIL import Image
from sklearn import metrics

from tlkit import cli, data, evaluation, labels
from tlkit.config import Data, Evaluate, FeatureExtraction
from tlkit.errors import InvalidInput
from tlkit.recipes import _runs, evaluate

pytestmark = [pytest.mark.usefixtures("folder", "undrawn")]
SIDE, COUNT = 64, 20


def write(root: Path, name: str, count: int = COUNT, seed: int = 0, suffix: str = "png") -> Path:
    """Write photos of a class, red or green, of smooth noise, so that each has a structure of its own."""
    rng = np.random.default_rng([seed, len(name)])
    (root / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        noise = Image.fromarray(rng.integers(0, 200, (6, 6, 3)).astype(np.uint8)).resize((SIDE, SIDE))
        tint = np.array([20, 0, 0] if name == "red" else [0, 20, 0])
        pixels = np.clip(np.asarray(noise).astype(int) + tint, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / name / f"{seed}_{number:02}.{suffix}")
    return root


def model(order: int = 1, bias: float = 0.0, last: str = "softmax") -> keras.Model:
    """A classifier by color: the outputs are green and red, or with order -1 red and green."""
    network = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3), name="pixels"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, last, name="probabilities"),
        ]
    )
    kernel = np.array([[-1.0, 1.0], [1.0, -1.0], [0.0, 0.0]]) * order / 20
    network.layers[-1].set_weights([kernel, np.array([bias, 0.0])])
    return network


def call(capsys: Any, *argv: str) -> tuple[int, str, str]:
    status = cli.call(Evaluate, evaluate.run, argv, positional=("models",))
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_plain_keras_classifier_is_scored_by_the_names_it_is_given(folder: Path, capsys):
    new = write(write(folder / "new", "red"), "green", 2 * COUNT)
    model(-1, bias=1.0).save("model.keras")
    (scored,) = evaluate.run(Evaluate(["model.keras"], Data(path=str(new)), classes=["red", "green"]))
    read = data.load("folder", path=str(new), size=(SIDE, SIDE))
    every = data.Photos.joined(list(read.by_name.values()))
    expected = model(-1, bias=1.0).predict(every.read(range(len(every))), verbose=0)[:, ::-1]  # green, red: by alphabet
    assert read.classes == ["green", "red"]
    assert scored.scores.accuracy == pytest.approx(metrics.accuracy_score(every.labels, expected.argmax(1)))
    balanced = metrics.balanced_accuracy_score(every.labels, expected.argmax(1))
    assert 0.5 < balanced < 1
    assert scored.scores.balanced_accuracy == pytest.approx(balanced)
    assert scored.scores.loss == pytest.approx(metrics.log_loss(every.labels, expected), rel=1e-4)
    assert scored.scores.auc == pytest.approx(metrics.roc_auc_score(every.labels, expected[:, 1]), abs=1e-6)
    logged = mlflow.get_run(scored.run_id)
    assert logged.info.run_name == "evaluate model.keras on new #1"
    for name in ("accuracy", "balanced_accuracy", "loss", "auc"):
        low, value, high = (logged.data.metrics[f"test_{name}{end}"] for end in ("_low", "", "_high"))
        assert low < value < high, name
    artifacts = {each.path for each in mlflow.MlflowClient().list_artifacts(scored.run_id)}
    files = {"predictions.json", "class_scores.json", "confusion_matrix.png", "worst_mistakes.png", "config.yaml"}
    assert files <= artifacts
    said = capsys.readouterr()
    assert "what it was trained on is unknown, as no run of it is in this store" in said.err
    assert "balanced accuracy  0." in said.out
    assert "class  " in said.out


@pytest.mark.parametrize(
    ("last", "words", "message"),
    [
        ("softmax", [], "'model.keras' holds no class names: give those of its 2 outputs by --classes '[a, b]'"),
        (
            "softmax",
            ["--classes", "[red, blue]"],
            "have classes that model.keras does not have: green; it has red, blue",
        ),
        ("softmax", ["--classes", "[red, green, blue]"], "classes are 3, and 'model.keras' has 2: name each"),
        ("softmax", ["--classes", "[red, red]"], "it must have two names or more, all different"),
        ("softmax", ["--data.resize", "pad"], "data.resize is 'pad'; a model reads photos as it did in training"),
        ("softmax", ["--data.val_as_test"], "data.val_as_test is True; nothing is split here: leave it out"),
        ("linear", ["--classes", "[red, green]"], "which are no probabilities: give a classifier that ends in"),
        (
            "softmax",
            ["--classes", "[red, green]", "--promote"],
            "promote is True; give versions such as models:/NAME/3",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(folder: Path, capsys, last: str, words: list[str], message: str):
    new = write(write(folder / "new", "red", 4), "green", 4)
    model(last=last).save("model.keras")
    status, _, said = call(capsys, "model.keras", "--data.path", str(new), *words)
    assert status == 2
    assert message in said
    assert said.splitlines()[-1].startswith("evaluate: error: ")


def trained(folder: Path, name: str, network: keras.Model, register: bool = False) -> str:
    """Make a run, as if it had trained a model on the folder of photos, and give its id."""
    photos, config = folder / "photos", FeatureExtraction(data=Data(path=str(folder / "photos")))
    client = mlflow.MlflowClient()
    experiment = mlflow.get_experiment_by_name("tlkit")
    where = experiment.experiment_id if experiment else client.create_experiment("tlkit")
    run_id = client.create_run(where, run_name=name).info.run_id
    data.load("folder", path=str(photos), size=(SIDE, SIDE), quiet=True).write_manifest("split_manifest.csv")
    client.log_artifact(run_id, "split_manifest.csv")
    client.log_text(run_id, _runs.as_yaml(config), "config.yaml")
    path = folder / name
    (path / "data").mkdir(parents=True)
    network.save(path / "data" / "model.keras")
    labels.write(path / "data" / "model.keras", ["green", "red"])
    (path / "MLmodel").write_text(f"run_id: {run_id}\n", encoding="utf-8")
    made = client.create_logged_model(where, "model", run_id)
    client.log_model_artifacts(made.model_id, str(path))
    client.finalize_logged_model(made.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, 0)])
    client.set_terminated(run_id)
    if register:
        client.create_model_version("colors", f"models:/{made.model_id}", run_id, model_id=made.model_id)
    return run_id


def test_what_a_model_has_seen_is_named_and_left_out(folder: Path, capsys):
    write(write(folder / "photos", "red"), "green")
    run_id = trained(folder, "colors #1", model())
    new = write(write(folder / "new", "red", 8, seed=1), "green", 8, seed=1)
    splits = data.load("folder", path=str(folder / "photos"), size=(SIDE, SIDE), quiet=True)
    seen, copied = splits.train.names[0], splits.train.names[1]
    shutil.copy(folder / "photos" / seen, new / "red" / "again.png")
    Image.open(folder / "photos" / copied).resize((SIDE + 20, SIDE + 20)).save(new / "red" / "near.jpg", quality=70)
    shutil.copy(folder / "photos" / splits.test.names[0], new / splits.test.names[0].split("/")[0] / "tested.png")
    path = folder / "colors #1" / "data" / "model.keras"
    (scored,) = evaluate.run(Evaluate([str(path)], Data(path=str(new))))  # its run is found beside the file
    said = capsys.readouterr().err
    assert "colors #1: 1 photos that it was trained on, or that chose its weights, left out: red/again.png\n" in said
    assert "colors #1: 1 photos that are near copies of such, left out: red/near.jpg\n" in said
    assert scored.scores.photos == 17  # with the one that it was only tested on
    logged = mlflow.get_run(scored.run_id)
    assert logged.data.tags["mlflow.parentRunId"] == logged.data.tags["evaluated_run"] == run_id
    assert logged.data.metrics["left_out"] == 2
    assert scored.scores.majority_accuracy is not None  # of its training
    table = json.loads(
        Path(mlflow.MlflowClient().download_artifacts(scored.run_id, "seen.json")).read_text(encoding="utf-8")
    )
    assert dict(table["data"])["red/near.jpg"] == f"near copy of what the model has seen ({copied})"
    assert "which it has not seen before" in mlflow.get_run(scored.run_id).data.tags["mlflow.note.content"]
    (whole,) = evaluate.run(Evaluate([f"runs:/{run_id}"], Data(path=str(new)), seen=True))
    assert "2 of which it has seen before" in mlflow.get_run(whole.run_id).data.tags["mlflow.note.content"]
    assert whole.scores.photos == 19
    assert "scored all the same: red/again.png" in capsys.readouterr().err
    status, _, error = call(capsys, f"runs:/{run_id}", "--data.path", str(folder / "photos"))
    assert status == 0, error  # its own test photos are new to it
    shutil.rmtree(folder / "photos")
    (rest,) = evaluate.run(Evaluate([f"runs:/{run_id}"], Data(path=str(new))))
    assert rest.scores.photos == 18  # where the photos are gone, near copies are unknown, and that is said
    assert "near copies of its training photos cannot be looked for: " in capsys.readouterr().err


@pytest.mark.thorough
def test_two_versions_are_paired_and_the_better_one_becomes_champion(folder: Path, capsys):
    write(write(folder / "photos", "red"), "green")
    client = mlflow.MlflowClient()
    client.create_registered_model("colors")
    trained(folder, "worse", model(bias=3.0), register=True)
    trained(folder, "better", model(), register=True)
    client.set_registered_model_alias("colors", "champion", "1")
    client.set_registered_model_alias("colors", "candidate", "2")
    new = write(write(folder / "new", "red", 3 * COUNT, seed=1), "green", seed=1)
    argv = ["models:/colors@champion", "models:/colors@candidate", "--data.path", str(new), "--promote"]
    status, said, error = call(capsys, *argv)
    assert status == 0, error
    assert "\nA  colors 1\nB  colors 2\n" in said
    assert "B is better" in said
    assert "  colors version 2, champion: beats version 1, the champion then, on the same 80 test examples: " in said
    aliases = client.get_registered_model("colors").aliases
    assert {alias: str(number) for alias, number in aliases.items()} == {"champion": "2"}
    version = client.get_model_version("colors", "2")
    assert version.tags["promotion"] == "champion"
    assert version.tags["compared_with"] == "1"
    assert "**Champion**, by run " in version.description
    assert client.get_model_version("colors", "1").tags["replaced_by"] == "2"
    first, second = evaluate.run(Evaluate(["models:/colors/1", "models:/colors/2"], Data(path=str(new))))
    right = [np.array(each.predictions["correct"]) for each in (first, second)]
    pair = evaluation.predictions.mcnemar(*right)
    assert f"A-B  {pair.only_first:>8}  {pair.only_second:>8}" in capsys.readouterr().out
    status, _, error = call(capsys, "models:/colors/1", "--data.path", str(new), "--promote")
    assert status == 2
    assert "version 2 of colors is champion: give it too, as models:/colors@champion" in error


def test_a_version_becomes_the_first_champion_by_new_photos(folder: Path, capsys):
    write(write(folder / "photos", "red"), "green")
    mlflow.MlflowClient().create_registered_model("colors")
    trained(folder, "only", model(), register=True)
    new = write(write(folder / "new", "red", seed=1), "green", seed=1)
    status, said, error = call(capsys, "models:/colors/1", "--data.path", str(new), "--promote")
    assert status == 0, error
    assert "colors version 1, champion: there was no champion; tested on 40 photos of new, accuracy " in said
    assert str(mlflow.MlflowClient().get_registered_model("colors").aliases["champion"]) == "1"


def test_intervals_are_by_groups_where_there_are_groups(folder: Path, capsys):
    for name in ("red", "green"):
        for patient in range(6):
            write(folder / "new" / name / f"p{patient}", name, 3, seed=patient)
    model(bias=1.5).save("model.keras")
    classes = ["green", "red"]
    config = Data(path=str(folder / "new"), group=r"(p\d)")
    (scored,) = evaluate.run(Evaluate(["model.keras"], config, classes=classes))
    right = np.array(scored.predictions["correct"])
    groups = scored.predictions["group"]
    assert 0 < right.mean() < 1
    assert len(set(groups)) == 6
    assert scored.scores.interval == evaluation.wilson_of_groups(right, groups)
    assert "36 photos of 6 groups" in capsys.readouterr().out


def test_the_areas_and_means_agree_with_what_is_known():
    rng = np.random.default_rng(0)
    labels_, scores = rng.integers(0, 2, 300), rng.random(300)
    scores += labels_ / 2
    pair = np.stack([1 - scores, scores], axis=1)
    low, high = evaluation.auc_interval(pair, labels_)
    area = metrics.roc_auc_score(labels_, scores)
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)  # Hanley and McNeil 1982
    ones, zeros = labels_.sum(), (1 - labels_).sum()
    variance = (area * (1 - area) + (ones - 1) * (q1 - area**2) + (zeros - 1) * (q2 - area**2)) / (ones * zeros)
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(variance), rel=0.1)
    assert low < area < high
    assert evaluation.auc_interval(pair, np.zeros(300, int)) is None
    assert evaluation.auc_interval(np.eye(2)[labels_], labels_)[0] == pytest.approx(0.97, abs=0.01)
    values = rng.exponential(size=200)
    from scipy import stats

    assert evaluation.mean_interval(values) == pytest.approx(
        stats.t.interval(0.95, 199, values.mean(), stats.sem(values)), rel=1e-6
    )
    assert evaluation.mean_of_shares([90], [100]) == pytest.approx(evaluation.wilson(90, 100), abs=1e-6)
    expected = stats.bootstrap((values,), np.mean, n_resamples=9999, method="BCa", rng=rng).confidence_interval
    assert evaluation.loss_interval(values) == pytest.approx(tuple(expected), abs=0.03)


def test_nothing_new_is_an_error(folder: Path, capsys):
    write(write(folder / "photos", "red"), "green")
    run_id = trained(folder, "colors", model())
    splits = data.load("folder", path=str(folder / "photos"), size=(SIDE, SIDE), quiet=True)
    for name in splits.test.names:
        (folder / "photos" / name).unlink()
    with pytest.raises(InvalidInput, match=r"are known to the model: give others by --data\.path"):
        evaluate.run(Evaluate([f"runs:/{run_id}"], Data(path=str(folder / "photos"))))
