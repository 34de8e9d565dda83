"""How well a model tells photos that are of none of its classes.

python benchmarks/novelty.py --data flowers trash textures pets2   # each has train/CLASS/*.jpg, and val/ or test/

Each row is a network and a set; the embedded digits are one more set. "left out": each class is left out of training in
turn, and its test photos are told from those of the other classes. "other sets": the test photos of each other set are
told from its own. For each way to score, the area under the ROC curve (0.5 is chance); for the one that is used, the
cosine to the nearest known photo, also what its threshold does: the share of known photos that are taken for strangers
(5 % is asked for), and of strangers that are found. FPR95 is the share of known photos that are taken for strangers
where 95 % of the strangers are found. "Shuffled": the share of own test photos that are taken for strangers, beside
that after known and test photos were shuffled (mean of 20 draws): a difference is one between the photos of the two.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import _sets
import numpy as np

Score = Callable[[np.ndarray], np.ndarray]
WAYS = ("nearest", "5 nearest", "Mahalanobis", "relative", "probability")
SHRINKAGE = 0.3  # of covariances towards a multiple of the identity; of 0.03, 0.1 and 0.3 the best


def main() -> None:
    """Measure every combination and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="folders with train, and val or test")
    sources = [*parser.parse_args().data, _sets.DIGITS]
    columns = [*WAYS, "known taken for strangers", "strangers found", "FPR95"]
    rows: dict[str, dict[str, np.ndarray]] = {"left out": {}, "other sets": {}}
    shuffled = []
    for network in _sets.NETWORKS:
        sets = {Path(source).name: _sets.measured(source, network) for source in sources}
        for name, own in sets.items():
            if len(own.classes) > 2:
                rows["left out"][f"{name} | {network}"] = left_out(own)
            others = [each.test.features for other, each in sets.items() if other != name]
            rows["other sets"][f"{name} | {network}"] = measure(own.known, own.test.features, others)
            shuffled.append(f"| {name} | {network} | {' | '.join(f'{alarms:.3f}' for alarms in false_alarms(own))} |")
            print(f"{name}, {network}", flush=True)
    for title, table in rows.items():
        print(f"\n{title}\n\n| set | network | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 2)}")
        for name, values in {**table, "mean | ": np.mean(list(table.values()), axis=0)}.items():
            print(f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} |")
    print("\nshuffled\n\n| set | network | as split | shuffled |\n|---|---|---|---|", *shuffled, sep="\n")


def false_alarms(own: _sets.Measured, draws: int = 20) -> tuple[float, float]:
    """Return the share of test photos that are taken for strangers: as they are split, and after shuffling."""
    from tlkit.probes import novelty

    values = np.concatenate([own.known.features, own.test.features])
    groups, count, rng = [*own.known.groups, *own.test.groups], len(own.known.labels), np.random.default_rng(0)
    shares = []
    for draw in range(draws + 1):
        order = rng.permutation(len(values)) if draw else np.arange(len(values))
        known, new = order[:count], order[count:]
        found = novelty.fit(values[known], groups=[groups[place] for place in known])
        if found is None:
            raise ValueError("too few photos are known")
        shares.append(float(np.mean(found.distances(values[new]) > found.threshold)))
    return shares[0], float(np.mean(shares[1:]))


def left_out(own: _sets.Measured) -> np.ndarray:
    """Leave each class out in turn; return the means of the columns."""
    found = []
    for label in range(len(own.classes)):
        keep, here = own.known.labels != label, own.test.labels != label
        groups = [group for group, kept in zip(own.known.groups, keep, strict=True) if kept]
        labels = np.unique(own.known.labels[keep], return_inverse=True)[1]
        known = _sets.Part(own.known.features[keep], labels, groups)
        found.append(measure(known, own.test.features[here], [own.test.features[~here]]))
    return np.mean(found, axis=0)


def measure(known: _sets.Part, own: np.ndarray, strangers: list[np.ndarray]) -> np.ndarray:
    """Score test photos of the classes and strangers in every way; return the columns, means over the strangers."""
    from sklearn.metrics import roc_auc_score

    from tlkit.probes import novelty

    areas = []
    for score in ways(known):
        mine = score(own)
        truth = [np.repeat([0, 1], [len(mine), len(each)]) for each in strangers]
        areas.append(
            np.mean([roc_auc_score(t, np.append(mine, score(each))) for t, each in zip(truth, strangers, strict=True)])
        )
    found = novelty.fit(known.features, groups=known.groups)
    if found is None:
        raise ValueError("too few photos are known")
    mine, theirs = found.distances(own), [found.distances(each) for each in strangers]
    alarms = float(np.mean(mine > found.threshold))
    caught = float(np.mean([np.mean(each > found.threshold) for each in theirs]))
    fpr95 = float(np.mean([np.mean(mine >= np.quantile(each, 0.05)) for each in theirs]))
    return np.array([*areas, alarms, caught, fpr95])


def ways(known: _sets.Part) -> list[Score]:
    """Give the ways of `WAYS`, each a function from features to how strange they are."""
    from tlkit import probes
    from tlkit.probes import novelty

    x, y = known.features.astype(np.float64), known.labels
    unit = novelty.unit(x).T
    means = np.stack([x[y == label].mean(axis=0) for label in np.unique(y)])
    within, whole = precision(x - means[y]), precision(x - x.mean(axis=0))
    probe = probes.logistic_regression(known.features, y, len(means), groups=known.groups, strengths=(0.01,))

    def nearest(count: int) -> Score:
        return lambda new: 1 - np.partition(novelty.unit(new) @ unit, -count, axis=1)[:, -count:].mean(axis=1)

    def distance(new: np.ndarray) -> np.ndarray:
        gaps = [new - mean for mean in means]
        return np.min([np.einsum("nd,nd->n", gap @ within, gap) for gap in gaps], axis=0)

    def relative(new: np.ndarray) -> np.ndarray:
        gap = new - x.mean(axis=0)
        return distance(new) - np.einsum("nd,nd->n", gap @ whole, gap)

    return [nearest(1), nearest(5), distance, relative, lambda new: -probe.probabilities(new).max(axis=1)]


def precision(centered: np.ndarray) -> np.ndarray:
    """Invert a covariance, shrunk."""
    covariance = centered.T @ centered / len(centered)
    size = len(covariance)
    return np.linalg.inv((1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / size * np.eye(size))


if __name__ == "__main__":
    main()
