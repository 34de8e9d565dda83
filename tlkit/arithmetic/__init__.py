"""Output sizes, receptive fields, parameters and multiply-adds: of a list of layers, or of a Keras model.

A multiply-add is one multiplication with its addition, for one example. As in the papers, only the products of
convolutions, of dense layers and of attention count; biases, normalization, activations, pooling and sums are 0, and a
cell of padding counts like any other.

The receptive field is how many cells of the input one output cell depends on, along one axis; the stride is how many
input cells lie between two neighbouring output cells (Araujo et al. 2019, https://distill.pub/2019/computing-receptive-fields).
Neither is cut at the border: a field may exceed the input. What a normalization takes from other cells does not count.
"""

from tlkit.arithmetic.graph import nodes
from tlkit.arithmetic.layers import (
    Conv,
    Dense,
    Flatten,
    GlobalPool,
    Layer,
    Norm,
    Pool,
    Row,
    Shape,
    Sizes,
    Totals,
    fully_connected,
    output_size,
    receptive_field,
    totals,
    trace,
)
from tlkit.arithmetic.models import describe

__all__ = [
    "Conv", "Dense", "Flatten", "GlobalPool", "Layer", "Norm", "Pool", "Row", "Shape", "Sizes", "Totals", "describe",
    "fully_connected", "nodes", "output_size", "receptive_field", "totals", "trace",
]  # fmt: skip
