"""Fine-tune a pretrained network: first a new head on frozen features, then the backbone too, slowly.

python -m tlkit.recipes.finetune --config recipes/finetune/digits_letternet.yaml --full.epochs 5
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from tlkit import cli
from tlkit.config import Finetune
from tlkit.errors import InvalidInput, Unavailable
from tlkit.recipes import _steps

if TYPE_CHECKING:
    import keras

    from tlkit import data, features


def run(config: Finetune, trial: _steps.Trial | None = None) -> _steps.Result | _steps.Tried:
    """Train, score and log a classifier; see `config.Finetune` for the settings.

    Args:
        config: The settings.
        trial: Where the run is one of a search.
    """
    began = _steps.begin()
    from tlkit import backbones, features, runtime, tracking, training

    config = _steps.complete(config)
    check(config)
    runtime.prepare(config.seed, config.precision)
    tracking.open_store(config.experiment)
    examples = _steps.photos(config.data)
    building = time.perf_counter()
    backbone = _steps.backbone(config)
    height, width, channels = backbone.input_shape[1:]
    splits = _steps.splits(config.data, examples, (height, width), channels)
    model = backbones.classifier(backbone, len(splits.classes), config.head.dropout)
    backbones.unfreeze(model, config.backbone.name, config.full.unfreeze_from)  # refuses a stage it does not have
    _steps.admit(model, trial)
    goes_on = trial is not None and trial.checkpoint is not None and trial.checkpoint.exists()
    seen: list[features.Features] = []
    network, train, val, augment = model, splits.train, splits.val, None
    extracting = time.perf_counter()
    if config.full.epochs:
        runs = trial.runs if trial else 1.0
        network, train, val, augment, extractor = _learn_from(config, model, splits, runs)
        config = dataclasses.replace(config, full=dataclasses.replace(config.full, stored=network is not model))
        config = _steps.with_engine(config, extractor) if extractor else config
    if config.head.epochs and not goes_on:
        extractor = _steps.extractor(config, features.pooled(model), "pooled")
        seen = _steps.extracted(extractor, splits.train, splits.val)
        config = _steps.with_engine(config, extractor)
    extracting = time.perf_counter() - extracting
    with _steps.tracked("finetune", config, splits, trial) as tracked:
        history = training.History([])
        if seen:
            backbones.freeze(model)
            history = training.fit_head(
                model,
                seen[0],
                seen[1],
                _steps.settings(config, config.head),
                seed=config.seed,
                callbacks=_steps.callbacks(trial),
            )
        if config.full.epochs:
            backbones.unfreeze(model, config.backbone.name, config.full.unfreeze_from)
            history = training.fit_full(
                network,
                train,
                val,
                _steps.settings(config, config.full),
                seed=config.seed,
                augment=augment,
                before=history,
                stages=backbones.row(config.backbone.name).stages,
                until=trial and trial.until,
                checkpoint=trial and trial.checkpoint,
                callbacks=_steps.callbacks(trial),
            )
        if trial:
            return _steps.Tried(model, history, time.perf_counter() - building)
        predicted = training.predict(model, splits.test or splits.val, config.batch_size)
        result = _steps.finish(
            "finetune",
            config,
            tracked,
            model,
            _steps.trained(history, extracting),
            splits,
            predicted,
            config.register,
        )
    return _steps.summarize("finetune", config, result, tracked, began)


def _changes(config: Finetune) -> dict[str, Any]:
    """How training photos are changed; nothing where augmentation is off."""
    changes = {name: value for name, value in dataclasses.asdict(config.augment).items() if name != "views"}
    return changes if any(changes.values()) else {}


def check(config: Finetune) -> None:
    """Refuse settings that contradict each other.

    Raises:
        InvalidInput: stored activations are wanted of photos that each epoch changes anew, or views of unchanged ones.
    """
    if config.augment.views and not _changes(config):
        raise InvalidInput(f"augment.views is {config.augment.views}, but all of --augment is off: leave views out")
    if config.full.stored and _changes(config) and not config.augment.views:
        raise InvalidInput(
            "full.stored is true, but each epoch changes the photos anew: give --augment.views, such as 8, or switch "
            "all of --augment off"
        )


def _learn_from(
    config: Finetune, model: keras.Model, splits: data.Splits, runs: float
) -> tuple[keras.Model, Any, Any, dict[str, Any] | None, features.Extractor | None]:
    """Choose what the full phase trains, on what: the photos, or stored activations of the frozen stages.

    Returns:
        What is trained, on which training and validation examples, with which augmentation, and what gave the stored
        activations, if they are.
    """
    from tlkit import backbones, features
    from tlkit.data import View, Views

    changes, views = _changes(config), config.augment.views
    if changes and not views:
        anew = model, splits.train, splits.val, changes, None
        if config.full.unfreeze_from is None or config.full.stored is False:
            return anew
        return _say(anew, "as each epoch changes the photos anew (--augment.views 4 makes four of each, once)")
    seen = [View(splits.train, changes, config.seed, n) for n in range(views or 1)] if changes else [splits.train]
    through = model, Views(seen) if changes else splits.train, splits.val, None, None
    if config.full.unfreeze_from is None or config.full.stored is False:
        return through
    try:
        lower, upper = backbones.split(model, config.backbone.name, config.full.unfreeze_from)
    except InvalidInput as error:
        if config.full.stored:
            raise
        return _say(through, str(error))
    extractor = _steps.extractor(config, lower, f"below {config.full.unfreeze_from}", "float16")
    if config.full.stored is None:
        passes = round(runs * config.full.epochs * (len(splits.train) + len(splits.val)))
        gain = features.estimate(extractor, [*seen, splits.val], passes)
        if not gain.worth:
            return _say(through, gain.said)
        print(f"full phase: from stored activations of the frozen stages, {gain.said}")
    try:
        *given, val = _steps.extracted(extractor, *seen, splits.val)
    except Unavailable as error:
        return _say(through, str(error))
    return upper, Views(given) if changes else given[0], val, None, extractor


def _say(through: Any, reason: str) -> Any:
    print(f"full phase: through the frozen stages, {reason}")
    return through


if __name__ == "__main__":
    cli.main(Finetune, run)
