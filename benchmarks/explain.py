"""Whether heatmaps are true: what hiding the marked tenth of a photo costs the class, beside a random tenth.

python benchmarks/explain.py --data flowers trash textures pets2   # each has train/CLASS/*.jpg, and val/ or test/

A head is solved on a frozen network. Of test photos drawn at random, the most probable class is explained; the hottest
tenth of the pixels is filled with the photo's mean color, and in another copy the same shape at a random place
(`tlkit.explanation.deletion`). Each row is a set, a network and a way: the mean loss of probability by both, their
paired difference with its 95 % interval, and the share of photos in which the marked tenth costs more.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import _sets
import keras
import numpy as np

COLUMNS = ("set", "network", "way", "photos", "marked", "random", "difference (95 %)", "marked costs more", "s a photo")


def main() -> None:
    """Measure every combination and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="folders with train, and val or test")
    parser.add_argument("--networks", nargs="+", default=list(_sets.NETWORKS), choices=_sets.NETWORKS)
    parser.add_argument(
        "--ways", nargs="+", default=["activation", "layer"], help="see tlkit.explanation.heatmaps.WAYS"
    )
    parser.add_argument("--photos", type=int, default=150, help="photos that are explained")
    options = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for source in options.data:
        for network in options.networks:
            for cells in measured(source, network, options.ways, options.photos):
                print(f"| {' | '.join(map(str, cells))} |", flush=True)


def measured(source: str, network: str, ways: list[str], count: int) -> list[list[object]]:
    """Return the cells of a set and a network, a row for each way."""
    from tlkit import evaluation, explanation

    model, photos = solved(source, network, count)

    def predict(x: np.ndarray) -> np.ndarray:
        return model.predict(x, batch_size=50, verbose=0)

    rows = []
    for way in ways:
        explainer = explanation.explainer(model, way)
        began, parts = time.perf_counter(), []
        for start in range(0, len(photos), 50):
            part = photos[start : start + 50]
            parts.append(explainer.heatmaps(part, np.full(len(part), -1)))
        seconds = (time.perf_counter() - began) / len(photos)
        heat, probabilities = (np.concatenate(each) for each in zip(*parts, strict=True))
        found = explanation.deletion(predict, photos, heat, probabilities.argmax(axis=1))
        difference = found.marked - found.random
        low, high = evaluation.mean_interval(difference, None)
        cells = [f"{each.mean():.3f}" for each in found]
        cells += [f"{difference.mean():.3f} ({low:.3f} to {high:.3f})", f"{np.mean(difference > 0):.0%}"]
        rows.append([Path(source).name, network, way, len(photos), *cells, f"{seconds:.3f}"])
    return rows


def solved(source: str, network: str, count: int) -> tuple[keras.Model, np.ndarray]:
    """Solve a head on the last two stages of a network, and draw test photos."""
    from tlkit import backbones, data, features, probes
    from tlkit.features.store import Store

    name, alpha = _sets.NETWORKS[network]
    own = (Path(source) / "test").is_dir()
    size = (_sets.SIZE, _sets.SIZE)
    splits = data.load("folder", path=source, size=size, channels=3, check=False, val_as_test=not own)
    backbone = backbones.build(name, (*size, 3), "imagenet", alpha=alpha)
    model = backbones.classifier(backbone, len(splits.classes), pooled_stages=2)
    extractor = features.Extractor(features.pooled(model), Store(), label=network)
    known = features.Features.joined(extractor.extract(splits.train, splits.val))
    blocks = backbones.pooled_widths(model)
    probe = probes.logistic_regression(
        known.array(), known.labels, len(splits.classes), groups=known.groups, blocks=blocks
    )
    backbones.set_head(model, probe.kernel, probe.bias)
    test = splits.test
    if test is None:
        raise ValueError(f"{source} has no test photos")
    chosen = np.random.default_rng(0).permutation(len(test))[:count]
    return model, test.read(np.sort(chosen))


if __name__ == "__main__":
    main()
