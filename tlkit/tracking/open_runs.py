"""The journals of the runs that this process tracks."""

from __future__ import annotations

import threading

from tlkit.tracking.journal import Journal

_local = threading.local()  # each thread has its own, as MLflow's active run
_ended: dict[str, Journal] = {}  # journals of the runs that are over, by run


def opened() -> list[Journal]:
    """Return the journals of the runs that this thread tracks, the innermost last."""
    if not hasattr(_local, "journals"):
        _local.journals = []
    journals: list[Journal] = _local.journals
    return journals


def innermost() -> Journal:
    """Return the journal of the innermost run that this thread tracks."""
    return opened()[-1]


def end(journal: Journal) -> None:
    """Move a journal from the open ones to those whose run is over."""
    opened().remove(journal)
    _ended[journal.run_id] = journal


def journal_of(run_id: str) -> Journal:
    """Return the journal of a run that this process has tracked: what is unsent, and what became of its model."""
    return next(journal for journal in [*_ended.values(), *opened()] if journal.run_id == run_id)


def deliver() -> str | None:
    """Wait for what the innermost run has logged so far, for seconds if the store does not answer.

    Returns:
        URI of the model that was logged last, `models:/m-…`; None where the store does not have it.
    """
    innermost().deliver()
    return innermost().model_uri
