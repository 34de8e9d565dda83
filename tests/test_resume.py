"""What is interrupted at any step goes on as if nothing had happened: the same weights, and each metric once."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pytest
from conftest import leave_uncompiled

from tlkit import builders, tracking, training
from tlkit.config import Data, Finetune, Full
from tlkit.data import Photos
from tlkit.errors import InvalidInput, Unavailable
from tlkit.recipes import _resume
from tlkit.training import batched, checkpoints

STEPS = 3  # batches in an epoch
PHASE = training.Settings(
    epochs=4,
    learning_rate=0.02,
    batch_size=16,
    weight_decay=0.01,
    schedule="one_cycle",
    gradient_accumulation_steps=2,
    ema_momentum=0.8,
    global_clipnorm=5.0,
)


class Killed(BaseException):
    """Ends the process's work at once: nothing of ours catches it."""


class Kill(keras.callbacks.Callback):
    """After so many steps."""

    def __init__(self, after: int):
        super().__init__()
        self.left = after

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


class Logged(keras.callbacks.Callback):
    """What the tracking store gets of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[tuple[int, float, float]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs
        self.epochs.append((epoch, logs["loss"], logs["val_loss"]))


@pytest.fixture(scope="module")
def photos() -> Photos:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    pixels = rng.integers(0, 100, (40, 16, 16, 1)) + labels[:, None, None, None] * 100
    return Photos.of(pixels.astype(np.uint8), labels)


@pytest.fixture
def at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "pause", lambda cost: 0.0)
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)


def learner(seed: int) -> keras.Model:
    """A small network with dropout, and batch statistics that move."""
    keras.utils.set_random_seed(seed)
    return builders.cnn((16, 16, 1), filters=(2, 3), norm=True, dense=(), classes=2, dropout=0.3, padding="same")


def fit(model: keras.Model, photos: Photos, path: Path, callbacks: list[Any], **changed: Any) -> training.History:
    return training.fit_full(
        model,
        photos,
        photos,
        PHASE._replace(**changed),
        seed=3,
        augment={"brightness": 0.3, "mixup": 0.4},
        checkpointing=training.Checkpointing(path, within_epochs=True),
        callbacks=callbacks,
    )


@pytest.fixture(scope="module")
def whole(photos: Photos, tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, training.History, Logged]:
    model, logged = learner(0), Logged()
    return model, fit(model, photos, tmp_path_factory.mktemp("whole") / "full.npz", [logged]), logged


@pytest.fixture(scope="module")
def uninterrupted(photos: Photos, tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, training.History]:
    model = learner(0)
    with pytest.MonkeyPatch.context() as patch:
        leave_uncompiled(patch)
        return model, fit(model, photos, tmp_path_factory.mktemp("uncompiled") / "full.npz", [])


def numbers(history: training.History) -> list[tuple[Any, ...]]:
    return [tuple(value for name, value in entry.items() if name != "seconds") for entry in history.epochs]


@pytest.mark.thorough
@pytest.mark.usefixtures("at_each_step")
@pytest.mark.parametrize(
    "kills",
    [(3, 4), *(pytest.param(some, marks=pytest.mark.slow) for some in ((2, 2, 2, 2), (11,), (1,), (5,), (7, 1)))],
    ids=str,
)
def test_a_phase_that_was_killed_gives_the_same_weights(
    kills: tuple[int, ...], photos: Photos, whole: Any, tmp_path: Path
):
    at_once, history, logged = whole
    path, again = tmp_path / "full.npz", Logged()
    for number, after in enumerate(kills):
        with pytest.raises(Killed):
            fit(learner(number), photos, path, [again, Kill(after)])
    # A learner with other weights and another seed of its dropout, but where the first process wrote nothing yet.
    model = learner(9 if checkpoints.exists(path) else 0)
    found = fit(model, photos, path, [again])
    assert numbers(found) == numbers(history)
    for a, b in zip(model.variables, at_once.variables, strict=True):
        if "seed" not in a.path:
            np.testing.assert_array_equal(np.array(a), np.array(b), err_msg=a.path)
    # Only an epoch whose end was not written yet is told twice, and alike.
    assert sorted(set(again.epochs)) == logged.epochs


@pytest.mark.slow
@pytest.mark.usefixtures("at_each_step")
def test_a_rate_that_fell_on_a_plateau_stays_so(photos: Photos, tmp_path: Path):
    changed = {
        "schedule": "plateau",
        "learning_rate": 0.5,
        "patience": 3,
        "epochs": 5,
        "gradient_accumulation_steps": 1,
    }
    at_once = learner(0)
    history = fit(at_once, photos, tmp_path / "whole" / "full.npz", [], **changed)
    rates = [epoch["learning_rate"] for epoch in history.epochs]
    assert len(set(rates)) > 1
    fell = next(number for number in range(len(rates)) if rates[number] < rates[0])
    path = tmp_path / "full.npz"
    for seed, after in enumerate((STEPS * fell - 1, 2)):  # before the epoch that lowers it has ended, and after
        with pytest.raises(Killed):
            fit(learner(seed), photos, path, [Kill(after)], **changed)
    model = learner(2)
    assert numbers(fit(model, photos, path, [], **changed)) == numbers(history)
    for a, b in zip(model.get_weights(), at_once.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("at_each_step", "uncompiled")
@pytest.mark.parametrize(
    "asked", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=lambda number: number.name
)
def test_a_signal_waits_for_the_step_and_the_state(asked: int, photos: Photos, uninterrupted: Any, tmp_path: Path):
    class Ask(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            if self.model.optimizer.iterations == 2:
                os.kill(os.getpid(), asked)

    path, handler = tmp_path / "full.npz", signal.getsignal(asked)
    with pytest.raises(KeyboardInterrupt):
        fit(learner(0), photos, path, [Ask()])
    assert signal.getsignal(asked) is handler
    state, _ = checkpoints.load(path, PHASE._asdict())
    assert (len(state.epochs), state.step) == (1, 1)  # the fourth batch, whose gradient makes the second update
    model = learner(1)
    assert numbers(fit(model, photos, path, [])) == numbers(uninterrupted[1])
    for a, b in zip(model.get_weights(), uninterrupted[0].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("uncompiled")
def test_a_signal_in_validation_goes_back_to_the_last_batch(photos: Photos, uninterrupted: Any, tmp_path: Path):
    class Ask(keras.callbacks.Callback):
        def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
            if self.model.optimizer.iterations == 3:  # of the second epoch
                os.kill(os.getpid(), signal.SIGTERM)

    path = tmp_path / "full.npz"
    with pytest.raises(KeyboardInterrupt):
        fit(learner(0), photos, path, [Ask()])
    state, _ = checkpoints.load(path, PHASE._asdict())
    assert (len(state.epochs), state.step) == (1, STEPS - 1)
    model = learner(1)
    assert numbers(fit(model, photos, path, [])) == numbers(uninterrupted[1])
    for a, b in zip(model.get_weights(), uninterrupted[0].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.usefixtures("at_each_step")
def test_a_halved_batch_stays_halved_when_it_goes_on(photos: Photos, tmp_path: Path):
    class Small(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            if self.model.optimizer.gradient_accumulation_steps == 2:
                raise MemoryError

    at_once = learner(0)
    history = fit(at_once, photos, tmp_path / "whole.npz", [Small()])
    path = tmp_path / "full.npz"
    with pytest.raises(Killed):
        fit(learner(0), photos, path, [Small(), Kill(8)])
    model = learner(1)
    assert numbers(fit(model, photos, path, [])) == numbers(history)  # now there would be memory
    for a, b in zip(model.get_weights(), at_once.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.thorough
@pytest.mark.usefixtures("uncompiled")
def test_the_average_of_no_update_yet_is_the_weights(photos: Photos):
    model = learner(0)
    before = model.get_weights()
    settings = training.Settings(1, 0.01, batch_size=40, gradient_accumulation_steps=4, ema_momentum=0.9)
    training.fit_full(model, photos, photos, settings)
    for a, b, weight in zip(model.get_weights(), before, model.weights, strict=True):
        if "moving" not in weight.path:
            np.testing.assert_array_equal(a, b)


@pytest.mark.thorough
@pytest.mark.usefixtures("at_each_step", "uncompiled")
def test_a_damaged_checkpoint_gives_way_to_the_one_before(photos: Photos, uninterrupted: Any, tmp_path: Path):
    path = tmp_path / "full.npz"
    with pytest.raises(Killed):
        fit(learner(0), photos, path, [Kill(6)])
    path.write_bytes(path.read_bytes()[:1000])
    model = learner(1)
    assert numbers(fit(model, photos, path, [])) == numbers(uninterrupted[1])
    for a, b in zip(model.get_weights(), uninterrupted[0].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("at_each_step", "uncompiled")
def test_a_full_disk_costs_the_checkpoint_and_not_the_training(
    photos: Photos,
    uninterrupted: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert numbers(fit(learner(0), photos, tmp_path / "full.npz", [])) == numbers(uninterrupted[1])
    assert capsys.readouterr().err.count("no checkpoint could be written: no space left on device") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.thorough
@pytest.mark.usefixtures("uncompiled")
def test_a_loss_that_is_no_number_stops_with_the_last_good_weights(
    photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture
):
    class Wreck(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            if self.epoch == 2 and batch == 1:
                self.model.get_layer("head").kernel.assign(np.full((3, 2), np.nan))

        def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            self.epoch = epoch

    model, good = learner(0), learner(0)
    history = fit(model, photos, tmp_path / "a.npz", [Wreck()])
    assert len(history.epochs) == 2
    said = capsys.readouterr().err
    assert "the loss became nan in step 2 of epoch 3; the weights of epoch" in said
    assert "Lower --full.learning_rate (it is 0.02)" in said
    training.fit_full(good, photos, photos, PHASE, seed=3, augment={"brightness": 0.3, "mixup": 0.4}, until=2)
    for a, b in zip(model.get_weights(), good.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InvalidInput, match=r"the loss became nan or infinite in phase full: lower --full\.learning"):
        training.fit_full(learner(0), photos, photos, PHASE._replace(learning_rate=1e30, global_clipnorm=None))


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("places", [0, 1])
def test_the_moving_average_is_what_is_validated_and_kept(places: int, photos: Photos):
    """Whatever other callbacks do before or after ours; what they see at an epoch's end is what was validated."""

    class Look(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.trained, self.seen, self.begun = [], [], []

        def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            if batch == 0:
                self.begun.append(self.model.get_weights())

        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            if batch == STEPS - 1:
                self.trained.append(self.model.get_weights())

        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            self.seen.append(self.model.get_weights())

    def alike(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
        return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))

    model, look = learner(0), Look()
    settings = PHASE._replace(epochs=2, gradient_accumulation_steps=1)
    history = training.fit_full(model, photos, photos, settings, callbacks=[look, *[Logged()] * places])
    outputs = training.predict(model, photos)
    loss = -np.log(outputs[np.arange(40), photos.labels]).mean()
    assert loss == pytest.approx(history.best["val_loss"], abs=1e-4)
    assert alike(look.seen[history.best["epoch"] - 1], model.get_weights())
    assert not alike(look.seen[0], look.trained[0])
    assert alike(look.begun[1], look.trained[0])  # and training goes on from the weights themselves


@pytest.mark.usefixtures("uncompiled")
def test_a_validation_loss_that_is_no_number_is_told(photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture):
    """The last step of an epoch may wreck the weights, whose own loss is from before it."""

    class Wreck(keras.callbacks.Callback):
        def __init__(self, epochs: int):
            super().__init__()
            self.epochs = epochs

        def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
            if self.model.optimizer.iterations >= self.epochs * STEPS:
                self.model.get_layer("head").kernel.assign(np.full((3, 2), np.nan))

    model, changed = learner(0), {"ema_momentum": None, "gradient_accumulation_steps": 1}
    with pytest.raises(InvalidInput, match="the loss became nan or infinite in phase full"):
        fit(learner(0), photos, tmp_path / "b.npz", [Wreck(1)], **changed)
    assert "are kept" not in capsys.readouterr().err
    history = fit(model, photos, tmp_path / "a.npz", [Wreck(2)], **changed)
    assert len(history.epochs) == 2
    said = capsys.readouterr().err
    assert "the validation loss became nan in epoch 2; the weights of epoch 1 are kept. Lower" in said
    assert np.isfinite(training.predict(model, photos)).all()


@pytest.mark.thorough
@pytest.mark.usefixtures("uncompiled")
def test_a_batch_that_does_not_fit_is_halved_and_gives_the_same(
    photos: Photos, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    class Small(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            if sizes[-1] > 10:
                raise MemoryError

    sizes: list[int] = []
    original = batched.batches

    def noted(given: Any, size: int, **more: Any) -> Any:
        sizes.append(size)
        return original(given, size, **more)

    def plain() -> keras.Model:
        keras.utils.set_random_seed(0)
        return builders.cnn((16, 16, 1), filters=(2,), norm=False, dense=(), classes=2, padding="same")

    settings = training.Settings(2, 0.01, batch_size=40, schedule="constant", warmup=0.0)
    expected = plain()
    training.fit_full(expected, photos, photos, settings)
    monkeypatch.setattr(batched, "batches", noted)
    model = plain()
    training.fit_full(model, photos, photos, settings, callbacks=[Small()])
    assert sizes[-1] == 10
    assert "a batch of 20 does not fit into memory: 10 at a time, 4 times a step" in capsys.readouterr().out
    for a, b in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.usefixtures("uncompiled")
def test_a_range_test_that_does_not_fit_takes_smaller_batches(photos: Photos, capsys: pytest.CaptureFixture):
    class Small(keras.callbacks.Callback):
        def __init__(self, most: int):
            super().__init__()
            self.most = most

        def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            if 15 // (self.model.optimizer.gradient_accumulation_steps or 1) > self.most:
                raise MemoryError

    settings = training.Settings(2, 0.01, batch_size=15)
    seen = training.range_test_full(learner(0), photos, settings, callbacks=[Small(5)], steps=4)
    assert len(seen.rates) == 4
    assert (
        "learning rates: a batch of 15 does not fit into memory: 5 at a time, 3 times a step" in capsys.readouterr().out
    )
    with pytest.raises(Unavailable, match="learning rates: not even a batch of 1 fits into memory"):
        training.range_test_full(learner(0), photos, settings, callbacks=[Small(0)], steps=4)


@pytest.mark.thorough
@pytest.mark.usefixtures("at_each_step", "uncompiled")
@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_phase_that_no_longer_fits_goes_on_from_its_checkpoint(accumulated: int, tmp_path: Path):
    """In smaller batches, at the same place and with the same result, not from the beginning."""

    class Small(keras.callbacks.Callback):
        steps = 0

        def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            if (self.model.optimizer.gradient_accumulation_steps or 1) == accumulated:
                raise MemoryError
            self.steps += 1

    def plain(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        return builders.cnn((16, 16, 1), filters=(2,), norm=False, dense=(), classes=2, padding="same")

    rng = np.random.default_rng(0)
    photos = Photos.of(rng.integers(0, 256, (64, 16, 16, 1), np.uint8), np.arange(64) % 2)
    settings = training.Settings(
        3, 0.01, batch_size=16, gradient_accumulation_steps=accumulated, global_clipnorm=1.0, weight_decay=0.1
    )
    path, small = tmp_path / "full.npz", Small()
    keeping = training.Checkpointing(path, within_epochs=True)
    expected = plain(0)
    history = training.fit_full(expected, photos, photos, settings, seed=3)
    with pytest.raises(Killed):
        training.fit_full(plain(0), photos, photos, settings, seed=3, checkpointing=keeping, callbacks=[Kill(8)])
    state, _ = checkpoints.load(path, settings._asdict())
    assert (len(state.epochs), state.step) == (1, 3)  # before the eighth of four a epoch
    model = plain(1)
    found = training.fit_full(model, photos, photos, settings, seed=3, checkpointing=keeping, callbacks=[small])
    assert small.steps == 2 * 5
    for name in ("loss", "val_loss", "learning_rate"):
        np.testing.assert_allclose(*([epoch[name] for epoch in each.epochs] for each in (found, history)), rtol=1e-4)
    for a, b in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.usefixtures("at_each_step")
def test_a_scaled_loss_goes_on_with_its_scale(photos: Photos, tmp_path: Path):
    class Look(keras.callbacks.Callback):
        def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
            assert isinstance(self.model.optimizer, keras.optimizers.LossScaleOptimizer)
            self.values = [keras.ops.convert_to_numpy(variable) for variable in self.model.optimizer.variables]

    before, whole, again, path = keras.config.dtype_policy(), Look(), Look(), tmp_path / "full.npz"
    keras.config.set_dtype_policy("mixed_float16")
    try:
        history = fit(learner(0), photos, tmp_path / "whole.npz", [whole])
        with pytest.raises(Killed):
            fit(learner(0), photos, path, [Kill(4)])
        assert numbers(fit(learner(1), photos, path, [again])) == numbers(history)
    finally:
        keras.config.set_dtype_policy(before)
    for a, b in zip(again.values, whole.values, strict=True):
        np.testing.assert_array_equal(a, b)


COMMAND = (
    *("--head.epochs", "3", "--full.epochs", "3", "--batch_size", "64", "--ema_momentum", "0.9"),
    *("--augment.mixup", "0.2", "--full.batch_normalization", "train", "--head.dropout", "0.2"),
)
STEPS_IN_ALL = 2 * 3 * 20  # of COMMAND: 1,246 digits
DRIVER = """
import os, signal, sys, threading, time
from tlkit import cli, config, training
from tlkit.training import checkpoints
from tlkit.recipes import _runs, finetune

checkpoints.pause = lambda cost: 0.2
checkpoints.SECONDS = 0.2
left, seconds = int(os.environ["KILL_AFTER"]), float(os.environ["KILL_SECONDS"])
original, began = _runs.callbacks, None


def callbacks(trial):
    import keras

    global began
    if began is None:
        began = time.perf_counter()
        if seconds:
            timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            global left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return [*original(trial), Kill()]


_runs.callbacks = callbacks
status = cli.call(config.Finetune, finetune.run)
if began:
    print("seconds", time.perf_counter() - began)
sys.exit(status)
"""


def recipe(folder: Path, *flags: str, kill_after: int = 0, seconds: float = 0) -> subprocess.CompletedProcess:
    """Run COMMAND, and kill it after so many steps, or so many seconds from the beginning of its training on."""
    environment = {**os.environ, "KILL_AFTER": str(kill_after), "KILL_SECONDS": str(seconds)}
    environment["TLKIT_CACHE"] = str(folder.parent / "cache")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
        environment.pop(name, None)
    command = [sys.executable, str(folder.parent / "driver.py"), *COMMAND, *flags]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def result(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], list[np.ndarray], list[Any]]:
    """The metrics of the only run, its model's weights, and its parameters, data sets and status."""
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    timed = ("seconds", "system/", "per_second", "megabytes")
    metrics = {
        name: [(entry.step, entry.value) for entry in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
        if not any(word in name for word in timed)
    }
    (file,) = folder.glob("mlruns/*/models/*/artifacts/data/model.keras")
    weights = keras.saving.load_model(file, compile=False).get_weights()
    datasets = [(entry.dataset.name, entry.dataset.digest) for entry in run.inputs.dataset_inputs]
    return metrics, weights, [run.info.status, run.data.params, datasets]


def test_data_that_moved_are_found_again_where_they_are_now(folder: Path):
    old, new = folder / "photos", folder / "elsewhere"
    old.mkdir()
    asked = Finetune(data=Data(path="photos"), full=Full(epochs=3))
    with tracking.run("tlkit", params={}, tags={}) as run:
        pass
    checkpoints.begin(
        run.run_id,
        recipe="finetune",
        asked={**dataclasses.asdict(asked), "resume": None},
        config=dataclasses.asdict(dataclasses.replace(asked, data=Data(source="folder", path=str(old)))),
        digest="0" * 64,
    )

    def resume(name: str, data: Data, **full: Any) -> Any:
        config, _, interrupted = _resume.find("finetune", Finetune(resume=name, data=data, full=Full(**full)))
        if interrupted:
            interrupted.lock.release()
        return config.data.path, config.full.epochs, interrupted is not None

    assert resume("auto", Data(path="photos"), epochs=3) == (str(old), 3, True)
    assert resume("auto", Data(path="elsewhere"), epochs=3) == ("elsewhere", 3, False)  # there are both: other data
    old.rename(new)
    assert resume("auto", Data(path="elsewhere"), epochs=3) == (str(new), 3, True)
    assert resume("auto", Data(path="elsewhere"), epochs=4) == ("elsewhere", 4, False)
    assert resume(run.run_id, Data(path="elsewhere")) == (str(new), 3, True)
    assert resume(run.run_id, Data(path="elsewhere"), epochs=3) == (str(new), 3, True)
    with pytest.raises(InvalidInput, match=r"full.epochs is 4, but run \w+ was begun with 3"):
        resume(run.run_id, Data(path="elsewhere"), epochs=4)
    with pytest.raises(InvalidInput, match=r"data.path was '.*photos' when .* begun, and there is nothing now"):
        resume(run.run_id, Data())


@pytest.mark.slow
def test_ten_runs_that_are_killed_at_random_points_end_alike(tmp_path: Path):
    """By SIGKILL at a step, one in each tenth of the two phases; every other once more at a moment, whatever it is in.

    Then `--resume auto`, in the same run.
    """
    (tmp_path / "driver.py").write_text(DRIVER, encoding="utf-8")
    (tmp_path / "whole").mkdir()
    done = recipe(tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    seconds = float(done.stdout.split()[-1])
    metrics, weights, about = result(tmp_path / "whole")
    assert [step for step, _ in metrics["loss"]] == [1, 2, 3, 4, 5, 6, 7]  # the solved head, and both phases
    rng = np.random.default_rng(int(os.environ.get("TLKIT_KILL_SEED", "0")))
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        step = int(rng.integers(max(1, number * STEPS_IN_ALL // 10), (number + 1) * STEPS_IN_ALL // 10))
        killed = recipe(folder, kill_after=step)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        moment = rng.uniform(0, seconds * (1 - number / 12))
        again = recipe(folder, "--resume", "auto", seconds=moment) if number % 2 else killed
        print(f"killed after step {step}", f"and {moment:.1f} s, {again.returncode}" if number % 2 else "", flush=True)
        assert again.returncode in (-signal.SIGKILL, 0), again.stderr
        if again.returncode:  # else it was done before
            done = recipe(folder, "--resume", "auto")
            assert done.returncode == 0, done.stderr
            assert "resuming run" in done.stdout
        found = result(folder)
        assert found[0] == metrics
        assert all(np.array_equal(a, b) for a, b in zip(found[1], weights, strict=True))
        assert found[2] == about
        assert not (folder / "mlruns" / "checkpoints").exists()


@pytest.mark.slow
def test_what_resume_refuses_is_one_line(tmp_path: Path):
    (tmp_path / "driver.py").write_text(DRIVER, encoding="utf-8")
    folder = tmp_path / "run"
    folder.mkdir()
    assert recipe(folder, kill_after=30).returncode == -signal.SIGKILL
    (begun,) = (folder / "mlruns" / "checkpoints").iterdir()
    for flags, says in (
        (
            ("--resume", "nonsense"),
            f"no such run of finetune was interrupted in this folder. Those that were: {begun.name}",
        ),
        (("--resume", begun.name, "--seed", "5"), f"seed is 5, but run {begun.name} was begun with 0"),
    ):
        refused = recipe(folder, *flags)
        assert refused.returncode == 2
        assert says in refused.stderr.splitlines()[-1]
        assert "Traceback" not in refused.stderr
    told = json.loads((begun / "run.json").read_text(encoding="utf-8"))
    (begun / "run.json").write_text(json.dumps({**told, "digest": "0" * 64}), encoding="utf-8")
    changed = recipe(folder, "--resume", begun.name)
    assert changed.returncode == 2
    assert f"the data are not those that run {begun.name} was begun with" in changed.stderr.splitlines()[-1]
    (begun / "run.json").write_text(json.dumps(told), encoding="utf-8")

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.delete_run(begun.name)
    gone = recipe(folder, "--resume", begun.name)
    assert gone.returncode == 2
    assert f"{begun.name} is not in this MLflow store, or was deleted there: restore it, or delete" in gone.stderr
    assert "Those that were: none" in gone.stderr.splitlines()[-1]
    client.restore_run(begun.name)

    other = recipe(folder, "--resume", "auto", "--seed", "5", kill_after=1)
    assert f"(run {begun.name} has another seed): a new one begins" in other.stdout
    assert recipe(folder, "--resume", begun.name).returncode == 0


@pytest.mark.parametrize("place", ["memory://bucket/photos", "shards/{000..003}.tar"])
def test_data_at_a_url_or_of_several_files_are_not_missed(place: str):
    before = Finetune(data=Data(path=place))
    assert _resume._with_moved_data(before, Finetune()) == before
    moved = Finetune(data=Data(path="memory://other/photos"))
    assert _resume._with_moved_data(before, moved).data.path == "memory://other/photos"
