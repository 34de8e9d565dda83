"""Draw what the network sees of the training photos under a config's augmentation; nothing is trained or logged.

python -m tlkit.recipes.preview --data.path photos --augment.rotation 30
"""

from __future__ import annotations

from pathlib import Path

from tlkit import cli
from tlkit.config import Explain, Preview
from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.recipes import _clusters, _decisions, _jobs, _links, _photo_sheet, _plans, _runs

OWN = ("photos", "views", "output")  # settings that finetune does not have


@_clusters.connected
def run(config: Preview) -> Path:
    """Draw training photos as they are and as epochs see them; see `config.Preview` for the settings.

    There is no MLflow run, because the picture follows from the config and the data.

    Returns:
        Path of the picture.
    """
    check(config)
    _jobs.start_keras()
    from tlkit import plots

    config = _decisions.completed(config)
    if not _plans.changes(config.augment):
        raise InvalidInput("all of --augment is off: training sees the photos as they are")
    sheet = _photo_sheet.load(config)
    title = f"{_runs.dataset_name(config.data)} at {config.data.image_size} pixels: training photos as epochs see them"
    path = Path(config.output)
    figure = plots.sheet(sheet.rows, sheet.columns, sheet.captions, title)
    with open(path, "xb") as file:
        plots.save(figure, file, format="png", dpi=150)
    say(f"picture  {_links.shown(path.absolute())}")
    say("\nNext, if the photos still show what their labels say:")
    say(f"  {_links.command('finetune', without=OWN)}")
    return path


def check(config: Preview | Explain) -> None:
    """Refuse a file that the picture cannot be written to.

    Raises:
        InvalidInput: it is not a PNG, exists already, or its folder does not exist.
    """
    path = Path(config.output)
    if path.suffix.lower() != ".png":
        raise InvalidInput(f"output is {config.output!r}; it must end in .png")
    if path.exists():
        raise InvalidInput(f"output is {config.output!r}, which exists and is not overwritten: give another --output")
    if not path.absolute().parent.is_dir():
        raise InvalidInput(f"output is {config.output!r}; there is no folder {str(path.absolute().parent)!r}")


if __name__ == "__main__":
    cli.main(Preview, run)
