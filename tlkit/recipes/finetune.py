"""Fine-tune a pretrained network: solve a new head on frozen features, then train the whole network slowly.

python -m tlkit.recipes.finetune --data.path photos --full.epochs 5
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from tlkit import cli
from tlkit.config import Finetune
from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.recipes import (
    _calibration,
    _clusters,
    _decisions,
    _inputs,
    _jobs,
    _kept_head,
    _near_copies,
    _networks,
    _parents,
    _plans,
    _results,
    _summary,
    _training_decisions,
    _training_runs,
)

if TYPE_CHECKING:
    import keras

    from tlkit import data, training
    from tlkit.training.activations import FullInput, PooledFeatures


@_clusters.connected
def run(config: Finetune, trial: _jobs.Trial | None = None) -> _results.Result | _jobs.Tried:
    """Train, score and log a classifier; see `config.Finetune` for the settings.

    Args:
        config: The settings.
        trial: What limits the run if it is one trial of a search.
    """
    job = _jobs.start("finetune", config, trial, check, resumable=True)
    from tlkit.training import finetuning

    _check_hyperband(job)
    parent = _parents.of(job.config)
    examples = _parents.ordered(_inputs.photos(job.config), parent)
    model = _networks.trainable_classifier(job.config, examples)
    job = job.with_decisions(_decisions.decide_head(job.config, model, examples))
    _networks.admit(model, job.config, trial)
    splits = _inputs.splits(job.config.data, examples, model.input_shape[1:])
    job.check_data(splits)
    splits = _parents.without_seen(splits, parent)
    _calibration.check_count(job.config, len(splits.val), f"validation {splits.kind}")
    splits = splits if trial else _near_copies.look(job.config.data, splits)
    job = job.with_decisions(_decisions.positive(job.config, splits.classes, splits.train.labels))
    job = job.with_decisions(_training_decisions.find_batch_size(job.config, model, splits))
    with job.timing("features"):
        full_input, pooled = _prepare_inputs(job, model, splits, parent)
    job = job.with_decisions(_training_decisions.record_input(job.config, full_input, pooled))
    job = job.with_decisions(_training_decisions.find_rates(job.config, model, splits, pooled))
    with job.tracked(splits) as tracked:
        history = finetuning.fit_phases(
            model,
            full_input,
            pooled,
            _plan(job.config, splits, pooled),
            callbacks=job.callbacks,
            checkpointing=job.checkpointing(tracked),
            until=job.until,
            head=_parents.head(parent, splits.classes),
        )
        if trial or job.follows:
            return _jobs.Tried(model, history, job.seconds)
        calibrated = None if parent else _kept_head.solved_again(job, model, splits, pooled, history)
        result = _results.score_training(job, tracked, model, splits, history, calibrated)
    if parent:
        _training_runs.link(tracked.run_id, parent.training.run)
    return _summary.show(job, tracked, result)


def check(config: Finetune) -> None:
    """Refuse settings that contradict each other.

    Raises:
        InvalidInput: stored activations are wanted, but each epoch changes the photos or there are several stages; or
            there are more stages than epochs; or stages are unknown, in another order, or frozen and have learning
            rates.
    """
    from tlkit.training import activations

    stages = _plans.stages(config)
    if len(stages) > 1 and config.full.stored:
        raise InvalidInput(
            f"full.stored is true, but full.unfreeze_from names {len(stages)} stages: give one, or leave stored out"
        )
    if config.full.epochs is not None and len(stages) > max(config.full.epochs, 1):
        raise InvalidInput(
            f"full.unfreeze_from names {len(stages)} stages, each for an epoch or more, but full.epochs is "
            f"{config.full.epochs}: give more epochs"
        )
    _plans.check_tta(config, config.augment)
    _networks.check_stages(config)
    if (
        config.full.stored
        and _plans.changes(config.augment) not in ({}, activations.FLIPS)
        and not config.augment.views
    ):
        raise InvalidInput(
            "full.stored is true, but each epoch changes the photos anew: give --augment.views, such as 8, or switch "
            "off all of --augment but the flip"
        )


def _check_hyperband(job: _jobs.Job[Finetune]) -> None:
    stages = _plans.stages(job.config)
    if job.until and len(stages) > 1:
        raise InvalidInput(
            f"full.unfreeze_from names {len(stages)} stages, which hyperband cannot stop between: give one, or another "
            "--algorithm"
        )


def _prepare_inputs(
    job: _jobs.Job[Finetune], model: keras.Model, splits: data.Splits, parent: _parents.Parent | None
) -> tuple[FullInput, PooledFeatures | None]:
    """Prepare what both phases learn from; a trial that resumes has its head already."""
    from tlkit.features import Features
    from tlkit.training import activations

    config, trial = job.config, job.trial
    plan, make_extractor = _plans.finetuning(config, splits), functools.partial(_networks.extractor, config)
    runs, resuming = trial.runs if trial else 1.0, job.interrupted is not None
    full_input = activations.choose_input(model, splits, plan, make_extractor, runs=runs, resuming=resuming)
    needs_head = (config.head.epochs or config.head.solved) and not (trial and trial.resumes)
    pooled = activations.pool(model, splits, make_extractor) if needs_head else None
    if pooled and (old := _parents.old_features(pooled.extractor, splits, parent)):
        pooled = pooled._replace(train=Features.joined([pooled.train, old]))
        if config.full.epochs:
            say(
                "full: learns from the photos that are here alone and may forget those that are gone: it is kept only "
                "if it is clearly better with each class counting as it does among all",
                error=True,
            )
    return full_input, pooled


def _plan(config: Finetune, splits: data.Splits, pooled: PooledFeatures | None) -> training.FineTuning:
    """Give the plan, in which old photos that are gone count when phase full is judged."""
    import numpy as np

    plan = _plans.finetuning(config, splits)
    if pooled is None or len(pooled.train) <= len(splits.train) or splits.multi_label:
        return plan
    counts = np.bincount(pooled.train.labels, minlength=len(splits.classes))
    return plan._replace(full=plan.full._replace(class_shares=(counts / counts.sum()).tolist()))


if __name__ == "__main__":
    cli.main(Finetune, run)
