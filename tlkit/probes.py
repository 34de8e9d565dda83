"""Probes: classifiers on fixed features, solved and not trained.

Features are anything with `shape` (examples, features) and `len`, whose slices `features[start:stop]` are arrays: an
array, a `np.memmap`, an object that reads a file. They may be larger than memory, and are gone over in slices.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import compress
from typing import Any, NamedTuple

import numpy as np

from tlkit import autolog
from tlkit.errors import InvalidInput

SLICE = 8192  # rows at a time: large enough for BLAS to be at full speed, small enough to fit beside the features
KEEP = 2**28  # bytes: features up to here are copied into memory, standardized; larger ones are read at every step
PATH = tuple(10.0 ** (1 - step / 2) for step in range(15))  # strengths of the penalty, strongest first: 10 to 1e-6
CLEAR = 1.02  # a loss this many times the lowest has clearly risen
ABSENT = -50.0  # bias of a class without examples: its probability is 0 in float32, and so is its gradient


class Tried(NamedTuple):
    """How well one strength of the penalty did on held-out examples.

    Args:
        l2: The strength.
        loss: Mean negative logarithm of the probability of the right label, over the examples whose class occurs in
            the folds that were learned from: of another class, no strength can know anything.
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
        kernel: Shape (features, classes), float32. It acts on the features as they came: standardization is folded
            in, so that kernel and bias are those of a Dense layer.
        bias: Shape (classes,), float32; -50 or so for a class that no example has.
        l2: The chosen strength of the penalty.
        tried: The strengths tried, in that order, strongest first.
        held_out: Shape (examples, classes), float32: the probabilities of each example at the chosen strength, by the
            fold that did not learn from it.
    """

    kernel: np.ndarray
    bias: np.ndarray
    l2: float
    tried: list[Tried]
    held_out: np.ndarray

    def probabilities(self, features: Any) -> np.ndarray:
        """Give the probabilities of each example: shape (examples, classes), float32, each row sums to 1."""
        found = np.empty((len(features), len(self.bias)), np.float32)
        for rows, x in _slices(features):
            found[rows] = _softmax(x @ self.kernel + self.bias)
        return found


def logistic_regression(
    features: Any,
    labels: Sequence[int] | np.ndarray,
    classes: int,
    *,
    groups: Sequence[Hashable] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Probe:
    """Solve multinomial logistic regression on features, as Kornblith et al. 2019 do (arXiv:1805.08974).

    The loss is the mean cross-entropy plus l2 / 2 times the sum of the squared weights, on features with mean 0 and a
    common factor that makes their average variance 1 (over all examples, whose labels this does not look at); biases
    are not penalized. A factor for each feature, so that rare ones count as much as frequent ones, gave a larger loss
    on photos and digits. In scikit-learn's terms, C is 1 / (l2 * examples). The strength l2 is that of the lowest
    cross-validated loss.

    Args:
        features: Shape (examples, features), float32 or float16.
        labels: Shape (examples,), from 0 to classes - 1.
        classes: How many classes there are, with those that no example has.
        groups: For each example, what it shares with those that must be held out with it, such as a photo's hash.
        folds: Parts of the cross-validation, 2 or more; fewer are made where there are fewer groups.
        seed: Decides which examples are held out together.

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
    labels = _checked(features, labels, groups, classes)
    fold_of = _folds(labels, groups, folds, seed)
    mean, scale = _moments(features)
    problem = _Problem(*_kept(features, mean, scale), labels, fold_of, _learned(labels, fold_of, classes))
    tried: list[Tried] = []
    weights = ahead = problem.start()
    for l2 in PATH:
        # The distance from the solution is at most that of the gradient from 0, divided by l2.
        before, weights = weights, problem.solve(l2, ahead, tolerance=min(max(0.02 * l2, 1e-5), 3e-4))
        ahead = 2 * weights - before if tried else weights  # the path is smooth: the next step resembles the last
        found = problem.held_out(weights)
        tried.append(_tried(l2, found, problem))
        if chosen(tried) is tried[-1]:
            best, held_out = weights, found
        if all(one.loss > CLEAR * chosen(tried).loss for one in tried[-2:]):
            break
    l2 = chosen(tried).l2
    whole = problem._replace(fold_of=np.full_like(fold_of, -1), learned=np.bincount(labels, minlength=classes)[None])
    start = whole.start()
    start[..., :-1] = best[..., :-1].mean(0)  # the folds' solutions lie around that of all examples
    kernel, bias = _unfold(whole.solve(l2, start, tolerance=min(max(1e-4 * l2, 1e-6), 1e-5)), mean, scale)
    return Probe(kernel[0].T.astype(np.float32), bias[0].astype(np.float32), l2, tried, held_out)


def chosen(tried: Sequence[Tried]) -> Tried:
    """Give the one of the lowest loss, the stronger of equals.

    The highest accuracy and the strongest penalty within one standard error of the lowest loss were compared with it,
    on photos, digits, wines and tumours: neither was clearly more accurate on new examples on any of them.

    >>> chosen([Tried(1.0, 0.5, 0.8, 0.1), Tried(0.1, 0.4, 0.8, 0.1), Tried(0.01, 0.4, 0.9, 0.1)]).l2
    0.1
    """
    return min(tried, key=lambda one: one.loss)


def nearest_neighbours(
    features: Any,
    labels: Sequence[int] | np.ndarray,
    *,
    groups: Sequence[Hashable] | None = None,
    neighbours: int = 5,
    folds: int = 5,
    seed: int = 0,
    most: int = 10_000,
) -> float:
    """Give the cross-validated accuracy of the most frequent label among the nearest examples, by cosine similarity.

    Args:
        features: Shape (examples, features).
        labels: Shape (examples,), from 0.
        groups: As for `logistic_regression`; so are folds, seed and the errors.
        neighbours: How many vote; fewer where fewer are learned from.
        folds: Parts of the cross-validation.
        seed: Decides which examples are held out together, and which are taken where there are more than `most`.
        most: Of more examples than this, a random sample is taken: the cost grows with their square.

    >>> nearest_neighbours(np.eye(2, dtype=np.float32)[[0, 0, 0, 1, 1, 1]], [0, 0, 0, 1, 1, 1], neighbours=1)
    1.0
    """
    from sklearn.neighbors import KNeighborsClassifier

    labels = _checked(features, labels, groups)
    taken = np.random.default_rng(seed).permutation(len(labels)) < most
    x = np.concatenate([part[taken[rows]] for rows, part in _finite(features)])
    labels = labels[taken]
    fold_of = _folds(labels, None if groups is None else list(compress(groups, taken)), folds, seed)
    right = 0
    with autolog.suspended():
        for fold in range(fold_of.max() + 1):
            held = fold_of == fold
            voters = KNeighborsClassifier(min(neighbours, int(np.sum(~held))), metric="cosine", algorithm="brute")
            right += int(np.sum(voters.fit(x[~held], labels[~held]).predict(x[held]) == labels[held]))
    return right / len(labels)


def logme(features: Any, labels: Sequence[int] | np.ndarray) -> float:
    """Give the logarithm of the maximum evidence, per example, as You et al. 2021 do (arXiv:2102.11005, algorithm 1).

    Each class against the rest is a linear regression on the features as they came, with weights of variance 1 / alpha
    and noise of variance 1 / beta; the evidence is the density of the labels, 0 or 1, at the best alpha and beta.
    Higher is better. It compares features of the same labels.

    Args:
        features: Shape (examples, features).
        labels: Shape (examples,), from 0; the result is the mean over the classes that occur.

    Raises:
        InvalidInput: as for `logistic_regression`.

    >>> noise = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    >>> labels = np.arange(100) % 2
    >>> logme(noise, labels) < logme(noise + labels[:, None], labels)
    True
    """
    labels = _checked(features, labels, None)
    n, (present, target) = len(labels), np.unique(labels, return_inverse=True)
    gram = products = np.zeros(())
    for rows, part in _finite(features):
        x = part.astype(np.float64)
        gram = gram + x.T @ x
        products = products + x.T @ np.eye(len(present))[target[rows]]
    if not gram.any():
        raise InvalidInput("all features are 0: this network sees nothing in these photos")
    values, vectors = np.linalg.eigh(gram)
    real = values > values[-1] * len(values) * np.finfo(np.float64).eps  # directions in which the features extend
    values = values[real, None]
    explained = (vectors[:, real].T @ products) ** 2 / values  # (directions, classes): parts of the labels' squares
    rest = np.maximum(np.bincount(target) - explained.sum(0), 0)
    ratio = np.ones(len(present))  # alpha / beta; the paper's iteration finds its fixed point
    for _ in range(200):
        kept = values / (values + ratio)
        alpha = kept.sum(0) / np.maximum(np.sum(explained * kept**2 / values, 0), 1e-300)
        residual = rest + np.sum(explained * (1 - kept) ** 2, 0)
        beta = (n - kept.sum(0)) / np.maximum(residual, 1e-12)
        before, ratio = ratio, np.maximum(alpha / beta, 1e-12 * values[-1])
        if np.all(np.abs(ratio - before) <= 1e-6 * before):
            break
    return float(np.mean(_evidence(ratio, values, explained, rest, n)))


def _evidence(ratio: np.ndarray, values: np.ndarray, explained: np.ndarray, rest: np.ndarray, n: int) -> np.ndarray:
    """Give the logarithm of the evidence per example at a ratio alpha / beta, with the best beta for it."""
    spread = 1 + values / ratio  # the labels' variance along each direction, in units of the noise's
    beta = n / np.maximum(rest + np.sum(explained / spread, 0), 1e-12)
    return (np.log(beta / (2 * np.pi)) - 1 - np.sum(np.log(spread), 0) / n) / 2


class _Problem(NamedTuple):
    """The losses of all folds as one, so that one pass over the features serves them all.

    Weights have the shape (folds, classes, features + 1) and act on centred and scaled features; the last are biases.
    """

    features: Any
    mean: np.ndarray  # (features,): what is still to be taken from the features
    scale: float  # and then to be divided by
    labels: np.ndarray
    fold_of: np.ndarray  # (examples,): the fold that does not learn from it, -1 for none
    learned: np.ndarray  # (folds, classes): the number of examples of each class that a fold learns from

    def start(self) -> np.ndarray:
        """No weights, and the classes' frequencies as biases: the solution of the strongest penalty."""
        weights = np.zeros((*self.learned.shape, len(self.mean) + 1))
        shares = self.learned / self.learned.sum(1, keepdims=True)
        weights[..., -1] = np.where(shares > 0, np.log(np.maximum(shares, 1e-30)), ABSENT)
        return weights

    def logits(self, weights: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Give rows, their features and their logits, shape (folds, classes, rows), slice by slice."""
        kernel, bias = (part.astype(np.float32) for part in _unfold(weights, self.mean, self.scale))
        flat = kernel.reshape(-1, kernel.shape[-1])
        for rows, x in _slices(self.features):
            yield rows, x, (flat @ x.T).reshape(*bias.shape, len(x)) + bias[..., None]

    def held_out(self, weights: np.ndarray) -> np.ndarray:
        """Give each example's probabilities by the fold that did not learn from it."""
        found = np.empty((len(self.labels), self.learned.shape[1]), np.float32)
        for rows, x, logits in self.logits(weights):
            found[rows] = _softmax(logits[self.fold_of[rows], :, np.arange(len(x))])
        return found

    def loss(self, weights: np.ndarray, l2: float) -> tuple[float, np.ndarray]:
        """Give the sum of the folds' losses, and its gradient."""
        folds, classes = self.learned.shape
        per_example = (1 / self.learned.sum(1, keepdims=True)).astype(np.float32)
        value = l2 / 2 * float(np.sum(weights[..., :-1] ** 2))
        kernel, bias = np.zeros((folds * classes, len(self.mean))), np.zeros((folds, classes))
        for rows, x, p in self.logits(weights):
            share = np.where(self.fold_of[rows] != np.arange(folds)[:, None], per_example, 0)
            right = slice(None), self.labels[rows], np.arange(len(x))
            p -= p.max(1, keepdims=True)
            of_right = p[right]
            np.exp(p, out=p)
            total = p.sum(1)
            value += float(np.sum((np.log(total) - of_right) * share, dtype=np.float64))
            p *= (share / total)[:, None]
            p[right] -= share
            kernel += p.reshape(folds * classes, -1) @ x
            bias += p.sum(2)
        gradient = np.empty_like(weights)
        gradient[..., -1] = bias
        gradient[..., :-1] = (kernel.reshape(folds, classes, -1) - bias[..., None] * self.mean) / self.scale
        gradient[..., :-1] += l2 * weights[..., :-1]
        return value, gradient

    def solve(self, l2: float, start: np.ndarray, tolerance: float) -> np.ndarray:
        """Give the weights of the lowest loss, from `start` on, until no part of the gradient is above `tolerance`."""
        from scipy.optimize import minimize

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = self.loss(flat.reshape(start.shape), l2)
            return value, gradient.ravel()

        options = {"maxiter": 1000, "gtol": tolerance, "ftol": 1e-12}
        with _one_thread(small=len(self.labels) * len(self.mean) * 4 <= KEEP):
            found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options)
        return found.x.reshape(start.shape)


def _one_thread(small: bool) -> Any:
    """Keep SciPy's BLAS, and NumPy's too where its products are small, from using threads.

    The two have threads of their own, which take the cores from each other at every step: ten times slower where the
    machine is idle, and a hundred times where it is not.
    """
    from threadpoolctl import ThreadpoolController

    pools = ThreadpoolController().select(user_api="blas")
    if not small:
        pools = pools.select(filepath=[pool.filepath for pool in pools.lib_controllers if "scipy" in pool.filepath])
    return pools.limit(limits=1)


def _unfold(weights: np.ndarray, mean: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Give the weights and biases that do to features what `weights` do to centred and scaled ones."""
    kernel = weights[..., :-1] / scale
    return kernel, weights[..., -1] - kernel @ mean


def _learned(labels: np.ndarray, fold_of: np.ndarray, classes: int) -> np.ndarray:
    held_out = np.bincount(fold_of * classes + labels, minlength=(fold_of.max() + 1) * classes).reshape(-1, classes)
    return held_out.sum(0) - held_out


def _tried(l2: float, held_out: np.ndarray, problem: _Problem) -> Tried:
    labels = problem.labels
    losses = -np.log(np.maximum(held_out[np.arange(len(labels)), labels], 1e-30, dtype=np.float64))
    losses = losses[problem.learned[problem.fold_of, labels] > 0]
    count = max(len(losses), 1)  # with one example of each class there is none: all strengths are equal
    loss = float(np.sum(losses)) / count
    error = float(np.sum((losses - loss) ** 2)) ** 0.5 / count
    return Tried(l2, loss, float(np.mean(held_out.argmax(1) == labels)), error)


def _kept(features: Any, mean: np.ndarray, scale: float) -> tuple[Any, np.ndarray, float]:
    """Give features, and what is left to do to them: a centred and scaled copy, where they are small."""
    if len(features) * len(mean) * 4 > KEEP:
        return features, mean, scale
    copy = np.empty(features.shape, np.float32)
    for rows, x in _slices(features):
        copy[rows] = (x - mean) / scale
    return copy, np.zeros_like(mean), 1.0


def _moments(features: Any) -> tuple[np.ndarray, float]:
    """Give each feature's mean and the root of their average variance, 1 where all are constant (Chan et al. 1979)."""
    mean = squares = np.zeros(())
    for rows, x in _finite(features):
        here = x.mean(0, dtype=np.float64)
        step = here - mean
        squares = squares + np.sum(np.square(x - here), 0) + step**2 * rows.start * len(x) / rows.stop
        mean = mean + step * len(x) / rows.stop
    scale = float(np.sqrt(np.mean(squares) / len(features)))
    constant = scale <= 1e-6 * float(np.abs(mean).max())  # to the precision of float32
    return mean.astype(np.float32), 1.0 if constant else scale


def _folds(labels: np.ndarray, groups: Sequence[Hashable] | None, folds: int, seed: int) -> np.ndarray:
    """Give each example's fold. Groups are shuffled, sorted by label and dealt out: each fold gets its share of it."""
    if folds < 2:
        raise InvalidInput(f"folds is {folds}: 2 or more are needed to hold examples out")
    number: dict[Hashable, int] = {}
    everyone: Iterable[Hashable] = range(len(labels)) if groups is None else groups
    group_of = np.array([number.setdefault(group, len(number)) for group in everyone])
    if len(number) < 2:
        raise InvalidInput("all examples are in one group: 2 or more are needed to hold examples out")
    first = np.unique(group_of, return_index=True)[1]
    order = np.random.default_rng(seed).permutation(len(first))
    order = order[np.argsort(labels[first[order]], kind="stable")]
    fold = np.empty(len(order), np.intp)
    fold[order] = np.arange(len(order)) % folds
    return fold[group_of]


def _checked(features: Any, labels: Any, groups: Sequence[Hashable] | None, classes: int | None = None) -> np.ndarray:
    labels = np.asarray(labels)
    if len(features.shape) != 2 or not features.shape[1]:
        raise InvalidInput(f"features have the shape {tuple(features.shape)}; it must be (examples, features)")
    for name, given in (("labels", labels), ("groups", labels if groups is None else groups)):
        if len(given) != len(features):
            raise InvalidInput(f"there are {len(features)} examples and {len(given)} {name}; each needs one")
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise InvalidInput(f"labels are {labels.dtype} of the shape {labels.shape}; they must be one integer each")
    present = np.unique(labels)
    if len(present) < 2:
        raise InvalidInput(f"all {len(labels)} examples have the same label: 2 or more are needed to tell apart")
    if present[0] < 0 or (classes is not None and present[-1] >= classes):
        allowed = "0 or more" if classes is None else f"from 0 to {classes - 1}"
        raise InvalidInput(f"labels run from {present[0]} to {present[-1]}; they must be {allowed}")
    return labels.astype(np.intp)


def _slices(features: Any) -> Iterator[tuple[slice, np.ndarray]]:
    for start in range(0, len(features), SLICE):
        rows = slice(start, min(start + SLICE, len(features)))
        yield rows, np.asarray(features[rows], np.float32)


def _finite(features: Any) -> Iterator[tuple[slice, np.ndarray]]:
    for rows, x in _slices(features):
        fine = np.isfinite(x).all(1)
        if not fine.all():
            raise InvalidInput(f"features[{rows.start + int(fine.argmin())}] is not all finite: it has nan or infinity")
        yield rows, x


def _softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)
