"""How long, and on which changes of the photos, the whole network is best fine-tuned, on photos held out of training.

python benchmarks/epochs.py --data flowers trash textures pets2 --networks "MobileNet 0.25" --photos 10 all
python benchmarks/epochs.py --tables                              # no run, only the table of those that there are

Only the photos of train/ are used: a third of each class is held out (`--fold` says which), the others are learned
from, or as many of them as `--photos` says. Each row is phase full from the same solved head, to its last epoch,
whatever the recipe would keep. Losses are at the best temperature; differences are from the head's. A line of JSON for
each is kept in the file of `--results` and not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _peers import classes
from finetuning import NETWORKS, read

RATE, SIZE = 3e-4, 224
FLIP = {"flip": True}
MOVED = {**FLIP, "zoom": 0.25, "shift": 0.125}
BRIGHT = {**FLIP, "zoom": 0.2, "shift": 0.1, "brightness": 0.2, "contrast": 0.2}
WAYS: dict[str, tuple[list[int] | None, dict[str, Any]]] = {  # epochs of trial and full, and the changes of the photos
    "3 + 7 epochs, mirrored": ([3, 7], FLIP),
    "25 epochs, mirrored": ([25], FLIP),
    "25 epochs, moved too": ([25], MOVED),
    "25 epochs, moved, brighter": ([25], BRIGHT),
    "defaults": (None, MOVED),
}


class Scores(NamedTuple):
    """Accuracy and log loss on the photos that are held out."""

    accuracy: float
    loss: float


def main() -> None:
    """Run what is left and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", type=Path, default=[], help="folders of photos, with train/CLASS")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--photos", nargs="*", default=["10", "all"], help="of each class, to learn from")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    parser.add_argument("--fold", type=int, default=0, choices=range(3))
    parser.add_argument("--results", type=Path, default=Path("epochs.jsonl"), help="by default %(default)s")
    parser.add_argument("--tables", action="store_true", help="print the table alone")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    found = read(options.results)
    done = {(line["data"], line["network"], line["photos"], line["fold"], line["way"]) for line in found}
    cells = [(folder, network, photos) for network in options.networks for photos in options.photos
             for folder in options.data if not options.tables]  # fmt: skip
    for folder, network, photos in cells:
        cell = {"data": folder.name, "network": network, "photos": photos, "fold": options.fold}
        left = [way for way in options.ways if (*cell.values(), way) not in done]
        with tempfile.TemporaryDirectory() as drawn:
            draw(folder.resolve(), Path(drawn), options.fold, photos)
            for line in learned(Path(drawn), network, left) if left else ():
                found.append({**cell, **line})
                with options.results.open("a", encoding="utf-8") as file:
                    file.write(f"\n{json.dumps(found[-1])}\n")
    print("\n".join(table(found)))


def draw(data: Path, folder: Path, fold: int, photos: str) -> None:
    """Link the photos that are learned from to train/, and those that are held out to val/."""
    for name in classes(data / "train"):
        files = sorted((data / "train" / name).iterdir())
        thirds = np.array_split(np.random.default_rng(7).permutation(len(files)), 3)
        others = np.concatenate([third for number, third in enumerate(thirds) if number != fold])
        for part, some in ("train", others[: None if photos == "all" else int(photos)]), ("val", thirds[fold]):
            (folder / part / name).mkdir(parents=True)
            for index in some:
                (folder / part / name / files[index].name).symlink_to(files[index])


def solved_on(folder: Path, network: str, size: int) -> tuple[Any, Any, Any]:
    """Solve a head; give the model, the photos, and the history."""
    import keras

    from tlkit import backbones, data, training
    from tlkit.features import Extractor
    from tlkit.training import activations

    name, alpha = NETWORKS[network]
    splits = data.load("folder", path=folder, size=(size, size), quiet=True)
    keras.utils.set_random_seed(0)
    built = backbones.build(name, (size, size, 3), alpha=alpha)
    model = backbones.classifier(built, len(splits.classes), pooled_stages=2)
    pooled = activations.pool(model, splits, lambda part, cut, dtype: Extractor(part, None, dtype=dtype, label=cut))
    backbones.freeze(model)
    return model, splits, training.solve_head(model, pooled.train, pooled.val)


def learned(folder: Path, network: str, ways: list[str]) -> list[dict[str, Any]]:
    """Solve a head and fine-tune from it, in each of some ways."""
    from tlkit import training
    from tlkit.training import plans, variables

    model, splits, solved = solved_on(folder, network, SIZE)
    start, before = variables.values(model.variables), scored(model, splits)
    full = training.Settings(plans.epochs(len(splits.train), 32), RATE, patience=None)
    plan = training.FineTuning(training.Settings(0, RATE), full)
    planned = {name: part.epochs for name, _, part in plan.full_parts(-(-len(splits.train) // 32))}
    usual = [planned[name] for name in ("trial", "full") if name in planned]
    lines = []
    for way in ways:
        began = time.perf_counter()
        parts, changes = WAYS[way]
        variables.assign(model.variables, start)
        phases = [
            (f"full{n}", training.Settings(epochs, RATE, patience=None)) for n, epochs in enumerate(parts or usual)
        ]
        list(fine_tuned(model, splits, phases, changes, solved))
        after = scored(model, splits)
        seconds = time.perf_counter() - began
        lines.append({"way": way, "head": list(before), "after": list(after), "seconds": seconds})
    return lines


def fine_tuned(
    model: Any, splits: Any, parts: Sequence[tuple[str, Any]], changes: Mapping[str, Any], solved: Any
) -> Iterator[str]:
    """Train the whole network in some phases, each to its last epoch, and give the name of each when it is over."""
    import keras

    from tlkit import backbones, training

    class Last(keras.callbacks.Callback):
        """Looks before weights are chosen."""

        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            self.weights = self.model.get_weights()

    history = solved
    for name, settings in parts:
        last = Last()
        backbones.unfreeze(model)
        history = training.fit_full(
            model, splits.train, splits.val, settings, augment=changes, before=history, phase=name, callbacks=[last]
        )
        training.to_logits(model).set_weights(last.weights)
        yield name


def scored(model: Any, splits: Any) -> Scores:
    """Score a model on the photos that are held out."""
    from tlkit import training
    from tlkit.evaluation import calibration

    logits = training.predict(training.to_logits(model), splits.val).astype(float)
    labels = splits.val.labels
    best = calibration.temperature(logits, labels, False)
    losses = calibration.log_losses(logits / best, labels, False)
    return Scores(float((logits.argmax(1) == labels).mean()), float(losses.mean()))


def table(found: list[dict[str, Any]]) -> list[str]:
    """Give a row for each network, number of photos and data set, and a column for each way."""
    ways = [way for way in WAYS if any(line["way"] == way for line in found)]
    rows = [f"| network | photos a class | data | fold | head | {' | '.join(ways)} |", "|---" * (5 + len(ways)) + "|"]
    cells = dict.fromkeys((line["network"], line["photos"], line["data"], line["fold"]) for line in found)
    for cell in cells:
        lines = {line["way"]: line for line in found
                 if (line["network"], line["photos"], line["data"], line["fold"]) == cell}  # fmt: skip
        head = Scores(*next(iter(lines.values()))["head"])
        columns = [f"{head.accuracy:.3f}, {head.loss:.3f}"]
        for way in ways:
            after = Scores(*lines[way]["after"]) if way in lines else None
            gain = f"{after.accuracy - head.accuracy:+.3f}, {after.loss - head.loss:+.3f}" if after else ""
            columns.append(gain)
        rows.append(f"| {' | '.join(map(str, cell))} | {' | '.join(columns)} |")
    return rows


if __name__ == "__main__":
    main()
