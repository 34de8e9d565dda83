"""Describe a network layer by layer, count what it costs and, if asked, draw its filters, feature maps and fields.

python -m tlkit.recipes.describe --builder.name vgg16 --pictures vgg16
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit import arithmetic, cli
from tlkit.config import CNN, Describe
from tlkit.display import quoted, say, shown
from tlkit.errors import InvalidInput
from tlkit.recipes import _jobs, _links, _models

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tlkit import anatomy

PICTURES = ("filters.png", "feature_maps.png", "receptive_field.png")
DENSE = 1000  # units of the fully connected layer that the first convolution is compared with
RANDOM = 8  # inputs over which the receptive fields are averaged
WIDEST = 120  # columns of the table
SHORT = {"Normalization": "Norm", "Average": "Avg", "Pooling": "Pool", "MultiHead": "", "DepthwiseConv": "Depthwise"}


def run(config: Describe) -> list[arithmetic.Row]:
    """Print and return what each layer does and costs, and save pictures where a folder is given."""
    _check_files(config)
    _jobs.import_keras()
    from tlkit import anatomy

    model, ends, weights = _model(config)
    rows = arithmetic.describe(model)
    found = anatomy.stages(model, ends) if len(model.inputs) == 1 else []
    width = min(shutil.get_terminal_size().columns, WIDEST)
    say(f"{_name(config)}: {_shapes(model.inputs)} → {_shapes(model.outputs)}, {weights}\n")
    say("\n".join(table(rows, {stage.layer: stage.name for stage in found}, width)))
    say("field, stride: in cells of the input, along each axis; BN: batch normalization\n")
    say("\n".join(summary(model, rows)))
    if config.pictures is not None:
        draw(config, model, found, f"{_name(config)}, {weights}")
    say("\nNext:")
    for line in _next(config):
        say(f"  {_links.recipe(line)}")
    return rows


def table(rows: Sequence[arithmetic.Row], ends: Mapping[str, str], width: int = 80) -> list[str]:
    """Set a network in columns, a heading with sums above each stage.

    Left out are layers without weights that keep the shape, such as activations; batch normalization is added to the
    convolution before it.

    Args:
        rows: Of `arithmetic.describe`.
        ends: Name of each layer that ends a stage, and the stage's.
        width: Columns to fit into; the names of layers give way, from the left.

    >>> rows = arithmetic.trace((8, 8, 3), [arithmetic.Conv(4, 3), arithmetic.Pool(2), arithmetic.Flatten()])
    >>> print("\\n".join(table(rows, {"pool2": "stem"})))
    layer       kind     output  parameters  mult-adds  field  stride
    stem ──────────────── 3×3×4 ─────── 112 ─── 3.89 K ──── 4 ───── 2
      conv1     Conv      6×6×4         112     3.89 K      3       1
      pool2     Pool      3×3×4                             4       2
    top ──────────────────── 36 ───────────────────────── all
      flatten3  Flatten      36                           all
    """
    header = ["layer", "kind", "output", "parameters", "mult-adds", "field", "stride"]
    lines: list[tuple[bool, list[str]]] = []
    whole = False
    for stage, part in _parts(rows, ends):
        cells = []
        for row in _shown(part):
            whole = whole or bool(re.search("Flatten|Global|Attention", row.kind))
            cells.append(_cells(row, f"  {_within(row.name, stage)}", whole))
        sums = arithmetic.totals(part)
        heading = part[-1]._replace(kind="", parameters=sums.parameters, multiply_adds=sums.multiply_adds)
        lines += [(True, _cells(heading, stage, whole))] if ends else []
        lines += [(False, line) for line in cells]
    widths = [max(map(len, column)) for column in zip(header, *(line for _, line in lines), strict=True)]
    for place, least in ((1, 13), (0, 8)):
        over = sum(widths) + 2 * (len(widths) - 1) - width
        widths[place] = max(min(widths[place], least), widths[place] - max(over, 0))
    lines = [(False, header), *lines]
    return [_ruled(_line(line, widths)) if ruled else _line(line, widths) for ruled, line in lines]


def summary(model: keras.Model, rows: Sequence[arithmetic.Row]) -> list[str]:
    """Say what the network costs as a whole, and what its first layer would as a fully connected one."""
    sums = arithmetic.totals(rows)
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    many = "?" if sums.multiply_adds is None else f"{sums.multiply_adds:,}"
    lines = [
        ("parameters", f"{sums.parameters:,}", ""),
        ("  trainable", f"{trainable:,}", ""),
        ("  not trainable", f"{sums.parameters - trainable:,}", ""),
        ("  in float32", f"{4 * sums.parameters / 1e6:,.1f} MB", ""),
        ("multiply-adds", many, "for one input"),
    ]
    shape = model.inputs[0].shape[1:]
    if None not in shape and any("Conv" in row.kind for row in rows):
        weights = arithmetic.fully_connected(shape, DENSE)
        lines.append(("fully connected", f"{weights:,}", f"weights as first layer, {_shape(shape)} → {DENSE}"))
    digits = max(len(number) for _, number, _ in lines)
    return [f"{what:15}  {number:>{digits}}  {why}".rstrip() for what, number, why in lines]


def draw(config: Describe, model: keras.Model, found: Sequence[anatomy.Stage], title: str) -> None:
    """Save the pictures of the first filters, the feature maps and the receptive fields."""
    import numpy as np

    from tlkit import anatomy, plots

    shape = model.inputs[0].shape[1:]
    if len(model.inputs) != 1 or None in shape or not 2 <= len(shape) <= 4:
        raise InvalidInput(f"the network takes {_shape(shape)}; pictures need one input of a fixed size")
    raw = config.model is not None or _is_backbone(config.builder.name)  # else the network takes -1 to 1
    image = sample(shape, config.photo)
    noise = np.random.default_rng(0).uniform(0, 255, (RANDOM, *shape)).astype(np.float32)
    figures = {}
    kernel = anatomy.first_kernel(model)
    if kernel is None:
        say("no convolution, so no filters.png")
    else:
        figures["filters.png"] = plots.filters(kernel, f"{title}: first convolution")
    if found:
        maps = anatomy.feature_maps(model, found, image if raw else image / 127.5 - 1)
        figures["feature_maps.png"] = plots.feature_maps(image / 255, maps, f"{title}: most active channels")
        say(f"\nreceptive fields: gradients of {RANDOM} random inputs …")
        effective = anatomy.effective_fields(model, found, noise if raw else noise / 127.5 - 1)
        fields = {stage.name: stage.field for stage in found}
        sizes = {stage: anatomy.effective_size(weights) for stage, weights in effective.items()}
        figures["receptive_field.png"] = plots.receptive_fields(effective, fields, sizes, f"{title}: receptive fields")
    folder = Path(str(config.pictures))
    folder.mkdir(parents=True, exist_ok=True)
    for file, figure in figures.items():
        with open(folder / file, "xb") as stream:
            plots.save(figure, stream, format="png")
        say(f"picture     {_links.shown(folder / file)}")


def sample(shape: Sequence[int], photo: str | None = None) -> np.ndarray:
    """Give an example to look at: a photo, or without one scikit-learn's flower or digit, a tone or a hollow ball.

    Shapes:
        shape: (*space, channels)
        returns: the same, from 0 to 255

    Raises:
        InvalidInput: there is a photo, and the shape is not one of photos; or it cannot be decoded.

    >>> sample((32, 32, 1)).shape, float(sample((100, 1)).max()) <= 255
    ((32, 32, 1), True)
    """
    import numpy as np

    from tlkit.data import images

    *space, channels = shape
    if photo is not None:
        if len(space) != 2 or channels not in (1, 3):
            raise InvalidInput(f"photo is {photo!r}; the network takes {_shape(shape)}, which is no photo")
        return images.decode(Path(photo), (space[0], space[1]), channels).astype(np.float32)
    if len(space) == 2:
        from sklearn import datasets

        if channels == 3:
            content = datasets.load_sample_image("flower.jpg")
        else:
            content = np.rint(datasets.load_digits().images[3] * (255 / 16)).astype(np.uint8)
        pixels = images.decode(content, (space[0], space[1]), 3 if channels == 3 else 1)
        return np.broadcast_to(pixels, tuple(shape)).astype(np.float32)
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in space), indexing="ij")
    if len(space) == 1:  # ever higher
        values = np.sin(8 * np.pi * (axes[0] + 1) ** 2) * np.cos(np.pi * axes[0] / 2)
    else:
        values = 2 * np.exp(-(((np.sqrt(sum(axis**2 for axis in axes)) - 0.6) / 0.15) ** 2)) - 1
    return np.repeat(127.5 * (values + 1)[..., None], channels, axis=-1).astype(np.float32)


# The network ----------------------------------------------------------------------------------------------------------


def _check_files(config: Describe) -> None:
    """Refuse, before anything is built, what would lose a file or cannot be found."""
    if config.photo is not None and not Path(config.photo).is_file():
        raise InvalidInput(f"there is no photo {config.photo!r}; give the path of an image file")
    if config.pictures is None:
        return
    folder = Path(config.pictures)
    if folder.exists() and not folder.is_dir():
        raise InvalidInput(f"pictures is {config.pictures!r}, which is a file; give a folder")
    for file in PICTURES:
        if (folder / file).exists():
            raise InvalidInput(f"{folder / file} exists, and nothing is overwritten; give another folder")


def _model(config: Describe) -> tuple[keras.Model, Mapping[str, str] | None, str]:
    """The network, the layers that end its stages if they have other names, and what its weights are."""
    if config.model is not None:
        return _models.load(config.model)[0], None, "with its weights"
    from tlkit import backbones, builders

    chosen = config.builder
    shape = None if chosen.input_shape is None else tuple(chosen.input_shape)
    weights = chosen.weights or ("pretrained" if chosen.name == "LetterNet" else "none")
    said = {"none": "random weights", "pretrained": "pretrained weights"}.get(weights, f"weights of {weights}")
    if _is_backbone(chosen.name):
        model = backbones.build(chosen.name, shape, weights)  # type: ignore[arg-type]
        ends = backbones.row(chosen.name).stages
        return (backbones.classifier(model, chosen.classes) if chosen.classes else model), ends, said
    if chosen.name != "cnn" and chosen.name not in builders.VARIANTS:
        known = ["cnn", *builders.VARIANTS, *backbones.BACKBONES]
        close = difflib.get_close_matches(chosen.name, known, n=1, cutoff=0.0)[0]
        raise InvalidInput(
            f"builder.name is {chosen.name!r}; did you mean {close}? tlkit.builders.VARIANTS and "
            "tlkit.backbones.BACKBONES list all"
        )
    if weights in ("pretrained", "imagenet"):
        published = getattr(builders.VARIANTS.get(chosen.name), "application", None)
        other = f"--builder.name {published} has them, with their preprocessing" if published else "train it"
        raise InvalidInput(f"builder.weights is {weights!r}; {chosen.name} takes none or a file: {other}")
    given: dict[str, Any] = {"weights": None if weights == "none" else weights}
    if chosen.name == "cnn":
        given |= {"padding": "same", **CNN}
        return builders.cnn(shape, classes=chosen.classes or 10, **given), None, said
    return builders.build(chosen.name, shape, classes=chosen.classes, **given), None, said


def _is_backbone(name: str) -> bool:
    from tlkit import backbones

    return name in backbones.BACKBONES


def _name(config: Describe) -> str:
    return config.builder.name if config.model is None else shown(Path(config.model).name)


def _next(config: Describe) -> list[str]:
    chosen = config.builder
    if config.model is not None:
        given = f"--model {quoted(config.model)}"
        use = f"predict {quoted(config.model)} photo.jpg"
    else:
        changed = [field.name for field in dataclasses.fields(chosen) if getattr(chosen, field.name) is not None]
        given = " ".join(f"--builder.{name} {_flag(getattr(chosen, name))}" for name in changed)
        use = (
            f"finetune --backbone.name {chosen.name}"
            if _is_backbone(chosen.name)
            else f"train --builder.name {chosen.name}"
        )
    return [*([] if config.pictures else [f"describe {given} --pictures pictures"]), use]


def _flag(value: object) -> str:
    return quoted(str(value).replace(" ", ""))


# The table ------------------------------------------------------------------------------------------------------------


def _parts(rows: Sequence[arithmetic.Row], ends: Mapping[str, str]) -> list[tuple[str, list[arithmetic.Row]]]:
    """Cut behind the end of each stage; what follows the last is the top."""
    parts, part = [], []
    for row in rows:
        part.append(row)
        if row.name in ends:
            parts.append((ends[row.name], part))
            part = []
    return [*parts, ("top", part)] if part else parts


def _shown(rows: Sequence[arithmetic.Row]) -> list[arithmetic.Row]:
    """Leave out what has no weights and keeps the shape, and add batch normalization to what it normalizes."""
    shown: list[arithmetic.Row] = []
    for place, row in enumerate(rows):
        before = rows[place - 1] if place else None
        if row.kind == "BatchNormalization" and shown and before is shown[-1] and before.multiply_adds:
            shown[-1] = before._replace(kind=f"{before.kind}, BN", parameters=before.parameters + row.parameters)
        elif row.parameters or row.multiply_adds != 0 or re.search("Pool|Flatten|Add$|Concatenate|Multiply", row.kind):
            shown.append(row)
    return shown


def _within(name: str, stage: str = "") -> str:
    """The layer's name without the model's and the stage's."""
    return shown(name.rpartition("/")[2].removeprefix(f"{stage}_"))


def _cells(row: arithmetic.Row, name: str, whole: bool) -> list[str]:
    kind = re.sub(r"(?<=[a-z])[123]D\b", "", row.kind)
    for long, short in SHORT.items():
        kind = kind.replace(long, short)
    field = ("all" if whole else "") if row.field is None else _sizes(row.field)
    parameters = f"{row.parameters:,}" if row.parameters else ""
    return [name, kind, _sizes(row.shape, "×"), parameters, _units(row.multiply_adds), field, _sizes(row.stride or ())]


def _sizes(sizes: Sequence[int | None], sign: str = "") -> str:
    """One number where all are the same, unless a sign is to stand between them."""
    if not sign and len(set(sizes)) <= 1:
        sizes = sizes[:1]
    return (sign or "×").join("?" if size is None else str(size) for size in sizes)


def _shape(shape: Sequence[int | None]) -> str:
    return " × ".join("?" if size is None else str(size) for size in shape)


def _shapes(tensors: Sequence[Any]) -> str:
    return " and ".join(_shape(tensor.shape[1:]) for tensor in tensors)


def _units(number: int | None) -> str:
    """Write a number with three digits, none if it is 0.

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


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Names and kinds begin at their column's border, the others end there; of a long name the end is kept."""
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
    return re.sub(" {3,}", lambda gap: f" {'─' * (len(gap[0]) - 2)} ", line)


if __name__ == "__main__":
    cli.main(Describe, run)
