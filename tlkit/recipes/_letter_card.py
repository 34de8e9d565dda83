"""The card of LetterNet's weights: how they were made, from what, and what they are worth."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tlkit.config import Pretrain
from tlkit.recipes import _letter_probe

if TYPE_CHECKING:
    from tlkit.data.letters import Glyphs


class Measured(NamedTuple):
    """What was measured of a pretrained network.

    Args:
        letters: Number of letters drawn for the validation.
        accuracy: Accuracy on them.
        scores: Scores of the probe on handwritten digits.
        seconds: Time for the training.
    """

    letters: int
    accuracy: float
    scores: list[_letter_probe.Score]
    seconds: float


def card(config: Pretrain, glyphs: Glyphs, measured: Measured, weights: Path) -> str:
    """Write the card in Markdown.

    Args:
        config: The settings of the pretraining.
        glyphs: The letters that were learned.
        measured: What the network is worth.
        weights: Its file.
    """
    from tlkit import runtime
    from tlkit.backbones.letternet import PARAMETERS
    from tlkit.progress import duration

    versions = {**runtime.environment(), "matplotlib": metadata.version("matplotlib")}
    flags = [
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
| command | `{" ".join(["python -m tlkit.recipes.pretrain", *flags])}` |
| seed | {config.seed} |
| learned from | {config.epochs} epochs of {config.letters:,} letters, each drawn anew |
| time | {duration(measured.seconds)} on {os.cpu_count()} cores |
| validation accuracy | {measured.accuracy:.3f} on {measured.letters:,} letters: the same drawings, newly distorted |
| versions | {", ".join(f"{name} {version}" for name, version in versions.items())} |

## Data

{drawn:,} drawings of {len(glyphs.classes):,} classes of letters (letters of the same form are one class) from
{len(set(glyphs.fonts))} fonts: {", ".join(sorted(set(glyphs.fonts)))}.
There is no digit among them, nor any letter drawn as a digit; no photo and nobody's handwriting was used.

The fonts come with matplotlib: DejaVu (Bitstream Vera and Arev licenses), STIX (STIX Fonts license) and Computer
Modern (BaKoMa license). All three allow use without charge; the weights hold no font and no outline.

## What it is worth

Accuracy on scikit-learn's handwritten digits of a logistic regression on the features, averaged over all positions
and scaled to unit length. Each column gives the number of labeled photos per digit; all others are the test set.
Mean ± standard deviation over {config.draws} choices of the labeled ones. For raw pixels and random weights see
`python benchmarks/letternet_probe.py`.

{chr(10).join(_letter_probe.table({"LetterNet": measured.scores}))}

The coarse resolution and the frame that letters fill imitate these digits, and a few settings were chosen by this very
measure: on other data expect less.
"""
