"""The examples that `evaluate` tests on: all of the data, or their test split, without those that a model has seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tlkit import config as configs
from tlkit.config import Evaluate
from tlkit.display import few, say
from tlkit.errors import InvalidInput, Unavailable
from tlkit.recipes import _export_data, _inputs, _runs
from tlkit.recipes._models import Classifier
from tlkit.recipes._training_runs import Training, plain

if TYPE_CHECKING:
    import numpy as np

    from tlkit import data

NAMED = 3  # examples that are named for each reason


class Loaded(NamedTuple):
    """Labeled examples as one model reads them.

    Args:
        examples: All that are tested on, before any are left out.
        classes: Names of their classes, which `examples.labels` number.
        name: Of the data, for a person.
        set_aside: Those that cannot be decoded, each with the reason.
    """

    examples: data.Photos
    classes: list[str]
    name: str
    set_aside: list[str]


def load(config: Evaluate, classifier: Classifier) -> Loaded:
    """Load the data as a model reads them.

    Raises:
        InvalidInput: they are of another kind or shape, or have classes that the model does not have.
    """
    from tlkit import data

    asked, reading, photos = config.data, classifier.reading, classifier.kind == "photos"
    examples = _inputs.listed(dataclasses.replace(asked, white=reading.white if photos else None))
    if examples.kind != classifier.kind:
        raise InvalidInput(f"the data are {examples.kind}, and {classifier.name} takes {classifier.kind}")
    _check_classes(examples.classes, classifier)
    if examples.multi_label and not classifier.several:
        raise InvalidInput(f"the examples may have several labels, and {classifier.name} gives one")
    if tested := [place for place, split in enumerate(examples.splits) if split == "test"]:
        say(f"of {len(examples.names):,} {examples.kind}, the {len(tested):,} of the data's test split are scored")
        examples = examples.select(tested)
    shape = classifier.model.input_shape[1:]
    framing = {"size": shape[:2], "channels": shape[2], "resize": reading.resize} if photos else {}
    part, set_aside = data.whole(
        examples, **framing, seconds=asked.seconds, white=reading.white if photos else None, strict=asked.strict
    )
    if part.shape != shape:
        raise InvalidInput(f"the data are of shape {part.shape}, and {classifier.name} takes {shape}")
    return Loaded(part, examples.classes, _runs.dataset_name(asked), set_aside)


def _check_classes(classes: Sequence[str], classifier: Classifier) -> None:
    known = {plain(name) for name in classifier.classes}
    if unknown := [name for name in classes if plain(name) not in known]:
        raise InvalidInput(
            f"the data have classes that {classifier.name} does not have: {few(unknown, 3)}; it has "
            f"{few(classifier.classes, 10)}"
        )


def labels(loaded: Loaded, classifier: Classifier) -> np.ndarray:
    """Give the labels of the examples the model's numbers, by their names.

    Shapes:
        returns: (n,), or for a model that gives several labels (n, classes), zeros and ones
    """
    import numpy as np

    places = {plain(name): place for place, name in enumerate(classifier.classes)}
    place = np.array([places[plain(name)] for name in loaded.classes])
    given = loaded.examples.labels
    if not classifier.several:
        return place[given]
    several = np.zeros((len(given), len(classifier.classes)), np.float32)
    several[:, place] = given if given.ndim == 2 else np.eye(len(place))[given]
    return several


def seen(examples: data.Photos, classifier: Classifier, known: Training) -> dict[int, str]:
    """Find the examples that a model has seen, by their content, and their near copies, each with the reason."""
    reasons = {
        place: f"the model has seen it ({known.hashes[hash_]})"
        for place, hash_ in enumerate(examples.hashes)
        if hash_ in known.hashes
    }
    rest = [place for place in range(len(examples)) if place not in reasons]
    reasons |= {rest[place]: reason for place, reason in _near(examples.select(rest), classifier, known).items()}
    return dict(sorted(reasons.items()))


def _near(examples: data.Photos, classifier: Classifier, known: Training) -> dict[int, str]:
    """Find examples that are near copies of what a model has seen, where that is still there."""
    from tlkit import data
    from tlkit.inspection import near_copies

    if not (known.run and known.hashes and len(examples) and near_copies.searchable(examples)):
        return {}
    try:
        splits = _export_data.loaded(_export_data.settings_of(known.run), classifier)
    except (InvalidInput, Unavailable) as error:
        say(f"near copies of its training {classifier.kind} cannot be looked for: {error}", error=True)
        return {}
    others = data.Photos.joined(list(splits.by_name.values()))
    others = others.select([place for place, hash_ in enumerate(others.hashes) if hash_ in known.hashes])
    if missing := len(known.hashes) - len(set(others.hashes)):
        say(
            f"{missing:,} of {len(known.hashes):,} that it has seen are gone: their near copies are unknown", error=True
        )
    found = near_copies.across(examples, others)
    return {copy.first: f"near copy of what the model has seen ({others.names[copy.second]})" for copy in found}


def say_seen(reasons: Mapping[int, str], loaded: Loaded, name: str, left_out: bool) -> None:
    """Name the first examples that a model has seen."""
    known = (
        ("the model", "that it was trained on, or that chose its weights"),
        ("near copy", "that are near copies of such"),
    )
    for start, what in known:
        names = [loaded.examples.names[place] for place, reason in reasons.items() if reason.startswith(start)]
        if names:
            then = "left out" if left_out else "scored all the same"
            say(f"{name}: {len(names):,} {loaded.examples.kind} {what}, {then}: {few(names, NAMED)}", error=True)


def majority(known: Training, classifier: Classifier) -> np.ndarray | None:
    """Give labels with the counts that training had, of which the most frequent is what a constant would say."""
    import numpy as np

    places = {plain(name): place for place, name in enumerate(classifier.classes)}
    counts = [(places[plain(label)], count) for label, count in known.counts.items() if plain(label) in places]
    if classifier.several or not counts:
        return None
    return np.repeat(*np.transpose(counts))


def settings(config: configs.Data) -> dict[str, object]:
    """Give the settings of the data that are not the default, as parameters of a run."""
    values, usual = configs.flatten(config, "data."), configs.flatten(configs.Data(), "data.")
    return {name: value for name, value in values.items() if value != usual[name]}
