"""Pretrain LetterNet on letters drawn from matplotlib's fonts, then probe it on handwritten digits.

python -m tlkit.recipes.pretrain --config recipes/pretrain/letters.yaml --output letternet
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit import autolog, cli
from tlkit.config import Pretrain
from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.recipes import _jobs, _links, _runs

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tlkit.data.letters import Glyphs

SHOTS = (1, 5, 10, 50)  # labelled photos of each digit that the probe learns from
SCALE = 16.0  # of the cosines, so that the softmax over them can come close to 0 and 1
HELD_OUT = 4096  # letters drawn for the validation
VALIDATION, EPOCHS = 1, 0  # two streams of random numbers that never meet

Score = tuple[float, float]
"""Accuracy of the probe over its draws: mean and standard deviation."""


def run(config: Pretrain) -> keras.Model:
    """Draw letters, train, probe, and write `letternet.weights.h5` and `letternet.md` into the output folder.

    Returns:
        The network without a head.

    Raises:
        InvalidInput: one of the two files exists, the output folder cannot be made or written to, or the fonts lack the
            alphabet.
    """
    began = _jobs.import_keras()
    weights, card = (Path(config.output, name) for name in ("letternet.weights.h5", "letternet.md"))
    _require_new(weights, card)
    import numpy as np

    from tlkit import runtime, tracking
    from tlkit.backbones.letternet import letternet
    from tlkit.data import letters
    from tlkit.progress import duration

    runtime.prepare(config.seed, "float32")
    tracking.open_store(config.experiment)
    glyphs = letters.glyphs(alphabet=config.alphabet)
    if len(glyphs.classes) < 2:
        raise InvalidInput(f"alphabet is {config.alphabet!r}: the fonts must draw two of its letters differently")
    say(f"{len(glyphs.labels):,} drawings of {len(glyphs.classes):,} letters in {len(set(glyphs.fonts))} fonts")
    network = letternet(weights="none")
    classifier = with_head(network, len(glyphs.classes))
    _compile(classifier, config)
    params = {name: value for name, value in dataclasses.asdict(config).items() if name not in ("experiment", "output")}
    tags = _runs.tags("pretrain", "LetterNet")
    with autolog.suspended(), tracking.run(config.experiment, params=params, tags=tags) as tracked:
        _fit(classifier, glyphs, config)
        images, labels = letters.draw(glyphs, HELD_OUT, np.random.default_rng((config.seed, VALIDATION)))
        accuracy = float(classifier.evaluate(images, labels, batch_size=512, verbose=0, return_dict=True)["accuracy"])
        seconds = time.perf_counter() - began
        say(f"validation accuracy on letters {accuracy:.3f}, after {duration(seconds)}")
        _save(network, weights)  # first of all: what follows only measures
        photos, digits = handwritten_digits()
        scores = probe(pooled(network, photos), digits, config.draws)
        say("\n".join(["", *table({"LetterNet": scores})]))
        card.write_text(_card(config, glyphs, accuracy, scores, seconds, weights), encoding="utf-8")
        probed = {f"probe_accuracy_{shot}": mean for shot, (mean, _) in zip(SHOTS, scores, strict=True)}
        tracking.log_metrics({"val_accuracy": accuracy, **probed}, step=config.epochs)
        for file in (weights, card):
            tracking.log_artifact(file)
    say(f"\n{_links.shown(weights)}\n{_links.shown(card)}\n\nNext:")
    say(f"  {_links.recipe('finetune')} --backbone.weights {_links.shown(weights)}")
    _links.print_links(tracked)
    return network


def with_head(network: keras.Model, classes: int) -> keras.Model:
    """Put a cosine classifier on a headless network: logits are scaled cosines of the features and the classes.

    What counts is a feature's direction alone, which makes features compact: a few labelled examples of a new class
    then show where it lies (Gidaris and Komodakis 2018, arXiv:1804.09458).

    Shapes:
        returns: a model from (batch, height, width, channels) to logits (batch, classes)
    """
    from keras import layers

    x = layers.GlobalAveragePooling2D(name="pool")(network.output)
    x = layers.UnitNormalization(name="unit")(x)
    x = layers.Rescaling(SCALE, name="sharpen")(x)
    return type(network)(network.input, layers.Dense(classes, name="head")(x))


def handwritten_digits() -> tuple[np.ndarray, np.ndarray]:
    """Give scikit-learn's digits as tlkit shows them to LetterNet.

    Shapes:
        returns: photos (1797, 32, 32, 1), uint8, and digits (1797,)
    """
    import numpy as np

    from tlkit.data import images, sources

    found = sources.embedded()
    photos = np.stack([images.decode(photo, size=(32, 32), channels=1) for photo in found.contents])
    return photos, np.array(found.labels)


def pooled(network: keras.Model, photos: np.ndarray) -> np.ndarray:
    """Average a headless network's output over all positions.

    Shapes:
        photos: (photos, height, width, channels), 0 to 255
        returns: (photos, features)
    """
    return network.predict(photos, batch_size=512, verbose=0).mean(axis=(1, 2))


def probe(
    features: np.ndarray, labels: np.ndarray, draws: int = 20, shots: Sequence[int] = SHOTS, seed: int = 0
) -> list[Score]:
    """Fit a logistic regression on a few labelled photos of each class and score it on all others.

    Each photo's features are scaled to unit length, which needs no second photo; nothing is tuned.

    Args:
        features: What is known of each photo.
        labels: The class of each photo.
        draws: Random choices of the labelled photos; a draw is the same for every network with the same seed.
        shots: Labelled photos of each class.
        seed: Of the choices.

    Shapes:
        features: (photos, features)
        labels: (photos,)

    >>> import numpy as np
    >>> probe(np.eye(2).repeat(9, 0), np.arange(2).repeat(9), draws=3, shots=[1, 5])
    [(1.0, 0.0), (1.0, 0.0)]
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import normalize

    directions = normalize(features.astype("float64"))
    found = []
    for shot in shots:
        accuracies = []
        for draw in range(draws):
            rng = np.random.default_rng((seed, shot, draw))
            known = [rng.choice(np.flatnonzero(labels == label), shot, replace=False) for label in np.unique(labels)]
            train = np.zeros(len(labels), bool)
            train[np.concatenate(known)] = True
            fitted = LogisticRegression(C=10, max_iter=1000).fit(directions[train], labels[train])
            accuracies.append(fitted.score(directions[~train], labels[~train]))
        found.append((float(np.mean(accuracies)), float(np.std(accuracies))))
    return found


def table(rows: dict[str, list[Score]], shots: Sequence[int] = SHOTS) -> list[str]:
    """Write scores as the lines of a Markdown table.

    >>> print("\\n".join(table({"LetterNet": [(0.9, 0.01)]}, shots=[5])))
    | labels a digit | 5 |
    | --- | --- |
    | LetterNet | 0.900 ± 0.010 |
    """
    head = f"| labels a digit | {' | '.join(map(str, shots))} |"
    cells = {name: [f"{mean:.3f} ± {spread:.3f}" for mean, spread in row] for name, row in rows.items()}
    lines = [f"| {name} | {' | '.join(row)} |" for name, row in cells.items()]
    return [head, "| --- " * (len(shots) + 1) + "|", *lines]


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
    """Draw an epoch's letters while the network learns from those of the epoch before; each has a seed of its own."""
    import numpy as np

    from tlkit.data import letters

    with ThreadPoolExecutor(1) as pool:
        ahead = [pool.submit(letters.draw, glyphs, config.letters, np.random.default_rng((config.seed, EPOCHS, 0)))]
        for epoch in range(1, config.epochs + 1):
            drawn = ahead.pop().result()
            if epoch < config.epochs:
                rng = np.random.default_rng((config.seed, EPOCHS, epoch))
                ahead.append(pool.submit(letters.draw, glyphs, config.letters, rng))
            yield drawn


def _require_new(*files: Path) -> None:
    for file in files:
        if file.exists():
            raise InvalidInput(f"{file} exists and is kept: give another folder with --output, or move the file away")
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
    partial = weights.with_name(".partial.weights.h5")  # Keras insists on the ending
    network.save_weights(partial)
    os.replace(partial, weights)  # whoever finds the file finds all of it


def _card(config: Pretrain, glyphs: Glyphs, accuracy: float, scores: list[Score], seconds: float, weights: Path) -> str:
    from importlib import metadata

    from tlkit import runtime
    from tlkit.backbones.letternet import PARAMETERS
    from tlkit.progress import duration

    versions = {**runtime.environment(), "matplotlib": metadata.version("matplotlib")}
    changed = [
        f"--{field.name} {value}"
        for field in dataclasses.fields(config)
        if (value := getattr(config, field.name)) != field.default and field.name != "output"
    ]
    drawn = len(glyphs.labels)
    return f"""# LetterNet

A residual network of {PARAMETERS:,} parameters, pretrained on letters. Input: raw pixels from 0 to 255, white ink on
black, one channel. Output: a feature map of 128 channels. `tlkit.backbones.letternet.letternet()` builds it.

| | |
| --- | --- |
| file | `{weights.name}`, {weights.stat().st_size:,} bytes |
| SHA-256 | `{hashlib.sha256(weights.read_bytes()).hexdigest()}` |
| command | `{" ".join(["python -m tlkit.recipes.pretrain", *changed])}` |
| seed | {config.seed} |
| learned from | {config.epochs} epochs of {config.letters:,} letters, each drawn anew |
| time | {duration(seconds)} on {os.cpu_count()} cores |
| validation accuracy | {accuracy:.3f} on {HELD_OUT:,} letters: the same drawings, newly distorted |
| versions | {", ".join(f"{name} {version}" for name, version in versions.items())} |

## Data

{drawn:,} drawings of {len(glyphs.classes):,} classes of letters (letters of the same form are one class) from
{len(set(glyphs.fonts))} fonts: {", ".join(sorted(set(glyphs.fonts)))}.
There is no digit among them, nor any letter drawn as a digit; no photo and nobody's handwriting was used.

The fonts come with matplotlib: DejaVu (Bitstream Vera and Arev licences), STIX (STIX Fonts licence) and Computer
Modern (BaKoMa licence). All three allow use without charge; the weights hold no font and no outline.

## What it is worth

Accuracy on scikit-learn's handwritten digits of a logistic regression on the features, averaged over all positions
and scaled to unit length. It learns from so many labelled photos of each digit, all others are the test; mean ±
standard deviation over {config.draws} choices of the labelled ones. For raw pixels and random weights see
`python benchmarks/letternet_probe.py`.

{chr(10).join(table({"LetterNet": scores}))}

The coarse resolution and the frame that letters fill imitate these digits, and a few settings were chosen by this very
measure: on other data expect less.
"""


if __name__ == "__main__":
    cli.main(Pretrain, run)
