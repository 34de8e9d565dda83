"""The champion of a registered model, decided by `evaluate` on new examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tlkit.display import say, shown
from tlkit.errors import InvalidInput
from tlkit.recipes import _summary, _versions
from tlkit.recipes._evaluation import Evaluated

if TYPE_CHECKING:
    from tlkit.evaluation.predictions import Predictions


def check(models: Sequence[str]) -> None:
    """Refuse models that are no versions of one registered model of which one is its champion.

    Raises:
        InvalidInput: the message says what is allowed.
    """
    versions = [_version(model) for model in models]
    names = {name for name, _ in versions}
    if len(names) > 1:
        raise InvalidInput(f"promote is true, and the models are versions of {', '.join(sorted(names))}: give one name")
    (name,), numbers = names, [number for _, number in versions]
    champion = _champion(name)
    if champion and champion not in numbers:
        raise InvalidInput(
            f"promote is true, and version {champion} of {shown(name)} is champion: give it too, as "
            f"models:/{name}@champion"
        )
    if len(numbers) > 1 and not champion:
        raise InvalidInput(f"promote is true, and {shown(name)} has no champion yet: give one version")


def promote(evaluated: Sequence[Evaluated]) -> None:
    """Make a version champion if it beats the present one, or if there is none; say what was decided."""
    import mlflow

    from tlkit.tracking import promotion, registry

    by_number = {_version(each.subject.classifier.name)[1]: each for each in evaluated}
    name, champion = _version(evaluated[0].subject.classifier.name)[0], _champion(evaluated[0].subject.classifier.name)
    client = mlflow.MlflowClient()
    number, new = next(((number, each) for number, each in by_number.items() if number != champion), ("", None))
    if new is None:
        say(f"\n{shown(name)}: version {champion} is champion already")
        return
    examples = f"{new.scores.photos:,} {new.examples.kind} of {new.subject.loaded.name}"
    if champion:
        theirs = predictions_of(by_number[champion])
        decision = promotion.compared(predictions_of(new), theirs, champion)
    else:
        reason = f"there was no champion; tested on {examples}, accuracy {new.scores.accuracy:.3f}"
        decision = promotion.Decision(promotion.CHAMPION, reason)
    if decision.alias == promotion.CHAMPION:
        registry.crown(client, name, number, decision, new.run_id)
    say()
    _summary.print_registered((name, number, decision.alias, decision.reason))


def predictions_of(evaluated: Evaluated) -> Predictions:
    """Give the predictions as those are that a run has logged."""
    from tlkit.evaluation import predictions

    return predictions.of_table(evaluated.predictions, "test")


def _version(model: str) -> tuple[str, str]:
    found = _versions.numbered(model)
    if not found:
        raise InvalidInput(f"promote is true, and {model!r} is no version of a registered model: give models:/NAME/3")
    return found


def _champion(model: str) -> str | None:
    """Give the number of a registered model's champion; None if it has none."""
    import mlflow

    from tlkit.tracking.registry import CHAMPION

    name = _version(model)[0] if model.startswith("models:/") else model
    version = mlflow.MlflowClient().get_registered_model(name).aliases.get(CHAMPION)
    return None if version is None else str(version)
