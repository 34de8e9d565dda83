"""What the training recipes share: the beginning, up to the photos, and the end, from the scores on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import quote

from tlkit import config as configs
from tlkit.errors import InvalidInput

if TYPE_CHECKING:
    import keras

    from tlkit import data, evaluation, tracking, training

MODE = "workflowType=machine_learning"  # else the MLflow UI shows what it has for language models

Config = TypeVar("Config", bound=configs.FeatureExtraction)


class Result(NamedTuple):
    """What a training recipe leaves: the model with its best weights, and where MLflow has it."""

    model: keras.Model
    history: training.History
    scores: evaluation.Scores
    run_id: str
    model_uri: str


def begin() -> float:
    """Import Keras, without what TensorFlow's C++ parts write about themselves, and give the time."""
    began = time.perf_counter()
    with _native_stderr_held():
        import keras  # noqa: F401
    return began


@contextlib.contextmanager
def _native_stderr_held() -> Iterator[None]:
    # No setting of TensorFlow 2.21 silences these lines: tensorflow/tensorflow#100442.
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        kept = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def complete(config: Config) -> Config:
    """Fill in what depends on other settings or on the machine, so that the stored config says what was done."""
    from tlkit import backbones, runtime

    if config.data.path and not os.path.exists(config.data.path):  # here, before weights are downloaded
        raise InvalidInput(f"data.path is {config.data.path!r}; there is no such file or folder")
    embedded = config.data.source == "embedded"
    name, weights = config.backbone.name, config.backbone.weights
    if name == "auto":
        name = "LetterNet" if embedded else "MobileNetV2"
    row = backbones.row(name)
    if weights == "pretrained":
        weights = row.pretrained
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(
            config.data,
            path=config.data.path and os.path.abspath(config.data.path),
            image_size=config.data.image_size or row.size,
        ),
        backbone=dataclasses.replace(config.backbone, name=name, weights=weights),
        precision=runtime.best_precision() if config.precision == "auto" else config.precision,
    )
    if isinstance(config, configs.Finetune) and config.augment.flip is None:
        return dataclasses.replace(config, augment=dataclasses.replace(config.augment, flip=not embedded))
    return config


def backbone(config: configs.FeatureExtraction) -> keras.Model:
    """Build the pretrained network at the size the photos will have."""
    from tlkit import backbones

    chosen, row = config.backbone, backbones.row(config.backbone.name)
    size = config.data.image_size or row.size
    return backbones.build(chosen.name, (size, size, row.channels), chosen.weights, chosen.alpha)


def photos(config: configs.Data, input_shape: tuple[int, int, int]) -> data.Splits:
    """Read, check and split the photos, and say what was found."""
    from tlkit import data

    chosen = dataclasses.asdict(config)
    del chosen["image_size"]  # by now a part of the input shape
    splits = data.load(**chosen, size=input_shape[:2], channels=input_shape[2])
    counts = {"training": splits.train, "validation": splits.val, "test": splits.test}
    said = ", ".join(f"{len(part.labels):,} {name}" for name, part in counts.items() if part)
    print(f"photos: {said}; {len(splits.classes)} classes; {' x '.join(map(str, input_shape))}", flush=True)
    return splits


def settings(config: configs.FeatureExtraction, phase: configs.Head) -> training.Settings:
    """Put the settings of one phase and those of the whole run together."""
    from tlkit import training

    return training.Settings(
        epochs=phase.epochs,
        learning_rate=phase.learning_rate,
        warmup=phase.warmup,
        patience=phase.patience,
        batch_size=config.batch_size,
        label_smoothing=config.label_smoothing,
        weight_decay=config.weight_decay,
    )


@contextlib.contextmanager
def tracked(recipe: str, config: configs.FeatureExtraction, splits: data.Splits) -> Iterator[tracking.Run]:
    """Track the block as an MLflow run that begins with its config, split manifest and environment."""
    import mlflow
    import yaml

    from tlkit import tracking

    params = {name: value for name, value in configs.flatten(config).items() if name not in ("experiment", "run_name")}
    described = {**tags(recipe, config.backbone.name), "dataset_digest": splits.digest}
    with tracking.run(config.experiment, run_name=config.run_name, params=params, tags=described) as started:
        mlflow.log_text(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True), "config.yaml")
        with tempfile.TemporaryDirectory() as folder:
            manifest = Path(folder) / "split_manifest.csv"
            splits.write_manifest(manifest)
            mlflow.log_artifact(str(manifest))
        yield started


def tags(recipe: str, backbone: str) -> dict[str, str]:
    """Give the tags by which `mlflow.search_runs` finds a run, and what its result depends on beside the config."""
    from tlkit import runtime

    return {
        "recipe": recipe,
        "backbone": backbone,
        **{f"environment.{name}": value for name, value in runtime.environment().items()},
    }


def finish(
    started: tracking.Run, model: keras.Model, history: training.History, splits: data.Splits, batch_size: int
) -> Result:
    """Score the model, once, and log it with its scores, pictures and an example photo."""
    import mlflow

    from tlkit import evaluation, plots, tracking, training

    split, part = ("test", splits.test) if splits.test else ("validation", splits.val)
    scores = evaluation.score(split, training.predict(model, part, batch_size), part.labels)
    uri = tracking.log_model(model, splits.classes, requirements())  # first: all else can be had from it again
    best = history.best
    mlflow.log_metrics(
        {
            **scores.metrics(),
            "best_epoch": best["epoch"],
            "best_val_loss": best["val_loss"],
            "best_val_accuracy": best["val_accuracy"],
            "training_seconds": history.seconds,
        },
        step=len(history.epochs),
    )
    title = f"{split} accuracy {scores.accuracy:.3f}, {scores.photos} photos"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a class name in a script that no font here has
        mlflow.log_figure(plots.learning_curves(history.epochs, best["epoch"]), "learning_curves.png")
        mlflow.log_figure(plots.confusion_matrix(scores.confusion, splits.classes, title), "confusion_matrix.png")
    pixels = part.read([0])[0]
    mlflow.log_image(pixels if pixels.shape[-1] == 3 else pixels[..., 0], "example.png")
    return Result(model, history, scores, started.run_id, uri)


def requirements() -> list[str]:
    """Give what loading the model needs, pinned; given to MLflow, whose own search takes 15 s."""
    import keras

    return [f"{name}=={metadata.version(name)}" for name in ("keras", keras.backend.backend(), "numpy")]


def summarize(
    recipe: str, config: configs.FeatureExtraction, result: Result, started: tracking.Run, began: float
) -> None:
    """Print what was trained, how well, how long it took, where it is and what to do next."""
    import mlflow

    from tlkit import tracking, training

    scores, best = result.scores, result.history.best
    folder = tracking.model_folder(result.model_uri)
    model = shown(folder / "data" / "model.keras") if folder else result.model_uri
    uri = mlflow.get_tracking_uri()
    name = mlflow.get_run(result.run_id).info.run_name
    low, high = scores.interval
    print(f"\n{recipe}: {config.backbone.name}, {result.model.count_params():,} parameters")
    spread = f"95 % interval {low:.3f} to {high:.3f}, {scores.photos} photos"
    print(f"  {scores.split} accuracy  {scores.accuracy:.4f}  ({spread})")
    if scores.split == "validation":
        print("                     it chose the epoch, so it is not a test score")
    print(f"  kept  epoch {best['epoch']} of {len(result.history.epochs)}, phase {best['phase']}")
    print(
        f"  time  {training.duration(result.history.seconds)} of training,"
        f" {training.duration(time.perf_counter() - began)} in all"
    )
    print(f"  run   {name} ({result.run_id}) in {tracking.without_password(uri)}")
    print(f"  model {model}")
    artifacts = tracking.run_folder(result.run_id)
    photo = shown(artifacts / "example.png") if artifacts else "PHOTO"
    print("\nNext:")
    print(f"  {program('python')} -m tlkit.recipes.predict {result.model_uri} {photo}")
    print_links(started)


def print_links(run: tracking.Run) -> None:
    """Print how to look at a run in the MLflow UI, alone and beside the last ones."""
    import mlflow

    from tlkit import tracking

    uri = mlflow.get_tracking_uri()
    server = tracking.without_password(uri).rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"
    if not uri.startswith("http"):
        elsewhere = "" if uri == f"sqlite:///{Path.cwd()}/mlflow.db" else ' --backend-store-uri "$MLFLOW_TRACKING_URI"'
        print(f"  {program('mlflow')} ui{elsewhere}      # then open:")
    print(f"  {run_link(server, run)}")
    others = tracking.recent_runs(run.experiment_id, 4)
    if len(others) > 1:
        print("  beside the last runs:")
        print(f"  {compare_link(server, others, run.experiment_id)}")
    sys.stdout.flush()


def run_link(server: str, run: tracking.Run) -> str:
    """Link to a run in the MLflow UI."""
    return f"{server}/#/experiments/{run.experiment_id}/runs/{run.run_id}?{MODE}"


def compare_link(server: str, run_ids: list[str], experiment_id: str) -> str:
    """Link to the comparison of runs in the MLflow UI.

    >>> compare_link("http://127.0.0.1:5000", ["a", "b"], "1")
    'http://127.0.0.1:5000/#/compare-runs?runs=%5B%22a%22,%22b%22%5D&experiments=%5B%221%22%5D&workflowType=machine_learning'
    """
    runs, experiments = (quote(json.dumps(ids, separators=(",", ":")), safe=",") for ids in (run_ids, [experiment_id]))
    return f"{server}/#/compare-runs?runs={runs}&experiments={experiments}&{MODE}"


def program(name: str) -> str:
    """Name a program of this environment so that it runs when it is copied into this shell."""
    path = Path(sys.executable).with_name(name)
    return name if shutil.which(name) == str(path) else shown(path)


def shown(path: Path) -> str:
    """Write a path for the shell, the short way: relative where it is below the working folder."""
    return shlex.quote(os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path))
