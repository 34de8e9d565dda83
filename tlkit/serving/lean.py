"""Models that Keras' openvino backend is known to predict, told from the file before Keras is imported."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tlkit import startup, untrusted

LONGEST = 2**24  # bytes of a model's description
LAYERS = {
    "keras": "Sequential",
    "keras.layers": "Activation Add AveragePooling2D BatchNormalization Concatenate Conv1D Conv2D Conv3D Cropping2D "
    "Dense DepthwiseConv2D Dropout Flatten GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D "
    "Identity InputLayer LayerNormalization MaxPooling1D MaxPooling2D MaxPooling3D MultiHeadAttention Multiply "
    "Normalization ReLU Rescaling Reshape SeparableConv2D ZeroPadding2D",
    "keras.src.applications.convnext": "LayerScale",
    "keras.src.models.functional": "Functional",
    "keras.src.models.sequential": "Sequential",
    "keras.src.ops.numpy": "Add GetItem Multiply",
    "tlkit.layers": "ClassToken LayerScale LocalResponseNormalization PositionEmbedding",
}
"""Names of layers by module, of networks whose probabilities agreed with TensorFlow's to 1e-5."""


def backend(path: str | Path) -> str | None:
    """Choose the backend for a model that only predicts in this process: OpenVINO if all its layers are known.

    Returns:
        The backend that Keras is to take when it is imported; None for its own choice.

    Raises:
        InvalidInput: the backend that the user has chosen cannot be used.
    """
    chosen = startup.choose(trains=False, lean=True)
    return chosen if chosen is None or is_known(path) else None


def is_known(path: str | Path) -> bool:
    """Whether all layers of a `.keras` file are known; not where it is no such file."""
    try:
        with zipfile.ZipFile(path) as archive:
            config = untrusted.parse_json(untrusted.member(archive, "config.json", LONGEST), "config.json")
    except (ValueError, OSError, KeyError, zipfile.BadZipFile):
        return False
    return all(
        isinstance(layer, dict)
        and isinstance(layer.get("module"), str)
        and layer.get("class_name") in LAYERS.get(layer["module"], "").split()
        for layer in _layers({"layers": [config]})
    )


def _layers(value: Any) -> Iterator[Any]:
    """All layers that a model's description holds, at any depth."""
    if isinstance(value, dict):
        layers = value.get("layers")
        yield from layers if isinstance(layers, list) else ()
        for inner in value.values():
            yield from _layers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _layers(inner)
