"""Where labelled photos, sounds and arrays come from. Each source lists them; none is decoded here."""

from __future__ import annotations

import csv
import math
import os
import socket
import threading
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tlkit import labels as names_of_labels
from tlkit import untrusted
from tlkit.data import modalities
from tlkit.data.images import Content
from tlkit.data.modalities import MODALITIES, Modality
from tlkit.display import cut, shown
from tlkit.errors import InvalidInput, Unavailable, first_line
from tlkit.untrusted import duplicates

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What a folder, a row or a data set may call a split, and what it is called here."""
CHANNELS = 4  # most that a last axis may have and still be one of channels, not of space


class Examples(NamedTuple):
    """Labelled photos or sounds, not decoded yet, or arrays."""

    names: list[str]  # what the user knows a photo by, such as its path below the folder given; as `display.shown`
    labels: list[int] | np.ndarray  # positions in `classes`; where there may be several, (n, classes) zeros and ones
    classes: list[str]  # likewise in one line that any file and any terminal can hold
    splits: list[str | None]  # "train", "val" or "test" where the source says so
    contents: list[Content] | np.ndarray  # of arrays: (n, *space, channels), uint8 or float32
    notes: list[str]  # what the user should know, one line each
    kind: str = "photos"  # name of the modality
    separator: str | None = None  # between the labels of one example, where each may have several or none

    @property
    def modality(self) -> Modality:
        """What the examples are."""
        return modalities.row(self.kind)

    @property
    def multi_label(self) -> bool:
        """Whether an example may have several labels, or none."""
        return self.separator is not None


def load_source(
    source: str = "embedded",
    *,
    path: str | Path | None = None,
    name: str | None = None,
    data_dir: str | None = None,
    separator: str | None = None,
) -> Examples:
    """List what `source` holds: `embedded`, `folder`, `csv` and `npz` (with `path`), or `tfds` (with `name`).

    Args:
        source: One of these.
        path: The folder, or the file.
        name: The data set.
        data_dir: Where tensorflow-datasets keeps its prepared data.
        separator: Of source `csv`; see `csv_file`.

    Raises:
        InvalidInput: the source, or what it needs, is missing or cannot be used.
        Unavailable: source `tfds`: the data set is not prepared yet and there is no network.

    >>> len(load_source("embedded").names)
    1797
    """
    if source == "embedded":
        return embedded()
    if path is not None and "\\" in str(path):  # as the config of a run has it
        path = Files(Path()).find(str(path))
    if source in (by_path := {"folder": folder, "csv": csv_file, "npz": npz}):
        if path is None:
            raise InvalidInput(f"data.path is None: data.source {source} needs it")
        if source == "csv":
            return csv_file(path, separator)
        return by_path[source](path)
    if source == "tfds":
        if name is None:
            raise InvalidInput("data.name is None: data.source tfds needs it, for example tf_flowers")
        return tfds(name, data_dir)
    raise InvalidInput(f"data.source is {source!r}: embedded, folder, csv, npz or tfds")


def embedded() -> Examples:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, white on black, with values of 0 to 16 scaled to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return Examples(
        names=[f"digit {i:04}" for i in range(len(images))],
        labels=[int(label) for label in digits.target],
        classes=[str(label) for label in digits.target_names],
        splits=[None] * len(images),
        contents=list(images),
        notes=[],
    )


def folder(path: str | Path) -> Examples:
    """The photos, or the sounds, of a folder with one folder for each class, or with those of its splits.

    The splits are folders called `train`, `val` and `test`, above those of the classes. A class may have folders of its
    own. Names that start with a dot are left alone; other files are left out and counted. A linked class folder is
    read; links to folders further down are not followed.

    Raises:
        InvalidInput: there is no such folder, no photo or sound, both of them, a single class, an empty class, the
            splits' classes differ, or a folder at any depth cannot be read.
    """
    try:
        return _folder(Path(path))
    except OSError as error:
        raise InvalidInput(
            f"{str(error.filename or path)!r} cannot be read: {error.strerror}; every folder of data.path must be"
        ) from error


def _folder(root: Path) -> Examples:
    if not root.exists():
        raise InvalidInput(f"data.path is {str(root)!r}: no such folder")
    if not root.is_dir():
        raise InvalidInput(f"data.path is {str(root)!r}: not a folder; for a list of photos use --data.source csv")
    above = _split_folders(root)
    classes: list[str] = []  # as the folders are called
    listed: list[tuple[str | None, int, Path, list[Path]]] = []  # split, label, class folder, its files
    others = _files(root)
    for split, top in above:
        class_folders = _folders(top)
        found = [f.name for f in class_folders]
        classes = classes or found
        if len(found) < 2:
            what = f"a single class, {found[0]!r}" if found else "no class folders"
            raise InvalidInput(f"{str(top)!r} has {what}: give two or more, each holding the photos of one class")
        if found != classes:
            odd = sorted(set(found) ^ set(classes))
            raise InvalidInput(
                f"{str(top)!r} and {str(above[0][1])!r} have different classes ({few(odd)}): "
                "every split needs the same class folders"
            )
        others += _files(top) if top != root else []
        listed += [(split, label, f, list(_walk(f))) for label, f in enumerate(class_folders)]
    modality = _of_files(str(root), [f.relative_to(root).as_posix() for *_, files in listed for f in files])
    kind, suffixes = modality.name, modality.files.suffixes if modality.files else frozenset()
    names: list[str] = []
    labels: list[int] = []
    splits: list[str | None] = []
    contents: list[Content] = []
    for split, label, class_folder, files in listed:
        wanted = [f for f in files if f.suffix.lower() in suffixes]
        others += [f for f in files if f.suffix.lower() not in suffixes]
        if not wanted:
            raise InvalidInput(
                f"{str(class_folder)!r} holds no {modality.singular} ({len(files)} other files): put {kind} there "
                f"({few(sorted(suffixes), 20)}) or remove the folder"
            )
        names += [f.relative_to(root).as_posix() for f in wanted]
        labels += [label] * len(wanted)
        splits += [split] * len(wanted)
        contents += wanted
    notes = []
    if others:
        left_out = few([f.relative_to(root).as_posix() for f in others])
        notes.append(f"files left out, not being {kind} in a class folder ({len(others)}): {left_out}")
    classes = _shown(classes, "classes", notes)
    return Examples(_shown(names, kind, notes), labels, classes, splits, contents, notes, kind)


def _shown(names: list[str], what: str, notes: list[str]) -> list[str]:
    """Write names in such a way that all that comes later can hold them, and note it where that changes one.

    Control characters and bytes that are not UTF-8 become escapes: MLflow, a model file or a table cannot hold these,
    and a terminal would act on them.

    Raises:
        InvalidInput: two names become equal.
    """
    plain = {name: shown(name) for name in names}
    if changed := [text for name, text in plain.items() if text != name]:
        if same := duplicates(plain.values()):
            raise InvalidInput(f"several {what} have names that are written {few(same, 3)}: rename all but one")
        if what != "classes":  # a photo is not told of where its class is
            changed = [text for name, text in plain.items() if text.rpartition("/")[2] != name.rpartition("/")[2]]
        if changed:
            notes.append(f"{what} whose names are written with escapes ({len(changed)}): {few(changed, 3)}")
    return [plain[name] for name in names]


def _of_files(where: str, names: Sequence[str]) -> Modality:
    """What files are, by their suffixes; the first modality of the table where no suffix is known.

    Raises:
        InvalidInput: they are of several modalities.
    """
    first: dict[str, str] = {}  # of each modality
    for name in names:
        suffix = Path(name).suffix.lower()
        for modality in modalities.of_files():
            if modality.files and suffix in modality.files.suffixes:
                first.setdefault(modality.name, name)
    if len(first) > 1:
        several = [name for name in MODALITIES if name in first]
        such = " and ".join(few([first[name]]) for name in several)
        raise InvalidInput(f"{where!r} has {' and '.join(several)} (such as {such}): give one of them")
    return modalities.row(next(iter(first), modalities.of_files()[0].name))


def csv_file(path: str | Path, separator: str | None = None) -> Examples:
    """The photos, or the sounds, listed in a CSV file (UTF-8) with the columns path, label and, if wanted, split.

    Paths are relative to the CSV file's folder. The split is train, val or test in every row, or there is no such
    column. Other columns are ignored. A path may be written as `Examples.names` has it, with escapes.

    Args:
        path: Of the file.
        separator: Where an example may have several labels or none: what stands between them in the column, which may
            then be called labels too. Blanks around a label, and a label that is there twice, are taken out.

    Raises:
        InvalidInput: the file, a column, a photo or a value is missing or wrong, and the message names the line; or
            there are photos and sounds.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or [])
            said = "labels" if separator and "label" not in columns and "labels" in columns else "label"
            for column in ("path", said):
                if column not in columns:
                    raise InvalidInput(
                        f"{path}, line 1: no column {column!r} among {columns}: give a header path,label[,split]"
                    )
            for column in ("path", said, "split"):
                if columns.count(column) > 1:
                    raise InvalidInput(f"{path}, line 1: {columns.count(column)} columns {column!r}: keep one")
            files = Files(Path(path).parent)
            rows = [_csv_row(f"{path}, line {reader.line_num}", files, row, said, separator) for row in reader]
    except OSError as error:
        raise InvalidInput(f"data.path is {str(path)!r}: {error.strerror}; data.source csv needs a file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"{path}: not a CSV file in UTF-8 ({error})") from error
    if not rows:
        raise InvalidInput(f"{path}: no photo is listed")
    names, contents, values, splits = (list(column) for column in zip(*rows, strict=True))
    classes = sorted(set().union(*values), key=shown)
    if not classes:
        raise InvalidInput(f"{path}: no photo has a label: give two different ones or more")
    if len(classes) < 2:
        raise InvalidInput(f"{path}: a single class, {classes[0]!r}: give two or more")
    position = {value: i for i, value in enumerate(classes)}
    kind = _of_files(str(path), names).name
    labels: list[int] | np.ndarray
    if separator is None:
        labels = [position[value] for (value,) in values]
        notes = _forgotten_separator(classes)
    else:
        labels = np.zeros((len(names), len(classes)), np.float32)
        for row, several in enumerate(values):
            labels[row, [position[value] for value in several]] = 1
        notes = _one_each(labels, "leave data.separator out")
    classes, names = _shown(classes, "classes", notes), _shown(names, kind, notes)
    return Examples(names, labels, classes, splits, contents, notes, kind, separator)


def _forgotten_separator(classes: Sequence[str]) -> list[str]:
    odd = [name for name in classes if names_of_labels.SEPARATOR in name]
    meant = f"if that stands between several labels, give data.separator {names_of_labels.SEPARATOR!r}"
    return [f"classes with {names_of_labels.SEPARATOR} in their names ({few(odd, 3)}): {meant}"] if odd else []


def _one_each(labels: np.ndarray, instead: str) -> list[str]:
    """A note where labels that could be several are not, as with classes that exclude each other, encoded one-hot."""
    if not (labels.sum(axis=1) == 1).all():
        return []
    return [f"every example has exactly one label: if no example can have two, {instead}, for better probabilities"]


class Files:
    """Finds what is in a folder by names that may be written with escapes, as in a manifest."""

    def __init__(self, parent: Path):
        self.parent, self.folders = parent, dict[Path, dict[str, Path]]()

    def find(self, name: str) -> Path:
        """Give the path, whether there is something or not.

        >>> Files(Path("photos")).find("roses/1.jpg").as_posix()
        'photos/roses/1.jpg'
        """
        path = self.parent / name
        if "\\" not in name or path.exists():
            return path
        path = self.parent
        for part in Path(name).parts:
            inside = path / part
            if not inside.exists() and path.is_dir():
                if path not in self.folders:
                    self.folders[path] = {shown(entry.name): entry for entry in path.iterdir()}
                inside = self.folders[path].get(shown(part), inside)
            path = inside
        return path


def _csv_row(
    where: str, files: Files, row: dict[str, str | None], column: str, separator: str | None
) -> tuple[str, Path, set[str], str | None]:
    name, text = row["path"] or "", row[column] or ""
    label = {part.strip() for part in (text.split(separator) if separator else [text])} - {""}
    if not label and separator is None:
        raise InvalidInput(f"{where}: the label is empty")
    try:
        file = files.find(name)
        found = file.is_file()
    except OSError as error:  # not the CSV file's fault: the name is too long, or a folder in it is closed to us
        start = cut(name, 100)
        raise InvalidInput(f"{where}: the photo {start!r} cannot be read: {error.strerror}") from error
    if not found:
        raise InvalidInput(f"{where}: no such photo: {str(files.parent / name)!r}")
    if "split" not in row:
        return name, file, label, None
    split = (row["split"] or "").strip().lower()
    if split not in SPLITS:
        raise InvalidInput(f"{where}: split is {row['split']!r}: train, val or test, or leave the column out")
    return name, file, label, SPLITS[split]


def npz(path: str | Path) -> Examples:
    """The arrays of a NumPy file in MedMNIST's layout: `train_images`, `train_labels`, and the same for val and test.

    A split but train may be left out. Images are volumes, photos or signals, (n, *space) or (n, *space, channels): a
    last axis of up to 4 behind one of space is that of channels. Labels are integers, (n,) or (n, 1), or, where an
    example may have several or none, zeros and ones, (n, classes). What they mean the file does not say, so a class is
    called by its number, or by that of its column, from 0. Photos, uint8 with 1 or 3 channels, are what those of other
    sources are, and can be resized; all else stays as it is, float numbers and signals as float32.

    Raises:
        InvalidInput: the file, or an array of it, is missing, damaged or of another kind; the message names it.
    """
    parts = [f"{split}_{part}" for split in ("train", "val", "test") for part in ("images", "labels")]
    found, held = npz_arrays(path, parts)
    splits = [split for split in ("train", "val", "test") if f"{split}_images" in found or f"{split}_labels" in found]
    arrays, labels = [], []
    for split in splits if "train" in splits else ["train"]:
        for part in ("images", "labels"):
            if f"{split}_{part}" not in found:
                raise InvalidInput(
                    f"{path}: no array {split}_{part} among {held}: give train_images, train_labels and, if wanted, "
                    "the same for val and test"
                )
        arrays.append(_npz_images(f"{path}: {split}_images", found.pop(f"{split}_images")))
        labels.append(_npz_labels(f"{path}: {split}_labels", found.pop(f"{split}_labels"), len(arrays[-1])))
        if arrays[-1].shape[1:] != arrays[0].shape[1:] or arrays[-1].dtype != arrays[0].dtype:
            both = [f"{array.dtype} {array.shape[1:]}" for array in (arrays[0], arrays[-1])]
            raise InvalidInput(f"{path}: {split}_images holds {both[1]}, train_images {both[0]}: give one kind")
    wide = {part.shape[1:] for part in labels}
    if len(wide) > 1:
        shapes = few([f"{split}_labels {part.shape}" for split, part in zip(splits, labels, strict=True)])
        raise InvalidInput(f"{path}: {shapes}: give the same columns in every split")
    multi_label, given, notes = labels[0].ndim == 2, np.concatenate(labels), []
    if multi_label:
        classes, positions = [str(column) for column in range(given.shape[1])], given
        notes = _one_each(given, "give integers, (n,)")
    else:
        values, positions = np.unique(given, return_inverse=True)
        classes, positions = [str(value) for value in values], positions.tolist()
        if len(classes) < 2:
            raise InvalidInput(f"{path}: a single class, {classes[0]}: give two or more")
    modality = modalities.of_arrays(arrays[0])
    return Examples(
        names=[f"{split}/{i:06}" for split, part in zip(splits, arrays, strict=True) for i in range(len(part))],
        labels=positions,
        classes=classes,
        splits=[split for split, part in zip(splits, arrays, strict=True) for _ in part],
        contents=[photo for part in arrays for photo in part] if modality.resized else np.concatenate(arrays),
        notes=notes,
        kind=modality.name,
        separator=names_of_labels.SEPARATOR if multi_label else None,
    )


def npz_arrays(path: str | Path, wanted: Sequence[str]) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of a NumPy file that are wanted and there; what else it holds is not read.

    Their sizes are checked before memory is taken for them. Objects, which only running code could read, are refused.

    Args:
        path: Of the file.
        wanted: Their names.

    Returns:
        The arrays by name, and the names of all that the file holds, for a message.

    Raises:
        InvalidInput: the file is missing, damaged or of another kind, what is wanted is no array, or it is too large.
    """
    try:
        with open(path, "rb") as stream:
            if stream.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
                raise InvalidInput(f"{path}: a single array; give several, in a file that numpy.savez wrote")
            with zipfile.ZipFile(stream) as archive:
                names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
                members = {
                    name: _npz_member(archive, f"{path}: {name}", name) for name in wanted if names.count(name) == 1
                }
                if twice := [name for name in wanted if names.count(name) > 1]:
                    raise InvalidInput(f"{path}: several arrays {twice[0]}: keep one")
                # Besides what is read: numbers become float32, and edges are sorted.
                room = sum(size + 8 * count for size, count in members.values())
                untrusted.check_memory(room, f"{path}: {few(list(members))}")
                found = {name: _npz_array(archive, name) for name in members}
    except InvalidInput:
        raise
    except OSError as error:
        raise InvalidInput(
            f"data.path is {str(path)!r}: {error.strerror or error}; give a file that numpy.savez wrote"
        ) from error
    except Exception as error:  # a damaged file raises almost anything, down to tokenize.TokenError and zlib.error
        raise InvalidInput(f"{path}: not arrays of numbers as numpy.savez writes them ({first_line(error)})") from error
    return found, few([name[:60] for name in sorted(set(names))]) or "none"


def _npz_info(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    return next(info for info in archive.infolist() if info.filename.removesuffix(".npy") == name)


def _npz_member(archive: zipfile.ZipFile, where: str, name: str) -> tuple[int, int]:
    """How many bytes an array's header announces, and for how many numbers that are not bytes; nothing is read yet."""
    info = _npz_info(archive, name)
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
        size, there = dtype.itemsize * math.prod(shape), info.file_size - member.tell()
    if size != there or min(shape, default=0) < 0:
        raise InvalidInput(
            f"{where} is announced as {dtype} {shape}, {size:,} bytes, but has {there:,}: write it again"
        )
    return size, 0 if dtype.itemsize == 1 else math.prod(shape)


def _npz_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(_npz_info(archive, name)) as member:
        array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
        member.read(1)  # the end, where the archive's check sum is compared
    return array


def _npz_images(where: str, images: np.ndarray) -> np.ndarray:
    kind = images.dtype.kind
    if kind not in "buif" or not 2 <= images.ndim <= 5 or not images.size:
        raise InvalidInput(f"{where} is {images.dtype} {images.shape}: give numbers (n, *space[, channels])")
    if images.ndim == 2 or (images.shape[-1] > CHANNELS and images.ndim < 5):
        images = images[..., None]
    if images.ndim == 5 and images.shape[-1] > CHANNELS:
        raise InvalidInput(f"{where} is {images.dtype} {images.shape}: 3 axes of space and {CHANNELS} channels at most")
    if images.dtype != np.uint8 or images.ndim == 3:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
            # Black and white is 0 and 255, as in a photo.
            images = (
                images * np.uint8(255) if kind == "b" and images.ndim > 3 else images.astype(np.float32, copy=False)
            )
    if images.dtype == np.float32 and not np.isfinite(images).all():
        raise InvalidInput(f"{where} holds numbers that are not finite: remove or replace them")
    return images


def _npz_labels(where: str, labels: np.ndarray, count: int) -> np.ndarray:
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


def tfds(name: str, data_dir: str | None = None) -> Examples:
    """The photos of a data set of tensorflow-datasets, which is downloaded and prepared when it is not yet.

    A prepared data set is read without a network. Photos stay encoded, as they are stored, and are held in memory.

    Args:
        name: The data set, with its config and version if wanted: `tf_flowers`, `horses_or_humans:3.0.0`.
        data_dir: Where prepared data sets are kept; by default tensorflow-datasets' own folder.

    Raises:
        InvalidInput: no such data set, it is not one of labelled photos, or a package is missing.
        Unavailable: it is not prepared in `data_dir` and cannot be downloaded.
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
    given = {SPLITS[split]: split for split in builder.info.splits if split in SPLITS}
    if "train" not in given:
        raise InvalidInput(f"data.name is {name!r}: it has no split train, only {few(list(builder.info.splits))}")
    notes = []
    if unused := sorted(set(builder.info.splits) - set(given.values())):
        notes.append(f"{name}: left out the splits {few(unused)}: only train, validation and test are used")
    decoding = tensorflow_datasets.decode.PartialDecoding(
        {image: True, label: True}, decoders={image: tensorflow_datasets.decode.SkipDecoding()}
    )
    labels: list[int] = []
    contents: list[Content] = []
    classes = _shown(list(builder.info.features[label].names), "classes", notes)
    examples = Examples([], labels, classes, [], contents, notes)
    for split, theirs in given.items():
        dataset = builder.as_dataset(split=theirs, decoders=decoding, shuffle_files=False)
        for i, example in enumerate(dataset.as_numpy_iterator()):
            if example[label] < 0:  # the custom for a test split whose labels are kept secret
                notes.append(f"{name}: left out the split {theirs}: its photos have no label")
                break
            examples.names.append(f"{theirs}/{i:06}")
            labels.append(int(example[label]))
            examples.splits.append(split if len(given) > 1 else None)
            contents.append(example[image])
    return examples


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
    """Whether a name server knows `host`, or a proxy would ask it for us."""
    if urllib.request.getproxies():
        return True
    found = []

    def look_up() -> None:
        try:
            found.extend(socket.getaddrinfo(host, 443))
        except OSError:
            found.clear()

    thread = threading.Thread(target=look_up, daemon=True)  # the look-up has no time limit of its own
    thread.start()
    thread.join(seconds)
    return bool(found)


def _features(tensorflow_datasets: Any, name: str, info: Any) -> tuple[str, str]:
    """The names of the image and of the label: the data set's own choice, or the only ones there are."""
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


def _split_folders(root: Path) -> list[tuple[str | None, Path]]:
    """The folders that hold class folders: the splits', or `root` itself, whose split is None."""
    folders = _folders(root)
    given = [f for f in folders if f.name.lower() in SPLITS]
    others = [f.name for f in folders if f.name.lower() not in SPLITS]
    if not given or (others and not any(_folders(f) for f in given)):  # a class may be called `train`: the vehicle
        return [(None, root)]
    if others:
        raise InvalidInput(f"{str(root)!r} has {few(others)} beside {few([f.name for f in given])}: move them away")
    above: list[tuple[str | None, Path]] = [(SPLITS[f.name.lower()], f) for f in given]
    for split in ("train", "val", "test"):
        same = [f.name for s, f in above if s == split]
        if len(same) > 1:
            raise InvalidInput(f"{str(root)!r} has several folders for the split {split}: {few(same)}")
    return above


def _folders(path: Path) -> list[Path]:
    folders = [f for f in path.iterdir() if f.is_dir() and not f.name.startswith(".")]
    folders.sort(key=lambda f: shown(f.name))  # the order of a CSV file with the same classes
    for f in folders:
        if f.is_symlink() and f.resolve() in (path.resolve(), *path.resolve().parents):
            raise InvalidInput(f"{str(f)!r} is a link to a folder above it: remove the link")
    return folders


def _files(path: Path) -> list[Path]:
    return sorted(f for f in path.iterdir() if f.is_file() and not f.name.startswith("."))


def _walk(path: Path) -> Iterator[Path]:
    def stop(error: OSError) -> None:  # without it, `os.walk` passes over what it cannot read
        raise error

    for folder_name, inner, files in os.walk(path, onerror=stop):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        yield from (Path(folder_name) / name for name in sorted(files) if not name.startswith("."))


def few(names: Sequence[str], most: int = 10) -> str:
    """The first names, in one line, as `display.shown` writes them.

    >>> few(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    rest = len(names) - most
    return ", ".join(shown(name) for name in names[:most]) + (f" and {rest} more" if rest > 0 else "")
