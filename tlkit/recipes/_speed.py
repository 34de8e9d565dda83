"""How fast networks predict: each measured once on a machine, in alternation with those beside it."""

from __future__ import annotations

import functools
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tlkit import atomic, untrusted
from tlkit.display import say
from tlkit.errors import InvalidInput

if TYPE_CHECKING:
    import keras
    import numpy as np
    from mlflow.entities import Run

    from tlkit.inference import Engine

ROUNDS = 7  # turns that each network has, of which the median counts
SECONDS = 0.2  # of each turn
LONGEST_FILE = 2**20  # bytes


class Network(NamedTuple):
    """What makes a network as fast as it is; runs that agree in all of it are measured together.

    Args:
        name: Of the network, with its width.
        side: Pixels of its photos.
        parameters: Number of parameters.
    """

    name: str
    side: str
    parameters: float


def of_runs(runs: Sequence[Run], networks: Mapping[str, str]) -> dict[str, float]:
    """Give the examples a second of each run's network, by the engine with which `predict` would compute many.

    Networks whose models are not on this machine's disk, or cannot be loaded, are left out.

    Args:
        runs: The runs.
        networks: Names of their networks, by their ids.
    """
    of_run: dict[str, Network] = {}
    for run in runs:
        side, parameters = run.data.params.get("data.image_size", ""), run.data.metrics.get("parameters", math.nan)
        if math.isfinite(parameters):
            of_run[run.info.run_id] = Network(networks[run.info.run_id], side, parameters)
    paths = {network: path for run_id, network in of_run.items() if (path := _model(run_id))}
    by_network = of_networks({network: functools.partial(_load, path) for network, path in paths.items()})
    return {run_id: speed for run_id, network in of_run.items() if (speed := by_network.get(network))}


def of_networks(makes: Mapping[Network, Callable[[], keras.Model]]) -> dict[Network, float]:
    """Give the examples a second of each network; where that cannot be measured, it is left out.

    Args:
        makes: What makes each; called only if the speeds of these networks, side by side, are not known yet.
    """
    if not makes:
        return {}
    names = sorted(makes)
    key, known = json.dumps([platform.node(), *names]), _read()
    speeds = known.get(key)
    if not isinstance(speeds, list) or len(speeds) != len(names):
        many = f"{len(names)} networks in alternation" if len(names) > 1 else "the network"
        say(f"measuring the speed of {many}, once on this machine", error=True)
        measured = _measure(makes)
        speeds = [measured.get(network, 0.0) for network in names]
        _write({**known, key: speeds})
    return {network: speed for network, speed in zip(names, speeds, strict=True) if speed}


def _model(run_id: str) -> Path | None:
    """Find the file of a run's model on this machine's disk."""
    import mlflow

    from tlkit import tracking

    run = mlflow.MlflowClient().get_run(run_id)
    for output in run.outputs.model_outputs if run.outputs else []:
        folder = tracking.model_folder(f"models:/{output.model_id}")
        if folder and (path := folder / "data" / "model.keras").is_file():
            return path
    return None


def _load(path: Path) -> keras.Model:
    from tlkit.recipes import _models

    return _models.load(str(path), path).model


def _measure(makes: Mapping[Network, Callable[[], keras.Model]]) -> dict[Network, float]:
    """Measure all networks in alternation, so that what else the machine does slows all of them alike."""
    from tlkit.recipes import _jobs

    _jobs.start_keras()
    prepared = {network: ready for network, make in makes.items() if (ready := _prepare(network.name, make))}
    rates: dict[Network, list[float]] = {network: [] for network in prepared}
    for _ in range(ROUNDS):
        for network, (engine, batch) in prepared.items():
            began, count = time.perf_counter(), 0
            while time.perf_counter() - began < SECONDS:
                count += sum(len(rows) for rows in engine.run([batch]))
            rates[network].append(count / (time.perf_counter() - began))
    return {network: statistics.median(measured) for network, measured in rates.items()}


def _prepare(name: str, make: Callable[[], keras.Model]) -> tuple[Engine, np.ndarray] | None:
    """Make a model, and compute a first batch; None where that cannot be done."""
    import numpy as np

    from tlkit.serving import many

    try:
        model = make()
        shape = model.input_shape[1:]
        if None in shape or isinstance(model.input_shape, list | dict):
            return None
        values = np.random.default_rng(0).integers(0, 256, (many.SAMPLE, *shape)).astype(np.float32)
        engine, _ = many.engine(model, name, True, values)
        batch = np.resize(values, (engine.batch_size, *shape))
        list(engine.run([batch]))
    except InvalidInput:
        return None
    return engine, batch


def _file() -> Path:
    import platformdirs

    return platformdirs.user_state_path("tlkit", False) / "speeds.json"


def _read() -> dict[str, object]:
    try:
        content = _file().read_bytes()
        known = untrusted.parse_json(content, "speeds.json") if len(content) <= LONGEST_FILE else {}
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(known: Mapping[str, object]) -> None:
    """Keep what was measured; where that cannot be written, it is measured again."""
    try:
        _file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic.write_text(_file(), json.dumps(known))
    except OSError:
        return
