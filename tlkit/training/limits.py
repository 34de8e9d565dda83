"""Limits of training other than its epochs."""

from __future__ import annotations

import time
from typing import Any

import keras


class TimeLimit(keras.callbacks.Callback):
    """Ends training at a time: the epoch is cut short, and its weights are judged as those of the last.

    Args:
        deadline: When the last step ends, as `time.perf_counter` gives it.

    Attributes:
        reached: Whether the time was up before the last epoch was over.
    """

    def __init__(self, deadline: float):
        super().__init__()
        self.deadline, self.reached = deadline, False

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop within an epoch, or after the first step of the next, so that what keeps weights sees that it is cut."""
        if time.perf_counter() >= self.deadline:
            self.model.stop_training = self.reached = True
