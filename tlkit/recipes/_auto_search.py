"""What `auto` tries on frozen networks, within its time: features once, heads on them, alone and together."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit import config as configs
from tlkit.display import say
from tlkit.errors import Unavailable
from tlkit.progress import duration
from tlkit.recipes import _auto_networks, _auto_tried, _inputs
from tlkit.recipes._auto_networks import Network
from tlkit.recipes._auto_tried import FOLDS, Held, LeftOut, Tried

if TYPE_CHECKING:
    import numpy as np

    from tlkit import data
    from tlkit.data.resizing import Resize
    from tlkit.recipes._jobs import Job

CHUNK, PAUSE = 64, 10.0  # photos of the first chunk; seconds of a later one, after which the clock is looked at
ENDING = 6.0  # seconds for pictures, the model's file and MLflow, at least
TRACING = 4.0  # seconds until a network that is new to Keras computes its first batch, at least
MEASURED = 64  # photos by which the model's speed is measured
TOGETHER = 3  # networks in one model at the most
SAMPLE = 32  # photos that show whether all are square
SHARE = 0.4  # of the minutes that features of the first network may take; of more photos, a part is drawn


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


def on_frozen(search: Search, first: Network, others: Sequence[configs.Backbone]) -> list[Tried]:
    """Try heads on every network, on several together, and with the mirror image; the cheapest first.

    Args:
        search: The search.
        first: The network that is tried in any case.
        others: Those that are tried if there is time.

    Returns:
        Heads on photos that became square in the way that was chosen.
    """
    if search.seconds_left([first]) < 0:
        say(
            f"minutes is {search.config.minutes:g}, too little for a network and its test: {first.title} alone is tried"
        )
    start = head(search, (first,), needed=True)
    if start is None:
        raise RuntimeError("the first head is solved in any case")
    _choose_resize(search, start)
    for candidate in others:
        if network := _built(search, candidate):
            head(search, (network,))
    singles = _comparable(search)
    _together(search, singles)
    _mirrored(search)
    return _comparable(search)


def _comparable(search: Search) -> list[Tried]:
    return [each for each in search.tried if each in search.heads and search.heads[each].resize == search.resize]


def _built(search: Search, candidate: configs.Backbone) -> Network | None:
    """Build a network, unless it cannot be had, exceeds a bound, or there is no time for it."""
    name = _auto_networks.title(candidate)
    if search.seconds_left() < TRACING:
        search.leave_out(name, "no time is left")
        return None
    try:
        network = _auto_networks.build(search.config, candidate, search.resize)
    except Unavailable as error:
        search.leave_out(name, str(error))
        return None
    if reason := _auto_networks.excess(search.config, [network]):
        search.leave_out(network.title, reason)
        return None
    return network


def head(
    search: Search,
    networks: tuple[Network, ...],
    resize: Resize | None = None,
    mirrored: bool = False,
    needed: bool = False,
) -> Tried | None:
    """Solve a head on the features of networks, side by side, and score it by cross-validation; None without the time.

    Args:
        search: The search.
        networks: The networks.
        resize: How photos become square; by default as chosen.
        mirrored: Take the mean of the features of the photo and of its mirror image.
        needed: Try it in any case, with as many photos as there is time for.
    """
    from tlkit import backbones, probes

    resize, began = resize or search.resize, time.perf_counter()
    name = " + ".join(network.title for network in networks)
    name += f", {resize}" * (len(search.splits) > 1 and resize != search.resize) + ", mirror image too" * mirrored
    if reason := _auto_networks.excess(search.config, networks * (1 + mirrored)):
        search.leave_out(name, reason)
        return None
    with step(search, name, networks=name, resize=resize, mirrored=mirrored) as run:
        blocks = []
        for network in networks:
            for mirror in (False, True)[: 1 + mirrored]:
                block = _features(search, network, resize, mirror, needed)
                if block is None:
                    return None
                blocks.append(block)
        if mirrored:
            blocks = [(one + other) / 2 for one, other in zip(blocks[::2], blocks[1::2], strict=True)]
        held, classes = search.held(networks[0]), len(search.examples.classes)
        work = len(held.labels) * sum(block.shape[1] for block in blocks) * classes
        left = search.seconds_left(networks * (1 + mirrored))
        if not needed and search.solving * work > left:
            lacking = f"{duration(search.solving * work)}; {duration(max(left, 0.0))} left before its test"
            search.leave_out(name, f"its head would take {lacking}")
            return None
        solving = time.perf_counter()
        values, scales = _side_by_side(blocks)
        probe = probes.logistic_regression(values, held.labels, classes, groups=held.groups, seed=search.config.seed)
        search.solving = (time.perf_counter() - solving) / work
        solved = backbones.JoinedHead(
            [network.model for network in networks], probe.kernel / scales[:, None], probe.bias, mirrored
        )
        seconds = time.perf_counter() - began
        tried = Tried(name, networks, (solved,), probe.held_out, held, seconds, run.run_id)
        search.heads[tried] = Head(networks, resize, mirrored, probe.l2)
        return finish(search, tried)


def _side_by_side(blocks: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Join features of several networks so that each has an average variance of 1; give each feature's divisor."""
    import numpy as np

    from tlkit.probes.features import moments

    if len(blocks) == 1:
        return blocks[0], np.ones(blocks[0].shape[1], np.float32)
    scales = [np.full(block.shape[1], moments(block)[1], np.float32) for block in blocks]
    return np.concatenate([block / scale for block, scale in zip(blocks, scales, strict=True)], axis=1), np.concatenate(
        scales
    )


def _features(search: Search, network: Network, resize: Resize, mirrored: bool, needed: bool) -> np.ndarray | None:
    """Compute features of the photos to learn from, or find them in the store; None where the time does not suffice."""
    import numpy as np

    from tlkit import data

    key = (network.config.backbone, resize, mirrored)
    if key in search.values:
        return search.values[key]
    train, val = search.known(network, resize)
    photos: Any = data.Photos.joined([train, val])
    photos = data.Mirrored(photos) if mirrored else photos
    name, count, parts, start, size = network.title, len(photos), [], 0, CHUNK
    what = name + ", mirror image too" * mirrored
    while start < count:
        places = range(start, min(start + size, count))
        chunk = data.Photos.joined([train, val]).select(places)
        before, computing = time.perf_counter(), network.extractor.seconds
        (features,) = network.extractor.extract(data.Mirrored(chunk) if mirrored else chunk)
        if not start and not mirrored and network.extractor.computed:  # the engine has just been made
            made = time.perf_counter() - before - (network.extractor.seconds - computing)
            search.tracing = max(TRACING, min(made, search.tracing if search.made else made))
            search.made = True
        parts.append(features[:])
        start = places.stop
        if network.extractor.computed and network.extractor.seconds:
            search.rates[name] = network.extractor.computed / network.extractor.seconds
            search.pace = 1 / search.rates[name] / network.cost
        elapsed = max((time.perf_counter() - before) / len(places), 1e-6)
        if start == count:
            break
        rate = search.rates.get(name, 1 / elapsed)
        left = search.seconds_left([network] * (1 + mirrored))
        missing = network.extractor.missing(_rest(data, train, val, start, mirrored))
        share = SHARE * 60 * search.config.minutes
        if needed and not search.drawn and missing / rate > share:
            return _of_a_part(search, network, resize, int(rate * share))
        if not needed and missing / rate > left:
            lacking = f"{duration(missing / rate)}; {duration(max(left, 0.0))} left"
            search.leave_out(what, f"its features would take {lacking}")
            return None
        size = max(CHUNK, int(rate * PAUSE))
    search.values[key] = np.concatenate(parts)
    return search.values[key]


def _rest(data: Any, train: data.Photos, val: data.Photos, start: int, mirrored: bool) -> Any:
    rest = data.Photos.joined([train, val])
    rest = rest.select(range(start, len(rest)))
    return data.Mirrored(rest) if mirrored else rest


def _of_a_part(search: Search, network: Network, resize: Resize, count: int) -> np.ndarray | None:
    """Draw a part of the photos, for which there is time, and compute the features of these."""
    import numpy as np

    splits = search.photos(network, resize)
    total = len(splits.train) + len(splits.val)
    share = min(1.0, max(count, 10 * len(search.examples.classes)) / total)
    rng = np.random.default_rng(search.config.seed)
    for name, part in (("train", splits.train), ("val", splits.val)):
        labels, drawn = part.labels, rng.permutation(len(part))
        order = drawn[np.argsort(labels[drawn], kind="stable")]
        places = np.floor(np.arange(1, len(order) + 1) * share) > np.floor(np.arange(len(order)) * share)
        search.drawn[name] = np.sort(order[places])
    used = sum(map(len, search.drawn.values()))
    if used < total:
        say(f"there is time for {used:,} of {total:,} photos to learn from, drawn by class")
    return _features(search, network, resize, False, needed=True)


def _choose_resize(search: Search, first: Tried) -> None:
    """Choose how photos become square, by the first network, which is probably the fastest; squash must clearly win."""
    import numpy as np

    network = first.networks[0]
    if search.config.data.resize or search.resize != "center" or search.seconds_left([network]) < first.seconds:
        return
    count = len(search.photos(network, "center").train)
    sample = np.linspace(0, count - 1, min(SAMPLE, count)).astype(int)
    center, squash = (search.photos(network, each).train.read(sample) for each in ("center", "squash"))
    if np.array_equal(center, squash):  # square photos
        return
    other = head(search, (network,), "squash")
    if other and _auto_tried.beats(other, first):
        search.resize = "squash"
        say("data.resize: squash, by more than a standard error of the log loss")


def _together(search: Search, singles: Sequence[Tried]) -> None:
    """Try heads on the features of the best network and of one or two others that take the same photos."""
    ranked = sorted(singles, key=lambda each: each.loss)
    best = ranked[0]
    size = best.networks[0].model.input_shape
    others = [each for each in ranked[1:] if each.networks[0].model.input_shape == size][:TOGETHER]
    for count in range(1, TOGETHER):
        for group in itertools.combinations(others, count):
            head(search, tuple(each.networks[0] for each in (best, *group)))


def _mirrored(search: Search) -> None:
    """Try the best so far with the mirror image too, where a mirrored photo shows the same things."""
    if search.config.data.origin == "embedded" or _auto_networks.is_small_and_gray(search.examples):
        return
    best, _ = _auto_tried.choose(_comparable(search))
    head(search, best.networks, mirrored=True)


def on_training_alone(search: Search, tried: Tried) -> Tried:
    """Solve a head on the training photos alone, and score it on the validation photos."""
    import numpy as np

    from tlkit import backbones, probes

    began, how = time.perf_counter(), search.heads[tried]
    train, _ = search.known(how.networks[0], how.resize)
    blocks = []
    for network in how.networks:
        views = [
            search.values[network.config.backbone, how.resize, mirror] for mirror in (False, True)[: 1 + how.mirrored]
        ]
        blocks.append(np.mean(views, axis=0))
    values, scales = _side_by_side(blocks)
    probe = probes.logistic_regression(
        values[: len(train)],
        train.labels,
        len(search.examples.classes),
        groups=train.groups,
        seed=search.config.seed,
        strengths=(how.l2,),
    )
    held = search.held(how.networks[0], _auto_tried.HELD)
    models = [network.model for network in how.networks]
    solved = backbones.JoinedHead(models, probe.kernel / scales[:, None], probe.bias, how.mirrored)
    probabilities = probe.probabilities(values[len(train) :])
    with step(search, f"{tried.name}, head") as run:
        seconds = time.perf_counter() - began
        alone = Tried(tried.name, how.networks, (solved,), probabilities, held, seconds, run.run_id)
        return finish(search, alone)
