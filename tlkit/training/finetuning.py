"""Fine-tuning a classifier: a head on frozen features first, then the network from a stage on.

`fine_tune` does it in one call. Its steps are public too, for whoever wants to look at a decision before the next step,
as the recipe does: `activations.choose_input`, `activations.pool`, `rates.find`, `fit_phases`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import keras

from tlkit import backbones
from tlkit.data import Splits
from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.features import Extractor, Features
from tlkit.features.store import Store
from tlkit.training import activations, checkpoints, plans, rates
from tlkit.training.activations import FullInput, PooledFeatures
from tlkit.training.devices import find
from tlkit.training.full import LORA_RATE, fit_full
from tlkit.training.heads import Head, fit_head, solve_head, solve_kept
from tlkit.training.plans import FineTuning
from tlkit.training.settings import Checkpointing, History, Settings

HEAD_RATE, RATE, HEAD_PATIENCE = 3e-3, 3e-4, 10  # the defaults of the recipe


def fine_tune(
    model: keras.Model,
    splits: Splits,
    *,
    epochs: int | None = None,
    unfreeze_from: str | None = None,
    lora_rank: int | None = None,
    learning_rate: float | Literal["auto"] = RATE,
    batch_size: int = 32,
    augment: Mapping[str, Any] | None = None,
    store: Store | None = None,
    seed: int = 0,
    devices: int | Literal["auto"] = 1,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> History:
    """Fine-tune a classifier: solve its head on frozen features, then train the backbone from a stage on.

    If a photo may have several labels, the head is trained, as logistic regression does not apply. If it saves time,
    the activations of the frozen stages are computed once instead of in every epoch.

    Args:
        model: A classifier of `backbones.classifier` on a backbone of `backbones.build`. Trained in place.
        splits: The photos, of `data.load`, at the size that the model takes.
        epochs: Number of epochs after the head, by default `plans.epochs`, or none if fewer than 20 validation photos
            are to tell whether they improve on a solved head. The last is kept, or weights between it and the solved
            head, if they are clearly better than the head, else that, which is then solved again with the validation
            photos if there is a test split.
        unfreeze_from: First stage to train, such as `stage4`; by default the whole backbone.
        lora_rank: Train factors of this rank instead of kernels; see `backbones.low_rank`.
        learning_rate: Peak learning rate of AdamW, which then falls along a cosine; `auto` finds it by a range test.
        batch_size: Photos per step.
        augment: Random changes of the training photos, as `data.batches` takes them, such as `{"flip": True}`.
        store: Where activations are stored for later runs; by default they are kept in memory.
        seed: Seeds the order of the photos and the augmentation.
        devices: Number of devices that share each batch; see `fit_full`.
        callbacks: Keras callbacks.

    Returns:
        One entry per epoch; the model has the weights of `history.best`.

    Raises:
        InvalidInput: the backbone has no such stage, or nothing there that factors could be trained of; the photos do
            not fit the model; the loss became nan or infinite at once; or factors are to be trained on several devices.
        Unavailable: not even a batch of 1 fits into memory.

    >>> from tlkit import data
    >>> splits = data.load("embedded", size=(32, 32), channels=1)
    >>> model = backbones.classifier(backbones.build("LetterNet"), len(splits.classes))
    >>> history = fine_tune(model, splits, epochs=1, unfreeze_from="stage3")
    phase full ...frozen stages...
    >>> history.best["val_accuracy"] > 0.97
    True
    """
    shape = tuple(model.input_shape[1:])
    if shape != tuple(splits.train.shape):
        size = f"size={shape[:2]}, channels={shape[2]}"
        raise InvalidInput(f"the photos are {splits.train.shape}, and the model takes {shape}: load them with {size}")
    solve, left_out = not splits.multi_label, False
    if epochs is None:
        left_out = solve and len(splits.val) < plans.FEWEST
        epochs = 0 if left_out else plans.epochs(len(splits.train), batch_size)
    plan = FineTuning(
        head=Settings(0 if solve else 30, HEAD_RATE, patience=HEAD_PATIENCE, batch_size=batch_size),
        full=Settings(epochs, RATE if learning_rate == "auto" else learning_rate, patience=None, batch_size=batch_size),
        solve=solve,
        stages=(unfreeze_from,),
        lora_rank=lora_rank,
        augment=augment,
        seed=seed,
        devices=devices,
    )
    backbones.unfreeze(model, from_stage=unfreeze_from)
    if lora_rank is not None:
        backbones.adaptable(model, lora_rank)  # refused before anything is computed

    def extractor(network: keras.Model, cut: str, dtype: str) -> Extractor:
        return Extractor(network, store, dtype=dtype, label=cut)

    full_input = activations.choose_input(model, splits, plan, extractor)
    pooled = activations.pool(model, splits, extractor)
    if learning_rate == "auto" and epochs:
        rate = rates.find(model, splits, plan, "full", pooled.train, RATE)
        plan = plan._replace(full=plan.full._replace(learning_rate=rate.value))
    history = fit_phases(model, full_input, pooled, plan, callbacks=callbacks)
    if splits.test and keeps_head(plan, history, left_out):
        solve_kept(model, Features.joined([pooled.train, pooled.val]), seed)
    return history


def keeps_head(plan: FineTuning, history: History, left_out: bool = False) -> bool:
    """Whether phase full has left a solved head as it was, or was left out unasked; see `heads.solve_kept`."""
    tried = len(history.epochs) > 1 or left_out
    return plan.solve and not plan.head.epochs and tried and history.best["phase"] == "head"


def fit_phases(
    model: keras.Model,
    full_input: FullInput,
    pooled: PooledFeatures | None,
    plan: FineTuning,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    checkpointing: Callable[[str], Checkpointing | None] = lambda phase: None,
    until: int | None = None,
    head: Head | None = None,
    replan: Callable[[str, History, Settings], Settings] = lambda name, history, settings: settings,
) -> History:
    """Carry out a plan: the head, then the parts of phase full; what the checkpoints show to be done is skipped.

    If nothing of a trial (see `FineTuning.full_parts`) is better than the solved head, be it ever so little, it is
    repeated from the head at a third of the learning rate, and once more; what follows is at the rate of the last. If
    nothing of any trial is better, that is the end: a trial is short, and only the end of phase full tells clearly
    whether fine-tuning pays.

    Args:
        model: The classifier.
        full_input: What phase full trains (the classifier, or its upper part, which shares its layers), and on what.
        pooled: What the head learns from; None if there is no such phase.
        plan: How it is fine-tuned.
        callbacks: Keras callbacks of every phase.
        checkpointing: From the name of a phase to where its checkpoint is written.
        until: Number of epochs of phase full after which it stops for now.
        head: One that was learned before, for the same classes; a solved head is compared with it.
        replan: From the name of a part after the first trial, the epochs so far (none where that part is resumed) and
            its settings to those that it is to have; 0 epochs are the end.

    Returns:
        One entry per epoch; the model has the weights of the best one.
    """
    if plan.lora_rank is not None and find(plan.devices):
        raise InvalidInput(f"lora_rank is {plan.lora_rank}, which trains on one device: leave devices out")
    steps = math.ceil(len(full_input.train) / plan.full.batch_size)
    parts = plan.full_parts(steps if until is None else None)
    files = [checkpointing(name) for name, _, _ in parts]
    # A phase is over if a later one has a checkpoint, which holds all that it learned.
    resumed_part = max(
        (number for number, file in enumerate(files) if file and checkpoints.exists(file.path)), default=-1
    )
    history = History([])
    if pooled and resumed_part < 0:
        history = _fit_head(model, pooled, plan, callbacks, checkpointing("head"), head)
    trials = [name for name, _, _ in parts if name in plans.TRIALS]
    begun = sum(bool(file and checkpoints.exists(file.path)) for file in files[: len(trials)])  # trials
    for number, (name, stage, settings) in enumerate(parts):
        if not plan.full.epochs or number < resumed_part:
            continue
        resumed = number == resumed_part
        if name in trials:
            if begun and not resumed:
                if history.gain(trials[begun - 1]) > 0:
                    continue
                found = f"as nothing of {trials[begun - 1]} is better than the head"
                say(f"{name}: learning rate {settings.learning_rate:.2g}, {found}")
            begun = number + 1
        elif trials:
            if not resumed and history.gain(trials[begun - 1]) <= 0:
                say("full: left out, as nothing of a trial has a lower validation loss than the solved head")
                break
            settings = settings.slower(plans.LOWER ** (begun - 1))
        if number and trials:
            settings = replan(name, history, settings)
            if not settings.epochs:
                break
        backbones.unfreeze(model, None, stage, plan.batch_normalization)
        _say_rank(model, plan, name)
        with backbones.low_rank(model, plan.lora_rank, plan.seed + number):
            history = fit_full(
                full_input.network,
                full_input.train,
                full_input.val,
                settings,
                seed=plan.seed,
                augment=full_input.augment,
                before=history,
                stages=backbones.stages(model),
                until=until,
                checkpointing=files[number],
                phase=name,
                callbacks=callbacks,
                devices=plan.devices,
            )
    return history


def _say_rank(model: keras.Model, plan: FineTuning, phase: str) -> None:
    if plan.lora_rank is not None:
        layers, parameters, kernels = backbones.adaptable(model, plan.lora_rank)
        say(
            f"{phase}: factors of rank {plan.lora_rank} beside {len(layers)} kernels learn, {parameters:,} weights in "
            f"place of {kernels:,}, at {LORA_RATE:g} times the learning rate of the head"
        )


def _fit_head(
    model: keras.Model,
    pooled: PooledFeatures,
    plan: FineTuning,
    callbacks: Sequence[keras.callbacks.Callback],
    checkpointing: Checkpointing | None,
    before: Head | None,
) -> History:
    """Solve the head, train it, or both."""
    history = History([])
    backbones.freeze(model)
    if plan.solve:
        history = solve_head(
            model, pooled.train, pooled.val, plan.head, seed=plan.seed, before=before, callbacks=callbacks
        )
    if plan.head.epochs:
        history = fit_head(
            model,
            pooled.train,
            pooled.val,
            plan.head,
            seed=plan.seed,
            before=history,
            checkpointing=checkpointing,
            callbacks=callbacks,
        )
    return history
