"""Ranges as YAML has them, read and checked."""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from tlkit.config.space.ranges import Range, Space, allowed, needs_of
from tlkit.config.space.settings import EXTRAS, KINDS, flow, holds_range, is_range, named, put, require, same
from tlkit.errors import InvalidInput

Condition = tuple[str, Any]  # the name of another range, and the values with which a range counts


def parse(settings: Mapping[str, Any]) -> Space:
    """Separate the ranges in nested settings, as YAML gives them, from the settings that are fixed.

    Raises:
        InvalidInput: a range is wrong or can never count, or there is none.

    >>> parse({"seed": 1, "full": {"epochs": {"int": [1, 9]}}})
    Space(fixed={'seed': 1}, ranges=(Range(name='full.epochs', kind='int', values=(), low=1, high=9, step=1, ...),))
    """
    leaves = named(settings)
    written = {name: value for name, value in leaves.items() if is_range(value)}
    if not written:
        raise InvalidInput(f"space has no range: {flow(dict(settings))} needs one, such as {{int: [16, 256]}}")
    fixed: dict[str, Any] = {}
    for name, value in leaves.items():
        if name not in written:
            require(not holds_range(value), name, value, "a list cannot hold ranges; write one range, with repeat")
            put(fixed, name, copy.deepcopy(value))
    expanded = {each.name: (name, each) for name in written for each in _expanded(name, written)}
    by_name = {name: each for name, (_, each) in expanded.items()}
    ranges = {}
    for name, each in expanded.values():
        when = [_encoded_condition(name, written[name], by_name, condition) for condition in each.when]
        ranges[each.name] = each._replace(when=tuple(dict.fromkeys(when)))
    space = Space(fixed, _sorted(ranges))
    needs_of(space)  # refuses ranges that can never count
    return space


def _meant(word: object, words: Collection[str]) -> str:
    """Say which word may have been meant."""
    length = f"{word}.count"  # the name that every repeated range has
    close = [length] if length in words else difflib.get_close_matches(str(word), words, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(words)}"


def _expanded(name: str, written: Mapping[str, Any]) -> Iterator[Range]:
    """Yield a range, or those that a repeated one stands for; their conditions are still as the user wrote them."""
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


def _range(name: str, written: Mapping[str, Any]) -> Range:
    """Read a range that is not repeated."""
    kind, *others = (kind for kind in KINDS if kind in written)
    require(not others, name, written, f"it has both {kind} and {', '.join(others)}; give one of them")
    for key in written:
        require(key == kind or key in EXTRAS, name, written, f"unknown {key}; {_meant(key, EXTRAS)}")
        numeric = kind in ("int", "float")
        require(key not in ("step", "log") or numeric, name, written, f"{key} goes with int and float")
    values = written[kind]
    if kind == "bool":
        require(isinstance(values, bool), name, written, "bool takes its default, true or false")
        return Range(name, "choice", (False, True), default=values)
    if kind != "choice":
        return _numbers(name, written, "int" if kind == "int" else "float")
    require(isinstance(values, list) and values, name, written, "choice takes a list of one value or more")
    require(not holds_range(values), name, written, "the values of a choice cannot hold ranges")
    choice = Range(name, "choice", tuple(copy.deepcopy(values)))
    for options in (choice.options(), [flow(value, sort=True) for value in values]):
        require(len(set(options)) == len(values), name, written, "a value comes twice; each value may come once")
    return choice


def _numbers(name: str, written: Mapping[str, Any], kind: Literal["int", "float"]) -> Range:
    """Read a range of numbers."""
    ends, log = written[kind], written.get("log", False)
    require(isinstance(ends, list) and len(ends) == 2, name, written, f"{kind} takes [lowest, highest]")
    low, high = (_number(name, written, kind, end) for end in ends)
    require(low != high, name, written, f"the ends are the same; write {flow(low)} in place of the range")
    require(low < high, name, written, f"{kind} takes [lowest, highest], and {flow(low)} is above {flow(high)}")
    require(isinstance(log, bool), name, written, "log must be true or false")
    require(not log or low > 0, name, written, "with log, the lowest must be above 0")
    require(not log or "step" not in written, name, written, "step and log do not go together; give one of them")
    if "step" not in written:
        return Range(name, kind, low=low, high=high, step=1 if kind == "int" and not log else None, log=log)
    step, span = _number(name, written, kind, written["step"]), high - low
    require(0 < step <= span, name, written, f"step must be above 0 and no more than {flow(span)}, the whole span")
    steps = span / step
    met = math.isclose(steps, round(steps), rel_tol=1e-12, abs_tol=1e-6)  # 0.3 / 0.1 is a little off
    require(met, name, written, f"the steps from {flow(low)} must meet {flow(high)}; change the step or an end")
    return Range(name, kind, low=low, high=high, step=step)


def _number(name: str, written: object, kind: str, value: Any) -> float:
    """Check an end or a step of a range."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # YAML reads 1e-5 as a string
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    require(math.isfinite(number), name, written, f"{flow(value)} is no finite number")
    if kind == "float":
        return number
    require(number.is_integer(), name, written, f"{flow(value)} is no whole number; float takes those with a fraction")
    return value if isinstance(value, int) else int(number)


def _when(name: str, written: Mapping[str, Any]) -> tuple[Condition, ...]:
    """Return a range's own conditions, as the user wrote them."""
    when = written.get("when", {})
    formed = isinstance(when, Mapping) and (when or "when" not in written)
    require(formed, name, written, "when takes the name of another range with its value or values")
    return tuple(when.items())


def _length(
    name: str, written: Mapping[str, Any], followed: tuple[str, ...] = ()
) -> tuple[int, int, str, tuple[Condition, ...]]:
    """Return a repeated range's least and greatest length, the name of its count, and all its conditions.

    Args:
        name: Name of the range.
        written: All ranges, as the user wrote them.
        followed: Ranges that are as long as this one.
    """
    value, repeat = written[name], written[name]["repeat"]
    when = _when(name, value)
    if type(repeat) is int and repeat >= 1:
        return repeat, repeat, "", when
    if isinstance(repeat, str):
        require(repeat not in (name, *followed), name, value, "it cannot be as long as itself")
        lists = [other for other in written if other != name and "repeat" in written[other]]
        hint = _meant(repeat, lists) if lists else "there is none"
        require(repeat in lists, name, value, f"repeat names {repeat}, which is no repeated range; {hint}")
        low, high, count, more = _length(repeat, written, (*followed, name))
        require(low >= 1, name, value, f"{repeat} may be empty; repeat takes a list that has one value or more")
        return low, high, count, more + when
    formed = isinstance(repeat, list) and len(repeat) == 2 and all(type(number) is int for number in repeat)
    formed = formed and 0 <= repeat[0] < repeat[1]
    require(formed, name, value, "repeat takes a number, [fewest, most], or the name of another repeated range")
    return repeat[0], repeat[1], f"{name}.count", when


def _encoded_condition(
    name: str, written: object, ranges: Mapping[str, Range], condition: Condition
) -> tuple[str, tuple[Any, ...]]:
    """Turn the values of another range with which this one counts into that range's options."""
    on, values = condition
    require(on in ranges, name, written, f"when names {on}, which is no range of this space; {_meant(on, ranges)}")
    parent = ranges[on]
    require(parent.kind != "float", name, written, f"when names {on}, a float; it takes a choice, a bool or an int")
    options = _encoded(parent, values)  # a list may itself be a value
    for value in values if isinstance(values, list) and not options else ():
        require(_encoded(parent, value), name, written, f"{on} cannot be {flow(value)}: {allowed(parent)}")
        options += _encoded(parent, value)
    require(options, name, written, f"{on} cannot be {flow(values)}: {allowed(parent)}")
    return on, tuple(dict.fromkeys(options))


def _encoded(each: Range, value: Any) -> list[Any]:
    """Return the option for a value of a range; an empty list where it does not have it."""
    if each.kind == "choice":
        return [option for own, option in zip(each.values, each.options(), strict=True) if same(own, value)]
    fits = type(value) is int and each.low <= value <= each.high and (value - each.low) % (each.step or 1) == 0
    return [value] if fits else []


def _sorted(ranges: Mapping[str, Range]) -> tuple[Range, ...]:
    """Sort ranges so that each comes after those that it depends on."""
    ordered: dict[str, Range] = {}
    while len(ordered) < len(ranges):
        left = [each for name, each in ranges.items() if name not in ordered]
        ready = [each for each in left if all(parent in ordered for parent, _ in each.when)]
        if not ready:
            names = ", ".join(each.name for each in left)
            raise InvalidInput(f"space.{left[0].name} can never count: when goes in a circle within {names}; break it")
        ordered[ready[0].name] = ready[0]
    return tuple(ordered.values())
