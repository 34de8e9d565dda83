"""Digests of a network, by which its stored features are found again."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from importlib import metadata
from typing import Any

import keras
import numpy as np

_LEAVE_OUT = (
    "name",
    "trainable",
    "seed",
    "build_config",
    "compile_config",
    "registered_name",
)  # keys of a layer's config
_REFERENCES = ("keras_history", "input_layers", "output_layers")  # keys whose values name layers


def identity(network: keras.Model) -> dict[str, str]:
    """Return digests of a network's graph and of its weights, which are equal where it computes the same.

    Names of layers, and settings that matter in training only, such as `trainable`, are left out. The source of layers
    and functions that are not part of Keras is included.

    >>> a, b = (keras.Sequential([keras.Input((2,)), keras.layers.Rescaling(s)]) for s in (2, 3))
    >>> identity(a)["graph"] == identity(b)["graph"]
    False
    """

    def plain(value: Any, names: dict[str, int]) -> Any:
        if isinstance(value, list | tuple):
            return [plain(inner, names) for inner in value]
        if not isinstance(value, dict):
            return value
        if isinstance(value.get("layers"), list):  # of a model, within which its layers' names are unique
            names = {layer["config"].get("name"): place for place, layer in enumerate(value["layers"])}
        return {
            # The value of `dtype` is a name that matters: float32 or mixed_bfloat16.
            key: numbered(inner, names) if key in _REFERENCES else inner if key == "dtype" else plain(inner, names)
            for key, inner in value.items()
            if key not in _LEAVE_OUT and not key.endswith(("_initializer", "_regularizer", "_constraint"))
        }

    def numbered(value: Any, names: dict[str, int]) -> Any:
        if isinstance(value, list | tuple):
            return [numbered(inner, names) for inner in value]
        if isinstance(value, dict):
            return {key: numbered(inner, names) for key, inner in value.items()}
        return names.get(value, value) if isinstance(value, str) else value

    graph = json.dumps([plain(network.get_config(), {}), _code(network)], sort_keys=True, default=repr)
    weights = hashlib.sha256()
    for weight in network.weights:
        values = keras.ops.convert_to_numpy(weight.value)
        if values.dtype.kind == "i":  # such as the count of a Normalization, which has other bits on other backends
            values = values.astype(np.int64)
        weights.update(f"{values.shape} {values.dtype.name} ".encode())
        weights.update(values.tobytes())
    return {"graph": hashlib.sha256(graph.encode()).hexdigest(), "weights": weights.hexdigest()}


def _code(network: keras.Model) -> list[str]:
    """The source of layers and functions that are not part of Keras: a config holds only their names."""
    sources: list[str] = []
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            sources += _code(layer)
        functions: list[Any] = [value for value in vars(layer).values() if inspect.isfunction(value)]
        for part in (type(layer), *functions):
            package = (part.__module__ or "").split(".")[0]
            if package == "keras":
                continue
            if package == "keras_hub":  # its layers call others of its own
                sources.append(f"{part.__qualname__} {metadata.version('keras-hub')}")
                continue
            try:
                sources.append(inspect.getsource(part))
            except (OSError, TypeError):  # typed in at a prompt: without a source, no stored features may match
                sources.append(os.urandom(16).hex())
    return sources
