"""Say what the activation store holds, verify its files, or make it smaller.

python -m tlkit.recipes.cache prune --limit 10
"""

from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING

from tlkit import cli
from tlkit.config import Cache
from tlkit.display import called, quoted, say, shown
from tlkit.errors import Unavailable

if TYPE_CHECKING:
    from tlkit.features.store import Store, Usage

WIDTH = 80  # columns of the table
FILL = "feature_extraction, finetune and select fill it as they need it"


def run(config: Cache) -> list[Usage]:
    """Do what `config.action` says, and return what the store then holds, space by space, the last used first."""
    from tlkit.features.store import GB, LIMIT, Store

    limit = LIMIT if config.limit is None else config.limit
    store = Store(config.store, limit * GB)
    if config.action == "prune":
        return _prune(store, config.limit is not None)
    found = store.usage(verify=config.action == "verify")
    if not found:
        _say_empty(store)
    elif config.action == "list":
        _list(found)
        _fill(f"{_total(found)} in {store.folder}; a recipe keeps it below --features.limit, {LIMIT:g} GB by default")
    else:
        _verify(store, found, f" --store {quoted(config.store)}" if config.store else "")
    return found


def _list(found: list[Usage]) -> None:
    say(f"activations of\n  {'precision, engine':34} {'shape':>12} {'number':>11} {'size':>8} used")
    for usage in found:
        about = usage.description
        shape = about.get("shape")
        engine = str(about.get("engine", "?")).split(",")[0]
        computed = f"{about.get('precision', '?')}, {engine}"
        sides = "x".join(map(str, shape)) if isinstance(shape, list) else "?"
        say(plain(usage.label, WIDTH))
        say(
            f"  {plain(computed, 34):34} {plain(sides, 12):>12} {usage.activations:>11,} {_bytes(usage.size):>8} "
            f"{_ago(time.time() - usage.used)}"
        )


def _verify(store: Store, found: list[Usage], option: str) -> None:
    files, damaged = sum(usage.files for usage in found), sum(len(usage.damaged) for usage in found)
    for usage in found:
        if usage.damaged:
            say(f"damaged, of {plain(usage.label, WIDTH - 12)}:")
        for path in usage.damaged:
            say(f"  {shown(path.relative_to(store.folder))}")
    twice = sum(usage.twice for usage in found)
    if twice:
        total = sum(usage.activations for usage in found)
        _fill(f"{twice:,} of {total:,} activations are stored twice, which does no harm")
    if damaged:
        raise Unavailable(
            f"{damaged:,} of {files:,} files in {store.folder} are damaged; delete them by "
            f"{called('cache')} prune{option}: what they held is computed again when it is needed"
        )
    say(f"{files:,} files, all whole")


def _prune(store: Store, smaller: bool) -> list[Usage]:
    try:
        count, size = store.clear()
        freed = store.make_room(0) if smaller else 0
    except OSError as error:
        raise Unavailable(f"not all of {store.folder} can be deleted: {error.strerror or error}") from error
    if count:
        _fill(f"deleted {count:,} damaged or unfinished {'file' if count == 1 else 'files'}, {_bytes(size)}")
    if freed:
        _fill(f"deleted the least recently used activations, {_bytes(freed)}")
    found = store.usage()
    if not found:
        _say_empty(store)
    else:
        _fill(f"{'' if count or freed else 'nothing to delete; '}{_total(found)} stay in {store.folder}")
    return found


def _total(found: list[Usage]) -> str:
    return f"{sum(usage.activations for usage in found):,} activations, {_bytes(sum(usage.size for usage in found))},"


def _say_empty(store: Store) -> None:
    state = "is empty" if store.folder.is_dir() else "is not there yet"
    _fill(f"the activation store {store.folder} {state}; {FILL}")


def _fill(text: str) -> None:
    say(textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False))


def plain(text: object, width: int) -> str:
    """Write what a stranger's file says in one line, in at most so many columns.

    >>> plain("MobileNet, pool", 20), plain("\\x1b[2Jnew\\nline", 20), plain("a long name", 8)
    ('MobileNet, pool', '\\\\x1b[2Jnew\\\\nline', 'a long..')
    """
    safe = shown(text)
    return safe if len(safe) <= width else f"{safe[: width - 2]}.."


def _bytes(size: float) -> str:
    """Write a number of bytes.

    >>> _bytes(999), _bytes(12_345), _bytes(3_456_789_000)
    ('999 B', '12.3 kB', '3.46 GB')
    """
    units = ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"


def _ago(seconds: float) -> str:
    """Write how long ago something was, in at most 8 letters.

    >>> _ago(3), _ago(125), _ago(7300), _ago(1e6)
    ('now', '2 min', '2 h', '11 days')
    """
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (seconds >= length and unit != "days"):
            return f"{min(seconds // length, 9999):.0f} {unit}"
    return "now"


if __name__ == "__main__":
    cli.main(Cache, run, positional=("action",))
