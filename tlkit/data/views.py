"""Views: examples that are changed in a fixed way, so that features of them can be stored."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit.data import modalities
from tlkit.data.augmentation import without_mixing
from tlkit.data.example_set import ExampleSet, NamedExamples
from tlkit.data.modalities import Reading
from tlkit.errors import InvalidInput

AUGMENTATION = 2  # raise it when the same view begins to hold other values: stored features are found by it


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """Photos, sounds or arrays, each changed at random in a fixed way.

    The change of a photo follows from the seed, the number of the view and the photo's content. So it does not depend
    on the other photos, and features of it can be stored.
    """

    photos: NamedExamples
    augment: Mapping[str, Any]  # arguments of `tlkit.data.augment`; mixup and cutmix, which need a batch, do nothing
    seed: int
    number: int  # tells several views of the same photos apart

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def names(self) -> list[str]:
        """Names of the photos."""
        return self.photos.names

    @property
    def labels(self) -> np.ndarray:
        """Labels of the photos: (n,), int32, or (n, classes), float32."""
        return self.photos.labels

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of each photo."""
        return self.photos.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of each photo."""
        return self.photos.dtype

    @property
    def kind(self) -> str:
        """Name of the modality of the photos."""
        return self.photos.kind

    @property
    def groups(self) -> list[str]:
        """What a cross-validation must not divide: those of the photos."""
        return self.photos.groups

    @property
    def reading(self) -> Reading:
        """How files became the photos."""
        return self.photos.reading

    @property
    def _changes(self) -> dict[str, Any]:
        return without_mixing(self.augment)

    @functools.cached_property
    def hashes(self) -> list[str]:
        """SHA-256 of each photo's hash and of its change."""
        change = json.dumps([AUGMENTATION, self._changes, self.seed, self.number], sort_keys=True)
        return [hashlib.sha256(f"{hash_} {change}".encode()).hexdigest() for hash_ in self.photos.hashes]

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the changed photos at `indices`, (k, *shape)."""
        images = self.photos.read(indices)
        change, changes = augmentation(self.kind), self._changes
        for image, index in zip(images, indices, strict=True):
            rng = np.random.default_rng((self.seed, self.number, int(self.photos.hashes[index][:16], 16)))
            image[...] = change(image, rng, **changes)
        return images

    def select(self, indices: Sequence[int] | np.ndarray) -> View:
        """Return the views of the photos at some positions, in that order."""
        return View(self.photos.select(indices), self.augment, self.seed, self.number)

    def with_contents(self) -> View:
        """Return the same views of photos whose bytes are in memory."""
        return View(self.photos.with_contents(), self.augment, self.seed, self.number)


class Mirrored(View):
    """Photos, all mirrored left to right; with the photos themselves, everything that flips can make of them."""

    def __init__(self, photos: NamedExamples):
        super().__init__(photos, {"flip": True}, 0, 0)

    @functools.cached_property
    def hashes(self) -> list[str]:
        """SHA-256 of each photo's hash and the word "mirrored"."""
        return [hashlib.sha256(f"{hash_} mirrored".encode()).hexdigest() for hash_ in self.photos.hashes]

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the mirrored photos at `indices`, (k, height, width, channels)."""
        return np.ascontiguousarray(self.photos.read(indices)[:, :, ::-1])

    def select(self, indices: Sequence[int] | np.ndarray) -> Mirrored:
        """Return the mirror images of the photos at some positions, in that order."""
        return Mirrored(self.photos.select(indices))

    def with_contents(self) -> Mirrored:
        """Return the same mirror images of photos whose bytes are in memory."""
        return Mirrored(self.photos.with_contents())


if TYPE_CHECKING:
    _NAMED: tuple[type[NamedExamples], ...] = (View, Mirrored)  # mypy proves it


def changed(photos: NamedExamples, augment: Mapping[str, Any], count: int, seed: int = 0) -> list[View]:
    """Make changed views of photos, to be scored or trained on beside the photos themselves.

    Args:
        photos: The photos.
        augment: Arguments of `tlkit.data.augment`; mixup and cutmix, which need a batch, do nothing.
        count: Number of random views; where the only change is a flip, there is one view in which all are mirrored.
        seed: Of the changes.
    """
    if modalities.row(photos.kind).mirrored and without_mixing(augment) == {"flip": True}:
        return [Mirrored(photos)]
    return [View(photos, augment, seed, number) for number in range(count)]


@dataclasses.dataclass(frozen=True, eq=False)
class Views:
    """Several views of the same photos, or their features; `batches` draws one view of each photo in each epoch."""

    views: Sequence[ExampleSet]

    def __len__(self) -> int:
        return len(self.views[0])

    # No `read`, `hashes` or `names`: they differ from view to view, so a view must be drawn first.

    @property
    def labels(self) -> np.ndarray:
        """Labels of the photos: (n,), int32, or (n, classes), float32."""
        return self.views[0].labels

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of each photo."""
        return self.views[0].shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of each photo."""
        return self.views[0].dtype

    @property
    def kind(self) -> str:
        """Name of the modality of the photos."""
        return self.views[0].kind

    def draw(self, indices: np.ndarray, seed: int, epoch: int, places: np.ndarray | None = None) -> np.ndarray:
        """Read photos, each in the view that is drawn for it in an epoch.

        Args:
            indices: Positions of the photos, (k,).
            seed: Of the draws.
            epoch: Number of the epoch.
            places: Positions in the order of the epoch, (k,), where a photo may occur several times; a view is then
                drawn for each place.
        """
        drawn = np.random.default_rng((seed, epoch, 0, 1)).integers(len(self.views), size=len(self))
        drawn = drawn[indices if places is None else places]
        values = np.empty((len(indices), *self.shape), self.dtype)
        for number in np.unique(drawn):
            here = drawn == number
            values[here] = self.views[number].read(np.asarray(indices)[here])
        return values


def augmentation(kind: str) -> Callable[..., np.ndarray]:
    """Return the function that changes one example of a modality at random.

    Raises:
        InvalidInput: the modality has none.

    >>> augmentation("sounds").__name__
    'augment_sound'
    """
    augment = modalities.row(kind).augment
    if augment is None:
        raise InvalidInput(f"augment is given; {kind} cannot be changed: leave it out")
    return augment
