"""Large requests of strangers wait for each other, so that they fill neither the memory nor all threads."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

HEAVY = 2**22  # pixels from which on a request is large


class Busy(Exception):
    """Too many large requests are waiting."""


class Queue:
    """Large requests are answered one after the other; small ones do not wait.

    It has half as many places as the scoring server has threads (those of asyncio); further large requests are refused.
    """

    def __init__(self) -> None:
        self.places = threading.BoundedSemaphore(min(32, (os.cpu_count() or 1) + 4) // 2)
        self.one = threading.Lock()

    @contextlib.contextmanager
    def turn(self, work: int) -> Iterator[None]:
        """Wait for the turn of a request.

        Args:
            work: Pixels that the request decodes.

        Raises:
            Busy: the request is large, and all places are taken.
        """
        if work <= HEAVY:
            yield
        elif self.places.acquire(blocking=False):
            try:
                with self.one:
                    yield
            finally:
                self.places.release()
        else:
            raise Busy("the server is busy with large requests: try again later, or send smaller photos or fewer rows")
