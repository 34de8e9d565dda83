"""The model registry: a logged model becomes a version, and the champion only where it beats the present one."""

from __future__ import annotations

import datetime
import itertools
import json
import os
from typing import NamedTuple

from tlkit import untrusted
from tlkit.display import code, markdown
from tlkit.errors import InvalidInput
from tlkit.evaluation import predictions
from tlkit.labels import SEPARATOR

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before mlflow loads; the user's own setting wins

import mlflow
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

CHAMPION, CHALLENGER = "champion", "challenger"
NO_ALIAS = "none"  # in the tag `promotion`
SIGNIFICANT = 0.05
NAME_LENGTH = 256  # of a model, in MLflow's database
DESCRIPTION_LENGTH = 5000  # of a version, likewise

ABOUT = """\
Classifiers trained with tlkit. A new version becomes `champion` only where it beats the present champion on the same \
test examples (McNemar's exact test, p < 0.05); else it becomes `challenger`, or gets no alias where that test finds \
it worse or where it tells other things apart. Each version says how it compared. Each is tested on the same examples \
anew, so with many versions one will become champion by chance (about 1 in 40 tries between equals).

Load the champion with {load}.
"""


class Registered(NamedTuple):
    """A version of a registered model.

    Args:
        name: Of the registered model.
        version: Its number.
        alias: `champion`, `challenger` or, for none, empty, as decided when it was registered.
        reason: Why.
    """

    name: str
    version: str
    alias: str
    reason: str


class Decision(NamedTuple):
    """Which alias a version gets, and why.

    Args:
        alias: `champion`, `challenger` or, for none, empty.
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


def register(model_uri: str, name: str, run_id: str, client: mlflow.MlflowClient | None = None) -> Registered:
    """Make a logged model a version of a registered model, and its champion if it beats the present one.

    It does where it has more of the same test examples right (all labels of each, where it may have several) and
    McNemar's exact test gives p < 0.05; the first version is champion without a test. Any other becomes `challenger`,
    also one that cannot be compared, but gets no alias where it is significantly worse or tells other things apart:
    takes sounds where the champion takes photos, or has none of its labels. Doing it again, after an interruption too,
    makes no second version: what is missing is added.

    Args:
        model_uri: Of the logged model, `models:/m-…`.
        name: Of the registered model, which is made if need be.
        run_id: The run that logged the model, with its predictions.
        client: Of the store; by default of the one that MLflow is set to.

    Raises:
        InvalidInput: the name cannot be one.
        MlflowException: the store does not answer or refuses.
    """
    check_name(name)
    client = client or mlflow.MlflowClient()
    version = _version(client, model_uri, name, run_id)
    if "promotion" in version.tags:  # written last
        promotion = version.tags["promotion"]
        alias = "" if promotion == NO_ALIAS else promotion
        return Registered(name, str(version.version), alias, version.tags.get("promotion_reason", ""))
    run, said = untrusted.answered(client.get_run(run_id)), predictions.read(run_id, client)
    # Another process may move the alias at the same time: what was decided against the old champion is decided again.
    while True:
        version = client.get_model_version(name, version.version)
        champion = _holder(client, name, CHAMPION)
        decided = _decide(client, version, run, said, champion)
        _describe(client, version, run, decided)
        if _holder(client, name, CHAMPION) != champion:
            continue
        if decided.alias:
            client.set_registered_model_alias(name, decided.alias, version.version)
        elif "promotion_reason" in version.tags and _holder(client, name, CHALLENGER) == str(version.version):
            client.delete_registered_model_alias(name, CHALLENGER)  # from before an interruption and a new champion
        if decided.alias != CHAMPION or _holder(client, name, CHAMPION) == str(version.version):
            break
    if decided.alias == CHAMPION and decided.against:
        _replace(client, name, decided.against, str(version.version))
    _link(client, model_uri, version)
    client.set_model_version_tag(name, version.version, "promotion", decided.alias or NO_ALIAS)
    return Registered(name, str(version.version), decided.alias, decided.reason)


def _version(client: mlflow.MlflowClient, model_uri: str, name: str, run_id: str) -> ModelVersion:
    """Find the version that is this model, or make it."""
    try:
        uri = json.dumps(f"models:/{name}@{CHAMPION}", ensure_ascii=False)
        client.create_registered_model(name, description=ABOUT.format(load=code(f"mlflow.pyfunc.load_model({uri})")))
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


def _holder(client: mlflow.MlflowClient, name: str, alias: str) -> str | None:
    version = client.get_registered_model(name).aliases.get(alias)
    return None if version is None else str(version)


def _decide(
    client: mlflow.MlflowClient,
    version: ModelVersion,
    run: Run,
    said: predictions.Predictions | None,
    champion: str | None,
) -> Decision:
    if champion is None:
        return Decision(CHAMPION, "there was no champion to compare with")
    if champion == str(version.version):  # by hand, or by this function before it was interrupted
        tags = version.tags
        p_value = float(tags["p_value"]) if "p_value" in tags else None
        return Decision(
            CHAMPION, tags.get("promotion_reason", "it was made champion by hand"), tags.get("compared_with"), p_value
        )
    kind, theirs, missing = _of_champion(client, version.name, champion)
    apart = _apart(run.data.tags.get("kind"), kind, said, theirs)
    missing = apart or missing or _incomparable(said, theirs)
    if missing or said is None or theirs is None:
        given = f'{json.dumps(version.name, ensure_ascii=False)}, "{CHAMPION}", "{version.version}"'
        reason = (
            f"not comparable with version {champion}, the champion then: {missing}; to promote it anyway, move the "
            f"alias by hand, in the UI or with {code(f'mlflow.MlflowClient().set_registered_model_alias({given})')}"
        )
        return Decision("" if apart else CHALLENGER, reason, champion)
    paired = predictions.paired(said, theirs)
    more, significant = paired.only_first > paired.only_second, paired.p_value < SIGNIFICANT
    alias = CHALLENGER if not significant else CHAMPION if more else ""
    verb = {CHAMPION: "beats", CHALLENGER: "does not beat", "": "is worse than"}[alias]
    reason = (
        f"{verb} version {champion}, the champion then, on the same "
        f"{paired.examples:,} test examples: right where version {champion} was wrong: {paired.only_first}, "
        f"wrong where it was right: {paired.only_second}, {_p_value(paired.p_value)} (McNemar's exact test)"
    )
    errors = int((~theirs.correct).sum())
    if alias != CHAMPION and 2 * 0.5**errors >= SIGNIFICANT:  # the p-value of one that has all of these right
        reason += (
            f"; version {champion} has {f'only {errors}' if errors else 'none'} of them wrong, too few for any version "
            "to beat it: compare on a larger test split"
        )
    return Decision(alias, reason, champion, paired.p_value)


def _of_champion(
    client: mlflow.MlflowClient, name: str, version: str
) -> tuple[str | None, predictions.Predictions | None, str | None]:
    """Give what kind of thing it takes and its predictions, as far as they are known, and why they are not."""
    champion = untrusted.answered(client.get_model_version(name, version))
    kind = champion.tags.get("kind")
    if not champion.run_id:
        return kind, None, "the champion has no run"
    try:
        kind = kind or client.get_run(champion.run_id).data.tags.get("kind")
        found = predictions.read(champion.run_id, client)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return kind, None, "the champion's run is gone"
    return kind, found, None if found else f"the champion's run has no {predictions.FILE}"


def _apart(
    our_kind: str | None,
    their_kind: str | None,
    ours: predictions.Predictions | None,
    theirs: predictions.Predictions | None,
) -> str | None:
    """Say why two do not do the same thing; what is not known is no objection."""
    if our_kind and their_kind and our_kind != their_kind:
        return f"it takes {markdown(our_kind)}, the champion {markdown(their_kind)}"
    if ours and theirs and not _classes(ours) & _classes(theirs):
        return "it tells other classes apart"
    return None


def _classes(said: predictions.Predictions) -> set[str]:
    return {name for label in set(said.labels.tolist()) for name in label.split(SEPARATOR) if name}


def _incomparable(ours: predictions.Predictions | None, theirs: predictions.Predictions | None) -> str | None:
    if ours is None or theirs is None:
        return f"its run has no {predictions.FILE}" if ours is None else None
    for whose, said in (("it", ours), ("the champion", theirs)):
        if said.split != "test":
            return f"{whose} was scored on {said.split} examples, which may have chosen its epoch, not on test examples"
    return None if predictions.same_examples(ours, theirs) else "its test split is another"


def _describe(client: mlflow.MlflowClient, version: ModelVersion, run: Run, decided: Decision) -> None:
    tags = {
        "kind": run.data.tags.get("kind"),
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
    for split, name in itertools.product(("validation", "test"), ("accuracy", "map")):  # map: multi-label
        if (value := metrics.get(f"{split}_{name}")) is not None:
            called = "mAP" if name == "map" else name
            score = f"{value:.3f} {split} {called}"  # the number first: the page of all versions shows 20 letters
            bounds = [metrics.get(f"{split}_{name}_{bound}") for bound in ("low", "high")]
            if None not in bounds:
                score += f" (95 % interval {bounds[0]:.3f} to {bounds[1]:.3f})"
    named = {"Recipe": "recipe", "Backbone": "backbone", "Data set": "dataset_digest"}
    made = [f"{said} {code(tags[name])}" for said, name in named.items() if name in tags]
    parts = [score, f"**{(decided.alias or 'no alias').capitalize()}**: {decided.reason}", "; ".join(made)]
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
