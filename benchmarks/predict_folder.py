"""How fast `predict` answers a folder of photos, beside bare OpenVINO and Keras on TensorFlow, and its memory.

python benchmarks/predict_folder.py --data flowers                 # copies of its photos, 1,000 and 10,000 of them
python benchmarks/predict_folder.py --data flowers --model model.keras --counts 500 --rounds 5

Each is a process of its own, and the ways take turns, so that load from outside falls on all. Counted are the seconds
after Keras is imported, which `predict` does without for a model that it has seen: to load the model, prepare the
network, list, decode and answer the photos, and write a table. All decode alike, by tlkit's decoder, in as many threads
as there are cores. `bare OpenVINO` converts the model, asks for float32, and has each thread decode four photos and
compute them, with nothing else. `Keras` calls `model.predict` on batches of 32 that threads have decoded. If a
probability differs from that of the first way by more than 1e-5, the benchmark ends. `to bare` is the median of the
ratios of each round; `CPU` is the processor time of all threads for a photo, which says more where other programs
compete.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WAYS = ("predict", "bare OpenVINO", "Keras")


def answer(way: str, model: str, photos: str, table: str) -> None:
    """Answer all photos, write their labels with probabilities, and print the seconds and the peak of memory."""
    if way != "predict":  # which needs no Keras for a model that it has seen
        import keras  # noqa: F401

    from tlkit.recipes import _models, predict

    began, cpu = time.perf_counter(), time.process_time()
    if way == "predict":
        from tlkit.config import Predict

        predict.run(Predict(model, [photos], output=table))
    else:
        _, loaded, classes, reading, *_ = _models.load_classifier(model)
        from tlkit.serving import many

        names = sorted(str(path) for path in Path(photos).rglob("*.jpg"))
        read = many.reader(loaded.input_shape[1:], reading)
        compute = bare_openvino if way == "bare OpenVINO" else keras_predict
        rows = compute(loaded, names, read)
        with open(table, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "probability"])
            for name, row in zip(names, rows, strict=True):
                writer.writerow([name, classes[row.argmax()], float(row.max())])
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak}))


def bare_openvino(model: Any, names: list[str], read: Any) -> Any:
    """Convert the model, and decode and compute four photos at a time in each thread."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it slows conversion down
    import openvino
    import tensorflow as tf

    @tf.function(autograph=False)
    def call(pixels: Any) -> Any:
        return model(tf.cast(pixels, model.inputs[0].dtype), training=False)

    traced = call.get_concrete_function(tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8))
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(openvino.convert_model(traced), "CPU", hints)
    local = threading.local()

    def compute(start: int) -> np.ndarray:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        batch = np.stack([read(name) for name in names[start : start + 4]])
        return local.request.infer({0: batch}, share_inputs=True)[0]

    with ThreadPoolExecutor(CORES) as pool:
        for rows in pool.map(compute, range(0, len(names), 4)):
            yield from rows


def keras_predict(model: Any, names: list[str], read: Any) -> Any:
    """Decode a batch in threads, and call `model.predict` on it."""
    with ThreadPoolExecutor(CORES) as pool:
        for start in range(0, len(names), 32):
            yield from model.predict(np.stack(list(pool.map(read, names[start : start + 32]))), verbose=0)


def make_model(path: str) -> None:
    """Save a classifier with five classes on MobileNet 0.25 with random weights."""
    from tlkit import backbones, labels

    model = backbones.classifier(backbones.build("MobileNet", alpha=0.25, weights="none"), 5)
    model.save(path)
    labels.write(path, list("abcde"))


def copy_photos(data: str, folder: Path, count: int) -> None:
    """Copy photos of a folder, again and again, until there are enough."""
    files = sorted(Path(data).rglob("*.jpg"))
    for number in range(count):
        part = folder / f"{number // 1000:03}"
        part.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files[number % len(files)], part / f"{number:06}.jpg")


def probabilities(table: Path) -> dict[str, float]:
    """Read the probability of each photo."""
    with open(table, newline="", encoding="utf-8") as file:
        return {row["path"]: float(row["probability"]) for row in csv.DictReader(file)}


def measure(model: str, photos: Path, rounds: int, ways: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Let the ways take turns, and compare what they say."""
    results: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            for way in ways:
                table = Path(folder, f"{turn}_{way}.csv")
                command = [sys.executable, __file__, "--answer", way, model, str(photos), str(table)]
                backend = {"KERAS_BACKEND": "openvino"} if way == "predict" else {}  # as its command line chooses
                environment = os.environ | backend
                done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)  # noqa: S603
                if done.returncode:
                    sys.exit(done.stderr)
                results[way].append(json.loads(done.stdout.splitlines()[-1]))
                expected, given = probabilities(Path(folder, f"0_{ways[0]}.csv")), probabilities(table)
                most = max(abs(given[name] - share) for name, share in expected.items())
                if given.keys() != expected.keys() or most > 1e-5:
                    sys.exit(f"{way} differs by {most:.2g}")
    return results


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of photos (.jpg)")
    parser.add_argument("--model", help="a .keras file; by default MobileNet 0.25 with random weights")
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000], help="numbers of photos")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--answer", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        answer(*options.answer)
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        model = options.model or f"{folder}/model.keras"
        if not options.model:
            make_model(model)
        spread = "(lowest to highest)"
        print(f"{'photos':>7}  {'':14} {'a second':>8} {spread} {'to bare':>8} {'CPU, ms':>8} {'peak, MB':>9}")
        for count in options.counts:
            photos = Path(folder, str(count))
            copy_photos(options.data, photos, count)
            results = measure(model, photos, options.rounds, options.ways)
            bare = results.get("bare OpenVINO", [])
            for way, runs in results.items():
                rates = sorted(count / run["seconds"] for run in runs)
                pairs = zip(bare, runs, strict=True) if bare else ()
                ratio = statistics.median([b["seconds"] / r["seconds"] for b, r in pairs]) if bare else float("nan")
                spread = f"({rates[0]:.0f} to {rates[-1]:.0f})"
                cpu = statistics.median(run["cpu"] for run in runs) / count * 1000
                peak = max(run["peak"] for run in runs) / 1e6
                rate = statistics.median(rates)
                figures = f"{rate:8.0f} {spread:>19} {ratio:8.2f} {cpu:8.2f} {peak:9.0f}"
                print(f"{count:7,}  {way:14} {figures}", flush=True)
            shutil.rmtree(photos)


if __name__ == "__main__":
    main()
