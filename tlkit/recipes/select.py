"""Rank pretrained networks on your photos before any is fine-tuned: probes on features that are computed once.

python -m tlkit.recipes.select --data.path photos --backbones '[MobileNetV2, {name: MobileNet, alpha: 0.5}]'
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tlkit import cli
from tlkit.config import SELECT, Backbone, FeatureExtraction, Select, flatten
from tlkit.display import quoted, say
from tlkit.errors import Unavailable
from tlkit.recipes import (
    _clusters,
    _decisions,
    _inputs,
    _jobs,
    _links,
    _networks,
    _runs,
    _sources,
    _speed,
    _summary,
    _training_decisions,
)

if TYPE_CHECKING:
    import keras

    from tlkit import data, tracking
    from tlkit.evaluation import Ranked


@_clusters.connected
def run(config: Select) -> list[Ranked]:
    """Rank, print and log the backbones, the best first; see `config.Select` for the settings."""
    began = _jobs.start_keras()
    from tlkit import runtime, tracking

    if config.data.origin == "embedded" and config.backbones == list(SELECT):
        config = dataclasses.replace(config, backbones=["LetterNet"])  # the one that was made for 32 pixels
    candidates, unavailable = _candidates(config)
    runtime.prepare(config.seed, candidates[0].precision)
    tracking.open_store(config.experiment)
    examples = _inputs.photos(config)
    _inputs.require_one_label(examples, "select")
    tags = _runs.tags("select", "several")
    asked, title = dataclasses.asdict(config), _runs.title("select", config, f"{len(candidates)} networks")
    with tracking.run(
        config.experiment, run_name=config.run_name, params=_params(candidates, asked), tags=tags, title=title
    ) as parent:
        _runs.log_config(config)
        ranked, missing = _rank_all(candidates, examples)
        ranked = _measured(ranked, candidates, examples)
        _log(ranked)
    _print_ranking(ranked, unavailable + missing)
    _print_next(config, ranked[0], parent, began)
    return ranked


def _candidates(config: Select) -> tuple[list[FeatureExtraction], list[str]]:
    """Give the settings of each backbone, what is on this machine first.

    Returns:
        The settings; and the reasons why other backbones cannot be had.

    Raises:
        InvalidInput: one cannot be built.
        Unavailable: none can be had.
    """
    found, unavailable = [], []
    for backbone in config.backbones:
        try:
            found.append(_candidate(config, backbone))
        except Unavailable as error:
            unavailable.append(str(error))
            say(f"left out: {backbone if isinstance(backbone, str) else _networks.title(backbone)}, as {error}")
    if not found:
        raise Unavailable(f"none of the {len(config.backbones)} backbones is available: {unavailable[0]}")
    candidates = list(dict.fromkeys(found))
    return sorted(candidates, key=lambda each: not _sources.is_here(each.backbone)), unavailable


def _candidate(config: Select, name: str | Backbone) -> FeatureExtraction:
    """Give the settings of one backbone.

    Raises:
        InvalidInput: it cannot be built.
    """

    backbone = Backbone(name) if isinstance(name, str) else name
    common = {name: getattr(config, name) for name in ("data", "precision", "seed", "experiment", "features")}
    candidate = _decisions.completed(FeatureExtraction(backbone=backbone, **common))
    _sources.check(candidate.backbone, candidate.data.image_size)
    return candidate


def _params(candidates: list[FeatureExtraction], asked: dict[str, Any]) -> dict[str, Any]:
    """Give the parameters of the ranking's run."""
    common = _runs.params(candidates[0], asked)
    names = ", ".join(_networks.title(candidate.backbone) for candidate in candidates)
    return {name: value for name, value in common.items() if not name.startswith("backbone.")} | {"backbones": names}


def _rank_all(candidates: list[FeatureExtraction], examples: data.Examples) -> tuple[list[Ranked], list[str]]:
    """Score each backbone.

    Returns:
        The backbones, the best first; and the reasons why the others could not be scored.

    Raises:
        Unavailable: the weights of none are here.
    """
    ranked, unavailable = [], []
    for number, candidate in enumerate(candidates, 1):
        say(f"\n{number} of {len(candidates)}: {_networks.title(candidate.backbone)}")
        try:
            ranked.append(_rank(candidate, examples))
        except Unavailable as error:  # the weights of the others may be here
            unavailable.append(str(error))
            say("left out: its weights are not here and cannot be downloaded")
    if not ranked:
        raise Unavailable(f"none of the {len(candidates)} backbones is available: {unavailable[0]}")
    ranked.sort(key=lambda backbone: -backbone.accuracy)
    return ranked, unavailable


def _rank(config: FeatureExtraction, examples: data.Examples) -> Ranked:
    """Score one backbone by probes on its features, and log that as a nested run."""
    from tlkit import backbones, evaluation, features, probes, tracking

    began = time.perf_counter()
    model = _networks.classifier(config, examples)
    network, widths = features.pooled(model), backbones.pooled_widths(model)
    extractor = _networks.extractor(config, network, "pooled")
    # The test split stays unseen: a choice that was made by it could not be tested on it.
    splits, parts = _inputs.split_features(config.data, examples, extractor, test=False)
    joined = features.Features.joined(parts if splits.test else parts[:1])
    engine = _training_decisions.record_engine(extractor)
    name, params = _networks.title(config.backbone), _decisions.applied(config, [engine])
    tags = _runs.tags("select", config.backbone.name) | _runs.data_tags(splits)
    with tracking.run(config.experiment, run_name=name, params=_runs.params(params), tags=tags, nested=True) as tracked:
        values, labels, groups = joined.array(), joined.labels, joined.groups
        probe = probes.logistic_regression(
            values, labels, len(splits.classes), groups=groups, blocks=widths, seed=config.seed
        )
        right = probe.held_out.argmax(axis=1) == labels
        majority = evaluation.majority(labels)
        ranked = evaluation.Ranked(
            name=name,
            backbone=config.backbone,
            accuracy=float(right.mean()),
            interval=evaluation.accuracy_interval(right, groups if splits.train.grouping else None),
            nearest=probes.nearest_neighbours(values, labels, groups=groups, seed=config.seed),
            logme=probes.logme(values, labels),
            seconds=time.perf_counter() - began,
            parameters=network.count_params(),
            run_id=tracked.run_id,
            majority=splits.classes[majority],
            majority_accuracy=float((labels == majority).mean()),
        )
        tracking.log_metrics(_metrics(ranked))
    tracking.set_tags(_runs.data_tags(splits))  # of the ranking, which is the active run again
    return ranked


def _measured(ranked: list[Ranked], candidates: Sequence[FeatureExtraction], examples: data.Examples) -> list[Ranked]:
    """Measure how many photos a second each backbone computes, in alternation, unless that is known."""
    from tlkit import features

    configs = {candidate.backbone: candidate for candidate in candidates}

    def make(config: FeatureExtraction) -> keras.Model:
        return features.pooled(_networks.classifier(config, examples))

    networks = {
        row.run_id: _speed.Network(row.name, str(configs[row.backbone].data.image_size), float(row.parameters))
        for row in ranked
    }
    makes = {networks[row.run_id]: functools.partial(make, configs[row.backbone]) for row in ranked}
    speeds = _speed.of_networks(makes)
    return [row._replace(per_second=speeds.get(networks[row.run_id])) for row in ranked]


def _metrics(ranked: Ranked) -> dict[str, float]:
    return {
        "cross_validated_accuracy": ranked.accuracy,
        "cross_validated_accuracy_low": ranked.interval[0],
        "cross_validated_accuracy_high": ranked.interval[1],
        "cross_validated_majority_accuracy": ranked.majority_accuracy,
        "nearest_neighbours_accuracy": ranked.nearest,
        "logme": ranked.logme,
        "seconds": ranked.seconds,
        "parameters": ranked.parameters,
    }


def _log(ranked: list[Ranked]) -> None:
    """Log the table, its picture and the best one's numbers on the ranking's run."""
    from tlkit import plots, tracking

    names, scores = [row.name for row in ranked], [row.accuracy for row in ranked]
    numbers = [_metrics(row) for row in ranked]
    columns: dict[str, list[Any]] = {"backbone": names, "run_id": [row.run_id for row in ranked]}
    columns |= {name: [metrics[name] for metrics in numbers] for name in numbers[0]}
    columns["predict_per_second"] = [row.per_second for row in ranked]
    tracking.log_table(columns, "ranking.json")
    tracking.log_figure(plots.Picture("ranking", names, scores, [row.interval for row in ranked]), "ranking.png")
    tracking.log_metrics(numbers[0])
    tracking.set_tags({"best_backbone": names[0]})


def _print_ranking(ranked: list[Ranked], unavailable: list[str]) -> None:
    """Print the table, and which backbones are about as good as the best."""
    width = max(len("backbone"), *(len(row.name) for row in ranked))
    say(f"\n   {'backbone':<{width}}  accuracy   95 %     5 nearest  LogME  photos/s  M params")
    for rank, row in enumerate(ranked, 1):
        low, high = row.interval
        speed = f"{row.per_second:,.0f}" if row.per_second else "-"
        say(
            f"{rank:>2} {row.name:<{width}}  {row.accuracy:>8.3f}  {low:.2f}-{high:.2f}  {row.nearest:>9.3f}"
            f"  {row.logme:>5.2f}  {speed:>8}  {row.parameters / 1e6:>8.1f}"
        )
    for reason in unavailable:
        say(f"not ranked: {reason}")
    say("\naccuracy: logistic regression on frozen features, cross-validated on all photos")
    say("but the test split, with its 95 % interval; photos/s: as predict computes many")
    best = ranked[0]
    say(_summary.always([best.majority], 0, best.majority_accuracy, digits=3))
    close = [row.name for row in ranked[1:] if row.accuracy >= best.interval[0]]
    if close:
        say(f"no clear winner: within the interval of {best.name} are also {', '.join(close)}")


def _print_next(config: Select, best: Ranked, parent: tracking.Run, began: float) -> None:
    """Print how long it took, the command that fine-tunes the best backbone, and where to look at the runs."""
    from tlkit.progress import duration

    say(f"time  {duration(time.perf_counter() - began)} in all")
    say("\nNext:")
    say(f"  {_links.recipe('finetune')} {_flags(config, best.backbone)}")
    _links.print_links(parent)


def _flags(config: Select, backbone: Backbone) -> str:
    """Give the flags that fine-tune the backbone on the same data: all settings that differ from their defaults."""

    if backbone.weights == _sources.row(backbone).pretrained:
        backbone = dataclasses.replace(backbone, weights="pretrained")
    data = dataclasses.replace(config.data, path=_decisions.absolute(config.data.path))
    default = FeatureExtraction()
    same = dataclasses.replace(
        default, data=data, backbone=backbone, features=config.features, precision=config.precision, seed=config.seed
    )
    values, defaults = flatten(same), flatten(default)
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}
    return " ".join(f"--{name} {quoted(texts[name])}" for name in values if values[name] != defaults[name])


if __name__ == "__main__":
    cli.main(Select, run)
