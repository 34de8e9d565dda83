"""Turn the probabilities of one example into labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tlkit.errors import InvalidInput
from tlkit.evaluation import predictions
from tlkit.evaluation.abstention import Abstention, label_sets
from tlkit.labels import joined

if TYPE_CHECKING:
    import keras

UNSURE = "unsure"
"""The label of an example whose highest probability is below the threshold."""

NOVEL = "none of the classes?"
"""What is said of an example that is like nothing that the model has learned from."""

TOP = 5  # classes that an answer lists
NOT_FINITE = "the network's answer is not a number: its weights are too large or damaged, train it again"


def rounded(probability: float) -> float:
    """Round a probability to the digits that a float32 has.

    >>> rounded(0.12345678901)
    0.1234568
    """
    return float(f"{probability:.7g}")


class Answer(NamedTuple):
    """The answer for one example.

    Args:
        label: Of the most probable class, or `UNSURE`; or, where there may be several, all labels with | between them.
        probability: Of this label, or of the most probable class; where there may be several, of exactly these labels:
            the product of the probabilities that each of them is there and that each other one is not.
        top: The most probable classes with their probabilities; where there may be several labels, all classes.
        label_set: Classes one of which is the right one as often as the model's label sets promise, the most probable
            first; None where the model has no such sets.
        novel: Whether the example is like none that is known; None where the model does not say.
        heatmap: Where in the photo the most probable class is, as a data URI; None where that was not asked for.
    """

    label: str
    probability: float
    top: list[tuple[str, float]]
    label_set: list[str] | None = None
    novel: bool | None = None
    heatmap: str | None = None


def multi_label(model: keras.Model) -> bool:
    """Return whether a model may give an example several labels, or none: it ends in two or more sigmoid units.

    So the model file alone tells, even one that plain Keras saved.

    >>> import keras
    >>> layers = [keras.Input((4,)), keras.layers.Dense(3, activation="sigmoid")]
    >>> multi_label(keras.Sequential(layers))
    True
    """
    import keras

    last = model.layers[-1]
    while isinstance(last, keras.Model):
        last = last.layers[-1]
    return model.output_shape[-1] > 1 and getattr(last, "activation", None) is keras.activations.sigmoid


def ranked(probabilities: np.ndarray, classes: Sequence[str], count: int = TOP) -> list[tuple[str, float]]:
    """Return the most probable classes of one example, the most probable first.

    Shapes:
        probabilities: (classes,), or (1,) from a single sigmoid unit for two classes

    Raises:
        InvalidInput: a probability is not a number.

    >>> ranked(np.array([0.25]), ["cat", "dog"])
    [('cat', 0.75), ('dog', 0.25)]
    """
    if not np.isfinite(probabilities).all():
        raise InvalidInput(NOT_FINITE)
    shares = probabilities if len(probabilities) > 1 else np.array([1 - probabilities[0], probabilities[0]])
    best = np.argsort(-shares, kind="stable")[:count]
    return [(classes[index], float(shares[index])) for index in best]


def answer(
    probabilities: np.ndarray,
    classes: Sequence[str],
    several: bool = False,
    abstention: Abstention = Abstention(),  # noqa: B008  it cannot be changed
) -> Answer:
    """Return the label of one example, its probability, and the most probable classes.

    Args:
        probabilities: Of the example, shape (classes,); with `abstention.novelty`, one number more: its distance from
            the nearest known example, from a model of `with_novelty`.
        classes: Their names.
        several: Whether it may have several labels, or none: those with a probability above 0.5.
        abstention: When no single class is said.

    >>> answer(np.array([0.9, 0.2, 0.5]), ["cat", "dog", "sofa"], several=True)[:3]
    ('cat', 0.36000000000000004, [('cat', 0.9), ('sofa', 0.5), ('dog', 0.2)])
    >>> answer(np.array([0.6, 0.4]), ["cat", "dog"], abstention=Abstention(threshold=0.8)).label
    'unsure'
    """
    novel = None
    if abstention.novelty is not None:
        novel, probabilities = bool(probabilities[-1] > abstention.novelty), probabilities[:-1]
    if not several:
        top = ranked(probabilities, classes)
        label = UNSURE if abstention.threshold is not None and top[0][1] < abstention.threshold else top[0][0]
        return Answer(label, top[0][1], top, _label_set(probabilities, classes, abstention), novel)
    positive = probabilities > 0.5
    share = float(predictions.of_labels(probabilities[None], positive[None])[0])
    return Answer(joined(positive.tolist(), classes), share, ranked(probabilities, classes, len(classes)), novel=novel)


def _label_set(probabilities: np.ndarray, classes: Sequence[str], abstention: Abstention) -> list[str] | None:
    if abstention.set_threshold is None:
        return None
    ranking = ranked(probabilities, classes, len(classes))
    inside = label_sets(np.array([[share for _, share in ranking]]), abstention.set_threshold)[0]
    return [name for (name, _), is_in in zip(ranking, inside, strict=True) if is_in]
