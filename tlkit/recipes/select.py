"""Rank pretrained networks on your photos before any is fine-tuned: probes on features that are computed once.

python -m tlkit.recipes.select --data.path photos --backbones '[MobileNetV2, {name: MobileNet, alpha: 0.5}]'
"""

from __future__ import annotations

import dataclasses
import os
import time
from typing import TYPE_CHECKING

from tlkit import cli
from tlkit.config import SELECT, Backbone, FeatureExtraction, Select, flatten
from tlkit.display import quoted, say
from tlkit.errors import Unavailable
from tlkit.recipes import _decisions, _inputs, _jobs, _links, _networks, _runs

if TYPE_CHECKING:
    from tlkit import data, tracking
    from tlkit.evaluation import Ranked


def run(config: Select) -> list[Ranked]:
    """Rank, print and log the backbones, the best first; see `config.Select` for the settings."""
    began = _jobs.import_keras()
    from tlkit import runtime, tracking

    if config.data.origin == "embedded" and config.backbones == list(SELECT):
        config = dataclasses.replace(config, backbones=["LetterNet"])  # the one that was made for 32 pixels
    each = list(dict.fromkeys(_alone(config, chosen) for chosen in config.backbones))
    runtime.prepare(config.seed, each[0].precision)
    tracking.open_store(config.experiment)
    examples = _inputs.photos(config)
    _inputs.require_one_label(examples, "select")
    params = {name: value for name, value in _runs.params(each[0]).items() if not name.startswith("backbone.")}
    params["backbones"] = ", ".join(_networks.title(one.backbone) for one in each)
    ranked, absent = [], []
    with tracking.run(
        config.experiment, run_name=config.run_name, params=params, tags=_runs.tags("select", "several")
    ) as parent:
        _runs.log_config(config)
        for number, one in enumerate(each, 1):
            say(f"\n{number} of {len(each)}: {_networks.title(one.backbone)}")
            try:
                ranked.append(_rank(one, examples))
            except Unavailable as error:  # its weights are not here and cannot be fetched; the others may be
                absent.append(str(error))
                say("left out: its weights are not here and cannot be fetched")
        if not ranked:
            raise Unavailable(f"none of the {len(each)} backbones can be had: {absent[0]}")
        ranked.sort(key=lambda one: -one.accuracy)
        _log(ranked)
    _summarize(config, ranked, absent, parent, began)
    return ranked


def _alone(config: Select, chosen: str | Backbone) -> FeatureExtraction:
    """The settings of one backbone; refuses what cannot be built."""
    from tlkit import backbones

    backbone = Backbone(chosen) if isinstance(chosen, str) else chosen
    common = {name: getattr(config, name) for name in ("data", "precision", "seed", "experiment", "features")}
    one = _decisions.completed(FeatureExtraction(backbone=backbone, **common))
    size, row = one.data.image_size or 0, backbones.row(one.backbone.name)
    backbones.check(one.backbone.name, (size, size, row.channels), one.backbone.weights, one.backbone.alpha)
    return one


def _rank(config: FeatureExtraction, examples: data.Examples) -> Ranked:
    from tlkit import backbones, evaluation, features, probes, tracking

    name, began = _networks.title(config.backbone), time.perf_counter()
    backbone = _networks.backbone(config)
    network = features.pooled(backbones.classifier(backbone, len(examples.classes)))
    extractor = _networks.extractor(config, network, "pooled")
    # The test split stays unseen: what is chosen by it could not be tested by it.
    splits, parts = _inputs.split_features(config.data, examples, extractor, test=False)
    known = features.Features.joined(parts if splits.test else parts[:1])
    params = _runs.params(_decisions.applied(config, [_decisions.engine(extractor)]))
    tags = _runs.tags("select", config.backbone.name) | _runs.data_tags(splits)
    with tracking.run(config.experiment, run_name=name, params=params, tags=tags, nested=True) as started:
        values, copies = known.array(), known.hashes
        probe = probes.logistic_regression(values, known.labels, len(splits.classes), groups=copies, seed=config.seed)
        right = round(float((probe.held_out.argmax(axis=1) == known.labels).sum()))
        found = evaluation.Ranked(
            name=name,
            backbone=config.backbone,
            accuracy=right / len(known),
            interval=evaluation.wilson(right, len(known)),
            nearest=probes.nearest_neighbours(values, known.labels, groups=copies, seed=config.seed),
            logme=probes.logme(values, known.labels),
            seconds=time.perf_counter() - began,
            parameters=backbone.count_params(),
            run_id=started.run_id,
        )
        tracking.log_metrics(_metrics(found))
    tracking.set_tags(_runs.data_tags(splits))  # of the ranking, the active run now
    return found


def _metrics(found: Ranked) -> dict[str, float]:
    return {
        "cross_validated_accuracy": found.accuracy,
        "cross_validated_accuracy_low": found.interval[0],
        "cross_validated_accuracy_high": found.interval[1],
        "nearest_neighbours_accuracy": found.nearest,
        "logme": found.logme,
        "seconds": found.seconds,
        "parameters": found.parameters,
    }


def _log(ranked: list[Ranked]) -> None:
    """Put the table, its picture and the best one's numbers on the run above all."""
    from tlkit import plots, tracking

    columns = {"backbone": [one.name for one in ranked], "run_id": [one.run_id for one in ranked]}
    numbers = [_metrics(one) for one in ranked]
    table = columns | {name: [row[name] for row in numbers] for name in numbers[0]}
    tracking.log_table(table, "ranking.json")
    names, scores = columns["backbone"], [one.accuracy for one in ranked]
    tracking.log_figure(plots.ranking(names, scores, [one.interval for one in ranked]), "ranking.png")
    tracking.log_metrics(_metrics(ranked[0]))
    tracking.set_tags({"best_backbone": ranked[0].name})


def _summarize(config: Select, ranked: list[Ranked], absent: list[str], parent: tracking.Run, began: float) -> None:
    from tlkit.progress import duration

    width = max(len("backbone"), *(len(one.name) for one in ranked))
    say(f"\n   {'backbone':<{width}}  accuracy   95 %     5 nearest  LogME  seconds  M params")
    for place, one in enumerate(ranked, 1):
        low, high = one.interval
        say(
            f"{place:>2} {one.name:<{width}}  {one.accuracy:>8.3f}  {low:.2f}-{high:.2f}  {one.nearest:>9.3f}"
            f"  {one.logme:>5.2f}  {one.seconds:>7.1f}  {one.parameters / 1e6:>8.1f}"
        )
    for line in absent:
        say(f"not ranked: {line}")
    best = ranked[0]
    close = [one.name for one in ranked[1:] if one.accuracy >= best.interval[0]]
    say("\naccuracy: logistic regression on frozen features, cross-validated on the photos that")
    say("are not for the test, with its 95 % interval; seconds: of this run")
    if close:
        say(f"no clear winner: within the interval of {best.name} are also {', '.join(close)}")
    say(f"time  {duration(time.perf_counter() - began)} in all")
    say("\nNext:")
    say(f"  {_links.recipe('finetune')} {_flags(config, best.backbone)}")
    _links.print_links(parent)


def _flags(config: Select, backbone: Backbone) -> str:
    """The flags that fine-tune the backbone in the same way on the same data: all that are not what they are anyway."""
    from tlkit import backbones

    if backbone.weights == backbones.row(backbone.name).pretrained:
        backbone = dataclasses.replace(backbone, weights="pretrained")
    data = dataclasses.replace(config.data, path=config.data.path and os.path.abspath(config.data.path))
    default = FeatureExtraction()
    same = dataclasses.replace(
        default, data=data, backbone=backbone, features=config.features, precision=config.precision, seed=config.seed
    )
    wanted, before = flatten(same), flatten(default)
    written = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in wanted.items()}
    return " ".join(f"--{name} {quoted(written[name])}" for name in wanted if wanted[name] != before[name])


if __name__ == "__main__":
    cli.main(Select, run)
