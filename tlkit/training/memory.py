"""What fits into a device's memory: the largest batch, errors that say it was too large, activations computed twice."""

from __future__ import annotations

import gc
import itertools
import math
import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tlkit import arithmetic, runtime
from tlkit.errors import Unavailable
from tlkit.training import variables
from tlkit.untrusted import available_memory

BATCH_SIZE = 32  # at which a learning rate is given
STEPS = 20  # in an epoch, at least, of a batch that is larger than that
WIDTHS = {"bfloat16": 2, "float16": 2, "float64": 8, "int64": 8, "uint8": 1, "bool": 1}  # bytes; others have 4
_EXHAUSTED = (
    "RESOURCE_EXHAUSTED",  # XLA, or INTERNAL and then the next
    "Out of memory",
    "out of memory",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "Dst tensor is not initialized",  # TensorFlow, where a batch does not go onto the GPU
    "can't allocate memory",  # PyTorch, on a CPU
    "CUBLAS_STATUS_ALLOC_FAILED",
)
NOTHING_FITS = "not even a batch of 1 fits into memory: train smaller photos, fewer stages or with --remat"
COPIES = 3.0  # of all activations, that a step on a CPU takes: measured were 0.9 on TensorFlow and 2.8 on PyTorch


def is_exhausted(error: BaseException) -> bool:
    """Tell whether an error says that memory has run out, on any backend; none is imported for it.

    >>> is_exhausted(MemoryError()), is_exhausted(ValueError("RESOURCE_EXHAUSTED"))
    (True, False)
    """
    if error.__context__ and is_exhausted(error.__context__):  # what came of it hides it, as on JAX
        return True
    kinds = {(kind.__module__.split(".")[0], kind.__name__) for kind in type(error).__mro__}
    if kinds & {("builtins", "MemoryError"), ("torch", "OutOfMemoryError"), ("tensorflow", "ResourceExhaustedError")}:
        return True
    # The rest are kinds of errors that may be anything: TensorFlow's InternalError, JAX's and PyTorch's RuntimeError.
    general = {("tensorflow", "InternalError"), ("builtins", "RuntimeError")}
    return bool(kinds & general) and any(words in str(error) for words in _EXHAUSTED)


def release() -> None:
    """Give back what a failed step still holds: unreachable objects, compiled programs, cached blocks of a GPU."""
    gc.collect()
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()


def batch_size(model: keras.Model, shape: Sequence[int], classes: int, examples: int, multi_label: bool = False) -> int:
    """Find the batch that makes the best use of the device: a power of two, 32 where nothing speaks against it.

    On a GPU it is the largest that fits, as training steps on random inputs show, but one of which an epoch has 20 or
    more. On a CPU it is 32, for more is not faster there, and less where the activations would not fit into the memory
    that is free: there the system kills a program that takes too much.

    Args:
        model: Compiled, from an input of a fixed size to logits. All its variables, the optimizer's included, are
            afterwards as before.
        shape: Of an example.
        classes: How many there are.
        examples: In an epoch.
        multi_label: Whether labels are a row of zeros and ones for each example in place of the number of its class.

    Returns:
        Examples in a step.

    Raises:
        Unavailable: not even a batch of 1 fits.
    """
    most = max(BATCH_SIZE, _power_of_two(examples // STEPS))
    if runtime.device()[0] == "cpu":
        weights = sum(math.prod(weight.shape) for weight in model.trainable_weights)
        room = available_memory() - 12 * weights  # their gradients and Adam's two moments, in float32
        found = min(BATCH_SIZE, _power_of_two(int(room / (COPIES * activations(model)))))
    else:
        found = _largest(model, shape, classes, most, multi_label)
    if found == 0:
        raise Unavailable(NOTHING_FITS)
    return found


def activations(model: keras.Model) -> int:
    """Count the bytes of all activations of one example; of a model of `remat`, those that are kept at a time.

    >>> inputs = keras.Input((8, 8, 3))
    >>> activations(keras.Model(inputs, keras.layers.Conv2D(4, 1)(inputs)))
    1024
    """
    kept, anew = 0, 0
    for node in arithmetic.nodes(model):
        if isinstance(node.operation, keras.Model):
            kept += activations(node.operation)
            continue
        kept += sum(map(_bytes, node.output_tensors))
        if isinstance(node.operation, _Segment):
            anew = max(anew, activations(node.operation.network))
    return kept + anew


def _largest(model: keras.Model, shape: Sequence[int], classes: int, most: int, multi_label: bool) -> int:
    """The largest power of two, up to `most`, whose steps run; 0 where none does."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    held = [*model.variables, *model.optimizer.variables]
    # On the host, and not for tidiness alone: where a step fails, JAX has given away the arrays it was to update.
    before = variables.values(held)

    def restore() -> None:
        variables.assign(held, before)
        model.reset_metrics()

    rng = np.random.default_rng(0)

    def fits(size: int) -> bool:
        inputs = rng.uniform(0, 255, (size, *shape)).astype("float32")
        labels: Any = rng.integers(0, 2, (size, classes)) if multi_label else rng.integers(0, classes, size)
        labels = labels.astype("float32" if multi_label else "int32")
        try:
            for _ in range(2):  # what one step has left behind meets the next
                model.train_on_batch(inputs, labels)
        except Exception as error:
            if not is_exhausted(error):
                raise
            return False
        finally:
            restore()
        return True

    size = BATCH_SIZE
    try:
        if fits(size):
            while 2 * size <= most and fits(2 * size):
                size *= 2
            return size
        while size > 1:
            size //= 2
            release()
            if fits(size):
                return size
        return 0
    finally:
        model.train_function = None  # it holds a program for each size
        release()


def _power_of_two(most: int) -> int:
    """The largest power of two that is not above, 0 where there is none.

    >>> [_power_of_two(most) for most in (-1, 0, 1, 31, 32)]
    [0, 0, 1, 16, 32]
    """
    return 1 << (most.bit_length() - 1) if most > 0 else 0


def scaled_rate(rate: float, batch_size: int, optimizer: str) -> float:
    """Give the learning rate of a batch, where `rate` is that of batches of 32.

    In proportion to the batch for plain SGD (Goyal et al. 2017, arXiv:1706.02677), to its square root for those that
    divide by the size of the gradient, such as Adam (Malladi et al. 2022, arXiv:2205.10287).

    Args:
        rate: Of batches of 32.
        batch_size: Examples whose gradients make a step.
        optimizer: Its name in keras.optimizers, in any case.

    >>> scaled_rate(0.01, 128, "sgd"), scaled_rate(0.001, 128, "adamw")
    (0.04, 0.002)
    """
    share = batch_size / BATCH_SIZE
    return rate * (share if optimizer.lower() == "sgd" else math.sqrt(share))


def remat(model: keras.Model) -> keras.Model:
    """Make a model to train a network in less memory: it computes most activations anew in the backward pass.

    The network is cut into segments of consecutive layers. What goes from one to the next is kept, the rest is computed
    a second time (Chen et al. 2016, arXiv:1604.06174); the cuts are where the sum of what is kept and of the largest
    segment is least. The layers are shared: train this model, save and use the other.

    Args:
        model: A functional one; each model in it is cut too.

    Returns:
        A model of the same inputs and outputs.

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
    known = {id(tensor): new for tensor, new in zip(model.inputs, inputs, strict=True)}
    for number, (given, made) in enumerate(segments, 1):
        network = keras.Model(given, made)
        layer = network if number == len(segments) else _Segment(network)  # the last is needed again at once
        results = layer([known[id(tensor)] for tensor in given])
        known.update(zip(map(id, made), results, strict=True))
    outputs = [known[id(tensor)] for tensor in model.outputs]
    single = not isinstance(model.output, list | tuple)
    return keras.Model(inputs[0] if len(inputs) == 1 else inputs, outputs[0] if single else outputs, name=model.name)


class _Segment(keras.Layer):
    """Consecutive layers whose activations are not kept."""

    def __init__(self, network: keras.Model):
        super().__init__(dtype="float32", autocast=False)  # its layers cast what they are given
        self.network = network
        self.built = True

    def call(self, inputs: list[Any], training: bool | None = None) -> list[Any]:
        if not training:
            return self.network(inputs, training=training)
        # Copies, since dropout must find the same seed both times, after it has moved on.
        state = self.network.non_trainable_variables
        fixed = [keras.ops.copy(variable) for variable in state]
        weights = [keras.ops.convert_to_tensor(variable) for variable in self.network.trainable_variables]
        moved: list[int] = []

        def forward(*values: Any) -> list[Any]:
            learnt, given = list(values[: len(weights)]), list(values[len(weights) :])
            outputs, after = self.network.stateless_call(learnt, fixed, given, training=True)
            moved[:] = [i for i, value in enumerate(after) if value is not fixed[i]]
            return [*keras.tree.flatten(outputs), *(after[i] for i in moved)]

        results = keras.remat(forward)(*weights, *inputs)
        count = len(self.network.outputs)
        for place, value in zip(moved, results[count:], strict=True):
            state[place].assign(value)
        return list(results[:count])

    def compute_output_spec(self, inputs: list[Any], training: bool | None = None) -> Any:
        return self.network.compute_output_spec(inputs)


def _segments(model: keras.Model) -> list[tuple[list[Any], list[Any]]]:
    """What goes into and comes out of each segment of a model."""
    nodes = list(arithmetic.nodes(model))
    made: dict[int, int] = {}  # place of the node that makes a tensor, and of the last that needs it
    needed: dict[int, int] = {}
    for place, node in enumerate(nodes):
        made.update((id(tensor), place) for tensor in node.output_tensors)
        needed.update((id(tensor), place) for tensor in node.input_tensors)
    needed.update((id(tensor), len(nodes)) for tensor in model.outputs)
    inside = [sum(map(_bytes, node.output_tensors)) for node in nodes]
    kept = [0] * (len(nodes) + 1)  # by a cut in front of each node
    for node in nodes:
        for tensor in node.output_tensors:
            for place in range(made[id(tensor)] + 1, needed.get(id(tensor), 0) + 1):
                kept[place] += _bytes(tensor)
    cuts = _cuts(inside, kept)
    found = []
    for start, end in itertools.pairwise(cuts):
        given = {id(t): t for node in nodes[start:end] for t in node.input_tensors if made.get(id(t), -1) < start}
        left = [t for node in nodes[start:end] for t in node.output_tensors if needed.get(id(t), 0) >= end]
        found.append((list(given.values()), left))
    return found


def _cuts(inside: Sequence[int], kept: Sequence[int]) -> list[int]:
    """Where to cut so that what the cuts keep and the largest segment are about least in sum; from 0 to n.

    >>> _cuts([4] * 9, [1] * 10)
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    >>> _cuts([4] * 9, [9] * 10)
    [0, 3, 6, 9]
    """
    count, total = len(inside), sum(inside)
    ends = [0, *itertools.accumulate(inside)]
    best: tuple[int, list[int]] = (total, [0, count])
    for part in range(2, 65):
        most = max(total // part, max(inside, default=0))
        least = [0] * (count + 1)  # kept up to a cut, and the cut before it
        before = [0] * (count + 1)
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
        best = min(best, (least[count] + largest, cuts))
    return best[1]


def _bytes(tensor: Any) -> int:
    """What a tensor takes for one example; a size that is not fixed counts as 1."""
    return math.prod(length or 1 for length in tensor.shape) * WIDTHS.get(tensor.dtype, 4)
