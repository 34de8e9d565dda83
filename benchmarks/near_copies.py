"""How many near copies are found, and how many photos are wrongly said to have one.

KERAS_HOME=keras_home python benchmarks/near_copies.py --data flowers trash   # each has SPLIT/CLASS/*.jpg
python benchmarks/near_copies.py --scale                                      # vectors of 1,000 to 100,000 photos

Photos of all splits are put together and divided in two halves: thresholds were chosen on one (--half calibrate), the
table is of the other. Of each kind of change, copies of `--each` photos are made, saved as JPEG of quality 50, and
searched among the half. `said` are photos of the half that are said to have a near copy in it; nobody made one, so they
are false, or real near copies of the set: look at the sheets that `--sheets` writes. `pairs` are random pairs of
different photos of one class that are said to be near copies.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NETWORKS = {"MobileNet 0.25": 0.25, "MobileNet 0.75": 0.75, "MobileNetV2 0.35": 0.35}
SIZE = 224
Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def crop(image: Image.Image, share: float, rng: np.random.Generator, centre: bool = False) -> Image.Image:
    """Cut a rectangle that has a share of each side."""
    width, height = round(image.width * share), round(image.height * share)
    across, down = image.width - width, image.height - height
    x, y = (across // 2, down // 2) if centre else (int(rng.integers(across + 1)), int(rng.integers(down + 1)))
    return image.crop((x, y, x + width, y + height))


def burst(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Move, turn and brighten a little, and add noise: the next frame of a camera in a hand."""
    turned = crop(image.rotate(float(rng.uniform(-2, 2)), Image.Resampling.BILINEAR), 0.92, rng)
    values = np.asarray(turned).astype(float)
    values = values * rng.uniform(0.95, 1.05) + rng.normal(0, 4, values.shape)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


CHANGES: dict[str, Change] = {
    "JPEG": lambda image, rng: image,
    "mirrored": lambda image, rng: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "half": lambda image, rng: image.resize((image.width // 2, image.height // 2)),
    "+10 %": lambda image, rng: image.point(lambda value: min(255, int(value * 1.1))),
    "-10 %": lambda image, rng: image.point(lambda value: int(value * 0.9)),
    "centre": lambda image, rng: crop(image, 0.8, rng, centre=True),
    "crop": lambda image, rng: crop(image, 0.8, rng),
    "area": lambda image, rng: crop(image, 0.8**0.5, rng),
    "burst": burst,
    "crop, m.": lambda image, rng: crop(image, 0.8, rng).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="folders with SPLIT/CLASS/*.jpg")
    parser.add_argument("--half", choices=("calibrate", "report"), default="report")
    parser.add_argument("--each", type=int, default=40, help="photos that each kind of change is made of")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheets", type=Path, help="folder for pictures of the pairs that are said to be near copies")
    parser.add_argument("--scale", action="store_true")
    options = parser.parse_args()
    if options.scale:
        scale()
    elif not options.data:
        parser.error("give --data FOLDER or --scale")
    else:
        print(f"| set | candidates by | {' | '.join(CHANGES)} | found % | said % | pairs % | ms a photo |")
        print(f"|---|---|{'---|' * (len(CHANGES) + 4)}", flush=True)
        for folder in options.data:
            measure(folder, options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Print a row for each kind of candidates."""
    from tlkit import data
    from tlkit.inspection import alignment, near_copies

    rng = np.random.default_rng(options.seed)
    files = sorted(folder.glob("*/*/*.jpg"))
    part = np.array_split(np.random.default_rng(0).permutation(len(files)), 2)[options.half == "report"]
    files = [files[i] for i in sorted(part)]
    classes = np.unique([path.parent.name for path in files], return_inverse=True)[1]
    photos = [Image.open(path).convert("RGB") for path in files]
    sources = {name: rng.choice(len(files), options.each, replace=False) for name in CHANGES}
    made = [as_jpeg(CHANGES[name](photos[i], rng)) for name, indices in sources.items() for i in indices]
    source = np.concatenate(list(sources.values()))
    base = data.Photos.of(squeezed(photos), classes, [path.name for path in files])
    copies = data.Photos.of(squeezed(made), classes[source])
    places = np.arange(len(files))
    pairs = [(i, int(rng.choice(places[(classes == classes[i]) & (places != i)]))) for i in places]
    thumbnails = [alignment.thumbnail(image) for image in base.read(np.arange(len(base)))]
    strangers = 100 * np.mean([alignment.alike(thumbnails[i], thumbnails[j]) >= alignment.ALIKE for i, j in pairs])
    for name, features in vectors(copies, base).items():
        began = time.perf_counter()
        found = near_copies.across(copies, base, features)
        seconds = time.perf_counter() - began
        # The origin, or one that is like it: a set may hold a photo twice.
        right = np.zeros(len(source), bool)
        for copy, original, _ in found:
            right[copy] = alignment.alike(thumbnails[original], thumbnails[source[copy]]) >= alignment.ALIKE
        right = right.reshape(len(CHANGES), -1)
        among = near_copies.within(base, features and features[1])
        said = {i for pair in among for i in pair[:2]}
        shares = " | ".join(f"{100 * share:.0f}" for share in right.mean(axis=1))
        speed = 1e3 * seconds / (len(source) + (len(base) if features is None else 0))
        print(
            f"| {folder.name} | {name} | {shares} | {100 * right.mean():.1f} | {100 * len(said) / len(base):.2f} "
            f"({len(among)} pairs) | {strangers:.2f} | {speed:.1f} |",
            flush=True,
        )
        if options.sheets and among:
            draw(options.sheets / f"{folder.name} {name}.png", base, among)


def as_jpeg(image: Image.Image) -> Image.Image:
    """Save as JPEG of quality 50 and open that."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def squeezed(photos: list[Image.Image]) -> np.ndarray:
    """Make pixels of one size, as a network gets them."""
    return np.stack([np.asarray(photo.resize((SIZE, SIZE), Image.Resampling.BILINEAR)) for photo in photos])


def vectors(*parts: Any) -> dict[str, tuple[np.ndarray, ...] | None]:
    """Return what candidates are found by: None for fingerprints, else pooled features of a network."""
    from tlkit import backbones, features

    given: dict[str, tuple[np.ndarray, ...] | None] = {"pixels": None}
    for name, alpha in NETWORKS.items():
        network = features.pooled(backbones.classifier(backbones.build(name.split()[0], alpha=alpha), 2))
        given[name] = tuple(part[:] for part in features.Extractor(network).extract(*parts))
    return given


def draw(path: Path, photos: Any, pairs: list[Any]) -> None:
    """Draw the pairs that are the least alike."""
    from tlkit import plots

    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = sorted(pairs, key=lambda pair: pair.correlation)[:60]
    images = [photo for pair in pairs for photo in photos.read([pair.first, pair.second])]
    texts = [text for pair in pairs for text in (photos.names[pair.first][:18], f"{pair.correlation:.2f}")]
    missing = -len(images) % 10
    images, texts = images + [np.full_like(images[0], 255)] * missing, texts + [""] * missing
    rows = [(images[i : i + 10], texts[i : i + 10]) for i in range(0, len(images), 10)]
    plots.sheet([row for row, _ in rows], ["photo", "near copy"] * 5, [row for _, row in rows]).savefig(path)


def scale() -> None:
    """Print how long the search for candidates takes, and the memory."""
    from _peers import peak_memory

    from tlkit.inspection import near_copies

    print("| photos | vectors | test × train: s of CPU | all × all: s of CPU | peak MB |\n|---|---|---|---|---|")
    for count in (1_000, 10_000, 100_000):
        for name, size, mirror in (("fingerprints, 108", 108, True), ("features, 512", 512, False)):
            values = np.random.default_rng(0).random((count, size), np.float32)
            seconds = []
            test, train = np.split(values, [count * 15 // 100])
            for queries, others, same in ((test, train, False), (values, values, True)):
                began = time.process_time()
                near_copies.candidates(queries, others, mirror=mirror, same=same)
                seconds.append(f"{time.process_time() - began:.1f}")
            print(f"| {count:,} | {name} | {' | '.join(seconds)} | {peak_memory():.0f} |", flush=True)


if __name__ == "__main__":
    main()
