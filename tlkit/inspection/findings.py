"""What was found in data before any training, and which of it would falsify a score."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tlkit.data import Examples, Photos, Splits, modalities
from tlkit.data.sources.class_names import nearly_equal
from tlkit.data.split import named
from tlkit.inspection import near_copies
from tlkit.inspection.survey import Seen
from tlkit.inspection.suspects import LEAST, TOLD, neighbours, outliers, suspicion
from tlkit.probes import Features

SPLITS = ("train", "val", "test")
SHARE = 0.01  # of the scored examples that may have a near copy in train before that counts as falsifying
COMPARED = (96, 96, 3)  # shape at which photos are compared for near copies
MOST_COMPARED = 10_000  # photos of which all near copies are looked for: it takes 4 ms of a core for each, and more
DRAWN = 2_000  # scored photos of which they are looked for where there are more
PLACEHOLDER = 3  # copies of one content from which on it is taken for a placeholder


class Pair(NamedTuple):
    """Two examples that are near copies of each other, by their positions; and how alike they are, 0 to 1."""

    first: int
    second: int
    alike: float


class Suspect(NamedTuple):
    """An example whose label may be wrong: its position, the class that is likelier, how probable its own label is."""

    place: int
    likely: str
    probability: float


@dataclasses.dataclass(frozen=True, eq=False)
class Findings:
    """What was found in data. Examples are named by their positions in `names`.

    Args:
        title: Name of the data.
        kind: Name of the modality.
        classes: Names of the classes.
        names: Of the examples.
        labels: (n,) positions in the classes; or (n, classes), zeros and ones.
        splits: Where each example is used; None for one that is not.
        given: The split of each in the source, or None.
        hashes: SHA-256 of each content; "" where it cannot be read.
        groups: The group of each, where the data have groups.
        seen: What each file is; None where files were not looked at.
        left_out: Files and rows that are no examples, by the reason.
        notes: What the source and the split say, one line each.
        near: Near copies.
        compared: Number of scored examples among whose near copies in train all were looked for.
        suspects: Examples whose label may be wrong, the most suspect first.
        outliers: Positions of examples that are like no others, the farthest first.
        skipped: What was not looked for, and why, one line each.
    """

    title: str
    kind: str
    classes: list[str]
    names: list[str]
    labels: np.ndarray
    splits: list[str | None]
    given: list[str | None]
    hashes: list[str]
    groups: list[str] | None = None
    seen: list[Seen] | None = None
    left_out: Mapping[str, list[str]] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    near: list[Pair] = dataclasses.field(default_factory=list)
    compared: int = 0
    suspects: list[Suspect] = dataclasses.field(default_factory=list)
    outliers: list[int] = dataclasses.field(default_factory=list)
    skipped: list[str] = dataclasses.field(default_factory=list)

    @functools.cached_property
    def label_names(self) -> list[str]:
        """The label of each example, or its labels with bars between them."""
        return named(self.labels, self.classes)

    @functools.cached_property
    def counts(self) -> dict[str, list[int]]:
        """The number of examples of each class, by split; of those that are used."""
        several = self.labels.ndim == 2
        rows = self.labels if several else np.eye(len(self.classes), dtype=int)[self.labels]
        where = np.array([split or "" for split in self.splits])
        return {split: rows[where == split].sum(axis=0).astype(int).tolist() for split in SPLITS if split in where}

    @functools.cached_property
    def copies(self) -> list[list[int]]:
        """Positions of examples with one content, two or more each, those with the most copies first."""
        places = defaultdict(list)
        for place, hash_ in enumerate(self.hashes):
            if hash_:
                places[hash_].append(place)
        return sorted((group for group in places.values() if len(group) > 1), key=len, reverse=True)

    @property
    def damaged(self) -> list[int]:
        """Positions of examples that cannot be decoded."""
        return [place for place, seen in enumerate(self.seen or []) if seen.problem]

    @property
    def blank(self) -> list[int]:
        """Positions of examples in which nearly nothing is to be seen."""
        return [place for place, seen in enumerate(self.seen or []) if seen.blank]

    @property
    def placeholders(self) -> list[list[int]]:
        """Copies of one content that are so many that it is probably no photo of anything."""
        return [group for group in self.copies if len(group) >= PLACEHOLDER]

    @property
    def contradictions(self) -> list[list[int]]:
        """Copies of one content that have different labels."""
        labels = self.label_names
        return [group for group in self.copies if len({labels[place] for place in group}) > 1]

    @property
    def leaks(self) -> list[list[int]]:
        """Copies of one content in several splits of the source."""
        return [group for group in self.copies if len({self.given[place] for place in group}) > 1]

    @property
    def divided_groups(self) -> list[str]:
        """Groups that are in several splits of the source."""
        where = defaultdict(set)
        for group, split in zip(self.groups or [], self.given, strict=False):
            where[group].add(split)
        return sorted(group for group, splits in where.items() if group and len(splits) > 1)

    @property
    def near_across(self) -> list[Pair]:
        """Near copies of which one is trained on and the other is not."""
        return [pair for pair in self.near if len({self.splits[pair.first], self.splits[pair.second]} - {None}) > 1]

    @property
    def near_contradictions(self) -> list[Pair]:
        """Near copies that have different labels."""
        labels = self.label_names
        return [pair for pair in self.near if labels[pair.first] != labels[pair.second]]

    @property
    def scored(self) -> str:
        """The split that a model is scored on."""
        return "test" if "test" in self.splits else "val"

    @property
    def exit_status(self) -> int:
        """3 where something would falsify a score, else 0."""
        return 3 if self.falsifying() else 0

    def falsifying(self) -> list[str]:
        """Say what would falsify a score, one line each.

        That is: a content in several splits of the source; a group in several splits of the source; a content with
        different labels; more than one of the scored examples, and more than 1 % of them, having a near copy in train;
        more than one pair, and more pairs than 1 % of all, of near copies with different labels; a class that the
        scored split does not have; and names of classes that are nearly equal. What is doubtful but leaves a score what
        it is does not count: suspected labels, outliers, blank and damaged examples, copies within one split.
        """
        kind, lines = self.kind, []
        if self.leaks:
            lines.append(f"{self._count(self.leaks)} in several splits: {self._such(self.leaks[0])}")
        if groups := self.divided_groups:
            lines.append(f"groups in several splits ({len(groups):,}), such as {groups[0]}")
        if odd := self.contradictions:
            lines.append(f"{self._count(odd)} there with several labels: {self._such(odd[0])}")
        copied = self.copied
        if len(copied) > max(1, SHARE * self.compared):
            share = f"{len(copied):,} of {self.compared:,} {kind} of {self.scored}"
            lines.append(f"{share} have a near copy in train: {self._such(copied[0])}")
        if len(self.near_contradictions) > max(1, SHARE * len(self.names)):
            pair = self.near_contradictions[0]
            odd_pairs = f"{len(self.near_contradictions):,} of {len(self.near):,} pairs of near copies"
            doubt = "; so many that they may be no copies but of one layout, as X-rays are: look at them"
            chance = 4 * len(self.near_contradictions) > len(self.near)
            lines.append(f"{odd_pairs} have different labels: {self._such(pair[:2])}{doubt if chance else ''}")
        lacking = [
            name for name, count in zip(self.classes, self.counts.get(self.scored, []), strict=False) if not count
        ]
        if lacking:
            lines.append(
                f"{self.scored} has nothing of {len(lacking)} of {len(self.classes)} classes, such as {lacking[0]}"
            )
        lines += nearly_equal(self.classes)
        return lines

    @property
    def copied(self) -> list[tuple[int, int]]:
        """Each scored example that has a near copy in train, with that copy."""
        found: dict[int, int] = {}
        for first, second, _ in self.near:
            for here, there in ((first, second), (second, first)):
                if self.splits[here] == self.scored and self.splits[there] == "train":
                    found.setdefault(here, there)
        return list(found.items())

    def _such(self, places: Sequence[int]) -> str:
        """Name two of them, of different labels or splits if there are such."""
        first, *others = places
        labels = self.label_names

        def unlike(place: int) -> tuple[bool, bool]:
            return labels[place] == labels[first], self.given[place] == self.given[first]

        return " and ".join(f"{self.names[place]} ({labels[place]})" for place in (first, min(others, key=unlike)))

    def _count(self, groups: Sequence[object]) -> str:
        one = modalities.row(self.kind).singular
        return f"1 {one} is" if len(groups) == 1 else f"{len(groups):,} {self.kind} are"

    def metrics(self) -> dict[str, float]:
        """Count what was found, by the names that MLflow shows."""
        values: dict[str, float] = {
            "examples": len(self.names),
            "classes": len(self.classes),
            "left_out": sum(map(len, self.left_out.values())),
            "exact_copies": sum(len(group) - 1 for group in self.copies),
            "leaks": len(self.leaks),
            "contradictions": len(self.contradictions),
            "falsifying": len(self.falsifying()),
        }
        if self.seen is not None:
            values |= {"damaged": len(self.damaged), "blank": len(self.blank)}
        if self.compared:
            values |= {"near_copies": len(self.near), "scored_with_near_copy_in_train": len(self.copied)}
        if not any(line.startswith("suspected") for line in self.skipped):
            values |= {"suspects": len(self.suspects), "outliers": len(self.outliers)}
        return values

    def as_json(self) -> dict[str, Any]:
        """Give all that was found, with names in place of positions."""
        name, labels = self.names.__getitem__, self.label_names
        return {
            "data": self.title,
            "kind": self.kind,
            "falsifying": self.falsifying(),
            "counts": {split: dict(zip(self.classes, each, strict=True)) for split, each in self.counts.items()},
            "formats": dict(self.formats),
            "sizes": self.sizes(),
            "left_out": {reason: list(names) for reason, names in self.left_out.items()},
            "notes": self.notes,
            "skipped": self.skipped,
            "damaged": [seen.problem for seen in self.seen or [] if seen.problem],
            "blank": [name(place) for place in self.blank],
            "copies": [[name(place) for place in group] for group in self.copies],
            "contradictions": [[name(place) for place in group] for group in self.contradictions],
            "leaks": [[name(place) for place in group] for group in self.leaks],
            "near_copies": [[name(a), name(b), round(float(alike), 4)] for a, b, alike in self.near],
            "suspects": [
                {"path": name(place), "label": labels[place], "likely": likely, "probability": round(float(p), 4)}
                for place, likely, p in self.suspects
            ],
            "outliers": [name(place) for place in self.outliers],
        }

    @property
    def formats(self) -> Counter[str]:
        """The number of examples of each format, the most frequent first."""
        count = Counter(seen.form for seen in self.seen or [] if seen.form)
        return Counter(dict(count.most_common()))

    def sizes(self) -> dict[str, tuple[float, float, float]]:
        """The smallest, median and largest size along each axis, and of photos the aspect ratio (width / height)."""
        shapes = [seen.size for seen in self.seen or [] if seen.size]
        if not shapes or len({len(shape) for shape in shapes}) > 1:
            return {}
        table = np.array(shapes, float)
        photos = self.kind == "photos"
        axes = ["height", "width", "channels"] if photos else [f"axis {n}" for n in range(table.shape[1])]
        if self.kind == "sounds":
            axes = ["samples"]
        columns = dict(zip(axes, table.T, strict=False))
        if photos:
            columns["aspect ratio"] = table[:, 1] / table[:, 0]
        return {name: (float(c.min()), float(np.median(c)), float(c.max())) for name, c in columns.items()}


def of_splits(splits: Splits, title: str = "") -> Findings:
    """Give what is known as soon as data are loaded: nothing more is opened or computed."""
    parts = {name: part for name in SPLITS if (part := getattr(splits, name)) is not None}
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
        near=[Pair(others + first, second, alike) for first, second, alike in splits.near_copies],
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
    for name in SPLITS:
        if (part := getattr(splits, name)) is not None:
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
    elif shapes and np.median([min(shape[:2]) for shape in shapes]) < near_copies.SIDE:
        reason = f"near copies are looked for from {near_copies.SIDE} pixels on, and most of these photos are smaller"
    if reason:
        return dataclasses.replace(findings, skipped=[*findings.skipped, reason])
    small = dataclasses.replace(photos, shape=COMPARED) if isinstance(photos.stored, list) else photos
    where = np.array([findings.splits[place] or "" for place in places])
    scored, train, skipped = np.flatnonzero(where == findings.scored), np.flatnonzero(where == "train"), []
    if len(photos) <= MOST_COMPARED:
        found = [(first, second, alike) for first, second, alike in near_copies.within(small)]
    else:
        scored = np.sort(np.random.default_rng(seed).permutation(scored)[:DRAWN])
        pairs = near_copies.across(_rows(small, scored), _rows(small, train))
        found = [(int(scored[first]), int(train[second]), alike) for first, second, alike in pairs]
        skipped = [
            f"near copies of all: of more than {MOST_COMPARED:,} {findings.kind}, those that {len(scored):,} of "
            f"{findings.scored} have in train are looked for"
        ]
    return dataclasses.replace(
        findings,
        near=[
            Pair(int(places[first]), int(places[second]), alike)
            for first, second, alike in sorted(found, key=lambda pair: -pair[2])
            if photos.hashes[first] != photos.hashes[second]
        ],
        compared=len(scored),
        skipped=[*findings.skipped, *skipped],
    )


def _rows(photos: Photos, places: np.ndarray) -> Photos:
    """Give some of the photos."""
    return dataclasses.replace(
        photos,
        names=[photos.names[place] for place in places],
        hashes=[photos.hashes[place] for place in places],
        labels=photos.labels[places],
        rows=photos.rows[places],
        given_groups=None,
        units=None,
    )


def by_features(
    findings: Findings, features: Features, groups: Sequence[str], places: Sequence[int] | np.ndarray, seed: int = 0
) -> Findings:
    """Add suspected labels and outliers, by features of a pretrained network; not those that are blank or contradict.

    Args:
        findings: What was found before.
        features: Shape (examples, features).
        groups: The group of each: no example has a say on others of its group.
        places: The position of each in the findings.
        seed: Decides the folds of a probe.
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
        doubt = suspicion(features, labels, len(findings.classes), groups=groups, near=near, seed=seed)
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
