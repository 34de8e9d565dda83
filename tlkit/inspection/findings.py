"""What was found in data before any training, and which of it would falsify a score."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tlkit.data import modalities
from tlkit.data.sources.class_names import nearly_equal
from tlkit.data.split import named
from tlkit.data.units import copies
from tlkit.display import few
from tlkit.inspection.near_copies import NearCopy
from tlkit.inspection.survey import Seen

SHARE = 0.01  # of the scored examples that may have a near copy among the others before that counts as falsifying
PLACEHOLDER = 3  # copies of one content from which on it is taken for a placeholder


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
        compared: Number of scored examples whose near copies in other splits were all looked for.
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
    near: list[NearCopy] = dataclasses.field(default_factory=list)
    compared: int = 0
    suspects: list[Suspect] = dataclasses.field(default_factory=list)
    outliers: list[int] = dataclasses.field(default_factory=list)
    skipped: list[str] = dataclasses.field(default_factory=list)

    @property
    def singular(self) -> str:
        """What a single example is called."""
        return modalities.row(self.kind).singular

    @functools.cached_property
    def label_names(self) -> list[str]:
        """The label of each example, or its labels with bars between them."""
        return named(self.labels, self.classes)

    @functools.cached_property
    def counts(self) -> dict[str, list[int]]:
        """The number of examples of each class, by split; of those that are used."""
        labels, several = self.labels, self.labels.ndim == 2
        counts = {}
        for split in ("train", "val", "test"):
            here = labels[np.fromiter((name == split for name in self.splits), bool, len(labels))]
            if len(here):
                each = here.sum(axis=0) if several else np.bincount(here, minlength=len(self.classes))
                counts[split] = each.astype(int).tolist()
        return counts

    @functools.cached_property
    def copies(self) -> list[list[int]]:
        """Positions of examples with one content, two or more each, those with the most copies first."""
        groups = [group for hash_, group in copies(self.hashes).items() if hash_]
        return sorted(groups, key=len, reverse=True)

    @functools.cached_property
    def damaged(self) -> list[int]:
        """Positions of examples that cannot be decoded."""
        return [place for place, seen in enumerate(self.seen or []) if seen.problem]

    @functools.cached_property
    def blank(self) -> list[int]:
        """Positions of examples in which nearly nothing is to be seen."""
        return [place for place, seen in enumerate(self.seen or []) if seen.blank]

    @property
    def placeholders(self) -> list[list[int]]:
        """Copies of one content that are so many that it is probably no photo of anything."""
        return [group for group in self.copies if len(group) >= PLACEHOLDER]

    @functools.cached_property
    def contradictions(self) -> list[list[int]]:
        """Copies of one content that have different labels."""
        labels = self.label_names
        return [group for group in self.copies if len({labels[place] for place in group}) > 1]

    @functools.cached_property
    def leaks(self) -> list[list[int]]:
        """Copies of one content in several splits of the source."""
        return [group for group in self.copies if len({self.given[place] for place in group}) > 1]

    @functools.cached_property
    def divided_groups(self) -> list[str]:
        """Groups that are in several splits of the source."""
        where = defaultdict(set)
        for group, split in zip(self.groups or [], self.given, strict=False):
            where[group].add(split)
        return sorted(group for group, splits in where.items() if group and len(splits) > 1)

    @functools.cached_property
    def near_across(self) -> list[NearCopy]:
        """Near copies of which one is trained on and the other is not."""
        return [pair for pair in self.near if len({self.splits[pair.first], self.splits[pair.second]} - {None}) > 1]

    @functools.cached_property
    def near_contradictions(self) -> list[NearCopy]:
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

    @property
    def copies_falsify(self) -> bool:
        """Whether so many scored examples have a near copy among the others that the score is not to be trusted."""
        return len(self.copied) > max(1, SHARE * self.compared)

    def falsifying(self) -> list[str]:
        """Say what would falsify a score, one line each.

        That is: a content in several splits of the source; a group in several splits of the source; a content with
        different labels; more than one of the scored examples, and more than 1 % of them, having a near copy in train,
        or in val beside a test; more than one pair, and more pairs than 1 % of all, of near copies with different
        labels; a class that the scored split does not have; and names of classes that are nearly equal. What is
        doubtful but leaves a score what it is does not count: suspected labels, outliers, blank and damaged examples,
        copies within one split.
        """
        kind, lines = self.kind, []
        if self.leaks:
            lines.append(f"{self._count(self.leaks)} in several splits: {self._such(self.leaks[0])}")
        if groups := self.divided_groups:
            lines.append(f"groups in several splits ({len(groups):,}), such as {groups[0]}")
        if odd := self.contradictions:
            lines.append(f"{self._count(odd)} there with several labels: {self._such(odd[0])}")
        copied = self.copied
        if self.copies_falsify:
            share = f"{len(copied):,} of {self.compared:,} {kind} of {self.scored}"
            others = " or ".join(split for split in ("train", "val") if split in self.splits and split != self.scored)
            lines.append(f"{share} have a near copy in {others}: {self._such(copied[0])}")
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
            lines.append(f"{self.scored} has no {self.singular} of {few(lacking)}: its score says nothing about them")
        lines += nearly_equal(self.classes)
        return lines

    @functools.cached_property
    def copied(self) -> list[tuple[int, int]]:
        """Each scored example that has a near copy in another split, with that copy."""
        found: dict[int, int] = {}
        for first, second, _ in self.near:
            for here, there in ((first, second), (second, first)):
                if self.splits[here] == self.scored and self.splits[there] not in (None, self.scored):
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
        return f"1 {self.singular} is" if len(groups) == 1 else f"{len(groups):,} {self.kind} are"

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
            values |= {"near_copies": len(self.near), "scored_with_near_copy": len(self.copied)}
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
