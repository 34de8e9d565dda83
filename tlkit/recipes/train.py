"""Train a network from random weights, on photos, sounds or volumes.

python -m tlkit.recipes.train --builder.name resnet18 --data.path photos
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from typing import TYPE_CHECKING, Any

from tlkit import cli
from tlkit.config import CNN, Augment, Train
from tlkit.errors import InvalidInput
from tlkit.recipes import (
    _calibration,
    _decisions,
    _inputs,
    _jobs,
    _near_copies,
    _networks,
    _plans,
    _results,
    _summary,
    _training_decisions,
)
from tlkit.recipes._decisions import Decision

if TYPE_CHECKING:
    import keras

    from tlkit import data
    from tlkit.builders.family import Row

SIZE = 64  # height and width in pixels of photos from files, for a network that has no size of its own
SILENT = 0.01  # minimum variance of a band of a log-spectrogram
LARGEST = 1e38  # what float32 can hold
FRAME = 0.032  # seconds per column of a spectrogram, the usual compromise for speech


def run(config: Train, trial: _jobs.Trial | None = None) -> _results.Result | _jobs.Tried:
    """Train, score and log a classifier; see `config.Train` for the settings.

    Args:
        config: The settings.
        trial: What limits the run if it is one trial of a search.
    """
    job = _jobs.start("train", config, trial, check, resumable=True)
    from tlkit import training

    examples = _inputs.listed(job.config.data)
    job = job.with_decisions(fill_in(job.config, examples))
    _plans.check_tta(job.config, job.config.augment)
    _inputs.check(job.config, examples)
    splits = _inputs.splits(job.config.data, examples, _photo_shape(job.config, examples))
    job.check_data(splits)
    _calibration.check_count(job.config, len(splits.val), f"validation {splits.kind}")
    splits = splits if trial else _near_copies.look(job.config.data, splits)
    job = job.with_decisions([*_length(splits), *_decisions.positive(job.config, splits.classes, splits.train.labels)])
    model = build(job.config, splits)
    _networks.admit(model, job.config, trial)
    job = job.with_decisions(_training_decisions.find_batch_size(job.config, model, splits))
    job = job.with_decisions(_training_decisions.find_rate(job.config, model, splits))
    with job.tracked(splits) as tracked:
        history = training.fit_full(
            model,
            splits.train,
            splits.val,
            _plans.settings(job.config, job.config.full, _plans.class_weights(job.config, splits)),
            seed=job.config.seed,
            augment=_plans.changes(job.config.augment),
            until=job.until,
            checkpointing=job.checkpointing(tracked)("full"),
            callbacks=job.callbacks,
            devices=job.config.devices,
        )
        if trial or job.follows:
            return _jobs.Tried(model, history, job.seconds)
        result = _results.score_training(job, tracked, model, splits, history)
    return _summary.show(job, tracked, result)


def check(config: Train) -> None:
    """Refuse an unknown network.

    Raises:
        InvalidInput: the message suggests the nearest name.
    """
    _row(config.builder.name)


def build(config: Train, splits: data.Splits) -> keras.Model:
    """Build the network with its preprocessing: raw values, a log-spectrogram of sounds, zero mean and unit variance.

    Mean and variance are those of each channel, or of each frequency, over the training data.

    Shapes:
        returns: a model from (batch, *space, channels) to probabilities (batch, classes)
    """
    import keras

    from tlkit import builders

    inputs = keras.Input(splits.train.shape, name=splits.modality.input)
    x = _preprocessed(config, splits, inputs)
    settings = config.builder
    weights = None if settings.weights == "none" else settings.weights
    arguments: dict[str, Any] = {"input_tensor": x, "classes": len(splits.classes), "weights": weights}
    if splits.multi_label:
        arguments["classifier_activation"] = "sigmoid"
    if settings.dropout is not None:
        arguments["dropout"] = settings.dropout
    if settings.name == "cnn":
        return builders.cnn(**arguments, padding="same", **{name: getattr(settings, name) for name in CNN})
    return builders.build(settings.name, **arguments)


def _preprocessed(config: Train, splits: data.Splits, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Add the preprocessing: a log-spectrogram of sounds, then zero mean and unit variance.

    Raises:
        InvalidInput: the training data vary too much to be normalized.
    """
    import keras
    from keras import layers

    x, spectrogram = inputs, config.builder.spectrogram
    if spectrogram and splits.rate:
        frame = max(2, 2 ** round(math.log2(FRAME * splits.rate)))
        x = layers.STFTSpectrogram(
            "log", frame, frame // 2, padding="same", trainable=False, dtype="float32", name="spectrogram"
        )(x)
    mean, variance = moments(keras.Model(inputs, x) if spectrogram else None, splits.train)
    # A band that is silent in training, or a constant channel, is not divided by almost nothing.
    least = SILENT if spectrogram else 0.0
    variance = [max(value, least) or 1.0 for value in variance]
    if not all(math.isfinite(value) and value < LARGEST for value in variance):
        raise InvalidInput(f"the {splits.kind} have a variance of {max(variance):.3g}: scale them to about -1 to 1")
    return layers.Normalization(mean=mean, variance=variance, dtype="float32", name="normalization")(x)


def moments(front: keras.Model | None, photos: data.Photos, batch_size: int = 64) -> tuple[list[float], list[float]]:
    """Give the mean and the variance of each channel of all examples, in double precision.

    Args:
        front: A network that the examples pass first, or None.
        photos: The examples.
        batch_size: Number of examples in memory at a time.

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


def _row(name: str) -> Row | None:
    """Give the row of a landmark network; None for `cnn`.

    Raises:
        InvalidInput: there is no such network.
    """
    from tlkit import builders

    if name == "cnn":
        return None
    if name not in builders.VARIANTS:
        close = difflib.get_close_matches(name, ["cnn", *builders.VARIANTS], n=1, cutoff=0.0)[0]
        raise InvalidInput(f"builder.name is {name!r}: cnn or one of tlkit.builders.VARIANTS; did you mean {close}?")
    return builders.VARIANTS[name]


def fill_in(config: Train, examples: data.Examples) -> list[Decision]:
    """Decide what depends on the data, so that the stored config says what was done.

    Raises:
        InvalidInput: a setting does not fit the data.
    """
    photos, sounds = examples.modality.resized, examples.modality.sampled
    row, builder, size = _row(config.builder.name), config.builder, config.data.image_size
    if size and not photos:
        raise InvalidInput(f"data.image_size is {size}; it is for photos, and the data are {examples.kind}")
    if photos and examples.encoded:
        size = size or (row.size if row else SIZE)
    if builder.spectrogram and not sounds:
        raise InvalidInput(f"builder.spectrogram is True; it is for sounds, and the data are {examples.kind}")
    decisions = [
        Decision("data.image_size", size),
        Decision("builder.spectrogram", sounds if builder.spectrogram is None else builder.spectrogram),
        Decision("augment", _augment(config.augment, examples, config.data.source == "embedded")),
    ]
    if photos:
        decisions += _decisions.decide_resize(config.data)
    if os.path.isfile(builder.weights):
        decisions.append(Decision("builder.weights", os.path.abspath(builder.weights)))
    if row is None:
        unset = [name for name in CNN if getattr(builder, name) is None]
        decisions += [Decision(f"builder.{name}", CNN[name]) for name in unset]
    return decisions


def _photo_shape(config: Train, examples: data.Examples) -> tuple[int | None, int | None, int | None] | None:
    """Give the height, width and channels that photos are converted to; None for their own."""
    row, size = _row(config.builder.name), config.data.image_size
    if not size:
        return None
    return size, size, row.channels if row and examples.encoded else None


def _length(splits: data.Splits) -> list[Decision]:
    """Write down the length of sounds."""
    return [Decision("data.seconds", splits.train.shape[0] / splits.rate)] if splits.rate else []


def _augment(augment: Augment, examples: data.Examples, embedded: bool) -> Augment:
    """Switch off the changes that examples like these cannot have.

    Raises:
        InvalidInput: such a change was asked for.
    """
    space = getattr(examples.contents, "ndim", 2) - 2  # of arrays, (n, *space, channels)
    if isinstance(augment.flip, list) and (not augment.flip or not all(0 <= axis < space for axis in augment.flip)):
        which = f"true, false or some of the axes 0 to {space - 1}" if space > 1 else "true or false"
        raise InvalidInput(f"augment.flip is {augment.flip}; for these {examples.kind} it must be {which}")
    possible = examples.modality.changes
    flip = examples.modality.mirrored and not embedded if augment.flip is None else augment.flip
    switched_off: dict[str, Any] = {}
    for field in dataclasses.fields(augment):
        value = getattr(augment, field.name)
        if field.name in possible:
            continue
        if value and value != field.default:
            names = f"{', '.join(possible[:-1])} and {possible[-1]}"
            raise InvalidInput(f"augment.{field.name} is {value}; {examples.kind} like these can have {names} only")
        if field.name not in ("crop", "policy", "magnitude"):  # their defaults change nothing
            switched_off[field.name] = type(value)() if value is not None else False
    return dataclasses.replace(augment, **{"flip": flip, **switched_off})


if __name__ == "__main__":
    cli.main(Train, run)
