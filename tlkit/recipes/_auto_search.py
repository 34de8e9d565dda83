"""The search of `auto`: what was tried, what is known of the machine's speed, and the time that is left."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit import config as configs
from tlkit.display import say
from tlkit.progress import duration
from tlkit.recipes import _inputs
from tlkit.recipes._auto_networks import Network
from tlkit.recipes._auto_tried import FOLDS, Held, LeftOut, Tried

if TYPE_CHECKING:
    import numpy as np

    from tlkit import data
    from tlkit.data.resizing import Resize
    from tlkit.recipes._jobs import Job

ENDING = 6.0  # seconds for pictures, the model's file and MLflow, at least
TRACING = 4.0  # seconds until a network that is new to Keras computes its first batch, at least
MEASURED = 64  # photos by which the model's speed is measured


class Head(NamedTuple):
    """How a head was solved, to solve it again on the training photos alone.

    Args:
        networks: Whose features it takes.
        resize: How photos became square.
        mirrored: Whether features are means over the photo and its mirror image.
        l2: Strength of its penalty.
    """

    networks: tuple[Network, ...]
    resize: Resize
    mirrored: bool
    l2: float


@dataclasses.dataclass
class Search:
    """The search, as far as it is.

    Args:
        job: The run.
        examples: What was listed.
        splits: The photos, by size and by how they become square.
        resize: How photos become square.
        tried: What was tried.
        left_out: What was not tried.
        heads: How each head that was tried was solved.
        values: Features of the photos to learn from, by network, resize and whether of the mirror image.
        rates: Photos a second that each network's features took, by title.
        pace: Measured seconds for a photo, in those that `features.seconds_each` estimates.
        solving: Seconds that solving a head took, for each photo, feature and class.
        tracing: Seconds until a network computed its first photo: the least of all, as the first loads libraries too.
        made: Whether that was measured.
        drawn: Positions of the photos to learn from, where not all are used.
    """

    job: Job[configs.Auto]
    examples: data.Examples
    splits: dict[tuple[int, Resize], data.Splits]
    resize: Resize
    tried: list[Tried] = dataclasses.field(default_factory=list)
    left_out: list[LeftOut] = dataclasses.field(default_factory=list)
    heads: dict[Tried, Head] = dataclasses.field(default_factory=dict)
    values: dict[tuple[configs.Backbone, Resize, bool], np.ndarray] = dataclasses.field(default_factory=dict)
    rates: dict[str, float] = dataclasses.field(default_factory=dict)
    pace: float = 1.0
    solving: float = 1e-6
    tracing: float = TRACING
    made: bool = False
    drawn: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def config(self) -> configs.Auto:
        """The settings."""
        return self.job.config

    def seconds_left(self, passes: Sequence[Network] = ()) -> float:
        """Give the seconds for more, after what the test and the log of a model will take that computes these."""
        return 60 * self.config.minutes - self.job.seconds - self.ending(passes)

    def ending(self, passes: Sequence[Network] = ()) -> float:
        """Estimate the seconds for the test, the pictures, the model's file and MLflow."""
        test = len(next(iter(self.splits.values())).test or ()) + MEASURED
        photo = sum(network.cost * network.slower for network in passes) * self.pace
        busy = max(1.0, self.tracing / TRACING)  # a machine that does other work too
        return busy * (ENDING + len(passes)) + 1.2 * test * photo

    def known(self, network: Network, resize: Resize) -> tuple[data.Photos, data.Photos]:
        """Give the training and the validation photos as a network takes them."""
        splits = self.photos(network, resize)
        parts = {"train": splits.train, "val": splits.val}
        return tuple(part.select(self.drawn[name]) if name in self.drawn else part for name, part in parts.items())  # type: ignore[return-value]

    def photos(self, network: Network, resize: Resize) -> data.Splits:
        """Give the splits as a network takes them."""
        size = network.model.input_shape[1]
        if (size, resize) not in self.splits:
            place = dataclasses.replace(self.config.data, resize=resize)
            loaded = _inputs.load(place, self.examples, network.model.input_shape[1:], quiet=True)
            first = next(iter(self.splits.values()))
            self.splits[size, resize] = dataclasses.replace(
                loaded, near_copies=first.near_copies, warnings=first.warnings
            )
        return self.splits[size, resize]

    def held(self, network: Network, by: str = FOLDS) -> Held:
        """Give the photos that score."""
        import numpy as np

        train, val = self.known(network, self.resize)
        if by != FOLDS:
            return Held(by, val.labels, val.groups)
        return Held(by, np.concatenate([train.labels, val.labels]), [*train.groups, *val.groups])

    def leave_out(self, name: str, reason: str) -> None:
        """Note, and say, that something is not tried."""
        self.left_out.append(LeftOut(name, reason))
        say(f"{name}: left out: {reason}")


@contextmanager
def step(search: Search, name: str, **params: Any) -> Iterator[Any]:
    """Track a step as a nested run, which becomes the `run_id` of what it tries."""
    from tlkit import tracking

    tags = {"recipe": "auto", "step": name}
    with tracking.run(search.config.experiment, run_name=name, params=params, tags=tags, nested=True) as run:
        yield run


def finish(search: Search, tried: Tried) -> Tried:
    """Log the numbers of what was tried on the innermost run, print them, and keep it."""
    from tlkit import tracking

    prefix = "cross_validated" if tried.held.by == FOLDS else "best_val"
    tracking.log_metrics({f"{prefix}_accuracy": tried.accuracy, f"{prefix}_loss": tried.loss, "seconds": tried.seconds})
    left = duration(max(search.seconds_left(), 0.0))
    say(f"{tried.name}: accuracy {tried.accuracy:.3f}, log loss {tried.loss:.3f}, {tried.seconds:.1f} s; {left} left")
    search.tried.append(tried)
    return tried
