"""What was found in the data of a recipe: all of it for `inspect`, and the cheap part of it for every training."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from tlkit import config as configs
from tlkit.display import say
from tlkit.errors import InvalidInput, Unavailable
from tlkit.recipes import _inputs, _networks, _sources

if TYPE_CHECKING:
    from tlkit import data, features, inspection
    from tlkit.inspection.pictures import Picture

PAGE = "inspection.html"
BY_FEATURES = "suspected labels and outliers"


def inspect(
    config: configs.Inspect, examples: data.Examples, title: str
) -> tuple[inspection.Findings, data.Splits, Picture]:
    """Look at every example, split those that can be decoded, and look for near copies, wrong labels and outliers.

    Returns:
        What was found, the splits, and what draws an example.
    """
    import numpy as np

    from tlkit import data, inspection
    from tlkit.inspection import pictures

    size, channels = _shape(config, examples)

    def load(examples: data.Examples, quiet: bool = False) -> data.Splits:
        shape = (size, size, channels) if size else None
        return _inputs.load(config.data, examples, shape, check=config.data.strict, quiet=quiet)

    splits = load(examples)
    seen = inspection.survey(examples, splits.reading)
    good = [place for place, each in enumerate(seen) if not each.problem]
    if not good:
        raise InvalidInput(f"none of the {len(seen):,} {examples.kind} can be decoded: {seen[0].problem}")
    if len(good) < len(seen):  # what is damaged is in no split
        known = {_without_counts(warning) for warning in splits.warnings}
        splits = load(examples.select(good), quiet=True)
        for warning in splits.warnings:
            if _without_counts(warning) not in known:
                say(warning, error=True)
    findings = inspection.of_examples(examples, splits, seen, title, good)
    used = data.Photos.joined(list(splits.by_name.values()))
    places = np.array(good)[used.rows]
    findings = inspection.with_near_copies(findings, used, places, config.seed)
    extracted, widths, skipped = _features(config, examples, splits)
    if extracted is not None:
        findings = inspection.by_features(findings, extracted.array(), extracted.groups, places, config.seed, widths)
    if skipped:
        findings = dataclasses.replace(findings, skipped=[*findings.skipped, skipped])
    shape = splits.train.shape
    return findings, splits, pictures.of_examples(examples, [each.size for each in seen], shape, splits.reading)


def _without_counts(warning: str) -> str:
    return re.sub(r"\d[\d,]*", "", warning)


def _shape(config: configs.Inspect, examples: data.Examples) -> tuple[int | None, int | None]:
    """Give the side and the channels that photos get, as the network takes them."""

    if not examples.modality.resized:
        return None, None
    row = _sources.row(config.backbone, config.data.image_size) if config.backbone.name != "none" else None
    return config.data.image_size or (row.size if row else 64), row.channels if row else 3


def _features(
    config: configs.Inspect, examples: data.Examples, splits: data.Splits
) -> tuple[features.Features | None, list[int], str]:
    """Compute the features of all examples, with the widths of the stages they are of, or say why there are none."""
    if not examples.modality.pretrained:
        return None, [], f"{BY_FEATURES}: they need a pretrained backbone, and there is none for {examples.kind}"
    if config.backbone.name == "none":
        return None, [], f"{BY_FEATURES}: backbone.name is none"
    from tlkit import backbones
    from tlkit import features as features_
    from tlkit.training import activations

    try:
        classifier = _networks.classifier(config, examples)
    except Unavailable:
        name, other = _networks.title(config.backbone), "--backbone.name or --backbone.weights"
        return None, [], f"{BY_FEATURES}: {name}'s weights are damaged or cannot be downloaded; give others by {other}"
    extractor = _networks.extractor(config, features_.pooled(classifier), "pooled")
    extracted = features_.Features.joined(activations.extract(extractor, *splits.by_name.values()))
    return extracted, backbones.pooled_widths(classifier), ""


def log(splits: data.Splits, title: str) -> None:
    """Log the page of what is known as soon as the data are loaded."""
    from tlkit import inspection, tracking
    from tlkit.inspection import pictures

    findings = inspection.of_splits(splits, title)
    tracking.log_text(inspection.page(findings, pictures.of_photos(list(splits.by_name.values()))), PAGE)
