"""Test a model on labeled data that it has not seen, or two models on the same data.

Examples that a model was trained on, and near copies of these, are named and left out.

python -m tlkit.recipes.evaluate models:/flowers@champion --data.path new_photos
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit import cli
from tlkit.config import Evaluate
from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.recipes import (
    _comparison,
    _comparison_tables,
    _evaluation,
    _evaluation_data,
    _evaluation_lost,
    _evaluation_promotion,
    _evaluation_text,
    _jobs,
    _links,
    _models,
    _runs,
    _training_runs,
    _versions,
)
from tlkit.recipes._evaluation import Evaluated, Subject

if TYPE_CHECKING:
    import numpy as np


def run(config: Evaluate) -> list[Evaluated]:
    """Test, log and print each model, and compare two; see `config.Evaluate` for the settings.

    Raises:
        InvalidInput: a model or the data cannot be used, or no example is left that the models have not seen.
    """
    versions = [_versions.resolve(model).uri for model in config.models]
    paths = [_models.locate(model) for model in versions]
    _jobs.start_keras()
    from tlkit import plots, tracking

    plots.begin()
    tracking.open_store(config.experiment)
    subjects = [_subject(config, model, path) for model, path in zip(versions, paths, strict=True)]
    if config.promote:
        _evaluation_promotion.check(versions)
    places = _places(config, subjects)
    evaluated = [_evaluate(config, subject, places) for subject in subjects]
    if len(evaluated) > 1:
        _compare(evaluated)
    if config.promote:
        _evaluation_promotion.promote(evaluated)
    _show_end(config, evaluated)
    return evaluated


def _subject(config: Evaluate, model: str, path: Path) -> Subject:
    """Load a model, and the data as it reads them, and find what it has seen of these."""
    from tlkit.data import modalities

    kinds = [name for name, row in modalities.MODALITIES.items() if row.requests]
    classifier = _models.load_classifier(model, path, "evaluate", kinds, config.classes)
    loaded = _evaluation_data.load(config, classifier)
    training = _training_runs.training(model, path)
    if not training.hashes:
        why = "its run logged no split" if training.run else "no run of it is in this store"
        say(f"{model}: what it was trained on is unknown, as {why}: make sure that the data are new to it", error=True)
    subject = Subject(classifier, path, loaded, training, _evaluation_data.seen(loaded.examples, classifier, training))
    _evaluation_data.say_seen(subject.seen, loaded, subject.name, not config.seen)
    return subject


def _places(config: Evaluate, subjects: list[Subject]) -> np.ndarray:
    """Give the positions of the examples to score: of two models, those that neither has seen.

    Raises:
        InvalidInput: there are none.
    """
    import numpy as np

    names = [subject.loaded.examples.names for subject in subjects]
    if any(other != names[0] for other in names):
        raise InvalidInput("the two models cannot read the same examples: evaluate them one by one")
    known = {place for subject in subjects for place in subject.seen} if not config.seen else set()
    places = np.array([place for place in range(len(names[0])) if place not in known], int)
    if not len(places):
        raise InvalidInput(
            f"all {len(names[0]):,} examples are known to the model: give others by --data.path, or score these by "
            "--seen true"
        )
    return places


def _evaluate(config: Evaluate, subject: Subject, places: np.ndarray) -> Evaluated:
    """Score a model, and log that as a run below the one that trained it."""
    from tlkit import tracking

    evaluated = _evaluation.score(subject, places, config)
    trained = subject.training.run
    tags = {"recipe": "evaluate", "kind": subject.classifier.kind, "evaluated_model": subject.classifier.name}
    params = {"model": subject.classifier.name, **_evaluation_data.settings(config.data)}
    experiment = config.experiment
    if trained:
        import mlflow

        experiment = mlflow.get_experiment(trained.info.experiment_id).name
        tags |= {"mlflow.parentRunId": trained.info.run_id, "evaluated_run": trained.info.run_id}
        tags |= {name: trained.data.tags[name] for name in ("backbone",) if name in trained.data.tags}
        params |= {name: value for name, value in trained.data.params.items() if name.startswith("backbone.")}
    title = f"evaluate {subject.name} on {subject.loaded.name}"
    with tracking.run(experiment, run_name=config.run_name, params=params, tags=tags, title=title) as tracked:
        tracking.log_text(_runs.as_yaml(dataclasses.asdict(config)), "config.yaml")
        _evaluation.log(tracked, evaluated)
        lost = _evaluation_lost.compare(evaluated)
        if lost:
            _evaluation_lost.log(lost)
        tracking.deliver()
    _training_runs.link(tracked.run_id, trained)
    _evaluation_text.show(evaluated)
    if lost:
        _evaluation_lost.show(lost, evaluated.examples.kind)
    return evaluated._replace(run_id=tracked.run_id)


def _compare(evaluated: list[Evaluated]) -> None:
    """Print the paired test of two models, as `compare` does."""
    from tlkit.evaluation.predictions import paired

    ours, theirs = (_evaluation_promotion.predictions_of(each) for each in evaluated)
    first, second = evaluated
    test = paired(ours, theirs)
    pair = _comparison.PairRow("A", "B", first.run_id, second.run_id, **test._asdict())
    say(f"\nA  {first.subject.name}\nB  {second.subject.name}")
    _comparison_tables.print_pairs([_comparison.judged(pair, test.p_value)], 80)


def _show_end(config: Evaluate, evaluated: list[Evaluated]) -> None:
    """Print where everything is, and what to do next."""
    import mlflow

    from tlkit import tracking

    say()
    last = tracking.Run(evaluated[-1].run_id, mlflow.get_run(evaluated[-1].run_id).info.experiment_id)
    for each in evaluated:
        folder = tracking.run_folder(each.run_id)
        name = mlflow.get_run(each.run_id).info.run_name
        say(f"  run       {name} ({each.run_id})")
        if folder:
            say(f"  mistakes  {_links.shown(folder / 'worst_mistakes.png')}")
            say(f"  report    {_links.shown(folder / 'report.html')}")
    say("\nNext:")
    ids = [each.run_id for each in evaluated]
    _links.print_links(last, ids, "both side by side", own="the evaluation")


if __name__ == "__main__":
    cli.main(Evaluate, run, positional=("models",))
