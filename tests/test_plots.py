"""Figures are returned with what they promise in them, and never need a screen."""

from __future__ import annotations

import numpy as np
import pytest

from tlkit import plots


def epoch(number: int, phase: str) -> dict:
    return {"epoch": number, "phase": phase, "loss": 1.0, "val_loss": 1.0, "accuracy": 0.5, "val_accuracy": 0.5}


def test_learning_curves_mark_both_phases_and_the_kept_epoch():
    figure = plots.learning_curves([epoch(1, "head"), epoch(2, "head"), epoch(3, "full")], best=3)
    loss, accuracy = figure.axes
    assert [text.get_text() for text in loss.texts] == ["head", "full"]
    assert "kept: epoch 3" in [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert accuracy.get_ylabel() == "accuracy"


@pytest.mark.parametrize("classes", [2, 10, 40])
def test_a_confusion_matrix_has_its_counts_and_names(classes: int, tmp_path):
    confusion = np.eye(classes, dtype=int) * 7
    figure = plots.confusion_matrix(confusion, [f"class {index}" for index in range(classes)], "title")
    axes = figure.axes[0]
    assert axes.get_title() == "title"
    assert len(axes.texts) == (classes if classes <= 30 else 0)
    assert [label.get_text() for label in axes.get_yticklabels()][1] == "class 1"
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
