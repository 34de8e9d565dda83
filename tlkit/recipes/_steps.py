"""What the training recipes share: the beginning, up to the photos, and the end, from the scores on."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import math
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote

from tlkit import config as configs
from tlkit.errors import InvalidInput, Undecodable, first_line, without_password

if TYPE_CHECKING:
    import keras
    import numpy as np
    from matplotlib.figure import Figure

    from tlkit import checkpoints, data, evaluation, features, finder, probes, registry, store, tracking, training
    from tlkit.data import graph

EXAMPLES = {"photos": "example.png", "sounds": "example.wav", "arrays": "example.npy"}
PURPOSES = {"train": "training", "val": "validation", "test": "the test"}
HEAD_EPOCHS = 30  # of a head that is not solved
SOLVABLE = 10**6  # weights of a head: solving one of more takes gigabytes
MODE = "workflowType=machine_learning"  # else the MLflow UI shows what it has for language models

AnyConfig = configs.Recipe | configs.TrainGraph
Config = TypeVar("Config", bound=AnyConfig)
AnyFinetune = TypeVar("AnyFinetune", bound=configs.Finetune)
AnyTraining = TypeVar("AnyTraining", configs.Finetune, configs.Train)


class Fit(NamedTuple):
    """How a model came to its weights: what to log of it, and what to say.

    Args:
        parts: Seconds of training, by what was done.
        metrics: For MLflow, by their names there.
        pictures: For MLflow, by their file names.
        said: Lines of the summary.
        chosen_by_val: Whether the validation photos had a say, so that their score is no test score.
    """

    parts: dict[str, float]
    metrics: dict[str, float]
    pictures: dict[str, Figure]
    said: list[str]
    chosen_by_val: bool

    @property
    def seconds(self) -> float:
        """Seconds of training, all parts."""
        return sum(self.parts.values())


class Result(NamedTuple):
    """What a training recipe leaves: the model with its best weights, and where MLflow has it.

    Where the tracking server was away at the end, `model_uri` is the path of the model's file.
    """

    model: keras.Model
    fit: Fit
    scores: evaluation.Scores
    run_id: str
    model_uri: str
    kind: str = "photos"  # what the model looks at; or sounds, arrays or nodes
    registered: registry.Registered | None = None


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
    if "keras" not in sys.modules:
        with _native_stderr_held(), _uncollected():
            import keras  # noqa: F401
    return began


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no garbage among what is made meanwhile, now or later: imports make none, and it takes seconds."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


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
    from tlkit import registry, runtime

    if name := getattr(config, "register", None):
        registry.check_name(name)
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


def scored(found: data.Splits) -> tuple[str, data.Photos]:
    """The split that a model is scored on, and its name: the test split, else the validation split."""
    return ("test", found.test) if found.test else ("validation", found.val)


def listed(config: configs.Data) -> data.Examples:
    """List what the source holds; no file is opened yet."""
    from tlkit import data

    return data.load_source(
        config.origin, path=config.path, name=config.name, data_dir=config.data_dir, separator=config.separator
    )


def photos(config: configs.Data) -> data.Examples:
    """List the photos for a pretrained backbone, which takes nothing else."""
    examples = listed(config)
    if examples.kind != "photos":
        raise InvalidInput(
            f"data.path is {config.path!r}, which holds {examples.kind}; a pretrained backbone takes photos: train a "
            "network of your own with python -m tlkit.recipes.train"
        )
    return examples


def one_label(examples: data.Examples, recipe: str) -> None:
    """Refuse examples that may have several labels, or none."""
    if examples.multi_label:
        raise InvalidInput(f"{recipe} takes one label an example, and these may have several: use finetune")


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


def settings(
    config: configs.Training, phase: configs.Phase, class_weights: list[float] | None = None
) -> training.Settings:
    """Put the settings of one phase and those of the whole run together."""
    from tlkit import training

    return training.Settings(
        epochs=phase.epochs,
        learning_rate=1e-3 if phase.learning_rate == "auto" else phase.learning_rate,  # of what looks for it
        warmup=phase.warmup,
        patience=phase.patience,
        batch_size=batch_size(config),
        label_smoothing=config.label_smoothing,
        weight_decay=config.weight_decay,
        layer_decay=phase.layer_decay if isinstance(phase, configs.Full) else 1.0,
        schedule=phase.schedule,
        optimizer=config.optimizer,
        focal_gamma=config.focal_gamma,
        class_weights=class_weights,
        balanced=config.balance == "sampling",
        global_clipnorm=config.global_clipnorm,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        ema_momentum=config.ema_momentum,
        learning_rates=phase.learning_rates if isinstance(phase, configs.Full) else None,
        remat=config.remat,
    )


def batch_size(config: configs.Training) -> int:
    """Give the batch, before it is found out too."""
    return 32 if config.batch_size == "auto" else config.batch_size


def class_weights(config: configs.Training, splits: data.Splits) -> list[float] | None:
    """Give the weight of each class in the loss, where classes are to be balanced by weights."""
    from tlkit import losses

    return losses.balanced(splits.train.labels, len(splits.classes)) if config.balance == "weights" else None


def with_batch_size(config: AnyTraining, model: keras.Model, splits: data.Splits) -> AnyTraining:
    """Find out the batch where it is `auto`, and bring learning rates that are numbers in proportion to it."""
    if config.batch_size != "auto":
        return config
    from tlkit import memory, training

    logits = training.to_logits(model)
    logits = memory.remat(logits) if config.remat else logits
    training.compiled(logits, settings(config, config.full), 1e-3, multi_label=splits.multi_label)
    found = memory.batch_size(
        logits, splits.train.shape, len(splits.classes), len(splits.train), multi_label=splits.multi_label
    )
    examples = found * config.gradient_accumulation_steps
    changed: dict[str, Any] = {"batch_size": found}
    for name in ("head", "full"):
        part = getattr(config, name, None)
        if part and part.learning_rate != "auto":
            scale = memory.scaled_rate(1.0, examples, config.optimizer)
            changed[name] = dataclasses.replace(part, learning_rate=part.learning_rate * scale)
            if rates := getattr(part, "learning_rates", None):
                by_stage = {stage: rate * scale for stage, rate in rates.items()}
                changed[name] = dataclasses.replace(changed[name], learning_rates=by_stage)
    print(f"batch_size: {found}", flush=True)
    return dataclasses.replace(config, **changed)


def with_rates(config: Any, model: keras.Model, splits: data.Splits, seen: Any = None) -> Any:
    """Find out learning rates that are `auto`, by range tests after which the model is as it was.

    Args:
        config: Of the recipe.
        model: Whose backbone, where it has one, is trainable as in phase full.
        splits: The photos.
        seen: Pooled features of the training photos, where there is a phase head.
    """
    from tlkit import variables

    for name in ("head", "full"):
        phase = getattr(config, name, None)
        if phase is None or not phase.epochs or (name == "head" and seen is None):
            continue  # there is no such phase
        if phase.learning_rate == "auto":
            before = variables.values(model.variables)
            found = range_test(config, name, model, splits, seen)
            config = dataclasses.replace(config, **{name: _with_rate(phase, found.suggested, name)})
            variables.assign(model.variables, before)  # the seeds of dropout too
    return config


def range_test(
    config: Any, phase: str, model: keras.Model, splits: data.Splits, seen: Any = None, **more: Any
) -> finder.RangeTest:
    """Test the learning rates of a phase; for phase full with a head that has been trained for a little.

    Args:
        config: Of the recipe.
        phase: `head` or `full`.
        model: The network; its head may be another afterwards.
        splits: The photos.
        seen: Pooled features of the training photos, where there is a phase head.
        more: See `finder.range_test`.
    """
    from tlkit import backbones, training

    weights, stages = class_weights(config, splits), None
    tested = settings(config, getattr(config, phase), weights)
    if seen is not None:
        backbones.freeze(model)
        if phase == "head":
            return training.range_test_head(model, seen, tested, seed=config.seed, **more)
        training.train_head_a_little(model, seen, settings(config, config.head, weights), config.seed)
    if isinstance(config, configs.Finetune):
        name = config.backbone.name
        backbones.unfreeze(model, name, stages_of(config)[-1], config.full.batch_normalization)
        stages = backbones.row(name).stages
    augment = changes(config.augment) or None
    return training.range_test_full(
        model, splits.train, tested, seed=config.seed, augment=augment, stages=stages, **more
    )


def stages_of(config: configs.Finetune) -> list[str | None]:
    """From which stage on the network learns, phase by phase."""
    given = config.full.unfreeze_from
    return list(given) if isinstance(given, list) else [given]


def classifier(config: configs.Finetune, backbone: keras.Model, splits: data.Splits) -> keras.Model:
    """Put a head on the backbone, and make trainable what phase full trains at last; an unknown stage is refused."""
    from tlkit import backbones

    model = backbones.classifier(backbone, len(splits.classes), config.head.dropout, multi_label=splits.multi_label)
    for stage in stages_of(config):
        backbones.unfreeze(model, config.backbone.name, stage, config.full.batch_normalization)
    return model


def check_head(config: configs.Finetune) -> None:
    """Refuse settings of a head's training where it is not trained."""
    head, plain = config.head, configs.Head()
    if head.epochs is not None or head.solved is False or config.balance != "none":
        return
    for name in ("learning_rate", "warmup", "patience", "schedule"):
        if (given := getattr(head, name)) != getattr(plain, name):
            raise InvalidInput(
                f"head.{name} is {given}, but the head is solved and not trained: give --head.epochs {HEAD_EPOCHS} or "
                "--head.solved false too, or leave it out"
            )


def with_head(config: AnyFinetune, model: keras.Model, splits: data.Splits) -> AnyFinetune:
    """Decide how the head is found, where that is left open.

    Raises:
        InvalidInput: it is to be solved, which cannot be; or nothing at all is to be done.
    """
    head, balanced = config.head, config.balance != "none"
    solved, epochs = head.solved, head.epochs
    if solved is None:
        small = math.prod(model.get_layer("head").kernel.shape) <= SOLVABLE
        solved = small and not splits.multi_label and not balanced
    elif solved and (splits.multi_label or balanced):
        why = "a photo may have several labels" if splits.multi_label else f"balance is {config.balance}"
        raise InvalidInput(f"head.solved is true, but {why}, which logistic regression does not know: leave it out")
    if epochs is None:
        epochs = 0 if solved else HEAD_EPOCHS
    if not (solved or epochs or config.full.epochs):
        raise InvalidInput("the head is not solved here, and the number of epochs is 0: give --head.epochs")
    return dataclasses.replace(config, head=dataclasses.replace(head, solved=solved, epochs=epochs))


def _with_rate(phase: Any, found: float | None, name: str) -> Any:
    rate = found or type(phase)().learning_rate
    why = "by a range test" if found else "the default, as in a range test the loss fell at no rate"
    print(f"{name}: learning rate {rate:.2g}, {why}", flush=True)
    return dataclasses.replace(phase, learning_rate=rate)


def changes(augment: configs.Augment) -> dict[str, Any]:
    """Give what `data.batches` takes to change training examples; nothing where augmentation is off."""
    from tlkit import data

    return data.switched_on({name: value for name, value in dataclasses.asdict(augment).items() if name != "views"})


def check_tta(config: configs.Training) -> None:
    """Refuse views of test photos that are all the photo itself."""
    if config.tta and not set(changes(config.augment)) - {"mixup", "cutmix"}:  # type: ignore[attr-defined]
        raise InvalidInput(f"tta is {config.tta}, but no change of single photos is on in --augment: leave tta out")


def with_tta(config: configs.Training, model: keras.Model, splits: data.Splits, predicted: np.ndarray, fit: Fit) -> Fit:
    """Score the mean over changed views of each test photo, and what is `predicted` of itself, where that is wanted."""
    if not config.tta:
        return fit
    import numpy as np

    from tlkit import data, evaluation, training

    augment = changes(config.augment)  # type: ignore[attr-defined]
    alone = {name: value for name, value in augment.items() if name not in ("mixup", "cutmix")}
    split, part = scored(splits)
    views = data.changed(part, alone, config.tta, config.seed)
    seen = [training.predict(model, view, batch_size(config)) for view in views]
    scores = evaluation.score(split, np.mean([predicted, *seen], axis=0), part.labels).metrics()
    fit.metrics.update({f"{name}_tta": value for name, value in scores.items()})
    views_said = "its mirror image" if isinstance(views[0], data.Mirrored) else f"{len(views)} views of it"
    accuracy = scores[f"{split}_accuracy"]
    fit.said.append(f"tta   {split} accuracy {accuracy:.4f}, the mean of each and {views_said}")
    return fit


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
    recipe: str,
    config: AnyConfig,
    splits: data.Splits | graph.Graph,
    trial: Trial | None = None,
    begun: Begun | None = None,
) -> Iterator[tracking.Run]:
    """Track the block as an MLflow run that begins with its config, split manifest and environment.

    A trial joins the run that is active, and adds no more than its config and what differs between trials.

    Args:
        recipe: Its name.
        config: Its settings, complete.
        splits: What it learns from.
        trial: Where the run is one of a search.
        begun: Where the run can be gone on with after an interruption: what `resumed` gave.
    """
    from tlkit import checkpoints, tracking

    described = {**tags(recipe, network(config)), **data_tags(splits)}
    if trial:
        with tracking.run(config.experiment, params=trial.params, tags=described) as started:
            if trial.execution == 1:
                text = as_yaml(config)
                (trial.folder / "config.yaml").write_text(text)
                tracking.log_text(text, "config.yaml")
            yield started
        return
    kept, lock = (begun.kept, begun.lock) if begun else (None, None)
    try:
        if kept:
            with tracking.run(config.experiment, params={}, tags=described, run_id=kept.run_id) as started:
                tracking.log_nothing_twice()
                with _told_how_to_go_on(recipe, kept):
                    yield started
        else:
            with tracking.run(
                config.experiment, run_name=config.run_name, params=params(config), tags=described
            ) as started:
                log_config(config)
                log_data(config.data, splits)
                if begun is None:
                    yield started
                    return
                plain = dataclasses.asdict(config)
                told = {"recipe": recipe, "asked": begun.asked, "config": plain, "digest": splits.digest}
                kept = checkpoints.begun(started.run_id, **told)
                lock = checkpoints.hold(kept)
                with _told_how_to_go_on(recipe, kept):
                    yield started
        checkpoints.finished(kept)
    finally:
        if lock:
            lock.release()


class Begun(NamedTuple):
    """A run that can be gone on with after an interruption.

    Args:
        asked: Its settings as the user gave them.
        kept: Where it was interrupted before: what there is of it.
        lock: Of its folder, held.
    """

    asked: dict[str, Any]
    kept: checkpoints.Begun | None = None
    lock: Any = None

    def check(self, splits: data.Splits) -> None:
        """Refuse data that are not those of the interrupted run."""
        if self.kept and self.kept.told["digest"] != splits.digest:
            raise InvalidInput(
                f"the data are not those that run {self.kept.run_id} was begun with: put them back, or begin a new run"
            )


def resumed(recipe: str, config: AnyTraining) -> tuple[AnyTraining, Begun]:
    """Find the run that is to be gone on with, and take its settings; else the config is left as it is.

    Raises:
        InvalidInput: there is no such run, or it was begun with other settings.
    """
    from tlkit import checkpoints, cli

    asked = {**dataclasses.asdict(config), "resume": None}
    if config.resume is None:
        return config, Begun(asked)
    import mlflow

    if mlflow.active_run():
        raise InvalidInput(f"resume is {config.resume!r}, but an MLflow run is active: end it, or leave resume out")
    runs = [run for run in checkpoints.unfinished() if run.told["recipe"] == recipe]
    if config.resume == "auto":
        held = ((run, checkpoints.hold(run)) for run in runs if run.told["asked"] == asked)
        kept, lock = next(((run, lock) for run, lock in held if lock), (None, None))
        if kept is None:
            print("no interrupted run of this command in this folder: a new one begins", flush=True)
            return config, Begun(asked)
    else:
        kept = _named_run(config.resume, runs, recipe)
        given, begun = _flat(asked), _flat(kept.told["asked"])
        plain = {**dataclasses.asdict(type(config)()), "resume": None}
        differ = [name for name, value in given.items() if value != begun.get(name)]
        if asked != plain and differ:
            name = differ[0]
            raise InvalidInput(
                f"{name} is {given[name]!r}, but run {config.resume} was begun with {begun.get(name)!r}: leave "
                "settings out to go on with its own, or begin a new run without resume"
            )
        lock = checkpoints.hold(kept)
        if lock is None:
            raise InvalidInput(f"run {kept.run_id} is being trained by another process: wait for it, or stop it")
    print(f"going on with run {kept.run_id}", flush=True)
    return cli.from_settings(type(config), kept.told["config"]), Begun(kept.told["asked"], kept, lock)


def _named_run(name: str, runs: list[checkpoints.Begun], recipe: str) -> checkpoints.Begun:
    import mlflow
    from mlflow.exceptions import MlflowException

    from tlkit import tracking

    tracking.open_store()
    for run in runs:
        if run.run_id == name:
            return run
        with contextlib.suppress(MlflowException):
            if mlflow.get_run(run.run_id).info.run_name == name:
                return run
    there = ", ".join(run.run_id for run in runs[:3]) or "none"
    raise InvalidInput(
        f"resume is {name!r}; no such run of {recipe} was interrupted in this folder. Those that were: {there}"
    )


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, dict) and name != "learning_rates"
        found |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found


@contextlib.contextmanager
def _told_how_to_go_on(recipe: str, kept: checkpoints.Begun) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if any(kept.folder.glob("*.npz")):
            how = f"{program('python')} -m tlkit.recipes.{recipe} --resume {kept.run_id}"
            print(f"\nto go on from the last checkpoint: {how}", file=sys.stderr, flush=True)
        elif not isinstance(error, KeyboardInterrupt):
            from tlkit import checkpoints

            checkpoints.finished(kept)
        raise


def keeping(started: tracking.Run, phase: str, trial: Trial | None = None) -> training.Keeping | None:
    """Say where a phase's state is kept: of a run on the way too, of a trial where it may go on later."""
    from tlkit import checkpoints, training

    if trial:
        return training.Keeping(trial.checkpoint) if trial.checkpoint else None
    return training.Keeping(checkpoints.FOLDER / started.run_id / f"{phase}.npz", on_the_way=True)


def data_tags(splits: data.Splits | graph.Graph) -> dict[str, str]:
    """Give the tags by which runs on the same data are found."""
    return {"kind": splits.kind, "dataset_digest": splits.digest}


def log_data(config: configs.Data | configs.Graph, splits: data.Splits | graph.Graph) -> None:
    """Log which example was in which split."""
    from tlkit import tracking

    tracking.log_inputs(datasets(config, splits))
    with tracking.artifact("split_manifest.csv") as manifest:
        splits.write_manifest(manifest)


def datasets(config: configs.Data | configs.Graph, splits: data.Splits | graph.Graph) -> list[dict[str, str]]:
    """Describe each split as MLflow describes data sets; its digest is of the manifest, so that no photo is read."""
    origin, name = config.origin if isinstance(config, configs.Data) else "npz", dataset_name(config)
    source = {"uri": config.path} if config.path else {"name": name}
    columns = [{"type": "binary", "name": splits.kind.removesuffix("s")}, {"type": "string", "name": "label"}]
    contexts = {"train": "training", "val": "validation", "test": "test"}
    return [
        {
            "context": contexts[split],
            "name": name,
            "digest": digest[:16],
            "source_type": origin,
            "source": json.dumps(source),
            "schema": json.dumps({"mlflow_colspec": columns}),
            "profile": json.dumps({"num_rows": count, "num_classes": len(splits.classes)}),
        }
        for split, (count, digest) in splits.parts.items()
    ]


def dataset_name(config: configs.Data | configs.Graph) -> str:
    """Name the data for a person.

    >>> dataset_name(configs.Data(path="/home/ada/flowers"))
    'flowers'
    """
    return (config.name if isinstance(config, configs.Data) else None) or Path(config.path or "digits").stem


def params(config: AnyConfig) -> dict[str, Any]:
    """Give the settings that are a run's parameters: all but where it is kept and what it is called."""
    names = ("experiment", "run_name", "register", "resume")
    return {name: value for name, value in configs.flatten(config).items() if name not in names}


def log_config(config: AnyConfig) -> None:
    """Log the config as the file from which the run can be repeated."""
    from tlkit import tracking

    tracking.log_text(as_yaml(config), "config.yaml")


def as_yaml(settings: AnyConfig | dict[str, Any]) -> str:
    """Write a config, or some of its settings, as a file that `--config` takes."""
    import yaml

    plain = settings if isinstance(settings, dict) else dataclasses.asdict(settings)
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


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
        pictures={"regularization.png": plots.regularization(probe.tried, chosen.l2)},
        said=[
            f"l2    {chosen.l2:.2g}, the best of {len(probe.tried)} strengths by cross-validation on {learned_from}:"
            f" accuracy {chosen.accuracy:.3f}",
            f"5 nearest neighbours, nothing learnt: accuracy {nearest:.3f} (cross-validated)",
        ],
        chosen_by_val=False,
    )


def finish(
    recipe: str,
    config: Any,
    started: tracking.Run,
    model: keras.Model,
    fit: Fit,
    splits: data.Splits,
    probabilities: np.ndarray,
    register: str | None = None,
) -> Result:
    """Score what the model says of the test split, else the validation split, and log it with all that shows it."""
    from tlkit import evaluation, plots, predictions, tracking

    split, part = scored(splits)
    scores = evaluation.score(split, probabilities, part.labels)
    told = predictions.table(split, part.names, part.hashes, part.labels, probabilities, splits.classes)
    fit.pictures["worst_mistakes.png"] = plots.mistakes(
        part.read,
        told["label"],
        told["predicted"],
        told["probability"],
        splits.kind,
        told["file"],
        losses=evaluation.binary_crossentropy(probabilities, part.labels) if splits.multi_label else None,
    )
    example = part.read([0])[0]
    content = _example(example, splits)
    with tracking.artifact(EXAMPLES[splits.kind]) as path:
        path.write_bytes(content)
    fit.metrics.update(_speed(model, part))
    return log_result(recipe, config, started, model, fit, scores, told, splits, content, register)


def _example(example: np.ndarray, splits: data.Splits) -> bytes:
    """Write a photo, sound or array as the file that a user would have."""
    import io

    import numpy as np
    from PIL import Image

    from tlkit.data import sounds

    if splits.rate:
        return sounds.encode(example, splits.rate)
    buffer = io.BytesIO()
    if splits.kind == "photos":
        Image.fromarray(example if example.shape[-1] == 3 else example[..., 0]).save(buffer, "PNG")
    else:
        np.save(buffer, example)
    return buffer.getvalue()


def _speed(model: keras.Model, part: data.Photos) -> dict[str, float]:
    """Measure how many examples in memory the model looks at in a second, unless compiling that would take long."""
    import keras

    if keras.backend.backend() != "tensorflow" and getattr(model, "predict_function", None) is None:
        return {}
    batch = part.read(range(min(32, len(part))))
    model.predict_on_batch(batch)
    began, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - began < 0.1:
        model.predict_on_batch(batch)
        count += 1
    return {"predict_per_second": count * len(batch) / (time.perf_counter() - began)}


def log_result(
    recipe: str,
    config: Any,
    started: tracking.Run,
    model: keras.Model,
    fit: Fit,
    scores: evaluation.Scores,
    told: dict[str, list[Any]],
    splits: data.Splits | graph.Graph,
    example: bytes | None = None,
    register: str | None = None,
) -> Result:
    """Log the scores, what was predicted, the pictures and the model, once each, and wait until the store has them."""
    from tlkit import evaluation, plots, predictions, serving, tracking

    classes, kind = splits.classes, splits.kind
    tracking.log_metrics(
        {
            **scores.metrics(),
            **fit.metrics,
            "training_seconds": fit.seconds,
            "parameters": model.count_params(),
        }
    )  # all at step 0, not at an epoch, so that MLflow compares runs by them as bars
    tracking.log_table(told, predictions.FILE)
    headline, score, _ = scores.headline
    title = f"{scores.split} {headline} {score:.3f}, {scores.photos} {kind}"
    recalls, areas = evaluation.recalls(scores.confusion), scores.average_precision if scores.multi_label else None
    pictures = {
        **fit.pictures,
        "confusion_matrix.png": plots.confusion_matrix(scores.confusion, classes, title),
        "class_scores.png": plots.class_scores(scores.confusion, classes, recalls, title, areas),
    }
    for name, picture in pictures.items():
        tracking.log_figure(picture, name)
    if example is not None:
        tracking.log_text(json.dumps(serving.serving_example(example, kind)), "example_request.json")

    def save(path: Path) -> None:
        rate = getattr(splits, "rate", None)
        serving.save_model(path, model, classes, kind=kind, rate=rate, requirements=requirements(), example=example)
        tracking.log_metrics({"model_megabytes": (path / "data" / "model.keras").stat().st_size / 1e6})

    saved = tracking.log_model(save)
    described = describe(recipe, config, model, fit, scores, splits, started.run_id)
    tracking.set_tags({"mlflow.note.content": described})
    if register:
        tracking.register(register)
    tracking.deliver()
    return Result(model, fit, scores, started.run_id, str(saved / "data" / "model.keras"), kind)


def describe(
    recipe: str,
    config: Any,
    model: keras.Model,
    fit: Fit,
    scores: evaluation.Scores,
    splits: data.Splits | graph.Graph,
    run_id: str,
) -> str:
    """Describe a run for whoever opens it: what was trained on what, how well it does, and how to use it."""
    from tlkit.progress import duration

    kind, (headline, score, (low, high)) = splits.kind, scores.headline
    name = dataset_name(config.data)
    counts = {split: count for split, (count, _) in splits.parts.items()}
    said = ", ".join(f"{counts[split]:,} for {word}" for split, word in PURPOSES.items() if split in counts)
    chosen = " These examples chose the epoch too, so this flatters." if _flatters(fit, scores) else ""
    classes = ", ".join(splits.classes[:20]) + (", ..." if len(splits.classes) > 20 else "")
    command = f"python -m tlkit.recipes.predict runs:/{run_id}/model PHOTO.jpg"
    served = f"mlflow models serve -m runs:/{run_id}/model --env-manager local"
    loaded = f'model = mlflow.pyfunc.load_model("runs:/{run_id}/model")'
    use = {"photos": [command, served], "nodes": []}.get(kind, [served])
    mistakes = "`worst_mistakes.png` and " if "worst_mistakes.png" in fit.pictures else ""
    lines = [
        f"**{network(config)}**, {model.count_params():,} parameters, by `{recipe}` on {kind} of **{name}**: "
        f"{said}; {len(splits.classes)} classes ({classes}).",
        "",
        f"**{scores.split.capitalize()} {headline} {score:.3f}** (95 % interval {low:.3f} to {high:.3f}, "
        f"{scores.photos:,} {kind}), F1 {scores.f1:.3f}, loss {scores.loss:.3f}{_also(scores, splits.classes)}; "
        f"trained in {duration(fit.seconds)}.{chosen}",
        "",
        "To use it:",
        "",
        "```",
        *use,
        loaded,
        "```",
        "",
        f"Where it is wrong: {mistakes}`predictions.json`. `config.yaml` repeats the run.",
    ]
    return "\n".join(lines)


def _also(scores: evaluation.Scores, classes: Sequence[str]) -> str:
    """Say what else is asked of several labels an example, and of two classes, of which the second is the positive."""
    found = {name.removeprefix(f"{scores.split}_"): value for name, value in scores.metrics().items()}
    if scores.multi_label:
        said = {"micro F1": "f1_micro", "labels right": "accuracy", "all labels of an example right": "exact_match"}
    elif len(classes) == 2:
        said = {f"`{classes[1]}`: precision": "precision", "recall": "recall", "average precision": "average_precision"}
    else:
        said = {}
    return "".join(f", {text} {found[name]:.3f}" for text, name in said.items() if name in found)


def _flatters(fit: Fit, scores: evaluation.Scores) -> bool:
    return scores.split == "validation" and fit.chosen_by_val


def requirements() -> list[str]:
    """Give what loading a model needs, pinned; given to MLflow, whose own search takes 15 s."""
    import keras

    names = ["keras", keras.backend.backend(), "numpy", "mlflow", "tlkit"]
    return [f"{name}=={metadata.version(name)}" for name in names]


def summarize(recipe: str, config: AnyConfig, result: Result, started: tracking.Run, began: float) -> Result:
    """Print what was trained, how well, how long it took, where it is and what to do next.

    Returns:
        The result, with what the store made of the model.
    """
    import mlflow

    from tlkit import serving, tracking
    from tlkit.progress import duration

    ended = tracking.journal_of(result.run_id)
    result = result._replace(model_uri=ended.model_uri or result.model_uri, registered=ended.registered)
    scores, there = result.scores, not ended.unsent
    folder = tracking.model_folder(result.model_uri) if there else None
    model = shown(folder / "data" / "model.keras") if folder else result.model_uri
    uri = mlflow.get_tracking_uri()
    name = f"{mlflow.get_run(result.run_id).info.run_name} ({result.run_id})" if there else result.run_id
    headline, score, (low, high) = scores.headline
    print(f"\n{recipe}: {network(config)}, {result.model.count_params():,} parameters")
    drawn = "bootstrap " if scores.multi_label else ""
    spread = f"95 % {drawn}interval {low:.3f} to {high:.3f}, {scores.photos} {result.kind}"
    print(f"  {scores.split} {headline:<8}  {score:.4f}  ({spread})")
    if _flatters(result.fit, scores):
        print("                     it chose the epoch, so it is not a test score")
    if scores.auc is not None:
        print(f"  {scores.split} AUC       {scores.auc:.4f}")
    if scores.multi_label:
        print(f"  {scores.split} F1        {scores.f1:.4f}  (mean of the labels, at probabilities above 0.5)")
        exact = f"of labels; all labels of an example are right: {scores.exact_match:.4f}"
        print(f"  {scores.split} accuracy  {scores.accuracy:.4f}  ({exact})")
    for line in result.fit.said:
        print(f"  {line}")
    print(f"  time  {duration(result.fit.seconds)} of training, {duration(time.perf_counter() - began)} in all")
    print(f"  run   {name} in {without_password(uri)}")
    print(f"  model {model}")
    print_registered(result.registered)
    artifacts = tracking.run_folder(result.run_id) if there else None
    example = EXAMPLES.get(result.kind, "")
    file = shown(artifacts / example) if artifacts else example.replace("example", "FILE")
    print("\nNext:")
    if result.kind == "photos":
        print(f"  {program('python')} -m tlkit.recipes.predict {result.model_uri} {file}")
    elif not there:
        print(f'  keras.saving.load_model("{result.model_uri}")  # in Python; takes {_inputs(result.model)}')
    elif result.kind == "nodes":
        print(f'  mlflow.keras.load_model("{result.model_uri}")  # in Python; takes {_inputs(result.model)}')
    else:
        asked = f'{{"{serving.COLUMNS[result.kind]}": ["{file}"]}}'
        print(f'  mlflow.pyfunc.load_model("{result.model_uri}").predict({asked})  # in Python')
    if there:
        print_links(started)
    else:
        print(f"  {program('python')} -m tlkit.recipes.sync      # when the server answers")
    return result


def _inputs(model: keras.Model) -> str:
    """Write down what a model takes.

    >>> import keras
    >>> _inputs(keras.Sequential([keras.Input((8000, 1), name="samples"), keras.layers.Flatten()]))
    'samples: (batch, 8000, 1)'
    """
    shapes = [", ".join("any" if length is None else str(length) for length in t.shape[1:]) for t in model.inputs]
    return "; ".join(f"{t.name}: (batch, {shape})" for t, shape in zip(model.inputs, shapes, strict=True))


def print_registered(registered: Sequence[str] | None) -> None:
    """Print as which version a model was registered, and why it has its alias."""
    if registered:
        name, version, alias, reason = registered
        print(f"  {name} version {version}{f', {alias}' if alias else ''}: {reason}")


def print_links(
    run: tracking.Run, others: list[str] | None = None, heading: str = "the last runs side by side"
) -> None:
    """Print how to look at a run in the MLflow UI, alone and beside others: by default the last ones."""
    import mlflow

    from tlkit import tracking

    uri = mlflow.get_tracking_uri()
    server = without_password(uri).rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"
    if not uri.startswith("http"):
        print(f"  {program('python')} -m tlkit.recipes.ui      # then open:")
    others = tracking.recent_runs(run.experiment_id, 4) if others is None else others
    links = {
        "the run": run_link(server, run),
        "all runs": runs_link(server, run.experiment_id),
        "their charts": chart_link(server, run.experiment_id),
    }
    if len(others) > 1:
        links[heading] = compare_link(server, others, run.experiment_id)
    print("\n".join(f"  {name}:\n  {link}" for name, link in links.items()), flush=True)


def runs_link(server: str, experiment_id: str) -> str:
    """Link to the table of an experiment's runs in the MLflow UI."""
    return f"{server}/#/experiments/{experiment_id}/runs?{MODE}"


def chart_link(server: str, experiment_id: str) -> str:
    """Link to the charts of an experiment's runs in the MLflow UI.

    >>> chart_link("http://127.0.0.1:5000", "1")
    'http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning&compareRunsMode=CHART'
    """
    return f"{runs_link(server, experiment_id)}&compareRunsMode=CHART"


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
        raise InvalidInput(f"Keras cannot load {model!r}: {first_line(error)}") from error


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
        raise InvalidInput(f"MLflow has no model {uri!r}: {first_line(error)}") from error


def program(name: str) -> str:
    """Name a program of this environment so that it runs when it is copied into this shell."""
    path = Path(sys.executable).with_name(name)
    return name if shutil.which(name) == str(path) else shown(path)


def command(verb: str, without: Sequence[str] = (), **more: str) -> str:
    """Write the command of another recipe with the flags that this process was called with.

    Args:
        verb: The other recipe.
        without: Settings that it does not have.
        more: Settings to add, or in place of those given.

    >>> command("finetune", **{"full.learning_rate": "3e-4"}).partition(" -m ")[2]
    'tlkit.recipes.finetune --config FILE --full.learning_rate 3e-4'
    """
    called = Path(sys.argv[0])
    given = sys.argv[1:] if called.parent == Path(__file__).parent else ["--config", "FILE"]
    kept, dropped = [], False
    for word in given:
        if word.startswith("--"):
            dropped = word[2:].partition("=")[0] in (*without, *more)
        if not dropped:
            kept.append(shlex.quote(word))
    added = [f"--{name} {shlex.quote(value)}" for name, value in more.items()]
    return " ".join([program("python"), "-m", f"tlkit.recipes.{verb}", *kept, *added])


def shown(path: Path) -> str:
    """Write a path for the shell, the short way: relative where it is below the working folder."""
    return shlex.quote(os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path))
