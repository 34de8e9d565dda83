"""Load a graph whose nodes are classified, with the split of its publishers."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path

import numpy as np

from tlkit.data.modalities import Modality
from tlkit.data.modalities.nodes import NODES
from tlkit.data.sources import npz_arrays
from tlkit.display import few, say
from tlkit.errors import InvalidInput

SPLITS = ("train", "val", "test")
CHUNK = 4096  # rows that are normalized at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """One undirected graph.

    Shapes:
        features: (nodes, features), float32; each row of a matrix without negative numbers sums to 1, or is 0
        edges: (edges, 2), int32; each once, without loops
        labels: (nodes,), int32; positions in `classes`
        train, val, test: (n,), int32; nodes, none of which is in two splits
    """

    features: np.ndarray
    edges: np.ndarray
    labels: np.ndarray
    classes: list[str]
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    @property
    def kind(self) -> str:
        """Name of the modality."""
        return self.modality.name

    @property
    def modality(self) -> Modality:
        """The row of the modality."""
        return NODES

    @property
    def grouping(self) -> None:
        """The group of each node: it has none."""
        return None

    @functools.cached_property
    def parts(self) -> dict[str, tuple[int, str]]:
        """The number of nodes, and a SHA-256 of the graph together with these nodes, by split."""
        nodes = {split: getattr(self, split) for split in SPLITS}
        graph = self.digest.encode()
        return {
            split: (len(part), hashlib.sha256(graph + np.ascontiguousarray(part).tobytes()).hexdigest())
            for split, part in nodes.items()
        }

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of all arrays, in hexadecimal."""
        digest = hashlib.sha256()
        for array in (self.features, self.edges, self.labels, self.train, self.val, self.test):
            digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def write_manifest(self, path: str | Path) -> None:
        """Write a CSV file with the columns node, label and split."""
        rows = [
            f"{node},{self.classes[self.labels[node]]},{split}\n" for split in SPLITS for node in getattr(self, split)
        ]
        Path(path).write_text("".join(["node,label,split\n", *rows]), encoding="utf-8")


def load(path: str | Path) -> Graph:
    """Load a NumPy file (.npz) with a split like Planetoid's (Yang et al. 2016, arXiv:1603.08861).

    It holds features (nodes, features), labels (nodes,), edges (count, 2), train_idx, val_idx and test_idx. Features
    are divided by the sum of their row, as by Kipf and Welling (2017, arXiv:1609.02907, section 5.2). Loops and
    repeated edges, in either direction, are left out and counted on stderr.

    Raises:
        InvalidInput: the file or an array cannot be used, or a node is in two splits.
    """
    wanted = ("features", "labels", "edges", *(f"{split}_idx" for split in SPLITS))
    arrays, array_names = npz_arrays(path, wanted)
    for name in wanted:
        if name not in arrays:
            raise InvalidInput(f"{path}: no array {name} among {array_names}: give {few(wanted)}")
    features, labels = _features(path, arrays["features"]), arrays["labels"]
    nodes = len(features)
    if labels.shape != (nodes,) or labels.dtype.kind not in "ui":
        raise InvalidInput(
            f"{path}: labels is {labels.dtype} {labels.shape}: give one integer for each of {nodes} nodes"
        )
    names, positions = np.unique(labels, return_inverse=True)
    splits = {split: _nodes(path, f"{split}_idx", arrays[f"{split}_idx"], nodes) for split in SPLITS}
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        both = np.intersect1d(splits[one], splits[other])
        if len(both):
            raise InvalidInput(
                f"{path}: {one}_idx and {other}_idx share {len(both)} nodes ({few([str(node) for node in both])}): "
                "a node may be in one split only"
            )
    if unseen := [str(name) for i, name in enumerate(names) if i not in positions[splits["train"]]]:
        raise InvalidInput(f"{path}: no node of {few(unseen)} is in train_idx: give one or more of each class")
    if len(names) < 2:
        raise InvalidInput(f"{path}: a single class, {names[0]}: give two or more")
    return Graph(
        features,
        _edges(path, arrays["edges"], nodes),
        positions.astype(np.int32),
        [str(name) for name in names],
        **splits,
    )


def _features(path: str | Path, features: np.ndarray) -> np.ndarray:
    if features.ndim != 2 or features.dtype.kind not in "buif" or not features.size:
        raise InvalidInput(f"{path}: features is {features.dtype} {features.shape}: give numbers (nodes, features)")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        features = features.astype(np.float32)
    if not np.isfinite(features).all():
        raise InvalidInput(f"{path}: features holds numbers that are not finite: remove or replace them")
    if (features < 0).any():  # the sum of a row may be close to 0
        return features
    # In parts, since float64 takes twice the memory; they are views.
    for rows in np.array_split(features, range(CHUNK, len(features), CHUNK)):
        sums = rows.sum(axis=1, keepdims=True, dtype=np.float64)
        rows[:] = np.divide(rows, sums, out=np.zeros(rows.shape), where=sums > 0)
    return features


def _nodes(path: str | Path, name: str, indices: np.ndarray, nodes: int) -> np.ndarray:
    if indices.ndim != 1 or indices.dtype.kind not in "ui" or not len(indices):
        raise InvalidInput(f"{path}: {name} is {indices.dtype} {indices.shape}: give the numbers of nodes, (n,)")
    _check_range(path, name, indices, nodes)
    if len(np.unique(indices)) < len(indices):
        raise InvalidInput(f"{path}: {name} lists nodes twice: give each once")
    return indices.astype(np.int32)


def _edges(path: str | Path, edges: np.ndarray, nodes: int) -> np.ndarray:
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "ui":
        raise InvalidInput(f"{path}: edges is {edges.dtype} {edges.shape}: give the numbers of two nodes, (count, 2)")
    _check_range(path, "edges", edges, nodes)
    unique = np.unique(np.sort(edges, axis=1), axis=0)
    unique = unique[unique[:, 0] != unique[:, 1]].astype(np.int32)
    if len(unique) < len(edges):
        say(f"edges left out, because they are loops or repeated: {len(edges) - len(unique):,}", error=True)
    return unique


def _check_range(path: str | Path, name: str, indices: np.ndarray, nodes: int) -> None:
    wrong = indices[(indices < 0) | (indices >= nodes)]
    if len(wrong):
        raise InvalidInput(f"{path}: {name} holds {wrong[0]}: the {nodes:,} nodes have the numbers 0 to {nodes - 1}")
