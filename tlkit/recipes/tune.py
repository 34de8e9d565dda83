"""Search the settings of a recipe with keras-tuner: each trial a nested MLflow run, and the best one a recipe file.

python -m tlkit.recipes.tune --config recipes/tune/cnn.yaml --trials 10
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit import atomic, cli
from tlkit import config as configs
from tlkit.config import Tune
from tlkit.display import say
from tlkit.errors import Unavailable
from tlkit.recipes import (
    _clusters,
    _decisions,
    _inputs,
    _jobs,
    _links,
    _runs,
    _search,
    _search_results,
    _search_summary,
    _search_trials,
    _search_workers,
)

if TYPE_CHECKING:
    from tlkit import tracking


def run(config: Tune) -> _search_results.Best | None:
    """Search, resume a search, or work for one that runs elsewhere; see `config.Tune` for the settings.

    Returns:
        The best trial; None for a worker.
    """
    began = time.perf_counter()
    space, corners = _search.check(config)
    config, folder = _search.completed(config), Path(config.output).absolute()
    address = _search_workers.address(config)
    if address.is_worker:
        _search_workers.work_elsewhere(config, folder, address)
        return None
    with _search.locked(folder):
        state = _search.load_state(config, folder)
        _prepare(config, corners, resuming=bool(state.run_id))
        search = _search.open_search(config, space, folder, state, epochs=corners[0].full.epochs)
        atomic.write_text(folder / "search.yaml", _runs.as_yaml(config))  # workers read it
        if state.best:
            say(f"the search in {_links.shown(folder)} has ended")
            best = _search_results.Best(**state.best)
            _search_summary.show(search, best)
            return best
        with _clusters.joined(config.cluster), _tracked(search, state) as parent:
            reporter = _run_trials(search, parent, address)
            best = _search_results.finish(search, parent)
        search.oracle.extra["best"] = best._asdict()
        search.oracle.save()
        _search_summary.show(search, best, _search_summary.timing(search, reporter, time.perf_counter() - began))
    return best


def _prepare(config: Tune, corners: Sequence[_search.Tuned], resuming: bool) -> None:
    """Import Keras, check all that can be checked before a trial runs, and open the MLflow store.

    Args:
        config: The settings.
        corners: Settings of the recipe in which the ends of all ranges occur.
        resuming: Whether the search goes on.

    Raises:
        InvalidInput: the recipe does not take some of the settings or the data.
    """
    _jobs.start_keras()
    from tlkit import runtime, tracking
    from tlkit.tracking import registry

    if config.register:
        registry.check_name(config.register)
    decided = [_decisions.completed(corner) for corner in corners]
    for corner in decided:
        _search.recipe(config).check(corner)
    _check_data(config, decided[0])
    runtime.prepare(config.seed, "float32")
    tracking.open_store(config.experiment, "search" if resuming else "")


def _check_data(config: Tune, decided: _search.Tuned) -> None:
    """Split the data as each trial will, without decoding any, and print what there is.

    Raises:
        InvalidInput: the recipe cannot use them, or they cannot be split as asked.
    """
    examples = _inputs.photos(decided) if config.recipe == "finetune" else _inputs.listed(decided.data)
    side = decided.data.image_size or (None if config.data.origin == "embedded" else 32)
    shape = (side, side, 3) if side and examples.modality.resized else None
    _inputs.check(decided, examples)
    _inputs.splits(decided.data, examples, shape, check=False)


@contextlib.contextmanager
def _tracked(search: _search.Search, state: _search.State) -> Iterator[tracking.Run]:
    """Track the block as the search's MLflow run, a new one or the one that it had."""
    from tlkit import tracking

    config, oracle = search.config, search.oracle
    if ended := len(oracle.end_order):
        say(f"resuming the search in {_links.shown(search.folder)}: {ended} trials have ended")
    tags = {**_runs.tags("tune", "several"), "search": state.id}
    run_id = state.run_id or _search_trials.find_search_run(config.experiment, state.id)
    with tracking.run(
        config.experiment,
        run_name=config.run_name,
        params=_params(config),
        tags=tags,
        run_id=run_id,
        title=_runs.title("tune", config, config.recipe),
    ) as parent:
        oracle.extra["run_id"] = parent.run_id
        oracle.save()
        tracking.log_text(_runs.as_yaml(config.space), "space.yaml")
        tracking.log_text(_runs.as_yaml(config), "config.yaml")
        yield parent


def _params(config: Tune) -> dict[str, Any]:
    """Give the parameters of the search's run: few, and none that may change; the best trial's settings join them."""
    names = ("recipe", "algorithm", "trials", "objective", "executions", "seed", "precision")
    values, defaults = configs.flatten(config.data, "data."), configs.flatten(configs.Data(), "data.")
    data = {
        name: value for name, value in values.items() if value != defaults[name] and name not in _search.TUNABLE_DATA
    }
    return {name: getattr(config, name) for name in names} | data


def _run_trials(
    search: _search.Search, parent: tracking.Run, address: _search_workers.Address
) -> _search_trials.Reporter:
    """Run all trials that are left, in processes of their own.

    Returns:
        What has reported them.

    Raises:
        Unavailable: none has a result.
    """
    from tlkit import tuning

    config, oracle, folder = search.config, search.oracle, search.folder
    oracle.begin = _search_trials.run_starter(parent)
    reporter = _search_trials.Reporter(search)
    count = f"{config.trials} trials" if config.trials else "trials"
    logs = f"{_links.shown(folder / 'trials')}/*/log.txt"
    say(f"{count} of {config.recipe}, {max(config.workers, 1)} at a time; each writes to {logs}")
    host = address.host or _search_workers.LOCAL
    try:
        with tuning.served(oracle, host, address.port) as (port, last_heard):
            if address.port:
                say(f"listening for workers at {host}:{port}, without a password")
            with _search_workers.starter(config, folder, host, port) as start:
                tuning.supervise(oracle, last_heard, start, config.workers, reporter)
    except BaseException:
        _search_trials.end_runs(search, parent)
        say(f"\nthe search is saved in {_links.shown(folder)}: the same command resumes it", error=True)
        raise
    _search_trials.end_runs(search, parent)
    reporter.finish()
    if not tuning.best_first(oracle):
        reason = reporter.last_failure or "see the folder trials"
        raise Unavailable(f"no trial has a result: {reason}; fix that and give another --output")
    return reporter


if __name__ == "__main__":
    cli.main(Tune, run)
