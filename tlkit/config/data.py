"""The settings of the data: where examples come from, how they are split, and how those to train on are changed."""

from __future__ import annotations

import dataclasses
import os
from typing import Literal

from tlkit import untrusted
from tlkit.config.fields import require

Origin = Literal["embedded", "folder", "csv", "npz", "tfds", "webdataset"]

_BY_SUFFIX: dict[str, Origin] = {
    **dict.fromkeys((".csv", ".tsv", ".parquet", ".pq"), "csv"),
    ".npz": "npz",
    ".tar": "webdataset",
}


@dataclasses.dataclass(frozen=True)
class Data:
    """Labeled photos, sounds (.wav, .flac, .ogg) or arrays, and how they are split.

    Args:
        source: `embedded` is scikit-learn's 1,797 handwritten digits; `folder` has one folder for each class, with or
            without `train`, `val` and `test` folders above them; `csv` is a table, CSV or Parquet, with the columns
            path, label and, if wanted, split and group; `npz` is a NumPy file with train_images, train_labels and the
            same for val and test, as MedMNIST's; `tfds` is a data set of tensorflow-datasets; `webdataset` is tar
            files that hold examples beside their labels. `auto` is what the path or the name stands for.
        path: Folder with one folder of examples per class, or a CSV, Parquet or NumPy file; for `webdataset` a tar
            file, a folder of them, or a pattern such as `shards/{000..015}.tar`, on disk or as a URL (`s3://`).
        name: Name of the data set of source `tfds`, for example `tf_flowers`.
        data_dir: Folder with the prepared data sets of tensorflow-datasets; by default its own.
        image_size: Height and width in pixels to which photos are resized; by default the network's own size, but
            `train` keeps the size of photos that are given as arrays.
        resize: How photos are brought to that size: `center` cuts out their central square, `crop` 7/8 of it; `squash`
            squeezes the whole photo into it; `pad` keeps the whole photo and fills the rest with gray. The model does
            the same with the photos that it is asked about. By default `center`, and `squash` for photos that are given
            as arrays.
        seconds: Length to which sounds are cut or padded with silence; by default 99 of 100 sounds fit whole.
        white: The value that is white in photos with more than 8 bits, in floating-point photos and in masks; by
            default found from the largest value of all photos.
        val_fraction: Share of the examples that is kept for validation if the data have no such split.
        test_fraction: Share of the examples that is kept for the test if the data have no split at all.
        val_as_test: Make the given `val` the test split and take the validation split out of `train`.
        strict: Stop at a photo or sound that cannot be decoded, or a row of a table that cannot be used, instead of
            setting it aside.
        separator: For tables whose examples may have several labels or none: the character between labels, such as
            `|`. In a NumPy file such labels are a matrix of zeros and ones with a column for each class.
        columns: Names of a table's columns that tlkit does not find by itself, such as
            `{path: image, label: diagnosis, split: set, group: patient}`.
        group: Which examples no split and no fold separates, such as the photos of one patient: `parent` for those in
            one folder, or a regular expression that finds the group in the path, in parentheses, such as
            `(patient\\d+)_`.
        near_copies: What to do about near copies: crops, re-encodings, frames of a burst, mirrored and resized versions
            of one photo. `warn` counts the scored photos that have one among the others, and also gives the score
            without them; `together` keeps near copies in one split, for which every photo is decoded.
    """

    source: Literal["auto", "embedded", "folder", "csv", "npz", "tfds", "webdataset"] = "auto"
    path: str | None = None
    name: str | None = None
    data_dir: str | None = None
    image_size: int | None = None
    resize: Literal["squash", "center", "crop", "pad"] | None = None
    seconds: float | None = None
    white: float | None = None
    val_fraction: float = 0.15
    test_fraction: float = 0.15
    val_as_test: bool = False
    strict: bool = False
    separator: str | None = None
    columns: dict[str, str] | None = None
    group: str | None = None
    near_copies: Literal["warn", "together"] = "warn"

    def __post_init__(self) -> None:
        source = self.origin
        require(self.separator != "", "data.separator", self.separator, "it must have a character or more")
        require(self.separator is None or source == "csv", "data.separator", self.separator, "it goes with source csv")
        require(self.columns is None or source == "csv", "data.columns", self.columns, "it goes with source csv")
        for role, column in (self.columns or {}).items():
            known = role in ("path", "label", "split", "group")
            require(known, f"data.columns.{role}", column, "columns are path, label, split and group")
            require(bool(column.strip()), f"data.columns.{role}", column, "it must be the name of a column")
        if self.group is not None:
            fits = source in ("folder", "csv", "webdataset")
            require(fits, "data.group", self.group, "it goes with source folder, csv or webdataset")
            if self.group != "parent":
                untrusted.pattern(self.group, "data.group")
        if source in ("folder", "csv", "npz", "webdataset"):
            require(bool(self.path), "data.path", self.path, f"data.source {source} needs --data.path")
        else:
            require(
                self.path is None, "data.path", self.path, "it goes with --data.source folder, csv, npz or webdataset"
            )
        if source == "tfds":
            require(bool(self.name), "data.name", self.name, "data.source tfds needs --data.name")
        else:
            for name in ("name", "data_dir"):
                value = getattr(self, name)
                require(value is None, f"data.{name}", value, "it goes with --data.source tfds")
        require(
            self.image_size is None or self.image_size >= 8,
            "data.image_size",
            self.image_size,
            "it must be at least 8 pixels",
        )
        finite = self.seconds is None or 0 < self.seconds < float("inf")
        require(finite, "data.seconds", self.seconds, "it must be above 0, and finite")
        possible = self.white is None or 0 < self.white <= 2**32
        require(possible, "data.white", self.white, "it must be above 0, and 4294967296 at the most")
        for name in ("val_fraction", "test_fraction"):
            require(
                0 < getattr(self, name) < 1,
                f"data.{name}",
                getattr(self, name),
                "it must lie between 0 and 1, both excluded",
            )
        both = round(self.val_fraction + self.test_fraction, 9)
        require(
            both < 1,
            "data.val_fraction + data.test_fraction",
            both,
            "it must be below 1, so that photos are left to train on",
        )

    @property
    def origin(self) -> Origin:
        """The source; for `auto`, the one that path and name stand for.

        >>> Data(path="photos").origin, Data(path="photos.csv").origin, Data().origin
        ('folder', 'csv', 'embedded')
        """
        if self.source != "auto":
            return self.source
        if self.path:
            return _BY_SUFFIX.get(os.path.splitext(self.path)[1].lower(), "folder")
        return "tfds" if self.name else "embedded"


@dataclasses.dataclass(frozen=True)
class Graph:
    """A graph whose nodes have features and a class.

    Args:
        path: A NumPy file (.npz) with features (nodes, features), labels (nodes,), edges (count, 2) and train_idx,
            val_idx and test_idx.
    """

    path: str


@dataclasses.dataclass(frozen=True)
class Augment:
    """Random changes of the training photos in phase `full`; validation, test and the saved model see none.

    Args:
        flip: Mirror half of the photos left to right; by default yes, but not for the embedded digits. Of volumes in
            `train`: half along each axis, or along those with these numbers, such as [0]; by default none.
        rotation: Maximum rotation to either side, in degrees; 10 is usual.
        zoom: Maximum change of scale: 0.2 scales by 80 to 120 %.
        shift: Maximum shift along each axis, as a share of the side; 0.1 is usual.
        brightness: Maximum change of brightness, as a share of white; 0.1 is usual.
        contrast: Maximum relative change of contrast; 0.2 is usual.
        crop: Minimum share of a photo's area that a random crop keeps before it is resized, as for ImageNet; 0.08 is
            usual there, 0.5 is gentle, 1 is no crop.
        policy: Automatic augmentation, after all other changes: `randaugment` applies two operations of fixed strength
            (arXiv:1909.13719), `trivialaugment` one of random strength (arXiv:2103.10158).
        magnitude: Strength of `randaugment`, from 0 to 30.
        erasing: Probability that a rectangle of a photo is replaced by noise (arXiv:1708.04896).
        mixup: Blend pairs of examples and their labels; the parameter alpha of arXiv:1710.09412, 0.2 is usual.
        cutmix: Paste a rectangle of one photo into another and mix their labels in proportion; alpha of
            arXiv:1905.04899, 1 is usual. Together with `mixup`, each is applied to half of the batches.
    """

    flip: bool | list[int] | None = None
    rotation: float = 10.0
    zoom: float | None = 0.2
    shift: float | None = 0.1
    brightness: float = 0.1
    contrast: float = 0.2
    crop: float = 1.0
    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    magnitude: float = 9.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.rotation <= 180, "augment.rotation", self.rotation, "it must be from 0 to 180 degrees")
        for name in ("zoom", "shift", "brightness", "contrast"):
            value = getattr(self, name)
            require(value is None or 0 <= value < 1, f"augment.{name}", value, "it must be from 0 to below 1")
        require(0 < self.crop <= 1, "augment.crop", self.crop, "it must be above 0, and 1 at the most")
        require(0 <= self.magnitude <= 30, "augment.magnitude", self.magnitude, "it must be from 0 to 30")
        require(0 <= self.erasing <= 1, "augment.erasing", self.erasing, "it must be from 0 to 1")
        for name in ("mixup", "cutmix"):
            value = getattr(self, name)
            require(0 <= value < float("inf"), f"augment.{name}", value, "it must be 0 or more, and finite")


@dataclasses.dataclass(frozen=True)
class Views(Augment):
    """Random changes of the training photos in phase `full`; validation, test and the saved model see none.

    Args:
        zoom: Maximum change of scale: 0.2 scales by 80 to 120 %. By default 0.25 where photos of a folder or table
            train the whole network; where stages stay frozen 0, so that their activations can be stored.
        shift: Maximum shift along each axis, as a share of the side; by default 0.125 where zoom is 0.25, else 0.
        views: Number of augmented versions of each photo, of which each epoch draws one, so that their activations
            can be stored. It needs more augmentation than the flip; by default each epoch augments anew.
    """

    rotation: float = 0.0
    zoom: float | None = None
    shift: float | None = None
    brightness: float = 0.0
    contrast: float = 0.0
    views: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.views is None or self.views >= 1, "augment.views", self.views, "it must be 1 or more")
        few = not any(
            (self.rotation, self.zoom, self.shift, self.brightness, self.contrast, self.crop < 1, self.erasing)
        )
        require(
            not (self.views and few and self.policy == "none"),
            "augment.views",
            self.views,
            "photos are mirrored at most: switch on more of --augment, such as --augment.rotation 10, or leave it out",
        )
        blended = self.views and (self.mixup or self.cutmix)
        require(not blended, "augment.views", self.views, "mixup and cutmix blend others in each epoch: leave one out")
