"""What a classifier lost and won on its old classes, by going on from another one: recall before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit.display import say
from tlkit.errors import InvalidInput, Unavailable
from tlkit.recipes import _evaluation, _models, _training_runs
from tlkit.recipes._evaluation import Evaluated
from tlkit.recipes._training_runs import plain

if TYPE_CHECKING:
    import numpy as np

    from tlkit.evaluation.predictions import Paired

TAG = "continued_model"
TABLE = "before_after.json"
MOST = 10  # classes that are printed


class Lost(NamedTuple):
    """Two classifiers on the same examples of the classes that both have.

    Args:
        before: Name of the first one.
        rows: For each class: its name, its examples, the recall before and after, and how many are taken for a new one.
        paired: McNemar's test over all of these examples.
    """

    before: str
    rows: list[dict[str, Any]]
    paired: Paired

    @property
    def table(self) -> dict[str, list[Any]]:
        """The rows, as columns."""
        return {name: [row[name] for row in self.rows] for name in self.rows[0]}


def compare(evaluated: Evaluated) -> Lost | None:
    """Compare a model with the one that its run went on from; None where there is none, or they cannot be compared."""
    run = evaluated.subject.training.run
    model = run.data.tags.get(TAG) if run else None
    if not model or evaluated.subject.classifier.several:
        return None
    try:
        path = _models.locate(model)
        before = _models.load_classifier(model, path, "evaluate", [evaluated.subject.classifier.kind])
    except (InvalidInput, Unavailable) as error:
        say(f"what the old classes lost is unknown: {error}", error=True)
        return None
    if (before.reading, before.model.input_shape) != (
        evaluated.subject.classifier.reading,
        evaluated.subject.classifier.model.input_shape,
    ):
        say(f"what the old classes lost is unknown: {model} reads photos in another way", error=True)
        return None
    return _compare(evaluated, before, _training_runs.training(model, path))


def _compare(evaluated: Evaluated, before: _models.Classifier, training: _training_runs.Training) -> Lost | None:
    import numpy as np

    from tlkit.evaluation import predictions

    old, table = {plain(name): place for place, name in enumerate(before.classes)}, evaluated.predictions
    labels, after = (np.array([plain(name) for name in table[column]]) for column in ("label", "predicted"))
    new = np.array([hash_ not in training.hashes for hash_ in evaluated.examples.hashes])
    places = np.flatnonzero(np.isin(labels, list(old)) & new)
    if not len(places):
        return None
    probabilities = _evaluation.predict(before, evaluated.examples.select(places.tolist()))
    names = np.array(list(old))
    said = names[probabilities.argmax(axis=1)]
    labels, after = labels[places], after[places]
    groups = evaluated.examples.grouping
    paired = predictions.mcnemar(said == labels, after == labels, np.array(groups)[places] if groups else None)
    rows = [_row(name, labels == name, said, after, ~np.isin(after, names)) for name in names if (labels == name).any()]
    return Lost(before.name, rows, paired)


def _row(name: str, here: np.ndarray, said: np.ndarray, after: np.ndarray, as_new: np.ndarray) -> dict[str, Any]:
    return {
        "class": str(name),
        "examples": int(here.sum()),
        "recall_before": float((said[here] == name).mean()),
        "recall_after": float((after[here] == name).mean()),
        "taken_for_new_classes": int(as_new[here].sum()),
    }


def log(lost: Lost) -> None:
    """Log the table and the mean recalls, into the innermost run."""
    from tlkit import tracking

    tracking.log_table(lost.table, TABLE)
    mean = {
        f"old_classes_{when}": sum(row[f"recall_{when}"] for row in lost.rows) / len(lost.rows)
        for when in ("before", "after")
    }
    tracking.log_metrics(mean)


def show(lost: Lost, kind: str) -> None:
    """Print the classes that both have, the one that lost most first."""
    from tlkit import plots

    rows = sorted(lost.rows, key=lambda row: row["recall_after"] - row["recall_before"])
    width = max(len("old class"), *(len(plots.shortened(row["class"], 30)) for row in rows))
    say(f"\nold classes, before ({lost.before}) and after, on {lost.paired.examples:,} {kind} that neither has seen:")
    say(f"  {'old class':<{width}}  {kind:>8}  recall before  after  change  taken for a new class")
    for row in rows[:MOST]:
        before, after = row["recall_before"], row["recall_after"]
        say(
            f"  {plots.shortened(row['class'], 30):<{width}}  {row['examples']:>8,}  {before:>13.3f}  {after:.3f}  "
            f"{after - before:>+6.3f}  {row['taken_for_new_classes']:>21,}"
        )
    if len(rows) > MOST:
        say(f"  and {len(rows) - MOST} classes more, in {TABLE}")
    test = lost.paired
    say(
        f"  right before and wrong after: {test.only_first:,}; wrong before and right after: {test.only_second:,} "
        f"({test.test}, p = {test.p_value:.2g})"
    )
