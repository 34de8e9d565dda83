"""Losses and accuracies of logits that take labels in any form: integers, probabilities, zeros and ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

SMALLEST = 1e-7  # of 1 - p, whose power has no finite slope at 0


def crossentropy(
    *,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    class_weights: Sequence[float] | None = None,
    multi_label: bool = False,
) -> Callable[[Any, Any], Any]:
    """Make the cross-entropy of labels and logits, in float32 and for each example.

    Two or more logits are those of a softmax, one is that of a sigmoid, for the second of two classes. With
    `multi_label` each logit is that of a sigmoid, and the loss is the mean over all. Labels may be integers or
    probabilities, as MixUp makes them, from one batch to the next.

    Args:
        label_smoothing: Share of the label spread over all classes (arXiv:1512.00567); of a sigmoid, over its two.
        focal_gamma: Of the focal loss (arXiv:1708.02002, without its alpha): each class's term is multiplied by
            (1 - p) ** gamma, where p is what the class is predicted with. 0 is plain cross-entropy.
        class_weights: What each class's examples count; where labels are probabilities, the mean by them. With
            `multi_label` a label that is there counts so much, one that is not counts 1.
        multi_label: Whether an example may have several labels or none.

    Shapes:
        labels: (*shape) or (*shape, 1), integers; or (*shape, classes), probabilities, as always with `multi_label`
        logits: (*shape, classes) or (*shape, 1)
        returns: (*shape)

    >>> loss = crossentropy(label_smoothing=0.1)
    >>> labels, logits = np.array([0, 1]), np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    >>> [round(float(each), 3) for each in loss(labels, logits)]
    [0.373, 1.099]
    >>> [round(float(each), 3) for each in loss(np.eye(3)[labels], logits)]
    [0.373, 1.099]
    """

    def crossentropy(labels: Any, logits: Any) -> Any:
        logits = ops.cast(ops.convert_to_tensor(logits), "float32")
        classes = logits.shape[-1]
        wanted = _probabilities(labels, logits, multi_label)
        weights = None if class_weights is None else ops.convert_to_tensor(class_weights, "float32")
        if multi_label or classes == 1:
            smoothed = wanted * (1 - label_smoothing) + label_smoothing / 2
            yes, no = ops.log_sigmoid(logits), ops.log_sigmoid(-logits)
            # Powers of 1 - p by its logarithm, which is `no`: nothing overflows, and every slope is finite.
            loss = -smoothed * yes * ops.exp(focal_gamma * no) - (1 - smoothed) * no * ops.exp(focal_gamma * yes)
            if weights is not None and multi_label:
                loss = loss * (1 + wanted * (weights - 1))
            elif weights is not None:
                loss = loss * (weights[0] + wanted * (weights[1] - weights[0]))
            return ops.mean(loss, axis=-1)
        smoothed = wanted * (1 - label_smoothing) + label_smoothing / classes
        logs = ops.log_softmax(logits, axis=-1)
        terms = -smoothed * logs
        if focal_gamma:
            terms = terms * ops.maximum(-ops.expm1(logs), SMALLEST) ** focal_gamma
        loss = ops.sum(terms, axis=-1)
        return loss if weights is None else loss * ops.sum(wanted * weights, axis=-1)

    return crossentropy


def accuracy(multi_label: bool = False) -> Callable[[Any, Any], Any]:
    """Make the metric "accuracy" of labels and logits, in the forms that `crossentropy` takes.

    A label of probabilities is that of the likeliest class. With `multi_label` it is the share of the labels that are
    right, those that are there and those that are not, where a logit above 0 says that one is there.

    >>> labels, logits = np.array([0, 1]), np.array([[2.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    >>> [float(each) for each in accuracy()(labels, logits)]
    [1.0, 0.0]
    """

    def accuracy(labels: Any, logits: Any) -> Any:
        logits = ops.convert_to_tensor(logits)
        wanted = _probabilities(labels, logits, multi_label)
        if multi_label or logits.shape[-1] == 1:
            return ops.mean(ops.cast(ops.equal(logits > 0, wanted > 0.5), "float32"), axis=-1)
        return ops.cast(ops.equal(ops.argmax(logits, axis=-1), ops.argmax(wanted, axis=-1)), "float32")

    return accuracy


def balanced(labels: np.ndarray, classes: int) -> list[float]:
    """Give the weight of each class with which all count alike, as scikit-learn's `class_weight="balanced"` does.

    It is the number of labels, divided by the number of classes and by how many the class has; 1 where it has none.

    Args:
        labels: Integers, or zeros and ones for each class.
        classes: How many there are.

    Shapes:
        labels: (examples,) or (examples, 1), or (examples, classes)

    >>> balanced(np.array([0, 0, 0, 1]), 2)
    [0.6666666666666666, 2.0]
    """
    labels = np.asarray(labels)
    hot = labels.ndim == 2 and labels.shape[1] > 1
    counts = labels.sum(0) if hot else np.bincount(labels.reshape(-1).astype(int), minlength=classes)
    return [float(counts.sum() / (classes * count)) if count else 1.0 for count in counts]


def _probabilities(labels: Any, logits: Any, multi_label: bool) -> Any:
    """Give labels of any form as the probability of each logit's class, by their shape: Keras makes all float."""
    labels = ops.convert_to_tensor(labels)
    classes = logits.shape[-1]
    if multi_label or (len(labels.shape) == len(logits.shape) and labels.shape[-1] != 1):
        labels = ops.cast(labels, "float32")
        return labels[..., 1:] if classes == 1 and not multi_label else labels
    shape = ops.shape(logits)[:-1]
    if classes == 1:
        return ops.cast(ops.reshape(labels, (*shape, 1)), "float32")
    return ops.one_hot(ops.cast(ops.reshape(labels, shape), "int32"), classes, dtype="float32")
