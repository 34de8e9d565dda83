"""What `predict` found out about all photos together, and how it is printed."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit.display import cut, say, shown
from tlkit.errors import InvalidInput
from tlkit.recipes import _links

if TYPE_CHECKING:
    from tlkit.evaluation.abstention import Abstention
    from tlkit.serving import Answer

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
        novel: Number of photos that are like nothing that the model has learned from; None if it cannot tell.
        unread: Number of photos that could not be read.
        problems: The first of these, each with the reason.
    """

    rankings: list[list[tuple[str, float]]] = dataclasses.field(default_factory=list)
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    sums: dict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    answered: int = 0
    novel: int | None = None
    unread: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)

    @property
    def exit_status(self) -> int:
        """Of the command: 3 where a photo could not be read."""
        return 3 if self.unread else 0

    def add(self, labels: Sequence[tuple[str, float]], novel: bool | None = None) -> None:
        """Count a photo with its labels."""
        self.answered += 1
        if novel is not None:
            self.novel = (self.novel or 0) + novel
        for label, share in labels:
            self.counts[label] += 1
            self.sums[label] += share

    def add_unread(self, photo: str, error: str) -> None:
        """Count a photo that cannot be read."""
        self.unread += 1
        if len(self.problems) < NAMED:
            self.problems.append(f"{shown(photo)}: {shown(error)}")


def print_answer(photo: str, answer: Answer, ranking: Sequence[tuple[str, float]], several: bool) -> None:
    """Print the labels of a photo with their probabilities, and what else the model says."""
    from tlkit.serving import NOVEL, UNSURE

    texts = [UNSURE] if answer.label == UNSURE and not several else []
    texts += [f"{shown(label)}{'*' if several and share > 0.5 else ''} {share:.4f}" for label, share in ranking]
    if answer.label_set is not None:
        texts.append(f"one of {{{', '.join(map(shown, answer.label_set))}}}")
    texts += [NOVEL] if answer.novel else []
    say(f"{shown(photo)}  " + "  ".join(texts))


def print_assumed(abstention: Abstention) -> None:
    """Print what the model came with: when it says no single class."""
    if abstention.threshold is not None and abstention.target_accuracy is not None:
        promise = f"so that {abstention.target_accuracy:.1%} of the others are right"
        say(f"below a probability of {abstention.threshold:.4g} the label is unsure, {promise}", error=True)
    if abstention.set_coverage is not None:
        say(f"in {{}}: labels one of which is right for {abstention.set_coverage:.1%} of the photos", error=True)


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
    if predicted.novel is not None:
        from tlkit.probes.novelty import FALSE_ALARMS

        novel = f"{predicted.novel:,} ({predicted.novel / max(predicted.answered, 1):.1%})"
        say(f"  {novel} are like none of the classes; about {FALSE_ALARMS:.0%} of photos of the classes are, too")


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
    check_unsure(f"threshold is {threshold}", classes)


def check_unsure(received: str, classes: Sequence[str]) -> None:
    """Refuse a class whose name is the word for an answer that is none.

    Raises:
        InvalidInput: with what was received.
    """
    from tlkit.serving import UNSURE

    if same := [name for name in classes if name.strip().casefold() == UNSURE]:
        raise InvalidInput(
            f"{received}, which labels photos {UNSURE!r}, and so does the model's class {same[0]!r}: leave it out"
        )
