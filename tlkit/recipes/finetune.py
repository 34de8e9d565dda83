"""Fine-tune a pretrained network: first a new head on frozen features, then the backbone too, slowly.

python -m tlkit.recipes.finetune --config recipes/finetune/digits_letternet.yaml --full.epochs 5
"""

from __future__ import annotations

import dataclasses

from tlkit import cli
from tlkit.config import Finetune
from tlkit.recipes import _steps


def run(config: Finetune) -> _steps.Result:
    """Train, score and log a classifier; see `config.Finetune` for the settings."""
    began = _steps.begin()
    from tlkit import backbones, runtime, tracking, training

    config = _steps.complete(config)
    runtime.prepare(config.seed, config.precision)
    tracking.open_store(config.experiment)
    examples = _steps.photos(config.data)
    backbone = _steps.backbone(config)
    height, width, channels = backbone.input_shape[1:]
    splits = _steps.splits(config.data, examples, (height, width), channels)
    model = backbones.classifier(backbone, len(splits.classes), config.backbone.dropout)
    backbones.unfreeze(model, config.backbone.name, config.full.unfreeze_from)  # refuses a stage it does not have
    with _steps.tracked("finetune", config, splits) as tracked:
        history = training.History([])
        if config.head.epochs:
            backbones.freeze(model)
            history = training.fit_head(
                model, splits.train, splits.val, _steps.settings(config, config.head), [tracking.epoch_logger()]
            )
        if config.full.epochs:
            backbones.unfreeze(model, config.backbone.name, config.full.unfreeze_from)
            history = training.fit_full(
                model,
                splits.train,
                splits.val,
                _steps.settings(config, config.full),
                seed=config.seed,
                augment=dataclasses.asdict(config.augment),
                before=history,
                callbacks=[tracking.epoch_logger()],
            )
        result = _steps.finish(tracked, model, history, splits, config.batch_size)
    _steps.summarize("finetune", config, result, tracked, began)
    return result


if __name__ == "__main__":
    cli.main(Finetune, run)
