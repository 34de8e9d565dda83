"""The model registry: a logged model becomes a version, and the champion only where it beats the present one."""

from __future__ import annotations

import datetime
import json
import os
from typing import NamedTuple

from tlkit import predictions
from tlkit.errors import InvalidInput

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before mlflow loads; the user's own setting wins

import mlflow
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

CHAMPION, CHALLENGER = "champion", "challenger"
SIGNIFICANT = 0.05
NAME_LENGTH = 256  # of a model, in MLflow's database
DESCRIPTION_LENGTH = 5000  # of a version, likewise

ABOUT = """\
Classifiers trained with tlkit. A new version becomes `champion` only where it beats the present champion on the same \
test examples (McNemar's exact test, p < 0.05); else it becomes `challenger`. Each version says how it compared.

Load the champion with `mlflow.pyfunc.load_model("models:/{name}@champion")`.
"""


class Registered(NamedTuple):
    """A version of a registered model.

    Args:
        name: Of the registered model.
        version: Its number.
        alias: `champion` or `challenger`, as decided when it was registered.
        reason: Why.
    """

    name: str
    version: str
    alias: str
    reason: str


class Decision(NamedTuple):
    """Which alias a version gets, and why.

    Args:
        alias: `champion` or `challenger`.
        reason: In words.
        against: The champion's version; None where there was none.
        p_value: Of the paired test, where there was one.
    """

    alias: str
    reason: str
    against: str | None = None
    p_value: float | None = None


def check_name(name: str) -> None:
    """Turn down a name that the registry refuses or that `models:/NAME@champion` would not find again.

    Raises:
        InvalidInput: it is such a name.

    >>> check_name("flowers")
    >>> check_name("team/flowers")
    Traceback (most recent call last):
        ...
    tlkit.errors.InvalidInput: 'team/flowers' cannot name a registered model; ...
    """
    refused = set("/:?") & set(name) or not name.strip() or name == "." or name.startswith("..")
    if refused or not name.isprintable() or len(name) > NAME_LENGTH:
        raise InvalidInput(
            f"{name!r} cannot name a registered model; a name has 1 to {NAME_LENGTH} characters, without / : and ?, "
            "and does not begin with two dots, such as flowers"
        )


def register(model_uri: str, name: str, run_id: str) -> Registered:
    """Make a logged model a version of a registered model, and its champion if it beats the present one.

    It does where it has more of the same test examples right and McNemar's exact test gives p < 0.05; the first version
    is champion without a test. Any other becomes `challenger`. Doing it again, after an interruption too, makes no
    second version: what is missing is added.

    Args:
        model_uri: Of the logged model, `models:/m-…`.
        name: Of the registered model, which is made if need be.
        run_id: The run that logged the model, with its predictions.

    Raises:
        InvalidInput: the name cannot be one.
        MlflowException: the store does not answer or refuses.
    """
    check_name(name)
    client = mlflow.MlflowClient()
    version = _version(client, model_uri, name, run_id)
    if "promotion" in version.tags:  # written last
        return Registered(
            name, str(version.version), version.tags["promotion"], version.tags.get("promotion_reason", "")
        )
    run, said = client.get_run(run_id), predictions.read(run_id)
    # Another process may move the alias at the same time: what was decided against the old champion is decided again.
    while True:
        version = client.get_model_version(name, version.version)
        champion = _champion(client, name)
        decided = _decide(client, version, said, champion)
        _describe(client, version, run, decided)
        if _champion(client, name) != champion:
            continue
        client.set_registered_model_alias(name, decided.alias, version.version)
        if decided.alias == CHALLENGER or _champion(client, name) == str(version.version):
            break
    if decided.alias == CHAMPION and decided.against:
        _replace(client, name, decided.against, str(version.version))
    _link(client, model_uri, version)
    client.set_model_version_tag(name, version.version, "promotion", decided.alias)
    return Registered(name, str(version.version), decided.alias, decided.reason)


def _version(client: mlflow.MlflowClient, model_uri: str, name: str, run_id: str) -> ModelVersion:
    """Find the version that is this model, or make it."""
    try:
        client.create_registered_model(name, description=ABOUT.format(name=name))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    if found := _versions(client, model_uri, name):
        return found[0]
    model_id = model_uri.removeprefix("models:/")
    made = client.create_model_version(name, model_uri, run_id, model_id=model_id, await_creation_for=0)
    first = _versions(client, model_uri, name)[0]
    if str(first.version) != str(made.version):  # two processes sent the same at once
        client.delete_model_version(name, made.version)
    return first


def _versions(client: mlflow.MlflowClient, model_uri: str, name: str) -> list[ModelVersion]:
    # By name in Python: the filter has no way to write a name with both kinds of quotation marks.
    found = client.search_model_versions(f"source_path = '{model_uri}'")
    return sorted((entry for entry in found if entry.name == name), key=lambda entry: int(entry.version))


def _champion(client: mlflow.MlflowClient, name: str) -> str | None:
    version = client.get_registered_model(name).aliases.get(CHAMPION)
    return None if version is None else str(version)


def _decide(
    client: mlflow.MlflowClient, version: ModelVersion, said: predictions.Predictions | None, champion: str | None
) -> Decision:
    if champion is None:
        return Decision(CHAMPION, "there was no champion to compare with")
    if champion == str(version.version):  # by hand, or by this function before it was interrupted
        tags = version.tags
        p_value = float(tags["p_value"]) if "p_value" in tags else None
        return Decision(
            CHAMPION, tags.get("promotion_reason", "it was made champion by hand"), tags.get("compared_with"), p_value
        )
    theirs, missing = _of_champion(client, version.name, champion)
    missing = missing or _incomparable(said, theirs)
    if missing or said is None or theirs is None:
        return Decision(CHALLENGER, f"not comparable with version {champion}, the champion then: {missing}", champion)
    paired = predictions.paired(said, theirs)
    won = paired.p_value < SIGNIFICANT and paired.only_first > paired.only_second
    reason = (
        f"{'beats' if won else 'does not beat'} version {champion}, the champion then, on the same "
        f"{paired.examples:,} test examples: right where version {champion} was wrong: {paired.only_first}, "
        f"wrong where it was right: {paired.only_second}, {_p_value(paired.p_value)} (McNemar's exact test)"
    )
    return Decision(CHAMPION if won else CHALLENGER, reason, champion, paired.p_value)


def _of_champion(
    client: mlflow.MlflowClient, name: str, version: str
) -> tuple[predictions.Predictions | None, str | None]:
    run_id = client.get_model_version(name, version).run_id
    if not run_id:
        return None, "it has no run"
    try:
        found = predictions.read(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None, "its run is gone"
    return found, None if found else f"its run has no {predictions.FILE}"


def _incomparable(ours: predictions.Predictions | None, theirs: predictions.Predictions | None) -> str | None:
    if ours is None or theirs is None:
        return f"the run of this version has no {predictions.FILE}" if ours is None else None
    for whose, said in (("this version", ours), ("the champion", theirs)):
        if said.split != "test":
            return f"{whose} was scored on {said.split} examples, which may have chosen its epoch, not on test examples"
    if set(ours.labels) != set(theirs.labels):
        return "it has other classes"
    return None if predictions.same_examples(ours, theirs) else "its test split is another"


def _describe(client: mlflow.MlflowClient, version: ModelVersion, run: Run, decided: Decision) -> None:
    tags = {
        "backbone": run.data.tags.get("backbone"),
        "dataset_digest": run.data.tags.get("dataset_digest"),
        "compared_with": decided.against,
        "p_value": None if decided.p_value is None else f"{decided.p_value:.3g}",
        "promotion_reason": decided.reason,
    }
    for key, value in tags.items():
        if value is not None:
            client.set_model_version_tag(version.name, version.version, key, value)
    if not version.description or "promotion_reason" in version.tags:  # a person's own is kept
        client.update_model_version(version.name, version.version, _description(run, decided))


def _description(run: Run, decided: Decision) -> str:
    metrics, tags = run.data.metrics, run.data.tags
    score = ""
    for split in ("validation", "test"):
        if (accuracy := metrics.get(f"{split}_accuracy")) is not None:
            score = f"{accuracy:.3f} {split} accuracy"  # the number first: the page of all versions shows 20 letters
            bounds = [metrics.get(f"{split}_accuracy_{bound}") for bound in ("low", "high")]
            if None not in bounds:
                score += f" (95 % interval {bounds[0]:.3f} to {bounds[1]:.3f})"
    named = {"Recipe": "recipe", "Backbone": "backbone", "Data set": "dataset_digest"}
    made = [f"{said} `{tags[name]}`" for said, name in named.items() if name in tags]
    parts = [score, f"**{decided.alias.capitalize()}**: {decided.reason}", "; ".join(made)]
    return "\n\n".join(f"{part}." for part in parts if part)[:DESCRIPTION_LENGTH]


def _replace(client: mlflow.MlflowClient, name: str, old: str, new: str) -> None:
    """Say on the champion before that it was replaced."""
    client.set_model_version_tag(name, old, "replaced_by", new)
    description = client.get_model_version(name, old).description or ""
    said = f"Replaced as champion by version {new}"
    text = f"{description}\n\n{said} on {datetime.datetime.now(datetime.UTC).date()}.".strip()
    if f"{said} on " not in description and len(text) <= DESCRIPTION_LENGTH:
        client.update_model_version(name, old, text)


def _link(client: mlflow.MlflowClient, model_uri: str, version: ModelVersion) -> None:
    """Say on the logged model what it is registered as, as mlflow.register_model does."""
    model_id = model_uri.removeprefix("models:/")
    linked = json.loads(client.get_logged_model(model_id).tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    if (version.name, str(version.version)) not in {(entry["name"], str(entry["version"])) for entry in linked}:
        linked.append({"name": version.name, "version": version.version})
        client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: json.dumps(linked)})


def _p_value(value: float) -> str:
    return f"p = {value:.2g}" if value >= 0.001 else "p < 0.001"
