"""How equal, large and fast the exports of several networks are: a table in Markdown.

python benchmarks/export.py --data flowers                    # photos to compare on; random numbers without
python benchmarks/export.py --networks resnet18 vit_ti_16 --formats onnx openvino

Each network is built in a process of its own: a backbone with a head of five classes and the published weights where
Keras' cache has them, else with random weights and a last layer that tells examples apart. `difference` is the largest
of a probability on 64 photos; times are medians for one example, with one thread and with all.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

NETWORKS = (
    "MobileNet 0.25", "MobileNet 0.75", "MobileNetV2 0.35", "EfficientNetV2B0", "ResNet50V2", "ConvNeXtTiny",
    "resnet18", "vit_ti_16", "resnet18 1-D", "resnet18 3-D",
)  # fmt: skip
SHAPES = {"resnet18 1-D": (8000, 1), "resnet18 3-D": (28, 28, 28, 1)}
EXAMPLES, CLASSES = 64, 5


def build(name: str) -> tuple[Any, str]:
    """Build a network, and say which weights it has."""
    from tlkit import backbones, builders
    from tlkit.errors import InvalidInput, Unavailable

    family, _, alpha = name.partition(" ")
    if family in ("resnet18", "vit_ti_16"):
        return builders.build(family, SHAPES.get(name, (224, 224, 3)), classes=CLASSES), "random"
    width = float(alpha) if alpha else None
    try:
        backbone, weights = backbones.build(family, (224, 224, 3), "pretrained", width), "published"
    except (InvalidInput, Unavailable):
        backbone, weights = backbones.build(family, (224, 224, 3), "none", width), "random"
    return backbones.classifier(backbone, CLASSES), weights


def spread(model: Any, values: np.ndarray) -> None:
    """Give the last layer weights by which the answers for these examples differ: random ones all say the same."""
    import keras

    last = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Dense)][-1]
    before = keras.Model(model.inputs, last.input)
    features = np.concatenate([before.predict_on_batch(part.astype(np.float32)) for part in np.split(values, 8)])
    features = features.reshape(-1, features.shape[-1])
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    kernel = np.random.default_rng(0).normal(0, 2 / np.sqrt(len(mean)), (len(mean), CLASSES))
    kernel = np.where(deviation[:, None] > 1e-3 * deviation.max(), kernel / np.maximum(deviation, 1e-12)[:, None], 0)
    last.set_weights([kernel, -mean @ kernel])


def photos(folder: str | None, shape: tuple[int, ...]) -> np.ndarray:
    """Read photos, or make random numbers."""
    from tlkit import data, export

    if folder is None or len(shape) != 3:
        return export.random_examples(shape, EXAMPLES, len(shape) == 3)
    files = sorted(Path(folder).rglob("*.jpg"))
    chosen = [files[place] for place in np.random.default_rng(0).choice(len(files), EXAMPLES, replace=False)]
    return np.stack([data.decode(file, shape[:2], shape[2], resize="center") for file in chosen])


def measure(name: str, formats: list[str], folder: str | None) -> None:
    """Print the rows of a network."""
    from tlkit import export
    from tlkit.errors import InvalidInput

    model, weights = build(name)
    values = photos(folder, model.input_shape[1:])
    if weights == "random":
        spread(model, values)
    ours = np.concatenate([model.predict_on_batch(part.astype(np.float32)) for part in np.split(values, 8)])
    for form in formats:
        try:
            export.check(form)
            with tempfile.TemporaryDirectory() as place:
                path = export.write(form, model, Path(place))
                found = export.compare(ours, export.run(form, path, values), False, export.Examples(values, None, ""))
                one, every = (export.milliseconds(form, path, values.shape[1:], threads) for threads in (1, 0))
                cells = [
                    f"{found.largest:.1e}", f"{found.agreement:.3f}", f"{one:.2f}", f"{every:.2f}",
                    f"{export.size(path) / 1e6:.1f}",
                ]  # fmt: skip
        except InvalidInput as error:
            cells = [str(error)[:80], "", "", "", ""]
        print(f"| {name} ({weights}) | {form} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure each network in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of photos (.jpg)")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    formats = ["saved_model", "onnx", "openvino", "litert"]
    parser.add_argument("--formats", nargs="+", default=formats, choices=formats)
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.in_this_process:
        measure(given.networks[0], given.formats, given.data)
        return
    print("| network (weights) | format | difference | equal labels | ms, one thread | all | MB |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in given.networks:
        command = [sys.executable, __file__, "--in-this-process", "--networks", name, "--formats", *given.formats]
        command += ["--data", given.data] if given.data else []
        subprocess.run(command, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})  # noqa: S603


if __name__ == "__main__":
    main()
