"""How well the recipes transfer: data sets x networks x recipes x photos a class x seeds, on test photos.

python benchmarks/transfer.py --data flowers trash textures pets   # each has train/CLASS/*.jpg and test/ (or val/)
python benchmarks/transfer.py --data flowers trash --only "finetune,MobileNet 0.25,all"   # words of the cells wanted
python benchmarks/transfer.py --tables                              # no run, only the tables of those that there are

Each cell is a process of its own that runs a recipe with its defaults, on a copy of the photos that are drawn (the
seed decides which) and with an empty activation store. A finished one is a line of JSON in the file of `--results`, and
is not repeated as long as its settings, defaults included, are what they were; delete the file when the code has
changed. The test photos are those of test/, or of val/ where there is no test/. They are read once, at the end; no
recipe chooses anything by them. `guide` is https://keras.io/guides/transfer_learning, both halves, as in
`_peers.py`; it learns from the validation photos too, as `feature_extraction` does.

Differences are paired: the same network, photos, seed and test photos, minus `feature_extraction`. The interval is the
95 % bootstrap of the mean over test photos, and p is McNemar's exact test, both of all seeds' test photos together as
if each seed had its own. Seconds are without imports.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _peers import classes
from finetuning import configured, leaves, machine, read, spread

HERE = Path(__file__).parent
NETWORKS = {
    "MobileNet 0.25": ("MobileNet", 0.25),
    "MobileNet 0.75": ("MobileNet", 0.75),
    "MobileNetV2 0.35": ("MobileNetV2", 0.35),
}
DIGITS, LETTERS = "digits", "LetterNet"  # the embedded data, and the network for them
BASE = "feature_extraction"
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "feature_extraction stage4": (BASE, {"backbone.pooled_stages": 1}),  # as it was before two stages were the default
    BASE: (BASE, {}),
    "finetune stage4": ("finetune", {"full.unfreeze_from": "stage4"}),
    "finetune": ("finetune", {}),
    "guide": ("guide", {}),
}
PHOTOS = (10, 30, None)  # of each class; None for all
Line = dict[str, Any]  # of the results


class Cell(NamedTuple):
    """One run.

    Args:
        data: Name of the data set.
        network: Of `NETWORKS`, or LetterNet.
        photos: Labeled ones of each class, to learn from and to validate; None for all.
        recipe: Of `RECIPES`.
        seed: Of the run, and of the photos that are drawn.
    """

    data: str
    network: str
    photos: int | None
    recipe: str
    seed: int

    @property
    def words(self) -> tuple[str, ...]:
        """What `--only` may name."""
        return self.data, self.network, str(self.photos or "all"), self.recipe, f"seed {self.seed}"


def main() -> None:
    """Run what is left and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", type=Path, default=[], help="folders of photos; digits need none")
    parser.add_argument("--results", type=Path, default=Path("transfer.jsonl"), help="by default %(default)s")
    parser.add_argument(
        "--only", default="", help="words with commas between; a cell is run if it has one of each kind"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tables", action="store_true", help="print the tables alone")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(ours(**json.loads(options.child))))
        return
    folders = {folder.name: folder.resolve() for folder in options.data}
    cells = planned([*folders, DIGITS], options.seeds)
    words = [word.strip() for word in options.only.split(",") if word.strip()]
    kinds = [{cell.words[kind] for cell in cells} for kind in range(len(Cell._fields))]
    if unknown := [word for word in words if not any(word in kind for kind in kinds)]:
        parser.error(f"--only {', '.join(unknown)}: there are {', '.join(sorted(set().union(*kinds)))}")
    asked = [kind & set(words) or kind for kind in kinds]
    cells = [cell for cell in cells if all(word in kind for word, kind in zip(cell.words, asked, strict=True))]
    found = read(options.results)
    failed = [] if options.tables else run(cells, found, folders, options.results)
    print("\n".join(table(found)))
    raise SystemExit(1 if failed else 0)


def planned(names: Sequence[str], seeds: int) -> list[Cell]:
    """List all cells by seed, so that a benchmark that is stopped has compared like with like."""
    return [
        Cell(data, network, photos, recipe, seed)
        for seed in range(seeds)
        for photos in reversed(PHOTOS)
        for network in (*NETWORKS, LETTERS)
        for data in names
        for recipe in RECIPES
        if (data == DIGITS) == (network == LETTERS) and not (data == DIGITS and (photos or recipe == "guide"))
    ]


def settings(recipe: str) -> dict[str, Any]:
    """Give all settings of a recipe, defaults included, by dotted names."""
    name, changes = RECIPES[recipe]
    if name == "guide":
        return {"epochs": [10, 10], "learning_rates": [1e-3, 1e-5], "batch_size": 32, "dropout": 0.2}
    flat = dict(leaves(dataclasses.asdict(configured(name, changes))))
    return {name: value for name, value in flat.items() if name.split(".")[0] not in ("data", "backbone", "seed")}


def run(cells: Sequence[Cell], found: list[Line], folders: dict[str, Path], results: Path) -> list[Cell]:
    """Run each cell that has no line yet and keep its line; give those that failed."""
    wanted = {recipe: json.loads(json.dumps(settings(recipe))) for recipe in RECIPES}
    done = {key(line) for line in found if line["settings"] == wanted[line["recipe"]]}
    left, failed = [cell for cell in cells if tuple(cell) not in done], []
    with tempfile.TemporaryDirectory() as tracked:  # MLflow's folder, which all share
        for number, cell in enumerate(left):
            print(f"{number + 1}/{len(left)} {', '.join(cell.words)}:", end=" ", flush=True)
            began = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                child = start(cell, folders.get(cell.data), Path(folder), Path(tracked))
            if child.returncode:
                failed.append(cell)
                print(f"FAILED\n{child.stderr[-1500:]}", flush=True)
                continue
            line = {
                **cell._asdict(),
                "settings": wanted[cell.recipe],
                **json.loads(child.stdout.splitlines()[-1]),
                "wall": time.perf_counter() - began,
                "machine": machine(),
                "versions": {name: metadata.version(name) for name in ("tlkit", "keras", "numpy")},
            }
            found.append(line)
            with results.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps(line)}\n")  # the first line break ends a line that a kill left torn
            print(f"accuracy {accuracy(line):.3f}, loss {loss(line):.3f}, {line['seconds']:.0f} s", flush=True)
    return failed


def key(line: Line) -> tuple[Any, ...]:
    """Give the cell of a line."""
    return tuple(line[name] for name in Cell._fields)


def start(cell: Cell, data: Path | None, folder: Path, tracked: Path) -> subprocess.CompletedProcess[str]:
    """Run a cell in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    if data:
        copy(data, folder / "photos", cell)
    name, alpha = NETWORKS.get(cell.network, (cell.network, None))
    if cell.recipe == "guide":
        peer = ["keras-finetune", "--network", name, "--alpha", str(alpha), "--seed", str(cell.seed), "--once"]
        photos = ["--train", str(folder / "photos" / "train"), "--test", str(folder / "photos" / "test")]
        command = [str(HERE / "_peers.py"), *peer, *photos]
    else:
        given = {"recipe": cell.recipe, "name": name, "alpha": alpha, "seed": cell.seed, "store": str(folder / "store")}
        photos = [str(folder / "photos")] if data else []
        command = [str(HERE / "transfer.py"), "--child", json.dumps({**given, "photos": photos})]
    return subprocess.run(  # noqa: S603 (our own programs)
        [sys.executable, *command], capture_output=True, text=True, cwd=tracked, env=environment
    )


def copy(data: Path, folder: Path, cell: Cell) -> None:
    """Copy the photos that are drawn to train/, and all test photos to test/."""
    rng = np.random.default_rng(cell.seed)
    test = data / "test" if (data / "test").is_dir() else data / "val"
    for name in classes(data / "train"):
        files = sorted((data / "train" / name).iterdir())
        drawn = [files[index] for index in rng.permutation(len(files))[: cell.photos]]
        for part, some in (("train", drawn), ("test", sorted((test / name).iterdir()))):
            (folder / part / name).mkdir(parents=True)
            for file in some:
                shutil.copyfile(file, folder / part / name / file.name)


def ours(recipe: str, name: str, alpha: float | None, seed: int, store: str, photos: Sequence[str]) -> Line:
    """Run a recipe in this process, everything imported beforehand."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # isort: off
    import keras  # noqa: F401
    import mlflow.keras  # noqa: F401
    import scipy.optimize  # noqa: F401
    import sklearn.neighbors  # noqa: F401
    # isort: on

    from tlkit import config, tracking
    from tlkit.evaluation import predictions
    from tlkit.recipes import feature_extraction, finetune

    tracking.open_store("tlkit")
    module, changes = RECIPES[recipe]
    plain = configured(module, changes)
    asked = dataclasses.replace(
        plain,
        data=dataclasses.replace(plain.data, path=photos[0] if photos else None),
        backbone=dataclasses.replace(plain.backbone, name=name, **({"alpha": alpha} if alpha else {})),
        features=config.Features(store=store),
        seed=seed,
    )
    began = time.perf_counter()
    result: Any = {"finetune": finetune, "feature_extraction": feature_extraction}[module].run(asked)
    seconds = time.perf_counter() - began
    logged = predictions.read(result.run_id)
    if logged is None or logged.split != "test":
        raise SystemExit("the run has no predictions of test photos")
    order = np.argsort(logged.digests)
    return {
        "seconds": seconds,
        "correct": logged.correct[order].astype(int).tolist(),
        "probability": logged.probability_of_label[order].round(5).tolist(),
        "metrics": {name: float(value) for name, value in result.fit.metrics.items()},
        "lines": result.fit.lines,
    }


def accuracy(line: Line) -> float:
    """Give the share of test photos that are right."""
    return float(np.mean(line["correct"]))


def losses(line: Line) -> np.ndarray:
    """Give the log loss of each test photo."""
    return -np.log(np.maximum(line["probability"], 1e-5))


def loss(line: Line) -> float:
    """Give the mean log loss of the test photos."""
    return float(np.mean(losses(line)))


def table(found: Sequence[Line]) -> list[str]:
    """Compare the recipes with `feature_extraction`, a row for each data set, network and number of photos."""
    from tlkit.evaluation import intervals, predictions

    runs = {key(line): line for line in found}
    groups = dict.fromkeys((line["network"], line["photos"], line["data"], line["recipe"]) for line in found)
    order = {name: place for place, name in enumerate(RECIPES)}
    rows = []
    for network, photos, data, recipe in sorted(
        groups, key=lambda group: (group[0], group[1] or 10**9, group[2], order[group[3]])
    ):
        lines = {
            line["seed"]: line
            for line in runs.values()
            if (line["network"], line["photos"], line["data"], line["recipe"]) == (network, photos, data, recipe)
        }
        base = {seed: runs.get(tuple(Cell(data, network, photos, BASE, seed))) for seed in lines}
        pairs = [(line, base[seed]) for seed, line in lines.items() if base[seed] and recipe != BASE]
        cells = [spread([measure(line) for line in lines.values()]) for measure in (accuracy, loss)]
        cells.append(f"{statistics.mean(line['seconds'] for line in lines.values()):.0f}")
        if pairs:
            a, b = (np.concatenate([np.array(pair[i]["correct"]) for pair in pairs]) for i in (0, 1))
            low, high = intervals.bootstrap(a - b)
            cells.append(f"{np.mean(a - b):+.3f} ({low:+.3f} to {high:+.3f})")
            cells.append(f"{predictions.mcnemar(a > 0, b > 0).p_value:.2g}")
            more = np.concatenate([losses(pair[0]) - losses(pair[1]) for pair in pairs])
            low, high = intervals.bootstrap(more)
            cells.append(f"{np.mean(more):+.3f} ({low:+.3f} to {high:+.3f})")
        else:
            cells += ["", "", ""]
        rows.append(f"| {data} | {network} | {photos or 'all'} | {recipe} | {len(lines)} | {' | '.join(cells)} |")
    head = "data | network | photos a class | recipe | seeds | test accuracy | log loss | s"
    differences = "accuracy, difference | p | log loss, difference"
    return [f"| {head} | {differences} |", "|" + "---|" * 11, *rows]


if __name__ == "__main__":
    main()
