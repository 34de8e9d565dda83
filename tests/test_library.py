"""The library level: a user's own script, without configs and MLflow; the recipe's algorithm in one call."""

from __future__ import annotations

import functools
import runpy
from pathlib import Path

import keras
import numpy as np
import pytest

from tlkit import backbones, data, training
from tlkit.errors import InvalidInput
from tlkit.features.store import Store

SCRIPT = Path(__file__).parents[1] / "docs" / "start" / "digits.py"


@pytest.fixture(scope="module")
def splits() -> data.Splits:
    return data.load("embedded", size=(32, 32), channels=1)


def two_classes(photos: Path) -> data.Splits:
    """Sixty photos, where how well the network learns does not matter."""
    return data.load("folder", path=photos, size=(32, 32), channels=1)


def classifier(splits: data.Splits) -> keras.Model:
    keras.utils.set_random_seed(0)
    return backbones.classifier(backbones.build("LetterNet"), len(splits.classes))


def test_a_script_of_fifteen_lines_loads_builds_fine_tunes_scores_and_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 15
    monkeypatch.chdir(tmp_path)
    result = runpy.run_path(str(SCRIPT))
    assert result["scores"].accuracy > 0.97
    saved = keras.saving.load_model(tmp_path / "digits.keras")
    pixels = result["photos"].read(range(8))
    np.testing.assert_allclose(saved.predict(pixels, verbose=0), result["model"].predict(pixels, verbose=0), atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["digits.keras"]  # no run, no store


@pytest.mark.thorough
def test_only_what_is_unfrozen_learns_and_the_head_is_solved_first(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    from tlkit.training import rates

    few = functools.partial(rates.range_test_full, steps=10)
    monkeypatch.setattr(rates, "range_test_full", few)
    splits = two_classes(photos)
    model = classifier(splits)
    before = {weight.path: np.array(weight) for weight in model.weights}
    history = training.fine_tune(model, splits, unfreeze_from="stage3", epochs=1, learning_rate="auto")
    assert "full: learning rate " in capsys.readouterr().out
    assert [epoch["phase"] for epoch in history.epochs] == ["head", "full"]
    assert history.epochs[0]["val_accuracy"] > 0.97  # solved, not begun at random
    changed = {
        path.split("/")[0].split("_")[0] for path, old in before.items() if not np.array_equal(old, value(model, path))
    }
    assert {weight.path.split("/")[0].split("_")[0] for weight in model.trainable_weights} == {"stage3", "head"}
    assert changed <= {"stage3", "head"}
    assert "head" in changed


def value(model: keras.Model, path: str) -> np.ndarray:
    return next(np.array(weight) for weight in model.weights if weight.path == path)


@pytest.mark.thorough
@pytest.mark.usefixtures("folder", "uncompiled", "undrawn")
def test_the_recipe_and_the_library_learn_the_same(photos: Path):
    """One algorithm: the recipe decides around it, and calls it."""
    from tlkit import config
    from tlkit.recipes import finetune

    splits = two_classes(photos)
    settings = config.Finetune(
        data=config.Data(path=str(photos), image_size=32),
        backbone=config.Backbone("LetterNet", pooled_stages=1),
        full=config.Full(epochs=1, unfreeze_from="stage3", stored=False),
        features=config.Features(store="none"),
        augment=config.Views(flip=False),
    )
    recipe = finetune.run(settings).model
    model = classifier(splits)
    model.get_layer("head").set_weights([0 * weight for weight in model.get_layer("head").get_weights()])
    training.fine_tune(model, splits, unfreeze_from="stage3", epochs=1)
    kernels = [np.asarray(each.get_layer("head").kernel) for each in (recipe, model)]
    np.testing.assert_allclose(*(kernel / np.linalg.norm(kernel) for kernel in kernels), atol=1e-6)  # or a temperature
    features = [each.get_layer("backbone").predict(splits.train.read(range(32)), verbose=0) for each in (recipe, model)]
    np.testing.assert_allclose(*features, atol=1e-6)


def test_photos_of_another_size_are_refused_before_anything_is_computed(splits: data.Splits):
    small = data.load("embedded", size=(16, 16), channels=1)
    with pytest.raises(
        InvalidInput,
        match=r"the photos are \(16, 16, 1\), and the model takes \(32, 32, 1\): load them with size=\(32, 32\)",
    ):
        training.fine_tune(classifier(splits), small)


def test_activations_are_kept_in_a_store_that_is_given(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    store, splits = Store(tmp_path / "store"), two_classes(photos)
    for _ in range(2):
        training.fine_tune(classifier(splits), splits, epochs=0, store=store)
    first, second = [line for line in capsys.readouterr().out.splitlines() if line.startswith("features of")]
    assert "0 from the store" in first
    assert " 0 computed" in second


@pytest.mark.thorough
def test_the_head_is_solved_on_photos_as_on_their_features(photos: Path):
    from tlkit import features

    splits = two_classes(photos)
    models = classifier(splits), classifier(splits)
    training.solve_head(models[0], splits.train, splits.val)
    known = features.Extractor(features.pooled(models[1])).extract(splits.train, splits.val)
    training.solve_head(models[1], *known)
    for a, b in zip(models[0].get_layer("head").get_weights(), models[1].get_layer("head").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("stages", [(None,), ("stage3",), ("stage3", "stage2")])
def test_views_are_what_epochs_draw_from_however_many_stages_are_unfrozen(splits: data.Splits, stages):
    from tlkit import features
    from tlkit.training import activations

    settings = training.Settings(2, 0.1)
    plan = training.FineTuning(settings, settings, stages=stages, augment={"rotation": 9}, views=3, stored=False)
    chosen = activations.choose_input(classifier(splits), splits, plan, lambda model, *_: features.Extractor(model))
    assert isinstance(chosen.train, data.Views)
    assert len(chosen.train.views) == 3
    assert chosen.augment is None
    assert not chosen.uses_stored


def test_the_defaults_are_those_of_the_recipe():
    from inspect import signature

    from tlkit import config
    from tlkit.training import finetuning

    defaults = {name: each.default for name, each in signature(training.fine_tune).parameters.items()}
    recipe = config.Finetune()
    assert (defaults["epochs"], defaults["learning_rate"]) == (recipe.full.epochs, recipe.full.learning_rate)
    assert (defaults["batch_size"], defaults["seed"]) == (recipe.batch_size, recipe.seed)
    assert (recipe.full.patience, recipe.head.patience) == (None, finetuning.HEAD_PATIENCE)
    assert recipe.head.learning_rate == finetuning.HEAD_RATE


@pytest.mark.parametrize(("suggested", "rate", "reason"), [(0.2, 0.2, "by a range"), (None, 0.1, "the default, as")])
def test_the_reason_of_a_rate_is_that_which_is_printed(suggested, rate, reason, capsys: pytest.CaptureFixture):
    from tlkit.training import finder, rates

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    test = finder.RangeTest(rates=[0.1], losses=[1.0], smoothed=[1.0], suggested=suggested)
    found = rates.choose(model, "full", 0.1, lambda: test)
    assert found.value == rate
    assert found.reason.startswith(reason)
    assert capsys.readouterr().out == f"full: learning rate {rate}, {found.reason}\n"
