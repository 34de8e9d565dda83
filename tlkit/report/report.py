"""What a report says, before it is written down."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tlkit.pages import data_uri
from tlkit.report.verdict import Verdict


class Score(NamedTuple):
    """A score.

    Args:
        name: In words.
        value: Of the model.
        interval: Its 95 % interval; None where it has none.
        beside: What a constant prediction scores; None where that is no matter.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None
    beside: float | None = None


class Mistake(NamedTuple):
    """An example that was classified wrongly.

    Args:
        name: Of its file.
        label: The right class.
        predicted: The predicted one.
        share: Its probability, or the example's loss where it may have several labels.
        picture: A data URI; "" where it cannot be drawn.
        heatmap: The picture under the heatmap of the predicted class, a data URI; "" where there is none.
    """

    name: str
    label: str
    predicted: str
    share: float
    picture: str
    heatmap: str = ""


class Chart(NamedTuple):
    """A picture.

    Args:
        title: What it shows.
        uri: A data URI.
        photos: Whether it shows photos, whose colors stay on a dark page.
        wide: Whether it is too wide for a phone, which then scrolls it.
    """

    title: str
    uri: str
    photos: bool = False
    wide: bool = False


class Report(NamedTuple):
    """What there is to say of a model on data; all texts are as they came, and escaped when they are written.

    Args:
        title: Name of the run.
        what: What was trained or tested on what, in a sentence.
        verdict: The answer to whether it is good enough.
        scores: The headline first.
        constant: What the score beside is of, such as "always 'cat'".
        split: Name of the scored split.
        kind: Name of the examples.
        classes: Scores of each class, as columns: see `evaluation.by_class`.
        counts: Number of examples of each split.
        data: What else there is to say of the data, a line each.
        leaks: What would falsify the scores, a line each; None where nothing was looked for.
        looked_for: As what that would be.
        worth: What the probabilities are worth, and what the split can tell: lines `name  text`.
        charts: By the part of the page that they belong to: `training`, `classes`, `worth`, `leaks`.
        mistakes: The worst first.
        wrong: Number of all mistakes.
        explained: How the heatmaps were made, or why there are none.
        trained: How long it took and what was kept, a line each.
        settings: With which it was made.
        environment: Versions of packages.
        repeat: The command that repeats it.
        use: Commands that use the model.
    """

    title: str
    what: str
    verdict: Verdict
    scores: Sequence[Score]
    constant: str
    split: str
    kind: str
    classes: Mapping[str, Sequence[object]]
    counts: Mapping[str, int]
    data: Sequence[str] = ()
    leaks: Sequence[str] | None = None
    looked_for: str = ""
    worth: Sequence[str] = ()
    charts: Mapping[str, Sequence[Chart]] = {}
    mistakes: Sequence[Mistake] = ()
    wrong: int = 0
    explained: str = ""
    trained: Sequence[str] = ()
    settings: Mapping[str, object] = {}
    environment: Mapping[str, str] = {}
    repeat: str = ""
    use: Sequence[str] = ()


PARTS = {
    "learning_curves.png": ("training", "Learning curves"),
    "regularization.png": ("training", "Strength of regularization, by cross-validation"),
    "tried.png": ("training", "What was tried, by held-out examples"),
    "confusion_matrix.png": ("classes", "Confusion matrix"),
    "calibration.png": ("worth", "Calibration, and accuracy against coverage"),
    "near_copies.png": ("leaks", "Near copies"),
}
"""Pictures of a run that its report has, with the part of the page and the title."""
WIDE = 1.5  # of its height: the width from which a picture has parts side by side


def charts_of(pictures: Mapping[str, bytes]) -> dict[str, list[Chart]]:
    """Sort a run's pictures, PNG by file name, into the parts of a report."""
    found: dict[str, list[Chart]] = {}
    for name, (part, title) in PARTS.items():
        if name in pictures:
            uri = data_uri("image/png", pictures[name])
            width, height = struct.unpack(">II", pictures[name][16:24])  # where PNG has them
            wide = width > (2 if part == "leaks" else 1) * WIDE * height
            found.setdefault(part, []).append(Chart(title, uri, part == "leaks", wide))
    return found
