"""What a recipe makes of predictions that its model did not learn from: a temperature, and when it is unsure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit.errors import InvalidInput
from tlkit.recipes import _predicted

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tlkit import data, plots
    from tlkit.data.graph import Graph
    from tlkit.evaluation.abstention import Abstention, Threshold
    from tlkit.evaluation.calibration import Calibration
    from tlkit.evaluation.reliability import Quality
    from tlkit.probes.features import Features
    from tlkit.probes.novelty import Novelty
    from tlkit.recipes._fit import Fit
    from tlkit.recipes._jobs import Job


class HeldOut(NamedTuple):
    """Predictions for examples that the model did not learn from, nor, out of fold, the fold's model.

    Args:
        probabilities: Shape (examples, classes).
        labels: Shape (examples,); or (examples, classes), zeros and ones, where an example may have several.
        groups: The group of each, which alone are independent; None where each example is.
        what: In words, such as `validation photos`.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    groups: Sequence[str] | None
    what: str


class Calibrated(NamedTuple):
    """A model whose probabilities were looked at.

    Args:
        calibration: The temperature, which the model's head has.
        held: What it was fitted on.
        abstention: When the model says no single class.
        before: Probabilities for the scored split, without the temperature.
        after: The same with it; where the split is `held` itself, each example's at the temperature of other folds.
        threshold: How the threshold was chosen; None without one.
        target: The accuracy that was asked for.
        novelty: Known examples, where the model tells what is like none of them.
        distances: Of the scored split from these.
    """

    calibration: Calibration
    held: HeldOut
    abstention: Abstention
    before: np.ndarray
    after: np.ndarray
    threshold: Threshold | None = None
    target: float | None = None
    novelty: Novelty | None = None
    distances: np.ndarray | None = None


def check(config: Any, classes: Sequence[str], multi_label: bool) -> None:
    """Refuse what cannot be promised, before any work; settings without `target_accuracy` pass.

    Raises:
        InvalidInput: examples may have several labels, or a class has the name of no answer.
    """
    for name in ("target_accuracy", "label_sets"):
        value = getattr(config, name, None)
        if value is not None and multi_label:
            raise InvalidInput(f"{name} is {value:g}, but examples may have several labels, or none: leave it out")
    if (target := getattr(config, "target_accuracy", None)) is not None:
        _predicted.check_unsure(f"target_accuracy is {target:g}", classes)


def check_count(config: Any, count: int, kind: str) -> None:
    """Refuse a target accuracy that so few examples cannot show, before training.

    Args:
        config: The settings.
        count: Number of examples that are held out.
        kind: What they are, in words.

    Raises:
        InvalidInput: the message says how many are needed, and what these can show.
    """
    from tlkit.evaluation import abstention

    target = getattr(config, "target_accuracy", None)
    if target is None or count >= abstention.needed(target):
        return
    able = [each for each in (0.98, 0.97, 0.95, 0.9, 0.8) if each < target and count >= abstention.needed(each)]
    other = f", or --target_accuracy {able[0]:g} or less" if able else ""
    raise InvalidInput(
        f"target_accuracy is {target:g}, which {abstention.needed(target):,} {kind} could show at the least, and there "
        f"are {count:,}: give more (see data.val_fraction){other}"
    )


def calibrate(
    job: Job[Any], model: keras.Model, held: HeldOut, scored: np.ndarray | None, tempers: bool = True
) -> Calibrated:
    """Fit a temperature, which becomes part of the model where it clearly helps, and choose the thresholds.

    Args:
        job: The recipe.
        model: The model; its head is changed.
        held: What its model did not learn from.
        scored: Its probabilities for the scored split, shape (examples, classes); None if that is `held`.
        tempers: Whether a temperature may be fitted: not where the model gives the mean of several heads.
    """
    from tlkit import backbones
    from tlkit.evaluation import abstention, calibration

    several, config = held.labels.ndim == 2, job.config
    found = calibration.calibrate(held.probabilities, held.labels, several, held.groups, config.seed)
    if not tempers:
        found = found._replace(temperature=1.0, probabilities=held.probabilities)
    if found.temperature != 1:
        backbones.temper(model, found.temperature)
    before = held.probabilities if scored is None else scored
    after = found.probabilities if scored is None else calibration.tempered(scored, found.temperature, several)
    choice, chosen = abstention.Abstention(), None
    target, sets = getattr(config, "target_accuracy", None), getattr(config, "label_sets", None)
    probabilities = calibration.tempered(held.probabilities, found.temperature, several)
    if target is not None:
        right = probabilities.argmax(axis=1) == held.labels
        chosen = abstention.threshold(probabilities.max(axis=1), right, target, held.groups)
        if chosen is not None:
            choice = choice._replace(threshold=chosen.threshold, target_accuracy=target)
    if sets is not None:
        least = abstention.set_threshold(probabilities, held.labels, sets, held.groups)
        choice = choice._replace(set_threshold=least, set_coverage=sets)
    return Calibrated(found, held, choice, before, after, chosen, target)


def independent(groups: Sequence[str]) -> Sequence[str] | None:
    """Return the groups of examples; None where each is one of its own."""
    return groups if len(set(groups)) < len(groups) else None


def with_novelty(calibrated: Calibrated, novelty: Novelty | None, scored: Features) -> Calibrated:
    """Add known examples, and the distances of the scored split from them.

    Args:
        calibrated: What there is.
        novelty: The known examples; None where there are too few.
        scored: Features of the scored split, shape (examples, features).
    """
    if novelty is None:
        return calibrated
    return calibrated._replace(novelty=novelty, distances=novelty.distances(scored))


class Worth(NamedTuple):
    """What probabilities are worth, and what the examples can tell.

    Args:
        metrics: By their names in MLflow.
        lines: For the summary.
        picture: Reliability, and accuracy against coverage.
        surest: Shares of the examples, those that the model is surest of, with the accuracy of each; all first.
    """

    metrics: dict[str, float]
    lines: list[str]
    picture: plots.Picture
    surest: list[tuple[float, float]]

    @property
    def note(self) -> list[str]:
        """The lines as a list in Markdown."""
        return [f"- {line.replace('  ', ': ', 1)}" for line in self.lines]


def worth(
    split: str,
    part: data.Photos | Graph,
    labels: np.ndarray,
    after: np.ndarray,
    calibrated: Calibrated | None = None,
) -> Worth:
    """Find out what probabilities are worth.

    Args:
        split: Name of the split.
        part: Its examples.
        labels: Their labels.
        after: Their probabilities, shape (examples, classes).
        calibrated: How the model was calibrated, if it was here.
    """
    from tlkit import plots
    from tlkit.data import graph
    from tlkit.evaluation import abstention, intervals, power, reliability

    groups, temperature = part.grouping, 1.0 if calibrated is None else calibrated.calibration.temperature
    now = reliability.quality(after, labels, groups)
    metrics, was = now.metrics(split), None
    if calibrated is not None and temperature != 1:
        was = reliability.quality(calibrated.before, labels, groups)
        metrics |= was.metrics(split, "_uncalibrated")
        metrics |= {f"{split}_loss_uncalibrated": was.loss, "temperature": temperature}
    confidence, right = _answers(after, labels)
    table = abstention.coverage_table(confidence, right, groups)
    lines = [_quality(now, was, calibrated), _coverage(table, labels.ndim == 2)]
    if calibrated is not None and not isinstance(part, graph.Graph):
        lines += _promises(metrics, split, part, calibrated, confidence, right)
    effective = None if groups is None else intervals.effective_trials(right, groups)
    lines.append(f"power  {power.sentence(float(right.mean()), len(right), part.kind, effective)}")
    bins, before = now.reliability[:3], None if was is None else was.reliability[:3]
    title = f"{len(labels):,} {split} {part.kind}"
    surest = list(zip(table["coverage"], table["accuracy"], strict=True))
    return Worth(metrics, lines, plots.Picture("calibration", bins, before, confidence, right, table, title), surest)


def report(fit: Fit, found: Worth) -> None:
    """Add to a run's metrics, lines, note and pictures what the probabilities are worth."""
    fit.metrics.update(found.metrics)
    fit.lines.extend(found.lines)
    fit.note.extend(["", *found.note])
    fit.pictures["calibration.png"] = found.picture
    fit.worth = found


def _answers(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the probability of what is predicted for each example, and whether it is right."""
    from tlkit.evaluation import predictions

    if labels.ndim == 2:
        predicted = probabilities > 0.5
        return predictions.of_labels(probabilities, predicted), (predicted == (labels > 0.5)).all(axis=1)
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels


def _quality(now: Quality, was: Quality | None, calibrated: Calibrated | None) -> str:
    """Say how far the probabilities can be trusted, and what the temperature did."""
    low, high = now.reliability.interval
    line = f"calibration  ECE {now.reliability.ece:.3f} (95 % interval {low:.3f} to {high:.3f}), Brier {now.brier:.3f}"
    if calibrated is None:
        return line
    if was is None:
        return f"{line}; no temperature improves it"
    before = f"ECE {was.reliability.ece:.3f}, log loss {was.loss:.3f} before and {now.loss:.3f} after"
    return f"{line}; temperature {calibrated.calibration.temperature:.2f}, by {calibrated.held.what}: {before}"


def _coverage(table: Mapping[str, Sequence[float]], several: bool) -> str:
    """Say how accurate the surest answers are."""
    rows = list(zip(table["coverage"], table["accuracy"], strict=True))
    parts = [f"{share:.0%} {accuracy:.3f}" for share, accuracy in (rows[2], rows[3], rows[-1])]
    return f"coverage  {'all labels right' if several else 'accuracy'} of the surest {', '.join(parts)}"


def _promises(
    metrics: dict[str, float],
    split: str,
    part: data.Photos,
    calibrated: Calibrated,
    confidence: np.ndarray,
    right: np.ndarray,
) -> list[str]:
    """Say what thresholds promise, and how the scored split keeps it."""
    from tlkit.evaluation import abstention
    from tlkit.probes.novelty import FALSE_ALARMS

    lines, held, choice = list[str](), calibrated.held, calibrated.abstention
    target, chosen = calibrated.target, calibrated.threshold
    if target is not None and chosen is None:
        others = (0.98, 0.97, 0.95, 0.9, 0.8, 0.7)
        best = next((each for each in others if each < target and _reachable(calibrated, each)), None)
        advice = f"; --target_accuracy {best:g} can be" if best else ""
        lines.append(f"unsure  never: {target:g} cannot be promised by {held.what}{advice}")
    elif target is not None and chosen is not None:
        answered = confidence >= chosen.threshold
        share, accuracy = float(answered.mean()), float(right[answered].mean()) if answered.any() else 1.0
        found = {"coverage": share, "accuracy_answered": accuracy}
        metrics.update({"threshold": chosen.threshold} | {f"{split}_{name}": value for name, value in found.items()})
        lines.append(
            f"unsure  below {chosen.threshold:.3f}, so that {target:g} of the other answers are right, with 95 % "
            f"confidence (by {held.what}); {split}: {share:.1%} answered, {accuracy:.3f} of these right"
        )
    if choice.set_threshold is not None and choice.set_coverage is not None:
        sets = abstention.label_sets(calibrated.after, choice.set_threshold)
        inside, size = float(sets[range(len(sets)), part.labels].mean()), float(sets.sum(axis=1).mean())
        metrics.update({f"{split}_label_set_coverage": inside, f"{split}_label_set_size": size})
        lines.append(
            f"sets  of labels: {choice.set_coverage:g} of them have the right one (split conformal, by {held.what}); "
            f"{split}: {inside:.3f}, {size:.2f} labels in a set"
        )
    if calibrated.novelty is not None and calibrated.distances is not None:
        share = float((calibrated.distances > calibrated.novelty.threshold).mean())
        metrics[f"{split}_novel"] = share
        lines.append(
            f"novelty  {share:.1%} of the {split} {part.kind} are like none known ({FALSE_ALARMS:.0%} expected)"
        )
    return lines


def _reachable(calibrated: Calibrated, target: float) -> bool:
    """Whether a lower accuracy can be promised."""
    from tlkit.evaluation import abstention, calibration

    held = calibrated.held
    probabilities = calibration.tempered(held.probabilities, calibrated.calibration.temperature)
    right = probabilities.argmax(axis=1) == held.labels
    return abstention.threshold(probabilities.max(axis=1), right, target, held.groups) is not None
