"""What is decided where a setting was left open, each decision with its reason."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tlkit import config as configs
from tlkit.errors import InvalidInput
from tlkit.recipes import _networks, _parents, _sources
from tlkit.untrusted import is_url

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tlkit import data

HEAD_EPOCHS = 30  # of a head that is not solved
MADE = ("embedded", "npz")  # pixels that somebody has already brought to a size
MOVES = {"zoom": 0.25, "shift": 0.125}  # of the photos that train a whole network, as random crops do
SOLVABLE = 10**6  # maximum number of weights of a head that is solved: more takes gigabytes
Config = TypeVar("Config", bound="configs.Recipe | configs.TrainGraph")
AnyData = TypeVar("AnyData", bound="configs.Data | configs.Graph")


class Decision(NamedTuple):
    """What is decided for a setting.

    Args:
        setting: Dotted name of the setting.
        value: What it is from now on.
        reason: Why, for people; empty if there is nothing to print, as for a path that becomes absolute.
        quiet: Already printed by the code that decided it.
    """

    setting: str
    value: Any
    reason: str = ""
    quiet: bool = False


def applied(config: Config, decisions: Sequence[Decision]) -> Config:
    """Give the settings with what was decided.

    >>> applied(configs.Finetune(), [Decision("head.epochs", 3), Decision("seed", 1)]).head.epochs
    3
    """
    return _replaced(config, {decision.setting: decision.value for decision in decisions})


def _replaced(config: Any, values: Mapping[str, Any]) -> Any:
    own = {name: value for name, value in values.items() if "." not in name}
    groups: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        group, _, rest = name.partition(".")
        if rest:
            groups.setdefault(group, {})[rest] = value
    inner = {group: _replaced(getattr(config, group), part) for group, part in groups.items()}
    return dataclasses.replace(config, **own, **inner) if values else config


def completed(config: Config) -> Config:
    """Give the settings with all that `fill_in` decides."""
    return applied(config, fill_in(config))


def fill_in(config: configs.Recipe | configs.TrainGraph) -> list[Decision]:
    """Decide what depends on other settings or on the machine, so that the stored config says what was done."""
    from tlkit import runtime
    from tlkit.tracking import registry

    if name := getattr(config, "register", None):
        registry.check_name(name)
    place: configs.Data | configs.Graph = located(config.data)
    decisions = [Decision("data.path", place.path)]
    if isinstance(place, configs.Data):
        decisions.append(Decision("data.source", place.source))
    if config.precision == "auto":
        decisions.append(
            Decision("precision", runtime.best_precision(), f"the best for a {runtime.device()[0].upper()}")
        )
    if isinstance(config, configs.Auto):
        decisions.append(Decision("features.store", _networks.store_path(config.features.store)))
    if isinstance(config, configs.FeatureExtraction | configs.Finetune | configs.Inspect):
        decisions += _of_backbone(config, embedded=config.data.origin == "embedded")
    return decisions


def positive(
    config: configs.Training | configs.FeatureExtraction | configs.Auto | configs.TrainGraph,
    classes: Sequence[str],
    labels: np.ndarray,
) -> list[Decision]:
    """Decide which of two classes precision, recall and average precision are of; nothing where there are not two.

    Args:
        config: The settings.
        classes: Names of the classes.
        labels: Labels of the training split.
    """
    from tlkit import evaluation

    if config.positive is not None or len(classes) != 2 or labels.ndim > 1:
        return []
    rarer = evaluation.rarer(labels)
    count = int((labels == rarer).sum())
    why = "the second of two equally frequent ones" if 2 * count == len(labels) else "the rarer one"
    return [Decision("positive", classes[rarer], f"{why} in training; precision and recall are of it")]


def decide_resize(data: configs.Data) -> list[Decision]:
    """Decide how photos are brought to the network's size, if that was left open.

    >>> decide_resize(configs.Data(path="photos"))[0].value, decide_resize(configs.Data())[0].value
    ('center', 'squash')
    """
    if data.resize:
        return []
    if data.origin in MADE:
        return [Decision("data.resize", "squash")]
    return [Decision("data.resize", "center", "the ends of photos that are not square are cut off")]


def located(data: AnyData) -> AnyData:
    """Give the data's absolute path and source, so that they mean the same from any folder.

    Raises:
        InvalidInput: there is nothing at the path; raised before weights are downloaded.
    """
    if data.path and "\\" in data.path:  # as the config of a run has it
        from tlkit.data.sources import Files

        data = dataclasses.replace(data, path=str(Files(Path()).find(data.path)))
    origin = {"source": data.origin} if isinstance(data, configs.Data) else {}
    elsewhere = "webdataset" in origin.values() or (data.path and is_url(data.path))  # "webdataset": perhaps a pattern
    if data.path and not elsewhere and not os.path.exists(data.path):
        raise InvalidInput(f"data.path is {data.path!r}; there is no such file or folder")
    return dataclasses.replace(data, path=absolute(data.path), **origin)  # type: ignore[arg-type]


def absolute(path: str | None) -> str | None:
    """Give the absolute path of data; a URL stays as it is.

    >>> absolute("s3://bucket/photos.tar")
    's3://bucket/photos.tar'
    """
    return path if not path or is_url(path) else os.path.abspath(path)


def _of_backbone(
    config: configs.FeatureExtraction | configs.Finetune | configs.Inspect, embedded: bool
) -> list[Decision]:
    name, weights = config.backbone.name, config.backbone.weights
    if name == "none" and isinstance(config, configs.Inspect):
        return []
    given = config.backbone
    if name == "auto" and not _sources.goes_on(given):
        name = "LetterNet" if embedded else "MobileNetV2"
        given = dataclasses.replace(given, name=name)
    source = _sources.resolve(given, config.data.image_size)
    row = source.row
    if weights == "pretrained":
        weights = row.pretrained
    decisions = [
        Decision("backbone.weights", os.path.abspath(weights) if os.path.isfile(weights) else weights),
        Decision("features.store", _networks.store_path(config.features.store)),
    ]
    if name != config.backbone.name:
        reason = (
            "pretrained for small gray images" if embedded else "small and good; select ranks others on your photos"
        )
        decisions.append(Decision("backbone.name", name, reason))
    decisions += [Decision(*each) for each in source.settings]
    if source.parent:
        decisions += _of_parent(config, source.parent)
        config = applied(config, decisions)
    if config.data.image_size is None:
        own = "the size that the network takes" if source.settings else "the size of its pretraining"
        reason = f"as {source.parent.name} has it" if source.parent else own
        decisions.append(Decision("data.image_size", row.size, reason))
    if source.resize and config.data.resize is None:
        decisions.append(Decision("data.resize", source.resize, "as its image converter does"))
    else:
        decisions += decide_resize(config.data)
    if not isinstance(config, configs.Finetune):
        return decisions
    if config.full.batch_normalization is None:
        normalization, reason = ("train", "random") if weights == "none" else ("inference", "pretrained")
        decisions.append(Decision("full.batch_normalization", normalization, f"as the weights are {reason}"))
    if isinstance(config.augment.flip, list):
        raise InvalidInput(f"augment.flip is {config.augment.flip}; for photos it must be true or false")
    if config.augment.flip is None:
        reason = "as a mirrored digit is another sign" if embedded else "as a mirrored photo shows the same things"
        decisions.append(Decision("augment.flip", not embedded, reason))
    whole = config.full.epochs != 0 and config.full.unfreeze_from is None and config.data.origin not in MADE
    for name, usual in MOVES.items():
        if getattr(config.augment, name) is None:
            reason = "so that each epoch sees other pixels" if whole else ""
            decisions.append(Decision(f"augment.{name}", usual if whole else 0.0, reason))
    return decisions


def _of_parent(
    config: configs.FeatureExtraction | configs.Finetune | configs.Inspect, parent: _parents.Parent
) -> list[Decision]:
    """Take along how the photos of a classifier that is gone on from were read."""
    reading, reason = parent.reading, f"as {parent.name} has it"
    decisions = [] if config.data.resize else [Decision("data.resize", reading.resize, reason)]
    if config.data.white is None and reading.white is not None:
        decisions.append(Decision("data.white", reading.white, reason))
    params = parent.training.run.data.params if parent.training.run else {}
    for name in ("target_accuracy", "label_sets"):  # a new threshold is chosen for it
        if getattr(config, name, 0) is None and name in params:
            decisions.append(Decision(name, float(params[name]), reason))
    return decisions


def decide_head(config: configs.Finetune, model: keras.Model, examples: data.Examples) -> list[Decision]:
    """Decide how the head is fitted: solved, trained, or both.

    Raises:
        InvalidInput: it is to be solved, which cannot be; or nothing at all is to be done; or it is solved and not
            trained, and has settings of its training; or it is solved first, and its learning rate is to be found.
    """
    asked, balanced = config.head, config.balance != "none"
    solved, epochs = asked.solved, asked.epochs
    reason = ""
    if solved is None:
        obstacle = _obstacle(config, model, examples)
        solved, reason = not obstacle, obstacle or "as each photo has one label and the head is small"
    elif solved and (examples.multi_label or balanced):
        why = "a photo may have several labels" if examples.multi_label else f"balance is {config.balance}"
        raise InvalidInput(f"head.solved is true, but {why}, which logistic regression does not know: leave it out")
    if epochs is None:
        epochs = 0 if solved else HEAD_EPOCHS
    if not (solved or epochs or config.full.epochs != 0):
        raise InvalidInput("the head is not solved here, and the number of epochs is 0: give --head.epochs")
    if solved and not epochs:
        _refuse_unused(asked)
    if solved and epochs and asked.learning_rate == "auto":
        raise InvalidInput(
            "head.learning_rate is 'auto', but the head is solved first, after which the loss falls at no rate: give a "
            "number, or --head.solved false"
        )
    return [Decision("head.solved", solved, reason), Decision("head.epochs", epochs)]


def _obstacle(config: configs.Finetune, model: keras.Model, examples: data.Examples) -> str:
    """Say why the head is not solved; empty if nothing stands against it."""
    weights = math.prod(model.get_layer("head").kernel.shape)
    if examples.multi_label:
        return "as a photo may have several labels"
    if config.balance != "none":
        return f"as balance is {config.balance}"
    if weights > SOLVABLE:
        return f"as the head has {weights:,} weights, and solving more than {SOLVABLE:,} takes gigabytes"
    return ""


def _refuse_unused(head: configs.Head) -> None:
    """Refuse settings of the training of a head that is solved and not trained."""
    defaults = configs.Head()
    for name in ("learning_rate", "warmup", "patience", "schedule"):
        if (value := getattr(head, name)) != getattr(defaults, name):
            raise InvalidInput(
                f"head.{name} is {value}, but the head is solved and not trained: give --head.epochs {HEAD_EPOCHS} "
                "or --head.solved false too, or leave it out"
            )
