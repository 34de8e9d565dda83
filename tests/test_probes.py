"""Probes against scikit-learn, SciPy and NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import BayesianRidge, LogisticRegression
from sklearn.metrics import log_loss
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier

from tlkit import probes
from tlkit.errors import InvalidInput
from tlkit.probes import logistic
from tlkit.probes.features import assign_folds, moments


def blobs(n: int = 300, features: int = 8, classes: int = 3, spread: float = 1.0, seed: int = 0):
    """Examples around one center for each class, on scales and offsets that differ between features."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    x = rng.normal(size=(classes, features))[labels] + spread * rng.normal(size=(n, features))
    return (x * rng.uniform(0.1, 10, features) + rng.uniform(-5, 5, features)).astype(np.float32), labels


def standardized(x: np.ndarray) -> np.ndarray:
    return (x - x.astype(np.float64).mean(0)) / factor(x)


def factor(x: np.ndarray) -> float:
    return x.astype(np.float64).var(0).mean() ** 0.5


def reference(x: np.ndarray, labels: np.ndarray, l2: float) -> LogisticRegression:
    return LogisticRegression(C=1 / (l2 * len(x)), tol=1e-9, max_iter=10_000).fit(x, labels)


class Lazy:
    """What reads features slice by slice: no array, and nothing but slices can be asked of it."""

    def __init__(self, x: np.ndarray):
        self.x, self.shape = x, x.shape

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice) -> np.ndarray:
        assert isinstance(rows, slice)
        assert rows.stop - rows.start <= probes.features.SLICE
        return self.x[rows]


@pytest.mark.parametrize(("classes", "features", "n"), [(3, 8, 300), (2, 5, 200), (4, 90, 60)])
def test_the_probe_is_scikit_learns_logistic_regression(classes: int, features: int, n: int):
    x, labels = blobs(n, features, classes, spread=4 if features > n else 1.5)
    probe = probes.logistic_regression(x, labels, classes)
    if classes == 2:  # there scikit-learn has one column of weights, the difference of two, with half the penalty
        model = reference(standardized(x), labels, probe.l2 / 2)
        kernel = np.diff(probe.kernel, axis=1).T
    else:
        model = reference(standardized(x), labels, probe.l2)
        kernel = probe.kernel.T
    np.testing.assert_allclose(kernel, model.coef_ / factor(x), rtol=2e-3, atol=2e-4 * np.abs(kernel).max())
    np.testing.assert_allclose(probe.probabilities(x), model.predict_proba(standardized(x)), atol=3e-4)
    assert probe.kernel.dtype == probe.bias.dtype == probe.held_out.dtype == np.float32
    assert probe.kernel.shape == (features, classes)


def test_held_out_probabilities_are_those_of_a_loop_over_the_folds():
    x, labels = blobs(spread=1.5)
    probe = probes.logistic_regression(x, labels, 3, folds=4, seed=7)
    z, fold_of = standardized(x), probes.features.assign_folds(labels, None, 4, 7)
    assert set(fold_of) == {0, 1, 2, 3}
    for one in probe.tried:
        expected = np.empty((len(x), 3))
        for fold in range(4):
            model = reference(z[fold_of != fold], labels[fold_of != fold], one.l2)
            expected[fold_of == fold] = model.predict_proba(z[fold_of == fold])
        assert one.loss == pytest.approx(log_loss(labels, expected), abs=2e-3)
        assert one.accuracy == pytest.approx(np.mean(expected.argmax(1) == labels), abs=0.01)
        losses = -np.log(expected[np.arange(len(x)), labels])
        assert one.loss_error == pytest.approx(losses.std() / len(x) ** 0.5, rel=0.02)
        if one.l2 == probe.l2:
            np.testing.assert_allclose(probe.held_out, expected, atol=0.01)
    assert probe.l2 == min(probe.tried, key=lambda one: one.loss).l2


def test_groups_stay_together_and_labels_are_spread():
    rng = np.random.default_rng(0)
    member = rng.integers(0, 300, 400)
    labels = (member % 10 == 0).astype(int)  # copies share their label, of which one is rare
    fold_of = probes.features.assign_folds(labels, [("photo", number) for number in member], 5, seed=3)
    assert all(len(set(fold_of[member == number])) == 1 for number in set(member))
    first = np.unique(member, return_index=True)[1]
    for seed in range(5):
        dealt = probes.features.assign_folds(labels, member, 5, seed)[first]
        for label in (0, 1):
            counts = np.bincount(dealt[labels[first] == label], minlength=5)
            assert counts.max() - counts.min() <= 1
    assert (fold_of != probes.features.assign_folds(labels, [("photo", number) for number in member], 5, seed=4)).any()
    assert probes.features.assign_folds(labels, member, 5, seed=3).tolist() == fold_of.tolist()
    assert set(probes.features.assign_folds(labels, member % 3, 5, seed=0)) == {0, 1, 2}  # fewer groups than folds


def test_large_groups_stay_whole_and_folds_are_as_alike_as_scikit_learns():
    def unlike(fold_of: np.ndarray) -> float:
        held = np.array([np.bincount(labels[fold_of == fold], minlength=4) for fold in range(5)])
        return (held / held.sum(0)).std(0).mean()

    ours, theirs, dealt = [], [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(60), rng.integers(5, 60, 60))  # such as patients, with photos of several labels
        labels = np.where(rng.random(len(groups)) < 0.5, groups % 4, rng.integers(0, 4, len(groups)))
        fold_of = probes.features.assign_folds(labels, groups.tolist(), 5, seed)
        assert all(len(set(fold_of[groups == group])) == 1 for group in range(60))
        assert (np.bincount(fold_of) < 1.1 * len(groups) / 5).all()
        ours.append(unlike(fold_of))
        sklearns = np.empty(len(groups), int)
        for fold, (_, held) in enumerate(
            StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, groups)
        ):
            sklearns[held] = fold
        theirs.append(unlike(sklearns))
        dealt.append(unlike(groups % 5))
    assert np.mean(ours) <= 1.05 * np.mean(theirs) < 0.5 * np.mean(dealt)


def test_one_large_group_among_single_examples_fills_a_fold():
    labels, groups = np.arange(400) % 2, [max(0, number - 79) for number in range(400)]
    assert np.bincount(probes.features.assign_folds(labels, groups, 5, seed=0)).tolist() == [80] * 5


def test_many_classes_of_few_examples_are_labels_to_nearest_neighbours():
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    assert (
        0 <= probes.nearest_neighbours(x, np.arange(60) // 2) < 0.3
    )  # and no warning of scikit-learn, which is an error


def test_copies_in_other_folds_would_flatter():
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(60, 40)), 2, axis=0).astype(np.float32)
    labels, groups = np.repeat(rng.integers(0, 2, 60), 2), np.repeat(np.arange(60), 2)

    def accuracy(**how):
        return max(one.accuracy for one in probes.logistic_regression(x, labels, 2, **how).tried)

    assert accuracy() > 0.8 > 0.7 > accuracy(groups=groups)
    alone = probes.nearest_neighbours(x, labels, neighbours=1)
    assert alone > 0.7 > probes.nearest_neighbours(x, labels, neighbours=1, groups=groups)


@pytest.mark.parametrize("keep", [0, 2**28], ids=["read at every step", "copied"])
def test_where_the_features_lie_makes_no_difference(keep: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    x, labels = blobs(spread=1.5)
    expected = probes.logistic_regression(x, labels, 3)
    neighbours, evidence = probes.nearest_neighbours(x, labels), probes.logme(x, labels)
    monkeypatch.setattr(probes.features, "SLICE", 128)
    monkeypatch.setattr(probes.problem, "KEEP", keep)
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=x.shape)
    mapped[:] = x
    for features in (x, mapped, Lazy(x)):
        probe = probes.logistic_regression(features, labels, 3)
        assert probe.l2 == expected.l2
        np.testing.assert_allclose(probe.probabilities(features), expected.probabilities(x), atol=2e-4)
        np.testing.assert_allclose(probe.held_out, expected.held_out, atol=5e-3)
        assert probes.nearest_neighbours(features, labels) == neighbours
        assert probes.logme(features, labels) == pytest.approx(evidence, abs=1e-6)


def test_a_sample_of_many_examples_decides_the_strength(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    x, labels = blobs(2000, spread=4)
    groups = np.arange(2000) // 2  # of one class each pair, once sorted
    order = np.argsort(labels, kind="stable")
    x, labels = x[order], labels[order]
    expected = probes.logistic_regression(x, labels, 3, groups=groups)
    assert not capsys.readouterr().err
    monkeypatch.setattr(probes.features, "SLICE", 300)
    monkeypatch.setattr(probes.problem, "KEEP", 0)
    monkeypatch.setattr(probes.logistic, "SAMPLE", 500)
    probe = probes.logistic_regression(Lazy(x), labels, 3, groups=groups)
    assert f"l2 {probe.l2:.2g}, by cross-validation on 500 of 2,000 examples" in capsys.readouterr().err
    alone = probes.logistic_regression(x, labels, 3, strengths=(probe.l2,), groups=groups)
    assert probe.l2 in [one.l2 for one in probe.tried]
    np.testing.assert_allclose(probe.kernel, alone.kernel, atol=1e-4)
    np.testing.assert_allclose(probe.probabilities(x), alone.probabilities(x), atol=3e-4)
    np.testing.assert_allclose(probe.held_out, alone.held_out, atol=5e-3)

    def loss(held_out: np.ndarray) -> float:
        return float(-np.log(held_out[np.arange(2000), labels]).mean())

    assert loss(probe.held_out) < 1.01 * loss(expected.held_out)
    worse = probes.logistic_regression(Lazy(x), labels, 3, groups=groups, sample_only=True)
    assert worse.l2 == probe.l2
    np.testing.assert_allclose(probe.kernel, worse.kernel, atol=1e-4)
    assert loss(probe.held_out) < loss(worse.held_out) < 1.1 * loss(expected.held_out)


def test_a_sample_holds_whole_groups():
    groups = np.random.default_rng(0).integers(0, 40, 400)
    sample = probes.features.drawn(400, groups.tolist(), 100, seed=1)
    assert sample is not None
    assert not {*groups[sample]} & {*groups[~sample]}
    assert 100 <= sample.sum() < 130
    assert probes.features.drawn(100, None, 100, seed=1) is None


def test_float16_features():
    x, labels = blobs(spread=1.5)
    half = x.astype(np.float16)
    probe = probes.logistic_regression(half, labels, 3)
    same = probes.logistic_regression(half.astype(np.float32), labels, 3)
    np.testing.assert_array_equal(probe.kernel, same.kernel)
    assert probes.logme(half, labels) == probes.logme(half.astype(np.float32), labels)


def test_features_that_are_constant_or_far_from_zero():
    x, labels = blobs(spread=1.5)
    x = np.concatenate([x, np.zeros((len(x), 2), np.float32)], 1)
    plain = probes.logistic_regression(x, labels, 3)
    odd = (x + np.array([100] * (x.shape[1] - 2) + [0.1, 0])).astype(np.float32)
    probe = probes.logistic_regression(odd, labels, 3)
    np.testing.assert_allclose(probe.kernel[-2:], 0, atol=1e-5)
    np.testing.assert_allclose(probe.probabilities(odd), plain.probabilities(x), atol=2e-3)


def test_the_moments_are_numpys(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probes.features, "SLICE", 64)
    x = np.sort(np.random.default_rng(0).normal(3, 2, size=(1000, 4)), axis=0).astype(np.float32)  # slices differ
    mean, scale = probes.features.moments(x)
    np.testing.assert_allclose(mean, x.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(scale, factor(x), rtol=1e-6)


def test_blocks_count_equally_whatever_their_scale():
    x, labels = blobs(60, 3)
    rng = np.random.default_rng(0)
    x = np.concatenate([x, rng.normal(size=(len(x), 5)).astype(np.float32)], axis=1)
    widths = [x.shape[1] - 5, 5]
    factor = np.repeat([1.0, 1000.0], widths).astype(np.float32)
    plain = probes.logistic_regression(x, labels, 3, blocks=widths)
    scaled = probes.logistic_regression(x * factor, labels, 3, blocks=widths)
    assert scaled.l2 == plain.l2
    np.testing.assert_allclose(scaled.probabilities(x * factor), plain.probabilities(x), atol=2e-3)
    alone = probes.logistic_regression(x * factor, labels, 3)  # sees the large ones only
    assert min(each.loss for each in alone.tried) > 1.15 * min(each.loss for each in plain.tried)
    with pytest.raises(InvalidInput, match=r"blocks are \[1, 2\], and there are \d+ features: widths that add up"):
        probes.logistic_regression(x, labels, 3, blocks=[1, 2])


def test_the_gradient_is_that_of_the_loss_also_where_weights_are_large():
    x, labels = blobs(50, 3)
    fold_of = probes.features.assign_folds(labels, None, 2, 0)
    problem = probes.problem.Problem(
        x, *probes.features.moments(x), labels, fold_of, probes.problem.examples_learned(labels, fold_of, 3)
    )
    rng = np.random.default_rng(0)
    for size in (1, 300):
        weights, step = (rng.normal(size=problem.start().shape) for _ in range(2))
        weights *= size
        ahead, behind = (problem.loss(weights + sign * 0.01 * step, 0.1)[0] for sign in (1, -1))
        slope = np.sum(problem.loss(weights, 0.1)[1] * step)
        assert (ahead - behind) / 0.02 == pytest.approx(slope, rel=0.01, abs=0.01)


def test_a_class_with_one_example_and_one_with_none():
    x, labels = blobs(90, spread=0.5)
    labels[0] = 3
    x[0] += 30
    probe = probes.logistic_regression(x, labels, 5)
    assert probe.held_out[0, 3] < 1e-6  # the fold that holds it out knows nothing of its class ...
    assert all(one.loss < 2 for one in probe.tried)  # ... which says nothing about any strength
    assert probe.probabilities(x)[0].argmax() == 3
    assert probe.probabilities(x)[:, 4].max() < 1e-6
    assert np.mean(probe.probabilities(x).argmax(1) == labels) > 0.9


def test_one_example_of_each_class():
    x = np.eye(3, 6, dtype=np.float32)
    probe = probes.logistic_regression(x, [0, 1, 2], 3)
    assert probe.l2 == probes.PATH[0]
    assert probe.probabilities(x).argmax(1).tolist() == [0, 1, 2]


def test_the_penalty_is_strong_for_noise_and_weak_for_what_can_be_told_apart():
    rng = np.random.default_rng(0)
    noise = probes.logistic_regression(rng.normal(size=(200, 30)).astype(np.float32), np.arange(200) % 2, 2)
    assert noise.l2 >= 1
    assert len(noise.tried) < len(probes.PATH)  # no weaker ones are tried once the loss has risen twice
    clear = [one.loss > probes.CLEAR * min(other.loss for other in noise.tried) for one in noise.tried]
    assert clear[-3:] == [False, True, True]
    assert min(one.loss for one in noise.tried) == pytest.approx(np.log(2), abs=0.05)
    x, labels = blobs(spread=0.05)
    apart = probes.logistic_regression(x, labels, 3)
    assert apart.l2 <= 1e-3
    assert apart.tried[-1].accuracy == 1
    assert [one.l2 for one in apart.tried] == sorted((one.l2 for one in apart.tried), reverse=True)


X = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
Y = [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("probe", [lambda *a, **k: probes.logistic_regression(*a, 2, **k), probes.nearest_neighbours])
@pytest.mark.parametrize(
    ("features", "labels", "how", "line"),
    [
        (X, Y[1:], {}, "there are 6 examples and 5 labels"),
        (X, Y, {"groups": "abc"}, "there are 6 examples and 3 groups"),
        (X, Y, {"groups": "aaaaaa"}, "all examples are in one group"),
        (X, [0, 1, 0, 1, 0, -1], {}, "labels run from -1 to 1; they must be"),
        (X, [1] * 6, {}, "all 6 examples have the same label"),
        (X, [0.5, 1] * 3, {}, "labels are float64 of the shape"),
        (X[:, 0], Y, {}, r"features have the shape \(6,\)"),
        (X, Y, {"folds": 1}, "folds is 1"),
        (np.where(np.arange(6)[:, None] == 4, np.nan, X), Y, {}, r"features\[4\] is not all finite"),
        (np.where(np.arange(6)[:, None] == 5, -np.inf, X), Y, {}, r"features\[5\] is not all finite"),
    ],
)
def test_bad_input_gets_one_line(probe: Callable, features: np.ndarray, labels: list, how: dict, line: str):
    with pytest.raises(InvalidInput, match=line) as caught:
        probe(features, labels, **how)
    assert "\n" not in str(caught.value)


def test_labels_beyond_the_classes_and_what_logme_refuses(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InvalidInput, match="labels run from 0 to 2; they must be from 0 to 1"):
        probes.logistic_regression(X, [0, 1, 2] * 2, 2)
    with pytest.raises(InvalidInput, match="6 examples and 5 labels"):
        probes.logme(X, Y[1:])
    monkeypatch.setattr(probes.features, "SLICE", 2)
    with pytest.raises(InvalidInput, match=r"features\[3\] is not all finite"):
        probes.logme(np.where(np.arange(6)[:, None] == 3, np.inf, X), Y)


def test_nearest_neighbours_are_those_of_scikit_learn():
    digits = load_digits()
    x, labels = digits.data.astype(np.float32), digits.target
    fold_of, right = assign_folds(labels, None, 5, 0), 0
    for fold in range(5):
        held = fold_of == fold
        voters = KNeighborsClassifier(5, metric="cosine", algorithm="brute").fit(x[~held], labels[~held])
        right += int(np.sum(voters.predict(x[held]) == labels[held]))
    assert probes.nearest_neighbours(x, labels) == right / len(labels)


def test_nearest_neighbours_are_those_of_numpy():
    x, labels = blobs(120, spread=1.5)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    fold_of = probes.features.assign_folds(labels, None, 5, 2)
    right = 0
    for i in range(len(x)):
        others = np.flatnonzero(fold_of != fold_of[i])
        nearest = others[np.argsort(-(unit[others] @ unit[i]))[:7]]
        right += np.bincount(labels[nearest], minlength=3).argmax() == labels[i]
    assert 0.4 < right / len(x) < 0.95
    assert probes.nearest_neighbours(x, labels, neighbours=7, seed=2) == pytest.approx(right / len(x))
    assert probes.nearest_neighbours(x[:3], labels[:3]) == 0  # fewer than the neighbours asked for


def test_of_many_examples_a_sample_is_taken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probes.features, "SLICE", 64)
    x, labels = blobs(spread=1.5)
    taken = np.random.default_rng(1).permutation(300) < 100
    assert taken.sum() == 100
    groups = np.arange(300) // 2
    sample = probes.nearest_neighbours(x, labels, groups=groups, most=100, seed=1)
    assert sample == probes.nearest_neighbours(x[taken], labels[taken], groups=groups[taken], seed=1)
    assert sample != probes.nearest_neighbours(x, labels, groups=groups, seed=1)


@pytest.mark.parametrize(("n", "features"), [(30, 4), (12, 20)])
def test_logme_is_the_maximum_of_the_density(n: int, features: int):
    x, labels = blobs(n, features, 3, spread=1.5)

    def best(y: np.ndarray) -> float:
        wide = x.astype(np.float64)

        def cost(logs: np.ndarray) -> float:
            alpha, beta = np.exp(np.clip(logs, -20, 20))  # the best may lie at infinity: no weights, or no noise
            cov = wide @ wide.T / alpha + np.eye(n) / beta
            return -multivariate_normal.logpdf(y, cov=cov) / n

        starts = [(a, b) for a in (0.0, 5.0) for b in (0.0, 4.0)]
        return -min(minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-6}).fun for start in starts)

    expected = np.mean([best((labels == label).astype(float)) for label in range(3)])
    assert probes.logme(x, labels) == pytest.approx(expected, abs=1e-4)
    assert probes.logme(x, labels * 2) == pytest.approx(expected, abs=1e-4)  # classes that do not occur do not count


def test_logme_is_the_evidence_of_scikit_learns_bayesian_ridge():
    x, labels = blobs(200, 6, 2, spread=1.5)
    flat = {"alpha_1": 0, "alpha_2": 0, "lambda_1": 0, "lambda_2": 0}
    model = BayesianRidge(fit_intercept=False, compute_score=True, tol=1e-8, max_iter=1000, **flat)
    scores = [model.fit(x.astype(np.float64), labels == label).scores_[-1] / 200 for label in (0, 1)]
    assert probes.logme(x, labels) == pytest.approx(np.mean(scores), abs=1e-5)


def test_logme_ranks_features_by_what_they_tell():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 4
    centres = rng.normal(size=(4, 10))
    told = [probes.logme(strength * centres[labels] + rng.normal(size=(200, 10)), labels) for strength in (0, 0.5, 2)]
    assert told == sorted(told)
    told = rng.normal(size=(200, 10)) + centres[labels]
    assert probes.logme(np.pad(told, ((0, 0), (0, 2))), labels) == pytest.approx(probes.logme(told, labels), abs=1e-6)
    twice = np.repeat(centres[labels] + rng.normal(size=(200, 10)), 2, axis=1)  # of deficient rank
    assert probes.logme(twice, labels) == pytest.approx(probes.logme(twice[:, ::2], labels), abs=1e-3)


def test_a_known_strength_is_solved_to_the_same_head():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(120, 5)).astype(np.float32), rng.integers(0, 3, 120)
    whole = probes.logistic_regression(features, labels, 3)
    alone = probes.logistic_regression(features, labels, 3, strengths=(whole.l2,))
    assert [row.l2 for row in alone.tried] == [whole.l2]
    np.testing.assert_allclose(alone.kernel, whole.kernel, atol=1e-3)
    np.testing.assert_allclose(alone.held_out, whole.held_out, atol=2e-3)


def test_kernel_ridge_predicts_each_fold_as_if_it_had_never_seen_it():
    x, labels = blobs(n=144)
    used = (labels != 2) | (np.arange(144) % 2 == 0)  # 120, of classes that are not equally frequent
    x, labels, groups = x[used], labels[used], (np.arange(120) // 4).tolist()
    found = probes.kernel_ridge(x, labels, 3, groups=groups, blocks=[3, 5], folds=6, seed=3)
    mean, scale = moments(x, [3, 5])
    z = ((x - mean) / scale).astype(np.float64)
    kernels = np.mean([rbf_kernel(z[:, :3], gamma=1 / 6), rbf_kernel(z[:, 3:], gamma=1 / 10)], axis=0)
    share, fold_of = np.bincount(labels) / 120, assign_folds(labels, groups, 6, 3)
    expected = np.empty((120, 3))
    for fold in range(6):
        held, others = np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of != fold)
        ridge = KernelRidge(alpha=0.1, kernel="precomputed")
        ridge.fit(kernels[np.ix_(others, others)], np.eye(3)[labels[others]] - share)
        expected[held] = ridge.predict(kernels[np.ix_(held, others)]) + share
    log = np.log(found) - np.log(found).mean(1, keepdims=True)  # logits: a common factor times the regressions
    centered = expected - expected.mean(1, keepdims=True)
    sharpness = float((log * centered).sum() / (centered**2).sum())
    np.testing.assert_allclose(log, sharpness * centered, atol=2e-3 * sharpness)
    losses = {factor: log_loss(labels, softmax(factor * expected, axis=1)) for factor in np.geomspace(1, 32, 21)}
    assert sharpness == pytest.approx(min(losses, key=losses.__getitem__), rel=0.01)


@pytest.mark.parametrize("shape", [(120, 30), (60, 90)])
def test_principal_components_lead_to_the_same_solution(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    features = (rng.normal(size=shape) @ rng.normal(size=(shape[1], shape[1]))).astype(np.float32)
    labels = np.argmax(features[:, :3], axis=1)
    ours = probes.logistic_regression(features, labels, 3, strengths=(1.0, 0.1))
    monkeypatch.setattr(logistic, "COMPONENTS", 0)
    plain = probes.logistic_regression(features, labels, 3, strengths=(1.0, 0.1))
    assert [tried.l2 for tried in ours.tried] == [tried.l2 for tried in plain.tried]
    np.testing.assert_allclose(ours.kernel, plain.kernel, atol=1e-3 * np.abs(plain.kernel).max())
    np.testing.assert_allclose(ours.held_out, plain.held_out, atol=0.02)
