"""Big data sets: memory and time of listing and splitting photos, and of heads on more features than memory holds.

    python benchmarks/big_data.py photos FOLDER [--count 10000 100000 1000000]
    python benchmarks/big_data.py head FOLDER [--count 1000000 --features 1280 --classes 10]

FOLDER gets tiny photos (4 kB of disk each, all different, 100 classes), or a store with simulated features in float16.
Each line is of a process of its own; CPU seconds are of all its threads. `peak` is the largest resident memory; `own`
leaves out pages of files that are mapped into memory, which the system drops when others need the room.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 100
SEGMENT = 4096


def status(field: str) -> float:
    """Memory of this process, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) / 1000 for line in lines if line.startswith(field))


class Watch:
    """Steps of a process: prints the seconds and memory of each."""

    def __init__(self) -> None:
        self.own = 0.0
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            self.own = max(self.own, status("RssAnon"))
            time.sleep(0.05)

    def step(self, name: str, act: Callable[[], Any]) -> Any:
        """Do something, and print what it took."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = act()
        seconds = f"{time.process_time() - cpu:8.1f} s CPU {time.perf_counter() - wall:8.1f} s"
        print(f"  {name:22}{seconds}  peak {status('VmHWM'):6.0f} MB, own {self.own:6.0f} MB", flush=True)
        return result


def make_photos(folder: Path, count: int) -> None:
    """Write tiny PNGs, all different."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0))
    for number in range(count):
        path = folder / f"class_{number % CLASSES:03}" / f"photo_{number:07}.png"
        if number < CLASSES:
            path.parent.mkdir(parents=True, exist_ok=True)
        pixels = hashlib.sha256(str(number).encode()).digest()[:16]
        rows = b"".join(b"\0" + pixels[row : row + 4] for row in range(0, 16, 4))
        path.write_bytes(head + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def list_photos(folder: Path) -> None:
    """List, hash, split and write the manifest, as `feature_extraction` does before the first feature."""
    from tlkit import data
    from tlkit.recipes import _inputs

    watch = Watch()
    examples = watch.step("list", lambda: data.load_source("folder", path=folder))
    splits = watch.step("hash and split", lambda: data.load(examples, size=(32, 32), check=False))
    digest = watch.step("digest", lambda: splits.digest)
    manifest = folder.with_name(f"{folder.name}.csv")
    watch.step("manifest", lambda: splits.write_manifest(manifest))
    print(_inputs.summary(splits), f"\nmanifest: {manifest.stat().st_size / 1e6:.0f} MB, SHA-256 {digest[:16]}…")


def solve(folder: Path, count: int, features: int, classes: int) -> None:
    """Solve a head on simulated features in a store: normal ones around a center for each class."""
    from tlkit import probes
    from tlkit.features import Features
    from tlkit.features.store import Store

    rng, watch = np.random.default_rng(0), Watch()
    labels = rng.integers(0, classes, count)
    centers = rng.normal(size=(classes, features)).astype(np.float32) * (6 / features) ** 0.5
    hashes = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]
    keys = [bytes.fromhex(hash_) for hash_ in hashes]
    store = Store(folder / f"store_{count}_{features}_{classes}", limit=1e12)
    space = store.space({"network": "simulated", "shape": [features], "dtype": "float16"}).refresh()

    def write() -> None:
        for start in range(0, count, SEGMENT):
            here = slice(start, min(start + SEGMENT, count))
            if keys[start] not in space.places:
                noise = rng.normal(size=(here.stop - start, features)).astype(np.float32)
                space.write(keys[here], (centers[labels[here]] + noise).astype(np.float16))

    watch.step("import, keys", lambda: None)
    watch.step("write", write)
    part, row = watch.step("verify and index", lambda: space.refresh().use(keys))
    known = Features(labels, hashes, hashes, space.segments, part, row, (features,), np.dtype(np.float16))
    passes = count_passes(probes.problem.Problem)
    options: dict[str, Any] = {"groups": hashes, "sample_only": True}
    probe = watch.step("solve", lambda: probes.logistic_regression(known.array(), labels, classes, **options))
    print(f"  {len(passes)} passes over all features, {np.median(passes):.1f} s each (median); l2 {probe.l2:.2g}")
    predicted = watch.step("predict", lambda: probe.probabilities(known.array()))
    bayes = sum(
        int(((known[start : start + SEGMENT].astype(np.float32) @ centers.T - (centers**2).sum(1) / 2).argmax(1)
             == labels[start : start + SEGMENT]).sum()) for start in range(0, count, SEGMENT)
    )  # fmt: skip
    print(f"  accuracy {np.mean(predicted.argmax(1) == labels):.4f}; with the true centers {bayes / count:.4f}")


def count_passes(problem: Any) -> list[float]:
    """Return a list that gets the seconds of each pass of the solver over features that are read in slices."""
    seconds: list[float] = []
    loss = problem.loss

    def timed(self: Any, *args: Any) -> Any:
        began = time.perf_counter()
        result = loss(self, *args)
        if not isinstance(self.features, np.ndarray):
            seconds.append(time.perf_counter() - began)
        return result

    problem.loss = timed
    return seconds


def main() -> None:
    """Run the benchmark that is named, each count in a new process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["photos", "head"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, nargs="+", default=[])
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=10)
    given = parser.parse_args()
    context, failed = multiprocessing.get_context("spawn"), 0
    for count in given.count or ([10_000, 100_000, 1_000_000] if given.what == "photos" else [1_000_000]):
        print(f"{count:,}:", flush=True)
        if given.what == "photos":
            photos = given.folder / f"photos_{count}"
            if not photos.exists():
                make_photos(photos, count)
            process = context.Process(target=list_photos, args=(photos,))
        else:
            process = context.Process(target=solve, args=(given.folder, count, given.features, given.classes))
        process.start()
        process.join()
        failed += process.exitcode != 0
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
