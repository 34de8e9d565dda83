"""How much of what fine-tuning has changed is best kept, on photos held out of training.

python benchmarks/kept.py --data flowers trash textures pets2 --seeds 0 1 2
python benchmarks/kept.py --tables                              # no run, only the table of those that there are

Only the photos of train/ are used: a quarter of each class is held out, and `finetune` runs with its defaults on the
others, of which it takes some to validate. When its last phase ends, the weights that this began with, the last ones
and three between the two are scored on the validation photos, as the recipe does it, and on those held out. Two rules
are compared: what is kept is the first that is clearly better on validation, from the last weights downwards, as it was
before; or, of those that are clearly better, what has the lowest loss. Losses are at the best temperature. A line of
JSON for each run is kept in the file of `--results` and not repeated.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from _peers import classes
from finetuning import NETWORKS, read
from transfer import ours

SHARES = ("1.0", "0.75", "0.5", "0.25")  # of what the last phase has changed
RULES = {"first": "the first that is clearly better", "lowest": "the lowest of the clearly better"}
Line = dict[str, Any]  # of the results


def main() -> None:
    """Run what is left and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", type=Path, default=[], help="folders of photos, with train/CLASS")
    parser.add_argument("--networks", nargs="*", default=["MobileNet 0.25"], choices=NETWORKS)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path("kept.jsonl"), help="by default %(default)s")
    parser.add_argument("--tables", action="store_true", help="print the table alone")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    found = read(options.results)
    done = {(line["data"], line["network"], line["seed"]) for line in found}
    cells = [(seed, network, folder.resolve()) for seed in options.seeds for network in options.networks
             for folder in options.data]  # fmt: skip
    for seed, network, folder in () if options.tables else cells:
        if (folder.name, network, seed) not in done:
            cell = {"data": folder.name, "network": network, "seed": seed}
            found.append({**cell, **learned(folder, network, seed)})
            with options.results.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps(found[-1])}\n")
    print("\n".join(table(found)))


def draw(data: Path, folder: Path) -> None:
    """Link the photos that are learned from to train/, and those that are held out to test/."""
    rng = np.random.default_rng(7)
    for name in classes(data / "train"):
        files = sorted((data / "train" / name).iterdir())
        order = rng.permutation(len(files))
        for part, some in ("test", order[: len(files) // 4]), ("train", order[len(files) // 4 :]):
            (folder / part / name).mkdir(parents=True)
            for index in some:
                (folder / part / name / files[index].name).symlink_to(files[index])


def learned(data: Path, network: str, seed: int) -> Line:
    """Fine-tune, and score what might be kept of it."""
    from tlkit.data import load
    from tlkit.training import callbacks, variables, verdicts

    judge, line = callbacks.BestEpoch._judge, {}

    def judged(best: callbacks.BestEpoch) -> None:
        model, last, began = best.model, best.model.get_weights(), best.weights
        labels = [best.val.labels, held.labels]
        scores: dict[str, dict[str, float]] = {}
        start: list[np.ndarray] = []
        for share in ("0", *SHARES):
            model.set_weights(variables.between(model.weights, began, last, float(share)))
            logits = [best.val.predict(model), model.predict(pixels, batch_size=32, verbose=0)]
            start = start or logits
            val, test = (verdicts.compare(*both) for both in zip(start, logits, labels, strict=True))
            accuracy = float((logits[1].argmax(1) == held.labels).mean())
            scores[share] = {"val": val.difference, "error": val.error, "loss": test.difference, "accuracy": accuracy}
        model.set_weights(last)
        line.update(phase=best.history.epochs[-1]["phase"], scores=scores)
        judge(best)

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        draw(data, Path("photos"))
        held = load("folder", path="photos", size=(224, 224), resize="center", quiet=True).test
        pixels = held.read(np.arange(len(held))).astype("float32")
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        with mock.patch.object(callbacks.BestEpoch, "_judge", judged):
            ours("finetune", *NETWORKS[network], seed, f"{folder}/store", [f"{folder}/photos"])
    return line


def kept(line: Line, rule: str) -> str:
    """Give the share that a rule keeps."""
    scores = line["scores"]
    better = [share for share in SHARES if scores[share]["val"] < -scores[share]["error"]]
    if not better:
        return "0"
    return better[0] if rule == "first" else min(better, key=lambda share: scores[share]["val"])


def table(found: Sequence[Line]) -> list[str]:
    """Give a row for each run, and the means of what the rules keep."""
    head = " | ".join(share.removesuffix(".0") for share in reversed(SHARES))
    rows = [f"| network | data | seed | accuracy before | {head} | {' | '.join(RULES.values())} |"]
    rows.append("|---" * (4 + len(SHARES) + len(RULES)) + "|")

    def change(line: Line, share: str) -> tuple[float, float]:
        scores = line["scores"]
        return scores[share]["accuracy"] - scores["0"]["accuracy"], scores[share]["loss"]

    changes: dict[str, list[tuple[float, float]]] = {rule: [] for rule in RULES}
    for line in sorted(found, key=lambda line: (line["network"], line["data"], line["seed"])):
        cells = [f"{line['scores']['0']['accuracy']:.3f}"]
        for share in reversed(SHARES):
            accuracy, loss = change(line, share)
            cells.append(f"{line['scores'][share]['val']:+.3f} → {loss:+.3f} ({accuracy:+.3f})")
        for rule, all_of in changes.items():
            share = kept(line, rule)
            all_of.append(change(line, share))
            cells.append(f"{float(share):g}: {all_of[-1][1]:+.3f} ({all_of[-1][0]:+.3f})")
        rows.append(f"| {line['network']} | {line['data']} | {line['seed']} | {' | '.join(cells)} |")
    if found:
        means = [[statistics.mean(each) for each in zip(*all_of, strict=True)] for all_of in changes.values()]
        cells = [f"{loss:+.3f} ({accuracy:+.3f})" for accuracy, loss in means]
        rows.append(f"| mean | | |{' |' * (1 + len(SHARES))} {' | '.join(cells)} |")
    return rows


if __name__ == "__main__":
    main()
