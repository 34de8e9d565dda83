"""Fine-tune a pretrained network: solve a new head on frozen features, then train the whole network slowly.

python -m tlkit.recipes.finetune --data.path photos --full.epochs 5
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from tlkit import cli
from tlkit.config import Finetune
from tlkit.errors import InvalidInput
from tlkit.recipes import _decisions, _inputs, _jobs, _networks, _plans, _results, _summary

if TYPE_CHECKING:
    import keras

    from tlkit import data
    from tlkit.training.sources import Pooled, Source


def run(config: Finetune, trial: _jobs.Trial | None = None) -> _results.Result | _jobs.Tried:
    """Train, score and log a classifier; see `config.Finetune` for the settings.

    Args:
        config: The settings.
        trial: If the run is one of a search.
    """
    job = _jobs.start("finetune", config, trial, check, resumable=True)
    from tlkit.training import finetuning

    _check_hyperband(job)
    examples = _inputs.photos(job.config)
    model = _networks.classifier(job.config, examples)
    job = job.decided(_decisions.head(job.config, model, examples))
    _networks.admit(model, trial)
    splits = _inputs.splits(job.config.data, examples, model.input_shape[1:])
    job.check_data(splits)
    job = job.decided(_decisions.batch_size(job.config, model, splits))
    with job.timing("features"):
        source, pooled = _learn_from(job, model, splits)
    job = job.decided(_decisions.source(job.config, model, source, pooled))
    job = job.decided(_decisions.rates(job.config, model, splits, pooled))
    with job.tracked(splits) as tracked:
        history = finetuning.fit_phases(
            model,
            source,
            pooled,
            _plans.finetuning(job.config, splits),
            callbacks=job.callbacks,
            checkpointing=job.checkpointing(tracked),
            until=job.until,
        )
        if trial:
            return _jobs.Tried(model, history, job.seconds)
        result = _results.score_training(job, tracked, model, splits, history)
    return _summary.show(job, tracked, result)


def check(config: Finetune) -> None:
    """Refuse settings that contradict each other.

    Raises:
        InvalidInput: stored activations are asked for of photos that each epoch changes anew or of several stages; or
            there are more parts of phase full than epochs; or stages are unknown, in another order, or frozen and have
            learning rates.
    """
    from tlkit.training import sources

    stages = _plans.stages(config)
    if len(stages) > 1 and config.full.stored:
        raise InvalidInput(
            f"full.stored is true, but full.unfreeze_from names {len(stages)} stages: give one, or leave stored out"
        )
    if len(stages) > max(config.full.epochs, 1):
        raise InvalidInput(
            f"full.unfreeze_from names {len(stages)} stages, each for an epoch or more, but full.epochs is "
            f"{config.full.epochs}: give more epochs"
        )
    _plans.check_tta(config, config.augment)
    _networks.check_stages(config)
    if config.full.stored and _plans.changes(config.augment) not in ({}, sources.FLIPS) and not config.augment.views:
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


def _learn_from(job: _jobs.Job[Finetune], model: keras.Model, splits: data.Splits) -> tuple[Source, Pooled | None]:
    """Choose what phase full trains on, and compute the features for the head; a resumed trial has its head already."""
    from tlkit.training import sources

    config, trial = job.config, job.trial
    plan, extractor = _plans.finetuning(config, splits), functools.partial(_networks.extractor, config)
    source = sources.Source(model, splits.train, splits.val, plan.augment)
    if config.full.epochs and len(plan.stages) == 1:
        runs = trial.runs if trial else 1.0
        source = sources.choose(model, splits, plan, extractor, runs=runs, resuming=job.interrupted is not None)
    needs_head = (config.head.epochs or config.head.solved) and not (trial and trial.resumes)
    return source, sources.pool(model, splits, extractor) if needs_head else None


if __name__ == "__main__":
    cli.main(Finetune, run)
