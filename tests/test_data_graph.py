"""A graph is checked when it is loaded, its features normalized as published, and its splits may not overlap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tlkit.data import graph
from tlkit.errors import InvalidInput

GOOD = {
    "features": np.array([[1, 3], [0, 0], [2, 0], [0, 5], [1, 1], [1, 0]]),
    "labels": np.array([4, 9, 4, 9, 4, 9]),
    "edges": np.array([[0, 1], [2, 1], [4, 5]]),
    "train_idx": np.array([0, 1]),
    "val_idx": np.array([2, 3]),
    "test_idx": np.array([5]),
}


def write(path: Path, **changes: np.ndarray) -> Path:
    np.savez(path, **{name: value for name, value in {**GOOD, **changes}.items() if value is not None})
    return path


def test_a_graph_is_loaded_with_rows_that_sum_to_one(tmp_path: Path, capsys: pytest.CaptureFixture):
    loaded = graph.load(write(tmp_path / "g.npz"))
    np.testing.assert_allclose(loaded.features, [[0.25, 0.75], [0, 0], [1, 0], [0, 1], [0.5, 0.5], [1, 0]])
    assert loaded.features.dtype == np.float32
    assert loaded.edges.tolist() == [[0, 1], [1, 2], [4, 5]]
    assert loaded.classes == ["4", "9"]
    assert loaded.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert [part.tolist() for part in (loaded.train, loaded.val, loaded.test)] == [[0, 1], [2, 3], [5]]
    assert capsys.readouterr().err == ""


def test_loops_and_edges_listed_again_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture):
    edges = np.array([[0, 1], [1, 0], [0, 1], [3, 3], [2, 1]])
    assert graph.load(write(tmp_path / "g.npz", edges=edges)).edges.tolist() == [[0, 1], [1, 2]]
    assert capsys.readouterr().err == "edges left out, because they are loops or repeated: 3\n"


def test_features_with_negative_numbers_stay_as_they_are(tmp_path: Path):
    features = GOOD["features"] - 0.5
    assert np.array_equal(graph.load(write(tmp_path / "g.npz", features=features)).features, features)


def test_numbers_near_the_limit_are_shares_too_and_those_beyond_are_refused(tmp_path: Path):
    features = np.full(GOOD["features"].shape, 3e38)
    loaded = graph.load(write(tmp_path / "g.npz", features=features))
    np.testing.assert_allclose(loaded.features.sum(axis=1), 1, rtol=1e-5)
    with pytest.raises(InvalidInput, match="not finite"):
        graph.load(write(tmp_path / "g.npz", features=features * 10))


def test_the_manifest_and_the_digest_say_what_was_split_how(tmp_path: Path):
    loaded = graph.load(write(tmp_path / "g.npz"))
    loaded.write_manifest(tmp_path / "m.csv")
    lines = (tmp_path / "m.csv").read_text(encoding="utf-8").splitlines()
    assert lines == ["node,label,split", "0,4,train", "1,9,train", "2,4,val", "3,9,val", "5,9,test"]
    assert len(loaded.digest) == 64
    assert loaded.digest == graph.load(write(tmp_path / "h.npz")).digest
    for name, value in (("val_idx", np.array([2])), ("edges", GOOD["edges"][:2]), ("features", GOOD["features"] + 1)):
        assert graph.load(write(tmp_path / "h.npz", **{name: value})).digest != loaded.digest


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"edges": None}, "no array edges among features, labels, test_idx, .*: give features, labels, edges"),
        ({"features": np.zeros(6)}, r"features is float64 \(6,\): give numbers \(nodes, features\)"),
        ({"features": np.full((6, 2), np.inf)}, "features holds numbers that are not finite"),
        ({"labels": np.zeros(5, int)}, r"labels is int64 \(5,\): give one integer for each of 6 nodes"),
        ({"labels": np.zeros(6)}, "labels is float64"),
        ({"labels": np.zeros(6, int)}, "a single class, 0: give two or more"),
        ({"labels": np.arange(6)}, "no node of 2, 3, 4, 5 is in train_idx: give one or more of each class"),
        ({"edges": np.zeros((2, 3), int)}, r"edges is int64 \(2, 3\): give the numbers of two nodes"),
        ({"edges": np.array([[0, 6]])}, "edges holds 6: the 6 nodes have the numbers 0 to 5"),
        ({"edges": np.array([[-1, 2]])}, "edges holds -1: the 6 nodes"),
        ({"val_idx": np.array([2, 7])}, "val_idx holds 7: the 6 nodes"),
        ({"val_idx": np.array([2, 2])}, "val_idx lists nodes twice"),
        ({"val_idx": np.zeros(0, int)}, r"val_idx is int64 \(0,\): give the numbers of nodes"),
        ({"test_idx": np.array([True] * 6)}, r"test_idx is bool \(6,\)"),
        ({"val_idx": np.array([1, 2])}, r"train_idx and val_idx share 1 nodes \(1\): a node may be in one split only"),
        ({"test_idx": np.array([0, 1, 5])}, r"train_idx and test_idx share 2 nodes \(0, 1\)"),
        ({"test_idx": np.array([3])}, "val_idx and test_idx share 1 nodes"),
    ],
)
def test_a_graph_that_cannot_be_used(tmp_path: Path, changes: dict, words: str):
    with pytest.raises(InvalidInput, match=rf"g\.npz: {words}") as error:
        graph.load(write(tmp_path / "g.npz", **changes))
    assert "\n" not in str(error.value)
