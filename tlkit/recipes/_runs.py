"""A job's run in MLflow: what it begins with, what it says of itself, and how it is resumed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit import config as configs
from tlkit import untrusted
from tlkit.display import cut, shown
from tlkit.recipes import _hosts, _inspection, _networks, _parents, _resume

if TYPE_CHECKING:
    import filelock

    from tlkit import data, tracking, training
    from tlkit.data import graph
    from tlkit.recipes._jobs import AnyConfig, Job, Trial
    from tlkit.training import checkpoints

DECISIONS = "decisions.json"
LONGEST = 60  # letters of the data's name in that of a run
COMPARED = (
    "backbone.name", "backbone.alpha", "backbone.weights", "backbone.pooled_stages", "builder.name", "data.image_size",
    "data.resize", "head.solved", "head.epochs", "head.learning_rate", "full.unfreeze_from", "full.epochs",
    "full.learning_rate", "batch_size", "optimizer", "seed", "minutes", "units",
)  # fmt: skip
"""Settings that are always parameters of a run; all others only where they are not the default."""
DECIDED = ("positive", "backbone.accept_license")
"""Settings that are parameters where they were decided too: the class that precision is of, the weights' licence."""

UNCOMPARED = ("experiment", "run_name", "register", "devices", "hosts", "resume", "export", "cluster", "shard")
"""Settings that say nothing of what a run learned."""


def callbacks(trial: Trial | None) -> list[Any]:
    """Give the callbacks of every phase: epochs are logged in MLflow."""
    from tlkit import tracking

    if trial is None:
        return [tracking.epoch_logger()]
    prefix = f"execution{trial.execution}." if trial.execution > 1 else ""
    return [tracking.epoch_logger(prefix, trial.logged_epochs)]


def tracked(job: Job[Any], splits: data.Splits | graph.Graph) -> contextlib.AbstractContextManager[Any]:
    """Track the block as an MLflow run that begins with its config, decisions, split manifest and environment.

    A trial joins the active run, and adds no more than its config and what differs between trials. A process that is
    not the first of several gets the folder of the first one's checkpoints instead.

    Args:
        job: The recipe, and its settings, all decided.
        splits: What it learns from.
    """
    described = {**tags(job.recipe, _networks.name(job.config)), **data_tags(splits)}
    if isinstance(job.config, configs.FeatureExtraction | configs.Finetune) and (parent := _parents.of(job.config)):
        described |= parent.tags
    if job.trial:
        return _trial(job, job.trial, described)
    if job.follows:
        return _hosts.following(job, splits)
    context = _resumed(job, job.interrupted, described) if job.interrupted else _new(job, splits, described)
    return _hosts.leading(job, splits, context) if getattr(job.config, "hosts", None) else context


@contextlib.contextmanager
def _trial(job: Job[Any], trial: Trial, described: dict[str, str]) -> Iterator[tracking.Run]:
    from tlkit import tracking

    with tracking.run(job.config.experiment, params=trial.params, tags=described) as run:
        if trial.execution == 1:
            text = as_yaml(job.config)
            (trial.folder / "config.yaml").write_text(text, encoding="utf-8")
            tracking.log_text(text, "config.yaml")
        yield run


@contextlib.contextmanager
def _resumed(job: Job[Any], interrupted: _resume.Interrupted, described: dict[str, str]) -> Iterator[tracking.Run]:
    from tlkit import tracking

    run_id = interrupted.run.run_id
    with (
        _until_finished(interrupted.run, interrupted.lock),
        tracking.run(job.config.experiment, params={}, tags=described, run_id=run_id) as run,
    ):
        tracking.log_nothing_twice()
        with _resume.advice_on_failure(job.recipe, interrupted.run):
            yield run


@contextlib.contextmanager
def _new(job: Job[Any], splits: data.Splits | graph.Graph, described: dict[str, str]) -> Iterator[tracking.Run]:
    from tlkit import tracking
    from tlkit.data import graph
    from tlkit.training import checkpoints

    config = job.config
    with (
        contextlib.ExitStack() as stack,
        tracking.run(
            config.experiment,
            run_name=config.run_name,
            params=params(config, job.asked),
            tags=described,
            title=title(job.recipe, config),
            began=time.time() - (time.perf_counter() - job.began),
        ) as run,
    ):
        log_config(config)
        log_decisions(job)
        log_data(config.data, splits)
        if not isinstance(splits, graph.Graph):
            _inspection.log(splits, dataset_name(config.data))
        if job.resumable:
            started_with = {"asked": job.asked, "config": dataclasses.asdict(config), "digest": splits.digest}
            unfinished = checkpoints.begin(run.run_id, recipe=job.recipe, **started_with)
            stack.enter_context(_until_finished(unfinished, checkpoints.hold(unfinished)))
            with _resume.advice_on_failure(job.recipe, unfinished):
                yield run
        else:
            yield run


@contextlib.contextmanager
def _until_finished(run: checkpoints.Unfinished, lock: filelock.BaseFileLock | None) -> Iterator[None]:
    """Hold a run's checkpoints during the block, and delete them after it unless it fails."""
    from tlkit.training import checkpoints

    try:
        yield
        checkpoints.finish(run)
    finally:
        if lock:
            lock.release()


def checkpointing(run: tracking.Run | Path, phase: str, trial: Trial | None = None) -> training.Checkpointing | None:
    """Say where a phase's checkpoint is written: within epochs too, but of a trial only where it may be resumed."""
    from tlkit import training
    from tlkit.training import checkpoints

    if trial:
        return training.Checkpointing(trial.checkpoint) if trial.checkpoint else None
    if isinstance(run, Path):
        return training.Checkpointing(run / f"{phase}.npz")
    return training.Checkpointing(checkpoints.FOLDER / run.run_id / f"{phase}.npz", within_epochs=True)


def data_tags(splits: data.Splits | graph.Graph) -> dict[str, str]:
    """Give the tags by which runs on the same data are found."""
    return {"kind": splits.kind, "dataset_digest": splits.digest}


def log_data(config: configs.Data | configs.Graph, splits: data.Splits | graph.Graph) -> None:
    """Log which example was in which split, and which ones were set aside."""
    from tlkit import tracking

    tracking.log_inputs(datasets(config, splits))
    if set_aside := getattr(splits, "set_aside", None):
        tracking.log_text("\n".join(set_aside) + "\n", "set_aside.txt")
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


def title(recipe: str, config: AnyConfig, network: str | None = None) -> str:
    """Say what a run is, as its name does in front of its number: the command, the network and the data.

    Args:
        recipe: Name of the command.
        config: Its settings.
        network: What stands for the network; by default its name.

    >>> title("finetune", configs.Finetune(backbone=configs.Backbone("MobileNet", alpha=0.75)))
    'finetune MobileNet 0.75 digits'
    """
    network = _networks.titled(config) if network is None else network
    return " ".join(filter(None, (recipe, network, cut(dataset_name(config.data), LONGEST))))


def params(config: AnyConfig, asked: dict[str, Any] | None = None) -> dict[str, Any]:
    """Give the settings that are a run's parameters: what runs are compared by, and what is not the default.

    `config.yaml` has all of them. What a run is called and where it is logged is no setting of it.

    Args:
        config: The settings, with what was decided.
        asked: The settings as the user gave them, nested: what was decided in place of a default is no parameter.

    >>> params(configs.FeatureExtraction(positive="dog"))["positive"], "precision" in params(configs.Finetune())
    ('dog', False)
    """
    values, defaults = configs.flatten(config), configs.defaults(config)
    given = _resume.flat(asked) if asked is not None else values
    return {
        name: value
        for name, value in values.items()
        if name not in UNCOMPARED
        and (
            name in COMPARED or given.get(name, value) != defaults.get(name) or (name in DECIDED and value is not None)
        )
    }


def log_config(config: AnyConfig) -> None:
    """Log the config as the file with which the run can be repeated."""
    from tlkit import tracking

    tracking.log_text(as_yaml(config), "config.yaml")


def log_decisions(job: Job[Any]) -> None:
    """Log what was decided beside what was asked, with the reasons."""
    from tlkit import tracking

    decided = configs.flatten(job.config)
    asked = _resume.flat(job.asked)
    rows = [
        {"setting": name, "asked": asked.get(name), "decided": value, "reason": job.reasons.get(name, "")}
        for name, value in decided.items()
        if name in asked and asked[name] != value
    ]
    tracking.log_text(json.dumps(rows, indent=1, default=str), DECISIONS)


def as_yaml(settings: AnyConfig | dict[str, Any]) -> str:
    """Write a config, or some of its settings, as a file that `--config` takes.

    A path that is not UTF-8 has its bytes as escapes, as YAML cannot hold it; `_decisions.located` finds it.
    """

    def storable(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: storable(inner) for key, inner in value.items()}
        return re.sub("[\udc80-\udcff]", lambda byte: shown(byte[0]), value) if isinstance(value, str) else value

    plain = settings if isinstance(settings, dict) else dataclasses.asdict(settings)
    return untrusted.dump_yaml(storable(plain))


def tags(recipe: str, backbone: str) -> dict[str, str]:
    """Give the tags by which `mlflow.search_runs` finds a run, and what its result depends on beside the config."""
    from tlkit import runtime

    return {
        "recipe": recipe,
        "backbone": backbone,
        **{f"environment.{name}": value for name, value in runtime.environment().items()},
    }
