"""Progress: nothing for quick work, then the rate and the time left."""

from __future__ import annotations

import sys

import pytest

from tlkit import progress
from tlkit.training import History
from tlkit.training.callbacks import ProgressTable


def test_it_tells_the_rate_and_the_time_left_when_it_takes_long(monkeypatch, capsys):
    clock = iter(range(0, 1000, 1))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.Progress("opening", 30) as told:
        for _ in range(30):
            told.advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "opening: 3 of 30 photos, 0.8 a second, 27 s left"
    assert lines[-1].startswith("opening: 30 of 30 photos in")
    assert len(lines) < 6


def test_nothing_is_told_while_nothing_is_done(monkeypatch, capsys):
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.Progress("waiting", 3) as told:
        told.advance(0)
        told.advance(0)
        assert capsys.readouterr().err == ""
        told.advance(1)
        assert "1 of 3" in capsys.readouterr().err


def test_quick_work_tells_nothing(capsys):
    with progress.Progress("opening", 3) as told:
        told.advance(3)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "text"), [(9.94, "9.9 s"), (59.6, "1 min 0 s"), (3600, "1 h 0 min")])
def test_durations_are_rounded_before_they_are_divided(seconds: float, text: str):
    assert progress.duration(seconds) == text


def test_the_table_of_epochs_moves_a_terminals_cursor_and_shows_no_escapes(monkeypatch, capsys):
    clock = iter(range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    numbers = dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy"), 0.5)
    table = ProgressTable(History([{**numbers, "seconds": 2.0}]), "full", 0, 3, 4, 0)
    table.on_train_begin()
    table.on_epoch_begin(0)
    table.on_train_batch_begin(1)
    table.on_epoch_end(0)
    _, shown = capsys.readouterr().out.rstrip("\n").split("time left\n")
    assert shown.split(progress.CLEAR)[1:] == [
        "full  step 1/4, 3.0 s left in epoch",
        "full       1/3   0.5000    0.5000    0.5000        0.5000  4.0 s",
    ]
