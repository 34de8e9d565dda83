"""What a command suggests to do next: commands for the shell, and links into MLflow's UI."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tlkit.display import called, quoted, say
from tlkit.errors import without_password

if TYPE_CHECKING:
    from tlkit import tracking

MODE = "workflowType=machine_learning"  # else the MLflow UI opens in its mode for language models


def print_links(
    run: tracking.Run,
    others: list[str] | None = None,
    heading: str = "the last runs side by side",
    experiment_id: str | None = None,
    own: str = "the run",
) -> None:
    """Print how to look at a run in the MLflow UI, alone and beside others.

    Args:
        run: The run.
        others: Ids of the runs to compare; by default the last ones of the experiment.
        heading: What their comparison is called.
        experiment_id: Experiment of the other runs; by default that of the run.
        own: What the run is called.
    """
    import mlflow

    from tlkit import tracking

    uri, experiment_id = mlflow.get_tracking_uri(), experiment_id or run.experiment_id
    server = without_password(uri).rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"
    if not uri.startswith("http"):
        say(f"  {recipe('ui')}      # then open:")
    others = tracking.recent_runs(experiment_id, 4) if others is None else others
    links = {
        own: run_link(server, run),
        "all runs": runs_link(server, experiment_id),
        "their charts": chart_link(server, experiment_id),
    }
    if len(others) > 1:
        links[heading] = compare_link(server, others, experiment_id)
    say("\n".join(f"  {name}:\n  {link}" for name, link in links.items()))


def runs_link(server: str, experiment_id: str) -> str:
    """Link to the table of an experiment's runs in the MLflow UI."""
    return f"{server}/#/experiments/{experiment_id}/runs?{MODE}"


def chart_link(server: str, experiment_id: str) -> str:
    """Link to the charts of an experiment's runs in the MLflow UI.

    >>> chart_link("http://127.0.0.1:5000", "1")
    'http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning&compareRunsMode=CHART'
    """
    return f"{runs_link(server, experiment_id)}&compareRunsMode=CHART"


def run_link(server: str, run: tracking.Run) -> str:
    """Link to a run in the MLflow UI."""
    return f"{server}/#/experiments/{run.experiment_id}/runs/{run.run_id}?{MODE}"


def compare_link(server: str, run_ids: list[str], experiment_id: str) -> str:
    """Link to the comparison of runs in the MLflow UI.

    >>> compare_link("http://127.0.0.1:5000", ["a", "b"], "1")
    'http://127.0.0.1:5000/#/compare-runs?runs=%5B%22a%22,%22b%22%5D&experiments=%5B%221%22%5D&workflowType=machine_learning'
    """
    runs, experiments = (quote(json.dumps(ids, separators=(",", ":")), safe=",") for ids in (run_ids, [experiment_id]))
    return f"{server}/#/compare-runs?runs={runs}&experiments={experiments}&{MODE}"


def program(name: str) -> str:
    """Give the path of a program of this environment, or its name if the shell finds it by that."""
    path = Path(sys.executable).with_name(name)
    return name if shutil.which(name) == str(path) else shown(path)


def recipe(verb: str) -> str:
    """Write the command of a recipe so that it runs when copied into this shell."""
    return called(verb, program("python"))


def command(verb: str, without: Sequence[str] = (), **more: str) -> str:
    """Write the command of another recipe with the flags of this one.

    Args:
        verb: The other recipe.
        without: Settings that it does not have.
        more: Settings to add or replace.

    >>> command("finetune", **{"full.learning_rate": "3e-4"}).partition(" -m ")[2]
    'tlkit.recipes.finetune --config FILE --full.learning_rate 3e-4'
    """
    arguments = sys.argv[1:] if Path(sys.argv[0]).parent == Path(__file__).parent else ["--config", "FILE"]
    words, skipping = [], False
    for word in arguments:
        if word.startswith("--"):
            skipping = word[2:].partition("=")[0] in (*without, *more)
        if not skipping:
            words.append(quoted(word))
    flags = [f"--{name} {quoted(value)}" for name, value in more.items()]
    return " ".join([recipe(verb), *words, *flags])


def shown(path: Path) -> str:
    """Write a path for the shell, the short way: relative where it is below the working folder."""
    return quoted(os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path))
