"""The run that trained a model, the examples that it has seen, and how a later run is linked to it."""

from __future__ import annotations

import contextlib
import csv
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tlkit import untrusted
from tlkit.recipes import _export_origin

if TYPE_CHECKING:
    from mlflow.entities import Run

MANIFEST = "split_manifest.csv"


class Training(NamedTuple):
    """What is known of a model's training.

    Args:
        run: Its MLflow run; None where none is known.
        hashes: Of the examples that it was trained on or that chose its weights, and what its run calls each.
        counts: How many of them each label has, of those it was trained on.
        labels: Of the same examples, by their hashes.
    """

    run: Run | None
    hashes: Mapping[str, str]
    counts: Mapping[str, int]
    labels: Mapping[str, str]


def plain(name: str) -> str:
    """Write the name of a class in one way, whatever its letters with accents are made of."""
    return unicodedata.normalize("NFC", name)


def training(model: str, path: Path) -> Training:
    """Find the run that trained a model, and the examples that it has seen.

    Args:
        model: As the user gave it.
        path: Of its file.
    """
    run = _export_origin.run_of(model) or _run_beside(path)
    rows = _manifest(run) if run else []
    seen = {row["hash"]: f"{row['split']}: {row['path']}" for row in rows if row["split"] in ("train", "val")}
    counts = Counter(row["label"] for row in rows if row["split"] == "train")
    return Training(run, seen, counts, {row["hash"]: row["label"] for row in rows if row["hash"] in seen})


def _run_beside(path: Path) -> Run | None:
    """Find the run of a model's file that lies in an MLflow model folder of this store."""
    import mlflow

    from tlkit import tracking

    file = path.absolute().parent.parent / "MLmodel"
    try:
        content = untrusted.read_yaml(file) if file.is_file() else None
        run_id = content.get("run_id") if isinstance(content, dict) else None
        if not isinstance(run_id, str) or not re.fullmatch("[0-9a-f]{32}", run_id):
            return None
        tracking.open_store()
        return untrusted.answered(mlflow.MlflowClient().get_run(run_id))
    except (ValueError, OSError, *tracking.STORE_ERRORS):  # another store's
        return None


def _manifest(run: Run) -> list[dict[str, str]]:
    """Read the examples of a run with their splits; none where it logged none."""
    import mlflow

    client, run_id = mlflow.MlflowClient(), run.info.run_id
    if MANIFEST not in {artifact.path for artifact in client.list_artifacts(run_id)}:
        return []
    with tempfile.TemporaryDirectory() as folder:
        text = Path(client.download_artifacts(run_id, MANIFEST, folder)).read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    return [row for row in rows if all(row.get(name) is not None for name in ("hash", "path", "label", "split"))]


def link(run_id: str, trained: Run | None) -> None:
    """Link a run to the model that another one trained, so that the model's page in MLflow lists it."""
    import mlflow
    from mlflow.entities import LoggedModelInput

    from tlkit import tracking

    outputs = trained.outputs.model_outputs if trained and trained.outputs else []
    with contextlib.suppress(*tracking.STORE_ERRORS):  # the scores are there all the same
        mlflow.MlflowClient().log_inputs(run_id, models=[LoggedModelInput(each.model_id) for each in outputs])
