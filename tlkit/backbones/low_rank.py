"""Low-rank adaptation: small factors learn beside pretrained kernels, and are added to them in the end."""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import keras

from tlkit.backbones.surgery import backbone_of
from tlkit.errors import InvalidInput

FACTORS = ("lora_kernel_a", "lora_kernel_b")  # Keras' names of them


class Adapted(NamedTuple):
    """What of a backbone learns by factors.

    Args:
        layers: The layers that have them.
        parameters: Number of weights of the factors.
        kernels: Number of weights of their kernels.
    """

    layers: list[keras.Layer]
    parameters: int
    kernels: int


def adaptable(model: keras.Model, rank: int) -> Adapted:
    """Find the layers whose kernels are to have factors: what is trainable of dense layers and convolutions.

    Layers inside layers count too, such as the projections of `keras.layers.MultiHeadAttention`. Depthwise convolutions
    have no factors in Keras; nor has a kernel here that is no larger than its factors would be.

    Args:
        model: As in `unfreeze`.
        rank: Rank of the factors.

    Raises:
        InvalidInput: there is no such layer, or the rank is below 1.

    >>> from tlkit.backbones import build, classifier
    >>> model = classifier(build("MobileNet", (64, 64, 3), weights="none", alpha=0.25), 5)
    >>> found = adaptable(model, 4)
    >>> sorted(layer.name for layer in found.layers)[:2], found.parameters, found.kernels
    (['conv1', 'conv_pw_1'], 11052, 196440)
    """
    if rank < 1:
        raise InvalidInput(f"lora_rank is {rank}: 1 or more")
    backbone, layers, sizes = backbone_of(model), [], []
    for layer in dict.fromkeys(backbone._flatten_layers()):
        kernel = getattr(layer, "kernel", None) if hasattr(layer, "enable_lora") else None
        if kernel is None or not getattr(kernel, "trainable", False) or layer.name == "head" or layer.kernel_constraint:
            continue
        own, factors = math.prod(kernel.shape), rank * (math.prod(kernel.shape[:-1]) + kernel.shape[-1])
        if factors < own:
            layers.append(layer)
            sizes.append((factors, own))
    if not layers:
        raise InvalidInput(
            f"lora_rank is {rank}, but what is trained of the network has no dense layer and no convolution, other "
            "than depthwise, whose kernel is larger than its factors would be: leave it out, or give a smaller one"
        )
    return Adapted(layers, *(sum(column) for column in zip(*sizes, strict=True)))


@contextlib.contextmanager
def low_rank(model: keras.Model, rank: int | None, seed: int = 0) -> Iterator[keras.Model]:
    """Train a model's backbone by low-rank adaptation (Hu et al. 2021, arXiv:2106.09685) while the context lasts.

    Each kernel W of `adaptable` becomes W + A B, by Keras' own `enable_lora`, where A begins random and B with zeros,
    so that the model gives the same as before. A, B and the head are trained, and of BatchNormalization what
    `unfreeze` has left trainable; all else that was pretrained keeps its values. At the end A B is added to W, and the
    factors are gone: the model has the variables that it had, and gives what it gave with factors, up to rounding.

    A is a kernel whose last axis has the length of the rank, as Keras has it: a projection of attention from `width` to
    (`heads`, `size`) gets a matrix from `width` to (`heads`, `rank`) and one from `rank` to `size` that heads share.

    Args:
        model: As in `unfreeze`, which is to be called before.
        rank: Rank of A B; None changes nothing.
        seed: Seeds A.

    Raises:
        InvalidInput: as in `adaptable`.

    >>> from tlkit.backbones import build, classifier, unfreeze
    >>> model = classifier(build("MobileNet", (64, 64, 3), weights="none", alpha=0.25), 5)
    >>> unfreeze(model, from_stage="stage4")
    >>> with low_rank(model, 4):
    ...     [weight.path for weight in model.trainable_weights if "kernel" in weight.name]
    ['conv_pw_12/lora_kernel_a', 'conv_pw_12/lora_kernel_b', 'conv_pw_13/lora_kernel_a', 'conv_pw_13/lora_kernel_b',
    'head/kernel']
    >>> len(model.weights) == len(build("MobileNet", (64, 64, 3), weights="none", alpha=0.25).weights) + 2
    True
    """
    if rank is None:
        yield model
        return
    adapted, backbone = adaptable(model, rank), backbone_of(model)
    layers = list(dict.fromkeys(backbone._flatten_layers()))
    spared = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization) or layer.name == "head"]
    learning = {id(variable) for layer in spared for variable in layer.variables}
    frozen = [variable for variable in backbone.trainable_variables if id(variable) not in learning]
    for number, layer in enumerate(adapted.layers):
        start = keras.initializers.HeUniform(zlib.crc32(f"{seed} {number}".encode()))
        layer.enable_lora(rank, a_initializer=start)
    for variable in frozen:
        variable.trainable = False
    model.predict_function = None  # compiled without factors, perhaps
    try:
        yield model
    finally:
        for layer in adapted.layers:
            _merge(layer)
        for variable in frozen:
            variable.trainable = True


def _merge(layer: keras.Layer) -> None:
    """Add the product of its factors to a layer's kernel, and take the factors away."""
    (kernel,) = (variable for variable in layer.variables if variable.name == "kernel")
    a, b = (getattr(layer, name) for name in FACTORS)
    # Not layer.kernel, which is rounded to the dtype that the layer computes in.
    kernel.assign(kernel + layer.lora_alpha / layer.lora_rank * keras.ops.matmul(a, b))
    b.assign(keras.ops.zeros_like(b))  # a function that was compiled with factors still adds them
    layer._tracker.unlock()
    for factor in (a, b):
        layer._untrack_variable(factor)
    layer._tracker.lock()
    layer.lora_kernel_a = layer.lora_kernel_b = None
    layer.lora_enabled, layer.lora_rank, layer.lora_alpha = False, None, None
