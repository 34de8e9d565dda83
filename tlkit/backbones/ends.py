"""Where the stages of a network end: as given, by the names of its layers, or found in its graph."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from tlkit.arithmetic.graph import kinds
from tlkit.backbones.chain import Link, learns
from tlkit.display import few
from tlkit.errors import InvalidInput
from tlkit.layers import is_stage

HALF = 0.6  # of the size at the beginning of a stage: at or below this the next one begins
PADDING = {"ZeroPadding2D", "Cropping2D"}
PARTS = 4  # stages of equal blocks


def find(links: Sequence[Link], name: str, layer: str, setting: str) -> Link:
    """Find the call of a layer that everything passes through."""
    for link in reversed(links):
        if link.name == layer:
            return link
    names = [link.name for link in links]
    close = few(difflib.get_close_matches(layer, names, n=3, cutoff=0.3) or names[-3:], 3)
    raise InvalidInput(
        f"{setting} is {layer!r}, which is no layer of {name} that everything passes through: give one such as {close}"
    )


def given(links: Sequence[Link], name: str, stages: Mapping[str, str]) -> dict[str, str]:
    """Check stages, and let the last end where the network does."""
    if odd := [stage for stage in stages if not is_stage(stage)]:
        raise InvalidInput(f"backbone.stages has {few(odd)}: stages are called stem, stage1, stage2 and so on")
    found = [find(links, name, layer, f"backbone.stages: {stage}") for stage, layer in stages.items()]
    for (stage, layer), (first, second) in zip(list(stages.items())[1:], pairwise(found), strict=True):
        if second.place <= first.place:
            raise InvalidInput(
                f"backbone.stages: {stage} ends at {layer!r}, which is not above the stage before: give stages in the "
                "order of the network"
            )
    if found[-1] is not links[-1]:
        raise InvalidInput(
            f"backbone.stages: the last, {list(stages)[-1]}, ends at {found[-1].name!r}, but the network is cut at "
            f"{links[-1].name!r}: let it end there, or give --backbone.cut {found[-1].name}"
        )
    return dict(stages)


def search(links: Sequence[Link], learning: Sequence[int]) -> tuple[dict[str, str], str]:
    """Find stages by the names of layers, by where the map halves, or as parts of a chain of equal blocks."""
    named = {link.name: link.name for link in links if is_stage(link.name)}
    if len(named) > 1:
        named[list(named)[-1]] = links[-1].name
        return named, "by the names of its layers"
    found, reason = _halvings(links, learning), "by where the map halves"
    if blocks := _blocks(links):
        if not any(end.place >= blocks[0].place for end in found):
            parts = min(PARTS, len(blocks))
            found = [blocks[math.ceil(len(blocks) * part / parts) - 1] for part in range(1, parts)]
            reason = f"a {'quarter' if parts == PARTS else 'part'} of its {len(blocks)} blocks each"
        first, second = (links.index(block) for block in blocks[:2])
        stem = links[max(0, 2 * first - second)]  # as many calls before the first block as from it to the second
        found = [stem, *(end for end in found if end.place > stem.place)]
    names = ["stem", *(f"stage{number}" for number in range(1, len(found) + 1))]
    return dict(zip(names, [*(end.name for end in found), links[-1].name], strict=True)), reason


def _halvings(links: Sequence[Link], learning: Sequence[int]) -> list[Link]:
    """Find the ends of all stages but the last, by where the map halves."""
    ends: list[Link] = []
    first, begun, last = math.inf, -1, None  # size at the beginning of the stage; place of its last end; its last map
    for link in links:
        size = _size(link)
        if size is None or link.place < (learning[0] if learning else 0):
            continue
        if last is not None and size <= HALF * first:
            if any(begun < place <= last.place for place in learning):
                ends, begun = [*ends, last], last.place
            first = size
        elif last is None:
            first = size
        last = link if last is None or not set(kinds(link.operation)[:1]) & PADDING or size < first else last
    if ends and not any(begun < place <= links[-1].place for place in learning):
        ends.pop()  # what is left has nothing to train, as a last pooling
    return ends


def _size(link: Link) -> float | None:
    """Give the length of a map's longer side, or of the square that as many tokens make; None if it is neither."""
    shape = link.output.shape
    if len(shape) == 4:
        return float(max(shape[1:3]))
    return math.sqrt(shape[1]) if len(shape) == 3 and shape[1] else None


def _blocks(links: Sequence[Link]) -> list[Link]:
    """List the blocks of a transformer: the calls on tokens of the layers of one class, of another library."""
    calls = [link for link in links if len(link.output.shape) == 3 and learns(link.operation)]
    kinds_called = [type(link.operation) for link in calls]
    others = [kind for kind in kinds_called if kind is not kinds_called[0]]  # the first makes tokens of patches
    classes = Counter(kind for kind in others if not kind.__module__.startswith("keras."))
    repeated = [kind for kind, count in classes.most_common(1) if count > 1]
    return [link for link in calls if type(link.operation) in repeated]
