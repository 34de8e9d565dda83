"""How `evaluate` scores a model on examples: predictions, scores with intervals, and the run that keeps them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit.config import Evaluate
from tlkit.display import say, shown
from tlkit.errors import InvalidInput
from tlkit.progress import Progress
from tlkit.recipes import _calibration, _evaluation_data, _evaluation_text, _inputs, _mistakes, _report, _versions
from tlkit.recipes._evaluation_data import Loaded
from tlkit.recipes._models import Classifier
from tlkit.recipes._training_runs import Training

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from tlkit import data, evaluation, tracking

SUM = 1e-3  # by which the probabilities of an example may differ from 1


class Subject(NamedTuple):
    """A model to test.

    Args:
        classifier: The model.
        path: Of its file.
        loaded: The examples as it reads them.
        training: What is known of its training.
        seen: Examples that it has seen, each with the reason.
    """

    classifier: Classifier
    path: Path
    loaded: Loaded
    training: Training
    seen: Mapping[int, str]

    @property
    def name(self) -> str:
        """The model's name for a person: that of its run, else of its file."""
        run, model = self.training.run, self.classifier.name
        if registered := _versions.numbered(model):
            return f"{shown(registered[0])} {registered[1]}"
        return shown((run.info.run_name if run else None) or Path(model).name)


class Evaluated(NamedTuple):
    """How a model did.

    Args:
        subject: The model.
        examples: Those that it was scored on.
        scores: Its scores.
        intervals: 95 % intervals of other scores than the accuracy, by their names among the metrics.
        predictions: The table of `evaluation.predictions`.
        class_scores: Scores of each class, as columns.
        worth: What its probabilities are worth, and what the examples can tell.
        run_id: The run that keeps all of this.
    """

    subject: Subject
    examples: data.Photos
    scores: evaluation.Scores
    intervals: dict[str, tuple[float, float]]
    predictions: dict[str, list[Any]]
    class_scores: dict[str, list[Any]]
    worth: _calibration.Worth
    run_id: str = ""

    @property
    def again(self) -> int:
        """Number of the scored examples that the model has seen before."""
        left_out = len(self.subject.loaded.examples) - len(self.examples)
        return max(0, len(self.subject.seen) - left_out)


def predict(classifier: Classifier, examples: data.Photos) -> np.ndarray:
    """Predict examples by the engine that `predict` would take for many.

    Shapes:
        returns: (examples, classes)

    Raises:
        InvalidInput: the model's outputs are no probabilities.
    """
    import numpy as np

    from tlkit.serving import many

    sample = examples.read(range(min(many.SAMPLE, len(examples))))
    engine, reason = many.engine(classifier.model, classifier.name, len(examples) > many.BATCH, sample)
    if reason:
        say(f"Keras computes: {reason}", error=True)
    parts = []
    with Progress("predicting", len(examples), examples.kind) as progress:

        def batches() -> Iterator[np.ndarray]:
            for start in range(0, len(examples), engine.batch_size):
                yield examples.read(range(start, min(start + engine.batch_size, len(examples))))

        for rows in engine.run(batches()):
            parts.append(np.asarray(rows, np.float64))
            progress.advance(len(rows))
    probabilities = np.concatenate(parts)
    if probabilities.shape[1] == 1:
        probabilities = np.concatenate([1 - probabilities, probabilities], axis=1)
    _check_probabilities(probabilities, classifier)
    return probabilities


def _check_probabilities(probabilities: np.ndarray, classifier: Classifier) -> None:
    import numpy as np

    sums = probabilities.sum(axis=1)
    inside = np.isfinite(probabilities).all() and probabilities.min() >= -SUM and probabilities.max() <= 1 + SUM
    if not inside or (not classifier.several and np.abs(sums - 1).max() > SUM):
        low, high = float(np.min(probabilities)), float(np.max(probabilities))
        raise InvalidInput(
            f"{classifier.name} answers with numbers from {low:.3g} to {high:.3g}, which are no probabilities: give a "
            "classifier that ends in a softmax or a sigmoid"
        )


def score(subject: Subject, places: np.ndarray, config: Evaluate) -> Evaluated:
    """Predict and score the examples at some positions."""
    import numpy as np

    from tlkit import evaluation
    from tlkit.evaluation import predictions

    classifier, loaded = subject.classifier, subject.loaded
    examples, classes = loaded.examples.select(places), classifier.classes
    labels, groups = _evaluation_data.labels(loaded, classifier)[places], examples.grouping
    probabilities = predict(classifier, examples)
    scores = evaluation.score(
        "test",
        probabilities,
        labels,
        train_labels=_evaluation_data.majority(subject.training, classifier),
        groups=np.array(groups) if groups else None,
        positive=_inputs.find_positive(config.positive, classes, classifier.several),
    )
    table = predictions.table("test", examples.names, examples.hashes, labels, probabilities, classes, groups)
    by_class = scores.by_class(classes) | _precision_intervals(probabilities, labels, groups, classifier.several)
    intervals = evaluation.score_intervals(probabilities, labels, groups)
    worth = _calibration.worth("test", examples, labels, probabilities)
    return Evaluated(subject, examples, scores, intervals, table, by_class, worth)


def _precision_intervals(
    probabilities: np.ndarray, labels: np.ndarray, groups: list[str] | None, several: bool
) -> dict[str, list[float]]:
    """Give the 95 % interval of each class's precision, as columns; from 0 to 1 where a class is never predicted."""
    import numpy as np

    from tlkit import evaluation

    there, each = np.eye(probabilities.shape[1], dtype=bool), np.array(groups) if groups else None
    said = probabilities > 0.5 if several else there[probabilities.argmax(axis=1)]
    true = labels > 0.5 if several else there[labels]
    bounds = [
        evaluation.accuracy_interval(true[rows, place], each[rows] if each is not None else None)
        if (rows := said[:, place]).any()
        else (0.0, 1.0)
        for place in range(len(there))
    ]
    return {"precision_low": [low for low, _ in bounds], "precision_high": [high for _, high in bounds]}


def log(run: tracking.Run, evaluated: Evaluated) -> None:
    """Log scores, tables, pictures and a note, into the innermost run."""
    from tlkit import plots, tracking
    from tlkit.evaluation import predictions

    subject, scores, examples = evaluated.subject, evaluated.scores, evaluated.examples
    classes, table = subject.classifier.classes, evaluated.predictions
    left_out = {"left_out": len(subject.loaded.examples) - len(examples)}
    tracking.log_metrics({**scores.metrics(intervals=evaluated.intervals), **evaluated.worth.metrics, **left_out})
    tracking.log_inputs([_dataset(evaluated)])
    tracking.log_table(table, predictions.FILE)
    tracking.log_table(evaluated.class_scores, "class_scores.json")
    if subject.seen:
        names = subject.loaded.examples.names
        columns = {"file": [shown(names[place]) for place in subject.seen], "reason": list(subject.seen.values())}
        tracking.log_table(columns, "seen.json")
    headline, value, _ = scores.headline
    title = f"{headline} {value:.3f}, {scores.photos} {examples.kind} of {subject.loaded.name}"
    # Of several labels, the example whose labels together are least probable is the worst mistake.
    losses = [1 - share for share in table["probability_of_label"]] if scores.multi_label else None
    mistakes = _mistakes.find(subject.classifier.model, examples, table, losses)
    pictures = {
        "calibration.png": evaluated.worth.picture,
        "confusion_matrix.png": plots.Picture("confusion_matrix", scores.confusion, classes, title),
        "class_scores.png": plots.Picture("class_scores", evaluated.class_scores, title),
        **mistakes.pictures,
    }
    files = {name: tracking.log_figure(picture, name) for name, picture in pictures.items()}
    title = f"evaluate {subject.name} on {subject.loaded.name}"
    _report.log_evaluation(evaluated, files, mistakes, title)
    tracking.set_tags({"mlflow.note.content": _evaluation_text.note(evaluated)})


def _dataset(evaluated: Evaluated) -> dict[str, str]:
    """Describe the examples as MLflow describes data sets; the digest is of their contents and labels."""
    table, examples = evaluated.predictions, evaluated.examples
    rows = sorted(zip(table["digest"], table["label"], strict=True))
    columns = [{"type": "binary", "name": examples.modality.singular}, {"type": "string", "name": "label"}]
    return {
        "context": "test",
        "name": evaluated.subject.loaded.name,
        "digest": hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16],
        "source_type": "evaluation",
        "source": json.dumps({"name": evaluated.subject.loaded.name}),
        "schema": json.dumps({"mlflow_colspec": columns}),
        "profile": json.dumps({"num_rows": len(rows), "num_classes": len(evaluated.subject.loaded.classes)}),
    }
