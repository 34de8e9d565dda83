"""The sheet that `preview` draws: training photos as they are, and as epochs of training see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tlkit.config import Preview
from tlkit.errors import InvalidInput, Undecodable
from tlkit.recipes import _inputs, _plans, _sources

if TYPE_CHECKING:
    import numpy as np

    from tlkit import data
    from tlkit.data.plan import Plan

LEAST_SHARE = 0.05  # of a mixed label that is written below a photo
MOST_EPOCHS = 1000  # that are searched for a photo


class Sheet(NamedTuple):
    """Photos in rows.

    Args:
        rows: Each begins with the photo as it is.
        columns: Headings of the columns.
        captions: The labels below the photos, row by row; empty where they are those of the whole row.
    """

    rows: list[list[np.ndarray]]
    columns: list[str]
    captions: list[list[str]]


def load(config: Preview) -> Sheet:
    """Read the data, and draw the photos of the sheet.

    Only the photos that are shown are decoded, and all only if one of these cannot be.
    """

    examples = _inputs.photos(config)
    channels, size = _sources.row(config.backbone, config.data.image_size).channels, config.data.image_size or 0
    try:
        return draw(config, _inputs.splits(config.data, examples, (size, size, channels), check=False))
    except Undecodable:
        return draw(config, _inputs.splits(config.data, examples, (size, size, channels)))


def draw(config: Preview, splits: data.Splits) -> Sheet:
    """Draw photos of the training split.

    Args:
        config: How many photos, and how training changes them.
        splits: The data.

    Raises:
        InvalidInput: training draws one of the photos too seldom to show it.
    """
    from tlkit.progress import Progress

    train, classes = splits.train, splits.classes
    plan = _plan(config, splits)
    count = min(config.views, config.augment.views or config.views)
    indices = spread(train.labels, config.photos, config.seed)
    rows, captions = [], []
    with Progress("photos", len(indices) * count) as progress:
        for index in indices:
            row, texts = [train.read([index])[0]], [_caption(train.labels[index], classes)]
            for number in range(count):
                photo, label = _variant(config, splits, plan, index, number)
                row.append(photo)
                texts.append("" if label is None else _caption(label, classes))
                progress.advance()
            rows.append(row)
            captions.append(texts)
    word = "view" if config.augment.views else "time" if plan.balanced else "epoch"
    return Sheet(rows, ["as it is", *(f"{word} {number}" for number in range(1, count + 1))], captions)


def spread(labels: np.ndarray, count: int, seed: int) -> list[int]:
    """Draw photos at random, one of each class in turn as long as there are more.

    Args:
        labels: The class of each photo, or a row of zeros and ones for each.
        count: Number of photos.
        seed: Random seed.

    Returns:
        Their indices.
    """
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(labels))
    if labels.ndim == 2:
        return [int(index) for index in order[:count]]
    shuffled = labels[order]
    rank = np.zeros(len(shuffled), int)  # among the photos of the same class
    for label in np.unique(shuffled):
        members = shuffled == label
        rank[members] = np.arange(members.sum())
    return [int(index) for index in order[np.argsort(rank, kind="stable")][:count]]


def _plan(config: Preview, splits: data.Splits) -> Plan:
    from tlkit.data.plan import Plan

    return Plan(
        splits.train,
        _plans.batch_size_or_default(config),
        shuffle=True,
        seed=config.seed,
        augment=_plans.changes(config.augment),
        labels=splits.train.labels,
        classes=len(splits.classes),
        balanced=config.balance == "sampling",
    )


def _variant(
    config: Preview, splits: data.Splits, plan: Plan, index: int, number: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Give a changed photo, and its label if it is mixed with others.

    Args:
        config: How it is changed.
        splits: The data.
        plan: What each batch of training holds.
        index: The photo.
        number: Which of its fixed views, else which of the times that training draws it.
    """
    from tlkit.data import View

    if config.augment.views:
        view = View(splits.train, _plans.changes(config.augment), config.seed, number)
        return view.read([index])[0], None
    return _drawn(plan, index, number)


def _drawn(plan: Plan, index: int, number: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Give the photo as training sees it in an epoch, and its label if it is mixed with others.

    Where classes are sampled equally often, an epoch may leave the photo out or have it several times: then `number`
    counts these times and not the epochs.
    """
    import numpy as np

    if not plan.mixing and not plan.balanced:
        return plan.images(number, np.array([index]))[0], None
    times = 0
    for epoch in range(MOST_EPOCHS):
        for step, indices in enumerate(plan.order(epoch)):
            for place in (indices == index).nonzero()[0]:
                if times == number:
                    images, labels = plan.batch(epoch, indices, step)
                    return images[place], None if labels is None or not plan.mixing else labels[place]
                times += 1
    raise InvalidInput(
        f"training draws photo {index} less than {number + 1} times in {MOST_EPOCHS} epochs: leave balance out"
    )


def _caption(label: np.ndarray, classes: list[str]) -> str:
    """Write a label, or the shares of several, the largest first.

    >>> import numpy as np
    >>> _caption(np.array([0.3, 0.0, 0.7]), ["daisy", "rose", "tulip"]), _caption(np.int32(1), ["daisy", "rose"])
    ('tulip 0.7, daisy 0.3', 'rose')
    """
    import numpy as np

    from tlkit.plots import shortened

    if np.ndim(label) == 0:
        return shortened(classes[int(label)], 24)
    order = [int(place) for place in np.argsort(-label, kind="stable") if label[place] >= LEAST_SHARE]
    if all(label[place] == 1 for place in order):
        return shortened(", ".join(classes[place] for place in order), 36) or "none"
    return ", ".join(f"{shortened(classes[place], 12)} {label[place]:.2g}" for place in order[:3])
