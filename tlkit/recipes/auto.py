"""Find the best classifier of your photos in the minutes that you have: one model, tested once.

python -m tlkit.recipes.auto --data.path photos --minutes 5
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tlkit import cli, display
from tlkit.config import Auto, Backbone
from tlkit.display import say
from tlkit.recipes import (
    _auto_heads,
    _auto_networks,
    _auto_search,
    _auto_tried,
    _auto_tuning,
    _calibration,
    _clusters,
    _decisions,
    _fit,
    _inputs,
    _jobs,
    _near_copies,
    _networks,
    _results,
    _summary,
)

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tlkit import data, tracking
    from tlkit.data.resizing import Resize
    from tlkit.recipes._auto_networks import Network
    from tlkit.recipes._auto_search import Search
    from tlkit.recipes._auto_tried import Tried

SAMPLE, AGREE = 32, 0.01  # photos whose probabilities the saved model must give too; the greatest difference


@_clusters.connected
def run(config: Auto) -> _results.Result:
    """Search, score and log a classifier; see `config.Auto` for the settings."""
    job = _jobs.start("auto", config)
    examples = _inputs.photos(job.config)
    _inputs.require_one_label(examples, job.recipe)
    job = job.with_decisions(_decide(job.config, examples))
    resize: Resize = job.config.data.resize or _decisions.decide_resize(job.config.data)[0].value
    candidates = _auto_networks.candidates(job.config, examples)
    first, others, left_out = _auto_networks.first(job.config, candidates, resize, examples)
    splits = _inputs.splits(first.config.data, examples, first.model.input_shape[1:])
    _calibration.check_count(job.config, len(splits.train) + len(splits.val), "photos that are not tested on")
    splits = _near_copies.look(job.config.data, splits)
    job = job.with_decisions(_decisions.positive(job.config, splits.classes, splits.train.labels))
    began = job.seconds
    search = _auto_search.Search(job, examples, {(splits.train.shape[0], resize): splits}, resize)
    search.left_out += [_auto_tried.LeftOut(*each) for each in left_out.items()]
    with job.tracked(splits) as tracked, _advice():
        winner, why = _find(search, first, others)
        result = _score(search, tracked, winner, why, began)
        _auto_tuning.forget(search)
    return _summary.show(result[0], tracked, result[1])


def _decide(config: Auto, examples: data.Examples) -> list[_decisions.Decision]:
    """Make photos that are given for validation the test where there is no other, so that they choose nothing."""
    if config.data.val_as_test or {split for split in examples.splits if split} != {"train", "val"}:
        return []
    return [_decisions.Decision("data.val_as_test", True, "as there is no test split, and the score is to be honest")]


def _find(search: Search, first: Network, others: list[Backbone]) -> tuple[Tried, str]:
    """Try what there is time for, and choose; the heads of what is chosen know the validation photos too."""
    heads = _auto_heads.on_frozen(search, first, others)
    best, why = _auto_tried.choose(heads)
    singles = [each for each in heads if len(each.passes) == 1]
    tuned = _auto_tuning.fine_tuned(search, singles, best)
    if not tuned:
        return best, why
    alone = _auto_heads.on_training_alone(search, best)
    chosen, reason = _auto_tuning.best_of(search, alone, tuned)
    if chosen is alone:
        return best, f"{why}; fine-tuning did not clearly improve on it"
    solved = tuple(best.heads[0] if head is alone.heads[0] else head for head in chosen.heads)
    return dataclasses.replace(chosen, heads=solved), reason


def _score(
    search: Search, tracked: tracking.Run, winner: Tried, why: str, began: float
) -> tuple[_jobs.Job[Auto], _results.Result]:
    """Build the model, and score it by the test photos, which are read here for the first time."""
    from tlkit import backbones, plots, tracking

    model = backbones.joined(winner.heads, [network.title for network in winner.networks])
    _networks.admit(model, search.job.config)
    _auto_tried.show(search.tried, search.left_out, winner)
    chosen = [_decisions.Decision("backbones", [each.title for each in winner.networks])]
    job = search.job.with_decisions(chosen)
    tracking.log_params(
        {
            "chosen": winner.name,
            "chosen.networks": ", ".join(each.title for each in winner.networks),
            "chosen.resize": search.resize,
            "chosen.mirrored": len(winner.passes) > len(winner.networks),
            "chosen.heads": len(winner.heads),
        }
    )
    tracking.set_tags({"backbone": _networks.name(job.config)})
    tracking.log_table(_auto_tried.columns(search.tried), "tried.json")
    prefix = "cross_validated" if winner.held.by == _auto_tried.FOLDS else "best_val"
    compared = sorted((each for each in search.tried if each.held.by == winner.held.by), key=lambda each: each.loss)
    names, accuracies = [display.short(each.name, 60) for each in compared], [each.accuracy for each in compared]
    intervals = [each.interval for each in compared]
    metrics = {
        f"{prefix}_accuracy": winner.accuracy,
        f"{prefix}_loss": winner.loss,
        "tried": len(search.tried),
    }
    lines = [f"chosen  {winner.name}", f"why     {why}"]
    if job.config.fastest_ms:
        metrics["milliseconds_per_photo"] = _auto_networks.one_photo(model)
        lines.append(f"time for one photo  {metrics['milliseconds_per_photo']:.1f} ms")
    splits = search.photos(winner.networks[0], search.resize)
    fit = _fit.Fit(
        parts={"search": job.seconds - began},
        metrics=metrics,
        pictures={"tried.png": plots.Picture("ranking", names, accuracies, intervals, f"accuracy by {winner.held.by}")},
        under=[],
        lines=lines,
        chosen_by_val=True,
        note=_auto_tried.note(search.tried, search.left_out, winner, why),
    )
    predicted = _predict(job, winner, model, splits)
    return job, _results.score(job, tracked, model, fit, splits, _calibrate(search, job, winner, model, predicted))


def _calibrate(
    search: Search, job: _jobs.Job[Auto], winner: Tried, model: keras.Model, predicted: np.ndarray
) -> _calibration.Calibrated:
    """Calibrate by what scored the winner, and keep known photos where it has one head."""
    import numpy as np

    from tlkit.probes import novelty

    held, count = winner.held, f"{len(winner.held.labels):,}"
    what = f"{count} photos, each out of fold" if held.by == _auto_tried.FOLDS else f"{count} validation photos"
    groups = _calibration.independent(held.groups)
    own = _calibration.HeldOut(winner.probabilities, held.labels, groups, what)
    calibrated = _calibration.calibrate(job, model, own, predicted, tempers=len(winner.heads) == 1)
    network = winner.networks[0]
    train, val = search.known(network, search.resize)
    if winner in search.heads:
        values, hashes = _auto_heads.features(search, winner), [*train.hashes, *val.hashes]
        return calibrated._replace(novelty=novelty.fit(values, groups=search.held(network).groups, hashes=hashes))
    photo = search.pace * sum(each.cost * each.slower for each in winner.passes)
    fit_in_time = min(novelty.REFERENCES, int(search.seconds_left(winner.passes) / photo) - len(val), len(train))
    if len(winner.heads) > 1 or len(val) < novelty.FEWEST or fit_in_time < novelty.FEWEST:
        return calibrated
    # What was fine-tuned has learned from its training photos: the threshold is of photos that it has not.
    train = train.select(np.sort(np.random.default_rng(job.config.seed).permutation(len(train))[:fit_in_time]))
    (values,), (held_out,) = winner.features(train), winner.features(val)
    return calibrated._replace(novelty=novelty.fit(values, held_out=held_out, hashes=train.hashes))


def _predict(job: _jobs.Job[Auto], winner: Tried, model: keras.Model, splits: data.Splits) -> np.ndarray:
    """Predict the scored photos, from features where the saved model gives the same."""
    import numpy as np

    from tlkit import training

    _, part = _inputs.scored(splits)
    if job.config.precision != "float32":  # engines round differently: the score is to be that of the saved model
        return training.predict(model, part)
    predicted = winner.predict(part)
    some = range(min(SAMPLE, len(part)))
    pixels = part.read(some)
    answers = model.predict_on_batch(pixels)
    if np.abs(answers - predicted[some]).max() > AGREE:
        return training.predict(model, part)
    return predicted


@contextlib.contextmanager
def _advice() -> Iterator[None]:
    """Say how to continue if the block is interrupted."""
    try:
        yield
    except (KeyboardInterrupt, SystemError) as error:  # TensorFlow wraps an interrupt while it builds a function
        if not isinstance(error, KeyboardInterrupt) and not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        say("\ncalled again, the same command continues: features and epochs are kept", error=True)
        raise KeyboardInterrupt from error


if __name__ == "__main__":
    cli.main(Auto, run)
