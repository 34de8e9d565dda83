"""Sources of labeled photos, sounds and arrays. A source lists examples; none is decoded here."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tlkit.data.sources.archives import npz, npz_arrays
from tlkit.data.sources.datasets import tfds
from tlkit.data.sources.examples import SPLITS, Examples, split_word
from tlkit.data.sources.files import Files
from tlkit.data.sources.folders import folder
from tlkit.data.sources.tables import csv_file
from tlkit.data.sources.webdataset import webdataset
from tlkit.errors import InvalidInput
from tlkit.untrusted import check_url, is_url

__all__ = [
    "SPLITS", "Examples", "Files", "csv_file", "embedded", "folder", "load_source", "npz", "npz_arrays", "split_word",
    "tfds", "webdataset",
]  # fmt: skip


def load_source(
    source: str = "embedded",
    *,
    path: str | Path | None = None,
    name: str | None = None,
    data_dir: str | None = None,
    separator: str | None = None,
    columns: Mapping[str, str] | None = None,
    group: str | None = None,
    strict: bool = False,
    white: float | None = None,
) -> Examples:
    """List the examples of a source.

    Args:
        source: `embedded`, `folder`, `csv`, `npz`, `tfds` or `webdataset`; see the functions of these names
            (`csv_file` for `csv`).
        path: The folder for source `folder`, the file for `csv` and `npz`, or tar files for `webdataset`. All but
            `npz` may be at a URL that fsspec reads.
        name: The data set for source `tfds`.
        data_dir: The folder in which tensorflow-datasets keeps prepared data.
        separator: For source `csv`; see `csv_file`.
        columns: For source `csv`; see `csv_file`.
        group: For sources `folder`, `csv` and `webdataset`: what examples no split divides, by their paths; see
            `folder`.
        strict: For source `csv`: raise an error for a row that cannot be used, instead of leaving it out.
        white: For source `npz`; see `npz`.

    Raises:
        InvalidInput: the source, or what it needs, is missing or cannot be used.
        Unavailable: the data set of source `tfds` is not prepared yet and there is no network.

    >>> len(load_source("embedded").names)
    1797
    """
    if group is not None and source not in ("folder", "csv", "webdataset"):
        raise InvalidInput(f"data.group is {group!r}: it goes with data.source folder, csv or webdataset")
    if source == "embedded":
        return embedded()
    if path is not None and "\\" in str(path):  # escaped, as in the config of a run
        path = Files(Path()).find(str(path))
    if source in ("folder", "csv", "npz", "webdataset"):
        if path is None:
            raise InvalidInput(f"data.path is None: data.source {source} needs it")
        if source == "webdataset":
            return webdataset(path, group)
        if source == "csv":
            return csv_file(path, separator, columns=columns, group=group, strict=strict)
        if source == "folder":
            return folder(path, group)
        if is_url(path):
            check_url(str(path))
            raise InvalidInput(
                f"data.path is {str(path)!r}: data.source npz takes none at a URL; folder, csv and webdataset do"
            )
        return npz(path, white)
    if source == "tfds":
        if name is None:
            raise InvalidInput("data.name is None: data.source tfds needs it, for example tf_flowers")
        return tfds(name, data_dir)
    raise InvalidInput(f"data.source is {source!r}: embedded, folder, csv, npz, tfds or webdataset")


def embedded() -> Examples:
    """List scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, white on black, with values scaled to 0 to 255."""
    digits, labels = _digits()
    images = np.rint(digits * (255 / 16)).astype(np.uint8)
    return Examples(
        names=[f"digit {i:04}" for i in range(len(images))],
        labels=labels.tolist(),
        classes=[str(label) for label in range(10)],
        splits=[None] * len(images),
        contents=list(images),
        notes=[],
    )


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Read scikit-learn's digits from its file: the import of its data sets takes ten times as long."""
    spec = importlib.util.find_spec("sklearn")
    for place in (spec and spec.submodule_search_locations) or ():
        file = Path(place, "datasets", "data", "digits.csv.gz")
        if file.is_file():
            table = np.loadtxt(file, np.int64, delimiter=",")
            return table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images, digits.target
