"""The model registry: versions are made once, the champion is beaten or stays, and the reason stands on the version."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from mlflow.store.artifact.utils.models import get_model_name_and_version
from mlflow.utils.validation import _validate_model_name

from tlkit.errors import InvalidInput
from tlkit.evaluation import predictions
from tlkit.tracking import registry

EXAMPLES = 40


def wrong(*indices: int) -> np.ndarray:
    """Whether each example is right: all but these."""
    return ~np.isin(np.arange(EXAMPLES), indices)


def logged(
    right: np.ndarray | None,
    split: str = "test",
    digest: str = "d",
    classes: Sequence[str] = ("cat", "dog"),
    kind: str | None = "photos",
    groups: Sequence[str] | None = None,
) -> tuple[str, str]:
    """Log a run with a model and with the predictions of one that is right where `right` says; give URI and run id."""
    client = mlflow.MlflowClient()
    tags = {"backbone": "LetterNet", "dataset_digest": "0a1b", "recipe": "finetune"} | ({"kind": kind} if kind else {})
    with mlflow.start_run(tags=tags) as run:
        if right is not None:
            mlflow.log_metrics(
                {f"{split}_accuracy": right.mean(), f"{split}_accuracy_low": 0.8, f"{split}_accuracy_high": 0.99}
            )
            labels = np.arange(len(right)) % 2
            probabilities = np.where((labels == 0) == right, 0.9, 0.1)[:, None] * [1, -1] + [0, 1]
            hashes = [f"{digest}{number}" for number in range(len(right))]
            table = predictions.table(split, hashes, hashes, labels, probabilities, classes, groups)
            rows = [list(row) for row in zip(*table.values(), strict=True)]
            mlflow.log_dict({"columns": list(table), "data": rows}, predictions.FILE)  # as mlflow.log_table writes it
    model = client.create_logged_model(run.info.experiment_id, name="model", source_run_id=run.info.run_id)
    client.finalize_logged_model(model.model_id, "READY")
    return f"models:/{model.model_id}", run.info.run_id


def register(right: np.ndarray | None, **arguments: Any) -> registry.Registered:
    uri, run_id = logged(right, **arguments)
    return registry.register(uri, "letters", run_id)


def version(number: str) -> mlflow.entities.model_registry.ModelVersion:
    return mlflow.MlflowClient().get_model_version("letters", number)


def aliases(name: str = "letters") -> dict[str, str]:
    return {alias: str(number) for alias, number in mlflow.MlflowClient().get_registered_model(name).aliases.items()}


def test_the_first_version_is_champion_and_says_so(folder: Path):
    uri, run_id = logged(wrong(1, 2))
    registered = registry.register(uri, "letters", run_id)
    assert registered == ("letters", "1", "champion", "there was no champion to compare with")
    assert aliases() == {"champion": "1"}
    written = version("1")
    assert (written.run_id, written.source) == (run_id, uri)
    assert written.tags == {
        "kind": "photos",
        "backbone": "LetterNet",
        "dataset_digest": "0a1b",
        "promotion": "champion",
        "promotion_reason": "there was no champion to compare with",
    }
    assert written.description == (
        "0.950 test accuracy (95 % interval 0.800 to 0.990).\n\n"
        "**Champion**: there was no champion to compare with.\n\n"
        "Recipe `finetune`; Backbone `LetterNet`; Data set `0a1b`."
    )
    assert "models:/letters@champion" in mlflow.MlflowClient().get_registered_model("letters").description
    registry.register(uri, "other", run_id)
    linked = json.loads(mlflow.get_logged_model(uri.removeprefix("models:/")).tags["mlflow.modelVersions"])
    assert [(entry["name"], str(entry["version"])) for entry in linked] == [("letters", "1"), ("other", "1")]


def test_names_are_no_markup_in_descriptions(folder: Path):
    uri, run_id = logged(wrong(1, 2))
    mlflow.MlflowClient().set_tag(run_id, "backbone", "`<b>")
    name = 'a`b "c'
    assert registry.register(uri, name, run_id).alias == "champion"
    (first,) = mlflow.MlflowClient().search_model_versions()
    assert first.description.endswith("Recipe `finetune`; Backbone `` `<b> ``; Data set `0a1b`.")
    about = mlflow.MlflowClient().get_registered_model(name).description
    assert r"""with `` mlflow.pyfunc.load_model("models:/a`b \"c@champion") ``.""" in about
    uri, run_id = logged(wrong(1), digest="other", kind="sounds")
    registry.register(uri, name, run_id)
    assert r"""`` mlflow.MlflowClient().set_registered_model_alias("a`b \"c", "champion", "2") ``""" in next(
        found.description for found in mlflow.MlflowClient().search_model_versions() if str(found.version) == "2"
    )


def test_a_version_that_is_right_significantly_more_often_becomes_champion(folder: Path):
    register(wrong(*range(10)))
    register(wrong(*range(10)))  # a challenger, which stays one
    registered = register(wrong(0, 39))
    assert (registered.version, registered.alias) == ("3", "champion")
    assert registered.reason == (
        "beats version 1, the champion then, on the same 40 test examples: right where version 1 was wrong: 9, "
        "wrong where it was right: 1, p = 0.021 (McNemar's exact test)"
    )
    assert aliases() == {"champion": "3", "challenger": "2"}
    assert f"**Champion**: {registered.reason}." in version("3").description
    tags = version("3").tags
    assert (tags["promotion"], tags["compared_with"], tags["p_value"]) == ("champion", "1", "0.0215")
    replaced = version("1")
    assert replaced.tags["replaced_by"] == "3"
    first, *_, last = replaced.description.split("\n\n")
    assert first.startswith("0.750 test accuracy")
    assert last.startswith("Replaced as champion by version 3 on 20")


def test_a_version_that_does_not_beat_the_champion_becomes_challenger(folder: Path):
    register(wrong(*range(10)))
    better_by_chance, equal, worse_by_chance = (
        register(right) for right in (wrong(*range(5)), wrong(*range(10)), wrong(*range(15)))
    )
    start = (
        "does not beat version 1, the champion then, on the same 40 test examples: right where version 1 was wrong: "
    )
    for registered, said in [
        (better_by_chance, "5, wrong where it was right: 0, p = 0.062 (McNemar's exact test)"),
        (equal, "0, wrong where it was right: 0, p = 1 (McNemar's exact test)"),
        (worse_by_chance, "0, wrong where it was right: 5, p = 0.062 (McNemar's exact test)"),
    ]:
        assert (registered.alias, registered.reason) == ("challenger", start + said)
        assert version(registered.version).tags["promotion_reason"] == registered.reason
    assert aliases() == {"champion": "1", "challenger": "4"}  # an older challenger has given the alias up
    assert "replaced_by" not in version("1").tags


def test_a_version_that_is_significantly_worse_gets_no_alias(folder: Path):
    register(wrong(*range(10)))
    register(wrong(*range(9)))
    uri, run_id = logged(wrong(*range(16)))
    registered = registry.register(uri, "letters", run_id)
    assert registered[1:] == (
        "3",
        "",
        "is worse than version 1, the champion then, on the same 40 test examples: right where version 1 was wrong: 0, "
        "wrong where it was right: 6, p = 0.031 (McNemar's exact test)",
    )
    assert aliases() == {"champion": "1", "challenger": "2"}
    assert f"**No alias**: {registered.reason}." in version("3").description
    tags = version("3").tags
    assert (tags["promotion"], tags["compared_with"], tags["p_value"]) == ("none", "1", "0.0312")
    assert registry.register(uri, "letters", run_id) == registered


FEW = "; version 1 has {} of them wrong, too few for any version to beat it: compare on a larger test split"


@pytest.mark.parametrize(
    ("errors", "said"), [(0, FEW.format("none")), (1, FEW.format("only 1")), (5, FEW.format("only 5")), (6, "")]
)
def test_a_champion_with_too_few_errors_to_be_beaten(folder: Path, errors: int, said: str):
    register(wrong(*range(errors)))
    for right, alias in [(wrong(0), "challenger"), (wrong(*range(20)), "")]:
        registered = register(right)
        assert (registered.alias, registered.reason.partition(" (McNemar's exact test)")[2]) == (alias, said)
    assert register(wrong()).alias == ("challenger" if said else "champion")  # better than that none can be


def test_examples_of_one_group_count_as_one(folder: Path):
    groups = [str(index // 4) for index in range(EXAMPLES)]
    register(wrong(*range(16)), groups=groups)
    uri, run_id = logged(wrong(), groups=groups)
    mlflow.MlflowClient().log_metric(run_id, "test_majority_accuracy", 0.5)
    registered = registry.register(uri, "letters", run_id)
    assert registered.alias == "challenger"  # by photos p would be below 0.001
    assert registered.reason.endswith(
        "16, wrong where it was right: 0, p = 0.12 (exact permutation test of 10 groups); version 1 is wrong in only 4 "
        "of their groups, too few for any version to beat it: compare on a larger test split"
    )
    assert "1.000 test accuracy (95 % interval 0.800 to 0.990; always the most frequent class: 0.500)" in (
        version("2").description
    )


START = "not comparable with version {}, the champion then: "
EVALUATE = (
    "; `python -m tlkit.recipes.evaluate models:/letters@champion models:/letters/{} --data.path FOLDER --promote` "
    "evaluates both on the same new photos, and the better one becomes champion"
)
BY_HAND = (
    "; to promote it anyway, move the alias by hand, in the UI or with "
    '`mlflow.MlflowClient().set_registered_model_alias("letters", "champion", "{}")`'
)


VALIDATION = (
    "it has no test score, only one on validation examples, which may have chosen its weights: "
    "`--data.val_as_test true` makes them the test"
)
NO_TABLE = "it has no test score: its run has no predictions.json"


def test_without_a_test_score_there_is_no_champion(folder: Path):
    untested = register(wrong(), split="validation")
    assert untested == ("letters", "1", "candidate", VALIDATION)
    assert version("1").tags["promotion"] == "candidate"
    assert f"**Candidate**: {VALIDATION}." in version("1").description
    assert register(None) == ("letters", "2", "candidate", NO_TABLE)
    assert register(wrong(*range(10)))[1:3] == ("3", "champion")  # the first that is tested
    assert aliases() == {"candidate": "2", "champion": "3"}


def test_a_champion_of_old_without_a_test_score_is_beaten_on_new_photos(folder: Path):
    register(wrong(), split="validation")
    mlflow.MlflowClient().set_registered_model_alias("letters", "champion", "1")  # as before candidates
    made = register(wrong())
    said = "the champion has no test score, only one on validation examples, which may have chosen its weights"
    assert (made.alias, made.reason) == ("challenger", START.format(1) + said + EVALUATE.format(2))


def test_a_challenger_that_cannot_be_compared_says_why(folder: Path):
    register(wrong(*range(20)))
    made = [
        register(wrong(), digest="e"),
        register(wrong(), classes=("cat", "cow")),  # as where a rare class is missing from one test split
        register(wrong(), split="validation"),
        register(wrong(), digest="e", kind=None),
        register(None),
    ]
    said = [
        "its test split is another",
        "its test split is another",
        VALIDATION,
        "its test split is another",
        NO_TABLE,
    ]
    for registered, why in zip(made, said, strict=True):
        assert registered.reason == START.format(1) + why + EVALUATE.format(registered.version)
        assert registered.alias == ("candidate" if why in (VALIDATION, NO_TABLE) else "challenger")
    assert aliases() == {"champion": "1", "challenger": "5", "candidate": "6"}
    assert version("4").description.startswith("1.000 validation accuracy")
    assert version("6").description.startswith("**Candidate**: not comparable")
    assert "kind" not in version("5").tags


def test_to_promote_it_by_hand_is_done_as_it_says(folder: Path):
    register(wrong())
    said = register(None, kind="sounds").reason.split("`")[1]
    eval(said, {"mlflow": mlflow})  # noqa: S307  our own words
    assert aliases()["champion"] == "2"


def test_a_version_that_tells_other_things_apart_gets_no_alias(folder: Path):
    register(wrong(*range(20)))
    register(wrong())  # takes the title
    made = [
        register(wrong(), classes=("cow", "ox")),
        register(wrong(), classes=("cow", "ox"), split="validation"),
        register(wrong(), kind="sounds"),
        register(None, kind="arrays"),
    ]
    said = ["it has other classes"] * 2 + ["it takes sounds, the champion photos"]
    for registered, why in zip(made, [*said, "it takes arrays, the champion photos"], strict=True):
        assert registered.reason == START.format(2) + why + BY_HAND.format(registered.version)
        assert registered.alias == ""
        written = version(registered.version)
        assert written.tags["promotion"] == "none"
        assert "**No alias**: not comparable" in written.description
    assert aliases() == {"champion": "2"}
    assert version("5").tags["kind"] == "sounds"


def test_a_champion_that_cannot_be_compared_stays(folder: Path):
    client = mlflow.MlflowClient()
    register(None)
    by_hand, gone = (client.create_model_version("letters", "file:///elsewhere", run) for run in (None, "0" * 32))
    for champion, why in [
        ("1", "the champion's run has no predictions.json"),
        (by_hand.version, "the champion has no run"),
        (gone.version, "the champion's run is gone"),
    ]:
        client.set_registered_model_alias("letters", "champion", champion)
        made = register(wrong())
        assert made.alias == "challenger"
        assert made.reason == START.format(champion) + why + EVALUATE.format(made.version)
        assert aliases().items() >= {"champion": str(champion), "challenger": made.version}.items()
    client.set_model_version_tag("letters", gone.version, "kind", "sounds")
    assert register(wrong()).alias == ""  # what it takes stands on the version, though its run is gone


def test_a_champion_registered_by_hand_takes_what_its_run_says(folder: Path):
    mlflow.register_model(logged(wrong(), kind="sounds")[0], "letters")
    mlflow.MlflowClient().set_registered_model_alias("letters", "champion", "1")
    assert "it takes photos, the champion sounds" in register(wrong()).reason


def test_a_version_registered_by_hand_gets_what_is_missing(folder: Path):
    uri, run_id = logged(wrong())
    mlflow.register_model(uri, "letters")
    mlflow.MlflowClient().update_model_version("letters", "1", "Mine.")
    assert registry.register(uri, "letters", run_id)[1:3] == ("1", "champion")
    assert (version("1").description, version("1").tags["promotion"]) == ("Mine.", "champion")


def test_registering_again_changes_nothing(folder: Path):
    uri, run_id = logged(wrong(*range(10)))
    first = registry.register(uri, "letters", run_id)
    register(wrong())
    before = [version("1").description, version("1").tags, aliases()]
    assert registry.register(uri, "letters", run_id) == first
    assert [version("1").description, version("1").tags, aliases()] == before
    assert len(mlflow.search_model_versions(filter_string="name = 'letters'")) == 2
    assert register(wrong()).version == "3"  # nor was a number used up


WRITES = (
    "create_registered_model",
    "create_model_version",
    "set_model_version_tag",
    "update_model_version",
    "set_registered_model_alias",
    "set_logged_model_tags",
)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Give what lets the registry take so many more writes, and then no more."""
    left = [0]

    def cut(name: str) -> None:
        original = getattr(mlflow.MlflowClient, name)

        def call(*arguments, **named):
            left[0] -= 1
            if left[0] < 0:
                raise MlflowException("no answer", TEMPORARILY_UNAVAILABLE)
            return original(*arguments, **named)

        monkeypatch.setattr(mlflow.MlflowClient, name, call)

    for name in WRITES:
        cut(name)
    return lambda writes: left.__setitem__(0, writes)


@pytest.mark.parametrize(
    "cuts", [[10], pytest.param(range(14), marks=pytest.mark.slow)], ids=["after the alias was set", "at each write"]
)
def test_registering_again_after_an_outage_adds_what_is_missing(
    folder: Path, outage: Callable[[int], None], cuts: Sequence[int]
):
    first, second, states = logged(wrong(*range(10))), logged(wrong()), []
    for cut in [*cuts, 14]:
        name = f"letters{cut}"
        outage(100)
        registry.register(first[0], name, first[1])
        outage(cut)
        if cut < 14:
            with pytest.raises(MlflowException, match="no answer"):
                registry.register(second[0], name, second[1])
            outage(100)
        assert registry.register(second[0], name, second[1]).reason.startswith("beats version 1")
        versions = mlflow.search_model_versions(filter_string=f"name = '{name}'", order_by=["version_number ASC"])
        states.append(([(entry.description, entry.tags) for entry in versions], aliases(name)))
    assert all(state == states[-1] for state in states)
    [(description, tags), _], standing = states[0]
    assert (tags["replaced_by"], description.count("Replaced"), standing) == ("2", 1, {"champion": "2"})


def test_a_champion_that_is_new_since_the_comparison_is_compared_with(folder: Path, monkeypatch: pytest.MonkeyPatch):
    register(wrong(*range(20)))
    describe, others = registry._describe, [logged(wrong())]

    def meanwhile(*arguments) -> None:
        describe(*arguments)
        if others:
            uri, run_id = others.pop()
            registry.register(uri, "letters", run_id)

    monkeypatch.setattr(registry, "_describe", meanwhile)
    registered = register(wrong(*range(10)))  # would beat version 1, but not version 3, which comes in between
    assert (registered.version, registered.alias) == ("2", "")
    assert registered.reason.startswith("is worse than version 3")
    assert version("2").tags["promotion_reason"] == registered.reason
    assert aliases() == {"champion": "3"}


def test_a_challenger_whose_comparison_is_out_of_date_after_an_outage_loses_the_alias(
    folder: Path, outage: Callable[[int], None]
):
    uri, run_id = logged(wrong(*range(20)))
    outage(100)
    register(wrong(*range(20)))
    outage(10)
    with pytest.raises(MlflowException, match="no answer"):
        registry.register(uri, "letters", run_id)
    assert aliases() == {"champion": "1", "challenger": "2"}
    outage(100)
    register(wrong())
    assert registry.register(uri, "letters", run_id).reason.startswith("is worse than version 3")
    assert aliases() == {"champion": "3"}


def test_an_alias_that_another_process_takes_at_once_is_won_back_only_by_the_better(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    register(wrong(*range(20)))
    client, [worse, better] = mlflow.MlflowClient(), [logged(wrong(*range(10))), logged(wrong())]
    set_alias, taken = mlflow.MlflowClient.set_registered_model_alias, []

    def take(self, name: str, alias: str, number: str) -> None:
        set_alias(self, name, alias, number)
        if not taken:
            taken.append(client.create_model_version(name, worse[0], worse[1]).version)
            set_alias(self, name, alias, taken[0])

    monkeypatch.setattr(mlflow.MlflowClient, "set_registered_model_alias", take)
    registered = registry.register(better[0], "letters", better[1])
    assert registered.reason.startswith("beats version 3")
    assert aliases() == {"champion": "2"}
    assert version("3").tags["replaced_by"] == "2"


def test_two_that_send_the_same_model_at_once_leave_one_version(folder: Path, monkeypatch: pytest.MonkeyPatch):
    uri, run_id = logged(wrong())
    create = mlflow.MlflowClient.create_model_version

    def twice(self, *arguments, **named):
        monkeypatch.setattr(mlflow.MlflowClient, "create_model_version", create)
        registry.register(uri, "letters", run_id)
        return create(self, *arguments, **named)

    monkeypatch.setattr(mlflow.MlflowClient, "create_model_version", twice)
    assert registry.register(uri, "letters", run_id).version == "1"
    assert [entry.version for entry in mlflow.search_model_versions(filter_string="name = 'letters'")] == [1]


CHILD = """
import sys
from tlkit.tracking import registry
uri, run_id = sys.argv[1:]
sys.stdin.read()
print(registry.register(uri, "letters", run_id).version)
"""


@pytest.mark.slow
def test_four_processes_register_at_once(folder: Path):
    models = [logged(wrong(*range(10 * number))) for number in range(4)]
    command = [sys.executable, "-c", CHILD]
    processes = [
        subprocess.Popen([*command, *model], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for model in models
    ]
    said = []
    for process in processes:
        process.stdin.close()
    for process in processes:
        said.append(process.stdout.read().strip())
        process.stdout.close()
        assert process.wait() == 0
    assert sorted(said) == ["1", "2", "3", "4"]
    sources = {entry.source for entry in mlflow.search_model_versions(filter_string="name = 'letters'")}
    assert sources == {uri for uri, _ in models}
    assert "champion" in aliases()
    assert version(aliases()["champion"]).tags["promotion"] == "champion"


def test_names_that_mlflow_takes(folder: Path):
    uri, run_id = logged(wrong())
    for name in ["flowers", "my model 2", "a.b", "team@flowers", """it's "x" """, "Tiere im Zoo, groß #1", "x" * 256]:
        registry.check_name(name)
        _validate_model_name(name)
        registry.register(uri, name, run_id)
        assert registry.register(uri, name, run_id).version == "1"
        assert get_model_name_and_version(mlflow.MlflowClient(), f"models:/{name}@champion") == (name, 1)


REFUSED = ["", "  ", "a/b", "a:b", "/", ".", "..", "..a", "a?b", "a\nb", "a\tb", "x" * 257]


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_mlflow_refuses(name: str):
    with pytest.raises(InvalidInput, match=r"cannot name a registered model; a name has 1 to 256 characters, without"):
        registry.check_name(name)


def test_of_several_labels_exact_matches_are_compared_and_classes_one_by_one(folder: Path):
    def of_labels(there: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], scores: dict[str, float]):
        hashes = [f"{classes[0]}{number}" for number in range(len(there))]
        table = predictions.table("test", hashes, hashes, there, probabilities, classes)
        with mlflow.start_run(tags={"kind": "photos"}) as run:
            mlflow.log_metrics(scores)
            rows = [list(row) for row in zip(*table.values(), strict=True)]
            mlflow.log_dict({"columns": list(table), "data": rows}, predictions.FILE)
        model = mlflow.MlflowClient().create_logged_model(run.info.experiment_id, source_run_id=run.info.run_id)
        mlflow.MlflowClient().finalize_logged_model(model.model_id, "READY")
        return registry.register(f"models:/{model.model_id}", "shapes", run.info.run_id)

    there = np.tile([[1, 1], [0, 1]], (20, 1))
    half = np.where(np.arange(40)[:, None] < 30, there, [1 - there[0]])  # ten have a label wrong, or both
    scores = {"test_accuracy": 0.9, "test_map": 0.8, "test_map_low": 0.7, "test_map_high": 0.85}
    of_labels(there, half, ["a", "b"], scores)
    assert (
        mlflow.MlflowClient()
        .get_model_version("shapes", "1")
        .description.startswith("0.800 test mAP (95 % interval 0.700 to 0.850)")
    )
    second = of_labels(there, there, ["a", "b"], scores)
    assert second.alias == "champion"
    assert "right where version 1 was wrong: 10, wrong where it was right: 0" in second.reason
    only = np.tile([[1, 0]], (40, 1))
    assert (
        of_labels(only, only, ["b", "z"], scores).alias == "challenger"
    )  # it knows b, which no text `a|b` is equal to
    apart = of_labels(only, only, ["y", "z"], scores)
    assert (apart.alias, "it has other classes" in apart.reason) == ("", True)
