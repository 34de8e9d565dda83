"""A worker of a search: asks the chief for trials and runs them, in a process of its own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import keras_tuner
from keras_tuner.src import protos
from keras_tuner.src.engine import base_tuner
from keras_tuner.src.engine.trial import Trial
from keras_tuner.src.errors import FailedTrialError

from tlkit import untrusted
from tlkit.tuning.oracles import objective
from tlkit.tuning.protocol import BEAT, CHIEF, GONE, MORE, SILENCE, TUNER


class _Enough(Exception):
    """A worker has run as many trials as one process should."""


class Worker(base_tuner.BaseTuner):
    """Asks the chief for trials and runs them; keras-tuner's environment variables say where the chief is.

    Args:
        run: Runs a trial and returns the objective's value, by its name; an exception fails the trial.
        failed: Called with a failure, because keras-tuner does not report its reason to the chief.
        metric: As in `oracle`.
        most: Maximum number of trials in this process.
        folder: Folder of the trials.
    """

    def __init__(
        self,
        run: Callable[[Trial, keras_tuner.Oracle], dict[str, float]],
        failed: Callable[[Trial, Exception], None],
        metric: str,
        most: int,
        folder: Path,
    ):
        oracle = keras_tuner.Oracle(objective=objective(metric))
        super().__init__(oracle, directory=str(folder.parent), project_name=folder.name)
        self.run, self.failed, self.trials_left = run, failed, most
        self.trial_id: str | None = None  # of the trial that is running

    def work(self) -> int:
        """Run trials until there are none, or enough; the exit status that is returned says which."""
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
        """Stop after the maximum number of trials."""
        if self.trials_left <= 0:
            raise _Enough
        time.sleep(0.1)  # else a chief that has no trial yet is asked as fast as it can answer

    def run_trial(self, trial: Trial, *_: object, **__: object) -> dict[str, float]:
        """Run one trial."""
        # The id becomes a folder's name, and comes from whoever answers at the chief's port.
        self.trial_id = untrusted.identifier(trial.trial_id, "the chief's trial")
        self.trials_left -= 1
        try:
            return self.run(trial, self.oracle)
        except Exception as error:
            self.trials_left = 0  # the next trial starts in a fresh process, without this one's leftovers in memory
            self.failed(trial, error)
            raise FailedTrialError(str(error)) from error
        finally:
            self.trial_id = None

    def save(self) -> None:
        """Store nothing: the chief does."""

    def _live(self, parent: int, over: threading.Event) -> None:
        """Give signs of life; end this process where the chief, or its process on this machine, is gone."""
        last_answer = time.monotonic()
        while not over.is_set():
            self._wait_for_beat(parent, over)
            trial_id = self.trial_id
            try:
                self._beat(trial_id)
                last_answer = time.monotonic()
            except grpc.RpcError as error:
                lost = error.code() in (grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND)
                silent = time.monotonic() - last_answer > SILENCE
                if not over.is_set() and trial_id == self.trial_id and (lost or silent):
                    os._exit(GONE)

    def _wait_for_beat(self, parent: int, over: threading.Event) -> None:
        end = time.monotonic() + BEAT
        while time.monotonic() < end and not over.wait(0.5):
            if os.getppid() != parent:
                os._exit(GONE)

    def _beat(self, trial_id: str | None) -> None:
        service = protos.get_service()
        if trial_id:
            request = service.GetTrialRequest(trial_id=trial_id)
            self.oracle.stub.GetTrial(request, timeout=BEAT, metadata=((TUNER, self.tuner_id),))
        else:
            self.oracle.stub.GetSpace(service.GetSpaceRequest(), timeout=BEAT)
