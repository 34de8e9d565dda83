"""A search for `tune`: its settings and its space, checked before anything runs, and the state that resumes it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import math
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from tlkit import cli, untrusted
from tlkit.config import Finetune, Train, Tune
from tlkit.config import space as spaces
from tlkit.config.training import FEWEST_EPOCHS
from tlkit.errors import InvalidInput, Unavailable
from tlkit.recipes import _decisions, _links, _networks

if TYPE_CHECKING:
    from keras_tuner.src.engine.trial import Trial

    from tlkit import tuning

Tuned: TypeAlias = Finetune | Train
RECIPES: dict[str, type[Tuned]] = {"finetune": Finetune, "train": Train}
TRIALS = 20  # default of `random` and `bayesian`
TENFOLD = 10  # values that a grid takes from a range without steps
SHARED = ("data", "features", "precision", "seed", "positive", "experiment", "run_name")  # the same for all trials
TUNABLE_DATA = ("data.image_size", "data.resize", "data.seconds")  # settings of the data that may differ between trials


class Search(NamedTuple):
    """A search that is running or has ended.

    Args:
        config: The settings.
        space: The ranges from which each trial's settings are chosen.
        folder: Folder of its state, its trials and the best one's recipe file.
        oracle: Chooses each trial's settings and records the results.
    """

    config: Tune
    space: spaces.Space
    folder: Path
    oracle: tuning.ResumableOracle

    def trial_folder(self, trial: Trial) -> Path:
        """Folder in which a trial leaves its settings, model and results."""
        return self.folder / "trials" / trial.trial_id

    def result(self, trial: Trial) -> dict[str, Any]:
        """What a completed trial has measured; see `_worker.run_trial`."""
        text = (self.trial_folder(trial) / "result.json").read_text(encoding="utf-8")
        measured: dict[str, Any] = json.loads(text)
        return measured


class State(NamedTuple):
    """What the file of a search holds beside the oracle's state.

    Args:
        search: The settings that make it the same search.
        id: Identifies it in MLflow.
        run_id: Its MLflow run, if it has begun.
        best: What it left, by the fields of `_search_results.Best`, if it has ended.
    """

    search: dict[str, Any]
    id: str
    run_id: str | None = None
    best: dict[str, Any] | None = None


def check(config: Tune) -> tuple[spaces.Space, list[Tuned]]:
    """Check the whole space before anything runs.

    Returns:
        The space, and settings of the recipe in which both ends of each range and every choice occur.

    Raises:
        InvalidInput: the space holds a setting that cannot be tuned, or a value that the recipe does not take.
    """
    space, corners = spaces.parse(config.space), []
    for name in spaces.named(config.space):
        if name.split(".")[0] in SHARED and name not in TUNABLE_DATA:
            raise InvalidInput(f"space.{name} cannot be tuned: give --{name} outside the space")
    for settings in spaces.corners(space):
        try:
            corners.append(recipe_config(config, settings))
        except InvalidInput as error:
            raise InvalidInput(f"space: {error}") from error
    epochs = sorted({corner.full.epochs for corner in corners}, key=lambda each: each or 0)  # None follow the data
    if config.algorithm == "hyperband" and (len(epochs) > 1 or not epochs[0]):
        raise InvalidInput(
            f"space.full.epochs is {' or '.join(map(str, epochs))}: hyperband itself chooses how long each trial "
            "trains; give one number, 1 or more, for the best ones"
        )
    return space, corners


def completed(config: Tune) -> Tune:
    """Give the settings with the number of trials, and with paths that mean the same from any folder."""
    if config.trials is None and config.algorithm in ("random", "bayesian"):
        config = dataclasses.replace(config, trials=TRIALS)
    features = dataclasses.replace(config.features, store=_networks.store_path(config.features.store))
    return dataclasses.replace(config, data=_decisions.located(config.data), features=features)


def recipe(config: Tune) -> ModuleType:
    """Import the recipe that is tuned, with its functions `run` and `check`."""
    return importlib.import_module(f"tlkit.recipes.{config.recipe}")


def recipe_config(config: Tune, settings: Mapping[str, Any]) -> Tuned:
    """Make the recipe's config of one trial.

    Args:
        config: The search's settings, some of which are those of every trial.
        settings: The trial's own, nested.

    Raises:
        InvalidInput: the recipe does not take them.
    """
    common: dict[str, Any] = {
        "data": dataclasses.asdict(config.data),
        "features": dataclasses.asdict(config.features),
        "precision": config.precision,
        "experiment": config.experiment,
        "seed": config.seed,
        "positive": config.positive,
    }
    if config.recipe == "train":
        del common["features"]
    if config.recipe == "finetune" and config.algorithm == "hyperband":
        common["full"] = {"epochs": FEWEST_EPOCHS}  # of the best trials, by which the others' are reckoned
    recipe_settings: Tuned = cli.from_settings(RECIPES[config.recipe], spaces.merged(common, settings))
    return recipe_settings


def stored_config(config: Tune, trial_folder: Path) -> Tuned:
    """Read the recipe's config that a trial has left in its folder."""
    stored = untrusted.read_yaml(trial_folder / "config.yaml")
    recipe_settings: Tuned = cli.from_settings(RECIPES[config.recipe], stored)
    return recipe_settings


def sharing(config: Tune) -> float:
    """Estimate how many runs share one frozen part of the network, if all its variants are tried equally often.

    >>> space = {"head": {"dropout": {"float": [0, 0.5]}}, "full": {"unfreeze_from": {"choice": ["stage3", "stage4"]}}}
    >>> sharing(Tune(space=space, trials=12))
    6.0
    """
    frozen = ("backbone", "data.", "augment", "full.unfreeze_from")
    ranges = spaces.parse(config.space).ranges
    sizes = {
        limits.name: len(limits.values) or (1 + (limits.high - limits.low) / limits.step if limits.step else TENFOLD)
        for limits in ranges
    }
    trials = config.trials or (math.prod(sizes.values()) if config.algorithm == "grid" else TRIALS)
    variants = math.prod(size for name, size in sizes.items() if name.startswith(frozen))
    return max(1.0, trials * config.executions / variants)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder of a search, and hold it during the block, so that no other process runs the same search.

    Raises:
        Unavailable: another process holds it.
    """
    import filelock

    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise Unavailable(
            f"another process is running the search in {_links.shown(folder)}: wait for it, or stop it"
        ) from error
    try:
        yield
    finally:
        lock.release()


def state_file(folder: Path) -> Path:
    """File of a search's whole state."""
    return folder / "search.json"


def load_state(config: Tune, folder: Path) -> State:
    """Read the state of the search in a folder; a new one if there is none.

    Raises:
        InvalidInput: its file is damaged, or the search has other settings.
    """
    file, definition = state_file(folder), _definition(config)
    if not file.exists():
        return State(definition, uuid.uuid4().hex)
    try:
        stored = untrusted.read_json(file)
        state = State(stored["search"], stored["id"], stored.get("run_id"), stored.get("best"))
        untrusted.identifier(state.id, "its id")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{_links.shown(file)} is not the state of a search: give another --output") from error
    if changes := spaces.difference(state.search, definition):
        raise InvalidInput(
            f"the search in {_links.shown(folder)} has other settings: {'; '.join(changes)}; give the old ones to "
            "resume it, or another --output"
        )
    return state


def _definition(config: Tune) -> dict[str, Any]:
    """The settings that make it the same search: all but where it runs, its name, and how its best model is scored."""
    excluded = (
        "workers", "cluster", "trials_per_process", "output", "experiment", "run_name", "features", "positive",
    )  # fmt: skip
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in excluded}


def open_search(config: Tune, space: spaces.Space, folder: Path, state: State, epochs: int) -> Search:
    """Make the oracle of a search, or read it from its file.

    Args:
        config: The settings.
        space: What is searched.
        folder: Folder of the search.
        state: What its file holds beside.
        epochs: Number of epochs that the best trials of `hyperband` train.
    """
    from tlkit import tuning

    oracle = tuning.oracle(
        config.algorithm,
        space,
        config.objective,
        state_file(folder),
        trials=config.trials,
        epochs=epochs,
        seed=config.seed,
        extra={"search": state.search, "id": state.id},
    )
    return Search(config, space, folder, oracle)
