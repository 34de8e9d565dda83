"""Put a new head on a frozen pretrained network: logistic regression on its features, each computed once.

python -m tlkit.recipes.feature_extraction --data.path photos --backbone.name EfficientNetV2B0
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlkit import cli
from tlkit.config import FeatureExtraction
from tlkit.recipes import (
    _calibration,
    _clusters,
    _decisions,
    _fit,
    _inputs,
    _jobs,
    _near_copies,
    _networks,
    _parents,
    _results,
    _shards,
    _summary,
    _training_decisions,
    _training_runs,
)

if TYPE_CHECKING:
    import keras

    from tlkit import data
    from tlkit.features import Features


@_clusters.connected
def run(config: FeatureExtraction) -> _results.Result | None:
    """Solve, score and log a classifier; see `config.FeatureExtraction` for the settings.

    Returns:
        The result; None for a shard.
    """
    if config.shard:
        _shards.extract(config)
        return None
    from tlkit import plots

    plots.begin()
    job = _jobs.start("feature_extraction", config)
    from tlkit import features

    parent = _parents.of(job.config)
    examples = _parents.ordered(_inputs.photos(job.config), parent)
    _inputs.require_one_label(examples, job.recipe)
    model = _networks.classifier(job.config, examples)
    _networks.admit(model, job.config)
    extractor = _networks.extractor(job.config, features.pooled(model), "pooled")
    with job.timing("features"):
        splits, parts = _inputs.split_features(job.config.data, examples, extractor)
    splits, parts = _without_seen(splits, parts, parent)
    kinds = parts[:2] if splits.test else parts[:1]
    _calibration.check_count(job.config, sum(map(len, kinds)), "photos that are not tested on")
    splits = _near_copies.look(job.config.data, splits, parts, extractor.store)
    old = _parents.old_features(extractor, splits, parent)
    positive = _decisions.positive(job.config, splits.classes, splits.train.labels)
    job = job.with_decisions([_training_decisions.record_engine(extractor), *positive])
    with job.tracked(splits) as tracked:
        fit, calibrated = _solve(job, model, splits, parts, parent, old)
        result = _results.score(job, tracked, model, fit, splits, calibrated)
    if parent:
        _training_runs.link(tracked.run_id, parent.training.run)
    return _summary.show(job, tracked, result)


def _without_seen(
    splits: data.Splits, parts: list[Features], parent: _parents.Parent | None
) -> tuple[data.Splits, list[Features]]:
    """Take test photos out that the parent has seen, and their features."""
    rest = _parents.without_seen(splits, parent)
    if rest is splits or rest.test is None:
        return splits, parts
    seen = parent.training.hashes if parent else {}
    test = parts[2].select([place for place, hash_ in enumerate(parts[2].hashes) if hash_ not in seen])
    return rest, [*parts[:2], test]


def _solve(
    job: _jobs.Job[FeatureExtraction],
    model: keras.Model,
    splits: data.Splits,
    parts: list[Features],
    parent: _parents.Parent | None,
    old: Features | None,
) -> tuple[_fit.Fit, _calibration.Calibrated]:
    """Solve the head, predict the split that is scored, and calibrate by predictions out of fold."""
    from tlkit import backbones, probes, training
    from tlkit.features import Features
    from tlkit.probes import novelty

    config, (train, val, *test) = job.config, parts
    early = _near_copies.picture(splits)  # drawn while the head is solved
    with job.timing("solving"):
        # No epoch is chosen, so if there is a test split the validation photos can be learned from.
        known, scored = (Features.joined([train, val]), test[0]) if test else (train, val)
        known = Features.joined([known, old]) if old else known
        values, seed = known.array(), config.seed
        probe = probes.logistic_regression(
            values,
            known.labels,
            len(splits.classes),
            groups=known.groups,
            blocks=backbones.pooled_widths(model),
            seed=seed,
            sample_only=True,
        )
        probe, rows = _parents.better(probe, known, parent, splits.classes)
        backbones.set_head(model, probe.kernel, probe.bias)
        if config.precision == "float32":
            predicted = probe.probabilities(scored.array())
        else:  # engines round differently: the score is to be that of the saved model
            predicted = training.predict(model, splits.test or splits.val)
        nearest = probes.nearest_neighbours(values, known.labels, groups=known.groups, seed=seed)
    seconds = {part: job.timings[part] for part in ("features", "solving")}
    fit = _fit.of_solving(probe, nearest, seconds, known.labels, splits.classes)
    fit.pictures.update(early)
    what = f"{len(rows):,} photos, each out of fold" if len(rows) == len(known) else f"{len(rows):,} new photos"
    groups = _calibration.independent([known.groups[row] for row in rows])
    held = _calibration.HeldOut(probe.held_out[rows], known.labels[rows], groups, what)
    calibrated = _calibration.calibrate(job, model, held, predicted)
    found = novelty.fit(values, groups=known.groups, hashes=known.hashes, seed=seed)
    calibrated = _calibration.with_novelty(calibrated, found, scored.array())
    return fit, calibrated


if __name__ == "__main__":
    cli.main(FeatureExtraction, run)
