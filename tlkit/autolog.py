"""MLflow's autologging, which a user may have switched on for other work, is none of our own fits' business."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def suspended() -> Iterator[None]:
    """Suspend autologging: what is fitted in the block is logged already, or is no training of the user's."""
    loaded = sys.modules.get("mlflow.utils.autologging_utils")  # it is not imported for this
    if loaded is None or getattr(loaded, "_AUTOLOGGING_GLOBALLY_DISABLED", False):  # MLflow's own does not nest
        yield
        return
    with loaded.disable_autologging():
        yield
