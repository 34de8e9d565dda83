"""What splits lack: an error where nothing can be learned or chosen, with its cause; else warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tlkit.data.modalities import row
from tlkit.data.units import Units
from tlkit.display import few

USUAL = 0.1  # where nothing falls into a split of this share or more, the data are too few, and not the share too small


class Divided(NamedTuple):
    """Examples and their splits; a list for all examples each."""

    splits: list[str | None]  # None for an example taken out because of a leak
    given: Sequence[str | None]  # what the source says; "train" where it has no other split
    shares: Mapping[str, float]  # of the splits that are made from train by hash
    labels: np.ndarray  # (n,), positions in the classes; or (n, classes), zeros and ones
    classes: Sequence[str]
    names: Sequence[str]
    hashes: Sequence[str]
    groups: Sequence[str] | None
    units: Units  # what must stay together
    kind: str  # name of the modality

    @property
    def one(self) -> str:
        """What a single example is called."""
        return row(self.kind).singular

    def lacking(self, split: str) -> list[str]:
        """Return the classes that a split has no example of."""
        here = self.labels[np.array([name == split for name in self.splits], bool)]
        there = set((here if here.ndim == 1 else here.any(axis=0).nonzero()[0]).tolist())
        return [name for label, name in enumerate(self.classes) if label not in there]


def splits_of(keys: Sequence[str], splits: Sequence[str | None]) -> dict[str, frozenset[str | None]]:
    """Return the splits in which each key occurs.

    >>> sorted(splits_of(["x", "y", "x"], ["train", "val", "test"])["x"])
    ['test', 'train']
    """
    found: dict[str, frozenset[str | None]] = {}
    grown: dict[tuple[frozenset[str | None], str | None], frozenset[str | None]] = {}  # equal ones take memory once
    for key, split in zip(keys, splits, strict=True):
        before = found.get(key, frozenset())
        if split not in before:
            found[key] = grown.setdefault((before, split), before | {split})
    return found


def problem(divided: Divided) -> str | None:
    """Say why the splits cannot be used and what to do, or return None where they can."""
    one_label = divided.labels.ndim == 1
    for split in ("train", "val", "test"):
        lacking = divided.lacking(split)
        if lacking and split == "train" and one_label:
            return _not_learned(divided, lacking)
        if split not in divided.splits and split != "test":
            return _empty(divided, split)
        if split in divided.splits and len(lacking) == len(divided.classes):
            return f"no {divided.one} of {split} has a label: add {divided.kind}, or change the splits"
    return None


def warnings(divided: Divided) -> list[str]:
    """Say which classes each split lacks, and which have too few groups for three splits; one line each."""
    lines = _few_groups(divided) if divided.groups and divided.shares else []
    for split in ("train", "val", "test"):
        lacking = divided.lacking(split)
        if lacking and (split != "test" or "test" in divided.splits):
            so = "they cannot be learned" if split == "train" else "its score says nothing about them"
            lines.append(f"{split} has no {divided.one} of {few(lacking)}: {so}")
    if "test" not in divided.splits:
        none = f"no {divided.one} falls into test" if "test" in divided.shares else "there is no test split"
        lines.append(f"{none}: scores are those of val")
    return lines


def _few_groups(divided: Divided) -> list[str]:
    """A warning about classes with fewer groups than there are splits."""
    labels, several = divided.labels, divided.labels.ndim == 2
    each = np.argwhere(labels) if several else np.stack([np.arange(len(labels)), labels], axis=1)
    pairs = {(divided.classes[label], divided.units.names[i]) for i, label in each.astype(int).tolist()}
    counts = Counter(name for name, _ in pairs)
    rare = [f"{name} ({counts[name]})" for name in divided.classes if 0 < counts[name] < 3]
    return [f"classes with fewer groups than three, one for each split ({len(rare)}): {few(rare)}"] if rare else []


def _not_learned(divided: Divided, lacking: Sequence[str]) -> str:
    """Say why train has nothing of some classes."""
    places: dict[str, list[int]] = {name: [] for name in divided.classes}
    for i, label in enumerate(divided.labels.tolist()):
        places[divided.classes[label]].append(i)
    trained = {name: [i for i in places[name] if divided.given[i] == "train"] for name in lacking}
    leaked = [name for name in lacking if trained[name]]
    elsewhere = [name for name in lacking if places[name] and not trained[name]]
    unseen = [name for name in lacking if not places[name]]
    kind, causes = divided.kind, []
    if leaked:
        these = [i for name in leaked for i in trained[name]]
        them = "it" if len(leaked) == 1 else "them"
        causes.append(
            f"no {divided.one} of {few(leaked)} is left to train on: all {len(these):,} training {kind} of {them} "
            f"{_leak(divided, these)}"
        )
    if elsewhere:
        where = _listed({divided.given[i] for name in elsewhere for i in places[name]}, "and")
        causes.append(
            f"{kind} of {few(elsewhere)} are in {where} only: move some to train, or take them all out of the data"
        )
    if unseen:
        causes.append(
            f"no {divided.one} of {few(unseen)} is left to train on, and none for the other splits: "
            f"add {kind} that can be used, or take the class out of the data"
        )
    return "; ".join(causes)


def _empty(divided: Divided, split: str) -> str:
    """Say why a split has no example."""
    one, kind = divided.one, divided.kind
    given = [i for i, name in enumerate(divided.given) if name == split]
    if given and all(divided.splits[i] is None for i in given):
        return f"no {one} is left in {split}: all {len(given):,} {_leak(divided, given)}"
    share = divided.shares[split] if split in divided.shares else 1 - sum(divided.shares.values())
    if share >= USUAL:
        count, units = len(set(divided.units.names)), "groups" if divided.groups else kind
        many = f"{count:,} {units} are"
        if not divided.groups and count < len(divided.names):
            many = f"{len(divided.names):,} {kind}, of which copies stay together and leave {count:,} to divide, are"
        return f"no {one} falls into {split}: {many} too few: add some, or give the splits"
    what = "lower the fractions" if split == "train" else f"raise data.{split}_fraction"
    return f"no {one} falls into {split}, whose share is {share:.3g}: {what}"


def _leak(divided: Divided, places: Sequence[int]) -> str:
    """Say where examples that were taken out are too, and what to do."""
    of_unit = splits_of(divided.units.names, divided.given)
    of_hash = splits_of(divided.hashes, divided.given)
    own = {"train", *(divided.given[i] for i in places)}
    found = set().union(*(of_unit[divided.units.names[i]] for i in places)) - own
    where = _listed(found, "or")
    if all(of_hash[divided.hashes[i]] & found for i in places):
        so = f"are in {where} too"
    else:
        so = f"are in {where} too, or {'of groups' if divided.groups else 'belong together with others'} that are"
    or_ = ", or give no val, and it is taken from train" if found == {"val"} or "val" in own else ""
    return f"{so}: take these out of {where}{or_}"


def _listed(splits: set[str | None], between: str) -> str:
    return f" {between} ".join(split for split in ("train", "val", "test") if split in splits)
