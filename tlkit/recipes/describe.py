"""Describe a network layer by layer, count what it costs and, if asked, draw its filters, feature maps and fields.

python -m tlkit.recipes.describe --builder.name vgg16 --pictures vgg16
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit import arithmetic, cli
from tlkit.config import Describe
from tlkit.display import quoted, say
from tlkit.recipes import _described_network, _jobs, _layer_table, _links, _network_pictures

if TYPE_CHECKING:
    import keras

WIDEST = 120  # columns of the table


def run(config: Describe) -> list[arithmetic.Row]:
    """Print and return what each layer does and costs, and save pictures if a folder is given."""
    _network_pictures.check_files(config)
    _jobs.start_keras()
    from tlkit import anatomy

    network = _described_network.load(config)
    model = network.model
    rows = arithmetic.describe(model)
    stages = anatomy.stages(model, network.ends) if len(model.inputs) == 1 else []
    width = min(shutil.get_terminal_size().columns, WIDEST)
    say(f"{network.name}: {_shapes(model.inputs)} → {_shapes(model.outputs)}, {network.weights}\n")
    say("\n".join(_layer_table.table(rows, {stage.layer: stage.name for stage in stages}, width)))
    say("field, stride: in cells of the input, along each axis; BN: batch normalization\n")
    say("\n".join(_layer_table.summary(model, rows)))
    if config.pictures is not None:
        _network_pictures.save(network, stages, Path(config.pictures), config.photo)
    say("\nNext:")
    for command in _next(config):
        say(f"  {_links.recipe(command)}")
    return rows


def _shapes(tensors: list[keras.KerasTensor]) -> str:
    return " and ".join(_layer_table.spaced(tensor.shape[1:]) for tensor in tensors)


def _next(config: Describe) -> list[str]:
    """Give the commands that draw this network, unless that is done, and use it."""
    network = config.builder
    if config.model is not None:
        flags, use = f"--model {quoted(config.model)}", f"predict {quoted(config.model)} photo.jpg"
    else:
        values = {field.name: getattr(network, field.name) for field in dataclasses.fields(network)}
        flags = " ".join(f"--builder.{name} {_flag(value)}" for name, value in values.items() if value is not None)
        pretrained = _described_network.is_backbone(network.name)
        use = f"{'finetune --backbone' if pretrained else 'train --builder'}.name {quoted(network.name)}"
    return [use] if config.pictures else [f"describe {flags} --pictures pictures", use]


def _flag(value: object) -> str:
    return quoted(str(value).replace(" ", ""))


if __name__ == "__main__":
    cli.main(Describe, run)
