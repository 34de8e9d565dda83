"""One export of a model, with all that belongs to it; `export` and the training recipes write it alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.config import Export
from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.progress import Progress
from tlkit.recipes._export_origin import Sources
from tlkit.recipes._models import Classifier

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tlkit.export import Examples, Exported, Origin

LABELS, PARITY, CARD = "labels.json", "parity.json", "README.md"


def formats(asked: Sequence[str], int8: bool = False) -> list[str]:
    """Name the formats to write; `all` leaves out those that are not installed, and says so.

    Raises:
        InvalidInput: what another one needs is not installed, or it cannot hold 8-bit numbers.
    """
    from tlkit import export

    names = list(export.FORMATS) if "all" in asked else list(dict.fromkeys(asked))
    return able(names, lambda name: export.check(name, int8), "all" in asked)


def able(names: Sequence[str], check: Callable[[str], None], is_all: bool) -> list[str]:
    """Name the formats that a check does not refuse; if all are asked for, the others are left out, and said.

    Raises:
        InvalidInput: it refuses one that was asked for by name, or every one.
    """
    passing: list[str] = []
    problems: list[InvalidInput] = []
    for name in names:
        try:
            check(name)
            passing.append(name)
        except InvalidInput as error:
            problems.append(error)
    if problems and not (is_all and passing):
        raise problems[0]
    for problem in problems:
        say(f"left out: {problem}", error=True)
    return passing


def sources(classifier: Classifier, origin: Origin, scored: Examples, calibration: Examples | None = None) -> Sources:
    """Ask the model, in float32, about the examples that its exports are compared on."""
    classifier = _in_float32(classifier)
    return Sources(classifier, origin, scored, _answers(classifier.model, scored.values), calibration)


def _in_float32(classifier: Classifier) -> Classifier:
    """The same model in float32: half precision is for the training on a GPU, and not every format has it."""
    from tlkit.features import engines

    policies = {layer.dtype_policy.compute_dtype for layer in classifier.model.layers}
    if policies == {"float32"}:
        return classifier
    say(f"exported in float32; the model was saved in {', '.join(sorted(policies))}")
    return classifier._replace(model=engines.in_float32(classifier.model))


def _answers(model: keras.Model, values: np.ndarray, batch: int = 32) -> np.ndarray:
    import numpy as np

    parts = []
    with Progress("predicting", len(values), "examples") as progress:
        for start in range(0, len(values), batch):
            parts.append(model.predict_on_batch(values[start : start + batch].astype(np.float32)))
            progress.advance(len(parts[-1]))
    return np.concatenate(parts)


def write(config: Export, name: str, sources: Sources, folder: Path) -> Exported:
    """Write one format with all that belongs to it.

    Args:
        config: The settings of `export`, of which the data are not looked at.
        name: Of the format.
        sources: What it is made from.
        folder: Where to write it; it exists.

    Raises:
        InvalidInput: the format cannot hold the model.
        Unavailable: it answers otherwise than the model.
    """
    from tlkit import export
    from tlkit.evaluation import calibration

    classifier, examples = sources.classifier, sources.examples
    say(f"{name}{' in int8' * config.int8}: converting", error=True)
    path = export.write(name, classifier.model, folder, classifier.reading.resize)
    labels = _labels(config, name, classifier)
    if sources.calibration is not None:
        values = sources.calibration.values
        export.quantize(name, classifier.model, path, values)
        if not classifier.several and sources.answers.shape[1] > 1:
            known = _answers(classifier.model, values)
            labels["temperature"] = export.temperature(name, path, values, known)
    answers = calibration.tempered(export.run(name, path, examples.values), labels["temperature"])
    parity = export.compare(sources.answers, answers, classifier.several, examples)
    export.check_parity(name, parity, config.int8, config.accept)
    one, every = (export.milliseconds(name, path, classifier.model.input_shape[1:], threads) for threads in (1, 0))
    row = export.Exported(name, config.int8, parity, one, every, export.size(path), labels["temperature"])
    card = export.card(row, sources.origin, labels, examples.what, classifier.kind == "photos")
    for file, text in (
        (LABELS, export.dumped(labels)),
        (PARITY, export.dumped({"compared_on": examples.what, **row.as_json()})),
        (CARD, card),
    ):
        (folder / file).write_text(text, encoding="utf-8")
    export.write_script(name, folder, labels)
    return row


def _abstention(config: Export, classifier: Classifier) -> dict[str, float | None]:
    """When predict.py says no single class: as the user or the model says; distances in feature space are not there."""
    own = classifier.abstention
    if config.threshold is not None:
        own = own._replace(threshold=config.threshold, target_accuracy=None)
    return own._replace(novelty=None)._asdict()


def _labels(config: Export, name: str, classifier: Classifier) -> dict[str, Any]:
    """What predict.py must know, and whoever reads photos in another way."""
    from tlkit import export

    shape = list(classifier.model.input_shape[1:])
    labels = {
        "classes": classifier.classes,
        "format": name,
        "model": export.FORMATS[name].file,
        "kind": classifier.kind,
        "shape": shape,
        "several_labels": classifier.several,
        **_abstention(config, classifier),
        "temperature": 1.0,
    }
    if classifier.kind == "photos":
        height, width, channels = shape
        labels |= {"height": height, "width": width, "channels": channels, "range": [0, 255]}
        labels |= {"resize": classifier.reading.resize, "white": classifier.reading.white}
    return labels
