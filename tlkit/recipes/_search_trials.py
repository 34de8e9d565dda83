"""The trials of a search while it runs: an MLflow run for each, and a line when it ends."""

from __future__ import annotations

import contextlib
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit import untrusted
from tlkit.display import say

if TYPE_CHECKING:
    from keras_tuner.src.engine.trial import Trial

    from tlkit import tracking
    from tlkit.recipes._search import Search


def find_search_run(experiment: str, search_id: str) -> str | None:
    """Find the MLflow run of a search that is resumed."""
    import mlflow

    from tlkit import tracking

    runs = mlflow.MlflowClient().search_runs([tracking.experiment_id(experiment)], f"tags.search = '{search_id}'")
    return untrusted.answered(runs[0]).info.run_id if runs else None


def run_starter(parent: tracking.Run) -> Callable[[Trial], str]:
    """Make the function that gives each trial its nested run; a trial that is begun again gets the same one.

    Args:
        parent: The run of the search.

    Returns:
        A function from a trial to the id of its run.
    """
    run_ids = _nested_runs(parent)

    def start(trial: Trial) -> str:
        import mlflow
        from mlflow.tracking.context.registry import resolve_tags
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        if trial.trial_id not in run_ids:
            tags = resolve_tags({MLFLOW_PARENT_RUN_ID: parent.run_id, "trial": trial.trial_id})
            run = mlflow.MlflowClient().create_run(parent.experiment_id, run_name=f"trial {trial.trial_id}", tags=tags)
            run_ids[trial.trial_id] = untrusted.answered(run).info.run_id
        return run_ids[trial.trial_id]

    return start


def _nested_runs(parent: tracking.Run) -> dict[str, str]:
    """Find the runs of a search's trials, by the trials' ids."""
    import mlflow
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    client, token = mlflow.MlflowClient(), None
    run_ids: dict[str, str] = {}
    while True:
        query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.run_id}'"
        page = client.search_runs([parent.experiment_id], query, max_results=1000, page_token=token)
        run_ids |= {
            run.data.tags["trial"]: untrusted.answered(run).info.run_id for run in page if "trial" in run.data.tags
        }
        token = page.token
        if not token:
            return run_ids


def end_runs(search: Search, parent: tracking.Run) -> None:
    """Give each nested run the status of its trial."""
    import mlflow

    from tlkit import tracking

    client = mlflow.MlflowClient()
    statuses = {"COMPLETED": "FINISHED", "FAILED": "FAILED"}
    with contextlib.suppress(*tracking.STORE_ERRORS):
        for trial_id, run_id in _nested_runs(parent).items():
            trial = search.oracle.trials.get(trial_id)
            status = statuses.get(trial.status, "KILLED") if trial else "KILLED"
            if status == "FAILED":
                client.set_tag(run_id, "failure", record_failure(search.folder, trial))
            if client.get_run(run_id).info.status != status:
                client.set_terminated(run_id, status)


def record_failure(folder: Path, trial: Trial) -> str:
    """Record as the trial's message why it failed: what the chief noticed, else what its worker left in its folder.

    Returns:
        The message.
    """
    file = folder / "trials" / trial.trial_id / "failure.txt"
    trial.message = trial.message or (file.read_text(encoding="utf-8") if file.exists() else "no reason is known")
    return trial.message


class Reporter:
    """Prints how each trial ended, keeps the search's run up to date, and deletes all models but the best.

    Attributes:
        seconds: How long the trials of this process took, once they have ended.
        work: Seconds of building and training, summed over these trials.
        last_failure: Why the most recent failed trial failed.
    """

    def __init__(self, search: Search):
        self.search, self.began = search, time.perf_counter()
        self.ended_before = len(search.oracle.end_order)
        self.seconds, self.work, self.last_failure = 0.0, 0.0, ""

    def __call__(self, trial: Trial, ended: int) -> None:
        """Report one trial.

        Args:
            trial: It has ended.
            ended: Number of trials that have.
        """
        from tlkit import tracking, tuning

        config, trials = self.search.config, list(self.search.oracle.trials.values())
        failed = sum(other.status == "FAILED" for other in trials)
        metrics = {"trials_ended": ended, "trials_failed": failed}
        if trial.status == "COMPLETED":
            best = tuning.best_first(self.search.oracle)[0]
            metrics[f"best_{config.objective}"] = best.score
            outcome = self._completed(trial, best)
            self._delete_models(trials, best)
        else:
            outcome = self._failed(trial)
        number = f"{ended}/{config.trials}" if config.trials else str(ended)
        say(f"{number} trial {trial.trial_id}: {outcome}{self._time_left(ended)}")
        tracking.log_metrics(metrics, step=ended)

    def finish(self) -> None:
        """Record how long the trials took."""
        self.seconds = time.perf_counter() - self.began

    def _completed(self, trial: Trial, best: Trial) -> str:
        from tlkit.progress import duration

        result = self.search.result(trial)
        self.work += result["work"]
        score = f"{self.search.config.objective} {trial.score:.4f}, {duration(result['seconds'])}"
        return f"{score}; best {best.score:.4f} ({best.trial_id})"

    def _failed(self, trial: Trial) -> str:
        import mlflow

        from tlkit import tracking, tuning

        self.last_failure = record_failure(self.search.folder, trial)
        if run_id := trial.hyperparameters.values.get(tuning.RUN_ID):
            with contextlib.suppress(*tracking.STORE_ERRORS):  # `end_runs` tries again
                mlflow.MlflowClient().set_terminated(run_id, "FAILED")
        return f"failed: {textwrap.shorten(self.last_failure, 120)}"

    def _delete_models(self, trials: list[Trial], best: Trial) -> None:
        for other in trials:
            if other.status == "COMPLETED" and other.trial_id != best.trial_id:
                (self.search.trial_folder(other) / "model.keras").unlink(missing_ok=True)

    def _time_left(self, ended: int) -> str:
        from tlkit.progress import duration

        total = self.search.config.trials
        if not total or total <= ended:
            return ""
        each = (time.perf_counter() - self.began) / max(ended - self.ended_before, 1)
        return f"; {duration(each * (total - ended))} left"
