"""The examples of a recipe: listed, checked, split, and their features."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tlkit import config as configs
from tlkit.display import called, few, say, shown
from tlkit.errors import InvalidInput, Undecodable
from tlkit.recipes import _calibration, _clusters, _summary

if TYPE_CHECKING:
    from tlkit import data, features


def listed(config: configs.Data) -> data.Examples:
    """List what the source holds; no file is opened yet."""
    from tlkit import data

    return data.load_source(
        config.origin,
        path=config.path,
        name=config.name,
        data_dir=config.data_dir,
        separator=config.separator,
        columns=config.columns,
        group=config.group,
        strict=config.strict,
        white=config.white,
    )


def photos(config: configs.Recipe) -> data.Examples:
    """List the photos for a pretrained backbone.

    Raises:
        InvalidInput: the data are not photos, or cannot be balanced or scored as the config says.
    """
    import numpy as np

    examples = listed(config.data)
    if not examples.modality.pretrained:
        for note in examples.notes:
            say(note, error=True)
        flat = isinstance(examples.contents, np.ndarray) and examples.contents.ndim == 4
        remedy = "if these are photos, say by data.white which value is white; if not, " if flat else ""
        raise InvalidInput(
            f"data.path is {config.data.path!r}, which holds {examples.kind}; a pretrained backbone takes photos: "
            f"{remedy}train a network of your own with {called('train')}"
        )
    check(config, examples)
    return examples


def check(config: configs.Recipe, examples: data.Examples) -> None:
    """Refuse to sample classes equally often if an example may have several labels, and a positive class that is none.

    Raises:
        InvalidInput: the message says which setting it is about.
    """
    find_positive(getattr(config, "positive", None), examples.classes, examples.multi_label)
    _calibration.check(config, examples.classes, examples.multi_label)
    if isinstance(config, configs.Training) and config.balance == "sampling" and examples.multi_label:
        raise InvalidInput(
            "balance is 'sampling', but examples that may have several labels cannot be sampled so: give --balance "
            "weights, or leave it out"
        )


def find_positive(positive: str | None, classes: Sequence[str], multi_label: bool) -> int | None:
    """Give the position of the class that `--positive` names; None if it names none.

    Raises:
        InvalidInput: there is no such class, or there are not two.

    >>> find_positive("covid", ["covid", "normal"], multi_label=False)
    0
    """
    if positive is None:
        return None
    received = f"positive is {shown(positive)!r}"
    if multi_label:
        raise InvalidInput(
            f"{received}, but examples may have several labels, each with scores of its own: leave it out"
        )
    if len(classes) != 2:
        raise InvalidInput(f"{received}, but there are {len(classes)} classes, and it is for two: leave it out")
    plain = [unicodedata.normalize("NFC", shown(name)) for name in (*classes, positive)]  # as the run's config has it
    if plain[-1] not in plain[:-1]:
        raise InvalidInput(f"{received}, which is not a class; the classes are {few(classes)}: give one of them")
    return plain.index(plain[-1])


def require_one_label(examples: data.Examples, recipe: str) -> None:
    """Refuse examples that may have several labels, or none."""
    if examples.multi_label:
        raise InvalidInput(f"{recipe} takes one label an example, and these may have several: use finetune")


def splits(
    config: configs.Data,
    examples: data.Examples,
    shape: Sequence[int | None] | None = None,
    check: bool = True,
) -> data.Splits:
    """Read, check and split what was listed, and say what there is; see `load`."""
    loaded = load(config, examples, shape, check)
    say(summary(loaded))
    return loaded


def load(
    config: configs.Data,
    examples: data.Examples,
    shape: Sequence[int | None] | None = None,
    check: bool = True,
    quiet: bool = False,
) -> data.Splits:
    """Read, check and split what was listed.

    Args:
        config: Where the data are, and how they are split.
        examples: What was listed.
        shape: Height, width and channels of photos; by default their own.
        check: Look at every example before training, so that damaged ones are named and set aside.
        quiet: Print no warnings.
    """
    from tlkit import data

    height, width, channels = shape or (None, None, None)
    return data.load(
        examples,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        val_as_test=config.val_as_test,
        strict=config.strict,
        seconds=config.seconds,
        white=config.white,
        size=(height, width) if height and width else None,
        channels=channels,
        resize=config.resize,
        check=check,
        together=_near_pairs if config.near_copies == "together" else None,
        quiet=quiet,
        cluster=_clusters.current(),
    )


def unsplit(config: configs.Data, part: data.Examples, shape: Sequence[int | None], check: bool) -> data.Photos:
    """Open a part of what was listed, which is not split.

    Raises:
        InvalidInput: all photos must be seen to know how to read these.
    """
    from tlkit.data import loading
    from tlkit.data.modalities import Framing

    height, width, channels = shape
    framing = Framing((height, width) if height and width else None, channels, None)
    photos, opened, _ = loading.open_photos(
        part, framing, config.resize, config.white, check, config.strict, cluster=_clusters.current()
    )
    if opened.ranges and config.white is None:
        raise InvalidInput(
            "some photos have more than 8 bits, and a part of them does not show which value is white: give "
            "--data.white"
        )
    return photos


def _near_pairs(photos: data.Photos) -> list[tuple[int, int]]:
    from tlkit.inspection import near_copies

    return [(first, second) for first, second, _ in near_copies.within(photos)]


def summary(splits: data.Splits) -> str:
    """Say what the data are: the classes, the examples and groups of each split, and what is left out."""
    from tlkit import inspection

    counts = {"training": splits.train, "validation": splits.val, "test": splits.test}
    sizes = ", ".join(
        _summary.counted(len(part), name, len(set(part.grouping)) if part.grouping else None)
        for name, part in counts.items()
        if part
    )
    classes, *left_out = inspection.brief(inspection.of_splits(splits))
    shape = " x ".join(map(str, splits.train.shape))
    return "\n".join([classes, f"{splits.kind}: {sizes}; {shape}", *left_out])


def scored(splits: data.Splits) -> tuple[str, data.Photos]:
    """Give the split that a model is scored on and its name: the test split if there is one, else validation."""
    return ("test", splits.test) if splits.test else ("validation", splits.val)


def split_features(
    config: configs.Data, examples: data.Examples, extractor: features.Extractor, test: bool = True
) -> tuple[data.Splits, list[features.Features]]:
    """Split the photos and give the features of each split; photos whose features are stored are not decoded.

    Args:
        config: Where the data are, and how they are split.
        examples: What was listed.
        extractor: Computes the features.
        test: Include the test split.
    """
    from tlkit.training import activations

    shape, count = extractor.network.input_shape[1:], 3 if test else 2

    def extract(check: bool) -> tuple[data.Splits, list[features.Features]]:
        loaded = splits(config, examples, shape, check=check)
        return loaded, activations.extract(extractor, *list(loaded.by_name.values())[:count])

    try:
        return extract(check=False)
    except Undecodable:  # all are looked at, so that damaged ones are named and set aside
        return extract(check=True)
