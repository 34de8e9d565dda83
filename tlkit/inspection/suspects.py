"""Suspected wrong labels and outliers, by features of a pretrained network."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from tlkit import probes
from tlkit.probes.features import Features, checked, finite, moments
from tlkit.probes.novelty import unit

NEIGHBOURS = 30  # of 15 to 80 the best, on four sets of photos with 5 % of the labels changed
TEMPERATURE = 0.1  # of their votes: a neighbour that is this much less similar than the nearest counts 1 / e of it
REFERENCES = 10_000  # among which neighbours are looked for, so that the time grows with the number of examples alone
KERNEL = 4_000  # examples up to which a kernel is solved: 5 s of a core and 0.5 GB; of more, logistic regression
LEARNED = 20_000  # examples that logistic regression learns from at the most, and all of their groups
BLOCK = 1024  # examples whose similarities are in memory at a time
SUSPECT = 0.03  # a label that is less probable than this is listed
NEAREST = 5  # neighbours that an outlier is far from
TOLD = 1 / 3  # of the way from chance to perfect that features must tell classes apart to say which label is wrong
FAR = 5.0  # median absolute deviations beyond the median distance from which on an example is an outlier
LEAST = 20  # examples from which on either is looked for


class Neighbours(NamedTuple):
    """The examples that look most alike, none of them of the same group.

    Args:
        places: Shape (examples, k): positions, the most similar first.
        similarity: Shape (examples, k), float32: cosine around the mean, from -1 to 1; -2 where there are fewer than k.
        distance: Shape (examples,), float32: 1 minus the mean cosine to the nearest five, of the features as they are:
            around the mean, what is like nothing else lies no farther from the others than these from each other.
    """

    places: np.ndarray
    similarity: np.ndarray
    distance: np.ndarray


class Suspicion(NamedTuple):
    """What the examples themselves say of their labels.

    Args:
        probability: Shape (examples,): of the label that each has, 0 to 1; the lowest are the most suspect.
        likely: Shape (examples,): the class that is most probable.
    """

    probability: np.ndarray
    likely: np.ndarray

    def told(self, labels: np.ndarray) -> float:
        """Return how well classes are told apart: balanced accuracy, scaled so that chance is 0 and perfect is 1."""
        present = np.unique(labels)
        right = float(np.mean([np.mean(self.likely[labels == label] == label) for label in present]))
        return (right - 1 / len(present)) / (1 - 1 / len(present))

    def listed(self, labels: np.ndarray) -> np.ndarray:
        """Return the positions of suspected wrong labels, the most suspect first."""
        order = np.argsort(self.probability, kind="stable")
        return order[(self.probability[order] < SUSPECT) & (self.likely[order] != labels[order])]


def neighbours(
    features: Features, groups: Sequence[Hashable], k: int = NEIGHBOURS, most: int = REFERENCES, seed: int = 0
) -> Neighbours:
    """Find the nearest examples of other groups, by the cosine of the features around their mean.

    Args:
        features: Shape (examples, features).
        groups: The group of each example.
        k: Number of neighbours.
        most: Of more examples than this, neighbours are looked for in a random sample of as many.
        seed: Decides which those are.

    Raises:
        InvalidInput: features are not finite.

    >>> neighbours(np.float32([[1, 0], [1, 0.1], [-1, 0], [-1, 0.1]]), list("abcd"), k=1).places.tolist()
    [[1], [0], [3], [2]]
    """
    number: dict[Hashable, int] = {}
    group = np.array([number.setdefault(each, len(number)) for each in groups], np.int64)
    mean, _ = moments(features)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(features))[:most])
    known = np.concatenate([part[np.isin(np.arange(rows.start, rows.stop), chosen)] for rows, part in finite(features)])
    centered, plain = unit(known - mean), unit(known)
    k = max(1, min(k, len(known) - 1))
    places = np.empty((len(features), k), np.int64)
    similarity = np.empty((len(features), k), np.float32)
    distance = np.empty(len(features), np.float32)
    for start in range(0, len(features), BLOCK):
        rows = slice(start, min(start + BLOCK, len(features)))
        x = np.asarray(features[rows], np.float32)
        cosine = unit(x - mean) @ centered.T
        cosine[group[rows][:, None] == group[chosen]] = -2
        nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        nearest = np.take_along_axis(nearest, np.argsort(-np.take_along_axis(cosine, nearest, 1), 1, kind="stable"), 1)
        places[rows], similarity[rows] = chosen[nearest], np.take_along_axis(cosine, nearest, 1)
        distance[rows] = 1 - np.einsum("nkf,nf->nk", plain[nearest[:, :NEAREST]], unit(x)).mean(axis=1)
    return Neighbours(places, similarity, distance)


def suspicion(
    features: Features,
    labels: Sequence[int] | np.ndarray,
    classes: int,
    *,
    groups: Sequence[Hashable],
    blocks: Sequence[int] | None = None,
    near: Neighbours | None = None,
    seed: int = 0,
) -> Suspicion:
    """Compute how probable each example's label is, from examples that are not of its group.

    It is the product of two opinions, scaled to add up to 1 over the classes: the probabilities of kernel ridge
    regression that did not learn from the example (`probes.kernel_ridge`; for more than 4,000 examples
    `probes.logistic_regression`, on a sample of 20,000), and the votes of its 30 nearest neighbours.
    With 5 % of the labels changed at random, more of those with the lowest product are wrong ones, as a mean of four
    sets, than by either alone, by logistic regression in place of the kernel, or by cleanlab's scores of any of them;
    see benchmarks/suspects.py.

    Args:
        features: Shape (examples, features).
        labels: Shape (examples,), from 0 to classes - 1.
        classes: Number of classes.
        groups: The group of each example, such as its hash: no example has a say on others of its group.
        blocks: Widths of consecutive blocks of features, such as those of several stages of a network
            (`backbones.pooled_widths`): the kernel is the mean of one for each.
        near: The neighbours, where they are known already.
        seed: Decides the folds of the regression.

    Raises:
        InvalidInput: as for `probes.logistic_regression`.

    >>> features = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    >>> labels = (features[:, 0] > 0).astype(int)
    >>> labels[7] = 1 - labels[7]
    >>> int(suspicion(features, labels, 2, groups=range(100)).probability.argmin())
    7
    """
    labels = checked(features, labels, list(groups), classes)
    near = near or neighbours(features, groups, seed=seed)
    if len(labels) <= KERNEL:
        probabilities = probes.kernel_ridge(features, labels, classes, groups=groups, blocks=blocks, seed=seed)
    else:
        probabilities = _by_logistic_regression(features, labels, classes, list(groups), seed)
    together = np.log(np.maximum(probabilities, 1e-12)) + np.log(votes(near, labels, classes))
    odds = np.exp(together - together.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    return Suspicion(odds[np.arange(len(labels)), labels], odds.argmax(axis=1))


def _by_logistic_regression(
    features: Features, labels: np.ndarray, classes: int, groups: list[Hashable], seed: int
) -> np.ndarray:
    """Predict each example by a probe that did not learn from its group: shape (examples, classes)."""
    if len(labels) <= LEARNED:
        return probes.logistic_regression(features, labels, classes, groups=groups, seed=seed).held_out
    order = np.random.default_rng(seed).permutation(len(labels))
    drawn = {groups[place] for place in order[:LEARNED]}
    learned = np.array([group in drawn for group in groups])
    some = np.concatenate([part[learned[rows]] for rows, part in finite(features)])
    own = [group for group in groups if group in drawn]
    probe = probes.logistic_regression(some, labels[learned], classes, groups=own, seed=seed)
    probabilities = probe.probabilities(features)
    probabilities[learned] = probe.held_out
    return probabilities


def votes(near: Neighbours, labels: np.ndarray, classes: int) -> np.ndarray:
    """Let neighbours vote on the class of each example, those that are more similar for more.

    Shapes:
        labels: (examples,)
        returns: (examples, classes); each row sums to 1, and no class has less than 1 % of an equal share

    >>> near = Neighbours(np.array([[1, 2]]), np.float32([[0.9, 0.9]]), np.float32([0.1]))
    >>> votes(near, np.array([0, 0, 1]), 2).round(2).tolist()
    [[0.5, 0.5]]
    """
    weight = np.exp((near.similarity - near.similarity[:, :1]) / TEMPERATURE)
    weight = np.where(near.similarity < -1.5, 0, weight)
    given = labels[near.places]
    shares = np.stack([np.sum(weight * (given == label), axis=1) for label in range(classes)], axis=1)
    shares += 0.01 * np.maximum(weight.sum(axis=1, keepdims=True), 1e-12) / classes
    result: np.ndarray = shares / shares.sum(axis=1, keepdims=True)
    return result


def outliers(distance: np.ndarray) -> np.ndarray:
    """Return the positions of examples that are far from all others, the farthest first.

    An example is where its distance lies more than five median absolute deviations beyond the median. Of more than 2 %
    of the examples the farthest 2 % are.

    Shapes:
        distance: (examples,), of `Neighbours`

    >>> outliers(np.append(np.linspace(0.1, 0.2, 30), 0.9)).tolist()
    [30]
    """
    middle = float(np.median(distance))
    deviation = float(np.median(np.abs(distance - middle)))
    order = np.argsort(-distance, kind="stable")
    far: np.ndarray = order[distance[order] > middle + FAR * max(deviation, 1e-6)]
    return far[: max(1, len(distance) // 50)]
