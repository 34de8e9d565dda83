"""Send what runs could not, because their tracking server was away or their process was killed.

python -m tlkit.recipes.sync
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from tlkit import cli
from tlkit.config import Sync
from tlkit.display import say, shown
from tlkit.errors import InvalidInput, Unavailable

PATIENCE = 120  # seconds without a step; nothing waits for this command


def run(config: Sync) -> int:
    """Send all journals of a folder, the oldest first; a run whose process ended without a word ends KILLED.

    Returns:
        How many entries were sent.

    Raises:
        InvalidInput: there is no such folder.
        Unavailable: some could not be sent; they are kept.
    """
    folder = Path(config.folder)
    if config.folder != Sync().folder and not folder.is_dir():
        raise InvalidInput(
            f"there is no folder {config.folder!r}; give one that a run has named, such as mlruns/unsent"
        )
    from tlkit.tracking import journal  # before mlflow, which it sets up

    import mlflow  # isort: skip

    sent, kept, reasons = 0, 0, []
    for left in journal.left(folder):
        try:
            found = journal.resume(left)
        except InvalidInput as error:
            say(error)
            reasons.append(str(error))
            continue
        if found is None:
            continue
        last = max(found.entries, default=-1)
        if last >= 0 and found.entries[last]["do"] not in ("end", "leave"):
            times = [entry["time"] for entry in found.entries.values() if "time" in entry]
            found.add("end", status="KILLED", time=max(times, default=int(time.time() * 1000)), if_running=True)
        waiting = found.unsent
        say(f"run {found.run_id}: {waiting} entries to {shown(found.header['uri'])}")
        now = mlflow.get_tracking_uri()
        if found.uri != now:
            mlflow.set_tracking_uri(found.uri)  # MLflow's registry looks for models there alone
        done = found.close(PATIENCE)
        if found.uri != now:
            mlflow.set_tracking_uri(now)
        sent += waiting - found.unsent
        if not done:
            kept, reasons = kept + found.unsent, [*reasons, found.reason]
            say(f"  {found.unsent} are kept in {os.path.relpath(left)}: {found.reason}")
    if reasons:
        raise Unavailable(f"{sent} entries were sent, {kept} could not be: {reasons[-1]}; the same command tries again")
    say(f"sent {sent} entries" if sent else f"there is nothing to send in {config.folder}")
    return sent


if __name__ == "__main__":
    cli.main(Sync, run, positional=("folder",))
