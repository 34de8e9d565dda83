"""Whether each of Keras' backends trains the same recipes to the same accuracy, within what seeds make.

python benchmarks/backends.py
python benchmarks/backends.py --seeds 5 --backends jax,torch

Each run is a process of its own with an empty activation store: `finetune` as `make demo` runs it, and LeNet-5 from
random weights, both on scikit-learn's digits. `p` is that of a one-way analysis of variance over the backends: how
likely means as different as these are where all backends are alike. Backends that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from scipy import stats

ROOT = Path(__file__).parent.parent
BACKENDS = ("tensorflow", "jax", "torch")
RECIPES = {"finetune": "digits_letternet", "train": "digits_lenet5"}


def main() -> None:
    """Run each recipe with each backend and seed, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="by default 3")
    parser.add_argument("--backends", default=",".join(BACKENDS), help="by default %(default)s")
    parser.add_argument("--recipes", default=",".join(RECIPES), help="by default %(default)s")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(scored(**json.loads(options.child))))
        return
    backends = [name for name in options.backends.split(",") if importlib.util.find_spec(name)]
    if missing := set(options.backends.split(",")) - set(backends):
        print(f"not installed: {', '.join(sorted(missing))}")
    print(f"{'':<34}{'test accuracy':>18}{'test loss':>20}{'s a run':>10}")
    for recipe in options.recipes.split(","):
        print(f"{recipe}, {RECIPES[recipe]}")
        found = {backend: [run(recipe, backend, seed) for seed in range(options.seeds)] for backend in backends}
        for backend, lines in found.items():
            columns = {name: [line[name] for line in lines] for name in ("accuracy", "loss", "seconds")}
            told = [spread(columns["accuracy"]), spread(columns["loss"])]
            seconds = statistics.mean(columns["seconds"])
            print(f"  {backend:<32}{told[0]:>18}{told[1]:>20}{seconds:>10.1f}", flush=True)
        if len(found) > 1 and options.seeds > 1:
            for name in ("accuracy", "loss"):
                groups = [[line[name] for line in lines] for lines in found.values()]
                print(f"  {name}: p = {stats.f_oneway(*groups).pvalue:.2f}")


def spread(values: list[float]) -> str:
    """Write mean and standard deviation."""
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{deviation}"


def run(recipe: str, backend: str, seed: int) -> dict[str, Any]:
    """Run one in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
        environment |= {"KERAS_BACKEND": backend, "TLKIT_CACHE": folder, "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, __file__, "--child", json.dumps({"recipe": recipe, "seed": seed})]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)  # noqa: S603 (ours)
    if done.returncode:
        raise SystemExit(f"{recipe} on {backend}, seed {seed}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def scored(recipe: str, seed: int) -> dict[str, float]:
    """Train by the recipe's own `run`."""
    import yaml

    from tlkit import cli, config
    from tlkit.recipes import finetune, train

    kind, module = {"finetune": (config.Finetune, finetune), "train": (config.Train, train)}[recipe]
    settings = yaml.safe_load((ROOT / "recipes" / recipe / f"{RECIPES[recipe]}.yaml").read_text(encoding="utf-8"))
    result = module.run(cli.from_settings(kind, {**settings, "seed": seed}))
    return {"accuracy": result.scores.accuracy, "loss": result.scores.loss, "seconds": result.fit.seconds}


if __name__ == "__main__":
    main()
