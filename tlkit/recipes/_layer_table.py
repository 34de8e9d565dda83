"""The table that `describe` prints: a line for each layer, a heading with sums for each stage, and the whole costs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tlkit import arithmetic
from tlkit.display import shown

if TYPE_CHECKING:
    import keras

DENSE_UNITS = 1000  # units of the fully connected layer that the first convolution is compared with
LEAST_NAME, LEAST_KIND = 8, 13  # columns that names and kinds of layers keep where there is little room
SHORT = {"Normalization": "Norm", "Average": "Avg", "Pooling": "Pool", "MultiHead": "", "DepthwiseConv": "Depthwise"}


def table(rows: Sequence[arithmetic.Row], ends: Mapping[str, str], width: int = 80) -> list[str]:
    """Write a network in columns, with a heading that has the sums above each stage.

    Layers without weights that keep the shape, such as activations, are left out; batch normalization is added to the
    convolution before it.

    Args:
        rows: What `arithmetic.describe` returns.
        ends: Name of the stage, by the name of the layer that ends it.
        width: Columns to fit into; the names of layers are shortened from the left.

    >>> rows = arithmetic.trace((8, 8, 3), [arithmetic.Conv(4, 3), arithmetic.Pool(2), arithmetic.Flatten()])
    >>> print("\\n".join(table(rows, {"pool2": "stem"})))
    layer       kind     output  parameters  mult-adds  field  stride
    stem ──────────────── 3×3×4 ─────── 112 ─── 3.89 K ──── 4 ───── 2
      conv1     Conv      6×6×4         112     3.89 K      3       1
      pool2     Pool      3×3×4                             4       2
    top ──────────────────── 36 ───────────────────────── all
      flatten3  Flatten      36                           all
    """
    lines = [(False, ["layer", "kind", "output", "parameters", "mult-adds", "field", "stride"])]
    sees_all = False  # from the first layer that looks at the whole input
    for stage, part in _stages(rows, ends):
        layers = []
        for row in _listed(part):
            sees_all = sees_all or bool(re.search("Flatten|Global|Attention", row.kind))
            layers.append((False, _cells(row, f"  {_short_name(row.name, stage)}", sees_all)))
        if ends:
            sums = arithmetic.totals(part)
            heading = part[-1]._replace(kind="", parameters=sums.parameters, multiply_adds=sums.multiply_adds)
            lines.append((True, _cells(heading, stage, sees_all)))
        lines += layers
    widths = _widths([cells for _, cells in lines], width)
    return [_ruled(_line(cells, widths)) if heading else _line(cells, widths) for heading, cells in lines]


def summary(model: keras.Model, rows: Sequence[arithmetic.Row]) -> list[str]:
    """Write what the network costs as a whole, and what its first layer would cost as a fully connected one."""
    sums = arithmetic.totals(rows)
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    multiply_adds = "?" if sums.multiply_adds is None else f"{sums.multiply_adds:,}"
    lines = [
        ("parameters", f"{sums.parameters:,}", ""),
        ("  trainable", f"{trainable:,}", ""),
        ("  not trainable", f"{sums.parameters - trainable:,}", ""),
        ("  in float32", f"{4 * sums.parameters / 1e6:,.1f} MB", ""),
        ("multiply-adds", multiply_adds, "for one input"),
    ]
    shape = model.inputs[0].shape[1:]
    if None not in shape and any("Conv" in row.kind for row in rows):
        weights = arithmetic.fully_connected(shape, DENSE_UNITS)
        note = f"weights as first layer, {spaced(shape)} → {DENSE_UNITS}"
        lines.append(("fully connected", f"{weights:,}", note))
    digits = max(len(number) for _, number, _ in lines)
    return [f"{quantity:15}  {number:>{digits}}  {note}".rstrip() for quantity, number, note in lines]


def spaced(shape: Sequence[int | None]) -> str:
    """Write a shape.

    >>> spaced((None, 224, 3))
    '? × 224 × 3'
    """
    return " × ".join("?" if size is None else str(size) for size in shape)


def _stages(rows: Sequence[arithmetic.Row], ends: Mapping[str, str]) -> list[tuple[str, list[arithmetic.Row]]]:
    """Divide the layers into stages; those after the last one are the top."""
    stages: list[tuple[str, list[arithmetic.Row]]] = []
    part: list[arithmetic.Row] = []
    for row in rows:
        part.append(row)
        if row.name in ends:
            stages.append((ends[row.name], part))
            part = []
    return [*stages, ("top", part)] if part else stages


def _listed(rows: Sequence[arithmetic.Row]) -> list[arithmetic.Row]:
    """Leave out layers without weights that keep the shape, and add batch normalization to what it normalizes."""
    listed: list[arithmetic.Row] = []
    for place, row in enumerate(rows):
        before = rows[place - 1] if place else None
        if row.kind == "BatchNormalization" and listed and before is listed[-1] and before.multiply_adds:
            listed[-1] = before._replace(kind=f"{before.kind}, BN", parameters=before.parameters + row.parameters)
        elif row.parameters or row.multiply_adds != 0 or re.search("Pool|Flatten|Add$|Concatenate|Multiply", row.kind):
            listed.append(row)
    return listed


def _short_name(name: str, stage: str) -> str:
    """Give a layer's name without the names of the model and the stage."""
    return shown(name.rpartition("/")[2].removeprefix(f"{stage}_"))


def _cells(row: arithmetic.Row, name: str, sees_all: bool) -> list[str]:
    kind = re.sub(r"(?<=[a-z])[123]D\b", "", row.kind)
    for long, short in SHORT.items():
        kind = kind.replace(long, short)
    field = ("all" if sees_all else "") if row.field is None else _sizes(row.field)
    parameters = f"{row.parameters:,}" if row.parameters else ""
    return [name, kind, _sizes(row.shape, "×"), parameters, _units(row.multiply_adds), field, _sizes(row.stride or ())]


def _sizes(sizes: Sequence[int | None], sign: str = "") -> str:
    """Write sizes with a sign between them; without a sign, equal sizes are written once."""
    if not sign and len(set(sizes)) <= 1:
        sizes = sizes[:1]
    return (sign or "×").join("?" if size is None else str(size) for size in sizes)


def _units(number: int | None) -> str:
    """Write a number with three digits; 0 is empty.

    >>> [_units(number) for number in (0, 840, 10_080, 86_704_128, 15_470_264_320)]
    ['', '840', '10.1 K', '86.7 M', '15.5 G']
    """
    if number is None:
        return "?"
    for unit, size in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= 0.9995 * size:
            scaled = number / size
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f} {unit}"
    return str(number or "")


def _widths(lines: Sequence[Sequence[str]], width: int) -> list[int]:
    """Give the columns of each cell; where there is no room, kinds are shortened first, then names."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for place, least in ((1, LEAST_KIND), (0, LEAST_NAME)):
        excess = max(sum(widths) + 2 * (len(widths) - 1) - width, 0)
        widths[place] = max(min(widths[place], least), widths[place] - excess)
    return widths


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Write a line: names and kinds flush left, the others right; of a long name the end is kept."""
    name, kind, *others = cells
    if len(name) > widths[0]:
        indent = len(name) - len(name.lstrip())
        name = f"{name[:indent]}…{name[indent + 1 + len(name) - widths[0] :]}"
    if len(kind) > widths[1]:
        kind = f"{kind[: widths[1] - 1]}…"
    columns = [f"{name:{widths[0]}}", f"{kind:{widths[1]}}"]
    columns += [f"{cell:>{width}}" for cell, width in zip(others, widths[2:], strict=True)]
    return "  ".join(columns).rstrip()


def _ruled(line: str) -> str:
    """Fill the gaps of a heading."""
    return re.sub(" {3,}", lambda gap: f" {'─' * (len(gap[0]) - 2)} ", line)
