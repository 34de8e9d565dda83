"""The network that `describe` describes: built by its name, or loaded."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit import config as configs
from tlkit.config import CNN, Describe
from tlkit.display import shown
from tlkit.errors import InvalidInput
from tlkit.recipes import _models, _sources

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tlkit.data.modalities import Reading


class DescribedNetwork(NamedTuple):
    """A network and what is said of it.

    Args:
        name: Its name, or its file's.
        model: The network.
        weights: What its weights are, in words.
        ends: Name of the layer that ends each stage, if it is not the stage's own.
        takes_pixels: Whether it takes values from 0 to 255; else from -1 to 1.
        reading: How files become the examples that it takes; None for the default.
    """

    name: str
    model: keras.Model
    weights: str
    ends: Mapping[str, str] | None
    takes_pixels: bool
    reading: Reading | None = None

    def scaled(self, pixels: np.ndarray) -> np.ndarray:
        """Scale pixels from 0 to 255 to what the network takes."""
        return pixels if self.takes_pixels else pixels / 127.5 - 1


def load(config: Describe) -> DescribedNetwork:
    """Build or load the network.

    Raises:
        InvalidInput: there is none of this name, or it cannot have these weights.
    """
    if config.model is not None:
        name = shown(Path(config.model).name)
        saved = _models.load(config.model)
        return DescribedNetwork(name, saved.model, "with its weights", None, takes_pixels=True, reading=saved.reading)
    settings = config.builder
    weights = settings.weights or ("pretrained" if settings.name == "LetterNet" else "none")
    if _sources.is_hub(settings.name):
        return _of_hub(settings)
    if is_backbone(settings.name):
        model, ends = _backbone(settings, weights)
        return DescribedNetwork(settings.name, model, _in_words(weights), ends, takes_pixels=True)
    return DescribedNetwork(settings.name, _build(settings, weights), _in_words(weights), None, takes_pixels=False)


def _of_hub(settings: configs.Network) -> DescribedNetwork:
    """Load a backbone of KerasHub."""
    from tlkit import backbones

    size = settings.input_shape[0] if settings.input_shape else None
    source = _sources.resolve(configs.Backbone(settings.name), size)
    model = source.build(size or source.row.size)
    if settings.classes:
        model = backbones.classifier(model, settings.classes)
    return DescribedNetwork(_sources.title(settings.name), model, "with its weights", None, takes_pixels=True)


def is_backbone(name: str) -> bool:
    """Whether a name is that of a pretrained network, and not of a builder."""
    from tlkit import backbones

    return name in backbones.BACKBONES or _sources.is_hub(name)


def _in_words(weights: str) -> str:
    words = {"none": "random weights", "pretrained": "pretrained weights"}
    return words.get(weights, f"weights of {weights}")


def _shape(settings: configs.Network) -> tuple[int, ...] | None:
    return None if settings.input_shape is None else tuple(settings.input_shape)


def _backbone(settings: configs.Network, weights: str) -> tuple[keras.Model, Mapping[str, str]]:
    """Build a pretrained network, and give the layers that end its stages."""
    from tlkit import backbones

    model = backbones.build(settings.name, _shape(settings), weights)  # type: ignore[arg-type]
    if settings.classes:
        model = backbones.classifier(model, settings.classes)
    return model, backbones.row(settings.name).stages


def _build(settings: configs.Network, weights: str) -> keras.Model:
    """Build a network of `tlkit.builders`."""
    from tlkit import backbones, builders

    name = settings.name
    if name != "cnn" and name not in builders.VARIANTS:
        names = ["cnn", *builders.VARIANTS, *backbones.BACKBONES]
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
        raise InvalidInput(
            f"builder.name is {name!r}; did you mean {close}? tlkit.builders.VARIANTS and "
            "tlkit.backbones.BACKBONES list all"
        )
    if weights in ("pretrained", "imagenet"):
        published = getattr(builders.VARIANTS.get(name), "application", None)
        advice = f"--builder.name {published} has them, with their preprocessing" if published else "train it"
        raise InvalidInput(f"builder.weights is {weights!r}; {name} takes none or a file: {advice}")
    arguments: dict[str, Any] = {"weights": None if weights == "none" else weights}
    if name == "cnn":
        return builders.cnn(_shape(settings), classes=settings.classes or 10, **arguments, padding="same", **CNN)
    return builders.build(name, _shape(settings), classes=settings.classes, **arguments)
