"""Nested settings, in which any value may be a range: joined, compared, and written as YAML."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from tlkit.errors import InvalidInput
from tlkit.untrusted import dump_yaml

KINDS = ("choice", "int", "float", "bool")
EXTRAS = ("step", "log", "when", "repeat")


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Replace nested settings by others, at every depth; a range is replaced as a whole.

    >>> merged({"full": {"epochs": {"int": [1, 9]}, "warmup": 0}}, {"full": {"epochs": {"choice": [3, 5]}}})
    {'full': {'epochs': {'choice': [3, 5]}, 'warmup': 0}}
    >>> merged({"epochs": {"int": [1, 9]}}, {"epochs": {"step": 2}})
    {'epochs': {'int': [1, 9], 'step': 2}}
    """
    settings = dict(below)
    for name, value in above.items():
        old = below.get(name)
        if not isinstance(old, Mapping) or not isinstance(value, Mapping) or is_range(value):
            settings[name] = value
        elif is_range(old):
            settings[name] = {**old, **value} if set(value) <= set(EXTRAS) else value
        else:
            settings[name] = merged(old, value)
    return settings


def nested(settings: Mapping[Any, Any], prefix: str = "") -> dict[Any, Any]:
    """Turn dotted names of settings into nested ones, except inside a range.

    Args:
        settings: As a file has them, dotted, nested or both.
        prefix: Start of their names, for the error.

    Raises:
        InvalidInput: a setting is given twice, nested and by its dotted name.

    >>> nested({"full.epochs": 3, "full": {"warmup": 0}})
    {'full': {'epochs': 3, 'warmup': 0}}
    """
    tree: dict[Any, Any] = {}
    for key, value in settings.items():
        first, _, rest = key.partition(".") if isinstance(key, str) and all(key.split(".")) else (key, "", "")
        inner = {rest: value} if rest else value
        if isinstance(inner, Mapping) and not is_range(inner):
            inner = nested(inner, f"{prefix}{first}.")
        tree[first] = _joined(tree[first], inner, f"{prefix}{first}") if first in tree else inner
    return tree


def _joined(one: Any, other: Any, name: str) -> dict[Any, Any]:
    if not all(isinstance(each, Mapping) and not is_range(each) for each in (one, other)):
        raise InvalidInput(f"{name} is given twice, nested and by its dotted name; give it once")
    common = {key: _joined(one[key], other[key], f"{name}.{key}") for key in one if key in other}
    return {**one, **other, **common}


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List the differences between two nested settings, a line for each name; a range is shown whole.

    >>> difference({"full": {"epochs": 20}, "norm": {"bool": True}}, {"full": {"epochs": 30}})
    ['full.epochs: 20 -> 30', 'norm: {bool: true} -> (none)']
    """
    old_values, new_values = named(old), named(new)
    lines = []
    for name in {**old_values, **new_values}:
        if name not in old_values or name not in new_values or not same(old_values[name], new_values[name]):
            before, after = (flow(each[name]) if name in each else "(none)" for each in (old_values, new_values))
            lines.append(f"{name}: {before} -> {after}")
    return lines


def flow(value: object, sort: bool = False) -> str:
    """Write a value as YAML in one line.

    >>> flow({"name": "MobileNet", "alpha": None})
    '{name: MobileNet, alpha: null}'
    """
    text = dump_yaml(value, default_flow_style=True, width=math.inf, sort_keys=sort)
    return text.removesuffix("\n").removesuffix("\n...")


def same(a: object, b: object) -> bool:
    """Tell whether two values are the same in YAML."""
    return flow(a, sort=True) == flow(b, sort=True)  # to `==`, True is 1


def require(holds: object, name: str, value: object, message: str) -> None:
    """Refuse the value of a setting in a space.

    Raises:
        InvalidInput: it does not hold.
    """
    if not holds:
        raise InvalidInput(f"space.{name} is {flow(value)}: {message}")


def is_range(value: object) -> bool:
    """Tell whether a value is a range."""
    return isinstance(value, Mapping) and any(kind in value for kind in KINDS)


def holds_range(value: object) -> bool:
    """Tell whether there is a range inside a list or mapping."""
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(is_range(inner) or holds_range(inner) for inner in inside)


def put(tree: dict[str, Any], name: str, value: object) -> None:
    """Set the value of a dotted name in nested settings."""
    *groups, last = name.split(".")
    for group in groups:
        tree = tree.setdefault(group, {})
    tree[last] = value


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value and not is_range(value):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return every leaf of nested settings under its dotted name; a range is one leaf.

    Raises:
        InvalidInput: a name is not made of words with dots, or is given twice.

    >>> named({"full": {"epochs": {"int": [1, 3]}}, "seed": 1})
    {'full.epochs': {'int': [1, 3]}, 'seed': 1}
    """
    if not isinstance(settings, Mapping):
        raise InvalidInput(f"space is {flow(settings)}: it takes settings by their names")
    leaves = list(_leaves(settings))
    names = [name for name, _ in leaves]
    for name, value in leaves:
        # No bare numbers: `filters.1` is the first of the repeated range `filters`.
        plain = all(part.isidentifier() for part in name.split("."))
        require(plain, name, value, "its name must be words of letters, digits and _, with dots between them")
        inner = next((other for other in names if other.startswith(f"{name}.")), None)
        require(inner is None, name, value, f"it cannot be given together with {inner}; give one of the two")
        require(names.count(name) == 1, name, value, "it is given twice, nested and by its dotted name")
    return dict(leaves)
