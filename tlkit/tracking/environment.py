"""Settings of MLflow's that tlkit chooses, before MLflow reads them; the user's own win."""

import os

# With MLflow's own, a call to a server that is away takes four minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
