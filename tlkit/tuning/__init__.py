"""Hyperparameter search with keras-tuner: a chief that survives a kill, and workers in processes of their own.

The chief holds keras-tuner's oracle, which chooses the settings of each trial, and serves it over keras-tuner's own
gRPC service; workers ask it for trials. `HyperModel` is for a search without all that, in a Keras program of one's own.
"""

from tlkit.atomic import write_text as write
from tlkit.tuning.chief import FAILURES, Process, served, stop, supervise
from tlkit.tuning.hypermodel import DEFAULT, HyperModel, register
from tlkit.tuning.oracles import LIVES, RUN_ID, ResumableOracle, best_first, objective, oracle
from tlkit.tuning.protocol import BEAT, CHIEF, GONE, MORE, SILENCE, TUNER
from tlkit.tuning.worker import Worker

__all__ = [
    "BEAT", "CHIEF", "DEFAULT", "FAILURES", "GONE", "LIVES", "MORE", "RUN_ID", "SILENCE", "TUNER", "HyperModel",
    "Process", "ResumableOracle", "Worker", "best_first", "objective", "oracle", "register", "served", "stop",
    "supervise", "write",
]  # fmt: skip
