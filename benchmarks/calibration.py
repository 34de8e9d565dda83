"""Whether a temperature makes new photos' probabilities better, and how much two networks differ on the same photos.

python benchmarks/calibration.py --data flowers trash textures pets2   # each has train/CLASS/*.jpg, and val/ or test/

Each row is a head that `feature_extraction` solves, on a network and a set; the embedded digits are one more set. The
temperature is fitted on predictions out of fold. "cv" is the change of their log loss by cross-validation, with its
standard error: what decides. The test photos are looked at last: log loss and calibration error (ECE) without a
temperature, with the fitted one whatever "cv" says, and as `calibrate` decides; the differences are paired. "vector" is
the cross-validated change of the log loss by a factor and an offset for each class. The last line is of pairs of
networks on a set: the share of the test photos that exactly one of them gets right, relative to their mean error.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import _sets
import numpy as np


def main() -> None:
    """Measure every combination and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="folders with train, and val or test")
    options = parser.parse_args()
    columns = ["set", "network", "temperature", "cv", "kept", "log loss", "with it", "difference", "as decided"]
    columns += ["ECE", "with it", "vector, cv"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    differing = []
    for source in [*options.data, _sets.DIGITS]:
        name = Path(source).name
        right = {network: row(name, network, _sets.measured(source, network)) for network in _sets.NETWORKS}
        for one, other in itertools.combinations(right.values(), 2):
            differing.append(float(np.mean(one != other) / (1 - (one.mean() + other.mean()) / 2)))
    print(f"\ndiffering / error: median {np.median(differing):.2f}, from {min(differing):.2f} to {max(differing):.2f}")


def row(name: str, network: str, measured: _sets.Measured) -> np.ndarray:
    """Print a row; return which test photos are right."""
    from tlkit import evaluation, probes
    from tlkit.evaluation import calibration, reliability

    known, test, classes = measured.known, measured.test, len(measured.classes)
    probe = probes.logistic_regression(known.features, known.labels, classes, groups=known.groups, seed=0)
    found = calibration.calibrate(probe.held_out, known.labels, groups=known.groups)
    plain = probe.probabilities(test.features)
    fitted = calibration.tempered(plain, found.fitted)
    decided = calibration.tempered(plain, found.temperature)

    def losses(probabilities: np.ndarray) -> Any:
        return calibration.log_losses(calibration.logits(probabilities), test.labels)

    def change(probabilities: np.ndarray) -> str:
        each = losses(probabilities) - losses(plain)
        return f"{each.mean():+.4f} ± {evaluation.standard_error(each):.4f}"

    errors = [reliability.reliability(each, test.labels).ece for each in (plain, fitted)]
    cells = [
        name, network, f"{found.fitted:.3f}",
        f"{found.difference:+.4f} ± {found.error:.4f}",
        "yes" if found.temperature != 1 else "no", f"{losses(plain).mean():.4f}", f"{losses(fitted).mean():.4f}",
        change(fitted), change(decided), f"{errors[0]:.3f}", f"{errors[1]:.3f}",
        f"{vector(probe.held_out, known):+.4f}",
    ]  # fmt: skip
    print(f"| {' | '.join(cells)} |", flush=True)
    return plain.argmax(1) == test.labels


def vector(probabilities: np.ndarray, known: _sets.Part) -> float:
    """Cross-validate the change of the log loss by a factor and an offset for each class (Guo et al. 2017)."""
    from scipy import optimize

    from tlkit.evaluation import calibration

    logits = calibration.logits(probabilities)
    logits -= logits.mean(axis=1, keepdims=True)
    classes, fold = logits.shape[1], np.random.default_rng(0).permutation(len(logits)) % 5
    changed = np.empty(len(logits))
    for held in range(5):
        x, y = logits[fold != held], known.labels[fold != held]

        def loss(weights: np.ndarray, x: np.ndarray = x, y: np.ndarray = y) -> tuple[float, np.ndarray]:
            scores = x * weights[:classes] + weights[classes:]
            odds = np.exp(scores - scores.max(axis=1, keepdims=True))
            excess = (odds / odds.sum(axis=1, keepdims=True) - np.eye(classes)[y]) / len(y)
            gradient = np.concatenate([(excess * x).sum(axis=0), excess.sum(axis=0)])
            return float(calibration.log_losses(scores, y).mean()), gradient

        start = np.concatenate([np.ones(classes), np.zeros(classes)])
        best = optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x
        out = fold == held
        changed[out] = calibration.log_losses(logits[out] * best[:classes] + best[classes:], known.labels[out])
    return float((changed - calibration.log_losses(logits, known.labels)).mean())


if __name__ == "__main__":
    main()
