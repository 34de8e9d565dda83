"""Limits of training other than its epochs."""

from __future__ import annotations

import time
from typing import Any

import keras


class TimeLimit(keras.callbacks.Callback):
    """Ends training at a time: the epoch is cut short, its weights are validated, and the best epoch is kept.

    Args:
        deadline: When the last step ends, as `time.perf_counter` gives it.

    Attributes:
        reached: Whether the time was up before the last epoch was over.
    """

    def __init__(self, deadline: float):
        super().__init__()
        self.deadline, self.reached = deadline, False

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop within an epoch."""
        self._stop()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop after an epoch, although another callback has just decided that training continues."""
        self._stop()

    def _stop(self) -> None:
        if time.perf_counter() >= self.deadline:
            self.model.stop_training = self.reached = True
