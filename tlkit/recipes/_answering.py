"""What answers photos for `predict`: a model that Keras loads, or without Keras its network, converted before."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit import startup
from tlkit.display import say
from tlkit.recipes import _jobs, _models
from tlkit.recipes._models import Classifier

if TYPE_CHECKING:
    import numpy as np

    from tlkit.data.modalities import Reading
    from tlkit.evaluation.abstention import Abstention
    from tlkit.inference import Engine

SAME = 1e-6  # maximum difference of a probability between a network that is kept and its model


class Answering(NamedTuple):
    """A model that is ready to be asked.

    Args:
        classes: Names of its classes.
        several: Whether a photo may have several labels, or none.
        read: Decodes a photo, as when the model was trained.
        prepare: Makes the engine; it gets the first photos, (k, height, width, channels).
        keep: To be called when all is answered: keeps the network for the next time.
        abstention: When it says no single class; with `novelty`, the engine gives the distance from known photos too.
        reading: How files become photos; None where the network was converted before.
    """

    classes: list[str]
    several: bool
    read: Callable[[str], np.ndarray]
    prepare: Callable[[np.ndarray], Engine]
    keep: Callable[[], None]
    abstention: Abstention
    reading: Reading | None = None


def load(model: str, path: Path, is_many: bool, by_keras: bool = False) -> Answering:
    """Make a model ready; by its converted network where the store has it and Keras would take OpenVINO too.

    Args:
        model: The user's name for it.
        path: Of its file.
        is_many: Whether there are many photos, for which the fastest engine is worth its preparation.
        by_keras: Load the model even where its network was converted before, as workers of a cluster do.

    Raises:
        InvalidInput: it is not a classifier of photos.
    """
    is_lean = startup.asked() == startup.LEAN and "keras" not in sys.modules
    if is_lean and not by_keras and (ready := _converted(path)):
        return ready
    _jobs.start_keras()
    return _by_keras(_models.load_classifier(model, path), path, is_many)


def _converted(path: Path) -> Answering | None:
    """Make a network ready that was converted before; None where there is none, or it does not hold what it should."""
    startup.openvino()
    from tlkit import inference, untrusted
    from tlkit.data.modalities import Reading
    from tlkit.evaluation.abstention import Abstention
    from tlkit.features import converted
    from tlkit.serving import many

    if (found := converted.find(path)) is None:
        return None
    try:
        known = found.known
        size = untrusted.batch_size(known["numbers"], inference.BATCH)
        engine = inference.engine(found.network)._replace(batch_size=size)
        read = many.reader(tuple(known["shape"]), Reading.of(known["reading"]))
        classes, several = list(known["classes"]), bool(known["several"])
        abstention = Abstention.of(known["abstention"])
        return Answering(classes, several, read, lambda sample: engine, lambda: None, abstention)
    except (KeyError, TypeError, ValueError, RuntimeError):  # the last is OpenVINO's
        return None


def _by_keras(classifier: Classifier, path: Path, is_many: bool) -> Answering:
    from tlkit.serving import many, with_novelty

    if classifier.references is not None:
        classifier = classifier._replace(model=with_novelty(classifier.model, classifier.references))
    model, samples = classifier.model, list[Any]()

    def prepare(sample: np.ndarray) -> Engine:
        samples.append(sample)
        engine, reason = many.engine(model, classifier.name, is_many, sample)
        if reason:
            say(f"Keras computes: {reason}", error=True)
        return engine

    read = many.reader(model.input_shape[1:], classifier.reading)
    keep = functools.partial(_keep, classifier, path, samples)
    return Answering(
        classifier.classes, classifier.several, read, prepare, keep, classifier.abstention, classifier.reading
    )


def _keep(classifier: Classifier, path: Path, samples: list[np.ndarray]) -> None:
    """Keep the network for the next time, if it then says the same about the first photos."""
    import keras
    import numpy as np

    from tlkit import inference
    from tlkit.backbones import modelfiles
    from tlkit.features import converted, engines

    model = classifier.model
    policies = {layer.dtype_policy.compute_dtype for layer in model.layers}
    if keras.backend.backend() != startup.LEAN or engines.unavailable("float32") or policies != {"float32"}:
        return
    (sample,) = samples
    expected = model.predict_on_batch(sample.astype(np.float32))

    def agrees(engine: Engine) -> bool:
        return bool(np.abs(np.concatenate(list(engine.run([sample]))) - expected).max() <= SAME)

    network, _ = inference.graph(model, sample, model.inputs[0].dtype)  # of bytes, as photos are read
    known = {
        "shape": list(model.input_shape[1:]),
        "classes": classifier.classes,
        "several": classifier.several,
        "reading": classifier.reading.changed,
        "abstention": classifier.abstention.changed,
        "numbers": modelfiles.numbers_at_once(model),
    }
    converted.keep(path, network, known, f"{model.name}, converted for predict", agrees)
