"""What `compare` finds out: a row for each run, a paired test for each two, and the settings that differ."""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tlkit.display import shown
from tlkit.recipes import _find_runs

if TYPE_CHECKING:
    from mlflow.entities import Run

    from tlkit.evaluation.predictions import Predictions

SIGNIFICANCE = 0.05  # p-value below which the better run is named
MEASURES = ("parameters", "model_megabytes", "predict_per_second", "training_seconds")


class RunRow(NamedTuple):
    """How good, how large and how fast a run's model is; what the run did not log is None.

    Args:
        letter: Names the run in tables, the best is A.
        name: The run's name in MLflow.
        run_id: Its id.
        network: The network, with its width multiplier.
        split: `test` or `validation`.
        chose_epoch: Whether the scored examples chose the epoch too, so that the score is optimistic.
        examples: Number of examples of the split.
        accuracy: Accuracy on it; of a multi-label model, the share of exact matches.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        interval: `bootstrap`, `Wilson`, or `group` for Wilson's by groups of examples; empty without an interval.
        parameters: Number of parameters.
        model_megabytes: Size of the model's file.
        predict_per_second: Examples per second.
        training_seconds: Duration of the training.
        map: Mean average precision of a multi-label model.
        majority_accuracy: Accuracy of always predicting the most frequent class of the training split.
    """

    letter: str
    name: str
    run_id: str
    network: str
    split: str
    chose_epoch: bool
    examples: int | None
    accuracy: float
    low: float | None
    high: float | None
    interval: str
    parameters: float | None
    model_megabytes: float | None
    predict_per_second: float | None
    training_seconds: float | None
    map: float | None
    majority_accuracy: float | None


class PairRow(NamedTuple):
    """Two runs and their paired test; the numbers are None if they were not tested.

    Args:
        first: Letter of the first run.
        second: Letter of the second run.
        first_run_id: Id of the first run.
        second_run_id: Id of the second run.
        examples: Number of examples that both were scored on.
        only_first: Examples that only the first gets right.
        only_second: Examples that only the second gets right.
        p_value: p-value of McNemar's exact test, or of the permutation of groups.
        corrected_p_value: The same, corrected for the number of pairs (Holm).
        verdict: Which is better, if one clearly is; or why they were not tested.
        groups: Number of groups that the permutation swaps; None for McNemar's test.
    """

    first: str
    second: str
    first_run_id: str
    second_run_id: str
    examples: int | None = None
    only_first: int | None = None
    only_second: int | None = None
    p_value: float | None = None
    corrected_p_value: float | None = None
    verdict: str = ""
    groups: int | None = None


def rows(runs: Sequence[Run], predictions: Mapping[str, Predictions | None]) -> list[RunRow]:
    """Describe each run, the most accurate first.

    Args:
        runs: They have a score.
        predictions: By the run's id, what it predicted; None if it did not log that.
    """
    described = [_row(run, predictions[run.info.run_id]) for run in runs]
    ranked = sorted(described, key=lambda row: -row.accuracy)
    return [row._replace(letter=letter) for letter, row in zip(string.ascii_uppercase, ranked, strict=False)]


def _row(run: Run, predicted: Predictions | None) -> RunRow:
    metrics, tags, params = run.data.metrics, run.data.tags, run.data.params
    network, alpha = shown(tags.get("backbone", "")), shown(params.get("backbone.alpha", "None"))
    if predicted:
        split, accuracy = predicted.split, float(predicted.correct.mean())
    else:
        split, accuracy = _find_runs.score(run) or ("", math.nan)
    low, high, kind = _interval(metrics, split, predicted)
    logged = {name: metrics.get(name) for name in MEASURES}
    return RunRow(
        letter="",
        name=_find_runs.display_name(run),
        run_id=run.info.run_id,
        network=network if alpha == "None" else f"{network} {alpha}",
        split=split,
        chose_epoch=split == "validation" and "best_epoch" in metrics,
        examples=len(predicted.correct) if predicted else None,
        accuracy=accuracy,
        low=low,
        high=high,
        interval=kind,
        **{name: value if value is not None and math.isfinite(value) else None for name, value in logged.items()},
        map=metrics.get(f"{split}_map"),
        majority_accuracy=metrics.get(f"{split}_majority_accuracy"),
    )


def _interval(
    metrics: Mapping[str, float], split: str, predicted: Predictions | None
) -> tuple[float | None, float | None, str]:
    """Give both ends of the 95 % interval of the score, and how it was computed."""
    from tlkit import evaluation

    if predicted is not None and predicted.groups:
        return *evaluation.wilson_of_groups(predicted.correct, predicted.groups), "group"
    if predicted is not None:
        right, count = int(predicted.correct.sum()), len(predicted.correct)
        if 0 < right < count:
            return *evaluation.bootstrap(predicted.correct), "bootstrap"
        return *evaluation.wilson(right, count), "Wilson"  # all resamples are the same: the bootstrap has no width
    low, high = (metrics.get(f"{split}_accuracy_{end}") for end in ("low", "high"))
    if low is None or high is None or f"{split}_exact_match" in metrics:
        return None, None, ""
    return low, high, "Wilson"


def pairs(rows: Sequence[RunRow], predictions: Mapping[str, Predictions | None]) -> list[PairRow]:
    """Test each pair of runs that was scored on the same examples; for any other, say why it is not tested."""
    from tlkit.evaluation.predictions import holm

    described = [_pair(first, second, predictions) for first, second in itertools.combinations(rows, 2)]
    p_values = [pair.p_value for pair in described if pair.p_value is not None]
    corrected = iter(holm(p_values))
    return [pair if pair.p_value is None else _judged(pair, next(corrected)) for pair in described]


def _pair(first: RunRow, second: RunRow, predictions: Mapping[str, Predictions | None]) -> PairRow:
    from tlkit.evaluation.predictions import FILE, paired

    pair = PairRow(first.letter, second.letter, first.run_id, second.run_id)
    first_predicted, second_predicted = predictions[first.run_id], predictions[second.run_id]
    if first_predicted is None or second_predicted is None:
        letters = [row.letter for row in (first, second) if predictions[row.run_id] is None]
        return pair._replace(verdict=f"not tested: {' and '.join(letters)} logged no {FILE}")
    if reason := _obstacle(first_predicted, second_predicted):
        return pair._replace(verdict=f"not tested: {reason}")
    return pair._replace(**paired(first_predicted, second_predicted)._asdict())


def _obstacle(first: Predictions, second: Predictions) -> str:
    """Say why two runs cannot be tested; empty if they can."""
    from tlkit.evaluation.predictions import same_examples

    if first.split != second.split:
        return f"scored on {first.split} and on {second.split} examples"
    return "" if same_examples(first, second) else f"scored on different {first.split} examples"


def _judged(pair: PairRow, p_value: float) -> PairRow:
    better = pair.first if (pair.only_first or 0) > (pair.only_second or 0) else pair.second
    verdict = f"{better} is better" if p_value < SIGNIFICANCE else "no clear difference"
    return pair._replace(corrected_p_value=p_value, verdict=verdict)


def settings(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Give the settings that differ, each with its value in every run; empty where a run has none."""
    own = [
        {
            **{name: run.data.tags[name] for name in ("recipe", "dataset_digest") if name in run.data.tags},
            **{name: value for name, value in run.data.tags.items() if name.startswith("environment.")},
            **{name: value for name, value in run.data.params.items() if value != "None"},
        }
        for run in runs
    ]
    names = dict.fromkeys(itertools.chain.from_iterable(own))
    columns = {shown(name): [shown(values.get(name, "")) for values in own] for name in names}
    return {name: values for name, values in columns.items() if len(set(values)) > 1}
