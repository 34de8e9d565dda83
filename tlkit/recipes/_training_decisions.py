"""What is decided of how a training runs: devices, batch size, input and learning rates, each with its reason."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Literal

from tlkit import config as configs
from tlkit.errors import InvalidInput
from tlkit.recipes import _plans
from tlkit.recipes._decisions import Decision, applied

if TYPE_CHECKING:
    import keras

    from tlkit import data
    from tlkit.features import Extractor
    from tlkit.training.activations import FullInput, PooledFeatures


def find_devices(config: configs.Training, trial: bool) -> list[Decision]:
    """Find the devices that share each batch.

    Args:
        config: The settings.
        trial: Whether it is a trial of a search, which takes one device unless it is told otherwise.

    Raises:
        InvalidInput: there are not as many, or they cannot do what is asked.
    """
    from tlkit.training import devices

    full = config.full if isinstance(config, configs.Finetune) else None
    low_rank = full is not None and full.lora_rank is not None
    several = devices.find(1 if (trial or low_rank) and config.devices == "auto" else config.devices)
    if full and low_rank and several:
        raise InvalidInput(
            f"full.lora_rank is {full.lora_rank}, but devices is {config.devices}: factors are trained on one, as "
            "Keras does not copy those of attention: give --devices 1, or leave lora_rank out"
        )
    devices.check(several, config.gradient_accumulation_steps)
    if several is None:
        return [Decision("devices", 1)]
    here = len(several.names) // several.processes
    kind = several.names[0].partition(":")[0].upper()
    hosts = f"on each of {several.processes} hosts, " if several.processes > 1 else ""
    return [Decision("devices", here, f"{hosts}which share each batch ({kind})")]


def find_batch_size(
    config: configs.Finetune | configs.Train, model: keras.Model, splits: data.Splits
) -> list[Decision]:
    """Find the batch size if it is `auto`, and scale the learning rates that are numbers to it; then the epochs.

    Raises:
        InvalidInput: an epoch has fewer batches than gradients are to be accumulated over.
    """
    decisions = _batch_size(config, model, splits) if config.batch_size == "auto" else []
    decisions += _divisible(applied(config, decisions))
    decisions += decide_epochs(applied(config, decisions), len(splits.train), len(splits.val))
    _check_updates(applied(config, decisions), splits)
    return decisions


def decide_epochs(config: configs.Finetune | configs.Train, examples: int, val: int) -> list[Decision]:
    """Decide how long phase full is, if that was left open.

    Args:
        config: The settings.
        examples: Number of training examples.
        val: Number of validation examples: where they are few, a solved head is kept.
    """
    if config.full.epochs is not None:
        return []
    from tlkit.training import plans

    judged = isinstance(config, configs.Finetune) and config.head.solved and config.full.patience is None
    if judged and val < plans.FEWEST:
        lacking = f"as {val} validation examples cannot tell whether it pays; --full.epochs 25 tunes all the same"
        return [Decision("full.epochs", 0, lacking)]
    size = _plans.batch_size_or_default(config)
    reason = f"of {math.ceil(examples / size)} steps each: they follow the number of photos"
    return [Decision("full.epochs", plans.epochs(examples, size), reason)]


def _divisible(config: configs.Finetune | configs.Train) -> list[Decision]:
    """Round the batch size up to a multiple of the number of devices; others are no faster than on one."""
    from tlkit.training import devices

    several = devices.find(config.devices)
    size, count = _plans.batch_size_or_default(config), len(several.names) if several else 1
    if size % count == 0:
        return []
    reason = f"rounded up from {size} to a multiple of {count} devices"
    return [Decision("batch_size", -(-size // count) * count, reason)]


def _batch_size(config: configs.Finetune | configs.Train, model: keras.Model, splits: data.Splits) -> list[Decision]:
    from tlkit import backbones, runtime, training
    from tlkit.training import memory

    settings, shape = _plans.settings(config, config.full), splits.train.shape
    with backbones.low_rank(model, config.full.lora_rank if isinstance(config.full, configs.Full) else None):
        logits = training.to_logits(model)
        logits = memory.remat(logits) if config.remat else logits
        training.compiled(logits, settings, _plans.UNKNOWN_RATE, multi_label=splits.multi_label)
        size = memory.batch_size(logits, shape, len(splits.classes), len(splits.train), multi_label=splits.multi_label)
    examples = size * config.gradient_accumulation_steps
    if runtime.device()[0] == "cpu":
        reason = "as larger batches are no faster on a CPU" if size == memory.BATCH_SIZE else "what fits into memory"
    else:
        reason = "the largest that fits into memory and leaves enough steps per epoch"
    decisions = [Decision("batch_size", size, reason)]
    scale = memory.scaled_rate(1.0, examples, config.optimizer)
    reason = f"scaled for a batch of {examples}" if scale != 1 else ""
    for name in ("head", "full"):
        phase = getattr(config, name, None)
        if phase and phase.epochs != 0 and phase.learning_rate != "auto":
            decisions.append(Decision(f"{name}.learning_rate", phase.learning_rate * scale, reason))
            if rates := getattr(phase, "learning_rates", None):
                scaled = {stage: rate * scale for stage, rate in rates.items()}
                decisions.append(Decision(f"{name}.learning_rates", scaled))
    return decisions


def _check_updates(config: configs.Training, splits: data.Splits) -> None:
    """Refuse gradients that are accumulated over more batches than there are: nothing would ever be learned."""
    for name in ("head", "full"):
        phase = getattr(config, name, None)
        parts = len(_plans.stages(config)) if name == "full" and isinstance(config, configs.Finetune) else 1
        epochs = (phase.epochs or 0) // parts if phase else 0  # of the shortest part: each starts a sum of its own
        batches = epochs * math.ceil(len(splits.train) / _plans.batch_size_or_default(config))
        if 0 < batches < config.gradient_accumulation_steps:
            raise InvalidInput(
                f"gradient_accumulation_steps is {config.gradient_accumulation_steps}, but phase {name} has no more "
                f"than {batches} batches: give {batches} or less"
            )


def record_input(config: configs.Finetune, full_input: FullInput, pooled: PooledFeatures | None) -> list[Decision]:
    """Write down what phase full trains on, and which engine computed what it does not compute itself."""
    decisions = []
    if config.full.epochs:
        decisions.append(Decision("full.stored", full_input.uses_stored, full_input.reason, quiet=True))
    extractor = pooled.extractor if pooled else full_input.extractor
    if extractor:
        decisions.append(record_engine(extractor))
    return decisions


def record_engine(extractor: Extractor) -> Decision:
    """Write down which engine computed features."""
    return Decision(
        "features.engine",
        extractor.engine,
        extractor.reason or "it agrees with Keras, or computed the stored features",
        quiet=True,
    )


def find_rates(
    config: configs.Finetune, model: keras.Model, splits: data.Splits, pooled: PooledFeatures | None
) -> list[Decision]:
    """Find learning rates that are `auto` by range tests, after which the model is as it was."""
    from tlkit.training import rates

    decisions: list[Decision] = []
    phases: dict[Literal["head", "full"], configs.Phase] = {"head": config.head, "full": config.full}
    for name, phase in phases.items():
        if not phase.epochs or phase.learning_rate != "auto" or (name == "head" and pooled is None):
            continue
        plan = _plans.finetuning(applied(config, decisions), splits)
        default: Any = type(phase)().learning_rate  # a number
        rate = rates.find(model, splits, plan, name, pooled and pooled.train, default)
        decisions.append(Decision(f"{name}.learning_rate", rate.value, rate.reason, quiet=True))
    return decisions


def find_rate(config: configs.Train, model: keras.Model, splits: data.Splits) -> list[Decision]:
    """Find the learning rate of `train` by a range test if it is `auto`; the model is left as it was."""
    if not config.full.epochs or config.full.learning_rate != "auto":
        return []
    from tlkit import training
    from tlkit.training import rates

    settings = _plans.settings(config, config.full, _plans.class_weights(config, splits))
    test = functools.partial(
        training.range_test_full,
        model,
        splits.train,
        settings,
        seed=config.seed,
        augment=_plans.changes(config.augment) or None,
    )
    default: Any = configs.Phase().learning_rate  # a number
    rate = rates.choose(model, "full", default, test)
    return [Decision("full.learning_rate", rate.value, rate.reason, quiet=True)]
