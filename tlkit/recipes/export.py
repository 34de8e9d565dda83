"""Export a model for another runtime, proven to answer as it does, with a script that needs no tlkit.

python -m tlkit.recipes.export models:/flowers@champion --format onnx --output flowers_onnx

The folder is written whole or not at all. An export that answers otherwise than its model is not written (status 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit import atomic, cli
from tlkit.config import Export
from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.progress import Progress
from tlkit.recipes import _export_data, _export_origin, _exports, _jobs, _links, _models, _predicted

if TYPE_CHECKING:
    from tlkit.export import Exported


def run(config: Export) -> list[Exported]:
    """Export, compare and describe; see `config.Export` for the settings.

    Raises:
        InvalidInput: the model does not exist or is none of classes, the folder is in use, or a format is not
            installed or cannot hold the model.
        Unavailable: an export answers otherwise than its model.
    """
    path, output = _models.locate(config.model), Path(config.output)
    _check_output(config.output)
    names = _exports.formats([config.format], config.int8)
    from tlkit import export

    export.check_backend()
    _jobs.start_keras()
    classifier = _models.load_classifier(config.model, path, "export", ("photos", "sounds", "arrays"))
    names = _exports.able(names, lambda name: export.check_network(name, classifier.model), config.format == "all")
    if config.threshold is not None:
        _predicted.check_threshold(config.threshold, classifier.classes, classifier.several)
    run = _export_origin.run_of(config.model)
    given = _export_data.examples(config, classifier, run)
    sources = _exports.sources(classifier, _export_origin.describe(config, path, run), *given)
    with atomic.writing_folder(output) as folder, Progress("exporting", len(names), "formats") as progress:
        rows = []
        for name in names:
            place = folder / name if config.format == "all" else folder
            place.mkdir(exist_ok=True)
            rows.append(_exports.write(config, name, sources, place))
            progress.advance()
    say("\n".join(export.table(rows)))
    itself = f"{classifier.name} itself is of {path.stat().st_size / 1e6:.2f} MB. " if config.format == "all" else ""
    say(f"\n{itself}Compared on {sources.examples.what}.")
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


def _say_end(output: Path, names: Sequence[str], several: bool, kind: str) -> None:
    """Say where everything is, and what to do next."""
    where = output / names[0] if several else output
    example = "PHOTO.jpg" if kind == "photos" else "EXAMPLE.npy"
    say(f"export {_links.shown(output.absolute())}: the model, predict.py, labels.json, parity.json, README.md")
    say(f"\nNext:\n  python {_links.shown(where.absolute() / 'predict.py')} {example}")


if __name__ == "__main__":
    cli.main(Export, run, positional=("model",))
