"""Resuming: which interrupted run a command continues, and with what settings."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tlkit import config as configs
from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.recipes import _decisions, _links
from tlkit.untrusted import is_url

if TYPE_CHECKING:
    import filelock

    from tlkit import data
    from tlkit.training import checkpoints

AnyTraining = TypeVar("AnyTraining", configs.Finetune, configs.Train)

MOVED = ("data.path", "data.data_dir")
"""Settings that only say where the data are."""
MACHINES = ("devices", "hosts")
"""Settings that only say where it is computed."""


class Interrupted(NamedTuple):
    """An interrupted run that is resumed.

    Args:
        run: The run and its checkpoints.
        lock: The lock of its folder, held.
    """

    run: checkpoints.Unfinished
    lock: filelock.BaseFileLock

    def check(self, splits: data.Splits) -> None:
        """Refuse data that are not those of the interrupted run."""
        if self.run.started_with["digest"] != splits.digest:
            raise InvalidInput(
                f"the data are not those that run {self.run.run_id} was begun with: put them back, give the place of "
                "those with --data.path, or begin a new run without --resume"
            )


def find(recipe: str, config: AnyTraining) -> tuple[AnyTraining, dict[str, Any], Interrupted | None]:
    """Find the interrupted run that is to be resumed, and take its settings.

    Its data may have moved: another `data.path` is allowed, because `Interrupted.check` compares what is there.

    In several processes the first finds it, and tells the others.

    Returns:
        The settings; these as the user gave them; and the interrupted run, None if a new one begins.

    Raises:
        InvalidInput: there is no such run, or it was begun with other settings.
    """
    from tlkit import cli

    asked = {**dataclasses.asdict(config), "resume": None}
    asked.pop("cluster", None)  # where it runs may change
    if config.resume is None:
        return config, asked, None
    if config.hosts:
        from tlkit.training import hosts

        if hosts.index():
            told = hosts.share()
            return _with_machines(cli.from_settings(type(config), told["config"]), config), told["asked"], None
        found, asked, interrupted = _find(recipe, config, asked)
        hosts.share({"config": dataclasses.asdict(found), "asked": asked})
        return found, asked, interrupted
    return _find(recipe, config, asked)


def _find(
    recipe: str, config: AnyTraining, asked: dict[str, Any]
) -> tuple[AnyTraining, dict[str, Any], Interrupted | None]:
    import mlflow

    from tlkit import cli
    from tlkit.training import checkpoints

    if mlflow.active_run():
        raise InvalidInput(f"resume is {config.resume!r}, but an MLflow run is active: end it, or leave resume out")
    runs = [run for run in checkpoints.unfinished() if run.started_with["recipe"] == recipe]
    if config.resume == "auto":
        interrupted = _latest(asked, runs)
        if interrupted is None:
            others = [f"run {run.run_id} has another {name}" for run in runs for name in _differing(asked, run)[:1]]
            note = f" ({others[0]})" if others else ""
            say(f"no interrupted run of this command in this folder{note}: a new one begins")
            return config, asked, None
    else:
        interrupted = _by_name(config, asked, runs, recipe)
    say(f"resuming run {interrupted.run.run_id}")
    started_with = interrupted.run.started_with
    before = cli.from_settings(type(config), _as_begun(started_with["config"]))
    return _with_machines(_with_moved_data(before, config), config), started_with["asked"], interrupted


def _with_machines(before: AnyTraining, asked: AnyTraining) -> AnyTraining:
    """Give the settings of an interrupted run, on the devices and hosts of today."""
    return dataclasses.replace(before, **{name: getattr(asked, name) for name in MACHINES})


def _as_begun(settings: dict[str, Any]) -> dict[str, Any]:
    """Give the settings of a run with those that did not exist when it was begun, where their default is another now.

    >>> _as_begun({"data": {"path": "photos"}})
    {'data': {'resize': 'squash', 'path': 'photos'}}
    """
    return {**settings, "data": {"resize": "squash", **settings["data"]}}


def _latest(asked: dict[str, Any], runs: list[checkpoints.Unfinished]) -> Interrupted | None:
    """The latest run that was begun with these settings and that no other process is training."""
    from tlkit.training import checkpoints

    for run in runs:
        if _has_settings(run, asked) and _name(run) and (lock := checkpoints.hold(run)):
            return Interrupted(run, lock)
    return None


def _by_name(
    config: AnyTraining, asked: dict[str, Any], runs: list[checkpoints.Unfinished], recipe: str
) -> Interrupted:
    from tlkit.training import checkpoints

    run = _named_run(str(config.resume), runs, recipe)
    defaults = flat({**dataclasses.asdict(type(config)()), "resume": None})
    settings = flat(asked)
    # A setting with its default value was not given: it need not be what the run was begun with.
    differing = [name for name in _differing(asked, run) if name not in MOVED and settings[name] != defaults.get(name)]
    if differing:
        raise InvalidInput(
            f"{differing[0]} is {settings[differing[0]]!r}, but run {config.resume} was begun with "
            f"{flat(run.started_with['asked']).get(differing[0])!r}: leave settings out to resume it with its own, or "
            "begin a new run without resume"
        )
    lock = checkpoints.hold(run)
    if lock is None:
        raise InvalidInput(f"run {run.run_id} is being trained by another process: wait for it, or stop it")
    return Interrupted(run, lock)


def _has_settings(run: checkpoints.Unfinished, asked: dict[str, Any]) -> bool:
    """Whether a run was begun with these settings; its data may have moved, if they are no longer where they were.

    Data at the old place and at another one are different data, until `Interrupted.check` has seen both.
    """
    before = flat(run.started_with["config"])
    return all(
        name in MOVED and before.get(name) and not (is_url(before[name]) or os.path.exists(before[name]))
        for name in _differing(asked, run)
    )


def _with_moved_data(before: AnyTraining, asked: AnyTraining) -> AnyTraining:
    """Give the settings of an interrupted run, with its data where they are now.

    Raises:
        InvalidInput: they are not where they were, and no other place is given.
    """
    for name in ("path", "data_dir"):
        place, now = getattr(before.data, name), getattr(asked.data, name)
        if now:
            there: Any = _decisions.absolute(now)
            before = dataclasses.replace(before, data=dataclasses.replace(before.data, **{name: there}))
        elif place and not (_is_pattern(before, place) or os.path.exists(place)):
            raise InvalidInput(
                f"data.{name} was {place!r} when the run was begun, and there is nothing now: say where the data are "
                f"with --data.{name}"
            )
    return before


def _is_pattern(before: AnyTraining, place: str) -> bool:
    """Whether a place is a URL, or may stand for several files, which only their source can look for."""
    return is_url(place) or getattr(before.data, "origin", "") == "webdataset"


def _differing(asked: dict[str, Any], run: checkpoints.Unfinished) -> list[str]:
    """Name the settings that are not what a run was begun with."""
    before = flat(run.started_with["asked"])
    return [name for name, value in flat(asked).items() if value != before.get(name) and name not in MACHINES]


def _name(run: checkpoints.Unfinished) -> str | None:
    """Give the name of an interrupted run; None, with a line that says so, if MLflow no longer has it."""
    from tlkit import tracking

    try:
        tracking.open_store()
        name = tracking.run_name(run.run_id)
    except InvalidInput:  # there is no store at all
        name = None
    if name is None:
        why = "is not in this MLflow store, or was deleted there: restore it, or delete"
        say(f"the interrupted run {run.run_id} {why} {run.folder}", error=True)
    return name


def _named_run(name: str, runs: list[checkpoints.Unfinished], recipe: str) -> checkpoints.Unfinished:
    names = {run.run_id: _name(run) for run in runs}
    runs = [run for run in runs if names[run.run_id]]
    for run in runs:
        if name in (run.run_id, names[run.run_id]):
            return run
    available = ", ".join(run.run_id for run in runs[:3]) or "none"
    raise InvalidInput(
        f"resume is {name!r}; no such run of {recipe} was interrupted in this folder. Those that were: {available}"
    )


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give every leaf of nested settings its dotted name."""
    leaves: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, dict) and name != "learning_rates"
        leaves |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return leaves


@contextlib.contextmanager
def advice_on_failure(recipe: str, run: checkpoints.Unfinished) -> Iterator[None]:
    """Print how to resume a run that fails or is interrupted in the block; forget one without a checkpoint."""
    try:
        yield
    except BaseException as error:
        if any(run.folder.glob("*.npz")):
            say(f"\nto resume from the last checkpoint: {_links.recipe(recipe)} --resume {run.run_id}", error=True)
        elif not isinstance(error, KeyboardInterrupt):
            from tlkit.training import checkpoints

            checkpoints.finish(run)
        raise
