"""The head of a run in which fine-tuning did not pay: solved again, with the validation photos too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlkit.display import say
from tlkit.recipes import _calibration, _plans

if TYPE_CHECKING:
    import keras

    from tlkit import data, training
    from tlkit.config import Finetune
    from tlkit.recipes._jobs import Job
    from tlkit.training.activations import PooledFeatures


def solved_again(
    job: Job[Finetune],
    model: keras.Model,
    splits: data.Splits,
    pooled: PooledFeatures | None,
    history: training.History,
) -> _calibration.Calibrated | None:
    """Solve the head on the training and validation photos together, and calibrate it; see `heads.solve_kept`.

    Args:
        job: The recipe.
        model: Its classifier, with the head that is kept; its head is changed.
        splits: The photos.
        pooled: What the head was solved on.
        history: What was trained.

    Returns:
        Calibration by predictions out of fold; None where an epoch is kept, where the head was trained, or without a
        test split: there the validation photos are what the model is scored on.
    """
    from tlkit.features import Features
    from tlkit.probes import novelty
    from tlkit.training import finetuning, heads

    plan, left_out = _plans.finetuning(job.config, splits), "full.epochs" in job.reasons and not job.config.full.epochs
    if not (pooled and splits.test and finetuning.keeps_head(plan, history, left_out)):
        return None
    import keras

    from tlkit import training

    known = Features.joined([pooled.train, pooled.val])
    probe = heads.solve_kept(model, known, job.config.seed)
    say(f"head: solved again on all {len(known):,} {splits.kind} that are not tested on, as no epoch is kept")
    groups, what = _calibration.independent(known.groups), f"{len(known):,} {splits.kind}, each out of fold"
    held = _calibration.HeldOut(probe.held_out, known.labels, groups, what)
    whole = keras.Model(model.input, [model.get_layer("head").input, model.output])
    features, predicted = training.predict(whole, splits.test, _plans.batch_size_or_default(job.config))
    calibrated = _calibration.calibrate(job, model, held, predicted)
    found = novelty.fit(known.array(), groups=known.groups, hashes=known.hashes, seed=job.config.seed)
    return _calibration.with_novelty(calibrated, found, features)
