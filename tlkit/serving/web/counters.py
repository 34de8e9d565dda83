"""What a server has done so far, in Prometheus' text format."""

from __future__ import annotations

import bisect
import collections
import threading
from collections.abc import Mapping, Sequence

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
PHOTOS = (1, 2, 4, 8, 16, 32)


class Histogram:
    """Counts of values up to each of some bounds.

    >>> histogram = Histogram([1, 2])
    >>> histogram.add(1.5)
    >>> print("\\n".join(histogram.lines("size")))
    size_bucket{le="1"} 0
    size_bucket{le="2"} 1
    size_bucket{le="+Inf"} 1
    size_sum 1.5
    size_count 1
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def mean(self) -> float:
        """The mean of all values; 0 where there are none."""
        return self.total / max(1, sum(self.counts))

    def lines(self, name: str) -> list[str]:
        """Write the histogram under a name."""
        names = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        below = [sum(self.counts[: place + 1]) for place in range(len(names))]
        buckets = [f'{name}_bucket{{le="{bound}"}} {count}' for bound, count in zip(names, below, strict=True)]
        return [*buckets, f"{name}_sum {self.total:g}", f"{name}_count {below[-1]}"]


class Counters:
    """The counters of a server; any thread may call the methods."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests: collections.Counter[int] = collections.Counter()  # by their status
        self.answered = self.failed = self.reloads = self.failed_reloads = 0
        self.seconds, self.batches = Histogram(SECONDS), Histogram(PHOTOS)

    def add_request(self, status: int, seconds: float) -> None:
        """Count a request to predict; status 499 is one whose client has gone."""
        with self._lock:
            self.requests[status] += 1
            self.seconds.add(seconds)

    def add_photos(self, answered: int, failed: int) -> None:
        """Count the photos of a request."""
        with self._lock:
            self.answered += answered
            self.failed += failed

    def add_batch(self, photos: int) -> None:
        """Count the photos that the network computed at a time."""
        with self._lock:
            self.batches.add(photos)

    def add_reload(self, succeeded: bool) -> None:
        """Count an attempt to load the version that an alias points at now."""
        with self._lock:
            self.reloads += succeeded
            self.failed_reloads += not succeeded

    def text(self, waiting: int, labels: Mapping[str, str]) -> str:
        """Write all counters.

        Args:
            waiting: Photos that are not answered yet.
            labels: What is served, such as its name and version.
        """
        with self._lock:
            tables = {
                ("requests_total", "counter", "Requests to predict, by HTTP status; 499: the client went away."): [
                    f'tlkit_requests_total{{status="{status}"}} {count}'
                    for status, count in sorted(self.requests.items())
                ],
                ("photos_total", "counter", "Photos that were answered."): [f"tlkit_photos_total {self.answered}"],
                ("failures_total", "counter", "Photos that could not be answered."): [
                    f"tlkit_failures_total {self.failed}"
                ],
                ("request_seconds", "histogram", "Seconds from a request's first byte to its answer."): (
                    self.seconds.lines("tlkit_request_seconds")
                ),
                ("waiting_photos", "gauge", "Photos that are not answered yet."): [f"tlkit_waiting_photos {waiting}"],
                ("batch_photos", "histogram", "Photos that the network computed at a time."): (
                    self.batches.lines("tlkit_batch_photos")
                ),
                ("reloads_total", "counter", "Versions that were loaded because the alias moved, or could not be."): [
                    f'tlkit_reloads_total{{result="loaded"}} {self.reloads}',
                    f'tlkit_reloads_total{{result="failed"}} {self.failed_reloads}',
                ],
                ("model_info", "gauge", "The model that is served."): [f"tlkit_model_info{{{_pairs(labels)}}} 1"],
            }
        lines = [
            line
            for (name, kind, about), values in tables.items()
            for line in (f"# HELP tlkit_{name} {about}", f"# TYPE tlkit_{name} {kind}", *values)
        ]
        return "\n".join([*lines, ""])


def _pairs(labels: Mapping[str, str]) -> str:
    escapes = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
    return ",".join(f'{name}="{value.translate(escapes)}"' for name, value in labels.items())
