"""What it costs to log a run: the time of training epochs with tlkit's tracking, with others', and without any.

python benchmarks/tracking_overhead.py

The same network learns the same digits each time, in one process. Epochs without logging stand between those with it,
and each ratio is to the ones around it, so that a machine that slows down for a while does not count. Stores: none, a
SQLite file, a real `mlflow server` on one, and that server halted (it takes connections and answers nothing).
Peers: `mlflow.log_metrics` in a callback, and `mlflow.keras.MlflowCallback`; they are not tried on the halted server,
where a call waits for minutes. Below: what it takes to log the model at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import keras
import mlflow

from tlkit import builders, data, serving, tracking


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20, help="of each part")
    parser.add_argument("--rounds", type=int, default=5, help="of all parts")
    parser.add_argument("--alone", action="store_true", help="without the peers")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    found = data.load("embedded", size=(32, 32), channels=1)
    photos, labels = found.train.read(range(len(found.train))), found.train.labels
    model = builders.cnn(photos.shape[1:], classes=len(found.classes))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

    def epochs(*callbacks: Any) -> float:
        began = time.perf_counter()
        model.fit(photos, labels, epochs=options.epochs, verbose=0, callbacks=list(callbacks))
        return (time.perf_counter() - began) / options.epochs

    def ours() -> float:
        with tracking.run("benchmark", params={}, tags={}):
            return epochs(tracking.epoch_logger())

    def by_hand() -> float:
        class Callback(keras.callbacks.Callback):
            def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
                mlflow.log_metrics(logs or {}, step=epoch)

        with mlflow.start_run():
            return epochs(Callback())

    def mlflows() -> float:
        with mlflow.start_run() as run:
            return epochs(mlflow.keras.MlflowCallback(run))

    rows: dict[str, list[float]] = {}
    plain: list[float] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), server(Path(folder)) as (uri, halted):
        stores = {"SQLite": f"sqlite:///{folder}/mlflow.db", "mlflow server": uri}

        def use(store: str) -> None:
            mlflow.set_tracking_uri(store)
            mlflow.set_experiment("benchmark")

        mlflow.set_tracking_uri(stores["SQLite"])
        tracking.open_store("benchmark")
        epochs()
        for _ in range(options.rounds):
            before = epochs()
            for name, store in stores.items():
                peers = {} if options.alone else {"log_metrics": by_hand, "MlflowCallback": mlflows}
                for how, part in {"tlkit": ours, **peers}.items():
                    use(store)
                    seconds = part()
                    after = epochs()
                    rows.setdefault(f"{how}, {name}", []).append(2 * seconds / (before + after))
                    before = after
                    plain.append(after)
            use(uri)
            with tracking.run("benchmark", params={}, tags={}):
                with halted():
                    seconds = epochs(tracking.epoch_logger())
                after = epochs()
            rows.setdefault("tlkit, server halted", []).append(2 * seconds / (before + after))
        print(f"\nan epoch without logging: {statistics.median(plain):.3f} s\n")
        print(f"{'':<32}{'epoch / without':>16}{'lowest':>9}{'highest':>9}")
        for name, ratios in sorted(rows.items()):
            print(f"{name:<32}{statistics.median(ratios):>16.3f}{min(ratios):>9.3f}{max(ratios):>9.3f}")
        print(f"\nlogging the model, with the server: {model_seconds(model, found.classes):.2f} s")


def model_seconds(model: keras.Model, classes: list[str]) -> float:
    """Give the seconds until the store has a model."""
    requirements = [f"keras=={keras.__version__}"]
    with tracking.run("benchmark", params={}, tags={}):
        began = time.perf_counter()
        tracking.log_model(
            lambda path: serving.save_model(path, model, classes, kind="photos", requirements=requirements)
        )
        if tracking.deliver() is None:
            raise RuntimeError("the server does not have it")
        return time.perf_counter() - began


@contextlib.contextmanager
def server(folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Start an `mlflow server`; give its URI, and what halts it for a block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/server.db",
        "--artifacts-destination",
        f"{folder}/artifacts",
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(  # noqa: S603 (no shell, and nothing that a stranger wrote)
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )

    @contextlib.contextmanager
    def halted() -> Iterator[None]:
        os.killpg(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGCONT)

    uri = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{uri}/health", timeout=1)  # noqa: S310 (http, on loopback)
                break
            time.sleep(0.1)
        yield uri, halted
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    main()
