"""Draw what the network sees of the training photos under a config's augmentation; nothing is trained or logged.

python -m tlkit.recipes.preview --data.path photos --augment.rotation 30
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit import cli
from tlkit.config import Preview
from tlkit.display import say
from tlkit.errors import InvalidInput, Undecodable
from tlkit.recipes import _decisions, _inputs, _jobs, _links, _plans, _runs

if TYPE_CHECKING:
    import numpy as np

    from tlkit import data

LEAST_SHARE = 0.05  # of a label that is written below a photo
MOST = 1000  # epochs to look for a photo in
OWN = ("photos", "views", "output")  # settings that finetune does not have


def run(config: Preview) -> Path:
    """Draw training photos as they are and as epochs see them; see `config.Preview` for the settings.

    No MLflow run is made: the picture follows from the config and the data, and is no result.

    Returns:
        The picture.
    """
    check(config)
    _jobs.import_keras()
    from tlkit import plots

    config = _decisions.completed(config)
    if not _plans.changes(config.augment):
        raise InvalidInput("all of --augment is off: training sees the photos as they are")
    rows, columns, captions = _seen(config)
    title = f"{_runs.dataset_name(config.data)} at {config.data.image_size} pixels: training photos as epochs see them"
    path = Path(config.output)
    figure = plots.sheet(rows, columns, captions, title)
    with open(path, "xb") as file:
        plots.save(figure, file, format="png", dpi=150)
    say(f"picture  {_links.shown(path.absolute())}")
    say("\nNext, where the photos are still what their labels say:")
    say(f"  {_links.command('finetune', without=OWN)}")
    return path


def check(config: Preview) -> None:
    """Refuse a picture that cannot be written.

    Raises:
        InvalidInput: it is so.
    """
    path = Path(config.output)
    if path.suffix.lower() != ".png":
        raise InvalidInput(f"output is {config.output!r}; it must end in .png")
    if path.exists():
        raise InvalidInput(f"output is {config.output!r}, which exists and is not overwritten: give another --output")
    if not path.absolute().parent.is_dir():
        raise InvalidInput(f"output is {config.output!r}; there is no folder {str(path.absolute().parent)!r}")


def _seen(config: Preview) -> tuple[list[list[np.ndarray]], list[str], list[list[str]]]:
    """Give the rows of photos, the heads of the columns and the captions.

    Photos are decoded that are drawn, and all only where one of these cannot be.
    """
    from tlkit import backbones

    examples = _inputs.photos(config)
    channels, size = backbones.row(config.backbone.name).channels, config.data.image_size or 0
    try:
        return _sheet(config, _inputs.splits(config.data, examples, (size, size, channels), check=False))
    except Undecodable:
        return _sheet(config, _inputs.splits(config.data, examples, (size, size, channels)))


def _sheet(config: Preview, splits: data.Splits) -> tuple[list[list[np.ndarray]], list[str], list[list[str]]]:
    from tlkit.data import View
    from tlkit.data.pipeline import Plan
    from tlkit.progress import Progress

    train, changes = splits.train, _plans.changes(config.augment)
    size = _plans.batch_size(config)
    classes, sampled = len(splits.classes), config.balance == "sampling"
    plan = Plan(train, size, True, config.seed, changes, train.labels, classes=classes, balanced=sampled)
    count = min(config.views, config.augment.views or config.views)
    chosen = _chosen(train.labels, config.photos, config.seed)
    rows, captions = [], []
    with Progress("photos", len(chosen) * count) as progress:
        for index in chosen:
            rows.append([train.read([index])[0]])
            captions.append([_said(train.labels[index], splits.classes)])
            for number in range(count):
                if config.augment.views:
                    photo, label = View(train, changes, config.seed, number).read([index])[0], None
                else:
                    photo, label = _drawn(plan, index, number)
                rows[-1].append(photo)
                captions[-1].append("" if label is None else _said(label, splits.classes))
                progress.advance()
    word = "view" if config.augment.views else "time" if sampled else "epoch"
    return rows, ["as it is", *(f"{word} {number}" for number in range(1, count + 1))], captions


def _chosen(labels: np.ndarray, count: int, seed: int) -> list[int]:
    """Draw photos at random, of one class after the other as long as there are more."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(labels))
    if labels.ndim == 2:
        return order[:count].tolist()
    of_class = labels[order]
    rank = np.zeros(len(of_class), int)
    for label in np.unique(of_class):
        here = of_class == label
        rank[here] = np.arange(here.sum())
    return order[np.argsort(rank, kind="stable")][:count].tolist()


def _drawn(plan: Any, index: int, number: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Give the photo as training sees it in an epoch, and its label where it is mixed with others.

    Where classes are drawn alike often, an epoch may leave it out or have it several times: then the n-th time counts.
    """
    if not plan.mixing and not plan.balanced:
        return plan.images(number, [index])[0], None
    found = epoch = 0
    while epoch < MOST:
        for step, indices in enumerate(plan.order(epoch)):
            for place in (indices == index).nonzero()[0]:
                if found == number:
                    images, labels = plan.batch(epoch, indices, step)
                    return images[place], labels[place] if plan.mixing else None
                found += 1
        epoch += 1
    raise InvalidInput(f"training draws photo {index} less than {number + 1} times in {MOST} epochs: leave balance out")


def _said(label: Any, classes: list[str]) -> str:
    """Write a label, or the shares of several, the largest first.

    >>> import numpy as np
    >>> _said(np.array([0.3, 0.0, 0.7]), ["daisy", "rose", "tulip"]), _said(np.int32(1), ["daisy", "rose"])
    ('tulip 0.7, daisy 0.3', 'rose')
    """
    import numpy as np

    from tlkit.plots import shortened

    if np.ndim(label) == 0:
        return shortened(classes[label], 24)
    order = [place for place in np.argsort(-label, kind="stable") if label[place] >= LEAST_SHARE]
    if all(label[place] == 1 for place in order):
        return shortened(", ".join(classes[place] for place in order), 36) or "none"
    return ", ".join(f"{shortened(classes[place], 12)} {label[place]:.2g}" for place in order[:3])


if __name__ == "__main__":
    cli.main(Preview, run)
