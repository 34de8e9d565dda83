"""Look for a learning rate: train a little while the rate grows, and watch the loss; the network is not kept.

python -m tlkit.recipes.find_lr --data.path photos --phase full
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING, Any

from tlkit import cli
from tlkit.config import FindLr
from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.recipes import _links, _runs, _steps

if TYPE_CHECKING:
    import keras

    from tlkit import data, tracking
    from tlkit.training import finder

PICTURE = "lr_range.png"


def run(config: FindLr) -> finder.RangeTest:
    """Test, log and draw the learning rates of a phase; see `config.FindLr` for the settings.

    Phase full begins with a head that has been trained for a little.
    """
    began = _steps.begin()
    from tlkit import runtime, tracking
    from tlkit.training import optimizers

    check(config)
    config = _steps.complete(config)
    _steps.check_stages(config)
    optimizers.check(config.optimizer)
    runtime.prepare(config.seed, config.precision)
    tracking.open_store(config.experiment)
    examples = _steps.photos(config.data)
    _steps.check_balance(config, examples)
    backbone = _steps.backbone(config)
    height, width, channels = backbone.input_shape[1:]
    model = _steps.classifier(config, backbone, examples)
    config = _steps.with_head(config, model, examples)
    if config.phase == "head" and config.head.solved:
        raise InvalidInput(
            "the head is solved, after which the loss falls at no rate: give --head.solved false, or --phase full"
        )
    splits = _steps.splits(config.data, examples, (height, width), channels)
    config = _steps.with_batch_size(config, model, splits)  # type: ignore[assignment]
    with _runs.tracked("find_lr", config, splits) as tracked:
        testing = time.perf_counter()
        seen = _test(config, model, splits)
        _log(config, seen, time.perf_counter() - testing)
    _summarize(config, seen, tracked, began)
    return seen


def check(config: FindLr) -> None:
    """Refuse a phase that has no one rate, or is left out.

    Raises:
        InvalidInput: it is so.
    """
    if config.phase == "full" and config.full.learning_rates:
        raise InvalidInput("full.learning_rates gives stages rates of their own; a test finds one: leave it out")
    if getattr(config, config.phase).epochs == 0:
        raise InvalidInput(f"{config.phase}.epochs is 0, so that there is no such phase: give more, or another --phase")


def _test(config: FindLr, model: keras.Model, splits: data.Splits) -> finder.RangeTest:
    """Test the rates, and tell how far it is."""
    import keras

    from tlkit import features
    from tlkit.progress import Progress

    seen = None
    if config.head.epochs or config.head.solved:
        (seen,) = _steps.extracted(_steps.extractor(config, features.pooled(model), "pooled"), splits.train)
    with Progress("learning rates", config.steps, "steps") as progress:
        told = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: progress.advance())
        more: dict[str, Any] = {name: getattr(config, name) for name in ("lowest", "highest", "steps")}
        return _steps.range_test(config, config.phase, model, splits, seen, callbacks=[told], **more)


def _log(config: FindLr, seen: finder.RangeTest, seconds: float) -> None:
    from tlkit import plots, tracking

    for step, (rate, loss, smoothed) in enumerate(zip(seen.rates, seen.losses, seen.smoothed, strict=True)):
        if math.isfinite(loss):
            tracking.log_metrics({"learning_rate": rate, "loss": loss, "smoothed_loss": smoothed}, step)
    found = {"suggested_learning_rate": seen.suggested} if seen.suggested else {}
    tracking.log_metrics({"training_seconds": seconds, **found})
    title = f"{_steps.named(config.backbone)} on {_runs.dataset_name(config.data)}, phase {config.phase}"
    given = getattr(config, config.phase).learning_rate
    picture = plots.lr_range(
        seen.rates, seen.losses, seen.smoothed, seen.suggested, None if given == "auto" else given, title
    )
    tracking.log_figure(picture, PICTURE)
    tracking.deliver()


def _summarize(config: FindLr, seen: finder.RangeTest, started: tracking.Run, began: float) -> None:
    """Print the rate, where its picture is, and what to do next."""
    from tlkit import tracking
    from tlkit.progress import duration

    setting = f"{config.phase}.learning_rate"
    given = getattr(config, config.phase).learning_rate
    there = not tracking.journal_of(started.run_id).unsent
    folder = tracking.run_folder(started.run_id) if there else None
    say(f"\nfind_lr: {_steps.named(config.backbone)}, phase {config.phase}")
    ended = "" if len(seen.rates) == config.steps else f", where the loss exploded at {seen.rates[-1]:.1e}"
    say(f"  tested     {seen.rates[0]:.1e} to {seen.rates[-1]:.1e}: {len(seen.rates)} steps{ended}")
    if seen.suggested:
        say(f"  suggested  {seen.suggested:.1e} (now {given}): a tenth of the rate at which the loss is least")
    else:
        say("  suggested  none: the loss never fell; see the picture, then try a lower --lowest or more --steps")
    say(f"  picture    {_links.shown(folder / PICTURE) if folder else f'{PICTURE} of run {started.run_id}'}")
    say(f"  time       {duration(time.perf_counter() - began)} in all")
    say("\nNext:")
    if seen.suggested:
        more = {setting: f"{seen.suggested:.1e}"}
        if config.batch_size != FindLr().batch_size:
            more["batch_size"] = str(config.batch_size)  # not `auto`, which would bring the rate in proportion
        own = [
            field.name for field in dataclasses.fields(FindLr) if field.name in ("phase", "lowest", "highest", "steps")
        ]
        say(f"  {_links.command('finetune', without=own, **more)}")
    if there:
        _links.print_links(started)


if __name__ == "__main__":
    cli.main(FindLr, run)
