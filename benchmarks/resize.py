"""How a photo becomes a square: each way of `data.resize`, compared by probes on the features of pretrained networks.

python benchmarks/resize.py --data flowers trash textures   # each has train/CLASS/*.jpg, and val/ or test/

Each row is a network on a data set. The first table is the cross-validated accuracy of logistic regression on the
features of the training photos (the mean over five draws of the folds), by which a default may be chosen. The second is
the accuracy of the same probe on the other split, which is looked at after the first table is printed. `auto` is
the mode that is best in the row of the first table. Features are kept in the activation store (TLKIT_CACHE), so that a
run that was stopped continues.

`--fills` compares what `pad` may fill with, on the training photos alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

NETWORKS = {"MobileNet 0.25": ("MobileNet", 0.25), "MobileNet 0.75": ("MobileNet", 0.75),
            "MobileNetV2 0.35": ("MobileNetV2", 0.35)}  # fmt: skip
SIZE = 224
FILLS = {"black": 0, "gray": 128, "white": 255}
SEEDS = range(5)  # of the folds


class Measured(NamedTuple):
    """A network on a data set in one mode.

    Args:
        validated: Cross-validated accuracy of the probe on the training photos.
        probe: The probe.
        held: Features and labels of the split that it did not learn from.
    """

    validated: float
    probe: Any
    held: tuple[np.ndarray, np.ndarray]

    def tested(self) -> float:
        """Look at the other split."""
        features, labels = self.held
        return float((self.probe.probabilities(features).argmax(1) == labels).mean())


def main() -> None:
    """Measure every combination and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders with train, and val or test")
    parser.add_argument("--fills", action="store_true", help="compare what pad may fill with")
    options = parser.parse_args()
    from tlkit.data import resizing

    rows: dict[str, int | None] = {**FILLS} if options.fills else dict.fromkeys(resizing.RESIZES)
    measured: dict[str, dict[str, Measured]] = {}
    for name, (backbone, alpha) in NETWORKS.items():
        for folder in options.data:
            row = f"{folder.name}, {name}"
            measured[row] = {mode: measure(folder, backbone, alpha, mode, fill) for mode, fill in rows.items()}
            print(row, *(f"{mode} {each.validated:.3f}" for mode, each in measured[row].items()), flush=True)
    validated = {row: {mode: each.validated for mode, each in modes.items()} for row, modes in measured.items()}
    show(f"cross-validated accuracy on training photos, seeds {SEEDS.start} to {SEEDS.stop - 1}", validated)
    if not options.fills:
        tested = {row: {mode: each.tested() for mode, each in modes.items()} for row, modes in measured.items()}
        for row, modes in validated.items():
            tested[row]["auto"] = tested[row][max(modes, key=modes.__getitem__)]
        show("accuracy on the other split", tested)


def measure(folder: Path, backbone: str, alpha: float, mode: str, fill: int | None) -> Measured:
    """Compute or find the features of all photos in one mode, and solve the probe on those to train on."""
    from tlkit import backbones, data, features, probes
    from tlkit.data import resizing
    from tlkit.features.store import Store

    store: Store | None = Store()
    if fill is not None:
        mode, resizing.GRAY, store = "pad", fill, None  # the store's key does not know the fill
    splits = data.load(
        "folder",
        path=folder,
        size=(SIZE, SIZE),
        channels=3,
        resize=mode,
        check=False,
        val_as_test=not (folder / "test").is_dir(),
    )
    network = backbones.build(backbone, (SIZE, SIZE, 3), "imagenet", alpha=alpha)
    extractor = features.Extractor(
        features.pooled(backbones.classifier(network, len(splits.classes))), store, label=f"{backbone} {alpha}"
    )
    parts = [splits.train, splits.val] if fill is not None else [splits.train, splits.val, splits.test]
    train, val, *held = extractor.extract(*parts)
    known = features.Features.joined([train, val])
    values, labels = known.array(), known.labels
    solved = [
        probes.logistic_regression(values, labels, len(splits.classes), groups=known.groups, seed=seed)
        for seed in SEEDS
    ]
    validated = float(np.mean([probe.held_out.argmax(1) == labels for probe in solved]))
    return Measured(validated, solved[0], (held[0].array(), held[0].labels) if held else (values, labels))


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Print a table with its means; the standard error is that of the difference to `squash` or the first column."""
    columns = list(next(iter(rows.values())))
    print(f"\n{title}\n{'':<28}" + "".join(f"{column:>9}" for column in columns))
    for row, values in rows.items():
        print(f"{row:<28}" + "".join(f"{values[column]:>9.3f}" for column in columns))
    table = np.array([[values[column] for column in columns] for values in rows.values()])
    print(f"{'mean':<28}" + "".join(f"{mean:>9.4f}" for mean in table.mean(0)))
    difference = table - table[:, :1]
    print(f"{'minus ' + columns[0]:<28}" + "".join(f"{mean:>9.4f}" for mean in difference.mean(0)))
    error = difference.std(0, ddof=1) / len(table) ** 0.5 if len(table) > 1 else np.zeros(len(columns))
    print(f"{'standard error of that':<28}" + "".join(f"{value:>9.4f}" for value in error))


if __name__ == "__main__":
    main()
