"""How well and how fast `finetune` learns, beside the recipe of the Keras guide, and what each of its settings earns.

python benchmarks/finetuning.py --data flowers                    # has train/CLASS/*.jpg and val/CLASS/*.jpg
python benchmarks/finetuning.py --data flowers --only guide,defaults,ablation/ingredients
python benchmarks/finetuning.py --tables                          # no run, only the tables of those that there are

Each run is a process of its own. Finished ones are kept, a line of JSON each, in the file of `--results`, and are not
repeated, so that the command can be stopped and goes on; a run counts as finished as long as its settings, defaults
included, are what they were (delete the file when the code has changed). Then the tables of
docs/benchmarks/finetuning.md are written anew. Parts:

- `guide`: https://keras.io/guides/transfer_learning, both halves (`keras-finetune` in `_peers.py`), with all of train/.
- `defaults`: `finetune` with nothing but data, network and seed; a share of train/ validates. Its activation store is
  empty when it begins, as in all runs.
- `ablation`: one change from the defaults each, in groups: `ablation/ingredients` takes from the defaults what
  they have, or adds what is usual elsewhere; others are `/rate`, `/stages`, `/augmentation`, `/optimizer`.
- `few-shot`: a few photos of each class, of which the recipes that validate hold some back.

The photos of val/ are the test. Times are without imports and without what is tested after each epoch for the curve;
of tlkit they include reading and checking the photos, the features, MLflow and the saved model.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import functools
import json
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _peers import classes, peak_memory

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks" / "finetuning.md"
NETWORKS = {"MobileNet 0.75": ("MobileNet", 0.75), "MobileNet 0.25": ("MobileNet", 0.25)} | {
    "MobileNetV2 0.35": ("MobileNetV2", 0.35)
}
CHEAP = ("MobileNet 0.25", "MobileNetV2 0.35")  # of the ablation, but for its ingredients
FEW = (2, 6, 12, 29)  # photos of each class: 1, 5, 10 and 25 to learn from, the others validate
FROZEN = {"full.epochs": 0}
DROPOUT = {"head.dropout": 0.2}  # a default once, when most of the ablation was run
AUGMENTED = {"augment.flip": True, "augment.rotation": 10.0, "augment.zoom": 0.2, "augment.shift": 0.1}
AUGMENTED |= {"augment.brightness": 0.1, "augment.contrast": 0.2}
ABLATION: dict[str, dict[str, dict[str, Any]]] = {  # what equals the defaults is left out
    "ingredients": {
        "frozen: no phase `full`": FROZEN,
        "partial: `full.unfreeze_from stage4`": {"full.unfreeze_from": "stage4"},
        "no phase `head`": {"head.solved": False, "head.epochs": 0},
        "a head that is trained, `head.solved false`": {"head.solved": False},
        "a head that is solved, then trained, `head.epochs 30`": {"head.epochs": 30},
        "`head.dropout 0.2`": DROPOUT,
        "a constant rate, no warm-up": {"full.schedule": "constant", "full.warmup": 0.0},
        "`full.batch_normalization train`": {"full.batch_normalization": "train"},
        "no augmentation": {"augment.flip": False},
        "flips, turns, zoom, shifts, brightness, contrast": AUGMENTED,
        "`label_smoothing 0.1`": {"label_smoothing": 0.1},
        "a trained head, all of that augmentation, `label_smoothing 0.1`, `weight_decay 1e-4`": {
            "head.solved": False,
            "label_smoothing": 0.1,
            "weight_decay": 1e-4,
            **AUGMENTED,
        },
    },
    "rate": {
        "a trained head at 1e-3": {"head.solved": False, "head.learning_rate": 1e-3},
        "`full.learning_rate 3e-5`": {"full.learning_rate": 3e-5},
        "`full.learning_rate 1e-4`": {"full.learning_rate": 1e-4},
        "`full.learning_rate 3e-4`": {"full.learning_rate": 3e-4},
        "`full.learning_rate 1e-3`": {"full.learning_rate": 1e-3},
        "`full.learning_rate auto`": {"full.learning_rate": "auto"},
        "`full.epochs 10`": {"full.epochs": 10},
        "`full.epochs 20`": {"full.epochs": 20},
        "`full.schedule one_cycle`": {"full.schedule": "one_cycle"},
        "`full.schedule step`": {"full.schedule": "step"},
    },
    "stages": {
        "`full.unfreeze_from stage3`": {"full.unfreeze_from": "stage3"},
        "the whole backbone": {"full.unfreeze_from": None},
        "gradually: `[stage4, stage3, stage1]`": {"full.unfreeze_from": ["stage4", "stage3", "stage1"]},
        "`full.layer_decay 0.75`": {"full.layer_decay": 0.75},
        "`full.layer_decay 1`": {"full.layer_decay": 1.0},
        "`full.batch_normalization freeze-affine`": {"full.batch_normalization": "freeze-affine"},
        "`data.image_size 256`": {"data.image_size": 256},
    },
    "augmentation": {
        "`augment.crop 0.5`": {"augment.crop": 0.5},
        "`augment.policy randaugment`": {"augment.policy": "randaugment"},
        "`augment.policy trivialaugment`": {"augment.policy": "trivialaugment"},
        "`augment.erasing 0.25`": {"augment.erasing": 0.25},
        "`augment.mixup 0.2`": {"augment.mixup": 0.2},
        "`augment.cutmix 1`": {"augment.cutmix": 1.0},
        "`tta 1`: each photo and its mirror image": {"tta": 1},
    },
    "optimizer": {
        "`ema_momentum 0.99`": {"ema_momentum": 0.99},
        "`weight_decay 0.01`": {"weight_decay": 0.01},
        "`focal_gamma 2`": {"focal_gamma": 2.0},
        "`global_clipnorm 1`": {"global_clipnorm": 1.0},
        "`optimizer adamw`": {"optimizer": "adamw"},
        "`optimizer sgd` at 0.01": {"optimizer": "sgd", "full.learning_rate": 0.01},
        "`optimizer lion` at 3e-5": {"optimizer": "lion", "full.learning_rate": 3e-5},
    },
}
FORMERLY = {"full.batch_normalization": "inference"}  # what older results say where the default is None today
PARTS = ("guide", "defaults", *(f"ablation/{group}" for group in ABLATION), "few-shot")
Line = dict[str, Any]  # of the results


class Job(NamedTuple):
    """One run.

    Args:
        part: Of `PARTS`.
        recipe: guide, finetune or feature_extraction.
        network: Of `NETWORKS`.
        seed: Of the run, and of the photos that are drawn.
        changes: From the recipe's defaults, by dotted names.
        photos: Labeled ones of each class; None for all.
    """

    part: str
    recipe: str
    network: str
    seed: int
    changes: dict[str, Any] = {}  # noqa: RUF012, never changed
    photos: int | None = None


def main() -> None:
    """Run what is left and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train and val, each with a folder for each class")
    parser.add_argument("--results", type=Path, default=Path("finetuning.jsonl"), help="by default finetuning.jsonl")
    parser.add_argument("--only", default="", help=f"parts, with commas between: {', '.join(PARTS)}; or ablation")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="by default all: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="by default 3; of 2 photos a class 2 more")
    parser.add_argument("--tables", action="store_true", help="write the tables alone")
    parser.add_argument("--list", action="store_true", help="list what is left to run")
    parser.add_argument("--page", type=Path, default=PAGE, help="by default docs/benchmarks/finetuning.md")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(ours(**json.loads(options.child))))
        return
    wanted = [name for name in options.only.split(",") if name] or list(PARTS)
    for name in wanted:
        if not any(within(part, name) for part in PARTS):
            parser.error(f"--only {name}: there are {', '.join(PARTS)}")
    networks = options.networks.split(",")
    if unknown := set(networks) - set(NETWORKS):
        parser.error(f"--networks {', '.join(unknown)}: there are {', '.join(NETWORKS)}")
    failed: list[str] = []
    found = read(options.results)
    if not options.tables:
        if options.data is None or not (options.data / "train").is_dir():
            parser.error("give --data FOLDER, which has the folders train and val")
        jobs = [job for job in planned(options.seeds) if any(within(job.part, name) for name in wanted)]
        left = unfinished([job for job in jobs if job.network in networks], found)
        said(left, found)
        if options.list:
            for job in left:
                print(described(job))
            return
        try:
            with tempfile.TemporaryDirectory() as tracked:
                failed = run(left, found, options.data.resolve(), options.results, Path(tracked))
        except KeyboardInterrupt:
            print(f"\nstopped; {options.results} has what is finished, and the same command goes on", file=sys.stderr)
            failed = ["stopped"]
    write(found, options.page)
    print(f"{options.page.name}: tables of {len(found)} runs")
    raise SystemExit(1 if failed else 0)


def within(part: str, name: str) -> bool:
    """Say whether a part is one, or belongs to one."""
    return part == name or part.startswith(f"{name}/")


def planned(seeds: int) -> list[Job]:
    """List all runs, within a part by seed, so that one that is stopped has compared like with like."""
    jobs = [Job("guide", "guide", network, seed) for seed in range(seeds) for network in NETWORKS]
    jobs += [Job("defaults", "finetune", network, seed) for seed in range(seeds) for network in NETWORKS]
    for group, changes in ABLATION.items():
        for seed in range(seeds):
            networks = NETWORKS if group == "ingredients" else CHEAP
            cases = [(change, network) for change in ({}, *changes.values()) for network in networks]
            jobs += [Job(f"ablation/{group}", "finetune", network, seed, change) for change, network in cases]
    for seed in range(seeds + 2):
        for network in NETWORKS:
            for photos in FEW if seed < seeds else FEW[:1]:
                for recipe, change in few_shot().values():
                    jobs.append(Job("few-shot", recipe, network, seed, change, photos))
    return jobs


def few_shot() -> dict[str, tuple[str, dict[str, Any]]]:
    """Name the columns of the few-shot table, with the recipe of each and what it changes."""
    return {
        "Keras guide": ("guide", {}),
        "`feature_extraction`": ("feature_extraction", {}),
        "`finetune`, frozen": ("finetune", FROZEN),
        "`finetune`": ("finetune", {}),
    }


def settings(recipe: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Give all settings of a run, defaults included, by dotted names; data, network and seed are the job's."""
    if recipe == "guide":
        return {"epochs": [10, 10], "learning_rates": [1e-3, 1e-5], "batch_size": 32, "dropout": 0.2}
    return _settings(recipe, json.dumps(changes))


@functools.cache  # it takes 20 ms, and is asked for thousands of times
def _settings(recipe: str, changes: str) -> dict[str, Any]:
    flat = dict(leaves(dataclasses.asdict(configured(recipe, json.loads(changes)))))
    kept = {name: value for name, value in flat.items() if name.split(".")[0] not in ("data", "backbone", "seed")}
    return {**kept, "data.image_size": flat["data.image_size"]}


def leaves(nested: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Give dotted names and values."""
    for name, value in nested.items():
        if isinstance(value, dict) and name != "learning_rates":
            yield from leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def configured(recipe: str, changes: dict[str, Any]) -> Any:
    """Make the config of a recipe; this imports no framework."""
    from tlkit import cli, config

    nested: dict[str, Any] = {}
    for name, value in changes.items():
        *groups, last = name.split(".")
        group = nested
        for part in groups:
            group = group.setdefault(part, {})
        group[last] = value
    return cli.from_settings(
        {"finetune": config.Finetune, "feature_extraction": config.FeatureExtraction}[recipe], nested
    )


def matches(line: Line, job: Job, wanted: dict[str, Any]) -> bool:
    """Say whether a result is of this job; of settings that came later a result knows nothing."""
    same = all(line[name] == getattr(job, name) for name in ("recipe", "network", "seed", "photos"))

    def alike(name: str, value: Any) -> bool:
        found = line["settings"].get(name, value)
        return found == value or (value is None and found == FORMERLY.get(name))

    return same and all(alike(name, value) for name, value in wanted.items())


def unfinished(jobs: Sequence[Job], found: Sequence[Line]) -> list[Job]:
    """Leave out what is there, and what stands twice, such as the defaults in each group."""
    left: list[Job] = []
    seen: list[tuple[Any, ...]] = []
    for job in jobs:
        wanted = settings(job.recipe, job.changes)
        key = (job.recipe, job.network, job.seed, job.photos, wanted)
        if key in seen or any(matches(line, job, wanted) for line in found):
            continue
        seen.append(key)
        left.append(job)
    return left


def read(path: Path) -> list[Line]:
    """Read the results; a line that was not written whole is left out."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def said(left: Sequence[Job], found: Sequence[Line]) -> None:
    """Print how many runs are left and how long that is going to take, from those that there are."""
    print(f"{len(left)} runs left, {remaining(left, found)}", flush=True)


def remaining(left: Sequence[Job], found: Sequence[Line]) -> str:
    """Estimate the time that runs take: that of the same recipe, network and number of photos, else unknown."""
    known: dict[Any, list[float]] = {}
    for line in found:
        known.setdefault((line["recipe"], line["network"], line["photos"] is None), []).append(line["wall"])
    seconds = [known.get((job.recipe, job.network, job.photos is None)) for job in left]
    minutes = sum(statistics.mean(each) for each in seconds if each) / 60
    unknown = seconds.count(None)
    return f"about {minutes:.0f} min" + (f" and {unknown} runs of a kind not yet seen" if unknown else "")


def described(job: Job) -> str:
    """Name a run."""
    changed = " ".join(f"--{name} {value}" for name, value in job.changes.items())
    some = f", {job.photos} photos a class" if job.photos else ""
    return f"{job.part}: {job.recipe} {changed or 'defaults'}, {job.network}, seed {job.seed}{some}"


def run(left: Sequence[Job], found: list[Line], data: Path, results: Path, tracked: Path) -> list[str]:
    """Run each and keep its line; give those that failed. `tracked` is the folder of MLflow, which all share."""
    failed: list[str] = []
    for number, job in enumerate(left):
        print(f"{number + 1}/{len(left)} {described(job)}", end=" ", flush=True)
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            done = start(job, data, Path(folder), tracked)
        if done.returncode:
            failed.append(described(job))
            print(f"FAILED\n{done.stderr[-1500:]}", flush=True)
            continue
        line = {
            **{name: value for name, value in job._asdict().items() if name != "part"},
            "settings": settings(job.recipe, job.changes),
            **json.loads(done.stdout.splitlines()[-1]),
            "wall": time.perf_counter() - began,
            "machine": machine(),
            "versions": {name: metadata.version(name) for name in ("tlkit", "keras", "tensorflow", "numpy")}
            | {"python": platform.python_version()},
        }
        found.append(line)
        with results.open("a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps(line)}\n")  # the first line break ends a line that a kill left torn
        rest = remaining(left[number + 1 :], found)
        print(f"accuracy {line['accuracy']:.3f}, {line['seconds']:.1f} s; left: {rest}", flush=True)
    for name in failed:
        print(f"failed: {name}")
    return failed


def machine() -> str:
    """Say what the runs are made on."""
    return f"{os.cpu_count()} cores of {platform.machine()}, {'a' if shutil.which('nvidia-smi') else 'no'} GPU"


def start(job: Job, data: Path, folder: Path, tracked: Path) -> subprocess.CompletedProcess[str]:
    """Run one in a process of its own, with an empty store of activations in `folder`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    manifest = draw(job, data, folder) if job.photos else None
    name, alpha = NETWORKS[job.network]
    if job.recipe == "guide":
        peer = ["keras-finetune", "--network", name, "--alpha", str(alpha), "--seed", str(job.seed)]
        train = folder / "train" if manifest else data / "train"
        once = ["--once"] if manifest else []
        command = [str(HERE / "_peers.py"), *peer, "--train", str(train), "--test", str(data / "val"), *once]
    else:
        given = {"recipe": job.recipe, "changes": job.changes, "network": job.network, "seed": job.seed}
        more = {
            "photos": str(manifest or data),
            "traced": not job.changes and not manifest,
            "store": str(folder / "store"),
        }
        command = [str(HERE / "finetuning.py"), "--child", json.dumps({**given, **more})]
    return subprocess.run(  # noqa: S603 (our own programs)
        [sys.executable, *command], capture_output=True, text=True, cwd=tracked, env=environment
    )


def draw(job: Job, data: Path, folder: Path) -> Path:
    """Draw photos of each class: as a CSV file for the recipes, as a folder of links for the guide.

    Of the photos, 15 % but at least one of each class validate; the guide trains on these too.
    """
    rows = []
    rng = np.random.default_rng(job.seed)
    for name in classes(data / "train"):
        files = sorted((data / "train" / name).iterdir())
        drawn = [files[index] for index in rng.permutation(len(files))[: job.photos]]
        kept = len(drawn) - max(1, round(0.15 * len(drawn)))
        rows += [(file, name, "train" if place < kept else "val") for place, file in enumerate(drawn)]
        (folder / "train" / name).mkdir(parents=True)
        for file in drawn:
            (folder / "train" / name / file.name).symlink_to(file)
        rows += [(file, name, "test") for file in sorted((data / "val" / name).iterdir())]
    with (folder / "photos.csv").open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([("path", "label", "split"), *rows])
    return folder / "photos.csv"


def ours(recipe: str, changes: dict[str, Any], network: str, seed: int, photos: str, store: str, traced: bool) -> Line:
    """Run a recipe in this process, everything imported and MLflow's store made beforehand."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # isort: off
    import keras  # noqa: F401
    import mlflow.keras  # noqa: F401
    import scipy.optimize  # noqa: F401
    import sklearn.neighbors  # noqa: F401
    import tensorflow as tf  # noqa: F401
    # isort: on

    from tlkit import config, data, evaluation, features, plots, probes, tracking, training  # noqa: F401
    from tlkit.features import engines
    from tlkit.recipes import feature_extraction, finetune

    engines.unavailable("mixed_bfloat16")  # imports OpenVINO
    tracking.open_store("tlkit")
    name, alpha = NETWORKS[network]
    plain = configured(recipe, changes)
    settings = dataclasses.replace(
        plain,
        # Photos are squeezed, as in the guide.
        data=dataclasses.replace(plain.data, path=photos, val_as_test=not photos.endswith(".csv"), resize="squash"),
        backbone=config.Backbone(name=name, alpha=alpha),
        features=config.Features(store=store),
        seed=seed,
    )
    began = time.perf_counter()
    trace, pauses = test_each_epoch(began) if traced else ([], [])
    result: Any = {"finetune": finetune, "feature_extraction": feature_extraction}[recipe].run(settings)
    return {
        "accuracy": result.scores.accuracy,
        "loss": result.scores.loss,
        "seconds": time.perf_counter() - began - sum(pauses),
        "metrics": {name: float(value) for name, value in result.fit.metrics.items()},
        "trace": trace,
        "peak_memory_mb": peak_memory(),
    }


def test_each_epoch(began: float) -> tuple[list[Line], list[float]]:
    """Have the recipe's network tested after each epoch, with the weights that it then has, while the clock stands.

    Returns:
        Where the results of the epochs will be, and the seconds that each test took.
    """
    import keras
    import tensorflow as tf

    from tlkit import backbones, features
    from tlkit.recipes import _inputs, _runs

    trace: list[Line] = []
    pauses: list[float] = []
    made: dict[str, Any] = {}
    build, split, callbacks = backbones.classifier, _inputs.splits, _runs.callbacks

    def compiled(model: Any) -> Any:
        return tf.function(lambda batch: model(batch, training=False))

    def outputs(call: Any) -> np.ndarray:
        pixels = made["splits"].test.read(range(len(made["splits"].test))).astype("float32")
        return np.concatenate([call(tf.constant(pixels[i : i + 32])).numpy() for i in range(0, len(pixels), 32)])

    def test(trained: Any) -> None:
        stopped = time.perf_counter()
        whole, head = made["model"], len(trained.input_shape) == 2
        if head:  # the backbone does not change in this phase
            if "pooled" not in made:
                made["pooled"] = outputs(compiled(features.pooled(whole)))
            said = whole.get_layer("head")(made["pooled"]).numpy()
        else:
            made["whole"] = made.get("whole") or compiled(whole)
            said = outputs(made["whole"])
        accuracy = float(np.mean(said.argmax(-1) == made["splits"].test.labels))
        seconds = stopped - began - sum(pauses)
        trace.append({"phase": "head" if head else "full", "seconds": seconds, "accuracy": accuracy})
        pauses.append(time.perf_counter() - stopped)

    def classifier(*arguments: Any, **more: Any) -> Any:
        made["model"] = build(*arguments, **more)
        return made["model"]

    def splits(*arguments: Any, **more: Any) -> Any:
        made["splits"] = split(*arguments, **more)
        return made["splits"]

    def with_test(*arguments: Any, **more: Any) -> list[Any]:
        callback: Any = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: test(callback.model))
        return [*callbacks(*arguments, **more), callback]

    backbones.classifier, _inputs.splits, _runs.callbacks = classifier, splits, with_test
    return trace, pauses


def write(found: Sequence[Line], page: Path) -> None:
    """Write the tables into the page, each between its marks; one that there is no run for stays."""
    text = page.read_text(encoding="utf-8")
    tables: dict[str, Callable[[Sequence[Line]], list[str]]] = {
        "guide": guide_table,
        "ablation": ablation_table,
        "ablation with dropout": functools.partial(ablation_table, base=DROPOUT),
        "few-shot": few_shot_table,
    }
    for name, table in tables.items():
        lines = table(found)
        if not lines:
            continue
        mark = re.compile(rf"(<!-- measured: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not mark.search(text):
            raise SystemExit(f"{page} has no place for the table: <!-- measured: {name} --> and <!-- end -->")
        new = "\n".join(lines) + "\n"
        text = mark.sub(lambda match, new=new: f"{match[1]}{new}{match[2]}", text)  # type: ignore[misc]
    page.write_text(text, encoding="utf-8")


def chosen(
    found: Sequence[Line], recipe: str, network: str, changes: dict[str, Any], photos: int | None = None
) -> dict[int, Line]:
    """Give the results of a recipe by seed; of several for one seed the last."""
    wanted = settings(recipe, changes)
    fitting = [line for line in found if matches(line, Job("", recipe, network, line["seed"], changes, photos), wanted)]
    return {line["seed"]: line for line in sorted(fitting, key=lambda line: line["seed"])}


def told(found: Sequence[Line]) -> str:
    """Say with what and on what the runs of a table were made."""
    machines = sorted({line["machine"] for line in found})
    versions = [", ".join(f"{name} {number}" for name, number in line["versions"].items()) for line in found]
    seeds = sorted({line["seed"] for line in found})
    said = f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    return f"{len(found)} runs, {said}, on {' and '.join(machines)}; {' and '.join(sorted(set(versions)))}."


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Write a mean and a standard deviation."""
    if not values:
        return "–"
    sd = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{sd}"


def interval(differences: Sequence[float]) -> str:
    """Write the mean of paired differences and its 95 % interval by Student's t."""
    if len(differences) < 2:
        return f"{differences[0]:+.3f}" if differences else "–"
    from scipy import stats

    mean, error = statistics.mean(differences), statistics.stdev(differences) / math.sqrt(len(differences))
    half = float(stats.t.ppf(0.975, len(differences) - 1)) * error
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


def reached(runs: dict[int, Line], accuracy: float) -> str:
    """Write how long it took until the network was as accurate, as far as it came to that."""
    times = []
    for run in runs.values():
        first = [epoch["seconds"] for epoch in run["trace"] if epoch["accuracy"] >= accuracy]
        times += first[:1]
    if not times:
        return "never"
    return spread(times, 1) + (f" ({len(times)} of {len(runs)} runs)" if len(times) < len(runs) else "")


def guide_table(found: Sequence[Line]) -> list[str]:
    """Compare the guide's recipe and the defaults."""
    rows: list[str] = []
    used: list[Line] = []
    for network in NETWORKS:
        guide, defaults = chosen(found, "guide", network, {}), chosen(found, "finetune", network, {})
        if not guide:
            continue
        target = statistics.mean(run["accuracy"] for run in guide.values())
        pairs = [defaults[seed]["accuracy"] - guide[seed]["accuracy"] for seed in guide if seed in defaults]
        for name, runs in (("Keras guide", guide), ("`finetune`", defaults)):
            if runs:
                used += runs.values()
                cells = [spread([run["accuracy"] for run in runs.values()])]
                cells += [interval(pairs) if runs is defaults else "", reached(runs, target)]
                cells += [spread([run["seconds"] for run in runs.values()], 0)]
                rows.append(f"| {network} | {name} | {' | '.join(cells)} |")
    if not rows:
        return []
    return [
        "| network | recipe | test accuracy | difference, by seed | s to the guide's accuracy | s in all |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        told(used),
    ]


def ablation_table(found: Sequence[Line], base: dict[str, Any] | None = None) -> list[str]:
    """Compare each change with the defaults, by the accuracy and by the loss, which says more of 300 photos.

    With a `base`, the defaults are changed so in all runs.
    """
    base = base or {}
    defaults = {network: chosen(found, "finetune", network, base) for network in NETWORKS}
    plain = settings("finetune", base)
    rows: list[str] = []
    used: list[Line] = []
    cases: dict[str, dict[str, Any]] = {"**defaults of then**" if base else "**defaults**": {}}
    for changes in ABLATION.values():
        cases |= changes
    for name, change in cases.items():
        changed = {**base, **change}
        if change and settings("finetune", changed) == plain:
            continue
        runs = {network: chosen(found, "finetune", network, changed) for network in NETWORKS}
        if not any(runs.values()):
            continue
        used += [line for each in runs.values() for line in each.values()]
        cells = [spread([score(line, change) for line in each.values()]) for each in runs.values()]
        for measure in ("accuracy", "loss"):
            pairs = [
                score(line, change, measure) - defaults[network][seed][measure]
                for network, each in runs.items()
                for seed, line in each.items()
                if seed in defaults[network] and (measure in line or "tta" in change)
            ]
            cells.append(interval(pairs) if change else "")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    if len(rows) < 2:
        return []
    return [
        f"| change | {' | '.join(NETWORKS)} | accuracy, by network and seed | test loss, likewise |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        told(used),
    ]


def score(line: Line, change: dict[str, Any], measure: str = "accuracy") -> float:
    """Give the test accuracy, or another score: of test-time augmentation that of the mean prediction."""
    if "tta" in change:
        return next(value for name, value in line["metrics"].items() if name.endswith(f"{measure}_tta"))
    return line[measure]


def few_shot_table(found: Sequence[Line]) -> list[str]:
    """Compare recipes that have seen few photos."""
    rows: list[str] = []
    used: list[Line] = []
    for network in NETWORKS:
        for photos in FEW:
            runs = [chosen(found, recipe, network, change, photos) for recipe, change in few_shot().values()]
            if not any(runs):
                continue
            used += [line for each in runs for line in each.values()]
            held = max(1, round(0.15 * photos))
            cells = [spread([line["accuracy"] for line in each.values()]) for each in runs]
            rows.append(f"| {network} | {photos} ({photos - held} + {held}) | {' | '.join(cells)} |")
    if not rows:
        return []
    return [
        f"| network | photos a class (train + val) | {' | '.join(few_shot())} |",
        "|---|---|" + "---|" * len(few_shot()),
        *rows,
        "",
        told(used),
    ]


if __name__ == "__main__":
    main()
