"""What `auto` fine-tunes in the time that is left, and how it combines that with heads on frozen networks."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit import config as configs
from tlkit.display import say
from tlkit.progress import duration
from tlkit.recipes import (
    _auto_networks,
    _auto_search,
    _auto_tried,
    _decisions,
    _networks,
    _plans,
    _sources,
    _training_decisions,
)
from tlkit.recipes._auto_networks import Network
from tlkit.recipes._auto_search import TRACING, Search
from tlkit.recipes._auto_tried import HELD, Tried

if TYPE_CHECKING:
    import keras

    from tlkit import data, training

TIMES = 7.0  # forward passes of the engine for features that a photo takes in training, in a network as a whole
TRAINED = 0.85  # of the time that is left: the rest is for validation, and for heads on the training photos alone
SLOWER = 2.5  # times that Keras takes for a forward pass
LEAST = 6  # epochs from which fine-tuning is tried
REST = 3  # epochs of what follows a trial, at the least
MOST = 10_000  # epochs
NETWORKS, MEMBERS = 2, 3  # that are fine-tuned; that a mean of predictions has, at the most


def fine_tuned(search: Search, singles: Sequence[Tried], best: Tried) -> list[Tried]:
    """Fine-tune the last stage of the best network and of the second best, then the whole of each; if there is time.

    Args:
        search: The search.
        singles: Heads on one network each.
        best: The best head of all, to which what is fine-tuned may be added.
    """
    from tlkit.training import plans

    ranked = sorted(singles, key=lambda each: each.loss)[:NETWORKS]
    val = len(search.held(ranked[0].networks[0], HELD).labels)
    if val < plans.FEWEST:
        search.left_out.append(
            _auto_tried.LeftOut("fine-tuning", f"{val} validation photos cannot say whether it helps")
        )
        return []
    networks, found = [each.networks[0] for each in ranked], list[Tried]()
    for network in networks:  # on stored activations, which takes a fraction of the time
        stages = _sources.row(network.config.backbone, network.config.data.image_size).stages
        found += _fine_tune(search, network, best, list(stages)[-1])
    for network in networks:
        found += _fine_tune(search, network, best, None)
    return found


def _fine_tune(search: Search, network: Network, best: Tried, stage: str | None) -> list[Tried]:
    """Fine-tune a network from a stage on, if there is time."""
    name = f"{network.title}, fine-tuned" + (f" from {stage}" if stage else "")
    config = _config(search, network, stage)
    fixed, epoch = _estimate(search, network, stage)
    left = TRAINED * search.seconds_left([*best.passes, _by_keras(network)])
    wanted: Any = config.full.epochs  # a number
    least = min(LEAST, wanted)
    epochs = min(wanted, int((left - fixed) / epoch))
    if epochs >= least:
        config = _decisions.applied(config, [_epochs(epochs)])
        return _train(search, network, name, config, time.perf_counter() + left)
    needed = duration(fixed + least * epoch)
    search.leave_out(name, f"{least} epochs would take {needed}; {duration(max(left, 0.0))} left")
    return []


def _by_keras(network: Network) -> Network:
    return network._replace(slower=SLOWER)


def _epochs(count: int) -> _decisions.Decision:
    return _decisions.Decision("full.epochs", count)


def _estimate(search: Search, network: Network, stage: str | None) -> tuple[float, float]:
    """Estimate the seconds before the first epoch, and those of an epoch."""
    from tlkit import arithmetic, backbones

    train, val = (len(part) for part in search.known(network, search.resize))
    photo = network.cost * search.pace
    if stage is None:
        return 2 * TRACING, photo * (TIMES * train + 2 * val)
    _, upper = backbones.split(network.classifier, from_stage=stage)
    parts = [arithmetic.totals(arithmetic.describe(part)).multiply_adds or 1 for part in (upper, network.classifier)]
    share = parts[0] / parts[1]
    return 2 * TRACING + photo * (2 * train + val), share * photo * (TIMES * train + 2 * val)


def _config(search: Search, network: Network, stage: str | None) -> configs.Finetune:
    """Give the settings by which `finetune` would fine-tune the network."""
    default = configs.Finetune()
    same = {name: getattr(network.config, name) for name in ("data", "backbone", "precision", "seed", "features")}
    config = dataclasses.replace(default, **same, full=dataclasses.replace(default.full, unfreeze_from=stage))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, resize=search.resize))
    config = _decisions.completed(config)
    train, val = search.known(network, search.resize)
    config = _decisions.applied(config, _training_decisions.decide_epochs(config, len(train), len(val)))
    if _auto_networks.is_small_and_gray(search.examples):
        config = _decisions.applied(config, [_decisions.Decision("augment.flip", False)])
    return config


def _train(search: Search, network: Network, name: str, config: configs.Finetune, deadline: float) -> list[Tried]:
    """Fine-tune, and score on the validation photos: the photo alone, and with its mirror image."""
    from tlkit import features, tracking
    from tlkit.training import activations, finetuning
    from tlkit.training.limits import TimeLimit

    began = time.perf_counter()
    folder = checkpoint_folder(search) / hashlib.sha256(f"{name} {config.backbone}".encode()).hexdigest()[:16]
    config = _decisions.applied(config, [_epochs(_as_begun(folder / "epochs.json", config.full.epochs or 0, "*"))])
    splits = _splits(search, network)
    model = _networks.trainable_classifier(config, search.examples)
    config = _decisions.applied(config, _decisions.decide_head(config, model, search.examples))
    plan, make_extractor = _plans.finetuning(config, splits), functools.partial(_networks.extractor, config)
    with _auto_search.step(search, name, **_params(config)) as run:
        full_input = activations.choose_input(model, splits, plan, make_extractor)
        pooled = activations.pool(model, splits, make_extractor)
        limit = TimeLimit(deadline)
        history = finetuning.fit_phases(
            model,
            full_input,
            pooled,
            plan,
            callbacks=[tracking.epoch_logger(), limit],
            checkpointing=lambda phase: _checkpointing(folder, phase),
            replan=lambda phase, history, part: _fitted(phase, history, part, deadline, folder),
        )
        if limit.reached:
            say(f"{name}: stopped after {len(history.epochs) - 1} epochs, as its time is up")
        seconds = time.perf_counter() - began
        tracking.log_metrics({"best_epoch": history.best["epoch"], "seconds": seconds})
        if history.best["phase"] == "head":
            search.leave_out(name, f"no epoch was better than its solved head, in {duration(seconds)}")
            return []
        tuned = _by_keras(network)._replace(
            classifier=model, model=model.get_layer("backbone"), title=name, tuned=features.pooled(model)
        )
        rows = _scored(search, tuned, model, splits, seconds, run.run_id)
        finished = _auto_search.finish(search, rows[0])
    for row in rows[1:]:
        say(f"{row.name}: accuracy {row.accuracy:.3f}, log loss {row.loss:.3f}")
    search.tried += rows[1:]
    return [finished, *rows[1:]]


def _splits(search: Search, network: Network) -> data.Splits:
    """Give the photos, those that are drawn where there is no time for all."""
    train, val = search.known(network, search.resize)
    return dataclasses.replace(search.photos(network, search.resize), train=train, val=val, test=None)


def _params(config: configs.Finetune) -> dict[str, Any]:
    return {f"full.{name}": getattr(config.full, name) for name in ("epochs", "learning_rate", "unfreeze_from")}


def _scored(
    search: Search, tuned: Network, model: keras.Model, splits: data.Splits, seconds: float, run_id: str
) -> list[Tried]:
    """Predict the validation photos by a fine-tuned network, and by the mean over each and its mirror image."""
    import numpy as np

    from tlkit import backbones

    kernel, bias = (np.asarray(value) for value in model.get_layer("head").get_weights())
    mirror = bool(_config(search, tuned, None).augment.flip)
    found, held, spent = list[Tried](), search.held(tuned, HELD), seconds
    for mirrored in (False, True)[: 1 + mirror]:
        began = time.perf_counter()
        if mirrored and (_auto_networks.excess(search.config, [tuned] * 2) or search.seconds_left([tuned] * 2) < 0):
            continue
        head = backbones.JoinedHead([tuned.model], kernel, bias, mirrored)
        name = tuned.title + ", mirror image too" * mirrored
        tried = Tried(name, (tuned,), (head,), np.empty(0), held, spent, run_id)
        tried = dataclasses.replace(tried, probabilities=tried.predict(splits.val))
        predicting = time.perf_counter() - began
        if found:  # Keras has compiled it before
            tuned = tuned._replace(slower=predicting / len(held.labels) / search.pace / tuned.cost / 2)
            tried = dataclasses.replace(tried, networks=(tuned,))
            found[0] = dataclasses.replace(found[0], networks=(tuned,))
        found.append(dataclasses.replace(tried, seconds=spent + predicting))
        spent = 0.0
    return found


def best_of(search: Search, alone: Tried, tuned: Sequence[Tried]) -> tuple[Tried, str]:
    """Choose between a head, fine-tuned networks and means of their predictions, all on the validation photos.

    To the best one is added what lowers the log loss of the mean most, as long as that lowers it.

    Args:
        search: The search.
        alone: The best head, solved on the training photos alone.
        tuned: The fine-tuned networks, each also with the mirror image.
    """
    began = time.perf_counter()
    pool, means = [alone, *(each for each in tuned if not _exceeds(search, each))], list[Tried]()
    members = [min(pool, key=lambda each: each.loss)]
    while len(members) < MEMBERS:
        used = [network.title for each in members for network in each.networks if network.tuned]
        rest = [each for each in pool if each not in members and each.networks[0].title not in used]
        added = [(_mean([*members, each], began), each) for each in rest]
        added = [each for each in added if not _exceeds(search, each[0])]
        if not added:
            break
        best, member = min(added, key=lambda each: each[0].loss)
        if best.loss >= (means or members)[-1].loss:
            break
        with _auto_search.step(search, best.name) as run:
            means.append(_auto_search.finish(search, dataclasses.replace(best, run_id=run.run_id)))
        members.append(member)
    return _auto_tried.choose([*pool, *means])


def _exceeds(search: Search, tried: Tried) -> bool:
    """Whether a model exceeds a bound, or there is no time to test it."""
    return search.seconds_left(tried.passes) < 0 or bool(_auto_networks.excess(search.config, tried.passes))


def _mean(members: Sequence[Tried], began: float) -> Tried:
    """Take the mean of the predictions of several."""
    import numpy as np

    networks = tuple({id(network.model): network for each in members for network in each.networks}.values())
    return Tried(
        name=" & ".join(each.name for each in members),
        networks=networks,
        heads=tuple(head for each in members for head in each.heads),
        probabilities=np.mean([each.probabilities for each in members], axis=0),
        held=members[0].held,
        seconds=time.perf_counter() - began,
    )


def checkpoint_folder(search: Search) -> Path:
    """Give the folder for checkpoints of this command on these data, by which it resumes when it is called again."""
    from tlkit.training import checkpoints

    settings = {**search.job.asked, "minutes": 0, "run_name": None, "experiment": "", "register": None, "export": None}
    digest = next(iter(search.splits.values())).digest
    key = hashlib.sha256(json.dumps([settings, digest], sort_keys=True, default=str).encode()).hexdigest()[:32]
    return checkpoints.FOLDER / f"auto-{key}"


def forget(search: Search) -> None:
    """Delete the checkpoints of a command that has finished."""
    from tlkit import untrusted
    from tlkit.training import checkpoints

    untrusted.remove(checkpoint_folder(search), checkpoints.FOLDER)


def _as_begun(file: Path, epochs: int, phase: str) -> int:
    """Keep a number of epochs; where the same phase has a checkpoint, give what was kept then."""
    from tlkit import atomic, untrusted

    if file.exists() and any(file.parent.glob(f"{phase}.npz")):
        before = untrusted.read_json(file)
        if type(before) is int and 0 < before <= MOST:
            return before
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic.writing(file) as opened:
        opened.write(json.dumps(epochs).encode())
    return epochs


def _fitted(
    phase: str, history: training.History, part: training.Settings, deadline: float, folder: Path
) -> training.Settings:
    """Plan as many epochs as the pace of the trials has time for: the learning rate is to end at zero."""
    seconds = [epoch["seconds"] for epoch in history.epochs if epoch["phase"] != "head"]
    wanted = part.epochs
    if seconds:
        each, tracing = min(seconds), seconds[0] - min(seconds)
        affordable = int((deadline - time.perf_counter() - tracing) / each)
        if affordable < min(REST, part.epochs):
            say(f"{phase}: left out, as {REST} epochs would take {duration(tracing + REST * each)}")
            return part._replace(epochs=0)
        wanted = min(part.epochs, affordable)
    if phase != "full":  # all of it, or the rate does not end at zero
        return part
    return part._replace(epochs=_as_begun(folder / "rest.json", wanted, phase))


def _checkpointing(folder: Path, phase: str) -> training.Checkpointing:
    from tlkit import training

    return training.Checkpointing(folder / f"{phase}.npz", within_epochs=True)
