"""How many wrong labels are found, where a share of the labels is changed at random.

For each folder of photos, all splits together as `tlkit inspect` takes them, the table has the share of the changed
labels that is among as many suspects as labels were changed, mean and range over the draws: by
`tlkit.inspection.suspicion`; by its parts alone; with logistic regression in place of the kernel; with labels to learn
from that are all right, which no program has; and, where cleanlab is installed, by its scores of the kernel's and of
logistic regression's probabilities. Photos whose label was wrong before count as mistakes of every method.

python benchmarks/suspects.py --data flowers pets
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tlkit import inspection, probes
from tlkit.progress import Progress


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="folders of photos")
    parser.add_argument("--alpha", type=float, default=0.75, help="width of MobileNet, whose features are used")
    parser.add_argument("--share", type=float, default=0.05, help="of the labels that are changed")
    parser.add_argument("--draws", type=int, default=8, help="random choices of these labels; seeds from --first on")
    parser.add_argument("--first", type=int, default=0, help="seed of the first draw")
    options = parser.parse_args()
    rows: dict[str, list[list[float]]] = {}
    for folder in options.data:
        photos = extracted(folder, options.alpha)
        draws = []
        with Progress(f"{Path(folder).name}, labels changed", options.draws, "draws") as progress:
            for seed in range(options.first, options.first + options.draws):
                draws.append(found(*photos, options.share, seed))
                progress.advance()
        for name in draws[0]:
            rows.setdefault(name, []).append([draw[name] for draw in draws])
    names = [Path(folder).name for folder in options.data]
    print(f"{'':50}", *(f"{name:>20}" for name in names), f"{'mean':>6}")
    for name, sets in rows.items():
        cells = [f"{np.mean(each):.3f} ({min(each):.2f} to {max(each):.2f})" for each in sets]
        print(f"{name:50}", *(f"{cell:>20}" for cell in cells), f"{np.mean(sets):6.3f}")


def extracted(folder: str, alpha: float) -> tuple[np.ndarray, np.ndarray, list[str], list[int]]:
    """Give the features of all photos below a folder, as `inspect` computes them; labels, groups, widths of stages."""
    from tlkit import backbones, data, features
    from tlkit.features.store import Store

    splits = data.load("folder", path=folder, size=(224, 224), resize="center", check=False)
    backbone = backbones.build("MobileNet", (224, 224, 3), "imagenet", alpha)
    classifier = backbones.classifier(backbone, len(splits.classes), pooled_stages=2)
    extractor = features.Extractor(features.pooled(classifier), Store())
    joined = features.Features.joined(extractor.extract(*splits.by_name.values()))
    return joined.array()[:], joined.labels.astype(int), joined.groups, backbones.pooled_widths(classifier)


def found(
    features: np.ndarray, labels: np.ndarray, groups: list[str], widths: list[int], share: float, seed: int
) -> dict[str, float]:
    """Change labels, and give the share of these that each method ranks among the first as many."""
    rng, classes = np.random.default_rng(seed), int(labels.max()) + 1
    changed = rng.choice(len(labels), round(share * len(labels)), replace=False)
    given = labels.copy()
    given[changed] = (given[changed] + rng.integers(1, classes, len(changed))) % classes
    own = np.arange(len(given)), given
    near = inspection.neighbours(features, groups, seed=seed)
    suspicion = inspection.suspicion(features, given, classes, groups=groups, blocks=widths, near=near, seed=seed)
    votes = inspection.votes(near, given, classes)
    kernel = probes.kernel_ridge(features, given, classes, groups=groups, blocks=widths, seed=seed)
    logistic = probes.logistic_regression(features, given, classes, groups=groups, seed=seed).held_out
    clean = probes.kernel_ridge(features, labels, classes, groups=groups, blocks=widths, seed=seed)
    scores = {
        "inspection.suspicion": suspicion.probability,
        "with right labels to learn from": _product(clean, inspection.votes(near, labels, classes))[own],
        "logistic regression and neighbours": _product(logistic, votes)[own],
        "kernel ridge regression alone": kernel[own],
        "logistic regression alone": logistic[own],
        "30 neighbours alone": votes[own],
    }
    for name, score in cleanlab_scores().items():
        scores[f"{name} (kernel)"] = score(given, kernel)
        scores[f"{name} (logistic)"] = score(given, logistic)
    first = {name: np.argsort(score, kind="stable")[: len(changed)] for name, score in scores.items()}
    return {name: float(np.isin(changed, places).mean()) for name, places in first.items()}


def _product(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    product: np.ndarray = one * other
    return product / product.sum(axis=1, keepdims=True)


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
