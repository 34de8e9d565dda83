"""Whether probabilities mean what they say, and the temperature that makes them mean it.

An example may have one label: its probabilities sum to 1, and labels are positions. Or several labels, or none: each
class has a probability of its own, and labels are zeros and ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tlkit.evaluation.intervals import group_of, standard_error

LEAST = 1e-12  # probability of which a logarithm is taken
WIDEST = 10.0  # a temperature lies between this and its inverse
FEWEST = 20  # examples from which on a temperature is fitted
FOLDS = 5
CLEAR = 2  # standard errors


class Calibration(NamedTuple):
    """A temperature, and what it does for examples that it was not fitted on.

    Args:
        temperature: By which logits are divided; 1 where no other is clearly better.
        fitted: The temperature that was fitted, whether or not it is clearly better.
        difference: Mean change of the log loss by cross-validation, below 0 where `fitted` is better.
        error: Its standard error.
        probabilities: Shape of the probabilities: each example's at the temperature of the other folds, for an honest
            score of the examples themselves. As they were where `temperature` is 1.
    """

    temperature: float
    fitted: float
    difference: float
    error: float
    probabilities: np.ndarray


def logits(probabilities: np.ndarray, several: bool = False) -> np.ndarray:
    """Turn probabilities back into logits, up to a constant for each example.

    Shapes:
        probabilities: (examples, classes); (examples, 1) is a sigmoid unit for two classes
        returns: the same, float64
    """
    shares = np.clip(probabilities.astype(np.float64), LEAST, 1)
    if several or shares.shape[1] == 1:
        shares = np.minimum(shares, 1 - LEAST)
        return np.log(shares) - np.log1p(-shares)
    return np.log(shares)


def tempered(probabilities: np.ndarray, temperature: float, several: bool = False) -> np.ndarray:
    """Divide the logits of probabilities by a temperature; the order of an example's classes stays.

    Args:
        probabilities: Shape (examples, classes); (examples, 1) is a sigmoid unit for two classes.
        temperature: Above 0; 1 changes nothing.
        several: Whether an example may have several labels.

    >>> tempered(np.array([[0.9, 0.1]]), 2.0).round(2).tolist(), tempered(np.array([[0.9]]), 2.0).round(2).tolist()
    ([[0.75, 0.25]], [[0.75]])
    """
    if temperature == 1:
        return probabilities
    powers = logits(probabilities, several) / temperature
    if several or powers.shape[1] == 1:
        odds: np.ndarray = 1 / (1 + np.exp(-powers))
        return odds
    powers = np.exp(powers - powers.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def log_losses(logits: np.ndarray, targets: np.ndarray, several: bool = False) -> np.ndarray:
    """Compute the log loss of each example from logits.

    Args:
        logits: Shape (examples, classes); (examples, 1) is a sigmoid unit for two classes.
        targets: Shape (examples,), the right class of each; or (examples, classes), the probability of each class.
        several: Whether each class is there or not by itself; the loss is then the mean over the classes.

    >>> log_losses(np.array([[0.0, 0.0]]), np.array([1])).round(3).tolist()
    [0.693]
    """
    if several or logits.shape[1] == 1:
        binary: np.ndarray = (np.logaddexp(0, logits) - targets.reshape(logits.shape) * logits).mean(axis=1)
        return binary
    top = logits.max(axis=1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    right = logits[np.arange(len(targets)), targets] if targets.ndim == 1 else (targets * logits).sum(axis=1)
    losses: np.ndarray = total - right
    return losses


def crossentropy(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the log loss of each example; where it may have several labels, the binary one, averaged over them.

    Shapes:
        probabilities: (examples, classes)
        labels: (examples,), the right class of each; or (examples, classes), zeros and ones
        returns: (examples,)

    >>> crossentropy(np.array([[0.5, 0.5]]), np.array([1])).round(3).tolist()
    [0.693]
    """
    if labels.ndim == 2:
        return binary_crossentropy(probabilities, labels)
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    losses: np.ndarray = -np.log(np.clip(of_label, LEAST, 1))
    return losses


def binary_crossentropy(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the binary cross-entropy of each example, averaged over its labels.

    Shapes:
        probabilities, labels: (examples, classes)
        returns: (examples,)

    >>> binary_crossentropy(np.array([[0.5, 0.5]]), np.array([[0, 1]])).round(3).tolist()
    [0.693]
    """
    of_label = np.where(labels, probabilities, 1 - probabilities.astype(np.float64))
    return -np.log(np.clip(of_label, LEAST, 1)).mean(axis=1)


def temperature(logits: np.ndarray, targets: np.ndarray, several: bool = False) -> float:
    """Fit the temperature of the lowest log loss (Guo et al. 2017, arXiv:1706.04599), from 0.1 to 10.

    Args:
        logits: As for `log_losses`, whose mean over the examples has one minimum.
        targets: As for `log_losses`; probabilities, such as those of another model, are imitated.
        several: As for `log_losses`.

    >>> sure = np.array([[9.0, 0.0]] * 3 + [[0.0, 9.0]])  # of four that are said to be certain, one is wrong
    >>> fitted = temperature(sure, np.array([0, 0, 0, 0]))
    >>> tempered(np.array([[np.exp(9) / (1 + np.exp(9)), 1 / (1 + np.exp(9))]]), fitted).round(2).tolist()
    [[0.75, 0.25]]
    """
    from scipy import optimize

    logits = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        return float(log_losses(logits / np.exp(log_temperature), targets, several).mean())

    limit = float(np.log(WIDEST))
    return float(np.exp(optimize.minimize_scalar(loss, bounds=(-limit, limit), method="bounded").x))


def calibrate(
    probabilities: np.ndarray,
    labels: np.ndarray,
    several: bool = False,
    groups: Sequence[str] | np.ndarray | None = None,
    seed: int = 0,
) -> Calibration:
    """Fit a temperature on examples that the model did not learn from, and keep it only where it clearly helps.

    It helps where the cross-validated log loss falls by more than two standard errors: with one, a temperature was kept
    that raised the loss on new photos. A temperature and an offset for each class (vector scaling) raised the
    cross-validated loss on all of 15 pairs of a data set and a network; see benchmarks/calibration.py. Of fewer than 20
    examples nothing is fitted.

    Args:
        probabilities: Shape (examples, classes), of validation examples or out of fold.
        labels: Shape (examples,), or (examples, classes) with `several`.
        several: Whether an example may have several labels.
        groups: Shape (examples,), the group of each, which is held out as a whole.
        seed: Decides the folds.

    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 3, 500)
    >>> scores = 2 * np.eye(3)[labels] + rng.normal(size=(500, 3))
    >>> shares = np.exp(2 * scores) / np.exp(2 * scores).sum(axis=1, keepdims=True)  # what Bayes' rule makes of them
    >>> round(1 / calibrate(tempered(shares, 4.0), labels).temperature, 1), calibrate(shares, labels).temperature
    (4.3, 1.0)
    """
    if len(labels) < FEWEST:
        return Calibration(1.0, 1.0, 0.0, 0.0, probabilities)
    scores = logits(probabilities, several)
    place = group_of(len(labels), groups)
    fold_of = (np.random.default_rng(seed).permutation(int(place.max()) + 1) % FOLDS)[place]
    held = np.array(probabilities, np.float64)
    for fold in np.unique(fold_of):
        out = fold_of == fold
        if not out.all():
            held[out] = tempered(probabilities[out], _fitted(scores[~out], labels[~out], several), several)
    differences = log_losses(logits(held, several), labels, several) - log_losses(scores, labels, several)
    difference, error = float(differences.mean()), standard_error(differences, groups)
    fitted = _fitted(scores, labels, several)
    if difference < -CLEAR * error:
        return Calibration(fitted, fitted, difference, error, held)
    return Calibration(1.0, fitted, difference, error, probabilities)


def _fitted(scores: np.ndarray, labels: np.ndarray, several: bool) -> float:
    """Fit a temperature as if each example were wrong once in as many examples as there are, and two more.

    After Platt (1999, Probabilistic outputs for support vector machines, section 2.2), who counts by class. Where no
    example is wrong, the loss otherwise falls for ever with the temperature, and the first new photo that is wrong
    costs more than was gained.
    """
    wrong = 1 / (len(labels) + 2)
    if several or scores.shape[1] == 1:
        return temperature(scores, wrong + (1 - 2 * wrong) * labels.reshape(scores.shape), several)
    targets = np.full(scores.shape, wrong / (scores.shape[1] - 1))
    targets[np.arange(len(labels)), labels] = 1 - wrong
    return temperature(scores, targets, several)
