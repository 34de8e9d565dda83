"""Train: a network from random weights, on photos, sounds or volumes.

python -m tlkit.recipes.train --builder.name resnet18 --data.path photos
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import time
from typing import TYPE_CHECKING, Any

from tlkit import cli
from tlkit.config import CNN, Augment, Train
from tlkit.errors import InvalidInput
from tlkit.recipes import _results, _runs, _steps

if TYPE_CHECKING:
    import keras

    from tlkit import data

FILES = ("folder", "csv", "tfds")  # whose photos have no one size
SIZE = 64  # height and width in pixels of photos in files, for a network that has no size of its own
SILENT = 0.01  # least variance of a band of a log-spectrogram
LARGEST = 1e38  # what float32 can hold
FRAME = 0.032  # seconds that each column of a spectrogram looks at, the usual compromise for speech


def run(config: Train, trial: _runs.Trial | None = None) -> _results.Result | _runs.Tried:
    """Train, score and log a classifier; see `config.Train` for the settings.

    Args:
        config: The settings.
        trial: Where the run is one of a search.
    """
    began = _steps.begin()
    from tlkit import runtime, tracking, training
    from tlkit.training import optimizers

    config, begun = _runs.resumed("train", config)
    config = _steps.complete(config)
    row = _row(config.builder.name)
    optimizers.check(config.optimizer)
    runtime.prepare(config.seed, config.precision)
    tracking.open_store(config.experiment)
    examples = _steps.listed(config.data)
    config = _complete(config, examples, row)
    _steps.check_tta(config)
    _steps.check_balance(config, examples)
    size = config.data.image_size
    channels = row.channels if row and size and config.data.source in FILES else None
    splits = _steps.splits(config.data, examples, (size, size) if size else None, channels)
    begun.check(splits)
    if splits.rate:
        seconds = splits.train.shape[0] / splits.rate
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, seconds=seconds))
    building = time.perf_counter()
    model = build(config, splits)
    _runs.admit(model, trial)
    config = _steps.with_batch_size(config, model, splits)
    _steps.check_updates(config, splits)
    config = _steps.with_rates(config, model, splits)
    augment = _steps.changes(config.augment)
    with _runs.tracked("train", config, splits, trial, begun) as tracked:
        history = training.fit_full(
            model,
            splits.train,
            splits.val,
            _steps.settings(config, config.full, _steps.class_weights(config, splits)),
            seed=config.seed,
            augment=augment,
            until=trial and trial.until,
            keeping=_runs.keeping(tracked, "full", trial),
            callbacks=_runs.callbacks(trial),
        )
        if trial:
            return _runs.Tried(model, history, time.perf_counter() - building)
        predicted = training.predict(model, splits.test or splits.val, _steps.batch_size(config))
        fit = _results.with_tta(config, model, splits, predicted, _results.trained(history))
        result = _results.finish("train", config, tracked, model, fit, splits, predicted, config.register)
    return _results.summarize("train", config, result, tracked, began)


def check(config: Train) -> None:
    """Refuse a network that there is not.

    Raises:
        InvalidInput: the message has the nearest name.
    """
    _row(config.builder.name)


def build(config: Train, splits: data.Splits) -> keras.Model:
    """Build the network with its preprocessing: raw values, a log-spectrogram of sounds, zero mean and unit variance.

    Mean and variance are those of each channel, or of each frequency, over the training data.

    Shapes:
        returns: a model from (batch, *space, channels) to probabilities (batch, classes)
    """
    import keras
    from keras import layers

    from tlkit import builders

    chosen, shape = config.builder, splits.train.shape
    inputs = keras.Input(shape, name=splits.modality.input)
    x = inputs
    if chosen.spectrogram and splits.rate:
        frame = max(2, 2 ** round(math.log2(FRAME * splits.rate)))
        x = layers.STFTSpectrogram(
            "log", frame, frame // 2, padding="same", trainable=False, dtype="float32", name="spectrogram"
        )(x)
    mean, variance = moments(keras.Model(inputs, x) if chosen.spectrogram else None, splits.train)
    # A band that is silent in training, or a constant channel, is not divided by next to nothing.
    least = SILENT if chosen.spectrogram else 0.0
    variance = [max(value, least) or 1.0 for value in variance]
    if not all(math.isfinite(value) and value < LARGEST for value in variance):
        raise InvalidInput(f"the {splits.kind} have a variance of {max(variance):.3g}: scale them to about -1 to 1")
    x = layers.Normalization(mean=mean, variance=variance, dtype="float32", name="normalization")(x)
    weights = None if chosen.weights == "none" else chosen.weights
    given: dict[str, Any] = {"input_tensor": x, "classes": len(splits.classes), "weights": weights}
    if splits.multi_label:
        given["classifier_activation"] = "sigmoid"
    if chosen.dropout is not None:
        given["dropout"] = chosen.dropout
    if chosen.name == "cnn":
        return builders.cnn(**given, padding="same", **{name: getattr(chosen, name) for name in CNN})
    return builders.build(chosen.name, **given)


def moments(front: keras.Model | None, photos: data.Photos, batch_size: int = 64) -> tuple[list[float], list[float]]:
    """Give the mean and the variance of each channel of all examples, in double precision.

    Args:
        front: What the examples pass first, or None.
        photos: The examples.
        batch_size: Examples in memory at a time.

    >>> import numpy as np
    >>> from tlkit.data import Photos
    >>> moments(None, Photos.of(np.array([[[0, 1]], [[2, 1]]], np.float32), [0, 1]))
    ([1.0, 1.0], [1.0, 0.0])
    """
    import numpy as np

    parts = []
    for start in range(0, len(photos), batch_size):
        values = photos.read(np.arange(start, min(start + batch_size, len(photos))))
        if front:
            values = front.predict_on_batch(values)
        flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
        parts.append((len(flat), flat.mean(axis=0), flat.var(axis=0)))
    counts, means, variances = (np.array(column) for column in zip(*parts, strict=True))
    mean = np.average(means, axis=0, weights=counts)
    variance = np.average(variances + (means - mean) ** 2, axis=0, weights=counts)
    return mean.tolist(), variance.tolist()


def _row(name: str) -> Any:
    """The row of a landmark, None for `cnn`; asked first, because it takes no time."""
    from tlkit import builders

    if name == "cnn":
        return None
    if name not in builders.VARIANTS:
        close = difflib.get_close_matches(name, ["cnn", *builders.VARIANTS], n=1, cutoff=0.0)[0]
        raise InvalidInput(f"builder.name is {name!r}: cnn or one of tlkit.builders.VARIANTS; did you mean {close}?")
    return builders.VARIANTS[name]


def _complete(config: Train, examples: data.Examples, row: Any) -> Train:
    """Fill in what depends on what the data are, so that the stored config says what was done."""
    photos, sounds = examples.modality.resized, examples.modality.sampled
    builder, augment, size = config.builder, config.augment, config.data.image_size
    if size and not photos:
        raise InvalidInput(f"data.image_size is {size}; it is for photos, and the data are {examples.kind}")
    if photos and config.data.source in FILES:
        size = size or (row.size if row else SIZE)
    if builder.spectrogram and not sounds:
        raise InvalidInput(f"builder.spectrogram is True; it is for sounds, and the data are {examples.kind}")
    filled: dict[str, Any] = {
        name: default for name, default in CNN.items() if row is None and getattr(builder, name) is None
    }
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, image_size=size),
        builder=dataclasses.replace(
            builder,
            weights=os.path.abspath(builder.weights) if os.path.isfile(builder.weights) else builder.weights,
            spectrogram=sounds if builder.spectrogram is None else builder.spectrogram,
            **filled,
        ),
        augment=_augment(augment, examples, config.data.source == "embedded"),
    )


def _augment(augment: Augment, examples: data.Examples, embedded: bool) -> Augment:
    """Keep the changes that the data can have; another that was asked for is an error."""
    space = getattr(examples.contents, "ndim", 2) - 2  # of arrays, (n, *space, channels)
    if isinstance(augment.flip, list) and (not augment.flip or not all(0 <= axis < space for axis in augment.flip)):
        which = f"true, false or some of the axes 0 to {space - 1}" if space > 1 else "true or false"
        raise InvalidInput(f"augment.flip is {augment.flip}; for these {examples.kind} it must be {which}")
    possible = examples.modality.changes
    flip = examples.modality.mirrored and not embedded if augment.flip is None else augment.flip
    none: dict[str, Any] = {}
    for field in dataclasses.fields(augment):
        value = getattr(augment, field.name)
        if field.name in possible:
            continue
        if value and value != field.default:
            some = f"{', '.join(possible[:-1])} and {possible[-1]}"
            raise InvalidInput(f"augment.{field.name} is {value}; {examples.kind} like these can have {some} only")
        if field.name not in ("crop", "policy", "magnitude"):  # their defaults change nothing
            none[field.name] = type(value)() if value is not None else False
    return dataclasses.replace(augment, **{"flip": flip, **none})


if __name__ == "__main__":
    cli.main(Train, run)
