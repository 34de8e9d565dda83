"""How many wrong labels are found, where a share of the labels of training photos is changed at random.

For each folder (one folder per class, with or without a folder `train` above them) the table has the share of the
changed labels that is among as many suspects as labels were changed, mean and range over the draws: by
`tlkit.inspection.suspicion`; by the probe and by the neighbours alone; and, where cleanlab is installed, by its scores
of the same probe. Photos whose label was wrong before count as mistakes of every method.

python benchmarks/suspects.py --data flowers/train pets/train
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tlkit import inspection, probes


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="folders of photos")
    parser.add_argument("--alpha", type=float, default=0.75, help="width of MobileNet, whose features are used")
    parser.add_argument("--share", type=float, default=0.05, help="of the labels that are changed")
    parser.add_argument("--draws", type=int, default=3, help="random choices of these labels; seeds 0, 1, ...")
    options = parser.parse_args()
    rows: dict[str, list[list[float]]] = {}
    for folder in options.data:
        features, labels, groups = extracted(folder, options.alpha)
        draws = [found(features, labels, groups, options.share, seed) for seed in range(options.draws)]
        for name in draws[0]:
            rows.setdefault(name, []).append([draw[name] for draw in draws])
    names = [Path(folder).parent.name if Path(folder).name == "train" else Path(folder).name for folder in options.data]
    print(f"{'':34}", *(f"{name:>20}" for name in names), f"{'mean':>6}")
    for name, sets in rows.items():
        cells = [f"{np.mean(each):.3f} ({min(each):.2f} to {max(each):.2f})" for each in sets]
        print(f"{name:34}", *(f"{cell:>20}" for cell in cells), f"{np.mean(sets):6.3f}")


def extracted(folder: str, alpha: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Give the features of all training photos below a folder, their labels and hashes."""
    from tlkit import backbones, data, features
    from tlkit.features.store import Store

    examples = data.load_source("folder", path=folder)
    training = {"train", None} & set(examples.splits)
    listed = examples.select([i for i, split in enumerate(examples.splits) if split in training])
    splits = data.load(listed, size=(224, 224), check=False)
    backbone = backbones.build("MobileNet", (224, 224, 3), "imagenet", alpha)
    network = features.pooled(backbones.classifier(backbone, len(examples.classes)))
    extractor = features.Extractor(network, Store())
    joined = features.Features.joined(extractor.extract(*splits.by_name.values()))
    return joined[:], joined.labels.astype(int), joined.groups


def found(features: np.ndarray, labels: np.ndarray, groups: list[str], share: float, seed: int) -> dict[str, float]:
    """Change labels, and give the share of these that each method ranks among the first as many."""
    rng, classes = np.random.default_rng(seed), int(labels.max()) + 1
    changed = rng.choice(len(labels), round(share * len(labels)), replace=False)
    given = labels.copy()
    given[changed] = (given[changed] + rng.integers(1, classes, len(changed))) % classes
    own = np.arange(len(given)), given
    near = inspection.neighbours(features, groups, seed=seed)
    held_out = probes.logistic_regression(features, given, classes, groups=groups, seed=seed).held_out
    suspicion = inspection.suspicion(features, given, classes, groups=groups, near=near, seed=seed)
    scores = {
        "inspection.suspicion": suspicion.probability,
        "probe alone": held_out[own],
        "30 neighbours alone": inspection.votes(near, given, classes)[own],
    }
    for name, score in cleanlab_scores().items():
        scores[name] = score(given, held_out)
    first = {name: np.argsort(score, kind="stable")[: len(changed)] for name, score in scores.items()}
    return {name: float(np.isin(changed, places).mean()) for name, places in first.items()}


def cleanlab_scores() -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """Give cleanlab's scores of labels, by name; none where it is not installed."""
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return {}

    def score(method: str, adjusted: bool) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        return lambda labels, held_out: get_label_quality_scores(
            labels, held_out, method=method, adjust_pred_probs=adjusted
        )

    kinds = {
        "self_confidence": (False, True),
        "normalized_margin": (False, True),
        "confidence_weighted_entropy": (False,),
    }
    return {
        f"cleanlab {method}{', adjusted' if adjusted else ''}": score(method, adjusted)
        for method, ways in kinds.items()
        for adjusted in ways
    }


if __name__ == "__main__":
    main()
