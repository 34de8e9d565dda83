"""Runs are compared by what MLflow has of them: their scores, a paired test, and the settings that differ."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pytest
from mlflow.entities import LoggedModelOutput, Metric, Param, RunTag

from tlkit import cli, evaluation
from tlkit.config import Compare, FeatureExtraction, Finetune
from tlkit.errors import InvalidInput
from tlkit.evaluation import power, predictions
from tlkit.recipes import _runs, compare

pytestmark = pytest.mark.filterwarnings("ignore:For backward compatibility, 'str' dtypes")
COUNT = 100


def said(right: np.ndarray, split: str = "test", digests: str = "photo") -> dict[str, list]:
    """A table of predictions in which these examples are right."""
    labels = np.arange(len(right)) % 2
    probabilities = np.eye(2)[np.where(right, labels, 1 - labels)]
    names = [f"{digests} {number}" for number in range(len(right))]
    return predictions.table(split, names, names, labels, probabilities, ["cat", "dog"])


def log(
    name: str,
    table: Mapping[str, list] | None = None,
    metrics: Mapping[str, float] | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    status: str = "FINISHED",
) -> str:
    """Make a run as a recipe leaves it, and give its id."""
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name("tlkit")
    experiment = found.experiment_id if found else client.create_experiment("tlkit")
    run_id = client.create_run(experiment, run_name=name).info.run_id
    client.log_batch(
        run_id,
        [Metric(key, value, 0, 0) for key, value in (metrics or {}).items()],
        [Param(key, str(value)) for key, value in (params or {}).items()],
        [RunTag(key, value) for key, value in (tags or {}).items()],
    )
    if table:
        rows = [list(row) for row in zip(*table.values(), strict=True)]
        client.log_text(run_id, json.dumps({"columns": list(table), "data": rows}), predictions.FILE)
    client.set_terminated(run_id, status)
    return run_id


def right(count: int, first: int = 0) -> np.ndarray:
    """`count` of the examples are right, from `first` on."""
    places = np.arange(COUNT)
    return (places >= first) & (places < first + count)


def ours(accuracy: float, split: str = "test", **more: float) -> dict[str, float]:
    return {
        f"{split}_accuracy": accuracy,
        f"{split}_accuracy_low": accuracy - 0.05,
        f"{split}_accuracy_high": 1.0,
        **more,
    }


def artifact(run_id: str, name: str) -> Any:
    text = Path(mlflow.MlflowClient().download_artifacts(run_id, name)).read_text(encoding="utf-8")
    table = json.loads(text)
    return {column: [row[place] for row in table["data"]] for place, column in enumerate(table["columns"])}


def compared() -> Any:
    """The newest run of a comparison."""
    return mlflow.search_runs(experiment_names=["tlkit comparisons"], output_format="list")[0]


def test_what_strangers_call_a_run_forges_no_line(folder: Path, capsys):
    evil = "a\x1b[2J\u202e$\\frac{$\rroot"
    tags = {"backbone": evil}
    first = log(evil, said(right(80)), ours(0.8), {"setting": evil}, tags)
    second = log("b", said(right(95)), ours(0.95), {"setting": "plain\nB  forged"}, tags)
    rows, _ = compare.run(Compare([first, second]))
    assert rows[1]["name"] == r"a\x1b[2J\u202e$\frac{$ root"
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    assert "\nB  forged" not in printed
    assert (
        r"plain\nB  forged"
        in artifact(compared().info.run_id, "settings.json")["B"]
        + artifact(compared().info.run_id, "settings.json")["A"]
    )


def test_two_runs_are_tested_on_the_same_photos_and_the_comparison_is_logged(folder: Path, capsys):
    measured = {
        "parameters": 25_557_032.0,
        "model_megabytes": 98.04,
        "training_seconds": 61.4,
    }
    tags = {"recipe": "finetune", "backbone": "MobileNet", "environment.keras": "3.15.1"}
    params = {"seed": 0, "backbone.alpha": 0.5, "full.epochs": 2, "head.epochs": None}
    worse = log("worse", said(right(80)), ours(0.8), params | {"seed": 1}, tags)
    better = log("better", said(right(95)), ours(0.95, **measured), params | {"head.epochs": 30}, tags)
    rows, pairs = compare.run(Compare([worse, "better"]))
    assert [row["run_id"] for row in rows] == [better, worse]
    assert (rows[0]["low"], rows[0]["high"]) == evaluation.wilson(95, 100)  # the run's own
    assert rows[0]["network"] == "MobileNet 0.5"
    assert {name: rows[0][name] for name in compare.MEASURES} == measured
    assert pairs[0]["p_value"] == pairs[0]["corrected_p_value"] == pytest.approx(2 / 2**15)
    assert (pairs[0]["only_first"], pairs[0]["only_second"], pairs[0]["verdict"]) == (15, 0, "A is better")

    printed = capsys.readouterr().out
    assert "A  better\nB  worse\n" in printed
    assert "A  MobileNet 0.5  0.950 (0.888-0.978)   25.6M  98.0         -       61" in printed
    assert "Pairs, on the same 100 examples" in printed
    assert "A-B        15         0  <0.001  A is better" in printed
    assert "p: McNemar's exact test; below" in printed  # of one pair: nothing to correct
    assert "seed  0  1\n" in printed
    assert "A: head.epochs=30\n" in printed
    assert "environment.keras" not in printed
    assert f"%5B%22{better}%22,%22{worse}%22%5D" in printed  # MLflow's comparison page

    own = compared()
    assert own.info.status == "FINISHED"
    assert own.data.tags["compared"] == f"{better},{worse}"
    assert own.info.run_name == "comparison #1"
    listed = mlflow.search_runs(experiment_names=["tlkit"], output_format="list")
    assert {run.info.run_id for run in listed} == {better, worse}  # the list of runs has no comparison
    assert artifact(own.info.run_id, "comparison.json")["run_id"] == [better, worse]
    assert artifact(own.info.run_id, "comparison.json")["parameters"] == [25_557_032, None]
    assert artifact(own.info.run_id, "pairs.json")["only_first"] == [15]
    assert artifact(own.info.run_id, "settings.json") == {
        "setting": ["seed", "head.epochs"],
        "A": ["0", "30"],
        "B": ["1", ""],
    }
    assert Path(mlflow.MlflowClient().download_artifacts(own.info.run_id, "comparison.png")).stat().st_size > 5000


def test_runs_of_several_labels_are_compared_by_exact_matches(folder: Path, capsys):
    there = np.tile([[1, 0], [1, 1]], (COUNT // 2, 1))
    runs = []
    for name, count in (("first", 90), ("second", 60)):
        probabilities = np.where(right(count)[:, None], there, 1 - there)  # else both labels are wrong
        names = [f"photo {number}" for number in range(COUNT)]
        table = predictions.table("test", names, names, there, probabilities, ["cat", "dog"])
        exact = {"test_exact_match": count / 100, "test_map": count / 200, "test_accuracy": 0.99}
        runs.append(log(name, table, {**exact, "test_accuracy_low": 0.98, "test_accuracy_high": 1.0}))
    bare = log("bare", None, {"test_exact_match": 0.1, "test_accuracy": 0.99, "test_map": 0.3, **ours(0.99)})
    rows, pairs = compare.run(Compare([*runs, bare]))
    assert [(row["accuracy"], row["map"]) for row in rows] == [(0.9, 0.45), (0.6, 0.3), (0.1, 0.3)]
    assert rows[2]["low"] is None  # what is logged is the interval of another score
    assert (pairs[0]["only_first"], pairs[0]["only_second"], pairs[0]["verdict"]) == (30, 0, "A is better")
    printed = " ".join(capsys.readouterr().out.split())
    assert "mAP exact match (95 %)" in printed
    assert "A - 0.45 0.900 (0.826-0.945)" in printed
    assert "exact match: share of the test examples that have all labels right" in printed


def test_more_pairs_are_corrected_and_runs_that_cannot_be_paired_are_shown_with_the_reason(folder: Path, capsys):
    log("a", said(right(90)), ours(0.9))
    log("b", said(right(83)), ours(0.83))  # p = 0.016 beside a, if it were alone
    log("c", said(right(82)), ours(0.82))
    log("elsewhere", said(right(70), digests="another photo"), ours(0.7))
    log("chosen", said(right(60), "validation"), ours(0.6, "validation", best_epoch=3.0))
    log("theirs", None, {"test_accuracy": 0.5})
    rows, pairs = compare.run(Compare(["theirs", "chosen", "elsewhere", "c", "b", "a"]))
    assert [row["name"] for row in rows] == ["a", "b", "c", "elsewhere", "chosen", "theirs"]
    verdicts = {pair["first"] + pair["second"]: pair["verdict"] for pair in pairs}
    assert len(verdicts) == 15
    assert verdicts["AB"] == "A is better"
    by_hand = {"AB": 2 / 2**7, "AC": 2 / 2**8, "BC": 1.0}
    tested = {pair["first"] + pair["second"]: pair for pair in pairs if pair["p_value"] is not None}
    assert {name: pair["p_value"] for name, pair in tested.items()} == pytest.approx(by_hand)
    corrected = {"AB": 2 * by_hand["AB"], "AC": 3 * by_hand["AC"], "BC": 1.0}
    assert {name: pair["corrected_p_value"] for name, pair in tested.items()} == pytest.approx(corrected)
    printed = capsys.readouterr().out
    assert "corrected for 3 pairs (Holm)" in printed
    assert "A-D, B-D, C-D: not tested: scored on different test examples" in printed
    assert "A-E, B-E, C-E, D-E: not tested: scored on test and on validation examples" in printed
    assert "A-F, B-F, C-F, D-F, E-F: not tested: F logged no predictions.json" in printed
    assert "E  chosen\n" in printed
    assert re.search(r"E  -        0\.600 \(0\.\d+-0\.\d+\)\*", printed)
    assert "*: on the validation examples, which also chose the epoch or trial: optimistic" in printed
    assert re.search(r"F  - +0\.500  ", printed)
    assert "Settings: no differences" in printed


def test_photos_of_one_group_are_no_more_than_one(folder: Path, capsys):
    groups = [str(place // 10) for place in range(COUNT)]
    grouped = [{**said(right(count)), "group": groups} for count in (90, 70)]
    constant = {"test_majority_accuracy": 0.5}
    names = [log(f"run {place}", table, ours(0.9, **constant)) for place, table in enumerate(grouped)]
    rows, (pair,) = compare.run(Compare(names))
    assert (rows[0]["low"], rows[0]["high"]) == evaluation.wilson_of_groups(right(90), groups)
    assert (pair["only_first"], pair["only_second"], pair["p_value"], pair["groups"]) == (20, 0, 0.5, 10)
    assert pair["verdict"] == "no clear difference"
    assert pair["more_needed"] is None
    printed = " ".join(capsys.readouterr().out.split())
    assert "on the test examples, with Wilson's interval by groups always" in printed
    assert "always the class that is most frequent in training: accuracy 0.500" in printed
    assert "A-B: photos of one group are not independent, so whole groups are swapped instead" in printed


def test_a_difference_that_is_clear_alone_is_not_among_many(folder: Path, capsys):
    counts = (90, 84, 84, 84)
    names = [log(f"run {place}", said(right(count)), ours(count / 100)) for place, count in enumerate(counts)]
    assert compare.run(Compare(names[:2]))[1][0]["verdict"] == "A is better"  # p = 0.031
    pairs = compare.run(Compare(names))[1]
    assert {pair["verdict"] for pair in pairs} == {"no clear difference"}
    # As many as the test of one pair asks for suffice: what is lost is the correction for many pairs.
    assert {pair["more_needed"] for pair in pairs} == {power.more_needed(100, 6, 0), None}
    printed = " ".join(capsys.readouterr().out.split())
    assert f"no clear difference; {power.rounded(power.more_needed(100, 6, 0))} more might show one" in printed


def test_all_intervals_are_wilsons(folder: Path, capsys):
    log("perfect", said(right(100)), ours(1.0))
    log("logged", None, ours(0.9))
    log("it's drawn", said(right(80)), ours(0.8))
    rows, _ = compare.run(Compare(["perfect", "logged", "it's drawn"]))
    assert [row["interval"] for row in rows] == ["Wilson"] * 3
    assert (rows[0]["low"], rows[0]["high"]) == (pytest.approx(0.963, abs=1e-3), 1)
    assert (rows[1]["low"], rows[1]["high"]) == (pytest.approx(0.85), 1)  # as the run has logged it
    assert (rows[2]["low"], rows[2]["high"]) == evaluation.wilson(80, 100)
    assert "on the test examples, with Wilson's interval\n" in capsys.readouterr().out


def test_the_mark_of_validation_is_explained_where_all_have_it(folder: Path, capsys):
    names = [log(f"run {place}", said(right(90), "validation"), ours(0.9, "validation")) for place in range(2)]
    compare.run(Compare(names))
    printed = capsys.readouterr().out
    assert "0.900 (0.826-0.945)v" in printed
    assert "v: on the validation examples, which did not choose the epoch\n" in printed


def test_runs_are_the_newest_on_the_newest_ones_examples_or_found_by_a_search(folder: Path, capsys):
    for number in range(8):
        tags = {"recipe": "finetune" if number < 3 else "train", "dataset_digest": "a" if number else "b"}
        log(f"run{number}", None, ours(0.5 + number / 100), tags=tags)
    log("other data", None, ours(0.9), tags={"recipe": "train", "dataset_digest": "b"})
    log("newest", None, ours(0.4), tags={"recipe": "train", "dataset_digest": "a"})
    log("part", None, ours(0.99), tags={"recipe": "train", "dataset_digest": "a", "mlflow.parentRunId": "0" * 32})
    log("evaluation", None, ours(0.99), tags={"recipe": "evaluate", "dataset_digest": "a"})
    log("failed", None, ours(0.99), status="FAILED")
    log("without score", None, {"loss": 1.0, "test_accuracy": float("nan")}, tags={"recipe": "finetune"})
    names = [row["name"] for row in compare.run(Compare())[0]]
    assert names == ["run7", "run6", "run5", "run4", "run3", "newest"]
    said_of = "the 6 newest runs on the test split of newest; left out: 2 scored on other examples, 2 older ones"
    assert said_of in capsys.readouterr().out
    assert [row["name"] for row in compare.run(Compare())[0]] == names  # comparisons are no candidates
    assert cli.call(Compare, compare.run, ["--search", "tags.recipe = 'finetune'"], positional=("runs",)) == 0
    printed = capsys.readouterr().out
    assert "left out: 1 of 4 runs found, which have no score" in printed
    assert compared().data.tags["compared"].count(",") == 2


def test_settings_are_those_that_differ_or_are_no_default(folder: Path, capsys):
    runs = []
    for recipe, settings in [
        ("finetune", Finetune(batch_size=16, tta=3)),
        ("feature_extraction", FeatureExtraction(seed=1, positive="dog")),
    ]:
        run_id = log(recipe, said(right(90)), ours(0.9), {"seed": settings.seed}, {"recipe": recipe})
        mlflow.MlflowClient().log_text(run_id, _runs.as_yaml(settings), "config.yaml")
        runs.append(run_id)
    compare.run(Compare(runs))
    printed = capsys.readouterr().out.partition("\nSettings")[2].partition("\nNext")[0]
    assert " that differ\n        A         B\nrecipe  finetune  feature_extraction\n" in printed
    assert "\nseed    0         1\n" in printed
    assert "B: positive=dog\n" in printed
    assert "A: batch_size=16, tta=3\n" in printed
    assert "augment" not in printed  # thirty defaults


@pytest.mark.thorough
def test_speed_is_measured_once_in_alternation_and_the_same_for_runs_of_one_network(folder: Path, capsys, cache):
    small, large = (
        keras.Sequential(
            [keras.Input((8, 8, 3), name="pixels"), keras.layers.Flatten(), *layers, keras.layers.Dense(2)]
        )
        for layers in ([], [keras.layers.Dense(2000)] * 1)
    )
    runs = []
    for name, model in (("small", small), ("small", small), ("large", large)):
        metrics = ours(0.9, parameters=float(model.count_params()))
        runs.append(log(f"{name}{len(runs)}", said(right(90)), metrics, {}, {"backbone": name}))
        path = folder / f"model{len(runs)}"
        (path / "data").mkdir(parents=True)
        model.save(path / "data" / "model.keras")
        client = mlflow.MlflowClient()
        made = client.create_logged_model(mlflow.get_run(runs[-1]).info.experiment_id, "model", runs[-1])
        client.log_model_artifacts(made.model_id, str(path))
        client.finalize_logged_model(made.model_id, "READY")
        client.log_outputs(runs[-1], [LoggedModelOutput(made.model_id, 0)])
    rows, _ = compare.run(Compare(runs))
    speeds = {row["name"]: row["predict_per_second"] for row in rows}
    assert speeds["small0"] == speeds["small1"] != speeds["large2"]
    assert min(speeds.values()) > 0
    assert "measuring the speed of 2 networks in alternation" in capsys.readouterr().err
    again, _ = compare.run(Compare(runs))
    assert {row["name"]: row["predict_per_second"] for row in again} == speeds
    assert "measuring" not in capsys.readouterr().err


def test_mistakes_are_told_in_one_line_and_nothing_is_logged(folder: Path, capsys):
    known = log("known", None, ours(0.5))
    twins = [log("twin", None, ours(0.5)), log("twin", None, ours(0.6))]
    bare = log("bare", None, {"loss": 1.0})
    gone = log("gone", None, ours(0.5))
    mlflow.MlflowClient().delete_run(gone)
    unknown = known[:-1] + ("0" if known[-1] != "0" else "1")
    for argv, message in {
        ("known",): "only run 'known' given: give two or more",
        ("known", known): "only run 'known' given: give two or more",
        ("known", "knwon"): "there is no run 'knwon' in experiment 'tlkit'; did you mean known?",
        ("known", unknown): f"there is no run '{unknown}' in experiment 'tlkit'; did you mean {known}?",
        ("known", "it's"): 'there is no run "it\'s" in experiment',
        ("known", 'it\'s "x"'): "there is no run",
        ("known", "twin"): f"2 runs are called 'twin': give the id of one of them, {twins[1]}, {twins[0]}",
        ("known", "bare"): f"run 'bare' ({bare}) has no score, neither test_accuracy nor validation_accuracy",
        ("known", gone): f"run {gone} was deleted",
        (
            "--search",
            "metrics.test_accuracy >> 1",
        ): "search is 'metrics.test_accuracy >> 1', which MLflow does not take",
        ("--search", "metrics.test_accuracy > 1"): "no run with a score found in experiment 'tlkit'",
        ("known", "twin", "--search", "x"): "it takes the place of runs",
        ("--experiment", "tlkti"): "there is no experiment 'tlkti'; did you mean tlkit?",
    }.items():
        assert cli.call(Compare, compare.run, argv, positional=("runs",)) == 2, argv
        printed = capsys.readouterr().err
        assert message in printed
        assert printed.count("\n") == 1
    assert mlflow.get_experiment_by_name("tlkit comparisons") is None


def test_a_folder_without_a_store_stays_without_one(folder: Path):
    (folder / "mlflow.db").unlink()
    with pytest.raises(InvalidInput, match="there is no MLflow store"):
        compare.run(Compare(["a", "b"]))
    assert not list(folder.glob("mlflow.db*"))


@pytest.mark.parametrize("columns", [80, 120])
def test_all_fits_the_terminal(folder: Path, capsys, monkeypatch, columns: int):
    monkeypatch.setenv("COLUMNS", str(columns))
    measured = dict.fromkeys(compare.MEASURES, 123_456.7)
    for number in range(12):
        settings = {f"a.setting.with.a.name.that.is.far.too.long.{place}": "value " * number for place in range(3)}
        tags = {"backbone": "a network with a name that is long", "dataset_digest": f"{number % 2:064}"}
        log(
            f"a run with a\nlong name, number {number}",
            None,
            ours(0.5, **measured),
            settings | {f"own{number}": 1},
            tags,
        )
    rows, _ = compare.run(Compare(search="metrics.test_accuracy > 0"))
    assert "a run with a long name, number 11" in [row["name"] for row in rows]
    printed = capsys.readouterr().out.partition("\nNext:")[0]
    assert max(map(len, printed.splitlines())) <= columns
    assert max(map(len, printed.splitlines())) > columns - 8
    assert all(f"  a run with a long name, number {number}\n" in printed for number in range(12))
    log("one more", None, ours(0.5))
    with pytest.raises(InvalidInput, match="13 runs with a score found in experiment 'tlkit': give at most 12"):
        compare.run(Compare(search="metrics.test_accuracy > 0"))
