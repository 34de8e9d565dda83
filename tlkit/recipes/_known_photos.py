"""The training photos that a model keeps the features of, found again by their content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tlkit.display import say
from tlkit.errors import InvalidInput, Unavailable
from tlkit.recipes import _export_data, _inputs, _training_runs
from tlkit.recipes._models import Classifier

if TYPE_CHECKING:
    import numpy as np

    from tlkit import data


class Known(NamedTuple):
    """Training photos of a model.

    Args:
        references: Features of each, (photos, features), of length 1.
        hashes: SHA-256 of each one's content.
        names: What the run calls a photo of a hash: its split and path.
        examples: What the run's source holds today; None where it cannot be listed.
    """

    references: np.ndarray
    hashes: list[str]
    names: Mapping[str, str]
    examples: data.Examples | None


def find(classifier: Classifier, path: Path) -> Known | None:
    """Find what a model keeps of its training photos, and say why where that is nothing.

    Args:
        classifier: The model.
        path: Of its file.
    """
    from tlkit.probes import novelty

    hashes = novelty.read_hashes(path)
    if classifier.references is None or hashes is None or len(hashes) != len(classifier.references):
        say("the model keeps no training photos to compare with: it was trained on too few, or by other means")
        return None
    known = _training_runs.training(classifier.name, path)
    examples = None
    if known.run is not None:
        try:
            examples = _inputs.listed(_export_data.settings_of(known.run))
        except (InvalidInput, Unavailable) as error:
            say(f"the training photos are named and not shown: {error}", error=True)
    else:
        say("the training photos are not shown, as the model's run is not in this store", error=True)
    return Known(classifier.references, hashes, known.hashes, examples)


def pictures(known: Known, places: Sequence[int], classifier: Classifier) -> list[tuple[str, np.ndarray | None]]:
    """Give the name and, where it is still there, the picture of some known photos.

    Args:
        known: All of them.
        places: Positions among them.
        classifier: Which reads photos.
    """
    return [_picture(known, known.hashes[place], classifier) for place in places]


def _picture(known: Known, hash_: str, classifier: Classifier) -> tuple[str, np.ndarray | None]:
    from tlkit.data import contents, modalities
    from tlkit.data.photos import file_format
    from tlkit.data.split import content_hash
    from tlkit.plots import shortened

    name = known.names.get(hash_, f"unknown: {hash_[:12]}").partition(": ")[2]
    caption = shortened(name, 30)
    if known.examples is None or name not in known.examples.names:
        return caption, None
    try:
        content = contents.read(known.examples.contents[known.examples.names.index(name)])
        if content_hash(content) != hash_:
            return caption, None
        shape = classifier.model.input_shape[1:]
        return caption, file_format(modalities.PHOTOS).decode(content, shape, name, classifier.reading)
    except (InvalidInput, OSError):
        return caption, None
