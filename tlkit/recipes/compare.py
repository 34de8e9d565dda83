"""Compare runs: scores with intervals, a paired test on the same examples, size, speed, and the settings that differ.

python -m tlkit.recipes.compare RUN RUN
"""

from __future__ import annotations

import difflib
import itertools
import math
import os
import re
import shutil
import string
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tlkit import cli, untrusted
from tlkit.config import Compare
from tlkit.display import say, shown
from tlkit.errors import InvalidInput, Unavailable, without_password
from tlkit.recipes import _links

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from tlkit.evaluation import predictions

LAST = 4  # runs that are compared where none is given
MOST = 12  # runs, for they have 66 pairs
LOOKED_AT = 500  # runs of an experiment, the newest
SURE = 0.05  # p-value below which a difference is one
MEASURES = ("parameters", "model_megabytes", "predict_per_second", "training_seconds")
Row = dict[str, Any]


def run(config: Compare) -> tuple[list[Row], list[Row]]:
    """Print, log and return what there is to say of the runs, the best first, and of each pair of them."""
    from tlkit import tracking
    from tlkit.evaluation import predictions

    uri = without_password(tracking.open_store())
    try:
        runs = _chosen(config)
        said = {one.info.run_id: predictions.read(one.info.run_id) for one in runs}
    except Unavailable:
        raise
    except (*tracking.STORE_ERRORS, OSError) as error:
        raise Unavailable(f"the MLflow store {uri} refused: {without_password(str(error))}") from error
    for one in runs:
        if said[one.info.run_id] is None and _score(one) is None:
            raise InvalidInput(
                f"run {_called(one)!r} ({one.info.run_id}) has no score, neither test_accuracy nor "
                "validation_accuracy: leave it out"
            )
    rows = [_row(one, said[one.info.run_id]) for one in runs]
    order = sorted(range(len(rows)), key=lambda place: -rows[place]["accuracy"])
    runs = [runs[place] for place in order]
    rows = [{"letter": letter, **rows[place]} for letter, place in zip(string.ascii_uppercase, order, strict=False)]
    pairs, settings = _pairs(rows, said), _settings(runs)
    width = max(80, min(shutil.get_terminal_size().columns, 160))
    _print_rows(rows, width)
    _print_pairs(pairs, width)
    _print_settings(settings, [row["letter"] for row in rows], width)
    ids = [row["run_id"] for row in rows]
    tags = {"recipe": "compare", "compared": ",".join(ids)}
    with tracking.run(config.experiment, run_name=config.run_name, params={}, tags=tags) as started:
        _log(rows, pairs, settings)
    say("\nNext:")
    _links.print_links(started, ids, "these runs side by side")
    return rows, pairs


def _chosen(config: Compare) -> list[Run]:
    """Find the runs that are wanted, each once.

    Raises:
        InvalidInput: one is not there, or there are fewer than two, or too many.
    """
    import mlflow

    client = mlflow.MlflowClient()
    if config.runs:
        named = [_named(client, name, config.experiment) for name in config.runs]
        chosen, where = list({one.info.run_id: one for one in named}.values()), "given"
    else:
        found = _search(client, config.experiment, config.search or "attributes.status = 'FINISHED'")
        chosen = [one for one in found if _score(one)]
        if config.search and len(chosen) < len(found):
            say(f"left out: {len(found) - len(chosen)} of {len(found)} runs found, which have no score")
        chosen = chosen if config.search else chosen[:LAST]
        where = f"with a score found in experiment {_experiment(client, config.experiment).name!r}"
    if len(chosen) < 2:
        count = f"only run {_called(chosen[0])!r}" if chosen else "no run"
        raise InvalidInput(f"{count} {where}: give two or more, by their ids or names, or by --search")
    if len(chosen) > MOST:
        raise InvalidInput(f"{len(chosen)} runs {where}: give {MOST} at the most")
    return chosen


def _experiment(client: MlflowClient, name: str) -> Any:
    """Find the experiment that the environment names, else this one, and make none."""
    given = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if not given and os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return client.get_experiment(os.environ["MLFLOW_EXPERIMENT_ID"])
    name = given or name
    found = client.get_experiment_by_name(name)
    if found is None:
        there = [one.name for one in client.search_experiments(max_results=100)]
        raise InvalidInput(f"there is no experiment {name!r}; {_meant(name, there)}give --experiment")
    return found


def _search(client: MlflowClient, experiment: str, filter_string: str) -> list[Run]:
    from mlflow.exceptions import MlflowException

    try:
        found = client.search_runs(
            [_experiment(client, experiment).experiment_id],
            filter_string,
            order_by=["attributes.start_time DESC"],
            max_results=LOOKED_AT,
        )
        return [untrusted.answered(one) for one in found]
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        reason = " ".join(error.message.split())
        raise InvalidInput(f"search is {filter_string!r}, which MLflow does not take: {reason}") from error


def _named(client: MlflowClient, name: str, experiment: str) -> Run:
    """Find a run by its id, or by its name in an experiment."""
    from mlflow.exceptions import MlflowException

    if re.fullmatch("[0-9a-f]{32}", name):
        try:
            found = untrusted.answered(client.get_run(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        else:
            if found.info.lifecycle_stage == "deleted":
                raise InvalidInput(f"run {name} was deleted: leave it out, or restore it")
            return found
    quote = '"' if "'" in name else "'"
    same = [] if quote in name else _search(client, experiment, f"attributes.run_name = {quote}{name}{quote}")
    if len(same) == 1:
        return same[0]
    if same:
        ids = ", ".join(one.info.run_id for one in same[:4]) + (", …" if len(same) > 4 else "")
        raise InvalidInput(f"{len(same)} runs are called {name!r}: give the id of one of them, {ids}")
    recent = _search(client, experiment, "")
    close = _meant(name, [text for one in recent for text in (_called(one), one.info.run_id)])
    where = _experiment(client, experiment).name
    raise InvalidInput(
        f"there is no run {name!r} in experiment {where!r}; {close}runs of other experiments are given by their ids"
    )


def _meant(given: str, there: Sequence[str]) -> str:
    close = difflib.get_close_matches(given, dict.fromkeys(there), n=3)
    return f"did you mean {shown(', '.join(close))}? " if close else ""


def _called(one: Run) -> str:
    return shown(" ".join((one.info.run_name or one.info.run_id).split()))


def _score(one: Run) -> tuple[str, float] | None:
    """The split that a run was scored on, and its accuracy; of several labels an example, how many match exactly."""
    for split in ("test", "validation"):
        for name in ("exact_match", "accuracy"):
            score = one.data.metrics.get(f"{split}_{name}", math.nan)
            if math.isfinite(score):
                return split, score
    return None


def _row(one: Run, said: predictions.Predictions | None) -> Row:
    """Say of a run how good, how large and how fast it is; what it did not log is None."""
    metrics, tags, params = one.data.metrics, one.data.tags, one.data.params
    network, alpha = shown(tags.get("backbone", "")), shown(params.get("backbone.alpha", "None"))
    split, accuracy = (said.split, float(said.correct.mean())) if said else _score(one) or ("", math.nan)
    low, high, kind = _interval(metrics, split, said)
    logged = {name: metrics.get(name) for name in MEASURES}
    return {
        "name": _called(one),
        "run_id": one.info.run_id,
        "network": network if alpha == "None" else f"{network} {alpha}",
        "split": split,
        "chose_epoch": split == "validation" and "best_epoch" in metrics,
        "examples": len(said.correct) if said else None,
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "interval": kind,
        **{name: value if value is not None and math.isfinite(value) else None for name, value in logged.items()},
        "map": metrics.get(f"{split}_map"),  # of several labels an example; `accuracy` then is of all together
    }


def _interval(
    metrics: dict[str, float], split: str, said: predictions.Predictions | None
) -> tuple[float | None, float | None, str]:
    from tlkit import evaluation

    if said is not None:
        right, count = int(said.correct.sum()), len(said.correct)
        if 0 < right < count:
            return *evaluation.bootstrap(said.correct), "bootstrap"
        return *evaluation.wilson(right, count), "Wilson"  # all draws are alike: the bootstrap would claim certainty
    low, high = (metrics.get(f"{split}_accuracy_{end}") for end in ("low", "high"))
    if low is None or high is None or f"{split}_exact_match" in metrics:
        return None, None, ""
    return low, high, "Wilson"


def _pairs(rows: list[Row], said: dict[str, predictions.Predictions | None]) -> list[Row]:
    """Test each pair of runs that was scored on the same examples; of any other, say why it is not tested."""
    from tlkit.evaluation import predictions

    pairs: list[Row] = []
    for one, other in itertools.combinations(rows, 2):
        first, second = said[one["run_id"]], said[other["run_id"]]
        pair = {"first": one["letter"], "second": other["letter"]}
        pair |= {"first_run_id": one["run_id"], "second_run_id": other["run_id"]}
        tested = dict.fromkeys(("examples", "only_first", "only_second", "p_value", "corrected_p_value"))
        reason = ""
        if first is None or second is None:
            reason = f"{' and '.join(row['letter'] for row in (one, other) if said[row['run_id']] is None)}"
            reason += f" logged no {predictions.FILE}"
        elif first.split != second.split:
            reason = f"scored on {first.split} and on {second.split} examples"
        elif not predictions.same_examples(first, second):
            reason = f"scored on different {first.split} examples"
        else:
            tested |= predictions.paired(first, second)._asdict()
        pairs.append({**pair, **tested, "verdict": f"not tested: {reason}" if reason else ""})
    done = [pair for pair in pairs if not pair["verdict"]]
    for pair, p_value in zip(done, predictions.holm([pair["p_value"] for pair in done]), strict=True):
        pair["corrected_p_value"] = p_value
        better = pair["first" if pair["only_first"] > pair["only_second"] else "second"]
        pair["verdict"] = f"{better} is better" if p_value < SURE else "no clear difference"
    return pairs


def _settings(runs: list[Run]) -> dict[str, list[str]]:
    """Give the settings that differ, each with its value in every run; it is empty where a run has none."""
    own = [
        {
            **{name: one.data.tags[name] for name in ("recipe", "dataset_digest") if name in one.data.tags},
            **{name: value for name, value in one.data.tags.items() if name.startswith("environment.")},
            **{name: value for name, value in one.data.params.items() if value != "None"},
        }
        for one in runs
    ]
    names = dict.fromkeys(itertools.chain.from_iterable(own))
    found = {shown(name): [shown(each.get(name, "")) for each in own] for name in names}
    return {name: values for name, values in found.items() if len(set(values)) > 1}


def _print_rows(rows: list[Row], width: int) -> None:
    several = any(row["map"] is not None for row in rows)
    score = "exact match" if several else "accuracy"
    numbers = [[*(["mAP"] if several else []), f"{score} (95 %)", "params", "MB", "ex/s", "train s"]]
    for row in rows:
        interval = "" if row["low"] is None else f" ({row['low']:.3f}-{row['high']:.3f})"
        megabytes, seconds = row["model_megabytes"], row["training_seconds"]
        numbers.append(
            [
                *([_number(row["map"])] if several else []),
                f"{row['accuracy']:.3f}{interval}{_mark(row)}",
                _number(row["parameters"]),
                "-" if megabytes is None else f"{megabytes:.1f}",
                _number(row["predict_per_second"]),
                "-" if seconds is None else f"{seconds:,.0f}",
            ]
        )
    room = width - sum(max(map(len, column)) + 2 for column in zip(*numbers, strict=True)) - 3
    called = ["run", *(row["name"] for row in rows)]
    most = max(8, room - 12)  # the letter tells a run, so its name is shortened first
    networks = [_cell(text, most) for text in ("network", *(row["network"] or "-" for row in rows))]
    names = [_cell(text, room - 2 - max(map(len, networks))) for text in called]
    letters = ["", *(row["letter"] for row in rows)]
    say()
    _print_columns([[*line[:3], *line[3]] for line in zip(letters, names, networks, numbers, strict=True)], 4)
    test, kinds = any(row["split"] == "test" for row in rows), {row["interval"] for row in rows} - {""}
    wilson = [row["letter"] for row in rows if row["interval"] == "Wilson"] if len(kinds) > 1 else []
    said = f", with {'bootstrap' if wilson else ''.join(kinds)} interval" if kinds else ""
    said += f" ({', '.join(wilson)}: Wilson's)" if wilson else ""
    on = "test examples" if test else "validation examples"
    say()
    of = "share of the" if several else "of the"
    more = "; mAP: mean average precision of the labels" if several else ""
    all_of = " that have all labels right" if several else ""
    _print_note(f"{score}: {of} {on}{all_of}{said}{more}; ex/s: examples a second", width)
    if any(row["chose_epoch"] for row in rows):
        _print_note(
            "*: of the validation examples, which chose the epoch or the trial too: it promises too much", width
        )
    if test and any(_mark(row) == "v" for row in rows):
        _print_note("v: of the validation examples", width)


def _print_note(text: str, width: int) -> None:
    say(textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))


def _mark(row: Row) -> str:
    if row["split"] != "validation":
        return ""
    return "*" if row["chose_epoch"] else "v"


def _print_pairs(pairs: list[Row], width: int) -> None:
    tested = [pair for pair in pairs if pair["p_value"] is not None]
    say()
    if tested:
        counts = sorted({pair["examples"] for pair in tested})
        on = " or ".join(f"{count:,}" for count in counts)
        say(f"Pairs, on the same {on} examples: how many only one of the two has right")
        lines = [["", "only 1st", "only 2nd", "p", ""]]
        for pair in tested:
            p = pair["corrected_p_value"]
            only = str(pair["only_first"]), str(pair["only_second"])
            lines.append([_both(pair), *only, "<0.001" if p < 0.001 else f"{p:.3f}", pair["verdict"]])
        _print_columns(lines, 1, last_left=True)
        corrected = f", corrected for {len(tested)} pairs (Holm)" if len(tested) > 1 else ""
        say(f"p: McNemar's exact test{corrected}; below {SURE:g} one is better")
    reasons = dict.fromkeys(pair["verdict"] for pair in pairs if pair["p_value"] is None)
    for reason in reasons:
        _print_note(f"{', '.join(_both(pair) for pair in pairs if pair['verdict'] == reason)}: {reason}", width)


def _both(pair: Row) -> str:
    return f"{pair['first']}-{pair['second']}"


def _print_settings(settings: dict[str, list[str]], letters: list[str], width: int) -> None:
    """Print a row for each setting that differs where runs have it, and a line for all that only some runs have."""
    if not settings:
        say("\nSettings: no differences")
        return
    rows = {name: values for name, values in settings.items() if len(set(values) - {""}) > 1}
    if rows:
        names = [_cell(name, 28) for name in rows]
        side = max(map(len, names))
        at_once = max(1, (width - side) // 13)  # runs, so that their values can be read
        say("\nSettings that differ")
        for start in range(0, len(letters), at_once):
            part = slice(start, start + at_once)
            room = (width - side) // len(letters[part]) - 2
            lines = [["", *letters[part]]]
            for name, values in zip(names, rows.values(), strict=True):
                lines.append([name, *(_cell(value or "-", room) for value in values[part])])
            _print_columns(lines, len(lines[0]))
    some: dict[str, list[str]] = {}
    for name, values in settings.items():
        if name not in rows:
            having = ", ".join(letter for letter, value in zip(letters, values, strict=True) if value)
            some.setdefault(having, []).append(f"{name}={_cell(max(values), 30)}")
    if some:
        say("\nSettings that only some have")
    for having, said in some.items():
        _print_note(f"{having}: {', '.join(said)}", width)


def _print_columns(lines: list[list[str]], left: int, last_left: bool = False) -> None:
    """Print cells in columns: the first ones flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    count = len(widths)
    for line in lines:
        cells = [
            cell.ljust(wide) if place < left or (last_left and place == count - 1) else cell.rjust(wide)
            for place, (cell, wide) in enumerate(zip(line, widths, strict=True))
        ]
        say("  ".join(cells).rstrip())


def _cell(text: str, most: int) -> str:
    from tlkit import plots

    return plots.shortened(" ".join(text.split()), max(most, 4))


def _number(value: float | None) -> str:
    """Write a number in few characters.

    >>> [_number(value) for value in (None, 9.5, 340_058, 25_557_032, 143_667_240)]
    ['-', '9.5', '340k', '25.6M', '144M']
    """
    if value is None:
        return "-"
    if value < 1000:
        return f"{value:.3g}"
    scaled, unit = (value / 1e3, "k") if value < 1e6 else (value / 1e6, "M")
    return f"{scaled:.3g}{unit}" if scaled < 999.5 else f"{scaled:,.0f}{unit}"


def _log(rows: list[Row], pairs: list[Row], settings: dict[str, list[str]]) -> None:
    from tlkit import plots, tracking

    for name, table in (("comparison.json", rows), ("pairs.json", pairs)):
        tracking.log_table({key: [row[key] for row in table] for key in table[0]}, name)
    columns = {row["letter"]: [values[place] for values in settings.values()] for place, row in enumerate(rows)}
    tracking.log_table({"setting": list(settings), **columns}, "settings.json")
    names = [f"{plots.shortened(row['name'], 32)}  {row['letter']}" for row in rows]
    bounds = [(row["accuracy"], row["low"], row["high"]) for row in rows]
    intervals = [(score, score) if low is None else (low, high) for score, low, high in bounds]
    called = "accuracy" if all(row["map"] is None for row in rows) else "exact match"
    tracking.log_figure(plots.ranking(names, [score for score, *_ in bounds], intervals, called), "comparison.png")


if __name__ == "__main__":
    cli.main(Compare, run, positional=("runs",))
