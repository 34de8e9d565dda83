"""auto: what it tries, how it chooses, the one model it leaves, its time and its bounds."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import mlflow
import numpy as np
import pytest
from conftest import write_arrays, write_photos, write_sounds
from keras.src.utils import file_utils
from PIL import Image

from tlkit import backbones, cli, config, data, features, training
from tlkit.errors import InvalidInput
from tlkit.evaluation import predictions
from tlkit.probes import novelty
from tlkit.recipes import _auto_networks, _auto_search, _auto_tried, _auto_tuning, auto

TWO = "[{name: LetterNet, weights: none}, {name: LetterNet, weights: letters}]"


def search(photos: Path, *argv: str) -> int:
    small = ["--data.image_size", "32", "--features.engine", "keras", "--backbones", TWO]
    given = ["--data.path", str(photos), *small, *argv]
    return cli.call(config.Auto, auto.run, given)


def runs() -> tuple[Any, list[Any]]:
    """The parent and the runs below it."""
    every = mlflow.search_runs(search_all_experiments=True, output_format="list")
    (parent,) = [run for run in every if "mlflow.parentRunId" not in run.data.tags]
    return parent, [run for run in every if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]


def file(run: Any, name: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/{name}"))


def hard_photos(root: Path, count: int = 40) -> Path:
    """Write photos of two classes that differ in where it is bright, with so much noise that some are mistaken."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("high", "low")):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.normal(120, 60, (40, 60))
            pixels[20 * label : 20 * label + 20] += 12
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert("RGB").save(root / name / f"{number}.png")
    return root


def test_it_leaves_one_model_and_a_table_of_what_it_tried(
    folder: Path, undrawn: None, uncompiled: None, capsys, monkeypatch
):
    real = auto._find

    def blind(searched: Any, *more: Any) -> Any:
        splits = dict(searched.splits)
        searched.splits = {key: dataclasses.replace(each, test=None) for key, each in splits.items()}
        found = real(searched, *more)
        assert all(each.test is None for key, each in searched.splits.items() if key in splits)
        searched.splits |= splits
        return found

    monkeypatch.setattr(auto, "_find", blind)  # the search cannot look at the test photos
    assert search(hard_photos(folder / "photos")) == 0
    said = capsys.readouterr().out
    parent, below = runs()
    table = json.loads(file(parent, "tried.json").read_text(encoding="utf-8"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert {row["run_id"] for row in rows} == {run.info.run_id for run in below if run.data.metrics}
    names = [row["tried"] for row in rows]
    assert names[:3] == ["LetterNet (none)", "LetterNet (none), squash", "LetterNet"]
    assert any(" + " in name for name in names)
    assert names[-1].endswith("mirror image too")
    assert parent.data.params["chosen"] in names
    assert parent.data.params["minutes"] == "5.0"
    chosen = next(row for row in rows if row["tried"] == parent.data.params["chosen"])
    assert parent.data.metrics["cross_validated_loss"] == pytest.approx(chosen["log_loss"])
    assert parent.data.params["chosen"] in parent.data.tags["mlflow.note.content"].replace("\\", "")
    assert f"{chosen['accuracy']:.3f}" in said
    assert "fine-tuning: " in said  # is left out: there are too few validation photos
    lines = said[said.index("accuracy  log loss") :].split("\nauto: ")[0].splitlines()
    assert max(map(len, lines)) <= 80
    logged = predictions.read(parent.info.run_id)
    assert logged is not None
    assert logged.split == "test"
    model = keras.saving.load_model(next(folder.glob("mlruns/*/models/*/artifacts/data/model.keras")), safe_mode=True)
    assert model.output_shape == (None, 2)
    assert not list(folder.glob("mlruns/checkpoints/auto-*"))


def test_a_minute_too_short_gives_the_first_network(
    folder: Path, photos: Path, undrawn: None, uncompiled: None, capsys
):
    assert search(photos, "--minutes", "0.001") == 0
    parent, _ = runs()
    assert parent.data.params["chosen"] == "LetterNet (none)"
    assert "no time is left" in capsys.readouterr().out


@pytest.mark.slow
def test_an_interrupted_fine_tuning_continues(folder: Path, undrawn: None, capsys, monkeypatch):
    from tlkit.training import limits

    monkeypatch.setattr(_auto_tuning, "FEWEST", 5)
    monkeypatch.setattr(_auto_tuning, "NETWORKS", 1)
    photos = hard_photos(folder / "photos", 60)
    real = limits.TimeLimit.on_epoch_end

    def interrupt(self: Any, epoch: int, logs: Any = None) -> None:
        if epoch == 2:
            self.model.stop_training = True
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)
        real(self, epoch, logs)

    monkeypatch.setattr(limits.TimeLimit, "on_epoch_end", interrupt)
    assert search(photos) == 130
    error = capsys.readouterr().err
    assert "the same command continues" in error
    (folder_of_checkpoints,) = folder.glob("mlruns/checkpoints/auto-*")
    assert list(folder_of_checkpoints.rglob("trial.npz"))
    monkeypatch.setattr(limits.TimeLimit, "on_epoch_end", real)
    assert search(photos) == 0
    said = capsys.readouterr().out
    assert next(line.split()[1] for line in said.splitlines() if line.startswith("trial ")) == "3/3"  # two are done
    assert not folder_of_checkpoints.exists()


@pytest.mark.parametrize("mirrored", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_a_fine_tuned_winner_knows_what_is_like_none(tmp_path: Path, mirrored: bool):
    """By its own features of its training photos; the threshold is of validation photos."""
    photos = write_photos(tmp_path / "photos", {"green": 60, "red": 60})
    splits = data.load("folder", path=str(photos), size=(32, 32), channels=1, val_fraction=0.4, quiet=True)
    model = backbones.classifier(backbones.build("LetterNet", (32, 32, 1)), 2)
    backbone, tuned = model.get_layer("backbone"), features.pooled(model)
    network = _auto_networks.Network(
        config.FeatureExtraction(), "LetterNet", model, backbone, 0.0, 0.001, None, tuned=tuned
    )
    head = backbones.JoinedHead([backbone], *map(np.asarray, model.get_layer("head").get_weights()), mirrored)
    held = _auto_tried.Held(_auto_tried.HELD, splits.val.labels, splits.val.hashes)
    winner = _auto_tried.Tried("tuned", (network,), (head,), np.empty(0), held, 0.0)
    winner = dataclasses.replace(winner, probabilities=winner.predict(splits.val))
    searched = SimpleNamespace(
        known=lambda network, resize: (splits.train, splits.val), resize="squash", heads={}, pace=1.0,
        seconds_left=lambda passes: 600.0,
    )  # fmt: skip
    saved = backbones.joined([head])
    predicted = winner.predict(splits.test)
    found = auto._calibrate(searched, SimpleNamespace(config=config.Auto()), winner, saved, predicted).novelty
    assert found.hashes.shape == (len(splits.train), 32)
    taken = keras.Model(saved.input, saved.get_layer("head").input).predict(splits.train.read(range(5)), verbose=0)
    np.testing.assert_allclose(found.references[:5], novelty.unit(taken), atol=1e-3)
    (own,) = winner.features(splits.val)
    assert 0 < np.mean(found.distances(own) > found.threshold) <= 0.05
    searched.seconds_left = lambda passes: 0.0
    rushed = auto._calibrate(searched, SimpleNamespace(config=config.Auto()), winner, saved, predicted)
    assert rushed.novelty is None


@pytest.mark.parametrize(
    ("argv", "status", "says"),
    [
        (["--minutes", "0"], 2, "minutes is 0.0; it must be above 0"),
        (["--backbones", "[]"], 2, "backbones is []; it must have one network or more"),
        (["--backbones", "[MobilNet]"], 2, "did you mean MobileNet"),
        (["--largest_mb", "0.001"], 2, "exceeds a bound (LetterNet: 1.4 MB; largest_mb is 0.001"),
        (["--fastest_ms", "1e-6"], 2, "fastest_ms is 1e-06"),
        (["--data.path", "gone"], 2, "there is no such file or folder"),
    ],
)
def test_wrong_usage_is_one_line_and_no_run(
    folder: Path, photos: Path, capsys, argv: list[str], status: int, says: str
):
    assert search(photos, "--backbones", "[LetterNet]", *argv) == status
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not mlflow.search_runs(search_all_experiments=True, output_format="list")


def test_without_weights_on_this_machine_it_says_what_is_missing(folder: Path, photos: Path, capsys, monkeypatch):
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(folder))
    monkeypatch.setattr("tlkit.backbones.weightfiles.reachable", lambda url: False)
    assert cli.call(config.Auto, auto.run, ["--data.path", str(photos)]) == 1
    error = capsys.readouterr().err
    assert "MobileNetV2 needs " in error
    assert error.count("\n") == 1


def test_what_it_cannot_take_is_refused(folder: Path, capsys):
    sounds = write_sounds(folder / "sounds", {"a": 6, "b": 6})
    volumes = write_arrays(folder / "volumes.npz")
    for path in (sounds, volumes):
        assert cli.call(config.Auto, auto.run, ["--data.path", str(path)]) == 2
        assert "a pretrained backbone takes photos" in capsys.readouterr().err
    table = folder / "table.csv"
    write_photos(folder, {"x": 4})
    table.write_text("path,label\n" + "".join(f"x/{n:03}.png,a|b\n" for n in range(4)), encoding="utf-8")
    assert cli.call(config.Auto, auto.run, ["--data.path", str(table), "--data.separator", "|"]) == 2
    assert "auto takes one label an example" in capsys.readouterr().err


def test_photos_for_validation_become_the_test_where_there_is_no_other():
    class Listed:
        splits = ("train", "val")

    (decision,) = auto._decide(config.Auto(), Listed())
    assert (decision.setting, decision.value) == ("data.val_as_test", True)
    Listed.splits = ("train", "val", "test")
    assert not auto._decide(config.Auto(), Listed())


def test_candidates_are_the_networks_on_this_machine(tmp_path: Path, monkeypatch):
    class Listed:
        contents = np.zeros((3, 28, 28, 3), np.uint8)

    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))

    def names(made: config.Auto) -> list[str]:
        return [f"{each.name} {each.alpha or ''}".strip() for each in _auto_networks.candidates(made, Listed())]

    photos = config.Auto(data=config.Data(path="photos"))
    assert names(photos) == ["MobileNetV2"]
    assert names(config.Auto()) == ["LetterNet"]
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mobilenet_2_5_224_tf_no_top.h5").write_bytes(b"12")
    (tmp_path / "models" / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5").write_bytes(b"1")
    assert names(photos) == ["VGG16", "MobileNet 0.25"]
    Listed.contents = np.zeros((3, 28, 28, 1), np.uint8)
    assert names(photos) == ["LetterNet", "VGG16", "MobileNet 0.25"]
    assert names(dataclasses.replace(photos, backbones=["VGG19", "VGG19"])) == ["VGG19"]


# The choice -----------------------------------------------------------------------------------------------------------


class Cost:
    """A network of which only the cost matters."""

    megabytes, milliseconds, tuned, title, slower = 1.0, None, None, "", 1.0

    def __init__(self, cost: float):
        self.cost, self.model = cost, object()


def tried(name: str, right: np.ndarray, cost: float, groups: list[str] | None = None) -> _auto_tried.Tried:
    labels = np.zeros(len(right), int)
    held = _auto_tried.Held(_auto_tried.FOLDS, labels, groups or [str(i) for i in range(len(right))])
    network = Cost(cost)
    head = backbones.JoinedHead([network.model], np.zeros(()), np.zeros(()))
    return _auto_tried.Tried(name, (network,), (head,), np.stack([right, 1 - right], 1), held, 0.0)


def test_of_what_is_practically_as_good_the_simplest_is_chosen():
    base = np.full(100, 0.5)
    small, large = tried("small", base, 1.0), tried("large", base + np.tile([0.12, -0.0965], 50), 2.0)
    assert large.loss < small.loss
    chosen, why = _auto_tried.choose([large, small])
    assert chosen is small
    assert "is practically large's" in why
    clearer = tried("clearer", base + np.tile([0.12, -0.09], 50), 2.0)
    assert _auto_tried.choose([clearer, small])[0] is clearer
    assert not _auto_tried.beats(clearer, small)
    assert not _auto_tried.beats(large, small)
    better = tried("better", base + 0.05, 2.0)
    assert _auto_tried.choose([small, better])[0] is better
    assert _auto_tried.beats(better, small)
    assert _auto_tried.choose([better, tried("as good", base + 0.05, 3.0)])[0] is better


def test_photos_of_a_group_are_no_independent_evidence():
    base, groups = np.full(100, 0.5), [f"g{i // 50}" for i in range(100)]
    gain = np.where(np.arange(100) < 50, 0.2, -0.12)  # one group gains, the other loses
    assert _auto_tried.beats(tried("new", base + gain, 2.0), tried("old", base, 1.0))
    paired = tried("new", base + gain, 2.0, groups), tried("old", base, 1.0, groups)
    assert not _auto_tried.beats(*paired)


def test_a_mean_of_predictions_must_clearly_win(monkeypatch):
    def member(name: str, seed: int) -> _auto_tried.Tried:
        noise = np.random.default_rng(seed).normal(0, 0.35, 500)
        return tried(name, np.clip(0.6 + noise, 0.02, 0.98), 1e-3)

    class Job:
        config, seconds = config.Auto(), 0.0

    searched = _auto_search.Search(Job(), None, {(32, "center"): Untested()}, "center")
    monkeypatch.setattr(_auto_search, "finish", lambda search, each: each)
    monkeypatch.setattr(_auto_search, "step", lambda *_, **__: _Run())
    alone, tuned = member("head", 1), member("tuned", 2)
    chosen, why = _auto_tuning.best_of(searched, alone, [tuned])
    assert " & " in chosen.name  # their mistakes are independent
    assert "the lowest log loss" in why
    same, _ = _auto_tuning.best_of(searched, alone, [dataclasses.replace(alone, name="copy")])
    assert same is alone  # a mean with itself is no better


class Untested:
    test = None


class _Run:
    run_id = ""

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_time_ends_training_within_an_epoch():
    from tlkit.training.limits import TimeLimit

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    limit = TimeLimit(time.perf_counter())

    history = model.fit(np.zeros((64, 1)), np.zeros(64), 8, epochs=3, verbose=0, callbacks=[limit])
    assert limit.reached
    assert len(history.epoch) == 1
    assert int(model.optimizer.iterations) == 1


def test_bounds_count_every_network_and_the_mirror_image():
    class Network:
        megabytes, milliseconds = 3.0, 10.0

        def __init__(self):
            self.model = object()

    bounded = config.Auto(largest_mb=5.0, fastest_ms=15.0)
    one = Network()
    assert not _auto_networks.excess(bounded, [one])
    assert "20.0 ms" in _auto_networks.excess(bounded, [one, one])
    assert "6.0 MB" in _auto_networks.excess(bounded, [Network(), Network()])


def test_a_config_refuses_what_is_no_bound():
    for name in ("largest_mb", "fastest_ms"):
        with pytest.raises(InvalidInput, match=f"{name} is -1; it must be above 0"):
            config.Auto(**{name: -1})


def test_epochs_after_the_trials_follow_their_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_auto_tuning.time, "perf_counter", lambda: 100.0)
    rest, epochs = training.Settings(20, 0.1), [{"phase": "head", "seconds": 0.1}]
    tried = training.History([*epochs, {"phase": "trial", "seconds": 9.0}, {"phase": "trial2", "seconds": 4.0}])

    def planned(left: float, phase: str = "full", known: training.History = tried) -> int:
        return _auto_tuning._fitted(phase, known, rest, 100 + left, tmp_path).epochs

    assert [planned(left) for left in (16, 17, 33, 500)] == [0, 3, 7, 20]  # 5 s until the first batch
    assert [planned(left, "trial3") for left in (16, 17)] == [0, 20]
    (tmp_path / "rest.json").write_text("7", encoding="utf-8")
    (tmp_path / "full.npz").touch()
    assert planned(0, known=training.History([])) == 7  # it is resumed
