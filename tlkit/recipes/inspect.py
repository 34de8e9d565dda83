"""Say what tlkit understood of your data, before any training, and find what would falsify a score.

python -m tlkit.recipes.inspect --data.path photos --write clean.csv

It ends with status 3 where something would falsify a score, so that it can stand in front of training in a pipeline.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit import cli
from tlkit.config import Backbone, Inspect
from tlkit.display import quoted, say
from tlkit.errors import InvalidInput
from tlkit.recipes import _clusters, _decisions, _inputs, _inspection, _jobs, _links, _runs
from tlkit.untrusted import is_url

if TYPE_CHECKING:
    from tlkit import tracking
    from tlkit.inspection import Findings


@_clusters.connected
def run(config: Inspect) -> Findings:
    """Inspect, print and log; see `config.Inspect` for the settings. No file of the data is changed.

    Returns:
        What was found; its `exit_status` is that of the command.
    """
    check(config)
    asked = dataclasses.asdict(config)
    began = _jobs.start_keras()
    from tlkit import inspection, runtime, tracking

    examples = _inputs.listed(_decisions.located(config.data))
    if not examples.modality.pretrained:
        config = dataclasses.replace(config, backbone=Backbone("none"))
    config = _decisions.applied(config, _decisions.fill_in(config))
    runtime.prepare(config.seed, config.precision)
    tracking.open_store(config.experiment)
    findings, splits, picture = _inspection.inspect(config, examples, _runs.dataset_name(config.data))
    page = inspection.page(findings, picture)
    tags = _runs.tags("inspect", config.backbone.name) | _runs.data_tags(splits)
    title = _runs.title("inspect", config, network="")
    with tracking.run(
        config.experiment, run_name=config.run_name, params=_runs.params(config, asked), tags=tags, title=title
    ) as tracked:
        _runs.log_config(config)
        _runs.log_data(config.data, splits)
        tracking.log_text(page, _inspection.PAGE)
        tracking.log_text(json.dumps(findings.as_json(), indent=1), "inspection.json")
        tracking.log_text("\n".join(inspection.report(findings)) + "\n", "inspection.txt")
        tracking.log_metrics({**findings.metrics(), "seconds": time.perf_counter() - began})
    say("\n".join(["", *inspection.report(findings, notes=False), ""]))  # notes were printed as data were loaded
    if config.output:
        _write(config.output, page.encode("utf-8"))
    if config.write:
        folder = Path(config.write).absolute().parent
        _write(config.write, inspection.table(findings, examples, folder))
    _print_end(config, findings, tracked)
    return findings


def check(config: Inspect) -> None:
    """Refuse files that cannot be written to.

    Raises:
        InvalidInput: one exists already, or its folder does not exist.
    """
    if config.write and config.data.path and is_url(config.data.path):
        raise InvalidInput(
            f"write is {config.write!r}: the table would name files beside it, and data.path is {config.data.path!r}, "
            "where nothing is written: leave --write out"
        )
    for name in ("write", "output"):
        if value := getattr(config, name):
            path = Path(value)
            if path.exists():
                raise InvalidInput(f"{name} is {value!r}, which exists and is not overwritten: give another --{name}")
            if not path.absolute().parent.is_dir():
                raise InvalidInput(f"{name} is {value!r}; there is no folder {str(path.absolute().parent)!r}")


def _write(path: str, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)


def _print_end(config: Inspect, findings: Findings, run: tracking.Run) -> None:
    """Print where everything is, and what to do next."""
    from tlkit import tracking
    from tlkit.data import modalities

    folder = tracking.run_folder(run.run_id) if not tracking.journal_of(run.run_id).unsent else None
    if config.output:
        say(f"page   {_links.shown(Path(config.output).absolute())}")
    elif folder:
        say(f"page   {_links.shown(folder / _inspection.PAGE)}")
    say(f"run    {run.run_id}, with {_inspection.PAGE}, inspection.json and split_manifest.csv")
    if config.write:
        say(f"table  {_links.shown(Path(config.write).absolute())}; look at its columns leave_out and suspect")
    trained_by = "finetune" if modalities.row(findings.kind).pretrained else "train"
    say("\nNext:")
    if config.write:
        separator = f" --data.separator {quoted(config.data.separator)}" if config.data.separator else ""
        path = _links.shown(Path(config.write).absolute())
        say(f"  {_links.recipe(trained_by)} --data.path {path}{separator}")
    elif findings.exit_status and config.data.origin in ("folder", "csv"):
        say("  Look at the page and mend the data, or write a table of what to leave out:")
        say(f"  {_links.command('inspect', without=('output',), write='clean.csv')}")
        if findings.near_across and not config.data.group:
            say("  --data.near_copies together keeps near copies in one split, --data.group those of one patient.")
    else:
        without = ["output"]
        if config.backbone.name == "none":
            without += [f"backbone.{field.name}" for field in dataclasses.fields(config.backbone)]
        if trained_by == "train":
            without += ["cluster", *(f"features.{field.name}" for field in dataclasses.fields(config.features))]
        say(f"  {_links.command(trained_by, without)}")
    _links.print_links(run, [])


if __name__ == "__main__":
    cli.main(Inspect, run)
