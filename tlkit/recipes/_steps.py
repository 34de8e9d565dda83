"""What the training recipes share on the way to a model: settings, photos, features, learning rates."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tlkit import config as configs
from tlkit.display import called, say
from tlkit.errors import InvalidInput, Undecodable

if TYPE_CHECKING:
    import keras

    from tlkit import data, features, training
    from tlkit.features import store
    from tlkit.training import finder

HEAD_EPOCHS = 30  # of a head that is not solved
SOLVABLE = 10**6  # weights of a head: solving one of more takes gigabytes
AnyConfig = configs.Recipe | configs.TrainGraph
Config = TypeVar("Config", bound=AnyConfig)
AnyFinetune = TypeVar("AnyFinetune", bound=configs.Finetune)
AnyTraining = TypeVar("AnyTraining", configs.Finetune, configs.Train)


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
    from tlkit import runtime
    from tlkit.tracking import registry

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
    if data.path and "\\" in data.path:  # as the config of a run has it
        from tlkit.data.sources import Files

        data = dataclasses.replace(data, path=str(Files(Path()).find(data.path)))
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
    if isinstance(config, configs.Finetune) and config.full.batch_normalization is None:
        normalization: Any = "train" if weights == "none" else "inference"
        config = dataclasses.replace(config, full=dataclasses.replace(config.full, batch_normalization=normalization))
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
    from tlkit.features.store import GB, Store

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
    say(f"features of {count:,} photos ({extractor.label}): {kept}{computed}")
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
    if not examples.modality.pretrained:
        raise InvalidInput(
            f"data.path is {config.path!r}, which holds {examples.kind}; a pretrained backbone takes photos: train a "
            f"network of your own with {called('train')}"
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
    quiet: bool = False,
) -> data.Splits:
    """Read, check and split what was listed, and say what was found."""
    from tlkit import data

    chosen = {name: getattr(config, name) for name in ("val_fraction", "test_fraction", "val_as_test", "strict")}
    found = data.load(examples, **chosen, seconds=config.seconds, size=size, channels=channels, check=check)
    if not quiet:
        say(f"{counted(found)}; {' x '.join(map(str, found.train.shape))}")
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
    from tlkit.training import losses

    return losses.balanced(splits.train.labels, len(splits.classes)) if config.balance == "weights" else None


def with_batch_size(config: AnyTraining, model: keras.Model, splits: data.Splits) -> AnyTraining:
    """Find out the batch where it is `auto`, and bring learning rates that are numbers in proportion to it."""
    if config.batch_size != "auto":
        return config
    from tlkit import training
    from tlkit.training import memory

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
        if part and part.epochs and part.learning_rate != "auto":
            scale = memory.scaled_rate(1.0, examples, config.optimizer)
            changed[name] = dataclasses.replace(part, learning_rate=part.learning_rate * scale)
            if rates := getattr(part, "learning_rates", None):
                by_stage = {stage: rate * scale for stage, rate in rates.items()}
                changed[name] = dataclasses.replace(changed[name], learning_rates=by_stage)
    say(f"batch_size: {found}")
    return dataclasses.replace(config, **changed)


def with_rates(config: Any, model: keras.Model, splits: data.Splits, seen: Any = None) -> Any:
    """Find out learning rates that are `auto`, by range tests after which the model is as it was.

    Args:
        config: Of the recipe.
        model: Whose backbone, where it has one, is trainable as in phase full.
        splits: The photos.
        seen: Pooled features of the training photos, where there is a phase head.
    """
    from tlkit.training import variables

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
        unfreeze(config, model, stages_of(config)[-1])
        stages = backbones.row(name).stages
    augment = changes(config.augment) or None
    return training.range_test_full(
        model, splits.train, tested, seed=config.seed, augment=augment, stages=stages, **more
    )


def stages_of(config: configs.Finetune) -> list[str | None]:
    """From which stage on the network learns, phase by phase."""
    given = config.full.unfreeze_from
    return list(given) if isinstance(given, list) else [given]


def check_stages(config: configs.Finetune) -> None:
    """Refuse stages that the backbone does not have, that come in another order, or that have rates and are frozen.

    Raises:
        InvalidInput: the message has the names that there are.
    """
    from tlkit import backbones

    known = list(backbones.row(config.backbone.name).stages)
    stages, rates = [stage for stage in stages_of(config) if stage], config.full.learning_rates or {}
    for setting, names, allowed in (
        ("full.unfreeze_from", stages, known),
        ("full.learning_rates", rates, [*known, "head"]),
    ):
        for name in names:
            if name not in allowed:
                there = ", ".join(allowed) or "none"
                raise InvalidInput(f"{setting}: stage {name!r} is unknown: {config.backbone.name} has {there}")
    places = [known.index(stage) for stage in stages]
    if any(upper <= lower for upper, lower in itertools.pairwise(places)):
        ordered = ", ".join(sorted(set(stages), key=known.index, reverse=True))
        raise InvalidInput(f"full.unfreeze_from is {stages}; each is to add lower stages: give [{ordered}]")
    for name in rates:
        if places and name != "head" and known.index(name) < places[-1]:
            raise InvalidInput(
                f"full.learning_rates has {name}, which is frozen: full.unfreeze_from is {stages[-1]}; leave one out"
            )


def check_balance(config: configs.Training, examples: data.Examples) -> None:
    """Refuse to draw alike often what may have several labels."""
    if config.balance == "sampling" and examples.multi_label:
        raise InvalidInput(
            "balance is 'sampling', but examples that may have several labels cannot be drawn so: give --balance "
            "weights, or leave it out"
        )


def check_updates(config: configs.Training, splits: data.Splits) -> None:
    """Refuse gradients that are summed up over more batches than there are: nothing would ever be learnt."""
    for name in ("head", "full"):
        phase = getattr(config, name, None)
        parts = len(stages_of(config)) if name == "full" and isinstance(config, configs.Finetune) else 1
        epochs = (phase.epochs or 0) // parts if phase else 0  # of the shortest part, which begins to sum up anew
        batches = epochs * math.ceil(len(splits.train) / batch_size(config))
        if 0 < batches < config.gradient_accumulation_steps:
            raise InvalidInput(
                f"gradient_accumulation_steps is {config.gradient_accumulation_steps}, but phase {name} has no more "
                f"than {batches} batches: give {batches} or less"
            )


def classifier(config: configs.Finetune, backbone: keras.Model, examples: data.Examples) -> keras.Model:
    """Put a head on the backbone, and make trainable what phase full trains at last."""
    from tlkit import backbones

    given = {"multi_label": examples.multi_label}
    model = backbones.classifier(backbone, len(examples.classes), config.head.dropout, **given)
    for stage in stages_of(config):
        unfreeze(config, model, stage)
    return model


def unfreeze(config: configs.Finetune, model: keras.Model, stage: str | None) -> None:
    """Make the backbone trainable from a stage on, its BatchNormalization as the config has it."""
    from tlkit import backbones

    normalization = config.full.batch_normalization or "inference"  # None has been completed
    backbones.unfreeze(model, config.backbone.name, stage, normalization)


def with_head(config: AnyFinetune, model: keras.Model, examples: data.Examples) -> AnyFinetune:
    """Decide how the head is found, where that is left open.

    Raises:
        InvalidInput: it is to be solved, which cannot be; or nothing at all is to be done; or it is solved and not
            trained, and has settings of its training; or it is solved first, and its rate is to be found out.
    """
    head, plain, balanced = config.head, configs.Head(), config.balance != "none"
    solved, epochs = head.solved, head.epochs
    if solved is None:
        small = math.prod(model.get_layer("head").kernel.shape) <= SOLVABLE
        solved = small and not examples.multi_label and not balanced
    elif solved and (examples.multi_label or balanced):
        why = "a photo may have several labels" if examples.multi_label else f"balance is {config.balance}"
        raise InvalidInput(f"head.solved is true, but {why}, which logistic regression does not know: leave it out")
    if epochs is None:
        epochs = 0 if solved else HEAD_EPOCHS
    if not (solved or epochs or config.full.epochs):
        raise InvalidInput("the head is not solved here, and the number of epochs is 0: give --head.epochs")
    if solved and not epochs:
        for name in ("learning_rate", "warmup", "patience", "schedule"):
            if (given := getattr(head, name)) != getattr(plain, name):
                raise InvalidInput(
                    f"head.{name} is {given}, but the head is solved and not trained: give --head.epochs {HEAD_EPOCHS} "
                    "or --head.solved false too, or leave it out"
                )
    if solved and epochs and head.learning_rate == "auto":
        raise InvalidInput(
            "head.learning_rate is 'auto', but the head is solved first, after which the loss falls at no rate: give a "
            "number, or --head.solved false"
        )
    return dataclasses.replace(config, head=dataclasses.replace(head, solved=solved, epochs=epochs))


def _with_rate(phase: Any, found: float | None, name: str) -> Any:
    rate = found or type(phase)().learning_rate
    why = "by a range test" if found else "the default, as in a range test the loss fell at no rate"
    say(f"{name}: learning rate {rate:.2g}, {why}")
    return dataclasses.replace(phase, learning_rate=rate)


def changes(augment: configs.Augment) -> dict[str, Any]:
    """Give what `data.batches` takes to change training examples; nothing where augmentation is off."""
    from tlkit import data

    return data.switched_on({name: value for name, value in dataclasses.asdict(augment).items() if name != "views"})


def check_tta(config: configs.Training) -> None:
    """Refuse views of test photos that are all the photo itself."""
    if config.tta and not set(changes(config.augment)) - {"mixup", "cutmix"}:  # type: ignore[attr-defined]
        raise InvalidInput(f"tta is {config.tta}, but no change of single photos is on in --augment: leave tta out")
