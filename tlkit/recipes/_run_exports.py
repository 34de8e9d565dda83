"""The exports of a run that trains: checked before it begins, written when its model is logged."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit import config as configs
from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.recipes import _export_data, _export_origin, _exports, _inputs
from tlkit.recipes._export_origin import Sources
from tlkit.recipes._models import Classifier

if TYPE_CHECKING:
    import keras

    from tlkit import data
    from tlkit.data import graph
    from tlkit.export import Exported
    from tlkit.recipes._jobs import Job


class RunExports(NamedTuple):
    """What became of the exports that a run was to leave.

    Args:
        rows: Those that are logged.
        failed: Names of the formats of the others.
    """

    rows: Sequence[Exported] = ()
    failed: Sequence[str] = ()


def check(config: object) -> None:
    """Refuse exports that cannot be written here, before any work; Keras is not loaded.

    Raises:
        InvalidInput: what a format needs is not installed, or Keras does not export from its backend.
    """
    if asked := _asked(config):
        from tlkit import export

        _exports.formats(asked)
        export.check_backend()


def check_network(config: object, model: keras.Model) -> None:
    """Refuse a network that a format is known not to hold, before it is trained.

    Raises:
        InvalidInput: the message names the layer.
    """
    if asked := _asked(config):
        _able(asked, model)


def log(job: Job[Any], run_id: str, model: keras.Model, splits: data.Splits | graph.Graph, file: Path) -> RunExports:
    """Write the exports, compare them with the model on the scored examples, and log them.

    Args:
        job: The recipe.
        run_id: Of its run, which has the model already, so that an export that fails costs no more than itself.
        model: From raw values to probabilities.
        splits: The data.
        file: Of the saved model.
    """
    from tlkit import data, tracking

    asked = _asked(job.config)
    if not asked or not isinstance(splits, data.Splits):
        return RunExports()
    rows: list[Exported] = []
    failed: list[str] = []
    uri = f"runs:/{run_id}/model"
    sources = _sources(uri, model, splits, file)
    for name in _able(asked, model):
        config = configs.Export(uri, name, name)  # type: ignore[arg-type]  # one of the formats
        origin = dataclasses.replace(sources.origin, command=_export_origin.command(config))
        try:
            with tracking.artifact(place(name)) as folder:
                folder.mkdir()
                rows.append(_exports.write(config, name, sources._replace(origin=origin), folder))
        except (InvalidInput, OSError) as error:
            failed.append(name)
            say(f"not exported: {error}; to try again: {_export_origin.command(config)}", error=True)
    tracking.deliver()
    return RunExports(rows, failed)


def _sources(uri: str, model: keras.Model, splits: data.Splits, file: Path) -> Sources:
    from tlkit import labels, tracking
    from tlkit.evaluation.abstention import Abstention

    split, part = _inputs.scored(splits)
    what = f"{{count:,}} {split} {splits.kind} of the run"
    abstention, classes = Abstention.of(labels.read_abstention(file)), list(splits.classes)
    classifier = Classifier(uri, model, classes, splits.reading, splits.kind, splits.multi_label, abstention, None)
    scored = _export_data.chosen(part, _export_data.MOST, splits, classifier, what)
    run = _export_origin.run_of(uri) if tracking.deliver() else None  # where the store is away, the card says less
    return _exports.sources(classifier, _export_origin.describe(configs.Export(uri, "export"), file, run), scored)


def _able(asked: Sequence[str], model: keras.Model) -> list[str]:
    """Name the formats that can be written here and hold the network."""
    from tlkit import export

    return _exports.able(_exports.formats(asked), lambda name: export.check_network(name, model), "all" in asked)


def place(name: str) -> str:
    """Name the folder of an export among the artifacts of its run."""
    return f"export/{name}"


def _asked(config: object) -> list[str]:
    return list(config.export or []) if isinstance(config, configs.Exportable) else []
