"""Heads that `auto` tries on frozen networks: on each, on several side by side, and with the mirror image."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tlkit import config as configs
from tlkit.display import say
from tlkit.errors import Unavailable
from tlkit.progress import duration
from tlkit.recipes import _auto_features, _auto_networks, _auto_search, _auto_tried
from tlkit.recipes._auto_networks import Network
from tlkit.recipes._auto_search import Search
from tlkit.recipes._auto_tried import Tried

if TYPE_CHECKING:
    import numpy as np

    from tlkit.data.resizing import Resize

TOGETHER = 3  # networks in one model at the most
WORTH = 8  # times as long as a head took must be left for another way to make photos square: networks gain more
SAMPLE = 32  # photos that show whether all are square


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
    if search.seconds_left() < _auto_search.TRACING:
        search.leave_out(name, "no time is left")
        return None
    try:
        network = _auto_networks.build(search.config, candidate, search.resize, search.examples)
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
    import numpy as np

    from tlkit import backbones, probes

    resize, began = resize or search.resize, time.perf_counter()
    name = " + ".join(network.title for network in networks)
    name += f", {resize}" * (len(search.splits) > 1 and resize != search.resize) + ", mirror image too" * mirrored
    if reason := _auto_networks.excess(search.config, networks * (1 + mirrored)):
        search.leave_out(name, reason)
        return None
    with _auto_search.step(search, name, networks=name, resize=resize, mirrored=mirrored) as run:
        blocks = []
        for network in networks:
            for mirror in (False, True)[: 1 + mirrored]:
                block = _auto_features.extract(search, network, resize, mirror, needed)
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
        values, widths = np.concatenate(blocks, axis=1), [width for network in networks for width in network.widths]
        probe = probes.logistic_regression(
            values, held.labels, classes, groups=held.groups, blocks=widths, seed=search.config.seed
        )
        search.solving = (time.perf_counter() - solving) / work
        models = [network.model for network in networks]
        solved = backbones.JoinedHead(models, probe.kernel, probe.bias, mirrored)
        seconds = time.perf_counter() - began
        tried = Tried(name, networks, (solved,), probe.held_out, held, seconds, run.run_id)
        search.heads[tried] = _auto_search.Head(networks, resize, mirrored, probe.l2)
        return _auto_search.finish(search, tried)


def _choose_resize(search: Search, first: Tried) -> None:
    """Choose how photos become square, by the first network, which is probably the fastest; squash must clearly win."""
    import numpy as np

    network = first.networks[0]
    if search.config.data.resize or search.resize != "center" or search.seconds_left([network]) < WORTH * first.seconds:
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
    from tlkit import backbones, probes

    began, how = time.perf_counter(), search.heads[tried]
    train, _ = search.known(how.networks[0], how.resize)
    values = features(search, tried)
    probe = probes.logistic_regression(
        values[: len(train)],
        train.labels,
        len(search.examples.classes),
        groups=train.groups,
        blocks=[width for network in how.networks for width in network.widths],
        seed=search.config.seed,
        strengths=(how.l2,),
    )
    held = search.held(how.networks[0], _auto_tried.HELD)
    models = [network.model for network in how.networks]
    solved = backbones.JoinedHead(models, probe.kernel, probe.bias, how.mirrored)
    probabilities = probe.probabilities(values[len(train) :])
    with _auto_search.step(search, f"{tried.name}, head") as run:
        seconds = time.perf_counter() - began
        alone = Tried(tried.name, how.networks, (solved,), probabilities, held, seconds, run.run_id)
        return _auto_search.finish(search, alone)


def features(search: Search, tried: Tried) -> np.ndarray:
    """Give what a head on frozen networks learned from: (training and validation photos, features)."""
    import numpy as np

    how, blocks = search.heads[tried], []
    for network in how.networks:
        views = [
            search.values[network.config.backbone, how.resize, mirror] for mirror in (False, True)[: 1 + how.mirrored]
        ]
        blocks.append(np.mean(views, axis=0))
    return np.concatenate(blocks, axis=1)
