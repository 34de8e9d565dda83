"""Convolution, pooling and graph convolution in NumPy, for any number of spatial axes: the reference of the tests.

Written to be read, not to be fast: a loop over the cells of the window, everything in float64. Arrays are batch first
and channels last. A stride, a dilation or a window is an integer for every axis, or a tuple with one integer per axis.
Padding is `"valid"` (none), `"same"` (Keras': the output has ceil(n / stride) cells; where the padding cannot be the
same on both sides, the end gets one cell more), or that many cells on both sides, as an integer or a tuple.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tlkit.errors import InvalidInput

Sizes = int | tuple[int, ...]


def conv(
    x: npt.ArrayLike,
    kernel: npt.ArrayLike,
    stride: Sizes = 1,
    padding: str | Sizes = "valid",
    dilation: Sizes = 1,
    groups: int = 1,
) -> np.ndarray:
    """Cross-correlate, as the layers Conv1D, Conv2D and Conv3D of Keras do without a bias.

    Group g of the filters sees group g of the channels only; `groups` = channels is a depthwise convolution.

    Shapes:
        x: (batch, *space, channels)
        kernel: (*window, channels / groups, filters), one window axis per axis of space
        returns: (batch, *space, filters), each axis floor((n + padding - window) / stride) + 1 cells, where the
            padding counts both sides and a dilated window spans dilation * (window - 1) + 1

    Raises:
        InvalidInput: ranks, channels or groups disagree, or the window does not fit the padded input.

    >>> x = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 0, 1, 2]]).reshape(1, 3, 4, 1)
    >>> conv(x, np.eye(2).reshape(2, 2, 1, 1))[0, :, :, 0].tolist()
    [[7.0, 9.0, 11.0], [5.0, 7.0, 9.0]]
    """
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    _check_rank(x)
    if kernel.ndim != x.ndim:
        raise InvalidInput(
            f"a kernel of shape {kernel.shape} for an input of shape {x.shape}; it takes {x.ndim} axes: "
            "(*window, channels / groups, filters)"
        )
    channels, (*window, depth, filters) = x.shape[-1], kernel.shape
    if groups < 1 or channels % groups or filters % groups:
        raise InvalidInput(f"{groups} groups of {channels} channels and {filters} filters; groups must divide both")
    if depth != channels // groups:
        raise InvalidInput(
            f"a kernel for {depth} channels, and an input of {channels} channels in {groups} groups; "
            f"the kernel must have {channels // groups}"
        )
    outputs = []
    for part, weights in zip(np.split(x, groups, axis=-1), np.split(kernel, groups, axis=-1), strict=True):
        cells = _cells(part, tuple(window), stride, padding, dilation, fill=0)
        outputs.append(sum(cell @ weights[offset] for offset, cell in cells))
    return np.concatenate(outputs, axis=-1)


def max_pool(x: npt.ArrayLike, size: Sizes, stride: Sizes | None = None, padding: str | Sizes = "valid") -> np.ndarray:
    """Take the largest value of each window; padded cells do not count.

    Args:
        x: Shape (batch, *space, channels).
        size: Size of the window.
        stride: Stride of the window; None for its size.
        padding: As in `conv`, each number below the size.

    Raises:
        InvalidInput: a rank, a size or the padding does not fit.

    >>> x = np.array([[1, 3, 2, 4], [5, 6, 1, 2], [3, 2, 8, 1], [4, 1, 3, 7]]).reshape(1, 4, 4, 1)
    >>> max_pool(x, 2)[0, :, :, 0].tolist()
    [[6.0, 4.0], [4.0, 8.0]]
    """
    x = np.asarray(x, np.float64)
    size = _pool_size(x, size, padding)
    stride = size if stride is None else stride
    return np.maximum.reduce([cell for _, cell in _cells(x, size, stride, padding, 1, fill=-np.inf)])


def average_pool(
    x: npt.ArrayLike, size: Sizes, stride: Sizes | None = None, padding: str | Sizes = "valid"
) -> np.ndarray:
    """Take the mean of each window; padded cells do not count.

    Arguments and errors are those of `max_pool`.

    >>> average_pool(np.array([1, 2, 6]).reshape(1, 3, 1), 2, padding="same")[0, :, 0].tolist()
    [1.5, 6.0]
    """
    x = np.asarray(x, np.float64)
    size = _pool_size(x, size, padding)
    stride = size if stride is None else stride
    total = sum(cell for _, cell in _cells(x, size, stride, padding, 1, fill=0))
    count = sum(cell for _, cell in _cells(np.ones_like(x), size, stride, padding, 1, fill=0))
    return np.asarray(total / count)


def global_pool(x: npt.ArrayLike, kind: str) -> np.ndarray:
    """Take the mean (`kind` "avg") or the largest value ("max") over all spatial axes.

    Shapes:
        x: (batch, *space, channels)
        returns: (batch, channels)

    Raises:
        InvalidInput: another kind, or no spatial axis.

    >>> global_pool(np.arange(6).reshape(1, 3, 2), "avg").tolist()
    [[2.0, 3.0]]
    """
    x = np.asarray(x, np.float64)
    _check_rank(x)
    if kind not in ("avg", "max"):
        raise InvalidInput(f"global pooling of kind {kind!r}; it is 'avg' or 'max'")
    space = tuple(range(1, x.ndim - 1))
    return x.mean(axis=space) if kind == "avg" else x.max(axis=space)


def graph_conv(
    x: npt.ArrayLike,
    edges: npt.ArrayLike,
    kernel: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    edge_weights: npt.ArrayLike | None = None,
) -> np.ndarray:
    """Convolve on one undirected graph: equation 2 of Kipf & Welling 2017 (arXiv:1609.02907) without the activation.

    D^-1/2 (A + I) D^-1/2 X W + b, where A is the symmetric matrix of the edges' weights and D is diagonal with the
    degrees, the sums of the rows of A + I. List an edge once, in either direction: one listed twice counts twice. A
    pair (i, i) adds its weight once to A[i, i], beside the 1 of I.

    Shapes:
        x: (nodes, features)
        edges: (count, 2), pairs of nodes, integers from 0
        kernel: (features, filters)
        bias: (filters,)
        edge_weights: (count,), 1 by default
        returns: (nodes, filters)

    Raises:
        InvalidInput: shapes disagree, a node does not exist, or a degree is not above 0 (from negative weights).

    >>> graph_conv([[2.0], [4.0]], [[0, 1]], [[1.0]]).round(3).tolist()
    [[3.0], [3.0]]
    """
    x, kernel, edges = np.asarray(x, np.float64), np.asarray(kernel, np.float64), np.asarray(edges)
    if edges.size == 0:
        edges = np.zeros((0, 2), int)
    if x.ndim != 2 or kernel.ndim != 2 or x.shape[1] != kernel.shape[0]:
        raise InvalidInput(
            f"x of shape {x.shape} and a kernel of shape {kernel.shape}; they must be (nodes, features) "
            "and (features, filters)"
        )
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "iu":
        raise InvalidInput(f"edges of shape {edges.shape} and type {edges.dtype}; they must be (count, 2) integers")
    if edges.size and (edges.min() < 0 or edges.max() >= len(x)):
        raise InvalidInput(f"edges name the nodes {edges.min()} to {edges.max()}; the graph has 0 to {len(x) - 1}")
    weights = np.ones(len(edges)) if edge_weights is None else np.asarray(edge_weights, np.float64)
    if weights.shape != (len(edges),):
        raise InvalidInput(f"edge weights of shape {weights.shape} for {len(edges)} edges; it must be ({len(edges)},)")
    offset = np.zeros(kernel.shape[1]) if bias is None else np.asarray(bias, np.float64)
    if offset.shape != kernel.shape[1:]:
        raise InvalidInput(
            f"a bias of shape {offset.shape} for {kernel.shape[1]} filters; it must be {kernel.shape[1:]}"
        )
    adjacency = np.eye(len(x))
    for (a, b), weight in zip(edges, weights, strict=True):
        adjacency[a, b] += weight
        if a != b:
            adjacency[b, a] += weight
    degree = adjacency.sum(axis=1)
    if (degree <= 0).any():
        node = int(degree.argmin())
        raise InvalidInput(f"node {node} has the degree {degree[node]}; every degree must be above 0")
    scale = np.diag(degree**-0.5)
    return np.asarray(scale @ adjacency @ scale @ x @ kernel + offset)


def _cells(
    x: np.ndarray, window: tuple[int, ...], stride: Sizes, padding: str | Sizes, dilation: Sizes, fill: float
) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Yield every offset into the window with the cells there, for all windows: (batch, *output space, channels)."""
    space = x.shape[1:-1]
    axes = len(space)
    stride = _per_axis("stride", stride, axes, least=1)
    dilation = _per_axis("dilation", dilation, axes, least=1)
    span = tuple(d * (k - 1) + 1 for k, d in zip(window, dilation, strict=True))
    if padding == "same":
        short = [max((math.ceil(n / s) - 1) * s + k - n, 0) for n, k, s in zip(space, span, stride, strict=True)]
        sides = [(n // 2, n - n // 2) for n in short]
    else:
        sides = [(n, n) for n in _padding(padding, axes)]
    padded = np.pad(x, [(0, 0), *sides, (0, 0)], constant_values=fill)
    if any(k < 1 or k > n for k, n in zip(span, padded.shape[1:-1], strict=True)):
        raise InvalidInput(
            f"a window that spans {span} on a space of {space} with padding {padding!r}; "
            f"each must be 1 to {padded.shape[1:-1]}"
        )
    count = [(n - k) // s + 1 for n, k, s in zip(padded.shape[1:-1], span, stride, strict=True)]
    for offset in itertools.product(*map(range, window)):
        picks = [
            slice(o * d, o * d + (n - 1) * s + 1, s) for o, d, n, s in zip(offset, dilation, count, stride, strict=True)
        ]
        yield offset, padded[(slice(None), *picks)]


def _pool_size(x: np.ndarray, size: Sizes, padding: str | Sizes) -> tuple[int, ...]:
    _check_rank(x)
    axes = x.ndim - 2
    size = _per_axis("size", size, axes, least=1)
    if padding != "same" and any(p >= k for p, k in zip(_padding(padding, axes), size, strict=True)):
        raise InvalidInput(f"padding {padding!r} for windows of {size}; it must be below the size")
    return size


def _padding(padding: str | Sizes, axes: int) -> tuple[int, ...]:
    """Cells on each side, for any padding but "same"."""
    if padding == "valid":
        return (0,) * axes
    if isinstance(padding, str):
        raise InvalidInput(f"padding {padding!r}; it is 'valid', 'same', an integer or one integer per axis")
    return _per_axis("padding", padding, axes, least=0)


def _per_axis(name: str, value: Sizes | list[int], axes: int, least: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * axes
    if len(values) != axes or any(not isinstance(v, int | np.integer) or v < least for v in values):
        raise InvalidInput(f"{name} {value!r}; it is an integer or {axes} integers, each at least {least}")
    return tuple(int(v) for v in values)


def _check_rank(x: np.ndarray) -> None:
    if x.ndim < 3:
        raise InvalidInput(f"an input of shape {x.shape}; it must be (batch, *space, channels) with an axis of space")
