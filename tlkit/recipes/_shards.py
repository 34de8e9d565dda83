"""One part of a data set's features, put into a store that the other parts share; for job arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlkit.config import FeatureExtraction
from tlkit.display import say
from tlkit.errors import Unavailable, Undecodable
from tlkit.recipes import _decisions, _inputs, _jobs, _links, _networks

if TYPE_CHECKING:
    from tlkit import data, features
    from tlkit.features.store import Store


def extract(config: FeatureExtraction) -> None:
    """Compute the features of one part of the photos, and say what comes next."""
    _jobs.start_keras()
    from tlkit import features, runtime

    number, count = map(int, str(config.shard).split("/"))
    config = _decisions.completed(config)
    runtime.prepare(config.seed, config.precision)
    examples = _inputs.photos(config)
    _inputs.require_one_label(examples, "feature_extraction")
    total = len(examples.names)
    part = examples.select(range(number - 1, total, count))
    say(f"part {number} of {count}: {len(part.names):,} of {total:,} photos")
    if not part.names:
        return
    network = features.pooled(_networks.classifier(config, examples))
    extractor = _networks.extractor(config, network, "pooled", shared=_store(config))
    _check_room(extractor, config.features.limit, total)
    _compute(config, part, extractor)
    folder = extractor.store.folder if extractor.store else None
    say(f"store  {folder}")
    say(f"\nNext, when all {count} parts are there:" if count > 1 else "\nNext:")
    say(f"  {_links.command('feature_extraction', without=('shard',))}")


def _store(config: FeatureExtraction) -> Store:
    """Open the store without a limit: no part may delete what another has just written."""
    from tlkit.features.store import Store

    return Store(config.features.store, float("inf"))


def _check_room(extractor: features.Extractor, limit: float, total: int) -> None:
    """Refuse features that will not all fit, before the first is computed.

    Raises:
        Unavailable: they do not.
    """
    from tlkit.features.segments import KEY
    from tlkit.features.store import GB

    size = total * (extractor.bytes_each + KEY)
    if size > limit * GB:
        raise Unavailable(
            f"the features of all {total:,} photos need {size / GB:.3g} GB, and features.limit is {limit:g} GB: give a "
            "higher one to all parts and to what reads them"
        )


def _compute(config: FeatureExtraction, part: data.Examples, extractor: features.Extractor) -> None:
    from tlkit.training import activations

    def compute(check: bool) -> None:
        activations.extract(extractor, _inputs.unsplit(config.data, part, extractor.network.input_shape[1:], check))

    try:
        compute(check=False)
    except Undecodable:  # all are looked at, so that damaged ones are named and set aside
        compute(check=True)
