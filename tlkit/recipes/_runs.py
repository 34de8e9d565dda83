"""A recipe's run in MLflow: how it begins, how it goes on after an interruption, and what it says of itself."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit import config as configs
from tlkit import untrusted
from tlkit.display import say, shown
from tlkit.errors import InvalidInput
from tlkit.recipes import _links, _steps
from tlkit.recipes._steps import AnyTraining

if TYPE_CHECKING:
    import keras

    from tlkit import data, tracking, training
    from tlkit.data import graph
    from tlkit.training import checkpoints


class Trial(NamedTuple):
    """What makes a recipe's run one trial of a search: the test photos stay unseen, and the model is not logged.

    Args:
        params: The settings that differ between trials, by their names in MLflow.
        folder: For the trial's config and, where it may go on later, the state of its training.
        execution: Which one of several with other seeds, from 1.
        until: Epochs of phase full after which it stops for now; None for all.
        max_parameters: Of the network; None for any.
        max_multiply_adds: Of the network, for one photo.
        after: Epochs that MLflow has already.
        runs: In how many the frozen part of the network will be used, so that storing what it gives is worth more.
    """

    params: dict[str, Any]
    folder: Path
    execution: int = 1
    until: int | None = None
    max_parameters: int | None = None
    max_multiply_adds: int | None = None
    after: int = 0
    runs: float = 1.0

    @property
    def checkpoint(self) -> Path | None:
        """Where the state of its training is kept."""
        return self.folder / "checkpoint.npz" if self.until else None


class Tried(NamedTuple):
    """What a trial leaves: the model with the weights of its best epoch, and how it came to them.

    Args:
        model: From raw pixels to probabilities.
        history: Of its training.
        seconds: For building and training it, and for the activations of frozen layers.
    """

    model: keras.Model
    history: training.History
    seconds: float


def admit(model: keras.Model, trial: Trial | None) -> None:
    """Turn down a network that is larger than a trial's may be or than the disk has room for, before it is trained.

    Raises:
        InvalidInput: it is larger than a trial's may be.
        Unavailable: it could not be saved.
    """
    check_room(model)
    if trial is None:
        return
    from tlkit import arithmetic

    allowed = {"parameters": trial.max_parameters, "multiply_adds": trial.max_multiply_adds}
    if not any(allowed.values()):
        return
    totals = arithmetic.totals(arithmetic.describe(model))
    for name, most in allowed.items():
        found = getattr(totals, name)
        if most and found and found > most:
            what = f"{found:,} {name.replace('_', '-')}"
            raise InvalidInput(f"turned down: {what}, and max_{name} is {most:,}")


def check_room(model: keras.Model) -> None:
    """Refuse a model that the disk has no room for, before it is trained.

    Raises:
        Unavailable: it could not be saved.
    """
    from tlkit.tracking import journal

    journal.check_room(journal.ROOM + 4 * model.count_params())


def callbacks(trial: Trial | None) -> list[Any]:
    """The callbacks of every phase: epochs go to MLflow."""
    from tlkit import tracking

    if trial is None:
        return [tracking.epoch_logger()]
    return [tracking.epoch_logger(f"execution{trial.execution}." if trial.execution > 1 else "", trial.after)]


@contextlib.contextmanager
def tracked(
    recipe: str,
    config: _steps.AnyConfig,
    splits: data.Splits | graph.Graph,
    trial: Trial | None = None,
    begun: Begun | None = None,
) -> Iterator[tracking.Run]:
    """Track the block as an MLflow run that begins with its config, split manifest and environment.

    A trial joins the run that is active, and adds no more than its config and what differs between trials.

    Args:
        recipe: Its name.
        config: Its settings, complete.
        splits: What it learns from.
        trial: Where the run is one of a search.
        begun: Where the run can be gone on with after an interruption: what `resumed` gave.
    """
    from tlkit import tracking
    from tlkit.training import checkpoints

    described = {**tags(recipe, network(config)), **data_tags(splits)}
    if trial:
        with tracking.run(config.experiment, params=trial.params, tags=described) as started:
            if trial.execution == 1:
                text = as_yaml(config)
                (trial.folder / "config.yaml").write_text(text, encoding="utf-8")
                tracking.log_text(text, "config.yaml")
            yield started
        return
    kept, lock = (begun.kept, begun.lock) if begun else (None, None)
    try:
        if kept:
            with tracking.run(config.experiment, params={}, tags=described, run_id=kept.run_id) as started:
                tracking.log_nothing_twice()
                with _told_how_to_go_on(recipe, kept):
                    yield started
        else:
            with tracking.run(
                config.experiment, run_name=config.run_name, params=params(config), tags=described
            ) as started:
                log_config(config)
                log_data(config.data, splits)
                if begun is None:
                    yield started
                    return
                plain = dataclasses.asdict(config)
                told = {"recipe": recipe, "asked": begun.asked, "config": plain, "digest": splits.digest}
                kept = checkpoints.begun(started.run_id, **told)
                lock = checkpoints.hold(kept)
                with _told_how_to_go_on(recipe, kept):
                    yield started
        checkpoints.finished(kept)
    finally:
        if lock:
            lock.release()


class Begun(NamedTuple):
    """A run that can be gone on with after an interruption.

    Args:
        asked: Its settings as the user gave them.
        kept: Where it was interrupted before: what there is of it.
        lock: Of its folder, held.
    """

    asked: dict[str, Any]
    kept: checkpoints.Begun | None = None
    lock: Any = None

    def check(self, splits: data.Splits) -> None:
        """Refuse data that are not those of the interrupted run."""
        if self.kept and self.kept.told["digest"] != splits.digest:
            raise InvalidInput(
                f"the data are not those that run {self.kept.run_id} was begun with: put them back, give the place of "
                "those with --data.path, or begin a new run without --resume"
            )


def resumed(recipe: str, config: AnyTraining) -> tuple[AnyTraining, Begun]:
    """Find the run that is to be gone on with, and take its settings; else the config is left as it is.

    Its data may have moved: another `data.path` is taken, as `Begun.check` compares what is there.

    Raises:
        InvalidInput: there is no such run, or it was begun with other settings.
    """
    from tlkit import cli
    from tlkit.training import checkpoints

    asked = {**dataclasses.asdict(config), "resume": None}
    if config.resume is None:
        return config, Begun(asked)
    import mlflow

    if mlflow.active_run():
        raise InvalidInput(f"resume is {config.resume!r}, but an MLflow run is active: end it, or leave resume out")
    runs = [run for run in checkpoints.unfinished() if run.told["recipe"] == recipe]
    if config.resume == "auto":
        alike = (run for run in runs if _is_same(asked, run) and _name(run))
        held = ((run, checkpoints.hold(run)) for run in alike)
        kept, lock = next(((run, lock) for run, lock in held if lock), (None, None))
        if kept is None:
            others = [f"run {run.run_id} has another {name}" for run in runs for name in _differing(asked, run)[:1]]
            said = f" ({others[0]})" if others else ""
            say(f"no interrupted run of this command in this folder{said}: a new one begins")
            return config, Begun(asked)
    else:
        kept = _named_run(config.resume, runs, recipe)
        plain = _flat({**dataclasses.asdict(type(config)()), "resume": None})
        flat = _flat(asked)
        # What is as by default was not given: it need not be what the run was begun with.
        differ = [name for name in _differing(asked, kept) if name not in MOVED and flat[name] != plain.get(name)]
        if differ:
            raise InvalidInput(
                f"{differ[0]} is {flat[differ[0]]!r}, but run {config.resume} was begun with "
                f"{_flat(kept.told['asked']).get(differ[0])!r}: leave settings out to go on with its own, or begin a "
                "new run without resume"
            )
        lock = checkpoints.hold(kept)
        if lock is None:
            raise InvalidInput(f"run {kept.run_id} is being trained by another process: wait for it, or stop it")
    say(f"going on with run {kept.run_id}")
    return _moved(cli.from_settings(type(config), kept.told["config"]), config), Begun(kept.told["asked"], kept, lock)


MOVED = ("data.path", "data.data_dir")
"""Settings that say no more than where the data are."""


def _is_same(asked: dict[str, Any], run: checkpoints.Begun) -> bool:
    """Whether a run was begun with these settings; its data may have moved, where they no longer are where they were.

    What lies at the old place and at another one are other data, until `Begun.check` has seen both.
    """
    differ = _differing(asked, run)
    before = _flat(run.told["config"])
    return all(name in MOVED and before.get(name) and not os.path.exists(before[name]) for name in differ)


def _moved(begun: AnyTraining, asked: AnyTraining) -> AnyTraining:
    """The settings of an interrupted run, with its data where they are now.

    Raises:
        InvalidInput: they are not where they were, and no other place is given.
    """
    for name in ("path", "data_dir"):
        before, now = getattr(begun.data, name), getattr(asked.data, name)
        if now:
            begun = dataclasses.replace(begun, data=dataclasses.replace(begun.data, **{name: os.path.abspath(now)}))
        elif before and not os.path.exists(before):
            raise InvalidInput(
                f"data.{name} was {before!r} when the run was begun, and there is nothing now: say where the data are "
                f"with --data.{name}"
            )
    return begun


def _differing(asked: dict[str, Any], run: checkpoints.Begun) -> list[str]:
    """The settings that are not what a run was begun with."""
    begun = _flat(run.told["asked"])
    return [name for name, value in _flat(asked).items() if value != begun.get(name)]


def _name(run: checkpoints.Begun) -> str | None:
    """The name of a run that can be gone on with; None, and said so, where MLflow does not have it any more."""
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


def _named_run(name: str, runs: list[checkpoints.Begun], recipe: str) -> checkpoints.Begun:
    names = {run.run_id: _name(run) for run in runs}
    runs = [run for run in runs if names[run.run_id]]
    for run in runs:
        if name in (run.run_id, names[run.run_id]):
            return run
    there = ", ".join(run.run_id for run in runs[:3]) or "none"
    raise InvalidInput(
        f"resume is {name!r}; no such run of {recipe} was interrupted in this folder. Those that were: {there}"
    )


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, dict) and name != "learning_rates"
        found |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found


@contextlib.contextmanager
def _told_how_to_go_on(recipe: str, kept: checkpoints.Begun) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if any(kept.folder.glob("*.npz")):
            how = f"{_links.recipe(recipe)} --resume {kept.run_id}"
            say(f"\nto go on from the last checkpoint: {how}", error=True)
        elif not isinstance(error, KeyboardInterrupt):
            from tlkit.training import checkpoints

            checkpoints.finished(kept)
        raise


def keeping(started: tracking.Run, phase: str, trial: Trial | None = None) -> training.Keeping | None:
    """Say where a phase's state is kept: of a run on the way too, of a trial where it may go on later."""
    from tlkit import training
    from tlkit.training import checkpoints

    if trial:
        return training.Keeping(trial.checkpoint) if trial.checkpoint else None
    return training.Keeping(checkpoints.FOLDER / started.run_id / f"{phase}.npz", on_the_way=True)


def data_tags(splits: data.Splits | graph.Graph) -> dict[str, str]:
    """Give the tags by which runs on the same data are found."""
    return {"kind": splits.kind, "dataset_digest": splits.digest}


def log_data(config: configs.Data | configs.Graph, splits: data.Splits | graph.Graph) -> None:
    """Log which example was in which split."""
    from tlkit import tracking

    tracking.log_inputs(datasets(config, splits))
    with tracking.artifact("split_manifest.csv") as manifest:
        splits.write_manifest(manifest)


def datasets(config: configs.Data | configs.Graph, splits: data.Splits | graph.Graph) -> list[dict[str, str]]:
    """Describe each split as MLflow describes data sets; its digest is of the manifest, so that no photo is read."""
    origin, name = config.origin if isinstance(config, configs.Data) else "npz", dataset_name(config)
    source = {"uri": shown(config.path)} if config.path else {"name": name}
    columns = [{"type": "binary", "name": splits.modality.singular}, {"type": "string", "name": "label"}]
    contexts = {"train": "training", "val": "validation", "test": "test"}
    return [
        {
            "context": contexts[split],
            "name": name,
            "digest": digest[:16],
            "source_type": origin,
            "source": json.dumps(source),
            "schema": json.dumps({"mlflow_colspec": columns}),
            "profile": json.dumps({"num_rows": count, "num_classes": len(splits.classes)}),
        }
        for split, (count, digest) in splits.parts.items()
    ]


def dataset_name(config: configs.Data | configs.Graph) -> str:
    """Name the data for a person.

    >>> dataset_name(configs.Data(path="/home/ada/flowers"))
    'flowers'
    """
    return shown((config.name if isinstance(config, configs.Data) else None) or Path(config.path or "digits").stem)


def params(config: _steps.AnyConfig) -> dict[str, Any]:
    """Give the settings that are a run's parameters: all but where it is kept and what it is called."""
    names = ("experiment", "run_name", "register", "resume")
    return {name: value for name, value in configs.flatten(config).items() if name not in names}


def log_config(config: _steps.AnyConfig) -> None:
    """Log the config as the file from which the run can be repeated."""
    from tlkit import tracking

    tracking.log_text(as_yaml(config), "config.yaml")


def as_yaml(settings: _steps.AnyConfig | dict[str, Any]) -> str:
    """Write a config, or some of its settings, as a file that `--config` takes.

    A path that is not UTF-8 has its bytes as escapes, as YAML cannot hold it; `_steps.located` finds it.
    """

    def storable(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: storable(inner) for key, inner in value.items()}
        return re.sub("[\udc80-\udcff]", lambda byte: shown(byte[0]), value) if isinstance(value, str) else value

    plain = settings if isinstance(settings, dict) else dataclasses.asdict(settings)
    return untrusted.dump_yaml(storable(plain))


def network(config: _steps.AnyConfig) -> str:
    """Name the network of a config."""
    if isinstance(config, configs.FeatureExtraction | configs.Finetune):
        return config.backbone.name
    return config.builder.name if isinstance(config, configs.Train) else "gcn"


def tags(recipe: str, backbone: str) -> dict[str, str]:
    """Give the tags by which `mlflow.search_runs` finds a run, and what its result depends on beside the config."""
    from tlkit import runtime

    return {
        "recipe": recipe,
        "backbone": backbone,
        **{f"environment.{name}": value for name, value in runtime.environment().items()},
    }
