"""Send what runs could not log, because their tracking server was away or their process was killed.

python -m tlkit.recipes.sync
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit import cli
from tlkit.config import Sync
from tlkit.display import say, shown
from tlkit.errors import InvalidInput, Unavailable
from tlkit.recipes import _summary

if TYPE_CHECKING:
    from tlkit.tracking.journal import Journal

PATIENCE = 120  # seconds without progress after which a journal is given up for now


def run(config: Sync) -> int:
    """Send all journals of a folder, the oldest first; a run whose process ended without a word ends KILLED.

    Returns:
        Number of entries that were sent.

    Raises:
        InvalidInput: there is no such folder.
        Unavailable: some could not be sent; they are kept.
    """
    folder = Path(config.folder)
    if config.folder != Sync().folder and not folder.is_dir():
        raise InvalidInput(
            f"there is no folder {config.folder!r}; give one that a run has named, such as mlruns/unsent"
        )
    from tlkit.tracking import journal

    sent, unsent, reasons = 0, 0, []
    for path in journal.left(folder):
        try:
            resumed = journal.resume(path)
        except InvalidInput as error:
            say(error)
            reasons.append(str(error))
            continue
        if resumed is None:
            continue
        _end(resumed)
        waiting = resumed.unsent
        complete = _send(resumed)
        sent += waiting - resumed.unsent
        _summary.print_registered(resumed.registered)
        if not complete:
            unsent += resumed.unsent
            reasons.append(resumed.reason)
            say(f"  {resumed.unsent} are kept in {os.path.relpath(path)}: {resumed.reason}")
    if reasons:
        raise Unavailable(
            f"{sent} entries were sent, {unsent} could not be: {reasons[-1]}; the same command tries again"
        )
    say(f"sent {sent} entries" if sent else f"there is nothing to send in {config.folder}")
    return sent


def _end(unfinished: Journal) -> None:
    """Add the end of the run to its journal, unless its process has written one."""
    last = max(unfinished.entries, default=-1)
    if last >= 0 and unfinished.entries[last]["do"] not in ("end", "leave"):
        times = [entry["time"] for entry in unfinished.entries.values() if "time" in entry]
        unfinished.add("end", status="KILLED", time=max(times, default=int(time.time() * 1000)), if_running=True)


def _send(unfinished: Journal) -> bool:
    """Send a journal to its store; give whether all entries arrived."""
    import mlflow

    say(f"run {unfinished.run_id}: {unfinished.unsent} entries to {shown(unfinished.header['uri'])}")
    present_uri = mlflow.get_tracking_uri()
    if unfinished.uri != present_uri:
        mlflow.set_tracking_uri(unfinished.uri)  # MLflow's registry looks for models there alone
    complete = unfinished.close(PATIENCE)
    if unfinished.uri != present_uri:
        mlflow.set_tracking_uri(present_uri)
    return complete


if __name__ == "__main__":
    cli.main(Sync, run, positional=("folder",))
