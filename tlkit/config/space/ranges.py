"""Ranges, and the space that they make with the settings that are fixed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from tlkit.config.space.settings import flow, put, require
from tlkit.errors import InvalidInput


class Range(NamedTuple):
    """The values that one setting may have.

    Args:
        name: Dotted name, such as `builder.dropout`; a repeated range's names end in `.count`, `.1`, `.2` and so on.
        kind: A bool is a choice of False and True.
        values: Values of a choice, as they were written.
        low: Least number.
        high: Greatest number, included.
        step: Distance of the numbers; None where any number between the ends is allowed.
        log: Whether it is drawn from a logarithmic scale.
        default: Default of a bool.
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
        """Return the values of a choice as scalars of one type, as tuners need them; none for int and float.

        >>> Range("a", "choice", (1, 2.5)).options(), Range("a", "choice", (None, {"name": "MobileNet"})).options()
        ((1.0, 2.5), ('null', '{name: MobileNet}'))
        """
        types = {type(value) for value in self.values}
        if types == {int, float}:
            return tuple(float(value) for value in self.values)
        alike = len(types) == 1 and types <= {str, bool, int, float}
        return self.values if alike else tuple(flow(value) for value in self.values)

    def decode(self, option: Any) -> Any:
        """Return the value that an option stands for.

        Raises:
            InvalidInput: the choice has no such option.

        >>> Range("a", "choice", (None, {"name": "MobileNet"})).decode("{name: MobileNet}")
        {'name': 'MobileNet'}
        """
        if self.kind != "choice":
            return int(option) if self.kind == "int" else float(option)
        options = self.options()
        require(option in options, self.name, option, allowed(self))
        return copy.deepcopy(self.values[options.index(option)])


def allowed(each: Range) -> str:
    """Say which values a range has."""
    if each.kind == "choice":
        return f"it may be one of {', '.join(flow(value) for value in each.values)}"
    return f"it may be from {flow(each.low)} to {flow(each.high)}" + (f" by {each.step}" if each.step else "")


class Space(NamedTuple):
    """Settings of a recipe, some of them to be searched.

    Args:
        fixed: Nested settings that are the same in all trials.
        ranges: The others, each after those that it depends on, else in the order written.
    """

    fixed: dict[str, Any]
    ranges: tuple[Range, ...]

    def active(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of the ranges that count.

        Args:
            values: Option of each range by its name; other names, which tuners add, are ignored.

        Raises:
            InvalidInput: a range counts and has no option.
        """
        active: dict[str, Any] = {}
        for each in self.ranges:
            if all(parent in active and active[parent] in options for parent, options in each.when):
                if each.name not in values:
                    raise InvalidInput(f"space.{each.name} counts and has no value in {dict(values)}; give it one")
                active[each.name] = values[each.name]
        return active

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the nested settings of one trial, without ranges that do not count, for the recipe's defaults.

        >>> from tlkit.config.space import parse
        >>> parse({"seed": 1, "full": {"epochs": {"int": [1, 9]}}}).settings({"full.epochs": 4})
        {'seed': 1, 'full': {'epochs': 4}}
        """
        settings = copy.deepcopy(self.fixed)
        lists: dict[str, list[Any]] = {each.name[:-2]: [] for each in self.ranges if each.name.endswith(".1")}
        active = self.active(values)
        for each in self.ranges:
            outer, _, last = each.name.rpartition(".")
            if each.name in active and outer not in lists:
                put(settings, each.name, each.decode(active[each.name]))
            elif each.name in active:
                lists[outer] += [each.decode(active[each.name])] if last != "count" else []
                put(settings, outer, lists[outer])
        return settings

    def params(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return every range's option, for a log in which all trials have the same names.

        A range that does not count is 0 if it has numbers, else "none".
        """
        numbers = {each.name for each in self.ranges if {type(option) for option in each.options()} <= {int, float}}
        inactive = {each.name: 0 if each.name in numbers else "none" for each in self.ranges}
        return {**inactive, **self.active(values)}


def corners(space: Space) -> Iterator[dict[str, Any]]:
    """Yield the nested settings of a few trials that cover each value of a choice and both ends of all numbers.

    >>> from tlkit.config.space import parse
    >>> list(corners(parse({"a": {"choice": ["x", "y", "z"]}, "b": {"int": [1, 9], "when": {"a": ["x", "y"]}}})))
    [{'a': 'x', 'b': 1}, {'a': 'y', 'b': 9}, {'a': 'z'}]
    """
    needs = needs_of(space)
    ends = {each.name: each.options() or (each.low, each.high) for each in space.ranges}
    uncovered = {(name, option): None for name, options in ends.items() for option in options}  # an ordered set
    while uncovered:
        name, _ = next(reversed(uncovered))  # the range with the most conditions covers the most others
        possible = {**ends, **needs[name]}
        values = {key: next((o for o in possible[key] if (key, o) in uncovered), possible[key][0]) for key in ends}
        for pair in space.active(values).items():
            uncovered.pop(pair, None)
        yield space.settings(values)


def needs_of(space: Space) -> dict[str, dict[str, tuple[Any, ...]]]:
    """Return for each range the options that the ranges it depends on, directly or not, must have for it to count.

    Raises:
        InvalidInput: a range can never count.
    """
    needs: dict[str, dict[str, tuple[Any, ...]]] = {}
    for each in space.ranges:
        own: dict[str, tuple[Any, ...]] = {}
        for parent, options in each.when:
            for name, possible in ((parent, options), *needs[parent].items()):
                own[name] = tuple(option for option in own.get(name, possible) if option in possible)
                if not own[name]:
                    raise InvalidInput(f"space.{each.name} can never count: its conditions exclude all of {name}")
        needs[each.name] = own
    return needs
