"""MLflow's system metrics of a run, logged into its journal."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psutil

from tlkit.tracking.logs import now
from tlkit.tracking.open_runs import innermost

if TYPE_CHECKING:
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

ENABLED = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"  # MLflow's own name
INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"  # MLflow's own name; seconds
SECONDS = 10.0
SHORT = 60.0  # seconds; what a shorter run did to the machine tells nothing


@contextlib.contextmanager
def logged() -> Iterator[None]:
    """Log how busy the machine is during the block, by MLflow's names: at intervals, and once at the end.

    A run of less than a minute has none, unless MLflow's own variables ask for them, and those of others come after
    their first score: MLflow's comparison page preselects the metric that came first.
    """
    wanted = os.environ.get(ENABLED, "").lower()
    if wanted in ("false", "0"):
        yield
        return
    shortest = 0.0 if wanted or os.environ.get(INTERVAL) else SHORT
    monitors, journal = _monitors(), innermost()
    interval, ended, steps = float(os.environ.get(INTERVAL) or SECONDS), threading.Event(), itertools.count()
    began, held = time.monotonic(), list[dict[str, Any]]()

    def sample() -> None:
        values: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            values |= {f"system/{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        held.append({"values": values, "step": next(steps), "time": now()})

    def send() -> None:
        while held:
            journal.add("metrics", **held.pop(0))

    def watch() -> None:
        while not ended.wait(interval):
            sample()
            if time.monotonic() - began >= shortest and journal.has_scores:
                send()

    psutil.cpu_percent()  # the first call begins the period that the next one measures
    thread = threading.Thread(target=watch, name="tlkit system metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(Exception):  # a failure here says nothing about the run
            if time.monotonic() - began >= shortest:
                sample()
                send()


def _monitors() -> list[BaseMetricsMonitor]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(Exception):  # no GPU, or no library to ask about it
        monitors.append(GPUMonitor())
    return monitors
