"""Fine-tune a pretrained network: first a new head is solved on frozen features, then all learns, slowly.

python -m tlkit.recipes.finetune --data.path photos --full.epochs 5
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tlkit import cli
from tlkit.config import Finetune
from tlkit.display import say
from tlkit.errors import InvalidInput, Unavailable
from tlkit.recipes import _results, _runs, _steps

if TYPE_CHECKING:
    import keras

    from tlkit import data, features, tracking, training

FLIPS = {"flip": True}  # alone: there are two of each photo, and not new ones in each epoch


def run(config: Finetune, trial: _runs.Trial | None = None) -> _results.Result | _runs.Tried:
    """Train, score and log a classifier; see `config.Finetune` for the settings.

    Args:
        config: The settings.
        trial: Where the run is one of a search.
    """
    began = _steps.begin()
    from tlkit import backbones, features, runtime, tracking, training
    from tlkit.training import checkpoints, optimizers

    config, begun = _runs.resumed("finetune", config)
    config = _steps.complete(config)
    check(config)
    optimizers.check(config.optimizer)
    runtime.prepare(config.seed, config.precision)
    tracking.open_store(config.experiment)
    examples = _steps.photos(config.data)
    _steps.check_balance(config, examples)
    building = time.perf_counter()
    backbone = _steps.backbone(config)
    height, width, channels = backbone.input_shape[1:]
    model, stages = _steps.classifier(config, backbone, examples), _steps.stages_of(config)
    config = _steps.with_head(config, model, examples)
    if trial and trial.until and len(stages) > 1:
        raise InvalidInput(
            f"full.unfreeze_from names {len(stages)} stages, which hyperband cannot stop between: give one, or another "
            "--algorithm"
        )
    _runs.admit(model, trial)
    splits = _steps.splits(config.data, examples, (height, width), channels)
    begun.check(splits)
    config = _steps.with_batch_size(config, model, splits)
    _steps.check_updates(config, splits)
    weights = _steps.class_weights(config, splits)
    goes_on = trial is not None and trial.checkpoint is not None and trial.checkpoint.exists()
    seen: list[features.Features] = []
    network, train, val, augment = model, splits.train, splits.val, _steps.changes(config.augment) or None
    extracting = time.perf_counter()
    if config.full.epochs and len(stages) == 1:
        runs = trial.runs if trial else 1.0
        network, train, val, augment, extractor = _learn_from(config, model, splits, runs, begun.kept is not None)
        config = dataclasses.replace(config, full=dataclasses.replace(config.full, stored=network is not model))
        config = _steps.with_engine(config, extractor) if extractor else config
    if (config.head.epochs or config.head.solved) and not goes_on:
        extractor = _steps.extractor(config, features.pooled(model), "pooled")
        seen = _steps.extracted(extractor, splits.train, splits.val)
        config = _steps.with_engine(config, extractor)
    extracting = time.perf_counter() - extracting
    config = _steps.with_rates(config, model, splits, seen[0] if seen else None)
    with _runs.tracked("finetune", config, splits, trial, begun) as tracked:
        phases = [f"full{number}" for number in range(1, len(stages) + 1)] if len(stages) > 1 else ["full"]
        kept = [_runs.keeping(tracked, phase, trial) for phase in phases]
        # A phase is over where a later one has a checkpoint, which holds all that it learnt.
        done = max(
            (number for number, keeping in enumerate(kept) if keeping and checkpoints.exists(keeping.path)), default=-1
        )
        history = training.History([])
        if seen and done < 0:
            history = _fit_head(config, model, seen, weights, tracked, trial)
        for number, (phase, stage) in enumerate(zip(phases, stages, strict=True)):
            if not config.full.epochs or number < done:
                continue
            _steps.unfreeze(config, model, stage)
            history = training.fit_full(
                network,
                train,
                val,
                _share(_steps.settings(config, config.full, weights), number, len(stages)),
                seed=config.seed,
                augment=augment,
                before=history,
                stages=backbones.row(config.backbone.name).stages,
                until=trial and trial.until,
                keeping=kept[number],
                phase=phase,
                callbacks=_runs.callbacks(trial),
            )
        if trial:
            return _runs.Tried(model, history, time.perf_counter() - building)
        predicted = training.predict(model, splits.test or splits.val, _steps.batch_size(config))
        fit = _results.with_tta(config, model, splits, predicted, _results.trained(history, extracting))
        result = _results.finish("finetune", config, tracked, model, fit, splits, predicted, config.register)
    return _results.summarize("finetune", config, result, tracked, began)


def _fit_head(
    config: Finetune,
    model: keras.Model,
    seen: Sequence[features.Features],
    weights: list[float] | None,
    tracked: tracking.Run,
    trial: _runs.Trial | None,
) -> training.History:
    """Solve the head, train it, or both."""
    from tlkit import backbones, training

    train, val = seen
    settings = _steps.settings(config, config.head, weights)
    keeping = None if trial else _runs.keeping(tracked, "head")
    history = training.History([])
    backbones.freeze(model)
    if config.head.solved:
        history = training.solve_head(model, train, val, settings, seed=config.seed, callbacks=_runs.callbacks(trial))
    if config.head.epochs:
        history = training.fit_head(
            model,
            train,
            val,
            settings,
            seed=config.seed,
            before=history,
            keeping=keeping,
            callbacks=_runs.callbacks(trial),
        )
    return history


def _share(settings: training.Settings, number: int, phases: int) -> training.Settings:
    """Give a phase its part of the epochs; what cannot be shared evenly goes to the last ones."""
    epochs = settings.epochs
    return settings._replace(epochs=epochs * (number + 1) // phases - epochs * number // phases)


def check(config: Finetune) -> None:
    """Refuse settings that contradict each other.

    Raises:
        InvalidInput: stored activations are wanted of photos that each epoch changes anew or of several stages, or
            more phases than epochs, or stages that there are not, that are frozen and have rates, or in another order.
    """
    stages = _steps.stages_of(config)
    if len(stages) > 1 and config.full.stored:
        raise InvalidInput(
            f"full.stored is true, but full.unfreeze_from names {len(stages)} stages: give one, or leave stored out"
        )
    if len(stages) > max(config.full.epochs, 1):
        raise InvalidInput(
            f"full.unfreeze_from names {len(stages)} stages, each for an epoch or more, but full.epochs is "
            f"{config.full.epochs}: give more epochs"
        )
    _steps.check_tta(config)
    _steps.check_stages(config)
    if config.full.stored and _steps.changes(config.augment) not in ({}, FLIPS) and not config.augment.views:
        raise InvalidInput(
            "full.stored is true, but each epoch changes the photos anew: give --augment.views, such as 8, or switch "
            "off all of --augment but the flip"
        )


def _learn_from(
    config: Finetune, model: keras.Model, splits: data.Splits, runs: float, goes_on: bool
) -> tuple[keras.Model, Any, Any, dict[str, Any] | None, features.Extractor | None]:
    """Choose what the full phase trains, on what: the photos, or stored activations of the frozen stages.

    Returns:
        What is trained, on which training and validation examples, with which augmentation, and what gave the stored
        activations, if they are.
    """
    from tlkit import backbones, features
    from tlkit.data import Mirrored, View, Views

    changes, views, stage = _steps.changes(config.augment), config.augment.views, _steps.stages_of(config)[0]
    seen: list[Any] = [splits.train]  # all that epochs draw from; nothing where each makes photos of its own
    if views:
        seen = [View(splits.train, changes, config.seed, number) for number in range(views)]
    elif changes:
        seen = [splits.train, Mirrored(splits.train)] if changes == FLIPS else []
    through = model, Views(seen) if views else splits.train, splits.val, None if views else changes or None, None
    if stage is None or config.full.stored is False:
        return through
    if not seen:
        return _say(through, "as each epoch changes the photos anew (--augment.views 4 makes four of each, once)")
    try:
        lower, upper = backbones.split(model, config.backbone.name, stage)
    except InvalidInput as error:
        if config.full.stored:
            raise
        return _say(through, str(error))
    extractor = _steps.extractor(config, lower, f"below {stage}", "float16")
    if config.full.stored is None:
        passes = round(runs * config.full.epochs * (len(splits.train) + len(splits.val)))
        gain = features.estimate(extractor, [*seen, splits.val], passes)
        if not gain.worth:
            return _say(through, gain.said)
        say(f"full phase: from stored activations of the frozen stages, {gain.said}")
    try:
        *given, val = _steps.extracted(extractor, *seen, splits.val)
    except Unavailable as error:
        if goes_on and config.full.stored:  # its checkpoints are of the upper stages alone
            raise
        return _say(through, str(error))
    return upper, Views(given) if len(given) > 1 else given[0], val, None, extractor


def _say(through: Any, reason: str) -> Any:
    say(f"full phase: through the frozen stages, {reason}")
    return through


if __name__ == "__main__":
    cli.main(Finetune, run)
