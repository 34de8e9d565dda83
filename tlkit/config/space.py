"""A search space as data: the settings of a recipe, in which any value may be a range of values.

A range is one of `{choice: [3, 5, 7]}`, `{int: [16, 256], step: 16}`, `{float: [1e-5, 1e-2], log: true}` and
`{bool: true}`, both ends included. With `when: {full.unfreeze_from: [stage3, stage4]}` it counts only where another
range has one of these values. With `repeat: [2, 4]` it is a list of two to four values, each drawn on its own; with
`repeat: builder.filters` it is as long as that list.
"""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from tlkit.errors import InvalidInput
from tlkit.untrusted import dump_yaml

KINDS = ("choice", "int", "float", "bool")
EXTRAS = ("step", "log", "when", "repeat")


class Range(NamedTuple):
    """What one setting may be.

    Args:
        name: Dotted, such as `builder.dropout`; those of a repeated range end in `.count`, `.1`, `.2` and so on.
        kind: A bool is a choice of False and True.
        values: Of a choice, as they were given.
        low: Least number.
        high: Greatest number, included.
        step: Distance of the numbers; None where any number between the ends will do.
        log: Whether it is drawn from a logarithmic scale.
        default: Of a bool.
        when: Names of other ranges, each with those of its options for which this range counts; all must hold.
    """

    name: str
    kind: Literal["choice", "int", "float"]
    values: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    default: Any = None
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def options(self) -> tuple[Any, ...]:
        """Give the values of a choice as scalars of one type, which is all that tuners know; none of int and float.

        >>> Range("a", "choice", (1, 2.5)).options(), Range("a", "choice", (None, {"name": "MobileNet"})).options()
        ((1.0, 2.5), ('null', '{name: MobileNet}'))
        """
        types = {type(value) for value in self.values}
        if types == {int, float}:
            return tuple(float(value) for value in self.values)
        alike = len(types) == 1 and types <= {str, bool, int, float}
        return self.values if alike else tuple(flow(value) for value in self.values)

    def decode(self, option: Any) -> Any:
        """Give the value that an option stands for.

        Raises:
            InvalidInput: the choice has no such option.

        >>> Range("a", "choice", (None, {"name": "MobileNet"})).decode("{name: MobileNet}")
        {'name': 'MobileNet'}
        """
        if self.kind != "choice":
            return int(option) if self.kind == "int" else float(option)
        options = self.options()
        _require(option in options, self.name, option, _may_be(self))
        return copy.deepcopy(self.values[options.index(option)])


class Space(NamedTuple):
    """Settings of a recipe, some of them to be searched.

    Args:
        fixed: Nested settings that are the same in all trials.
        ranges: The others, each after those that it hangs on, else in the order written.
    """

    fixed: dict[str, Any]
    ranges: tuple[Range, ...]

    def active(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Give the options of the ranges that count.

        Args:
            values: Option of each range by its name; other names, which tuners add, are passed over.

        Raises:
            InvalidInput: a range counts and has no option.
        """
        found: dict[str, Any] = {}
        for each in self.ranges:
            if all(parent in found and found[parent] in options for parent, options in each.when):
                if each.name not in values:
                    raise InvalidInput(f"space.{each.name} counts and has no value in {dict(values)}; give it one")
                found[each.name] = values[each.name]
        return found

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Give the nested settings of one trial; what does not count is left out, so that the recipe's default holds.

        >>> parse({"seed": 1, "full": {"epochs": {"int": [1, 9]}}}).settings({"full.epochs": 4})
        {'seed': 1, 'full': {'epochs': 4}}
        """
        made = copy.deepcopy(self.fixed)
        lists: dict[str, list[Any]] = {each.name[:-2]: [] for each in self.ranges if each.name.endswith(".1")}
        counting = self.active(values)
        for each in self.ranges:
            outer, _, last = each.name.rpartition(".")
            if each.name in counting and outer not in lists:
                _put(made, each.name, each.decode(counting[each.name]))
            elif each.name in counting:
                lists[outer] += [each.decode(counting[each.name])] if last != "count" else []
                _put(made, outer, lists[outer])
        return made

    def params(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Give every range's option, for a log in which all trials have the same names.

        Where a range does not count, it is 0 if it has numbers, else "none".
        """
        numbers = {each.name for each in self.ranges if {type(option) for option in each.options()} <= {int, float}}
        nothing = {each.name: 0 if each.name in numbers else "none" for each in self.ranges}
        return {**nothing, **self.active(values)}


def parse(settings: Mapping[str, Any]) -> Space:
    """Tell the ranges among nested settings, as YAML gives them, from what is fixed.

    Raises:
        InvalidInput: a range is wrong or can never count, or there is none.

    >>> parse({"seed": 1, "full": {"epochs": {"int": [1, 9]}}})
    Space(fixed={'seed': 1}, ranges=(Range(name='full.epochs', kind='int', values=(), low=1, high=9, step=1, ...),))
    """
    leaves = named(settings)
    written = {name: given for name, given in leaves.items() if _is_range(given)}
    if not written:
        raise InvalidInput(f"space has no range: {flow(dict(settings))} needs one, such as {{int: [16, 256]}}")
    fixed: dict[str, Any] = {}
    for name, given in leaves.items():
        if name not in written:
            _require(not _holds_range(given), name, given, "a list cannot hold ranges; write one range, with repeat")
            _put(fixed, name, copy.deepcopy(given))
    made = {each.name: (name, each) for name in written for each in _expanded(name, written)}
    known = {name: each for name, (_, each) in made.items()}
    ranges = {}
    for name, each in made.values():
        when = [_condition(name, written[name], known, parent, allowed) for parent, allowed in each.when]
        ranges[each.name] = each._replace(when=tuple(dict.fromkeys(when)))
    space = Space(fixed, _sorted(ranges))
    _needs(space)
    return space


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Put nested settings over others, at every depth; a range takes the place of what was there as a whole.

    >>> merged({"full": {"epochs": {"int": [1, 9]}, "warmup": 0}}, {"full": {"epochs": {"choice": [3, 5]}}})
    {'full': {'epochs': {'choice': [3, 5]}, 'warmup': 0}}
    >>> merged({"epochs": {"int": [1, 9]}}, {"epochs": {"step": 2}})
    {'epochs': {'int': [1, 9], 'step': 2}}
    """
    made = dict(below)
    for name, value in above.items():
        old = below.get(name)
        if not isinstance(old, Mapping) or not isinstance(value, Mapping) or _is_range(value):
            made[name] = value
        elif _is_range(old):
            made[name] = {**old, **value} if set(value) <= set(EXTRAS) else value
        else:
            made[name] = merged(old, value)
    return made


def nested(settings: Mapping[Any, Any], prefix: str = "") -> dict[Any, Any]:
    """Take dotted names of settings apart; those inside a range stay.

    Args:
        settings: As a file has them, dotted, nested or both.
        prefix: Of their names, for the error.

    Raises:
        InvalidInput: a setting is given twice, nested and by its dotted name.

    >>> nested({"full.epochs": 3, "full": {"warmup": 0}})
    {'full': {'epochs': 3, 'warmup': 0}}
    """
    made: dict[Any, Any] = {}
    for key, value in settings.items():
        first, _, rest = key.partition(".") if isinstance(key, str) and all(key.split(".")) else (key, "", "")
        inner = {rest: value} if rest else value
        if isinstance(inner, Mapping) and not _is_range(inner):
            inner = nested(inner, f"{prefix}{first}.")
        made[first] = _joined(made[first], inner, f"{prefix}{first}") if first in made else inner
    return made


def _joined(one: Any, other: Any, name: str) -> dict[Any, Any]:
    if not all(isinstance(each, Mapping) and not _is_range(each) for each in (one, other)):
        raise InvalidInput(f"{name} is given twice, nested and by its dotted name; give it once")
    common = {key: _joined(one[key], other[key], f"{name}.{key}") for key in one if key in other}
    return {**one, **other, **common}


def corners(space: Space) -> Iterator[dict[str, Any]]:
    """Give the nested settings of a few trials in which each value of a choice and both ends of all numbers come up.

    >>> list(corners(parse({"a": {"choice": ["x", "y", "z"]}, "b": {"int": [1, 9], "when": {"a": ["x", "y"]}}})))
    [{'a': 'x', 'b': 1}, {'a': 'y', 'b': 9}, {'a': 'z'}]
    """
    needs = _needs(space)
    ends = {each.name: each.options() or (each.low, each.high) for each in space.ranges}
    left = {(name, option): None for name, options in ends.items() for option in options}  # a set with an order
    while left:
        name, _ = next(reversed(left))  # what hangs on most brings the most along
        allowed = {**ends, **needs[name]}
        values = {key: next((o for o in allowed[key] if (key, o) in left), allowed[key][0]) for key in ends}
        for pair in space.active(values).items():
            left.pop(pair, None)
        yield space.settings(values)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say what differs between two nested settings, a line for each name; a range is shown whole.

    >>> difference({"full": {"epochs": 20}, "norm": {"bool": True}}, {"full": {"epochs": 30}})
    ['full.epochs: 20 -> 30', 'norm: {bool: true} -> (none)']
    """
    was, now = named(old), named(new)
    lines = []
    for name in {**was, **now}:
        if name not in was or name not in now or not _same(was[name], now[name]):
            before, after = (flow(each[name]) if name in each else "(none)" for each in (was, now))
            lines.append(f"{name}: {before} -> {after}")
    return lines


def flow(value: Any, sort: bool = False) -> str:
    """Write a value as YAML in one line.

    >>> flow({"name": "MobileNet", "alpha": None})
    '{name: MobileNet, alpha: null}'
    """
    text = dump_yaml(value, default_flow_style=True, width=math.inf, sort_keys=sort)
    return text.removesuffix("\n").removesuffix("\n...")


def _same(a: Any, b: Any) -> bool:
    return flow(a, sort=True) == flow(b, sort=True)  # to `==`, True is 1


def _require(holds: object, name: str, given: Any, says: str) -> None:
    if not holds:
        raise InvalidInput(f"space.{name} is {flow(given)}: {says}")


def _meant(word: object, words: Collection[str]) -> str:
    length = f"{word}.count"  # of a repeated range, the one name that is surely there
    close = [length] if length in words else difflib.get_close_matches(str(word), words, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(words)}"


def _may_be(each: Range) -> str:
    if each.kind == "choice":
        return f"it may be one of {', '.join(flow(value) for value in each.values)}"
    return f"it may be from {flow(each.low)} to {flow(each.high)}" + (f" by {each.step}" if each.step else "")


def _is_range(given: Any) -> bool:
    return isinstance(given, Mapping) and any(kind in given for kind in KINDS)


def _holds_range(given: Any) -> bool:
    inside = given.values() if isinstance(given, Mapping) else given if isinstance(given, list) else ()
    return any(_is_range(value) or _holds_range(value) for value in inside)


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
    *groups, last = name.split(".")
    for group in groups:
        tree = tree.setdefault(group, {})
    tree[last] = value


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, given in settings.items():
        if isinstance(given, Mapping) and given and not _is_range(given):
            yield from _leaves(given, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", given


def named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give every leaf of nested settings its dotted name; a range is one leaf.

    >>> named({"full": {"epochs": {"int": [1, 3]}}, "seed": 1})
    {'full.epochs': {'int': [1, 3]}, 'seed': 1}
    """
    if not isinstance(settings, Mapping):
        raise InvalidInput(f"space is {flow(settings)}: it takes settings by their names")
    leaves = list(_leaves(settings))
    names = [name for name, _ in leaves]
    for name, given in leaves:
        # No bare numbers: `filters.1` is the first of the repeated range `filters`.
        plain = all(part.isidentifier() for part in name.split("."))
        _require(plain, name, given, "its name must be words of letters, digits and _, with dots between them")
        inner = next((other for other in names if other.startswith(f"{name}.")), None)
        _require(inner is None, name, given, f"{inner} cannot stand beside it; give one of the two")
        _require(names.count(name) == 1, name, given, "it is given twice, nested and by its dotted name")
    return dict(leaves)


def _expanded(name: str, written: Mapping[str, Any]) -> Iterator[Range]:
    """Give a range, or those that a repeated one stands for; their conditions are still as the user wrote them."""
    each = _range(name, written[name])
    if "repeat" not in written[name]:
        yield each._replace(when=_when(name, written[name]))
        return
    low, high, count, when = _length(name, written)
    if count == f"{name}.count":
        yield Range(count, "int", low=low, high=high, step=1, when=when)
    for number in range(1, high + 1):
        longer = ((count, list(range(number, high + 1))),) if number > low else ()
        yield each._replace(name=f"{name}.{number}", when=when + longer)


def _range(name: str, given: Mapping[str, Any]) -> Range:
    kind, *others = (kind for kind in KINDS if kind in given)
    _require(not others, name, given, f"it has both {kind} and {', '.join(others)}; give one of them")
    for key in given:
        _require(key == kind or key in EXTRAS, name, given, f"unknown {key}; {_meant(key, EXTRAS)}")
        _require(key not in ("step", "log") or kind in ("int", "float"), name, given, f"{key} goes with int and float")
    values = given[kind]
    if kind == "bool":
        _require(isinstance(values, bool), name, given, "bool takes its default, true or false")
        return Range(name, "choice", (False, True), default=values)
    if kind != "choice":
        return _numbers(name, given, "int" if kind == "int" else "float")
    _require(isinstance(values, list) and values, name, given, "choice takes a list of one value or more")
    _require(not _holds_range(values), name, given, "the values of a choice cannot hold ranges")
    made = Range(name, "choice", tuple(copy.deepcopy(values)))
    for options in (made.options(), [flow(value, sort=True) for value in values]):
        _require(len(set(options)) == len(values), name, given, "a value comes twice; each value may come once")
    return made


def _numbers(name: str, given: Mapping[str, Any], kind: Literal["int", "float"]) -> Range:
    ends, log = given[kind], given.get("log", False)
    _require(isinstance(ends, list) and len(ends) == 2, name, given, f"{kind} takes [lowest, highest]")
    low, high = (_number(name, given, kind, end) for end in ends)
    _require(low != high, name, given, f"the ends are the same; write {flow(low)} in place of the range")
    _require(low < high, name, given, f"{kind} takes [lowest, highest], and {flow(low)} is above {flow(high)}")
    _require(isinstance(log, bool), name, given, "log must be true or false")
    _require(not log or low > 0, name, given, "with log, the lowest must be above 0")
    _require(not log or "step" not in given, name, given, "step and log do not go together; give one of them")
    if "step" not in given:
        return Range(name, kind, low=low, high=high, step=1 if kind == "int" and not log else None, log=log)
    step, span = _number(name, given, kind, given["step"]), high - low
    _require(0 < step <= span, name, given, f"step must be above 0 and no more than {flow(span)}, the whole span")
    steps = span / step
    met = math.isclose(steps, round(steps), rel_tol=1e-12, abs_tol=1e-6)  # 0.3 / 0.1 is a little off
    _require(met, name, given, f"the steps from {flow(low)} must meet {flow(high)}; change the step or an end")
    return Range(name, kind, low=low, high=high, step=step)


def _number(name: str, given: Any, kind: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # YAML reads 1e-5 as a string
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    _require(math.isfinite(number), name, given, f"{flow(value)} is no finite number")
    if kind == "float":
        return number
    _require(number.is_integer(), name, given, f"{flow(value)} is no whole number; float takes those with a fraction")
    return value if isinstance(value, int) else int(number)


def _when(name: str, given: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    when = given.get("when", {})
    formed = isinstance(when, Mapping) and (when or "when" not in given)
    _require(formed, name, given, "when takes the name of another range with its value or values")
    return tuple(when.items())


def _length(name: str, written: Mapping[str, Any], asked: tuple[str, ...] = ()) -> tuple[int, int, str, tuple]:
    """Give a repeated range's least and greatest length, the name of its count, and all its conditions."""
    given, repeat = written[name], written[name]["repeat"]
    when = _when(name, given)
    if type(repeat) is int and repeat >= 1:
        return repeat, repeat, "", when
    if isinstance(repeat, str):
        _require(repeat not in (name, *asked), name, given, "it cannot be as long as itself")
        lists = [other for other in written if other != name and "repeat" in written[other]]
        hint = _meant(repeat, lists) if lists else "there is none"
        _require(repeat in lists, name, given, f"repeat names {repeat}, which is no repeated range; {hint}")
        low, high, count, more = _length(repeat, written, (*asked, name))
        _require(low >= 1, name, given, f"{repeat} may be empty; repeat takes a list that has one value or more")
        return low, high, count, more + when
    formed = isinstance(repeat, list) and len(repeat) == 2 and all(type(number) is int for number in repeat)
    formed = formed and 0 <= repeat[0] < repeat[1]
    says = "repeat takes a number, [fewest, most], or the name of another repeated range"
    _require(formed, name, given, says)
    return repeat[0], repeat[1], f"{name}.count", when


def _condition(name: str, given: Any, ranges: Mapping[str, Range], on: str, allowed: Any) -> tuple[str, tuple]:
    """Turn the values of `on` with which another range counts into its options."""
    _require(on in ranges, name, given, f"when names {on}, which is no range of this space; {_meant(on, ranges)}")
    parent = ranges[on]
    _require(parent.kind != "float", name, given, f"when names {on}, a float; it takes a choice, a bool or an int")
    found = _encoded(parent, allowed)  # a list may itself be a value
    for value in allowed if isinstance(allowed, list) and not found else ():
        _require(_encoded(parent, value), name, given, f"{on} cannot be {flow(value)}: {_may_be(parent)}")
        found += _encoded(parent, value)
    _require(found, name, given, f"{on} cannot be {flow(allowed)}: {_may_be(parent)}")
    return on, tuple(dict.fromkeys(found))


def _encoded(each: Range, value: Any) -> list[Any]:
    if each.kind == "choice":
        return [option for known, option in zip(each.values, each.options(), strict=True) if _same(known, value)]
    fits = type(value) is int and each.low <= value <= each.high and (value - each.low) % (each.step or 1) == 0
    return [value] if fits else []


def _sorted(ranges: Mapping[str, Range]) -> tuple[Range, ...]:
    placed: dict[str, Range] = {}
    while len(placed) < len(ranges):
        left = [each for name, each in ranges.items() if name not in placed]
        ready = [each for each in left if all(parent in placed for parent, _ in each.when)]
        if not ready:
            names = ", ".join(each.name for each in left)
            raise InvalidInput(f"space.{left[0].name} can never count: when goes in a circle within {names}; break it")
        placed[ready[0].name] = ready[0]
    return tuple(placed.values())


def _needs(space: Space) -> dict[str, dict[str, tuple]]:
    """Give the options that all the ranges which one hangs on, near and far, must have for it to count."""
    needs: dict[str, dict[str, tuple]] = {}
    for each in space.ranges:
        mine: dict[str, tuple] = {}
        for parent, options in each.when:
            for name, allowed in ((parent, options), *needs[parent].items()):
                mine[name] = tuple(option for option in mine.get(name, allowed) if option in allowed)
                if not mine[name]:
                    raise InvalidInput(f"space.{each.name} can never count: what it hangs on excludes all of {name}")
        needs[each.name] = mine
    return needs
