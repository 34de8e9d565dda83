"""Phases: the schedule, the loss and the frozen features against independent computations; which weights are kept."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn import linear_model

from tlkit import backbones, builders, config, features, probes, training
from tlkit.data import Photos, batches
from tlkit.errors import InvalidInput
from tlkit.recipes import _plans
from tlkit.training import batched, callbacks, checkpoints, optimizers, phases, verdicts


@pytest.fixture(scope="module")
def photos() -> Photos:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    pixels = rng.integers(0, 100, (40, 32, 32, 1)) + labels[:, None, None, None] * 100
    return Photos.of(pixels.astype(np.uint8), labels)


def classifier() -> keras.Model:
    keras.utils.set_random_seed(0)
    return backbones.classifier(backbones.build("LetterNet", weights="none"), 2, dropout=0)


def seen(model: keras.Model, *examples: Photos) -> list[features.Features]:
    return features.Extractor(features.pooled(model), engine="keras").extract(*examples)


def test_training_on_features_equals_training_through_the_frozen_backbone(photos: Photos):
    settings = training.Settings(epochs=2, learning_rate=0.1, batch_size=40, label_smoothing=0.1, weight_decay=0.01)
    ours = classifier()
    backbones.freeze(ours)
    training.fit_head(ours, *seen(ours, photos, photos), settings)
    theirs = classifier()
    backbones.freeze(theirs)
    training.fit_full(theirs, photos, photos, settings)  # the same steps, on the photos: one batch, so no order
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert not np.allclose(ours.get_layer("head").kernel, classifier().get_layer("head").kernel)


@pytest.mark.usefixtures("uncompiled")
def test_the_best_epochs_weights_are_kept_and_the_step_goes_on(photos: Photos):
    model = classifier()
    backbones.freeze(model)
    head = training.fit_head(model, *seen(model, photos, photos), training.Settings(epochs=3, learning_rate=0.01))
    kept = model.get_weights()
    backbones.unfreeze(model, "LetterNet")
    # A rate that wrecks the network: what the head phase reached must be kept.
    both = training.fit_full(model, photos, photos, training.Settings(2, learning_rate=0.5), before=head)
    assert [entry["epoch"] for entry in both.epochs] == [1, 2, 3, 4, 5]
    assert [entry["phase"] for entry in both.epochs] == ["head"] * 3 + ["full"] * 2
    assert both.best["phase"] == "head"
    for a, b in zip(kept, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


class Told(keras.callbacks.Callback):
    """Keeps what it is told of epochs."""

    def __init__(self):
        super().__init__()
        self.epochs: list[tuple[int, dict[str, float]]] = []

    def on_epoch_end(self, epoch: int, logs=None):
        self.epochs.append((epoch, dict(logs)))


@pytest.mark.usefixtures("uncompiled")
def test_a_solved_head_is_a_logistic_regression_and_the_first_epoch(photos: Photos):
    model, told = classifier(), Told()
    train, val = seen(model, photos, Photos.of(photos.read(range(10)), photos.labels[:10]))
    solved = training.solve_head(model, train, val, training.Settings(1, 0.5, label_smoothing=0.1), callbacks=[told])
    (epoch,) = solved.epochs
    probe = probes.logistic_regression(train[:], photos.labels, 2, groups=train.hashes)
    theirs = linear_model.LogisticRegression(C=1 / (probe.l2 * len(train)), tol=1e-8, max_iter=10_000)
    scaled = (train[:] - train[:].mean(0)) / np.sqrt(train[:].var(0).mean())
    theirs.fit(scaled, photos.labels)
    probabilities = training.predict(model, photos)
    np.testing.assert_allclose(probabilities, theirs.predict_proba(scaled), atol=1e-3)
    targets = np.eye(2)[photos.labels] * 0.9 + 0.05
    losses = -np.sum(targets * np.log(probabilities), -1)
    assert epoch["loss"] == pytest.approx(losses.mean(), abs=1e-4)
    assert epoch["val_loss"] == pytest.approx(losses[:10].mean(), abs=1e-4)
    assert (epoch["epoch"], epoch["phase"], epoch["val_accuracy"]) == (1, "head", 1.0)
    assert told.epochs == [(0, {name: epoch[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy")})]
    # A rate that wrecks the head: what was solved must be kept.
    both = training.fit_head(model, train, val, training.Settings(2, 1e4, label_smoothing=0.1), before=solved)
    assert [entry["epoch"] for entry in both.epochs] == [1, 2, 3]
    assert both.best == epoch
    np.testing.assert_array_equal(training.predict(model, photos), probabilities)


@pytest.mark.thorough
@pytest.mark.usefixtures("uncompiled")
def test_the_kept_weights_score_what_the_best_epoch_says(photos: Photos):
    model = classifier()
    settings = training.Settings(epochs=4, learning_rate=0.01)
    history = training.fit_full(model, photos, photos, settings)
    probabilities = training.predict(model, photos)
    loss = -np.log(probabilities[np.arange(40), photos.labels]).mean()
    assert loss == pytest.approx(history.best["val_loss"], abs=1e-4)


def test_early_stopping_waits_for_its_patience(photos: Photos):
    model = classifier()
    settings = training.Settings(epochs=20, learning_rate=1e-12, patience=3)
    backbones.freeze(model)
    history = training.fit_head(model, *seen(model, photos, photos), settings)
    best = history.best["epoch"]
    assert len(history.epochs) == best + 3 < 20


class Scripted(keras.callbacks.Callback):
    """Makes the validation losses what is written here."""

    losses = (3.0, 2.0, 1.0, 1.5, 1.5, 1.5, 0.5, 1.0, 1.0, 1.0, 1.0)

    def on_epoch_end(self, epoch: int, logs=None):
        logs["val_loss"] = self.losses[epoch]


def test_on_a_plateau_the_rate_falls_to_a_tenth(photos: Photos, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(phases, "Guard", Scripted)  # the first to hear
    settings = training.Settings(11, 0.1, patience=6, batch_size=40, schedule="plateau")
    history = training.fit_full(learner(0), photos, photos, settings)
    rates = [round(epoch["learning_rate"], 6) for epoch in history.epochs]
    assert rates == [0.1] * 5 + [0.01] * 4 + [0.001] * 2


@pytest.mark.usefixtures("uncompiled")
def test_batch_statistics_stay_in_an_unfrozen_backbone(photos: Photos):
    model = classifier()
    backbones.unfreeze(model, "LetterNet")
    before = {weight.path: np.array(weight) for weight in model.non_trainable_weights}
    training.fit_full(model, photos, photos, training.Settings(epochs=1, learning_rate=0.01))
    assert before
    for weight in model.non_trainable_weights:
        np.testing.assert_array_equal(before[weight.path], np.array(weight))


def test_the_best_epoch_is_never_one_whose_loss_is_nan():
    epochs = [{"epoch": 1, "val_loss": math.nan}, {"epoch": 2, "val_loss": 0.5}, {"epoch": 3, "val_loss": math.nan}]
    assert training.History(epochs).best["epoch"] == 2


@pytest.mark.thorough
def test_a_single_unit_learns_two_classes(photos: Photos):
    keras.utils.set_random_seed(0)
    model = backbones.classifier(backbones.build("LetterNet", weights="none"), 1, dropout=0)
    backbones.freeze(model)
    history = training.fit_head(model, *seen(model, photos, photos), training.Settings(epochs=20, learning_rate=0.1))
    assert history.best["val_accuracy"] == 1.0
    right = (training.predict(model, photos)[:, 0] > 0.5) == photos.labels
    assert right.all()
    kernel, bias = model.get_layer("head").get_weights()
    model.get_layer("head").set_weights([kernel * 0, bias * 0 + 0.1])
    settings = training.Settings(epochs=1, learning_rate=1e-9)  # logits stay just above 0, probabilities above a half
    ones = Photos.of(photos.read([1, 3, 5]), [1, 1, 1])
    assert training.fit_head(model, *seen(model, photos, ones), settings).best["val_accuracy"] == 1.0


@pytest.mark.usefixtures("uncompiled")
def test_augmentation_reaches_training_and_never_validation(photos: Photos):
    seen = list(batches(photos, 8, augment={"brightness": 0.9}, labels=False))
    plain = photos.read(range(40))
    assert not np.array_equal(np.concatenate(seen), plain)
    model = classifier()
    calls = []
    original = batched.batches

    def spy(given, *args, **kwargs):
        calls.append(kwargs.get("augment"))
        return original(given, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batched, "batches", spy)
        training.fit_full(model, photos, photos, training.Settings(1, 0.01), augment={"flip": True})
    assert [call for call in calls if call] == [{"flip": True}]
    assert calls.count(None) == 1


def test_the_layer_decay_reaches_the_settings_of_its_phase_alone():
    made = config.Finetune(full=config.Full(layer_decay=0.5))
    assert [_plans.settings(made, phase).layer_decay for phase in (made.head, made.full)] == [1.0, 0.5]


@pytest.mark.usefixtures("uncompiled")
def test_the_layer_decay_reaches_the_optimizer(photos: Photos):
    """The first step of Adam is the rate itself, wherever the gradient is far from zero."""
    model = classifier()
    backbones.unfreeze(model, "LetterNet")
    begun = [np.array(variable) for variable in model.trainable_variables]
    settings = training.Settings(1, 0.01, batch_size=40, schedule="constant", warmup=0.0, layer_decay=0.5)
    training.fit_full(model, photos, photos, settings, stages=backbones.row("LetterNet").stages)
    factors = optimizers.stage_factors(model, 0.5, backbones.row("LetterNet").stages)
    assert set(factors.values()) == {0.5, 0.25, 0.125, 0.0625}
    for variable, before in zip(model.trainable_variables, begun, strict=True):
        step = np.abs(np.array(variable) - before).max()
        assert step == pytest.approx(0.01 * factors.get(variable.path, 1.0), rel=0.02), variable.path


class Seen(keras.callbacks.Callback):
    """The epochs' numbers, as other callbacks get them."""

    def __init__(self):
        super().__init__()
        self.epochs: list[int] = []

    def on_epoch_end(self, epoch: int, logs=None):
        self.epochs.append(epoch)


def learner(seed: int, width: int = 2) -> keras.Model:
    """A small network with dropout, and batch statistics that move; another seed gives other weights and dropout."""
    keras.utils.set_random_seed(seed)
    return builders.cnn((32, 32, 1), filters=(width, 3), norm=True, dense=(), classes=2, dropout=0.3, padding="same")


def losses(history: training.History) -> list[float]:
    return [entry[name] for entry in history.epochs for name in ("loss", "val_loss", "learning_rate")]


PHASE = training.Settings(epochs=4, learning_rate=0.02, warmup=0.3, batch_size=16, weight_decay=0.01, layer_decay=0.7)


def fit(model: keras.Model, photos: Photos, settings: training.Settings = PHASE, **given) -> training.History:
    return training.fit_full(model, photos, photos, settings, seed=3, augment={"brightness": 0.3}, **given)


@pytest.mark.thorough
def test_a_phase_that_goes_on_from_its_checkpoint_equals_one_in_one_go(
    photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture
):
    before = training.History([{"epoch": 1, "phase": "head", "loss": 9.0, "val_loss": 9.0, "seconds": 1.0}])
    at_once = learner(0)
    whole = fit(at_once, photos, before=before)
    path, seen = tmp_path / "new" / "phase.ckpt", Seen()
    capsys.readouterr()
    half = fit(learner(0), photos, before=before, until=2, checkpointing=training.Checkpointing(path), callbacks=[seen])
    assert losses(training.History(half.epochs[1:])) == losses(training.History(whole.epochs[1:3]))
    again = learner(1)
    history = fit(again, photos, checkpointing=training.Checkpointing(path), callbacks=[seen])
    assert seen.epochs == [1, 2, 3, 4]  # Keras counts from 0, and one is of the phase before
    assert [(entry["epoch"], entry["phase"]) for entry in history.epochs] == [
        (1, "head"), *((number, "full") for number in (2, 3, 4, 5))
    ]  # fmt: skip
    np.testing.assert_allclose(
        losses(training.History(history.epochs[1:])), losses(training.History(whole.epochs[1:])), atol=1e-6, rtol=0
    )
    for a, b in zip(again.get_weights(), at_once.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, rtol=0)
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("full")]
    assert [row[1] for row in rows] == ["1/2", "2/2", "3/4", "4/4"]
    assert [row[-1] for row in rows if row[1] in ("2/2", "4/4")] == ["s", "s"]
    assert os.listdir(path.parent) == ["phase.ckpt"]
    once_more = learner(2)
    assert fit(once_more, photos, until=4, checkpointing=training.Checkpointing(path)) == history
    assert capsys.readouterr().out == ""
    for a, b in zip(once_more.get_weights(), at_once.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, rtol=0)


@pytest.mark.usefixtures("uncompiled")
def test_a_checkpoint_keeps_the_best_epoch_and_the_patience(photos: Photos, tmp_path: Path):
    """No epoch can be better than the phase before, so the third in vain is the last."""
    settings = training.Settings(epochs=9, learning_rate=0.01, patience=3)
    before = training.History([{"epoch": 1, "phase": "head", "val_loss": -1.0, "seconds": 1.0}])
    path, kept = tmp_path / "phase.ckpt", learner(0).get_weights()
    whole = fit(learner(0), photos, settings, before=before)
    assert len(whole.epochs) == 1 + 3
    fit(learner(0), photos, settings, before=before, until=2, checkpointing=training.Checkpointing(path))
    for until in (9, None):  # the first ends for lack of patience, the second trains nothing
        again = learner(1)
        history = fit(again, photos, settings, until=until, checkpointing=training.Checkpointing(path))
        assert len(history.epochs) == 1 + 3
        found, wanted = (losses(training.History(given.epochs[1:])) for given in (history, whole))
        np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=0)
        for a, b in zip(again.get_weights(), kept, strict=True):
            np.testing.assert_array_equal(a, b)


class OneBatch(keras.utils.PyDataset):
    """All examples in one batch."""

    def __init__(self, *arrays: np.ndarray):
        super().__init__()
        self.arrays = arrays

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        return self.arrays


@pytest.mark.parametrize(("after", "share"), [((1, 1), 1.0), ((-0.2, 1), 0.5), ((-1, -0.2), 0.0)])
def test_without_patience_the_weights_that_are_clearly_better_are_kept(after: tuple[float, float], share: float):
    """The class is the sign of a sum: (1, 1) is best, and what is between two pairs may be better than both."""
    x = np.random.default_rng(0).normal(size=(200, 2)).astype("float32")
    labels = (x.sum(axis=1) > 0).astype("int32")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])

    def weights(pair: tuple[float, float]) -> list[np.ndarray]:
        return [np.stack([np.zeros(2), pair], axis=1).astype("float32")]

    model.set_weights(weights((1, -0.2)))
    history = training.History([{"epoch": 1, "phase": "head", "val_loss": 0.1}])
    settings = training.Settings(1, 0.1, patience=None)
    best = callbacks.BestEpoch(settings, model, history, 1, 2, callbacks.Validation(OneBatch(x, labels), labels))
    best.set_model(model)
    model.set_weights(weights(after))
    history.epochs.append({"epoch": 2, "phase": "full", "val_loss": 0.9, "val_accuracy": 0.5})
    best.on_epoch_end(1, {"val_loss": 0.9})
    np.testing.assert_array_equal(model.get_weights(), weights(after))  # for the callbacks that follow
    np.testing.assert_allclose(
        best.weights[0][:, 1], np.array((1, -0.2)) * (1 - share) + np.array(after) * share, rtol=1e-5
    )
    assert [entry.get("kept") for entry in history.epochs] == ([None, share] if share else [1.0, None])
    model.set_weights(best.weights)
    scores = model.evaluate(x, labels, verbose=0)
    logged = history.best["val_loss"], history.best.get("val_accuracy")
    expected = {1.0: (0.9, 0.5), 0.5: pytest.approx(tuple(scores)), 0.0: (0.1, None)}
    assert logged == expected[share]  # of the weights that are kept


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    ("trial", "begun", "loss", "ended"),
    [(True, 0.1, 0.8, True), (True, 0.1, 0.6, False), (True, 0.9, 0.8, False), (False, 0.1, 0.8, False)],
)
def test_a_trial_that_knows_less_than_chance_ends(trial: bool, begun: float, loss: float, ended: bool):
    """Chance is log 2, 0.69."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    history = training.History([{"epoch": 1, "phase": "head", "val_loss": begun}])
    settings = training.Settings(3, 0.1, patience=None, trial=trial)
    val = callbacks.Validation(OneBatch(np.zeros((1, 2)), np.zeros(1)), np.zeros(1))
    best = callbacks.BestEpoch(settings, model, history, 1, 4, val)
    best.set_model(model)
    model.stop_training = False
    best.on_epoch_end(1, {"val_loss": loss})
    assert (best.ended, bool(model.stop_training)) == (ended, ended)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(("shares", "kept"), [(None, 1.0), ([0.1, 0.9], None)])
def test_a_class_counts_as_it_does_among_all_when_a_phase_is_judged(shares: list[float] | None, kept: float | None):
    """Of class 0 there are three times as many here, and what helps it harms class 1."""
    logits = np.array([[0.0, 3.0], [0.0, 3.0], [2.0, 0.0], [0.0, 1.0]] * 20, "float32")
    labels = np.array([0, 0, 0, 1] * 20)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.set_weights([np.eye(2), np.zeros(2)])
    history = training.History([{"epoch": 1, "phase": "head", "val_loss": 0.1}])
    settings = training.Settings(1, 0.1, patience=None, class_shares=shares)
    best = callbacks.BestEpoch(settings, model, history, 1, 2, callbacks.Validation(OneBatch(logits, labels), labels))
    best.set_model(model)
    model.set_weights([np.eye(2), np.array([4.0, 0.0])])
    history.epochs.append({"epoch": 2, "phase": "full", "val_loss": 0.9, "val_accuracy": 0.5})
    best.on_epoch_end(1, {"val_loss": 0.9})
    assert history.epochs[1].get("kept") == kept


@pytest.mark.usefixtures("uncompiled")
def test_a_phase_that_resumes_keeps_what_was_best_so_far(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(phases, "Guard", Scripted)
    monkeypatch.setattr(verdicts.Verdict, "clearly_better", False)
    settings = training.Settings(4, learning_rate=1e-3, batch_size=40, patience=None)
    before = training.History([{"epoch": 1, "phase": "head", "val_loss": 9.0, "seconds": 1.0}])
    model, checkpointing = learner(0), training.Checkpointing(tmp_path / "phase.ckpt")
    first = training.fit_full(model, photos, photos, settings, before=before, until=3, checkpointing=checkpointing)
    assert first.best["epoch"] == 3  # by the lowest loss
    so_far = model.get_weights()
    resumed = training.fit_full(model, photos, photos, settings, checkpointing=checkpointing)
    assert [entry["epoch"] for entry in resumed.epochs if "kept" in entry] == [3]
    for a, b in zip(model.get_weights(), so_far, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("uncompiled")
def test_a_checkpoint_that_is_older_than_a_setting_is_read(photos: Photos, tmp_path: Path):
    path = tmp_path / "phase.npz"
    settings = training.Settings(epochs=2, learning_rate=0.01, batch_size=40)
    fit(learner(0), photos, settings, until=1, checkpointing=training.Checkpointing(path))
    with np.load(path) as file:
        held = dict(file)
    told = json.loads(str(held.pop("told")))
    del told["settings"]["trial"]
    np.savez(path, told=np.array(json.dumps(told)), **held)
    assert len(checkpoints.load(path, settings._asdict())[0].epochs) == 1
    with pytest.raises(InvalidInput, match="was begun with trial False, not True"):
        checkpoints.load(path, settings._replace(trial=True)._asdict())


@pytest.mark.usefixtures("uncompiled")
def test_a_checkpoint_that_does_not_fit_is_one_line(photos: Photos, tmp_path: Path):
    path = tmp_path / "phase.ckpt"
    settings = training.Settings(epochs=2, learning_rate=0.01, batch_size=40)
    fit(learner(0), photos, settings, until=1, checkpointing=training.Checkpointing(path))
    kept = path.read_bytes()
    other = learner(0)
    other.get_layer("stem_conv1").trainable = False
    wrong = {
        "does not fit this model, or what of it is trained": [(learner(0, width=4), settings), (other, settings)],
        "was begun with epochs 2, not 3": [(learner(0), settings._replace(epochs=3))],
    }
    for says, cases in wrong.items():
        for model, given in cases:
            with pytest.raises(InvalidInput, match=f"phase.ckpt {says}") as caught:
                fit(model, photos, given, checkpointing=training.Checkpointing(path))
            assert "\n" not in str(caught.value)
    assert path.read_bytes() == kept
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "pickled.npy").write_bytes(np.array([None]).dumps())
    (tmp_path / "half").write_bytes(kept[: len(kept) // 2])
    (tmp_path / "empty").touch()
    with np.load(path) as file:
        held = dict(file)
    told = json.loads(str(held.pop("told")))
    strange = [{"step": "1"}, {"epochs": 3}, {"epochs": [1]}, {"ended": None}]
    strange += [{"settings": {**told["settings"], "batch_size": "all"}}, {"settings": []}]
    strange += [{"arrays": {name: count for name, count in told["arrays"].items() if name != "metrics"}}]
    for number, changed in enumerate(strange):
        np.savez(tmp_path / f"strange{number}.npz", told=np.array(json.dumps({**told, **changed})), **held)
    strangers = [f"strange{number}.npz" for number in range(len(strange))]
    for name in ("other.npz", "array.npy", "pickled.npy", "half", "empty", ".", *strangers):
        with pytest.raises(InvalidInput, match="is not a checkpoint of a phase, or is damaged") as caught:
            fit(learner(0), photos, settings, checkpointing=training.Checkpointing(tmp_path / name))
        assert "\n" not in str(caught.value)
    with pytest.raises(InvalidInput, match="until is 0: 1 or more epochs"):
        fit(learner(0), photos, settings, until=0)


@pytest.mark.usefixtures("uncompiled")
def test_no_half_written_checkpoint_takes_the_place_of_a_whole_one(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "phase.ckpt"
    settings = training.Settings(epochs=3, learning_rate=0.01, batch_size=40)
    fit(learner(0), photos, settings, until=1, checkpointing=training.Checkpointing(path))
    kept = path.read_bytes()

    def full(file, **_):
        file.write(b"x")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space left"):
        fit(learner(0), photos, settings, until=2, checkpointing=training.Checkpointing(path))
    assert path.read_bytes() == kept
    assert os.listdir(tmp_path) == ["phase.ckpt"]
