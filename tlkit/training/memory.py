"""What fits into the memory of a device: the largest batch, and errors that say that memory has run out."""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Sequence

import keras
import numpy as np

from tlkit import arithmetic, runtime
from tlkit.errors import Unavailable
from tlkit.training import variables
from tlkit.training.rematerialization import Segment, remat, tensor_bytes
from tlkit.untrusted import available_memory

__all__ = ["activations", "batch_size", "is_exhausted", "release", "remat", "scaled_rate"]

BATCH_SIZE = 32  # batch size for which learning rates are given
STEPS = 20  # minimum number of steps in an epoch with a larger batch size
_EXHAUSTED = (
    "RESOURCE_EXHAUSTED",  # XLA; it may say INTERNAL and then the next text
    "Out of memory",
    "out of memory",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "Dst tensor is not initialized",  # TensorFlow, if a batch does not fit onto the GPU
    "can't allocate memory",  # PyTorch, on a CPU
    "CUBLAS_STATUS_ALLOC_FAILED",
)
NOTHING_FITS = "not even a batch of 1 fits into memory: use smaller photos, train fewer stages, or give --remat true"
COPIES = 3.0  # memory of a step on a CPU, in sizes of all activations: 0.9 measured on TensorFlow, 2.8 on PyTorch


def is_exhausted(error: BaseException) -> bool:
    """Tell whether an error means that memory has run out, on any backend, without importing one.

    >>> is_exhausted(MemoryError()), is_exhausted(ValueError("RESOURCE_EXHAUSTED"))
    (True, False)
    """
    if error.__context__ and is_exhausted(error.__context__):  # a later error hides it, as on JAX
        return True
    kinds = {(kind.__module__.split(".")[0], kind.__name__) for kind in type(error).__mro__}
    if kinds & {("builtins", "MemoryError"), ("torch", "OutOfMemoryError"), ("tensorflow", "ResourceExhaustedError")}:
        return True
    # Other causes raise these too, so the text decides: TensorFlow's InternalError, JAX's and PyTorch's RuntimeError.
    general = {("tensorflow", "InternalError"), ("builtins", "RuntimeError")}
    return bool(kinds & general) and any(words in str(error) for words in _EXHAUSTED)


def release() -> None:
    """Free what a failed step still holds: unreachable objects, compiled programs, cached blocks of a GPU."""
    gc.collect()
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()


def batch_size(model: keras.Model, shape: Sequence[int], classes: int, examples: int, multi_label: bool = False) -> int:
    """Find the batch size that makes the best use of the device: a power of two.

    On a GPU it is the largest that fits, as training steps on random inputs show, with at least 20 steps in an epoch.
    On a CPU it is 32, because larger batches are not faster there, or less if the activations do not fit into the free
    memory: there the system kills a program that takes too much.

    Args:
        model: A compiled model from an input of a fixed size to logits. Its variables and those of its optimizer are
            afterwards as before.
        shape: Shape of an example.
        classes: Number of classes.
        examples: Number of examples in an epoch.
        multi_label: Whether labels are a row of zeros and ones for each example instead of the number of its class.

    Returns:
        Number of examples in a step.

    Raises:
        Unavailable: not even a batch of 1 fits.
    """
    most = max(BATCH_SIZE, _power_of_two(examples // STEPS))
    if runtime.device()[0] == "cpu":
        weights = sum(math.prod(weight.shape) for weight in model.trainable_weights)
        room = available_memory() - 12 * weights  # their gradients and Adam's two moments, in float32
        size = min(BATCH_SIZE, _power_of_two(int(room / (COPIES * activations(model)))))
    else:
        size = _largest(model, shape, classes, most, multi_label)
    if size == 0:
        raise Unavailable(NOTHING_FITS)
    return size


def activations(model: keras.Model) -> int:
    """Count the bytes of all activations of one example; in a model made by `remat`, of those in memory at a time.

    >>> inputs = keras.Input((8, 8, 3))
    >>> activations(keras.Model(inputs, keras.layers.Conv2D(4, 1)(inputs)))
    1024
    """
    kept, recomputed = 0, 0
    for node in arithmetic.nodes(model):
        if isinstance(node.operation, keras.Model):
            kept += activations(node.operation)
            continue
        kept += sum(map(tensor_bytes, node.output_tensors))
        if isinstance(node.operation, Segment):
            recomputed = max(recomputed, activations(node.operation.network))
    return kept + recomputed


def _largest(model: keras.Model, shape: Sequence[int], classes: int, most: int, multi_label: bool) -> int:
    """Find the largest power of two, up to `most`, for which training steps run; 0 if none does."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    changing = [*model.variables, *model.optimizer.variables]
    # Copied to the host, because a step that fails on JAX has already freed the arrays that it was to update.
    before = variables.values(changing)
    rng = np.random.default_rng(0)

    def fits(size: int) -> bool:
        inputs = rng.uniform(0, 255, (size, *shape)).astype("float32")
        labels = rng.integers(0, 2, (size, classes)) if multi_label else rng.integers(0, classes, size)
        labels = labels.astype("float32" if multi_label else "int32")
        try:
            for _ in range(2):  # the second step runs beside what the first has left in memory
                model.train_on_batch(inputs, labels)
        except Exception as error:
            if not is_exhausted(error):
                raise
            return False
        finally:
            variables.assign(changing, before)
            model.reset_metrics()
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
        model.train_function = None  # it holds a compiled program for each size
        release()


def _power_of_two(most: int) -> int:
    """Give the largest power of two that is not above a number; 0 if there is none.

    >>> [_power_of_two(most) for most in (-1, 0, 1, 31, 32)]
    [0, 0, 1, 16, 32]
    """
    return 1 << (most.bit_length() - 1) if most > 0 else 0


def scaled_rate(rate: float, batch_size: int, optimizer: str) -> float:
    """Scale a learning rate from batches of 32 to another batch size.

    It grows in proportion to the batch size with plain SGD (Goyal et al. 2017, arXiv:1706.02677), and with its square
    root with optimizers that divide by the size of the gradient, such as Adam (Malladi et al. 2022, arXiv:2205.10287).

    Args:
        rate: Learning rate for batches of 32.
        batch_size: Number of examples whose gradients make one step.
        optimizer: Keras' name of the optimizer, in upper or lower case.

    >>> scaled_rate(0.01, 128, "sgd"), scaled_rate(0.001, 128, "adamw")
    (0.04, 0.002)
    """
    share = batch_size / BATCH_SIZE
    return rate * (share if optimizer.lower() == "sgd" else math.sqrt(share))
