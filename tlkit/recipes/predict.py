"""Predict the labels of photos with a model that a recipe has trained.

Of a multi-label model, all labels with a probability above 0.5 are printed and marked with *.

python -m tlkit.recipes.predict models:/m-0123456789abcdef photos --output predictions.csv

It ends with status 3 where a photo could not be read; the others are answered.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit import cli
from tlkit.config import Predict
from tlkit.display import say, shown
from tlkit.errors import InvalidInput
from tlkit.progress import Progress
from tlkit.recipes import _answering, _clusters, _models, _predicted
from tlkit.recipes._answering import Answering
from tlkit.recipes._predicted import NO_LABEL, Predicted

if TYPE_CHECKING:
    import numpy as np

    from tlkit.inference import Engine
    from tlkit.serving import Answer
    from tlkit.serving.many import Prediction
    from tlkit.serving.tables import Row

PRINTED = 64  # photos whose answers are printed; of more, labels are counted


def run(config: Predict) -> Predicted:
    """Predict, and print, count or write the answers; see `config.Predict` for the settings.

    Raises:
        InvalidInput: the model or a photo that is named does not exist, the output cannot be written, or no photo can
            be read and there is no output.
    """
    path = _models.locate(config.model)
    from tlkit.data.sources.named import named_photos
    from tlkit.serving import tables

    if config.output:
        tables.check(config.output)
    named = named_photos(config.photos)
    for note in named.notes:
        say(note, error=True)
    is_many = len(named.photos) > PRINTED
    answering = _answering.load(config.model, path, is_many, by_keras=bool(config.cluster))
    with _clusters.joined(config.cluster if is_many else None):
        predicted = _predict(config, answering, named.photos, path)
    if predicted.unread and not predicted.answered and not config.output:
        more = f" and {predicted.unread - 1:,} more" if predicted.unread > 1 else ""
        raise InvalidInput(f"{predicted.problems[0]}{more}")
    _predicted.print_unread(predicted)
    if config.output or is_many:
        _predicted.print_counts(predicted)
        _predicted.print_end(predicted, config.output)
    if predicted.answered:
        answering.keep()
    return predicted


def _predict(config: Predict, answering: Answering, photos: Mapping[str, str], path: Path) -> Predicted:
    """Answer all photos, and print or write each answer."""
    from tlkit import serving
    from tlkit.serving import tables

    classes, several, abstention = answering.classes, answering.several, answering.abstention
    if config.threshold is not None:
        _predicted.check_threshold(config.threshold, classes, several)
        abstention = abstention._replace(threshold=config.threshold, target_accuracy=None)
    _predicted.print_assumed(abstention)
    printed, predicted = not (len(photos) > PRINTED or config.output), Predicted()
    predictions = _predictions(answering, photos, path)
    first = next(predictions)  # with it the engine is prepared, which is no part of the rate
    with _output(config.output, len(photos)) as (write, advance):
        for photo, probabilities, error in itertools.chain([first], predictions):
            if probabilities is None:
                predicted.add_unread(photo, error)
                row = tables.row(photo, None, error)
            else:
                answer = serving.answer(probabilities, classes, several, abstention)
                labels = _labels(answer, several)
                predicted.add(labels, answer.novel)
                row = tables.row(photo, answer)
                if printed:
                    count = max(config.top, len(labels)) if several else config.top
                    shares = probabilities if answer.novel is None else probabilities[:-1]
                    ranking = serving.ranked(shares, classes, count)
                    _predicted.print_answer(photo, answer, ranking, several)
                    predicted.rankings.append(ranking)
            if write:
                write(row)
            if not printed:
                advance()
    return predicted


def _predictions(answering: Answering, photos: Mapping[str, str], path: Path) -> Iterator[Prediction]:
    """Give the probabilities for each photo; if there is a cluster, its workers compute all but the first few."""
    from tlkit.serving import afar, many

    engines: list[Engine] = []

    def prepare(sample: np.ndarray) -> Engine:
        engines.append(answering.prepare(sample))
        return engines[0]

    here: Any = many.predictions(photos, answering.read, prepare)
    workers = _clusters.current()
    if workers is None or answering.reading is None:
        yield from here
        return
    import keras

    rest = dict(photos)
    with contextlib.closing(here):
        for prediction in here:
            yield prediction
            del rest[prediction.path]
            if engines and len(photos) - len(rest) >= many.SAMPLE:
                break
    if rest:
        job = afar.Job(
            path.read_bytes(),
            keras.backend.backend(),
            engines[0].name,
            answering.reading,
            answering.abstention.novelty is not None,
        )
        yield from afar.predictions(workers, rest, job)


def _labels(answer: Answer, several: bool) -> list[tuple[str, float]]:
    """The labels for which a photo counts, with their probabilities."""
    if several:
        return [(label, share) for label, share in answer.top if share > 0.5] or [(NO_LABEL, answer.probability)]
    return [(answer.label, answer.probability)]


@contextlib.contextmanager
def _output(path: str | None, total: int) -> Iterator[tuple[Callable[[Row], None] | None, Callable[[], None]]]:
    """Give a function that writes a row of the table, if there is to be one, and one to call after each photo."""
    from tlkit.serving import tables

    progress = Progress("predicting", total)
    try:
        with progress, tables.writing_rows(path) if path else contextlib.nullcontext() as write:
            yield write, progress.advance
    except (KeyboardInterrupt, OSError):
        if path:
            done = f"{progress.done:,} of {total:,} photos were answered"
            say(f"{done}, and none is kept: {shown(path)} is written whole or not at all", error=True)
        raise


if __name__ == "__main__":
    cli.main(Predict, run, positional=("model", "photos"))
