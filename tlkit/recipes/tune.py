"""Search the settings of a recipe with keras-tuner: each trial a nested MLflow run, and the best one a recipe file.

python -m tlkit.recipes.tune --config recipes/tune/cnn.yaml --trials 10
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path
from typing import Any

from tlkit import cli, config, untrusted
from tlkit.config import space
from tlkit.display import say, shown
from tlkit.errors import InvalidInput, Unavailable, without_password
from tlkit.recipes import _decisions, _inputs, _jobs, _links, _networks, _runs, _search, _summary, _worker

NO_BREAK = "\N{NO-BREAK SPACE}"
SHOWN, COMPARED = 5, 10  # trials in the table at the end, and in the link to MLflow's comparison
NOT_TUNED = ("data", "features", "precision", "seed", "experiment", "run_name")  # the same for all trials
OF_DATA = ("data.image_size", "data.seconds")  # but these


def run(search: config.Tune) -> _search.Best | None:
    """Search, go on with a search, or be a worker of one that runs elsewhere; see `config.Tune` for the settings.

    Returns:
        The best; None for a worker.
    """
    began = time.perf_counter()
    if search.trials is None and search.algorithm in ("random", "bayesian"):
        search = dataclasses.replace(search, trials=_worker.TRIALS)
    found, configs = _check(search)
    search, folder = _absolute(search), Path(search.output).absolute()
    host, port = os.environ.get("KERASTUNER_ORACLE_IP"), os.environ.get("KERASTUNER_ORACLE_PORT", "0")
    name = os.environ.get("KERASTUNER_TUNER_ID", "chief")
    if not port.isdigit() or (host and port == "0"):
        raise InvalidInput(f"KERASTUNER_ORACLE_PORT is {port!r}: the number of a port")
    if not host and search.workers == 0:
        raise InvalidInput("workers is 0: then KERASTUNER_ORACLE_IP must say where workers elsewhere find the search")
    if "chief" not in name:
        _work_elsewhere(search, folder, name, host, port)
        return None
    import filelock

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / "lock", timeout=0):
            return _chief(search, found, configs, folder, (host or "127.0.0.1", int(port)), began)
    except filelock.Timeout as error:
        raise Unavailable(f"another process is at the search in {_links.shown(folder)}: wait, or end it") from error


def _check(search: config.Tune) -> tuple[space.Space, list[Any]]:
    """Look at the whole space before anything runs.

    Returns:
        The space, and settings of the recipe in which the ends of each range come up.
    """
    found, configs = space.parse(search.space), []
    for name in space.named(search.space):
        if name.split(".")[0] in NOT_TUNED and name not in OF_DATA:
            raise InvalidInput(f"space.{name} is not tuned: give --{name} beside the space")
    for corner in space.corners(found):
        try:
            configs.append(cli.from_settings(_worker.RECIPES[search.recipe], _worker.settings(search, corner)))
        except InvalidInput as error:
            raise InvalidInput(f"space: {error}") from error
    epochs = sorted({one.full.epochs for one in configs})
    if search.algorithm == "hyperband" and (len(epochs) > 1 or epochs[0] < 1):
        raise InvalidInput(
            f"space.full.epochs is {' or '.join(map(str, epochs))}: hyperband itself says how long a trial trains; "
            "give the one number that the best ones go on to, 1 or more"
        )
    return found, configs


def _absolute(search: config.Tune) -> config.Tune:
    features = dataclasses.replace(search.features, store=_networks.store_path(search.features.store))
    return dataclasses.replace(search, data=_decisions.located(search.data), features=features)


def _definition(search: config.Tune) -> dict[str, Any]:
    """What makes it the same search: all but where it runs and what it is called."""
    aside = ("workers", "trials_per_process", "output", "experiment", "run_name", "features")
    return {name: value for name, value in dataclasses.asdict(search).items() if name not in aside}


def _chief(
    search: config.Tune, found: space.Space, configs: list[Any], folder: Path, address: tuple[str, int], began: float
) -> _search.Best | None:
    file, definition, known, before = folder / "search.json", _definition(search), None, None
    extra: dict[str, Any] = {"search": definition, "id": uuid.uuid4().hex}
    if file.exists():
        try:
            state = untrusted.read_json(file)
            known, before = state.get("best"), state.get("run_id")
            extra = {name: state[name] for name in extra}
            untrusted.identifier(extra["id"], "its id")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(f"{_links.shown(file)} is not the state of a search: give another --output") from error
        if changed := space.difference(extra["search"], definition):
            raise InvalidInput(
                f"the search in {_links.shown(folder)} has other settings: {'; '.join(changed)}; give the old ones to "
                "go on with it, or another --output"
            )
    _jobs.import_keras()

    from tlkit import runtime, tracking, tuning
    from tlkit.tracking import registry

    if search.register:
        registry.check_name(search.register)
    recipe = _worker.module(search)
    completed = [_decisions.completed(one) for one in configs]
    for one in completed:
        recipe.check(one)
    _look_at_data(search, completed[0])
    runtime.prepare(search.seed, "float32")
    tracking.open_store(search.experiment)
    oracle = tuning.oracle(
        search.algorithm,
        found,
        search.objective,
        file,
        trials=search.trials,
        epochs=configs[0].full.epochs,
        seed=search.seed,
        extra=extra,
    )
    tuning.write(folder / "search.yaml", _runs.as_yaml(search))
    if known:
        say(f"the search in {_links.shown(folder)} has ended")
        best = _search.Best(**known)
        _summarize(search, found, folder, oracle, best)
        return best
    ended = len(oracle.end_order)
    if ended:
        say(f"going on in {_links.shown(folder)}: {ended} trials have ended")
    params = _params(search)
    tags = {**_runs.tags("tune", "several"), "search": extra["id"]}
    before = before or _search.known_run(search.experiment, extra["id"])
    with tracking.run(search.experiment, run_name=search.run_name, params=params, tags=tags, run_id=before) as parent:
        oracle.extra["run_id"] = parent.run_id
        oracle.save()
        tracking.log_text(_runs.as_yaml(search.space), "space.yaml")
        tracking.log_text(_runs.as_yaml(search), "config.yaml")
        oracle.begin = _search.Runs(parent).begin
        told = _search.Told(search, folder, oracle, time.perf_counter())
        count = f"{search.trials} trials" if search.trials else "trials"
        logs = f"{_links.shown(folder / 'trials')}/*/log.txt"
        say(f"{count} of {search.recipe}, {max(search.workers, 1)} at a time; each writes to {logs}")
        try:
            with tuning.served(oracle, *address) as (port, heard):
                if address[1]:
                    say(f"workers are served at {address[0]}:{port}, without a password")
                start = _starter(search, folder, address[0], port)
                tuning.supervise(oracle, heard, start, search.workers, told)
        except BaseException:
            _search.end_runs(parent, oracle, folder)
            say(f"\nthe search is kept in {_links.shown(folder)}: the same command goes on with it", error=True)
            raise
        _search.end_runs(parent, oracle, folder)
        seconds = time.perf_counter() - told.began
        if not tuning.best_first(oracle):
            raise Unavailable(
                f"no trial has a result: {told.reason or 'see the folder trials'}; mend that and give another --output"
            )
        best = _search.finish(search, found, folder, oracle, parent)
    oracle.extra["best"] = best._asdict()
    oracle.save()
    _summarize(search, found, folder, oracle, best, _time(search, told, seconds, time.perf_counter() - began))
    return best


def _look_at_data(search: config.Tune, completed: Any) -> None:
    """Split the data as each trial will, without decoding any, and say what there is.

    Raises:
        InvalidInput: they are no data for the recipe, or cannot be split so.
    """
    examples = _inputs.photos(completed) if search.recipe == "finetune" else _inputs.listed(completed.data)
    side = completed.data.image_size or (None if search.data.origin == "embedded" else 32)
    shape = (side, side, 3) if side and examples.modality.resized else None
    say(_inputs.summary(_inputs.splits(completed.data, examples, shape, check=False, quiet=True)))


def _params(search: config.Tune) -> dict[str, Any]:
    """What the run of the search has as parameters beside the best trial's settings: few, and none that may change."""
    names = ("recipe", "algorithm", "trials", "objective", "executions", "seed", "precision")
    usual = config.flatten(config.Data(), "data.")
    own = config.flatten(search.data, "data.")
    data = {name: value for name, value in own.items() if value != usual[name] and name not in OF_DATA}
    return {name: getattr(search, name) for name in names} | data


def _starter(search: config.Tune, folder: Path, host: str, port: int | str) -> Any:
    """What starts a worker's process on this machine."""
    import mlflow

    from tlkit import tuning

    logs = folder / "workers"
    logs.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_RUN_ID"}
    environment["MLFLOW_TRACKING_URI"] = mlflow.get_tracking_uri()
    if search.workers > 1:  # else each would take all cores, and they would wait for each other
        share = str(max(1, (os.cpu_count() or 1) // search.workers))
        for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
            environment.setdefault(name, share)
        environment.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # nor all of a GPU's memory
        environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

    environment |= {
        tuning.CHIEF: str(os.getpid()),
        "no_grpc_proxy": host,  # the chief is on this machine, or in this network
        "KERASTUNER_ORACLE_IP": "127.0.0.1" if host == "0.0.0.0" else host,  # noqa: S104 (compared, not bound)
        "KERASTUNER_ORACLE_PORT": str(port),
    }

    def start(name: str) -> tuning.Process:
        log = logs / f"{name.rpartition('-')[0]}.log"
        with log.open("ab") as out:
            running = subprocess.Popen(  # noqa: S603 (no shell, and nothing that a stranger wrote)
                [sys.executable, "-m", "tlkit.recipes._worker", str(folder)],
                env={**environment, "KERASTUNER_TUNER_ID": name},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the chief, which ends its workers itself
            )
        return tuning.Process(running, log)

    return start


def _work_elsewhere(search: config.Tune, folder: Path, name: str, host: str | None, port: str) -> None:
    """Be the workers of a chief on another machine."""
    if not host or port == "0":
        raise InvalidInput(
            f"KERASTUNER_TUNER_ID is {name!r}, a worker: KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT must say "
            "where its chief is"
        )
    if not (folder / "search.yaml").exists():
        raise Unavailable(
            f"{folder} is not the folder of the search: start the chief first, with the same --output on a file "
            "system that both see"
        )
    from tlkit import tuning

    start = _starter(search, folder, host, port)
    say(f"{name} works for the chief at {host}:{port}; it writes to {_links.shown(folder / 'workers')}")
    processes: list[tuning.Process] = []
    deaths, working = 0, max(search.workers, 1)
    try:
        while working or processes:
            for process in list(processes):
                status = process.running.poll()
                if status is None:
                    continue
                processes.remove(process)
                if status == tuning.GONE:
                    if "best" in untrusted.read_json(folder / "search.json"):
                        status = 0
                    else:
                        raise Unavailable(f"the chief at {host}:{port} does not answer any more")
                working -= status == 0
                deaths = 0 if status in (0, tuning.MORE) else deaths + 1
                if deaths == 3:
                    raise Unavailable(f"workers died three times in a row: see {process.log}")
            while len(processes) < working:
                processes.append(start(f"{name}-{uuid.uuid4().hex[:8]}"))
            time.sleep(0.2)
    finally:
        tuning.stop(processes)
    say("the search has ended")


def _time(search: config.Tune, told: _search.Told, seconds: float, whole: float) -> str:
    """Say how long the search took, and how much of a trial was neither building nor training."""
    from tlkit.progress import duration

    here = len(told.oracle.end_order) - told.before
    if not here or not told.work:
        return f"{duration(whole)} in all"
    beside = max(0.0, seconds * max(search.workers, 1) - told.work) / here
    each = f"a trial {duration(told.work / here)} of building and training, {duration(beside)} beside it"
    return f"{duration(whole)} in all; {each}"


def _summarize(
    search: config.Tune, found: space.Space, folder: Path, oracle: Any, best: _search.Best, took: str = ""
) -> None:
    """Print the best trials, how good the best one is, and where everything is."""
    import mlflow

    from tlkit import tracking, tuning

    ranked, name, several = tuning.best_first(oracle), search.objective, search.executions > 1
    say(f"\n   trial  {name:>12}{'      sd' if several else ''}")
    for place, trial in enumerate(ranked[:SHOWN], 1):
        metrics = json.loads((folder / "trials" / trial.trial_id / "result.json").read_text(encoding="utf-8"))[
            "metrics"
        ]
        spread = f"  {metrics[f'best_{name}_sd']:.4f}" if several else ""
        say(f"{place}  {trial.trial_id:>5}  {trial.score:>12.4f}{spread}")
        for line in _lines(found, trial.hyperparameters.values):
            say(f"          {line}")
    failed = len(oracle.end_order) - len(ranked)
    low, high = best.interval
    path = Path(best.recipe)
    say(f"\ntune {search.recipe}: {len(oracle.end_order)} trials{f', {failed} of them failed' if failed else ''}")
    say(f"  best  trial {best.trial_id}, {name} {best.score:.4f}, which flatters: it was chosen by it")
    say(
        f"  {best.split} accuracy  {best.accuracy:.4f}  (95 % interval {low:.3f} to {high:.3f}, {best.photos} examples)"
    )
    if took:
        say(f"  time  {took}")
    say(f"  run   {_run_name(best)}{best.run_id} in {without_password(mlflow.get_tracking_uri())}")
    _summary.print_registered(best.registered)
    say(f"  recipe {_links.shown(path)}")
    say("\nNext:")
    say(f"  {_links.recipe(search.recipe)} --config {_links.shown(path)} --seed 1")
    runs = [one.hyperparameters.values[tuning.RUN_ID] for one in ranked]
    heading = "its best trials side by side" if len(runs) > COMPARED else "its trials side by side"
    _links.print_links(tracking.Run(best.run_id, best.experiment_id), runs[:COMPARED], heading)


def _run_name(best: _search.Best) -> str:
    """Its name in MLflow; nothing where a search that has ended is in another store."""
    import mlflow

    from tlkit import tracking

    with contextlib.suppress(*tracking.STORE_ERRORS):
        return f"{shown(mlflow.get_run(best.run_id).info.run_name)}, "
    return ""


def _lines(found: space.Space, values: dict[str, Any], width: int = 70) -> list[str]:
    """Write a trial's settings, each as it stands in a recipe file."""
    chosen, texts = found.settings(values), []
    for name in dict.fromkeys(re.sub(r"\.(count|\d+)$", "", name) for name in found.active(values)):
        value: Any = chosen
        for part in name.split("."):
            value = value[part]
        text = f"{value:.3g}" if isinstance(value, float) else space.flow(value)
        whole = f"{name} {text}"
        texts.append(whole.replace(" ", NO_BREAK) if len(whole) < width else whole)
    lines = textwrap.wrap(", ".join(texts), width, break_long_words=False, break_on_hyphens=False)
    return [line.replace(NO_BREAK, " ") for line in lines]


if __name__ == "__main__":
    cli.main(config.Tune, run)
