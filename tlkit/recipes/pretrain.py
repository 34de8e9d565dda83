"""Pretrain LetterNet on letters drawn from matplotlib's fonts, then probe it on handwritten digits.

python -m tlkit.recipes.pretrain --config recipes/pretrain/letters.yaml --output letternet
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit import autolog, cli
from tlkit.config import Pretrain
from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.recipes import _jobs, _letter_card, _letter_probe, _links, _runs
from tlkit.recipes._letter_probe import SHOTS, handwritten_digits, pooled, probe, table

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tlkit.data.letters import Glyphs

__all__ = ["SHOTS", "handwritten_digits", "pooled", "probe", "run", "table", "with_head"]

HELD_OUT = 4096  # letters drawn for the validation
SCALE = 16.0  # of the cosines, so that the softmax over them can come close to 0 and 1
VALIDATION, EPOCHS = 1, 0  # two streams of random numbers that never meet


def run(config: Pretrain) -> keras.Model:
    """Draw letters, train, probe, and write `letternet.weights.h5` and `letternet.md` into the output folder.

    Returns:
        The network without a head.

    Raises:
        InvalidInput: one of the two files exists, the output folder cannot be made or written to, or the fonts lack the
            alphabet.
    """
    began = _jobs.start_keras()
    weights, card = (Path(config.output, name) for name in ("letternet.weights.h5", "letternet.md"))
    _require_new(weights, card)
    from tlkit import runtime, tracking
    from tlkit.backbones.letternet import letternet

    runtime.prepare(config.seed, "float32")
    tracking.open_store(config.experiment)
    glyphs = _glyphs(config)
    network = letternet(weights="none")
    classifier = with_head(network, len(glyphs.classes))
    _compile(classifier, config)
    params = {name: value for name, value in dataclasses.asdict(config).items() if name not in ("experiment", "output")}
    tags = _runs.tags("pretrain", "LetterNet")
    title = "pretrain LetterNet"
    with autolog.suspended(), tracking.run(config.experiment, params=params, tags=tags, title=title) as tracked:
        _fit(classifier, glyphs, config)
        accuracy, seconds = _validate(classifier, glyphs, config), time.perf_counter() - began
        _print_validation(accuracy, seconds)
        _save(network, weights)  # first of all: what follows only measures
        scores = _probe(network, config)
        measured = _letter_card.Measured(HELD_OUT, accuracy, scores, seconds)
        card.write_text(_letter_card.card(config, glyphs, measured, weights), encoding="utf-8")
        _log(config, measured, weights, card)
    say(f"\n{_links.shown(weights)}\n{_links.shown(card)}\n\nNext:")
    say(f"  {_links.recipe('finetune')} --backbone.weights {_links.shown(weights)}")
    _links.print_links(tracked)
    return network


def with_head(network: keras.Model, classes: int) -> keras.Model:
    """Put a cosine classifier on a headless network: logits are scaled cosines of the features and the classes.

    Only the direction of the features counts, which makes them compact: a few labeled examples of a new class then
    show where it lies (Gidaris and Komodakis 2018, arXiv:1804.09458).

    Shapes:
        returns: a model from (batch, height, width, channels) to logits (batch, classes)
    """
    from keras import layers

    x = layers.GlobalAveragePooling2D(name="pool")(network.output)
    x = layers.UnitNormalization(name="unit")(x)
    x = layers.Rescaling(SCALE, name="sharpen")(x)
    return type(network)(network.input, layers.Dense(classes, name="head")(x))


def _glyphs(config: Pretrain) -> Glyphs:
    """Find the letters of the alphabet in the fonts, and print how many there are.

    Raises:
        InvalidInput: the fonts draw fewer than two of them differently.
    """
    from tlkit.data import letters

    glyphs = letters.glyphs(alphabet=config.alphabet)
    if len(glyphs.classes) < 2:
        raise InvalidInput(f"alphabet is {config.alphabet!r}: the fonts must draw two of its letters differently")
    say(f"{len(glyphs.labels):,} drawings of {len(glyphs.classes):,} letters in {len(set(glyphs.fonts))} fonts")
    return glyphs


def _compile(classifier: keras.Model, config: Pretrain) -> None:
    import keras

    from tlkit import runtime
    from tlkit.training import losses, schedules

    steps = config.epochs * -(-config.letters // config.batch_size)
    classifier.compile(
        keras.optimizers.AdamW(schedules.cosine(config.learning_rate, 0.1, steps), weight_decay=config.weight_decay),
        losses.crossentropy(label_smoothing=config.label_smoothing),
        metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
        jit_compile=runtime.jit_compile(),
    )


def _fit(classifier: keras.Model, glyphs: Glyphs, config: Pretrain) -> None:
    """Train, and print and log each epoch."""
    from tlkit import tracking
    from tlkit.progress import duration

    began = time.perf_counter()
    for epoch, (images, labels) in enumerate(_epochs(glyphs, config), 1):
        history = classifier.fit(images, labels, batch_size=config.batch_size, shuffle=False, verbose=0).history
        left = (time.perf_counter() - began) / epoch * (config.epochs - epoch)
        say(
            f"epoch {epoch}/{config.epochs}  loss {history['loss'][0]:.3f}  accuracy {history['accuracy'][0]:.3f}  "
            f"{duration(left)} left"
        )
        tracking.log_metrics({name: values[0] for name, values in history.items()}, step=epoch)


def _epochs(glyphs: Glyphs, config: Pretrain) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draw each epoch's letters, with a seed of its own, while the network learns from those of the epoch before."""
    import numpy as np

    from tlkit.data import letters

    with ThreadPoolExecutor(1) as pool:
        pending = [pool.submit(letters.draw, glyphs, config.letters, np.random.default_rng((config.seed, EPOCHS, 0)))]
        for epoch in range(1, config.epochs + 1):
            letters_drawn = pending.pop().result()
            if epoch < config.epochs:
                rng = np.random.default_rng((config.seed, EPOCHS, epoch))
                pending.append(pool.submit(letters.draw, glyphs, config.letters, rng))
            yield letters_drawn


def _validate(classifier: keras.Model, glyphs: Glyphs, config: Pretrain) -> float:
    """Measure the accuracy on newly drawn letters."""
    import numpy as np

    from tlkit.data import letters

    images, labels = letters.draw(glyphs, HELD_OUT, np.random.default_rng((config.seed, VALIDATION)))
    return float(classifier.evaluate(images, labels, batch_size=512, verbose=0, return_dict=True)["accuracy"])


def _print_validation(accuracy: float, seconds: float) -> None:
    from tlkit.progress import duration

    say(f"validation accuracy on letters {accuracy:.3f}, after {duration(seconds)}")


def _probe(network: keras.Model, config: Pretrain) -> list[_letter_probe.Score]:
    """Probe the features on handwritten digits, and print the scores."""
    photos, digits = handwritten_digits()
    scores = probe(pooled(network, photos), digits, config.draws)
    say("\n".join(["", *table({"LetterNet": scores})]))
    return scores


def _log(config: Pretrain, measured: _letter_card.Measured, *files: Path) -> None:
    """Log the scores and the files."""
    from tlkit import tracking

    probed = {f"probe_accuracy_{shot}": mean for shot, (mean, _) in zip(SHOTS, measured.scores, strict=True)}
    tracking.log_metrics({"val_accuracy": measured.accuracy, **probed}, step=config.epochs)
    for file in files:
        tracking.log_artifact(file)


def _require_new(*files: Path) -> None:
    """Refuse files that exist, and make their folder.

    Raises:
        InvalidInput: one exists, or the folder cannot be made or written to.
    """
    for file in files:
        if file.exists():
            raise InvalidInput(
                f"{file} exists and is not overwritten: give another folder with --output, or move the file away"
            )
    try:
        files[0].parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"output is {str(files[0].parent)!r}: cannot be made a folder: {error}") from error
    try:
        tempfile.NamedTemporaryFile(dir=files[0].parent).close()
    except OSError as error:
        raise InvalidInput(
            f"output is {str(files[0].parent)!r}: no file can be written there ({error.strerror}); give another folder"
        ) from error


def _save(network: keras.Model, weights: Path) -> None:
    """Write the weights, so that the file is never half written."""
    partial = weights.with_name(".partial.weights.h5")  # Keras insists on the ending
    network.save_weights(partial)
    os.replace(partial, weights)


if __name__ == "__main__":
    cli.main(Pretrain, run)
