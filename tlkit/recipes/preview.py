"""Draw what the network sees of the training photos under a config's augmentation; nothing is trained or logged.

python -m tlkit.recipes.preview --data.path photos --augment.rotation 30
"""

from __future__ import annotations

from pathlib import Path

from tlkit import cli
from tlkit.config import Preview
from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.recipes import _clusters, _decisions, _jobs, _links, _photo_sheet, _plans, _png, _runs

OWN = ("photos", "views", "output")  # settings that finetune does not have


@_clusters.connected
def run(config: Preview) -> Path:
    """Draw training photos as they are and as epochs see them; see `config.Preview` for the settings.

    There is no MLflow run, because the picture follows from the config and the data.

    Returns:
        Path of the picture.
    """
    _png.check(config.output)
    _jobs.start_keras()
    from tlkit import plots

    config = _decisions.completed(config)
    if not _plans.changes(config.augment):
        raise InvalidInput("all of --augment is off: training sees the photos as they are")
    sheet = _photo_sheet.load(config)
    title = f"{_runs.dataset_name(config.data)} at {config.data.image_size} pixels: training photos as epochs see them"
    figure = plots.sheet(sheet.rows, sheet.columns, sheet.captions, title)
    path = _png.write(config.output, figure)
    say("\nNext, if the photos still show what their labels say:")
    say(f"  {_links.command('finetune', without=OWN)}")
    return path


if __name__ == "__main__":
    cli.main(Preview, run)
