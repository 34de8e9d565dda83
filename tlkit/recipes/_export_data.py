"""The examples that an export is compared on: the run's own test photos, those that the user gives, or random ones."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit import cli, untrusted
from tlkit import config as configs
from tlkit.config import Export
from tlkit.display import few, say
from tlkit.errors import InvalidInput, Unavailable
from tlkit.recipes import _inputs
from tlkit.recipes._models import Classifier

if TYPE_CHECKING:
    import numpy as np
    from mlflow.entities import Run

    from tlkit import data
    from tlkit.export import Examples

MOST = 1000  # examples that are compared
CALIBRATED = 300  # examples by which int8 is calibrated
RANDOM = 32  # examples where there are no photos


class Given(NamedTuple):
    """What an export is compared on, and calibrated by.

    Args:
        scored: Examples to compare on.
        calibration: Examples for int8, None for float32.
    """

    scored: Examples
    calibration: Examples | None


def examples(config: Export, classifier: Classifier, run: Run | None) -> Given:
    """Find the examples: those of `data`, else the test photos of the run, else random numbers.

    Raises:
        InvalidInput: the data cannot be used, or there are no photos to calibrate int8 by.
    """
    if config.data != configs.Data():
        return _of_user(config, classifier)
    if run is not None:
        try:
            return _of_run(config, classifier, run)
        except (InvalidInput, OSError) as error:
            say(f"the run's photos cannot be used: {error}", error=True)
    if config.int8:
        raise InvalidInput("int8 is calibrated by photos, and there are none: give --data.path")
    from tlkit import export

    say("no photos to compare on: random numbers take their place; --data.path gives some", error=True)
    values = export.random_examples(classifier.model.input_shape[1:], RANDOM, classifier.kind == "photos")
    return Given(export.Examples(values, None, f"{RANDOM} examples of random numbers, no photos"), None)


def _of_user(config: Export, classifier: Classifier) -> Given:
    path = config.data.path
    if config.data.origin == "folder" and path and not _has_folders(path):
        values = _unlabeled(path, classifier)
        from tlkit import export

        found = export.Examples(values, None, f"{len(values):,} photos of {path} without labels")
        return Given(found, found if config.int8 else None)
    splits = loaded(config.data, classifier)
    from tlkit.data import Photos

    part = _inputs.scored(splits)[1] if config.int8 else Photos.joined(list(splits.by_name.values()))
    what = f"{{count:,}} {splits.kind} of {path or config.data.name or config.data.origin}"
    scored = chosen(part, MOST, splits, classifier, what)
    return Given(scored, _calibration(config, splits, classifier))


def _of_run(config: Export, classifier: Classifier, run: Run) -> Given:
    """The examples that the run was scored on, found again by their content."""
    from tlkit.evaluation import predictions

    stored = predictions.read(run.info.run_id)
    if stored is None:
        raise InvalidInput("the run has logged no predictions")
    splits = loaded(settings_of(run), classifier)
    part, wanted = _inputs.scored(splits)[1], set(stored.digests)
    there = [place for place, hash_ in enumerate(part.hashes) if hash_ in wanted]
    if not there:
        raise InvalidInput("none of those that it was scored on is there any more")
    lost = len(stored.digests) - len(there)
    what = f"{{count:,}} {stored.split} {splits.kind} of the run" + (
        f", {lost:,} of which are gone" if lost > 0 else ""
    )
    scored = chosen(part.select(there), MOST, splits, classifier, what)
    return Given(scored, _calibration(config, splits, classifier))


def settings_of(run: Run) -> configs.Data:
    """Read where a run's data are, and how they were split, from its config.yaml.

    Raises:
        InvalidInput: it does not say so.
        Unavailable: the store does not have it.
    """
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        try:
            file = mlflow.MlflowClient().download_artifacts(run.info.run_id, "config.yaml", folder)
        except mlflow.exceptions.MlflowException as error:
            raise Unavailable(f"the run's config.yaml: {error}") from error
        settings = untrusted.read_yaml(Path(file))
    if not isinstance(settings, dict) or not isinstance(settings.get("data"), dict):
        raise InvalidInput("its config.yaml has no data")
    return cli.from_settings(configs.Data, settings["data"])


def loaded(asked: configs.Data, classifier: Classifier) -> data.Splits:
    """Load data as the model reads them.

    Raises:
        InvalidInput: they are of another kind, or have classes that the model does not have.
    """
    reading = classifier.reading
    photos = classifier.kind == "photos"
    asked = dataclasses.replace(asked, white=reading.white if photos else None)
    listed = _inputs.listed(asked)
    if listed.kind != classifier.kind:
        raise InvalidInput(f"the data are {listed.kind}, and the model takes {classifier.kind}")
    if not photos:
        return _inputs.load(asked, listed, check=False, quiet=True)
    asked = dataclasses.replace(asked, resize=reading.resize)
    return _inputs.load(asked, listed, classifier.model.input_shape[1:], check=False, quiet=True)


def chosen(part: data.Photos, most: int, splits: data.Splits, classifier: Classifier, what: str) -> Examples:
    """Read some examples of a part, and give their labels the model's numbers."""
    import numpy as np

    from tlkit import export

    if unknown := [name for name in splits.classes if name not in classifier.classes]:
        raise InvalidInput(
            f"the data have classes that the model does not have: {few(unknown, 3)}; "
            f"it has {few(classifier.classes, 5)}"
        )
    count = len(part)
    if count > most:
        part = part.select(np.sort(np.random.default_rng(0).choice(count, most, replace=False)))
    if part.shape != classifier.model.input_shape[1:]:
        raise InvalidInput(
            f"the data are of shape {part.shape}, and the model takes {classifier.model.input_shape[1:]}"
        )
    place = np.array([classifier.classes.index(name) for name in splits.classes])
    labels: np.ndarray = part.labels
    if classifier.several:
        labels = np.zeros((len(part), len(classifier.classes)), bool)
        labels[:, place] = part.labels > 0.5
    else:
        labels = place[part.labels]
    shown = what.format(count=len(part)) + (f" (of {count:,}, drawn at random)" if count > most else "")
    return export.Examples(part.read(range(len(part))), labels, shown, part.grouping)


def _calibration(config: Export, splits: data.Splits, classifier: Classifier) -> Any:
    return chosen(splits.train, CALIBRATED, splits, classifier, "{count:,}") if config.int8 else None


def _has_folders(path: str) -> bool:
    try:
        with os.scandir(path) as entries:
            folders = [entry for entry in entries if entry.is_dir()]
    except OSError:
        return True  # the source says what is wrong
    return bool(folders)


def _unlabeled(path: str, classifier: Classifier) -> np.ndarray:
    """Read the photos of a folder without folders of classes; those that cannot be read are left out."""
    import numpy as np

    from tlkit.data.sources.named import named_photos
    from tlkit.serving import many

    read, values, problems = many.reader(classifier.model.input_shape[1:], classifier.reading), [], []
    for photo in list(named_photos([path]).photos)[:MOST]:
        try:
            values.append(read(photo))
        except (InvalidInput, OSError) as error:
            problems.append(str(error))
    if not values:
        raise InvalidInput(f"no photo of {path} can be read: {few(problems, 1)}")
    if problems:
        say(f"left out, as they cannot be read: {few(problems, 3)}", error=True)
    return np.stack(values)
