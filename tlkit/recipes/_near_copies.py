"""Near copies of scored photos among the others: looked for before training, reported with the score."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tlkit import config as configs
from tlkit.display import few, say
from tlkit.recipes import _inputs, _summary

if TYPE_CHECKING:
    from tlkit import data, evaluation, plots
    from tlkit.features import Features
    from tlkit.features.store import Store
    from tlkit.recipes._fit import Fit

PICTURE, DRAWN = "near_copies.png", 24  # pairs on the picture at the most


def look(
    config: configs.Data,
    splits: data.Splits,
    parts: Sequence[Features] | None = None,
    store: Store | None = None,
) -> data.Splits:
    """Find the scored photos that have a near copy among the others, and say how many there are.

    Args:
        config: Where the data are, and what is done about near copies.
        splits: The data.
        parts: Pooled features of each split, where they are known: few photos are then decoded.
        store: The activation store, which keeps the result.
    """
    import numpy as np

    from tlkit.inspection import near_copies

    if config.near_copies == "together":  # no split has a near copy of another's
        return splits
    _, scored = _inputs.scored(splits)
    features = None
    if parts:
        *learned, last = [part[:] for part in parts]
        features = (last, np.concatenate(learned))
    others = _others(splits)
    found = near_copies.across(scored, others, features, store)
    if not found:
        return splits
    splits = dataclasses.replace(splits, near_copies=found)
    say(sentence(splits), error=True)
    return dataclasses.replace(splits, warnings=[*splits.warnings, sentence(splits)])


def sentence(splits: data.Splits) -> str:
    """Say how many scored photos have a near copy, of splits that have some."""
    (split, scored), others, found = _inputs.scored(splits), _others(splits), splits.near_copies
    pairs = [f"{scored.names[first]} ~ {others.names[second]}" for first, second, _ in found]
    return (
        f"{len(found):,} of {len(scored):,} {split} {splits.kind} {'has' if len(found) == 1 else 'have'} a near copy "
        f"among the {'training and validation' if splits.test else 'training'} {splits.kind}: {few(pairs, 2)}; "
        "--data.near_copies together keeps near copies in one split"
    )


def _others(splits: data.Splits) -> data.Photos:
    """The photos that are not scored: those to train on, and to choose the epoch by if others are scored."""
    from tlkit import data

    *others, _ = splits.by_name.values()
    return data.Photos.joined(others)


def add(fit: Fit, splits: data.Splits, scores: evaluation.Scores, rest: evaluation.Scores | None) -> None:
    """Add what a run reports of near copies: metrics, a line of the summary and a picture of the pairs.

    Args:
        fit: To which they are added.
        splits: The data, with near copies.
        scores: On all scored photos.
        rest: On those that have no near copy; None where it cannot be scored.
    """
    count, split = len(splits.near_copies), scores.split
    fit.metrics[f"{split}_near_copies"] = count
    if PICTURE not in fit.pictures:
        fit.pictures.update(picture(splits))
    if rest is None:
        fit.under.append(f"near copies: no {split} score without the {count:,} {splits.kind} that have one")
        return
    name, value, (low, high) = rest.headline
    known = rest.metrics(suffix="_without_near_copies")
    wanted = [
        f"{split}_{key}_without_near_copies" for key in (name.lower(), f"{name.lower()}_low", f"{name.lower()}_high")
    ]
    fit.metrics.update({key: known[key] for key in wanted if key in known})
    spread = f"95 % interval {low:.3f} to {high:.3f}, {_summary.counted(rest.photos, splits.kind, rest.groups)}"
    fit.under.append(f"{split} {name:<8}  {value:.4f}  ({spread}) without the {count:,} that have a near copy")


def picture(splits: data.Splits) -> dict[str, plots.Picture]:
    """Draw the pairs, the most alike first; nothing if there are none. It may begin before anything is scored."""
    if not splits.near_copies:
        return {}
    import numpy as np

    from tlkit import plots
    from tlkit.inspection.text import shortened

    (split, scored), others = _inputs.scored(splits), _others(splits)
    pairs = splits.near_copies[:DRAWN]
    firsts = scored.read([first for first, _, _ in pairs])
    seconds = others.read([second for _, second, _ in pairs])
    photos = [photo for pair in zip(firsts, seconds, strict=True) for photo in pair]
    texts = [shortened(name, 22) for i, j, _ in pairs for name in (scored.names[i], others.names[j])]
    across = 2 * min(len(pairs), 4)
    missing = -len(photos) % across
    photos += [np.full_like(photos[0], 255)] * missing
    texts += [""] * missing
    starts = range(0, len(photos), across)
    title = f"{len(splits.near_copies):,} of {len(scored):,} {split} {splits.kind} have a near copy"
    heads = [split, "near copy"] * (across // 2)
    rows, captions = [photos[i : i + across] for i in starts], [texts[i : i + across] for i in starts]
    return {PICTURE: plots.Picture("sheet", rows, heads, captions, title)}
