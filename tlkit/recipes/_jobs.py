"""A job: one run of a recipe, with what was asked of it, what has been decided since, and where it is logged."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from tlkit import config as configs
from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.recipes import _decisions, _resume, _run_exports, _runs, _training_decisions
from tlkit.recipes._decisions import Decision
from tlkit.startup import start_keras

if TYPE_CHECKING:
    import keras

    from tlkit import data, tracking, training
    from tlkit.data import graph

AnyConfig = configs.Recipe | configs.TrainGraph
Config = TypeVar("Config", bound=AnyConfig)


class Trial(NamedTuple):
    """What makes a recipe's run one trial of a search: the test photos stay unseen, and the model is not logged.

    Args:
        params: The settings that differ between trials, by their names in MLflow.
        folder: Folder for the trial's config and, if it may be resumed later, its checkpoint.
        execution: Number of this run among several with other seeds, from 1.
        until: Number of epochs of phase full after which it stops for now; None for all.
        max_parameters: Maximum number of parameters of the network; None for any.
        max_multiply_adds: Maximum number of multiply-adds for one photo; None for any.
        logged_epochs: Number of epochs that MLflow has already.
        runs: Number of runs that use the same frozen part of the network, so that storing its activations pays.
    """

    params: dict[str, Any]
    folder: Path
    execution: int = 1
    until: int | None = None
    max_parameters: int | None = None
    max_multiply_adds: int | None = None
    logged_epochs: int = 0
    runs: float = 1.0

    @property
    def checkpoint(self) -> Path | None:
        """File of its checkpoint; None if it is never resumed."""
        return self.folder / "checkpoint.npz" if self.until else None

    @property
    def resumes(self) -> bool:
        """Whether it was stopped before, and continues from its checkpoint."""
        return self.checkpoint is not None and self.checkpoint.exists()


class Tried(NamedTuple):
    """What a trial leaves: the model with the weights of its best epoch, and how it came to them.

    Args:
        model: The classifier, from raw values to probabilities.
        history: What happened in each epoch.
        seconds: Time from listing the data to the end of training.
    """

    model: keras.Model
    history: training.History
    seconds: float


@dataclasses.dataclass(frozen=True)
class Job(Generic[Config]):
    """One run of a recipe.

    Args:
        recipe: Name of the recipe.
        config: The settings: as they were asked for, with what has been decided since.
        asked: The settings as the user gave them, nested; of a resumed run, as it was started. Never changed.
        trial: If the run is one of a search.
        interrupted: The interrupted run that is resumed, if there is one.
        resumable: Whether it can be resumed if it is interrupted.
        reasons: Why something was decided, by the name of the setting.
        began: When it began, as `time.perf_counter` gives it.
        timings: Seconds that parts of it took, by name.
    """

    recipe: str
    config: Config
    asked: dict[str, Any] = dataclasses.field(default_factory=dict)
    trial: Trial | None = None
    interrupted: _resume.Interrupted | None = None
    resumable: bool = False
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)
    began: float = dataclasses.field(default_factory=time.perf_counter)
    timings: dict[str, float] = dataclasses.field(default_factory=dict)

    def with_decisions(self, decisions: Sequence[Decision]) -> Job[Config]:
        """Give the job with decisions added to its settings, and print those that have a reason to print."""
        for setting, value, reason, quiet in decisions:
            if reason and not quiet:
                say(f"{setting}: {str(value).lower() if isinstance(value, bool) else value}, {reason}")
        reasons = {decision.setting: decision.reason for decision in decisions if decision.reason}
        return dataclasses.replace(
            self, config=_decisions.applied(self.config, decisions), reasons={**self.reasons, **reasons}
        )

    @contextlib.contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Measure how long a part takes."""
        began = time.perf_counter()
        yield
        self.timings[part] = time.perf_counter() - began

    @property
    def seconds(self) -> float:
        """Seconds since it began, without the import of Keras."""
        return time.perf_counter() - self.began - self.timings.get("imports", 0.0)

    def check_data(self, splits: data.Splits) -> None:
        """Refuse data that are not those of the interrupted run that is resumed."""
        if self.interrupted:
            self.interrupted.check(splits)

    @property
    def follows(self) -> bool:
        """Whether this process is not the first of several, which logs and scores."""
        if not getattr(self.config, "hosts", None):
            return False
        from tlkit.training import hosts

        return hosts.index() > 0

    @property
    def callbacks(self) -> list[Any]:
        """The callbacks of every phase: epochs are logged in MLflow."""
        return [] if self.follows else _runs.callbacks(self.trial)

    @property
    def until(self) -> int | None:
        """Number of epochs of phase full after which a trial stops for now."""
        return self.trial.until if self.trial else None

    def checkpointing(self, run: tracking.Run | Path) -> Callable[[str], training.Checkpointing | None]:
        """Give a function from the name of a phase to where its checkpoint is written."""
        return lambda phase: _runs.checkpointing(run, phase, self.trial)

    def tracked(self, splits: data.Splits | graph.Graph) -> contextlib.AbstractContextManager[Any]:
        """Track the block as an MLflow run; see `_runs.tracked`."""
        return _runs.tracked(self, splits)


def start(
    recipe: str,
    config: Config,
    trial: Trial | None = None,
    check: Callable[[Config], None] | None = None,
    resumable: bool = False,
) -> Job[Config]:
    """Import Keras, take the settings of a resumed run, fill in the rest, check, seed, and open the MLflow store.

    Args:
        recipe: Name of the recipe.
        config: The settings as the user gave them.
        trial: If the run is one of a search.
        check: Refuses settings that contradict each other.
        resumable: Whether the run can be resumed if it is interrupted.

    Raises:
        InvalidInput: a setting cannot be used, or there is no such run to resume.
    """
    _run_exports.check(config)
    began = start_keras()
    from tlkit import runtime, tracking

    imports = time.perf_counter() - began
    if where := getattr(config, "hosts", None):
        _join(where, trial)
    asked, interrupted = dataclasses.asdict(config), None
    if resumable:
        config, asked, interrupted = _resume.find(recipe, config)  # type: ignore[type-var]
    job = Job(recipe, config, asked, trial, interrupted, resumable, began=began, timings={"imports": imports})
    job = job.with_decisions(_decisions.fill_in(config))
    if check:
        check(job.config)
    if isinstance(job.config, configs.Training):
        from tlkit.training import optimizers

        optimizers.check(job.config.optimizer)
    runtime.prepare(job.config.seed, job.config.precision)
    if isinstance(job.config, configs.Training):
        job = job.with_decisions(_training_decisions.find_devices(job.config, trial is not None))
    if not job.follows:
        tracking.open_store(job.config.experiment, "run" if interrupted else "")
    return job


def _join(where: str, trial: Trial | None) -> None:
    """Join the processes on other hosts that train the same."""
    from tlkit.training import hosts

    if trial:
        raise InvalidInput("hosts is given, but a trial of a search trains in one process: leave it out")
    hosts.start(configs.parse_hosts(where))
