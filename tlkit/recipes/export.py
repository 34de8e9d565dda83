"""Export a model for another runtime, proven to answer as it does, with a script that needs no tlkit.

python -m tlkit.recipes.export models:/flowers@champion --format onnx --output flowers_onnx

The folder is written whole or not at all. An export that answers otherwise than its model is not written (status 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit import atomic, cli
from tlkit.config import Export
from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.progress import Progress
from tlkit.recipes import _export_data, _export_origin, _jobs, _links, _models, _predicted
from tlkit.recipes._export_origin import Sources
from tlkit.recipes._models import Classifier

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tlkit.export import Exported

LABELS, PARITY, CARD = "labels.json", "parity.json", "README.md"


def run(config: Export) -> list[Exported]:
    """Export, compare and describe; see `config.Export` for the settings.

    Raises:
        InvalidInput: the model does not exist or is none of classes, the folder is in use, or a format is not
            installed or cannot hold the model.
        Unavailable: an export answers otherwise than its model.
    """
    path, output = _models.locate(config.model), Path(config.output)
    _check_output(config.output)
    names = _formats(config)
    from tlkit import export

    export.check_backend()
    _jobs.start_keras()
    classifier = _models.load_classifier(config.model, path, "export", ("photos", "sounds", "arrays"))
    names = _able(names, lambda name: export.check_network(name, classifier.model), config.format == "all")
    if config.threshold is not None:
        _predicted.check_threshold(config.threshold, classifier.classes, classifier.several)
    sources = _sources(config, path, classifier)
    with atomic.writing_folder(output) as folder, Progress("exporting", len(names), "formats") as progress:
        rows = []
        for name in names:
            place = folder / name if config.format == "all" else folder
            place.mkdir(exist_ok=True)
            rows.append(_export(config, name, sources, place))
            progress.advance()
    say("\n".join(export.table(rows)))
    if config.format == "all":
        say(
            f"\n{classifier.name} itself is of {path.stat().st_size / 1e6:.2f} MB. Compared on {sources.examples.what}."
        )
    else:
        say(f"\nCompared on {sources.examples.what}.")
    _say_end(output, names, config.format == "all", classifier.kind)
    return rows


def _check_output(output: str) -> None:
    """Refuse a folder that is in use, or cannot be written."""
    folder = Path(output)
    if folder.is_dir() and any(folder.iterdir()):
        raise InvalidInput(f"output is {output!r}, which is not empty, and nothing is overwritten: give a new folder")
    if folder.exists() and not folder.is_dir():
        raise InvalidInput(f"output is {output!r}, which is a file: give a new folder")
    if folder.is_symlink():
        raise InvalidInput(f"output is {output!r}, which is a link: give a new folder")


def _formats(config: Export) -> list[str]:
    """Name the formats to write."""
    from tlkit import export

    is_all = config.format == "all"
    names = list(export.FORMATS) if is_all else [config.format]
    return _able(names, lambda name: export.check(name, config.int8), is_all)


def _able(names: Sequence[str], check: Callable[[str], None], is_all: bool) -> list[str]:
    """Name the formats that a check does not refuse; if all are asked for, the others are left out, and said."""
    able: list[str] = []
    problems: list[InvalidInput] = []
    for name in names:
        try:
            check(name)
            able.append(name)
        except InvalidInput as error:
            problems.append(error)
    if problems and not (is_all and able):
        raise problems[0]
    for problem in problems:
        say(f"left out: {problem}", error=True)
    return able


def _sources(config: Export, path: Path, classifier: Classifier) -> Sources:
    """Look for the run and its photos, and ask the model about them."""
    run = _export_origin.run_of(config.model)
    given = _export_data.examples(config, classifier, run)
    classifier = _in_float32(classifier)
    answers = _answers(classifier.model, given.scored.values)
    return Sources(classifier, _export_origin.describe(config, path, run), given.scored, answers, given.calibration)


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


def _export(config: Export, name: str, sources: Sources, folder: Path) -> Exported:
    """Write one format with all that belongs to it; raise where it answers otherwise than the model."""
    from tlkit import export
    from tlkit.evaluation import calibration

    classifier, examples = sources.classifier, sources.examples
    say(f"{name}{' in int8' * config.int8}: converting", error=True)
    path = export.write(name, classifier.model, folder)
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
    export.write_script(name, folder)
    return row


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


def _abstention(config: Export, classifier: Classifier) -> dict[str, float | None]:
    """When predict.py says no single class: as the user or the model says; distances in feature space are not there."""
    own = classifier.abstention
    if config.threshold is not None:
        own = own._replace(threshold=config.threshold, target_accuracy=None)
    return own._replace(novelty=None)._asdict()


def _say_end(output: Path, names: Sequence[str], several: bool, kind: str) -> None:
    """Say where everything is, and what to do next."""
    where = output / names[0] if several else output
    example = "PHOTO.jpg" if kind == "photos" else "EXAMPLE.npy"
    say(f"export {_links.shown(output.absolute())}: the model, predict.py, labels.json, parity.json, README.md")
    say(f"\nNext:\n  python {_links.shown(where.absolute() / 'predict.py')} {example}")


if __name__ == "__main__":
    cli.main(Export, run, positional=("model",))
