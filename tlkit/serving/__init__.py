"""MLflow models that take what people have (a photo in base64, a file, a URL or pixels) and return labels.

A folder that `save_model` writes has two flavors. `mlflow.keras.load_model` returns the Keras model as it was trained;
`mlflow.pyfunc.load_model` and `mlflow models serve` use a `Classifier`. Nothing in the folder is pickled. Saved models
name this package as their loader, so its name, and that of `_load_pyfunc`, cannot change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tlkit import labels, startup
from tlkit.data.modalities import Reading
from tlkit.errors import InvalidInput
from tlkit.evaluation.abstention import Abstention
from tlkit.serving import lean
from tlkit.serving.answers import NOVEL, UNSURE, Answer, answer, multi_label, ranked
from tlkit.serving.cells import VARIABLE, paths_allowed
from tlkit.serving.classifier import Classifier
from tlkit.serving.novelty import with_novelty
from tlkit.serving.saving import save_model, serving_example, signature

__all__ = [
    "NOVEL", "UNSURE", "VARIABLE", "Answer", "Classifier", "answer", "multi_label", "paths_allowed", "ranked",
    "save_model", "serving_example", "signature", "with_novelty",
]  # fmt: skip


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> Classifier:
    """Load a folder of `save_model`; MLflow calls it by this name."""
    from mlflow.models import Model

    output = (model_config or {}).get("output", "table")
    if output not in ("table", "label"):
        raise InvalidInput(f"model_config has output {output!r}; give table or label")
    file = Path(path) / "data" / "model.keras"
    backend = lean.backend(file)
    if backend == startup.LEAN:
        startup.openvino()  # before Keras, which would have it send its telemetry
    with startup.taking(backend):
        from tlkit import layers  # noqa: F401  Keras finds our layers by their registered names
        from tlkit.backbones import modelfiles
    model, classes = modelfiles.load(file), labels.read(file)
    units = model.output_shape[-1]
    if classes is None or len(classes) != max(2, units):
        raise ValueError(f"{file} holds {len(classes or [])} class names for {max(2, units)} classes")
    options = Model.load(path).flavors["python_function"]
    reading = Reading.of(options.get("reading", {}))
    # The first prediction builds the function for all later ones: do it here, and not while somebody waits.
    with modelfiles.one_line(f"{file} cannot predict"):
        model.predict_on_batch(np.zeros((1, *(length or 1 for length in model.input_shape[1:])), np.float32))
    several = multi_label(model)
    abstention = Abstention.of(labels.read_abstention(file))._replace(novelty=None)  # its table has no place for that
    return Classifier(
        model, classes, options["kind"], options.get("rate"), output,
        several=several, reading=reading, abstention=abstention,
    )  # fmt: skip
