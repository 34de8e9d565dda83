"""Low-rank adaptation: what learns, that the factors are merged exactly, and that phases, checkpoints and rates fit."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pytest

from tlkit import backbones, builders, cli, config, data, training
from tlkit.data import Photos
from tlkit.errors import InvalidInput
from tlkit.recipes import finetune
from tlkit.training import activations, checkpoints, finetuning, full, rates, variables
from tlkit.training.plans import FineTuning

RANK = 2


def vit() -> keras.Model:
    network = builders.build("vit_mini", (32, 32, 1), include_top=False)
    return keras.Model(network.input, network.output, name="backbone")


NETWORKS = {  # the backbone, the first stage that learns, and what of it has factors, by the layers' names
    "vit": (
        vit,
        "stage4",
        ["attention_output", "key", "query", "stage4_block1_dense1", "stage4_block1_dense2", "value"],
    ),
    "MobileNet": (
        lambda: backbones.build("MobileNet", (32, 32, 3), weights="none", alpha=0.25),
        "stage4",
        ["conv_pw_12", "conv_pw_13"],
    ),
    "LetterNet": (lambda: backbones.build("LetterNet", weights="none"), None, None),
}


def classifier(name: str, seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    build, stage, _ = NETWORKS[name]
    model = backbones.classifier(build(), 2)
    backbones.unfreeze(model, from_stage=stage)
    return model


def pixels(model: keras.Model, count: int = 8) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, *model.input_shape[1:])).astype("float32")


def step(model: keras.Model) -> keras.Model:
    logits = training.to_logits(model)
    training.compiled(logits, training.Settings(1, 0.05), 0.05)
    for _ in range(2):
        logits.train_on_batch(pixels(model), np.arange(8) % 2)
    return logits


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "vit" else pytest.mark.slow) for name in NETWORKS]
)
def test_factors_learn_and_merge_into_an_ordinary_model(name: str, tmp_path: Path, request: pytest.FixtureRequest):
    if name != "MobileNet":
        request.getfixturevalue("uncompiled")
    model = classifier(name)
    photos, names = pixels(model), [variable.path for variable in model.variables]
    trainable = [variable.path for variable in model.trainable_variables]
    kernels = {v.path: np.array(v) for v in model.variables}
    before = model.predict_on_batch(photos)
    with backbones.low_rank(model, RANK):
        layers = [layer for layer in model._flatten_layers() if getattr(layer, "lora_enabled", False)]
        assert NETWORKS[name][2] in (None, sorted(layer.name for layer in layers))
        learns = {v.path for v in model.trainable_variables}
        assert all(f"{layer.path}/lora_kernel_{each}" in learns for layer in layers for each in "ab")
        np.testing.assert_allclose(model.predict_on_batch(photos), before, atol=1e-6)
        logits = step(model)
        with_factors = logits.predict_on_batch(photos)
    merged = training.to_logits(model).predict_on_batch(photos)
    np.testing.assert_allclose(merged, with_factors, atol=1e-5)
    assert np.abs(model.predict_on_batch(photos) - before).max() > 1e-3
    np.testing.assert_allclose(logits.predict_on_batch(photos), merged, atol=1e-5)  # compiled while there were factors
    assert [variable.path for variable in model.variables] == names
    assert [variable.path for variable in model.trainable_variables] == trainable
    adapted = {f"{layer.path}/kernel" for layer in layers}
    for variable in model.variables:  # and all else has stayed
        own = variable.path in adapted or "head" in variable.path or variable.name in ("gamma", "beta")
        kept = np.array_equal(np.array(variable), kernels[variable.path])
        assert own or kept or "seed" in variable.path, variable.path
        if variable.path in adapted:
            change = (np.array(variable) - kernels[variable.path]).reshape(-1, variable.shape[-1])
            assert 0 < np.linalg.matrix_rank(change, tol=1e-4) <= RANK
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert '"lora_rank": 2' not in json.dumps(json.loads(archive.read("config.json")))
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict_on_batch(photos), model.predict_on_batch(photos), atol=1e-6)


@pytest.mark.usefixtures("uncompiled")
def test_a_share_of_a_change_is_that_share_of_the_merged_kernels():
    model = classifier("MobileNet")
    kernel = model.get_layer("backbone").get_layer("conv_pw_13")
    with backbones.low_rank(model, RANK):
        logits = training.to_logits(model)
        old, before = logits.get_weights(), np.array(kernel.kernel)
        step(model)
        new, after = logits.get_weights(), np.array(kernel.kernel)
        logits.set_weights(variables.between(logits.weights, old, new, 0.25))
    np.testing.assert_allclose(np.array(kernel.kernel), before + 0.25 * (after - before), atol=1e-6)
    assert np.abs(after - before).max() > 1e-3


def test_factors_learn_faster_than_the_head_and_by_stage():
    model = classifier("MobileNet")
    backbones.unfreeze(model, from_stage="stage3")
    with backbones.low_rank(model, RANK):
        settings = training.Settings(1, 0.01, layer_decay=0.5)
        _, factors = full._learning_part(model, settings, backbones.stages(model))
        own = {"conv_pw_13/lora_kernel_a": 0.5 * full.LORA_RATE, "conv_pw_11/lora_kernel_b": 0.25 * full.LORA_RATE}
        assert {path: factors[path] for path in own} == own
        assert factors.get("head/kernel", 1.0) == 1.0
        exact = training.Settings(1, 0.01, learning_rates={"stage4": 0.02})
        _, factors = full._learning_part(model, exact, backbones.stages(model))
        assert factors["conv_pw_13/lora_kernel_a"] == 2.0


class Killed(BaseException):
    """Ends the process's work at once."""


class Kill(keras.callbacks.Callback):
    """In the middle of the second part."""

    steps = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.steps += 1
        if self.steps == 5:
            raise Killed


@pytest.fixture
def splits() -> data.Splits:
    labels = np.arange(40) % 2
    values = np.random.default_rng(0).integers(0, 100, (40, 32, 32, 1)) + labels[:, None, None, None] * 20
    photos = Photos.of(values.astype(np.uint8), labels)
    return data.Splits(["a", "b"], photos, photos, photos, [], [])


PLAN = FineTuning(
    head=training.Settings(0, 0.1),
    full=training.Settings(2, 0.001, patience=None, batch_size=16, weight_decay=0.01),
    solve=False,
    stages=["stage3", "stage2"],
    lora_rank=RANK,
)


@pytest.mark.slow
@pytest.mark.usefixtures("uncompiled")
def test_a_killed_run_resumes_to_the_same_weights(splits: data.Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoints, "pause", lambda cost: 0.0)
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)

    def fit(folder: str, *callbacks: Any) -> tuple[keras.Model, training.History]:
        model = classifier("LetterNet")
        whole = activations.FullInput(model, splits.train, splits.val)
        more = {"checkpointing": lambda phase: training.Checkpointing(tmp_path / folder / f"{phase}.npz", True)}
        return model, finetuning.fit_phases(model, whole, None, PLAN, callbacks=callbacks, **more)

    model, history = fit("whole")
    assert [epoch["phase"] for epoch in history.epochs] == ["full1", "full2"]
    with pytest.raises(Killed):
        fit("killed", Kill())
    assert (tmp_path / "killed" / "full2.npz").exists()
    resumed, again = fit("killed")
    assert [epoch["loss"] for epoch in again.epochs] == [epoch["loss"] for epoch in history.epochs]
    for a, b in zip(resumed.weights, model.weights, strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b), err_msg=a.path)


@pytest.mark.usefixtures("uncompiled")
def test_a_range_test_leaves_the_model_as_it_was(splits: data.Splits):
    model = classifier("LetterNet")
    before = variables.values(model.variables)
    test = rates.range_test(model, splits, PLAN, "full", None, steps=3)
    assert len(test.rates) == 3
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, np.array(variable), err_msg=variable.path)


@pytest.mark.thorough
@pytest.mark.usefixtures("undrawn", "uncompiled")
def test_the_recipe_saves_a_model_without_factors(folder: Path, photos: Path, capsys: pytest.CaptureFixture):
    argv = ["--data.path", str(photos), "--backbone.name", "LetterNet", "--data.image_size", "16"]
    more = ["--full.epochs", "1", "--full.lora_rank", "3", "--batch_size", "auto"]
    assert cli.call(config.Finetune, finetune.run, [*argv, *more]) == 0
    assert "factors of rank 3 beside" in capsys.readouterr().out
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.data.params["full.lora_rank"] == "3"
    (path,) = Path().rglob("model.keras")
    model = keras.models.load_model(path)
    assert not [v.path for v in model.variables if "lora" in v.path]
    assert not [layer for layer in model._flatten_layers() if getattr(layer, "lora_rank", None)]


def test_what_has_nothing_to_adapt_is_refused():
    inputs = keras.Input((8, 8, 3))
    network = keras.Model(inputs, keras.layers.DepthwiseConv2D(3, name="stem")(inputs), name="backbone")
    model = backbones.classifier(network, 2)
    for rank, says in ((1, "no dense layer and no convolution"), (0, "lora_rank is 0: 1 or more")):
        with pytest.raises(InvalidInput, match=says), backbones.low_rank(model, rank):
            pass
    assert len(model.trainable_variables) == 4
