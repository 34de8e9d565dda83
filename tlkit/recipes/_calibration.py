"""What a recipe makes of predictions that its model did not learn from: a temperature, and when it is unsure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit.errors import InvalidInput
from tlkit.recipes import _predicted

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tlkit import data
    from tlkit.evaluation.abstention import Abstention, Threshold
    from tlkit.evaluation.calibration import Calibration
    from tlkit.evaluation.reliability import Quality
    from tlkit.probes.features import Features
    from tlkit.probes.novelty import Novelty
    from tlkit.recipes._jobs import Job
    from tlkit.recipes._results import Fit


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


def report(fit: Fit, split: str, part: data.Photos, calibrated: Calibrated) -> None:
    """Add to a run's metrics, lines, note and pictures what the probabilities are worth, and what the split can tell.

    Args:
        fit: Of the run; it is changed.
        split: Name of the scored split.
        part: Its examples.
        calibrated: The model.
    """
    from tlkit import plots
    from tlkit.evaluation import abstention, reliability

    labels, groups, temperature = part.labels, part.grouping, calibrated.calibration.temperature
    after = reliability.quality(calibrated.after, labels, groups)
    before = reliability.quality(calibrated.before, labels, groups) if temperature != 1 else None
    fit.metrics.update(after.metrics(split))
    lines = [_quality(after, before, temperature, calibrated.held.what)]
    if before is not None:
        fit.metrics.update(before.metrics(split, "_uncalibrated"))
        fit.metrics.update({f"{split}_loss_uncalibrated": before.loss, "temperature": temperature})
    confidence, right = _answers(calibrated.after, labels)
    table = abstention.coverage_table(confidence, right, groups)
    lines.append(_coverage(table))
    lines += _promises(fit, split, part, calibrated, confidence, right)
    lines.append(_power(right, part))
    fit.lines.extend(lines)
    fit.note.extend(["", *(f"- {line.replace('  ', ': ', 1)}" for line in lines)])
    bins = [each.reliability[:3] for each in (after, before) if each]
    title = f"{len(labels):,} {split} {part.kind}"
    fit.pictures["calibration.png"] = plots.calibration(
        bins[0], bins[1] if before else None, confidence, right, table, title
    )


def _answers(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the probability of what is predicted for each example, and whether it is right."""
    from tlkit.evaluation import predictions

    if labels.ndim == 2:
        predicted = probabilities > 0.5
        return predictions.of_labels(probabilities, predicted), (predicted == (labels > 0.5)).all(axis=1)
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels


def _quality(after: Quality, before: Quality | None, temperature: float, what: str) -> str:
    """Say how far the probabilities can be trusted, and what the temperature did.

    The line is named as those of a summary are.
    """
    low, high = after.reliability.interval
    line = (
        f"calibration  ECE {after.reliability.ece:.3f} (95 % interval {low:.3f} to {high:.3f}), Brier {after.brier:.3f}"
    )
    if before is None:
        return f"{line}; no temperature improves it"
    was = f"ECE {before.reliability.ece:.3f}, log loss {before.loss:.3f} before and {after.loss:.3f} after"
    return f"{line}; temperature {temperature:.2f}, fitted on {what}: {was}"


def _coverage(table: Mapping[str, Sequence[float]]) -> str:
    """Say how accurate the surest answers are."""
    rows = list(zip(table["coverage"], table["accuracy"], strict=True))
    parts = [f"{share:.0%} {accuracy:.3f}" for share, accuracy in (rows[2], rows[3], rows[-1])]
    return f"coverage  accuracy of the surest {', '.join(parts)}"


def _promises(
    fit: Fit, split: str, part: data.Photos, calibrated: Calibrated, confidence: np.ndarray, right: np.ndarray
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
        fit.metrics.update(
            {"threshold": chosen.threshold} | {f"{split}_{name}": value for name, value in found.items()}
        )
        lines.append(
            f"unsure  below {chosen.threshold:.3f}, so that {target:g} of the other answers are right, with 95 % "
            f"confidence (by {held.what}); {split}: {share:.1%} answered, {accuracy:.3f} of these right"
        )
    if choice.set_threshold is not None and choice.set_coverage is not None:
        sets = abstention.label_sets(calibrated.after, choice.set_threshold)
        inside, size = float(sets[range(len(sets)), part.labels].mean()), float(sets.sum(axis=1).mean())
        fit.metrics.update({f"{split}_label_set_coverage": inside, f"{split}_label_set_size": size})
        lines.append(
            f"sets  of labels: {choice.set_coverage:g} of them have the right one (split conformal, by {held.what}); "
            f"{split}: {inside:.3f}, {size:.2f} labels in a set"
        )
    if calibrated.novelty is not None and calibrated.distances is not None:
        share = float((calibrated.distances > calibrated.novelty.threshold).mean())
        fit.metrics[f"{split}_novel"] = share
        lines.append(
            f"novelty  {share:.1%} of the {split} {part.kind} are like none known ({FALSE_ALARMS:.0%} are meant to)"
        )
    return lines


def _reachable(calibrated: Calibrated, target: float) -> bool:
    """Whether a lower accuracy can be promised."""
    from tlkit.evaluation import abstention, calibration

    held = calibrated.held
    probabilities = calibration.tempered(held.probabilities, calibrated.calibration.temperature)
    right = probabilities.argmax(axis=1) == held.labels
    return abstention.threshold(probabilities.max(axis=1), right, target, held.groups) is not None


def _power(right: np.ndarray, part: data.Photos) -> str:
    """Say what differences between models the split would show."""
    from tlkit.evaluation import intervals, power

    worth = None if part.grouping is None else intervals.effective_trials(right, part.grouping)
    return f"power  {power.sentence(float(right.mean()), len(right), part.kind, worth)}"
