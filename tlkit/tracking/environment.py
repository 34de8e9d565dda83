"""Settings of MLflow's that tlkit chooses, before MLflow reads them; the user's own win. And its import."""

import importlib
import importlib.util
import os
import sys
import types

from tlkit import startup

# With MLflow's own, a call to a server that is away takes four minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

GATEWAY = "mlflow.gateway"


def import_mlflow() -> None:
    """Import MLflow without its gateway's web framework, a fifth of its time: all it needs of it are constants."""
    spec = importlib.util.find_spec("mlflow")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'mlflow'", name="mlflow")
    package = types.ModuleType(GATEWAY)  # its modules are found, but what its own `__init__` imports is not
    package.__path__ = [os.path.join(place, "gateway") for place in spec.submodule_search_locations]
    sys.modules[GATEWAY] = package
    try:
        importlib.import_module("mlflow")
    finally:
        del sys.modules[GATEWAY]


if startup.COMMAND and "mlflow" not in sys.modules:  # in a user's program, all is as MLflow has it
    import_mlflow()
