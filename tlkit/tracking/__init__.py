"""MLflow: one run for each recipe run, in MLflow's own default store unless the environment names another."""

from tlkit.tracking import journal  # first: it sets up what mlflow reads when it loads
from tlkit.tracking.database import STORE_ERRORS, experiment_id, open_store
from tlkit.tracking.queries import model_folder, recent_runs, run_folder, run_name
from tlkit.tracking.runs import (
    Run,
    artifact,
    deliver,
    epoch_logger,
    journal_of,
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
    run,
    set_tags,
)

__all__ = [
    "STORE_ERRORS", "Run", "artifact", "deliver", "epoch_logger", "experiment_id", "journal", "journal_of",
    "log_artifact", "log_figure", "log_inputs", "log_metrics", "log_model", "log_nothing_twice", "log_params",
    "log_table", "log_text", "model_folder", "open_store", "recent_runs", "register", "run", "run_folder", "run_name",
    "set_tags",
]  # fmt: skip
