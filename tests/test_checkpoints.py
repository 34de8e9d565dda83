"""A checkpoint, or the record of a run, that anybody may have written: refused in one line, or passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlkit.errors import InvalidInput
from tlkit.training import checkpoints

EPOCH = {"epoch": 1, "phase": "full", "loss": 1.0, "val_loss": 0.5, "seconds": 0.1}
ARRAYS = {name: [np.ones(2)] for name in ("last", "optimizer", "best", "metrics", "generators")}
WHOLE = checkpoints.State([EPOCH], 0, 0, False, 3, 1.5, ARRAYS)


def written(path: Path, settings: dict[str, Any] | None = None, **changed: Any) -> Path:
    checkpoints.save(path, WHOLE._replace(**changed), settings or {"batch_size": 16})
    return path


def test_a_whole_one_is_read(tmp_path: Path):
    state, split = checkpoints.load(written(tmp_path / "full.npz"), {"batch_size": 32})
    assert (state.epochs, state.step, split) == ([EPOCH], 3, {"batch_size": 16})


@pytest.mark.parametrize(
    "changed",
    [
        {"step": -1},
        {"step": "3"},
        {"step": True},
        {"before": -1},
        {"before": 2},
        {"waited": -3},
        {"waited": 1.5},
        {"seconds": "long"},
        {"seconds": -1.0},
        {"seconds": float("nan")},
        {"ended": 0},
        {"epochs": {}},
        {"epochs": [{**EPOCH, "val_loss": "low"}]},
        {"epochs": [{**EPOCH, "epoch": "1"}]},
        {"epochs": [{**EPOCH, "phase": 3}]},
        {"epochs": [{"val_loss": 0.5}]},
        {"settings": {"batch_size": -4}},
        {"settings": {"batch_size": "16"}},
        {"arrays": {**ARRAYS, "last": [np.array([1, np.nan])]}},
        {"arrays": {**ARRAYS, "best": [np.array([np.inf])]}},
        {"arrays": {**ARRAYS, "best": [np.array(["weights"])]}},
        {"arrays": {"last": []}},
    ],
    ids=str,
)
def test_what_cannot_be_a_phases_state_is_refused_in_one_line(tmp_path: Path, changed: dict[str, Any]):
    path = written(tmp_path / "full.npz", **changed)
    with pytest.raises(InvalidInput, match=r"^\S*full.npz is not a checkpoint of a phase, or is damaged: delete it"):
        checkpoints.load(path, {"batch_size": 32})


@pytest.mark.parametrize("told", ["[" * 100_000, "[" * 500 + "]" * 500, '{"epochs": 1e400'])
def test_nested_settings_of_a_checkpoint_are_refused_too(tmp_path: Path, told: str):
    np.savez(tmp_path / "full.npz", told=np.array(told))
    with pytest.raises(InvalidInput, match="is not a checkpoint of a phase"):
        checkpoints.load(tmp_path / "full.npz", {})


def test_a_compressed_checkpoint_is_refused_before_it_is_read(tmp_path: Path):
    whole, bomb = written(tmp_path / "full.npz"), tmp_path / "bomb.npz"
    with np.load(whole) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez_compressed(bomb, **{**arrays, "last_0": np.zeros(10**7)})
    assert bomb.stat().st_size < 10**5
    with pytest.raises(InvalidInput, match="is not a checkpoint of a phase"):
        checkpoints.load(bomb, {"batch_size": 32})


def test_one_bad_record_does_not_hide_the_other_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    told = {"recipe": "finetune", "asked": {}, "config": {}, "digest": "0"}
    good = checkpoints.begin("good", **told)
    for name, text in {
        "deep": "[" * 100_000,
        "deeper": '{"asked": ' + '{"a":' * 500 + "1" + "}" * 501,
        "empty": "",
        "list": "[]",
        "kinds": json.dumps({**told, "asked": "x"}),
        "no identifier": json.dumps(told),
        "latin1": "é",
    }.items():
        (checkpoints.FOLDER / name).mkdir()
        (checkpoints.FOLDER / name / "run.json").write_bytes(text.encode("latin-1"))
    (checkpoints.FOLDER / "link").mkdir()
    (checkpoints.FOLDER / "link" / "run.json").symlink_to(good.folder / "run.json")
    assert [run.run_id for run in checkpoints.unfinished()] == ["good"]
    checkpoints.finish(good)
    assert not good.folder.exists()
    assert len(list(checkpoints.FOLDER.iterdir())) == 8
