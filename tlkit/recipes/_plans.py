"""From a config to what the library takes: the settings of a phase, changes of photos, a plan of fine-tuning."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tlkit import config as configs
from tlkit.errors import InvalidInput

if TYPE_CHECKING:
    from tlkit import data, training

UNKNOWN_RATE = 1e-3  # of a phase whose learning rate is still to be found


def finetuning(config: configs.Finetune, splits: data.Splits) -> training.FineTuning:
    """Give the plan of a config."""
    from tlkit import training

    weights = class_weights(config, splits)
    return training.FineTuning(
        head=settings(config, config.head, weights),
        full=settings(config, config.full, weights),
        solve=bool(config.head.solved),
        stages=stages(config),
        batch_normalization=config.full.batch_normalization or "inference",  # None has been decided
        lora_rank=config.full.lora_rank,
        augment=changes(config.augment) or None,
        views=config.augment.views,
        stored=config.full.stored,
        seed=config.seed,
        devices=config.devices,
    )


def settings(
    config: configs.Training, phase: configs.Phase, class_weights: list[float] | None = None
) -> training.Settings:
    """Put the settings of one phase and those of the whole run together."""
    from tlkit import training

    return training.Settings(
        epochs=phase.epochs or 0,
        learning_rate=UNKNOWN_RATE if phase.learning_rate == "auto" else phase.learning_rate,
        warmup=phase.warmup,
        patience=phase.patience,
        batch_size=batch_size_or_default(config),
        label_smoothing=config.label_smoothing,
        weight_decay=config.weight_decay,
        layer_decay=phase.layer_decay if isinstance(phase, configs.Full) else 1.0,
        schedule=phase.schedule,
        optimizer=config.optimizer,
        focal_gamma=config.focal_gamma,
        class_weights=class_weights,
        balanced=config.balance == "sampling",
        global_clipnorm=config.global_clipnorm,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        ema_momentum=config.ema_momentum,
        learning_rates=phase.learning_rates if isinstance(phase, configs.Full) else None,
        remat=config.remat,
    )


def stages(config: configs.Finetune) -> list[str | None]:
    """Give the first stage that each part of phase full trains; None is the whole backbone."""
    first = config.full.unfreeze_from
    return list(first) if isinstance(first, list) else [first]


def batch_size_or_default(config: configs.Training) -> int:
    """Give the batch; 32 while it is still to be found."""
    return 32 if config.batch_size == "auto" else config.batch_size


def class_weights(config: configs.Training, splits: data.Splits) -> list[float] | None:
    """Give the weight of each class in the loss, if classes are to be balanced by weights."""
    from tlkit.training import losses

    return losses.balanced(splits.train.labels, len(splits.classes)) if config.balance == "weights" else None


def changes(augment: configs.Augment) -> dict[str, Any]:
    """Give what `data.batches` takes to change training examples; empty if augmentation is off."""
    from tlkit import data

    return data.switched_on({name: value for name, value in dataclasses.asdict(augment).items() if name != "views"})


def check_tta(config: configs.Training, augment: configs.Augment) -> None:
    """Refuse views of test photos that are all the photo itself.

    Raises:
        InvalidInput: augmentation changes no single photo.
    """
    if config.tta and not set(changes(augment)) - {"mixup", "cutmix"}:
        raise InvalidInput(f"tta is {config.tta}, but no change of single photos is on in --augment: leave tta out")
