"""Losses and metrics of logits for labels in any form: integers, probabilities, zeros and ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from keras import ops

from tlkit.training.variables import Tensor

SMALLEST = 1e-7  # lower bound of 1 - p, whose power has no finite slope at 0


def crossentropy(
    *,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    class_weights: Sequence[float] | None = None,
    multi_label: bool = False,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Make the cross-entropy of labels and logits, in float32 and for each example.

    Two or more logits go through a softmax; a single one goes through a sigmoid, and is that of the second of two
    classes. With `multi_label` each logit goes through a sigmoid, and the loss is the mean over all. Labels may be
    integers in one batch and probabilities, as MixUp makes them, in the next.

    Args:
        label_smoothing: Share of the label that is spread over all classes (arXiv:1512.00567), or over both outcomes
            of a sigmoid.
        focal_gamma: Exponent of the focal loss (arXiv:1708.02002, without its alpha): each class's term is multiplied
            by (1 - p) ** gamma, where p is the predicted probability of the class. 0 is plain cross-entropy.
        class_weights: Weight of each class's examples; if labels are probabilities, the weights are averaged by them.
            With `multi_label` it is the weight of a label that an example has; one that it does not have has weight 1.
        multi_label: Whether an example may have several labels or none.

    Returns:
        A function of labels and logits.

    Shapes:
        labels: (*shape) or (*shape, 1), integers; or (*shape, classes), probabilities, as always with `multi_label`
        logits: (*shape, classes) or (*shape, 1)
        returns: (*shape)

    >>> loss = crossentropy(label_smoothing=0.1)
    >>> labels, logits = np.array([0, 1]), np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    >>> [round(float(value), 3) for value in loss(labels, logits)]
    [0.373, 1.099]
    >>> [round(float(value), 3) for value in loss(np.eye(3)[labels], logits)]
    [0.373, 1.099]
    """

    def crossentropy(labels: Tensor, logits: Tensor) -> Tensor:
        logits = ops.cast(ops.convert_to_tensor(logits), "float32")
        classes = logits.shape[-1]
        targets = _probabilities(labels, logits, multi_label)
        weights = None if class_weights is None else ops.convert_to_tensor(class_weights, "float32")
        if multi_label or classes == 1:
            smoothed = targets * (1 - label_smoothing) + label_smoothing / 2
            yes, no = ops.log_sigmoid(logits), ops.log_sigmoid(-logits)
            # Powers of 1 - p are computed from its logarithm, `no`: nothing overflows, and every slope is finite.
            loss = -smoothed * yes * ops.exp(focal_gamma * no) - (1 - smoothed) * no * ops.exp(focal_gamma * yes)
            if weights is not None and multi_label:
                loss = loss * (1 + targets * (weights - 1))
            elif weights is not None:
                loss = loss * (weights[0] + targets * (weights[1] - weights[0]))
            return ops.mean(loss, axis=-1)
        smoothed = targets * (1 - label_smoothing) + label_smoothing / classes
        logs = ops.log_softmax(logits, axis=-1)
        terms = -smoothed * logs
        if focal_gamma:
            terms = terms * ops.maximum(-ops.expm1(logs), SMALLEST) ** focal_gamma
        loss = ops.sum(terms, axis=-1)
        return loss if weights is None else loss * ops.sum(targets * weights, axis=-1)

    return crossentropy


def accuracy(multi_label: bool = False) -> Callable[[Tensor, Tensor], Tensor]:
    """Make the metric "accuracy" of labels and logits, in the forms that `crossentropy` takes.

    A label of probabilities counts as its most probable class. With `multi_label` the accuracy is the share of labels,
    present or absent, that are predicted correctly; a logit above 0 predicts that a label is present.

    >>> labels, logits = np.array([0, 1]), np.array([[2.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    >>> [float(value) for value in accuracy()(labels, logits)]
    [1.0, 0.0]
    """

    def accuracy(labels: Tensor, logits: Tensor) -> Tensor:
        logits = ops.convert_to_tensor(logits)
        targets = _probabilities(labels, logits, multi_label)
        if multi_label or logits.shape[-1] == 1:
            return ops.mean(ops.cast(ops.equal(logits > 0, targets > 0.5), "float32"), axis=-1)
        return ops.cast(ops.equal(ops.argmax(logits, axis=-1), ops.argmax(targets, axis=-1)), "float32")

    return accuracy


def balanced(labels: np.ndarray, classes: int) -> list[float]:
    """Give the class weights with which all classes count equally, as scikit-learn's `class_weight="balanced"` does.

    A weight is the number of labels, divided by the number of classes and by the number of labels of the class; it is
    1 for a class without labels.

    Args:
        labels: Integers, or zeros and ones for each class.
        classes: Number of classes.

    Shapes:
        labels: (examples,) or (examples, 1), or (examples, classes)

    >>> balanced(np.array([0, 0, 0, 1]), 2)
    [0.6666666666666666, 2.0]
    """
    labels = np.asarray(labels)
    hot = labels.ndim == 2 and labels.shape[1] > 1
    counts = labels.sum(0) if hot else np.bincount(labels.reshape(-1).astype(int), minlength=classes)
    return [float(counts.sum() / (classes * count)) if count else 1.0 for count in counts]


def _probabilities(labels: Tensor, logits: Tensor, multi_label: bool) -> Tensor:
    """Convert labels of any form to the probability of each logit's class.

    The form is told by the shape, because Keras converts all labels to float.
    """
    labels = ops.convert_to_tensor(labels)
    classes = logits.shape[-1]
    if multi_label or (len(labels.shape) == len(logits.shape) and labels.shape[-1] != 1):
        labels = ops.cast(labels, "float32")
        return labels[..., 1:] if classes == 1 and not multi_label else labels
    shape = ops.shape(logits)[:-1]
    if classes == 1:
        return ops.cast(ops.reshape(labels, (*shape, 1)), "float32")
    return ops.one_hot(ops.cast(ops.reshape(labels, shape), "int32"), classes, dtype="float32")
