"""Which examples are in which batch of which epoch, and how they are changed.

In this module, photos are examples of any modality.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tlkit.data import modalities
from tlkit.data.augmentation import MIXING, mix, switched_on, without_mixing
from tlkit.data.example_set import ExampleSet
from tlkit.data.views import Views, augmentation
from tlkit.errors import InvalidInput

unreadable: list[InvalidInput] = []  # for `readable_errors`: TensorFlow keeps only the text of an error in its threads


class Plan(NamedTuple):
    """The content of each batch; everything random in it follows from the seed, the epoch and the photo's position.

    A `step` is the number of a batch in its epoch, from 0. For the fields, see `batches`.
    """

    photos: ExampleSet | Views
    batch_size: int
    shuffle: bool
    seed: int
    augment: Mapping[str, Any] | None
    labels: np.ndarray | None
    first_epoch: int = 0
    first_step: int = 0
    classes: int | None = None
    balanced: bool = False
    rows: Callable[[int], np.ndarray] | None = None

    @property
    def mixing(self) -> dict[str, float]:
        """The settings that mix the examples of a batch."""
        return {name: value for name, value in switched_on(self.augment or {}).items() if name in MIXING}

    @property
    def steps(self) -> int:
        """The number of batches in an epoch."""
        return -(-len(self.photos) // self.batch_size) - self.first_step

    def order(self, epoch: int) -> list[np.ndarray]:
        """Return the positions of the photos in each batch of an epoch."""
        n = len(self.photos)
        rng = np.random.default_rng((self.seed, epoch))
        if self.balanced:
            order = _balanced_order(self.photos.labels, rng)
        else:
            order = rng.permutation(n) if self.shuffle else np.arange(n)
        return np.split(order, range(self.batch_size, n, self.batch_size))[self.first_step :]

    def images(self, epoch: int, indices: np.ndarray, step: int = 0, positions: np.ndarray | None = None) -> np.ndarray:
        """Return the photos at `indices`, augmented as in `epoch`: (k, *space, channels), uint8 or float32.

        `positions` are theirs in the batch, by default 0, 1, 2 and so on.
        """
        positions = np.arange(len(indices)) if positions is None else positions
        places = step * self.batch_size + positions if self.balanced else None
        try:
            if isinstance(self.photos, Views):
                return self.photos.draw(indices, self.seed, int(epoch), places)
            images = self.photos.read(indices)
        except InvalidInput as error:
            unreadable.append(error)
            raise
        if changes := without_mixing(self.augment or {}):
            change = augmentation(self.photos.kind)
            for number, (image, index) in enumerate(zip(images, indices, strict=True)):
                # + 1: to NumPy, (seed, epoch, 0) is the same seed as (seed, epoch), from which the order is drawn
                seed = [self.seed, int(epoch), int(index) + 1]
                if places is not None:  # the same photo may be in several places
                    seed.append(int(places[number]) + 1)
                image[...] = change(image, np.random.default_rng(seed), **changes)
        return images

    def batch(self, epoch: int, indices: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the photos at `indices`, augmented and mixed as in `epoch`, and their labels, if any."""
        images = self.images(epoch, indices, step)
        labels = None if self.labels is None else self.labels[indices]
        if not self.mixing:
            return images, labels
        if labels is not None and labels.ndim == 1 and self.classes:
            labels = np.eye(self.classes, dtype=np.float32)[labels]
        rng = np.random.default_rng((self.seed, int(epoch), 0, 2, int(step) + 1))
        return mix(images, labels, rng, **self.mixing)

    def parts(self, epoch: int, indices: np.ndarray, step: int) -> list[np.ndarray]:
        """Return what is yielded for the batch of the photos at `indices`: images, perhaps labels, perhaps weights."""
        if self.rows is None or self.mixing:  # mixing needs the whole batch
            parts = [part for part in self.batch(epoch, indices, step) if part is not None]
            if self.rows is None:
                return parts
            rows = self.rows(len(indices))
            parts = [part[rows] for part in parts]
        else:
            rows = self.rows(len(indices))
            read, order = np.unique(rows, return_inverse=True)
            parts = [self.images(epoch, indices[read], step, read)[order]]
            parts += [] if self.labels is None else [self.labels[indices[rows]]]
        return parts if self.labels is None else [*parts, np.full(len(rows), len(indices) / len(rows), np.float32)]


def _balanced_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many positions as labels, equally many of each class; a photo repeats only after all others of its class."""
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    counts = np.full(len(members), len(labels) // len(members))
    counts[rng.permutation(len(members))[: len(labels) % len(members)]] += 1
    drawn = [
        np.concatenate([rng.permutation(those) for _ in range(-(-count // len(those)))])[:count]
        for those, count in zip(members, counts.tolist(), strict=True)
    ]
    return rng.permutation(np.concatenate(drawn))


def check_mixing(plan: Plan) -> None:
    """Refuse to mix examples that cannot be mixed.

    Raises:
        InvalidInput: the message says why.
    """
    names, kind = " and ".join(plan.mixing), plan.photos.kind
    possible = [name for name in MIXING if name in modalities.row(kind).changes]
    if not set(plan.mixing) <= set(possible):
        raise InvalidInput(f"augment has {names}; {kind} can have {' and '.join(possible) or 'neither'}")
    if plan.labels is not None and plan.labels.ndim == 1:
        most = int(plan.labels.max())
        if plan.classes is None or plan.classes <= most:
            raise InvalidInput(f"classes is {plan.classes}; for {names} of labels up to {most} give {most + 1} or more")
