"""What `compare` finds out: a row for each run, a paired test for each two, and the settings that differ."""

from __future__ import annotations

import itertools
import math
import string
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit.display import shown
from tlkit.recipes import _find_runs, _runs

if TYPE_CHECKING:
    from mlflow.entities import Run

    from tlkit.evaluation.predictions import Predictions

SIGNIFICANCE = 0.05  # p-value below which the better run is named
MEASURES = ("parameters", "model_megabytes", "training_seconds")


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
        interval: `Wilson`, or `group` for Wilson's by groups of examples; empty without an interval.
        parameters: Number of parameters.
        model_megabytes: Size of the model's file.
        predict_per_second: Examples per second, of all networks measured in alternation on this machine.
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
        more_needed: How many more examples would probably decide, if the two differ as much as they do on these; None
            if it is decided, if nobody can say, or if the examples have groups.
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
    more_needed: int | None = None


def rows(
    runs: Sequence[Run], predictions: Mapping[str, Predictions | None], speeds: Mapping[str, float]
) -> list[RunRow]:
    """Describe each run, the most accurate first.

    Args:
        runs: They have a score.
        predictions: By the run's id, what it predicted; None if it did not log that.
        speeds: By the run's id, examples a second, where they are known.
    """
    described = [
        _row(run, predictions[run.info.run_id])._replace(predict_per_second=speeds.get(run.info.run_id)) for run in runs
    ]
    ranked = sorted(described, key=lambda row: -row.accuracy)
    return [row._replace(letter=letter) for letter, row in zip(string.ascii_uppercase, ranked, strict=False)]


def network(run: Run) -> str:
    """Name a run's network, with its width multiplier."""
    name, alpha = shown(run.data.tags.get("backbone", "")), shown(run.data.params.get("backbone.alpha", "None"))
    return name if alpha == "None" else f"{name} {alpha}"


def _row(run: Run, predicted: Predictions | None) -> RunRow:
    metrics = run.data.metrics
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
        network=network(run),
        split=split,
        chose_epoch=split == "validation" and "best_epoch" in metrics,
        examples=len(predicted.correct) if predicted else None,
        accuracy=accuracy,
        low=low,
        high=high,
        interval=kind,
        predict_per_second=None,
        **{name: value if value is not None and math.isfinite(value) else None for name, value in logged.items()},
        map=metrics.get(f"{split}_map"),
        majority_accuracy=metrics.get(f"{split}_majority_accuracy"),
    )


def _interval(
    metrics: Mapping[str, float], split: str, predicted: Predictions | None
) -> tuple[float | None, float | None, str]:
    """Give both ends of the 95 % interval of the score, the same as the run's own, and which one it is."""
    from tlkit import evaluation

    if predicted is not None:  # a share of examples that are right, also where each may have several labels
        kind = "group" if predicted.groups else "Wilson"
        return *evaluation.accuracy_interval(predicted.correct, predicted.groups), kind
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
    return [pair if pair.p_value is None else judged(pair, next(corrected)) for pair in described]


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


def judged(pair: PairRow, p_value: float) -> PairRow:
    """Say which of two runs is better, or how many more examples might show it, by a corrected p-value."""
    from tlkit.evaluation import power

    better = pair.first if (pair.only_first or 0) > (pair.only_second or 0) else pair.second
    if p_value < SIGNIFICANCE:
        return pair._replace(corrected_p_value=p_value, verdict=f"{better} is better")
    more = None
    if pair.groups is None and pair.examples:
        more = power.more_needed(pair.examples, pair.only_first or 0, pair.only_second or 0) or None
    return pair._replace(corrected_p_value=p_value, verdict="no clear difference", more_needed=more)


def settings(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Give the settings that differ, each with its value in every run; empty where a run has none.

    A setting that only some commands have is left out where it is their default.
    """
    own = [
        {
            **{name: run.data.tags[name] for name in ("recipe", "dataset_digest") if name in run.data.tags},
            **{name: value for name, value in run.data.tags.items() if name.startswith("environment.")},
            **_configured(run),
        }
        for run in runs
    ]
    everywhere = set.intersection(*map(set, own)) if own else set()
    for run, values in zip(runs, own, strict=True):
        usual = _defaults(run.data.tags.get("recipe", ""))
        for name in [name for name in values if name not in everywhere and values[name] == usual.get(name)]:
            del values[name]
    names = dict.fromkeys(itertools.chain.from_iterable(own))
    columns = {shown(name): [shown(values.get(name, "")) for values in own] for name in names}
    return {name: values for name, values in columns.items() if len(set(values)) > 1}


def _configured(run: Run) -> dict[str, str]:
    """Give all settings of a run by their names: those of its config.yaml, else its parameters."""
    import mlflow

    from tlkit import untrusted
    from tlkit.recipes import _resume

    client, run_id, file = mlflow.MlflowClient(), run.info.run_id, "config.yaml"
    params = {**run.data.params}
    if file in {artifact.path for artifact in client.list_artifacts(run_id)}:
        with tempfile.TemporaryDirectory() as folder:
            try:
                content = untrusted.read_yaml(Path(client.download_artifacts(run_id, file, folder)))
            except ValueError:  # another program's
                content = {}
        if isinstance(content, dict):
            params |= {str(name): str(value) for name, value in _resume.flat(content).items()}
    return {name: value for name, value in params.items() if name not in _runs.UNCOMPARED and value != "None"}


def _defaults(recipe: str) -> dict[str, str]:
    """Give the default of each setting of a command."""
    from tlkit import config as configs

    kind = getattr(configs, "".join(word.capitalize() for word in recipe.split("_")), None)
    if not (isinstance(kind, type) and issubclass(kind, configs.Recipe)):
        return {}
    needed: dict[str, Any] = {"space": {"seed": 0}} if kind is configs.Tune else {}
    return {name: str(value) for name, value in configs.flatten(kind(**needed)).items()}
