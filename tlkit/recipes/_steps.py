"""What the training recipes share: the beginning, up to the photos, and the end, from the scores on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote

from tlkit import config as configs
from tlkit.errors import InvalidInput, Undecodable

if TYPE_CHECKING:
    import keras
    import numpy as np
    from matplotlib.figure import Figure

    from tlkit import data, evaluation, features, probes, store, tracking, training
    from tlkit.data import graph

MODE = "workflowType=machine_learning"  # else the MLflow UI shows what it has for language models

AnyConfig = configs.Recipe | configs.TrainGraph
Config = TypeVar("Config", bound=AnyConfig)


class Fit(NamedTuple):
    """How a model came to its weights: what to log of it, and what to say.

    Args:
        parts: Seconds of training, by what was done.
        metrics: For MLflow, by their names there.
        step: Of these metrics.
        pictures: For MLflow, by their file names.
        said: Lines of the summary.
        chosen_by_val: Whether the validation photos had a say, so that their score is no test score.
    """

    parts: dict[str, float]
    metrics: dict[str, float]
    step: int
    pictures: dict[str, Figure]
    said: list[str]
    chosen_by_val: bool

    @property
    def seconds(self) -> float:
        """Seconds of training, all parts."""
        return sum(self.parts.values())


class Result(NamedTuple):
    """What a training recipe leaves: the model with its best weights, and where MLflow has it."""

    model: keras.Model
    fit: Fit
    scores: evaluation.Scores
    run_id: str
    model_uri: str
    kind: str = "photos"  # what the model looks at; or sounds, arrays or nodes


class Trial(NamedTuple):
    """What makes a recipe's run one trial of a search: the test photos stay unseen, and the model is not logged.

    Args:
        params: The settings that differ between trials, by their names in MLflow.
        folder: For the trial's config and, where it may go on later, the state of its training.
        execution: Which one of several with other seeds, from 1.
        until: Epochs of phase full after which it stops for now; None for all.
        max_parameters: Of the network; None for any.
        max_multiply_adds: Of the network, for one photo.
        after: Epochs that MLflow has already.
        runs: In how many the frozen part of the network will be used, so that storing what it gives is worth more.
    """

    params: dict[str, Any]
    folder: Path
    execution: int = 1
    until: int | None = None
    max_parameters: int | None = None
    max_multiply_adds: int | None = None
    after: int = 0
    runs: float = 1.0

    @property
    def checkpoint(self) -> Path | None:
        """Where the state of its training is kept."""
        return self.folder / "checkpoint.npz" if self.until else None


class Tried(NamedTuple):
    """What a trial leaves: the model with the weights of its best epoch, and how it came to them.

    Args:
        model: From raw pixels to probabilities.
        history: Of its training.
        seconds: For building and training it, and for the activations of frozen layers.
    """

    model: keras.Model
    history: training.History
    seconds: float


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
    from tlkit import runtime

    config = dataclasses.replace(
        config,
        data=located(config.data),
        precision=runtime.best_precision() if config.precision == "auto" else config.precision,
    )
    return _complete_backbone(config) if isinstance(config, configs.FeatureExtraction | configs.Finetune) else config


def located(data: Any) -> Any:
    """Say of data where they are and what they come from, from whatever folder that is read.

    Raises:
        InvalidInput: there is nothing at the path; raised before weights are downloaded.
    """
    if data.path and not os.path.exists(data.path):
        raise InvalidInput(f"data.path is {data.path!r}; there is no such file or folder")
    data = dataclasses.replace(data, path=data.path and os.path.abspath(data.path))
    return dataclasses.replace(data, source=data.origin) if isinstance(data, configs.Data) else data


def _complete_backbone(config: Any) -> Any:
    from tlkit import backbones

    embedded = config.data.source == "embedded"
    name, weights = config.backbone.name, config.backbone.weights
    if name == "auto":
        name = "LetterNet" if embedded else "MobileNetV2"
    row = backbones.row(name)
    if weights == "pretrained":
        weights = row.pretrained
    weights = os.path.abspath(weights) if os.path.isfile(weights) else weights
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, image_size=config.data.image_size or row.size),
        backbone=dataclasses.replace(config.backbone, name=name, weights=weights),
        features=dataclasses.replace(config.features, store=store_path(config.features.store)),
    )
    if isinstance(config, configs.Finetune) and isinstance(config.augment.flip, list):
        raise InvalidInput(f"augment.flip is {config.augment.flip}; for photos it must be true or false")
    if isinstance(config, configs.Finetune) and config.augment.flip is None:
        return dataclasses.replace(config, augment=dataclasses.replace(config.augment, flip=not embedded))
    return config


def store_path(store: str | None) -> str | None:
    """Write the folder of the activation store so that it means the same from any folder."""
    return store if store in (None, "none") else os.path.abspath(os.path.expanduser(store))


def backbone(config: configs.FeatureExtraction | configs.Finetune) -> keras.Model:
    """Build the pretrained network at the size the photos will have."""
    from tlkit import backbones

    chosen, row = config.backbone, backbones.row(config.backbone.name)
    size = config.data.image_size or row.size
    return backbones.build(chosen.name, (size, size, row.channels), chosen.weights, chosen.alpha)


def activation_store(config: configs.Features) -> store.Store | None:
    """Open the activation store, where there is to be one."""
    from tlkit.store import GB, Store

    return None if config.store == "none" else Store(config.store, config.limit * GB)


def named(backbone: configs.Backbone) -> str:
    """Name a backbone for a person.

    >>> named(configs.Backbone("MobileNet", alpha=0.5))
    'MobileNet 0.5'
    """
    return backbone.name + (f" {backbone.alpha:g}" if backbone.alpha else "")


def extractor(
    config: configs.FeatureExtraction | configs.Finetune, lower: keras.Model, cut: str, dtype: str = "float32"
) -> features.Extractor:
    """Make what gives the outputs of a frozen part of the network, which ends at `cut`."""
    from tlkit import features

    name = named(config.backbone)
    kept = activation_store(config.features)
    label = f"{name} at {config.data.image_size} pixels, {cut}"
    return features.Extractor(lower, kept, config.features.engine, config.precision, dtype, label)


def extract(
    config: configs.Recipe, examples: data.Examples, extractor: features.Extractor, test: bool = True
) -> tuple[data.Splits, list[features.Features]]:
    """Split the photos and give the features of each split; no photo is decoded whose features are known.

    Args:
        config: Of the recipe.
        examples: All of them.
        extractor: What gives the features.
        test: Whether those of the test split too.
    """
    (height, width, channels), size = extractor.network.input_shape[1:], 3 if test else 2
    try:
        found = splits(config.data, examples, (height, width), channels, check=False)
        given = extracted(extractor, *parts(found)[:size])
    except Undecodable:  # all are looked at, so that such are named and set aside
        found = splits(config.data, examples, (height, width), channels)
        given = extracted(extractor, *parts(found)[:size])
    return found, given


def with_engine(config: Config, extractor: features.Extractor) -> Config:
    """Write down which engine computed the features, so that the stored config says what was done."""
    chosen = dataclasses.replace(config.features, engine=extractor.engine)  # type: ignore[union-attr]
    return dataclasses.replace(config, features=chosen)  # type: ignore[call-arg]


def extracted(extractor: features.Extractor, *examples: Any) -> list[features.Features]:
    """Give the features of each, and say where they came from."""
    from tlkit.progress import duration

    given = extractor.extract(*examples)
    count = len({hash_ for part in given for hash_ in part.hashes})

    computed = f"{extractor.computed:,} computed"
    if extractor.computed:
        rate = extractor.computed / max(extractor.seconds, 1e-9)
        found = f"; {extractor.found}" if extractor.found else ""
        computed += f" by {extractor.engine} in {duration(extractor.seconds)}, {rate:,.0f} a second{found}"
    kept = f"{count - extractor.computed:,} from the store, " if extractor.store else ""
    print(f"features of {count:,} photos ({extractor.label}): {kept}{computed}", flush=True)
    return given


def parts(found: data.Splits) -> list[data.Photos]:
    """The splits that there are: training, validation and, where there is one, test."""
    return [part for part in (found.train, found.val, found.test) if part is not None]


def listed(config: configs.Data) -> data.Examples:
    """List what the source holds; no file is opened yet."""
    from tlkit import data

    return data.load_source(config.origin, path=config.path, name=config.name, data_dir=config.data_dir)


def photos(config: configs.Data) -> data.Examples:
    """List the photos for a pretrained backbone, which takes nothing else."""
    examples = listed(config)
    if examples.kind != "photos":
        raise InvalidInput(
            f"data.path is {config.path!r}, which holds {examples.kind}; a pretrained backbone takes photos: train a "
            "network of your own with python -m tlkit.recipes.train"
        )
    return examples


def splits(
    config: configs.Data,
    examples: data.Examples,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    check: bool = True,
    say: bool = True,
) -> data.Splits:
    """Read, check and split what was listed, and say what was found."""
    from tlkit import data

    chosen = {name: getattr(config, name) for name in ("val_fraction", "test_fraction", "val_as_test", "strict")}
    found = data.load(examples, **chosen, seconds=config.seconds, size=size, channels=channels, check=check)
    if say:
        print(f"{counted(found)}; {' x '.join(map(str, found.train.shape))}", flush=True)
    return found


def counted(found: data.Splits) -> str:
    """Say what was found: how many examples in each split, and how many classes."""
    counts = {"training": found.train, "validation": found.val, "test": found.test}
    said = ", ".join(f"{len(part.labels):,} {name}" for name, part in counts.items() if part)
    return f"{found.kind}: {said}; {len(found.classes)} classes"


def settings(config: configs.Training, phase: configs.Phase) -> training.Settings:
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
        layer_decay=phase.layer_decay if isinstance(phase, configs.Full) else 1.0,
    )


def admit(model: keras.Model, trial: Trial | None) -> None:
    """Turn down a network that is larger than a trial's may be, before it is trained.

    Raises:
        InvalidInput: it is.
    """
    if trial is None:
        return
    from tlkit import arithmetic

    allowed = {"parameters": trial.max_parameters, "multiply_adds": trial.max_multiply_adds}
    if not any(allowed.values()):
        return
    totals = arithmetic.totals(arithmetic.describe(model))
    for name, most in allowed.items():
        found = getattr(totals, name)
        if most and found and found > most:
            what = f"{found:,} {name.replace('_', '-')}"
            raise InvalidInput(f"turned down: {what}, and max_{name} is {most:,}")


def callbacks(trial: Trial | None) -> list[Any]:
    """The callbacks of every phase: epochs go to MLflow."""
    from tlkit import tracking

    if trial is None:
        return [tracking.epoch_logger()]
    return [tracking.epoch_logger(f"execution{trial.execution}." if trial.execution > 1 else "", trial.after)]


@contextlib.contextmanager
def tracked(
    recipe: str, config: AnyConfig, splits: data.Splits | graph.Graph, trial: Trial | None = None
) -> Iterator[tracking.Run]:
    """Track the block as an MLflow run that begins with its config, split manifest and environment.

    A trial joins the run that is active, and adds no more than its config and what differs between trials.
    """
    import mlflow

    from tlkit import tracking

    described = {**tags(recipe, network(config)), "dataset_digest": splits.digest}
    if trial:
        with tracking.run(config.experiment, params=trial.params, tags=described) as started:
            if trial.execution == 1:
                text = as_yaml(config)
                (trial.folder / "config.yaml").write_text(text)
                mlflow.log_text(text, "config.yaml")
            yield started
        return
    with tracking.run(config.experiment, run_name=config.run_name, params=params(config), tags=described) as started:
        log_config(config)
        with tempfile.TemporaryDirectory() as folder:
            manifest = Path(folder) / "split_manifest.csv"
            splits.write_manifest(manifest)
            mlflow.log_artifact(str(manifest))
        yield started


def params(config: AnyConfig) -> dict[str, Any]:
    """Give the settings that are a run's parameters: all but where it is kept and what it is called."""
    return {name: value for name, value in configs.flatten(config).items() if name not in ("experiment", "run_name")}


def log_config(config: AnyConfig) -> None:
    """Log the config as the file from which the run can be repeated."""
    import mlflow

    mlflow.log_text(as_yaml(config), "config.yaml")


def as_yaml(settings: AnyConfig | dict[str, Any]) -> str:
    """Write a config, or some of its settings, as a file that `--config` takes."""
    import yaml

    plain = settings if isinstance(settings, dict) else dataclasses.asdict(settings)
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def log_table(table: dict[str, list[Any]], name: str) -> None:
    """Log columns as a table that the MLflow UI shows."""
    import mlflow

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "For backward compatibility, 'str' dtypes")  # MLflow 3.17 with pandas 3
        mlflow.log_table(table, name)


def network(config: AnyConfig) -> str:
    """Name the network of a config."""
    if isinstance(config, configs.FeatureExtraction | configs.Finetune):
        return config.backbone.name
    return config.builder.name if isinstance(config, configs.Train) else "gcn"


def tags(recipe: str, backbone: str) -> dict[str, str]:
    """Give the tags by which `mlflow.search_runs` finds a run, and what its result depends on beside the config."""
    from tlkit import runtime

    return {
        "recipe": recipe,
        "backbone": backbone,
        **{f"environment.{name}": value for name, value in runtime.environment().items()},
    }


def trained(history: training.History, extracting: float = 0.0) -> Fit:
    """Tell how training went, epoch by epoch, and how long features for it took."""
    from tlkit import plots

    best = history.best
    return Fit(
        parts={"epochs": history.seconds} | ({"features": extracting} if extracting else {}),
        metrics={
            "best_epoch": best["epoch"],
            "best_val_loss": best["val_loss"],
            "best_val_accuracy": best["val_accuracy"],
        },
        step=len(history.epochs),
        pictures={"learning_curves.png": plots.learning_curves(history.epochs, best["epoch"])},
        said=[f"kept  epoch {best['epoch']} of {len(history.epochs)}, phase {best['phase']}"],
        chosen_by_val=True,
    )


def solved(probe: probes.Probe, nearest: float, parts: dict[str, float], learned_from: str) -> Fit:
    """Tell how a head was solved, with how much regularization, and what the features are worth untrained."""
    from tlkit import plots

    chosen = next(tried for tried in probe.tried if tried.l2 == probe.l2)
    return Fit(
        parts=parts,
        metrics={
            "l2": chosen.l2,
            "cross_validated_loss": chosen.loss,
            "cross_validated_accuracy": chosen.accuracy,
            "nearest_neighbours_accuracy": nearest,
        },
        step=0,
        pictures={"regularization.png": plots.regularization(probe.tried, chosen.l2)},
        said=[
            f"l2    {chosen.l2:.2g}, the best of {len(probe.tried)} strengths by cross-validation on {learned_from}:"
            f" accuracy {chosen.accuracy:.3f}",
            f"5 nearest neighbours, nothing learnt: accuracy {nearest:.3f} (cross-validated)",
        ],
        chosen_by_val=False,
    )


def finish(
    started: tracking.Run, model: keras.Model, fit: Fit, splits: data.Splits, probabilities: np.ndarray
) -> Result:
    """Score what the model says of the test split, else the validation split, and log it with an example."""
    import mlflow

    from tlkit import evaluation

    split, part = ("test", splits.test) if splits.test else ("validation", splits.val)
    scores = evaluation.score(split, probabilities, part.labels)
    result = log_result(started, model, fit, scores, splits.classes, splits.kind)
    example = part.read([0])[0]
    if splits.kind == "photos":
        mlflow.log_image(example if example.shape[-1] == 3 else example[..., 0], "example.png")
        return result
    with tempfile.TemporaryDirectory() as folder:
        mlflow.log_artifact(_write_example(Path(folder), example, splits.rate))
    return result


def _write_example(folder: Path, example: np.ndarray, rate: int | None) -> str:
    import numpy as np

    from tlkit.data import sounds

    path = folder / ("example.wav" if rate else "example.npy")
    if rate:
        path.write_bytes(sounds.encode(example, rate))
    else:
        np.save(path, example)
    return str(path)


def log_result(
    started: tracking.Run,
    model: keras.Model,
    fit: Fit,
    scores: evaluation.Scores,
    classes: list[str],
    kind: str,
) -> Result:
    """Log the model with its scores and pictures."""
    import mlflow

    from tlkit import plots, tracking

    uri = tracking.log_model(model, classes, requirements(model))  # first: all else can be had from it again
    title = f"{scores.split} accuracy {scores.accuracy:.3f}, {scores.photos} {kind}"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a class name in a script that no font here has
        for name, picture in fit.pictures.items():
            mlflow.log_figure(picture, name)
        mlflow.log_figure(plots.confusion_matrix(scores.confusion, classes, title), "confusion_matrix.png")
    mlflow.log_metrics({**scores.metrics(), **fit.metrics, "training_seconds": fit.seconds}, step=fit.step)
    return Result(model, fit, scores, started.run_id, uri, kind)


def requirements(model: keras.Model) -> list[str]:
    """Give what loading the model needs, pinned; given to MLflow, whose own search takes 15 s."""
    import keras

    names = ["keras", keras.backend.backend(), "numpy", *(["tlkit"] if _has_own_layers(model) else [])]
    return [f"{name}=={metadata.version(name)}" for name in names]


def _has_own_layers(model: keras.Model) -> bool:
    return any(type(layer).__module__.startswith("tlkit.") for layer in model.layers)


def summarize(recipe: str, config: AnyConfig, result: Result, started: tracking.Run, began: float) -> None:
    """Print what was trained, how well, how long it took, where it is and what to do next."""
    import mlflow

    from tlkit import tracking
    from tlkit.progress import duration

    scores = result.scores
    folder = tracking.model_folder(result.model_uri)
    model = shown(folder / "data" / "model.keras") if folder else result.model_uri
    uri = mlflow.get_tracking_uri()
    name = mlflow.get_run(result.run_id).info.run_name
    low, high = scores.interval
    print(f"\n{recipe}: {network(config)}, {result.model.count_params():,} parameters")
    spread = f"95 % interval {low:.3f} to {high:.3f}, {scores.photos} {result.kind}"
    print(f"  {scores.split} accuracy  {scores.accuracy:.4f}  ({spread})")
    if scores.split == "validation" and result.fit.chosen_by_val:
        print("                     it chose the epoch, so it is not a test score")
    if scores.auc is not None:
        print(f"  {scores.split} AUC       {scores.auc:.4f}")
    for line in result.fit.said:
        print(f"  {line}")
    print(f"  time  {duration(result.fit.seconds)} of training, {duration(time.perf_counter() - began)} in all")
    print(f"  run   {name} ({result.run_id}) in {tracking.without_password(uri)}")
    print(f"  model {model}")
    artifacts = tracking.run_folder(result.run_id)
    photo = shown(artifacts / "example.png") if artifacts else "PHOTO"
    print("\nNext:")
    if result.kind == "photos":
        print(f"  {program('python')} -m tlkit.recipes.predict {result.model_uri} {photo}")
    else:
        first = "import tlkit.layers; " if _has_own_layers(result.model) else ""  # Keras finds them by name then
        print(f'  {first}mlflow.keras.load_model("{result.model_uri}")  # in Python; takes {_inputs(result.model)}')
    print_links(started)


def _inputs(model: keras.Model) -> str:
    """Write down what a model takes.

    >>> import keras
    >>> _inputs(keras.Sequential([keras.Input((8000, 1), name="samples"), keras.layers.Flatten()]))
    'samples: (batch, 8000, 1)'
    """
    shapes = [", ".join("any" if length is None else str(length) for length in t.shape[1:]) for t in model.inputs]
    return "; ".join(f"{t.name}: (batch, {shape})" for t, shape in zip(model.inputs, shapes, strict=True))


def print_links(run: tracking.Run, others: list[str] | None = None, heading: str = "beside the last runs") -> None:
    """Print how to look at a run in the MLflow UI, alone and beside others: by default the last ones."""
    import mlflow

    from tlkit import tracking

    uri = mlflow.get_tracking_uri()
    server = tracking.without_password(uri).rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"
    if not uri.startswith("http"):
        elsewhere = "" if uri == f"sqlite:///{Path.cwd()}/mlflow.db" else ' --backend-store-uri "$MLFLOW_TRACKING_URI"'
        print(f"  {program('mlflow')} ui{elsewhere}      # then open:")
    print(f"  {run_link(server, run)}")
    others = tracking.recent_runs(run.experiment_id, 4) if others is None else others
    if len(others) > 1:
        print(f"  {heading}:")
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


def load(model: str) -> tuple[keras.Model, list[str] | None]:
    """Load a model and, where its file has them, the names of its classes.

    Args:
        model: A `.keras` file or an MLflow URI.

    Raises:
        InvalidInput: there is no such model, or Keras cannot load it.
    """
    path = _download(model) if model.startswith(("models:/", "runs:/")) else Path(model)
    if not path.is_file():
        raise InvalidInput(f"there is no model {model!r}; give a .keras file or an MLflow URI such as models:/m-…")
    if not zipfile.is_zipfile(path):
        raise InvalidInput(f"{model!r} is not a .keras file; give one that a recipe or model.save wrote")
    import keras

    from tlkit import labels, layers  # noqa: F401  Keras finds our layers by their registered names

    try:
        return keras.saving.load_model(path, compile=False), labels.read(path)
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"Keras cannot load {model!r}: {str(error).splitlines()[0]}") from error


def _download(uri: str) -> Path:
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    from tlkit import tracking

    tracking.open_store()
    if re.fullmatch(r"runs:/[^/]+/?", uri):
        uri = f"{uri.rstrip('/')}/model"  # the name that the recipes give
    try:
        return Path(mlflow.artifacts.download_artifacts(uri)) / "data" / "model.keras"
    except (MlflowException, OSError) as error:
        raise InvalidInput(f"MLflow has no model {uri!r}: {str(error).splitlines()[0]}") from error


def program(name: str) -> str:
    """Name a program of this environment so that it runs when it is copied into this shell."""
    path = Path(sys.executable).with_name(name)
    return name if shutil.which(name) == str(path) else shown(path)


def shown(path: Path) -> str:
    """Write a path for the shell, the short way: relative where it is below the working folder."""
    return shlex.quote(os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path))
