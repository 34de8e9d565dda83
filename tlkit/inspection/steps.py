"""The steps of an inspection: each returns findings, or adds to them what it looks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tlkit.data import Examples, Photos, Splits
from tlkit.inspection import alignment, near_copies
from tlkit.inspection.findings import Findings, Suspect
from tlkit.inspection.near_copies import NearCopy
from tlkit.inspection.survey import Seen
from tlkit.inspection.suspects import LEAST, TOLD, neighbours, outliers, suspicion
from tlkit.probes import Features

COMPARED = (96, 96, 3)  # shape at which photos are compared for near copies
MOST_COMPARED = 10_000  # photos of which all near copies are looked for: it takes 4 ms of a core for each, and more
DRAWN = 2_000  # scored photos of which they are looked for where there are more


def of_splits(splits: Splits, title: str = "") -> Findings:
    """Give what is known as soon as data are loaded: nothing more is opened or computed."""
    parts = splits.by_name
    where: list[str | None] = [name for name, part in parts.items() for _ in range(len(part))]
    others = sum(len(part) for part in list(parts.values())[:-1])  # before the scored ones
    left_out = dict(splits.left_out) | ({"cannot be decoded": splits.set_aside} if splits.set_aside else {})
    return Findings(
        title=title,
        kind=splits.kind,
        classes=splits.classes,
        names=[name for part in parts.values() for name in part.names],
        labels=np.concatenate([part.labels for part in parts.values()]),
        splits=where,
        given=where,
        hashes=[hash_ for part in parts.values() for hash_ in part.hashes],
        left_out=left_out,
        notes=list(splits.warnings),
        near=[NearCopy(others + first, second, alike) for first, second, alike in splits.near_copies],
        compared=len(list(parts.values())[-1]) if splits.near_copies else 0,
    )


def of_examples(
    examples: Examples, splits: Splits, seen: list[Seen], title: str, places: Sequence[int] | None = None
) -> Findings:
    """Give what is known after every file was looked at.

    Args:
        examples: What a source lists.
        splits: What was loaded of it.
        seen: What each example is.
        title: Name of the data.
        places: The positions of the examples that were loaded; by default all.
    """
    places = range(len(examples.names)) if places is None else places
    where: list[str | None] = [None] * len(examples.names)
    for name, part in splits.by_name.items():
        for row in part.rows:
            where[places[int(row)]] = name
    return Findings(
        title=title,
        kind=examples.kind,
        classes=splits.classes,
        names=list(examples.names),
        labels=np.asarray(examples.labels),
        splits=where,
        given=list(examples.splits),
        hashes=[each.hash for each in seen],
        groups=examples.groups,
        seen=seen,
        left_out=splits.left_out,
        notes=list(splits.warnings),
    )


def with_near_copies(findings: Findings, photos: Photos, places: Sequence[int] | np.ndarray, seed: int = 0) -> Findings:
    """Add near copies, in any split; exact copies are not among them.

    Args:
        findings: What was found before, of examples that were looked at.
        photos: The examples.
        places: The position of each in the findings.
        seed: Decides which scored examples are compared where there are many.
    """
    shapes = [seen.size for seen in findings.seen or [] if seen.size]
    reason = ""
    if not photos.modality.resized:
        reason = f"near copies are looked for among photos, and the data are {findings.kind}"
    elif shapes and np.median([min(shape[:2]) for shape in shapes]) < alignment.SIDE:
        reason = f"near copies are looked for from {alignment.SIDE} pixels on, and most of these photos are smaller"
    if reason:
        return dataclasses.replace(findings, skipped=[*findings.skipped, reason])
    small = dataclasses.replace(photos, shape=COMPARED) if not isinstance(photos.stored, np.ndarray) else photos
    where = np.array([findings.splits[place] or "" for place in places])
    scored, skipped = np.flatnonzero(where == findings.scored), []
    if len(photos) <= MOST_COMPARED:
        found = near_copies.within(small)
    else:
        scored = np.sort(np.random.default_rng(seed).permutation(scored)[:DRAWN])
        others = np.flatnonzero((where != "") & (where != findings.scored))
        pairs = near_copies.across(small.select(scored), small.select(others))
        found = [NearCopy(int(scored[first]), int(others[second]), alike) for first, second, alike in pairs]
        skipped = [
            f"near copies of all: of more than {MOST_COMPARED:,} {findings.kind}, those that {len(scored):,} of "
            f"{findings.scored} have in other splits are looked for"
        ]
    return dataclasses.replace(
        findings,
        near=[
            NearCopy(int(places[first]), int(places[second]), alike)
            for first, second, alike in sorted(found, key=lambda pair: -pair[2])
            if photos.hashes[first] != photos.hashes[second]
        ],
        compared=len(scored),
        skipped=[*findings.skipped, *skipped],
    )


def by_features(
    findings: Findings,
    features: Features,
    groups: Sequence[str],
    places: Sequence[int] | np.ndarray,
    seed: int = 0,
    blocks: Sequence[int] | None = None,
) -> Findings:
    """Add suspected labels and outliers, by features of a pretrained network; not those that are blank or contradict.

    Args:
        findings: What was found before.
        features: Shape (examples, features).
        groups: The group of each: no example has a say on others of its group.
        places: The position of each in the findings.
        seed: Decides the folds of a probe.
        blocks: Widths of consecutive blocks of features, such as those of several stages of the network.
    """
    skipped = list(findings.skipped)
    if len(features) < LEAST:
        skipped.append(
            f"suspected labels and outliers: {len(features)} {findings.kind} are too few, {LEAST} are needed"
        )
        return dataclasses.replace(findings, skipped=skipped)
    known = {*findings.blank, *(place for group in findings.contradictions for place in group)}
    near, suspects = neighbours(features, groups, seed=seed), list[Suspect]()
    if findings.labels.ndim == 2:
        skipped.append(f"suspected labels: the {findings.kind} may have several each")
    else:
        labels = findings.labels[places]
        doubt = suspicion(features, labels, len(findings.classes), groups=groups, blocks=blocks, near=near, seed=seed)
        told = doubt.told(labels)
        if told < TOLD:
            skipped.append(
                f"suspected labels: the features hardly tell the classes ({told:.0%} of the way from chance)"
            )
        for i in doubt.listed(labels) if told >= TOLD else []:
            if places[i] in known:
                continue
            suspects.append(Suspect(int(places[i]), findings.classes[doubt.likely[i]], float(doubt.probability[i])))
    far = [int(places[i]) for i in outliers(near.distance) if places[i] not in known]
    return dataclasses.replace(findings, suspects=suspects, outliers=far, skipped=skipped)
