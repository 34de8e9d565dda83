"""Keras' backend: chosen before Keras is imported, and the same numbers from either."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tlkit import backbones, cli, features, inference, labels, startup
from tlkit.cli import running
from tlkit.cli.commands import COMMANDS
from tlkit.config import Describe, FeatureExtraction, Finetune, Predict, Select
from tlkit.errors import InvalidInput
from tlkit.features.store import Store
from tlkit.recipes import describe, feature_extraction, finetune, predict, select
from tlkit.serving import lean

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or not startup.is_installed("openvino"),
    reason="compares TensorFlow with OpenVINO",
)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """As in a process that has not imported Keras, with three packages and without settings or a GPU."""
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.delenv(startup.VARIABLE, raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(startup, "is_installed", lambda name: name in ("tensorflow", "openvino", "numpy"))
    monkeypatch.setattr(startup, "has_gpu", lambda: False)
    return monkeypatch


# The choice -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ('{"backend": "jax"}', "jax"),
        ('{"backend": "tensorflow"}', None),  # Keras writes that itself
        ("[]", None),
        ('{"backend": 1}', None),
        ("{", None),
        (None, None),
    ],
)
def test_keras_json_may_choose(fresh, tmp_path: Path, settings: str | None, expected: str | None):
    if settings:
        (tmp_path / "keras.json").write_text(settings, encoding="utf-8")
    assert startup.asked() == expected
    fresh.setenv(startup.VARIABLE, "torch")
    assert startup.asked() == "torch"


def test_what_only_predicts_takes_openvino_where_nobody_chose(fresh):
    assert startup.choose(trains=False) == "openvino"
    assert startup.choose(trains=True) is None
    assert startup.choose(trains=False, lean=False) is None
    fresh.setenv(startup.VARIABLE, "tensorflow")
    assert startup.choose(trains=False) is None
    fresh.delenv(startup.VARIABLE)
    fresh.setattr(startup, "has_gpu", lambda: True)
    assert startup.choose(trains=False) is None
    fresh.setattr(startup, "is_installed", lambda name: name == "tensorflow")
    fresh.setattr(startup, "has_gpu", lambda: False)
    assert startup.choose(trains=False) is None


def test_a_backend_that_is_loaded_is_never_changed(fresh):
    fresh.setitem(sys.modules, "keras", keras)
    fresh.setenv(startup.VARIABLE, "no such")
    assert startup.choose(trains=False) is startup.choose(trains=True) is None


@pytest.mark.parametrize(
    ("backend", "trains", "message"),
    [
        ("theano", False, "KERAS_BACKEND is 'theano', which is no backend of Keras; set KERAS_BACKEND to what is "
         "installed: tensorflow, openvino or numpy"),
        ("jax", False, "KERAS_BACKEND is 'jax', which is not installed; .*: tensorflow, openvino or numpy"),
        ("openvino", True, "KERAS_BACKEND is 'openvino', which predicts but does not train; .*: tensorflow$"),
        ("numpy", True, "KERAS_BACKEND is 'numpy', which predicts but does not train"),
    ],
)  # fmt: skip
def test_a_backend_that_cannot_do_it_is_one_line(fresh, backend: str, trains: bool, message: str):
    fresh.setenv(startup.VARIABLE, backend)
    with pytest.raises(InvalidInput, match=message):
        startup.choose(trains)


def test_without_tensorflow_the_line_names_what_is_there(fresh, tmp_path: Path):
    fresh.setattr(startup, "is_installed", lambda name: name in ("jax", "numpy"))
    with pytest.raises(InvalidInput, match=r"'tensorflow', its default, which is not installed; .*: jax$"):
        startup.choose(trains=True)
    (tmp_path / "keras.json").write_text('{"backend": "torch"}', encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"'torch', by keras.json, which is not installed; .*: jax or numpy$"):
        startup.choose(trains=False)
    fresh.setattr(startup, "is_installed", lambda name: False)
    with pytest.raises(InvalidInput, match="none of tensorflow, jax, torch is installed: pip install tensorflow"):
        startup.choose(trains=True)


def test_the_variable_is_set_in_the_block_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(startup.VARIABLE, raising=False)
    with startup.taking("openvino"):
        assert os.environ[startup.VARIABLE] == "openvino"
    assert startup.VARIABLE not in os.environ
    monkeypatch.setenv(startup.VARIABLE, "jax")
    with startup.taking("openvino"):
        pass
    assert os.environ[startup.VARIABLE] == "jax"


# On the command line --------------------------------------------------------------------------------------------------


def test_each_command_says_what_it_needs_keras_for():
    trains = {row.name for row in COMMANDS if row.keras == "trains"}
    assert trains == {"finetune", "train", "train_graph", "tune", "pretrain", "find_lr", "auto"}
    assert {row.name for row in COMMANDS if not row.keras} == {"ui", "export", "cache", "sync"}


def backend_of(monkeypatch: pytest.MonkeyPatch, config_class, module, argv: list[str]) -> str | None:
    """What KERAS_BACKEND is while a command runs."""
    seen = []

    def run(config: object) -> None:
        seen.append(os.environ.get(startup.VARIABLE))

    run.__module__ = module.__name__
    monkeypatch.setattr(sys, "orig_argv", ["python", *argv])
    assert cli.call(config_class, run, argv, ("model", "photos") if config_class is Predict else ()) == 0
    return seen[0]


def test_a_command_takes_what_its_row_says_unless_its_settings_need_more(fresh):
    assert backend_of(fresh, Predict, predict, ["m.keras", "p.jpg"]) == "openvino"
    assert backend_of(fresh, Finetune, finetune, []) is None
    assert backend_of(fresh, FeatureExtraction, feature_extraction, ["--seed", "1"]) == "openvino"
    for words in (["--precision", "mixed_bfloat16"], ["--features.engine", "keras"]):
        assert backend_of(fresh, FeatureExtraction, feature_extraction, words) is None
    for name, expected in (("hub:vit_base", None), ("VGG16", "openvino")):
        assert backend_of(fresh, FeatureExtraction, feature_extraction, ["--backbone.name", name]) == expected
        assert backend_of(fresh, Describe, describe, ["--builder.name", name.lower()]) == expected
        ranked = ["--backbones", f"[{{name: MobileNet, alpha: 0.5}}, '{name}']"]
        assert backend_of(fresh, Select, select, ranked) == expected
    fresh.setattr(sys, "orig_argv", ["python", "script.py"])  # a program of the user's calls it

    def run(config: object) -> None:
        assert startup.VARIABLE not in os.environ

    run.__module__ = predict.__name__
    assert cli.call(Predict, run, ["m.keras", "p.jpg"], ("model", "photos")) == 0


def test_what_openvino_cannot_do_is_done_again_with_tensorflow(fresh, capsys: pytest.CaptureFixture):
    started = []

    def run(config: object) -> None:
        raise InvalidInput("'m.keras' cannot predict") from NotImplementedError("`svd` is not supported")

    def run_wrongly(config: object) -> None:
        raise InvalidInput("there is no photo 'openvino.jpg'")

    fresh.setattr(os, "execve", lambda *arguments: started.append(arguments))
    fresh.setattr(sys, "orig_argv", ["python", "-m", "tlkit.recipes.predict", "m", "p"])
    for function in (run, run_wrongly):
        function.__module__ = predict.__name__
    cli.call(Predict, run, ["m", "p"], ("model", "photos"))
    ((program, words, environment),) = started
    assert (program, words[1:]) == (sys.executable, sys.orig_argv[1:])
    assert environment[startup.VARIABLE] == "tensorflow"
    assert "predict: OpenVINO cannot do this (`svd` is not supported): again with TensorFlow" in capsys.readouterr().err
    assert cli.call(Predict, run_wrongly, ["m", "p"], ("model", "photos")) == cli.USAGE
    assert len(started) == 1


def test_a_wrong_backend_ends_a_command_before_any_work(fresh, capsys: pytest.CaptureFixture):
    fresh.setenv(startup.VARIABLE, "openvino")
    assert cli.call(Finetune, finetune.run, []) == running.USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("finetune: error: KERAS_BACKEND is 'openvino', which predicts but does not train; set")


# Equal numbers --------------------------------------------------------------------------------------------------------


def test_openvino_is_asked_for_the_precision():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    if keras.backend.backend() == "openvino":
        network, _ = inference.graph(model, np.zeros((1, 4), np.float32))
    elif keras.backend.backend() == "tensorflow" and startup.is_installed("openvino"):
        network = startup.openvino().convert_model(model, example_input=np.zeros((1, 4), np.float32))
    else:
        pytest.skip("OpenVINO cannot read this backend's networks")
    assert inference.compile_network(network).get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, keras.Model]:
    """A small classifier, and where its file is."""
    keras.utils.set_random_seed(0)
    model = backbones.classifier(backbones.build("LetterNet"), 3)
    model.get_layer("head").set_weights([np.random.default_rng(0).normal(0, 0.3, (128, 3)), np.zeros(3)])
    path = tmp_path_factory.mktemp("model") / "m.keras"
    model.save(path)
    labels.write(path, ["a", "b", "c"])
    return path, model


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a user who has chosen no backend, and whose TensorFlow fails when it is imported."""
    package = tmp_path / "without" / "tensorflow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('TensorFlow is imported')", encoding="utf-8")
    places = [str(package.parent), str(Path(startup.__file__).parents[1])]
    return {
        **{name: value for name, value in os.environ.items() if name != startup.VARIABLE},
        "PYTHONPATH": os.pathsep.join(places),
        "KERAS_HOME": str(tmp_path / "keras"),
        "CUDA_VISIBLE_DEVICES": "",
    }


def run(words: list[str], environment: dict[str, str], folder: Path) -> str:
    command = [sys.executable, *words]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


PREDICT = """
import sys
import numpy as np
from tlkit import startup
with startup.taking("openvino"):
    import keras
    from tlkit import inference
    from tlkit.backbones import modelfiles
model = modelfiles.load(sys.argv[1])
pixels = np.load(sys.argv[2])
bfloat16 = "BF16" in inference.core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
theirs = keras.saving.load_model(sys.argv[1]).predict_on_batch(pixels)
ours, again = model.predict_on_batch(pixels), model.predict(pixels, batch_size=5, verbose=0)
np.savez(sys.argv[3], bfloat16=bfloat16, theirs=theirs, ours=ours, again=again)
"""


@pytest.mark.thorough
@on_tensorflow
def test_float32_on_every_processor(saved, environment: dict[str, str], tmp_path: Path):
    """On a CPU that has bfloat16, what Keras itself compiles is off by a hundred times as much."""
    path, model = saved
    pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 1)).astype(np.float32)
    np.save(tmp_path / "pixels.npy", pixels)
    run(["-c", PREDICT, str(path), "pixels.npy", "out.npz"], environment, tmp_path)
    outputs, expected = np.load(tmp_path / "out.npz"), model.predict(pixels, verbose=0)
    if outputs["bfloat16"]:
        assert np.abs(outputs["theirs"] - expected).max() > 1e-3  # so the pixels tell
    np.testing.assert_allclose(outputs["ours"], expected, atol=1e-5)
    np.testing.assert_allclose(outputs["again"], expected, atol=1e-5)


@on_tensorflow
def test_predict_prints_the_same_without_tensorflow(saved, environment: dict[str, str], tmp_path: Path):
    path, model = saved
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    printed = run(["-m", "tlkit.recipes.predict", str(path), "p.png"], environment, tmp_path).split()
    expected = dict(zip("abc", model.predict(pixels[None, ..., None], verbose=0)[0], strict=True))
    for name, value in zip(printed[1::2], printed[2::2], strict=True):
        assert float(value) == pytest.approx(expected[name], abs=6e-5)


@pytest.mark.thorough
@on_tensorflow
def test_features_and_models_are_shared(
    environment: dict[str, str], tmp_path: Path, cache: Path, database: Path, monkeypatch: pytest.MonkeyPatch
):
    """Features that TensorFlow's process stored are found without it, and its model is that of TensorFlow."""
    from tlkit import data, training

    splits = data.load("embedded", size=(32, 32), channels=1)
    network = backbones.classifier(backbones.build("LetterNet"), 10)
    extractor = features.Extractor(features.pooled(network), Store(cache))
    extractor.extract(splits.train, splits.val, splits.test)
    (tmp_path / "mlflow.db").write_bytes(database.read_bytes())
    printed = run(["-m", "tlkit.recipes.feature_extraction", "--data.source", "embedded",
                   "--backbone.name", "LetterNet", "--backbone.pooled_stages", "1"], environment, tmp_path)  # fmt: skip
    assert ", 0 computed" in printed
    if extractor.engine != "openvino":
        pytest.fail("the features are not OpenVINO's")
    (file,) = tmp_path.glob("mlruns/*/models/*/artifacts/data/model.keras")
    (table,) = tmp_path.glob("mlruns/*/*/artifacts/predictions.json")
    content = json.loads(table.read_text(encoding="utf-8"))
    rows = [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
    model = keras.saving.load_model(file)
    predicted = training.predict(model, splits.test).max(axis=1)
    by_file = {row["file"]: row["probability"] for row in rows}
    np.testing.assert_allclose([by_file[name] for name in splits.test.names], predicted, atol=1e-5)


# The pyfunc -----------------------------------------------------------------------------------------------------------


def test_known_layers_are_told_from_the_file(saved, tmp_path: Path):
    path, _ = saved
    assert lean.is_known(path)
    model = keras.Sequential([keras.Input((4, 3)), keras.layers.LSTM(2)])
    model.save(tmp_path / "other.keras")
    assert not lean.is_known(tmp_path / "other.keras")
    inner = keras.Sequential([keras.Input((4, 3)), model, keras.layers.Dense(2)])
    inner.save(tmp_path / "inner.keras")
    assert not lean.is_known(tmp_path / "inner.keras")
    assert not lean.is_known(tmp_path / "no such.keras")
    (tmp_path / "text.keras").write_text("text", encoding="utf-8")
    assert not lean.is_known(tmp_path / "text.keras")


def test_the_pyfunc_leaves_a_loaded_keras_alone(saved, fresh):
    path, _ = saved
    assert lean.backend(path) == "openvino"
    fresh.setitem(sys.modules, "keras", keras)
    assert lean.backend(path) is None
