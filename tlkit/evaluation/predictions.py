"""A model's predictions for each example of a split, as a table that MLflow stores, and how two of them compare."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tlkit import untrusted
from tlkit.display import shown
from tlkit.errors import InvalidInput
from tlkit.labels import joined

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILE = "predictions.json"
"""The artifact's name, the same in every run, so that MLflow shows the tables of several runs side by side."""


class Predictions(NamedTuple):
    """A model's predictions on a split; one entry for each example, in the split's order.

    Args:
        split: `test` or `validation`.
        files: Names of the examples.
        digests: Content hashes: the same file has the same one in every run.
        labels: The right classes, by name; multi-label, all of an example's, with | between them.
        predicted: The most probable classes, by name; multi-label, all whose probability is above 0.5.
        probability_of_label: Probability that the model gave to the right class; multi-label, see `of_labels`.
        correct: Whether the prediction is right; multi-label, whether it is an exact match.
        groups: The group of each, such as its patient; None where the data have no groups.
    """

    split: str
    files: list[str]
    digests: list[str]
    labels: np.ndarray
    predicted: np.ndarray
    probability_of_label: np.ndarray
    correct: np.ndarray
    groups: list[str] | None = None


class Paired(NamedTuple):
    """Two classifiers on the same examples.

    Args:
        examples: Number of examples.
        only_first: Examples that the first gets right and the second wrong.
        only_second: Examples that the second gets right and the first wrong.
        p_value: Two-sided p-value: how often a difference at least as large would come by chance if both were equally
            good.
        groups: Number of groups that are swapped as wholes; None if each example is swapped for itself.
    """

    examples: int
    only_first: int
    only_second: int
    p_value: float
    groups: int | None = None

    @property
    def test(self) -> str:
        """The test's name."""
        return "McNemar's exact test" if self.groups is None else f"exact permutation test of {self.groups} groups"


def table(
    split: str,
    names: Sequence[str],
    hashes: Sequence[str],
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    groups: Sequence[str] | None = None,
) -> dict[str, list[Any]]:
    """Make the table of predictions, column by column, as `mlflow.log_table` takes it.

    Args:
        split: `test` or `validation`.
        names: Names of the examples.
        hashes: Content hashes of the examples.
        labels: Shape (examples,), the right class of each. Multi-label: (examples, classes), zeros and ones.
        probabilities: Shape (examples, classes).
        classes: Names of the classes.
        groups: The group of each example, for one more column.

    Multi-label, `label` and `predicted` name all classes of an example, with | between them, or none; a probability is
    that of exactly these, see `of_labels`, and `correct` is an exact match.

    Raises:
        ValueError: the lengths disagree, or a probability is not finite.

    >>> columns = table("test", ["a.png"], ["0f"], np.array([0]), np.array([[0.25, 0.75]]), ["cat", "dog"])
    >>> {name: values[0] for name, values in columns.items() if name not in ("file", "digest", "split")}
    {'label': 'cat', 'predicted': 'dog', 'probability': 0.75, 'probability_of_label': 0.25, 'correct': False}
    """
    count = len(labels)
    lengths = len(names), len(hashes), probabilities.shape
    if lengths != (count, count, (count, len(classes))):
        raise ValueError(
            f"{count} labels go with {count} names, {count} hashes and probabilities of shape ({count}, "
            f"{len(classes)}), not with {lengths[0]}, {lengths[1]} and {lengths[2]}"
        )
    if not np.isfinite(probabilities).all():
        raise ValueError("a probability is not finite: such a model predicts nothing")
    examples = {"file": [shown(name) for name in names], "digest": list(hashes), "split": [split] * count}
    if groups is not None:
        examples["group"] = [shown(group) for group in groups]
    if labels.ndim == 2:
        true, predicted = labels > 0.5, probabilities > 0.5
        return {
            **examples,
            "label": [shown(joined(row, classes)) for row in true.tolist()],
            "predicted": [shown(joined(row, classes)) for row in predicted.tolist()],
            "probability": of_labels(probabilities, predicted).tolist(),
            "probability_of_label": of_labels(probabilities, true).tolist(),
            "correct": (true == predicted).all(axis=1).tolist(),
        }
    rows, best = np.arange(count), probabilities.argmax(axis=1)
    return {
        **examples,
        "label": [shown(classes[index]) for index in labels],
        "predicted": [shown(classes[index]) for index in best],
        "probability": [float(share) for share in probabilities[rows, best]],
        "probability_of_label": [float(share) for share in probabilities[rows, labels]],
        "correct": [bool(right) for right in best == labels],
    }


def of_labels(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the probability that each example has exactly these labels, from the probability of each label.

    It is the product of the probabilities that each of them is there and that each other is not: a multi-label model
    takes labels as independent given the example, and learns the logarithm of this. It falls as classes are added.

    Shapes:
        probabilities, labels: (examples, classes), labels being zeros and ones
        returns: (examples,)

    >>> of_labels(np.array([[0.9, 0.2], [0.9, 0.2]]), np.array([[1, 0], [0, 0]])).round(2).tolist()
    [0.72, 0.08]
    """
    return np.where(labels, probabilities, 1 - probabilities.astype(np.float64)).prod(axis=1)


def read(run_id: str, client: MlflowClient | None = None) -> Predictions | None:
    """Read the predictions that a run has logged; None where it has none, or another tool's under the same name.

    Args:
        run_id: Id of the run.
        client: Of its store; by default of the one that MLflow is set to.
    """
    import mlflow

    client, run_id = client or mlflow.MlflowClient(), untrusted.identifier(run_id, "the run's id")
    if FILE not in {artifact.path for artifact in client.list_artifacts(run_id)}:
        return None
    with tempfile.TemporaryDirectory() as folder:
        text = Path(client.download_artifacts(run_id, FILE, folder)).read_bytes()
    try:
        # Not by pandas, which would read a digest such as 1e5 as a number and a name such as 2024-01-01 as a date.
        table = json.loads(text)
        names = table["columns"]
        columns = {name: [row[place] for row in table["data"]] for place, name in enumerate(names)}
        return of_table(columns, columns["split"][0])
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return None


def of_table(columns: Mapping[str, Sequence[Any]], split: str) -> Predictions:
    """Give the predictions of a table, as `table` makes its columns."""
    return Predictions(
        split=split,
        files=list(columns["file"]),
        digests=list(columns["digest"]),
        labels=np.array(columns["label"], dtype=str),
        predicted=np.array(columns["predicted"], dtype=str),
        probability_of_label=np.array(columns["probability_of_label"], dtype=float),
        correct=np.array(columns["correct"], dtype=bool),
        groups=list(map(str, columns["group"])) if "group" in columns else None,
    )


def mcnemar(first: np.ndarray, second: np.ndarray, groups: Sequence[str] | np.ndarray | None = None) -> Paired:
    """Compare two classifiers by McNemar's test (1947), exact: a binomial test on the examples where they differ.

    Examples of one group are not independent. With groups, the two classifiers are swapped on whole groups, in all
    possible ways: an exact permutation test, which is McNemar's where each group has one example.

    Args:
        first: Shape (examples,), whether the first has each example right.
        second: The same of the second, in the same order.
        groups: Shape (examples,), the group of each.

    Raises:
        ValueError: the shapes disagree.

    >>> right = np.ones(20, dtype=bool)
    >>> mcnemar(right, np.arange(20) >= 6)
    Paired(examples=20, only_first=6, only_second=0, p_value=0.03125, groups=None)
    >>> mcnemar(right, np.arange(20) >= 6, np.arange(20) // 3).p_value  # the six are of two groups
    0.5
    """
    from scipy import special

    if first.shape != second.shape:
        raise ValueError(f"the shapes are {first.shape} and {second.shape}; both must be of the same examples")
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    if groups is not None:
        place = np.unique(np.asarray(groups), return_inverse=True)[1]
        differences = np.bincount(place, first.astype(int) - second.astype(int)).round().astype(int)
        return Paired(len(first), only_first, only_second, _swapped(differences), len(differences))
    differ = only_first + only_second
    p_value = min(1.0, 2 * float(special.bdtr(min(only_first, only_second), differ, 0.5))) if differ else 1.0
    return Paired(len(first), only_first, only_second, p_value)


def _swapped(differences: np.ndarray) -> float:
    """Return the share of all choices of signs by which the sum is at least as far from zero as it is.

    Shapes:
        differences: (groups,), integers
    """
    shares, reach = np.ones(1), 0  # of the sums from -reach to reach
    for step in np.abs(differences[differences != 0]).tolist():
        wider = np.zeros(len(shares) + 2 * step)
        wider[: len(shares)] += shares / 2
        wider[2 * step :] += shares / 2
        shares, reach = wider, reach + step
    return float(min(1.0, shares[np.abs(np.arange(-reach, reach + 1)) >= abs(differences.sum())].sum()))


def same_examples(first: Predictions, second: Predictions) -> bool:
    """Tell whether two are of the same examples with the same labels, in any order."""
    return first.split == second.split and Counter(_keys(first)) == Counter(_keys(second))


def paired(first: Predictions, second: Predictions) -> Paired:
    """Compare two models' predictions for the same examples, in any order, by McNemar's test; see `mcnemar`.

    Multi-label, an example is right where all of its labels are. Where either has groups, these count.

    Raises:
        InvalidInput: the examples differ.
    """
    if not same_examples(first, second):
        raise InvalidInput(
            f"the first has {len(first.correct)} examples of a {first.split} split, the second {len(second.correct)} "
            f"of a {second.split} split, and they are not the same with the same labels: only predictions of the same "
            "examples can be compared in pairs"
        )
    groups = next((np.array(each.groups)[_order(each)] for each in (first, second) if each.groups), None)
    return mcnemar(first.correct[_order(first)], second.correct[_order(second)], groups)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, in their order, by Holm's method (1979).

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _keys(predictions: Predictions) -> list[tuple[str, str]]:
    return list(zip(predictions.digests, predictions.labels.tolist(), strict=True))


def _order(predictions: Predictions) -> list[int]:
    keys = _keys(predictions)
    return sorted(range(len(keys)), key=keys.__getitem__)  # stable: equal examples stay in their order
