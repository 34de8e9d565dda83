"""KerasHub's backbones: all of tlkit works on them, family by family, and what cannot be is one line."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import write_photos
from hub_families import FAMILIES, SIDE, SMALL
from hub_families import features as expected_features
from hub_families import save as save_preset

from tlkit import backbones, data, explanation, export, features, probes
from tlkit.backbones import hub, hubpresets, modelfiles
from tlkit.errors import InvalidInput, Unavailable

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("keras_hub") is None, reason="KerasHub is not installed"),
    pytest.mark.filterwarnings("ignore"),  # KerasHub's own, at its import
]
ROWS = [pytest.param(name, marks=() if name == SMALL else pytest.mark.slow) for name in FAMILIES]
from_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras exports from TensorFlow")


@pytest.fixture(scope="session")
def presets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("presets")


def preset(presets: Path, name: str) -> Path:
    return presets / name if (presets / name).exists() else save_preset(name, presets / name)


def adopted(presets: Path, name: str) -> hub.Hub:
    return hub.adopt(f"hub:{preset(presets, name)}", accept_license=FAMILIES[name].accept)


def photos(count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 255, (count, SIDE, SIDE, 3)).astype(np.float32)


def computed(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(x, training=False)))


@pytest.mark.parametrize("name", ROWS)
def test_features_are_those_of_kerashubs_converter_and_backbone(presets: Path, name: str):
    found = adopted(presets, name)
    x = photos()
    ours = computed(found.network, x).mean(axis=(1, 2))
    theirs = expected_features(name, preset(presets, name), x)
    assert theirs.std(axis=0).max() > 1e-3
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_all_of_tlkit_works_on_a_family(presets: Path, tmp_path: Path, name: str):
    found = adopted(presets, name)
    assert tuple(found.row.stages) == FAMILIES[name].stages
    model = backbones.classifier(found.network, 2, pooled_stages=2)
    splits = data.load("folder", path=write_photos(tmp_path, {"a": 8, "b": 8}), size=(SIDE, SIDE))
    solve(model, splits)
    assert (model.predict(splits.train.read(range(len(splits.train))), verbose=0).argmax(axis=1)
            == splits.train.labels).mean() > 0.9  # fmt: skip
    for stage in found.row.stages:
        check_trained(model, found, stage)
    first = list(found.row.stages)[min(1, len(found.row.stages) - 1)]
    step(model, first, photos(4))
    heat, _ = explanation.explainer(model).heatmaps(photos(1), np.array([-1]))
    assert min(heat.shape[1:]) > 1
    assert np.isfinite(heat).all()
    model.save(tmp_path / "model.keras")
    again = modelfiles.load(tmp_path / "model.keras")
    x = photos()
    np.testing.assert_allclose(computed(again, x), computed(model, x), atol=1e-6)
    assert list(backbones.stages(again)) == list(found.row.stages)
    again.save(tmp_path / "again.keras")
    np.testing.assert_allclose(computed(modelfiles.load(tmp_path / "again.keras"), x), computed(model, x), atol=1e-6)


@from_tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("form", ["onnx", "openvino", "keras_hub"])
def test_exports_answer_as_the_model_does(presets: Path, tmp_path: Path, name: str, form: str):
    if form == "onnx" and any(importlib.util.find_spec(each) is None for each in export.FORMATS[form].needs):
        pytest.skip("the extra onnx is not installed")
    model = backbones.classifier(adopted(presets, name).network, 3, pooled_stages=2)
    x = photos()
    set_head_that_tells_apart(model, x)
    path = export.write(form, model, tmp_path)
    expected = computed(model, x)
    assert np.ptp(expected, axis=0).min() > 0.01
    np.testing.assert_allclose(export.run(form, path, x), expected, atol=1e-4)


def set_head_that_tells_apart(model: keras.Model, x: np.ndarray) -> None:
    """Have logits differ from photo to photo by one or so: certain answers are equal whatever the features are."""
    values = computed(features.pooled(model), x)
    centred = values - values.mean(axis=0)
    kernel = np.random.default_rng(0).normal(size=(values.shape[1], 3)) / np.linalg.norm(centred, axis=1).mean()
    backbones.set_head(model, kernel, -values.mean(axis=0) @ kernel)


def solve(model: keras.Model, splits: data.Splits) -> None:
    """Solve the head on features that both engines give alike."""
    network = features.pooled(model)
    names = ["keras", "openvino"] if keras.backend.backend() == "tensorflow" else ["keras"]
    both = [features.Extractor(network, None, name).extract(splits.train)[0].array() for name in names]
    np.testing.assert_allclose(both[-1], both[0], atol=1e-4 * max(1.0, np.abs(both[0]).max()))
    probe = probes.logistic_regression(both[0], splits.train.labels, 2)
    backbones.set_head(model, probe.kernel, probe.bias)


def check_trained(model: keras.Model, found: hub.Hub, stage: str) -> None:
    """Check that exactly the layers from a stage on are trained, by their place in the file."""
    backbones.unfreeze(model, from_stage=stage)
    names = [layer.name for layer in found.network.layers]
    place = list(found.row.stages).index(stage)
    below = list(found.row.stages)[place - 1] if place else None
    needed = {layer.name for layer in keras.Model(
        found.network.input, found.network.get_layer(below).output).layers} if below else set()  # fmt: skip
    trained = {id(weight) for weight in model.trainable_weights}
    for layer in found.network.layers:
        for weight in layer.weights:
            learns = weight.trainable or isinstance(layer, keras.layers.BatchNormalization)
            statistics = "moving" in weight.path or not learns or "int" in str(weight.dtype)
            assert (id(weight) in trained) == (layer.name not in needed and not statistics), (stage, weight.path)
    assert len(trained) > 2
    assert not below or names.index(below) < len(names) - 1


def step(model: keras.Model, stage: str, x: np.ndarray) -> None:
    """Train once; what is below the stage stays, and what is above changes."""
    backbones.unfreeze(model, from_stage=stage)
    before = {id(weight): np.array(weight) for weight in model.weights}
    trained = {id(weight) for weight in model.trainable_weights}
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=keras.backend.backend() != "jax")
    model.fit(x, np.arange(len(x)) % 2, verbose=0)
    changed = {id(weight) for weight in model.weights if not np.array_equal(before[id(weight)], np.array(weight))}
    assert not changed - trained
    assert len(changed) > len(trained) / 3


@pytest.mark.slow
def test_saved_models_are_loaded_where_only_keras_and_tlkit_are_imported(presets: Path, tmp_path: Path):
    answers = {}
    for name in FAMILIES:
        model = backbones.classifier(adopted(presets, name).network, 2, pooled_stages=2)
        model.save(tmp_path / f"{name}.keras")
        answers[name] = computed(model, photos()).tolist()
    code = (
        "import json, sys, numpy, tlkit\nfrom tlkit import inference\nfrom tlkit.backbones import modelfiles\n"
        f"x = numpy.random.default_rng(1).uniform(0, 255, (3, {SIDE}, {SIDE}, 3)).astype('float32')\n"
        "load = lambda name: inference.in_full_precision(modelfiles.load(f'{name}.keras'))\n"
        "print(json.dumps({name: load(name).predict(x, verbose=0).tolist() for name in sys.argv[1:]}))"
    )
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    for backend in (keras.backend.backend(), "openvino"):  # the latter is that of `tlkit predict`
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, *FAMILIES], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": backend}, timeout=300,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr[-2000:]
        loaded = json.loads(ended.stdout)
        for name in FAMILIES:
            np.testing.assert_allclose(loaded[name], answers[name], atol=1e-5, err_msg=f"{backend}: {name}")


# What is refused -----------------------------------------------------------------------------------------------------


def test_a_licence_that_asks_for_consent_is_refused_until_it_is_accepted(presets: Path):
    """Before the weights are loaded: the folder has none."""
    folder = presets / "gemma"
    if not folder.exists():
        shutil.copytree(preset(presets, "ViT"), folder)
        (folder / "model.weights.h5").unlink()
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config |= {"class_name": "MobileNetV5Backbone", "registered_name": "keras_hub>MobileNetV5Backbone"}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for accepted in (None, "Apache-2.0"):
        with pytest.raises(
            InvalidInput, match=r"the Gemma Terms of Use, https://.* --backbone.accept_license gemma if"
        ):
            hub.adopt(f"hub:{folder}", accept_license=accepted)
    with pytest.raises((InvalidInput, Unavailable), match="KerasHub cannot build"):
        hub.adopt(f"hub:{folder}", accept_license="gemma")


def test_what_is_not_here_is_one_line_in_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hubpresets.weightfiles, "reachable", lambda url: False)
    begin = time.monotonic()
    for name, place, host in (
        ("hub:dinov2_small", tmp_path, "www.kaggle.com"),
        ("hub:kaggle://keras/vit/keras/vit_base", tmp_path, "www.kaggle.com"),
        ("hub:hf://timm/resnet18.a1_in1k", "", "huggingface.co"),
    ):
        with pytest.raises(Unavailable, match=f"looked in .*{place}.* and {host} cannot be reached") as error:
            hub.adopt(name)
        assert "\n" not in str(error.value)
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (None, {"size": 72}, "cannot build .* at 72 x 72 pixels"),
        (None, {"pixels": "torch"}, "has an image converter, which says it"),
        ("image_converter.json", {}, r"no image converter, .* by --backbone.pixels 0..1"),
        ("config.json", {}, "is no preset of KerasHub, as it has no config.json"),
    ],
)
def test_what_cannot_be_is_one_line(presets: Path, tmp_path: Path, change, settings, message):
    folder = shutil.copytree(preset(presets, "ViT"), tmp_path / "preset")
    if change:
        (folder / change).unlink()
    with pytest.raises((InvalidInput, Unavailable), match=message) as error:
        hub.adopt(f"hub:{folder}", **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["{", '{"class_name": "Dense"}', "[]"])
def test_a_damaged_converter_is_not_taken_for_none(presets: Path, tmp_path: Path, content: str):
    folder = shutil.copytree(preset(presets, "ViT"), tmp_path / "preset")
    (folder / "image_converter.json").write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"the image converter of .*preset is damaged or cannot be read: ") as error:
        hub.adopt(f"hub:{folder}")
    assert "\n" not in str(error.value)


def test_names_that_are_none_are_refused_with_those_that_are():
    with pytest.raises(InvalidInput, match="no such preset, but dinov2_small"):
        hub.adopt("hub:dinov2_smal")
    for name in ("hub:/nowhere/at_all", "hub:nowhere"):
        with pytest.raises(InvalidInput, match="there is no such folder, and KerasHub has no such preset: give"):
            hub.adopt(name)


def test_without_the_extra_one_line_names_it(monkeypatch: pytest.MonkeyPatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "keras_hub" else find(name, *a))
    with pytest.raises(InvalidInput, match=r'needs KerasHub: pip install "tlkit\[hub\]"'):
        hub.adopt("hub:dinov2_small")


# KerasHub's tasks ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_folder_that_a_task_saved_is_a_backbone(presets: Path, tmp_path: Path):
    import keras_hub

    task = keras_hub.models.ImageClassifier.from_preset(str(preset(presets, "ViT")), num_classes=4)
    task.save_to_preset(str(tmp_path / "task"))
    found = hub.adopt(f"hub:{tmp_path / 'task'}")
    features_of_task = keras.Model(task.backbone.input, task.backbone.output)
    x = photos()
    expected = computed(features_of_task, np.asarray(task.preprocessor(x)))[:, 0]
    np.testing.assert_allclose(computed(found.network, x)[:, 0, 0], expected, atol=1e-5)
    assert (found.row.size, found.resize) == (SIDE, "center")


@from_tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("name", ["LetterNet", "ViT"])
def test_kerashub_loads_what_we_save(presets: Path, tmp_path: Path, name: str):
    import keras_hub

    backbone = backbones.build("LetterNet", (SIDE, SIDE, 3)) if name == "LetterNet" else adopted(presets, name).network
    model = backbones.classifier(backbone, 3, pooled_stages=2)
    path = export.write("keras_hub", model, tmp_path, "squash")
    task = keras_hub.models.ImageClassifier.from_preset(str(path))
    x = photos()
    np.testing.assert_allclose(task.predict(x, verbose=0), computed(model, x), atol=1e-5)
    assert task.predict(np.zeros((1, 100, 80, 3)), verbose=0).shape == (1, 3)  # its preprocessor resizes
    again = hub.adopt(f"hub:{path}")  # and we load it in turn
    expected = computed(features.pooled(model), x)
    np.testing.assert_allclose(computed(again.network, x)[:, 0, 0], expected, atol=1e-4 * np.abs(expected).max())


# Through the command -------------------------------------------------------------------------------------------------


def test_what_is_found_is_decided_and_said(presets: Path, folder: Path):
    from tlkit import config as configs
    from tlkit.recipes import _decisions, _export_origin, _runs

    write_photos(folder / "photos", {"a": 2, "b": 2})
    name = f"hub:{preset(presets, 'ViT')}"
    config = configs.FeatureExtraction(data=configs.Data(path="photos"), backbone=configs.Backbone(name))
    decided = {each.setting: each for each in _decisions.fill_in(config)}
    assert (
        "ViTBackbone of KerasHub, pixels as its image converter scales them; 5 stages"
        in decided["backbone.name"].reason
    )
    assert decided["backbone.name"].reason.endswith("pooled: its class token")
    assert (decided["data.image_size"].value, decided["data.resize"].value) == (SIDE, "center")
    params = _runs.params(_decisions.applied(config, list(decided.values())), {"data": {"path": "photos"}})
    assert params["backbone.accept_license"] == "Apache-2.0"
    said = _export_origin.licence({key: str(value) for key, value in params.items()})
    assert said == f"Training began with weights of KerasHub, `{name}`, under the licence `Apache-2.0`."


@pytest.mark.slow
def test_a_run_says_and_logs_the_licence(
    presets: Path, folder: Path, capsys: pytest.CaptureFixture, undrawn: None, uncompiled: None
):
    import mlflow

    from tlkit import cli
    from tlkit.config import FeatureExtraction
    from tlkit.recipes import feature_extraction

    write_photos(folder / "photos", {"a": 10, "b": 10})
    name = f"hub:{preset(presets, 'ViT')}"
    words = ["--data.path", "photos", "--backbone.name", name]
    assert cli.call(FeatureExtraction, feature_extraction.run, words) == 0
    said = capsys.readouterr().out
    assert "backbone.accept_license: Apache-2.0, the licence of its published weights" in said
    assert "pooled: its class token" in said
    assert f"data.image_size: {SIDE}" in said
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.data.params["backbone.accept_license"] == "Apache-2.0"
    assert run.data.params["backbone.name"] == name
    card = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/model_card.md")
    assert "under the licence `Apache-2.0`" in card
    assert "license: apache-2.0" in card
