"""What intervals and thresholds promise, against 1,000 draws from known truths: within 1.5 points of the stated.

Where a promise is "at least", it may be kept more often.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tlkit.evaluation import abstention, intervals, power, predictions, reliability, uncertainty

DRAWS, STATED, NEAR = 1000, 0.95, 0.015 + 1e-9  # that far is near enough, whatever the rounding

Truth = Callable[[np.ndarray], np.ndarray]
TRUTHS: dict[str, Truth] = {
    "too sure": lambda p: p - 0.12 * np.sin(np.pi * p),
    "much too sure": lambda p: 1 / (1 + ((1 - p) / p) ** 0.5),
}
UNSURE: dict[str, Truth] = {"not sure enough": lambda p: 1 / (1 + ((1 - p) / p) ** 1.6)}


def confidences(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Of two classes, mostly near 1."""
    return np.minimum(rng.beta(6, 1.2, shape) * 0.49 + 0.51, 0.9999)


@pytest.mark.parametrize("examples", [60, 300])
def test_accuracy(examples: int):
    """Counts are whole, so that the coverage jumps with the accuracy: it is the mean over accuracies that is stated."""
    accuracies = np.linspace(0.6, 0.97, 2000)
    counts = np.random.default_rng(0).binomial(examples, accuracies, (DRAWS // 10, 2000))
    bounds = np.array([intervals.wilson(count, examples) for count in range(examples + 1)])[counts]
    inside = (bounds[..., 0] <= accuracies) & (accuracies <= bounds[..., 1])
    assert abs(inside.mean() - STATED) <= NEAR


def test_accuracy_of_groups():
    rng, inside = np.random.default_rng(0), []
    groups = np.repeat(np.arange(40), 8)
    for _ in range(DRAWS):
        shares = rng.beta(8, 2, 40)  # of each patient; 0.8 on average
        low, high = intervals.wilson_of_groups(rng.random(320) < shares[groups], groups)
        inside.append(low <= 0.8 <= high)
    assert abs(np.mean(inside) - STATED) <= NEAR


def ten_classes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Highest probabilities of ten classes."""
    scores = rng.standard_normal((count, 10))
    scores[:, 0] += rng.gamma(3, 1.2, count)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (shares / shares.sum(axis=1, keepdims=True)).max(axis=1)


CONFIDENCES = {2: lambda rng, count: confidences(rng, (count,)), 10: ten_classes}
GAPS: dict[str, Truth] = {  # of a certain root mean square, when they are scaled
    "all alike": lambda p: -np.ones_like(p),
    "too sure": lambda p: -p * (1 - p),
    "not sure enough": lambda p: 1 - p,
}


def ece_inside(
    truth: Truth, examples: int, classes: int = 2, copies: int = 1, draws: int = DRAWS, seed: int = 0
) -> np.ndarray:
    """Whether each draw's interval has the true calibration error of its own bins, and whether it lies above."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(draws):
        confidence = np.repeat(CONFIDENCES[classes](rng, examples // copies), copies)
        right = np.repeat(rng.random(examples // copies) < truth(confidence[::copies]), copies)
        groups = np.arange(examples) // copies if copies > 1 else None
        bins, bin_of = reliability.binned(confidence, right, groups)
        gaps = np.bincount(bin_of, truth(confidence) - confidence) / np.bincount(bin_of)
        error = float(np.sqrt(bins.weights @ gaps**2))
        sides = [reliability.excess(error, bins, above) > 0 for above in (True, False)]
        found.append((all(sides), not sides[0]))
    return np.array(found).mean(axis=0)


def with_error(gap: str, error: float, classes: int) -> Truth:
    shape = GAPS[gap]
    size = np.sqrt(np.mean(shape(CONFIDENCES[classes](np.random.default_rng(1), 200_000)) ** 2))
    return lambda p: np.clip(p + error * shape(p) / size, 0, 1)


def test_an_interval_of_calibration_errors_has_what_is_not_rejected():
    rng = np.random.default_rng(0)
    for truth in (lambda p: p, TRUTHS["too sure"]):
        confidence = confidences(rng, (300,))
        right = rng.random(300) < truth(confidence)
        low, high = reliability.reliability(
            np.stack([confidence, 1 - confidence], axis=1), (~right).astype(int)
        ).interval
        bins, _ = reliability.binned(confidence, right, None)
        for error in np.linspace(0, 0.3, 16):
            kept = all(reliability.excess(error, bins, above) > 0 for above in (True, False))
            assert kept == (low <= error <= high)


@pytest.mark.parametrize("draws", [100, pytest.param(DRAWS, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", TRUTHS)
def test_calibration_error(name: str, draws: int):
    inside, _ = ece_inside(TRUTHS[name], 1500, draws=draws)
    assert abs(inside - STATED) <= NEAR + (draws < DRAWS) * 0.045


@pytest.mark.parametrize("draws", [100, pytest.param(3 * DRAWS, marks=pytest.mark.slow)])
@pytest.mark.parametrize("classes", CONFIDENCES)
@pytest.mark.parametrize("examples", [100, 300, 1000])
def test_calibration_error_of_a_calibrated_model(examples: int, classes: int, draws: int):
    """Nothing is below 0: the interval of 5 in 100 lies above it."""
    inside, above = ece_inside(lambda p: p, examples, classes, draws=draws)
    assert abs(inside - STATED) <= NEAR + (draws < DRAWS) * 0.045
    assert inside + above == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize("classes", CONFIDENCES)
@pytest.mark.parametrize("examples", [100, 300, 1000])
@pytest.mark.parametrize("error", [0.01, 0.02, 0.05, 0.1])
def test_calibration_error_near_zero(error: float, examples: int, classes: int):
    """As a mean over the ways to err; the data do not tell them apart, and one alone differs by up to 3 points."""
    inside = [ece_inside(with_error(gap, error, classes), examples, classes, seed=5)[0] for gap in GAPS]
    assert abs(np.mean(inside) - STATED) <= NEAR + 0.005  # what 3,000 draws themselves are off by
    assert np.min(inside) >= STATED - 2 * NEAR


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TRUTHS, *UNSURE])
@pytest.mark.parametrize(("examples", "copies"), [(100, 1), (300, 1), (1200, 4)])
def test_calibration_error_of_few_and_of_groups(name: str, examples: int, copies: int):
    inside, _ = ece_inside({**TRUTHS, **UNSURE}[name], examples, copies=copies)
    assert abs(inside - STATED) <= 2 * NEAR


@pytest.mark.parametrize("draws", [100, pytest.param(DRAWS, marks=pytest.mark.slow)])
def test_brier_score(draws: int):
    rng, inside = np.random.default_rng(0), []
    share = confidences(rng, (1_000_000,))
    true = float(np.mean(share * 2 * (1 - share) ** 2 + (1 - share) * 2 * share**2))
    for _ in range(draws):
        confidence = confidences(rng, (300,))
        labels = (rng.random(300) > confidence).astype(int)
        scores = reliability.brier(np.stack([confidence, 1 - confidence], axis=1), labels)
        low, high = intervals.loss_interval(scores)
        inside.append(low <= true <= high)
    assert abs(np.mean(inside) - STATED) <= NEAR + (draws < DRAWS) * 0.02


def losses(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Log losses of calibrated answers, a tenth of them wrong: skewed, as few mistakes make half of the mean."""
    confidence = confidences(rng, shape)
    return -np.log(np.where(rng.random(shape) < confidence, confidence, 1 - confidence))


@pytest.mark.parametrize(
    ("examples", "copies", "draws"),
    [(100, 1, 200), pytest.param(100, 1, DRAWS, marks=pytest.mark.slow),
     pytest.param(40, 1, DRAWS, marks=pytest.mark.slow),
     pytest.param(300, 1, DRAWS, marks=pytest.mark.slow), pytest.param(400, 4, DRAWS, marks=pytest.mark.slow)],
)  # fmt: skip
def test_log_loss(examples: int, copies: int, draws: int):
    rng = np.random.default_rng(0)
    true, inside, symmetric = float(losses(rng, (2_000_000,)).mean()), [], []
    for _ in range(draws):
        found = np.repeat(losses(rng, (examples // copies,)), copies)
        groups = np.arange(examples) // copies if copies > 1 else None
        for interval, list_ in ((intervals.loss_interval, inside), (intervals.mean_interval, symmetric)):
            low, high = interval(found, groups)
            list_.append(low <= true <= high)
    assert abs(np.mean(inside) - STATED) <= NEAR + (draws < DRAWS) * 0.01
    assert np.mean(symmetric) < np.mean(inside)


@pytest.mark.slow
def test_log_loss_of_a_model_whose_mistakes_are_too_few_to_be_seen():
    """What the documentation says: no interval of the values covers what they do not have."""
    rng, inside = np.random.default_rng(0), []

    def sure(count: int) -> np.ndarray:
        confidence = np.minimum(rng.beta(20, 0.7, count) * 0.49 + 0.51, 0.9999)
        return -np.log(np.where(rng.random(count) < confidence, confidence, 1 - confidence))

    true = float(sure(2_000_000).mean())
    for _ in range(DRAWS):
        low, high = intervals.loss_interval(sure(100))
        inside.append(low <= true <= high)
    assert 0.7 < np.mean(inside) < 0.9  # one or two mistakes in a hundred, and often none


@pytest.mark.parametrize("lowest", [0.6, 0.9, 0.97])
@pytest.mark.parametrize("draws", [60, pytest.param(DRAWS, marks=pytest.mark.slow)])
def test_balanced_accuracy(lowest: float, draws: int):
    """As for the accuracy, over many truths: classes of unequal sizes, with recalls from `lowest` to 1."""
    rng, inside = np.random.default_rng(0), []
    for number in range(draws):
        sizes = rng.integers(10, 60, (2, 5)[number % 2])
        recalls = rng.uniform(lowest, 1, len(sizes))
        low, high = intervals.mean_of_shares(rng.binomial(sizes, recalls), sizes)
        inside.append(low <= recalls.mean() <= high)
    assert abs(np.mean(inside) - STATED) <= NEAR + (draws < DRAWS) * 0.02


def answers(rng: np.random.Generator, examples: int, several: bool) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true classes, (examples, classes): one of four unequal ones, or three labels, often confused."""
    if several:
        true = rng.random((examples, 3)) < [0.5, 0.3, 0.15]
        return np.where(rng.random((examples, 3)) < 0.85, true, ~true), true
    label = rng.choice(4, examples, p=[0.4, 0.3, 0.2, 0.1])
    predicted = np.where(rng.random(examples) < 0.9 - 0.06 * label, label, (label + 1) % 4)
    return np.eye(4, dtype=bool)[predicted], np.eye(4, dtype=bool)[label]


@pytest.mark.parametrize(
    ("examples", "several", "micro", "copies", "draws"),
    [(100, False, False, 1, 60), (150, True, True, 1, 60),
     pytest.param(100, False, False, 1, DRAWS, marks=pytest.mark.slow),
     pytest.param(400, False, False, 1, DRAWS, marks=pytest.mark.slow),
     pytest.param(150, False, False, 2, DRAWS, marks=pytest.mark.slow),
     pytest.param(150, True, False, 1, DRAWS, marks=pytest.mark.slow),
     pytest.param(150, True, True, 1, DRAWS, marks=pytest.mark.slow)],
)  # fmt: skip
def test_f1(examples: int, several: bool, micro: bool, copies: int, draws: int):
    """Also of examples that come in pairs, where whole pairs are drawn."""
    rng, inside = np.random.default_rng(0), []
    predicted, true = answers(rng, 1_000_000, several)
    hits, named = ((predicted & true).sum(axis=0), predicted.sum(axis=0) + true.sum(axis=0))
    truth = 2 * hits.sum() / named.sum() if micro else (2 * hits / named).mean()
    for _ in range(draws):
        found = [np.repeat(each, copies, axis=0) for each in answers(rng, examples, several)]
        groups = np.repeat(np.arange(examples), copies) if copies > 1 else None
        low, high = uncertainty.f1_interval(*found, groups, micro=micro)
        inside.append(low <= truth <= high)
    assert abs(np.mean(inside) - STATED) <= NEAR + (draws < DRAWS) * 0.05


def true_accuracy(truth: Truth) -> Callable[[float], float]:
    """The accuracy of all answers from a threshold on, by two million examples."""
    confidence = np.sort(confidences(np.random.default_rng(1), (2_000_000,)))
    from_here = np.cumsum(truth(confidence)[::-1])[::-1] / np.arange(len(confidence), 0, -1)
    return lambda threshold: float(from_here[min(np.searchsorted(confidence, threshold), len(confidence) - 1)])


def kept_promises(truth: Truth, target: float, examples: int, copies: int = 1) -> tuple[float, float]:
    """The share of draws whose threshold keeps its promise, or that have none; and the share that have one."""
    rng, accuracy, kept, found = np.random.default_rng(0), true_accuracy(truth), [], []
    for _ in range(DRAWS):
        confidence = np.repeat(confidences(rng, (examples // copies,)), copies)
        right = np.repeat(rng.random(examples // copies) < truth(confidence[::copies]), copies)
        groups = np.arange(examples) // copies if copies > 1 else None
        chosen = abstention.threshold(confidence, right, target, groups)
        kept.append(chosen is None or accuracy(chosen.threshold) >= target)
        found.append(chosen is not None)
    return float(np.mean(kept)), float(np.mean(found))


@pytest.mark.parametrize(("target", "examples"), [(0.95, 400), pytest.param(0.99, 2000, marks=pytest.mark.slow)])
def test_threshold(target: float, examples: int):
    kept, found = kept_promises(lambda p: 1 - (1 - p) ** 2, target, examples)
    assert kept >= STATED - NEAR
    assert found > 0.9


def test_threshold_where_no_accuracy_is_high_enough():
    """The hardest truth: the accuracy just misses the target at every threshold."""
    kept, found = kept_promises(lambda p: np.full_like(p, 0.8999), 0.9, 400)
    assert STATED - NEAR <= kept == 1 - found


@pytest.mark.slow
def test_threshold_of_groups():
    kept, _ = kept_promises(lambda p: np.full_like(p, 0.8999), 0.9, 1600, copies=4)
    assert kept >= STATED - NEAR


@pytest.mark.parametrize(("coverage", "examples"), [(0.9, 99), (0.95, 400)])
def test_label_sets(coverage: float, examples: int):
    """The mean over draws is what split conformal prediction promises, between the coverage and 1 / (n + 1) more."""
    rng, shares = np.random.default_rng(0), []
    for _ in range(DRAWS):
        probabilities = rng.dirichlet([2, 1, 0.5, 0.3], examples + 200)
        labels = (rng.random((examples + 200, 1)) > probabilities[:, [1, 0, 2, 3]].cumsum(axis=1)).sum(axis=1)
        least = abstention.set_threshold(probabilities[:examples], labels[:examples], coverage)
        sets = abstention.label_sets(probabilities[examples:], least)
        shares.append(sets[np.arange(200), labels[examples:]].mean())
    assert coverage - 0.005 <= np.mean(shares) <= coverage + NEAR


def test_label_sets_of_too_few_examples_have_all_classes():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]])
    least = abstention.set_threshold(probabilities, np.array([0, 1]), 0.95)
    assert abstention.label_sets(probabilities, least).all()


@pytest.mark.parametrize(("examples", "differing"), [(100, 0.3), (300, 0.1), (1000, 0.05)])
def test_power(examples: int, differing: float):
    """The exact test finds the smallest difference four times of five, and half of it far less often."""
    least, rng = power.smallest_difference(examples, differing), np.random.default_rng(0)

    def found(difference: float) -> float:
        shares = [(differing + difference) / 2, (differing - difference) / 2, 1 - differing]
        only = rng.multinomial(examples, shares, DRAWS)[:, :2]
        p_values: dict[tuple[int, int], float] = {}
        for first, second in {(int(each[0]), int(each[1])) for each in only}:
            right = np.repeat([[True, False], [False, True]], [first, second], axis=0)
            p_values[first, second] = predictions.mcnemar(right[:, 0], right[:, 1]).p_value if len(right) else 1.0
        return float(np.mean([p_values[int(first), int(second)] <= power.LEVEL for first, second in only]))

    assert power.POWER - NEAR <= found(least) <= power.POWER + 2 * NEAR
    assert found(least / 2) < 0.4
    assert abs(power.examples_needed(least, differing) - examples) <= 0.01 * examples + 1
