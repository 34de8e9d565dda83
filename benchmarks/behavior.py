"""What the recipes do, written down so that a rebuilt house can be held against the old one.

python benchmarks/behavior.py before.json [--data FOLDER]      # write it down
python benchmarks/behavior.py after.json --against before.json  # and show every difference

Each recipe runs in a process of its own, in a new folder with a new activation store. Of each run are kept: exit
status, printed lines, the stored config, parameters, metrics with their steps, tags, artifacts' names, and SHA-256 of
the model's weights; without what is another in each run: times, speeds, identifiers, names and folders. With FOLDER,
which holds `flowers`, `fsdd`, `adrenalmnist3d` and `cora` as CONTRIBUTING.md says, recipes on photos, sounds, volumes
and a graph run too.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
TIMED = re.compile(r"^system/|seconds|per_second|^environment\.git_commit$|^mlflow\.(log-model|source|user|runName)")
CHANGING = [
    (re.compile(r"(?:m-)?[0-9a-f]{32}"), "ID"),
    (re.compile(r"\b\d+(?:\.\d+)? (?:s|ms|min|h)\b(?: \d+ s\b)?"), "TIME"),
    (re.compile(r"[\d,.]+ a second"), "RATE"),
    (re.compile(r"\b[a-z]+-[a-z]+-\d+\b"), "NAME"),
    (re.compile(r"[\d,.]+ (?=photos|epochs|TIME)"), "N "),
]


def recipes(data: Path | None) -> dict[str, list[list[str]]]:
    """Give the commands of each scene; those after the first are what follows in the same folder."""
    finetune = ["finetune", "--config", f"{ROOT}/recipes/finetune/digits_letternet.yaml"]
    tune = ["tune", "--config", f"{ROOT}/recipes/tune/cnn.yaml", "--trials", "3", "--space.full.epochs", "2"]
    found = {
        "finetune": [[*finetune, "--full.epochs", "3"]],
        "finetune from stage3, stored": [[*finetune, "--full.epochs", "3", "--full.unfreeze_from", "stage3"]],
        "finetune, killed": [[*finetune, "--full.epochs", "8"], [*finetune, "--full.epochs", "8", "--resume", "auto"]],
        "feature_extraction": [
            ["feature_extraction", "--config", f"{ROOT}/recipes/feature_extraction/digits_letternet.yaml"]
        ],
        "train": [["train", "--config", f"{ROOT}/recipes/train/digits_lenet5.yaml", "--full.epochs", "3"]],
        "tune": [tune],
        "wrong usage": [["finetune", "--hed.epochs", "1"], ["finetune", "--data.path", "nowhere"], ["predict"]],
    }
    if data:
        stage4 = ["--backbone.name", "MobileNet", "--backbone.alpha", "0.25", "--full.unfreeze_from", "stage4"]
        found |= {
            "flowers": [["finetune", "--data.path", f"{data}/flowers", *stage4, "--full.epochs", "1"]],
            "sounds": [
                [
                    "train",
                    "--config",
                    f"{ROOT}/recipes/train/fsdd.yaml",
                    "--data.path",
                    f"{data}/fsdd",
                    "--full.epochs",
                    "2",
                ]
            ],
            "volumes": [
                [
                    *["train", "--config", f"{ROOT}/recipes/train/adrenalmnist3d.yaml", "--full.epochs", "1"],
                    *["--data.path", f"{data}/adrenalmnist3d/adrenalmnist3d.npz"],
                ]
            ],
            "graph": [
                [
                    *["train_graph", "--config", f"{ROOT}/recipes/train_graph/cora.yaml"],
                    *["--data.path", f"{data}/cora/cora_planetoid.npz"],
                ]
            ],
        }
    return found


def photograph(name: str, commands: list[list[str]], data: Path | None) -> dict[str, Any]:
    """Run the commands of a scene, and give all that they left."""
    with tempfile.TemporaryDirectory() as place:
        environment = {**os.environ, "TLKIT_CACHE": f"{place}/cache", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        environment |= {"KERAS_HOME": str(data / "keras_home")} if data else {}
        done = []
        for number, (recipe, *flags) in enumerate(commands):
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", f"tlkit.recipes.{recipe}", *flags],
                cwd=place,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            if name.endswith("killed") and number == 0:
                _kill_in_training(process)
                continue
            out, err = process.communicate()
            if name.endswith("killed"):  # how much is left depends on when the last checkpoint was written
                left = ("head", "full", "going on", "resuming")
                out = "\n".join(line for line in out.splitlines() if not line.startswith(left))
            done.append({"status": process.returncode, "out": _lines(out, place), "err": _lines(err, place)})
        return {"commands": done, "runs": _runs(place)}


def _kill_in_training(process: subprocess.Popen[str]) -> None:
    """Kill a process after the second epoch of phase full; where it goes on from does not show in what it ends with."""
    for line in iter(process.stdout.readline, ""):
        if re.match(r"full\s+2/", line):
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def _lines(text: str, place: str) -> list[str]:
    text = text.replace("%22", '"').replace(place, "FOLDER").replace(sys.prefix, "PREFIX").replace(str(ROOT), "ROOT")
    for pattern, word in CHANGING:
        text = pattern.sub(word, text)
    # How far work is says more on a slow day.
    slow = ("creating FOLDER", "opening ", "features (", "the store is slow")
    return [line.rstrip() for line in text.splitlines() if not line.startswith(slow)]


def _runs(place: str) -> list[dict[str, Any]]:
    if not Path(place, "mlflow.db").exists():
        return []
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{place}/mlflow.db")
    ids = [one.experiment_id for one in client.search_experiments()]
    return [_run(client, one, place) for one in client.search_runs(ids, order_by=["attributes.start_time ASC"])]


def _run(client: Any, run: Any, place: str) -> dict[str, Any]:
    metrics = {
        name: [[entry.step, entry.value] for entry in client.get_metric_history(run.info.run_id, name)]
        for name in sorted(run.data.metrics)
        if not TIMED.search(name)
    }
    tags = {name: _lines(value, place) for name, value in run.data.tags.items() if not TIMED.search(name)}
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    config = folder / "config.yaml"
    models = Path(place).glob(f"mlruns/{run.info.experiment_id}/models/*/artifacts/data/model.keras")
    return {
        "status": run.info.status,
        "params": {name: _lines(value, place) for name, value in sorted(run.data.params.items())},
        "metrics": metrics,
        "tags": dict(sorted(tags.items())),
        "artifacts": sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()),
        "config": _settings(yaml.safe_load(config.read_text(encoding="utf-8")), place) if config.exists() else {},
        "models": sorted(_weights(path) for path in models),
    }


def _settings(nested: dict[str, Any], place: str) -> dict[str, list[str]]:
    """Give every setting by its dotted name: their order means nothing."""
    flat = {}
    for name, value in nested.items():
        inner = _settings(value, place) if isinstance(value, dict) else None
        flat |= {f"{name}.{rest}": one for rest, one in inner.items()} if inner else {name: _lines(str(value), place)}
    return dict(sorted(flat.items()))


def _weights(path: Path) -> str:
    import keras
    import numpy as np

    from tlkit import layers  # noqa: F401  Keras finds our layers by their registered names

    digest = hashlib.sha256()
    for weight in keras.saving.load_model(path, compile=False).get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """Say what differs between two photographs, a line for each place."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = {**before, **after}
        found = [differences(before.get(name), after.get(name), f"{where} / {name}") for name in names]
        return [line for lines in found for line in lines]
    if isinstance(before, list) and isinstance(after, list) and all(isinstance(one, str) for one in before + after):
        changes = [line for line in difflib.ndiff(before, after) if line[0] in "+-"]
        return [f"{where}  {line}" for line in changes]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        found = [differences(*pair, f"{where}[{n}]") for n, pair in enumerate(zip(before, after, strict=True))]
        return [line for lines in found for line in lines]
    return [] if before == after else [f"{where}\n  before: {before}\n  after:  {after}"]


def main() -> int:
    """Write the photograph, and compare it where another one is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", help="names of scenes, with commas between")
    given = parser.parse_args()
    scenes = recipes(given.data and given.data.resolve())
    chosen = given.only.split(",") if given.only else list(scenes)
    taken = {}
    for name in chosen:
        began = time.monotonic()
        taken[name] = photograph(name, scenes[name], given.data and given.data.resolve())
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    given.file.write_text(json.dumps(taken, indent=1), encoding="utf-8")
    if not given.against:
        return 0
    before = json.loads(given.against.read_text(encoding="utf-8"))
    found = differences({name: before.get(name) for name in chosen}, json.loads(json.dumps(taken)))
    print("\n".join(found) if found else f"equal: {len(chosen)} scenes")
    return len(found) > 0


if __name__ == "__main__":
    sys.exit(main())
