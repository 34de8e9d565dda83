"""Look for a learning rate: train a little while the rate grows, and watch the loss; the network is not kept.

python -m tlkit.recipes.find_lr --data.path photos --phase full
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING

from tlkit import cli
from tlkit.config import FindLr
from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.recipes import _clusters, _decisions, _inputs, _jobs, _links, _networks, _plans, _runs, _training_decisions

if TYPE_CHECKING:
    import keras

    from tlkit import data, tracking
    from tlkit.training import finder

PICTURE = "lr_range.png"


@_clusters.connected
def run(config: FindLr) -> finder.RangeTest:
    """Test, log and draw the learning rates of a phase; see `config.FindLr` for the settings.

    Phase full begins with a head that has been trained briefly.
    """
    job = _jobs.start("find_lr", config, check=check)
    examples = _inputs.photos(job.config)
    model = _networks.trainable_classifier(job.config, examples)
    job = job.with_decisions(_decisions.decide_head(job.config, model, examples))
    if job.config.phase == "head" and job.config.head.solved:
        raise InvalidInput(
            "the head is solved, after which the loss falls at no rate: give --head.solved false, or --phase full"
        )
    splits = _inputs.splits(job.config.data, examples, model.input_shape[1:])
    job = job.with_decisions(_training_decisions.find_batch_size(job.config, model, splits))
    with job.tracked(splits) as tracked:
        with job.timing("test"):
            test = _test(job.config, model, splits)
        _log(job, test)
    _summarize(job, test, tracked)
    return test


def check(config: FindLr) -> None:
    """Refuse a phase that has several learning rates, or none, and stages that the backbone does not have.

    Raises:
        InvalidInput: the phase or a stage cannot be tested.
    """
    if config.phase == "full" and config.full.learning_rates:
        raise InvalidInput("full.learning_rates gives stages rates of their own; a test finds one: leave it out")
    if getattr(config, config.phase).epochs == 0:
        raise InvalidInput(f"{config.phase}.epochs is 0, so that there is no such phase: give more, or another --phase")
    _networks.check_stages(config)


def _test(config: FindLr, model: keras.Model, splits: data.Splits) -> finder.RangeTest:
    """Test the learning rates, with a progress line."""
    import keras

    from tlkit import features
    from tlkit.progress import Progress
    from tlkit.training import activations, rates

    known = None
    if config.head.epochs or config.head.solved:
        (known,) = activations.extract(_networks.extractor(config, features.pooled(model), "pooled"), splits.train)
    with Progress("learning rates", config.steps, "steps") as progress:
        advance = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: progress.advance())
        return rates.range_test(
            model,
            splits,
            _plans.finetuning(config, splits),
            config.phase,
            known,
            callbacks=[advance],
            lowest=config.lowest,
            highest=config.highest,
            steps=config.steps,
        )


def _log(job: _jobs.Job[FindLr], test: finder.RangeTest) -> None:
    from tlkit import plots, tracking

    config = job.config
    for step, (rate, loss, smoothed) in enumerate(zip(test.rates, test.losses, test.smoothed, strict=True)):
        if math.isfinite(loss):
            tracking.log_metrics({"learning_rate": rate, "loss": loss, "smoothed_loss": smoothed}, step)
    suggestion = {"suggested_learning_rate": test.suggested} if test.suggested else {}
    tracking.log_metrics({"training_seconds": job.timings["test"], **suggestion})
    title = f"{_networks.title(config.backbone)} on {_runs.dataset_name(config.data)}, phase {config.phase}"
    rate = getattr(config, config.phase).learning_rate
    picture = plots.Picture(
        "lr_range", test.rates, test.losses, test.smoothed, test.suggested, None if rate == "auto" else rate, title
    )
    tracking.log_figure(picture, PICTURE)
    tracking.deliver()


def _summarize(job: _jobs.Job[FindLr], test: finder.RangeTest, run: tracking.Run) -> None:
    """Print the learning rate, where its picture is, and what to do next."""
    from tlkit import tracking
    from tlkit.progress import duration

    config, rate = job.config, getattr(job.config, job.config.phase).learning_rate
    delivered = not tracking.journal_of(run.run_id).unsent
    folder = tracking.run_folder(run.run_id) if delivered else None
    say(f"\nfind_lr: {_networks.title(config.backbone)}, phase {config.phase}")
    end = "" if len(test.rates) == config.steps else f", where the loss exploded at {test.rates[-1]:.1e}"
    say(f"  tested     {test.rates[0]:.1e} to {test.rates[-1]:.1e}: {len(test.rates)} steps{end}")
    if test.suggested:
        say(f"  suggested  {test.suggested:.1e} (now {rate}): a tenth of the rate at which the loss is least")
    else:
        say("  suggested  none: the loss never fell; see the picture, then try a lower --lowest or more --steps")
    say(f"  picture    {_links.shown(folder / PICTURE) if folder else f'{PICTURE} of run {run.run_id}'}")
    say(f"  time       {duration(time.perf_counter() - job.began)} in all")
    say("\nNext:")
    if test.suggested:
        more = {f"{config.phase}.learning_rate": f"{test.suggested:.1e}"}
        if config.batch_size != FindLr().batch_size:
            more["batch_size"] = str(config.batch_size)  # not `auto`, which would scale the rate
        own = [
            field.name for field in dataclasses.fields(FindLr) if field.name in ("phase", "lowest", "highest", "steps")
        ]
        say(f"  {_links.command('finetune', without=own, **more)}")
    if delivered:
        _links.print_links(run)


if __name__ == "__main__":
    cli.main(FindLr, run)
