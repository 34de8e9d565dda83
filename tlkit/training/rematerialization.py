"""Training in less memory: most activations are computed a second time in the backward pass instead of kept."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import keras

from tlkit import arithmetic
from tlkit.training.variables import Tensor

WIDTHS = {"bfloat16": 2, "float16": 2, "float64": 8, "int64": 8, "uint8": 1, "bool": 1}  # bytes; others have 4
MOST_PARTS = 64  # maximum number of segments of equal size to try


def remat(model: keras.Model) -> keras.Model:
    """Make a model that trains a network in less memory, by computing most activations again in the backward pass.

    The network is cut into segments of consecutive layers. The activations between segments are kept, the others are
    computed a second time (Chen et al. 2016, arXiv:1604.06174). The cuts minimize the sum of what is kept and of the
    largest segment. Both models share their layers: train this one, save and use the other.

    Args:
        model: A functional model; models inside it are cut too.

    Returns:
        A model with the same inputs and outputs.

    >>> x = inputs = keras.Input((8, 8, 3))
    >>> for width in (4, 4, 8, 8):
    ...     x = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(x)
    >>> plain = keras.Model(inputs, x)
    >>> remat(plain).output.shape
    (None, 8, 8, 8)
    """
    if any(isinstance(layer, keras.Model) for layer in model.layers):
        return keras.models.clone_model(
            model, clone_function=lambda layer: remat(layer) if isinstance(layer, keras.Model) else layer
        )
    segments = _segments(model)
    inputs = [keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name) for tensor in model.inputs]
    replaced = {id(tensor): new for tensor, new in zip(model.inputs, inputs, strict=True)}
    for number, (entering, leaving) in enumerate(segments, 1):
        network = keras.Model(entering, leaving)
        layer = network if number == len(segments) else Segment(network)  # the last is needed again at once
        results = layer([replaced[id(tensor)] for tensor in entering])
        replaced.update(zip(map(id, leaving), results, strict=True))
    outputs = [replaced[id(tensor)] for tensor in model.outputs]
    single = not isinstance(model.output, list | tuple)
    return keras.Model(inputs[0] if len(inputs) == 1 else inputs, outputs[0] if single else outputs, name=model.name)


class Segment(keras.Layer):
    """Consecutive layers whose activations are not kept in training.

    Args:
        network: The layers.
    """

    def __init__(self, network: keras.Model):
        super().__init__(dtype="float32", autocast=False)  # its layers cast their inputs themselves
        self.network = network
        self.built = True

    def call(self, inputs: list[Tensor], training: bool | None = None) -> list[Tensor]:
        """Compute the outputs."""
        if not training:
            return self.network(inputs, training=training)
        # Copies, because dropout must find the same seed both times although it changes in between.
        state = self.network.non_trainable_variables
        fixed = [keras.ops.copy(variable) for variable in state]
        weights = [keras.ops.convert_to_tensor(variable) for variable in self.network.trainable_variables]
        changed: list[int] = []  # places of the state that the call changes

        def forward(*values: Tensor) -> list[Tensor]:
            trained, entering = list(values[: len(weights)]), list(values[len(weights) :])
            outputs, after = self.network.stateless_call(trained, fixed, entering, training=True)
            changed[:] = [place for place, value in enumerate(after) if value is not fixed[place]]
            return [*keras.tree.flatten(outputs), *(after[place] for place in changed)]

        results = keras.remat(forward)(*weights, *inputs)
        count = len(self.network.outputs)
        for place, value in zip(changed, results[count:], strict=True):
            state[place].assign(value)
        return list(results[:count])

    def compute_output_spec(
        self, inputs: list[keras.KerasTensor], training: bool | None = None
    ) -> list[keras.KerasTensor]:
        """Give the shapes and dtypes of the outputs."""
        return self.network.compute_output_spec(inputs)


def _segments(model: keras.Model) -> list[tuple[list[keras.KerasTensor], list[keras.KerasTensor]]]:
    """Give the tensors that enter and leave each segment of a model."""
    nodes = list(arithmetic.nodes(model))
    produced: dict[int, int] = {}  # by a tensor's id, the place of the node that produces it
    needed: dict[int, int] = {}  # by a tensor's id, the place of the last node that needs it
    for place, node in enumerate(nodes):
        produced.update((id(tensor), place) for tensor in node.output_tensors)
        needed.update((id(tensor), place) for tensor in node.input_tensors)
    needed.update((id(tensor), len(nodes)) for tensor in model.outputs)
    inside = [sum(map(tensor_bytes, node.output_tensors)) for node in nodes]
    kept = [0] * (len(nodes) + 1)  # by a cut in front of each node
    for node in nodes:
        for tensor in node.output_tensors:
            for place in range(produced[id(tensor)] + 1, needed.get(id(tensor), 0) + 1):
                kept[place] += tensor_bytes(tensor)
    segments = []
    for start, end in itertools.pairwise(_cuts(inside, kept)):
        part = nodes[start:end]
        entering = {id(t): t for node in part for t in node.input_tensors if produced.get(id(t), -1) < start}
        leaving = [t for node in part for t in node.output_tensors if needed.get(id(t), 0) >= end]
        segments.append((list(entering.values()), leaving))
    return segments


def _cuts(inside: Sequence[int], kept: Sequence[int]) -> list[int]:
    """Choose cuts that roughly minimize the sum of what they keep and of the largest segment.

    Args:
        inside: Bytes of the activations of each node.
        kept: Bytes that a cut before each node, and after the last, keeps.

    Returns:
        Places of nodes, from 0 to their number.

    >>> _cuts([4] * 9, [1] * 10)
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    >>> _cuts([4] * 9, [9] * 10)
    [0, 3, 6, 9]
    """
    count, total = len(inside), sum(inside)
    ends = [0, *itertools.accumulate(inside)]
    best: tuple[int, list[int]] = (total, [0, count])
    for parts in range(2, MOST_PARTS + 1):
        most = max(total // parts, max(inside, default=0))
        best = min(best, _cheapest(ends, kept, most))
    return best[1]


def _cheapest(ends: Sequence[int], kept: Sequence[int], most: int) -> tuple[int, list[int]]:
    """Choose the cuts that keep the fewest bytes, with segments of at most `most` bytes.

    Args:
        ends: Bytes of all activations before each cut.
        kept: Bytes that each cut keeps.
        most: Maximum number of bytes of a segment.

    Returns:
        The sum of what the cuts keep and of the largest segment, and the cuts.
    """
    count = len(ends) - 1
    least = [0] * (count + 1)  # bytes kept up to each cut
    before = [0] * (count + 1)  # the cut before each
    first = 0
    for end in range(1, count + 1):
        while ends[end] - ends[first] > most:
            first += 1
        before[end] = min(range(first, end), key=least.__getitem__)
        least[end] = least[before[end]] + (kept[end] if end < count else 0)
    cuts = [count]
    while cuts[0]:
        cuts.insert(0, before[cuts[0]])
    largest = max((ends[end] - ends[start] for start, end in itertools.pairwise(cuts)), default=0)
    return least[count] + largest, cuts


def tensor_bytes(tensor: keras.KerasTensor) -> int:
    """Count the bytes of a tensor for one example; a dimension of unknown size counts as 1."""
    return math.prod(length or 1 for length in tensor.shape) * WIDTHS.get(tensor.dtype, 4)
