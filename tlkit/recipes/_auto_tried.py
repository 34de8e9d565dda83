"""What `auto` has tried: held-out predictions of each, the choice between them, and the table."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tlkit.display import say

if TYPE_CHECKING:
    import numpy as np

    from tlkit import data
    from tlkit.backbones import JoinedHead
    from tlkit.recipes._auto_networks import Network

LEAST = 1e-5  # probability of a label from which the loss of a photo grows no more: one mistake does not decide
EQUAL = 0.25  # standard errors of a difference that is none
FOLDS, HELD = "cross-validation", "validation"  # what scores: all photos but the test's by folds; or the validation's


class Held(NamedTuple):
    """The photos that score.

    Args:
        by: `FOLDS` or `HELD`.
        labels: Shape (photos,).
        groups: What is independent of one another, one for each photo.
    """

    by: str
    labels: np.ndarray
    groups: Sequence[str]

    def losses(self, probabilities: np.ndarray) -> np.ndarray:
        """Compute the log loss of each photo."""
        import numpy as np

        right = probabilities[np.arange(len(self.labels)), self.labels]
        losses: np.ndarray = -np.log(np.maximum(right, LEAST, dtype=np.float64))
        return losses

    def accuracy(self, probabilities: np.ndarray) -> float:
        """Compute the share of photos whose most probable label is right."""
        import numpy as np

        return float(np.mean(probabilities.argmax(1) == self.labels))


@dataclasses.dataclass(frozen=True, eq=False)
class Tried:
    """Something that could become the model, and how it predicts photos that it did not learn from.

    Args:
        name: For people.
        networks: Those that it needs, each once.
        heads: Of the model: their mean is its prediction. Empty for what is only scored.
        probabilities: Shape (photos, classes), of the photos that score.
        held: The photos that score.
        seconds: What trying took.
        run_id: Of its run in MLflow.
    """

    name: str
    networks: tuple[Network, ...]
    heads: tuple[JoinedHead, ...]
    probabilities: np.ndarray
    held: Held
    seconds: float
    run_id: str = ""

    def predict(self, photos: data.Photos) -> np.ndarray:
        """Predict the probabilities of photos, from the features of each network: as the model does, to rounding."""
        import numpy as np

        from tlkit.probes.problem import softmax

        taken = zip(self.heads, self.features(photos), strict=True)
        outputs = [softmax(features @ head.kernel + head.bias) for head, features in taken]
        mean: np.ndarray = np.mean(outputs, axis=0)
        return mean

    def features(self, photos: data.Photos) -> list[np.ndarray]:
        """Compute what each head takes of photos, (photos, features)."""
        import numpy as np

        from tlkit.data import Mirrored

        found: dict[tuple[int, bool], np.ndarray] = {}
        for network, mirrored in self._views:
            found[id(network.model), mirrored] = network.features(Mirrored(photos) if mirrored else photos)
        inputs = []
        for head in self.heads:
            parts = [found[id(model), False] for model in head.backbones]
            if head.mirrored:
                parts = [(part + found[id(model), True]) / 2 for part, model in zip(parts, head.backbones, strict=True)]
            inputs.append(np.concatenate(parts, axis=1))
        return inputs

    @property
    def _views(self) -> list[tuple[Network, bool]]:
        """Each network, and where a head of it asks for that, the network once more for the mirror image."""
        return [
            (network, mirrored)
            for network, mirrored in itertools.product(self.networks, (False, True))
            if any(head.mirrored or not mirrored for head in self.heads if _uses(head, network))
        ]

    @property
    def passes(self) -> list[Network]:
        """Its networks, each as often as it is computed for a photo."""
        return [network for network, _ in self._views]

    @property
    def losses(self) -> np.ndarray:
        """The log loss of each photo."""
        return self.held.losses(self.probabilities)

    @property
    def loss(self) -> float:
        """Mean log loss."""
        return float(self.losses.mean())

    @property
    def accuracy(self) -> float:
        """Share of photos that are right."""
        return self.held.accuracy(self.probabilities)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy."""
        from tlkit import evaluation

        right = self.probabilities.argmax(1) == self.held.labels
        groups = self.held.groups if len(set(self.held.groups)) < len(right) else None
        return evaluation.accuracy_interval(right, groups)

    @property
    def cost(self) -> tuple[float, int]:
        """What orders models from the simplest on: estimated seconds for one photo, then the number of heads."""
        return sum(network.cost for network in self.passes), len(self.heads)


def _uses(head: JoinedHead, network: Network) -> bool:
    return any(model is network.model for model in head.backbones)


class LeftOut(NamedTuple):
    """Something that was not tried, and why."""

    name: str
    reason: str


def choose(tried: Sequence[Tried]) -> tuple[Tried, str]:
    """Choose the model of the lowest log loss, or a simpler one that is practically as good; say why.

    That is the simplest whose log loss is within a quarter of a standard error of the lowest; the error is that of the
    paired difference. Of equally simple ones the first counts as the simplest.

    Args:
        tried: All scored by the same photos.
    """
    from tlkit import evaluation

    best = min(tried, key=lambda each: each.loss)
    for each in sorted(tried, key=lambda each: each.cost):
        difference = each.losses - best.losses
        if each is not best and difference.mean() <= EQUAL * evaluation.standard_error(difference, each.held.groups):
            close = f"log loss {each.loss:.3f} is practically {best.name}'s {best.loss:.3f}"
            return each, f"{close}, and it is simpler"
        if each is best:
            break
    rest = [each for each in tried if each is not best]
    beside = (
        f"; that of {(next_best := min(rest, key=lambda each: each.loss)).name} is {next_best.loss:.3f}" if rest else ""
    )
    return best, f"the lowest log loss, {best.loss:.3f}{beside}"


def beats(new: Tried, old: Tried) -> bool:
    """Tell whether a model is better than a simpler one, by more than one standard error of the paired difference."""
    from tlkit import evaluation

    difference = old.losses - new.losses
    return bool(difference.mean() > evaluation.standard_error(difference, old.held.groups))


def columns(tried: Sequence[Tried]) -> dict[str, list[object]]:
    """Give the table of what was tried, column by column."""
    return {
        "tried": [each.name for each in tried],
        "scored_by": [each.held.by for each in tried],
        "photos": [len(each.held.labels) for each in tried],
        "accuracy": [each.accuracy for each in tried],
        "log_loss": [each.loss for each in tried],
        "seconds": [round(each.seconds, 1) for each in tried],
        "megabytes": [round(sum(network.megabytes for network in each.networks), 1) for each in tried],
        "run_id": [each.run_id for each in tried],
    }


def headings(tried: Sequence[Tried]) -> dict[str, list[Tried]]:
    """Group what was tried by the photos that scored it, under a line that says which."""
    groups: dict[str, list[Tried]] = {}
    for each in tried:
        count = f"{len(each.held.labels):,}"
        line = (
            f"by 5-fold cross-validation on {count} photos"
            if each.held.by == FOLDS
            else f"on {count} validation photos, learned from the training photos alone"
        )
        groups.setdefault(line, []).append(each)
    return groups


def show(tried: Sequence[Tried], left_out: Sequence[LeftOut], winner: Tried) -> None:
    """Print the table of what was tried, as wide as the terminal."""
    import shutil

    width = max(40, min(shutil.get_terminal_size().columns, 120))
    say(f"\n{'accuracy':>10}{'log loss':>10}{'s':>8}   tried")
    for line, rows in headings(tried).items():
        say(f"  {line}:")
        for each in rows:
            numbers = (
                f"{each.accuracy:>10.3f}{each.loss:>10.3f}{each.seconds:>8.1f} {'>' if _same(each, winner) else ' '} "
            )
            say(textwrap.fill(each.name, width, initial_indent=numbers, subsequent_indent=" " * (len(numbers) + 2)))
    for name, reason in left_out:
        say(textwrap.fill(f"left out: {name}: {reason}", width, initial_indent="  ", subsequent_indent="    "))


def _same(one: Tried, other: Tried) -> bool:
    return (one.name, one.held.by) == (other.name, other.held.by)


def note(tried: Sequence[Tried], left_out: Sequence[LeftOut], winner: Tried, why: str) -> list[str]:
    """Write the table for the note of the run, in Markdown."""
    from tlkit.display import markdown

    lines = ["", f"Chosen: **{markdown(winner.name)}**, {markdown(why)}.", ""]
    for line, rows in headings(tried).items():
        lines += [f"Tried, scored {line}:", "", "| tried | accuracy | log loss | s |", "|---|---|---|---|"]
        for each in rows:
            name = f"**{markdown(each.name)}**" if _same(each, winner) else markdown(each.name)
            lines.append(f"| {name} | {each.accuracy:.3f} | {each.loss:.3f} | {each.seconds:.1f} |")
        lines.append("")
    return [*lines, *(f"Left out: {markdown(name)}: {markdown(reason)}." for name, reason in left_out)]
