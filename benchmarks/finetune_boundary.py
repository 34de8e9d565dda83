"""How fast the last stage learns from stored activations, beside learning it through the frozen layers.

python benchmarks/finetune_boundary.py --data flowers   # has train/CLASS/*.jpg and val/CLASS/*.jpg

The same network, photos, seed and steps each time, so the curves must be the same; each row is a process of its own.
The peer (`_peers.py`) is what the Keras guide does. An epoch is the median of all but the first, which compiles.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _peers import peak_memory
from feature_extraction import child, disk, peer

NAME, ALPHA, SIZE, STAGE = "MobileNet", 0.75, 224, "stage4"
OURS = ("through", "stored", "stored again", "stored float32", "4 views through", "4 views stored")


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train and val")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--ours", choices=OURS, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        print(json.dumps(ours(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = {"keras-last-stage": peer("keras-last-stage", options.data, 0)}
        for name in OURS:
            arguments = ["--data", str(options.data), "--ours", name, "--epochs", str(options.epochs)]
            store = Path(folder) / {"stored again": "stored"}.get(name, name)
            rows[f"tlkit, {name}"] = child([sys.executable, __file__, *arguments, "--store", str(store)])
    base = rows["tlkit, through"]["epoch"]
    print(
        f"\n{'':<24}{'store s':>8}{'epoch s':>9}{'through / it':>14}{'memory MB':>11}{'disk MB':>9}  loss of each epoch"
    )
    for name, run in rows.items():
        epoch = run["parts"]["epoch"] if "parts" in run else run["epoch"]
        losses = " ".join(f"{loss:.4f}" for loss in run.get("losses", []))
        print(
            f"{name:<24}{run.get('store', 0):>8.1f}{epoch:>9.2f}{base / epoch:>14.1f}{run['peak_memory_mb']:>11.0f}"
            f"{run['disk_mb']:>9.0f}  {losses}"
        )


def ours(options: argparse.Namespace) -> dict[str, Any]:
    """Train MobileNet's last stage, through the frozen layers or from the store."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from tlkit import backbones, data, features, runtime, training
    from tlkit.features.store import Store

    runtime.prepare(0, "float32")
    backbone = backbones.build(NAME, (SIZE, SIZE, 3), "imagenet", ALPHA)
    splits = data.load("folder", path=options.data, size=(SIZE, SIZE), channels=3, val_as_test=True)
    model = backbones.classifier(backbone, len(splits.classes), dropout=0.2)
    backbones.unfreeze(model, NAME, STAGE)
    network, train, val, began = model, splits.train, splits.val, time.perf_counter()
    views = [splits.train]
    if "views" in options.ours:
        change = {"flip": True, "rotation": 10.0, "zoom": 0.2, "shift": 0.1}
        views = [data.View(splits.train, change, 0, number) for number in range(4)]
        train = data.Views(views)
    if "stored" in options.ours:
        lower, network = backbones.split(model, NAME, STAGE)
        kept = "float32" if "float32" in options.ours else "float16"
        *seen, val = features.Extractor(lower, Store(options.store), dtype=kept).extract(*views, splits.val)
        train = data.Views(seen) if "views" in options.ours else seen[0]
    stored = time.perf_counter() - began
    settings = training.Settings(options.epochs, 1e-4, patience=options.epochs)
    history = training.fit_full(network, train, val, settings)
    return {
        "store": stored,
        "epoch": statistics.median([epoch["seconds"] for epoch in history.epochs][1:]),
        "losses": [epoch["loss"] for epoch in history.epochs],
        "peak_memory_mb": peak_memory(),
        "disk_mb": disk(options.store),
    }


if __name__ == "__main__":
    main()
