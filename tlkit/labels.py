"""Class names, how files become examples, and when no single class is said: in files and models of Keras, and in texts.

A file holds them twice. One is a member of the zip, `tlkit.json`. Keras drops that when it saves the model again, so
they are also in the configuration of a layer in front of the last one: a `Dropout` of rate 0, which changes nothing and
whose `seed` Keras keeps as it is. Any Keras loads such a file, without tlkit.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tlkit import untrusted
from tlkit.display import cut, shown

MEMBER, CONFIG = "tlkit.json", "config.json"
LAYER = "class_names"
MOST = 2**24  # bytes that all names together may take
LONGEST = 4096  # letters of a name
UNPRINTED = ("Cc", "Cs", "Zl", "Zp")  # Unicode's control characters, halves of letters, ends of lines and paragraphs
SEPARATOR = "|"
"""Separates the labels of an example that may have several."""


def joined(present: Sequence[object], classes: Sequence[str], separator: str = SEPARATOR) -> str:
    """Name the labels of one example that may have several, or none: an empty text.

    Args:
        present: For each class, whether the example has it.
        classes: Names of the classes.
        separator: Text between two names.

    >>> joined([1, 0, 1], ["cat", "dog", "sofa"])
    'cat|sofa'
    """
    return separator.join(name for name, has in zip(classes, present, strict=True) if has)


def write(
    path: str | Path,
    classes: list[str],
    reading: Mapping[str, object] | None = None,
    abstention: Mapping[str, float] | None = None,
) -> None:
    """Add the class names to a saved model, as a member of the file and, where the model is a graph, as a layer.

    Args:
        path: The `.keras` file.
        classes: The names, in the order of the model's outputs.
        reading: How files become examples, where that differs from the default: `changed` of
            `tlkit.data.modalities.Reading`.
        abstention: When the model says no single class: `changed` of `tlkit.evaluation.abstention.Abstention`.

    Raises:
        ValueError: the file has class names already, a name is empty, or two classes have the same name.
    """
    if "" in classes or len(set(classes)) < len(classes):
        raise ValueError(f"the class names {classes} are not all given and different")
    more = {"reading": reading, "abstention": abstention}
    content = {"classes": list(classes)} | {name: dict(value) for name, value in more.items() if value}
    with zipfile.ZipFile(path) as archive:
        if MEMBER in archive.namelist():
            raise ValueError(f"{path} holds class names already")
        config = _config(archive)
    if config is not None and _add_layer(config, content):
        _replace(Path(path), CONFIG, json.dumps(config))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(MEMBER, json.dumps(content))


def of(model: Any) -> list[str] | None:
    """Return the class names of a model that Keras has loaded, in the order of its outputs; None if it has none.

    Args:
        model: A `keras.Model` that tlkit has saved, also where plain Keras has saved it again since.

    Raises:
        ValueError: they are not a list of different names that a line can show.

    >>> import keras
    >>> of(keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0, seed={"classes": ["cat", "dog"]}, name=LAYER)]))
    ['cat', 'dog']
    """
    for layer in getattr(model, "layers", []):
        if layer.name == LAYER and isinstance(seed := getattr(layer, "seed", None), dict):
            return _names(seed, f"layer {LAYER}")
    return None


def _add_layer(config: dict[str, Any], content: Mapping[str, object]) -> bool:
    """Put a layer that holds this in front of the last one of a model; say whether that could be done.

    Args:
        config: Of the model, as Keras writes it; it is changed.
        content: What the layer holds.
    """
    if (old := _layer(config)) is not None:
        old["config"]["seed"] = dict(content)
        return True
    try:
        layers, last = config["config"]["layers"], config["config"]["layers"][-1]
        if config["class_name"] == "Functional":
            outputs = config["config"]["output_layers"]
            ((name, *_),) = [outputs] if isinstance(outputs[0], str) else outputs
            last = next(layer for layer in layers if layer["config"]["name"] == name)
        own = {"name": LAYER, "trainable": True, "dtype": last["config"].get("dtype", "float32")}
        own |= {"rate": 0.0, "noise_shape": None, "seed": dict(content)}
        layer = {"module": "keras.layers", "class_name": "Dropout", "config": own, "registered_name": None}
        if config["class_name"] == "Sequential" and len(layers) > 1:
            layers.insert(len(layers) - 1, layer)
            return True
        tensor = next(_tensors(last["inbound_nodes"]))
        node = {"args": [json.loads(json.dumps(tensor))], "kwargs": {}}
        tensor["config"]["keras_history"] = [LAYER, 0, 0]
        layers.append({**layer, "name": LAYER, "inbound_nodes": [node]})
        return True
    except (KeyError, IndexError, TypeError, ValueError, StopIteration):  # several outputs, or no graph of layers
        return False


def _layer(config: Any) -> dict[str, Any] | None:
    """Find the layer that holds class names among those of a model's configuration."""
    layers = config.get("config", {}).get("layers") if isinstance(config, dict) else None
    for layer in layers if isinstance(layers, list) else []:
        own = layer.get("config") if isinstance(layer, dict) else None
        if isinstance(own, dict) and own.get("name") == LAYER and isinstance(own.get("seed"), dict):
            return layer
    return None


def _tensors(value: Any) -> Iterator[dict[str, Any]]:
    """Walk over the tensors that a layer takes, as Keras writes them."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            yield value
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _tensors(inner)


def _config(archive: zipfile.ZipFile) -> dict[str, Any] | None:
    """Read the configuration of a model; None if there is none that can be read."""
    try:
        content = untrusted.parse_json(untrusted.member(archive, CONFIG, MOST), CONFIG)
    except (KeyError, ValueError, RecursionError, MemoryError):
        return None
    return content if isinstance(content, dict) else None


def _replace(path: Path, name: str, text: str) -> None:
    """Write another text in place of a member of a zip, whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.absolute().parent, suffix=path.suffix)
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(path) as old, zipfile.ZipFile(file, "w") as new:
            for member in old.infolist():
                if member.filename == name:
                    new.writestr(member, text)
                    continue
                with old.open(member) as source, new.open(member, "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target, 2**20)
        shutil.copymode(path, temporary)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read(path: str | Path) -> list[str] | None:
    """Return the class names of a saved model, or None where it was saved without.

    Raises:
        ValueError: they are not a list of different names that a line can show.
        zipfile.BadZipFile: the file is damaged.

    >>> import tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "model.keras")
    >>> zipfile.ZipFile(path, "w").close()
    >>> read(path)
    >>> write(path, ["cat", "dog"])
    >>> read(path)
    ['cat', 'dog']
    """
    content = _content(path)
    return None if content is None else _names(content, f"{MEMBER} in {path}")


def _names(content: Mapping[str, object], where: str) -> list[str]:
    """Check class names, whoever wrote them."""
    names = content.get("classes")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where} does not hold a list of class names")
    if repeated := untrusted.duplicates(names):
        raise ValueError(f"{where} gives two classes the name {shown(cut(repeated[0], 40))}: each needs its own")
    for number, name in enumerate(names):
        if not name.strip():
            raise ValueError(f"{where} gives class {number} no name")
        if len(name) > LONGEST or any(unicodedata.category(letter) in UNPRINTED for letter in name):
            raise ValueError(
                f"{where} gives class {number} the name {shown(cut(name, 40))}: names have no control characters and "
                f"at most {LONGEST:,} others"
            )
    return names


def read_reading(path: str | Path) -> object:
    """Return how files become the examples of a saved model, as `write` was told, for `Reading.of`, which checks it.

    Raises:
        ValueError: the member of the file does not hold what `write` writes.
        zipfile.BadZipFile: the file is damaged.
    """
    return (_content(path) or {}).get("reading", {})


def read_abstention(path: str | Path) -> object:
    """Return when a model gives no single class, for `Abstention.of`, which checks it; errors as `read_reading`."""
    return (_content(path) or {}).get("abstention", {})


def _content(path: str | Path) -> dict[str, object] | None:
    """Read the member of a file, else what its layer holds; None where there is neither."""
    where = f"{MEMBER} in {path}"
    with zipfile.ZipFile(path) as archive:
        try:
            content = untrusted.parse_json(untrusted.member(archive, MEMBER, MOST), where)
        except KeyError:  # old, or saved again by Keras
            layer = _layer(_config(archive))
            return layer["config"]["seed"] if layer else None
        except (ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"{where} does not hold a list of class names: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where} does not hold a list of class names")
    return content
