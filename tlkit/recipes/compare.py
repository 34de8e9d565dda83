"""Compare runs: scores with intervals, a paired test on the same examples, size, speed, and the settings that differ.

python -m tlkit.recipes.compare RUN RUN
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tlkit import cli
from tlkit.config import Compare
from tlkit.display import say
from tlkit.errors import InvalidInput, Unavailable, without_password
from tlkit.recipes import _comparison, _comparison_tables, _find_runs, _links, _speed
from tlkit.recipes._comparison import MEASURES

if TYPE_CHECKING:
    from mlflow.entities import Run

    from tlkit.evaluation.predictions import Predictions

__all__ = ["MEASURES", "run"]
NARROWEST, WIDEST = 80, 160  # columns of the tables


def run(config: Compare) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Print, log and return a row for each run, the best first, and a row for each pair of them.

    Returns:
        The fields of `_comparison.RunRow` and of `_comparison.PairRow`, by their names.
    """
    from tlkit import tracking

    runs, predictions = _read(config)
    networks = {run.info.run_id: _comparison.network(run) for run in runs}
    rows = _comparison.rows(runs, predictions, _speed.of_runs(runs, networks))
    pairs = _comparison.pairs(rows, predictions)
    by_id, ids = {run.info.run_id: run for run in runs}, [row.run_id for row in rows]
    settings = _comparison.settings([by_id[run_id] for run_id in ids])
    width = max(NARROWEST, min(shutil.get_terminal_size().columns, WIDEST))
    _comparison_tables.print_runs(rows, width)
    _comparison_tables.print_pairs(pairs, width)
    _comparison_tables.print_settings(settings, [row.letter for row in rows], width)
    tags = {"recipe": "compare", "compared": ",".join(ids)}
    with tracking.run(
        config.experiment, run_name=config.run_name, params={}, tags=tags, title="comparison", aside="comparisons"
    ) as tracked:
        _log(rows, pairs, settings)
    say("\nNext:")
    _links.print_links(tracked, ids, "these runs side by side", runs[0].info.experiment_id, "this comparison")
    return [row._asdict() for row in rows], [pair._asdict() for pair in pairs]


def _read(config: Compare) -> tuple[list[Run], Mapping[str, Predictions | None]]:
    """Find the runs, and read what each predicted.

    Returns:
        The runs, and by their ids the predictions; None for a run that logged none.

    Raises:
        InvalidInput: a run has no score.
        Unavailable: the store refuses.
    """
    from tlkit import tracking
    from tlkit.evaluation import predictions

    uri = without_password(tracking.open_store())
    try:
        runs = _find_runs.to_compare(config)
        predicted = {run.info.run_id: predictions.read(run.info.run_id) for run in runs}
    except Unavailable:
        raise
    except (*tracking.STORE_ERRORS, OSError) as error:
        raise Unavailable(f"the MLflow store {uri} refused: {without_password(str(error))}") from error
    for run in runs:
        if predicted[run.info.run_id] is None and _find_runs.score(run) is None:
            raise InvalidInput(
                f"run {_find_runs.display_name(run)!r} ({run.info.run_id}) has no score, neither test_accuracy nor "
                "validation_accuracy: leave it out"
            )
    return runs, predicted


def _log(
    rows: Sequence[_comparison.RunRow], pairs: Sequence[_comparison.PairRow], settings: dict[str, list[str]]
) -> None:
    """Log the tables, and a picture of the scores."""
    from tlkit import plots, tracking

    tables: dict[str, Sequence[tuple[Any, ...]]] = {"comparison.json": rows, "pairs.json": pairs}
    for file, table in tables.items():
        names = table[0]._fields  # type: ignore[attr-defined]
        tracking.log_table(dict(zip(names, map(list, zip(*table, strict=True)), strict=True)), file)
    columns = {row.letter: [values[place] for values in settings.values()] for place, row in enumerate(rows)}
    tracking.log_table({"setting": list(settings), **columns}, "settings.json")
    captions = [f"{plots.shortened(row.name, 32)}  {row.letter}" for row in rows]
    scores = [row.accuracy for row in rows]
    intervals = [
        (row.accuracy, row.accuracy) if row.low is None or row.high is None else (row.low, row.high) for row in rows
    ]
    score = "accuracy" if all(row.map is None for row in rows) else "exact match"
    tracking.log_figure(plots.Picture("ranking", captions, scores, intervals, score), "comparison.png")


if __name__ == "__main__":
    cli.main(Compare, run, positional=("runs",))
