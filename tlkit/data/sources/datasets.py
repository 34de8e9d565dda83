"""Source `tfds`: a data set of tensorflow-datasets."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.request
from collections.abc import Sequence
from typing import Any

import numpy as np

from tlkit.data.contents import Content
from tlkit.data.sources.examples import SPLITS, Examples, renamed_splits, shown_names, split_word
from tlkit.display import few
from tlkit.errors import InvalidInput, Unavailable, first_line


def tfds(name: str, data_dir: str | None = None) -> Examples:
    """List the photos of a data set of tensorflow-datasets, after downloading and preparing it where necessary.

    A prepared data set is read without a network. Photos stay encoded, and are held in memory. Photos whose label is
    -1 have none, and are left out.

    Args:
        name: Of the data set, optionally with its config and version: `tf_flowers`, `horses_or_humans:3.0.0`.
        data_dir: Folder of prepared data sets; by default that of tensorflow-datasets.

    Raises:
        InvalidInput: there is no such data set, it has no labeled photos, or a package is missing.
        Unavailable: the data set is not prepared in `data_dir` and cannot be downloaded.
    """
    try:
        import tensorflow  # noqa: F401  (tensorflow-datasets imports it only when it reads, deep inside)
        import tensorflow_datasets
    except ImportError as error:
        raise InvalidInput(
            f"data.source tfds needs {error.name}: pip install tensorflow tensorflow-datasets"
        ) from error
    builder = _prepared(tensorflow_datasets, name, data_dir)
    image, label = _features(tensorflow_datasets, name, builder.info)
    names_of_splits = _splits(list(builder.info.splits))
    if "train" not in names_of_splits:
        raise InvalidInput(f"data.name is {name!r}: it has no split train, only {few(list(builder.info.splits))}")
    notes = renamed_splits({theirs: split for split, theirs in names_of_splits.items() if theirs not in SPLITS})
    if unused := sorted(set(builder.info.splits) - set(names_of_splits.values())):
        notes.append(f"{name}: left out the splits {few(unused)}: only train, validation and test are used")
    decoding = tensorflow_datasets.decode.PartialDecoding(
        {image: True, label: True}, decoders={image: tensorflow_datasets.decode.SkipDecoding()}
    )
    labels: list[int] = []
    contents: list[Content] = []
    classes = shown_names(list(builder.info.features[label].names), "classes", notes)
    unlabelled: list[str] = []
    examples = Examples([], labels, classes, [], contents, notes)
    for split, theirs in names_of_splits.items():
        dataset = builder.as_dataset(split=theirs, decoders=decoding, shuffle_files=False)
        here: list[str] = []  # photos without a label
        count = 0
        for count, example in enumerate(dataset.as_numpy_iterator(), 1):
            photo = f"{theirs}/{count - 1:06}"
            if example[label] < 0:  # by convention: the labels of some test splits are secret
                here.append(photo)
                continue
            examples.names.append(photo)
            labels.append(int(example[label]))
            examples.splits.append(split if len(names_of_splits) > 1 else None)
            contents.append(example[image])
        if here and len(here) == count:
            notes.append(f"{name}: left out the split {theirs}: its photos have no label ({count})")
        elif here:
            notes.append(f"{name}: left out photos of {theirs} that have no label ({len(here)}): {few(here, 3)}")
        unlabelled += here
    return examples._replace(left_out={"no label": unlabelled} if unlabelled else {})


def _splits(names: Sequence[str]) -> dict[str, str]:
    """What the data set calls each split: by a word such as `validation`, else by a name that has one in it."""
    found: dict[str, str] = {}
    for name in sorted(names, key=lambda name: name not in SPLITS):
        split = SPLITS.get(name) or split_word(name)
        if split and (split not in found):
            found[split] = name
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _prepared(tensorflow_datasets: Any, name: str, data_dir: str | None) -> Any:
    not_found = tensorflow_datasets.core.DatasetNotFoundError
    try:
        return tensorflow_datasets.core.read_only_builder.builder_from_files(name, data_dir=data_dir)
    except not_found:
        pass
    except (ValueError, RuntimeError) as error:
        raise InvalidInput(f"data.name is {name!r}: {first_line(error)}") from error
    place = data_dir or str(tensorflow_datasets.core.constants.DATA_DIR)
    if not _online():  # without a network, tensorflow-datasets itself takes minutes to give up
        raise Unavailable(
            f"data set {name!r} is not prepared in {place!r} and there is no network to download it: give its folder "
            "with --data.data_dir, or prepare it where there is a network and copy the folder here"
        )
    try:
        builder = tensorflow_datasets.builder(name, data_dir=data_dir)
    except not_found as error:
        raise InvalidInput(
            f"data.name is {name!r}: tensorflow-datasets knows no such data set; "
            "its names are on https://www.tensorflow.org/datasets/catalog"
        ) from error
    except OSError as error:
        raise Unavailable(f"data set {name!r} cannot be downloaded to {place!r}: {first_line(error)}") from error
    try:
        builder.download_and_prepare()
    except Exception as error:  # each data set has its own code, which may raise anything
        raise Unavailable(f"data set {name!r} cannot be prepared in {place!r}: {first_line(error)}") from error
    return builder


def _online(host: str = "storage.googleapis.com", seconds: float = 10) -> bool:
    """Whether `host` can be looked up, or there is a proxy that may look it up."""
    if urllib.request.getproxies():
        return True
    addresses = []

    def look_up() -> None:
        with contextlib.suppress(OSError):
            addresses.extend(socket.getaddrinfo(host, 443))

    thread = threading.Thread(target=look_up, daemon=True)  # the look-up has no time limit of its own
    thread.start()
    thread.join(seconds)
    return bool(addresses)


def _features(tensorflow_datasets: Any, name: str, info: Any) -> tuple[str, str]:
    """The names of the image and of the label: those that the data set declares, else the only ones."""
    kinds = tensorflow_datasets.features
    features = dict(info.features)
    pair = info.supervised_keys
    if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(key, str) for key in pair)):
        images = [key for key, feature in features.items() if isinstance(feature, kinds.Image)]
        labels = [key for key, feature in features.items() if isinstance(feature, kinds.ClassLabel)]
        pair = (images[0], labels[0]) if len(images) == len(labels) == 1 else (None, None)
    image, label = (features.get(key) for key in pair)
    if (
        not isinstance(image, kinds.Image)
        or not isinstance(label, kinds.ClassLabel)
        or np.dtype(image.np_dtype).kind != "u"
    ):
        raise InvalidInput(
            f"data.name is {name!r}: not one image with one class label, but {few(list(features))}; "
            "choose an image classification data set"
        )
    return pair
