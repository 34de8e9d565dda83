"""Train a new head on the features of a frozen pretrained network; each photo passes the network once.

python -m tlkit.recipes.feature_extraction --config recipes/feature_extraction/digits_letternet.yaml
"""

from __future__ import annotations

from tlkit import cli
from tlkit.config import FeatureExtraction
from tlkit.recipes import _steps


def run(config: FeatureExtraction) -> _steps.Result:
    """Train, score and log a classifier; see `config.FeatureExtraction` for the settings."""
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
    with _steps.tracked("feature_extraction", config, splits) as tracked:
        backbones.freeze(model)
        history = training.fit_head(
            model, splits.train, splits.val, _steps.settings(config, config.head), [tracking.epoch_logger()]
        )
        result = _steps.finish(tracked, model, history, splits, config.batch_size)
    _steps.summarize("feature_extraction", config, result, tracked, began)
    return result


if __name__ == "__main__":
    cli.main(FeatureExtraction, run)
