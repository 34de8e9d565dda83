"""What tlkit adds to a step of training: bare Keras on arrays in memory, Keras' fit, and the recipe finetune.

python benchmarks/training_overhead.py
python benchmarks/training_overhead.py --data data/flowers --rounds 9

All train the same network on the same decoded photos, unchanged, in batches of 32, all of its weights:

- `bare`: one tf.function with the gradient and the optimizer, on arrays in memory; no loop can be faster.
- `fit`: Keras' `fit` on arrays in memory.
- `finetune`: the recipe's second phase as the command runs it, with its pipeline, its table, its checkpoints and
  MLflow in an SQLite file. Its epochs are counted from the beginning of one to the beginning of the next, less the
  validation, so that all is in it that an epoch does; the first, which traces the network, is left out.

They take turns in one process, and each ratio is to the `bare` steps right before and after it, so that a machine that
slows down for a while does not count. Small steps are the worst case: LetterNet on the digits. Below: what reading
photos costs beside it, from photos that are decoded already, from files, and changed at random.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import mlflow
import numpy as np
import tensorflow as tf
from PIL import Image

from tlkit import backbones, config, data, runtime, tracking
from tlkit.recipes import _steps, finetune

BATCH = 32


def main() -> None:
    """Measure both networks and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of photos for MobileNet; by default 320 that are made up")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4, help="of each part; one is left out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["TLKIT_CACHE"] = folder
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        source = options.data.resolve() if options.data else made_up(Path(folder) / "photos")
        plain = config.Finetune(
            data=config.Data(path=str(source)),
            backbone=config.Backbone(name="MobileNet", alpha=0.25, weights="none"),
            head=config.Head(solved=False, epochs=0),
            full=config.Full(epochs=options.epochs, patience=1000),
            augment=config.Views(flip=False),
        )
        digits = dataclasses.replace(
            plain, data=config.Data(), backbone=config.Backbone(name="LetterNet", weights="none")
        )
        runtime.prepare(0)
        tracking.open_store("benchmark")
        print(f"{'ms a step of 32':<34}{'median':>9}{'x bare':>9}{'quartiles':>15}", flush=True)
        for name, recipe in {"LetterNet, 32 x 32": digits, "MobileNet 0.25, 224 x 224": plain}.items():
            compare(name, recipe, options.rounds)
        print(f"\n{'ms a photo, all cores':<34}{'median':>9}")
        for name, milliseconds in reading(plain, options.rounds).items():
            print(f"{name:<34}{milliseconds:>9.3f}")


def compare(name: str, recipe: config.Finetune, rounds: int) -> None:
    """Let the three take turns and print their rows."""
    splits = loaded(recipe.data, recipe.backbone.name)
    photos, labels = splits.train.read(range(len(splits.train))), splits.train.labels
    network = backbones.build(recipe.backbone.name, photos.shape[1:], "none", recipe.backbone.alpha)
    model = backbones.classifier(network, len(splits.classes))
    backbones.unfreeze(model, recipe.backbone.name)
    logits = keras.Model(model.inputs, model.get_layer("head").output)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    logits.compile(keras.optimizers.AdamW(1e-4, weight_decay=0.0), loss, metrics=["accuracy"], jit_compile=False)
    logits.optimizer.build(logits.trainable_variables)
    whole = len(photos) // BATCH  # without the smaller last batch, which would be traced again

    @tf.function(reduce_retracing=True)
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            value = loss(y, logits(x, training=True))
        weights = logits.trainable_weights
        logits.optimizer.apply(tape.gradient(value, [weight.value for weight in weights]), weights)
        return value

    def bare() -> float:
        began = time.perf_counter()
        for _ in range(recipe.full.epochs - 1):
            for start in range(0, whole * BATCH, BATCH):
                value = step(photos[start : start + BATCH], labels[start : start + BATCH])
        float(value)
        return (time.perf_counter() - began) / (recipe.full.epochs - 1) / whole

    def fit() -> float:
        with clock() as seconds:
            logits.fit(photos, labels, batch_size=BATCH, epochs=recipe.full.epochs, verbose=0)
        return statistics.median(seconds[1:]) / -(-len(photos) // BATCH)

    def ours() -> float:
        with clock() as seconds, contextlib.redirect_stdout(sys.stderr):
            finetune.run(recipe)
        if len(seconds) != recipe.full.epochs:
            raise RuntimeError(f"{len(seconds)} epochs and not {recipe.full.epochs}")
        return statistics.median(seconds[1:]) / -(-len(photos) // BATCH)

    bare()
    rows: dict[str, list[float]] = {"bare": [], "fit": [], "finetune": []}
    ratios: dict[str, list[float]] = {"fit": [], "finetune": []}
    parts: dict[str, Callable[[], float]] = {"fit": fit, "finetune": ours}
    before = bare()
    for _ in range(rounds):
        for part, run in parts.items():
            rows[part].append(run())
            after = bare()
            ratios[part].append(2 * rows[part][-1] / (before + after))
            rows["bare"].append(after)
            before = after
    print(f"{name}, {len(photos)} photos")
    for part, seconds in rows.items():
        shown = f"{1000 * statistics.median(seconds):>9.2f}"
        if part in ratios:
            low, middle, high = statistics.quantiles(ratios[part], n=4, method="inclusive")
            shown += f"{middle:>9.3f}{f'{low:.3f}-{high:.3f}':>15}"
        print(f"  {part:<32}{shown}", flush=True)


@contextlib.contextmanager
def clock() -> Any:
    """Give the seconds of each epoch of each `fit` within, up to the beginning of the next, less its validation."""
    seconds: list[float] = []
    fit, evaluate = keras.Model.fit, keras.Model.evaluate
    away = 0.0

    class Epochs(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.began: float | None = None

        def next(self) -> None:
            nonlocal away
            now = time.perf_counter()
            if self.began is not None:
                seconds.append(now - self.began - away)
            self.began, away = now, 0.0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.next()

        def on_train_end(self, logs: Any = None) -> None:
            self.next()

    def timed_fit(model: Any, *arguments: Any, **more: Any) -> Any:
        more["callbacks"] = [Epochs(), *(more.get("callbacks") or [])]
        return fit(model, *arguments, **more)

    def timed_evaluate(model: Any, *arguments: Any, **more: Any) -> Any:
        nonlocal away
        began = time.perf_counter()
        try:
            return evaluate(model, *arguments, **more)
        finally:
            away += time.perf_counter() - began

    keras.Model.fit, keras.Model.evaluate = timed_fit, timed_evaluate
    try:
        yield seconds
    finally:
        keras.Model.fit, keras.Model.evaluate = fit, evaluate


def reading(recipe: config.Finetune, rounds: int) -> dict[str, float]:
    """Give the ms a photo that batches take: decoded ones, from files, and decoded ones that are changed at random."""
    decoded, files = loaded(recipe.data, "MobileNet").train, loaded(recipe.data, "MobileNet", memory=0).train
    changes = _steps.changes(config.Augment(flip=True))
    ways: dict[str, tuple[Any, Any]] = {
        "decoded beforehand": (decoded, None),
        "and changed at random": (decoded, changes),
        "decoded from files": (files, None),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, (photos, augment) in ways.items():
            began = time.perf_counter()
            for _ in data.batches(photos, BATCH, shuffle=True, seed=round_, augment=augment):
                pass
            if round_:  # the first warms up
                times[name].append(1000 * (time.perf_counter() - began) / len(photos))
    return {name: statistics.median(values) for name, values in times.items()}


def loaded(given: config.Data, backbone: str, memory: int | None = None) -> data.Splits:
    """Load the photos as the recipe does, at the size of the backbone."""
    row = backbones.row(backbone)
    size, source = (row.size, row.size), given.origin
    path = given.path if source == "folder" else None
    with contextlib.redirect_stderr(io.StringIO()):
        return data.load(source, path=path, size=size, channels=row.channels, memory=memory)


def made_up(folder: Path, count: int = 160, side: int = 320) -> Path:
    """Write photos of two classes, as large as thumbnails are: smooth, with some noise."""
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            smooth = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC), float)
            noisy = np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / name / f"{number:03}.jpg", quality=90)
    return folder


if __name__ == "__main__":
    main()
