"""Send what runs could not, because their tracking server was away or their process was killed.

python -m tlkit.recipes.sync
"""

from __future__ import annotations

import os
from pathlib import Path

from tlkit import cli
from tlkit.config import Sync
from tlkit.errors import InvalidInput, Unavailable


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
    from tlkit import journal

    sent, kept, reason = 0, 0, ""
    for left in journal.left(folder):
        found = journal.resume(left)
        if found is None:
            continue
        if all(entry["do"] != "end" for entry in found.entries):
            found.add("end", status="KILLED", time=int(left.stat().st_mtime * 1000), if_running=True)
        waiting = found.unsent
        print(f"run {found.run_id}: {waiting} entries to {found.header['uri']}", flush=True)
        done = found.close()
        sent += waiting - found.unsent
        if not done:
            kept, reason = kept + found.unsent, found.reason
            print(f"  {found.unsent} are kept in {os.path.relpath(left)}: {found.reason}", flush=True)
    if kept:
        raise Unavailable(f"{kept} entries could not be sent ({reason}); the same command tries again")
    print(f"sent {sent} entries" if sent else f"there is nothing to send in {config.folder}")
    return sent


if __name__ == "__main__":
    cli.main(Sync, run, positional=("folder",))
