"""Networks from random weights on photos, sounds, volumes and a graph, from the command line to the run in MLflow."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
import yaml
from conftest import write_arrays, write_sounds

from tlkit import builders, cli, config, data, training
from tlkit.data import Photos, graph, sounds
from tlkit.errors import InvalidInput
from tlkit.recipes import feature_extraction, finetune, predict, train, train_graph

TINY = ["--builder.filters", "[4, 8]", "--full.epochs", "2"]


def call(*argv: str) -> int:
    return cli.call(config.Train, train.run, [*TINY, *argv])


def runs() -> list[mlflow.entities.Run]:
    return mlflow.search_runs(search_all_experiments=True, output_format="list")


def artifacts(run: mlflow.entities.Run) -> set[str]:
    return {entry.path for entry in mlflow.MlflowClient().list_artifacts(run.info.run_id)}


def artifact(run: mlflow.entities.Run, name: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/{name}"))


def model(run: mlflow.entities.Run) -> keras.Model:
    return keras.saving.load_model(artifact(run, "model") / "data" / "model.keras")


def repeats_bit_for_bit(config_class: type, recipe) -> mlflow.entities.Run:
    """Run again from the stored config of the only run there is."""
    (first,) = runs()
    assert cli.call(config_class, recipe, ["--config", str(artifact(first, "config.yaml"))]) == 0
    again = runs()[0]
    for a, b in zip(model(first).get_weights(), model(again).get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.data.params.items() <= again.data.params.items()  # now all is asked for
    scores = ("test_accuracy", "test_auc", "test_loss", "best_val_loss", "best_epoch")
    assert [again.data.metrics[name] for name in scores] == [first.data.metrics[name] for name in scores]
    return first


@pytest.mark.slow
def test_sounds_leave_a_run_that_repeats_bit_for_bit(folder: Path, capsys: pytest.CaptureFixture):
    root = write_sounds(folder / "sounds", {"high": 40, "low": 40})
    assert call("--data.source", "folder", "--data.path", str(root), "--seed", "3") == 0
    out = capsys.readouterr().out
    assert "sounds: " in out
    assert "test AUC" in out
    (asked,) = re.findall(r"\n  mlflow\.pyfunc\.load_model\(\"(\S+)\"\)\.predict\((.*)\)  # in Python\n", out)
    assert "recipes.predict" not in out
    run = repeats_bit_for_bit(config.Train, train.run)
    assert artifacts(run) == {
        "config.yaml", "decisions.json", "split_manifest.csv", "example.wav", "example_request.json",
        "inspection.html", "predictions.json",
        "learning_curves.png", "confusion_matrix.png", "class_scores.png", "class_scores.json", "worst_mistakes.png",
    }  # fmt: skip
    stored = yaml.safe_load(artifact(run, "config.yaml").read_text(encoding="utf-8"))
    assert stored["data"]["seconds"] == 0.1
    assert stored["builder"] == {
        "name": "cnn", "weights": "none", "spectrogram": True, "dropout": None, "filters": [4, 8], "convolutions": 1,
        "kernel_size": 3, "pool": "max", "norm": True, "dense": [],
    }  # fmt: skip
    assert stored["augment"] == {
        "flip": False, "rotation": 0.0, "zoom": 0.0, "shift": 0.1, "brightness": 0.0, "contrast": 0.2,
        **{"crop": 1.0, "policy": "none", "magnitude": 9.0, "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0},
    }  # fmt: skip
    assert (run.data.tags["recipe"], run.data.tags["backbone"]) == ("train", "cnn")
    assert run.data.params["full.learning_rate"] == "0.001"
    info = mlflow.models.get_model_info(f"runs:/{run.info.run_id}/model")
    assert info.signature.inputs.input_names() == ["sound"]
    example = sounds.decode(artifact(run, "example.wav"))
    expected = model(run).predict(example[None], verbose=0)
    said = mlflow.pyfunc.load_model(asked[0]).predict(ast.literal_eval(asked[1]))
    assert said.probability[0] == pytest.approx(float(expected.max()), abs=1e-5)


@pytest.mark.thorough
@pytest.mark.usefixtures("undrawn")
def test_volumes_leave_a_run(folder: Path, capsys: pytest.CaptureFixture):
    path = write_arrays(folder / "volumes.npz")
    argv = ["--data.source", "npz", "--data.path", str(path), "--augment.flip", "[0, 2]", "--batch_size", "8"]
    assert call(*argv, "--full.epochs", "6", "--full.learning_rate", "0.01") == 0
    (run,) = runs()
    assert {"example.npy", "split_manifest.csv"} < artifacts(run)
    assert run.data.metrics["test_auc"] == 1
    assert yaml.safe_load(artifact(run, "config.yaml").read_text(encoding="utf-8"))["augment"]["contrast"] == 0
    assert run.data.params["augment.flip"] == "[0, 2]"
    assert np.load(artifact(run, "example.npy")).shape == (8, 8, 8, 1)
    assert model(run).input_shape == (None, 8, 8, 8, 1)
    assert '.predict({"array": ["mlruns/' in capsys.readouterr().out


@pytest.mark.thorough
@pytest.mark.usefixtures("undrawn")
def test_photos_train_a_landmark_that_predict_can_use(folder: Path, photos: Path, capsys: pytest.CaptureFixture):
    argv = ["--data.source", "folder", "--data.path", str(photos), "--builder.name", "lenet_mini", "--full.epochs", "1"]
    assert cli.call(config.Train, train.run, argv) == 0
    told = next(line for line in capsys.readouterr().out.splitlines() if "tlkit.recipes.predict" in line).split()
    (answer,) = predict.run(config.Predict(told[-2], [str(photos / "red" / "000.png")], top=2)).rankings
    assert {name for name, _ in answer} == {"red", "green"}
    (run,) = runs()
    assert run.data.params["data.image_size"] == "32"  # LeNet's own, and gray as its photos
    assert model(run).input_shape == (None, 32, 32, 1)
    settings = yaml.safe_load(artifact(run, "config.yaml").read_text(encoding="utf-8"))
    assert settings["augment"]["flip"] is True
    assert settings["builder"]["filters"] is None


@pytest.fixture
def splits(tmp_path: Path) -> data.Splits:
    return data.load("npz", path=write_arrays(tmp_path / "volumes.npz", counts=(150, 10, 10)))


def test_the_model_takes_raw_values_and_sees_them_with_zero_mean_and_unit_variance(splits: data.Splits):
    settings = config.Train(builder=config.Builder(**config.CNN, dropout=0.25))
    made = train.build(settings, splits)
    values = splits.train.read(range(150))
    normal = keras.Model(made.input, made.get_layer("normalization").output).predict(values, verbose=0)
    assert normal.mean() == pytest.approx(0, abs=1e-5)
    assert normal.std() == pytest.approx(1, abs=1e-5)
    assert made.get_layer("dropout").rate == 0.25
    assert made.get_layer("head").dtype == "float32"
    half = keras.Model(made.input, made.get_layer("normalization").output)(values[:1] // 2)
    assert not np.allclose(half, normal[:1])  # a constant of the training data, not of the batch


def test_moments_are_those_of_each_channel():
    values = np.random.default_rng(0).normal([[5, -1000]], [[2, 0.1]], (200, 7, 2)).astype("float32")
    mean, variance = train.moments(None, Photos.of(values, [0] * 200), batch_size=30)
    flat = values.reshape(-1, 2).astype("float64")
    np.testing.assert_allclose(mean, flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(variance, flat.var(0), rtol=1e-9)


def test_a_spectrogram_has_the_frequencies_of_the_sound(tmp_path: Path):
    found = data.load("folder", path=write_sounds(tmp_path, {"a": 20, "b": 20}, samples=2000), seconds=0.25)
    made = train.build(config.Train(builder=config.Builder(**config.CNN, spectrogram=True)), found)
    tone = np.sin(2 * np.pi * 1000 * np.arange(2000) / 8000)[None, :, None]
    heard = keras.Model(made.input, made.get_layer("spectrogram").output).predict(tone, verbose=0)
    assert heard.shape == (1, 16, 129)  # 2000 samples in steps of 128; 256 samples are 32 ms
    assert (heard[0, 2:-3].argmax(-1) == 32).all()  # 1 of 4 kHz, of 128 bands


def test_a_band_that_is_silent_in_training_does_not_explode_in_the_test(tmp_path: Path):
    """Far above the tones, training holds nothing but the spectrogram's floor; a click has every frequency."""
    t = np.arange(4410) / 44100
    for name, pitch in (("a", 300), ("b", 600)):
        (tmp_path / "s" / name).mkdir(parents=True)
        for number in range(30):
            tone = 0.3 * np.sin(2 * np.pi * pitch * t + number)[:, None] * np.hanning(4410)[:, None]
            (tmp_path / "s" / name / f"{number}.wav").write_bytes(sounds.encode(tone, 44100))
    found = data.load("folder", path=tmp_path / "s")
    made = train.build(config.Train(builder=config.Builder(spectrogram=True, **{**config.CNN, "filters": [4]})), found)
    click = np.zeros((1, 4410, 1), "float32")
    click[0, 2000] = 0.9
    seen = keras.Model(made.input, made.get_layer("normalization").output)(click)
    assert np.abs(keras.ops.convert_to_numpy(seen)).max() < 1000


def test_a_constant_channel_is_not_divided_by_nothing():
    values = np.random.default_rng(0).normal(size=(8, 4, 4, 2)).astype("float32")
    values[..., 1] = 5
    photos = Photos.of(values, np.arange(8) % 2)
    found = data.Splits(["a", "b"], photos, photos, None, [], [], "arrays")
    made = train.build(config.Train(builder=config.Builder(spectrogram=False, **{**config.CNN, "filters": [4]})), found)
    other = np.full((1, 4, 4, 2), 6, "float32")
    seen = keras.Model(made.input, made.get_layer("normalization").output)(other)
    assert float(keras.ops.max(keras.ops.abs(seen[..., 1]))) == pytest.approx(1)
    huge = Photos.of(values * 1e30, photos.labels)
    with pytest.raises(InvalidInput, match="have a variance of"):
        train.build(config.Train(builder=config.Builder(spectrogram=False)), dataclasses.replace(found, train=huge))


@pytest.mark.thorough
@pytest.mark.usefixtures("uncompiled", "undrawn")
def test_a_signal_is_an_array_and_no_sound(folder: Path, capsys: pytest.CaptureFixture):
    path = write_arrays(folder / "signals.npz", (64,))
    status = cli.call(config.Train, train.run, ["--data.source", "npz", "--data.path", str(path), *TINY])
    assert status == 0
    (run,) = runs()
    settings = yaml.safe_load(artifact(run, "config.yaml").read_text(encoding="utf-8"))
    assert (settings["augment"]["shift"], settings["augment"]["contrast"]) == (0.1, 0.0)


def test_predict_refuses_a_network_of_arrays(folder: Path, capsys: pytest.CaptureFixture):
    inputs = keras.Input((8, 8, 1), name="values")
    network = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    network.save(folder / "arrays.keras")
    (folder / "photo.png").write_bytes(b"")
    assert cli.call(config.Predict, predict.run, ["arrays.keras", "photo.png"], positional=("model", "photos")) == 2
    assert "predict needs a classifier of photos" in capsys.readouterr().err


def test_weights_to_begin_with_come_from_a_file(splits: data.Splits, tmp_path: Path):
    settings = config.Train(builder=config.Builder(**config.CNN))
    keras.utils.set_random_seed(1)
    made = train.build(settings, splits)
    made.save_weights(tmp_path / "w.weights.h5")
    builder = dataclasses.replace(settings.builder, weights=str(tmp_path / "w.weights.h5"))
    again = train.build(dataclasses.replace(settings, builder=builder), splits)
    for a, b in zip(made.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# Bad input: one line, status 2, and no run left behind ----------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture, status: int) -> str:
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert runs() == []
    return line


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--builder.name", "resnet8"], "builder.name is 'resnet8': cnn or one of"),
        (["--builder.weights", "gone.weights.h5"], "gone.weights.h5"),
        (["--builder.spectrogram", "true"], "builder.spectrogram is True; it is for sounds, and the data are photos"),
        (["--augment.flip", "[0]"], "augment.flip is [0]; for these photos it must be true or false"),
        (["--data.seconds", "1"], "data.seconds is 1.0, which is for sounds; the data are photos"),
        (["--builder.filters", "[]"], "builder.filters is []; it must have one number or more"),
        (["--builder.filters", "[8, 0]"], "builder.filters is [8, 0]; it must be 1 or more"),
        (
            ["--builder.name", "vit_mini", "--builder.filters", "[4]"],
            "builder.filters is [4]; it goes with --builder.name cnn",
        ),
    ],
)
def test_settings_that_do_not_fit(folder: Path, argv: list[str], says: str, capsys: pytest.CaptureFixture):
    assert says in refused(capsys, cli.call(config.Train, train.run, argv))


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (
            ["--augment.rotation", "20"],
            "augment.rotation is 20.0; sounds like these can have shift, contrast and mixup only",
        ),
        (["--augment.flip", "true"], "augment.flip is True; sounds like these can have shift, contrast and mixup only"),
        (["--augment.flip", "[0]"], "augment.flip is [0]; for these sounds it must be true or false"),
        (["--data.image_size", "32"], "data.image_size is 32; it is for photos, and the data are sounds"),
    ],
)
def test_settings_of_photos_are_refused_for_sounds(folder: Path, argv: list[str], says: str, capsys):
    root = write_sounds(folder / "sounds", {"a": 3, "b": 3})
    assert says in refused(capsys, call("--data.source", "folder", "--data.path", str(root), *argv))


def test_axes_that_a_volume_does_not_have_are_refused(folder: Path, capsys: pytest.CaptureFixture):
    argv = ["--data.source", "npz", "--data.path", str(write_arrays(folder / "v.npz"))]
    says = "for these arrays it must be true, false or some of the axes 0 to 2"
    for axes in ("[3]", "[-1]", "[]"):
        assert says in refused(capsys, call(*argv, "--augment.flip", axes))
    assert "augment.flip is [0]; for photos" in refused(
        capsys, cli.call(config.Finetune, finetune.run, ["--augment.flip", "[0]"])
    )


@pytest.mark.parametrize("recipe", [finetune, feature_extraction])
def test_a_pretrained_backbone_takes_photos_alone(folder: Path, recipe, capsys: pytest.CaptureFixture):
    config_class = {finetune: config.Finetune, feature_extraction: config.FeatureExtraction}[recipe]
    write_sounds(folder / "sounds", {"a": 3, "b": 3})
    write_arrays(folder / "volumes.npz")
    for source, path, kind in (("folder", "sounds", "sounds"), ("npz", "volumes.npz", "arrays")):
        argv = ["--data.source", source, "--data.path", path]
        said = refused(capsys, cli.call(config_class, recipe.run, argv))
        assert f"which holds {kind}; a pretrained backbone takes photos: train a network of your own with" in said


def test_predict_takes_photos_alone(folder: Path, splits: data.Splits, capsys: pytest.CaptureFixture):
    train.build(config.Train(builder=config.Builder(**config.CNN)), splits).save("volumes.keras")
    (folder / "a.wav").write_bytes(sounds.encode(np.zeros((9, 1)), 8000))
    assert cli.call(config.Predict, predict.run, ["volumes.keras", "a.wav"], ("model", "photos")) == 2
    assert "maps (None, 8, 8, 8, 1) to (None, 2); predict needs a classifier of photos" in capsys.readouterr().err


# A graph --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ring(tmp_path: Path) -> Path:
    """Two rings of 30 nodes, one for each class; features tell a node's class in a third of the cases."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) // 30
    features = rng.random((60, 8))
    features[np.arange(60), labels] += (np.arange(60) % 3 == 0) * 9
    edges = [(node, (node + 1) % 30 + 30 * (node // 30)) for node in range(60)]
    parts = np.split(rng.permutation(60), [20, 40])
    names = ("train_idx", "val_idx", "test_idx")
    np.savez(
        tmp_path / "ring.npz", features=features, labels=labels, edges=edges, **dict(zip(names, parts, strict=True))
    )
    return tmp_path / "ring.npz"


@pytest.mark.thorough
@pytest.mark.usefixtures("undrawn")
def test_a_graph_leaves_a_run_that_repeats_bit_for_bit(folder: Path, ring: Path, capsys: pytest.CaptureFixture):
    argv = ["--data.path", str(ring), "--full.epochs", "12", "--full.learning_rate", "0.05"]
    assert cli.call(config.TrainGraph, train_graph.run, argv) == 0
    out = capsys.readouterr().out
    assert "\n  mlflow.keras.load_model(" in out
    assert "nodes: 60, 20 training, 20 validation, 20 test; 2 classes; 8 features; 60 edges" in out
    run = repeats_bit_for_bit(config.TrainGraph, train_graph.run)
    assert artifacts(run) == {
        "config.yaml", "decisions.json", "split_manifest.csv", "predictions.json",
        "learning_curves.png", "confusion_matrix.png", "class_scores.png", "class_scores.json",
        "report.html", "model_card.md", "calibration.png",
    }  # fmt: skip
    assert run.data.metrics["test_accuracy"] > 0.8  # 0.5 by chance
    assert run.data.metrics["test_ece_low"] <= run.data.metrics["test_ece"] <= run.data.metrics["test_ece_high"]
    assert "20 nodes: too few to show" in artifact(run, "report.html").read_text(encoding="utf-8")  # of other models
    assert (run.data.tags["recipe"], run.data.tags["backbone"]) == ("train_graph", "gcn")
    assert run.data.params["units"] == "[16]"
    assert any(
        line.startswith("tlkit==")
        for line in (artifact(run, "model") / "requirements.txt").read_text(encoding="utf-8").split()
    )
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "learning_rate")
    assert [metric.value for metric in history] == pytest.approx([0.05] * 12)
    loaded = graph.load(ring)
    probabilities = mlflow.keras.load_model(f"runs:/{run.info.run_id}/model").predict(
        [loaded.features[None], loaded.edges[None]], verbose=0
    )
    loss = -np.log(probabilities[0, loaded.test, loaded.labels[loaded.test]]).mean()
    assert loss == pytest.approx(run.data.metrics["test_loss"], rel=1e-5)


def test_only_the_training_nodes_labels_are_learned_from(ring: Path):
    """The first step equals one by hand, on the training nodes' mean loss with half the weights' squares."""
    loaded = graph.load(ring)
    made = builders.gcn((None, 8), classes=2, dropout=0.0, kernel_regularizer=keras.regularizers.L2(0.05))
    inputs = [loaded.features[None], loaded.edges[None]]
    probabilities = made.predict(inputs, verbose=0)[0]
    penalty = 0.05 * (made.get_weights()[0] ** 2).sum()

    def loss(nodes: np.ndarray) -> float:
        return -np.log(probabilities[nodes, loaded.labels[nodes]]).mean() + penalty

    history = training.fit_graph(made, loaded, training.Settings(1, 1e-9, schedule="constant", warmup=0.0))
    assert history.best["loss"] == pytest.approx(loss(loaded.train), rel=1e-5)
    assert history.best["val_loss"] == pytest.approx(loss(loaded.val), rel=1e-5)
    right = probabilities.argmax(-1) == loaded.labels
    assert history.best["accuracy"] == pytest.approx(right[loaded.train].mean())
    assert history.best["val_accuracy"] == pytest.approx(right[loaded.val].mean())


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--data.path", "gone.npz"], "data.path is 'gone.npz'; there is no such file or folder"),
        (["--data.path", "x.npz", "--units", "[]"], "units is []; it must have one number or more"),
        (["--data.path", "x.npz", "--dropout", "1"], "dropout is 1.0; it must be from 0 to below 1"),
        (["--data.path", "x.npz", "--full.epochs", "0"], "full.epochs is 0; it must be 1 or more"),
        (["--data.path", "x.npz", "--full.warmup", "0"], "unknown setting full.warmup"),
        ([], "data.path"),
    ],
)
def test_graph_settings_that_cannot_be(folder: Path, argv: list[str], says: str, capsys: pytest.CaptureFixture):
    assert says in refused(capsys, cli.call(config.TrainGraph, train_graph.run, argv))


def test_a_graph_whose_splits_overlap_is_refused(folder: Path, ring: Path, capsys: pytest.CaptureFixture):
    arrays = dict(np.load(ring))
    np.savez(folder / "leak.npz", **{**arrays, "test_idx": arrays["train_idx"]})
    said = refused(capsys, cli.call(config.TrainGraph, train_graph.run, ["--data.path", "leak.npz"]))
    assert "train_idx and test_idx share 20 nodes" in said


# The published data, with TLKIT_DATA ----------------------------------------------------------------------------------

ROOT = Path(__file__).parents[1]


@pytest.mark.real
@pytest.mark.parametrize(
    ("verb", "name", "path", "metric", "least"),
    [
        ("train", "fsdd", "fsdd", "test_accuracy", 0.96),
        ("train", "adrenalmnist3d", "adrenalmnist3d/adrenalmnist3d.npz", "test_auc", 0.86),
        ("train_graph", "cora", "cora/cora_planetoid.npz", "test_accuracy", 0.80),
    ],
)
def test_real_data_score_what_the_run_file_says(folder, verb: str, name: str, path: str, metric: str, least: float):
    data_folder = os.environ.get("TLKIT_DATA")
    if not data_folder:
        pytest.skip("TLKIT_DATA is not set")
    file = ROOT / "recipes" / verb / f"{name}.yaml"
    argv = ["--config", str(file), "--data.path", str(Path(data_folder) / path)]
    if verb == "train":
        assert cli.call(config.Train, train.run, argv) == 0
    else:
        assert cli.call(config.TrainGraph, train_graph.run, argv) == 0
    assert runs()[0].data.metrics[metric] >= least
