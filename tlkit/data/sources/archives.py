"""Source `npz`: the arrays of a NumPy file, whose sizes are checked before memory is taken for them."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tlkit import untrusted
from tlkit.data import modalities
from tlkit.data.sources import pixels
from tlkit.data.sources.class_names import minus_one
from tlkit.data.sources.examples import Examples, one_label_each
from tlkit.data.sources.pixels import Arrays
from tlkit.display import few
from tlkit.errors import InvalidInput, first_line
from tlkit.labels import SEPARATOR

CHANNELS = 4  # maximum length of a last axis to count as channels and not as space


def npz(path: str | Path, white: float | None = None) -> Examples:
    """List the arrays of a NumPy file in MedMNIST's layout: `train_images`, `train_labels`, and the same for val, test.

    Val and test may be missing. Images are volumes, photos or signals, (n, *space) or (n, *space, channels): after an
    axis of space, a last axis of up to 4 is that of channels. Labels are integers, (n,) or (n, 1), or, where an example
    may have several or none, zeros and ones, (n, classes). The file has no names of classes, so a class is called by
    its integer, or by the number of its column, from 0.

    uint8 images with 1 or 3 channels are photos, as those of other sources, and can be resized. Images that are photos
    in another form become such: with channels first, with an alpha channel, as floating-point numbers from 0 to 1 or to
    255, or as integers that use 8, 10, 12, 14 or 16 bits; `notes` say so. All others are arrays, and signals and other
    numbers than uint8 become float32.

    Args:
        path: Of the file.
        white: The images are photos, and this value is white in them; their smallest is 0.

    Raises:
        InvalidInput: the file or one of its arrays is missing, damaged or wrong; the message names it.
    """
    images, labels, white, notes = _splits(path, white)
    if len({part.shape[1:] for part in labels.values()}) > 1:
        shapes = few([f"{split}_labels {part.shape}" for split, part in labels.items()])
        raise InvalidInput(f"{path}: {shapes}: give the same columns in every split")
    places = {split: np.arange(len(part)) for split, part in images.items()}
    all_labels = np.concatenate(list(labels.values()))
    multi_label = all_labels.ndim == 2
    unlabelled: list[str] = []
    if not multi_label and minus_one([str(value) for value in np.unique(all_labels)]):
        unlabelled = [f"{split}/{i:06}" for split, part in labels.items() for i in np.flatnonzero(part == -1)]
        notes.append(
            f"left out, because the label is -1 ({len(unlabelled)} of {len(all_labels)}): {few(unlabelled, 3)}"
        )
        places = {split: np.flatnonzero(part != -1) for split, part in labels.items()}
        images = {split: part[places[split]] for split, part in images.items()}
        all_labels = all_labels[all_labels != -1]
    if multi_label:
        classes, positions = [str(column) for column in range(all_labels.shape[1])], all_labels
        notes += one_label_each(all_labels, "give integers, (n,)")
    else:
        values, positions = np.unique(all_labels, return_inverse=True)
        classes, positions = [str(value) for value in values], positions.tolist()
        if len(classes) < 2:
            raise InvalidInput(f"{path}: a single class, {classes[0]}: give two or more")
    parts = list(images.values())
    modality = modalities.of_arrays(parts[0])
    return Examples(
        names=[f"{split}/{i:06}" for split, part in places.items() for i in part],
        labels=positions,
        classes=classes,
        splits=[split for split, part in images.items() for _ in part],
        contents=[photo for part in parts for photo in part] if modality.resized else np.concatenate(parts),
        notes=notes,
        kind=modality.name,
        separator=SEPARATOR if multi_label else None,
        left_out={"no label": unlabelled} if unlabelled else {},
        white=white,
    )


def _splits(path: str | Path, white: float | None) -> tuple[Arrays, Arrays, float | None, list[str]]:
    """The images and the labels of each split, the value that was white in photos, and notes.

    All images have one shape and type.
    """
    wanted = [f"{split}_{part}" for split in ("train", "val", "test") for part in ("images", "labels")]
    arrays, names = npz_arrays(path, wanted)
    splits = [split for split in ("train", "val", "test") if f"{split}_images" in arrays or f"{split}_labels" in arrays]
    images: Arrays = {}
    labels: Arrays = {}
    for split in splits if "train" in splits else ["train"]:
        for part in ("images", "labels"):
            if f"{split}_{part}" not in arrays:
                raise InvalidInput(
                    f"{path}: no array {split}_{part} among {names}: give train_images, train_labels and, if wanted, "
                    "the same for val and test"
                )
        images[split] = _numbers(f"{path}: {split}_images", arrays.pop(f"{split}_images"))
        labels[split] = _labels(f"{path}: {split}_labels", arrays.pop(f"{split}_labels"), len(images[split]))
    notes: list[str] = []
    if len({(part.dtype.kind, part.shape[1:]) for part in images.values()}) == 1:
        images, notes = pixels.channels_last(images)
        try:
            images, white, more = pixels.photos(images, white)
        except InvalidInput as error:
            raise InvalidInput(f"{path}: {error}") from error
        notes += more
    for split in images:
        images[split] = _arrays(f"{path}: {split}_images", images[split])
        theirs, ours = (f"{array.dtype} {array.shape[1:]}" for array in (images[split], images["train"]))
        if theirs != ours:
            raise InvalidInput(f"{path}: {split}_images holds {theirs}, train_images {ours}: give one kind")
    return images, labels, white, notes


def _numbers(where: str, images: np.ndarray) -> np.ndarray:
    if images.dtype.kind not in "buif" or not 2 <= images.ndim <= 5 or not images.size:
        raise InvalidInput(f"{where} is {images.dtype} {images.shape}: give numbers (n, *space[, channels])")
    return images


def _arrays(where: str, images: np.ndarray) -> np.ndarray:
    kind = images.dtype.kind
    if images.ndim == 2 or (images.shape[-1] > CHANNELS and images.ndim < 5):
        images = images[..., None]
    if images.ndim == 5 and images.shape[-1] > CHANNELS:
        raise InvalidInput(f"{where} is {images.dtype} {images.shape}: 3 axes of space and {CHANNELS} channels at most")
    if images.dtype != np.uint8 or images.ndim == 3:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
            # In booleans, True is white.
            images = (
                images * np.uint8(255) if kind == "b" and images.ndim > 3 else images.astype(np.float32, copy=False)
            )
    if images.dtype == np.float32 and not np.isfinite(images).all():
        raise InvalidInput(f"{where} holds numbers that are not finite: remove or replace them")
    return images


def _labels(where: str, labels: np.ndarray, count: int) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    several = labels.ndim == 2 and labels.dtype.kind in "buif" and labels.size > 0
    if several and not np.isin(labels, (0, 1)).all():
        odd = labels[~np.isin(labels, (0, 1))][0]
        raise InvalidInput(
            f"{where} is {labels.dtype} {labels.shape} and holds {odd}: give one integer for each, (n,) or (n, 1), or, "
            "where each may have several labels, zeros and ones, (n, classes)"
        )
    if (labels.dtype.kind not in "ui" or labels.ndim != 1) and not (several and labels.any()):
        raise InvalidInput(
            f"{where} is {labels.dtype} {labels.shape}: give one integer for each, (n,) or (n, 1), or, where each may "
            "have several labels, zeros and ones, (n, classes), not zeros alone"
        )
    if len(labels) != count:
        raise InvalidInput(f"{where} has {len(labels):,} labels for {count:,} images: give one for each")
    return labels.astype(np.float32 if several else np.int64)


def npz_arrays(path: str | Path, wanted: Sequence[str]) -> tuple[dict[str, np.ndarray], str]:
    """Read some arrays of a NumPy file.

    Their sizes are checked before memory is taken for them. Arrays of objects, which only running code could read, are
    refused.

    Args:
        path: Of the file.
        wanted: Names of arrays; those that the file does not have are left out.

    Returns:
        The arrays by name, and the names of all arrays in the file, for a message.

    Raises:
        InvalidInput: the file is missing, damaged or of another kind; or an array is not one of numbers, or too large.
    """
    try:
        with open(path, "rb") as stream:
            if stream.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
                raise InvalidInput(f"{path}: a single array; give several, in a file that numpy.savez wrote")
            with zipfile.ZipFile(stream) as archive:
                names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
                members = {
                    name: _announced(archive, f"{path}: {name}", name) for name in wanted if names.count(name) == 1
                }
                if twice := [name for name in wanted if names.count(name) > 1]:
                    raise InvalidInput(f"{path}: several arrays {twice[0]}: keep one")
                # Conversion to float32 and the sorting of edges take memory too.
                room = sum(size + 8 * count for size, count in members.values())
                untrusted.check_memory(room, f"{path}: {few(list(members))}")
                arrays = {name: _array(archive, name) for name in members}
    except InvalidInput:
        raise
    except OSError as error:
        raise InvalidInput(
            f"data.path is {str(path)!r}: {error.strerror or error}; give a file that numpy.savez wrote"
        ) from error
    except Exception as error:  # a damaged file raises almost anything, down to tokenize.TokenError and zlib.error
        raise InvalidInput(f"{path}: not arrays of numbers as numpy.savez writes them ({first_line(error)})") from error
    return arrays, few([name[:60] for name in sorted(set(names))]) or "none"


def _info(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    return next(info for info in archive.infolist() if info.filename.removesuffix(".npy") == name)


def _announced(archive: zipfile.ZipFile, where: str, name: str) -> tuple[int, int]:
    """The bytes of an array by its header, and the number of its values that are not bytes; no value is read."""
    info = _info(archive, name)
    untrusted.check_expansion(info.file_size, info.compress_size, where)
    with archive.open(info) as member:
        try:
            version = np.lib.format.read_magic(member)
        except ValueError as error:
            raise InvalidInput(f"{where} is no array of NumPy: write it with numpy.savez") from error
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
        if dtype.hasobject or dtype.fields or dtype.subdtype:
            raise InvalidInput(f"{where} is no array of numbers, but of Python objects or structures: give numbers")
        size, actual = dtype.itemsize * math.prod(shape), info.file_size - member.tell()
    if size != actual or min(shape, default=0) < 0:
        raise InvalidInput(
            f"{where} is announced as {dtype} {shape}, {size:,} bytes, but has {actual:,}: write it again"
        )
    return size, 0 if dtype.itemsize == 1 else math.prod(shape)


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(_info(archive, name)) as member:
        array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
        member.read(1)  # to the end, where the check sum is compared
    return array
