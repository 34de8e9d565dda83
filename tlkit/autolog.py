"""MLflow's autologging, which a user may have switched on for other work, must not log our own fits."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def suspended() -> Iterator[None]:
    """Suspend autologging: a fit in the block is logged by us, or is not a training that the user asked for."""
    loaded = sys.modules.get("mlflow.utils.autologging_utils")  # it is not imported for this
    if loaded is None or getattr(loaded, "_AUTOLOGGING_GLOBALLY_DISABLED", False):  # MLflow's own does not nest
        yield
        return
    with loaded.disable_autologging():
        yield
