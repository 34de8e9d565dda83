"""What `predict` found out about all photos together, and how it is printed."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from tlkit.display import cut, say, shown
from tlkit.errors import InvalidInput
from tlkit.recipes import _links

UNSURE = "unsure"
"""The label of a photo whose highest probability is below the threshold."""

NO_LABEL = "no label"
"""What is printed for photos without a label, of a multi-label model."""

NAMED = 10  # photos that are printed because they cannot be read
LABELS = 20  # labels that are printed with their counts
WIDEST = 40  # letters of a label


@dataclasses.dataclass
class Predicted:
    """What a model says about photos.

    Args:
        rankings: For each photo whose answer is printed, the labels with the highest probabilities, the highest first.
            Of a multi-label model, these include all labels with a probability above 0.5.
        counts: Number of photos by label; of a multi-label model a photo counts for each of its labels.
        sums: Sum of the probabilities of these labels.
        answered: Number of photos that have an answer.
        unread: Number of photos that could not be read.
        problems: The first of these, each with the reason.
    """

    rankings: list[list[tuple[str, float]]] = dataclasses.field(default_factory=list)
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    sums: dict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    answered: int = 0
    unread: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)

    @property
    def exit_status(self) -> int:
        """Of the command: 3 where a photo could not be read."""
        return 3 if self.unread else 0

    def add(self, labels: Sequence[tuple[str, float]]) -> None:
        """Count a photo with its labels."""
        self.answered += 1
        for label, share in labels:
            self.counts[label] += 1
            self.sums[label] += share

    def add_unread(self, photo: str, error: str) -> None:
        """Count a photo that cannot be read."""
        self.unread += 1
        if len(self.problems) < NAMED:
            self.problems.append(f"{shown(photo)}: {shown(error)}")


def print_answer(photo: str, ranking: Sequence[tuple[str, float]], several: bool, unsure: bool) -> None:
    """Print the labels of a photo with their probabilities."""
    texts = [UNSURE] if unsure else []
    texts += [f"{shown(label)}{'*' if several and share > 0.5 else ''} {share:.4f}" for label, share in ranking]
    say(f"{shown(photo)}  " + "  ".join(texts))


def print_unread(predicted: Predicted) -> None:
    """Name the first photos that could not be read."""
    if predicted.unread:
        more = predicted.unread - len(predicted.problems)
        lines = [f"photos that could not be read ({predicted.unread:,}):", *predicted.problems]
        say("\n".join([*lines, f"and {more:,} more"] if more else lines), error=True)


def print_counts(predicted: Predicted) -> None:
    """Print how many photos have each label, the most frequent first."""
    unread = f", and {predicted.unread:,} that could not be read" if predicted.unread else ""
    say(f"{predicted.answered:,} photos{unread}")
    labels = predicted.counts.most_common(LABELS)
    width = max((len(cut(shown(label), WIDEST)) for label, _ in labels), default=0)
    for label, count in labels:
        share, mean = count / predicted.answered, predicted.sums[label] / count
        say(f"  {cut(shown(label), WIDEST):{width}}  {count:>9,}  {share:6.1%}  mean probability {mean:.3f}")
    if rest := len(predicted.counts) - len(labels):
        say(f"  and {rest:,} other labels")


def print_end(predicted: Predicted, output: str | None) -> None:
    """Print where the answers are, or how to get them."""
    if output:
        problems = f", {predicted.unread:,} of them with an error" if predicted.unread else ""
        say(f"table  {_links.shown(Path(output).absolute())}: {predicted.answered + predicted.unread:,} rows{problems}")
    else:
        say("\nNext: --output predictions.csv (or .jsonl, .parquet) writes the answer for each photo.")


def check_threshold(threshold: float, classes: Sequence[str], several: bool) -> None:
    """Refuse a threshold where its word could be mistaken, or says nothing.

    Raises:
        InvalidInput: the model gives several labels, or has a class of that name.
    """
    if several:
        raise InvalidInput(
            f"threshold is {threshold}, and the model gives a photo any number of labels, or none: leave it out, and "
            "look at the probabilities in the table that --output writes"
        )
    if same := [name for name in classes if name.strip().casefold() == UNSURE]:
        raise InvalidInput(
            f"threshold is {threshold}, which labels photos {UNSURE!r}, and so does the model's class "
            f"{same[0]!r}: leave it out"
        )
