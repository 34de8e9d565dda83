"""Features of networks for `auto`: computed once, chunk by chunk, as long as there is time for them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tlkit.display import say
from tlkit.progress import duration
from tlkit.recipes import _auto_search

if TYPE_CHECKING:
    import numpy as np

    from tlkit import data
    from tlkit.data.resizing import Resize
    from tlkit.recipes._auto_networks import Network
    from tlkit.recipes._auto_search import Search

CHUNK, PAUSE = 64, 10.0  # photos of the first chunk; seconds of a later one, after which the clock is looked at
SHARE = 0.4  # of the minutes that features of the first network may take; of more photos, a part is drawn


def extract(search: Search, network: Network, resize: Resize, mirrored: bool, needed: bool) -> np.ndarray | None:
    """Compute features of the photos to learn from, or find them in the store; None where the time does not suffice."""
    import numpy as np

    from tlkit import data

    key = (network.config.backbone, resize, mirrored)
    if key in search.values:
        return search.values[key]
    train, val = search.known(network, resize)
    known = data.Photos.joined([train, val])
    name, count, parts, start, size = network.title, len(known), [], 0, CHUNK
    what = name + ", mirror image too" * mirrored
    while start < count:
        places = range(start, min(start + size, count))
        chunk = known.select(places)
        before, computing = time.perf_counter(), network.extractor.seconds
        (features,) = network.extractor.extract(data.Mirrored(chunk) if mirrored else chunk)
        if not start and not mirrored and network.extractor.computed:  # the engine has just been made
            made = time.perf_counter() - before - (network.extractor.seconds - computing)
            search.tracing = max(_auto_search.TRACING, min(made, search.tracing if search.made else made))
            search.made = True
        parts.append(features[:])
        start = places.stop
        if network.extractor.computed and network.extractor.seconds:
            search.rates[name] = network.extractor.computed / network.extractor.seconds
            search.pace = 1 / search.rates[name] / network.cost
        elapsed = max((time.perf_counter() - before) / len(places), 1e-6)
        if start == count:
            break
        rate = search.rates.get(name, 1 / elapsed)
        left = search.seconds_left([network] * (1 + mirrored))
        missing = network.extractor.missing(_rest(known, start, mirrored))
        share = SHARE * 60 * search.config.minutes
        if needed and not search.drawn and missing / rate > share:
            return _of_a_part(search, network, resize, int(rate * share))
        if not needed and missing / rate > left:
            lacking = f"{duration(missing / rate)}; {duration(max(left, 0.0))} left"
            search.leave_out(what, f"its features would take {lacking}")
            return None
        size = max(CHUNK, int(rate * PAUSE))
    search.values[key] = np.concatenate(parts)
    return search.values[key]


def _rest(known: data.Photos, start: int, mirrored: bool) -> data.Photos | data.Mirrored:
    from tlkit import data

    rest = known.select(range(start, len(known)))
    return data.Mirrored(rest) if mirrored else rest


def _of_a_part(search: Search, network: Network, resize: Resize, count: int) -> np.ndarray | None:
    """Draw a part of the photos, for which there is time, and compute the features of these."""
    import numpy as np

    splits = search.photos(network, resize)
    total = len(splits.train) + len(splits.val)
    share = min(1.0, max(count, 10 * len(search.examples.classes)) / total)
    rng = np.random.default_rng(search.config.seed)
    for name, part in (("train", splits.train), ("val", splits.val)):
        labels, drawn = part.labels, rng.permutation(len(part))
        order = drawn[np.argsort(labels[drawn], kind="stable")]
        places = np.floor(np.arange(1, len(order) + 1) * share) > np.floor(np.arange(len(order)) * share)
        search.drawn[name] = np.sort(order[places])
    used = sum(map(len, search.drawn.values()))
    if used < total:
        say(f"there is time for {used:,} of {total:,} photos to learn from, drawn by class")
    return extract(search, network, resize, False, needed=True)
