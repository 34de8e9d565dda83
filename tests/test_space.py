"""Search spaces: what is read from YAML, which ranges count, and what is refused, in one line that says what to do."""

from __future__ import annotations

import copy
import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlkit.config import space
from tlkit.errors import InvalidInput
from tlkit.untrusted import parse_yaml

TEXT = """
seed: 3
data: {path: photos}
backbone: {choice: [{name: MobileNet, alpha: 0.5}, {name: MobileNetV2}]}
full:
  epochs: 20
  learning_rate: {float: [1e-5, 1e-2], log: true}
  stored: {bool: true, when: {full.unfreeze_from: [stage3, stage4]}}
  unfreeze_from: {choice: [null, stage3, stage4]}
builder:
  filters: {int: [16, 256], step: 16, repeat: [2, 4]}
  kernel_size: {choice: [3, 5, 7], repeat: builder.filters}
  dense: {int: [8, 64], log: true, repeat: 2, when: {builder.filters.count: 4}}
"""
VALUES = {
    "backbone": "{name: MobileNetV2}",
    "full.learning_rate": 1e-3,
    "full.unfreeze_from": "stage4",
    "full.stored": False,
    "builder.filters.count": 3,
    **{f"builder.filters.{number}": 16 * number for number in range(1, 5)},
    **{f"builder.kernel_size.{number}": 5 for number in range(1, 5)},
    "builder.dense.1": 8,
    "builder.dense.2": 64,
}


def plain(text: str) -> Any:
    return parse_yaml(text, "space.yaml")


def read(text: str) -> space.Space:
    return space.parse(plain(text))


def one(text: str) -> space.Range:
    (only,) = read(f"a: {text}").ranges
    return only


def refused(text: str) -> str:
    with pytest.raises(InvalidInput) as error:
        read(text)
    assert "\n" not in str(error.value)
    return str(error.value)


def find(settings: dict[str, Any], name: str) -> Any:
    """The value at a dotted name, or "absent"."""
    for part in name.split("."):
        if not isinstance(settings, dict) or part not in settings:
            return "absent"
        settings = settings[part]
    return settings


def test_a_space_is_what_is_fixed_and_ranges_after_those_they_hang_on():
    made = read(TEXT)
    assert made.fixed == {"seed": 3, "data": {"path": "photos"}, "full": {"epochs": 20}}
    assert [each.name for each in made.ranges] == [
        "backbone",
        "full.learning_rate",
        "full.unfreeze_from",
        "full.stored",
        "builder.filters.count",
        *(f"builder.filters.{number}" for number in range(1, 5)),
        *(f"builder.kernel_size.{number}" for number in range(1, 5)),
        "builder.dense.1",
        "builder.dense.2",
    ]


def test_a_space_without_conditions_stays_in_the_order_written():
    made = read("b: {int: [1, 2]}\na: {z: {bool: true}, y: {int: [1, 2]}}\nc: {bool: false}")
    assert [each.name for each in made.ranges] == ["b", "a.z", "a.y", "c"]


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("{choice: [3, 5, 7]}", space.Range("a", "choice", (3, 5, 7))),
        ("{choice: [x]}", space.Range("a", "choice", ("x",))),
        ("{bool: true}", space.Range("a", "choice", (False, True), default=True)),
        ("{bool: false}", space.Range("a", "choice", (False, True), default=False)),
        ("{int: [16, 256], step: 16}", space.Range("a", "int", low=16, high=256, step=16)),
        ("{int: [0, 9]}", space.Range("a", "int", low=0, high=9, step=1)),
        ("{int: [16, 256], log: true}", space.Range("a", "int", low=16, high=256, log=True)),
        ("{int: [1, 9], log: false, step: 4}", space.Range("a", "int", low=1, high=9, step=4)),
        ("{int: ['1e1', 1e3]}", space.Range("a", "int", low=10, high=1000, step=1)),
        ("{int: [1.0, 9007199254740993]}", space.Range("a", "int", low=1, high=9007199254740993, step=1)),
        ("{float: [0, 1]}", space.Range("a", "float", low=0.0, high=1.0)),
        ("{float: [0, 0.3], step: 0.1}", space.Range("a", "float", low=0.0, high=0.3, step=0.1)),
        ("{float: [1e-5, 1e-2], log: true}", space.Range("a", "float", low=1e-5, high=1e-2, log=True)),
        ("{float: [0, 1], step: 1}", space.Range("a", "float", low=0.0, high=1.0, step=1.0)),
    ],
)
def test_a_range_is_read(text: str, made: space.Range):
    read_one = one(text)
    assert read_one == made
    for field in ("low", "high", "step"):
        number = getattr(read_one, field)
        if read_one.kind != "choice" and number is not None:
            assert type(number) is {"int": int, "float": float}[read_one.kind]


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ("[3, 5]", (3, 5)),
        ("[3, 0.5]", (3.0, 0.5)),
        ("[0.1, 0.5]", (0.1, 0.5)),
        ("[relu, gelu]", ("relu", "gelu")),
        ("[true, false]", (True, False)),
        ("[1, true]", ("1", "true")),
        ("[0.5, false]", ("0.5", "false")),
        ("[null, stage3]", ("null", "stage3")),
        ("[null, 'null']", ("null", "'null'")),
        ("[1, '1']", ("1", "'1'")),
        ("[[8], [8, 16], []]", ("[8]", "[8, 16]", "[]")),
        ("[{name: MobileNet, alpha: 0.5}, LeNet]", ("{name: MobileNet, alpha: 0.5}", "LeNet")),
    ],
)
def test_options_are_scalars_of_one_type_that_stand_for_the_values(values: str, options: tuple):
    made = one(f"{{choice: {values}}}")
    assert made.options() == options
    assert {type(option) for option in made.options()} == {type(options[0])}
    decoded = [made.decode(option) for option in options]
    assert [(type(value), value) for value in decoded] == [(type(value), value) for value in plain(values)]


def test_a_long_value_is_one_line():
    assert "\n" not in one(f"{{choice: [{list(range(100))}, null]}}").options()[0]


def test_numbers_have_no_options_and_decode_to_their_type():
    whole, real = one("{int: [1, 9]}"), one("{float: [1, 9]}")
    assert whole.options() == real.options() == ()
    assert (type(whole.decode(4.0)), type(real.decode(4))) == (int, float)
    assert (whole.decode(4.0), real.decode(4)) == (4, 4.0)


def test_an_option_that_a_choice_does_not_have_is_refused():
    with pytest.raises(InvalidInput, match=re.escape("space.a is b: it may be one of null, stage3")):
        one("{choice: [null, stage3]}").decode("b")


def test_conditions_hold_the_options_of_the_parent():
    by_name = {each.name: each for each in read(TEXT).ranges}
    count = "builder.filters.count"
    assert by_name["full.stored"].when == (("full.unfreeze_from", ("stage3", "stage4")),)
    assert by_name[count] == space.Range(count, "int", low=2, high=4, step=1)
    for name in ("filters", "kernel_size"):
        assert [by_name[f"builder.{name}.{number}"].when for number in range(1, 5)] == [
            (),
            (),
            ((count, (3, 4)),),
            ((count, (4,)),),
        ]
    assert by_name["builder.dense.2"].when == ((count, (4,)),)


@pytest.mark.parametrize(
    ("parent", "when", "options"),
    [
        ("{choice: [null, stage3]}", "null", ("null",)),
        ("{choice: [null, stage3]}", "[stage3, null]", ("stage3", "null")),
        ("{choice: [1, 2.5]}", "1", (1.0,)),
        ("{choice: [1, true]}", "true", ("true",)),
        ("{choice: [1, true]}", "[1, true, 1]", ("1", "true")),
        ("{choice: [[1, 2], [3]]}", "[1, 2]", ("[1, 2]",)),
        ("{choice: [[1, 2], [3]]}", "[[1, 2], [3]]", ("[1, 2]", "[3]")),
        ("{choice: [{name: A, alpha: 1}, null]}", "{alpha: 1, name: A}", ("{name: A, alpha: 1}",)),
        ("{bool: true}", "false", (False,)),
        ("{int: [2, 8], step: 2}", "[2, 6]", (2, 6)),
    ],
)
def test_a_condition_is_written_with_values_and_kept_as_options(parent: str, when: str, options: tuple):
    found = read(f"a: {parent}\nb: {{bool: true, when: {{a: {when}}}}}").ranges[1].when
    assert found == (("a", options),)
    assert [type(option) for option in found[0][1]] == [type(option) for option in options]


def test_a_list_follows_the_length_and_the_conditions_of_another():
    made = read(
        "flag: {bool: true}\nmode: {choice: [x, y]}\n"
        "a: {int: [1, 9], repeat: [1, 2], when: {flag: true}}\n"
        "b: {int: [1, 9], repeat: a, when: {flag: true, mode: x}}\n"
        "c: {bool: true, repeat: b}\nd: {bool: true, repeat: e}\ne: {int: [1, 9], repeat: 2}"
    )
    by_name = {each.name: each for each in made.ranges}
    assert "b.count" not in by_name
    assert "e.count" not in by_name
    assert by_name["a.count"].when == by_name["a.1"].when == (("flag", (True,)),)
    assert by_name["a.2"].when == (("flag", (True,)), ("a.count", (2,)))
    assert by_name["b.1"].when == by_name["c.1"].when == (("flag", (True,)), ("mode", ("x",)))
    assert by_name["c.2"].when == (*by_name["c.1"].when, ("a.count", (2,)))
    assert by_name["c.1"].default is True
    assert [name for name in by_name if name[0] in "de"] == ["d.1", "d.2", "e.1", "e.2"]
    values = {"flag": True, "mode": "y", "a.count": 1, "a.1": 5, "d.1": True, "d.2": False, "e.1": 1, "e.2": 2}
    assert made.settings(values) == {"flag": True, "mode": "y", "a": [5], "d": [True, False], "e": [1, 2]}


def test_a_list_may_be_empty():
    made = read("dense: {int: [8, 64], repeat: [0, 2]}")
    assert [each.when for each in made.ranges] == [(), (("dense.count", (1, 2)),), (("dense.count", (2,)),)]
    assert made.settings({"dense.count": 0}) == {"dense": []}
    assert made.settings({"dense.count": 1, "dense.1": 8, "dense.2": 9}) == {"dense": [8]}


def test_active_leaves_out_what_does_not_count_and_what_tuners_add():
    made = read(TEXT)
    given_too = {**VALUES, "tuner/epochs": 3}
    gone = {"builder.filters.4", "builder.kernel_size.4", "builder.dense.1", "builder.dense.2"}
    assert made.active(given_too) == {name: VALUES[name] for name in VALUES if name not in gone}
    assert list(made.active(given_too)) == [each.name for each in made.ranges if each.name not in gone]
    assert "full.stored" not in made.active({**VALUES, "full.unfreeze_from": "null"})


def test_what_hangs_on_a_range_that_does_not_count_does_not_count():
    made = read("a: {bool: true}\nb: {bool: true, when: {a: true}}\nc: {bool: true, when: {b: true}}")
    assert made.active({"a": False, "b": True, "c": True}) == {"a": False}


def test_all_conditions_must_hold():
    made = read("a: {bool: true}\nb: {bool: true}\nc: {bool: true, when: {a: true, b: false}}")
    counts = {(a, b): "c" in made.active({"a": a, "b": b, "c": True}) for a in (False, True) for b in (False, True)}
    assert [pair for pair, does in counts.items() if does] == [(True, False)]


def test_a_range_that_counts_must_have_a_value():
    with pytest.raises(InvalidInput, match=re.escape("space.b counts and has no value in {'a': True}; give it one")):
        read("a: {bool: true}\nb: {bool: true, when: {a: true}}").active({"a": True})


def test_settings_are_those_of_a_recipe_file():
    assert read(TEXT).settings(VALUES) == {
        "seed": 3,
        "data": {"path": "photos"},
        "backbone": {"name": "MobileNetV2"},
        "full": {"epochs": 20, "learning_rate": 1e-3, "unfreeze_from": "stage4", "stored": False},
        "builder": {"filters": [16, 32, 48], "kernel_size": [5, 5, 5]},
    }
    more = read(TEXT).settings({**VALUES, "builder.filters.count": 4, "full.unfreeze_from": "null"})
    assert more["builder"]["dense"] == [8, 64]
    assert more["full"] == {"epochs": 20, "learning_rate": 1e-3, "unfreeze_from": None}


def test_settings_share_nothing_with_the_space_or_with_each_other():
    written = plain("augment: {flip: [0]}\na: {choice: [{axes: [1]}, null]}")
    made = space.parse(written)
    first = made.settings({"a": "{axes: [1]}"})
    expected = copy.deepcopy(first)
    first["augment"]["flip"].append(9)
    first["a"]["axes"].append(9)
    written["augment"]["flip"].append(7)
    written["a"]["choice"][0]["axes"].append(7)
    assert made.settings({"a": "{axes: [1]}"}) == expected == {"augment": {"flip": [0]}, "a": {"axes": [1]}}


def test_dotted_names_and_empty_groups_in_the_settings():
    made = read("full.epochs: {int: [1, 9]}\nfull: {patience: 3}\naugment: {}")
    assert made.settings({"full.epochs": 4}) == {"full": {"patience": 3, "epochs": 4}, "augment": {}}


def test_params_have_the_same_names_in_all_trials():
    made = read(TEXT)
    found = made.params({**VALUES, "full.unfreeze_from": "null", "tuner/epochs": 3})
    gone = {f"builder.{name}": 0 for name in ("filters.4", "kernel_size.4", "dense.1", "dense.2")}
    assert found == {**VALUES, "full.unfreeze_from": "null", "full.stored": "none", **gone}


@pytest.mark.parametrize(
    ("text", "nothing"),
    [
        ("{int: [1, 2]}", 0),
        ("{float: [1, 2]}", 0),
        ("{choice: [1, 2]}", 0),
        ("{choice: [1, 2.5]}", 0),
        ("{choice: [a, b]}", "none"),
        ("{choice: [1, null]}", "none"),
        ("{bool: true}", "none"),
    ],
)
def test_params_of_what_does_not_count(text: str, nothing: object):
    made = read(f"flag: {{bool: true}}\na: {{{text[1:-1]}, when: {{flag: true}}}}")
    assert made.params({"flag": False}) == {"flag": False, "a": nothing}


def test_corners_are_few_and_reach_every_end():
    made = read(TEXT)
    found = list(space.corners(made))
    assert len(found) <= 4
    assert all(find(settings, "seed") == 3 for settings in found)
    wanted = {
        "backbone": [{"name": "MobileNet", "alpha": 0.5}, {"name": "MobileNetV2"}],
        "full.learning_rate": [1e-5, 1e-2],
        "full.unfreeze_from": [None, "stage3", "stage4"],
        "full.stored": [False, True],
    }
    for name, values in wanted.items():
        assert all(any(find(settings, name) == value for settings in found) for value in values), name
    lists = [settings["builder"]["filters"] for settings in found]
    assert {len(each) for each in lists} == {2, 4}
    assert {each[3] for each in lists if len(each) == 4} == {16, 256}
    assert {size for settings in found for size in settings["builder"]["kernel_size"]} == {3, 5, 7}
    dense = [settings["builder"]["dense"] for settings in found if "dense" in settings["builder"]]
    assert {each[0] for each in dense} == {each[1] for each in dense} == {8, 64}


@st.composite
def spaces(draw) -> dict[str, Any]:
    """Settings in which a range may hang on up to two of those before it, and may repeat."""
    kinds = [
        {"choice": [None, "x", {"y": 1}]},
        {"choice": [1, 2.5, 3]},
        {"choice": [True, 1, "1"]},
        {"bool": False},
        {"int": [1, 3]},
        {"int": [2, 64], "log": True},
        {"float": [0.0, 0.3], "step": 0.1},
    ]
    made: dict[str, Any] = {"fixed": {"a": 1}}
    parents: dict[str, list[Any]] = {}
    for number in range(draw(st.integers(1, 6))):
        name, written = f"group{number % 2}.r{number}", dict(draw(st.sampled_from(kinds)))
        chosen = draw(st.lists(st.sampled_from(sorted(parents)), max_size=2, unique=True)) if parents else []
        if chosen:
            written["when"] = {
                parent: draw(st.lists(st.sampled_from(parents[parent]), min_size=1, max_size=2)) for parent in chosen
            }
        repeat = draw(st.sampled_from([None, None, 2, [1, 2], [0, 2]]))
        if repeat is not None:
            written["repeat"] = repeat
            if isinstance(repeat, list):
                parents[f"{name}.count"] = [*range(repeat[0], repeat[1] + 1)]
        elif "float" not in written:
            parents[name] = written.get("choice") or ([False, True] if "bool" in written else written["int"])
        made[name] = written
    return made


@settings(deadline=None)  # the machine may be busy
@given(spaces(), st.randoms(use_true_random=False))
def test_any_space_keeps_its_promises(written: dict[str, Any], chance: random.Random):
    try:
        made = space.parse(written)
    except InvalidInput as error:  # conditions drawn on their own may exclude each other
        assert "can never count" in str(error)  # noqa: PT017
        return
    placed: set[str] = set()
    for each in made.ranges:
        assert {parent for parent, _ in each.when} <= placed
        placed.add(each.name)
    ends = {each.name: each.options() or (each.low, each.high) for each in made.ranges}
    corners = list(space.corners(made))
    assert 1 <= len(corners) <= sum(map(len, ends.values()))
    for each in made.ranges:
        outer, _, last = each.name.rpartition(".")
        for option in ends[each.name]:
            value = each.decode(option)
            if last == "count":
                reached = [
                    len(find(settings, outer)) == value for settings in corners if find(settings, outer) != "absent"
                ]
            elif last.isdigit():
                reached = [
                    find(settings, outer)[int(last) - 1 : int(last)] == [value]
                    for settings in corners
                    if isinstance(find(settings, outer), list)
                ]
            else:
                reached = [find(settings, each.name) == value for settings in corners]
            assert any(reached), (each.name, option)
    values = {name: chance.choice(options) for name, options in ends.items()}
    counting, settings = made.active(values), made.settings(values)
    assert settings["fixed"] == {"a": 1}
    assert made.settings(counting) == settings
    assert list(made.params(values)) == [each.name for each in made.ranges]
    for each in made.ranges:
        outer, _, last = each.name.rpartition(".")
        if last == "count":
            length = counting.get(each.name)
            assert find(settings, outer) == "absent" if length is None else len(find(settings, outer)) == length
        elif not last.isdigit():
            assert (find(settings, each.name) == "absent") == (each.name not in counting)


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("full: {epochs: 20}", "full: {epochs: 30}", ["full.epochs: 20 -> 30"]),
        ("builder: {norm: {bool: true}}", "{}", ["builder.norm: {bool: true} -> (none)"]),
        ("{}", "a: {choice: [null, x]}", ["a: (none) -> {choice: [null, x]}"]),
        ("a: {int: [1, 2], step: 1}", "a: {step: 1, int: [1, 2]}", []),
        ("a: {int: [1, 2]}", "a: {int: [1, 3]}", ["a: {int: [1, 2]} -> {int: [1, 3]}"]),
        ("a: 1", "a: true", ["a: 1 -> true"]),
        ("a: null", "{}", ["a: null -> (none)"]),
        ("a.b: 1", "a: {b: 1}", []),
        ("a: {b: {bool: true}}", "a: {b: {c: 1}}", ["a.b: {bool: true} -> (none)", "a.b.c: (none) -> 1"]),
        ("{a: 1, b: 2, c: 3}", "{d: 1, c: 4, a: 2, b: 2}", ["a: 1 -> 2", "c: 3 -> 4", "d: (none) -> 1"]),
        (TEXT, TEXT, []),
    ],
)
def test_difference(old: str, new: str, lines: list[str]):
    assert space.difference(plain(old), plain(new)) == lines


@pytest.mark.parametrize(
    ("given_range", "says"),
    [
        ("{choice: []}", "choice takes a list of one value or more"),
        ("{choice: 3}", "choice takes a list of one value or more"),
        ("{choice: [3, 5, 3]}", "a value comes twice; each value may come once"),
        ("{choice: [1, 1.0]}", "a value comes twice; each value may come once"),
        ("{choice: [{b: 1, c: 2}, {c: 2, b: 1}]}", "a value comes twice; each value may come once"),
        ("{choice: [{b: {int: [1, 2]}}]}", "the values of a choice cannot hold ranges"),
        ("{bool: 1}", "bool takes its default, true or false"),
        ("{int: [16]}", "int takes [lowest, highest]"),
        ("{int: 16}", "int takes [lowest, highest]"),
        ("{float: [1, 2, 3]}", "float takes [lowest, highest]"),
        ("{int: [9, 1]}", "int takes [lowest, highest], and 9 is above 1"),
        ("{int: [9, 9]}", "the ends are the same; write 9 in place of the range"),
        ("{int: [1, many]}", "many is no finite number"),
        ("{int: [1, null]}", "null is no finite number"),
        ("{int: [false, 9]}", "false is no finite number"),
        ("{float: [0, true]}", "true is no finite number"),
        ("{float: [0, .inf]}", ".inf is no finite number"),
        ("{float: [0, .nan]}", ".nan is no finite number"),
        ("{int: [1, 2.5]}", "2.5 is no whole number; float takes those with a fraction"),
        ("{int: [1, 1e-5]}", "1.0e-05 is no whole number; float takes those with a fraction"),
        ("{int: [1, 9], step: 0}", "step must be above 0 and no more than 8, the whole span"),
        ("{int: [1, 9], step: -2}", "step must be above 0 and no more than 8, the whole span"),
        ("{int: [1, 9], step: 9}", "step must be above 0 and no more than 8, the whole span"),
        ("{int: [1, 9], step: true}", "true is no finite number"),
        ("{int: [1, 9], step: 0.5}", "0.5 is no whole number; float takes those with a fraction"),
        ("{int: [16, 250], step: 16}", "the steps from 16 must meet 250; change the step or an end"),
        ("{float: [0, 0.35], step: 0.1}", "the steps from 0.0 must meet 0.35; change the step or an end"),
        ("{int: [0, 9], log: true}", "with log, the lowest must be above 0"),
        ("{float: [-1, 9], log: true}", "with log, the lowest must be above 0"),
        ("{int: [1, 9], log: true, step: 2}", "step and log do not go together; give one of them"),
        ("{int: [1, 9], log: 2}", "log must be true or false"),
        ("{choice: [1, 9], step: 2}", "step goes with int and float"),
        ("{bool: true, log: true}", "log goes with int and float"),
        ("{int: [1, 9], float: [1, 9]}", "it has both int and float; give one of them"),
        ("{int: [1, 9], stpe: 2}", "unknown stpe; did you mean step?"),
        ("{int: [1, 9], 7: 2}", "unknown 7; there are step, log, when, repeat"),
        ("{bool: true, when: x}", "when takes the name of another range with its value or values"),
        ("{bool: true, when: {}}", "when takes the name of another range with its value or values"),
        ("{bool: true, when: {parant: x}}", "when names parant, which is no range of this space; did you mean parent?"),
        ("{bool: true, when: {parent: z}}", "parent cannot be z: it may be one of x, 1"),
        ("{bool: true, when: {parent: [x, true]}}", "parent cannot be true: it may be one of x, 1"),
        ("{bool: true, when: {parent: []}}", "parent cannot be []: it may be one of x, 1"),
        ("{bool: true, when: {number: 11}}", "number cannot be 11: it may be from 1 to 9 by 2"),
        ("{bool: true, when: {number: 2}}", "number cannot be 2: it may be from 1 to 9 by 2"),
        ("{bool: true, when: {number: true}}", "number cannot be true: it may be from 1 to 9 by 2"),
        ("{bool: true, when: {rate: 0.5}}", "when names rate, a float; it takes a choice, a bool or an int"),
        ("{bool: true, repeat: 0}", "repeat takes a number, [fewest, most], or the name of another repeated range"),
        ("{bool: true, repeat: true}", "repeat takes a number, [fewest, most], or the name of another"),
        ("{bool: true, repeat: 2.5}", "repeat takes a number, [fewest, most], or the name of another"),
        ("{bool: true, repeat: [2]}", "repeat takes a number, [fewest, most], or the name of another"),
        ("{bool: true, repeat: [-1, 2]}", "repeat takes a number, [fewest, most], or the name of another"),
        ("{bool: true, repeat: [2, 2]}", "repeat takes a number, [fewest, most], or the name of another"),
        ("{bool: true, repeat: [false, true]}", "repeat takes a number, [fewest, most], or the name of another"),
        ("{bool: true, repeat: a}", "it cannot be as long as itself"),
        ("{bool: true, repeat: parent}", "repeat names parent, which is no repeated range; there are some, none"),
        ("{bool: true, repeat: sone}", "repeat names sone, which is no repeated range; did you mean some?"),
        ("{bool: true, repeat: none}", "none may be empty; repeat takes a list that has one value or more"),
        ("{bool: true, when: {some: 2}}", "when names some, which is no range of this space; did you mean some.count?"),
    ],
)
def test_a_wrong_range_is_refused_in_one_line(given_range: str, says: str):
    others = "parent: {choice: [x, 1]}\nnumber: {int: [1, 9], step: 2}\nrate: {float: [0, 1]}\n"
    lists = "some: {int: [1, 9], repeat: [1, 3]}\nnone: {int: [1, 9], repeat: [0, 3]}\n"
    said = refused(f"{others}{lists}a: {given_range}")
    shown = space.flow(plain(given_range))
    assert said.startswith(f"space.a is {shown}: {says}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("full: {epochs: 3}", "space has no range: {full: {epochs: 3}} needs one, such as {int: [16, 256]}"),
        ("{}", "space has no range: {} needs one, such as {int: [16, 256]}"),
        ("[1, 2]", "space is [1, 2]: it takes settings by their names"),
        (
            "builder: {filters: [{int: [16, 64]}, 32]}\na: {bool: true}",
            "space.builder.filters is [{int: [16, 64]}, 32]: a list cannot hold ranges; write one range, with repeat",
        ),
        (
            "a: {bool: true}\na.b: 3",
            "space.a is {bool: true}: it cannot be given together with a.b; give one of the two",
        ),
        ("a: 3\na.b: {bool: true}", "space.a is 3: it cannot be given together with a.b; give one of the two"),
        (
            "a: {bool: true, repeat: [1, 2]}\na.count: 3",
            "space.a is {bool: true, repeat: [1, 2]}: it cannot be given together with a.count; give one of the two",
        ),
        ("a: {b: {bool: true}}\na.b: 3", "space.a.b is {bool: true}: it is given twice, nested and by its dotted name"),
        ("a: {1: {bool: true}}", "space.a.1 is {bool: true}: its name must be words of letters, digits and _"),
        ("a: {bool: true, when: {a: true}}", "space.a can never count: when goes in a circle within a; break it"),
        (
            "c: {bool: true}\na: {bool: true, when: {b: true}}\nb: {bool: true, when: {a: true, c: true}}",
            "space.a can never count: when goes in a circle within a, b; break it",
        ),
        (
            "a: {bool: true, repeat: [1, 2], when: {a.count: 2}}",
            "space.a.count can never count: when goes in a circle within a.count, a.1, a.2; break it",
        ),
        (
            "a: {bool: true, repeat: b}\nb: {bool: true, repeat: a}",
            "space.b is {bool: true, repeat: a}: it cannot be as long as itself",
        ),
        (
            "a: {bool: true, repeat: b}",
            "space.a is {bool: true, repeat: b}: repeat names b, which is no repeated range; there is none",
        ),
        (
            "p: {choice: [x, y]}\nq: {bool: true, when: {p: x}}\na: {bool: true, when: {p: y, q: true}}",
            "space.a can never count: its conditions exclude all of p",
        ),
    ],
)
def test_a_wrong_space_is_refused_in_one_line(text: str, says: str):
    assert refused(text).startswith(says)


@pytest.mark.parametrize(
    ("below", "above", "made"),
    [
        ("full: {epochs: 5, warmup: 0}", "full: {epochs: 1}", "full: {epochs: 1, warmup: 0}"),
        ("a: {b: {c: {d: 1, e: 2}}}", "a: {b: {c: {d: 3}}, f: 4}", "a: {b: {c: {d: 3, e: 2}}, f: 4}"),
        ("a: {int: [1, 9], step: 2, when: {b: 1}}", "a: {choice: [1, 2]}", "a: {choice: [1, 2]}"),
        ("a: {int: [1, 9], step: 2}", "a: {int: [1, 5]}", "a: {int: [1, 5]}"),
        ("a: {int: [1, 9], step: 2}", "a: {step: 4}", "a: {int: [1, 9], step: 4}"),
        ("a: {int: [1, 9]}", "a: 3", "a: 3"),
        ("a: 3", "a: {int: [1, 9]}", "a: {int: [1, 9]}"),
        ("a: {choice: [{name: x}]}", "a: {name: y}", "a: {name: y}"),
        ("a: {name: y}", "a: {choice: [{name: x}]}", "a: {choice: [{name: x}]}"),
        ("a: [1, 2]", "a: [3]", "a: [3]"),
        ("a: {b: 1}", "a: null", "a: null"),
        ("a: {b: 1}", "a: {}", "a: {b: 1}"),
    ],
)
def test_what_is_put_over_a_space_leaves_the_rest_of_it(below: str, above: str, made: str):
    old, new = plain(below), plain(above)
    assert space.merged(old, new) == plain(made)
    assert (old, new) == (plain(below), plain(above))


def test_dotted_names_are_taken_apart_but_not_inside_a_range():
    given = plain("full.epochs: 3\nfull: {a.b: 1, a: {c: {bool: true, when: {x.y: 1}}}}\n.odd: 1\n7: {a.b: 1}")
    made = plain("full: {epochs: 3, a: {b: 1, c: {bool: true, when: {x.y: 1}}}}\n.odd: 1\n7: {a: {b: 1}}")
    assert space.nested(given) == made
    for twice in ("a.b: 1\na: {b: 1}", "a.b.c: 1\na.b: 1", "a.b: {int: [1, 2]}\na: {b: {step: 1}}"):
        with pytest.raises(InvalidInput, match=r"^a\.b is given twice, nested and by its dotted name; give it once$"):
            space.nested(plain(twice))
