"""Weights files: published ones in Keras' cache, fetched if need be, and a user's own, checked before they are used."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import threading
import urllib.request
import zipfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import keras
import numpy as np

from tlkit import untrusted
from tlkit.errors import InvalidInput, Unavailable

FOREIGN = (".ckpt", ".index", ".npy", ".onnx", ".pb", ".pickle", ".pkl", ".pt", ".pth", ".safetensors", ".tflite")
WIDEST = 20  # arrays that one layer may have; a model among the layers has more
_ASKING = threading.Lock()  # who puts Keras' functions back must be who replaced them


def load(network: keras.Model, path: str, wanted: str) -> None:
    """Load a weights file and check that it holds this network's weights and no others.

    Args:
        network: The network.
        path: A `.weights.h5` or `.h5` file.
        wanted: What the file should hold, for the error.

    Raises:
        InvalidInput: it is no such file, or does not fit.
    """
    import h5py

    check_folder(path)
    if problem := _no_weights(path):
        raise InvalidInput(f"weights file {path} {problem}; {wanted} takes a .weights.h5 or .h5 file")
    if not path.endswith((".h5", ".hdf5")) or not h5py.is_hdf5(path):
        raise InvalidInput(f"weights file {path} is not a complete HDF5 file (.weights.h5 or .h5) with {wanted}")
    try:
        untrusted.check_hdf5(path, os.path.getsize(path), f"weights file {path}")
    except InvalidInput:
        raise
    except Exception as error:  # h5py raises OSError, RuntimeError, KeyError ...
        raise InvalidInput(f"weights file {path} is cut short or damaged: copy or download it again") from error
    try:
        network.load_weights(path)
        # Keras does not mind a .weights.h5 with more layers than the network; a top of 1000 classes would pass.
        fits = not path.endswith(".weights.h5") or _stored(path)[0] == len(network.weights)
    except Exception:  # Keras and h5py raise ValueError, KeyError, OSError ..., with pages of text
        fits = False
    if not fits:
        there, needed = _stored(path), (len(network.weights), network.count_params())
        raise InvalidInput(
            f"weights file {path} does not fit {wanted}: the file holds {_counts(*there)}, the network has "
            f"{_counts(*needed)}{_why(path, there, needed)}"
        )
    check_finite(network, f"weights file {path}")


def check_folder(path: object) -> None:
    """Refuse a folder where weights are read from a file.

    Raises:
        InvalidInput: it is one, and the message says how to take the weights of a SavedModel.
    """
    if isinstance(path, str | os.PathLike) and os.path.isdir(path):
        saved = os.path.exists(os.path.join(path, "saved_model.pb"))
        kind = "a folder with a SavedModel, which Keras cannot take weights from" if saved else "a folder"
        raise InvalidInput(
            f"weights is {os.fspath(path)!r}, {kind}: give the path of a file that exists, one that the network's "
            "save_weights wrote (.weights.h5)"
        )


def check_finite(model: keras.Model, what: str) -> None:
    """Refuse a model whose answers would be no numbers.

    Args:
        model: Any.
        what: Its weights come from, for the error.

    Raises:
        InvalidInput: a weight is not finite; the message names it.

    >>> layer = keras.layers.Dense(2, bias_initializer=keras.initializers.Constant(float("nan")), name="head")
    >>> check_finite(keras.Sequential([keras.Input((3,)), layer]), "it")
    Traceback (most recent call last):
        ...
    tlkit.errors.InvalidInput: it has 2 numbers in ... that are not finite: train the network again, ...
    """
    for weight in model.weights:
        if "float" not in str(weight.dtype):
            continue
        finite = np.isfinite(keras.ops.convert_to_numpy(weight))
        if not finite.all():
            raise InvalidInput(
                f"{what} has {finite.size - np.count_nonzero(finite):,} numbers in {weight.path} that are not finite: "
                "train the network again, at a lower rate"
            )


def _no_weights(path: str) -> str:
    """What a file is that holds no weights alone as Keras writes them; nothing where it may."""
    if zipfile.is_zipfile(path):
        if path.endswith(".keras"):
            take = f"keras.saving.load_model({path!r}).get_layer('backbone').save_weights('backbone.weights.h5')"
            return f"is a whole model: take its backbone's weights by {take}"
        return "is a zip file, as of NumPy or PyTorch"
    suffix = os.path.splitext(path)[1].lower()
    return f"is a {suffix} file, as other libraries write" if suffix in FOREIGN else ""


def _why(path: str, there: tuple[int, int], needed: tuple[int, int]) -> str:
    """What a file holds instead, where that can be told."""
    import h5py

    with suppress(Exception), h5py.File(path) as file:
        keys: list[str] = []
        file.visit(keys.append)
        old = file.get("model_weights", file)
        groups = [len(old[name].attrs.get("weight_names", [])) for name in old.attrs.get("layer_names", [])]
        if any(key.count("layers/") > 1 for key in keys) or max(groups, default=0) > WIDEST:
            return (
                ": it is of a model that holds the network as one of its layers; load it into that model, and write "
                "those of the network by model.get_layer(...).save_weights('backbone.weights.h5')"
            )
    if there == needed:
        return ": in other layers or other shapes"
    more = there[0] - needed[0]
    return ": it seems to have a top; give one without (include_top=False)" if 0 < more <= 2 else ""


def load_published(network: keras.Model, path: str, wanted: str) -> None:
    """Load a file of Keras' cache.

    Raises:
        Unavailable: it is damaged.
    """
    try:
        load(network, path, wanted)
    except InvalidInput as error:
        raise Unavailable(
            f"{path} in Keras' cache is incomplete or damaged: delete it, and it is downloaded again"
        ) from error


def _counts(arrays: int, numbers: int) -> str:
    return f"{arrays} arrays of {numbers:,} numbers"


def _stored(path: str) -> tuple[int, int]:
    """How many arrays and numbers an HDF5 weights file holds; (0, 0) if it cannot be read to the end."""
    import h5py

    sizes: list[int] = []

    def visit(key: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not key.startswith("optimizer"):
            sizes.append(int(item.size))

    with suppress(Exception), h5py.File(path) as file:
        file.visititems(visit)
    return len(sizes), sum(sizes)


def asked_for(build: Callable[[], keras.Model]) -> tuple[keras.Model, dict[str, Any]]:
    """Build a network without its weights, and learn which file Keras would load into it.

    Keras has no list of its files, and its constructors choose them by name, alpha, top and size.

    Args:
        build: Calls a constructor of keras.applications with weights="imagenet".

    Returns:
        The network with random weights, and the arguments of `keras.utils.get_file`.
    """
    from keras.src.utils import file_utils

    me, asked = threading.get_ident(), []
    _ASKING.acquire()
    get_file, load_weights = file_utils.get_file, keras.Model.load_weights

    def ask(fname: str | None = None, origin: str | None = None, **arguments: Any) -> str:
        if threading.get_ident() != me:
            return get_file(fname, origin, **arguments)
        asked.append({"fname": fname, "origin": origin, **arguments})
        return str(fname)

    def leave(network: keras.Model, *arguments: Any, **named: Any) -> Any:
        return load_weights(network, *arguments, **named) if threading.get_ident() != me else None

    file_utils.get_file, keras.Model.load_weights = ask, leave
    try:
        network = build()
    finally:
        file_utils.get_file, keras.Model.load_weights = get_file, load_weights
        _ASKING.release()
    if len(asked) != 1:
        raise RuntimeError(f"the network asked for {len(asked)} weights files")
    return network, asked[0]


def fetch(name: str, request: dict[str, Any]) -> str:
    """Give the path of a published file in Keras' cache, after a download if need be.

    Raises:
        Unavailable: it is neither there nor can it be downloaded.
    """
    from keras.src.utils import file_utils

    path = in_cache(request)
    if os.path.exists(path):
        if _is_intact(path, request.get("file_hash")):
            return path
        problem = "is incomplete or outdated (its hash is not the published one)"
    else:
        problem = "is not there"
    url = request["origin"]
    advice = (
        f"put the file from {url} there (KERAS_HOME moves the folder), or try the embedded demo, which downloads "
        "nothing: --backbone.name LetterNet"
    )
    if not reachable(url):
        host = urlsplit(url).hostname
        raise Unavailable(f"{name} needs {path}, which {problem}, and {host} cannot be reached: {advice}")
    try:
        return file_utils.get_file(**request)
    except Exception as error:  # get_file raises bare Exceptions
        reason = " ".join(str(error).split())
        raise Unavailable(f"{name} needs {path}, which cannot be downloaded ({reason}): {advice}") from error


def in_cache(request: dict[str, Any]) -> str:
    """Where `keras.utils.get_file` looks and, other than it, where a cache that may only be read has the file."""
    from keras.src.utils import file_utils

    home = os.path.expanduser(file_utils.config.keras_home())
    path = os.path.join(home, request["cache_subdir"], request["fname"])
    if not os.path.exists(path) and not os.access(home, os.W_OK):
        home = os.path.join("/tmp", ".keras")  # noqa: S108 (as Keras does)
    return os.path.join(home, request["cache_subdir"], request["fname"])


def _is_intact(path: str, expected: str | None) -> bool:
    if expected is None:
        return True
    algorithm = functools.partial(hashlib.new, "sha256" if len(expected) == 64 else "md5", usedforsecurity=False)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == expected


def reachable(url: str, seconds: float = 5.0) -> bool:
    """Whether the host of a URL, or the proxy in front of it, accepts a connection within some seconds."""
    target = urlsplit(url)
    proxy = urllib.request.getproxies().get(target.scheme)
    if proxy and not urllib.request.proxy_bypass(str(target.hostname)):
        target = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    answers: list[bool] = []

    def connect() -> None:
        address = (str(target.hostname), target.port or (80 if target.scheme == "http" else 443))
        with suppress(OSError), socket.create_connection(address, seconds):
            answers.append(True)

    # In a thread because nothing limits the time that looking up a name takes.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(2 * seconds)
    return bool(answers)
