"""A classifier of tlkit that another run goes on from: its network, its head, its classes and what it has seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tlkit import config as configs
from tlkit.display import few, say
from tlkit.errors import InvalidInput
from tlkit.recipes import _models, _training_runs
from tlkit.recipes._training_runs import plain

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tlkit import data, features, probes
    from tlkit.data.modalities import Reading
    from tlkit.training import Head

LAYERS = ("pool", "dropout", "head", "probabilities")


class Parent(NamedTuple):
    """A classifier that is gone on from.

    Args:
        name: As the user gave it.
        uri: As it is found again: an alias became a version.
        backbone: Name of its network.
        classes: Names of its classes.
        reading: How photos become what it takes.
        pooled_stages: Number of stages that its head learns from.
        kernel: Of its head, shape (features, classes).
        bias: Of its head, shape (classes,).
        several: Whether a photo may have several labels.
        training: What is known of its training.
    """

    name: str
    uri: str
    backbone: str
    classes: list[str]
    reading: Reading
    pooled_stages: int
    kernel: np.ndarray
    bias: np.ndarray
    several: bool
    training: _training_runs.Training

    def place(self, name: str) -> int | None:
        """Give the position of a class among its own; None if it does not have it."""
        own = [plain(each) for each in self.classes]
        return own.index(plain(name)) if plain(name) in own else None

    @property
    def tags(self) -> dict[str, str]:
        """The tags of a run that goes on from it."""
        run = {"continued_run": self.training.run.info.run_id} if self.training.run else {}
        return {"continued_model": self.uri, **run}


def is_model(name: str) -> bool:
    """Whether a name is that of a saved model.

    >>> is_model("models:/flowers@champion"), is_model("flowers.keras"), is_model("flowers.weights.h5")
    (True, True, False)
    """
    return name.startswith(_models.URIS) or name.endswith(".keras")


def read(name: str, uri: str, path: Path, saved: _models.Saved) -> Parent:
    """Read a classifier, without keeping its network.

    Args:
        name: As the user gave it.
        uri: As it is found again.
        path: Of its file.
        saved: What that holds.

    Raises:
        InvalidInput: it is no classifier of one network that tlkit has made.
    """
    from tlkit import serving, tracking

    network(saved.model, name)
    if saved.classes is None:
        raise InvalidInput(f"{name} holds no class names: give it as --backbone.name, which puts a new head on it")
    tracking.open_store()
    training = _training_runs.training(uri, path)
    kernel, bias = saved.model.get_layer("head").get_weights()
    return Parent(
        name=name,
        uri=uri if uri.startswith(_models.URIS) else str(path.absolute()),
        backbone=(training.run.data.params.get("backbone.name") if training.run else None) or name,
        classes=saved.classes,
        reading=saved.reading,
        pooled_stages=len(saved.model.get_layer("backbone").outputs),
        kernel=kernel,
        bias=bias,
        several=serving.multi_label(saved.model),
        training=training,
    )


def network(model: keras.Model, name: str) -> keras.Model:
    """Give the network of a classifier, up to its last feature map.

    Raises:
        InvalidInput: it is no classifier of one network that tlkit has made.
    """
    import keras

    layers = {layer.name: layer for layer in model.layers}
    if not isinstance(layers.get("backbone"), keras.Model) or not layers.keys() >= set(LAYERS):
        raise InvalidInput(
            f"{name} is no classifier of one network and its head, as finetune, feature_extraction and auto make: give "
            "it as --backbone.name, which puts a new head on it"
        )
    backbone = layers["backbone"]
    return keras.Model(backbone.inputs[0], backbone.outputs[-1], name="backbone")


def known_stages(parent: Parent, network: keras.Model) -> dict[str, str] | None:
    """Give the stages of its network where that is one of the table; None where they are to be found."""
    from tlkit import backbones

    names = {layer.name for layer in network.layers}
    row = backbones.BACKBONES.get(parent.backbone)
    return dict(row.stages) if row and names.issuperset(row.stages.values()) else None


# Classes and examples ------------------------------------------------------------------------------------------------


def ordered(examples: data.Examples, parent: Parent | None) -> data.Examples:
    """Put the classes that a parent has in its order, and new ones behind them, and say which are which.

    Raises:
        InvalidInput: an example may have several labels, and has one in the parent, or the other way round.
    """
    import numpy as np

    if parent is None:
        return examples
    if parent.several != examples.multi_label:
        kinds = ["one label an example", "several labels an example"]
        raise InvalidInput(
            f"{parent.name} gives {kinds[parent.several]}, and the data have {kinds[examples.multi_label]}: give it as "
            "--backbone.name, which puts a new head on it"
        )
    places = [parent.place(name) for name in examples.classes]
    order = sorted(range(len(places)), key=lambda n: (places[n] is None, places[n], n))
    classes = [examples.classes[n] for n in order]
    new = [name for name in classes if parent.place(name) is None]
    gone = [name for name in parent.classes if plain(name) not in {plain(each) for each in classes}]
    parts = [f"{len(classes) - len(new)} of its {len(parent.classes)} classes stay"]
    parts += [f"new: {few(new, 5)}"] if new else []
    parts += [f"left out, as there are no photos of them here: {few(gone, 5)}"] if gone else []
    say(f"going on from {parent.name}: {'; '.join(parts)}")
    labels, moved = np.asarray(examples.labels), np.argsort(order)
    changed = labels[:, order] if examples.multi_label else moved[labels].tolist()
    return examples._replace(classes=classes, labels=changed)


def without_seen(splits: data.Splits, parent: Parent | None) -> data.Splits:
    """Take test photos out that a parent was trained on or that chose its weights.

    Splits are by content, so there are none unless the fractions or the data's own splits have changed.

    Raises:
        InvalidInput: no other is left.
    """
    if parent is None or splits.test is None:
        return splits
    rest = [place for place, hash_ in enumerate(splits.test.hashes) if hash_ not in parent.training.hashes]
    if len(rest) == len(splits.test):
        return splits
    if not rest:
        raise InvalidInput(
            f"{parent.name} has seen all {len(splits.test):,} test photos in training: give the fractions and splits "
            "that it was trained with, or new test photos"
        )
    say(f"test: {len(splits.test) - len(rest):,} photos that {parent.name} has seen in training are taken out")
    return dataclasses.replace(splits, test=splits.test.select(rest))


# The head ------------------------------------------------------------------------------------------------------------


def start(model: keras.Model, parent: Parent | None, classes: Sequence[str]) -> None:
    """Begin a head with what the parent's has for the classes that stay; new ones begin as the mean of these."""
    import numpy as np

    if parent is None:
        return
    head = model.get_layer("head")
    if head.kernel.shape[0] != len(parent.kernel):
        raise InvalidInput(
            f"the head of {parent.name} takes {len(parent.kernel)} features, and the network gives "
            f"{head.kernel.shape[0]}: leave --backbone.pooled_stages out"
        )
    places = [parent.place(name) for name in classes]
    known = [place for place in places if place is not None] or list(range(len(parent.bias)))
    kernel, bias = parent.kernel[:, known].mean(axis=1), parent.bias[known].mean()
    kernels = [kernel if place is None else parent.kernel[:, place] for place in places]
    head.set_weights(
        [np.stack(kernels, axis=1), np.array([bias if place is None else parent.bias[place] for place in places])]
    )


def head(parent: Parent | None, classes: Sequence[str]) -> Head | None:
    """Give the parent's head where the classes are the same; else None."""
    from tlkit.training import Head

    if parent is None or parent.several or len(classes) != len(parent.classes):
        return None
    places = [place for name in classes if (place := parent.place(name)) is not None]
    if len(places) < len(classes):
        return None
    return Head(parent.kernel[:, places], parent.bias[places], parent.name)


def old_features(extractor: features.Extractor, splits: data.Splits, parent: Parent | None) -> features.Features | None:
    """Find features of photos that the parent learned from and that are not among the data, of the classes that stay.

    They are in the activation store where the network is the same; the photos themselves are not needed.
    """
    if parent is None or parent.several:
        return None
    places = {plain(name): place for place, name in enumerate(splits.classes)}
    here = {hash_ for part in splits.by_name.values() for hash_ in part.hashes}
    labels = {
        hash_: places[plain(label)]
        for hash_, label in parent.training.labels.items()
        if hash_ not in here and plain(label) in places
    }
    found = extractor.recall(labels, splits.train) if labels else None
    if labels:
        count = len(found) if found else 0
        say(
            f"features of {count:,} of {len(labels):,} other photos that {parent.name} learned from are in the store"
            + (", and are learned from too" if count else "")
        )
    return found


def better(
    probe: probes.Probe, known: features.Features, parent: Parent | None, classes: Sequence[str]
) -> tuple[probes.Probe, np.ndarray]:
    """Give the parent's head in place of a solved one if it is clearly better on photos that it has not seen.

    Args:
        probe: The solved head; its cross-validated probabilities are compared.
        known: What it was solved on.
        parent: The parent.
        classes: Names of the classes.

    Returns:
        The head that is kept, and the positions of the examples for which its held-out probabilities hold.
    """
    import numpy as np

    from tlkit.training import verdicts

    every = np.arange(len(known))
    theirs = head(parent, classes)
    if theirs is None or parent is None or not parent.training.hashes:
        return probe, every
    new = np.array([n for n, hash_ in enumerate(known.hashes) if hash_ not in parent.training.hashes], int)
    if not len(new):
        return probe, every
    labels, solved = known.labels[new], np.log(np.maximum(probe.held_out[new], 1e-12))
    logits = known.read(new).astype(np.float32) @ theirs.kernel + theirs.bias
    accuracies = [float((values.argmax(axis=1) == labels).mean()) for values in (logits, solved)]
    keeps = verdicts.compare(solved, logits, labels).clearly_better
    say(
        f"head: on {len(new):,} photos that are new to {parent.name}, its head has accuracy {accuracies[0]:.3f}, the "
        f"solved head {accuracies[1]:.3f} (cross-validated): the {'former' if keeps else 'solved one'} is kept"
    )
    if not keeps:
        return probe, every
    probe = probe._replace(kernel=theirs.kernel, bias=theirs.bias)
    return probe._replace(held_out=probe.probabilities(known.array())), new


def of(config: configs.FeatureExtraction | configs.Finetune) -> Parent | None:
    """Give the classifier that a config goes on from; None if there is none."""
    from tlkit.recipes import _sources

    return (
        _sources.resolve(config.backbone, config.data.image_size).parent if is_model(config.backbone.weights) else None
    )
