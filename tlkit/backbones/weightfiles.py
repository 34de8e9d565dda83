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

Request = dict[str, Any]
"""Arguments of `keras.utils.get_file`."""

FOREIGN = (".ckpt", ".index", ".npy", ".onnx", ".pb", ".pickle", ".pkl", ".pt", ".pth", ".safetensors", ".tflite")
WIDEST = 20  # arrays that one layer may have; a model among the layers has more
_PATCHING = threading.Lock()  # the thread that puts Keras' functions back must be the one that replaced them


def load(network: keras.Model, path: str, wanted: str) -> None:
    """Load a weights file and check that it holds this network's weights and no others.

    Args:
        network: The network.
        path: A `.weights.h5` or `.h5` file.
        wanted: What the file should hold, for the error.

    Raises:
        InvalidInput: it is not such a file, or does not fit.
    """
    import h5py

    check_folder(path)
    if problem := _not_weights(path):
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
        stored, needed = _stored(path), (len(network.weights), network.count_params())
        raise InvalidInput(
            f"weights file {path} does not fit {wanted}: the file holds {_counts(*stored)}, the network has "
            f"{_counts(*needed)}{_why(path, stored, needed)}"
        )
    check_finite(network, f"weights file {path}")


def check_folder(path: object) -> None:
    """Refuse a folder in place of a weights file.

    Raises:
        InvalidInput: it is a folder; the message says what to give instead.
    """
    if isinstance(path, str | os.PathLike) and os.path.isdir(path):
        saved = os.path.exists(os.path.join(path, "saved_model.pb"))
        kind = "a folder with a SavedModel, which Keras cannot take weights from" if saved else "a folder"
        raise InvalidInput(
            f"weights is {os.fspath(path)!r}, {kind}: give the path of a file that exists, one that the network's "
            "save_weights wrote (.weights.h5)"
        )


def check_finite(model: keras.Model, what: str) -> None:
    """Refuse a model with a weight that is not finite: its answers would not be numbers.

    Args:
        model: Any model.
        what: Where its weights come from, for the error.

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


def _not_weights(path: str) -> str:
    """Say why a file cannot be one of weights alone as Keras writes them; empty where it may be one."""
    if zipfile.is_zipfile(path):
        if path.endswith(".keras"):
            take = f"keras.saving.load_model({path!r}).get_layer('backbone').save_weights('backbone.weights.h5')"
            return f"is a whole model: take its backbone's weights by {take}"
        return "is a zip file, as of NumPy or PyTorch"
    suffix = os.path.splitext(path)[1].lower()
    return f"is a {suffix} file, as other libraries write" if suffix in FOREIGN else ""


def _why(path: str, stored: tuple[int, int], needed: tuple[int, int]) -> str:
    """Say what a file holds instead, where that is known."""
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
    if stored == needed:
        return ": in other layers or other shapes"
    additional = stored[0] - needed[0]
    return ": it seems to have a top; give one without (include_top=False)" if 0 < additional <= 2 else ""


def load_published(network: keras.Model, path: str, wanted: str) -> None:
    """Load a weights file from Keras' cache.

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
    """Count the arrays and numbers in an HDF5 weights file; (0, 0) if it cannot be read to the end."""
    import h5py

    sizes: list[int] = []

    def visit(key: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and not key.startswith("optimizer"):
            sizes.append(int(item.size))

    with suppress(Exception), h5py.File(path) as file:
        file.visititems(visit)
    return len(sizes), sum(sizes)


def asked_for(build: Callable[[], keras.Model]) -> tuple[keras.Model, Request]:
    """Build a network without its weights, and find out which file Keras would load into it.

    Keras has no list of its files, and its constructors choose them by name, alpha, top and size.

    Args:
        build: Calls a constructor of keras.applications with weights="imagenet".

    Returns:
        The network with random weights, and the arguments of `keras.utils.get_file`.
    """
    from keras.src.utils import file_utils

    this_thread = threading.get_ident()
    requests: list[Request] = []
    _PATCHING.acquire()
    get_file, load_weights = file_utils.get_file, keras.Model.load_weights

    def note_request(fname: str | None = None, origin: str | None = None, **arguments: Any) -> str:
        if threading.get_ident() != this_thread:
            return str(get_file(fname, origin, **arguments))
        requests.append({"fname": fname, "origin": origin, **arguments})
        return str(fname)

    def skip_loading(network: keras.Model, *arguments: Any, **named: Any) -> None:
        if threading.get_ident() != this_thread:
            load_weights(network, *arguments, **named)

    file_utils.get_file, keras.Model.load_weights = note_request, skip_loading  # type: ignore[method-assign]
    try:
        network = build()
    finally:
        file_utils.get_file, keras.Model.load_weights = get_file, load_weights  # type: ignore[method-assign]
        _PATCHING.release()
    if len(requests) != 1:
        raise RuntimeError(f"the network asked for {len(requests)} weights files")
    return network, requests[0]


def fetch(name: str, request: Request) -> str:
    """Return the path of a published file in Keras' cache, after a download where it is not there yet.

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
        return str(file_utils.get_file(**request))
    except Exception as error:  # get_file raises bare Exceptions
        reason = " ".join(str(error).split())
        raise Unavailable(f"{name} needs {path}, which cannot be downloaded ({reason}): {advice}") from error


def in_cache(request: Request) -> str:
    """Return the path at which `keras.utils.get_file` looks, or, unlike it, a file in a read-only cache."""
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
    """Tell whether the host of a URL, or the proxy in front of it, accepts a connection within some seconds."""
    target = urlsplit(url)
    proxy = urllib.request.getproxies().get(target.scheme)
    if proxy and not urllib.request.proxy_bypass(str(target.hostname)):
        target = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    connections: list[bool] = []

    def connect() -> None:
        address = (str(target.hostname), target.port or (80 if target.scheme == "http" else 443))
        with suppress(OSError), socket.create_connection(address, seconds):
            connections.append(True)

    # In a thread because nothing limits the time that looking up a name takes.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(2 * seconds)
    return bool(connections)
