"""List what the activation store holds, verify its files, or make it smaller.

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
FILL = "feature_extraction, finetune and select fill it as needed"


def run(config: Cache) -> list[Usage]:
    """List, verify or prune the store.

    Returns:
        What it then holds: a row for each network, the last used first.
    """
    from tlkit.features.store import GB, LIMIT, Store

    limit = LIMIT if config.limit is None else config.limit
    store = Store(config.store, limit * GB)
    if config.action == "prune":
        return _prune(store, config.limit is not None)
    usages = store.usage(verify=config.action == "verify")
    if not usages:
        _say_empty(store)
    elif config.action == "list":
        _list(usages)
        _fill(f"{_total(usages)} in {store.folder}; a recipe keeps it below --features.limit, {LIMIT:g} GB by default")
    else:
        _report_damage(store, usages, f" --store {quoted(config.store)}" if config.store else "")
    return usages


def _list(usages: list[Usage]) -> None:
    """Print a table of what the store holds."""
    say(f"activations of\n  {'precision, engine':34} {'shape':>12} {'number':>11} {'size':>8} used")
    for usage in usages:
        description = usage.description
        shape = description.get("shape")
        engine = str(description.get("engine", "?")).split(",")[0]
        computed = f"{description.get('precision', '?')}, {engine}"
        sides = "x".join(map(str, shape)) if isinstance(shape, list) else "?"
        number = f"{usage.activations:,}"
        if description.get("dtype") == "uint8":
            sides, number = "network", ""
        say(plain(usage.label, WIDTH))
        say(
            f"  {plain(computed, 34):34} {plain(sides, 12):>12} {number:>11} {_bytes(usage.size):>8} "
            f"{_ago(time.time() - usage.used)}"
        )


def _report_damage(store: Store, usages: list[Usage], option: str) -> None:
    """Print which files are damaged.

    Args:
        store: The store.
        usages: What it holds, verified.
        option: Flag that names the store in a command.

    Raises:
        Unavailable: some are.
    """
    files, damaged = sum(usage.files for usage in usages), sum(len(usage.damaged) for usage in usages)
    for usage in usages:
        if usage.damaged:
            say(f"damaged, of {plain(usage.label, WIDTH - 12)}:")
        for path in usage.damaged:
            say(f"  {shown(path.relative_to(store.folder))}")
    duplicates = sum(usage.duplicates for usage in usages)
    if duplicates:
        total = sum(usage.activations for usage in usages)
        _fill(f"{duplicates:,} of {total:,} activations are stored twice, which does no harm")
    if damaged:
        raise Unavailable(
            f"{damaged:,} of {files:,} files in {store.folder} are damaged; delete them by "
            f"{called('cache')} prune{option}: what they held is computed again when it is needed"
        )
    say(f"{files:,} files, all whole")


def _prune(store: Store, smaller: bool) -> list[Usage]:
    """Delete damaged and unfinished files, and print what was deleted.

    Args:
        store: The store.
        smaller: Delete also the least recently used activations above the store's limit.

    Raises:
        Unavailable: a file cannot be deleted.
    """
    try:
        count, size = store.clear()
        freed = store.make_room(0) if smaller else 0
    except OSError as error:
        raise Unavailable(f"not all of {store.folder} can be deleted: {error.strerror or error}") from error
    if count:
        _fill(f"deleted {count:,} damaged or unfinished {'file' if count == 1 else 'files'}, {_bytes(size)}")
    if freed:
        _fill(f"deleted the least recently used activations, {_bytes(freed)}")
    usages = store.usage()
    if not usages:
        _say_empty(store)
    else:
        _fill(f"{'' if count or freed else 'nothing to delete; '}{_total(usages)} stay in {store.folder}")
    return usages


def _total(usages: list[Usage]) -> str:
    activations, size = sum(usage.activations for usage in usages), sum(usage.size for usage in usages)
    return f"{activations:,} activations, {_bytes(size)},"


def _say_empty(store: Store) -> None:
    state = "is empty" if store.folder.is_dir() else "does not exist yet"
    _fill(f"the activation store {store.folder} {state}; {FILL}")


def _fill(text: str) -> None:
    say(textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False))


def plain(text: object, width: int) -> str:
    """Write text from a stranger's file in one line.

    Args:
        text: It may hold control characters.
        width: Maximum number of columns.

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
    """Write how long ago something was, in at most 8 columns.

    >>> _ago(3), _ago(125), _ago(7300), _ago(1e6)
    ('now', '2 min', '2 h', '11 days')
    """
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (seconds >= length and unit != "days"):
            return f"{min(seconds // length, 9999):.0f} {unit}"
    return "now"


if __name__ == "__main__":
    cli.main(Cache, run, positional=("action",))
