"""What going on from a classifier is worth, beside training from the start: accuracy on old and new classes, and time.

python benchmarks/continuing.py --old FLOWERS --new PETS/cats                # five classes, then a sixth
python benchmarks/continuing.py --old FLOWERS --new FLOWERS/tulips           # four of them, then the fifth
python benchmarks/continuing.py --old FLOWERS --new PETS/cats --recipe finetune --seeds 1

Folders hold train/CLASS/*.jpg and test/CLASS/*.jpg, or val in place of test; all photos of the latter are the test. The
seed draws the photos of each class that are trained on, those that are left where they are few or half, and is the
recipe's. Each run is a process of its own, one after the other. `cpu s` is the processor time of the whole process.
Going on has its parent's activation store, as it would have; what begins from the start has an empty one.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import mlflow
import numpy as np

from tlkit.evaluation import predictions

FEW, TEST = 10, 60  # photos of a class
NETWORK = "--data.resize squash --data.image_size 160 --backbone.name MobileNet --backbone.alpha 0.25"
BOTH = "--data.resize squash --data.image_size 160"
RECIPES = {
    "feature_extraction": "",
    "finetune": "--full.unfreeze_from stage3 --full.patience 4 --full.epochs 12",
}


class Scored(NamedTuple):
    """A run's test.

    Args:
        run: Its identifier.
        every: Accuracy on all photos.
        old: On those of the old classes.
        new: On those of the new one; None where there is none.
        cpu: Processor time of the process in seconds.
    """

    run: str
    every: float
    old: float
    new: float | None
    cpu: float


class Bench(NamedTuple):
    """What all runs of a seed have in common.

    Args:
        scratch: Where folders, the store and the runs are.
        recipe: One of `RECIPES`.
        seed: Of the photos and of the recipe.
        old: Photos to train on by old class.
        new: The same for the new class.
        test: Photos to test on by class.
    """

    scratch: Path
    recipe: str
    seed: int
    old: dict[str, list[Path]]
    new: dict[str, list[Path]]
    test: dict[str, list[Path]]


def main() -> None:
    """Run all, and print the table of means and standard deviations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="a folder with train, and val or test")
    parser.add_argument("--new", type=Path, required=True, help="such a folder, and the name of a class in it")
    parser.add_argument("--recipe", choices=RECIPES, default="feature_extraction")
    parser.add_argument("--photos", type=int, default=120, help="to train on, of each class")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    rows: dict[str, list[Scored]] = defaultdict(list)
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as scratch:
            for step, scored in run_all(bench(Path(scratch), options, seed)):
                rows[step].append(scored)
                print(f"seed {seed}: {step}: {scored}", file=sys.stderr, flush=True)
    print("| step | recipe | all | old classes | new class | cpu s |\n|---|---|---|---|---|---|")
    for step, each in rows.items():
        cells = [spread([getattr(scored, name) for scored in each]) for name in ("every", "old", "new")]
        seconds = statistics.mean(scored.cpu for scored in each)
        print(f"| {step} | `{options.recipe}` | {' | '.join(cells)} | {seconds:.0f} |")


def bench(scratch: Path, options: argparse.Namespace, seed: int) -> Bench:
    """Draw the photos of a seed."""
    new = options.new.name
    draw = random.Random(seed)  # noqa: S311 (no secret)
    old_classes = sorted(path.name for path in (options.old / "train").iterdir() if path.is_dir() and path.name != new)
    folders = {**dict.fromkeys(old_classes, options.old), new: options.new.parent}

    def photos(part: str, name: str) -> list[Path]:
        found = sorted((folders[name] / part / name).glob("*.jpg"))
        return draw.sample(found, min(options.photos if part == "train" else TEST, len(found)))

    tested = {name: photos("test" if (folder / "test").is_dir() else "val", name) for name, folder in folders.items()}
    return Bench(
        scratch, options.recipe, seed, {name: photos("train", name) for name in old_classes},
        {new: photos("train", new)}, tested,
    )  # fmt: skip


def run_all(bench: Bench) -> list[tuple[str, Scored]]:
    """Run the steps of a seed."""
    few = {name: photos[:FEW] for name, photos in bench.old.items()}
    half = {name: photos[: len(photos) // 2] for name, photos in bench.old.items()}
    first = run(bench, "old", bench.old)
    steps = [("old classes", first)]
    for words, photos in (("then a new one", bench.old), (f"then a new one, {FEW} photos of each old class", few)):
        together = {**photos, **bench.new}
        steps.append((f"{words}: going on", run(bench, "old", together, parent=first.run)))
        steps.append((f"{words}: from the start", run(bench, "start", together)))
    second = run(bench, "half", half)
    steps.append(("old classes, half of the photos", second))
    steps.append(("then all photos: going on", run(bench, "half", bench.old, parent=second.run)))
    return steps


def run(bench: Bench, store: str, photos: dict[str, list[Path]], parent: str | None = None) -> Scored:
    """Train on photos in a new process, and score the run that it has logged."""
    folder = Path(tempfile.mkdtemp(dir=bench.scratch))
    for part, of_part in (("train", photos), ("test", {name: bench.test[name] for name in photos})):
        for name, files in of_part.items():
            (folder / part / name).mkdir(parents=True)
            for file in files:
                (folder / part / name / file.name).symlink_to(file.resolve())
    cache = folder if store == "start" else bench.scratch / store
    tracking = f"sqlite:///{bench.scratch}/mlflow.db"
    network = f"{BOTH} --backbone.weights runs:/{parent}/model" if parent else f"{NETWORK} --backbone.weights imagenet"
    words = f"{network} {RECIPES[bench.recipe]} --data.path {folder} --seed {bench.seed}".split()
    begin = cpu()
    subprocess.run(  # noqa: S603 (our own program)
        [sys.executable, "-m", "tlkit", bench.recipe, *words], check=True, stdout=subprocess.DEVNULL, cwd=bench.scratch,
        env={**os.environ, "TLKIT_CACHE": str(cache), "MLFLOW_TRACKING_URI": tracking},
    )  # fmt: skip
    seconds = cpu() - begin
    mlflow.set_tracking_uri(tracking)
    latest = mlflow.search_runs(search_all_experiments=True, output_format="list", max_results=1)[0].info
    if (table := predictions.read(latest.run_id)) is None:
        raise SystemExit(f"run {latest.run_id} has no predictions")
    new = np.isin(table.labels, list(bench.new))
    of_new = float(table.correct[new].mean()) if new.any() else None
    return Scored(latest.run_id, float(table.correct.mean()), float(table.correct[~new].mean()), of_new, seconds)


def cpu() -> float:
    """Return the processor time of all processes that were started and have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def spread(values: list[float | None]) -> str:
    """Write a mean and the standard deviation."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return ""
    deviation = f" ± {statistics.stdev(numbers):.3f}" if len(numbers) > 1 else ""
    return f"{statistics.mean(numbers):.3f}{deviation}".replace("0.", ".")


if __name__ == "__main__":
    main()
