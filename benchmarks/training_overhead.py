"""What tlkit adds to a step of training: Keras' bare train_step on arrays in memory, its fit, and the recipe finetune.

python benchmarks/training_overhead.py
python benchmarks/training_overhead.py --data data/flowers --rounds 9

All train the same network on the same decoded photos, unchanged, in batches of 32, all of its weights:

- `train_step`: Keras' own, in a tf.function and nothing around it, on arrays in memory.
- `gradient`: the same without Keras' metrics, by the gradient and the optimizer alone; no loop can be faster.
- `fit`: Keras' `fit` on arrays in memory.
- `finetune`: the recipe's second phase as the command runs it, with its pipeline, its table, its checkpoints and
  MLflow in an SQLite file. Its epochs are counted from the beginning of one to the beginning of the next, less the
  validation, so that all is in it that an epoch does; the first, which traces the network, is left out. There are so
  many that checkpoints are written among them, which come ten seconds apart.

They take turns in one process, and each ratio is to the `train_step` right before and after it, so that a machine that
slows down for a while does not count. Processor time, of all threads, stands beside it: what others on the machine take
does not count there. Small steps are the worst case: LetterNet on the digits. Below: what reading photos costs beside
it, from photos that are decoded already, from files, and changed at random.
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
from collections.abc import Callable, Iterator
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
from tlkit.recipes import _plans, finetune

BATCH = 32
BARE = 3  # epochs of bare steps at a time


def now() -> np.ndarray:
    """Seconds that the clock on the wall shows, and that of the processor, all threads together."""
    return np.array([time.perf_counter(), time.process_time()])


def main() -> None:
    """Measure both networks and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of photos for MobileNet; by default 320 that are made up")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=14, help="of finetune; the first is left out")
    parser.add_argument("--only", help="a part of the name of a network")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["TLKIT_CACHE"] = folder
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        source = options.data.resolve() if options.data else made_up(Path(folder) / "photos")
        plain = config.Finetune(
            data=config.Data(path=str(source)),
            backbone=config.Backbone(name="MobileNet", alpha=0.25, weights="none"),
            head=config.Head(solved=False, epochs=0),
            full=config.Full(epochs=options.epochs, patience=1000, batch_normalization="inference"),
            augment=config.Views(flip=False),
        )
        digits = dataclasses.replace(
            plain, data=config.Data(), backbone=config.Backbone(name="LetterNet", weights="none")
        )
        runtime.prepare(0)
        tracking.open_store("benchmark")
        print(f"{'':<34}{'':>9}{'x train_step':>24}{'processor time':>24}")
        print(
            f"{'ms a step of 32':<34}{'median':>9}{'median':>9}{'quartiles':>15}{'median':>9}{'quartiles':>15}",
            flush=True,
        )
        for name, recipe in {"LetterNet, 32 x 32": digits, "MobileNet 0.25, 224 x 224": plain}.items():
            if (options.only or "").lower() in name.lower():
                compare(name, recipe, options.rounds)
        if options.only:
            return
        print(f"\n{'ms a photo, all cores':<34}{'median':>9}")
        for name, milliseconds in reading(plain, options.rounds).items():
            print(f"{name:<34}{milliseconds:>9.3f}")


def compare(name: str, recipe: config.Finetune, rounds: int) -> None:
    """Let all take turns and print their rows."""
    splits = loaded(recipe.data, recipe.backbone.name)
    photos, labels = splits.train.read(range(len(splits.train))), splits.train.labels
    network = backbones.build(recipe.backbone.name, photos.shape[1:], "none", recipe.backbone.alpha)
    model = backbones.classifier(network, len(splits.classes))
    backbones.unfreeze(model, recipe.backbone.name)
    logits = keras.Model(model.inputs, model.get_layer("head").output)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    logits.compile(keras.optimizers.AdamW(1e-4, weight_decay=0.0), loss, metrics=["accuracy"], jit_compile=False)
    logits.optimizer.build(logits.trainable_variables)
    batches = len(photos) / BATCH  # in an epoch; the smaller last one counts by its size
    whole = len(photos) // BATCH * BATCH  # bare steps leave it out: it would be traced again

    @tf.function(reduce_retracing=True)
    def train_step(x: Any, y: Any) -> Any:
        return logits.train_step((x, y))

    @tf.function(reduce_retracing=True)
    def gradient(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            value = loss(y, logits(x, training=True))
        weights = logits.trainable_weights
        logits.optimizer.apply(tape.gradient(value, [weight.value for weight in weights]), weights)
        return {"loss": value}

    def bare(step: Callable[[Any, Any], Any]) -> np.ndarray:
        began = now()
        for _ in range(BARE):
            for start in range(0, whole, BATCH):
                value = step(photos[start : start + BATCH], labels[start : start + BATCH])
        float(value["loss"])
        return (now() - began) / (BARE * whole / BATCH)

    def fit() -> np.ndarray:
        with clock() as epochs:
            logits.fit(photos, labels, batch_size=BATCH, epochs=BARE + 1, verbose=0)
        return mean(epochs)

    def ours() -> np.ndarray:
        with clock() as epochs, contextlib.redirect_stdout(sys.stderr):
            finetune.run(recipe)
        if len(epochs) != recipe.full.epochs:
            raise RuntimeError(f"{len(epochs)} epochs and not {recipe.full.epochs}")
        return mean(epochs)

    def mean(epochs: list[np.ndarray]) -> np.ndarray:  # and not the median: what comes in some epochs alone counts too
        return np.mean(epochs[1:], axis=0) / batches

    parts = {"gradient": lambda: bare(gradient), "fit": fit, "finetune": ours}
    rows: dict[str, list[np.ndarray]] = {"train_step": [], **{part: [] for part in parts}}
    ratios: dict[str, list[np.ndarray]] = {part: [] for part in parts}
    for step in (train_step, gradient):
        bare(step)
    before = bare(train_step)
    for _ in range(rounds):
        for part, run in parts.items():
            rows[part].append(run())
            after = bare(train_step)
            ratios[part].append(2 * rows[part][-1] / (before + after))
            rows["train_step"].append(after)
            before = after
    print(f"{name}, {len(photos)} photos")
    for part, found in rows.items():
        shown = f"{1000 * statistics.median(wall for wall, _ in found):>9.2f}"
        for column in zip(*ratios.get(part, []), strict=True):
            low, middle, high = statistics.quantiles(column, n=4, method="inclusive")
            shown += f"{middle:>9.3f}{f'{low:.3f}-{high:.3f}':>15}"
        print(f"  {part:<32}{shown}", flush=True)


@contextlib.contextmanager
def clock() -> Iterator[list[np.ndarray]]:
    """Give the seconds of each epoch of each `fit` within, up to the beginning of the next, less its validation."""
    epochs: list[np.ndarray] = []
    fit, evaluate = keras.Model.fit, keras.Model.evaluate
    away = np.zeros(2)

    class Epochs(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.began: np.ndarray | None = None

        def next(self) -> None:
            nonlocal away
            time_now = now()
            if self.began is not None:
                epochs.append(time_now - self.began - away)
            self.began, away = time_now, np.zeros(2)

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.next()

        def on_train_end(self, logs: Any = None) -> None:
            self.next()

    def timed_fit(model: Any, *arguments: Any, **more: Any) -> Any:
        more["callbacks"] = [Epochs(), *(more.get("callbacks") or [])]
        return fit(model, *arguments, **more)

    def timed_evaluate(model: Any, *arguments: Any, **more: Any) -> Any:
        nonlocal away
        began = now()
        try:
            return evaluate(model, *arguments, **more)
        finally:
            away = away + now() - began

    keras.Model.fit, keras.Model.evaluate = timed_fit, timed_evaluate
    try:
        yield epochs
    finally:
        keras.Model.fit, keras.Model.evaluate = fit, evaluate


def reading(recipe: config.Finetune, rounds: int) -> dict[str, float]:
    """Give the ms a photo that batches take: decoded ones, from files, and decoded ones that are changed at random."""
    decoded, files = loaded(recipe.data, "MobileNet").train, loaded(recipe.data, "MobileNet", memory=0).train
    changes = _plans.changes(config.Augment(flip=True))
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
