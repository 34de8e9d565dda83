"""How a model came to its weights: by epochs, or by solving its head; what to log of it, and what to print."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tlkit.recipes import _calibration, _summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from tlkit import evaluation, plots, probes, training
    from tlkit.recipes._jobs import Job


@dataclasses.dataclass
class Fit:
    """How a model came to its weights: what to log, and what to print.

    Args:
        parts: Seconds of training, by what was done.
        metrics: Metrics for MLflow, by name.
        pictures: For MLflow, by file name.
        under: Lines of the summary that stand directly under the score.
        lines: Other lines of the summary.
        chosen_by_val: Whether the validation examples chose the weights, so that their score is no test score.
        note: Lines of Markdown for the note of the run.
        worth: What its probabilities are worth.
    """

    parts: dict[str, float]
    metrics: dict[str, float]
    pictures: dict[str, plots.Picture]
    under: list[str]
    lines: list[str]
    chosen_by_val: bool
    note: list[str] = dataclasses.field(default_factory=list)
    worth: _calibration.Worth | None = None

    @property
    def seconds(self) -> float:
        """Seconds of training, all parts."""
        return sum(self.parts.values())

    def is_optimistic(self, scores: evaluation.Scores) -> bool:
        """Whether the scored examples also chose the weights."""
        return scores.split == "validation" and self.chosen_by_val


def of_training(job: Job[Any], history: training.History) -> Fit:
    """Describe how training went, epoch by epoch, and how long the features for it took."""
    from tlkit import plots

    best, extracting = history.best, job.timings.get("features")
    return Fit(
        parts={"epochs": history.seconds} | ({"features": extracting} if extracting else {}),
        metrics={
            "best_epoch": best["epoch"],
            "best_val_loss": best["val_loss"],
            "best_val_accuracy": best["val_accuracy"],
        },
        pictures={"learning_curves.png": plots.Picture("learning_curves", history.epochs, best["epoch"])},
        under=[],
        lines=[kept(history)],
        chosen_by_val=True,
    )


def kept(history: training.History) -> str:
    """Say which epoch's weights the model has, numbered within its phase as the table of epochs is, and why.

    >>> from tlkit.training import History
    >>> head, full = ({"epoch": n, "phase": name, "val_loss": 1 / n} for n, name in ((1, "head"), (2, "full")))
    >>> kept(History([head, full]))
    'kept  epoch 1 of phase full, by the lowest validation loss'
    >>> kept(History([head, {**full, "kept": 1.0}]))
    'kept  epoch 1 of phase full, the last (validation loss 0.5000; 1.0000 before the phase)'
    >>> kept(History([head, {**full, "kept": 0.75, "kept_val_loss": 0.4}]))
    'kept  0.75 of the way to epoch 1 of phase full, the last (validation loss 0.4000; 1.0000 before the phase)'
    >>> kept(History([{**head, "kept": 1.0}, full]))
    'kept  the head: fine-tuning did not clearly improve on it (validation loss 1.0000; 0.5000 after epoch 1 of phase full)'
    """  # noqa: E501  as it is printed
    from tlkit.training import plans

    best, last = history.best, history.epochs[-1]
    name = "the head" if best["phase"] == "head" else f"epoch {_number(history, best)} of phase {best['phase']}"
    if best.get("kept", 1) < 1:
        name = f"{best['kept']:g} of the way to {name}"
    loss = f"validation loss {best['val_loss']:.4f}"
    if best["phase"] != last["phase"]:
        what = "fine-tuning" if best["phase"] == "head" else f"phase {last['phase']}"
        after = f"{last['val_loss']:.4f} after epoch {_number(history, last)} of phase {last['phase']}"
        return f"kept  {name}: {what} did not clearly improve on it ({loss}; {after})"
    vain = {trial for trial in plans.TRIALS if history.gain(trial) <= 0}  # the model never had their weights
    others = [epoch for epoch in history.epochs if epoch["phase"] not in {last["phase"], *vain}]
    if best["phase"] == "head" or "kept" not in best or not others:
        return f"kept  epoch {_number(history, best)} of phase {best['phase']}, by the lowest validation loss"
    before = history._replace(epochs=others).best["val_loss"]
    return f"kept  {name}, the last ({loss}; {before:.4f} before the phase)"


def _number(history: training.History, epoch: dict[str, Any]) -> int:
    """Number an epoch within its phase, as the table of epochs does."""
    return sum(each["phase"] == epoch["phase"] and each["epoch"] <= epoch["epoch"] for each in history.epochs)


def of_solving(
    probe: probes.Probe, nearest: float, parts: dict[str, float], labels: np.ndarray, classes: Sequence[str]
) -> Fit:
    """Describe how a head was solved, with how much regularization, and what the features are worth untrained.

    Args:
        probe: The solved head.
        nearest: Cross-validated accuracy of the nearest neighbours.
        parts: Seconds, by what was done.
        labels: Labels that it was solved on.
        classes: Names of the classes.
    """
    from tlkit import evaluation, plots, probes

    majority = evaluation.majority(labels)
    many = f"{len(labels):,}" if len(labels) <= probes.SAMPLE else f"a sample of {probes.SAMPLE:,}"
    constant = float((labels == majority).mean())
    row = next(row for row in probe.tried if row.l2 == probe.l2)
    return Fit(
        parts=parts,
        metrics={
            "l2": row.l2,
            "cross_validated_loss": row.loss,
            "cross_validated_accuracy": row.accuracy,
            "cross_validated_majority_accuracy": constant,
            "nearest_neighbours_accuracy": nearest,
        },
        pictures={"regularization.png": plots.Picture("regularization", probe.tried, row.l2)},
        under=[],
        lines=[
            f"l2    {row.l2:.2g}, the best of {len(probe.tried)} strengths by cross-validation on {many} "
            f"photos: accuracy {row.accuracy:.3f} ({_summary.always(classes, majority, constant, digits=3)})",
            f"5 nearest neighbours, without training: accuracy {nearest:.3f} (cross-validated)",
        ],
        chosen_by_val=False,
    )
