"""What fine-tuning learns from: the photos themselves, or activations of frozen layers that are computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras

from tlkit import backbones, features
from tlkit.data import ExampleSet, Mirrored, NamedExamples, Photos, Splits, View, Views
from tlkit.display import say
from tlkit.errors import InvalidInput, Unavailable
from tlkit.features import Extractor, Features
from tlkit.progress import duration
from tlkit.training.plans import FineTuning

FLIPS = {"flip": True}  # alone, gives each photo just two versions, the same in every epoch

MakeExtractor = Callable[[keras.Model, str, str], Extractor]
"""From a frozen network, where it ends and the dtype of what is stored, to what computes its activations."""


class FullInput(NamedTuple):
    """What phase full trains, and on what.

    Args:
        network: The classifier, or the part of it above the frozen stages.
        train: The training photos, or stored activations of them.
        val: The validation photos, or stored activations of them.
        augment: What `data.batches` takes to change the photos anew in each epoch, or None.
        extractor: What computed the stored activations; None if the photos themselves are trained on.
        reason: Why it was chosen, for people; empty if there was no choice.
    """

    network: keras.Model
    train: ExampleSet | Views
    val: ExampleSet
    augment: Mapping[str, Any] | None = None
    extractor: Extractor | None = None
    reason: str = ""

    @property
    def uses_stored(self) -> bool:
        """Whether phase full trains on stored activations."""
        return self.extractor is not None


class PooledFeatures(NamedTuple):
    """Pooled features of the training and validation photos, for the head, and what computed them."""

    train: Features
    val: Features
    extractor: Extractor


def choose_input(
    model: keras.Model,
    splits: Splits,
    plan: FineTuning,
    make_extractor: MakeExtractor,
    *,
    runs: float = 1.0,
    resuming: bool = False,
) -> FullInput:
    """Choose what phase full trains on: photos or stored activations, which are computed here; say why.

    Several stages, which are unfrozen one after the other, always train on photos.

    Args:
        model: The classifier, trainable from the lowest stage that the plan unfreezes.
        splits: The photos.
        plan: How it is fine-tuned.
        make_extractor: Makes what computes activations of the frozen stages.
        runs: Number of runs that use the same activations.
        resuming: A checkpoint is resumed.

    Raises:
        InvalidInput: stored activations are asked for, and the backbone cannot be cut below the stage.
        Unavailable: a resumed run was trained on stored activations, for which there is no room now.
    """
    stage, versions = plan.stages[0], _versions(splits.train, plan)
    train = Views(versions) if plan.views else splits.train
    photos = FullInput(model, train, splits.val, None if plan.views else plan.augment or None)
    if not plan.full.epochs or stage is None or len(plan.stages) > 1 or plan.stored is False:
        return photos
    if not versions:
        return _photos(photos, "each epoch changes the photos anew (--augment.views 4 makes four of each, once)")
    try:
        lower, upper = backbones.split(model, from_stage=stage)
    except InvalidInput as error:
        if plan.stored:
            raise
        return _photos(photos, str(error))
    extractor, reason = make_extractor(lower, f"below {stage}", "float16"), ""
    if plan.stored is None:
        passes = round(runs * plan.full.epochs * (len(splits.train) + len(splits.val)))
        gain = features.estimate(extractor, [*versions, splits.val], passes)
        if not gain.worth:
            return _photos(photos, gain.reason)
        reason = gain.reason
        say(f"phase full trains on stored activations of the frozen stages: {reason}")
    try:
        *stored, val = extract(extractor, *versions, splits.val)
    except Unavailable as error:
        if resuming and plan.stored:  # its checkpoints are of the upper stages alone
            raise
        return _photos(photos, str(error))
    return FullInput(upper, Views(stored) if len(stored) > 1 else stored[0], val, None, extractor, reason)


def _versions(photos: Photos, plan: FineTuning) -> list[NamedExamples]:
    """List all versions of the photos that epochs draw from; none if each epoch makes new ones."""
    changes = plan.augment or {}
    if plan.views:
        return [View(photos, changes, plan.seed, number) for number in range(plan.views)]
    if not changes:
        return [photos]
    return [photos, Mirrored(photos)] if changes == FLIPS else []


def _photos(photos: FullInput, reason: str) -> FullInput:
    say(f"phase full computes the frozen stages in every epoch: {reason}")
    return photos._replace(reason=reason)


def pool(model: keras.Model, splits: Splits, make_extractor: MakeExtractor) -> PooledFeatures:
    """Compute the pooled features of the training and validation photos, or read them from the store."""
    extractor = make_extractor(features.pooled(model), "pooled", "float32")
    train, val = extract(extractor, splits.train, splits.val)
    return PooledFeatures(train, val, extractor)


def extract(extractor: Extractor, *examples: NamedExamples) -> list[Features]:
    """Give the features of each example set, and say where they came from."""
    parts = extractor.extract(*examples)
    count = len({digest for part in parts for digest in part.hashes})
    computed = f"{extractor.computed:,} computed"
    if extractor.computed:
        rate = extractor.computed / max(extractor.seconds, 1e-9)
        note = f"; {extractor.reason}" if extractor.reason else ""
        computed += f" by {extractor.engine} in {duration(extractor.seconds)}, {rate:,.0f} a second{note}"
    stored = f"{count - extractor.computed:,} from the store, " if extractor.store else ""
    say(f"features of {count:,} photos ({extractor.label}): {stored}{computed}")
    return parts
