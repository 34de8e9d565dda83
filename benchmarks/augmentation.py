"""How fast training photos are changed, beside Keras' own layers and TensorFlow's ops for images, in one run.

python benchmarks/augmentation.py                  # on smooth noise
python benchmarks/augmentation.py --data flowers   # on up to 256 *.jpg below this folder
python benchmarks/augmentation.py --sizes 224 --only usual mixup

How to read it: the first columns are photos a second, of tlkit in one thread and through `tlkit.data.batches` (which
reads, changes and collects them in several), then of Keras' layers and of TensorFlow's ops in a `tf.data` map over
batches or photos, as their documentation has it, with all cores. The last columns say how many times more `batches`
gives: the medians of ratios of measurements that follow each other, as other programs may take their share of the
machine. "-" is where there are no such ops. Photos are decoded already; the last lines are two limits: photos a second
that one thread copies, which no change can beat, and that it decodes from JPEG, which come before in the first epoch.

The changes are those of the rows in `ROWS`; `usual` is what `train` does unless told otherwise, one affine
resample and one table in tlkit, six layers in Keras. Two things are not equal: Keras' layers give float32, four times
the memory, where tlkit's photos stay uint8, and its `all` has neither crop nor CutMix.

Where other programs compete for the processor, `--clock cpu` counts processor time, all threads together, instead.
"""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
from PIL import Image

COUNT, BATCH, CLASSES = 256, 32, 5
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
GEOMETRY = {"flip": True, "rotation": 10.0, "zoom": 0.2, "shift": 0.1}
USUAL = {**GEOMETRY, "brightness": 0.1, "contrast": 0.2}
ROWS: dict[str, dict[str, Any]] = {
    "flip": {"flip": True},
    "usual": USUAL,
    "crop": {"crop": 0.3},
    "randaugment": {"policy": "randaugment"},
    "trivialaugment": {"policy": "trivialaugment"},
    "erasing": {"erasing": 0.25},
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
    "all": {**USUAL, "crop": 0.3, "policy": "randaugment", "erasing": 0.25, "mixup": 0.2, "cutmix": 1.0},
}


def main() -> None:
    """Measure and print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with photos")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 256], help="height and width in pixels")
    parser.add_argument("--only", choices=ROWS, nargs="+", default=list(ROWS), help="rows of the table")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each number; the median counts")
    parser.add_argument("--seconds", type=float, default=0.4, help="that a measurement takes, or two batches")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: photos a second of processor time")
    options = parser.parse_args()
    import keras

    print(
        f"keras {keras.__version__}, OpenCV {cv2.__version__}, {len(os.sched_getaffinity(0))} cores, batches of {BATCH}"
    )
    for size in options.sizes:
        files = jpegs(options.data, size)
        pixels = np.stack([decoded(file, size) for file in files * math.ceil(COUNT / len(files))][:COUNT])
        print(f"\n{size} x {size:<12} {'one thread':>11}{'batches':>9}{'Keras':>9}{'TensorFlow':>12}", end="")
        print(f"{'/ Keras':>10}{'/ TensorFlow':>14}")
        for name in options.only:
            print(f"{name:<18} {row(name, pixels, options.rounds, options.seconds, CLOCKS[options.clock])}", flush=True)
        for what, one in (("copy", pixels[0].copy), ("decode a JPEG", functools.partial(decoded, files[0], size))):
            start = functools.partial(map, lambda _, one=one: one(), itertools.count())
            print(f"{what:<18} {rate(start, options.seconds, 1, CLOCKS[options.clock]):>11,.0f}")


def jpegs(folder: Path | None, size: int) -> list[bytes]:
    """Give photos as files, those of a folder or smooth noise."""
    if folder:
        paths = sorted(folder.rglob("*.jpg"))
        return [path.read_bytes() for path in paths[:: max(1, len(paths) // COUNT)][:COUNT]]
    files = []
    for seed in range(16):
        noise = np.random.default_rng(seed).integers(0, 256, (size // 8, size // 8, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).resize((2 * size, 2 * size), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def decoded(file: bytes, size: int) -> np.ndarray:
    """The photo at its size."""
    from tlkit.data import decode

    return decode(file, (size, size))


def row(name: str, pixels: np.ndarray, rounds: int, seconds: float, clock: Callable[[], float]) -> str:
    """Measure one kind of change in every way, in turn."""
    labels = np.arange(len(pixels)) % CLASSES
    ways: dict[str, Callable[[], Iterator[Any]]] = {
        "one thread": functools.partial(one_thread, pixels, labels, ROWS[name]),
        "batches": forever(ours(pixels, labels, ROWS[name])),
        "keras": of_map(keras_layers(name, pixels.shape[1]), pixels, labels, batched=True),
    }
    change, batched = tensorflow_ops(name, pixels.shape[1])
    ways["tensorflow"] = of_map(change, pixels, labels, batched=batched)
    ways = {way: start for way, start in ways.items() if start}
    found: dict[str, list[float]] = {way: [] for way in ways}
    for start in ways.values():
        next(start())  # what is traced once
    for _ in range(rounds):
        for way, start in ways.items():
            found[way].append(rate(start, seconds, BATCH, clock))
    line = ""
    for way, width in (("one thread", 11), ("batches", 9), ("keras", 9), ("tensorflow", 12)):
        line += f"{statistics.median(found[way]):>{width},.0f}" if way in found else f"{'-':>{width}}"
    for way, width in (("keras", 10), ("tensorflow", 14)):
        ratios = [a / b for a, b in zip(found["batches"], found.get(way, []), strict=False)]
        line += f"{statistics.median(ratios):>{width}.1f}" if ratios else f"{'-':>{width}}"
    return line


def rate(start: Callable[[], Iterator[Any]], seconds: float, each: int, clock: Callable[[], float]) -> float:
    """Photos a second, after two batches, so that what was begun ahead of the clock weighs little."""
    steps = start()
    for _ in range(2):
        next(steps)
    began, count = clock(), 0
    while clock() - began < seconds or count < 2 * each:
        next(steps)
        count += each
    return count / (clock() - began)


def one_thread(pixels: np.ndarray, labels: np.ndarray, augment: dict[str, Any]) -> Iterator[Any]:
    """Change the photos here, batch by batch."""
    from tlkit.data import Photos
    from tlkit.data.plan import Plan

    plan = Plan(Photos.of(pixels, labels), BATCH, True, 0, augment, labels.astype(np.int32), classes=CLASSES)
    for epoch in range(10**6):
        for step, indices in enumerate(plan.order(epoch)):
            yield plan.batch(epoch, indices, step)


def ours(pixels: np.ndarray, labels: np.ndarray, augment: dict[str, Any]) -> Any:
    """Batches as `fit` gets them."""
    from tlkit.data import Photos, batches

    return batches(Photos.of(pixels, labels), BATCH, shuffle=True, augment=augment, classes=CLASSES)


def forever(dataset: Any) -> Callable[[], Iterator[Any]]:
    """Epoch after epoch."""
    repeated = dataset.repeat()
    return lambda: iter(repeated)


def of_map(change: Any, pixels: np.ndarray, labels: np.ndarray, batched: bool) -> Callable[[], Iterator[Any]] | None:
    """A tf.data pipeline of the photos in memory, with a change of photos or of batches."""
    import tensorflow as tf

    if change is None:
        return None
    hot = np.eye(CLASSES, dtype=np.float32)[labels]
    dataset = tf.data.Dataset.from_tensor_slices((pixels, hot)).shuffle(COUNT, reshuffle_each_iteration=True)
    if batched:
        dataset = dataset.batch(BATCH).map(change, num_parallel_calls=tf.data.AUTOTUNE)
    else:
        dataset = dataset.map(change, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH)
    return forever(dataset.prefetch(tf.data.AUTOTUNE))


def keras_layers(name: str, size: int) -> Any:
    """The same changes by Keras' layers, of batches."""
    from keras import layers

    usual = [
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(10 / 360),
        layers.RandomZoom(0.2),
        layers.RandomTranslation(0.1, 0.1),
        layers.RandomBrightness(0.1),
        layers.RandomContrast(0.2, value_range=(0, 255)),
    ]
    photo = {
        "flip": usual[:1],
        "usual": usual,
        "randaugment": [layers.RandAugment(num_ops=2, factor=0.3)],
        "erasing": [layers.RandomErasing(0.25)],
    }.get(name)
    mixing = {"mixup": layers.MixUp(0.2), "cutmix": layers.CutMix(1.0)}.get(name)
    if name == "all":
        photo = [*usual, layers.RandAugment(num_ops=2, factor=0.3), layers.RandomErasing(0.25)]
        mixing = layers.MixUp(0.2)
    if not photo and not mixing:
        return None

    def change(images: Any, labels: Any) -> Any:
        for layer in photo or []:
            images = layer(images, training=True)
        if mixing:
            mixed = mixing({"images": images, "labels": labels}, training=True)
            return mixed["images"], mixed["labels"]
        return images, labels

    return change


def tensorflow_ops(name: str, size: int) -> tuple[Any, bool]:
    """The same changes by TensorFlow's ops, and whether they are of batches."""
    import tensorflow as tf

    def flip(image: Any, label: Any) -> Any:
        return tf.image.random_flip_left_right(image), label

    def usual(image: Any, label: Any) -> Any:
        image = tf.image.random_flip_left_right(image)
        angle, scale = tf.random.uniform((), -1, 1) * math.radians(10), 1 + tf.random.uniform((), -0.2, 0.2)
        cos, sin = tf.cos(angle) / scale, tf.sin(angle) / scale
        right, down = (
            size / 2 + tf.random.uniform((), -0.1, 0.1) * size,
            size / 2 + tf.random.uniform((), -0.1, 0.1) * size,
        )
        warp = [cos, sin, size / 2 - cos * right - sin * down, -sin, cos, size / 2 + sin * right - cos * down, 0.0, 0.0]
        given = {"output_shape": (size, size), "fill_value": 0.0, "interpolation": "BILINEAR", "fill_mode": "REFLECT"}
        image = tf.raw_ops.ImageProjectiveTransformV3(images=image[None], transforms=tf.stack(warp)[None], **given)[0]
        image = tf.image.random_contrast(tf.image.random_brightness(image, 0.1), 0.8, 1.2)
        return image, label

    def crop(image: Any, label: Any) -> Any:
        begin, length, _ = tf.image.sample_distorted_bounding_box(
            tf.shape(image), tf.zeros((1, 0, 4)), area_range=(0.3, 1), aspect_ratio_range=(3 / 4, 4 / 3),
            use_image_if_no_bounding_boxes=True,
        )  # fmt: skip
        return tf.image.resize(tf.slice(image, begin, length), (size, size)), label

    def inside(area: Any) -> Any:
        half = size * tf.sqrt(area) / 2
        row, column = tf.unstack(tf.random.uniform((2,), 0, size))
        down = tf.abs(tf.range(size, dtype=tf.float32) - row) < half
        along = tf.abs(tf.range(size, dtype=tf.float32) - column) < half
        return (down[:, None] & along)[..., None]

    def erasing(image: Any, label: Any) -> Any:
        noise = tf.cast(tf.random.uniform((size, size, 3), 0, 256, tf.int32), tf.uint8)
        erased = inside(tf.random.uniform((), 0.02, 0.33)) & (tf.random.uniform(()) < 0.25)
        return tf.where(erased, noise, image), label

    def beta(alpha: float) -> Any:
        one, other = tf.unstack(tf.random.gamma((2,), alpha))
        return one / (one + other)

    def mixup(images: Any, labels: Any) -> Any:
        share, images = beta(0.2), tf.cast(images, tf.float32)
        return share * images + (1 - share) * images[::-1], share * labels + (1 - share) * labels[::-1]

    def cutmix(images: Any, labels: Any) -> Any:
        pasted = inside(1 - beta(1.0))
        share = 1 - tf.reduce_mean(tf.cast(pasted, tf.float32))
        return tf.where(pasted, images[::-1], images), share * labels + (1 - share) * labels[::-1]

    alone = {"flip": flip, "usual": usual, "crop": crop, "erasing": erasing}
    return alone.get(name) or {"mixup": mixup, "cutmix": cutmix}.get(name), name not in alone


if __name__ == "__main__":
    main()
