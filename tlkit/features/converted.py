"""Networks converted for OpenVINO, kept in the activation store: what predicts by one that it has needs no Keras.

A network is a space of the store with one segment of bytes: OpenVINO's two files, and what else is to be known of it.
So it counts against the store's limit, is whole or missing, and is verified before it is used, as activations are. Its
name comes from the model file's content and from the versions of all that made it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tlkit
from tlkit import inference
from tlkit.features.space import Space
from tlkit.features.store import Store
from tlkit.inference import Engine

ROW, LENGTH = 2**16, 8  # bytes of a row of the segment, and of a length in it
FORMAT = 2  # raise it when the same model file begins to mean another network
_FIRST = hashlib.sha256(b"0").digest()  # key of the first row


class Converted(NamedTuple):
    """A network that is ready for OpenVINO.

    Args:
        network: OpenVINO's graph.
        known: What was kept with it: plain JSON.
    """

    network: Any
    known: dict[str, Any]


def find(path: Path) -> Converted | None:
    """Return the network of a model file, or None where there is none that may be used.

    Args:
        path: Of the `.keras` file.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, RuntimeError):  # the last is OpenVINO's
        space = _space(path).refresh()
        if space.verify([_FIRST]) and (content := _own(space, space.places[_FIRST][0])) is not None:
            return _read(content.tobytes())
    return None


def keep(path: Path, network: Any, known: Mapping[str, Any], label: str, agrees: Callable[[Engine], bool]) -> None:
    """Keep the network of a model file, unless the store has no room for it or cannot be written.

    Args:
        path: Of the `.keras` file.
        network: As `tlkit.inference.graph` makes it.
        known: What else is to be known: plain JSON.
        label: A short name of the network, for people.
        agrees: Asked about the network as it will be read again; if it does not agree, nothing is kept.
    """
    content = _content(network, known)
    if not agrees(inference.engine(_read(content).network)):
        return
    rows = np.frombuffer(content.ljust(-(-len(content) // ROW) * ROW, b"\0"), np.uint8).reshape(-1, ROW)
    keys = [hashlib.sha256(str(row).encode()).digest() for row in range(len(rows))]
    with contextlib.suppress(OSError):
        _space(path, label).write(keys, rows)


def _space(path: Path, label: str = "") -> Space:
    """The place of the network of a model file."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    description = {
        "network": digest,
        "engine": inference.version(),
        "tlkit": tlkit.__version__,
        "format": FORMAT,
        "precision": "float32",
        "dtype": "uint8",
        "shape": [ROW],
    }
    return Store().space(description, label)


def _content(network: Any, known: Mapping[str, Any]) -> bytes:
    """What is kept: the lengths of three parts, and these: JSON, the graph in XML, the weights."""
    parts = json.dumps(dict(known)).encode(), *inference.packed(network)
    return b"".join([*(len(part).to_bytes(LENGTH, "big") for part in parts), *parts])


def _read(content: bytes) -> Converted:
    """Read again what was kept."""
    parts, start = [], 3 * LENGTH
    for number in range(3):
        end = start + int.from_bytes(content[number * LENGTH : (number + 1) * LENGTH], "big")
        parts.append(content[start:end])
        start = end
    known, graph, weights = parts
    return Converted(inference.unpacked(graph, weights), json.loads(known))


def _own(space: Space, part: int) -> np.ndarray | None:
    """The content of a segment, unless another user wrote its file: a stranger's network could say anything."""
    path = space.paths[part]
    if path is None or (hasattr(os, "geteuid") and path.stat().st_uid != os.geteuid()):
        return None
    return space.segments[part].values
