"""Has `import mlflow` import tlkit too, where it is installed: `mlflow.keras.load_model` then knows tlkit's layers.

Keras finds layers that are not its own only where they have been imported, and MLflow loads its plugins at import.
"""

from __future__ import annotations

from mlflow.tracking.context.abstract_context import RunContextProvider

import tlkit  # noqa: F401  which has its layers imported as soon as Keras is


class Context(RunContextProvider):
    """A provider of tags for runs, as which MLflow loads plugins; it provides none."""

    def in_context(self) -> bool:
        """Say that there is nothing to provide."""
        return False

    def tags(self) -> dict[str, str]:
        """Provide nothing."""
        return {}
