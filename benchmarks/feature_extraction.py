"""How fast a classifier on frozen features is made, beside what people do now: each in a process of its own.

python benchmarks/feature_extraction.py --data flowers   # has train/CLASS/*.jpg and val/CLASS/*.jpg
python benchmarks/feature_extraction.py --scale          # heads on the features of 1,000 to 100,000 photos

The peers stand in `_peers.py`. Work is the time without imports, from the command to a classifier that has been scored;
of tlkit it includes reading the photos, building the network, comparing engines, choosing the regularization and
beginning an MLflow run. Ratios are of one run of this program: the machine is the same for all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _peers import peak_memory

HERE = Path(__file__).parent
GUIDE = "keras-guide"
PEERS = (
    "keras-predict-sklearn", "openvino-bare", "openvino-bare-bf16", "timm-frozen-head",
)  # fmt: skip
OURS = ("cold", "warm", "cold-bfloat16")
DIMENSIONS, CLASSES = 768, 10  # of the synthetic features


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train and val, each with a folder for each class")
    parser.add_argument("--seeds", type=int, default=3, help="of the guide's recipe and of ours")
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--ours", choices=(*OURS, "scale"), help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours == "scale":
        print(json.dumps(scale(options.store, options.count)))
    elif options.ours:
        print(json.dumps(ours(options)))
    elif options.scale:
        compare_scales()
    elif options.data is None:
        parser.error("give --data FOLDER or --scale")
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Measure the guide's recipe and ours for each seed, the other peers once."""
    rows: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            rows.setdefault(GUIDE, []).append(peer(GUIDE, options.data, seed))
            for name in OURS:  # a store for each seed, so that each begins cold
                store = Path(folder) / f"{name == 'cold-bfloat16'}-{seed}"
                arguments = ["--ours", name, "--data", str(options.data), "--store", str(store), "--seed", str(seed)]
                rows.setdefault(f"tlkit, {name}", []).append(child([sys.executable, __file__, *arguments]))
        for name in PEERS:
            rows[name] = [peer(name, options.data, 0)]
    guide = mean(rows[GUIDE], "seconds")
    print(f"\n{'':<28}{'work s':>8}{'guide / it':>11}{'accuracy':>17}{'photos/s':>10}{'memory MB':>11}{'disk MB':>9}")
    for name, runs in rows.items():
        if "skipped" in runs[0]:
            print(f"{name:<28}{runs[0]['skipped']}")
            continue
        scores = [run["accuracy"] for run in runs if run["accuracy"] is not None]
        score = f"{sum(scores) / len(scores):.3f}" if scores else "-"
        spread = f" ({min(scores):.3f}-{max(scores):.3f})" if len(scores) > 1 else ""
        rate = runs[0]["photos_per_second"]
        print(
            f"{name:<28}{mean(runs, 'seconds'):>8.2f}{guide / mean(runs, 'seconds'):>11.1f}{score + spread:>20}"
            f"{f'{rate:.0f}' if rate else '-':>7}{max(run['peak_memory_mb'] for run in runs):>11.0f}"
            f"{runs[0]['disk_mb']:>9.1f}"
        )
    print("\nparts, in seconds:")
    for name, runs in rows.items():
        if "skipped" not in runs[0]:
            print(f"{name:<28}" + "  ".join(f"{part} {value}" for part, value in runs[0]["parts"].items()))


def mean(runs: list[dict[str, Any]], name: str) -> float:
    """Average over seeds."""
    return sum(run[name] for run in runs) / len(runs)


def peer(name: str, data: Path, seed: int) -> dict[str, Any]:
    """Run one of `_peers.py`; PyTorch's by the interpreter that TLKIT_PEER_PYTHON names."""
    python = (os.environ.get("TLKIT_PEER_PYTHON") or sys.executable) if name.startswith("timm") else sys.executable
    folders = ["--train", str(data / "train"), "--test", str(data / "val"), "--seed", str(seed)]
    return child([python, str(HERE / "_peers.py"), name, *folders])


def child(command: list[str]) -> dict[str, Any]:
    """Run a program and read the last line that it prints."""
    print(" ".join(Path(part).name for part in command[1:]), file=sys.stderr, flush=True)
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 (our own programs)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def ours(options: argparse.Namespace) -> dict[str, Any]:
    """Run the recipe in this process, everything imported and MLflow's store made beforehand."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    began = time.perf_counter()
    # isort: off
    import keras  # noqa: F401
    import mlflow.keras  # noqa: F401
    import scipy.optimize  # noqa: F401
    import sklearn.neighbors  # noqa: F401
    import tensorflow as tf  # noqa: F401
    # isort: on

    from tlkit import backbones, config, data, features, probes, runtime, tracking, training  # noqa: F401
    from tlkit.features import engines
    from tlkit.recipes import feature_extraction

    engines.unavailable("mixed_bfloat16")  # imports OpenVINO

    imported = time.perf_counter()
    os.chdir(tempfile.mkdtemp())
    tracking.open_store("tlkit")
    times: dict[str, float] = {}
    check = probes.nearest_neighbours

    def noted(*arguments: Any, **more: Any) -> Any:
        times["classifier"] = time.perf_counter()  # what comes now is said of it, and logged
        return check(*arguments, **more)

    probes.nearest_neighbours = noted
    start = time.perf_counter()
    result = feature_extraction.run(
        config.FeatureExtraction(
            data=config.Data(path=str(options.data), val_as_test=True, resize="squash"),
            backbone=config.Backbone(name="MobileNet", alpha=0.75),
            features=config.Features(store=str(options.store)),
            precision="mixed_bfloat16" if options.ours.endswith("bfloat16") else "float32",
            seed=options.seed,
        )
    )
    end = time.perf_counter()
    photos = len(list(options.data.rglob("*.*")))
    work = times["classifier"] - start
    return {
        "seconds": work,
        "accuracy": result.scores.accuracy,
        "photos_per_second": photos / result.fit.parts["features"] if options.ours != "warm" else None,
        "parts": {
            "import": round(imported - began, 2),
            **{name: round(seconds, 2) for name, seconds in result.fit.parts.items()},
            "neighbours, pictures and logging, afterwards": round(end - times["classifier"], 2),
        },
        "peak_memory_mb": peak_memory(),
        "disk_mb": disk(options.store),
    }


def disk(store: Path) -> float:
    """Give what the activations in a store take, in MB."""
    return sum(file.stat().st_size for file in store.rglob("*.npy")) / 1e6


def compare_scales() -> None:
    """Solve a head on features of more and more photos, from a store on disk."""
    print(f"{'photos':>8}{'features MB':>13}{'solve s':>9}{'s / 1,000':>11}{'memory MB':>11}{'accuracy':>10}")
    for count in (1_000, 3_000, 10_000, 30_000, 100_000):
        with tempfile.TemporaryDirectory() as folder:
            made = child([sys.executable, __file__, "--ours", "scale", "--store", folder, "--count", str(count)])
        print(
            f"{count:>8,}{made['disk_mb']:>13.1f}{made['seconds']:>9.2f}{1000 * made['seconds'] / count:>11.3f}"
            f"{made['peak_memory_mb']:>11.0f}{made['accuracy']:>10.3f}",
            flush=True,
        )


def scale(folder: Path, count: int) -> dict[str, Any]:
    """Write features of synthetic photos into a store, a thousand at a time, map them, and solve a head on them."""
    import numpy as np

    from tlkit import features, probes
    from tlkit.features.store import Store

    rng = np.random.default_rng(0)
    centres = rng.normal(0, 0.15, (CLASSES, DIMENSIONS)).astype(np.float32)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    store = Store(folder)
    space = store.space({"network": "synthetic", "shape": [DIMENSIONS], "dtype": "float32"})
    keys = [rng.bytes(32) for _ in range(count)]
    for start in range(0, count, 1000):
        some = slice(start, start + 1000)
        noise = rng.normal(size=(len(labels[some]), DIMENSIONS)).astype(np.float32)
        space.write(keys[some], np.maximum(centres[labels[some]] + noise, 0))  # as after a ReLU
    part, row = space.refresh().use(keys)
    hashes = [key.hex() for key in keys]
    stored = features.Features(labels, hashes, space.segments, part, row, (DIMENSIONS,), np.dtype(np.float32))
    before = peak_memory()
    began = time.perf_counter()
    probe = probes.logistic_regression(stored.array(), labels, CLASSES, groups=hashes)
    return {
        "seconds": time.perf_counter() - began,
        "accuracy": next(tried.accuracy for tried in probe.tried if tried.l2 == probe.l2),
        "peak_memory_mb": peak_memory(),
        "memory_before_mb": before,
        "disk_mb": disk(folder),
    }


if __name__ == "__main__":
    main()
