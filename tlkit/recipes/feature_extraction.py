"""Put a new head on a frozen pretrained network: logistic regression on its features, each computed once.

python -m tlkit.recipes.feature_extraction --data.path photos --backbone.name EfficientNetV2B0
"""

from __future__ import annotations

import time

from tlkit import cli
from tlkit.config import FeatureExtraction
from tlkit.recipes import _results, _runs, _steps


def run(config: FeatureExtraction) -> _results.Result:
    """Solve, score and log a classifier; see `config.FeatureExtraction` for the settings."""
    began = _steps.begin()
    from tlkit import backbones, features, probes, runtime, tracking, training

    config = _steps.complete(config)
    runtime.prepare(config.seed, config.precision)
    tracking.open_store(config.experiment)
    examples = _steps.photos(config.data)
    _steps.one_label(examples, "feature_extraction")
    model = backbones.classifier(_steps.backbone(config), len(examples.classes))
    _runs.check_room(model)
    extractor = _steps.extractor(config, features.pooled(model), "pooled")
    extracting = time.perf_counter()
    splits, (train, val, *test) = _steps.extract(config, examples, extractor)
    parts = {"features": time.perf_counter() - extracting}
    config = _steps.with_engine(config, extractor)
    with _runs.tracked("feature_extraction", config, splits) as tracked:
        solving = time.perf_counter()
        # No epoch is chosen, so where there is a test split the validation photos are free to be learnt from.
        known, scored = (features.Features.joined([train, val]), test[0]) if test else (train, val)
        values = known.array()
        probe = probes.logistic_regression(
            values, known.labels, len(splits.classes), groups=known.hashes, seed=config.seed
        )
        backbones.set_head(model, probe.kernel, probe.bias)
        if config.precision == "float32":
            predicted = probe.probabilities(scored.array())
        else:  # engines round differently: the score is to be that of the saved model
            predicted = training.predict(model, splits.test or splits.val)
        nearest = probes.nearest_neighbours(values, known.labels, groups=known.hashes, seed=config.seed)
        parts["solving"] = time.perf_counter() - solving
        fit = _results.solved(probe, nearest, parts, f"{len(known):,} photos")
        result = _results.finish("feature_extraction", config, tracked, model, fit, splits, predicted, config.register)
    return _results.summarize("feature_extraction", config, result, tracked, began)


if __name__ == "__main__":
    cli.main(FeatureExtraction, run)
