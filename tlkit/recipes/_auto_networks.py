"""The networks that `auto` tries: which, how large and how fast they are, and which of them are within the bounds."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tlkit import config as configs
from tlkit.errors import InvalidInput, Unavailable
from tlkit.recipes import _decisions, _networks, _sources

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tlkit import data
    from tlkit.data.resizing import Resize
    from tlkit.features import Extractor

SMALL = 64  # pixels: gray photos up to this size are as LetterNet knows them
CALLS = 7  # of which the median is the time for one photo


class Network(NamedTuple):
    """A backbone that is built.

    Args:
        config: Its settings, as `feature_extraction` has them.
        title: Its name for people.
        classifier: With a head that is not solved.
        model: Its backbone, preprocessing included.
        megabytes: Size of its weights in a file.
        cost: Estimated seconds for one photo, from counts alone; to compare networks.
        extractor: What computes its pooled features.
        milliseconds: Measured time for one photo; None where no bound asks for it.
        tuned: If it is fine-tuned, from pixels to its pooled features: Keras computes them, and they are not stored.
        slower: Times that this takes, of what the engine for features takes.
    """

    config: configs.FeatureExtraction
    title: str
    classifier: keras.Model
    model: keras.Model
    megabytes: float
    cost: float
    extractor: Extractor
    milliseconds: float | None = None
    tuned: keras.Model | None = None
    slower: float = 1.0

    @property
    def widths(self) -> list[int]:
        """Numbers of the features that each stage gives."""
        from tlkit import backbones

        return backbones.pooled_widths(self.classifier)

    def features(self, photos: data.NamedExamples) -> np.ndarray:
        """Compute the pooled features of photos, (n, features), or find them in the store."""
        if self.tuned is not None:
            from tlkit import training

            return training.predict(self.tuned, photos)
        (found,) = self.extractor.extract(photos)
        return found[:]


def candidates(config: configs.Auto, examples: data.Examples) -> list[configs.Backbone]:
    """List the networks to try, probably the fastest first; of those that were asked for, what is here first.

    Raises:
        InvalidInput: one that was asked for does not exist.
    """
    from tlkit import backbones

    if config.backbones is not None:
        asked = [configs.Backbone(each) if isinstance(each, str) else each for each in config.backbones]
        placed = {each: _is_here(each) for each in asked}
        return sorted(placed, key=lambda each: not placed[each])
    if config.data.origin == "embedded":
        return [configs.Backbone("LetterNet")]
    here = [configs.Backbone(each.name, alpha=each.alpha) for each in backbones.on_this_machine()]
    letters = [configs.Backbone("LetterNet")] if is_small_and_gray(examples) else []
    return letters + here or [configs.Backbone("MobileNetV2")]


def _is_here(backbone: configs.Backbone) -> bool:
    """Whether a network that was asked for is on this machine.

    Raises:
        InvalidInput: it does not exist.
    """
    try:
        _sources.check(backbone)
        return _sources.is_here(backbone)
    except Unavailable:  # `first` says why
        return False


def is_small_and_gray(examples: data.Examples) -> bool:
    """Tell whether photos are arrays like the scanned digits that LetterNet is for."""
    shape: tuple[int, ...] = getattr(examples.contents, "shape", ())
    return len(shape) == 4 and shape[-1] == 1 and max(shape[1:3]) <= SMALL


def build(config: configs.Auto, backbone: configs.Backbone, resize: Resize, examples: data.Examples) -> Network:
    """Build a candidate.

    Raises:
        Unavailable: its weights are neither here nor can they be downloaded.
        InvalidInput: it cannot be built at this size, or its weights do not fit.
    """
    from tlkit import features

    common = {name: getattr(config, name) for name in ("precision", "seed", "experiment", "features")}
    place = dataclasses.replace(config.data, resize=resize)
    full = _decisions.completed(configs.FeatureExtraction(backbone=backbone, data=place, **common))
    model = _networks.classifier(full, examples)
    network = features.pooled(model)
    milliseconds = one_photo(network) if config.fastest_ms else None
    return Network(
        config=full,
        title=title(full.backbone),
        classifier=model,
        model=model.get_layer("backbone"),
        megabytes=4e-6 * model.count_params(),
        cost=features.seconds_each(network),
        extractor=_networks.extractor(full, network, "pooled"),
        milliseconds=milliseconds,
    )


def title(backbone: configs.Backbone) -> str:
    """Name a network for people, by its weights too where these are not the published ones.

    >>> title(configs.Backbone("MobileNet", alpha=0.5)), title(configs.Backbone("VGG16", "runs/mine.weights.h5"))
    ('MobileNet 0.5', 'VGG16 (mine.weights.h5)')
    """

    published = backbone.weights == "pretrained" or backbone.weights == _sources.row(backbone).pretrained
    return _networks.title(backbone) + ("" if published else f" ({os.path.basename(backbone.weights)})")


def one_photo(model: keras.Model) -> float:
    """Measure how many milliseconds a model takes for one photo, by itself."""
    import numpy as np

    pixels, times = np.zeros((1, *model.input_shape[1:]), np.float32), []
    model.predict_on_batch(pixels)  # compiles
    for _ in range(CALLS):
        began = time.perf_counter()
        model.predict_on_batch(pixels)
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def excess(config: configs.Auto, passes: Sequence[Network]) -> str:
    """Say which bound a model of these networks exceeds; empty if it is within all.

    Args:
        config: The bounds.
        passes: Its networks, each as often as it is computed: twice where it sees the mirror image too.
    """
    megabytes = sum(network.megabytes for network in {id(each.model): each for each in passes}.values())
    if config.largest_mb and megabytes > config.largest_mb:
        return f"{megabytes:.1f} MB; largest_mb is {config.largest_mb:g}"
    milliseconds = sum(network.milliseconds or 0.0 for network in passes)
    if config.fastest_ms and milliseconds > config.fastest_ms:
        return f"{milliseconds:.1f} ms a photo; fastest_ms is {config.fastest_ms:g}"
    return ""


def first(
    config: configs.Auto, asked: Sequence[configs.Backbone], resize: Resize, examples: data.Examples
) -> tuple[Network, list[configs.Backbone], dict[str, str]]:
    """Build the first network that can be had and is within the bounds.

    Returns:
        The network, those after it, and why those before it are left out.

    Raises:
        Unavailable: the weights of none can be had.
        InvalidInput: none is within the bounds.
    """
    left_out: dict[str, str] = {}
    unavailable = []
    for number, candidate in enumerate(asked):
        name = title(candidate)
        try:
            network = build(config, candidate, resize, examples)
        except Unavailable as error:
            unavailable.append(error)
            left_out[name] = str(error)
            continue
        reason = excess(config, [network])
        if not reason:
            return network, list(asked[number + 1 :]), left_out
        left_out[network.title] = reason
    if len(unavailable) == len(asked) == 1:
        raise unavailable[0]
    if len(unavailable) == len(asked):
        raise Unavailable(f"none of the {len(asked)} networks is available: {unavailable[0]}")
    each = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:5])
    what = "the network" if len(asked) == 1 else f"each of the {len(asked)} networks"
    raise InvalidInput(f"{what} exceeds a bound ({each}): raise it, or name smaller networks with --backbones")
