"""MLflow: one run for each recipe run, in MLflow's own default store unless the environment names another."""

from tlkit.tracking import environment, journal  # first: environment sets what mlflow reads when it loads
from tlkit.tracking.database import STORE_ERRORS, experiment_id, open_store
from tlkit.tracking.logs import (
    artifact,
    epoch_logger,
    log_artifact,
    log_figure,
    log_inputs,
    log_metrics,
    log_model,
    log_nothing_twice,
    log_params,
    log_table,
    log_text,
    register,
    set_tags,
)
from tlkit.tracking.open_runs import deliver, journal_of
from tlkit.tracking.queries import model_folder, recent_runs, run_folder, run_name, trains
from tlkit.tracking.runs import Run, run

__all__ = [
    "STORE_ERRORS", "Run", "artifact", "deliver", "environment", "epoch_logger", "experiment_id", "journal",
    "journal_of", "log_artifact", "log_figure", "log_inputs", "log_metrics", "log_model", "log_nothing_twice",
    "log_params", "log_table", "log_text", "model_folder", "open_store", "recent_runs", "register", "run",
    "run_folder", "run_name", "set_tags", "trains",
]  # fmt: skip
