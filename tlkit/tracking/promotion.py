"""Whether a new version of a registered model becomes its champion, and why."""

from __future__ import annotations

import json
from typing import NamedTuple

import mlflow
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from tlkit import untrusted
from tlkit.display import called, code, markdown, quoted
from tlkit.evaluation import predictions
from tlkit.evaluation.predictions import Predictions
from tlkit.labels import SEPARATOR

CHAMPION, CHALLENGER, CANDIDATE = "champion", "challenger", "candidate"
SIGNIFICANT = 0.05


class Decision(NamedTuple):
    """Which alias a version gets, and why.

    Args:
        alias: `champion`, `challenger`, `candidate` or, for none, empty.
        reason: The reason in words.
        against: The champion's version; None where there was none.
        p_value: P-value of the paired test, where there was one.
    """

    alias: str
    reason: str
    against: str | None = None
    p_value: float | None = None


def decide(
    client: mlflow.MlflowClient, version: ModelVersion, run: Run, ours: Predictions | None, champion: str | None
) -> Decision:
    """Decide which alias a version gets.

    Args:
        client: Of the store.
        version: The new version.
        run: The run that logged its model.
        ours: The run's predictions.
        champion: Number of the version that is champion now.
    """
    untested = _untested(ours)
    if champion is None:
        return (
            Decision(CANDIDATE, untested) if untested else Decision(CHAMPION, "there was no champion to compare with")
        )
    if champion == str(version.version):  # by hand, or by us before an interruption
        tags = version.tags
        p_value = float(tags["p_value"]) if "p_value" in tags else None
        return Decision(
            CHAMPION, tags.get("promotion_reason", "it was made champion by hand"), tags.get("compared_with"), p_value
        )
    kind, theirs, missing = _champion_predictions(client, version.name, champion)
    different = _different_task(run.data.tags.get("kind"), kind, ours, theirs)
    missing = different or missing or _incomparable(ours, theirs)
    if missing or ours is None or theirs is None:
        by_hand = bool(different) or run.data.tags.get("kind") == "nodes"
        why = f"{different or untested or missing}; {_remedy(version, by_hand)}"
        reason = f"not comparable with version {champion}, the champion then: {why}"
        return Decision("" if different else CANDIDATE if untested else CHALLENGER, reason, champion)
    return compared(ours, theirs, champion)


def _untested(examples: Predictions | None) -> str:
    """Say why a version has no test score, without which it cannot become champion; empty if it has one."""
    if examples is None:
        return f"it has no test score: its run has no {predictions.FILE}"
    if examples.split == "test":
        return ""
    return (
        f"it has no test score, only one on {examples.split} examples, which may have chosen its weights: "
        "`--data.val_as_test true` makes them the test"
    )


def _remedy(version: ModelVersion, by_hand: bool) -> str:
    """Say how a version that cannot be compared may become champion all the same."""
    if by_hand:
        arguments = f'{json.dumps(version.name, ensure_ascii=False)}, "{CHAMPION}", "{version.version}"'
        return (
            "to promote it anyway, move the alias by hand, in the UI or with "
            f"{code(f'mlflow.MlflowClient().set_registered_model_alias({arguments})')}"
        )
    both = " ".join(quoted(f"models:/{version.name}{end}") for end in (f"@{CHAMPION}", f"/{version.version}"))
    command = f"{called('evaluate')} {both} --data.path FOLDER --promote"
    return f"{code(command)} evaluates both on the same new photos, and the better one becomes champion"


def compared(ours: Predictions, theirs: Predictions, champion: str) -> Decision:
    """Decide by McNemar's test on the same examples.

    Args:
        ours: Predictions of the new version.
        theirs: Those of the champion.
        champion: Number of its version.
    """
    paired = predictions.paired(ours, theirs)
    better, significant = paired.only_first > paired.only_second, paired.p_value < SIGNIFICANT
    alias = CHALLENGER if not significant else CHAMPION if better else ""
    verb = {CHAMPION: "beats", CHALLENGER: "does not beat", "": "is worse than"}[alias]
    reason = (
        f"{verb} version {champion}, the champion then, on the same "
        f"{paired.examples:,} test examples: right where version {champion} was wrong: {paired.only_first}, "
        f"wrong where it was right: {paired.only_second}, {_p_value(paired.p_value)} ({paired.test})"
    )
    pairs = zip(theirs.groups or theirs.digests, theirs.correct, strict=True)
    errors = len({group for group, right in pairs if not right}) if theirs.groups else int((~theirs.correct).sum())
    if alias != CHAMPION and 2 * 0.5**errors >= SIGNIFICANT:  # p-value of a model that gets all of these right
        amount = f"only {errors}" if errors else "none"
        wrong = f"is wrong in {amount} of their groups" if theirs.groups else f"has {amount} of them wrong"
        reason += f"; version {champion} {wrong}, too few for any version to beat it: compare on a larger test split"
    return Decision(alias, reason, champion, paired.p_value)


def _champion_predictions(
    client: mlflow.MlflowClient, name: str, version: str
) -> tuple[str | None, Predictions | None, str | None]:
    """Return the champion's kind of examples and its predictions, as far as they are known, and why they are not."""
    champion = untrusted.answered(client.get_model_version(name, version))
    kind = champion.tags.get("kind")
    if not champion.run_id:
        return kind, None, "the champion has no run"
    try:
        kind = kind or client.get_run(champion.run_id).data.tags.get("kind")
        theirs = predictions.read(champion.run_id, client)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return kind, None, "the champion's run is gone"
    return kind, theirs, None if theirs else f"the champion's run has no {predictions.FILE}"


def _different_task(
    our_kind: str | None, their_kind: str | None, ours: Predictions | None, theirs: Predictions | None
) -> str | None:
    """Say why two models do different things; what is not known is not held against them."""
    if our_kind and their_kind and our_kind != their_kind:
        return f"it takes {markdown(our_kind)}, the champion {markdown(their_kind)}"
    if ours and theirs and not _classes(ours) & _classes(theirs):
        return "it has other classes"
    return None


def _classes(examples: Predictions) -> set[str]:
    return {name for label in set(examples.labels.tolist()) for name in label.split(SEPARATOR) if name}


def _incomparable(ours: Predictions | None, theirs: Predictions | None) -> str | None:
    """Say why the predictions cannot be compared."""
    if ours is None or theirs is None:
        return f"its run has no {predictions.FILE}" if ours is None else None
    if theirs.split != "test":
        return f"the champion has no test score, only one on {theirs.split} examples, which may have chosen its weights"
    return None if predictions.same_examples(ours, theirs) else "its test split is another"


def _p_value(value: float) -> str:
    return f"p = {value:.2g}" if value >= 0.001 else "p < 0.001"
