"""Hyperparameter search with keras-tuner: a chief that survives a kill, and workers in processes of their own.

The chief holds keras-tuner's oracle, which chooses the settings of each trial, and serves it over keras-tuner's own
gRPC service; workers ask it for trials. `HyperModel` is for a search without all that, in a Keras program of one's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import keras
import keras_tuner
import numpy as np
from keras_tuner.src import protos
from keras_tuner.src.distribute import oracle_chief
from keras_tuner.src.engine import base_tuner, conditions
from keras_tuner.src.engine import trial as kt_trial
from keras_tuner.src.engine.oracle import LOCKS, THREADS
from keras_tuner.src.errors import FailedTrialError

from tlkit import atomic, builders, untrusted
from tlkit.config import space
from tlkit.errors import Unavailable

conditions.print = lambda *_: None  # a line of debugging that keras-tuner 1.4.8 kept

RUN_ID = "tuner/run_id"  # the MLflow run of a trial; it travels with the trial's values, as keras-tuner's own do
FORMAT = 1  # of the state file
BEAT, SILENT = 5.0, 60.0  # seconds: between signs of life, and without one until a worker, or the chief, counts as lost
MORE, GONE = 75, 69  # exit status of a worker that wants a fresh process in its place; of one whose chief is gone
LIVES = 2  # times that a trial is begun before its process's death is its own fault
FAILURES = 10  # of the first trials, one after the other, that end a search
TUNER = "tuner"  # names a worker in its signs of life
CHIEF = "TLKIT_CHIEF"  # the environment's process id of what started a worker
DEFAULT = {
    "filters": {"int": [16, 128], "step": 16, "repeat": [2, 4]},
    "kernel_size": {"choice": [3, 5, 7], "repeat": "filters"},
    "norm": {"bool": True},
    "pool": {"choice": ["max", "average"]},
    "dropout": {"float": [0.0, 0.5], "step": 0.1},
    "learning_rate": {"float": [1e-4, 1e-2], "log": True},
}
"""What `HyperModel` searches by default."""


class HyperModel(keras_tuner.HyperModel):
    """A builder of `tlkit.builders` with a search space, for any tuner of keras-tuner.

    Args:
        input_shape: Of one example, (*space, channels).
        classes: Units of the head.
        builder: `cnn`, or a name of `tlkit.builders.VARIANTS`.
        settings: Arguments of the builder; any may be a range, see `tlkit.config.space`. `learning_rate` is that of
            Adam. By default `DEFAULT` for `cnn`, else the learning rate alone.

    Raises:
        InvalidInput: the settings have a range that is none.

    >>> model = HyperModel((8, 8, 1), 10, settings={"filters": {"int": [4, 8], "repeat": 2}, "norm": {"bool": True}})
    >>> values = keras_tuner.HyperParameters()
    >>> model.build(values).output.shape, sorted(values.values)
    ((None, 10), ['filters.1', 'filters.2', 'norm'])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        builder: str = "cnn",
        settings: Mapping[str, Any] | None = None,
    ):
        super().__init__(name=builder)
        default = DEFAULT if builder == "cnn" else {"learning_rate": DEFAULT["learning_rate"]}
        self.input_shape, self.classes, self.builder = tuple(input_shape), classes, builder
        self.space = space.parse(default if settings is None else settings)

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Build and compile the network that the values stand for."""
        settings = self.space.settings(register(self.space, hp).values)
        rate = settings.pop("learning_rate", 1e-3)
        given = {**settings, "classes": self.classes}
        if self.builder == "cnn":
            model = builders.cnn(self.input_shape, **{"padding": "same", "dense": (), **given})
        else:
            model = builders.build(self.builder, self.input_shape, **given)
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model


def register(found: space.Space, hp: keras_tuner.HyperParameters | None = None) -> keras_tuner.HyperParameters:
    """Tell keras-tuner of a space's ranges, and of the conditions under which each counts."""
    hp = hp or keras_tuner.HyperParameters()
    for one in found.ranges:
        with contextlib.ExitStack() as scopes:
            for parent, values in one.when:
                scopes.enter_context(hp.conditional_scope(parent, list(values)))
            if one.kind == "choice":
                options = list(one.options())
                if options == [False, True] and isinstance(options[0], bool):
                    hp.Boolean(one.name, default=bool(one.default))  # a choice would make numbers of them
                else:
                    hp.Choice(one.name, options, default=options[0])
            elif one.kind == "float" and one.step:  # whose steps keras-tuner counts by rounding down: 5 of 0.1 in 0.5
                count = round((one.high - one.low) / one.step)
                hp.Choice(one.name, [round(one.low + one.step * n, 12) for n in range(count + 1)])
            else:
                number = hp.Int if one.kind == "int" else hp.Float
                number(one.name, one.low, one.high, step=one.step, sampling="log" if one.log else "linear")
    return hp


class _Kept:
    """What every oracle here has: its whole state in one file that is never half written, and trials given back.

    keras-tuner writes a file for the oracle and one for each trial, in place: a kill between or within them leaves
    states that contradict each other.
    """

    file: Path
    extra: dict[str, Any]  # beside the oracle's state in the file
    begin: Callable[[Any], str]  # gives a trial its MLflow run
    stopped = False  # whether there are no more new trials
    failure: Exception | None = None

    trials: dict[str, Any]  # keras-tuner's, as those below
    ongoing_trials: dict[str, Any]
    tuner_ids: set[str]
    end_order: list[str]
    _retry_queue: list[str]
    _run_times: dict[str, int]
    _seed_state: int

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Any:
        trial = super().create_trial(tuner_id)  # type: ignore[misc]
        if trial.status == "STOPPED":
            self.stopped = True
            if self.ongoing_trials:  # one of which may be given back: this worker waits for it
                trial.status = "IDLE"
                self.tuner_ids.add(tuner_id)
        elif trial.status == "RUNNING":
            trial.hyperparameters.values[RUN_ID] = self.begin(trial)
        return trial

    @keras_tuner.synchronized
    def end_trial(self, trial: Any) -> None:
        if trial.trial_id not in self.end_order:  # else a worker that was thought lost is late: another one was faster
            self._retry_queue = [waiting for waiting in self._retry_queue if waiting != trial.trial_id]
            super().end_trial(trial)  # type: ignore[misc]
        self.ongoing_trials = {name: one for name, one in self.ongoing_trials.items() if one.trial_id != trial.trial_id}
        self.save()  # keras-tuner saves before it takes the trial from those that are running

    @keras_tuner.synchronized
    def give_back(self, tuner_id: str, reason: str) -> None:
        """Take the trial away from a worker that is gone, for another one; or end it, if it is not the first one."""
        trial = self.ongoing_trials.pop(tuner_id, None)
        self.tuner_ids.discard(tuner_id)
        if trial is None:
            return
        self._run_times[trial.trial_id] += 1
        if self._run_times[trial.trial_id] < LIVES:
            self._retry_queue.append(trial.trial_id)
        else:
            trial.status, trial.message = "FAILED", reason
            self.end_order.append(trial.trial_id)
        self.save()

    def _compute_values_hash(self, values: dict[str, Any]) -> Any:
        named = {name: value for name, value in values.items() if name != RUN_ID}
        return super()._compute_values_hash(named)  # type: ignore[misc]

    def _save_trial(self, trial: Any) -> None:
        pass  # `save` writes all

    def save(self) -> None:
        trials = [trial.get_state() for trial in list(self.trials.values())]
        state = {"format": FORMAT, **self.extra, "oracle": self.get_state(), "trials": trials}  # type: ignore[attr-defined]
        write(self.file, json.dumps(state))

    def reload(self) -> None:
        state = untrusted.read_json(self.file)
        trials = [kt_trial.Trial.from_state(one) for one in state["trials"]]
        self.trials = {untrusted.identifier(trial.trial_id, "a trial of search.json"): trial for trial in trials}
        self.set_state(state["oracle"])  # type: ignore[attr-defined]
        running = [trial.trial_id for trial in self.ongoing_trials.values()]
        self._retry_queue = [name for name in [*running, *self._retry_queue] if name not in self.end_order]
        self.ongoing_trials = {}


class _Grid(_Kept, keras_tuner.oracles.GridSearchOracle):
    """Keeps also where in the grid the search is, which keras-tuner forgets."""

    def get_state(self) -> dict[str, Any]:
        ordered = self._ordered_ids
        ids = ordered._memory[:1]
        while ids and (following := ordered.next(ids[-1])) is not None:
            ids.append(following)
        return {**super().get_state(), "ordered_ids": ids}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        for trial_id in state["ordered_ids"]:
            self._ordered_ids.insert(trial_id)
        self._populate_next = list(self.start_order)  # those whose next combination was tried are skipped

    def give_back(self, tuner_id: str, reason: str) -> None:
        super().give_back(tuner_id, reason)
        self._populate_next = list(self.start_order)  # else the grid would end at a trial that has failed so


class _Bayesian(_Kept, keras_tuner.oracles.BayesianOptimizationOracle):
    """Draws from a generator that follows from the state, and never the same point again after a failure."""

    def populate_space(self, trial_id: str) -> Any:
        self._random_state = np.random.RandomState((self._seed_state + len(self.trials)) % 2**32)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")  # of a fit that found no optimum
            found = super().populate_space(trial_id)
        if found["status"] == "RUNNING" and self._duplicate(found["values"]):
            return self._random_populate_space()
        return found


class _Hyperband(_Kept, keras_tuner.oracles.HyperbandOracle):
    """Replaces trials that fail in a first round, of which keras-tuner would let none go on if a third of them fail."""

    def populate_space(self, trial_id: str) -> Any:
        for bracket in self._brackets:
            first = bracket["rounds"][0]
            failed = [one for one in first if self.trials[one["id"]].status == "FAILED"]
            replaced = bracket.setdefault("replaced", 0)
            if failed and replaced + len(failed) <= self._get_size(bracket["bracket_num"], 0):
                bracket["replaced"] = replaced + len(failed)
                bracket["rounds"][0] = [one for one in first if one not in failed]
        return super().populate_space(trial_id)


_ORACLES: dict[str, Any] = {
    "random": type("_Random", (_Kept, keras_tuner.oracles.RandomSearchOracle), {}),
    "grid": _Grid,
    "bayesian": _Bayesian,
    "hyperband": _Hyperband,
}


def oracle(
    algorithm: str,
    found: space.Space,
    metric: str,
    file: Path,
    *,
    trials: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    extra: Mapping[str, Any] | None = None,
) -> Any:
    """Make the oracle of a search; it goes on where the file says that it was.

    Args:
        algorithm: `random`, `grid`, `bayesian` or `hyperband`.
        found: What is searched.
        metric: `loss`, `accuracy` or one of these with `val_` in front.
        file: For its state.
        trials: Most of them.
        epochs: Of `hyperband`: what the best trials train.
        seed: The same one gives the same sequence of trials.
        extra: What else is kept in the file.
    """
    given: dict[str, Any] = {"max_epochs": epochs} if algorithm == "hyperband" else {"max_trials": trials}
    if algorithm == "bayesian" and trials:
        given["num_initial_points"] = max(3, trials // 4)  # keras-tuner's 3 times the ranges are often all trials
    made = _ORACLES[algorithm](
        objective=objective(metric),
        hyperparameters=register(found),
        seed=seed + 1,  # 0 would be drawn at random
        max_consecutive_failed_trials=2**31,  # reaching it would leave keras-tuner's lock held; the chief counts
        **given,
    )
    made.max_trials = trials
    made.verbose = 0
    made.file, made.extra = file, dict(extra or {})
    if file.exists():
        made.reload()
        made.stopped = trials is not None and len(made.end_order) >= trials  # no worker has to ask
    else:
        made.save()
    return made


def objective(name: str) -> keras_tuner.Objective:
    """Give a metric of Keras its direction: accuracies are maximized, losses are not."""
    return keras_tuner.Objective(name, "max" if name.endswith("accuracy") else "min")


def write(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with atomic.writing(file) as out:
        out.write(text.encode())


class _Servicer(oracle_chief.OracleServicer):
    """Notes when each trial's worker was heard, and survives what goes wrong in a call."""

    def __init__(self, oracle: Any):
        super().__init__(oracle)
        self.heard: dict[str, float] = {}

    def CreateTrial(self, request: Any, context: Any) -> Any:
        given = self._guarded(super().CreateTrial, request, context)
        self.heard[given.trial.trial_id] = time.monotonic()
        return given

    def GetTrial(self, request: Any, context: Any) -> Any:
        self._known(request.trial_id, context)
        name = dict(context.invocation_metadata()).get(TUNER)
        trial = self.oracle.ongoing_trials.get(name)
        if name and (trial is None or trial.trial_id != request.trial_id):
            context.abort(grpc.StatusCode.ABORTED, "this trial was given to another worker")
        self.heard[request.trial_id] = time.monotonic()
        return super().GetTrial(request, context)

    def UpdateTrial(self, request: Any, context: Any) -> Any:
        self._known(request.trial_id, context)
        return self._guarded(super().UpdateTrial, request, context)

    def EndTrial(self, request: Any, context: Any) -> Any:
        self._known(request.trial.trial_id, context)
        return self._guarded(super().EndTrial, request, context)

    def _known(self, trial_id: str, context: Any) -> None:
        if trial_id not in self.oracle.trials:
            context.abort(grpc.StatusCode.NOT_FOUND, "this search has no such trial")

    def _guarded(self, call: Callable[[Any, Any], Any], request: Any, context: Any) -> Any:
        try:
            return call(request, context)
        except Exception as error:
            self.oracle.failure = error  # the chief raises it
            if THREADS[self.oracle] == threading.current_thread().name:  # keras-tuner does not release it then
                THREADS[self.oracle] = None
                LOCKS[self.oracle].release()
            context.abort(grpc.StatusCode.INTERNAL, "the chief ends")


@contextlib.contextmanager
def served(oracle: Any, host: str = "127.0.0.1", port: int = 0) -> Iterator[tuple[int, dict[str, float]]]:
    """Serve the oracle to workers; anyone who reaches the port can take trials and report results.

    Returns:
        The port, a free one where it was 0; and when each trial's worker was heard last, by the monotonic clock.

    Raises:
        Unavailable: the port is taken.
    """
    # One thread: keras-tuner's lock knows its holder by the thread's name.
    server = grpc.server(futures.ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
    servicer = _Servicer(oracle)
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    try:
        port = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError as error:
        raise Unavailable(f"cannot listen on {host}:{port}: the port is taken, or the address is not ours") from error
    server.start()
    try:
        yield port, servicer.heard
    finally:
        server.stop(grace=1.0).wait()


class Process(NamedTuple):
    """A worker's process on this machine, and where it writes."""

    running: subprocess.Popen[bytes]
    log: Path


def supervise(
    oracle: Any,
    heard: dict[str, float],
    start: Callable[[str], Process],
    workers: int,
    each: Callable[[Any, int], None],
    silent: float = SILENT,
) -> None:
    """Run the search: keep workers at work, give back the trials of those that die, until all trials have ended.

    Args:
        oracle: Of `oracle`.
        heard: Of `served`.
        start: Starts a worker of this name.
        workers: On this machine; 0 where all are elsewhere.
        each: Called with each trial that has ended, and with how many have.
        silent: Seconds without a sign of life after which a worker elsewhere counts as lost.

    Raises:
        Unavailable: workers die before they do anything, or trial after trial fails.
    """
    processes: dict[str, Process] = {}
    told, started, deaths = len(oracle.end_order), 0, 0
    before = told
    try:
        while True:
            for name, process in list(processes.items()):
                status = process.running.poll()
                if status is None:
                    continue
                del processes[name]
                oracle.tuner_ids.discard(name)
                if status in (0, MORE):
                    deaths = 0
                else:
                    deaths = deaths + 1 if name not in oracle.ongoing_trials else 0
                    oracle.give_back(name, _died(status))
                    if deaths >= 3:
                        raise Unavailable(f"workers die at once ({_died(status)}): see {process.log}")
            now = time.monotonic()
            for name, trial in list(oracle.ongoing_trials.items()):
                if name not in processes and now - heard.get(trial.trial_id, now) > silent:
                    heard.pop(trial.trial_id)
                    oracle.give_back(name, f"nothing was heard of its worker for {silent:.0f} s")
            if oracle.failure:
                raise oracle.failure
            wanted = bool(oracle._retry_queue) or not oracle.stopped
            done = not wanted and not oracle.ongoing_trials and not processes  # before the last ones are told
            for trial_id in oracle.end_order[told:]:
                told += 1
                each(oracle.trials[trial_id], told)
            _check_failures([oracle.trials[trial_id] for trial_id in oracle.end_order[before:told]])
            if done:
                break
            while wanted and len(processes) < workers:
                name = f"worker{started}-{secrets.token_hex(4)}"  # no other chief's, and no other life's of this one
                started += 1
                processes[name] = start(name)
            time.sleep(0.1)
        end = time.monotonic() + BEAT
        while oracle.tuner_ids and time.monotonic() < end:  # workers elsewhere, which ask once more and are told
            time.sleep(0.1)
    finally:
        stop(list(processes.values()))


def stop(processes: Sequence[Process], seconds: float = 5.0) -> None:
    """End processes, kindly at first and by force after so many seconds."""
    for process in processes:
        process.running.terminate()
    end = time.monotonic() + seconds
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.running.wait(max(0.1, end - time.monotonic()))
        process.running.kill()
        process.running.wait()


def _died(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-status).name
            return f"its process was killed ({name})" + (", often for want of memory" if name == "SIGKILL" else "")
    return f"its process ended with status {status}"


def _check_failures(trials: Sequence[Any]) -> None:
    first = trials[:FAILURES]
    if len(first) == FAILURES and all(trial.status == "FAILED" for trial in first):
        raise Unavailable(
            f"{FAILURES} trials failed, one after the other and none before them; the last one because "
            f"{first[-1].message}"
        )


class _Enough(Exception):
    """A worker has run as many trials as one process should."""


class Worker(base_tuner.BaseTuner):
    """Asks the chief for trials and runs them; keras-tuner's variables in the environment say where the chief is.

    Args:
        run: Runs a trial and gives the objective's value, by its name; an exception is the trial's failure.
        failed: Is told of a failure, because keras-tuner does not tell the chief.
        metric: As in `oracle`.
        most: Trials in this process.
        folder: For the trials.
    """

    def __init__(
        self,
        run: Callable[[Any, Any], dict[str, float]],
        failed: Callable[[Any, Exception], None],
        metric: str,
        most: int,
        folder: Path,
    ):
        kept = keras_tuner.Oracle(objective=objective(metric))
        super().__init__(kept, directory=str(folder.parent), project_name=folder.name)
        self.run, self.failed, self.trials_left = run, failed, most
        self.trial_id: str | None = None  # of the one that runs

    def work(self) -> int:
        """Run trials until there are none, or enough; gives the exit status that says which."""
        parent = int(os.environ.get(CHIEF, os.getppid()))
        over = threading.Event()
        threading.Thread(target=self._live, args=(parent, over), daemon=True).start()
        try:
            self.search()
        except _Enough:
            return MORE
        except grpc.RpcError:
            return GONE
        finally:
            over.set()
        return 0

    def pre_create_trial(self) -> None:
        """Stop when there were enough."""
        if self.trials_left <= 0:
            raise _Enough
        time.sleep(0.1)  # else a chief that has no trial yet is asked as fast as it can answer

    def run_trial(self, trial: Any, *_: Any, **__: Any) -> dict[str, float]:
        """Run one trial."""
        # It becomes a folder's name, and whoever answers at the chief's port says it.
        self.trial_id = untrusted.identifier(trial.trial_id, "the chief's trial")
        self.trials_left -= 1
        try:
            return self.run(trial, self.oracle)
        except Exception as error:
            self.trials_left = 0  # what is left of it in memory should not be the next one's trouble
            self.failed(trial, error)
            raise FailedTrialError(str(error)) from error
        finally:
            self.trial_id = None

    def save(self) -> None:
        """Keep nothing: the chief does."""

    def _live(self, parent: int, over: threading.Event) -> None:
        """Give signs of life; end the process where the chief, or on this machine its process, is gone."""
        heard = time.monotonic()
        service = protos.get_service()
        while not over.is_set():
            end = time.monotonic() + BEAT
            while time.monotonic() < end and not over.wait(0.5):
                if os.getppid() != parent:
                    os._exit(GONE)
            present = self.trial_id
            try:
                if present:
                    request = service.GetTrialRequest(trial_id=present)
                    self.oracle.stub.GetTrial(request, timeout=BEAT, metadata=((TUNER, self.tuner_id),))
                else:
                    self.oracle.stub.GetSpace(service.GetSpaceRequest(), timeout=BEAT)
                heard = time.monotonic()
            except grpc.RpcError as error:
                lost = error.code() in (grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND)
                if not over.is_set() and present == self.trial_id and (lost or time.monotonic() - heard > SILENT):
                    os._exit(GONE)


def best_first(oracle: Any) -> list[Any]:
    """The trials that have a score, the best first; of equal ones the earlier."""
    done = [trial for trial in list(oracle.trials.values()) if trial.status == "COMPLETED"]
    sign = -1 if oracle.objective.direction == "max" else 1
    return sorted(done, key=lambda trial: (sign * trial.score, trial.trial_id))
