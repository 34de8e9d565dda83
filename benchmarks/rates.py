"""At which learning rate the whole network is best fine-tuned, and whether a trial shows it, on held-out photos.

python benchmarks/rates.py --data trash textures --networks "MobileNet 0.25" --rates 1e-3 3e-4 1e-4
python benchmarks/rates.py --tables                              # no run, only the table of those that there are

Photos are drawn as in `epochs.py`: a third of each class of train/ is held out. From the same solved head, each rate
has a trial and then the rest, as `finetune` does it, but whatever the trial shows, and to the last epoch. Losses are at
the best temperature. A line of JSON for each is kept in the file of `--results` and not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from epochs import MOVED, draw, fine_tuned, scored, solved_on
from finetuning import NETWORKS, read


def main() -> None:
    """Run what is left and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", type=Path, default=[], help="folders of photos, with train/CLASS")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--rates", nargs="*", type=float, default=[1e-3, 3e-4, 1e-4])
    parser.add_argument("--size", type=int, default=160, help="side of the photos in pixels, by default %(default)s")
    parser.add_argument("--results", type=Path, default=Path("rates.jsonl"), help="by default %(default)s")
    parser.add_argument("--tables", action="store_true", help="print the table alone")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    found = read(options.results)
    done = {(line["data"], line["network"], line["size"], line["rate"]) for line in found}
    for network in options.networks:
        for folder in () if options.tables else options.data:
            cell = {"data": folder.name, "network": network, "size": options.size}
            left = [rate for rate in options.rates if (*cell.values(), rate) not in done]
            with tempfile.TemporaryDirectory() as drawn:
                draw(folder.resolve(), Path(drawn), 0, "all")
                for line in learned(Path(drawn), network, options.size, left) if left else ():
                    found.append({**cell, **line})
                    with options.results.open("a", encoding="utf-8") as file:
                        file.write(f"\n{json.dumps(found[-1])}\n")
    print("\n".join(table(found)))


def learned(folder: Path, network: str, size: int, rates: list[float]) -> Iterator[dict[str, Any]]:
    """Solve a head and fine-tune from it, at each of some rates."""
    from tlkit import training
    from tlkit.training import plans, variables

    model, splits, solved = solved_on(folder, network, size)
    start, head = variables.values(model.variables), scored(model, splits)
    epochs = plans.epochs(len(splits.train), 32)
    for rate in rates:
        began = time.perf_counter()
        variables.assign(model.variables, start)
        plan = training.FineTuning(training.Settings(0, rate), training.Settings(epochs, rate, patience=None))
        planned = {name: part._replace(trial=False) for name, _, part in plan.full_parts(-(-len(splits.train) // 32))}
        parts = [(name, planned[name]) for name in ("trial", "full")]
        scores = [list(scored(model, splits)) for _ in fine_tuned(model, splits, parts, MOVED, solved)]
        seconds = time.perf_counter() - began
        yield {"rate": rate, "head": list(head), "trial": scores[0], "end": scores[1], "seconds": seconds}


def table(found: list[dict[str, Any]]) -> list[str]:
    """Give a row for each network and data set, and a column for each rate."""
    rates = sorted({line["rate"] for line in found}, reverse=True)
    rows = [
        f"| network | pixels | data | head | {' | '.join(f'{rate:g}: trial → end' for rate in rates)} |",
        "|---" * (4 + len(rates)) + "|",
    ]
    for cell in dict.fromkeys((line["network"], line["size"], line["data"]) for line in found):
        lines = {line["rate"]: line for line in found if (line["network"], line["size"], line["data"]) == cell}
        accuracy, loss = next(iter(lines.values()))["head"]
        columns = [f"{accuracy:.3f}, {loss:.3f}"]
        for rate in rates:
            if rate not in lines:
                columns.append("")
                continue
            (_, trial), (after, end) = lines[rate]["trial"], lines[rate]["end"]
            columns.append(f"{trial - loss:+.3f} → {end - loss:+.3f} ({after - accuracy:+.3f})")
        rows.append(f"| {' | '.join(map(str, cell))} | {' | '.join(columns)} |")
    return rows


if __name__ == "__main__":
    main()
