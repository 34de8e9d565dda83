"""Blocks that read their rank from the input, so that a network is written once for 1, 2 and 3 spatial axes.

Functions take and return Keras tensors of shape (batch, *space, channels), and are made of Keras' own layers; the
classes at the end are what Keras has not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import KerasTensor, layers, ops

from tlkit.errors import InvalidInput

_CONV = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}
_DEPTHWISE = {1: layers.DepthwiseConv1D, 2: layers.DepthwiseConv2D}  # Keras has none for 3 axes
_PADDING = {1: layers.ZeroPadding1D, 2: layers.ZeroPadding2D, 3: layers.ZeroPadding3D}
_POOL: dict[str, dict[int, Callable[..., layers.Layer]]] = {
    "max": {1: layers.MaxPooling1D, 2: layers.MaxPooling2D, 3: layers.MaxPooling3D},
    "average": {1: layers.AveragePooling1D, 2: layers.AveragePooling2D, 3: layers.AveragePooling3D},
}
_GLOBAL_POOL: dict[str, dict[int, Callable[..., layers.Layer]]] = {
    "max": {1: layers.GlobalMaxPooling1D, 2: layers.GlobalMaxPooling2D, 3: layers.GlobalMaxPooling3D},
    "avg": {1: layers.GlobalAveragePooling1D, 2: layers.GlobalAveragePooling2D, 3: layers.GlobalAveragePooling3D},
}
RANKS = tuple(_CONV)


def check_data_format() -> None:
    """Refuse Keras' other order of axes.

    Raises:
        InvalidInput: `image_data_format` is `channels_first`; the message names the file that Keras read it from.
    """
    if keras.config.image_data_format() != "channels_last":
        from keras.src.backend import config

        raise InvalidInput(f"image_data_format is channels_first: set it to channels_last in {config._config_path}")


def rank(x: KerasTensor) -> int:
    """Give the number of spatial axes of a tensor of shape (batch, *space, channels).

    >>> rank(keras.Input((28, 28, 1)))
    2
    """
    return len(x.shape) - 2


def conv(
    x: KerasTensor,
    filters: int,
    kernel_size: int,
    strides: int = 1,
    *,
    padding: str | int = "same",
    name: str,
    kernel_initializer: str | dict[str, Any] | keras.Initializer = "he_normal",
    **kwargs: Any,
) -> KerasTensor:
    """Convolve.

    Args:
        x: The input.
        filters: Channels of the output.
        kernel_size: Length of the window along every axis.
        strides: Of the window, along every axis.
        padding: `same` or `valid` as in Keras, or how many zeros to add on both sides of every axis; Keras' `same` adds
            more at the end than at the start where the stride is 2.
        name: Of the layer; one that pads is called `NAME_pad`.
        kernel_initializer: As in Keras.
        kwargs: More arguments of Keras' convolution, such as `groups`, `use_bias` and `activation`.

    Shapes:
        x: (batch, *space, channels)
        returns: (batch, *((n + 2 * padding - kernel_size) // strides + 1), filters)

    >>> conv(keras.Input((32, 32, 32, 1)), 8, 7, 2, padding=3, name="stem").shape
    (None, 16, 16, 16, 8)
    """
    x, padding = _padded_conv(x, kernel_size, strides, padding, name)
    layer = _CONV[rank(x)](
        filters, kernel_size, strides, padding, kernel_initializer=kernel_initializer, name=name, **kwargs
    )
    return layer(x)


def depthwise_conv(
    x: KerasTensor,
    kernel_size: int,
    strides: int = 1,
    *,
    padding: str | int = "same",
    name: str,
    initializer: str | dict[str, Any] | keras.Initializer,
    **kwargs: Any,
) -> KerasTensor:
    """Convolve each channel with a kernel of its own; the arguments are those of `conv`.

    >>> depthwise_conv(keras.Input((9, 9, 9, 4)), 3, name="d", initializer="he_normal").shape
    (None, 9, 9, 9, 4)
    """
    x, padding = _padded_conv(x, kernel_size, strides, padding, name)
    if rank(x) in _DEPTHWISE:
        depthwise = _DEPTHWISE[rank(x)]
        return depthwise(kernel_size, strides, padding, depthwise_initializer=initializer, name=name, **kwargs)(x)
    channels = x.shape[-1]
    return _CONV[rank(x)](
        channels, kernel_size, strides, padding, groups=channels, kernel_initializer=initializer, name=name, **kwargs
    )(x)


def _padded_conv(
    x: KerasTensor, kernel_size: int, strides: int, padding: str | int, name: str
) -> tuple[KerasTensor, str]:
    if isinstance(padding, int) and strides == 1 and 2 * padding == kernel_size - 1:
        return x, "same"  # the same numbers, without a layer that copies
    return _padded(x, padding, name)


def _padded(x: KerasTensor, padding: str | int, name: str) -> tuple[KerasTensor, str]:
    if isinstance(padding, str):
        return x, padding
    return (_PADDING[rank(x)](padding, name=f"{name}_pad")(x) if padding else x), "valid"


def conv_norm(
    x: KerasTensor,
    filters: int,
    kernel_size: int,
    strides: int = 1,
    *,
    padding: str | int = "same",
    activation: str | None = "relu",
    name: str,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    **kwargs: Any,
) -> KerasTensor:
    """Convolve without bias, normalize over the batch and, unless `activation` is None, activate.

    The layers are `NAME_conv`, `NAME_norm` and `NAME_activation`.

    >>> conv_norm(keras.Input((32, 3)), 8, 3, name="a").shape
    (None, 32, 8)
    """
    x = conv(x, filters, kernel_size, strides, padding=padding, use_bias=False, name=f"{name}_conv", **kwargs)
    x = layers.BatchNormalization(momentum=momentum, epsilon=epsilon, name=f"{name}_norm")(x)
    return layers.Activation(activation, name=f"{name}_activation")(x) if activation else x


def layer_norm(x: KerasTensor, name: str) -> KerasTensor:
    """Normalize over the channels, as transformers and ConvNeXt do: with an epsilon of 1e-6."""
    return layers.LayerNormalization(epsilon=1e-6, name=name)(x)


def pool(
    x: KerasTensor, kind: str, pool_size: int, strides: int | None = None, *, padding: str | int = "valid", name: str
) -> KerasTensor:
    """Take the `max` or the `average` of each window.

    Args:
        x: The input.
        kind: `max` or `average`.
        pool_size: Length of the window along every axis.
        strides: Of the window; by default its length.
        padding: `same` or `valid` as in Keras, or how many zeros to add on both sides of every axis: right for the
            maximum of what is not below 0.
        name: Of the layer.

    >>> pool(keras.Input((8, 8, 3)), "max", 2, name="p").shape
    (None, 4, 4, 3)
    """
    x, padding = _padded(x, padding, name)
    return _POOL[kind][rank(x)](pool_size, strides, padding, name=name)(x)


def global_pool(x: KerasTensor, kind: str = "avg", *, name: str = "pool", **kwargs: Any) -> KerasTensor:
    """Take the average (`avg`) or the maximum (`max`) over all positions.

    >>> global_pool(keras.Input((8, 8, 8, 3))).shape
    (None, 3)
    """
    return _GLOBAL_POOL[kind][rank(x)](name=name, **kwargs)(x)


def stochastic_depth(x: KerasTensor, rate: float, name: str) -> KerasTensor:
    """Drop a residual branch for whole examples in training (Huang et al. 2016, arXiv:1603.09382)."""
    return layers.Dropout(rate, (None, *[1] * (len(x.shape) - 1)), name=name)(x) if rate else x


def end(x: KerasTensor, name: str) -> KerasTensor:
    """Give what a stage puts out the stage's name; it costs nothing."""
    return layers.Identity(name=name)(x)


FRONT = 8
"""Tokens in front of those of the patches, at most: the class's, and registers."""


def is_stage(name: str) -> bool:
    """Tell whether a layer's name is that of a stage, the stem included.

    >>> is_stage("stem"), is_stage("stage2"), is_stage("stage2_block1_conv")
    (True, True, False)
    """
    return re.fullmatch(r"stem|stage\d+", name) is not None


def stages(
    x: KerasTensor, block: Callable[[KerasTensor, str, int, int], KerasTensor], depths: Sequence[int]
) -> KerasTensor:
    """Stack blocks in stages called `stage1`, `stage2` ...

    Args:
        x: What the stem puts out.
        block: Takes its input, the name its layers begin with, the number of its stage and its number within the stage,
            both from 0.
        depths: Blocks in each stage.

    >>> y = stages(keras.Input((8, 4)), lambda x, name, stage, number: conv(x, 2**stage, 3, name=name), [2, 1])
    """
    for stage, depth in enumerate(depths):
        for number in range(depth):
            x = block(x, f"stage{stage + 1}_block{number + 1}", stage, number)
        x = end(x, f"stage{stage + 1}")
    return x


@keras.saving.register_keras_serializable(package="tlkit")
class LocalResponseNormalization(layers.Layer):
    """Divide each activation by the power of its neighbour channels (Krizhevsky et al. 2012, section 3.3).

    y = x / (k + alpha * (sum of the squares of `size` channels around it)) ** beta; other than in Caffe and PyTorch,
    the sum is not divided by `size`.

    Shapes:
        inputs: (batch, *space, channels)
        returns: the same

    >>> round(float(LocalResponseNormalization(alpha=1.0, beta=1.0)(keras.ops.ones((1, 2, 3)))[0, 0, 0]), 3)
    0.2
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def call(self, inputs: Any) -> Any:
        """Normalize."""
        channels, before = inputs.shape[-1], self.size // 2
        squares = ops.square(ops.cast(inputs, "float32"))  # of 256 it is more than float16 can hold
        sides = [(0, 0)] * (len(inputs.shape) - 1) + [(before, self.size - 1 - before)]
        squares = ops.pad(squares, sides)
        total = sum(squares[..., start : start + channels] for start in range(self.size))
        return inputs / ops.cast(ops.power(self.k + self.alpha * total, self.beta), inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """Give the arguments, for a file."""
        own = {"size": self.size, "alpha": self.alpha, "beta": self.beta, "k": self.k}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="tlkit")
class LayerScale(layers.Layer):
    """Scale each channel by a weight that starts small (Touvron et al. 2021, arXiv:2103.17239).

    Shapes:
        inputs: (batch, ..., channels)
        returns: the same

    >>> layer = LayerScale(0.5)
    >>> keras.ops.convert_to_numpy(layer(keras.ops.ones((1, 2, 3))))[0, 0].tolist(), layer.count_params()
    ([0.5, 0.5, 0.5], 3)
    """

    def __init__(self, initial: float = 1e-6, **kwargs: Any):
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the weights, one for each channel."""
        start = keras.initializers.Constant(self.initial)
        self.gamma = self.add_weight(shape=(input_shape[-1],), initializer=start, name="gamma")

    def call(self, inputs: Any) -> Any:
        """Scale."""
        return inputs * self.gamma

    def get_config(self) -> dict[str, Any]:
        """Give the arguments, for a file."""
        return {**super().get_config(), "initial": self.initial}


@keras.saving.register_keras_serializable(package="tlkit")
class ClassToken(layers.Layer):
    """Put a learned token in front of a sequence (Devlin et al. 2018; Dosovitskiy et al. 2020, section 3.1).

    Shapes:
        inputs: (batch, tokens, features)
        returns: (batch, 1 + tokens, features)

    >>> ClassToken()(keras.Input((4, 8))).shape
    (None, 5, 8)
    """

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the token."""
        self.token = self.add_weight(shape=(1, 1, input_shape[-1]), initializer="zeros", name="token")

    def call(self, inputs: Any) -> Any:
        """Prepend."""
        token = ops.broadcast_to(ops.cast(self.token, inputs.dtype), (ops.shape(inputs)[0], 1, inputs.shape[-1]))
        return ops.concatenate([token, inputs], axis=1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Give the shape of the longer sequence."""
        batch, tokens, features = input_shape
        return batch, tokens and tokens + 1, features


@keras.saving.register_keras_serializable(package="tlkit")
class PositionEmbedding(layers.Layer):
    """Add a learned vector to each position of a sequence of fixed length (Dosovitskiy et al. 2020, equation 1).

    Shapes:
        inputs: (batch, tokens, features)
        returns: the same

    >>> PositionEmbedding()(keras.Input((4, 8))).shape
    (None, 4, 8)
    """

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the vectors."""
        start = keras.initializers.TruncatedNormal(stddev=0.02)
        self.positions = self.add_weight(shape=(1, *input_shape[1:]), initializer=start, name="positions")

    def call(self, inputs: Any) -> Any:
        """Add."""
        return inputs + self.positions


@keras.saving.register_keras_serializable(package="tlkit")
class GraphConvolution(layers.Layer):
    """Mix each node's features with its neighbours' (Kipf and Welling 2017, arXiv:1609.02907, equation 2).

    D^-1/2 (A + I) D^-1/2 X W, to which a bias is added; A is the adjacency matrix and D holds the degrees of A + I. A
    is never made: its edges are gathered and summed, so time and memory grow with the edges, not with the square of the
    nodes.

    Args:
        units: Features of the output.
        activation: As in `keras.layers.Dense`.
        use_bias: Whether to add the bias.
        kernel_initializer: As in `keras.layers.Dense`.
        kernel_regularizer: As in `keras.layers.Dense`.
        kwargs: Of `keras.layers.Layer`.

    Shapes:
        inputs: a list of
            features: (batch, nodes, features)
            edges: (batch, edges, 2), integers: the two nodes of each undirected edge, which is listed once; a pair with
                a number outside 0 to nodes - 1 is no edge, so -1 fills up a graph that has fewer than others
        returns: (batch, nodes, units)

    >>> features, edges = keras.ops.ones((1, 3, 2)), keras.ops.array([[[0, 1], [-1, -1]]])
    >>> layer = GraphConvolution(1, kernel_initializer="ones")
    >>> keras.ops.convert_to_numpy(layer([features, edges]))[0, :, 0].round(5).tolist()
    [2.0, 2.0, 2.0]
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units, self.use_bias = units, use_bias
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: Sequence[Sequence[int | None]]) -> None:
        """Make the kernel and the bias."""
        features, edges = input_shape
        if len(features) != 3 or len(edges) != 3 or edges[-1] != 2:
            raise InvalidInput(
                f"features of shape {tuple(features)} and edges of shape {tuple(edges)}: (batch, nodes, features) and "
                "(batch, edges, 2)"
            )
        self.kernel = self.add_weight(
            shape=(features[-1], self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            name="kernel",
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias") if self.use_bias else None

    def call(self, inputs: Sequence[Any]) -> Any:
        """Convolve."""
        features, edges = inputs
        x = ops.matmul(features, self.kernel)
        shape = ops.shape(x)
        x = ops.reshape(_propagate(ops.reshape(x, (-1, self.units)), edges, shape[0], shape[1]), shape)
        x = x if self.bias is None else x + self.bias
        return self.activation(x)

    def compute_output_shape(self, input_shape: Sequence[Sequence[int | None]]) -> tuple[int | None, ...]:
        """Give the shape of the nodes' new features."""
        return (*input_shape[0][:-1], self.units)

    def multiply_adds(self, input_shapes: Sequence[Sequence[int | None]]) -> int | None:
        """Count one multiplication with one addition as 1; None where the graph's size is not known."""
        (_, nodes, features), (_, edges, _) = input_shapes
        if nodes is None or edges is None or features is None:
            return None
        return self.units * (nodes * features + nodes + 2 * edges)

    def get_config(self) -> dict[str, Any]:
        """Give the arguments, for a file."""
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


def _propagate(x: Any, edges: Any, graphs: Any, nodes: Any) -> Any:
    """Multiply by the normalized adjacency matrix of all graphs of a batch, laid side by side as one.

    Shapes:
        x: (graphs * nodes, features)
        edges: (graphs, edges, 2)
        returns: the shape of `x`
    """
    edges = ops.cast(edges, "int32")
    listed = ops.all((edges >= 0) & (edges < nodes), axis=-1)
    edges = ops.where(ops.expand_dims(listed, -1), edges, 0)
    first = ops.expand_dims(ops.arange(graphs, dtype="int32") * nodes, (1, 2))  # of each graph's nodes
    pairs = ops.reshape(edges + first, (-1, 2))
    source = ops.concatenate([pairs[:, 0], pairs[:, 1]], axis=0)
    target = ops.concatenate([pairs[:, 1], pairs[:, 0]], axis=0)
    loops = ops.cast(pairs[:, 0] == pairs[:, 1], "float32")
    weight = ops.cast(ops.reshape(listed, (-1,)), "float32") * (1 - loops / 2)  # a loop stands there twice
    weight = ops.concatenate([weight, weight], axis=0)
    count = graphs * nodes
    # In float32 whatever the precision: the sum over a node of many edges stops growing in bfloat16.
    scale = ops.expand_dims(ops.rsqrt(1 + ops.segment_sum(weight, target, count)), 1)
    y = ops.cast(x, "float32") * scale
    messages = ops.take(y, source, axis=0) * ops.expand_dims(weight, 1)
    return ops.cast(scale * (y + ops.segment_sum(messages, target, count)), x.dtype)
