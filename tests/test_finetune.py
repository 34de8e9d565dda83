"""Settings of `finetune` on their way from the command line to what is trained, and those that it refuses early."""

from __future__ import annotations

import csv
import functools
import math
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pytest

from tlkit import backbones, cli, config, data, training
from tlkit.recipes import _decisions, _fit, _training_decisions, feature_extraction, find_lr, finetune, train
from tlkit.training import batched, finetuning, phases, rates
from tlkit.training.activations import FullInput

pytestmark = pytest.mark.usefixtures("undrawn")
QUICK = ["--backbone.name", "LetterNet", "--data.image_size", "16", "--head.epochs", "0", "--head.solved", "false"]


def tune(photos: Path, *argv: str, recipe: Any = finetune) -> int:
    kind = config.Finetune if recipe is finetune else config.FindLr
    return cli.call(kind, recipe.run, [*QUICK, "--data.path", str(photos), *argv])


def metrics(name: str) -> list[tuple[int, float]]:
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return [(entry.step, entry.value) for entry in mlflow.MlflowClient().get_metric_history(run.info.run_id, name)]


class Watch:
    """Stands in for `phases.fit`, and notes what it is given and what it learns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.phases, self.moved, self.settings, self.optimizers = [], [], [], []
        original = phases.fit

        class Last(keras.callbacks.Callback):
            """Looks before the weights of the best epoch are put back."""

            def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
                self.values = {variable.path: np.array(variable) for variable in self.model.variables}

        def fit(logits: keras.Model, train: Any, val: Any, phase: phases.Phase, **more: Any) -> Any:
            before = {variable.path: np.array(variable) for variable in logits.variables}
            last = Last()
            history = original(logits, train, val, phase, **{**more, "callbacks": [*more["callbacks"], last]})
            self.phases.append(phase.name)
            self.settings.append(phase.settings)
            self.optimizers.append((logits.optimizer, logits.trainable_variables))
            changed = [path for path, old in before.items() if not np.array_equal(old, last.values[path])]
            self.moved.append({path.split("/")[0].split("_")[0] for path in changed if "seed" not in path})
            return history

        monkeypatch.setattr(phases, "fit", fit)


@pytest.mark.thorough
@pytest.mark.usefixtures("uncompiled")
def test_stages_are_unfrozen_one_after_the_other(folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    watch = Watch(monkeypatch)
    flags = ("--full.unfreeze_from", "[stage3, stage2]", "--full.epochs", "3", "--full.schedule", "constant")
    assert tune(photos, *flags, "--full.warmup", "0", "--full.learning_rate", "1e-4") == 0
    assert watch.phases == ["full1", "full2"]
    assert [settings.epochs for settings in watch.settings] == [1, 2]
    assert watch.moved == [{"stage3", "head"}, {"stage2", "stage3", "head"}]
    paths = {variable.path.split("_")[0].split("/")[0] for variable in watch.optimizers[1][1]}
    assert paths == {"stage2", "stage3", "head"}
    assert [step for step, _ in metrics("loss")] == [1, 2, 3]


@pytest.mark.thorough
@pytest.mark.usefixtures("uncompiled")
def test_rates_by_stage_reach_the_optimizer(folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    watch = Watch(monkeypatch)
    rates = ("--full.learning_rates", "{stage3: 1e-5, head: 1e-2}", "--full.learning_rate", "1e-3")
    assert tune(photos, *rates, "--full.epochs", "1", "--full.unfreeze_from", "stage2") == 0
    ((optimizer, variables),) = watch.optimizers
    found = {
        variable.path.split("/")[0].split("_")[0]: round(rate, 9)
        for variable, rate in zip(variables, optimizer.rates, strict=True)
    }
    assert found == {"stage2": 1.0, "stage3": 0.01, "head": 10.0}


@pytest.mark.thorough
def test_a_rate_that_is_auto_is_found_and_the_network_left_as_it_was(
    folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    begun: list[list[np.ndarray]] = []
    original = finetuning.fit_full

    class Begun(BaseException):
        """Ends the first run where its training begins: how it ends is not looked at."""

    def noted(model: keras.Model, *given: Any, **more: Any) -> Any:
        begun.append(model.get_weights())
        if len(begun) == 1:
            raise Begun
        return original(model, *given, **more)

    monkeypatch.setattr(finetuning, "fit_full", noted)
    few = functools.partial(rates.range_test_full, steps=10)
    monkeypatch.setattr(rates, "range_test_full", few)
    with pytest.raises(Begun):
        tune(photos, "--full.epochs", "1")
    assert tune(photos, "--full.epochs", "1", "--full.learning_rate", "auto") == 0
    assert "full: learning rate " in capsys.readouterr().out
    for a, b in zip(*begun, strict=True):
        np.testing.assert_array_equal(a, b)
    latest = mlflow.search_runs(search_all_experiments=True, output_format="list")[0]
    assert 0 < float(latest.data.params["full.learning_rate"]) < 10


@pytest.mark.thorough
@pytest.mark.usefixtures("uncompiled")
def test_losses_and_batches_are_those_that_were_asked_for(folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    for photo in sorted((photos / "red").iterdir())[10:]:
        photo.unlink()
    given: list[dict[str, Any]] = []
    original = batched.batches

    def noted(*arguments: Any, **more: Any) -> Any:
        given.append(more)
        return original(*arguments, **more)

    monkeypatch.setattr(batched, "batches", noted)
    watch = Watch(monkeypatch)
    flags = ["--full.epochs", "1", "--balance", "sampling", "--focal_gamma", "2", "--global_clipnorm", "0.5"]
    assert tune(photos, *flags, "--gradient_accumulation_steps", "2", "--batch_size", "8", "--optimizer", "Lion") == 0
    ((optimizer, _),) = watch.optimizers
    assert (optimizer.gradient_accumulation_steps, optimizer.global_clipnorm) == (2, 0.5)
    assert "lion" in type(optimizer).__name__.lower()
    assert watch.settings[0].focal_gamma == 2
    assert any(more.get("balanced") for more in given)
    assert tune(photos, "--full.epochs", "1", "--balance", "weights") == 0
    assert watch.settings[1].class_weights[0] < 1 < watch.settings[1].class_weights[1]


def test_statistics_of_random_weights_are_learnt_and_pretrained_ones_stay(folder: Path):
    for weights, asked, wanted in (
        ("letters", None, "inference"),
        ("none", None, "train"),
        ("none", "freeze-affine", "freeze-affine"),
    ):
        given = config.Finetune(
            backbone=config.Backbone("LetterNet", weights), full=config.Full(batch_normalization=asked)
        )
        assert _decisions.completed(given).full.batch_normalization == wanted


# Before a photo is opened ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--full.unfreeze_from", "stage9"], "stage 'stage9' is unknown: LetterNet has stem, stage1, stage2, stage3"),
        (["--full.learning_rates", "{stge3: 1e-4}"], "'stge3' is unknown: LetterNet has stem, stage1, stage2, stage3"),
        (["--full.unfreeze_from", "[stage2, stage3]"], "each is to add lower stages: give [stage3, stage2]"),
        (["--full.unfreeze_from", "[stage3, stage3]"], "each is to add lower stages: give [stage3]"),
        (
            ["--full.unfreeze_from", "stage3", "--full.learning_rates", "{stage1: 1e-4}"],
            "full.learning_rates has stage1, which is frozen: full.unfreeze_from is stage3",
        ),
        (["--head.solved", "true", "--head.learning_rate", "0.1", "--head.epochs", "null"], "solved and not trained"),
        (
            ["--head.solved", "true", "--head.learning_rate", "auto", "--head.epochs", "3"],
            "head.learning_rate is 'auto', but the head is solved first",
        ),
        (["--full.lora_rank", "0"], "full.lora_rank is 0; it must be 1 or more"),
        (["--full.lora_rank", "8", "--full.epochs", "0"], "full.epochs is 0, so that nothing would learn by it"),
        (["--full.lora_rank", "9999"], "lora_rank is 9999, but what is trained of the network has no dense layer"),
        (["--full.learning_rate", ".inf"], "full.learning_rate is inf; it must be above 0, and finite"),
        (["--weight_decay", ".inf"], "weight_decay is inf; it must be 0 or more, and finite"),
        (["--focal_gamma", "-1"], "focal_gamma is -1.0; it must be 0 or more"),
        (["--global_clipnorm", "0"], "global_clipnorm is 0.0; it must be above 0"),
        (["--gradient_accumulation_steps", "0"], "gradient_accumulation_steps is 0; it must be 1 or more"),
        (["--ema_momentum", "1"], "ema_momentum is 1.0; it must lie between 0 and 1"),
        (["--tta", "-1"], "tta is -1; it must be 0 or more"),
        (
            ["--tta", "3", "--augment.flip=no", "--augment.zoom=0", "--augment.shift=0"],
            "no change of single photos is on in --augment",
        ),
        (["--full.learning_rates", "{head: 0}"], "full.learning_rates.head is 0.0; it must be above 0"),
        (["--full.learning_rates", "{head: 1e-3}", "--full.layer_decay", "0.5"], "takes its place: give one of them"),
        (["--full.unfreeze_from", "[]"], "full.unfreeze_from is []; it must name a stage or more"),
        (["--augment.crop", "0"], "augment.crop is 0.0; it must be above 0"),
        (["--augment.magnitude", "31"], "augment.magnitude is 31.0; it must be from 0 to 30"),
        (["--augment.erasing", "2"], "augment.erasing is 2.0; it must be from 0 to 1"),
        (["--augment.mixup", "-1"], "augment.mixup is -1.0; it must be 0 or more"),
        (["--augment.cutmix", ".inf"], "augment.cutmix is inf; it must be 0 or more, and finite"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_it_is_refused_before_any_photo_is_opened(
    folder: Path, photos: Path, argv: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(data, "load", None)
    assert tune(photos, *argv) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert says in said
    assert mlflow.search_runs(search_all_experiments=True, output_format="list") == []


def test_more_gradients_than_batches_are_refused(folder: Path, photos: Path, capsys: pytest.CaptureFixture):
    flags = ["--gradient_accumulation_steps", "100", "--full.epochs", "3"]
    for more, batches in ([], 6), (["--full.unfreeze_from", "[stage3, stage2]"], 2):  # of which one has an epoch
        assert tune(photos, *flags, *more) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"steps is 100, but phase full has no more than {batches} batches: give {batches} or less" in said
    assert mlflow.search_runs(search_all_experiments=True, output_format="list") == []


@pytest.mark.slow
def test_the_config_of_a_run_whose_batch_was_found_can_be_given_again(
    folder: Path, photos: Path, capsys: pytest.CaptureFixture
):
    flags = ["--backbone.name", "LetterNet", "--data.image_size", "16", "--data.path", str(photos)]
    more = ["--batch_size", "auto", "--gradient_accumulation_steps", "2", "--full.epochs", "1"]
    assert cli.call(config.Finetune, finetune.run, [*flags, *more]) == 0
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    stored = mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/config.yaml")
    assert float(run.data.params["full.learning_rate"]) == pytest.approx(3e-4 * 2**0.5)
    assert cli.call(config.Finetune, finetune.run, ["--config", stored]) == 0


@pytest.mark.parametrize("recipe", [finetune, find_lr, train])
def test_several_labels_cannot_be_drawn_alike_often(
    recipe: Any, folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    with open("labels.csv", "w", newline="", encoding="utf-8") as file:
        rows = [(f"photos/{path.parent.name}/{path.name}", path.parent.name) for path in sorted(photos.glob("*/*.png"))]
        csv.writer(file).writerows([("path", "label"), *rows])
    monkeypatch.setattr(data, "load", None)
    kind = {finetune: config.Finetune, find_lr: config.FindLr, train: config.Train}[recipe]
    flags = ["--data.path", "labels.csv", "--data.separator", "|", "--balance", "sampling"]
    more = [] if recipe is train else ["--backbone.name", "LetterNet"]
    assert cli.call(kind, recipe.run, [*flags, *more]) == 2
    assert "balance is 'sampling', but examples that may have several labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "moves"),
    [
        ({"data.path": "photos"}, (0.25, 0.125)),
        ({"data.path": "photos", "augment.zoom": 0.0}, (0.0, 0.125)),
        ({"data.path": "photos", "full.unfreeze_from": "stage3"}, (0.0, 0.0)),  # whose activations may be stored
        ({}, (0.0, 0.0)),  # digits, which fill their frames
    ],
    ids=str,
)
def test_photos_that_train_the_whole_network_are_moved(
    asked: dict[str, Any], moves: tuple[float, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = cli.from_settings(config.Finetune, {"backbone.name": "LetterNet", **asked})
    augment = _decisions.completed(settings).augment
    assert (augment.zoom, augment.shift) == moves


@pytest.mark.parametrize(
    ("photos", "batch", "epochs"), [(300, 32, 25), (850, 32, 19), (850, 128, 25), (10_000, 32, 10)]
)
def test_the_epochs_follow_the_number_of_photos(photos: int, batch: int, epochs: int):
    asked = config.Finetune(batch_size=batch)
    (decision,) = _training_decisions.decide_epochs(asked, photos, val=20)
    assert _decisions.applied(asked, [decision]).full.epochs == epochs
    assert not _training_decisions.decide_epochs(_decisions.applied(asked, [decision]), photos, 20)  # it was asked for


@pytest.mark.parametrize(
    ("asked", "val", "epochs"),
    [
        ({"head.solved": True}, 19, 0),
        ({"head.solved": True}, 20, 25),
        ({"head.solved": False}, 19, 25),
        ({"head.solved": True, "full.patience": 3}, 19, 25),
    ],
)
def test_few_validation_photos_do_not_judge_a_solved_head(asked: dict[str, Any], val: int, epochs: int):
    (decision,) = _training_decisions.decide_epochs(cli.from_settings(config.Finetune, asked), 100, val)
    assert decision.value == epochs
    assert ("--full.epochs 25 tunes all the same" in decision.reason) == (epochs == 0)


@pytest.mark.thorough
def test_with_few_photos_the_model_is_that_of_feature_extraction(
    photos: Path, folder: Path, capsys: pytest.CaptureFixture
):
    same = {"backbone.name": "LetterNet", "data.image_size": 16, "data.path": str(photos)}
    result = finetune.run(cli.from_settings(config.Finetune, same))
    said = capsys.readouterr().out
    assert "full.epochs: 0, as" in said
    assert "solved again on all" in said
    other = feature_extraction.run(cli.from_settings(config.FeatureExtraction, same))
    np.testing.assert_allclose(*(each.model.get_layer("head").kernel for each in (result, other)), rtol=1e-3, atol=1e-4)


def test_a_trial_has_enough_steps():
    plan = training.FineTuning(training.Settings(0, 0.1), training.Settings(25, 0.1, patience=None))
    assert [settings.epochs for _, _, settings in plan.full_parts(steps=27)] == [3, 3, 3, 22]
    assert [settings.epochs for _, _, settings in plan.full_parts(steps=100)] == [1, 1, 1, 24]
    assert [settings.epochs for _, _, settings in plan.full_parts(steps=4)] == [8, 17]
    assert [settings.epochs for _, _, settings in plan.full_parts(steps=2)] == [25]  # no time for a trial


def test_rates_of_stages_fall_with_the_others():
    rates = {"stage4": 0.9, "head": 0.09}
    plan = training.FineTuning(
        training.Settings(0, 0.1), training.Settings(25, 0.1, patience=None, learning_rates=rates)
    )
    trial, second, third, full = (settings for _, _, settings in plan.full_parts(steps=12))
    assert (trial.learning_rates, full.learning_rates) == (rates, rates)
    assert second.learning_rates == pytest.approx({"stage4": 0.3, "head": 0.03})
    assert third.learning_rate == pytest.approx(0.1 / 9)


@pytest.mark.thorough
def test_full_is_left_out_where_nothing_of_the_trial_is_better(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    watch = Watch(monkeypatch)
    same = {"backbone.name": "LetterNet", "data.image_size": 16}
    asked = cli.from_settings(config.Finetune, {**same, "full.epochs": 12, "full.learning_rate": 0.9})
    result = finetune.run(asked)
    assert watch.phases == ["trial", "trial2"]
    said = capsys.readouterr().out
    assert "full: left out, as nothing of a trial has a lower validation loss" in said
    assert "head: solved again on all 1,518 photos that are not tested on, as no epoch is kept" in said
    other = feature_extraction.run(cli.from_settings(config.FeatureExtraction, same))
    heads = [each.model.get_layer("head") for each in (result, other)]
    np.testing.assert_allclose(*(head.kernel for head in heads), rtol=1e-3, atol=1e-4)
    assert result.scores.loss == pytest.approx(other.scores.loss, rel=1e-3)


@pytest.mark.parametrize(
    ("gains", "begun"),  # of the best weights of each trial; nan where it ended early, None where it left no epoch
    [
        ([1e-4], {"trial": 0.9, "full": 0.9}),
        ([0.0, 0.1], {"trial": 0.9, "trial2": 0.3, "full": 0.3}),
        ([None, 0.1], {"trial": 0.9, "trial2": 0.3, "full": 0.3}),
        ([math.nan, -0.1, 0.1], {"trial": 0.9, "trial2": 0.3, "trial3": 0.1, "full": 0.1}),
        ([-0.1, 0.0, math.nan], {"trial": 0.9, "trial2": 0.3, "trial3": 0.1}),
        ([None, None, None], {"trial": 0.9, "trial2": 0.3, "trial3": 0.1}),
    ],
)
def test_a_trial_of_which_nothing_is_better_is_repeated_at_a_lower_rate(
    gains: list[float | None], begun: dict[str, float], monkeypatch: pytest.MonkeyPatch
):
    peaks = dict[str, float]()

    def fit_full(*given: Any, phase: str, before: training.History, **more: Any) -> training.History:
        gain = None if phase == "full" else gains[len(peaks)]
        peaks[phase] = pytest.approx(given[3].learning_rate)
        last = {"epoch": len(peaks), "phase": phase, "val_loss": 1.0}
        last |= {"gain": gain} if gain == gain else {}
        return training.History([*before.epochs, *([] if gain is None else [last])])

    monkeypatch.setattr(finetuning, "fit_full", fit_full)
    splits = data.load("embedded", size=(16, 16), channels=1)
    model = backbones.classifier(backbones.build("LetterNet", (16, 16, 1)), len(splits.classes))
    plan = training.FineTuning(training.Settings(0, 0.1), training.Settings(25, 0.9, patience=None))
    finetuning.fit_phases(model, FullInput(model, splits.train, splits.val), None, plan)
    assert peaks == begun


@pytest.mark.parametrize(
    ("left", "peaks"),
    [(["trial", "trial2", "full"], {"full": 0.3}), (["trial", "trial2"], {"trial2": 0.3, "trial3": 0.1, "full": 0.1})],
)
def test_a_resumed_run_goes_on_at_the_rate_of_its_last_trial(
    left: list[str], peaks: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rates = dict[str, float]()

    def fit_full(*given: Any, phase: str, before: training.History, **more: Any) -> training.History:
        rates[phase] = pytest.approx(given[3].learning_rate)
        last = {"epoch": len(rates), "phase": phase, "val_loss": 1.0, "gain": float(phase == "trial3")}
        return training.History([*before.epochs, last])

    monkeypatch.setattr(finetuning, "fit_full", fit_full)
    splits = data.load("embedded", size=(16, 16), channels=1)
    model = backbones.classifier(backbones.build("LetterNet", (16, 16, 1)), len(splits.classes))
    plan = training.FineTuning(training.Settings(0, 0.1), training.Settings(25, 0.9, patience=None))
    for phase in left:
        (tmp_path / f"{phase}.npz").touch()
    full_input = FullInput(model, splits.train, splits.val)
    finetuning.fit_phases(
        model, full_input, None, plan, checkpointing=lambda phase: training.Checkpointing(tmp_path / f"{phase}.npz")
    )
    assert rates == peaks


def test_a_plan_without_epochs_has_no_trial():
    plan = training.FineTuning(training.Settings(0, 0.1), training.Settings(0, 0.9, patience=None))
    assert [settings.epochs for _, _, settings in plan.full_parts()] == [0]


def test_what_is_kept_is_compared_with_weights_that_the_model_had():
    head, full = {"phase": "head", "val_loss": 0.7}, {"phase": "full", "val_loss": 0.5, "kept": 1.0}
    vain = {"phase": "trial", "val_loss": 0.65, "gain": 0.0}
    better = {"phase": "trial2", "val_loss": 0.6, "gain": 0.1}
    for some, before in (([], 0.7), ([vain], 0.7), ([vain, better], 0.6)):
        epochs = [{"epoch": number, **epoch} for number, epoch in enumerate([head, *some, full], 1)]
        assert f"; {before:.4f} before the phase)" in _fit.kept(training.History(epochs))
