"""The network of a recipe: its backbone and head, what computes its features, and whether there is room for it."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

from tlkit import config as configs
from tlkit.errors import InvalidInput
from tlkit.recipes import _clusters, _parents, _plans, _run_exports, _sources

if TYPE_CHECKING:
    import keras

    from tlkit import data, features
    from tlkit.features import store
    from tlkit.recipes._jobs import AnyConfig, Trial


def backbone(config: configs.FeatureExtraction | configs.Finetune | configs.Inspect) -> keras.Model:
    """Build the pretrained network at the size that the photos will have."""
    source = _sources.resolve(config.backbone, config.data.image_size)
    return source.build(config.data.image_size or source.row.size)


def classifier(
    config: configs.FeatureExtraction | configs.Finetune | configs.Inspect, examples: data.Examples
) -> keras.Model:
    """Put a head on the backbone."""
    from tlkit import backbones

    model = backbones.classifier(
        backbone(config),
        len(examples.classes),
        config.head.dropout if isinstance(config, configs.Finetune) else 0.0,
        multi_label=examples.multi_label,
        pooled_stages=config.backbone.pooled_stages,
    )
    if not isinstance(config, configs.Inspect):
        _parents.start(model, _parents.of(config), examples.classes)
    return model


def trainable_classifier(config: configs.Finetune, examples: data.Examples) -> keras.Model:
    """Put a head on the backbone, and make trainable what phase full trains in the end.

    Raises:
        InvalidInput: factors are to be trained, and a stage has no kernel for them.
    """
    from tlkit import backbones

    model, rank = classifier(config, examples), config.full.lora_rank
    for stage in _plans.stages(config):
        backbones.unfreeze(model, None, stage, config.full.batch_normalization or "inference")
        if rank is not None:
            backbones.adaptable(model, rank)  # refused before any photo is opened
    return model


def extractor(
    config: configs.FeatureExtraction | configs.Finetune | configs.Inspect,
    frozen: keras.Model,
    cut: str,
    dtype: str = "float32",
    shared: store.Store | None = None,
) -> features.Extractor:
    """Make what computes the outputs of a frozen part of the network, which ends at `cut`.

    Args:
        config: The settings.
        frozen: The part of the network.
        cut: Where it ends, for people.
        dtype: Of what is stored.
        shared: A store into which other processes write other features of it meanwhile; by default the config's.
    """
    from tlkit import features

    stored = shared or activation_store(config.features)
    label = f"{title(config.backbone)} at {config.data.image_size} pixels, {cut}"
    workers = _clusters.current()
    return features.Extractor(
        frozen, stored, config.features.engine, config.precision, dtype, label, workers, bool(shared)
    )


def activation_store(config: configs.Features) -> store.Store | None:
    """Open the activation store, if there is to be one."""
    from tlkit.features.store import GB, Store

    return None if config.store == "none" else Store(config.store, config.limit * GB)


def store_path(store: str | None) -> str | None:
    """Write the folder of the activation store so that it means the same from any folder."""
    return store if store in (None, "none") else os.path.abspath(os.path.expanduser(store))


def title(backbone: configs.Backbone) -> str:
    """Name a backbone for a person.

    >>> title(configs.Backbone("MobileNet", alpha=0.5))
    'MobileNet 0.5'
    """
    return _sources.title(backbone.name) + (f" {backbone.alpha:g}" if backbone.alpha else "")


def name(config: configs.Recipe | configs.TrainGraph) -> str:
    """Name the network of a config."""
    if isinstance(config, configs.FeatureExtraction | configs.Finetune):
        return _sources.title(config.backbone.name)
    if isinstance(config, configs.Auto):  # the chosen ones, once they are
        return " + ".join(name if isinstance(name, str) else title(name) for name in config.backbones or ["several"])
    return config.builder.name if isinstance(config, configs.Train) else "gcn"


def titled(config: configs.Recipe | configs.TrainGraph) -> str:
    """Name the network of a config with its width, for the name of a run; empty where the run looks for one."""
    if isinstance(config, configs.FeatureExtraction | configs.Finetune):
        return title(config.backbone)
    return name(config) if isinstance(config, configs.Train | configs.TrainGraph) else ""


def check_stages(config: configs.Finetune) -> None:
    """Refuse stages that the backbone does not have, that come in another order, or that have rates and are frozen.

    Raises:
        InvalidInput: the message names the stages that there are.
    """
    known = list(_sources.row(config.backbone, config.data.image_size).stages)
    stages, rates = [stage for stage in _plans.stages(config) if stage], config.full.learning_rates or {}
    for setting, names, allowed in (
        ("full.unfreeze_from", stages, known),
        ("full.learning_rates", rates, [*known, "head"]),
    ):
        for name in names:
            if name not in allowed:
                available = ", ".join(allowed) or "none"
                raise InvalidInput(f"{setting}: stage {name!r} is unknown: {config.backbone.name} has {available}")
    places = [known.index(stage) for stage in stages]
    if any(upper <= lower for upper, lower in itertools.pairwise(places)):
        ordered = ", ".join(sorted(set(stages), key=known.index, reverse=True))
        raise InvalidInput(f"full.unfreeze_from is {stages}; each is to add lower stages: give [{ordered}]")
    for name in rates:
        if places and name != "head" and known.index(name) < places[-1]:
            raise InvalidInput(
                f"full.learning_rates has {name}, which is frozen: full.unfreeze_from is {stages[-1]}; leave one out"
            )


def admit(model: keras.Model, config: AnyConfig, trial: Trial | None = None) -> None:
    """Refuse a network that the disk has no room for, or a trial, an export or the devices cannot have, untrained.

    Raises:
        InvalidInput: a format cannot hold it, it is larger than a trial's may be, or the devices cannot recompute it.
        Unavailable: it could not be saved.
    """
    from tlkit.tracking import journal

    if isinstance(config, configs.Training) and config.remat:
        from tlkit.training import devices

        devices.check(devices.find(config.devices), 1, model)
    journal.check_room(journal.ROOM + 4 * model.count_params())
    if trial is None:
        _run_exports.check_network(config, model)
        return
    from tlkit import arithmetic

    limits = {"parameters": trial.max_parameters, "multiply_adds": trial.max_multiply_adds}
    if not any(limits.values()):
        return
    totals = arithmetic.totals(arithmetic.describe(model))
    for quantity, limit in limits.items():
        size = getattr(totals, quantity)
        if limit and size and size > limit:
            raise InvalidInput(f"rejected: {size:,} {quantity.replace('_', '-')}, and max_{quantity} is {limit:,}")
