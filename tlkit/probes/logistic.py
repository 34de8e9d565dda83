"""Logistic regression on fixed features, with the strength of its penalty chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from tlkit.display import say
from tlkit.probes.features import Features, assign_folds, checked, drawn, moments, slices
from tlkit.probes.problem import (
    COMPONENTS,
    Problem,
    examples_learned,
    principal,
    softmax,
    standardized,
    taken,
    unfold,
)

PATH = tuple(10.0 ** (1 - step / 2) for step in range(15))  # strengths of the penalty, strongest first: 10 to 1e-6
SAMPLE = 50_000  # examples beyond which a sample of so many decides the strength: a gigabyte at 5,000 features
CLEAR = 1.02  # a loss this many times the lowest has clearly risen


class Tried(NamedTuple):
    """How well one strength of the penalty did on held-out examples.

    Args:
        l2: The strength.
        loss: Mean negative logarithm of the probability of the right label, over the examples whose class occurs in
            the folds that were learned from: no strength can predict another class.
        accuracy: Share of all examples whose most probable label is right, 0 to 1.
        loss_error: Standard error of the loss.
    """

    l2: float
    loss: float
    accuracy: float
    loss_error: float


class Probe(NamedTuple):
    """A solved logistic regression.

    Args:
        kernel: Shape (features, classes), float32. It applies to the original features: standardization is folded in,
            so that kernel and bias are those of a Dense layer.
        bias: Shape (classes,), float32; -50 or so for a class that no example has.
        l2: The chosen strength of the penalty.
        tried: The strengths tried, in that order, strongest first; of many examples on a sample, as strengths for all.
        held_out: Shape (examples, classes), float32: the probabilities of each example at the chosen strength, by the
            fold that did not learn from it.
    """

    kernel: np.ndarray
    bias: np.ndarray
    l2: float
    tried: list[Tried]
    held_out: np.ndarray

    def probabilities(self, features: Features) -> np.ndarray:
        """Predict the probabilities of each example: shape (examples, classes), float32, each row sums to 1."""
        probabilities = np.empty((len(features), len(self.bias)), np.float32)
        for rows, x in slices(features):
            probabilities[rows] = softmax(x @ self.kernel + self.bias)
        return probabilities


def logistic_regression(
    features: Features,
    labels: Sequence[int] | np.ndarray,
    classes: int,
    *,
    groups: Sequence[Hashable] | None = None,
    blocks: Sequence[int] | None = None,
    folds: int = 5,
    seed: int = 0,
    strengths: Sequence[float] = PATH,
    sample_only: bool = False,
) -> Probe:
    """Solve multinomial logistic regression on features, as Kornblith et al. 2019 do (arXiv:1805.08974).

    The loss is the mean cross-entropy plus l2 / 2 times the sum of the squared weights, on features with mean 0 and a
    common factor that makes their average variance 1 (over all examples, whose labels this does not look at); biases
    are not penalized. A factor for each feature, so that rare ones count as much as frequent ones, gave a larger loss
    on photos and digits. In scikit-learn's terms, C is 1 / (l2 * examples). The strength l2 is that of the lowest
    cross-validated loss.

    Features of more than 256 MB are not copied into memory but read in slices at every step of the solver (L-BFGS),
    which adds up float32 slices in float64. Of more than 50,000 examples, a sample of so many, in whole groups, decides
    the strength; a line on stderr says so.

    Args:
        features: Shape (examples, features), float32 or float16.
        labels: Shape (examples,), from 0 to classes - 1.
        classes: Number of classes, including those that no example has.
        groups: For each example, a key that it shares with those that must be held out with it, such as a photo's hash.
        blocks: Widths of consecutive blocks of features that are to count equally, such as those of several stages of a
            network (`backbones.pooled_widths`): each has the same total variance then. By default there is one.
        folds: Parts of the cross-validation, 2 or more; fewer are made where there are fewer groups.
        seed: Decides which examples are held out together.
        strengths: Those to try, strongest first; one alone, if it is known, is solved in a fraction of the time.
        sample_only: Where a sample decides the strength, predict `held_out` by classifiers that learned from it alone,
            which takes a fraction of the time and gives worse predictions.

    Raises:
        InvalidInput: lengths differ, labels are out of range, features are not finite, or there are fewer than two
            labels or groups.

    >>> features = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    >>> probe = logistic_regression(features, features[:, 0] > 0, classes=2)
    >>> probe.kernel.shape, probe.bias.shape, probe.held_out.shape
    ((3, 2), (2,), (100, 2))
    >>> bool(probe.probabilities(features[:1])[0, 1] > 0.5), bool(features[0, 0] > 0)
    (True, True)
    """
    labels = checked(features, labels, groups, classes)
    fold_of = assign_folds(labels, groups, folds, seed)
    mean, scale = moments(features, blocks)
    problem = Problem(*standardized(features, mean, scale), labels, fold_of, examples_learned(labels, fold_of, classes))
    sample = drawn(len(labels), groups, SAMPLE, seed) if len(strengths) > 1 else None
    directions = None
    if sample is None and problem.features is not features and min(features.shape) <= COMPONENTS:
        x, directions, spread = principal(np.asarray(problem.features))
        problem = problem._replace(features=x, mean=np.zeros(len(spread)), scale=np.ones(len(spread)), spread=spread)
    if sample is None:
        path = _path(problem, strengths)
    else:
        part = labels[sample], fold_of[sample]
        some = Problem(*taken(features, sample, mean, scale), *part, examples_learned(*part, classes))
        path = _path(some, strengths)
        # The best l2 of all examples is that of the sample times their share where the model is right, and that of the
        # sample itself where it is not: 3 % and 4 % of the loss were lost by one of them on digits and on Cora, and 2 %
        # and 0.4 % by their geometric mean, with samples of a fourth.
        factor = (len(part[0]) / len(labels)) ** 0.5
        path = path._replace(tried=[each._replace(l2=factor * each.l2) for each in path.tried])
        share = f"{len(part[0]):,} of {len(labels):,} examples"
        say(f"strength of the penalty: l2 {path.l2:.2g}, by cross-validation on {share}", error=True)
        weights = path.weights if sample_only else problem.solve(path.l2, path.weights, _tolerance(path.l2))
        path = path._replace(weights=weights, held_out=problem.held_out(weights))
    whole = problem._replace(fold_of=np.full_like(fold_of, -1), learned=np.bincount(labels, minlength=classes)[None])
    start = whole.start()
    start[..., :-1] = path.weights[..., :-1].mean(0)  # the folds' solutions lie around that of all examples
    weights = whole.solve(path.l2, start, tolerance=min(max(1e-4 * path.l2, 1e-6), 1e-5))
    if directions is not None:
        weights = np.concatenate([weights[..., :-1] @ directions.T, weights[..., -1:]], axis=-1)
    kernel, bias = unfold(weights, mean, scale)
    return Probe(kernel[0].T.astype(np.float32), bias[0].astype(np.float32), path.l2, path.tried, path.held_out)


class _Path(NamedTuple):
    """The strengths tried, and the folds' solutions at the one that was chosen."""

    tried: list[Tried]
    weights: np.ndarray
    held_out: np.ndarray

    @property
    def l2(self) -> float:
        return chosen(self.tried).l2


def _path(problem: Problem, strengths: Sequence[float]) -> _Path:
    """Solve all folds at one strength after the other, until the loss on held-out examples has clearly risen."""
    tried: list[Tried] = []
    weights = ahead = problem.start()
    for l2 in strengths:
        before, weights = weights, problem.solve(l2, ahead, _tolerance(l2))
        ahead = 2 * weights - before if tried else weights  # the path is smooth: the next step resembles the last
        probabilities = problem.held_out(weights)
        tried.append(_result(l2, probabilities, problem))
        if chosen(tried) is tried[-1]:
            best, held_out = weights, probabilities
        if all(strength.loss > CLEAR * chosen(tried).loss for strength in tried[-2:]):
            break
    return _Path(tried, best, held_out)


def _tolerance(l2: float) -> float:
    """Of a fold's gradient: the distance from the solution is at most that of the gradient from 0, divided by l2."""
    return min(max(0.02 * l2, 1e-5), 3e-4)


def chosen(tried: Sequence[Tried]) -> Tried:
    """Choose the strength of the lowest loss, the stronger of equals.

    The highest accuracy and the strongest penalty within one standard error of the lowest loss were compared with it,
    on photos, digits, wines and tumours: neither was clearly more accurate on new examples on any of them.

    >>> chosen([Tried(1.0, 0.5, 0.8, 0.1), Tried(0.1, 0.4, 0.8, 0.1), Tried(0.01, 0.4, 0.9, 0.1)]).l2
    0.1
    """
    return min(tried, key=lambda strength: strength.loss)


def _result(l2: float, held_out: np.ndarray, problem: Problem) -> Tried:
    """Score the probabilities of held-out examples at one strength."""
    labels = problem.labels
    losses = -np.log(np.maximum(held_out[np.arange(len(labels)), labels], 1e-30, dtype=np.float64))
    losses = losses[problem.learned[problem.fold_of, labels] > 0]
    count = max(len(losses), 1)  # with one example of each class there is none: all strengths are equal
    loss = float(np.sum(losses)) / count
    error = float(np.sum((losses - loss) ** 2)) ** 0.5 / count
    return Tried(l2, loss, float(np.mean(held_out.argmax(1) == labels)), error)
