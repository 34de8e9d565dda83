"""The model registry: a logged model becomes a version, and the champion only where it beats the present one."""

from __future__ import annotations

import datetime
import itertools
import json
from typing import NamedTuple

import mlflow
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from tlkit import untrusted
from tlkit.display import code
from tlkit.errors import InvalidInput
from tlkit.evaluation import predictions
from tlkit.tracking import promotion
from tlkit.tracking.promotion import CANDIDATE, CHALLENGER, CHAMPION, Decision

NO_ALIAS = "none"  # in the tag `promotion`
NAME_LENGTH = 256  # of a model, in MLflow's database
DESCRIPTION_LENGTH = 5000  # of a version, likewise

ABOUT = """\
Classifiers trained with tlkit. A new version becomes `champion` only where it beats the present champion on the same \
test examples (McNemar's exact test, p < 0.05); else it becomes `challenger`, or gets no alias where that test finds \
it worse or where it tells other things apart. Without a test score it is only `candidate`. Each version says how it \
compared. Each is tested on the same examples anew, so with many versions one will become champion by chance (about \
1 in 40 tries between equals).

Load the champion with {load}.
"""


class Registered(NamedTuple):
    """A version of a registered model.

    Args:
        name: Name of the registered model.
        version: Number of the version.
        alias: `champion`, `challenger`, `candidate` or, for none, empty, as decided when it was registered.
        reason: The reason in words.
    """

    name: str
    version: str
    alias: str
    reason: str


def check_name(name: str) -> None:
    """Refuse a name that the registry does not take or that `models:/NAME@champion` would not find again.

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

    It beats it where it gets more of the same test examples right (all labels of each, where they may have several)
    and McNemar's exact test gives p < 0.05; the first version with a test score is champion. Any other version becomes
    `challenger`, even one that cannot be compared, or `candidate` if it has no test score; it gets no alias where it is
    significantly worse or does something else: takes sounds where the champion takes photos, or has none of its labels.
    Registering a model again, after an
    interruption for example, makes no second version: it adds what is missing.

    Args:
        model_uri: URI of the logged model, `models:/m-…`.
        name: Name of the registered model, which is created where it does not exist.
        run_id: The run that logged the model, with its predictions.
        client: Of the store; by default of the one that MLflow is set to.

    Raises:
        InvalidInput: the name is not allowed.
        MlflowException: the store does not answer or refuses.
    """
    check_name(name)
    client = client or mlflow.MlflowClient()
    version = _version(client, model_uri, name, run_id)
    if "promotion" in version.tags:  # written last
        alias = "" if version.tags["promotion"] == NO_ALIAS else version.tags["promotion"]
        return Registered(name, str(version.version), alias, version.tags.get("promotion_reason", ""))
    decision = _promote(client, version, run_id)
    if decision.alias == CHAMPION and decision.against:
        _replace(client, name, decision.against, str(version.version))
    _link(client, model_uri, version)
    client.set_model_version_tag(name, version.version, "promotion", decision.alias or NO_ALIAS)
    return Registered(name, str(version.version), decision.alias, decision.reason)


def _promote(client: mlflow.MlflowClient, version: ModelVersion, run_id: str) -> Decision:
    """Decide the version's alias, write it down and set it."""
    name = version.name
    run, examples = untrusted.answered(client.get_run(run_id)), predictions.read(run_id, client)
    # Another process may move the alias at the same time: a comparison with the old champion is then repeated.
    while True:
        version = client.get_model_version(name, version.version)
        champion = _holder(client, name, CHAMPION)
        decision = promotion.decide(client, version, run, examples, champion)
        _describe(client, version, run, decision)
        if _holder(client, name, CHAMPION) != champion:
            continue
        if decision.alias:
            client.set_registered_model_alias(name, decision.alias, version.version)
        if "promotion_reason" in version.tags:
            _release(client, version, decision.alias)  # from before an interruption and a new champion
        if decision.alias != CHAMPION or _holder(client, name, CHAMPION) == str(version.version):
            return decision


def crown(client: mlflow.MlflowClient, name: str, number: str, decision: Decision, run_id: str) -> None:
    """Make a version champion for what an evaluation on new examples has shown, and write that down.

    Args:
        client: Of the store.
        name: Name of the registered model.
        number: Of the version.
        decision: Why, and against which version.
        run_id: The run of the evaluation.
    """
    version = client.get_model_version(name, number)
    tags = {"promotion": CHAMPION, "promotion_reason": decision.reason, "evaluated_in": run_id}
    tags |= {"compared_with": decision.against} if decision.against else {}
    tags |= {"p_value": f"{decision.p_value:.3g}"} if decision.p_value is not None else {}
    for key, value in tags.items():
        client.set_model_version_tag(name, number, key, value)
    text = f"{version.description or ''}\n\n**Champion**, by run {code(run_id)}: {decision.reason}.".strip()
    client.update_model_version(name, number, text[:DESCRIPTION_LENGTH])
    client.set_registered_model_alias(name, CHAMPION, number)
    _release(client, version, CHAMPION)
    if decision.against:
        _replace(client, name, decision.against, number)


def _release(client: mlflow.MlflowClient, version: ModelVersion, alias: str) -> None:
    """Take from a version the aliases that are not that of its decision."""
    for other in {CHALLENGER, CANDIDATE} - {alias}:
        if _holder(client, version.name, other) == str(version.version):
            client.delete_registered_model_alias(version.name, other)


def _version(client: mlflow.MlflowClient, model_uri: str, name: str, run_id: str) -> ModelVersion:
    """Find the version of this model, or create it."""
    try:
        uri = json.dumps(f"models:/{name}@{CHAMPION}", ensure_ascii=False)
        client.create_registered_model(name, description=ABOUT.format(load=code(f"mlflow.pyfunc.load_model({uri})")))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    if versions := _versions(client, model_uri, name):
        return versions[0]
    model_id = model_uri.removeprefix("models:/")
    created = client.create_model_version(name, model_uri, run_id, model_id=model_id, await_creation_for=0)
    first = _versions(client, model_uri, name)[0]
    if str(first.version) != str(created.version):  # two processes sent the same model at once
        client.delete_model_version(name, created.version)
    return first


def _versions(client: mlflow.MlflowClient, model_uri: str, name: str) -> list[ModelVersion]:
    # By name in Python: the filter has no way to write a name with both kinds of quotation marks.
    versions = client.search_model_versions(f"source_path = '{model_uri}'")
    return sorted((entry for entry in versions if entry.name == name), key=lambda entry: int(entry.version))


def _holder(client: mlflow.MlflowClient, name: str, alias: str) -> str | None:
    """Return the number of the version that has an alias."""
    version = client.get_registered_model(name).aliases.get(alias)
    return None if version is None else str(version)


def _describe(client: mlflow.MlflowClient, version: ModelVersion, run: Run, decision: Decision) -> None:
    tags = {
        "kind": run.data.tags.get("kind"),
        "backbone": run.data.tags.get("backbone"),
        "dataset_digest": run.data.tags.get("dataset_digest"),
        "compared_with": decision.against,
        "p_value": None if decision.p_value is None else f"{decision.p_value:.3g}",
        "promotion_reason": decision.reason,
    }
    for key, value in tags.items():
        if value is not None:
            client.set_model_version_tag(version.name, version.version, key, value)
    if not version.description or "promotion_reason" in version.tags:  # a person's own is kept
        client.update_model_version(version.name, version.version, _description(run, decision))


def _description(run: Run, decision: Decision) -> str:
    metrics, tags = run.data.metrics, run.data.tags
    score = ""
    for split, name in itertools.product(("validation", "test"), ("accuracy", "map")):  # map: multi-label
        if (value := metrics.get(f"{split}_{name}")) is not None:
            metric = "mAP" if name == "map" else name
            score = f"{value:.3f} {split} {metric}"  # the number first: the page of all versions shows 20 letters
            bounds = [metrics.get(f"{split}_{name}_{bound}") for bound in ("low", "high")]
            if None not in bounds:
                constant = metrics.get(f"{split}_majority_accuracy") if name == "accuracy" else None
                beside = "" if constant is None else f"; always the most frequent class: {constant:.3f}"
                score += f" (95 % interval {bounds[0]:.3f} to {bounds[1]:.3f}{beside})"
    headings = {"Recipe": "recipe", "Backbone": "backbone", "Data set": "dataset_digest"}
    origin = [f"{heading} {code(tags[name])}" for heading, name in headings.items() if name in tags]
    parts = [score, f"**{(decision.alias or 'no alias').capitalize()}**: {decision.reason}", "; ".join(origin)]
    return "\n\n".join(f"{part}." for part in parts if part)[:DESCRIPTION_LENGTH]


def _replace(client: mlflow.MlflowClient, name: str, old: str, new: str) -> None:
    """Note on the previous champion that it was replaced."""
    client.set_model_version_tag(name, old, "replaced_by", new)
    description = client.get_model_version(name, old).description or ""
    note = f"Replaced as champion by version {new}"
    text = f"{description}\n\n{note} on {datetime.datetime.now(datetime.UTC).date()}.".strip()
    if f"{note} on " not in description and len(text) <= DESCRIPTION_LENGTH:
        client.update_model_version(name, old, text)


def _link(client: mlflow.MlflowClient, model_uri: str, version: ModelVersion) -> None:
    """Note on the logged model what it is registered as, as mlflow.register_model does."""
    model_id = model_uri.removeprefix("models:/")
    linked = json.loads(client.get_logged_model(model_id).tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    if (version.name, str(version.version)) not in {(entry["name"], str(entry["version"])) for entry in linked}:
        linked.append({"name": version.name, "version": version.version})
        client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: json.dumps(linked)})
