"""Whether an export answers as the model that it was made from: on the same examples, number by number."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tlkit.errors import Unavailable
from tlkit.evaluation import predictions

DISTANCE = 1e-4  # maximum difference of a probability, of an export in float32
AGREEMENT = 0.9  # minimum share of equal labels, of one in int8


class Unequal(Unavailable):
    """An export that answers otherwise than its model; the command line exits with status 1."""


class Examples(NamedTuple):
    """What a model and its export are compared on.

    Args:
        values: Shape (n, *shape of an example).
        labels: (n,), positions in the classes, or (n, classes), zeros and ones; None where nobody knows them.
        what: In words, such as "149 test photos of the run".
        groups: The group of each, such as its patient; None where there are none.
    """

    values: np.ndarray
    labels: np.ndarray | None
    what: str
    groups: list[str] | None = None


class Parity(NamedTuple):
    """How an export and its model compare.

    Args:
        examples: Number of examples.
        largest: Largest difference of a probability.
        agreement: Share of examples with equal labels.
        before: Accuracy of the model; multi-label, the share of exact matches. None without labels.
        after: That of the export.
        paired: The paired test of the two.
    """

    examples: int
    largest: float
    agreement: float
    before: float | None = None
    after: float | None = None
    paired: predictions.Paired | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the numbers by name; those that are not known are null."""
        return self._asdict() | {"paired": self.paired and {**self.paired._asdict(), "test": self.paired.test}}


def compare(model: np.ndarray, export: np.ndarray, several: bool, examples: Examples) -> Parity:
    """Compare what a model and its export say.

    Args:
        model: Probabilities, shape (n, classes), or (n, 1) from a single sigmoid unit.
        export: Those of the export.
        several: Whether an example may have several labels; see `tlkit.serving.multi_label`.
        examples: What they were asked about.

    >>> values, labels = np.zeros((2, 4)), np.array([0, 1])
    >>> first, second = np.array([[0.9, 0.1], [0.45, 0.55]]), np.array([[0.9, 0.1], [0.5, 0.5]])
    >>> found = compare(first, second, False, Examples(values, labels, "two examples"))
    >>> round(found.largest, 6), found.agreement, found.before, found.after, found.paired.p_value
    (0.05, 0.5, 1.0, 0.5, 1.0)
    """
    if model.shape != export.shape:
        raise Unequal(f"the export's outputs are of shape {export.shape}, and the model's of {model.shape}")
    largest = float(np.abs(model.astype(np.float64) - export).max())  # nan where there is one
    ours, theirs = labels_of(model, several), labels_of(export, several)
    found = Parity(len(model), largest, float(_equal(ours, theirs).mean()))
    if examples.labels is None:
        return found
    right, still = _equal(ours, examples.labels), _equal(theirs, examples.labels)
    paired = predictions.mcnemar(right, still, examples.groups)
    return found._replace(before=float(right.mean()), after=float(still.mean()), paired=paired)


def labels_of(probabilities: np.ndarray, several: bool) -> np.ndarray:
    """Return the position of the label of each example, or for each class whether it is one."""
    if several:
        return probabilities > 0.5
    return probabilities.argmax(axis=1) if probabilities.shape[1] > 1 else (probabilities[:, 0] > 0.5).astype(int)


def _equal(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    same = first == second
    return same.all(axis=1) if same.ndim == 2 else same


def check(name: str, found: Parity, int8: bool, accept: bool) -> None:
    """Refuse an export that answers otherwise than its model.

    Args:
        name: Of the format.
        found: How they compare.
        int8: Whether it is in int8.
        accept: Whether the user takes it as it is.

    Raises:
        Unequal: the message says by how much.
    """
    if accept:
        return
    remedy = "nothing is written; --accept writes it all the same"
    if not int8 and not found.largest <= DISTANCE:
        raise Unequal(f"{name}: probabilities differ by up to {found.largest:.2g}, more than {DISTANCE:g}: {remedy}")
    if int8 and (not found.agreement >= AGREEMENT or not np.isfinite(found.largest)):
        share = f"only {found.agreement:.1%} of the labels are those of the model, fewer than {AGREEMENT:.0%}"
        raise Unequal(f"{name} in int8: {share}: {remedy}")


def random_examples(shape: tuple[int, ...], count: int, photos: bool) -> np.ndarray:
    """Make examples without content: noise, and for photos also smooth patches, as noise alone looks all the same.

    Shapes:
        shape: of one example, (*space, channels)
        returns: (count, *shape), from 0 to 255 for photos, else from -1 to 1

    >>> random_examples((8, 8, 3), 4, photos=True).shape
    (4, 8, 8, 3)
    """
    rng = np.random.default_rng(0)
    if not photos:
        return rng.uniform(-1, 1, (count, *shape)).astype(np.float32)
    values = rng.integers(0, 256, (count, *shape)).astype(np.float32)
    for number in range(1, count, 2):
        side = 2 + number % 7
        coarse = rng.integers(0, 256, (side, side, shape[-1]))
        rows, columns = (np.arange(length) * side // length for length in shape[:2])
        values[number] = coarse[rows][:, columns]
    return values
