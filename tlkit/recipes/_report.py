"""The report and the model card of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tlkit import config as configs
from tlkit.display import code, cut, markdown, shown
from tlkit.recipes import _calibration, _export_origin, _near_copies, _networks, _note, _runs, _summary

if TYPE_CHECKING:
    import keras

    from tlkit import data, evaluation, report
    from tlkit.data import graph
    from tlkit.recipes._evaluation import Evaluated
    from tlkit.recipes._fit import Fit
    from tlkit.recipes._jobs import Job
    from tlkit.recipes._mistakes import Mistakes
    from tlkit.recipes._results import Scored

PAGE, CARD = _summary.REPORT, "model_card.md"
SPLITS = {"train": "training", "val": "validation"}
NAMES = {"balanced_accuracy": "balanced accuracy", "loss": "log loss", "f1": "F1", "auc": "AUC", "map": "mAP",
         "accuracy": "accuracy", "f1_micro": "micro F1", "exact_match": "all labels right"}  # fmt: skip


def log(
    job: Job[Any],
    run_id: str,
    model: keras.Model,
    fit: Fit,
    scored: Scored,
    pictures: Mapping[str, bytes],
) -> None:
    """Log the report and the model card of a training run, given its PNGs by file name."""
    import mlflow

    from tlkit import inspection, report, runtime, tracking
    from tlkit.data import graph
    from tlkit.progress import duration

    scores, splits = scored.scores, scored.splits
    classes = scores.by_class(splits.classes)
    data, leaks, looked_for = list[str](), None, ""
    if not isinstance(splits, graph.Graph):
        findings = inspection.of_splits(splits, _runs.dataset_name(job.config.data))
        copies = [_near_copies.sentence(splits)] if splits.near_copies else []
        data = [*inspection.brief(findings), *[line for line in splits.warnings if line not in copies][:20]]
        leaks = [
            *findings.falsifying(),
            *([] if findings.copies_falsify else copies),
            *[" ".join(line.split()) for line in fit.under],
        ]
        looked_for = "Copies across splits" + " and near copies of the scored photos" * (splits.kind == "photos")
    network, name = _networks.name(job.config), _runs.dataset_name(job.config.data)
    what = (
        f"{network}, {model.count_params():,} parameters, by {job.recipe} on {splits.kind} of {name}; "
        f"{len(splits.classes)} classes"
    )
    worth = fit.worth
    verdict = _verdict(scores, splits.kind, splits.classes, classes, worth, fit.is_optimistic(scores), leaks=len(
        getattr(splits, "near_copies", ())))  # fmt: skip
    use = _note.use(splits, run_id)
    others = [re.sub(" {2,}", ": ", line, count=1) for line in fit.lines if not worth or line not in worth.lines]
    active = mlflow.active_run()
    written = report.Report(
        title=(active and active.info.run_name) or _runs.title(job.recipe, job.config),
        what=what,
        verdict=verdict,
        scores=_scores(scores, scored.intervals),
        constant=_constant(scores, splits.classes),
        split=scores.split,
        kind=splits.kind,
        classes=classes,
        counts=_counts(splits, scores),
        data=data,
        leaks=leaks,
        looked_for=looked_for,
        worth=worth.lines if worth else [],
        charts=report.charts_of(pictures),
        mistakes=scored.mistakes.rows,
        wrong=scored.mistakes.wrong,
        explained=scored.mistakes.explained,
        trained=[f"{duration(fit.seconds)} of training", *others],
        settings=_runs.params(job.config, job.asked),
        environment=runtime.environment(),
        repeat=f"python -m tlkit.recipes.{job.recipe} --config config.yaml",
        use=use,
    )
    tracking.log_text(report.page(written), PAGE)
    tracking.log_text(_card(job, run_id, what, scores, splits, written), CARD)


def _card(
    job: Job[Any], run_id: str, what: str, scores: evaluation.Scores, splits: data.Splits | graph.Graph,
    written: report.Report,
) -> str:  # fmt: skip
    from tlkit import report

    metrics, params = scores.metrics(), {name: str(value) for name, value in configs.flatten(job.config).items()}
    weights = _export_origin.licence(params) if "backbone.name" in params else ""
    lines = [
        f"{each['context']}: {markdown(each['name'])}, digest {code(each['digest'])}"
        for each in _runs.datasets(job.config.data, splits)
    ]
    origin = report.Origin(
        f"runs:/{run_id}/model", "", f"{markdown(what)}. MLflow run {code(run_id)}.", lines,
        _export_origin.score_lines(metrics), weights,
    )  # fmt: skip
    front = report.front_matter(
        written.title, splits.kind, weights, _runs.dataset_name(job.config.data),
        {name: metrics[f"{scores.split}_{name}"] for name in ("accuracy", "f1") if f"{scores.split}_{name}" in metrics},
    )  # fmt: skip
    sentence = " ".join([written.verdict.sentence, *written.verdict.more])
    return report.model_card(
        front, written.title, sentence, splits.classes, origin, written.use, written.worth, scores.multi_label
    )


def log_evaluation(evaluated: Evaluated, pictures: Mapping[str, bytes], mistakes: Mistakes, title: str) -> None:
    """Log the report of an evaluation."""
    from tlkit import report, runtime, tracking

    subject, scores, kind = evaluated.subject, evaluated.scores, evaluated.examples.kind
    classes, trained = subject.classifier.classes, subject.training.run
    left = len(subject.loaded.examples) - len(evaluated.examples)
    again = evaluated.again
    data = [f"{len(subject.seen):,} that the model has seen, or near copies of these: {left:,} left out"]
    of = f", trained in run {shown(trained.info.run_name or trained.info.run_id)}" if trained else ""
    written = report.Report(
        title=title,
        what=f"{subject.name} ({subject.classifier.name}{of}) on {kind} of {subject.loaded.name}",
        verdict=_verdict(scores, kind, classes, evaluated.class_scores, evaluated.worth, False, again),
        scores=_scores(scores, evaluated.intervals),
        constant=_constant(scores, classes),
        split="test",
        kind=kind,
        classes=evaluated.class_scores,
        counts={"test": scores.photos},
        data=data + ([f"{len(subject.loaded.set_aside):,} cannot be decoded"] if subject.loaded.set_aside else []),
        leaks=[f"{again:,} {kind} that the model has seen were scored too"] * bool(again),
        looked_for="What the model has seen, and near copies of it",
        worth=evaluated.worth.lines,
        charts=report.charts_of(pictures),
        mistakes=mistakes.rows,
        wrong=mistakes.wrong,
        explained=mistakes.explained,
        settings={} if trained is None else dict(sorted(trained.data.params.items())),
        environment=runtime.environment(),
        use=_note.use_of(subject.classifier.name, evaluated.examples.modality),
    )
    tracking.log_text(report.page(written), PAGE)


def _verdict(
    scores: evaluation.Scores, kind: str, classes: Sequence[str], by_class: Mapping[str, Any],
    worth: _calibration.Worth | None, chosen_by: bool, leaks: int,
) -> report.Verdict:  # fmt: skip
    from tlkit import report

    headline, value, interval = scores.headline
    constant = None
    if scores.majority_accuracy is not None and not scores.multi_label:
        constant = (_constant(scores, classes), scores.majority_accuracy)
    return report.verdict(
        headline, value, interval, kind, constant, chosen_by=chosen_by, classes=by_class, leaks=leaks,
        surest=[each for each in worth.surest if each[0] <= 0.9] if worth else [],
    )  # fmt: skip


def _constant(scores: evaluation.Scores, classes: Sequence[str]) -> str:
    if scores.majority is None:
        return "always what most have"
    return f"always '{cut(shown(classes[scores.majority]), 40)}'"


def _scores(scores: evaluation.Scores, intervals: Mapping[str, tuple[float, float]]) -> list[report.Score]:
    """List the scores, the headline first."""
    from tlkit import report

    headline, value, interval = scores.headline
    rows = [report.Score(headline, value, interval, None if scores.multi_label else scores.majority_accuracy)]
    names = NAMES | {"accuracy": "labels right"} if scores.multi_label else NAMES
    for name, text in names.items():
        found = scores.metrics().get(f"{scores.split}_{name}")
        if found is not None and text != headline:
            beside = scores.majority_accuracy if name == "accuracy" else None
            spread = scores.interval if name == "accuracy" else intervals.get(name)
            rows.append(report.Score(text, found, spread, beside))
    return rows


def _counts(splits: data.Splits | graph.Graph, scores: evaluation.Scores) -> dict[str, int]:
    counts = {SPLITS.get(split, split): count for split, (count, _) in splits.parts.items()}
    return counts | {scores.split: scores.photos}
