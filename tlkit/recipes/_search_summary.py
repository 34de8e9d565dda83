"""What `tune` prints at its end: the best trials, how good the best one is, where everything is, what to do next."""

from __future__ import annotations

import contextlib
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.config import space as spaces
from tlkit.display import say, shown
from tlkit.errors import without_password
from tlkit.recipes import _links, _summary

if TYPE_CHECKING:
    from keras_tuner.src.engine.trial import Trial

    from tlkit.recipes._search import Search
    from tlkit.recipes._search_results import Best
    from tlkit.recipes._search_trials import Reporter

NO_BREAK = "\N{NO-BREAK SPACE}"
SHOWN, COMPARED = 5, 10  # trials in the table, and in the link to MLflow's comparison


def show(search: Search, best: Best, timing: str = "") -> None:
    """Print the best trials, how good the best one is, and where everything is.

    Args:
        search: It has ended.
        best: What it left.
        timing: How long it took; empty if it has ended before.
    """
    from tlkit import tuning

    ranked = tuning.best_first(search.oracle)
    _print_trials(search, ranked)
    _print_best(search, best, len(ranked), timing)
    _print_next(search, best, ranked)


def timing(search: Search, reporter: Reporter, seconds: float) -> str:
    """Say how long the search took, and how much of a trial was neither building nor training.

    Args:
        search: It has ended.
        reporter: Has reported the trials of this process.
        seconds: Time since the command began.
    """
    from tlkit.progress import duration

    trials = len(search.oracle.end_order) - reporter.ended_before
    if not trials or not reporter.work:
        return f"{duration(seconds)} in all"
    overhead = max(0.0, reporter.seconds * max(search.config.workers, 1) - reporter.work) / trials
    each = f"{duration(reporter.work / trials)} to build and train, {duration(overhead)} of overhead"
    return f"{duration(seconds)} in all; per trial {each}"


def _print_trials(search: Search, ranked: list[Trial]) -> None:
    """Print a table of the best trials, each with its settings."""
    name, several = search.config.objective, search.config.executions > 1
    say(f"\n   trial  {name:>12}{'      sd' if several else ''}")
    for rank, trial in enumerate(ranked[:SHOWN], 1):
        spread = f"  {search.result(trial)['metrics'][f'best_{name}_sd']:.4f}" if several else ""
        say(f"{rank}  {trial.trial_id:>5}  {trial.score:>12.4f}{spread}")
        for line in trial_lines(search.space, trial.hyperparameters.values):
            say(f"          {line}")


def _print_best(search: Search, best: Best, scored: int, timing: str) -> None:
    """Print the scores of the best trial, and where its run is."""
    import mlflow

    ended = len(search.oracle.end_order)
    failed = f", {ended - scored} of them failed" if ended > scored else ""
    score = f"{search.config.objective} {best.score:.4f}"
    say(f"\ntune {search.config.recipe}: {ended} trials{failed}")
    say(f"  best  trial {best.trial_id}, {score}: optimistic, as the trial was chosen by it")
    say(f"  {best.split} accuracy  {best.accuracy:.4f}  ({best.evidence})")
    if timing:
        say(f"  time  {timing}")
    say(f"  run   {_run_name(best)}{best.run_id} in {without_password(mlflow.get_tracking_uri())}")
    _summary.print_registered(best.registered)
    if search.config.register and not best.registered:
        _summary.print_unregistered(search.config.register)


def _print_next(search: Search, best: Best, ranked: list[Trial]) -> None:
    """Print the file of the best settings, how to use it, and where to look at the trials."""
    from tlkit import tracking, tuning

    recipe = _links.shown(Path(best.recipe))
    say(f"  recipe {recipe}")
    say("\nNext:")
    say(f"  {_links.recipe(search.config.recipe)} --config {recipe} --seed 1")
    runs = [trial.hyperparameters.values[tuning.RUN_ID] for trial in ranked]
    heading = "its best trials side by side" if len(runs) > COMPARED else "its trials side by side"
    _links.print_links(tracking.Run(best.run_id, best.experiment_id), runs[:COMPARED], heading)


def _run_name(best: Best) -> str:
    """The run's name in MLflow; empty if another store has it."""
    import mlflow

    from tlkit import tracking

    with contextlib.suppress(*tracking.STORE_ERRORS):
        return f"{shown(mlflow.get_run(best.run_id).info.run_name)}, "
    return ""


def trial_lines(space: spaces.Space, values: Mapping[str, Any], width: int = 70) -> list[str]:
    """Write a trial's settings, each as a recipe file has it.

    Args:
        space: What is searched.
        values: The option of each range.
        width: Maximum number of columns; only a setting that is wider is broken.
    """
    settings, texts = space.settings(values), []
    for name in dict.fromkeys(re.sub(r"\.(count|\d+)$", "", name) for name in space.active(values)):
        value: Any = settings
        for part in name.split("."):
            value = value[part]
        text = f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {spaces.flow(value)}"
        texts.append(text.replace(" ", NO_BREAK) if len(text) < width else text)
    lines = textwrap.wrap(", ".join(texts), width, break_long_words=False, break_on_hyphens=False)
    return [line.replace(NO_BREAK, " ") for line in lines]
